#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include "daemon/node/dispatch.h"
#include "daemon/node/proof.h"
#include "daemon/svc/log.h"
#include "libclient/wire/frame.h"

#define LOG_LINES_PER_SECOND 50u

/* A reserved row has no handler; the gate stops it. */
#define HANDLER_LOOP(sym) do_##sym
#define HANDLER_COMMIT(sym) do_##sym
#define HANDLER_BACKEND(sym) do_##sym
#define HANDLER_CONTROL(sym) do_##sym
#define HANDLER_NONE(sym) NULL

typedef void handler_fn(struct req *q);
static handler_fn *const handlers[CSM_M__COUNT] = {
#define X(sym, num, name, perm, states, roles, where, rq, rs, flags) [CSM_M_##sym] = HANDLER_##where(sym),
#include "proto-spec/methods.def"
#undef X
};

#define UNTOLD "the audit log cannot be written, and audit.mode is strict"

/* Any request structure fits. */
#define CSM_SIZE_OF(m) char m[sizeof(struct csm_msg_##m)];
union any_params {
	CSM_MESSAGES(CSM_SIZE_OF)
	uint64_t align;
};

uid_t req_uid(const struct req *q)
{
	return q->conn->peer != NULL ? q->conn->peer->facts.uid : 0;
}

pid_t req_pid(const struct req *q)
{
	return q->conn->peer != NULL ? q->conn->peer->facts.pid : 0;
}

struct csm_audit_place *req_place(const struct req *q)
{
	return q->conn->peer != NULL ? q->conn->peer->place : NULL;
}

void req_used(struct req *q, struct csm_str object)
{
	csm_audit_use(q->loop->uses, q->method->name, req_uid(q), req_place(q), object);
}

/* ---- answers ---- */

void req_result(struct req *q, const void *result)
{
	conn_result(q->conn, q->msgid, q->method->response, result);
}

void req_result_raw(struct req *q, struct csm_bin result)
{
	conn_result_raw(q->conn, q->msgid, result);
}

int req_result_room(struct req *q, size_t n, uint8_t **ret)
{
	return conn_result_room(q->conn, q->msgid, n, ret);
}

static bool may_log(struct loop *l)
{
	if (l->log_second != l->now_ms / 1000) {
		if (l->log_lines > LOG_LINES_PER_SECOND)
			log_info("%u failed requests without a line of their own", l->log_lines - LOG_LINES_PER_SECOND);
		l->log_second = l->now_ms / 1000;
		l->log_lines = 0;
	}
	return l->log_lines++ < LOG_LINES_PER_SECOND;
}

static void log_failure(struct loop *l, const struct csm_method *m, uid_t uid, pid_t pid, int r)
{
	atomic_fetch_add_explicit(&l->failed[m - csm_methods], 1, memory_order_relaxed);
	if (may_log(l))
		log_info("request failed: method=%s uid=%u peer_pid=%d error=%s", m->name, uid, (int)pid, csm_err_name(r));
}

void req_error(struct req *q, int r, const char *message)
{
	log_failure(q->loop, q->method, req_uid(q), req_pid(q), r);
	conn_error(q->conn, q->msgid, r, message);
}

const char *req_degraded(const struct req *q)
{
	if (q->loop->b->degraded == NULL || !csm_policy_needs_proc(q->loop->policy))
		return NULL;
	return "policy forbids this; identity is degraded: no rule by unit, container, pod or executable holds, see "
	       "csm status";
}

/* ---- names ---- */

/* The home namespace of the caller, for a bare name. */
static int home_of(struct req *q, char buf[static CSM_NAMESPACE_MAX + 1], struct csm_str *ret)
{
	const struct csm_subject *s;
	const char *why = NULL;
	int r, n;

	if (q->conn->peer == NULL)
		return CSM_EDENIED;
	/* On the admin socket a bare name means the caller's own namespace, whatever policy says. */
	if (q->conn->role == CSM_R_ADMIN) {
		n = snprintf(buf, CSM_NAMESPACE_MAX + 1, "uid-%u", q->conn->peer->facts.uid);
		*ret = (struct csm_str){buf, (size_t)n};
		return 0;
	}
	if ((r = peer_subject(q->conn->peer, &s)) != 0)
		return r;
	r = q->look != NULL ? proof_home(q, s, ret, &why) : csm_subject_home(s, ret, &why);
	if (r == CSM_EDENIED && req_degraded(q) != NULL)
		why = req_degraded(q);
	if (r == CSM_EPROOF_REQUIRED)
		proof_challenge(q);
	else if (r != 0)
		req_error(q, r, why);
	return r == 0 ? 0 : -1;
}

