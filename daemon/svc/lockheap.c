#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sodium.h>
#include "daemon/svc/lockheap.h"
#include "libclient/base/lockmem.h"

/* Classes: 16 to 128 bytes in steps of 16, then four to a doubling. */
#define FINE 8u
#define CLASSES 40u
#define CLASS_MAX 32768u
#define PAGE 4096u
#define GRAIN (64u * 1024u) /* opened, and locked, at a time */
#define CACHE_BYTES 4096u   /* of one class fetched or returned at a time */
#define CACHE_BLOCKS 32u
#define NO_CLASS 0xff

/* The head of a free block. The pointer is mixed with its place and a secret, so that whoever writes into a freed block
 * does not choose what is handed out next. All other bytes of a free block are zero. */
struct link {
	uintptr_t mixed;
};
struct list {
	struct link *head;
	unsigned n;
};

static struct {
	uint8_t *base;
	size_t size;
	uint8_t *class_of; /* of each page; written once, before a block of it is handed out */
	uintptr_t secret;
	size_t used;      /* under the lock, as all that follows */
	size_t open_to;
	bool refused;
	struct list free[CLASSES];
	pthread_mutex_t lock;
} heap = {.lock = PTHREAD_MUTEX_INITIALIZER};

static __thread struct list cache[CLASSES];

static unsigned class_for(size_t n)
{
	unsigned e;

	if (n <= 16 * FINE)
		return (unsigned)((n + 15) / 16) - 1;
	n--;
	e = 63 - (unsigned)__builtin_clzl(n);
	return FINE + (e - 7) * 4 + (unsigned)(n >> (e - 2) & 3);
}

static size_t class_size(unsigned c)
{
	unsigned e = 7 + (c - FINE) / 4, step = (c - FINE) % 4;

	return c < FINE ? 16 * (c + 1) : ((size_t)1 << e) + ((size_t)(step + 1) << (e - 2));
}

static size_t span_size(unsigned c)
{
	size_t n = class_size(c);

	return n <= 1024 ? PAGE : n <= 4096 ? 4 * PAGE : (n + PAGE - 1) / PAGE * PAGE;
}

static unsigned batch_of(unsigned c)
{
	size_t n = CACHE_BYTES / class_size(c);

	return n > CACHE_BLOCKS ? CACHE_BLOCKS : n < 1 ? 1 : (unsigned)n;
}

static void wipe(void *p, size_t n)
{
	memset(p, 0, n);
	__asm__ __volatile__("" : : "r"(p) : "memory");
}

/* ---- lists ---- */

static void push(struct list *l, struct link *b)
{
	b->mixed = (uintptr_t)l->head ^ (uintptr_t)b ^ heap.secret;
	l->head = b;
	l->n++;
}

static struct link *pop(struct list *l, unsigned c)
{
	struct link *b = l->head;
	size_t at = (size_t)((uint8_t *)b - heap.base);

	if (at >= heap.size || heap.class_of[at / PAGE] != c)
		abort();
	l->head = (struct link *)(b->mixed ^ (uintptr_t)b ^ heap.secret);
	l->n--;
	b->mixed = 0;
	return b;
}

static void move(struct list *from, struct list *to, unsigned c, unsigned n)
{
	while (n-- > 0 && from->n > 0)
		push(to, pop(from, c));
}

/* ---- the region ---- */

/* What is set aside is not memory yet. Where the lock is refused the heap goes on, and says so. */
static bool open_to(size_t end)
{
	uint8_t *p = heap.base + heap.open_to;
	size_t n = end - heap.open_to;

	if (mprotect(p, n, PROT_READ | PROT_WRITE) != 0)
		return false;
	if (mlock2(p, n, MLOCK_ONFAULT) != 0)
		heap.refused = true;
	heap.open_to = end;
	return true;
}

