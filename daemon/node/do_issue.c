/* issue.sign, and issue.begin, update and finish for long lists: what keys with the use `issuer` sign. What is asked for is read,
 * a usual certificate at once, all else by a worker; then the store's writer takes the serial number and tells the audit log, in one commit; then it is signed. */
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/node/certinfo.h"
#include "daemon/node/keycall.h"
#include "daemon/node/keyrules.h"
#include "daemon/pki/tbs.h"
#include "daemon/svc/lockheap.h"

#define DIGEST_MAX 64u
#define RECORD_MAX (16u * 1024u)
#define QUICK_MAX 2048u /* of a certificate that is looked at on the loop */

/* A list in parts. Its key is looked at again at the end. */
struct issue_list {
	uint64_t id;
	char key[CSM_KEYREF_MAX + 1]; /* full name */
	size_t key_len;
	uint8_t key_id[CSM_KEY_ID_LEN];
	struct csm_tbs_crl *crl;
	struct csm_scheme scheme;
	EVP_MD_CTX *md, *sha256; /* by the scheme, and for the audit log */
	struct issue_list *next;
};

static void list_free(struct issue_list *l)
{
	if (l == NULL)
		return;
	csm_tbs_crl_free(l->crl);
	EVP_MD_CTX_free(l->md);
	EVP_MD_CTX_free(l->sha256);
	free(l);
}

void issue_forget(struct conn *c)
{
	struct issue_list *l;

	while ((l = c->issues) != NULL) {
		c->issues = l->next;
		list_free(l);
	}
}

/* ---- one signature, on its way ---- */

struct issue_op {
	struct change change; /* first */
	struct csm_backend *be;
	struct csm_keycache *cache;  /* of the threads that work for be */
	struct csm_key_record rec;   /* slices of key */
	struct csm_buf key;          /* secret */
	struct csm_buf chain, tbs;   /* tbs: of a list in parts its tail */
	struct keyrules rules;
	enum csm_tbs_kind kind;
	struct issue_list *list;     /* NULL: it is there as a whole */
	struct key_call call;        /* scheme: as wanted, then as found */
	bool any_scheme;
	struct csm_store_issue issue;
	struct csm_tbs found;
	uint8_t digest[DIGEST_MAX], sha256[crypto_hash_sha256_BYTES];
	char detail[CSM_AUDIT_DETAIL], why[CSM_TBS_WHY];
	struct csm_audit_wait wait;
	uint8_t signature[CSM_SIGNATURE_MAX];
	struct csm_plugin_out out;
};

static struct csm_bin buf_bin(const struct csm_buf *b)
{
	return (struct csm_bin){csm_buf_ptr(b), b->len};
}

static void issue_clear(struct op *op)
{
	struct issue_op *i = (struct issue_op *)op;

	csm_buf_free(&i->key);
	csm_buf_free(&i->chain);
	csm_buf_free(&i->tbs);
	list_free(i->list);
}

static void fail(struct op *op, int r)
{
	struct issue_op *i = (struct issue_op *)op;

	op_error(op, r, i->why[0] != '\0' ? i->why : NULL);
	op_done(op);
}

/* ---- the signature ---- */

static void signed_apply(struct op *op)
{
	struct issue_op *i = (struct issue_op *)op;
	struct csm_msg_sign_res res = {
		.scheme = csm_str_of(csm_scheme_name(&i->call.scheme)), .signature = {i->signature, i->out.len}};

	if (op->r != 0) {
		fail(op, op->r);
		return;
	}
	op_signed(op, i->rec.id);
	op_result(op, op->method->response, &res);
	op_done(op);
}

/* A device or somebody's library is believed nothing: who asked rests on it that this is the key's signature. */
static int verify(struct issue_op *i)
{
	const unsigned char *at = i->rec.spki.p;
	EVP_PKEY *pub = d2i_PUBKEY(NULL, &at, (long)i->rec.spki.n);
	int r = pub == NULL ? CSM_EINTERNAL : csm_sigalg_verify(pub, &i->call.scheme, i->call.in, (struct csm_bin){i->signature, i->out.len});

	EVP_PKEY_free(pub);
	if (r == CSM_EBACKEND)
		(void)snprintf(i->why, sizeof(i->why), "what the key's back end made is no signature of the key");
	return r;
}

