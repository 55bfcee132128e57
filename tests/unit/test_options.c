/* Command lines of the daemons: what they take, and with which status they end otherwise. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <fcntl.h>
#include <getopt.h>
#include <sys/socket.h>
#include <unistd.h>
#include "daemon/svc/options.h"

#define WORDS_MAX 8u

struct got {
	const char *config;
	uint32_t uid;
	bool check;
};

/* The words without the program's name, ended by NULL: -1 where the program goes on, else its status. */
static int run(const char *const words[], struct got *got)
{
	*got = (struct got){.uid = UINT32_MAX};
	const struct csm_option options[] = {{"config", 'c', csm_option_text, &got->config}, {"check", 0, NULL, &got->check},
		{"uid", 0, csm_option_number, &got->uid}, {"log-level", 0, csm_option_level, NULL}};
	const struct csm_program p = {"csm-test", "usage: csm-test\n", options, sizeof(options) / sizeof(options[0])};
	static char text[WORDS_MAX][32] = {"csm-test"}; /* what is taken is borrowed */
	char *argv[WORDS_MAX + 1] = {text[0]};
	int argc = 1, status = -2;

	for (; words[argc - 1] != NULL; argc++) {
		(void)snprintf(text[argc], sizeof(text[0]), "%s", words[argc - 1]);
		argv[argc] = text[argc];
	}
	optind = 0; /* from the beginning again */
	return csm_options_read(&p, argc, argv, &status) ? -1 : status;
}

static void taken(void **state)
{
	struct got got;

	(void)state;
	assert_int_equal(run((const char *const[]){NULL}, &got), -1);
	assert_true(got.config == NULL && !got.check && got.uid == UINT32_MAX);
	assert_int_equal(run((const char *const[]){"--check", "--uid", "4294967295", "--log-level", "info", NULL}, &got), -1);
	assert_true(got.check && got.uid == UINT32_MAX && got.config == NULL);
	assert_int_equal(run((const char *const[]){"--uid=0", "--config", "/a", NULL}, &got), -1);
	assert_true(got.uid == 0 && strcmp(got.config, "/a") == 0);
	assert_int_equal(run((const char *const[]){"-c", "/b", NULL}, &got), -1);
	assert_string_equal(got.config, "/b");
	assert_int_equal(run((const char *const[]){"--help", NULL}, &got), 0);
	assert_int_equal(run((const char *const[]){"--version", NULL}, &got), 0);
}

static void refused(void **state)
{
	static const char *const bad[][4] = {{"--uid", "-1"}, {"--uid", ""}, {"--uid", " 5"}, {"--uid", "5x"},
		{"--uid", "4294967296"}, {"--uid", "99999999999999999999"}, {"--uid"}, {"--log-level", "loud"}, {"--none"},
		{"--check=1"}, {"-x"}, {"word"}, {"--check", "word"}, {"--", "--check"}};
	struct got got;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(run(bad[i], &got), 2);
}

static void only_sockets(void **state)
{
	int fd[2], file = open("/dev/null", O_RDONLY | O_CLOEXEC);

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	assert_true(csm_options_sockets(fd[0], 1));
	assert_true(fd[1] != fd[0] + 1 || csm_options_sockets(fd[0], 2));
	assert_false(csm_options_sockets(fd[0], 3));
	assert_false(csm_options_sockets(file, 1));
	close(fd[0]);
	assert_false(csm_options_sockets(fd[0], 1));
	close(fd[1]);
	close(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(taken),
		cmocka_unit_test(refused),
		cmocka_unit_test(only_sockets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
