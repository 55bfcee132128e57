#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "libclient/wire/dec.h"
#include "proto-spec/limits.h"

/* A decoder over a copy without a byte behind it. One at a time. */
static uint8_t *held;

static struct csm_dec over(const void *p, size_t n)
{
	struct csm_dec d;

	free(held);
	held = malloc(n > 0 ? n : 1);
	assert_non_null(held);
	memcpy(held, p, n);
	csm_dec_init(&d, held, n);
	return d;
}
#define OVER(literal) over(literal, sizeof(literal) - 1)

static int drop(void **state)
{
	(void)state;
	free(held);
	held = NULL;
	return 0;
}

struct number {
	const char *bytes;
	size_t n;
	uint64_t v;
};
#define NUMBER(literal, v) {literal, sizeof(literal) - 1, v}

static void test_u64(void **state)
{
	static const struct number good[] = {
		NUMBER("\x00", 0), NUMBER("\x7f", 127), NUMBER("\xcc\x00", 0), NUMBER("\xcc\xff", 255),
		NUMBER("\xcd\x01\x00", 256), NUMBER("\xce\x80\x00\x00\x00", 1u << 31),
		NUMBER("\xcf\xff\xff\xff\xff\xff\xff\xff\xff", UINT64_MAX),
		/* signed forms of numbers that are not negative */
		NUMBER("\xd0\x7f", 127), NUMBER("\xd1\x7f\xff", 32767), NUMBER("\xd2\x00\x00\x00\x05", 5),
		NUMBER("\xd3\x7f\xff\xff\xff\xff\xff\xff\xff", INT64_MAX),
	};
	static const struct number bad[] = {
		NUMBER("", 0), NUMBER("\xff", 0), NUMBER("\xe0", 0), NUMBER("\xd0\x80", 0), NUMBER("\xd1\xff\xff", 0),
		NUMBER("\xd2\x80\x00\x00\x00", 0), NUMBER("\xd3\xff\xff\xff\xff\xff\xff\xff\xff", 0),
		NUMBER("\xcc", 0), NUMBER("\xcd\x01", 0), NUMBER("\xce\x01\x02\x03", 0),
		NUMBER("\xcf\x01\x02\x03\x04\x05\x06\x07", 0), NUMBER("\xc0", 0), NUMBER("\xc2", 0), NUMBER("\xa0", 0),
		NUMBER("\xca\x00\x00\x00\x00", 0), NUMBER("\xc1", 0), NUMBER("\x90", 0), NUMBER("\x80", 0),
	};
	uint64_t v;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct csm_dec d = over(good[i].bytes, good[i].n);

		assert_int_equal(csm_dec_u64(&d, &v), 0);
		assert_int_equal(v, good[i].v);
		assert_int_equal(csm_dec_end(&d), 0);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct csm_dec d = over(bad[i].bytes, bad[i].n);

		v = 77;
		assert_int_equal(csm_dec_u64(&d, &v), CSM_EPROTOCOL);
		assert_int_equal(v, 77);
		assert_ptr_equal(d.p, held);
	}
}

static void test_bool_and_nil(void **state)
{
	struct csm_dec d = OVER("\xc2\xc3\xc0\x01");
	bool b = true;

	(void)state;
	assert_int_equal(csm_dec_nil(&d), CSM_EPROTOCOL);
	assert_int_equal(csm_dec_bool(&d, &b), 0);
	assert_false(b);
	assert_int_equal(csm_dec_bool(&d, &b), 0);
	assert_true(b);
	assert_int_equal(csm_dec_bool(&d, &b), CSM_EPROTOCOL);
	assert_int_equal(csm_dec_nil(&d), 0);
	assert_int_equal(csm_dec_bool(&d, &b), CSM_EPROTOCOL);
	assert_int_equal(csm_dec_end(&d), CSM_EPROTOCOL);
}

static void test_str(void **state)
{
	struct csm_str s = {NULL, 0};
	struct csm_dec d = OVER("\xa0");

	(void)state;
	assert_int_equal(csm_dec_str(&d, &s), 0);
	assert_int_equal(s.n, 0);
	assert_non_null(s.p);
	d = OVER("\xa3"
		 "abc\xd9\x01x\xda\x00\x01y\xdb\x00\x00\x00\x01z");
	assert_int_equal(csm_dec_str(&d, &s), 0);
	assert_true(csm_str_eq(s, "abc"));
	assert_int_equal(csm_dec_str(&d, &s), 0);
	assert_true(csm_str_eq(s, "x"));
	assert_int_equal(csm_dec_str(&d, &s), 0);
	assert_true(csm_str_eq(s, "y"));
	assert_int_equal(csm_dec_str(&d, &s), 0);
	assert_true(csm_str_eq(s, "z"));
	assert_int_equal(csm_dec_end(&d), 0);
	d = OVER("\xa3"
		 "ab");
	assert_int_equal(csm_dec_str(&d, &s), CSM_EPROTOCOL);
	d = OVER("\xdb\xff\xff\xff\xff"
		 "a");
	assert_int_equal(csm_dec_str(&d, &s), CSM_EPROTOCOL);
	d = OVER("\xa2\xc3\x28"); /* not UTF-8 */
	assert_int_equal(csm_dec_str(&d, &s), CSM_EPROTOCOL);
	assert_ptr_equal(d.p, held);
	d = OVER("\xc4\x01x"); /* bin */
	s = CSM_STR("untouched");
	assert_int_equal(csm_dec_str(&d, &s), CSM_EPROTOCOL);
	assert_true(csm_str_eq(s, "untouched"));
}