static void sign_work(struct op *op)
{
	struct issue_op *i = (struct issue_op *)op;

	op->r = key_call_on(i->cache, i->be, &i->rec, &i->call, &i->out, monotonic_ms());
	if (op->r == 0)
		op->r = verify(i);
}

static void committed(struct op *op)
{
	struct issue_op *i = (struct issue_op *)op;
	int r = op->r;

	if (r == CSM_EEXISTS)
		(void)snprintf(i->why, sizeof(i->why), "the key has used this serial number");
	else if (r == CSM_ECONFLICT)
		(void)snprintf(i->why, sizeof(i->why), "the number is smaller than that of the last list, or the key is another one by now");
	else if (op->sop.r == CSM_EBUSY) /* else the store's queue is full */
		(void)snprintf(i->why, sizeof(i->why), "the key's rate of this hour is used up");
	if (r != 0) {
		fail(op, r);
		return;
	}
	i->out = (struct csm_plugin_out){.p = i->signature, .cap = sizeof(i->signature)};
	if (csm_backend_inline(i->be, i->rec.alg)) {
		op->r = key_call_on(&op->loop->keys, i->be, &i->rec, &i->call, &i->out, op->loop->now_ms);
		signed_apply(op);
	} else if ((r = op_to_backend(op, i->be, sign_work, signed_apply)) != 0) {
		fail(op, r);
	}
}

/* ---- what is asked for ---- */

static void tell(struct issue_op *i)
{
	static const char *const kinds[] = {
		[CSM_TBS_CERTIFICATE] = "certificate", [CSM_TBS_CRL] = "crl", [CSM_TBS_OCSP] = "ocsp"};
	static const char *const numbers[] = {[CSM_TBS_CERTIFICATE] = "serial", [CSM_TBS_CRL] = "number"};
	char number[2 * CSM_TBS_NUMBER_MAX + 1] = "", hash[2 * sizeof(i->sha256) + 1];
	int n = snprintf(i->detail, sizeof(i->detail), ",\"kind\":\"%s\"", kinds[i->kind]);

	sodium_bin2hex(number, sizeof(number), i->found.number, i->found.number_len);
	sodium_bin2hex(hash, sizeof(hash), i->sha256, sizeof(i->sha256));
	if (i->kind != CSM_TBS_OCSP)
		n += snprintf(i->detail + n, sizeof(i->detail) - (size_t)n, ",\"%s\":\"%s\"", numbers[i->kind], number);
	(void)snprintf(i->detail + n, sizeof(i->detail) - (size_t)n, ",\"tbs_sha256\":\"%s\"", hash);
	i->change.op.event.detail = i->detail;
	i->issue.kind = i->kind == CSM_TBS_CERTIFICATE ? CSM_ISSUE_SERIAL : i->kind == CSM_TBS_CRL ? CSM_ISSUE_CRL : CSM_ISSUE_OTHER;
	i->issue.number = (struct csm_bin){i->found.number, i->found.number_len};
	i->issue.rate = i->rules.rules.rate.v;
	i->change.op.sop.issue = &i->issue;
}

static int digest_whole(struct issue_op *i)
{
	int r = csm_sigalg_digest(&i->call.scheme, buf_bin(&i->tbs), i->digest, &i->call.in);

	if (r == 0 && i->call.scheme.hash == CSM_HASH_SHA256)
		memcpy(i->sha256, i->digest, sizeof(i->sha256));
	else if (r == 0)
		crypto_hash_sha256(i->sha256, csm_buf_ptr(&i->tbs), i->tbs.len);
	return r;
}

