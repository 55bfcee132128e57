/* When certificates are asked for. Time comes in and decisions go out: nothing here reads a clock, waits, or does what is
 * decided. One thread at a time. */
#ifndef CSM_SVC_RENEW_H
#define CSM_SVC_RENEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The one clock: what the wall says, seconds since 1970, and what has passed since the machine started, sleep included. The
 * wall tells what the dates of a certificate mean; only the other one says how much time has gone. */
struct csm_times {
	uint64_t wall_s, boot_ms;
};
void csm_times_now(struct csm_times *ret);

/* One certificate that is wanted; embedded in what it is about. */
struct csm_renew_item {
	uint64_t renew_at, not_after; /* by the wall; 0: there is none yet */
	uint64_t life_s;              /* 0: not known yet */
	uint64_t due_boot_ms;         /* renew_at by the other clock: a wall that was set back delays nothing */
	uint64_t retry_boot_ms;       /* not before; 0: nothing failed */
	uint64_t next_try;            /* the same by the wall, to be told; 0: nothing failed */
	uint32_t attempts;            /* in vain since the last success */
	bool asked;                   /* somebody wants it now */
	bool under_way;
	bool off;                     /* not to be renewed */
	struct csm_renew_item *next, *prev;
};

struct csm_renew {
	struct csm_renew_item *first;
	size_t n;
	struct csm_times seen;
	uint64_t (*random)(void *arg, uint64_t below); /* 0 .. below-1, evenly; below > 0 */
	void *arg;
};

/* A certificate's life is over by so many percent (0: two thirds) at the latest when it is asked for again; by how much before is
 * drawn once for each, over a tenth of the life, so that those who were enrolled together do not come back together. */
uint64_t csm_renew_at(struct csm_renew *s, uint64_t not_before, uint64_t not_after, uint64_t percent);

void csm_renew_init(struct csm_renew *s, const struct csm_times *now, uint64_t (*random)(void *arg, uint64_t below), void *arg);
/* The item says what is known: renew_at, not_after, life_s, attempts and next_try, as they were kept. */
void csm_renew_add(struct csm_renew *s, struct csm_renew_item *item, const struct csm_times *now);
void csm_renew_remove(struct csm_renew *s, struct csm_renew_item *item);
/* Now and then, once a second or so: notices a clock that was set, and has what waits tried again soon. */
void csm_renew_tick(struct csm_renew *s, const struct csm_times *now);
/* The most urgent one that is due, or NULL: asked for, then the one that ends first. may NULL: any of them. */
struct csm_renew_item *csm_renew_pick(const struct csm_renew *s, const struct csm_times *now,
	bool (*may)(const struct csm_renew_item *item, void *arg), void *arg);
bool csm_renew_is_due(const struct csm_renew_item *item, const struct csm_times *now);
/* Somebody asks for it: it is due, whatever failed before. */
void csm_renew_ask(struct csm_renew_item *item);
void csm_renew_begin(struct csm_renew_item *item);
/* The end of an attempt. */
void csm_renew_done(struct csm_renew_item *item, const struct csm_times *now, uint64_t renew_at, uint64_t not_before,
	uint64_t not_after);
/* In vain: again after a time that is drawn from a growing span, and not before retry_after_s. Forever. */
void csm_renew_failed(struct csm_renew *s, struct csm_renew_item *item, const struct csm_times *now, uint64_t retry_after_s);
/* Nothing is wrong, and it takes a while, as an approval does: again after that time and a little more, which does not grow. */
void csm_renew_wait(struct csm_renew *s, struct csm_renew_item *item, const struct csm_times *now, uint64_t retry_after_s);
/* It was not tried at all: due as before. */
void csm_renew_undo(struct csm_renew_item *item);

#endif
