#include <stdlib.h>
#include <string.h>
#include "daemon/svc/keycache.h"

void csm_keycache_init(struct csm_keycache *c, size_t max)
{
	memset(c, 0, sizeof(*c));
	pthread_mutex_init(&c->lock, NULL);
	c->max = max;
}

static struct csm_cached_key **bucket_of(struct csm_keycache *c, const uint8_t *id)
{
	/* Ids are random: any byte spreads them. */
	return &c->bucket[id[0] % CSM_KEYCACHE_BUCKETS];
}

struct csm_cached_key *csm_keycache_take(struct csm_keycache *c, const uint8_t id[static CSM_KEY_ID_LEN])
{
	struct csm_cached_key **at, *k;

	pthread_mutex_lock(&c->lock);
	for (at = bucket_of(c, id); (k = *at) != NULL; at = &k->next)
		if (memcmp(k->id, id, CSM_KEY_ID_LEN) == 0) {
			*at = k->next;
			c->n--;
			break;
		}
	pthread_mutex_unlock(&c->lock);
	return k;
}

int csm_cached_key_load(struct csm_backend *be, const struct csm_key_record *rec, struct csm_cached_key **ret)
{
	unsigned use = rec->use == CSM_USE_ISSUER ? CSM_USE_SIGN : rec->use;
	struct csm_plugin_keyspec spec = {.alg = rec->alg, .use = use, .exportable = rec->exportable};
	struct csm_plugin_blob blob = {.spki = rec->spki.p, .spki_len = rec->spki.n, .pub = rec->pub.p,
		.pub_len = rec->pub.n, .priv = rec->priv.p, .priv_len = rec->priv.n};
	struct csm_cached_key *k = calloc(1, sizeof(*k));
	int r;

	if (k == NULL)
		return CSM_ENOMEM;
	if ((r = csm_be_load(be, &spec, &blob, &k->key)) != 0) {
		free(k);
		return r;
	}
	memcpy(k->id, rec->id, CSM_KEY_ID_LEN);
	k->be = be;
	*ret = k;
	return 0;
}

void csm_cached_key_free(struct csm_cached_key *k)
{
	if (k == NULL)
		return;
	csm_be_unload(k->be, k->key);
	free(k);
}

void csm_keycache_put(struct csm_keycache *c, struct csm_cached_key *k, uint64_t now_ms)
{
	struct csm_cached_key **at = bucket_of(c, k->id);

	k->used_ms = now_ms;
	pthread_mutex_lock(&c->lock);
	if (c->n < c->max) {
		k->next = *at;
		*at = k;
		c->n++;
		k = NULL;
	}
	pthread_mutex_unlock(&c->lock);
	csm_cached_key_free(k);
}

/* Unlink what `pick` chooses, then unload it outside of the lock. */
static void remove_some(struct csm_keycache *c, bool (*pick)(const struct csm_cached_key *k, const void *arg),
	const void *arg)
{
	struct csm_cached_key *gone = NULL, **at, *k;

	pthread_mutex_lock(&c->lock);
	for (size_t i = 0; i < CSM_KEYCACHE_BUCKETS; i++)
		for (at = &c->bucket[i]; (k = *at) != NULL;) {
			if (!pick(k, arg)) {
				at = &k->next;
				continue;
			}
			*at = k->next;
			c->n--;
			k->next = gone;
			gone = k;
		}
	pthread_mutex_unlock(&c->lock);
	while ((k = gone) != NULL) {
		gone = k->next;
		csm_cached_key_free(k);
	}
}

static bool older(const struct csm_cached_key *k, const void *arg)
{
	return k->used_ms <= *(const uint64_t *)arg;
}

void csm_keycache_sweep(struct csm_keycache *c, uint64_t now_ms, uint64_t idle_ms)
{
	uint64_t before = now_ms - idle_ms;

	if (now_ms > idle_ms)
		remove_some(c, older, &before);
}

static bool has_id(const struct csm_cached_key *k, const void *arg)
{
	return arg == NULL || memcmp(k->id, arg, CSM_KEY_ID_LEN) == 0;
}

void csm_keycache_drop(struct csm_keycache *c, const uint8_t *id)
{
	remove_some(c, has_id, id);
}