static int digest_list(struct issue_op *i)
{
	unsigned n = 0;

	if (EVP_DigestUpdate(i->list->md, csm_buf_ptr(&i->tbs), i->tbs.len) != 1 ||
		EVP_DigestUpdate(i->list->sha256, csm_buf_ptr(&i->tbs), i->tbs.len) != 1 ||
		EVP_DigestFinal_ex(i->list->sha256, i->sha256, &n) != 1 || EVP_DigestFinal_ex(i->list->md, i->digest, &n) != 1)
		return CSM_ENOMEM;
	i->call.in = (struct csm_bin){i->digest, n};
	return 0;
}

static struct csm_tbs_key tbs_key(const struct csm_key_record *rec, const struct keyrules *rules, struct csm_bin chain)
{
	return (struct csm_tbs_key){
		.alg = rec->alg, .spki = rec->spki, .rules = &rules->rules, .chain = chain, .now = (uint64_t)time(NULL)};
}

static bool same_scheme(const struct csm_scheme *a, const struct csm_scheme *b)
{
	return a->kind == b->kind && a->hash == b->hash;
}

static int read_it(struct issue_op *i, bool quick)
{
	struct csm_tbs_key key = tbs_key(&i->rec, &i->rules, buf_bin(&i->chain));
	int r = 0;

	key.quick = quick;
	if (i->chain.len > 0)
		r = issuercerts_get(&i->change.op.loop->b->issuercerts, key.chain, &key.cert, &key.above);
	if (r != 0)
		return r;
	r = i->list != NULL ? csm_tbs_crl_end(i->list->crl, &key, buf_bin(&i->tbs), &i->found, i->why) :
			      csm_tbs_check(&key, i->kind, buf_bin(&i->tbs), &i->found, i->why);
	X509_free(key.cert);
	X509_free(key.above);
	if (r != 0)
		return r;
	if (!i->any_scheme && i->kind != CSM_TBS_OCSP && !same_scheme(&i->call.scheme, &i->found.scheme)) {
		(void)snprintf(i->why, sizeof(i->why), "the scheme is not the one that it names itself");
		return CSM_EINVALID;
	}
	/* ResponseData does not say it: what is asked for holds. */
	if (i->any_scheme || i->kind != CSM_TBS_OCSP)
		i->call.scheme = i->found.scheme;
	return i->list != NULL ? digest_list(i) : digest_whole(i);
}

static int check(struct issue_op *i, bool quick)
{
	unsigned missed = csm_lockheap_openssl_missed();
	int r = read_it(i, quick);

	if (r != 0 && csm_lockheap_openssl_missed() != missed) {
		i->why[0] = '\0';
		r = CSM_ENOMEM;
	}
	if (r == 0)
		tell(i);
	return r;
}

static void check_work(struct op *op)
{
	op->r = check((struct issue_op *)op, false);
}

/* A refusal is in the audit log before it is answered. */
static void refused(struct op *op)
{
	fail(op, op->r);
}

static void refusal_told(struct csm_audit_wait *w)
{
	struct op *op = (struct op *)((char *)w - offsetof(struct issue_op, wait));

	if (op_post(op) != 0)
		abort();
}

static void refuse(struct op *op)
{
	struct issue_op *i = (struct issue_op *)op;
	struct csm_audit *audit = op->loop->b->audit;

	if (csm_audit_denied_counted(audit, op->uid)) {
		fail(op, op->r);
		return;
	}
	op->apply = refused;
	i->wait.event = op->event;
	i->wait.event.kind = CSM_AUDIT_DENIED;
	i->wait.event.result = csm_err_name(op->r);
	i->wait.done = refusal_told;
	csm_audit_submit(audit, &i->wait);
}

static void checked(struct op *op)
{
	int r = op->r;

	if (r == CSM_EDENIED || r == CSM_EINVALID || r == CSM_ESTATE)
		refuse(op);
	else if (r != 0 || (r = op_to_store(op, committed)) != 0)
		fail(op, r);
}

/* ---- asking ---- */

static int copy_into(struct csm_buf *b, struct csm_bin *s)
{
	const uint8_t *at = b->p + b->off + b->len;
	int r = csm_buf_put(b, s->p, s->n);

	if (r == 0)
		s->p = at;
	return r;
}

