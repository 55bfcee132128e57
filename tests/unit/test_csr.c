#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include "daemon/pki/csr.h"
#include "daemon/pki/subject.h"
#include "proto-spec/limits.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

static EVP_PKEY *keys[CSM_ALG__COUNT];

static int setup(void **state)
{
	(void)state;
	keys[CSM_ALG_P256] = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	keys[CSM_ALG_P384] = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-384");
	keys[CSM_ALG_P521] = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-521");
	keys[CSM_ALG_RSA2048] = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048);
	keys[CSM_ALG_RSA3072] = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)3072);
	keys[CSM_ALG_RSA4096] = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)4096);
	keys[CSM_ALG_ED25519] = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (size_t i = 0; i < CSM_ALG__COUNT; i++)
		EVP_PKEY_free(keys[i]);
	return 0;
}

/* What a back end does: sign the digest (Ed25519: the message). */
static size_t sign(EVP_PKEY *pkey, const struct csm_scheme *s, struct csm_bin tbs, uint8_t sig[CSM_SIGNATURE_MAX])
{
	size_t n = CSM_SIGNATURE_MAX;

	if (s->kind == CSM_SCHEME_ED25519) {
		EVP_MD_CTX *m = EVP_MD_CTX_new();

		assert_int_equal(EVP_DigestSignInit(m, NULL, NULL, NULL, pkey), 1);
		assert_int_equal(EVP_DigestSign(m, sig, &n, tbs.p, tbs.n), 1);
		EVP_MD_CTX_free(m);
		return n;
	}
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(pkey, NULL);
	const EVP_MD *md = EVP_get_digestbyname(csm_hash_name(s->hash));

	assert_int_equal(EVP_PKEY_sign_init(c), 1);
	assert_int_equal(EVP_PKEY_CTX_set_signature_md(c, md), 1);
	if (s->kind == CSM_SCHEME_RSA_PSS) {
		assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(c, RSA_PKCS1_PSS_PADDING), 1);
		assert_int_equal(EVP_PKEY_CTX_set_rsa_pss_saltlen(c, RSA_PSS_SALTLEN_DIGEST), 1);
	}
	assert_int_equal(EVP_PKEY_sign(c, sig, &n, tbs.p, tbs.n), 1);
	EVP_PKEY_CTX_free(c);
	return n;
}

static int build(enum csm_alg alg, const char *scheme, const char *subject, const struct csm_str *sans, size_t n_sans,
	struct csm_csr **csr, char why[static 128])
{
	uint8_t *spki = NULL;
	struct csm_csr_spec spec = {.subject = csm_str_of(subject), .sans = sans, .n_sans = n_sans};
	int r;

	assert_int_equal(csm_scheme_parse(csm_str_of(scheme), &spec.scheme), 0);
	spec.spki_len = (size_t)i2d_PUBKEY(keys[alg], &spki);
	spec.spki = spki;
	r = csm_csr_build(&spec, csr, why);
	OPENSSL_free(spki);
	return r;
}

/* A whole request, parsed and verified by OpenSSL. */
static X509_REQ *make(enum csm_alg alg, const char *scheme, const char *subject, const struct csm_str *sans, size_t n)
{
	struct csm_csr *csr = NULL;
	struct csm_scheme s;
	struct csm_buf out;
	uint8_t sig[CSM_SIGNATURE_MAX];
	char why[128] = "";
	const uint8_t *at;
	X509_REQ *req;

	assert_int_equal(build(alg, scheme, subject, sans, n, &csr, why), 0);
	assert_int_equal(csm_scheme_parse(csm_str_of(scheme), &s), 0);
	csm_buf_init(&out, CSM_CSR_MAX, false);
	assert_int_equal(csm_csr_finish(csr, sig, sign(keys[alg], &s, csm_csr_tbs(csr), sig), &out), 0);
	csm_csr_free(csr);
	at = csm_buf_ptr(&out);
	assert_non_null(req = d2i_X509_REQ(NULL, &at, (long)out.len));
	assert_ptr_equal(at, csm_buf_ptr(&out) + out.len);
	assert_int_equal(X509_REQ_verify(req, keys[alg]), 1);
	csm_buf_free(&out);
	return req;
}

