/* What the parts of the store share. The byte layouts are in ARCHITECTURE.md ("The store");
 * every number on disk is big-endian. */
#ifndef CSM_SVC_STORE_INTERNAL_H
#define CSM_SVC_STORE_INTERNAL_H

#include <lmdb.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include "daemon/svc/bytes.h"
#include "daemon/svc/journal.h"
#include "daemon/svc/prk.h"
#include "daemon/svc/store.h"
#include "libclient/base/lockmem.h"
#include "proto-spec/limits.h"

#define STORE_SCHEMA 4u /* 2: certificates; 3: issuers' keys; 4: the journal. Older ones are taken over at a start */
#define STORE_MAGIC "csm store"
#define STORE_KEY_MAX 511u /* LMDB's own limit */
#define KEY_LEN PRK_KEY_LEN
#define SALT_LEN 32u
#define TAG_LEN 16u
#define KEK_ID_LEN 16u
#define SUM_LEN 32u

/* ---- records: one header for all that is sealed ---- */
enum rec_kind {
	REC_SCOPE = 1,
	REC_KEY = 2,
	REC_SECRET = 3,
	REC_REQUEST = 4,
	REC_ROOT = 5,
	REC_SEALED = 6, /* handed out by csm_store_seal, not kept */
	REC_PIN = 7,    /* has no header; the number is for its set hash */
	REC_SERIAL = 9, /* a row without a value; the number is for its set hash */
	REC_CERT = 8,   /* beside a key, in its namespace's scope; clear: the key's id */
};
#define REC_FORMAT 1u
#define REC_SUITE 1u /* HKDF-Expand with HMAC-SHA256, AES-256-GCM */
enum rec_state { REC_LIVE = 0 }; /* 1: deleted, 2: destroyed: not made by this schema, never served */

#define HDR_LEN 64u      /* the part that every record has */
#define HDR_MAX 4096u    /* with the clear fields of a key */
#define HDR_OFF_TIME 8u
#define HDR_OFF_KEK 16u
#define HDR_OFF_SALT 32u
#define AAD_MAX (3u + STORE_KEY_MAX + HDR_MAX)
#define KEY_ALG_OFF (HDR_LEN + CSM_KEY_ID_LEN)

struct rec {
	enum rec_kind kind;
	uint8_t state;
	uint64_t time;
	const uint8_t *kek_id, *salt;
	struct csm_bin clear;  /* the fields after the common header */
	struct csm_bin header; /* all of it: associated data */
	struct csm_bin body;   /* cipher text and tag */
};
/* The lengths of the plain body. */
static inline size_t rec_plain_len(const struct rec *rec)
{
	return rec->body.n - TAG_LEN;
}

/* HKDF-Expand for a record, and for a key named by a label. */
void prk_record_key(const struct prk *prk, enum rec_kind kind, const uint8_t salt[static SALT_LEN],
	uint8_t out[static KEY_LEN]);
void prk_label_key(const struct prk *prk, const char *label, uint8_t out[static KEY_LEN]);

/* AES-256-GCM with nonce zero, since every key seals once. One thread at a time. */
struct aead {
	EVP_CIPHER *cipher;
	EVP_CIPHER_CTX *ctx;
};
CSM_MUST int aead_init(struct aead *a, bool no_sodium); /* no_sodium: OpenSSL though the CPU has AES */
void aead_free(struct aead *a);
CSM_MUST int aead_seal(struct aead *a, const uint8_t key[static KEY_LEN], struct csm_bin aad, struct csm_bin in,
	uint8_t *out);
/* in: cipher text and tag. CSM_ETAMPERED; then nothing of out can be used. */
CSM_MUST int aead_open(struct aead *a, const uint8_t key[static KEY_LEN], struct csm_bin aad, struct csm_bin in,
	uint8_t *out);

/* Write the common header with a fresh salt; kek_id NULL: zero. clear_n bytes of clear fields follow. */
void rec_header(uint8_t *p, enum rec_kind kind, uint64_t now, const uint8_t *kek_id, size_t clear_n);
/* CSM_ETAMPERED where v is not a whole record of that kind. Borrows v. */
CSM_MUST int rec_parse(struct csm_bin v, enum rec_kind kind, struct rec *ret);
/* Seal plain behind the header_n bytes at value, which are there already. */
CSM_MUST int rec_seal(struct aead *a, const struct prk *prk, enum rec_kind kind, struct csm_bin key, uint8_t *value,
	size_t header_n, struct csm_bin plain);
