#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "daemon/ident/look.h"

#define STAT_MAX 4096u
#define MOUNTINFO_MAX (1024u * 1024u)
#define TRIES 5

/* The whole of a file of /proc, NUL-terminated. */
static bool slurp(pid_t pid, const char *name, char *buf, size_t cap)
{
	char path[64];
	size_t n = 0;
	ssize_t got = -1;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	while (n < cap && (got = read(fd, buf + n, cap - n)) > 0)
		n += (size_t)got;
	close(fd);
	if (got != 0 || n == cap)
		return false;
	buf[n] = '\0';
	return true;
}

/* ---- the image: which execve made it ---- */

static uint64_t mix(uint64_t h, uint64_t v)
{
	h ^= v;
	h *= UINT64_C(0x9e3779b97f4a7c15);
	return h ^ (h >> 29);
}

/* Fields counted from 1, as in proc(5). */
#define FIELD_START_CODE 26
#define FIELD_START_STACK 28
#define FIELD_START_BRK 47

bool look_parse_image(const char *stat, uint64_t *ret)
{
	const char *p = strrchr(stat, ')'); /* the name may hold anything */
	uint64_t h = 1;
	int field = 2;

	for (p = p != NULL ? p + 1 : ""; *p == ' '; field++) {
		char *end;
		unsigned long long v;

		p++;
		if (field + 1 == FIELD_START_CODE || field + 1 == FIELD_START_STACK || field + 1 == FIELD_START_BRK) {
			v = strtoull(p, &end, 10);
			/* 0 or 1: hidden from us, or a process without memory of its own */
			if (end == p || v <= 1)
				return false;
			h = mix(h, v);
		}
		p += strcspn(p, " \n");
	}
	if (field < FIELD_START_BRK)
		return false;
	*ret = h;
	return true;
}

static bool image_of(pid_t pid, uint64_t *ret)
{
	char stat[STAT_MAX];

	return slurp(pid, "stat", stat, sizeof(stat)) && look_parse_image(stat, ret);
}

/* With fixed addresses two programs, one after the other, could not be told apart. */
static bool has_random_addresses(pid_t pid)
{
	char text[32];

	return slurp(pid, "personality", text, sizeof(text)) && (strtoul(text, NULL, 16) & ADDR_NO_RANDOMIZE) == 0;
}

/* ---- the file ---- */

static int stat_of(int fd, struct look *l)
{
	struct statx st;

	/* What the kernel knows, without asking whoever serves the file system. */
	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS | STATX_MNT_ID, &st) != 0 ||
		!S_ISREG(st.stx_mode))
		return CSM_EDENIED;
	l->device = makedev(st.stx_dev_major, st.stx_dev_minor);
	l->inode = st.stx_ino;
	l->size = st.stx_size;
	l->changed = (uint64_t)st.stx_ctime.tv_sec * 1000000000u + st.stx_ctime.tv_nsec;
	l->mount = st.stx_mask & STATX_MNT_ID ? st.stx_mnt_id : 0;
	return 0;
}

static const struct open_how how_here = {.flags = O_PATH | O_CLOEXEC | O_NOFOLLOW,
	.resolve = RESOLVE_CACHED | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS};
static const struct open_how *how = &how_here;

#define HOW_AT UINT64_C(0x100000) /* below every program and library, above what the kernel keeps free */
#define HOW_SIZE 4096u

