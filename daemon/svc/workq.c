#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <time.h>
#include "daemon/svc/workq.h"
#include "libclient/base/lockmem.h"

#define USER_BUCKETS 64u

/* One user's waiting jobs; among the turns while there are any. */
struct lane {
	uint32_t user;
	size_t n;
	struct csm_job *head, **tail;
	TAILQ_ENTRY(lane) turn;
	struct lane *next_hash;
};

struct csm_workq {
	struct csm_workq_options opt;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	pthread_t *threads;
	unsigned started;
	bool stopping;
	size_t depth, held;      /* held: of it, jobs of kinds that have all the threads that they may have */
	TAILQ_HEAD(lanes, lane) turns; /* the first is served next */
	struct lane *hash[USER_BUCKETS];
};

static struct lane *lane_of(struct csm_workq *q, uint32_t user)
{
	struct lane **slot = &q->hash[user % USER_BUCKETS], *l;

	for (l = *slot; l != NULL; l = l->next_hash)
		if (l->user == user)
			return l;
	l = calloc(1, sizeof(*l));
	if (l == NULL)
		return NULL;
	l->user = user;
	l->tail = &l->head;
	l->next_hash = *slot;
	*slot = l;
	return l;
}

static void lane_free(struct csm_workq *q, struct lane *l)
{
	struct lane **slot = &q->hash[l->user % USER_BUCKETS];

	while (*slot != l)
		slot = &(*slot)->next_hash;
	*slot = l->next_hash;
	free(l);
}

static bool is_full(const struct csm_job_kind *k)
{
	return k != NULL && k->busy >= k->busy_max;
}

/* The first job of the lane that may be taken now; only: of that kind. */
static struct csm_job **job_at(struct lane *l, const struct csm_job_kind *only)
{
	struct csm_job **at = &l->head;

	while (*at != NULL && (only != NULL ? (*at)->kind != only : is_full((*at)->kind)))
		at = &(*at)->next;
	return at;
}

/* The lane moves to the end of the turns, or goes when it is empty. */
static struct csm_job *lane_take(struct csm_workq *q, struct lane *l, struct csm_job **at)
{
	struct csm_job *job = *at;

	*at = job->next;
	if (*at == NULL)
		l->tail = at;
	l->n--;
	q->depth--;
	if (job->kind != NULL)
		job->kind->waiting--;
	TAILQ_REMOVE(&q->turns, l, turn);
	if (l->n > 0)
		TAILQ_INSERT_TAIL(&q->turns, l, turn);
	else
		lane_free(q, l);
	return job;
}

/* The next job in turn; NULL: none. */
static struct csm_job *take(struct csm_workq *q, const struct csm_job_kind *only)
{
	struct csm_job **at;
	struct lane *l;

	TAILQ_FOREACH(l, &q->turns, turn)
		if (*(at = job_at(l, only)) != NULL)
			return lane_take(q, l, at);
	return NULL;
}

/* As many of its kind as wait, in turn; the thread is at them from now on. */
static size_t take_kind(struct csm_workq *q, struct csm_job *first, struct csm_job *jobs[static CSM_JOBS_MAX])
{
	struct csm_job_kind *k = first->kind;
	size_t n = 1;

	jobs[0] = first;
	while (k->waiting > 0 && n < CSM_JOBS_MAX)
		jobs[n++] = take(q, k);
	k->busy++;
	k->called = k->waiting == 0 || k->called == 0 ? 0 : k->called - 1;
	if (is_full(k))
		q->held += k->waiting;
	return n;
}

static void kind_done(struct csm_workq *q, struct csm_job_kind *k)
{
	if (is_full(k))
		q->held -= k->waiting;
	k->busy--;
}

/* A thread for what waits, unless those that are on their way will take it all. */
static void call_thread(struct csm_workq *q, struct csm_job_kind *k)
{
	if (k == NULL || k->busy + k->called >= k->busy_max || k->waiting <= (size_t)k->called * CSM_JOBS_MAX)
		return;
	k->called++;
	pthread_cond_signal(&q->wake);
}

static bool has_work(const struct csm_workq *q)
{
	return q->depth > q->held;
}

/* Wait for work. False: time to end. Sets *idle when idle_ms passed without any. */
static bool wait_work(struct csm_workq *q, bool may_idle, bool *idle)
{
	struct timespec until;

	*idle = false;
	if (may_idle && q->opt.idle != NULL) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += (long)q->opt.idle_ms * 1000000L;
		until.tv_sec += until.tv_nsec / 1000000000L;
		until.tv_nsec %= 1000000000L;
		while (!has_work(q) && !q->stopping)
			if (pthread_cond_timedwait(&q->wake, &q->lock, &until) == ETIMEDOUT) {
				*idle = !has_work(q);
				break;
			}
		return has_work(q) || !q->stopping;
	}
	while (!has_work(q) && !q->stopping)
		pthread_cond_wait(&q->wake, &q->lock);
	return has_work(q);
}

/* Under the lock, which is given back meanwhile. last: the kind that this thread was at before, as whose jobs may have gathered
 * meanwhile; what it is at now is told. What it leaves is for another thread: whoever was woken for a job may have taken a kind's that
 * came before it. */
static struct csm_job_kind *run_next(struct csm_workq *q, const struct csm_job_kind *last)
{
	struct csm_job *jobs[CSM_JOBS_MAX], *job = take(q, NULL);
	struct csm_job_kind *k = job->kind;
	size_t n = k != NULL ? take_kind(q, job, jobs) : 1;

