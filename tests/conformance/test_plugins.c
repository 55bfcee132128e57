/* What every back end must do. One suite for all of them: CSM_PLUGIN selects one, see tests/lib/conform.h. */
#include <pthread.h>
#include <string.h>
#include <openssl/core_names.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include "tests/lib/conform.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

static void the_table_is_whole(void **state)
{
	const struct csm_plugin *p = target.p;

	(void)state;
	assert_int_equal(p->abi, CSM_PLUGIN_ABI);
	assert_in_range(strlen(p->name), 1, CSM_TOKEN_STR_MAX);
	assert_int_equal(p->flags & ~(unsigned)(CSM_PLUGIN_SERIAL | CSM_PLUGIN_INLINE_EC), 0);
	assert_true(p->open && p->close && p->capabilities && p->health);
	assert_true(p->generate && p->load && p->unload && p->public_key && p->sign && p->decrypt && p->derive);
	assert_true(!p->sign_init == !p->sign_update && !p->sign_init == !p->sign_final &&
		!p->sign_init == !p->sign_cleanup);
	assert_int_equal(!p->seal, !p->unseal);
	assert_int_equal(!p->counter_read, !p->counter_increment);
	if (p->probe != NULL)
		assert_int_equal(p->probe(target.host), 0);
}

static void health_answers(void **state)
{
	struct csm_plugin_health h;

	(void)state;
	memset(&h, 0xff, sizeof(h));
	target.p->health(target.ctx, &h);
	assert_true(h.usable);
	assert_false(h.lockout);
	if (h.device != NULL)
		assert_in_range(h.slots, 1, 1024);
}

/* Each claimed algorithm is made; each other one is refused and leaves the outputs alone. */
static void capabilities_are_honest(void **state)
{
	static struct canary spki, pub, priv;

	(void)state;
	assert_int_not_equal(target.caps.algs, 0);
	assert_int_equal(target.caps.algs >> CSM_ALG__COUNT, 0);
	assert_true(target.caps.uses & CSM_USE_SIGN);
	assert_non_null(target.caps.protection);
	for (unsigned alg = 0; alg < CSM_ALG__COUNT; alg++) {
		struct csm_plugin_keyspec spec = {.alg = alg, .use = CSM_USE_SIGN};

		if ((target.caps.algs & 1u << alg) != 0) {
			assert_non_null(conform_key(alg, csm_alg_default_use(alg) & target.caps.uses));
			continue;
		}
		assert_int_equal(target.p->generate(target.ctx, &spec, canary_set(&spki, CSM_SPKI_MAX),
					 canary_set(&pub, CSM_PLUGIN_PUB_MAX), canary_set(&priv, CSM_PLUGIN_PRIV_MAX)),
			CSM_EUNSUPPORTED);
		assert_true(canary_whole(&spki, true) && canary_whole(&pub, true) && canary_whole(&priv, true));
	}
}

/* No use, a use that the algorithm or the back end lacks, an algorithm that is none. */
static void impossible_specs_are_refused(void **state)
{
	static struct stored k;

	(void)state;
	for (unsigned alg = 0; alg < CSM_ALG__COUNT; alg++) {
		assert_true(conform_refused(conform_generate(alg, 0, &k)));
		assert_true(conform_refused(conform_generate(alg, 8, &k)));
		for (unsigned use = 1; use < 8; use++)
			if (csm_alg_check_use(alg, use) != 0 || (target.caps.uses & use) != use)
				assert_true(conform_refused(conform_generate(alg, use, &k)));
	}
	assert_true(conform_refused(conform_generate(CSM_ALG__COUNT, CSM_USE_SIGN, &k)));
}

static const struct stored *signing_key(unsigned alg)
{
	unsigned use = csm_alg_default_use(alg) & target.caps.uses;

	return (use & CSM_USE_SIGN) != 0 ? conform_key(alg, use) : NULL;
}

