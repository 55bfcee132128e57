/* Signing what policy.h reads: on a machine that has the signer's key, which need not be the node's. */
#include "libclient/tpmfmt/policy.h"

#include <string.h>

int csm_approval_sign(struct csm_tpm_approval *a, EVP_PKEY *signer)
{
	uint8_t text[CSM_PCR_LEN + CSM_APPROVAL_REF_MAX];
	EVP_MD_CTX *ctx;
	size_t n = sizeof(a->signature);
	char group[32];
	int r = CSM_EUNSUPPORTED;

	if (a->ref_len > sizeof(a->ref))
		return CSM_EINVALID;
	if (EVP_PKEY_is_a(signer, "RSA")) {
		if (EVP_PKEY_get_bits(signer) != 2048 && EVP_PKEY_get_bits(signer) != 3072)
			return r;
	} else if (!EVP_PKEY_is_a(signer, "EC") || EVP_PKEY_get_group_name(signer, group, sizeof(group), NULL) != 1 ||
		strcmp(group, "prime256v1") != 0) {
		return r;
	}
	memcpy(text, a->policy, CSM_PCR_LEN);
	memcpy(text + CSM_PCR_LEN, a->ref, a->ref_len);
	ctx = EVP_MD_CTX_new();
	if (ctx == NULL)
		return CSM_ENOMEM;
	/* RSA: PKCS#1 v1.5 is OpenSSL's own choice */
	r = EVP_DigestSignInit_ex(ctx, NULL, "SHA256", NULL, NULL, signer, NULL) == 1 &&
			EVP_DigestSign(ctx, a->signature, &n, text, CSM_PCR_LEN + a->ref_len) == 1 ?
		0 : CSM_EBACKEND;
	if (r == 0)
		a->signature_len = n;
	EVP_MD_CTX_free(ctx);
	return r;
}
