/* What the parts of the audit log share. */
#ifndef CSM_SVC_AUDIT_INTERNAL_H
#define CSM_SVC_AUDIT_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include "daemon/svc/audit.h"
#include "libclient/base/buf.h"
#include "proto-spec/limits.h"

#define AUDIT_FILE "audit.log"
#define AUDIT_NAME_MAX 64u
#define AUDIT_BATCH 256u /* lines that are made together */

/* ---- places (audit_place.c) ---- */
#define AUDIT_PLACE_MAX 720u
struct csm_audit_place {
	atomic_uint refs;
	uint64_t hash;
	size_t n;
	char text[]; /* members of a JSON object, each with a comma before it; and a NUL */
};
bool audit_place_same(const struct csm_audit_place *a, const struct csm_audit_place *b);

/* ---- counted rows (audit_rows.c) ---- */
#define ROWS_MAX 4096u /* of one table; further ones share a row */
#define ROW_BUCKETS 1024u
struct row {
	const char *method; /* static */
	uid_t uid;
	struct csm_audit_place *place; /* a reference; NULL: none */
	uint64_t n;
	unsigned alone; /* that have lines of their own, and are not in n */
	size_t object_len;
	struct row *next;
	char object[];
};
struct rows {
	struct row *buckets[ROW_BUCKETS];
	size_t n;
};
/* NULL only without memory. */
struct row *rows_get(struct rows *t, const char *method, uid_t uid, struct csm_audit_place *place, struct csm_str object);
uint64_t rows_hash(struct csm_str s);
void rows_merge(struct rows *to, struct rows *from); /* from is empty afterwards */
void rows_swap(struct rows *a, struct rows *b);
void rows_drop_empty(struct rows *t);            /* those that count nothing */
void rows_drop(struct rows *t, size_t buckets); /* those of the first buckets */
void rows_clear(struct rows *t);
void rows_init(void);
struct csm_audit_uses {
	pthread_mutex_t lock; /* of its owner; another thread takes it once a minute */
	struct rows rows;
	struct csm_audit *audit;
	struct csm_audit_uses *next;
};

/* ---- the file (audit_file.c, audit_open.c): all under `file_lock` ---- */
struct log_file {
	int dir, fd;
	bool torn;         /* half a line could not be taken off its end */
	unsigned syncing;  /* threads that sync fd: it stays as long as there is one */
	uint64_t max_size;
	unsigned max_files;
	uint64_t size;     /* bytes of whole lines */
	uint64_t first;    /* number of its first line; 0: there is no file yet */
	uint64_t seq;      /* the last line that was written, in any file */
	uint8_t head[CSM_CHAIN_HASH];
	bool damaged;      /* whole lines behind the last good one */
	bool unsure;       /* a sync failed: the kernel may have dropped what was not synced, and does not say so again */
	bool unnamed;      /* the folder has not been synced since the file was made */
	struct csm_buf loose; /* the file's last bytes, which are not synced, */
	uint64_t loose_at;    /* from this byte on of all that were written; */
	uint64_t kept_at;     /* up to here the store has them, and */
	uint8_t kept_head[CSM_CHAIN_HASH]; /* what follows there goes on behind this */
	struct gone { /* lines that are not there any more, which the next file is to begin with; seq 0: none */
		uint64_t first, seq;
		uint8_t head[CSM_CHAIN_HASH]; /* of line seq */
	} gone;
	uint64_t synced;      /* a line up to which all are */
	uint64_t signed_seq;  /* the last checkpoint */
	time_t signed_at;
	struct csm_buf out;      /* lines that are being made */
	uint64_t out_seq, out_signed;
	uint8_t out_head[CSM_CHAIN_HASH];
};

/* Mending the end of the file at a start (audit_mend.c): `at` is behind line `seq`, up to which all is good. */
struct mend {
	bool begun; /* the place is known */
	bool anew;  /* the file was cut at some place, and is written anew from there */
	uint64_t at, seq;
	uint8_t head[CSM_CHAIN_HASH];
	struct csm_buf rest; /* what stood behind that place */
};

/* Lines that are to be told as not committed; first 0: none. */
struct undone {
	uint64_t first, last;
	const char *why;
};

/* What the line of the start, and that of a break before it, say. */
struct start {
	bool due; /* not written yet */
	bool broken, other; /* other: behind another line than the last one, of this number and hash */
	uint64_t anchor, seq;
	uint8_t prev[CSM_CHAIN_HASH];
	char why[160];
};

/* What the device signed, on its way into the log. */
struct witness {
	bool waiting, asked; /* to be written; somebody is at it */
	uint64_t seq;
	uint8_t head[CSM_CHAIN_HASH], ak[CSM_CHAIN_HASH], sig[CSM_CHAIN_WITNESS_MAX];
	size_t n;
	uint64_t done_seq; /* the number of the last witness's own line; 0: none in this run */
	time_t next;       /* not before */
};

struct csm_audit {
	bool strict;
	pthread_mutex_t sync_lock; /* before file_lock: one syncs at a time, since a failure is told only once */
	pthread_mutex_t file_lock;
	struct log_file f;
	struct csm_audit_signer signer;
	bool has_signer;
	struct mend mend;
	uint64_t restored; /* lines that the store had kept */
	uint64_t gone_first, gone_last; /* lines that were not there at the start; 0: none */
	uint64_t repaired; /* bytes of half a line that were taken off, not told yet */
	struct undone undone; /* not told yet */
	struct start start;

