/* csmd.yaml: every key is read, defaults hold without it, and what is wrong is refused at its key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/svc/config.h"

#define CASES "tests/unit/golden/config-refusals.cases"
#define INSTALLED "daemon/node/etc/csmd.yaml"

static char *read_file(const char *path)
{
	FILE *f = fopen(path, "re");
	char *text = calloc(1, CSM_CONFIG_MAX);

	if (f == NULL || text == NULL)
		fail_msg("cannot read %s", path);
	assert_true(fread(text, 1, CSM_CONFIG_MAX - 1, f) > 0);
	fclose(f);
	return text;
}

static void parse(const char *text, struct csm_config *c)
{
	struct csm_policy_error err;

	if (csm_config_parse(text, text != NULL ? strlen(text) : 0, c, &err) != 0)
		fail_msg("%u:%u %s", err.line, err.column, err.message);
}

static void assert_defaults(const struct csm_config *c)
{
	assert_string_equal(c->socket, "/run/csm/public/csm.sock");
	assert_string_equal(c->admin_socket, "/run/csm/admin.sock");
	assert_string_equal(c->state_dir, "/var/lib/csm");
	assert_string_equal(c->policy, "/etc/csm/policy.yaml");
	assert_null(c->plugin_dir);
	assert_string_equal(c->user_broker, "csm");
	assert_string_equal(c->user_enrol, "csm-enrol");
	assert_string_equal(c->user_ident, "csm-ident");
	assert_string_equal(c->user_plughost, "csm-plug");
	assert_int_equal(c->root_key, CSM_ROOT_TPM);
	assert_null(c->root_key_file);
	assert_false(c->root_key_unprotected);
	assert_string_equal(c->backend_default, "auto");
	assert_null(c->backends);
	assert_null(c->fake_script);
	assert_string_equal(c->tpm_device, "auto");
	assert_string_equal(c->tpm_tcti, "");
	assert_null(c->tpm_owner_auth_file);
	assert_string_equal(c->tpm_bus_protection, "full");
	assert_false(c->tpm_accept_foreign);
	assert_true(c->map_size == UINT64_C(64) << 30);
	assert_true(c->epoch_interval_s == 600);
	assert_false(c->audit_strict);
	assert_true(c->audit_max_size == UINT64_C(64) << 20);
	assert_int_equal(c->audit_max_files, 16);
	assert_int_equal(c->connections_per_uid, CSM_CONNECTIONS_PER_UID);
	assert_int_equal(c->connections, CSM_CONNECTIONS_MAX);
	assert_string_equal(c->kubepods_root, "/kubepods.slice");
	assert_int_equal(c->loops, 0);
	assert_int_equal(c->nice, CSM_NICE);
	assert_string_equal(c->log_level, "info");
	assert_false(c->require_sandbox);
}

static void test_defaults(void **state)
{
	struct csm_config c;

	(void)state;
	parse(NULL, &c);
	assert_defaults(&c);
	csm_config_clear(&c);
	parse("{}", &c);
	assert_defaults(&c);
	csm_config_clear(&c);
	csm_config_clear(&c);
}

static void test_installed_file(void **state)
{
	char *text = read_file(INSTALLED);
	struct csm_config c;

	(void)state;
	parse(text, &c);
	assert_defaults(&c);
	csm_config_clear(&c);
	free(text);
}

static void test_policies_of_the_root_key(void **state)
{
	struct csm_config c;

	(void)state;
	parse("tpm: {pcrs: [7, 0, 23, 2]}\n", &c);
	assert_string_equal(c.tpm_pcrs, "0,2,7,23");
	csm_config_clear(&c);
	parse("tpm: {policy_key: /k.pem, policy_file: /f, policy_ref: spring}\n", &c);
	assert_null(c.tpm_pcrs);
	assert_string_equal(c.tpm_policy_key, "/k.pem");
	assert_string_equal(c.tpm_policy_file, "/f");
	assert_string_equal(c.tpm_policy_ref, "spring");
	csm_config_clear(&c);
	parse("tpm: {policy_file: /f, pcrs: [7]}\n", &c); /* the way out of a signed policy */
	assert_null(c.tpm_policy_key);
	assert_string_equal(c.tpm_policy_file, "/f");
	assert_string_equal(c.tpm_pcrs, "7");
	csm_config_clear(&c);
}

