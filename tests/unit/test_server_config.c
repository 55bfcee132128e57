/* server.yaml: what is written is read, what is not written has its default, and what is wrong is refused at its key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "daemon/central/config.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

static struct central_config parse(const char *text)
{
	struct csm_policy_error err;
	struct central_config c;

	if (central_config_parse(text, strlen(text), &c, &err) != 0)
		fail_msg("%u:%u %s", err.line, err.column, err.message);
	return c;
}

static void defaults(void **state)
{
	struct central_config c = parse("log_level: debug\n");

	(void)state;
	assert_string_equal(c.log_level, "debug");
	assert_string_equal(c.listen, "0.0.0.0:8443");
	assert_true(c.tls.n != 0 && c.plain.n == 0 && !c.require_sandbox);
	assert_string_equal(c.user, "csm-server");
	assert_string_equal(c.hostnames[0], "localhost");
	assert_null(c.hostnames[1]);
	assert_true(c.map_size == UINT64_C(64) << 30 && c.workers == 8 && c.connections == 0);
	assert_non_null(c.profiles);
	central_config_clear(&c);
	central_config_clear(&c);
}

static void whole(void **state)
{
	struct central_config c = parse("listen: \"[::1]:443\"\npublic_listen: 127.0.0.1:80\nadmin_socket: /run/a\nstate_dir: /var/s\n"
					"csmd_socket: /run/c\nuser: \"71\"\nhostnames: [ca.example, 10.0.0.1]\n"
					"public_url: http://pki.example/\nsandbox: required\nmap_size: 128MiB\nworkers: 3\n"
					"limits: {connections: 5, new_per_address: 7}\nissuers: {one: {key: k}}\n"
					"profiles: {p: {issuer: one, san: [\"dns:*\"]}}\n");

	(void)state;
	assert_true(c.tls.n != 0 && c.plain.n != 0 && c.require_sandbox);
	assert_string_equal(c.admin_socket, "/run/a");
	assert_string_equal(c.state_dir, "/var/s");
	assert_string_equal(c.csmd_socket, "/run/c");
	assert_string_equal(c.user, "71");
	assert_string_equal(c.hostnames[0], "ca.example");
	assert_string_equal(c.hostnames[1], "10.0.0.1");
	assert_null(c.hostnames[2]);
	assert_string_equal(c.public_url, "http://pki.example");
	assert_true(c.map_size == UINT64_C(128) << 20 && c.workers == 3 && c.connections == 5 && c.new_per_address == 7);
	assert_non_null(profiles_get(c.profiles, CSM_STR("p")));
	central_config_clear(&c);
}

static void refuse(const char *text, const char *why)
{
	struct csm_policy_error err;
	struct central_config c;

	assert_int_equal(central_config_parse(text, strlen(text), &c, &err), CSM_EINVALID);
	assert_string_equal(err.message, why);
}

static void refused(void **state)
{
	static const struct {
		const char *text, *why;
	} bad[] = {
		{"version: 1\n", "version: unknown key"},
		{"limits: {loops: 1}\n", "limits.loops: unknown key"},
		{"limits: {issuers: {}}\n", "limits.issuers: unknown key"},
		{"limits: 5\n", "limits: must be a mapping (key: value)"},
		{"connections: 5\n", "connections: unknown key"},
		{"workers: 0\n", "workers: must be from 1 to 256"},
		{"workers: 2\nworkers: 2\n", "workers: the key is there twice"},
		{"state_dir: /var/../s\n", "state_dir: must be an absolute path without '.', '..' and '//'"},
		{"state_dir: \"\"\n", "state_dir: must be an absolute path without '.', '..' and '//'"},
		{"user: root\n", "user: must not be root"},
		{"user: 0\n", "user: must not be root"},
		{"user: 65534\n", "user: is no number of a user"},
		{"user: a/b\n", "user: must be the name or number of a user"},
		{"log_level: loud\n", "log_level: must be one of: error, warning, info, debug"},
		{"sandbox: none\n", "sandbox: must be one of: best-effort, required"},
		{"map_size: 64\n", "map_size: must be a number with a unit, as 64GiB"},
		{"map_size: 17TiB\n", "map_size: must be from 1MiB to 16TiB, in whole pages of 4KiB"},
		{"listen: localhost:1\n",
			"listen: must be an address in numbers and a port, as 0.0.0.0:8443 or \"[::]:8443\""},
		{"hostnames: []\n", "hostnames: must have 1 to 16 entries"},
		{"profiles: {p: {max_life: 5}}\n", "profiles.p.max_life: must be a number with a unit (s, m or min, h, d, w, y), as 10min"},
		{"profiles: {p: {max_life: 0d}}\n",
			"profiles.p.max_life: must be from 1s to 36600d"},
	};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(bad); i++)
		refuse(bad[i].text, bad[i].why);
}

/* As long as a socket's address, and one byte more. */
static void sockets(void **state)
{
	char text[160] = "admin_socket: /";
	struct central_config c;

	(void)state;
	memset(text + 15, 'x', 106);
	c = parse(text);
	assert_int_equal(strlen(c.admin_socket), 107);
	central_config_clear(&c);
	text[15 + 106] = 'x';
	refuse(text, "admin_socket: must be at most 107 bytes");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(whole),
		cmocka_unit_test(refused),
		cmocka_unit_test(sockets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
