/* What crosses between the back end and the TPM: no secret in clear, no answer believed that the TPM did
 * not make, no harm from an answer that is lost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <tss2/tss2_tpm2_types.h>
#include "tests/lib/tpm2_env.h"
#include "tests/lib/tpm2_tap.h"

#define OWNER_AUTH "the word of the owner"

static struct tpm2_env env;
static struct tpm2_tap tap;
static const struct csm_scheme ecdsa = {CSM_SCHEME_ECDSA, CSM_HASH_SHA256};

static void set_owner_auth(struct swtpm *t)
{
	TPM2B_AUTH a = {.size = sizeof(OWNER_AUTH) - 1};
	struct tpm2_other o;

	memcpy(a.buffer, OWNER_AUTH, a.size);
	tpm2_other_open(&o, t);
	assert_int_equal(Esys_HierarchyChangeAuth(o.esys, ESYS_TR_RH_OWNER, ESYS_TR_PASSWORD, ESYS_TR_NONE,
				 ESYS_TR_NONE, &a),
		0);
	tpm2_other_close(&o);
}

static int start(void **state)
{
	(void)state;
	memset(&env, 0, sizeof(env));
	env.tpm = swtpm_start();
	assert_non_null(env.tpm);
	set_owner_auth(env.tpm);
	swtpm_host_init(&env.host, env.tpm);
	env.host.quiet = true;
	swtpm_host_config(&env.host, "owner_auth", OWNER_AUTH);
	tpm2_tap_start(&tap, &env.host);
	tpm2_env_open(&env);
	assert_true(tpm2_env_health(&env).usable);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	tpm2_env_close(&env);
	tpm2_tap_stop(&tap);
	tpm2_env_stop(&env);
	return 0;
}

static void the_tap_sees_what_is_in_clear(void **state)
{
	uint8_t digest[64];
	struct tpm2_key k;

	(void)state;
	tpm2_digest(CSM_HASH_SHA256, digest);
	assert_false(tpm2_tap_has(&tap, digest, 32));
	tpm2_key_make(&env, CSM_ALG_P256, CSM_USE_SIGN, &k);
	assert_int_equal(tpm2_sign_verify(&env, &k), 0);
	assert_true(tpm2_tap_has(&tap, digest, 32));
	tpm2_key_unload(&env, &k);
}

static void sealed_data_crosses_encrypted(void **state)
{
	uint8_t secret[128], sealed[1024], plain[128];
	struct csm_plugin_out s = {sealed, sizeof(sealed), 0}, p = {plain, sizeof(plain), 0}, small = {plain, 10, 0};

	(void)state;
	assert_int_equal(RAND_bytes(secret, sizeof(secret)), 1);
	for (size_t n = 8; n <= sizeof(secret); n += 24) {
		assert_int_equal(csm_plugin_tpm2.seal(env.ctx, secret, n, &s), 0);
		memset(plain, 0, sizeof(plain));
		assert_int_equal(csm_plugin_tpm2.unseal(env.ctx, sealed, s.len, &p), 0);
		assert_int_equal(p.len, n);
		assert_memory_equal(plain, secret, n);
		assert_false(tpm2_tap_has(&tap, secret, 8));
		/* after a command that failed, too */
		sealed[s.len - 1] ^= 1;
		assert_int_equal(csm_plugin_tpm2.unseal(env.ctx, sealed, s.len, &p), CSM_EINVALID);
		sealed[s.len - 1] ^= 1;
		assert_int_equal(csm_plugin_tpm2.unseal(env.ctx, sealed, s.len, &p), 0);
		assert_memory_equal(plain, secret, n);
		assert_false(tpm2_tap_has(&tap, secret, 8));
	}
	assert_int_equal(csm_plugin_tpm2.unseal(env.ctx, sealed, s.len, &small), CSM_ETOO_LARGE);
	assert_int_equal(csm_plugin_tpm2.seal(env.ctx, secret, 0, &s), CSM_ETOO_LARGE);
	assert_int_equal(csm_plugin_tpm2.seal(env.ctx, secret, 129, &s), CSM_ETOO_LARGE);
	assert_int_equal(tpm2_env_health(&env).loaded, 0);
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* The host's nonce is a new one in each command: else an old answer of the TPM could be played back. */
static void nonces_are_new(void **state)
{
	const uint8_t *nonce[2], *at;
	uint8_t out[8];
	size_t start;

	(void)state;
	pthread_mutex_lock(&tap.lock);
	start = tap.len;
	pthread_mutex_unlock(&tap.lock);
	for (int i = 0; i < 2; i++)
		assert_int_equal(csm_plugin_tpm2.random(env.ctx, out, sizeof(out)), 0);
	pthread_mutex_lock(&tap.lock);
	at = tap.bytes + start;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(be32(at + 6), TPM2_CC_GetRandom);
		assert_int_equal(at[18] << 8 | at[19], 16); /* header (10), size (4), session (4) */
		nonce[i] = at + 20;
		at += be32(at + 2);
		at += be32(at + 2); /* the answer */
	}
	assert_true(at <= tap.bytes + tap.len);
	assert_memory_not_equal(nonce[0], nonce[1], 16);
	pthread_mutex_unlock(&tap.lock);
}

