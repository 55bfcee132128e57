#include "tests/lib/swtpm.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define START_TRIES 1000 /* of 5 ms */

void swtpm_pause_ms(long ms)
{
	struct timespec ts = {ms / 1000, (ms % 1000) * 1000000};

	while (nanosleep(&ts, &ts) != 0 && errno == EINTR)
		continue;
}

static int unix_connect(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd, e;

	if (strlen(path) >= sizeof(sa.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(sa.sun_path, path, strlen(path) + 1);
	if ((fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0)
		return -1;
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) != 0) {
		e = errno;
		close(fd);
		errno = e;
		return -1;
	}
	return fd;
}

int swtpm_connect(const struct swtpm *t)
{
	return unix_connect(t->sock);
}

static _Noreturn void run_child(const struct swtpm *t, pid_t parent)
{
	char state[96], server[128], ctrl[128], log[96];
	int null, err;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	snprintf(state, sizeof(state), "dir=%s", t->dir);
	snprintf(server, sizeof(server), "type=unixio,path=%s", t->sock);
	snprintf(ctrl, sizeof(ctrl), "type=unixio,path=%s", t->ctrl);
	if ((null = open("/dev/null", O_RDWR)) >= 0) {
		dup2(null, 0);
		dup2(null, 1);
	}
	snprintf(log, sizeof(log), "%s/log", t->dir);
	if ((err = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600)) >= 0)
		dup2(err, 2);
	/* Nothing of the test's may stay open in it: a socket held here would never end. */
	for (int fd = 3; fd < 256; fd++)
		close(fd);
	execlp("swtpm", "swtpm", "socket", "--tpm2", "--tpmstate", state, "--server", server, "--ctrl", ctrl,
		"--flags", "not-need-init,startup-clear", (char *)NULL);
	_exit(127); /* told by swtpm_restart as status 7f00 */
}

int swtpm_restart(struct swtpm *t)
{
	pid_t parent = getpid();
	int fd, status;

	unlink(t->sock);
	unlink(t->ctrl);
	if ((t->pid = fork()) < 0)
		return -1;
	if (t->pid == 0)
		run_child(t, parent);
	for (int i = 0; i < START_TRIES; i++) {
		if ((fd = swtpm_connect(t)) >= 0) {
			close(fd);
			return 0;
		}
		if (waitpid(t->pid, &status, WNOHANG) == t->pid) {
			fprintf(stderr, "swtpm ended while starting, status %x\n", (unsigned)status);
			t->pid = -1;
			return -1;
		}
		swtpm_pause_ms(5);
	}
	fprintf(stderr, "swtpm does not listen\n");
	swtpm_kill(t);
	return -1;
}

/* A test that failed left its TPM running. */
static struct swtpm *running;

static void stop_left(void)
{
	while (running != NULL && running->owner == getpid())
		swtpm_stop(running);
}

static void unlist(const struct swtpm *t)
{
	struct swtpm **at = &running;

	while (*at != NULL && *at != t)
		at = &(*at)->next;
	if (*at != NULL)
		*at = t->next;
}

struct swtpm *swtpm_start(void)
{
	static bool registered;
	struct swtpm *t = calloc(1, sizeof(*t));

	if (t == NULL)
		return NULL;
	if (!registered)
		registered = atexit(stop_left) == 0;
	t->pid = -1;
	t->owner = getpid();
	snprintf(t->dir, sizeof(t->dir), "/tmp/csm-swtpm-XXXXXX");
	if (mkdtemp(t->dir) == NULL) {
		perror(t->dir);
		free(t);
		return NULL;
	}
	snprintf(t->sock, sizeof(t->sock), "%s/sock", t->dir);
	snprintf(t->ctrl, sizeof(t->ctrl), "%s/sock.ctrl", t->dir);
	snprintf(t->tcti, sizeof(t->tcti), "swtpm:path=%s", t->sock);
	if (swtpm_restart(t) != 0) {
		swtpm_stop(t);
		return NULL;
	}
	t->next = running;
	running = t;
	return t;
}