/* Fill o->text and point the slices into it. secret.p NULL: no third part; tail: a last byte, or 0. */
static int object_make(struct object *o, struct csm_str ns, struct csm_str name, struct csm_str secret, char tail)
{
	char *p = o->buf;

	if (ns.n + name.n + secret.n + 3 > sizeof(o->buf))
		return CSM_ETOO_LARGE;
	memcpy(p, ns.p, ns.n);
	o->ns = (struct csm_str){p, ns.n};
	p += ns.n;
	*p++ = ':';
	o->name = (struct csm_str){p, name.n};
	if (name.n > 0)
		memcpy(p, name.p, name.n);
	p += name.n;
	o->secret = (struct csm_str){NULL, 0};
	if (secret.p != NULL) {
		*p++ = '/';
		memcpy(p, secret.p, secret.n);
		o->secret = (struct csm_str){p, secret.n};
		p += secret.n;
	} else if (tail != 0) {
		*p++ = tail;
	}
	o->text = (struct csm_str){o->buf, (size_t)(p - o->buf)};
	return 0;
}

static int object_of(struct req *q, const struct csm_ref *ref, char tail, struct object *o)
{
	struct csm_str ns = ref->ns;
	char home[CSM_NAMESPACE_MAX + 1];
	int r;

	if (ns.p == NULL) {
		r = home_of(q, home, &ns);
		if (r < 0) /* answered */
			return CSM_EDENIED;
		if (r != 0) {
			req_error(q, r, NULL);
			return r;
		}
	}
	if ((r = object_make(o, ns, ref->name, ref->secret, tail)) != 0)
		req_error(q, r, NULL);
	return r;
}

#define BAD_NAME "a name is not well formed: NAMESPACE:KEY or NAMESPACE:DOMAIN/NAME"

static int named(struct req *q, struct csm_str text, int (*parse)(struct csm_str s, struct csm_ref *ret), char tail,
	struct object *o)
{
	struct csm_ref ref;
	int r = parse(text, &ref);

	if (r != 0) {
		req_error(q, r, BAD_NAME);
		return r;
	}
	return object_of(q, &ref, tail, o);
}

int req_object(struct req *q, struct csm_str text, struct object *o)
{
	return named(q, text, csm_ref_parse, 0, o);
}

int req_key_object(struct req *q, struct csm_str text, struct object *o)
{
	return named(q, text, csm_ref_parse_key, 0, o);
}

int req_secret_object(struct req *q, struct csm_str text, struct object *o)
{
	return named(q, text, csm_ref_parse_secret, 0, o);
}

int req_domain_list(struct req *q, struct csm_str text, struct object *o)
{
	return named(q, text, csm_ref_parse, '/', o);
}

int req_namespace(struct req *q, struct csm_str ns, struct object *o)
{
	struct csm_ref ref = {.ns = ns};

	if (ns.p != NULL && !csm_namespace_valid(ns)) {
		req_error(q, CSM_EINVALID, "the namespace is not well formed");
		return CSM_EINVALID;
	}
	return object_of(q, &ref, 0, o);
}

/* ---- policy ---- */

/* What the administrator may do in every namespace: look at what there is and take it away, but not use it; and export
 * what was made for that. */
static bool admin_may(int perm)
{
	switch (perm) {
	case CSM_PERM_KEY_LIST:
	case CSM_PERM_KEY_SHOW:
	case CSM_PERM_KEY_PUBLIC:
	case CSM_PERM_KEY_DELETE:
	case CSM_PERM_KEY_EXPORT:
	case CSM_PERM_CERT_LIST:
	case CSM_PERM_CERT_GET:
	case CSM_PERM_CERT_DELETE:
	case CSM_PERM_CERT_WATCH:
	case CSM_PERM_DOMAIN_LIST:
	case CSM_PERM_DOMAIN_SHOW:
	case CSM_PERM_DOMAIN_DELETE:
	case CSM_PERM_SECRET_LIST:
	case CSM_PERM_SECRET_DELETE:
		return true;
	default:
		return false;
	}
}