static void every_changed_sealed_byte_is_refused(void **state)
{
	uint8_t sealed[1024], plain[128];
	struct csm_plugin_out s = {sealed, sizeof(sealed), 0}, p = {plain, sizeof(plain), 0};

	(void)state;
	assert_int_equal(csm_plugin_tpm2.seal(env.ctx, (const uint8_t *)"root key", 8, &s), 0);
	for (size_t i = 0; i < s.len; i++) {
		assert_int_equal(csm_plugin_tpm2.unseal(env.ctx, sealed, i, &p), CSM_EINVALID);
		sealed[i] ^= 0x40;
		assert_int_equal(csm_plugin_tpm2.unseal(env.ctx, sealed, s.len, &p), CSM_EINVALID);
		sealed[i] ^= 0x40;
	}
	assert_int_equal(csm_plugin_tpm2.unseal(env.ctx, sealed, s.len, &p), 0);
}

static void other_secrets_cross_encrypted(void **state)
{
	struct csm_scheme oaep = {CSM_SCHEME_RSA_OAEP, CSM_HASH_SHA256};
	uint8_t out[512], cipher[256], *der = NULL;
	struct csm_plugin_out o = {out, sizeof(out), 0};
	EVP_PKEY *peer = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256"), *pub;
	int der_len = i2d_PUBKEY(peer, &der);
	size_t len = sizeof(cipher), auth_len = 0;
	const uint8_t *p, *auth;
	EVP_PKEY_CTX *ctx;
	struct tpm2_key k;
	uint64_t v;

	(void)state;
	tpm2_key_make(&env, CSM_ALG_P256, CSM_USE_DERIVE, &k);
	assert_int_equal(csm_plugin_tpm2.derive(env.ctx, k.key, der, (size_t)der_len, &o), 0);
	assert_false(tpm2_tap_has(&tap, out, 8));
	tpm2_key_unload(&env, &k);

	tpm2_key_make(&env, CSM_ALG_RSA2048, CSM_USE_DECRYPT, &k);
	p = k.spki;
	pub = d2i_PUBKEY(NULL, &p, (long)k.spki_len);
	ctx = EVP_PKEY_CTX_new(pub, NULL);
	assert_int_equal(EVP_PKEY_encrypt_init(ctx), 1);
	assert_true(EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) > 0);
	assert_true(EVP_PKEY_CTX_set_rsa_oaep_md(ctx, EVP_sha256()) > 0);
	assert_int_equal(EVP_PKEY_encrypt(ctx, cipher, &len, (const uint8_t *)"plain text of 21 bytes", 22), 1);
	assert_int_equal(csm_plugin_tpm2.decrypt(env.ctx, k.key, &oaep, cipher, len, NULL, 0, &o), 0);
	assert_memory_equal(out, "plain text of 21 bytes", 22);
	assert_false(tpm2_tap_has(&tap, "plain text", 10));
	tpm2_key_unload(&env, &k);

	assert_int_equal(csm_plugin_tpm2.random(env.ctx, out, 32), 0);
	assert_false(tpm2_tap_has(&tap, out, 8));

	assert_int_equal(csm_plugin_tpm2.counter_increment(env.ctx, &v), 0);
	auth = swtpm_host_kept(&env.host, "tpm2.nvauth", &auth_len);
	assert_non_null(auth);
	assert_int_equal(auth_len, 32 + 4); /* authValue, index */
	assert_false(tpm2_tap_has(&tap, auth, 8));
	assert_false(tpm2_tap_has(&tap, OWNER_AUTH, 8));
	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(pub);
	EVP_PKEY_free(peer);
	OPENSSL_free(der);
}

