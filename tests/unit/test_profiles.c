#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <openssl/objects.h>
#include "daemon/central/profiles.h"
#include "proto-spec/limits.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

static int read_text(const char *text, const char *url, struct profiles **ret, struct csm_policy_error *err)
{
	struct csm_yaml y;
	int r = csm_yaml_parse(text, strlen(text), CSM_CONFIG_MAX, &y, err);

	assert_int_equal(r, 0);
	r = profiles_read(y.root, url, ret, err);
	csm_yaml_free(&y); /* nothing of it is needed any more */
	return r;
}

static struct profiles *good(const char *text, const char *url)
{
	struct csm_policy_error err;
	struct profiles *p = NULL;

	if (read_text(text, url, &p, &err) != 0)
		fail_msg("%u:%u %s", err.line, err.column, err.message);
	return p;
}

static void without_any_there_is_a_default(void **state)
{
	struct profiles *p = good("listen: x\n", "");
	const struct profile_config *d = profiles_get(p, CSM_STR("default")), *n = profiles_get(p, CSM_STR("node"));

	(void)state;
	assert_non_null(d);
	assert_string_equal(d->issuer->key, "ca");
	assert_string_equal(d->role, "");
	assert_int_equal(d->ask, ASK_TOKEN | ASK_NODE | ASK_OPERATOR | ASK_ADMINISTRATOR);
	assert_true(d->x509.max_life == 90 * 86400 && d->life == 30 * 86400 && !d->x509.ca && d->x509.ocsp_url == NULL);
	assert_non_null(n);
	assert_string_equal(n->role, "node");
	assert_int_equal(n->ask, ASK_TOKEN | ASK_OPERATOR | ASK_ADMINISTRATOR);
	assert_null(profiles_get(p, CSM_STR("defaul")));
	assert_null(profiles_at(p, 4));
	assert_null(profiles_issuer_at(p, 1));
	profiles_free(p);
	profiles_free(NULL);
}

static const char whole[] =
	"issuers:\n"
	"  default: {key: ca}\n"
	"  web: {key: \"pki:web\", scheme: ecdsa-sha384}\n"
	"profiles:\n"
	"  tls:\n"
	"    issuer: web\n"
	"    ask: [token, administrator]\n"
	"    max_life: 7d\n"
	"    life: 36h\n"
	"    keys: [p256, rsa3072]\n"
	"    key_usage: [digitalSignature, keyEncipherment]\n"
	"    ekus: [serverAuth, 1.3.6.1.5.5.7.3.2]\n"
	"    subject: {CN: {value: \"*.example\", required: true}, O: Example}\n"
	"    cn_is_san: true\n"
	"    san: [\"dns:.example\", \"ip:10.0.0.0/8\"]\n"
	"    max_sans: 3\n"
	"    needs_san: true\n"
	"    wildcards: true\n"
	"  sub:\n"
	"    ca: {path_len: 1, permitted: [\"dns:example\"]}\n"
	"    max_life: 5y\n"
	"    subject: {CN: {required: true}}\n"
	"  ops: {role: operator, max_life: 10min, subject: {CN: \"*\"}}\n"
	"  nodes: {role: node, subject: {CN: \"*\"}}\n";

