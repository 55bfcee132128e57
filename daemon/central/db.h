/* csm-server's database: certificates, events, tokens, requests that were answered, usage, revocations. Over the engine table
 * of daemon/svc/engine.h (lmdb). Any thread may call anything; a call that writes returns when it is durable; writers that
 * come at the same time share a commit. Conditions are judged inside of the transaction that does the work.
 * Slices in what is told are copies in the caller's pool. Times are seconds since 1970. */
#ifndef CSM_CENTRAL_DB_H
#define CSM_CENTRAL_DB_H

#include "libclient/base/buf.h"
#include "libclient/base/name.h"
#include "libclient/wire/msg.h"

#define DB_SERIAL_MAX 20u
#define DB_TOKEN_ID_LEN 16u

#define DB_KEY_LEN 32u

struct central_db;
struct db_options {
	const char *dir;    /* 0700, ours; made where it is not there */
	size_t map_size;    /* of the file, sparse */
	const uint8_t *key; /* DB_KEY_LEN bytes: each record has a tag under it. Copied */
	unsigned journal_ms; /* csm_engine_options */
	char *why;          /* may be NULL: a line that says why opening failed, for the log */
	size_t why_len;
};
/* CSM_EBUSY: another process has it open; CSM_ETAMPERED: it is another key's, or something else; CSM_EUNSUPPORTED: a newer form.
 * A record that is not what was written makes whatever needs it CSM_ETAMPERED, later too. */
CSM_MUST int db_open(const struct db_options *opt, struct central_db **ret);
/* Nobody uses it any more. NULL is a no-op. */
void db_close(struct central_db *db);
struct db_stat {
	uint64_t used, size; /* bytes */
	bool low_space;      /* nine tenths are used, or the disk is nearly full: told before a write fails */
	bool failed;         /* the disk failed where nobody knows what it holds: all is CSM_EUNAVAILABLE until it is opened anew */
	uint64_t commits, writes;
};
void db_stat(struct central_db *db, struct db_stat *ret);

struct csm;
/* The key of the database in `dir`: kept there, sealed by the csmd beside it; made where there is no database yet. The caller wipes
 * it. CSM_ENOT_FOUND: there is a database and its key is gone; else what csmd says. */
CSM_MUST int db_key_load(struct csm *csm, const char *dir, uint8_t key[static DB_KEY_LEN]);

/* ---- certificates ---- */
enum db_state { DB_VALID, DB_REVOKED }; /* expired is a matter of not_after */
struct db_cert {
	struct csm_bin serial;      /* big-endian, 1 to DB_SERIAL_MAX bytes; unique */
	struct csm_str issuer;      /* its name in server.yaml */
	struct csm_str profile;
	struct csm_str role;        /* "node", "operator", "administrator", or "" for a service's: what it may do here */
	struct csm_str requester;   /* who asked: "token ID", "cert SERIAL", "uid N" */
	struct csm_str node;        /* the node's name, "" where none is known */
	struct csm_str subject;     /* "/O=x/CN=y" */
	const struct csm_str *sans; /* "dns:a" */
	size_t n_sans;
	struct csm_bin spki_sha256; /* 32 bytes */
	uint64_t not_before, not_after, issued;
	enum db_state state;
	uint64_t revoked;
	int reason;                 /* enum csm_reason */
	struct csm_bin renews;      /* the serial that it takes the place of; n 0: none */
	struct csm_bin der;
};
/* By what was asked. */
struct db_payment {
	const uint8_t *token;        /* id: one use of it is spent, if it is still good at `now`; NULL: none */
	struct csm_bin spare;        /* a serial that must not be revoked (the certificate by which was asked); n 0: none */
	uint64_t now;
};
/* What a change rests on beside its own conditions. */
struct db_asked {
	struct csm_bin spare;        /* as in db_issue, all of them */
	struct csm_str idempotency, caller;
	struct csm_bin request_hash;
};
/* Everything that makes an answer true, in one transaction. */
struct db_issue {
	const struct db_cert *cert;
	const uint8_t *token;        /* as in db_payment */
	struct csm_bin spare;
	bool new_node;               /* cert->role is "node": the name must not be another's (db_node_free) */
	const uint8_t *request;      /* id of one that waited, was approved and has paid: the token has only to be there. NULL: none */
	struct csm_str idempotency;  /* key, "" none; kept 24 h */
	struct csm_str caller;       /* under whom */
	struct csm_bin request_hash; /* 32 bytes */
	uint64_t now;
};
/* CSM_EEXISTS: the serial. CSM_EDENIED: the token is spent, expired or gone, or `spare`, or what is renewed, is revoked. CSM_ESTATE:
 * new_node, and the name is taken. CSM_ECONFLICT: the same idempotency key with another request. Nothing has changed then. With *replayed the one before is the answer: its serial is in
 * `serial`, and nothing is written. */
