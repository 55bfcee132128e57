/* cert.enrol, renew, revoke; and the channel of csm-enrol: enrol.next, sign, done. */
#include <string.h>
#include "daemon/node/enrol.h"
#include "daemon/node/keycall.h"
#include "daemon/pki/cert.h"
#include "daemon/pki/certreq.h"
#include "daemon/pki/csr.h"

#define POOL_MAX (256u * 1024u)

static void enrol_clear(struct op *op)
{
	struct enrol_op *o = (struct enrol_op *)op;

	csm_pool_free(&o->pool);
	csm_buf_free(&o->csr);
	csm_buf_free(&o->chain);
	csm_buf_free(&o->anchors);
	csm_buf_free(&o->answer);
}

static void enrol_prepare(struct enrol_op *o, enum enrol_kind kind)
{
	o->kind = kind;
	csm_pool_init(&o->pool, POOL_MAX);
	csm_buf_init(&o->csr, CSM_CSR_MAX, false);
	csm_buf_init(&o->chain, CSM_CERT_CHAIN_MAX, false);
	csm_buf_init(&o->anchors, CSM_CERT_CHAIN_MAX, false);
	csm_buf_init(&o->answer, CSM_MESSAGE_MAX, kind == ENROL_NEXT);
}

static void refuse(struct enrol_op *o, int r, const char *why)
{
	op_error(&o->change.op, r, why);
	op_done(&o->change.op);
}

static int copy(struct enrol_op *o, struct csm_str s, struct csm_str *ret)
{
	char *p = csm_pool_alloc(&o->pool, s.n + 1);

	if (p == NULL)
		return CSM_ENOMEM;
	if (s.n > 0)
		memcpy(p, s.p, s.n);
	*ret = (struct csm_str){p, s.n};
	return 0;
}

/* ---- the names that are asked for ---- */

static int names_given(struct enrol_op *o, const struct csm_msg_cert_enrol_req *m)
{
	int r = 0;

	if (m->subject.p != NULL)
		r = copy(o, m->subject, &o->subject);
	for (size_t i = 0; r == 0 && i < m->sans.n; i++)
		r = copy(o, m->sans.v[i], &o->sans.v[o->sans.n++]);
	return r;
}

static int names_of_profile(struct req *q, struct enrol_op *o, const struct csm_enrol_profile *p, const char **why)
{
	const struct csm_facts *f = &q->conn->peer->facts;
	const struct enrol_who who = {.hostname = enrol_hostname(q->loop->b->enrol), .ns = o->change.object.ns,
		.name = o->change.object.name, .unit = f->unit, .pod = f->pod};
	int r = 0;

	if (o->subject.p == NULL)
		r = enrol_expand(p->subject, &who, &o->pool, &o->subject, why);
	for (size_t i = 0; r == 0 && o->sans.n == i && p->san[i] != NULL; i++)
		r = enrol_expand(p->san[i], &who, &o->pool, &o->sans.v[o->sans.n++], why);
	return r;
}

/* What a request that was made elsewhere asks for. */
static int names_of_csr(struct enrol_op *o, struct csm_bin csr, char why[static CSM_CERTREQ_WHY])
{
	struct csm_certreq *req;
	struct csm_buf text;
	int r = csm_certreq_read(csr, &req, why), n;

	if (r != 0)
		return r;
	csm_buf_init(&text, CSM_CERT_NAME_MAX, false);
	n = req->sans != NULL ? sk_GENERAL_NAME_num(req->sans) : 0;
	if (req->wants_ca || n > (int)CSM_SANS_MAX) {
		(void)snprintf(why, CSM_CERTREQ_WHY, "the request asks to be a CA, or for too many names");
		r = CSM_EINVALID;
	}
	if (r == 0 && (r = csm_name_text(req->subject, &text)) == 0)
		r = copy(o, (struct csm_str){(const char *)csm_buf_ptr(&text), text.len}, &o->subject);
	for (int i = 0; r == 0 && i < n; i++) {
		csm_buf_reset(&text);
		if ((r = csm_san_text(sk_GENERAL_NAME_value(req->sans, i), &text)) == 0)
			r = copy(o, (struct csm_str){(const char *)csm_buf_ptr(&text), text.len}, &o->sans.v[o->sans.n++]);
	}
	csm_buf_free(&text);
	csm_certreq_free(req);
	return r;
}

