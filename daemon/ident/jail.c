#include "daemon/ident/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mman.h>
#include "daemon/svc/sandbox.h"

static const int plain[] = {
	/* looking */
	SCMP_SYS(statx),
	SCMP_SYS(readlink),
	SCMP_SYS(readlinkat),
	SCMP_SYS(read),
	SCMP_SYS(pread64),
	SCMP_SYS(fstat),
	SCMP_SYS(newfstatat),
	SCMP_SYS(lseek),
	SCMP_SYS(close),
	/* the socket that is there, the log, the threads' wake-up */
	SCMP_SYS(recvfrom),
	SCMP_SYS(sendto),
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	/* time, memory, threads and signals of our own */
	SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(brk),
	SCMP_SYS(futex),
	SCMP_SYS(set_robust_list),
	SCMP_SYS(rseq),
	SCMP_SYS(rt_sigaction),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(sigaltstack),
	SCMP_SYS(sched_yield),
	SCMP_SYS(sched_getaffinity),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
	SCMP_SYS(membarrier),
	SCMP_SYS(getpid),
	SCMP_SYS(gettid),
	SCMP_SYS(getrandom),
#ifdef CSM_SANITIZED
	SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getrlimit), SCMP_SYS(getppid), SCMP_SYS(open),
	SCMP_SYS(openat), SCMP_SYS(openat2), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise),
	SCMP_SYS(mprotect), SCMP_SYS(stat), SCMP_SYS(access), SCMP_SYS(unlink), SCMP_SYS(mkdir), SCMP_SYS(fcntl),
	SCMP_SYS(getdents64), SCMP_SYS(dup), SCMP_SYS(ftruncate), SCMP_SYS(prlimit64), SCMP_SYS(uname),
	SCMP_SYS(sysinfo), SCMP_SYS(write), SCMP_SYS(mmap),
#endif
};

/* Some kernels take an address whatever its highest byte: none gets by the comparison of addresses that way. */
#define TAG UINT64_C(0xff00000000000000)

static int allowed(scmp_filter_ctx f, const void *arg)
{
	int r = csm_seccomp_threads(f);

#ifndef CSM_SANITIZED
	const struct jail *j = arg;

	/* Files are read, never written or made. The flags of openat2 lie in memory, where the filter cannot look: they
	 * have to be those at j->how, which nobody can write any more. */
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(write), 1, SCMP_A0(SCMP_CMP_EQ, 2));
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(write), 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)j->wake));
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
		SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_SHARED, 0));
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1,
		SCMP_A2(SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT | O_TRUNC | O_APPEND, 0));
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(openat2), 2, SCMP_A2(SCMP_CMP_EQ, (scmp_datum_t)j->how),
		SCMP_A3(SCMP_CMP_EQ, sizeof(*j->how)));
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(munmap), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, TAG, 0));
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(madvise), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, TAG, 0));
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mremap), 2, SCMP_A0(SCMP_CMP_MASKED_EQ, TAG, 0),
		SCMP_A3(SCMP_CMP_MASKED_EQ, MREMAP_FIXED, 0));
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 2, SCMP_A0(SCMP_CMP_MASKED_EQ, TAG, 0),
		SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
#endif
	(void)arg;
	return r;
}

/* A filter of its own, since a rule cannot compare one argument twice: what of the allowed calls is refused all the same.
 * The descriptors that can be written keep their numbers, and what they are; nothing takes the place of j->how, which
 * lies below all else. */
static int refused(scmp_filter_ctx f, const void *arg)
{
	int r = 0;

#ifndef CSM_SANITIZED
	const struct jail *j = arg;
	static const int by_address[] = {SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(mprotect)};
	scmp_datum_t end = (scmp_datum_t)j->how + sizeof(*j->how);

	/* The kernel takes 32 bits of a descriptor's number. */
	for (scmp_datum_t fd = 0; fd <= (scmp_datum_t)j->wake || fd <= JAIL_SOCKET; fd++) {
		r |= seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(close), 1,
			SCMP_A0(SCMP_CMP_MASKED_EQ, UINT32_MAX, fd));
		r |= seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(lseek), 1,
			SCMP_A0(SCMP_CMP_MASKED_EQ, UINT32_MAX, fd));
	}
	for (size_t i = 0; i < sizeof(by_address) / sizeof(by_address[0]); i++)
		r |= seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), by_address[i], 1, SCMP_A0(SCMP_CMP_LT, end));
	r |= seccomp_rule_add(
		f, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(mmap), 1, SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_FIXED, MAP_FIXED));
#endif
	(void)f;
	(void)arg;
	return r;
}

int jail_enter(uid_t uid, gid_t gid, const struct jail *j, bool *full)
{
	const struct csm_seccomp first = {.refusals = true, .rules = refused, .arg = j};
	const struct csm_seccomp second = {.calls = plain, .n = sizeof(plain) / sizeof(plain[0]), .rules = allowed, .arg = j};
	uint64_t keep = UINT64_C(1) << CAP_SYS_PTRACE | UINT64_C(1) << CAP_DAC_READ_SEARCH;
	int r;

	*full = true;
	if ((r = csm_sandbox_become(uid, gid, keep, "only programs of this user can be told", full)) != 0 ||
		(r = csm_sandbox_calls(&first, full)) != 0)
		return r;
	return csm_sandbox_calls(&second, full);
}
