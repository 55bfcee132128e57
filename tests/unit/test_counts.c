#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/node/counts.h"

#define KEYS 1000u

/* Ids that begin alike share a place in the table. */
static const uint8_t *id_of(unsigned i)
{
	static _Thread_local uint8_t id[CSM_KEY_ID_LEN];

	memset(id, 0, sizeof(id));
	id[0] = (uint8_t)(i % 5);
	memcpy(id + 8, &i, sizeof(i));
	return id;
}

static void add_n(struct counts *c, unsigned key, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		counts_add(c, id_of(key), NULL);
}

static void counts_by_key(void **state)
{
	struct counts c;

	(void)state;
	counts_init(&c);
	assert_int_equal(counts_pending(&c, id_of(1)), 0);
	for (unsigned i = 0; i < KEYS; i++)
		add_n(&c, i, 1 + i % 3);
	for (unsigned i = 0; i < KEYS; i++)
		assert_int_equal(counts_pending(&c, id_of(i)), 1 + i % 3);
	assert_int_equal(counts_pending(&c, id_of(KEYS)), 0);
	counts_free(&c);
}

static void fold_hands_over_all(void **state)
{
	const struct csm_count *got = NULL;
	uint64_t sum = 0;
	struct counts c;
	size_t n = 0;

	(void)state;
	counts_init(&c);
	assert_false(counts_fold(&c, &got, &n));
	for (unsigned i = 0; i < KEYS; i++)
		add_n(&c, i, 2);
	assert_true(counts_fold(&c, &got, &n));
	assert_int_equal(n, KEYS);
	for (size_t i = 0; i < n; i++)
		sum += got[i].add;
	assert_int_equal(sum, 2 * KEYS);
	/* One at a time, and what comes meanwhile is kept for the next. */
	counts_add(&c, id_of(7), NULL);
	assert_false(counts_fold(&c, &got, &n));
	assert_int_equal(counts_pending(&c, id_of(7)), 3);
	counts_folded(&c, true);
	assert_int_equal(counts_pending(&c, id_of(7)), 1);
	assert_int_equal(counts_pending(&c, id_of(8)), 0);
	assert_true(counts_fold(&c, &got, &n));
	assert_int_equal(n, 1);
	assert_int_equal(got[0].add, 1);
	counts_folded(&c, true);
	assert_false(counts_fold(&c, &got, &n));
	counts_free(&c);
}

static void a_failed_fold_is_counted_again(void **state)
{
	const struct csm_count *got = NULL;
	struct counts c;
	size_t n = 0;

	(void)state;
	counts_init(&c);
	add_n(&c, 1, 5);
	add_n(&c, 2, 6);
	assert_true(counts_fold(&c, &got, &n));
	add_n(&c, 2, 10);
	add_n(&c, 3, 1);
	counts_folded(&c, false);
	assert_int_equal(counts_pending(&c, id_of(1)), 5);
	assert_int_equal(counts_pending(&c, id_of(2)), 16);
	assert_int_equal(counts_pending(&c, id_of(3)), 1);
	assert_true(counts_fold(&c, &got, &n));
	assert_int_equal(n, 3);
	/* Freed with a fold on its way: nothing leaks. */
	counts_free(&c);
}

static void *adder(void *arg)
{
	for (unsigned i = 0; i < 20000; i++)
		counts_add(arg, id_of(i % 100), NULL);
	return NULL;
}

static void threads_lose_nothing(void **state)
{
	const struct csm_count *got;
	uint64_t sum = 0;
	pthread_t t[4];
	struct counts c;
	size_t n;

	(void)state;
	counts_init(&c);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, adder, &c), 0);
	for (int i = 0; i < 200; i++) {
		if (counts_fold(&c, &got, &n)) {
			for (size_t k = 0; i % 2 == 0 && k < n; k++)
				sum += got[k].add;
			counts_folded(&c, i % 2 == 0);
		}
		usleep(100);
	}
	for (size_t i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	for (unsigned i = 0; i < 100; i++)
		sum += counts_pending(&c, id_of(i));
	assert_int_equal(sum, 80000);
	counts_free(&c);
}