static const struct csm_str all_sans[] = {
	{"dns:www.example.org", 19},
	{"dns:*.example.org", 17},
	{"ip:192.0.2.7", 12},
	{"ip:2001:db8::1", 14},
	{"uri:spiffe://example.org/a/b", 28},
	{"email:ops+x@example.org", 23},
};

static const char *const schemes[] = {"ecdsa-sha256", "ecdsa-sha384", "ecdsa-sha512", "rsa-pkcs1-sha256",
	"rsa-pkcs1-sha384", "rsa-pkcs1-sha512", "rsa-pss-sha256", "rsa-pss-sha384", "rsa-pss-sha512", "ed25519"};

/* openssl req -verify, as people run it. */
static void openssl_verifies(X509_REQ *req)
{
	char path[] = "/tmp/csm-csr-XXXXXX";
	int fd = mkstemp(path), status;
	FILE *f = fdopen(fd, "w");
	pid_t pid;

	assert_non_null(f);
	assert_int_equal(PEM_write_X509_REQ(f, req), 1);
	assert_int_equal(fclose(f), 0);
	if ((pid = fork()) == 0) {
		if (freopen("/dev/null", "w", stderr) == NULL)
			_exit(2);
		execlp("openssl", "openssl", "req", "-verify", "-noout", "-in", path, (char *)NULL);
		_exit(3);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	unlink(path);
	assert_int_equal(status, 0);
}

static void every_scheme_verifies(void **state)
{
	unsigned made = 0;

	(void)state;
	for (unsigned alg = 0; alg < CSM_ALG__COUNT; alg++)
		for (size_t i = 0; i < N_ELEMS(schemes); i++) {
			int other = alg == CSM_ALG_P256 ? CSM_ALG_P384 : CSM_ALG_P256;
			struct csm_scheme s;
			X509_REQ *req;

			assert_int_equal(csm_scheme_parse(csm_str_of(schemes[i]), &s), 0);
			if (csm_scheme_check(alg, &s) != 0)
				continue;
			req = make(alg, schemes[i], "/O=x/CN=y", all_sans, N_ELEMS(all_sans));
			assert_int_equal(X509_REQ_get_version(req), 0);
			assert_int_not_equal(X509_REQ_verify(req, keys[other]), 1);
			openssl_verifies(req);
			X509_REQ_free(req);
			made++;
		}
	assert_int_equal(made, 3 * 3 + 3 * 6 + 1);
}

static void a_wrong_signature_does_not_verify(void **state)
{
	struct csm_csr *csr = NULL;
	struct csm_scheme s = csm_scheme_default(CSM_ALG_P256);
	struct csm_buf out;
	uint8_t sig[CSM_SIGNATURE_MAX], other[32] = {0};
	char why[128];
	const uint8_t *at;
	X509_REQ *req;

	(void)state;
	assert_int_equal(build(CSM_ALG_P256, "ecdsa-sha256", "/CN=y", NULL, 0, &csr, why), 0);
	csm_buf_init(&out, CSM_CSR_MAX, false);
	assert_int_equal(csm_csr_finish(csr, sig, 0, &out), CSM_EINVALID);
	assert_int_equal(csm_csr_finish(csr, sig, CSM_SIGNATURE_MAX + 1, &out), CSM_EINVALID);
	assert_int_equal(
		csm_csr_finish(csr, sig, sign(keys[CSM_ALG_P256], &s, (struct csm_bin){other, 32}, sig), &out), 0);
	csm_csr_free(csr);
	at = csm_buf_ptr(&out);
	assert_non_null(req = d2i_X509_REQ(NULL, &at, (long)out.len));
	assert_int_not_equal(X509_REQ_verify(req, keys[CSM_ALG_P256]), 1);
	X509_REQ_free(req);
	csm_buf_free(&out);
}

/* A signature whose last bits are zero keeps them. */
static void zero_bits_at_the_end_stay(void **state)
{
	struct csm_csr *csr = NULL;
	struct csm_buf out;
	uint8_t sig[64];
	char why[128];
	const uint8_t *at;
	const ASN1_BIT_STRING *bits = NULL;
	X509_REQ *req;

	(void)state;
	memset(sig, 0x80, sizeof(sig));
	sig[63] = 0;
	assert_int_equal(build(CSM_ALG_ED25519, "ed25519", "/CN=y", NULL, 0, &csr, why), 0);
	csm_buf_init(&out, CSM_CSR_MAX, false);
	assert_int_equal(csm_csr_finish(csr, sig, sizeof(sig), &out), 0);
	csm_csr_free(csr);
	at = csm_buf_ptr(&out);
	assert_non_null(req = d2i_X509_REQ(NULL, &at, (long)out.len));
	X509_REQ_get0_signature(req, &bits, NULL);
	assert_int_equal(ASN1_STRING_length(bits), 64);
	assert_memory_equal(ASN1_STRING_get0_data(bits), sig, 64);
	X509_REQ_free(req);
	csm_buf_free(&out);
}

static void names_come_out_as_asked(void **state)
{
	X509_REQ *req = make(
		CSM_ALG_P256, "ecdsa-sha256", "/C=DE/O=a\\/b \\+ \\\\c/CN=J\xc3\xbcrgen", all_sans, N_ELEMS(all_sans));
	X509_NAME *name = X509_REQ_get_subject_name(req);
	STACK_OF(X509_EXTENSION) *exts = X509_REQ_get_extensions(req);
	GENERAL_NAMES *san;
	char text[64];
	int critical = -1;

	(void)state;
	assert_int_equal(X509_NAME_entry_count(name), 3);
	assert_int_equal(X509_NAME_get_text_by_NID(name, NID_organizationName, text, sizeof(text)), 8);
	assert_string_equal(text, "a/b + \\c");
	assert_int_equal(X509_NAME_get_text_by_NID(name, NID_commonName, text, sizeof(text)), 7);
	assert_string_equal(text, "J\xc3\xbcrgen");
	assert_non_null(san = X509V3_get_d2i(exts, NID_subject_alt_name, &critical, NULL));
	assert_int_equal(critical, 0);
	assert_int_equal(sk_GENERAL_NAME_num(san), N_ELEMS(all_sans));
	for (size_t i = 0; i < N_ELEMS(all_sans); i++) {
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(san, (int)i);
		const char *want = strchr(all_sans[i].p, ':') + 1;

		if (g->type == GEN_IPADD) {
			static const uint8_t v4[4] = {192, 0, 2, 7}, v6[16] = {0x20, 1, 0xd, 0xb8, [15] = 1};
			int n = ASN1_STRING_length(g->d.iPAddress);

			assert_int_equal(n, i == 2 ? 4 : 16);
			assert_memory_equal(ASN1_STRING_get0_data(g->d.iPAddress), i == 2 ? v4 : v6, (size_t)n);
			continue;
		}
		assert_int_equal(ASN1_STRING_length(g->d.ia5), strlen(want));
		assert_memory_equal(ASN1_STRING_get0_data(g->d.ia5), want, strlen(want));
	}
	GENERAL_NAMES_free(san);
	sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
	X509_REQ_free(req);
}

static void an_empty_subject_makes_the_names_critical(void **state)
{
	X509_REQ *req = make(CSM_ALG_P256, "ecdsa-sha256", "/", all_sans, 1);
	STACK_OF(X509_EXTENSION) *exts = X509_REQ_get_extensions(req);
	int critical = -1;

	(void)state;
	assert_int_equal(X509_NAME_entry_count(X509_REQ_get_subject_name(req)), 0);
	GENERAL_NAMES_free(X509V3_get_d2i(exts, NID_subject_alt_name, &critical, NULL));
	assert_int_equal(critical, 1);
	sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
	X509_REQ_free(req);
	req = make(CSM_ALG_P256, "ecdsa-sha256", "/CN=x", NULL, 0);
	assert_int_equal(X509_REQ_get_attr_count(req), 0);
	X509_REQ_free(req);
}

static void bad_subjects(void **state)
{
	static const struct {
		const char *text, *names; /* the part that `why` names */
	} rows[] = {
		{"", "start"},
		{"CN=x", "start"},
		{"//CN=x", "after each"},
		{"/CN", "after each"},
		{"/=x", "after each"},
		{"/CN=x/", "after each"},
		{"/NOSUCH=x", "NOSUCH"},
		{"/CN=", "CN"},
		{"/O=x/CN=", "CN"},
		{"/C=DEU", "C:"},
		{"/CN=x\\", "CN"},
		{"/CN=a+O=b", "CN"},
		{"/CN=\xff\xfe", "UTF-8"},
		{"/CN=a\nb", "control"},
		{"/CN=0123456789012345678901234567890123456789012345678901234567890123456789", "CN"},
		{"/0123456789012345678901234567890123456789012345678901234567890123456789=x", "after each"},
		{"/1.2.3.4.5=x/CN=", "CN"},
	};
	char why[128], large[CSM_SUBJECT_MAX + 2];
	X509_NAME *name = NULL;

	(void)state;
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		why[0] = '\0';
		if (csm_subject_parse(csm_str_of(rows[i].text), &name, why) != CSM_EINVALID)
			fail_msg("accepted: %s", rows[i].text);
		if (strncmp(why, "subject: ", 9) != 0 || strstr(why, rows[i].names) == NULL)
			fail_msg("%s: %s", rows[i].text, why);
		assert_null(name);
	}
	memset(large, 'x', sizeof(large));
	large[0] = '/';
	large[1] = 'O';
	large[2] = '=';
	assert_int_equal(csm_subject_parse((struct csm_str){large, CSM_SUBJECT_MAX + 1}, &name, why), CSM_EINVALID);
	assert_int_equal(csm_subject_parse((struct csm_str){"/CN=a\0b", 7}, &name, why), CSM_EINVALID);
	assert_null(name);
}

