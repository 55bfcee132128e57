/* key.create, import, list, show, public, delete. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "daemon/node/certinfo.h"
#include "daemon/node/connkey.h"
#include "daemon/node/keycall.h"
#include "daemon/node/keyimport.h"
#include "daemon/node/keyinfo.h"
#include "daemon/node/making.h"
#include "daemon/pki/tbs.h"
#include "libclient/base/lockmem.h"
#include "libclient/wire/msg.h"

/* ---- create ---- */

struct create_op {
	struct change change;
	struct csm_backend *be;
	struct csm_plugin_keyspec spec;
	enum csm_key_origin origin;
	struct csm_buf wrapped; /* import only */
	struct csm_buf answer; /* the key_info, encoded */
	struct csm_buf issuer; /* the rules of an issuer's key, as they are kept; empty: it is none */
	uint8_t spki[CSM_SPKI_MAX], pub[CSM_PLUGIN_PUB_MAX], tag[CSM_KEY_TAG_MAX];
	uint8_t *priv; /* CSM_PLUGIN_PRIV_MAX bytes of locked memory */
	size_t spki_len, pub_len, priv_len, tag_len;
	char existing[CSM_PLUGIN_REF_MAX + 1]; /* empty: a new key */
	uint8_t id[CSM_KEY_ID_LEN];            /* drawn before it is made: a device that keeps keys marks it with that */
	struct making_note note;
	void (*made)(struct op *);
	bool noted; /* whether it is in the device, and in the store, is being watched */
	int result; /* that of the commit, while what was made for nothing is ended */
};

static void create_clear(struct op *op)
{
	struct create_op *c = (struct create_op *)op;

	free(c->note.text);
	csm_buf_free(&c->wrapped);
	csm_buf_free(&c->answer);
	csm_buf_free(&c->issuer);
	csm_lock_free(c->priv);
}

static void create_work(struct op *op)
{
	struct create_op *c = (struct create_op *)op;
	struct csm_plugin_out spki = {.p = c->spki, .cap = sizeof(c->spki)};
	struct csm_plugin_out pub = {.p = c->pub, .cap = sizeof(c->pub)};
	struct csm_plugin_out priv = {.p = c->priv, .cap = CSM_PLUGIN_PRIV_MAX};

	if (c->wrapped.len > 0)
		op->r = csm_be_import(c->be, &c->spec, (struct csm_bin){csm_buf_ptr(&c->wrapped), c->wrapped.len}, &spki,
			&pub, &priv);
	else
		op->r = c->existing[0] != '\0' ? csm_be_find(c->be, c->existing, &c->spec, &spki, &pub, &priv) :
						 csm_be_generate(c->be, &c->spec, &spki, &pub, &priv);
	c->spki_len = spki.len;
	c->pub_len = pub.len;
	c->priv_len = priv.len;
}

static void create_answer(struct op *op)
{
	struct create_op *c = (struct create_op *)op;
	struct csm_bin answer = {csm_buf_ptr(&c->answer), c->answer.len};

	if (op->r != 0)
		op_error(op, op->r, NULL);
	else if (op->sop.replayed)
		op_replay(op);
	else if (op->conn != NULL)
		conn_result_raw(op->conn, op->msgid, answer);
	op_done(op);
}

static void unmake_work(struct op *op)
{
	struct create_op *c = (struct create_op *)op;

	op->r = csm_be_discard(c->be, c->id);
}

/* A key that was made for nothing, another being first, is in the device no more, or will be ended later. */
static void unmade(struct op *op)
{
	struct create_op *c = (struct create_op *)op;
	struct making *m = &op->loop->b->making;

	if (op->r == 0)
		making_end(m, c->id);
	else
		making_leave(m, c->id);
	op->r = c->result;
	create_answer(op);
}

static void create_committed(struct op *op)
{
	struct create_op *c = (struct create_op *)op;
	struct making *m = &op->loop->b->making;

	if (c->noted && op->r == 0 && !op->sop.replayed) {
		making_end(m, c->id);
	} else if (c->noted) {
		c->result = op->r;
		if (op_to_backend(op, c->be, unmake_work, unmade) == 0)
			return;
		making_leave(m, c->id);
	}
	create_answer(op);
}

