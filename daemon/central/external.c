#include "daemon/central/external.h"

#include <openssl/err.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "daemon/central/ca_int.h"
#include "daemon/pki/enrolled.h"
#include "daemon/svc/log.h"
#include "daemon/svc/thread.h"

#define PER_ISSUER 2u /* threads that wait for one authority at most: those of others are others' */
#define THREADS_MAX (PER_ISSUER * PROFILES_ISSUERS_MAX)
#define OF_ISSUER 24u /* requests; one that hangs leaves places to others */
#define JOBS_MAX (OF_ISSUER * PROFILES_ISSUERS_MAX)
#define WAIT_MS 2000u /* so long a worker waits: who answers at once is passed on at once */
#define KEPT_S 60u    /* what came is kept at least so long for who asks again */
#define STOP_S 2
#define LIFE_SLACK_S 3600u

enum job_state { JOB_FREE, JOB_QUEUED, JOB_RUNNING, JOB_DONE };
struct xjob {
	enum job_state state;
	uint8_t id[DB_REQUEST_ID_LEN];
	const struct issuer_config *issuer;
	struct csm_buf csr, chain;
	uint32_t ttl;
	uint64_t number, begun_ms, done_at;
	int r;
	char why[CA_WHY];
};
struct external {
	struct central *c;
	struct csm *csm; /* of these threads alone */
	pthread_mutex_t lock;
	pthread_cond_t todo, done;
	pthread_t thread[THREADS_MAX];
	size_t n_threads, busy; /* started when there is work for one more */
	unsigned waiters, waiters_max;
	bool stop;
	uint64_t last;
	struct xjob jobs[JOBS_MAX];
};

/* ---- what waits, and who works on it; all under the lock ---- */

static bool is_of(const struct xjob *j, const struct issuer_config *issuer)
{
	return j->state != JOB_FREE && strcmp(j->issuer->name, issuer->name) == 0;
}

static unsigned running(const struct external *x, const struct issuer_config *issuer)
{
	unsigned n = 0;

	for (size_t i = 0; i < JOBS_MAX; i++)
		n += x->jobs[i].state == JOB_RUNNING && is_of(&x->jobs[i], issuer);
	return n;
}