	pthread_mutex_t lock; /* short: what follows */
	pthread_cond_t wake;
	struct witness witness;
	struct csm_audit_wait *head, **tail;
	size_t waiting; /* also those that are being written */
	struct rows denied;
	struct csm_audit_uses *uses;
	struct rows left; /* of those that were freed */
	struct csm_audit_status st;
	uint8_t anchored_head[CSM_CHAIN_HASH];
	uint64_t lost_changes, lost_denied;
	time_t lost_since;
	bool stopping;

	atomic_bool failing;
	atomic_bool unsynced; /* there are lines that only the store holds durably */
	atomic_ullong anchored;
	time_t minute; /* the thread's */
	struct rows counted, refused; /* the thread's: rows of minutes that are over, which wait to be written */
	pthread_t thread;
	bool started, stopped;
};

/* Lines are made one by one, then written together. All under file_lock. */
void log_begin(struct log_file *f);
/* body: the members behind "event" (",\"a\":1" or ""). */
CSM_MUST int log_line(struct log_file *f, const char *event, const char *body);
CSM_MUST int log_event(struct log_file *f, const struct csm_audit_event *e);
CSM_MUST int log_count(struct log_file *f, const char *event, const struct row *w);
CSM_MUST int log_checkpoint(struct log_file *f, const struct csm_audit_signer *s);
/* A whole write or none, with errno; not synced. */
CSM_MUST int log_write(struct log_file *f);
/* All that was written, before it returns: what an earlier sync may have lost is written again. Nobody syncs meanwhile. */
CSM_MUST int log_sync(struct log_file *f);
/* Bytes up to `at` are synced, or the store has them. */
void log_synced(struct log_file *f, uint64_t at);
void log_kept(struct log_file *f, uint64_t at);
/* An empty file; its first line is the caller's to write. */
CSM_MUST int log_create(struct log_file *f);
/* The file is full: the next one, which begins with its own first line. Also makes the first of all. */
CSM_MUST int log_room(struct log_file *f, const struct csm_audit_signer *s);
/* The log continues behind another line than its last: that of number `seq` and this hash. */
CSM_MUST int log_break(struct log_file *f, uint64_t seq, const uint8_t prev[static CSM_CHAIN_HASH], const char *why);

/* The newest rotated file; false if there is none. */
bool log_newest(int dir, char name[static AUDIT_NAME_MAX], uint64_t *first);
/* The end of the chain in a file: the last line that follows from the one before it; seq 0: there is none. */
struct log_end {
	uint64_t first, seq;
	uint64_t valid; /* bytes up to its end */
	uint64_t whole; /* bytes up to the end of the last whole line */
	uint64_t size;
	uint64_t garbage_seq; /* the highest number of lines behind it */
	uint8_t head[CSM_CHAIN_HASH];
};
CSM_MUST int log_find_end(int fd, struct log_end *ret);
/* Is there a line of this number, with this hash? 0, CSM_ENOT_FOUND, CSM_ETAMPERED: another one. */
CSM_MUST int log_find_line(const struct log_file *f, uint64_t seq, const uint8_t hash[static CSM_CHAIN_HASH]);
/* In the file in use: the hash that a line states, and where it ends. CSM_ENOT_FOUND. */
CSM_MUST int log_locate(const struct log_file *f, uint64_t seq, uint8_t hash[static CSM_CHAIN_HASH], uint64_t *end);
bool log_is_event(const struct log_file *f, uint64_t seq, const char *event);
/* What the first line says that it follows. */
CSM_MUST int log_prev(const struct log_file *f, uint8_t prev[static CSM_CHAIN_HASH]);
CSM_MUST int log_open(struct log_file *f, uint64_t *repaired);

/* ---- audit_write.c ---- */
/* Makes lines between log_begin and log_write. */
typedef int audit_make_fn(struct csm_audit *a, void *arg);
/* What was written by one call, and all before it. */
struct audit_written {
	uint64_t first, seq;
	uint64_t at; /* bytes of all that were written */
	uint8_t head[CSM_CHAIN_HASH];
};
/* Written, not synced. keep: gets all lines that are neither synced nor kept, NULL if that is not wanted; sync: it counts as
 * being synced from now on. */
CSM_MUST int audit_append(struct csm_audit *a, audit_make_fn *make, void *arg, struct csm_buf *keep, bool sync,
	struct audit_written *ret);
/* Written and synced when it returns 0. make and ret may be NULL. */
CSM_MUST int audit_put(struct csm_audit *a, audit_make_fn *make, void *arg, struct audit_written *ret);
/* There are lines to be taken back, or the line of the start, which takes back what a crash has left, is not out. */
bool audit_owes(struct csm_audit *a);
/* A witness that waits is written (audit_witness.c). */
void audit_write_witness(struct csm_audit *a);
void audit_durable(struct csm_audit *a, uint64_t seq, const uint8_t *head);
/* Under the lock: events that could not be written. */
void audit_lost(struct csm_audit *a, uint64_t *counter, uint64_t n);

/* Under the file's lock, after the lines of the store were restored: what is behind the line that the store names stays as
 * far as it is a chain. 0 also where that line is not there. */
CSM_MUST int audit_settle(struct csm_audit *a, uint64_t seq, const uint8_t *head);

/* ---- audit_start.c: under file_lock, with what is made ---- */
CSM_MUST int audit_make_break(struct csm_audit *a);
CSM_MUST int audit_make_start(struct csm_audit *a);

/* ---- audit.c, for the end ---- */
CSM_MUST int audit_make_checkpoint(struct csm_audit *a, void *arg);
void audit_serve_waiting(struct csm_audit *a);
void audit_collect(struct csm_audit *a);
void audit_write_counted(struct csm_audit *a);

#endif