/* The record, with its private part: so its seal vouches for the rules. In an allocation that does not move. */
static int copy_record(struct req *q, struct key_found *f, struct issue_op *i)
{
	uint8_t *room;
	int r = csm_store_key_get(f->reader, f->object.ns, f->object.name, true, &q->loop->key, &i->rec);

	if (r == 0 && (r = csm_buf_reserve(&i->key, i->rec.spki.n + i->rec.pub.n + i->rec.priv.n + i->rec.issuer.n + 1, &room)) == 0 &&
		(r = copy_into(&i->key, &i->rec.spki)) == 0 && (r = copy_into(&i->key, &i->rec.pub)) == 0 &&
		(r = copy_into(&i->key, &i->rec.priv)) == 0)
		r = copy_into(&i->key, &i->rec.issuer);
	csm_buf_reset(&q->loop->key);
	return r != 0 ? r : keyrules_unpack(i->rec.issuer, &i->rules);
}

/* The chain that is installed beside the key; a slice of the loop's body buffer. */
static int chain_of(struct req *q, const struct key_found *f, struct csm_bin *ret)
{
	struct csm_msg_cert_info info;
	int r = csm_store_cert_get(f->reader, f->object.ns, f->object.name, f->rec.id, &q->loop->body, NULL);

	*ret = (struct csm_bin){NULL, 0};
	if (r == CSM_ENOT_FOUND)
		return 0;
	return r != 0 ? r : certinfo_unpack(buf_bin(&q->loop->body), 0, &q->loop->pool, &info, ret);
}

static int fill(struct req *q, struct key_found *f, struct issue_op *i, struct csm_bin tbs)
{
	struct csm_bin chain;
	int r;

	csm_buf_init(&i->key, RECORD_MAX, true);
	csm_buf_init(&i->chain, CSM_CERT_CHAIN_MAX, false);
	csm_buf_init(&i->tbs, CSM_TBS_MAX, false);
	i->be = f->be;
	i->cache = f->be->owner != NULL ? &q->loop->b->owner_keys[f->be - q->loop->b->backends] : &q->loop->b->shared_keys;
	memcpy(i->change.op.sop.key.id, f->rec.id, CSM_KEY_ID_LEN);
	i->call.what = KEY_WHAT_SIGN;
	if ((r = copy_record(q, f, i)) != 0 || (r = chain_of(q, f, &chain)) != 0 ||
		(r = op_charge(&i->change.op, i->key.len + chain.n + tbs.n)) != 0 ||
		(chain.n > 0 && (r = csm_buf_put(&i->chain, chain.p, chain.n)) != 0))
		return r;
	return tbs.n > 0 ? csm_buf_put(&i->tbs, tbs.p, tbs.n) : 0;
}

/* f is open, and closed here. list may be NULL, and is taken over. */
static void start(struct req *q, struct key_found *f, enum csm_tbs_kind kind, struct csm_bin tbs, const struct csm_scheme *scheme,
	struct issue_list *list)
{
	struct csm_request_id rid;
	struct change *change;
	struct issue_op *i;
	int r;

	memset(&rid, 0, sizeof(rid));
	if (req_change(q, &f->object, &rid, CSM_OP_ISSUE, sizeof(*i), issue_clear, &change) != 0) {
		req_end_read(q);
		list_free(list);
		return;
	}
	i = (struct issue_op *)change;
	i->kind = kind;
	i->list = list;
	i->any_scheme = scheme == NULL;
	if (scheme != NULL)
		i->call.scheme = *scheme;
	r = fill(q, f, i, tbs);
	req_end_read(q);
	if (r == 0 && list == NULL && kind == CSM_TBS_CERTIFICATE && tbs.n <= QUICK_MAX &&
		(change->op.r = check(i, true)) != CSM_EBUSY) {
		checked(&change->op);
		return;
	}
	if (r == 0)
		r = op_to_worker(&change->op, check_work, checked);
	if (r != 0)
		fail(&change->op, r);
}

