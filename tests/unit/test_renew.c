/* When certificates are asked for, by a clock that the test has in hand: nothing here waits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "daemon/svc/renew.h"

#define DAY 86400u
#define YEAR (365u * DAY)
#define NOW 1800000000u

static uint64_t seed;

/* splitmix64: the same in each run */
static uint64_t draw(void *arg, uint64_t below)
{
	uint64_t z = (seed += 0x9e3779b97f4a7c15u);

	(void)arg;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return (z ^ (z >> 31)) % below;
}

static struct csm_times now;
static struct csm_renew set;
static struct csm_renew_item item;

static void pass(uint64_t seconds)
{
	now.wall_s += seconds;
	now.boot_ms += seconds * 1000u;
}

static int setup(void **state)
{
	(void)state;
	seed = 1;
	now = (struct csm_times){NOW, 5000};
	memset(&item, 0, sizeof(item));
	csm_renew_init(&set, &now, draw, NULL);
	return 0;
}

/* A CA gave one of that life. */
static void give(struct csm_renew_item *i, uint64_t life)
{
	csm_renew_begin(i);
	csm_renew_done(i, &now, csm_renew_at(&set, now.wall_s, now.wall_s + life, 0), now.wall_s, now.wall_s + life);
}

static void add_given(uint64_t life)
{
	csm_renew_add(&set, &item, &now);
	give(&item, life);
}

static void test_due_at_two_thirds(void **state)
{
	(void)state;
	csm_renew_add(&set, &item, &now);
	/* what was never had is due at once */
	assert_ptr_equal(csm_renew_pick(&set, &now, NULL, NULL), &item);
	give(&item, 90 * DAY);
	assert_true(item.renew_at > NOW + 90 * DAY / 3 * 2 - 9 * DAY - 1 && item.renew_at <= NOW + 60 * DAY);
	assert_null(csm_renew_pick(&set, &now, NULL, NULL));
	pass(item.renew_at - NOW - 1);
	csm_renew_tick(&set, &now);
	assert_null(csm_renew_pick(&set, &now, NULL, NULL));
	pass(1);
	assert_ptr_equal(csm_renew_pick(&set, &now, NULL, NULL), &item);
	csm_renew_begin(&item);
	assert_null(csm_renew_pick(&set, &now, NULL, NULL)); /* never twice at once */
	csm_renew_undo(&item);
	assert_ptr_equal(csm_renew_pick(&set, &now, NULL, NULL), &item);
	item.off = true;
	assert_null(csm_renew_pick(&set, &now, NULL, NULL));
	csm_renew_ask(&item);
	assert_ptr_equal(csm_renew_pick(&set, &now, NULL, NULL), &item);
	csm_renew_remove(&set, &item);
	assert_null(csm_renew_pick(&set, &now, NULL, NULL));
}

static void test_lives_of_any_length(void **state)
{
	static const uint64_t lives[] = {0, 1, 2, 9, 10, 300, DAY, YEAR, 1000 * (uint64_t)YEAR};

	(void)state;
	for (size_t i = 0; i < sizeof(lives) / sizeof(lives[0]); i++)
		for (int k = 0; k < 100; k++) {
			uint64_t at = csm_renew_at(&set, NOW, NOW + lives[i], 0);

			assert_true(at >= NOW && at <= NOW + lives[i] / 3 * 2 + 2);
		}
	assert_int_equal(csm_renew_at(&set, NOW, NOW - 1, 0), NOW);
	assert_int_equal(csm_renew_at(&set, NOW, NOW - 1, 90), NOW);
	/* where the profile says so, at another part of it */
	for (int k = 0; k < 100; k++) {
		uint64_t early = csm_renew_at(&set, NOW, NOW + 100 * DAY, 20), late = csm_renew_at(&set, NOW, NOW + 100 * DAY, 90);

		assert_true(early >= NOW + 10 * DAY && early <= NOW + 20 * DAY);
		assert_true(late >= NOW + 80 * DAY && late <= NOW + 90 * DAY);
	}
}

static void test_most_urgent_first(void **state)
{
	struct csm_renew_item a = {.renew_at = NOW, .not_after = NOW + 50}, b = {.renew_at = NOW, .not_after = NOW + 40};

	(void)state;
	csm_renew_add(&set, &a, &now);
	csm_renew_add(&set, &b, &now);
	assert_ptr_equal(csm_renew_pick(&set, &now, NULL, NULL), &b);
	csm_renew_ask(&a);
	assert_ptr_equal(csm_renew_pick(&set, &now, NULL, NULL), &a);
	csm_renew_begin(&a);
	assert_ptr_equal(csm_renew_pick(&set, &now, NULL, NULL), &b);
}

