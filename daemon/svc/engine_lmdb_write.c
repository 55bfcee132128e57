/* Writers of the LMDB engine: who leads, groups, batches. */
#include <errno.h>
#include <string.h>
#include "daemon/svc/engine_lmdb_int.h"
#include "daemon/svc/lmdb_file.h"

#define GROUP_MAX 64u /* writers; each has some batches */
#define GROUP_BYTES (4u * 1024u * 1024u)
#define BATCH_PAGES (16u * 4096u) /* what a batch may take beside its bytes: split pages, branches */
#define GATHER_NS 1000000u

struct item {
	const struct csm_engine_batch *batch;
	size_t bytes, failed;
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

static uint64_t monotonic_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int judge(MDB_txn *txn, MDB_dbi dbi, const struct csm_engine_cond *c)
{
	MDB_val k = engine_val(c->key), v;
	int rc = mdb_get(txn, dbi, &k, &v);
	bool holds;

	if (rc != 0 && rc != MDB_NOTFOUND)
		return csm_lmdb_err(rc);
	if (c->need == CSM_ENGINE_ABSENT)
		holds = rc == MDB_NOTFOUND;
	else
		holds = rc == 0 && (c->need == CSM_ENGINE_PRESENT ||
			(v.mv_size == c->value.n && (v.mv_size == 0 || memcmp(v.mv_data, c->value.p, v.mv_size) == 0)));
	return holds ? 0 : CSM_ECONFLICT;
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

/* What was refused is in it->r; an error here is one of the transaction, which is then good for nothing. */
static int batch_apply(struct csm_engine *e, MDB_txn *txn, struct item *it, uint64_t *room, bool *changed)
{
	const struct csm_engine_batch *b = it->batch;
	uint64_t need = 2 * (uint64_t)it->bytes + BATCH_PAGES;
	int r;

	it->r = 0;
	for (size_t i = 0; i < b->n_conds; i++) {
		r = judge(txn, e->dbi, &b->conds[i]);
		if (r == CSM_ECONFLICT) {
			it->r = r;
			it->failed = i;
			return 0;
		}
		if (r != 0)
			return r;
	}
	if (!b->urgent && need > *room) {
		it->r = CSM_ENO_SPACE;
		return 0;
	}
	*room -= need < *room ? need : *room;
	for (size_t i = 0; i < b->n_changes; i++) {
		if ((r = change(txn, e->dbi, &b->changes[i])) != 0)
			return r;
		*changed = true;
	}
	return 0;
}

/* A disk that fills in the midst of a write is told by LMDB as EIO. When its very last write fails, nobody knows what the disk has,
 * and it refuses all further work. */
static int commit(struct csm_engine *e, MDB_txn *txn)
{
	int rc = mdb_txn_commit(txn), again;
	MDB_txn *probe;

	if (rc == 0)
		return 0;
	again = mdb_txn_begin(e->env, NULL, MDB_RDONLY, &probe);
	if (again == 0) {
		mdb_txn_abort(probe);
	} else if (again == MDB_PANIC) {
		atomic_store(&e->failed, true);
		return CSM_EUNAVAILABLE;
	}
	return rc == EIO && csm_lmdb_disk_left(e->env) < ENGINE_NO_DISK ? CSM_ENO_SPACE : csm_lmdb_err(rc);
}

static int group_run(struct csm_engine *e, struct item *first, const struct item *end)
{
	bool changed = false;
	uint64_t used, room;
	MDB_txn *txn;
	int r;

	if ((r = engine_used(e, &used)) != 0 || (r = csm_lmdb_err(mdb_txn_begin(e->env, NULL, 0, &txn))) != 0)
		return r;
	room = used < e->map_size ? e->map_size - used : 0;
	for (struct item *it = first; it != end && r == 0; it = it->next)
		r = batch_apply(e, txn, it, &room, &changed);
	if (r != 0 || !changed)
		mdb_txn_abort(txn);
	else
		r = commit(e, txn);
	return r;
}

static void group_serve(struct csm_engine *e, struct item *first)
{
	int r = group_run(e, first, NULL);

	for (struct item *it = first; it != NULL && r != 0; it = it->next) {
		/* Where the disk is lost for one, it is for the next. */
		int mine = first->next != NULL && !atomic_load(&e->failed) ? group_run(e, it, it->next) : r;

		if (mine != 0)
			it->r = mine;
	}
}

/* Under the lock. Clients that are answered together ask again together: so as many as the last group had, and were queued when it
 * ended, are waited for, for a part of what a commit takes; else they would fall into two groups that never meet. */
static void gather(struct csm_engine *e)
{
	struct timespec until;
	uint64_t ns;
	int rc = 0;

	if (e->expected < 2 || e->queued >= e->expected)
		return;
	ns = monotonic_ns() + e->commit_ns / 4;
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
	began = monotonic_ns();
	group_serve(e, first);
	took = monotonic_ns() - began;
	engine_resident_look(e);
	pthread_mutex_lock(&e->mu);
	e->commit_ns = took < GATHER_NS ? took : GATHER_NS;
	e->expected = n + e->queued < GROUP_MAX ? n + e->queued : GROUP_MAX;
	e->st.commits++;
	e->st.batches += batches;
	for (size_t i = 0; i < n; i++) {
		group[i]->done = true;
		pthread_cond_signal(&group[i]->cond);
	}
	e->led = e->head != NULL;
	if (e->led) {
		e->head->leads = true;
		pthread_cond_signal(&e->head->cond);
	}
}

static int batch_check(const struct csm_engine_batch *b, size_t *bytes)
{
	size_t n = 0;

	for (size_t i = 0; i < b->n_conds; i++)
		if (b->conds[i].key.n == 0 || b->conds[i].key.n > CSM_ENGINE_KEY_MAX)
			return CSM_EINVALID;
	for (size_t i = 0; i < b->n_changes; i++) {
		const struct csm_engine_change *c = &b->changes[i];

		if (c->key.n == 0 || c->key.n > CSM_ENGINE_KEY_MAX)
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
