/* csm-server's database: what is asked for again, and by a certificate that is revoked meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "daemon/pki/crl.h"
#include "proto-spec/limits.h"
#include "tests/lib/dbfix.h"

static const uint8_t hashes[2][32] = {{1}, {2}};

static struct db_asked asked(const char *key, const char *caller, unsigned hash)
{
	return (struct db_asked){.idempotency = csm_str_of(key), .caller = csm_str_of(caller), .request_hash = {hashes[hash], 32}};
}

static bool count_event(void *arg, const struct db_event *e)
{
	(void)e;
	++*(size_t *)arg;
	return true;
}

static size_t events(struct dbfix *f)
{
	size_t n = 0;

	assert_int_equal(db_event_each(f->db, 0, count_event, &n), 0);
	return n;
}

static int revoke(struct dbfix *f, uint64_t i, const struct db_asked *a, uint64_t now, bool *replayed)
{
	struct dbfix_cert c;

	dbfix_cert(&c, i);
	return db_revoke_asked(f->db, c.c.serial, CSM_REASON_SUPERSEDED, now, CSM_STR("t"), a, replayed);
}

static void test_revoke_again(void **state)
{
	const struct db_asked first = asked("k", "a", 0), other = asked("k", "a", 1), foreign = asked("k", "b", 0);
	struct dbfix *f = *state;
	bool replayed = true;
	uint64_t revocations;
	size_t n;

	assert_int_equal(dbfix_issue(f, 1), 0);
	assert_int_equal(dbfix_issue(f, 2), 0);
	assert_int_equal(revoke(f, 1, &first, DBFIX_NOW, &replayed), 0);
	assert_false(replayed);
	revocations = db_revocations(f->db);
	n = events(f);
	assert_int_equal(revoke(f, 1, &first, DBFIX_NOW + 5, &replayed), 0);
	assert_true(replayed);
	assert_int_equal(revoke(f, 2, &other, DBFIX_NOW, &replayed), CSM_ECONFLICT);
	assert_int_equal(revoke(f, 1, &foreign, DBFIX_NOW, &replayed), CSM_EEXISTS);
	assert_true(events(f) == n && db_revocations(f->db) == revocations);
	/* a refusal keeps no outcome; after a day nothing is known of the first one */
	assert_int_equal(revoke(f, 2, &foreign, DBFIX_NOW, &replayed), 0);
	assert_int_equal(revoke(f, 1, &first, DBFIX_NOW + CSM_REQUEST_ID_TTL_S, &replayed), CSM_EEXISTS);
}

static void test_token_again(void **state)
{
	const struct db_asked first = asked("k", "a", 0), other = asked("k", "a", 1);
	struct dbfix *f = *state;
	uint8_t one[32], two[32];
	bool replayed = true;
	struct db_token t;

	dbfix_token(&t, 1, 1);
	assert_int_equal(db_token_add_asked(f->db, &t, &first, &replayed, &f->out), 0);
	assert_true(!replayed && f->out.len == 0);
	dbfix_token(&t, 2, 1);
	assert_int_equal(db_token_add_asked(f->db, &t, &other, &replayed, &f->out), CSM_ECONFLICT);
	assert_int_equal(db_token_add_asked(f->db, &t, &first, &replayed, &f->out), 0);
	assert_true(replayed && f->out.len == DB_TOKEN_ID_LEN && csm_buf_ptr(&f->out)[0] == 1);
	assert_int_equal(db_token_get(f->db, t.id, &f->pool, &t), CSM_ENOT_FOUND);
	/* the secret is the same at each start, and another one for each id */
	db_token_secret(f->db, t.id, one);
	dbfix_close(f);
	assert_int_equal(dbfix_open(f), 0);
	db_token_secret(f->db, t.id, two);
	assert_memory_equal(one, two, 32);
	t.id[0] ^= 1;
	db_token_secret(f->db, t.id, two);
	assert_memory_not_equal(one, two, 32);
}

static void test_by_a_revoked_certificate(void **state)
{
	struct dbfix *f = *state;
	struct db_asked a = asked("", "a", 0);
	struct dbfix_cert by;
	bool replayed = false;
	struct db_token t;

	for (uint64_t i = 1; i <= 4; i++)
		assert_int_equal(dbfix_issue(f, i), 0);
	dbfix_cert(&by, 1);
	a.spare = by.c.serial;
	dbfix_token(&t, 1, 1);
	assert_int_equal(db_token_add_asked(f->db, &t, &a, &replayed, &f->out), 0);
	assert_int_equal(revoke(f, 2, &a, DBFIX_NOW, &replayed), 0);
	assert_int_equal(revoke(f, 1, &a, DBFIX_NOW, &replayed), 0); /* itself */
	assert_int_equal(revoke(f, 3, &a, DBFIX_NOW, &replayed), CSM_EDENIED);
	dbfix_token(&t, 2, 1);
	assert_int_equal(db_token_add_asked(f->db, &t, &a, &replayed, &f->out), CSM_EDENIED);
	assert_int_equal(db_token_get(f->db, t.id, &f->pool, &t), CSM_ENOT_FOUND);
}

static void test_what_was_done_elsewhere(void **state)
{
	const struct db_asked first = asked("k", "a", 0), other = asked("k", "a", 1);
	struct dbfix *f = *state;

	assert_int_equal(db_replay(f->db, &first, DBFIX_NOW, &f->out), CSM_ENOT_FOUND);
	assert_int_equal(db_asked_put(f->db, &first, (struct csm_bin){(const uint8_t *)"x", 1}, DBFIX_NOW), 0);
	assert_int_equal(db_replay(f->db, &other, DBFIX_NOW, &f->out), CSM_ECONFLICT);
	assert_int_equal(db_asked_put(f->db, &other, (struct csm_bin){(const uint8_t *)"y", 1}, DBFIX_NOW), CSM_ECONFLICT);
	assert_int_equal(db_replay(f->db, &first, DBFIX_NOW, &f->out), 0);
	assert_true(f->out.len == 1 && csm_buf_ptr(&f->out)[0] == 'x');
	assert_int_equal(db_replay(f->db, &first, DBFIX_NOW + CSM_REQUEST_ID_TTL_S, &f->out), CSM_ENOT_FOUND);
}

#define T(name) cmocka_unit_test_setup_teardown(name, dbfix_setup, dbfix_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {T(test_revoke_again), T(test_token_again), T(test_by_a_revoked_certificate),
		T(test_what_was_done_elsewhere)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
