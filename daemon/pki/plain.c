#include "daemon/pki/plain.h"

#include <openssl/crypto.h>
#include <openssl/provider.h>
#include <pthread.h>
#include <stddef.h>

/* A library context that has no algorithms at all, so that nobody in it can decode a key. Made once, kept for ever. */
static OSSL_LIB_CTX *plain;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Without it OpenSSL's own is taken, which is slower and nothing else. */
static void make(void)
{
	OSSL_LIB_CTX *ctx = OSSL_LIB_CTX_new();

	if (ctx != NULL && OSSL_PROVIDER_load(ctx, "null") != NULL)
		plain = ctx;
	else
		OSSL_LIB_CTX_free(ctx);
}

void *csm_plain_d2i(const unsigned char **at, long n, const ASN1_ITEM *it)
{
	(void)pthread_once(&once, make);
	return ASN1_item_d2i_ex(NULL, at, n, it, plain, NULL);
}
