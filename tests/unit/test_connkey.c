/* Keys for the life of a connection, by requests to a whole broker. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/lib/brokerfix.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

static int make(int fd, const char *name, const char *alg)
{
	struct csm_msg_key_create_req m = {.key = csm_str_of(name), .alg = csm_str_of(alg), .session = {true, true}};
	struct csm_msg_key_info info;

	return fix_call(fd, "key.create", &m, &info);
}

static int show(int fd, const char *name, struct csm_msg_key_info *info)
{
	struct csm_msg_key_req m = {.key = csm_str_of(name)};

	return fix_call(fd, "key.show", &m, info);
}

static int delete(int fd, const char *name, const char *spki_sha256)
{
	struct csm_msg_key_delete_req m = {.key = csm_str_of(name), .spki_sha256 = csm_str_of(spki_sha256)};

	return fix_ask(fd, "key.delete", &m);
}

static int sign(int fd, const char *name)
{
	struct csm_msg_sign_req m = {.key = csm_str_of(name), .message = {(const uint8_t *)"m", 1}};
	struct csm_msg_sign_res sig;

	return fix_call(fd, "key.sign", &m, &sig);
}

static void found_by_its_connection_alone(void **state)
{
	struct csm_msg_list_req all = {.limit = {CSM_LIST_MAX, true}};
	struct csm_msg_key_list_res list;
	struct csm_msg_key_info info;
	int other = fix_connect_as(0);

	(void)state;
	assert_int_equal(make(pub, ".mine", NULL), 0);
	assert_int_equal(show(pub, "uid-0:.mine", &info), 0);
	assert_true(csm_str_eq(info.name, ".mine") && csm_str_eq(info.backend, "soft"));
	assert_false(info.exportable.v);
	assert_int_equal(info.signatures.v, 0);
	assert_int_equal(sign(pub, ".mine"), 0);
	assert_int_equal(show(pub, ".mine", &info), 0);
	assert_int_equal(info.signatures.v, 1);
	/* the same user's other connection */
	assert_int_equal(show(other, ".mine", &info), CSM_ENOT_FOUND);
	assert_int_equal(sign(other, ".mine"), CSM_ENOT_FOUND);
	assert_int_equal(delete(other, ".mine", NULL), CSM_ENOT_FOUND);
	assert_int_equal(make(other, ".mine", "ed25519"), 0);
	assert_int_equal(show(pub, ".mine", &info), 0);
	assert_true(csm_str_eq(info.alg, "p256"));
	assert_int_equal(fix_call(pub, "key.list", &all, &list), 0);
	assert_int_equal(list.keys.n, 0);
	fix_close(other);
	assert_int_equal(sign(pub, ".mine"), 0);
}

static void gone_with_its_connection(void **state)
{
	struct csm_msg_key_info info;
	int fd = fix_connect_as(70031), later;

	(void)state;
	assert_int_equal(make(fd, ".k", NULL), 0);
	assert_int_equal(sign(fd, ".k"), 0);
	assert_int_equal(fix.t.loop->keys.n, 1);
	fix_close(fd);
	assert_true(testbroker_run(&fix.t, 5000));
	assert_int_equal(fix.t.loop->keys.n, 0); /* what was loaded of it, too */
	later = fix_connect_as(70031);
	assert_int_equal(show(later, ".k", &info), CSM_ENOT_FOUND);
	/* nobody waits for it any more when it is made */
	assert_int_equal(testbroker_request(&fix.t, later, 1, "key.create",
		&(struct csm_msg_key_create_req){.key = CSM_STR(".k"), .alg = CSM_STR("rsa2048"), .session = {true, true}}), 0);
	fix_close(later);
	assert_true(testbroker_run(&fix.t, 5000));
}

static void every_use(void **state)
{
	static const char *const algs[] = {"p256", "p384", "ed25519", "rsa2048"};
	struct csm_msg_key_info info;
	char name[32];

	(void)state;
	for (size_t i = 0; i < N_ELEMS(algs); i++) {
		snprintf(name, sizeof(name), ".%s", algs[i]);
		assert_int_equal(make(pub, name, algs[i]), 0);
		for (unsigned k = 1; k <= 2; k++) {
			assert_int_equal(sign(pub, name), 0);
			assert_int_equal(show(pub, name, &info), 0);
			assert_int_equal(info.signatures.v, k);
		}
	}
	for (size_t i = 0; i < N_ELEMS(algs); i++) {
		snprintf(name, sizeof(name), ".%s", algs[i]);
		assert_int_equal(delete(pub, name, NULL), 0);
		assert_int_equal(sign(pub, name), CSM_ENOT_FOUND);
	}
	/* the workers' too */
	assert_int_equal(fix.t.b.shared_keys.n, 0);
	assert_int_equal(fix.t.loop->keys.n, 0);
}

