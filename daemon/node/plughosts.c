#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "daemon/node/supervisor.h"
#include "daemon/svc/log.h"

#define ARGS_MAX 64u

void plughosts_find(struct plughosts *p, const struct files *f, int64_t now_ms)
{
	for (p->n = 0; p->n < f->cfg.n_plughosts; p->n++) {
		struct helper *h = &p->h[p->n];

		helper_find(h, "csm-plughost", CSM_R_PLUGHOST);
		snprintf(p->names[p->n], sizeof(p->names[0]), "csm-plughost %s", f->cfg.plughosts[p->n].name);
		h->name = p->names[p->n];
		/* Started by root it runs as nobody but its own user. */
		helper_want(h, geteuid() != 0 || f->plughosts[p->n].uid != (uid_t)-1, now_ms);
	}
}

struct args {
	char *v[ARGS_MAX + 1];
	size_t n;
	bool full; /* or without memory */
};

static void add(struct args *a, const char *option, const char *value)
{
	char *copy = strdup(option), *second = value != NULL ? strdup(value) : NULL;

	if (a->n + 2 > ARGS_MAX || copy == NULL || (value != NULL && second == NULL)) {
		a->full = true;
		free(copy);
		free(second);
		return;
	}
	a->v[a->n++] = copy;
	if (second != NULL)
		a->v[a->n++] = second;
}

static void add_number(struct args *a, const char *option, unsigned n)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", n);
	add(a, option, text);
}

static void free_args(struct args *a)
{
	for (size_t i = 0; i < a->n; i++)
		free(a->v[i]);
}

/* The folder that a library is in, for those that it loads by itself. */
static void add_folder_of(struct args *a, const char *path)
{
	char dir[512], *slash;

	if ((size_t)snprintf(dir, sizeof(dir), "%s", path) >= sizeof(dir))
		return;
	slash = strrchr(dir, '/');
	if (slash == NULL || slash == dir)
		return;
	*slash = '\0';
	add(a, "--read", dir);
}

static void make_args(struct args *a, const struct csm_plughost_config *c, const struct file_plughost *u, const struct files *f)
{
	static const char *const networks[] = {"none", "local", "full"};
	const char *module = csm_plughost_option(c, "module"), *folder = csm_plughost_option(c, "folder");
	char text[600];

	snprintf(text, sizeof(text), "csm-plughost: %s", c->name);
	add(a, text, NULL);
	snprintf(text, sizeof(text), "%s/%s.so", f->plugin_dir, c->type);
	add(a, "--plugin", text);
	if (u->uid != (uid_t)-1) {
		add_number(a, "--uid", u->uid);
		add_number(a, "--gid", u->gid);
	}
	add(a, "--network", networks[c->network]);
	add(a, "--log-level", f->cfg.log_level);
	if (module != NULL)
		add_folder_of(a, module);
	if (folder != NULL)
		add(a, "--read", folder);
	for (size_t i = 0; i < CSM_PLUGHOST_LIST_MAX && c->read[i] != NULL; i++)
		add(a, "--read", c->read[i]);
	for (size_t i = 0; i < CSM_PLUGHOST_LIST_MAX && c->write[i] != NULL; i++)
		add(a, "--write", c->write[i]);
	if (f->cfg.require_sandbox)
		add(a, "--sandbox-required", NULL);
}

static void make_env(struct args *e, const struct csm_plughost_config *c)
{
	char text[CSM_TOKEN_STR_MAX + 4200];

	for (size_t i = 0; i < CSM_PLUGHOST_LIST_MAX && c->environment[i].name != NULL; i++) {
		snprintf(text, sizeof(text), "%s=%s", c->environment[i].name, c->environment[i].value);
		add(e, text, NULL);
	}
}

static void start_one(struct helper *h, size_t i, int control, const struct files *f, int64_t now_ms)
{
	struct args args = {.n = 0}, env = {.n = 0};
	struct helper_start how = {.control = control, .argv = args.v, .envp = env.v, .sockets = CSM_PLUG_CHANNELS,
		.plughost = (int)i, .now_ms = now_ms};

	make_args(&args, &f->cfg.plughosts[i], &f->plughosts[i], f);
	make_env(&env, &f->cfg.plughosts[i]);
	if (args.full || env.full) {
		log_err("backends: %s: it cannot be started: its settings do not fit", f->cfg.plughosts[i].name);
		h->again_ms = now_ms + 2000;
	} else {
		helper_start_as(h, &how);
	}
	free_args(&args);
	free_args(&env);
}

void plughosts_start(struct plughosts *p, int control, const struct files *f, int64_t now_ms)
{
	for (size_t i = 0; i < p->n; i++)
		if (p->h[i].again_ms >= 0 && now_ms >= p->h[i].again_ms)
			start_one(&p->h[i], i, control, f, now_ms);
}

void plughosts_reset(struct plughosts *p, const struct plug_channel *which)
{
	struct helper *h = which->plughost < p->n ? &p->h[which->plughost] : NULL;

	if (h != NULL && h->pid > 0 && h->generation == which->generation)
		kill(h->pid, SIGKILL);
}

bool plughosts_reap(struct plughosts *p, pid_t pid, int status, bool stopping, int64_t now_ms)
{
	for (size_t i = 0; i < p->n; i++)
		if (helper_reap(&p->h[i], pid, status, stopping, now_ms))
			return true;
	return false;
}

int64_t plughosts_next(const struct plughosts *p)
{
	int64_t next = -1;

	for (size_t i = 0; i < p->n; i++)
		if (p->h[i].again_ms >= 0 && (next < 0 || p->h[i].again_ms < next))
			next = p->h[i].again_ms;
	return next;
}

bool plughosts_run(const struct plughosts *p)
{
	for (size_t i = 0; i < p->n; i++)
		if (p->h[i].pid > 0)
			return true;
	return false;
}

void plughosts_kill(struct plughosts *p)
{
	for (size_t i = 0; i < p->n; i++)
		if (p->h[i].pid > 0)
			kill(p->h[i].pid, SIGKILL);
}
