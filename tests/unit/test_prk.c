/* HMAC from cached states and SHA-256, against published values and libsodium's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sodium.h>
#include <string.h>
#include "daemon/svc/prk.h"

static void unhex(const char *hex, uint8_t *out, size_t n)
{
	size_t got = 0;

	assert_int_equal(sodium_hex2bin(out, n, hex, strlen(hex), NULL, &got, NULL), 0);
	assert_int_equal(got, n);
}

/* RFC 4231, case 1: HMAC pads a key with zeros, so 20 bytes and 32 with zeros behind are one key. */
static void test_hmac(void **state)
{
	uint8_t key[PRK_KEY_LEN] = {0}, want[32], got[32];
	struct prk prk;

	(void)state;
	memset(key, 0x0b, 20);
	unhex("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7", want, 32);
	prk_init(&prk, key);
	prk_mac(&prk, (struct part[]){{"Hi ", 3}, {"", 0}, {"There", 5}}, 3, got);
	assert_memory_equal(got, want, 32);
	/* the state is not used up */
	prk_mac(&prk, (struct part[]){{"Hi There", 8}}, 1, got);
	assert_memory_equal(got, want, 32);
	prk_mac(&prk, (struct part[]){{"Hi Where", 8}}, 1, got);
	assert_memory_not_equal(got, want, 32);
}

/* FIPS 180-4: "abc"; in parts, and of nothing. */
static void test_plain(void **state)
{
	uint8_t want[32], got[32];

	(void)state;
	unhex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", want, 32);
	sha256_of("abc", 3, got);
	assert_memory_equal(got, want, 32);
	sha256_parts((struct part[]){{"a", 1}, {"", 0}, {"bc", 2}}, 3, got);
	assert_memory_equal(got, want, 32);
	unhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", want, 32);
	sha256_of(NULL, 0, got);
	assert_memory_equal(got, want, 32);
}

/* At every length up to some blocks. */
static void test_as_libsodium(void **state)
{
	uint8_t key[PRK_KEY_LEN], text[300], want[32], got[32];
	struct prk prk;

	(void)state;
	randombytes_buf(key, sizeof(key));
	randombytes_buf(text, sizeof(text));
	prk_init(&prk, key);
	for (size_t n = 0; n <= sizeof(text); n++) {
		crypto_auth_hmacsha256(want, text, n, key);
		prk_mac(&prk, (struct part[]){{text, n / 3}, {text + n / 3, n - n / 3}}, 2, got);
		assert_memory_equal(got, want, 32);
		crypto_hash_sha256(want, text, n);
		sha256_of(text, n, got);
		assert_memory_equal(got, want, 32);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hmac),
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_as_libsodium),
	};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
