/* The inventory and the reports of use: every filter against a plain look at all there is, pages while others issue. */
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

#define N 600u

static void fill(struct dbfix *f)
{
	struct dbfix_cert c;

	for (uint64_t i = 0; i < N; i++) {
		assert_int_equal(dbfix_issue(f, i), 0);
		dbfix_cert(&c, i);
		if (i % 7 == 0)
			assert_int_equal(db_revoke(f->db, c.c.serial, CSM_REASON_SUPERSEDED, DBFIX_NOW + 1, CSM_STR("t")), 0);
	}
}

static uint64_t number_of(const struct db_cert *c)
{
	uint64_t v = 0;

	for (size_t i = 8; i < 16; i++)
		v = v << 8 | c->serial.p[i];
	return v;
}

/* All pages, each certificate once; what is told in seen, by number. */
static size_t all_pages(struct dbfix *f, const struct db_filter *q, size_t limit, uint8_t *seen, size_t n_seen)
{
	struct csm_str next = {"", 0};
	char cursor[256];
	size_t total = 0, n;
	struct db_cert *v;

	memset(seen, 0, n_seen);
	do {
		csm_pool_reset(&f->pool);
		assert_int_equal(db_cert_list(f->db, q, next, limit, &f->pool, &v, &n, &next), 0);
		assert_true(n <= limit && next.n < sizeof(cursor));
		for (size_t i = 0; i < n; i++) {
			uint64_t which = number_of(&v[i]);

			assert_true(which < n_seen);
			assert_int_equal(seen[which]++, 0);
			assert_int_equal(v[i].der.n, 0);
		}
		total += n;
		memcpy(cursor, next.p, next.n);
		next.p = cursor;
	} while (next.n > 0);
	return total;
}

static bool has(const char *glob, const char *before, uint64_t i, const char *behind)
{
	char text[96];

	snprintf(text, sizeof(text), "%s%llu%s", before, (unsigned long long)i, behind);
	return csm_glob_match(csm_str_of(glob), csm_str_of(text));
}

static const struct query {
	const char *name, *san, *node, *requester, *profile, *issuer, *state;
	uint64_t expires_before, expires_after, issued_after, now;
	size_t at_least;
} queries[] = {
	{.at_least = N},
	{.node = "node7", .at_least = 6},
	{.node = "node", .at_least = 0},
	{.requester = "cert 3", .at_least = 60},
	{.name = "host42.example", .at_least = 1},
	{.name = "td/42", .at_least = 0},
	{.name = "host4?.example", .at_least = 10},
	{.name = "host5*", .at_least = 100},
	{.san = "uri:spiffe://td/9", .at_least = 1},
	{.san = "dns:host9*", .at_least = 11},
	{.san = "host9.example", .at_least = 0},
	{.profile = "rare", .at_least = 1},
	{.issuer = "default", .at_least = N},
	{.issuer = "other", .at_least = 0},
	{.state = "valid", .now = DBFIX_NOW, .at_least = 500},
	{.state = "valid", .now = DBFIX_NOW + 100300, .at_least = 200},
	{.state = "revoked", .at_least = 86},
	{.state = "expired", .now = DBFIX_NOW + 100300, .at_least = 300},
	{.expires_before = DBFIX_NOW + 100100, .at_least = 100},
	{.expires_after = DBFIX_NOW + 100500, .at_least = 99},
	{.expires_after = DBFIX_NOW + 100100, .expires_before = DBFIX_NOW + 100200, .at_least = 99},
	{.issued_after = DBFIX_NOW + 50, .at_least = 90},
	{.state = "revoked", .node = "node0", .name = "host*", .at_least = 1},
	{.state = "valid", .now = DBFIX_NOW, .requester = "cert 1", .expires_before = DBFIX_NOW + 100200, .at_least = 10},
};

static bool wanted(const struct query *q, uint64_t i)
{
	struct dbfix_cert c;
	const struct db_cert *d = &c.c;
	bool revoked = i % 7 == 0;

	dbfix_cert(&c, i);
	if (q->state != NULL && strcmp(q->state, "revoked") == 0 && !revoked)
		return false;
	if (q->state != NULL && strcmp(q->state, "expired") == 0 && d->not_after >= q->now)
		return false;
	if (q->state != NULL && strcmp(q->state, "valid") == 0 && (revoked || d->not_after < q->now))
		return false;
	if ((q->name != NULL && !has(q->name, "host", i, ".example") && !has(q->name, "spiffe://td/", i, "")) ||
		(q->san != NULL && !has(q->san, "dns:host", i, ".example") && !has(q->san, "uri:spiffe://td/", i, "")))
		return false;
	return (q->node == NULL || has(q->node, "node", i % 100, "")) && (q->requester == NULL || has(q->requester, "cert ", i % 10, "")) &&
		(q->profile == NULL || csm_str_eq(d->profile, q->profile)) && (q->issuer == NULL || csm_str_eq(d->issuer, q->issuer)) &&
		(q->expires_before == 0 || d->not_after < q->expires_before) && (q->expires_after == 0 || d->not_after > q->expires_after) &&
		(q->issued_after == 0 || d->issued > q->issued_after);
}

