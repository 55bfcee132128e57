/* Digests of files, by device, inode, change time and size; the oldest goes first. One thread. */
#ifndef CSM_IDENT_CACHE_H
#define CSM_IDENT_CACHE_H

#include <stddef.h>
#include "daemon/ident/look.h"

#define CACHE_ENTRIES 256u

struct cache_entry {
	uint64_t device, inode, size, changed;
	uint8_t sha256[32];
};
struct cache {
	struct cache_entry e[CACHE_ENTRIES];
	size_t n, next;
};

/* NULL: not there. Borrowed until the next put. */
const uint8_t *cache_get(const struct cache *c, const struct look *l);
/* now: as l->changed. A file that changed within the last second is not taken: another change may have the same time.
 */
void cache_put(struct cache *c, const struct look *l, const uint8_t sha256[static 32], uint64_t now);

#endif
