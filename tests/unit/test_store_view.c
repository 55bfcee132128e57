/* Readers beside the writer, while groups go into the journal and from there to LMDB: what was answered before a reader began is
 * seen by it, in each way of looking, and a snapshot agrees with itself. */
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
#include "libclient/base/buf.h"
#include "tests/lib/storefix.h"

#define WRITERS 6u
#define READERS 3u
#define WORK_MS 2000u

static struct {
	struct storefix f;
	atomic_uint_fast64_t answered[WRITERS]; /* the version */
	atomic_uint_fast64_t looks;
	atomic_bool stop;
	atomic_uint bad;
} t;

static void wrong(const char *what, uint64_t have, uint64_t want)
{
	if (atomic_fetch_add(&t.bad, 1) < 10)
		fprintf(stderr, "%s: %llu, not %llu\n", what, (unsigned long long)have, (unsigned long long)want);
}

static void good(const char *what, int r)
{
	if (r != 0)
		wrong(what, (uint64_t)r, 0);
}

/* Each writes one secret, whose value is its version. */
static void *writer_main(void *arg)
{
	atomic_uint_fast64_t *answered = arg;
	char name[] = "s0", value[32];

	name[1] = (char)('0' + (answered - t.answered));
	for (uint64_t i = 1; !t.stop && t.bad == 0; i++) {
		snprintf(value, sizeof(value), "%llu", (unsigned long long)i);
		good("set", storefix_set(&t.f, "web", "db", name, value));
		atomic_store(answered, i);
		if (name[1] == '0' && i % 7 == 0)
			storefix_sleep_ms(25);
	}
	return NULL;
}

/* What LMDB commits at once, between the others, at any moment. */
static void *other_main(void *arg)
{
	struct csm_store_op del = {.kind = CSM_OP_SECRET_DELETE, .ns = CSM_STR("web"), .name = CSM_STR("db"), .secret = CSM_STR("x")};
	char name[32];

	(void)arg;
	for (unsigned i = 0; !t.stop && t.bad == 0; i++) {
		snprintf(name, sizeof(name), "other%u", i);
		good("domain", storefix_domain(&t.f, "web", name));
		good("set", storefix_set(&t.f, "web", "db", "x", "x"));
		if (i % 2 != 0)
			good("delete", storefix_do(&t.f, &del));
		storefix_sleep_ms(i * 7 % 5);
	}
	return NULL;
}

struct listed {
	uint64_t version[WRITERS];
	char last[16];
};

static bool list_one(void *arg, struct csm_str name, uint64_t version, uint64_t created)
{
	struct listed *l = arg;
	char text[16];

	(void)created;
	snprintf(text, sizeof(text), "%.*s", (int)name.n, name.p);
	if (strcmp(l->last, text) >= 0)
		wrong("the order of a list", version, 0);
	memcpy(l->last, text, sizeof(text));
	if (text[0] == 's')
		l->version[text[1] - '0'] = version;
	return true;
}

/* The version there is; 0: none. */
static uint64_t look(struct csm_reader *r, const char *name)
{
	uint64_t version = 0, again = 0, created;
	struct csm_buf out;
	char text[32] = "";
	int e;

	csm_buf_init(&out, 4096, false);
	e = csm_store_secret_get(r, CSM_STR("web"), CSM_STR("db"), csm_str_of(name), 0, &out, &version, &created);
	if (e == CSM_ENOT_FOUND)
		return 0;
	good("get", e);
	snprintf(text, sizeof(text), "%.*s", (int)out.len, (const char *)csm_buf_ptr(&out));
	if (strtoull(text, NULL, 10) != version)
		wrong("the value of a version", strtoull(text, NULL, 10), version);
	csm_buf_reset(&out);
	good("get of a version", csm_store_secret_get(r, CSM_STR("web"), CSM_STR("db"), csm_str_of(name), version, &out, &again, &created));
	csm_buf_free(&out);
	return version;
}

static void look_at_all(struct csm_reader *r)
{
	uint64_t want[WRITERS], version[WRITERS];
	struct listed l = {.last = ""};
	char name[] = "s0";

	for (unsigned i = 0; i < WRITERS; i++)
		want[i] = atomic_load(&t.answered[i]);
	good("begin", csm_reader_begin(r));
	for (unsigned i = 0; i < WRITERS; i++) {
		name[1] = (char)('0' + i);
		version[i] = look(r, name);
		if (i == WRITERS / 2)
			good("list", csm_store_secret_list(r, CSM_STR("web"), CSM_STR("db"), CSM_STR(""), list_one, &l));
	}
	csm_reader_end(r);
	for (unsigned i = 0; i < WRITERS; i++) {
		if (version[i] < want[i])
			wrong("a version that was answered", version[i], want[i]);
		if (l.version[i] < want[i])
			wrong("a version that was answered, in a list", l.version[i], want[i]);
	}
	atomic_fetch_add(&t.looks, 1);
}

static void *reader_main(void *arg)
{
	struct csm_reader *r = NULL;

	(void)arg;
	good("reader", csm_reader_new(t.f.s, &r));
	while (!t.stop && t.bad == 0)
		look_at_all(r);
	csm_reader_free(r);
	return NULL;
}

static void test_answered_is_seen(void **state)
{
	pthread_t threads[WRITERS + READERS + 1];
	size_t n = 0;

	(void)state;
	storefix_init(&t.f);
	assert_int_equal(storefix_open(&t.f), 0);
	assert_int_equal(storefix_domain(&t.f, "web", "db"), 0);
	for (size_t i = 0; i < WRITERS; i++)
		assert_int_equal(pthread_create(&threads[n++], NULL, writer_main, &t.answered[i]), 0);
	for (size_t i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&threads[n++], NULL, reader_main, NULL), 0);
	assert_int_equal(pthread_create(&threads[n++], NULL, other_main, NULL), 0);
	storefix_sleep_ms(WORK_MS);
	t.stop = true;
	while (n > 0)
		pthread_join(threads[--n], NULL);
	assert_int_equal(t.bad, 0);
	assert_true(t.looks > READERS);
	storefix_free(&t.f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answered_is_seen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
