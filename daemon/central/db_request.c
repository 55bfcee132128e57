/* Requests that wait. Found by their id, by who asked, and by when their time is over; how many are open is one row, so that of two who
 * come for the last place one is too late. */
#include <sodium.h>
#include <string.h>
#include "daemon/central/db_int.h"

#define ROW_CONDS 2u
#define ROW_CHANGES 5u
#define CONDS (ROW_CONDS + 3u)
#define CHANGES (ROW_CHANGES + 3u)
#define OF_ONE_MAX 256u /* of a caller, decided ones too */
#define PRUNE_MAX 64u
#define LOOKED_AT_MAX 4000u /* of a page */
#define CURSOR_LEN (8u + DB_REQUEST_ID_LEN)

/* ---- keys ---- */

static void request_key(struct dbk *k, const uint8_t id[static DB_REQUEST_ID_LEN])
{
	dbk_start(k, DB_T_REQUEST);
	dbk_raw(k, id, DB_REQUEST_ID_LEN);
}

static void of_key(struct dbk *k, struct csm_str who)
{
	uint8_t hash[crypto_hash_sha256_BYTES];

	crypto_hash_sha256(hash, (const uint8_t *)who.p, who.n);
	dbk_start(k, DB_T_REQUEST_OF);
	dbk_raw(k, hash, sizeof(hash));
}

static void end_key(struct dbk *k, const struct db_request *q)
{
	dbk_start(k, DB_T_REQUEST_END);
	dbk_u64(k, q->expires);
	dbk_raw(k, q->id, DB_REQUEST_ID_LEN);
}

static bool is_open(const struct db_request *q)
{
	return q->state == DB_WAITING || q->state == DB_APPROVED;
}

/* ---- parts of batches ---- */

/* One more open one, or one less. */
static int plan_count(struct plan *p, struct csm_engine_txn *t, bool more)
{
	struct rec_ref count = {0};
	struct csm_bin row;
	struct dbk k;
	int r;

	dbk_start(&k, DB_T_REQUEST_OPEN);
	r = db_row(p->db, t, &k, &rec_ref, NULL, &count, &row);
	if (r == CSM_ENOT_FOUND)
		plan_absent(p, &k);
	else if (r == 0)
		plan_same(p, &k, row);
	else
		return r;
	if (more && count.issued >= DB_REQUESTS_MAX)
		return CSM_EBUSY;
	if (!more && count.issued == 0)
		return CSM_ETAMPERED;
	count.issued = more ? count.issued + 1 : count.issued - 1;
	plan_put(p, &k, &rec_ref, &count);
	return 0;
}

/* What stands in its place: NULL for nothing. old is as it was read, with its row. */
static int plan_turn(struct plan *p, struct csm_engine_txn *t, const struct db_request *old, struct csm_bin row,
	const struct db_request *new)
{
	bool was = is_open(old), is = new != NULL && is_open(new);
	struct dbk k;

	request_key(&k, old->id);
	plan_same(p, &k, row);
	if (new != NULL)
		plan_put(p, &k, &rec_request, new);
	else
		plan_del(p, &k);
	end_key(&k, old);
	plan_del(p, &k);
	if (new != NULL) {
		end_key(&k, new);
		plan_mark(p, &k);
	} else {
		of_key(&k, old->who);
		dbk_raw(&k, old->id, DB_REQUEST_ID_LEN);
		plan_del(p, &k);
	}
	return was != is ? plan_count(p, t, is) : 0;
}

static void plan_event_request(struct plan *p, uint64_t at, const char *what, const uint8_t id[static DB_REQUEST_ID_LEN], struct csm_str by)
{
	char hex[2 * DB_REQUEST_ID_LEN + 1];

	plan_event(p, at, what, csm_str_of(sodium_bin2hex(hex, sizeof(hex), id, DB_REQUEST_ID_LEN)), by);
}

static int find(struct central_db *db, struct csm_engine_txn *t, const uint8_t id[static DB_REQUEST_ID_LEN], uint64_t now,
	struct csm_pool *pool, struct db_request *ret, struct csm_bin *row)
{
	struct db_request q;
	struct dbk k;
	int r;

	request_key(&k, id);
	if ((r = db_row(db, t, &k, &rec_request, pool, &q, row)) != 0)
		return r;
	*ret = q;
	return q.expires <= now ? CSM_ENOT_FOUND : 0;
}

