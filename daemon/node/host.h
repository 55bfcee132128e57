/* The broker as host of its back ends: loading, opening, what they may ask for. */
#ifndef CSM_NODE_HOST_H
#define CSM_NODE_HOST_H

#include "daemon/node/broker.h"

struct plug;
#define POLICY_TEXT_MAX 32768u

/* One back end's view of the broker. */
struct host_arg {
	struct broker *b;
	struct csm_backend *be;
	struct csm_store *pins;
	struct plug *plug; /* its process, or NULL: it is in here */
	char *owner_auth;  /* locked memory, or NULL */
	char device[256];
	char text[POLICY_TEXT_MAX]; /* of a file that was asked for last */
	int text_errno;
	struct csm_job job; /* open or look, on the owner's thread */
	atomic_bool queued;
};
/* A fresh descriptor to the TPM; -1 with errno. Any thread. */
int host_ask_device(void *arg);
/* The TPM's section of the configuration, as its back end is told it. */
const char *host_tpm_config(struct host_arg *a, const char *name);
/* Open it, or see how it is: soon, on a thread that may. Any thread. */
void host_look(struct host_arg *a);
struct host_arg *host_arg_of(struct broker *b, unsigned plughost); /* NULL: there is none */

/* Load the objects of all back ends that are to be there. Before the sandbox. */
CSM_MUST int host_load_backends(struct broker *b);
/* Open what can be opened; choose the preferred one. pins: where small records are kept. Before threads. */
CSM_MUST int host_open_backends(struct broker *b, struct csm_store *pins);
/* Once a second, main thread: try again what is not open, look at what is. */
void host_tick(struct broker *b);

#endif
