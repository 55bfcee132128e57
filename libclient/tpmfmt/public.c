#include <string.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <tss2/tss2_mu.h>
#include "libclient/tpmfmt/public.h"

#define EXPONENT 65537u

static const struct {
	TPM2_ECC_CURVE curve;
	const char *group; /* as OpenSSL tells it */
} curves[] = {
	{TPM2_ECC_NIST_P256, "prime256v1"},
	{TPM2_ECC_NIST_P384, "secp384r1"},
	{TPM2_ECC_NIST_P521, "secp521r1"},
};

bool csm_tpm_take_bytes(struct csm_bin *in, size_t n, struct csm_bin *ret)
{
	if (n > in->n)
		return false;
	*ret = (struct csm_bin){in->p, n};
	in->p += n;
	in->n -= n;
	return true;
}

bool csm_tpm_take16(struct csm_bin *in, uint16_t *ret)
{
	struct csm_bin b;

	if (!csm_tpm_take_bytes(in, 2, &b))
		return false;
	*ret = (uint16_t)(b.p[0] << 8 | b.p[1]);
	return true;
}

bool csm_tpm_take_2b(struct csm_bin *in, size_t max, struct csm_bin *ret)
{
	uint16_t n;

	return csm_tpm_take16(in, &n) && n <= max && csm_tpm_take_bytes(in, n, ret);
}

int csm_tpm_put16(struct csm_buf *out, uint16_t v)
{
	uint8_t b[2] = {(uint8_t)(v >> 8), (uint8_t)v};

	return csm_buf_put(out, b, sizeof(b));
}

int csm_tpm_put_2b(struct csm_buf *out, struct csm_bin v)
{
	int r;

	if (v.n > UINT16_MAX)
		return CSM_ETOO_LARGE;
	r = csm_tpm_put16(out, (uint16_t)v.n);
	return r != 0 || v.n == 0 ? r : csm_buf_put(out, v.p, v.n);
}

/* ---- reading and writing ---- */

static bool is_rsa_kind(const TPMT_PUBLIC *pub)
{
	const TPMS_RSA_PARMS *d = &pub->parameters.rsaDetail;

	return (d->keyBits == 2048 || d->keyBits == 3072 || d->keyBits == 4096) &&
		(d->exponent == 0 || d->exponent == EXPONENT) && pub->unique.rsa.size == d->keyBits / 8 &&
		(pub->unique.rsa.buffer[0] & 0x80) != 0;
}

static bool is_kind(const TPMT_PUBLIC *pub)
{
	size_t len;

	if (pub->nameAlg != TPM2_ALG_SHA256)
		return false;
	if (pub->type == TPM2_ALG_RSA)
		return is_rsa_kind(pub);
	if (pub->type != TPM2_ALG_ECC || pub->parameters.eccDetail.kdf.scheme != TPM2_ALG_NULL)
		return false;
	len = csm_tpm_curve_len(pub->parameters.eccDetail.curveID);
	return len != 0 && pub->unique.ecc.x.size <= len && pub->unique.ecc.y.size <= len;
}

int csm_tpm_public_take(struct csm_bin *in, TPMT_PUBLIC *ret)
{
	struct csm_bin rest = *in, area;
	TPMT_PUBLIC pub;

	if (!csm_tpm_take_2b(&rest, CSM_TPM_PUBLIC_MAX - 2, &area) || csm_tpm_public_parse(area.p, area.n, &pub) != 0)
		return CSM_EINVALID;
	if (!is_kind(&pub))
		return CSM_EUNSUPPORTED;
	*in = rest;
	*ret = pub;
	return 0;
}

int csm_tpm_public_get(struct csm_bin in, TPMT_PUBLIC *ret)
{
	TPMT_PUBLIC pub;
	int r = csm_tpm_public_take(&in, &pub);

	if (r == 0 && in.n != 0)
		r = CSM_EINVALID;
	if (r == 0)
		*ret = pub;
	return r;
}

int csm_tpm_public_put(const TPMT_PUBLIC *pub, struct csm_buf *out)
{
	uint8_t area[sizeof(*pub)];
	size_t n = 0;

	if (Tss2_MU_TPMT_PUBLIC_Marshal(pub, area, sizeof(area), &n) != TSS2_RC_SUCCESS)
		return CSM_EINVALID;
	return csm_tpm_put_2b(out, (struct csm_bin){area, n});
}

/* ---- from OpenSSL ---- */

