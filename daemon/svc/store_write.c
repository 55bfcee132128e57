/* The writer: one thread, group commit. Each operation runs in a nested transaction, so that a bad one fails
 * alone; one commit makes all durable; only then are they answered. All state is read from the store at
 * the start of a group and thrown away at its end, so a commit that fails leaves nothing to repair. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/svc/store_internal.h"
#include "daemon/svc/thread.h"

#define RETRY_S 10u
#define PRUNE_S 600u
#define PRUNE_ROWS 4096u

/* ---- scopes of a group ---- */

static int scope_load(struct group *g, const struct dbkey *key, struct wscope *ws)
{
	struct prk set;
	struct csm_bin v;
	int r;

	ws->key = *key;
	r = store_get(g->txn, g->s->scopes, dbkey_bin(key), &v);
	if (r != 0)
		return r == CSM_ENOT_FOUND ? 0 : r;
	if ((r = store_scope_open(&g->s->aead, &g->s->sub->scope, dbkey_bin(key), v, &ws->sc)) != 0)
		return r;
	prk_init(&set, g->root.set_key);
	r = sum_element(&set, REC_SCOPE, dbkey_bin(key), v, ws->element);
	sodium_memzero(&set, sizeof(set));
	prk_init(&ws->kek, ws->sc.kek[0].key);
	prk_init(&ws->set, ws->sc.set_key);
	ws->in_db = ws->present = true;
	return r;
}

int store_group_scope(struct group *g, const struct dbkey *key, struct wscope **ret)
{
	struct wscope *ws = NULL;
	int r;

	for (size_t i = 0; i < g->n_scopes && ws == NULL; i++) {
		if (g->scopes[i]->key.n == key->n && memcmp(g->scopes[i]->key.p, key->p, key->n) == 0)
			ws = g->scopes[i];
	}
	if (ws == NULL) {
		if (g->n_scopes == GROUP_OPS)
			return CSM_EINTERNAL;
		ws = csm_lock_alloc(sizeof(*ws));
		if (ws == NULL)
			return CSM_ENOMEM;
		memset(ws, 0, sizeof(*ws));
		if ((r = scope_load(g, key, ws)) != 0) {
			csm_lock_free(ws);
			return r;
		}
		g->scopes[g->n_scopes++] = ws;
	}
	if (g->touched != ws)
		*g->before = *ws;
	g->touched = ws;
	*ret = ws;
	return 0;
}

static int scope_flush(struct group *g, const struct prk *set, struct wscope *ws)
{
	uint8_t value[SCOPE_VALUE_MAX], e[SUM_LEN];
	size_t n;
	int r;

	if (ws->in_db) {
		sum_sub(g->root.sum, ws->element);
		g->root.scopes--;
	}
	if (!ws->present)
		return ws->in_db ? store_del(g->txn, g->s->scopes, dbkey_bin(&ws->key)) : 0;
	if ((r = store_scope_seal(&g->s->aead, &g->s->sub->scope, dbkey_bin(&ws->key), &ws->sc, value, &n)) != 0 ||
		(r = sum_element(set, REC_SCOPE, dbkey_bin(&ws->key), (struct csm_bin){value, n}, e)) != 0)
		return r;
	sum_add(g->root.sum, e);
	g->root.scopes++;
	return store_put(g->txn, g->s->scopes, dbkey_bin(&ws->key), (struct csm_bin){value, n});
}

static int scopes_flush(struct group *g)
{
	struct prk set;
	int r = 0;

	prk_init(&set, g->root.set_key);
	for (size_t i = 0; i < g->n_scopes && r == 0; i++) {
		if (g->scopes[i]->dirty)
			r = scope_flush(g, &set, g->scopes[i]);
	}
	sodium_memzero(&set, sizeof(set));
	return r;
}

static uint64_t monotonic_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- a group ---- */

static void group_free(struct group *g)
{
	if (g == NULL)
		return;
	if (g->txn != NULL)
		mdb_txn_abort(g->txn);
	for (size_t i = 0; i < g->n_scopes; i++)
		csm_lock_free(g->scopes[i]);
	csm_buf_free(&g->lines);
	csm_lock_free(g->before);
	csm_lock_free(g);
}

