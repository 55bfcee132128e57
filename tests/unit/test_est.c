#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <openssl/evp.h>
#include "daemon/central/body.h"
#include "daemon/central/est.h"
#include "tests/lib/pkifix.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

static void a_type_is_told_whatever_its_parameters(void **state)
{
	static const char *const yes[] = {"application/pkcs10", "Application/PKCS10", "application/pkcs10; charset=utf-8",
		"application/pkcs10;x", " application/pkcs10 ", "application/pkcs10\t;"};
	static const char *const no[] = {"", "application/pkcs1", "application/pkcs100", "application/json", "text/plain; application/pkcs10"};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(yes); i++)
		assert_true(est_type_is(csm_str_of(yes[i]), "application/pkcs10"));
	for (size_t i = 0; i < N_ELEMS(no); i++)
		assert_false(est_type_is(csm_str_of(no[i]), "application/pkcs10"));
}

/* Of each length around a line's end: openssl decodes it, and no line is longer than 64. */
static void base64_is_what_others_decode(void **state)
{
	uint8_t bytes[200], back[300];
	struct csm_buf out;

	(void)state;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 37);
	csm_buf_init(&out, 1024, false);
	for (size_t n = 0; n <= sizeof(bytes); n++) {
		EVP_ENCODE_CTX *ctx = EVP_ENCODE_CTX_new();
		int len = 0, more = 0;
		const uint8_t *at, *end;

		csm_buf_reset(&out);
		assert_int_equal(body_base64((struct csm_bin){bytes, n}, &out), 0);
		EVP_DecodeInit(ctx);
		assert_true(EVP_DecodeUpdate(ctx, back, &len, csm_buf_ptr(&out), (int)out.len) >= 0);
		assert_int_equal(EVP_DecodeFinal(ctx, back + len, &more), 1);
		EVP_ENCODE_CTX_free(ctx);
		assert_int_equal(len + more, n);
		assert_memory_equal(back, bytes, n);
		for (at = csm_buf_ptr(&out); at < csm_buf_ptr(&out) + out.len; at = end + 1) {
			end = memchr(at, '\n', (size_t)(csm_buf_ptr(&out) + out.len - at));
			assert_non_null(end);
			assert_true(end - at >= 1 && end - at <= 64);
		}
	}
	csm_buf_free(&out);
}

/* ---- simplereenroll ---- */

static struct csm_certreq *request(const char *subject, const char *sans, const char *more_name, const char *more_value)
{
	struct pki_reqspec spec = {.subject = subject, .key = pki_key("p256")};
	struct csm_certreq *q = NULL;
	struct csm_buf der;
	char why[CSM_CERTREQ_WHY];
	size_t n = 0;

	if (sans != NULL)
		spec.exts[n++] = (struct pki_ext){"subjectAltName", sans};
	if (more_name != NULL)
		spec.exts[n] = (struct pki_ext){more_name, more_value};
	csm_buf_init(&der, 16384, false);
	pki_request(&spec, &der);
	assert_int_equal(csm_certreq_read((struct csm_bin){csm_buf_ptr(&der), der.len}, &q, why), 0);
	csm_buf_free(&der);
	return q;
}

static X509 *cert_of(const struct pki_ca *ca, const char *subject, const char *const *sans, size_t n)
{
	struct csm_profile p = pki_profile();
	X509_NAME *name = pki_name(subject);
	GENERAL_NAMES *names = n > 0 ? pki_sans(sans, n) : NULL;
	struct csm_cert_order o = {.profile = &p, .subject = name, .sans = names, .spki = pki_spki(pki_key("p256")), .issuer = ca->cert,
		.not_before = PKI_NOW, .not_after = PKI_NOW + PKI_DAY, .serial = {1}};
	struct csm_signer s = pki_signer(ca->key, NULL);
	X509 *x = pki_issue(&o, &s);

	X509_NAME_free(name);
	GENERAL_NAMES_free(names);
	return x;
}

static void renewal_is_for_the_same_names(void **state)
{
	static const char *const sans[] = {"dns:a.example", "dns:b.example", "ip:10.1.2.3"};
	static const struct {
		const char *subject, *sans;
		bool same;
	} rows[] = {
		{"/CN=a.example", "DNS:a.example,DNS:b.example,IP:10.1.2.3", true},
		{"/CN=a.example", "IP:10.1.2.3,DNS:b.example,DNS:a.example", true},
		{"/CN=a.example", "DNS:a.example,DNS:b.example", false},
		{"/CN=a.example", "DNS:a.example,DNS:b.example,IP:10.1.2.4", false},
		{"/CN=a.example", "DNS:a.example,DNS:b.example,DNS:d.example", false},
		{"/CN=a.example", "DNS:a.example,DNS:b.example,IP:10.1.2.3,DNS:c.example", false},
		{"/CN=a.example", NULL, false},
		{"/CN=b.example", "DNS:a.example,DNS:b.example,IP:10.1.2.3", false},
		{"/O=x/CN=a.example", "DNS:a.example,DNS:b.example,IP:10.1.2.3", false},
		{NULL, "DNS:a.example,DNS:b.example,IP:10.1.2.3", false},
	};
	struct pki_ca ca = pki_ca_make("/CN=Root", "p256", NULL);
	X509 *cert = cert_of(&ca, "/CN=a.example", sans, N_ELEMS(sans)), *bare = cert_of(&ca, "/CN=a.example", NULL, 0);
	struct csm_certreq *q;
	char why[CA_WHY];

	(void)state;
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		q = request(rows[i].subject, rows[i].sans, NULL, NULL);
		why[0] = '\0';
		assert_int_equal(est_same_names(cert, q, why), rows[i].same ? 0 : CSM_EDENIED);
		assert_int_equal(why[0] == '\0', rows[i].same);
		csm_certreq_free(q);
	}
	q = request("/CN=a.example", NULL, NULL, NULL);
	assert_int_equal(est_same_names(bare, q, why), 0);
	csm_certreq_free(q);
	q = request("/CN=a.example", "DNS:a.example", NULL, NULL);
	assert_int_equal(est_same_names(bare, q, why), CSM_EDENIED);
	csm_certreq_free(q);
	X509_free(cert);
	X509_free(bare);
	pki_ca_free(&ca);
}

