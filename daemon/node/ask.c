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
	a->last = &a->first;
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

/* Takes those out that `due` is true of; under the lock. */
static struct ask *take(struct asks *a, bool (*due)(const struct ask *ask, uint64_t arg), uint64_t arg)
{
	struct ask *taken = NULL, **tail = &taken, **at = &a->first;

	while (*at != NULL) {
		struct ask *ask = *at;

		if (!due(ask, arg)) {
			at = &ask->next;
			continue;
		}
		*at = ask->next;
		ask->next = NULL;
		*tail = ask;
		tail = &ask->next;
	}
	a->last = at;
	return taken;
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

/* Under the lock. */
static void send_one(struct asks *a, struct ask *ask)
{
	struct csm_msg_ident_ask m = {.id = {.v = ask->id},
		.pid = {.v = (uint64_t)ask->pid},
		.uid = {.v = ask->uid},
		.digest = {.v = ask->digest}};

	if (!ask->sent)
		ask->sent = conn_notify(a->conn, "ident.ask", CSM_DEF(ident_ask), &m) == 0;
}

static void send_unsent(struct loop *l, struct task *t)
{
	struct asks *a = (struct asks *)((char *)t - offsetof(struct asks, send));

	pthread_mutex_lock(&a->lock);
	a->posted = false;
	if (a->loop != l)
		post(a); /* another helper is on another loop by now */
	for (struct ask *ask = a->first; a->conn != NULL && a->loop == l && ask != NULL; ask = ask->next)
		send_one(a, ask);
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

void asks_put(struct asks *a, struct loop *l, struct ask *ask)
{
	bool stopped;

	atomic_fetch_add(&a->asked, 1);
	ask->sent = false;
	ask->next = NULL;
	ask->deadline_ms = monotonic_ms() + (ask->digest ? ASK_DIGEST_MS : ASK_MS);
	pthread_mutex_lock(&a->lock);
	stopped = a->stopped;
	if (!stopped) {
		ask->id = ++a->next_id;
		*a->last = ask;
		a->last = &ask->next;
		if (a->loop == l && !a->posted)
			send_one(a, ask);
		else
			post(a);
	}
	pthread_mutex_unlock(&a->lock);
	if (stopped)
		finish(a, ask, CSM_ESHUTDOWN, NULL);
}

void asks_attach(struct asks *a, struct conn *c)
{
	pthread_mutex_lock(&a->lock);
	a->conn = c;
	a->loop = c->loop;
	/* What its predecessor was asked and did not answer. */
	for (struct ask *ask = a->first; ask != NULL; ask = ask->next)
		ask->sent = false;
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

static bool has_id(const struct ask *ask, uint64_t id)
{
	return ask->id == id && ask->sent;
}

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

bool asks_answer(struct asks *a, const struct csm_msg_ident_answer *m)
{
	struct ask *ask;
	char why[257];

	pthread_mutex_lock(&a->lock);
	ask = take(a, has_id, m->id.v);
	pthread_mutex_unlock(&a->lock);
	if (ask == NULL)
		return false;
	if (m->sha256.n > 0)
		atomic_fetch_add(m->cached.v ? &a->cached : &a->hashed, 1);
	atomic_store(&a->last_us, m->us.v);
	if (m->refusal.n > 0) {
		snprintf(why, sizeof(why), "%.*s", (int)m->refusal.n, m->refusal.p);
		finish(a, ask, CSM_EDENIED, why);
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
	if (a->first != NULL)
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
