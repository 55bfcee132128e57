#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <openssl/err.h>
#include "daemon/pki/certsonly.h"
#include "tests/lib/pkifix.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))
#define AT "-attime 1750000000 "

static char why[CSM_CERTREQ_WHY];

static struct csm_cert_order order_of(const struct csm_profile *p, const struct pki_ca *ca, EVP_PKEY *key, const X509_NAME *name)
{
	return (struct csm_cert_order){.profile = p, .subject = name, .spki = pki_spki(key), .issuer = ca != NULL ? ca->cert : NULL,
		.serial = {0xf0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, .not_before = PKI_NOW - 3600,
		.not_after = PKI_NOW + PKI_DAY};
}

static void openssl_verifies_the_chain_of_every_key(void **state)
{
	static const char *const algs[] = {"p256", "p384", "p521", "rsa2048", "ed25519"};
	static const char *const texts[] = {"dns:a.example", "dns:*.b.example", "ip:10.1.2.3", "ip:2001:db8::1",
		"uri:spiffe://td/ns/a/sa/b", "email:x@example.org"};
	struct csm_profile p = pki_profile();
	GENERAL_NAMES *sans = pki_sans(texts, N_ELEMS(texts));
	X509_NAME *name = pki_name("/O=Example/CN=a.example");
	const char *said;

	(void)state;
	for (size_t i = 0; i < N_ELEMS(algs); i++) {
		struct pki_ca root = pki_ca_make("/O=Example/CN=Root", algs[i], NULL), mid = pki_ca_make("/CN=Mid", "p256", &root);
		struct csm_cert_order o = order_of(&p, &mid, pki_key(algs[i]), name);
		struct csm_signer s = pki_signer(mid.key, NULL);
		X509 *x;

		o.sans = sans;
		x = pki_issue(&o, &s);
		pki_write_cert("root.pem", root.cert);
		pki_write_cert("mid.pem", mid.cert);
		pki_write_cert("leaf.pem", x);
		assert_int_equal(pki_openssl("verify " AT "-x509_strict -CAfile @root.pem -untrusted @mid.pem -purpose sslserver "
			"-verify_hostname a.example @leaf.pem", &said), 0);
		assert_int_not_equal(pki_openssl("verify " AT "-CAfile @root.pem -untrusted @mid.pem -purpose sslclient @leaf.pem",
			&said), 0);
		assert_int_not_equal(pki_openssl("verify -attime 1750100000 -CAfile @root.pem -untrusted @mid.pem @leaf.pem",
			&said), 0);
		assert_non_null(strstr(said, "expired"));
		X509_free(x);
		pki_ca_free(&mid);
		pki_ca_free(&root);
	}
	X509_NAME_free(name);
	GENERAL_NAMES_free(sans);
}

static void a_certificate_says_what_the_order_says(void **state)
{
	static const char *const texts[] = {"dns:a.example", "ip:10.1.2.3"};
	struct csm_profile p = pki_profile();
	struct pki_ca root = pki_ca_make("/CN=Root", "p256", NULL);
	X509_NAME *none = X509_NAME_new();
	struct csm_cert_order o = order_of(&p, &root, pki_key("p384"), none);
	struct csm_signer s = pki_signer(root.key, NULL);
	GENERAL_NAMES *sans = pki_sans(texts, N_ELEMS(texts));
	static const char *const there[] = {"Serial Number:\n            f0:01:02:03:04:05:06:07:08:09:0a:0b:0c:0d:0e:0f\n",
		"X509v3 Basic Constraints: critical\n                CA:FALSE", "X509v3 Key Usage: critical\n                Digital Signature\n",
		"TLS Web Server Authentication\n", "X509v3 Subject Alternative Name: critical\n                DNS:a.example, IP Address:10.1.2.3\n",
		"OCSP - URI:http://ca.example/ocsp", "CA Issuers - URI:http://ca.example/ca.der", "URI:http://ca.example/crl",
		"X509v3 Freshest CRL", "OCSP No Check", "Subject: \n", "Version: 3 (0x2)", "Not After : Jun 16 15:06:40 2025 GMT"};
	const char *said;
	X509 *x;

	(void)state;
	p.ocsp_url = "http://ca.example/ocsp";
	p.issuer_url = "http://ca.example/ca.der";
	p.crl_url = "http://ca.example/crl";
	p.delta_url = "http://ca.example/delta";
	p.ocsp_no_check = true;
	o.sans = sans;
	x = pki_issue(&o, &s);
	pki_write_cert("one.pem", x);
	assert_int_equal(pki_openssl("x509 -in @one.pem -noout -text", &said), 0);
	for (size_t i = 0; i < N_ELEMS(there); i++)
		if (strstr(said, there[i]) == NULL)
			fail_msg("no \"%s\" in\n%s", there[i], said);
	assert_int_equal(X509_check_issued(root.cert, x), X509_V_OK);
	assert_int_equal(ASN1_OCTET_STRING_cmp(X509_get0_authority_key_id(x), X509_get0_subject_key_id(root.cert)), 0);
	assert_int_equal(ASN1_STRING_length(X509_get0_subject_key_id(x)), CSM_X509_KEY_ID_LEN);
	X509_free(x);
	/* what the profile has not, the certificate has not */
	p.ocsp_url = p.issuer_url = p.crl_url = p.delta_url = NULL;
	p.n_ekus = 0;
	p.ocsp_no_check = false;
	memset(o.serial, 0, 15);
	o.serial[15] = 0x80;
	x = pki_issue(&o, &s);
	pki_write_cert("one.pem", x);
	assert_int_equal(pki_openssl("x509 -in @one.pem -noout -text", &said), 0);
	assert_true(strstr(said, "URI:http") == NULL && strstr(said, "Extended Key") == NULL && strstr(said, "No Check") == NULL);
	assert_non_null(strstr(said, "Serial Number: 128 (0x80)"));
	X509_free(x);
	GENERAL_NAMES_free(sans);
	X509_NAME_free(none);
	pki_ca_free(&root);
}

static void every_scheme_of_a_signer_verifies(void **state)
{
	static const char *const rows[][2] = {{"p256", "ecdsa-sha256"}, {"p384", "ecdsa-sha384"}, {"p521", "ecdsa-sha512"},
		{"rsa2048", "rsa-pkcs1-sha256"}, {"rsa2048", "rsa-pkcs1-sha512"}, {"rsa2048", "rsa-pss-sha256"},
		{"rsa2048", "rsa-pss-sha384"}, {"ed25519", "ed25519"}};
	struct csm_profile p = pki_profile();
	X509_NAME *name = pki_name("/CN=Root");

	(void)state;
	p.ca = true;
	p.key_usage = KU_KEY_CERT_SIGN;
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		struct csm_cert_order o = order_of(&p, NULL, pki_key(rows[i][0]), name);
		struct csm_signer s = pki_signer(pki_key(rows[i][0]), rows[i][1]);
		X509 *x = pki_issue(&o, &s);
		const X509_ALGOR *alg;
		struct csm_scheme back;

		assert_int_equal(X509_verify(x, s.pub), 1);
		X509_get0_signature(NULL, &alg, x);
		assert_int_equal(csm_sigalg_scheme(alg, &back), 0);
		assert_memory_equal(&back, &s.scheme, sizeof(back));
		assert_true(csm_sigalg_is_strong(alg));
		X509_free(x);
	}
	X509_NAME_free(name);
}

