/* The broker's side of one csm-plughost: its channels, and calls over them. */
#ifndef CSM_REMOTE_LINK_H
#define CSM_REMOTE_LINK_H

#include <pthread.h>
#include <stdatomic.h>
#include "plugins/remote/channel.h"
#include "plugins/remote/remote.h"

/* The channels of one process. */
struct link {
	uint64_t epoch;      /* differs for each process */
	atomic_uint refs;    /* the context's, and one of each call */
	atomic_bool broken;
	bool serial;
	size_t n;            /* channels that are used */
	struct csm_channel channel[CSM_PLUG_CHANNELS];
	bool busy[CSM_PLUG_CHANNELS]; /* under the context's lock */
};

struct csm_plugin_ctx {
	const struct csm_plugin_host *host;
	int64_t call_ms;
	pthread_mutex_t lock;     /* of the link, and while one is made */
	pthread_cond_t free_now;
	struct link *link;        /* NULL: none */
	struct csm_plugin_caps caps;
	atomic_uint slots;
	atomic_bool serial;
	uint64_t *dead;           /* numbers to be unloaded, of the link with dead_epoch; under dead_lock */
	size_t n_dead, cap_dead;
	uint64_t dead_epoch;
	pthread_mutex_t dead_lock;
	pthread_mutex_t health_lock; /* of what follows */
	struct csm_plugin_health health;
	char reason[161], device[161], protection[CSM_TOKEN_STR_MAX + 1];
};

/* Kept whole, so that it can be loaded anew in the next process. */
struct csm_plugin_key {
	struct csm_plugin_keyspec spec;
	uint64_t epoch, number; /* of the link that has it; epoch 0: none */
	uint8_t *parts;         /* locked memory */
	struct csm_plugin_blob blob;
};

/* A call in hand: a channel of its own. */
struct call {
	struct csm_plugin_ctx *ctx;
	struct link *link;
	struct csm_channel *channel;
	size_t at;
	int64_t deadline_ms;
	bool loop;     /* an event loop's: it waits for nothing, not for a send either */
	unsigned asks, requests, records; /* of the back end, during this call; requests: asks that are answered */
};

/* Make the link, or take the one that was kept from a try before. With ctx->lock held. */
CSM_MUST int link_connect(struct csm_plugin_ctx *ctx);
/* Close the context's link; the process behind it ends. */
void link_drop(struct csm_plugin_ctx *ctx);
/* Keep the link for the next try to open a back end of this host. */
void link_park(struct csm_plugin_ctx *ctx);

/* Take a channel, waiting for one that is free; `times` as long as usual is the whole call's. CSM_EUNAVAILABLE. */
CSM_MUST int call_begin(struct csm_plugin_ctx *ctx, unsigned times, struct call *ret);
/* Ask, and serve what is asked back. Slices of *res live until the next run or the end. What is no answer breaks the
 * link: CSM_EUNAVAILABLE. */
CSM_MUST int call_run(struct call *c, enum csm_plug_method what, const struct csm_msg_plug_call *m, void *res);
void call_end(struct call *c);
/* The same in halves. call_try: without waiting, CSM_EBUSY when there is no free channel of a link that works, or the back
 * end inside is SERIAL. call_poll: CSM_EBUSY while the answer is not there. call_break: it will not come. */
CSM_MUST int call_try(struct csm_plugin_ctx *ctx, struct call *ret);
CSM_MUST int call_send(struct call *c, enum csm_plug_method what, const struct csm_msg_plug_call *m, uint32_t *id);
CSM_MUST int call_poll(struct call *c, enum csm_plug_method what, uint32_t id, void *res);
void call_break(struct call *c);

/* Forget a loaded key or an operation over there; sent along with the next call. */
void link_forget(struct csm_plugin_ctx *ctx, uint64_t epoch, uint64_t number, bool op);

/* ---- hostside.c: what the back end asks of its host ---- */
/* Answer it, without waiting on a loop. CSM_EPROTOCOL: it must not be asked, or not as often. */
CSM_MUST int hostside_serve(struct call *c, const struct csm_frame *f);

/* ---- remote.c ---- */
/* Take over what plug.open or plug.state told. CSM_EPROTOCOL. */
CSM_MUST int remote_take_state(struct csm_plugin_ctx *ctx, const struct csm_msg_plug_state *m);
/* One line for people out of a text of the other side's, whatever it holds: controls and what turns the direction of writing are
 * blanks. to is ended with a zero; what does not fit is cut at a whole character. text is UTF-8. */
void remote_plain(char *to, size_t cap, struct csm_str text);
/* It is not usable: why. */
void remote_away(struct csm_plugin_ctx *ctx, const char *why);

#endif
