/* Signatures by key since they were last folded into the store. Any thread. */
#ifndef CSM_NODE_COUNTS_H
#define CSM_NODE_COUNTS_H

#include <pthread.h>
#include "daemon/svc/store.h"

struct counts {
	pthread_mutex_t lock;
	struct csm_count *slots; /* open addressing; add == 0 is free */
	size_t n, cap;           /* cap is a power of two, or 0 */
	struct csm_count *folding; /* on their way to the store */
	size_t n_folding;
};
void counts_init(struct counts *c);
void counts_free(struct counts *c);
void counts_add(struct counts *c, const uint8_t id[static CSM_KEY_ID_LEN]);
uint64_t counts_pending(struct counts *c, const uint8_t id[static CSM_KEY_ID_LEN]);
/* What is to be folded: borrowed until counts_folded; false when there is nothing, or a fold is under way. */
bool counts_fold(struct counts *c, const struct csm_count **ret, size_t *n);
/* The fold is durable (or failed: what it held is counted again). */
void counts_folded(struct counts *c, bool durable);

#endif
