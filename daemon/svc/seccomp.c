#include "daemon/svc/seccomp.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define THREAD_FLAGS (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)

/* The leak checker stops and reads its own process at exit. */
static int add_sanitizers(scmp_filter_ctx f)
{
	int r = 0;

#ifdef CSM_SANITIZED
	static const int calls[] = {SCMP_SYS(ptrace), SCMP_SYS(wait4), SCMP_SYS(kill), SCMP_SYS(clone), SCMP_SYS(prctl),
		SCMP_SYS(arch_prctl), SCMP_SYS(tgkill), SCMP_SYS(personality), SCMP_SYS(process_vm_readv)};

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, calls[i], 0);
#endif
	(void)f;
	return r;
}

int csm_seccomp_load(const struct csm_seccomp *s, bool *in_force)
{
	scmp_filter_ctx f = seccomp_init(s->refusals ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(EPERM));
	int r = CSM_ESYSTEM, bad = 0;

	if (f == NULL)
		return CSM_ENOMEM;
	for (size_t i = 0; i < s->n; i++)
		bad |= seccomp_rule_add(f, SCMP_ACT_ALLOW, s->calls[i], 0);
	if (!s->refusals)
		bad |= add_sanitizers(f);
	if (s->rules != NULL)
		bad |= s->rules(f, s->arg);
	if (bad != 0)
		goto out;
	seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	*in_force = seccomp_load(f) == 0;
	r = 0;
out:
	seccomp_release(f);
	return r;
}

int csm_seccomp_threads(scmp_filter_ctx f)
{
	/* clone3 hides its flags from the filter: glibc falls back on ENOSYS. */
	int r = seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);

#ifndef CSM_SANITIZED
	r |= seccomp_rule_add(
		f, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, THREAD_FLAGS, THREAD_FLAGS));
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1, SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
	r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1, SCMP_A0(SCMP_CMP_EQ, PR_SET_VMA));
#endif
	return r | csm_seccomp_abort(f);
}

int csm_seccomp_abort(scmp_filter_ctx f)
{
#ifdef CSM_SANITIZED
	(void)f;
	return 0;
#else
	return seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 2, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()),
		SCMP_A2(SCMP_CMP_EQ, SIGABRT));
#endif
}

int csm_seccomp_memory(scmp_filter_ctx f)
{
	return seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)) |
		seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
}

int csm_seccomp_read_limits(scmp_filter_ctx f)
{
	return seccomp_rule_add(
		f, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 2, SCMP_A0(SCMP_CMP_EQ, 0), SCMP_A2(SCMP_CMP_EQ, 0));
}
