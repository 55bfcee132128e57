#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "daemon/node/certinfo.h"
#include "daemon/node/deliver.h"
#include "daemon/node/enrol.h"
#include "daemon/svc/log.h"

#define POOL_MAX (512u * 1024u)
#define JOBS_MAX 8u

struct target {
	char name[CSM_NAMESPACE_MAX + 1], key[CSM_KEYREF_MAX + 1], fingerprint[65], state[CSM_TOKEN_STR_MAX + 1],
		error[CSM_TOKEN_STR_MAX + 1], why[CSM_ERROR_TEXT_MAX + 1];
	uint64_t delivered, next_try; /* 0: none */
};

struct deliver {
	pthread_mutex_t lock; /* what follows */
	struct target targets[CSM_DELIVER_TARGETS_MAX];
	size_t n;
	char config_error[CSM_ERROR_TEXT_MAX + 1];
	/* The request that waits; conn is touched on its loop only. */
	struct conn *conn;
	struct loop *loop;
	uint32_t msgid;
	uint64_t deadline_ms;
	/* The jobs that are out; id 0: free. */
	uint64_t job;
	struct {
		uint64_t id;
		const struct conn *conn; /* who has it */
		char name[CSM_NAMESPACE_MAX + 1], key[CSM_KEYREF_MAX + 1];
	} out[JOBS_MAX];
	struct task wake;
	bool posted, anew; /* anew: what csm-deliver tells may not be so any more, it is to ask again */
};

struct deliver *deliver_new(void)
{
	struct deliver *d = calloc(1, sizeof(*d));

	if (d != NULL)
		pthread_mutex_init(&d->lock, NULL);
	return d;
}

void deliver_free(struct deliver *d)
{
	if (d == NULL)
		return;
	pthread_mutex_destroy(&d->lock);
	free(d);
}

void deliver_detach(struct deliver *d, struct conn *c)
{
	pthread_mutex_lock(&d->lock);
	if (d->conn == c) {
		d->conn = NULL;
		d->loop = NULL;
	}
	for (size_t i = 0; i < JOBS_MAX; i++)
		if (d->out[i].conn == c)
			d->out[i].id = 0;
	pthread_mutex_unlock(&d->lock);
}

/* ---- is something due? ---- */

/* What the key's folder is to hold; false: nothing, or what it holds. *info borrows body and the pool. */
static bool is_due(struct loop *l, const struct target *t, struct csm_reader *reader, struct csm_pool *pool,
	struct csm_msg_cert_info *info, struct csm_bin *spki)
{
	struct csm_key_record rec;
	struct csm_ref ref;
	struct csm_bin chain;
	uint64_t installed;

	csm_buf_reset(&l->body);
	if (csm_ref_parse(csm_str_of(t->key), &ref) != 0 || ref.ns.p == NULL ||
		csm_store_key_get(reader, ref.ns, ref.name, false, &l->key, &rec) != 0 ||
		csm_store_cert_get(reader, ref.ns, ref.name, rec.id, &l->body, &installed) != 0 ||
		certinfo_unpack((struct csm_bin){csm_buf_ptr(&l->body), l->body.len}, (uint64_t)time(NULL), pool, info, &chain) != 0 ||
		chain.n == 0 || csm_str_eq(info->fingerprint, t->fingerprint))
		return false;
	info->namespace = ref.ns;
	info->name = ref.name;
	if (info->installed.v == 0)
		info->installed.v = installed;
	info->chain = chain;
	info->anchors = enrol_anchors(l->b->enrol, info->profile, pool);
	info->anchors_of = (struct csm_str){NULL, 0};
	*spki = rec.spki;
	return true;
}

/* Under the lock: the place of the job with this id, 0: a free one; -1. */
static int job_find(const struct deliver *d, uint64_t id)
{
	for (size_t i = 0; i < JOBS_MAX; i++)
		if (d->out[i].id == id)
			return (int)i;
	return -1;
}

/* Under the lock: its next one has to wait for its end. */
static bool is_out(const struct deliver *d, const struct target *t)
{
	for (size_t i = 0; i < JOBS_MAX; i++)
		if (d->out[i].id != 0 && strcmp(d->out[i].name, t->name) == 0)
			return true;
	return false;
}

/* Under the lock, on the connection's loop, in a read transaction. */
static void answer_due(struct deliver *d, struct loop *l)
{
	struct csm_reader *reader = loop_reader(l);
	struct csm_msg_cert_info info;
	struct csm_msg_deliver_job job = {.certificate = &info};
	struct csm_pool pool;
	int at = job_find(d, 0);

	if (reader == NULL || at < 0 || loop_begin_read(l) != 0)
		return;
	csm_pool_init(&pool, POOL_MAX);
	for (size_t i = 0; i < d->n && d->conn != NULL; i++) {
		struct target *t = &d->targets[i];
		struct conn *c = d->conn;

		if (is_out(d, t) || !is_due(l, t, reader, &pool, &info, &job.spki))
			continue;
		job.id = (struct csm_u64){++d->job, true};
		d->out[at].id = d->job;
		d->out[at].conn = c;
		(void)snprintf(d->out[at].name, sizeof(d->out[at].name), "%s", t->name);
		(void)snprintf(d->out[at].key, sizeof(d->out[at].key), "%s", t->key);
		job.target = csm_str_of(t->name);
		d->conn = NULL;
		conn_result(c, d->msgid, CSM_DEF(deliver_job), &job);
	}
	loop_end_read(l);
	csm_buf_reset(&l->body);
	csm_buf_reset(&l->key);
	csm_pool_free(&pool);
}

