/* Opening the LMDB engine; its room on the disk and in memory. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "daemon/svc/engine_lmdb_int.h"

#define RESERVE (16u * 1024u * 1024u) /* of the map, behind what is told as its size: for what is urgent */
#define READERS_MAX 512u
#define LOW_DISK (64u * 1024u * 1024u)

/* ---- opening ---- */

static int fail(const struct csm_engine_options *opt, int r, const char *path, const char *why)
{
	if (opt->why != NULL && opt->why_len > 0)
		snprintf(opt->why, opt->why_len, "%s: %s", path, why);
	return r;
}

static int sync_folder(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

	if (fd < 0)
		return CSM_ESYSTEM;
	r = fsync(fd) == 0 ? 0 : CSM_ESYSTEM;
	close(fd);
	return r;
}

/* One process at a time: LMDB alone would let a second one write. */
static int folder_lock(struct csm_engine *e, const struct csm_engine_options *opt)
{
	char *path = NULL;
	int r = CSM_ESYSTEM;

	if (mkdir(opt->dir, 0700) != 0 && errno != EEXIST)
		return fail(opt, r, opt->dir, strerror(errno));
	if (asprintf(&path, "%s/owner.lock", opt->dir) < 0)
		return CSM_ENOMEM;
	e->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (e->lock_fd < 0)
		r = fail(opt, r, path, strerror(errno));
	else if (flock(e->lock_fd, LOCK_EX | LOCK_NB) != 0)
		r = fail(opt, CSM_EBUSY, opt->dir, "another process has the database open");
	else
		r = 0;
	free(path);
	return r;
}

/* LMDB makes its first pages in place, and syncs them with the first commit: after a power cut before that there would be a file
 * that it does not know. So a new file gets its name when it is whole on the disk. */
static int seed_make(const char *path)
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

static int seed(const struct csm_engine_options *opt)
{
	char *fresh = NULL, *data = NULL;
	int r = CSM_ENOMEM, rc;

	if (asprintf(&fresh, "%s/new.mdb", opt->dir) < 0) {
		fresh = NULL;
		goto out;
	}
	if (asprintf(&data, "%s/data.mdb", opt->dir) < 0) {
		data = NULL;
		goto out;
	}
	r = 0;
	if (access(data, F_OK) == 0)
		goto out;
	rc = unlink(fresh) == 0 || errno == ENOENT ? seed_make(fresh) : errno;
	if (rc == 0 && rename(fresh, data) != 0)
		rc = errno;
	if (rc != 0)
		r = fail(opt, engine_err(rc), fresh, mdb_strerror(rc));
out:
	free(fresh);
	free(data);
	return r;
}

static int parent_sync(const char *dir)
{
	char *path = NULL;
	int r;

	if (asprintf(&path, "%s/..", dir) < 0)
		return CSM_ENOMEM;
	r = sync_folder(path);
	free(path);
	return r;
}

static int env_open(struct csm_engine *e, const struct csm_engine_options *opt)
{
	MDB_txn *txn;
	int rc, r;

	if ((rc = mdb_env_create(&e->env)) != 0 || (rc = mdb_env_set_mapsize(e->env, opt->map_size + RESERVE)) != 0 ||
		(rc = mdb_env_set_maxreaders(e->env, READERS_MAX)) != 0 ||
		(rc = mdb_env_open(e->env, opt->dir, MDB_NOTLS | MDB_NORDAHEAD, 0600)) != 0 ||
		(rc = mdb_reader_check(e->env, NULL)) != 0)
		return fail(opt, engine_err(rc), opt->dir, mdb_strerror(rc));
	if ((r = sync_folder(opt->dir)) != 0 || (r = parent_sync(opt->dir)) != 0)
		return fail(opt, r, opt->dir, strerror(errno));
	if ((rc = mdb_txn_begin(e->env, NULL, MDB_RDONLY, &txn)) != 0)
		return fail(opt, engine_err(rc), opt->dir, mdb_strerror(rc));
	if ((rc = mdb_dbi_open(txn, NULL, 0, &e->dbi)) == 0)
		rc = mdb_txn_commit(txn);
	else
		mdb_txn_abort(txn);
	return rc == 0 ? 0 : fail(opt, engine_err(rc), opt->dir, mdb_strerror(rc));
}

void engine_lmdb_close(struct csm_engine *e)
{
	if (e == NULL)
		return;
	while (e->spare != NULL) {
		struct csm_engine_txn *t = e->spare;

		e->spare = t->next;
		mdb_cursor_close(t->cur);
		mdb_txn_abort(t->txn);
		free(t);
	}
	if (e->env != NULL)
		mdb_env_close(e->env);
	if (e->statm_fd >= 0)
		close(e->statm_fd);
	if (e->lock_fd >= 0)
		close(e->lock_fd);
	pthread_cond_destroy(&e->gathered);
	pthread_mutex_destroy(&e->mu);
	free(e);
}

