/* What the audit log is told, by whom and when: changes with their group, denials before their answer, uses as counts. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/svc/audit_internal.h"
#include "daemon/svc/log.h"
#include "daemon/svc/thread.h"
#include "libclient/base/lockmem.h"

#define DENIED_ALONE 10u   /* of one uid in a minute, a line each */
#define WAITING_MAX 4096u  /* lines of denials; meanwhile further ones are counted */
#define SIGN_S 3600      /* a checkpoint after so long, if there are lines */

/* ---- changes ---- */

struct events {
	const struct csm_audit_event *v;
	size_t n;
};

static int make_events(struct csm_audit *a, void *arg)
{
	const struct events *e = arg;
	int r = 0;

	for (size_t i = 0; r == 0 && i < e->n; i++)
		r = log_event(&a->f, &e->v[i]);
	return r;
}

int csm_audit_group(struct csm_audit *a, const struct csm_audit_event *events, size_t n, struct csm_buf *keep,
	struct csm_audit_mark *ret)
{
	struct events e = {events, n};
	struct csm_audit_mark mark = {0};
	struct audit_written w = {0};
	int r = audit_owes(a) ? audit_put(a, NULL, NULL, NULL) : 0;
	bool owes;

	if (r == 0 && n > 0)
		r = keep != NULL ? audit_append(a, make_events, &e, keep, false, &w) : audit_put(a, make_events, &e, &w);
	if (r != 0 && a->strict)
		return CSM_EUNAVAILABLE;
	owes = r != 0 && audit_owes(a);
	pthread_mutex_lock(&a->lock);
	if (r != 0)
		audit_lost(a, &a->lost_changes, n);
	/* The store does not name lines that are still to be taken back: a start knows them by that. */
	mark.seq = owes ? a->anchored : a->st.seq;
	memcpy(mark.head, owes ? a->anchored_head : a->st.head, CSM_CHAIN_HASH);
	pthread_mutex_unlock(&a->lock);
	if (r == 0 && n > 0) {
		mark = (struct csm_audit_mark){.seq = w.seq, .first = w.first, .last = w.seq, .kept = keep != NULL, .at = w.at};
		memcpy(mark.head, w.head, CSM_CHAIN_HASH);
	}
	*ret = mark;
	return 0;
}

void csm_audit_undone(struct csm_audit *a, uint64_t first, uint64_t last, const char *why)
{
	if (first == 0)
		return;
	pthread_mutex_lock(&a->file_lock);
	/* One is enough: no further change gets a line before this is out. */
	a->undone = (struct undone){first, last, why};
	pthread_mutex_unlock(&a->file_lock);
	if (audit_put(a, NULL, NULL, NULL) != 0)
		log_err("the audit log does not say yet that lines %llu to %llu were not committed", (unsigned long long)first,
			(unsigned long long)last);
}

void csm_audit_anchored(struct csm_audit *a, const struct csm_audit_mark *m)
{
	pthread_mutex_lock(&a->lock);
	a->anchored = m->seq;
	memcpy(a->anchored_head, m->head, CSM_CHAIN_HASH);
	pthread_mutex_unlock(&a->lock);
	if (!m->kept)
		return;
	pthread_mutex_lock(&a->file_lock);
	log_kept(&a->f, m->at);
	pthread_mutex_unlock(&a->file_lock);
	audit_durable(a, m->seq, m->head);
	if (!atomic_exchange(&a->unsynced, true)) {
		/* The thread may be asleep for a minute. */
		pthread_mutex_lock(&a->lock);
		pthread_cond_signal(&a->wake);
		pthread_mutex_unlock(&a->lock);
	}
}

uint64_t csm_audit_synced(struct csm_audit *a)
{
	uint64_t seq;

	pthread_mutex_lock(&a->file_lock);
	seq = a->f.synced;
	pthread_mutex_unlock(&a->file_lock);
	return seq;
}

