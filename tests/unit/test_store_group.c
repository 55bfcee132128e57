/* The writer: groups, what is undone, races, no room. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include "proto-spec/limits.h"
#include "tests/lib/storefix.h"

struct batch {
	pthread_mutex_t mu;
	pthread_cond_t cond;
	size_t left;
};
static void batch_done(struct csm_store_op *op)
{
	struct batch *b = op->arg;

	pthread_mutex_lock(&b->mu);
	b->left--;
	pthread_cond_signal(&b->cond);
	pthread_mutex_unlock(&b->mu);
}
static void batch_wait(struct batch *b)
{
	pthread_mutex_lock(&b->mu);
	while (b->left > 0)
		pthread_cond_wait(&b->cond, &b->mu);
	pthread_mutex_unlock(&b->mu);
}

/* Queued before the writer starts, so that they are one group: what cannot be done fails alone. */
static void test_group(void **state)
{
	struct batch b = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 9};
	const struct csm_bin x = {(const uint8_t *)"x", 1};
	struct csm_store_op ops[9] = {
		{.kind = CSM_OP_DOMAIN_CREATE, .ns = CSM_STR("web"), .name = CSM_STR("db")},
		{.kind = CSM_OP_SECRET_SET, .secret = CSM_STR("a"), .payload = x},
		{.kind = CSM_OP_DOMAIN_CREATE},
		{.kind = CSM_OP_SECRET_SET, .secret = CSM_STR("a"), .payload = x, .has_expect = true, .expect = 7},
		{.kind = CSM_OP_SECRET_SET, .secret = CSM_STR("a"), .payload = x, .has_expect = true, .expect = 1},
		{.kind = CSM_OP_SECRET_DELETE, .secret = CSM_STR("none")},
		{.kind = CSM_OP_SECRET_SET, .secret = CSM_STR("b"), .payload = x},
		{.kind = CSM_OP_SECRET_DELETE, .secret = CSM_STR("b")},
		{.kind = CSM_OP_SECRET_SET, .secret = CSM_STR("c"), .payload = x},
	};
	static const int want[9] = {0, 0, CSM_EEXISTS, CSM_ECONFLICT, 0, CSM_ENOT_FOUND, 0, 0, 0};
	struct storefix *f = *state;
	struct csm_store_stat st;
	char v[256];

	storefix_close(f);
	assert_int_equal(csm_store_open(&f->opt, &f->s), 0);
	for (size_t i = 0; i < 9; i++) {
		ops[i].ns = CSM_STR("web");
		ops[i].name = CSM_STR("db");
		ops[i].done = batch_done;
		ops[i].arg = &b;
		assert_int_equal(csm_store_submit(f->s, &ops[i]), 0);
	}
	assert_int_equal(csm_store_start(f->s), 0);
	batch_wait(&b);
	for (size_t i = 0; i < 9; i++)
		assert_int_equal(ops[i].r, want[i]);
	assert_int_equal(ops[4].version, 2);
	csm_store_stat(f->s, &st);
	assert_int_equal(st.commits, 1);
	assert_int_equal(st.commit_ops, 6);
	assert_int_equal(st.secrets, 2);
	csm_store_close(f->s);
	f->s = NULL;
	assert_int_equal(storefix_open(f), 0);
	assert_false(csm_store_locked(f->s));
	assert_int_equal(storefix_get(f, "web", "db", "a", 0, v), 0);
	assert_int_equal(storefix_get(f, "web", "db", "b", 0, v), CSM_ENOT_FOUND);
}

/* An operation that fails after it has changed things: its request's answer is too large to be kept. Nothing of it
 * stays, and what stood beside it in the group does. */
