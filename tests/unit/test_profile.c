#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "daemon/pki/subject.h"
#include "tests/lib/pkifix.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

static char why[CSM_CERTREQ_WHY];

static int judge(const struct csm_profile *p, const struct pki_reqspec *spec, uint64_t life)
{
	struct csm_certreq *q;
	struct csm_buf der;
	int r;

	csm_buf_init(&der, 65536, false);
	pki_request(spec, &der);
	why[0] = '\0';
	assert_int_equal(csm_profile_check(p, why), 0);
	assert_int_equal(csm_certreq_read((struct csm_bin){csm_buf_ptr(&der), der.len}, &q, why), 0);
	r = csm_profile_allows(p, q, life, why);
	csm_certreq_free(q);
	csm_buf_free(&der);
	return r;
}

static void refused(const struct csm_profile *p, const struct pki_reqspec *spec, const char *reason)
{
	assert_int_equal(judge(p, spec, PKI_DAY), CSM_EDENIED);
	if (strstr(why, reason) == NULL)
		fail_msg("\"%s\" is not in \"%s\"", reason, why);
}

static void what_the_profile_gives_is_given(void **state)
{
	struct csm_profile p = pki_profile();
	const struct pki_reqspec spec = {.subject = "/O=Example Ltd/CN=a.example", .key = pki_key("p256"), .exts = {
		{"subjectAltName", "DNS:a.example,IP:10.1.2.3,URI:spiffe://td/ns/prod/sa/web,email:ops@Example.org"},
		{"keyUsage", "digitalSignature"}, {"extendedKeyUsage", "serverAuth"}, {"basicConstraints", "CA:FALSE"}}};

	(void)state;
	p.cn_is_san = true;
	p.needs_san = true;
	assert_int_equal(judge(&p, &spec, 2 * PKI_DAY), 0);
	assert_int_equal(judge(&p, &spec, 2 * PKI_DAY + 1), CSM_EDENIED);
	assert_non_null(strstr(why, "a life of 172801 s"));
	assert_int_equal(judge(&p, &spec, 0), CSM_EDENIED);
}

static void what_it_does_not_give_is_refused_with_the_reason(void **state)
{
	static const struct {
		struct pki_ext ext;
		const char *reason;
	} rows[] = {
		{{"basicConstraints", "CA:TRUE"}, "CA:TRUE"},
		{{"basicConstraints", "critical,CA:TRUE,pathlen:3"}, "CA:TRUE"},
		{{"keyUsage", "digitalSignature,keyCertSign"}, "key usage"},
		{{"keyUsage", "decipherOnly"}, "key usage"},
		{{"extendedKeyUsage", "serverAuth,clientAuth"}, "1.3.6.1.5.5.7.3.2"},
		{{"extendedKeyUsage", "anyExtendedKeyUsage"}, "2.5.29.37.0"},
		{{"1.2.3.4.5", "ASN1:NULL"}, "extension 1.2.3.4.5"},
		{{"nameConstraints", "permitted;DNS:x"}, "extension 2.5.29.30"},
		{{"tlsfeature", "status_request"}, "extension 1.3.6.1.5.5.7.1.24"},
		{{"subjectAltName", "DNS:a.example,DNS:b.elsewhere"}, "dns:b.elsewhere is outside"},
		{{"subjectAltName", "IP:11.0.0.1"}, "ip:11.0.0.1 is outside"},
	};
	struct csm_profile p = pki_profile();
	struct pki_reqspec spec = {.subject = "/CN=a.example", .key = pki_key("p256")};

	(void)state;
	assert_int_equal(judge(&p, &spec, PKI_DAY), 0);
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		spec.exts[0] = rows[i].ext;
		refused(&p, &spec, rows[i].reason);
	}
}

