/* The audit log: one JSON object a line, chained by hashes (libclient/base/chain.h), in <dir>/audit.log and, once that is
 * full, in <dir>/audit-<number of its first line>.log. Any thread, unless said otherwise.
 *
 * A `change` is told by the store's writer with its group, and durable with it: the group's commit keeps the lines
 * that are not synced yet, and the file is synced within a second, so that a group waits for one sync only. After a
 * crash the file gets back from the store what it lacks. A `denied` is durable before its answer, up to ten of one
 * uid in a minute and while not too many wait; the rest are one counted line at its end; `use` is counted per uid,
 * place, method, object and minute. */
#ifndef CSM_SVC_AUDIT_H
#define CSM_SVC_AUDIT_H

#include <sys/types.h>
#include "libclient/base/buf.h"
#include "libclient/base/chain.h"
#include "daemon/svc/identity.h"

/* The unit, user unit, pod and container of a process, in the form that lines have, each cut off at 160 characters. Shared. */
struct csm_audit_place;
/* *ret NULL: nothing of this is known. CSM_ENOMEM. */
CSM_MUST int csm_audit_place_new(const struct csm_facts *f, struct csm_audit_place **ret);
struct csm_audit_place *csm_audit_place_ref(struct csm_audit_place *p); /* NULL is no harm */
void csm_audit_place_unref(struct csm_audit_place *p);
/* As in a line: members of a JSON object, each with a comma before it. Of NULL: none. */
const char *csm_audit_place_text(const struct csm_audit_place *p);

enum csm_audit_kind { CSM_AUDIT_CHANGE, CSM_AUDIT_DENIED };
struct csm_audit;
struct csm_audit_event {
	enum csm_audit_kind kind;
	const char *method; /* static */
	uid_t uid;
	pid_t pid;
	struct csm_str object;
	const char *result; /* an error's name, or "ok"; static */
	const struct csm_audit_place *place; /* where pid runs; NULL: not known */
	const char *detail; /* further members in JSON, each behind a comma, CSM_AUDIT_DETAIL bytes at most; NULL: none */
};
#define CSM_AUDIT_DETAIL 192u

struct csm_audit_options {
	const char *dir;
	bool strict;        /* what cannot be told is not done */
	uint64_t max_size;  /* bytes of a file; 0: 64 MiB */
	unsigned max_files; /* the one in use among them; 0: 16 */
};
/* Finds the end of the chain; half a line there is taken off, and told. The first line is written with the first event.
 * CSM_ESYSTEM: the folder or the file cannot be had. Starts no thread. */
CSM_MUST int csm_audit_open(const struct csm_audit_options *opt, struct csm_audit **ret);
/* The thread that writes denials and counted lines. After the sandbox is up. */
CSM_MUST int csm_audit_start(struct csm_audit *a);
/* Writes what is counted, the last line and its checkpoint, ends the thread. While the signer still serves. */
void csm_audit_stop(struct csm_audit *a);
void csm_audit_close(struct csm_audit *a); /* NULL is no harm */

/* Signs for checkpoints, by the node's key; called on the threads that write the log. */
struct csm_audit_signer {
	void *arg;
	uint8_t key[CSM_CHAIN_KEY];
	int (*sign)(void *arg, const uint8_t *p, size_t n, uint8_t signature[static CSM_CHAIN_SIGNATURE]);
};
/* Before it is attached, in the order in which they were kept: what csm_audit_group gave, for the file to have the lines too.
 * When there is no file any more, one begins that names the lines which are gone. CSM_ENOT_FOUND: they do not follow what
 * is in the file. */
CSM_MUST int csm_audit_restore(struct csm_audit *a, struct csm_bin lines);
/* The store is open: compare with the line that its root record names (seq 0: none), tell where they differ, write the
 * line of the start and a checkpoint. */
void csm_audit_attach(struct csm_audit *a, uint64_t seq, const uint8_t head[static CSM_CHAIN_HASH],
	const struct csm_audit_signer *signer);

