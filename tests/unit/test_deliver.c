/* csm-deliver's parts: what root may write, what becomes of a folder, what a hook gets. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/deliver/put.h"

static const char *outcome;
static char base[64], dir[96], script[96], out[96];

static int setup(void **state)
{
	(void)state;
	snprintf(base, sizeof(base), "/tmp/csm-dlv.XXXXXX");
	if (mkdtemp(base) == NULL || chmod(base, 0755) != 0)
		return -1;
	snprintf(dir, sizeof(dir), "%s/tls", base);
	snprintf(script, sizeof(script), "%s/hook", base);
	snprintf(out, sizeof(out), "%s/out", base);
	return 0;
}

static int teardown(void **state)
{
	char *argv[] = {(char[]){"rm"}, (char[]){"-rf"}, base, NULL};
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		execvp("rm", argv);
		_exit(127);
	}
	waitpid(pid, NULL, 0);
	return 0;
}

/* ---- the configuration ---- */

static void test_good_config(void **state)
{
	static const char text[] =
		"targets:\n"
		"  web:\n"
		"    key: \"web:tls\"\n"
		"    folder: /etc/x/tls\n"
		"    owner: \"64311\"\n"
		"    group: \"64312\"\n"
		"    mode: \"0640\"\n"
		"    hook: [/bin/true, -q, \"two words\"]\n"
		"    hook_user: root\n"
		"    reload_unit: nginx@a.service\n"
		"    deadline: 2min\n"
		"    roll_back: false\n"
		"  plain: {key: \"web:other\", folder: /x}\n";
	struct delivery_config c;
	struct csm_policy_error err;

	(void)state;
	assert_int_equal(delivery_config_parse(text, strlen(text), &c, &err), 0);
	assert_int_equal(c.n, 2);
	assert_string_equal(c.state_dir, "/var/lib/csm-deliver");
	assert_string_equal(c.target[0].name, "web");
	assert_string_equal(c.target[0].key, "web:tls");
	assert_int_equal(c.target[0].uid, 64311);
	assert_int_equal(c.target[0].gid, 64312);
	assert_int_equal(c.target[0].hook_uid, 0);
	assert_int_equal(c.target[0].mode, 0640);
	assert_string_equal(c.target[0].hook[2], "two words");
	assert_null(c.target[0].hook[3]);
	assert_string_equal(c.target[0].reload_unit, "nginx@a.service");
	assert_int_equal(c.target[0].deadline_s, 120);
	assert_false(c.target[0].roll_back);
	assert_int_equal(c.target[1].uid, 0);
	assert_int_equal(c.target[1].mode, 0644);
	assert_int_equal(c.target[1].deadline_s, 30);
	assert_true(c.target[1].roll_back);
	assert_null(c.target[1].hook[0]);
	delivery_config_clear(&c);
	assert_int_equal(delivery_dir_mode(0644), 0755);
	assert_int_equal(delivery_dir_mode(0640), 0750);
	assert_int_equal(delivery_dir_mode(0600), 0700);
}

#define T "targets:\n  a: {key: \"n:k\", folder: /x, "
static void test_bad_configs(void **state)
{
	static const struct {
		const char *text, *message;
	} bad[] = {
		{"", ""},
		{"other: 1\n", "unknown key"},
		{"state_dir: /x\n", "targets: is missing"},
		{"targets: []\n", "mapping"},
		{"targets: {A: {key: \"n:k\", folder: /x}}\n", "lower case"},
		{"targets: {a: {folder: /x}}\n", "needs a key"},
		{"targets: {a: {key: \"n:k\"}}\n", "needs a folder"},
		{"targets: {a: {key: k, folder: /x}}\n", "NAMESPACE:KEY"},
		{"targets: {a: {key: \"n:k\", folder: x}}\n", "absolute"},
		{"targets: {a: {key: \"n:k\", folder: /x/../y}}\n", "absolute"},
		{"targets: {a: {key: \"n:k\", folder: /x/..}}\n", "absolute"},
		{"targets: {a: {key: \"n:k\", folder: /x}, b: {key: \"n:l\", folder: /x}}\n", "has the folder of a"},
		{T "mode: \"0666\"}\n", "do not write"},
		{T "mode: \"0755\"}\n", "do not write"},
		{T "mode: \"0x1\"}\n", "octal"},
		{T "hook: []}\n", "1 to 32"},
		{T "hook: [true]}\n", "absolute"},
		{T "hook: /bin/true}\n", "list"},
		{T "owner: nobody-of-this-name}\n", "no user"},
		{T "group: nobody-of-this-name}\n", "no group"},
		{T "hook_user: nobody-of-this-name}\n", "no user"},
		{T "reload_unit: \"-f\"}\n", "name of a unit"},
		{T "reload_unit: \"a b\"}\n", "name of a unit"},
		{T "deadline: 11min}\n", "from 1s to 10min"},
		{T "deadline: 0s}\n", "from 1s to 10min"},
		{T "deadline: 5}\n", "a number with a unit"},
		{T "roll_back: perhaps}\n", ""},
		{T "hook: &a [/bin/true]}\n", "anchor"},
		{T "key: \"n:l\"}\n", ""},
	};
	struct delivery_config c;
	struct csm_policy_error err;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (delivery_config_parse(bad[i].text, strlen(bad[i].text), &c, &err) != CSM_EINVALID)
			fail_msg("taken: %s", bad[i].text);
		if (strstr(err.message, bad[i].message) == NULL)
			fail_msg("%s: %s, not %s", bad[i].text, err.message, bad[i].message);
	}
}