static void keys_are_of_the_profiles_kinds(void **state)
{
	struct csm_profile p = pki_profile();
	struct pki_reqspec spec = {.subject = "/CN=a.example", .key = pki_key("p256")};

	(void)state;
	p.keys = CSM_PROFILE_P384 | CSM_PROFILE_RSA;
	p.rsa_min = 3072;
	refused(&p, &spec, "does not take P-256 keys");
	spec.key = pki_key("ed25519");
	refused(&p, &spec, "does not take Ed25519 keys");
	spec.key = pki_key("rsa2048");
	refused(&p, &spec, "RSA of 2048 bits");
	spec.key = pki_key("rsa3072");
	assert_int_equal(judge(&p, &spec, 1), 0);
	spec.key = pki_key("p384");
	assert_int_equal(judge(&p, &spec, 1), 0);
	p.keys = CSM_PROFILE_ED25519;
	refused(&p, &spec, "does not take P-384 keys");
}

static void subjects_are_of_the_profiles_attributes(void **state)
{
	static const struct {
		const char *subject, *reason; /* NULL: allowed */
	} rows[] = {
		{"/CN=a.example", NULL},
		{"/O=Example/CN=a.example", NULL},
		{"/CN=a.example/O=Example/OU=x", "attribute 3"},
		{"/CN=a.example/CN=b", "CN stands there twice"},
		{"/O=Other/CN=a.example", "O is outside"},
		{"/O=Example", "CN is missing"},
		{"/O=Example/CN=b.example", "CN is not among"},
		{"/CN=a.example/1.2.3.4=x", "attribute 2"},
		{"/CN=A.EXAMPLE", NULL},
		{"/CN=spiffe:\\/\\/td\\/ns\\/a\\/sa\\/b", NULL},
		{NULL, "CN is missing"},
	};
	struct csm_profile p = pki_profile();
	struct csm_subject_rule rules[] = {{NID_commonName, CSM_STR("*"), true}, {NID_organizationName, CSM_STR("Example"), false}};
	struct pki_reqspec spec = {.key = pki_key("p256"),
		.exts = {{"subjectAltName", "DNS:a.example,URI:spiffe://td/ns/a/sa/b"}}};

	(void)state;
	p.subject = rules;
	p.cn_is_san = true;
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		spec.subject = rows[i].subject;
		if (rows[i].reason != NULL)
			refused(&p, &spec, rows[i].reason);
		else
			assert_int_equal(judge(&p, &spec, 1), 0);
	}
	/* no rules: no subject */
	p.n_subject = 0;
	spec.subject = "/CN=a.example";
	refused(&p, &spec, "attribute 1");
	spec.subject = NULL;
	assert_int_equal(judge(&p, &spec, 1), 0);
	spec.exts[0].name = NULL;
	refused(&p, &spec, "no alternative name");
	p.max_sans = 1;
	spec.exts[0].name = "subjectAltName";
	refused(&p, &spec, "more than 1");
}

