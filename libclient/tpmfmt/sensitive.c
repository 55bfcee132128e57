/* Private keys as a TPM has them: an RSA key is one of its primes. */
#include <sodium.h>
#include <string.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include "libclient/base/lockmem.h"
#include "libclient/tpmfmt/dup.h"

#define NUMBER_MAX 256u
#define RSA_E 65537u

static size_t number_len(const TPMT_PUBLIC *pub)
{
	return pub->type == TPM2_ALG_ECC ? csm_tpm_curve_len(pub->parameters.eccDetail.curveID) :
					   pub->parameters.rsaDetail.keyBits / 16u;
}

/* The number, big-endian, as long as it can be. */
static int number_of(EVP_PKEY *key, const TPMT_PUBLIC *pub, uint8_t out[static NUMBER_MAX])
{
	const char *name = pub->type == TPM2_ALG_ECC ? OSSL_PKEY_PARAM_PRIV_KEY : OSSL_PKEY_PARAM_RSA_FACTOR1;
	int len = (int)number_len(pub), r = CSM_EINVALID;
	BIGNUM *bn = NULL, *third = NULL;

	if (EVP_PKEY_get_bn_param(key, name, &bn) != 1 || BN_bn2binpad(bn, out, len) != len)
		goto out;
	r = CSM_EUNSUPPORTED;
	/* Of a key with more primes than two, one does not tell the others. */
	if (pub->type == TPM2_ALG_RSA && EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_FACTOR3, &third) == 1)
		goto out;
	r = 0;
out:
	BN_clear_free(third);
	BN_clear_free(bn);
	ERR_clear_error();
	return r;
}

int csm_tpm_sensitive_put(EVP_PKEY *key, const TPMT_PUBLIC *pub, struct csm_buf *out)
{
	CSM_WIPED(number, NUMBER_MAX);
	size_t len = number_len(pub);
	int r;

	if (len == 0 || len > NUMBER_MAX)
		return CSM_EUNSUPPORTED;
	/* TPM2B_SENSITIVE: type, authValue, seedValue, the number */
	if ((r = number_of(key, pub, number)) != 0 || (r = csm_tpm_put16(out, (uint16_t)(2 + 2 + 2 + 2 + len))) != 0 ||
		(r = csm_tpm_put16(out, pub->type)) != 0 || (r = csm_tpm_put16(out, 0)) != 0 || (r = csm_tpm_put16(out, 0)) != 0)
		return r;
	return csm_tpm_put_2b(out, (struct csm_bin){number, len});
}

static int number_get(struct csm_bin in, const TPMT_PUBLIC *pub, struct csm_bin *ret)
{
	struct csm_bin body, auth, seed, number;
	uint16_t type;

	if (!csm_tpm_take_2b(&in, CSM_TPM_SENSITIVE_MAX, &body) || in.n != 0 || !csm_tpm_take16(&body, &type) ||
		type != pub->type || !csm_tpm_take_2b(&body, 64, &auth) || auth.n != 0 ||
		!csm_tpm_take_2b(&body, 64, &seed) || !csm_tpm_take_2b(&body, NUMBER_MAX, &number) || body.n != 0 ||
		number.n != number_len(pub))
		return CSM_EINVALID;
	*ret = number;
	return 0;
}

static int evp_pair(const char *type, OSSL_PARAM_BLD *bld, EVP_PKEY **ret)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL), *check = NULL;
	OSSL_PARAM *par = OSSL_PARAM_BLD_to_param(bld);
	EVP_PKEY *key = NULL;
	int r = CSM_ENOMEM;

	if (ctx == NULL || par == NULL || EVP_PKEY_fromdata_init(ctx) != 1)
		goto out;
	r = CSM_EINVALID;
	if (EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_KEYPAIR, par) != 1 ||
		(check = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL)) == NULL || EVP_PKEY_pairwise_check(check) != 1)
		goto out;
	*ret = key;
	key = NULL;
	r = 0;
out:
	EVP_PKEY_CTX_free(check);
	EVP_PKEY_free(key);
	OSSL_PARAM_free(par);
	EVP_PKEY_CTX_free(ctx);
	return r;
}

static int ecc_pair(const BIGNUM *d, const TPMT_PUBLIC *pub, OSSL_PARAM_BLD *bld, EVP_PKEY **ret)
{
	size_t len = number_len(pub), n = 0;
	uint8_t point[1 + 2 * 66];
	EVP_PKEY *public = NULL;
	char group[32];
	int r;

	if (csm_tpm_public_evp(pub, &public) != 0)
		return CSM_EINVALID;
	r = CSM_ENOMEM;
	if (EVP_PKEY_get_group_name(public, group, sizeof(group), NULL) == 1 &&
		EVP_PKEY_get_octet_string_param(public, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point), &n) == 1 &&
		OSSL_PARAM_BLD_push_utf8_string(bld, OSSL_PKEY_PARAM_GROUP_NAME, group, 0) == 1 &&
		OSSL_PARAM_BLD_push_octet_string(bld, OSSL_PKEY_PARAM_PUB_KEY, point, n) == 1 &&
		OSSL_PARAM_BLD_push_BN_pad(bld, OSSL_PKEY_PARAM_PRIV_KEY, d, len) == 1)
		r = evp_pair("EC", bld, ret);
	EVP_PKEY_free(public);
	return r;
}

