#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "daemon/central/pub.h"
#include "daemon/svc/log.h"
#include "daemon/svc/thread.h"

#define LOOK_MS 250        /* how often the thread asks whether something was revoked */
#define PAUSE_MS 500       /* at least, between two lists of an issuer */
#define PAUSE_TIMES 4      /* and so many times as long as the last one took; */
#define SHOWN_MS 1700      /* less where a revocation at the beginning of one list would be in the next later than that, and a look */
#define RETRY_MS 1000      /* after a failure; doubled each time */
#define RETRY_MAX_MS 10000

/* Only the thread reads and writes it, but what the lock covers. */
struct shown {
	const struct issuer_config *config;
	struct crl_list *full, *delta;    /* under the lock */
	struct ocsp_responder *responder; /* under the lock */
	X509 *listed;                     /* by this certificate are the lists */
	uint64_t revocations;             /* what db_revocations told before they were made */
	uint64_t lists_at, responder_at;  /* not before, by the monotonic clock */
	unsigned lists_failed, responder_failed;
};
struct pub {
	struct central *c;
	struct shown *all;
	size_t n;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool stop, started;
	pthread_t thread;
};

static uint64_t now_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static uint64_t retry_at(unsigned *failed)
{
	uint64_t ms = RETRY_MS;

	for (unsigned i = 0; i < *failed && ms < RETRY_MAX_MS; i++)
		ms *= 2;
	(*failed)++;
	return now_ms() + (ms < RETRY_MAX_MS ? ms : RETRY_MAX_MS);
}

static bool same_cert(const X509 *a, const X509 *b)
{
	return a != NULL && b != NULL && X509_cmp(a, b) == 0;
}

/* ---- lists ---- */

/* All profiles of an issuer have the same. */
static const char *delta_url(const struct profiles *profiles, const struct issuer_config *issuer)
{
	const struct profile_config *p;

	for (size_t i = 0; (p = profiles_at(profiles, i)) != NULL; i++)
		if (p->issuer == issuer)
			return p->x509.delta_url;
	return NULL;
}

/* Half of its life is over, or its clock is not ours. */
static bool is_old(const struct crl_list *l, uint64_t now)
{
	return now < l->this_update || now - l->this_update >= (l->next_update - l->this_update) / 2;
}

static void lists_show(struct pub *p, struct shown *s, struct crl_list *full, struct crl_list *delta)
{
	struct crl_list *old_full = s->full, *old_delta = s->delta;

	(void)pthread_mutex_lock(&p->lock);
	if (full != NULL)
		s->full = full;
	s->delta = delta;
	(void)pthread_mutex_unlock(&p->lock);
	if (full != NULL)
		crl_list_unref(old_full);
	crl_list_unref(old_delta);
}

/* A stream of revocations leaves the processor to others for most of the time; for half of it where lists take long. */
static uint64_t pause_after(uint64_t took)
{
	const uint64_t left = 2 * took < SHOWN_MS ? SHOWN_MS - 2 * took : 0;
	uint64_t pause = PAUSE_TIMES * took < left ? PAUSE_TIMES * took : left;

	pause = pause > took ? pause : took;
	return pause > PAUSE_MS ? pause : PAUSE_MS;
}

static int lists_make(struct pub *p, struct shown *s, struct ca_issuer *i, bool all, char why[static CA_WHY])
{
	struct ca_signing signing = {.csm = p->c->csm, .issuer = i, .kind = "crl"};
	struct csm_signer signer = ca_signer(&signing);
	const struct crl_job job = {.db = p->c->db, .issuer = csm_str_of(s->config->name), .cert = i->cert, .signer = &signer,
		.delta_url = delta_url(ca_profiles(p->c->ca), s->config), .now = p->c->now()};
	const uint64_t seen = db_revocations(p->c->db), from = now_ms();
	struct crl_list *full = NULL, *delta = NULL;
	int r = all ? crl_make(&job, &full, &delta) : crl_make_delta(&job, &delta);

	(void)memcpy(why, signing.why, CA_WHY);
	if (r != 0)
		return r;
	s->lists_at = now_ms() + pause_after(now_ms() - from);
	lists_show(p, s, full, delta);
	if (all)
		s->revocations = seen;
	return 0;
}

static void lists_tick(struct pub *p, struct shown *s, struct ca_issuer *i)
{
	const uint64_t now = p->c->now();
	const bool all = s->full == NULL || s->revocations != db_revocations(p->c->db) || is_old(s->full, now) ||
		!same_cert(s->listed, i->cert);
	char why[CA_WHY] = "";
	int r;

	if (now_ms() < s->lists_at || (!all && !is_old(s->delta, now)))
		return;
	if ((r = lists_make(p, s, i, all, why)) != 0) {
		s->lists_at = retry_at(&s->lists_failed);
		log_err("revocation list of issuer %s: %s: %s", s->config->name, csm_err_text(r), why);
		return;
	}
	s->lists_failed = 0;
	if (all && X509_up_ref(i->cert) == 1) {
		X509_free(s->listed);
		s->listed = i->cert;
	}
}

/* ---- responders ---- */