/* A CN of "any text" is no way around the rules for hosts. */
static void a_cn_that_is_a_host_is_one_that_the_names_allow(void **state)
{
	static const struct {
		const char *subject, *cn_rule, *eku;
		bool allowed, beside_a_host;
	} rows[] = {
		{"/CN=a.example", "*", "serverAuth", true, true}, {"/CN=b.c.example", "*", "serverAuth", true, true},
		{"/CN=bank.test", "*", "serverAuth", false, false}, {"/CN=intranet", "*", "serverAuth", false, true},
		{"/CN=INTRANET", "*", "2.5.29.37.0", false, true}, {"/CN=intranet", "*", NULL, false, true},
		{"/CN=intranet.", "*", NULL, false, false}, {"/CN=*.test", "*", NULL, false, false}, {"/CN=*.example", "*", NULL, false, false},
		{"/CN=a_b.test", "*", NULL, false, false}, {"/CN=10.9.9.9", "*", NULL, false, false}, {"/CN=10.0.0.1", "*", NULL, true, true},
		{"/CN=printer", "*", "serverAuth", true, true},
		/* not a host, not for a server, or chosen for it */
		{"/CN=the first one", "*", "serverAuth", true, true}, {"/CN=spiffe:\\/\\/x", "*", "serverAuth", true, true},
		{"/CN=a..b", "*", NULL, true, true}, {"/CN=alice", "*", "clientAuth", true, true},
		{"/CN=node-7", "node-*", "serverAuth", true, true}, {"/CN=node-7", "node-7", NULL, true, true},
	};
	struct csm_subject_rule rule = {NID_commonName, {NULL, 0}, true};
	const struct csm_str sans[] = {CSM_STR("dns:.example"), CSM_STR("dns:printer"), CSM_STR("ip:10.0.0.0/24")};
	struct csm_profile p = pki_profile();
	struct pki_reqspec spec = {.key = pki_key("p256"), .exts = {{"subjectAltName", NULL}}};

	(void)state;
	p.subject = &rule;
	p.n_subject = 1;
	p.sans = sans;
	p.n_sans = N_ELEMS(sans);
	for (size_t i = 0; i < 2 * N_ELEMS(rows); i++) {
		bool host = i % 2 == 1, allowed = host ? rows[i / 2].beside_a_host : rows[i / 2].allowed;

		rule.value = csm_str_of(rows[i / 2].cn_rule);
		p.ekus[0] = rows[i / 2].eku;
		p.n_ekus = rows[i / 2].eku != NULL;
		spec.subject = rows[i / 2].subject;
		spec.exts[0].value = host ? "DNS:z.example,IP:10.0.0.1" : "IP:10.0.0.1";
		if (judge(&p, &spec, 1) != (allowed ? 0 : CSM_EDENIED))
			fail_msg("%s by %s: %s", rows[i / 2].subject, rows[i / 2].cn_rule, why);
		assert_true(allowed || strstr(why, "CN is the name of a host") != NULL);
	}
	/* what a CA is called is no host's name */
	p.ca = true;
	p.key_usage = KU_KEY_CERT_SIGN;
	p.n_ekus = 0;
	spec.subject = "/CN=Under";
	rule.value = CSM_STR("*");
	assert_int_equal(judge(&p, &spec, 1), 0);
}

