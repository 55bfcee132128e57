#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <time.h>
#include "daemon/pki/crl.h"
#include "daemon/pki/ocsp.h"
#include "tests/lib/pkifix.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

static struct pki_ca root, responder;
static X509 *leaf;
static const uint8_t leaf_serial[] = {0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9};

static X509 *issue(EVP_PKEY *key, const char *subject, const char *eku, const uint8_t *serial)
{
	struct csm_profile p = pki_profile();
	X509_NAME *name = pki_name(subject);
	struct csm_cert_order o = {.profile = &p, .subject = name, .spki = pki_spki(key), .issuer = root.cert,
		.not_before = PKI_NOW - 1, .not_after = PKI_NOW + 3000 * PKI_DAY};
	struct csm_signer s = pki_signer(root.key, NULL);
	X509 *x;

	p.max_life = 3650 * PKI_DAY;
	p.ekus[0] = eku;
	p.n_ekus = eku != NULL ? 1 : 0;
	memcpy(o.serial, serial, sizeof(o.serial));
	x = pki_issue(&o, &s);
	X509_NAME_free(name);
	return x;
}

static int setup(void **state)
{
	(void)state;
	root = pki_ca_make("/CN=Root", "p256", NULL);
	responder = (struct pki_ca){pki_key("p384"), issue(pki_key("p384"), "/CN=Responder", "OCSPSigning", (const uint8_t[16]){7})};
	leaf = issue(pki_key("ed25519"), "/CN=leaf", "serverAuth", leaf_serial);
	pki_write_cert("root.pem", root.cert);
	pki_write_cert("leaf.pem", leaf);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	pki_ca_free(&root);
	X509_free(responder.cert);
	X509_free(leaf);
	pki_dir_free();
	return 0;
}

static size_t file_read(const char *name, uint8_t *p, size_t max)
{
	FILE *f = fopen(pki_file(name), "re");
	size_t n;

	assert_non_null(f);
	n = fread(p, 1, max, f);
	assert_int_equal(fclose(f), 0);
	return n;
}

/* A request by openssl, as we read it. */
static struct csm_ocsp_request *ask(const char *options)
{
	struct csm_ocsp_request *q = NULL;
	char args[512];
	uint8_t der[4096];
	const char *said;
	size_t n;

	(void)snprintf(args, sizeof(args), "ocsp %s-issuer @root.pem -cert @leaf.pem -reqout @req.der", options);
	assert_int_equal(pki_openssl(args, &said), 0);
	n = file_read("req.der", der, sizeof(der));
	assert_int_equal(csm_ocsp_read((struct csm_bin){der, n}, &q), 0);
	return q;
}

static struct csm_ocsp_single single_of(const struct csm_ocsp_request *q, enum csm_ocsp_state st, int reason)
{
	return (struct csm_ocsp_single){.id = q->asked[0].id, .state = st, .revoked_at = PKI_NOW - 60, .reason = reason,
		.this_update = (uint64_t)time(NULL) - 60, .next_update = (uint64_t)time(NULL) + 3600};
}

/* What openssl makes of our answer, which stays in resp.der. */
static int answer(const struct csm_ocsp_request *q, const struct pki_ca *by, struct csm_ocsp_single s, const char *options,
	const char **said)
{
	struct csm_signer signer = pki_signer(by->key, NULL);
	struct csm_ocsp_order o = {.responder = by->cert, .issuer = root.cert, .produced_at = (uint64_t)time(NULL) - 1, .singles = &s, .n = 1};
	struct csm_buf out;
	char args[512];

	o.nonce = q->nonce;
	csm_buf_init(&out, 65536, false);
	assert_int_equal(csm_ocsp_respond(&o, &signer, &out), 0);
	pki_write("resp.der", (struct csm_bin){csm_buf_ptr(&out), out.len});
	csm_buf_free(&out);
	(void)snprintf(args, sizeof(args), "ocsp -respin @resp.der -no_nonce -CAfile @root.pem %s-issuer @root.pem -cert @leaf.pem",
		options);
	return pki_openssl(args, said);
}

