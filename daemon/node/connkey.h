/* Keys that live as long as the connection that made them: in locked memory, in no record of the store, and found only by
 * requests of that connection. Their names begin with a dot, which no stored key's does. Loop thread only. */
#ifndef CSM_NODE_CONNKEY_H
#define CSM_NODE_CONNKEY_H

#include "daemon/node/dispatch.h"

struct connkey {
	struct connkey *next;
	struct csm_str text;       /* "NS:.NAME" */
	struct csm_key_record rec; /* with priv */
	uint8_t *private;          /* locked memory */
	struct admit_slot *slot;   /* charged for it */
	size_t charged;
	uint8_t bytes[];
};

bool connkey_is_name(struct csm_str name);
/* NULL: the connection has none of this name. */
struct connkey *connkey_find(const struct conn *c, struct csm_str text);
/* Would one more be taken? CSM_EEXISTS, CSM_EBUSY. */
CSM_MUST int connkey_check(const struct conn *c, struct csm_str text);
/* Copies; text is the whole name. CSM_EEXISTS, CSM_EBUSY, CSM_ENOMEM. */
CSM_MUST int connkey_put(struct conn *c, struct csm_str text, const struct csm_key_record *rec);
/* Wiped, and what is loaded of it too. */
void connkey_drop(struct conn *c, struct connkey *k);
void connkey_drop_all(struct conn *c);

#endif
