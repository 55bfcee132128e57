/* The LMDB engine: each kind of condition, batches that stand or fall alone, snapshots, order, no room. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <signal.h>
#include "daemon/svc/engine.h"
#include "tests/lib/dbfix.h"

static const struct csm_engine_ops *const ops = &csm_engine_lmdb;

struct fix {
	struct dbfix f; /* its folder */
	struct csm_engine *e;
};

static int reopen(struct fix *x)
{
	const struct csm_engine_options opt = {.dir = x->f.dir, .map_size = x->f.map_size, .key = x->f.key, .why = x->f.why, .why_len = sizeof(x->f.why)};

	ops->close(x->e);
	x->e = NULL;
	return ops->open(&opt, &x->e);
}

static int setup(void **state)
{
	struct fix *x = calloc(1, sizeof(*x));

	assert_non_null(x);
	dbfix_init(&x->f);
	*state = x;
	return reopen(x);
}

static int teardown(void **state)
{
	struct fix *x = *state;

	ops->close(x->e);
	dbfix_free(&x->f);
	free(x);
	return 0;
}

static struct csm_bin b(const char *s)
{
	return (struct csm_bin){(const uint8_t *)s, strlen(s)};
}

static int put(struct fix *x, const char *key, const char *value)
{
	const struct csm_engine_change c = {.key = b(key), .value = b(value)};

	return ops->write(x->e, &(struct csm_engine_batch){.changes = &c, .n_changes = 1}, NULL);
}

static bool is(struct fix *x, const char *key, const char *value)
{
	struct csm_engine_txn *t;
	struct csm_bin v = {NULL, 0};
	int r;

	assert_int_equal(ops->begin(x->e, &t), 0);
	r = ops->get(t, b(key), &v);
	assert_true(r == 0 || r == CSM_ENOT_FOUND);
	if (value != NULL)
		r = r == 0 && v.n == strlen(value) && (v.n == 0 || memcmp(v.p, value, v.n) == 0) ? 0 : 1;
	else
		r = r == CSM_ENOT_FOUND ? 0 : 1;
	ops->end(t);
	return r == 0;
}

static void test_conditions(void **state)
{
	static const struct {
		enum csm_engine_need need;
		const char *key, *value;
		bool holds;
	} rows[] = {
		{CSM_ENGINE_ABSENT, "none", "", true}, {CSM_ENGINE_ABSENT, "one", "", false}, {CSM_ENGINE_ABSENT, "empty", "", false},
		{CSM_ENGINE_PRESENT, "one", "", true}, {CSM_ENGINE_PRESENT, "empty", "", true}, {CSM_ENGINE_PRESENT, "none", "", false},
		{CSM_ENGINE_EQUALS, "one", "1", true}, {CSM_ENGINE_EQUALS, "one", "2", false}, {CSM_ENGINE_EQUALS, "one", "11", false},
		{CSM_ENGINE_EQUALS, "one", "", false}, {CSM_ENGINE_EQUALS, "empty", "", true}, {CSM_ENGINE_EQUALS, "none", "", false},
		{CSM_ENGINE_EQUALS, "on", "1", false}, {CSM_ENGINE_ABSENT, "on", "", true},
	};
	struct fix *x = *state;

	assert_int_equal(put(x, "one", "1"), 0);
	assert_int_equal(put(x, "empty", ""), 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct csm_engine_cond c[2] = {{CSM_ENGINE_PRESENT, b("one"), b("")}, {rows[i].need, b(rows[i].key), b(rows[i].value)}};
		const struct csm_engine_change d[2] = {{b("x"), b("written"), false}, {b("empty"), b(""), true}};
		size_t failed = 99;
		int r = ops->write(x->e, &(struct csm_engine_batch){.conds = c, .n_conds = 2, .changes = d, .n_changes = 2}, &failed);

		if (r != (rows[i].holds ? 0 : CSM_ECONFLICT))
			fail_msg("row %zu: %d", i, r);
		assert_int_equal(failed, rows[i].holds ? 99 : 1);
		assert_true(is(x, "x", rows[i].holds ? "written" : NULL));
		assert_true(is(x, "empty", rows[i].holds ? NULL : ""));
		assert_int_equal(put(x, "empty", ""), 0);
		assert_int_equal(ops->write(x->e, &(struct csm_engine_batch){.changes = &(struct csm_engine_change){b("x"), b(""), true},
			.n_changes = 1}, NULL), 0);
	}
	assert_int_equal(reopen(x), 0);
	assert_true(is(x, "one", "1"));
}