/* out: rec_plain_len bytes. CSM_ETAMPERED. */
CSM_MUST int rec_open(struct aead *a, const struct prk *prk, const struct rec *rec, struct csm_bin key, uint8_t *out);

/* ---- keys of the databases ---- */
struct dbkey {
	uint8_t p[STORE_KEY_MAX];
	size_t n;
};
static inline struct csm_bin dbkey_bin(const struct dbkey *k)
{
	return (struct csm_bin){k->p, k->n};
}
static inline MDB_val dbkey_val(const struct dbkey *k)
{
	return (MDB_val){k->n, (void *)k->p};
}
static inline struct csm_bin val_bin(const MDB_val *v)
{
	return (struct csm_bin){v->mv_data, v->mv_size};
}
/* CSM_EINVALID: a NUL in a part, an empty namespace, too long. */
CSM_MUST int dbkey_scope(struct dbkey *k, struct csm_str ns, struct csm_str domain);
CSM_MUST int dbkey_key(struct dbkey *k, struct csm_str ns, struct csm_str name);
/* The prefix of all versions ("ns\0domain\0name\0"), and one of them. */
CSM_MUST int dbkey_secret(struct dbkey *k, struct csm_str ns, struct csm_str domain, struct csm_str name);
void dbkey_set_version(struct dbkey *k, size_t prefix, uint64_t version);
CSM_MUST int dbkey_meta(struct dbkey *k, const char *prefix, const char *name);
/* Split what stands in `keys` or `secrets`; false where it is none of ours. */
struct dbparts {
	struct csm_str ns, domain, name;
	uint64_t version;
	struct csm_bin scope; /* the scope's key */
};
bool dbkey_split_scope(struct csm_bin k, struct dbparts *ret);
bool dbkey_split_key(struct csm_bin k, struct dbparts *ret, struct dbkey *scope);
bool dbkey_split_secret(struct csm_bin k, struct dbparts *ret);

/* ---- the set hash: a sum modulo 2^256 of one pseudo-random number per record ---- */
void sum_add(uint8_t sum[static SUM_LEN], const uint8_t element[static SUM_LEN]);
void sum_sub(uint8_t sum[static SUM_LEN], const uint8_t element[static SUM_LEN]);
/* What a record adds: a secret by its header and tag, all else by the whole value. */
CSM_MUST int sum_element(const struct prk *set_key, enum rec_kind kind, struct csm_bin key, struct csm_bin value,
	uint8_t out[static SUM_LEN]);

/* ---- scopes: who holds a key-encryption key ---- */
#define SCOPE_KEKS_MAX 8u /* more than one only while a rotation runs, or for sealed data handed out before */
#define SCOPE_FIXED 96u
#define SCOPE_KEK_LEN (KEK_ID_LEN + KEY_LEN + 8u)
#define SCOPE_PLAIN_MAX (SCOPE_FIXED + SCOPE_KEKS_MAX * SCOPE_KEK_LEN)
#define SCOPE_VALUE_MAX (HDR_LEN + SCOPE_PLAIN_MAX + TAG_LEN)
struct kek {
	uint8_t id[KEK_ID_LEN];
	uint8_t key[KEY_LEN];
	uint64_t created;
};
struct scope {
	uint64_t created;
	uint64_t records; /* rows in keys and certs, or in secrets */
	uint64_t names;   /* distinct names of them, without those of certs */
	uint8_t sum[SUM_LEN];
	uint8_t set_key[KEY_LEN];
	uint32_t n_keks;
	struct kek kek[SCOPE_KEKS_MAX]; /* the first seals */
};
void store_scope_new(struct scope *sc, uint64_t now);
CSM_MUST int store_scope_seal(struct aead *a, const struct prk *prk, struct csm_bin key, const struct scope *sc,
	uint8_t value[static SCOPE_VALUE_MAX], size_t *n);
CSM_MUST int store_scope_open(struct aead *a, const struct prk *prk, struct csm_bin key, struct csm_bin value,
	struct scope *ret);
/* NULL where the scope has none of that id. */
const struct kek *store_scope_kek(const struct scope *sc, const uint8_t id[static KEK_ID_LEN]);

