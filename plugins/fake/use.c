#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include "libclient/base/lockmem.h"
#include "plugins/fake/fake.h"

struct csm_plugin_op {
	struct csm_plugin_key *key;
	struct csm_scheme scheme;
	EVP_MD_CTX *md;
};

int fake_out(struct csm_plugin_out *out, const void *p, size_t n)
{
	if (n > out->cap)
		return CSM_ETOO_LARGE;
	memcpy(out->p, p, n);
	out->len = n;
	return 0;
}

static const EVP_MD *hash_md(enum csm_hash hash)
{
	return EVP_get_digestbyname(csm_hash_name(hash));
}

static bool may_sign(const struct csm_plugin_key *key, const struct csm_scheme *scheme)
{
	return (key->use & CSM_USE_SIGN) != 0 && csm_scheme_check(key->alg, scheme) == 0 &&
		scheme->kind != CSM_SCHEME_RSA_OAEP;
}

static bool sign_setup(EVP_PKEY_CTX *c, const struct csm_scheme *scheme)
{
	if (EVP_PKEY_sign_init(c) != 1 || EVP_PKEY_CTX_set_signature_md(c, hash_md(scheme->hash)) != 1)
		return false;
	return scheme->kind != CSM_SCHEME_RSA_PSS ||
		(EVP_PKEY_CTX_set_rsa_padding(c, RSA_PKCS1_PSS_PADDING) == 1 &&
			EVP_PKEY_CTX_set_rsa_pss_saltlen(c, RSA_PSS_SALTLEN_DIGEST) == 1);
}

int fake_sign(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct csm_scheme *scheme,
	const uint8_t *in, size_t in_len, struct csm_plugin_out *sig)
{
	uint8_t made[CSM_SIGNATURE_MAX];
	size_t n = sizeof(made);
	EVP_PKEY_CTX *c;
	int r;

	if ((r = fake_script_step(&ctx->script, FAKE_SIGN)) != 0)
		return r;
	if (!may_sign(key, scheme))
		return CSM_EUNSUPPORTED;
	if (in_len != csm_hash_size(scheme->hash))
		return CSM_EINVALID;
	r = CSM_EBACKEND;
	if ((c = EVP_PKEY_CTX_new(key->pkey, NULL)) != NULL && sign_setup(c, scheme) &&
		EVP_PKEY_sign(c, made, &n, in, in_len) == 1)
		r = fake_out(sig, made, n);
	if (r == 0 && fake_script_spoils(&ctx->script))
		sig->p[n - 1] ^= 1;
	EVP_PKEY_CTX_free(c);
	if (r != 0)
		ERR_clear_error();
	return r;
}

int fake_sign_init(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct csm_scheme *scheme,
	struct csm_plugin_op **ret)
{
	struct csm_plugin_op *op;

	(void)ctx;
	if (!may_sign(key, scheme))
		return CSM_EUNSUPPORTED;
	if ((op = calloc(1, sizeof(*op))) == NULL)
		return CSM_ENOMEM;
	op->key = key;
	op->scheme = *scheme;
	if ((op->md = EVP_MD_CTX_new()) == NULL || EVP_DigestInit_ex(op->md, hash_md(scheme->hash), NULL) != 1) {
		fake_sign_cleanup(ctx, op);
		return CSM_EBACKEND;
	}
	*ret = op;
	return 0;
}

int fake_sign_update(struct csm_plugin_ctx *ctx, struct csm_plugin_op *op, const uint8_t *in, size_t in_len)
{
	(void)ctx;
	return EVP_DigestUpdate(op->md, in, in_len) == 1 ? 0 : CSM_EBACKEND;
}

int fake_sign_final(struct csm_plugin_ctx *ctx, struct csm_plugin_op *op, struct csm_plugin_out *sig)
{
	uint8_t digest[CSM_DIGEST_MAX];
	unsigned n = 0;
	int r = CSM_EBACKEND;

	if (EVP_DigestFinal_ex(op->md, digest, &n) == 1)
		r = fake_sign(ctx, op->key, &op->scheme, digest, n, sig);
	fake_sign_cleanup(ctx, op);
	return r;
}

void fake_sign_cleanup(struct csm_plugin_ctx *ctx, struct csm_plugin_op *op)
{
	(void)ctx;
	if (op == NULL)
		return;
	EVP_MD_CTX_free(op->md);
	free(op);
}

int fake_decrypt(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct csm_scheme *scheme,
	const uint8_t *in, size_t in_len, const uint8_t *label, size_t label_len, struct csm_plugin_out *plain)
{
	CSM_WIPED(made, 256);
	size_t n = sizeof(made);
	EVP_PKEY_CTX *c;
	const EVP_MD *md;
	int r;

	if ((r = fake_script_step(&ctx->script, FAKE_DECRYPT)) != 0)
		return r;
	if ((key->use & CSM_USE_DECRYPT) == 0 || csm_scheme_check(key->alg, scheme) != 0 ||
		scheme->kind != CSM_SCHEME_RSA_OAEP || label_len > 0) /* this device knows no labels */
		return CSM_EUNSUPPORTED;
	(void)label;
	md = hash_md(scheme->hash);
	r = CSM_EINVALID;
	if ((c = EVP_PKEY_CTX_new(key->pkey, NULL)) == NULL || EVP_PKEY_decrypt_init(c) != 1 ||
		EVP_PKEY_CTX_set_rsa_padding(c, RSA_PKCS1_OAEP_PADDING) != 1 ||
		EVP_PKEY_CTX_set_rsa_oaep_md(c, md) != 1 || EVP_PKEY_CTX_set_rsa_mgf1_md(c, md) != 1)
		r = CSM_EBACKEND;
	else if (in_len == sizeof(made) && EVP_PKEY_decrypt(c, made, &n, in, in_len) == 1)
		r = fake_out(plain, made, n);
	EVP_PKEY_CTX_free(c);
	if (r != 0)
		ERR_clear_error();
	return r;
}

/* The peer's key must begin as ours does: same curve by name, uncompressed. */
static EVP_PKEY *peer_read(const struct csm_plugin_key *key, const uint8_t *peer, size_t n)
{
	const uint8_t *at = peer;
	const size_t head = 27;

	if (n != key->spki_len || n < head || memcmp(peer, key->spki, head) != 0)
		return NULL;
	return d2i_PUBKEY(NULL, &at, (long)n);
}

int fake_derive(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const uint8_t *peer, size_t peer_len,
	struct csm_plugin_out *shared)
{
	CSM_WIPED(made, 32);
	size_t n = sizeof(made);
	EVP_PKEY *other;
	EVP_PKEY_CTX *c = NULL;
	int r;

	if ((r = fake_script_step(&ctx->script, FAKE_DERIVE)) != 0)
		return r;
	if ((key->use & CSM_USE_DERIVE) == 0)
		return CSM_EUNSUPPORTED;
	r = CSM_EINVALID;
	if ((other = peer_read(key, peer, peer_len)) != NULL && (c = EVP_PKEY_CTX_new(key->pkey, NULL)) != NULL &&
		EVP_PKEY_derive_init(c) == 1 && EVP_PKEY_derive_set_peer(c, other) == 1)
		r = EVP_PKEY_derive(c, made, &n) == 1 ? fake_out(shared, made, n) : CSM_EBACKEND;
	EVP_PKEY_CTX_free(c);
	EVP_PKEY_free(other);
	if (r != 0)
		ERR_clear_error();
	return r;
}
