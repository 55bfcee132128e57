/* Public keys between the TPM's form and OpenSSL's. */
#include "libclient/tpmfmt/tpmfmt.h"

#include <string.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/param_build.h>
#include <openssl/x509.h>

#define COORD_MAX 66u

static const struct {
	TPM2_ECC_CURVE curve;
	const char *name;
	size_t len;
} curves[] = {
	{TPM2_ECC_NIST_P256, "P-256", 32},
	{TPM2_ECC_NIST_P384, "P-384", 48},
	{TPM2_ECC_NIST_P521, "P-521", 66},
};

size_t csm_tpm_curve_len(TPM2_ECC_CURVE curve)
{
	for (size_t i = 0; i < sizeof(curves) / sizeof(curves[0]); i++)
		if (curves[i].curve == curve)
			return curves[i].len;
	return 0;
}

static int evp_from(const char *type, OSSL_PARAM *par, EVP_PKEY **ret)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
	EVP_PKEY *key = NULL;
	int r = CSM_EBACKEND;

	if (ctx != NULL && EVP_PKEY_fromdata_init(ctx) == 1 &&
		EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, par) == 1) {
		*ret = key;
		r = 0;
	}
	EVP_PKEY_CTX_free(ctx);
	return r;
}

static int ecc_evp(const TPMT_PUBLIC *pub, EVP_PKEY **ret)
{
	const TPMS_ECC_POINT *q = &pub->unique.ecc;
	uint8_t point[1 + 2 * COORD_MAX] = {4};
	OSSL_PARAM par[3];
	const char *name = NULL;
	size_t len = 0;

	for (size_t i = 0; i < sizeof(curves) / sizeof(curves[0]); i++) {
		if (curves[i].curve == pub->parameters.eccDetail.curveID) {
			name = curves[i].name;
			len = curves[i].len;
		}
	}
	if (name == NULL || q->x.size > len || q->y.size > len)
		return CSM_EUNSUPPORTED;
	memcpy(point + 1 + len - q->x.size, q->x.buffer, q->x.size);
	memcpy(point + 1 + 2 * len - q->y.size, q->y.buffer, q->y.size);
	par[0] = OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)(uintptr_t)name, 0);
	par[1] = OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point, 1 + 2 * len);
	par[2] = OSSL_PARAM_construct_end();
	return evp_from("EC", par, ret);
}

static int rsa_evp(const TPMT_PUBLIC *pub, EVP_PKEY **ret)
{
	UINT32 e = pub->parameters.rsaDetail.exponent;
	OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
	BIGNUM *n = BN_bin2bn(pub->unique.rsa.buffer, pub->unique.rsa.size, NULL);
	OSSL_PARAM *par = NULL;
	int r = CSM_EBACKEND;

	if (bld != NULL && n != NULL && OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_N, n) == 1 &&
		OSSL_PARAM_BLD_push_uint32(bld, OSSL_PKEY_PARAM_RSA_E, e == 0 ? 65537 : e) == 1 &&
		(par = OSSL_PARAM_BLD_to_param(bld)) != NULL)
		r = evp_from("RSA", par, ret);
	OSSL_PARAM_free(par);
	OSSL_PARAM_BLD_free(bld);
	BN_free(n);
	return r;
}

int csm_tpm_public_evp(const TPMT_PUBLIC *pub, EVP_PKEY **ret)
{
	if (pub->type == TPM2_ALG_ECC)
		return ecc_evp(pub, ret);
	if (pub->type == TPM2_ALG_RSA)
		return rsa_evp(pub, ret);
	return CSM_EUNSUPPORTED;
}

int csm_tpm_public_spki(const TPMT_PUBLIC *pub, uint8_t *out, size_t cap, size_t *ret)
{
	EVP_PKEY *key = NULL;
	uint8_t *der = NULL;
	int len, r;

	if ((r = csm_tpm_public_evp(pub, &key)) != 0)
		return r;
	r = CSM_EBACKEND;
	if ((len = i2d_PUBKEY(key, &der)) > 0) {
		r = CSM_ETOO_LARGE;
		if ((size_t)len <= cap) {
			memcpy(out, der, (size_t)len);
			*ret = (size_t)len;
			r = 0;
		}
	}
	OPENSSL_free(der);
	EVP_PKEY_free(key);
	return r;
}
