#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/svc/log.h"

static char got[8192];

/* What one line writes to standard error. */
static const char *logged(int level, const char *text)
{
	int keep = dup(STDERR_FILENO), p[2];
	ssize_t n;

	assert_true(keep >= 0);
	assert_int_equal(pipe2(p, O_NONBLOCK | O_CLOEXEC), 0);
	assert_true(dup2(p[1], STDERR_FILENO) >= 0);
	csm_log(level, "%s", text);
	dup2(keep, STDERR_FILENO);
	close(keep);
	close(p[1]);
	n = read(p[0], got, sizeof(got) - 1);
	close(p[0]);
	got[n > 0 ? n : 0] = '\0';
	return got;
}

static void expect_text(const char *text, const char *escaped)
{
	char line[512];

	snprintf(line, sizeof(line), "level=error pid=%d msg=\"%s\"\n", (int)getpid(), escaped);
	assert_string_equal(logged(LOG_ERR, text), line);
}

static void what_could_break_a_line_is_escaped(void **state)
{
	(void)state;
	expect_text("plain key=value", "plain key=value");
	expect_text("", "");
	expect_text("a \"quote\" and a \\", "a \\\"quote\\\" and a \\\\");
	expect_text("two\nlines\r\tand \x1b[31m\x7f", "two\\x0alines\\x0d\\x09and \\x1b[31m\\x7f");
	expect_text("d\xc3\xa9j\xc3\xa0", "d\xc3\xa9j\xc3\xa0");
	expect_text("\" level=info msg=\"forged", "\\\" level=info msg=\\\"forged");
}

static void a_long_text_is_cut_and_the_line_whole(void **state)
{
	static const char fill[] = {'x', '"', '\n', '\x01'};
	char text[4000];

	(void)state;
	for (size_t i = 0; i < sizeof(fill); i++) {
		size_t n;

		memset(text, fill[i], sizeof(text) - 1);
		text[sizeof(text) - 1] = '\0';
		n = strlen(logged(LOG_ERR, text));
		assert_true(n > 500 && n <= 1024);
		assert_string_equal(got + n - 2, "\"\n");
		assert_ptr_equal(strchr(got, '\n'), got + n - 1);
		/* The closing quote is not the end of an escape. */
		size_t slashes = 0;
		for (const char *p = got + n - 3; *p == '\\'; p--)
			slashes++;
		assert_int_equal(slashes % 2, 0);
	}
}

static void levels(void **state)
{
	(void)state;
	assert_int_equal(csm_log_parse_level("error"), LOG_ERR);
	assert_int_equal(csm_log_parse_level("warning"), LOG_WARNING);
	assert_int_equal(csm_log_parse_level("info"), LOG_INFO);
	assert_int_equal(csm_log_parse_level("debug"), LOG_DEBUG);
	assert_int_equal(csm_log_parse_level("verbose"), -1);
	assert_string_equal(logged(LOG_DEBUG, "x"), "");
	assert_non_null(strstr(logged(LOG_INFO, "x"), "level=info "));
	csm_log_level(LOG_WARNING);
	assert_string_equal(logged(LOG_INFO, "x"), "");
	assert_non_null(strstr(logged(LOG_WARNING, "x"), "level=warning "));
	csm_log_level(LOG_DEBUG);
	assert_non_null(strstr(logged(LOG_DEBUG, "x"), "level=debug "));
	csm_log_level(LOG_INFO);
}

/* A log that cannot be written is no reason to stop. */
static void nobody_reads(void **state)
{
	int keep = dup(STDERR_FILENO);

	(void)state;
	close(STDERR_FILENO);
	log_err("into nothing");
	dup2(keep, STDERR_FILENO);
	close(keep);
	assert_non_null(strstr(logged(LOG_ERR, "again"), "again"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_could_break_a_line_is_escaped),
		cmocka_unit_test(a_long_text_is_cut_and_the_line_whole),
		cmocka_unit_test(levels),
		cmocka_unit_test(nobody_reads),
	};

	alarm(60);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
