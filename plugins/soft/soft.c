/* The soft back end's table: opening, making and loading keys. */
#include <stdlib.h>
#include <openssl/err.h>
#include <openssl/obj_mac.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include "libclient/base/lockmem.h"
#include "plugins/soft/soft.h"
#include "proto-spec/limits.h"

static const struct make {
	const char *type, *group;
	unsigned bits;
} makes[CSM_ALG__COUNT] = {
	[CSM_ALG_P256] = {"EC", "P-256", 0},
	[CSM_ALG_P384] = {"EC", "P-384", 0},
	[CSM_ALG_P521] = {"EC", "P-521", 0},
	[CSM_ALG_RSA2048] = {"RSA", NULL, 2048},
	[CSM_ALG_RSA3072] = {"RSA", NULL, 3072},
	[CSM_ALG_RSA4096] = {"RSA", NULL, 4096},
	[CSM_ALG_ED25519] = {"ED25519", NULL, 0},
};

static int pkey_make(enum csm_alg alg, EVP_PKEY **ret)
{
	const struct make *m = &makes[alg];
	EVP_PKEY_CTX *pctx = EVP_PKEY_CTX_new_from_name(NULL, m->type, NULL);
	int r = CSM_EBACKEND;

	if (pctx != NULL && EVP_PKEY_keygen_init(pctx) == 1 &&
		(m->group == NULL || EVP_PKEY_CTX_set_group_name(pctx, m->group) == 1) &&
		(m->bits == 0 || EVP_PKEY_CTX_set_rsa_keygen_bits(pctx, (int)m->bits) == 1) &&
		EVP_PKEY_generate(pctx, ret) == 1)
		r = 0;
	EVP_PKEY_CTX_free(pctx);
	return r;
}

int soft_spec_check(const struct csm_plugin_keyspec *spec)
{
	/* No message carries a private key of this back end out: exportable is not offered. */
	if ((unsigned)spec->alg >= CSM_ALG__COUNT || spec->exportable)
		return CSM_EUNSUPPORTED;
	return csm_alg_check_use(spec->alg, spec->use);
}

static int soft_generate(struct csm_plugin_ctx *ctx, const struct csm_plugin_keyspec *spec, struct csm_plugin_out *spki,
	struct csm_plugin_out *pub, struct csm_plugin_out *priv)
{
	struct csm_plugin_out spki_made = *spki, priv_made = *priv;
	EVP_PKEY *pkey = NULL;
	int r;

	(void)ctx;
	if ((r = soft_spec_check(spec)) != 0)
		return r;
	if ((r = pkey_make(spec->alg, &pkey)) == 0 && (r = soft_spki_write(spec->alg, pkey, &spki_made)) == 0 &&
		(r = soft_priv_write(spec->alg, pkey, &priv_made)) == 0) {
		*spki = spki_made;
		*priv = priv_made;
		pub->len = 0;
	}
	EVP_PKEY_free(pkey);
	return r != 0 ? soft_failed(r) : 0;
}

static void soft_unload(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key)
{
	(void)ctx;
	if (key == NULL)
		return;
	for (unsigned kind = 0; kind < SOFT_SIGN_KINDS; kind++)
		for (unsigned hash = 0; hash < SOFT_HASHES; hash++)
			EVP_PKEY_CTX_free(key->signer[kind][hash]);
	EVP_MD_CTX_free(key->ed);
	EVP_PKEY_free(key->pkey); /* OpenSSL wipes the private parts */
	free(key);
}

static int soft_load(struct csm_plugin_ctx *ctx, const struct csm_plugin_keyspec *spec,
	const struct csm_plugin_blob *blob, struct csm_plugin_key **ret)
{
	struct csm_plugin_key *key;
	int r;

	if ((r = soft_spec_check(spec)) != 0)
		return r;
	if ((key = calloc(1, sizeof(*key))) == NULL)
		return CSM_ENOMEM;
	key->alg = spec->alg;
	key->use = spec->use;
	if ((r = soft_key_read(ctx, spec->alg, blob, &key->pkey)) != 0) {
		r = soft_failed(r);
		free(key);
		return r;
	}
	*ret = key;
	return 0;
}

static int soft_public_key(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, struct csm_plugin_out *spki)
{
	(void)ctx;
	return soft_spki_write(key->alg, key->pkey, spki);
}

/* One key of each kind through all of its life: what OpenSSL reads, fetches or seeds at first use, it
 * does now, before the broker's sandbox closes. */