static int create_record(struct create_op *c)
{
	struct csm_key_record *rec = &c->change.op.sop.key;
	struct keyinfo_space space;
	struct csm_msg_key_info info;
	int r;

	memcpy(rec->id, c->id, sizeof(rec->id));
	rec->backend = csm_str_of(csm_backend_name(c->be));
	rec->protection = csm_str_of(c->be->caps.protection);
	rec->alg = c->spec.alg;
	rec->use = c->issuer.len > 0 ? CSM_USE_ISSUER : c->spec.use;
	if (c->issuer.len > 0)
		rec->issuer = (struct csm_bin){csm_buf_ptr(&c->issuer), c->issuer.len};
	rec->exportable = c->spec.exportable;
	rec->origin = c->origin;
	rec->created = (uint64_t)time(NULL);
	rec->spki = (struct csm_bin){c->spki, c->spki_len};
	rec->pub = (struct csm_bin){c->pub, c->pub_len};
	rec->priv = (struct csm_bin){c->priv, c->priv_len};
	rec->tag = (struct csm_bin){c->tag, c->tag_len};
	if ((r = keyinfo_fill(c->change.object.ns, c->change.object.name, rec, &space, &info)) != 0)
		return r;
	return csm_msg_encode(CSM_DEF(key_info), &info, &c->answer);
}

static void create_made(struct op *op)
{
	struct create_op *c = (struct create_op *)op;
	const char *why = NULL;
	int r = op->r;

	if (r == CSM_EINVALID && c->wrapped.len > 0)
		why = "the key cannot be used here: it is damaged, was made for another node, or has an authorisation";
	if (r == 0)
		r = create_record(c);
	if (r == 0) {
		op->sop.answer = (struct csm_bin){csm_buf_ptr(&c->answer), c->answer.len};
		r = op_to_store(op, create_committed);
	}
	if (r == 0)
		return;
	/* A device may have made it without being able to say so. */
	if (c->noted)
		making_leave(&op->loop->b->making, c->id);
	op_error(op, r, why);
	op_done(op);
}

/* ---- for the connection only ---- */

static void connection_made(struct op *op)
{
	struct create_op *c = (struct create_op *)op;
	struct object *o = &c->change.object;
	int r = op->r;

	if (r == 0)
		r = create_record(c);
	if (r == 0 && op->conn != NULL)
		r = connkey_put(op->conn, o->text, &op->sop.key);
	if (r != 0) {
		op_error(op, r, NULL);
	} else if (op->conn != NULL) {
		op_used(op, o->text);
		conn_result_raw(op->conn, op->msgid, (struct csm_bin){csm_buf_ptr(&c->answer), c->answer.len});
	}
	op_done(op);
}

/* Such a key is the software's: what a chip or an HSM makes may outlive csmd. */
static int choose_software(struct req *q, const struct csm_msg_key_create_req *m, const struct object *o,
	enum csm_alg alg, struct csm_backend **ret)
{
	const char *why = "a key for the connection only has a name that begins with a dot, and no other key has";
	int r = CSM_EINVALID;

	if (!connkey_is_name(o->name) || !m->session.v)
		goto refuse;
	why = "a key for the connection only is made in software, and cannot be exportable";
	r = CSM_EUNSUPPORTED;
	if ((m->backend.p != NULL && !csm_str_eq(m->backend, "soft")) || m->exportable.v || m->existing.p != NULL)
		goto refuse;
	why = NULL;
	if ((r = connkey_check(q->conn, o->text)) != 0)
		goto refuse;
	*ret = broker_backend(q->loop->b, CSM_STR("soft"));
	why = "the software back end is not there";
	r = CSM_EUNAVAILABLE;
	if (*ret == NULL || (*ret)->ctx == NULL)
		goto refuse;
	why = "the back end does not have this algorithm";
	r = CSM_EUNSUPPORTED;
	if (!csm_backend_has(*ret, alg))
		goto refuse;
	return 0;
refuse:
	req_error(q, r, why);
	return r;
}

/* ---- for good ---- */

/* What a key's record says of its maker, and what it is made from, if it is not made here. */
struct create_from {
	enum csm_key_origin origin;
	struct csm_bin tag, wrapped;
	const struct csm_msg_issuer_rules *issuer; /* NULL: no issuer's */
};

/* It is written down that there will be such a key. */
static void create_noted(struct op *op)
{
	struct create_op *c = (struct create_op *)op;
	int r = op->r;

	if (r == 0)
		r = op_to_backend(op, c->be, create_work, c->made);
	if (r == 0)
		return;
	making_end(&op->loop->b->making, c->id);
	op_error(op, r, NULL);
	op_done(op);
}