static void bad_sans(void **state)
{
	static const char *const bad[] = {
		"",
		"dns",
		"dns:",
		"DNS:a",
		"host:a",
		"dns:a..b",
		"dns:.a",
		"dns:a.",
		"dns:-a",
		"dns:a-.b",
		"dns:a_b",
		"dns:a b",
		"dns:*",
		"dns:*.",
		"dns:a.*.b",
		"dns:**.a",
		"dns:*a.b",
		"dns:192.0.2.1",
		"dns:\xc3\xbc.de",
		"dns:0123456789012345678901234567890123456789012345678901234567890123",
		"ip:",
		"ip:1.2.3",
		"ip:1.2.3.4.5",
		"ip:1.2.3.4/24",
		"ip:::g",
		"ip:[::1]",
		"ip: 1.2.3.4",
		"ip:fe80::1%eth0",
		"uri:",
		"uri:a",
		"uri:/x",
		"uri:a:",
		"uri:1a:b",
		"uri:http://a b",
		"uri:http://\xc3\xbc",
		"uri:a:\"",
		"email:",
		"email:a",
		"email:@b",
		"email:a@",
		"email:a@b@c",
		"email:.a@b",
		"email:a.@b",
		"email:a..b@c",
		"email:a b@c",
		"email:a@b_c",
		"email:\xc3\xbc@b",
		"email:a@*.b",
	};
	char why[128];
	GENERAL_NAMES *names = NULL;

	(void)state;
	for (size_t i = 0; i < N_ELEMS(bad); i++) {
		struct csm_str sans[2] = {CSM_STR("dns:good"), csm_str_of(bad[i])};

		why[0] = '\0';
		if (csm_sans_parse(sans, 2, &names, why) != CSM_EINVALID)
			fail_msg("accepted: %s", bad[i]);
		if (strncmp(why, "san 2", 5) != 0)
			fail_msg("%s: %s", bad[i], why);
		assert_null(names);
	}
	assert_int_equal(csm_sans_parse(&(struct csm_str){"dns:a\0b", 7}, 1, &names, why), CSM_EINVALID);
	assert_int_equal(csm_sans_parse(&(struct csm_str){"uri:a:\0", 7}, 1, &names, why), CSM_EINVALID);
	assert_int_equal(csm_sans_parse(&(struct csm_str){"email:\0@b", 9}, 1, &names, why), CSM_EINVALID);
	assert_int_equal(csm_sans_parse(&(struct csm_str){"ip:1.2.3.4\0", 11}, 1, &names, why), CSM_EINVALID);
}