static void test_refused(void **state)
{
	struct fix *x = *state, y = {.f = x->f};
	char key[513];
	uint8_t *big = calloc(1, CSM_ENGINE_BATCH_MAX + 1);

	assert_non_null(big);
	memset(key, 'k', sizeof(key));
	key[511] = '\0';
	assert_int_equal(put(x, key, "v"), 0);
	assert_true(is(x, key, "v"));
	key[511] = 'k';
	key[512] = '\0';
	assert_int_equal(put(x, key, "v"), CSM_EINVALID);
	assert_int_equal(put(x, "", "v"), CSM_EINVALID);
	assert_int_equal(ops->write(x->e, &(struct csm_engine_batch){.changes = &(struct csm_engine_change){b("k"),
		{big, CSM_ENGINE_BATCH_MAX + 1}, false}, .n_changes = 1}, NULL), CSM_ETOO_LARGE);
	assert_int_equal(ops->write(x->e, &(struct csm_engine_batch){.conds = &(struct csm_engine_cond){CSM_ENGINE_ABSENT, b(""), b("")},
		.n_conds = 1}, NULL), CSM_EINVALID);
	assert_int_equal(reopen(&y), CSM_EBUSY);
	free(big);
}

static void test_order(void **state)
{
	static const char *const keys[] = {"a", "aa", "ab", "b", "\xff"};
	struct csm_engine_row row;
	struct csm_engine_txn *t;
	struct fix *x = *state;

	assert_int_equal(ops->begin(x->e, &t), 0);
	assert_int_equal(ops->next(t, b("a"), true, &row), CSM_ENOT_FOUND);
	assert_int_equal(ops->prev(t, b("a"), &row), CSM_ENOT_FOUND);
	ops->end(t);
	for (size_t i = 5; i-- > 0;)
		assert_int_equal(put(x, keys[i], keys[i]), 0);
	assert_int_equal(ops->begin(x->e, &t), 0);
	row.key = b("\x01");
	for (size_t i = 0; i < 5; i++) {
		assert_int_equal(ops->next(t, row.key, i == 0, &row), 0);
		assert_true(row.key.n == strlen(keys[i]) && memcmp(row.key.p, keys[i], row.key.n) == 0);
		/* Whatever is asked in between. */
		if (i == 2) {
			struct csm_engine_row other;

			assert_int_equal(ops->prev(t, b("b"), &other), 0);
			assert_memory_equal(other.key.p, "ab", 2);
		}
	}
	assert_int_equal(ops->next(t, row.key, false, &row), CSM_ENOT_FOUND);
	row.key = b("\xff\xff");
	for (size_t i = 5; i-- > 0;) {
		assert_int_equal(ops->prev(t, row.key, &row), 0);
		assert_true(row.key.n == strlen(keys[i]) && memcmp(row.key.p, keys[i], row.key.n) == 0);
	}
	assert_int_equal(ops->prev(t, row.key, &row), CSM_ENOT_FOUND);
	assert_int_equal(ops->next(t, b("aa"), true, &row), 0);
	assert_memory_equal(row.key.p, "aa", 2);
	assert_int_equal(ops->next(t, b("aa"), false, &row), 0);
	assert_memory_equal(row.key.p, "ab", 2);
	assert_int_equal(ops->next(t, b("a0"), false, &row), 0);
	assert_memory_equal(row.key.p, "aa", 2);
	ops->end(t);
}

static void test_snapshot(void **state)
{
	struct csm_engine_txn *t;
	struct fix *x = *state;
	struct csm_bin v;

	assert_int_equal(put(x, "a", "1"), 0);
	assert_int_equal(ops->begin(x->e, &t), 0);
	assert_int_equal(put(x, "a", "2"), 0);
	assert_int_equal(ops->get(t, b("a"), &v), 0);
	assert_memory_equal(v.p, "1", 1);
	ops->end(t);
	assert_true(is(x, "a", "2"));
}

/* Each is judged by what those before it have written, whatever became of them; one that is refused changes nothing, and what is no
 * batch stops no other. */
