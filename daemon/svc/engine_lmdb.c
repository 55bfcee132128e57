/* The engine over LMDB, in one unnamed database. Whoever writes waits in a queue; the first of them leads: it takes what is queued,
 * judges and applies each batch in one LMDB transaction, commits, and tells the others. Conditions are judged before anything of
 * their batch is written, so that one that does not hold costs nobody else anything; a transaction that fails as a whole is made
 * again with each batch by itself, so that only what cannot be done is refused.
 *
 * Pages of the map that were read count as this process's memory for as long as they are mapped, up to the whole file. So they are
 * given back when they grow beyond RESIDENT_MAX; the kernel keeps them cached, and the next read maps them again. */
#include <stdlib.h>
#include <string.h>
#include "daemon/svc/engine_lmdb_int.h"
#include "daemon/svc/lmdb_file.h"

#define RESIDENT_LOOK 64u /* reads between two looks at it; each may map 16 pages, those around the one that is wanted */

/* ---- reading ---- */

static void was_read(struct csm_engine *e)
{
	if (atomic_fetch_add_explicit(&e->reads, 1, memory_order_relaxed) % RESIDENT_LOOK == RESIDENT_LOOK - 1)
		engine_resident_look(e);
}

static int txn_new(struct csm_engine *e, struct csm_engine_txn **ret)
{
	struct csm_engine_txn *t = calloc(1, sizeof(*t));
	int rc;

	if (t == NULL)
		return CSM_ENOMEM;
	t->e = e;
	if ((rc = mdb_txn_begin(e->env, NULL, MDB_RDONLY, &t->txn)) == 0 && (rc = mdb_cursor_open(t->txn, e->dbi, &t->cur)) != 0)
		mdb_txn_abort(t->txn);
	if (rc != 0)
		free(t);
	else
		*ret = t;
	return csm_lmdb_err(rc);
}

static int lmdb_begin(struct csm_engine *e, struct csm_engine_txn **ret)
{
	struct csm_engine_txn *t;
	int rc;

	pthread_mutex_lock(&e->mu);
	t = e->spare;
	if (t != NULL)
		e->spare = t->next;
	pthread_mutex_unlock(&e->mu);
	if (t == NULL)
		return txn_new(e, ret);
	if ((rc = mdb_txn_renew(t->txn)) != 0 || (rc = mdb_cursor_renew(t->txn, t->cur)) != 0) {
		mdb_cursor_close(t->cur);
		mdb_txn_abort(t->txn);
		free(t);
		return csm_lmdb_err(rc);
	}
	t->last.mv_data = NULL;
	*ret = t;
	return 0;
}

static void lmdb_end(struct csm_engine_txn *t)
{
	struct csm_engine *e;

	if (t == NULL)
		return;
	e = t->e;
	mdb_txn_reset(t->txn);
	pthread_mutex_lock(&e->mu);
	t->next = e->spare;
	e->spare = t;
	pthread_mutex_unlock(&e->mu);
}

static int lmdb_get(struct csm_engine_txn *t, struct csm_bin key, struct csm_bin *value)
{
	MDB_val k = engine_val(key), v;
	int rc;

	if (key.n == 0 || key.n > CSM_ENGINE_KEY_MAX)
		return CSM_EINVALID;
	was_read(t->e);
	rc = mdb_get(t->txn, t->e->dbi, &k, &v);
	if (rc == 0)
		*value = engine_bin(&v);
	return csm_lmdb_err(rc);
}

static int told(struct csm_engine_txn *t, int rc, const MDB_val *k, const MDB_val *v, struct csm_engine_row *ret)
{
	was_read(t->e);
	t->last.mv_data = NULL;
	if (rc != 0)
		return csm_lmdb_err(rc);
	t->last = *k;
	*ret = (struct csm_engine_row){engine_bin(k), engine_bin(v)};
	return 0;
}

static bool stands_at(const struct csm_engine_txn *t, struct csm_bin key)
{
	return t->last.mv_data != NULL && t->last.mv_data == (const void *)key.p && t->last.mv_size == key.n;
}

static int lmdb_next(struct csm_engine_txn *t, struct csm_bin key, bool at, struct csm_engine_row *ret)
{
	MDB_val k = engine_val(key), v;
	int rc;

	if (key.n == 0 || key.n > CSM_ENGINE_KEY_MAX)
		return CSM_EINVALID;
	if (stands_at(t, key) && !at) {
		rc = mdb_cursor_get(t->cur, &k, &v, MDB_NEXT);
	} else {
		rc = mdb_cursor_get(t->cur, &k, &v, MDB_SET_RANGE);
		if (rc == 0 && !at && k.mv_size == key.n && memcmp(k.mv_data, key.p, key.n) == 0)
			rc = mdb_cursor_get(t->cur, &k, &v, MDB_NEXT);
	}
	return told(t, rc, &k, &v, ret);
}

static int lmdb_prev(struct csm_engine_txn *t, struct csm_bin key, struct csm_engine_row *ret)
{
	MDB_val k = engine_val(key), v;
	int rc;

	if (key.n == 0 || key.n > CSM_ENGINE_KEY_MAX)
		return CSM_EINVALID;
	if (stands_at(t, key)) {
		rc = mdb_cursor_get(t->cur, &k, &v, MDB_PREV);
	} else {
		rc = mdb_cursor_get(t->cur, &k, &v, MDB_SET_RANGE);
		if (rc == 0)
			rc = mdb_cursor_get(t->cur, &k, &v, MDB_PREV);
		else if (rc == MDB_NOTFOUND)
			rc = mdb_cursor_get(t->cur, &k, &v, MDB_LAST);
	}
	return told(t, rc, &k, &v, ret);
}

const struct csm_engine_ops csm_engine_lmdb = {
	.name = "lmdb",
	.open = engine_lmdb_open,
	.close = engine_lmdb_close,
	.begin = lmdb_begin,
	.end = lmdb_end,
	.get = lmdb_get,
	.next = lmdb_next,
	.prev = lmdb_prev,
	.write = engine_lmdb_write,
	.write_all = engine_lmdb_write_all,
	.stat = engine_lmdb_stat,
};