static void test_filters(void **state)
{
	struct dbfix *f = *state;
	uint8_t seen[N];

	fill(f);
	for (size_t k = 0; k < sizeof(queries) / sizeof(queries[0]); k++) {
		const struct query *q = &queries[k];
		const struct db_filter filter = {.name = csm_str_of(q->name), .san = csm_str_of(q->san), .node = csm_str_of(q->node),
			.requester = csm_str_of(q->requester), .profile = csm_str_of(q->profile), .issuer = csm_str_of(q->issuer),
			.state = csm_str_of(q->state), .expires_before = q->expires_before, .expires_after = q->expires_after,
			.issued_after = q->issued_after, .now = q->now};

		assert_true(all_pages(f, &filter, 7, seen, N) >= q->at_least);
		for (uint64_t i = 0; i < N; i++) {
			if ((seen[i] != 0) != wanted(q, i))
				fail_msg("query %zu: certificate %llu", k, (unsigned long long)i);
		}
	}
}

static void test_order_and_refusals(void **state)
{
	const struct db_filter all = {0}, soon = {.expires_after = 1}, odd = {.state = CSM_STR("odd")};
	struct dbfix *f = *state;
	struct csm_str next, none = {"", 0};
	struct dbfix_cert c;
	struct db_cert *v;
	size_t n;

	fill(f);
	assert_int_equal(db_cert_list(f->db, &all, none, N, &f->pool, &v, &n, &next), 0);
	assert_true(n == N && next.n == 0);
	for (size_t i = 1; i < n; i++)
		assert_true(v[i - 1].issued >= v[i].issued);
	assert_int_equal(db_cert_list(f->db, &soon, none, N, &f->pool, &v, &n, &next), 0);
	assert_true(n < N && next.n > 0); /* so many are looked up for a page, and no more */
	for (size_t i = 1; i < n; i++)
		assert_true(v[i - 1].not_after <= v[i].not_after);
	assert_int_equal(db_cert_list(f->db, &odd, none, 5, &f->pool, &v, &n, &next), CSM_EINVALID);
	assert_int_equal(db_cert_list(f->db, &all, none, 0, &f->pool, &v, &n, &next), CSM_EINVALID);
	assert_int_equal(db_cert_list(f->db, &all, none, 5, &f->pool, &v, &n, &next), 0);
	assert_int_equal(db_cert_list(f->db, &soon, next, 5, &f->pool, &v, &n, &next), CSM_EINVALID); /* another order's cursor */
	assert_int_equal(db_cert_list(f->db, &all, CSM_STR("t"), 5, &f->pool, &v, &n, &next), CSM_EINVALID);
	assert_int_equal(db_cert_list(f->db, &all, CSM_STR("t0"), 5, &f->pool, &v, &n, &next), CSM_EINVALID);
	assert_int_equal(db_cert_list(f->db, &all, CSM_STR("tzz"), 5, &f->pool, &v, &n, &next), CSM_EINVALID);
	assert_int_equal(db_cert_list(f->db, &all, CSM_STR("t00"), 5, &f->pool, &v, &n, &next), 0);
	assert_int_equal(n, 0);
	dbfix_cert(&c, 9);
	assert_int_equal(db_cert_list(f->db, &(struct db_filter){.serial = c.c.serial}, none, 5, &f->pool, &v, &n, &next), 0);
	assert_true(n == 1 && next.n == 0 && number_of(&v[0]) == 9);
	c.serial[15]++;
	c.serial[1]++;
	assert_int_equal(db_cert_list(f->db, &(struct db_filter){.serial = c.c.serial}, none, 5, &f->pool, &v, &n, &next), 0);
	assert_int_equal(n, 0);
}

struct issuing {
	struct dbfix *f;
	atomic_bool stop;
	atomic_ulong at;
};
static void *issuing(void *arg)
{
	struct issuing *a = arg;

	while (!atomic_load(&a->stop)) {
		struct dbfix_cert c;
		struct csm_buf out;
		bool replayed;
		uint64_t i = atomic_fetch_add(&a->at, 1);

		if (i >= 60000)
			break;
		dbfix_cert(&c, i);
		csm_buf_init(&out, 64, false);
		/* Some of them in the midst of what is paged over: the clock of another that issues is behind. */
		if (i % 2 == 0)
			c.c.issued = DBFIX_NOW + i % (N / 10);
		if (db_issue(a->f->db, &(struct db_issue){.cert = &c.c, .now = DBFIX_NOW}, &replayed, &out) != 0)
			abort();
	}
	return NULL;
}

