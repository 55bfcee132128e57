/* The broker's sandbox: its system calls are an allow-list; all else fails with EPERM. */
#include <stdio.h>
#include "daemon/svc/sandbox.h"

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
	SCMP_SYS(getdents),
#endif
};

static int rules(scmp_filter_ctx f, const void *arg)
{
	(void)arg;
	/* No new sockets of any family: a datagram one would reach the sockets of others, such as a remote log's. Those
	 * that are there, and those that the listeners accept, are AF_UNIX. */
	return csm_seccomp_memory(f) | csm_seccomp_threads(f) | csm_seccomp_read_limits(f);
}

static void note(struct csm_sandbox_report *report, bool in_force, const char *text)
{
	if (report->n < CSM_SANDBOX_NOTES)
		snprintf(report->note[report->n++], sizeof(report->note[0]), "%s", text);
	report->full = report->full && in_force;
}

static int close_files(const struct csm_sandbox *s, struct csm_sandbox_report *report)
{
	char text[96];
	long abi;
	int r = csm_landlock_folders(s->read_dirs, s->write_dir, &abi);

	if (r != 0)
		return r;
	snprintf(text, sizeof(text), "landlock: on, ABI %ld", abi);
	note(report, abi != 0, abi != 0 ? text : "landlock: not in this kernel");
	return 0;
}

static int close_calls(struct csm_sandbox_report *report)
{
	const struct csm_seccomp s = {.calls = plain, .n = sizeof(plain) / sizeof(plain[0]), .rules = rules};
	bool on;
	int r = csm_seccomp_load(&s, &on);

	if (r == 0)
		note(report, on, on ? "seccomp: on" : "seccomp: not in this kernel");
	return r;
}

int csm_sandbox_enter(const struct csm_sandbox *s, struct csm_sandbox_report *report)
{
	int r;

	report->n = 0;
	report->full = true;
	if (s->uid != (uid_t)-1) {
		if ((r = csm_sandbox_drop(s->uid, s->gid)) != 0)
			return r;
		note(report, true, "user: dropped");
	} else {
		note(report, false, "user: not dropped, started unprivileged");
	}
	if ((r = csm_sandbox_harden()) != 0)
		return r;
	note(report, true, "no_new_privs, no core dumps, no ptrace");
	if ((r = close_files(s, report)) != 0 || (r = close_calls(report)) != 0)
		return r;
	return s->required && !report->full ? CSM_EUNSUPPORTED : 0;
}
