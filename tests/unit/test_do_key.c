/* key.create, list, show, public, delete, by requests to a whole broker. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/lib/brokerfix.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

static int show(const char *name, struct csm_msg_key_info *info)
{
	struct csm_msg_key_req m = {.key = csm_str_of(name)};

	return fix_call(pub, "key.show", &m, info);
}

static int delete_only(const char *name, const char *spki_sha256)
{
	struct csm_msg_key_delete_req m = {.key = csm_str_of(name), .spki_sha256 = csm_str_of(spki_sha256)};
	struct csm_msg_empty none;

	return fix_call(pub, "key.delete", &m, &none);
}

static int delete(const char *name)
{
	struct csm_msg_key_delete_req m = {.key = csm_str_of(name)};
	struct csm_msg_empty none;

	return fix_call(pub, "key.delete", &m, &none);
}

/* The scripted back end first: its script counts calls. */
static void failures_of_a_back_end(void **state)
{
	struct csm_msg_key_info info;

	(void)state;
	assert_int_equal(fix_create(pub, "f1", NULL, "fake", NULL), 0);
	assert_int_equal(fix_create(pub, "f2", NULL, "fake", NULL), 0);
	assert_int_equal(fix_create(pub, "f3", NULL, "fake", NULL), CSM_ELOCKOUT);
	/* A code that a back end may not use does not get through. */
	assert_int_equal(fix_create(pub, "f3", NULL, "fake", NULL), CSM_EBACKEND);
	assert_int_equal(show("f3", &info), CSM_ENOT_FOUND);
	assert_int_equal(fix_create(pub, "f3", NULL, "fake", NULL), 0);
}

static void what_a_key_is(void **state)
{
	struct csm_msg_key_info info;
	struct csm_msg_key_create_req m = {.key = CSM_STR("defaults")};

	(void)state;
	assert_int_equal(fix_call(pub, "key.create", &m, &info), 0);
	for (int i = 0; i < 2; i++) {
		assert_true(csm_str_eq(info.namespace, "uid-0"));
		assert_true(csm_str_eq(info.name, "defaults"));
		assert_true(csm_str_eq(info.alg, "p256"));
		assert_true(csm_str_eq(info.backend, "soft"));
		assert_true(csm_str_eq(info.protection, "sealed"));
		assert_int_equal(info.use.n, 1);
		assert_true(csm_str_eq(info.use.v[0], "sign"));
		assert_false(info.exportable.v);
		assert_true(info.created.v > 1600000000);
		assert_int_equal(info.signatures.v, 0);
		assert_int_equal(info.spki_sha256.n, 64);
		assert_int_equal(show("defaults", &info), 0);
	}
	assert_int_equal(fix_create(pub, "defaults", NULL, NULL, NULL), CSM_EEXISTS);
	assert_int_equal(fix_create(pub, "uid-0:defaults", NULL, "fake", NULL), CSM_EEXISTS);
}

/* Its maker's bytes go with it, wherever it is told of; a key without has none. */
static void the_tag(void **state)
{
	static const uint8_t bytes[CSM_KEY_TAG_MAX + 1] = {0, 1, 0xff};
	struct csm_msg_key_create_req m = {.key = CSM_STR("tagged"), .tag = {bytes, CSM_KEY_TAG_MAX}};
	struct csm_msg_key_public_req q = {.key = CSM_STR("tagged")};
	struct csm_msg_list_req all = {.after = CSM_STR("tagge"), .limit = {1, true}};
	struct csm_msg_key_info info;
	struct csm_msg_key_public_res public;
	struct csm_msg_key_list_res list;

	(void)state;
	m.tag.n++;
	assert_int_equal(fix_call(pub, "key.create", &m, &info), CSM_ETOO_LARGE);
	m.tag.n--;
	assert_int_equal(fix_call(pub, "key.create", &m, &info), 0);
	assert_true(info.tag.n == CSM_KEY_TAG_MAX && memcmp(info.tag.p, bytes, info.tag.n) == 0);
	assert_int_equal(show("tagged", &info), 0);
	assert_true(info.tag.n == CSM_KEY_TAG_MAX && memcmp(info.tag.p, bytes, info.tag.n) == 0);
	assert_int_equal(fix_call(pub, "key.public", &q, &public), 0);
	assert_true(public.tag.n == CSM_KEY_TAG_MAX && memcmp(public.tag.p, bytes, public.tag.n) == 0);
	assert_int_equal(fix_call(pub, "key.list", &all, &list), 0);
	assert_true(list.keys.n == 1 && list.keys.v[0].tag.n == CSM_KEY_TAG_MAX);
	m = (struct csm_msg_key_create_req){.key = CSM_STR("untagged"), .tag = {bytes, 0}};
	assert_int_equal(fix_call(pub, "key.create", &m, &info), 0);
	assert_null(info.tag.p);
	assert_int_equal(show("untagged", &info), 0);
	assert_null(info.tag.p);
	assert_int_equal(delete("tagged"), 0);
	assert_int_equal(delete("untagged"), 0);
}

