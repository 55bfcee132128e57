#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "daemon/node/supervisor.h"
#include "daemon/svc/log.h"

_Static_assert(CSM_ENROL_CHANNELS <= CSM_PLUG_CHANNELS, "become() has room for so many");

#define HELPER_FD 3 /* where a helper finds its socket */
#define DELAY_FIRST_MS 100
#define DELAY_MAX_MS 2000
#define LIFE_GOOD_MS 5000

void helper_find(struct helper *h, const char *name, enum csm_role role)
{
	static const char *const places[] = {"", "../libexec/csm/"};
	char exe[PATH_MAX], path[PATH_MAX + 64], *slash;
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	*h = (struct helper){.name = name, .role = role, .exe_fd = -1, .again_ms = -1, .sockets = 1};
	if (n <= 0)
		return;
	exe[n] = '\0';
	slash = strrchr(exe, '/');
	if (slash == NULL)
		return;
	slash[1] = '\0';
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]) && h->exe_fd < 0; i++) {
		int fd;

		snprintf(path, sizeof(path), "%s%s%s", exe, places[i], name);
		fd = open(path, O_PATH | O_CLOEXEC);
		if (fd < 0)
			continue;
		/* Clear of the numbers that a child's sockets take. */
		h->exe_fd = fcntl(fd, F_DUPFD_CLOEXEC, 10);
		close(fd);
	}
}

void helper_want(struct helper *h, bool wanted, int64_t now_ms)
{
	if (wanted == h->wanted)
		return;
	h->wanted = wanted;
	h->delay_ms = 0;
	h->again_ms = wanted && h->pid == 0 ? now_ms : -1;
	if (wanted && h->exe_fd < 0)
		log_err("%s is not installed beside csmd: what needs it is refused", h->name);
	if (!wanted && h->pid > 0)
		kill(h->pid, SIGTERM);
}

/* In the child: its sockets in their places, nothing else, and the program. */
static void become(const struct helper *h, const struct helper_start *how, int pair[][2])
{
	char **env = how->envp;
	int fd[CSM_PLUG_CHANNELS];
	sigset_t none;

#ifdef CSM_SANITIZED
	/* How the sanitizers report, where coverage is kept. */
	for (char **e = environ; *e != NULL; e++)
		if (strncmp(*e, "ASAN_", 5) == 0 || strncmp(*e, "UBSAN_", 6) == 0 || strncmp(*e, "GCOV_", 5) == 0 ||
			strncmp(*e, "LSAN_", 5) == 0 || strncmp(*e, "TSAN_", 5) == 0)
			env = environ;
#endif
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	for (size_t i = 0; i < how->sockets; i++)
		if ((fd[i] = fcntl(pair[i][1], F_DUPFD, 20)) < 0)
			_exit(127);
	for (size_t i = 0; i < how->sockets; i++)
		if (dup2(fd[i], HELPER_FD + (int)i) < 0)
			_exit(127);
	if (syscall(SYS_close_range, HELPER_FD + how->sockets, ~0u, CLOSE_RANGE_CLOEXEC) != 0)
		for (size_t i = 0; i < how->sockets; i++)
			close(fd[i]);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	syscall(SYS_execveat, h->exe_fd, "", how->argv, env, AT_EMPTY_PATH);
	_exit(127);
}

/* At once the first time, then after 100 ms doubling to 2 s; back to the start after 5 s of life. */
static void plan(struct helper *h, int64_t now_ms)
{
	h->again_ms = now_ms + h->delay_ms;
	h->delay_ms = h->delay_ms == 0           ? DELAY_FIRST_MS
		: h->delay_ms * 2 > DELAY_MAX_MS ? DELAY_MAX_MS
						 : h->delay_ms * 2;
}

static int make_pairs(int pair[][2], size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair[i]) != 0) {
			while (i-- > 0) {
				close(pair[i][0]);
				close(pair[i][1]);
			}
			return CSM_ESYSTEM;
		}
	return 0;
}

static int hand_over(const struct helper *h, const struct helper_start *how, int pair[][2])
{
	uint8_t body[1 + sizeof(struct plug_channel)] = {(uint8_t)h->role};
	int r = 0;

	for (size_t i = 0; i < how->sockets && r == 0; i++) {
		struct plug_channel which = {(uint32_t)how->plughost, h->generation, (uint32_t)i};

		memcpy(body + 1, &which, sizeof(which));
		r = control_send(how->control, CTL_CONN, body, how->plughost < 0 ? 1 : sizeof(body), pair[i][0]);
	}
	return r;
}

void helper_start_as(struct helper *h, const struct helper_start *how)
{
	int pair[CSM_PLUG_CHANNELS][2];

	h->again_ms = -1;
	if (h->exe_fd < 0 || !h->wanted || h->pid > 0)
		return;
	h->born_ms = how->now_ms;
	if (how->control < 0 || make_pairs(pair, how->sockets) != 0) {
		plan(h, how->now_ms);
		return;
	}
	h->generation++;
	h->pid = fork();
	if (h->pid == 0)
		become(h, how, pair);
	if (h->pid < 0) {
		log_err("%s could not be started: %s", h->name, strerror(errno));
		h->pid = 0;
		plan(h, how->now_ms);
	} else if (hand_over(h, how, pair) != 0) {
		/* Which ends then, and is started again. */
		log_warn("the broker did not take the connection of %s", h->name);
	}
	for (size_t i = 0; i < how->sockets; i++) {
		close(pair[i][0]);
		close(pair[i][1]);
	}
}

void helper_start(struct helper *h, int control, const struct csm_config *cfg, uid_t uid, gid_t gid, int64_t now_ms)
{
	static char opt_level[] = "--log-level", opt_uid[] = "--uid", opt_gid[] = "--gid",
		    opt_required[] = "--sandbox-required";
	char name[32], u[16], g[16], level[16];
	char *argv[10] = {name}, *envp[] = {(char *)(uintptr_t)h->env, NULL};
	struct helper_start how = {
		.control = control, .argv = argv, .envp = envp, .sockets = h->sockets, .plughost = -1, .now_ms = now_ms};
	size_t n = 1;

	snprintf(name, sizeof(name), "%s", h->name);
	snprintf(u, sizeof(u), "%u", uid);
	snprintf(g, sizeof(g), "%u", gid);
	snprintf(level, sizeof(level), "%s", cfg->log_level);
	argv[n++] = opt_level;
	argv[n++] = level;
	if (uid != (uid_t)-1) {
		argv[n++] = opt_uid;
		argv[n++] = u;
		argv[n++] = opt_gid;
		argv[n++] = g;
	}
	if (cfg->require_sandbox)
		argv[n++] = opt_required;
	argv[n] = NULL;
	helper_start_as(h, &how);
}

void helper_kill(const struct helper *h)
{
	if (h->pid > 0)
		kill(h->pid, SIGKILL);
}

bool helper_reap(struct helper *h, pid_t pid, int status, bool stopping, int64_t now_ms)
{
	if (pid != h->pid || pid <= 0)
		return false;
	h->pid = 0;
	if (stopping || !h->wanted)
		return true;
	if (WIFSIGNALED(status))
		log_err("%s was ended by signal %d", h->name, WTERMSIG(status));
	else if (WEXITSTATUS(status) != 0)
		log_err("%s ended with status %d", h->name, WEXITSTATUS(status));
	if (now_ms - h->born_ms >= LIFE_GOOD_MS)
		h->delay_ms = 0;
	plan(h, now_ms);
	return true;
}
