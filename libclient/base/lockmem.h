/* Memory for what must not reach swap, a core file or the next owner of the page:
 * locked, MADV_DONTDUMP, MADV_DONTFORK, and wiped on free. Size classes from one
 * arena up to 64 KiB, above that a mapping each. Any thread. */
#ifndef CSM_BASE_LOCKMEM_H
#define CSM_BASE_LOCKMEM_H

#include <stddef.h>
#include <stdbool.h>
#include "libclient/base/err.h"

/* Map and lock the arena (bytes, rounded up to pages). Called once, before threads, and not in
 * a library: a child of fork has no arena. Where the lock is refused (RLIMIT_MEMLOCK) it goes on
 * unlocked; csm_lockmem_locked tells: true when there is an arena, it is locked, and so is all else that is in use.
 * Mappings for messages are locked up to half of the limit, so that they leave some of it to keys.
 * CSM_EINVALID, CSM_ESTATE (there is one), CSM_ENOMEM. */
CSM_MUST int csm_lockmem_init(size_t arena);
bool csm_lockmem_locked(void);

/* NULL when there is no memory; contents undefined; aligned to 16. Without csm_lockmem_init,
 * beyond the largest class, or when the arena is full it is a mapping of its own (some
 * microseconds), which a child of fork finds full of zeros (MADV_WIPEONFORK) and may free. */
void *csm_lock_alloc(size_t size);
/* The same for what others send and may send in part only. As a mapping of its own it is not locked while such mappings
 * hold half of what may be locked. */
void *csm_lock_alloc_message(size_t size);
/* The usable size of p, at least what was asked for; 0 for one that a fork has wiped. */
size_t csm_lock_size(const void *p);
/* Wipe and give back. NULL is a no-op. A second free, or a pointer that is none, aborts. */
void csm_lock_free(void *p);

/* The calling thread's stack: locked as far as it is used, and left out of core files. For threads of a program's own,
 * at their start; csm_lockmem_locked tells whether the lock was refused. */
void csm_lock_stack(void);
/* Memory that another library says it has locked: true only if it is (libsodium passes over a refused lock). */
bool csm_lock_again(const void *p, size_t n);
/* Wipe the stack below the caller, n bytes of it at most 64 KiB: what calls before have left there. */
void csm_wipe_stack(size_t n);

/* Wipe by scope: CSM_WIPED(buf, 32); declares uint8_t buf[32] = {0}, wiped at the end of its scope. */
struct csm_wipe {
	void *p;
	size_t n;
};
void csm_wipe_scope(struct csm_wipe *w);
#define CSM_WIPED(name, size) \
	uint8_t name[size] = {0}; \
	__attribute__((cleanup(csm_wipe_scope), unused)) struct csm_wipe name##_wipe = {name, sizeof(name)}

#endif
