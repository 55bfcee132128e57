/* cert.install, get, list, delete: certificates that were issued elsewhere, beside their keys. */
#include <string.h>
#include <time.h>
#include "daemon/node/certinfo.h"
#include "daemon/node/deliver.h"
#include "daemon/node/enrol.h"
#include "daemon/node/keycall.h"
#include "daemon/node/watch.h"
#include "daemon/pki/cert.h"
#include "daemon/svc/lockheap.h"

#define POOL_MAX (512u * 1024u)
#define LIST_BYTES (256u * 1024u) /* of records that one answer is made from: a page ends there */

/* Who may see the key is told that it has no certificate; to others a key without one is like no key. */
static void cert_missing(struct req *q, const struct object *o)
{
	if (req_may(q, CSM_PERM_KEY_PUBLIC, o->text) || req_may(q, CSM_PERM_KEY_SHOW, o->text))
		req_error(q, CSM_ENOT_FOUND, "the key has no certificate");
	else
		req_missing(q, CSM_PERM_KEY_LIST, o);
}

/* ---- install ---- */

struct install_op {
	struct change change;
	struct csm_buf chain, spki; /* copies of the request's and the key's */
	struct csm_buf payload, answer;
	struct csm_pool pool;
	struct csm_msg_cert_info info;
	char why[CSM_CERT_WHY];
};

static void install_clear(struct op *op)
{
	struct install_op *in = (struct install_op *)op;

	csm_buf_free(&in->chain);
	csm_buf_free(&in->spki);
	csm_buf_free(&in->payload);
	csm_buf_free(&in->answer);
	csm_pool_free(&in->pool);
}

static struct csm_bin buf_bin(const struct csm_buf *b)
{
	return (struct csm_bin){csm_buf_ptr(b), b->len};
}

static void install_work(struct op *op)
{
	struct install_op *in = (struct install_op *)op;
	unsigned missed = csm_lockheap_openssl_missed();
	uint64_t now = (uint64_t)time(NULL);
	int r;

	r = csm_cert_check(buf_bin(&in->chain), buf_bin(&in->spki), now, &in->pool, &in->info, in->why);
	if (r == CSM_EINVALID && csm_lockheap_openssl_missed() != missed) {
		in->why[0] = '\0';
		r = CSM_ENOMEM;
	}
	if (r == 0)
		r = certinfo_pack(&in->info, buf_bin(&in->chain), &in->payload);
	if (r == 0) {
		in->info.namespace = in->change.object.ns;
		in->info.name = in->change.object.name;
		in->info.installed.v = now;
		in->info.state = csm_str_of(csm_cert_state(in->info.not_before.v, in->info.not_after.v, now));
		r = csm_msg_encode(CSM_DEF(cert_info), &in->info, &in->answer);
	}
	op->r = r;
}

static void install_committed(struct op *op)
{
	struct install_op *in = (struct install_op *)op;

	if (op->r == 0 && !op->sop.replayed)
		changes_note(op->loop->b, in->change.object.ns, in->change.object.name);
	if (op->r != 0)
		op_error(op, op->r, NULL);
	else if (op->sop.replayed)
		op_replay(op);
	else if (op->conn != NULL)
		conn_result_raw(op->conn, op->msgid, buf_bin(&in->answer));
	op_done(op);
}

static void install_checked(struct op *op)
{
	struct install_op *in = (struct install_op *)op;
	int r = op->r;

	if (r == 0) {
		op->sop.payload = buf_bin(&in->payload);
		op->sop.answer = buf_bin(&in->answer);
		r = op_to_store(op, install_committed);
	}
	if (r == 0)
		return;
	op_error(op, r, in->why[0] != '\0' ? in->why : NULL);
	op_done(op);
}

/* The work is a worker's: ten signatures of an unfriendly kind take milliseconds. */
static void install_start(struct change *change, const struct csm_msg_cert_install_req *m, const struct csm_key_record *key)
{
	struct install_op *in = (struct install_op *)change;
	int r;

	csm_buf_init(&in->chain, CSM_CERT_CHAIN_MAX, false);
	csm_buf_init(&in->spki, CSM_SPKI_MAX, false);
	csm_buf_init(&in->payload, CSM_MESSAGE_MAX, false);
	csm_buf_init(&in->answer, CSM_MESSAGE_MAX, false);
	csm_pool_init(&in->pool, POOL_MAX);
	memcpy(change->op.sop.key.id, key->id, CSM_KEY_ID_LEN);
	/* the chain, and once more in the form that is stored */
	if ((r = op_charge(&change->op, 2 * m->chain.n)) == 0 &&
		(m->chain.n == 0 || (r = csm_buf_put(&in->chain, m->chain.p, m->chain.n)) == 0) &&
		(r = csm_buf_put(&in->spki, key->spki.p, key->spki.n)) == 0)
		r = op_to_worker(&change->op, install_work, install_checked);
	if (r == 0)
		return;
	op_error(&change->op, r, NULL);
	op_done(&change->op);
}

void do_CERT_INSTALL(struct req *q)
{
	const struct csm_msg_cert_install_req *m = q->params;
	struct csm_request_id rid;
	struct change *change;
	struct key_found f;
	struct object o;
	char who[REQ_WHO_MAX];

	if (req_object(q, m->key, &o) != 0 || req_authorize(q, &o) != 0 ||
		req_replayed(q, &o, m->request_id, &rid, who) || key_look(q, m->key, KEY_ANY, &f) != 0)
		return;
	if (req_change(q, &o, &rid, CSM_OP_CERT_SET, sizeof(struct install_op), install_clear, &change) == 0)
		install_start(change, m, &f.rec);
	req_end_read(q);
}

