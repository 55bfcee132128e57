/* Where the store's root key comes from: the TPM, a passphrase, a file or a systemd credential. */
#ifndef CSM_NODE_ROOT_H
#define CSM_NODE_ROOT_H

#include "daemon/node/broker.h"

/* Fill the store's source by the configuration. CSM_EUNAVAILABLE: what it needs is away (may be tried again);
 * CSM_EINVALID: the configuration lacks something; why says what. */
CSM_MUST int root_source(struct broker *b, struct csm_root_source *ret, const char **why);

#endif
