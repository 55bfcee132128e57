#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "libclient/base/buf.h"

static void test_put_and_consume(void **state)
{
	struct csm_buf b;

	(void)state;
	csm_buf_init(&b, 100, false);
	assert_null(b.p);
	assert_int_equal(csm_buf_put(&b, "", 0), 0);
	assert_null(b.p);
	assert_int_equal(csm_buf_put(&b, "hello world", 11), 0);
	csm_buf_consume(&b, 6);
	assert_int_equal(b.len, 5);
	assert_memory_equal(csm_buf_ptr(&b), "world", 5);
	csm_buf_consume(&b, 5);
	assert_int_equal(b.len, 0);
	assert_int_equal(b.off, 0);
	assert_int_equal(csm_buf_put(&b, "x", 1), 0);
	csm_buf_reset(&b);
	assert_int_equal(b.len, 0);
	assert_non_null(b.p);
	csm_buf_free(&b);
	assert_null(b.p);
	assert_int_equal(csm_buf_put(&b, "again", 5), 0);
	assert_memory_equal(csm_buf_ptr(&b), "again", 5);
	csm_buf_free(&b);
}

static void test_cap(void **state)
{
	uint8_t bytes[101] = {0}, *p = NULL;
	struct csm_buf b;

	(void)state;
	csm_buf_init(&b, 100, false);
	assert_int_equal(csm_buf_put(&b, bytes, 101), CSM_ETOO_LARGE);
	assert_int_equal(b.len, 0);
	assert_int_equal(csm_buf_put(&b, bytes, 60), 0);
	assert_int_equal(csm_buf_put(&b, bytes, 41), CSM_ETOO_LARGE);
	assert_int_equal(csm_buf_reserve(&b, SIZE_MAX, &p), CSM_ETOO_LARGE);
	assert_null(p);
	assert_int_equal(b.len, 60);
	assert_int_equal(csm_buf_put(&b, bytes, 40), 0);
	assert_int_equal(b.len, 100);
	assert_int_equal(csm_buf_put(&b, bytes, 1), CSM_ETOO_LARGE);
	/* what was read makes room */
	csm_buf_consume(&b, 30);
	assert_int_equal(csm_buf_put(&b, bytes, 30), 0);
	assert_int_equal(b.len, 100);
	assert_true(b.cap <= 100);
	csm_buf_free(&b);
}

static void test_reserve(void **state)
{
	struct csm_buf b;
	uint8_t *p;

	(void)state;
	csm_buf_init(&b, 4096, false);
	assert_int_equal(csm_buf_reserve(&b, 1000, &p), 0);
	assert_int_equal(b.len, 0);
	memset(p, 'a', 1000);
	csm_buf_commit(&b, 10);
	assert_int_equal(b.len, 10);
	assert_memory_equal(csm_buf_ptr(&b), "aaaaaaaaaa", 10);
	csm_buf_free(&b);
}

/* Numbers that look random, the same in each run. */
static unsigned draw(unsigned *seed)
{
	*seed = *seed * 1103515245u + 12345u;
	return *seed >> 16;
}

/* Random steps against a plain model. */
static void run_model(bool secret)
{
	static uint8_t model[5000], piece[700];
	unsigned seed = 7;
	size_t len = 0, n;
	struct csm_buf b;

	csm_buf_init(&b, sizeof(model), secret);
	for (int i = 0; i < 20000; i++) {
		n = (size_t)draw(&seed) % sizeof(piece);
		if (draw(&seed) % 2 == 0) {
			for (size_t j = 0; j < n; j++)
				piece[j] = (uint8_t)draw(&seed);
			if (len + n > sizeof(model)) {
				assert_int_equal(csm_buf_put(&b, piece, n), CSM_ETOO_LARGE);
				continue;
			}
			assert_int_equal(csm_buf_put(&b, piece, n), 0);
			memcpy(model + len, piece, n);
			len += n;
		} else {
			n = n < len ? n : len;
			csm_buf_consume(&b, n);
			memmove(model, model + n, len - n);
			len -= n;
		}
		assert_int_equal(b.len, len);
		if (len > 0)
			assert_memory_equal(csm_buf_ptr(&b), model, len);
	}
	csm_buf_free(&b);
}

static void test_model(void **state)
{
	(void)state;
	run_model(false);
}

static void test_model_secret(void **state)
{
	(void)state;
	run_model(true);
}

static void test_secret_wiped(void **state)
{
	static const uint8_t zero[32];
	struct csm_buf b;
	const uint8_t *p;

	(void)state;
	csm_buf_init(&b, 4096, true);
	assert_int_equal(csm_buf_put(&b, "a secret of thirty-two bytes ...", 32), 0);
	p = csm_buf_ptr(&b);
	csm_buf_consume(&b, 8);
	assert_memory_equal(p, zero, 8);
	assert_memory_equal(p + 8, " of thir", 8);
	csm_buf_reset(&b);
	assert_memory_equal(p, zero, 32);
	csm_buf_free(&b);
}

/* Appending byte by byte moves each byte a bounded number of times: cap grows by doubling. */
static void test_growth(void **state)
{
	struct csm_buf b;
	size_t moves = 0;
	const uint8_t *last = NULL;

	(void)state;
	csm_buf_init(&b, 1u << 20, false);
	for (unsigned i = 0; i < 1u << 20; i++) {
		assert_int_equal(csm_buf_put(&b, "x", 1), 0);
		if (b.p != last)
			moves++;
		last = b.p;
	}
	assert_true(moves <= 16);
	csm_buf_free(&b);
}

static void dies(void (*f)(struct csm_buf *))
{
	int status = 0;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct csm_buf b;

		/* cmocka catches what abort raises */
		(void)sigaction(SIGABRT, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
		csm_buf_init(&b, 4096, false);
		if (csm_buf_put(&b, "abc", 3) == 0)
			f(&b);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void commit_too_much(struct csm_buf *b)
{
	csm_buf_commit(b, b->cap - b->len + 1);
}

static void consume_too_much(struct csm_buf *b)
{
	csm_buf_consume(b, 4);
}

static void test_misuse(void **state)
{
	(void)state;
	dies(commit_too_much);
	dies(consume_too_much);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_put_and_consume),
		cmocka_unit_test(test_cap),
		cmocka_unit_test(test_reserve),
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_model_secret),
		cmocka_unit_test(test_secret_wiped),
		cmocka_unit_test(test_growth),
		cmocka_unit_test(test_misuse),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
