/* The broker process: what its threads share. Made before threads; later written by the main thread only, except where
 * a member says otherwise. */
#ifndef CSM_NODE_BROKER_H
#define CSM_NODE_BROKER_H

#include <stdatomic.h>
#include "daemon/node/admit.h"
#include "daemon/node/control.h"
#include "daemon/node/counts.h"
#include "daemon/node/issuercerts.h"
#include "daemon/node/making.h"
#include "daemon/svc/audit.h"
#include "daemon/svc/backend.h"
#include "daemon/svc/config.h"
#include "daemon/svc/keycache.h"
#include "daemon/svc/sandbox.h"
#include "daemon/svc/store.h"

#define BROKER_LOOPS_MAX 64u
#define BROKER_BACKENDS_MAX 12u /* soft, fake, tpm2, and those in csm-plughost */

enum broker_state { BROKER_STARTING, BROKER_READY, BROKER_LOCKED, BROKER_STOPPING };

struct asks;
struct deliver;
struct changes;
struct enrol;
struct loop;
struct reload_waiter;
struct restore;
struct broker {
	struct csm_config cfg;
	struct setup setup;
	struct csm_buf setup_mem;
	struct csm_sandbox_report sandbox;
	const char *degraded; /* NULL, or why identity is degraded */
	uint64_t started_ms;

	struct csm_backend backends[BROKER_BACKENDS_MAX];
	size_t n_backends;
	struct csm_workq *workers;       /* slow work of parallel back ends */
	struct csm_keycache shared_keys; /* of the workers; locks by itself */
	struct csm_keycache owner_keys[BROKER_BACKENDS_MAX]; /* of one with threads of its own, which alone load and unload */
	struct csm_store *env;           /* the same, from the start on: for what is remembered in the clear */
	_Atomic(struct csm_store *) store; /* NULL until it could be opened */
	char store_why[256];             /* why not, for status; written before state */
	_Atomic enum broker_state state;
	struct csm_audit *audit;         /* locks by itself */
	struct admit admit;              /* locks by itself */
	struct counts counts;            /* locks by itself */
	struct making making;            /* locks by itself */
	struct issuercerts issuercerts;  /* locks by itself */
	struct asks *asks;               /* locks by itself */
	struct deliver *deliver;         /* locks by itself */
	struct changes *changes;         /* of certificates; locks by itself */
	struct enrol *enrol;             /* see enrol.h */

	struct loop *loops[BROKER_LOOPS_MAX];
	unsigned n_loops;

	struct csm_policy *policy; /* in force; each loop holds a reference of its own */
	bool epoch_due;            /* main thread: the store's epoch is to be raised, once the interval is over */
	uint64_t epoch_ms;         /* when it was raised last */
	struct event_base *base;   /* of the main thread */
	struct reload_waiter *reload_waiters;
	uint64_t reload_seq;         /* of the newest waiter */
	struct restore *restore;     /* a recovery that waits for the main thread */
	bool reload_stopped;         /* nobody waits any more */
	pthread_mutex_t reload_lock; /* the four above */
};

const char *broker_state_name(const struct broker *b);
struct csm_backend *broker_backend(struct broker *b, struct csm_str name);
struct csm_backend *broker_preferred(struct broker *b);

/* Somebody waits for a reload of the policy: done is called on the main thread, 0 or CSM_EINVALID with *err. */
struct reload_waiter {
	void (*done)(struct reload_waiter *w, int r, const struct csm_policy_error *err, const struct csm_policy *now);
	uid_t uid; /* who asks, for the audit log; place is borrowed while it waits */
	pid_t pid;
	struct csm_audit_place *place;
	uint64_t seq;
	struct reload_waiter *next;
};
void broker_want_reload(struct broker *b, struct reload_waiter *w); /* any thread */

/* The store was accepted: serve again. Any thread. */
void broker_unlock(struct broker *b);

/* What loops, workers and handlers share, in the order in which it goes: made before there are threads, freed after
 * loop_join. *b is zeroed but for its configuration. */
CSM_MUST int broker_init(struct broker *b, unsigned connections_max);
void broker_free(struct broker *b);

/* The program: descriptors CONTROL_FD and DEVICE_FD are inherited. Returns the exit status. */
int broker_main(void);

#endif