/* csmd's own keys: whatever policy says, nobody uses them; the administrator sees them, and may bring a certificate. */
static bool is_own(struct csm_str object)
{
	return object.n >= sizeof(CSM_OWN_NAMESPACE) && memcmp(object.p, CSM_OWN_NAMESPACE ":", sizeof(CSM_OWN_NAMESPACE)) == 0;
}

int req_decide(struct req *q, int perm, struct csm_str object)
{
	const struct csm_subject *s;
	int r;

	if (q->conn->peer == NULL)
		return CSM_EDENIED;
	if (is_own(object))
		return q->conn->role == CSM_R_ADMIN && perm != CSM_PERM_KEY_EXPORT &&
				(admin_may(perm) || perm == CSM_PERM_CERT_INSTALL || perm == CSM_PERM_KEY_CSR) ? 0 : CSM_EDENIED;
	if (q->conn->role == CSM_R_ADMIN && admin_may(perm))
		return 0;
	if ((r = peer_subject(q->conn->peer, &s)) != 0)
		return r;
	r = csm_policy_decide(s, perm, object, NULL, NULL);
	return r == CSM_EDENIED && q->look != NULL ? proof_decide(q, perm, object) : r;
}

int req_subject(struct req *q, const struct csm_subject **ret)
{
	bool proven = q->look != NULL && q->look->r == 0 && q->look->proven;

	return proven ? peer_subject_with(q->conn->peer, q->look->exe, ret) : peer_subject(q->conn->peer, ret);
}

bool req_may(struct req *q, int perm, struct csm_str object)
{
	return req_decide(q, perm, object) == 0;
}

/* A refusal on its way to the audit log: its answer is given when the line is durable. */
struct refusal {
	struct op op; /* first */
	struct csm_audit_wait wait;
	char object[CSM_SECRETREF_MAX + 4];
	char why[CSM_ERROR_TEXT_MAX + 1]; /* "": none of its own */
};

static void refusal_apply(struct op *op)
{
	const struct refusal *f = (const struct refusal *)op;

	if (f->wait.r != 0)
		op_error(op, f->wait.r, NULL);
	else
		op_error(op, op->r, f->why[0] != '\0' ? f->why : NULL);
	op_done(op);
}

static void refusal_written(struct csm_audit_wait *w)
{
	if (op_post((struct op *)((char *)w - offsetof(struct refusal, wait))) != 0)
		abort();
}

void req_refuse(struct req *q, int r, struct csm_str object, const char *why)
{
	struct csm_audit *audit = q->loop->b->audit;
	struct refusal *f;
	struct op *op;
	int e;

	/* Beyond the tenth of a minute there is a count, and nothing to wait for. */
	if (csm_audit_denied_counted(audit, req_uid(q))) {
		req_error(q, r, why);
		return;
	}
	if ((e = op_new(q, sizeof(*f), NULL, &op)) != 0) {
		req_error(q, e, NULL);
		return;
	}
	f = (struct refusal *)op;
	memcpy(f->object, object.p, object.n);
	csm_text_put(f->why, sizeof(f->why), "%s", why != NULL ? why : "");
	op->r = r;
	op->apply = refusal_apply;
	f->wait.event = (struct csm_audit_event){.kind = CSM_AUDIT_DENIED, .method = op->method->name, .uid = op->uid,
		.pid = op->pid, .object = {f->object, object.n}, .result = csm_err_name(r), .place = op->place};
	f->wait.done = refusal_written;
	csm_audit_submit(audit, &f->wait);
}

static void refuse(struct req *q, int r, const struct object *o)
{
	const char *why = q->look != NULL && q->look->r == r ? q->look->why : NULL;

	if (r == CSM_EPROOF_REQUIRED)
		proof_challenge(q);
	else if (r == CSM_EBUSY)
		req_error(q, r, why); /* nobody has decided anything */
	else
		req_refuse(q, r, o->text, r == CSM_EDENIED && req_degraded(q) != NULL ? req_degraded(q) : why);
}