CSM_MUST int db_issue(struct central_db *db, const struct db_issue *in, bool *replayed, struct csm_buf *serial);
/* Several, at most DB_TOGETHER_MAX, stored with one wait: each as db_issue would, as if they came one after the other in this order. */
#define DB_TOGETHER_MAX 16u
struct db_issuing {
	struct db_issue in;
	struct csm_buf *serial;
	/* what came of it */
	int r;
	bool replayed;
};
void db_issue_together(struct central_db *db, struct db_issuing *v, size_t n);
/* Is there an answer to that already? CSM_ENOT_FOUND, CSM_ECONFLICT. */
CSM_MUST int db_replay(struct central_db *db, const struct db_asked *in, uint64_t now, struct csm_buf *outcome);
/* What was done outside of the database was done: `outcome` (at most DB_SERIAL_MAX bytes) is what db_replay tells of it. CSM_EDENIED,
 * CSM_ECONFLICT as db_issue. */
CSM_MUST int db_asked_put(struct central_db *db, const struct db_asked *in, struct csm_bin outcome, uint64_t now);
/* Is a node's name free for who has this key? CSM_ESTATE: another key's certificate with the role "node" bears it and is neither
 * expired nor revoked for good, or a token with the role "node" was made for it that is neither spent nor expired. Small and
 * capital letters are the same. The pool is for what is read. */
CSM_MUST int db_node_free(struct central_db *db, struct csm_str name, struct csm_bin spki_sha256, uint64_t now, struct csm_pool *pool);
CSM_MUST int db_cert_get(struct central_db *db, struct csm_bin serial, struct csm_pool *pool, struct db_cert *ret);
/* The one issued last for the key. CSM_ENOT_FOUND. */
CSM_MUST int db_cert_by_key(struct central_db *db, struct csm_bin spki_sha256, struct csm_pool *pool, struct db_cert *ret);
/* CSM_ENOT_FOUND; CSM_EEXISTS: it is revoked already (a hold may become something else, or be taken back by
 * CSM_REASON_REMOVE_FROM_CRL; CSM_ESTATE: there is no hold to take back). `by` for the event. Has room where all else is
 * CSM_ENO_SPACE. */
CSM_MUST int db_revoke(struct central_db *db, struct csm_bin serial, int reason, uint64_t now, struct csm_str by);
/* The same; CSM_EDENIED: `spare` is revoked; CSM_ECONFLICT: the idempotency key. *replayed: it was done before. */
CSM_MUST int db_revoke_asked(struct central_db *db, struct csm_bin serial, int reason, uint64_t now, struct csm_str by,
	const struct db_asked *asked, bool *replayed);

/* All of them match; "" and 0: not asked. name: a glob for the subject's CN or a SAN without its type; san: one for a SAN with
 * it ("dns:*.a"). */
struct db_filter {
	struct csm_str name, san, node, requester, profile, issuer;
	struct csm_bin serial;
	struct csm_str state; /* "valid", "revoked", "expired" */
	uint64_t expires_before, expires_after, issued_after, now;
};
/* A page in the order of issue, newest first (with expires_before or expires_after in the order of expiry, soonest first), after the
 * cursor ("": the first; CSM_EINVALID: not one of this filter's); *next is "" at the end. Bounded work: a page may be short, or
 * empty, with a cursor to go on. `der` is not told. */
