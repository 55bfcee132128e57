/* Loaded keys that are not in use, by key id: a caller takes one out, uses it alone, and puts it back; so
 * several threads may each have the same key loaded. What is idle too long, or too much, is unloaded (and so
 * wiped by its back end). */
#ifndef CSM_SVC_KEYCACHE_H
#define CSM_SVC_KEYCACHE_H

#include <pthread.h>
#include "daemon/svc/backend.h"
#include "daemon/svc/store.h"

#define CSM_KEYCACHE_BUCKETS 256u

struct csm_cached_key {
	uint8_t id[CSM_KEY_ID_LEN];
	struct csm_backend *be;
	struct csm_plugin_key *key;
	uint64_t used_ms; /* monotonic */
	struct csm_cached_key *next;
};
struct csm_keycache {
	pthread_mutex_t lock;
	size_t n, max;
	struct csm_cached_key *bucket[CSM_KEYCACHE_BUCKETS];
};

void csm_keycache_init(struct csm_keycache *c, size_t max);
/* A loaded key of that id, now the caller's; NULL when there is none. */
struct csm_cached_key *csm_keycache_take(struct csm_keycache *c, const uint8_t id[static CSM_KEY_ID_LEN]);
/* Load one anew. The caller's thread must be one that may call the back end. */
CSM_MUST int csm_cached_key_load(struct csm_backend *be, const struct csm_key_record *rec, struct csm_cached_key **ret);
void csm_cached_key_free(struct csm_cached_key *k);
/* Give it back; above max it is unloaded. */
void csm_keycache_put(struct csm_keycache *c, struct csm_cached_key *k, uint64_t now_ms);
/* Unload what was not used since now_ms - idle_ms. */
void csm_keycache_sweep(struct csm_keycache *c, uint64_t now_ms, uint64_t idle_ms);
/* Unload all of one id, or all (NULL). */
void csm_keycache_drop(struct csm_keycache *c, const uint8_t *id);

#endif
