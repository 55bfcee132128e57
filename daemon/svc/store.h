/* The store: sealed records in LMDB, one writer thread with group commit, readers per loop.
 * The record format and its promises are in ARCHITECTURE.md ("The store"). */
#ifndef CSM_SVC_STORE_H
#define CSM_SVC_STORE_H

#include "daemon/svc/audit.h"
#include "libclient/base/buf.h"
#include "libclient/base/name.h"
#include "plugins/include/csm_plugin.h"

struct csm_store;
struct csm_reader; /* a loop's read transaction and its cache of key-encryption keys */

/* How the store gets and keeps its root key and its epoch; filled by the broker (tpm, passphrase,
 * file or credential). */
struct csm_root_source {
	void *arg;
	const char *mode; /* "tpm", "passphrase", "file", "credential" */
	/* Protect a new root key for keeping inside the store. NULL: it is kept outside, and unwrap
	 * (with n 0) tells it, also for a new store. At most 4096 bytes. */
	int (*wrap)(void *arg, const uint8_t key[static 32], struct csm_plugin_out *wrapped);
	int (*unwrap)(void *arg, const uint8_t *wrapped, size_t n, uint8_t key[static 32]);
	/* A counter that only grows; NULL where there is none. All of these are called by the thread in
	 * csm_store_root_open, and later by the writer. */
	int (*counter_read)(void *arg, uint64_t *ret);
	int (*counter_increment)(void *arg, uint64_t *ret);
	/* NULL, or the root key itself, from elsewhere, with a new wrapped form that takes the old one's place in the
	 * transaction that opens the store: then unwrap is not called. */
	const struct csm_root_recovery *recovery;
};
struct csm_root_recovery {
	uint8_t key[32];
	struct csm_bin wrapped;
	/* Its keeper is another device than before. The counter is a new one: whatever it says is taken. Keys of this back
	 * end were in the old one: they are marked as lost. lost may be NULL. */
	bool new_device;
	struct csm_str backend;
	uint64_t *lost;
};

struct csm_store_options {
	const char *dir; /* absolute; 0700, ours */
	size_t map_size;
	uint64_t epoch_interval_s;
	struct csm_root_source root; /* not looked at by csm_store_env_open */
	char *why;                   /* may be NULL: a line that says why opening failed, for the log */
	size_t why_len;
	/* May be NULL: the disk failed in the write that ends a commit. Whether it counts is seen by opening anew, and until
	 * then nothing is read or written: CSM_EUNAVAILABLE. Called by whoever commits, the writer usually; may end the
	 * process: what was not answered then is not lost knowledge but unknown. */
	void (*lost)(void);
	bool keep_journal;           /* LMDB takes what the journal has only when it must (tests) */
	bool no_sodium;              /* OpenSSL's AES even where the CPU suits libsodium's (tests) */
};

/* Opening has two steps, since a back end that keeps the root key recalls its pins first:
 * csm_store_env_open (the environment, its lock against a second process, the schema), then
 * csm_store_root_open. Between them csm_store_recall, csm_store_remember_now, csm_store_mode and
 * csm_store_close may be called; a pin recalled then is checked only by the second step. `why` is
 * written by both. CSM_EBUSY: another process has the store open. */
CSM_MUST int csm_store_env_open(const struct csm_store_options *opt, struct csm_store **ret);
/* The rest of csm_store_open; `why` must live until it succeeds. A failure leaves the store as after csm_store_env_open, to be tried again or closed. */
CSM_MUST int csm_store_root_open(struct csm_store *s, const struct csm_root_source *root);
/* The wrapped root key as it is stored; *len is capacity on entry. Any thread, also between the steps. */
CSM_MUST int csm_store_root_wrapped(struct csm_store *s, uint8_t *p, size_t *len);
/* Is this the root key of the store? CSM_EINVALID: it is not. Any thread, also between the steps. */
CSM_MUST int csm_store_root_check(struct csm_store *s, const uint8_t key[static 32]);
/* The root key mode that the store was made with; NULL: it is new. */
const char *csm_store_mode(const struct csm_store *s);

/* Both steps. Open or make; checks schema, root record, every domain's set hash and the epoch. Returns 0 also when the
 * contents were tampered with: csm_store_locked tells, and only CSM_OP_ACCEPT and reads of status work.
 * CSM_ETAMPERED only when the record of the root key or of the schema is gone or damaged; CSM_EUNSUPPORTED: a
 * newer schema; CSM_EINVALID: another root key, or another mode; CSM_EUNAVAILABLE: the root key's keeper or
 * the counter is away. Starts no thread. */
