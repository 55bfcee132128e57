/* What every back end must refuse: damaged stored keys, and outputs that do not fit. */
#include <string.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include "tests/lib/conform.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

/* One of each family; the sizes of a family share their code. */
static const enum csm_alg families[] = {CSM_ALG_P256, CSM_ALG_P384, CSM_ALG_RSA2048, CSM_ALG_ED25519};

/* Every byte where a load is quick, some where a device does it. */
static size_t stride(size_t len)
{
	if ((target.p->flags & CSM_PLUGIN_SERIAL) == 0)
		return 1;
	return len / 40 + 1;
}

/* The three parts of a stored key, one at a time. */
static uint8_t *part(struct stored *k, unsigned which, size_t **len)
{
	uint8_t *const parts[] = {k->spki, k->pub, k->priv};
	size_t *const lens[] = {&k->spki_len, &k->pub_len, &k->priv_len};

	*len = lens[which];
	return parts[which];
}
static const char *const part_names[] = {"spki", "pub", "priv"};

/* A device may leave the proof of what it wrapped itself to the first use: then that fails, or, where the
 * change meant nothing, it is the same key that signs. */
static bool refused_in_use(const struct stored *bad, struct csm_plugin_key *key)
{
	struct csm_scheme s = csm_scheme_default(bad->spec.alg);
	size_t n = s.hash != CSM_HASH_NONE ? csm_hash_size(s.hash) : 20;
	static struct canary sig;
	uint8_t in[CSM_DIGEST_MAX] = {4};
	int r = target.p->sign(target.ctx, key, &s, in, n, canary_set(&sig, CSM_SIGNATURE_MAX));

	if (r != 0)
		return !csm_err_retryable(r);
	return conform_verify(bad, &s, in, n, sig.p, sig.out.len);
}

static void refuse(const struct stored *bad, unsigned which, size_t at, const char *what)
{
	struct csm_plugin_key *const unset = (struct csm_plugin_key *)(uintptr_t)1;
	struct csm_plugin_key *key = unset;
	int r = conform_load(bad, &key);
	bool ok = r != 0 && !csm_err_retryable(r) && key == unset;

	if (r == 0) {
		ok = (target.p->flags & CSM_PLUGIN_SERIAL) != 0 && which != 0 && refused_in_use(bad, key);
		target.p->unload(target.ctx, key);
	}
	if (!ok)
		fail_msg("%s, %s: %s at %zu: %s", csm_alg_name(bad->spec.alg), part_names[which], what, at,
			r == 0 ? "was loaded" : csm_err_name(r));
}

static void still_good(const struct stored *k)
{
	struct csm_plugin_key *key = conform_loaded(k);

	assert_true(conform_signs(k, key));
	target.p->unload(target.ctx, key);
}

static const struct stored *family_key(size_t i)
{
	return conform_key(families[i], csm_alg_default_use(families[i]) & target.caps.uses);
}

static void flipped_bytes(void **state)
{
	static struct stored bad;

	(void)state;
	for (size_t i = 0; i < N_ELEMS(families); i++) {
		const struct stored *k = family_key(i);

		for (unsigned which = 0; k != NULL && which < 3; which++) {
			size_t *len;
			uint8_t *p = part(&bad, which, &len);

			bad = *k;
			for (size_t at = 0; at < *len; at += stride(*len)) {
				p[at] ^= (uint8_t)(1u << at % 8);
				refuse(&bad, which, at, "a flipped bit");
				p[at] ^= (uint8_t)(1u << at % 8);
			}
		}
		if (k != NULL)
			still_good(k);
	}
}

static void cut_off_and_longer(void **state)
{
	static struct stored bad;

	(void)state;
	for (size_t i = 0; i < N_ELEMS(families); i++) {
		const struct stored *k = family_key(i);

		for (unsigned which = 0; k != NULL && which < 3; which++) {
			size_t *len, whole;
			uint8_t *p = part(&bad, which, &len);

			bad = *k;
			if ((whole = *len) == 0) {
				*len = 1; /* bytes where there are none */
				p[0] = 0;
				refuse(&bad, which, 0, "a byte too much");
				continue;
			}
			for (*len = 0; *len < whole; *len += stride(whole))
				refuse(&bad, which, *len, "a cut");
			*len = whole + 1;
			p[whole] = 0;
			refuse(&bad, which, whole, "a byte too much");
		}
		if (k != NULL)
			still_good(k);
	}
}

