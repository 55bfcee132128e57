/* The sessions: opened as they are needed, logged in once, and opened anew when the token was away. */
#include <errno.h>
#include <syslog.h>
#include <time.h>
#include "plugins/pkcs11/pkcs11.h"

#define WAIT_MS 5000u         /* for a session, or for the token to be up */
#define RETRY_MS 200u         /* between tries to bring it up */
#define SUSPECT_FIRST_MS 250u /* between new beginnings that nothing but a suspicion asks for */
#define SUSPECT_MOST_MS 5000u
#define SUSPECT_FORGET_MS 30000u

uint64_t p11_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

static void deadline_in(struct timespec *t, unsigned ms)
{
	clock_gettime(CLOCK_MONOTONIC, t);
	t->tv_sec += ms / 1000u;
	t->tv_nsec += (long)(ms % 1000u) * 1000000L;
	if (t->tv_nsec >= 1000000000L) {
		t->tv_sec++;
		t->tv_nsec -= 1000000000L;
	}
}

/* Under lock; nobody is inside. The lock is given up meanwhile. */
static int bring_up(struct csm_plugin_ctx *ctx)
{
	int r;

	if (p11_now_ms() < ctx->retry_at)
		return CSM_EUNAVAILABLE;
	ctx->changing = true;
	pthread_mutex_unlock(&ctx->lock);
	r = p11_bring_up(ctx);
	pthread_mutex_lock(&ctx->lock);
	ctx->changing = false;
	ctx->up = r == 0;
	if (r == 0)
		ctx->generation++;
	else
		ctx->retry_at = p11_now_ms() + RETRY_MS;
	pthread_cond_broadcast(&ctx->freed);
	return r;
}

/* Under lock. A free session that is open, else a free place; P11_SESSIONS_MAX when there is neither. */
static unsigned place(const struct csm_plugin_ctx *ctx)
{
	unsigned best = P11_SESSIONS_MAX;

	for (unsigned i = 0; i < ctx->sessions; i++) {
		if (ctx->pool[i].taken)
			continue;
		if (ctx->pool[i].open)
			return i;
		if (best == P11_SESSIONS_MAX)
			best = i;
	}
	return best;
}

/* Under lock. Take place i; the lock is given up while its session is opened. 1: look again, the token lets us have no
 * more. */
static int take(struct csm_plugin_ctx *ctx, unsigned i, struct p11_use *ret)
{
	struct p11_session *s = &ctx->pool[i];
	CK_RV rv = CKR_OK;

	s->taken = true;
	ctx->inside++;
	*ret = (struct p11_use){s->h, ctx->generation, i};
	if (s->open)
		return 0;
	pthread_mutex_unlock(&ctx->lock);
	rv = ctx->f->C_OpenSession(ctx->slot, CKF_SERIAL_SESSION, NULL, NULL, &ret->session);
	pthread_mutex_lock(&ctx->lock);
	if (rv == CKR_OK) {
		s->h = ret->session;
		s->open = true;
		return 0;
	}
	s->taken = false;
	ctx->inside--;
	if (p11_lost(rv))
		ctx->up = false;
	else if (i > 0)
		ctx->sessions = i; /* with those that are open there is work to be done */
	pthread_cond_broadcast(&ctx->freed);
	return p11_lost(rv) || i > 0 ? 1 : p11_error(rv);
}

int p11_begin(struct csm_plugin_ctx *ctx, struct p11_use *ret)
{
	struct timespec until;
	unsigned i;
	int r = 1;

	deadline_in(&until, WAIT_MS);
	pthread_mutex_lock(&ctx->lock);
	while (r == 1) {
		if (!ctx->up && !ctx->changing && ctx->inside == 0) {
			if ((r = bring_up(ctx)) == 0)
				r = 1;
		} else if (ctx->up && (i = place(ctx)) < P11_SESSIONS_MAX) {
			r = take(ctx, i, ret);
		} else if (pthread_cond_timedwait(&ctx->freed, &ctx->lock, &until) == ETIMEDOUT) {
			r = ctx->up ? CSM_EBUSY : CSM_EUNAVAILABLE;
		}
	}
	pthread_mutex_unlock(&ctx->lock);
	return r;
}

/* Under lock. A library that fails in a way that tells nothing may have lost its token: begin anew, but not all the
 * time, for it may also be that it does this to one key only, and the others' work goes on. */
static void suspect(struct csm_plugin_ctx *ctx)
{
	uint64_t now = p11_now_ms();

	if (now - ctx->suspected > SUSPECT_FORGET_MS)
		ctx->suspect_wait = 0;
	ctx->suspected = now;
	if (now < ctx->suspect_at)
		return;
	ctx->suspect_wait = ctx->suspect_wait == 0 ? SUSPECT_FIRST_MS : 2 * ctx->suspect_wait;
	if (ctx->suspect_wait > SUSPECT_MOST_MS)
		ctx->suspect_wait = SUSPECT_MOST_MS;
	ctx->suspect_at = now + ctx->suspect_wait;
	ctx->up = false;
}

void p11_renew(struct csm_plugin_ctx *ctx, struct p11_use *use)
{
	CK_SESSION_HANDLE fresh;

	/* The new one first: with the last session the login goes. */
	if (ctx->f->C_OpenSession(ctx->slot, CKF_SERIAL_SESSION, NULL, NULL, &fresh) != CKR_OK)
		return;
	(void)ctx->f->C_CloseSession(use->session);
	pthread_mutex_lock(&ctx->lock);
	ctx->pool[use->slot].h = fresh;
	pthread_mutex_unlock(&ctx->lock);
	use->session = fresh;
}

void p11_end(struct csm_plugin_ctx *ctx, const struct p11_use *use, CK_RV rv)
{
	pthread_mutex_lock(&ctx->lock);
	ctx->pool[use->slot].taken = false;
	ctx->inside--;
	if (p11_lost(rv)) {
		ctx->up = false;
		ctx->reason = "the token was lost";
	} else if (p11_suspect(rv)) {
		suspect(ctx);
	}
	/* A broadcast where one waits for the last to leave. */
	if (ctx->up)
		pthread_cond_signal(&ctx->freed);
	else
		pthread_cond_broadcast(&ctx->freed);
	pthread_mutex_unlock(&ctx->lock);
	if (rv != CKR_OK)
		p11_log(ctx, LOG_DEBUG, "an operation failed", rv);
}
