#include "plugins/hwpluginif/hwpluginif.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A folder on the way to what is asked about may be sticky and open, as /tmp is: others cannot replace in it what is
 * not theirs. Access lists need no look of their own: what they grant shows in the group's bits. */
static bool entry_trusted(const struct stat *st, bool above, const char *path, char why[static HW_WHY_MAX])
{
	if (st->st_uid != 0 && st->st_uid != geteuid())
		snprintf(why, HW_WHY_MAX, "%.200s belongs to uid %u", path, (unsigned)st->st_uid);
	else if (S_ISLNK(st->st_mode) || (st->st_mode & (S_IWGRP | S_IWOTH)) == 0 ||
		(above && S_ISDIR(st->st_mode) && (st->st_mode & S_ISVTX) != 0))
		return true;
	else
		snprintf(why, HW_WHY_MAX, "%s can write %.200s", (st->st_mode & S_IWOTH) != 0 ? "everyone" : "a group", path);
	return false;
}

struct walk {
	char path[PATH_MAX];
	size_t entries;
	char *why;
};

static bool walk_folder(struct walk *w, int fd, unsigned depth);

static bool walk_entry(struct walk *w, int dirfd, const char *name, unsigned depth)
{
	size_t len = strlen(w->path);
	struct stat st;
	bool ok = false;
	int fd;

	if (++w->entries > HW_ENTRIES_MAX || depth > HW_DEPTH_MAX ||
		(size_t)snprintf(w->path + len, sizeof(w->path) - len, "/%s", name) >= sizeof(w->path) - len) {
		snprintf(w->why, HW_WHY_MAX, "too much lies below %.200s", w->path);
	} else if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
		snprintf(w->why, HW_WHY_MAX, "%.200s: %s", w->path, strerror(errno));
	} else if (entry_trusted(&st, false, w->path, w->why)) {
		ok = true;
		if (S_ISDIR(st.st_mode)) {
			fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			if (fd < 0)
				snprintf(w->why, HW_WHY_MAX, "%.200s: %s", w->path, strerror(errno));
			ok = fd >= 0 && walk_folder(w, fd, depth + 1);
		}
	}
	w->path[len] = '\0';
	return ok;
}

/* Takes fd. */
static bool walk_folder(struct walk *w, int fd, unsigned depth)
{
	DIR *d = fdopendir(fd);
	const struct dirent *e;
	bool ok = d != NULL;

	if (d == NULL) {
		snprintf(w->why, HW_WHY_MAX, "%.200s: %s", w->path, strerror(errno));
		close(fd);
		return false;
	}
	while (ok && (e = readdir(d)) != NULL)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			ok = walk_entry(w, dirfd(d), e->d_name, depth);
	closedir(d);
	return ok;
}

static bool above_trusted(char *real, char why[static HW_WHY_MAX])
{
	struct stat st;

	for (char *slash = real; slash != NULL; slash = strchr(slash + 1, '/')) {
		const char *path = slash == real ? "/" : real;
		bool ok;

		if (slash != real)
			*slash = '\0';
		ok = lstat(path, &st) == 0 && entry_trusted(&st, true, path, why);
		if (slash != real)
			*slash = '/';
		if (!ok)
			return false;
	}
	return true;
}

bool hw_trusted(const char *path, char why[static HW_WHY_MAX])
{
	struct walk w = {.why = why};
	struct stat st;
	int fd;

	snprintf(why, HW_WHY_MAX, "%.200s cannot be read", path);
	if (realpath(path, w.path) == NULL || lstat(w.path, &st) != 0) {
		snprintf(why, HW_WHY_MAX, "%.200s: %s", path, strerror(errno));
		return false;
	}
	if (!above_trusted(w.path, why) || !entry_trusted(&st, false, w.path, why))
		return false;
	if (!S_ISDIR(st.st_mode))
		return true;
	if ((fd = open(w.path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0) {
		snprintf(why, HW_WHY_MAX, "%.200s: %s", path, strerror(errno));
		return false;
	}
	return walk_folder(&w, fd, 0);
}