/* A key that the device will keep is announced before it is made. */
static int create_send(struct create_op *c, struct csm_backend *be)
{
	struct object *o = &c->change.object;

	if (!making_needed(be) || c->existing[0] != '\0' || c->wrapped.len > 0)
		return op_to_backend(&c->change.op, be, create_work, c->made);
	c->noted = true;
	c->spec.tag = c->id;
	return making_begin(&c->change.op, &c->note, be, c->id, o->ns, o->name, create_noted);
}

static void create_start(struct change *change, struct csm_backend *be, const struct csm_plugin_keyspec *spec,
	const struct create_from *from, void (*made)(struct op *))
{
	struct create_op *c = (struct create_op *)change;
	int r;

	csm_buf_init(&c->answer, CSM_MESSAGE_MAX, false);
	csm_buf_init(&c->wrapped, CSM_WRAPPED_MAX, true);
	csm_buf_init(&c->issuer, CSM_ISSUER_RULES_MAX, false);
	c->be = be;
	c->spec = *spec;
	c->origin = from->origin;
	c->made = made;
	randombytes_buf(c->id, sizeof(c->id));
	c->tag_len = from->tag.n;
	if (from->tag.n > 0)
		memcpy(c->tag, from->tag.p, from->tag.n);
	c->priv = csm_lock_alloc(CSM_PLUGIN_PRIV_MAX);
	r = c->priv == NULL ? CSM_ENOMEM : 0;
	if (r == 0 && from->wrapped.n > 0)
		r = csm_buf_put(&c->wrapped, from->wrapped.p, from->wrapped.n);
	if (r == 0 && from->issuer != NULL)
		r = keyrules_pack(from->issuer, &c->issuer);
	if (r == 0)
		r = create_send(c, be);
	if (r != 0) {
		op_error(&change->op, r, NULL);
		op_done(&change->op);
	}
}

/* The strongest back end that is preferred, or the one asked for. Never another one instead. */
static int choose_backend(struct req *q, struct csm_str name, enum csm_alg alg, struct csm_backend **ret)
{
	struct broker *b = q->loop->b;

	*ret = name.p != NULL ? broker_backend(b, name) : broker_preferred(b);
	if (*ret == NULL) {
		req_error(q, name.p != NULL ? CSM_EUNSUPPORTED : CSM_EUNAVAILABLE, "there is no such back end on this node");
		return CSM_EUNSUPPORTED;
	}
	if ((*ret)->ctx == NULL) {
		req_error(q, CSM_EUNAVAILABLE, NULL);
		return CSM_EUNAVAILABLE;
	}
	if (alg != CSM_ALG__COUNT && !csm_backend_has(*ret, alg)) {
		req_error(q, CSM_EUNSUPPORTED, "the back end does not have this algorithm");
		return CSM_EUNSUPPORTED;
	}
	return 0;
}

/* Whoever may make keys may not therefore take what others have put into a device. */
static int check_existing(struct req *q, const struct csm_msg_key_create_req *m)
{
	if (q->conn->role != CSM_R_ADMIN) {
		req_error(q, CSM_EROLE, "a key that exists is taken into use by the administrator");
		return CSM_EROLE;
	}
	if (m->alg.p != NULL || m->use.n > 0 || m->exportable.set || m->session.set || m->existing.n == 0 ||
		memchr(m->existing.p, '\0', m->existing.n) != NULL) {
		req_error(q, CSM_EINVALID, "of a key that exists neither algorithm nor use can be chosen");
		return CSM_EINVALID;
	}
	return 0;
}

/* To its back end an issuer's key is one that signs. */
static int check_issuer(struct req *q, const struct csm_msg_issuer_rules *rules)
{
	char why[CSM_TBS_WHY];
	int r = csm_tbs_rules_check(rules, why);

	if (r != 0)
		req_error(q, r, why[0] != '\0' ? why : NULL);
	return r;
}

