/* Certificates that are stored together come out as if one came after the other: who was first has it, whatever two of them rest on. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "tests/lib/dbfix.h"

/* n certificates from number `from` on; the test says the rest of each. */
struct batch {
	struct dbfix_cert c[DB_TOGETHER_MAX];
	struct csm_buf serial[DB_TOGETHER_MAX];
	struct db_issuing v[DB_TOGETHER_MAX];
	size_t n;
};

static void batch_init(struct batch *b, uint64_t from, size_t n)
{
	b->n = n;
	for (size_t i = 0; i < n; i++) {
		dbfix_cert(&b->c[i], from + i);
		csm_buf_init(&b->serial[i], DB_SERIAL_MAX, false);
		b->v[i] = (struct db_issuing){.in = {.cert = &b->c[i].c, .now = DBFIX_NOW}, .serial = &b->serial[i], .r = -1, .replayed = true};
	}
}

static void batch_run(struct dbfix *f, struct batch *b)
{
	db_issue_together(f->db, b->v, b->n);
}

static void batch_free(struct batch *b)
{
	for (size_t i = 0; i < b->n; i++)
		csm_buf_free(&b->serial[i]);
}

static size_t count(const struct batch *b, int r)
{
	size_t n = 0;

	for (size_t i = 0; i < b->n; i++)
		n += b->v[i].r == r;
	return n;
}

/* What is told is what is there. */
static void expect_stored(struct dbfix *f, const struct batch *b)
{
	struct db_cert got;

	for (size_t i = 0; i < b->n; i++)
		assert_int_equal(db_cert_get(f->db, b->c[i].c.serial, &f->pool, &got),
			b->v[i].r == 0 && !b->v[i].replayed ? 0 : CSM_ENOT_FOUND);
}

static void all_with_one_wait(void **state)
{
	struct dbfix *f = *state;
	struct db_stat before, after;
	struct batch b;

	batch_init(&b, 1, DB_TOGETHER_MAX);
	db_stat(f->db, &before);
	batch_run(f, &b);
	db_stat(f->db, &after);
	assert_int_equal(count(&b, 0), DB_TOGETHER_MAX);
	assert_int_equal(after.writes - before.writes, DB_TOGETHER_MAX);
	assert_int_equal(after.commits - before.commits, 1);
	dbfix_close(f);
	assert_int_equal(dbfix_open(f), 0);
	for (size_t i = 0; i < b.n; i++)
		assert_false(b.v[i].replayed);
	expect_stored(f, &b);
	batch_free(&b);
}

static void a_refused_one_refuses_no_other(void **state)
{
	struct dbfix *f = *state;
	struct dbfix_cert gone;
	struct batch b;

	dbfix_cert(&gone, 99);
	assert_int_equal(dbfix_issue(f, 99), 0);
	assert_int_equal(db_revoke(f->db, gone.c.serial, 1, DBFIX_NOW, CSM_STR("uid 0")), 0);
	batch_init(&b, 1, 6);
	b.c[0].c.serial.n = 0;               /* no serial number */
	b.v[2].in.spare = gone.c.serial;     /* asked by one that is revoked */
	b.c[3].c.serial = gone.c.serial;     /* taken */
	b.c[5].c.serial = b.c[4].c.serial;   /* by the one before it */
	batch_run(f, &b);
	assert_int_equal(b.v[0].r, CSM_EINVALID);
	assert_int_equal(b.v[1].r, 0);
	assert_int_equal(b.v[2].r, CSM_EDENIED);
	assert_int_equal(b.v[3].r, CSM_EEXISTS);
	assert_int_equal(b.v[4].r, 0);
	assert_int_equal(b.v[5].r, CSM_EEXISTS);
	batch_free(&b);
}

static void a_token_gives_what_it_has(void **state)
{
	struct dbfix *f = *state;
	struct db_token t, got;
	struct batch b;

	for (uint8_t uses = 1; uses <= 3; uses++) {
		dbfix_token(&t, uses, uses);
		assert_int_equal(db_token_add(f->db, &t), 0);
		batch_init(&b, 100u * uses, 5);
		for (size_t i = 0; i < b.n; i++)
			b.v[i].in.token = i == 1 ? NULL : t.id; /* and beside them one that needs none */
		batch_run(f, &b);
		assert_int_equal(b.v[1].r, 0);
		assert_int_equal(count(&b, 0), 1u + uses);
		assert_int_equal(count(&b, CSM_EDENIED), 4u - uses);
		for (size_t i = 0; i < b.n; i++) /* in their order */
			assert_int_equal(b.v[i].r, i == 1 || (i == 0 ? 1u : i) <= uses ? 0 : CSM_EDENIED);
		expect_stored(f, &b);
		assert_int_equal(db_token_get(f->db, t.id, &f->pool, &got), 0);
		assert_int_equal(got.used, uses);
		batch_free(&b);
	}
}

