/* A broker in a process of its own that is forked, not executed, so that faults can be put into it; the caller is its
 * supervisor and its client. The folder, with its sockets and the store, outlives any number of brokers. */
#ifndef TESTS_FAULT_BROKERPROC_H
#define TESTS_FAULT_BROKERPROC_H

#include <sys/types.h>
#include "daemon/node/control.h"
#include "libclient/wire/frame.h"
#include "tests/lib/swtpm.h"

struct brokerproc {
	char dir[96];
	char log[128];        /* what the broker said, of the last one */
	const char *plugins;  /* folder of the back ends */
	const char *backends; /* for csmd.yaml: "soft" */
	struct swtpm *tpm;    /* NULL: none */
	int public, admin;    /* listening */
	int control, device;  /* our ends; -1: no broker runs */
	pid_t pid;            /* 0: none */
	uint64_t reload_seq;
	char message[160];    /* of the last error */
	struct csm_buf answer;
	struct csm_pool pool;
};

/* A folder and listening sockets; exits where that fails. */
void bp_make(struct brokerproc *b, const char *plugins);
void bp_remove(struct brokerproc *b);
/* An empty state folder. */
void bp_fresh(struct brokerproc *b);
/* Fork one. 0 when it is ready; else it has ended, with the status of waitpid in *status. -1: it hangs. */
int bp_start(struct brokerproc *b, int *status);
/* True when it has ended, as waitpid tells. */
bool bp_ended(struct brokerproc *b, int *status);
/* As the supervisor does; false when it does not end in time (then it is killed). */
bool bp_stop(struct brokerproc *b, int *status);
/* End it by a signal, if it runs. */
void bp_kill(struct brokerproc *b);

/* A client's connection, or -1. */
int bp_connect(const struct brokerproc *b, enum csm_role role);
/* Ask and wait for the answer, while the supervisor's part is done too. 0 with *result (in b->answer until the next
 * call), the code of the error, CSM_ECLOSED, or CSM_ETIMEOUT after five seconds. */
int bp_ask(struct brokerproc *b, int fd, const char *method, const void *params, void *result);

#endif
