/* What an issuer's key may sign: everything that daemon/pki makes within the rules, and nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <openssl/err.h>
#include "daemon/pki/crl.h"
#include "daemon/pki/ocsp.h"
#include "tests/lib/tbsfix.h"

/* ---- certificates ---- */

static void what_a_ca_issues_is_signed_by_keys_of_every_kind(void **state)
{
	static const char *const algs[] = {"p256", "p384", "p521", "rsa2048", "ed25519"};
	struct csm_tbs found;
	struct tbsfix f;

	(void)state;
	for (size_t i = 0; i < N_ELEMS(algs); i++) {
		tbsfix_begin(&f, algs[i]);
		f.profile.ocsp_url = "http://ca.example/ocsp";
		f.profile.crl_url = "http://ca.example/crl";
		assert_int_equal(tbsfix_cert(&f, &found), 0);
		assert_int_equal(found.number_len, 16);
		assert_memory_equal(found.number, f.order.serial, 16);
		assert_int_equal(found.scheme.kind, csm_scheme_default(f.key.alg).kind);
		tbsfix_end(&f);
	}
}

static void a_key_without_a_certificate_signs_its_own_only(void **state)
{
	struct csm_tbs found;
	struct tbsfix f;

	(void)state;
	tbsfix_begin(&f, "p256");
	f.key.chain = (struct csm_bin){NULL, 0};
	tbsfix_expect(&f, CSM_ESTATE, "no certificate is installed");
	f.order.issuer = NULL;
	f.order.spki = f.key.spki;
	f.order.sans = NULL;
	f.order.not_after = PKI_NOW + 20 * YEAR;
	f.profile.ca = true;
	f.profile.max_life = 20 * YEAR + PKI_DAY;
	f.profile.key_usage = KU_KEY_CERT_SIGN | KU_CRL_SIGN;
	f.profile.n_ekus = 0;
	f.profile.path_len = 0;
	tbsfix_expect(&f, 0, NULL);
	f.profile.path_len = 1;
	tbsfix_expect(&f, CSM_EDENIED, "path length");
	f.profile.path_len = CSM_PATH_ANY;
	tbsfix_expect(&f, CSM_EDENIED, "path length");
	f.profile.path_len = 0;
	f.profile.key_usage = KU_CRL_SIGN;
	tbsfix_expect(&f, CSM_EINVALID, "keyCertSign");
	f.profile.key_usage = KU_KEY_CERT_SIGN;
	f.order.spki = pki_spki(pki_key("p384"));
	tbsfix_expect(&f, CSM_EDENIED, "another key");
	/* with a certificate beside it, that decides */
	tbsfix_beside(&f, f.ca.cert, NULL);
	assert_int_not_equal(tbsfix_cert(&f, &found), 0);
	tbsfix_end(&f);
}

static void an_issuer_past_its_time_signs_nothing(void **state)
{
	struct tbsfix f;

	(void)state;
	tbsfix_begin(&f, "p256");
	f.key.now = PKI_NOW + 3651ull * PKI_DAY;
	tbsfix_expect(&f, CSM_ESTATE, "expired");
	f.key.now = PKI_NOW - 3ull * PKI_DAY;
	tbsfix_expect(&f, CSM_ESTATE, "not valid yet");
	f.key.now = PKI_NOW;
	f.key.chain.n--;
	tbsfix_expect(&f, CSM_ESTATE, "cannot be read");
	tbsfix_end(&f);
}

static void lives_are_bounded(void **state)
{
	struct tbsfix f;

	(void)state;
	tbsfix_begin(&f, "p256");
	f.profile.max_life = 20 * YEAR;
	f.rules.max_life.v = 2 * PKI_DAY;
	f.order.not_after = f.order.not_before + 2 * PKI_DAY;
	tbsfix_expect(&f, 0, NULL);
	f.order.not_after++;
	tbsfix_expect(&f, CSM_EDENIED, "its life is longer than 172800 seconds");
	f.order.not_before = PKI_NOW + PKI_DAY;
	f.order.not_after = f.order.not_before + 60;
	tbsfix_expect(&f, 0, NULL);
	f.order.not_before++;
	tbsfix_expect(&f, CSM_EDENIED, "in the future");
	tbsfix_end(&f);
}

