/* Questions to csm-ident, the helper that looks at the programs of peers: which one is it, has it changed? Asked from
 * any loop, sent by the one that has the helper's connection, answered by a callback. The broker never waits. Users, as
 * they are admitted, take turns, and have so few questions with the helper at a time that one who asks much delays the
 * others by those few. */
#ifndef CSM_NODE_ASK_H
#define CSM_NODE_ASK_H

#include <pthread.h>
#include <stdatomic.h>
#include "daemon/node/loop.h"
#include "daemon/svc/identity.h"

#define ASK_MS 5000u         /* then the helper counts as away */
#define ASK_DIGEST_MS 60000u /* a large file takes its time */

#define ASK_SENT_MAX 16u     /* of one user and kind with the helper */
#define ASK_MAX 4096u        /* of one user and kind in all */
#define ASK_BUCKETS 256u

struct ask {
	uint32_t user; /* the number of the slot: whose turn it counts as */
	pid_t pid;
	uid_t uid;
	bool digest;
	void (*done)(struct ask *a); /* once, on any thread; r, why and exe are set */
	int r;                       /* 0, CSM_EDENIED (it cannot be told), CSM_EBUSY, CSM_EUNAVAILABLE, CSM_ESHUTDOWN */
	char why[257];
	struct csm_exe exe;
	/* inside */
	uint64_t id, deadline_ms;
	struct ask_lane *lane;
	struct ask *next;
};

/* A user's questions of one kind, looks or digests: a digest that takes long holds up no look. */
struct ask_lane {
	uint32_t user;
	bool digest, has_turn;
	unsigned n, n_sent;                /* in all; with the helper */
	struct ask *waiting, *last;        /* to be sent, the oldest first */
	struct ask_lane *next, *next_turn; /* of the bucket; of those whose turn it is */
};

struct asks {
	pthread_mutex_t lock; /* what follows, but for the counters */
	struct conn *conn;    /* the helper's; touched on its loop only */
	struct loop *loop;    /* of conn */
	struct task send;
	bool posted, stopped;
	struct ask_lane *lanes[ASK_BUCKETS]; /* by user */
	struct ask_lane *turns, *last_turn;  /* who may send */
	struct ask *sent[ASK_BUCKETS];       /* with the helper, by id */
	uint64_t next_id;
	atomic_ullong asked, refused, hashed, cached, last_us;
	atomic_bool attached;
};

struct asks *asks_new(void); /* ends the process without memory */
/* Nothing waits any more. NULL is a no-op. */
void asks_free(struct asks *a);
/* The ask is the callee's until done. The thread of loop l. */
void asks_put(struct asks *a, struct loop *l, struct ask *ask);
/* The helper's connection is there, or is closing. Its loop's thread. */
void asks_attach(struct asks *a, struct conn *c);
void asks_detach(struct asks *a, struct conn *c);
/* False: there is no such question. The thread of loop l. */
bool asks_answer(struct asks *a, struct loop *l, const struct csm_msg_ident_answer *m);
/* What waited too long is unavailable. Once a second, main thread. */
void asks_tick(struct asks *a, uint64_t now_ms);
/* No more: what waits, and all that comes, is CSM_ESHUTDOWN. */
void asks_stop(struct asks *a);

#endif
