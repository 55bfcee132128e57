/* Tokens: found by the hash of what is shown, listed by their id. */
#include <sodium.h>
#include <string.h>
#include "daemon/central/db_int.h"

static void token_key(struct dbk *k, const uint8_t id[static DB_TOKEN_ID_LEN])
{
	dbk_start(k, DB_T_TOKEN);
	dbk_raw(k, id, DB_TOKEN_ID_LEN);
}

static void hash_key(struct dbk *k, const uint8_t hash[static 32])
{
	dbk_start(k, DB_T_TOKEN_HASH);
	dbk_raw(k, hash, 32);
}

static int copy_token(struct csm_pool *pool, struct db_token *t)
{
	int r = db_copy_strs(pool, &t->names, t->n_names);

	if (r != 0 || (r = db_copy(pool, (const void **)&t->profile.p, t->profile.n)) != 0 ||
		(r = db_copy(pool, (const void **)&t->role.p, t->role.n)) != 0)
		return r;
	return db_copy(pool, (const void **)&t->by.p, t->by.n);
}

static struct csm_str id_text(const uint8_t id[static DB_TOKEN_ID_LEN], char hex[static 2 * DB_TOKEN_ID_LEN + 1])
{
	return csm_str_of(sodium_bin2hex(hex, 2 * DB_TOKEN_ID_LEN + 1, id, DB_TOKEN_ID_LEN));
}

struct addition {
	const struct db_token *token;
	const struct db_asked *asked;
	struct csm_buf *id;
};

static int add_once(struct plan *p, struct csm_engine_txn *t, const void *arg)
{
	const struct addition *a = arg;
	const struct db_token *token = a->token;
	const struct rec_bytes ref = {{token->id, sizeof(token->id)}};
	char hex[2 * DB_TOKEN_ID_LEN + 1];
	struct db_token there;
	struct rec_bytes other;
	struct dbk k, by_hash;
	int r = plan_asked(p, t, a->asked, token->created, (struct csm_bin){token->id, sizeof(token->id)}, a->id);

	if (r != 0)
		return r;
	token_key(&k, token->id);
	hash_key(&by_hash, token->hash);
	if ((r = db_row(p->db, t, &k, &rec_token, &p->mem, &there, NULL)) != CSM_ENOT_FOUND ||
		(r = db_row(p->db, t, &by_hash, &rec_token_ref, NULL, &other, NULL)) != CSM_ENOT_FOUND)
		return r == 0 ? CSM_EEXISTS : r;
	plan_absent(p, &k);
	plan_absent(p, &by_hash);
	plan_put(p, &k, &rec_token, token);
	plan_put(p, &by_hash, &rec_token_ref, &ref);
	plan_event(p, token->created, "token", id_text(token->id, hex), token->by);
	return plan_node_token(p, t, token);
}

int db_token_add_asked(struct central_db *db, const struct db_token *token, const struct db_asked *asked, bool *replayed,
	struct csm_buf *id)
{
	const struct addition a = {token, asked, id};
	int r;

	if (token->uses == 0 || token->used != 0)
		return CSM_EINVALID;
	r = plan_rounds(db, 2 + PLAN_ASKED_CONDS + token->n_names, 3 + PLAN_ASKED_CHANGES + token->n_names, false, add_once, &a);
	return db_asked_result(db, asked, token->created, r, replayed);
}

int db_token_add(struct central_db *db, const struct db_token *token)
{
	bool replayed = false;

	return db_token_add_asked(db, token, NULL, &replayed, NULL);
}

void db_token_secret(const struct central_db *db, const uint8_t id[static DB_TOKEN_ID_LEN], uint8_t ret[static 32])
{
	rec_secret(db->key, (struct csm_bin){id, DB_TOKEN_ID_LEN}, ret);
}

static int token_by_hash(struct central_db *db, struct csm_engine_txn *t, const uint8_t hash[static 32], struct csm_pool *pool,
	struct db_token *ret)
{
	struct rec_bytes ref;
	struct db_token token;
	struct dbk k;
	int r;

	hash_key(&k, hash);
	if ((r = db_row(db, t, &k, &rec_token_ref, NULL, &ref, NULL)) != 0)
		return r;
	if (ref.v.n != DB_TOKEN_ID_LEN)
		return CSM_ETAMPERED;
	token_key(&k, ref.v.p);
	r = db_row(db, t, &k, &rec_token, pool, &token, NULL);
	if (r != 0)
		return r == CSM_ENOT_FOUND ? CSM_ETAMPERED : r;
	if (sodium_memcmp(token.hash, hash, 32) != 0)
		return CSM_ETAMPERED;
	if ((r = copy_token(pool, &token)) == 0)
		*ret = token;
	return r;
}

