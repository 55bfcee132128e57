#include <stdlib.h>
#include "daemon/plughost/serve.h"

/* A number is place and turn: that of something gone is never that of something else. */
static uint64_t number_of(const struct server *s, size_t place)
{
	return (uint64_t)s->held[place].turn << 32 | place;
}

int held_init(struct server *s)
{
	s->held = calloc(CSM_PLUG_KEYS_MAX, sizeof(*s->held));
	return s->held == NULL ? CSM_ENOMEM : 0;
}

uint64_t held_put(struct server *s, struct csm_plugin_key *key, struct csm_plugin_op *op)
{
	uint64_t number = 0;

	pthread_mutex_lock(&s->lock);
	for (size_t n = 0; n < CSM_PLUG_KEYS_MAX && number == 0; n++) {
		size_t i = (s->first_free + n) % CSM_PLUG_KEYS_MAX;

		if (s->held[i].used)
			continue;
		s->held[i] = (struct held){.turn = ++s->turns, .used = true, .key = key, .op = op};
		s->first_free = (uint32_t)i + 1;
		number = number_of(s, i);
	}
	pthread_mutex_unlock(&s->lock);
	return number;
}

static struct held *find(struct server *s, uint64_t number)
{
	size_t i = number & UINT32_MAX;

	return i < CSM_PLUG_KEYS_MAX && s->held[i].used && number_of(s, i) == number ? &s->held[i] : NULL;
}

static struct held look(struct server *s, uint64_t number, bool take)
{
	struct held found = {0}, *at;

	pthread_mutex_lock(&s->lock);
	at = find(s, number);
	if (at != NULL) {
		found = *at;
		at->used = at->used && !take;
	}
	pthread_mutex_unlock(&s->lock);
	return found;
}

struct csm_plugin_key *held_key(struct server *s, uint64_t number)
{
	return look(s, number, false).key;
}

struct csm_plugin_op *held_op(struct server *s, uint64_t number)
{
	return look(s, number, false).op;
}

struct held held_take(struct server *s, uint64_t number)
{
	return look(s, number, true);
}

bool held_next(struct server *s, struct held *ret)
{
	bool found = false;

	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < CSM_PLUG_KEYS_MAX && !found; i++)
		if (s->held[i].used) {
			*ret = s->held[i];
			s->held[i].used = false;
			found = true;
		}
	pthread_mutex_unlock(&s->lock);
	return found;
}