/* The attribute as RFC 6402 names it, whatever its value is. */
static void another_subject_is_not_asked_for(void **state)
{
	struct pki_ca ca = pki_ca_make("/CN=Root", "p256", NULL);
	X509 *cert = cert_of(&ca, "/CN=a.example", NULL, 0);
	X509_REQ *req = X509_REQ_new();
	X509_NAME *name = pki_name("/CN=a.example");
	struct csm_certreq *q = NULL;
	unsigned char *der = NULL;
	char why[CA_WHY] = "", bad[CSM_CERTREQ_WHY];
	int n;

	(void)state;
	assert_true(X509_REQ_set_subject_name(req, name) == 1 && X509_REQ_set_pubkey(req, pki_key("p256")) == 1);
	assert_int_equal(X509_REQ_add1_attr_by_txt(req, "1.3.6.1.5.5.7.7.36", V_ASN1_UTF8STRING, (const unsigned char *)"x", 1), 1);
	assert_true(X509_REQ_sign(req, pki_key("p256"), EVP_sha256()) > 0);
	n = i2d_X509_REQ(req, &der);
	assert_int_equal(csm_certreq_read((struct csm_bin){der, (size_t)n}, &q, bad), 0);
	assert_int_equal(est_same_names(cert, q, why), CSM_EDENIED);
	assert_non_null(strstr(why, "ChangeSubjectName"));
	csm_certreq_free(q);
	OPENSSL_free(der);
	X509_NAME_free(name);
	X509_REQ_free(req);
	X509_free(cert);
	pki_ca_free(&ca);
}

/* ---- csrattrs ---- */

static void attributes_tell_the_only_kind_of_key(void **state)
{
	static const struct {
		unsigned keys;
		const char *said[3];
	} rows[] = {
		{CSM_PROFILE_P256, {":id-ecPublicKey", ":prime256v1", ":ecdsa-with-SHA256"}},
		{CSM_PROFILE_P384, {":id-ecPublicKey", ":secp384r1", ":ecdsa-with-SHA384"}},
		{CSM_PROFILE_P521, {":id-ecPublicKey", ":secp521r1", ":ecdsa-with-SHA512"}},
		{CSM_PROFILE_RSA, {":rsaEncryption", ":0C00", ":sha256WithRSAEncryption"}},
		{CSM_PROFILE_ED25519, {":ED25519", "SEQUENCE", "SEQUENCE"}},
	};
	struct csm_profile p = {.rsa_min = 3072, .rsa_max = 4096};
	struct csm_buf out;
	const char *said;

	(void)state;
	csm_buf_init(&out, 4096, false);
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		p.keys = rows[i].keys;
		csm_buf_reset(&out);
		assert_int_equal(est_csrattrs(&p, &out), 0);
		pki_write("attrs.der", (struct csm_bin){csm_buf_ptr(&out), out.len});
		assert_int_equal(pki_openssl("asn1parse -inform DER -in @attrs.der", &said), 0);
		for (size_t k = 0; k < N_ELEMS(rows[i].said); k++)
			if (strstr(said, rows[i].said[k]) == NULL)
				fail_msg("%s: %s", rows[i].said[k], said);
	}
	csm_buf_reset(&out);
	p.keys = CSM_PROFILE_P256 | CSM_PROFILE_RSA;
	assert_int_equal(est_csrattrs(&p, &out), CSM_ENOT_FOUND);
	assert_int_equal(out.len, 0);
	csm_buf_free(&out);
}

/* RFC 7030 4.5.2: the attribute extensionRequest, with what has to be in it. */
static void attributes_tell_that_names_are_demanded(void **state)
{
	static const uint8_t want[] = {0x30, 0x14, 0x30, 0x12, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e, 0x31, 0x05,
		0x06, 0x03, 0x55, 0x1d, 0x11};
	const struct csm_profile p = {.keys = CSM_PROFILE_P256 | CSM_PROFILE_RSA, .rsa_min = 2048, .rsa_max = 4096, .needs_san = true};
	struct csm_buf out;

	(void)state;
	csm_buf_init(&out, 4096, false);
	assert_int_equal(est_csrattrs(&p, &out), 0);
	assert_int_equal(out.len, sizeof(want));
	assert_memory_equal(csm_buf_ptr(&out), want, sizeof(want));
	csm_buf_free(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_type_is_told_whatever_its_parameters),
		cmocka_unit_test(base64_is_what_others_decode),
		cmocka_unit_test(renewal_is_for_the_same_names),
		cmocka_unit_test(another_subject_is_not_asked_for),
		cmocka_unit_test(attributes_tell_the_only_kind_of_key),
		cmocka_unit_test(attributes_tell_that_names_are_demanded),
	};

	return cmocka_run_group_tests(tests, NULL, pki_teardown);
}
