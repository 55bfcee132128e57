/* A folder that changes as a whole: the new one is made beside it, on the disk, and takes its name in one exchange. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <sodium.h>
#include "libclient/cli/cli.h"

#define LINGER_NS 100000000

struct folder {
	const char *path; /* as given, for messages */
	int parent;
	char *name;       /* in parent */
	char *temp;       /* likewise; NULL: not made */
	char *prefix;     /* of all such */
	int fd;           /* of temp; locked while it is in the making */
	const struct folder_file *files;
	size_t n;
};

static int failed(const struct folder *f)
{
	return client_err_errno(CSM_ESYSTEM, f->path);
}

/* The parent's descriptor, and the last part of the path. */
static int folder_open(struct folder *f)
{
	char *copy = strdup(f->path), *slash, *prefix;
	size_t n = copy != NULL ? strlen(copy) : 0;
	const char *parent = ".";
	int r;

	if (copy == NULL)
		return client_err_plain(CSM_ENOMEM);
	while (n > 1 && copy[n - 1] == '/')
		copy[--n] = '\0';
	slash = strrchr(copy, '/');
	f->name = strdup(slash != NULL ? slash + 1 : copy);
	if (slash != NULL) {
		*slash = '\0';
		parent = slash == copy ? "/" : copy;
	}
	f->parent = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = f->parent < 0 ? failed(f) : 0;
	free(copy);
	if (r != 0)
		return r;
	if (f->name == NULL || asprintf(&prefix, ".%s.csm-", f->name) < 0)
		return client_err_plain(CSM_ENOMEM);
	f->prefix = prefix;
	if (f->name[0] == '\0' || strcmp(f->name, ".") == 0 || strcmp(f->name, "..") == 0)
		return client_err(CSM_EINVALID, "%s: give the folder's own name", f->path);
	return 0;
}