static int broken(void *arg, struct csm_bin tbs, const struct csm_scheme *scheme, uint8_t *sig, size_t *n)
{
	const struct csm_signer *good = arg;
	int r = good->sign(good->arg, tbs, scheme, sig, n);

	sig[*n - 1] ^= 1;
	return r;
}

static int away(void *arg, struct csm_bin tbs, const struct csm_scheme *scheme, uint8_t *sig, size_t *n)
{
	(void)arg, (void)tbs, (void)scheme, (void)sig, (void)n;
	return CSM_EUNAVAILABLE;
}

static int silent(void *arg, struct csm_bin tbs, const struct csm_scheme *scheme, uint8_t *sig, size_t *n)
{
	(void)arg, (void)tbs, (void)scheme, (void)sig;
	*n = 0;
	return 0;
}

static void what_is_no_signature_goes_nowhere(void **state)
{
	struct csm_profile p = pki_profile();
	struct pki_ca root = pki_ca_make("/CN=Root", "p256", NULL);
	X509_NAME *name = pki_name("/CN=a");
	struct csm_cert_order o = order_of(&p, &root, pki_key("p384"), name);
	struct csm_signer good = pki_signer(root.key, NULL), bad = good;
	struct csm_buf out;

	(void)state;
	csm_buf_init(&out, 65536, false);
	assert_int_equal(csm_buf_put(&out, "x", 1), 0);
	bad.arg = &good;
	bad.sign = broken;
	assert_int_equal(csm_cert_issue(&o, &bad, &out, why), CSM_EBACKEND);
	bad.sign = away;
	assert_int_equal(csm_cert_issue(&o, &bad, &out, why), CSM_EUNAVAILABLE);
	bad.believed = true; /* it is asked all the same */
	assert_int_equal(csm_cert_issue(&o, &bad, &out, why), CSM_EUNAVAILABLE);
	bad.sign = silent;
	assert_int_equal(csm_cert_issue(&o, &bad, &out, why), CSM_EBACKEND);
	bad.believed = false;
	bad.sign = silent;
	assert_int_equal(csm_cert_issue(&o, &bad, &out, why), CSM_EBACKEND);
	/* another key than the issuer's, a scheme that is not the key's */
	bad = pki_signer(pki_key("p384"), NULL);
	assert_int_equal(csm_cert_issue(&o, &bad, &out, why), CSM_EINVALID);
	bad = good;
	bad.scheme = csm_scheme_default(CSM_ALG_ED25519);
	assert_int_equal(csm_cert_issue(&o, &bad, &out, why), CSM_EINVALID);
	assert_int_equal(out.len, 1);
	assert_int_equal(csm_cert_issue(&o, &good, &out, why), 0);
	assert_true(out.len > 1);
	csm_buf_free(&out);
	X509_NAME_free(name);
	pki_ca_free(&root);
}