/* ---- the root record ---- */
#define ROOT_PLAIN 200u
#define ROOT_VALUE (HDR_LEN + ROOT_PLAIN + TAG_LEN)
struct root {
	uint32_t schema;
	uint64_t epoch;
	uint64_t generation; /* commits */
	uint64_t scopes;
	uint8_t sum[SUM_LEN]; /* over the scope records */
	uint8_t set_key[KEY_LEN];
	uint8_t pins[SUM_LEN]; /* over the pins */
	uint64_t n_keys, n_domains, n_secrets;
	uint64_t audit_seq; /* the audit log's last line at the commit, and its hash */
	uint8_t audit_head[32];
	uint64_t created;
	bool counted; /* epoch belongs to a counter */
};
struct subkeys { /* derived from the root key at open; guarded, read-only */
	struct prk scope, root, request, journal;
	uint8_t audit_seed[KEY_LEN]; /* of the key that signs checkpoints */
	uint8_t node[KEY_LEN];       /* of csm_store_node_secret */
};
CSM_MUST int store_root_read(struct csm_store *s, MDB_txn *txn, struct aead *a, struct root *ret);
CSM_MUST int store_root_write(struct csm_store *s, MDB_txn *txn, struct aead *a, struct root *root);
/* Say in txn that the records are of this schema, where they were not. */
CSM_MUST int store_schema_put(struct csm_store *s, MDB_txn *txn);
/* The key from its source: made (and its record put into txn) or unwrapped; s->sub is set. */
CSM_MUST int store_root_key_make(struct csm_store *s, MDB_txn *txn);
CSM_MUST int store_root_key_get(struct csm_store *s, MDB_txn *txn);
/* Another wrapped form of the same root key in its record. */
CSM_MUST int store_root_key_put(struct csm_store *s, MDB_txn *txn, struct csm_bin wrapped);
/* The mode that the store was made with; the caller frees it. CSM_ENOT_FOUND in a new store. */
CSM_MUST int store_root_mode(struct csm_store *s, MDB_txn *txn, char **ret);
/* A pin and the sum over pins; root NULL: without the sum, in a store that waits to be accepted. */
CSM_MUST int store_pin_put(struct csm_store *s, MDB_txn *txn, struct root *root, const char *name, struct csm_bin v);
CSM_MUST int store_pins_sum(struct csm_store *s, MDB_txn *txn, const struct root *root, uint8_t out[static SUM_LEN]);
/* Take a pin out. CSM_ENOT_FOUND. */
CSM_MUST int store_pin_del(struct csm_store *s, MDB_txn *txn, struct root *root, const char *name);
/* The mark of a key whose device is gone: a pin of its own. store_lost_all marks those of a back end; root NULL: without the
 * sum over pins. */
bool store_lost_is(struct csm_store *s, MDB_txn *txn, const uint8_t id[static CSM_KEY_ID_LEN]);
CSM_MUST int store_lost_all(struct csm_store *s, MDB_txn *txn, struct root *root, struct csm_str backend, uint64_t *ret);
CSM_MUST int store_lost_forget(struct csm_store *s, MDB_txn *txn, struct root *root, const uint8_t id[static CSM_KEY_ID_LEN]);
/* Put what is remembered in memory into txn; store_early_done tells what became of it. */
CSM_MUST int store_early_pins(struct csm_store *s, MDB_txn *txn, struct root *root);
void store_early_done(struct csm_store *s, bool committed);
void store_early_forget(struct csm_store *s, const char *name);
/* Bring the counter to the committed epoch. CSM_EUNAVAILABLE: counter_behind is set, and the writer tries again. */
int store_root_counter_follow(struct csm_store *s);
/* The next epoch into root; false where it stays (a counter belongs to it, but is not there). */
bool store_root_epoch_next(const struct csm_store *s, struct root *root);

/* ---- what a group changes, and the journal of it (store_journal.c) ---- */
#define STORE_DBS_MAX 32u
#define JOURNAL_SIZE (8u * 1024u * 1024u)
#define JOURNAL_FULL (JOURNAL_SIZE / 2) /* then LMDB commits */
struct changes {
	bool on;
	bool too_many; /* rows has not all of them */
	size_t n;
	struct csm_buf rows; /* behind JOURNAL_HEAD bytes */
};
struct changes_mark {
	size_t n, len;
};
struct change_row {
	MDB_dbi dbi;
	bool del;
	struct csm_bin key, value;
};
void journal_init(struct csm_store *s);
CSM_MUST int journal_open(struct csm_store *s, const char *folder);
void journal_close(struct csm_store *s);
/* Put what follows on the root record in txn, which is of that generation, into txn. CSM_ETAMPERED: something genuine is there
 * that does not follow on, or lacks what it follows on; what does is in txn. */
