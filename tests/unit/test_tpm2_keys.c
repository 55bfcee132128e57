/* Keys of the TPM back end: every algorithm and scheme, judged by OpenSSL, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include "plugins/include/csm_alg.h"
#include "plugins/tpm2/tpm2.h"
#include "tests/lib/tpm2_env.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

static struct tpm2_env env;

static int start(void **state)
{
	(void)state;
	tpm2_env_start(&env);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	tpm2_env_stop(&env);
	return 0;
}

static void capabilities(void **state)
{
	struct csm_plugin_caps caps = {0};

	(void)state;
	assert_int_equal(csm_plugin_tpm2.capabilities(env.ctx, &caps), 0);
	assert_string_equal(caps.protection, "tpm");
	assert_true((caps.algs & 1u << CSM_ALG_P256) != 0 && (caps.algs & 1u << CSM_ALG_P384) != 0);
	assert_true((caps.algs & 1u << CSM_ALG_RSA2048) != 0 && (caps.algs & 1u << CSM_ALG_RSA3072) != 0);
	assert_int_equal(caps.algs & (1u << CSM_ALG_RSA4096 | 1u << CSM_ALG_ED25519), 0);
}

static void ecdsa_every_curve_and_hash(void **state)
{
	static const enum csm_alg algs[] = {CSM_ALG_P256, CSM_ALG_P384, CSM_ALG_P521};
	static const enum csm_hash hashes[] = {CSM_HASH_SHA256, CSM_HASH_SHA384, CSM_HASH_SHA512};
	uint8_t sig[1024];
	size_t len = 0;

	(void)state;
	for (size_t i = 0; i < N_ELEMS(algs); i++) {
		struct tpm2_key k;

		tpm2_key_make(&env, algs[i], CSM_USE_SIGN, &k);
		for (size_t j = 0; j < N_ELEMS(hashes); j++) {
			struct csm_scheme s = {CSM_SCHEME_ECDSA, hashes[j]};

			assert_int_equal(tpm2_sign(&env, &k, s, sig, &len), 0);
			assert_true(tpm2_verify(&k, s, sig, len));
			sig[len - 1] ^= 1;
			assert_false(tpm2_verify(&k, s, sig, len));
		}
		tpm2_key_unload(&env, &k);
	}
}

static void rsa_every_scheme(void **state)
{
	static const enum csm_alg algs[] = {CSM_ALG_RSA2048, CSM_ALG_RSA3072};
	static const enum csm_scheme_kind kinds[] = {CSM_SCHEME_RSA_PKCS1, CSM_SCHEME_RSA_PSS};
	static const enum csm_hash hashes[] = {CSM_HASH_SHA256, CSM_HASH_SHA384, CSM_HASH_SHA512};
	uint8_t sig[1024];
	size_t len = 0;

	(void)state;
	for (size_t i = 0; i < N_ELEMS(algs); i++) {
		struct tpm2_key k;

		tpm2_key_make(&env, algs[i], CSM_USE_SIGN, &k);
		for (size_t j = 0; j < N_ELEMS(kinds) * N_ELEMS(hashes); j++) {
			struct csm_scheme s = {kinds[j / 3], hashes[j % 3]};

			assert_int_equal(tpm2_sign(&env, &k, s, sig, &len), 0);
			assert_true(tpm2_verify(&k, s, sig, len));
			sig[0] ^= 1;
			assert_false(tpm2_verify(&k, s, sig, len));
		}
		tpm2_key_unload(&env, &k);
	}
}

/* A TPM whose own PSS takes another salt: the encoding is ours, the operation TPM2_RSA_Decrypt. */
static void pss_by_own_encoding(void **state)
{
	struct csm_scheme s = {CSM_SCHEME_RSA_PSS, CSM_HASH_SHA384};
	uint8_t sig[1024], digest[64];
	struct csm_plugin_out out = {sig, sizeof(sig), 0};
	struct tpm2_key k;

	(void)state;
	tpm2_digest(s.hash, digest);
	tpm2_key_make(&env, CSM_ALG_RSA2048, CSM_USE_SIGN | CSM_USE_DECRYPT, &k);
	assert_int_equal(t2_pss_raw(env.ctx, k.key, s.hash, digest, &out), 0);
	assert_true(tpm2_verify(&k, s, sig, out.len));
	tpm2_key_unload(&env, &k);
	tpm2_key_make(&env, CSM_ALG_RSA2048, CSM_USE_SIGN, &k);
	assert_int_equal(t2_pss_raw(env.ctx, k.key, s.hash, digest, &out), CSM_EUNSUPPORTED);
	tpm2_key_unload(&env, &k);
}

