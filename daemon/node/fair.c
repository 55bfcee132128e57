#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "daemon/node/conn.h"
#include "daemon/node/fair.h"

static uint64_t monotonic_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static void begin(struct loop *l)
{
	l->served = 0;
	if (fair_contested(l))
		l->turn_end_us = monotonic_us() +
			(l->now_ms - l->contested_ms < FAIR_CALM_MS ? FAIR_TURN_US : FAIR_CALM_US);
}

bool fair_over(const struct loop *l)
{
	return fair_contested(l) ? monotonic_us() >= l->turn_end_us : fair_used_up(l);
}

/* ---- queues ---- */

static void push_turn(struct turns *t, struct user *u)
{
	u->in = t;
	u->next_turn = NULL;
	*t->tail = u;
	t->tail = &u->next_turn;
}

static void drop_turn(struct user *u)
{
	struct user **at = &u->in->first;

	while (*at != u)
		at = &(*at)->next_turn;
	*at = u->next_turn;
	if (*at == NULL)
		u->in->tail = at;
	u->in = NULL;
}

static bool waiting(const struct loop *l)
{
	return l->fresh.first != NULL || l->turns.first != NULL;
}

static void unqueue(struct conn *c)
{
	struct user *u = c->user;

	*(c->prev_ready != NULL ? &c->prev_ready->next_ready : &u->first) = c->next_ready;
	*(c->next_ready != NULL ? &c->next_ready->prev_ready : &u->last) = c->prev_ready;
	c->is_ready = false;
}

void fair_ready(struct conn *c)
{
	struct loop *l = c->loop;
	struct user *u = c->user;

	if (c->is_ready)
		return;
	c->is_ready = true;
	c->next_ready = NULL;
	c->prev_ready = u->last;
	*(u->last != NULL ? &u->last->next_ready : &u->first) = c;
	u->last = c;
	if (u->in == NULL)
		push_turn(c->more ? &l->turns : &l->fresh, u);
	event_active(&l->turn_event, 0, 0);
}

/* The next user's next connection is served. True: the user had waited since before. */
static bool serve_one(struct loop *l, bool turns_first)
{
	bool old = l->fresh.first == NULL || (turns_first && l->turns.first != NULL);
	struct user *u = old ? l->turns.first : l->fresh.first;
	struct conn *c = u->first;

	drop_turn(u);
	unqueue(c);
	if (u->first != NULL)
		push_turn(&l->turns, u);
	/* Both may be gone after it. */
	conn_serve(c);
	return old;
}

/* One turn: as long as it lasts, users one after the other, a connection each. */
static void on_turn(evutil_socket_t fd, short what, void *arg)
{
	struct loop *l = arg;
	bool old = false, passed = l->turns_first;

	(void)fd;
	(void)what;
	l->now_ms = monotonic_ms();
	begin(l);
	while (waiting(l)) {
		old |= serve_one(l, passed && !old);
		if (fair_over(l))
			break;
	}
	/* Who comes again and again does not keep others waiting for ever. */
	l->turns_first = !old;
	if (waiting(l)) {
		event_active(&l->turn_event, 0, 0);
		/* Look who has come before going on. */
		event_base_loopcontinue(l->base);
	}
}

/* ---- users ---- */

int fair_enter(struct conn *c)
{
	struct loop *l = c->loop;
	struct user *u;

	for (u = l->users; u != NULL; u = u->next)
		if (u->slot == c->slot && u->role == c->role)
			break;
	if (u == NULL) {
		u = calloc(1, sizeof(*u));
		if (u == NULL)
			return CSM_ENOMEM;
		u->slot = c->slot;
		u->role = c->role;
		u->next = l->users;
		l->users = u;
		l->n_users++;
	}
	u->n_conns++;
	c->user = u;
	return 0;
}

void fair_leave(struct conn *c)
{
	struct loop *l = c->loop;
	struct user *u = c->user, **at = &l->users;

	if (u == NULL)
		return;
	if (c->is_ready)
		unqueue(c);
	if (u->in != NULL && u->first == NULL)
		drop_turn(u);
	c->user = NULL;
	if (--u->n_conns > 0)
		return;
	while (*at != u)
		at = &(*at)->next;
	*at = u->next;
	l->n_users--;
	free(u);
}

void fair_init(struct loop *l)
{
	l->fresh.tail = &l->fresh.first;
	l->turns.tail = &l->turns.first;
	event_assign(&l->turn_event, l->base, -1, 0, on_turn, l);
}

void fair_free(struct loop *l)
{
	if (event_initialized(&l->turn_event))
		event_del(&l->turn_event);
}
