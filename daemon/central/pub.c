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
	uint64_t responder_revocations;   /* and before it was seen that the responder is none of them */
	uint64_t lists_at, responder_at;  /* not before, by the monotonic clock */
	unsigned lists_failed, responder_failed;
};
struct pub {
	struct central *c;
	const struct profiles *profiles; /* that `all` was made by; the thread's */
	pthread_mutex_t lock;
	struct shown *all;               /* the thread alone writes these two, under the lock */
	size_t n;
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
		if (strcmp(p->issuer->name, issuer->name) == 0)
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

static bool responder_revoked(struct pub *p, struct shown *s)
{
	const uint64_t seen = db_revocations(p->c->db);

	if (s->responder_revocations == seen)
		return false;
	if (ocsp_responder_revoked(p->c, s->responder))
		return true;
	s->responder_revocations = seen;
	return false;
}

static void responder_tick(struct pub *p, struct shown *s, struct ca_issuer *i)
{
	struct ocsp_responder *r = NULL, *old = s->responder;
	char why[CA_WHY] = "";
	int e;

	if (now_ms() < s->responder_at ||
		(old != NULL && same_cert(old->issuer, i->cert) && p->c->now() < old->renew_at && !responder_revoked(p, s)))
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

	/* another authority tells itself what it has revoked */
	if (s->config->external != NULL)
		return;
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

static void shown_clear(struct shown *s)
{
	crl_list_unref(s->full);
	crl_list_unref(s->delta);
	ocsp_responder_unref(s->responder);
	X509_free(s->listed);
	*s = (struct shown){.config = NULL};
}

/* What is there of issuers that stay goes on; lists are made anew, since URLs may have changed. Where there is no memory, the old ones
 * are shown and it is tried again. */
static void profiles_take(struct pub *p, const struct profiles *profiles)
{
	struct shown *all, *old = p->all;
	size_t n = 0, n_old = p->n;

	while (profiles_issuer_at(profiles, n) != NULL)
		n++;
	if ((all = calloc(n > 0 ? n : 1, sizeof(*all))) == NULL)
		return;
	(void)pthread_mutex_lock(&p->lock);
	for (size_t i = 0; i < n; i++) {
		all[i].config = profiles_issuer_at(profiles, i);
		for (size_t k = 0; k < n_old; k++)
			if (old[k].config != NULL && all[i].config->external == NULL &&
				strcmp(old[k].config->name, all[i].config->name) == 0) {
				const struct issuer_config *config = all[i].config;

				all[i] = old[k];
				all[i].config = config;
				old[k] = (struct shown){.config = NULL};
			}
	}
	p->all = all;
	p->n = n;
	(void)pthread_mutex_unlock(&p->lock);
	p->profiles = profiles;
	for (size_t i = 0; i < n; i++) {
		X509_free(all[i].listed);
		all[i].listed = NULL;
	}
	for (size_t i = 0; i < n_old; i++)
		shown_clear(&old[i]);
	free(old);
}

static void *run(void *arg)
{
	struct pub *p = arg;

	do {
		if (p->profiles != ca_profiles(p->c->ca))
			profiles_take(p, ca_profiles(p->c->ca));
		for (size_t i = 0; i < p->n; i++)
			tick(p, &p->all[i]);
	} while (wait_a_little(p));
	return NULL;
}

int pub_new(struct central *c, struct pub **ret)
{
	pthread_condattr_t attr;
	struct pub *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return CSM_ENOMEM;
	p->c = c;
	(void)pthread_mutex_init(&p->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&p->wake, &attr);
	(void)pthread_condattr_destroy(&attr);
	profiles_take(p, ca_profiles(c->ca));
	if (p->all == NULL) {
		pub_free(p);
		return CSM_ENOMEM;
	}
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
	for (size_t i = 0; p->all != NULL && i < p->n; i++)
		shown_clear(&p->all[i]);
	(void)pthread_cond_destroy(&p->wake);
	(void)pthread_mutex_destroy(&p->lock);
	free(p->all);
	free(p);
}

/* ---- what is asked for ---- */

/* Under the lock. */
static struct shown *find(struct pub *p, struct csm_str issuer)
{
	for (size_t i = 0; i < p->n; i++)
		if (csm_str_eq(issuer.n > 0 ? issuer : CSM_STR("default"), p->all[i].config->name))
			return &p->all[i];
	return issuer.n == 0 && p->n > 0 ? &p->all[0] : NULL;
}

/* Nothing there to be handed out: there will be soon, or there is nobody to sign it. */
static int not_made(struct pub *p, struct csm_str issuer)
{
	struct ca_issuer *i = NULL;
	int r = ca_issuer_get(p->c->ca, issuer, &i);

	ca_issuer_unref(i);
	return r == CSM_ESTATE || r == CSM_ENOT_FOUND ? r : CSM_EUNAVAILABLE;
}

int pub_crl(struct pub *p, struct csm_str issuer, bool delta, struct crl_list **ret)
{
	struct crl_list *l = NULL;
	struct shown *s;

	(void)pthread_mutex_lock(&p->lock);
	if ((s = find(p, issuer)) != NULL && (l = delta ? s->delta : s->full) != NULL)
		*ret = crl_list_ref(l);
	(void)pthread_mutex_unlock(&p->lock);
	return l != NULL ? 0 : not_made(p, issuer);
}

int pub_responder(struct pub *p, struct csm_str issuer, struct ocsp_responder **ret)
{
	struct ocsp_responder *r = NULL;
	struct shown *s;

	(void)pthread_mutex_lock(&p->lock);
	if ((s = find(p, issuer)) != NULL && (r = s->responder) != NULL)
		*ret = ocsp_responder_ref(r);
	(void)pthread_mutex_unlock(&p->lock);
	return r != NULL ? 0 : not_made(p, issuer);
}
