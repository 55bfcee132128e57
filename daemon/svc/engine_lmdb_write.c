/* Writers of the LMDB engine. Whoever writes waits in a queue; the first of them leads: it takes what is queued, judges each batch by what
 * stands behind the ones before it, makes those that hold durable by one entry of the journal, and tells the others. What the journal
 * does not take is committed by LMDB at once: a disk or a map that is nearly full, what is too large, a journal that cannot be synced.
 * There a transaction that fails as a whole is made again with each batch by itself, so that only what cannot be done is refused. */
#include <errno.h>
#include <string.h>
#include "daemon/svc/engine_lmdb_int.h"
#include "daemon/svc/lmdb_file.h"

#define GROUP_MAX 64u /* writers; each has some batches */
#define GROUP_BYTES (1024u * 1024u)
#define GATHER_NS 1000000u

struct item {
	const struct csm_engine_batch *batch;
	size_t bytes, failed; /* bytes: of keys and values */
	int r;
	struct item *next;
};
struct writer {
	struct item *items;
	size_t n, bytes;
	bool done, leads;
	pthread_cond_t cond;
	struct writer *next;
};

/* ---- judging ---- */

static bool holds(const struct csm_engine_cond *c, int found, struct csm_bin v)
{
	if (c->need == CSM_ENGINE_ABSENT || found != 0)
		return c->need == CSM_ENGINE_ABSENT && found != 0;
	return c->need == CSM_ENGINE_PRESENT || (v.n == c->value.n && (v.n == 0 || memcmp(v.p, c->value.p, v.n) == 0));
}

typedef int get_fn(void *from, struct csm_bin key, struct csm_bin *value);

/* What was refused is in it->r; an error is one of reading. */
static int judge(struct item *it, get_fn *get, void *from)
{
	const struct csm_engine_batch *b = it->batch;

	it->r = 0;
	for (size_t i = 0; i < b->n_conds && it->r == 0; i++) {
		struct csm_bin v = {NULL, 0};
		int r = get(from, b->conds[i].key, &v);

		if (r != 0 && r != CSM_ENOT_FOUND)
			return r;
		if (!holds(&b->conds[i], r, v)) {
			it->r = CSM_ECONFLICT;
			it->failed = i;
		}
	}
	return 0;
}

/* ---- by LMDB ---- */

struct direct {
	struct csm_engine *e;
	MDB_txn *txn;
	uint64_t room;
	bool changed;
};

static int direct_get(void *from, struct csm_bin key, struct csm_bin *value)
{
	struct direct *d = from;
	MDB_val k = engine_val(key), v;
	int rc = mdb_get(d->txn, d->e->dbi, &k, &v);

	if (rc == 0)
		*value = engine_bin(&v);
	return csm_lmdb_err(rc);
}

static int change(MDB_txn *txn, MDB_dbi dbi, const struct csm_engine_change *c)
{
	MDB_val k = engine_val(c->key), v = engine_val(c->value);
	int rc;

	if (!c->del)
		return csm_lmdb_err(mdb_put(txn, dbi, &k, &v, 0));
	rc = mdb_del(txn, dbi, &k, NULL);
	return rc == MDB_NOTFOUND ? 0 : csm_lmdb_err(rc);
}

/* An error here is one of the transaction, which is then good for nothing. */
static int direct_apply(struct direct *d, struct item *it)
{
	const struct csm_engine_batch *b = it->batch;
	uint64_t need = engine_need(it->bytes);
	int r = judge(it, direct_get, d);

	if (r != 0 || it->r != 0)
		return r;
	if (!b->urgent && need > d->room) {
		it->r = CSM_ENO_SPACE;
		return 0;
	}
	d->room -= need < d->room ? need : d->room;
	for (size_t i = 0; i < b->n_changes; i++) {
		if ((r = change(d->txn, d->e->dbi, &b->changes[i])) != 0)
			return r;
		d->changed = true;
	}
	return 0;
}

static int direct_run(struct csm_engine *e, struct item *first, const struct item *end)
{
	struct direct d = {.e = e};
	uint64_t used;
	int r;

	if ((r = engine_used(e, &used)) != 0 || (r = csm_lmdb_err(mdb_txn_begin(e->env, NULL, 0, &d.txn))) != 0)
		return r;
	d.room = used < e->map_size ? e->map_size - used : 0;
	for (struct item *it = first; it != end && r == 0; it = it->next)
		r = direct_apply(&d, it);
	if (r == 0 && d.changed)
		r = engine_mark_next(e, d.txn);
	if (r != 0 || !d.changed) {
		mdb_txn_abort(d.txn);
		return r;
	}
	if ((r = engine_commit(e, d.txn)) == 0)
		engine_marked(e);
	return r;
}