static void test_every_key(void **state)
{
	struct csm_config c;

	(void)state;
	parse("socket: /s/csm.sock\nadmin_socket: /s/admin.sock\nstate_dir: /state\npolicy: /p.yaml\nplugin_dir: /pl\n"
	      "users: {broker: 64001, enrol: en-rol, ident: i, plughost: p_1}\n"
	      "root_key: file\nroot_key_file: /keys/root\nroot_key_unprotected: true\n"
	      "backends: {default: soft, enable: [soft, tpm2, fake], fake: \"sign=delay:500ms\"}\n"
	      "tpm: {device: /dev/tpm0, tcti: \"swtpm:path=/x\", owner_auth: \"@/keys/owner\", bus_protection: full,\n"
	      "  accept_foreign_primary: true}\n"
	      "store: {map_size: 512MiB, epoch_interval: 30s}\naudit: {mode: strict, max_size: 1MiB, max_files: 3}\n"
	      "limits: {connections_per_uid: 5, connections: 50}\nkubernetes: {kubepods_root: /kubepods}\n"
	      "loops: 3\nnice: -20\nlog_level: debug\nsandbox: required\n", &c);
	assert_string_equal(c.socket, "/s/csm.sock");
	assert_string_equal(c.admin_socket, "/s/admin.sock");
	assert_string_equal(c.state_dir, "/state");
	assert_string_equal(c.policy, "/p.yaml");
	assert_string_equal(c.plugin_dir, "/pl");
	assert_string_equal(c.user_broker, "64001");
	assert_string_equal(c.user_enrol, "en-rol");
	assert_string_equal(c.user_ident, "i");
	assert_string_equal(c.user_plughost, "p_1");
	assert_int_equal(c.root_key, CSM_ROOT_FILE);
	assert_string_equal(c.root_key_file, "/keys/root");
	assert_true(c.root_key_unprotected);
	assert_string_equal(c.backend_default, "soft");
	assert_string_equal(c.backends, "soft,tpm2,fake");
	assert_string_equal(c.fake_script, "sign=delay:500ms");
	assert_string_equal(c.tpm_device, "/dev/tpm0");
	assert_string_equal(c.tpm_tcti, "swtpm:path=/x");
	assert_string_equal(c.tpm_owner_auth_file, "/keys/owner");
	assert_string_equal(c.tpm_bus_protection, "full");
	assert_true(c.tpm_accept_foreign);
	assert_true(c.map_size == UINT64_C(512) << 20);
	assert_true(c.epoch_interval_s == 30);
	assert_true(c.audit_strict);
	assert_true(c.audit_max_size == UINT64_C(1) << 20);
	assert_int_equal(c.audit_max_files, 3);
	assert_int_equal(c.connections_per_uid, 5);
	assert_int_equal(c.connections, 50);
	assert_string_equal(c.kubepods_root, "/kubepods");
	assert_int_equal(c.loops, 3);
	assert_int_equal(c.nice, -20);
	assert_string_equal(c.log_level, "debug");
	assert_true(c.require_sandbox);
	csm_config_clear(&c);
}

static void test_backends_of_their_own(void **state)
{
	const struct csm_plughost_config *p;
	struct csm_config c;

	(void)state;
	parse("backends:\n  default: hsm1\n"
	      "  hsm1: {module: /m.so, token: \"pkcs11:token=t\", pin: \"file:/pin\", type: pkcs11, network: local, timeout: 2min,\n"
	      "    read: [/a, /b], write: [/c], environment: {SOFTHSM2_CONF: /conf}}\n"
	      "  hw1: {type: hwpluginif, folder: /f, user: \"64001\", pin: \"secret:a:b/c/d\"}\n", &c);
	assert_int_equal(c.n_plughosts, 2);
	assert_string_equal(c.backend_default, "hsm1");
	p = csm_config_plughost(&c, "hsm1");
	assert_ptr_equal(p, &c.plughosts[0]);
	assert_string_equal(p->type, "pkcs11");
	assert_string_equal(p->user, "csm-plug");
	assert_string_equal(p->pin_file, "/pin");
	assert_null(p->pin_secret);
	assert_string_equal(csm_plughost_option(p, "module"), "/m.so");
	assert_string_equal(csm_plughost_option(p, "token"), "pkcs11:token=t");
	assert_null(csm_plughost_option(p, "folder"));
	assert_int_equal(p->network, CSM_NETWORK_LOCAL);
	assert_int_equal(p->timeout_ms, 120000);
	assert_string_equal(p->read[1], "/b");
	assert_null(p->read[2]);
	assert_string_equal(p->write[0], "/c");
	assert_string_equal(p->environment[0].name, "SOFTHSM2_CONF");
	assert_string_equal(p->environment[0].value, "/conf");
	p = csm_config_plughost(&c, "hw1");
	assert_string_equal(p->user, "64001");
	assert_string_equal(p->pin_secret, "a:b/c/d");
	assert_int_equal(p->network, CSM_NETWORK_NONE);
	assert_null(csm_config_plughost(&c, "hw2"));
	csm_config_clear(&c);
}

