/* The fake back end's script; what every back end must do is in tests/conformance. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>
#include "plugins/fake/script.h"
#include "plugins/include/csm_plugin.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

static const struct csm_plugin *const fake = &csm_plugin_fake;
static const char *script;
static char logged[128];

static const char *config(void *arg, const char *name)
{
	(void)arg;
	return strcmp(name, "script") == 0 ? script : NULL;
}

static void log_line(void *arg, int level, const char *text)
{
	(void)arg;
	(void)level;
	snprintf(logged, sizeof(logged), "%s", text);
}

static const struct csm_plugin_host host = {.config = config, .log = log_line};

static int open_with(const char *text, struct csm_plugin_ctx **ctx)
{
	script = text;
	return fake->open(&host, ctx);
}

static long elapsed_ms(const struct timespec *from)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - from->tv_sec) * 1000 + (now.tv_nsec - from->tv_nsec) / 1000000;
}

static void not_there_unless_configured(void **state)
{
	struct csm_plugin_ctx *ctx = NULL;

	(void)state;
	script = NULL;
	assert_int_equal(fake->probe(&host), CSM_EUNSUPPORTED);
	assert_int_equal(fake->open(&host, &ctx), CSM_EUNSUPPORTED);
	assert_null(ctx);
	script = "";
	assert_int_equal(fake->probe(&host), 0);
}

static void good_scripts(void **state)
{
	static const struct {
		const char *text;
		size_t rules;
	} rows[] = {
		{"", 0},
		{"  ", 0},
		{"sign=delay:500ms", 1},
		{"sign=delay:500ms;sign=fail:UNAVAILABLE:3;generate=delay:1s;health=down", 4},
		{" sign=after:2,delay:1ms,fail:CSM_ELOCKOUT ; load=fail:BACKEND;\n", 2},
		{"open=fail:UNAVAILABLE:1;counter_increment=fail:BACKEND;unseal=fail:UNAVAILABLE", 3},
	};
	struct fake_script s;
	size_t at = 999;

	(void)state;
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		assert_int_equal(fake_script_parse(csm_str_of(rows[i].text), &s, &at), 0);
		assert_int_equal(s.n, rows[i].rules);
	}
	assert_int_equal(fake_script_parse(csm_str_of(rows[4].text), &s, &at), 0);
	assert_int_equal(s.rules[0].after, 2);
	assert_int_equal(s.rules[0].delay_ms, 1);
	assert_int_equal(s.rules[0].fail, CSM_ELOCKOUT);
	assert_int_equal(at, 999);
}

static void bad_scripts(void **state)
{
	static const char *const bad[] = {
		"x",
		"sign",
		"sign=",
		"sign=delay",
		"sign=delay:",
		"sign=delay:5",
		"sign=delay:5h",
		"sign=delay:61s",
		"sign=delay:60001ms",
		"sign=fail",
		"sign=fail:",
		"sign=fail:NOSUCH",
		"sign=fail:UNAVAILABLE:",
		"sign=fail:UNAVAILABLE:0",
		"sign=fail:UNAVAILABLE:x",
		"sign=down",
		"health=fail:BACKEND",
		"nosuch=down",
		"sign=delay:1ms,",
		"sign=delay:1ms load=delay:1ms",
		";",
		"sign=delay:1ms;;",
		"sign=after:1 ,delay:1ms",
	};
	char many[(FAKE_RULES_MAX + 1) * 12 + 1];
	struct fake_script s = {.n = 77};
	struct csm_plugin_ctx *ctx = NULL;
	size_t at = 0;

	(void)state;
	for (size_t i = 0; i < N_ELEMS(bad); i++) {
		if (fake_script_parse(csm_str_of(bad[i]), &s, &at) != CSM_EINVALID)
			fail_msg("accepted: %s", bad[i]);
		assert_in_range(at, 0, strlen(bad[i]));
	}
	many[0] = '\0';
	for (size_t i = 0; i <= FAKE_RULES_MAX; i++)
		memcpy(many + i * 12, "health=down;", 13);
	assert_int_equal(fake_script_parse(csm_str_of(many), &s, &at), CSM_EINVALID);
	assert_int_equal(fake_script_parse((struct csm_str){many, (size_t)FAKE_RULES_MAX * 12}, &s, &at), 0);
	logged[0] = '\0';
	assert_int_equal(open_with("sign=nonsense", &ctx), CSM_EINVALID);
	assert_null(ctx);
	assert_non_null(strstr(logged, "byte 14"));
}

static void delays_and_failures(void **state)
{
	struct csm_plugin_ctx *ctx = NULL;
	struct timespec t;
	uint8_t p[8];

	(void)state;
	assert_int_equal(open_with("random=after:1,fail:UNAVAILABLE:2;random=after:4,delay:30ms", &ctx), 0);
	assert_int_equal(fake->random(ctx, p, 8), 0);
	assert_int_equal(fake->random(ctx, p, 8), CSM_EUNAVAILABLE);
	assert_int_equal(fake->random(ctx, p, 8), CSM_EUNAVAILABLE);
	assert_int_equal(fake->random(ctx, p, 8), 0);
	clock_gettime(CLOCK_MONOTONIC, &t);
	assert_int_equal(fake->random(ctx, p, 8), 0);
	assert_in_range(elapsed_ms(&t), 29, 5000);
	fake->close(ctx);
	assert_int_equal(open_with("seal=fail:LOCKOUT", &ctx), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(fake->seal(ctx, p, 8, &(struct csm_plugin_out){p, 8, 0}), CSM_ELOCKOUT);
	fake->close(ctx);
}

static void health_and_open(void **state)
{
	struct csm_plugin_ctx *ctx = NULL;
	struct csm_plugin_health h;

	(void)state;
	assert_int_equal(open_with("health=down", &ctx), 0);
	fake->health(ctx, &h);
	assert_false(h.usable);
	assert_non_null(h.reason);
	fake->close(ctx);
	ctx = NULL;
	assert_int_equal(open_with("open=after:1000,fail:UNAVAILABLE", &ctx), 0);
	fake->close(ctx);
	ctx = NULL;
	assert_int_equal(open_with("open=fail:UNAVAILABLE", &ctx), CSM_EUNAVAILABLE);
	assert_null(ctx);
	assert_int_equal(open_with("open=fail:UNAVAILABLE:1", &ctx), 0); /* the process has opened it before */
	fake->close(ctx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(not_there_unless_configured),
		cmocka_unit_test(good_scripts),
		cmocka_unit_test(bad_scripts),
		cmocka_unit_test(delays_and_failures),
		cmocka_unit_test(health_and_open),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
