/* What is particular to the soft back end; what every back end must do is in tests/conformance. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include "plugins/include/csm_alg.h"
#include "proto-spec/limits.h"

static const struct csm_plugin *const soft = &csm_plugin_soft;
static const struct csm_plugin_host host;
static struct csm_plugin_ctx *ctx;

struct stored {
	struct csm_plugin_keyspec spec;
	uint8_t spki[CSM_SPKI_MAX], priv[CSM_PLUGIN_PRIV_MAX];
	size_t spki_len, priv_len;
};

static int setup(void **state)
{
	(void)state;
	return soft->open(&host, &ctx);
}

static int teardown(void **state)
{
	(void)state;
	soft->close(ctx);
	return 0;
}

static void make(enum csm_alg alg, struct stored *k)
{
	struct csm_plugin_out spki = {k->spki, sizeof(k->spki), 0}, pub = {NULL, 0, 0};
	struct csm_plugin_out priv = {k->priv, sizeof(k->priv), 0};

	k->spec = (struct csm_plugin_keyspec){.alg = alg, .use = csm_alg_default_use(alg)};
	assert_int_equal(soft->generate(ctx, &k->spec, &spki, &pub, &priv), 0);
	assert_int_equal(pub.len, 0);
	k->spki_len = spki.len;
	k->priv_len = priv.len;
}

static int load(const struct stored *k, struct csm_plugin_key **ret)
{
	struct csm_plugin_blob blob = {
		.spki = k->spki, .spki_len = k->spki_len, .priv = k->priv, .priv_len = k->priv_len};

	return soft->load(ctx, &k->spec, &blob, ret);
}

/* The private form is the one that OpenSSL writes for the same key, byte for byte. */
static void forms_are_openssl_s(void **state)
{
	static struct stored k;

	(void)state;
	for (unsigned alg = 0; alg < CSM_ALG__COUNT; alg++) {
		const uint8_t *at = k.priv;
		uint8_t *der = NULL, *spki = NULL;
		PKCS8_PRIV_KEY_INFO *info;
		EVP_PKEY *pkey;
		int n;

		if (alg == CSM_ALG_RSA3072 || alg == CSM_ALG_RSA4096)
			continue; /* as RSA2048, and slow to make */
		make(alg, &k);
		pkey = d2i_AutoPrivateKey(NULL, &at, (long)k.priv_len);
		assert_non_null(pkey);
		assert_ptr_equal(at, k.priv + k.priv_len);
		assert_non_null(info = EVP_PKEY2PKCS8(pkey));
		n = i2d_PKCS8_PRIV_KEY_INFO(info, &der);
		assert_int_equal(n, k.priv_len);
		assert_memory_equal(der, k.priv, k.priv_len);
		n = i2d_PUBKEY(pkey, &spki);
		assert_int_equal(n, k.spki_len);
		assert_memory_equal(spki, k.spki, k.spki_len);
		OPENSSL_free(der);
		OPENSSL_free(spki);
		PKCS8_PRIV_KEY_INFO_free(info);
		EVP_PKEY_free(pkey);
	}
}

/* A key with one private part changed, in a blob that is well formed. */
static void store_changed(struct stored *k, EVP_PKEY *pkey, const char *part)
{
	OSSL_PARAM *params = NULL;
	EVP_PKEY *changed = NULL;
	EVP_PKEY_CTX *pctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
	PKCS8_PRIV_KEY_INFO *info;
	uint8_t *der = NULL;
	OSSL_PARAM *p;
	int n;

	assert_int_equal(EVP_PKEY_todata(pkey, EVP_PKEY_KEYPAIR, &params), 1);
	assert_non_null(p = OSSL_PARAM_locate(params, part));
	((uint8_t *)p->data)[1] ^= 2; /* stays odd, about as large */
	assert_int_equal(EVP_PKEY_fromdata_init(pctx), 1);
	assert_int_equal(EVP_PKEY_fromdata(pctx, &changed, EVP_PKEY_KEYPAIR, params), 1);
	assert_non_null(info = EVP_PKEY2PKCS8(changed));
	n = i2d_PKCS8_PRIV_KEY_INFO(info, &der);
	assert_in_range(n, 1, sizeof(k->priv));
	memcpy(k->priv, der, (size_t)n);
	k->priv_len = (size_t)n;
	OPENSSL_free(der);
	PKCS8_PRIV_KEY_INFO_free(info);
	EVP_PKEY_free(changed);
	EVP_PKEY_CTX_free(pctx);
	OSSL_PARAM_free(params);
}

static void rsa_parts_must_agree(void **state)
{
	static const char *const parts[] = {
		OSSL_PKEY_PARAM_RSA_D,
		OSSL_PKEY_PARAM_RSA_FACTOR1,
		OSSL_PKEY_PARAM_RSA_FACTOR2,
		OSSL_PKEY_PARAM_RSA_EXPONENT1,
		OSSL_PKEY_PARAM_RSA_EXPONENT2,
		OSSL_PKEY_PARAM_RSA_COEFFICIENT1,
	};
	static struct stored good, bad;
	struct csm_plugin_key *key = NULL;
	const uint8_t *at = good.priv;
	EVP_PKEY *pkey;

	(void)state;
	make(CSM_ALG_RSA2048, &good);
	assert_non_null(pkey = d2i_AutoPrivateKey(NULL, &at, (long)good.priv_len));
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		bad = good;
		store_changed(&bad, pkey, parts[i]);
		assert_int_equal(load(&bad, &key), CSM_ETAMPERED);
		assert_null(key);
	}
	EVP_PKEY_free(pkey);
	assert_int_equal(load(&good, &key), 0);
	soft->unload(ctx, key);
}