static void rules_for_names_match_what_they_say(void **state)
{
	static const struct {
		const char *rule, *name;
		bool allowed;
	} rows[] = {
		{"dns:a.example", "dns:a.example", true},
		{"dns:a.example", "dns:A.Example", true},
		{"dns:a.example", "dns:b.a.example", false},
		{"dns:.example", "dns:a.example", true},
		{"dns:.example", "dns:a.b.c.example", true},
		{"dns:.example", "dns:example", false},
		{"dns:.example", "dns:evilexample", false},
		{"dns:.example", "dns:a.example.evil", false},
		{"dns:.example", "dns:*.example", false},
		{"dns:*.a.example", "dns:x.a.example", true},
		{"dns:*.a.example", "dns:x.y.a.example", false},
		{"dns:web-*.a.example", "dns:web-17.a.example", true},
		{"dns:web-*.a.example", "dns:db-17.a.example", false},
		{"dns:web-*.a.example", "dns:web-x.y.a.example", false},
		{"dns:*.*.example", "dns:x.y.example", true},
		{"dns:*.*.example", "dns:x.y.z.example", false},
		{"dns:*-*.example", "dns:a-b-c.example", true},
		{"dns:**", "dns:localhost", true},
		{"dns:**", "dns:a.b.example", true},
		{"dns:**", "dns:*.example", false},
		{"ip:10.0.0.0/8", "ip:10.255.0.1", true},
		{"ip:10.0.0.0/8", "ip:11.0.0.1", false},
		{"ip:10.1.2.0/23", "ip:10.1.3.255", true},
		{"ip:10.1.2.0/23", "ip:10.1.4.0", false},
		{"ip:10.1.2.3", "ip:10.1.2.3", true},
		{"ip:10.1.2.3", "ip:10.1.2.2", false},
		{"ip:0.0.0.0/0", "ip:::1", false},
		{"ip:2001:db8::/33", "ip:2001:db8:7fff::1", true},
		{"ip:2001:db8::/33", "ip:2001:db8:8000::1", false},
		{"ip:::ffff:10.0.0.0/104", "ip:10.0.0.1", false},
		{"uri:spiffe://td/ns/*/sa/web", "uri:spiffe://td/ns/prod/sa/web", true},
		{"uri:spiffe://td/ns/*/sa/web", "uri:spiffe://td/ns/a/b/sa/web", false},
		{"uri:spiffe://td/ns/*/sa/web", "uri:spiffe://td/ns/a%2Fb/sa/web", false},
		{"uri:spiffe://td/ns/*", "uri:spiffe://td/ns/..", false},
		{"uri:spiffe://td/ns/*/sa/web", "uri:spiffe://td/ns//sa/web", false},
		{"uri:spiffe://td/ns/*/sa/web", "uri:spiffe:///ns/a/sa/web", false},
		{"uri:spiffe://*/x", "uri:spiffe:///x", false},
		{"uri:spiffe://td/ns/*/*", "uri:spiffe://td/ns/../admin", false},
		{"uri:spiffe://td/ns/**", "uri:spiffe://td/ns/a/b/c", true},
		{"uri:spiffe://td/ns/**", "uri:spiffe://td/ns/a/../../admin", false},
		{"uri:spiffe://td/ns/**", "uri:spiffe://td/ns/a/%2e%2E/admin", false},
		{"uri:spiffe://td/ns/**", "uri:spiffe://td/ns/", false},
		{"uri:spiffe://td/ns/**", "uri:spiffe://td/nsx/a", false},
		{"uri:spiffe://td/ns/**", "uri:spiffe://td/ns/a?b", false},
		{"uri:spiffe://td/ns/**", "uri:spiffe://td/ns/a//b", false},
		{"uri:spiffe://*.td/x", "uri:spiffe://a.td/x", true},
		{"uri:spiffe://*.td/x", "uri:spiffe://evil/.td/x", false},
		{"uri:spiffe://*.td/x", "uri:spiffe://u@a.td/x", false},
		{"uri:https://a/*", "uri:https://a/x#y", false},
		{"email:@a.example", "email:x@a.example", true},
		{"email:@a.example", "email:x@A.EXAMPLE", true},
		{"email:@a.example", "email:x@b.a.example", false},
		{"email:.a.example", "email:x@b.a.example", true},
		{"email:.a.example", "email:x@a.example", false},
		{"email:ops@a.example", "email:ops@a.example", true},
		{"email:ops@a.example", "email:Ops@a.example", false},
		{"dns:.example", "email:x@a.example", false},
		{"uri:dns:*", "dns:a", false},
	};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		struct csm_str rule = csm_str_of(rows[i].rule);
		const struct csm_profile p = {.sans = &rule, .n_sans = 1};
		GENERAL_NAMES *names = pki_sans(&rows[i].name, 1);

		assert_true(csm_san_rule_valid(rule));
		if (csm_san_allowed(&p, sk_GENERAL_NAME_value(names, 0)) != rows[i].allowed)
			fail_msg("%s: %s", rows[i].rule, rows[i].name);
		GENERAL_NAMES_free(names);
	}
}

static void wildcards_need_the_whole_domain_and_consent(void **state)
{
	static const struct {
		const char *rule, *name;
		bool allowed;
	} rows[] = {
		{"dns:.example", "dns:*.example", true},
		{"dns:.example", "dns:*.a.example", true},
		{"dns:*.example", "dns:*.example", false},
		{"dns:a.example", "dns:*.example", false},
		{"dns:.a.example", "dns:*.example", false},
		{"dns:.example", "dns:*.evilexample", false},
		{"dns:**", "dns:*.example", false},
	};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		struct csm_str rule = csm_str_of(rows[i].rule);
		struct csm_profile p = {.sans = &rule, .n_sans = 1, .wildcards = true};
		GENERAL_NAMES *names = pki_sans(&rows[i].name, 1);

		if (csm_san_allowed(&p, sk_GENERAL_NAME_value(names, 0)) != rows[i].allowed)
			fail_msg("%s: %s", rows[i].rule, rows[i].name);
		p.wildcards = false;
		assert_false(csm_san_allowed(&p, sk_GENERAL_NAME_value(names, 0)));
		GENERAL_NAMES_free(names);
	}
}

