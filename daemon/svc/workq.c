#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include "daemon/svc/workq.h"
#include "libclient/base/lockmem.h"

#define USER_BUCKETS 64u

/* One user's waiting jobs; on the ring while there are any. */
struct lane {
	uint32_t user;
	size_t n;
	struct csm_job *head, **tail;
	struct lane *next_turn; /* ring of lanes with work, singly linked from the one served last */
	struct lane *next_hash;
};

struct csm_workq {
	struct csm_workq_options opt;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	pthread_t *threads;
	unsigned started;
	bool stopping;
	size_t depth;
	struct lane *last; /* ring; last->next_turn is served next */
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

static void ring_add(struct csm_workq *q, struct lane *l)
{
	if (q->last == NULL) {
		l->next_turn = l;
	} else {
		l->next_turn = q->last->next_turn;
		q->last->next_turn = l;
	}
	q->last = l;
}

/* The next job in turn; the lane moves to the end of the ring, or goes when it is empty. */
static struct csm_job *take(struct csm_workq *q)
{
	struct lane *l = q->last->next_turn;
	struct csm_job *job = l->head;

	l->head = job->next;
	if (l->head == NULL)
		l->tail = &l->head;
	l->n--;
	q->depth--;
	if (l->n > 0) {
		q->last = l;
	} else {
		if (l == q->last && l->next_turn == l) {
			q->last = NULL;
		} else {
			q->last->next_turn = l->next_turn;
		}
		lane_free(q, l);
	}
	return job;
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
		while (q->depth == 0 && !q->stopping)
			if (pthread_cond_timedwait(&q->wake, &q->lock, &until) == ETIMEDOUT) {
				*idle = q->depth == 0;
				break;
			}
		return q->depth > 0 || !q->stopping;
	}
	while (q->depth == 0 && !q->stopping)
		pthread_cond_wait(&q->wake, &q->lock);
	return q->depth > 0;
}

static void *serve(void *arg)
{
	struct csm_workq *q = arg;
	bool may_idle = true, idle;

	pthread_setname_np(pthread_self(), q->opt.name);
	csm_lock_stack();
	pthread_mutex_lock(&q->lock);
	while (wait_work(q, may_idle, &idle)) {
		struct csm_job *job = q->depth > 0 ? take(q) : NULL;

		pthread_mutex_unlock(&q->lock);
		if (job != NULL)
			job->run(job);
		else if (idle)
			q->opt.idle(q->opt.arg);
		may_idle = job != NULL;
		pthread_mutex_lock(&q->lock);
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

	if (q->stopping)
		return CSM_ESHUTDOWN;
	if (!own && q->depth >= q->opt.max)
		return CSM_EBUSY;
	l = lane_of(q, job->user);
	if (l == NULL)
		return CSM_ENOMEM;
	if (!own && l->n >= q->opt.max_per_user)
		return CSM_EBUSY;
	if (l->n == 0)
		ring_add(q, l);
	job->next = NULL;
	*l->tail = job;
	l->tail = &job->next;
	l->n++;
	q->depth++;
	pthread_cond_signal(&q->wake);
	return 0;
}

int csm_workq_push(struct csm_workq *q, struct csm_job *job)
{
	int r;

	pthread_mutex_lock(&q->lock);
	r = push_locked(q, job, false);
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
	r = push_locked(q, &c.job, true);
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