static void orders_beyond_profile_or_issuer_are_refused(void **state)
{
	const struct csm_profile good = pki_profile();
	struct csm_profile p = good;
	struct pki_ca root = pki_ca_make("/CN=Root", "p256", NULL), mid = pki_ca_make("/CN=Mid", "p256", &root);
	X509_NAME *name = pki_name("/CN=a"), *none = X509_NAME_new();
	const struct csm_cert_order fine = order_of(&p, &mid, pki_key("p384"), name);
	struct csm_cert_order o = fine;
	struct csm_signer s = pki_signer(mid.key, NULL);
	X509 *leaf = pki_issue(&o, &s), *signs, *lists;
	static const char *const san = "dns:a.example";
	GENERAL_NAMES *sans = pki_sans(&san, 1);
	char url[600];
	struct csm_buf out;

	(void)state;
	memset(url, 'a', sizeof(url));
	url[4] = ':';
	url[513] = '\0'; /* one byte too long */
	/* the one usage without being a CA, and a CA without that usage */
	p.key_usage = KU_KEY_CERT_SIGN;
	signs = pki_issue(&o, &s);
	o.issuer = root.cert;
	s = pki_signer(root.key, NULL);
	p.key_usage = KU_CRL_SIGN;
	p.ca = true;
	lists = pki_issue(&o, &s);
	s = pki_signer(mid.key, NULL);
	csm_buf_init(&out, 65536, false);
#define BAD(set, error, reason) \
	do { \
		p = good; \
		o = fine; \
		set; \
		assert_int_equal(csm_cert_tbs(&o, &s.scheme, &out, why), error); \
		if (strstr(why, reason) == NULL) \
			fail_msg("\"%s\" is not in \"%s\"", reason, why); \
		assert_int_equal(out.len, 0); \
	} while (0)
	BAD(memset(o.serial, 0, 16), CSM_EINVALID, "serial");
	BAD(o.not_after = o.not_before, CSM_EINVALID, "ends before");
	BAD(o.not_after = o.not_before + p.max_life + 1, CSM_EDENIED, "longer than");
	BAD((p.max_life = UINT64_MAX, o.not_after = 253402300800), CSM_EINVALID, "9999");
	BAD((p.max_life = UINT64_MAX, o.not_after = PKI_NOW + 3649 * PKI_DAY + 1), CSM_EDENIED, "outlive");
	BAD(o.issuer = leaf, CSM_EDENIED, "not a CA");
	BAD(o.issuer = signs, CSM_EDENIED, "not a CA");
	BAD(o.issuer = lists, CSM_EDENIED, "not a CA");
	BAD(o.issuer = NULL, CSM_EDENIED, "only a CA's");
	BAD((p.ca = true, p.key_usage = KU_KEY_CERT_SIGN), CSM_EDENIED, "path length");
	BAD(o.subject = none, CSM_EINVALID, "no name");
	BAD(p.crl_url = "nowhere", CSM_EINVALID, "URL");
	BAD((p.ca = true, o.subject = none, o.sans = sans), CSM_EINVALID, "no name");
	BAD(p.ocsp_url = "http://a b", CSM_EINVALID, "URL");
	BAD(p.issuer_url = "http://a\tb", CSM_EINVALID, "URL");
	BAD(p.delta_url = "http://a\x7f", CSM_EINVALID, "URL");
	BAD(p.crl_url = url, CSM_EINVALID, "URL");
	BAD(o.spki.n--, CSM_EINVALID, "public key");
	BAD((p.ekus[0] = "nosuch"), CSM_EINVALID, "extended");
#undef BAD
	csm_buf_free(&out);
	GENERAL_NAMES_free(sans);
	X509_free(signs);
	X509_free(lists);
	X509_free(leaf);
	X509_NAME_free(name);
	X509_NAME_free(none);
	pki_ca_free(&mid);
	pki_ca_free(&root);
}

