/* A bounded queue served by threads, fair between users: the queues of all users with work take turns. */
#ifndef CSM_SVC_WORKQ_H
#define CSM_SVC_WORKQ_H

#include <stddef.h>
#include <stdint.h>
#include "libclient/base/err.h"

struct csm_workq;
struct csm_job;

#define CSM_JOBS_MAX 16u /* that are taken together */

/* Jobs that are taken together: a thread takes as many of a kind as wait, in the order of the turns. While as many threads as may are
 * at them they gather, and no other thread is woken for them. Whoever pushes says when he has no more at hand (csm_workq_go), so that
 * what came at the same time is not taken apart; a job never waits for others to come. Of one queue; zero but for the first two, and
 * lives as long as it. */
struct csm_job_kind {
	void (*run)(struct csm_job *const *jobs, size_t n); /* n: 1 to CSM_JOBS_MAX */
	unsigned busy_max;                                  /* threads */
	/* the queue's own: */
	unsigned busy, called; /* called: threads that were woken for it and are not there yet */
	size_t waiting;
};

/* Owned by who pushed it until run is called; run must hand it back by itself. */
struct csm_job {
	void (*run)(struct csm_job *job);
	uint32_t user;             /* whose turn it counts as */
	struct csm_job_kind *kind; /* NULL: by itself, by run */
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
/* After jobs of that kind were pushed, soon: a thread is woken for them. CSM_JOBS_MAX of them do not wait for it. */
void csm_workq_go(struct csm_workq *q, struct csm_job_kind *kind);
/* What was taken is queued once more, not refused for fullness, nor while the queue is being freed: from run alone. CSM_ENOMEM. */
CSM_MUST int csm_workq_push_again(struct csm_workq *q, struct csm_job *job);
/* Push and wait until it ran; counts as the daemon's own and is not refused for fullness. Never from one of
 * the queue's own threads. */
CSM_MUST int csm_workq_call(struct csm_workq *q, void (*fn)(void *arg), void *arg);
size_t csm_workq_depth(struct csm_workq *q);

#endif
