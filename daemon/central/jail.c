#include <errno.h>
#include <pwd.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "daemon/central/doors.h"
#include "daemon/svc/log.h"
#include "daemon/svc/sandbox.h"

/* Calls without a condition on their arguments. */
static const int plain[] = {
	/* descriptors and files (Landlock says which) */
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(pread64), SCMP_SYS(pwrite64),
	SCMP_SYS(preadv), SCMP_SYS(pwritev), SCMP_SYS(close), SCMP_SYS(fstat), SCMP_SYS(newfstatat), SCMP_SYS(statx),
	SCMP_SYS(lseek), SCMP_SYS(openat), SCMP_SYS(open), SCMP_SYS(mkdir), SCMP_SYS(mkdirat), SCMP_SYS(unlink),
	SCMP_SYS(unlinkat), SCMP_SYS(rename), SCMP_SYS(renameat), SCMP_SYS(renameat2), SCMP_SYS(fsync), SCMP_SYS(fdatasync),
	SCMP_SYS(msync), SCMP_SYS(ftruncate), SCMP_SYS(fcntl), SCMP_SYS(flock), SCMP_SYS(dup), SCMP_SYS(getdents64),
	SCMP_SYS(statfs), SCMP_SYS(fstatfs), SCMP_SYS(stat), SCMP_SYS(lstat), SCMP_SYS(access), SCMP_SYS(faccessat),
	SCMP_SYS(faccessat2), SCMP_SYS(pipe2), SCMP_SYS(eventfd2), SCMP_SYS(fallocate),
	/* connections: those that come in, and those to csmd */
	SCMP_SYS(recvmsg), SCMP_SYS(recvfrom), SCMP_SYS(sendmsg), SCMP_SYS(sendto), SCMP_SYS(accept4), SCMP_SYS(connect),
	SCMP_SYS(getsockopt), SCMP_SYS(setsockopt), SCMP_SYS(getsockname), SCMP_SYS(getpeername), SCMP_SYS(shutdown),
	/* waiting and time */
	SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_pwait2),
	SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres), SCMP_SYS(clock_nanosleep),
	SCMP_SYS(nanosleep), SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(timerfd_create), SCMP_SYS(timerfd_settime),
	SCMP_SYS(restart_syscall),
	/* memory that is never executable: mmap and mprotect stand below */
	SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk), SCMP_SYS(mlock), SCMP_SYS(mlock2),
	SCMP_SYS(munlock), SCMP_SYS(mincore),
	/* threads and signals of our own */
	SCMP_SYS(futex), SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigtimedwait), SCMP_SYS(sigaltstack), SCMP_SYS(sched_yield),
	SCMP_SYS(sched_getaffinity), SCMP_SYS(sched_getparam), SCMP_SYS(sched_getscheduler), SCMP_SYS(exit),
	SCMP_SYS(exit_group), SCMP_SYS(membarrier),
	/* questions about ourselves */
	SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(getppid), SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getgid),
	SCMP_SYS(getegid), SCMP_SYS(getrlimit), SCMP_SYS(getrusage), SCMP_SYS(uname), SCMP_SYS(sysinfo), SCMP_SYS(getrandom),
	SCMP_SYS(readlink), SCMP_SYS(readlinkat), SCMP_SYS(getcwd),
#ifdef CSM_SANITIZED
	SCMP_SYS(getdents),
#endif
};

static int rules(scmp_filter_ctx f, const void *arg)
{
	int r = 0;

	(void)arg;
	/* To csmd, and to systemd. The listening sockets are there already: what they accept needs no leave, and no other address
	 * is ever connected to. */
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_EQ, AF_UNIX));
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_EQ, FIONREAD));
	return r | csm_seccomp_memory(f) | csm_seccomp_threads(f) | csm_seccomp_read_limits(f);
}

static int user_of(const char *name, uid_t *uid, gid_t *gid)
{
	struct passwd *p;
	char *end;
	unsigned long v = strtoul(name, &end, 10);

	if (*end == 0) {
		*uid = (uid_t)v;
		*gid = (gid_t)v;
		return 0;
	}
	p = getpwnam(name);
	if (p == NULL || p->pw_uid == 0) {
		log_err("there is no user %s", name);
		return CSM_ENOT_FOUND;
	}
	*uid = p->pw_uid;
	*gid = p->pw_gid;
	return 0;
}

/* Root makes the folder for the user that it becomes; an ordinary user is the administrator. */
static int drop(const struct central_config *c, uid_t *admin, bool *full)
{
	uid_t uid = (uid_t)-1;
	gid_t gid = (gid_t)-1;
	bool made;
	int r;

	*admin = geteuid();
	if (*admin == 0 && (r = user_of(c->user, &uid, &gid)) != 0)
		return r;
	made = mkdir(c->state_dir, 0700) == 0;
	if (!made && errno != EEXIST) {
		log_err("cannot make %s: %s", c->state_dir, strerror(errno));
		return CSM_ESYSTEM;
	}
	if (made && *admin == 0 && chown(c->state_dir, uid, gid) != 0)
		return CSM_ESYSTEM;
	return csm_sandbox_become(uid, gid, 0, "there is no other to become, and its uid is the administrator's", full);
}

static char *folder_of(const char *file)
{
	const char *slash = strrchr(file, '/');

	return slash == NULL ? strdup(".") : slash == file ? strdup("/") : strndup(file, (size_t)(slash - file));
}

int central_jail(const struct central_config *c, const char *config, uid_t *admin)
{
	char *folder = folder_of(config);
	bool full = true;
	int r = CSM_ENOMEM;

	if (folder == NULL)
		return r;
	const char *const read[] = {folder, "/proc/self", NULL};
	const char *const write[] = {c->state_dir, NULL};
	const struct csm_seccomp calls = {.calls = plain, .n = sizeof(plain) / sizeof(plain[0]), .rules = rules};

	if ((r = drop(c, admin, &full)) != 0)
		goto out;
	/* Whoever starts it may end before it does. */
	prctl(PR_SET_PDEATHSIG, 0);
	if ((r = csm_sandbox_files(read, write, 0, &full)) != 0 || (r = csm_sandbox_calls(&calls, &full)) != 0)
		goto out;
	if (c->require_sandbox && !full) {
		log_err("server.yaml demands a whole sandbox");
		r = CSM_EUNSUPPORTED;
	}
out:
	free(folder);
	return r;
}