static void what_cannot_be_made(void **state)
{
	static const struct {
		const char *alg, *backend, *use;
		int error;
	} cases[] = {
		{"p255", NULL, NULL, CSM_EINVALID}, {"", NULL, NULL, CSM_EINVALID}, {"P256", NULL, NULL, CSM_EINVALID},
		{NULL, NULL, "encrypt", CSM_EINVALID}, {"ed25519", NULL, "derive", CSM_EINVALID},
		{"p256", NULL, "decrypt", CSM_EINVALID}, {"rsa2048", NULL, "derive", CSM_EINVALID},
		{NULL, "tpm9", NULL, CSM_EUNSUPPORTED}, {NULL, "", NULL, CSM_EUNSUPPORTED},
		{"ed25519", "fake", NULL, CSM_EUNSUPPORTED}, {"p384", "fake", NULL, CSM_EUNSUPPORTED},
	};
	struct csm_msg_key_create_req m = {.key = CSM_STR("none"), .exportable = {true, true}};
	struct csm_msg_key_info info;

	(void)state;
	for (size_t i = 0; i < N_ELEMS(cases); i++)
		assert_int_equal(fix_create(pub, "none", cases[i].alg, cases[i].backend, cases[i].use), cases[i].error);
	assert_int_equal(fix_call(pub, "key.create", &m, &info), CSM_EUNSUPPORTED);
	assert_int_equal(show("none", &info), CSM_ENOT_FOUND);
}

static void algorithms_of_the_soft_back_end(void **state)
{
	static const struct {
		const char *alg, *use;
		unsigned uses;
	} cases[] = {{"p256", "derive", 1}, {"p384", NULL, 1}, {"p521", "sign", 1}, {"ed25519", NULL, 1}, {"rsa2048", NULL, 2}};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(cases); i++) {
		struct csm_msg_key_info info;
		char name[32];

		snprintf(name, sizeof(name), "alg-%zu", i);
		assert_int_equal(fix_create(pub, name, cases[i].alg, NULL, cases[i].use), 0);
		assert_int_equal(show(name, &info), 0);
		assert_true(csm_str_eq(info.alg, cases[i].alg));
		assert_int_equal(info.use.n, cases[i].uses);
	}
}

static void the_public_key(void **state)
{
	struct csm_msg_key_public_req m = {.key = CSM_STR("defaults")};
	struct csm_msg_key_public_res res;
	const uint8_t *at;
	EVP_PKEY *k;

	(void)state;
	assert_int_equal(fix_call(pub, "key.public", &m, &res), 0);
	assert_true(csm_str_eq(res.alg, "p256"));
	at = res.spki.p;
	k = d2i_PUBKEY(NULL, &at, (long)res.spki.n);
	assert_non_null(k);
	assert_int_equal(EVP_PKEY_get_bits(k), 256);
	EVP_PKEY_free(k);
	assert_memory_equal(res.public.p, "-----BEGIN PUBLIC KEY-----\n", 27);
	m.spki_sha256 = CSM_STR("0000000000000000000000000000000000000000000000000000000000000000");
	assert_int_equal(fix_call(pub, "key.public", &m, &res), CSM_ECONFLICT);
	m.spki_sha256.n--;
	assert_int_equal(fix_call(pub, "key.public", &m, &res), CSM_EINVALID);
	m.spki_sha256 = CSM_STR("");
	m.spki_sha256.p = NULL;
	m.key = CSM_STR("nope");
	assert_int_equal(fix_call(pub, "key.public", &m, &res), CSM_ENOT_FOUND);
}