static void encrypt(const struct tpm2_key *k, const char *md, const char *label, size_t label_len, const char *text,
	uint8_t *out, size_t *len)
{
	const uint8_t *p = k->spki;
	EVP_PKEY *key = d2i_PUBKEY(NULL, &p, (long)k->spki_len);
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
	const EVP_MD *h = EVP_get_digestbyname(md);

	assert_int_equal(EVP_PKEY_encrypt_init(ctx), 1);
	assert_true(EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) > 0);
	assert_true(EVP_PKEY_CTX_set_rsa_oaep_md(ctx, h) > 0 && EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, h) > 0);
	if (label_len > 0)
		assert_true(EVP_PKEY_CTX_set0_rsa_oaep_label(ctx, OPENSSL_memdup(label, label_len), (int)label_len) > 0);
	assert_int_equal(EVP_PKEY_encrypt(ctx, out, len, (const uint8_t *)text, strlen(text)), 1);
	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(key);
}

static void oaep(void **state)
{
	static const struct {
		enum csm_hash hash;
		const char *md;
		const char *label;
		size_t label_len;
	} rows[] = {
		{CSM_HASH_SHA256, "SHA256", "", 0},      {CSM_HASH_SHA384, "SHA384", "", 0},
		{CSM_HASH_SHA256, "SHA256", "label", 6}, {CSM_HASH_SHA256, "SHA256", "label", 5},
		{CSM_HASH_SHA512, "SHA512", "a", 1},
	};
	uint8_t cipher[512], plain[512];
	struct tpm2_key k;

	(void)state;
	tpm2_key_make(&env, CSM_ALG_RSA2048, CSM_USE_SIGN | CSM_USE_DECRYPT, &k);
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		struct csm_scheme s = {CSM_SCHEME_RSA_OAEP, rows[i].hash};
		struct csm_plugin_out out = {plain, sizeof(plain), 0};
		const uint8_t *label = (const uint8_t *)rows[i].label;
		size_t len = sizeof(cipher);

		encrypt(&k, rows[i].md, rows[i].label, rows[i].label_len, "the text", cipher, &len);
		assert_int_equal(csm_plugin_tpm2.decrypt(env.ctx, k.key, &s, cipher, len, label, rows[i].label_len, &out), 0);
		assert_int_equal(out.len, 8);
		assert_memory_equal(plain, "the text", 8);
		/* another label, a changed ciphertext, a short one: one error */
		out.len = 0;
		assert_int_equal(csm_plugin_tpm2.decrypt(env.ctx, k.key, &s, cipher, len, (const uint8_t *)"x", 2, &out),
			CSM_EINVALID);
		assert_int_equal(csm_plugin_tpm2.decrypt(env.ctx, k.key, &s, cipher, len, (const uint8_t *)"x", 1, &out),
			CSM_EINVALID);
		cipher[100] ^= 1;
		assert_int_equal(csm_plugin_tpm2.decrypt(env.ctx, k.key, &s, cipher, len, label, rows[i].label_len, &out),
			CSM_EINVALID);
		assert_int_equal(csm_plugin_tpm2.decrypt(env.ctx, k.key, &s, cipher, 100, label, rows[i].label_len, &out),
			CSM_EINVALID);
		assert_int_equal(out.len, 0);
	}
	tpm2_key_unload(&env, &k);
	tpm2_key_make(&env, CSM_ALG_RSA2048, CSM_USE_SIGN, &k);
	struct csm_scheme s = {CSM_SCHEME_RSA_OAEP, CSM_HASH_SHA256};
	struct csm_plugin_out out = {plain, sizeof(plain), 0};
	assert_int_equal(csm_plugin_tpm2.decrypt(env.ctx, k.key, &s, cipher, 256, NULL, 0, &out), CSM_EUNSUPPORTED);
	tpm2_key_unload(&env, &k);
}

