/* A bounded queue served by threads, fair between users: the queues of all users with work take turns. */
#ifndef CSM_SVC_WORKQ_H
#define CSM_SVC_WORKQ_H

#include <stddef.h>
#include <stdint.h>
#include "libclient/base/err.h"

struct csm_workq;
/* Owned by who pushed it until run is called; run must hand it back by itself. */
struct csm_job {
	void (*run)(struct csm_job *job);
	uint32_t user; /* whose turn it counts as */
	struct csm_job *next;
};

struct csm_workq_options {
	const char *name; /* of the threads, at most 15 bytes */
	unsigned threads;
	size_t max;          /* jobs waiting in all */
	size_t max_per_user;
	void (*idle)(void *arg); /* called once on a thread when it had nothing to do for idle_ms; or NULL */
	unsigned idle_ms;
	void *arg;
};

CSM_MUST int csm_workq_new(const struct csm_workq_options *opt, struct csm_workq **ret);
/* Runs what is queued, stops the threads, frees. NULL is a no-op. */
void csm_workq_free(struct csm_workq *q);
/* CSM_EBUSY when full, CSM_ESHUTDOWN when being freed: the job was not taken. Any thread. */
CSM_MUST int csm_workq_push(struct csm_workq *q, struct csm_job *job);
/* Push and wait until it ran; counts as the daemon's own and is not refused for fullness. Never from one of
 * the queue's own threads. */
CSM_MUST int csm_workq_call(struct csm_workq *q, void (*fn)(void *arg), void *arg);
size_t csm_workq_depth(struct csm_workq *q);

#endif