static unsigned places(const struct external *x, const struct issuer_config *issuer)
{
	unsigned n = 0;

	for (size_t i = 0; i < JOBS_MAX; i++)
		n += is_of(&x->jobs[i], issuer);
	return n;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

/* It has not answered somebody for so long that nobody's worker waits for it. */
static bool is_slow(const struct external *x, const struct issuer_config *issuer)
{
	uint64_t now = now_ms();

	for (size_t i = 0; i < JOBS_MAX; i++)
		if (x->jobs[i].state == JOB_RUNNING && is_of(&x->jobs[i], issuer) && now - x->jobs[i].begun_ms > WAIT_MS)
			return true;
	return false;
}

static struct xjob *next(struct external *x)
{
	struct xjob *first = NULL;

	for (size_t i = 0; i < JOBS_MAX; i++) {
		struct xjob *j = &x->jobs[i];

		if (j->state == JOB_QUEUED && (first == NULL || j->number < first->number) && running(x, j->issuer) < PER_ISSUER)
			first = j;
	}
	return first;
}

static void job_clear(struct xjob *j)
{
	csm_buf_free(&j->csr);
	csm_buf_free(&j->chain);
	*j = (struct xjob){.state = JOB_FREE};
}

static struct xjob *find(struct external *x, const uint8_t *id)
{
	for (size_t i = 0; i < JOBS_MAX; i++)
		if (x->jobs[i].state != JOB_FREE && memcmp(x->jobs[i].id, id, DB_REQUEST_ID_LEN) == 0)
			return &x->jobs[i];
	return NULL;
}

/* A free place, or that of the answer that has lain there longest: of the same issuer, where that has as many as it may. */
static struct xjob *place(struct external *x, const struct issuer_config *issuer, uint64_t now)
{
	bool own = places(x, issuer) >= OF_ISSUER;
	struct xjob *old = NULL;

	for (size_t i = 0; i < JOBS_MAX; i++) {
		struct xjob *j = &x->jobs[i];

		if (j->state == JOB_FREE && !own)
			return j;
		if (j->state == JOB_DONE && j->done_at + KEPT_S <= now && (!own || is_of(j, issuer)) &&
			(old == NULL || j->done_at < old->done_at))
			old = j;
	}
	if (old != NULL)
		job_clear(old);
	return old;
}

static void *run(void *arg);

/* CSM_ESYSTEM: there is none, and none could be started. */
static int enough_threads(struct external *x)
{
	int r = 0;

	if (x->busy == x->n_threads && x->n_threads < THREADS_MAX)
		x->n_threads += (r = csm_thread_start(&x->thread[x->n_threads], run, x)) == 0;
	return x->n_threads > 0 ? 0 : r;
}

static int begin(struct external *x, const struct external_ask *ask, struct xjob **ret)
{
	struct xjob *j = place(x, ask->issuer->config, ask->now);
	int r;

	if (j == NULL)
		return CSM_EBUSY;
	if ((r = enough_threads(x)) != 0)
		return r;
	csm_buf_init(&j->csr, CSM_CSR_MAX, false);
	csm_buf_init(&j->chain, CSM_CERT_CHAIN_MAX, false);
	if ((r = csm_buf_put(&j->csr, ask->csr.p, ask->csr.n)) != 0) {
		job_clear(j);
		return r;
	}
	memcpy(j->id, ask->id, DB_REQUEST_ID_LEN);
	j->issuer = ask->issuer->config;
	j->ttl = ask->life < UINT32_MAX ? (uint32_t)ask->life : UINT32_MAX;
	j->number = ++x->last;
	j->state = JOB_QUEUED;
	(void)pthread_cond_signal(&x->todo);
	*ret = j;
	return 0;
}

/* ---- the threads ---- */

/* csmd's code, as who asked csm-server may have it. */
static int code_of(int r)
{
	return r == CSM_EBUSY || r == CSM_EDENIED || r == CSM_EINVALID || r == CSM_EBACKEND ? r : CSM_EUNAVAILABLE;
}

/* Without the lock: nobody else touches a job that is running. */
static void work(struct external *x, struct xjob *j)
{
	const struct csm_enrol what = {
		.profile = j->issuer->external, .csr = csm_buf_ptr(&j->csr), .csr_len = j->csr.len, .ttl = j->ttl};
	struct csm_reply *rep = NULL;
	const void *chain;
	size_t n = 0;
	int r = csm_cert_enrol(x->csm, j->issuer->key, &what, &rep);

	if (r != 0) {
		j->r = ca_refuse(j->why, code_of(r), "issuer %s: %s", j->issuer->name, csm_error_message());
		return;
	}
	chain = csm_view_bin(csm_reply_view(rep), "chain", &n);
	j->r = chain != NULL && n > 0 ? csm_buf_put(&j->chain, chain, n) : CSM_EBACKEND;
	if (j->r != 0)
		(void)ca_refuse(j->why, j->r, "issuer %s: csmd has no certificate in its answer", j->issuer->name);
	csm_reply_free(rep);
}

static void *run(void *arg)
{
	struct external *x = arg;
	struct xjob *j;

	(void)pthread_mutex_lock(&x->lock);
	while (!x->stop) {
		if ((j = next(x)) == NULL) {
			(void)pthread_cond_wait(&x->todo, &x->lock);
			continue;
		}
		j->state = JOB_RUNNING;
		j->begun_ms = now_ms();
		x->busy++;
		/* it was asked for while this thread was to be had still */
		if (next(x) != NULL)
			(void)enough_threads(x);
		(void)pthread_mutex_unlock(&x->lock);
		work(x, j);
		(void)pthread_mutex_lock(&x->lock);
		x->busy--;
		j->state = JOB_DONE;
		j->done_at = x->c->now();
		(void)pthread_cond_broadcast(&x->done);
		(void)pthread_cond_signal(&x->todo);
	}
	(void)pthread_mutex_unlock(&x->lock);
	return NULL;
}

/* ---- a worker asks ---- */

static void in_ms(struct timespec *t, unsigned ms)
{
	(void)clock_gettime(CLOCK_MONOTONIC, t);
	t->tv_sec += ms / 1000u;
	t->tv_nsec += (long)(ms % 1000u) * 1000000L;
	t->tv_sec += t->tv_nsec / 1000000000L;
	t->tv_nsec %= 1000000000L;
}

/* The job, or NULL where it is not done yet. Its place may have become another's while the lock was away. */
static struct xjob *await(struct external *x, const uint8_t *id)
{
	struct xjob *j = find(x, id);
	struct timespec until;
	int r = 0;

	in_ms(&until, WAIT_MS);
	/* some workers are always left to others */
	if (j != NULL && x->waiters < x->waiters_max && !is_slow(x, j->issuer)) {
		x->waiters++;
		while (j != NULL && j->state != JOB_DONE && r == 0) {
			r = pthread_cond_timedwait(&x->done, &x->lock, &until);
			j = find(x, id);
		}
		x->waiters--;
	}
	return j != NULL && j->state == JOB_DONE ? j : NULL;
}

static int take(struct external *x, const struct external_ask *ask, struct csm_buf *chain, bool *waits, char *why)
{
	struct xjob *j = find(x, ask->id);
	int r;

	if (j == NULL && (r = begin(x, ask, &j)) != 0)
		return ca_refuse(why, r == CSM_EBUSY ? r : CSM_EUNAVAILABLE, r == CSM_EBUSY ? "issuer %s: too many requests wait for it" :
			"issuer %s: csm-server has neither memory nor threads to ask it", ask->issuer->config->name);
	if ((j = await(x, ask->id)) == NULL) {
		*waits = true;
		return 0;
	}
	r = j->r;
	*waits = r == CSM_EBUSY;
	if (r == 0)
		r = csm_buf_put(chain, csm_buf_ptr(&j->chain), j->chain.len);
	else
		memcpy(why, j->why, CA_WHY);
	job_clear(j); /* the next one asks anew: a renewal is the same request */
	return *waits ? 0 : r;
}

/* ---- what came ---- */

static int numbers(X509 *x, const struct external_ask *ask, struct external_got *ret, char *why)
{
	const ASN1_INTEGER *serial = X509_get0_serialNumber(x);
	const char *name = ask->issuer->config->name;
	struct external_got got = {.serial_len = serial != NULL ? (size_t)serial->length : 0};

	if (got.serial_len == 0 || got.serial_len > DB_SERIAL_MAX || serial->type != V_ASN1_INTEGER || serial->data[0] == 0)
		return ca_refuse(why, CSM_EBACKEND, "issuer %s: its certificate has no proper serial number", name);
	memcpy(got.serial, serial->data, got.serial_len);
	if (ca_time(X509_get0_notBefore(x), &got.not_before) != 0 || ca_time(X509_get0_notAfter(x), &got.not_after) != 0)
		return ca_refuse(why, CSM_EBACKEND, "issuer %s: its certificate has no proper dates", name);
	if (got.not_after > ask->now + ask->max_life + LIFE_SLACK_S)
		return ca_refuse(why, CSM_EBACKEND, "issuer %s: its certificate is for longer than the profile's max_life", name);
	*ret = got;
	return 0;
}

/* Its own certificate alone is taken of what came: those above it are the configuration's. */
static int check(struct csm_bin given, const struct external_ask *ask, struct csm_buf *der, struct external_got *ret, char *why)
{
	struct csm_enrolled_want want = {.spki = ask->spki, .subject = ask->row->subject, .sans = ask->row->sans,
		.n_sans = ask->row->n_sans, .anchors = ask->issuer->chain, .now = ask->now};
	const unsigned char *at = given.p;
	X509 *x = d2i_X509(NULL, &at, (long)given.n);
	char bad[CSM_CERT_WHY] = "";
	struct csm_buf both, chain;
	struct csm_msg_cert_info info;
	struct csm_pool pool;
	int r = CSM_EBACKEND;

	csm_pool_init(&pool, CSM_CERT_CHAIN_MAX * 4u);
	csm_buf_init(&both, 2 * CSM_CERT_CHAIN_MAX, false);
	csm_buf_init(&chain, 2 * CSM_CERT_CHAIN_MAX, false);
	if (x == NULL) {
		(void)ca_refuse(why, r, "issuer %s: no certificate came", ask->issuer->config->name);
		goto out;
	}
	if ((r = csm_buf_put(&both, given.p, (size_t)(at - given.p))) != 0 ||
		(r = csm_buf_put(&both, ask->issuer->chain.p, ask->issuer->chain.n)) != 0)
		goto out;
	r = csm_enrolled_check((struct csm_bin){csm_buf_ptr(&both), both.len}, &want, &chain, &pool, &info, bad);
	if (r != 0)
		r = ca_refuse(why, r == CSM_ENOMEM ? CSM_EBUSY : CSM_EBACKEND, "issuer %s: what it gave is refused: %s",
			ask->issuer->config->name, bad);
	if (r == 0 && (r = numbers(x, ask, ret, why)) == 0)
		r = csm_buf_put(der, given.p, (size_t)(at - given.p));
out:
	X509_free(x);
	csm_buf_free(&both);
	csm_buf_free(&chain);
	csm_pool_free(&pool);
	ERR_clear_error();
	return r;
}

int external_ask(struct external *x, const struct external_ask *ask, struct csm_buf *der, struct external_got *ret, bool *waits,
	char why[static CA_WHY])
{
	struct csm_buf chain;
	int r;

	*waits = false;
	csm_buf_init(&chain, CSM_CERT_CHAIN_MAX, false);
	(void)pthread_mutex_lock(&x->lock);
	r = take(x, ask, &chain, waits, why);
	(void)pthread_mutex_unlock(&x->lock);
	if (r == 0 && !*waits)
		r = check((struct csm_bin){csm_buf_ptr(&chain), chain.len}, ask, der, ret, why);
	csm_buf_free(&chain);
	return r;
}

/* ---- start and stop ---- */

int external_new(struct central *c, struct external **ret)
{
	struct external *x = calloc(1, sizeof(*x));
	pthread_condattr_t attr;
	int r;

	if (x == NULL)
		return CSM_ENOMEM;
	x->c = c;
	x->waiters_max = c->config->workers > 1 ? c->config->workers / 2 : 1;
	(void)pthread_mutex_init(&x->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&x->todo, NULL);
	(void)pthread_cond_init(&x->done, &attr);
	(void)pthread_condattr_destroy(&attr);
	if ((r = csm_new(&x->csm)) != 0 || (r = csm_set_socket(x->csm, c->config->csmd_socket)) != 0) {
		external_free(x);
		return r;
	}
	csm_set_connections(x->csm, THREADS_MAX);
	*ret = x;
	return 0;
}

void external_free(struct external *x)
{
	struct timespec until;
	bool all = true;

	if (x == NULL)
		return;
	(void)pthread_mutex_lock(&x->lock);
	x->stop = true;
	(void)pthread_cond_broadcast(&x->todo);
	(void)pthread_mutex_unlock(&x->lock);
	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += STOP_S;
	for (size_t i = 0; i < x->n_threads; i++)
		all &= pthread_timedjoin_np(x->thread[i], NULL, &until) == 0;
	/* one that waits for an authority ends with the process, which is about to */
	if (!all)
		return;
	csm_free(x->csm);
	for (size_t i = 0; i < JOBS_MAX; i++)
		job_clear(&x->jobs[i]);
	(void)pthread_mutex_destroy(&x->lock);
	(void)pthread_cond_destroy(&x->todo);
	(void)pthread_cond_destroy(&x->done);
	free(x);
}