/* Kind, key and scheme of a request; *scheme points to space, or is NULL where any will do. */
static int find(struct req *q, struct csm_str ref, struct csm_str want, struct csm_str kind, struct csm_str name,
	struct key_found *f, enum csm_tbs_kind *k, struct csm_scheme *space, const struct csm_scheme **scheme)
{
	int r = csm_tbs_kind_parse(kind, k);

	if (r != 0) {
		req_error(q, r, "kind is one of certificate, crl, ocsp");
		return r;
	}
	if ((r = key_find(q, ref, want, CSM_USE_ISSUER, f)) != 0)
		return r;
	*scheme = name.p != NULL ? space : NULL;
	if (name.p != NULL && (r = key_scheme(q, f, name, space)) != 0)
		req_end_read(q);
	return r;
}

void do_ISSUE_SIGN(struct req *q)
{
	const struct csm_msg_issue_sign_req *m = q->params;
	const struct csm_scheme *scheme;
	struct csm_scheme space;
	enum csm_tbs_kind kind;
	struct key_found f;

	if (find(q, m->key, m->spki_sha256, m->kind, m->scheme, &f, &kind, &space, &scheme) == 0)
		start(q, &f, kind, m->tbs, scheme, NULL);
}

/* ---- in parts ---- */

static EVP_MD_CTX *hash_new(const char *name)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();

	if (md != NULL && EVP_DigestInit_ex(md, EVP_get_digestbyname(name), NULL) == 1)
		return md;
	EVP_MD_CTX_free(md);
	return NULL;
}

static int list_hash(struct issue_list *l, struct csm_bin p)
{
	return EVP_DigestUpdate(l->md, p.p, p.n) == 1 && EVP_DigestUpdate(l->sha256, p.p, p.n) == 1 ? 0 : CSM_ENOMEM;
}

static int list_new(struct conn *c, const struct key_found *f, const struct csm_tbs *tbs, struct issue_list **ret)
{
	struct issue_list *l = calloc(1, sizeof(*l));

	if (l == NULL)
		return CSM_ENOMEM;
	l->id = ++c->next_stream;
	l->key_len = f->object.text.n;
	memcpy(l->key, f->object.text.p, l->key_len);
	memcpy(l->key_id, f->rec.id, CSM_KEY_ID_LEN);
	l->scheme = tbs->scheme;
	l->md = hash_new(csm_hash_name(tbs->scheme.hash));
	l->sha256 = hash_new("SHA256");
	if (l->md == NULL || l->sha256 == NULL) {
		list_free(l);
		return CSM_ENOMEM;
	}
	*ret = l;
	return 0;
}

/* Everything that can be said of a list before its entries. */
static int begin(struct req *q, struct key_found *f, const struct csm_msg_issue_begin_req *m, const struct csm_scheme *scheme,
	struct issue_list **ret, char why[static CSM_TBS_WHY])
{
	struct keyrules rules;
	struct csm_tbs_crl *crl = NULL;
	struct csm_tbs tbs;
	struct csm_tbs_key key;
	struct csm_key_record rec;
	struct csm_bin chain;
	int r = csm_store_key_get(f->reader, f->object.ns, f->object.name, true, &q->loop->key, &rec);

	csm_buf_reset(&q->loop->key);
	why[0] = '\0';
	if (r != 0 || (r = keyrules_unpack(rec.issuer, &rules)) != 0 || (r = chain_of(q, f, &chain)) != 0)
		return r;
	key = tbs_key(&rec, &rules, chain);
	if ((r = csm_tbs_crl_begin(&key, m->head, &crl, &tbs, why)) != 0)
		return r;
	if (tbs.scheme.hash == CSM_HASH_NONE) {
		(void)snprintf(why, CSM_TBS_WHY, "this scheme signs a list as a whole, at most 768 KiB");
		r = CSM_EUNSUPPORTED;
	} else if (scheme != NULL && !same_scheme(scheme, &tbs.scheme)) {
		(void)snprintf(why, CSM_TBS_WHY, "the scheme is not the one that the list names itself");
		r = CSM_EINVALID;
	} else if ((r = list_new(q->conn, f, &tbs, ret)) == 0) {
		(*ret)->crl = crl;
		return list_hash(*ret, m->head);
	}
	csm_tbs_crl_free(crl);
	return r;
}