static void test_write_all(void **state)
{
	const struct csm_engine_cond absent = {CSM_ENGINE_ABSENT, b("a"), b("")}, one = {CSM_ENGINE_EQUALS, b("a"), b("1")},
		two = {CSM_ENGINE_EQUALS, b("a"), b("2")}, none = {CSM_ENGINE_ABSENT, b("c"), b("")};
	const struct csm_engine_change a1 = {b("a"), b("1"), false}, a2[2] = {{b("a"), b("2"), false}, {b("b"), b("2"), false}},
		a3[2] = {{b("c"), b("3"), false}, {b("a"), b("3"), false}}, bad = {b(""), b("x"), false}, gone = {b("b"), b(""), true};
	const struct csm_engine_batch v[] = {
		{.conds = &absent, .n_conds = 1, .changes = &a1, .n_changes = 1},
		{.conds = &absent, .n_conds = 1, .changes = a3, .n_changes = 2}, /* the one before it has won */
		{.changes = &bad, .n_changes = 1},
		{.conds = &one, .n_conds = 1, .changes = a2, .n_changes = 2},
		{.conds = &one, .n_conds = 1, .changes = a3, .n_changes = 2},
		{.conds = (struct csm_engine_cond[]){two, none}, .n_conds = 2, .changes = &gone, .n_changes = 1},
	}, *all[CSM_ENGINE_WRITE_MAX + 1];
	static const int want[] = {0, CSM_ECONFLICT, CSM_EINVALID, 0, CSM_ECONFLICT, 0};
	int results[CSM_ENGINE_WRITE_MAX + 1];
	struct csm_engine_stat before, st;
	struct fix *x = *state;

	for (size_t i = 0; i <= CSM_ENGINE_WRITE_MAX; i++)
		all[i] = i < 6 ? &v[i] : &v[0];
	ops->stat(x->e, &before);
	assert_int_equal(ops->write_all(x->e, all, 6, results), CSM_ECONFLICT);
	assert_memory_equal(results, want, sizeof(want));
	ops->stat(x->e, &st);
	assert_int_equal(st.batches, before.batches + 5);
	assert_int_equal(st.commits, before.commits + 1); /* one wait for all */
	for (unsigned round = 0; round < 2; round++) {
		assert_true(is(x, "a", "2"));
		assert_true(is(x, "b", NULL));
		assert_true(is(x, "c", NULL));
		assert_int_equal(reopen(x), 0);
	}
	assert_int_equal(ops->write_all(x->e, NULL, 0, NULL), 0);
	assert_int_equal(ops->write_all(x->e, all + 3, 1, results), CSM_ECONFLICT);
	assert_int_equal(ops->write_all(x->e, all, CSM_ENGINE_WRITE_MAX + 1, results), CSM_EINVALID);
	assert_int_equal(ops->write_all(x->e, all, CSM_ENGINE_WRITE_MAX, results), CSM_ECONFLICT);
	for (size_t i = 0; i < CSM_ENGINE_WRITE_MAX; i++)
		assert_int_equal(results[i], i == 2 ? CSM_EINVALID : i == 5 ? 0 : CSM_ECONFLICT);
}

/* Where there is no room for all of them, those that have it are written, and what is urgent. */
static void test_write_all_full(void **state)
{
	static uint8_t value[1500000];
	const struct csm_engine_change c[] = {{b("big0"), {value, sizeof(value)}, false}, {b("big1"), {value, sizeof(value)}, false},
		{b("big2"), {value, sizeof(value)}, false}, {b("small"), b("v"), false}};
	const struct csm_engine_batch v[] = {{.changes = &c[0], .n_changes = 1}, {.changes = &c[1], .n_changes = 1},
		{.changes = &c[2], .n_changes = 1, .urgent = true}, {.changes = &c[3], .n_changes = 1}};
	int results[4];
	struct fix *x = *state;

	x->f.map_size = 4u << 20;
	assert_int_equal(reopen(x), 0);
	assert_int_equal(ops->write_all(x->e, (const struct csm_engine_batch *[]){&v[0], &v[1], &v[2], &v[3]}, 4, results), CSM_ENO_SPACE);
	assert_int_equal(results[0], 0);
	assert_int_equal(results[1], CSM_ENO_SPACE);
	assert_int_equal(results[2], 0);
	assert_int_equal(reopen(x), 0);
	assert_true(is(x, "big1", NULL));
	assert_false(is(x, "big2", NULL));
}