/* Holds the nonce of that answer against the one of the request in req.der. (With -no_nonce it does not make a new one.) */
static int nonces(const char **said)
{
	return pki_openssl("ocsp -respin @resp.der -no_nonce -reqin @req.der -CAfile @root.pem -verify_other @root.pem", said);
}

static void openssl_believes_issuer_and_delegate(void **state)
{
	static const char *const ways[] = {"", "-sha256 ", "-sha384 ", "-sha512 "};
	const struct pki_ca *by[] = {&root, &responder};
	const char *said;

	(void)state;
	for (size_t i = 0; i < N_ELEMS(ways) * N_ELEMS(by); i++) {
		struct csm_ocsp_request *q = ask(ways[i / 2]);

		assert_int_equal(q->n, 1);
		assert_int_equal(q->asked[0].serial.n, sizeof(leaf_serial));
		assert_memory_equal(q->asked[0].serial.p, leaf_serial, sizeof(leaf_serial));
		assert_true(csm_ocsp_is_of(q, 0, root.cert));
		assert_false(csm_ocsp_is_of(q, 0, responder.cert));
		assert_true(q->nonce.n > 0);
		assert_int_equal(answer(q, by[i % 2], single_of(q, CSM_OCSP_GOOD, 0), ways[i / 2], &said), 0);
		if (strstr(said, "Response verify OK") == NULL || strstr(said, "leaf.pem: good") == NULL || strstr(said, "WARNING") != NULL)
			fail_msg("%s", said);
		assert_int_equal(answer(q, by[i % 2], single_of(q, CSM_OCSP_REVOKED, CSM_REASON_KEY_COMPROMISE), ways[i / 2], &said), 0);
		if (strstr(said, "leaf.pem: revoked") == NULL || strstr(said, "Reason: keyCompromise") == NULL)
			fail_msg("%s", said);
		assert_int_equal(answer(q, by[i % 2], single_of(q, CSM_OCSP_REVOKED, CSM_REASON_UNSPECIFIED), ways[i / 2], &said), 0);
		assert_non_null(strstr(said, "leaf.pem: revoked"));
		assert_null(strstr(said, "Reason:"));
		assert_int_equal(answer(q, by[i % 2], single_of(q, CSM_OCSP_UNKNOWN, 0), ways[i / 2], &said), 0);
		assert_non_null(strstr(said, "leaf.pem: unknown"));
		csm_ocsp_free(q);
	}
}

static void the_nonce_goes_back_only_where_it_came(void **state)
{
	struct csm_ocsp_request *q = ask(""), *again = ask(""), *none = ask("-no_nonce ");
	const char *said;

	(void)state;
	assert_int_equal(none->nonce.n, 0);
	assert_int_equal(answer(none, &root, single_of(none, CSM_OCSP_GOOD, 0), "", &said), 0);
	assert_non_null(strstr(said, "good"));
	assert_int_equal(nonces(&said), 0);
	assert_null(strstr(said, "nonce"));
	assert_true(q->nonce.n != again->nonce.n || memcmp(q->nonce.p, again->nonce.p, q->nonce.n) != 0);
	/* its own; another request's; none where one was sent */
	csm_ocsp_free(again);
	again = ask("");
	assert_int_equal(answer(again, &root, single_of(again, CSM_OCSP_GOOD, 0), "", &said), 0);
	assert_int_equal(nonces(&said), 0);
	assert_null(strstr(said, "nonce"));
	assert_int_equal(answer(q, &root, single_of(q, CSM_OCSP_GOOD, 0), "", &said), 0);
	assert_int_not_equal(nonces(&said), 0);
	assert_non_null(strstr(said, "Nonce Verify error"));
	assert_int_equal(answer(none, &root, single_of(none, CSM_OCSP_GOOD, 0), "", &said), 0);
	(void)nonces(&said);
	assert_non_null(strstr(said, "no nonce in response"));
	csm_ocsp_free(q);
	csm_ocsp_free(again);
	csm_ocsp_free(none);
}