/* The public key is of the algorithm, names its curve, and the loaded key gives the same. */
static void public_keys(void **state)
{
	static const char *const groups[] = {"prime256v1", "secp384r1", "secp521r1"};
	static const int bits[] = {256, 384, 521, 2048, 3072, 4096, 256};
	static struct canary spki;

	(void)state;
	for (unsigned alg = 0; alg < CSM_ALG__COUNT; alg++) {
		const struct stored *k = signing_key(alg);
		struct csm_plugin_key *key;
		EVP_PKEY *pkey;
		char group[32] = "";

		if (k == NULL)
			continue;
		key = conform_loaded(k);
		assert_int_equal(target.p->public_key(target.ctx, key, canary_set(&spki, CSM_SPKI_MAX)), 0);
		assert_true(canary_whole(&spki, false));
		assert_int_equal(spki.out.len, k->spki_len);
		assert_memory_equal(spki.p, k->spki, k->spki_len);
		pkey = conform_public(k);
		assert_int_equal(EVP_PKEY_get_bits(pkey), bits[alg]);
		if (alg < N_ELEMS(groups)) {
			assert_int_equal(EVP_PKEY_get_group_name(pkey, group, sizeof(group), NULL), 1);
			assert_string_equal(group, groups[alg]);
		}
		EVP_PKEY_free(pkey);
		target.p->unload(target.ctx, key);
	}
}

/* One key, one scheme: OpenSSL accepts the signature over the input and over nothing else. */
static void sign_once(const struct stored *k, struct csm_plugin_key *key, const struct csm_scheme *s)
{
	static struct canary sig;
	struct csm_scheme def = csm_scheme_default(k->spec.alg);
	size_t n = s->hash != CSM_HASH_NONE ? csm_hash_size(s->hash) : 37;
	uint8_t in[CSM_DIGEST_MAX + 1];
	int r;

	memset(in, (int)s->kind + 1, sizeof(in));
	r = target.p->sign(target.ctx, key, s, in, n, canary_set(&sig, CSM_SIGNATURE_MAX));
	if (r == CSM_EUNSUPPORTED && memcmp(&def, s, sizeof(def)) != 0)
		return; /* a hash that the device lacks */
	assert_int_equal(r, 0);
	assert_true(canary_whole(&sig, false));
	if (!conform_verify(k, s, in, n, sig.p, sig.out.len))
		fail_msg("%s: OpenSSL refuses %s", csm_alg_name(k->spec.alg), csm_scheme_name(s));
	in[0] ^= 1; /* the front: ECDSA takes as many bits as the curve has */
	assert_false(conform_verify(k, s, in, n, sig.p, sig.out.len));
	if (s->hash == CSM_HASH_NONE)
		return;
	assert_int_equal(
		target.p->sign(target.ctx, key, s, in, n - 1, canary_set(&sig, CSM_SIGNATURE_MAX)), CSM_EINVALID);
	assert_int_equal(
		target.p->sign(target.ctx, key, s, in, n + 1, canary_set(&sig, CSM_SIGNATURE_MAX)), CSM_EINVALID);
	assert_int_equal(target.p->sign(target.ctx, key, s, in, 0, canary_set(&sig, CSM_SIGNATURE_MAX)), CSM_EINVALID);
	assert_true(canary_whole(&sig, true));
}

static void every_scheme_signs(void **state)
{
	static struct canary sig;
	const struct csm_scheme *s;
	uint8_t in[CSM_DIGEST_MAX] = {1};

	(void)state;
	for (unsigned alg = 0; alg < CSM_ALG__COUNT; alg++) {
		const struct stored *k = signing_key(alg);
		struct csm_plugin_key *key;

		if (k == NULL)
			continue;
		key = conform_loaded(k);
		for (size_t i = 0; (s = conform_scheme(i)) != NULL; i++) {
			if (csm_scheme_check(alg, s) == 0) {
				sign_once(k, key, s);
				continue;
			}
			assert_true(conform_refused(target.p->sign(
				target.ctx, key, s, in, csm_hash_size(s->hash), canary_set(&sig, CSM_SIGNATURE_MAX))));
			assert_true(canary_whole(&sig, true));
		}
		s = &(struct csm_scheme){CSM_SCHEME_RSA_OAEP, CSM_HASH_SHA256};
		assert_true(conform_refused(
			target.p->sign(target.ctx, key, s, in, 32, canary_set(&sig, CSM_SIGNATURE_MAX))));
		s = &(struct csm_scheme){
			csm_scheme_default(alg).kind, alg == CSM_ALG_ED25519 ? CSM_HASH_SHA256 : CSM_HASH_NONE};
		assert_true(conform_refused(target.p->sign(
			target.ctx, key, s, in, csm_hash_size(s->hash), canary_set(&sig, CSM_SIGNATURE_MAX))));
		assert_true(conform_signs(k, key));
		target.p->unload(target.ctx, key);
	}
}

