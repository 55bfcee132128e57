#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include "plugins/remote/link.h"

#define SEND_WAIT_S 1
#define DEAD_MAX 65536u
#define DEAD_AT_ONCE 256u /* some 8 KiB: far less than the socket takes */

/* ---- a link ---- */

static void link_unref(struct link *l)
{
	if (l == NULL || atomic_fetch_sub(&l->refs, 1) != 1)
		return;
	for (size_t i = 0; i < CSM_PLUG_CHANNELS; i++)
		csm_channel_free(&l->channel[i]);
	free(l);
}

/* Nobody waits on it any longer; its process sees the end, and is ended where it does not see anything. */
static void link_break(struct csm_plugin_ctx *ctx, struct link *l, const char *why)
{
	if (atomic_exchange(&l->broken, true))
		return;
	for (size_t i = 0; i < CSM_PLUG_CHANNELS; i++)
		shutdown(l->channel[i].fd, SHUT_RDWR);
	remote_away(ctx, why);
	if (ctx->host->log != NULL)
		ctx->host->log(ctx->host->arg, 4, why);
	if (ctx->host->reset != NULL)
		ctx->host->reset(ctx->host->arg);
}

void link_drop(struct csm_plugin_ctx *ctx)
{
	struct link *l = ctx->link;

	ctx->link = NULL;
	if (l == NULL)
		return;
	for (size_t i = 0; i < CSM_PLUG_CHANNELS; i++)
		shutdown(l->channel[i].fd, SHUT_RDWR);
	link_unref(l);
}

/* ---- a back end that could not be opened yet keeps its process ---- */

static pthread_mutex_t parked_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	const struct csm_plugin_host *host;
	struct link *link;
} parked[CSM_PLUGHOSTS_MAX];

void link_park(struct csm_plugin_ctx *ctx)
{
	pthread_mutex_lock(&parked_lock);
	for (size_t i = 0; i < CSM_PLUGHOSTS_MAX && ctx->link != NULL && !ctx->link->broken; i++)
		if (parked[i].host == NULL) {
			parked[i].host = ctx->host;
			parked[i].link = ctx->link;
			ctx->link = NULL;
		}
	pthread_mutex_unlock(&parked_lock);
	link_drop(ctx);
}

static struct link *unpark(const struct csm_plugin_host *host)
{
	struct link *l = NULL;

	pthread_mutex_lock(&parked_lock);
	for (size_t i = 0; i < CSM_PLUGHOSTS_MAX && l == NULL; i++)
		if (parked[i].host == host) {
			l = parked[i].link;
			parked[i].host = NULL;
		}
	pthread_mutex_unlock(&parked_lock);
	return l;
}

void csm_remote_forget(const struct csm_plugin_host *host)
{
	link_unref(unpark(host));
}

/* ---- connecting ---- */

static int take_hello(struct csm_plugin_ctx *ctx, struct link *l, size_t i, uint8_t instance[static 16])
{
	const char *want = ctx->host->config != NULL ? ctx->host->config(ctx->host->arg, "csm.plugin") : NULL;
	struct csm_channel *c = &l->channel[i];
	struct csm_msg_plug_hello m;
	struct csm_frame f;
	int r = csm_channel_recv(c, csm_channel_now_ms() + ctx->call_ms, &f, NULL);

	if (r != 0)
		return r;
	if (f.type != CSM_NOTIFICATION || csm_plug_find(f.method) != CSM_PLUG_HELLO || !csm_channel_quiet(c))
		return CSM_EPROTOCOL;
	if ((r = csm_channel_decode(c, CSM_DEF(plug_hello), f.params, &m)) != 0)
		return r;
	if (m.abi.v != CSM_PLUGIN_ABI || m.instance.n != 16 || (want != NULL && !csm_str_eq(m.plugin, want)) ||
		(i > 0 && memcmp(instance, m.instance.p, 16) != 0))
		return CSM_EPROTOCOL;
	memcpy(instance, m.instance.p, 16);
	l->serial = (m.flags.v & CSM_PLUGIN_SERIAL) != 0;
	return 0;
}

static struct link *link_new(const struct csm_plugin_host *host)
{
	static atomic_ullong epochs;
	struct timeval wait = {.tv_sec = SEND_WAIT_S};
	struct link *l = calloc(1, sizeof(*l));
	size_t i;

	if (l == NULL)
		return NULL;
	l->epoch = atomic_fetch_add(&epochs, 1) + 1;
	atomic_init(&l->refs, 1);
	for (i = 0; i < CSM_PLUG_CHANNELS; i++) {
		int fd = host->device(host->arg);

		csm_channel_init(&l->channel[i], fd);
		if (fd < 0)
			break;
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
	}
	if (i == CSM_PLUG_CHANNELS)
		return l;
	for (; i < CSM_PLUG_CHANNELS; i++)
		l->channel[i].fd = -1;
	link_unref(l);
	return NULL;
}