static void cas_come_only_as_far_as_both_path_lengths_go(void **state)
{
	struct tbsfix f;

	(void)state;
	tbsfix_begin(&f, "p256"); /* whose certificate says 1 */
	f.profile.ca = true;
	f.profile.key_usage = KU_KEY_CERT_SIGN;
	f.profile.n_ekus = 0;
	f.profile.path_len = 0;
	tbsfix_expect(&f, CSM_EDENIED, "allows none below it");
	f.rules.path_len.v = 1;
	tbsfix_expect(&f, 0, NULL);
	f.rules.path_len.v = 16;
	tbsfix_expect(&f, 0, NULL);
	f.profile.key_usage = KU_DIGITAL_SIGNATURE;
	tbsfix_expect(&f, CSM_EINVALID, "keyCertSign");
	f.profile.ca = false;
	f.profile.key_usage = KU_KEY_CERT_SIGN;
	tbsfix_expect(&f, CSM_EDENIED, "no CA");
	f.profile.key_usage = KU_DIGITAL_SIGNATURE;
	f.profile.ekus[0] = "OCSPSigning";
	f.profile.n_ekus = 1;
	f.profile.max_life = YEAR;
	f.order.not_after = f.order.not_before + CSM_TBS_OCSP_LIFE_MAX;
	tbsfix_expect(&f, 0, NULL);
	f.order.not_after++;
	tbsfix_expect(&f, CSM_EDENIED, "OCSP responder");
	tbsfix_end(&f);
}

static void only_what_is_usual_is_looked_at_at_once(void **state)
{
	static const struct {
		const char *key;
		int quick;
	} rows[] = {{"p256", 0}, {"p384", 0}, {"p521", 0}, {"rsa2048", CSM_EBUSY}, {"ed25519", CSM_EBUSY}};
	struct tbsfix f;

	(void)state;
	tbsfix_begin(&f, "p256");
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		f.order.spki = pki_spki(pki_key(rows[i].key));
		tbsfix_expect(&f, 0, NULL);
		assert_int_equal(tbsfix_quick, rows[i].quick);
	}
	tbsfix_end(&f);
}

static void names_are_within_the_rules(void **state)
{
	static const struct {
		const char *subject, *san;
		bool good;
	} rows[] = {
		{"/CN=a.example", "dns:a.example", true},
		{"/CN=x", "dns:a.b.example", true},
		{"/CN=x", "dns:bad.example", false},
		{"/CN=x", "dns:a.bad.example", false},
		{"/CN=x", "dns:example", false},
		{"/CN=x", "dns:a.example.com", false},
		{"/CN=a.example.com", "dns:a.example", false},
		{"/CN=x/emailAddress=a@example.com", "dns:a.example", false},
		{"/CN=x/emailAddress=a@m.example", "dns:a.example", true},
		{"/CN=x y", "email:a@m.example", true},
		{"/CN=x y", "email:a@example.com", false},
		{"/CN=x y", "ip:10.1.2.3", true},
		{"/CN=x y", "ip:192.0.2.1", false},
		{"/CN=x y", "ip:2001:db8::1", false},
		{"/CN=x y", "uri:https://a.example/b", true}, /* of no kind that the rules name */
		/* names that stand for others */
		{"/CN=x", "dns:*.a.example", true},
		{"/CN=*.a.example", "dns:*.A.example", true},
		{"/CN=x", "dns:*.example", false}, /* bad.example is one of them */
		{"/CN=x", "dns:*.bad.example", false},
		{"/CN=intranet", "email:a@m.example", false}, /* a host, where there is none among the alternative names */
		{"/CN=intranet.", "ip:10.1.2.3", false},
		{"/CN=the intranet", "email:a@m.example", true},
		{"/CN=*.example.com", "email:a@m.example", false},
		{"/CN=*.a.example", "email:a@m.example", false},
		{"/CN=*.example.com", "dns:a.example", false},
		{"/CN=b.example.com.", "dns:a.example", false},
		{"/CN=B. Example Inc.", "dns:a.example", true},
	};
	struct tbsfix f;

	(void)state;
	tbsfix_begin(&f, "p256");
	f.permitted[0] = CSM_STR("dns:.example");
	f.permitted[1] = CSM_STR("ip:10.0.0.0/8");
	f.permitted[2] = CSM_STR("email:m.example");
	f.rules.permitted.n = 3;
	f.excluded[0] = CSM_STR("dns:bad.example");
	f.rules.excluded.n = 1;
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		struct csm_tbs found;
		int r;

		X509_NAME_free(f.name);
		GENERAL_NAMES_free(f.sans);
		f.order.subject = f.name = pki_name(rows[i].subject);
		f.order.sans = f.sans = pki_sans(&rows[i].san, 1);
		r = tbsfix_cert(&f, &found);
		if (r != (rows[i].good ? 0 : CSM_EDENIED))
			fail_msg("%s %s: %d %s", rows[i].subject, rows[i].san, r, tbsfix_why);
	}
	tbsfix_end(&f);
}