static void lists(void **state)
{
	int fd = fix_connect_as(70021);
	struct csm_msg_list_req m = {.limit = {10, true}};
	struct csm_msg_key_list_res res;
	char after[32] = "", name[32];
	size_t n = 0;

	(void)state;
	assert_int_equal(fix_call(fd, "key.list", &m, &res), 0);
	assert_int_equal(res.keys.n, 0);
	assert_false(res.more.v);
	for (int i = 24; i >= 0; i--) {
		snprintf(name, sizeof(name), "k%02d", i);
		assert_int_equal(fix_create(fd, name, NULL, i % 2 ? "fake" : "soft", NULL), 0);
	}
	do {
		assert_int_equal(fix_call(fd, "key.list", &m, &res), 0);
		assert_int_equal(res.more.v, n + res.keys.n < 25);
		for (size_t i = 0; i < res.keys.n; i++, n++) {
			snprintf(name, sizeof(name), "k%02zu", n);
			assert_true(csm_str_eq(res.keys.v[i].name, name));
			assert_true(csm_str_eq(res.keys.v[i].namespace, "uid-70021"));
			assert_true(csm_str_eq(res.keys.v[i].backend, n % 2 ? "fake" : "soft"));
		}
		snprintf(after, sizeof(after), "%.*s", (int)res.keys.v[res.keys.n - 1].name.n, res.keys.v[res.keys.n - 1].name.p);
		m.after = csm_str_of(after);
	} while (res.more.v);
	assert_int_equal(n, 25);
	/* After the last one nothing; after a name that is not there, the next. */
	assert_int_equal(fix_call(fd, "key.list", &m, &res), 0);
	assert_int_equal(res.keys.n, 0);
	m = (struct csm_msg_list_req){.after = CSM_STR("k09zzz"), .limit = {1, true}};
	assert_int_equal(fix_call(fd, "key.list", &m, &res), 0);
	assert_true(res.keys.n == 1 && csm_str_eq(res.keys.v[0].name, "k10"));
	/* Zero is the default; the bound is the bound. */
	m = (struct csm_msg_list_req){.limit = {0, true}};
	assert_int_equal(fix_call(fd, "key.list", &m, &res), 0);
	assert_int_equal(res.keys.n, 25);
	m.limit.v = CSM_LIST_MAX;
	assert_int_equal(fix_call(fd, "key.list", &m, &res), 0);
	m.limit.v = CSM_LIST_MAX + 1;
	assert_int_equal(fix_call(fd, "key.list", &m, &res), CSM_ETOO_LARGE);
	/* Another namespace. */
	m = (struct csm_msg_list_req){.namespace = CSM_STR("uid-0")};
	assert_int_equal(fix_call(fd, "key.list", &m, &res), CSM_EDENIED);
	m.namespace = CSM_STR("uid-70021");
	assert_int_equal(fix_call(fd, "key.list", &m, &res), 0);
	assert_int_equal(res.keys.n, 25);
	fix_close(fd);
}

