/* The store as it runs: root key, epoch, readers, crashes. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "proto-spec/limits.h"
#include "tests/lib/storefix.h"

static void test_root_key(void **state)
{
	struct storefix *f = *state;
	struct rawstore w;
	uint8_t schema[13] = {'c', 's', 'm', ' ', 's', 't', 'o', 'r', 'e', 0, 0, 0, 5}, *v;
	size_t n;

	assert_int_equal(storefix_domain(f, "web", "db"), 0);
	storefix_close(f);
	f->opt.root.mode = "tpm";
	assert_int_equal(storefix_open(f), CSM_EINVALID);
	assert_non_null(strstr(f->why, "root_key: file"));
	f->opt.root.mode = "file";
	f->unwrap_fails = true;
	assert_int_equal(storefix_open(f), CSM_EUNAVAILABLE);
	f->unwrap_fails = false;

	raw_open(f, &w);
	v = raw_get(&w, w.meta, "rootkey", 7, &n);
	assert_int_equal(n, 1 + 4 + 2 + 32 + 16);
	v[10] ^= 1; /* another key comes out */
	raw_put(&w, w.meta, "rootkey", 7, v, n);
	raw_close(&w);
	assert_int_equal(storefix_open(f), CSM_EINVALID);
	assert_non_null(strstr(f->why, "not the root key"));
	v[10] ^= 1;
	raw_open(f, &w);
	raw_put(&w, w.meta, "rootkey", 7, v, n - 1);
	raw_close(&w);
	assert_int_equal(storefix_open(f), CSM_ETAMPERED);
	raw_open(f, &w);
	raw_del(&w, w.meta, "rootkey", 7);
	raw_close(&w);
	assert_int_equal(storefix_open(f), CSM_ETAMPERED);
	raw_open(f, &w);
	raw_put(&w, w.meta, "rootkey", 7, v, n);
	raw_put(&w, w.meta, "schema", 6, schema, 13);
	raw_close(&w);
	assert_int_equal(storefix_open(f), CSM_EUNSUPPORTED);
	assert_non_null(strstr(f->why, "schema 5"));
	raw_open(f, &w);
	raw_del(&w, w.meta, "schema", 6);
	raw_close(&w);
	assert_int_equal(storefix_open(f), CSM_ETAMPERED);
	raw_open(f, &w);
	schema[12] = 0;
	raw_put(&w, w.meta, "schema", 6, schema, 13);
	raw_close(&w);
	assert_int_equal(storefix_open(f), CSM_EUNSUPPORTED);
	raw_open(f, &w);
	schema[12] = 4;
	raw_put(&w, w.meta, "schema", 6, schema, 13);
	raw_close(&w);
	free(v);
	assert_int_equal(storefix_open(f), 0);
	assert_int_equal(storefix_domain(f, "web", "db"), CSM_EEXISTS);
}

static int outside_key(void *arg, const uint8_t *wrapped, size_t n, uint8_t key[static 32])
{
	(void)wrapped;
	assert_int_equal(n, 0);
	memset(key, *(int *)arg, 32);
	return 0;
}

/* A root key that is kept outside of the store. */
static void test_root_key_outside(void **state)
{
	int k = 5;
	struct storefix f;
	struct csm_store *s;

	(void)state;
	storefix_init(&f);
	f.opt.root = (struct csm_root_source){.mode = "file", .arg = &k, .unwrap = outside_key};
	assert_int_equal(csm_store_env_open(&f.opt, &s), 0);
	assert_null(csm_store_mode(s));
	csm_store_close(s); /* left before the root key came: still a new store */
	for (int i = 0; i < 2; i++) {
		assert_int_equal(csm_store_open(&f.opt, &s), 0);
		assert_false(csm_store_locked(s));
		csm_store_close(s);
	}
	k = 6;
	assert_int_equal(csm_store_open(&f.opt, &s), CSM_EINVALID);
	storefix_free(&f);
}