static void test_root_keys(void **state)
{
	struct csm_config c;

	(void)state;
	parse("root_key: passphrase\nroot_key_file: /keys/pass\n", &c);
	assert_int_equal(c.root_key, CSM_ROOT_PASSPHRASE);
	csm_config_clear(&c);
	parse("root_key: credential\nroot_key_file: csm.root\n", &c);
	assert_int_equal(c.root_key, CSM_ROOT_CREDENTIAL);
	assert_string_equal(c.root_key_file, "csm.root");
	csm_config_clear(&c);
	/* a folder whose name begins like the store's is not the store */
	parse("root_key: passphrase\nstate_dir: /state\nroot_key_file: /state2/pass\n", &c);
	csm_config_clear(&c);
	parse("policy: \"\"\nplugin_dir: \"\"\ntpm: {owner_auth: \"\"}\n", &c);
	assert_null(c.policy);
	assert_null(c.plugin_dir);
	assert_null(c.tpm_owner_auth_file);
	csm_config_clear(&c);
}

static void test_tctis_and_backends(void **state)
{
	static const char *const taken[] = {
		"tpm: {tcti: \"\"}", "tpm: {tcti: swtpm}", "tpm: {tcti: \"swtpm:\"}", "tpm: {tcti: \"swtpm:path=/run/sock\"}",
		"tpm: {tcti: \"swtpm:host=localhost,port=2321\"}", "tpm: {tcti: \"swtpm:port=2321\"}",
		"tpm: {tcti: \"device:/dev/tpmrm0\"}", "tpm: {tcti: tabrmd}", "tpm: {tcti: \"tabrmd:bus_type=session\"}",
		"tpm: {tcti: \"tabrmd:bus_name=a.b,bus_type=system\"}", "backends: {default: soft}", "backends: {default: auto, enable: [tpm2]}",
		"backends: {default: tpm2, enable: [soft, tpm2]}", "backends: {default: fake, enable: [soft], fake: x}",
	};
	struct csm_config c;

	(void)state;
	for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
		parse(taken[i], &c);
		csm_config_clear(&c);
	}
	parse("loops: 1\nplugin_dir: /x\n", &c);
	assert_true(c.plugin_dir_line == 2 && c.plugin_dir_column == 1);
	csm_config_clear(&c);
}

static void test_measures(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes, seconds;
	} cases[] = {
		{"store: {map_size: 1024KiB}", UINT64_C(1) << 20, 600},
		{"store: {map_size: 1MiB}", UINT64_C(1) << 20, 600},
		{"store: {map_size: 16TiB}", UINT64_C(16) << 40, 600},
		{"store: {epoch_interval: 1s}", UINT64_C(64) << 30, 1},
		{"store: {epoch_interval: 24h}", UINT64_C(64) << 30, 86400},
		{"store: {epoch_interval: 90min}", UINT64_C(64) << 30, 5400},
	};
	struct csm_config c;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		parse(cases[i].text, &c);
		assert_true(c.map_size == cases[i].bytes);
		assert_true(c.epoch_interval_s == cases[i].seconds);
		csm_config_clear(&c);
	}
}

/* Cases "=== LINE:COLUMN MESSAGE", then the text that is refused. */
static void check_refusal(const char *head, const char *text)
{
	struct csm_policy_error err = {77, 77, "untouched"};
	struct csm_config c = {.loops = 4711};
	char got[320];

	if (csm_config_parse(text, strlen(text), &c, &err) != CSM_EINVALID)
		fail_msg("taken, but expected: %s", head);
	assert_int_equal(c.loops, 4711);
	snprintf(got, sizeof(got), "%u:%u %s", err.line, err.column, err.message);
	if (strcmp(got, head) != 0)
		fail_msg("expected: %s\n     got: %s", head, got);
}

static void test_refusals(void **state)
{
	char *all = read_file(CASES), *head = strstr(all, "=== ");
	size_t n = 0;

	(void)state;
	for (; head != NULL; n++) {
		char *text = strchr(head, '\n') + 1;
		char *next = strstr(text - 1, "\n=== ");
		text[-1] = 0;
		if (next != NULL)
			next[1] = 0;
		check_refusal(head + 4, text);
		if (next != NULL)
			next[1] = '=';
		head = next != NULL ? next + 1 : NULL;
	}
	assert_true(n >= 40);
	free(all);
}