struct adder {
	struct fix *x;
	char key[16];
	unsigned won, lost;
};
/* Counts one row up, each time under the condition that nobody else has. */
static void *add(void *arg)
{
	struct adder *a = arg;

	for (unsigned i = 0; i < 100;) {
		char was[32] = "", now[32], mine[48];
		struct csm_engine_txn *t;
		struct csm_bin v;
		int r;

		if (ops->begin(a->x->e, &t) != 0 || ops->get(t, b("n"), &v) != 0 || v.n >= sizeof(was))
			abort();
		memcpy(was, v.p, v.n);
		ops->end(t);
		snprintf(now, sizeof(now), "%ld", strtol(was, NULL, 10) + 1);
		snprintf(mine, sizeof(mine), "%s/%u", a->key, i);
		r = ops->write(a->x->e, &(struct csm_engine_batch){.conds = &(struct csm_engine_cond){CSM_ENGINE_EQUALS, b("n"), b(was)},
			.n_conds = 1, .changes = (struct csm_engine_change[]){{b("n"), b(now), false}, {b(mine), b(now), false}}, .n_changes = 2}, NULL);
		if (r != 0 && r != CSM_ECONFLICT)
			abort();
		a->won += r == 0;
		a->lost += r != 0;
		i += r == 0;
	}
	return NULL;
}

/* Each that was told to have been first was, and those that were not changed nothing. */
static void test_races(void **state)
{
	struct csm_engine_stat st;
	struct fix *x = *state;
	unsigned lost = 0;
	struct adder a[6];
	pthread_t t[6];
	char mine[48];

	assert_int_equal(put(x, "n", "0"), 0);
	for (size_t i = 0; i < 6; i++) {
		a[i] = (struct adder){.x = x};
		snprintf(a[i].key, sizeof(a[i].key), "k%zu", i);
		assert_int_equal(pthread_create(&t[i], NULL, add, &a[i]), 0);
	}
	for (size_t i = 0; i < 6; i++) {
		pthread_join(t[i], NULL);
		assert_int_equal(a[i].won, 100);
		lost += a[i].lost;
	}
	assert_true(is(x, "n", "600"));
	for (size_t i = 0; i < 6; i++) {
		snprintf(mine, sizeof(mine), "k%zu/99", i);
		assert_false(is(x, mine, NULL));
	}
	ops->stat(x->e, &st);
	assert_int_equal(st.batches, 600 + 1 + lost);
}

static void *independent(void *arg)
{
	struct adder *a = arg;
	char key[48];

	for (unsigned i = 0; i < 200; i++) {
		snprintf(key, sizeof(key), "%s/%u", a->key, i);
		/* Every fifth one asks for what is not so. */
		if (ops->write(a->x->e, &(struct csm_engine_batch){
			.conds = &(struct csm_engine_cond){i % 5 == 0 ? CSM_ENGINE_PRESENT : CSM_ENGINE_ABSENT, b(key), b("")}, .n_conds = 1,
			.changes = &(struct csm_engine_change){b(key), b("v"), false}, .n_changes = 1}, NULL) != (i % 5 == 0 ? CSM_ECONFLICT : 0))
			abort();
	}
	return NULL;
}

/* Writers that come at the same time share commits; who is refused is alone. */
static void test_groups(void **state)
{
	struct csm_engine_stat st;
	struct fix *x = *state;
	struct adder a[8];
	pthread_t t[8];
	char key[48];

	for (size_t i = 0; i < 8; i++) {
		a[i] = (struct adder){.x = x};
		snprintf(a[i].key, sizeof(a[i].key), "k%zu", i);
		assert_int_equal(pthread_create(&t[i], NULL, independent, &a[i]), 0);
	}
	for (size_t i = 0; i < 8; i++)
		pthread_join(t[i], NULL);
	ops->stat(x->e, &st);
	assert_int_equal(st.batches, 1600);
	assert_true(st.commits < st.batches);
	assert_int_equal(reopen(x), 0);
	for (size_t i = 0; i < 8; i++) {
		for (unsigned j = 0; j < 200; j++) {
			snprintf(key, sizeof(key), "k%zu/%u", i, j);
			assert_true(is(x, key, j % 5 == 0 ? NULL : "v"));
		}
	}
}

static int put_big(struct fix *x, unsigned i, bool urgent)
{
	static uint8_t value[100000];
	char key[32];

	snprintf(key, sizeof(key), "big%u", i);
	return ops->write(x->e, &(struct csm_engine_batch){.changes = (struct csm_engine_change[]){{b(key), {value, sizeof(value)}, false},
		{b("last"), b(key), false}}, .n_changes = 2, .urgent = urgent}, NULL);
}

