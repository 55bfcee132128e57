/* csm exec: a command with secrets as files in memory, or as environment variables. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "libclient/base/lockmem.h"
#include "libclient/cli/cli.h"

#define FOLDER_DEPTH 16

/* The answers for --secret, kept while their values are in use. */
struct exec {
	struct cli *cli;
	struct csm_reply *rep[OPT_LIST_MAX];
	size_t n;
	char dir[256];
	int dirfd;
	sigset_t waited, before; /* signals: those that are waited for, and what was blocked */
};

/* Call back for each pair of each secret until one returns an error. */
static int each_pair(struct exec *x, int (*fn)(struct exec *x, const struct csm_msg_pair *p))
{
	size_t i, k;
	int r = 0;

	for (i = 0; i < x->n; i++) {
		const struct csm_msg_secret_get_res *res = x->rep[i]->msg;

		for (k = 0; r == 0 && k < res->pairs.n; k++)
			r = fn(x, &res->pairs.v[k]);
	}
	return r;
}

static int fetch(struct exec *x)
{
	size_t i;
	int r = 0;

	for (i = 0; r == 0 && i < x->cli->list_n; i++) {
		x->cli->about = x->cli->list[i];
		r = csm_secret_get(x->cli->csm, x->cli->list[i], NULL, 0, &x->rep[x->n]);
		x->n += r == 0;
	}
	if (r == 0)
		x->cli->about = NULL; /* what fails from here on is no secret's fault */
	return r;
}

static int exec_status(int e)
{
	return e == ENOENT ? 127 : 126;
}

/* ---- --env: this process becomes the command ---- */

/* A name of letters, digits and underscores that does not steer the loader, the shell or csm: who may write a secret is
 * not to choose what its reader runs. */
static bool plain_variable(const char *name)
{
	static const char *const steering[] = {"PATH", "IFS", "ENV", "BASH_ENV", "SHELLOPTS", "BASHOPTS", "PS4", "HOME"};
	size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789");

	if (n == 0 || name[n] != '\0' || (name[0] >= '0' && name[0] <= '9') || strncmp(name, "LD_", 3) == 0 ||
		strncmp(name, "CSM_", 4) == 0 || strncmp(name, "GLIBC_", 6) == 0)
		return false;
	for (size_t i = 0; i < sizeof(steering) / sizeof(steering[0]); i++)
		if (strcmp(name, steering[i]) == 0)
			return false;
	return true;
}

static int set_variable(struct exec *x, const struct csm_msg_pair *p)
{
	(void)x;
	if (!plain_variable(p->name.p) || memchr(p->value.p, 0, p->value.n) != NULL)
		return client_err(CSM_EINVALID, "%s cannot be an environment variable", p->name.p);
	if (setenv(p->name.p, (const char *)p->value.p, 1) != 0)
		return client_err_plain(CSM_ENOMEM);
	return 0;
}

static int run_env(struct exec *x)
{
	char **argv = x->cli->arg;
	int r = each_pair(x, set_variable);

	if (r != 0)
		return r;
	csm_free(x->cli->csm);
	x->cli->csm = NULL;
	(void)execvp(argv[0], argv);
	x->cli->status = exec_status(errno);
	cli_note("%s: %s", argv[0], strerror(errno));
	return 0;
}

/* ---- files ---- */

/* Can nobody but us and root put another folder in the place of ours? (sudo and su may leave another user's
 * XDG_RUNTIME_DIR behind.) */
static bool is_safe(const char *dir)
{
	struct stat st;

	if (stat(dir, &st) != 0 || (st.st_uid != geteuid() && st.st_uid != 0))
		return false;
	return (st.st_mode & (S_IWGRP | S_IWOTH)) == 0 || (st.st_mode & S_ISVTX) != 0;
}

