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

#define HELPER_FD 3 /* where a helper finds its socket */
#define DELAY_FIRST_MS 100
#define DELAY_MAX_MS 2000
#define LIFE_GOOD_MS 5000

void helper_find(struct helper *h, const char *name, enum csm_role role)
{
	static const char *const places[] = {"", "../libexec/csm/"};
	char exe[PATH_MAX], path[PATH_MAX + 64], *slash;
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	*h = (struct helper){.name = name, .role = role, .exe_fd = -1, .again_ms = -1};
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

/* In the child: its socket in its place, nothing else, and the program. */
static void become(const struct helper *h, int sock, char *const argv[])
{
#ifdef CSM_SANITIZED
	char **env = environ; /* how the sanitizers report, where coverage is kept */
#else
	char *env[] = {NULL};
#endif
	int fd = fcntl(sock, F_DUPFD, 10);
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (fd < 0 || dup2(fd, HELPER_FD) < 0)
		_exit(127);
	if (syscall(SYS_close_range, HELPER_FD + 1, ~0u, CLOSE_RANGE_CLOEXEC) != 0)
		close(fd);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	syscall(SYS_execveat, h->exe_fd, "", argv, env, AT_EMPTY_PATH);
	_exit(127);
}

static pid_t spawn(const struct helper *h, int sock, const struct csm_config *cfg, uid_t uid, gid_t gid)
{
	static char opt_level[] = "--log-level", opt_uid[] = "--uid", opt_gid[] = "--gid",
		    opt_required[] = "--sandbox-required";
	char name[32], u[16], g[16], level[16];
	char *argv[10] = {name};
	size_t n = 1;
	pid_t pid;

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
	pid = fork();
	if (pid == 0)
		become(h, sock, argv);
	return pid;
}

/* At once the first time, then after 100 ms doubling to 2 s; back to the start after 5 s of life. */
static void plan(struct helper *h, int64_t now_ms)
{
	h->again_ms = now_ms + h->delay_ms;
	h->delay_ms = h->delay_ms == 0           ? DELAY_FIRST_MS
		: h->delay_ms * 2 > DELAY_MAX_MS ? DELAY_MAX_MS
						 : h->delay_ms * 2;
}

void helper_start(struct helper *h, int control, const struct csm_config *cfg, uid_t uid, gid_t gid, int64_t now_ms)
{
	uint8_t role = (uint8_t)h->role;
	int pair[2];

	h->again_ms = -1;
	if (h->exe_fd < 0 || !h->wanted || h->pid > 0)
		return;
	h->born_ms = now_ms;
	if (control < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
		plan(h, now_ms);
		return;
	}
	h->pid = spawn(h, pair[1], cfg, uid, gid);
	if (h->pid < 0) {
		log_err("%s could not be started: %s", h->name, strerror(errno));
		h->pid = 0;
		plan(h, now_ms);
	} else if (control_send(control, CTL_CONN, &role, 1, pair[0]) != 0) {
		log_warn("the broker did not take the connection of %s",
			h->name); /* which ends then, and is started again */
	}
	close(pair[0]);
	close(pair[1]);
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
