#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include "daemon/svc/rates.h"

#define SETS 1024u
#define WAYS 8u
#define BACK_MS 10000u /* a clock that went back by more was set */

struct bucket {
	uint64_t key;  /* a keyed hash: 0 is a bucket that nobody has */
	uint64_t at;   /* ms */
	uint64_t left; /* thousandths */
};

struct csm_rates {
	pthread_mutex_t lock;
	unsigned per_s, burst;
	uint8_t secret[crypto_shorthash_KEYBYTES];
	struct bucket set[SETS][WAYS];
};

int csm_rates_new(unsigned per_s, unsigned burst, struct csm_rates **ret)
{
	struct csm_rates *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return CSM_ENOMEM;
	if (sodium_init() < 0) {
		free(r);
		return CSM_ESYSTEM;
	}
	pthread_mutex_init(&r->lock, NULL);
	r->per_s = per_s;
	r->burst = burst > 0 ? burst : 1;
	randombytes_buf(r->secret, sizeof(r->secret));
	*ret = r;
	return 0;
}

void csm_rates_set(struct csm_rates *r, unsigned per_s, unsigned burst)
{
	pthread_mutex_lock(&r->lock);
	r->per_s = per_s;
	r->burst = burst > 0 ? burst : 1;
	pthread_mutex_unlock(&r->lock);
}

void csm_rates_free(struct csm_rates *r)
{
	if (r == NULL)
		return;
	pthread_mutex_destroy(&r->lock);
	free(r);
}

/* The bucket of a key, filled up to now. */
static struct bucket *find(struct csm_rates *r, const void *key, size_t n, uint64_t now_ms)
{
	struct bucket *set, *b;
	uint64_t h;

	crypto_shorthash((uint8_t *)&h, key, n, r->secret);
	h |= h == 0;
	set = r->set[h % SETS];
	b = &set[0];
	for (unsigned i = 0; i < WAYS; i++) {
		if (set[i].key == h) {
			b = &set[i];
			break;
		}
		if (set[i].at < b->at)
			b = &set[i];
	}
	if (b->key != h)
		*b = (struct bucket){.key = h, .at = now_ms, .left = r->burst * UINT64_C(1000)};
	if (now_ms > b->at) {
		uint64_t more = (now_ms - b->at) > 1000000 ? UINT64_MAX / 2 : (now_ms - b->at) * r->per_s;

		b->left = b->left + more > r->burst * UINT64_C(1000) ? r->burst * UINT64_C(1000) : b->left + more;
		b->at = now_ms;
	} else if (b->at - now_ms > BACK_MS) {
		b->at = now_ms;
	}
	return b;
}

int csm_rates_take_many(struct csm_rates *r, const void *key, size_t n, uint64_t now_ms, unsigned count, unsigned *wait_ms)
{
	const uint64_t want = count * UINT64_C(1000);
	struct bucket *b = NULL;
	int ret = 0;

	pthread_mutex_lock(&r->lock);
	if (r->per_s > 0 && (b = find(r, key, n, now_ms))->left >= want) {
		b->left -= want;
	} else if (b != NULL) {
		ret = CSM_EBUSY;
		if (wait_ms != NULL)
			*wait_ms = (unsigned)((want - b->left + r->per_s - 1) / r->per_s);
	}
	pthread_mutex_unlock(&r->lock);
	return ret;
}

int csm_rates_take(struct csm_rates *r, const void *key, size_t n, uint64_t now_ms, unsigned *wait_ms)
{
	return csm_rates_take_many(r, key, n, now_ms, 1, wait_ms);
}

bool csm_rates_spent(struct csm_rates *r, const void *key, size_t n, uint64_t now_ms)
{
	bool spent;

	pthread_mutex_lock(&r->lock);
	spent = r->per_s > 0 && find(r, key, n, now_ms)->left < 1000;
	pthread_mutex_unlock(&r->lock);
	return spent;
}
