/* Certificates in the answers of servers: every permitted form is read, in any order; what is none is refused. And the client's key
 * for TLS, which is elsewhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include "daemon/enrol/certs.h"
#include "daemon/enrol/tlskey.h"
#include "daemon/pki/certsonly.h"
#include "proto-spec/limits.h"
#include "tests/lib/certmake.h"

#define TEST(t) cmocka_unit_test(t)
#define BIN(b) ((struct csm_bin){csm_buf_ptr(&(b)), (b).len})
#define NONE ((struct csm_bin){NULL, 0})
#define DAY 86400

static EVP_PKEY *key, *other_key, *inter_key, *root_key;
static X509 *root, *inter, *leaf, *older, *foreign;
static struct csm_buf csr, in, out, want;

static X509 *make(const char *subject, EVP_PKEY *k, X509 *signer, EVP_PKEY *signer_key, bool ca, long from)
{
	return cert_make(&(struct certspec){.subject = subject, .key = k, .signer = signer, .signer_key = signer_key, .ca = ca,
		.from = from, .to = 900 * DAY});
}

static int set_up_all(void **state)
{
	X509_REQ *r = X509_REQ_new();
	uint8_t *der = NULL;
	int n;

	(void)state;
	key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	other_key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	inter_key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	root_key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	root = make("/CN=root", root_key, NULL, NULL, true, -DAY);
	inter = make("/CN=inter", inter_key, root, root_key, true, -DAY);
	leaf = make("/CN=leaf", key, inter, inter_key, false, -60);
	older = make("/CN=leaf", key, inter, inter_key, false, -DAY);
	/* Of the same name as the issuer, and not it. */
	foreign = make("/CN=inter", other_key, root, root_key, true, -DAY);
	X509_REQ_set_pubkey(r, key);
	X509_REQ_sign(r, key, EVP_sha256());
	n = i2d_X509_REQ(r, &der);
	csm_buf_init(&csr, 4096, false);
	assert_int_equal(csm_buf_put(&csr, der, (size_t)n), 0);
	OPENSSL_free(der);
	X509_REQ_free(r);
	return 0;
}

static int tear_down_all(void **state)
{
	EVP_PKEY *const keys[] = {key, other_key, inter_key, root_key};
	X509 *const certs[] = {root, inter, leaf, older, foreign};

	(void)state;
	for (size_t i = 0; i < 4; i++)
		EVP_PKEY_free(keys[i]);
	for (size_t i = 0; i < 5; i++)
		X509_free(certs[i]);
	csm_buf_free(&csr);
	return 0;
}

static int set_up(void **state)
{
	(void)state;
	csm_buf_init(&in, 1024 * 1024, false);
	csm_buf_init(&out, 256 * 1024, false);
	csm_buf_init(&want, 256 * 1024, false);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	csm_buf_free(&in);
	csm_buf_free(&out);
	csm_buf_free(&want);
	return 0;
}

static void put(struct csm_buf *b, X509 *const certs[])
{
	for (; *certs != NULL; certs++)
		cert_der(*certs, b);
}
#define PUT(b, ...) put(b, (X509 *const[]){__VA_ARGS__, NULL})

static void same(void)
{
	assert_int_equal(out.len, want.len);
	assert_memory_equal(csm_buf_ptr(&out), csm_buf_ptr(&want), want.len);
}

static void put_text(const char *text)
{
	assert_int_equal(csm_buf_put(&in, text, strlen(text)), 0);
}

static void put_pem(const char *name, struct csm_bin der)
{
	BIO *b = BIO_new(BIO_s_mem());
	char *p;
	long n;

	assert_true(PEM_write_bio(b, name, "", der.p, (long)der.n) > 0);
	n = BIO_get_mem_data(b, &p);
	assert_int_equal(csm_buf_put(&in, p, (size_t)n), 0);
	BIO_free(b);
}

/* ---- reading ---- */