static void test_undone(void **state)
{
	enum { N = 5 };
	struct batch b = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, N};
	uint8_t *big = calloc(1, CSM_MESSAGE_MAX + 1);
	struct csm_store_op ops[N] = {
		{.kind = CSM_OP_SECRET_SET, .name = CSM_STR("db"), .secret = CSM_STR("before")},
		{.kind = CSM_OP_KEY_CREATE, .name = CSM_STR("tls"), .key = {.backend = CSM_STR("soft")}},
		{.kind = CSM_OP_DOMAIN_DELETE, .name = CSM_STR("db")},
		{.kind = CSM_OP_DOMAIN_CREATE, .name = CSM_STR("more")},
		{.kind = CSM_OP_SECRET_SET, .name = CSM_STR("db"), .secret = CSM_STR("after")},
	};
	struct storefix *f = *state;
	struct csm_key_record rec;
	struct csm_store_stat st;
	char v[256];

	assert_non_null(big);
	assert_int_equal(storefix_domain(f, "web", "db"), 0);
	assert_int_equal(storefix_set(f, "web", "db", "pw", "one"), 0);
	storefix_close(f);
	assert_int_equal(csm_store_open(&f->opt, &f->s), 0);
	for (size_t i = 0; i < N; i++) {
		ops[i].ns = CSM_STR("web");
		ops[i].payload = (struct csm_bin){(const uint8_t *)"x", 1};
		ops[i].done = batch_done;
		ops[i].arg = &b;
		if (ops[i].kind != CSM_OP_SECRET_SET) {
			ops[i].rid = (struct csm_request_id){.who = CSM_STR("uid-1"), .id = CSM_STR("id")};
			ops[i].answer = (struct csm_bin){big, CSM_MESSAGE_MAX + 1};
		}
		assert_int_equal(csm_store_submit(f->s, &ops[i]), 0);
	}
	assert_int_equal(csm_store_start(f->s), 0);
	batch_wait(&b);
	for (size_t i = 0; i < N; i++)
		assert_int_equal(ops[i].r, ops[i].kind == CSM_OP_SECRET_SET ? 0 : CSM_ETOO_LARGE);
	csm_store_stat(f->s, &st);
	assert_int_equal(st.commits, 1);
	assert_int_equal(st.keys, 0);
	assert_int_equal(st.domains, 1);
	assert_int_equal(st.secrets, 3);
	csm_store_close(f->s);
	f->s = NULL;
	assert_int_equal(storefix_open(f), 0);
	assert_false(csm_store_locked(f->s));
	assert_int_equal(storefix_get(f, "web", "db", "pw", 0, v), 0);
	assert_int_equal(storefix_get(f, "web", "db", "before", 0, v), 0);
	assert_int_equal(storefix_get(f, "web", "db", "after", 0, v), 0);
	assert_int_equal(storefix_key_get(f, "web", "tls", NULL, &rec), CSM_ENOT_FOUND);
	assert_int_equal(storefix_domain(f, "web", "more"), 0);
	free(big);
}

/* Several at once: one group, in their order, told of by the last; taken as a whole or not at all. */
static void test_together(void **state)
{
	struct batch b = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 1};
	static struct csm_store_op ops[CSM_COMMIT_QUEUE_MAX + 1];
	const struct csm_bin x = {(const uint8_t *)"x", 1};
	struct storefix *f = *state;
	struct csm_store_stat st, after;
	char v[256];

	assert_int_equal(storefix_domain(f, "web", "db"), 0);
	for (size_t i = 0; i < CSM_COMMIT_QUEUE_MAX + 1; i++)
		ops[i] = (struct csm_store_op){.kind = CSM_OP_SECRET_SET, .ns = CSM_STR("web"), .name = CSM_STR("db"), .secret = CSM_STR("a"),
			.payload = x, .has_expect = true, .expect = i == 0 ? 0 : 1, .next = i < CSM_COMMIT_QUEUE_MAX ? &ops[i + 1] : NULL};
	assert_int_equal(csm_store_submit_all(f->s, &ops[0], CSM_COMMIT_QUEUE_MAX + 1), CSM_EBUSY);
	assert_int_equal(storefix_get(f, "web", "db", "a", 0, v), CSM_ENOT_FOUND);
	ops[2].next = NULL;
	ops[2].done = batch_done;
	ops[2].arg = &b;
	csm_store_stat(f->s, &st);
	assert_int_equal(csm_store_submit_all(f->s, &ops[0], 3), 0);
	batch_wait(&b);
	csm_store_stat(f->s, &after);
	assert_int_equal(after.commits, st.commits + 1);
	assert_int_equal(ops[0].r, 0);
	assert_int_equal(ops[1].r, 0);
	assert_int_equal(ops[2].r, CSM_ECONFLICT);
	assert_int_equal(ops[1].version, 2);
	/* and where nothing is served any more */
	storefix_close(f);
	assert_int_equal(csm_store_open(&f->opt, &f->s), 0);
	b.left = 1;
	ops[0].next = &ops[1];
	ops[1].next = &ops[2];
	ops[2].next = NULL;
	assert_int_equal(csm_store_submit_all(f->s, &ops[0], 3), 0);
	csm_store_close(f->s);
	f->s = NULL;
	assert_int_equal(b.left, 0);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(ops[i].r, CSM_ESHUTDOWN);
}