CSM_MUST int db_cert_list(struct central_db *db, const struct db_filter *filter, struct csm_str after, size_t limit,
	struct csm_pool *pool, struct db_cert **ret, size_t *n, struct csm_str *next);

/* What is revoked, of one issuer, not expired before `now`, in order of serial; calls back until it returns false. since: 0, or only
 * what was revoked or taken back in that second or later (taken back: reason CSM_REASON_REMOVE_FROM_CRL). What it is called with
 * lives for that call. */
struct db_revoked {
	struct csm_bin serial;
	uint64_t at;
	int reason;
};
typedef bool db_revoked_fn(void *arg, const struct db_revoked *r);
CSM_MUST int db_revoked_each(struct central_db *db, struct csm_str issuer, uint64_t since, uint64_t now, db_revoked_fn *fn, void *arg);
/* Counts each revocation: whoever made a list from an older one has to make another. */
uint64_t db_revocations(struct central_db *db);

/* ---- tokens ---- */
struct db_token {
	uint8_t id[DB_TOKEN_ID_LEN];
	uint8_t hash[32];            /* SHA-256 of the token */
	const struct csm_str *names; /* it is for these ("dns:a", "cn:a"); n_names 0 with any_name: for what the profile allows */
	size_t n_names;
	bool any_name;
	struct csm_str profile;
	struct csm_str role;         /* of what is issued */
	uint64_t created, expires;
	uint64_t uses, used;
	struct csm_str by;           /* who made it */
};
CSM_MUST int db_token_add(struct central_db *db, const struct db_token *t);
/* The same; as db_revoke_asked. With *replayed the id of the one before is appended to `id`. */
CSM_MUST int db_token_add_asked(struct central_db *db, const struct db_token *t, const struct db_asked *asked, bool *replayed,
	struct csm_buf *id);
/* What nobody knows without the database's key: of a token that can be told again. */
void db_token_secret(const struct central_db *db, const uint8_t id[static DB_TOKEN_ID_LEN], uint8_t ret[static 32]);
/* By the hash of what was shown. CSM_ENOT_FOUND. It may be spent or expired. */
CSM_MUST int db_token_find(struct central_db *db, const uint8_t hash[static 32], struct csm_pool *pool, struct db_token *ret);
/* CSM_ENOT_FOUND: it was withdrawn. */
CSM_MUST int db_token_get(struct central_db *db, const uint8_t id[static DB_TOKEN_ID_LEN], struct csm_pool *pool, struct db_token *ret);
CSM_MUST int db_token_delete(struct central_db *db, const uint8_t id[static DB_TOKEN_ID_LEN], uint64_t now, struct csm_str by);
CSM_MUST int db_token_list(struct central_db *db, struct csm_str after, size_t limit, struct csm_pool *pool, struct db_token **ret,
	size_t *n, struct csm_str *next);

/* ---- requests that wait: for a person's approval, or for another CA ---- */
#define DB_REQUEST_ID_LEN 16u
#define DB_REQUESTS_MAX 1000u     /* open ones, in all */
#define DB_REQUESTS_PER_CALLER 16u
#define DB_REQUEST_WAITS_S (UINT64_C(7) * 86400) /* for a decision, and for who asked to come for what was decided */
#define DB_REQUEST_KEPT_S UINT64_C(600)          /* after it was answered, or a tenth of the certificate's life */
enum db_request_state { DB_WAITING, DB_APPROVED, DB_REFUSED, DB_ISSUED };
struct db_request {
	uint8_t id[DB_REQUEST_ID_LEN];
	enum db_request_state state;
	bool renewal;
	struct csm_str who;       /* under whom it is found again: a node's name, else as requester */
	struct csm_str requester; /* as in db_cert */
	struct csm_str as;        /* the subject of the certificate by which was asked; "" */
	struct csm_str profile, subject;
	const struct csm_str *sans;
	size_t n_sans;
	struct csm_bin csr;       /* DER */
	struct csm_bin renews;    /* as it was asked; n 0 */
	uint64_t ttl, created, expires;
	struct csm_str idempotency;
	uint64_t decided;
	struct csm_str decided_by, reason;
	struct csm_bin serial;    /* DB_ISSUED */
};
/* A new one, DB_WAITING or DB_APPROVED; what it is asked by is paid with it. CSM_EEXISTS: it is there. CSM_EDENIED: as db_issue.
 * CSM_EBUSY: DB_REQUESTS_MAX, or DB_REQUESTS_PER_CALLER of this one, are open. CSM_ECONFLICT: his idempotency key is another one's. */
