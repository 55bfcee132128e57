/* csm-plughost's work: one back end's table, served over the channels of plughost.def. */
#ifndef CSM_PLUGHOST_SERVE_H
#define CSM_PLUGHOST_SERVE_H

#include <pthread.h>
#include <stdatomic.h>
#include "plugins/include/csm_plugin.h"
#include "plugins/remote/channel.h"

#define PLUGHOST_FD 3 /* the first channel's number; the others follow */

/* A loaded key or a begun operation, by the number that the broker has for it. */
struct held {
	uint32_t turn; /* differs each time that the place is filled */
	bool used;
	struct csm_plugin_key *key;
	struct csm_plugin_op *op;
};

/* What is to be unloaded before the next request of a channel: it was told before that came, and may make the back end
 * ask its host, which only a request may. */
struct ended {
	uint64_t *number;
	size_t n, cap;
};

struct setting {
	char *name, *value;
	struct setting *next;
};

struct server {
	const struct csm_plugin *plugin;
	struct csm_plugin_host host;
	_Atomic(struct csm_plugin_ctx *) ctx; /* NULL until opened */
	struct csm_plugin_caps caps;
	pthread_mutex_t lock;       /* of all below, and of open */
	pthread_cond_t free_now;
	struct setting *settings;   /* what the plugin was told: its strings stay */
	struct held *held;          /* CSM_PLUG_KEYS_MAX */
	uint32_t first_free, turns;
	unsigned working;           /* calls in hand */
	struct csm_channel channel[CSM_PLUG_CHANNELS];
	struct ended ended[CSM_PLUG_CHANNELS]; /* of each, touched by its thread */
};

/* Until the broker is gone. Returns the exit status. */
int plughost_serve(struct server *s);

/* ---- hostcall.c: what the back end asks of its host, over the channel whose request the calling thread works for ---- */
void hostcall_init(struct server *s);
void hostcall_serving(struct csm_channel *c); /* this thread now works for c's request; NULL: for none */

/* ---- held.c ---- */
CSM_MUST int held_init(struct server *s);
/* 0 when there is no place. */
uint64_t held_put(struct server *s, struct csm_plugin_key *key, struct csm_plugin_op *op);
struct csm_plugin_key *held_key(struct server *s, uint64_t number);
struct csm_plugin_op *held_op(struct server *s, uint64_t number);
/* Take it out; the caller ends it. */
struct held held_take(struct server *s, uint64_t number);
/* Each that is left, taken out. */
bool held_next(struct server *s, struct held *ret);

/* ---- calls.c: one request ---- */
/* Do it and put the answer, or a refusal, into c->out. */
CSM_MUST int calls_answer(struct server *s, struct csm_channel *c, const struct csm_frame *f);

#endif
