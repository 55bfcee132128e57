/* The store: what it keeps, what it refuses, and that it survives. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include "tests/lib/storefix.h"

static int setup(void **state)
{
	static struct storefix f;

	storefix_init(&f);
	*state = &f;
	return storefix_open(&f);
}

static int teardown(void **state)
{
	storefix_free(*state);
	return 0;
}

static void test_set_get(void **state)
{
	struct storefix *f = *state;
	char v[256];

	assert_int_equal(storefix_set(f, "web", "db", "pw", "one"), CSM_ENOT_FOUND);
	assert_int_equal(storefix_domain(f, "web", "db"), 0);
	assert_int_equal(storefix_domain(f, "web", "db"), CSM_EEXISTS);
	assert_int_equal(storefix_get(f, "web", "db", "pw", 0, v), CSM_ENOT_FOUND);
	assert_int_equal(storefix_set(f, "web", "db", "pw", "one"), 0);
	assert_int_equal(storefix_set(f, "web", "db", "pw", "two"), 0);
	assert_int_equal(storefix_get(f, "web", "db", "pw", 0, v), 0);
	assert_string_equal(v, "two");
	assert_int_equal(storefix_get(f, "web", "db", "pw", 1, v), 0);
	assert_string_equal(v, "one");
	assert_int_equal(storefix_get(f, "web", "db", "pw", 3, v), CSM_ENOT_FOUND);
	storefix_close(f);
	assert_int_equal(storefix_open(f), 0);
	assert_false(csm_store_locked(f->s));
	assert_int_equal(storefix_get(f, "web", "db", "pw", 0, v), 0);
	assert_string_equal(v, "two");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_set_get, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