/* Parts that are whole, but of another key, another algorithm, or nothing at all. */
static void parts_of_other_keys(void **state)
{
	static struct stored a, b, bad;

	(void)state;
	assert_int_equal(conform_generate(conform_alg(), CSM_USE_SIGN, &a), 0);
	assert_int_equal(conform_generate(conform_alg(), CSM_USE_SIGN, &b), 0);
	for (unsigned which = 0; which < 3; which++) {
		size_t *from_len, *to_len;
		uint8_t *from = part(&b, which, &from_len), *to = part(&bad, which, &to_len);

		bad = a;
		if (*from_len == *to_len && memcmp(from, to, *from_len) == 0)
			continue; /* nothing of the key's own in it */
		memcpy(to, from, *from_len);
		*to_len = *from_len;
		refuse(&bad, which, 0, "another key's");
		memset(to, 0, *to_len);
		refuse(&bad, which, 0, "zeros");
		memset(to, 0xff, *to_len);
		refuse(&bad, which, 0, "all ones");
	}
	for (unsigned alg = 0; alg < CSM_ALG__COUNT; alg++) {
		bad = a;
		bad.spec.alg = alg;
		if (alg != conform_alg())
			refuse(&bad, 0, alg, "another algorithm");
	}
	bad = a;
	bad.spec.alg = CSM_ALG__COUNT;
	refuse(&bad, 0, CSM_ALG__COUNT, "no algorithm");
	still_good(&a);
	still_good(&b);
}

/* A stored key whose sizes are the largest that the store holds. */
static void largest_blobs(void **state)
{
	static struct stored bad;

	(void)state;
	for (size_t i = 0; i < N_ELEMS(families); i++)
		for (unsigned fill = 0; fill < 256; fill += 51) {
			memset(&bad, (int)fill, sizeof(bad));
			bad.spec = (struct csm_plugin_keyspec){.alg = families[i], .use = CSM_USE_SIGN};
			bad.spki_len = sizeof(bad.spki);
			bad.pub_len = sizeof(bad.pub);
			bad.priv_len = sizeof(bad.priv);
			refuse(&bad, 2, 0, "noise");
		}
}

/* ---- outputs that do not fit ---- */

static void too_large(int r, const struct canary *c)
{
	assert_int_equal(r, CSM_ETOO_LARGE);
	assert_true(canary_whole(c, true));
}

static void generate_outputs(void **state)
{
	static struct canary spki, pub, priv;
	const struct stored *k = conform_key(CSM_ALG_P256, CSM_USE_SIGN);

	(void)state;
	if (k == NULL) {
		conform_lacks("generate");
		return;
	}
	for (unsigned which = 0; which < 3; which++) {
		const size_t len[3] = {k->spki_len, k->pub_len, k->priv_len};
		size_t caps[] = {0, 1, len[which] / 2};

		for (size_t i = 0; len[which] > 0 && i < N_ELEMS(caps); i++) {
			canary_set(&spki, which == 0 ? caps[i] : CSM_SPKI_MAX);
			canary_set(&pub, which == 1 ? caps[i] : CSM_PLUGIN_PUB_MAX);
			canary_set(&priv, which == 2 ? caps[i] : CSM_PLUGIN_PRIV_MAX);
			assert_int_equal(target.p->generate(target.ctx, &k->spec, &spki.out, &pub.out, &priv.out),
				CSM_ETOO_LARGE);
			assert_true(canary_whole(&spki, true) && canary_whole(&pub, true) && canary_whole(&priv, true));
		}
	}
}