void swtpm_kill(struct swtpm *t)
{
	int status;

	if (t->pid <= 0)
		return;
	kill(t->pid, SIGKILL);
	while (waitpid(t->pid, &status, 0) < 0 && errno == EINTR)
		continue;
	t->pid = -1;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void swtpm_stop(struct swtpm *t)
{
	if (t == NULL)
		return;
	unlist(t);
	swtpm_kill(t);
	nftw(t->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(t);
}

int swtpm_reset(const struct swtpm *t)
{
	/* PTM_INIT: command 2, no flags; the answer is a result code. */
	static const uint8_t init[8] = {0, 0, 0, 2, 0, 0, 0, 0};
	uint8_t res[4] = {1};
	struct pollfd p = {.events = POLLIN};
	int r = -1;

	if ((p.fd = unix_connect(t->ctrl)) < 0)
		return -1;
	if (send(p.fd, init, sizeof(init), MSG_NOSIGNAL) == (ssize_t)sizeof(init) && poll(&p, 1, 5000) == 1 &&
		recv(p.fd, res, sizeof(res), MSG_WAITALL) == (ssize_t)sizeof(res) &&
		memcmp(res, "\0\0\0", sizeof(res)) == 0)
		r = 0;
	close(p.fd);
	return r;
}

static int host_device(void *arg)
{
	struct swtpm_host *h = arg;

	h->devices++;
	return h->device != NULL ? h->device(h) : swtpm_connect(h->tpm);
}

static int host_remember(void *arg, const char *name, const uint8_t *p, size_t len)
{
	struct swtpm_host *h = arg;

	if (len > sizeof(h->kept[0].p) || strlen(name) >= sizeof(h->kept[0].name))
		return CSM_ETOO_LARGE;
	for (size_t i = 0; i < SWTPM_HOST_PAIRS; i++) {
		if (h->kept[i].name[0] != '\0' && strcmp(h->kept[i].name, name) != 0)
			continue;
		memcpy(h->kept[i].name, name, strlen(name) + 1);
		if (len > 0)
			memcpy(h->kept[i].p, p, len);
		h->kept[i].len = len;
		return 0;
	}
	return CSM_ENO_SPACE;
}

const uint8_t *swtpm_host_kept(const struct swtpm_host *h, const char *name, size_t *len)
{
	for (size_t i = 0; i < SWTPM_HOST_PAIRS; i++) {
		if (h->kept[i].name[0] != '\0' && strcmp(h->kept[i].name, name) == 0) {
			*len = h->kept[i].len;
			return h->kept[i].p;
		}
	}
	return NULL;
}

static int host_recall(void *arg, const char *name, uint8_t *p, size_t *len)
{
	const uint8_t *q;
	size_t n;

	if ((q = swtpm_host_kept(arg, name, &n)) == NULL)
		return CSM_ENOT_FOUND;
	if (n > *len)
		return CSM_ETOO_LARGE;
	memcpy(p, q, n);
	*len = n;
	return 0;
}

static void host_log(void *arg, int level, const char *text)
{
	struct swtpm_host *h = arg;

	snprintf(h->last_log, sizeof(h->last_log), "%s", text);
	if (!h->quiet)
		fprintf(stderr, "# log <%d> %s\n", level, text);
}

static const char *host_config(void *arg, const char *name)
{
	struct swtpm_host *h = arg;

	for (size_t i = 0; i < SWTPM_HOST_PAIRS; i++)
		if (h->conf[i].name != NULL && strcmp(h->conf[i].name, name) == 0)
			return h->conf[i].value;
	return NULL;
}

void swtpm_host_init(struct swtpm_host *h, struct swtpm *t)
{
	/* ESYS in the test and the back end's TSS libraries print to stderr unless told not to. */
	setenv("TSS2_LOG", "all+none", 1);
	memset(h, 0, sizeof(*h));
	h->tpm = t;
	h->host = (struct csm_plugin_host){.arg = h, .device = host_device, .remember = host_remember, .recall = host_recall,
		.log = host_log, .config = host_config};
	swtpm_host_config(h, "kind", "socket");
	swtpm_host_config(h, "device", t->tcti);
}

void swtpm_host_config(struct swtpm_host *h, const char *name, const char *value)
{
	for (size_t i = 0; i < SWTPM_HOST_PAIRS; i++) {
		if (h->conf[i].name != NULL && strcmp(h->conf[i].name, name) != 0)
			continue;
		h->conf[i].name = name;
		h->conf[i].value = value;
		return;
	}
	abort();
}