static void direct_serve(struct csm_engine *e, struct item *first)
{
	int r, taken;

	engine_taking(e, true);
	r = taken = engine_take_all(e);
	if (r == 0)
		r = direct_run(e, first, NULL);
	for (struct item *it = first; it != NULL && r != 0; it = it->next) {
		/* Where the disk is lost for one, it is for the next. */
		int mine = taken == 0 && first->next != NULL && !atomic_load(&e->failed) ? direct_run(e, it, it->next) : r;

		if (mine != 0)
			it->r = mine;
	}
	engine_taking(e, false);
	engine_resident_look(e);
}

/* ---- by the journal ---- */

static int journal_get(void *from, struct csm_bin key, struct csm_bin *value)
{
	return engine_lmdb_get(from, key, value);
}

static int journal_apply(struct csm_engine *e, struct csm_engine_txn *t, struct item *it)
{
	const struct csm_engine_batch *b = it->batch;
	int r = judge(it, journal_get, t);

	for (size_t i = 0; i < b->n_changes && r == 0 && it->r == 0; i++)
		r = engine_group_add(e, &b->changes[i]);
	return r;
}

/* All of it, or nothing. */
static int journal_serve(struct csm_engine *e, struct item *first, uint64_t need)
{
	struct csm_engine_txn *t;
	int r;

	if ((r = engine_group_begin(e)) != 0 || (r = engine_lmdb_begin(e, true, &t)) != 0)
		return r;
	for (struct item *it = first; it != NULL && r == 0; it = it->next)
		r = journal_apply(e, t, it);
	engine_lmdb_end(t);
	if (r == 0)
		r = engine_group_end(e, need);
	if (r != 0)
		engine_group_undo(e);
	return r;
}

static void group_serve(struct csm_engine *e, struct item *first)
{
	bool urgent = true;
	uint64_t need = 0;
	size_t bytes = 0;

	for (const struct item *it = first; it != NULL; it = it->next) {
		need += engine_need(it->bytes);
		bytes += it->bytes + it->batch->n_changes * JOURNAL_ROW_HEAD;
		urgent = urgent && it->batch->urgent;
	}
	if (engine_journal_ready(e, bytes, need, urgent) && journal_serve(e, first, need) == 0)
		return;
	direct_serve(e, first);
	if (!e->journal[0].dead && !e->journal[1].dead)
		return;
	/* An entry that was refused may be on the disk, and nothing outdates it. */
	atomic_store(&e->failed, true);
	for (struct item *it = first; it != NULL; it = it->next)
		it->r = CSM_EUNAVAILABLE;
}

/* ---- writers ---- */

/* Under the lock. Clients that are answered together ask again together: so as many as the last group had, and were queued when it
 * ended, are waited for, for a part of what a commit takes; else they would fall into two groups that never meet. */
