/* A certificate into a target's folder, its hook run, and what was there before put back where that fails. And what is known of
 * it at the next start. */
#ifndef CSM_DELIVER_PUT_H
#define CSM_DELIVER_PUT_H

#include "daemon/deliver/hook.h"
#include "libclient/certdir/certdir.h"

/* The hook of one event; as delivery_hooks_run. */
typedef int delivery_hook_fn(void *arg, enum delivery_event event, char *why);

/* why, of DELIVERY_WHY bytes: what went wrong, and what became of the folder. 0: delivered, the hook well. *outcome, static:
 * "delivered"; "refused": the folder is as it was; "rolled_back": it is so again; "kept": it has the new certificate, but the
 * hook failed. */
CSM_MUST int delivery_put(const struct delivery_target *t, const struct csm_msg_cert_info *info, struct csm_bin spki,
	delivery_hook_fn *hook, void *arg, char *why, const char **outcome);

/* The same in steps, for hooks that are not waited for here. The new generation comes into its place; its hook is to be run,
 * DELIVERY_NEW. */
CSM_MUST int delivery_put_begin(const struct delivery_target *t, const struct csm_msg_cert_info *info, struct csm_bin spki,
	struct csm_gen **ret, char *why);
/* That hook ended with r, and why says more. True: what was there before is there again, and has its hook, DELIVERY_BACK, to
 * be run. *outcome as above. The caller closes the generation. */
bool delivery_put_hooked(const struct delivery_target *t, struct csm_gen *g, int r, char *why, const char **outcome);

/* What was delivered: kept in state_dir, one file a target. */
struct delivery_stamp {
	char fingerprint[65]; /* "": nothing is known */
	uint64_t delivered;
};
/* The folder of states, made where it is not there; CSM_EDENIED: it is not ours alone. Before the sandbox. */
CSM_MUST int delivery_state_open(const char *dir, int *ret);
/* Known is what was written for the same target, with the same folder, owner and modes, if its folder is there still. */
void delivery_stamp_read(int state, const struct delivery_target *t, struct delivery_stamp *ret);
CSM_MUST int delivery_stamp_write(int state, const struct delivery_target *t, const struct delivery_stamp *s);

#endif