	if ((k != NULL || last != NULL) && has_work(q))
		pthread_cond_signal(&q->wake);
	pthread_mutex_unlock(&q->lock);
	if (k != NULL)
		k->run(jobs, n);
	else
		job->run(job);
	pthread_mutex_lock(&q->lock);
	if (k != NULL)
		kind_done(q, k);
	return k;
}

static void *serve(void *arg)
{
	struct csm_workq *q = arg;
	struct csm_job_kind *last = NULL;
	bool may_idle = true, idle;

	pthread_setname_np(pthread_self(), q->opt.name);
	csm_lock_stack();
	pthread_mutex_lock(&q->lock);
	while (wait_work(q, may_idle, &idle)) {
		may_idle = has_work(q);
		if (may_idle) {
			last = run_next(q, last);
		} else if (idle) {
			pthread_mutex_unlock(&q->lock);
			q->opt.idle(q->opt.arg);
			pthread_mutex_lock(&q->lock);
		}
	}
	pthread_mutex_unlock(&q->lock);
	return NULL;
}

int csm_workq_new(const struct csm_workq_options *opt, struct csm_workq **ret)
{
	struct csm_workq *q = calloc(1, sizeof(*q));
	pthread_condattr_t attr;

	if (q == NULL)
		return CSM_ENOMEM;
	q->opt = *opt;
	TAILQ_INIT(&q->turns);
	pthread_mutex_init(&q->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&q->wake, &attr);
	pthread_condattr_destroy(&attr);
	q->threads = calloc(opt->threads, sizeof(*q->threads));
	for (; q->threads != NULL && q->started < opt->threads; q->started++)
		if (pthread_create(&q->threads[q->started], NULL, serve, q) != 0)
			break;
	if (q->started < opt->threads) {
		csm_workq_free(q);
		return CSM_ESYSTEM;
	}
	*ret = q;
	return 0;
}

void csm_workq_free(struct csm_workq *q)
{
	if (q == NULL)
		return;
	pthread_mutex_lock(&q->lock);
	q->stopping = true;
	pthread_cond_broadcast(&q->wake);
	pthread_mutex_unlock(&q->lock);
	for (unsigned i = 0; i < q->started; i++)
		pthread_join(q->threads[i], NULL);
	pthread_cond_destroy(&q->wake);
	pthread_mutex_destroy(&q->lock);
	free(q->threads);
	free(q);
}

static int push_locked(struct csm_workq *q, struct csm_job *job, bool own)
{
	struct lane *l;

	if (!own && q->depth >= q->opt.max)
		return CSM_EBUSY;
	l = lane_of(q, job->user);
	if (l == NULL)
		return CSM_ENOMEM;
	if (!own && l->n >= q->opt.max_per_user)
		return CSM_EBUSY;
	if (l->n == 0)
		TAILQ_INSERT_TAIL(&q->turns, l, turn);
	job->next = NULL;
	*l->tail = job;
	l->tail = &job->next;
	l->n++;
	q->depth++;
	if (job->kind == NULL) {
		pthread_cond_signal(&q->wake);
		return 0;
	}
	job->kind->waiting++;
	q->held += is_full(job->kind);
	if (job->kind->waiting >= CSM_JOBS_MAX)
		call_thread(q, job->kind);
	return 0;
}

int csm_workq_push(struct csm_workq *q, struct csm_job *job)
{
	int r;

	pthread_mutex_lock(&q->lock);
	r = q->stopping ? CSM_ESHUTDOWN : push_locked(q, job, false);
	pthread_mutex_unlock(&q->lock);
	return r;
}

void csm_workq_go(struct csm_workq *q, struct csm_job_kind *kind)
{
	pthread_mutex_lock(&q->lock);
	call_thread(q, kind);
	pthread_mutex_unlock(&q->lock);
}

int csm_workq_push_again(struct csm_workq *q, struct csm_job *job)
{
	int r;

	pthread_mutex_lock(&q->lock);
	r = push_locked(q, job, true);
	pthread_mutex_unlock(&q->lock);
	return r;
}

struct call {
	struct csm_job job;
	void (*fn)(void *arg);
	void *arg;
	pthread_mutex_t lock;
	pthread_cond_t done;
	bool finished;
};

static void run_call(struct csm_job *job)
{
	struct call *c = (struct call *)job;

	c->fn(c->arg);
	pthread_mutex_lock(&c->lock);
	c->finished = true;
	pthread_cond_signal(&c->done);
	pthread_mutex_unlock(&c->lock);
}

int csm_workq_call(struct csm_workq *q, void (*fn)(void *arg), void *arg)
{
	struct call c = {.job = {.run = run_call, .user = UINT32_MAX}, .fn = fn, .arg = arg};
	int r;

	pthread_mutex_init(&c.lock, NULL);
	pthread_cond_init(&c.done, NULL);
	pthread_mutex_lock(&q->lock);
	r = q->stopping ? CSM_ESHUTDOWN : push_locked(q, &c.job, true);
	pthread_mutex_unlock(&q->lock);
	if (r == 0) {
		pthread_mutex_lock(&c.lock);
		while (!c.finished)
			pthread_cond_wait(&c.done, &c.lock);
		pthread_mutex_unlock(&c.lock);
	}
	pthread_cond_destroy(&c.done);
	pthread_mutex_destroy(&c.lock);
	return r;
}

size_t csm_workq_depth(struct csm_workq *q)
{
	size_t n;

	pthread_mutex_lock(&q->lock);
	n = q->depth;
	pthread_mutex_unlock(&q->lock);
	return n;
}