static void a_path_gets_shorter_and_ends(void **state)
{
	struct pki_ca root = pki_ca_make("/CN=Root", "p256", NULL), mid = pki_ca_make("/CN=Mid", "p256", &root);
	struct csm_profile p = pki_profile();
	X509_NAME *name = pki_name("/CN=Sub");
	struct csm_cert_order o = order_of(&p, &root, pki_key("p384"), name);
	struct csm_signer s = pki_signer(root.key, NULL);
	X509 *x;

	(void)state;
	assert_int_equal(X509_get_pathlen(root.cert), 1);
	assert_int_equal(X509_get_pathlen(mid.cert), 0);
	p.ca = true;
	p.key_usage = KU_KEY_CERT_SIGN;
	p.path_len = 7; /* the issuer's is what there is */
	x = pki_issue(&o, &s);
	assert_int_equal(X509_get_pathlen(x), 0);
	X509_free(x);
	p.path_len = CSM_PATH_ANY;
	x = pki_issue(&o, &s);
	assert_int_equal(X509_get_pathlen(x), 0);
	X509_free(x);
	X509_NAME_free(name);
	pki_ca_free(&mid);
	pki_ca_free(&root);
}

static X509 *leaf_under(const struct pki_ca *ca, X509 *issuer, const char *san)
{
	struct csm_profile p = pki_profile();
	X509_NAME *none = X509_NAME_new();
	GENERAL_NAMES *sans = pki_sans(&san, 1);
	struct csm_cert_order o = order_of(&p, ca, pki_key("p384"), none);
	struct csm_signer s = pki_signer(ca->key, NULL);
	X509 *x;

	o.sans = sans;
	o.issuer = issuer;
	x = pki_issue(&o, &s);
	GENERAL_NAMES_free(sans);
	X509_NAME_free(none);
	return x;
}

