#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "daemon/svc/lmdb_file.h"

int csm_lmdb_err(int rc)
{
	switch (rc) {
	case 0:
		return 0;
	case MDB_NOTFOUND:
		return CSM_ENOT_FOUND;
	case MDB_MAP_FULL:
	case MDB_TXN_FULL:
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return CSM_ENO_SPACE;
	case MDB_CORRUPTED:
	case MDB_PAGE_NOTFOUND:
	case MDB_INVALID:
		return CSM_ETAMPERED;
	case MDB_VERSION_MISMATCH:
		return CSM_EUNSUPPORTED;
	case MDB_PANIC: /* a commit failed: whether it counts is seen by opening anew */
		return CSM_EUNAVAILABLE;
	case MDB_READERS_FULL:
		return CSM_EBUSY;
	case MDB_BAD_VALSIZE:
		return CSM_EINVALID;
	case ENOMEM:
		return CSM_ENOMEM;
	default:
		return rc > 0 ? CSM_ESYSTEM : CSM_EINTERNAL;
	}
}

int csm_lmdb_lock(const char *folder, int *fd)
{
	char *path = NULL;
	int saved;

	if (asprintf(&path, "%s/owner.lock", folder) < 0)
		return CSM_ENOMEM;
	*fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	saved = errno;
	free(path);
	errno = saved;
	if (*fd < 0)
		return CSM_ESYSTEM;
	return flock(*fd, LOCK_EX | LOCK_NB) == 0 ? 0 : CSM_EBUSY;
}

static int make(const char *path)
{
	MDB_env *env;
	int rc = mdb_env_create(&env);

	if (rc != 0)
		return rc;
	if ((rc = mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOLOCK, 0600)) == 0)
		rc = mdb_env_sync(env, 1);
	mdb_env_close(env);
	return rc;
}

/* LMDB makes its first pages in place, and syncs them with the first commit: a power cut before that would leave a file
 * that it takes for something foreign. So a new file gets its name when it is whole on the disk. */
int csm_lmdb_seed(const char *folder)
{
	char *fresh = NULL, *data = NULL;
	int rc = ENOMEM;

	if (asprintf(&fresh, "%s/new.mdb", folder) < 0) {
		fresh = NULL;
		goto out;
	}
	if (asprintf(&data, "%s/data.mdb", folder) < 0) {
		data = NULL;
		goto out;
	}
	rc = 0;
	if (access(data, F_OK) == 0)
		goto out;
	rc = unlink(fresh) == 0 || errno == ENOENT ? make(fresh) : errno;
	if (rc == 0 && rename(fresh, data) != 0)
		rc = errno;
out:
	free(fresh);
	free(data);
	return rc;
}

int csm_lmdb_sync_folder(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

	if (fd < 0)
		return CSM_ESYSTEM;
	r = fsync(fd) == 0 ? 0 : CSM_ESYSTEM;
	close(fd);
	return r;
}

/* Database 0, each row starting with its number of pages. */
size_t csm_lmdb_free_pages(MDB_txn *txn)
{
	MDB_cursor *cur;
	MDB_val k, v;
	size_t n = 0, row;

	if (mdb_cursor_open(txn, 0, &cur) != 0)
		return 0;
	while (mdb_cursor_get(cur, &k, &v, MDB_NEXT) == 0) {
		if (v.mv_size < sizeof(row))
			continue;
		memcpy(&row, v.mv_data, sizeof(row));
		n += row;
	}
	mdb_cursor_close(cur);
	return n;
}

uint64_t csm_lmdb_disk_left(MDB_env *env)
{
	uint64_t left = UINT64_MAX, most;
	struct rlimit limit;
	mdb_filehandle_t fd;
	struct statvfs fs;
	struct stat st;

	if (mdb_env_get_fd(env, &fd) != 0)
		return left;
	if (fstatvfs(fd, &fs) == 0)
		left = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && fstat(fd, &st) == 0) {
		most = limit.rlim_cur > (uint64_t)st.st_size ? limit.rlim_cur - (uint64_t)st.st_size : 0;
		left = most < left ? most : left;
	}
	return left;
}
