#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include "libclient/base/err.h"

struct row {
	int code, number;
	const char *name, *text;
	enum csm_error_class class;
};
static const struct row rows[] = {
#define X(sym, num, name, class, http, text) {CSM_E##sym, num, name, text, CSM_CLASS_##class},
#include "proto-spec/errors.def"
#undef X
};
#define N_ROWS (sizeof(rows) / sizeof(rows[0]))

static void test_rows(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_ROWS; i++) {
		assert_int_equal(rows[i].code, rows[i].number);
		assert_string_equal(csm_err_name(rows[i].code), rows[i].name);
		assert_string_equal(csm_err_text(rows[i].code), rows[i].text);
		assert_int_equal(csm_err_class(rows[i].code), rows[i].class);
		assert_int_equal(csm_err_retryable(rows[i].code), rows[i].class == CSM_CLASS_RETRY);
		for (size_t j = 0; j < i; j++) {
			assert_int_not_equal(rows[i].code, rows[j].code);
			assert_string_not_equal(rows[i].name, rows[j].name);
		}
	}
	assert_int_equal(csm_err_class(CSM_EBUSY), CSM_CLASS_RETRY);
	assert_int_equal(csm_err_class(CSM_EDENIED), CSM_CLASS_DENIED);
}

static void test_unknown(void **state)
{
	static const int codes[] = {-1, 26, 99, 105, 100000};

	(void)state;
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		assert_string_equal(csm_err_name(codes[i]), "unknown");
		assert_string_equal(csm_err_text(codes[i]), "unknown");
		assert_int_equal(csm_err_class(codes[i]), CSM_CLASS_FAILED);
		assert_false(csm_err_retryable(codes[i]));
	}
	assert_string_equal(csm_err_name(CSM_OK), "ok");
}

static void test_on_wire(void **state)
{
	(void)state;
	assert_int_equal(csm_err_on_wire(CSM_EDENIED), CSM_EDENIED);
	assert_int_equal(csm_err_on_wire(CSM_EAMBIGUOUS), CSM_EAMBIGUOUS);
	assert_int_equal(csm_err_on_wire(CSM_ENOMEM), CSM_EBUSY);
	assert_int_equal(csm_err_on_wire(CSM_ESYSTEM), CSM_EUNAVAILABLE);
	assert_int_equal(csm_err_on_wire(CSM_EUNREACHABLE), CSM_EINTERNAL);
	assert_int_equal(csm_err_on_wire(0), CSM_EINTERNAL);
	assert_int_equal(csm_err_on_wire(-5), CSM_EINTERNAL);
	assert_int_equal(csm_err_on_wire(77), CSM_EINTERNAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_unknown),
		cmocka_unit_test(test_on_wire),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
