/* Small things by name, and events. */
#include <string.h>
#include "daemon/central/db_int.h"

static int value_key(struct dbk *k, const char *name)
{
	size_t n = strlen(name);

	if (n == 0 || n > 256)
		return CSM_EINVALID;
	dbk_start(k, DB_T_VALUE);
	dbk_raw(k, name, n);
	return 0;
}

/* The condition that what is there is as expected, or that nobody has come between. */
static int value_plan(struct plan *p, struct csm_engine_txn *t, const struct dbk *k, const struct csm_bin *expect)
{
	struct rec_bytes was;
	struct csm_bin row;
	int r;

	if (expect == NULL)
		return 0;
	r = db_row(p->db, t, k, &rec_value, NULL, &was, &row);
	if (r == CSM_ENOT_FOUND) {
		if (expect->n > 0)
			return CSM_ECONFLICT;
		plan_absent(p, k);
		return 0;
	}
	if (r != 0)
		return r;
	if (was.v.n != expect->n || memcmp(was.v.p, expect->p, was.v.n) != 0)
		return CSM_ECONFLICT;
	plan_same(p, k, row);
	return 0;
}

int db_value_put(struct central_db *db, const char *name, struct csm_bin value, const struct csm_bin *expect)
{
	const struct rec_bytes now = {value};
	struct csm_engine_txn *t;
	struct plan p;
	struct dbk k;
	int r;

	if (value.n == 0 || value_key(&k, name) != 0)
		return CSM_EINVALID;
	if ((r = db->ops->begin(db->engine, &t)) != 0)
		return r;
	plan_init(&p, db, 1, 1);
	/* A list of what is revoked has to go out where nothing else can be written. */
	p.urgent = true;
	r = p.r != 0 ? p.r : value_plan(&p, t, &k, expect);
	db->ops->end(t);
	if (r == 0) {
		plan_put(&p, &k, &rec_value, &now);
		r = plan_write(&p);
	}
	plan_free(&p);
	return r;
}

int db_value_get(struct central_db *db, const char *name, struct csm_buf *ret)
{
	struct csm_engine_txn *t;
	struct rec_bytes v;
	struct dbk k;
	int r;

	if ((r = value_key(&k, name)) != 0 || (r = db->ops->begin(db->engine, &t)) != 0)
		return r;
	r = db_row(db, t, &k, &rec_value, NULL, &v, NULL);
	if (r == 0)
		r = csm_buf_put(ret, v.v.p, v.v.n);
	db->ops->end(t);
	return r;
}

int db_event_each(struct central_db *db, uint64_t after, db_event_fn *fn, void *arg)
{
	struct csm_engine_txn *t;
	struct csm_engine_row row;
	struct db_event e;
	struct dbk k;
	bool on = true;
	int r;

	if (after == UINT64_MAX)
		return 0;
	if ((r = db->ops->begin(db->engine, &t)) != 0)
		return r;
	dbk_start(&k, DB_T_EVENT);
	dbk_u64(&k, after + 1);
	for (r = db->ops->next(t, dbk_bin(&k), true, &row); r == 0 && on && row.key.p[0] == DB_T_EVENT;
		r = db->ops->next(t, row.key, false, &row)) {
		if ((r = rec_get(db->key, &rec_event, row.key, row.value, NULL, &e)) != 0)
			break;
		on = fn(arg, &e);
	}
	db->ops->end(t);
	return r == CSM_ENOT_FOUND ? 0 : r;
}
