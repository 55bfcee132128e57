/* What csmd signs, decrypts and agrees on by the provider, the default provider verifies, encrypts and agrees on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/provider.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include "tests/lib/provfix.h"

static uint8_t message[3000];

static const struct {
	const char *name, *alg, *backend;
} keys[] = {
	{"sp256", "p256", "soft"},
	{"sp384", "p384", "soft"},
	{"sp521", "p521", "soft"},
	{"srsa", "rsa2048", "soft"},
	{"srsa3", "rsa3072", "soft"},
	{"sed", "ed25519", "soft"},
	{"tp256", "p256", "tpm2"},
	{"tp384", "p384", "tpm2"},
	{"tp521", "p521", "tpm2"},
	{"trsa", "rsa2048", "tpm2"},
};
#define KEYS (sizeof(keys) / sizeof(keys[0]))
static const char *const hashes[] = {"SHA256", "SHA384", "SHA512"};
static EVP_PKEY *priv[KEYS], *publ[KEYS];

static int setup(void **state)
{
	char uri[64];

	(void)state;
	for (size_t i = 0; i < sizeof(message); i++)
		message[i] = (uint8_t)(i * 7);
	for (size_t i = 0; i < KEYS; i++) {
		provfix_key(keys[i].name, keys[i].alg, keys[i].backend, NULL);
		(void)snprintf(uri, sizeof(uri), "csm:%s", keys[i].name);
		priv[i] = provfix_uri(uri);
		publ[i] = provfix_public(keys[i].name);
		assert_non_null(priv[i]);
		assert_string_equal(OSSL_PROVIDER_get0_name(EVP_PKEY_get0_provider(priv[i])), "keys");
		assert_string_equal(OSSL_PROVIDER_get0_name(EVP_PKEY_get0_provider(publ[i])), "default");
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (size_t i = 0; i < KEYS; i++) {
		EVP_PKEY_free(priv[i]);
		EVP_PKEY_free(publ[i]);
	}
	return 0;
}

static int pad_of(EVP_PKEY_CTX *ctx, bool pss)
{
	if (!pss)
		return 1;
	return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) == 1 &&
	       EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) == 1;
}

/* In pieces, over a copied context as TLS has it. */
static size_t sign_message(EVP_PKEY *key, const char *md, bool pss, uint8_t *sig, size_t room)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new(), *copy = EVP_MD_CTX_new();
	EVP_PKEY_CTX *pctx;
	size_t n = 0;

	assert_int_equal(EVP_DigestSignInit_ex(ctx, &pctx, md, lib, NULL, key, NULL), 1);
	assert_int_equal(pad_of(pctx, pss), 1);
	if (md == NULL) {
		assert_int_equal(EVP_DigestSign(ctx, NULL, &n, message, sizeof(message)), 1);
		assert_true(n <= room);
		assert_int_equal(EVP_DigestSign(ctx, sig, &n, message, sizeof(message)), 1);
	} else {
		assert_int_equal(EVP_DigestSignUpdate(ctx, message, 1000), 1);
		assert_int_equal(EVP_MD_CTX_copy_ex(copy, ctx), 1);
		assert_int_equal(EVP_DigestSignUpdate(copy, message + 1000, sizeof(message) - 1000), 1);
		assert_int_equal(EVP_DigestSignFinal(copy, NULL, &n), 1);
		assert_true(n <= room);
		assert_int_equal(EVP_DigestSignFinal(copy, sig, &n), 1);
	}
	EVP_MD_CTX_free(ctx);
	EVP_MD_CTX_free(copy);
	return n;
}

static int verify_message(EVP_PKEY *key, const char *md, bool pss, const uint8_t *sig, size_t n, size_t len)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	EVP_PKEY_CTX *pctx;
	int r;

	assert_int_equal(EVP_DigestVerifyInit_ex(ctx, &pctx, md, lib, NULL, key, NULL), 1);
	assert_int_equal(pad_of(pctx, pss), 1);
	r = EVP_DigestVerify(ctx, sig, n, message, len);
	EVP_MD_CTX_free(ctx);
	return r;
}