static void every_form_is_read(void **state)
{
	struct csm_buf p7, one;
	char *text;

	(void)state;
	csm_buf_init(&p7, 65536, false);
	csm_buf_init(&one, 65536, false);
	PUT(&want, leaf, inter);
	assert_int_equal(csm_certs_only_put(BIN(want), &p7), 0);
	/* PKCS#7 in DER, in base64 of one line, in lines that end in either way; PEM of it; certificates in DER and in PEM. */
	assert_int_equal(certs_read(BIN(p7), &out), 0);
	same();
	text = calloc(1, 2 * p7.len + 64);
	EVP_EncodeBlock((unsigned char *)text, csm_buf_ptr(&p7), (int)p7.len);
	csm_buf_reset(&out);
	assert_int_equal(certs_read((struct csm_bin){(const uint8_t *)text, strlen(text)}, &out), 0);
	same();
	for (int crlf = 0; crlf < 2; crlf++) {
		csm_buf_reset(&in);
		csm_buf_reset(&out);
		for (size_t i = 0; i < strlen(text); i += 64) {
			size_t n = strlen(text) - i < 64 ? strlen(text) - i : 64;

			assert_int_equal(csm_buf_put(&in, text + i, n), 0);
			put_text(crlf ? "\r\n" : "\n");
		}
		assert_int_equal(certs_read(BIN(in), &out), 0);
		same();
	}
	free(text);
	csm_buf_reset(&in);
	csm_buf_reset(&out);
	put_text("some words before\n");
	put_pem("PKCS7", BIN(p7));
	assert_int_equal(certs_read(BIN(in), &out), 0);
	same();
	csm_buf_reset(&out);
	assert_int_equal(certs_read(BIN(want), &out), 0);
	same();
	csm_buf_reset(&in);
	csm_buf_reset(&out);
	cert_der(leaf, &one);
	put_pem("CERTIFICATE", BIN(one));
	csm_buf_reset(&one);
	cert_der(inter, &one);
	put_text("\n");
	put_pem("CERTIFICATE", BIN(one));
	assert_int_equal(certs_read(BIN(in), &out), 0);
	same();
	csm_buf_free(&p7);
	csm_buf_free(&one);
}

static void what_is_none_is_refused(void **state)
{
	static const char *const bad[] = {"", "hello", "<html>", "MIIB", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
		"-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n", "-----BEGIN ", "\x30\x03\x02\x01"};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		csm_buf_reset(&out);
		assert_int_equal(certs_read((struct csm_bin){(const uint8_t *)bad[i], strlen(bad[i])}, &out), CSM_EPROTOCOL);
		assert_int_equal(out.len, 0);
	}
	/* Something left over. */
	PUT(&in, leaf);
	put_text("x");
	assert_int_equal(certs_read(BIN(in), &out), CSM_EPROTOCOL);
	assert_int_equal(out.len, 0);
	/* Too many. */
	csm_buf_reset(&in);
	for (unsigned i = 0; i <= CERTS_MAX; i++)
		cert_der(leaf, &in);
	assert_int_equal(certs_read(BIN(in), &out), CSM_ETOO_LARGE);
}

static void json_is_read(void **state)
{
	json_t *j;
	char *pem;

	(void)state;
	PUT(&want, leaf);
	put_pem("CERTIFICATE", BIN(want));
	pem = strndup((const char *)csm_buf_ptr(&in), in.len);
	PUT(&want, leaf, leaf);
	j = json_pack("{s:s, s:s, s:[s,s]}", "serial", "01", "certificate", pem, "chain", pem, pem);
	assert_int_equal(certs_read_json(j, &out), 0);
	same();
	json_decref(j);
	csm_buf_reset(&out);
	j = json_pack("{s:s, s:{s:{s:{s:s}}}}", "a", "b", "a", "b", "c", "d", pem);
	assert_int_equal(certs_read_json(j, &out), CSM_EPROTOCOL);
	json_decref(j);
	assert_int_equal(certs_read_json(NULL, &out), CSM_EPROTOCOL);
	assert_int_equal(out.len, 0);
	free(pem);
}

/* ---- order ---- */

