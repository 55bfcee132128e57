/* Event loops: one thread each, with its connections, its read transaction, its loaded keys and its buffers. What
 * stands in struct loop belongs to that thread, but for what the comment of a member says. */
#ifndef CSM_NODE_LOOP_H
#define CSM_NODE_LOOP_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <pthread.h>
#include "daemon/node/broker.h"
#include "daemon/svc/keycache.h"
#include "daemon/svc/store.h"
#include "libclient/wire/msg.h"

struct watch_op;
#define LOOP_SCRATCH (64u * 1024u)

/* Something to do on a loop's thread; embedded in what it is about. */
struct task {
	void (*run)(struct loop *l, struct task *t);
	struct task *next;
};

struct conn;
struct peer;
struct user;
struct loop {
	struct broker *b;
	unsigned index;
	pthread_t thread;
	struct event_base *base;
	uint64_t now_ms; /* monotonic, as of the last wake-up */

	/* mailbox: any thread */
	pthread_mutex_t lock;
	struct task *mail;
	struct task **mail_tail;
	int mail_fd, tick_fd;
	bool stopping; /* under the lock: no more mail is taken */
	struct task stop_task;
	struct event mail_event, tick_event;

	uint8_t *scratch;     /* LOOP_SCRATCH bytes of locked memory: what recvmsg reads into */
	struct csm_buf plain; /* secret: a request's plain values, emptied after it */
	struct csm_buf key;   /* secret: a stored key, emptied at once */
	struct csm_buf spare; /* secret, empty: for the next connection with answers */
	struct csm_buf body;  /* secret: an answer in the making */
	struct csm_pool pool; /* arrays of the request in hand */
	struct csm_reader *reader;
	bool reading, batch_reads;
	struct csm_keycache keys;
	struct csm_policy *policy;
	struct csm_audit_uses *uses; /* counted for the audit log */
	struct conn *conns;   /* all of them */
	struct conn *dirty;   /* with answers to send */
	struct peer *peers;
	struct user *users;   /* who has connections here */
	unsigned n_users;
	struct turns {
		struct user *first, **tail;
	} fresh, turns;       /* those of them who wait for a turn, see fair.h */
	bool turns_first;     /* turns waited while others were served from fresh */
	struct event turn_event;
	uint64_t turn_end_us;
	const struct user *asker; /* who asked last, not to be followed */
	uint64_t contested_ms;    /* when another than the last one asked */
	size_t served;        /* work since the last turn began, see fair.h */
	size_t n_ops;         /* operations that are elsewhere */
	struct gathered {
		size_t n;
		struct op *first, *last, **tail;
	} gathered;           /* those that are to go to the store together */
	struct event submit_event; /* active while there are some */
	struct watches {
		struct watch_op *first; /* see watch.h */
		struct task wake;
		atomic_bool posted;
	} watches;
	struct key_op *halves; /* signatures that were begun here and end here, see keycall.c */
	bool draining;        /* no more requests are read */
	bool batch;           /* scheduled as SCHED_BATCH */
	unsigned mixed;       /* see loop_pace */
	const struct conn *last; /* what was read from last, not to be followed */
	uint64_t drain_until_ms;

	/* statistics: written by the loop, read by any thread */
	atomic_size_t n_conns;
	atomic_ullong requests[CSM_M__COUNT], failed[CSM_M__COUNT];
	atomic_ullong protocol_errors;
	uint64_t log_second; /* rate limit of failure lines */
	unsigned log_lines;
};

CSM_MUST int loop_new(struct broker *b, unsigned index, struct loop **ret);
CSM_MUST int loop_start(struct loop *l);
/* Ask for the end: answers what was accepted, bounded by CSM_SHUTDOWN_MS. Then loop_join. */
void loop_stop(struct loop *l);
void loop_join(struct loop *l);
/* After its end: give back what is others', the store's and the audit log's. It can still be posted to. */
void loop_release(struct loop *l);
/* When no thread is left that could post to it. */
void loop_free(struct loop *l);
/* Any thread. False when the loop has ended: the task was not taken. */
bool loop_post(struct loop *l, struct task *t);
/* The loop's thread, when c has become readable: while several ask, a loop that is not preempted by each client that it
 * wakes answers more of them; a single one is best served by letting it run at once, whoever else is connected. */
void loop_pace(struct loop *l, const struct conn *c);
/* The loop's reader, made when the store is there; NULL until then. */
struct csm_reader *loop_reader(struct loop *l);
/* A read transaction. Requests that came in one piece share one (batch_reads): all that was acknowledged before they
 * were sent is in it, and it is over before more is read from the socket. */
CSM_MUST int loop_begin_read(struct loop *l);
void loop_end_read(struct loop *l);
uint64_t monotonic_ms(void);

#endif