/* Low space is told before a write fails; a write that has no room changes nothing; what is urgent has some; and room that was given
 * back can be used. */
static void test_full(void **state)
{
	struct csm_engine_stat st = {0};
	struct fix *x = *state;
	char last[32];
	unsigned n = 0;
	bool low = false;
	int r;

	x->f.map_size = 4u << 20;
	assert_int_equal(reopen(x), 0);
	while ((r = put_big(x, n, false)) == 0) {
		n++;
		ops->stat(x->e, &st);
		low = low || st.low_space;
		assert_true(n < 60);
	}
	assert_int_equal(r, CSM_ENO_SPACE);
	assert_true(n > 30);
	assert_true(low);
	snprintf(last, sizeof(last), "big%u", n - 1);
	assert_true(is(x, "last", last));
	assert_int_equal(put_big(x, n, true), 0);
	assert_int_equal(reopen(x), 0);
	assert_int_equal(put_big(x, n + 1, false), CSM_ENO_SPACE);
	snprintf(last, sizeof(last), "big%u", n);
	assert_true(is(x, "last", last));
	for (unsigned i = 0; i < 10; i++) {
		snprintf(last, sizeof(last), "big%u", i);
		assert_int_equal(ops->write(x->e, &(struct csm_engine_batch){.changes = &(struct csm_engine_change){b(last), b(""), true},
			.n_changes = 1, .urgent = true}, NULL), 0);
	}
	assert_int_equal(put_big(x, n + 1, false), 0);
}

/* The disk is full where the map is not: what does not fit on it is refused, what was there stays, and it goes on afterwards. */
static void test_disk_full(void **state)
{
	struct rlimit was, now;
	struct fix *x = *state;
	char last[32];
	unsigned n = 0;
	struct stat st;
	char path[128];
	int r = 0;

	assert_int_equal(put_big(x, n++, false), 0);
	snprintf(path, sizeof(path), "%s/data.mdb", x->f.dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
	now = (struct rlimit){(rlim_t)st.st_size + 500000, was.rlim_max};
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &now), 0);
	while (n < 40 && (r = put_big(x, n, false)) == 0)
		n++;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
	assert_int_equal(r, CSM_ENO_SPACE);
	snprintf(last, sizeof(last), "big%u", n - 1);
	assert_true(is(x, "last", last));
	assert_int_equal(put_big(x, n, false), 0);
	assert_int_equal(reopen(x), 0);
	snprintf(last, sizeof(last), "big%u", n);
	assert_true(is(x, "last", last));
}

/* What was read does not stay in the process's memory for ever, and can be read again. */
static void test_resident(void **state)
{
	struct fix *x = *state;
	struct csm_engine_txn *t;
	struct csm_bin v;
	char key[32];
	size_t shared, first = 0;
	unsigned sum = 0;

	x->f.map_size = 256u << 20;
	assert_int_equal(reopen(x), 0);
	for (unsigned i = 0; i < 600; i++)
		assert_int_equal(put_big(x, i, false), 0);
	for (unsigned round = 0; round < 2; round++) {
		assert_int_equal(ops->begin(x->e, &t), 0);
		for (unsigned i = 0; i < 600; i++) {
			snprintf(key, sizeof(key), "big%u", i);
			assert_int_equal(ops->get(t, b(key), &v), 0);
			for (size_t j = 0; j < v.n; j += 4096)
				sum += v.p[j];
		}
		ops->end(t);
		for (unsigned i = 0; i < 1024; i++) { /* it looks now and then */
			assert_int_equal(ops->begin(x->e, &t), 0);
			assert_int_equal(ops->get(t, b("last"), &v), 0);
			ops->end(t);
		}
		shared = dbfix_resident(true);
		if (round == 0)
			first = shared;
		assert_true(shared < (size_t)60 << 20); /* 60 MB were read; the program's own files are some 20 */
		assert_true(shared < first + ((size_t)28 << 20));
	}
	assert_int_equal(sum, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(test_conditions),
		T(test_refused),
		T(test_order),
		T(test_snapshot),
		T(test_write_all),
		T(test_write_all_full),
		T(test_races),
		T(test_groups),
		T(test_full),
		T(test_disk_full),
		T(test_resident),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
