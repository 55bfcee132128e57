/* domain.*, secret.*, seal, unseal, random, and request ids, by requests to a whole broker. */
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/node/conn.h"
#include "libclient/wire/frame.h"
#include "tests/lib/brokerfix.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

static const char policy[] =
	"version: 1\n"
	"default: uid-namespaces\n"
	"identities: {reader: {uid: 70042}}\n"
	"rules: [{allow: [secret.get, unseal], to: [reader], on: [\"uid-0:shared/*\", \"uid-0:\"]}]\n";

/* ---- domains ---- */

static void domains(void **state)
{
	struct csm_msg_domain_req m = {.domain = CSM_STR("uid-0:one")};
	struct csm_msg_domain_item item;

	(void)state;
	assert_int_equal(fix_domain(pub, "domain.show", "one"), CSM_ENOT_FOUND);
	assert_int_equal(fix_domain(pub, "domain.create", "one"), 0);
	assert_int_equal(fix_domain(pub, "domain.create", "one"), CSM_EEXISTS);
	assert_int_equal(fix_set(pub, "one/a", "x", -1, NULL, NULL), 0);
	assert_int_equal(fix_set(pub, "one/b", "x", -1, NULL, NULL), 0);
	assert_int_equal(fix_call(pub, "domain.show", &m, &item), 0);
	assert_true(csm_str_eq(item.namespace, "uid-0"));
	assert_true(csm_str_eq(item.name, "one"));
	assert_int_equal(item.secrets.v, 2);
	assert_true(item.created.v > 1600000000);
	/* It takes its secrets along; one made anew is empty. */
	char value[256];
	assert_int_equal(fix_domain(pub, "domain.delete", "one"), 0);
	assert_int_equal(fix_domain(pub, "domain.delete", "one"), CSM_ENOT_FOUND);
	assert_int_equal(fix_get(pub, "one/a", value), CSM_ENOT_FOUND);
	assert_int_equal(fix_domain(pub, "domain.create", "one"), 0);
	assert_int_equal(fix_get(pub, "one/a", value), CSM_ENOT_FOUND);
	assert_int_equal(fix_call(pub, "domain.show", &m, &item), 0);
	assert_int_equal(item.secrets.v, 0);
	assert_int_equal(fix_domain(pub, "domain.create", "other:one"), CSM_EDENIED);
	assert_int_equal(fix_domain(pub, "domain.delete", "other:one"), CSM_EDENIED);
}

static void lists_of_domains(void **state)
{
	int fd = fix_connect_as(70041);
	struct csm_msg_list_req m = {.limit = {4, true}};
	struct csm_msg_domain_list_res res;
	char name[32];
	size_t n = 0;

	(void)state;
	for (int i = 0; i < 9; i++) {
		snprintf(name, sizeof(name), "d%d", i);
		assert_int_equal(fix_domain(fd, "domain.create", name), 0);
	}
	assert_int_equal(fix_set(fd, "d3/x", "x", -1, NULL, NULL), 0);
	do {
		assert_int_equal(fix_call(fd, "domain.list", &m, &res), 0);
		for (size_t i = 0; i < res.domains.n; i++, n++) {
			snprintf(name, sizeof(name), "d%zu", n);
			assert_true(csm_str_eq(res.domains.v[i].name, name));
			assert_int_equal(res.domains.v[i].secrets.v, n == 3);
		}
		m.after = csm_str_of(name);
	} while (res.more.v);
	assert_int_equal(n, 9);
	m = (struct csm_msg_list_req){.namespace = CSM_STR("uid-0")};
	assert_int_equal(fix_call(fd, "domain.list", &m, &res), CSM_EDENIED);
	m = (struct csm_msg_list_req){.limit = {CSM_LIST_MAX + 1, true}};
	assert_int_equal(fix_call(fd, "domain.list", &m, &res), CSM_ETOO_LARGE);
	fix_close(fd);
}

/* ---- secrets ---- */