static void ecdh(void **state)
{
	static const struct {
		enum csm_alg alg;
		const char *curve;
		size_t len;
	} rows[] = {{CSM_ALG_P256, "P-256", 32}, {CSM_ALG_P384, "P-384", 48}, {CSM_ALG_P521, "P-521", 66}};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		uint8_t a[80], b[80], *der = NULL;
		struct csm_plugin_out out = {a, sizeof(a), 0};
		EVP_PKEY *peer = EVP_PKEY_Q_keygen(NULL, NULL, "EC", rows[i].curve);
		EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(peer, NULL);
		size_t b_len = sizeof(b);
		struct tpm2_key k;
		int der_len = i2d_PUBKEY(peer, &der);

		assert_true(der_len > 0);
		tpm2_key_make(&env, rows[i].alg, CSM_USE_SIGN | CSM_USE_DERIVE, &k);
		assert_int_equal(csm_plugin_tpm2.derive(env.ctx, k.key, der, (size_t)der_len, &out), 0);
		const uint8_t *p = k.spki;
		EVP_PKEY *mine = d2i_PUBKEY(NULL, &p, (long)k.spki_len);
		assert_int_equal(EVP_PKEY_derive_init(ctx), 1);
		assert_int_equal(EVP_PKEY_derive_set_peer(ctx, mine), 1);
		assert_int_equal(EVP_PKEY_derive(ctx, b, &b_len), 1);
		assert_int_equal(out.len, rows[i].len);
		assert_int_equal(b_len, out.len);
		assert_memory_equal(a, b, b_len);
		/* off the curve; cut short; another curve is below */
		der[der_len - 1] ^= 1;
		assert_int_equal(csm_plugin_tpm2.derive(env.ctx, k.key, der, (size_t)der_len, &out), CSM_EINVALID);
		assert_int_equal(csm_plugin_tpm2.derive(env.ctx, k.key, der, (size_t)der_len - 1, &out), CSM_EINVALID);
		assert_int_equal(csm_plugin_tpm2.derive(env.ctx, k.key, der, 0, &out), CSM_EINVALID);
		tpm2_key_unload(&env, &k);
		EVP_PKEY_free(mine);
		EVP_PKEY_CTX_free(ctx);
		EVP_PKEY_free(peer);
		OPENSSL_free(der);
	}
}

static void ecdh_refuses_another_curve_and_use(void **state)
{
	uint8_t a[80], *der = NULL;
	struct csm_plugin_out out = {a, sizeof(a), 0};
	EVP_PKEY *peer = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-384");
	int der_len = i2d_PUBKEY(peer, &der);
	struct tpm2_key k;

	(void)state;
	tpm2_key_make(&env, CSM_ALG_P256, CSM_USE_DERIVE, &k);
	assert_int_equal(csm_plugin_tpm2.derive(env.ctx, k.key, der, (size_t)der_len, &out), CSM_EINVALID);
	assert_int_equal(tpm2_sign_verify(&env, &k), CSM_EUNSUPPORTED);
	tpm2_key_unload(&env, &k);
	tpm2_key_make(&env, CSM_ALG_P384, CSM_USE_SIGN, &k);
	assert_int_equal(csm_plugin_tpm2.derive(env.ctx, k.key, der, (size_t)der_len, &out), CSM_EUNSUPPORTED);
	tpm2_key_unload(&env, &k);
	EVP_PKEY_free(peer);
	OPENSSL_free(der);
}

static void wrong_arguments(void **state)
{
	struct csm_scheme s = {CSM_SCHEME_ECDSA, CSM_HASH_SHA256}, rsa = {CSM_SCHEME_RSA_PKCS1, CSM_HASH_SHA256};
	uint8_t digest[64], sig[1024];
	struct csm_plugin_out out = {sig, sizeof(sig), 77}, small = {sig, 20, 77};
	struct tpm2_key k;

	(void)state;
	tpm2_digest(CSM_HASH_SHA256, digest);
	tpm2_key_make(&env, CSM_ALG_P256, CSM_USE_SIGN, &k);
	assert_int_equal(csm_plugin_tpm2.sign(env.ctx, k.key, &s, digest, 31, &out), CSM_EINVALID);
	assert_int_equal(csm_plugin_tpm2.sign(env.ctx, k.key, &s, digest, 33, &out), CSM_EINVALID);
	assert_int_equal(csm_plugin_tpm2.sign(env.ctx, k.key, &rsa, digest, 32, &out), CSM_EINVALID);
	assert_int_equal(csm_plugin_tpm2.sign(env.ctx, k.key, &s, digest, 32, &small), CSM_ETOO_LARGE);
	assert_int_equal(out.len, 77);
	assert_int_equal(small.len, 77);
	tpm2_key_unload(&env, &k);
	assert_int_equal(tpm2_key_generate(&env, CSM_ALG_RSA4096, CSM_USE_SIGN, &k), CSM_EUNSUPPORTED);
	assert_int_equal(tpm2_key_generate(&env, CSM_ALG_ED25519, CSM_USE_SIGN, &k), CSM_EUNSUPPORTED);
}

