#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/node/ask.h"
#include "daemon/node/conn.h"

struct asks *asks_new(void)
{
	struct asks *a = calloc(1, sizeof(*a));

	if (a == NULL)
		return NULL;
	pthread_mutex_init(&a->lock, NULL);
	return a;
}

void asks_free(struct asks *a)
{
	if (a == NULL)
		return;
	pthread_mutex_destroy(&a->lock);
	free(a);
}

static void finish(struct asks *a, struct ask *ask, int r, const char *why)
{
	ask->r = r;
	if (why != NULL)
		snprintf(ask->why, sizeof(ask->why), "%s", why);
	if (r != 0)
		atomic_fetch_add(&a->refused, 1);
	ask->done(ask);
}

/* ---- lanes; all of it under the lock ---- */

static struct ask_lane *lane_of(struct asks *a, uint32_t user, bool digest)
{
	struct ask_lane **head = &a->lanes[user % ASK_BUCKETS], *l;

	for (l = *head; l != NULL; l = l->next)
		if (l->user == user && l->digest == digest)
			return l;
	l = calloc(1, sizeof(*l));
	if (l == NULL)
		return NULL;
	l->user = user;
	l->digest = digest;
	l->next = *head;
	*head = l;
	return l;
}

/* Of a lane without questions, which has no turn. */
static void lane_free(struct asks *a, struct ask_lane *l)
{
	struct ask_lane **at = &a->lanes[l->user % ASK_BUCKETS];

	while (*at != l)
		at = &(*at)->next;
	*at = l->next;
	free(l);
}

/* To the end of those whose turn it is, if it has something to send. */
static void turn_add(struct asks *a, struct ask_lane *l)
{
	if (l->has_turn || l->waiting == NULL || l->n_sent >= ASK_SENT_MAX)
		return;
	l->has_turn = true;
	l->next_turn = NULL;
	if (a->turns == NULL)
		a->turns = l;
	else
		a->last_turn->next_turn = l;
	a->last_turn = l;
}

static void lane_put(struct ask_lane *l, struct ask *ask)
{
	ask->next = NULL;
	if (l->waiting == NULL)
		l->waiting = ask;
	else
		l->last->next = ask;
	l->last = ask;
}

/* What was sent waits again, before all that was never sent. */
static void lane_put_back(struct ask_lane *l, struct ask *ask)
{
	struct ask **at = &l->waiting;

	while (*at != NULL && (*at)->id < ask->id)
		at = &(*at)->next;
	ask->next = *at;
	*at = ask;
	if (ask->next == NULL)
		l->last = ask;
	l->n_sent--;
}

/* Takes out of a list those that `due` is true of. */
static void take_from(struct ask **list, bool sent, bool (*due)(const struct ask *ask, uint64_t arg), uint64_t arg,
	struct ask **taken)
{
	while (*list != NULL) {
		struct ask *ask = *list;

		if (!due(ask, arg)) {
			list = &ask->next;
			continue;
		}
		*list = ask->next;
		ask->lane->n--;
		ask->lane->n_sent -= sent;
		ask->next = *taken;
		*taken = ask;
	}
}

/* All lanes anew: who has a turn, which one ends with what, which one goes. */
static void lanes_settle(struct asks *a)
{
	a->turns = NULL;
	for (size_t i = 0; i < ASK_BUCKETS; i++)
		for (struct ask_lane *l = a->lanes[i], *next; l != NULL; l = next) {
			next = l->next;
			l->has_turn = false;
			l->last = l->waiting;
			while (l->last != NULL && l->last->next != NULL)
				l->last = l->last->next;
			if (l->n > 0)
				turn_add(a, l);
			else
				lane_free(a, l);
		}
}

/* Takes those out that `due` is true of. For what happens once a second at most: it walks through all. */
static struct ask *take(struct asks *a, bool (*due)(const struct ask *ask, uint64_t arg), uint64_t arg)
{
	struct ask *taken = NULL;

