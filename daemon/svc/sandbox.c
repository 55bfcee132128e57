#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <linux/capability.h>
#include <unistd.h>
#include "daemon/svc/log.h"
#include "daemon/svc/sandbox.h"

static int keep_capabilities(uint64_t keep)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[2] = {{.effective = (uint32_t)keep, .permitted = (uint32_t)keep},
		{.effective = (uint32_t)(keep >> 32), .permitted = (uint32_t)(keep >> 32)}};

	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (syscall(SYS_capset, &head, caps) == 0)
		return 0;
	return keep != 0 && errno == EPERM ? CSM_EDENIED : CSM_ESYSTEM;
}

/* Every way back that the kernel knows is tried; one that works is a reason to stop at once. */
static void prove_drop(uid_t uid, gid_t gid)
{
	uid_t ru, eu, su;
	gid_t rg, eg, sg;
	bool back = uid != 0 && (setuid(0) == 0 || seteuid(0) == 0 || setresuid(0, 0, 0) == 0);

	back = back || (gid != 0 && (setgid(0) == 0 || setegid(0) == 0 || setresgid(0, 0, 0) == 0));
	back = back || (uid != 0 && setgroups(0, NULL) == 0);
	if (back || getresuid(&ru, &eu, &su) != 0 || getresgid(&rg, &eg, &sg) != 0 || ru != uid || eu != uid ||
		su != uid || rg != gid || eg != gid || sg != gid || getgroups(0, NULL) != 0) {
		log_err("privileges came back after the drop");
		abort();
	}
}

int csm_sandbox_drop_but(uid_t uid, gid_t gid, uint64_t keep)
{
	int r;

	if (keep != 0 && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0)
		return CSM_ESYSTEM;
	if (setgroups(0, NULL) != 0 || setresgid(gid, gid, gid) != 0 || setresuid(uid, uid, uid) != 0)
		return CSM_ESYSTEM;
	if ((r = keep_capabilities(keep)) != 0)
		return r;
	if (keep != 0 && prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) != 0)
		return CSM_ESYSTEM;
	prove_drop(uid, gid);
	return 0;
}

int csm_sandbox_drop(uid_t uid, gid_t gid)
{
	return csm_sandbox_drop_but(uid, gid, 0);
}

int csm_sandbox_harden(void)
{
	struct rlimit none = {0, 0};

	/* The change of user has cleared it: without its supervisor nobody stops this process. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || setrlimit(RLIMIT_CORE, &none) != 0 ||
		prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
		return CSM_ESYSTEM;
	return 0;
}

int csm_sandbox_become(uid_t uid, gid_t gid, uint64_t keep, const char *otherwise, bool *full)
{
	int r;

	if (uid != (uid_t)-1) {
		if ((r = csm_sandbox_drop_but(uid, gid, keep)) != 0)
			return r;
	} else {
		log_warn("started by an ordinary user: %s", otherwise);
		*full = false;
	}
	return csm_sandbox_harden();
}

int csm_sandbox_files(const char *const read[], const char *const write[], unsigned but, bool *full)
{
	long abi;
	int r = csm_landlock_paths(read, write, but, &abi);

	if (r == 0 && abi == 0) {
		log_warn("landlock is not in this kernel");
		*full = false;
	}
	return r;
}

int csm_sandbox_calls(const struct csm_seccomp *s, bool *full)
{
	bool on;
	int r = csm_seccomp_load(s, &on);

	if (r == 0 && !on) {
		log_warn("seccomp is not in this kernel");
		*full = false;
	}
	return r;
}
