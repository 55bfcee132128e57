/* OpenSSL looks for decoders and algorithms at their first use and remembers what it found. What it did not find for want
 * of memory just then it remembers as well, for as long as the process lives: so the first use comes in the start. */
#include <string.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/x509.h>
#include "daemon/pki/cert.h"

#define RSA_BYTES 256

/* Any odd number will do: nothing is signed with it. */
static EVP_PKEY *some_rsa(void)
{
	uint8_t n[RSA_BYTES];
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
	OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
	OSSL_PARAM *params = NULL;
	EVP_PKEY *key = NULL;
	BIGNUM *bn;

	memset(n, 0xff, sizeof(n));
	bn = BN_bin2bn(n, sizeof(n), NULL);
	if (ctx != NULL && bld != NULL && bn != NULL && OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_N, bn) == 1 &&
		OSSL_PARAM_BLD_push_uint(bld, OSSL_PKEY_PARAM_RSA_E, 65537) == 1 &&
		(params = OSSL_PARAM_BLD_to_param(bld)) != NULL && EVP_PKEY_fromdata_init(ctx) == 1 &&
		EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
		key = NULL;
	OSSL_PARAM_free(params);
	OSSL_PARAM_BLD_free(bld);
	EVP_PKEY_CTX_free(ctx);
	BN_free(bn);
	return key;
}

/* Encode the key, read it back, and verify with what was read: a signature that is none. */
static bool use(EVP_PKEY *key, const EVP_MD *md)
{
	uint8_t sig[RSA_BYTES] = {0};
	unsigned char *der = NULL;
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	EVP_PKEY *back = NULL;
	const unsigned char *p;
	int n = key != NULL ? i2d_PUBKEY(key, &der) : 0;
	bool good = false;

	p = der;
	if (ctx != NULL && n > 0 && (back = d2i_PUBKEY(NULL, &p, n)) != NULL)
		good = EVP_DigestVerifyInit(ctx, NULL, md, NULL, back) == 1 &&
			EVP_DigestVerify(ctx, sig, sizeof(sig), (const unsigned char *)"", 0) != 1;
	OPENSSL_free(der);
	EVP_PKEY_free(back);
	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(key);
	return good;
}

int csm_cert_prepare(void)
{
	bool good = use(some_rsa(), EVP_sha256()) && use(EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256"), EVP_sha256()) &&
		use(EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"), NULL);

	ERR_clear_error();
	return good ? 0 : CSM_ENOMEM;
}