static void public_key_and_signature_outputs(void **state)
{
	static struct canary c;
	uint8_t in[CSM_DIGEST_MAX] = {9};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(families); i++) {
		const struct stored *k = family_key(i);
		struct csm_scheme s = csm_scheme_default(families[i]);
		size_t n = s.hash != CSM_HASH_NONE ? csm_hash_size(s.hash) : 5;
		struct csm_plugin_key *key;

		if (k == NULL)
			continue;
		key = conform_loaded(k);
		too_large(target.p->public_key(target.ctx, key, canary_set(&c, 0)), &c);
		too_large(target.p->public_key(target.ctx, key, canary_set(&c, k->spki_len - 1)), &c);
		assert_int_equal(target.p->public_key(target.ctx, key, canary_set(&c, k->spki_len)), 0);
		assert_true(canary_whole(&c, false));
		too_large(target.p->sign(target.ctx, key, &s, in, n, canary_set(&c, 0)), &c);
		too_large(target.p->sign(target.ctx, key, &s, in, n, canary_set(&c, 32)), &c);
		too_large(target.p->sign(
				  target.ctx, key, &s, in, n, canary_set(&c, csm_alg_is_rsa(families[i]) ? 255 : 63)),
			&c);
		assert_true(conform_signs(k, key));
		target.p->unload(target.ctx, key);
	}
}

static void derive_outputs(void **state)
{
	static struct canary c;
	const struct stored *k = conform_key(CSM_ALG_P256, CSM_USE_DERIVE);
	struct csm_plugin_key *key;
	uint8_t spki[CSM_SPKI_MAX];
	EVP_PKEY *peer;
	size_t n;

	(void)state;
	if (k == NULL) {
		conform_lacks("derive");
		return;
	}
	key = conform_loaded(k);
	n = conform_peer(CSM_ALG_P256, &peer, spki);
	too_large(target.p->derive(target.ctx, key, spki, n, canary_set(&c, 0)), &c);
	too_large(target.p->derive(target.ctx, key, spki, n, canary_set(&c, 31)), &c);
	assert_int_equal(target.p->derive(target.ctx, key, spki, n, canary_set(&c, 32)), 0);
	assert_true(canary_whole(&c, false));
	EVP_PKEY_free(peer);
	target.p->unload(target.ctx, key);
}

static void decrypt_outputs(void **state)
{
	static struct canary c;
	const struct stored *k = conform_key(CSM_ALG_RSA2048, csm_alg_default_use(CSM_ALG_RSA2048));
	struct csm_scheme s = {CSM_SCHEME_RSA_OAEP, CSM_HASH_SHA256};
	struct csm_plugin_key *key;
	uint8_t sealed[256];
	size_t n = sizeof(sealed);
	EVP_PKEY *pkey;
	EVP_PKEY_CTX *pctx;

	(void)state;
	if (k == NULL) {
		conform_lacks("decrypt");
		return;
	}
	key = conform_loaded(k);
	pkey = conform_public(k);
	pctx = EVP_PKEY_CTX_new(pkey, NULL);
	assert_int_equal(EVP_PKEY_encrypt_init(pctx), 1);
	assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_OAEP_PADDING), 1);
	assert_int_equal(EVP_PKEY_CTX_set_rsa_oaep_md(pctx, EVP_sha256()), 1);
	assert_int_equal(EVP_PKEY_encrypt(pctx, sealed, &n, (const uint8_t *)"sixteen bytes...", 16), 1);
	too_large(target.p->decrypt(target.ctx, key, &s, sealed, n, NULL, 0, canary_set(&c, 0)), &c);
	too_large(target.p->decrypt(target.ctx, key, &s, sealed, n, NULL, 0, canary_set(&c, 15)), &c);
	assert_int_equal(target.p->decrypt(target.ctx, key, &s, sealed, n, NULL, 0, canary_set(&c, 16)), 0);
	assert_true(canary_whole(&c, false));
	assert_memory_equal(c.p, "sixteen bytes...", 16);
	EVP_PKEY_CTX_free(pctx);
	EVP_PKEY_free(pkey);
	target.p->unload(target.ctx, key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(flipped_bytes),
		cmocka_unit_test(cut_off_and_longer),
		cmocka_unit_test(parts_of_other_keys),
		cmocka_unit_test(largest_blobs),
		cmocka_unit_test(generate_outputs),
		cmocka_unit_test(public_key_and_signature_outputs),
		cmocka_unit_test(derive_outputs),
		cmocka_unit_test(decrypt_outputs),
	};

	return conform_run("damage", tests, N_ELEMS(tests));
}
