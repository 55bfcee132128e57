#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>
#include "libclient/base/name.h"
#include "proto-spec/limits.h"

/* A copy without a byte behind it, so that a read beyond the end is seen. */
static struct csm_str tight(const char *s, size_t n)
{
	char *p = malloc(n > 0 ? n : 1);

	assert_non_null(p);
	memcpy(p, s, n);
	return (struct csm_str){p, n};
}

static void loose(struct csm_str s)
{
	free((char *)(uintptr_t)s.p);
}

static bool utf8(const char *s, size_t n)
{
	struct csm_str t = tight(s, n);
	bool ok = csm_utf8_valid(t.p, t.n);

	loose(t);
	return ok;
}
#define UTF8(literal) utf8(literal, sizeof(literal) - 1)

static void test_text_is_cut_between_characters(void **state)
{
	char out[12];

	(void)state;
	csm_text_put(out, sizeof(out), "%s", "eleven char");
	assert_string_equal(out, "eleven char");
	csm_text_put(out, sizeof(out), "%s", "twelve chars");
	assert_string_equal(out, "twelve c...");
	/* the cut would be within the character of two, three and four bytes */
	csm_text_put(out, sizeof(out), "1234567%s", "\xc3\xa4\xc3\xa4\xc3\xa4");
	assert_string_equal(out, "1234567...");
	csm_text_put(out, sizeof(out), "123456%s", "\xe2\x82\xac\xe2\x82\xac");
	assert_string_equal(out, "123456...");
	csm_text_put(out, sizeof(out), "12345%s", "\xf0\x90\x80\x80\xf0\x90\x80\x80");
	assert_string_equal(out, "12345...");
	csm_text_put(out, sizeof(out), "1234%s", "\xf0\x90\x80\x80\xf0\x90\x80\x80");
	assert_string_equal(out, "1234\xf0\x90\x80\x80...");
	csm_text_put(out, 3, "%s", "too small for dots");
	assert_string_equal(out, "to");
}

static void test_utf8(void **state)
{
	(void)state;
	assert_true(UTF8(""));
	assert_true(UTF8("plain ASCII of more than eight bytes"));
	assert_true(UTF8("a\0b"));
	assert_true(UTF8("\xc2\x80\xdf\xbf"));
	assert_true(UTF8("\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf"));
	assert_true(UTF8("\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"));
	assert_true(UTF8("12345678\xc3\xa9"));

	assert_false(UTF8("\x80"));
	assert_false(UTF8("1234567\xff"));
	assert_false(UTF8("12345678\xbf"));
	assert_false(UTF8("\xc0\x80"));     /* overlong */
	assert_false(UTF8("\xc1\xbf"));     /* overlong */
	assert_false(UTF8("\xe0\x9f\xbf")); /* overlong */
	assert_false(UTF8("\xf0\x8f\xbf\xbf"));
	assert_false(UTF8("\xed\xa0\x80")); /* a surrogate */
	assert_false(UTF8("\xed\xbf\xbf"));
	assert_false(UTF8("\xf4\x90\x80\x80")); /* above U+10FFFF */
	assert_false(UTF8("\xf5\x80\x80\x80"));
	assert_false(UTF8("\xfe"));
	assert_false(UTF8("\xc3"));
	assert_false(UTF8("\xe2\x82"));
	assert_false(UTF8("\xf0\x9d\x84"));
	assert_false(UTF8("\xe2\x28\xa1"));
	assert_false(UTF8("\xe2\x82\x28"));
	assert_false(UTF8("\xf0\x9d\x84\x28"));
}

/* Every two bytes: only ASCII pairs and the sequences of U+0080 to U+07FF. */
static void test_utf8_pairs(void **state)
{
	(void)state;
	for (unsigned v = 0; v <= 0xffff; v++) {
		char s[2] = {(char)(v >> 8), (char)v};
		unsigned a = v >> 8, b = v & 0xff;
		bool want = (a < 0x80 && b < 0x80) || (a >= 0xc2 && a <= 0xdf && b >= 0x80 && b <= 0xbf);

		assert_int_equal(csm_utf8_valid(s, 2), want);
	}
}

static void test_str(void **state)
{
	(void)state;
	assert_null(csm_str_of(NULL).p);
	assert_int_equal(csm_str_of(NULL).n, 0);
	assert_true(csm_str_eq(CSM_STR("abc"), "abc"));
	assert_false(csm_str_eq(CSM_STR("abc"), "abd"));
	assert_false(csm_str_eq(CSM_STR("abc"), "ab"));
	assert_false(csm_str_eq(CSM_STR("ab"), "abc"));
	assert_true(csm_str_same(csm_str_of(NULL), CSM_STR("")));
	assert_false(csm_str_same(CSM_STR("a\0b"), CSM_STR("a\0c")));
}