int link_connect(struct csm_plugin_ctx *ctx)
{
	uint8_t instance[16];
	struct link *l = unpark(ctx->host);
	int r = 0;

	if (l != NULL && !l->broken) {
		ctx->serial = l->serial;
		ctx->link = l;
		return 0;
	}
	link_unref(l);
	l = link_new(ctx->host);
	if (l == NULL)
		return CSM_EUNAVAILABLE;
	for (size_t i = 0; i < CSM_PLUG_CHANNELS && r == 0; i++)
		r = take_hello(ctx, l, i, instance);
	if (r != 0) {
		link_break(ctx, l, r == CSM_EPROTOCOL ? "its process runs another back end, or does not speak as it should" :
							"its process does not answer");
		link_unref(l);
		return CSM_EUNAVAILABLE;
	}
	l->n = l->serial ? 1 : CSM_PLUG_CHANNELS;
	ctx->serial = l->serial;
	ctx->link = l;
	return 0;
}

/* ---- calls ---- */

static int open_over_there(struct csm_plugin_ctx *ctx)
{
	struct csm_msg_plug_call m = {0};
	struct csm_msg_plug_state state;
	struct call c = {.ctx = ctx, .link = ctx->link, .channel = &ctx->link->channel[0],
		.deadline_ms = csm_channel_now_ms() + ctx->call_ms * CSM_PLUG_LONG};
	int r = call_run(&c, CSM_PLUG_OPEN, &m, &state);

	if (r == 0 && (r = remote_take_state(ctx, &state)) != 0) {
		link_break(ctx, ctx->link, "its process tells of what no back end has");
		r = CSM_EUNAVAILABLE;
	}
	return r;
}

/* A link that works, under the lock. */
static int have_link(struct csm_plugin_ctx *ctx)
{
	int r;

	if (ctx->link != NULL && !ctx->link->broken)
		return 0;
	link_drop(ctx);
	if ((r = link_connect(ctx)) != 0)
		return r;
	r = open_over_there(ctx);
	/* Whoever opens anew may have more luck; this process keeps what it has learnt. */
	if (r != 0)
		link_park(ctx);
	return r;
}

static bool take_free(struct link *l, size_t *at)
{
	for (size_t i = 0; i < l->n; i++)
		if (!l->busy[i]) {
			l->busy[i] = true;
			*at = i;
			return true;
		}
	return false;
}

int call_begin(struct csm_plugin_ctx *ctx, unsigned times, struct call *ret)
{
	struct call c = {.ctx = ctx};
	int r;

	pthread_mutex_lock(&ctx->lock);
	while ((r = have_link(ctx)) == 0 && !take_free(ctx->link, &c.at))
		pthread_cond_wait(&ctx->free_now, &ctx->lock);
	if (r == 0) {
		c.link = ctx->link;
		atomic_fetch_add(&c.link->refs, 1);
	}
	pthread_mutex_unlock(&ctx->lock);
	if (r != 0)
		return r;
	c.channel = &c.link->channel[c.at];
	c.deadline_ms = csm_channel_now_ms() + ctx->call_ms * times;
	*ret = c;
	return 0;
}

int call_try(struct csm_plugin_ctx *ctx, struct call *ret)
{
	struct call c = {.ctx = ctx, .loop = true};
	int r = CSM_EBUSY;

	if (ctx->serial || pthread_mutex_trylock(&ctx->lock) != 0)
		return r;
	if (ctx->link != NULL && !ctx->link->broken && take_free(ctx->link, &c.at)) {
		c.link = ctx->link;
		atomic_fetch_add(&c.link->refs, 1);
		r = 0;
	}
	pthread_mutex_unlock(&ctx->lock);
	if (r != 0)
		return r;
	c.channel = &c.link->channel[c.at];
	c.deadline_ms = csm_channel_now_ms() + ctx->call_ms;
	*ret = c;
	return 0;
}

void call_end(struct call *c)
{
	pthread_mutex_lock(&c->ctx->lock);
	c->link->busy[c->at] = false;
	pthread_cond_signal(&c->ctx->free_now);
	pthread_mutex_unlock(&c->ctx->lock);
	link_unref(c->link);
}

/* What is to be unloaded goes before the call, in the same write; much of it with several calls. */
static int put_dead(struct csm_plugin_ctx *ctx, struct link *l, struct csm_channel *c)
{
	int r = 0;

	if (ctx->n_dead == 0)
		return 0;
	pthread_mutex_lock(&ctx->dead_lock);
	if (ctx->dead_epoch != l->epoch)
		ctx->n_dead = 0;
	for (size_t i = 0; r == 0 && i < DEAD_AT_ONCE && ctx->n_dead > 0; i++) {
		uint64_t e = ctx->dead[--ctx->n_dead];
		struct csm_msg_plug_call m = {.key = {e & ~(UINT64_C(1) << 63), true}};

		r = csm_channel_put(c, e >> 63 != 0 ? CSM_PLUG_SIGN_CLEANUP : CSM_PLUG_UNLOAD, &m, NULL);
	}
	pthread_mutex_unlock(&ctx->dead_lock);
	return r;
}