static void versions_and_expectations(void **state)
{
	uint64_t v = 0;
	char value[256];

	(void)state;
	assert_int_equal(fix_set(pub, "none/s", "x", -1, NULL, NULL), CSM_ENOT_FOUND);
	assert_int_equal(fix_domain(pub, "domain.create", "cas"), 0);
	assert_int_equal(fix_get(pub, "cas/s", value), CSM_ENOT_FOUND);
	/* It must not be there; then it is version 1. */
	assert_int_equal(fix_set(pub, "cas/s", "one", 1, NULL, &v), CSM_ECONFLICT);
	assert_int_equal(fix_set(pub, "cas/s", "one", 0, NULL, &v), 0);
	assert_int_equal(v, 1);
	assert_int_equal(fix_set(pub, "cas/s", "again", 0, NULL, &v), CSM_ECONFLICT);
	assert_int_equal(fix_get(pub, "cas/s", value), 0);
	assert_string_equal(value, "one");
	assert_int_equal(fix_set(pub, "cas/s", "two", 1, NULL, &v), 0);
	assert_int_equal(v, 2);
	assert_int_equal(fix_set(pub, "cas/s", "late", 1, NULL, &v), CSM_ECONFLICT);
	assert_int_equal(fix_set(pub, "cas/s", "three", -1, NULL, &v), 0);
	assert_int_equal(v, 3);
	assert_int_equal(fix_get(pub, "cas/s", value), 0);
	assert_string_equal(value, "three");
	/* Older versions are there. */
	struct csm_msg_secret_get_req m = {.secret = CSM_STR("cas/s"), .version = {2, true}};
	struct csm_msg_secret_get_res res;
	assert_int_equal(fix_call(pub, "secret.get", &m, &res), 0);
	assert_int_equal(res.version.v, 2);
	assert_memory_equal(res.pairs.v[0].value.p, "two", 3);
	m.version.v = 4;
	assert_int_equal(fix_call(pub, "secret.get", &m, &res), CSM_ENOT_FOUND);
	struct csm_msg_secret_delete_req del = {.secret = CSM_STR("cas/s")};
	struct csm_msg_empty none;
	assert_int_equal(fix_call(pub, "secret.delete", &del, &none), 0);
	assert_int_equal(fix_call(pub, "secret.delete", &del, &none), CSM_ENOT_FOUND);
	assert_int_equal(fix_get(pub, "cas/s", value), CSM_ENOT_FOUND);
	m.version.v = 2;
	assert_int_equal(fix_call(pub, "secret.get", &m, &res), CSM_ENOT_FOUND);
}

static struct csm_msg_pair *many_pairs(size_t n, size_t value)
{
	static struct csm_msg_pair pairs[CSM_PAIRS_MAX + 1];
	static char names[CSM_PAIRS_MAX + 1][16];
	static uint8_t bytes[CSM_SECRET_MAX + 1];

	for (size_t i = 0; i < n; i++) {
		int len = snprintf(names[i], sizeof(names[i]), "pair-%03zu", i);

		pairs[i] = (struct csm_msg_pair){.name = {names[i], (size_t)len}, .value = {bytes, value}};
		bytes[i] = (uint8_t)i;
	}
	return pairs;
}

static int set_pairs(struct csm_msg_pair *pairs, size_t n)
{
	struct csm_msg_secret_set_req m = {.secret = CSM_STR("pairs/s"), .pairs = {pairs, n}};
	int r = testbroker_request(&fix.t, pub, 3, "secret.set", &m);

	return r != 0 ? r : fix_next(pub);
}