/* Any bit of a signature's answer: parameters, nonce, attributes, HMAC. */
static void a_changed_answer_is_refused(void **state)
{
	struct tpm2_key k;
	uint8_t sig[1024];
	size_t len;
	int r;

	(void)state;
	tpm2_key_make(&env, CSM_ALG_P256, CSM_USE_SIGN, &k);
	assert_int_equal(tpm2_sign_verify(&env, &k), 0);
	/* 10 header, 4 size, 72 signature, 2 + 16 nonce, 1 attributes, 2 + 32 HMAC */
	for (int offset = 14; offset < 139; offset += offset < 84 ? 7 : 1) {
		tpm2_tap_set(&tap, TAP_FLIP, TPM2_CC_Sign, 1, 0, offset);
		r = tpm2_sign(&env, &k, ecdsa, sig, &len);
		if (r != CSM_EBACKEND)
			fail_msg("offset %d: %d", offset, r);
		assert_int_equal(tpm2_tap_seen(&tap), 1);
		assert_int_equal(tpm2_sign_verify(&env, &k), 0);
	}
	tpm2_tap_set(&tap, TAP_NONE, TAP_ALL, 0, 0, 0);
	tpm2_key_unload(&env, &k);
}

static void unseal_refuses_a_changed_answer(void **state)
{
	uint8_t sealed[1024], plain[128];
	struct csm_plugin_out s = {sealed, sizeof(sealed), 0}, p = {plain, sizeof(plain), 0};

	(void)state;
	assert_int_equal(csm_plugin_tpm2.seal(env.ctx, (const uint8_t *)"root key", 8, &s), 0);
	tpm2_tap_set(&tap, TAP_FLIP, TPM2_CC_Unseal, 1, 0, 17);
	assert_int_equal(csm_plugin_tpm2.unseal(env.ctx, sealed, s.len, &p), CSM_EBACKEND);
	assert_int_equal(csm_plugin_tpm2.unseal(env.ctx, sealed, s.len, &p), 0);
	assert_memory_equal(plain, "root key", 8);
}

static void asked_to_try_again(void **state)
{
	static const uint32_t codes[] = {TPM2_RC_RETRY, TPM2_RC_TESTING, TPM2_RC_YIELDED};
	struct tpm2_key k;

	(void)state;
	tpm2_key_make(&env, CSM_ALG_P256, CSM_USE_SIGN, &k);
	for (size_t i = 0; i < 3; i++) {
		tpm2_tap_set(&tap, TAP_ANSWER, TPM2_CC_Sign, 4, codes[i], 0);
		assert_int_equal(tpm2_sign_verify(&env, &k), 0);
		assert_int_equal(tpm2_tap_seen(&tap), 5);
	}
	tpm2_key_unload(&env, &k);
}

