#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <pthread.h>
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
		counts_add(c, id_of(key));
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
	counts_add(&c, id_of(7));
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
		counts_add(arg, id_of(i % 100));
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts_by_key),
		cmocka_unit_test(fold_hands_over_all),
		cmocka_unit_test(a_failed_fold_is_counted_again),
		cmocka_unit_test(threads_lose_nothing),
	};

	alarm(60);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