static void pairs_of_a_secret(void **state)
{
	struct csm_msg_secret_get_req m = {.secret = CSM_STR("pairs/s")};
	struct csm_msg_secret_get_res res;
	struct csm_msg_pair *pairs = many_pairs(CSM_PAIRS_MAX + 1, 3);

	(void)state;
	assert_int_equal(fix_domain(pub, "domain.create", "pairs"), 0);
	assert_int_equal(set_pairs(pairs, 0), CSM_EINVALID);
	assert_int_equal(set_pairs(pairs, CSM_PAIRS_MAX + 1), CSM_ETOO_LARGE);
	assert_int_equal(set_pairs(pairs, CSM_PAIRS_MAX), 0);
	assert_int_equal(fix_call(pub, "secret.get", &m, &res), 0);
	assert_int_equal(res.pairs.n, CSM_PAIRS_MAX);
	for (size_t i = 0; i < res.pairs.n; i++) {
		assert_true(csm_str_same(res.pairs.v[i].name, pairs[i].name));
		assert_true(csm_str_eq(res.pairs.v[i].type, "bytes"));
		assert_int_equal(res.pairs.v[i].value.n, 3);
	}
	/* One of them. */
	m.key = CSM_STR("pair-200");
	assert_int_equal(fix_call(pub, "secret.get", &m, &res), 0);
	assert_int_equal(res.pairs.n, 1);
	assert_true(csm_str_eq(res.pairs.v[0].name, "pair-200"));
	m.key = CSM_STR("pair-2000");
	assert_int_equal(fix_ask(pub, "secret.get", &m), CSM_ENOT_FOUND);
	/* What no pair can be. */
	pairs = many_pairs(2, 1);
	pairs[1].name = pairs[0].name;
	assert_int_equal(set_pairs(pairs, 2), CSM_EINVALID);
	assert_non_null(strstr(fix.last.message, "same name"));
	pairs[1].name = CSM_STR("a/b");
	assert_int_equal(set_pairs(pairs, 2), CSM_EINVALID);
	pairs[1].name = CSM_STR("b");
	pairs[1].type = CSM_STR("yaml");
	assert_int_equal(set_pairs(pairs, 2), CSM_EINVALID);
	static const char *const types[] = {"text", "bytes", "json"};
	for (size_t i = 0; i < N_ELEMS(types); i++) {
		pairs[1].type = csm_str_of(types[i]);
		assert_int_equal(set_pairs(pairs, 2), 0);
		m.key = CSM_STR("b");
		assert_int_equal(fix_call(pub, "secret.get", &m, &res), 0);
		assert_true(csm_str_eq(res.pairs.v[0].type, types[i]));
	}
	/* An empty value is one. */
	pairs[1].value.n = 0;
	assert_int_equal(set_pairs(pairs, 2), 0);
	assert_int_equal(fix_call(pub, "secret.get", &m, &res), 0);
	assert_int_equal(res.pairs.v[0].value.n, 0);
}

static void sizes_of_a_secret(void **state)
{
	struct csm_msg_secret_get_req m = {.secret = CSM_STR("pairs/s")};
	struct csm_msg_secret_get_res res;
	struct csm_msg_pair *pairs;

	(void)state;
	/* Names count. */
	pairs = many_pairs(1, CSM_SECRET_MAX - strlen("pair-000"));
	assert_int_equal(set_pairs(pairs, 1), 0);
	assert_int_equal(fix_call(pub, "secret.get", &m, &res), 0);
	assert_int_equal(res.pairs.v[0].value.n, CSM_SECRET_MAX - 8);
	assert_memory_equal(res.pairs.v[0].value.p, pairs[0].value.p, CSM_SECRET_MAX - 8);
	pairs = many_pairs(1, CSM_SECRET_MAX - 7);
	assert_int_equal(set_pairs(pairs, 1), CSM_ETOO_LARGE);
	pairs = many_pairs(1, CSM_SECRET_MAX + 1);
	assert_int_equal(set_pairs(pairs, 1), CSM_ETOO_LARGE);
	pairs = many_pairs(2, CSM_SECRET_MAX / 2 - 7);
	assert_int_equal(set_pairs(pairs, 2), CSM_ETOO_LARGE);
	assert_non_null(strstr(fix.last.message, "together"));
	pairs = many_pairs(2, CSM_SECRET_MAX / 2 - 8);
	assert_int_equal(set_pairs(pairs, 2), 0);
	/* One big one leaves nothing behind in the connection's buffers. */
	assert_int_equal(fix.t.loop->conns->out.len, 0);
	assert_int_equal(fix.t.loop->conns->in.len, 0);
	assert_int_equal(fix.t.loop->plain.len, 0);
	assert_int_equal(fix.t.loop->body.len, 0);
}

