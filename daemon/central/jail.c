#include <errno.h>
#include <pwd.h>
#include <sched.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
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
	SCMP_SYS(ptrace), SCMP_SYS(wait4), SCMP_SYS(kill), SCMP_SYS(clone), SCMP_SYS(prctl), SCMP_SYS(arch_prctl),
	SCMP_SYS(tgkill), SCMP_SYS(personality), SCMP_SYS(process_vm_readv), SCMP_SYS(getdents),
#endif
};

#define THREAD_FLAGS (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)

static int add_conditional(scmp_filter_ctx f)
{
	int r = 0;

	/* To csmd, and to systemd. The listening sockets are there already: what they accept needs no leave, and no other address
	 * is ever connected to. */
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_EQ, AF_UNIX));
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_EQ, FIONREAD));
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	/* Threads, never processes; clone3 hides its flags from the filter: glibc falls back on ENOSYS. */
	r |= seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
#ifndef CSM_SANITIZED
	r |= seccomp_rule_add(
		f, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, THREAD_FLAGS, THREAD_FLAGS));
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1, SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1, SCMP_A0(SCMP_CMP_EQ, PR_SET_VMA));
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, SCMP_A2(SCMP_CMP_EQ, 6));
#endif
	/* Limits are read, never set. */
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 2, SCMP_A0(SCMP_CMP_EQ, 0), SCMP_A2(SCMP_CMP_EQ, 0));
	return r;
}

static int filter(bool *full)
{
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int r = CSM_ESYSTEM, bad = 0;

	if (f == NULL)
		return CSM_ENOMEM;
	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
		bad |= seccomp_rule_add(f, SCMP_ACT_ALLOW, plain[i], 0);
	bad |= add_conditional(f);
	if (bad != 0)
		goto out;
	seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	r = 0;
	if (seccomp_load(f) != 0) {
		log_warn("seccomp is not in this kernel");
		*full = false;
	}
out:
	seccomp_release(f);
	return r;
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

static int drop(const struct central_config *c, uid_t *admin, bool *full)
{
	uid_t uid;
	gid_t gid;
	int r;

	*admin = geteuid();
	if (*admin != 0) {
		log_warn("started by an ordinary user: there is no other to become, and uid %u is the administrator", (unsigned)*admin);
		*full = false;
		return mkdir(c->state_dir, 0700) == 0 || errno == EEXIST ? 0 : CSM_ESYSTEM;
	}
	if ((r = user_of(c->user, &uid, &gid)) != 0)
		return r;
	if (mkdir(c->state_dir, 0700) == 0) {
		if (chown(c->state_dir, uid, gid) != 0)
			return CSM_ESYSTEM;
	} else if (errno != EEXIST) {
		log_err("cannot make %s: %s", c->state_dir, strerror(errno));
		return CSM_ESYSTEM;
	}
	return csm_sandbox_drop(uid, gid);
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
	long landlock = 0;
	int r = CSM_ENOMEM;

	if (folder == NULL)
		return r;
	const char *const read[] = {folder, "/proc/self", NULL};
	const char *const write[] = {c->state_dir, NULL};

	if ((r = drop(c, admin, &full)) != 0 || (r = csm_sandbox_harden()) != 0)
		goto out;
	/* Whoever starts it may end before it does. */
	prctl(PR_SET_PDEATHSIG, 0);
	if ((r = csm_landlock_paths(read, write, 0, &landlock)) != 0)
		goto out;
	if (landlock == 0) {
		log_warn("landlock is not in this kernel");
		full = false;
	}
	if ((r = filter(&full)) != 0)
		goto out;
	if (c->require_sandbox && !full) {
		log_err("server.yaml demands a whole sandbox");
		r = CSM_EUNSUPPORTED;
	}
out:
	free(folder);
	return r;
}