/* Ed25519 signs messages of any length, an empty one too. */
static void ed25519_messages(void **state)
{
	static uint8_t in[CSM_SIGN_MESSAGE_MAX];
	static const size_t sizes[] = {0, 1, 64, 4096, CSM_SIGN_MESSAGE_MAX};
	const struct stored *k = signing_key(CSM_ALG_ED25519);
	struct csm_scheme s = {CSM_SCHEME_ED25519, CSM_HASH_NONE};
	static struct canary sig;
	struct csm_plugin_key *key;

	(void)state;
	if (k == NULL) {
		conform_lacks("ed25519");
		return;
	}
	key = conform_loaded(k);
	memset(in, 'x', sizeof(in));
	for (size_t i = 0; i < N_ELEMS(sizes); i++) {
		assert_int_equal(target.p->sign(target.ctx, key, &s, sizes[i] != 0 ? in : NULL, sizes[i],
					 canary_set(&sig, CSM_SIGNATURE_MAX)),
			0);
		assert_int_equal(sig.out.len, 64);
		assert_true(conform_verify(k, &s, in, sizes[i], sig.p, sig.out.len));
	}
	target.p->unload(target.ctx, key);
}

static void multi_part_signatures(void **state)
{
	const struct stored *k = signing_key(conform_alg());
	struct csm_scheme s = csm_scheme_default(conform_alg());
	static struct canary sig;
	struct csm_plugin_key *key;
	struct csm_plugin_op *op = NULL;
	uint8_t digest[32];

	(void)state;
	if (target.p->sign_init == NULL || k == NULL) {
		conform_lacks("parts");
		return;
	}
	key = conform_loaded(k);
	assert_int_equal(target.p->sign_init(target.ctx, key, &s, &op), 0);
	assert_int_equal(target.p->sign_update(target.ctx, op, (const uint8_t *)"ab", 2), 0);
	assert_int_equal(target.p->sign_update(target.ctx, op, (const uint8_t *)"c", 1), 0);
	assert_int_equal(target.p->sign_final(target.ctx, op, canary_set(&sig, CSM_SIGNATURE_MAX)), 0);
	assert_int_equal(EVP_Digest("abc", 3, digest, NULL, EVP_sha256(), NULL), 1);
	assert_true(conform_verify(k, &s, digest, 32, sig.p, sig.out.len));
	assert_int_equal(target.p->sign_init(target.ctx, key, &s, &op), 0);
	target.p->sign_cleanup(target.ctx, op);
	target.p->unload(target.ctx, key);
}

/* A key does only what it was made for. */
static void uses_are_kept(void **state)
{
	static struct canary out;
	uint8_t in[512] = {2};
	const struct stored *k;
	struct csm_plugin_key *key;

	(void)state;
	if ((k = conform_key(CSM_ALG_P256, CSM_USE_DERIVE)) != NULL) {
		struct csm_scheme s = csm_scheme_default(CSM_ALG_P256);

		key = conform_loaded(k);
		assert_true(conform_refused(
			target.p->sign(target.ctx, key, &s, in, 32, canary_set(&out, CSM_SIGNATURE_MAX))));
		target.p->unload(target.ctx, key);
	}
	if ((k = conform_key(CSM_ALG_P256, CSM_USE_SIGN)) != NULL) {
		key = conform_loaded(k);
		assert_true(
			conform_refused(target.p->derive(target.ctx, key, k->spki, k->spki_len, canary_set(&out, 66))));
		assert_true(canary_whole(&out, true));
		target.p->unload(target.ctx, key);
	}
	if ((k = conform_key(CSM_ALG_RSA2048, CSM_USE_DECRYPT)) != NULL) {
		struct csm_scheme s = csm_scheme_default(CSM_ALG_RSA2048);

		key = conform_loaded(k);
		assert_true(conform_refused(
			target.p->sign(target.ctx, key, &s, in, 32, canary_set(&out, CSM_SIGNATURE_MAX))));
		target.p->unload(target.ctx, key);
	}
	if ((k = conform_key(CSM_ALG_RSA2048, CSM_USE_SIGN)) != NULL) {
		struct csm_scheme s = {CSM_SCHEME_RSA_OAEP, CSM_HASH_SHA256};

		key = conform_loaded(k);
		assert_true(conform_refused(
			target.p->decrypt(target.ctx, key, &s, in, 256, NULL, 0, canary_set(&out, 256))));
		assert_true(canary_whole(&out, true));
		target.p->unload(target.ctx, key);
	}
}