static void a_ca_below_carries_the_rules_on(void **state)
{
	static const struct {
		struct csm_str permitted[2], excluded[2];
		size_t n_permitted, n_excluded;
		bool good;
	} rows[] = {
		{.good = false},
		{.permitted = {CSM_STR("dns:.example")}, .n_permitted = 1, .good = false},
		{.permitted = {CSM_STR("dns:.example")}, .n_permitted = 1, .excluded = {CSM_STR("dns:bad.example")}, .n_excluded = 1,
			.good = true},
		{.permitted = {CSM_STR("dns:.example"), CSM_STR("dns:.com")}, .n_permitted = 2,
			.excluded = {CSM_STR("dns:bad.example")}, .n_excluded = 1, .good = false},
		{.permitted = {CSM_STR("dns:.example"), CSM_STR("ip:10.0.0.0/8")}, .n_permitted = 2,
			.excluded = {CSM_STR("dns:bad.example"), CSM_STR("uri:x")}, .n_excluded = 2, .good = true},
		{.permitted = {CSM_STR("ip:10.0.0.0/8")}, .n_permitted = 1, .excluded = {CSM_STR("dns:bad.example")}, .n_excluded = 1,
			.good = false},
	};
	struct tbsfix f;

	(void)state;
	tbsfix_begin(&f, "p256");
	f.rules.path_len.v = 1;
	f.permitted[0] = CSM_STR("dns:.example");
	f.rules.permitted.n = 1;
	f.excluded[0] = CSM_STR("dns:bad.example");
	f.rules.excluded.n = 1;
	f.profile.ca = true;
	f.profile.key_usage = KU_KEY_CERT_SIGN;
	f.profile.n_ekus = 0;
	f.order.sans = NULL;
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		f.profile.permitted = rows[i].permitted;
		f.profile.n_permitted = rows[i].n_permitted;
		f.profile.excluded = rows[i].excluded;
		f.profile.n_excluded = rows[i].n_excluded;
		tbsfix_expect(&f, rows[i].good ? 0 : CSM_EDENIED, rows[i].good ? NULL : "carry the name constraints");
	}
	tbsfix_end(&f);
}

static void the_issuers_own_constraints_hold_too(void **state)
{
	static const struct csm_str permitted[] = {CSM_STR("dns:.other")};
	struct csm_signer s;
	struct csm_tbs found;
	struct tbsfix f;
	X509 *narrow;

	(void)state;
	tbsfix_begin(&f, "p256");
	f.rules.path_len.v = 1;
	s = pki_signer(f.root.key, NULL);
	f.profile.ca = true;
	f.profile.key_usage = KU_KEY_CERT_SIGN | KU_CRL_SIGN;
	f.profile.n_ekus = 0;
	f.profile.permitted = permitted;
	f.profile.n_permitted = 1;
	f.order.issuer = f.root.cert;
	f.order.spki = f.key.spki;
	f.order.sans = NULL;
	narrow = pki_issue(&f.order, &s);
	tbsfix_beside(&f, narrow, NULL);
	f.profile = pki_profile();
	f.order.issuer = narrow;
	f.order.spki = pki_spki(pki_key("p384"));
	f.order.sans = f.sans;
	f.order.not_after -= 60;
	tbsfix_expect(&f, CSM_EDENIED, "the issuer's certificate");
	assert_int_equal(tbsfix_cert(&f, &found), CSM_EDENIED);
	X509_free(narrow);
	tbsfix_end(&f);
}