static void openssl_sees_name_constraints(void **state)
{
	static const struct csm_str permitted[] = {{"dns:a.example", 13}, {"ip:10.1.0.0/15", 14}, {"uri:.td", 7}, {"email:a.example", 15}},
		excluded[] = {{"dns:bad.a.example", 17}};
	static const struct {
		const char *san;
		int status;
	} rows[] = {{"dns:x.a.example", 0}, {"dns:x.b.example", 2}, {"dns:bad.a.example", 2}, {"ip:10.0.255.255", 0}, {"ip:10.2.0.0", 2},
		{"uri:spiffe://x.td/y", 0}, {"uri:spiffe://x.other/y", 2}, {"email:u@a.example", 0}, {"email:u@b.example", 2}};
	struct pki_ca root = pki_ca_make("/CN=Root", "p256", NULL), sub = {.key = pki_key("p521")};
	struct csm_profile p = pki_profile();
	X509_NAME *name = pki_name("/CN=Constrained");
	struct csm_cert_order o = order_of(&p, &root, sub.key, name);
	struct csm_signer s = pki_signer(root.key, NULL);
	const char *said;
	struct csm_str bad;

	(void)state;
	p.ca = true;
	p.key_usage = KU_KEY_CERT_SIGN;
	p.permitted = permitted;
	p.n_permitted = N_ELEMS(permitted);
	p.excluded = excluded;
	p.n_excluded = N_ELEMS(excluded);
	sub.cert = pki_issue(&o, &s);
	pki_write_cert("root.pem", root.cert);
	pki_write_cert("sub.pem", sub.cert);
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		X509 *x = leaf_under(&sub, sub.cert, rows[i].san);

		pki_write_cert("leaf.pem", x);
		if (pki_openssl("verify " AT "-CAfile @root.pem -untrusted @sub.pem @leaf.pem", &said) != rows[i].status)
			fail_msg("%s: %s", rows[i].san, said);
		X509_free(x);
	}
	p.excluded = &bad;
	for (size_t i = 0; i < 5; i++) {
		static const char *const none[] = {"dns:", "ip:10.0.0.0/40", "x", "dns:*.a", "other:1"};
		struct csm_buf out;

		bad = csm_str_of(none[i]);
		csm_buf_init(&out, 65536, false);
		assert_int_equal(csm_cert_tbs(&o, &s.scheme, &out, why), CSM_EINVALID);
		assert_int_equal(out.len, 0);
		csm_buf_free(&out);
	}
	X509_NAME_free(name);
	X509_free(sub.cert);
	pki_ca_free(&root);
}

static void times_are_as_rfc_5280_wants_them(void **state)
{
	static const struct {
		uint64_t at;
		bool general;
		const char *is;
	} rows[] = {{0, false, "\x17\x0d" "700101000000Z"}, {2524607999, false, "\x17\x0d" "491231235959Z"},
		{2524608000, false, "\x18\x0f" "20500101000000Z"}, {253402300799, false, "\x18\x0f" "99991231235959Z"},
		{0, true, "\x18\x0f" "19700101000000Z"}, {1792023559, false, "\x17\x0d" "261015001919Z"}};
	struct csm_der late;
	struct csm_buf b;

	(void)state;
	csm_buf_init(&b, 64, false);
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		struct csm_der d = {&b, 0};

		csm_buf_reset(&b);
		csm_der_time(&d, rows[i].at, rows[i].general);
		assert_int_equal(d.r, 0);
		assert_int_equal(b.len, strlen(rows[i].is));
		assert_memory_equal(csm_buf_ptr(&b), rows[i].is, b.len);
	}
	/* a year of five digits */
	late = (struct csm_der){&b, 0};
	csm_der_time(&late, UINT64_C(253402300800), true);
	assert_int_not_equal(late.r, 0);
	csm_buf_free(&b);
}