/* Free pages are counted only near the end: the list of them may be long. */
static int group_room(struct group *g)
{
	struct csm_store *s = g->s;
	MDB_envinfo info;
	uint64_t used;
	MDB_stat st;
	int rc, r;

	if ((rc = mdb_env_info(s->env, &info)) != 0 || (rc = mdb_env_stat(s->env, &st)) != 0)
		return store_err(rc);
	used = (uint64_t)(info.me_last_pgno + 1) * st.ms_psize;
	if (used + MAP_RESERVE > s->map_size && (r = store_used(s, &used)) != 0)
		return r;
	g->room = used < s->map_size ? s->map_size - used : 0;
	return 0;
}

static int group_begin(struct csm_store *s, struct group **ret)
{
	struct group *g = csm_lock_alloc(sizeof(*g));
	int r = CSM_ENOMEM;

	if (g == NULL)
		return r;
	memset(g, 0, sizeof(*g));
	g->s = s;
	g->now = (uint64_t)time(NULL);
	csm_buf_init(&g->lines, LINES_MAX, false);
	g->before = csm_lock_alloc(sizeof(*g->before));
	if (g->before != NULL)
		r = store_err(mdb_txn_begin(s->env, NULL, 0, &g->txn));
	if (r == 0)
		r = group_room(g);
	if (r == 0)
		*ret = g;
	else
		group_free(g);
	return r;
}

static int group_commit(struct group *g)
{
	int r = store_root_write(g->s, g->txn, &g->s->aead, &g->root);

	if (r == 0) {
		r = store_commit_err(g->s, mdb_txn_commit(g->txn));
		g->txn = NULL;
	}
	store_told(g, r);
	return r;
}

/* One operation in a transaction of its own. */
static int op_nested(struct group *g, struct csm_store_op *op)
{
	CSM_WIPED(mem, sizeof(struct root));
	bool deleted = g->deleted, keks_gone = g->keks_gone;
	size_t room = g->room;
	MDB_txn *parent = g->txn;
	int rc, r;

	memcpy(mem, &g->root, sizeof(g->root));
	g->touched = NULL;
	if ((rc = mdb_txn_begin(g->s->env, parent, 0, &g->txn)) != 0) {
		g->txn = parent;
		return store_err(rc);
	}
	r = store_op_apply(g, op);
	if (r == 0 && !op->replayed)
		r = store_commit_err(g->s, mdb_txn_commit(g->txn));
	else
		mdb_txn_abort(g->txn);
	g->txn = parent;
	if (r == 0)
		return 0;
	memcpy(&g->root, mem, sizeof(g->root));
	if (g->touched != NULL)
		*g->touched = *g->before;
	g->deleted = deleted;
	g->keks_gone = keks_gone;
	g->room = room;
	return r;
}

static bool epoch_due(const struct csm_store *s, bool deleted)
{
	return (s->epoch_wanted || deleted) && !s->counter_behind &&
		store_monotonic() - s->epoch_raised >= s->epoch_interval_s;
}

static void group_done(struct group *g, size_t effects, bool raised)
{
	struct csm_store *s = g->s;

	s->epoch = g->root.epoch;
	s->epoch_wanted = !raised && (s->epoch_wanted || g->deleted);
	if (raised)
		s->epoch_raised = store_monotonic();
	if (g->keks_gone)
		atomic_fetch_add_explicit(&s->kek_generation, 1, memory_order_release);
	store_totals(s, &g->root);
	pthread_mutex_lock(&s->mu);
	s->stat.commits++;
	s->stat.commit_ops += effects;
	pthread_mutex_unlock(&s->mu);
}

