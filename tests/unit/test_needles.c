#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "tests/lib/needles.h"

#define HAY 65536u

/* A secret whose forms were written down by other programs (xxd, base64, python), not by what is tested. */
static const uint8_t secret[32] = {0x1f, 0x83, 0xd9, 0xab, 0xfb, 0x41, 0xbd, 0x6b, 0x5b, 0xe0, 0xcd, 0x19, 0x13, 0x7e, 0x21,
	0x79, 0xf3, 0xbc, 0xc9, 0x08, 0x6a, 0x09, 0xe6, 0x67, 0xbb, 0x67, 0xae, 0x85, 0x84, 0xca, 0xa7, 0x3b};
static const struct planted {
	const char *text;
	enum needle_form form;
} planted[] = {
	{"1f83d9abfb41bd6b5be0cd19137e2179", NEEDLE_HEX},
	{"F3BCC9086A09E667BB67AE8584CAA73B", NEEDLE_HEX_UPPER},
	{"3ba7ca8485ae67bb67e6096a08c9bcf3", NEEDLE_HEX_REVERSED},
	{"79217E1319CDE05B6BBD41FBABD9831F", NEEDLE_HEX_UPPER_REVERSED},
	{"1f:83:d9:ab:fb:41:bd:6b:5b:e0:cd:19:13:7e:21:79", NEEDLE_COLONS},
	{"1F:83:D9:AB:FB:41:BD:6B:5B:E0:CD:19:13:7E:21:79", NEEDLE_COLONS_UPPER},
	/* behind nothing, one byte, two bytes; the second alphabet */
	{"H4PZq/tBvWtb4M0ZE34hefO8yQhqCeZnu2euhYTKpzs=", NEEDLE_BASE64},
	{"AR+D2av7Qb1rW+DNGRN+IXnzvMkIagnmZ7tnroWEyqc7", NEEDLE_BASE64},
	{"AQEfg9mr+0G9a1vgzRkTfiF587zJCGoJ5me7Z66FhMqnOw==", NEEDLE_BASE64},
	{"H4PZq_tBvWtb4M0ZE34hefO8yQhqCeZnu2euhYTKpzs=", NEEDLE_BASE64URL},
	{"AR-D2av7Qb1rW-DNGRN-IXnzvMkIagnmZ7tnroWEyqc7", NEEDLE_BASE64URL},
	{"O6fKhIWuZ7tn5glqCMm88w==", NEEDLE_BASE64_REVERSED},
};

static unsigned seen; /* forms, as bits */
static size_t last_at;

static void on_hit(void *arg, const struct needle_hit *hit)
{
	assert_string_equal(hit->name, "it");
	(void)arg;
	seen |= 1u << hit->form;
	last_at = hit->at;
}

static struct needles *of_secret(void)
{
	struct needles *nd = needles_new();

	assert_non_null(nd);
	assert_true(needles_add(nd, "it", secret, sizeof(secret)));
	assert_true(needles_ready(nd));
	return nd;
}

/* Random bytes with p somewhere in them. */
static size_t plant_and_scan(const struct needles *nd, const void *p, size_t n, size_t at)
{
	static uint8_t hay[HAY];
	uint32_t seed = 7;

	for (size_t i = 0; i < HAY; i++) {
		seed = seed * 1664525u + 1013904223u;
		hay[i] = (uint8_t)(seed >> 24);
	}
	if (n > 0)
		memcpy(hay + at, p, n);
	seen = 0;
	return needles_scan(nd, hay, HAY, on_hit, NULL);
}

static void test_every_window(void **state)
{
	struct needles *nd = of_secret();

	(void)state;
	assert_int_equal(plant_and_scan(nd, "", 0, 0), 0);
	for (size_t at = 0; at + 16 <= sizeof(secret); at++) {
		assert_int_equal(plant_and_scan(nd, secret + at, 16, 1000 + at), 1);
		assert_int_equal(seen, 1u << NEEDLE_RAW);
		assert_int_equal(last_at, 1000 + at);
		/* One byte less is not a window. */
		assert_int_equal(plant_and_scan(nd, secret + at, 15, 1000), 0);
	}
	assert_int_equal(plant_and_scan(nd, secret, sizeof(secret), HAY - sizeof(secret)), 17);
	assert_int_equal(plant_and_scan(nd, secret, sizeof(secret), 0), 17);
	needles_free(nd);
}

