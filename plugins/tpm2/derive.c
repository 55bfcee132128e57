/* ECDH: TPM2_ECDH_ZGen, its answer encrypted on the way. */
#include "plugins/tpm2/tpm2.h"

#include <string.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/x509.h>

struct zgen_arg {
	struct csm_plugin_key *k;
	TPM2B_ECC_POINT in, out;
	bool refused;
};

static TSS2_RC zgen_step(struct csm_plugin_ctx *c, void *arg)
{
	struct zgen_arg *z = arg;
	struct t2_auth a = {.names = {t2_name_part(&z->k->name)}, .nnames = 1, .flags = TPMA_SESSION_ENCRYPT};
	TSS2_RC rc;

	z->refused = false;
	memset(&z->out, 0, sizeof(z->out));
	if ((rc = t2_key_use(c, z->k)) != TSS2_RC_SUCCESS ||
		(rc = Tss2_Sys_ECDH_ZGen_Prepare(c->sys, z->k->handle, &z->in)) != TSS2_RC_SUCCESS)
		return rc;
	rc = t2_exec(c, &a, T2_TIMEOUT_MS);
	if (rc == TSS2_RC_SUCCESS) {
		rc = Tss2_Sys_ECDH_ZGen_Complete(c->sys, &z->out);
		t2_sys_wipe(c);
	}
	if (t2_rc_base(rc) == TPM2_RC_ECC_POINT || t2_rc_base(rc) == TPM2_RC_SIZE || rc == TPM2_RC_NO_RESULT) {
		z->refused = true;
		return TSS2_RC_SUCCESS;
	}
	return rc;
}

static int coordinate(EVP_PKEY *key, const char *name, size_t len, TPM2B_ECC_PARAMETER *ret)
{
	BIGNUM *bn = NULL;
	int r = CSM_EINVALID;

	if (len <= sizeof(ret->buffer) && EVP_PKEY_get_bn_param(key, name, &bn) == 1 &&
		BN_bn2binpad(bn, ret->buffer, (int)len) == (int)len) {
		ret->size = (UINT16)len;
		r = 0;
	}
	BN_free(bn);
	return r;
}

static int parse_peer(const TPMT_PUBLIC *own, const uint8_t *der, size_t der_len, TPMS_ECC_POINT *ret)
{
	size_t len = csm_tpm_curve_len(own->parameters.eccDetail.curveID);
	EVP_PKEY *mine = NULL, *peer = NULL;
	EVP_PKEY_CTX *ctx = NULL;
	const uint8_t *p = der;
	uint8_t *again = NULL;
	int r;

	if ((r = csm_tpm_public_evp(own, &mine)) != 0)
		return r;
	r = CSM_EINVALID;
	if (der_len == 0 || der_len > 1024 || (peer = d2i_PUBKEY(NULL, &p, (long)der_len)) == NULL ||
		p != der + der_len || EVP_PKEY_parameters_eq(mine, peer) != 1 ||
		(ctx = EVP_PKEY_CTX_new_from_pkey(NULL, peer, NULL)) == NULL || EVP_PKEY_public_check(ctx) != 1)
		goto out;
	/* OpenSSL reads more than DER; what it would not write is refused. */
	if (i2d_PUBKEY(peer, &again) != (int)der_len || memcmp(again, der, der_len) != 0)
		goto out;
	if ((r = coordinate(peer, OSSL_PKEY_PARAM_EC_PUB_X, len, &ret->x)) != 0 ||
		(r = coordinate(peer, OSSL_PKEY_PARAM_EC_PUB_Y, len, &ret->y)) != 0)
		goto out;
	r = 0;
out:
	OPENSSL_free(again);
	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(peer);
	EVP_PKEY_free(mine);
	return r;
}

int t2_derive(struct csm_plugin_ctx *c, struct csm_plugin_key *k, const uint8_t *peer, size_t peer_len,
	struct csm_plugin_out *shared)
{
	struct zgen_arg z = {.k = k};
	const TPM2B_ECC_PARAMETER *x = &z.out.point.x;
	size_t len;
	int r;

	if (k->pub.type != TPM2_ALG_ECC || (k->use & CSM_USE_DERIVE) == 0 ||
		(k->pub.objectAttributes & TPMA_OBJECT_DECRYPT) == 0)
		return CSM_EUNSUPPORTED;
	if ((r = parse_peer(&k->pub, peer, peer_len, &z.in.point)) != 0)
		return r;
	len = csm_tpm_curve_len(k->pub.parameters.eccDetail.curveID);
	if (len > shared->cap)
		return CSM_ETOO_LARGE;
	if ((r = t2_run(c, zgen_step, &z)) == 0 && z.refused)
		r = CSM_EINVALID;
	if (r == 0 && (x->size == 0 || x->size > len))
		r = CSM_EBACKEND;
	if (r == 0) {
		memset(shared->p, 0, len - x->size);
		memcpy(shared->p + len - x->size, x->buffer, x->size);
		shared->len = len;
	}
	OPENSSL_cleanse(&z.out, sizeof(z.out));
	return r;
}
