/* Shamir's sharing of a 32-byte secret, by libgfshare (over GF(2^8), each byte for itself), whose memory is locked here and
 * wiped when it is freed. One thread at a time in each call; any thread. */
#ifndef CSM_SVC_SHARES_H
#define CSM_SVC_SHARES_H

#include "libclient/base/share.h"

/* n shares of which k are needed: fills index and share of the first n of ret. CSM_EINVALID: not 2 <= k <= n <=
 * CSM_SHARES_MAX. CSM_ENOMEM. */
CSM_MUST int csm_shares_split(const uint8_t secret[static CSM_SHARE_LEN], unsigned k, unsigned n, struct csm_share *ret);
/* The secret of k shares with different indices; nothing tells whether they belong together. CSM_EINVALID, CSM_ENOMEM. */
CSM_MUST int csm_shares_join(const struct csm_share *shares, unsigned k, uint8_t secret[static CSM_SHARE_LEN]);

#endif