static void test_namespace(void **state)
{
	char longest[CSM_NAMESPACE_MAX + 1];

	(void)state;
	memset(longest, 'a', sizeof(longest));
	assert_true(csm_namespace_valid(CSM_STR("a")));
	assert_true(csm_namespace_valid(CSM_STR("0.web_x-1")));
	assert_true(csm_namespace_valid(CSM_STR("uid-1000")));
	assert_true(csm_namespace_valid((struct csm_str){longest, CSM_NAMESPACE_MAX}));
	assert_false(csm_namespace_valid((struct csm_str){longest, CSM_NAMESPACE_MAX + 1}));
	assert_false(csm_namespace_valid(CSM_STR("")));
	assert_false(csm_namespace_valid(csm_str_of(NULL)));
	assert_false(csm_namespace_valid(CSM_STR("-a")));
	assert_false(csm_namespace_valid(CSM_STR(".a")));
	assert_false(csm_namespace_valid(CSM_STR("_a")));
	assert_false(csm_namespace_valid(CSM_STR("Web")));
	assert_false(csm_namespace_valid(CSM_STR("web*")));
	assert_false(csm_namespace_valid(CSM_STR("a\0b")));
	assert_false(csm_namespace_valid(CSM_STR("\xc3\xa9")));
}

static bool name_ok(const char *s, size_t n)
{
	struct csm_str t = tight(s, n);
	bool ok = csm_name_valid(t);

	loose(t);
	return ok;
}
#define NAME(literal) name_ok(literal, sizeof(literal) - 1)

static void test_name(void **state)
{
	char longest[CSM_NAME_MAX + 1];

	(void)state;
	memset(longest, 'n', sizeof(longest));
	assert_true(NAME("a"));
	assert_true(NAME("A b_c.d-e@f=g,h~"));
	assert_true(NAME("sch\xc3\xb6n \xe2\x82\xac \xf0\x9d\x84\x9e"));
	assert_true(NAME("\xc2\xa0")); /* just above the C1 controls */
	assert_true(name_ok(longest, CSM_NAME_MAX));
	assert_false(name_ok(longest, CSM_NAME_MAX + 1));
	assert_false(NAME(""));
	assert_false(NAME(".hidden"));
	assert_false(NAME(".."));
	assert_false(NAME("-option"));
	assert_true(NAME("a..-"));
	assert_false(NAME("a\0b"));
	assert_false(NAME("a\nb"));
	assert_false(NAME("a\x7f"));
	assert_false(NAME("a\xc2\x80"));
	assert_false(NAME("a\xc2\x9f"));
	assert_false(NAME("\xc3\x28"));
	assert_false(NAME("a\xc2"));
	for (const char *p = "/:*?[\\"; *p != 0; p++) {
		char s[3] = {'a', *p, 'b'};

		assert_false(name_ok(s, 3));
		assert_false(name_ok(s + 1, 1));
	}
	assert_true(NAME("a]b"));
}

static void test_ref(void **state)
{
	struct csm_ref ref;

	(void)state;
	assert_int_equal(csm_ref_parse(CSM_STR("tls"), &ref), 0);
	assert_null(ref.ns.p);
	assert_true(csm_str_eq(ref.name, "tls"));
	assert_null(ref.secret.p);
	assert_int_equal(csm_ref_parse(CSM_STR("web:tls"), &ref), 0);
	assert_true(csm_str_eq(ref.ns, "web"));
	assert_true(csm_str_eq(ref.name, "tls"));

	static const char *const bad[] = {"", ":", "web:", ":tls", "Web:tls", "web:a:b", "web::a", "a/b", "web:a/b", "..", "web:.."};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ref.name = CSM_STR("untouched");
		assert_int_equal(csm_ref_parse(csm_str_of(bad[i]), &ref), CSM_EINVALID);
		assert_true(csm_str_eq(ref.name, "untouched"));
	}
	assert_int_equal(csm_ref_parse(csm_str_of(NULL), &ref), CSM_EINVALID);
}