static void lists_of_secrets(void **state)
{
	struct csm_msg_secret_list_req m = {.domain = CSM_STR("listed"), .limit = {4, true}};
	struct csm_msg_secret_list_res res;
	char name[32];
	size_t n = 0;

	(void)state;
	assert_int_equal(fix_call(pub, "secret.list", &m, &res), CSM_ENOT_FOUND);
	assert_int_equal(fix_domain(pub, "domain.create", "listed"), 0);
	assert_int_equal(fix_call(pub, "secret.list", &m, &res), 0);
	assert_int_equal(res.secrets.n, 0);
	for (int i = 9; i >= 0; i--) {
		snprintf(name, sizeof(name), "listed/s%d", i);
		assert_int_equal(fix_set(pub, name, "x", -1, NULL, NULL), 0);
	}
	assert_int_equal(fix_set(pub, "listed/s5", "y", -1, NULL, NULL), 0);
	do {
		assert_int_equal(fix_call(pub, "secret.list", &m, &res), 0);
		for (size_t i = 0; i < res.secrets.n; i++, n++) {
			snprintf(name, sizeof(name), "s%zu", n);
			assert_true(csm_str_eq(res.secrets.v[i].name, name));
			assert_int_equal(res.secrets.v[i].version.v, n == 5 ? 2 : 1);
		}
		m.after = csm_str_of(name);
	} while (res.more.v);
	assert_int_equal(n, 10);
	m = (struct csm_msg_secret_list_req){.domain = CSM_STR("listed")};
	assert_int_equal(fix_call(pub, "secret.list", &m, &res), 0);
	assert_int_equal(res.secrets.n, 10);
	m.limit = (struct csm_u64){CSM_LIST_MAX + 1, true};
	assert_int_equal(fix_call(pub, "secret.list", &m, &res), CSM_ETOO_LARGE);
	m = (struct csm_msg_secret_list_req){.domain = CSM_STR("other:listed")};
	assert_int_equal(fix_call(pub, "secret.list", &m, &res), CSM_EDENIED);
}

static void a_grant_covers_what_it_says(void **state)
{
	int reader = fix_connect_as(70042);
	char value[256];

	(void)state;
	assert_int_equal(fix_domain(pub, "domain.create", "shared"), 0);
	assert_int_equal(fix_domain(pub, "domain.create", "private"), 0);
	assert_int_equal(fix_set(pub, "shared/s", "for all", -1, NULL, NULL), 0);
	assert_int_equal(fix_set(pub, "private/s", "for me", -1, NULL, NULL), 0);
	assert_int_equal(fix_get(reader, "uid-0:shared/s", value), 0);
	assert_string_equal(value, "for all");
	assert_int_equal(fix_get(reader, "uid-0:private/s", value), CSM_EDENIED);
	assert_int_equal(fix_set(reader, "uid-0:shared/s", "x", -1, NULL, NULL), CSM_EDENIED);
	assert_int_equal(fix_domain(reader, "domain.delete", "uid-0:shared"), CSM_EDENIED);
	assert_int_equal(fix_domain(reader, "domain.show", "uid-0:shared"), CSM_EDENIED);
	fix_close(reader);
}

/* ---- seal, unseal, random ---- */

static uint8_t sealed[CSM_SEAL_MAX + 512];

static int seal(int fd, const char *ns, const char *context, const void *p, size_t n, size_t *len)
{
	struct csm_msg_seal_req m = {.data = {p, n}, .namespace = csm_str_of(ns),
		.context = {(const uint8_t *)context, context != NULL ? strlen(context) : 0}};
	struct csm_msg_seal_res res;
	int r = fix_call(fd, "seal", &m, &res);

	if (r == 0) {
		memcpy(sealed, res.sealed.p, res.sealed.n);
		*len = res.sealed.n;
	}
	return r;
}