/* Without a writer nothing is served, and closing says so. */
static void test_shutdown(void **state)
{
	struct batch b = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 1};
	struct csm_store_op op = {.kind = CSM_OP_DOMAIN_CREATE,
		.ns = CSM_STR("web"),
		.name = CSM_STR("db"),
		.done = batch_done,
		.arg = &b};
	struct csm_store_op *ops = calloc(CSM_COMMIT_QUEUE_MAX + 1, sizeof(*ops));
	struct storefix *f = *state;

	assert_non_null(ops);
	storefix_close(f);
	assert_int_equal(csm_store_open(&f->opt, &f->s), 0);
	assert_int_equal(csm_store_submit(f->s, &op), 0);
	csm_store_close(f->s);
	f->s = NULL;
	assert_int_equal(b.left, 0);
	assert_int_equal(op.r, CSM_ESHUTDOWN);

	/* with one, all that is queued is done first; and the queue has an end */
	assert_int_equal(csm_store_open(&f->opt, &f->s), 0);
	b.left = CSM_COMMIT_QUEUE_MAX;
	for (size_t i = 0; i <= CSM_COMMIT_QUEUE_MAX; i++) {
		ops[i] = op;
		ops[i].kind = i == 0 ? CSM_OP_DOMAIN_CREATE : CSM_OP_SECRET_SET;
		ops[i].secret = CSM_STR("pw");
		if (i == 200 || i == 1000) {
			ops[i].rid = (struct csm_request_id){.who = CSM_STR("uid-1"), .id = CSM_STR("r")};
			ops[i].rid.hash[0] = (uint8_t)i;
			ops[i].rid.id.n = i == 200 ? 1 : 0; /* an empty id is one, too */
		}
		assert_int_equal(csm_store_submit(f->s, &ops[i]), i == CSM_COMMIT_QUEUE_MAX ? CSM_EBUSY : 0);
	}
	assert_int_equal(csm_store_start(f->s), 0);
	csm_store_close(f->s);
	f->s = NULL;
	assert_int_equal(b.left, 0);
	for (size_t i = 0; i < CSM_COMMIT_QUEUE_MAX; i++)
		assert_int_equal(ops[i].r, 0);
	assert_int_equal(ops[CSM_COMMIT_QUEUE_MAX - 1].version, CSM_COMMIT_QUEUE_MAX - 1);
	/* a replay knows its version, however many bytes the answer has */
	assert_int_equal(storefix_open(f), 0);
	ops[200].version = ops[1000].version = 0;
	assert_int_equal(storefix_do(f, &ops[200]), 0);
	assert_int_equal(storefix_do(f, &ops[1000]), 0);
	assert_true(ops[200].replayed && ops[1000].replayed);
	assert_int_equal(ops[200].version, 200);
	assert_int_equal(ops[1000].version, 1000);
	free(ops);
}

struct racer {
	struct storefix *f;
	pthread_t t;
	char priv[16];
	int r;
};
static void *race(void *arg)
{
	struct racer *a = arg;

	a->r = storefix_key(a->f, "web", "tls", a->priv);
	return NULL;
}