static int respond(const struct pki_ca *by, EVP_PKEY *key, struct csm_ocsp_single s, size_t n)
{
	struct csm_signer signer = pki_signer(key, NULL);
	struct csm_ocsp_single all[CSM_OCSP_ASKED_MAX + 1];
	struct csm_ocsp_order o = {.responder = by->cert, .issuer = root.cert, .produced_at = PKI_NOW, .singles = all, .n = n};
	struct csm_buf out;
	int r;

	for (size_t i = 0; i < N_ELEMS(all); i++)
		all[i] = s;
	csm_buf_init(&out, 65536, false);
	r = csm_ocsp_respond(&o, &signer, &out);
	assert_int_equal(out.len == 0, r != 0);
	csm_buf_free(&out);
	return r;
}

static void only_who_may_answers(void **state)
{
	struct csm_ocsp_request *q = ask("");
	const struct csm_ocsp_single good = single_of(q, CSM_OCSP_GOOD, 0);
	struct csm_ocsp_single s;
	struct pki_ca server = {pki_key("ed25519"), leaf}, any = {pki_key("p384"), issue(pki_key("p384"), "/CN=x", NULL, leaf_serial)};
	struct pki_ca stranger = pki_ca_make("/CN=Root", "p521", NULL);

	(void)state;
	assert_int_equal(respond(&root, root.key, good, 1), 0);
	assert_int_equal(respond(&root, pki_key("p384"), good, 1), CSM_EINVALID);
	assert_int_equal(respond(&server, server.key, good, 1), CSM_EDENIED);
	assert_int_equal(respond(&any, any.key, good, 1), CSM_EDENIED);
	assert_int_equal(respond(&stranger, stranger.key, good, 1), CSM_EDENIED);
	assert_int_equal(respond(&root, root.key, good, 0), CSM_EINVALID);
	assert_int_equal(respond(&root, root.key, good, CSM_OCSP_ASKED_MAX), 0);
	assert_int_equal(respond(&root, root.key, good, CSM_OCSP_ASKED_MAX + 1), CSM_EINVALID);
	s = good;
	s.next_update = s.this_update;
	assert_int_equal(respond(&root, root.key, s, 1), CSM_EINVALID);
	s = good;
	s.state = 3;
	assert_int_equal(respond(&root, root.key, s, 1), CSM_EINVALID);
	s = single_of(q, CSM_OCSP_REVOKED, 7);
	assert_int_equal(respond(&root, root.key, s, 1), CSM_EINVALID);
	s = single_of(q, CSM_OCSP_REVOKED, 1);
	s.revoked_at = s.this_update + 1;
	assert_int_equal(respond(&root, root.key, s, 1), CSM_EINVALID);
	X509_free(any.cert);
	pki_ca_free(&stranger);
	csm_ocsp_free(q);
}

static void put_request(OCSP_REQUEST *req, uint8_t *der, size_t *n)
{
	unsigned char *at = der;

	assert_true(i2d_OCSP_REQUEST(req, NULL) < 16384);
	*n = (size_t)i2d_OCSP_REQUEST(req, &at);
}

