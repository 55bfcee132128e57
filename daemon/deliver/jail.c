#include "daemon/deliver/jail.h"

#include <linux/capability.h>
#include <string.h>
#include <unistd.h>
#include "daemon/svc/sandbox.h"

#define PATH_CAP 520u

static const int plain[] = {
	/* generations and states (Landlock says where) */
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(openat), SCMP_SYS(openat2), SCMP_SYS(close), SCMP_SYS(fstat), SCMP_SYS(newfstatat),
	SCMP_SYS(statx), SCMP_SYS(lseek), SCMP_SYS(getdents64), SCMP_SYS(mkdirat), SCMP_SYS(unlinkat), SCMP_SYS(renameat),
	SCMP_SYS(renameat2), SCMP_SYS(symlinkat), SCMP_SYS(readlinkat), SCMP_SYS(fsync), SCMP_SYS(flock), SCMP_SYS(fchown),
	SCMP_SYS(fchownat), SCMP_SYS(fchmod), SCMP_SYS(fcntl),
	/* the sockets that are there */
	SCMP_SYS(recvfrom), SCMP_SYS(sendto), SCMP_SYS(poll), SCMP_SYS(ppoll),
	/* time, memory, signals and the end of its own */
	SCMP_SYS(clock_gettime), SCMP_SYS(clock_nanosleep), SCMP_SYS(restart_syscall), SCMP_SYS(brk), SCMP_SYS(munmap),
	SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(futex), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn), SCMP_SYS(sigaltstack), SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(getpid), SCMP_SYS(gettid),
	SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getrandom),
#ifdef CSM_SANITIZED
	SCMP_SYS(getrlimit), SCMP_SYS(getppid), SCMP_SYS(open), SCMP_SYS(stat), SCMP_SYS(access), SCMP_SYS(unlink),
	SCMP_SYS(mkdir), SCMP_SYS(dup), SCMP_SYS(ftruncate), SCMP_SYS(prlimit64), SCMP_SYS(uname), SCMP_SYS(sysinfo),
	SCMP_SYS(mmap), SCMP_SYS(mprotect), SCMP_SYS(readlink), SCMP_SYS(sched_getaffinity), SCMP_SYS(sched_yield),
#endif
};

static int rules(scmp_filter_ctx f, const void *arg)
{
	int r = csm_seccomp_abort(f);

	(void)arg;
#ifndef CSM_SANITIZED
	r |= csm_seccomp_memory(f);
#endif
	return r;
}

int delivery_around(const struct delivery_target *t, char *ret, size_t cap)
{
	const char *slash = strrchr(t->folder, '/');
	size_t n = slash == t->folder ? 1 : (size_t)(slash - t->folder);

	if (n >= cap)
		return CSM_ETOO_LARGE;
	memcpy(ret, t->folder, n);
	ret[n] = '\0';
	return 0;
}

static int landlock(const struct delivery_config *c, bool *full)
{
	static char around[CSM_DELIVER_TARGETS_MAX][PATH_CAP];
	const char *write[CSM_DELIVER_TARGETS_MAX + 2] = {c->state_dir}, *read[] = {NULL};
	int r;

	for (size_t i = 0; i < c->n; i++) {
		if ((r = delivery_around(&c->target[i], around[i], PATH_CAP)) != 0)
			return r;
		write[i + 1] = around[i];
	}
	return csm_sandbox_files(read, write, 0, full);
}

int delivery_jail(const struct delivery_config *c, bool *full)
{
	const struct csm_seccomp calls = {.calls = plain, .n = sizeof(plain) / sizeof(plain[0]), .rules = rules};
	uint64_t keep = UINT64_C(1) << CAP_CHOWN | UINT64_C(1) << CAP_DAC_OVERRIDE | UINT64_C(1) << CAP_FOWNER;
	bool root = geteuid() == 0;
	int r;

	*full = true;
	if ((r = csm_sandbox_become(root ? 0 : (uid_t)-1, 0, keep, "only folders of this user can be filled", full)) != 0 ||
		(r = landlock(c, full)) != 0)
		return r;
	return csm_sandbox_calls(&calls, full);
}
