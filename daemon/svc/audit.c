/* The audit log's life: who may write when, what is durable when, and what happens when it cannot be written. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "daemon/svc/audit_internal.h"
#include "daemon/svc/log.h"
#include "libclient/base/lockmem.h"

#define DENIED_ALONE 10u /* of one uid in a minute, a line each */
#define MAX_SIZE (64u * 1024u * 1024u)
#define MAX_FILES 16u
#define BATCH 256u
#define LOOSE_MAX (8u * 1024u * 1024u)
#define SIGN_LINES 1000u /* a checkpoint after so many lines, */
#define SIGN_S 3600      /* or after so long, if there are lines */

/* ---- writing, durably ---- */

/* Makes lines between log_begin and log_write. */
typedef int make_fn(struct csm_audit *a, void *arg);

static const struct csm_audit_signer *signer_of(const struct csm_audit *a)
{
	return a->has_signer ? &a->signer : NULL;
}

/* What could not be written, and what was found at the start, comes before anything else. */
static int make_told(struct csm_audit *a, uint64_t changes, uint64_t denied, time_t since)
{
	char body[128];
	int r = 0;

	if (a->repaired > 0) {
		snprintf(body, sizeof(body), ",\"bytes\":%llu", (unsigned long long)a->repaired);
		r = log_line(&a->f, "repaired", body);
	}
	if (r == 0 && since != 0) {
		/* Nothing may be missing: in strict mode what could not be told was not done. */
		snprintf(body, sizeof(body), ",\"since\":%lld,\"changes\":%llu,\"denied\":%llu", (long long)since,
			(unsigned long long)changes, (unsigned long long)denied);
		r = log_line(&a->f, "gap", body);
	}
	return r;
}

/* Under the file's lock: all lines of one call, or none. */
static int write_lines(struct csm_audit *a, make_fn *make, void *arg, uint64_t *first)
{
	uint64_t changes, denied;
	time_t since;
	int r;

	pthread_mutex_lock(&a->lock);
	changes = a->lost_changes;
	denied = a->lost_denied;
	since = a->lost_since;
	pthread_mutex_unlock(&a->lock);
	if ((r = log_room(&a->f, signer_of(a))) != 0)
		return r;
	log_begin(&a->f);
	if ((r = make_told(a, changes, denied, since)) != 0)
		return r;
	*first = a->f.out_seq + 1;
	if (make != NULL && (r = make(a, arg)) != 0)
		return r;
	if (a->has_signer && a->f.out_seq >= a->f.signed_seq + SIGN_LINES && (r = log_checkpoint(&a->f, &a->signer)) != 0)
		return r;
	if ((r = log_write(&a->f)) != 0)
		return r;
	a->repaired = 0;
	pthread_mutex_lock(&a->lock);
	a->lost_changes -= changes;
	a->lost_denied -= denied;
	if (a->lost_changes + a->lost_denied == 0)
		a->lost_since = 0;
	pthread_mutex_unlock(&a->lock);
	return 0;
}

static void now_failing(struct csm_audit *a, int e)
{
	pthread_mutex_lock(&a->lock);
	if (!a->failing)
		log_err("the audit log cannot be written: %s", strerror(e));
	if (a->lost_since == 0)
		a->lost_since = time(NULL);
	a->st.error = e;
	a->failing = true;
	pthread_mutex_unlock(&a->lock);
}

static void now_durable(struct csm_audit *a, uint64_t seq, const uint8_t *head)
{
	pthread_mutex_lock(&a->lock);
	if (a->failing)
		log_info("the audit log can be written again");
	a->failing = false;
	if (seq > a->st.seq) {
		a->st.lines += seq - a->st.seq;
		a->st.seq = seq;
		memcpy(a->st.head, head, CSM_CHAIN_HASH);
	}
	pthread_mutex_unlock(&a->lock);
}

static void lost(struct csm_audit *a, uint64_t *counter, uint64_t n)
{
	if (n == 0)
		return;
	*counter += n;
	if (a->lost_since == 0)
		a->lost_since = time(NULL);
}

