/* What the files of the database share. The rows' keys are in ARCHITECTURE.md ("csm-server's database"). */
#ifndef CSM_CENTRAL_DB_INT_H
#define CSM_CENTRAL_DB_INT_H

#include <stdatomic.h>
#include "daemon/central/dbrec.h"
#include "daemon/svc/engine.h"

struct central_db {
	const struct csm_engine_ops *ops;
	struct csm_engine *engine;
	struct rec_key *key; /* in locked memory */
	atomic_ulong revocations;
	atomic_ulong events;  /* their number in this process */
	atomic_ulong pruned;  /* when answers that nobody asks for again were removed last */
};

/* First byte of each key. Never reused. */
enum db_table {
	DB_T_SCHEMA = 'M',
	DB_T_SERIAL = 'C',    /* serial: REC_REF */
	DB_T_CERT = 'T',      /* place: REC_CERT */
	DB_T_DER = 'D',       /* place: REC_DER */
	DB_T_EXPIRY = 'E',    /* not_after, place */
	DB_T_KEY = 'K',       /* SHA-256 of the SPKI, place */
	DB_T_FACET = 'F',     /* kind, 8 bytes of the value's SHA-256, place */
	DB_T_REVOKED = 'R',   /* issuer, serial: REC_REVOKED */
	DB_T_TOKEN = 'O',     /* id: REC_TOKEN */
	DB_T_TOKEN_HASH = 'H',/* hash: REC_TOKEN_REF */
	DB_T_REPLAY = 'I',    /* SHA-256 of caller and key: REC_REPLAY */
	DB_T_REPLAY_AGE = 'J',/* time, that SHA-256 */
	DB_T_VALUE = 'S',     /* name: REC_VALUE */
	DB_T_EVENT = 'V',     /* time, nanoseconds, number: REC_EVENT */
	DB_T_NODE = 'N',      /* SHA-256 of the name in small letters: REC_NODE */
	DB_T_REQUEST = 'P',      /* id: REC_REQUEST */
	DB_T_REQUEST_OF = 'Q',   /* SHA-256 of who, id */
	DB_T_REQUEST_END = 'X',  /* time of its end, id */
	DB_T_REQUEST_OPEN = 'Y', /* nothing: REC_REF, how many are waiting or approved */
	DB_T_USAGE = 'U',     /* SHA-256 of the SPKI, end, start, 8 bytes of SHA-256 of who: REC_USAGE */
};
enum db_facet { DB_F_NODE = 'n', DB_F_REQUESTER = 'q', DB_F_NAME = 'm', DB_F_REVOKED = 'r' };

/* ---- keys ---- */
struct dbk {
	size_t n;
	uint8_t p[CSM_ENGINE_KEY_MAX];
};
void dbk_start(struct dbk *k, enum db_table t);
void dbk_u8(struct dbk *k, uint8_t v);
void dbk_u64(struct dbk *k, uint64_t v);
void dbk_raw(struct dbk *k, const void *p, size_t n);
/* Length (1) and bytes: in the order of the numbers. At most DB_SERIAL_MAX. */
void dbk_serial(struct dbk *k, struct csm_bin serial);
/* issued, serial: the order of issue. */
void dbk_place(struct dbk *k, uint64_t issued, struct csm_bin serial);
void dbk_facet(struct dbk *k, enum db_facet f, struct csm_str value);
static inline struct csm_bin dbk_bin(const struct dbk *k)
{
	return (struct csm_bin){k->p, k->n};
}
void db_sha256(uint8_t out[static 32], struct csm_str a, struct csm_str b); /* a, NUL, b */
bool db_serial_ok(struct csm_bin serial);
void db_revoked_key(struct dbk *k, struct csm_str issuer, struct csm_bin serial);
/* What is meant by "name": the subject's CN, and of a SAN what stands behind its type. */
struct csm_str db_subject_cn(struct csm_str subject);
struct csm_str db_san_value(struct csm_str san);

/* ---- a batch being made: what it points to is its own ---- */
struct plan {
	struct central_db *db;
	struct csm_pool mem;
	struct csm_engine_cond *conds;
	struct csm_engine_change *changes;
	size_t n_conds, n_changes, conds_max, changes_max;
	bool urgent;
	int r; /* the first that went wrong */
};
/* conds and changes: how many there will be at most. */
void plan_init(struct plan *p, struct central_db *db, size_t conds, size_t changes);
void plan_free(struct plan *p);
void plan_absent(struct plan *p, const struct dbk *k);
/* The row is what was read. */
void plan_same(struct plan *p, const struct dbk *k, struct csm_bin row);
void plan_put(struct plan *p, const struct dbk *k, const struct rec_def *def, const void *in);
void plan_mark(struct plan *p, const struct dbk *k);
void plan_del(struct plan *p, const struct dbk *k);
void plan_event(struct plan *p, uint64_t at, const char *what, struct csm_str object, struct csm_str by);
/* The event of a certificate. */
void plan_event_cert(struct plan *p, uint64_t at, const char *what, struct csm_bin serial, struct csm_str by);
/* p->r, or what the engine says: CSM_ECONFLICT where a condition does not hold. */
CSM_MUST int plan_write(struct plan *p);
/* Rounds of reading, where once fills the plan by what it reads, and writing, until nobody has been
 * faster. CSM_EBUSY after DB_ROUNDS of them; what once says; p->r. */