static void derive_once(enum csm_alg alg, const struct stored *k, struct csm_plugin_key *key)
{
	static struct canary shared;
	uint8_t spki[CSM_SPKI_MAX], theirs[66];
	EVP_PKEY *peer = NULL, *ours = conform_public(k);
	size_t n = conform_peer(alg, &peer, spki), len = sizeof(theirs);
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(peer, NULL);

	assert_int_equal(target.p->derive(target.ctx, key, spki, n, canary_set(&shared, 66)), 0);
	assert_true(canary_whole(&shared, false));
	assert_int_equal(EVP_PKEY_derive_init(c), 1);
	assert_int_equal(EVP_PKEY_derive_set_peer(c, ours), 1);
	assert_int_equal(EVP_PKEY_derive(c, theirs, &len), 1);
	assert_int_equal(shared.out.len, len);
	assert_memory_equal(shared.p, theirs, len);
	EVP_PKEY_CTX_free(c);
	EVP_PKEY_free(ours);
	EVP_PKEY_free(peer);
}

/* Off the curve, of other curves and kinds, cut off, the point at infinity. */
static void derive_refused(enum csm_alg alg, struct csm_plugin_key *key)
{
	static struct canary shared;
	uint8_t spki[CSM_SPKI_MAX], bad[CSM_SPKI_MAX];
	EVP_PKEY *peer = NULL;
	size_t n = conform_peer(alg, &peer, spki);

	EVP_PKEY_free(peer);
	for (size_t i = 0; i <= n; i++) { /* i == n: an all-zero point */
		memcpy(bad, spki, n);
		if (i < n)
			bad[i] ^= i % 2 == 0 ? 1 : 0x40;
		else
			memset(bad + n - 64, 0, 64);
		assert_int_equal(target.p->derive(target.ctx, key, bad, n, canary_set(&shared, 66)), CSM_EINVALID);
		assert_true(canary_whole(&shared, true));
	}
	for (size_t i = 0; i < n; i += 7)
		assert_int_equal(target.p->derive(target.ctx, key, spki, i, canary_set(&shared, 66)), CSM_EINVALID);
	for (unsigned other = 0; other < CSM_ALG__COUNT; other++) {
		if (other == alg || csm_alg_is_rsa(other))
			continue;
		n = conform_peer(other, &peer, spki);
		EVP_PKEY_free(peer);
		assert_int_equal(target.p->derive(target.ctx, key, spki, n, canary_set(&shared, 66)), CSM_EINVALID);
	}
}

static void derivation_agrees(void **state)
{
	const struct stored *k;
	struct csm_plugin_key *key;

	(void)state;
	for (unsigned alg = 0; csm_alg_is_ec(alg); alg++) {
		if ((k = conform_key(alg, CSM_USE_DERIVE)) == NULL)
			continue;
		key = conform_loaded(k);
		derive_once(alg, k, key);
		derive_refused(alg, key);
		derive_once(alg, k, key);
		target.p->unload(target.ctx, key);
	}
}

/* OpenSSL's side of OAEP; returns the ciphertext's length. */
static size_t oaep_seal(const struct stored *k, enum csm_hash hash, const char *label, const void *plain, size_t n,
	uint8_t out[static 512])
{
	EVP_PKEY *pkey = conform_public(k);
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(pkey, NULL);
	const EVP_MD *md = EVP_get_digestbyname(csm_hash_name(hash));
	size_t len = 512;

	assert_int_equal(EVP_PKEY_encrypt_init(c), 1);
	assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(c, RSA_PKCS1_OAEP_PADDING), 1);
	assert_int_equal(EVP_PKEY_CTX_set_rsa_oaep_md(c, md), 1);
	assert_int_equal(EVP_PKEY_CTX_set_rsa_mgf1_md(c, md), 1);
	if (label != NULL)
		assert_int_equal(EVP_PKEY_CTX_set0_rsa_oaep_label(c, OPENSSL_strdup(label), (int)strlen(label)), 1);
	assert_int_equal(EVP_PKEY_encrypt(c, out, &len, plain, n), 1);
	EVP_PKEY_CTX_free(c);
	EVP_PKEY_free(pkey);
	return len;
}