static void test_turned(void **state)
{
	struct needles *nd = of_secret();
	uint8_t t[sizeof(secret)];

	(void)state;
	for (size_t i = 0; i < sizeof(t); i++)
		t[i] = secret[sizeof(t) - 1 - i];
	assert_int_equal(plant_and_scan(nd, t, sizeof(t), 77), 17);
	assert_int_equal(seen, 1u << NEEDLE_REVERSED);
	for (size_t i = 0; i < sizeof(t); i++)
		t[i] = secret[i ^ 3];
	assert_int_equal(plant_and_scan(nd, t + 8, 16, 77), 1);
	assert_int_equal(seen, 1u << NEEDLE_SWAP32);
	for (size_t i = 0; i < sizeof(t); i++)
		t[i] = secret[i ^ 7];
	assert_int_equal(plant_and_scan(nd, t, 16, 77), 1);
	assert_int_equal(seen, 1u << NEEDLE_SWAP64);
	for (size_t i = 0; i < sizeof(t); i++)
		t[i] = secret[i] ^ 0x36;
	assert_int_equal(plant_and_scan(nd, t, sizeof(t), 77), 17);
	assert_int_equal(seen, 1u << NEEDLE_IPAD);
	for (size_t i = 0; i < sizeof(t); i++)
		t[i] = secret[i ^ 3] ^ 0x5c;
	assert_int_equal(plant_and_scan(nd, t, sizeof(t), 77), 17);
	assert_int_equal(seen, 1u << NEEDLE_OPAD32);
	needles_free(nd);
}

/* The states after the inner and the outer block of HMAC-SHA-256 with that key, worked out after FIPS 180-4 by a program
 * of its own. */
static void test_states(void **state)
{
	static const struct {
		uint32_t words[8];
		enum needle_form form;
	} known[] = {
		{{0xe177b444, 0x5bf4891e, 0x64b85e7d, 0x51f4fc75, 0xa98f1fbc, 0xad1c57a3, 0x265aeea1, 0xc28e1a3e}, NEEDLE_INNER},
		{{0x7de248bc, 0x5aeb91a6, 0xbe9dbe51, 0x2129dc9f, 0xae3108aa, 0x49cb032d, 0xeddb31c4, 0x4f90b48e}, NEEDLE_OUTER},
	};
	struct needles *nd = of_secret();

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		uint32_t turned[8], other[8];

		for (size_t j = 0; j < 8; j++) {
			turned[j] = __builtin_bswap32(known[i].words[j]);
			other[j] = known[i].words[j] ^ 1;
		}
		assert_int_equal(plant_and_scan(nd, known[i].words, 32, 501), 17);
		assert_int_equal(seen, 1u << known[i].form);
		assert_int_equal(plant_and_scan(nd, turned, 32, 501), 17);
		assert_int_equal(seen, 1u << (known[i].form + 2));
		assert_int_equal(plant_and_scan(nd, other, 32, 501), 0);
	}
	needles_free(nd);
}

static void test_texts(void **state)
{
	struct needles *nd = of_secret();

	(void)state;
	for (size_t i = 0; i < sizeof(planted) / sizeof(planted[0]); i++) {
		assert_true(plant_and_scan(nd, planted[i].text, strlen(planted[i].text), 4000 + i) > 0);
		assert_true(seen & 1u << planted[i].form);
	}
	/* A text of something else. */
	assert_int_equal(plant_and_scan(nd, "1f83d9abfb41bd6b5be0cd19137e217a", 32, 4000), 0);
	needles_free(nd);
}

static void test_short_and_dull(void **state)
{
	struct needles *nd = needles_new();
	uint8_t zero[64] = {0};

	(void)state;
	assert_false(needles_add(nd, "it", secret, NEEDLE_MIN - 1));
	assert_false(needles_add(nd, "it", zero, sizeof(zero)));
	assert_true(needles_add(nd, "it", (const uint8_t *)"pin-4711x", 9));
	assert_true(needles_ready(nd));
	assert_int_equal(plant_and_scan(nd, "pin-4711x", 9, 5), 1);
	assert_int_equal(plant_and_scan(nd, "x1174-nip", 9, 5), 1);
	assert_int_equal(plant_and_scan(nd, "70696e2d3437313178", 18, 5), 1);
	assert_int_equal(plant_and_scan(nd, "pin-4711y", 9, 5), 0);
	needles_free(nd);
	needles_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_window),
		cmocka_unit_test(test_turned),
		cmocka_unit_test(test_states),
		cmocka_unit_test(test_texts),
		cmocka_unit_test(test_short_and_dull),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
