/* The engine against a plain list of rows: random batches, one by one and several at once, read forwards and backwards, in snapshots
 * that outlive what comes after them, with stops and crashes in between; and readers beside writers. */
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
#include <sys/wait.h>
#include <unistd.h>
#include "daemon/svc/engine.h"
#include "tests/lib/count.h"
#include "tests/lib/dbfix.h"

#define KEYS 200u
#define BATCHES 8u
#define CHANGES 6u

static const struct csm_engine_ops *const ops = &csm_engine_lmdb;

struct model {
	unsigned value[KEYS]; /* which of the values; 0: none */
};
struct fix {
	struct dbfix f;
	struct csm_engine *e;
	struct model m;
	uint64_t random;
};

static unsigned rnd(struct fix *x, unsigned n)
{
	x->random = x->random * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(x->random >> 33) % n;
}

static uint8_t bytes[4u << 20];

/* Keys of several lengths, of which some begin with others. */
static struct csm_bin key_of(unsigned i, char to[static 16])
{
	int n = i % 3 == 0 ? snprintf(to, 16, "k%03u", i) : snprintf(to, 16, "k%03u/%u", i / 3 * 3, i);

	return (struct csm_bin){(const uint8_t *)to, (size_t)n};
}

static struct csm_bin value_of(unsigned v)
{
	return (struct csm_bin){bytes + v % 251, v % 7 == 0 ? 20000 + v % 10000 : v % 50};
}

static void must(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "%s\n", what);
		abort();
	}
}