int plan_request_issued(struct plan *p, struct csm_engine_txn *t, const uint8_t id[static DB_REQUEST_ID_LEN], const struct db_cert *cert,
	uint64_t now)
{
	/* for who has lost the answer, not for who wants the next one */
	uint64_t left = cert->not_after > now ? (cert->not_after - now) / 10 : 0;
	struct db_request q, next;
	struct csm_bin row;
	int r = find(p->db, t, id, now, &p->mem, &q, &row);

	if (r != 0)
		return r == CSM_ENOT_FOUND ? CSM_EDENIED : r;
	if (q.state != DB_APPROVED)
		return CSM_EDENIED;
	next = q;
	next.state = DB_ISSUED;
	next.serial = cert->serial;
	next.expires = now + (left < DB_REQUEST_KEPT_S ? left : DB_REQUEST_KEPT_S);
	return plan_turn(p, t, &q, row, &next);
}

/* ---- those whose time is over ---- */

/* One at a time: each changes the count. CSM_ENOT_FOUND: there is none. */
static int prune_once(struct plan *p, struct csm_engine_txn *t, const void *arg)
{
	const uint64_t now = *(const uint64_t *)arg;
	struct csm_engine_row at;
	struct db_request q;
	struct csm_bin row;
	struct dbk k;
	int r;

	dbk_start(&k, DB_T_REQUEST_END);
	r = p->db->ops->next(t, dbk_bin(&k), false, &at);
	if (r != 0)
		return r;
	if (at.key.p[0] != DB_T_REQUEST_END)
		return CSM_ENOT_FOUND;
	if (at.key.n != 1 + CURSOR_LEN)
		return CSM_ETAMPERED;
	request_key(&k, at.key.p + 9);
	r = db_row(p->db, t, &k, &rec_request, &p->mem, &q, &row);
	if (r != 0)
		return r == CSM_ENOT_FOUND ? CSM_ETAMPERED : r;
	if (q.expires > now)
		return CSM_ENOT_FOUND;
	if (is_open(&q))
		plan_event_request(p, now, "request-expired", q.id, q.requester);
	return plan_turn(p, t, &q, row, NULL);
}

static void prune(struct central_db *db, uint64_t now)
{
	/* what does not work now works another time */
	for (unsigned i = 0; i < PRUNE_MAX; i++)
		if (plan_rounds(db, CONDS, CHANGES, true, prune_once, &now) != 0)
			return;
}

/* ---- a new one ---- */

struct adding {
	const struct db_request *q;
	const struct db_payment *by;
};

/* His open ones are counted, and an idempotency key is of one of them. */
static int of_caller(struct plan *p, struct csm_engine_txn *t, const struct db_request *q)
{
	struct csm_engine_row row;
	struct db_request other;
	struct dbk k, at;
	size_t all = 0, open = 0;
	int r;

	of_key(&k, q->who);
	for (r = p->db->ops->next(t, dbk_bin(&k), false, &row); r == 0 && row.key.n == k.n + DB_REQUEST_ID_LEN &&
		memcmp(row.key.p, k.p, k.n) == 0; r = p->db->ops->next(t, row.key, false, &row)) {
		request_key(&at, row.key.p + k.n);
		if ((r = db_row(p->db, t, &at, &rec_request, &p->mem, &other, NULL)) != 0)
			return r == CSM_ENOT_FOUND ? CSM_ETAMPERED : r;
		if (q->idempotency.n > 0 && csm_str_same(q->idempotency, other.idempotency))
			return PLAN_OTHER;
		open += is_open(&other);
		if (++all >= OF_ONE_MAX || open >= DB_REQUESTS_PER_CALLER)
			return CSM_EBUSY;
	}
	return r == CSM_ENOT_FOUND ? 0 : r;
}

static int add_once(struct plan *p, struct csm_engine_txn *t, const void *arg)
{
	const struct adding *in = arg;
	struct db_request was;
	struct csm_bin row;
	struct dbk k;
	int r;

	request_key(&k, in->q->id);
	if ((r = db_row(p->db, t, &k, &rec_request, &p->mem, &was, &row)) != CSM_ENOT_FOUND)
		return r == 0 ? CSM_EEXISTS : r;
	if ((r = of_caller(p, t, in->q)) != 0 || (r = plan_payment(p, t, in->by, false)) != 0)
		return r;
	plan_absent(p, &k);
	plan_put(p, &k, &rec_request, in->q);
	of_key(&k, in->q->who);
	dbk_raw(&k, in->q->id, DB_REQUEST_ID_LEN);
	plan_mark(p, &k);
	end_key(&k, in->q);
	plan_mark(p, &k);
	plan_event_request(p, in->q->created, "request", in->q->id, in->q->requester);
	return plan_count(p, t, true);
}