static void good_sans(void **state)
{
	static const char *const good[] = {
		"dns:a",
		"dns:a.b",
		"dns:*.a",
		"dns:xn--bcher-kva.example",
		"dns:1.a",
		"dns:A.B",
		"ip:0.0.0.0",
		"ip:::",
		"ip:::ffff:1.2.3.4",
		"uri:urn:x",
		"uri:https://a/b?c#d",
		"email:a.b@c",
		"email:o'x@y.z",
		"dns:012345678901234567890123456789012345678901234567890123456789012",
	};
	char why[128];
	GENERAL_NAMES *names = NULL;

	(void)state;
	for (size_t i = 0; i < N_ELEMS(good); i++) {
		struct csm_str san = csm_str_of(good[i]);

		why[0] = '\0';
		if (csm_sans_parse(&san, 1, &names, why) != 0)
			fail_msg("%s: %s", good[i], why);
		assert_int_equal(sk_GENERAL_NAME_num(names), 1);
		GENERAL_NAMES_free(names);
		names = NULL;
	}
}

static void sans_twice_and_too_many(void **state)
{
	static const char *const twins[][2] = {{"dns:a.b", "dns:A.b"}, {"ip:::1", "ip:0:0:0:0:0:0:0:1"},
		{"uri:a:b", "uri:a:b"}, {"email:a@b", "email:a@b"}};
	static char text[CSM_SANS_MAX + 1][16];
	struct csm_str many[CSM_SANS_MAX + 1], pair[2] = {CSM_STR("uri:a:b"), CSM_STR("uri:a:B")};
	char why[128] = "", long_san[CSM_SAN_MAX + 2];
	GENERAL_NAMES *names = NULL;

	(void)state;
	for (size_t i = 0; i < N_ELEMS(twins); i++) {
		struct csm_str sans[2] = {csm_str_of(twins[i][0]), csm_str_of(twins[i][1])};

		assert_int_equal(csm_sans_parse(sans, 2, &names, why), CSM_EINVALID);
		assert_non_null(strstr(why, "twice"));
	}
	assert_int_equal(csm_sans_parse(pair, 2, &names, why), 0);
	GENERAL_NAMES_free(names);
	names = NULL;
	for (size_t i = 0; i <= CSM_SANS_MAX; i++) {
		snprintf(text[i], sizeof(text[i]), "dns:h%zu", i);
		many[i] = csm_str_of(text[i]);
	}
	assert_int_equal(csm_sans_parse(many, CSM_SANS_MAX + 1, &names, why), CSM_EINVALID);
	assert_null(names);
	assert_int_equal(csm_sans_parse(many, CSM_SANS_MAX, &names, why), 0);
	GENERAL_NAMES_free(names);
	names = NULL;
	memset(long_san, 'x', sizeof(long_san));
	memcpy(long_san, "uri:a:x", sizeof("uri:a:x"));
	long_san[7] = 'x';
	assert_int_equal(csm_sans_parse(&(struct csm_str){long_san, CSM_SAN_MAX}, 1, &names, why), 0);
	GENERAL_NAMES_free(names);
	names = NULL;
	assert_int_equal(csm_sans_parse(&(struct csm_str){long_san, CSM_SAN_MAX + 1}, 1, &names, why), CSM_EINVALID);
	assert_null(names);
}

