/* Landlock by its system calls: Debian 12's headers know less of it than the kernels csm runs on. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <linux/landlock.h>
#include <unistd.h>
#include "daemon/svc/sandbox.h"

/* struct landlock_ruleset_attr as of ABI 6; older kernels are told a smaller size. */
struct ruleset_attr {
	uint64_t fs, net, scoped;
};
#define FS_ABI1 ((1ull << 13) - 1)
#define FS_REFER (1ull << 13)
#define FS_TRUNCATE (1ull << 14)
#define FS_IOCTL_DEV (1ull << 15)
#define NET_TCP 3ull
#define SCOPE_ALL 3ull /* abstract Unix sockets, signals */

#define FS_READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define FS_WRITE \
	(FS_READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG | \
		LANDLOCK_ACCESS_FS_MAKE_DIR | FS_TRUNCATE)

/* What a library's own folder may need beside: locks by link, sockets, its devices. */
#define FS_MORE \
	(LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_MAKE_SYM | LANDLOCK_ACCESS_FS_MAKE_SOCK | FS_REFER | FS_IOCTL_DEV)
#define FS_OF_FILES \
	(LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE | FS_IOCTL_DEV)

static int allow(int ruleset, const char *path, uint64_t access)
{
	struct landlock_path_beneath_attr rule = {.allowed_access = access};
	int r = 0;

	rule.parent_fd = open(path, O_PATH | O_CLOEXEC);
	if (rule.parent_fd < 0)
		return CSM_ESYSTEM;
	if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0)
		r = CSM_ESYSTEM;
	close(rule.parent_fd);
	return r;
}

static uint64_t fs_of_abi(long abi)
{
	return FS_ABI1 | (abi >= 2 ? FS_REFER : 0) | (abi >= 3 ? FS_TRUNCATE : 0) | (abi >= 5 ? FS_IOCTL_DEV : 0);
}

static int make_ruleset(long abi, unsigned but)
{
	struct ruleset_attr attr = {.fs = fs_of_abi(abi),
		.net = abi >= 4 && !(but & CSM_LANDLOCK_NETWORK) ? NET_TCP : 0,
		.scoped = abi >= 6 && !(but & CSM_LANDLOCK_SOCKETS) ? SCOPE_ALL : 0};
	size_t size = abi >= 6 ? 24 : abi >= 4 ? 16 : 8;

	return (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
}

/* A file has no rights of a folder; what is not there has none at all. */
static int allow_path(int ruleset, const char *path, uint64_t access)
{
	struct stat st;

	if (stat(path, &st) != 0)
		return 0;
	if (!S_ISDIR(st.st_mode))
		access &= FS_OF_FILES;
	return allow(ruleset, path, access);
}

typedef int allow_fn(int ruleset, const char *path, uint64_t access);

static int close_off(const char *const read[], const char *const write[], uint64_t access, unsigned but, allow_fn *add, long *ret)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	int ruleset, r = 0;

	*ret = abi < 1 ? 0 : abi;
	if (abi < 1)
		return 0;
	ruleset = make_ruleset(abi, but);
	if (ruleset < 0)
		return CSM_ESYSTEM;
	for (size_t i = 0; r == 0 && read[i] != NULL; i++)
		r = add(ruleset, read[i], FS_READ & fs_of_abi(abi));
	for (size_t i = 0; r == 0 && write[i] != NULL; i++)
		r = add(ruleset, write[i], access & fs_of_abi(abi));
#ifdef CSM_COVERAGE
	/* The coverage build writes its counts beside its objects. */
	if (r == 0)
		r = allow(ruleset, "/", FS_WRITE & fs_of_abi(abi));
#endif
	if (r == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) != 0)
		r = CSM_ESYSTEM;
	close(ruleset);
	return r;
}

int csm_landlock_paths(const char *const read[], const char *const write[], unsigned but, long *ret)
{
	return close_off(read, write, FS_WRITE | FS_MORE, but, allow_path, ret);
}

int csm_landlock_folders(const char *const read[], const char *write, long *ret)
{
	const char *const one[] = {write, NULL};

	return close_off(read, one, FS_WRITE, 0, allow, ret);
}