static void of_racing_creates_one_wins(void **state)
{
	struct csm_msg_key_create_req m = {.key = CSM_STR("race")};
	struct csm_msg_key_info info, won = {0};
	struct csm_str bad;
	unsigned good = 0, exists = 0;
	char public[600];

	(void)state;
	for (uint32_t i = 0; i < 30; i++) {
		m.backend = i % 2 ? CSM_STR("fake") : CSM_STR("soft");
		assert_int_equal(testbroker_request(&fix.t, pub, i, "key.create", &m), 0);
	}
	for (uint32_t i = 0; i < 30; i++) {
		int r = fix_next(pub);

		if (r == 0) {
			good++;
			assert_int_equal(csm_msg_decode(CSM_DEF(key_info), fix.last.result, CSM_UNKNOWN_REFUSE, &fix.pool, &won, &bad), 0);
			snprintf(public, sizeof(public), "%.*s", (int)won.public.n, won.public.p);
		} else {
			assert_int_equal(r, CSM_EEXISTS);
			exists++;
		}
	}
	assert_int_equal(good, 1);
	assert_int_equal(exists, 29);
	assert_int_equal(show("race", &info), 0);
	assert_true(csm_str_eq(info.public, public));
}

/* A deleted key is gone at once, also where it was loaded; the name made anew is another key. */
static void a_deleted_key_is_gone(void **state)
{
	static const char *const backends[] = {"soft", "fake"};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(backends); i++) {
		struct csm_msg_key_info info;
		struct csm_msg_sign_res sig;
		char hash[65];

		assert_int_equal(fix_create(pub, "gone", NULL, backends[i], NULL), 0);
		assert_int_equal(fix_sign(pub, "gone", &sig), 0);
		assert_int_equal(show("gone", &info), 0);
		assert_int_equal(info.signatures.v, 1);
		snprintf(hash, sizeof(hash), "%.*s", (int)info.spki_sha256.n, info.spki_sha256.p);
		assert_int_equal(delete("gone"), 0);
		assert_int_equal(fix_sign(pub, "gone", &sig), CSM_ENOT_FOUND);
		assert_int_equal(show("gone", &info), CSM_ENOT_FOUND);
		assert_int_equal(delete("gone"), CSM_ENOT_FOUND);
		assert_int_equal(fix.t.loop->keys.n, 0);
		assert_int_equal(fix_create(pub, "gone", NULL, backends[i], NULL), 0);
		assert_int_equal(show("gone", &info), 0);
		assert_false(csm_str_eq(info.spki_sha256, hash));
		assert_int_equal(info.signatures.v, 0);
		assert_int_equal(delete("gone"), 0);
	}
}

/* A back end that is missing takes no key along: it is unavailable, and after repair the same key works. */
static void a_missing_back_end(void **state)
{
	struct csm_backend *fake = &fix.t.b.backends[1];
	struct csm_plugin_ctx *ctx = fake->ctx;
	struct csm_msg_key_info info;
	struct csm_msg_sign_res sig;

	(void)state;
	assert_int_equal(fix_create(pub, "away", NULL, "fake", NULL), 0);
	/* Not opened. */
	fake->ctx = NULL;
	assert_int_equal(fix_sign(pub, "away", &sig), CSM_EUNAVAILABLE);
	assert_int_equal(fix_create(pub, "more", NULL, "fake", NULL), CSM_EUNAVAILABLE);
	assert_int_equal(show("away", &info), 0);
	fake->ctx = ctx;
	/* Not there at all. */
	fix.t.b.n_backends = 1;
	assert_int_equal(fix_sign(pub, "away", &sig), CSM_EUNAVAILABLE);
	assert_int_equal(fix_create(pub, "more", NULL, "fake", NULL), CSM_EUNSUPPORTED);
	assert_int_equal(fix_create(pub, "away", NULL, "soft", NULL), CSM_EEXISTS);
	assert_int_equal(show("away", &info), 0);
	assert_true(csm_str_eq(info.backend, "fake"));
	fix.t.b.n_backends = 2;
	assert_int_equal(fix_sign(pub, "away", &sig), 0);
	/* No back end is preferred: nothing is made in another one instead. */
	fix.t.b.backends[0].preferred = false;
	assert_int_equal(fix_create(pub, "more", NULL, NULL, NULL), CSM_EUNAVAILABLE);
	fix.t.b.backends[0].preferred = true;
	assert_int_equal(show("more", &info), CSM_ENOT_FOUND);
}

