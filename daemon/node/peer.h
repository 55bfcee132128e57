/* The process at the other end, and the connections it has on one loop. */
#ifndef CSM_NODE_PEER_H
#define CSM_NODE_PEER_H

#include "daemon/node/loop.h"
#include "daemon/svc/policy.h"

struct peer {
	struct loop *loop;
	struct csm_facts facts;
	struct csm_audit_place *place; /* NULL: nothing is known */
	int pidfd; /* -1 where the kernel has none */
	uint64_t pidfd_ino;
	struct csm_subject *subject; /* under loop->policy as it was; NULL before the first use */
	struct csm_exe *exe;         /* the program as it was looked at last; NULL before that */
	struct csm_subject *exe_subject; /* with that program, under loop->policy as it was; or NULL */
	unsigned n_conns;
	struct event exit_event;
	struct peer *next;
};

/* The peer of a connected socket: an existing one of the same process and facts, or a new one, which keeps the second
 * descriptor that admit_enter counted until it is put. On failure that is still the caller's. */
CSM_MUST int peer_get(struct loop *l, int fd, struct peer **ret);
void peer_put(struct peer *p);
/* The peer as policy sees it now. Borrowed until the next call. */
CSM_MUST int peer_subject(struct peer *p, const struct csm_subject **ret);

/* The peer as policy sees it when its program is exe. Borrowed until the next call. */
CSM_MUST int peer_subject_with(struct peer *p, const struct csm_exe *exe, const struct csm_subject **ret);
/* False when the process is gone, or nothing tells whether it is. */
bool peer_lives(const struct peer *p);
/* A key signed for this peer; NULL: for one of csmd's own processes. */
void peer_signed(struct loop *l, const struct peer *p, const uint8_t id[static CSM_KEY_ID_LEN]);

#endif