static void bad_keys_and_schemes(void **state)
{
	static const struct {
		enum csm_alg alg;
		const char *scheme;
	} rows[] = {
		{CSM_ALG_P256, "rsa-pss-sha256"},
		{CSM_ALG_P256, "ed25519"},
		{CSM_ALG_RSA2048, "ecdsa-sha256"},
		{CSM_ALG_RSA2048, "rsa-oaep-sha256"},
		{CSM_ALG_ED25519, "ecdsa-sha256"},
	};
	struct csm_csr_spec spec = {.subject = CSM_STR("/CN=x"), .scheme = csm_scheme_default(CSM_ALG_P256)};
	struct csm_csr *csr = NULL;
	uint8_t *spki = NULL;
	char why[128];
	size_t n;

	(void)state;
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		assert_int_equal(build(rows[i].alg, rows[i].scheme, "/CN=x", NULL, 0, &csr, why), CSM_EINVALID);
		assert_non_null(strstr(why, "scheme"));
		assert_null(csr);
	}
	n = (size_t)i2d_PUBKEY(keys[CSM_ALG_P256], &spki);
	spec.spki = spki;
	for (spec.spki_len = 0; spec.spki_len < n; spec.spki_len++)
		assert_int_equal(csm_csr_build(&spec, &csr, why), CSM_EINVALID);
	assert_non_null(strstr(why, "public key"));
	spec.spki_len = n;
	assert_int_equal(csm_csr_build(&spec, &csr, why), 0);
	csm_csr_free(csr);
	csm_csr_free(NULL);
	OPENSSL_free(spki);
}