/* *ret: the use issuer, and only that. */
static int parse_issuer(struct req *q, const struct csm_msg_key_create_req *m, bool *ret)
{
	const char *why = "the use issuer and rules for it go together, and without another use";
	int r = CSM_EINVALID;
	size_t n = 0;

	for (size_t i = 0; i < m->use.n; i++)
		n += csm_str_eq(m->use.v[i], "issuer");
	*ret = n > 0;
	if (n == 0 && m->issuer == NULL)
		return 0;
	if (n == 0 || m->use.n != 1 || m->issuer == NULL)
		goto refuse;
	r = CSM_EUNSUPPORTED;
	why = "an issuer's key is neither exportable nor for a connection only, nor one that exists";
	if (m->exportable.v || m->session.v || m->existing.p != NULL)
		goto refuse;
	return check_issuer(q, m->issuer);
refuse:
	req_error(q, r, why);
	return r;
}

static int parse_spec(struct req *q, const struct csm_msg_key_create_req *m, struct csm_plugin_keyspec *spec)
{
	bool issuer;
	unsigned use;
	int r;

	if ((r = parse_issuer(q, m, &issuer)) != 0)
		return r;

	if (m->existing.p != NULL) {
		spec->alg = CSM_ALG__COUNT; /* the device tells */
		return check_existing(q, m);
	}
	spec->alg = CSM_ALG_P256;
	if (m->alg.p != NULL && (r = csm_alg_parse(m->alg, &spec->alg)) != 0) {
		req_error(q, r, "there is no such algorithm");
		return r;
	}
	for (size_t i = 0; i < m->use.n && !issuer; i++) {
		if ((r = csm_use_parse(m->use.v[i], &use)) != 0) {
			req_error(q, r, "a use is one of sign, decrypt, derive, issuer");
			return r;
		}
		spec->use |= use;
	}
	if (issuer)
		spec->use = CSM_USE_SIGN;
	if (spec->use == 0)
		spec->use = csm_alg_default_use(spec->alg);
	if ((r = csm_alg_check_use(spec->alg, spec->use)) != 0) {
		req_error(q, r, "the algorithm cannot have this use");
		return r;
	}
	spec->exportable = m->exportable.v;
	return 0;
}

/* Cheaper than making a key for nothing; the commit decides. */
static int check_absent(struct req *q, const struct object *o)
{
	struct csm_key_record rec;
	struct csm_reader *reader;
	int r;

	if ((r = req_begin_read(q, &reader)) != 0)
		return r;
	r = csm_store_key_get(reader, o->ns, o->name, false, NULL, &rec);
	req_end_read(q);
	if (r == CSM_ENOT_FOUND)
		return 0;
	r = r == 0 ? CSM_EEXISTS : r;
	req_error(q, r, NULL);
	return r;
}

void do_KEY_CREATE(struct req *q)
{
	const struct csm_msg_key_create_req *m = q->params;
	struct csm_plugin_keyspec spec = {0};
	struct csm_request_id rid;
	struct csm_backend *be;
	struct change *change;
	struct object o;
	char who[REQ_WHO_MAX];
	bool session;

	if (parse_spec(q, m, &spec) != 0 || req_key_object(q, m->key, &o) != 0 || req_authorize(q, &o) != 0)
		return;
	session = m->session.v || connkey_is_name(o.name);
	memset(&rid, 0, sizeof(rid));
	if (session ? choose_software(q, m, &o, spec.alg, &be) != 0 :
		      /* What was done before is told also while the back end is away. */
		      req_replayed(q, &o, m->request_id, &rid, who) || choose_backend(q, m->backend, spec.alg, &be) != 0 ||
			      check_absent(q, &o) != 0)
		return;
	if (req_change(q, &o, &rid, CSM_OP_KEY_CREATE, sizeof(struct create_op), create_clear, &change) != 0)
		return;
	if (m->existing.n > 0)
		memcpy(((struct create_op *)change)->existing, m->existing.p, m->existing.n);
	create_start(change, be, &spec, &(struct create_from){.origin = CSM_KEY_MADE, .tag = m->tag, .issuer = m->issuer},
		session ? connection_made : create_made);
}

/* ---- import ---- */