static void write_text(const char *path, const char *text, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

static void test_whose_config(void **state)
{
	struct delivery_config c;
	char path[96], why[DELIVERY_WHY];

	(void)state;
	snprintf(path, sizeof(path), "%s/deliver.yaml", base);
	assert_int_equal(delivery_config_read(path, &c, why), CSM_ESYSTEM);
	write_text(path, "targets: {a: {key: \"n:k\", folder: /x}}\n", 0644);
	assert_int_equal(delivery_config_read(path, &c, why), 0);
	delivery_config_clear(&c);
	assert_int_equal(chmod(path, 0664), 0);
	assert_int_equal(delivery_config_read(path, &c, why), CSM_EDENIED);
	assert_int_equal(chmod(path, 0644), 0);
	assert_int_equal(chown(path, 64311, 0), 0);
	assert_int_equal(delivery_config_read(path, &c, why), CSM_EDENIED);
	assert_int_equal(chown(path, 0, 0), 0);
	assert_int_equal(chmod(base, 0777), 0);
	assert_int_equal(delivery_config_read(path, &c, why), CSM_EDENIED);
	assert_int_equal(chmod(base, 0755), 0);
	write_text(path, "targets: {a: {key: \"n:k\"}}\n", 0644);
	assert_int_equal(delivery_config_read(path, &c, why), CSM_EINVALID);
	assert_non_null(strstr(why, "line 1, column 11"));
	assert_int_equal(delivery_config_read(base, &c, why), CSM_EDENIED);
}

/* ---- a delivery ---- */

static struct delivery_target target(void)
{
	struct delivery_target t = {.name = "a", .key = "n:k", .folder = dir, .uid = 64311, .gid = 64311, .hook_uid = 64311,
		.hook_gid = 64311, .hook_user = "64311", .mode = 0640, .deadline_s = 10, .roll_back = true};

	return t;
}

/* As far as anything here looks: a SEQUENCE that holds the key's SubjectPublicKeyInfo. */
static const uint8_t spki[] = {0x30, 0x03, 0x02, 0x01, 0x05};
static const uint8_t chain[] = {0x30, 0x05, 0x30, 0x03, 0x02, 0x01, 0x05};

struct events {
	int r_new, r_back;
	unsigned n_new, n_back;
};

static int note_event(void *arg, enum delivery_event event, char *why)
{
	struct events *e = arg;

	snprintf(why, DELIVERY_WHY, "the hook said so");
	if (event == DELIVERY_NEW)
		e->n_new++;
	else
		e->n_back++;
	return event == DELIVERY_NEW ? e->r_new : e->r_back;
}

static int deliver(const struct delivery_target *t, const char *serial, struct events *e, char *why)
{
	struct csm_msg_cert_info info = {.namespace = CSM_STR("n"), .name = CSM_STR("k"), .serial = csm_str_of(serial),
		.subject = CSM_STR("/CN=x"), .issuer = CSM_STR("/CN=y"), .state = CSM_STR("valid"), .last_error = CSM_STR(""),
		.fingerprint = CSM_STR("ab"), .chain = {chain, sizeof(chain)}};

	return delivery_put(t, &info, (struct csm_bin){spki, sizeof(spki)}, note_event, e, why, &outcome);
}

static bool has_serial(const char *serial)
{
	char path[128], text[4096] = "", want[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/meta.json", dir);
	snprintf(want, sizeof(want), "\"serial\": \"%s\"", serial);
	fd = open(path, O_RDONLY);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	return n > 0 && strstr(text, want) != NULL;
}

static void test_delivers_and_rolls_back(void **state)
{
	struct delivery_target t = target();
	struct events e = {0};
	char why[DELIVERY_WHY];

	(void)state;
	/* a first one that fails has nothing before it */
	e.r_new = CSM_EINVALID;
	assert_int_equal(deliver(&t, "01", &e, why), CSM_EINVALID);
	assert_true(has_serial("01"));
	assert_non_null(strstr(why, "it stays"));
	assert_int_equal(e.n_back, 0);
	e = (struct events){0};
	assert_int_equal(deliver(&t, "02", &e, why), 0);
	assert_true(has_serial("02"));
	assert_int_equal(e.n_new, 1);
	e.r_new = CSM_ETIMEOUT;
	assert_int_equal(deliver(&t, "03", &e, why), CSM_ETIMEOUT);
	assert_true(has_serial("02"));
	assert_int_equal(e.n_back, 1);
	assert_string_equal(why, "the hook said so; rolled back");
	e.r_back = CSM_EINVALID;
	assert_int_equal(deliver(&t, "03", &e, why), CSM_ETIMEOUT);
	assert_true(has_serial("02"));
	t.roll_back = false;
	assert_int_equal(deliver(&t, "04", &e, why), CSM_ETIMEOUT);
	assert_true(has_serial("04"));
	assert_non_null(strstr(why, "the new certificate stays"));
}

static void test_another_keys_certificate(void **state)
{
	static const uint8_t other[] = {0x30, 0x03, 0x02, 0x01, 0x06};
	struct csm_msg_cert_info info = {.namespace = CSM_STR("n"), .name = CSM_STR("k"), .chain = {chain, sizeof(chain)}};
	struct delivery_target t = target();
	struct events e = {0};
	char why[DELIVERY_WHY];

	(void)state;
	assert_int_equal(delivery_put(&t, &info, (struct csm_bin){other, sizeof(other)}, note_event, &e, why, &outcome), CSM_ECONFLICT);
	assert_int_equal(access(dir, F_OK), -1);
	info.chain = (struct csm_bin){chain, sizeof(chain) - 1};
	assert_int_equal(delivery_put(&t, &info, (struct csm_bin){spki, sizeof(spki)}, note_event, &e, why, &outcome), CSM_EPROTOCOL);
	assert_int_equal(e.n_new, 0);
}

static void test_stamps(void **state)
{
	struct delivery_target t = target();
	struct delivery_stamp s = {.fingerprint = "abcdef", .delivered = 1767229201}, got;
	struct events e = {0};
	char why[DELIVERY_WHY], path[96], old[128];
	int fd;

	(void)state;
	snprintf(path, sizeof(path), "%s/state", base);
	assert_int_equal(delivery_state_open(path, &fd), 0);
	delivery_stamp_read(fd, &t, &got);
	assert_string_equal(got.fingerprint, "");
	assert_int_equal(delivery_stamp_write(fd, &t, &s), CSM_ESYSTEM); /* no folder, nothing delivered */
	assert_int_equal(deliver(&t, "01", &e, why), 0);
	assert_int_equal(delivery_stamp_write(fd, &t, &s), 0);
	delivery_stamp_read(fd, &t, &got);
	assert_string_equal(got.fingerprint, "abcdef");
	assert_int_equal(got.delivered, 1767229201);
	/* as another one's, and with another folder in its place */
	t.uid++;
	delivery_stamp_read(fd, &t, &got);
	assert_string_equal(got.fingerprint, "");
	t.uid--;
	snprintf(old, sizeof(old), "%s/old", base);
	assert_int_equal(rename(dir, old), 0);
	assert_int_equal(mkdir(dir, 0755), 0);
	delivery_stamp_read(fd, &t, &got);
	assert_string_equal(got.fingerprint, "");
	close(fd);
	assert_int_equal(chmod(path, 0777), 0);
	assert_int_equal(delivery_state_open(path, &fd), CSM_EDENIED);
	assert_int_equal(delivery_state_open("/nonexistent/state", &fd), CSM_ESYSTEM);
}

/* ---- hooks ---- */

static int run_script(struct delivery_target *t, const char *text, enum delivery_event event, char *why)
{
	write_text(script, text, 0755);
	t->hook[0] = script;
	return delivery_hook_run(t, event, why);
}

static void test_hooks(void **state)
{
	struct delivery_target t = target();
	char why[DELIVERY_WHY] = "";

	(void)state;
	assert_int_equal(delivery_hook_run(&t, DELIVERY_NEW, why), 0); /* none */
	assert_int_equal(run_script(&t, "#!/bin/sh\necho one; echo two >&2\n[ $CSM_EVENT = delivered ] && [ $(id -u) = 64311 ]\n", DELIVERY_NEW,
				 why), 0);
	assert_int_equal(run_script(&t, "#!/bin/sh\n[ $CSM_EVENT = delivered ]\n", DELIVERY_BACK, why), CSM_EINVALID);
	assert_string_equal(why, "the hook ended with status 1");
	assert_int_equal(run_script(&t, "#!/bin/sh\nkill -9 $$\n", DELIVERY_NEW, why), CSM_EINVALID);
	assert_string_equal(why, "the hook was ended by signal 9");
	assert_int_equal(run_script(&t, "#!/nonexistent\n", DELIVERY_NEW, why), CSM_EINVALID);
	assert_non_null(strstr(why, "could not be executed"));
	/* what it leaves running does not hold the delivery up, though it has its output */
	assert_int_equal(run_script(&t, "#!/bin/sh\nsleep 5 &\n", DELIVERY_NEW, why), 0);
	/* a long output is cut, not waited for */
	assert_int_equal(run_script(&t, "#!/bin/sh\nhead -c 300000 /dev/zero | tr '\\0' 'x'\n", DELIVERY_NEW, why), 0);
	t.deadline_s = 1;
	alarm(30);
	/* nor does an output without end take the deadline away */
	assert_int_equal(run_script(&t, "#!/bin/sh\nexec yes\n", DELIVERY_NEW, why), CSM_ETIMEOUT);
	alarm(0);
	assert_int_equal(run_script(&t, "#!/bin/sh\ntrap '' TERM\nsleep 60\n", DELIVERY_NEW, why), CSM_ETIMEOUT);
	assert_non_null(strstr(why, "longer than 1 s"));
}

static void test_roots_hooks(void **state)
{
	struct delivery_target t = target();
	char why[DELIVERY_WHY] = "";

	(void)state;
	t.hook_uid = t.hook_gid = 0;
	snprintf(t.hook_user, sizeof(t.hook_user), "root");
	assert_int_equal(run_script(&t, "#!/bin/sh\n[ $(id -u) = 0 ]\n", DELIVERY_NEW, why), 0);
	assert_int_equal(chmod(script, 0777), 0);
	assert_int_equal(delivery_hook_run(&t, DELIVERY_NEW, why), CSM_EDENIED);
	assert_non_null(strstr(why, "runs as root"));
	assert_int_equal(chmod(script, 0755), 0);
	assert_int_equal(chown(base, 64311, 64311), 0);
	assert_int_equal(delivery_hook_run(&t, DELIVERY_NEW, why), CSM_EDENIED);
}

static void test_process_of_hooks(void **state)
{
	struct delivery_config c = {.n = 1};
	char why[DELIVERY_WHY], path[96];
	int sock;

	(void)state;
	snprintf(path, sizeof(path), "%s/deliver.yaml", base);
	write_text(path, "targets: {a: {key: \"n:k\", folder: /x}}\n", 0644);
	write_text(script, "#!/bin/sh\n[ $CSM_EVENT = delivered ]\n", 0755);
	c.target[0] = target();
	c.target[0].hook[0] = script;
	assert_int_equal(delivery_hooks_start(&c, path, &sock), 0);
	assert_int_equal(delivery_hooks_run(sock, 0, DELIVERY_NEW, why), 0);
	assert_int_equal(delivery_hooks_run(sock, 0, DELIVERY_BACK, why), CSM_EINVALID);
	assert_int_equal(delivery_hooks_run(sock, 1, DELIVERY_NEW, why), CSM_EINVALID); /* there is no such target */
	assert_int_equal(delivery_hooks_run(sock, 0, (enum delivery_event)7, why), CSM_EINVALID);
	assert_int_equal(delivery_hooks_run(sock, 0, DELIVERY_CHECK, why), 0);
	write_text(path, "targets: {a: {key: \"n:k\"}}\n", 0644);
	assert_int_equal(delivery_hooks_run(sock, 0, DELIVERY_CHECK, why), CSM_EINVALID);
	close(sock);
	assert_int_equal(wait(NULL) > 0, 1);
}

int main(void)
{
#define T_(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_config),
		cmocka_unit_test(test_bad_configs),
		T_(test_whose_config),
		T_(test_delivers_and_rolls_back),
		T_(test_another_keys_certificate),
		T_(test_stamps),
		T_(test_hooks),
		T_(test_roots_hooks),
		T_(test_process_of_hooks),
	};

	alarm(120);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