static unsigned count(const struct conn *c)
{
	unsigned n = 0;

	for (const struct issue_list *l = c->issues; l != NULL; l = l->next)
		n++;
	return n;
}

/* What a list says is the audit log's matter; want of memory and the like are not. */
static void list_refused(struct req *q, int r, struct csm_str key, const char *why)
{
	if (r == CSM_EDENIED || r == CSM_EINVALID || r == CSM_ESTATE)
		req_refuse(q, r, key, why);
	else
		req_error(q, r, why[0] != '\0' ? why : NULL);
}

void do_ISSUE_BEGIN(struct req *q)
{
	const struct csm_msg_issue_begin_req *m = q->params;
	struct csm_msg_issue_begin_res res = {0};
	const struct csm_scheme *scheme;
	struct issue_list *l = NULL;
	struct csm_scheme space;
	enum csm_tbs_kind kind;
	char why[CSM_TBS_WHY];
	struct key_found f;
	int r;

	if (find(q, m->key, m->spki_sha256, m->kind, m->scheme, &f, &kind, &space, &scheme) != 0)
		return;
	if (kind != CSM_TBS_CRL || count(q->conn) >= CSM_ISSUES_MAX) {
		req_end_read(q);
		if (kind != CSM_TBS_CRL)
			req_error(q, CSM_EINVALID, "only a crl comes in parts");
		else
			req_error(q, CSM_EBUSY, "too many lists in parts on this connection");
		return;
	}
	r = begin(q, &f, m, scheme, &l, why);
	req_end_read(q);
	if (r == 0) {
		l->next = q->conn->issues;
		q->conn->issues = l;
		res.stream.v = l->id;
		req_result(q, &res);
		return;
	}
	list_free(l);
	list_refused(q, r, f.object.text, why);
}

/* Taken out of the connection's. */
static struct issue_list *list_take(struct req *q, uint64_t id)
{
	struct issue_list **at, *l;

	for (at = &q->conn->issues; (l = *at) != NULL; at = &l->next)
		if (l->id == id) {
			*at = l->next;
			return l;
		}
	req_error(q, CSM_EINVALID, "there is no such list on this connection");
	return NULL;
}

void do_ISSUE_UPDATE(struct req *q)
{
	const struct csm_msg_issue_update_req *m = q->params;
	struct issue_list *l = list_take(q, m->stream.v);
	struct csm_msg_empty res = {0};
	char why[CSM_TBS_WHY] = "";
	int r;

	if (l == NULL)
		return;
	if ((r = csm_tbs_crl_entries(l->crl, m->entries, why)) == 0)
		r = list_hash(l, m->entries);
	if (r != 0) {
		list_refused(q, r, (struct csm_str){l->key, l->key_len}, why);
		list_free(l);
		return;
	}
	l->next = q->conn->issues;
	q->conn->issues = l;
	req_result(q, &res);
}

void do_ISSUE_FINISH(struct req *q)
{
	const struct csm_msg_issue_finish_req *m = q->params;
	struct csm_msg_sign_res none = {.scheme = {"", 0}, .signature = {(const uint8_t *)"", 0}};
	struct issue_list *l = list_take(q, m->stream.v);
	struct key_found f;

	if (l == NULL)
		return;
	if (m->cancel.v) {
		req_result(q, &none);
		list_free(l);
		return;
	}
	/* Name, policy and use are judged anew. */
	if (key_find(q, (struct csm_str){l->key, l->key_len}, KEY_ANY, CSM_USE_ISSUER, &f) != 0) {
		list_free(l);
	} else if (memcmp(f.rec.id, l->key_id, CSM_KEY_ID_LEN) != 0) {
		req_end_read(q);
		req_error(q, CSM_ECONFLICT, "the key was replaced since the list was begun");
		list_free(l);
	} else {
		start(q, &f, CSM_TBS_CRL, m->tail, &l->scheme, l);
	}
}
