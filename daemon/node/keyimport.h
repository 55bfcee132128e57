/* What a key that comes in wrapped says of itself, before any back end is asked. */
#ifndef CSM_NODE_KEYIMPORT_H
#define CSM_NODE_KEYIMPORT_H

#include "daemon/node/broker.h"
#include "libclient/tpmfmt/keyfile.h"

/* The Name of a storage key. CSM_EINVALID, CSM_EUNSUPPORTED. */
CSM_MUST int keyimport_name(struct csm_bin storage, uint8_t name[static CSM_TPM_NAME_LEN]);
/* Which of the broker's back ends the key was wrapped for, and what it is. *why: for the answer, may become NULL.
 * CSM_EINVALID: no wrapped key, or for another node; CSM_EUNSUPPORTED; CSM_EUNAVAILABLE: a back end that it may be for
 * is away. */
CSM_MUST int keyimport_look(struct broker *b, struct csm_bin wrapped, struct csm_plugin_keyspec *spec,
	struct csm_backend **be, const char **why);

#endif