CSM_MUST int csm_store_open(const struct csm_store_options *opt, struct csm_store **ret);
/* Between the second step of opening and the start: operations with an event are told to this log from now on, durably
 * and before they are committed, and each commit names its last line. `a` lives as long as the store. */
CSM_MUST int csm_store_tell(struct csm_store *s, struct csm_audit *a);
/* Start the writer. After the sandbox is up. */
CSM_MUST int csm_store_start(struct csm_store *s);
/* Answers what is queued, commits, writes the epoch, stops the writer: the counter is not needed any more. What is
 * remembered after it is taken along by csm_store_close. Again, or of NULL: nothing. */
void csm_store_stop(struct csm_store *s);
/* csm_store_stop, then close. */
void csm_store_close(struct csm_store *s);

bool csm_store_locked(const struct csm_store *s);
/* A secret of 32 bytes by name, from the root key: the same for as long as the store has that. CSM_EUNAVAILABLE while the
 * root key is not known. Any thread, once csm_store_root_open has returned or on its thread. */
CSM_MUST int csm_store_node_secret(struct csm_store *s, const char *name, uint8_t out[static 32]);
struct csm_store_stat {
	uint32_t schema;
	uint64_t epoch, used, size;
	bool low_space;
	uint64_t keys, domains, secrets; /* totals */
	uint64_t commits, commit_ops;
	const char *const *damaged; /* "ns:domain", "ns:domain/name", "ns:key", or "root"; count in n_damaged */
	size_t n_damaged;
	const char *const *removed; /* what the last accept had to drop, since it could not be opened */
	size_t n_removed;
}; /* the texts live until the store is closed; at most 64 of each */
void csm_store_stat(struct csm_store *s, struct csm_store_stat *ret);

/* ---- reading: by the thread that owns the reader; all readers go before csm_store_close ---- */
CSM_MUST int csm_reader_new(struct csm_store *s, struct csm_reader **ret);
void csm_reader_free(struct csm_reader *r);
/* A read transaction spans begin..end; slices given out live until end. Secrets are decrypted into
 * buffers of the caller. CSM_ETAMPERED while the store is locked. */
CSM_MUST int csm_reader_begin(struct csm_reader *r);
void csm_reader_end(struct csm_reader *r);

#define CSM_KEY_ID_LEN 16
/* A use that no back end knows: to them the key is for signing. Alone; key.issuer has the rules. */
#define CSM_USE_ISSUER 16u
#define CSM_ISSUER_RULES_MAX 1536u
enum csm_key_origin {
	CSM_KEY_MADE,     /* here */
	CSM_KEY_IMPORTED, /* elsewhere: others may have it */
	CSM_KEY_EXPOSED,  /* and its files told it to everyone who had them */
};
struct csm_key_record {
	uint8_t id[CSM_KEY_ID_LEN]; /* drawn by the store at creation: the same name made anew has another */
	struct csm_str backend;
	enum csm_alg alg;
	unsigned use;
	bool exportable;
	enum csm_key_origin origin;
	struct csm_str protection;
	bool lost;           /* the device that had it is gone; told by csm_store_key_get and _list */
	uint64_t created;    /* seconds since 1970, set by the store when 0 */
	uint64_t signatures; /* from the counter record */
	struct csm_bin spki, pub;
	struct csm_bin tag;  /* its maker's, at most CSM_KEY_TAG_MAX bytes */
	struct csm_bin issuer; /* with CSM_USE_ISSUER: what it may sign, as its maker packed it; at most CSM_ISSUER_RULES_MAX bytes */
	struct csm_bin priv; /* only with want_priv */
};
/* The clear parts (id, backend, alg, use, spki ...) without opening the seal of the private part;
 * `scratch` (secret) is emptied and receives priv when it is wanted. CSM_ENOT_FOUND, CSM_ETAMPERED. Authenticity: the
 * clear parts are associated data of the seal, which is opened only with want_priv. */
CSM_MUST int csm_store_key_get(struct csm_reader *r, struct csm_str ns, struct csm_str name, bool want_priv,
	struct csm_buf *scratch, struct csm_key_record *ret);
/* The names after `after`, in byte order, but those that begin with a dot; calls back until it returns false. */
typedef bool csm_store_key_fn(void *arg, struct csm_str name, const struct csm_key_record *rec);
CSM_MUST int csm_store_key_list(struct csm_reader *r, struct csm_str ns, struct csm_str after,
	csm_store_key_fn *fn, void *arg);

/* A key may have two others beside it, under names that begin with a dot: the one that is to take its place, by
 * CSM_OP_KEY_TURN, and the one whose place it took. They go with it, and no list has them. */
#define CSM_KEY_BESIDE_NAME 48u
enum csm_key_beside { CSM_KEY_NEXT, CSM_KEY_BEFORE };
struct csm_str csm_store_key_beside(struct csm_str name, enum csm_key_beside which, char buf[static CSM_KEY_BESIDE_NAME]);

