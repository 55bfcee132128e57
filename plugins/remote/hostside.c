#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "libclient/base/lockmem.h"
#include "plugins/remote/link.h"

#define DATA_MAX 4096u
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
	size_t n = m->text.n < sizeof(text) ? m->text.n : sizeof(text) - 1;

	if (h->log == NULL || m->text.p == NULL)
		return;
	for (size_t i = 0; i < n; i++)
		text[i] = (unsigned char)m->text.p[i] < 0x20 || m->text.p[i] == 0x7f ? ' ' : m->text.p[i];
	text[n] = '\0';
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

int hostside_serve(struct csm_plugin_ctx *ctx, struct csm_channel *c, const struct csm_frame *f, int64_t deadline_ms)
{
	enum csm_plug_method what = csm_plug_find(f->method);
	struct csm_msg_host_result res = {0};
	struct csm_msg_host_call m;
	uint32_t id = f->msgid;
	uint8_t *p;
	int r, pass = -1;

	if (what < CSM_PLUG_CONFIG || what >= CSM_PLUG__COUNT || (f->type == CSM_NOTIFICATION) != (what == CSM_PLUG_LOG))
		return CSM_EPROTOCOL;
	if ((r = csm_channel_decode(c, CSM_DEF(host_call), f->params, &m)) != 0)
		return r;
	if (what == CSM_PLUG_LOG) {
		log_line(ctx->host, &m);
		return 0;
	}
	p = csm_lock_alloc(DATA_MAX);
	if (p == NULL)
		return CSM_ENOMEM;
	r = answer(ctx->host, what, &m, p, &res, &pass);
	r = r == 0 ? csm_frame_result(&c->out, id, CSM_DEF(host_result), &res) : csm_frame_error(&c->out, id, r, NULL, 0);
	if (r == 0)
		r = csm_channel_send(c, deadline_ms, pass);
	if (pass >= 0)
		close(pass);
	csm_lock_free(p);
	return r;
}