int db_request_add(struct central_db *db, const struct db_request *q, const struct db_payment *by)
{
	struct adding in = {q, by};
	int r;

	if (!is_open(q) || q->who.n == 0)
		return CSM_EINVALID;
	prune(db, q->created);
	r = plan_rounds(db, CONDS, CHANGES, false, add_once, &in);
	return r == PLAN_OTHER ? CSM_ECONFLICT : r;
}

/* ---- looking ---- */

static int copy_request(struct csm_pool *pool, struct db_request *q)
{
	struct csm_str *const strs[] = {&q->who, &q->requester, &q->as, &q->profile, &q->subject, &q->idempotency, &q->decided_by, &q->reason};
	struct csm_bin *const bins[] = {&q->csr, &q->renews, &q->serial};
	int r = db_copy_strs(pool, &q->sans, q->n_sans);

	for (size_t i = 0; i < sizeof(strs) / sizeof(strs[0]) && r == 0; i++)
		r = db_copy(pool, (const void **)&strs[i]->p, strs[i]->n);
	for (size_t i = 0; i < sizeof(bins) / sizeof(bins[0]) && r == 0; i++)
		r = db_copy(pool, (const void **)&bins[i]->p, bins[i]->n);
	return r;
}

int db_request_get(struct central_db *db, const uint8_t id[static DB_REQUEST_ID_LEN], uint64_t now, struct csm_pool *pool,
	struct db_request *ret)
{
	struct csm_engine_txn *t;
	struct db_request q;
	int r = db->ops->begin(db->engine, &t);

	if (r != 0)
		return r;
	if ((r = find(db, t, id, now, pool, &q, NULL)) == 0 && (r = copy_request(pool, &q)) == 0)
		*ret = q;
	db->ops->end(t);
	return r;
}

int db_request_any(struct central_db *db, struct csm_str who, bool *ret)
{
	struct csm_engine_row row;
	struct csm_engine_txn *t;
	struct dbk k;
	int r = db->ops->begin(db->engine, &t);

	if (r != 0)
		return r;
	of_key(&k, who);
	r = db->ops->next(t, dbk_bin(&k), false, &row);
	if (r == 0 || r == CSM_ENOT_FOUND)
		*ret = r == 0 && row.key.n > k.n && memcmp(row.key.p, k.p, k.n) == 0;
	db->ops->end(t);
	return r == CSM_ENOT_FOUND ? 0 : r;
}

static bool cursor_read(struct csm_str text, struct dbk *k)
{
	uint8_t bytes[CURSOR_LEN];
	size_t n = 0;

	dbk_start(k, DB_T_REQUEST_END);
	if (text.n == 0)
		return true;
	if (text.n != 2 * (size_t)CURSOR_LEN || sodium_hex2bin(bytes, sizeof(bytes), text.p, text.n, NULL, &n, NULL) != 0 || n != CURSOR_LEN)
		return false;
	dbk_raw(k, bytes, CURSOR_LEN);
	return true;
}

static int list_from(struct central_db *db, struct csm_engine_txn *t, struct dbk *from, int state, size_t limit, uint64_t now,
	struct csm_pool *pool, struct db_request *v, size_t *n, uint8_t last[static CURSOR_LEN])
{
	struct csm_engine_row row;
	struct csm_bin at = dbk_bin(from);
	size_t looked = 0;
	struct dbk k;
	int r;

	while ((r = db->ops->next(t, at, false, &row)) == 0 && row.key.p[0] == DB_T_REQUEST_END) {
		if (row.key.n != 1 + CURSOR_LEN)
			return CSM_ETAMPERED;
		if (*n == limit || looked++ == LOOKED_AT_MAX)
			return 0; /* with more behind it: `last` says so */
		request_key(&k, row.key.p + 9);
		if ((r = db_row(db, t, &k, &rec_request, pool, &v[*n], NULL)) != 0)
			return r == CSM_ENOT_FOUND ? CSM_ETAMPERED : r;
		at = row.key;
		memcpy(last, row.key.p + 1, CURSOR_LEN);
		if (v[*n].expires <= now || (state >= 0 && (int)v[*n].state != state))
			continue;
		v[*n].csr = (struct csm_bin){NULL, 0};
		if ((r = copy_request(pool, &v[*n])) != 0)
			return r;
		++*n;
	}
	memset(last, 0, CURSOR_LEN);
	return r == CSM_ENOT_FOUND ? 0 : r;
}