static void decrypt_once(const struct stored *k, struct csm_plugin_key *key, enum csm_hash hash, const char *label)
{
	static struct canary plain;
	static const uint8_t text[512] = "attack at dawn";
	struct csm_scheme s = {CSM_SCHEME_RSA_OAEP, hash};
	size_t most = k->spki_len > 500 ? 512 : k->spki_len > 400 ? 384 : 256;
	size_t sizes[] = {0, 1, 32, most - 2 * csm_hash_size(hash) - 2}, n = label != NULL ? strlen(label) : 0;
	uint8_t sealed[512];
	int r;

	for (size_t i = 0; i < N_ELEMS(sizes); i++) {
		size_t len = oaep_seal(k, hash, label, text, sizes[i], sealed);

		r = target.p->decrypt(
			target.ctx, key, &s, sealed, len, (const uint8_t *)label, n, canary_set(&plain, 512));
		if (r == CSM_EUNSUPPORTED && (hash != CSM_HASH_SHA256 || label != NULL))
			return; /* a device may lack other hashes, and labels */
		assert_int_equal(r, 0);
		assert_true(canary_whole(&plain, false));
		assert_int_equal(plain.out.len, sizes[i]);
		assert_memory_equal(plain.p, text, sizes[i]);
	}
	assert_true(conform_refused(target.p->decrypt(
		target.ctx, key, &s, sealed, most, (const uint8_t *)"other", 6, canary_set(&plain, 512))));
	assert_true(canary_whole(&plain, true));
}

static void decrypt_refused(const struct stored *k, struct csm_plugin_key *key)
{
	static struct canary plain;
	struct csm_scheme s = {CSM_SCHEME_RSA_OAEP, CSM_HASH_SHA256}, pss = {CSM_SCHEME_RSA_PSS, CSM_HASH_SHA256};
	uint8_t sealed[512], bad[513];
	size_t len = oaep_seal(k, CSM_HASH_SHA256, NULL, "x", 1, sealed);

	for (size_t i = 0; i < len; i += 17) {
		memcpy(bad, sealed, len);
		bad[i] ^= 4;
		assert_int_equal(target.p->decrypt(target.ctx, key, &s, bad, len, NULL, 0, canary_set(&plain, 512)),
			CSM_EINVALID);
		assert_true(canary_whole(&plain, true));
	}
	memset(bad, 0xff, sizeof(bad)); /* above the modulus */
	assert_int_equal(
		target.p->decrypt(target.ctx, key, &s, bad, len, NULL, 0, canary_set(&plain, 512)), CSM_EINVALID);
	memset(bad, 0, sizeof(bad));
	assert_int_equal(
		target.p->decrypt(target.ctx, key, &s, bad, len, NULL, 0, canary_set(&plain, 512)), CSM_EINVALID);
	for (size_t n = 0; n <= len + 1; n += n < len - 1 ? 15 : 1)
		if (n != len)
			assert_int_equal(
				target.p->decrypt(target.ctx, key, &s, bad, n, NULL, 0, canary_set(&plain, 512)),
				CSM_EINVALID);
	assert_true(conform_refused(
		target.p->decrypt(target.ctx, key, &pss, sealed, len, NULL, 0, canary_set(&plain, 512))));
	assert_true(canary_whole(&plain, true));
}

static void decryption(void **state)
{
	const struct stored *k;
	struct csm_plugin_key *key;

	(void)state;
	for (unsigned alg = CSM_ALG_RSA2048; alg <= CSM_ALG_RSA4096; alg++) {
		if ((k = conform_key(alg, csm_alg_default_use(alg))) == NULL)
			continue;
		key = conform_loaded(k);
		for (enum csm_hash hash = CSM_HASH_SHA256; hash <= CSM_HASH_SHA512; hash++) {
			decrypt_once(k, key, hash, NULL);
			decrypt_once(k, key, hash, "a label");
		}
		if (alg == CSM_ALG_RSA2048)
			decrypt_refused(k, key);
		target.p->unload(target.ctx, key);
	}
	if ((k = signing_key(CSM_ALG_P256)) != NULL) {
		struct csm_scheme s = {CSM_SCHEME_RSA_OAEP, CSM_HASH_SHA256};
		static struct canary plain;

		key = conform_loaded(k);
		assert_true(conform_refused(
			target.p->decrypt(target.ctx, key, &s, k->priv, 256, NULL, 0, canary_set(&plain, 512))));
		target.p->unload(target.ctx, key);
	}
}

