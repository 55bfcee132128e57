/* The writer: one thread that takes what is queued in groups (store_group.c), accepts a store that was changed, and does what is
 * due from time to time. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/svc/store_internal.h"
#include "daemon/svc/thread.h"

#define RETRY_S 10u
#define PRUNE_S 600u
#define PRUNE_ROWS 4096u
#define IDLE_NS 20000000u     /* with nothing to do for so long, LMDB takes what the journal has */
#define JOURNAL_NS 500000000u /* and after so long in any case */
#define STUCK_NS 1000000000u

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
	return (r = store_tell(g, &op, 1, true)) != 0 ? r : store_group_commit(g);
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
	if (removed == NULL || none == NULL || (r = csm_journal_erase(&s->journal)) != 0 || (r = store_group_begin(s, &g)) != 0)
		goto out;
	s->changes.on = false; /* they may be many, and LMDB has them at once */
	if ((r = accept_scan(g, op, removed)) != 0)
		goto out;
	g->keks_gone = true;
	s->schema = STORE_SCHEMA;
	store_early_done(s, true);
	store_group_done(g, 1, true);
	pthread_mutex_lock(&s->mu);
	s->removed = removed;
	s->damaged = none;
	pthread_mutex_unlock(&s->mu);
	atomic_store_explicit(&s->locked, false, memory_order_release);
	store_root_counter_follow(s);
out:
	store_group_free(g);
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
	uint64_t took = store_monotonic_ns() - began;

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
	ns = store_monotonic_ns() + s->commit_ns / 4;
	until = (struct timespec){(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
	s->want = s->expected;
	while (s->queued < s->want && !s->stopping && rc == 0)
		rc = pthread_cond_timedwait(&s->wake, &s->mu, &until);
	s->want = 1;
}

static void batch_serve(struct csm_store *s, struct csm_store_op **ops, size_t n)
{
	uint64_t began = store_monotonic_ns();
	int r;

	if (ops[0]->kind == CSM_OP_ACCEPT) {
		ops[0]->replayed = false;
		ops[0]->r = accept_run(s, ops[0]);
		op_finish(ops[0]);
		return;
	}
	store_batch_run(s, ops, n);
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
		if (store_checkpoint(s) != 0 || mdb_txn_begin(s->env, NULL, 0, &txn) != 0)
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

	if ((r = store_checkpoint(s)) != 0 || (r = store_group_begin(s, &g)) != 0)
		return r;
	if ((r = store_root_read(s, g->txn, &s->aead, &g->root)) == 0 &&
		(r = store_early_pins(s, g->txn, &g->root)) == 0 && (r = store_group_commit(g)) == 0)
		store_group_done(g, 1, false);
	store_group_free(g);
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
	if (store_epoch_due(s, false) && store_group_run(s, NULL, 0, false) == 0)
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

/* LMDB takes what the journal has when that is much, or old, or when there is nothing else to do. */
static void journal_flush(struct csm_store *s, bool idle)
{
	const struct csm_journal *j = &s->journal;

	if (j->used >= JOURNAL_FULL || (j->entries > 0 && !s->keep_journal &&
		(idle || store_monotonic_ns() - s->journal_since >= JOURNAL_NS)))
		(void)store_checkpoint(s);
}

static struct timespec wait_until(const struct csm_store *s)
{
	uint64_t ns = store_monotonic_ns() + (s->stuck != 0 ? STUCK_NS : IDLE_NS);

	if (s->journal.entries == 0)
		return (struct timespec){.tv_sec = next_due(s) + 1};
	return (struct timespec){(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
}

/* A clean stop raises the epoch: what is copied from now on is told from what was before. */
static void finish(struct csm_store *s)
{
	if (csm_store_locked(s))
		return;
	if (store_group_run(s, NULL, 0, true) == 0)
		store_root_counter_follow(s);
	if (store_checkpoint(s) == 0)
		(void)csm_journal_erase(&s->journal); /* it tells nothing that LMDB does not have */
}

static void *writer_main(void *arg)
{
	struct csm_store_op *ops[GROUP_OPS];
	struct csm_store *s = arg;
	size_t n;

	csm_lock_stack();
	housekeeping(s);
	for (;;) {
		struct timespec until = wait_until(s);
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
		journal_flush(s, n == 0);
		housekeeping(s);
		if (stop)
			break;
	}
	finish(s);
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

int csm_store_submit_all(struct csm_store *s, struct csm_store_op *first, size_t n)
{
	int r = 0;

	pthread_mutex_lock(&s->mu);
	if (s->stopping)
		r = CSM_ESHUTDOWN;
	else if (csm_store_locked(s) && first->kind != CSM_OP_ACCEPT)
		r = CSM_ETAMPERED;
	else if (n > CSM_COMMIT_QUEUE_MAX || s->queued > CSM_COMMIT_QUEUE_MAX - n)
		r = CSM_EBUSY;
	if (r == 0) {
		*s->tail = first;
		while (*s->tail != NULL)
			s->tail = &(*s->tail)->next;
		s->queued += n;
		if (s->queued >= s->want)
			pthread_cond_signal(&s->wake);
	}
	pthread_mutex_unlock(&s->mu);
	return r;
}

int csm_store_submit(struct csm_store *s, struct csm_store_op *op)
{
	op->next = NULL;
	return csm_store_submit_all(s, op, 1);
}