/* Whatever was there before the first page is told once, while others issue before, behind and between. */
static void test_paging_while_issuing(void **state)
{
	const struct db_filter all = {0}, node = {.node = CSM_STR("node3")}, soon = {.expires_after = 1};
	const struct db_filter *const filters[] = {&all, &node, &soon};
	struct dbfix *f = *state;
	struct issuing a = {.f = f, .at = N};
	uint8_t *seen = malloc(65536);
	pthread_t t[2];

	assert_non_null(seen);
	fill(f);
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&t[i], NULL, issuing, &a), 0);
	for (size_t round = 0; round < 12 || (round < 1000 && atomic_load(&a.at) < N + 300); round++) {
		(void)all_pages(f, filters[round % 3], 13, seen, 65536);
		for (uint64_t i = 0; i < N; i++)
			assert_int_equal(seen[i], filters[round % 3] != &node || i % 100 == 3);
	}
	atomic_store(&a.stop, true);
	for (size_t i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	assert_true(atomic_load(&a.at) > N + 10);
	free(seen);
}

/* ---- use ---- */

struct told {
	size_t n, most;
	uint64_t signatures;
};
static bool use_told(void *arg, const struct db_usage *u)
{
	struct told *t = arg;

	t->n++;
	t->signatures += u->signatures;
	return t->n != t->most;
}

static struct told told(struct dbfix *f, struct csm_bin spki, uint64_t from, uint64_t to)
{
	struct told t = {0};

	assert_int_equal(db_usage_each(f->db, spki, from, to, use_told, &t), 0);
	return t;
}

static void test_usage(void **state)
{
	struct dbfix *f = *state;
	struct dbfix_cert a, b;
	struct db_usage u[4], got;
	struct told t = {.most = 1};

	dbfix_cert(&a, 1);
	dbfix_cert(&b, 2);
	u[0] = (struct db_usage){.node = CSM_STR("node1"), .key = CSM_STR("web:tls"), .spki_sha256 = a.c.spki_sha256, .from = 100, .to = 200,
		.signatures = 5, .last_used = 150, .program = CSM_STR("/usr/sbin/nginx"), .identity = CSM_STR("web")};
	u[1] = u[0];
	u[1].from = 200;
	u[1].to = 300;
	u[1].last_used = 250;
	u[2] = u[1];
	u[2].spki_sha256 = b.c.spki_sha256;
	u[2].signatures = 0;
	u[3] = u[0];
	u[3].program = CSM_STR("/usr/bin/other");
	assert_int_equal(db_usage_last(f->db, a.c.spki_sha256, &f->pool, &got), CSM_ENOT_FOUND);
	assert_int_equal(db_usage_put(f->db, (struct db_usage[]){u[1], u[0], u[2], u[3]}, 4, 1000), 0);
	assert_int_equal(db_usage_put(f->db, u, 1, 1000), 0); /* once more: takes its place */
	assert_int_equal(db_usage_last(f->db, a.c.spki_sha256, &f->pool, &got), 0);
	assert_true(got.last_used == 250 && csm_str_eq(got.program, "/usr/sbin/nginx") && csm_str_eq(got.identity, "web"));
	assert_int_equal(db_usage_last(f->db, b.c.spki_sha256, &f->pool, &got), CSM_ENOT_FOUND); /* told, but not used */
	assert_int_equal(told(f, a.c.spki_sha256, 0, 1000).signatures, 15);
	assert_int_equal(told(f, b.c.spki_sha256, 0, 1000).n, 0);
	assert_int_equal(told(f, a.c.spki_sha256, 0, 150).n, 2);
	assert_int_equal(told(f, a.c.spki_sha256, 201, 1000).n, 1);
	assert_int_equal(told(f, a.c.spki_sha256, 301, 1000).n, 0);
	assert_int_equal(db_usage_each(f->db, a.c.spki_sha256, 0, 1000, use_told, &t), 0);
	assert_int_equal(t.n, 1);
	u[0].to = 50;
	assert_int_equal(db_usage_put(f->db, u, 1, 1000), CSM_EINVALID);
	u[0].to = 200;
	u[0].spki_sha256.n = 31;
	assert_int_equal(db_usage_put(f->db, u, 1, 1000), CSM_EINVALID);
	/* More than a year later. */
	u[1].from = u[1].to = DB_USAGE_KEPT_S + 250;
	assert_int_equal(db_usage_put(f->db, &u[1], 1, DB_USAGE_KEPT_S + 250), 0);
	assert_int_equal(told(f, a.c.spki_sha256, 0, UINT64_MAX).n, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, dbfix_setup, dbfix_teardown)
		T(test_filters),
		T(test_order_and_refusals),
		T(test_paging_while_issuing),
		T(test_usage),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
