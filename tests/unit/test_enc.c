/* Both writers, enc.h and put.h, against each other and against msgpack-c's reader. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <msgpack.h>
#include "libclient/wire/enc.h"
#include "libclient/wire/put.h"

static const uint64_t edges[] = {0, 1, 15, 16, 31, 32, 127, 128, 255, 256, 257, 65535, 65536, 65537, 1000000};
static const uint64_t wide[] = {UINT32_MAX - 1, UINT32_MAX, UINT64_C(1) << 32, INT64_MAX, UINT64_C(1) << 63, UINT64_MAX};
#define N(a) (sizeof(a) / sizeof((a)[0]))

static uint8_t put_bytes[1100000], filler[1000000];
static struct csm_buf enc;

/* What put.h wrote, read by msgpack-c; it must be the whole, and the same as enc.h wrote. */
static msgpack_object read_back(const uint8_t *end, msgpack_unpacked *u)
{
	size_t n = (size_t)(end - put_bytes), off = 0;

	assert_int_equal(enc.len, n);
	assert_memory_equal(csm_buf_ptr(&enc), put_bytes, n);
	csm_buf_reset(&enc);
	assert_int_equal(msgpack_unpack_next(u, (const char *)put_bytes, n, &off), MSGPACK_UNPACK_SUCCESS);
	assert_int_equal(off, n);
	return u->data;
}

static void check_number(uint64_t v, msgpack_unpacked *u)
{
	msgpack_object o;

	assert_int_equal(csm_enc_u64(&enc, v), 0);
	assert_int_equal(enc.len, size_u64(v));
	o = read_back(put_u64(put_bytes, v), u);
	assert_int_equal(o.type, MSGPACK_OBJECT_POSITIVE_INTEGER);
	assert_int_equal(o.via.u64, v);
}

static void test_numbers(void **state)
{
	msgpack_unpacked u;

	(void)state;
	msgpack_unpacked_init(&u);
	for (size_t i = 0; i < N(edges); i++)
		check_number(edges[i], &u);
	for (size_t i = 0; i < N(wide); i++)
		check_number(wide[i], &u);
	msgpack_unpacked_destroy(&u);
}

static void test_strings(void **state)
{
	msgpack_unpacked u;
	msgpack_object o;

	(void)state;
	msgpack_unpacked_init(&u);
	for (size_t i = 0; i < N(edges); i++) {
		size_t n = (size_t)edges[i];

		assert_int_equal(csm_enc_str(&enc, (struct csm_str){(const char *)filler, n}), 0);
		assert_int_equal(enc.len, size_str_head(n) + n);
		o = read_back(put_str(put_bytes, (const char *)filler, n), &u);
		assert_int_equal(o.type, MSGPACK_OBJECT_STR);
		assert_int_equal(o.via.str.size, n);
		assert_memory_equal(o.via.str.ptr, filler, n);

		assert_int_equal(csm_enc_bin(&enc, (struct csm_bin){filler, n}), 0);
		assert_int_equal(enc.len, size_bin_head(n) + n);
		o = read_back(put_bin(put_bytes, filler, n), &u);
		assert_int_equal(o.type, MSGPACK_OBJECT_BIN);
		assert_int_equal(o.via.bin.size, n);
		assert_memory_equal(o.via.bin.ptr, filler, n);
	}
	assert_int_equal(csm_enc_str(&enc, csm_str_of(NULL)), 0);
	o = read_back(put_str(put_bytes, NULL, 0), &u);
	assert_int_equal(o.via.str.size, 0);
	msgpack_unpacked_destroy(&u);
}

static void test_counts(void **state)
{
	msgpack_unpacked u;
	msgpack_object o;

	(void)state;
	msgpack_unpacked_init(&u);
	for (size_t i = 0; i < N(edges) && edges[i] <= 65537; i++) {
		size_t n = (size_t)edges[i];
		uint8_t *p = put_array(put_bytes, n);

		assert_int_equal(csm_enc_array(&enc, (uint32_t)n), 0);
		assert_int_equal(enc.len, size_count(n));
		for (size_t j = 0; j < n; j++) {
			*p++ = 0xc0;
			assert_int_equal(csm_enc_nil(&enc), 0);
		}
		o = read_back(p, &u);
		assert_int_equal(o.type, MSGPACK_OBJECT_ARRAY);
		assert_int_equal(o.via.array.size, n);

		p = put_map(put_bytes, n);
		assert_int_equal(csm_enc_map(&enc, (uint32_t)n), 0);
		for (size_t j = 0; j < n; j++) {
			p = put_u64(p, j);
			*p++ = 0xc3;
			assert_int_equal(csm_enc_u64(&enc, j), 0);
			assert_int_equal(csm_enc_bool(&enc, true), 0);
		}
		o = read_back(p, &u);
		assert_int_equal(o.type, MSGPACK_OBJECT_MAP);
		assert_int_equal(o.via.map.size, n);
	}
	msgpack_unpacked_destroy(&u);
}

static void test_bool(void **state)
{
	(void)state;
	assert_int_equal(csm_enc_bool(&enc, false), 0);
	assert_int_equal(csm_enc_bool(&enc, true), 0);
	assert_int_equal(csm_enc_nil(&enc), 0);
	assert_memory_equal(csm_buf_ptr(&enc), "\xc2\xc3\xc0", 3);
	csm_buf_reset(&enc);
}

static void test_full_buffer(void **state)
{
	struct csm_buf small;

	(void)state;
	csm_buf_init(&small, 4, false);
	assert_int_equal(csm_enc_u64(&small, UINT64_MAX), CSM_ETOO_LARGE);
	assert_int_equal(csm_enc_bool(&small, true), 0);
	assert_int_equal(csm_enc_str(&small, CSM_STR("abc")), CSM_ETOO_LARGE);
	csm_buf_free(&small);
	assert_int_equal(csm_enc_str(&enc, (struct csm_str){(const char *)filler, CSM_MESSAGE_MAX + 1}), CSM_ETOO_LARGE);
	assert_int_equal(csm_enc_bin(&enc, (struct csm_bin){filler, CSM_MESSAGE_MAX + 1}), CSM_ETOO_LARGE);
	assert_int_equal(enc.len, 0);
}

static int setup(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(filler); i++)
		filler[i] = (uint8_t)('a' + i % 26);
	csm_buf_init(&enc, sizeof(put_bytes), false);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	csm_buf_free(&enc);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_strings),
		cmocka_unit_test(test_counts),
		cmocka_unit_test(test_bool),
		cmocka_unit_test(test_full_buffer),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
