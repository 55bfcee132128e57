#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include "daemon/pki/csr.h"
#include "daemon/pki/certreq.h"
#include "tests/lib/pkifix.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

static char why[CSM_CERTREQ_WHY];

static int read_spec(const struct pki_reqspec *spec, struct csm_certreq **ret)
{
	struct csm_buf der;
	int r;

	csm_buf_init(&der, 65536, false);
	pki_request(spec, &der);
	*ret = NULL;
	r = csm_certreq_read((struct csm_bin){csm_buf_ptr(&der), der.len}, ret, why);
	csm_buf_free(&der);
	if (r != 0)
		assert_null(*ret);
	return r;
}

static void refused(const struct pki_reqspec *spec, const char *reason)
{
	struct csm_certreq *q;

	assert_int_equal(read_spec(spec, &q), CSM_EINVALID);
	if (strstr(why, reason) == NULL)
		fail_msg("\"%s\" is not in \"%s\"", reason, why);
}

static void every_kind_of_key_is_read(void **state)
{
	static const struct {
		const char *alg;
		int type, bits;
	} rows[] = {
		{"p256", EVP_PKEY_EC, 256}, {"p384", EVP_PKEY_EC, 384}, {"p521", EVP_PKEY_EC, 521},
		{"rsa2048", EVP_PKEY_RSA, 2048}, {"ed25519", EVP_PKEY_ED25519, 256},
	};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		const struct pki_reqspec spec = {.subject = "/O=x/CN=y", .key = pki_key(rows[i].alg)};
		struct csm_bin spki = pki_spki(spec.key);
		struct csm_certreq *q;

		assert_int_equal(read_spec(&spec, &q), 0);
		assert_int_equal(q->key_type, rows[i].type);
		if (q->key_type != EVP_PKEY_ED25519)
			assert_int_equal(q->key_bits, rows[i].bits);
		assert_int_equal(q->spki.n, spki.n);
		assert_memory_equal(q->spki.p, spki.p, spki.n);
		assert_int_equal(X509_NAME_entry_count(q->subject), 2);
		assert_true(q->tbs.p > q->der.p && q->tbs.p + q->tbs.n < q->der.p + q->der.n && !q->changes_subject);
		assert_true(q->sans == NULL && q->n_exts == 0 && !q->wants_ca && q->key_usage == 0 && q->eku == NULL);
		csm_certreq_free(q);
	}
}

static void what_it_asks_for_is_told(void **state)
{
	const struct pki_reqspec spec = {.subject = "/CN=y", .key = pki_key("p256"), .exts = {
		{"basicConstraints", "critical,CA:TRUE,pathlen:0"}, {"keyUsage", "digitalSignature,keyCertSign,decipherOnly"},
		{"extendedKeyUsage", "serverAuth,1.2.3.4"}, {"1.2.3.4.5", "ASN1:NULL"},
		{"subjectAltName", "DNS:a.example,IP:10.1.2.3,IP:2001:db8::1,URI:spiffe://td/x,email:a@b.example"}}};
	struct csm_certreq *q;

	(void)state;
	assert_int_equal(read_spec(&spec, &q), 0);
	assert_true(q->wants_ca);
	assert_int_equal(q->key_usage, KU_DIGITAL_SIGNATURE | KU_KEY_CERT_SIGN | KU_DECIPHER_ONLY);
	assert_int_equal(sk_ASN1_OBJECT_num(q->eku), 2);
	assert_int_equal(q->n_exts, 5);
	assert_int_equal(q->exts[0].nid, NID_basic_constraints);
	assert_true(q->exts[0].critical && !q->exts[1].critical);
	assert_string_equal(q->exts[3].oid, "1.2.3.4.5");
	assert_int_equal(sk_GENERAL_NAME_num(q->sans), 5);
	assert_int_equal(sk_GENERAL_NAME_value(q->sans, 0)->type, GEN_DNS);
	assert_int_equal(ASN1_STRING_length(sk_GENERAL_NAME_value(q->sans, 2)->d.iPAddress), 16);
	assert_int_equal(sk_GENERAL_NAME_value(q->sans, 3)->type, GEN_URI);
	assert_int_equal(sk_GENERAL_NAME_value(q->sans, 4)->type, GEN_EMAIL);
	csm_certreq_free(q);
}

