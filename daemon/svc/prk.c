#define OPENSSL_SUPPRESS_DEPRECATED
#include "daemon/svc/prk.h"

#include <sodium.h>
#include <string.h>

#include "libclient/base/lockmem.h"

static void prk_pad(SHA256_CTX *c, const uint8_t *key, uint8_t pad)
{
	CSM_WIPED(block, SHA256_CBLOCK);

	memset(block, pad, SHA256_CBLOCK);
	for (size_t i = 0; i < PRK_KEY_LEN; i++)
		block[i] ^= key[i];
	SHA256_Init(c);
	SHA256_Update(c, block, SHA256_CBLOCK);
}

void prk_init(struct prk *prk, const uint8_t key[static PRK_KEY_LEN])
{
	prk_pad(&prk->inner, key, 0x36);
	prk_pad(&prk->outer, key, 0x5c);
}

void prk_mac(const struct prk *prk, const struct part *parts, size_t n, uint8_t out[static 32])
{
	SHA256_CTX c = prk->inner;

	for (size_t i = 0; i < n; i++)
		SHA256_Update(&c, parts[i].p, parts[i].n);
	SHA256_Final(out, &c);
	c = prk->outer;
	SHA256_Update(&c, out, SHA256_DIGEST_LENGTH);
	SHA256_Final(out, &c);
	sodium_memzero(&c, sizeof(c));
}

void sha256_parts(const struct part *parts, size_t n, uint8_t out[static 32])
{
	SHA256_CTX c;

	SHA256_Init(&c);
	for (size_t i = 0; i < n; i++)
		SHA256_Update(&c, parts[i].p, parts[i].n);
	SHA256_Final(out, &c);
}

void sha256_of(const void *p, size_t n, uint8_t out[static 32])
{
	sha256_parts(&(struct part){p, n}, 1, out);
}
