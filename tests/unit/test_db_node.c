/* csm-server's database: who has a node's name, and renewals of what is no longer good. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include "daemon/pki/crl.h"
#include "tests/lib/dbfix.h"

struct node_ask {
	uint64_t i;
	const char *node;
	bool any;         /* by somebody who may ask for any name */
	uint64_t key;     /* the number whose key it has; 0: its own */
	uint64_t now;
	struct csm_bin spare, renews;
	const uint8_t *token;
};
static int issue_node(struct dbfix *f, const struct node_ask *a)
{
	struct dbfix_cert c, other;
	bool replayed;

	dbfix_cert(&c, a->i);
	dbfix_cert(&other, a->key != 0 ? a->key : a->i);
	c.c.role = CSM_STR("node");
	c.c.node = csm_str_of(a->node);
	c.c.spki_sha256 = other.c.spki_sha256;
	c.c.not_after = DBFIX_NOW + 1000;
	c.c.renews = a->renews;
	return db_issue(f->db, &(struct db_issue){.cert = &c.c, .new_node = a->any, .spare = a->spare, .token = a->token,
		.now = a->now != 0 ? a->now : DBFIX_NOW}, &replayed, &f->out);
}

static int revoke_number(struct dbfix *f, uint64_t i, int reason)
{
	struct dbfix_cert c;

	dbfix_cert(&c, i);
	return db_revoke(f->db, c.c.serial, reason, DBFIX_NOW, CSM_STR("uid 0"));
}

static void test_node_names(void **state)
{
	struct dbfix *f = *state;
	struct dbfix_cert c;

	assert_int_equal(issue_node(f, &(struct node_ask){.i = 1, .node = "n1.example", .any = true}), 0);
	assert_int_equal(issue_node(f, &(struct node_ask){.i = 2, .node = "n1.example", .any = true}), CSM_ESTATE);
	assert_int_equal(issue_node(f, &(struct node_ask){.i = 2, .node = "N1.EXAMPLE", .any = true}), CSM_ESTATE);
	dbfix_cert(&c, 2);
	assert_int_equal(db_cert_get(f->db, c.c.serial, &f->pool, &(struct db_cert){0}), CSM_ENOT_FOUND);
	assert_int_equal(db_node_free(f->db, CSM_STR("n1.example"), c.c.spki_sha256, DBFIX_NOW, &f->pool), CSM_ESTATE);
	assert_int_equal(db_node_free(f->db, CSM_STR("n2.example"), c.c.spki_sha256, DBFIX_NOW, &f->pool), 0);
	/* the key that has it, who was let have it, and a renewal */
	assert_int_equal(issue_node(f, &(struct node_ask){.i = 2, .node = "n1.example", .any = true, .key = 1}), 0);
	assert_int_equal(issue_node(f, &(struct node_ask){.i = 3, .node = "n1.example"}), 0);
	/* each of them holds it, held ones too, until all are gone */
	assert_int_equal(revoke_number(f, 1, CSM_REASON_SUPERSEDED), 0);
	assert_int_equal(revoke_number(f, 2, CSM_REASON_SUPERSEDED), 0);
	assert_int_equal(issue_node(f, &(struct node_ask){.i = 4, .node = "n1.example", .any = true}), CSM_ESTATE);
	assert_int_equal(revoke_number(f, 3, CSM_REASON_HOLD), 0);
	assert_int_equal(issue_node(f, &(struct node_ask){.i = 4, .node = "n1.example", .any = true}), CSM_ESTATE);
	assert_int_equal(revoke_number(f, 3, CSM_REASON_KEY_COMPROMISE), 0);
	assert_int_equal(issue_node(f, &(struct node_ask){.i = 4, .node = "n1.example", .any = true}), 0);
	assert_int_equal(issue_node(f, &(struct node_ask){.i = 5, .node = "n1.example", .any = true, .now = DBFIX_NOW + 999}), CSM_ESTATE);
	assert_int_equal(issue_node(f, &(struct node_ask){.i = 5, .node = "n1.example", .any = true, .now = DBFIX_NOW + 1000}), 0);
	/* a service's certificate that bears the name takes nothing */
	assert_int_equal(dbfix_issue(f, 7), 0);
	assert_int_equal(issue_node(f, &(struct node_ask){.i = 8, .node = "node7", .any = true}), 0);
	/* however many there are, the row is bounded, and the last ones hold the name */
	for (uint64_t i = 100; i < 150; i++)
		assert_int_equal(issue_node(f, &(struct node_ask){.i = i, .node = "n9"}), 0);
	assert_int_equal(issue_node(f, &(struct node_ask){.i = 150, .node = "n9", .any = true}), CSM_ESTATE);
}