/* What was written by one call, and all before it. */
struct written {
	uint64_t first, seq;
	uint64_t at; /* bytes of all that were written */
	uint8_t head[CSM_CHAIN_HASH];
};

/* Under the file's lock: these need not be held any more. */
static void not_loose(struct log_file *f, uint64_t at)
{
	uint64_t n = at > f->loose_at ? at - f->loose_at : 0;

	if (n > f->loose.len)
		n = f->loose.len;
	csm_buf_consume(&f->loose, (size_t)n);
	f->loose_at += n;
}

/* Written, not synced. keep: gets all lines that are not, NULL if that is not wanted; fd: to sync, likewise. */
static int append_lines(struct csm_audit *a, make_fn *make, void *arg, struct csm_buf *keep, int *fd, struct written *ret)
{
	struct log_file *f = &a->f;
	int r, e;

	pthread_mutex_lock(&a->file_lock);
	errno = 0;
	r = write_lines(a, make, arg, &ret->first);
	ret->seq = f->seq;
	ret->at = f->loose_at + f->loose.len;
	memcpy(ret->head, f->head, CSM_CHAIN_HASH);
	if (r == 0 && keep != NULL)
		r = csm_buf_put(keep, csm_buf_ptr(&f->loose), f->loose.len);
	if (r == 0 && fd != NULL && (*fd = fcntl(f->fd, F_DUPFD_CLOEXEC, 0)) < 0)
		r = CSM_ESYSTEM;
	e = errno;
	pthread_mutex_unlock(&a->file_lock);
	if (r != 0)
		now_failing(a, e != 0 ? e : ENOMEM);
	return r;
}

/* The sync is not under the lock: others may write meanwhile, and share it. */
static int sync_lines(struct csm_audit *a, int fd, const struct written *w)
{
	int r = fdatasync(fd), e = errno;

	close(fd);
	if (r != 0) {
		now_failing(a, e);
		return CSM_ESYSTEM;
	}
	pthread_mutex_lock(&a->file_lock);
	not_loose(&a->f, w->at);
	if (w->seq > a->f.synced)
		a->f.synced = w->seq;
	pthread_mutex_unlock(&a->file_lock);
	now_durable(a, w->seq, w->head);
	return 0;
}

/* Written and synced when it returns 0. */
static int put_lines(struct csm_audit *a, make_fn *make, void *arg, struct written *ret)
{
	struct written w;
	int fd, r;

	if ((r = append_lines(a, make, arg, NULL, &fd, &w)) != 0 || (r = sync_lines(a, fd, &w)) != 0)
		return r;
	if (ret != NULL)
		*ret = w;
	return 0;
}

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
	struct written w = {0};
	int r = 0;

	if (n > 0)
		r = keep != NULL ? append_lines(a, make_events, &e, keep, NULL, &w) : put_lines(a, make_events, &e, &w);
	if (r != 0 && a->strict)
		return CSM_EUNAVAILABLE;
	pthread_mutex_lock(&a->lock);
	if (r != 0)
		lost(a, &a->lost_changes, n);
	mark.seq = a->st.seq;
	memcpy(mark.head, a->st.head, CSM_CHAIN_HASH);
	pthread_mutex_unlock(&a->lock);
	if (r == 0 && n > 0) {
		mark = (struct csm_audit_mark){.seq = w.seq, .first = w.first, .last = w.seq, .kept = keep != NULL, .at = w.at};
		memcpy(mark.head, w.head, CSM_CHAIN_HASH);
	}
	*ret = mark;
	return 0;
}

struct undone {
	uint64_t first, last;
	const char *why;
};

static int make_undone(struct csm_audit *a, void *arg)
{
	const struct undone *u = arg;
	char body[160];

	snprintf(body, sizeof(body), ",\"first\":%llu,\"last\":%llu,\"result\":\"%s\"", (unsigned long long)u->first,
		(unsigned long long)u->last, u->why);
	return log_line(&a->f, "undone", body);
}

