#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "daemon/deliver/hook.h"
#include "daemon/svc/log.h"
#include "libclient/base/writable.h"

#define ENV_MAX 10u
#define OUTPUT_MAX 8192u
#define OUTPUT_LINES 20u
#define OUTPUT_READS 32u
#define GROUPS_MAX 256
#define SYSTEMCTL "/usr/bin/systemctl"
#define END_MS 2000 /* from SIGTERM to SIGKILL */

struct question {
	uint32_t target, event;
};
struct answer {
	int32_t r;
	char why[DELIVERY_WHY];
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- one program ---- */

struct run {
	const struct delivery_target *t;
	char *const *argv;
	char env_text[ENV_MAX][CSM_KEYREF_MAX + 600];
	char *env[ENV_MAX + 1];
	size_t n_env;
	uid_t uid;
	gid_t gid, groups[GROUPS_MAX];
	int n_groups;
	int64_t until_ms;
	char output[OUTPUT_MAX];
	size_t n;
};

static void add_env(struct run *x, const char *name, const char *value)
{
	snprintf(x->env_text[x->n_env], sizeof(x->env_text[0]), "%s=%s", name, value);
	x->env[x->n_env] = x->env_text[x->n_env];
	x->n_env++;
}

static void make_env(struct run *x, enum delivery_event event, const char *user)
{
	add_env(x, "PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
	add_env(x, "LANG", "C.UTF-8");
	add_env(x, "HOME", "/");
	add_env(x, "USER", user);
	add_env(x, "LOGNAME", user);
	add_env(x, "CSM_TARGET", x->t->name);
	add_env(x, "CSM_KEY", x->t->key);
	add_env(x, "CSM_FOLDER", x->t->folder);
	add_env(x, "CSM_EVENT", event == DELIVERY_BACK ? "rolled-back" : "delivered");
}

static void find_groups(struct run *x, const char *user)
{
	x->n_groups = GROUPS_MAX;
	if (getgrouplist(user, x->gid, x->groups, &x->n_groups) < 0)
		x->n_groups = GROUPS_MAX;
}

/* The user for good: what does not work ends here. As an ordinary user there is nobody else to become. */
static void become(const struct run *x)
{
	uid_t r, e, s;

	if (geteuid() == 0 && (setgroups((size_t)x->n_groups, x->groups) != 0 || setresgid(x->gid, x->gid, x->gid) != 0 ||
				      setresuid(x->uid, x->uid, x->uid) != 0))
		_exit(126);
	if (getresuid(&r, &e, &s) != 0 || r != x->uid || e != x->uid || s != x->uid || (x->uid != 0 && setuid(0) == 0))
		_exit(126);
}

static void child(const struct run *x, int out)
{
	int null = open("/dev/null", O_RDONLY);
	sigset_t none;

	for (int i = 1; i < _NSIG; i++)
		signal(i, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (setsid() < 0 || null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0 ||
		syscall(SYS_close_range, 3, ~0u, 0) != 0 || chdir("/") != 0)
		_exit(126);
	umask(022);
	setpriority(PRIO_PROCESS, 0, 0);
	become(x);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execve(x->argv[0], x->argv, x->env);
	_exit(127);
}

/* Not for as long as there is some: who writes without end would have no deadline. */
static void take_output(struct run *x, int fd)
{
	char more[4096];
	ssize_t n;

	for (unsigned i = 0; i < OUTPUT_READS && (n = read(fd, more, sizeof(more))) > 0; i++) {
		size_t k = (size_t)n < sizeof(x->output) - 1 - x->n ? (size_t)n : sizeof(x->output) - 1 - x->n;

		memcpy(x->output + x->n, more, k);
		x->n += k;
	}
}

static void log_output(struct run *x)
{
	char *line = x->output, *end;

	x->output[x->n] = '\0';
	for (unsigned i = 0; i < OUTPUT_LINES && *line != '\0'; i++, line = end) {
		end = line + strcspn(line, "\n");
		if (*end != '\0')
			*end++ = '\0';
		if (*line != '\0')
			log_info("hook of %s: %.300s", x->t->name, line);
	}
}

/* Ended by its time: the group, which is the program's own, first asked, then killed. */
static void end_group(pid_t pid, int *status)
{
	int64_t until = now_ms() + END_MS;
	pid_t got = 0;

	kill(-pid, SIGTERM);
	while (got == 0 && now_ms() < until) {
		usleep(20000);
		got = waitpid(pid, status, WNOHANG);
	}
	kill(-pid, SIGKILL);
	if (got == 0)
		kill(pid, SIGKILL);
	if (got == 0)
		(void)waitpid(pid, status, 0);
}

static int verdict(int status, const char *what, char *why)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		snprintf(why, DELIVERY_WHY, "%s ended with status 127: it could not be executed, or something in it", what);
	else if (WIFEXITED(status))
		snprintf(why, DELIVERY_WHY, "%s ended with status %d", what, WEXITSTATUS(status));
	else
		snprintf(why, DELIVERY_WHY, "%s was ended by signal %d", what, WTERMSIG(status));
	return CSM_EINVALID;
}

/* Waits for the program, not for its output's end: what it has left running may hold that open. */
static int await(struct run *x, pid_t pid, int out, const char *what, char *why)
{
	struct pollfd p = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
	int status = 0, r;
	bool over = false;

	while (p.fd >= 0 && !over && now_ms() < x->until_ms) {
		struct pollfd both[2] = {p, {.fd = out, .events = POLLIN}};

		if (poll(both, 2, (int)(x->until_ms - now_ms())) < 0 && errno != EINTR)
			break;
		take_output(x, out);
		over = (both[0].revents & POLLIN) != 0;
		if ((both[1].revents & (POLLHUP | POLLERR)) != 0 && !over)
			over = poll(&p, 1, (int)(x->until_ms - now_ms())) > 0;
	}
	if (over && waitpid(pid, &status, 0) == pid) {
		r = verdict(status, what, why);
	} else {
		end_group(pid, &status);
		snprintf(why, DELIVERY_WHY, "%s took longer than %u s, and was ended", what, x->t->deadline_s);
		r = CSM_ETIMEOUT;
	}
	take_output(x, out);
	if (p.fd >= 0)
		close(p.fd);
	return r;
}

static int run(struct run *x, const char *what, char *why)
{
	int pipes[2], r;
	pid_t pid;

	if (pipe2(pipes, O_CLOEXEC) != 0 || fcntl(pipes[0], F_SETFL, O_NONBLOCK) != 0) {
		snprintf(why, DELIVERY_WHY, "%s could not be started: %s", what, strerror(errno));
		return CSM_ESYSTEM;
	}
	pid = fork();
	if (pid == 0)
		child(x, pipes[1]);
	close(pipes[1]);
	if (pid < 0) {
		snprintf(why, DELIVERY_WHY, "%s could not be started: %s", what, strerror(errno));
		r = CSM_ESYSTEM;
	} else {
		r = await(x, pid, pipes[0], what, why);
	}
	close(pipes[0]);
	log_output(x);
	return r;
}

/* ---- what a target has ---- */

static int run_hook(const struct delivery_target *t, enum delivery_event event, int64_t until_ms, char *why)
{
	struct run x = {.t = t, .argv = t->hook, .uid = t->hook_uid, .gid = t->hook_gid, .until_ms = until_ms};
	char who[DELIVERY_WHY - 64];

	/* What root executes, nobody else may change. */
	if (geteuid() == 0 && t->hook_uid == 0 && csm_path_writable(t->hook[0], CSM_ANY_UID, who, sizeof(who))) {
		snprintf(why, DELIVERY_WHY, "the hook runs as root, but %s", who);
		return CSM_EDENIED;
	}
	make_env(&x, event, t->hook_user);
	find_groups(&x, t->hook_user);
	return run(&x, "the hook", why);
}

static int run_systemctl(const struct delivery_target *t, enum delivery_event event, int64_t until_ms, char *verb, char *why)
{
	char name[] = SYSTEMCTL, quiet[] = "--quiet", no_ask[] = "--no-ask-password", end[] = "--";
	char *argv[] = {name, quiet, no_ask, verb, end, t->reload_unit, NULL};
	struct run x = {.t = t, .argv = argv, .uid = geteuid(), .gid = getegid(), .until_ms = until_ms};

	make_env(&x, event, "root");
	return run(&x, verb, why);
}

/* A unit that does not run will read the folder when it starts. */
static int reload(const struct delivery_target *t, enum delivery_event event, int64_t until_ms, char *why)
{
	char is_active[] = "is-active", verb[] = "reload", text[DELIVERY_WHY];
	int r = run_systemctl(t, event, until_ms, is_active, text);

	if (r == CSM_EINVALID) {
		log_info("%s: %s is not active, and not reloaded", t->name, t->reload_unit);
		return 0;
	}
	if (r == 0)
		r = run_systemctl(t, event, until_ms, verb, text);
	if (r != 0)
		csm_text_put(why, DELIVERY_WHY, "systemctl reload %s: %s", t->reload_unit, text);
	return r;
}

int delivery_hook_run(const struct delivery_target *t, enum delivery_event event, char *why)
{
	int64_t until_ms = now_ms() + (int64_t)t->deadline_s * 1000;
	int r = 0;

	if (t->hook[0] != NULL)
		r = run_hook(t, event, until_ms, why);
	if (r == 0 && t->reload_unit != NULL)
		r = reload(t, event, until_ms, why);
	return r;
}

/* ---- the process ---- */

static int check(const char *config_path, char *why)
{
	struct delivery_config c;
	int r = delivery_config_read(config_path, &c, why);

	if (r == 0)
		delivery_config_clear(&c);
	return r == 0 ? 0 : CSM_EINVALID;
}

static void serve(const struct delivery_config *c, const char *config_path, int sock)
{
	struct question q;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, "csm-hooks");
	while (recv(sock, &q, sizeof(q), 0) == (ssize_t)sizeof(q)) {
		struct answer a = {.r = CSM_EINVALID};

		if (q.event == DELIVERY_CHECK)
			a.r = check(config_path, a.why);
		else if (q.target < c->n && q.event <= DELIVERY_BACK)
			a.r = delivery_hook_run(&c->target[q.target], (enum delivery_event)q.event, a.why);
		if (send(sock, &a, sizeof(a), MSG_NOSIGNAL) != (ssize_t)sizeof(a))
			break;
	}
	_exit(0);
}

int delivery_hooks_start(const struct delivery_config *c, const char *config_path, int *ret)
{
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
		return CSM_ESYSTEM;
	pid = fork();
	if (pid == 0) {
		/* csmd's socket is its parent's alone. */
		if (dup2(pair[1], 3) != 3 || syscall(SYS_close_range, 4, ~0u, 0) != 0)
			_exit(1);
		serve(c, config_path, 3);
	}
	close(pair[1]);
	if (pid < 0) {
		close(pair[0]);
		return CSM_ESYSTEM;
	}
	*ret = pair[0];
	return 0;
}

static int gone(char *why)
{
	snprintf(why, DELIVERY_WHY, "the process that runs hooks is gone");
	return CSM_ECLOSED;
}

int delivery_hooks_ask(int sock, size_t target, enum delivery_event event, char *why)
{
	struct question q = {(uint32_t)target, (uint32_t)event};

	return send(sock, &q, sizeof(q), MSG_NOSIGNAL) == (ssize_t)sizeof(q) ? 0 : gone(why);
}

int delivery_hooks_answer(int sock, char *why)
{
	struct answer a;

	if (recv(sock, &a, sizeof(a), 0) != (ssize_t)sizeof(a))
		return gone(why);
	a.why[sizeof(a.why) - 1] = '\0';
	snprintf(why, DELIVERY_WHY, "%s", a.why);
	return a.r;
}

int delivery_hooks_run(int sock, size_t target, enum delivery_event event, char *why)
{
	int r = delivery_hooks_ask(sock, target, event, why);

	return r != 0 ? r : delivery_hooks_answer(sock, why);
}