bool csm_audit_behind(struct csm_audit *a)
{
	bool behind;

	pthread_mutex_lock(&a->lock);
	behind = a->st.seq > a->anchored;
	pthread_mutex_unlock(&a->lock);
	return behind;
}

/* ---- denials ---- */

bool csm_audit_denied_counted(struct csm_audit *a, uid_t uid)
{
	struct row *w;
	bool counted;

	pthread_mutex_lock(&a->lock);
	w = rows_get(&a->denied, "*", uid, NULL, CSM_STR(""));
	counted = w != NULL && (w->alone >= DENIED_ALONE || a->waiting >= WAITING_MAX);
	if (counted)
		w->n++;
	else if (w != NULL)
		w->alone++;
	pthread_mutex_unlock(&a->lock);
	return counted;
}

void csm_audit_submit(struct csm_audit *a, struct csm_audit_wait *w)
{
	w->next = NULL;
	pthread_mutex_lock(&a->lock);
	*a->tail = w;
	a->tail = &w->next;
	a->waiting++;
	pthread_cond_signal(&a->wake);
	pthread_mutex_unlock(&a->lock);
}

static int make_denied(struct csm_audit *a, void *arg)
{
	const struct csm_audit_wait *w = arg;
	int r = 0;

	for (size_t i = 0; r == 0 && i < AUDIT_BATCH && w != NULL; i++, w = w->next)
		r = log_event(&a->f, &w->event);
	return r;
}

/* As many as are made together, with one sync; the first of the others is returned. */
static struct csm_audit_wait *serve_some(struct csm_audit *a, struct csm_audit_wait *w)
{
	int r = audit_put(a, make_denied, w, NULL);
	struct csm_audit_wait *next;
	size_t n = 0;

	for (; n < AUDIT_BATCH && w != NULL; n++, w = next) {
		next = w->next;
		w->r = r != 0 && a->strict ? CSM_EUNAVAILABLE : 0;
		w->done(w);
	}
	pthread_mutex_lock(&a->lock);
	a->waiting -= n;
	/* In strict mode the answer was another one: nothing was denied that the log does not tell. */
	if (r != 0 && !a->strict)
		audit_lost(a, &a->lost_denied, n);
	pthread_mutex_unlock(&a->lock);
	return w;
}

/* All that wait; those that come meanwhile wait for the next time. */
void audit_serve_waiting(struct csm_audit *a)
{
	struct csm_audit_wait *w;

	pthread_mutex_lock(&a->lock);
	w = a->head;
	a->head = NULL;
	a->tail = &a->head;
	pthread_mutex_unlock(&a->lock);
	while (w != NULL)
		w = serve_some(a, w);
}

/* ---- counted lines ---- */

struct row_batch {
	const char *event;
	const struct rows *rows;
	size_t bucket; /* up to this one, when it is made */
};

static int make_rows(struct csm_audit *a, void *arg)
{
	struct row_batch *b = arg;
	size_t n = 0;
	int r = 0;

	for (; b->bucket < ROW_BUCKETS && n < AUDIT_BATCH; b->bucket++)
		for (const struct row *w = b->rows->buckets[b->bucket]; r == 0 && w != NULL; w = w->next, n++)
			r = log_count(&a->f, b->event, w);
	return r;
}

/* What cannot be written stays counted. */
static void write_rows(struct csm_audit *a, const char *event, struct rows *rows)
{
	struct row_batch b = {.event = event, .rows = rows};

	while (rows->n > 0 && audit_put(a, make_rows, &b, NULL) == 0)
		rows_drop(rows, b.bucket);
}

void audit_write_counted(struct csm_audit *a)
{
	write_rows(a, "use", &a->counted);
	write_rows(a, "denied", &a->refused);
}