int req_authorize(struct req *q, const struct object *o)
{
	int r = req_decide(q, q->method->perm, o->text);

	if (r != 0)
		refuse(q, r, o);
	return r;
}

void req_missing(struct req *q, int list_perm, const struct object *o)
{
	struct object list = {.text = {NULL, 0}};
	bool in_domain = list_perm == CSM_PERM_SECRET_LIST;

	if (object_make(&list, o->ns, in_domain ? o->name : (struct csm_str){NULL, 0}, (struct csm_str){NULL, 0},
		    in_domain ? '/' : 0) == 0 &&
		req_may(q, list_perm, list.text))
		req_error(q, CSM_ENOT_FOUND, NULL);
	else
		refuse(q, CSM_EDENIED, o);
}

/* ---- the store ---- */

int req_begin_read(struct req *q, struct csm_reader **ret)
{
	struct loop *l = q->loop;
	int r = 0;

	if (!l->reading)
		r = loop_begin_read(l);
	if (r != 0)
		req_error(q, r, NULL);
	else
		*ret = l->reader;
	return r;
}

void req_end_read(struct req *q)
{
	if (!q->loop->batch_reads)
		loop_end_read(q->loop);
}

int req_domain(struct req *q, const struct object *o, struct csm_domain_info *info)
{
	struct csm_reader *reader;
	int r;

	if ((r = req_begin_read(q, &reader)) != 0)
		return r;
	r = csm_store_domain_get(reader, o->ns, o->name, info);
	req_end_read(q);
	if (r == CSM_ENOT_FOUND)
		req_missing(q, CSM_PERM_DOMAIN_LIST, o);
	else if (r != 0)
		req_error(q, r, NULL);
	return r;
}

int req_begin_list(struct req *q, struct csm_u64 limit, size_t size, size_t *n, void **items, struct csm_reader **reader)
{
	*n = limit.set && limit.v > 0 ? limit.v : CSM_LIST_DEFAULT;
	*items = csm_pool_alloc(&q->loop->pool, *n * size);
	if (*items == NULL) {
		req_error(q, CSM_ENOMEM, NULL);
		return CSM_ENOMEM;
	}
	return req_begin_read(q, reader);
}

void req_end_list(struct req *q, int r, const void *result)
{
	/* The entries' names live as long as the transaction. */
	if (r == 0)
		req_result(q, result);
	else
		req_error(q, r, NULL);
	req_end_read(q);
}

void req_identify(struct req *q, const struct object *o, struct csm_str request_id, struct csm_request_id *rid,
	char who[static REQ_WHO_MAX])
{
	crypto_generichash_state st;

	memset(rid, 0, sizeof(*rid));
	if (request_id.p == NULL)
		return;
	snprintf(who, REQ_WHO_MAX, "%s%u@%.*s", q->conn->role == CSM_R_ADMIN ? "admin-" : "uid-", req_uid(q),
		(int)o->ns.n, o->ns.p);
	rid->who = csm_str_of(who);
	rid->id = request_id;
	crypto_generichash_init(&st, NULL, 0, sizeof(rid->hash));
	crypto_generichash_update(&st, (const uint8_t *)q->method->name, q->method->name_len + 1u);
	crypto_generichash_update(&st, (const uint8_t *)o->text.p, o->text.n);
	crypto_generichash_update(&st, (const uint8_t *)"", 1);
	crypto_generichash_update(&st, q->raw.p, q->raw.n);
	crypto_generichash_final(&st, rid->hash, sizeof(rid->hash));
}

bool req_replayed(struct req *q, const struct object *o, struct csm_str request_id, struct csm_request_id *rid,
	char who[static REQ_WHO_MAX])
{
	struct csm_reader *reader;
	int r;

	req_identify(q, o, request_id, rid, who);
	if (rid->id.p == NULL)
		return false;
	if (req_begin_read(q, &reader) != 0)
		return true;
	r = csm_store_replay(reader, rid, &q->loop->body);
	req_end_read(q);
	if (r == CSM_ENOT_FOUND)
		return false;
	if (r != 0)
		req_error(q, r, NULL);
	else
		req_result_raw(q, (struct csm_bin){csm_buf_ptr(&q->loop->body), q->loop->body.len});
	return true;
}