/* By the default provider, and by ours over the same key; other data by neither. */
static void check_message(size_t k, const char *md, bool pss)
{
	uint8_t sig[CSM_SIGNATURE_BYTES];
	size_t n = sign_message(priv[k], md, pss, sig, sizeof(sig));

	assert_int_equal(verify_message(publ[k], md, pss, sig, n, sizeof(message)), 1);
	assert_int_equal(verify_message(priv[k], md, pss, sig, n, sizeof(message)), 1);
	assert_int_not_equal(verify_message(publ[k], md, pss, sig, n, sizeof(message) - 1), 1);
	assert_int_not_equal(verify_message(priv[k], md, pss, sig, n, sizeof(message) - 1), 1);
}

static void check_digest(size_t k, const char *md, bool pss)
{
	uint8_t sig[CSM_SIGNATURE_BYTES], digest[EVP_MAX_MD_SIZE];
	EVP_PKEY *const verifiers[] = {publ[k], priv[k]};
	EVP_MD *type = EVP_MD_fetch(lib, md, NULL);
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(lib, priv[k], NULL);
	size_t n = sizeof(sig);
	unsigned len;

	assert_int_equal(EVP_Digest(message, sizeof(message), digest, &len, type, NULL), 1);
	assert_int_equal(EVP_PKEY_sign_init(ctx), 1);
	assert_int_equal(EVP_PKEY_CTX_set_signature_md(ctx, type), 1);
	assert_int_equal(pad_of(ctx, pss), 1);
	assert_int_equal(EVP_PKEY_sign(ctx, sig, &n, digest, len), 1);
	/* of another length than the hash's */
	assert_int_not_equal(EVP_PKEY_sign(ctx, sig, &n, digest, len - 1), 1);
	assert_true(provfix_error(CSM_EUNSUPPORTED, "digests of"));
	EVP_PKEY_CTX_free(ctx);
	for (size_t i = 0; i < 2; i++) {
		ctx = EVP_PKEY_CTX_new_from_pkey(lib, verifiers[i], NULL);
		assert_int_equal(EVP_PKEY_verify_init(ctx), 1);
		assert_int_equal(EVP_PKEY_CTX_set_signature_md(ctx, type), 1);
		assert_int_equal(pad_of(ctx, pss), 1);
		assert_int_equal(EVP_PKEY_verify(ctx, sig, n, digest, len), 1);
		digest[0] ^= 1;
		assert_int_not_equal(EVP_PKEY_verify(ctx, sig, n, digest, len), 1);
		digest[0] ^= 1;
		EVP_PKEY_CTX_free(ctx);
	}
	EVP_MD_free(type);
}

static void test_every_scheme(void **state)
{
	(void)state;
	for (size_t k = 0; k < KEYS; k++) {
		bool rsa = EVP_PKEY_is_a(priv[k], "RSA");

		if (EVP_PKEY_is_a(priv[k], "ED25519")) {
			check_message(k, NULL, false);
			continue;
		}
		for (size_t h = 0; h < 3; h++) {
			check_message(k, hashes[h], false);
			check_digest(k, hashes[h], false);
			if (rsa) {
				check_message(k, hashes[h], true);
				check_digest(k, hashes[h], true);
			}
		}
	}
}

/* Certificates name the algorithm by what the context tells. */
static void test_x509(void **state)
{
	(void)state;
	for (size_t k = 0; k < KEYS; k++) {
		for (int pss = 0; pss <= (EVP_PKEY_is_a(priv[k], "RSA") ? 1 : 0); pss++) {
			X509_REQ *req = X509_REQ_new_ex(lib, NULL);
			EVP_MD_CTX *ctx = EVP_MD_CTX_new();
			EVP_PKEY_CTX *pctx;

			assert_int_equal(X509_REQ_set_pubkey(req, priv[k]), 1);
			assert_int_equal(EVP_DigestSignInit_ex(ctx, &pctx, EVP_PKEY_is_a(priv[k], "ED25519") ? NULL : "SHA384", lib,
						 NULL, priv[k], NULL), 1);
			assert_int_equal(pad_of(pctx, pss), 1);
			assert_true(X509_REQ_sign_ctx(req, ctx) > 0);
			assert_int_equal(X509_REQ_verify_ex(req, publ[k], lib, NULL), 1);
			assert_int_not_equal(X509_REQ_verify_ex(req, publ[(k + 1) % KEYS], lib, NULL), 1);
			EVP_MD_CTX_free(ctx);
			X509_REQ_free(req);
		}
	}
}

