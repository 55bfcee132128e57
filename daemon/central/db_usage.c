/* What nodes tell of the use of their keys: a row for each node, key and period, and of each key its latest use. */
#include <string.h>
#include "daemon/central/db_int.h"

#define GROUP 32u /* reports that are written together */

static void usage_key(struct dbk *k, const struct db_usage *u)
{
	uint8_t hash[32];

	db_sha256(hash, u->node, u->key);
	dbk_start(k, DB_T_USAGE);
	dbk_u64(k, u->to);
	dbk_raw(k, hash, 16);
	dbk_u64(k, u->from);
}

static void used_key(struct dbk *k, struct csm_bin spki)
{
	dbk_start(k, DB_T_USED);
	dbk_raw(k, spki.p, spki.n);
}

static int copy_usage(struct csm_pool *pool, struct db_usage *u)
{
	struct csm_str *const strs[] = {&u->node, &u->key, &u->program, &u->identity};
	int r = db_copy(pool, (const void **)&u->spki_sha256.p, u->spki_sha256.n);

	for (size_t i = 0; i < sizeof(strs) / sizeof(strs[0]) && r == 0; i++)
		r = db_copy(pool, (const void **)&strs[i]->p, strs[i]->n);
	return r;
}

static int usage_check(const struct db_usage *u)
{
	return u->spki_sha256.n != 32 || u->node.n == 0 || u->from > u->to || u->last_used > u->to ? CSM_EINVALID : 0;
}

static int plan_usage(struct plan *p, struct csm_engine_txn *t, const struct db_usage *u, bool is_latest)
{
	struct db_usage last;
	struct csm_bin row;
	struct dbk k;
	int r;

	usage_key(&k, u);
	plan_put(p, &k, &rec_usage, u);
	if (!is_latest)
		return p->r;
	used_key(&k, u->spki_sha256);
	r = db_row(p->db, t, &k, &rec_usage, NULL, &last, &row);
	if (r != 0 && r != CSM_ENOT_FOUND)
		return r;
	if (r == 0 && last.last_used > u->last_used)
		return p->r;
	if (r == 0)
		plan_same(p, &k, row);
	else
		plan_absent(p, &k);
	plan_put(p, &k, &rec_usage, u);
	return p->r;
}

/* Of several for one key in one group the latest counts. */
static bool latest(const struct db_usage *u, size_t n, size_t i)
{
	const struct db_usage *mine = &u[i];

	for (size_t j = 0; j < n; j++)
		if (j != i && u[j].signatures > 0 && memcmp(u[j].spki_sha256.p, mine->spki_sha256.p, 32) == 0 &&
			(u[j].last_used > mine->last_used || (u[j].last_used == mine->last_used && j > i)))
			return false;
	return mine->signatures > 0;
}

static int put_group(struct central_db *db, const struct db_usage *u, size_t n)
{
	int r = CSM_ECONFLICT;

	for (unsigned round = 0; round < DB_ROUNDS && r == CSM_ECONFLICT; round++) {
		struct csm_engine_txn *t;
		struct plan p;

		if ((r = db->ops->begin(db->engine, &t)) != 0)
			return r;
		plan_init(&p, db, n, 2 * n);
		r = p.r;
		for (size_t i = 0; i < n && r == 0; i++)
			r = plan_usage(&p, t, &u[i], latest(u, n, i));
		db->ops->end(t);
		if (r == 0)
			r = plan_write(&p);
		plan_free(&p);
	}
	return r == CSM_ECONFLICT ? CSM_EBUSY : r;
}

int db_usage_put(struct central_db *db, const struct db_usage *u, size_t n, uint64_t now)
{
	int r = 0;

	(void)now;
	for (size_t i = 0; i < n && r == 0; i++)
		r = usage_check(&u[i]);
	for (size_t i = 0; i < n && r == 0; i += GROUP)
		r = put_group(db, u + i, n - i < GROUP ? n - i : GROUP);
	return r;
}

int db_usage_last(struct central_db *db, struct csm_bin spki_sha256, struct csm_pool *pool, struct db_usage *ret)
{
	struct csm_engine_txn *t;
	struct db_usage u;
	struct dbk k;
	int r;

	if (spki_sha256.n != 32)
		return CSM_EINVALID;
	if ((r = db->ops->begin(db->engine, &t)) != 0)
		return r;
	used_key(&k, spki_sha256);
	r = db_row(db, t, &k, &rec_usage, NULL, &u, NULL);
	if (r == 0 && (r = copy_usage(pool, &u)) == 0)
		*ret = u;
	db->ops->end(t);
	return r;
}

/* The rows lie in the order of their ends: the first that can be of the period is found at once. */
int db_usage_each(struct central_db *db, uint64_t from, uint64_t to, db_usage_fn *fn, void *arg)
{
	struct csm_engine_row row;
	struct csm_engine_txn *t;
	struct csm_pool pool;
	struct db_usage u;
	struct dbk k;
	bool on = true;
	int r = db->ops->begin(db->engine, &t);

	if (r != 0)
		return r;
	csm_pool_init(&pool, 256u * 1024u);
	dbk_start(&k, DB_T_USAGE);
	dbk_u64(&k, from);
	for (r = db->ops->next(t, dbk_bin(&k), true, &row); r == 0 && on && row.key.p[0] == DB_T_USAGE;
		r = db->ops->next(t, row.key, false, &row)) {
		struct db_cert cert;
		int found;

		if ((r = rec_get(db->key, &rec_usage, row.key, row.value, NULL, &u)) != 0)
			break;
		if (u.from > to)
			continue;
		csm_pool_reset(&pool);
		found = db_cert_by_key(db, u.spki_sha256, &pool, &cert);
		if (found != 0 && found != CSM_ENOT_FOUND) {
			r = found;
			break;
		}
		on = fn(arg, &u, found == 0 ? &cert : NULL);
	}
	csm_pool_free(&pool);
	db->ops->end(t);
	return r == CSM_ENOT_FOUND ? 0 : r;
}
