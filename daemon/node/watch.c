/* cert.watch. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "daemon/node/deliver.h"
#include "daemon/node/dispatch.h"
#include "daemon/node/watch.h"

#define WAIT_MS 60000u

struct watch_op {
	struct op op; /* first */
	struct watch_op *next;
	uint64_t after, until_ms;
	size_t n_keys; /* 0: the whole namespace */
	struct csm_str ns;
	struct object *keys;
	struct csm_buf raw; /* the request's params: where policy has changed it is judged as if it came now */
};

int changes_new(struct changes **ret)
{
	struct changes *c = calloc(1, sizeof(*c));
	struct timespec now;

	if (c == NULL)
		return CSM_ENOMEM;
	clock_gettime(CLOCK_REALTIME, &now);
	pthread_mutex_init(&c->lock, NULL);
	c->first = c->version = (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
	*ret = c;
	return 0;
}

void changes_free(struct changes *c)
{
	if (c == NULL)
		return;
	pthread_mutex_destroy(&c->lock);
	free(c);
}

/* ---- what has changed since ---- */

static bool is_watched(const struct watch_op *w, const char *text)
{
	size_t n = strlen(text);

	if (w->n_keys == 0)
		return n > w->ns.n && text[w->ns.n] == ':' && memcmp(text, w->ns.p, w->ns.n) == 0;
	for (size_t i = 0; i < w->n_keys; i++)
		if (csm_str_eq(w->keys[i].text, text))
			return true;
	return false;
}

static bool is_named(const struct csm_msg_cert_watch_res *res, const char *text)
{
	for (size_t i = 0; i < res->keys.n; i++)
		if (csm_str_eq(res->keys.v[i], text))
			return true;
	return false;
}

/* Under the lock. names: CSM_WATCH_KEYS_MAX. */
static void look(struct changes *c, const struct watch_op *w, struct csm_str *names, struct csm_msg_cert_watch_res *res)
{
	*res = (struct csm_msg_cert_watch_res){.version = {c->version, true}, .all = {false, true}, .keys = {names, 0}};
	if (w->after < c->first || w->after > c->version) {
		res->all.v = true;
		return;
	}
	for (uint64_t v = w->after + 1; v <= c->version; v++) {
		const char *text = c->ring[v % CHANGES_KEPT].text;

		if (!is_watched(w, text) || is_named(res, text))
			continue;
		if (res->keys.n == CSM_WATCH_KEYS_MAX) {
			res->all.v = true;
			return;
		}
		names[res->keys.n++] = csm_str_of(text);
	}
}

/* By the policy of now. False says little: rules by executable have to be asked for. */
static bool may(const struct watch_op *w)
{
	const struct csm_subject *s;

	if (w->op.conn == NULL || w->op.conn->peer == NULL || peer_subject(w->op.conn->peer, &s) != 0)
		return false;
	for (size_t i = 0; i == 0 || i < w->n_keys; i++)
		if (csm_policy_decide(s, w->op.method->perm, w->keys[i].text, NULL, NULL) != 0)
			return false;
	return true;
}

/* As if the request came now: it is refused, or answered, or waits anew. */
static void judge_anew(struct watch_op *w)
{
	if (w->op.conn != NULL)
		dispatch_again(w->op.conn, w->op.method, w->op.msgid, (struct csm_bin){csm_buf_ptr(&w->raw), w->raw.len}, NULL);
	op_done(&w->op);
}

/* True: it was answered, and is gone. */
static bool answer(struct watch_op *w, bool anyway)
{
	struct changes *c = w->op.loop->b->changes;
	struct csm_str names[CSM_WATCH_KEYS_MAX];
	struct csm_msg_cert_watch_res res;
	bool done;

	pthread_mutex_lock(&c->lock);
	look(c, w, names, &res);
	done = anyway || res.all.v || res.keys.n > 0;
	if (done)
		op_result(&w->op, CSM_DEF(cert_watch_res), &res); /* a copy, made before the ring goes on */
	pthread_mutex_unlock(&c->lock);
	if (done)
		op_done(&w->op);
	return done;
}

/* ---- who waits, on their loop ---- */

/* True: there is something to be told. */
static bool has_news(const struct watch_op *w)
{
	struct changes *c = w->op.loop->b->changes;
	struct csm_str names[CSM_WATCH_KEYS_MAX];
	struct csm_msg_cert_watch_res res;

	pthread_mutex_lock(&c->lock);
	look(c, w, names, &res);
	pthread_mutex_unlock(&c->lock);
	return res.all.v || res.keys.n > 0;
}

/* news: only those who are to be told of something. */
static void judge_all(struct loop *l, bool news)
{
	struct watch_op *w = l->watches.first, *next;

	l->watches.first = NULL; /* who is judged anew may wait again */
	for (; w != NULL; w = next) {
		next = w->next;
		if ((!news || has_news(w)) && !may(w)) {
			judge_anew(w);
		} else if (!answer(w, false)) {
			w->next = l->watches.first;
			l->watches.first = w;
		}
	}
}

static void woken(struct loop *l, struct task *t)
{
	(void)t;
	l->watches.posted = false;
	judge_all(l, true);
}

void watch_judge(struct loop *l)
{
	judge_all(l, false);
	conn_flush_dirty(l);
}

void watch_tick(struct loop *l)
{
	struct watch_op **at = &l->watches.first;

	while (*at != NULL) {
		struct watch_op *w = *at;

		if (w->op.conn != NULL && !l->draining && l->now_ms < w->until_ms) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		if (l->draining) {
			op_error(&w->op, CSM_ESHUTDOWN, NULL);
			op_done(&w->op);
		} else {
			(void)answer(w, true);
		}
	}
	conn_flush_dirty(l);
}

void changes_note(struct broker *b, struct csm_str ns, struct csm_str name)
{
	struct changes *c = b->changes;
	struct change_note *n;

	if (ns.n + name.n + 1 > CSM_KEYREF_MAX)
		return;
	pthread_mutex_lock(&c->lock);
	n = &c->ring[++c->version % CHANGES_KEPT];
	memcpy(n->text, ns.p, ns.n);
	n->text[ns.n] = ':';
	memcpy(n->text + ns.n + 1, name.p, name.n);
	n->text[ns.n + 1 + name.n] = '\0';
	if (c->version - c->first > CHANGES_KEPT)
		c->first = c->version - CHANGES_KEPT;
	pthread_mutex_unlock(&c->lock);
	deliver_changed(b);
	for (unsigned i = 0; i < b->n_loops; i++) {
		struct watches *w = &b->loops[i]->watches;

		if (atomic_exchange(&w->posted, true))
			continue;
		w->wake.run = woken;
		if (!loop_post(b->loops[i], &w->wake))
			w->posted = false;
	}
}

/* ---- the request ---- */

static void watch_clear(struct op *op)
{
	free(((struct watch_op *)op)->keys);
	csm_buf_free(&((struct watch_op *)op)->raw);
}

static int take_keys(struct req *q, const struct csm_msg_cert_watch_req *m, struct object *keys)
{
	for (size_t i = 0; i < m->keys.n; i++)
		if (req_object(q, m->keys.v[i], &keys[i]) != 0 || req_authorize(q, &keys[i]) != 0)
			return CSM_EDENIED;
	return 0;
}

static uint64_t version_of(struct changes *c)
{
	uint64_t v;

	pthread_mutex_lock(&c->lock);
	v = c->version;
	pthread_mutex_unlock(&c->lock);
	return v;
}

static void start(struct req *q, const struct csm_msg_cert_watch_req *m, struct object *keys, size_t n)
{
	struct loop *l = q->loop;
	struct watch_op *w;
	struct op *op;
	int r = op_new(q, sizeof(*w), watch_clear, &op);

	if (r != 0) {
		free(keys);
		req_error(q, r, NULL);
		return;
	}
	w = (struct watch_op *)op;
	w->keys = keys;
	w->n_keys = m->keys.n;
	w->ns = keys[0].ns;
	w->after = m->after.set ? m->after.v : version_of(l->b->changes);
	w->until_ms = l->now_ms + (m->timeout_ms.set ? m->timeout_ms.v : WAIT_MS);
	csm_buf_init(&w->raw, CSM_MESSAGE_MAX, false);
	if ((r = op_charge(op, n * sizeof(*keys) + q->raw.n)) != 0 || (r = csm_buf_put(&w->raw, q->raw.p, q->raw.n)) != 0) {
		op_error(op, r, NULL);
		op_done(op);
	} else if (!answer(w, !m->after.set || (m->timeout_ms.set && m->timeout_ms.v == 0))) {
		w->next = l->watches.first;
		l->watches.first = w;
	}
}

void do_CERT_WATCH(struct req *q)
{
	const struct csm_msg_cert_watch_req *m = q->params;
	size_t n = m->keys.n > 0 ? m->keys.n : 1;
	struct object *keys;

	if (m->keys.n > 0 && m->namespace.p != NULL) {
		req_error(q, CSM_EINVALID, "give either keys or a namespace");
		return;
	}
	if ((keys = calloc(n, sizeof(*keys))) == NULL) {
		req_error(q, CSM_ENOMEM, NULL);
		return;
	}
	if (m->keys.n > 0 ? take_keys(q, m, keys) != 0 : req_namespace(q, m->namespace, keys) != 0 || req_authorize(q, keys) != 0)
		free(keys);
	else
		start(q, m, keys, n);
}
