/* What the store keeps of a certificate: what is told of it, and its chain. */
#ifndef CSM_NODE_CERTINFO_H
#define CSM_NODE_CERTINFO_H

#include "libclient/base/buf.h"
#include "libclient/wire/msg.h"

/* The store's form (a version, the length of the encoded info, the info, the chain), appended to out. Of info
 * namespace, name, state and chain are not kept; installed is, where it is
 * not that of the record. A chain of no bytes: there is no certificate yet. */
CSM_MUST int certinfo_pack(const struct csm_msg_cert_info *info, struct csm_bin chain, struct csm_buf *out);
/* Back: *info and *chain borrow payload and the pool. namespace and name are left empty for the caller, state is
 * that of `now`, "revoked" or "pending". CSM_ETAMPERED where it is no such form. */
CSM_MUST int certinfo_unpack(struct csm_bin payload, uint64_t now, struct csm_pool *pool, struct csm_msg_cert_info *info,
	struct csm_bin *chain);

/* The state of what was unpacked. */
const char *certinfo_state(const struct csm_msg_cert_info *info, uint64_t now);

#endif
