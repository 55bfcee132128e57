/* Where the store's root key comes from: the TPM, a passphrase, a file or a systemd credential. */
#ifndef CSM_NODE_ROOT_H
#define CSM_NODE_ROOT_H

#include "daemon/node/broker.h"

/* Fill the store's source by the configuration. CSM_EUNAVAILABLE: what it needs is away (may be tried again);
 * CSM_EINVALID: the configuration lacks something; why says what. */
CSM_MUST int root_source(struct broker *b, struct csm_root_source *ret, const char **why);

/* The root key of the open store, sealed anew as the configuration has it and proven by an unseal; on the TPM's owner's
 * thread. Nothing is stored. why: a text for the administrator where it fails. */
#define ROOT_WRAPPED_MAX 4096u
struct root_reseal {
	uint8_t wrapped[ROOT_WRAPPED_MAX];
	size_t len;
	char sealed[80]; /* what it is under */
	char why[240];
};
CSM_MUST int root_reseal(struct broker *b, struct root_reseal *ret);
/* The root key of the store, unsealed; the same thread. CSM_EINVALID: what came out is not the store's. */
CSM_MUST int root_unseal(struct broker *b, struct csm_store *store, uint8_t key[static 32]);
/* Seal this key as the configuration has it, and prove it. The same thread. */
CSM_MUST int root_seal_proven(struct broker *b, const uint8_t key[static 32], struct root_reseal *ret);

#endif