/* A number of the key as n big-endian bytes. */
static bool number_of(EVP_PKEY *key, const char *name, uint8_t *out, size_t n)
{
	BIGNUM *bn = NULL;
	bool ok = EVP_PKEY_get_bn_param(key, name, &bn) == 1 && BN_bn2binpad(bn, out, (int)n) == (int)n;

	BN_free(bn);
	return ok;
}

static int rsa_of(EVP_PKEY *key, TPMT_PUBLIC *pub)
{
	TPMS_RSA_PARMS *d = &pub->parameters.rsaDetail;
	int bits = EVP_PKEY_get_bits(key);
	BIGNUM *e = NULL;
	bool usual = EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_E, &e) == 1 && BN_is_word(e, EXPONENT);

	BN_free(e);
	if (!usual || (bits != 2048 && bits != 3072 && bits != 4096))
		return CSM_EUNSUPPORTED;
	pub->type = TPM2_ALG_RSA;
	d->symmetric.algorithm = TPM2_ALG_NULL;
	d->scheme.scheme = TPM2_ALG_NULL;
	d->keyBits = (UINT16)bits;
	pub->unique.rsa.size = (UINT16)(bits / 8);
	return number_of(key, OSSL_PKEY_PARAM_RSA_N, pub->unique.rsa.buffer, pub->unique.rsa.size) ? 0 : CSM_EUNSUPPORTED;
}

static int ecc_of(EVP_PKEY *key, TPMT_PUBLIC *pub)
{
	TPMS_ECC_PARMS *d = &pub->parameters.eccDetail;
	char group[32] = "";
	size_t i = 0, len;

	if (EVP_PKEY_get_group_name(key, group, sizeof(group), NULL) != 1)
		return CSM_EUNSUPPORTED;
	while (i < sizeof(curves) / sizeof(curves[0]) && strcmp(group, curves[i].group) != 0)
		i++;
	if (i == sizeof(curves) / sizeof(curves[0]))
		return CSM_EUNSUPPORTED;
	pub->type = TPM2_ALG_ECC;
	d->symmetric.algorithm = TPM2_ALG_NULL;
	d->scheme.scheme = TPM2_ALG_NULL;
	d->kdf.scheme = TPM2_ALG_NULL;
	d->curveID = curves[i].curve;
	len = csm_tpm_curve_len(d->curveID);
	pub->unique.ecc.x.size = pub->unique.ecc.y.size = (UINT16)len;
	return number_of(key, OSSL_PKEY_PARAM_EC_PUB_X, pub->unique.ecc.x.buffer, len) &&
			number_of(key, OSSL_PKEY_PARAM_EC_PUB_Y, pub->unique.ecc.y.buffer, len) ?
		0 :
		CSM_EUNSUPPORTED;
}

int csm_tpm_public_of(EVP_PKEY *key, TPMT_PUBLIC *ret)
{
	TPMT_PUBLIC pub;
	int r = CSM_EUNSUPPORTED;

	memset(&pub, 0, sizeof(pub));
	pub.nameAlg = TPM2_ALG_SHA256;
	if (EVP_PKEY_is_a(key, "RSA") == 1)
		r = rsa_of(key, &pub);
	else if (EVP_PKEY_is_a(key, "EC") == 1)
		r = ecc_of(key, &pub);
	ERR_clear_error();
	if (r == 0)
		*ret = pub;
	return r;
}

/* ---- storage keys ---- */

const TPMT_SYM_DEF_OBJECT *csm_tpm_symmetric(const TPMT_PUBLIC *pub)
{
	return pub->type == TPM2_ALG_ECC ? &pub->parameters.eccDetail.symmetric : &pub->parameters.rsaDetail.symmetric;
}

const char *csm_tpm_storage_objection(const TPMT_PUBLIC *pub)
{
	const TPMT_SYM_DEF_OBJECT *sym = csm_tpm_symmetric(pub);
	const TPMA_OBJECT want = TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT;

	if ((pub->objectAttributes & (want | TPMA_OBJECT_SIGN_ENCRYPT)) != want)
		return "it is no storage key";
	if (pub->type == TPM2_ALG_ECC && pub->parameters.eccDetail.curveID != TPM2_ECC_NIST_P256)
		return "its curve is not P-256";
	if (sym->algorithm != TPM2_ALG_AES || (sym->keyBits.aes != 128 && sym->keyBits.aes != 256) ||
		sym->mode.aes != TPM2_ALG_CFB)
		return "its inner cipher is not AES-128 or AES-256 in CFB mode";
	return NULL;
}