/* ---- the gate ---- */

static int check_state(const struct broker *b, const struct csm_method *m, const char **why)
{
	enum broker_state state = b->state;

	*why = NULL;
	switch (state) {
	case BROKER_READY:
		/* What answers in any state has nothing to tell the audit log. */
		*why = UNTOLD;
		if (!(m->states & CSM_S_LOCKED) && csm_audit_refuses(b->audit))
			return CSM_EUNAVAILABLE;
		*why = NULL;
		return m->states & CSM_S_READY ? 0 : CSM_ESTATE;
	case BROKER_LOCKED:
		*why = "the store was changed behind csmd; an administrator has to look and accept";
		return m->states & CSM_S_LOCKED ? 0 : CSM_ETAMPERED;
	case BROKER_STARTING:
		*why = "the store is not open yet, see csm status";
		return m->states & CSM_S_LOCKED ? 0 : CSM_EUNAVAILABLE;
	default:
		return m->states & CSM_S_LOCKED ? 0 : CSM_ESHUTDOWN;
	}
}

/* Uid 0 is root of every container too, should one come by the socket after all. A csmd that is in a namespace itself
 * cannot tell. */
static bool is_of_elsewhere(const struct conn *c)
{
	return c->loop->b->degraded == NULL && !c->peer->facts.same_pid_ns;
}

static int gate(const struct conn *c, const struct csm_method *m, const char **why)
{
	*why = NULL;
	if (!(m->roles & c->role))
		return CSM_EROLE;
	if (c->role == CSM_R_ADMIN && is_of_elsewhere(c)) {
		*why = "the administrator's socket serves csmd's own pid namespace; a container should not have it";
		return CSM_EROLE;
	}
	if (m->where == CSM_W_NONE) {
		*why = "this method is reserved for a later version";
		return CSM_EUNSUPPORTED;
	}
	return check_state(c->loop->b, m, why);
}

static void decode_and_run(struct req *q)
{
	union any_params params;
	char text[128];
	struct csm_str bad = {NULL, 0};
	int r = csm_msg_decode(q->method->request, q->raw, CSM_UNKNOWN_REFUSE, &q->loop->pool, &params, &bad);

	if (r != 0) {
		snprintf(text, sizeof(text), "%s: %.*s", csm_err_text(r), bad.n > 64 ? 64 : (int)bad.n, bad.n > 0 ? bad.p : "");
		req_error(q, r, bad.n > 0 ? text : NULL);
		if (r == CSM_EPROTOCOL)
			conn_end(q->conn);
		return;
	}
	q->params = &params;
	handlers[q->method - csm_methods](q);
	q->params = NULL;
}

static void run_request(struct conn *c, const struct csm_frame *f)
{
	struct req q = {.conn = c, .loop = c->loop, .msgid = f->msgid, .raw = f->params};
	const char *why;
	int r;

	if (op_has_msgid(c, f->msgid)) {
		conn_error(c, f->msgid, CSM_EPROTOCOL, "the msgid is in use by a request in flight");
		conn_end(c);
		return;
	}
	q.method = csm_method_find(f->method);
	if (q.method == NULL) {
		conn_error(c, f->msgid, CSM_EUNKNOWN_METHOD, NULL);
		return;
	}
	atomic_fetch_add_explicit(&c->loop->requests[q.method - csm_methods], 1, memory_order_relaxed);
	log_debug("request: method=%s uid=%u peer_pid=%d", q.method->name, req_uid(&q), (int)req_pid(&q));
	if ((r = gate(c, q.method, &why)) != 0)
		req_error(&q, r, why);
	else if (!proof_defer(&q))
		decode_and_run(&q);
}

