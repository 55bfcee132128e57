#include "daemon/svc/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/svc/policy_int.h"

/* Younger than the C library's headers. */
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

#define GROUPS_FIRST 32u
#define GROUPS_MAX 65536u /* NGROUPS_MAX of Linux */
#define LABEL_MAX 255u
#define MAP_MAX 4096u
#define PROC_MAX 8192u /* of /proc/PID/cgroup: a path of 4096 bytes, and version 1 hierarchies before it */

void csm_facts_clear(struct csm_facts *f)
{
	free(f->groups);
	free(f->cgroup);
	free(f->unit);
	free(f->user_unit);
	free(f->container);
	free(f->pod);
	free(f->label);
	free(f->exe_made);
	*f = (struct csm_facts){0};
}

/* What the process or the machine lacks for a moment. It says nothing of the peer: who would go on without what could
 * not be read would take a container for the host. */
static int lacking(int e)
{
	return e == EMFILE || e == ENFILE || e == ENOMEM || e == EIO ? CSM_ESYSTEM : CSM_ENOT_FOUND;
}

/* The whole of a small file, NUL-terminated. CSM_ENOT_FOUND when it is not to be had or does not fit, CSM_ESYSTEM when
 * it could be another time. */
static int slurp(const char *path, char *buf, size_t size, size_t *ret)
{
	size_t used = 0;
	ssize_t n = -1;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), r = CSM_ENOT_FOUND;

	if (fd < 0)
		return lacking(errno);
	while (used < size && (n = read(fd, buf + used, size - used)) > 0)
		used += (size_t)n;
	if (n < 0)
		r = lacking(errno);
	close(fd);
	if (n != 0 || used == size)
		return r;
	buf[used] = 0;
	*ret = used;
	return 0;
}

static pthread_mutex_t own_map_lock = PTHREAD_MUTEX_INITIALIZER;
static char own_map[MAP_MAX];
static size_t own_map_n;

/* Kept once it could be read. */
static int own_map_read(void)
{
	int r = 0;

	pthread_mutex_lock(&own_map_lock);
	if (own_map_n == 0)
		r = slurp("/proc/self/uid_map", own_map, sizeof(own_map), &own_map_n);
	pthread_mutex_unlock(&own_map_lock);
	return r;
}

/* The kernel shows another user namespace's map in our ids, and our own as it stands: the same text is the
 * same namespace, or one whose uids all are ours. */
static int same_user_ns(pid_t pid, bool *ret)
{
	char path[64], map[MAP_MAX];
	size_t n = 0;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/uid_map", (int)pid);
	*ret = false;
	if ((r = own_map_read()) != 0 || (r = slurp(path, map, sizeof(map), &n)) != 0)
		return r;
	*ret = n == own_map_n && memcmp(map, own_map, n) == 0;
	return 0;
}

/* In the pidfd's fdinfo, NSpid has one number for each pid namespace from ours down to the process's own. */
static int same_pid_ns(int pidfd, pid_t pid, bool *ret)
{
	char path[64], buf[1024], *line, *end;
	size_t n = 0;
	int r;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	*ret = false;
	if ((r = slurp(path, buf, sizeof(buf), &n)) != 0 || (line = strstr(buf, "\nNSpid:\t")) == NULL)
		return r;
	line += strlen("\nNSpid:\t");
	*ret = strtol(line, &end, 10) == pid && end != line && *end == '\n';
	return 0;
}

/* What cannot be read matches nothing; what could be read another time is an error. */
static int take_same_ns(int pidfd, struct csm_facts *f)
{
	bool pid = false, user = false;
	int r;

	if ((r = same_pid_ns(pidfd, f->pid, &pid)) == 0)
		r = same_user_ns(f->pid, &user);
	f->same_pid_ns = pid;
	f->same_ns = pid && user;
	return r == CSM_ESYSTEM ? r : 0;
}

static int take_cgroup(struct csm_facts *f, const char *kubepods_root)
{
	char path[64], buf[PROC_MAX], *line = buf, *end;
	size_t n;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)f->pid);
	if ((r = slurp(path, buf, sizeof(buf), &n)) != 0)
		return r == CSM_ESYSTEM ? r : 0;
	while (line != NULL && strncmp(line, "0::", 3) != 0)
		line = (end = strchr(line, '\n')) != NULL ? end + 1 : NULL;
	if (line == NULL || (end = strchr(line, '\n')) == NULL)
		return 0;
	*end = 0;
	r = csm_facts_from_cgroup(f, line + 3, kubepods_root);
	return r == CSM_EINVALID ? 0 : r;
}

static int take_groups(int fd, struct csm_facts *f)
{
	socklen_t len = GROUPS_FIRST * sizeof(gid_t);
	gid_t *groups = malloc(len);
	int r = CSM_ESYSTEM;

	if (groups == NULL)
		return CSM_ENOMEM;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) != 0) {
		gid_t *more = NULL;
		if (errno != ERANGE || len > GROUPS_MAX * sizeof(gid_t))
			goto out;
		r = CSM_ENOMEM;
		if ((more = realloc(groups, len)) == NULL)
			goto out;
		groups = more;
		r = CSM_ESYSTEM;
		if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) != 0)
			goto out;
	}
	f->n_groups = len / sizeof(gid_t);
	f->groups = groups;
	groups = NULL;
	r = 0;