static void requests_that_are_none_are_refused(void **state)
{
	static uint8_t der[16384];
	OCSP_REQUEST *req = OCSP_REQUEST_new();
	struct csm_ocsp_request *q = NULL;
	X509_EXTENSION *e;
	size_t n;

	(void)state;
	put_request(req, der, &n); /* asks nothing */
	assert_int_equal(csm_ocsp_read((struct csm_bin){der, n}, &q), CSM_EINVALID);
	assert_non_null(OCSP_request_add0_id(req, OCSP_cert_to_id(EVP_sha1(), leaf, root.cert)));
	put_request(req, der, &n);
	assert_int_equal(csm_ocsp_read((struct csm_bin){der, n}, &q), 0);
	csm_ocsp_free(q);
	q = NULL;
	der[n] = 0;
	assert_int_equal(csm_ocsp_read((struct csm_bin){der, n + 1}, &q), CSM_EINVALID);
	assert_int_equal(csm_ocsp_read((struct csm_bin){der, n - 1}, &q), CSM_EINVALID);
	assert_int_equal(csm_ocsp_read((struct csm_bin){der, 0}, &q), CSM_EINVALID);
	assert_int_equal(csm_ocsp_read((struct csm_bin){der, sizeof(der)}, &q), CSM_ETOO_LARGE);
	/* a nonce of 128 bytes, of 129, and one that is no OCTET STRING */
	assert_int_equal(OCSP_request_add1_nonce(req, NULL, 128), 1);
	put_request(req, der, &n);
	assert_int_equal(csm_ocsp_read((struct csm_bin){der, n}, &q), 0);
	csm_ocsp_free(q);
	q = NULL;
	assert_int_equal(OCSP_request_add1_nonce(req, NULL, 129), 1);
	put_request(req, der, &n);
	assert_int_equal(csm_ocsp_read((struct csm_bin){der, n}, &q), CSM_EINVALID);
	X509_EXTENSION_free(OCSP_REQUEST_delete_ext(req, 0));
	assert_non_null(e = X509V3_EXT_conf(NULL, NULL, "1.3.6.1.5.5.7.48.1.2", "ASN1:NULL"));
	assert_int_equal(OCSP_REQUEST_add_ext(req, e, -1), 1);
	X509_EXTENSION_free(e);
	put_request(req, der, &n);
	assert_int_equal(csm_ocsp_read((struct csm_bin){der, n}, &q), CSM_EINVALID);
	X509_EXTENSION_free(OCSP_REQUEST_delete_ext(req, 0));
	/* what must be understood and is not; what need not */
	assert_non_null(e = X509V3_EXT_conf(NULL, NULL, "1.2.3.4", "ASN1:NULL"));
	assert_int_equal(OCSP_REQUEST_add_ext(req, e, -1), 1);
	put_request(req, der, &n);
	assert_int_equal(csm_ocsp_read((struct csm_bin){der, n}, &q), 0);
	csm_ocsp_free(q);
	q = NULL;
	X509_EXTENSION_set_critical(e, 1);
	X509_EXTENSION_free(OCSP_REQUEST_delete_ext(req, 0));
	assert_int_equal(OCSP_REQUEST_add_ext(req, e, -1), 1);
	put_request(req, der, &n);
	assert_int_equal(csm_ocsp_read((struct csm_bin){der, n}, &q), CSM_EINVALID);
	X509_EXTENSION_free(OCSP_REQUEST_delete_ext(req, 0));
	assert_int_equal(OCSP_ONEREQ_add_ext(OCSP_request_onereq_get0(req, 0), e, -1), 1);
	put_request(req, der, &n);
	assert_int_equal(csm_ocsp_read((struct csm_bin){der, n}, &q), CSM_EINVALID);
	X509_EXTENSION_free(OCSP_ONEREQ_delete_ext(OCSP_request_onereq_get0(req, 0), 0));
	X509_EXTENSION_free(e);
	/* as many as may be, and one more */
	for (size_t i = 1; i < CSM_OCSP_ASKED_MAX; i++)
		assert_non_null(OCSP_request_add0_id(req, OCSP_cert_to_id(EVP_sha256(), leaf, root.cert)));
	put_request(req, der, &n);
	assert_int_equal(csm_ocsp_read((struct csm_bin){der, n}, &q), 0);
	assert_int_equal(q->n, CSM_OCSP_ASKED_MAX);
	assert_true(csm_ocsp_is_of(q, CSM_OCSP_ASKED_MAX - 1, root.cert));
	csm_ocsp_free(q);
	q = NULL;
	assert_non_null(OCSP_request_add0_id(req, OCSP_cert_to_id(EVP_sha1(), leaf, root.cert)));
	put_request(req, der, &n);
	assert_int_equal(csm_ocsp_read((struct csm_bin){der, n}, &q), CSM_EINVALID);
	assert_null(q);
	OCSP_REQUEST_free(req);
}

/* The hash of a CertID with parameters of a kind that OpenSSL reads once, and does not read again in the answer: the bytes are a
 * fuzzer's. */
