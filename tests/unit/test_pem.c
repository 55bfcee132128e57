/* PEM as OpenSSL writes it, at every length. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <openssl/pem.h>
#include "libclient/base/pem.h"

static void test_lengths(void **state)
{
	uint8_t der[300];
	struct csm_buf b;

	(void)state;
	for (size_t i = 0; i < sizeof(der); i++)
		der[i] = (uint8_t)(i * 7 + 1);
	csm_buf_init(&b, 4096, false);
	for (size_t n = 0; n <= sizeof(der); n++) {
		BIO *mem = BIO_new(BIO_s_mem());
		char *want;
		long len;

		assert_true(PEM_write_bio(mem, "A NAME", "", der, (long)n) >= 0);
		len = BIO_get_mem_data(mem, &want);
		csm_buf_reset(&b);
		assert_int_equal(csm_buf_put(&b, "before", 6), 0);
		assert_int_equal(csm_pem_put(&b, "A NAME", der, n), 0);
		assert_int_equal(b.len, 6 + (size_t)len);
		assert_memory_equal(csm_buf_ptr(&b) + 6, want, (size_t)len);
		BIO_free(mem);
	}
	csm_buf_free(&b);
}

static void test_room(void **state)
{
	static const uint8_t der[300];
	struct csm_buf b;

	(void)state;
	csm_buf_init(&b, 300, false);
	assert_int_equal(csm_pem_put(&b, "A NAME", der, sizeof(der)), CSM_ETOO_LARGE);
	csm_buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_room),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