	for (size_t i = 0; i < ASK_BUCKETS; i++) {
		take_from(&a->sent[i], true, due, arg, &taken);
		for (struct ask_lane *l = a->lanes[i]; l != NULL; l = l->next)
			take_from(&l->waiting, false, due, arg, &taken);
	}
	if (taken != NULL)
		lanes_settle(a);
	return taken;
}

static struct ask *take_answered(struct asks *a, uint64_t id)
{
	struct ask **at = &a->sent[id % ASK_BUCKETS], *ask;

	while (*at != NULL && (*at)->id != id)
		at = &(*at)->next;
	ask = *at;
	if (ask == NULL)
		return NULL;
	*at = ask->next;
	ask->lane->n--;
	ask->lane->n_sent--;
	if (ask->lane->n > 0)
		turn_add(a, ask->lane);
	else
		lane_free(a, ask->lane);
	return ask;
}

static void finish_all(struct asks *a, struct ask *list, int r, const char *why)
{
	struct ask *next;

	for (; list != NULL; list = next) {
		next = list->next;
		finish(a, list, r, why);
	}
}

/* ---- sending, on the loop of the helper's connection ---- */

static void post(struct asks *a);

/* Under the lock, on the loop of the connection: one question of each lane in turn, as many as they may have there. */
static void send_all(struct asks *a)
{
	while (a->conn != NULL && a->turns != NULL) {
		struct ask_lane *l = a->turns;
		struct ask *ask = l->waiting;
		struct csm_msg_ident_ask m = {.id = {.v = ask->id},
			.pid = {.v = (uint64_t)ask->pid},
			.uid = {.v = ask->uid},
			.digest = {.v = ask->digest}};

		if (conn_notify(a->conn, "ident.ask", CSM_DEF(ident_ask), &m) != 0)
			return;
		a->turns = l->next_turn;
		l->has_turn = false;
		l->waiting = ask->next;
		ask->next = a->sent[ask->id % ASK_BUCKETS];
		a->sent[ask->id % ASK_BUCKETS] = ask;
		l->n_sent++;
		turn_add(a, l);
	}
}

static void send_unsent(struct loop *l, struct task *t)
{
	struct asks *a = (struct asks *)((char *)t - offsetof(struct asks, send));

	pthread_mutex_lock(&a->lock);
	a->posted = false;
	if (a->loop == l)
		send_all(a);
	else
		post(a); /* another helper is on another loop by now */
	pthread_mutex_unlock(&a->lock);
}

/* Under the lock. */
static void post(struct asks *a)
{
	if (a->posted || a->loop == NULL)
		return;
	a->send.run = send_unsent;
	a->posted = loop_post(a->loop, &a->send);
}

/* Under the lock, on the thread of loop l. */
static void send_now(struct asks *a, struct loop *l)
{
	if (a->loop == l)
		send_all(a);
	else if (a->turns != NULL)
		post(a);
}

/* Under the lock. */
static int enqueue(struct asks *a, struct ask *ask)
{
	struct ask_lane *l;

	if (a->stopped)
		return CSM_ESHUTDOWN;
	l = lane_of(a, ask->user, ask->digest);
	if (l == NULL || l->n >= ASK_MAX)
		return CSM_EBUSY;
	ask->id = ++a->next_id;
	ask->lane = l;
	l->n++;
	lane_put(l, ask);
	turn_add(a, l);
	return 0;
}

void asks_put(struct asks *a, struct loop *l, struct ask *ask)
{
	int r;

	atomic_fetch_add(&a->asked, 1);
	ask->deadline_ms = monotonic_ms() + (ask->digest ? ASK_DIGEST_MS : ASK_MS);
	pthread_mutex_lock(&a->lock);
	r = enqueue(a, ask);
	if (r == 0)
		send_now(a, l);
	pthread_mutex_unlock(&a->lock);
	if (r != 0)
		finish(a, ask, r, r == CSM_EBUSY ? "too many questions about programs wait" : NULL);
}

