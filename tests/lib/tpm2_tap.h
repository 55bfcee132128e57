/* Between a back end and its swtpm: records what crosses, and changes it when told. One thread per
 * connection relays whole messages. */
#ifndef TESTS_LIB_TPM2_TAP_H
#define TESTS_LIB_TPM2_TAP_H

#include <pthread.h>
#include "tests/lib/swtpm.h"

#define TAP_ALL 0u /* any command code */

enum tap_action {
	TAP_NONE,
	TAP_FLIP,   /* flip a bit of the response, offset bytes from its start (negative: from its end) */
	TAP_ANSWER, /* answer with the code, without asking the TPM */
	TAP_LOSE,   /* let the TPM do it, and break the connection instead of answering */
};

struct tpm2_tap {
	pthread_mutex_t lock;
	const struct swtpm *tpm;
	bool device; /* as a character device: a message to a write, a message to a read */
	uint8_t *bytes; /* all commands and responses, one after the other */
	size_t len, cap;
	/* What to do to the next times commands of that code. */
	enum tap_action action;
	uint32_t command;
	uint32_t code;
	int offset;
	unsigned times;
	unsigned seen; /* commands of that code, since tpm2_tap_set */
	pthread_t threads[256];
	unsigned nthreads;
};

/* From now on h->host.device gives descriptors to the tap. */
void tpm2_tap_start(struct tpm2_tap *t, struct swtpm_host *h);
/* After the back end was closed. */
void tpm2_tap_stop(struct tpm2_tap *t);
void tpm2_tap_set(struct tpm2_tap *t, enum tap_action action, uint32_t command, unsigned times, uint32_t code,
	int offset);
unsigned tpm2_tap_seen(struct tpm2_tap *t);
/* Did these bytes cross, in either direction? */
bool tpm2_tap_has(struct tpm2_tap *t, const void *p, size_t n);

#endif