static void order_does_not_matter(void **state)
{
	X509 *const all[] = {root, foreign, inter, older, leaf};
	X509 *mixed[6] = {NULL};

	(void)state;
	/* Rotated: each of them stands first once. Of two for the key the later one; the root is left out; the foreign one too. */
	PUT(&want, leaf, inter);
	for (size_t turn = 0; turn < 5; turn++) {
		for (size_t i = 0; i < 5; i++)
			mixed[i] = all[(i + turn) % 5];
		csm_buf_reset(&in);
		csm_buf_reset(&out);
		put(&in, mixed);
		assert_int_equal(certs_order(BIN(in), NONE, NONE, BIN(csr), &out), 0);
		same();
	}
}

static void what_is_missing_comes_from_elsewhere(void **state)
{
	struct csm_buf more, anchors;

	(void)state;
	csm_buf_init(&more, 65536, false);
	csm_buf_init(&anchors, 65536, false);
	PUT(&anchors, root);
	PUT(&in, leaf);
	PUT(&want, leaf);
	assert_int_equal(certs_order(BIN(in), NONE, NONE, BIN(csr), &out), 0);
	same();
	assert_false(certs_end_at(BIN(out), BIN(anchors)));
	csm_buf_reset(&out);
	csm_buf_reset(&want);
	PUT(&more, root, foreign, inter);
	PUT(&want, leaf, inter);
	assert_int_equal(certs_order(BIN(in), BIN(more), NONE, BIN(csr), &out), 0);
	same();
	assert_true(certs_end_at(BIN(out), BIN(anchors)));
	/* A certificate for the key counts only in the answer itself. */
	csm_buf_reset(&in);
	PUT(&in, inter);
	csm_buf_reset(&more);
	PUT(&more, leaf);
	csm_buf_reset(&out);
	assert_int_equal(certs_order(BIN(in), BIN(more), NONE, BIN(csr), &out), CSM_EPROTOCOL);
	assert_int_equal(out.len, 0);
	csm_buf_free(&more);
	csm_buf_free(&anchors);
}

static void circles_have_an_end(void **state)
{
	EVP_PKEY *a = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256"), *b = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	X509 *a0 = make("/CN=a", a, NULL, NULL, true, -DAY), *b0 = make("/CN=b", b, NULL, NULL, true, -DAY);
	X509 *ab = make("/CN=a", a, b0, b, true, -DAY), *ba = make("/CN=b", b, a0, a, true, -DAY);
	X509 *x = make("/CN=x", key, a0, a, false, -DAY), *const all[] = {a0, b0, ab, ba, x};
	struct csm_buf anchors;

	(void)state;
	csm_buf_init(&anchors, 65536, false);
	PUT(&in, ba, x, a0, b0, ab);
	/* as an authority gives them that has changed its root's key: up to the root that is known, old or new */
	PUT(&anchors, a0);
	PUT(&want, x);
	assert_int_equal(certs_order(BIN(in), NONE, BIN(anchors), BIN(csr), &out), 0);
	same();
	csm_buf_reset(&anchors);
	csm_buf_reset(&want);
	csm_buf_reset(&out);
	PUT(&anchors, b0);
	PUT(&want, x, ab);
	assert_int_equal(certs_order(BIN(in), NONE, BIN(anchors), BIN(csr), &out), 0);
	same();
	assert_true(certs_end_at(BIN(out), BIN(anchors)));
	/* an anchor that is no root ends nothing: who trusts the root alone needs it */
	csm_buf_reset(&anchors);
	csm_buf_reset(&want);
	csm_buf_reset(&out);
	PUT(&anchors, ab);
	PUT(&want, x, ab, ba);
	assert_int_equal(certs_order(BIN(in), NONE, BIN(anchors), BIN(csr), &out), 0);
	same();
	csm_buf_reset(&out);
	assert_int_equal(certs_order(BIN(in), NONE, NONE, BIN(csr), &out), 0);
	same();
	csm_buf_free(&anchors);
	for (size_t i = 0; i < 5; i++)
		X509_free(all[i]);
	EVP_PKEY_free(a);
	EVP_PKEY_free(b);
}