void asks_attach(struct asks *a, struct conn *c)
{
	pthread_mutex_lock(&a->lock);
	a->conn = c;
	a->loop = c->loop;
	/* What its predecessor was asked and did not answer. */
	for (size_t i = 0; i < ASK_BUCKETS; i++)
		for (struct ask *ask = a->sent[i]; ask != NULL; ask = a->sent[i]) {
			a->sent[i] = ask->next;
			lane_put_back(ask->lane, ask);
			turn_add(a, ask->lane);
		}
	atomic_store(&a->attached, true);
	post(a);
	pthread_mutex_unlock(&a->lock);
}

void asks_detach(struct asks *a, struct conn *c)
{
	pthread_mutex_lock(&a->lock);
	if (a->conn == c) {
		a->conn = NULL;
		a->loop = NULL;
		atomic_store(&a->attached, false);
	}
	pthread_mutex_unlock(&a->lock);
}

/* ---- answers ---- */

static int set_exe(const struct csm_msg_ident_answer *m, struct csm_exe *exe)
{
	if (!m->device.set || !m->inode.set || !m->size.set || !m->changed.set || !m->image.set)
		return CSM_EPROTOCOL;
	*exe = (struct csm_exe){.device = m->device.v,
		.inode = m->inode.v,
		.size = m->size.v,
		.changed = m->changed.v,
		.image = m->image.v,
		.hashed = m->sha256.n == sizeof(exe->sha256)};
	if (m->path.n > CSM_EXE_PATH_MAX || (m->path.n > 0 && memchr(m->path.p, '\0', m->path.n) != NULL))
		return CSM_EPROTOCOL;
	if (m->path.n > 0)
		memcpy(exe->path, m->path.p, m->path.n);
	if (exe->hashed)
		memcpy(exe->sha256, m->sha256.p, sizeof(exe->sha256));
	return 0;
}

bool asks_answer(struct asks *a, struct loop *l, const struct csm_msg_ident_answer *m)
{
	struct ask *ask;
	char why[257];

	pthread_mutex_lock(&a->lock);
	ask = take_answered(a, m->id.v);
	send_now(a, l);
	pthread_mutex_unlock(&a->lock);
	if (ask == NULL)
		return false;
	if (m->sha256.n > 0)
		atomic_fetch_add(m->cached.v ? &a->cached : &a->hashed, 1);
	atomic_store(&a->last_us, m->us.v);
	if (m->refusal.n > 0) {
		snprintf(why, sizeof(why), "%.*s", (int)m->refusal.n, m->refusal.p);
		finish(a, ask, m->busy.v ? CSM_EBUSY : CSM_EDENIED, why);
	} else if (set_exe(m, &ask->exe) != 0) {
		finish(a, ask, CSM_EUNAVAILABLE, "the identity helper's answer is none");
	} else {
		finish(a, ask, 0, NULL);
	}
	return true;
}

static bool is_due(const struct ask *ask, uint64_t now)
{
	return now >= ask->deadline_ms;
}

void asks_tick(struct asks *a, uint64_t now_ms)
{
	struct ask *late;

	pthread_mutex_lock(&a->lock);
	late = take(a, is_due, now_ms);
	/* What found the connection's buffer full. */
	if (a->turns != NULL)
		post(a);
	pthread_mutex_unlock(&a->lock);
	finish_all(a, late, CSM_EUNAVAILABLE, "the identity helper does not answer");
}

static bool any(const struct ask *ask, uint64_t arg)
{
	(void)ask;
	(void)arg;
	return true;
}

void asks_stop(struct asks *a)
{
	struct ask *all;

	pthread_mutex_lock(&a->lock);
	a->stopped = true;
	all = take(a, any, 0);
	pthread_mutex_unlock(&a->lock);
	finish_all(a, all, CSM_ESHUTDOWN, NULL);
}
