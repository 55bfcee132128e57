#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "daemon/central/ca_int.h"
#include "tests/lib/pkifix.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

static char why[CA_WHY];

static void profiles_are_for_those_they_name(void **state)
{
	static const struct {
		enum caller_role by;
		unsigned ask;
		const char *role;
		int r;
	} rows[] = {
		{CALLER_NONE, ASK_TOKEN | ASK_SERVICE | ASK_NODE | ASK_OPERATOR | ASK_ADMINISTRATOR, "", CSM_EUNAUTHENTICATED},
		{CALLER_SERVICE, ASK_SERVICE, "", 0},
		{CALLER_SERVICE, ASK_TOKEN | ASK_NODE | ASK_OPERATOR | ASK_ADMINISTRATOR, "", CSM_EDENIED},
		{CALLER_NODE, ASK_NODE, "", 0},
		{CALLER_NODE, ASK_ADMINISTRATOR, "", CSM_EDENIED},
		{CALLER_OPERATOR, ASK_OPERATOR, "node", 0},
		{CALLER_OPERATOR, ASK_OPERATOR, "operator", CSM_EDENIED},
		{CALLER_OPERATOR, ASK_OPERATOR, "administrator", CSM_EDENIED},
		{CALLER_ADMINISTRATOR, ASK_ADMINISTRATOR, "administrator", 0},
		{CALLER_ADMINISTRATOR, ASK_OPERATOR, "", CSM_EDENIED},
	};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		const struct caller by = {.role = rows[i].by};
		const struct profile_config p = {.name = "p", .ask = rows[i].ask, .role = rows[i].role};
		const char *role = "untouched";

		assert_int_equal(ca_may_ask(&by, &p, &role, why), rows[i].r);
		assert_string_equal(role, rows[i].r == 0 ? rows[i].role : "untouched");
	}
}

static void a_token_gives_its_own_role_and_profile(void **state)
{
	static const struct {
		const char *profile, *role; /* of the token */
		const char *name, *gives;   /* of the profile */
		int r;
	} rows[] = {
		{"", "", "p", "", 0}, {"p", "", "p", "", 0}, {"q", "", "p", "", CSM_EDENIED},
		{"p", "node", "p", "", 0}, {"p", "operator", "p", "operator", 0}, {"", "node", "p", "node", 0},
		/* a node's token that names no profile does not get a node's certificate by the names of services */
		{"", "node", "p", "", CSM_EDENIED},
		/* the profile was changed after the token was made, or the token names none */
		{"", "", "p", "node", CSM_EDENIED}, {"p", "", "p", "administrator", CSM_EDENIED},
		{"p", "node", "p", "operator", CSM_EDENIED}, {"p", "root", "p", "", CSM_EINTERNAL},
	};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		const struct caller by = {.role = CALLER_TOKEN,
			.token = {.profile = csm_str_of(rows[i].profile), .role = csm_str_of(rows[i].role)}};
		const struct profile_config p = {.name = rows[i].name, .ask = ASK_TOKEN, .role = rows[i].gives};
		const char *role = "untouched";

		if (ca_may_ask(&by, &p, &role, why) != rows[i].r)
			fail_msg("row %zu: %s", i, why);
		assert_string_equal(role, rows[i].r == 0 ? rows[i].role : "untouched");
	}
}

static void a_name_is_new_unless_an_operator_chose_it(void **state)
{
	static const struct {
		enum caller_role by;
		bool any_name;
		const char *node, *role; /* of the caller's certificate; of what is asked for */
		bool renewal, is_new;
	} rows[] = {
		{CALLER_TOKEN, true, "", "node", false, true}, {CALLER_TOKEN, false, "", "node", false, false},
		{CALLER_TOKEN, true, "", "", false, false}, {CALLER_SERVICE, false, "", "node", false, true},
		{CALLER_NODE, false, "other", "node", false, true}, {CALLER_NODE, false, "n", "node", false, false},
		{CALLER_NODE, false, "n", "node", true, false}, {CALLER_OPERATOR, false, "", "node", false, false},
		{CALLER_ADMINISTRATOR, false, "", "node", false, false},
	};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(rows); i++) {
		const struct caller by = {.role = rows[i].by, .token = {.any_name = rows[i].any_name},
			.cert = {.node = csm_str_of(rows[i].node)}};
		const struct db_cert row = {.role = csm_str_of(rows[i].role), .node = CSM_STR("n"),
			.renews = {(const uint8_t *)"\1", rows[i].renewal}};

		if (ca_new_node(&by, &row) != rows[i].is_new)
			fail_msg("row %zu", i);
	}
}