static void test_epoch(void **state)
{
	struct csm_store_op op = {.kind = CSM_OP_EPOCH};
	struct csm_store_op del = {.kind = CSM_OP_DOMAIN_DELETE, .ns = CSM_STR("web"), .name = CSM_STR("db")};
	struct csm_store_stat st;
	struct storefix f;
	uint64_t at;

	(void)state;
	storefix_init(&f);
	f.with_counter = true;
	f.counter = 41;
	f.opt.epoch_interval_s = 0;
	assert_int_equal(storefix_open(&f), 0);
	csm_store_stat(f.s, &st);
	assert_int_equal(st.epoch, 42);
	assert_int_equal(f.counter, 42);
	assert_int_equal(storefix_do(&f, &op), 0);
	assert_int_equal(f.counter, 43);
	assert_int_equal(storefix_domain(&f, "web", "db"), 0);
	assert_int_equal(f.counter, 43);
	assert_int_equal(storefix_do(&f, &del), 0); /* a deletion raises it, soon after */
	assert_int_equal(storefix_domain(&f, "web", "db"), 0);
	assert_int_equal(f.counter, 44);
	f.counter_fails = true;
	assert_int_equal(storefix_do(&f, &op), CSM_EUNAVAILABLE); /* committed; the counter follows later */
	assert_int_equal(storefix_do(&f, &op), CSM_EUNAVAILABLE); /* and not more than one ahead */
	csm_store_stat(f.s, &st);
	assert_int_equal(st.epoch, 45);
	storefix_close(&f);
	assert_int_equal(f.counter, 44);
	assert_int_equal(storefix_open(&f), CSM_EUNAVAILABLE);
	f.counter_fails = false;
	assert_int_equal(storefix_open(&f), 0);
	assert_false(csm_store_locked(f.s));
	assert_int_equal(f.counter, 46);
	at = f.counter;
	storefix_close(&f);
	assert_int_equal(f.counter, at + 1); /* a clean stop */
	f.with_counter = false;              /* no counter at hand: served, and the epoch stays */
	assert_int_equal(storefix_open(&f), 0);
	assert_false(csm_store_locked(f.s));
	storefix_close(&f);
	f.with_counter = true;
	assert_int_equal(storefix_open(&f), 0);
	assert_false(csm_store_locked(f.s));
	storefix_close(&f);
	f.counter += 1; /* the store is older than the counter, be it by one raise */
	assert_int_equal(storefix_open(&f), 0);
	assert_true(csm_store_locked(f.s));
	storefix_close(&f);
	f.counter += 4;
	assert_int_equal(storefix_open(&f), 0);
	assert_true(csm_store_locked(f.s));
	assert_true(storefix_damaged(&f, "root"));
	storefix_free(&f);
}

/* The second step is tried until what keeps the root key is there: with the same store, new or not. */
static void test_root_open_again(void **state)
{
	struct storefix *f = *state;
	struct csm_store *s;
	uint8_t v[8];
	size_t n = sizeof(v);

	for (int i = 0; i < 2; i++) {
		storefix_free(f);
		storefix_init(f);
		f->with_counter = true;
		if (i == 1) { /* not new */
			assert_int_equal(storefix_open(f), 0);
			storefix_close(f);
		}
		f->increment_fails = true;
		assert_int_equal(storefix_open(f), CSM_EUNAVAILABLE); /* sets the options, too */
		assert_int_equal(csm_store_env_open(&f->opt, &s), 0);
		assert_int_equal(csm_store_remember_now(s, "pin", (const uint8_t *)"pin", 3), 0);
		for (int j = 0; j < 3; j++)
			assert_int_equal(csm_store_root_open(s, &f->opt.root), CSM_EUNAVAILABLE);
		f->unwrap_fails = true;
		assert_int_equal(csm_store_root_open(s, &f->opt.root), CSM_EUNAVAILABLE);
		f->unwrap_fails = f->increment_fails = false;
		assert_int_equal(csm_store_root_open(s, &f->opt.root), 0);
		assert_int_equal(csm_store_root_open(s, &f->opt.root), CSM_ESTATE);
		assert_false(csm_store_locked(s));
		csm_store_close(s);
		assert_int_equal(storefix_open(f), 0);
		assert_false(csm_store_locked(f->s));
		assert_int_equal(csm_store_recall(f->s, "pin", v, &n), 0);
	}
}

