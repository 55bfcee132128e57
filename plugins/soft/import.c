/* Keys from outside. The storage key that they are wrapped to is a P-256 key of this node: its private half is computed
 * from a secret that hangs on the store's root key, each time anew, and kept nowhere. A wrapped key has the form that a
 * TPM takes, and is opened here. */
#include <string.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include "libclient/base/lockmem.h"
#include "libclient/tpmfmt/dup.h"
#include "libclient/tpmfmt/keyfile.h"
#include "plugins/soft/soft.h"

#define SECRET_LEN 32u
#define STACK_LEFT 16384u /* more than the numbers' functions leave there */

/* Restricted decryption: a storage key. Not fixedTPM: that is what tells it from a TPM's. */
#define STORAGE_ATTRIBUTES \
	(TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA | TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT)

/* 512 bits modulo the order less one, plus one: as good as drawn evenly. */
static int scalar_make(const struct csm_plugin_ctx *ctx, BIGNUM *d, BN_CTX *bn)
{
	const struct csm_plugin_host *host = ctx->host;
	CSM_WIPED(secret, 2 * SECRET_LEN);
	BIGNUM *wide = BN_CTX_get(bn), *most = BN_CTX_get(bn);
	int r;

	if (host == NULL || host->node_secret == NULL)
		return CSM_EUNSUPPORTED;
	if ((r = host->node_secret(host->arg, "storage key 1", secret)) != 0 ||
		(r = host->node_secret(host->arg, "storage key 2", secret + SECRET_LEN)) != 0)
		return r;
	r = CSM_ENOMEM;
	if (most != NULL && BN_bin2bn(secret, sizeof(secret), wide) != NULL &&
		BN_copy(most, EC_GROUP_get0_order(ctx->group[CSM_ALG_P256])) != NULL && BN_sub_word(most, 1) &&
		BN_mod(d, wide, most, bn) && BN_add_word(d, 1))
		r = 0;
	return r;
}

static int pair_make(const EC_GROUP *group, const BIGNUM *d, EVP_PKEY **ret)
{
	EVP_PKEY_CTX *make = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
	OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
	EC_POINT *q = EC_POINT_new(group);
	OSSL_PARAM *par = NULL;
	uint8_t point[65];
	int r = CSM_ENOMEM;

	if (make != NULL && bld != NULL && q != NULL && EC_POINT_mul(group, q, d, NULL, NULL, NULL) == 1 &&
		EC_POINT_point2oct(group, q, POINT_CONVERSION_UNCOMPRESSED, point, sizeof(point), NULL) == sizeof(point) &&
		OSSL_PARAM_BLD_push_utf8_string(bld, OSSL_PKEY_PARAM_GROUP_NAME, "P-256", 0) == 1 &&
		OSSL_PARAM_BLD_push_octet_string(bld, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point)) == 1 &&
		OSSL_PARAM_BLD_push_BN_pad(bld, OSSL_PKEY_PARAM_PRIV_KEY, d, 32) == 1 &&
		(par = OSSL_PARAM_BLD_to_param(bld)) != NULL && EVP_PKEY_fromdata_init(make) == 1 &&
		EVP_PKEY_fromdata(make, ret, EVP_PKEY_KEYPAIR, par) == 1)
		r = 0;
	OSSL_PARAM_free(par);
	EC_POINT_free(q);
	OSSL_PARAM_BLD_free(bld);
	EVP_PKEY_CTX_free(make);
	return r;
}

static int storage_make(const struct csm_plugin_ctx *ctx, EVP_PKEY **ret)
{
	BN_CTX *bn = BN_CTX_secure_new();
	BIGNUM *d;
	int r = CSM_ENOMEM;

	if (bn == NULL)
		return r;
	BN_CTX_start(bn);
	if ((d = BN_CTX_get(bn)) != NULL) {
		BN_set_flags(d, BN_FLG_CONSTTIME);
		if ((r = scalar_make(ctx, d, bn)) == 0)
			r = pair_make(ctx->group[CSM_ALG_P256], d, ret);
		BN_clear(d);
	}
	BN_CTX_end(bn);
	BN_CTX_free(bn);
	return r;
}

