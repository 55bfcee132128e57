/* secret.set, get, list, delete. */
#include <string.h>
#include "daemon/node/dispatch.h"
#include "libclient/wire/dec.h"
#include "libclient/wire/enc.h"
#include "libclient/wire/put.h"

/* ---- set ---- */

struct set_op {
	struct change change;
	struct csm_buf payload; /* secret */
};

static void set_clear(struct op *op)
{
	csm_buf_free(&((struct set_op *)op)->payload);
}

static void set_committed(struct op *op)
{
	struct csm_msg_secret_set_res res = {.version = {.v = op->sop.version, .set = true}};

	if (op->r != 0)
		op_error(op, op->r, op->r == CSM_ENOT_FOUND ? "there is no such domain" :
			op->r == CSM_ECONFLICT && op->sop.has_expect ? "the newest version is not the expected one" : NULL);
	else if (op->sop.replayed)
		op_replay(op);
	else
		op_result(op, CSM_DEF(secret_set_res), &res);
	op_done(op);
}

static const char *check_pair(const struct csm_msg_secret_set_req *m, size_t i)
{
	const struct csm_msg_pair *p = &m->pairs.v[i];

	if (!csm_name_valid(p->name))
		return "a pair's name is not well formed";
	if (p->type.p != NULL && !csm_str_eq(p->type, "text") && !csm_str_eq(p->type, "bytes") &&
		!csm_str_eq(p->type, "json"))
		return "a pair's type is one of text, bytes, json";
	for (size_t j = 0; j < i; j++)
		if (csm_str_same(m->pairs.v[j].name, p->name))
			return "two pairs have the same name";
	return NULL;
}

static int check_pairs(struct req *q, const struct csm_msg_secret_set_req *m)
{
	const char *why = m->pairs.n == 0 ? "a secret has at least one pair" : NULL;
	size_t total = 0;

	for (size_t i = 0; why == NULL && i < m->pairs.n; i++) {
		why = check_pair(m, i);
		total += m->pairs.v[i].name.n + m->pairs.v[i].value.n;
	}
	if (why != NULL) {
		req_error(q, CSM_EINVALID, why);
		return CSM_EINVALID;
	}
	if (total > CSM_SECRET_MAX) {
		req_error(q, CSM_ETOO_LARGE, "names and values together are above the limit");
		return CSM_ETOO_LARGE;
	}
	return 0;
}

/* The stored form: an array of pair maps, as secret.get gives them out. */
static int encode_pairs(const struct csm_msg_secret_set_req *m, struct csm_buf *out)
{
	int r = csm_enc_array(out, (uint32_t)m->pairs.n);

	for (size_t i = 0; r == 0 && i < m->pairs.n; i++) {
		struct csm_msg_pair p = m->pairs.v[i];

		if (p.type.p == NULL)
			p.type = CSM_STR("bytes");
		r = csm_msg_encode(CSM_DEF(pair), &p, out);
	}
	return r;
}

void do_SECRET_SET(struct req *q)
{
	const struct csm_msg_secret_set_req *m = q->params;
	struct csm_domain_info info;
	struct csm_request_id rid;
	struct change *c;
	struct set_op *s;
	struct object o;
	struct op *op;
	char who[REQ_WHO_MAX];
	int r;

	if (check_pairs(q, m) != 0 || req_secret_object(q, m->secret, &o) != 0 || req_authorize(q, &o) != 0 ||
		req_replayed(q, &o, m->request_id, &rid, who) || req_domain(q, &o, &info) != 0 ||
		req_change(q, &o, &rid, CSM_OP_SECRET_SET, sizeof(*s), set_clear, &c) != 0)
		return;
	s = (struct set_op *)c;
	op = &c->op;
	csm_buf_init_message(&s->payload, CSM_MESSAGE_MAX);
	if ((r = op_charge(op, q->raw.n)) != 0 || (r = encode_pairs(m, &s->payload)) != 0) {
		op_error(op, r, NULL);
		op_done(op);
		return;
	}
	op->sop.payload = (struct csm_bin){csm_buf_ptr(&s->payload), s->payload.len};
	op->sop.has_expect = m->expect.set;
	op->sop.expect = m->expect.v;
	op_commit(op, set_committed);
}

/* ---- get ---- */

/* The stored array with only the pair of that name. */
static int pick_pair(struct csm_bin stored, struct csm_str name, struct csm_bin *ret)
{
	struct csm_dec d, pair;
	uint32_t n, fields;
	struct csm_str key, value;

	csm_dec_init(&d, stored.p, stored.n);
	if (csm_dec_array(&d, &n) != 0)
		return CSM_ETAMPERED;
	for (; n > 0; n--) {
		const uint8_t *start = d.p;

		pair = d;
		/* csm_msg_encode writes the table's order: the name is the first field. */
		if (csm_dec_skip(&d) != 0 || csm_dec_map(&pair, &fields) != 0 || csm_dec_str(&pair, &key) != 0 ||
			csm_dec_str(&pair, &value) != 0)
			return CSM_ETAMPERED;
		if (csm_str_same(value, name)) {
			*ret = (struct csm_bin){start, (size_t)(d.p - start)};
			return 0;
		}
	}
	return CSM_ENOT_FOUND;
}