static void test_bin(void **state)
{
	struct csm_bin b = {NULL, 0};
	struct csm_dec d = OVER("\xc4\x00\xc4\x02\xff\xfe\xc5\x00\x01\x00\xc6\x00\x00\x00\x01\x01");

	(void)state;
	assert_int_equal(csm_dec_bin(&d, &b), 0);
	assert_int_equal(b.n, 0);
	assert_non_null(b.p);
	assert_int_equal(csm_dec_bin(&d, &b), 0);
	assert_memory_equal(b.p, "\xff\xfe", 2);
	assert_int_equal(csm_dec_bin(&d, &b), 0);
	assert_int_equal(csm_dec_bin(&d, &b), 0);
	assert_int_equal(b.p[0], 1);
	assert_int_equal(csm_dec_end(&d), 0);
	d = OVER("\xa1x"); /* str */
	assert_int_equal(csm_dec_bin(&d, &b), CSM_EPROTOCOL);
	d = OVER("\xc4\x02x");
	assert_int_equal(csm_dec_bin(&d, &b), CSM_EPROTOCOL);
	d = OVER("\xc6\x80\x00\x00\x00");
	assert_int_equal(csm_dec_bin(&d, &b), CSM_EPROTOCOL);
}

static void test_counts(void **state)
{
	struct csm_dec d = OVER("\x92\x01\x02");
	uint32_t n = 0;

	(void)state;
	assert_int_equal(csm_dec_map(&d, &n), CSM_EPROTOCOL);
	assert_int_equal(csm_dec_array(&d, &n), 0);
	assert_int_equal(n, 2);
	d = OVER("\x92\x01"); /* more than the bytes could hold */
	assert_int_equal(csm_dec_array(&d, &n), CSM_EPROTOCOL);
	d = OVER("\xdd\xff\xff\xff\xff");
	assert_int_equal(csm_dec_array(&d, &n), CSM_EPROTOCOL);
	d = OVER("\x81\x01\x02");
	assert_int_equal(csm_dec_map(&d, &n), 0);
	assert_int_equal(n, 1);
	d = OVER("\x82\x01\x02\x03");
	assert_int_equal(csm_dec_map(&d, &n), CSM_EPROTOCOL);
	d = OVER("\xdf\x80\x00\x00\x00\x01\x02");
	assert_int_equal(csm_dec_map(&d, &n), CSM_EPROTOCOL);
	d = OVER("\xdc\x00\x00\xdd\x00\x00\x00\x00\xde\x00\x00\xdf\x00\x00\x00\x00");
	assert_int_equal(csm_dec_array(&d, &n), 0);
	assert_int_equal(csm_dec_array(&d, &n), 0);
	assert_int_equal(csm_dec_map(&d, &n), 0);
	assert_int_equal(csm_dec_map(&d, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(csm_dec_end(&d), 0);
}

static void test_skip(void **state)
{
	static const struct number good[] = {
		NUMBER("\x05", 1), NUMBER("\xe0", 1), NUMBER("\xc0", 1), NUMBER("\xc3", 1), NUMBER("\xa2zz", 3),
		NUMBER("\xc4\x01z", 3), NUMBER("\x90", 1), NUMBER("\x80", 1), NUMBER("\x92\x81\x01\x90\xa1q", 6),
		NUMBER("\xd3\x80\x00\x00\x00\x00\x00\x00\x00", 9), NUMBER("\x91\x91\x91\x91\x91\x91\x91\x90", 8),
		NUMBER("\xa2\xc3\x28", 3), /* strings are not looked into */
	};
	static const struct number bad[] = {
		NUMBER("", 0), NUMBER("\x91", 0), NUMBER("\x81\x01", 0), NUMBER("\xa2z", 0), NUMBER("\xc1", 0),
		NUMBER("\xcb\x00\x00\x00\x00\x00\x00\x00\x00", 0), NUMBER("\xd4\x00\x00", 0), NUMBER("\xc7\x00\x00", 0),
		NUMBER("\x91\x91\x91\x91\x91\x91\x91\x91\x90", 0), /* nine deep */
		NUMBER("\xdd\xff\xff\xff\xff\x00", 0), NUMBER("\xdf\xff\xff\xff\xff\x00", 0),
	};
	uint64_t v;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct csm_dec d = over(good[i].bytes, good[i].n);

		assert_int_equal(csm_dec_skip(&d), 0);
		assert_int_equal(d.p - held, good[i].v);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct csm_dec d = over(bad[i].bytes, bad[i].n);

		assert_int_equal(csm_dec_skip(&d), CSM_EPROTOCOL);
		assert_ptr_equal(d.p, held);
	}
	struct csm_dec d = OVER("\x92\x01\x02\x2a");
	assert_int_equal(csm_dec_skip(&d), 0);
	assert_int_equal(csm_dec_u64(&d, &v), 0);
	assert_int_equal(v, 42);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_u64, drop),
		cmocka_unit_test_teardown(test_bool_and_nil, drop),
		cmocka_unit_test_teardown(test_str, drop),
		cmocka_unit_test_teardown(test_bin, drop),
		cmocka_unit_test_teardown(test_counts, drop),
		cmocka_unit_test_teardown(test_skip, drop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
