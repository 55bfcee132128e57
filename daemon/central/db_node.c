/* Who has a node's name: a row for each name, with the certificates that bear it and the tokens that were made for it. What each of
 * them is worth is asked of its own row: certificates once revoked (but held) and tokens once spent are never worth more again, so
 * that only the name's row has to be a condition. */
#include <string.h>
#include "daemon/central/db_int.h"
#include "daemon/pki/crl.h"

#define HOLDS_MAX 32u
#define ID_MAX DB_SERIAL_MAX
#define HOLD_LEN (2u + ID_MAX + 8u)
_Static_assert(DB_TOKEN_ID_LEN <= ID_MAX, "one form for both");
_Static_assert(HOLDS_MAX * HOLD_LEN == DB_HOLDS_BYTES, "the bound of the row");

enum hold_kind { HOLD_CERT = 1, HOLD_TOKEN = 2 };

/* Kind (1), length (1), id (ID_MAX, zeros behind it), until (8). */
struct holds {
	uint8_t p[HOLDS_MAX * HOLD_LEN];
	size_t n;
};

/* Names of hosts do not tell case apart: nor is another's name taken by it. */
static int name_key(struct csm_str name, struct csm_pool *pool, struct dbk *k)
{
	uint8_t hash[32], *low = csm_pool_alloc(pool, name.n + 1);

	if (low == NULL)
		return CSM_ENOMEM;
	for (size_t i = 0; i < name.n; i++)
		low[i] = (uint8_t)(name.p[i] >= 'A' && name.p[i] <= 'Z' ? name.p[i] - 'A' + 'a' : name.p[i]);
	sha256_of(low, name.n, hash);
	dbk_start(k, DB_T_NODE);
	dbk_raw(k, hash, sizeof(hash));
	return 0;
}

static uint64_t until_of(const uint8_t *hold)
{
	uint64_t v = 0;

	for (size_t i = 0; i < 8; i++)
		v = v << 8 | hold[2 + ID_MAX + i];
	return v;
}

/* *row: p NULL where there is none. */
static int holds_read(struct central_db *db, struct csm_engine_txn *t, const struct dbk *k, struct holds *ret, struct csm_bin *row)
{
	struct rec_bytes v;
	int r = db_row(db, t, k, &rec_node, NULL, &v, row);

	*ret = (struct holds){.n = 0};
	if (r == CSM_ENOT_FOUND) {
		*row = (struct csm_bin){NULL, 0};
		return 0;
	}
	if (r != 0)
		return r;
	if (v.v.n > sizeof(ret->p) || v.v.n % HOLD_LEN != 0)
		return CSM_ETAMPERED;
	memcpy(ret->p, v.v.p, v.v.n);
	ret->n = v.v.n / HOLD_LEN;
	for (size_t i = 0; i < ret->n; i++)
		if (ret->p[i * HOLD_LEN + 1] > ID_MAX)
			return CSM_ETAMPERED;
	return 0;
}

static void holds_drop(struct holds *h, size_t i)
{
	h->n--;
	memmove(h->p + i * HOLD_LEN, h->p + (i + 1) * HOLD_LEN, (h->n - i) * HOLD_LEN);
}

/* What is over goes; where there are too many, what will be over first. */
static void holds_add(struct holds *h, enum hold_kind kind, struct csm_bin id, uint64_t until, uint64_t now)
{
	size_t first = 0;
	uint8_t *at;

	for (size_t i = h->n; i > 0; i--)
		if (until_of(h->p + (i - 1) * HOLD_LEN) <= now)
			holds_drop(h, i - 1);
	for (size_t i = 1; i < h->n; i++)
		if (until_of(h->p + i * HOLD_LEN) < until_of(h->p + first * HOLD_LEN))
			first = i;
	if (h->n == HOLDS_MAX)
		holds_drop(h, first);
	at = h->p + h->n++ * HOLD_LEN;
	memset(at, 0, HOLD_LEN);
	at[0] = (uint8_t)kind;
	at[1] = (uint8_t)id.n;
	memcpy(at + 2, id.p, id.n);
	for (size_t i = 0; i < 8; i++)
		at[2 + ID_MAX + i] = (uint8_t)(until >> (56 - 8 * i));
}