static void cut_off(struct call *c, int r)
{
	link_break(c->ctx, c->link,
		r == CSM_ECLOSED          ? "its process has ended" :
			r == CSM_ETIMEOUT ? "its process does not answer" :
					    "its process does not speak as it should: it is cut off");
}

int call_send(struct call *c, enum csm_plug_method what, const struct csm_msg_plug_call *m, uint32_t *id)
{
	struct csm_channel *ch = c->channel;
	int r = csm_channel_idle(ch);

	/* An answer before the question: whoever gives these need not read what is asked. */
	if (r != 0) {
		cut_off(c, r);
		return CSM_EUNAVAILABLE;
	}
	if ((r = put_dead(c->ctx, c->link, ch)) == 0)
		r = csm_channel_put(ch, what, m, id);
	if (r != 0) {
		csm_buf_reset(&ch->out);
		return r;
	}
	if ((r = csm_channel_send(ch, c->loop ? CSM_CHANNEL_NO_WAIT : c->deadline_ms, -1)) == 0)
		return 0;
	cut_off(c, r);
	return CSM_EUNAVAILABLE;
}

/* A message that has come: CSM_EBUSY when it was not yet the answer. *alive: it was in order. */
static int take(struct call *c, enum csm_plug_method what, uint32_t id, const struct csm_frame *f, void *res, bool *alive)
{
	int r;

	*alive = false;
	if (f->type != CSM_RESPONSE) {
		if ((r = hostside_serve(c, f)) != 0)
			return r;
		*alive = true;
		return CSM_EBUSY;
	}
	if (f->msgid != id || !csm_channel_quiet(c->channel))
		return CSM_EPROTOCOL;
	r = f->error.p != NULL ? csm_channel_error(c->channel, f->error) :
				 csm_channel_decode(c->channel, csm_plug_rows[what].response, f->result, res);
	*alive = r != CSM_EPROTOCOL;
	/* Said by the other side: no word of ours. */
	return r == CSM_EBUSY && f->error.p != NULL ? CSM_EUNAVAILABLE : r;
}

int call_run(struct call *c, enum csm_plug_method what, const struct csm_msg_plug_call *m, void *res)
{
	struct csm_frame f;
	uint32_t id = 0;
	bool alive = false;
	int r = call_send(c, what, m, &id);

	if (r != 0)
		return r;
	do {
		alive = false;
		if ((r = csm_channel_recv(c->channel, c->deadline_ms, &f, NULL)) == 0)
			r = take(c, what, id, &f, res, &alive);
	} while (alive && r == CSM_EBUSY);
	if (alive)
		return r;
	cut_off(c, r);
	return CSM_EUNAVAILABLE;
}

int call_poll(struct call *c, enum csm_plug_method what, uint32_t id, void *res)
{
	struct csm_frame f;
	bool alive = false;
	int r;

	do {
		alive = false;
		if ((r = csm_channel_poll(c->channel, &f)) == CSM_EBUSY)
			return r;
		if (r == 0)
			r = take(c, what, id, &f, res, &alive);
	} while (alive && r == CSM_EBUSY);
	if (alive)
		return r;
	cut_off(c, r);
	return CSM_EUNAVAILABLE;
}

void call_break(struct call *c)
{
	cut_off(c, CSM_ETIMEOUT);
}

void link_forget(struct csm_plugin_ctx *ctx, uint64_t epoch, uint64_t number, bool op)
{
	uint64_t *more;

	pthread_mutex_lock(&ctx->dead_lock);
	if (epoch > ctx->dead_epoch) {
		ctx->dead_epoch = epoch;
		ctx->n_dead = 0;
	}
	if (epoch == ctx->dead_epoch && ctx->n_dead == ctx->cap_dead && ctx->cap_dead < DEAD_MAX) {
		more = realloc(ctx->dead, (ctx->cap_dead + 64) * sizeof(*more));
		if (more != NULL) {
			ctx->dead = more;
			ctx->cap_dead += 64;
		}
	}
	/* Without memory it stays loaded over there, for as long as that process lives. */
	if (epoch == ctx->dead_epoch && ctx->n_dead < ctx->cap_dead)
		ctx->dead[ctx->n_dead++] = number | (op ? UINT64_C(1) << 63 : 0);
	pthread_mutex_unlock(&ctx->dead_lock);
}
