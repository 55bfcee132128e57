/* The engine over LMDB, in one unnamed database: reading. A snapshot is one of LMDB, and what the journal has beside it, up to a group
 * (engine_journal.c, engine_rows.h): LMDB never has a group that is not seen, and what it takes stays in the rows that a snapshot
 * began with.
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

/* *t is NULL where that fails. */
static int txn_renew(struct csm_engine_txn **t)
{
	int rc = mdb_txn_renew((*t)->txn);

	if (rc == 0 && (rc = mdb_cursor_renew((*t)->txn, (*t)->cur)) == 0)
		return 0;
	mdb_cursor_close((*t)->cur);
	mdb_txn_abort((*t)->txn);
	free(*t);
	*t = NULL;
	return csm_lmdb_err(rc);
}

/* LMDB first: what it has then is in groups that are seen; and nothing leaves rows[] meanwhile. */
int engine_lmdb_begin(struct csm_engine *e, bool leads, struct csm_engine_txn **ret)
{
	struct csm_engine_txn *t;
	int r;

	pthread_mutex_lock(&e->mu);
	t = e->spare;
	if (t != NULL) {
		e->spare = t->next;
		r = txn_renew(&t);
	} else {
		r = txn_new(e, &t);
	}
	if (t != NULL) {
		t->rows[0] = leads || e->since != 0 ? engine_rows_ref(e->rows[0]) : NULL;
		t->rows[1] = e->rows[1] != NULL ? engine_rows_ref(e->rows[1]) : NULL;
		t->seen = e->number + leads;
	}
	pthread_mutex_unlock(&e->mu);
	if (t == NULL)
		return r;
	t->last.mv_data = NULL;
	t->told.p = NULL;
	*ret = t;
	return 0;
}

static int lmdb_begin(struct csm_engine *e, struct csm_engine_txn **ret)
{
	return engine_lmdb_begin(e, false, ret);
}

void engine_lmdb_end(struct csm_engine_txn *t)
{
	struct csm_engine *e;

	if (t == NULL)
		return;
	e = t->e;
	mdb_txn_reset(t->txn);
	for (unsigned i = 0; i < 2; i++)
		engine_rows_unref(t->rows[i]);
	pthread_mutex_lock(&e->mu);
	t->next = e->spare;
	e->spare = t;
	pthread_mutex_unlock(&e->mu);
}

int engine_lmdb_get(struct csm_engine_txn *t, struct csm_bin key, struct csm_bin *value)
{
	MDB_val k = engine_val(key), v;
	struct engine_found found;
	int rc;

	if (key.n == 0 || key.n > CSM_ENGINE_KEY_MAX)
		return CSM_EINVALID;
	if (key.p[0] == 0)
		return CSM_ENOT_FOUND;
	for (unsigned i = 0; i < 2; i++) {
		if (t->rows[i] == NULL || !engine_rows_find(t->rows[i], t->seen, key, &found))
			continue;
		if (found.del)
			return CSM_ENOT_FOUND;
		*value = found.value;
		return 0;
	}
	was_read(t->e);
	rc = mdb_get(t->txn, t->e->dbi, &k, &v);
	if (rc == 0)
		*value = engine_bin(&v);
	return csm_lmdb_err(rc);
}

/* ---- in order ---- */

static bool stands_at(const struct csm_engine_txn *t, struct csm_bin key)
{
	return t->last.mv_data != NULL && t->last.mv_data == (const void *)key.p && t->last.mv_size == key.n;
}

/* LMDB's next row; the engine's own comes before all others. */
static int cursor_next(struct csm_engine_txn *t, struct csm_bin key, bool at)
{
	MDB_val k = engine_val(key);
	int rc;

	if (stands_at(t, key) && !at) {
		rc = mdb_cursor_get(t->cur, &k, &t->last_value, MDB_NEXT);
	} else {
		rc = mdb_cursor_get(t->cur, &k, &t->last_value, MDB_SET_RANGE);
		if (rc == 0 && !at && k.mv_size == key.n && memcmp(k.mv_data, key.p, key.n) == 0)
			rc = mdb_cursor_get(t->cur, &k, &t->last_value, MDB_NEXT);
	}
	if (rc == 0 && *(const uint8_t *)k.mv_data == 0)
		rc = mdb_cursor_get(t->cur, &k, &t->last_value, MDB_NEXT);
	t->last = k;
	return rc;
}