/* Two whole keys: the private half of one does not pass for the other's. */
static void halves_of_two_keys(void **state)
{
	static struct stored a, b;
	struct csm_plugin_key *key = NULL;

	(void)state;
	for (unsigned alg = 0; alg < CSM_ALG__COUNT; alg++) {
		if (alg == CSM_ALG_RSA3072 || alg == CSM_ALG_RSA4096)
			continue;
		make(alg, &a);
		make(alg, &b);
		memcpy(a.priv, b.priv, b.priv_len);
		a.priv_len = b.priv_len;
		assert_int_equal(load(&a, &key), CSM_ETAMPERED);
		assert_null(key);
		assert_int_equal(load(&b, &key), 0);
		soft->unload(ctx, key);
		key = NULL;
		b.spec.alg = (alg + 1) % CSM_ALG__COUNT;
		b.spec.use = CSM_USE_SIGN;
		assert_int_equal(load(&b, &key), CSM_ETAMPERED);
	}
}

/* A scalar of zero, or the curve's order, with a point that would match another scalar. */
static void scalars_out_of_range(void **state)
{
	static struct stored k;
	struct csm_plugin_key *key = NULL;

	(void)state;
	make(CSM_ALG_P256, &k);
	memset(k.priv + 36, 0, 32);
	assert_int_equal(load(&k, &key), CSM_ETAMPERED);
	memset(k.priv + 36, 0xff, 32);
	assert_int_equal(load(&k, &key), CSM_ETAMPERED);
	assert_null(key);
}

static void exportable_is_refused(void **state)
{
	static struct stored k;
	struct csm_plugin_out spki = {k.spki, sizeof(k.spki), 0}, pub = {NULL, 0, 0};
	struct csm_plugin_out priv = {k.priv, sizeof(k.priv), 0};
	struct csm_plugin_keyspec spec = {.alg = CSM_ALG_P256, .use = CSM_USE_SIGN, .exportable = true};

	(void)state;
	assert_int_equal(soft->generate(ctx, &spec, &spki, &pub, &priv), CSM_EUNSUPPORTED);
	spec = (struct csm_plugin_keyspec){.alg = CSM_ALG__COUNT, .use = CSM_USE_SIGN};
	assert_int_equal(soft->generate(ctx, &spec, &spki, &pub, &priv), CSM_EUNSUPPORTED);
	spec = (struct csm_plugin_keyspec){.alg = CSM_ALG_ED25519, .use = CSM_USE_DERIVE};
	assert_int_equal(soft->generate(ctx, &spec, &spki, &pub, &priv), CSM_EINVALID);
}

/* Peers must name their curve: the same point under explicit parameters, compressed, or with bytes left
 * over is refused. */
static void peers_in_other_forms(void **state)
{
	static struct stored k;
	struct csm_plugin_key *key = NULL;
	uint8_t shared_p[66], peer[512];
	struct csm_plugin_out shared = {shared_p, sizeof(shared_p), 0};
	const uint8_t *at = k.spki;
	uint8_t *der = NULL;
	EVP_PKEY *other;
	int n;

	(void)state;
	make(CSM_ALG_P256, &k);
	assert_non_null(other = d2i_PUBKEY(NULL, &at, (long)k.spki_len));
	k.spec.use = CSM_USE_DERIVE;
	assert_int_equal(load(&k, &key), 0);
	assert_int_equal(soft->derive(ctx, key, k.spki, k.spki_len, &shared), 0);
	assert_int_equal(shared.len, 32);
	memcpy(peer, k.spki, k.spki_len);
	assert_int_equal(soft->derive(ctx, key, peer, k.spki_len + 1, &shared), CSM_EINVALID);
	assert_int_equal(EVP_PKEY_set_utf8_string_param(other, OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT,
				 OSSL_PKEY_EC_POINT_CONVERSION_FORMAT_COMPRESSED),
		1);
	n = i2d_PUBKEY(other, &der);
	assert_int_equal(n, 59);
	assert_int_equal(soft->derive(ctx, key, der, (size_t)n, &shared), CSM_EINVALID);
	OPENSSL_free(der);
	der = NULL;
	assert_int_equal(
		EVP_PKEY_set_utf8_string_param(other, OSSL_PKEY_PARAM_EC_ENCODING, OSSL_PKEY_EC_ENCODING_EXPLICIT), 1);
	n = i2d_PUBKEY(other, &der);
	assert_in_range(n, 200, 512);
	assert_int_equal(soft->derive(ctx, key, der, (size_t)n, &shared), CSM_EINVALID);
	OPENSSL_free(der);
	EVP_PKEY_free(other);
	soft->unload(ctx, key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forms_are_openssl_s),
		cmocka_unit_test(rsa_parts_must_agree),
		cmocka_unit_test(halves_of_two_keys),
		cmocka_unit_test(scalars_out_of_range),
		cmocka_unit_test(exportable_is_refused),
		cmocka_unit_test(peers_in_other_forms),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
