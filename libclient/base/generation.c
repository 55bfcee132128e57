#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "libclient/base/generation.h"

#define NAME_BYTES 300u
#define TRIES 5

/* What has the folder's name. */
enum kind { KIND_NONE, KIND_FOLDER, KIND_LINK };

struct csm_gen {
	struct csm_gen_place place;
	int parent;
	bool trusted; /* nobody but us and root moves things about in parent */
	char name[208], prefix[224]; /* the folder's; of what we make beside it */
	char temp[NAME_BYTES];                     /* the generation that has not the folder's name; "": none */
	int fd, old;                               /* locked: of the new one and the one before; -1 */
	char before[NAME_BYTES];                   /* with links, the one before; "": none */
	enum kind was;
	bool linked, swapped;
};

__attribute__((format(printf, 3, 4))) static int say(int r, char *why, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(why, CSM_GEN_WHY, fmt, ap);
	va_end(ap);
	return r;
}

static int failed(const struct csm_gen *g, char *why)
{
	char text[64];

	return say(CSM_ESYSTEM, why, "%s: %s", g->place.path, strerror_r(errno, text, sizeof(text)));
}

static int open_folder(int at, const char *path)
{
	struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};

	return (int)syscall(SYS_openat2, at, path, &how, sizeof(how));
}

/* ---- the folder around it ---- */

static int split_path(struct csm_gen *g, char *around, size_t cap, char *why)
{
	size_t n = strlen(g->place.path);
	const char *path = g->place.path, *slash;

	while (n > 1 && path[n - 1] == '/')
		n--;
	slash = memrchr(path, '/', n);
	if (slash == NULL) {
		(void)snprintf(around, cap, ".");
		slash = path - 1;
	} else if ((size_t)snprintf(around, cap, "%.*s", slash == path ? 1 : (int)(slash - path), path) >= cap) {
		return say(CSM_EINVALID, why, "the path is too long");
	}
	n -= (size_t)(slash + 1 - path);
	/* with the prefix and a number it has to be a name, too */
	if (n > 200 || snprintf(g->name, sizeof(g->name), "%.*s", (int)n, slash + 1) < 1 || strcmp(g->name, ".") == 0 ||
		strcmp(g->name, "..") == 0)
		return say(CSM_EINVALID, why, "%s: give the folder's own name", path);
	(void)snprintf(g->prefix, sizeof(g->prefix), ".%s.csm-", g->name);
	return 0;
}

/* Is it root's, ours or uid's, and does nobody else write there? */
static int check_around(struct csm_gen *g, const char *around, char *why)
{
	struct stat st;

	if (fstat(g->parent, &st) != 0)
		return failed(g, why);
	if (st.st_uid != 0 && st.st_uid != geteuid() && st.st_uid != g->place.uid)
		return say(CSM_EDENIED, why, "%s belongs to uid %u: it has to be root's, or the owner's of the folder in it", around,
			st.st_uid);
	if ((st.st_mode & 022) != 0 && (st.st_mode & S_ISVTX) == 0)
		return say(CSM_EDENIED, why, "%s can be written by others than its owner", around);
	g->trusted = (st.st_mode & 022) == 0 && (st.st_uid == 0 || st.st_uid == geteuid());
	return 0;
}