/* ---- changes: the store's writer ---- */
struct csm_audit_mark {
	uint64_t seq; /* the last durable line */
	uint8_t head[CSM_CHAIN_HASH];
	uint64_t first, last; /* the lines that were written; 0: none */
	bool kept;            /* these are durable when the group is committed */
	uint64_t at;          /* the log's */
};
/* A line for each event. keep NULL: durable when it returns; else *keep gets the hash that they follow and the lines up to
 * the mark that are not, for the commit to hold until csm_audit_synced has come to the mark. CSM_EUNAVAILABLE: they cannot be written, and the mode
 * is strict; otherwise the mark tells how far the log is durable, and the gap is told when it can be written again. */
CSM_MUST int csm_audit_group(struct csm_audit *a, const struct csm_audit_event *events, size_t n, struct csm_buf *keep,
	struct csm_audit_mark *ret);
/* The commit of the lines first to last failed: none of it was done. Told at once, or before anything else that is written; one
 * thread, before its next csm_audit_group. */
void csm_audit_undone(struct csm_audit *a, uint64_t first, uint64_t last, const char *why);
/* The store names the mark's line from now on, and holds what it was given to keep. */
void csm_audit_anchored(struct csm_audit *a, const struct csm_audit_mark *m);
/* ---- witnesses: the device vouches for a line ---- */
/* The last durable line, if it is time that somebody vouches for it: the first one of a run, then after an hour or 1,000
 * lines, then after csm_audit_stop. False: not now. Any thread. */
bool csm_audit_witness_due(struct csm_audit *a, uint64_t *seq, uint8_t head[static CSM_CHAIN_HASH]);
/* It was signed (csm_chain_witness_text): the log's thread writes the line, or the caller's where csm_audit_stop ended that.
 * ak: SHA-256 of the key's public half; n 0: it could not be signed now, and is due again in a minute. */
void csm_audit_witness(struct csm_audit *a, uint64_t seq, const uint8_t head[static CSM_CHAIN_HASH],
	const uint8_t ak[static CSM_CHAIN_HASH], const uint8_t *sig, size_t n);

/* Up to this line nothing needs to be kept. */
uint64_t csm_audit_synced(struct csm_audit *a);
/* Sync what is written, now: csm_audit_synced tells what came of it. Any thread. */
void csm_audit_sync(struct csm_audit *a);
/* There are durable lines that the store does not name yet. */
bool csm_audit_behind(struct csm_audit *a);

/* ---- denials ---- */
/* Is it one too many of this minute, or do too many wait? Then it has been counted, and needs no line of its own. */
bool csm_audit_denied_counted(struct csm_audit *a, uid_t uid);
struct csm_audit_wait {
	struct csm_audit_event event; /* what it points to lives until done */
	int r;                        /* 0, or CSM_EUNAVAILABLE in strict mode: not told, not counted as lost */
	void (*done)(struct csm_audit_wait *w); /* on the log's thread */
	struct csm_audit_wait *next;            /* the log's */
};
/* Write it; done is called when it is durable (or, in normal mode, cannot be). */
void csm_audit_submit(struct csm_audit *a, struct csm_audit_wait *w);

/* ---- uses: counted by one thread, without a lock that others want ---- */
struct csm_audit_uses;
CSM_MUST int csm_audit_uses_new(struct csm_audit *a, struct csm_audit_uses **ret);
/* What it has counted is kept. Before csm_audit_stop. */
void csm_audit_uses_free(struct csm_audit_uses *u);
/* method: static. place may be NULL. */
void csm_audit_use(struct csm_audit_uses *u, const char *method, uid_t uid, struct csm_audit_place *place,
	struct csm_str object);

/* ---- the state of it ---- */
struct csm_audit_status {
	uint64_t seq, anchored; /* the last durable line, and the last one that the store names */
	uint8_t head[CSM_CHAIN_HASH];
	uint64_t lines;         /* written since the start */
	bool failing, broken;   /* cannot be written; was found changed at the start */
	uint64_t gone_first, gone_last; /* lines that were not there at the start; 0: none */
	int error;              /* errno of failing */
	uint64_t lost;          /* events that are not in it, since it fails */
	bool has_key;
	uint8_t key[CSM_CHAIN_KEY];
};
void csm_audit_status(struct csm_audit *a, struct csm_audit_status *ret);
bool csm_audit_failing(struct csm_audit *a);
/* strict, and the last line could not be written: nothing that would have to be told may be done. It is tried again each
 * second. */
bool csm_audit_refuses(struct csm_audit *a);
/* What the thread does when something is due: for programs without it. */
void csm_audit_tick(struct csm_audit *a);

#endif