static void responder_tick(struct pub *p, struct shown *s, struct ca_issuer *i)
{
	struct ocsp_responder *r = NULL, *old = s->responder;
	char why[CA_WHY] = "";
	int e;

	if (now_ms() < s->responder_at || (old != NULL && same_cert(old->issuer, i->cert) && p->c->now() < old->renew_at))
		return;
	if ((e = ocsp_responder_make(p->c, i, &r, why)) != 0) {
		s->responder_at = retry_at(&s->responder_failed);
		log_err("OCSP responder of issuer %s: %s: %s", s->config->name, csm_err_text(e), why);
		return;
	}
	s->responder_failed = 0;
	(void)pthread_mutex_lock(&p->lock);
	s->responder = r;
	(void)pthread_mutex_unlock(&p->lock);
	ocsp_responder_unref(old);
}

/* ---- the thread ---- */

static void tick(struct pub *p, struct shown *s)
{
	struct ca_issuer *i = NULL;

	/* Without a certificate there is nothing to tell; whoever gives it one tells of failures. */
	if (ca_issuer_get(p->c->ca, csm_str_of(s->config->name), &i) != 0)
		return;
	responder_tick(p, s, i);
	lists_tick(p, s, i);
	ca_issuer_unref(i);
}

static bool wait_a_little(struct pub *p)
{
	struct timespec until;
	bool stop;

	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += LOOK_MS * 1000000L;
	until.tv_sec += until.tv_nsec / 1000000000L;
	until.tv_nsec %= 1000000000L;
	(void)pthread_mutex_lock(&p->lock);
	if (!p->stop)
		(void)pthread_cond_timedwait(&p->wake, &p->lock, &until);
	stop = p->stop;
	(void)pthread_mutex_unlock(&p->lock);
	return !stop;
}

static void *run(void *arg)
{
	struct pub *p = arg;

	do
		for (size_t i = 0; i < p->n; i++)
			tick(p, &p->all[i]);
	while (wait_a_little(p));
	return NULL;
}

int pub_new(struct central *c, struct pub **ret)
{
	const struct profiles *profiles = ca_profiles(c->ca);
	pthread_condattr_t attr;
	struct pub *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return CSM_ENOMEM;
	while (profiles_issuer_at(profiles, p->n) != NULL)
		p->n++;
	if ((p->all = calloc(p->n > 0 ? p->n : 1, sizeof(*p->all))) == NULL) {
		free(p);
		return CSM_ENOMEM;
	}
	p->c = c;
	for (size_t i = 0; i < p->n; i++)
		p->all[i].config = profiles_issuer_at(profiles, i);
	(void)pthread_mutex_init(&p->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&p->wake, &attr);
	(void)pthread_condattr_destroy(&attr);
	*ret = p;
	return 0;
}

int pub_start(struct pub *p)
{
	int r = csm_thread_start(&p->thread, run, p);

	p->started = r == 0;
	return r;
}

void pub_free(struct pub *p)
{
	if (p == NULL)
		return;
	if (p->started) {
		(void)pthread_mutex_lock(&p->lock);
		p->stop = true;
		(void)pthread_cond_signal(&p->wake);
		(void)pthread_mutex_unlock(&p->lock);
		(void)pthread_join(p->thread, NULL);
	}
	for (size_t i = 0; i < p->n; i++) {
		crl_list_unref(p->all[i].full);
		crl_list_unref(p->all[i].delta);
		ocsp_responder_unref(p->all[i].responder);
		X509_free(p->all[i].listed);
	}
	(void)pthread_cond_destroy(&p->wake);
	(void)pthread_mutex_destroy(&p->lock);
	free(p->all);
	free(p);
}

/* ---- what is asked for ---- */

static struct shown *find(struct pub *p, struct csm_str issuer)
{
	for (size_t i = 0; i < p->n; i++)
		if (csm_str_eq(issuer.n > 0 ? issuer : CSM_STR("default"), p->all[i].config->name))
			return &p->all[i];
	return issuer.n == 0 && p->n > 0 ? &p->all[0] : NULL;
}

int pub_crl(struct pub *p, struct csm_str issuer, bool delta, struct crl_list **ret)
{
	struct shown *s = find(p, issuer);
	struct crl_list *l;

	if (s == NULL)
		return CSM_ENOT_FOUND;
	(void)pthread_mutex_lock(&p->lock);
	l = delta ? s->delta : s->full;
	if (l != NULL)
		*ret = crl_list_ref(l);
	(void)pthread_mutex_unlock(&p->lock);
	return l != NULL ? 0 : CSM_EUNAVAILABLE;
}

int pub_responder(struct pub *p, struct csm_str issuer, struct ocsp_responder **ret)
{
	struct shown *s = find(p, issuer);
	struct ocsp_responder *r;

	if (s == NULL)
		return CSM_ENOT_FOUND;
	(void)pthread_mutex_lock(&p->lock);
	if ((r = s->responder) != NULL)
		*ret = ocsp_responder_ref(r);
	(void)pthread_mutex_unlock(&p->lock);
	return r != NULL ? 0 : CSM_EUNAVAILABLE;
}
