#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/svc/lockheap.h"
#include "libclient/base/lockmem.h"

#define HEAP_BYTES (8u * 1024u * 1024u)
#define THREADS 4
#define SLOTS 64
#define ROUNDS 20000

/* Run in a child, which makes the heap for itself (the parent has none yet): the signal that ended it, or 0. */
static int ended_by(void (*fn)(void))
{
	int status = 0;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		signal(SIGABRT, SIG_DFL);
		if (csm_lockheap_init(HEAP_BYTES) != 0)
			_exit(2);
		fn();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void sound(void)
{
	csm_lockheap_free(csm_lockheap_alloc(40));
}

/* Whoever can write into a freed block must not choose the next one. */
static void write_after_free(void)
{
	uint64_t *p = csm_lockheap_alloc(40);

	csm_lockheap_free(p);
	*p = (uintptr_t)&p;
	csm_lockheap_free(csm_lockheap_alloc(40));
	(void)csm_lockheap_alloc(40);
	(void)csm_lockheap_alloc(40);
}

static void free_inside(void)
{
	uint8_t *p = csm_lockheap_alloc(40);

	csm_lockheap_free(p + 8);
}

static void free_untaken(void)
{
	uint8_t *p = csm_lockheap_alloc(40);

	csm_lockheap_free(p + HEAP_BYTES / 2);
}

static void test_misuse_ends_the_program(void **state)
{
	(void)state;
	assert_int_equal(ended_by(sound), 0);
	assert_int_equal(ended_by(write_after_free), SIGABRT);
	assert_int_equal(ended_by(free_inside), SIGABRT);
	assert_int_equal(ended_by(free_untaken), SIGABRT);
}

static void test_init(void **state)
{
	size_t taken = 1;

	(void)state;
	assert_int_equal(csm_lockheap_init(0), CSM_EINVALID);
	assert_int_equal(csm_lockheap_init(SIZE_MAX), CSM_EINVALID);
	assert_int_equal(csm_lockheap_init(HEAP_BYTES), 0);
	assert_int_equal(csm_lockheap_init(HEAP_BYTES), CSM_ESTATE);
	assert_true(csm_lockheap_locked(&taken));
	assert_int_equal(taken, 0);
}

static bool all_are(const uint8_t *p, size_t n, uint8_t c)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != c)
			return false;
	return true;
}

static void test_sizes(void **state)
{
	(void)state;
	assert_null(csm_lockheap_alloc(0));
	csm_lockheap_free(NULL);
	for (size_t n = 1; n <= 40000; n += n < 5000 ? 1 : 61) {
		uint8_t *p = csm_lockheap_alloc(n);
		size_t usable = csm_lockheap_size(p);

		assert_non_null(p);
		assert_int_equal((uintptr_t)p % 16, 0);
		assert_true(usable >= n);
		assert_true(n > 32768 || usable <= n + n / 4 + 16);
		assert_true(all_are(p, usable, 0));
		memset(p, 0xa5, usable);
		csm_lockheap_free(p);
	}
	assert_null(csm_lockheap_alloc(SIZE_MAX));
	assert_null(csm_lockheap_alloc(SIZE_MAX - 15));
}

/* All of it, at once, whatever happens to the block afterwards; but for the list's own pointer. */
static void test_wiped_when_freed(void **state)
{
	static const size_t sizes[] = {16, 17, 100, 1000, 5000, 32768};

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint8_t *p = csm_lockheap_alloc(sizes[i]);
		size_t usable = csm_lockheap_size(p);

		memset(p, 0x5a, usable);
		csm_lockheap_free(p);
		assert_true(all_are(p + sizeof(void *), usable - sizeof(void *), 0));
		assert_false(all_are(p, sizeof(void *), 0x5a));
	}
}