/* One is made, and the others are told of it; who asked for something else under the same key is refused. */
static void an_idempotency_key_is_for_one(void **state)
{
	struct dbfix *f = *state;
	uint8_t hash[32] = {1}, other[32] = {2};
	struct batch b;

	batch_init(&b, 1, 5);
	for (size_t i = 0; i < b.n; i++) {
		b.v[i].in.idempotency = CSM_STR("key");
		b.v[i].in.caller = i == 4 ? CSM_STR("another") : CSM_STR("caller");
		b.v[i].in.request_hash = (struct csm_bin){i == 2 ? other : hash, 32};
	}
	batch_run(f, &b);
	assert_true(b.v[0].r == 0 && !b.v[0].replayed);
	assert_true(b.v[1].r == 0 && b.v[1].replayed);
	assert_int_equal(b.v[2].r, CSM_ECONFLICT);
	assert_true(b.v[3].r == 0 && b.v[3].replayed);
	assert_true(b.v[4].r == 0 && !b.v[4].replayed);
	for (size_t i = 1; i < 4; i += 2) {
		assert_int_equal(b.serial[i].len, b.c[0].c.serial.n);
		assert_memory_equal(csm_buf_ptr(&b.serial[i]), b.c[0].c.serial.p, b.c[0].c.serial.n);
	}
	expect_stored(f, &b);
	batch_free(&b);
}

static void a_nodes_name_is_one_nodes(void **state)
{
	struct dbfix *f = *state;
	struct batch b;

	batch_init(&b, 1, 4);
	for (size_t i = 0; i < b.n; i++) {
		b.c[i].c.role = CSM_STR("node");
		b.c[i].c.node = i == 1 ? CSM_STR("n2.example") : i == 2 ? CSM_STR("N1.example") : CSM_STR("n1.example");
		b.v[i].in.new_node = true;
	}
	b.c[3].c.spki_sha256 = b.c[0].c.spki_sha256; /* the first one's own key */
	batch_run(f, &b);
	assert_int_equal(b.v[0].r, 0);
	assert_int_equal(b.v[1].r, 0);
	assert_int_equal(b.v[2].r, CSM_ESTATE);
	assert_int_equal(b.v[3].r, 0);
	expect_stored(f, &b);
	batch_free(&b);
}

/* ---- several batches at the same time ---- */

struct racer {
	struct dbfix *f;
	const uint8_t *token;
	uint64_t from;
	size_t good, refused;
};

static void *race(void *arg)
{
	struct racer *r = arg;
	struct batch b;

	for (unsigned round = 0; round < 5; round++) {
		batch_init(&b, r->from + round * DB_TOGETHER_MAX, 8);
		for (size_t i = 0; i < b.n; i++)
			b.v[i].in.token = i % 2 == 0 ? r->token : NULL;
		batch_run(r->f, &b);
		r->good += count(&b, 0);
		r->refused += count(&b, CSM_EDENIED);
		batch_free(&b);
	}
	return NULL;
}

static void batches_race_for_a_token(void **state)
{
	struct dbfix *f = *state;
	struct racer r[3];
	struct db_token t, got;
	size_t good = 0, refused = 0;
	pthread_t id[3];

	dbfix_token(&t, 1, 25);
	assert_int_equal(db_token_add(f->db, &t), 0);
	for (size_t i = 0; i < 3; i++) {
		r[i] = (struct racer){.f = f, .token = t.id, .from = 1000 * i};
		assert_int_equal(pthread_create(&id[i], NULL, race, &r[i]), 0);
	}
	for (size_t i = 0; i < 3; i++) {
		pthread_join(id[i], NULL);
		good += r[i].good;
		refused += r[i].refused;
	}
	assert_int_equal(good, 3 * 5 * 4 + 25);
	assert_int_equal(refused, 3 * 5 * 4 - 25);
	assert_int_equal(db_token_get(f->db, t.id, &f->pool, &got), 0);
	assert_int_equal(got.used, 25);
}

#define ON(f) cmocka_unit_test_setup_teardown(f, dbfix_setup, dbfix_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {ON(all_with_one_wait), ON(a_refused_one_refuses_no_other), ON(a_token_gives_what_it_has),
		ON(an_idempotency_key_is_for_one), ON(a_nodes_name_is_one_nodes), ON(batches_race_for_a_token)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