static void bad_input_of_order_is_refused(void **state)
{
	(void)state;
	PUT(&in, leaf);
	assert_int_equal(certs_order(BIN(in), NONE, NONE, NONE, &out), CSM_EINVALID);
	assert_int_equal(certs_order(BIN(in), NONE, NONE, BIN(in), &out), CSM_EINVALID);
	assert_int_equal(certs_order(BIN(csr), NONE, NONE, BIN(csr), &out), CSM_EPROTOCOL);
	assert_int_equal(certs_order(NONE, NONE, NONE, BIN(csr), &out), CSM_EPROTOCOL);
	assert_false(certs_end_at(NONE, BIN(in)));
	assert_false(certs_end_at(BIN(in), NONE));
}

static void a_digest_finds_its_certificate(void **state)
{
	uint8_t d[SHA256_DIGEST_LENGTH];
	char hex[65];
	struct csm_bin found = NONE;

	(void)state;
	PUT(&want, root);
	SHA256(csm_buf_ptr(&want), want.len, d);
	for (size_t i = 0; i < sizeof(d); i++)
		snprintf(hex + 2 * i, 3, i % 2 ? "%02x" : "%02X", d[i]);
	PUT(&in, inter, root, leaf);
	assert_int_equal(certs_find(BIN(in), csm_str_of(hex), &found), 0);
	assert_int_equal(found.n, want.len);
	assert_memory_equal(found.p, csm_buf_ptr(&want), want.len);
	hex[0] = hex[0] == '0' ? '1' : '0';
	assert_int_equal(certs_find(BIN(in), csm_str_of(hex), &found), CSM_ENOT_FOUND);
	hex[0] = 'g';
	assert_int_equal(certs_find(BIN(in), csm_str_of(hex), &found), CSM_EINVALID);
	assert_int_equal(certs_find(BIN(in), (struct csm_str){hex + 1, 63}, &found), CSM_EINVALID);
}

/* ---- the client's key for TLS ---- */

struct signer {
	EVP_PKEY *key;
	char scheme[32];
	unsigned asked;
	bool refuse;
};

static int sign(void *arg, const char *scheme, struct csm_bin digest, uint8_t *sig, size_t *len)
{
	struct signer *s = arg;
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(s->key, NULL);
	int ok;

	s->asked++;
	snprintf(s->scheme, sizeof(s->scheme), "%s", scheme);
	ok = EVP_PKEY_sign_init(c) == 1 &&
		EVP_PKEY_CTX_set_signature_md(c, digest.n == 32 ? EVP_sha256() : digest.n == 48 ? EVP_sha384() : EVP_sha512()) == 1;
	if (ok && strncmp(scheme, "rsa-pss", 7) == 0)
		ok = EVP_PKEY_CTX_set_rsa_padding(c, RSA_PKCS1_PSS_PADDING) == 1 && EVP_PKEY_CTX_set_rsa_pss_saltlen(c, -1) == 1;
	ok = ok && !s->refuse && EVP_PKEY_sign(c, sig, len, digest.p, digest.n) == 1;
	EVP_PKEY_CTX_free(c);
	return ok ? 0 : CSM_EDENIED;
}

