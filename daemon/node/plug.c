#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "daemon/node/loop.h"
#include "daemon/node/plug_int.h"
#include "daemon/svc/log.h"

#define RECORDS_MAX 16u    /* of one back end, with what csm keeps for it */
#define SAME_LINE_MS 60000u
#define LINES_PER_SECOND 20u

static struct plug plugs[CSM_PLUGHOSTS_MAX];

unsigned plug_number(const struct plug *p)
{
	return p->number;
}

/* ---- channels ---- */

void plug_take(struct broker *b, const struct control_msg *msg)
{
	struct plug_channel which;
	struct host_arg *a;
	struct plug *p;
	bool all;

	memcpy(&which, msg->body + 1, sizeof(which));
	a = host_arg_of(b, which.plughost);
	if (a == NULL || which.channel >= CSM_PLUG_CHANNELS) {
		close(msg->fd);
		return;
	}
	p = a->plug;
	pthread_mutex_lock(&p->lock);
	if (which.generation != p->generation)
		while (p->come > p->taken)
			close(p->fd[--p->come]);
	if (which.generation != p->generation || p->come == CSM_PLUG_CHANNELS) {
		p->generation = which.generation;
		p->come = p->taken = 0;
	}
	p->fd[p->come++] = msg->fd;
	all = p->come == CSM_PLUG_CHANNELS;
	pthread_mutex_unlock(&p->lock);
	if (all)
		host_look(a);
}

/* The next channel of a process of which all have come. */
static int plug_device(void *arg)
{
	struct plug *p = ((struct host_arg *)arg)->plug;
	int fd = -1;

	pthread_mutex_lock(&p->lock);
	if (p->come == CSM_PLUG_CHANNELS && p->taken < p->come)
		fd = p->fd[p->taken++];
	pthread_mutex_unlock(&p->lock);
	errno = EAGAIN;
	return fd;
}

static void plug_reset(void *arg)
{
	struct plug *p = ((struct host_arg *)arg)->plug;
	struct plug_channel which = {.plughost = p->number};

	pthread_mutex_lock(&p->lock);
	which.generation = p->generation;
	/* One that has come meanwhile is not meant. */
	if (p->come > 0 && p->taken == 0)
		which.generation--;
	pthread_mutex_unlock(&p->lock);
	if (control_send(CONTROL_FD, CTL_PLUG_RESET, &which, sizeof(which), -1) != 0)
		log_warn("%s: its process could not be ended", p->c->name);
}

/* ---- what the back end asks for ---- */

static const char *plug_config(void *arg, const char *name)
{
	static __thread char number[16];
	struct host_arg *a = arg;
	struct plug *p = a->plug;
	const char *own;

	if (strcmp(name, "csm.plugin") == 0)
		return p->c->type;
	if (strcmp(name, "csm.timeout_ms") == 0)
		return p->timeout;
	if (strcmp(name, "csm.device") == 0) {
		snprintf(number, sizeof(number), "%d", strcmp(p->c->type, "tpm2") == 0 ? host_ask_device(NULL) : -1);
		return number;
	}
	own = csm_plughost_option(p->c, name);
	if (own == NULL && strcmp(p->c->type, "tpm2") == 0 && strcmp(name, "owner_auth") != 0)
		own = host_tpm_config(a, name);
	/* It is there because somebody has written it down. */
	return own == NULL && strcmp(p->c->type, "fake") == 0 && strcmp(name, "script") == 0 ? "" : own;
}

bool plug_record_name(const struct plug *p, const char *name, char out[static PLUG_RECORD_NAME_MAX])
{
	return (size_t)snprintf(out, PLUG_RECORD_NAME_MAX, "plug.%s.%s", p->c->name, name) < PLUG_RECORD_NAME_MAX;
}

static int plug_remember(void *arg, const char *name, const uint8_t *data, size_t len)
{
	struct host_arg *a = arg;
	char full[PLUG_RECORD_NAME_MAX], all[PLUG_RECORD_NAME_MAX];
	uint8_t old[256];
	size_t n = sizeof(old), have = 0;
	int r = 0;

	if (len > sizeof(old) || !plug_record_name(a->plug, name, full) || !plug_record_name(a->plug, "", all))
		return CSM_ETOO_LARGE;
	pthread_mutex_lock(&a->plug->lock);
	if (csm_store_recall(a->pins, full, old, &n) == CSM_ENOT_FOUND)
		r = csm_store_recall_count(a->pins, all, &have);
	if (r == 0)
		r = have < RECORDS_MAX ? csm_store_remember_now(a->pins, full, data, len) : CSM_ENO_SPACE;
	pthread_mutex_unlock(&a->plug->lock);
	return r;
}

static int plug_recall(void *arg, const char *name, uint8_t *data, size_t *len)
{
	struct host_arg *a = arg;
	char full[PLUG_RECORD_NAME_MAX];

	return plug_record_name(a->plug, name, full) ? csm_store_recall(a->pins, full, data, len) : CSM_ENOT_FOUND;
}

static void plug_log(void *arg, int level, const char *text)
{
	struct plug *p = ((struct host_arg *)arg)->plug;
	uint64_t now = monotonic_ms();
	bool same;

	if (level <= LOG_WARNING)
		csm_backend_said(((struct host_arg *)arg)->be, text);
	/* What is tried again each second says the same each second. */
	pthread_mutex_lock(&p->lock);
	same = strncmp(p->last_line, text, sizeof(p->last_line) - 1) == 0 && now - p->last_line_ms < SAME_LINE_MS;
	if (now - p->lines_ms >= 1000) {
		p->lines_ms = now;
		p->lines = 0;
	}
	/* Nor does it fill the log. */
	same = same || ++p->lines > LINES_PER_SECOND;
	if (!same) {
		snprintf(p->last_line, sizeof(p->last_line), "%s", text);
		p->last_line_ms = now;
	}
	pthread_mutex_unlock(&p->lock);
	if (!same)
		csm_log(level, "%s: %s", p->c->name, text);
}

void plug_init(struct host_arg *a, unsigned number)
{
	struct plug *p = &plugs[number];

	*p = (struct plug){.c = &a->b->cfg.plughosts[number], .number = number};
	pthread_mutex_init(&p->lock, NULL);
	snprintf(p->timeout, sizeof(p->timeout), "%u", p->c->timeout_ms);
	a->plug = p;
	csm_backend_use(a->be, &csm_plugin_remote, p->c->name, CSM_PLUG_CHANNELS);
	a->be->host = (struct csm_plugin_host){.arg = a, .device = plug_device, .reset = plug_reset, .remember = plug_remember,
		.recall = plug_recall, .log = plug_log, .config = plug_config, .secret = plug_secret,
		.secret_refused = plug_secret_refused};
}