static void der_pem_and_base64_are_the_same(void **state)
{
	const struct pki_reqspec spec = {.subject = "/CN=y", .key = pki_key("p256")};
	struct csm_certreq *q;
	struct csm_buf der;
	const unsigned char *at;
	uint8_t *version;
	char *text, *end, again[8192];
	X509_REQ *req;
	BIO *bio = BIO_new(BIO_s_mem());
	long n;

	(void)state;
	csm_buf_init(&der, 65536, false);
	pki_request(&spec, &der);
	at = csm_buf_ptr(&der);
	assert_non_null(req = d2i_X509_REQ(NULL, &at, (long)der.len));
	assert_int_equal(PEM_write_bio_X509_REQ(bio, req), 1);
	n = BIO_get_mem_data(bio, &text);
	(void)snprintf(again, sizeof(again), "A comment.\n%.*s\r\n", (int)n, text);
	assert_int_equal(csm_certreq_read((struct csm_bin){(uint8_t *)again, strlen(again)}, &q, why), 0);
	csm_certreq_free(q);
	/* without its lines, as EST sends it */
	end = strstr(again, "\n-----END");
	*end = '\0';
	text = strstr(again, "REQUEST-----") + 12;
	assert_int_equal(csm_certreq_read((struct csm_bin){(uint8_t *)text, strlen(text)}, &q, why), 0);
	csm_certreq_free(q);
	/* and no byte more, no byte less */
	text[strlen(text)] = '\n';
	(void)snprintf(again + strlen(again), 100, "\n-----BEGIN CERTIFICATE REQUEST-----\n");
	assert_int_equal(csm_certreq_read((struct csm_bin){(uint8_t *)again, strlen(again)}, &q, why), CSM_EINVALID);
	assert_int_equal(csm_buf_put(&der, "", 1), 0);
	assert_int_equal(csm_certreq_read((struct csm_bin){csm_buf_ptr(&der), der.len}, &q, why), CSM_EINVALID);
	assert_non_null(strstr(why, "left over"));
	assert_int_equal(csm_certreq_read((struct csm_bin){csm_buf_ptr(&der), der.len - 2}, &q, why), CSM_EINVALID);
	/* its version as a BOOLEAN */
	version = memmem(csm_buf_ptr(&der), der.len, "\x02\x01\x00", 3);
	assert_non_null(version);
	*version = V_ASN1_BOOLEAN;
	assert_int_equal(csm_certreq_read((struct csm_bin){csm_buf_ptr(&der), der.len - 1}, &q, why), CSM_EINVALID);
	assert_non_null(strstr(why, "not a certificate request"));
	*version = V_ASN1_INTEGER;
	assert_int_equal(csm_certreq_read((struct csm_bin){csm_buf_ptr(&der), der.len - 1}, &q, why), 0);
	csm_certreq_free(q);
	assert_int_equal(csm_certreq_read((struct csm_bin){(const uint8_t *)"", 0}, &q, why), CSM_EINVALID);
	X509_REQ_free(req);
	BIO_free(bio);
	csm_buf_free(&der);
}

static void a_request_without_proof_is_refused(void **state)
{
	struct pki_reqspec spec = {.subject = "/CN=y", .key = pki_key("p256"), .spoil = true};
	X509_REQ *req = X509_REQ_new();
	struct csm_certreq *q;
	unsigned char *der = NULL;
	int n;

	(void)state;
	refused(&spec, "own signature is wrong");
	spec.key = pki_key("rsa2048");
	refused(&spec, "own signature is wrong");
	spec.key = pki_key("ed25519");
	refused(&spec, "own signature is wrong");
	/* someone else's key, signed with one's own */
	assert_int_equal(X509_REQ_set_pubkey(req, pki_key("p256")), 1);
	assert_true(X509_REQ_sign(req, pki_key("p384"), EVP_sha256()) > 0);
	n = i2d_X509_REQ(req, &der);
	assert_int_equal(csm_certreq_read((struct csm_bin){der, (size_t)n}, &q, why), CSM_EINVALID);
	assert_non_null(strstr(why, "own signature is wrong"));
	OPENSSL_free(der);
	X509_REQ_free(req);
	/* a hash in which two requests may be alike */
	spec = (struct pki_reqspec){.subject = "/CN=y", .key = pki_key("p256"), .hash = "SHA1"};
	refused(&spec, "weak kind");
	spec.hash = "SHA224";
	refused(&spec, "weak kind");
	spec.hash = "SHA512";
	assert_int_equal(read_spec(&spec, &q), 0);
	csm_certreq_free(q);
}