void do_KEY_IMPORT(struct req *q)
{
	const struct csm_msg_key_import_req *m = q->params;
	struct csm_plugin_keyspec spec = {0};
	struct csm_backend *be = NULL;
	struct csm_request_id rid;
	struct change *change;
	struct object o;
	const char *why = "there is no wrapped key in the request";
	char who[REQ_WHO_MAX];
	int r;

	if (req_object(q, m->key, &o) != 0 || req_authorize(q, &o) != 0 || req_replayed(q, &o, m->request_id, &rid, who))
		return;
	if (m->issuer != NULL && check_issuer(q, m->issuer) != 0)
		return;
	r = m->wrapped.n == 0 ? CSM_EINVALID : keyimport_look(q->loop->b, m->wrapped, &spec, &be, &why);
	if (r == 0 && m->issuer != NULL && (spec.use & CSM_USE_SIGN) == 0) {
		r = CSM_EUNSUPPORTED;
		why = "the key does not sign";
	}
	if (r != 0) {
		req_error(q, r, why);
		return;
	}
	if (check_absent(q, &o) != 0 ||
		req_change(q, &o, &rid, CSM_OP_KEY_CREATE, sizeof(struct create_op), create_clear, &change) != 0)
		return;
	create_start(change, be, &spec,
		&(struct create_from){m->exposed.v ? CSM_KEY_EXPOSED : CSM_KEY_IMPORTED, m->tag, m->wrapped, m->issuer}, create_made);
}

/* ---- look ---- */

/* What is told of the key's certificate, if it has one. */
static int show_certificate(struct req *q, const struct key_found *f, struct csm_msg_key_cert *cert,
	struct csm_msg_key_info *ret)
{
	struct csm_msg_cert_info info;
	struct csm_bin chain;
	int r = csm_store_cert_get(f->reader, f->object.ns, f->object.name, f->rec.id, &q->loop->body, NULL);

	if (r == CSM_ENOT_FOUND)
		return 0;
	if (r == 0)
		r = certinfo_unpack((struct csm_bin){csm_buf_ptr(&q->loop->body), q->loop->body.len}, (uint64_t)time(NULL),
			&q->loop->pool, &info, &chain);
	/* its key is as good as ever, and who looks for what is wrong has to be told of both */
	if (r == CSM_ETAMPERED)
		info = (struct csm_msg_cert_info){.serial = CSM_STR(""), .state = CSM_STR("damaged"), .fingerprint = CSM_STR("")};
	else if (r != 0)
		return r;
	*cert = (struct csm_msg_key_cert){.serial = info.serial, .not_after = info.not_after, .state = info.state,
		.fingerprint = info.fingerprint};
	ret->certificate = cert;
	return 0;
}

void do_KEY_SHOW(struct req *q)
{
	const struct csm_msg_key_req *m = q->params;
	struct keyinfo_space space;
	struct csm_msg_key_cert cert;
	struct csm_msg_key_info info;
	struct key_found f;
	int r;

	if (key_look(q, m->key, KEY_ANY, &f) != 0)
		return;
	f.rec.signatures += counts_pending(&q->loop->b->counts, f.rec.id);
	r = keyinfo_fill(f.object.ns, f.object.name, &f.rec, &space, &info);
	if (r == 0)
		r = show_certificate(q, &f, &cert, &info);
	if (r == 0)
		req_result(q, &info);
	else
		req_error(q, r, NULL);
	req_end_read(q);
}

void do_KEY_PUBLIC(struct req *q)
{
	const struct csm_msg_key_public_req *m = q->params;
	struct csm_msg_key_public_res res = {0};
	char pem[KEYINFO_PEM_MAX];
	struct key_found f;
	int r;

	if (key_look_before(q, m->key, m->spki_sha256, &f) != 0)
		return;
	res.alg = csm_str_of(csm_alg_name(f.rec.alg));
	res.spki = f.rec.spki;
	res.tag = f.rec.tag.n > 0 ? f.rec.tag : (struct csm_bin){0};
	r = keyinfo_pem(f.rec.spki, pem, sizeof(pem), &res.public);
	if (r == 0)
		req_result(q, &res);
	else
		req_error(q, r, NULL);
	req_end_read(q);
}

struct key_lister {
	struct csm_msg_key_list_res res;
	struct csm_str ns;
	size_t limit;
	bool failed;
};

static bool list_one(void *arg, struct csm_str name, const struct csm_key_record *rec)
{
	struct key_lister *l = arg;
	struct csm_msg_key_item *item;

	if (l->res.keys.n == l->limit) {
		l->res.more.v = true;
		return false;
	}
	item = &l->res.keys.v[l->res.keys.n++];
	item->namespace = l->ns;
	item->name = name;
	item->alg = csm_str_of(csm_alg_name(rec->alg));
	item->backend = rec->backend;
	item->protection = rec->protection;
	item->created.v = rec->created;
	item->state = rec->lost ? CSM_STR("lost") : CSM_STR("ready");
	item->tag = rec->tag.n > 0 ? rec->tag : (struct csm_bin){0};
	return true;
}