static int names_of_token(const struct db_token *t, const char *subject, const char *sans)
{
	struct pki_reqspec spec = {.subject = subject, .key = pki_key("p256"), .exts = {{"subjectAltName", sans}}};
	struct csm_certreq *q = NULL;
	char bad[CSM_CERTREQ_WHY];
	struct csm_pool pool;
	struct csm_buf der;
	int r;

	if (sans == NULL)
		spec.exts[0].name = NULL;
	csm_pool_init(&pool, 65536);
	csm_buf_init(&der, 65536, false);
	pki_request(&spec, &der);
	assert_int_equal(csm_certreq_read((struct csm_bin){csm_buf_ptr(&der), der.len}, &q, bad), 0);
	r = ca_token_names(t, q, &pool, why);
	csm_certreq_free(q);
	csm_buf_free(&der);
	csm_pool_free(&pool);
	return r;
}

static void a_token_for_names_is_for_all_of_them_and_no_other(void **state)
{
	static const struct csm_str names[] = {{"dns:a.example", 13}, {"ip:10.0.0.1", 11}, {"cn:Web One", 10}};
	const struct db_token t = {.names = names, .n_names = 3}, any = {.any_name = true};

	(void)state;
	assert_int_equal(names_of_token(&t, "/CN=a.example", "DNS:a.example"), 0);
	assert_int_equal(names_of_token(&t, "/CN=A.Example", "DNS:A.EXAMPLE,IP:10.0.0.1"), 0);
	assert_int_equal(names_of_token(&t, "/O=x/CN=Web One", NULL), 0);
	assert_int_equal(names_of_token(&t, "/CN=web one", NULL), CSM_EDENIED);
	assert_int_equal(names_of_token(&t, "/CN=a.example", "DNS:a.example,DNS:b.example"), CSM_EDENIED);
	assert_non_null(strstr(why, "alternative name 2"));
	assert_int_equal(names_of_token(&t, "/CN=b.example", "DNS:a.example"), CSM_EDENIED);
	assert_int_equal(names_of_token(&t, "/CN=10.0.0.1", "IP:10.0.0.1"), CSM_EDENIED);
	assert_int_equal(names_of_token(&t, "/CN=a.example", "URI:dns:a.example"), CSM_EDENIED);
	assert_int_equal(names_of_token(&t, "/O=x", NULL), CSM_EDENIED);
	assert_int_equal(names_of_token(&any, "/CN=whatever", "DNS:b.example"), 0);
}

static struct csm_bin bin(const char *s)
{
	return (struct csm_bin){(const uint8_t *)s, strlen(s)};
}

static void own_is_oneself_ones_predecessor_and_a_nodes_services(void **state)
{
	const struct caller node = {.role = CALLER_NODE, .cert = {.serial = bin("N2"), .renews = bin("N1"), .node = CSM_STR("n"),
		.role = CSM_STR("node")}};
	const struct caller service = {.role = CALLER_SERVICE, .cert = {.serial = bin("S2"), .node = CSM_STR("n")}};
	const struct caller nameless = {.role = CALLER_NODE, .cert = {.serial = bin("X1"), .node = CSM_STR("")}};
	const struct caller root = {.role = CALLER_ADMINISTRATOR};
	const struct caller token = {.role = CALLER_TOKEN};
	const struct db_cert self = {.serial = bin("N2"), .role = CSM_STR("node"), .node = CSM_STR("n")};
	const struct db_cert before = {.serial = bin("N1"), .role = CSM_STR("node"), .node = CSM_STR("n")};
	const struct db_cert of_node = {.serial = bin("S1"), .role = CSM_STR(""), .node = CSM_STR("n")};
	const struct db_cert of_other = {.serial = bin("S3"), .role = CSM_STR(""), .node = CSM_STR("m")};
	const struct db_cert of_nobody = {.serial = bin("S4"), .role = CSM_STR(""), .node = CSM_STR("")};
	const struct db_cert twin = {.serial = bin("N9"), .role = CSM_STR("node"), .node = CSM_STR("n")};

	(void)state;
	assert_true(ca_is_own(&node, &self) && ca_is_own(&node, &before) && ca_is_own(&node, &of_node));
	assert_false(ca_is_own(&node, &of_other) || ca_is_own(&node, &of_nobody) || ca_is_own(&node, &twin));
	assert_false(ca_is_own(&service, &of_node) || ca_is_own(&service, &self) || ca_is_own(&nameless, &of_nobody));
	assert_false(ca_is_own(&root, &of_nobody) || ca_is_own(&token, &of_nobody));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(profiles_are_for_those_they_name),
		cmocka_unit_test(a_token_gives_its_own_role_and_profile), cmocka_unit_test(a_name_is_new_unless_an_operator_chose_it),
		cmocka_unit_test(a_token_for_names_is_for_all_of_them_and_no_other),
		cmocka_unit_test(own_is_oneself_ones_predecessor_and_a_nodes_services),
	};

	return cmocka_run_group_tests(tests, NULL, pki_teardown);
}