CSM_MUST int journal_replay(struct csm_store *s, MDB_txn *txn, uint64_t generation);
/* Again all that counts, into a new transaction. */
CSM_MUST int journal_reapply(struct csm_store *s, MDB_txn *txn);
/* The next entry follows on the root record in txn. */
CSM_MUST int journal_base(struct csm_store *s, MDB_txn *txn);
bool journal_takes(const struct csm_store *s);
/* The changes of a group, on the disk when it returns 0. */
CSM_MUST int journal_append(struct csm_store *s, uint64_t generation);
/* The group whose entry could not be appended was refused; where it may count at a start nevertheless, the store is lost. */
void journal_undo(struct csm_store *s);
/* Note what is put into and taken out of the rows from here on. */
void changes_begin(struct csm_store *s);
void changes_add(struct csm_store *s, MDB_dbi dbi, struct csm_bin key, const struct csm_bin *value); /* NULL: deleted */
struct changes_mark changes_mark(const struct csm_store *s);
void changes_undo(struct csm_store *s, struct changes_mark mark);
/* The first of rows, and the rest. CSM_ETAMPERED: they are none. */
CSM_MUST int changes_next(const struct csm_store *s, struct csm_bin *rows, struct change_row *ret);

/* ---- for readers, what is in the journal and not in LMDB (store_view.c) ---- */
struct view;
/* Make what a group has changed ready to be seen; then let it be seen. */
CSM_MUST int view_prepare(struct csm_store *s);
void view_publish(struct csm_store *s);
void view_drop(struct csm_store *s); /* LMDB has it all */
/* Renew txn, with the view that goes with it (NULL: none) and the groups in it that are seen. LMDB's code. */
CSM_MUST int view_begin(struct csm_store *s, MDB_txn *txn, struct view **view, uint64_t *groups);
void view_unref(struct view *v);
/* What is borrowed lives as long as the reference. */
bool view_find(const struct view *v, uint64_t groups, MDB_dbi dbi, struct csm_bin key, struct change_row *ret);
bool view_newest(const struct view *v, uint64_t groups, struct csm_bin prefix, struct change_row *ret);
/* The rows of secrets, of LMDB by the cursor and of the view (NULL: none), whose keys begin with prefix, from start on. */
struct merge {
	MDB_cursor *cur;
	const struct dbkey *prefix;
	MDB_val k, v;
	int rc; /* of the cursor */
	struct change_row *rows;
	size_t at, n;
};
CSM_MUST int merge_begin(struct merge *m, const struct view *v, uint64_t groups, MDB_cursor *cur, const struct dbkey *prefix,
	const struct dbkey *start);
/* False at the end; then m->rc is MDB_NOTFOUND, or why it could not be read. */
bool merge_next(struct merge *m, struct csm_bin *key, struct csm_bin *value);
void merge_end(struct merge *m);

/* ---- the store ---- */
#define PIN_NAME_MAX 127u
#define PIN_MAX 65536u
struct pin {
	struct pin *next;
	size_t n;
	bool taken; /* by the transaction at hand */
	char name[PIN_NAME_MAX + 1];
	uint8_t p[];
};
struct names { /* texts for status; kept until the store is closed, since status hands them out */
	struct names *older;
	size_t n;
	char *v[64];
};
struct lines {
	struct lines *next;
	uint64_t seq; /* of the last */
	struct csm_buf text;
};
struct csm_store {
	char *dir, *mode;
	size_t map_size;
	char *stored_mode; /* of the store found; NULL: a new one */
	char *why;
	size_t why_len;
	struct csm_root_source root;
	uint64_t epoch_interval_s;
	MDB_env *env;
	MDB_dbi meta, scopes, keys, certs, secrets, requests, counts, serials, log;
	int lock_fd;
	uint8_t number[STORE_DBS_MAX]; /* of each database in the journal; 0: none of ours */
	bool fresh;             /* nothing in it yet */
	uint32_t schema;        /* of the records found; STORE_SCHEMA once a commit has said so */
	bool ready_to_count;    /* the epoch that was committed belongs to the counter at hand */
	bool ready;             /* the root key is known */
	bool no_sodium, keep_journal; /* tests */
	struct csm_audit *audit; /* NULL: nothing is told */
	uint64_t audit_seq;     /* as found at the start */
	uint8_t audit_head[32];
	struct subkeys *sub;    /* sodium_malloc */
	struct aead aead;       /* the writer's; before the start the opener's */
	atomic_bool locked;
	atomic_bool any_lost; /* some key is marked as lost */
	atomic_uint kek_generation; /* grows when KEKs went: readers forget theirs */

