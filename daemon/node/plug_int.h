/* What plug.c and plug_pin.c share. */
#ifndef CSM_NODE_PLUG_INT_H
#define CSM_NODE_PLUG_INT_H

#include "daemon/node/plug.h"

#define PLUG_RECORD_NAME_MAX 100u

struct plug {
	const struct csm_plughost_config *c;
	unsigned number;
	char timeout[16];
	pthread_mutex_t lock;
	int fd[CSM_PLUG_CHANNELS]; /* of the newest process */
	size_t come, taken;        /* of fd */
	uint32_t generation;       /* of the process that fd belong to */
	char last_line[200];
	uint64_t last_line_ms, lines_ms;
	unsigned lines;            /* in the second that began at lines_ms */
	atomic_bool denied;        /* it was told that its PIN is not handed out */
};
/* Its records have its name before theirs: none is another's. */
bool plug_record_name(const struct plug *p, const char *name, char out[static PLUG_RECORD_NAME_MAX]);

/* ---- plug_pin.c: callbacks of struct csm_plugin_host ---- */
int plug_secret(void *arg, const char *name, uint8_t *out, size_t *len);
void plug_secret_refused(void *arg, const char *name);

#endif
