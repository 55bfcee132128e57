#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "libclient/base/writable.h"

static bool one_writable(const char *path, uint32_t uid, char *why, size_t n)
{
	struct stat st;

	if (lstat(path, &st) != 0)
		snprintf(why, n, "%s: %s", path, strerror(errno));
	else if (st.st_uid != 0 && (uid == CSM_ANY_UID || st.st_uid == uid))
		snprintf(why, n, "%s belongs to uid %u", path, (unsigned)st.st_uid);
	/* in a sticky folder each has his own */
	else if ((st.st_mode & S_IWOTH) != 0 && !(S_ISDIR(st.st_mode) && (st.st_mode & S_ISVTX) != 0))
		snprintf(why, n, "everyone can write %s", path);
	else if ((st.st_mode & S_IWGRP) != 0 && st.st_gid != 0 && !(S_ISDIR(st.st_mode) && (st.st_mode & S_ISVTX) != 0))
		snprintf(why, n, "group %u can write %s", (unsigned)st.st_gid, path);
	else
		return false;
	return true;
}

bool csm_path_writable(const char *path, uint32_t uid, char *why, size_t n)
{
	char real[PATH_MAX];

	if (realpath(path, real) == NULL) {
		snprintf(why, n, "%s: %s", path, strerror(errno));
		return true;
	}
	if (one_writable("/", uid, why, n))
		return true;
	for (char *slash = strchr(real + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
		bool hit;

		*slash = '\0';
		hit = one_writable(real, uid, why, n);
		*slash = '/';
		if (hit)
			return true;
	}
	return one_writable(real, uid, why, n);
}