/* A secret that stands in the file by mistake is not told again in the message. */
static void test_owner_auth_is_not_repeated(void **state)
{
	static const char text[] = "tpm: {owner_auth: hunter2}\n";
	struct csm_policy_error err;
	struct csm_config c;

	(void)state;
	assert_int_equal(csm_config_parse(text, strlen(text), &c, &err), CSM_EINVALID);
	assert_null(strstr(err.message, "hunter2"));
}

static void test_size(void **state)
{
	char *big = malloc(CSM_CONFIG_MAX + 1);
	struct csm_policy_error err;
	struct csm_config c;

	(void)state;
	assert_non_null(big);
	memset(big, 'x', CSM_CONFIG_MAX + 1);
	big[snprintf(big, 16, "loops: 1\n#")] = 'x';
	assert_int_equal(csm_config_parse(big, CSM_CONFIG_MAX + 1, &c, &err), CSM_EINVALID);
	assert_string_equal(err.message, "the file is longer than 65536 bytes");
	assert_int_equal(csm_config_parse(big, CSM_CONFIG_MAX, &c, &err), 0);
	csm_config_clear(&c);
	free(big);
}

static void test_enrolment(void **state)
{
	const struct csm_enrol_profile *p;
	struct csm_config c;

	(void)state;
	parse("enrolment:\n  usage_interval: 5min\n  profiles:\n"
	     "    default: {anchors: /etc/csm/ca.pem}\n"
	     "    est-1:\n      protocol: est\n      url: https://ca.example:8443/x\n      label: web\n"
	     "      root_sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n"
	     "      token: file:/etc/csm/token\n      subject: /O=x/CN={name}.{hostname}\n"
	     "      san: [\"dns:{name}.{hostname}\", \"uri:spiffe://x/{unit}\"]\n      names: [\"dns:*.example\"]\n"
	     "      subject_by: ca\n      life: 90d\n      timeout: 20s\n"
	     "      renewal: {at: 50%, new_key: true, overlap: 10min}\n      tls_key_backend: soft\n"
	     "      node: {label: node, subject: \"/CN=n-{hostname}\", san: [\"dns:{hostname}\"]}\n",
		&c);
	assert_int_equal(c.usage_interval_s, 300);
	assert_int_equal(c.n_enrol, 2);
	p = csm_config_enrol(&c, "", 0);
	assert_ptr_equal(p, &c.enrol[0]);
	assert_false(p->est);
	assert_string_equal(p->anchors_file, "/etc/csm/ca.pem");
	assert_string_equal(p->subject, "/CN={name}");
	assert_string_equal(p->node.subject, "/CN={hostname}");
	assert_null(p->san[0]);
	assert_null(p->names[0]);
	assert_int_equal(p->timeout_s, 60);
	assert_int_equal(p->life_s, 0);
	assert_int_equal(p->renew_percent, 0);
	assert_false(p->new_key);
	assert_int_equal(p->overlap_s, 3600);
	assert_null(p->key_backend);
	p = csm_config_enrol(&c, "est-1", 5);
	assert_true(p->est && p->any_subject);
	assert_string_equal(p->url, "https://ca.example:8443/x");
	assert_string_equal(p->token_file, "/etc/csm/token");
	assert_string_equal(p->san[1], "uri:spiffe://x/{unit}");
	assert_null(p->san[2]);
	assert_string_equal(p->names[0], "dns:*.example");
	assert_int_equal(p->life_s, 90 * 86400);
	assert_int_equal(p->renew_percent, 50);
	assert_true(p->new_key);
	assert_int_equal(p->overlap_s, 600);
	assert_string_equal(p->key_backend, "soft");
	assert_string_equal(p->node.label, "node");
	assert_string_equal(p->node.san[0], "dns:{hostname}");
	assert_null(csm_config_enrol(&c, "none", 4));
	csm_config_clear(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_installed_file),
		cmocka_unit_test(test_every_key),
		cmocka_unit_test(test_policies_of_the_root_key),
		cmocka_unit_test(test_backends_of_their_own),
		cmocka_unit_test(test_enrolment),
		cmocka_unit_test(test_root_keys),
		cmocka_unit_test(test_tctis_and_backends),
		cmocka_unit_test(test_measures),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_owner_auth_is_not_repeated),
		cmocka_unit_test(test_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
