#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "daemon/central/body.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

struct got {
	struct csm_str text;
	uint64_t number;
	bool flag;
	struct body_strs list;
	json_t *root;
};

static int parse(const char *body, size_t n, struct got *g, char why[static BODY_WHY])
{
	const struct body_field fields[] = {
		{"text", BODY_STR, true, 8, &g->text}, {"number", BODY_U64, false, 100, &g->number},
		{"flag", BODY_BOOL, false, 0, &g->flag}, {"list", BODY_STRS, false, 3, &g->list},
	};

	*g = (struct got){.number = 7};
	why[0] = '\0';
	return body_parse((struct csm_bin){(const uint8_t *)body, n}, fields, N_ELEMS(fields), &g->root, why);
}

static void fields_are_read(void **state)
{
	static const char body[] = "{\"text\":\"12345678\",\"number\":100,\"flag\":true,\"list\":[\"a\",\"bcd\"]}";
	char why[BODY_WHY];
	struct got g;

	(void)state;
	assert_int_equal(parse(body, strlen(body), &g, why), 0);
	assert_true(csm_str_eq(g.text, "12345678") && g.number == 100 && g.flag && g.list.n == 2);
	assert_true(csm_str_eq(g.list.v[1], "bcd"));
	json_decref(g.root);
	/* what is not there stays as it was */
	assert_int_equal(parse("{\"text\":\"\"}", 11, &g, why), 0);
	assert_true(g.text.p != NULL && g.text.n == 0 && g.number == 7 && !g.flag && g.list.n == 0);
	json_decref(g.root);
}

static void what_is_no_such_object_is_refused(void **state)
{
	static const struct {
		const char *body;
		int r;
		const char *says;
	} rows[] = {
		{"", CSM_EINVALID, "text: is missing"},
		{"{}", CSM_EINVALID, "text: is missing"},
		{"[]", CSM_EINVALID, "one JSON object"},
		{"{\"text\":\"a\"", CSM_EINVALID, "one JSON object"},
		{"{\"text\":\"a\"}{}", CSM_EINVALID, "one JSON object"},
		{"{\"text\":\"a\",\"text\":\"b\"}", CSM_EINVALID, "duplicate"},
		{"{\"text\":\"a\\u0000b\"}", CSM_EINVALID, "one JSON object"},
		{"{\"text\":\"a\xff\"}", CSM_EINVALID, "one JSON object"},
		{"{\"text\":null}", CSM_EINVALID, "text: must be a string"},
		{"{\"text\":\"123456789\"}", CSM_ETOO_LARGE, "text: too large"},
		{"{\"text\":\"a\",\"number\":-1}", CSM_EINVALID, "number: must be a number"},
		{"{\"text\":\"a\",\"number\":1.0}", CSM_EINVALID, "number: must be a number"},
		{"{\"text\":\"a\",\"number\":\"1\"}", CSM_EINVALID, "number: must be a number"},
		{"{\"text\":\"a\",\"number\":101}", CSM_ETOO_LARGE, "number: too large"},
		{"{\"text\":\"a\",\"number\":99999999999999999999}", CSM_EINVALID, "one JSON object"},
		{"{\"text\":\"a\",\"flag\":1}", CSM_EINVALID, "flag: must be true or false"},
		{"{\"text\":\"a\",\"list\":\"a\"}", CSM_EINVALID, "list: must be a list"},
		{"{\"text\":\"a\",\"list\":[1]}", CSM_EINVALID, "list: must be a list"},
		{"{\"text\":\"a\",\"list\":[\"abcd\"]}", CSM_ETOO_LARGE, "list: too large"},
		{"{\"text\":\"a\",\"Text\":1}", CSM_EUNSUPPORTED_FIELD, "unknown field 'Text'"},
		{"{\"text\":\"a\",\"\\n<b>\":1}", CSM_EUNSUPPORTED_FIELD, "unknown field '??b?'"},
	};
	char why[BODY_WHY];
	struct got g;

	(void)state;
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		int r = parse(rows[i].body, strlen(rows[i].body), &g, why);

		if (r != rows[i].r || strstr(why, rows[i].says) == NULL)
			fail_msg("%s: %d, \"%s\"", rows[i].body, r, why);
		assert_null(g.root);
	}
}

static void lists_and_depth_are_bounded(void **state)
{
	static char body[400000];
	char why[BODY_WHY];
	struct got g;
	size_t n;

	(void)state;
	n = (size_t)snprintf(body, sizeof(body), "{\"text\":\"a\",\"list\":[");
	for (size_t i = 0; i <= BODY_STRS_MAX; i++)
		n += (size_t)snprintf(body + n, sizeof(body) - n, "%s\"a\"", i > 0 ? "," : "");
	n += (size_t)snprintf(body + n, sizeof(body) - n, "]}");
	assert_int_equal(parse(body, n, &g, why), CSM_ETOO_LARGE);
	memset(body, '[', sizeof(body));
	assert_int_equal(parse(body, sizeof(body), &g, why), CSM_EINVALID);
}

static void hex_is_read_and_written(void **state)
{
	static const uint8_t bytes[] = {0, 0x9f, 0xff};
	uint8_t out[3];
	size_t n = 0;
	json_t *v = body_hex((struct csm_bin){bytes, 3});

	(void)state;
	assert_string_equal(json_string_value(v), "009fff");
	json_decref(v);
	assert_true(body_unhex(CSM_STR("009fFF"), out, 3, &n) && n == 3 && memcmp(out, bytes, 3) == 0);
	assert_false(body_unhex(CSM_STR(""), out, 3, &n));
	assert_false(body_unhex(CSM_STR("0"), out, 3, &n));
	assert_false(body_unhex(CSM_STR("0g"), out, 3, &n));
	assert_false(body_unhex(CSM_STR("00112233"), out, 3, &n));
}

static void values_are_appended(void **state)
{
	struct csm_buf out;

	(void)state;
	csm_buf_init(&out, 16, false);
	assert_int_equal(body_put(&out, json_pack("{s:i}", "a", 1)), 0);
	assert_int_equal(body_put(&out, json_string("b\n")), 0);
	assert_int_equal(out.len, 12);
	assert_memory_equal(csm_buf_ptr(&out), "{\"a\":1}\"b\\n\"", 12);
	assert_int_equal(body_put(&out, json_string("no room")), CSM_ETOO_LARGE);
	assert_int_equal(body_put(&out, NULL), CSM_ENOMEM);
	assert_int_equal(out.len, 12);
	csm_buf_free(&out);
}

/* As jansson writes it, or as another way to say the same. */
int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields_are_read),
		cmocka_unit_test(what_is_no_such_object_is_refused),
		cmocka_unit_test(lists_and_depth_are_bounded),
		cmocka_unit_test(hex_is_read_and_written),
		cmocka_unit_test(values_are_appended),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
