#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#include <sodium.h>
#include "libclient/base/lockmem.h"

#if defined(__SANITIZE_ADDRESS__)
#define LOCKMEM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LOCKMEM_ASAN 1
#endif
#endif
#ifdef LOCKMEM_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

/* Stands before each allocation. Marks are folded with the address, so that a copy of a
 * header, or a pointer into the middle of a block, does not pass for one. */
struct block {
	uint64_t mark;
	uint32_t pages; /* of a mapping of its own, else 0 */
	uint32_t class; /* of an arena block; of a mapping NOT_LOCKED, OF_SHARE, both or 0 */
};
#define NOT_LOCKED 1u
#define OF_SHARE 2u
#define MARK_LIVE UINT64_C(0x6c6976652d637376)
#define MARK_FREE UINT64_C(0x667265652d637376)

#define STACK_WIPE_MAX (64u * 1024u)
#define N_CLASSES 5
static const uint32_t class_size[N_CLASSES] = {256, 1024, 4096, 16384, 65536};

_Static_assert(sizeof(struct block) == 16, "what follows a header is aligned to 16");

static struct {
	pthread_mutex_t lock;
	uint8_t *base;
	size_t size;
	size_t used;                   /* handed to the classes so far */
	struct block *free[N_CLASSES]; /* linked through the first bytes after the header */
	bool refused;                  /* a lock for what stays was refused */
	size_t share;                  /* of the limit, for mappings of messages */
	size_t shared, unlocked;       /* bytes in these, and in all mappings that could not be locked */
} arena = {.lock = PTHREAD_MUTEX_INITIALIZER, .share = SIZE_MAX};

static size_t page_size(void)
{
	long n = sysconf(_SC_PAGESIZE);

	return n > 0 ? (size_t)n : 4096;
}

static uint64_t mark_of(const struct block *b, uint64_t mark)
{
	return mark ^ (uint64_t)(uintptr_t)b;
}

static struct block *block_of(const void *p)
{
	return (struct block *)((uintptr_t)p - sizeof(struct block));
}

static struct block **block_next(struct block *b)
{
	return (struct block **)(b + 1);
}

/* Undumped pages, locked if *lock and if the kernel lets us (then *lock stays true), or NULL. on_fork: MADV_DONTFORK or
 * MADV_WIPEONFORK. Advice that the kernel does not know is passed over: the memory is still usable. */
static void *map_pages(size_t n, int on_fork, bool *lock)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	/* Each page once it is touched: what is not used takes no memory. */
	*lock = *lock && mlock2(p, n, MLOCK_ONFAULT) == 0;
	(void)madvise(p, n, MADV_DONTDUMP);
	(void)madvise(p, n, on_fork);
	return p;
}

int csm_lockmem_init(size_t size)
{
	size_t page = page_size();
	struct rlimit limit;
	bool locked = true;
	void *p;

	if (size == 0 || size > SIZE_MAX - page)
		return CSM_EINVALID;
	if (arena.base != NULL)
		return CSM_ESTATE;
	size = (size + page - 1) / page * page;
	p = map_pages(size, MADV_DONTFORK, &locked);
	if (p == NULL)
		return CSM_ENOMEM;
	arena.refused = !locked;
	/* Many half messages must not take from keys what can be locked. */
	if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
		arena.share = limit.rlim_cur / 2;
	ASAN_POISON_MEMORY_REGION(p, size);
	arena.base = p;
	arena.size = size;
	return 0;
}

bool csm_lockmem_locked(void)
{
	return arena.base != NULL && !__atomic_load_n(&arena.refused, __ATOMIC_RELAXED) &&
		__atomic_load_n(&arena.unlocked, __ATOMIC_RELAXED) == 0;
}

/* Under the lock: a block of class c, from its list, the untouched rest of the arena, or a
 * larger class; NULL when the arena is full. */
static struct block *arena_take(uint32_t c)
{
	size_t n = sizeof(struct block) + class_size[c];
	struct block *b;

	if (arena.free[c] == NULL && arena.size - arena.used >= n) {
		b = (struct block *)(arena.base + arena.used);
		arena.used += n;
		ASAN_UNPOISON_MEMORY_REGION(b, sizeof(*b));
		b->pages = 0;
		b->class = c;
		return b;
	}
	while (c < N_CLASSES - 1 && arena.free[c] == NULL)
		c++;
	b = arena.free[c];
	if (b != NULL) {
		ASAN_UNPOISON_MEMORY_REGION(block_next(b), sizeof(struct block *));
		arena.free[c] = *block_next(b);
	}
	return b;
}

static struct block *arena_alloc(size_t size)
{
	uint32_t c = 0;
	struct block *b;