static void test_racing_creates(void **state)
{
	struct racer a[64];
	struct storefix *f = *state;
	struct csm_key_record rec;
	size_t won = 0, winner = 0;

	for (size_t i = 0; i < 64; i++) {
		a[i].f = f;
		snprintf(a[i].priv, sizeof(a[i].priv), "private %zu", i);
		assert_int_equal(pthread_create(&a[i].t, NULL, race, &a[i]), 0);
	}
	for (size_t i = 0; i < 64; i++) {
		pthread_join(a[i].t, NULL);
		if (a[i].r == 0) {
			won++;
			winner = i;
		} else {
			assert_int_equal(a[i].r, CSM_EEXISTS);
		}
	}
	assert_int_equal(won, 1);
	assert_int_equal(storefix_key_get(f, "web", "tls", a[winner].priv, &rec), 0);
}

static int big_set(struct storefix *f, int i, size_t n)
{
	uint8_t *p = calloc(1, n);
	char name[16];
	struct csm_store_op op = {
		.kind = CSM_OP_SECRET_SET, .ns = CSM_STR("web"), .name = CSM_STR("db"), .payload = {p, n}};
	int r;

	assert_non_null(p);
	snprintf(name, sizeof(name), "s%d", i);
	op.secret = csm_str_of(name);
	r = storefix_do(f, &op);
	free(p);
	return r;
}

static bool signal_ignored(int sig)
{
	const struct sigaction ignore = {.sa_handler = SIG_IGN};

	return sigaction(sig, &ignore, NULL) == 0;
}

static void test_full(void **state)
{
	struct csm_store_op del = {.kind = CSM_OP_DOMAIN_DELETE, .ns = CSM_STR("web"), .name = CSM_STR("db")};
	struct csm_store_stat st;
	struct storefix f;
	bool told = false;
	char v[256];
	int i, r = 0;

	(void)state;
	storefix_init(&f);
	f.opt.map_size = 4u << 20;
	assert_int_equal(storefix_open(&f), 0);
	assert_int_equal(storefix_domain(&f, "web", "db"), 0);
	assert_int_equal(storefix_domain(&f, "web", "small"), 0);
	assert_int_equal(storefix_set(&f, "web", "small", "pw", "kept"), 0);
	csm_store_stat(f.s, &st);
	assert_int_equal(st.size, 4u << 20);
	for (i = 0; i < 100 && r == 0; i++)
		r = big_set(&f, i, 100000);
	assert_int_equal(r, CSM_ENO_SPACE);
	assert_in_range(i, 20, 45);
	for (int wait = 0; wait < 30 && !told; wait++) { /* measured once a second */
		csm_store_stat(f.s, &st);
		told = st.low_space;
		storefix_sleep_ms(100);
	}
	assert_true(told);
	for (i = 0, r = 0; i < 1000 && r == 0; i++)
		r = big_set(&f, 1000 + i, 1);
	assert_int_equal(r, CSM_ENO_SPACE);
	for (i = 0, r = 0; i < 1000 && r == 0; i++) {
		snprintf(v, sizeof(v), "domain-%d", i);
		r = storefix_domain(&f, "web", v);
	}
	assert_int_equal(r, CSM_ENO_SPACE);
	assert_int_equal(storefix_domain(&f, "web", "more"), CSM_ENO_SPACE);
	assert_int_equal(storefix_key(&f, "web", "more", "p"), CSM_ENO_SPACE);
	/* what was there is read, and room can be made */
	assert_int_equal(storefix_get(&f, "web", "small", "pw", 0, v), 0);
	assert_int_equal(storefix_do(&f, &del), 0);
	assert_int_equal(storefix_domain(&f, "web", "db"), 0);
	assert_int_equal(big_set(&f, 1, 100000), 0);
	storefix_close(&f);
	assert_int_equal(storefix_open(&f), 0);
	assert_false(csm_store_locked(f.s));
	assert_int_equal(storefix_get(&f, "web", "small", "pw", 0, v), 0);
	storefix_free(&f);
}