out:
	free(groups);
	return r;
}

/* The label of the security module; none is the usual case. */
static int take_label(int fd, struct csm_facts *f)
{
	char buf[LABEL_MAX + 1];
	socklen_t len = LABEL_MAX;
	size_t n;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERSEC, buf, &len) != 0 || len > LABEL_MAX)
		return 0;
	n = strnlen(buf, len);
	while (n > 0 && buf[n - 1] == '\n')
		n--;
	for (size_t i = 0; i < n; i++)
		if ((uint8_t)buf[i] < 0x20 || (uint8_t)buf[i] > 0x7e)
			return 0;
	if (n == 0)
		return 0;
	f->label = strndup(buf, n);
	return f->label != NULL ? 0 : CSM_ENOMEM;
}

static bool lives(int pidfd)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};

	return poll(&p, 1, 0) == 0;
}

/* A kernel without SO_PEERPIDFD gives only a pid, which may be another process by now. What rests on it
 * alone (unit, pod, container) is then left out; that the peer is in our namespaces is still asked of it, since
 * its uid, which the socket tells, is all that a uid namespace is given for. */
static int take_pidfd(int fd, pid_t pid, int *ret, bool *proved)
{
	int pidfd = -1;
	socklen_t len = sizeof(pidfd);

	*proved = true;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len) == 0) {
		*ret = pidfd;
		return 0;
	}
	if (errno != ENOPROTOOPT)
		return errno == ESRCH || errno == EINVAL || errno == ENODATA ? CSM_ECLOSED : CSM_ESYSTEM;
	*proved = false;
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0 && errno == ESRCH)
		return CSM_ECLOSED;
	*ret = pidfd;
	return 0;
}

/* All that is read by pid, between the taking of the pidfd and the proof that it was still that process. */
static int take_proc(int pidfd, bool proved, const char *kubepods_root, bool csmd_degraded, struct csm_facts *f)
{
	int r = 0;

	if (pidfd >= 0 && (r = take_same_ns(pidfd, f)) != 0)
		return r;
	if (pidfd >= 0 && proved && !csmd_degraded) {
		r = take_cgroup(f, kubepods_root);
		/* Elsewhere root of a user namespace may send credentials with any pid of its pid namespace. */
		f->exe_askable = f->same_ns;
	}
	/* A container that shares the host's namespaces is a container all the same. */
	if (f->container != NULL || f->pod != NULL)
		f->same_ns = false;
	if (r == 0 && pidfd >= 0 && !lives(pidfd))
		r = CSM_ECLOSED;
	return r;
}

int csm_facts_of_socket(int fd, const char *kubepods_root, bool csmd_degraded, struct csm_facts *ret, int *pidfd)
{
	struct csm_facts f = {0};
	struct ucred cred;
	socklen_t len = sizeof(cred);
	int pfd = -1, r = CSM_ESYSTEM;
	bool proved;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0 || len != sizeof(cred))
		goto out;
	f.uid = cred.uid;
	f.gid = cred.gid;
	f.pid = cred.pid;
	f.valid = cred.pid > 0 && !policy_id_is_overflow(cred.uid);
	/* Without a pid a message's sender is told by uid and gid alone, so these are all that such a peer has. */
	if (cred.pid > 0 && ((r = take_groups(fd, &f)) != 0 || (r = take_label(fd, &f)) != 0 ||
		(r = take_pidfd(fd, cred.pid, &pfd, &proved)) != 0 ||
		(r = take_proc(pfd, proved, kubepods_root, csmd_degraded, &f)) != 0))
		goto out;
	*ret = f;
	*pidfd = pfd;
	return 0;
out:
	if (pfd >= 0)
		close(pfd);
	csm_facts_clear(&f);
	return r;
}

bool csm_exe_same(const struct csm_exe *a, const struct csm_exe *b)
{
	return a->device == b->device && a->inode == b->inode && a->size == b->size && a->changed == b->changed &&
		a->image == b->image && strcmp(a->path, b->path) == 0 &&
		(!a->hashed || !b->hashed || memcmp(a->sha256, b->sha256, sizeof(a->sha256)) == 0);
}

bool csm_identity_degraded(const char **why)
{
	/* the fixed inodes of the first namespaces */
	static const struct {
		const char *path, *why;
		ino_t ino;
	} spaces[] = {
		{"/proc/self/ns/pid", "csmd is in a pid namespace of its own", 0xEFFFFFFC},
		{"/proc/self/ns/user", "csmd is in a user namespace of its own", 0xEFFFFFFD},
		{"/proc/self/ns/cgroup", "csmd is in a cgroup namespace of its own", 0xEFFFFFFB},
	};
	struct stat st;

	for (size_t i = 0; i < sizeof(spaces) / sizeof(spaces[0]); i++) {
		bool known = stat(spaces[i].path, &st) == 0;
		if (known && st.st_ino == spaces[i].ino)
			continue;
		if (why != NULL)
			*why = known ? spaces[i].why : "csmd cannot see its namespaces in /proc";
		return true;
	}
	return false;
}
