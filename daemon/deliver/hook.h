/* Hooks and reloads, run by a process of its own, which alone can become another user and execute programs. Its parent, which
 * reads what csmd sends, can ask it for what root's configuration has, by the target's number, and for nothing else. */
#ifndef CSM_DELIVER_HOOK_H
#define CSM_DELIVER_HOOK_H

#include "daemon/deliver/config.h"

enum delivery_event {
	DELIVERY_NEW,   /* a generation has come into place */
	DELIVERY_BACK,  /* and the one before is there again */
	DELIVERY_CHECK, /* no hook: is deliver.yaml, as it is now, without fault? */
};

/* Start it; *ret is the socket to it. Before the sandbox; it ends with its parent. */
CSM_MUST int delivery_hooks_start(const struct delivery_config *c, const char *config_path, int *ret);
/* Ask, and wait. 0, CSM_ETIMEOUT (ended at the deadline), CSM_EINVALID (it failed, or the file is wrong), CSM_EDENIED (its
 * program is not to be trusted), CSM_ECLOSED (the process is gone). why, of DELIVERY_WHY bytes, says more. */
CSM_MUST int delivery_hooks_run(int sock, size_t target, enum delivery_event event, char *why);
/* The same in two steps: the answer is there when sock can be read. One question at a time. */
CSM_MUST int delivery_hooks_ask(int sock, size_t target, enum delivery_event event, char *why);
CSM_MUST int delivery_hooks_answer(int sock, char *why);
/* What the process does for one question. */
CSM_MUST int delivery_hook_run(const struct delivery_target *t, enum delivery_event event, char *why);

#endif
