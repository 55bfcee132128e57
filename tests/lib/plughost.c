#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "tests/lib/plughost.h"

#define WAIT_MS 5000

/* build/asan/tests/unit/test_x: build/asan. */
static void build_dir(char out[static PATH_MAX])
{
	ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - 1);

	out[n > 0 ? n : 0] = '\0';
	for (int i = 0; i < 3; i++) {
		char *slash = strrchr(out, '/');

		if (slash != NULL)
			*slash = '\0';
	}
}

static void wait_end(struct plughost *h)
{
	struct timespec ms = {.tv_nsec = 1000000};

	for (int i = 0; h->pid > 0; i++) {
		if (waitpid(h->pid, NULL, WNOHANG) == h->pid) {
			h->pid = 0;
		} else {
			if (i == WAIT_MS)
				kill(h->pid, SIGKILL);
			nanosleep(&ms, NULL);
		}
	}
}

static void child(const struct plughost *h, int pair[][2])
{
	char exe[PATH_MAX + 32], dir[PATH_MAX];
	int fd[CSM_PLUG_CHANNELS];

	build_dir(dir);
	snprintf(exe, sizeof(exe), "%s/bin/csm-plughost", dir);
	for (size_t i = 0; i < CSM_PLUG_CHANNELS; i++)
		if ((fd[i] = fcntl(pair[i][1], F_DUPFD, 20)) < 0)
			_exit(127);
	for (size_t i = 0; i < CSM_PLUG_CHANNELS; i++)
		if (dup2(fd[i], 3 + (int)i) < 0)
			_exit(127);
	closefrom(3 + (int)CSM_PLUG_CHANNELS);
	const char *write_to = getenv("CSM_PLUGIN_WRITE");

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* What a library may write to, as csmd.yaml would say it. */
	execl(exe, "csm-plughost", "--plugin", h->plugin, "--read", dir, "--network", "local", "--log-level", "error",
		"--read", h->read != NULL ? h->read : dir, write_to != NULL ? "--write" : NULL, write_to, NULL);
	perror(exe);
	_exit(127);
}

static int start(struct plughost *h)
{
	int pair[CSM_PLUG_CHANNELS][2];

	wait_end(h);
	for (size_t i = 0; i < CSM_PLUG_CHANNELS; i++)
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair[i]) != 0)
			return -1;
	h->pid = fork();
	if (h->pid == 0)
		child(h, pair);
	for (size_t i = 0; i < CSM_PLUG_CHANNELS; i++) {
		close(pair[i][1]);
		h->fd[i] = pair[i][0];
	}
	h->next = 0;
	h->starts++;
	return h->pid > 0 ? 0 : -1;
}

static int device(void *arg)
{
	struct plughost *h = arg;

	if (h->next == CSM_PLUG_CHANNELS && (h->held || start(h) != 0)) {
		errno = EAGAIN;
		return -1;
	}
	return h->fd[h->next++];
}

static void reset(void *arg)
{
	struct plughost *h = arg;

	h->resets++;
	if (h->pid > 0)
		kill(h->pid, SIGKILL);
	wait_end(h);
}

static const char *config(void *arg, const char *name)
{
	static __thread char number[16];
	struct plughost *h = arg;
	const struct csm_plugin_host *in = h->inner;

	if (strcmp(name, "csm.plugin") == 0)
		return h->name;
	if (strcmp(name, "csm.timeout_ms") == 0)
		return h->timeout_ms;
	if (strcmp(name, "csm.device") != 0)
		return in->config != NULL ? in->config(in->arg, name) : NULL;
	snprintf(number, sizeof(number), "%d", in->device != NULL ? in->device(in->arg) : -1);
	return number;
}

static int remember(void *arg, const char *name, const uint8_t *p, size_t len)
{
	const struct csm_plugin_host *in = ((struct plughost *)arg)->inner;

	return in->remember != NULL ? in->remember(in->arg, name, p, len) : CSM_EUNSUPPORTED;
}

static int recall(void *arg, const char *name, uint8_t *p, size_t *len)
{
	const struct csm_plugin_host *in = ((struct plughost *)arg)->inner;

	return in->recall != NULL ? in->recall(in->arg, name, p, len) : CSM_ENOT_FOUND;
}

static int secret(void *arg, const char *name, uint8_t *p, size_t *len)
{
	const struct csm_plugin_host *in = ((struct plughost *)arg)->inner;

	return in->secret != NULL ? in->secret(in->arg, name, p, len) : CSM_ENOT_FOUND;
}

static void secret_refused(void *arg, const char *name)
{
	const struct csm_plugin_host *in = ((struct plughost *)arg)->inner;

	if (in->secret_refused != NULL)
		in->secret_refused(in->arg, name);
}

static void log_line(void *arg, int level, const char *text)
{
	const struct csm_plugin_host *in = ((struct plughost *)arg)->inner;

	if (in->log != NULL)
		in->log(in->arg, level, text);
}

void plughost_init(struct plughost *h, const char *plugin, const struct csm_plugin_host *inner)
{
	char dir[PATH_MAX], *dot;

	memset(h, 0, sizeof(*h));
	h->host = (struct csm_plugin_host){.arg = h, .device = device, .reset = reset, .config = config,
		.remember = remember, .recall = recall, .secret = secret, .secret_refused = secret_refused, .log = log_line};
	h->inner = inner;
	h->next = CSM_PLUG_CHANNELS;
	build_dir(dir);
	if (strchr(plugin, '/') != NULL)
		snprintf(h->plugin, sizeof(h->plugin), "%s", plugin);
	else
		snprintf(h->plugin, sizeof(h->plugin), "%.400s/lib/csm/plugins/%s.so", dir, plugin);
	snprintf(h->name, sizeof(h->name), "%.60s", strrchr(h->plugin, '/') + 1);
	dot = strrchr(h->name, '.');
	if (dot != NULL)
		*dot = '\0';
}

void plughost_stop(struct plughost *h)
{
	for (; h->next < CSM_PLUG_CHANNELS; h->next++)
		close(h->fd[h->next]);
	wait_end(h);
}

struct csm_plugin plughost_table(const struct csm_plugin *like)
{
	struct csm_plugin t = csm_plugin_remote;

	t.name = like->name;
	t.flags = like->flags;
	t.import = like->import != NULL ? t.import : NULL;
	t.find = like->find != NULL ? t.find : NULL;
	t.discard = like->discard != NULL ? t.discard : NULL;
	if (like->sign_init == NULL) {
		t.sign_init = NULL;
		t.sign_update = NULL;
		t.sign_final = NULL;
		t.sign_cleanup = NULL;
	}
	if (like->seal == NULL) {
		t.seal = NULL;
		t.unseal = NULL;
	}
	if (like->counter_read == NULL) {
		t.counter_read = NULL;
		t.counter_increment = NULL;
	}
	t.attest = like->attest != NULL ? t.attest : NULL;
	t.random = like->random != NULL ? t.random : NULL;
	t.idle = like->idle != NULL ? t.idle : NULL;
	return t;
}