/* A profile's names are those that it says; anything else has to be allowed by it. */
static int take_names(struct req *q, struct enrol_op *o, const struct csm_msg_cert_enrol_req *m, char why[static CSM_CERTREQ_WHY])
{
	const struct csm_enrol_profile *p = enrol_config(q->loop->b->enrol, o->profile);
	const char *text = "";
	int r;

	o->sans.v = csm_pool_alloc(&o->pool, (CSM_SANS_MAX + 1) * sizeof(*o->sans.v));
	if (o->sans.v == NULL)
		return CSM_ENOMEM;
	r = m->csr.p != NULL ? names_of_csr(o, m->csr, why) : names_given(o, m);
	if (r != 0)
		return r;
	r = enrol_allowed(p, o->subject, o->sans.v, o->sans.n, &text);
	if (r == 0 && m->csr.p == NULL)
		r = names_of_profile(q, o, p, &text);
	if (r != 0)
		(void)snprintf(why, CSM_CERTREQ_WHY, "%s", text);
	return r;
}

/* ---- requests ---- */

static int new_op(struct req *q, const struct object *o, const struct csm_request_id *rid, enum enrol_kind kind, bool wait,
	const uint8_t *id, struct enrol_op **ret)
{
	struct change *c;
	int r = req_change(q, o, rid, CSM_OP_CERT_SET, sizeof(struct enrol_op), enrol_clear, &c);

	if (r != 0)
		return r;
	*ret = (struct enrol_op *)c;
	enrol_prepare(*ret, kind);
	(*ret)->wait = wait;
	if (id != NULL)
		memcpy((*ret)->key_id, id, CSM_KEY_ID_LEN);
	return 0;
}

/* What no request can be made of is refused before it is written down. */
static int names_fit(const struct enrol_op *o, const struct csm_key_record *rec, char why[static 128])
{
	const struct csm_csr_spec spec = {.subject = o->subject, .sans = o->sans.v, .n_sans = o->sans.n,
		.spki = rec->spki.p, .spki_len = rec->spki.n, .scheme = csm_scheme_default(rec->alg)};
	struct csm_csr *csr = NULL;
	int r = csm_csr_build(&spec, &csr, why);

	csm_csr_free(csr);
	return r;
}

/* rec: the key that asks; NULL: m has a request that was made elsewhere. */
static void enrol_begin(struct req *q, const struct csm_msg_cert_enrol_req *m, const struct csm_key_record *rec, struct enrol_op *o,
	int profile)
{
	char why[CSM_CERTREQ_WHY] = "";
	int r;

	o->profile = profile;
	o->ttl = m->ttl.v;
	if ((r = op_charge(&o->change.op, m->csr.n + CSM_CERT_CHAIN_MAX)) == 0 && (r = take_names(q, o, m, why)) == 0)
		r = rec != NULL ? names_fit(o, rec, why) : csm_buf_put(&o->csr, m->csr.p, m->csr.n);
	if (r != 0)
		refuse(o, r, why[0] != '\0' ? why : NULL);
	else
		enrol_submit(q->loop->b->enrol, o);
}

static void no_profile(struct req *q, struct csm_str name)
{
	const struct csm_config *cfg = &q->loop->b->cfg;
	char have[CSM_ERROR_TEXT_MAX + 1] = "", why[CSM_ERROR_TEXT_MAX + 1];
	size_t at = 0;

	for (size_t i = 0; i < cfg->n_enrol && at < sizeof(have) - 1; i++) {
		csm_text_put(have + at, sizeof(have) - at, "%s%s", i > 0 ? ", " : "", cfg->enrol[i].name);
		at += strlen(have + at);
	}
	csm_text_put(why, sizeof(why), "csmd.yaml has no enrolment profile %.*s, but %s", name.n > 0 ? (int)name.n : 7,
		name.n > 0 ? name.p : "default", have);
	req_error(q, CSM_EINVALID, cfg->n_enrol > 0 ? why : "csmd.yaml has no enrolment profiles");
}