void dispatch_again(struct conn *c, const struct csm_method *m, uint32_t msgid, struct csm_bin raw, const struct look *look)
{
	struct req q = {.conn = c, .loop = c->loop, .method = m, .msgid = msgid, .raw = raw, .look = look};
	const char *why;
	int r = gate(c, m, &why);

	if (r != 0)
		req_error(&q, r, why);
	else
		decode_and_run(&q);
	csm_buf_reset(&c->loop->plain);
	csm_buf_reset(&c->loop->body);
	csm_pool_reset(&c->loop->pool);
}

void dispatch_message(struct conn *c, const uint8_t *p, size_t n)
{
	struct csm_frame f;
	uint32_t msgid;
	int r = csm_frame_parse(p, n, &f);

	/* A client sends requests; a notification has no answer, and is awaited of csm-ident only. */
	if (r == 0 && f.type == CSM_NOTIFICATION) {
		if (c->role == CSM_R_IDENT)
			proof_notified(c, &f);
		return;
	}
	if (r == 0 && f.type == CSM_REQUEST) {
		run_request(c, &f);
		return;
	}
	atomic_fetch_add_explicit(&c->loop->protocol_errors, 1, memory_order_relaxed);
	if (csm_scan_msgid(p, n, &msgid))
		conn_error(c, msgid, CSM_EPROTOCOL, NULL);
	conn_end(c);
}

/* ---- operations' answers (here, where failures are logged) ---- */

void op_result(struct op *op, const struct csm_msgdef *def, const void *result)
{
	if (op->conn != NULL)
		conn_result(op->conn, op->msgid, def, result);
}

void op_error(struct op *op, int r, const char *message)
{
	log_failure(op->loop, op->method, op->uid, op->pid, r);
	if (r == CSM_EUNAVAILABLE && message == NULL && csm_audit_refuses(op->loop->b->audit))
		message = UNTOLD;
	if (op->conn != NULL)
		conn_error(op->conn, op->msgid, r, message);
}

static void copy_request_id(struct change *c, const struct csm_request_id *rid)
{
	if (rid->id.p == NULL)
		return;
	memcpy(c->who, rid->who.p, rid->who.n);
	memcpy(c->request_id, rid->id.p, rid->id.n);
	c->op.sop.rid = *rid;
	c->op.sop.rid.who.p = c->who;
	c->op.sop.rid.id.p = c->request_id;
}

int req_change(struct req *q, const struct object *o, const struct csm_request_id *rid, enum csm_op_kind kind,
	size_t size, void (*clear)(struct op *op), struct change **ret)
{
	struct change *c;
	struct op *op;
	int r = op_new(q, size, clear, &op);

	if (r != 0) {
		req_error(q, r, NULL);
		return r;
	}
	c = (struct change *)op;
	object_copy(&c->object, o);
	copy_request_id(c, rid);
	op->sop.kind = kind;
	op->sop.ns = c->object.ns;
	op->sop.name = c->object.name;
	op->sop.secret = c->object.secret;
	op_tell(op, c->object.text);
	*ret = c;
	return 0;
}

void op_commit(struct op *op, void (*apply)(struct op *))
{
	static const uint8_t empty_map = 0x80;
	int r;

	if (op->sop.answer.p == NULL)
		op->sop.answer = (struct csm_bin){&empty_map, 1};
	if ((r = op_to_store(op, apply)) == 0)
		return;
	op_error(op, r, NULL);
	op_done(op);
}

void op_replay(struct op *op)
{
	struct csm_reader *reader = loop_reader(op->loop);
	struct csm_buf answer;
	int r = CSM_EUNAVAILABLE;

	csm_buf_init_message(&answer, CSM_MESSAGE_MAX);
	if (reader != NULL && (r = csm_reader_begin(reader)) == 0) {
		r = csm_store_replay(reader, &op->sop.rid, &answer);
		csm_reader_end(reader);
	}
	if (r != 0)
		op_error(op, r, NULL);
	else if (op->conn != NULL)
		conn_result_raw(op->conn, op->msgid, (struct csm_bin){csm_buf_ptr(&answer), answer.len});
	csm_buf_free(&answer);
}

void op_finish_change(struct op *op)
{
	static const struct csm_msg_empty nothing = {0};

	if (op->r != 0)
		op_error(op, op->r, NULL);
	else
		op_result(op, CSM_DEF(empty), &nothing);
	op_done(op);
}