static void what_is_written_is_what_is_given(void **state)
{
	struct profiles *p = good(whole, "http://ca.example");
	const struct profile_config *t = profiles_get(p, CSM_STR("tls")), *s = profiles_get(p, CSM_STR("sub")),
		*o = profiles_get(p, CSM_STR("ops")), *n = profiles_get(p, CSM_STR("nodes"));

	(void)state;
	assert_string_equal(t->issuer->name, "web");
	assert_string_equal(t->issuer->key, "pki:web");
	assert_string_equal(t->issuer->scheme, "ecdsa-sha384");
	assert_int_equal(t->ask, ASK_TOKEN | ASK_ADMINISTRATOR);
	assert_int_equal(t->x509.max_life, 7 * 86400);
	assert_int_equal(t->life, 36 * 3600);
	assert_int_equal(t->x509.keys, CSM_PROFILE_P256 | CSM_PROFILE_RSA);
	assert_true(t->x509.rsa_min == 3072 && t->x509.rsa_max == 3072);
	assert_int_equal(t->x509.key_usage, KU_DIGITAL_SIGNATURE | KU_KEY_ENCIPHERMENT);
	assert_true(t->x509.n_ekus == 2 && t->x509.n_subject == 2 && t->x509.n_sans == 2 && t->x509.max_sans == 3);
	assert_true(t->x509.subject[0].nid == NID_commonName && t->x509.subject[0].required);
	assert_true(csm_str_eq(t->x509.subject[1].value, "Example") && !t->x509.subject[1].required);
	assert_true(t->x509.cn_is_san && t->x509.needs_san && t->x509.wildcards && !t->x509.ca);
	assert_string_equal(t->x509.ocsp_url, "http://ca.example/ocsp/web");
	assert_string_equal(t->x509.crl_url, "http://ca.example/crl/web.crl");
	assert_string_equal(t->x509.delta_url, "http://ca.example/crl/web.delta.crl");
	assert_string_equal(t->x509.issuer_url, "http://ca.example/ca/web.cer");
	assert_true(s->x509.ca && s->x509.path_len == 1 && s->x509.n_permitted == 1 && s->x509.n_ekus == 0);
	assert_int_equal(s->x509.key_usage, KU_KEY_CERT_SIGN | KU_CRL_SIGN);
	assert_int_equal(s->ask, ASK_ADMINISTRATOR);
	assert_int_equal(s->x509.max_life, UINT64_C(5) * 365 * 86400);
	assert_string_equal(o->role, "operator");
	assert_int_equal(o->ask, ASK_TOKEN | ASK_ADMINISTRATOR);
	assert_int_equal(o->life, 600);
	assert_int_equal(n->ask, ASK_TOKEN | ASK_OPERATOR | ASK_ADMINISTRATOR);
	assert_null(profiles_get(p, CSM_STR("default")));
	assert_null(profiles_get(p, CSM_STR("node")));
	assert_non_null(profiles_get(p, CSM_STR("operator")));
	profiles_free(p);
}

static void operators_and_administrators_are_there_unless_written_otherwise(void **state)
{
	struct profiles *p = good("issuers: {a: {key: a}, b: {key: b}}\nprofiles:\n"
		"  operator: {issuer: b, role: operator, subject: {CN: \"ops-*\"}}\n", "");
	const struct profile_config *o = profiles_get(p, CSM_STR("operator")), *a = profiles_get(p, CSM_STR("administrator"));

	(void)state;
	assert_string_equal(o->issuer->name, "b");
	assert_true(csm_str_eq(o->x509.subject[0].value, "ops-*"));
	assert_string_equal(a->issuer->name, "a");
	assert_string_equal(a->role, "administrator");
	assert_int_equal(a->ask, ASK_TOKEN | ASK_ADMINISTRATOR);
	assert_true(a->x509.n_sans == 0 && a->x509.n_ekus == 1 && a->x509.subject[0].required);
	assert_null(profiles_at(p, 2));
	profiles_free(p);
}