/* A new store whose counter fails after the commit is not made a second time. */
static void test_made_once(void **state)
{
	struct storefix *f = *state;
	struct csm_store *s;
	uint8_t first[32];

	storefix_free(f);
	storefix_init(f);
	f->with_counter = true;
	f->increment_fails = true;
	assert_int_equal(storefix_open(f), CSM_EUNAVAILABLE);
	storefix_free(f);
	assert_int_equal(mkdir(f->dir, 0700), 0);
	assert_int_equal(csm_store_env_open(&f->opt, &s), 0);
	assert_int_equal(csm_store_remember_now(s, "pin", (const uint8_t *)"pin", 3), 0);
	assert_int_equal(csm_store_root_open(s, &f->opt.root), CSM_EUNAVAILABLE);
	memcpy(first, f->root_key, sizeof(first));
	f->increment_fails = false;
	assert_int_equal(csm_store_root_open(s, &f->opt.root), 0);
	assert_memory_equal(first, f->root_key, sizeof(first));
	csm_store_close(s);
	assert_int_equal(storefix_open(f), 0);
	assert_false(csm_store_locked(f->s));
}

/* The counter counted, and its answer was lost: it is not counted twice, so a crash then is no older store. */
static void test_counter_answer_lost(void **state)
{
	struct csm_store_op op = {.kind = CSM_OP_EPOCH};
	struct csm_store_stat st;
	struct storefix f;

	(void)state;
	storefix_init(&f);
	f.with_counter = true;
	assert_int_equal(storefix_open(&f), 0);
	f.counter_answer_lost = true;
	assert_int_equal(storefix_do(&f, &op), CSM_EUNAVAILABLE);
	assert_int_equal(storefix_do(&f, &op), 0); /* asks again; the epoch itself stays */
	csm_store_stat(f.s, &st);
	assert_int_equal(f.counter, st.epoch);
	store_copy(&f, "store/data.mdb", "crashed.mdb");
	storefix_close(&f);
	f.counter = st.epoch; /* as at the crash */
	store_copy(&f, "crashed.mdb", "store/data.mdb");
	assert_int_equal(storefix_open(&f), 0);
	assert_false(csm_store_locked(f.s));
	storefix_free(&f);
}

static void test_epoch_interval(void **state)
{
	struct csm_store_op del = {
		.kind = CSM_OP_SECRET_DELETE, .ns = CSM_STR("web"), .name = CSM_STR("db"), .secret = CSM_STR("pw")};
	struct storefix f;
	uint64_t at;

	(void)state;
	storefix_init(&f);
	f.with_counter = true;
	f.opt.epoch_interval_s = 3600;
	assert_int_equal(storefix_open(&f), 0);
	at = f.counter;
	assert_int_equal(storefix_domain(&f, "web", "db"), 0);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(storefix_set(&f, "web", "db", "pw", "x"), 0);
		assert_int_equal(storefix_do(&f, &del), 0);
	}
	assert_int_equal(f.counter, at);
	storefix_free(&f);
}

/* Nothing that should be sealed is on the disk. */
static bool file_has(const char *path, const void *p, size_t n)
{
	static uint8_t data[8u << 20];
	FILE *file = fopen(path, "rb");
	size_t len;

	assert_non_null(file);
	len = fread(data, 1, sizeof(data), file);
	fclose(file);
	assert_true(len > 4096 && len < sizeof(data));
	return memmem(data, len, p, n) != NULL;
}

static void test_bytes_on_disk(void **state)
{
	struct storefix *f = *state;
	char path[128];
	char v[256];

	assert_int_equal(storefix_domain(f, "web", "db"), 0);
	assert_int_equal(storefix_set(f, "web", "db", "pw", "a very secret value"), 0);
	assert_int_equal(storefix_key(f, "web", "tls", "a very private part"), 0);
	assert_int_equal(storefix_get(f, "web", "db", "pw", 0, v), 0);
	storefix_close(f);
	snprintf(path, sizeof(path), "%s/store/data.mdb", f->dir);
	assert_true(file_has(path, "web\0db\0pw", 10)); /* the search finds what is there */
	assert_false(file_has(path, "very secret", 11));
	assert_false(file_has(path, "very private", 12));
	assert_false(file_has(path, f->root_key, 32));
	assert_false(file_has(path, f->root_key, 8));
	assert_int_equal(storefix_open(f), 0);
}

/* ---- crashes ---- */

static void crash_child(struct storefix *f, int round, int to)
{
	char value[32];

	if (storefix_open(f) != 0 || csm_store_locked(f->s))
		_exit(3);
	(void)storefix_domain(f, "web", "db");
	for (uint32_t i = 0;; i++) {
		char name[32];

		snprintf(name, sizeof(name), "r%d-%u", round, i);
		snprintf(value, sizeof(value), "value %d %u", round, i);
		if (storefix_set(f, "web", "db", name, value) != 0 || storefix_key(f, "web", name, value) != 0)
			_exit(4);
		if (write(to, &i, sizeof(i)) != sizeof(i))
			_exit(5);
	}
}

