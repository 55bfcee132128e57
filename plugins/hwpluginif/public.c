/* The public key of a hardware key: what the library said, as OpenSSL's; verification with it. The encodings around
 * the bare operation are offered by OpenSSL 3 only as functions that it calls deprecated. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "plugins/hwpluginif/hwpluginif.h"

#include <string.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#define DEFAULT_EXPONENT 65537u

static EVP_PKEY *make(const BIGNUM *n, const BIGNUM *e)
{
	OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
	OSSL_PARAM *par = NULL;
	EVP_PKEY *pkey = NULL;

	if (bld != NULL && ctx != NULL && OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_N, n) == 1 &&
		OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_E, e) == 1 &&
		(par = OSSL_PARAM_BLD_to_param(bld)) != NULL && EVP_PKEY_fromdata_init(ctx) == 1 &&
		EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, par) != 1)
		pkey = NULL;
	OSSL_PARAM_free(par);
	OSSL_PARAM_BLD_free(bld);
	EVP_PKEY_CTX_free(ctx);
	ERR_clear_error();
	return pkey;
}

static bool modulus_possible(const BIGNUM *n)
{
	int bits = BN_num_bits(n);

	return (bits == 2048 || bits == 3072 || bits == 4096) && BN_is_odd(n);
}

static bool exponent_possible(const BIGNUM *e)
{
	return BN_is_odd(e) && !BN_is_one(e) && BN_num_bits(e) <= 33;
}

/* The interface says big-endian; a library in the wild gives the exponent as the machine has it, or zero. Which it is
 * mostly shows: a modulus and an exponent are odd, and the modulus has a length. Where both ways are possible the
 * caller finds the right one by a signature. */
size_t hw_public_meanings(const struct hw_public *pub, EVP_PKEY *ret[static HW_MEANINGS])
{
	BIGNUM *n[2] = {BN_bin2bn(pub->modulus, (int)pub->modulus_len, NULL),
		BN_lebin2bn(pub->modulus, (int)pub->modulus_len, NULL)};
	BIGNUM *e[2] = {BN_bin2bn(pub->exponent, (int)pub->exponent_len, NULL),
		BN_lebin2bn(pub->exponent, (int)pub->exponent_len, NULL)};
	size_t count = 0;

	for (size_t i = 0; i < 2; i++) {
		if (e[i] != NULL && BN_is_zero(e[i]))
			(void)BN_set_word(e[i], DEFAULT_EXPONENT);
		for (size_t j = 0; j < 2; j++) {
			/* The same number both ways is one meaning. */
			if (n[j] == NULL || e[i] == NULL || (j > 0 && n[0] != NULL && BN_cmp(n[0], n[1]) == 0) ||
				(i > 0 && e[0] != NULL && BN_cmp(e[0], e[1]) == 0) || !modulus_possible(n[j]) ||
				!exponent_possible(e[i]))
				continue;
			if ((ret[count] = make(n[j], e[i])) != NULL)
				count++;
		}
	}
	for (size_t i = 0; i < 2; i++) {
		BN_free(n[i]);
		BN_free(e[i]);
	}
	return count;
}

int hw_public_alg(const EVP_PKEY *pkey, enum csm_alg *ret)
{
	return csm_alg_of_rsa_bits(EVP_PKEY_get_bits(pkey), ret);
}

int hw_public_spki(EVP_PKEY *pkey, struct csm_plugin_out *spki)
{
	uint8_t *der = NULL;
	int n = i2d_PUBKEY(pkey, &der), r = CSM_EBACKEND;

	if (n > 0 && (size_t)n > spki->cap)
		r = CSM_ETOO_LARGE;
	else if (n > 0) {
		memcpy(spki->p, der, (size_t)n);
		spki->len = (size_t)n;
		r = 0;
	}
	OPENSSL_free(der);
	return r;
}

static const EVP_MD *md_of(enum csm_hash hash)
{
	switch (hash) {
	case CSM_HASH_SHA256:
		return EVP_sha256();
	case CSM_HASH_SHA384:
		return EVP_sha384();
	case CSM_HASH_SHA512:
		return EVP_sha512();
	case CSM_HASH_NONE:
		break;
	}
	return NULL;
}

bool hw_public_verifies(
	EVP_PKEY *pkey, const struct csm_scheme *s, const uint8_t *digest, const uint8_t *sig, size_t sig_len)
{
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);
	const EVP_MD *md = md_of(s->hash);
	bool pss = s->kind == CSM_SCHEME_RSA_PSS;
	bool ok = c != NULL && md != NULL && EVP_PKEY_verify_init(c) == 1 &&
		EVP_PKEY_CTX_set_rsa_padding(c, pss ? RSA_PKCS1_PSS_PADDING : RSA_PKCS1_PADDING) == 1 &&
		EVP_PKEY_CTX_set_signature_md(c, md) == 1 &&
		(!pss ||
			(EVP_PKEY_CTX_set_rsa_mgf1_md(c, md) == 1 &&
				EVP_PKEY_CTX_set_rsa_pss_saltlen(c, RSA_PSS_SALTLEN_DIGEST) == 1)) &&
		EVP_PKEY_verify(c, sig, sig_len, digest, csm_hash_size(s->hash)) == 1;

	EVP_PKEY_CTX_free(c);
	if (!ok)
		ERR_clear_error();
	return ok;
}

size_t hw_digestinfo(enum csm_hash hash, const uint8_t *digest, uint8_t out[static HW_DIGESTINFO_MAX])
{
	/* RFC 8017 9.2, note 1: SEQUENCE { SEQUENCE { OID 2.16.840.1.101.3.4.2.x, NULL }, OCTET STRING } */
	static const uint8_t head[] = {0x30, 0x11, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02,
		0x00, 0x05, 0x00, 0x04, 0x00};
	size_t n = csm_hash_size(hash);

	memcpy(out, head, sizeof(head));
	out[1] = (uint8_t)(sizeof(head) - 2 + n);
	out[14] = hash == CSM_HASH_SHA256 ? 1 : hash == CSM_HASH_SHA384 ? 2 : 3;
	out[18] = (uint8_t)n;
	memcpy(out + sizeof(head), digest, n);
	return sizeof(head) + n;
}

static int pss_encode(EVP_PKEY *pkey, enum csm_hash hash, const uint8_t *digest, uint8_t *em)
{
	const EVP_MD *md = md_of(hash);
	const RSA *rsa = EVP_PKEY_get0_RSA(pkey);

	if (rsa == NULL || md == NULL ||
		RSA_padding_add_PKCS1_PSS_mgf1((RSA *)(uintptr_t)rsa, em, digest, md, md, RSA_PSS_SALTLEN_DIGEST) != 1) {
		ERR_clear_error();
		return CSM_EBACKEND;
	}
	return 0;
}

int hw_public_encode(EVP_PKEY *pkey, const struct csm_scheme *s, const uint8_t *digest, uint8_t *em)
{
	uint8_t info[HW_DIGESTINFO_MAX];
	size_t n, k = (size_t)EVP_PKEY_get_size(pkey);

	if (s->kind == CSM_SCHEME_RSA_PSS)
		return pss_encode(pkey, s->hash, digest, em);
	n = hw_digestinfo(s->hash, digest, info);
	if (n + 11 > k)
		return CSM_EBACKEND;
	em[0] = 0;
	em[1] = 1;
	memset(em + 2, 0xff, k - n - 3);
	em[k - n - 1] = 0;
	memcpy(em + k - n, info, n);
	return 0;
}
