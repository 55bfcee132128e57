/* Who is at the other end of a Unix socket, as the kernel tells it, and what names policy
 * gives it. A peer is made once per process and loop; see peer.h for how it is found. */
#ifndef CSM_SVC_IDENTITY_H
#define CSM_SVC_IDENTITY_H

#include <sys/types.h>
#include "libclient/base/name.h"

/* The program of a process, as csm-ident found it. */
#define CSM_EXE_PATH_MAX 4096u
struct csm_exe {
	char path[CSM_EXE_PATH_MAX + 1]; /* empty: that path is another file here, or none */
	uint64_t device, inode, size, changed; /* changed: nanoseconds */
	uint64_t image;                  /* differs after each execve of the process */
	bool hashed;
	uint8_t sha256[32];
};
/* The same file, unchanged, and no execve in between. A digest that only one of them has is not compared. */
bool csm_exe_same(const struct csm_exe *a, const struct csm_exe *b);

/* The facts that selectors look at. A NULL string is a factor that is not there or could not be
 * read: no selector on it matches. */
struct csm_facts {
	uid_t uid;
	gid_t gid;
	pid_t pid;
	bool valid;        /* pid is not 0, uid is not the overflow uid (an overflow gid just matches nothing) */
	bool same_pid_ns;
	bool same_ns;      /* peer is in csmd's own user and pid namespaces, and in no container or pod */
	gid_t *groups;     /* supplementary */
	size_t n_groups;
	char *cgroup;      /* path from the root of the unified hierarchy */
	char *unit;        /* "nginx.service", below /system.slice */
	char *user_unit;   /* a user manager's unit, "uid/app.service" */
	char *container;   /* full id below a known engine's parent */
	char *pod;         /* uid of the pod, below the kubepods root */
	char *label;       /* SO_PEERSEC */
	bool exe_askable;  /* pid is this process for as long as its pidfd says so, in namespaces that csmd sees */
	const struct csm_exe *exe; /* borrowed; NULL: not looked at, and no selector on it matches */
	struct csm_exe *exe_made;  /* what exe points to where these facts own it; else NULL */
};
void csm_facts_clear(struct csm_facts *f);

/* Split a cgroup path (from the unified hierarchy's root) into unit, user_unit, container, pod.
 * kubepods_root: "/kubepods.slice" or "/kubepods". Nothing matches by a name inside a path that
 * the peer's own user can make: only anchored forms. Strings are allocated into f. */
CSM_MUST int csm_facts_from_cgroup(struct csm_facts *f, const char *path, const char *kubepods_root);

/* The peer of a connected Unix socket. *pidfd (may be -1 on kernels without SO_PEERPIDFD) becomes
 * the caller's. All of /proc is read between the taking of the pidfd and a check that the process
 * still lives. csmd_degraded: pid, cgroup facts are left out. CSM_ESYSTEM. */
CSM_MUST int csm_facts_of_socket(int fd, const char *kubepods_root, bool csmd_degraded, struct csm_facts *ret, int *pidfd);

/* True when this process is in a pid, user or cgroup namespace of its own; *why (static) says which. */
bool csm_identity_degraded(const char **why);

#endif
