/* The broker's system calls: an allow-list; all else fails with EPERM. */
#include <errno.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include "daemon/svc/log.h"
#include "daemon/svc/sandbox_internal.h"

/* Calls without a condition on their arguments. */
static const int plain[] = {
	/* descriptors and files (Landlock says which) */
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(pread64), SCMP_SYS(pwrite64),
	SCMP_SYS(preadv), SCMP_SYS(pwritev), SCMP_SYS(close), SCMP_SYS(fstat), SCMP_SYS(newfstatat), SCMP_SYS(statx),
	SCMP_SYS(lseek), SCMP_SYS(openat), SCMP_SYS(open), SCMP_SYS(mkdir), SCMP_SYS(mkdirat), SCMP_SYS(unlink),
	SCMP_SYS(unlinkat), SCMP_SYS(rename), SCMP_SYS(renameat), SCMP_SYS(renameat2), SCMP_SYS(fsync),
	SCMP_SYS(fdatasync), SCMP_SYS(msync), SCMP_SYS(ftruncate), SCMP_SYS(fcntl), SCMP_SYS(flock), SCMP_SYS(dup),
	SCMP_SYS(getdents64), SCMP_SYS(statfs), SCMP_SYS(fstatfs), SCMP_SYS(stat), SCMP_SYS(access),
	SCMP_SYS(faccessat), SCMP_SYS(faccessat2), SCMP_SYS(pipe2), SCMP_SYS(eventfd2), SCMP_SYS(fallocate),
	/* sockets that are there already */
	SCMP_SYS(recvmsg), SCMP_SYS(recvfrom), SCMP_SYS(sendmsg), SCMP_SYS(sendto), SCMP_SYS(accept4),
	SCMP_SYS(getsockopt), SCMP_SYS(setsockopt), SCMP_SYS(getsockname), SCMP_SYS(getpeername), SCMP_SYS(shutdown),
	/* watching a peer where SO_PEERPIDFD is not known (kernels before 6.5) */
	SCMP_SYS(pidfd_open),
	/* waiting and time */
	SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait),
	SCMP_SYS(epoll_pwait2), SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres),
	SCMP_SYS(clock_nanosleep), SCMP_SYS(nanosleep), SCMP_SYS(gettimeofday), SCMP_SYS(time),
	SCMP_SYS(timerfd_create), SCMP_SYS(timerfd_settime), SCMP_SYS(restart_syscall),
	/* memory that is never executable: mmap and mprotect stand below */
	SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk), SCMP_SYS(mlock), SCMP_SYS(mlock2),
	SCMP_SYS(munlock), SCMP_SYS(mincore),
	/* threads and signals of our own */
	SCMP_SYS(futex), SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigtimedwait), SCMP_SYS(sigaltstack), SCMP_SYS(sched_yield),
	SCMP_SYS(sched_getaffinity), SCMP_SYS(sched_setaffinity), SCMP_SYS(sched_setscheduler),
	SCMP_SYS(sched_getparam), SCMP_SYS(sched_getscheduler), SCMP_SYS(exit), SCMP_SYS(exit_group),
	SCMP_SYS(membarrier),
	/* questions about ourselves */
	SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(getppid), SCMP_SYS(getuid), SCMP_SYS(geteuid),
	SCMP_SYS(getgid), SCMP_SYS(getegid), SCMP_SYS(getrlimit), SCMP_SYS(getrusage), SCMP_SYS(uname),
	SCMP_SYS(sysinfo), SCMP_SYS(getrandom), SCMP_SYS(readlink), SCMP_SYS(readlinkat), SCMP_SYS(getcwd),
#ifdef CSM_SANITIZED
	/* the leak checker stops and reads its own process at exit */
	SCMP_SYS(ptrace), SCMP_SYS(wait4), SCMP_SYS(kill), SCMP_SYS(clone), SCMP_SYS(prctl), SCMP_SYS(arch_prctl),
	SCMP_SYS(tgkill), SCMP_SYS(personality), SCMP_SYS(process_vm_readv), SCMP_SYS(getdents),
#endif
};

#define THREAD_FLAGS \
	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)

static int add_conditional(scmp_filter_ctx f)
{
	int r = 0;

	/* No new sockets of any family: a datagram one would reach the sockets of others, such as a remote log's. Those
	 * that are there, and those that the listeners accept, are AF_UNIX. */
	/* No executable memory, now or later. */
	r |= seccomp_rule_add(
		f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	r |= seccomp_rule_add(
		f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	/* Threads, never processes; clone3 hides its flags from the filter: glibc falls back on ENOSYS. */
	r |= seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
#ifndef CSM_SANITIZED
	r |= seccomp_rule_add(
		f, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, THREAD_FLAGS, THREAD_FLAGS));
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1, SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1, SCMP_A0(SCMP_CMP_EQ, PR_SET_VMA));
	/* Only abort() needs it: to end ourselves. */
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, SCMP_A2(SCMP_CMP_EQ, 6));
#endif
	/* Limits are read, never set. */
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 2, SCMP_A0(SCMP_CMP_EQ, 0),
		SCMP_A2(SCMP_CMP_EQ, 0));
	return r;
}

int csm_sandbox_seccomp(struct csm_sandbox_report *report)
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
	if (seccomp_load(f) != 0) {
		csm_sandbox_note(report, false, "seccomp: not in this kernel");
		r = 0;
		goto out;
	}
	csm_sandbox_note(report, true, "seccomp: on");
	r = 0;
out:
	seccomp_release(f);
	return r;
}