/* Under the lock: who waits is to ask anew. */
static void answer_none(struct deliver *d)
{
	static const struct csm_msg_deliver_job none = {.id = {0, true}};
	struct conn *c = d->conn;

	d->conn = NULL;
	d->anew = false;
	conn_result(c, d->msgid, CSM_DEF(deliver_job), &none);
}

/* Under the lock. */
static void look(struct deliver *d, struct loop *l)
{
	struct conn *c = d->conn;

	if (c == NULL || d->loop != l || l->draining)
		return;
	if (l->b->state == BROKER_READY)
		answer_due(d, l);
	if (d->conn != NULL && (d->anew || l->now_ms >= d->deadline_ms))
		answer_none(d);
}

void deliver_tick(struct loop *l)
{
	struct deliver *d = l->b->deliver;

	pthread_mutex_lock(&d->lock);
	look(d, l);
	pthread_mutex_unlock(&d->lock);
	conn_flush_dirty(l);
}

static void on_wake(struct loop *l, struct task *t)
{
	struct deliver *d = (struct deliver *)((char *)t - offsetof(struct deliver, wake));

	pthread_mutex_lock(&d->lock);
	d->posted = false;
	look(d, l);
	pthread_mutex_unlock(&d->lock);
}

static void wake(struct broker *b, bool anew)
{
	struct deliver *d = b->deliver;

	pthread_mutex_lock(&d->lock);
	d->anew = d->anew || anew;
	if (!d->posted && d->conn != NULL) {
		d->wake.run = on_wake;
		d->posted = loop_post(d->loop, &d->wake);
	}
	pthread_mutex_unlock(&d->lock);
}

void deliver_changed(struct broker *b)
{
	wake(b, false);
}

void deliver_ask_anew(struct broker *b)
{
	wake(b, true);
}

/* ---- csm-deliver's requests ---- */

static void copy(char *to, size_t cap, struct csm_str s)
{
	(void)snprintf(to, cap, "%.*s", (int)s.n, s.n > 0 ? s.p : "");
}

static void take_target(struct target *t, const struct csm_msg_delivery *m)
{
	copy(t->name, sizeof(t->name), m->name);
	copy(t->key, sizeof(t->key), m->key);
	copy(t->state, sizeof(t->state), m->state);
	copy(t->fingerprint, sizeof(t->fingerprint), m->fingerprint);
	copy(t->error, sizeof(t->error), m->error);
	copy(t->why, sizeof(t->why), m->why);
	t->delivered = m->delivered.v;
	t->next_try = m->next_try.v;
}

void do_DELIVER_NEXT(struct req *q)
{
	const struct csm_msg_deliver_next_req *m = q->params;
	struct deliver *d = q->loop->b->deliver;
	bool busy;

	pthread_mutex_lock(&d->lock);
	busy = d->conn != NULL && d->conn == q->conn;
	if (!busy) {
		for (d->n = 0; d->n < m->targets.n; d->n++)
			take_target(&d->targets[d->n], &m->targets.v[d->n]);
		copy(d->config_error, sizeof(d->config_error), m->config_error);
		d->conn = q->conn;
		d->loop = q->loop;
		d->msgid = q->msgid;
		d->deadline_ms = monotonic_ms() + m->wait_ms.v;
		look(d, q->loop);
	}
	pthread_mutex_unlock(&d->lock);
	if (busy)
		req_error(q, CSM_EBUSY, "one request at a time");
}

struct done_op {
	struct change change; /* first */
	char detail[CSM_AUDIT_DETAIL];
};

