#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "libclient/base/hex.h"

static void digits(void **state)
{
	static const char all[] = "0123456789abcdefABCDEF";

	(void)state;
	for (int c = -128; c < 128; c++) {
		const char *at = c != 0 ? strchr(all, c) : NULL;
		int v = at != NULL ? (int)(at - all) : -1;

		assert_int_equal(csm_hex_digit((char)c), v > 15 ? v - 6 : v);
	}
}

static void there_and_back(void **state)
{
	uint8_t bytes[256], back[256];
	char text[2 * sizeof(bytes) + 1];

	(void)state;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)i;
	csm_hex(bytes, sizeof(bytes), text);
	assert_int_equal(strlen(text), 2 * sizeof(bytes));
	assert_int_equal(csm_unhex(csm_str_of(text), back, sizeof(back)), 0);
	assert_memory_equal(bytes, back, sizeof(bytes));
	csm_hex(bytes, 0, text);
	assert_string_equal(text, "");
	assert_int_equal(csm_unhex(CSM_STR(""), back, 0), 0);
}

static void one_way_to_write(void **state)
{
	static const char *const bad[] = {"", "0", "000", "00000", "0G00", "00 0", "AB00", "00aF", "-100", "0x00"};
	uint8_t out[2] = {7, 7};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(csm_unhex(csm_str_of(bad[i]), out, sizeof(out)), CSM_EINVALID);
	assert_true(out[0] == 7 && out[1] == 7);
	assert_int_equal(csm_unhex(CSM_STR("00af"), out, sizeof(out)), 0);
	assert_true(out[0] == 0 && out[1] == 0xaf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(digits),
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(one_way_to_write),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