static int unseal(int fd, const char *ns, const char *context, size_t len, struct csm_bin *ret)
{
	struct csm_msg_unseal_req m = {.sealed = {sealed, len}, .namespace = csm_str_of(ns),
		.context = {(const uint8_t *)context, context != NULL ? strlen(context) : 0}};
	struct csm_msg_unseal_res res;
	int r = fix_call(fd, "unseal", &m, &res);

	if (r == 0)
		*ret = res.data;
	return r;
}

static void sealed_data_is_bound(void **state)
{
	/* A namespace in which nothing is yet: its key is made by the first seal. */
	int user = fix_connect_as(70043), reader;
	struct csm_bin data = {NULL, 0};
	size_t n = 0;

	(void)state;
	assert_int_equal(seal(user, NULL, "disk", "a small secret", 14, &n), 0);
	assert_int_equal(unseal(user, NULL, "disk", n, &data), 0);
	assert_int_equal(data.n, 14);
	assert_memory_equal(data.p, "a small secret", 14);
	assert_int_equal(unseal(user, "uid-70043", "disk", n, &data), 0);
	/* To its context and namespace, whole. */
	assert_int_equal(unseal(user, NULL, "disc", n, &data), CSM_EINVALID);
	assert_int_equal(unseal(user, NULL, NULL, n, &data), CSM_EINVALID);
	assert_int_equal(unseal(user, NULL, "disk", n - 1, &data), CSM_EINVALID);
	assert_int_equal(unseal(pub, NULL, "disk", n, &data), CSM_EINVALID);
	assert_int_equal(unseal(pub, "uid-70043", "disk", n, &data), CSM_EDENIED);
	for (size_t i = 0; i < n; i++) {
		sealed[i] ^= 1;
		assert_int_equal(unseal(user, NULL, "disk", n, &data), CSM_EINVALID);
		sealed[i] ^= 1;
	}
	assert_int_equal(unseal(user, NULL, "disk", n, &data), 0);
	/* A grant on the namespace opens it to others, and only that. */
	assert_int_equal(seal(pub, NULL, NULL, "x", 1, &n), 0);
	reader = fix_connect_as(70042);
	assert_int_equal(unseal(reader, "uid-0", NULL, n, &data), 0);
	assert_int_equal(seal(reader, "uid-0", NULL, "x", 1, &n), CSM_EDENIED);
	assert_int_equal(seal(user, "UP", NULL, "x", 1, &n), CSM_EINVALID);
	fix_close(reader);
	fix_close(user);
}

static void sizes_of_sealed_data(void **state)
{
	static uint8_t big[CSM_SEAL_MAX + 1];
	struct csm_bin data = {NULL, 0};
	size_t n = 0;

	(void)state;
	assert_int_equal(seal(pub, NULL, NULL, big, CSM_SEAL_MAX, &n), 0);
	assert_int_equal(unseal(pub, NULL, NULL, n, &data), 0);
	assert_int_equal(data.n, CSM_SEAL_MAX);
	assert_int_equal(seal(pub, NULL, NULL, big, CSM_SEAL_MAX + 1, &n), CSM_ETOO_LARGE);
	assert_int_equal(seal(pub, NULL, NULL, "", 0, &n), 0);
	assert_int_equal(unseal(pub, NULL, NULL, n, &data), 0);
	assert_int_equal(data.n, 0);
	/* The biggest as the first of its namespace. */
	int user = fix_connect_as(70044);
	assert_int_equal(seal(user, NULL, "context", big, CSM_SEAL_MAX, &n), 0);
	assert_int_equal(unseal(user, NULL, "context", n, &data), 0);
	fix_close(user);
}

