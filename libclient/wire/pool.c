#include <stdlib.h>
#include <string.h>
#include "libclient/wire/msg.h"

#define POOL_ALIGN 16u
#define POOL_FIRST 2048u

/* Stands at the start of a full chunk, behind pool->more. The present chunk is pool->p. */
struct chunk {
	struct chunk *next;
	size_t cap;
};
_Static_assert(sizeof(struct chunk) == POOL_ALIGN, "what follows a chunk's head is aligned");

void csm_pool_init(struct csm_pool *pool, size_t max)
{
	*pool = (struct csm_pool){.max = max};
}

static void pool_drop_full(struct csm_pool *pool)
{
	struct chunk *c = pool->more, *next;

	for (; c != NULL; c = next) {
		next = c->next;
		free(c);
	}
	pool->more = NULL;
}

void csm_pool_reset(struct csm_pool *pool)
{
	pool_drop_full(pool);
	pool->used = 0;
}

void csm_pool_free(struct csm_pool *pool)
{
	pool_drop_full(pool);
	free(pool->p);
	csm_pool_init(pool, pool->max);
}

static size_t pool_total(const struct csm_pool *pool)
{
	size_t total = pool->used;

	for (const struct chunk *c = pool->more; c != NULL; c = c->next)
		total += c->cap;
	return total;
}

static bool pool_grow(struct csm_pool *pool, size_t n)
{
	size_t cap = pool->cap > 0 ? pool->cap * 2 : POOL_FIRST;
	uint8_t *p;

	while (cap < n + sizeof(struct chunk))
		cap *= 2;
	p = malloc(cap);
	if (p == NULL)
		return false;
	if (pool->p != NULL && pool->used > 0) {
		struct chunk *full = (struct chunk *)pool->p;

		full->next = pool->more;
		full->cap = pool->used;
		pool->more = full;
	} else {
		free(pool->p);
	}
	pool->p = p;
	pool->cap = cap;
	pool->used = 0;
	return true;
}

bool csm_pool_full(const struct csm_pool *pool, size_t n)
{
	return n > pool->max || n > SIZE_MAX / 4 || pool_total(pool) > pool->max - n;
}

void *csm_pool_alloc(struct csm_pool *pool, size_t n)
{
	size_t at;

	if (csm_pool_full(pool, n))
		return NULL;
	n = (n + POOL_ALIGN - 1) / POOL_ALIGN * POOL_ALIGN;
	at = pool->used > 0 ? pool->used : sizeof(struct chunk);
	if (pool->p == NULL || n > pool->cap - at) {
		if (!pool_grow(pool, n))
			return NULL;
		at = sizeof(struct chunk);
	}
	pool->used = at + n;
	return memset(pool->p + at, 0, n);
}