/* {version, created, pairs}: pairs is the stored array, or with one_of it the only element of a new one. */
static void put_answer(struct req *q, uint64_t version, uint64_t created, struct csm_bin pairs, bool one_of_it)
{
	size_t n = 1 + sizeof("version") + size_u64(version) + sizeof("created") + size_u64(created) + sizeof("pairs") +
		one_of_it + pairs.n;
	uint8_t *p;

	if (req_result_room(q, n, &p) != 0)
		return;
	p = put_map(p, 3);
	p = put_u64(put_str(p, "version", 7), version);
	p = put_u64(put_str(p, "created", 7), created);
	p = put_str(p, "pairs", 5);
	if (one_of_it)
		p = put_array(p, 1);
	memcpy(p, pairs.p, pairs.n);
}

static void answer_get(struct req *q, const struct csm_msg_secret_get_req *m, const struct object *o, uint64_t version,
	uint64_t created)
{
	struct csm_bin pairs = {csm_buf_ptr(&q->loop->plain), q->loop->plain.len};
	int r = 0;

	if (m->key.p != NULL)
		r = pick_pair(pairs, m->key, &pairs);
	if (r != 0) {
		/* Who may read the secret may know which pairs it has. */
		req_error(q, r, r == CSM_ENOT_FOUND ? "the secret has no pair of this name" : NULL);
		return;
	}
	req_used(q, o->text);
	put_answer(q, version, created, pairs, m->key.p != NULL);
}

void do_SECRET_GET(struct req *q)
{
	const struct csm_msg_secret_get_req *m = q->params;
	uint64_t version, created;
	struct csm_reader *reader;
	struct object o;
	int r;

	if (req_secret_object(q, m->secret, &o) != 0 || req_authorize(q, &o) != 0 || req_begin_read(q, &reader) != 0)
		return;
	r = csm_store_secret_get(reader, o.ns, o.name, o.secret, m->version.v, &q->loop->plain, &version, &created);
	req_end_read(q);
	if (r == 0)
		answer_get(q, m, &o, version, created);
	else if (r == CSM_ENOT_FOUND)
		req_missing(q, CSM_PERM_SECRET_LIST, &o);
	else
		req_error(q, r, NULL);
}

/* ---- list ---- */

struct lister {
	struct csm_msg_secret_list_res res;
	size_t limit;
};

static bool list_one(void *arg, struct csm_str name, uint64_t version, uint64_t created)
{
	struct lister *l = arg;
	struct csm_msg_secret_item *item;

	if (l->res.secrets.n == l->limit) {
		l->res.more.v = true;
		return false;
	}
	item = &l->res.secrets.v[l->res.secrets.n++];
	item->name = name;
	item->version.v = version;
	item->created.v = created;
	return true;
}

void do_SECRET_LIST(struct req *q)
{
	const struct csm_msg_secret_list_req *m = q->params;
	struct lister l = {.limit = 0};
	struct csm_domain_info info;
	struct csm_reader *reader;
	struct object o;
	void *items;

	if (req_domain_list(q, m->domain, &o) != 0 || req_authorize(q, &o) != 0 || req_domain(q, &o, &info) != 0 ||
		req_begin_list(q, m->limit, sizeof(*l.res.secrets.v), &l.limit, &items, &reader) != 0)
		return;
	l.res.secrets.v = items;
	req_end_list(q, csm_store_secret_list(reader, o.ns, o.name, m->after, list_one, &l), &l.res);
}

/* ---- delete ---- */

void do_SECRET_DELETE(struct req *q)
{
	const struct csm_msg_secret_delete_req *m = q->params;
	uint64_t version, created;
	struct csm_request_id rid;
	struct csm_reader *reader;
	struct change *c;
	struct object o;
	char who[REQ_WHO_MAX];
	int r;

	if (req_secret_object(q, m->secret, &o) != 0 || req_authorize(q, &o) != 0 ||
		req_replayed(q, &o, m->request_id, &rid, who) || req_begin_read(q, &reader) != 0)
		return;
	r = csm_store_secret_get(reader, o.ns, o.name, o.secret, 0, &q->loop->plain, &version, &created);
	req_end_read(q);
	if (r == CSM_ENOT_FOUND) {
		req_missing(q, CSM_PERM_SECRET_LIST, &o);
		return;
	}
	if (req_change(q, &o, &rid, CSM_OP_SECRET_DELETE, sizeof(*c), NULL, &c) == 0)
		op_commit(&c->op, op_finish_change);
}
