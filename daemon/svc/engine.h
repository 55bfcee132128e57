/* What keeps csm-server's rows: a table of operations over one ordered map from keys to values, so that another engine can stand
 * in the place of LMDB without a change above. Reads see a snapshot. Writes are batches: conditions, and changes that are made
 * all together if each condition holds at that moment, or not at all; when `write` returns 0 they are durable. Keys are 1 to
 * CSM_ENGINE_KEY_MAX bytes, the first not 0, ordered as bytes. */
#ifndef CSM_SVC_ENGINE_H
#define CSM_SVC_ENGINE_H

#include "libclient/base/name.h"

#define CSM_ENGINE_KEY_MAX 511u
#define CSM_ENGINE_BATCH_MAX (4u * 1024u * 1024u) /* keys and values of one batch */
#define CSM_ENGINE_SECRET_LEN 32u
#define CSM_ENGINE_WRITE_MAX 64u                  /* batches of one write_all */

struct csm_engine;     /* of the engine's own; any thread */
struct csm_engine_txn; /* one thread at a time */

struct csm_engine_options {
	const char *dir; /* 0700, ours; made where it is not there */
	size_t map_size;
	/* CSM_ENGINE_SECRET_LEN bytes, copied: what the engine keeps beside the rows has MACs under it. A checksum would do against the disk;
	 * but rows are sealed above one by one, so that whoever changes files could put old ones into the journal, or take new ones out. */
	const uint8_t *key;
	unsigned journal_ms; /* so long rows are in a journal at most before they are where they stay; 0: as long as is good (tests: others) */
	char *why;       /* may be NULL: a line that says why opening failed */
	size_t why_len;
};

enum csm_engine_need { CSM_ENGINE_ABSENT, CSM_ENGINE_PRESENT, CSM_ENGINE_EQUALS };
struct csm_engine_cond {
	enum csm_engine_need need;
	struct csm_bin key;
	struct csm_bin value; /* CSM_ENGINE_EQUALS */
};
struct csm_engine_change {
	struct csm_bin key;
	struct csm_bin value;
	bool del; /* a key that is not there is no error */
};
struct csm_engine_batch {
	const struct csm_engine_cond *conds;
	size_t n_conds;
	const struct csm_engine_change *changes; /* in this order */
	size_t n_changes;
	bool urgent; /* may take of the room that is kept for what must go on when there is no more: removing, revoking */
};
struct csm_engine_row {
	struct csm_bin key, value;
};
struct csm_engine_stat {
	uint64_t used, size; /* bytes */
	bool low_space;      /* told before a write fails */
	bool failed;         /* the disk failed at a place where nobody knows what it holds: only opening anew tells */
	uint64_t commits, batches;
};

struct csm_engine_ops {
	const char *name;
	/* CSM_EBUSY: another process has it open. CSM_ETAMPERED: the key is another one, or its files do not belong together. */
	int (*open)(const struct csm_engine_options *opt, struct csm_engine **ret);
	/* All transactions are over, nobody writes. NULL is a no-op. */
	void (*close)(struct csm_engine *e);
	int (*begin)(struct csm_engine *e, struct csm_engine_txn **ret);
	/* What was told in it is gone. NULL is a no-op. */
	void (*end)(struct csm_engine_txn *t);
	/* CSM_ENOT_FOUND. */
	int (*get)(struct csm_engine_txn *t, struct csm_bin key, struct csm_bin *value);
	/* The first row behind `key` (which may begin with 0), or with `at` also the one of that key itself; CSM_ENOT_FOUND: there is none.
	 * `key` may be what the call before told. */
	int (*next)(struct csm_engine_txn *t, struct csm_bin key, bool at, struct csm_engine_row *ret);
	/* The last row before `key`. */
	int (*prev)(struct csm_engine_txn *t, struct csm_bin key, struct csm_engine_row *ret);
	/* CSM_ECONFLICT: *failed is the number of a condition that does not hold (failed may be NULL). CSM_ENO_SPACE. CSM_EUNAVAILABLE:
	 * whether it was written is not known. Nothing has changed on any other error. */
	int (*write)(struct csm_engine *e, const struct csm_engine_batch *b, size_t *failed);
	/* Several batches and one wait. They are judged in order, each as if it were written after the ones before it, and each is atomic by
	 * itself; results[i] is what `write` would say of it. Returns the first of them that is not 0. CSM_EINVALID with more than
	 * CSM_ENGINE_WRITE_MAX, and then no result is told. */
	int (*write_all)(struct csm_engine *e, const struct csm_engine_batch *const *b, size_t n, int *results);
	void (*stat)(struct csm_engine *e, struct csm_engine_stat *ret);
};
extern const struct csm_engine_ops csm_engine_lmdb;

#endif