/* The same key loaded twice, and many keys at once: each loaded key signs, in any order, after a pause too. */
static void many_loaded_keys(void **state)
{
	const struct stored *k = signing_key(conform_alg()), *other = conform_key(conform_alg(), CSM_USE_SIGN);
	struct csm_plugin_key *loaded[12];

	(void)state;
	if (k == NULL || other == NULL) {
		conform_lacks("p256");
		return;
	}
	for (size_t i = 0; i < N_ELEMS(loaded); i++)
		loaded[i] = conform_loaded(i % 2 == 0 ? k : other);
	for (size_t i = 0; i < N_ELEMS(loaded); i++)
		assert_true(conform_signs(i % 2 == 0 ? k : other, loaded[i]));
	if (target.p->idle != NULL)
		target.p->idle(target.ctx);
	target.p->unload(target.ctx, loaded[0]);
	for (size_t i = N_ELEMS(loaded) - 1; i > 0; i--) {
		assert_true(conform_signs(i % 2 == 0 ? k : other, loaded[i]));
		target.p->unload(target.ctx, loaded[i]);
	}
	target.p->unload(target.ctx, NULL);
}

static void sealing(void **state)
{
	static const size_t sizes[] = {1, 32, 128};
	static struct canary sealed, out;
	uint8_t in[129], bad[CSM_PLUGIN_PRIV_MAX];

	(void)state;
	if (target.p->seal == NULL) {
		conform_lacks("seal");
		return;
	}
	memset(in, 0x33, sizeof(in));
	for (size_t i = 0; i < N_ELEMS(sizes); i++) {
		assert_int_equal(target.p->seal(target.ctx, in, sizes[i], canary_set(&sealed, 2048)), 0);
		assert_true(canary_whole(&sealed, false));
		assert_int_equal(target.p->unseal(target.ctx, sealed.p, sealed.out.len, canary_set(&out, 128)), 0);
		assert_true(canary_whole(&out, false));
		assert_int_equal(out.out.len, sizes[i]);
		assert_memory_equal(out.p, in, sizes[i]);
	}
	for (size_t i = 0; i < sealed.out.len; i += 5) {
		memcpy(bad, sealed.p, sealed.out.len);
		bad[i] ^= 0x10;
		assert_int_not_equal(target.p->unseal(target.ctx, bad, sealed.out.len, canary_set(&out, 128)), 0);
		assert_true(canary_whole(&out, true));
		assert_int_not_equal(target.p->unseal(target.ctx, sealed.p, i, canary_set(&out, 128)), 0);
	}
	assert_int_equal(target.p->unseal(target.ctx, sealed.p, sealed.out.len, canary_set(&out, 127)), CSM_ETOO_LARGE);
	assert_true(canary_whole(&out, true));
	for (size_t i = 0; i < sealed.out.len; i++) /* what is sealed does not hold the data */
		assert_false(i + 32 <= sealed.out.len && memcmp(sealed.p + i, in, 32) == 0);
	assert_int_equal(target.p->seal(target.ctx, in, 128, canary_set(&out, sealed.out.len / 2)), CSM_ETOO_LARGE);
	assert_true(canary_whole(&out, true));
	int r = target.p->seal(target.ctx, in, 129, canary_set(&sealed, 2048));
	assert_true(r == CSM_ETOO_LARGE || r == CSM_EINVALID);
	assert_true(canary_whole(&sealed, true));
}

static void counters_grow(void **state)
{
	uint64_t a = UINT64_MAX, b = 0, c = 0;

	(void)state;
	if (target.p->counter_read == NULL) {
		conform_lacks("counter");
		return;
	}
	assert_int_equal(target.p->counter_read(target.ctx, &a), 0);
	for (int i = 0; i < 3; i++, a = b) {
		assert_int_equal(target.p->counter_increment(target.ctx, &b), 0);
		assert_int_equal(b, a + 1);
		assert_int_equal(target.p->counter_read(target.ctx, &c), 0);
		assert_int_equal(c, b);
	}
	assert_int_equal(conform_reopen(), 0);
	assert_int_equal(target.p->counter_read(target.ctx, &c), 0);
	assert_int_equal(c, b);
}

