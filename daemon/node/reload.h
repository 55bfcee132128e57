/* The policy in force, and its change under way. */
#ifndef CSM_NODE_RELOAD_H
#define CSM_NODE_RELOAD_H

#include "daemon/node/broker.h"

/* The policy that the supervisor handed over; its warnings are logged. CSM_EINVALID with *err. */
CSM_MUST int policy_from_setup(const struct setup *s, struct csm_policy **ret, struct csm_policy_error *err);
/* A setup with a new policy has come (fd is taken): it becomes the one in force, or the old one stays; who waits is
 * told, and the supervisor. Main thread. */
void policy_reload(struct broker *b, int fd);

/* The broker stops: who waits is told, and nobody waits from here on. */
void policy_reload_stop(struct broker *b);

#endif
