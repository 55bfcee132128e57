/* Signatures. Every TPM2_Sign is authorised in the HMAC session, which covers the key's Name: another
 * client's key at the same handle cannot sign for ours. */
#include "plugins/tpm2/tpm2.h"

#include <string.h>
#include <openssl/bn.h>
#include <openssl/ecdsa.h>
#include "plugins/include/csm_alg.h"

TPMI_ALG_HASH t2_hash_alg(enum csm_hash hash)
{
	switch (hash) {
	case CSM_HASH_SHA256:
		return TPM2_ALG_SHA256;
	case CSM_HASH_SHA384:
		return TPM2_ALG_SHA384;
	case CSM_HASH_SHA512:
		return TPM2_ALG_SHA512;
	case CSM_HASH_NONE:
		break;
	}
	return TPM2_ALG_NULL;
}

struct sign_arg {
	struct csm_plugin_key *k;
	TPMT_SIG_SCHEME scheme;
	TPM2B_DIGEST digest;
	TPMT_SIGNATURE sig;
};

static TSS2_RC sign_step(struct csm_plugin_ctx *c, void *arg)
{
	/* No ticket: the keys are not restricted. */
	static const TPMT_TK_HASHCHECK no_ticket = {.tag = TPM2_ST_HASHCHECK, .hierarchy = TPM2_RH_NULL};
	struct sign_arg *s = arg;
	struct t2_auth a = {.names = {t2_name_part(&s->k->name)}, .nnames = 1};
	TSS2_RC rc;

	memset(&s->sig, 0, sizeof(s->sig));
	if ((rc = t2_key_use(c, s->k)) != TSS2_RC_SUCCESS ||
		(rc = Tss2_Sys_Sign_Prepare(c->sys, s->k->handle, &s->digest, &s->scheme, &no_ticket)) !=
			TSS2_RC_SUCCESS ||
		(rc = t2_exec(c, &a, T2_TIMEOUT_MS)) != TSS2_RC_SUCCESS)
		return rc;
	return Tss2_Sys_Sign_Complete(c->sys, &s->sig);
}

int t2_put_ecdsa(const TPMS_SIGNATURE_ECDSA *in, struct csm_plugin_out *sig)
{
	ECDSA_SIG *es = ECDSA_SIG_new();
	BIGNUM *r = BN_bin2bn(in->signatureR.buffer, in->signatureR.size, NULL);
	BIGNUM *s = BN_bin2bn(in->signatureS.buffer, in->signatureS.size, NULL);
	uint8_t *p = sig->p;
	int len, ret = CSM_EBACKEND;

	if (es == NULL || r == NULL || s == NULL || ECDSA_SIG_set0(es, r, s) != 1)
		goto out;
	r = s = NULL;
	if ((len = i2d_ECDSA_SIG(es, NULL)) <= 0)
		goto out;
	ret = CSM_ETOO_LARGE;
	if ((size_t)len > sig->cap)
		goto out;
	sig->len = (size_t)i2d_ECDSA_SIG(es, &p);
	ret = 0;
out:
	BN_free(r);
	BN_free(s);
	ECDSA_SIG_free(es);
	return ret;
}

int t2_put_rsa(const struct csm_plugin_key *k, const TPM2B_PUBLIC_KEY_RSA *in, struct csm_plugin_out *sig)
{
	size_t n = k->pub.parameters.rsaDetail.keyBits / 8u;

	if (in->size > n)
		return CSM_EBACKEND;
	if (n > sig->cap)
		return CSM_ETOO_LARGE;
	memset(sig->p, 0, n - in->size);
	memcpy(sig->p + n - in->size, in->buffer, in->size);
	sig->len = n;
	return 0;
}

int t2_sign_with(struct csm_plugin_ctx *c, struct csm_plugin_key *k, const TPMT_SIG_SCHEME *scheme,
	const uint8_t *digest, size_t len, TPMT_SIGNATURE *ret)
{
	struct sign_arg a = {.k = k, .scheme = *scheme};
	int r;

	if (len > sizeof(a.digest.buffer))
		return CSM_EINVALID;
	a.digest.size = (UINT16)len;
	memcpy(a.digest.buffer, digest, len);
	if ((r = t2_run(c, sign_step, &a)) != 0)
		return r;
	if (a.sig.sigAlg != scheme->scheme || a.sig.signature.any.hashAlg != scheme->details.any.hashAlg)
		return CSM_EBACKEND;
	*ret = a.sig;
	return 0;
}

int t2_sign(struct csm_plugin_ctx *c, struct csm_plugin_key *k, const struct csm_scheme *scheme, const uint8_t *in,
	size_t in_len, struct csm_plugin_out *sig)
{
	TPMT_SIG_SCHEME asked = {.details.any.hashAlg = t2_hash_alg(scheme->hash)};
	TPMT_SIGNATURE made;
	int r;

	if ((r = csm_scheme_check(k->alg, scheme)) != 0)
		return r;
	if (in_len != csm_hash_size(scheme->hash) || scheme->kind == CSM_SCHEME_RSA_OAEP)
		return CSM_EINVALID;
	if ((k->use & CSM_USE_SIGN) == 0 || (k->pub.objectAttributes & TPMA_OBJECT_SIGN_ENCRYPT) == 0)
		return CSM_EUNSUPPORTED;
	asked.scheme = scheme->kind == CSM_SCHEME_ECDSA ? TPM2_ALG_ECDSA :
		scheme->kind == CSM_SCHEME_RSA_PSS      ? TPM2_ALG_RSAPSS :
							  TPM2_ALG_RSASSA;
	if ((r = t2_sign_with(c, k, &asked, in, in_len, &made)) != 0)
		return r;
	if (made.sigAlg == TPM2_ALG_ECDSA)
		return t2_put_ecdsa(&made.signature.ecdsa, sig);
	if ((r = t2_put_rsa(k, &made.signature.rsassa.sig, sig)) != 0 || scheme->kind != CSM_SCHEME_RSA_PSS)
		return r;
	/* Which salt a TPM takes is not to be asked: as long as the digest, or the longest that fits. */
	if (t2_pss_is_ours(k, scheme->hash, in, sig))
		return 0;
	return t2_pss_raw(c, k, scheme->hash, in, sig);
}