/* In the audit log before it is answered: who reads it there does not depend on the log. */
static void tell_audit(struct req *q, const char *target, const char *key, const struct csm_msg_deliver_done_req *m)
{
	static const char *const outcomes[] = {"delivered", "refused", "rolled_back", "kept"};
	const char *outcome = m->error.n > 0 ? "refused" : "delivered";
	struct csm_request_id none = {.id = {NULL, 0}};
	struct object o = {.secret = {NULL, 0}};
	struct done_op *d;
	struct change *c;
	struct csm_ref ref;

	for (size_t i = 0; i < sizeof(outcomes) / sizeof(outcomes[0]); i++)
		if (csm_str_eq(m->outcome, outcomes[i]))
			outcome = outcomes[i];
	(void)snprintf(o.buf, sizeof(o.buf), "%s", key);
	o.text = csm_str_of(o.buf);
	if (csm_ref_parse(o.text, &ref) != 0 || ref.ns.p == NULL) {
		req_error(q, CSM_EINVALID, NULL);
		return;
	}
	o.ns = ref.ns;
	o.name = ref.name;
	if (req_change(q, &o, &none, CSM_OP_ANCHOR, sizeof(*d), NULL, &c) != 0)
		return;
	d = (struct done_op *)c;
	(void)snprintf(d->detail, sizeof(d->detail), ",\"target\":\"%s\",\"outcome\":\"%s\",\"error\":\"%s\"", target, outcome,
		csm_err_name(csm_err_of_name(m->error.p, m->error.n)));
	c->op.event.detail = d->detail;
	op_commit(&c->op, op_finish_change);
}

void do_DELIVER_DONE(struct req *q)
{
	const struct csm_msg_deliver_done_req *m = q->params;
	struct deliver *d = q->loop->b->deliver;
	char name[CSM_NAMESPACE_MAX + 1] = "", key[CSM_KEYREF_MAX + 1] = "";

	int at;

	pthread_mutex_lock(&d->lock);
	if (m->job.v != 0 && (at = job_find(d, m->job.v)) >= 0) {
		copy(name, sizeof(name), csm_str_of(d->out[at].name));
		copy(key, sizeof(key), csm_str_of(d->out[at].key));
		d->out[at].id = 0;
		/* how its target stands is another thing now */
		if (d->conn == q->conn)
			answer_none(d);
	}
	pthread_mutex_unlock(&d->lock);
	if (name[0] == '\0') {
		req_error(q, CSM_ENOT_FOUND, NULL);
		return;
	}
	if (m->error.n > 0)
		log_warn("the certificate of %s was not delivered to %s: %.*s: %.*s", key, name, (int)m->error.n, m->error.p,
			(int)m->why.n, m->why.n > 0 ? m->why.p : "");
	else
		log_info("the certificate of %s is delivered to %s", key, name);
	tell_audit(q, name, key, m);
}

/* ---- what is told of it ---- */

static struct csm_str keep(struct csm_pool *pool, const char *s)
{
	size_t n = strlen(s);
	char *p = n == 0 ? NULL : csm_pool_alloc(pool, n + 1);

	return p == NULL ? (struct csm_str){NULL, 0} : (struct csm_str){memcpy(p, s, n + 1), n};
}

void deliver_tell(struct deliver *d, struct csm_pool *pool, struct csm_msg_cert_info *info)
{
	char key[CSM_KEYREF_MAX + 1], text[CSM_ERROR_TEXT_MAX];
	size_t n = 0, well = 0;
	uint64_t last = 0;

	(void)snprintf(key, sizeof(key), "%.*s:%.*s", (int)info->namespace.n, info->namespace.p, (int)info->name.n, info->name.p);
	pthread_mutex_lock(&d->lock);
	for (size_t i = 0; i < d->n; i++) {
		const struct target *t = &d->targets[i];

		if (strcmp(t->key, key) != 0)
			continue;
		n++;
		well += strcmp(t->state, "delivered") == 0 && csm_str_eq(info->fingerprint, t->fingerprint);
		last = t->delivered > last ? t->delivered : last;
		if (t->error[0] == '\0' || info->delivery_error.n > 0)
			continue;
		csm_text_put(text, sizeof(text), "%s: %s", t->name, t->why[0] != '\0' ? t->why : t->error);
		info->delivery_error = keep(pool, text);
	}
	pthread_mutex_unlock(&d->lock);
	if (n > 0 && well == n)
		info->delivered = (struct csm_u64){last, true};
}

bool deliver_status(struct deliver *d, struct csm_pool *pool, struct csm_msg_status_res *ret, char warning[static 256])
{
	struct csm_msg_delivery *m = NULL;

	warning[0] = '\0';
	pthread_mutex_lock(&d->lock);
	if (d->n > 0)
		m = csm_pool_alloc(pool, d->n * sizeof(*m));
	for (size_t i = 0; m != NULL && i < d->n; i++) {
		const struct target *t = &d->targets[i];

		m[i] = (struct csm_msg_delivery){.name = keep(pool, t->name), .key = keep(pool, t->key), .state = keep(pool, t->state),
			.fingerprint = keep(pool, t->fingerprint), .error = keep(pool, t->error), .why = keep(pool, t->why),
			.delivered = {t->delivered, t->delivered != 0}, .next_try = {t->next_try, t->next_try != 0}};
	}
	if (d->config_error[0] != '\0')
		csm_text_put(warning, 256, "deliver.yaml is not in force: %s", d->config_error);
	ret->deliveries.v = m;
	ret->deliveries.n = m != NULL ? d->n : 0;
	pthread_mutex_unlock(&d->lock);
	return m != NULL || d->n == 0;
}