typedef int plan_fn(struct plan *p, struct csm_engine_txn *t, const void *arg);
CSM_MUST int plan_rounds(struct central_db *db, size_t conds, size_t changes, bool urgent, plan_fn *once, const void *arg);
/* The same for several things of one kind, n of them, each with its own result: written together with one wait, each by itself and as
 * if it came after those before it. What one of them changes, and another rests on, is decided anew for that one. */
#define PLAN_TOGETHER_MAX DB_TOGETHER_MAX
struct plan_work {
	struct central_db *db;
	size_t conds, changes;
	bool urgent;
	plan_fn *once;
};
void plan_rounds_together(const struct plan_work *w, const void *const *args, int *results, size_t n);

/* What else a plan_fn may say, never CSM_ECONFLICT: an answer was given before, and nothing is to be written; or under its idempotency
 * key something else was asked. */
#define PLAN_AGAIN (-1)
#define PLAN_OTHER (-2)
#define PLAN_ASKED_CONDS 2u
#define PLAN_ASKED_CHANGES 3u
/* The outcome under its idempotency key, if it has one; with PLAN_AGAIN what it was before is appended to `before` (may be NULL). */
CSM_MUST int plan_replay(struct plan *p, struct csm_engine_txn *t, const struct db_asked *in, uint64_t now, struct csm_bin outcome,
	struct csm_buf *before);
/* The same, and that `spare` is not revoked. NULL: nothing. */
CSM_MUST int plan_asked(struct plan *p, struct csm_engine_txn *t, const struct db_asked *in, uint64_t now, struct csm_bin outcome,
	struct csm_buf *before);
/* What plan_rounds said, for the caller. */
CSM_MUST int db_asked_result(struct central_db *db, const struct db_asked *in, uint64_t now, int r, bool *replayed);
void db_prune(struct central_db *db, uint64_t now);

/* The certificate is there and not revoked, else CSM_EDENIED; a condition from then on. n 0: none. */
CSM_MUST int plan_valid(struct plan *p, struct csm_engine_txn *t, struct csm_bin serial);
/* A node's certificate takes its name; CSM_ESTATE: new_node, and it is another's (db.h). A condition, and nothing for other
 * certificates. (db_node.c) */
CSM_MUST int plan_node_cert(struct plan *p, struct csm_engine_txn *t, const struct db_cert *c, bool new_node, uint64_t now);
/* The names of a node's token are kept for it. As many conditions and changes as it has names. */
CSM_MUST int plan_node_token(struct plan *p, struct csm_engine_txn *t, const struct db_token *token);

/* ---- reading ---- */
/* The row as it is, and what is in it, borrowed until the transaction ends. CSM_ENOT_FOUND. `row` may be NULL. */
CSM_MUST int db_row(struct central_db *db, struct csm_engine_txn *t, const struct dbk *k, const struct rec_def *def, struct csm_pool *pool,
	void *out, struct csm_bin *row);
/* Everything of it but `der`; *k its key. */
CSM_MUST int db_cert_row(struct central_db *db, struct csm_engine_txn *t, struct csm_bin serial, struct csm_pool *pool,
	struct db_cert *ret, struct dbk *k, struct csm_bin *row);

/* ---- copies in the caller's pool: after the first that fails all do; 0 or CSM_ENOMEM or CSM_ETOO_LARGE ---- */
CSM_MUST int db_copy(struct csm_pool *pool, const void **p, size_t n);
CSM_MUST int db_copy_strs(struct csm_pool *pool, const struct csm_str **v, size_t n);
CSM_MUST int db_copy_cert(struct csm_pool *pool, struct db_cert *c);

/* ---- parts of batches that others make too ---- */
/* What an answer rests on: one use of the token is spent, unless it was before (`paid`), and `spare` is not revoked. CSM_EDENIED. */
CSM_MUST int plan_payment(struct plan *p, struct csm_engine_txn *t, const struct db_payment *in, bool paid);
/* The request that waited has become this certificate. CSM_EDENIED: it may not, or not any more. */
CSM_MUST int plan_request_issued(struct plan *p, struct csm_engine_txn *t, const uint8_t id[static DB_REQUEST_ID_LEN],
	const struct db_cert *cert, uint64_t now);

/* Rounds of reading and writing before somebody who is always overtaken is told CSM_EBUSY. */
#define DB_ROUNDS 10000u

#endif