/* Apply all, commit once. An error is that of the commit: then nothing was done. */
static int group_run(struct csm_store *s, struct csm_store_op *const *ops, size_t n, bool raise)
{
	struct group *g;
	size_t effects = 0;
	int r;

	if ((r = group_begin(s, &g)) != 0)
		return r;
	if ((r = store_root_read(s, g->txn, &s->aead, &g->root)) != 0)
		goto out;
	for (size_t i = 0; i < n; i++) {
		ops[i]->r = op_nested(g, ops[i]);
		if (ops[i]->r == 0 && !ops[i]->replayed)
			effects++;
		raise = raise || ops[i]->kind == CSM_OP_EPOCH;
	}
	raise = (raise && !s->counter_behind) || epoch_due(s, g->deleted);
	if ((r = store_tell(g, ops, n, effects > 0 || raise)) != 0)
		goto out;
	if (effects == 0 && !raise)
		goto out;
	if (raise)
		raise = store_root_epoch_next(s, &g->root);
	if ((r = scopes_flush(g)) != 0)
		store_told(g, r);
	else if ((r = group_commit(g)) == 0)
		group_done(g, effects, raise);
out:
	group_free(g);
	return r;
}

/* A group whose commit fails is done again one by one, so that only what cannot be done is refused. */
static void batch_run(struct csm_store *s, struct csm_store_op *const *ops, size_t n)
{
	int r = group_run(s, ops, n, false);

	if (r == 0)
		return;
	for (size_t i = 0; i < n; i++) {
		/* What one cannot tell, the next cannot either. */
		if (n > 1 && r != CSM_EUNAVAILABLE)
			r = group_run(s, &ops[i], 1, false);
		if (r != 0)
			ops[i]->r = r;
	}
}

/* ---- accepting ---- */

static int accept_scan(struct group *g, struct csm_store_op *op, struct names *removed)
{
	struct csm_store *s = g->s;
	int r = store_root_read(s, g->txn, &s->aead, &g->root);

	if (r == CSM_ETAMPERED) {
		g->root = (struct root){.created = g->now};
		randombytes_buf(g->root.set_key, sizeof(g->root.set_key));
		r = 0;
	}
	if (r != 0 || (r = store_schema_put(s, g->txn)) != 0 || (r = store_scan_accept(s, g->txn, &g->root, removed)) != 0 ||
		(r = store_early_pins(s, g->txn, &g->root)) != 0)
		return r;
	(void)store_root_epoch_next(s, &g->root);
	op->r = 0;
	return (r = store_tell(g, &op, 1, true)) != 0 ? r : group_commit(g);
}

static int accept_run(struct csm_store *s, struct csm_store_op *op)
{
	struct names *removed, *none;
	struct group *g = NULL;
	int r = CSM_ENOMEM;

	if (!csm_store_locked(s))
		return CSM_ESTATE;
	if (s->root.counter_increment != NULL && s->root.counter_read(s->root.arg, &s->counter) != 0)
		return CSM_EUNAVAILABLE;
	removed = store_names_new(s->removed);
	none = store_names_new(s->damaged);
	if (removed == NULL || none == NULL || (r = group_begin(s, &g)) != 0)
		goto out;
	if ((r = accept_scan(g, op, removed)) != 0)
		goto out;
	g->keks_gone = true;
	s->schema = STORE_SCHEMA;
	store_early_done(s, true);
	group_done(g, 1, true);
	pthread_mutex_lock(&s->mu);
	s->removed = removed;
	s->damaged = none;
	pthread_mutex_unlock(&s->mu);
	atomic_store_explicit(&s->locked, false, memory_order_release);
	store_root_counter_follow(s);
out:
	group_free(g);
	if (r != 0) {
		store_early_done(s, false);
		store_names_drop(removed);
		store_names_drop(none);
	}
	return r;
}

/* ---- the thread ---- */

static void op_finish(struct csm_store_op *op)
{
	op->next = NULL;
	if (op->done != NULL)
		op->done(op);
}

/* Who is answered together asks again together: as many as are answered now and wait already make the next group. */
static void expect(struct csm_store *s, size_t n, uint64_t began)
{
	uint64_t took = monotonic_ns() - began;

	s->commit_ns = took < GATHER_NS ? took : GATHER_NS;
	pthread_mutex_lock(&s->mu);
	s->expected = s->queued + n;
	pthread_mutex_unlock(&s->mu);
}

