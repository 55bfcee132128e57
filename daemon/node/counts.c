#include <stdlib.h>
#include <string.h>
#include "daemon/node/counts.h"

#define FIRST_CAP 64u

void counts_init(struct counts *c)
{
	memset(c, 0, sizeof(*c));
	pthread_mutex_init(&c->lock, NULL);
}

void counts_free(struct counts *c)
{
	counts_users_free(c);
	free(c->slots);
	free(c->folding);
	c->slots = c->folding = NULL;
}

/* The slot of an id, or the free one where it belongs. Ids are random. */
static struct csm_count *slot_of(struct csm_count *slots, size_t cap, const uint8_t *id)
{
	size_t at;

	memcpy(&at, id, sizeof(at));
	for (;; at++) {
		struct csm_count *s = &slots[at & (cap - 1)];

		if (s->add == 0 || memcmp(s->id, id, CSM_KEY_ID_LEN) == 0)
			return s;
	}
}

static bool grow(struct counts *c)
{
	size_t cap = c->cap == 0 ? FIRST_CAP : 2 * c->cap;
	struct csm_count *slots = calloc(cap, sizeof(*slots));

	if (slots == NULL)
		return false;
	for (size_t i = 0; i < c->cap; i++)
		if (c->slots[i].add != 0)
			*slot_of(slots, cap, c->slots[i].id) = c->slots[i];
	free(c->slots);
	c->slots = slots;
	c->cap = cap;
	return true;
}

static void add_locked(struct counts *c, const uint8_t *id, uint64_t n)
{
	struct csm_count *s;

	/* Without memory a count is lost, never a signature. */
	if (2 * (c->n + 1) > c->cap && !grow(c))
		return;
	s = slot_of(c->slots, c->cap, id);
	if (s->add == 0) {
		memcpy(s->id, id, CSM_KEY_ID_LEN);
		c->n++;
	}
	s->add += n;
}

void counts_add(struct counts *c, const uint8_t id[static CSM_KEY_ID_LEN], const struct count_who *who)
{
	pthread_mutex_lock(&c->lock);
	add_locked(c, id, 1);
	if (c->users != NULL)
		counts_users_add(c, id, who);
	pthread_mutex_unlock(&c->lock);
}

uint64_t counts_pending(struct counts *c, const uint8_t id[static CSM_KEY_ID_LEN])
{
	uint64_t n = 0;

	pthread_mutex_lock(&c->lock);
	if (c->cap > 0)
		n = slot_of(c->slots, c->cap, id)->add;
	for (size_t i = 0; i < c->n_folding; i++)
		if (memcmp(c->folding[i].id, id, CSM_KEY_ID_LEN) == 0)
			n += c->folding[i].add;
	pthread_mutex_unlock(&c->lock);
	return n;
}

bool counts_fold(struct counts *c, const struct csm_count **ret, size_t *n)
{
	size_t got = 0;
	bool some = false;

	pthread_mutex_lock(&c->lock);
	if (c->n > 0 && c->folding == NULL) {
		for (size_t i = 0; i < c->cap; i++)
			if (c->slots[i].add != 0)
				c->slots[got++] = c->slots[i];
		c->folding = c->slots;
		c->n_folding = got;
		c->slots = NULL;
		c->n = c->cap = 0;
		*ret = c->folding;
		*n = got;
		some = true;
	}
	pthread_mutex_unlock(&c->lock);
	return some;
}

void counts_folded(struct counts *c, bool durable)
{
	pthread_mutex_lock(&c->lock);
	for (size_t i = 0; !durable && i < c->n_folding; i++)
		add_locked(c, c->folding[i].id, c->folding[i].add);
	free(c->folding);
	c->folding = NULL;
	c->n_folding = 0;
	pthread_mutex_unlock(&c->lock);
}