static EVP_PKEY *rsa_of(unsigned bits, unsigned e)
{
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
	BIGNUM *bn = BN_new();
	EVP_PKEY *key = NULL;

	assert_true(EVP_PKEY_keygen_init(c) == 1 && EVP_PKEY_CTX_set_rsa_keygen_bits(c, (int)bits) == 1 && BN_set_word(bn, e) == 1 &&
		EVP_PKEY_CTX_set1_rsa_keygen_pubexp(c, bn) == 1 && EVP_PKEY_generate(c, &key) == 1);
	BN_free(bn);
	EVP_PKEY_CTX_free(c);
	return key;
}

static void weak_and_foreign_keys_are_refused(void **state)
{
	struct {
		EVP_PKEY *key;
		const char *hash, *reason;
	} rows[] = {
		{rsa_of(1024, 65537), NULL, "weak key: RSA of 1024 bits"},
		{rsa_of(2040, 65537), NULL, "weak key: RSA of 2040 bits"},
		{rsa_of(2048, 3), NULL, "exponent"},
		{EVP_PKEY_Q_keygen(NULL, NULL, "EC", "secp256k1"), NULL, "another curve"},
		{EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-224"), NULL, "another curve"},
		{EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256"), NULL, "another curve"},
	};
	EVP_PKEY_CTX *c;

	(void)state;
	/* the curve said by its numbers, not by its name */
	assert_int_equal(EVP_PKEY_set_utf8_string_param(rows[5].key, "encoding", "explicit"), 1);
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		const struct pki_reqspec spec = {.subject = "/CN=y", .key = rows[i].key};

		assert_non_null(rows[i].key);
		refused(&spec, rows[i].reason);
		EVP_PKEY_free(rows[i].key);
	}
	/* keys for something else than signatures, and signatures that nobody here knows */
	assert_non_null(c = EVP_PKEY_CTX_new_from_name(NULL, "ED448", NULL));
	rows[0].key = EVP_PKEY_Q_keygen(NULL, NULL, "ED448");
	{
		X509_REQ *req = X509_REQ_new();
		struct csm_certreq *q;
		unsigned char *der = NULL;
		int n;

		assert_true(X509_REQ_set_pubkey(req, rows[0].key) == 1 && X509_REQ_sign(req, rows[0].key, NULL) > 0);
		n = i2d_X509_REQ(req, &der);
		assert_int_equal(csm_certreq_read((struct csm_bin){der, (size_t)n}, &q, why), CSM_EINVALID);
		assert_non_null(strstr(why, "neither RSA, ECDSA nor Ed25519"));
		OPENSSL_free(der);
		X509_REQ_free(req);
	}
	EVP_PKEY_free(rows[0].key);
	EVP_PKEY_CTX_free(c);
}

/* One that costs more to look at than to send. */
static void a_huge_key_is_not_looked_at(void **state)
{
	static uint8_t n[1024];
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
	OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
	OSSL_PARAM *params;
	EVP_PKEY *key = NULL;
	X509_REQ *req = X509_REQ_new();
	struct csm_certreq *q;
	unsigned char *der = NULL;
	BIGNUM *bn;
	int len;

	(void)state;
	memset(n, 0xff, sizeof(n));
	bn = BN_bin2bn(n, sizeof(n), NULL);
	assert_true(OSSL_PARAM_BLD_push_BN(bld, "n", bn) == 1 && OSSL_PARAM_BLD_push_uint(bld, "e", 65537) == 1);
	assert_non_null(params = OSSL_PARAM_BLD_to_param(bld));
	assert_true(EVP_PKEY_fromdata_init(c) == 1 && EVP_PKEY_fromdata(c, &key, EVP_PKEY_PUBLIC_KEY, params) == 1);
	assert_true(X509_REQ_set_pubkey(req, key) == 1 && X509_REQ_sign(req, pki_key("p256"), EVP_sha256()) > 0);
	len = i2d_X509_REQ(req, &der);
	assert_int_equal(csm_certreq_read((struct csm_bin){der, (size_t)len}, &q, why), CSM_EINVALID);
	assert_non_null(strstr(why, "more than 4096 bits"));
	OPENSSL_free(der);
	X509_REQ_free(req);
	EVP_PKEY_free(key);
	BN_free(bn);
	OSSL_PARAM_free(params);
	OSSL_PARAM_BLD_free(bld);
	EVP_PKEY_CTX_free(c);
}

/* With the point of order one anyone makes signatures that OpenSSL takes. */
static void an_ed25519_point_of_small_order_is_refused(void **state)
{
	static const uint8_t one[32] = {1};
	EVP_PKEY *key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, one, sizeof(one));
	X509_REQ *req = X509_REQ_new();
	struct csm_certreq *q;
	ASN1_BIT_STRING *bits = ASN1_BIT_STRING_new();
	uint8_t sig[64] = {1};
	unsigned char *der = NULL;
	X509_ALGOR *alg = NULL;
	const struct csm_scheme ed = {CSM_SCHEME_ED25519, CSM_HASH_NONE};
	int n;

	(void)state;
	assert_int_equal(X509_REQ_set_pubkey(req, key), 1);
	assert_int_equal(csm_sigalg_new(&ed, &alg), 0);
	assert_int_equal(X509_REQ_set1_signature_algo(req, alg), 1);
	assert_int_equal(ASN1_STRING_set(bits, sig, sizeof(sig)), 1);
	bits->flags = (bits->flags & ~0x07L) | ASN1_STRING_FLAG_BITS_LEFT;
	X509_REQ_set0_signature(req, bits);
	n = i2d_X509_REQ(req, &der);
	assert_int_equal(csm_certreq_read((struct csm_bin){der, (size_t)n}, &q, why), CSM_EINVALID);
	assert_non_null(strstr(why, "weak key"));
	OPENSSL_free(der);
	X509_ALGOR_free(alg);
	X509_REQ_free(req);
	EVP_PKEY_free(key);
}