/* Read and written again: usages with each one as the last bit, purposes by name and by number, and a path's length. */
static void extensions_are_written_as_openssl_writes_them(void **state)
{
	struct pki_ca root = pki_ca_make("/CN=Root", "p256", NULL);
	struct csm_profile p = pki_profile();
	X509_NAME *name = pki_name("/CN=a.example");
	struct csm_cert_order o = order_of(&p, &root, pki_key("p256"), name);
	struct csm_signer s = pki_signer(root.key, NULL);
	static const int nids[] = {NID_basic_constraints, NID_key_usage, NID_ext_key_usage, NID_subject_key_identifier,
		NID_authority_key_identifier, NID_crl_distribution_points, NID_info_access};
	struct csm_buf out;

	(void)state;
	p.ekus[1] = "1.3.6.1.4.1.99999.1";
	p.n_ekus = 2;
	p.crl_url = "http://c.example/crl";
	p.ocsp_url = "http://c.example/ocsp";
	p.issuer_url = "http://c.example/ca";
	for (unsigned bit = 0; bit <= 16; bit++) {
		X509 *x;

		p.key_usage = bit == 16 ? KU_DIGITAL_SIGNATURE | KU_DECIPHER_ONLY : 1u << bit;
		p.ca = bit % 2 == 1;
		p.path_len = bit % 2 == 1 ? 0 : CSM_PATH_ANY;
		x = pki_issue(&o, &s);
		assert_int_equal(X509_get_key_usage(x), p.key_usage);
		for (size_t i = 0; i < N_ELEMS(nids); i++) {
			X509_EXTENSION *e = X509_get_ext(x, X509_get_ext_by_NID(x, nids[i], -1)), *again;
			void *v = X509V3_EXT_d2i(e);

			assert_non_null(v);
			assert_non_null(again = X509V3_EXT_i2d(nids[i], X509_EXTENSION_get_critical(e), v));
			assert_int_equal(ASN1_STRING_cmp(X509_EXTENSION_get_data(e), X509_EXTENSION_get_data(again)), 0);
			ASN1_item_free(v, ASN1_ITEM_ptr(X509V3_EXT_get(e)->it));
			X509_EXTENSION_free(again);
		}
		X509_free(x);
	}
	p.ekus[1] = "no such purpose";
	csm_buf_init(&out, 65536, false);
	assert_int_equal(csm_cert_tbs(&o, &s.scheme, &out, why), CSM_EINVALID);
	assert_int_equal(out.len, 0);
	csm_buf_free(&out);
	X509_NAME_free(name);
	pki_ca_free(&root);
}

static void lengths_and_numbers_are_der(void **state)
{
	static const size_t sizes[] = {0, 1, 127, 128, 255, 256, 65535, 65536};
	static const uint8_t zeros[70000];
	static const struct {
		uint64_t v;
		const char *der;
		size_t n;
	} numbers[] = {{0, "\x02\x01\x00", 3}, {127, "\x02\x01\x7f", 3}, {128, "\x02\x02\x00\x80", 4}, {256, "\x02\x02\x01\x00", 4},
		{UINT64_MAX, "\x02\x09\x00\xff\xff\xff\xff\xff\xff\xff\xff", 11}};
	struct csm_buf b;
	struct csm_der d = {&b, 0};

	(void)state;
	csm_buf_init(&b, 80000, false);
	for (size_t i = 0; i < N_ELEMS(sizes); i++) {
		const unsigned char *at;
		ASN1_OCTET_STRING *s;

		csm_buf_reset(&b);
		csm_der_put(&d, V_ASN1_OCTET_STRING, zeros, sizes[i]);
		at = csm_buf_ptr(&b);
		assert_non_null(s = d2i_ASN1_OCTET_STRING(NULL, &at, (long)b.len));
		assert_true(at == csm_buf_ptr(&b) + b.len && (size_t)ASN1_STRING_length(s) == sizes[i]);
		assert_int_equal(i2d_ASN1_OCTET_STRING(s, NULL), (int)b.len);
		ASN1_OCTET_STRING_free(s);
	}
	for (size_t i = 0; i < N_ELEMS(numbers); i++) {
		csm_buf_reset(&b);
		csm_der_number(&d, numbers[i].v);
		assert_int_equal(b.len, numbers[i].n);
		assert_memory_equal(csm_buf_ptr(&b), numbers[i].der, b.len);
	}
	/* the cap is kept, and what comes after it writes nothing */
	csm_buf_reset(&b);
	csm_der_put(&d, V_ASN1_OCTET_STRING, zeros, sizeof(zeros));
	csm_der_put(&d, V_ASN1_OCTET_STRING, zeros, sizeof(zeros));
	assert_int_equal(d.r, CSM_ETOO_LARGE);
	csm_der_number(&d, 1);
	assert_int_equal(d.r, CSM_ETOO_LARGE);
	csm_buf_free(&b);
}

static void der_put(X509 *x, struct csm_buf *out)
{
	struct csm_der d = {out, 0};

	csm_der_item(&d, ASN1_ITEM_rptr(X509), x);
	assert_int_equal(d.r, 0);
}

