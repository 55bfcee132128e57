#include <time.h>
#include "daemon/svc/renew.h"

#define JUMP_MS 30000u              /* clocks that part by more were set */
#define AFTER_JUMP_MS 60000u        /* what is due by it comes within this time */
#define SPAN_MS 5000u               /* of the first repeat; doubles */
#define SPAN_MAX_MS 3600000u
#define SPAN_LEAST_MS 15000u        /* of a short life, a tenth of which is less */
#define FLOOR_MS 1000u
#define RETRY_AFTER_MAX_S 86400u    /* a CA that says more is asked again all the same */

void csm_times_now(struct csm_times *ret)
{
	struct timespec wall, boot;

	clock_gettime(CLOCK_REALTIME, &wall);
	clock_gettime(CLOCK_BOOTTIME, &boot);
	ret->wall_s = wall.tv_sec < 0 ? 0 : (uint64_t)wall.tv_sec;
	ret->boot_ms = (uint64_t)boot.tv_sec * 1000u + (uint64_t)boot.tv_nsec / 1000000u;
}

uint64_t csm_renew_at(struct csm_renew *s, uint64_t not_before, uint64_t not_after, uint64_t percent)
{
	uint64_t life = not_after > not_before ? not_after - not_before : 0;
	uint64_t at = percent == 0 ? life / 3 * 2 + life % 3 * 2 / 3 : life / 100 * percent + life % 100 * percent / 100;
	uint64_t early = life / 10 > 0 ? s->random(s->arg, life / 10 + 1) : 0;

	return not_before + at - (early < at ? early : at);
}

static void set_due(struct csm_renew_item *item, const struct csm_times *now)
{
	uint64_t left = item->renew_at > now->wall_s ? item->renew_at - now->wall_s : 0;

	item->due_boot_ms = left > (UINT64_MAX - now->boot_ms) / 1000u ? UINT64_MAX : now->boot_ms + left * 1000u;
}

static void retry_in(struct csm_renew_item *item, const struct csm_times *now, uint64_t ms)
{
	item->retry_boot_ms = now->boot_ms + ms;
	item->next_try = now->wall_s + (ms + 999u) / 1000u;
}

void csm_renew_init(struct csm_renew *s, const struct csm_times *now, uint64_t (*random)(void *arg, uint64_t below), void *arg)
{
	*s = (struct csm_renew){.seen = *now, .random = random, .arg = arg};
}

void csm_renew_add(struct csm_renew *s, struct csm_renew_item *item, const struct csm_times *now)
{
	uint64_t left = item->next_try > now->wall_s ? item->next_try - now->wall_s : 0;

	set_due(item, now);
	/* What was kept may be from under another clock. */
	if (item->attempts > 0 || item->next_try > 0)
		retry_in(item, now, left < RETRY_AFTER_MAX_S ? left * 1000u : s->random(s->arg, SPAN_MAX_MS));
	item->prev = NULL;
	item->next = s->first;
	if (s->first != NULL)
		s->first->prev = item;
	s->first = item;
	s->n++;
}

void csm_renew_remove(struct csm_renew *s, struct csm_renew_item *item)
{
	if (item->next != NULL)
		item->next->prev = item->prev;
	*(item->prev != NULL ? &item->prev->next : &s->first) = item->next;
	item->next = item->prev = NULL;
	s->n--;
}

bool csm_renew_is_due(const struct csm_renew_item *item, const struct csm_times *now)
{
	if (item->under_way || item->off)
		return false;
	if (item->asked)
		return true;
	if (item->retry_boot_ms > 0)
		return now->boot_ms >= item->retry_boot_ms;
	return now->wall_s >= item->renew_at || now->boot_ms >= item->due_boot_ms;
}

void csm_renew_tick(struct csm_renew *s, const struct csm_times *now)
{
	struct csm_times then = s->seen;
	int64_t wall = ((int64_t)now->wall_s - (int64_t)then.wall_s) * 1000, boot = (int64_t)(now->boot_ms - then.boot_ms);

	s->seen = *now;
	if (wall - boot < JUMP_MS && boot - wall < JUMP_MS)
		return;
	for (struct csm_renew_item *i = s->first; i != NULL; i = i->next) {
		/* What became due by it would come all at once, on each machine that was corrected. */
		if (!i->asked && (i->retry_boot_ms > 0 || csm_renew_is_due(i, now)))
			retry_in(i, now, FLOOR_MS + s->random(s->arg, AFTER_JUMP_MS));
		/* Forward, renew_at has come nearer; backward, what the other clock said stays. */
		else if (wall > boot)
			set_due(i, now);
	}
}

static bool before(const struct csm_renew_item *a, const struct csm_renew_item *b)
{
	return a->asked != b->asked ? a->asked : a->not_after < b->not_after;
}

struct csm_renew_item *csm_renew_pick(const struct csm_renew *s, const struct csm_times *now,
	bool (*may)(const struct csm_renew_item *item, void *arg), void *arg)
{
	struct csm_renew_item *best = NULL;

	for (struct csm_renew_item *i = s->first; i != NULL; i = i->next)
		if (csm_renew_is_due(i, now) && (best == NULL || before(i, best)) && (may == NULL || may(i, arg)))
			best = i;
	return best;
}

void csm_renew_ask(struct csm_renew_item *item)
{
	item->asked = true;
	item->off = false;
}

void csm_renew_begin(struct csm_renew_item *item)
{
	item->under_way = true;
	item->asked = false;
}

void csm_renew_wait(struct csm_renew *s, struct csm_renew_item *item, const struct csm_times *now, uint64_t retry_after_s)
{
	uint64_t wait_s = retry_after_s < RETRY_AFTER_MAX_S ? retry_after_s : RETRY_AFTER_MAX_S;

	item->under_way = false;
	retry_in(item, now, FLOOR_MS + wait_s * 1000u + s->random(s->arg, SPAN_MS));
}

void csm_renew_undo(struct csm_renew_item *item)
{
	item->under_way = false;
	item->asked = true;
}

void csm_renew_done(struct csm_renew_item *item, const struct csm_times *now, uint64_t renew_at, uint64_t not_before,
	uint64_t not_after)
{
	item->under_way = false;
	item->attempts = 0;
	item->retry_boot_ms = item->next_try = 0;
	item->renew_at = renew_at;
	item->not_after = not_after;
	item->life_s = not_after - not_before;
	set_due(item, now);
}

void csm_renew_failed(struct csm_renew *s, struct csm_renew_item *item, const struct csm_times *now, uint64_t retry_after_s)
{
	uint64_t most = SPAN_MAX_MS, span = SPAN_MS, ms;

	if (item->life_s > 0 && item->life_s * 100u < most)
		most = item->life_s * 100u > SPAN_LEAST_MS ? item->life_s * 100u : SPAN_LEAST_MS;
	for (uint32_t i = 0; i < item->attempts && span < most; i++)
		span *= 2;
	ms = FLOOR_MS + s->random(s->arg, span < most ? span : most);
	if (retry_after_s > RETRY_AFTER_MAX_S)
		retry_after_s = RETRY_AFTER_MAX_S;
	if (ms < retry_after_s * 1000u)
		ms = retry_after_s * 1000u + s->random(s->arg, SPAN_MS);
	item->under_way = false;
	if (item->attempts < UINT32_MAX)
		item->attempts++;
	retry_in(item, now, ms);
}