static size_t index_of(const char *name)
{
	for (size_t k = 0; k < KEYS; k++)
		if (strcmp(keys[k].name, name) == 0)
			return k;
	fail();
	return 0;
}

/* Setting a parameter of a signature, and signing: 1 where both went well. */
static int sign_with(const char *key, const char *md, const char *name, const char *value)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	uint8_t sig[CSM_SIGNATURE_BYTES];
	size_t n = sizeof(sig);
	EVP_PKEY_CTX *pctx;
	int ok = EVP_DigestSignInit_ex(ctx, &pctx, md, lib, NULL, priv[index_of(key)], NULL) == 1;

	if (ok && (strncmp(name, "rsa_pss", 7) == 0 || strcmp(name, "rsa_mgf1_md") == 0))
		ok = EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PSS_PADDING) == 1;
	if (ok && *name != '\0')
		ok = EVP_PKEY_CTX_ctrl_str(pctx, name, value) == 1;
	if (ok)
		ok = EVP_DigestSign(ctx, sig, &n, message, sizeof(message)) == 1;
	EVP_MD_CTX_free(ctx);
	return ok;
}

static void test_settings(void **state)
{
	(void)state;
	assert_true(sign_with("srsa", "SHA256", "rsa_padding_mode", "pkcs1"));
	assert_true(sign_with("srsa", "SHA256", "rsa_padding_mode", "pss"));
	assert_true(sign_with("srsa", "SHA256", "rsa_pss_saltlen", "digest"));
	assert_true(sign_with("srsa", "SHA256", "rsa_pss_saltlen", "auto"));
	assert_true(sign_with("srsa", "SHA256", "rsa_pss_saltlen", "32"));
	assert_true(sign_with("srsa", "SHA256", "rsa_pss_saltlen", "-1"));
	assert_true(sign_with("trsa", "SHA256", "rsa_pss_saltlen", "auto"));
	assert_true(sign_with("sp256", NULL, "", ""));
	/* what csmd does not do is refused, never done otherwise */
	assert_false(sign_with("srsa", "SHA256", "rsa_pss_saltlen", "max"));
	assert_true(provfix_error(CSM_EUNSUPPORTED, "salt"));
	assert_false(sign_with("srsa", "SHA256", "rsa_pss_saltlen", "20"));
	assert_true(provfix_error(CSM_EUNSUPPORTED, "salt"));
	assert_false(sign_with("srsa", "SHA256", "rsa_padding_mode", "none"));
	assert_true(provfix_error(CSM_EUNSUPPORTED, "padding"));
	assert_false(sign_with("srsa", "SHA256", "rsa_padding_mode", "x931"));
	assert_false(sign_with("srsa", "SHA1", "", ""));
	assert_true(provfix_error(CSM_EUNSUPPORTED, "SHA1"));
	assert_false(sign_with("sp256", "SHA3-256", "", ""));
	assert_false(sign_with("sed", "SHA256", "", ""));
	assert_true(provfix_error(CSM_EUNSUPPORTED, "Ed25519"));
	assert_false(sign_with("sp256", "SHA256", "rsa_padding_mode", "pss"));
	/* MGF1 with another hash */
	assert_true(sign_with("srsa", "SHA256", "rsa_mgf1_md", "SHA256"));
	assert_false(sign_with("srsa", "SHA256", "rsa_mgf1_md", "SHA384"));
	assert_true(provfix_error(CSM_EUNSUPPORTED, "MGF1"));
}