	pthread_mutex_t mu; /* what follows, up to the writer */
	struct csm_store_stat stat;
	struct names *damaged, *removed;
	uint64_t stat_at; /* monotonic seconds of the last measurement of space */
	struct pin *early; /* remembered, and not in the store yet */
	bool early_new;    /* some of it since the writer last tried */
	struct csm_store_op *head, **tail;
	size_t queued, want; /* the writer is woken when so many are queued */
	size_t expected;     /* operations that will come soon, with those that are queued */
	bool started, stopping;
	pthread_cond_t wake;
	pthread_t writer;

	pthread_mutex_t view_mu;
	struct view *_Atomic view; /* what readers see; NULL: LMDB has it all */

	/* the writer's own */
	MDB_txn *txn;           /* open: with the groups that are in the journal; NULL: none */
	size_t room;            /* bytes by which the store may still grow in it */
	struct csm_journal journal;
	struct changes changes; /* of the group at hand */
	struct view *next_view; /* view, with the nodes of the group at hand; NULL: none yet */
	struct lines *lines, **lines_tail; /* of the audit log, that the journal has */
	uint64_t journal_since; /* monotonic nanoseconds of the first entry */
	int stuck;              /* why LMDB could not commit what is in the journal; 0: it can */
	uint64_t stuck_at;      /* monotonic nanoseconds */
	uint64_t commit_ns;     /* what the last group took, bounded */
	uint64_t epoch;         /* committed */
	uint64_t counter;       /* as last read */
	bool counter_behind;    /* the counter has still to follow the epoch */
	bool epoch_wanted;      /* something was deleted since the last raise */
	uint64_t epoch_raised;  /* monotonic seconds */
	uint64_t counter_tried;
	uint64_t early_tried;   /* monotonic seconds; 0: nothing is left */
	uint64_t pruned;        /* monotonic seconds */
	void (*lost)(void);
};