/* ---- look ---- */

void do_CERT_GET(struct req *q)
{
	const struct csm_msg_key_req *m = q->params;
	struct csm_msg_cert_info info;
	struct csm_bin chain;
	struct key_found f;
	uint64_t installed;
	int r;

	if (key_look(q, m->key, KEY_ANY, &f) != 0)
		return;
	r = csm_store_cert_get(f.reader, f.object.ns, f.object.name, f.rec.id, &q->loop->body, &installed);
	if (r == 0)
		r = certinfo_unpack((struct csm_bin){csm_buf_ptr(&q->loop->body), q->loop->body.len}, (uint64_t)time(NULL),
			&q->loop->pool, &info, &chain);
	if (r == 0) {
		info.namespace = f.object.ns;
		info.name = f.object.name;
		if (info.installed.v == 0)
			info.installed.v = installed;
		info.chain = chain;
		info.anchors = enrol_anchors(q->loop->b->enrol, info.profile, &q->loop->pool);
		info.anchors_of = (struct csm_str){NULL, 0};
		info.reported = (struct csm_u64){0, false};
		deliver_tell(q->loop->b->deliver, &q->loop->pool, &info);
		req_result(q, &info);
	} else if (r == CSM_ENOT_FOUND) {
		cert_missing(q, &f.object);
	} else {
		req_error(q, r, NULL);
	}
	req_end_read(q);
}

struct lister {
	struct csm_msg_cert_list_res res;
	struct csm_pool *pool;
	struct csm_str ns;
	uint64_t now;
	size_t limit, bytes;
	int r;
};

static struct csm_str keep(struct lister *l, struct csm_str s)
{
	char *p = csm_pool_alloc(l->pool, s.n + 1);

	if (p == NULL) {
		l->r = CSM_ENOMEM;
		return CSM_STR("");
	}
	return (struct csm_str){memcpy(p, s.p, s.n), s.n};
}

/* What csmd does about it. */
static void list_wanted(struct lister *l, const struct csm_msg_cert_info *info, struct csm_msg_cert_item *item)
{
	if (info->profile.n == 0)
		return;
	item->profile = keep(l, info->profile);
	item->renew_at = (struct csm_u64){info->renew_at.v, true};
	item->next_try = info->next_try;
	item->attempts = info->attempts;
	if (info->last_error.n > 0)
		item->last_error = keep(l, info->last_error);
}

static bool list_one(void *arg, struct csm_str name, uint64_t installed, struct csm_bin payload)
{
	struct csm_msg_cert_item *item;
	struct csm_msg_cert_info info;
	struct lister *l = arg;
	struct csm_pool pool;
	struct csm_bin chain;

	if (l->res.certs.n == l->limit || l->bytes > LIST_BYTES) {
		l->res.more.v = true;
		return false;
	}
	l->bytes += payload.n;
	csm_pool_init(&pool, POOL_MAX);
	l->r = certinfo_unpack(payload, l->now, &pool, &info, &chain);
	if (l->r == 0) {
		item = &l->res.certs.v[l->res.certs.n++];
		item->namespace = l->ns;
		item->name = name;
		item->serial = keep(l, info.serial);
		item->subject = keep(l, info.subject);
		item->not_after = info.not_after;
		item->state = info.state;
		item->fingerprint = keep(l, info.fingerprint);
		item->installed.v = info.installed.v != 0 ? info.installed.v : installed;
		list_wanted(l, &info, item);
	}
	csm_pool_free(&pool);
	return l->r == 0;
}

void do_CERT_LIST(struct req *q)
{
	const struct csm_msg_list_req *m = q->params;
	struct lister l = {.pool = &q->loop->pool, .now = (uint64_t)time(NULL)};
	struct csm_reader *reader;
	struct object o;
	void *items;
	int r;

	if (req_namespace(q, m->namespace, &o) != 0 || req_authorize(q, &o) != 0 ||
		req_begin_list(q, m->limit, sizeof(*l.res.certs.v), &l.limit, &items, &reader) != 0)
		return;
	l.ns = o.ns;
	l.res.certs.v = items;
	r = csm_store_cert_list(reader, o.ns, m->after, &q->loop->body, list_one, &l);
	req_end_list(q, r == 0 ? l.r : r, &l.res);
}

/* ---- delete ---- */

static void cert_deleted(struct op *op)
{
	struct change *c = (struct change *)op;

	if (op->r == 0 && !op->sop.replayed)
		changes_note(op->loop->b, c->object.ns, c->object.name);
	op_finish_change(op);
}

void do_CERT_DELETE(struct req *q)
{
	const struct csm_msg_key_delete_req *m = q->params;
	struct csm_request_id rid;
	struct key_found f;
	struct change *c;
	struct object o;
	char who[REQ_WHO_MAX];
	int r;

	if (req_object(q, m->key, &o) != 0 || req_authorize(q, &o) != 0 ||
		req_replayed(q, &o, m->request_id, &rid, who) || key_look(q, m->key, m->spki_sha256, &f) != 0)
		return;
	r = csm_store_cert_get(f.reader, o.ns, o.name, f.rec.id, &q->loop->body, NULL);
	req_end_read(q);
	if (r == CSM_ENOT_FOUND)
		cert_missing(q, &o);
	/* one that is damaged can be deleted too */
	else if (r != 0 && r != CSM_ETAMPERED)
		req_error(q, r, NULL);
	else if (req_change(q, &o, &rid, CSM_OP_CERT_DELETE, sizeof(*c), NULL, &c) == 0) {
		memcpy(c->op.sop.key.id, f.rec.id, CSM_KEY_ID_LEN);
		op_commit(&c->op, cert_deleted);
	}
}
