/* Buckets that are filled steadily. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "daemon/svc/rates.h"

static void buckets_fill_again(void **state)
{
	struct csm_rates *r;
	unsigned wait = 0;

	(void)state;
	assert_int_equal(csm_rates_new(10, 2, &r), 0);
	assert_int_equal(csm_rates_take(r, "a", 1, 1000, NULL), 0);
	assert_int_equal(csm_rates_take(r, "a", 1, 1000, NULL), 0);
	assert_int_equal(csm_rates_take(r, "a", 1, 1000, &wait), CSM_EBUSY);
	assert_int_equal(wait, 100);
	assert_true(csm_rates_spent(r, "a", 1, 1000));
	assert_int_equal(csm_rates_take(r, "b", 1, 1000, NULL), 0);
	assert_int_equal(csm_rates_take(r, "a", 1, 1099, NULL), CSM_EBUSY);
	assert_int_equal(csm_rates_take(r, "a", 1, 1100, NULL), 0);
	assert_int_equal(csm_rates_take(r, "a", 1, 500, NULL), CSM_EBUSY);
	/* many at once, or none of them */
	assert_int_equal(csm_rates_take_many(r, "c", 1, 1100, 3, NULL), CSM_EBUSY);
	assert_int_equal(csm_rates_take_many(r, "c", 1, 1100, 2, NULL), 0);
	assert_int_equal(csm_rates_take_many(r, "c", 1, 1200, 2, &wait), CSM_EBUSY);
	assert_int_equal(wait, 100);
	assert_int_equal(csm_rates_take_many(r, "c", 1, 1300, 2, NULL), 0);
	/* another rate, from now on */
	csm_rates_set(r, 1, 1);
	assert_int_equal(csm_rates_take(r, "a", 1, 2100, NULL), 0);
	assert_int_equal(csm_rates_take(r, "a", 1, 2600, NULL), CSM_EBUSY);
	assert_int_equal(csm_rates_take(r, "a", 1, 3100, NULL), 0);
	csm_rates_free(r);
}

/* What is told by the time of day goes on when that is set back; what was spent stays spent. */
static void a_clock_set_back_stops_nobody(void **state)
{
	struct csm_rates *r;

	(void)state;
	assert_int_equal(csm_rates_new(1, 1, &r), 0);
	assert_int_equal(csm_rates_take(r, "a", 1, 90000000, NULL), 0);
	assert_int_equal(csm_rates_take(r, "a", 1, 50000000, NULL), CSM_EBUSY);
	assert_int_equal(csm_rates_take(r, "a", 1, 50001000, NULL), 0);
	csm_rates_free(r);
}

/* However many keys come, the table stays as it is, and those who are in it most lately are kept. */
static void many_keys_make_room(void **state)
{
	struct csm_rates *r;

	(void)state;
	assert_int_equal(csm_rates_new(1, 1, &r), 0);
	for (uint32_t i = 0; i < 100000; i++)
		assert_int_equal(csm_rates_take(r, &i, sizeof(i), 1000 + i / 100, NULL), 0);
	for (uint32_t i = 99990; i < 100000; i++)
		assert_int_equal(csm_rates_take(r, &i, sizeof(i), 2000, NULL), CSM_EBUSY);
	csm_rates_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(buckets_fill_again), cmocka_unit_test(a_clock_set_back_stops_nobody),
		cmocka_unit_test(many_keys_make_room)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