static void test_grow_and_shrink(void **state)
{
	uint8_t *p = csm_lockheap_realloc(NULL, 10), *q;

	(void)state;
	assert_non_null(p);
	for (size_t n = 10; n < 100000; n = n * 3 / 2) {
		memset(p, (int)(n & 0xff), n);
		q = csm_lockheap_realloc(p, n * 3 / 2);
		assert_non_null(q);
		assert_true(all_are(q, n, (uint8_t)(n & 0xff)));
		assert_true(all_are(q + n, n * 3 / 2 - n, 0));
		p = q;
	}
	/* Smaller: what is cut off is wiped, in place or not. */
	memset(p, 'x', 100000);
	p = csm_lockheap_realloc(p, 30000);
	memset(p, 'x', 30000);
	q = csm_lockheap_realloc(p, 29000);
	assert_ptr_equal(p, q);
	assert_true(all_are(q, 29000, 'x'));
	assert_true(all_are(q + 29000, csm_lockheap_size(q) - 29000, 0));
	assert_null(csm_lockheap_realloc(q, SIZE_MAX));
	assert_true(all_are(q, 29000, 'x'));
	assert_null(csm_lockheap_realloc(q, 0));
	assert_true(all_are(q + sizeof(void *), 28000, 0));
}

/* What was freed is used again: the same work done over and over takes no more memory. */
static void test_reused(void **state)
{
	uint8_t *p[300];
	size_t first = 0, taken;

	(void)state;
	for (unsigned round = 0; round < 50; round++) {
		for (size_t i = 0; i < 300; i++)
			assert_non_null(p[i] = csm_lockheap_alloc(1 + i * 7));
		for (size_t i = 0; i < 300; i++)
			csm_lockheap_free(p[(i * 7) % 300]);
		csm_lockheap_locked(&taken);
		if (round == 0)
			first = taken;
		assert_int_equal(taken, first);
	}
}

/* Beyond its addresses blocks are locked mappings of their own. */
static void test_full(void **state)
{
	enum { N = 400 };
	static uint8_t *p[N];
	size_t taken;

	(void)state;
	for (size_t i = 0; i < N; i++) {
		assert_non_null(p[i] = csm_lockheap_alloc(30000));
		memset(p[i], (int)(i & 0xff), 30000);
	}
	csm_lockheap_locked(&taken);
	assert_true(taken <= HEAP_BYTES);
	for (size_t i = 0; i < N; i++) {
		assert_true(all_are(p[i], 30000, (uint8_t)(i & 0xff)));
		csm_lockheap_free(p[i]);
	}
}

/* Threads hand blocks to each other by a table; no block is ever with two of them. */
static _Atomic(uint32_t *) slots[SLOTS];

static void *juggle(void *arg)
{
	uint32_t seed = (uint32_t)(uintptr_t)arg;
	uintptr_t wrong = 0;

	for (unsigned i = 0; i < ROUNDS; i++) {
		uint32_t r = (seed = seed * 1664525u + 1013904223u) >> 8;
		uint32_t n = 2 + r % 400, *mine = csm_lockheap_alloc(n * 4), *other;

		if (mine == NULL || mine[0] != 0 || mine[n - 1] != 0)
			wrong++;
		if (mine == NULL)
			continue;
		mine[0] = n;
		for (uint32_t k = 1; k < n; k++)
			mine[k] = n ^ k;
		other = atomic_exchange(&slots[r / 512 % SLOTS], mine);
		if (other == NULL)
			continue;
		for (uint32_t k = 1; k < other[0]; k++)
			wrong += other[k] != (other[0] ^ k);
		csm_lockheap_free(other);
	}
	return (void *)wrong;
}

static void test_threads(void **state)
{
	pthread_t t[THREADS];
	void *wrong;

	(void)state;
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, juggle, (void *)(i + 1)), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(t[i], &wrong), 0);
		assert_null(wrong);
	}
	for (unsigned i = 0; i < SLOTS; i++)
		csm_lockheap_free(slots[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_misuse_ends_the_program), /* first: its children make heaps */
		cmocka_unit_test(test_init),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_wiped_when_freed),
		cmocka_unit_test(test_grow_and_shrink),
		cmocka_unit_test(test_reused),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