/* SIGKILL after some milliseconds: everything acknowledged is there, and the store is whole. */
static void test_kill(void **state)
{
	enum { ROUNDS = 20 };
	uint32_t acked[ROUNDS];
	struct csm_key_record rec;
	struct storefix f;
	char name[32], want[32], v[256];

	(void)state;
	storefix_init(&f);
	for (int round = 0; round < ROUNDS; round++) {
		int fds[2], status;
		uint32_t last;
		pid_t pid;

		acked[round] = 0;
		assert_int_equal(pipe(fds), 0);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			close(fds[0]);
			crash_child(&f, round, fds[1]);
		}
		close(fds[1]);
		assert_int_equal(read(fds[0], &last, sizeof(last)), sizeof(last));
		storefix_sleep_ms(1 + randombytes_uniform(20));
		assert_int_equal(kill(pid, SIGKILL), 0);
		do
			acked[round] = last;
		while (read(fds[0], &last, sizeof(last)) == sizeof(last));
		close(fds[0]);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
	}
	assert_int_equal(storefix_open(&f), 0);
	assert_false(csm_store_locked(f.s));
	for (int round = 0; round < ROUNDS; round++) {
		for (uint32_t i = 0; i <= acked[round]; i++) {
			snprintf(name, sizeof(name), "r%d-%u", round, i);
			snprintf(want, sizeof(want), "value %d %u", round, i);
			assert_int_equal(storefix_get(&f, "web", "db", name, 0, v), 0);
			assert_string_equal(v, want);
			assert_int_equal(storefix_key_get(&f, "web", name, want, &rec), 0);
		}
	}
	storefix_free(&f);
}

/* A child has the store open; it goes when the child does. */
static void test_two_processes(void **state)
{
	struct storefix *f = *state;
	int status;
	pid_t pid;

	storefix_close(f);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(storefix_open(f) == 0 ? 0 : 1); /* not closed: as after a crash */
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(storefix_open(f), 0);
	assert_false(csm_store_locked(f->s));
}

/* Readers while the writer writes: each sees whole versions. */
static void *read_on(void *arg)
{
	struct storefix *f = arg;
	struct csm_reader *r;
	struct csm_buf out;

	if (csm_reader_new(f->s, &r) != 0)
		return (void *)"new";
	csm_buf_init(&out, 4096, true);
	for (int i = 0; i < 2000; i++) {
		uint64_t version, created;
		char want[32];

		csm_buf_reset(&out);
		if (csm_reader_begin(r) != 0)
			return (void *)"begin";
		if (csm_store_secret_get(
			    r, CSM_STR("web"), CSM_STR("db"), CSM_STR("pw"), 0, &out, &version, &created) != 0)
			return (void *)"get";
		csm_reader_end(r);
		snprintf(want, sizeof(want), "value %u", (unsigned)version);
		if (out.len != strlen(want) || memcmp(csm_buf_ptr(&out), want, out.len) != 0)
			return (void *)"value";
	}
	csm_buf_free(&out);
	csm_reader_free(r);
	return NULL;
}

static void test_readers(void **state)
{
	struct storefix *f = *state;
	pthread_t t[3];
	void *wrong;
	char v[32];

	assert_int_equal(storefix_domain(f, "web", "db"), 0);
	assert_int_equal(storefix_set(f, "web", "db", "pw", "value 1"), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&t[i], NULL, read_on, f), 0);
	for (int i = 2; i < 100; i++) {
		snprintf(v, sizeof(v), "value %d", i);
		assert_int_equal(storefix_set(f, "web", "db", "pw", v), 0);
	}
	for (int i = 0; i < 3; i++) {
		pthread_join(t[i], &wrong);
		assert_null(wrong);
	}
}

#define T(name) cmocka_unit_test_setup_teardown(name, storefix_setup, storefix_teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_root_key),
		cmocka_unit_test(test_root_key_outside),
		cmocka_unit_test(test_epoch),
		T(test_root_open_again),
		T(test_made_once),
		cmocka_unit_test(test_epoch_interval),
		cmocka_unit_test(test_counter_answer_lost),

		T(test_bytes_on_disk),
		cmocka_unit_test(test_kill),
		T(test_two_processes),
		T(test_readers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
