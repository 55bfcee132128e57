/* What nodes tell of the use of their keys, by key and the end of the period. */
#include <sodium.h>
#include <string.h>
#include "daemon/central/db_int.h"

#define GROUP 32u    /* reports that are written together */
#define OLD_MAX 4u   /* rows that go with each that comes */
#define HEAD (1u + 32u)
#define ROW (HEAD + 8u + 8u + 8u)

static void head_key(struct dbk *k, struct csm_bin spki)
{
	dbk_start(k, DB_T_USAGE);
	dbk_raw(k, spki.p, spki.n);
}

static void usage_key(struct dbk *k, const struct db_usage *u)
{
	const struct csm_str who[] = {u->node, u->key, u->program, u->identity};
	uint8_t hash[crypto_hash_sha256_BYTES];
	crypto_hash_sha256_state s;

	crypto_hash_sha256_init(&s);
	for (size_t i = 0; i < sizeof(who) / sizeof(who[0]); i++) {
		crypto_hash_sha256_update(&s, (const uint8_t *)who[i].p, who[i].n);
		crypto_hash_sha256_update(&s, (const uint8_t *)"", 1);
	}
	crypto_hash_sha256_final(&s, hash);
	head_key(k, u->spki_sha256);
	dbk_u64(k, u->to);
	dbk_u64(k, u->from);
	dbk_raw(k, hash, 8);
}

static bool is_of(const struct csm_engine_row *row, const struct dbk *head)
{
	return row->key.n == ROW && memcmp(row->key.p, head->p, HEAD) == 0;
}

static int usage_check(const struct db_usage *u)
{
	return u->spki_sha256.n != 32 || u->node.n == 0 || u->from > u->to || u->last_used > u->to ? CSM_EINVALID : 0;
}

static int plan_old(struct plan *p, struct csm_engine_txn *t, const struct db_usage *u, uint64_t now)
{
	struct csm_engine_row row;
	struct dbk k, end;
	int r;

	if (now <= DB_USAGE_KEPT_S)
		return 0;
	head_key(&k, u->spki_sha256);
	end = k;
	dbk_u64(&end, now - DB_USAGE_KEPT_S);
	r = p->db->ops->next(t, dbk_bin(&k), true, &row);
	for (size_t i = 0; i < OLD_MAX && r == 0 && is_of(&row, &k) && memcmp(row.key.p, end.p, end.n) < 0; i++) {
		struct dbk old = {.n = 0};

		dbk_raw(&old, row.key.p, row.key.n);
		plan_del(p, &old);
		r = p->db->ops->next(t, row.key, false, &row);
	}
	return r == CSM_ENOT_FOUND ? 0 : r;
}

static int put_group(struct central_db *db, const struct db_usage *u, size_t n, uint64_t now)
{
	struct csm_engine_txn *t;
	struct plan p;
	int r = db->ops->begin(db->engine, &t);

	if (r != 0)
		return r;
	plan_init(&p, db, 0, (1 + OLD_MAX) * n);
	r = p.r;
	for (size_t i = 0; i < n && r == 0; i++) {
		struct dbk k;

		if (u[i].signatures == 0)
			continue;
		if ((r = plan_old(&p, t, &u[i], now)) != 0)
			break;
		usage_key(&k, &u[i]);
		plan_put(&p, &k, &rec_usage, &u[i]);
	}
	db->ops->end(t);
	if (r == 0)
		r = plan_write(&p);
	plan_free(&p);
	return r;
}

int db_usage_put(struct central_db *db, const struct db_usage *u, size_t n, uint64_t now)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++)
		r = usage_check(&u[i]);
	for (size_t i = 0; i < n && r == 0; i += GROUP)
		r = put_group(db, u + i, n - i < GROUP ? n - i : GROUP, now);
	return r;
}

static int copy_usage(struct csm_pool *pool, struct db_usage *u)
{
	struct csm_str *const strs[] = {&u->node, &u->key, &u->program, &u->identity};
	int r = db_copy(pool, (const void **)&u->spki_sha256.p, u->spki_sha256.n);

	for (size_t i = 0; i < sizeof(strs) / sizeof(strs[0]) && r == 0; i++)
		r = db_copy(pool, (const void **)&strs[i]->p, strs[i]->n);
	return r;
}

int db_usage_last(struct central_db *db, struct csm_bin spki_sha256, struct csm_pool *pool, struct db_usage *ret)
{
	struct csm_engine_row row;
	struct csm_engine_txn *t;
	struct db_usage u;
	struct dbk k, end;
	int r;

	if (spki_sha256.n != 32)
		return CSM_EINVALID;
	if ((r = db->ops->begin(db->engine, &t)) != 0)
		return r;
	head_key(&k, spki_sha256);
	end = k;
	dbk_u64(&end, UINT64_MAX);
	dbk_u64(&end, UINT64_MAX);
	dbk_u64(&end, UINT64_MAX);
	dbk_u8(&end, 0);
	r = db->ops->prev(t, dbk_bin(&end), &row);
	if (r == 0 && !is_of(&row, &k))
		r = CSM_ENOT_FOUND;
	if (r == 0)
		r = rec_get(db->key, &rec_usage, row.key, row.value, NULL, &u);
	if (r == 0 && (r = copy_usage(pool, &u)) == 0)
		*ret = u;
	db->ops->end(t);
	return r;
}

int db_usage_each(struct central_db *db, struct csm_bin spki_sha256, uint64_t from, uint64_t to, db_usage_fn *fn, void *arg)
{
	struct csm_engine_row row;
	struct csm_engine_txn *t;
	struct dbk k, start;
	struct db_usage u;
	bool on = true;
	int r;

	if (spki_sha256.n != 32)
		return CSM_EINVALID;
	if ((r = db->ops->begin(db->engine, &t)) != 0)
		return r;
	head_key(&k, spki_sha256);
	start = k;
	dbk_u64(&start, from);
	for (r = db->ops->next(t, dbk_bin(&start), true, &row); r == 0 && on && is_of(&row, &k); r = db->ops->next(t, row.key, false, &row)) {
		if ((r = rec_get(db->key, &rec_usage, row.key, row.value, NULL, &u)) != 0)
			break;
		if (u.from <= to)
			on = fn(arg, &u);
	}
	db->ops->end(t);
	return r == CSM_ENOT_FOUND ? 0 : r;
}