static void what_the_tpm_says_is_told(void **state)
{
	struct tpm2_key k;

	(void)state;
	tpm2_key_make(&env, CSM_ALG_P256, CSM_USE_SIGN, &k);
	tpm2_tap_set(&tap, TAP_ANSWER, TPM2_CC_Sign, 1, TPM2_RC_LOCKOUT, 0);
	assert_int_equal(tpm2_sign_verify(&env, &k), CSM_ELOCKOUT);
	tpm2_tap_set(&tap, TAP_ANSWER, TPM2_CC_Sign, 1, TPM2_RC_FAILURE, 0);
	assert_int_equal(tpm2_sign_verify(&env, &k), CSM_EBACKEND);
	/* a handle that stays gone: repeated once, then told */
	tpm2_tap_set(&tap, TAP_ANSWER, TPM2_CC_Sign, 9, TPM2_RC_REFERENCE_H0, 0);
	assert_int_equal(tpm2_sign_verify(&env, &k), CSM_EUNAVAILABLE);
	assert_int_equal(tpm2_tap_seen(&tap), 2);
	tpm2_tap_set(&tap, TAP_NONE, TAP_ALL, 0, 0, 0);
	assert_int_equal(tpm2_sign_verify(&env, &k), 0);
	tpm2_key_unload(&env, &k);
}

/* A TPM that broke down says FAILURE to everything. */
static void a_broken_tpm(void **state)
{
	struct csm_plugin_health h;
	struct tpm2_key k;

	(void)state;
	tpm2_key_make(&env, CSM_ALG_P256, CSM_USE_SIGN, &k);
	tpm2_key_unload(&env, &k);
	tpm2_env_close(&env);
	tpm2_tap_set(&tap, TAP_ANSWER, TAP_ALL, 1000, TPM2_RC_FAILURE, 0);
	tpm2_env_open(&env);
	h = tpm2_env_health(&env);
	assert_false(h.usable);
	assert_non_null(h.reason);
	assert_non_null(strstr(h.reason, "0x101"));
	assert_int_equal(tpm2_key_load(&env, &k), 0);
	for (int i = 0; i < 10; i++)
		assert_int_equal(tpm2_sign_verify(&env, &k), CSM_EUNAVAILABLE);
	/* it is not asked at every call */
	assert_true(tpm2_tap_seen(&tap) < 5);
	tpm2_tap_set(&tap, TAP_NONE, TAP_ALL, 0, 0, 0);
	swtpm_pause_ms(1100);
	assert_int_equal(tpm2_sign_verify(&env, &k), 0);
	tpm2_key_unload(&env, &k);
}

/* The TPM did it, the answer never came: no object is left, no count is made twice. */
static void lost_answers(void **state)
{
	static const uint32_t commands[] = {TPM2_CC_Load, TPM2_CC_ContextSave, TPM2_CC_Sign, TPM2_CC_ContextLoad,
		TPM2_CC_FlushContext};
	struct tpm2_other o;
	struct tpm2_key k[4];
	TPM2_HANDLE h[8];
	uint64_t v = 0, w = 0;

	(void)state;
	for (int i = 0; i < 4; i++)
		tpm2_key_make(&env, CSM_ALG_P256, CSM_USE_SIGN, &k[i]);
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		for (int j = 0; j < 4; j++) {
			tpm2_key_unload(&env, &k[j]);
			assert_int_equal(tpm2_key_load(&env, &k[j]), 0);
		}
		tpm2_tap_set(&tap, TAP_LOSE, commands[i], 1, 0, 0);
		for (int j = 0; j < 8; j++)
			assert_int_equal(tpm2_sign_verify(&env, &k[j % 4]), 0);
		assert_true(tpm2_tap_seen(&tap) > 0);
	}
	assert_int_equal(csm_plugin_tpm2.counter_read(env.ctx, &v), 0);
	tpm2_tap_set(&tap, TAP_LOSE, TPM2_CC_NV_Increment, 1, 0, 0);
	assert_int_equal(csm_plugin_tpm2.counter_increment(env.ctx, &w), 0);
	assert_int_equal(tpm2_tap_seen(&tap), 1);
	assert_int_equal(w, v + 1);
	for (int i = 0; i < 4; i++)
		tpm2_key_unload(&env, &k[i]);
	csm_plugin_tpm2.idle(env.ctx);
	tpm2_other_open(&o, env.tpm);
	assert_int_equal(tpm2_other_handles(&o, TRANSIENT_OBJECTS, h, 8), 0);
	assert_int_equal(tpm2_other_handles(&o, LOADED_SESSIONS, h, 8), 1);
	tpm2_other_close(&o);
}