void csm_audit_undone(struct csm_audit *a, uint64_t first, uint64_t last, const char *why)
{
	struct undone u = {first, last, why};

	/* A failure is seen in status; the store's head, too, says that these lines were not committed. */
	if (first != 0 && put_lines(a, make_undone, &u, NULL) != 0)
		log_err("the audit log does not say that lines %llu to %llu were not committed", (unsigned long long)first,
			(unsigned long long)last);
}

void csm_audit_anchored(struct csm_audit *a, const struct csm_audit_mark *m)
{
	a->anchored = m->seq;
	if (!m->kept)
		return;
	pthread_mutex_lock(&a->file_lock);
	not_loose(&a->f, m->at);
	pthread_mutex_unlock(&a->file_lock);
	now_durable(a, m->seq, m->head);
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
	w = rows_get(&a->denied, "*", uid, CSM_STR(""));
	if (w != NULL)
		w->n++;
	counted = w != NULL && w->n > DENIED_ALONE;
	pthread_mutex_unlock(&a->lock);
	return counted;
}

void csm_audit_submit(struct csm_audit *a, struct csm_audit_wait *w)
{
	w->next = NULL;
	pthread_mutex_lock(&a->lock);
	*a->tail = w;
	a->tail = &w->next;
	pthread_cond_signal(&a->wake);
	pthread_mutex_unlock(&a->lock);
}

static int make_denied(struct csm_audit *a, void *arg)
{
	int r = 0;

	for (const struct csm_audit_wait *w = arg; r == 0 && w != NULL; w = w->next)
		r = log_event(&a->f, &w->event);
	return r;
}

/* All that wait, with one sync. */
static void serve_waiting(struct csm_audit *a)
{
	struct csm_audit_wait *w, *next;
	uint64_t n = 0;
	int r;

	pthread_mutex_lock(&a->lock);
	w = a->head;
	a->head = NULL;
	a->tail = &a->head;
	pthread_mutex_unlock(&a->lock);
	if (w == NULL)
		return;
	r = put_lines(a, make_denied, w, NULL);
	for (; w != NULL; w = next) {
		next = w->next;
		w->r = r != 0 && a->strict ? CSM_EUNAVAILABLE : 0;
		n += r != 0;
		w->done(w);
	}
	pthread_mutex_lock(&a->lock);
	lost(a, &a->lost_denied, n);
	pthread_mutex_unlock(&a->lock);
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

	for (; b->bucket < ROW_BUCKETS && n < BATCH; b->bucket++)
		for (const struct row *w = b->rows->buckets[b->bucket]; r == 0 && w != NULL; w = w->next, n++)
			r = log_count(&a->f, b->event, w);
	return r;
}

/* What cannot be written stays counted. */
static void write_rows(struct csm_audit *a, const char *event, struct rows *rows)
{
	struct row_batch b = {.event = event, .rows = rows};

	while (rows->n > 0 && put_lines(a, make_rows, &b, NULL) == 0)
		rows_drop(rows, b.bucket);
}

/* The minute is over: what its threads have counted is taken over. */
static void collect(struct csm_audit *a)
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
	rows_less(taken, DENIED_ALONE); /* these have had lines of their own */
	rows_merge(&a->refused, taken);
	free(taken);
}

static int make_checkpoint(struct csm_audit *a, void *arg)
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

void csm_audit_tick(struct csm_audit *a)
{
	time_t minute = time(NULL) / 60;

	serve_waiting(a);
	/* Kept lines: the file follows within a second. */
	if (atomic_exchange(&a->unsynced, false) && put_lines(a, NULL, NULL, NULL) != 0)
		a->unsynced = true;
	if (minute != a->minute) {
		a->minute = minute;
		collect(a);
	}
	if (gap_to_tell(a) && put_lines(a, NULL, NULL, NULL) != 0)
		return;
	write_rows(a, "use", &a->counted);
	write_rows(a, "denied", &a->refused);
	if (checkpoint_due(a) && put_lines(a, make_checkpoint, NULL, NULL) != 0)
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
	while (a->head == NULL && !a->stopping && rc == 0)
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
	sigset_t all, before;
	int rc;

	/* Signals are for the main thread. */
	sigfillset(&all);
	if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0)
		return CSM_ESYSTEM;
	rc = pthread_create(&a->thread, NULL, writer_main, a);
	if (pthread_sigmask(SIG_SETMASK, &before, NULL) != 0 || rc != 0)
		return CSM_ESYSTEM;
	a->started = true;
	return 0;
}

