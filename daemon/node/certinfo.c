#include <string.h>
#include "daemon/node/certinfo.h"
#include "daemon/pki/cert.h"

#define FORM 1u
#define HEAD 5u /* form (1), length (4) */

int certinfo_pack(const struct csm_msg_cert_info *info, struct csm_bin chain, struct csm_buf *out)
{
	struct csm_msg_cert_info kept = *info;
	uint8_t head[HEAD] = {FORM};
	struct csm_buf body;
	int r;

	kept.namespace = kept.name = kept.state = CSM_STR("");
	if (kept.last_error.p == NULL)
		kept.last_error = CSM_STR("");
	kept.chain = (struct csm_bin){NULL, 0};
	csm_buf_init(&body, CSM_MESSAGE_MAX, false);
	if ((r = csm_msg_encode(CSM_DEF(cert_info), &kept, &body)) != 0)
		goto out;
	for (unsigned i = 0; i < 4; i++)
		head[1 + i] = (uint8_t)(body.len >> (24 - 8 * i));
	if ((r = csm_buf_put(out, head, sizeof(head))) == 0 && (r = csm_buf_put(out, csm_buf_ptr(&body), body.len)) == 0)
		r = csm_buf_put(out, chain.p, chain.n);
out:
	csm_buf_free(&body);
	return r;
}

const char *certinfo_state(const struct csm_msg_cert_info *info, uint64_t now)
{
	if (info->serial.n == 0)
		return "pending";
	return info->revoked.set ? "revoked" : csm_cert_state(info->not_before.v, info->not_after.v, now);
}

int certinfo_unpack(struct csm_bin payload, uint64_t now, struct csm_pool *pool, struct csm_msg_cert_info *info,
	struct csm_bin *chain)
{
	struct csm_msg_cert_info got;
	struct csm_str bad;
	size_t n = 0;

	if (payload.n < HEAD || payload.p[0] != FORM)
		return CSM_ETAMPERED;
	for (unsigned i = 0; i < 4; i++)
		n = n << 8 | payload.p[1 + i];
	if (n > payload.n - HEAD)
		return CSM_ETAMPERED;
	/* A later version may have written fields that this one does not know. */
	if (csm_msg_decode(CSM_DEF(cert_info), (struct csm_bin){payload.p + HEAD, n}, CSM_UNKNOWN_SKIP, pool, &got, &bad) != 0)
		return CSM_ETAMPERED;
	got.state = csm_str_of(certinfo_state(&got, now));
	*info = got;
	*chain = (struct csm_bin){payload.p + HEAD + n, payload.n - HEAD - n};
	return 0;
}