static SSL_CTX *side(const SSL_METHOD *how, X509 *x, EVP_PKEY *k, int version)
{
	SSL_CTX *c = SSL_CTX_new(how);

	assert_int_equal(SSL_CTX_use_certificate(c, x), 1);
	assert_int_equal(SSL_CTX_use_PrivateKey(c, k), 1);
	assert_int_equal(SSL_CTX_set_max_proto_version(c, version), 1);
	SSL_CTX_set_session_id_context(c, (const unsigned char *)"x", 1);
	X509_STORE_add_cert(SSL_CTX_get_cert_store(c), x);
	SSL_CTX_set_verify(c, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	return c;
}

static bool handshake(X509 *x, EVP_PKEY *mine, EVP_PKEY *theirs, int version, const char *groups)
{
	SSL_CTX *cc = side(TLS_client_method(), x, mine, version), *sc = side(TLS_server_method(), x, theirs, version);
	SSL *c, *s;
	BIO *b1, *b2;
	bool done;

	if (groups != NULL)
		assert_int_equal(SSL_CTX_set1_client_sigalgs_list(sc, groups), 1);
	c = SSL_new(cc);
	s = SSL_new(sc);
	assert_int_equal(BIO_new_bio_pair(&b1, 0, &b2, 0), 1);
	SSL_set_bio(c, b1, b1);
	SSL_set_bio(s, b2, b2);
	SSL_set_connect_state(c);
	SSL_set_accept_state(s);
	for (int i = 0; i < 10; i++) {
		SSL_do_handshake(c);
		SSL_do_handshake(s);
	}
	done = SSL_is_init_finished(c) && SSL_is_init_finished(s) && SSL_get0_peer_certificate(s) != NULL;
	SSL_free(c);
	SSL_free(s);
	SSL_CTX_free(cc);
	SSL_CTX_free(sc);
	return done;
}

static void tls_is_signed_elsewhere(void **state)
{
	static const struct {
		const char *type, *param;
		int version;
		const char *sigalgs, *scheme;
	} t[] = {
		{"EC", "P-256", TLS1_3_VERSION, NULL, "ecdsa-sha256"},
		{"EC", "P-256", TLS1_2_VERSION, NULL, "ecdsa-sha256"},
		{"EC", "P-256", TLS1_2_VERSION, "ECDSA+SHA512", "ecdsa-sha512"},
		{"EC", "P-384", TLS1_3_VERSION, NULL, "ecdsa-sha384"},
		{"EC", "P-521", TLS1_3_VERSION, NULL, "ecdsa-sha512"},
		{"RSA", NULL, TLS1_3_VERSION, NULL, "rsa-pss-sha256"},
		{"RSA", NULL, TLS1_3_VERSION, "rsa_pss_rsae_sha384", "rsa-pss-sha384"},
		{"RSA", NULL, TLS1_2_VERSION, NULL, "rsa-pss-sha256"},
		{"RSA", NULL, TLS1_2_VERSION, "RSA+SHA256", "rsa-pkcs1-sha256"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		struct signer s = {.key = t[i].param != NULL ? EVP_PKEY_Q_keygen(NULL, NULL, t[i].type, t[i].param) :
				EVP_PKEY_Q_keygen(NULL, NULL, t[i].type, (size_t)2048)};
		X509 *x = cert_make(&(struct certspec){.subject = "/CN=x", .key = s.key, .ca = true});
		EVP_PKEY *k;

		assert_int_equal(tlskey_new(x, sign, &s, &k), 0);
		assert_int_equal(X509_check_private_key(x, k), 1);
		assert_int_equal(X509_check_private_key(leaf, k), 0);
		assert_true(handshake(x, k, s.key, t[i].version, t[i].sigalgs));
		assert_string_equal(s.scheme, t[i].scheme);
		assert_int_equal(s.asked, 1);
		s.refuse = true;
		assert_false(handshake(x, k, s.key, t[i].version, t[i].sigalgs));
		/* There is no private half to be had. */
		assert_int_equal(i2d_PrivateKey(k, NULL), -1);
		EVP_PKEY_free(k);
		EVP_PKEY_free(s.key);
		X509_free(x);
	}
}

static void ed25519_is_not_for_tls(void **state)
{
	EVP_PKEY *k = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"), *ours = NULL;
	X509 *x = make("/CN=x", k, root, root_key, false, -DAY);

	(void)state;
	assert_int_equal(tlskey_new(x, sign, NULL, &ours), CSM_EUNSUPPORTED);
	assert_null(ours);
	X509_free(x);
	EVP_PKEY_free(k);
}

#define EACH(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH(every_form_is_read),
		EACH(what_is_none_is_refused),
		EACH(json_is_read),
		EACH(order_does_not_matter),
		EACH(what_is_missing_comes_from_elsewhere),
		EACH(circles_have_an_end),
		EACH(bad_input_of_order_is_refused),
		EACH(a_digest_finds_its_certificate),
		TEST(tls_is_signed_elsewhere),
		TEST(ed25519_is_not_for_tls),
	};

	return tlskey_prepare() != 0 || cmocka_run_group_tests_name("enrol_certs", tests, set_up_all, tear_down_all);
}
