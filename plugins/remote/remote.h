/* A back end that runs in csm-plughost: its table forwards every slot over the channels of plughost.def. Nothing that comes
 * back is trusted: sizes, numbers and order are checked, and whoever breaks them is cut off and started anew.
 *
 * What the host gives to this back end: device(): the descriptors of a fresh csm-plughost's channels, CSM_PLUG_CHANNELS
 * calls one after the other; -1 while there is none. reset(): end it and start another. config("csm.plugin"): the name that
 * its table has to have; config("csm.timeout_ms"): of a call (CSM_PLUG_CALL_MS). All else is the host of the back end
 * inside: config, secret, secret_refused, remember, recall, log; its own device comes by config("csm.device") as a number
 * of a descriptor that is closed after it was handed on, asked for each time.
 *
 * Any thread may call; as many calls are in hand at once as there are channels, one where the back end inside is SERIAL.
 * While its process is away all answers are CSM_EUNAVAILABLE; loaded keys load anew by themselves when it is back. */
#ifndef CSM_PLUGIN_REMOTE_H
#define CSM_PLUGIN_REMOTE_H

#include "plugins/include/csm_plugin.h"

extern const struct csm_plugin csm_plugin_remote;

/* Does the back end inside have this optional slot? enum csm_plug_method, of a plugin that is open. */
bool csm_remote_has(const struct csm_plugin_ctx *ctx, unsigned method);
/* Ask for its health, and so notice whether it lives; blocks for a call's time at most. To be called now and then. */
void csm_remote_look(struct csm_plugin_ctx *ctx);

/* A signature in halves, so that nobody waits in between: *fd is readable when something has come. begin: CSM_EBUSY when it has
 * to be made as a whole. end: CSM_EBUSY while it is not there; else it ends it. give_up: it has taken too long; the process is cut
 * off. */
struct csm_remote_half;
int csm_remote_sign_begin(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct csm_scheme *scheme,
	const uint8_t *in, size_t in_len, size_t room, struct csm_remote_half **ret, int *fd);
int csm_remote_sign_end(struct csm_remote_half *half, struct csm_plugin_out *sig);
void csm_remote_sign_give_up(struct csm_remote_half *half);
bool csm_remote_sign_late(const struct csm_remote_half *half);

/* host goes: close what a try to open that failed has kept for the next one. */
void csm_remote_forget(const struct csm_plugin_host *host);

#endif
