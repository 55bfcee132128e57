/* The rules of an issuer's key, as its record keeps them. */
#ifndef CSM_NODE_KEYRULES_H
#define CSM_NODE_KEYRULES_H

#include "libclient/wire/msg.h"

struct keyrules {
	struct csm_msg_issuer_rules rules; /* its arrays are names */
	struct csm_str names[2 * CSM_ISSUER_NAMES_MAX];
};
/* Appended. CSM_ETOO_LARGE beyond out's cap. */
CSM_MUST int keyrules_pack(const struct csm_msg_issuer_rules *rules, struct csm_buf *out);
/* Texts are slices of packed. CSM_ETAMPERED. */
CSM_MUST int keyrules_unpack(struct csm_bin packed, struct keyrules *ret);

#endif
