/* Times that people write. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "libclient/base/duration.h"

static void each_unit_is_read(void **state)
{
	static const struct {
		const char *text;
		uint64_t seconds;
	} t[] = {{"0s", 0}, {"90s", 90}, {"4m", 240}, {"4min", 240}, {"12h", 43200}, {"30d", 2592000}, {"2w", 1209600}, {"10y", 315360000}};
	uint64_t v;

	(void)state;
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		assert_int_equal(csm_duration_parse(csm_str_of(t[i].text), UINT64_MAX, &v), 0);
		assert_int_equal(v, t[i].seconds);
	}
}

static void what_is_none_is_refused(void **state)
{
	static const char *const none[] = {"", "s", "90", "-1s", "1 s", "1.5h", "1hour", "1S", "1mi", "0x1s", "1s1"};
	uint64_t v = 7;

	(void)state;
	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
		assert_int_equal(csm_duration_parse(csm_str_of(none[i]), UINT64_MAX, &v), CSM_EINVALID);
	assert_int_equal(csm_duration_parse(CSM_STR("61s"), 60, &v), CSM_ETOO_LARGE);
	assert_int_equal(csm_duration_parse(CSM_STR("18446744073709551615y"), UINT64_MAX, &v), CSM_ETOO_LARGE);
	assert_int_equal(csm_duration_parse(CSM_STR("99999999999999999999s"), UINT64_MAX, &v), CSM_ETOO_LARGE);
	assert_int_equal(v, 7);
	assert_int_equal(csm_duration_parse(CSM_STR("1min"), 60, &v), 0);
}

static void it_is_told_as_it_is_read(void **state)
{
	static const char *const same[] = {"0s", "1s", "90s", "10min", "1h", "36h", "1d", "3650d"};
	char buf[CSM_DURATION_TEXT];
	uint64_t v;

	(void)state;
	for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
		assert_int_equal(csm_duration_parse(csm_str_of(same[i]), UINT64_MAX, &v), 0);
		assert_string_equal(csm_duration_text(v, buf), same[i]);
	}
	assert_string_equal(csm_duration_text(UINT64_MAX, buf), "18446744073709551615s");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_unit_is_read), cmocka_unit_test(what_is_none_is_refused), cmocka_unit_test(it_is_told_as_it_is_read)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
