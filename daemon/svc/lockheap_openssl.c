/* OpenSSL's three hooks over the heap. Its keys hold private numbers in ordinary allocations too (the Montgomery form of an
 * RSA key has copies of its primes), so its "secure" heap alone would not do. */
#include <openssl/crypto.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sodium.h>
#include "daemon/svc/lockheap.h"

#ifdef CSM_SANITIZED
/* malloc, with the size in front: the sanitizers see each block. */
#define HEAD 16u

static void *heap_alloc(size_t n)
{
	size_t *p = n == 0 || n > SIZE_MAX - HEAD ? NULL : malloc(n + HEAD);

	if (p == NULL)
		return NULL;
	*p = n;
	return (uint8_t *)p + HEAD;
}

static void heap_free(void *p)
{
	size_t *head;

	if (p == NULL)
		return;
	head = (size_t *)(void *)((uint8_t *)p - HEAD);
	sodium_memzero(p, *head);
	free(head);
}

static void *heap_realloc(void *p, size_t n)
{
	size_t old = p == NULL ? 0 : *(size_t *)(void *)((uint8_t *)p - HEAD);
	void *more = n == 0 ? NULL : heap_alloc(n);

	if (more != NULL && p != NULL)
		memcpy(more, p, old < n ? old : n);
	if (more != NULL || n == 0)
		heap_free(p);
	return more;
}

static int heap_init(size_t max)
{
	(void)max;
	return 0;
}
#else
#define heap_alloc csm_lockheap_alloc
#define heap_realloc csm_lockheap_realloc
#define heap_free csm_lockheap_free
#define heap_init csm_lockheap_init
#endif

static void (*_Atomic without)(void);

static _Thread_local unsigned missed;

static void *had(void *p, size_t n)
{
	void (*fn)(void) = without;

	if (p != NULL || n == 0)
		return p;
	missed++;
	if (fn != NULL)
		fn();
	return NULL;
}

unsigned csm_lockheap_openssl_missed(void)
{
	return missed;
}

void csm_lockheap_openssl_without(void (*fn)(void))
{
	without = fn;
}

static void *hook_alloc(size_t n, const char *file, int line)
{
	(void)file;
	(void)line;
	return had(heap_alloc(n), n);
}

static void *hook_realloc(void *p, size_t n, const char *file, int line)
{
	(void)file;
	(void)line;
	return had(heap_realloc(p, n), n);
}

static void hook_free(void *p, const char *file, int line)
{
	(void)file;
	(void)line;
	heap_free(p);
}

int csm_lockheap_for_openssl(size_t max)
{
	int r = heap_init(max);

	if (r != 0)
		return r;
	return CRYPTO_set_mem_functions(hook_alloc, hook_realloc, hook_free) == 1 ? 0 : CSM_ESTATE;
}