static void certs_only_is_what_openssl_reads_and_writes(void **state)
{
	struct pki_ca root = pki_ca_make("/CN=Root", "p256", NULL), mid = pki_ca_make("/CN=Mid", "p256", &root);
	struct csm_buf chain, form, back;
	const char *said;
	char text[16384];
	FILE *f;
	size_t n;

	(void)state;
	csm_buf_init(&chain, 65536, false);
	csm_buf_init(&form, 80000, false);
	csm_buf_init(&back, 80000, false);
	der_put(mid.cert, &chain);
	der_put(root.cert, &chain);
	assert_int_equal(csm_certs_only_put((struct csm_bin){csm_buf_ptr(&chain), chain.len}, &form), 0);
	pki_write("certs.p7", (struct csm_bin){csm_buf_ptr(&form), form.len});
	assert_int_equal(pki_openssl("pkcs7 -inform DER -in @certs.p7 -print_certs -noout", &said), 0);
	assert_non_null(strstr(said, "subject=CN = Mid"));
	assert_non_null(strstr(said, "subject=CN = Root"));
	assert_int_equal(pki_openssl("cms -cmsout -print -inform DER -in @certs.p7", &said), 0);
	assert_int_equal(csm_certs_only_read((struct csm_bin){csm_buf_ptr(&form), form.len}, &back), 0);
	assert_int_equal(back.len, chain.len);
	assert_memory_equal(csm_buf_ptr(&back), csm_buf_ptr(&chain), chain.len);
	/* theirs, also in base64 */
	pki_write_cert("one.pem", mid.cert);
	assert_int_equal(pki_openssl("crl2pkcs7 -nocrl -certfile @one.pem -outform DER -out @theirs.p7", &said), 0);
	assert_int_equal(pki_openssl("base64 -in @theirs.p7 -out @theirs.b64", &said), 0);
	assert_non_null(f = fopen(pki_file("theirs.b64"), "re"));
	n = fread(text, 1, sizeof(text), f);
	assert_int_equal(fclose(f), 0);
	csm_buf_reset(&back);
	assert_int_equal(csm_certs_only_read((struct csm_bin){(uint8_t *)text, n}, &back), 0);
	assert_memory_equal(csm_buf_ptr(&back), csm_buf_ptr(&chain), back.len);
	/* and nothing else */
	csm_buf_reset(&back);
	assert_int_equal(csm_certs_only_read((struct csm_bin){(uint8_t *)text, n / 2}, &back), CSM_EINVALID);
	assert_int_equal(csm_certs_only_read((struct csm_bin){csm_buf_ptr(&form), form.len - 1}, &back), CSM_EINVALID);
	assert_int_equal(csm_certs_only_read((struct csm_bin){csm_buf_ptr(&chain), chain.len}, &back), CSM_EINVALID);
	assert_int_equal(csm_certs_only_read((struct csm_bin){(const uint8_t *)"", 0}, &back), CSM_EINVALID);
	for (size_t i = 0; i < 10; i++)
		der_put(root.cert, &chain);
	csm_buf_reset(&form);
	assert_int_equal(csm_certs_only_put((struct csm_bin){csm_buf_ptr(&chain), chain.len}, &form), 0);
	assert_int_equal(csm_certs_only_read((struct csm_bin){csm_buf_ptr(&form), form.len}, &back), CSM_ETOO_LARGE);
	assert_int_equal(csm_certs_only_put((struct csm_bin){csm_buf_ptr(&chain), 0}, &form), CSM_EINVALID);
	assert_int_equal(back.len, 0);
	csm_buf_free(&chain);
	csm_buf_free(&form);
	csm_buf_free(&back);
	pki_ca_free(&mid);
	pki_ca_free(&root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lengths_and_numbers_are_der),
		cmocka_unit_test(times_are_as_rfc_5280_wants_them),
		cmocka_unit_test(extensions_are_written_as_openssl_writes_them),
		cmocka_unit_test(openssl_verifies_the_chain_of_every_key),
		cmocka_unit_test(a_certificate_says_what_the_order_says),
		cmocka_unit_test(every_scheme_of_a_signer_verifies),
		cmocka_unit_test(what_is_no_signature_goes_nowhere),
		cmocka_unit_test(orders_beyond_profile_or_issuer_are_refused),
		cmocka_unit_test(a_path_gets_shorter_and_ends),
		cmocka_unit_test(openssl_sees_name_constraints),
		cmocka_unit_test(certs_only_is_what_openssl_reads_and_writes),
	};

	return cmocka_run_group_tests(tests, NULL, pki_teardown);
}
