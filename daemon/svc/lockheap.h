/* A heap for a library that asks often and for little, as OpenSSL does: all of it locked, left out of core files and of
 * children of fork, wiped when it is given back. Size classes up to 32 KiB from one region, a free list of each per thread,
 * so that threads meet only when they fetch or return many blocks at once; larger blocks are csm_lock_alloc's.
 * Any thread; what a thread that ends has free stays unused (the broker's threads last as long as it does). */
#ifndef CSM_SVC_LOCKHEAP_H
#define CSM_SVC_LOCKHEAP_H

#include <stdbool.h>
#include <stddef.h>
#include "libclient/base/err.h"

/* Once, before threads. max: addresses to set aside; memory is taken, and locked, as it is needed. CSM_EINVALID,
 * CSM_ESTATE (there is one), CSM_ENOMEM. */
CSM_MUST int csm_lockheap_init(size_t max);
/* NULL when there is no memory, or for 0 bytes; all zeros, aligned to 16. */
void *csm_lockheap_alloc(size_t n);
/* As realloc; what grew is zeros. NULL and p unchanged when there is no memory; n 0 frees. */
void *csm_lockheap_realloc(void *p, size_t n);
/* Wipe and give back; NULL is a no-op. A damaged list of free blocks, and a pointer that is none, abort. */
void csm_lockheap_free(void *p);
/* The usable size of p. */
size_t csm_lockheap_size(const void *p);

/* True when no lock was ever refused. *taken: bytes in use or kept for use. */
bool csm_lockheap_locked(size_t *taken);

/* OpenSSL's memory is this heap's from now on; before its first use. In sanitizer builds it stays malloc's, wiped. */
CSM_MUST int csm_lockheap_for_openssl(size_t max);
/* Call fn when OpenSSL gets no memory, before it is told; NULL: no more. */
void csm_lockheap_openssl_without(void (*fn)(void));
/* How often OpenSSL got no memory in this thread. It does not always say so: a parser that ran out of memory may call what
 * it read malformed. */
unsigned csm_lockheap_openssl_missed(void);

#endif
