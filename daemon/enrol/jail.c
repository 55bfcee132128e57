#include "daemon/enrol/jail.h"

#include <fcntl.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include "daemon/svc/sandbox.h"

static const char *const readable[] = {"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf",
	"/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/dev/urandom", "/etc/localtime",
#ifdef CSM_SANITIZED
	"/proc", "/usr", "/lib", "/lib64", "/etc",
#endif
	NULL};
static const char *const writable[] = {NULL};

static const int plain[] = {
	/* sockets that are there, and those of the families below */
	SCMP_SYS(connect), SCMP_SYS(sendto), SCMP_SYS(sendmsg), SCMP_SYS(sendmmsg), SCMP_SYS(recvfrom), SCMP_SYS(recvmsg),
	SCMP_SYS(recvmmsg), SCMP_SYS(getsockopt), SCMP_SYS(setsockopt), SCMP_SYS(getsockname), SCMP_SYS(getpeername),
	SCMP_SYS(shutdown), SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(select), SCMP_SYS(pselect6),
	/* descriptors and files (Landlock says which) */
	SCMP_SYS(read), SCMP_SYS(readv), SCMP_SYS(write), SCMP_SYS(writev), SCMP_SYS(close), SCMP_SYS(fstat),
	SCMP_SYS(newfstatat), SCMP_SYS(statx), SCMP_SYS(lseek), SCMP_SYS(fcntl),
	/* time, memory, threads and signals of our own */
	SCMP_SYS(clock_gettime), SCMP_SYS(clock_nanosleep), SCMP_SYS(nanosleep), SCMP_SYS(gettimeofday), SCMP_SYS(time),
	SCMP_SYS(restart_syscall), SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(mlock),
	SCMP_SYS(mlock2), SCMP_SYS(munlock), SCMP_SYS(futex), SCMP_SYS(set_robust_list), SCMP_SYS(rseq),
	SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn), SCMP_SYS(sigaltstack),
	SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity), SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(membarrier),
	SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getgid), SCMP_SYS(getegid),
	SCMP_SYS(getrandom), SCMP_SYS(uname), SCMP_SYS(sysinfo), SCMP_SYS(getrusage),
#ifdef CSM_SANITIZED
	SCMP_SYS(getrlimit), SCMP_SYS(prlimit64), SCMP_SYS(getppid), SCMP_SYS(open), SCMP_SYS(openat),
	SCMP_SYS(stat), SCMP_SYS(access), SCMP_SYS(unlink), SCMP_SYS(mkdir), SCMP_SYS(getdents64), SCMP_SYS(dup),
	SCMP_SYS(dup2), SCMP_SYS(ftruncate), SCMP_SYS(mmap), SCMP_SYS(mprotect), SCMP_SYS(readlink),
	SCMP_SYS(readlinkat), SCMP_SYS(pipe2), SCMP_SYS(ioctl),
#endif
};

static int rules(scmp_filter_ctx f, const void *arg)
{
	static const int families[] = {AF_INET, AF_INET6};
	int r = 0;

	(void)arg;
	for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++)
		r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)families[i]));
#ifndef CSM_SANITIZED
	r |= seccomp_rule_add(
		f, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT | O_TRUNC | O_APPEND, 0));
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_EQ, FIONBIO));
	r |= csm_seccomp_memory(f);
#endif
	return r | csm_seccomp_threads(f);
}

int enrol_jail(uid_t uid, gid_t gid, bool *full)
{
	const struct csm_seccomp calls = {.calls = plain, .n = sizeof(plain) / sizeof(plain[0]), .rules = rules};
	int r;

	*full = true;
	if ((r = csm_sandbox_become(uid, gid, 0, "csm-enrol runs as csmd does", full)) != 0 ||
		(r = csm_sandbox_files(readable, writable, CSM_LANDLOCK_NETWORK, full)) != 0)
		return r;
	return csm_sandbox_calls(&calls, full);
}
