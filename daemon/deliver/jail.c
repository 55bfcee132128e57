#include <errno.h>
#include <linux/capability.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "daemon/deliver/jail.h"
#include "daemon/svc/log.h"
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
	SCMP_SYS(ptrace), SCMP_SYS(wait4), SCMP_SYS(kill), SCMP_SYS(clone), SCMP_SYS(prctl), SCMP_SYS(arch_prctl), SCMP_SYS(tgkill),
	SCMP_SYS(personality), SCMP_SYS(process_vm_readv), SCMP_SYS(getrlimit), SCMP_SYS(getppid), SCMP_SYS(open), SCMP_SYS(stat),
	SCMP_SYS(access), SCMP_SYS(unlink), SCMP_SYS(mkdir), SCMP_SYS(dup), SCMP_SYS(ftruncate), SCMP_SYS(prlimit64), SCMP_SYS(uname),
	SCMP_SYS(sysinfo), SCMP_SYS(mmap), SCMP_SYS(mprotect), SCMP_SYS(readlink), SCMP_SYS(sched_getaffinity), SCMP_SYS(sched_yield),
#endif
};

static int filter(bool *full)
{
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int r = CSM_ESYSTEM, bad = 0;

	if (f == NULL)
		return CSM_ENOMEM;
	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
		bad |= seccomp_rule_add(f, SCMP_ACT_ALLOW, plain[i], 0);
#ifndef CSM_SANITIZED
	bad |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	bad |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	bad |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, SCMP_A2(SCMP_CMP_EQ, 6));
#endif
	if (bad != 0)
		goto out;
	r = 0;
	if (seccomp_load(f) != 0) {
		log_warn("csm-deliver: seccomp is not in this kernel");
		*full = false;
	}
out:
	seccomp_release(f);
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
	long abi = 0;
	int r;

	for (size_t i = 0; i < c->n; i++) {
		if ((r = delivery_around(&c->target[i], around[i], PATH_CAP)) != 0)
			return r;
		write[i + 1] = around[i];
	}
	r = csm_landlock_paths(read, write, 0, &abi);
	if (r == 0 && abi == 0) {
		log_warn("csm-deliver: Landlock is not in this kernel");
		*full = false;
	}
	return r;
}

int delivery_jail(const struct delivery_config *c, bool *full)
{
	uint64_t keep = UINT64_C(1) << CAP_CHOWN | UINT64_C(1) << CAP_DAC_OVERRIDE | UINT64_C(1) << CAP_FOWNER;
	int r;

	*full = true;
	if (geteuid() == 0) {
		if ((r = csm_sandbox_drop_but(0, 0, keep)) != 0)
			return r;
	} else {
		log_warn("csm-deliver: started by an ordinary user: only folders of this user can be filled");
		*full = false;
	}
	if ((r = csm_sandbox_harden()) != 0 || (r = landlock(c, full)) != 0)
		return r;
	return filter(full);
}
