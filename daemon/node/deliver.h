/* The broker's side of csm-deliver: which certificates are in which of root's folders, and the next one that is due. What
 * csm-deliver said last of its targets is kept for status and cert.get; nothing of it is believed but which keys it wants. */
#ifndef CSM_NODE_DELIVER_H
#define CSM_NODE_DELIVER_H

#include "daemon/node/dispatch.h"

struct deliver;

struct deliver *deliver_new(void); /* ends in NULL without memory */
void deliver_free(struct deliver *d); /* NULL is a no-op */
/* The helper's connection is closing. Its loop's thread. */
void deliver_detach(struct deliver *d, struct conn *c);
/* Once a second, and when a certificate has changed: is something due? A loop's thread. */
void deliver_tick(struct loop *l);
/* A key has another certificate, or none. Any thread. */
void deliver_changed(struct broker *b);
/* At a reload, of which csm-deliver knows already: its request ends, and the next one says how deliver.yaml is now. Any thread. */
void deliver_ask_anew(struct broker *b);
/* How the key ns:name stands: delivered and delivery_error of *info; the text comes from the pool. Any loop's thread. */
void deliver_tell(struct deliver *d, struct csm_pool *pool, struct csm_msg_cert_info *info);
/* All targets, and a warning where deliver.yaml is not what is in force ("" if it is). From the pool; false: no memory. */
bool deliver_status(struct deliver *d, struct csm_pool *pool, struct csm_msg_status_res *ret, char warning[static 256]);

#endif