/* Each byte of a good one changed, and each length of it: what is taken is DER that says the same twice. */
static void no_byte_can_be_anything_else(void **state)
{
	struct csm_tbs found, first;
	unsigned taken = 0;
	uint8_t *copy;
	struct tbsfix f;
	size_t n;

	(void)state;
	tbsfix_begin(&f, "p256");
	assert_int_equal(tbsfix_cert(&f, &first), 0);
	n = f.tbs.len;
	copy = malloc(n + 1);
	for (size_t i = 0; i < n; i++) {
		for (unsigned bit = 0; bit < 8; bit += 7) {
			memcpy(copy, csm_buf_ptr(&f.tbs), n);
			copy[i] ^= (uint8_t)(1u << bit);
			taken += csm_tbs_check(&f.key, CSM_TBS_CERTIFICATE, (struct csm_bin){copy, n}, &found, tbsfix_why) == 0;
		}
		memcpy(copy, csm_buf_ptr(&f.tbs), n);
		assert_int_equal(csm_tbs_check(&f.key, CSM_TBS_CERTIFICATE, (struct csm_bin){copy, i}, &found, tbsfix_why), CSM_EINVALID);
	}
	/* bits of serial number, names, dates and key are free to be others; most are not */
	assert_in_range(taken, 1, n);
	memcpy(copy, csm_buf_ptr(&f.tbs), n);
	copy[n] = 0;
	assert_int_equal(csm_tbs_check(&f.key, CSM_TBS_CERTIFICATE, (struct csm_bin){copy, n + 1}, &found, tbsfix_why), CSM_EINVALID);
	free(copy);
	tbsfix_end(&f);
}

/* ---- lists ---- */

struct many {
	uint64_t left;
	int reason;
	uint8_t serial[16];
};

static int next(void *arg, struct csm_revoked *ret)
{
	struct many *m = arg;

	if (m->left == 0)
		return 0;
	m->left--;
	memset(m->serial, 0x55, sizeof(m->serial));
	memcpy(m->serial + 8, &m->left, sizeof(m->left));
	*ret = (struct csm_revoked){.serial = {m->serial, sizeof(m->serial)}, .at = PKI_NOW - 60, .reason = m->reason};
	return 1;
}

static void crl(struct tbsfix *f, uint64_t n, int reason, uint64_t base)
{
	struct many m = {.left = n, .reason = reason};
	struct csm_crl_order o = {.issuer = f->ca.cert, .number = 260, .base = base, .this_update = PKI_NOW,
		.next_update = PKI_NOW + PKI_DAY, .delta_url = base == 0 ? "http://ca.example/delta" : NULL, .next = next, .arg = &m};
	struct csm_scheme scheme = csm_scheme_default(f->key.alg);

	csm_buf_reset(&f->tbs);
	assert_int_equal(csm_crl_tbs(&o, &scheme, &f->tbs), 0);
}

static void lists_and_deltas_are_signed(void **state)
{
	struct csm_tbs found;
	struct tbsfix f;

	(void)state;
	tbsfix_begin(&f, "p384");
	for (uint64_t n = 0; n < 3; n++) {
		crl(&f, n, CSM_REASON_KEY_COMPROMISE, 0);
		assert_int_equal(tbsfix_judge(&f, CSM_TBS_CRL, &found), 0);
		assert_int_equal(found.number_len, 2);
		assert_int_equal(found.number[0] << 8 | found.number[1], 260);
		assert_int_equal(found.scheme.hash, CSM_HASH_SHA384);
		assert_int_equal(tbsfix_judge(&f, CSM_TBS_CERTIFICATE, &found), CSM_EINVALID);
		assert_int_equal(tbsfix_judge(&f, CSM_TBS_OCSP, &found), CSM_EINVALID);
	}
	crl(&f, 2, CSM_REASON_REMOVE_FROM_CRL, 7);
	assert_int_equal(tbsfix_judge(&f, CSM_TBS_CRL, &found), 0);
	tbsfix_end(&f);
}