int db_token_find(struct central_db *db, const uint8_t hash[static 32], struct csm_pool *pool, struct db_token *ret)
{
	struct csm_engine_txn *t;
	int r = db->ops->begin(db->engine, &t);

	if (r != 0)
		return r;
	r = token_by_hash(db, t, hash, pool, ret);
	db->ops->end(t);
	return r;
}

int db_token_get(struct central_db *db, const uint8_t id[static DB_TOKEN_ID_LEN], struct csm_pool *pool, struct db_token *ret)
{
	struct csm_engine_txn *t;
	struct db_token token;
	struct dbk k;
	int r = db->ops->begin(db->engine, &t);

	if (r != 0)
		return r;
	token_key(&k, id);
	if ((r = db_row(db, t, &k, &rec_token, pool, &token, NULL)) == 0 && (r = copy_token(pool, &token)) == 0)
		*ret = token;
	db->ops->end(t);
	return r;
}

struct deletion {
	const uint8_t *id;
	uint64_t now;
	struct csm_str by;
};

static int delete_once(struct plan *p, struct csm_engine_txn *t, const void *arg)
{
	const struct deletion *d = arg;
	char hex[2 * DB_TOKEN_ID_LEN + 1];
	struct db_token token;
	struct csm_bin row;
	struct dbk k;
	int r;

	token_key(&k, d->id);
	if ((r = db_row(p->db, t, &k, &rec_token, &p->mem, &token, &row)) != 0)
		return r;
	plan_same(p, &k, row);
	plan_del(p, &k);
	hash_key(&k, token.hash);
	plan_del(p, &k);
	plan_event(p, d->now, "token-delete", id_text(d->id, hex), d->by);
	return p->r;
}

int db_token_delete(struct central_db *db, const uint8_t id[static DB_TOKEN_ID_LEN], uint64_t now, struct csm_str by)
{
	const struct deletion d = {id, now, by};

	return plan_rounds(db, 1, 3, true, delete_once, &d);
}

static int list_from(struct central_db *db, struct csm_engine_txn *t, struct dbk *k, size_t limit, struct csm_pool *pool,
	struct db_token *v, size_t *n, bool *more)
{
	struct csm_engine_row row;
	int r = db->ops->next(t, dbk_bin(k), false, &row);

	*more = false;
	for (; r == 0 && row.key.p[0] == DB_T_TOKEN; r = db->ops->next(t, row.key, false, &row)) {
		if (*n == limit) {
			*more = true;
			return 0;
		}
		if ((r = rec_get(db->key, &rec_token, row.key, row.value, pool, &v[*n])) != 0 || (r = copy_token(pool, &v[*n])) != 0)
			return r;
		++*n;
	}
	return r == CSM_ENOT_FOUND ? 0 : r;
}

int db_token_list(struct central_db *db, struct csm_str after, size_t limit, struct csm_pool *pool, struct db_token **ret, size_t *n,
	struct csm_str *next)
{
	struct csm_engine_txn *t;
	struct db_token *v;
	size_t got = 0, len;
	char *cursor;
	bool more;
	struct dbk k;
	int r;

	dbk_start(&k, DB_T_TOKEN);
	if (after.n > 0 && (sodium_hex2bin(k.p + 1, DB_TOKEN_ID_LEN, after.p, after.n, NULL, &len, NULL) != 0 || len != DB_TOKEN_ID_LEN ||
		after.n != 2 * (size_t)DB_TOKEN_ID_LEN))
		return CSM_EINVALID;
	if (after.n > 0)
		k.n = 1 + DB_TOKEN_ID_LEN;
	if (limit == 0 || csm_pool_full(pool, (limit + 1) * sizeof(*v)))
		return limit == 0 ? CSM_EINVALID : CSM_ETOO_LARGE;
	v = csm_pool_alloc(pool, (limit + 1) * sizeof(*v));
	cursor = csm_pool_alloc(pool, 2 * (size_t)DB_TOKEN_ID_LEN + 1);
	if (v == NULL || cursor == NULL)
		return CSM_ENOMEM;
	if ((r = db->ops->begin(db->engine, &t)) != 0)
		return r;
	r = list_from(db, t, &k, limit, pool, v, &got, &more);
	db->ops->end(t);
	if (r != 0)
		return r;
	*ret = v;
	*n = got;
	*next = more ? id_text(v[got - 1].id, cursor) : (struct csm_str){"", 0};
	return 0;
}