static void a_hash_has_no_parameters(void **state)
{
	static const uint8_t found[] = {
		0x30, 0x7a, 0x30, 0x78, 0x30, 0x51, 0x30, 0x4f, 0x30, 0x4d, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x20,
		0x00, 0x04, 0x14, 0x70, 0x42, 0xb1, 0xd2, 0x22, 0x47, 0x56, 0x16, 0x39, 0x4f, 0x6a, 0x9c, 0xa6, 0xcd, 0xa2, 0x42, 0x45,
		0xaa, 0x02, 0x6b, 0x04, 0x14, 0x28, 0xb8, 0x83, 0x96, 0x10, 0x72, 0x76, 0x82, 0xec, 0x46, 0xbb, 0x28, 0x42, 0x8c, 0x0b,
		0x0e, 0x14, 0x84, 0xb8, 0x21, 0x02, 0x14, 0x29, 0x77, 0x00, 0x09, 0x5e, 0x5f, 0x5c, 0x73, 0xf4, 0x76, 0x74, 0xca, 0x8b,
		0xf2, 0xcb, 0x41, 0x02, 0xbf, 0xca, 0x48, 0xa2, 0x23, 0x30, 0x21, 0x30, 0x1f, 0x06, 0x09, 0x2b, 0x06, 0x01, 0x05, 0x05,
		0x07, 0x30, 0x01, 0x02, 0x04, 0x12, 0x04, 0x10, 0x35, 0x76, 0xb0, 0xba, 0x2c, 0xe8, 0x24, 0x39, 0x75, 0xb9, 0xa7, 0x59,
		0xb0, 0xd4, 0x0d, 0x3d,
	};
	const size_t params = 19, lengths[] = {1, 3, 5, 7, 9, 11};
	struct csm_ocsp_request *q = NULL;
	uint8_t der[sizeof(found)];

	(void)state;
	assert_int_equal(csm_ocsp_read((struct csm_bin){found, sizeof(found)}, &q), CSM_EINVALID);
	assert_null(q);
	memcpy(der, found, sizeof(der));
	der[params] = V_ASN1_OCTET_STRING;
	assert_int_equal(csm_ocsp_read((struct csm_bin){der, sizeof(der)}, &q), CSM_EINVALID);
	der[params] = V_ASN1_NULL;
	assert_int_equal(csm_ocsp_read((struct csm_bin){der, sizeof(der)}, &q), 0);
	assert_int_equal(q->asked[0].hash, NID_sha1);
	csm_ocsp_free(q);
	q = NULL;
	/* absent */
	memmove(der + params, der + params + 2, sizeof(der) - params - 2);
	for (size_t i = 0; i < N_ELEMS(lengths); i++)
		der[lengths[i]] = (uint8_t)(der[lengths[i]] - 2);
	assert_int_equal(csm_ocsp_read((struct csm_bin){der, sizeof(der) - 2}, &q), 0);
	assert_int_equal(q->asked[0].hash, NID_sha1);
	csm_ocsp_free(q);
}

static void errors_are_responses(void **state)
{
	static const struct {
		int status;
		const char *said;
	} rows[] = {{OCSP_RESPONSE_STATUS_MALFORMEDREQUEST, "malformedrequest (1)"}, {OCSP_RESPONSE_STATUS_INTERNALERROR, "internalerror (2)"},
		{OCSP_RESPONSE_STATUS_TRYLATER, "trylater (3)"}, {OCSP_RESPONSE_STATUS_UNAUTHORIZED, "unauthorized (6)"}};
	struct csm_buf out;
	const char *said;

	(void)state;
	csm_buf_init(&out, 64, false);
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		csm_buf_reset(&out);
		assert_int_equal(csm_ocsp_error(rows[i].status, &out), 0);
		pki_write("resp.der", (struct csm_bin){csm_buf_ptr(&out), out.len});
		(void)pki_openssl("ocsp -respin @resp.der -text", &said);
		if (strstr(said, rows[i].said) == NULL)
			fail_msg("%s", said);
	}
	assert_int_equal(csm_ocsp_error(OCSP_RESPONSE_STATUS_SUCCESSFUL, &out), CSM_EINVALID);
	assert_int_equal(csm_ocsp_error(4, &out), CSM_EINVALID);
	assert_int_equal(csm_ocsp_error(7, &out), CSM_EINVALID);
	csm_buf_free(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(openssl_believes_issuer_and_delegate),
		cmocka_unit_test(the_nonce_goes_back_only_where_it_came),
		cmocka_unit_test(only_who_may_answers),
		cmocka_unit_test(requests_that_are_none_are_refused),
		cmocka_unit_test(a_hash_has_no_parameters),
		cmocka_unit_test(errors_are_responses),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
