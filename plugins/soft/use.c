/* Using a loaded key. Results are made in memory of this side and copied out when they fit. */
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
#include "libclient/base/lockmem.h"
#include "plugins/soft/soft.h"
#include "proto-spec/limits.h"

#define RSA_BYTES_MAX 512u
#define FIELD_MAX 66u

int soft_failed(int r)
{
	bool no_memory = false;
	unsigned long e;

	while ((e = ERR_get_error()) != 0)
		no_memory = no_memory || ERR_GET_REASON(e) == ERR_R_MALLOC_FAILURE;
	return no_memory ? CSM_ENOMEM : r;
}

static bool rsa_padding(EVP_PKEY_CTX *pctx, const EVP_MD *md, enum csm_scheme_kind kind)
{
	if (kind == CSM_SCHEME_ECDSA)
		return true;
	if (kind == CSM_SCHEME_RSA_PKCS1)
		return EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PADDING) == 1;
	return EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PSS_PADDING) == 1 &&
		EVP_PKEY_CTX_set_rsa_mgf1_md(pctx, md) == 1 &&
		EVP_PKEY_CTX_set_rsa_pss_saltlen(pctx, RSA_PSS_SALTLEN_DIGEST) == 1;
}

/* The key's signer for a scheme: made once, 10 % of a P-256 signature. */
static int signer_get(const struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct csm_scheme *scheme,
	EVP_PKEY_CTX **ret)
{
	EVP_PKEY_CTX **slot = &key->signer[scheme->kind][scheme->hash];
	EVP_PKEY_CTX *pctx;

	if (*slot == NULL) {
		if ((pctx = EVP_PKEY_CTX_new_from_pkey(NULL, key->pkey, NULL)) == NULL ||
			EVP_PKEY_sign_init(pctx) != 1 ||
			EVP_PKEY_CTX_set_signature_md(pctx, ctx->md[scheme->hash]) != 1 ||
			!rsa_padding(pctx, ctx->md[scheme->hash], scheme->kind)) {
			EVP_PKEY_CTX_free(pctx);
			return CSM_EBACKEND;
		}
		*slot = pctx;
	}
	*ret = *slot;
	return 0;
}

static int ed_sign(struct csm_plugin_key *key, const uint8_t *in, size_t in_len, uint8_t *sig, size_t *sig_len)
{
	if (key->ed == NULL && (key->ed = EVP_MD_CTX_new()) == NULL)
		return CSM_EBACKEND;
	if (EVP_DigestSignInit_ex(key->ed, NULL, NULL, NULL, NULL, key->pkey, NULL) != 1 ||
		EVP_DigestSign(key->ed, sig, sig_len, in_len != 0 ? in : (const uint8_t *)"", in_len) != 1)
		return CSM_EBACKEND;
	return 0;
}

int soft_sign(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct csm_scheme *scheme,
	const uint8_t *in, size_t in_len, struct csm_plugin_out *sig)
{
	uint8_t made[CSM_SIGNATURE_MAX];
	size_t n = sizeof(made);
	EVP_PKEY_CTX *pctx;
	int r = CSM_EBACKEND;

	if ((key->use & CSM_USE_SIGN) == 0 || csm_scheme_check(key->alg, scheme) != 0 ||
		scheme->kind == CSM_SCHEME_RSA_OAEP)
		return CSM_EUNSUPPORTED;
	if (scheme->kind == CSM_SCHEME_ED25519) {
		r = ed_sign(key, in, in_len, made, &n);
	} else {
		if (in_len != csm_hash_size(scheme->hash))
			return CSM_EINVALID;
		if ((r = signer_get(ctx, key, scheme, &pctx)) == 0 && EVP_PKEY_sign(pctx, made, &n, in, in_len) != 1)
			r = CSM_EBACKEND;
	}
	/* Without memory for the encoding OpenSSL 3.0 tells success, and -1 as the length. */
	if (r == 0 && n > sizeof(made))
		r = CSM_EBACKEND;
	if (r != 0)
		return soft_failed(r);
	return soft_out(sig, made, n);
}

/* CSM_EINVALID only where the ciphertext does not open. */
static int oaep_open(EVP_PKEY_CTX *pctx, const EVP_MD *md, const uint8_t *in, size_t in_len, const uint8_t *label,
	size_t label_len, uint8_t *plain, size_t *n)
{
	uint8_t *own;

	if (EVP_PKEY_decrypt_init(pctx) != 1 || EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_OAEP_PADDING) != 1 ||
		EVP_PKEY_CTX_set_rsa_oaep_md(pctx, md) != 1 || EVP_PKEY_CTX_set_rsa_mgf1_md(pctx, md) != 1)
		return CSM_EBACKEND;
	if (label_len > 0) {
		if ((own = OPENSSL_memdup(label, label_len)) == NULL)
			return CSM_EBACKEND;
		if (EVP_PKEY_CTX_set0_rsa_oaep_label(pctx, own, (int)label_len) != 1) {
			OPENSSL_free(own);
			return CSM_EBACKEND;
		}
	}
	return EVP_PKEY_decrypt(pctx, plain, n, in, in_len) == 1 ? 0 : CSM_EINVALID;
}

int soft_decrypt(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct csm_scheme *scheme,
	const uint8_t *in, size_t in_len, const uint8_t *label, size_t label_len, struct csm_plugin_out *plain)
{
	EVP_PKEY_CTX *pctx;
	CSM_WIPED(made, RSA_BYTES_MAX);
	size_t n = sizeof(made);
	int r = CSM_EBACKEND;

	if ((key->use & CSM_USE_DECRYPT) == 0 || csm_scheme_check(key->alg, scheme) != 0 ||
		scheme->kind != CSM_SCHEME_RSA_OAEP)
		return CSM_EUNSUPPORTED;
	if (in_len != (size_t)EVP_PKEY_get_size(key->pkey) || label_len > INT32_MAX)
		return CSM_EINVALID;
	if ((pctx = EVP_PKEY_CTX_new_from_pkey(NULL, key->pkey, NULL)) != NULL)
		r = oaep_open(pctx, ctx->md[scheme->hash], in, in_len, label, label_len, made, &n);
	EVP_PKEY_CTX_free(pctx);
	if (r != 0)
		return soft_failed(r);
	return soft_out(plain, made, n);
}

int soft_derive(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const uint8_t *peer, size_t peer_len,
	struct csm_plugin_out *shared)
{
	EVP_PKEY *other = NULL;
	EVP_PKEY_CTX *pctx = NULL;
	CSM_WIPED(made, FIELD_MAX);
	size_t n = sizeof(made);
	int r;

	(void)ctx;
	if ((key->use & CSM_USE_DERIVE) == 0)
		return CSM_EUNSUPPORTED;
	if ((r = soft_peer_read(key->alg, peer, peer_len, &other)) != 0)
		goto out;
	r = CSM_EBACKEND;
	if ((pctx = EVP_PKEY_CTX_new_from_pkey(NULL, key->pkey, NULL)) == NULL || EVP_PKEY_derive_init(pctx) != 1)
		goto out;
	if (EVP_PKEY_derive_set_peer(pctx, other) != 1) { /* checks the point once more */
		r = CSM_EINVALID;
		goto out;
	}
	if (EVP_PKEY_derive(pctx, made, &n) == 1)
		r = soft_out(shared, made, n);
out:
	EVP_PKEY_CTX_free(pctx);
	EVP_PKEY_free(other);
	return r != 0 ? soft_failed(r) : 0;
}