static int warm_up_with(struct csm_plugin_ctx *ctx, enum csm_alg alg)
{
	struct csm_plugin_keyspec spec = {.alg = alg, .use = CSM_USE_SIGN};
	struct csm_scheme scheme = csm_scheme_default(alg);
	struct csm_plugin_key *key = NULL;
	uint8_t spki_p[CSM_SPKI_MAX], sig_p[CSM_SIGNATURE_MAX], digest[CSM_DIGEST_MAX] = {0};
	CSM_WIPED(priv_p, CSM_PLUGIN_PRIV_MAX);
	struct csm_plugin_out spki = {spki_p, sizeof(spki_p), 0}, pub = {NULL, 0, 0};
	struct csm_plugin_out priv = {priv_p, sizeof(priv_p), 0}, sig = {sig_p, sizeof(sig_p), 0};
	struct csm_plugin_blob blob = {.spki = spki_p, .priv = priv_p};
	int r;

	if ((r = soft_generate(ctx, &spec, &spki, &pub, &priv)) != 0)
		return r;
	blob.spki_len = spki.len;
	blob.priv_len = priv.len;
	if ((r = soft_load(ctx, &spec, &blob, &key)) != 0)
		return r;
	r = soft_sign(ctx, key, &scheme, digest, csm_hash_size(scheme.hash), &sig);
	soft_unload(ctx, key);
	return r;
}

static void soft_close(struct csm_plugin_ctx *ctx)
{
	if (ctx == NULL)
		return;
	for (unsigned i = 0; i < SOFT_HASHES; i++)
		EVP_MD_free(ctx->md[i]);
	for (unsigned i = 0; i < SOFT_CURVES; i++)
		EC_GROUP_free(ctx->group[i]);
	free(ctx);
}

static int soft_open(const struct csm_plugin_host *host, struct csm_plugin_ctx **ret)
{
	static const int curves[SOFT_CURVES] = {NID_X9_62_prime256v1, NID_secp384r1, NID_secp521r1};
	struct csm_plugin_ctx *ctx = calloc(1, sizeof(*ctx));
	int r = CSM_EBACKEND;

	if (ctx == NULL)
		return CSM_ENOMEM;
	ctx->host = host;
	for (unsigned i = CSM_HASH_SHA256; i < SOFT_HASHES; i++)
		if ((ctx->md[i] = EVP_MD_fetch(NULL, csm_hash_name(i), NULL)) == NULL)
			goto out;
	for (unsigned i = 0; i < SOFT_CURVES; i++)
		if ((ctx->group[i] = EC_GROUP_new_by_curve_name(curves[i])) == NULL)
			goto out;
	if ((r = warm_up_with(ctx, CSM_ALG_P256)) != 0 || (r = warm_up_with(ctx, CSM_ALG_ED25519)) != 0)
		goto out;
	*ret = ctx;
	ctx = NULL;
	r = 0;
out:
	if (r != 0)
		r = soft_failed(r);
	soft_close(ctx);
	return r;
}

static int soft_capabilities(struct csm_plugin_ctx *ctx, struct csm_plugin_caps *ret)
{
	(void)ctx;
	*ret = (struct csm_plugin_caps){
		.algs = (1u << CSM_ALG__COUNT) - 1,
		.uses = CSM_USE_SIGN | CSM_USE_DECRYPT | CSM_USE_DERIVE,
		.protection = "sealed",
	};
	return 0;
}

static void soft_health(struct csm_plugin_ctx *ctx, struct csm_plugin_health *ret)
{
	(void)ctx;
	*ret = (struct csm_plugin_health){.usable = true};
}

static int soft_random(struct csm_plugin_ctx *ctx, uint8_t *p, size_t len)
{
	(void)ctx;
	if (len > INT32_MAX)
		return CSM_ETOO_LARGE;
	if (RAND_bytes(p, (int)len) != 1) {
		ERR_clear_error();
		return CSM_EBACKEND;
	}
	return 0;
}

const struct csm_plugin csm_plugin_soft = {
	.abi = CSM_PLUGIN_ABI,
	.name = "soft",
	.flags = CSM_PLUGIN_INLINE_EC,
	.open = soft_open,
	.close = soft_close,
	.capabilities = soft_capabilities,
	.health = soft_health,
	.generate = soft_generate,
	.storage_key = soft_storage_key,
	.import = soft_import,
	.load = soft_load,
	.unload = soft_unload,
	.public_key = soft_public_key,
	.sign = soft_sign,
	.decrypt = soft_decrypt,
	.derive = soft_derive,
	.random = soft_random,
};