/* A key's certificate: what CSM_OP_CERT_SET stored for the key of this id, appended to out. CSM_ENOT_FOUND, also for
 * another key of that name. `installed` may be NULL. */
CSM_MUST int csm_store_cert_get(struct csm_reader *r, struct csm_str ns, struct csm_str name,
	const uint8_t id[static CSM_KEY_ID_LEN], struct csm_buf *out, uint64_t *installed);
/* The names after `after`, in byte order; calls back until it returns false. The payload lies in scratch, which is
 * emptied for each. */
typedef bool csm_store_cert_fn(void *arg, struct csm_str name, uint64_t installed, struct csm_bin payload);
CSM_MUST int csm_store_cert_list(struct csm_reader *r, struct csm_str ns, struct csm_str after, struct csm_buf *scratch,
	csm_store_cert_fn *fn, void *arg);

/* The namespaces that there are, in byte order; calls back until it returns false. */
typedef bool csm_store_namespace_fn(void *arg, struct csm_str ns);
CSM_MUST int csm_store_namespace_list(struct csm_reader *r, csm_store_namespace_fn *fn, void *arg);

struct csm_domain_info {
	uint64_t created, secrets;
};
CSM_MUST int csm_store_domain_get(struct csm_reader *r, struct csm_str ns, struct csm_str domain,
	struct csm_domain_info *ret);
typedef bool csm_store_domain_fn(void *arg, struct csm_str name, const struct csm_domain_info *info);
CSM_MUST int csm_store_domain_list(struct csm_reader *r, struct csm_str ns, struct csm_str after,
	csm_store_domain_fn *fn, void *arg);

/* The plain payload (an encoded array of `pair` maps) of a version, 0 the newest, appended to out (a secret
 * buffer). CSM_ENOT_FOUND. */
CSM_MUST int csm_store_secret_get(struct csm_reader *r, struct csm_str ns, struct csm_str domain,
	struct csm_str name, uint64_t version, struct csm_buf *out, uint64_t *version_ret, uint64_t *created);
typedef bool csm_store_secret_fn(void *arg, struct csm_str name, uint64_t version, uint64_t created);
CSM_MUST int csm_store_secret_list(struct csm_reader *r, struct csm_str ns, struct csm_str domain,
	struct csm_str after, csm_store_secret_fn *fn, void *arg);

/* Data bound to this store and namespace, for the methods seal and unseal. The first seal of a namespace
 * that has no record yet is CSM_ENOT_FOUND: commit CSM_OP_NAMESPACE, then repeat. */
CSM_MUST int csm_store_seal(struct csm_reader *r, struct csm_str ns, struct csm_bin context, struct csm_bin in,
	struct csm_buf *out);
CSM_MUST int csm_store_unseal(struct csm_reader *r, struct csm_str ns, struct csm_bin context, struct csm_bin in,
	struct csm_buf *out);

/* The outcome stored for a request_id: 0 when there is one for the same request (its answer is appended),
 * CSM_ECONFLICT for another request, CSM_ENOT_FOUND (also after CSM_REQUEST_ID_TTL_S). Only what was done is
 * stored: a request that was refused is judged anew. `who` is the caller's identity ("uid-1000"), `hash` is
 * BLAKE2b-256 of method and params. */
struct csm_request_id {
	struct csm_str who, id; /* id.p NULL: none */
	uint8_t hash[32];
};
CSM_MUST int csm_store_replay(struct csm_reader *r, const struct csm_request_id *rid, struct csm_buf *answer);