/* The administrator looks and takes away, but neither makes nor uses what is another's. */
static void the_administrator(void **state)
{
	int user = fix_connect_as(70022), admin;
	struct csm_msg_key_req m = {.key = CSM_STR("uid-70022:theirs")};
	struct csm_msg_key_delete_req del = {.key = CSM_STR("uid-70022:theirs")};
	struct csm_msg_list_req list = {.namespace = CSM_STR("uid-70022")};
	struct csm_msg_key_list_res keys;
	struct csm_msg_sign_res sig;

	(void)state;
	assert_int_equal(fix_create(user, "theirs", NULL, NULL, NULL), 0);
	admin = fix_connect(CSM_R_ADMIN);
	assert_int_equal(fix_ask(admin, "key.show", &m), 0);
	assert_int_equal(fix_call(admin, "key.list", &list, &keys), 0);
	assert_int_equal(keys.keys.n, 1);
	assert_int_equal(fix_sign(admin, "uid-70022:theirs", &sig), CSM_EDENIED);
	assert_int_equal(fix_create(admin, "uid-70022:more", NULL, NULL, NULL), CSM_EDENIED);
	assert_int_equal(fix_ask(admin, "key.delete", &del), 0);
	assert_int_equal(fix_ask(admin, "key.show", &m), CSM_ENOT_FOUND);
	/* uid 0 on the public socket is a user like any other. */
	assert_int_equal(fix_ask(pub, "key.show", &m), CSM_EDENIED);
	fix_close(admin);
	fix_close(user);
}

/* A caller who says which key he means never takes away another one that has its name since. */
static void delete_of_the_key_that_is_meant(void **state)
{
	struct csm_msg_key_info info;
	char hash[65], upper[65];

	(void)state;
	assert_int_equal(fix_create(pub, "meant", NULL, NULL, NULL), 0);
	assert_int_equal(show("meant", &info), 0);
	snprintf(hash, sizeof(hash), "%.*s", (int)info.spki_sha256.n, info.spki_sha256.p);
	assert_int_equal(delete("meant"), 0);
	assert_int_equal(fix_create(pub, "meant", NULL, NULL, NULL), 0);
	assert_int_equal(delete_only("meant", hash), CSM_ECONFLICT);
	assert_int_equal(delete_only("meant", ""), CSM_EINVALID);
	assert_int_equal(delete_only("meant", "00"), CSM_EINVALID);
	assert_int_equal(show("meant", &info), 0);
	snprintf(hash, sizeof(hash), "%.*s", (int)info.spki_sha256.n, info.spki_sha256.p);
	for (size_t i = 0; i < sizeof(upper); i++)
		upper[i] = (char)(hash[i] >= 'a' ? hash[i] - 'a' + 'A' : hash[i]);
	if (strcmp(upper, hash) != 0)
		assert_int_equal(delete_only("meant", upper), CSM_EINVALID);
	assert_int_equal(delete_only("meant", hash), 0);
	assert_int_equal(show("meant", &info), CSM_ENOT_FOUND);
	assert_int_equal(delete_only("meant", hash), CSM_ENOT_FOUND);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FIX_TEST(failures_of_a_back_end),
		FIX_TEST(what_a_key_is),
		FIX_TEST(the_tag),
		FIX_TEST(what_cannot_be_made),
		FIX_TEST(algorithms_of_the_soft_back_end),
		FIX_TEST(the_public_key),
		FIX_TEST(lists),
		FIX_TEST(of_racing_creates_one_wins),
		FIX_TEST(a_deleted_key_is_gone),
		FIX_TEST(a_missing_back_end),
		FIX_TEST(delete_of_the_key_that_is_meant),
		FIX_TEST(the_administrator),
	};

	return fix_prepare(120, "generate=after:2,fail:LOCKOUT:1; generate=after:3,fail:EXISTS:1", NULL) ? cmocka_run_group_tests(tests, fix_begin, fix_end) : 77;
}
