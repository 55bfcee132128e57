/* Do the parts of a stored RSA key belong together? The primes themselves are not tested anew: the key
 * was made here, and what is looked for is damage. */
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include "plugins/soft/soft.h"

enum { N, E, D, P, Q, DP, DQ, QINV, PARTS };

static const char *const names[PARTS] = {
	[N] = OSSL_PKEY_PARAM_RSA_N,
	[E] = OSSL_PKEY_PARAM_RSA_E,
	[D] = OSSL_PKEY_PARAM_RSA_D,
	[P] = OSSL_PKEY_PARAM_RSA_FACTOR1,
	[Q] = OSSL_PKEY_PARAM_RSA_FACTOR2,
	[DP] = OSSL_PKEY_PARAM_RSA_EXPONENT1,
	[DQ] = OSSL_PKEY_PARAM_RSA_EXPONENT2,
	[QINV] = OSSL_PKEY_PARAM_RSA_COEFFICIENT1,
};

/* a * b mod m is 1. */
static bool inverse(const BIGNUM *a, const BIGNUM *b, const BIGNUM *m, BN_CTX *bn)
{
	BIGNUM *t;
	bool ok;

	BN_CTX_start(bn);
	ok = (t = BN_CTX_get(bn)) != NULL && BN_mod_mul(t, a, b, m, bn) == 1 && BN_is_one(t);
	BN_CTX_end(bn);
	return ok;
}

/* For one prime p: e * d = 1 mod (p - 1), and dp = d mod (p - 1). */
static bool exponent(const BIGNUM *p, const BIGNUM *e, const BIGNUM *d, const BIGNUM *dp, BN_CTX *bn)
{
	BIGNUM *p1, *t;
	bool ok;

	BN_CTX_start(bn);
	p1 = BN_CTX_get(bn);
	t = BN_CTX_get(bn);
	ok = t != NULL && BN_sub(p1, p, BN_value_one()) == 1 && !BN_is_zero(p1);
	if (ok)
		BN_set_flags(p1, BN_FLG_CONSTTIME);
	ok = ok && inverse(e, d, p1, bn) && BN_mod(t, d, p1, bn) == 1 && BN_cmp(t, dp) == 0;
	BN_CTX_end(bn);
	return ok;
}

int soft_rsa_consistent(EVP_PKEY *pkey)
{
	BIGNUM *part[PARTS] = {NULL}, *n;
	BN_CTX *bn = BN_CTX_secure_new(); /* wipes what it held */
	int r = CSM_ETAMPERED;

	for (unsigned i = 0; i < PARTS; i++) {
		if (EVP_PKEY_get_bn_param(pkey, names[i], &part[i]) != 1)
			goto out;
		BN_set_flags(part[i], BN_FLG_CONSTTIME);
	}
	if (bn == NULL) {
		r = CSM_EBACKEND;
		goto out;
	}
	BN_CTX_start(bn);
	if ((n = BN_CTX_get(bn)) != NULL && BN_mul(n, part[P], part[Q], bn) == 1 && BN_cmp(n, part[N]) == 0 &&
		exponent(part[P], part[E], part[D], part[DP], bn) &&
		exponent(part[Q], part[E], part[D], part[DQ], bn) && inverse(part[Q], part[QINV], part[P], bn))
		r = 0;
	BN_CTX_end(bn);
out:
	for (unsigned i = 0; i < PARTS; i++)
		BN_clear_free(part[i]);
	BN_CTX_free(bn);
	return r;
}