static void of_bounded_number(void **state)
{
	char name[32];

	(void)state;
	for (unsigned i = 0; i < CSM_CONNECTION_KEYS_MAX; i++) {
		snprintf(name, sizeof(name), ".%u", i);
		assert_int_equal(make(pub, name, NULL), 0);
	}
	assert_int_equal(make(pub, ".more", NULL), CSM_EBUSY);
	assert_int_equal(make(pub, ".0", NULL), CSM_EEXISTS);
	assert_int_equal(delete(pub, ".0", NULL), 0);
	assert_int_equal(make(pub, ".more", NULL), 0);
	assert_int_equal(delete(pub, ".more", NULL), 0);
	/* two places are wanted at once, one is there */
	for (uint32_t i = 0; i < 2; i++)
		assert_int_equal(testbroker_request(&fix.t, pub, i, "key.create",
			&(struct csm_msg_key_create_req){.key = i == 0 ? CSM_STR(".x") : CSM_STR(".y"), .session = {true, true}}), 0);
	assert_int_equal(fix_next(pub) + fix_next(pub), CSM_EBUSY);
}

static void names_and_what_cannot_be(void **state)
{
	struct csm_msg_key_create_req m = {.key = CSM_STR("plain"), .session = {true, true}};
	struct csm_msg_key_info info;

	(void)state;
	assert_int_equal(fix_call(pub, "key.create", &m, &info), CSM_EINVALID);
	m = (struct csm_msg_key_create_req){.key = CSM_STR(".dot")};
	assert_int_equal(fix_call(pub, "key.create", &m, &info), CSM_EINVALID);
	m.session = (struct csm_bool){false, true};
	assert_int_equal(fix_call(pub, "key.create", &m, &info), CSM_EINVALID);
	m.session = (struct csm_bool){true, true};
	m.exportable = (struct csm_bool){true, true};
	assert_int_equal(fix_call(pub, "key.create", &m, &info), CSM_EUNSUPPORTED);
	m.exportable = (struct csm_bool){false, true};
	m.existing = CSM_STR("x");
	assert_int_not_equal(fix_call(pub, "key.create", &m, &info), 0);
	m.existing = (struct csm_str){NULL, 0};
	m.backend = CSM_STR("fake");
	assert_int_equal(fix_call(pub, "key.create", &m, &info), CSM_EUNSUPPORTED);
	m.backend = CSM_STR("soft");
	assert_int_equal(fix_call(pub, "key.create", &m, &info), 0);
	assert_int_equal(fix_call(pub, "key.create", &m, &info), CSM_EEXISTS);
	assert_int_equal(make(pub, ".", NULL), CSM_EINVALID);
	assert_int_equal(make(pub, "..", NULL), CSM_EINVALID);
	assert_int_equal(make(pub, "..a", NULL), CSM_EINVALID);
	assert_int_equal(make(pub, "uid-0:.a/b", NULL), CSM_EINVALID);
	assert_int_equal(make(pub, "uid-70031:.a", NULL), CSM_EDENIED);
	/* none but the methods of keys know such names */
	assert_int_equal(fix_domain(pub, "domain.create", ".dot"), CSM_EINVALID);
	assert_int_equal(fix_ask(pub, "cert.delete", &(struct csm_msg_key_delete_req){.key = CSM_STR(".dot")}), CSM_EINVALID);
	assert_int_equal(fix_ask(pub, "cert.get", &(struct csm_msg_key_req){.key = CSM_STR(".dot")}), CSM_ENOT_FOUND);
}

static void ended_as_the_one_that_is_meant(void **state)
{
	char hash[65];
	struct csm_msg_key_info info;

	(void)state;
	assert_int_equal(make(pub, ".k", NULL), 0);
	memset(hash, '0', 64);
	hash[64] = '\0';
	assert_int_equal(delete(pub, ".k", hash), CSM_ECONFLICT);
	assert_int_equal(show(pub, ".k", &info), 0);
	snprintf(hash, sizeof(hash), "%.*s", (int)info.spki_sha256.n, info.spki_sha256.p);
	assert_int_equal(delete(pub, ".k", hash), 0);
	assert_int_equal(show(pub, ".k", &info), CSM_ENOT_FOUND);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FIX_TEST(found_by_its_connection_alone),
		FIX_TEST(gone_with_its_connection),
		FIX_TEST(every_use),
		FIX_TEST(of_bounded_number),
		FIX_TEST(names_and_what_cannot_be),
		FIX_TEST(ended_as_the_one_that_is_meant),
	};

	return fix_prepare(60, NULL, NULL) ? cmocka_run_group_tests(tests, fix_begin, fix_end) : 77;
}