static void test_ref_secret(void **state)
{
	struct csm_ref ref;

	(void)state;
	assert_int_equal(csm_ref_parse_secret(CSM_STR("db/login"), &ref), 0);
	assert_null(ref.ns.p);
	assert_true(csm_str_eq(ref.name, "db"));
	assert_true(csm_str_eq(ref.secret, "login"));
	assert_int_equal(csm_ref_parse_secret(CSM_STR("web:db/login"), &ref), 0);
	assert_true(csm_str_eq(ref.ns, "web"));
	assert_true(csm_str_eq(ref.name, "db"));
	assert_true(csm_str_eq(ref.secret, "login"));

	static const char *const bad[] = {"", "db", "web:db", "db/", "/login", "web:/login", "web:db/", "a/b/c", "db/../x",
		"../db/x", "db/.x", "db/a:b", "a:b:c/d", "WEB:db/x"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(csm_ref_parse_secret(csm_str_of(bad[i]), &ref), CSM_EINVALID);
	assert_int_equal(csm_ref_parse_secret(CSM_STR("db/a\0b"), &ref), CSM_EINVALID);
}

static bool glob(const char *pattern, const char *text)
{
	struct csm_str p = tight(pattern, strlen(pattern)), t = tight(text, strlen(text));
	bool ok = csm_glob_match(p, t);

	loose(p);
	loose(t);
	return ok;
}

static void test_glob(void **state)
{
	(void)state;
	assert_true(glob("", ""));
	assert_true(glob("*", ""));
	assert_true(glob("*", "anything/at all"));
	assert_true(glob("web:*", "web:"));
	assert_true(glob("web:*", "web:db/login"));
	assert_true(glob("web:app-*", "web:app-1"));
	assert_true(glob("*:db/*", "shared:db/login"));
	assert_true(glob("a?c", "abc"));
	assert_true(glob("**a**", "bab"));
	assert_true(glob("*ab", "aab"));
	assert_true(glob("a*b*c", "a1b2b3c"));
	assert_true(glob("[x]", "[x]")); /* no classes, no escapes */
	assert_true(glob("\\*", "\\anything"));
	assert_false(glob("", "a"));
	assert_false(glob("a", ""));
	assert_false(glob("?", ""));
	assert_false(glob("web:*", "web"));
	assert_false(glob("web:*", "webx:tls"));
	assert_false(glob("web:app-*", "web:"));
	assert_false(glob("a?c", "ac"));
	assert_false(glob("*ab", "aba"));
	assert_false(glob("a*b*c", "a1b2b3"));
	assert_false(glob("[x]", "x"));
}

/* By a plain recursive definition, on all short patterns and texts over two letters. */
static bool glob_slow(const char *p, const char *t)
{
	if (*p == 0)
		return *t == 0;
	if (*p == '*')
		return glob_slow(p + 1, t) || (*t != 0 && glob_slow(p, t + 1));
	return *t != 0 && (*p == '?' || *p == *t) && glob_slow(p + 1, t + 1);
}

static void spell(unsigned n, const char *letters, unsigned base, char out[6])
{
	unsigned i = 0;

	for (; n > 0; n /= base)
		out[i++] = letters[n % base];
	out[i] = 0;
}

static void test_glob_definition(void **state)
{
	char p[6], t[6];

	(void)state;
	for (unsigned i = 0; i < 1024; i++) {
		spell(i, "ab*?", 4, p);
		for (unsigned j = 0; j < 32; j++) {
			spell(j, "ab", 2, t);
			assert_int_equal(csm_glob_match(csm_str_of(p), csm_str_of(t)), glob_slow(p, t));
		}
	}
}

static void test_glob_time(void **state)
{
	static char pattern[512], text[512];
	struct timespec a, b;

	(void)state;
	/* What takes exponential time by the plain definition. */
	for (size_t i = 0; i < sizeof(pattern); i++)
		pattern[i] = i % 2 == 0 ? 'a' : '*';
	pattern[sizeof(pattern) - 1] = 'b';
	memset(text, 'a', sizeof(text));
	(void)clock_gettime(CLOCK_MONOTONIC, &a);
	for (int i = 0; i < 100; i++)
		assert_false(csm_glob_match((struct csm_str){pattern, sizeof(pattern)}, (struct csm_str){text, sizeof(text)}));
	(void)clock_gettime(CLOCK_MONOTONIC, &b);
	assert_true(b.tv_sec - a.tv_sec < 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text_is_cut_between_characters),
		cmocka_unit_test(test_utf8),
		cmocka_unit_test(test_utf8_pairs),
		cmocka_unit_test(test_str),
		cmocka_unit_test(test_namespace),
		cmocka_unit_test(test_name),
		cmocka_unit_test(test_ref),
		cmocka_unit_test(test_ref_secret),
		cmocka_unit_test(test_glob),
		cmocka_unit_test(test_glob_definition),
		cmocka_unit_test(test_glob_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
