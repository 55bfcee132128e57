/* What the files of the LMDB engine share. */
#ifndef CSM_SVC_ENGINE_LMDB_INT_H
#define CSM_SVC_ENGINE_LMDB_INT_H

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include "daemon/svc/engine.h"

#define ENGINE_RESIDENT_MAX (24u * 1024u * 1024u)
#define ENGINE_LOW_PERCENT 90u
#define ENGINE_NO_DISK (4u * 1024u * 1024u)

struct writer;
struct csm_engine_txn {
	struct csm_engine *e;
	MDB_txn *txn;
	MDB_cursor *cur;
	MDB_val last; /* the cursor stands there; mv_data NULL: nowhere */
	struct csm_engine_txn *next;
};

struct csm_engine {
	MDB_env *env;
	MDB_dbi dbi;
	int lock_fd, statm_fd;
	size_t map_size; /* without the reserve */
	void *map; /* NULL: not known */
	size_t map_len, resident_max;
	atomic_uint reads;
	atomic_bool failed;

	pthread_mutex_t mu;
	struct writer *head, **tail;
	size_t queued, expected, want;
	bool led;
	pthread_cond_t gathered;
	uint64_t commit_ns;
	struct csm_engine_txn *spare; /* transactions that are not in use */
	struct csm_engine_stat st;
};

static inline MDB_val engine_val(struct csm_bin b)
{
	return (MDB_val){b.n, (void *)(uintptr_t)b.p};
}
static inline struct csm_bin engine_bin(const MDB_val *v)
{
	return (struct csm_bin){v->mv_data, v->mv_size};
}
/* Bytes of mapped files in memory, of the whole process; 0 where that cannot be read. */
size_t engine_resident(const struct csm_engine *e);
/* Give the pages of the map back if they are too many. */
void engine_resident_look(struct csm_engine *e);
int engine_used(struct csm_engine *e, uint64_t *ret);

int engine_lmdb_open(const struct csm_engine_options *opt, struct csm_engine **ret);
void engine_lmdb_close(struct csm_engine *e);
int engine_lmdb_write(struct csm_engine *e, const struct csm_engine_batch *b, size_t *failed);
int engine_lmdb_write_all(struct csm_engine *e, const struct csm_engine_batch *const *b, size_t n, int *results);
void engine_lmdb_stat(struct csm_engine *e, struct csm_engine_stat *ret);

#endif