int look_init(const struct open_how **ret)
{
	void *at = (void *)HOW_AT; /* NOLINT(performance-no-int-to-ptr) */
	void *p = mmap(at, HOW_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (p != at) {
		if (p != MAP_FAILED)
			munmap(p, HOW_SIZE);
		return CSM_ESYSTEM;
	}
	memcpy(p, &how_here, sizeof(how_here));
	if (mprotect(p, HOW_SIZE, PROT_READ) != 0)
		return CSM_ESYSTEM;
	*ret = how = p;
	return 0;
}

/* Is this path, here, that very file? The process may be in a mount namespace of its own, or its program deleted or
 * replaced since: then the name says nothing. Only names that the kernel has in its cache are followed, as those of
 * a running program are, so that no server of a file system keeps us waiting. */
static bool is_here(const char *path, const struct look *l)
{
	struct look here = {0};
	long fd = -1;
	int r;

	for (int i = 0; i < TRIES && fd < 0; i++) {
		fd = syscall(SYS_openat2, AT_FDCWD, path, how, sizeof(*how));
		if (fd < 0 && errno != EAGAIN)
			return false;
	}
	if (fd < 0)
		return false;
	r = stat_of((int)fd, &here);
	close((int)fd);
	return r == 0 && here.device == l->device && here.inode == l->inode;
}

/* One try; CSM_EBUSY when the process executed something meanwhile. */
static int try_look(pid_t pid, struct look *l, int *ret, const char **why)
{
	char link[64], path[LOOK_PATH_MAX + 1];
	uint64_t after;
	ssize_t n;
	int fd, r = CSM_EDENIED;

	snprintf(link, sizeof(link), "/proc/%d/exe", (int)pid);
	*why = "csm-ident may not look at it";
	if (!image_of(pid, &l->image))
		return CSM_EDENIED;
	*why = "its executable cannot be read";
	fd = open(link, O_PATH | O_CLOEXEC);
	if (fd < 0)
		return CSM_EDENIED;
	n = readlink(link, path, sizeof(path));
	if (stat_of(fd, l) != 0)
		goto out;
	*why = "it was started with fixed addresses";
	if (!has_random_addresses(pid))
		goto out;
	r = CSM_EBUSY;
	*why = "it executes one program after the other";
	if (!image_of(pid, &after) || after != l->image)
		goto out;
	l->path[0] = '\0';
	if (n > 0 && (size_t)n < sizeof(path)) {
		path[n] = '\0';
		if (is_here(path, l))
			memcpy(l->path, path, (size_t)n + 1);
	}
	*ret = fd;
	return 0;
out:
	close(fd);
	return r;
}

int look_at(pid_t pid, struct look *ret, int *fd, char why[static LOOK_WHY_MAX])
{
	const char *reason = "";
	int r = CSM_EBUSY;

	for (int i = 0; i < TRIES && r == CSM_EBUSY; i++)
		r = try_look(pid, ret, fd, &reason);
	if (r != 0)
		snprintf(why, LOOK_WHY_MAX, "the program of this process cannot be told: %s", reason);
	return r == 0 ? 0 : CSM_EDENIED;
}

/* ---- file systems ---- */

bool look_parse_mount(const char *mountinfo, uint64_t id, char *type, size_t cap)
{
	for (const char *line = mountinfo; line != NULL && *line != '\0'; line = strchr(line, '\n')) {
		const char *dash;
		size_t n;

		line += *line == '\n';
		if (strtoull(line, NULL, 10) != id || *line == '\0')
			continue;
		/* Blanks in names are written \040, so that this is the field of its own. */
		dash = strstr(line, " - ");
		if (dash == NULL || memchr(line, '\n', (size_t)(dash - line)) != NULL)
			return false;
		n = strcspn(dash + 3, " \n");
		if (n == 0 || n >= cap)
			return false;
		memcpy(type, dash + 3, n);
		type[n] = '\0';
		return true;
	}
	return false;
}

enum look_fs look_fs_of(const char *type, uint64_t device)
{
	/* Local ones, whose change time the kernel itself keeps. Not fuse, fuseblk, nfs, cifs, 9p, ceph... */
	static const char *const local[] = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "bcachefs", "zfs", "jfs",
		"erofs", "squashfs", "iso9660", "overlay", "tmpfs", "ramfs", "rootfs", "devtmpfs"};

	for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++)
		if (strcmp(type, local[i]) == 0)
			return major(device) != 0 ? LOOK_FS_CACHED : LOOK_FS_EACH_TIME;
	return LOOK_FS_NEVER;
}

enum look_fs look_fs(pid_t pid, const struct look *l, char why[static LOOK_WHY_MAX])
{
	char *text = malloc(MOUNTINFO_MAX), type[64] = "";
	enum look_fs fs = LOOK_FS_NEVER;

	if (text != NULL && l->mount != 0 && slurp(pid, "mountinfo", text, MOUNTINFO_MAX) &&
		look_parse_mount(text, l->mount, type, sizeof(type)))
		fs = look_fs_of(type, l->device);
	free(text);
	if (fs == LOOK_FS_NEVER)
		snprintf(why, LOOK_WHY_MAX, "programs on a file system of type %s are not hashed",
			type[0] != '\0' ? type : "unknown");
	return fs;
}