static void rules_that_are_none_are_told(void **state)
{
	static const char *const bad[] = {"", "dns:", "a.example", "dns:a b", "dns:..example", "ip:10.0.0.0/33", "ip:10.0.0.0/",
		"ip:10.0.0/8", "ip:2001:db8::/129", "ip:10.0.0.0/8x", "uri:*://x/y", "uri:x", "uri:spiffe://td/**/x",
		"uri:spiffe://**", "uri:spiffe://td/../x", "uri:spiffe://td//x", "uri:spiffe://td/a**", "email:", "email:a.example", "email:*@a.example",
		"email:@", "other:x", "uri:a:**"};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(bad); i++)
		if (csm_san_rule_valid(csm_str_of(bad[i])))
			fail_msg("%s", bad[i]);
}

static void profiles_that_contradict_themselves_are_told(void **state)
{
	const struct csm_profile good = pki_profile();
	const struct csm_str constraint = CSM_STR("dns:x");
	const struct csm_subject_rule twice[] = {{NID_commonName, CSM_STR("*"), false}, {NID_commonName, CSM_STR("a"), false}};
	struct csm_profile p;

	(void)state;
	assert_int_equal(csm_profile_check(&good, why), 0);
#define BAD(set, field) \
	do { \
		p = good; \
		set; \
		assert_int_equal(csm_profile_check(&p, why), CSM_EINVALID); \
		assert_non_null(strstr(why, field)); \
	} while (0)
	BAD(p.keys = 0, "keys");
	BAD(p.keys = 32, "keys");
	BAD(p.rsa_min = 1024, "rsa_min");
	BAD(p.rsa_max = 1024, "rsa_min");
	BAD(p.max_life = 0, "max_life");
	BAD(p.key_usage |= KU_KEY_CERT_SIGN, "keyCertSign");
	BAD(p.key_usage |= KU_CRL_SIGN, "keyCertSign");
	BAD(p.ca = true, "keyCertSign");
	BAD(p.key_usage = 0, "key_usage");
	BAD(p.ekus[0] = "noSuchUsage", "ekus");
	BAD((p.permitted = &constraint, p.n_permitted = 1), "name constraints");
	BAD((p.sans = &twice[0].value, p.n_sans = 1), "sans");
	BAD((p.subject = twice, p.n_subject = 2), "subject");
#undef BAD
}

static void a_cas_profile_takes_a_cas_request(void **state)
{
	struct csm_profile p = pki_profile();
	struct pki_reqspec spec = {.subject = "/CN=Intermediate", .key = pki_key("p256"),
		.exts = {{"basicConstraints", "critical,CA:TRUE"}, {"keyUsage", "critical,keyCertSign,cRLSign"}}};

	(void)state;
	p.ca = true;
	p.key_usage = KU_KEY_CERT_SIGN | KU_CRL_SIGN;
	p.n_ekus = 0;
	assert_int_equal(judge(&p, &spec, 1), 0);
	spec.subject = NULL;
	refused(&p, &spec, "subject: a CA has to have one");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_the_profile_gives_is_given),
		cmocka_unit_test(what_it_does_not_give_is_refused_with_the_reason),
		cmocka_unit_test(keys_are_of_the_profiles_kinds),
		cmocka_unit_test(subjects_are_of_the_profiles_attributes),
		cmocka_unit_test(a_cn_that_is_a_host_is_one_that_the_names_allow),
		cmocka_unit_test(rules_for_names_match_what_they_say),
		cmocka_unit_test(wildcards_need_the_whole_domain_and_consent),
		cmocka_unit_test(rules_that_are_none_are_told),
		cmocka_unit_test(profiles_that_contradict_themselves_are_told),
		cmocka_unit_test(a_cas_profile_takes_a_cas_request),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