/* The minute is over: what its threads have counted is taken over. */
void audit_collect(struct csm_audit *a)
{
	struct rows *taken = calloc(1, sizeof(*taken));

	/* Without memory they go on counting. */
	if (taken == NULL)
		return;
	pthread_mutex_lock(&a->lock);
	rows_merge(&a->counted, &a->left);
	for (struct csm_audit_uses *u = a->uses; u != NULL; u = u->next) {
		pthread_mutex_lock(&u->lock);
		rows_swap(taken, &u->rows);
		pthread_mutex_unlock(&u->lock);
		rows_merge(&a->counted, taken);
	}
	rows_swap(taken, &a->denied);
	pthread_mutex_unlock(&a->lock);
	rows_drop_empty(taken); /* all of them have had lines of their own */
	rows_merge(&a->refused, taken);
	free(taken);
}

int audit_make_checkpoint(struct csm_audit *a, void *arg)
{
	(void)arg;
	return a->has_signer ? log_checkpoint(&a->f, &a->signer) : 0;
}

static bool checkpoint_due(struct csm_audit *a)
{
	bool due;

	pthread_mutex_lock(&a->file_lock);
	due = a->has_signer && a->f.seq > a->f.signed_seq && time(NULL) - a->f.signed_at >= SIGN_S;
	pthread_mutex_unlock(&a->file_lock);
	return due;
}

static bool gap_to_tell(struct csm_audit *a)
{
	bool some;

	pthread_mutex_lock(&a->lock);
	some = a->failing || a->lost_since != 0;
	pthread_mutex_unlock(&a->lock);
	return some;
}

void csm_audit_sync(struct csm_audit *a)
{
	if (atomic_exchange(&a->unsynced, false) && audit_put(a, NULL, NULL, NULL) != 0)
		a->unsynced = true;
}

void csm_audit_tick(struct csm_audit *a)
{
	time_t minute = time(NULL) / 60;

	audit_serve_waiting(a);
	/* Kept lines: the file follows within a second. */
	csm_audit_sync(a);
	if (minute != a->minute) {
		a->minute = minute;
		audit_collect(a);
	}
	if (gap_to_tell(a) && audit_put(a, NULL, NULL, NULL) != 0)
		return;
	audit_write_counted(a);
	audit_write_witness(a);
	if (checkpoint_due(a) && audit_put(a, audit_make_checkpoint, NULL, NULL) != 0)
		log_err("the audit log has no checkpoint: %s", strerror(errno));
}

/* ---- the thread ---- */

/* Under the lock: sleep until there is something to do. */
static void await_work(struct csm_audit *a)
{
	struct timespec until, minute;
	int rc = 0;

	clock_gettime(CLOCK_MONOTONIC, &minute);
	until = minute;
	minute.tv_sec += 60 - time(NULL) % 60;
	until.tv_sec += 1;
	while (a->head == NULL && !a->stopping && !a->witness.waiting && rc == 0)
		rc = pthread_cond_timedwait(&a->wake, &a->lock, a->failing || a->unsynced ? &until : &minute);
}

static void *writer_main(void *arg)
{
	struct csm_audit *a = arg;
	bool stop = false;

	pthread_setname_np(pthread_self(), "audit");
	csm_lock_stack(); /* checkpoints are signed on it */
	while (!stop) {
		pthread_mutex_lock(&a->lock);
		await_work(a);
		stop = a->stopping;
		pthread_mutex_unlock(&a->lock);
		csm_audit_tick(a);
	}
	return NULL;
}

int csm_audit_start(struct csm_audit *a)
{
	int r = csm_thread_start(&a->thread, writer_main, a);

	a->started = r == 0;
	return r;
}

/* ---- the state of it ---- */

void csm_audit_status(struct csm_audit *a, struct csm_audit_status *ret)
{
	pthread_mutex_lock(&a->lock);
	*ret = a->st;
	ret->failing = a->failing;
	ret->lost = a->lost_changes + a->lost_denied;
	pthread_mutex_unlock(&a->lock);
	ret->anchored = a->anchored;
}

bool csm_audit_failing(struct csm_audit *a)
{
	return a->failing;
}

bool csm_audit_refuses(struct csm_audit *a)
{
	return a->strict && a->failing;
}