static bool is_ours(const struct folder *f, const char *name)
{
	for (size_t i = 0; i < f->n; i++)
		if (strcmp(f->files[i].name, name) == 0)
			return true;
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Is it there, and does it hold nothing but what we write? */
static int look(const struct folder *f, bool *there, struct stat *st)
{
	struct dirent *e;
	int fd, r = 0;
	DIR *d;

	*there = fstatat(f->parent, f->name, st, AT_SYMLINK_NOFOLLOW) == 0;
	if (!*there)
		return errno == ENOENT ? 0 : failed(f);
	if (!S_ISDIR(st->st_mode))
		return client_err(CSM_EEXISTS, "%s is no folder", f->path);
	fd = openat(f->parent, f->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	d = fd >= 0 ? fdopendir(fd) : NULL;
	if (d == NULL) {
		r = failed(f);
		if (fd >= 0)
			(void)close(fd);
		return r;
	}
	while (r == 0 && (e = readdir(d)) != NULL)
		if (!is_ours(f, e->d_name))
			r = client_err(CSM_EEXISTS, "%s holds other files, like %s: it is left as it is", f->path, e->d_name);
	(void)closedir(d);
	return r;
}

static int write_file(const struct folder *f, const struct folder_file *file)
{
	int fd = openat(f->fd, file->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644), r;

	if (fd < 0)
		return failed(f);
	r = io_write(fd, file->p, file->n);
	if (r == 0 && fsync(fd) != 0)
		r = failed(f);
	if (close(fd) != 0 && r == 0)
		r = failed(f);
	return r;
}

static int make_temp(struct folder *f)
{
	unsigned char tail[8];
	char hex[17];

	randombytes_buf(tail, sizeof(tail));
	if (asprintf(&f->temp, "%s%s", f->prefix, sodium_bin2hex(hex, sizeof(hex), tail, sizeof(tail))) < 0) {
		f->temp = NULL;
		return client_err_plain(CSM_ENOMEM);
	}
	if (mkdirat(f->parent, f->temp, 0755) != 0)
		return failed(f);
	f->fd = openat(f->parent, f->temp, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return f->fd < 0 || flock(f->fd, LOCK_EX | LOCK_NB) != 0 ? failed(f) : 0;
}

static int fill(const struct folder *f, bool there, const struct stat *old)
{
	int r = 0;

	for (size_t i = 0; i < f->n && r == 0; i++)
		r = write_file(f, &f->files[i]);
	if (r != 0)
		return r;
	/* whose it was it stays, where we may say so */
	if (there && fchmod(f->fd, old->st_mode & 07777) != 0)
		return failed(f);
	if (there && fchown(f->fd, old->st_uid, old->st_gid) != 0 && errno != EPERM)
		return failed(f);
	return fsync(f->fd) == 0 ? 0 : failed(f);
}

/* A folder of ours that has no use, and what we know of in it. */
static void discard(const struct folder *f, const char *name)
{
	int fd = openat(f->parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	for (size_t i = 0; fd >= 0 && i < f->n; i++)
		(void)unlinkat(fd, f->files[i].name, 0);
	if (fd >= 0)
		(void)close(fd);
	(void)unlinkat(f->parent, name, AT_REMOVEDIR);
}

/* What an earlier command left when it was killed: nobody holds its lock. */
static void sweep(const struct folder *f)
{
	int copy = openat(f->parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy >= 0 ? fdopendir(copy) : NULL;
	struct dirent *e;

	if (d == NULL && copy >= 0)
		(void)close(copy);
	while (d != NULL && (e = readdir(d)) != NULL) {
		int fd;

		if (strncmp(e->d_name, f->prefix, strlen(f->prefix)) != 0)
			continue;
		fd = openat(f->parent, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			discard(f, e->d_name);
		(void)close(fd);
	}
	if (d != NULL)
		(void)closedir(d);
}

/* The old generation stays a little longer: who has just looked up the folder finds the files in it. Its lock keeps
 * others' sweep away. */
static void retire(const struct folder *f, int old)
{
	const struct timespec t = {.tv_nsec = LINGER_NS};

	(void)nanosleep(&t, NULL);
	discard(f, f->temp);
	if (old >= 0)
		(void)close(old);
}

static int swap_in(struct folder *f, bool there)
{
	int old = there ? openat(f->parent, f->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1, r;

	if (old >= 0 && flock(old, LOCK_EX | LOCK_NB) != 0) {
		/* another export's, which has just ended: that one does not sweep any more */
		(void)close(old);
		old = -1;
	}
	if (renameat2(f->parent, f->temp, f->parent, f->name, there ? RENAME_EXCHANGE : RENAME_NOREPLACE) != 0) {
		if (errno == EINVAL || errno == ENOSYS)
			r = client_err(CSM_EUNSUPPORTED, "%s: this file system cannot exchange folders", f->path);
		else
			r = failed(f);
		if (old >= 0)
			(void)close(old);
		return r;
	}
	r = fsync(f->parent) == 0 ? 0 : failed(f);
	if (there)
		retire(f, old);
	free(f->temp);
	f->temp = NULL;
	return r;
}

int folder_put(const char *path, const struct folder_file *files, size_t n)
{
	struct folder f = {.path = path, .parent = -1, .fd = -1, .files = files, .n = n};
	struct stat old;
	bool there;
	int r;

	if ((r = folder_open(&f)) != 0 || (r = look(&f, &there, &old)) != 0)
		goto out;
	sweep(&f);
	if ((r = make_temp(&f)) == 0 && (r = fill(&f, there, &old)) == 0)
		r = swap_in(&f, there);
out:
	if (f.temp != NULL)
		discard(&f, f.temp);
	if (f.fd >= 0)
		(void)close(f.fd);
	if (f.parent >= 0)
		(void)close(f.parent);
	free(f.temp);
	free(f.name);
	free(f.prefix);
	return r;
}