static void what_is_wrong_is_refused_with_its_place(void **state)
{
	static const struct {
		const char *text, *says;
		unsigned line;
	} rows[] = {
		{"issuers: {}\n", "1 to 16", 1},
		{"issuers:\n  A: {key: ca}\n", "a name is", 2},
		{"issuers: {default: {}}\n", "key: the name", 1},
		{"issuers: {default: {key: \"a:b:c\"}}\n", "[NAMESPACE:]KEY", 1},
		{"issuers: {default: {key: ca, keys: x}}\n", "keys", 1},
		{"issuers: {default: {key: ca, scheme: rsa-oaep-sha256}}\n", "is no scheme", 1},
		{"issuers: {default: {key: ca}, b: {key: ca}}\n", "another issuer", 1},
		{"issuers:\n  o:\n    external: \"https://x\"\n", "chain: the file", 3},
		{"issuers:\n  o:\n    external: \"https://x\"\n    chain: /x\n", "name of an enrolment profile", 3},
		{"issuers:\n  o:\n    external: x\n    chain: x\n", "absolute path", 4},
		{"issuers:\n  o: {external: x, chain: /x, scheme: ed25519}\n", "not for an external", 2},
		{"issuers:\n  o: {key: x, chain: /x}\n", "for an external", 2},
		{"issuers:\n  o: {external: x, chain: /x}\n", "csm-server's own", 1},
		{"issuers: {default: {external: x, chain: /x}, o: {key: o}}\n", "csm-server's own", 1},
		{"profiles: {default: {approval: yes}}\n", "unknown word", 1},
		{"profiles: {}\n", "1 to 64", 1},
		{"issuers: {b: {key: ca}}\nprofiles: {x: {subject: {CN: \"*\"}}}\n", "issuer: there is none", 2},
		{"profiles:\n  x:\n    issuer: b\n", "no issuer 'b'", 3},
		{"profiles: {x: {colour: red}}\n", "colour", 1},
		{"profiles: {x: {max_life: 90}}\n", "a number with a unit", 1},
		{"profiles: {x: {max_life: 0d}}\n", "from 1s to 36600d", 1},
		{"profiles: {x: {max_life: 101y}}\n", "from 1s to 36600d", 1},
		{"profiles: {x: {max_life: 99999999999999999999y}}\n", "from 1s to 36600d", 1},
		{"profiles: {x: {max_life: 1d, life: 2d}}\n", "longer than max_life", 1},
		{"profiles: {x: {keys: [p255]}}\n", "unknown word 'p255'", 1},
		{"profiles: {x: {keys: []}}\n", "keys: none", 1},
		{"profiles: {x: {role: root}}\n", "unknown word 'root'", 1},
		{"profiles: {x: {role: [node]}}\n", "role", 1},
		{"profiles: {x: {role: node, ask: [node]}}\n", "not for nodes and services", 1},
		{"profiles: {x: {role: administrator, ask: [service]}}\n", "not for nodes and services", 1},
		{"profiles: {x: {ask: []}}\n", "names nobody", 1},
		{"profiles: {x: {ca: {}, ask: [service]}}\n", "a CA's certificate", 1},
		{"profiles: {x: {key_usage: [keyCertSign]}}\n", "keyCertSign", 1},
		{"profiles: {x: {key_usage: []}}\n", "key_usage: none", 1},
		{"profiles: {x: {ca: {}, key_usage: digitalSignature}}\n", "keyCertSign", 1},
		{"profiles: {x: {ca: {path_len: 17}}}\n", "path_len", 1},
		{"profiles: {x: {ekus: [serverauth]}}\n", "ekus: entry 1", 1},
		{"profiles: {x: {subject: {XX: \"*\"}}}\n", "no attribute", 1},
		{"profiles: {x: {subject: {CN: \"*\", commonName: \"*\"}}}\n", "subject: rule 2", 1},
		{"profiles: {x: {san: [\"host:a\"]}}\n", "rule 1", 1},
		{"profiles: {x: {max_sans: 0}}\n", "max_sans", 1},
		{"profiles: {x: {wildcards: maybe}}\n", "wildcards", 1},
	};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		struct profiles *p = NULL;
		struct csm_policy_error err = {0};

		if (read_text(rows[i].text, "", &p, &err) != CSM_EINVALID)
			fail_msg("taken: %s", rows[i].text);
		if (strstr(err.message, rows[i].says) == NULL || err.line != rows[i].line)
			fail_msg("%s: %u: \"%s\" is not in \"%s\"", rows[i].text, err.line, rows[i].says, err.message);
		assert_null(p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_any_there_is_a_default),
		cmocka_unit_test(what_is_written_is_what_is_given),
		cmocka_unit_test(operators_and_administrators_are_there_unless_written_otherwise),
		cmocka_unit_test(what_is_wrong_is_refused_with_its_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
