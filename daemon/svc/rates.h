/* How often somebody may do something: a bucket for each key, filled steadily, emptied by what is done. A table of fixed size:
 * when it is full, the bucket that has lain untouched longest makes room. Any thread. */
#ifndef CSM_SVC_RATES_H
#define CSM_SVC_RATES_H

#include <stddef.h>
#include <stdint.h>
#include "libclient/base/err.h"

struct csm_rates;
/* per_s: 0 for no limit. burst: what may be done at once after a rest. */
CSM_MUST int csm_rates_new(unsigned per_s, unsigned burst, struct csm_rates **ret);
/* From now on; what is left in each bucket stays. */
void csm_rates_set(struct csm_rates *r, unsigned per_s, unsigned burst);
void csm_rates_free(struct csm_rates *r);
/* One more by whom the key names. CSM_EBUSY: too many; then and only then *wait_ms (may be NULL) is how long to wait. */
CSM_MUST int csm_rates_take(struct csm_rates *r, const void *key, size_t n, uint64_t now_ms, unsigned *wait_ms);
/* `count` of them, or none; at most the burst, else never. */
CSM_MUST int csm_rates_take_many(struct csm_rates *r, const void *key, size_t n, uint64_t now_ms, unsigned count, unsigned *wait_ms);
/* Would csm_rates_take be refused? Takes nothing. */
bool csm_rates_spent(struct csm_rates *r, const void *key, size_t n, uint64_t now_ms);

#endif