/* CSM_ESTATE: it is worth something, and not the key's own. */
static int cert_holds(struct central_db *db, struct csm_engine_txn *t, struct csm_bin serial, struct csm_bin spki, struct csm_pool *pool)
{
	struct db_cert c;
	struct dbk k;
	int r = db_cert_row(db, t, serial, pool, &c, &k, NULL);

	if (r != 0)
		return r == CSM_ENOT_FOUND ? CSM_ETAMPERED : r;
	if (c.state == DB_REVOKED && c.reason != CSM_REASON_HOLD)
		return 0;
	return spki.n > 0 && spki.n == c.spki_sha256.n && memcmp(spki.p, c.spki_sha256.p, spki.n) == 0 ? 0 : CSM_ESTATE;
}

static int token_holds(struct central_db *db, struct csm_engine_txn *t, struct csm_bin id, struct csm_pool *pool)
{
	struct db_token token;
	struct dbk k;
	int r;

	dbk_start(&k, DB_T_TOKEN);
	dbk_raw(&k, id.p, id.n);
	r = db_row(db, t, &k, &rec_token, pool, &token, NULL);
	if (r != 0)
		return r == CSM_ENOT_FOUND ? 0 : r;
	return token.used < token.uses ? CSM_ESTATE : 0;
}

static int holds_free(struct central_db *db, struct csm_engine_txn *t, const struct holds *h, struct csm_bin spki, uint64_t now,
	struct csm_pool *pool)
{
	int r = 0;

	for (size_t i = 0; i < h->n && r == 0; i++) {
		const uint8_t *at = h->p + i * HOLD_LEN;
		const struct csm_bin id = {at + 2, at[1]};

		if (until_of(at) > now)
			r = at[0] == HOLD_CERT ? cert_holds(db, t, id, spki, pool) : token_holds(db, t, id, pool);
	}
	return r;
}

static void plan_holds(struct plan *p, const struct dbk *k, struct csm_bin row, const struct holds *h)
{
	const struct rec_bytes v = {{h->p, h->n * HOLD_LEN}};

	if (row.p != NULL)
		plan_same(p, k, row);
	else
		plan_absent(p, k);
	plan_put(p, k, &rec_node, &v);
}

int plan_node_cert(struct plan *p, struct csm_engine_txn *t, const struct db_cert *c, bool new_node, uint64_t now)
{
	struct holds h;
	struct csm_bin row;
	struct dbk k;
	int r;

	if (!csm_str_eq(c->role, "node") || c->node.n == 0)
		return 0;
	if ((r = name_key(c->node, &p->mem, &k)) != 0 || (r = holds_read(p->db, t, &k, &h, &row)) != 0 ||
		(new_node && (r = holds_free(p->db, t, &h, c->spki_sha256, now, &p->mem)) != 0))
		return r;
	holds_add(&h, HOLD_CERT, c->serial, c->not_after, now);
	plan_holds(p, &k, row, &h);
	return p->r;
}

int plan_node_token(struct plan *p, struct csm_engine_txn *t, const struct db_token *token)
{
	struct holds h;
	struct csm_bin row;
	struct dbk k;
	int r;

	for (size_t i = 0; i < token->n_names && csm_str_eq(token->role, "node"); i++) {
		if ((r = name_key(db_san_value(token->names[i]), &p->mem, &k)) != 0 || (r = holds_read(p->db, t, &k, &h, &row)) != 0)
			return r;
		holds_add(&h, HOLD_TOKEN, (struct csm_bin){token->id, sizeof(token->id)}, token->expires, token->created);
		plan_holds(p, &k, row, &h);
	}
	return p->r;
}

int db_node_free(struct central_db *db, struct csm_str name, struct csm_bin spki_sha256, uint64_t now, struct csm_pool *pool)
{
	struct csm_engine_txn *t;
	struct holds h;
	struct csm_bin row;
	struct dbk k;
	int r = name_key(name, pool, &k);

	if (r != 0 || (r = db->ops->begin(db->engine, &t)) != 0)
		return r;
	if ((r = holds_read(db, t, &k, &h, &row)) == 0)
		r = holds_free(db, t, &h, spki_sha256, now, pool);
	db->ops->end(t);
	return r;
}