/* Another program locks the TPM: health tells, our keys go on. */
static void lockout_is_told_and_does_not_concern_us(void **state)
{
	TPM2B_PUBLIC pub = {.publicArea = {.type = TPM2_ALG_ECC,
				    .nameAlg = TPM2_ALG_SHA256,
				    .objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT |
					    TPMA_OBJECT_SENSITIVEDATAORIGIN | TPMA_OBJECT_USERWITHAUTH |
					    TPMA_OBJECT_SIGN_ENCRYPT}};
	TPM2B_SENSITIVE_CREATE sens = {.sensitive = {.userAuth = {.size = 4, .buffer = "good"}}};
	TPM2B_AUTH bad = {.size = 3, .buffer = "bad"};
	TPM2B_DIGEST digest = {.size = 32};
	TPMT_SIG_SCHEME scheme = {.scheme = TPM2_ALG_ECDSA, .details.ecdsa.hashAlg = TPM2_ALG_SHA256};
	TPMT_TK_HASHCHECK ticket = {.tag = TPM2_ST_HASHCHECK, .hierarchy = TPM2_RH_NULL};
	TPML_PCR_SELECTION pcr = {0};
	TPM2B_DATA outside = {0};
	TPMT_SIGNATURE *sig = NULL;
	struct csm_plugin_health health;
	struct tpm2_other o;
	struct tpm2_key k;
	ESYS_TR h;

	(void)state;
	tpm2_key_make(&env, CSM_ALG_P256, CSM_USE_SIGN, &k);
	assert_int_equal(tpm2_sign_verify(&env, &k), 0);
	csm_plugin_tpm2.idle(env.ctx);
	pub.publicArea.parameters.eccDetail.curveID = TPM2_ECC_NIST_P256;
	pub.publicArea.parameters.eccDetail.scheme.scheme = TPM2_ALG_NULL;
	pub.publicArea.parameters.eccDetail.symmetric.algorithm = TPM2_ALG_NULL;
	pub.publicArea.parameters.eccDetail.kdf.scheme = TPM2_ALG_NULL;
	tpm2_other_open(&o, env.tpm);
	assert_int_equal(Esys_CreatePrimary(o.esys, ESYS_TR_RH_ENDORSEMENT, ESYS_TR_PASSWORD, ESYS_TR_NONE,
				 ESYS_TR_NONE, &sens, &pub, &outside, &pcr, &h, NULL, NULL, NULL, NULL),
		0);
	assert_int_equal(Esys_TR_SetAuth(o.esys, h, &bad), 0);
	for (int i = 0; i < 8; i++)
		assert_int_not_equal(Esys_Sign(o.esys, h, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &digest, &scheme,
					     &ticket, &sig),
			0);
	assert_int_equal(Esys_FlushContext(o.esys, h), 0);
	tpm2_other_close(&o);
	swtpm_pause_ms(1100);
	health = tpm2_env_health(&env);
	assert_true(health.usable);
	assert_true(health.lockout);
	assert_true(health.lockout_counter >= 3);
	assert_in_range(health.lockout_seconds, 1, 1000000);
	assert_int_equal(tpm2_sign_verify(&env, &k), 0);
	tpm2_key_unload(&env, &k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_tap_sees_what_is_in_clear),
		cmocka_unit_test(sealed_data_crosses_encrypted),
		cmocka_unit_test(nonces_are_new),
		cmocka_unit_test(every_changed_sealed_byte_is_refused),
		cmocka_unit_test(other_secrets_cross_encrypted),
		cmocka_unit_test(a_changed_answer_is_refused),
		cmocka_unit_test(unseal_refuses_a_changed_answer),
		cmocka_unit_test(asked_to_try_again),
		cmocka_unit_test(what_the_tpm_says_is_told),
		cmocka_unit_test(a_broken_tpm),
		cmocka_unit_test(lost_answers),
		cmocka_unit_test(lockout_is_told_and_does_not_concern_us),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