/* Ten thousand machines, enrolled within a second: how many of them come in each hundredth of the time in which they do? */
static void test_a_crowd_comes_apart(void **state)
{
	static struct csm_renew_item crowd[10000];
	const uint64_t life = 90 * DAY, window = life / 10, start = NOW + life / 3 * 2 - window;
	unsigned slice[100] = {0}, n = 0;

	(void)state;
	for (size_t i = 0; i < 10000; i++) {
		crowd[i] = (struct csm_renew_item){0};
		csm_renew_add(&set, &crowd[i], &now);
		give(&crowd[i], life);
	}
	for (size_t i = 0; i < 10000; i++) {
		uint64_t at = (crowd[i].renew_at - start) * 100 / (window + 1);

		assert_true(crowd[i].renew_at >= start && at < 100);
		n += ++slice[at] > 0;
	}
	assert_int_equal(n, 10000);
	for (size_t i = 0; i < 100; i++)
		assert_true(slice[i] <= 200);
}

static void test_repeats_grow_and_are_drawn(void **state)
{
	uint64_t most = 0, differ = 0, last = 0, wait;

	(void)state;
	csm_renew_add(&set, &item, &now);
	for (unsigned i = 0; i < 200; i++) {
		csm_renew_begin(&item);
		csm_renew_failed(&set, &item, &now, 0);
		wait = item.retry_boot_ms - now.boot_ms;
		assert_true(wait >= 1000 && wait <= 3601000);
		assert_true(i > 0 || wait <= 6000);
		assert_int_equal(item.attempts, i + 1);
		assert_int_equal(item.next_try, now.wall_s + (wait + 999) / 1000);
		assert_null(csm_renew_pick(&set, &now, NULL, NULL));
		most = wait > most ? wait : most;
		differ += wait != last;
		last = wait;
		pass(wait / 1000 + 1);
		assert_ptr_equal(csm_renew_pick(&set, &now, NULL, NULL), &item);
	}
	assert_true(most > 1800000 && differ > 190);
	/* asked for, it does not wait */
	csm_renew_begin(&item);
	csm_renew_failed(&set, &item, &now, 0);
	csm_renew_ask(&item);
	assert_ptr_equal(csm_renew_pick(&set, &now, NULL, NULL), &item);
}

static void test_what_the_ca_says_is_kept_to(void **state)
{
	(void)state;
	csm_renew_add(&set, &item, &now);
	csm_renew_begin(&item);
	csm_renew_failed(&set, &item, &now, 7200);
	pass(7199);
	assert_null(csm_renew_pick(&set, &now, NULL, NULL));
	pass(6);
	assert_ptr_equal(csm_renew_pick(&set, &now, NULL, NULL), &item);
	/* but not for ever */
	csm_renew_begin(&item);
	csm_renew_failed(&set, &item, &now, UINT64_MAX);
	pass(DAY + 6);
	assert_ptr_equal(csm_renew_pick(&set, &now, NULL, NULL), &item);
}

/* Time goes by the second; works tells whether the CA does. Returns for how many seconds there was no valid certificate. */
static uint64_t live(uint64_t seconds, uint64_t life, bool works, uint64_t *asked)
{
	uint64_t gap = 0;

	for (uint64_t s = 0; s < seconds; s++) {
		pass(1);
		csm_renew_tick(&set, &now);
		gap += now.wall_s > item.not_after;
		if (csm_renew_pick(&set, &now, NULL, NULL) == NULL)
			continue;
		++*asked;
		if (works) {
			give(&item, life);
		} else {
			csm_renew_begin(&item);
			csm_renew_failed(&set, &item, &now, 0);
		}
	}
	return gap;
}

static void test_five_minutes_for_an_hour(void **state)
{
	uint64_t asked = 0;

	(void)state;
	add_given(300);
	assert_int_equal(live(3600, 300, true, &asked), 0);
	assert_true(asked >= 3600 / 200 && asked <= 3600 / 169);
	/* the CA fails for a minute of it, and still no gap */
	assert_int_equal(live(item.renew_at - now.wall_s, 300, true, &asked), 0);
	assert_int_equal(live(60, 300, false, &asked), 0);
	assert_int_equal(live(300, 300, true, &asked), 0);
}

static void test_thirty_days_without_a_ca(void **state)
{
	uint64_t asked = 0;

	(void)state;
	add_given(10 * DAY);
	live(30 * DAY, 10 * DAY, false, &asked);
	/* not given up, and no flood: it is asked about every half hour */
	assert_true(asked > 500 && asked < 2200);
	asked = 0;
	live(3601, 10 * DAY, true, &asked);
	assert_int_equal(asked, 1);
	assert_true(item.not_after > now.wall_s + 9 * DAY);
	assert_int_equal(item.attempts, 0);
}