int db_request_list(struct central_db *db, int state, struct csm_str after, size_t limit, uint64_t now, struct csm_pool *pool,
	struct db_request **ret, size_t *n, struct csm_str *next)
{
	uint8_t last[CURSOR_LEN] = {0};
	struct csm_engine_txn *t;
	struct db_request *v;
	size_t got = 0;
	char *cursor;
	struct dbk k;
	int r;

	if (limit == 0 || !cursor_read(after, &k))
		return CSM_EINVALID;
	if (csm_pool_full(pool, (limit + 1) * sizeof(*v)))
		return CSM_ETOO_LARGE;
	v = csm_pool_alloc(pool, (limit + 1) * sizeof(*v));
	cursor = csm_pool_alloc(pool, 2 * (size_t)CURSOR_LEN + 1);
	if (v == NULL || cursor == NULL)
		return CSM_ENOMEM;
	if ((r = db->ops->begin(db->engine, &t)) != 0)
		return r;
	r = list_from(db, t, &k, state, limit, now, pool, v, &got, last);
	db->ops->end(t);
	if (r != 0)
		return r;
	*ret = v;
	*n = got;
	*next = sodium_is_zero(last, CURSOR_LEN) ? (struct csm_str){"", 0} :
		csm_str_of(sodium_bin2hex(cursor, 2 * CURSOR_LEN + 1, last, CURSOR_LEN));
	return 0;
}

/* ---- deciding ---- */

struct deciding {
	const uint8_t *id;
	enum db_request_state state;
	struct csm_str reason, by;
	uint64_t now;
};

static int decide_once(struct plan *p, struct csm_engine_txn *t, const void *arg)
{
	const struct deciding *in = arg;
	struct db_request q, next;
	struct csm_bin row;
	int r = find(p->db, t, in->id, in->now, &p->mem, &q, &row);

	if (r != 0)
		return r;
	if (q.state != DB_WAITING)
		return CSM_ESTATE;
	next = q;
	next.state = in->state;
	next.reason = in->reason;
	next.decided = in->now;
	next.decided_by = in->by;
	next.expires = in->now + DB_REQUEST_WAITS_S;
	plan_event_request(p, in->now, in->state == DB_APPROVED ? "approve" : "deny", q.id, in->by);
	return plan_turn(p, t, &q, row, &next);
}

/* What it was asked by is paid already: nothing else changes. */
static int turn_once(struct plan *p, struct csm_engine_txn *t, const void *arg)
{
	const struct deciding *in = arg;
	struct db_request q, next;
	struct csm_bin row;
	int r = find(p->db, t, in->id, in->now, &p->mem, &q, &row);

	if (r != 0)
		return r;
	if (q.state == in->state)
		return 0;
	if (!is_open(&q) || q.decided_by.n > 0)
		return CSM_ESTATE;
	next = q;
	next.state = in->state;
	plan_event_request(p, in->now, in->state == DB_WAITING ? "approval-wanted" : "approval-not-wanted", q.id, q.requester);
	return plan_turn(p, t, &q, row, &next);
}

int db_request_turn(struct central_db *db, const uint8_t id[static DB_REQUEST_ID_LEN], enum db_request_state state, uint64_t now)
{
	struct deciding in = {.id = id, .state = state, .now = now};

	if (state != DB_WAITING && state != DB_APPROVED)
		return CSM_EINVALID;
	return plan_rounds(db, CONDS, CHANGES, false, turn_once, &in);
}

int db_request_decide(struct central_db *db, const uint8_t id[static DB_REQUEST_ID_LEN], enum db_request_state state,
	struct csm_str reason, struct csm_str by, uint64_t now)
{
	struct deciding in = {id, state, reason, by, now};

	if (state != DB_APPROVED && state != DB_REFUSED)
		return CSM_EINVALID;
	return plan_rounds(db, CONDS, CHANGES, false, decide_once, &in);
}
