/* What program does a process run? Nothing here waits for a file system of somebody's own making. */
#ifndef CSM_IDENT_LOOK_H
#define CSM_IDENT_LOOK_H

#include <linux/openat2.h>
#include <sys/types.h>
#include "libclient/base/err.h"

#define LOOK_PATH_MAX 4096u
#define LOOK_WHY_MAX 200u

struct look {
	char path[LOOK_PATH_MAX + 1];          /* empty: the path is another file here, or none */
	uint64_t device, inode, size, changed; /* changed: nanoseconds */
	uint64_t image;
	uint64_t mount; /* its number in /proc/PID/mountinfo */
};

/* How files are opened by openat2 from here on: *ret lies at the lowest address of all that is mapped, and cannot be written
 * any more, so that a filter can insist on it. Once. CSM_ESYSTEM: that address is not to be had. */
CSM_MUST int look_init(const struct open_how **ret);
/* *fd: an O_PATH descriptor of the program, the caller's. CSM_EDENIED: it cannot be told, why says what. */
CSM_MUST int look_at(pid_t pid, struct look *ret, int *fd, char why[static LOOK_WHY_MAX]);

/* Numbers of /proc/PID/stat that the kernel draws anew at each execve, mixed into one. False: not such a text. */
bool look_parse_image(const char *stat, uint64_t *ret);
/* The type of file system that mount `id` is of, in the text of mountinfo. False: there is none. */
bool look_parse_mount(const char *mountinfo, uint64_t id, char *type, size_t cap);
/* May files of that type of file system be read by their content, and does a change there always show as a change
 * time that the kernel keeps? */
enum look_fs { LOOK_FS_NEVER, LOOK_FS_EACH_TIME, LOOK_FS_CACHED };
enum look_fs look_fs_of(const char *type, uint64_t device);
/* The same of a program that was looked at; why is set for LOOK_FS_NEVER. */
enum look_fs look_fs(pid_t pid, const struct look *l, char why[static LOOK_WHY_MAX]);

#endif