/* A hundred thousand entries, in pieces of every kind of length, and the same with one byte changed or left out. */
static void a_long_list_is_read_as_it_comes(void **state)
{
	struct csm_tbs_crl *c = NULL;
	struct csm_tbs found;
	size_t head, entry, to;
	const uint8_t *p;
	struct tbsfix f;

	(void)state;
	tbsfix_begin(&f, "p256");
	crl(&f, 100000, CSM_REASON_UNSPECIFIED, 0);
	p = csm_buf_ptr(&f.tbs);
	assert_int_equal(tbsfix_judge(&f, CSM_TBS_CRL, &found), 0);
	/* the first entry begins with its serial number, as many() makes it */
	head = (size_t)((const uint8_t *)memmem(p, f.tbs.len, "\x30\x21\x02\x10", 4) - p);
	entry = 2 + p[head + 1];
	to = head + 100000 * entry;
	assert_int_equal(csm_tbs_crl_begin(&f.key, (struct csm_bin){p, head}, &c, &found, tbsfix_why), 0);
	for (size_t at = head, n = entry; at < to; at += n, n = (n / entry * 3 + 1) * entry) {
		n = n < to - at ? n : to - at;
		assert_int_equal(csm_tbs_crl_entries(c, (struct csm_bin){p + at, n}, tbsfix_why), 0);
	}
	assert_int_equal(csm_tbs_crl_end(c, &f.key, (struct csm_bin){p + to, f.tbs.len - to - 1}, &found, tbsfix_why), CSM_EINVALID);
	assert_int_equal(csm_tbs_crl_end(c, &f.key, (struct csm_bin){p + to, f.tbs.len - to}, &found, tbsfix_why), 0);
	assert_int_equal(csm_tbs_crl_entries(c, (struct csm_bin){p + head, entry}, tbsfix_why), CSM_EINVALID);
	csm_tbs_crl_free(c);
	assert_int_equal(csm_tbs_crl_begin(&f.key, (struct csm_bin){p, head}, &c, &found, tbsfix_why), 0);
	assert_int_equal(csm_tbs_crl_entries(c, (struct csm_bin){p + head, entry - 1}, tbsfix_why), CSM_EINVALID);
	csm_tbs_crl_free(c);
	assert_int_equal(csm_tbs_crl_begin(&f.key, (struct csm_bin){p, head + 1}, &c, &found, tbsfix_why), CSM_EINVALID);
	tbsfix_end(&f);
}

static void no_byte_of_a_list_can_be_anything_else(void **state)
{
	struct csm_tbs found;
	uint8_t *copy;
	struct tbsfix f;
	size_t n;

	(void)state;
	tbsfix_begin(&f, "p256");
	crl(&f, 1, CSM_REASON_KEY_COMPROMISE, 0);
	n = f.tbs.len;
	copy = malloc(n);
	for (size_t i = 0; i < n; i++) {
		memcpy(copy, csm_buf_ptr(&f.tbs), n);
		assert_int_equal(csm_tbs_check(&f.key, CSM_TBS_CRL, (struct csm_bin){copy, i}, &found, tbsfix_why), CSM_EINVALID);
		copy[i] ^= 0x80;
		(void)!csm_tbs_check(&f.key, CSM_TBS_CRL, (struct csm_bin){copy, n}, &found, tbsfix_why);
	}
	free(copy);
	tbsfix_end(&f);
}

/* ---- OCSP ---- */

static int ocsp(struct tbsfix *f, X509 *responder, X509 *issuer, uint64_t to)
{
	OCSP_CERTID *id = OCSP_cert_id_new(EVP_sha256(), X509_get_subject_name(issuer), X509_get0_pubkey_bitstr(issuer),
		X509_get0_serialNumber(issuer));
	struct csm_ocsp_single one = {.state = CSM_OCSP_GOOD, .this_update = PKI_NOW, .next_update = to};
	struct csm_ocsp_order o = {.responder = responder, .issuer = issuer, .produced_at = PKI_NOW, .singles = &one, .n = 1};
	struct csm_tbs found;
	unsigned char *der = NULL;
	int n = i2d_OCSP_CERTID(id, &der);

	one.id = (struct csm_bin){der, (size_t)n};
	csm_buf_reset(&f->tbs);
	assert_int_equal(csm_ocsp_tbs(&o, &f->tbs), 0);
	OPENSSL_free(der);
	OCSP_CERTID_free(id);
	return tbsfix_judge(f, CSM_TBS_OCSP, &found);
}