static int open_around(struct csm_gen *g, char *why)
{
	char around[4096];
	int root, r;

	if ((r = split_path(g, around, sizeof(around), why)) != 0)
		return r;
	if (!g->place.strict) {
		g->trusted = true;
		g->parent = open(around, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		return g->parent < 0 ? failed(g, why) : 0;
	}
	if (around[0] != '/')
		return say(CSM_EINVALID, why, "%s: the path has to be absolute", g->place.path);
	root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	g->parent = root < 0 ? -1 : open_folder(root, around[1] != '\0' ? around + 1 : ".");
	if (g->parent >= 0)
		r = 0;
	else if (errno == ELOOP || errno == ENOTDIR)
		r = say(CSM_EDENIED, why, "%s: something in it is a symbolic link, or no folder", around);
	else
		r = failed(g, why);
	if (root >= 0)
		(void)close(root);
	return r != 0 ? r : check_around(g, around, why);
}

/* ---- what lies in it ---- */

static bool is_ours(const struct csm_gen *g, const char *name)
{
	for (const char *const *n = g->place.names; *n != NULL; n++)
		if (strcmp(*n, name) == 0)
			return true;
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* A name that is not in a generation; true with "" when there is none. The descriptor stays where it is. */
static bool find_other(const struct csm_gen *g, int fd, char *other, size_t cap)
{
	int copy = open_folder(fd, ".");
	DIR *d = copy >= 0 ? fdopendir(copy) : NULL;
	struct dirent *e;

	if (d == NULL && copy >= 0)
		(void)close(copy);
	if (d == NULL)
		return false;
	other[0] = '\0';
	while (other[0] == '\0' && (e = readdir(d)) != NULL)
		if (!is_ours(g, e->d_name))
			(void)snprintf(other, cap, "%s", e->d_name);
	(void)closedir(d);
	return true;
}

/* Ours to remove: what its owner could, or what lies where nobody else could have put it. */
static bool may_remove(const struct csm_gen *g, const struct stat *st)
{
	return g->trusted || st->st_uid == g->place.uid;
}

/* Does a symbolic link of the folder's name lead to a generation beside it? */
static bool read_link(const struct csm_gen *g, char *target, size_t cap)
{
	ssize_t n = readlinkat(g->parent, g->name, target, cap - 1);
	struct stat st;

	if (n <= 0)
		return false;
	target[n] = '\0';
	return strncmp(target, g->prefix, strlen(g->prefix)) == 0 && strchr(target, '/') == NULL &&
		fstatat(g->parent, target, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

/* What is there; CSM_EEXISTS: nothing of ours. before is set with links; the modes and ids that stay, where they do. */
static int look(struct csm_gen *g, char *why)
{
	char other[NAME_BYTES];
	struct stat st;
	int fd, r = 0;

	g->was = KIND_NONE;
	if (fstatat(g->parent, g->name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return errno == ENOENT ? 0 : failed(g, why);
	if (S_ISLNK(st.st_mode) && read_link(g, g->before, sizeof(g->before)))
		g->was = KIND_LINK;
	else if (S_ISDIR(st.st_mode))
		g->was = KIND_FOLDER;
	else
		return say(CSM_EEXISTS, why, "%s is no folder", g->place.path);
	fd = open_folder(g->parent, g->was == KIND_LINK ? g->before : g->name);
	if (fd < 0 || fstat(fd, &st) != 0 || !find_other(g, fd, other, sizeof(other)))
		r = failed(g, why);
	else if (!may_remove(g, &st))
		r = say(CSM_EDENIED, why, "%s belongs to uid %u: it is left as it is", g->place.path, st.st_uid);
	else if (other[0] != '\0')
		r = say(CSM_EEXISTS, why, "%s holds other files, like %s: it is left as it is", g->place.path, other);
	if (r == 0 && g->place.dir_mode == 0)
		g->place.dir_mode = st.st_mode & 07777;
	if (r == 0 && g->place.uid == (uid_t)-1 && !g->place.strict) {
		g->place.uid = st.st_uid;
		g->place.gid = st.st_gid;
	}
	if (fd >= 0)
		(void)close(fd);
	return r;
}

/* ---- what has no use ---- */

static void discard(const struct csm_gen *g, const char *name)
{
	int fd = open_folder(g->parent, name);
	struct stat st;

	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0 && may_remove(g, &st)) {
		for (const char *const *n = g->place.names; *n != NULL; n++)
			(void)unlinkat(fd, *n, 0);
		(void)unlinkat(g->parent, name, AT_REMOVEDIR);
	}
	(void)close(fd);
}

static void sweep_one(const struct csm_gen *g, const char *name)
{
	struct stat st;
	int fd;

	if (strncmp(name, g->prefix, strlen(g->prefix)) != 0 || strcmp(name, g->before) == 0)
		return;
	if (fstatat(g->parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode)) {
		if (may_remove(g, &st))
			(void)unlinkat(g->parent, name, 0);
		return;
	}
	fd = open_folder(g->parent, name);
	if (fd < 0)
		return;
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		discard(g, name);
	(void)close(fd);
}

/* What a killed process left: nobody holds its lock. */
static void sweep(const struct csm_gen *g)
{
	int copy = open_folder(g->parent, ".");
	DIR *d = copy >= 0 ? fdopendir(copy) : NULL;
	struct dirent *e;

	if (d == NULL && copy >= 0)
		(void)close(copy);
	while (d != NULL && (e = readdir(d)) != NULL)
		sweep_one(g, e->d_name);
	if (d != NULL)
		(void)closedir(d);
}

int csm_gen_open(const struct csm_gen_place *place, struct csm_gen **ret, char *why)
{
	struct csm_gen *g = calloc(1, sizeof(*g));
	int r;

	if (g == NULL)
		return say(CSM_ENOMEM, why, "out of memory");
	g->place = *place;
	g->parent = g->fd = g->old = -1;
	if ((r = open_around(g, why)) != 0 || (r = look(g, why)) != 0) {
		csm_gen_close(g);
		return r;
	}
	sweep(g);
	*ret = g;
	return 0;
}

/* ---- the next one ---- */

static void draw_name(const struct csm_gen *g, const char *tag, char name[static NAME_BYTES])
{
	unsigned char tail[8];
	char hex[17];

	randombytes_buf(tail, sizeof(tail));
	(void)snprintf(name, NAME_BYTES, "%s%s%s", g->prefix, tag, sodium_bin2hex(hex, sizeof(hex), tail, sizeof(tail)));
}

/* The folder that we have just made, and no other that was put in its place: that is made the owner's below. */
static bool is_fresh(int fd)
{
	struct stat st;
	bool fresh = false;
	struct dirent *e;
	int copy;
	DIR *d;

	if (fstat(fd, &st) != 0 || st.st_uid != geteuid() || (st.st_mode & 077) != 0)
		return false;
	copy = open_folder(fd, ".");
	d = copy >= 0 ? fdopendir(copy) : NULL;
	if (d != NULL)
		for (fresh = true; fresh && (e = readdir(d)) != NULL;)
			fresh = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
	if (d != NULL)
		(void)closedir(d);
	else if (copy >= 0)
		(void)close(copy);
	return fresh;
}

static int make_temp_once(struct csm_gen *g, char *why)
{
	draw_name(g, "", g->temp);
	if (mkdirat(g->parent, g->temp, 0700) != 0) {
		g->temp[0] = '\0';
		return failed(g, why);
	}
	g->fd = open_folder(g->parent, g->temp);
	/* another process's sweep may have been there before the lock */
	if (g->fd < 0 || flock(g->fd, LOCK_EX | LOCK_NB) != 0)
		return failed(g, why);
	if (!is_fresh(g->fd))
		return say(CSM_ECONFLICT, why, "%s: somebody else moves things about beside it", g->place.path);
	return 0;
}

static int make_temp(struct csm_gen *g, char *why)
{
	int r = CSM_EINTERNAL;

	for (int i = 0; i < TRIES; i++) {
		r = make_temp_once(g, why);
		if (r == 0 || g->temp[0] == '\0')
			return r;
		if (g->fd >= 0)
			(void)close(g->fd);
		g->fd = -1;
		discard(g, g->temp);
		g->temp[0] = '\0';
	}
	return r;
}

static int write_all(int fd, const uint8_t *p, size_t n)
{
	while (n > 0) {
		ssize_t k = write(fd, p, n);

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return CSM_ESYSTEM;
		p += k;
		n -= (size_t)k;
	}
	return 0;
}

static int give(const struct csm_gen *g, int fd)
{
	if (g->place.uid == (uid_t)-1 || fchown(fd, g->place.uid, g->place.gid) == 0)
		return 0;
	/* whose it was it stays where we may say so; whose it has to be it is, or it is not there */
	return errno == EPERM && !g->place.strict ? 0 : CSM_ESYSTEM;
}

static int write_file(const struct csm_gen *g, const struct csm_gen_file *file, char *why)
{
	int fd = openat(g->fd, file->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600), r;

	if (fd < 0)
		return failed(g, why);
	r = write_all(fd, file->p, file->n) == 0 && (!g->place.strict || give(g, fd) == 0) &&
			fchmod(fd, g->place.file_mode != 0 ? g->place.file_mode : 0644) == 0 && fsync(fd) == 0 ?
		0 :
		failed(g, why);
	if (close(fd) != 0 && r == 0)
		r = failed(g, why);
	return r;
}

int csm_gen_write(struct csm_gen *g, const struct csm_gen_file *files, size_t n, char *why)
{
	mode_t mode = g->place.dir_mode != 0 ? g->place.dir_mode : 0755;
	int r = make_temp(g, why);

	/* The owner's at once, so that whatever is left of it is the owner's: see may_remove. */
	if (r == 0 && give(g, g->fd) != 0)
		r = failed(g, why);
	for (size_t i = 0; i < n && r == 0; i++)
		r = write_file(g, &files[i], why);
	if (r == 0 && (fchmod(g->fd, mode) != 0 || fsync(g->fd) != 0))
		r = failed(g, why);
	return r;
}

/* ---- the exchange ---- */

static bool is_at(const struct csm_gen *g, const char *name, int fd)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && fstatat(g->parent, name, &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_dev == b.st_dev &&
		a.st_ino == b.st_ino;
}

/* The link that we have just made, and nothing else that was put in its place, becomes the owner's. */
static int give_link(const struct csm_gen *g, const char *link, char *why)
{
	int fd = openat(g->parent, link, O_PATH | O_NOFOLLOW | O_CLOEXEC), r = 0;
	struct stat st;
	bool looked = fd >= 0 && fstat(fd, &st) == 0;

	if (looked && (!S_ISLNK(st.st_mode) || st.st_uid != geteuid() || st.st_nlink != 1))
		r = say(CSM_ECONFLICT, why, "%s: somebody else moves things about beside it", g->place.path);
	else if (!looked || fchownat(fd, "", g->place.uid, g->place.gid, AT_EMPTY_PATH) != 0)
		r = failed(g, why);
	if (fd >= 0)
		(void)close(fd);
	return r;
}

/* The folder's name becomes, or stays, a link: to this one. */
static int point_to(struct csm_gen *g, const char *target, char *why)
{
	char link[NAME_BYTES];
	int r;

	draw_name(g, "link-", link);
	if (symlinkat(target, g->parent, link) != 0)
		return failed(g, why);
	if (g->place.strict && (r = give_link(g, link, why)) != 0)
		return r;
	if (renameat(g->parent, link, g->parent, g->name) != 0) {
		r = failed(g, why);
		(void)unlinkat(g->parent, link, 0);
		return r;
	}
	return fsync(g->parent) == 0 ? 0 : failed(g, why);
}

static int swap_link(struct csm_gen *g, char *why)
{
	char now[NAME_BYTES];
	int r = point_to(g, g->temp, why);

	if (r != 0)
		return r;
	(void)memcpy(now, g->temp, sizeof(now));
	(void)memcpy(g->temp, g->before, sizeof(g->temp));
	(void)memcpy(g->before, now, sizeof(g->before));
	g->linked = g->swapped = true;
	return 0;
}

static int swap_folder(struct csm_gen *g, char *why)
{
	bool there = g->was == KIND_FOLDER;

	if (renameat2(g->parent, g->temp, g->parent, g->name, there ? RENAME_EXCHANGE : RENAME_NOREPLACE) != 0) {
		if (errno != EINVAL && errno != ENOSYS)
			return failed(g, why);
		return there ? say(CSM_EUNSUPPORTED, why,
				       "%s: this file system cannot exchange folders; without that folder a link is made", g->place.path) :
			       swap_link(g, why);
	}
	g->swapped = true;
	if (!there)
		g->temp[0] = '\0';
	if (g->place.strict && !is_at(g, g->name, g->fd))
		return say(CSM_ECONFLICT, why, "%s: somebody else moves things about beside it", g->place.path);
	return fsync(g->parent) == 0 ? 0 : failed(g, why);
}

int csm_gen_swap(struct csm_gen *g, char *why)
{
	if (g->was == KIND_LINK)
		g->old = open_folder(g->parent, g->before);
	else if (g->was == KIND_FOLDER)
		g->old = open_folder(g->parent, g->name);
	/* Not ours: another process's, which has just ended and does not sweep any more. */
	if (g->old >= 0 && flock(g->old, LOCK_EX | LOCK_NB) != 0) {
		(void)close(g->old);
		g->old = -1;
	}
	return g->was == KIND_LINK ? swap_link(g, why) : swap_folder(g, why);
}

int csm_gen_back(struct csm_gen *g, char *why)
{
	if (!g->swapped || g->temp[0] == '\0')
		return say(CSM_ENOT_FOUND, why, "there was no generation before this one");
	if (g->linked)
		return swap_link(g, why);
	if (renameat2(g->parent, g->temp, g->parent, g->name, RENAME_EXCHANGE) != 0)
		return failed(g, why);
	return fsync(g->parent) == 0 ? 0 : failed(g, why);
}

void csm_gen_close(struct csm_gen *g)
{
	if (g == NULL)
		return;
	if (g->temp[0] != '\0') {
		const struct timespec t = {g->place.linger_ms / 1000, g->place.linger_ms % 1000 * 1000000};

		if (g->swapped && g->place.linger_ms > 0)
			(void)nanosleep(&t, NULL);
		discard(g, g->temp);
	}
	if (g->fd >= 0)
		(void)close(g->fd);
	if (g->old >= 0)
		(void)close(g->old);
	if (g->parent >= 0)
		(void)close(g->parent);
	free(g);
}

int csm_gen_put(const struct csm_gen_place *place, const struct csm_gen_file *files, size_t n, char *why)
{
	struct csm_gen *g = NULL;
	int r = csm_gen_open(place, &g, why);

	if (r != 0 || g == NULL)
		return r;
	if ((r = csm_gen_write(g, files, n, why)) == 0)
		r = csm_gen_swap(g, why);
	csm_gen_close(g);
	return r;
}
