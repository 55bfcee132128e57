#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "libclient/base/keyref.h"
#include "proto-spec/limits.h"

/* What stands in somebody's file stays good: these bytes never change. */
static const uint8_t vector[] = {
	0x30, 0x42,
	0x0c, 0x11, 'c', 's', 'm', ' ', 'k', 'e', 'y', ' ', 'r', 'e', 'f', 'e', 'r', 'e', 'n', 'c', 'e',
	0x02, 0x01, 0x01,
	0x0c, 0x03, 'w', 'e', 'b',
	0x0c, 0x03, 't', 'l', 's',
	0x04, 0x20,
	0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f,
	0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f,
};

/* From a copy without a byte behind it, so that a read beyond the end is seen. */
static int decode(const uint8_t *p, size_t n)
{
	uint8_t *tight = malloc(n > 0 ? n : 1);
	struct csm_keyref ref;
	int r;

	assert_non_null(tight);
	memcpy(tight, p, n);
	r = csm_keyref_decode(tight, n, &ref);
	free(tight);
	return r;
}

static void example(struct csm_keyref *ref)
{
	*ref = (struct csm_keyref){.ns = CSM_STR("web"), .name = CSM_STR("tls")};
	for (size_t i = 0; i < CSM_KEYREF_HASH; i++)
		ref->hash[i] = (uint8_t)i;
}

static void test_vector(void **state)
{
	uint8_t out[CSM_KEYREF_DER_MAX];
	struct csm_keyref ref, got;
	size_t n;

	(void)state;
	example(&ref);
	assert_int_equal(csm_keyref_encode(&ref, out, &n), 0);
	assert_int_equal(n, sizeof(vector));
	assert_memory_equal(out, vector, n);
	assert_int_equal(csm_keyref_decode(vector, sizeof(vector), &got), 0);
	assert_true(csm_str_eq(got.ns, "web") && csm_str_eq(got.name, "tls"));
	assert_memory_equal(got.hash, ref.hash, CSM_KEYREF_HASH);
}

/* Every length of name, over the place where a length takes a second byte. */
static void test_lengths(void **state)
{
	char ns[CSM_NAMESPACE_MAX + 1], name[CSM_NAME_MAX + 1];
	uint8_t out[CSM_KEYREF_DER_MAX];
	struct csm_keyref ref = {{ns, 1}, {name, 1}, {0}}, got;
	size_t n;

	(void)state;
	memset(ns, 'a', sizeof(ns));
	memset(name, 'k', sizeof(name));
	for (size_t a = 1; a <= CSM_NAMESPACE_MAX; a++) {
		for (size_t b = 1; b <= CSM_NAME_MAX; b++) {
			ref.ns.n = a;
			ref.name.n = b;
			assert_int_equal(csm_keyref_encode(&ref, out, &n), 0);
			assert_true(n <= CSM_KEYREF_DER_MAX);
			assert_int_equal(csm_keyref_decode(out, n, &got), 0);
			assert_int_equal(got.ns.n, a);
			assert_int_equal(got.name.n, b);
		}
	}
	ref.name.n = CSM_NAME_MAX + 1;
	assert_int_equal(csm_keyref_encode(&ref, out, &n), CSM_EINVALID);
	ref.name.n = 1;
	ref.ns.n = CSM_NAMESPACE_MAX + 1;
	assert_int_equal(csm_keyref_encode(&ref, out, &n), CSM_EINVALID);
}

static void test_names_refused(void **state)
{
	static const char *const bad[] = {"", "a:b", "a/b", "-a", ".a", "a*", "\xff", "a\n"};
	uint8_t out[CSM_KEYREF_DER_MAX];
	struct csm_keyref ref;
	size_t n;

	(void)state;
	example(&ref);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ref.name = csm_str_of(bad[i]);
		assert_int_equal(csm_keyref_encode(&ref, out, &n), CSM_EINVALID);
	}
	example(&ref);
	ref.ns = CSM_STR("Web");
	assert_int_equal(csm_keyref_encode(&ref, out, &n), CSM_EINVALID);
	ref.ns = (struct csm_str){NULL, 0};
	assert_int_equal(csm_keyref_encode(&ref, out, &n), CSM_EINVALID);
}

/* Cut off anywhere, or with a byte behind it. */
static void test_cut(void **state)
{
	uint8_t more[sizeof(vector) + 1];

	(void)state;
	for (size_t n = 0; n < sizeof(vector); n++)
		assert_int_equal(decode(vector, n), CSM_EINVALID);
	assert_int_equal(decode(vector, sizeof(vector)), 0);
	memcpy(more, vector, sizeof(vector));
	more[sizeof(vector)] = 0;
	assert_int_equal(decode(more, sizeof(more)), CSM_EINVALID);
	more[1]++;
	assert_int_equal(decode(more, sizeof(more)), CSM_EINVALID);
}

/* Any byte before the hash, changed to any value: refused, or another name of the same length. */
static void test_changed(void **state)
{
	uint8_t copy[sizeof(vector)];
	size_t head = sizeof(vector) - CSM_KEYREF_HASH;

	(void)state;
	for (size_t i = 0; i < head; i++) {
		for (unsigned v = 0; v < 256; v++) {
			struct csm_keyref ref;
			bool in_name = (i >= 26 && i < 29) || (i >= 31 && i < 34);

			memcpy(copy, vector, sizeof(copy));
			copy[i] = (uint8_t)v;
			if (v == vector[i] || (in_name && decode(copy, sizeof(copy)) == 0))
				assert_int_equal(csm_keyref_decode(copy, sizeof(copy), &ref), 0);
			else
				assert_int_equal(decode(copy, sizeof(copy)), CSM_EINVALID);
		}
	}
}

/* Lengths that are right and not in the shortest form. */
static void test_long_forms(void **state)
{
	uint8_t copy[sizeof(vector) + 2];

	(void)state;
	memcpy(copy + 1, vector, sizeof(vector));
	copy[0] = 0x30;
	copy[1] = 0x81;
	copy[2] = vector[1];
	assert_int_equal(decode(copy, sizeof(vector) + 1), CSM_EINVALID);
	memcpy(copy + 2, vector, sizeof(vector));
	copy[0] = 0x30;
	copy[1] = 0x82;
	copy[2] = 0;
	copy[3] = vector[1];
	assert_int_equal(decode(copy, sizeof(vector) + 2), CSM_EINVALID);
	memcpy(copy, vector, sizeof(vector));
	copy[1] = 0x80;
	memset(copy + sizeof(vector), 0, 2);
	assert_int_equal(decode(copy, sizeof(copy)), CSM_EINVALID);
}

static void test_hash(void **state)
{
	static const uint8_t abc[CSM_KEYREF_HASH] = {
		0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
		0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad,
	};
	uint8_t out[CSM_KEYREF_HASH];

	(void)state;
	csm_keyref_hash("abc", 3, out);
	assert_memory_equal(out, abc, sizeof(abc));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vector),
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_names_refused),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_changed),
		cmocka_unit_test(test_long_forms),
		cmocka_unit_test(test_hash),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