/* Bytes of mapped files in memory, of the whole process; 0 where that cannot be read. */
size_t engine_resident(const struct csm_engine *e)
{
	char line[128], *at = line;
	ssize_t n = e->statm_fd < 0 ? -1 : pread(e->statm_fd, line, sizeof(line) - 1, 0);
	unsigned long pages = 0;

	if (n <= 0)
		return 0;
	line[n] = '\0';
	/* All, resident, of files. */
	for (int i = 0; i < 3; i++)
		pages = strtoul(at, &at, 10);
	return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* LMDB does not tell where its map is. It is only read through, so that giving pages back loses nothing. */
static void find_map(struct csm_engine *e)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned long from, to;
	char line[512], *at;

	while (maps != NULL && e->map == NULL && fgets(line, sizeof(line), maps) != NULL) {
		from = strtoul(line, &at, 16);
		to = *at == '-' ? strtoul(at + 1, &at, 16) : from;
		if (strstr(line, "/data.mdb") == NULL || to - from < e->map_size)
			continue;
		e->map = (void *)(uintptr_t)from;
		e->map_len = to - from;
	}
	if (maps != NULL)
		fclose(maps);
}

int engine_lmdb_open(const struct csm_engine_options *opt, struct csm_engine **ret)
{
	struct csm_engine *e = calloc(1, sizeof(*e));
	pthread_condattr_t attr;
	int r;

	if (e == NULL)
		return CSM_ENOMEM;
	e->lock_fd = e->statm_fd = -1;
	e->map_size = opt->map_size;
	e->tail = &e->head;
	pthread_mutex_init(&e->mu, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&e->gathered, &attr);
	pthread_condattr_destroy(&attr);
	if ((r = folder_lock(e, opt)) != 0 || (r = seed(opt)) != 0 || (r = env_open(e, opt)) != 0) {
		engine_lmdb_close(e);
		return r;
	}
	/* Opened now: where there is a sandbox later, it may not be possible any more. */
	e->statm_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	find_map(e);
	e->resident_max = engine_resident(e) + ENGINE_RESIDENT_MAX;
	*ret = e;
	return 0;
}

/* ---- room ---- */

void engine_resident_look(struct csm_engine *e)
{
	if (e->map != NULL && engine_resident(e) > e->resident_max)
		(void)madvise(e->map, e->map_len, MADV_DONTNEED);
}

/* Pages on LMDB's list of free ones: database 0, each row starting with its number of pages. */
static size_t free_pages(MDB_txn *txn)
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

/* Up to the highest page that was ever used; near the end without the free ones, whose list may be long. LMDB shows that to
 * readers only. */
int engine_used(struct csm_engine *e, uint64_t *ret)
{
	MDB_envinfo info;
	MDB_txn *txn;
	uint64_t used;
	MDB_stat st;
	int rc;

	if ((rc = mdb_env_info(e->env, &info)) != 0 || (rc = mdb_env_stat(e->env, &st)) != 0)
		return engine_err(rc);
	used = (uint64_t)(info.me_last_pgno + 1) * st.ms_psize;
	if (used >= e->map_size / 100 * ENGINE_LOW_PERCENT) {
		if ((rc = mdb_txn_begin(e->env, NULL, MDB_RDONLY, &txn)) != 0)
			return engine_err(rc);
		used -= (uint64_t)free_pages(txn) * st.ms_psize;
		mdb_txn_abort(txn);
	}
	*ret = used;
	return 0;
}

/* What the file may grow by: of the disk, and by the process's limit. */
uint64_t engine_disk_left(struct csm_engine *e)
{
	uint64_t left = UINT64_MAX, most;
	struct rlimit limit;
	mdb_filehandle_t fd;
	struct statvfs fs;
	struct stat st;

	if (mdb_env_get_fd(e->env, &fd) != 0)
		return left;
	if (fstatvfs(fd, &fs) == 0)
		left = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && fstat(fd, &st) == 0) {
		most = limit.rlim_cur > (uint64_t)st.st_size ? limit.rlim_cur - (uint64_t)st.st_size : 0;
		left = most < left ? most : left;
	}
	return left;
}

void engine_lmdb_stat(struct csm_engine *e, struct csm_engine_stat *ret)
{
	uint64_t used = 0;
	int r = engine_used(e, &used);

	pthread_mutex_lock(&e->mu);
	*ret = e->st;
	pthread_mutex_unlock(&e->mu);
	ret->used = used;
	ret->size = e->map_size;
	ret->low_space = r != 0 || used >= e->map_size / 100 * ENGINE_LOW_PERCENT || engine_disk_left(e) < LOW_DISK;
	ret->failed = atomic_load(&e->failed);
}