static void answers_are_of_the_issuer_or_whom_it_named(void **state)
{
	struct csm_signer s;
	struct csm_tbs found;
	X509 *responder;
	struct tbsfix f;

	(void)state;
	tbsfix_begin(&f, "p256");
	assert_int_equal(ocsp(&f, f.ca.cert, f.ca.cert, PKI_NOW + PKI_DAY), 0);
	assert_int_equal(tbsfix_judge(&f, CSM_TBS_CRL, &found), CSM_EINVALID);
	assert_int_equal(ocsp(&f, f.ca.cert, f.ca.cert, PKI_NOW + 2 * YEAR), CSM_EDENIED);
	assert_int_equal(ocsp(&f, f.root.cert, f.ca.cert, PKI_NOW + PKI_DAY), CSM_EDENIED);
	assert_int_equal(ocsp(&f, f.ca.cert, f.root.cert, PKI_NOW + PKI_DAY), CSM_EDENIED);
	/* a key whose certificate is a responder's tells of its issuer's, and signs nothing else */
	s = pki_signer(f.root.key, NULL);
	f.profile.ekus[0] = "OCSPSigning";
	f.profile.n_ekus = 1;
	f.order.issuer = f.root.cert;
	f.order.spki = f.key.spki;
	responder = pki_issue(&f.order, &s);
	tbsfix_beside(&f, responder, NULL);
	assert_int_equal(ocsp(&f, responder, f.root.cert, PKI_NOW + PKI_DAY), CSM_ESTATE);
	tbsfix_beside(&f, responder, f.root.cert);
	assert_int_equal(ocsp(&f, responder, f.root.cert, PKI_NOW + PKI_DAY), 0);
	assert_int_equal(ocsp(&f, responder, f.ca.cert, PKI_NOW + PKI_DAY), CSM_EDENIED);
	crl(&f, 1, CSM_REASON_KEY_COMPROMISE, 0);
	assert_int_equal(tbsfix_judge(&f, CSM_TBS_CRL, &found), CSM_ESTATE);
	X509_free(responder);
	tbsfix_end(&f);
}

/* ---- rules ---- */

static void rules_are_refused_that_say_nothing(void **state)
{
	struct csm_str name = CSM_STR("dns:.example");
	struct csm_msg_issuer_rules r = {.max_life = {1, true}, .permitted = {&name, 1}};
	static const char *const bad[] = {"", "example", "dns:", "dns:*.example", "dns:a b", "ip:10.0.0.0/33", "other:x", "uri:"};

	(void)state;
	assert_int_equal(csm_tbs_rules_check(&r, tbsfix_why), 0);
	for (size_t i = 0; i < N_ELEMS(bad); i++) {
		name = csm_str_of(bad[i]);
		assert_int_equal(csm_tbs_rules_check(&r, tbsfix_why), CSM_EINVALID);
		assert_non_null(strstr(tbsfix_why, "permitted"));
	}
	r = (struct csm_msg_issuer_rules){.max_life = {0, true}};
	assert_int_equal(csm_tbs_rules_check(&r, tbsfix_why), CSM_EINVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_a_ca_issues_is_signed_by_keys_of_every_kind),
		cmocka_unit_test(a_key_without_a_certificate_signs_its_own_only),
		cmocka_unit_test(an_issuer_past_its_time_signs_nothing),
		cmocka_unit_test(lives_are_bounded),
		cmocka_unit_test(cas_come_only_as_far_as_both_path_lengths_go),
		cmocka_unit_test(only_what_is_usual_is_looked_at_at_once),
		cmocka_unit_test(names_are_within_the_rules),
		cmocka_unit_test(a_ca_below_carries_the_rules_on),
		cmocka_unit_test(the_issuers_own_constraints_hold_too),
		cmocka_unit_test(no_byte_can_be_anything_else),
		cmocka_unit_test(lists_and_deltas_are_signed),
		cmocka_unit_test(a_long_list_is_read_as_it_comes),
		cmocka_unit_test(no_byte_of_a_list_can_be_anything_else),
		cmocka_unit_test(answers_are_of_the_issuer_or_whom_it_named),
		cmocka_unit_test(rules_are_refused_that_say_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, pki_teardown);
}