static void sign_as(struct counts *c, unsigned key, uid_t uid, const char *program, unsigned n)
{
	const struct count_who who = {.uid = uid, .program = program};

	for (unsigned i = 0; i < n; i++)
		counts_add(c, id_of(key), &who);
}

static void users_are_told_once(void **state)
{
	struct csm_facts web = {.unit = (char *)(uintptr_t)"a\"b, c.service", .pod = (char *)(uintptr_t)"p1"};
	struct count_share v[COUNT_SHARES_MAX];
	struct count_who who = {.uid = 33};
	struct counts c;

	(void)state;
	counts_init(&c);
	assert_int_equal(counts_users_take(&c, id_of(1), 9, v), 0); /* nobody is noted */
	assert_int_equal(counts_users_on(&c), 0);
	assert_int_equal(csm_audit_place_new(&web, &who.place), 0);
	counts_add(&c, id_of(1), &who);
	counts_add(&c, id_of(1), NULL);
	counts_add(&c, id_of(1), NULL);
	sign_as(&c, 1, 5, "/usr/bin/\xc3\xa4\n", 3);
	sign_as(&c, 2, 5, NULL, 1);
	assert_int_equal(counts_users_take(&c, id_of(1), 5, v), 2);
	assert_true(v[0].n == 3 && v[0].last_used > 0 && strcmp(v[0].identity, "uid=5") == 0 && strcmp(v[0].program, "/usr/bin/???") == 0);
	assert_true(v[1].n == 2 && strcmp(v[1].identity, "csmd") == 0 && v[1].program[0] == '\0');
	/* what was more than the store has is told later, and once */
	assert_int_equal(counts_users_take(&c, id_of(1), 100, v), 1);
	assert_string_equal(v[0].identity, "uid=33 unit=a\"b,?c.service pod=p1");
	assert_int_equal(counts_users_take(&c, id_of(1), 100, v), 0);
	assert_int_equal(counts_users_take(&c, id_of(2), 100, v), 1);
	csm_audit_place_unref(who.place);
	counts_free(&c);
}

static void users_are_bounded(void **state)
{
	static char program[COUNT_TEXT_MAX + 100];
	struct count_share v[COUNT_SHARES_MAX];
	uint64_t sum = 0;
	struct counts c;

	(void)state;
	counts_init(&c);
	assert_int_equal(counts_users_on(&c), 0);
	memset(program, 'x', sizeof(program) - 1);
	program[0] = '/';
	for (unsigned i = 1; i <= 100; i++)
		sign_as(&c, 1, i, program, i);
	assert_int_equal(counts_users_take(&c, id_of(1), 700, v), COUNT_SHARES_MAX);
	for (unsigned i = 0; i < COUNT_SHARES_MAX; i++) {
		char name[32];

		snprintf(name, sizeof(name), "uid=%u", 100 - i);
		assert_string_equal(v[i].identity, name);
		sum += v[i].n;
	}
	assert_true(strlen(v[0].program) == COUNT_TEXT_MAX && sum == 700);
	for (unsigned i = 0; i < 50000; i++)
		sign_as(&c, 3, i, NULL, 1);
	assert_int_equal(counts_pending(&c, id_of(3)), 50000);
	assert_int_equal(counts_users_take(&c, id_of(3), UINT64_MAX, v), COUNT_SHARES_MAX);
	counts_free(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts_by_key),
		cmocka_unit_test(fold_hands_over_all),
		cmocka_unit_test(a_failed_fold_is_counted_again),
		cmocka_unit_test(threads_lose_nothing),
		cmocka_unit_test(users_are_told_once),
		cmocka_unit_test(users_are_bounded),
	};

	alarm(60);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
