/* Signatures by key since they were last folded into the store. Any thread. */
#ifndef CSM_NODE_COUNTS_H
#define CSM_NODE_COUNTS_H

#include <pthread.h>
#include "daemon/svc/store.h"

struct count_users;
struct counts {
	pthread_mutex_t lock;
	struct count_users *users; /* NULL: who signs is not noted */
	struct csm_count *slots; /* open addressing; add == 0 is free */
	size_t n, cap;           /* cap is a power of two, or 0 */
	struct csm_count *folding; /* on their way to the store */
	size_t n_folding;
};
void counts_init(struct counts *c);
void counts_free(struct counts *c);
/* Who signs, as far as it is known without asking anybody. */
struct count_who {
	uid_t uid;
	struct csm_audit_place *place; /* NULL: not known */
	const char *program;           /* its path as it was looked at last; NULL: it never was */
};
/* who NULL: csmd itself. */
void counts_add(struct counts *c, const uint8_t id[static CSM_KEY_ID_LEN], const struct count_who *who);
uint64_t counts_pending(struct counts *c, const uint8_t id[static CSM_KEY_ID_LEN]);
/* What is to be folded: borrowed until counts_folded; false when there is nothing, or a fold is under way. */
bool counts_fold(struct counts *c, const struct csm_count **ret, size_t *n);
/* The fold is durable (or failed: what it held is counted again). */
void counts_folded(struct counts *c, bool durable);

/* ---- counts_users.c: who signed how often. In memory alone and bounded: what finds no place is not noted. ---- */
CSM_MUST int counts_users_on(struct counts *c);
void counts_users_free(struct counts *c);
/* With the lock held. */
void counts_users_add(struct counts *c, const uint8_t id[static CSM_KEY_ID_LEN], const struct count_who *who);
#define COUNT_TEXT_MAX 500u
#define COUNT_SHARES_MAX 8u
struct count_share {
	char identity[COUNT_TEXT_MAX + 1], program[COUNT_TEXT_MAX + 1]; /* printable ASCII */
	uint64_t n, last_used;
};
/* Those who made most of the last `most` signatures with this key; what is told here is not told again, and who made
 * fewer than these is forgotten. The sum is at most `most`. */
size_t counts_users_take(struct counts *c, const uint8_t id[static CSM_KEY_ID_LEN], uint64_t most,
	struct count_share ret[static COUNT_SHARES_MAX]);

#endif
