/* What the files of the LMDB engine share. */
#ifndef CSM_SVC_ENGINE_LMDB_INT_H
#define CSM_SVC_ENGINE_LMDB_INT_H

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include "daemon/svc/engine.h"
#include "daemon/svc/engine_rows.h"
#include "daemon/svc/journal.h"

#define ENGINE_RESIDENT_MAX (24u * 1024u * 1024u)
#define ENGINE_LOW_PERCENT 90u
#define ENGINE_NO_DISK (4u * 1024u * 1024u)
#define ENGINE_LOW_DISK (64u * 1024u * 1024u)
#define ENGINE_RESERVE (16u * 1024u * 1024u) /* of the map, behind what is told as its size: for what is urgent */
#define ENGINE_BATCH_PAGES (16u * 4096u)     /* what a batch may take beside its bytes: split pages, branches */

struct writer;
struct csm_engine_txn {
	struct csm_engine *e;
	MDB_txn *txn;
	MDB_cursor *cur;
	MDB_val last;      /* the cursor stands there; mv_data NULL: nowhere */
	MDB_val last_value;
	struct csm_bin told; /* a key of rows[] that was told last, and the cursor stands on LMDB's next one; p NULL: not so */
	struct engine_rows *rows[2]; /* NULL: none to look through */
	uint64_t seen;     /* the last group in them */
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

	/* The journal (engine_journal.c): of the thread that leads, or under mu while none does. */
	struct prk *key; /* in locked memory */
	struct csm_journal journal[2];
	unsigned at;     /* the one that is written */
	struct csm_buf entry;
	uint8_t fresh_head[JOURNAL_MAC];
	/* Under mu. rows[1] and LMDB are changed by whoever has `taking`. */
	struct engine_rows *rows[2];
	uint64_t need[2]; /* what they may take of LMDB's room */
	uint64_t number, sealed_number; /* of the last group that is durable; of the last in rows[1] */
	uint8_t sealed_head[JOURNAL_MAC];
	uint64_t since;   /* when rows[0] got its first group; 0: it has none */
	uint64_t stuck_at;
	int stuck;        /* why LMDB could not take rows[1]; 0: it can */
	uint64_t age_ns;  /* rows[0] is not to be older */
	bool taking, stopping, threaded;
	pthread_t thread;
	pthread_cond_t moved; /* any of these has changed */
};

static inline uint64_t engine_need(uint64_t bytes)
{
	return 2 * bytes + ENGINE_BATCH_PAGES;
}

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

uint64_t engine_now(void); /* nanoseconds */
/* A disk that fills in the midst of a write is told by LMDB as EIO. When its very last write fails, nobody knows what the disk has,
 * and it refuses all further work. */
int engine_commit(struct csm_engine *e, MDB_txn *txn);

/* ---- the journal ---- */
CSM_MUST int engine_journal_init(struct csm_engine *e, const struct csm_engine_options *opt);
CSM_MUST int engine_journal_open(struct csm_engine *e, const struct csm_engine_options *opt);
void engine_journal_close(struct csm_engine *e);
/* The rest is for the thread that leads. May a group be made durable by it, with at most so many bytes of rows? May wait for room. */
bool engine_journal_ready(struct csm_engine *e, size_t bytes, uint64_t need, bool urgent);
/* Under mu, between two groups: is it time for LMDB to take what there is? */
void engine_journal_look(struct csm_engine *e);
CSM_MUST int engine_group_begin(struct csm_engine *e);
CSM_MUST int engine_group_add(struct csm_engine *e, const struct csm_engine_change *c);
/* Durable when it returns 0, and seen. Else the caller takes it back, and commits something that outdates the entry if one of the
 * journals is dead. */
CSM_MUST int engine_group_end(struct csm_engine *e, uint64_t need);
/* No snapshot has it any more. */
void engine_group_undo(struct csm_engine *e);
/* Begin and end writing to LMDB. */
void engine_taking(struct csm_engine *e, bool on);
/* In between: LMDB takes all that the journal has. Why it cannot. */
int engine_take_all(struct csm_engine *e);
/* What is committed in txn comes behind all that is in the journal; then it was. */
CSM_MUST int engine_mark_next(struct csm_engine *e, MDB_txn *txn);
void engine_marked(struct csm_engine *e);

/* A snapshot; leads: with the group that is being made. */
CSM_MUST int engine_lmdb_begin(struct csm_engine *e, bool leads, struct csm_engine_txn **ret);
void engine_lmdb_end(struct csm_engine_txn *t);
CSM_MUST int engine_lmdb_get(struct csm_engine_txn *t, struct csm_bin key, struct csm_bin *value);

int engine_lmdb_open(const struct csm_engine_options *opt, struct csm_engine **ret);
void engine_lmdb_close(struct csm_engine *e);
int engine_lmdb_write(struct csm_engine *e, const struct csm_engine_batch *b, size_t *failed);
int engine_lmdb_write_all(struct csm_engine *e, const struct csm_engine_batch *const *b, size_t n, int *results);
void engine_lmdb_stat(struct csm_engine *e, struct csm_engine_stat *ret);

#endif