/* A new folder in dir, if that is memory. */
static bool folder_in(struct exec *x, const char *dir)
{
	struct statfs fs;

	if (dir == NULL || dir[0] != '/' || statfs(dir, &fs) != 0 || fs.f_type != TMPFS_MAGIC || !is_safe(dir))
		return false;
	if (snprintf(x->dir, sizeof(x->dir), "%s/csm-exec.XXXXXX", dir) >= (int)sizeof(x->dir) ||
		mkdtemp(x->dir) == NULL)
		return false;
	x->dirfd = open(x->dir, O_DIRECTORY | O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (x->dirfd >= 0)
		return true;
	(void)rmdir(x->dir);
	return false;
}

static int make_folder(struct exec *x)
{
	if (folder_in(x, secure_getenv("XDG_RUNTIME_DIR")) || folder_in(x, "/dev/shm"))
		return 0;
	return client_err(CSM_ESYSTEM, "no folder in memory (tmpfs) can be made in $XDG_RUNTIME_DIR or /dev/shm");
}

static int write_file(struct exec *x, const struct csm_msg_pair *p)
{
	int fd, r;

	/* the daemon has checked the names; a path is made of none but these */
	if (!csm_name_valid(p->name))
		return client_err(CSM_EINVALID, "a pair's name cannot be a file's");
	fd = openat(x->dirfd, p->name.p, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return errno == EEXIST ? client_err(CSM_EINVALID, "two secrets have a pair %s", p->name.p)
				       : client_err_errno(CSM_ESYSTEM, p->name.p);
	r = io_write(fd, p->value.p, p->value.n);
	if (close(fd) != 0 && r == 0)
		r = client_err_errno(CSM_ESYSTEM, p->name.p);
	return r;
}

/* Empty a folder, whatever the command put there; links are not followed. Takes fd. */
static void empty_folder(int fd, unsigned depth)
{
	DIR *d = fdopendir(fd);
	struct dirent *e;

	if (d == NULL) {
		(void)close(fd);
		return;
	}
	while ((e = readdir(d)) != NULL) {
		int sub;

		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (unlinkat(fd, e->d_name, 0) == 0 || depth == 0)
			continue;
		sub = openat(fd, e->d_name, O_DIRECTORY | O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		if (sub >= 0)
			empty_folder(sub, depth - 1);
		(void)unlinkat(fd, e->d_name, AT_REMOVEDIR);
	}
	(void)closedir(d);
}

static void remove_folder(struct exec *x)
{
	empty_folder(x->dirfd, FOLDER_DEPTH);
	if (rmdir(x->dir) != 0)
		cli_note("%s: %s", x->dir, strerror(errno));
}

static const int forwarded[] = {SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2};

/* From before there is a folder until it is gone: none of them may leave it behind. */
static void hold_signals(struct exec *x)
{
	struct sigaction by_default = {.sa_handler = SIG_DFL};
	size_t i;

	/* inherited as ignored, the end of the command would never be told */
	(void)sigaction(SIGCHLD, &by_default, NULL);
	(void)sigemptyset(&x->waited);
	(void)sigaddset(&x->waited, SIGCHLD);
	for (i = 0; i < sizeof(forwarded) / sizeof(forwarded[0]); i++)
		(void)sigaddset(&x->waited, forwarded[i]);
	(void)sigprocmask(SIG_BLOCK, &x->waited, &x->before);
}

/* Pass signals on until the command has ended. A signal of the terminal has reached it already. */
static int wait_child(pid_t pid, const sigset_t *set)
{
	siginfo_t info;
	int status, sig;

	while (waitpid(pid, &status, WNOHANG) != pid) {
		sig = sigwaitinfo(set, &info);
		if (sig > 0 && sig != SIGCHLD && info.si_code != SI_KERNEL)
			(void)kill(pid, sig);
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* What came before there is a command to pass it on to ends this program, as it would have without holding. */
static bool told_to_end(struct exec *x)
{
	const struct timespec now = {0};
	int sig;

	while ((sig = sigtimedwait(&x->waited, NULL, &now)) > 0) {
		if (sig == SIGCHLD)
			continue;
		x->cli->status = 128 + sig;
		return true;
	}
	return false;
}

static int spawn(struct exec *x)
{
	posix_spawnattr_t attr;
	pid_t pid;
	int e = posix_spawnattr_init(&attr);

	if (e == 0)
		e = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	if (e == 0)
		e = posix_spawnattr_setsigmask(&attr, &x->before);
	if (e != 0)
		return client_err_plain(CSM_ENOMEM);
	e = posix_spawnp(&pid, x->cli->arg[0], NULL, &attr, x->cli->arg, environ);
	(void)posix_spawnattr_destroy(&attr);
	if (e == 0) {
		x->cli->status = wait_child(pid, &x->waited);
	} else {
		x->cli->status = exec_status(e);
		cli_note("%s: %s", x->cli->arg[0], strerror(e));
	}
	return 0;
}

static int run_files(struct exec *x)
{
	int r;

	hold_signals(x);
	r = make_folder(x);
	if (r != 0)
		return r;
	r = each_pair(x, write_file);
	if (r == 0 && setenv("CSM_SECRETS", x->dir, 1) != 0)
		r = client_err_plain(CSM_ENOMEM);
	if (r == 0 && !told_to_end(x))
		r = spawn(x);
	remove_folder(x);
	return r;
}

int cmd_exec(struct cli *cli)
{
	struct exec x = {.cli = cli, .dirfd = -1};
	int r;

	if (cli->list_n == 0)
		return cli_usage("--secret is missing");
	if (cli->json)
		return cli_usage("csm exec does not take --json");
	r = fetch(&x);
	if (r == 0)
		r = cli->value[O_ENV] != NULL ? run_env(&x) : run_files(&x);
	while (x.n > 0)
		csm_reply_free(x.rep[--x.n]);
	return r;
}