/* Numbers of an RSA key that follow from modulus and one prime (RFC 8017 3.2). */
enum { N, E, D, P, Q, DP, DQ, QINV, P1, Q1, RSA_NUMBERS };

static int rsa_numbers(BIGNUM *v[static RSA_NUMBERS], BN_CTX *ctx)
{
	BIGNUM *rest = BN_CTX_get(ctx), *gcd = BN_CTX_get(ctx), *lcm = BN_CTX_get(ctx);
	int ok;

	for (int i = 0; i < RSA_NUMBERS; i++)
		if (v[i] != NULL)
			BN_set_flags(v[i], BN_FLG_CONSTTIME);
	if (lcm == NULL)
		return CSM_ENOMEM;
	if (BN_is_zero(v[P]) || BN_is_one(v[P]) || BN_div(v[Q], rest, v[N], v[P], ctx) != 1 || !BN_is_zero(rest) ||
		BN_is_one(v[Q]))
		return CSM_EINVALID;
	ok = BN_sub(v[P1], v[P], BN_value_one()) && BN_sub(v[Q1], v[Q], BN_value_one()) &&
		BN_gcd(gcd, v[P1], v[Q1], ctx) && BN_mul(rest, v[P1], v[Q1], ctx) && BN_div(lcm, NULL, rest, gcd, ctx) &&
		BN_mod_inverse(v[D], v[E], lcm, ctx) != NULL &&
		BN_mod(v[DP], v[D], v[P1], ctx) && BN_mod(v[DQ], v[D], v[Q1], ctx) &&
		BN_mod_inverse(v[QINV], v[Q], v[P], ctx) != NULL;
	return ok ? 0 : CSM_EINVALID;
}

static int rsa_pair(BIGNUM *p, const TPMT_PUBLIC *pub, OSSL_PARAM_BLD *bld, EVP_PKEY **ret)
{
	static const char *const names[P1] = {OSSL_PKEY_PARAM_RSA_N, OSSL_PKEY_PARAM_RSA_E, OSSL_PKEY_PARAM_RSA_D,
		OSSL_PKEY_PARAM_RSA_FACTOR1, OSSL_PKEY_PARAM_RSA_FACTOR2, OSSL_PKEY_PARAM_RSA_EXPONENT1,
		OSSL_PKEY_PARAM_RSA_EXPONENT2, OSSL_PKEY_PARAM_RSA_COEFFICIENT1};
	BN_CTX *ctx = BN_CTX_secure_new();
	BIGNUM *v[RSA_NUMBERS];
	int r = CSM_ENOMEM;

	if (ctx == NULL)
		return r;
	BN_CTX_start(ctx);
	for (int i = 0; i < RSA_NUMBERS; i++)
		v[i] = BN_CTX_get(ctx);
	if (v[RSA_NUMBERS - 1] == NULL || BN_copy(v[P], p) == NULL || !BN_set_word(v[E], RSA_E) ||
		BN_bin2bn(pub->unique.rsa.buffer, pub->unique.rsa.size, v[N]) == NULL)
		goto out;
	if ((r = rsa_numbers(v, ctx)) != 0)
		goto out;
	r = CSM_ENOMEM;
	for (int i = 0; i < P1; i++)
		if (OSSL_PARAM_BLD_push_BN(bld, names[i], v[i]) != 1)
			goto out;
	r = evp_pair("RSA", bld, ret);
out:
	BN_CTX_end(ctx);
	BN_CTX_free(ctx);
	return r;
}

int csm_tpm_sensitive_get(struct csm_bin in, const TPMT_PUBLIC *pub, EVP_PKEY **ret)
{
	struct csm_bin number;
	OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
	BIGNUM *bn = BN_secure_new();
	int r = number_get(in, pub, &number);

	if (r != 0)
		goto out;
	r = CSM_ENOMEM;
	if (bld == NULL || bn == NULL || BN_bin2bn(number.p, (int)number.n, bn) == NULL)
		goto out;
	BN_set_flags(bn, BN_FLG_CONSTTIME);
	r = pub->type == TPM2_ALG_ECC ? ecc_pair(bn, pub, bld, ret) : rsa_pair(bn, pub, bld, ret);
out:
	BN_clear_free(bn);
	OSSL_PARAM_BLD_free(bld);
	ERR_clear_error();
	return r;
}
