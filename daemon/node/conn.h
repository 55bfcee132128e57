/* A connection: framing, back-pressure, deadlines, answers. Loop thread only. */
#ifndef CSM_NODE_CONN_H
#define CSM_NODE_CONN_H

#include "daemon/node/loop.h"
#include "daemon/node/op.h"
#include "daemon/node/peer.h"
#include "libclient/wire/frame.h"

struct proof; /* see proof.h */
struct look_op; /* a request that waits for a look at the program, see proof.c */
struct connkey;
struct stream; /* a signature in parts, see do_sign.c */

struct conn {
	struct loop *loop;
	int fd;
	enum csm_role role;
	struct peer *peer; /* NULL on descriptors of a fixed role */
	struct admit_slot *slot;
	struct user *user; /* among those of this loop; NULL: not yet */
	struct event read_event, *write_event; /* write_event while output is blocked */
	struct csm_buf in;  /* the beginning of a message, or what waits while answers are not taken */
	struct csm_buf out;
	struct csm_scanner scan; /* how far the first message that is not whole has been looked at */
	size_t need;        /* bytes that the message in `in` has at least */
	size_t buffered;    /* what the slot is charged for `in` */
	uint64_t deadline_ms;     /* 0: none; for the first message, or the rest of one */
	uint64_t out_deadline_ms; /* 0: none; for blocked output */
	struct op *ops;     /* in flight elsewhere */
	size_t n_ops;
	struct stream *streams;
	uint64_t next_stream;
	unsigned n_streams;
	struct issue_list *issues; /* lists that are being signed in parts (do_issue.c) */
	struct connkey *keys;  /* see connkey.h */
	unsigned n_keys;
	struct look_op *in_order; /* steps of signatures in parts, which are judged in the order in which they came */
	uint64_t enrol_job;    /* of csm-enrol: the job that it has; 0: none */
	const struct csm_enrol_profile *enrol_sign; /* for which enrol.sign signs; NULL: for none */
	uint8_t enrol_key[CSM_KEY_ID_LEN];
	struct proof *proof;   /* of the peer's program; NULL before the first nonce */
	uint64_t proof_serial; /* counts the proofs */
	bool reading, closing, served, is_dirty, broken;
	bool eof;      /* nothing more will come */
	bool is_ready; /* waits for a turn */
	bool more;     /* `in` may hold whole messages that wait for a turn */
	struct conn *next, *prev, *next_dirty, *next_ready, *prev_ready;
};

/* Take over a connected socket (also on failure). The slot is the connection's from here on. */
void conn_new(struct loop *l, int fd, enum csm_role role, struct admit_slot *slot);
void conn_drop(struct conn *c);
/* The process behind p is gone. */
void conn_close_peer(struct loop *l, struct peer *p);

/* What is readable, or waits in `in`, within the turn that was begun. The connection may be gone after it. */
void conn_serve(struct conn *c);

/* Answers. Each request gets one; what cannot be encoded becomes an error. */
void conn_result(struct conn *c, uint32_t msgid, const struct csm_msgdef *def, const void *result);
void conn_result_raw(struct conn *c, uint32_t msgid, struct csm_bin result);
/* Room for a result of n bytes, which the caller writes at once, all of them. Not 0: the request has got an error. */
CSM_MUST int conn_result_room(struct conn *c, uint32_t msgid, size_t n, uint8_t **ret);
void conn_error(struct conn *c, uint32_t msgid, int code, const char *message);
/* The error proof_required. */
void conn_proof_required(struct conn *c, uint32_t msgid, struct csm_bin nonce);
/* A notification. On failure nothing was taken. */
CSM_MUST int conn_notify(struct conn *c, const char *method, const struct csm_msgdef *def, const void *params);
/* After the answers so far, close. */
void conn_end(struct conn *c);
/* Send what waits on all connections with answers; go on with requests that waited for room. */
void conn_flush_dirty(struct loop *l);
/* Deadlines, once a second. */
void conn_tick(struct loop *l);

#endif