/* ---- writing: queued, committed in groups ---- */
enum csm_op_kind {
	CSM_OP_KEY_CREATE,    /* EEXISTS; makes the namespace's record on demand */
	CSM_OP_KEY_DELETE,    /* ENOT_FOUND; takes its certificate along, and what is beside it */
	CSM_OP_KEY_TURN,      /* the key `turns` gives its place to the next one, key.id, with the certificate `payload`, and is then the
	                       * one before; that which was the one before is deleted. ENOT_FOUND, ECONFLICT */
	CSM_OP_CERT_SET,      /* in place of the one before; ENOT_FOUND: no key of this name with the id key.id */
	CSM_OP_CERT_DELETE,   /* ENOT_FOUND */
	CSM_OP_DOMAIN_CREATE, /* EEXISTS */
	CSM_OP_DOMAIN_DELETE, /* ENOT_FOUND; takes its secrets along */
	CSM_OP_SECRET_SET,    /* ENOT_FOUND: no such domain; ECONFLICT: version is not `expect` */
	CSM_OP_SECRET_DELETE, /* ENOT_FOUND; all versions */
	CSM_OP_NAMESPACE,     /* make the namespace's record if it is not there */
	CSM_OP_ISSUE,         /* an issuer's key is about to sign: `issue`. EEXISTS: its serial number was used; ECONFLICT: the CRL's
	                       * number is smaller than the last, or another key has the name; EBUSY: the rate is used up */
	CSM_OP_COUNTS,        /* fold signature counts in */
	CSM_OP_REMEMBER,      /* a small record (back end pins): name, payload; at most 127 and 65536 bytes */
	CSM_OP_ROOT_KEY,      /* the root key wrapped anew, as its source would unwrap it: payload, at most 4096 bytes */
	CSM_OP_ANCHOR,        /* commit, so that the store names the audit log's last line */
	CSM_OP_EPOCH,         /* raise the epoch now; EUNAVAILABLE: the counter is away and will follow */
	CSM_OP_ACCEPT,        /* accept the store as it is (store.accept); ESTATE when it is not locked */
};
struct csm_count {
	uint8_t id[CSM_KEY_ID_LEN];
	uint64_t add;
};
enum csm_issue_kind { CSM_ISSUE_SERIAL, CSM_ISSUE_CRL, CSM_ISSUE_OTHER };
struct csm_store_issue {
	enum csm_issue_kind kind;
	struct csm_bin number; /* serial or CRL number, big-endian without leading zeros, 1 to 20 bytes; OTHER: none */
	uint64_t rate;         /* most of them in an hour; 0: any */
};
/* The caller owns the op and what it points to until done is called; done runs on the writer's thread, after
 * the commit is durable (or failed), and must only hand the op back to its owner. */
struct csm_store_op {
	enum csm_op_kind kind;
	bool has_expect;                 /* SECRET_SET: `expect` counts */
	struct csm_str ns, name, secret; /* name: key or domain */
	struct csm_key_record key;       /* KEY_CREATE, with priv. KEY_DELETE, CERT_*: just the id of the key that is
	                                  * meant; CSM_ECONFLICT where another one has its name since; zeros: any */
	struct csm_bin payload;          /* SECRET_SET, CERT_SET, KEY_TURN, REMEMBER */
	const uint8_t *turns;            /* KEY_TURN: an id */
	uint64_t expect;                 /* SECRET_SET: the newest version; 0: must not exist */
	const struct csm_count *counts;
	size_t n_counts;
	const struct csm_store_issue *issue; /* ISSUE */
	const struct csm_audit_event *event; /* NULL: not told; CSM_EUNAVAILABLE: it cannot be told, and was not done */
	struct csm_request_id rid;
	struct csm_bin answer;           /* result bytes to store with rid; for SECRET_SET the store writes
	                                  * {version: n} itself */
	void (*done)(struct csm_store_op *op); /* NULL: nobody is told of this one alone */
	void *arg;
	/* results */
	int r;               /* CSM_ECONFLICT for a request_id used for something else */
	bool replayed;       /* the request_id had been done: replay tells its answer */
	uint64_t version;    /* SECRET_SET */
	struct csm_store_op *next; /* the store's */
};
/* CSM_EBUSY when the queue is full, CSM_ETAMPERED when locked (but for ACCEPT), CSM_ESHUTDOWN; then done is not
 * called. Any thread. */
CSM_MUST int csm_store_submit(struct csm_store *s, struct csm_store_op *op);
/* n operations at once, linked by next: one group, as far as they fit into one. They are done in their order, so that the last one's
 * done may speak for all (but for EPOCH and ACCEPT, which come by themselves). All of them are taken, or none. */
CSM_MUST int csm_store_submit_all(struct csm_store *s, struct csm_store_op *first, size_t n);
/* errno of the last failure of this thread in the store, for the log of a CSM_ESYSTEM; 0 if none. */
int csm_store_last_errno(void);
/* CSM_OP_REMEMBER's counterpart: read at open or later; *len is capacity on entry. Any thread. */
CSM_MUST int csm_store_recall(struct csm_store *s, const char *name, uint8_t *p, size_t *len);
/* How many are remembered under names that begin so. Any thread. */
CSM_MUST int csm_store_recall_count(struct csm_store *s, const char *prefix, size_t *ret);
/* How many keys are marked as lost. Any thread. */
CSM_MUST int csm_store_lost(struct csm_store *s, uint64_t *ret);
/* CSM_OP_REMEMBER without waiting, in any state of the store, from any thread: recalled from now on, durable with the
 * second step of opening, or soon by the writer (with a locked store: when it is accepted). */
CSM_MUST int csm_store_remember_now(struct csm_store *s, const char *name, const uint8_t *p, size_t len);

#endif