static int make_stop(struct csm_audit *a, void *arg)
{
	int r = log_line(&a->f, "stop", "");

	return r != 0 ? r : make_checkpoint(a, arg);
}

void csm_audit_stop(struct csm_audit *a)
{
	if (a == NULL || a->stopped)
		return;
	pthread_mutex_lock(&a->lock);
	a->stopping = true;
	pthread_cond_signal(&a->wake);
	pthread_mutex_unlock(&a->lock);
	if (a->started)
		pthread_join(a->thread, NULL);
	serve_waiting(a);
	collect(a);
	write_rows(a, "use", &a->counted);
	write_rows(a, "denied", &a->refused);
	if (a->has_signer && put_lines(a, make_stop, NULL, NULL) != 0)
		log_err("the audit log's last line could not be written");
	a->stopped = true;
	pthread_mutex_lock(&a->file_lock);
	a->has_signer = false;
	pthread_mutex_unlock(&a->file_lock);
}

/* ---- open, attach, close ---- */

static int open_folder(struct csm_audit *a, const char *dir)
{
	if (mkdir(dir, 0700) != 0 && errno != EEXIST)
		return CSM_ESYSTEM;
	a->f.dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	return a->f.dir < 0 ? CSM_ESYSTEM : log_open(&a->f, &a->repaired);
}

int csm_audit_open(const struct csm_audit_options *opt, struct csm_audit **ret)
{
	struct csm_audit *a = calloc(1, sizeof(*a));
	pthread_condattr_t attr;
	int r;

	if (a == NULL)
		return CSM_ENOMEM;
	rows_init();
	a->strict = opt->strict;
	a->tail = &a->head;
	a->f.dir = a->f.fd = -1;
	a->f.max_size = opt->max_size > 0 ? opt->max_size : MAX_SIZE;
	a->f.max_files = opt->max_files > 0 ? opt->max_files : MAX_FILES;
	a->minute = time(NULL) / 60;
	csm_buf_init(&a->f.out, 2 * BATCH * CSM_CHAIN_LINE_MAX, false);
	csm_buf_init(&a->f.loose, LOOSE_MAX, false);
	pthread_mutex_init(&a->lock, NULL);
	pthread_mutex_init(&a->file_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&a->wake, &attr);
	pthread_condattr_destroy(&attr);
	if ((r = open_folder(a, opt->dir)) != 0) {
		csm_audit_close(a);
		return r;
	}
	a->st.seq = a->f.seq;
	memcpy(a->st.head, a->f.head, CSM_CHAIN_HASH);
	*ret = a;
	return 0;
}

struct start {
	uint64_t anchor;
	bool broken;
	uint64_t seq; /* for the line of the break: behind this one, */
	const uint8_t *prev;
	char why[160];
};

static int make_start(struct csm_audit *a, void *arg)
{
	const struct start *s = arg;
	char body[64];
	int r = 0;

	if (s->broken)
		r = log_break(&a->f, s->seq, s->prev, s->why);
	snprintf(body, sizeof(body), ",\"version\":\"%s\",\"anchor\":%llu", CSM_VERSION, (unsigned long long)s->anchor);
	if (r == 0)
		r = log_line(&a->f, "start", body);
	return r != 0 ? r : make_checkpoint(a, NULL);
}

/* Under the file's lock: is the log as it was left? */
static void compare(struct csm_audit *a, uint64_t seq, const uint8_t *head, struct start *s)
{
	struct log_file *f = &a->f;
	int r = seq == 0 ? 0 : log_find_line(f, seq, head);

	*s = (struct start){.anchor = seq, .seq = f->seq, .prev = f->head};
	if (f->first == 0 && (f->seq == 0 || r != 0)) {
		/* All of it was moved away, or the last file: what is written follows what the store names. */
		if (seq > f->seq) {
			f->seq = seq;
			memcpy(f->head, head, CSM_CHAIN_HASH);
		}
		return;
	}
	if (r != 0) {
		snprintf(s->why, sizeof(s->why), "line %llu, which the store names last, is %s", (unsigned long long)seq,
			r == CSM_ETAMPERED ? "another one" : "not there");
		s->prev = head;
		s->seq = seq > f->seq ? seq : f->seq;
	} else if (f->damaged) {
		snprintf(s->why, sizeof(s->why), "the last lines do not follow from those before them");
	}
	s->broken = r != 0 || f->damaged;
}