	while (c < N_CLASSES && class_size[c] < size)
		c++;
	if (c == N_CLASSES || arena.base == NULL)
		return NULL;
	pthread_mutex_lock(&arena.lock);
	b = arena_take(c);
	pthread_mutex_unlock(&arena.lock);
	return b;
}

/* Wiped in a child: whoever frees it there finds a header of zeros, not a hole. */
static struct block *map_alloc(size_t size, uint32_t flags)
{
	size_t page = page_size();
	size_t pages = (size + sizeof(struct block) + page - 1) / page, n = pages * page;
	struct block *b;
	bool locked = true;

	if (size > SIZE_MAX / 2 || pages > UINT32_MAX)
		return NULL;
	if (flags & OF_SHARE)
		locked = __atomic_add_fetch(&arena.shared, n, __ATOMIC_RELAXED) <= arena.share;
	b = map_pages(n, MADV_WIPEONFORK, &locked);
	if (b == NULL) {
		if (flags & OF_SHARE)
			__atomic_sub_fetch(&arena.shared, n, __ATOMIC_RELAXED);
		return NULL;
	}
	if (!locked)
		__atomic_add_fetch(&arena.unlocked, n, __ATOMIC_RELAXED);
	b->pages = (uint32_t)pages;
	b->class = flags | (locked ? 0 : NOT_LOCKED);
	return b;
}

static void *lock_alloc(size_t size, uint32_t flags)
{
	struct block *b = arena_alloc(size);

	if (b == NULL && (b = map_alloc(size, flags)) == NULL)
		return NULL;
	if (b->pages == 0)
		ASAN_UNPOISON_MEMORY_REGION(b + 1, class_size[b->class]);
	b->mark = mark_of(b, MARK_LIVE);
	return b + 1;
}

void *csm_lock_alloc(size_t size)
{
	return lock_alloc(size, 0);
}

void *csm_lock_alloc_message(size_t size)
{
	return lock_alloc(size, OF_SHARE);
}

/* A foreign, damaged or twice freed pointer ends the program; false for a block that a fork
 * has wiped. */
static bool block_live(const struct block *b)
{
	if (b->mark == mark_of(b, MARK_LIVE))
		return true;
	if (b->mark != 0)
		abort();
	return false;
}

size_t csm_lock_size(const void *p)
{
	const struct block *b = block_of(p);

	if (!block_live(b))
		return 0;
	return b->pages != 0 ? b->pages * page_size() - sizeof(*b) : class_size[b->class];
}

static void arena_give(struct block *b)
{
	sodium_memzero(b + 1, class_size[b->class]);
	b->mark = mark_of(b, MARK_FREE);
	pthread_mutex_lock(&arena.lock);
	*block_next(b) = arena.free[b->class];
	arena.free[b->class] = b;
	ASAN_POISON_MEMORY_REGION(b + 1, class_size[b->class]);
	pthread_mutex_unlock(&arena.lock);
}

void csm_lock_free(void *p)
{
	struct block *b;
	size_t n;

	if (p == NULL)
		return;
	b = block_of(p);
	if (!block_live(b))
		return;
	if (b->pages == 0) {
		arena_give(b);
		return;
	}
	n = b->pages * page_size();
	if (b->class & NOT_LOCKED)
		__atomic_sub_fetch(&arena.unlocked, n, __ATOMIC_RELAXED);
	if (b->class & OF_SHARE)
		__atomic_sub_fetch(&arena.shared, n, __ATOMIC_RELAXED);
	sodium_memzero(b, n);
	(void)munmap(b, n);
}

void csm_lock_stack(void)
{
#ifndef LOCKMEM_ASAN /* its stacks are large */
	pthread_attr_t attr;
	size_t n;
	void *p;
	int rc = pthread_getattr_np(pthread_self(), &attr);

	if (rc == 0) {
		rc = pthread_attr_getstack(&attr, &p, &n);
		pthread_attr_destroy(&attr);
	}
	if (rc != 0 || mlock2(p, n, MLOCK_ONFAULT) != 0)
		__atomic_store_n(&arena.refused, true, __ATOMIC_RELAXED);
	if (rc == 0)
		(void)madvise(p, n, MADV_DONTDUMP);
#endif
}

bool csm_lock_again(const void *p, size_t n)
{
	if (mlock(p, n) == 0)
		return true;
	__atomic_store_n(&arena.refused, true, __ATOMIC_RELAXED);
	return false;
}

__attribute__((noinline)) void csm_wipe_stack(size_t n)
{
	uint8_t below[STACK_WIPE_MAX];

	sodium_memzero(below + sizeof(below) - (n < sizeof(below) ? n : sizeof(below)), n < sizeof(below) ? n : sizeof(below));
}

void csm_wipe_scope(struct csm_wipe *w)
{
	sodium_memzero(w->p, w->n);
}