CSM_MUST int db_request_add(struct central_db *db, const struct db_request *q, const struct db_payment *by);
/* CSM_ENOT_FOUND; also where its time is over. */
CSM_MUST int db_request_get(struct central_db *db, const uint8_t id[static DB_REQUEST_ID_LEN], uint64_t now, struct csm_pool *pool,
	struct db_request *ret);
/* Has he asked for something that is still there? */
CSM_MUST int db_request_any(struct central_db *db, struct csm_str who, bool *ret);
/* DB_APPROVED or DB_REFUSED. CSM_ENOT_FOUND; CSM_ESTATE: it was decided before. */
CSM_MUST int db_request_decide(struct central_db *db, const uint8_t id[static DB_REQUEST_ID_LEN], enum db_request_state state,
	struct csm_str reason, struct csm_str by, uint64_t now);
/* One about which nobody has decided: that it waits (DB_WAITING), or needs nobody (DB_APPROVED), as its profile is now. CSM_ESTATE: it is
 * in neither state, or somebody has decided. */
CSM_MUST int db_request_turn(struct central_db *db, const uint8_t id[static DB_REQUEST_ID_LEN], enum db_request_state state, uint64_t now);
/* In the order in which their times end, after the cursor ("": the first; CSM_EINVALID). state -1: any.
 * Bounded work, as db_cert_list. `csr` is not told. */
CSM_MUST int db_request_list(struct central_db *db, int state, struct csm_str after, size_t limit, uint64_t now, struct csm_pool *pool,
	struct db_request **ret, size_t *n, struct csm_str *next);

/* ---- usage reports ---- */
struct db_usage {
	struct csm_str node, key;   /* "ns:name" there */
	struct csm_bin spki_sha256;
	uint64_t from, to, signatures, last_used;
	struct csm_str program, identity;
};
#define DB_USAGE_KEPT_S (UINT64_C(400) * 86400)
/* The same node, key, period, program and identity again takes the place of what was there. Without a signature there is nothing to
 * keep. What ended DB_USAGE_KEPT_S ago goes when more is told of the same key. */
CSM_MUST int db_usage_put(struct central_db *db, const struct db_usage *u, size_t n, uint64_t now);
/* The key's report that ended last. CSM_ENOT_FOUND. */
CSM_MUST int db_usage_last(struct central_db *db, struct csm_bin spki_sha256, struct csm_pool *pool, struct db_usage *ret);
/* What is told of a key's use from `from` to `to`, whole or in part; in the order of the ends; until it returns false. Slices live for
 * the call. */
typedef bool db_usage_fn(void *arg, const struct db_usage *u);
CSM_MUST int db_usage_each(struct central_db *db, struct csm_bin spki_sha256, uint64_t from, uint64_t to, db_usage_fn *fn, void *arg);

/* ---- small things that have to be durable: issuers' certificates, numbers of CRLs, ... ---- */
/* expect: NULL for whatever is there; n 0: nothing is there; else that. CSM_ECONFLICT. */
CSM_MUST int db_value_put(struct central_db *db, const char *name, struct csm_bin value, const struct csm_bin *expect);
CSM_MUST int db_value_get(struct central_db *db, const char *name, struct csm_buf *ret); /* CSM_ENOT_FOUND */

/* ---- events: what happened to what, by whom; written with the change itself ---- */
struct db_event {
	uint64_t at;
	struct csm_str what, object, by;
};
typedef bool db_event_fn(void *arg, const struct db_event *e);
CSM_MUST int db_event_each(struct central_db *db, uint64_t after, db_event_fn *fn, void *arg);

#endif