/* The file cannot grow: the commit of a group fails, and only what does not fit is refused. */
static void test_disk_full(void **state)
{
	struct batch b = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 3};
	struct storefix *f = *state;
	struct rlimit before, limit;
	struct csm_store_op ops[3];
	struct csm_store_op del = {
		.kind = CSM_OP_SECRET_DELETE, .ns = CSM_STR("web"), .name = CSM_STR("db"), .secret = CSM_STR("s1")};
	uint8_t *big = calloc(1, 900000);
	char path[128], v[256];
	struct stat st;

	assert_non_null(big);
	assert_int_equal(storefix_domain(f, "web", "db"), 0);
	assert_int_equal(big_set(f, 1, 100000), 0); /* pages that later commits can use again */
	assert_int_equal(storefix_do(f, &del), 0);
	storefix_close(f);
	assert_int_equal(csm_store_open(&f->opt, &f->s), 0);
	for (size_t i = 0; i < 3; i++) {
		ops[i] = (struct csm_store_op){.kind = CSM_OP_SECRET_SET,
			.ns = CSM_STR("web"),
			.name = CSM_STR("db"),
			.secret = CSM_STR("small"),
			.payload = {(const uint8_t *)"x", 1},
			.done = batch_done,
			.arg = &b};
		if (i == 1) {
			ops[i].secret = CSM_STR("big");
			ops[i].payload = (struct csm_bin){big, 900000};
		}
		assert_int_equal(csm_store_submit(f->s, &ops[i]), 0);
	}
	snprintf(path, sizeof(path), "%s/store/data.mdb", f->dir);
	assert_int_equal(stat(path, &st), 0);
	assert_true(signal_ignored(SIGXFSZ));
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	limit = before;
	limit.rlim_cur = (rlim_t)st.st_size;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_int_equal(csm_store_start(f->s), 0);
	batch_wait(&b);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(ops[0].r, 0);
	assert_int_equal(ops[0].version, 1);
	assert_int_equal(ops[1].r, CSM_ENO_SPACE);
	assert_int_equal(ops[2].r, 0);
	assert_int_equal(ops[2].version, 2);
	/* with room again it goes on, and everything fits together */
	assert_int_equal(csm_reader_new(f->s, &f->r), 0);
	assert_int_equal(storefix_do(f, &ops[1]), 0);
	assert_int_equal(ops[1].version, 1);
	assert_int_equal(storefix_get(f, "web", "db", "small", 2, v), 0);
	storefix_close(f);
	assert_int_equal(storefix_open(f), 0);
	assert_false(csm_store_locked(f->s));
	free(big);
}

/* What was answered stays, though LMDB cannot take it from the journal: it is read, nothing more is taken meanwhile, and with room
 * again, or at the next start, it is there. */
static void test_journal_stuck(void **state)
{
	struct storefix *f = *state;
	struct rlimit before, limit;
	char path[128], v[256], big[200];
	int r = 0;

	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	assert_int_equal(storefix_domain(f, "web", "db"), 0);
	snprintf(path, sizeof(path), "%s/store/data.mdb", f->dir);
	assert_true(signal_ignored(SIGXFSZ));
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(storefix_set(f, "web", "db", "pw", i == 0 ? "one" : "two"), 0);
		/* Not even LMDB's own pages can be written. */
		limit = before;
		limit.rlim_cur = 1;
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
		storefix_sleep_ms(200);
		assert_int_not_equal(storefix_set(f, "web", "db", "refused", big), 0);
		assert_int_not_equal(storefix_domain(f, "web", "refused"), 0);
		assert_int_equal(storefix_get(f, "web", "db", "pw", 0, v), 0);
		assert_string_equal(v, i == 0 ? "one" : "two");
		if (i == 1)
			storefix_close(f);
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
		if (i == 1)
			assert_int_equal(storefix_open(f), 0);
		for (int tries = 0; (r = storefix_domain(f, "web", i == 0 ? "a" : "b")) != 0 && tries < 100; tries++)
			storefix_sleep_ms(100);
		assert_int_equal(r, 0);
		assert_false(csm_store_locked(f->s));
		assert_int_equal(storefix_get(f, "web", "db", "pw", 0, v), 0);
		assert_string_equal(v, i == 0 ? "one" : "two");
		assert_int_equal(storefix_get(f, "web", "db", "refused", 0, v), CSM_ENOT_FOUND);
	}
}

#define T(name) cmocka_unit_test_setup_teardown(name, storefix_setup, storefix_teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_group),
		T(test_undone),
		T(test_together),
		T(test_shutdown),
		T(test_racing_creates),
		cmocka_unit_test(test_full),
		T(test_disk_full),
		T(test_journal_stuck),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