static void names_that_are_none_are_refused(void **state)
{
	static const struct {
		const char *san, *reason;
	} rows[] = {
		{"DNS:a b.example", "letter, digit"},
		{"DNS:a..example", "label"},
		{"DNS:10.0.0.1", "address"},
		{"DNS:a.example,DNS:A.example", "twice"},
		{"URI:nothing", "scheme"},
		{"email:nobody", "@"},
		{"RID:1.2.3.4", "dns:, ip:, uri: or email:"},
		{"otherName:1.2.3.4;UTF8:x", "dns:, ip:, uri: or email:"},
	};
	struct pki_reqspec spec = {.subject = "/CN=y", .key = pki_key("p256")};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		spec.exts[0] = (struct pki_ext){"subjectAltName", rows[i].san};
		refused(&spec, rows[i].reason);
	}
	/* a NUL in a host: what stands before it is not the name */
	spec.exts[0] = (struct pki_ext){"2.5.29.17", "DER:300f820d612e6578616d706c65002e7a7a"};
	refused(&spec, "bytes that such a name cannot have");
	spec.exts[0] = (struct pki_ext){"2.5.29.17", "DER:3000"};
	refused(&spec, "none or more than");
	spec.exts[0] = (struct pki_ext){"2.5.29.17", "DER:0500"};
	refused(&spec, "cannot be read");
}