/* PKCS1 without a named hash: the DigestInfo tells it; anything else is refused. */
static void test_digest_info(void **state)
{
	static const uint8_t head[] = {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02,
		0x01, 0x05, 0x00, 0x04, 0x20};
	size_t k = index_of("srsa"), n = CSM_SIGNATURE_BYTES;
	uint8_t info[sizeof(head) + 32], sig[CSM_SIGNATURE_BYTES];
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(lib, priv[k], NULL);

	(void)state;
	memcpy(info, head, sizeof(head));
	assert_int_equal(EVP_Q_digest(lib, "SHA256", NULL, message, sizeof(message), info + sizeof(head), NULL), 1);
	assert_int_equal(EVP_PKEY_sign_init(ctx), 1);
	assert_int_equal(EVP_PKEY_sign(ctx, sig, &n, info, sizeof(info)), 1);
	assert_int_equal(verify_message(publ[k], "SHA256", false, sig, n, sizeof(message)), 1);
	n = sizeof(sig);
	assert_int_not_equal(EVP_PKEY_sign(ctx, sig, &n, info, sizeof(info) - 1), 1);
	info[14] = 9;
	assert_int_not_equal(EVP_PKEY_sign(ctx, sig, &n, info, sizeof(info)), 1);
	assert_int_not_equal(EVP_PKEY_sign(ctx, sig, &n, (const uint8_t *)"raw", 3), 1);
	assert_true(provfix_error(CSM_EUNSUPPORTED, "digests of"));
	EVP_PKEY_CTX_free(ctx);
}

/* ---- decryption ---- */

static int oaep(EVP_PKEY_CTX *ctx, const char *md)
{
	return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) == 1 &&
	       (md == NULL || EVP_PKEY_CTX_set_rsa_oaep_md_name(ctx, md, NULL) == 1);
}

static void check_decrypt(const char *name, const char *md, const char *label)
{
	EVP_PKEY *encrypters[] = {publ[index_of(name)], priv[index_of(name)]};

	for (size_t i = 0; i < 2; i++) {
		EVP_PKEY_CTX *e = EVP_PKEY_CTX_new_from_pkey(lib, encrypters[i], NULL);
		EVP_PKEY_CTX *d = EVP_PKEY_CTX_new_from_pkey(lib, priv[index_of(name)], NULL);
		uint8_t cipher[CSM_PLAINTEXT_BYTES], plain[CSM_PLAINTEXT_BYTES];
		size_t n = sizeof(cipher), m = sizeof(plain);

		assert_int_equal(EVP_PKEY_encrypt_init(e), 1);
		assert_true(oaep(e, md));
		assert_int_equal(EVP_PKEY_decrypt_init(d), 1);
		assert_true(oaep(d, md));
		if (label != NULL) {
			assert_int_equal(EVP_PKEY_CTX_set0_rsa_oaep_label(e, OPENSSL_strdup(label), (int)strlen(label)), 1);
			assert_int_equal(EVP_PKEY_CTX_set0_rsa_oaep_label(d, OPENSSL_strdup(label), (int)strlen(label)), 1);
		}
		assert_int_equal(EVP_PKEY_encrypt(e, cipher, &n, message, 32), 1);
		assert_int_equal(EVP_PKEY_decrypt(d, plain, &m, cipher, n), 1);
		assert_int_equal(m, 32);
		assert_memory_equal(plain, message, 32);
		cipher[9] ^= 1;
		m = sizeof(plain);
		assert_int_not_equal(EVP_PKEY_decrypt(d, plain, &m, cipher, n), 1);
		(void)provfix_error(0, "");
		EVP_PKEY_CTX_free(e);
		EVP_PKEY_CTX_free(d);
	}
}

