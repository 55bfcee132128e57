#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "libclient/base/lockmem.h"

#define ARENA (1024u * 1024u)

/* Whether the mapping that holds p has a flag in /proc/self/smaps ("lo" locked, "dd" not dumped,
 * "dc" not copied on fork, "wf" wiped on fork). */
static bool has_flag(const void *p, const char *flag)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	char line[512];
	bool inside = false, found = false;
	unsigned long from, to;
	char *end;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL) {
		from = strtoul(line, &end, 16);
		to = end > line && *end == '-' ? strtoul(end + 1, &end, 16) : 0;
		if (to > 0 && *end == ' ')
			inside = (uintptr_t)p >= from && (uintptr_t)p < to;
		else if (inside && strncmp(line, "VmFlags:", 8) == 0)
			found = strstr(line + 8, flag) != NULL;
	}
	(void)fclose(f);
	return found;
}

/* The sanitizers make mlock do nothing. */
static bool is_locked(const void *p)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return p != NULL;
#else
	return has_flag(p, " lo");
#endif
}

static bool wait_clean(pid_t pid)
{
	int status = 0;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void test_before_init(void **state)
{
	uint8_t *p = csm_lock_alloc(100);
	pid_t pid;

	(void)state;
	assert_false(csm_lockmem_locked());
	assert_non_null(p);
	assert_true(csm_lock_size(p) >= 100);
	assert_int_equal((uintptr_t)p % 16, 0);
	assert_true(is_locked(p));
	assert_true(has_flag(p, " dd"));
	assert_true(has_flag(p, " wf"));
	memset(p, 'x', csm_lock_size(p));

	/* A child has the memory but not what was in it, and can free it. */
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		bool empty = p[0] == 0 && p[99] == 0 && csm_lock_size(p) == 0;

		csm_lock_free(p);
		_exit(empty ? 0 : 1);
	}
	assert_true(wait_clean(pid));
	assert_int_equal(p[99], 'x');
	csm_lock_free(p);
}

static void test_init(void **state)
{
	void *p;

	(void)state;
	assert_int_equal(csm_lockmem_init(0), CSM_EINVALID);
	assert_int_equal(csm_lockmem_init(SIZE_MAX), CSM_EINVALID);
	assert_int_equal(csm_lockmem_init(ARENA), 0);
	assert_int_equal(csm_lockmem_init(ARENA), CSM_ESTATE);
	assert_true(csm_lockmem_locked());
	p = csm_lock_alloc(1);
	assert_true(is_locked(p));
	assert_true(has_flag(p, " dd"));
	assert_true(has_flag(p, " dc"));
	csm_lock_free(p);
}

static void test_sizes(void **state)
{
	static const size_t sizes[] = {0, 1, 255, 256, 257, 1024, 1025, 4096, 4097, 16384, 16385, 65536, 65537, 1000000};

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint8_t *p = csm_lock_alloc(sizes[i]);

		assert_non_null(p);
		assert_int_equal((uintptr_t)p % 16, 0);
		assert_true(csm_lock_size(p) >= sizes[i]);
		assert_true(sizes[i] > 65536 || csm_lock_size(p) <= 4 * sizes[i] || csm_lock_size(p) == 256);
		memset(p, 0xa5, csm_lock_size(p));
		csm_lock_free(p);
	}
	assert_null(csm_lock_alloc(SIZE_MAX));
	assert_null(csm_lock_alloc(SIZE_MAX - 16));
	csm_lock_free(NULL);
}

static void test_wiped(void **state)
{
	uint8_t *p = csm_lock_alloc(200), *again;

	(void)state;
	memset(p, 0x5a, 256);
	csm_lock_free(p);
	again = csm_lock_alloc(256);
	assert_ptr_equal(again, p);
	/* the list's pointer was in the first bytes */
	for (size_t i = sizeof(void *); i < 256; i++)
		assert_int_equal(again[i], 0);
	csm_lock_free(again);
}

/* More than the arena holds: all are distinct, keep their contents, and can be freed in any order. */
static void test_exhaustion(void **state)
{
	enum { N = 3000 };
	static uint8_t *p[N];

	(void)state;
	for (size_t i = 0; i < N; i++) {
		p[i] = csm_lock_alloc(600);
		assert_non_null(p[i]);
		memset(p[i], (int)(i % 251), 600);
	}
	for (size_t i = 0; i < N; i++) {
		for (size_t j = 0; j < 600; j++)
			assert_int_equal(p[i][j], i % 251);
	}
	for (size_t i = 0; i < N; i += 2)
		csm_lock_free(p[i]);
	/* The arena has room again, of one class; smaller requests take it. */
	p[0] = csm_lock_alloc(100);
	assert_true(has_flag(p[0], " dc"));
	csm_lock_free(p[0]);
	for (size_t i = 1; i < N; i += 2)
		csm_lock_free(p[i]);
}

/* cmocka catches what abort raises. */
static void die_on_abort(void)
{
	struct sigaction sa = {.sa_handler = SIG_DFL};

	(void)sigaction(SIGABRT, &sa, NULL);
}