static int storage_public(EVP_PKEY *pkey, TPMT_PUBLIC *pub)
{
	TPMT_SYM_DEF_OBJECT *sym = &pub->parameters.eccDetail.symmetric;
	int r = csm_tpm_public_of(pkey, pub);

	if (r != 0)
		return r;
	pub->objectAttributes = STORAGE_ATTRIBUTES;
	sym->algorithm = TPM2_ALG_AES;
	sym->keyBits.aes = 128;
	sym->mode.aes = TPM2_ALG_CFB;
	return 0;
}

int soft_storage_key(struct csm_plugin_ctx *ctx, struct csm_plugin_out *pub)
{
	EVP_PKEY *pkey = NULL;
	struct csm_buf form;
	TPMT_PUBLIC area;
	int r = storage_make(ctx, &pkey);

	csm_wipe_stack(STACK_LEFT);
	if (r != 0)
		return soft_failed(r);
	csm_buf_init(&form, CSM_PLUGIN_STORAGE_MAX, false);
	if ((r = storage_public(pkey, &area)) == 0 && (r = csm_tpm_public_put(&area, &form)) == 0)
		r = soft_out(pub, csm_buf_ptr(&form), form.len);
	csm_buf_free(&form);
	EVP_PKEY_free(pkey);
	return r != 0 ? soft_failed(r) : 0;
}

/* The key in a wrapped one that is for this storage key. */
static int open_wrapped(EVP_PKEY *storage, const struct csm_wrapped *w, EVP_PKEY **ret)
{
	struct csm_buf sensitive;
	TPM2B_NAME own, name;
	TPMT_PUBLIC area;
	int r;

	if ((r = storage_public(storage, &area)) != 0 || (r = csm_tpm_name(&area, &own)) != 0 ||
		(r = csm_tpm_name(&w->pub, &name)) != 0)
		return r;
	if (w->storage.n != own.size || memcmp(w->storage.p, own.name, own.size) != 0)
		return CSM_EINVALID;
	csm_buf_init(&sensitive, CSM_TPM_SENSITIVE_MAX, true);
	if ((r = csm_tpm_unwrap(storage, &name, w->seed, w->duplicate, &sensitive)) == 0)
		r = csm_tpm_sensitive_get((struct csm_bin){csm_buf_ptr(&sensitive), sensitive.len}, &w->pub, ret);
	csm_buf_free(&sensitive);
	return r;
}

/* To the stored form, and proven to be read from it again. */
static int store_key(const struct csm_plugin_ctx *ctx, enum csm_alg alg, EVP_PKEY *pkey, struct csm_plugin_out *spki,
	struct csm_plugin_out *priv)
{
	struct csm_plugin_blob blob = {.spki = spki->p, .priv = priv->p};
	EVP_PKEY *again = NULL;
	int r;

	if ((r = soft_spki_write(alg, pkey, spki)) != 0 || (r = soft_priv_write(alg, pkey, priv)) != 0)
		return r;
	blob.spki_len = spki->len;
	blob.priv_len = priv->len;
	r = soft_key_read(ctx, alg, &blob, &again);
	EVP_PKEY_free(again);
	return r == CSM_ETAMPERED ? CSM_EINVALID : r;
}

int soft_import(struct csm_plugin_ctx *ctx, const struct csm_plugin_keyspec *spec, const uint8_t *wrapped,
	size_t wrapped_len, struct csm_plugin_out *spki, struct csm_plugin_out *pub, struct csm_plugin_out *priv)
{
	struct csm_plugin_out spki_made = *spki, priv_made = *priv;
	EVP_PKEY *storage = NULL, *pkey = NULL;
	struct csm_wrapped w;
	int r;

	if ((r = soft_spec_check(spec)) != 0 ||
		(r = csm_wrapped_get((struct csm_bin){wrapped, wrapped_len}, &w)) != 0)
		return r;
	if ((r = storage_make(ctx, &storage)) == 0 && (r = open_wrapped(storage, &w, &pkey)) == 0 &&
		(r = store_key(ctx, spec->alg, pkey, &spki_made, &priv_made)) == 0) {
		*spki = spki_made;
		*priv = priv_made;
		pub->len = 0;
	}
	EVP_PKEY_free(pkey);
	EVP_PKEY_free(storage);
	csm_wipe_stack(STACK_LEFT);
	return r != 0 ? soft_failed(r) : 0;
}
