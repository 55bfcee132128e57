/* Opening the LMDB engine; its room on the disk and in memory. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "daemon/svc/engine_lmdb_int.h"
#include "daemon/svc/lmdb_file.h"

#define READERS_MAX 512u

/* ---- opening ---- */

static int fail(const struct csm_engine_options *opt, int r, const char *path, const char *why)
{
	if (opt->why != NULL && opt->why_len > 0)
		snprintf(opt->why, opt->why_len, "%s: %s", path, why);
	return r;
}

static int folder_lock(struct csm_engine *e, const struct csm_engine_options *opt)
{
	int r;

	if (mkdir(opt->dir, 0700) != 0 && errno != EEXIST)
		return fail(opt, CSM_ESYSTEM, opt->dir, strerror(errno));
	r = csm_lmdb_lock(opt->dir, &e->lock_fd);
	if (r == CSM_EBUSY)
		return fail(opt, r, opt->dir, "another process has the database open");
	return r == 0 ? 0 : fail(opt, r, opt->dir, strerror(errno));
}

static int seed(const struct csm_engine_options *opt)
{
	int rc = csm_lmdb_seed(opt->dir);

	return rc == 0 ? 0 : fail(opt, csm_lmdb_err(rc), opt->dir, mdb_strerror(rc));
}

static int parent_sync(const char *dir)
{
	char *path = NULL;
	int r;

	if (asprintf(&path, "%s/..", dir) < 0)
		return CSM_ENOMEM;
	r = csm_lmdb_sync_folder(path);
	free(path);
	return r;
}

static int env_open(struct csm_engine *e, const struct csm_engine_options *opt)
{
	MDB_txn *txn;
	int rc, r;

	if ((rc = mdb_env_create(&e->env)) != 0 || (rc = mdb_env_set_mapsize(e->env, opt->map_size + ENGINE_RESERVE)) != 0 ||
		(rc = mdb_env_set_maxreaders(e->env, READERS_MAX)) != 0 ||
		(rc = mdb_env_open(e->env, opt->dir, MDB_NOTLS | MDB_NORDAHEAD, 0600)) != 0 ||
		(rc = mdb_reader_check(e->env, NULL)) != 0)
		return fail(opt, csm_lmdb_err(rc), opt->dir, mdb_strerror(rc));
	if ((r = csm_lmdb_sync_folder(opt->dir)) != 0 || (r = parent_sync(opt->dir)) != 0)
		return fail(opt, r, opt->dir, strerror(errno));
	if ((rc = mdb_txn_begin(e->env, NULL, MDB_RDONLY, &txn)) != 0)
		return fail(opt, csm_lmdb_err(rc), opt->dir, mdb_strerror(rc));
	if ((rc = mdb_dbi_open(txn, NULL, 0, &e->dbi)) == 0)
		rc = mdb_txn_commit(txn);
	else
		mdb_txn_abort(txn);
	return rc == 0 ? 0 : fail(opt, csm_lmdb_err(rc), opt->dir, mdb_strerror(rc));
}

void engine_lmdb_close(struct csm_engine *e)
{
	if (e == NULL)
		return;
	engine_journal_close(e);
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
	pthread_cond_destroy(&e->moved);
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
	pthread_cond_init(&e->moved, &attr);
	pthread_condattr_destroy(&attr);
	if ((r = engine_journal_init(e, opt)) != 0 || (r = folder_lock(e, opt)) != 0 || (r = seed(opt)) != 0 ||
		(r = env_open(e, opt)) != 0) {
		engine_lmdb_close(e);
		return r;
	}
	/* Opened now: where there is a sandbox later, it may not be possible any more. */
	e->statm_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	find_map(e);
	e->resident_max = engine_resident(e) + ENGINE_RESIDENT_MAX;
	if ((r = engine_journal_open(e, opt)) != 0) {
		engine_lmdb_close(e);
		return r;
	}
	*ret = e;
	return 0;
}

/* ---- room ---- */

void engine_resident_look(struct csm_engine *e)
{
	if (e->map != NULL && engine_resident(e) > e->resident_max)
		(void)madvise(e->map, e->map_len, MADV_DONTNEED);
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
		return csm_lmdb_err(rc);
	used = (uint64_t)(info.me_last_pgno + 1) * st.ms_psize;
	if (used >= e->map_size / 100 * ENGINE_LOW_PERCENT) {
		if ((rc = mdb_txn_begin(e->env, NULL, MDB_RDONLY, &txn)) != 0)
			return csm_lmdb_err(rc);
		used -= (uint64_t)csm_lmdb_free_pages(txn) * st.ms_psize;
		mdb_txn_abort(txn);
	}
	*ret = used;
	return 0;
}

void engine_lmdb_stat(struct csm_engine *e, struct csm_engine_stat *ret)
{
	uint64_t used = 0;
	int r = engine_used(e, &used);

	pthread_mutex_lock(&e->mu);
	*ret = e->st;
	r = r != 0 ? r : e->stuck;
	pthread_mutex_unlock(&e->mu);
	ret->used = used;
	ret->size = e->map_size;
	ret->low_space = r != 0 || used >= e->map_size / 100 * ENGINE_LOW_PERCENT || csm_lmdb_disk_left(e->env) < ENGINE_LOW_DISK;
	ret->failed = atomic_load(&e->failed);
}
