/* Who may connect: counts of connections and of bytes waiting for the rest of their message, per uid and in
 * all, and of the descriptors that connections and their peers take. Any thread. */
#ifndef CSM_NODE_ADMIT_H
#define CSM_NODE_ADMIT_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>
#include "libclient/base/err.h"

#define ADMIT_BUFFERED_PER_UID (32u * 1024u * 1024u) /* parts of messages, and copies in operations */
#define ADMIT_COMMITS_PER_UID 1024u                  /* changes that wait for the store */

#define ADMIT_PLACE_MAX 64u /* the id of a container */

/* Whose connections are counted together: a uid's on the public socket, a uid's on the administrator's, or a pod's or
 * container's, whatever the uid. */
struct admit_slot {
	uid_t uid;
	bool admin;
	char place[ADMIT_PLACE_MAX + 1]; /* empty: of a uid */
	uint32_t number;          /* no other slot's */
	unsigned n;               /* connections, under admit.lock */
	size_t buffered;          /* bytes that wait, under admit.lock */
	unsigned commits;         /* changes that wait for the store, under admit.lock */
	struct admit_slot *next;
};
struct admit {
	pthread_mutex_t lock;
	unsigned total, max, per_uid, reserved;
	unsigned files, files_max;
	uint32_t last_number;
	struct admit_slot *slots[256];
};

/* Of descriptors there are as many as one likes until files_max is set. */
void admit_init(struct admit *a, unsigned max, unsigned per_uid, unsigned reserved);
/* NULL when uid or the whole has too many, or descriptors run out; `admin` may use the reserve. Two descriptors are
 * counted: the connection's, and its peer's pidfd, which goes when admit_file_spared tells that there is none: the peer
 * was known already, has none, or is gone. */
struct admit_slot *admit_enter(struct admit *a, uid_t uid, bool admin);
/* The connection's peer turned out to be in a pod or container: it counts there from here on. The new slot, or NULL, with
 * nothing changed, when that has too many. */
struct admit_slot *admit_move(struct admit *a, struct admit_slot *slot, const char *place);
void admit_file_spared(struct admit *a);
void admit_leave(struct admit *a, struct admit_slot *slot);
/* Charge n bytes, or one change; false, with nothing changed, when it would be too many. What was charged may be given
 * back after admit_leave. */
bool admit_charge(struct admit *a, struct admit_slot *slot, size_t n);
void admit_credit(struct admit *a, struct admit_slot *slot, size_t n);
bool admit_commit(struct admit *a, struct admit_slot *slot);
void admit_committed(struct admit *a, struct admit_slot *slot);
unsigned admit_total(struct admit *a);

#endif
