/* csm-server's database: certificates, tokens, answers that are asked for again, revocations, values, events. */
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
#include "daemon/pki/crl.h"
#include "tests/lib/dbfix.h"

static bool same(struct csm_bin a, struct csm_bin b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static void test_issue(void **state)
{
	struct dbfix *f = *state;
	struct dbfix_cert c;
	struct db_cert got;

	dbfix_cert(&c, 5);
	c.c.renews = (struct csm_bin){c.serial + 8, 8};
	assert_int_equal(db_cert_get(f->db, c.c.serial, &f->pool, &got), CSM_ENOT_FOUND);
	assert_int_equal(dbfix_issue(f, 5), 0);
	assert_int_equal(dbfix_issue(f, 5), CSM_EEXISTS);
	dbfix_close(f);
	assert_int_equal(dbfix_open(f), 0);
	assert_int_equal(db_cert_get(f->db, c.c.serial, &f->pool, &got), 0);
	assert_true(same(got.serial, c.c.serial) && same(got.der, c.c.der) && same(got.spki_sha256, c.c.spki_sha256));
	assert_true(csm_str_same(got.subject, c.c.subject) && csm_str_same(got.node, c.c.node) && csm_str_same(got.issuer, c.c.issuer));
	assert_true(csm_str_same(got.requester, c.c.requester) && csm_str_same(got.profile, c.c.profile));
	assert_int_equal(got.n_sans, 2);
	assert_true(csm_str_same(got.sans[1], c.c.sans[1]));
	assert_true(got.issued == c.c.issued && got.not_after == c.c.not_after && got.not_before == c.c.not_before);
	assert_int_equal(got.state, DB_VALID);
	assert_int_equal(db_cert_by_key(f->db, c.c.spki_sha256, &f->pool, &got), 0);
	assert_true(same(got.serial, c.c.serial));
	c.spki[31] ^= 1;
	assert_int_equal(db_cert_by_key(f->db, c.c.spki_sha256, &f->pool, &got), CSM_ENOT_FOUND);
}

/* What cannot be a certificate is refused before anything is written. */
static void test_issue_refused(void **state)
{
	struct dbfix *f = *state;
	uint8_t zero[16] = {0};
	struct dbfix_cert c;
	struct db_cert got;
	bool replayed;

	for (int i = 0; i < 5; i++) {
		dbfix_cert(&c, 1);
		switch (i) {
		case 0: c.c.serial = (struct csm_bin){zero, 16}; break;
		case 1: c.c.serial.n = 0; break;
		case 2: c.c.spki_sha256.n = 31; break;
		case 3: c.c.der.n = 0; break;
		default: c.c.state = DB_REVOKED; break;
		}
		assert_int_equal(db_issue(f->db, &(struct db_issue){.cert = &c.c, .now = DBFIX_NOW}, &replayed, &f->out), CSM_EINVALID);
	}
	dbfix_cert(&c, 1);
	assert_int_equal(db_cert_get(f->db, c.c.serial, &f->pool, &got), CSM_ENOT_FOUND);
}

static void test_token(void **state)
{
	struct dbfix *f = *state;
	struct db_token t, got;
	struct dbfix_cert c;
	struct db_cert cert;
	bool replayed;

	dbfix_token(&t, 1, 2);
	t.names = (const struct csm_str[]){CSM_STR("dns:a"), CSM_STR("cn:b")};
	t.n_names = 2;
	t.any_name = false;
	assert_int_equal(db_token_find(f->db, t.hash, &f->pool, &got), CSM_ENOT_FOUND);
	assert_int_equal(db_token_add(f->db, &t), 0);
	assert_int_equal(db_token_add(f->db, &t), CSM_EEXISTS);
	assert_int_equal(db_token_find(f->db, t.hash, &f->pool, &got), 0);
	assert_true(got.uses == 2 && got.used == 0 && got.n_names == 2 && csm_str_eq(got.names[1], "cn:b") && !got.any_name);
	assert_true(csm_str_eq(got.role, "node") && got.expires == t.expires && memcmp(got.id, t.id, sizeof(t.id)) == 0);
	assert_int_equal(dbfix_issue_by(f, 1, 2), CSM_EDENIED); /* there is no such token */
	assert_int_equal(dbfix_issue_by(f, 1, 1), 0);
	assert_int_equal(dbfix_issue_by(f, 1, 1), CSM_EEXISTS); /* costs no use */
	dbfix_close(f);
	assert_int_equal(dbfix_open(f), 0);
	assert_int_equal(dbfix_issue_by(f, 2, 1), 0);
	assert_int_equal(dbfix_issue_by(f, 3, 1), CSM_EDENIED); /* spent */
	dbfix_cert(&c, 3);
	assert_int_equal(db_cert_get(f->db, c.c.serial, &f->pool, &cert), CSM_ENOT_FOUND);
	assert_int_equal(db_token_find(f->db, t.hash, &f->pool, &got), 0);
	assert_int_equal(got.used, 2);
	dbfix_token(&t, 3, 1);
	assert_int_equal(db_token_add(f->db, &t), 0);
	assert_int_equal(db_issue(f->db, &(struct db_issue){.cert = &c.c, .token = t.id, .now = t.expires}, &replayed, &f->out), CSM_EDENIED);
	assert_int_equal(db_token_delete(f->db, t.id, DBFIX_NOW, CSM_STR("uid 0")), 0);
	assert_int_equal(db_token_delete(f->db, t.id, DBFIX_NOW, CSM_STR("uid 0")), CSM_ENOT_FOUND);
	assert_int_equal(db_token_find(f->db, t.hash, &f->pool, &got), CSM_ENOT_FOUND);
	assert_int_equal(dbfix_issue_by(f, 3, 3), CSM_EDENIED);
}

static void test_token_list(void **state)
{
	struct dbfix *f = *state;
	struct csm_str next = {"", 0};
	struct db_token t, *v;
	size_t n, all = 0;

	for (uint8_t i = 1; i <= 7; i++) {
		dbfix_token(&t, i, 1);
		assert_int_equal(db_token_add(f->db, &t), 0);
	}
	do {
		assert_int_equal(db_token_list(f->db, next, 3, &f->pool, &v, &n, &next), 0);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(v[i].id[0], ++all);
	} while (next.n > 0);
	assert_int_equal(all, 7);
	assert_int_equal(db_token_list(f->db, CSM_STR("xx"), 3, &f->pool, &v, &n, &next), CSM_EINVALID);
	assert_int_equal(db_token_list(f->db, CSM_STR("0102"), 3, &f->pool, &v, &n, &next), CSM_EINVALID);
}

struct race {
	struct dbfix *f;
	uint64_t first;
	uint8_t token;
	atomic_int *good, *denied;
};
static void *race(void *arg)
{
	struct race *a = arg;

	for (uint64_t i = 0; i < 20; i++) {
		int r = dbfix_issue_by(a->f, a->first + i, a->token);

		if (r == 0)
			atomic_fetch_add(a->good, 1);
		else if (r == CSM_EDENIED)
			atomic_fetch_add(a->denied, 1);
	}
	return NULL;
}

/* Eight threads that spend one token: as many certificates as it has uses, and no other error. */
static void test_token_race(void **state)
{
	atomic_int good = 0, denied = 0;
	struct dbfix *f = *state;
	struct race a[8];
	pthread_t t[8];
	struct db_token token;

	dbfix_token(&token, 9, 37);
	assert_int_equal(db_token_add(f->db, &token), 0);
	for (size_t i = 0; i < 8; i++) {
		a[i] = (struct race){f, 1000 * (i + 1), 9, &good, &denied};
		assert_int_equal(pthread_create(&t[i], NULL, race, &a[i]), 0);
	}
	for (size_t i = 0; i < 8; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(good, 37);
	assert_int_equal(denied, 8 * 20 - 37);
	assert_int_equal(db_token_find(f->db, token.hash, &f->pool, &token), 0);
	assert_int_equal(token.used, 37);
}

/* ---- the same at the same time ---- */

struct twin {
	struct dbfix *f;
	unsigned me, round;
	bool same_serial; /* else another serial each, and the same idempotency key */
	pthread_barrier_t *start;
	int r;
	bool replayed;
	uint8_t serial[DB_SERIAL_MAX];
	size_t n;
};
static void *twin(void *arg)
{
	static const uint8_t hash[32];
	struct twin *t = arg;
	struct db_issue q = {.now = DBFIX_NOW, .caller = CSM_STR("a"), .request_hash = {hash, 32}};
	struct dbfix_cert c;
	struct csm_buf out;
	char key[32];

	dbfix_cert(&c, t->round * 10 + (t->same_serial ? 0 : t->me));
	snprintf(key, sizeof(key), "key %u", t->round);
	q.cert = &c.c;
	if (!t->same_serial)
		q.idempotency = csm_str_of(key);
	csm_buf_init(&out, 64, false);
	pthread_barrier_wait(t->start);
	t->r = db_issue(t->f->db, &q, &t->replayed, &out);
	t->n = out.len;
	if (out.len > 0 && out.len <= sizeof(t->serial))
		memcpy(t->serial, csm_buf_ptr(&out), out.len);
	csm_buf_free(&out);
	return NULL;
}

/* Of several who come at the same time one is first, and the others get what he got, or are refused. */
static void test_twins(void **state)
{
	struct dbfix *f = *state;
	pthread_barrier_t start;
	struct twin t[6];
	pthread_t id[6];

	for (unsigned round = 0; round < 60; round++) {
		bool same_serial = round % 2 == 0;
		struct dbfix_cert c;
		unsigned first = 0, refused = 0, replayed = 0;
		size_t who = 0;

		pthread_barrier_init(&start, NULL, 6);
		for (unsigned i = 0; i < 6; i++) {
			t[i] = (struct twin){.f = f, .me = i, .round = round, .same_serial = same_serial, .start = &start};
			assert_int_equal(pthread_create(&id[i], NULL, twin, &t[i]), 0);
		}
		for (unsigned i = 0; i < 6; i++) {
			pthread_join(id[i], NULL);
			refused += t[i].r == CSM_EEXISTS;
			replayed += t[i].r == 0 && t[i].replayed;
			first += t[i].r == 0 && !t[i].replayed;
			who = t[i].r == 0 && !t[i].replayed ? i : who;
		}
		pthread_barrier_destroy(&start);
		assert_int_equal(first, 1);
		assert_int_equal(same_serial ? refused : replayed, 5);
		dbfix_cert(&c, round * 10 + t[who].me);
		for (unsigned i = 0; i < 6 && !same_serial; i++)
			assert_true(i == who || same((struct csm_bin){t[i].serial, t[i].n}, c.c.serial));
	}
}

static int issue_idem(struct dbfix *f, uint64_t i, const char *key, const char *caller, uint8_t hash, uint64_t now, bool *replayed)
{
	struct dbfix_cert c;
	uint8_t h[32];

	memset(h, hash, sizeof(h));
	dbfix_cert(&c, i);
	csm_buf_reset(&f->out);
	return db_issue(f->db, &(struct db_issue){.cert = &c.c, .now = now, .idempotency = csm_str_of(key), .caller = csm_str_of(caller),
		.request_hash = {h, 32}}, replayed, &f->out);
}

static void test_idempotency(void **state)
{
	struct dbfix *f = *state;
	struct dbfix_cert c;
	struct db_cert got;
	struct db_asked q;
	uint8_t h[32];
	bool replayed = true;

	assert_int_equal(issue_idem(f, 1, "k", "a", 1, DBFIX_NOW, &replayed), 0);
	assert_false(replayed);
	assert_int_equal(issue_idem(f, 2, "k", "a", 1, DBFIX_NOW + 86399, &replayed), 0);
	assert_true(replayed);
	dbfix_cert(&c, 1);
	assert_true(same((struct csm_bin){csm_buf_ptr(&f->out), f->out.len}, c.c.serial));
	dbfix_cert(&c, 2);
	assert_int_equal(db_cert_get(f->db, c.c.serial, &f->pool, &got), CSM_ENOT_FOUND);
	assert_int_equal(issue_idem(f, 2, "k", "a", 2, DBFIX_NOW, &replayed), CSM_ECONFLICT); /* another request */
	assert_int_equal(issue_idem(f, 2, "k", "b", 2, DBFIX_NOW, &replayed), 0); /* another caller */
	assert_false(replayed);
	assert_int_equal(issue_idem(f, 3, "k", "a", 2, DBFIX_NOW + 86400, &replayed), 0); /* a day later */
	assert_false(replayed);
	memset(h, 2, sizeof(h));
	q = (struct db_asked){.idempotency = CSM_STR("k"), .caller = CSM_STR("a"), .request_hash = {h, 32}};
	csm_buf_reset(&f->out);
	assert_int_equal(db_replay(f->db, &q, DBFIX_NOW + 86401, &f->out), 0);
	dbfix_cert(&c, 3);
	assert_true(same((struct csm_bin){csm_buf_ptr(&f->out), f->out.len}, c.c.serial));
	q.idempotency = CSM_STR("none");
	assert_int_equal(db_replay(f->db, &q, DBFIX_NOW + 86401, &f->out), CSM_ENOT_FOUND);
}

static int revoke(struct dbfix *f, uint64_t i, int reason, uint64_t now)
{
	struct dbfix_cert c;

	dbfix_cert(&c, i);
	return db_revoke(f->db, c.c.serial, reason, now, CSM_STR("uid 0"));
}

struct list {
	size_t n, stop;
	struct db_revoked v[64];
	uint8_t serial[64][DB_SERIAL_MAX];
};
static bool listed(void *arg, const struct db_revoked *r)
{
	struct list *l = arg;

	assert_true(l->n < 64 && r->serial.n <= DB_SERIAL_MAX);
	l->v[l->n] = *r;
	memcpy(l->serial[l->n], r->serial.p, r->serial.n);
	l->v[l->n].serial.p = l->serial[l->n];
	l->n++;
	return l->stop == 0 || l->n < l->stop;
}

static void test_revoke(void **state)
{
	uint64_t later = DBFIX_NOW + 500, before;
	struct dbfix *f = *state;
	struct dbfix_cert c;
	struct list l = {0};
	struct db_cert got;
	bool replayed;

	assert_int_equal(revoke(f, 1, 1, later), CSM_ENOT_FOUND);
	for (uint64_t i = 1; i <= 9; i++)
		assert_int_equal(dbfix_issue(f, i), 0);
	before = db_revocations(f->db);
	assert_int_equal(revoke(f, 1, CSM_REASON_KEY_COMPROMISE, later), 0);
	assert_int_equal(db_revocations(f->db), before + 1);
	assert_int_equal(revoke(f, 1, CSM_REASON_SUPERSEDED, later), CSM_EEXISTS);
	assert_int_equal(revoke(f, 1, CSM_REASON_REMOVE_FROM_CRL, later), CSM_EEXISTS);
	assert_int_equal(revoke(f, 2, CSM_REASON_REMOVE_FROM_CRL, later), CSM_ESTATE);
	assert_int_equal(revoke(f, 2, 7, later), CSM_EINVALID);
	assert_int_equal(revoke(f, 2, CSM_REASON_HOLD, later), 0);
	assert_int_equal(revoke(f, 2, CSM_REASON_HOLD, later), CSM_EEXISTS);
	assert_int_equal(revoke(f, 3, CSM_REASON_HOLD, later), 0);
	assert_int_equal(revoke(f, 3, CSM_REASON_CESSATION, later + 1), 0);
	assert_int_equal(db_revoked_each(f->db, CSM_STR("default"), 0, later, listed, &l), 0);
	assert_int_equal(l.n, 3);
	for (size_t i = 1; i < l.n; i++)
		assert_true(memcmp(l.serial[i - 1], l.serial[i], 16) < 0);
	assert_int_equal(revoke(f, 2, CSM_REASON_REMOVE_FROM_CRL, later + 2), 0);
	dbfix_cert(&c, 2);
	assert_int_equal(db_cert_get(f->db, c.c.serial, &f->pool, &got), 0);
	assert_int_equal(got.state, DB_VALID);
	dbfix_cert(&c, 3);
	assert_int_equal(db_cert_get(f->db, c.c.serial, &f->pool, &got), 0);
	assert_true(got.state == DB_REVOKED && got.reason == CSM_REASON_CESSATION && got.revoked == later + 1);
	l.n = 0;
	assert_int_equal(db_revoked_each(f->db, CSM_STR("default"), 0, later, listed, &l), 0);
	assert_int_equal(l.n, 2);
	l.n = 0;
	assert_int_equal(db_revoked_each(f->db, CSM_STR("default"), later + 2, later, listed, &l), 0);
	assert_int_equal(l.n, 1); /* a delta tells that it was taken back */
	assert_int_equal(l.v[0].reason, CSM_REASON_REMOVE_FROM_CRL);
	l.n = 0;
	assert_int_equal(db_revoked_each(f->db, CSM_STR("other"), 0, later, listed, &l), 0);
	assert_int_equal(db_revoked_each(f->db, CSM_STR("defaul"), 0, later, listed, &l), 0);
	assert_int_equal(l.n, 0);
	assert_int_equal(db_revoked_each(f->db, CSM_STR("default"), 0, DBFIX_NOW + 200000, listed, &l), 0); /* all have expired */
	assert_int_equal(l.n, 0);
	l.stop = 1;
	assert_int_equal(db_revoked_each(f->db, CSM_STR("default"), 0, later, listed, &l), 0);
	assert_int_equal(l.n, 1);
	/* A renewal under a certificate that is revoked meanwhile. */
	dbfix_cert(&c, 100);
	{
		struct dbfix_cert by;

		dbfix_cert(&by, 3);
		assert_int_equal(db_issue(f->db, &(struct db_issue){.cert = &c.c, .spare = by.c.serial, .now = later}, &replayed, &f->out),
			CSM_EDENIED);
		dbfix_cert(&by, 77);
		assert_int_equal(db_issue(f->db, &(struct db_issue){.cert = &c.c, .spare = by.c.serial, .now = later}, &replayed, &f->out),
			CSM_EDENIED);
		dbfix_cert(&by, 2);
		assert_int_equal(db_issue(f->db, &(struct db_issue){.cert = &c.c, .spare = by.c.serial, .now = later}, &replayed, &f->out), 0);
	}
}

static void test_value(void **state)
{
	const struct csm_bin one = {(const uint8_t *)"one", 3}, two = {(const uint8_t *)"two", 3}, none = {NULL, 0};
	struct dbfix *f = *state;

	assert_int_equal(db_value_get(f->db, "a", &f->out), CSM_ENOT_FOUND);
	assert_int_equal(db_value_put(f->db, "a", one, &one), CSM_ECONFLICT);
	assert_int_equal(db_value_put(f->db, "a", one, &none), 0);
	assert_int_equal(db_value_put(f->db, "a", two, &none), CSM_ECONFLICT);
	assert_int_equal(db_value_put(f->db, "a", two, &two), CSM_ECONFLICT);
	assert_int_equal(db_value_put(f->db, "a", two, &one), 0);
	assert_int_equal(db_value_put(f->db, "ab", one, NULL), 0);
	assert_int_equal(db_value_put(f->db, "ab", one, NULL), 0);
	assert_int_equal(db_value_put(f->db, "", one, NULL), CSM_EINVALID);
	assert_int_equal(db_value_put(f->db, "c", none, NULL), CSM_EINVALID);
	dbfix_close(f);
	assert_int_equal(dbfix_open(f), 0);
	assert_int_equal(db_value_get(f->db, "a", &f->out), 0);
	assert_true(same((struct csm_bin){csm_buf_ptr(&f->out), f->out.len}, two));
}

static bool event(void *arg, const struct db_event *e)
{
	struct csm_buf *b = arg;

	return csm_buf_put(b, e->what.p, e->what.n) == 0 && csm_buf_put(b, ";", 1) == 0;
}

static void test_events(void **state)
{
	struct dbfix *f = *state;
	struct db_token t;

	assert_int_equal(dbfix_issue(f, 1), 0);
	assert_int_equal(dbfix_issue(f, 1), CSM_EEXISTS);
	assert_int_equal(revoke(f, 1, CSM_REASON_HOLD, DBFIX_NOW + 1), 0);
	assert_int_equal(revoke(f, 1, CSM_REASON_REMOVE_FROM_CRL, DBFIX_NOW + 2), 0);
	assert_int_equal(revoke(f, 1, CSM_REASON_SUPERSEDED, DBFIX_NOW + 3), 0);
	dbfix_token(&t, 1, 1);
	t.created = DBFIX_NOW + 4;
	assert_int_equal(db_token_add(f->db, &t), 0);
	assert_int_equal(db_event_each(f->db, 0, event, &f->out), 0);
	assert_int_equal(csm_buf_put(&f->out, "", 1), 0);
	assert_string_equal((const char *)csm_buf_ptr(&f->out), "issue;hold;release;revoke;token;");
	csm_buf_reset(&f->out);
	assert_int_equal(db_event_each(f->db, DBFIX_NOW + 2, event, &f->out), 0);
	assert_int_equal(csm_buf_put(&f->out, "", 1), 0);
	assert_string_equal((const char *)csm_buf_ptr(&f->out), "revoke;token;");
}

static void test_open(void **state)
{
	struct dbfix *f = *state, again = *f;

	again.db = NULL;
	assert_int_equal(dbfix_open(&again), CSM_EBUSY);
	dbfix_close(f);
	f->key[0] ^= 1;
	assert_int_equal(dbfix_open(f), CSM_ETAMPERED);
	assert_non_null(strstr(f->why, "key"));
	f->key[0] ^= 1;
	assert_int_equal(dbfix_open(f), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, dbfix_setup, dbfix_teardown)
		T(test_issue),
		T(test_issue_refused),
		T(test_token),
		T(test_token_list),
		T(test_token_race),
		T(test_twins),
		T(test_idempotency),
		T(test_revoke),
		T(test_value),
		T(test_events),
		T(test_open),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