/* What a token was made for is kept for it, until it is spent, withdrawn or over. */
static void test_node_names_of_tokens(void **state)
{
	struct dbfix *f = *state;
	struct db_token t;

	for (uint8_t i = 1; i <= 3; i++) {
		dbfix_token(&t, i, 1);
		t.names = (const struct csm_str[]){CSM_STR("dns:n1"), CSM_STR("cn:n1"), i == 1 ? CSM_STR("dns:n2") : CSM_STR("cn:n3")};
		t.n_names = 3;
		t.any_name = false;
		if (i == 3)
			t.role = CSM_STR("");
		assert_int_equal(db_token_add(f->db, &t), 0);
	}
	for (const char *const *name = (const char *const[]){"n1", "n2", "n3", NULL}; *name != NULL; name++)
		assert_int_equal(issue_node(f, &(struct node_ask){.i = 1, .node = *name, .any = true}), CSM_ESTATE);
	dbfix_token(&t, 1, 1);
	assert_int_equal(issue_node(f, &(struct node_ask){.i = 1, .node = "n1", .token = t.id}), 0);
	assert_int_equal(issue_node(f, &(struct node_ask){.i = 2, .node = "n2", .any = true}), 0);
	dbfix_token(&t, 2, 1);
	assert_int_equal(db_node_free(f->db, CSM_STR("n3"), (struct csm_bin){NULL, 0}, DBFIX_NOW + 3599, &f->pool), CSM_ESTATE);
	assert_int_equal(db_node_free(f->db, CSM_STR("n3"), (struct csm_bin){NULL, 0}, DBFIX_NOW + 3600, &f->pool), 0);
	assert_int_equal(db_token_delete(f->db, t.id, DBFIX_NOW, CSM_STR("uid 0")), 0);
	assert_int_equal(issue_node(f, &(struct node_ask){.i = 4, .node = "n3", .any = true}), 0);
}

struct name_race {
	struct dbfix *f;
	uint64_t me;
	pthread_barrier_t *start;
	int r[10];
};
static void *name_race(void *arg)
{
	struct name_race *a = arg;
	char name[16];

	for (unsigned i = 0; i < 10; i++) {
		struct dbfix_cert c;
		struct csm_buf out;
		bool replayed;

		snprintf(name, sizeof(name), "race%u", i);
		dbfix_cert(&c, 1000 + a->me * 100 + i);
		c.c.role = CSM_STR("node");
		c.c.node = csm_str_of(name);
		csm_buf_init(&out, 64, false);
		pthread_barrier_wait(a->start);
		a->r[i] = db_issue(a->f->db, &(struct db_issue){.cert = &c.c, .new_node = true, .now = DBFIX_NOW}, &replayed, &out);
		csm_buf_free(&out);
	}
	return NULL;
}

/* Of several that want one name at the same time one gets it. */
static void test_node_name_race(void **state)
{
	struct dbfix *f = *state;
	struct name_race a[6];
	pthread_barrier_t start;
	pthread_t id[6];

	pthread_barrier_init(&start, NULL, 6);
	for (unsigned i = 0; i < 6; i++) {
		a[i] = (struct name_race){.f = f, .me = i, .start = &start};
		assert_int_equal(pthread_create(&id[i], NULL, name_race, &a[i]), 0);
	}
	for (unsigned i = 0; i < 6; i++)
		pthread_join(id[i], NULL);
	pthread_barrier_destroy(&start);
	for (unsigned n = 0; n < 10; n++) {
		unsigned good = 0;

		for (unsigned i = 0; i < 6; i++) {
			good += a[i].r[n] == 0;
			assert_true(a[i].r[n] == 0 || a[i].r[n] == CSM_ESTATE);
		}
		assert_int_equal(good, 1);
	}
}

/* What was revoked since the request came is neither renewed nor lets anybody in. */
static void test_renewal_of_what_is_revoked(void **state)
{
	struct dbfix *f = *state;
	struct dbfix_cert old, by;

	dbfix_cert(&old, 1);
	dbfix_cert(&by, 2);
	assert_int_equal(dbfix_issue(f, 1), 0);
	assert_int_equal(dbfix_issue(f, 2), 0);
	assert_int_equal(issue_node(f, &(struct node_ask){.i = 3, .node = "n", .renews = old.c.serial, .spare = by.c.serial}), 0);
	assert_int_equal(revoke_number(f, 1, CSM_REASON_HOLD), 0);
	assert_int_equal(issue_node(f, &(struct node_ask){.i = 4, .node = "n", .renews = old.c.serial, .spare = by.c.serial}), CSM_EDENIED);
	assert_int_equal(revoke_number(f, 1, CSM_REASON_REMOVE_FROM_CRL), 0);
	assert_int_equal(issue_node(f, &(struct node_ask){.i = 4, .node = "n", .renews = old.c.serial, .spare = by.c.serial}), 0);
	assert_int_equal(revoke_number(f, 2, CSM_REASON_SUPERSEDED), 0);
	assert_int_equal(issue_node(f, &(struct node_ask){.i = 5, .node = "n", .renews = old.c.serial, .spare = by.c.serial}), CSM_EDENIED);
}

#define T(name) cmocka_unit_test_setup_teardown(name, dbfix_setup, dbfix_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {T(test_node_names), T(test_node_names_of_tokens), T(test_node_name_race),
		T(test_renewal_of_what_is_revoked)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