/* Every name is allowed and all of them are too much. */
static void a_request_has_a_largest_size(void **state)
{
	static char text[CSM_SANS_MAX][CSM_SAN_MAX + 1];
	struct csm_str sans[CSM_SANS_MAX];
	struct csm_csr *csr = NULL;
	char why[128];

	(void)state;
	for (size_t i = 0; i < CSM_SANS_MAX; i++) {
		memset(text[i], 'x', CSM_SAN_MAX);
		memcpy(text[i], "uri:a:", 6);
		snprintf(text[i] + 6, 8, "%07zu", i);
		text[i][13] = 'x';
		sans[i] = (struct csm_str){text[i], CSM_SAN_MAX};
	}
	assert_int_equal(build(CSM_ALG_P256, "ecdsa-sha256", "/CN=x", sans, CSM_SANS_MAX, &csr, why), CSM_EINVALID);
	assert_non_null(strstr(why, "larger"));
	assert_null(csr);
	assert_int_equal(build(CSM_ALG_P256, "ecdsa-sha256", "/CN=x", sans, 25, &csr, why), 0);
	csm_csr_free(csr);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_scheme_verifies),
		cmocka_unit_test(a_wrong_signature_does_not_verify),
		cmocka_unit_test(zero_bits_at_the_end_stay),
		cmocka_unit_test(names_come_out_as_asked),
		cmocka_unit_test(an_empty_subject_makes_the_names_critical),
		cmocka_unit_test(bad_subjects),
		cmocka_unit_test(bad_sans),
		cmocka_unit_test(good_sans),
		cmocka_unit_test(sans_twice_and_too_many),
		cmocka_unit_test(bad_keys_and_schemes),
		cmocka_unit_test(a_request_has_a_largest_size),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