/* One line of the store's behind the last one of the file. */
static int restore_line(struct csm_audit *a, struct csm_str text)
{
	struct log_file *f = &a->f;
	struct csm_chain_line l;
	int r;

	if (csm_chain_parse(text.p, text.n, &l) != 0)
		return CSM_ETAMPERED;
	if (l.seq <= f->valid_seq)
		return 0;
	if (f->fd < 0 || l.seq != f->valid_seq + 1 || !csm_chain_follows(&l, f->head))
		return CSM_ENOT_FOUND;
	/* What a crash has left behind the end of the chain was never durable. */
	if (f->size > f->valid) {
		if (ftruncate(f->fd, (off_t)f->valid) != 0)
			return CSM_ESYSTEM;
		a->repaired += f->size - f->valid;
		f->size = f->valid;
		f->damaged = false;
	}
	csm_buf_reset(&f->out);
	f->out_seq = l.seq;
	f->out_signed = 0;
	memcpy(f->out_head, l.hash, CSM_CHAIN_HASH);
	if (csm_buf_put(&f->out, text.p, text.n) != 0 || csm_buf_put(&f->out, "\n", 1) != 0)
		return CSM_ENOMEM;
	if ((r = log_write(f)) != 0)
		return r;
	f->valid = f->size;
	f->valid_seq = l.seq;
	a->restored++;
	return 0;
}

int csm_audit_restore(struct csm_audit *a, struct csm_bin lines)
{
	const char *p = (const char *)lines.p, *all = p + lines.n, *end;
	int r = 0;

	pthread_mutex_lock(&a->file_lock);
	for (; r == 0 && p < all; p = end + 1) {
		end = memchr(p, '\n', (size_t)(all - p));
		if (end == NULL)
			r = CSM_ETAMPERED;
		else
			r = restore_line(a, (struct csm_str){p, (size_t)(end - p)});
		if (r != 0)
			break;
	}
	pthread_mutex_unlock(&a->file_lock);
	return r;
}

void csm_audit_attach(struct csm_audit *a, uint64_t seq, const uint8_t head[static CSM_CHAIN_HASH],
	const struct csm_audit_signer *signer)
{
	struct start s;

	pthread_mutex_lock(&a->file_lock);
	compare(a, seq, head, &s);
	a->signer = *signer;
	a->has_signer = true;
	pthread_mutex_unlock(&a->file_lock);
	pthread_mutex_lock(&a->lock);
	a->st.broken = s.broken;
	a->st.has_key = true;
	memcpy(a->st.key, signer->key, CSM_CHAIN_KEY);
	pthread_mutex_unlock(&a->lock);
	a->anchored = seq;
	if (a->restored > 0)
		log_info("the audit log got %llu lines back that a crash had kept from it", (unsigned long long)a->restored);
	if (s.broken)
		log_err("the audit log was changed behind csmd: %s", s.why);
	if (put_lines(a, make_start, &s, NULL) != 0)
		log_err("the line of the start is not in the audit log");
}

void csm_audit_close(struct csm_audit *a)
{
	if (a == NULL)
		return;
	csm_audit_stop(a);
	if (a->f.fd >= 0)
		close(a->f.fd);
	if (a->f.dir >= 0)
		close(a->f.dir);
	rows_clear(&a->denied);
	rows_clear(&a->left);
	rows_clear(&a->counted);
	rows_clear(&a->refused);
	csm_buf_free(&a->f.out);
	csm_buf_free(&a->f.loose);
	pthread_cond_destroy(&a->wake);
	pthread_mutex_destroy(&a->file_lock);
	pthread_mutex_destroy(&a->lock);
	free(a);
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