void do_CERT_ENROL(struct req *q)
{
	const struct csm_msg_cert_enrol_req *m = q->params;
	bool wait = !m->wait.set || m->wait.v;
	struct csm_request_id rid = {.id = {NULL, 0}};
	char who[REQ_WHO_MAX];
	struct enrol_op *op;
	struct key_found f;
	struct object o;
	int profile;

	if (req_object(q, m->key, &o) != 0 || req_authorize(q, &o) != 0)
		return;
	if ((profile = enrol_profile(q->loop->b->enrol, m->profile)) < 0) {
		no_profile(q, m->profile);
		return;
	}
	if (m->csr.p != NULL && (m->subject.p != NULL || m->sans.n > 0)) {
		req_error(q, CSM_EINVALID, "a request that was made elsewhere has its names");
		return;
	}
	if (m->csr.p != NULL) {
		if (req_replayed(q, &o, m->request_id, &rid, who))
			return;
		req_used(q, o.text);
		if (new_op(q, &o, &rid, ENROL_ENROL, true, NULL, &op) == 0)
			enrol_begin(q, m, NULL, op, profile);
		return;
	}
	/* One that was lost on its way finds what it began, and waits for it. */
	req_identify(q, &o, m->request_id, &rid, who);
	if ((!wait && req_replayed(q, &o, m->request_id, &rid, who)) || key_find(q, m->key, KEY_ANY, CSM_USE_SIGN, &f) != 0)
		return;
	if (new_op(q, &o, &rid, ENROL_ENROL, wait, f.rec.id, &op) == 0)
		enrol_begin(q, m, &f.rec, op, profile);
	req_end_read(q);
}

void do_CERT_RENEW(struct req *q)
{
	const struct csm_msg_cert_renew_req *m = q->params;
	struct csm_request_id rid;
	char who[REQ_WHO_MAX];
	struct enrol_op *op;
	struct key_found f;
	struct object o;

	if (req_object(q, m->key, &o) != 0 || req_authorize(q, &o) != 0 || req_replayed(q, &o, m->request_id, &rid, who) ||
		key_look(q, m->key, KEY_ANY, &f) != 0)
		return;
	if (new_op(q, &f.object, &rid, ENROL_RENEW, !m->wait.set || m->wait.v, f.rec.id, &op) == 0)
		enrol_submit(q->loop->b->enrol, op);
	req_end_read(q);
}

static bool is_reason(struct csm_str s)
{
	static const char *const reasons[] = {
		"unspecified", "keyCompromise", "affiliationChanged", "superseded", "cessationOfOperation"};

	for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
		if (csm_str_eq(s, reasons[i]))
			return true;
	return s.p == NULL;
}

void do_CERT_REVOKE(struct req *q)
{
	const struct csm_msg_cert_revoke_req *m = q->params;
	struct csm_request_id rid;
	char who[REQ_WHO_MAX];
	struct enrol_op *op;
	struct key_found f;
	struct object o;
	int r;

	if (req_object(q, m->key, &o) != 0 || req_authorize(q, &o) != 0)
		return;
	if (!is_reason(m->reason)) {
		req_error(q, CSM_EINVALID, "a reason is unspecified, keyCompromise, affiliationChanged, superseded or cessationOfOperation");
		return;
	}
	if (req_replayed(q, &o, m->request_id, &rid, who) || key_look(q, m->key, KEY_ANY, &f) != 0)
		return;
	if (new_op(q, &f.object, &rid, ENROL_REVOKE, true, f.rec.id, &op) == 0) {
		r = copy(op, m->reason, &op->reason);
		if (r != 0)
			refuse(op, r, NULL);
		else
			enrol_submit(q->loop->b->enrol, op);
	}
	req_end_read(q);
}

/* ---- csm-enrol ---- */

void do_ENROL_NEXT(struct req *q)
{
	struct enrol_op *o;
	struct op *op;
	int r;

	/* What it brought for that job was refused: else it would never have another one. */
	if (q->conn->enrol_job != 0) {
		enrol_channel_closed(q->loop->b->enrol, q->conn->enrol_job, true);
		q->conn->enrol_job = 0;
		q->conn->enrol_sign = NULL;
		req_error(q, CSM_ESTATE, "this channel had a job in hand, and has it no more");
		return;
	}
	if ((r = op_new(q, sizeof(*o), enrol_clear, &op)) != 0) {
		req_error(q, r, NULL);
		return;
	}
	o = (struct enrol_op *)op;
	enrol_prepare(o, ENROL_NEXT);
	enrol_submit(q->loop->b->enrol, o);
}