void do_KEY_LIST(struct req *q)
{
	const struct csm_msg_list_req *m = q->params;
	struct key_lister l = {.limit = 0};
	struct csm_reader *reader;
	struct object o;
	void *items;

	if (req_namespace(q, m->namespace, &o) != 0 || req_authorize(q, &o) != 0 ||
		req_begin_list(q, m->limit, sizeof(*l.res.keys.v), &l.limit, &items, &reader) != 0)
		return;
	l.ns = o.ns;
	l.res.keys.v = items;
	req_end_list(q, csm_store_key_list(reader, o.ns, m->after, list_one, &l), &l.res);
}

/* ---- delete ---- */

struct delete_op {
	struct change change;
	uint8_t id[CSM_KEY_ID_LEN];
	struct csm_backend *keeper; /* a device that keeps the key, or NULL */
	struct making_note note;
};

static void delete_clear(struct op *op)
{
	free(((struct delete_op *)op)->note.text);
}

static void discard_work(struct op *op)
{
	struct delete_op *d = (struct delete_op *)op;

	op->r = csm_be_discard(d->keeper, d->id);
}

/* Its record is gone: that is what was asked for, and what is still in the device goes later. */
static void discarded(struct op *op)
{
	struct delete_op *d = (struct delete_op *)op;

	if (op->r == 0)
		making_end(&op->loop->b->making, d->id);
	else
		making_leave(&op->loop->b->making, d->id);
	op->r = 0;
	op_finish_change(op);
}

static void delete_committed(struct op *op)
{
	struct delete_op *d = (struct delete_op *)op;
	struct broker *b = op->loop->b;

	if (op->r == 0 && !op->sop.replayed) {
		/* What is loaded of it goes at once. A serial back end's goes when it is idle: it holds no plain key. */
		csm_keycache_drop(&b->shared_keys, d->id);
		for (unsigned i = 0; i < b->n_loops; i++)
			csm_keycache_drop(&b->loops[i]->keys, d->id);
		if (d->keeper != NULL && op_to_backend(op, d->keeper, discard_work, discarded) == 0)
			return;
	}
	if (d->keeper != NULL)
		making_leave(&b->making, d->id);
	op_finish_change(op);
}

static void delete_noted(struct op *op)
{
	if (op->r == 0) {
		op_commit(op, delete_committed);
		return;
	}
	making_end(&op->loop->b->making, ((struct delete_op *)op)->id);
	op_finish_change(op);
}

static void delete_own(struct req *q, const struct csm_msg_key_delete_req *m)
{
	static const struct csm_msg_empty nothing = {0};
	struct key_found f;

	if (key_look(q, m->key, m->spki_sha256, &f) != 0)
		return;
	req_end_read(q);
	connkey_drop(q->conn, f.own);
	req_used(q, f.object.text);
	req_result(q, &nothing);
}

void do_KEY_DELETE(struct req *q)
{
	const struct csm_msg_key_delete_req *m = q->params;
	struct csm_request_id rid;
	struct csm_backend *be;
	struct key_found f;
	struct delete_op *d;
	struct change *c;
	struct object o;
	char who[REQ_WHO_MAX];
	int r;

	if (req_key_object(q, m->key, &o) != 0)
		return;
	if (connkey_is_name(o.name)) {
		delete_own(q, m);
		return;
	}
	if (req_authorize(q, &o) != 0 ||
		req_replayed(q, &o, m->request_id, &rid, who) || key_look(q, m->key, m->spki_sha256, &f) != 0)
		return;
	be = broker_backend(q->loop->b, f.rec.backend);
	req_end_read(q); /* the record's id is a copy */
	if (req_change(q, &o, &rid, CSM_OP_KEY_DELETE, sizeof(*d), delete_clear, &c) != 0)
		return;
	d = (struct delete_op *)c;
	memcpy(d->id, f.rec.id, CSM_KEY_ID_LEN);
	memcpy(c->op.sop.key.id, f.rec.id, CSM_KEY_ID_LEN);
	if (be == NULL || !making_needed(be)) {
		op_commit(&c->op, delete_committed);
		return;
	}
	d->keeper = be;
	if ((r = making_begin(&c->op, &d->note, be, d->id, c->object.ns, c->object.name, delete_noted)) != 0) {
		op_error(&c->op, r, NULL);
		op_done(&c->op);
	}
}