/* Under the lock: cut a new span into free blocks. */
static bool add_span(unsigned c)
{
	size_t span = span_size(c), size = class_size(c), end = heap.used + span;
	uint8_t *p;

	if (heap.base == NULL || end > heap.size)
		return false;
	p = heap.base + heap.used;
	if (end > heap.open_to && !open_to((end + GRAIN - 1) / GRAIN * GRAIN))
		return false;
	memset(heap.class_of + heap.used / PAGE, (int)c, span / PAGE);
	heap.used = end;
	for (size_t at = span / size * size; at > 0; at -= size)
		push(&heap.free[c], (struct link *)(p + at - size));
	return true;
}

static bool fetch(unsigned c)
{
	bool some = true;

	pthread_mutex_lock(&heap.lock);
	if (heap.free[c].n == 0)
		some = add_span(c);
	move(&heap.free[c], &cache[c], c, batch_of(c));
	pthread_mutex_unlock(&heap.lock);
	return some;
}

static void give_back(unsigned c)
{
	pthread_mutex_lock(&heap.lock);
	move(&cache[c], &heap.free[c], c, batch_of(c));
	pthread_mutex_unlock(&heap.lock);
}

int csm_lockheap_init(size_t max)
{
	void *p, *classes;

	if (max < GRAIN || max > SIZE_MAX / 2)
		return CSM_EINVALID;
	if (heap.base != NULL)
		return CSM_ESTATE;
	max = max / GRAIN * GRAIN;
	classes = malloc(max / PAGE);
	p = mmap(NULL, max, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (classes == NULL || p == MAP_FAILED) {
		free(classes);
		return CSM_ENOMEM;
	}
	(void)madvise(p, max, MADV_DONTDUMP);
	(void)madvise(p, max, MADV_DONTFORK);
	memset(classes, NO_CLASS, max / PAGE);
	heap.class_of = classes;
	heap.size = max;
	randombytes_buf(&heap.secret, sizeof(heap.secret));
	heap.base = p;
	return 0;
}

/* ---- blocks ---- */

/* NO_CLASS: not of the region, so csm_lock_alloc's. */
static unsigned class_at(const void *p)
{
	size_t at = (size_t)((const uint8_t *)p - heap.base);
	unsigned c;

	if (heap.base == NULL || at >= heap.size)
		return NO_CLASS;
	c = heap.class_of[at / PAGE];
	if (c == NO_CLASS || at % 16 != 0)
		abort();
	return c;
}

static void *alloc_large(size_t n)
{
	void *p = csm_lock_alloc(n);

	return p == NULL ? NULL : memset(p, 0, csm_lock_size(p));
}

void *csm_lockheap_alloc(size_t n)
{
	unsigned c;

	if (n == 0)
		return NULL;
	if (n > CLASS_MAX)
		return alloc_large(n);
	c = class_for(n);
	if (cache[c].n == 0 && !fetch(c))
		return alloc_large(n);
	return pop(&cache[c], c);
}

void csm_lockheap_free(void *p)
{
	unsigned c;

	if (p == NULL)
		return;
	c = class_at(p);
	if (c == NO_CLASS) {
		csm_lock_free(p);
		return;
	}
	wipe(p, class_size(c));
	push(&cache[c], p);
	if (cache[c].n > 2 * batch_of(c))
		give_back(c);
}

size_t csm_lockheap_size(const void *p)
{
	unsigned c = class_at(p);

	return c == NO_CLASS ? csm_lock_size(p) : class_size(c);
}

void *csm_lockheap_realloc(void *p, size_t n)
{
	size_t old;
	void *more;

	if (p == NULL)
		return csm_lockheap_alloc(n);
	if (n == 0) {
		csm_lockheap_free(p);
		return NULL;
	}
	old = csm_lockheap_size(p);
	if (n <= old && n > old / 2) {
		wipe((uint8_t *)p + n, old - n);
		return p;
	}
	more = csm_lockheap_alloc(n);
	if (more == NULL)
		return NULL;
	memcpy(more, p, old < n ? old : n);
	csm_lockheap_free(p);
	return more;
}

bool csm_lockheap_locked(size_t *taken)
{
	bool locked;

	pthread_mutex_lock(&heap.lock);
	locked = !heap.refused;
	*taken = heap.used;
	pthread_mutex_unlock(&heap.lock);
	return locked;
}
