/* The way to the TPM: a TCTI over a descriptor that the host opens. Owner thread only.
 *
 * "socket": swtpm's data socket, a stream of bare commands and responses. swtpm serves one connection at
 * a time, so this one is given up between uses (t2_tcti_release) and taken again by the next command.
 * "manager": a connection of a resource manager (tpm2-abrmd), a stream too, with objects and sessions of its own.
 * "device": /dev/tpm*; the host opens it with O_NONBLOCK, else time limits do not hold.
 *
 * Only poll, read, write, sendmsg and close are called on the descriptor. A command that got no whole
 * answer in its time costs the connection: a late answer can never be taken for another command's.
 * RETRY, TESTING and YIELDED are answered here by sending the same bytes again. */
#ifndef PLUGINS_TPM2_TCTI_H
#define PLUGINS_TPM2_TCTI_H

#include <stdbool.h>
#include <tss2/tss2_tcti.h>
#include "plugins/include/csm_plugin.h"

#define T2_WIRE_MAX 4096u

struct t2_tcti {
	TSS2_TCTI_CONTEXT_COMMON_V2 common; /* first: the SAPI context holds a pointer to it */
	const struct csm_plugin_host *host;
	bool stream;       /* kind "socket" or "manager" */
	bool keep;         /* kind "manager": objects live as long as the connection, which is not given up */
	unsigned connects; /* times that a descriptor was taken */
	int fd;            /* -1: not connected */
	uint64_t taken_ms; /* when the descriptor was taken */
	uint64_t commands; /* sent, resent ones included */
	uint8_t cmd[T2_WIRE_MAX];
	size_t cmd_len;
	uint8_t rsp[T2_WIRE_MAX];
};

void t2_tcti_init(struct t2_tcti *t, const struct csm_plugin_host *host, bool stream);
/* Close the descriptor; the next command takes a new one. */
void t2_tcti_drop(struct t2_tcti *t);
/* Between two commands of a "socket": drop if it was taken min_ms ago or longer. */
void t2_tcti_release(struct t2_tcti *t, uint64_t min_ms);

uint64_t t2_now_ms(void); /* CLOCK_MONOTONIC */
void t2_pause_ms(int ms);

#endif