static void random_bytes(void **state)
{
	struct csm_msg_random_req m = {.bytes = {32, true}};
	struct csm_msg_random_res res;
	uint8_t first[32];

	(void)state;
	assert_int_equal(fix_call(pub, "random", &m, &res), 0);
	assert_int_equal(res.random.n, 32);
	memcpy(first, res.random.p, 32);
	assert_int_equal(fix_call(pub, "random", &m, &res), 0);
	assert_memory_not_equal(res.random.p, first, 32);
	m.bytes.v = CSM_RANDOM_MAX;
	assert_int_equal(fix_call(pub, "random", &m, &res), 0);
	assert_int_equal(res.random.n, CSM_RANDOM_MAX);
	m.bytes.v = 0;
	assert_int_equal(fix_call(pub, "random", &m, &res), CSM_EINVALID);
	m.bytes.v = CSM_RANDOM_MAX + 1;
	assert_int_equal(fix_call(pub, "random", &m, &res), CSM_ETOO_LARGE);
}

/* ---- request ids ---- */

static int create_with(int fd, const char *name, const char *backend, const char *id, char hash[static 65])
{
	struct csm_msg_key_create_req m = {
		.key = csm_str_of(name), .backend = csm_str_of(backend), .request_id = csm_str_of(id)};
	struct csm_msg_key_info info;
	int r = fix_call(fd, "key.create", &m, &info);

	if (r == 0)
		snprintf(hash, 65, "%.*s", (int)info.spki_sha256.n, info.spki_sha256.p);
	return r;
}

