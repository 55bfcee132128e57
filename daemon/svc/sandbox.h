/* Giving up privileges for good: user, capabilities, core dumps, ptrace, files, system calls. Called while the
 * process has one thread. */
#ifndef CSM_SVC_SANDBOX_H
#define CSM_SVC_SANDBOX_H

#include <sys/types.h>
#include "daemon/svc/seccomp.h"
#include "libclient/base/err.h"

struct csm_sandbox {
	uid_t uid; /* (uid_t)-1: stay who we are */
	gid_t gid;
	const char *write_dir;    /* the only folder that may be written */
	const char *read_dirs[5]; /* folders that may be read, NULL ends */
	bool required;            /* a facility that the kernel lacks is a failure */
};
#define CSM_SANDBOX_NOTES 8
struct csm_sandbox_report {
	char note[CSM_SANDBOX_NOTES][96]; /* "seccomp: on", "landlock: not in this kernel", ... */
	size_t n;
	bool full; /* all of it is in force */
};

/* Become uid and gid without supplementary groups and capabilities, and prove that there is no way back;
 * ends the process when there is. */
CSM_MUST int csm_sandbox_drop(uid_t uid, gid_t gid);
/* The same, but these capabilities (bits by number) stay permitted and effective. CSM_EDENIED: we do not have them. */
CSM_MUST int csm_sandbox_drop_but(uid_t uid, gid_t gid, uint64_t keep);
/* No new privileges, no core dumps, not dumpable, so that no process of the same user may ptrace. */
CSM_MUST int csm_sandbox_harden(void);
/* Files: only these, each list ended by NULL, files or folders; what is not there is passed over. No TCP, no abstract
 * sockets, no signals to processes outside, but for `but`. *ret: the kernel's version of Landlock, 0 when it has none. */
enum csm_landlock_but { CSM_LANDLOCK_NETWORK = 1, CSM_LANDLOCK_SOCKETS = 2 };
CSM_MUST int csm_landlock_paths(const char *const read[], const char *const write[], unsigned but, long *ret);
/* The same for the broker: every folder has to be there; below `write` it makes files and folders, nothing else. */
CSM_MUST int csm_landlock_folders(const char *const read[], const char *write, long *ret);

/* For a helper, one after the other. Each logs what the kernel lacks and clears *full, which the caller has set. */
/* Drop but for `keep`, and harden. uid (uid_t)-1: stay who we are, `otherwise` says what follows from that. */
CSM_MUST int csm_sandbox_become(uid_t uid, gid_t gid, uint64_t keep, const char *otherwise, bool *full);
CSM_MUST int csm_sandbox_files(const char *const read[], const char *const write[], unsigned but, bool *full);
CSM_MUST int csm_sandbox_calls(const struct csm_seccomp *s, bool *full);

/* The broker's, all of it: drop, harden, Landlock, seccomp. */
CSM_MUST int csm_sandbox_enter(const struct csm_sandbox *s, struct csm_sandbox_report *report);

#endif