static void test_decrypt(void **state)
{
	EVP_PKEY_CTX *d = EVP_PKEY_CTX_new_from_pkey(lib, priv[index_of("srsa")], NULL);
	uint8_t plain[CSM_PLAINTEXT_BYTES], cipher[256] = {1};
	size_t m = sizeof(plain);

	(void)state;
	check_decrypt("srsa", "SHA256", NULL);
	check_decrypt("srsa", "SHA384", "a label");
	check_decrypt("srsa3", "SHA512", NULL);
	check_decrypt("trsa", "SHA256", NULL);
	/* PKCS1 v1.5 is not offered, and OAEP with SHA-1, OpenSSL's default, neither */
	assert_int_equal(EVP_PKEY_decrypt_init(d), 1);
	assert_int_not_equal(EVP_PKEY_decrypt(d, plain, &m, cipher, sizeof(cipher)), 1);
	assert_true(provfix_error(CSM_EUNSUPPORTED, "OAEP"));
	assert_true(oaep(d, NULL));
	assert_int_not_equal(EVP_PKEY_decrypt(d, plain, &m, cipher, sizeof(cipher)), 1);
	assert_true(provfix_error(CSM_EUNSUPPORTED, "SHA-256"));
	EVP_PKEY_CTX_free(d);
}

/* ---- ECDH ---- */

static size_t derive(EVP_PKEY *key, EVP_PKEY *peer, bool kdf, uint8_t *out, size_t room)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(lib, key, NULL);
	size_t n = room;
	bool ok = EVP_PKEY_derive_init(ctx) == 1;

	if (ok && kdf) {
		ok = EVP_PKEY_CTX_set_ecdh_kdf_type(ctx, EVP_PKEY_ECDH_KDF_X9_63) == 1 &&
			EVP_PKEY_CTX_set_ecdh_kdf_md(ctx, EVP_sha256()) == 1 && EVP_PKEY_CTX_set_ecdh_kdf_outlen(ctx, 40) == 1 &&
			EVP_PKEY_CTX_set0_ecdh_kdf_ukm(ctx, OPENSSL_memdup("shared info", 11), 11) == 1;
	}
	ok = ok && EVP_PKEY_derive_set_peer(ctx, peer) == 1 && EVP_PKEY_derive(ctx, out, &n) == 1;
	EVP_PKEY_CTX_free(ctx);
	return ok ? n : 0;
}

static void test_derive(void **state)
{
	static const char *const algs[] = {"p256", "p384", "p521"}, *const curves[] = {"P-256", "P-384", "P-521"};
	static const char *const backends[] = {"soft", "tpm2"};
	uint8_t a[128], b[128];
	size_t n, m;

	(void)state;
	for (size_t i = 0; i < 6; i++) {
		EVP_PKEY *other = EVP_PKEY_Q_keygen(lib, "provider=default", "EC", curves[i % 3]);
		EVP_PKEY *wrong = EVP_PKEY_Q_keygen(lib, "provider=default", "EC", curves[(i + 1) % 3]);
		EVP_PKEY *ours, *half;

		provfix_key("dh", algs[i % 3], backends[i / 3], "derive");
		ours = provfix_uri("csm:dh");
		half = provfix_public("dh");
		assert_non_null(ours);
		for (int kdf = 0; kdf < 2; kdf++) {
			n = derive(ours, other, kdf, a, sizeof(a));
			m = derive(other, half, kdf, b, sizeof(b));
			assert_true(n > 0 && n == m);
			assert_memory_equal(a, b, n);
		}
		assert_int_equal(derive(ours, wrong, false, a, sizeof(a)), 0);
		assert_true(provfix_error(CSM_EINVALID, "same curve"));
		assert_int_equal(derive(ours, other, false, a, 16), 0);
		EVP_PKEY_free(other);
		EVP_PKEY_free(wrong);
		EVP_PKEY_free(ours);
		EVP_PKEY_free(half);
		(void)provfix_error(0, "");
	}
	/* a key that is for signing */
	n = derive(priv[index_of("sp256")], publ[index_of("tp256")], false, a, sizeof(a));
	assert_int_equal(n, 0);
	assert_true(provfix_error(CSM_EUNSUPPORTED, "sp256"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_scheme),
		cmocka_unit_test(test_x509),
		cmocka_unit_test(test_settings),
		cmocka_unit_test(test_digest_info),
		cmocka_unit_test(test_decrypt),
		cmocka_unit_test(test_derive),
	};

	provfix_main(200);
	return cmocka_run_group_tests(tests, setup, teardown);
}