/* Stored forms are not trusted: any cut, any other public key, any other kind. */
static void load_refuses_what_does_not_fit(void **state)
{
	struct tpm2_key k, l, m;

	(void)state;
	tpm2_key_make(&env, CSM_ALG_P256, CSM_USE_SIGN, &k);
	tpm2_key_make(&env, CSM_ALG_P256, CSM_USE_SIGN, &l);
	tpm2_key_unload(&env, &k);
	m = k;
	for (m.pub_len = 0; m.pub_len < k.pub_len; m.pub_len++)
		assert_int_equal(tpm2_key_load(&env, &m), CSM_ETAMPERED);
	m = k;
	for (m.priv_len = 0; m.priv_len < k.priv_len; m.priv_len++)
		assert_int_equal(tpm2_key_load(&env, &m), CSM_ETAMPERED);
	m = k;
	m.pub_len++;
	assert_int_equal(tpm2_key_load(&env, &m), CSM_ETAMPERED);
	m = k;
	memcpy(m.spki, l.spki, sizeof(m.spki));
	assert_int_equal(tpm2_key_load(&env, &m), CSM_ETAMPERED);
	m = k;
	m.spec.alg = CSM_ALG_P384;
	assert_int_equal(tpm2_key_load(&env, &m), CSM_ETAMPERED);
	/* another key's private part shows when the TPM sees it */
	m = k;
	memcpy(m.priv, l.priv, sizeof(m.priv));
	m.priv_len = l.priv_len;
	assert_int_equal(tpm2_key_load(&env, &m), 0);
	assert_int_equal(tpm2_sign_verify(&env, &m), CSM_ETAMPERED);
	tpm2_key_unload(&env, &m);
	m = k;
	m.priv[m.priv_len / 2] ^= 1;
	assert_int_equal(tpm2_key_load(&env, &m), 0);
	assert_int_equal(tpm2_sign_verify(&env, &m), CSM_ETAMPERED);
	tpm2_key_unload(&env, &m);
	assert_int_equal(tpm2_sign_verify(&env, &l), 0);
	assert_int_equal(tpm2_key_load(&env, &k), 0);
	assert_int_equal(tpm2_sign_verify(&env, &k), 0);
	tpm2_key_unload(&env, &k);
	tpm2_key_unload(&env, &l);
}

static void keys_outlive_the_back_end(void **state)
{
	uint8_t spki[1024];
	struct csm_plugin_out out = {spki, sizeof(spki), 0};
	struct tpm2_key k;

	(void)state;
	tpm2_key_make(&env, CSM_ALG_P256, CSM_USE_SIGN, &k);
	tpm2_key_unload(&env, &k);
	tpm2_env_close(&env);
	tpm2_env_open(&env);
	assert_int_equal(tpm2_key_load(&env, &k), 0);
	assert_int_equal(csm_plugin_tpm2.public_key(env.ctx, k.key, &out), 0);
	assert_int_equal(out.len, k.spki_len);
	assert_memory_equal(spki, k.spki, out.len);
	assert_int_equal(tpm2_sign_verify(&env, &k), 0);
	tpm2_key_unload(&env, &k);
}

static void random_bytes(void **state)
{
	uint8_t a[100] = {0}, b[100] = {0};

	(void)state;
	assert_int_equal(csm_plugin_tpm2.random(env.ctx, a, sizeof(a)), 0);
	assert_int_equal(csm_plugin_tpm2.random(env.ctx, b, sizeof(b)), 0);
	assert_memory_not_equal(a, b, sizeof(a));
	/* every piece was filled */
	for (size_t i = 0; i + 20 <= sizeof(a); i += 20)
		assert_memory_not_equal(a + i, (const uint8_t[20]){0}, 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(capabilities),
		cmocka_unit_test(ecdsa_every_curve_and_hash),
		cmocka_unit_test(rsa_every_scheme),
		cmocka_unit_test(pss_by_own_encoding),
		cmocka_unit_test(oaep),
		cmocka_unit_test(ecdh),
		cmocka_unit_test(ecdh_refuses_another_curve_and_use),
		cmocka_unit_test(wrong_arguments),
		cmocka_unit_test(load_refuses_what_does_not_fit),
		cmocka_unit_test(keys_outlive_the_back_end),
		cmocka_unit_test(random_bytes),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