static void dies(void (*f)(void))
{
	int status = 0;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		die_on_abort();
		f();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

/* In the children of fork the arena is gone: these use heap memory made to look like a block. */
static void free_foreign(void)
{
	uint64_t *p = calloc(1, 64);

	if (p != NULL) {
		p[0] = 1;
		csm_lock_free(p + 2);
	}
}

static void size_of_foreign(void)
{
	uint64_t *p = calloc(1, 64);

	if (p != NULL) {
		p[0] = UINT64_C(0x6c6976652d637376);
		(void)csm_lock_size(p + 2);
	}
}

static void test_misuse(void **state)
{
	(void)state;
	dies(free_foreign);
	dies(size_of_foreign);
}

/* A double free needs the arena, so the whole program is run anew for it. */
static int double_free_main(void)
{
	void *p;

	die_on_abort();
	if (csm_lockmem_init(ARENA) != 0)
		return 0;
	p = csm_lock_alloc(64);
	csm_lock_free(p);
	csm_lock_free(p);
	return 0;
}

static void test_double_free(void **state)
{
	int status = 0;
	pid_t pid = fork();

	(void)state;
	assert_true(pid >= 0);
	if (pid == 0) {
		execl("/proc/self/exe", "test_lockmem", "double-free", (char *)NULL);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

/* Numbers that look random, the same in each run. */
static unsigned draw(unsigned *seed)
{
	*seed = *seed * 1103515245u + 12345u;
	return *seed >> 16;
}

static void *hammer(void *arg)
{
	uint8_t mark = (uint8_t)(uintptr_t)arg;
	unsigned seed = mark;

	for (int i = 0; i < 20000; i++) {
		size_t n = (size_t)draw(&seed) % 3000 + 1;
		uint8_t *p = csm_lock_alloc(n);

		if (p == NULL)
			return (void *)1;
		memset(p, mark, n);
		for (size_t j = 0; j < n; j += 97) {
			if (p[j] != mark)
				return (void *)1;
		}
		csm_lock_free(p);
	}
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t t[4];
	void *bad;

	(void)state;
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, hammer, (void *)(uintptr_t)(i + 1)), 0);
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(t[i], &bad), 0);
		assert_null(bad);
	}
}

static void test_wipe_scope(void **state)
{
	uint8_t copy[32];
	struct csm_wipe w = {copy, sizeof(copy)};

	(void)state;
	{
		CSM_WIPED(key, 32);

		for (size_t i = 0; i < sizeof(key); i++)
			assert_int_equal(key[i], 0);
		assert_ptr_equal(key_wipe.p, key);
		assert_int_equal(key_wipe.n, 32);
	}
	memset(copy, 7, sizeof(copy));
	csm_wipe_scope(&w);
	for (size_t i = 0; i < sizeof(copy); i++)
		assert_int_equal(copy[i], 0);
}

/* Mappings of messages get half of what may be locked, and what they do not get is known for as long as it is in use; they
 * take nothing from others. In a program of its own: the arena is made once. */
static void test_share(void **state)
{
	pid_t pid = fork();

	(void)state;
	assert_true(pid >= 0);
	if (pid == 0) {
		execl("/proc/self/exe", "test_lockmem", "--share", (char *)NULL);
		_exit(9);
	}
	assert_true(wait_clean(pid));
}

static int share_main(void)
{
	const size_t piece = 256 * 1024;
	struct rlimit limit = {4 * 1024 * 1024, 4 * 1024 * 1024};
	void *p[32], *key;
	size_t locked = 0, n = sizeof(p) / sizeof(p[0]);

	if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0 || csm_lockmem_init(ARENA) != 0 || !csm_lockmem_locked())
		return 1;
	for (size_t i = 0; i < n; i++) {
		if ((p[i] = csm_lock_alloc_message(piece)) == NULL)
			return 2;
		locked += csm_lockmem_locked();
	}
	/* 2 MiB in pieces of a page more than 256 KiB */
	if (locked != 7)
		return 3;
	key = csm_lock_alloc(piece);
	if (key == NULL || !is_locked(key))
		return 7;
	for (size_t i = n; i-- > locked;) {
		if (csm_lockmem_locked())
			return 4;
		csm_lock_free(p[i]);
	}
	if (!csm_lockmem_locked())
		return 5;
	while (locked-- > 0)
		csm_lock_free(p[locked]);
	csm_lock_free(key);
	/* All of the share was given back, and no more than that. */
	for (locked = 0; locked < n && csm_lockmem_locked(); locked++) {
		if ((p[locked] = csm_lock_alloc_message(piece)) == NULL)
			return 8;
	}
	return locked == 8 ? 0 : 6;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_share),
		cmocka_unit_test(test_before_init),
		cmocka_unit_test(test_init),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_wiped),
		cmocka_unit_test(test_exhaustion),
		cmocka_unit_test(test_misuse),
		cmocka_unit_test(test_double_free),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_wipe_scope),
	};

	if (argc > 1 && strcmp(argv[1], "double-free") == 0)
		return double_free_main();
	if (argc > 1 && strcmp(argv[1], "--share") == 0)
		return share_main();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
