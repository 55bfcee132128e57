/* Any bytes as a chain that is to stand beside a key: refused with a reason, or taken, and then what is told of it is text
 * within its bounds and comes back from the store's form as it was. The key is that of the first certificate, if it has one. */
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>

#include "daemon/node/certinfo.h"
#include "daemon/pki/cert.h"
#include "proto-spec/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void text(struct csm_str s, size_t max)
{
	must(s.n <= max && csm_utf8_valid(s.p, s.n));
	for (size_t i = 0; i < s.n; i++)
		must((uint8_t)s.p[i] >= 0x20 && s.p[i] != 0x7f);
}

static void told(const struct csm_msg_cert_info *info)
{
	text(info->serial, CSM_TOKEN_STR_MAX);
	text(info->subject, CSM_CERT_NAME_MAX);
	text(info->issuer, CSM_CERT_NAME_MAX);
	text(info->fingerprint, 64);
	must(info->san.n <= CSM_CERT_SANS_MAX);
	for (size_t i = 0; i < info->san.n; i++)
		text(info->san.v[i], CSM_SAN_MAX);
	must(info->not_before.v <= info->renew_at.v && info->renew_at.v <= info->not_after.v);
}

static void keep(const struct csm_msg_cert_info *info, struct csm_bin chain, struct csm_pool *pool)
{
	struct csm_msg_cert_info back;
	struct csm_bin chain_back;
	struct csm_buf form;

	csm_buf_init(&form, CSM_MESSAGE_MAX, false);
	must(certinfo_pack(info, chain, &form) == 0);
	must(certinfo_unpack((struct csm_bin){csm_buf_ptr(&form), form.len}, info->not_after.v, pool, &back, &chain_back) == 0);
	must(csm_str_same(back.subject, info->subject) && back.san.n == info->san.n);
	must(chain_back.n == chain.n && memcmp(chain_back.p, chain.p, chain.n) == 0);
	csm_buf_free(&form);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct csm_bin chain = {data, size};
	struct csm_msg_cert_info info;
	char why[CSM_CERT_WHY] = "";
	unsigned char *spki = NULL;
	const unsigned char *p = data;
	struct csm_bin payload_chain;
	struct csm_pool pool;
	X509 *x = d2i_X509(NULL, &p, (long)size);
	int n = x != NULL ? i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &spki) : 0, r;

	csm_pool_init(&pool, 512 * 1024);
	/* at a time within most lives, so that what comes behind the dates is reached */
	r = csm_cert_check(chain, (struct csm_bin){spki, n > 0 ? (size_t)n : 0}, 1000000000, &pool, &info, why);
	if (r == 0) {
		told(&info);
		keep(&info, chain, &pool);
	} else {
		must(r == CSM_ENOMEM || (strlen(why) > 0 && csm_utf8_valid(why, strlen(why))));
	}
	/* and as what a changed store may hold */
	csm_pool_reset(&pool);
	r = certinfo_unpack(chain, 0, &pool, &info, &payload_chain);
	must(r == 0 || r == CSM_ETAMPERED);
	csm_pool_free(&pool);
	OPENSSL_free(spki);
	X509_free(x);
	ERR_clear_error();
	return 0;
}
