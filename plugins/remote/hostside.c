#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "libclient/base/lockmem.h"
#include "plugins/remote/link.h"

#define DATA_MAX 4096u
#define ASKS_MAX 256u        /* in one call */
#define LOOP_REQUESTS_MAX 8u /* of them while an event loop serves: as many as a login takes */
#define RECORDS_MAX 16u      /* each is a commit of the store */
#define LOWER "abcdefghijklmnopqrstuvwxyz0123456789._-"

/* Names of records, settings and secrets: plain, and none of csm's own. */
static bool name_of(struct csm_str s, char out[static CSM_TOKEN_STR_MAX + 1])
{
	if (s.n == 0 || s.n > CSM_TOKEN_STR_MAX)
		return false;
	memcpy(out, s.p, s.n);
	out[s.n] = '\0';
	return strspn(out, LOWER) == s.n && strncmp(out, "csm.", 4) != 0;
}

static int fetch(const struct csm_plugin_host *h, enum csm_plug_method what, const char *name, uint8_t *p,
	struct csm_msg_host_result *res)
{
	int (*get)(void *arg, const char *name, uint8_t *p, size_t *len) = what == CSM_PLUG_SECRET ? h->secret : h->recall;
	size_t n = DATA_MAX;
	int r = get == NULL ? CSM_ENOT_FOUND : get(h->arg, name, p, &n);

	if (r == 0)
		res->data = (struct csm_bin){p, n};
	return r;
}

/* A line for the log is one line, whatever it holds. */
static void log_line(const struct csm_plugin_host *h, const struct csm_msg_host_call *m)
{
	char text[513];

	if (h->log == NULL || m->text.p == NULL)
		return;
	remote_plain(text, sizeof(text), m->text);
	/* Nothing in there is worse than a warning to the node. */
	h->log(h->arg, m->level.v < 4 ? 4 : (int)m->level.v, text);
}

static int answer(const struct csm_plugin_host *h, enum csm_plug_method what, const struct csm_msg_host_call *m, uint8_t *p,
	struct csm_msg_host_result *res, int *pass)
{
	char name[CSM_TOKEN_STR_MAX + 1];
	const char *text;

	if (what == CSM_PLUG_RESET)
		return CSM_EUNSUPPORTED; /* a device of its own is its own affair */
	if (what == CSM_PLUG_DEVICE) {
		text = h->config != NULL ? h->config(h->arg, "csm.device") : NULL;
		*pass = text != NULL ? (int)strtol(text, NULL, 10) : -1;
		return *pass >= 0 ? 0 : CSM_EUNAVAILABLE;
	}
	if (!name_of(m->name, name))
		return CSM_EINVALID;
	switch (what) {
	case CSM_PLUG_CONFIG:
		text = h->config != NULL ? h->config(h->arg, name) : NULL;
		if (text != NULL)
			res->text = csm_str_of(text);
		return 0;
	case CSM_PLUG_SECRET_REFUSED:
		if (h->secret_refused != NULL)
			h->secret_refused(h->arg, name);
		return 0;
	case CSM_PLUG_REMEMBER:
		return h->remember == NULL ? CSM_EUNSUPPORTED : h->remember(h->arg, name, m->data.p, m->data.n);
	default:
		return fetch(h, what, name, p, res);
	}
}

/* As often as a back end that does as it should may ask, and one request at a time. */
static bool may_ask(struct call *c, enum csm_plug_method what)
{
	if (what < CSM_PLUG_CONFIG || what >= CSM_PLUG__COUNT || ++c->asks > ASKS_MAX)
		return false;
	if (what == CSM_PLUG_LOG)
		return true;
	if ((what == CSM_PLUG_REMEMBER || what == CSM_PLUG_SECRET_REFUSED) && ++c->records > RECORDS_MAX)
		return false;
	return (++c->requests <= LOOP_REQUESTS_MAX || !c->loop) && csm_channel_quiet(c->channel);
}

int hostside_serve(struct call *call, const struct csm_frame *f)
{
	enum csm_plug_method what = csm_plug_find(f->method);
	const struct csm_plugin_host *h = call->ctx->host;
	struct csm_channel *c = call->channel;
	struct csm_msg_host_result res = {0};
	struct csm_msg_host_call m;
	uint32_t id = f->msgid;
	uint8_t *p;
	int r, pass = -1;

	if (!may_ask(call, what) || (f->type == CSM_NOTIFICATION) != (what == CSM_PLUG_LOG))
		return CSM_EPROTOCOL;
	if ((r = csm_channel_decode(c, CSM_DEF(host_call), f->params, &m)) != 0)
		return r;
	if (what == CSM_PLUG_LOG) {
		log_line(h, &m);
		return 0;
	}
	p = csm_lock_alloc(DATA_MAX);
	if (p == NULL)
		return CSM_ENOMEM;
	r = answer(h, what, &m, p, &res, &pass);
	r = r == 0 ? csm_frame_result(&c->out, id, CSM_DEF(host_result), &res) : csm_frame_error(&c->out, id, r, NULL, 0);
	if (r == 0)
		r = csm_channel_send(c, call->loop ? CSM_CHANNEL_NO_WAIT : call->deadline_ms, pass);
	if (pass >= 0)
		close(pass);
	csm_lock_free(p);
	return r;
}
