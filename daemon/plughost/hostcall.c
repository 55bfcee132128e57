#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "daemon/plughost/serve.h"
#include "daemon/svc/log.h"

static __thread struct csm_channel *serving;

void hostcall_serving(struct csm_channel *c)
{
	serving = c;
}

/* Ask the broker and wait. The slices of *ret live until the channel receives again. A channel that fails ends us. */
static int ask(enum csm_plug_method what, const struct csm_msg_host_call *m, struct csm_msg_host_result *ret, int *passed)
{
	struct csm_channel *c = serving;
	struct csm_frame f;
	uint32_t id;
	int r;

	/* Threads of the back end's own have nobody to ask. */
	if (c == NULL)
		return CSM_EUNAVAILABLE;
	if ((r = csm_channel_put(c, what, m, &id)) != 0)
		return r;
	r = csm_channel_send(c, 0, -1);
	if (r == 0)
		r = csm_channel_recv(c, 0, &f, passed);
	if (r != 0 || f.type != CSM_RESPONSE || f.msgid != id) {
		log_debug("the broker is gone");
		_exit(0);
	}
	if (f.error.p != NULL)
		return csm_channel_error(c, f.error);
	return csm_channel_decode(c, CSM_DEF(host_result), f.result, ret);
}

static int host_device(void *arg)
{
	struct csm_msg_host_call m = {0};
	struct csm_msg_host_result res = {0};
	int fd = -1;

	(void)arg;
	if (ask(CSM_PLUG_DEVICE, &m, &res, &fd) != 0 && fd >= 0) {
		close(fd);
		fd = -1;
	}
	if (fd < 0)
		errno = ENODEV;
	return fd;
}

static int host_remember(void *arg, const char *name, const uint8_t *p, size_t len)
{
	struct csm_msg_host_call m = {.name = csm_str_of(name), .data = {p, len}};
	struct csm_msg_host_result res = {0};

	(void)arg;
	return ask(CSM_PLUG_REMEMBER, &m, &res, NULL);
}

static int fetch(enum csm_plug_method what, const char *name, uint8_t *p, size_t *len)
{
	struct csm_msg_host_call m = {.name = csm_str_of(name)};
	struct csm_msg_host_result res = {0};
	int r = ask(what, &m, &res, NULL);

	if (r != 0)
		return r;
	if (res.data.n > *len)
		return CSM_ETOO_LARGE;
	if (res.data.n > 0)
		memcpy(p, res.data.p, res.data.n);
	*len = res.data.n;
	return 0;
}

static int host_recall(void *arg, const char *name, uint8_t *p, size_t *len)
{
	(void)arg;
	return fetch(CSM_PLUG_RECALL, name, p, len);
}

static int host_secret(void *arg, const char *name, uint8_t *p, size_t *len)
{
	(void)arg;
	return fetch(CSM_PLUG_SECRET, name, p, len);
}

static void host_secret_refused(void *arg, const char *name)
{
	struct csm_msg_host_call m = {.name = csm_str_of(name)};
	struct csm_msg_host_result res = {0};

	(void)arg;
	if (ask(CSM_PLUG_SECRET_REFUSED, &m, &res, NULL) != 0)
		log_err("a secret that was refused could not be told");
}

static void host_reset(void *arg)
{
	struct csm_msg_host_call m = {0};
	struct csm_msg_host_result res = {0};

	(void)arg;
	if (ask(CSM_PLUG_RESET, &m, &res, NULL) != 0)
		log_debug("reset: not told");
}

/* Sent along with what is sent next: nobody waits for it. */
static void host_log(void *arg, int level, const char *text)
{
	struct csm_msg_host_call m = {
		.level = {level < 0 ? 0u : level > 7 ? 7u : (uint64_t)level, true}, .text = csm_str_of(text)};

	(void)arg;
	if (m.text.n > 400)
		m.text.n = 400;
	if (!csm_utf8_valid(m.text.p, m.text.n))
		m.text = csm_str_of("a line that is not text");
	if (serving == NULL || csm_channel_put(serving, CSM_PLUG_LOG, &m, NULL) != 0)
		csm_log(level, "%.*s", (int)m.text.n, m.text.p);
}

static struct setting *known(struct server *s, const char *name)
{
	struct setting *e;

	pthread_mutex_lock(&s->lock);
	for (e = s->settings; e != NULL && strcmp(e->name, name) != 0; e = e->next)
		;
	pthread_mutex_unlock(&s->lock);
	return e;
}

static struct setting *keep(struct server *s, const char *name, struct csm_str value)
{
	struct setting *e = calloc(1, sizeof(*e));

	if (e == NULL)
		return NULL;
	e->name = strdup(name);
	e->value = value.p != NULL ? strndup(value.p, value.n) : NULL;
	if (e->name == NULL || (value.p != NULL && e->value == NULL)) {
		free(e->name);
		free(e->value);
		free(e);
		return NULL;
	}
	pthread_mutex_lock(&s->lock);
	e->next = s->settings;
	s->settings = e;
	pthread_mutex_unlock(&s->lock);
	return e;
}

/* Asked for once; the string is good for as long as the process. */
static const char *host_config(void *arg, const char *name)
{
	struct csm_msg_host_call m = {.name = csm_str_of(name)};
	struct csm_msg_host_result res = {0};
	struct server *s = arg;
	struct setting *e = known(s, name);

	if (e == NULL && ask(CSM_PLUG_CONFIG, &m, &res, NULL) == 0)
		e = keep(s, name, res.text);
	return e != NULL ? e->value : NULL;
}

void hostcall_init(struct server *s)
{
	s->host = (struct csm_plugin_host){.arg = s, .device = host_device, .remember = host_remember,
		.recall = host_recall, .log = host_log, .config = host_config, .secret = host_secret,
		.secret_refused = host_secret_refused, .reset = host_reset};
}