static void gather(struct csm_engine *e)
{
	struct timespec until;
	uint64_t ns;
	int rc = 0;

	if (e->expected < 2 || e->queued >= e->expected)
		return;
	ns = engine_now() + e->commit_ns / 4;
	until = (struct timespec){(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
	e->want = e->expected;
	while (e->queued < e->want && rc == 0)
		rc = pthread_cond_timedwait(&e->gathered, &e->mu, &until);
	e->want = 0;
}

static size_t group_take(struct csm_engine *e, struct writer *group[static GROUP_MAX])
{
	size_t n = 0, bytes = 0;

	while (e->head != NULL && n < GROUP_MAX && (n == 0 || bytes + e->head->bytes <= GROUP_BYTES)) {
		group[n] = e->head;
		bytes += e->head->bytes;
		e->head = e->head->next;
		n++;
	}
	if (e->head == NULL)
		e->tail = &e->head;
	e->queued -= n;
	return n;
}

/* The batches of all of them, in order; returns how many. */
static size_t items_link(struct writer *const *group, size_t n, struct item **first)
{
	struct item **tail = first;
	size_t items = 0;

	for (size_t i = 0; i < n; i++) {
		for (size_t j = 0; j < group[i]->n; j++, items++) {
			*tail = &group[i]->items[j];
			tail = &(*tail)->next;
		}
	}
	*tail = NULL;
	return items;
}

/* Under the lock, which is given back meanwhile. Its own batches are the first of the queue. */
static void lead(struct csm_engine *e)
{
	struct writer *group[GROUP_MAX];
	struct item *first;
	uint64_t began, took;
	size_t n, batches;

	gather(e);
	n = group_take(e, group);
	pthread_mutex_unlock(&e->mu);
	batches = items_link(group, n, &first);
	began = engine_now();
	group_serve(e, first);
	took = engine_now() - began;
	pthread_mutex_lock(&e->mu);
	e->commit_ns = took < GATHER_NS ? took : GATHER_NS;
	e->expected = n + e->queued < GROUP_MAX ? n + e->queued : GROUP_MAX;
	e->st.commits++;
	e->st.batches += batches;
	for (size_t i = 0; i < n; i++) {
		group[i]->done = true;
		pthread_cond_signal(&group[i]->cond);
	}
	engine_journal_look(e);
	e->led = e->head != NULL;
	if (e->led) {
		e->head->leads = true;
		pthread_cond_signal(&e->head->cond);
	}
}

static bool key_ok(struct csm_bin key)
{
	return key.n > 0 && key.n <= CSM_ENGINE_KEY_MAX && key.p[0] != 0;
}

static int batch_check(const struct csm_engine_batch *b, size_t *bytes)
{
	size_t n = 0;

	for (size_t i = 0; i < b->n_conds; i++)
		if (!key_ok(b->conds[i].key))
			return CSM_EINVALID;
	for (size_t i = 0; i < b->n_changes; i++) {
		const struct csm_engine_change *c = &b->changes[i];

		if (!key_ok(c->key))
			return CSM_EINVALID;
		if (c->value.n > CSM_ENGINE_BATCH_MAX || n + c->key.n + c->value.n > CSM_ENGINE_BATCH_MAX)
			return CSM_ETOO_LARGE;
		n += c->key.n + c->value.n;
	}
	*bytes = n;
	return 0;
}

static void write_wait(struct csm_engine *e, struct writer *w)
{
	pthread_cond_init(&w->cond, NULL);
	pthread_mutex_lock(&e->mu);
	*e->tail = w;
	e->tail = &w->next;
	if (++e->queued >= e->want && e->want > 0)
		pthread_cond_signal(&e->gathered);
	if (!e->led)
		e->led = w->leads = true;
	while (!w->done) {
		if (w->leads)
			lead(e);
		else
			pthread_cond_wait(&w->cond, &e->mu);
	}
	pthread_mutex_unlock(&e->mu);
	pthread_cond_destroy(&w->cond);
}

static int write_some(struct csm_engine *e, const struct csm_engine_batch *const *b, size_t n, int *results, size_t *failed)
{
	struct item items[CSM_ENGINE_WRITE_MAX];
	size_t at[CSM_ENGINE_WRITE_MAX];
	struct writer w = {.items = items};
	size_t m = 0;
	int r = 0;

	if (n > CSM_ENGINE_WRITE_MAX)
		return CSM_EINVALID;
	for (size_t i = 0; i < n; i++) {
		struct item *it = &items[m];

		*it = (struct item){.batch = b[i]};
		results[i] = atomic_load(&e->failed) ? CSM_EUNAVAILABLE : batch_check(b[i], &it->bytes);
		if (results[i] != 0)
			continue;
		w.bytes += it->bytes;
		at[m++] = i;
	}
	w.n = m;
	if (m > 0)
		write_wait(e, &w);
	for (size_t i = 0; i < m; i++) {
		results[at[i]] = items[i].r;
		if (items[i].r == CSM_ECONFLICT && failed != NULL)
			*failed = items[i].failed;
	}
	for (size_t i = 0; i < n && r == 0; i++)
		r = results[i];
	return r;
}

int engine_lmdb_write(struct csm_engine *e, const struct csm_engine_batch *b, size_t *failed)
{
	int r;

	return write_some(e, &b, 1, &r, failed);
}

int engine_lmdb_write_all(struct csm_engine *e, const struct csm_engine_batch *const *b, size_t n, int *results)
{
	return write_some(e, b, n, results, NULL);
}