static bool is(struct csm_bin a, struct csm_bin b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static int by_key(const void *a, const void *b)
{
	char p[16], q[16];
	struct csm_bin x = key_of(*(const unsigned *)a, p), y = key_of(*(const unsigned *)b, q);
	int c = memcmp(x.p, y.p, x.n < y.n ? x.n : y.n);

	return c != 0 ? c : (int)x.n - (int)y.n;
}

/* All that is there, each way; and each key by itself. */
static void compare(struct csm_engine_txn *t, const struct model *m)
{
	static unsigned order[KEYS];
	struct csm_engine_row row = {.key = {(const uint8_t *)"", 1}};
	struct csm_bin v;
	char key[16];
	unsigned n = 0;

	for (unsigned i = 0; i < KEYS; i++) {
		int r = ops->get(t, key_of(i, key), &v);

		must(r == (m->value[i] != 0 ? 0 : CSM_ENOT_FOUND) && (r != 0 || is(v, value_of(m->value[i]))), "get");
		if (m->value[i] != 0)
			order[n++] = i;
	}
	qsort(order, n, sizeof(order[0]), by_key);
	for (unsigned i = 0; i < n; i++) {
		must(ops->next(t, row.key, i == 0, &row) == 0 && is(row.key, key_of(order[i], key)), "next");
		must(is(row.value, value_of(m->value[order[i]])), "next's value");
		if (i % 5 == 0) {
			struct csm_engine_row other;
			int r = ops->prev(t, row.key, &other);

			must(r == (i == 0 ? CSM_ENOT_FOUND : 0) && (r != 0 || is(other.key, key_of(order[i - 1], key))), "prev in between");
		}
	}
	must(ops->next(t, row.key, n == 0, &row) == CSM_ENOT_FOUND, "the end");
	row.key = (struct csm_bin){(const uint8_t *)"zz", 2};
	for (unsigned i = n; i-- > 0;)
		must(ops->prev(t, row.key, &row) == 0 && is(row.key, key_of(order[i], key)) && is(row.value, value_of(m->value[order[i]])), "prev");
	must(ops->prev(t, row.key, &row) == CSM_ENOT_FOUND, "the beginning");
}

struct made {
	char keys[2 * CHANGES][16];
	struct csm_engine_cond conds[CHANGES];
	struct csm_engine_change changes[CHANGES];
	struct csm_engine_batch b;
};

/* A batch, what becomes of it, and the model after it. */
static int make(struct fix *x, struct made *d)
{
	struct model after = x->m;
	int r = 0;

	*d = (struct made){.b = {.conds = d->conds, .changes = d->changes, .n_conds = rnd(x, 3), .n_changes = 1 + rnd(x, CHANGES - 1)}};
	for (unsigned i = 0; i < d->b.n_conds; i++) {
		unsigned k = rnd(x, KEYS), was = x->m.value[k], v = rnd(x, 4) == 0 ? 1 + rnd(x, 1000) : was;
		enum csm_engine_need need = was == 0 ? CSM_ENGINE_ABSENT : rnd(x, 2) == 0 ? CSM_ENGINE_PRESENT : CSM_ENGINE_EQUALS;

		if (rnd(x, 20) == 0)
			need = CSM_ENGINE_PRESENT;
		d->conds[i] = (struct csm_engine_cond){need, key_of(k, d->keys[CHANGES + i]), value_of(v)};
		if (need == CSM_ENGINE_ABSENT ? was != 0 : was == 0 || (need == CSM_ENGINE_EQUALS && !is(value_of(v), value_of(was))))
			r = CSM_ECONFLICT;
	}
	for (unsigned i = 0; i < d->b.n_changes; i++) {
		unsigned k = rnd(x, KEYS), v = 1 + rnd(x, 1000);
		bool del = rnd(x, 3) == 0;

		d->changes[i] = (struct csm_engine_change){key_of(k, d->keys[i]), del ? (struct csm_bin){NULL, 0} : value_of(v), del};
		after.value[k] = del ? 0 : v;
	}
	if (r == 0)
		x->m = after;
	return r;
}

/* Too large for the journal. */
static void write_large(struct fix *x)
{
	char key[2][16];
	struct csm_engine_change c[2] = {{key_of(0, key[0]), {bytes, 2u << 20}, false}, {key_of(1, key[1]), {bytes, (2u << 20) - 100}, false}};

	for (unsigned i = 0; i < 2 && x->e != NULL; i++) {
		must(ops->write(x->e, &(struct csm_engine_batch){.changes = c, .n_changes = 2}, NULL) == 0, "large");
		c[0].del = true;
		c[1].value = value_of(3);
	}
	x->m.value[0] = 0;
	x->m.value[1] = 3;
}

/* Without an engine only the model's. */
static void step(struct fix *x)
{
	const struct csm_engine_batch *b[BATCHES];
	struct made made[BATCHES];
	unsigned n = 1 + rnd(x, BATCHES);
	int want[BATCHES], got[BATCHES], first = 0;

	if (rnd(x, 100) == 0) {
		write_large(x);
		return;
	}
	for (unsigned i = 0; i < n; i++) {
		want[i] = make(x, &made[i]);
		b[i] = &made[i].b;
		first = first == 0 ? want[i] : first;
	}
	if (x->e == NULL)
		return;
	must(ops->write_all(x->e, b, n, got) == first, "write_all");
	must(memcmp(got, want, n * sizeof(got[0])) == 0, "its results");
}

static int reopen(struct fix *x, unsigned ms)
{
	const struct csm_engine_options opt = {.dir = x->f.dir, .map_size = 256u << 20, .key = x->f.key, .journal_ms = ms, .why = x->f.why,
		.why_len = sizeof(x->f.why)};

	ops->close(x->e);
	x->e = NULL;
	return ops->open(&opt, &x->e);
}

/* Snapshots are taken at random and looked at later. */
static void life(struct fix *x, unsigned steps, unsigned ms)
{
	struct csm_engine_txn *t = NULL;
	struct model then;

	if (reopen(x, ms) != 0)
		fprintf(stderr, "%s\n", x->f.why);
	must(x->e != NULL && ops->begin(x->e, &t) == 0, "open");
	then = x->m;
	for (unsigned i = 0; i < steps; i++) {
		step(x);
		if (rnd(x, 10) != 0)
			continue;
		compare(t, &then);
		ops->end(t);
		must(ops->begin(x->e, &t) == 0, "begin");
		then = x->m;
		compare(t, &then);
	}
	compare(t, &then);
	ops->end(t);
}

static void test_model(void **state)
{
	unsigned rounds = long_run() ? 300 : 12, status;
	struct fix *x = *state;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i % 251);
	x->random = (uint64_t)getpid();
	print_message("seed %llu\n", (unsigned long long)x->random);
	for (unsigned i = 0; i < rounds; i++) {
		unsigned steps = 5 + rnd(x, 60), ms = rnd(x, 2) == 0 ? 3 : 100000;
		struct fix after = *x;
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0) {
			life(x, steps, ms);
			if (i % 3 == 0)
				ops->close(x->e);
			_exit(0);
		}
		assert_int_equal(waitpid(pid, (int *)&status, 0), pid);
		assert_int_equal(status, 0);
		for (unsigned j = 0; j < steps; j++) {
			step(&after);
			(void)rnd(&after, 10);
		}
		*x = after;
	}
	life(x, 10, 0);
	assert_int_equal(reopen(x, 0), 0);
	life(x, 1, 0);
}