static void test_clock_jumps(void **state)
{
	uint64_t asked = 0;

	(void)state;
	/* ten years ahead: due, within a minute; what the CA gives has long expired by this clock */
	add_given(90 * DAY);
	now.wall_s += 10 * YEAR;
	live(61, DAY, false, &asked);
	assert_true(asked >= 1);
	/* and back: again soon, and then all is well */
	live(3 * 3600, DAY, false, &asked);
	now.wall_s -= 10 * YEAR;
	asked = 0;
	live(62, 90 * DAY, true, &asked);
	assert_int_equal(asked, 1);
	assert_int_equal(item.attempts, 0);
	/* ten years back: time goes on all the same */
	now.wall_s -= 10 * YEAR;
	asked = 0;
	live(61 * DAY, DAY, false, &asked);
	assert_true(asked >= 1);
	now.wall_s += 10 * YEAR;
	asked = 0;
	live(62, 90 * DAY, true, &asked);
	assert_int_equal(asked, 1);
	assert_int_equal(live(100, 90 * DAY, true, &asked), 0);
	assert_int_equal(asked, 1);
}

/* A machine whose clock was ten years back at its start. */
static void test_clock_set_after_the_start(void **state)
{
	uint64_t asked = 0;

	(void)state;
	item = (struct csm_renew_item){.renew_at = NOW + 10 * YEAR - DAY, .not_after = NOW + 10 * YEAR + DAY, .life_s = 6 * DAY};
	csm_renew_add(&set, &item, &now);
	live(60, DAY, true, &asked);
	assert_int_equal(asked, 0);
	now.wall_s += 10 * YEAR;
	assert_int_equal(live(62, 6 * DAY, true, &asked), 0);
	assert_int_equal(asked, 1);
}

static void test_sleep_past_the_end(void **state)
{
	uint64_t asked = 0;

	(void)state;
	add_given(DAY);
	pass(3 * DAY); /* both clocks know of sleep */
	live(2, DAY, true, &asked);
	assert_int_equal(asked, 1);
	assert_true(item.not_after > now.wall_s);
}

static void test_kept_over_a_restart(void **state)
{
	(void)state;
	item = (struct csm_renew_item){
		.renew_at = NOW - 10, .not_after = NOW + DAY, .life_s = 3 * DAY, .attempts = 9, .next_try = NOW + 600};
	csm_renew_add(&set, &item, &now);
	assert_null(csm_renew_pick(&set, &now, NULL, NULL));
	pass(601);
	assert_ptr_equal(csm_renew_pick(&set, &now, NULL, NULL), &item);
	/* a next try that lies beyond reason was written under another clock */
	item = (struct csm_renew_item){.renew_at = NOW, .attempts = 1, .next_try = NOW + 10 * YEAR};
	csm_renew_init(&set, &now, draw, NULL);
	csm_renew_add(&set, &item, &now);
	pass(3601);
	assert_ptr_equal(csm_renew_pick(&set, &now, NULL, NULL), &item);
}

static void test_what_waits_for_a_person_is_not_in_vain(void **state)
{
	(void)state;
	item = (struct csm_renew_item){.renew_at = NOW - 10, .not_after = NOW + DAY, .life_s = 3 * DAY};
	csm_renew_add(&set, &item, &now);
	for (int i = 0; i < 100; i++) {
		csm_renew_begin(&item);
		csm_renew_wait(&set, &item, &now, 60);
		assert_int_equal(item.attempts, 0);
		pass(59);
		assert_null(csm_renew_pick(&set, &now, NULL, NULL));
		pass(20);
		assert_ptr_equal(csm_renew_pick(&set, &now, NULL, NULL), &item);
	}
	/* nor does a start anew ask sooner */
	csm_renew_begin(&item);
	csm_renew_wait(&set, &item, &now, 60);
	csm_renew_remove(&set, &item);
	item.retry_boot_ms = 0;
	csm_renew_add(&set, &item, &now);
	assert_null(csm_renew_pick(&set, &now, NULL, NULL));
	pass(80);
	assert_ptr_equal(csm_renew_pick(&set, &now, NULL, NULL), &item);
}

static void test_the_clocks_are_the_machines(void **state)
{
	struct csm_times a, b;

	(void)state;
	csm_times_now(&a);
	csm_times_now(&b);
	assert_true(a.wall_s > 1600000000u && b.wall_s >= a.wall_s && b.boot_ms >= a.boot_ms && a.boot_ms > 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup(f, setup)
	const struct CMUnitTest tests[] = {
		T(test_due_at_two_thirds), T(test_lives_of_any_length), T(test_most_urgent_first), T(test_a_crowd_comes_apart),
		T(test_repeats_grow_and_are_drawn), T(test_what_the_ca_says_is_kept_to), T(test_five_minutes_for_an_hour),
		T(test_thirty_days_without_a_ca), T(test_clock_jumps), T(test_clock_set_after_the_start), T(test_sleep_past_the_end),
		T(test_kept_over_a_restart),
		T(test_what_waits_for_a_person_is_not_in_vain), T(test_the_clocks_are_the_machines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
