/* Who may connect: counts of connections and of bytes waiting for the rest of their message, per uid and in
 * all. Any thread. */
#ifndef CSM_NODE_ADMIT_H
#define CSM_NODE_ADMIT_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>
#include "libclient/base/err.h"

#define ADMIT_BUFFERED_PER_UID (16u * 1024u * 1024u)

struct admit_slot {
	uid_t uid;
	unsigned n;               /* connections, under admit.lock */
	atomic_size_t buffered;   /* bytes of partial messages */
	struct admit_slot *next;
};
struct admit {
	pthread_mutex_t lock;
	unsigned total, max, per_uid, reserved;
	struct admit_slot *slots[256];
};

void admit_init(struct admit *a, unsigned max, unsigned per_uid, unsigned reserved);
/* NULL when uid or the whole has too many; `admin` may use the reserve. */
struct admit_slot *admit_enter(struct admit *a, uid_t uid, bool admin);
void admit_leave(struct admit *a, struct admit_slot *slot);
/* Account n more (or, negative, fewer) bytes; false, with nothing changed, when it would be too many. */
bool admit_buffered(struct admit_slot *slot, ssize_t n);
unsigned admit_total(struct admit *a);

#endif