static void random_differs(void **state)
{
	uint8_t a[1000] = {0}, b[1000] = {0};

	(void)state;
	if (target.p->random == NULL) {
		conform_lacks("random");
		return;
	}
	assert_int_equal(target.p->random(target.ctx, a, sizeof(a) - 1), 0);
	assert_int_equal(target.p->random(target.ctx, b, sizeof(b) - 1), 0);
	assert_int_equal(a[999] | b[999], 0);
	for (size_t i = 0; i + 37 < 999; i += 37) /* each part of both was filled */
		assert_memory_not_equal(a + i, b + i, 16);
	assert_memory_not_equal(a + 983, b + 983, 16);
	assert_int_equal(target.p->random(target.ctx, a, 0), 0);
}

/* What was stored before a restart works after it. */
static void stored_keys_outlive_a_restart(void **state)
{
	static struct canary sealed, out;

	(void)state;
	if (target.p->seal != NULL)
		assert_int_equal(target.p->seal(target.ctx, (const uint8_t *)"root", 4, canary_set(&sealed, 2048)), 0);
	assert_int_equal(conform_reopen(), 0);
	for (unsigned alg = 0; alg < CSM_ALG__COUNT; alg++) {
		const struct stored *k = signing_key(alg);
		struct csm_plugin_key *key;

		if (k == NULL)
			continue;
		key = conform_loaded(k);
		assert_true(conform_signs(k, key));
		target.p->unload(target.ctx, key);
	}
	if (target.p->unseal == NULL)
		return;
	assert_int_equal(target.p->unseal(target.ctx, sealed.p, sealed.out.len, canary_set(&out, 128)), 0);
	assert_int_equal(out.out.len, 4);
	assert_memory_equal(out.p, "root", 4);
}

struct work {
	pthread_t thread;
	const struct stored *k;
	unsigned good;
};
#define ROUNDS 25u

static void *work_run(void *arg)
{
	static _Thread_local struct stored fresh;
	struct work *w = arg;
	struct csm_plugin_key *key = NULL;

	for (unsigned i = 0; i < ROUNDS; i++) {
		if (i % 10 == 0) {
			target.p->unload(target.ctx, key);
			key = NULL;
			if (conform_load(w->k, &key) != 0)
				return NULL;
			if (conform_generate(CSM_ALG_P256, CSM_USE_SIGN, &fresh) != 0)
				break;
		}
		if (conform_signs(w->k, key))
			w->good++;
	}
	target.p->unload(target.ctx, key);
	return NULL;
}

static void threads_with_their_own_keys(void **state)
{
	static const enum csm_alg algs[] = {CSM_ALG_P256, CSM_ALG_P256, CSM_ALG_RSA2048, CSM_ALG_ED25519};
	struct work works[N_ELEMS(algs)] = {0};

	(void)state;
	if ((target.p->flags & CSM_PLUGIN_SERIAL) != 0) {
		conform_lacks("threads");
		return;
	}
	for (size_t i = 0; i < N_ELEMS(algs); i++) {
		if ((works[i].k = signing_key(algs[i])) == NULL)
			works[i].k = signing_key(CSM_ALG_P256);
		assert_non_null(works[i].k);
		assert_int_equal(pthread_create(&works[i].thread, NULL, work_run, &works[i]), 0);
	}
	for (size_t i = 0; i < N_ELEMS(algs); i++)
		assert_int_equal(pthread_join(works[i].thread, NULL), 0);
	for (size_t i = 0; i < N_ELEMS(algs); i++)
		assert_int_equal(works[i].good, ROUNDS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_table_is_whole),
		cmocka_unit_test(health_answers),
		cmocka_unit_test(capabilities_are_honest),
		cmocka_unit_test(impossible_specs_are_refused),
		cmocka_unit_test(public_keys),
		cmocka_unit_test(every_scheme_signs),
		cmocka_unit_test(ed25519_messages),
		cmocka_unit_test(multi_part_signatures),
		cmocka_unit_test(uses_are_kept),
		cmocka_unit_test(derivation_agrees),
		cmocka_unit_test(decryption),
		cmocka_unit_test(many_loaded_keys),
		cmocka_unit_test(sealing),
		cmocka_unit_test(counters_grow),
		cmocka_unit_test(random_differs),
		cmocka_unit_test(stored_keys_outlive_a_restart),
		cmocka_unit_test(threads_with_their_own_keys),
	};

	return conform_run("conformance", tests, N_ELEMS(tests));
}
