/* A key's public facts as messages. */
#ifndef CSM_NODE_KEYINFO_H
#define CSM_NODE_KEYINFO_H

#include "daemon/node/keyrules.h"
#include "daemon/svc/store.h"
#include "libclient/wire/msg.h"

#define KEYINFO_PEM_MAX 2048u

/* What a struct csm_msg_key_info points to. */
struct keyinfo_space {
	char pem[KEYINFO_PEM_MAX];
	char spki_sha256[65];
	struct csm_str uses[3];
	struct keyrules issuer;
};

/* PEM (RFC 7468) with any label. */
CSM_MUST int keyinfo_armour(const char *label, struct csm_bin der, char *out, size_t cap, struct csm_str *ret);
/* PEM of a SubjectPublicKeyInfo. */
CSM_MUST int keyinfo_pem(struct csm_bin spki, char *out, size_t cap, struct csm_str *ret);
/* Fill *ret; it borrows rec, ns, name and space. */
CSM_MUST int keyinfo_fill(struct csm_str ns, struct csm_str name, const struct csm_key_record *rec,
	struct keyinfo_space *space, struct csm_msg_key_info *ret);

#endif