/* ---- readers beside writers ---- */

static atomic_bool stop;
static atomic_uint reads;

/* The rows of a pair are equal, whatever else is said of them; a row of each number up to the last is there. */
static void *reads_pairs(void *arg)
{
	struct fix *x = arg;

	while (!atomic_load(&stop)) {
		struct csm_engine_row row;
		struct csm_engine_txn *t;
		struct csm_bin a, b;
		unsigned n = 0;
		int r;

		must(ops->begin(x->e, &t) == 0, "begin");
		r = ops->get(t, (struct csm_bin){(const uint8_t *)"a", 1}, &a);
		must(ops->get(t, (struct csm_bin){(const uint8_t *)"z", 1}, &b) == r && (r != 0 || is(a, b)), "a pair");
		for (row.key = (struct csm_bin){(const uint8_t *)"n", 1}; ops->next(t, row.key, false, &row) == 0 && row.key.p[0] == 'n'; n++)
			must(row.value.n >= 8, "a row");
		must(r != 0 || n == strtoul((const char *)a.p, NULL, 10), "as many as the pair says");
		ops->end(t);
		atomic_fetch_add(&reads, 1);
	}
	return NULL;
}

static void test_readers(void **state)
{
	unsigned groups = long_run() ? 5000 : 300;
	struct fix *x = *state;
	pthread_t t[3];
	char text[32], key[32];

	assert_int_equal(reopen(x, 3), 0);
	atomic_store(&stop, false);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&t[i], NULL, reads_pairs, x), 0);
	for (unsigned i = 0; i < groups; i++) {
		struct csm_bin now = {(const uint8_t *)text, (size_t)snprintf(text, sizeof(text), "%08u", i % 100 + 1) + 1};
		struct csm_engine_change c[103] = {{{(const uint8_t *)"z", 1}, now, false}, {{(const uint8_t *)"a", 1}, now, false}};
		char gone[100][32];
		size_t n = 2;

		c[n++] = (struct csm_engine_change){{(const uint8_t *)key, (size_t)snprintf(key, sizeof(key), "n%u", i % 100)}, {bytes, 8 + i % 9000}, false};
		/* From one again. */
		for (unsigned j = 1; i % 100 == 0 && i > 0 && j < 100; j++, n++)
			c[n] = (struct csm_engine_change){{(const uint8_t *)gone[j], (size_t)snprintf(gone[j], sizeof(gone[j]), "n%u", j)}, {NULL, 0}, true};
		assert_int_equal(ops->write(x->e, &(struct csm_engine_batch){.changes = c, .n_changes = n}, NULL), 0);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	assert_true(atomic_load(&reads) > 3);
}

static int setup(void **state)
{
	struct fix *x = calloc(1, sizeof(*x));

	assert_non_null(x);
	dbfix_init(&x->f);
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fix *x = *state;

	ops->close(x->e);
	dbfix_free(&x->f);
	free(x);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_model, setup, teardown),
		cmocka_unit_test_setup_teardown(test_readers, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