/* The profile's own key, as a request of the caller's would have found it. */
static int find_own(struct req *q, struct key_found *f)
{
	static const char ns[] = CSM_OWN_NAMESPACE;
	const char *name = q->conn->enrol_sign->name;
	int r, n = snprintf(f->object.buf, sizeof(f->object.buf), "%s:%s", ns, name);

	f->object.text = (struct csm_str){f->object.buf, (size_t)n};
	f->object.ns = (struct csm_str){f->object.buf, sizeof(ns) - 1};
	f->object.name = (struct csm_str){f->object.buf + sizeof(ns), (size_t)n - sizeof(ns)};
	if ((r = req_begin_read(q, &f->reader)) != 0)
		return r;
	r = csm_store_key_get(f->reader, f->object.ns, f->object.name, false, NULL, &f->rec);
	if (r == 0 && memcmp(f->rec.id, q->conn->enrol_key, CSM_KEY_ID_LEN) != 0)
		r = CSM_ENOT_FOUND;
	if (r == 0) {
		f->be = broker_backend(q->loop->b, f->rec.backend);
		r = f->be == NULL || f->be->ctx == NULL ? CSM_EUNAVAILABLE : f->rec.lost ? CSM_ESTATE : 0;
	}
	if (r != 0) {
		req_end_read(q);
		req_error(q, r, NULL);
	}
	return r;
}

void do_ENROL_SIGN(struct req *q)
{
	const struct csm_msg_enrol_sign_req *m = q->params;
	struct key_call call = {.what = KEY_WHAT_SIGN, .in = m->digest};
	struct key_found f = {.own = NULL};

	if (q->conn->enrol_job == 0 || q->conn->enrol_job != m->job.v || q->conn->enrol_sign == NULL) {
		req_error(q, CSM_ESTATE, "this channel has no such job, or one without a key");
		return;
	}
	if (find_own(q, &f) != 0)
		return;
	if (key_scheme(q, &f, m->scheme, &call.scheme) != 0) {
		req_end_read(q);
	} else if (call.scheme.hash != CSM_HASH_NONE && m->digest.n != csm_hash_size(call.scheme.hash)) {
		req_end_read(q);
		req_error(q, CSM_EINVALID, "the digest has not the size of the scheme's hash");
	} else {
		key_call_run(q, &f, &call);
	}
}

static int take_done(struct enrol_op *o, const struct csm_msg_enrol_done_req *m)
{
	int r;

	o->job = m->job.v;
	o->retry_after_s = m->retry_after_s.v;
	if ((r = op_charge(&o->change.op, m->chain.n + m->anchors.n)) != 0 || (r = copy(o, m->error, &o->error)) != 0 ||
		(r = copy(o, m->why, &o->why)) != 0)
		return r;
	if (m->chain.n > 0 && (r = csm_buf_put(&o->chain, m->chain.p, m->chain.n)) != 0)
		return r;
	return m->anchors.n > 0 ? csm_buf_put(&o->anchors, m->anchors.p, m->anchors.n) : 0;
}

void do_ENROL_DONE(struct req *q)
{
	const struct csm_msg_enrol_done_req *m = q->params;
	struct enrol_op *o;
	struct op *op;
	int r;

	if (q->conn->enrol_job == 0 || q->conn->enrol_job != m->job.v) {
		req_error(q, CSM_ESTATE, "this channel has no such job");
		return;
	}
	if ((r = op_new(q, sizeof(*o), enrol_clear, &op)) != 0) {
		req_error(q, r, NULL);
		return;
	}
	o = (struct enrol_op *)op;
	enrol_prepare(o, ENROL_DONE);
	if ((r = take_done(o, m)) != 0) {
		refuse(o, r, NULL);
		return;
	}
	q->conn->enrol_job = 0;
	q->conn->enrol_sign = NULL;
	enrol_submit(q->loop->b->enrol, o);
}
