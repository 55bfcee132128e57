#include "daemon/svc/shares.h"

#include <libgfshare.h>
#include <pthread.h>
#include <sodium.h>
#include <string.h>
#include "libclient/base/lockmem.h"

/* The library's own choice is random(3). It also fills with this what it frees. */
static void fill(unsigned char *p, unsigned int n)
{
	randombytes_buf(p, n);
}

static void set_fill(void)
{
	gfshare_fill_rand = fill;
}

static void prepare(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	(void)pthread_once(&once, set_fill);
}

int csm_shares_split(const uint8_t secret[static CSM_SHARE_LEN], unsigned k, unsigned n, struct csm_share *ret)
{
	CSM_WIPED(copy, CSM_SHARE_LEN);
	unsigned char numbers[CSM_SHARES_MAX];
	gfshare_ctx *ctx;

	if (k < 2 || k > n || n > CSM_SHARES_MAX)
		return CSM_EINVALID;
	prepare();
	for (unsigned i = 0; i < n; i++)
		numbers[i] = (unsigned char)(i + 1); /* 0 is where the secret is */
	ctx = gfshare_ctx_init_enc(numbers, n, (unsigned char)k, CSM_SHARE_LEN);
	if (ctx == NULL)
		return CSM_ENOMEM;
	memcpy(copy, secret, CSM_SHARE_LEN);
	gfshare_ctx_enc_setsecret(ctx, copy);
	for (unsigned i = 0; i < n; i++) {
		ret[i].index = numbers[i];
		gfshare_ctx_enc_getshare(ctx, (unsigned char)i, ret[i].share);
	}
	gfshare_ctx_free(ctx);
	return 0;
}

int csm_shares_join(const struct csm_share *shares, unsigned k, uint8_t secret[static CSM_SHARE_LEN])
{
	CSM_WIPED(copy, CSM_SHARE_LEN);
	unsigned char numbers[CSM_SHARES_MAX];
	gfshare_ctx *ctx;

	if (k < 2 || k > CSM_SHARES_MAX)
		return CSM_EINVALID;
	prepare();
	for (unsigned i = 0; i < k; i++) {
		numbers[i] = shares[i].index;
		if (numbers[i] == 0 || memchr(numbers, numbers[i], i) != NULL)
			return CSM_EINVALID;
	}
	ctx = gfshare_ctx_init_dec(numbers, k, CSM_SHARE_LEN);
	if (ctx == NULL)
		return CSM_ENOMEM;
	for (unsigned i = 0; i < k; i++) {
		memcpy(copy, shares[i].share, CSM_SHARE_LEN);
		gfshare_ctx_dec_giveshare(ctx, (unsigned char)i, copy);
	}
	gfshare_ctx_dec_extract(ctx, secret);
	gfshare_ctx_free(ctx);
	return 0;
}