static void a_repeated_request_has_the_first_answer(void **state)
{
	struct csm_msg_key_delete_req del = {.key = CSM_STR("once"), .request_id = CSM_STR("id-2")};
	struct csm_msg_domain_req domain = {.domain = CSM_STR("once"), .request_id = CSM_STR("id-3")};
	struct csm_msg_secret_delete_req sdel = {.secret = CSM_STR("once/s"), .request_id = CSM_STR("id-5")};
	struct csm_msg_domain_req ddel = {.domain = CSM_STR("once"), .request_id = CSM_STR("id-6")};
	struct csm_plugin_ctx *ctx;
	char first[65] = "", again[65] = "";
	uint64_t v = 0;

	(void)state;
	assert_int_equal(create_with(pub, "once", "fake", "id-1", first), 0);
	assert_int_equal(create_with(pub, "once", "fake", "id-1", again), 0);
	assert_string_equal(first, again);
	/* Another request under the same id, and the same without one. */
	assert_int_equal(create_with(pub, "twice", "fake", "id-1", again), CSM_ECONFLICT);
	assert_int_equal(create_with(pub, "once", "soft", "id-1", again), CSM_ECONFLICT);
	assert_int_equal(create_with(pub, "once", "fake", NULL, again), CSM_EEXISTS);
	/* While the back end is away, too. */
	ctx = fix.t.b.backends[1].ctx;
	fix.t.b.backends[1].ctx = NULL;
	assert_int_equal(create_with(pub, "once", "fake", "id-1", again), 0);
	fix.t.b.backends[1].ctx = ctx;
	assert_string_equal(first, again);
	for (int i = 0; i < 3; i++)
		assert_int_equal(fix_ask(pub, "key.delete", &del), 0);
	/* The id still tells of the key that was made. */
	assert_int_equal(create_with(pub, "once", "fake", "id-1", again), 0);
	assert_string_equal(first, again);
	for (int i = 0; i < 3; i++)
		assert_int_equal(fix_ask(pub, "domain.create", &domain), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(fix_set(pub, "once/s", "v", -1, "id-4", &v), 0);
		assert_int_equal(v, 1);
	}
	assert_int_equal(fix_set(pub, "once/s", "w", -1, "id-4", &v), CSM_ECONFLICT);
	assert_int_equal(fix_set(pub, "once/s", "w", 1, NULL, &v), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(fix_ask(pub, "secret.delete", &sdel), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(fix_ask(pub, "domain.delete", &ddel), 0);
	assert_int_equal(fix_ask(pub, "domain.create", &domain), 0);
	assert_int_equal(fix_domain(pub, "domain.show", "once"), CSM_ENOT_FOUND);
}

static void an_id_is_its_callers(void **state)
{
	int other = fix_connect_as(70045);
	char first[65] = "", again[65] = "";

	(void)state;
	assert_int_equal(create_with(pub, "mine", NULL, "same-id", first), 0);
	assert_int_equal(create_with(other, "mine", NULL, "same-id", again), 0);
	assert_string_not_equal(first, again);
	fix_close(other);
}

/* What was refused is judged anew. */
static void a_refusal_is_not_kept(void **state)
{
	char hash[65];

	(void)state;
	assert_int_equal(fix_create(pub, "taken", NULL, NULL, NULL), 0);
	assert_int_equal(create_with(pub, "taken", NULL, "id-t", hash), CSM_EEXISTS);
	struct csm_msg_key_delete_req del = {.key = CSM_STR("taken")};
	assert_int_equal(fix_ask(pub, "key.delete", &del), 0);
	assert_int_equal(create_with(pub, "taken", NULL, "id-t", hash), 0);
	uint64_t v;
	assert_int_equal(fix_set(pub, "later/s", "v", -1, "id-l", &v), CSM_ENOT_FOUND);
	assert_int_equal(fix_domain(pub, "domain.create", "later"), 0);
	assert_int_equal(fix_set(pub, "later/s", "v", -1, "id-l", &v), 0);
}

/* A retry that overtakes the first try: both have one answer, and one key is made. */
static void both_in_flight(void **state)
{
	struct csm_msg_key_create_req m = {
		.key = CSM_STR("flight"), .backend = CSM_STR("fake"), .request_id = CSM_STR("id-f")};
	struct csm_msg_domain_req domain = {.domain = CSM_STR("flight"), .request_id = CSM_STR("id-g")};
	struct csm_msg_pair pair = {.name = CSM_STR("a"), .value = {(const uint8_t *)"x", 1}};
	struct csm_msg_secret_set_req set = {
		.secret = CSM_STR("flight/s"), .pairs = {&pair, 1}, .request_id = CSM_STR("id-h")};
	uint8_t first[4096];
	size_t n = 0;

	(void)state;
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(testbroker_request(&fix.t, pub, i, "key.create", &m), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(fix_next(pub), 0);
		if (i == 0) {
			n = fix.last.result.n;
			assert_true(n <= sizeof(first));
			memcpy(first, fix.last.result.p, n);
		}
		assert_int_equal(fix.last.result.n, n);
		assert_memory_equal(fix.last.result.p, first, n);
	}
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(testbroker_request(&fix.t, pub, i, "domain.create", &domain), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(fix_next(pub), 0);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(testbroker_request(&fix.t, pub, i, "secret.set", &set), 0);
	for (int i = 0; i < 3; i++) {
		struct csm_msg_secret_set_res res;
		struct csm_str bad;

		assert_int_equal(fix_next(pub), 0);
		assert_int_equal(
			csm_msg_decode(CSM_DEF(secret_set_res), fix.last.result, CSM_UNKNOWN_REFUSE, NULL, &res, &bad), 0);
		assert_int_equal(res.version.v, 1);
	}
}

static void ids_that_are_too_long(void **state)
{
	char id[CSM_REQUEST_ID_MAX + 2], hash[65];

	(void)state;
	memset(id, 'x', sizeof(id) - 1);
	id[sizeof(id) - 1] = '\0';
	assert_int_equal(create_with(pub, "long", NULL, id, hash), CSM_ETOO_LARGE);
	id[CSM_REQUEST_ID_MAX] = '\0';
	assert_int_equal(create_with(pub, "long", NULL, id, hash), 0);
	assert_int_equal(create_with(pub, "long", NULL, id, hash), 0);
}

/* ---- together ---- */

#define TOGETHER 12u

/* How often this thread, the loop's, has woken another one. */
static _Thread_local unsigned wakes;
__attribute__((visibility("default"))) int pthread_cond_signal(pthread_cond_t *cond)
{
	static int (*real)(pthread_cond_t *);

	if (real == NULL)
		*(void **)&real = dlsym(RTLD_NEXT, "pthread_cond_signal");
	wakes++;
	return real(cond);
}

/* As many sets, by turns from two connections, all of which can be read when the loop looks. */
static void send_together(int other)
{
	for (uint32_t c = 0; c < 2; c++) {
		struct csm_buf b;

		csm_buf_init(&b, CSM_MESSAGE_MAX, false);
		for (uint32_t i = c; i < TOGETHER; i += 2) {
			struct csm_msg_pair pair = {.name = CSM_STR("a"), .value = {(const uint8_t *)"x", 1}};
			struct csm_msg_secret_set_req set = {
				.secret = CSM_STR("together/s"), .pairs = {&pair, 1}, .expect = {99, i == 4}};

			assert_int_equal(csm_frame_request(&b, i, "secret.set", CSM_DEF(secret_set_req), &set), 0);
		}
		assert_int_equal(send(c == 0 ? pub : other, csm_buf_ptr(&b), b.len, MSG_NOSIGNAL), (ssize_t)b.len);
		csm_buf_free(&b);
	}
}

/* They are one commit, for which the writer is woken once; each has its own answer, and one that is refused harms no other. */
static void what_is_read_in_one_go_is_one_commit(void **state)
{
	int other = fix_connect(CSM_R_PUBLIC);
	struct csm_store_stat before, after;

	(void)state;
	assert_int_equal(fix_domain(pub, "domain.create", "together"), 0);
	csm_store_stat(fix.t.b.store, &before);
	send_together(other);
	wakes = 0;
	for (unsigned i = 0; i < TOGETHER; i++) {
		int r = fix_next(i < TOGETHER / 2 ? pub : other);

		assert_true(fix.last.msgid < TOGETHER && fix.last.msgid % 2 == (i < TOGETHER / 2 ? 0 : 1));
		assert_int_equal(r, fix.last.msgid == 4 ? CSM_ECONFLICT : 0);
	}
	assert_int_equal(wakes, 1);
	csm_store_stat(fix.t.b.store, &after);
	assert_int_equal(after.commits, before.commits + 1);
	assert_int_equal(after.commit_ops, before.commit_ops + TOGETHER - 1);
	fix_close(other);
}

/* The last of all: nothing is written any more. */
static void what_the_store_does_not_take_is_answered(void **state)
{
	int other = fix_connect(CSM_R_PUBLIC);

	(void)state;
	csm_store_stop(fix.t.b.store);
	send_together(other);
	for (unsigned i = 0; i < TOGETHER; i++)
		assert_int_equal(fix_next(i < TOGETHER / 2 ? pub : other), CSM_ESHUTDOWN);
	fix_close(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FIX_TEST(domains),
		FIX_TEST(lists_of_domains),
		FIX_TEST(versions_and_expectations),
		FIX_TEST(pairs_of_a_secret),
		FIX_TEST(sizes_of_a_secret),
		FIX_TEST(lists_of_secrets),
		FIX_TEST(a_grant_covers_what_it_says),
		FIX_TEST(sealed_data_is_bound),
		FIX_TEST(sizes_of_sealed_data),
		FIX_TEST(random_bytes),
		FIX_TEST(a_repeated_request_has_the_first_answer),
		FIX_TEST(an_id_is_its_callers),
		FIX_TEST(a_refusal_is_not_kept),
		FIX_TEST(both_in_flight),
		FIX_TEST(ids_that_are_too_long),
		FIX_TEST(what_is_read_in_one_go_is_one_commit),
		FIX_TEST(what_the_store_does_not_take_is_answered),
	};

	if (!fix_prepare(120, "generate=delay:50ms", policy))
		return 77;
	return cmocka_run_group_tests(tests, fix_begin, fix_end);
}