static void extensions_twice_or_too_many_are_refused(void **state)
{
	struct pki_reqspec spec = {.subject = "/CN=y", .key = pki_key("p256"),
		.exts = {{"keyUsage", "digitalSignature"}, {"keyUsage", "keyCertSign"}}};
	static const char *const oids[] = {"1.2.3.1", "1.2.3.2", "1.2.3.3", "1.2.3.4", "1.2.3.5", "1.2.3.6", "1.2.3.7", "1.2.3.8",
		"1.2.3.9", "1.2.3.10", "1.2.3.11", "1.2.3.12", "1.2.3.13", "1.2.3.14", "1.2.3.15", "1.2.3.16", "1.2.3.17"};
	struct csm_certreq *q;

	(void)state;
	refused(&spec, "stands there twice");
	spec.exts[1].name = NULL;
	spec.two_lists = true;
	refused(&spec, "two lists");
	spec.two_lists = false;
	for (size_t i = 0; i < N_ELEMS(oids); i++)
		spec.exts[i] = (struct pki_ext){oids[i], "ASN1:NULL"};
	refused(&spec, "more than 16 extensions");
	spec.exts[16].name = NULL;
	assert_int_equal(read_spec(&spec, &q), 0);
	assert_int_equal(q->n_exts, 16);
	csm_certreq_free(q);
	spec.exts[1].name = NULL;
	spec.exts[0] = (struct pki_ext){"2.5.29.19", "DER:0500"};
	refused(&spec, "basic constraints cannot be read");
}

static void a_request_for_a_ca_asks_for_it(void **state)
{
	struct csm_bin spki = pki_spki(pki_key("p384"));
	struct csm_csr_spec spec = {.subject = CSM_STR("/CN=Intermediate"), .spki = spki.p, .spki_len = spki.n,
		.scheme = csm_scheme_default(CSM_ALG_P384), .ca = true};
	struct csm_signer s = pki_signer(pki_key("p384"), "ecdsa-sha384");
	struct csm_csr *csr;
	struct csm_certreq *q;
	struct csm_buf out;
	uint8_t sig[CSM_SIGNATURE_MAX];
	size_t n = sizeof(sig);
	const char *said;
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(s.pub, NULL);

	(void)state;
	assert_int_equal(csm_csr_build(&spec, &csr, why), 0);
	assert_true(EVP_PKEY_sign_init(c) == 1 && EVP_PKEY_sign(c, sig, &n, csm_csr_tbs(csr).p, csm_csr_tbs(csr).n) == 1);
	csm_buf_init(&out, CSM_CSR_MAX, false);
	assert_int_equal(csm_csr_finish(csr, sig, n, &out), 0);
	assert_int_equal(csm_certreq_read((struct csm_bin){csm_buf_ptr(&out), out.len}, &q, why), 0);
	assert_true(q->wants_ca);
	assert_int_equal(q->key_usage, KU_KEY_CERT_SIGN | KU_CRL_SIGN);
	pki_write("ca.csr", (struct csm_bin){csm_buf_ptr(&out), out.len});
	assert_int_equal(pki_openssl("req -inform DER -in @ca.csr -verify -noout -text", &said), 0);
	assert_non_null(strstr(said, "CA:TRUE"));
	assert_non_null(strstr(said, "Certificate Sign, CRL Sign"));
	csm_certreq_free(q);
	csm_buf_free(&out);
	csm_csr_free(csr);
	EVP_PKEY_CTX_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kind_of_key_is_read),
		cmocka_unit_test(what_it_asks_for_is_told),
		cmocka_unit_test(der_pem_and_base64_are_the_same),
		cmocka_unit_test(a_request_without_proof_is_refused),
		cmocka_unit_test(weak_and_foreign_keys_are_refused),
		cmocka_unit_test(a_huge_key_is_not_looked_at),
		cmocka_unit_test(an_ed25519_point_of_small_order_is_refused),
		cmocka_unit_test(names_that_are_none_are_refused),
		cmocka_unit_test(extensions_twice_or_too_many_are_refused),
		cmocka_unit_test(a_request_for_a_ca_asks_for_it),
	};

	return cmocka_run_group_tests(tests, NULL, pki_teardown);
}
