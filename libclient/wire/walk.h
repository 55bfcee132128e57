/* Stepping over MessagePack values without recursion or allocation. Private to wire. */
#ifndef CSM_WIRE_WALK_H
#define CSM_WIRE_WALK_H

#include "libclient/wire/frame.h"
#include "libclient/wire/head.h"

/* Stands before one value. */
void csm_walk_init(struct csm_scanner *w);
/* Go on to the value's end: 0, and w->pos is its length. CSM_EBUSY: *need is the least length
 * that it can have. CSM_ETOO_LARGE: it cannot fit in `limit` bytes, or it is too deep.
 * CSM_EPROTOCOL: a byte that csm's messages do not have. */
CSM_MUST int csm_walk(struct csm_scanner *w, const uint8_t *p, size_t n, size_t limit, size_t *need);

#endif