CSM_MUST int store_err(int mdb_rc);
CSM_MUST int store_commit_err(struct csm_store *s, int rc);
uint64_t store_monotonic(void);
uint64_t store_monotonic_ns(void);
void store_why(struct csm_store *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
CSM_MUST int store_get(MDB_txn *txn, MDB_dbi dbi, struct csm_bin key, struct csm_bin *ret);
CSM_MUST int store_put(struct csm_store *s, MDB_txn *txn, MDB_dbi dbi, struct csm_bin key, struct csm_bin value);
CSM_MUST int store_del(struct csm_store *s, MDB_txn *txn, MDB_dbi dbi, struct csm_bin key);
CSM_MUST int store_cursor_del(struct csm_store *s, MDB_cursor *cur, const MDB_val *key); /* LMDB's code */
void store_totals(struct csm_store *s, const struct root *root);
bool store_disk_low(struct csm_store *s);
/* Bytes in use, without LMDB's free pages. */
CSM_MUST int store_used(struct csm_store *s, uint64_t *ret);

/* Names in struct names, without repeats and up to its size. */
void store_names_add(struct names *names, const struct dbparts *parts, const char *text);
struct names *store_names_new(struct names *older);
void store_names_free(struct names *names); /* with all older ones */
void store_names_drop(struct names *names); /* without */

/* Compare all records with the hashes; what differs is added to `damaged`. */
CSM_MUST int store_scan_check(struct csm_store *s, MDB_txn *txn, const struct root *root, struct names *damaged);
/* Make all hashes those of what is there, dropping (and naming) what cannot be opened. */
CSM_MUST int store_scan_accept(struct csm_store *s, MDB_txn *txn, struct root *root, struct names *removed);

/* ---- the writer ---- */
struct wscope { /* a scope in the transaction of a group; locked memory */
	struct dbkey key;
	uint8_t element[SUM_LEN]; /* of the record in the database, when in_db */
	bool in_db, present, dirty;
	struct scope sc;
	struct prk kek, set;
};
#define GROUP_OPS 256u
#define GATHER_NS 4000000u /* a commit that takes longer does not make the next group wait longer */
#define LINES_MAX (16u * 1024u * 1024u) /* of the audit log, in a commit */
#define GROUP_BYTES (8u * 1024u * 1024u)
/* The map is larger than configured by this, and what makes the store grow stops before it: so there is always
 * room to delete, and for the root record. More than a whole group can overshoot. */
#define MAP_RESERVE (4u * GROUP_BYTES)
#define ROOM_PER_OP (16u * 4096u) /* pages that an operation may touch besides its value */
struct group {
	struct csm_store *s;
	MDB_txn *txn; /* the store's, or one within it */
	uint64_t now;
	size_t room; /* bytes by which the store may still grow */
	struct root root;
	struct wscope *scopes[GROUP_OPS];
	size_t n_scopes;
	struct wscope *touched; /* by the op at hand, at most one; NULL: none yet */
	struct wscope *before;  /* what it was before the op */
	bool durable;           /* nothing is to be undone */
	bool journal;           /* by the journal, if it takes it */
	struct lines *kept;     /* of this group; NULL: none */
	struct csm_audit_mark told;
	struct csm_buf lines; /* of the audit log, which this commit keeps */
	bool deleted;           /* something went: the epoch wants a raise */
	bool keks_gone;
};
CSM_MUST int store_op_apply(struct group *g, struct csm_store_op *op);
CSM_MUST int store_group_scope(struct group *g, const struct dbkey *key, struct wscope **ret);
/* Tell the audit log what the group has done; before its commit, whose outcome is r. No commit follows: the lines are
 * durable at once. */
CSM_MUST int store_tell(struct group *g, struct csm_store_op *const *ops, size_t n, bool commit_follows);
void store_told(struct group *g, int r);
/* Lines of groups in the journal: before LMDB's commit they are put into its transaction, or the log's file is synced. */
CSM_MUST int store_lines_flush(struct csm_store *s);
void store_lines_undo(struct group *g);
void store_lines_free(struct csm_store *s);
/* A group: what it does not make durable is undone with it. */
CSM_MUST int store_group_begin(struct csm_store *s, struct group **ret);
CSM_MUST int store_group_commit(struct group *g);
void store_group_done(struct group *g, size_t effects, bool raised);
void store_group_free(struct group *g);
/* Apply all, make it durable. An error is that of the whole: then nothing was done. */
CSM_MUST int store_group_run(struct csm_store *s, struct csm_store_op *const *ops, size_t n, bool raise);
/* Each has its result afterwards. */
void store_batch_run(struct csm_store *s, struct csm_store_op *const *ops, size_t n);
bool store_epoch_due(const struct csm_store *s, bool deleted);
/* LMDB has all that the journal has, and no transaction is open. */
int store_checkpoint(struct csm_store *s);
CSM_MUST int store_writer_init(struct csm_store *s);
void store_writer_free(struct csm_store *s);

/* what issuers' keys have signed (store_issue.c) */
/* CSM_EEXISTS: the serial number; CSM_ECONFLICT: the CRL's number; CSM_EBUSY: the rate. */
CSM_MUST int store_issue(struct group *g, const struct csm_store_op *op, const uint8_t id[static CSM_KEY_ID_LEN]);
CSM_MUST int store_issue_forget(struct group *g, const uint8_t id[static CSM_KEY_ID_LEN]);
/* *ret: the rows are those that were counted. */
CSM_MUST int store_issue_check(struct csm_store *s, MDB_txn *txn, const struct root *root, bool *ret);
/* Count what is there; the sum over pins is the caller's to make. */
CSM_MUST int store_issue_accept(struct csm_store *s, MDB_txn *txn, const struct root *root);

/* requests (store_request.c) */
void store_request_key(const struct csm_store *s, const struct csm_request_id *rid, struct dbkey *k);
/* What the row of that key tells. */
CSM_MUST int store_request_open(struct csm_store *s, struct aead *a, const struct csm_request_id *rid, const struct dbkey *k,
	struct csm_bin v, uint64_t now, struct csm_buf *answer);
CSM_MUST int store_request_find(struct csm_store *s, MDB_txn *txn, struct aead *a, const struct csm_request_id *rid,
	uint64_t now, struct csm_buf *answer);
CSM_MUST int store_request_put(struct csm_store *s, MDB_txn *txn, struct aead *a, const struct csm_request_id *rid,
	uint64_t now, struct csm_bin answer);
CSM_MUST int store_request_prune(struct csm_store *s, MDB_txn *txn, uint64_t now, size_t max, size_t *ret);

/* the clear fields of a key record (store_key.c) */
CSM_MUST int store_key_clear_put(const struct csm_key_record *rec, uint8_t *p, size_t cap, size_t *n);
CSM_MUST int store_key_clear_get(struct csm_bin clear, struct csm_key_record *ret);

#endif