/* Under mu: wait for those that are expected, for a part of what the commit will take; a single one is not waited for. */
static void gather(struct csm_store *s)
{
	struct timespec until;
	uint64_t ns;
	int rc = 0;

	if (s->queued == 0 || s->queued >= s->expected || s->expected > GROUP_OPS || s->stopping)
		return;
	ns = monotonic_ns() + s->commit_ns / 4;
	until = (struct timespec){(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
	s->want = s->expected;
	while (s->queued < s->want && !s->stopping && rc == 0)
		rc = pthread_cond_timedwait(&s->wake, &s->mu, &until);
	s->want = 1;
}

static void batch_serve(struct csm_store *s, struct csm_store_op **ops, size_t n)
{
	uint64_t began = monotonic_ns();
	int r;

	if (ops[0]->kind == CSM_OP_ACCEPT) {
		ops[0]->replayed = false;
		ops[0]->r = accept_run(s, ops[0]);
		op_finish(ops[0]);
		return;
	}
	batch_run(s, ops, n);
	expect(s, n, began);
	/* The counter may be slow: who did not ask for it need not wait. */
	for (size_t i = 0; i < n; i++) {
		if (ops[i]->kind == CSM_OP_EPOCH)
			continue;
		op_finish(ops[i]);
		ops[i] = NULL; /* its owner's again */
	}
	r = store_root_counter_follow(s);
	for (size_t i = 0; i < n; i++) {
		if (ops[i] == NULL)
			continue;
		if (ops[i]->r == 0)
			ops[i]->r = r;
		op_finish(ops[i]);
	}
}

/* All that is queued, up to a group's size; an ACCEPT alone. Under the lock. */
static size_t batch_take(struct csm_store *s, struct csm_store_op *ops[static GROUP_OPS])
{
	size_t n = 0, bytes = 0;

	while (s->head != NULL && n < GROUP_OPS) {
		struct csm_store_op *op = s->head;
		size_t size = op->payload.n + op->key.priv.n + op->answer.n;

		if (n > 0 && (op->kind == CSM_OP_ACCEPT || bytes + size > GROUP_BYTES))
			break;
		s->head = op->next;
		if (s->head == NULL)
			s->tail = &s->head;
		s->queued--;
		ops[n++] = op;
		bytes += size;
		if (op->kind == CSM_OP_ACCEPT)
			break;
	}
	return n;
}

static void prune(struct csm_store *s)
{
	size_t n = 0;
	MDB_txn *txn;
	int r;

	do {
		if (mdb_txn_begin(s->env, NULL, 0, &txn) != 0)
			return;
		r = store_request_prune(s, txn, (uint64_t)time(NULL), PRUNE_ROWS, &n);
		if (r != 0 || n == 0)
			mdb_txn_abort(txn);
		else
			r = store_commit_err(s, mdb_txn_commit(txn));
	} while (r == 0 && n == PRUNE_ROWS);
}

/* What back ends remembered, in a group of its own: no operation fails for it. */
static int early_run(struct csm_store *s)
{
	struct group *g;
	int r;

	if ((r = group_begin(s, &g)) != 0)
		return r;
	if ((r = store_root_read(s, g->txn, &s->aead, &g->root)) == 0 &&
		(r = store_early_pins(s, g->txn, &g->root)) == 0 && (r = group_commit(g)) == 0)
		group_done(g, 1, false);
	group_free(g);
	store_early_done(s, r == 0);
	return r;
}

static void early_flush(struct csm_store *s, uint64_t now)
{
	bool some;

	pthread_mutex_lock(&s->mu);
	some = s->early != NULL && (s->early_new || now - s->early_tried >= RETRY_S);
	s->early_new = false;
	pthread_mutex_unlock(&s->mu);
	if (some)
		s->early_tried = early_run(s) == 0 ? 0 : now;
}

static void housekeeping(struct csm_store *s)
{
	uint64_t now = store_monotonic();

	if (csm_store_locked(s))
		return;
	early_flush(s, now);
	if (s->counter_behind && now - s->counter_tried >= RETRY_S)
		store_root_counter_follow(s);
	if (epoch_due(s, false) && group_run(s, NULL, 0, false) == 0)
		store_root_counter_follow(s);
	if (s->pruned == 0 || now - s->pruned >= PRUNE_S) {
		s->pruned = now;
		prune(s);
	}
}

/* When housekeeping has something to do next. */
static time_t next_due(const struct csm_store *s)
{
	uint64_t due = s->pruned + PRUNE_S;

	if (s->counter_behind && s->counter_tried + RETRY_S < due)
		due = s->counter_tried + RETRY_S;
	if (s->early_tried != 0 && s->early_tried + RETRY_S < due)
		due = s->early_tried + RETRY_S;
	if (s->epoch_wanted && !s->counter_behind && s->epoch_interval_s < due - s->epoch_raised)
		due = s->epoch_raised + s->epoch_interval_s;
	return (time_t)due;
}

static void *writer_main(void *arg)
{
	struct csm_store_op *ops[GROUP_OPS];
	struct csm_store *s = arg;
	size_t n;

	csm_lock_stack();
	housekeeping(s);
	for (;;) {
		struct timespec until = {.tv_sec = next_due(s) + 1};
		bool stop;
		int rc = 0;

		pthread_mutex_lock(&s->mu);
		while (s->head == NULL && !s->stopping && !s->early_new && rc == 0)
			rc = pthread_cond_timedwait(&s->wake, &s->mu, &until);
		gather(s);
		n = batch_take(s, ops);
		stop = s->stopping && n == 0;
		pthread_mutex_unlock(&s->mu);
		if (n > 0)
			batch_serve(s, ops, n);
		housekeeping(s);
		if (stop)
			break;
	}
	/* A clean stop raises the epoch: what is copied from now on is told from what was before. */
	if (!csm_store_locked(s) && group_run(s, NULL, 0, true) == 0)
		store_root_counter_follow(s);
	return NULL;
}

int store_writer_init(struct csm_store *s)
{
	pthread_condattr_t attr;
	int r = CSM_ESYSTEM;

	if (pthread_condattr_init(&attr) != 0)
		return r;
	if (pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0 && pthread_cond_init(&s->wake, &attr) == 0)
		r = 0;
	pthread_condattr_destroy(&attr);
	return r;
}

int csm_store_start(struct csm_store *s)
{
	int r;

	if (!s->ready || s->started)
		return CSM_ESTATE;
	r = csm_thread_start(&s->writer, writer_main, s);
	s->started = r == 0;
	return r;
}

void csm_store_stop(struct csm_store *s)
{
	struct csm_store_op *op;

	if (s == NULL || s->stopping)
		return;
	pthread_mutex_lock(&s->mu);
	s->stopping = true;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->mu);
	if (s->started)
		pthread_join(s->writer, NULL);
	/* Without a writer nothing was served. */
	while ((op = s->head) != NULL) {
		s->head = op->next;
		op->r = CSM_ESHUTDOWN;
		op_finish(op);
	}
}

void store_writer_free(struct csm_store *s)
{
	csm_store_stop(s);
	if (s->ready && !csm_store_locked(s))
		early_flush(s, store_monotonic());
	pthread_cond_destroy(&s->wake);
}

int csm_store_submit(struct csm_store *s, struct csm_store_op *op)
{
	int r = 0;

	op->next = NULL;
	pthread_mutex_lock(&s->mu);
	if (s->stopping)
		r = CSM_ESHUTDOWN;
	else if (csm_store_locked(s) && op->kind != CSM_OP_ACCEPT)
		r = CSM_ETAMPERED;
	else if (s->queued >= CSM_COMMIT_QUEUE_MAX)
		r = CSM_EBUSY;
	if (r == 0) {
		*s->tail = op;
		s->tail = &op->next;
		s->queued++;
		if (s->queued >= s->want)
			pthread_cond_signal(&s->wake);
	}
	pthread_mutex_unlock(&s->mu);
	return r;
}