static int cursor_prev(struct csm_engine_txn *t, struct csm_bin key)
{
	MDB_val k = engine_val(key);
	int rc;

	if (stands_at(t, key)) {
		rc = mdb_cursor_get(t->cur, &k, &t->last_value, MDB_PREV);
	} else {
		rc = mdb_cursor_get(t->cur, &k, &t->last_value, MDB_SET_RANGE);
		if (rc == 0)
			rc = mdb_cursor_get(t->cur, &k, &t->last_value, MDB_PREV);
		else if (rc == MDB_NOTFOUND)
			rc = mdb_cursor_get(t->cur, &k, &t->last_value, MDB_LAST);
	}
	if (rc == 0 && *(const uint8_t *)k.mv_data == 0)
		rc = MDB_NOTFOUND;
	t->last = k;
	return rc;
}

/* Of LMDB and rows[]: the one that comes first in the way of `back`; of the same key the newest. */
static int nearest(struct csm_engine_txn *t, struct csm_bin key, bool at, bool back, struct engine_found *ret)
{
	bool have = !back && !at && t->told.p != NULL && t->told.p == key.p && t->told.n == key.n;
	int rc = 0, way = back ? -1 : 1;

	was_read(t->e);
	if (!have)
		rc = back ? cursor_prev(t, key) : cursor_next(t, key, at);
	t->told.p = NULL;
	if (rc != 0)
		t->last.mv_data = NULL;
	if (rc != 0 && rc != MDB_NOTFOUND)
		return csm_lmdb_err(rc);
	have = rc == 0;
	if (have)
		*ret = (struct engine_found){.key = engine_bin(&t->last), .value = engine_bin(&t->last_value)};
	for (unsigned i = 2; i-- > 0;) {
		struct engine_found f;

		if (t->rows[i] == NULL || !(back ? engine_rows_prev(t->rows[i], t->seen, key, &f) : engine_rows_next(t->rows[i], t->seen, key, at, &f)))
			continue;
		if (!have || way * engine_bin_cmp(f.key, ret->key) <= 0)
			*ret = f;
		have = true;
	}
	return have ? 0 : CSM_ENOT_FOUND;
}

static int walk(struct csm_engine_txn *t, struct csm_bin key, bool at, bool back, struct csm_engine_row *ret)
{
	struct engine_found f = {.del = true};
	int r;

	if (key.n == 0 || key.n > CSM_ENGINE_KEY_MAX)
		return CSM_EINVALID;
	for (; f.del; key = f.key, at = false) {
		if ((r = nearest(t, key, at, back, &f)) != 0)
			return r;
		if (!back && t->last.mv_data != NULL && engine_bin_cmp(f.key, engine_bin(&t->last)) < 0)
			t->told = f.key;
	}
	*ret = (struct csm_engine_row){f.key, f.value};
	return 0;
}

static int lmdb_next(struct csm_engine_txn *t, struct csm_bin key, bool at, struct csm_engine_row *ret)
{
	return walk(t, key, at, false, ret);
}

static int lmdb_prev(struct csm_engine_txn *t, struct csm_bin key, struct csm_engine_row *ret)
{
	return walk(t, key, false, true, ret);
}

const struct csm_engine_ops csm_engine_lmdb = {
	.name = "lmdb",
	.open = engine_lmdb_open,
	.close = engine_lmdb_close,
	.begin = lmdb_begin,
	.end = engine_lmdb_end,
	.get = engine_lmdb_get,
	.next = lmdb_next,
	.prev = lmdb_prev,
	.write = engine_lmdb_write,
	.write_all = engine_lmdb_write_all,
	.stat = engine_lmdb_stat,
};
