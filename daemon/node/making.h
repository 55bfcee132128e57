/* Keys that a device itself keeps, between the device and the store. Before such a key is made, or its record deleted, its
 * id is written down; what a crash or a lost race then leaves in the device is ended there by its id, at once, or when
 * the back end is next looked at. Any thread. */
#ifndef CSM_NODE_MAKING_H
#define CSM_NODE_MAKING_H

#include <pthread.h>
#include "daemon/svc/backend.h"
#include "daemon/svc/store.h"
#include "libclient/base/name.h"
#include "proto-spec/limits.h"

#define MAKING_MAX 128u

struct op;
struct broker;
struct making_entry {
	bool used;
	bool left; /* nobody works on it: whether the key is stored decides */
	uint8_t id[CSM_KEY_ID_LEN];
	char backend[CSM_TOKEN_STR_MAX + 1], ns[CSM_NAMESPACE_MAX + 1], name[CSM_NAME_MAX + 1];
};
struct making {
	pthread_mutex_t lock;
	bool read; /* what the broker before has left */
	struct making_entry entry[MAKING_MAX];
};
/* What is on its way to the store: part of the operation. */
struct making_note {
	struct csm_store_op sop;
	uint8_t *text; /* the caller frees it when the operation ends */
};

void making_init(struct making *m);
/* Does the back end keep keys, so that all this is needed? */
bool making_needed(const struct csm_backend *be);
/* Write down that the key is about to be made, or to be deleted; apply runs on the loop when that is durable, op->r tells.
 * On failure nothing was taken. CSM_EBUSY. */
CSM_MUST int making_begin(struct op *op, struct making_note *note, const struct csm_backend *be,
	const uint8_t id[static CSM_KEY_ID_LEN], struct csm_str ns, struct csm_str name, void (*apply)(struct op *));
/* Device and store agree again. */
void making_end(struct making *m, const uint8_t id[static CSM_KEY_ID_LEN]);
/* They may not: making_look is to see. */
void making_leave(struct making *m, const uint8_t id[static CSM_KEY_ID_LEN]);
/* End in the device what is not in the store. On the back end's thread, with the back end open. */
void making_look(struct broker *b, struct csm_backend *be);

#endif
