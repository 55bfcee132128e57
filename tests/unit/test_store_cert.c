/* Certificates in the store: they belong to one key, go with it, and a change behind csmd's back is found. A store of
 * the schema before them is taken over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/svc/store_internal.h"
#include "tests/lib/storefix.h"

#define WEB_TLS "web\0tls", 7
#define WEB_API "web\0api", 7

static int setup(void **state)
{
	static struct storefix f;

	storefix_init(&f);
	f.with_counter = true;
	*state = &f;
	if (storefix_open(&f) != 0)
		return -1;
	assert_int_equal(storefix_key(&f, "web", "tls", "private"), 0);
	assert_int_equal(storefix_key(&f, "web", "api", "private"), 0);
	assert_int_equal(storefix_key(&f, "mail", "tls", "private"), 0);
	return 0;
}

static int teardown(void **state)
{
	storefix_free(*state);
	return 0;
}

static void id_of(struct storefix *f, const char *ns, const char *name, uint8_t id[static CSM_KEY_ID_LEN])
{
	struct csm_key_record rec;

	assert_int_equal(storefix_key_get(f, ns, name, NULL, &rec), 0);
	memcpy(id, rec.id, CSM_KEY_ID_LEN);
}

static int set_for(struct storefix *f, const char *ns, const char *name, const uint8_t *id, const char *text)
{
	struct csm_store_op op = {.kind = CSM_OP_CERT_SET, .ns = csm_str_of(ns), .name = csm_str_of(name),
		.payload = {(const uint8_t *)text, strlen(text)}};

	memcpy(op.key.id, id, CSM_KEY_ID_LEN);
	return storefix_do(f, &op);
}

static int set(struct storefix *f, const char *ns, const char *name, const char *text)
{
	uint8_t id[CSM_KEY_ID_LEN];

	id_of(f, ns, name, id);
	return set_for(f, ns, name, id, text);
}

static int drop(struct storefix *f, enum csm_op_kind kind, const char *ns, const char *name)
{
	struct csm_store_op op = {.kind = kind, .ns = csm_str_of(ns), .name = csm_str_of(name)};

	return storefix_do(f, &op);
}

/* The certificate as text, "" where there is none. */
static const char *get(struct storefix *f, const char *ns, const char *name, const uint8_t *id, int want)
{
	static char text[256];
	uint64_t installed = 0;
	struct csm_buf out;
	int r;

	csm_buf_init(&out, sizeof(text) - 1, false);
	assert_int_equal(csm_reader_begin(f->r), 0);
	r = csm_store_cert_get(f->r, csm_str_of(ns), csm_str_of(name), id, &out, &installed);
	csm_reader_end(f->r);
	assert_int_equal(r, want);
	assert_true(r != 0 || installed > 0);
	if (out.len > 0)
		memcpy(text, csm_buf_ptr(&out), out.len);
	text[out.len] = '\0';
	csm_buf_free(&out);
	return text;
}

static const char *look(struct storefix *f, const char *ns, const char *name, int want)
{
	uint8_t id[CSM_KEY_ID_LEN];

	id_of(f, ns, name, id);
	return get(f, ns, name, id, want);
}

struct listed {
	char text[256];
	size_t max;
};

static bool list_one(void *arg, struct csm_str name, uint64_t installed, struct csm_bin payload)
{
	struct listed *l = arg;
	size_t n = strlen(l->text);

	assert_true(installed > 0);
	snprintf(l->text + n, sizeof(l->text) - n, "%.*s=%.*s,", (int)name.n, name.p, (int)payload.n,
		(const char *)payload.p);
	return --l->max > 0;
}

static const char *list(struct storefix *f, const char *ns, const char *after, size_t max)
{
	static struct listed l;
	struct csm_buf scratch;

	l = (struct listed){.max = max};
	csm_buf_init(&scratch, 65536, false);
	assert_int_equal(csm_reader_begin(f->r), 0);
	assert_int_equal(csm_store_cert_list(f->r, csm_str_of(ns), csm_str_of(after), &scratch, list_one, &l), 0);
	csm_reader_end(f->r);
	csm_buf_free(&scratch);
	return l.text;
}

static void reopen(struct storefix *f)
{
	storefix_close(f);
	assert_int_equal(storefix_open(f), 0);
	assert_false(csm_store_locked(f->s));
}

static void test_set_and_get(void **state)
{
	static const uint8_t other[CSM_KEY_ID_LEN] = {1, 2, 3};
	struct storefix *f = *state;
	uint8_t id[CSM_KEY_ID_LEN];

	assert_string_equal(look(f, "web", "tls", CSM_ENOT_FOUND), "");
	assert_int_equal(set(f, "web", "tls", "one"), 0);
	assert_string_equal(look(f, "web", "tls", 0), "one");
	assert_string_equal(look(f, "web", "api", CSM_ENOT_FOUND), "");
	assert_string_equal(look(f, "mail", "tls", CSM_ENOT_FOUND), "");
	/* in place of the one before, also a longer and a shorter one */
	assert_int_equal(set(f, "web", "tls", "the second, which is longer"), 0);
	assert_int_equal(set(f, "mail", "tls", "m"), 0);
	reopen(f);
	assert_string_equal(look(f, "web", "tls", 0), "the second, which is longer");
	assert_int_equal(set(f, "web", "tls", ""), 0);
	assert_string_equal(look(f, "web", "tls", 0), "");
	/* only of this key */
	assert_int_equal(set_for(f, "web", "tls", other, "foreign"), CSM_ECONFLICT);
	assert_int_equal(set_for(f, "web", "none", other, "foreign"), CSM_ENOT_FOUND);
	assert_int_equal(set_for(f, "none", "tls", other, "foreign"), CSM_ENOT_FOUND);
	id_of(f, "web", "tls", id);
	assert_string_equal(get(f, "web", "tls", other, CSM_ENOT_FOUND), "");
	assert_string_equal(get(f, "web", "tls", id, 0), "");
	reopen(f);
}

static void test_list(void **state)
{
	struct storefix *f = *state;

	assert_string_equal(list(f, "web", "", 9), "");
	assert_int_equal(set(f, "web", "tls", "1"), 0);
	assert_int_equal(set(f, "web", "api", "2"), 0);
	assert_int_equal(set(f, "mail", "tls", "3"), 0);
	assert_string_equal(list(f, "web", "", 9), "api=2,tls=1,");
	assert_string_equal(list(f, "web", "", 1), "api=2,");
	assert_string_equal(list(f, "web", "api", 9), "tls=1,");
	assert_string_equal(list(f, "web", "tls", 9), "");
	assert_string_equal(list(f, "we", "", 9), "");
	assert_string_equal(list(f, "mail", "", 9), "tls=3,");
}

static void test_goes_with_its_key(void **state)
{
	struct storefix *f = *state;

	assert_int_equal(set(f, "web", "tls", "of the first"), 0);
	assert_int_equal(drop(f, CSM_OP_KEY_DELETE, "web", "tls"), 0);
	assert_string_equal(list(f, "web", "", 9), "");
	assert_int_equal(drop(f, CSM_OP_CERT_DELETE, "web", "tls"), CSM_ENOT_FOUND);
	assert_int_equal(storefix_key(f, "web", "tls", "made anew"), 0);
	assert_string_equal(look(f, "web", "tls", CSM_ENOT_FOUND), "");
	assert_int_equal(drop(f, CSM_OP_CERT_DELETE, "web", "tls"), CSM_ENOT_FOUND);
	assert_int_equal(set(f, "web", "tls", "of the second"), 0);
	assert_int_equal(drop(f, CSM_OP_CERT_DELETE, "web", "tls"), 0);
	assert_string_equal(look(f, "web", "tls", CSM_ENOT_FOUND), "");
	reopen(f);
	assert_string_equal(list(f, "web", "", 9), "");
}

/* Opened after an attack: locked, with these names; the administrator accepts, and `removed` records were dropped. */
static void found(struct storefix *f, const char *one, const char *two, size_t removed)
{
	struct csm_store_op op = {.kind = CSM_OP_ACCEPT};
	struct csm_store_stat st;

	assert_int_equal(storefix_open(f), 0);
	assert_true(csm_store_locked(f->s));
	assert_true(storefix_damaged(f, one));
	assert_true(two == NULL || storefix_damaged(f, two));
	assert_int_equal(storefix_n_damaged(f), two == NULL ? 1 : 2);
	assert_int_equal(storefix_do(f, &op), 0);
	csm_store_stat(f->s, &st);
	assert_int_equal(st.n_removed, removed);
	reopen(f);
}

static void test_taken_out(void **state)
{
	struct storefix *f = *state;
	struct rawstore w;

	assert_int_equal(set(f, "web", "tls", "one"), 0);
	storefix_close(f);
	raw_open(f, &w);
	raw_del(&w, w.certs, WEB_TLS);
	raw_close(&w);
	found(f, "web:", NULL, 0);
	assert_string_equal(look(f, "web", "tls", CSM_ENOT_FOUND), "");
}

static void test_older_copy(void **state)
{
	struct storefix *f = *state;
	struct rawstore w;
	uint8_t *old;
	size_t n;

	assert_int_equal(set(f, "web", "tls", "one"), 0);
	storefix_close(f);
	raw_open(f, &w);
	old = raw_get(&w, w.certs, WEB_TLS, &n);
	raw_close(&w);
	assert_non_null(old);
	assert_int_equal(n, 64 + 16 + 3 + 16);
	assert_int_equal(old[2], REC_CERT);
	assert_int_equal(storefix_open(f), 0);
	assert_int_equal(set(f, "web", "tls", "two"), 0);
	storefix_close(f);
	raw_open(f, &w);
	raw_put(&w, w.certs, WEB_TLS, old, n);
	raw_close(&w);
	free(old);
	found(f, "web:", NULL, 0); /* genuine by itself */
	assert_string_equal(look(f, "web", "tls", 0), "one");
}

/* One key's certificate beside another key: of the same namespace, and altered so that it names that key. */
static void test_moved(void **state)
{
	struct storefix *f = *state;
	uint8_t id[CSM_KEY_ID_LEN], *v;
	struct rawstore w;
	size_t n;

	assert_int_equal(set(f, "web", "tls", "one"), 0);
	id_of(f, "web", "api", id);
	storefix_close(f);
	raw_open(f, &w);
	v = raw_get(&w, w.certs, WEB_TLS, &n);
	raw_put(&w, w.certs, WEB_API, v, n);
	raw_close(&w);
	found(f, "web:", "web:api", 1);
	assert_string_equal(look(f, "web", "api", CSM_ENOT_FOUND), "");
	assert_string_equal(look(f, "web", "tls", 0), "one");
	storefix_close(f);
	raw_open(f, &w);
	memcpy(v + 64, id, CSM_KEY_ID_LEN);
	raw_put(&w, w.certs, WEB_API, v, n);
	raw_close(&w);
	free(v);
	found(f, "web:", "web:api", 1);
	assert_string_equal(look(f, "web", "api", CSM_ENOT_FOUND), "");
}

/* A certificate whose key was taken out, or is an older one of that name, is not left for the next key. */
static void test_key_taken_out(void **state)
{
	struct storefix *f = *state;
	struct rawstore w;
	uint8_t *old;
	size_t n;

	assert_int_equal(set(f, "web", "tls", "one"), 0);
	storefix_close(f);
	raw_open(f, &w);
	old = raw_get(&w, w.keys, WEB_TLS, &n);
	raw_del(&w, w.keys, WEB_TLS);
	raw_close(&w);
	found(f, "web:", "web:tls", 1);
	assert_int_equal(storefix_key(f, "web", "tls", "made anew"), 0);
	assert_string_equal(look(f, "web", "tls", CSM_ENOT_FOUND), "");
	assert_int_equal(set(f, "web", "tls", "two"), 0);
	storefix_close(f);
	raw_open(f, &w);
	raw_put(&w, w.keys, WEB_TLS, old, n);
	raw_close(&w);
	free(old);
	found(f, "web:", "web:tls", 1);
	assert_string_equal(look(f, "web", "tls", CSM_ENOT_FOUND), "");
}

static void test_altered(void **state)
{
	struct storefix *f = *state;
	struct rawstore w;
	uint8_t *v;
	size_t n;

	assert_int_equal(set(f, "web", "tls", "one"), 0);
	storefix_close(f);
	raw_open(f, &w);
	v = raw_get(&w, w.certs, WEB_TLS, &n);
	v[n - 17] ^= 1; /* the cipher text, under its tag */
	raw_put(&w, w.certs, WEB_TLS, v, n);
	raw_close(&w);
	assert_int_equal(storefix_open(f), 0);
	(void)look(f, "web", "tls", CSM_ETAMPERED);
	storefix_close(f);
	raw_open(f, &w);
	v[n - 1] ^= 1; /* the tag */
	raw_put(&w, w.certs, WEB_TLS, v, n);
	raw_close(&w);
	free(v);
	found(f, "web:", "web:tls", 1);
	assert_string_equal(look(f, "web", "tls", CSM_ENOT_FOUND), "");
}

/* In a namespace that has no scope. */
static void test_orphan(void **state)
{
	struct storefix *f = *state;
	struct rawstore w;
	uint8_t *v;
	size_t n;

	assert_int_equal(set(f, "web", "tls", "one"), 0);
	storefix_close(f);
	raw_open(f, &w);
	v = raw_get(&w, w.certs, WEB_TLS, &n);
	raw_put(&w, w.certs, "none\0tls", 8, v, n);
	raw_close(&w);
	free(v);
	found(f, "none:tls", NULL, 1);
	assert_string_equal(list(f, "none", "", 9), "");
	assert_string_equal(look(f, "web", "tls", 0), "one");
}

/* What the schema before this one left: another number in two places, and no certificates. */
static void make_schema_1(struct storefix *f)
{
	static const uint8_t schema[] = {'c', 's', 'm', ' ', 's', 't', 'o', 'r', 'e', 0, 0, 0, 1};
	uint8_t plain[ROOT_PLAIN], key[KEY_LEN], *v;
	const struct csm_bin name = {(const uint8_t *)"root", 4};
	struct prk root_key, root;
	struct rawstore w;
	struct aead a;
	struct rec rec;
	size_t n;

	raw_open(f, &w);
	v = raw_get(&w, w.meta, "root", 4, &n);
	assert_int_equal(aead_init(&a, false), 0);
	prk_init(&root_key, f->root_key);
	prk_label_key(&root_key, "root", key);
	prk_init(&root, key);
	assert_int_equal(rec_parse((struct csm_bin){v, n}, REC_ROOT, &rec), 0);
	assert_int_equal(rec_open(&a, &root, &rec, name, plain), 0);
	assert_int_equal(get32(plain), STORE_SCHEMA);
	put32(plain, 1);
	rec_header(v, REC_ROOT, 1, NULL, 0);
	assert_int_equal(rec_seal(&a, &root, REC_ROOT, name, v, HDR_LEN, (struct csm_bin){plain, ROOT_PLAIN}), 0);
	raw_put(&w, w.meta, "root", 4, v, n);
	raw_put(&w, w.meta, "schema", 6, schema, sizeof(schema));
	assert_int_equal(mdb_drop(w.txn, w.certs, 1), 0);
	raw_close(&w);
	aead_free(&a);
	free(v);
}

static void expect_schema(struct storefix *f, uint8_t want)
{
	struct rawstore w;
	uint8_t *v;
	size_t n;

	raw_open(f, &w);
	v = raw_get(&w, w.meta, "schema", 6, &n);
	raw_close(&w);
	assert_int_equal(n, 13);
	assert_int_equal(v[12], want);
	free(v);
}

static void test_schema_1_is_taken_over(void **state)
{
	struct storefix *f = *state;
	struct csm_store *s;

	assert_int_equal(storefix_domain(f, "web", "db"), 0);
	assert_int_equal(storefix_set(f, "web", "db", "a", "kept"), 0);
	storefix_close(f);
	make_schema_1(f);
	/* left before the root key came: nothing has changed */
	assert_int_equal(csm_store_env_open(&f->opt, &s), 0);
	csm_store_close(s);
	expect_schema(f, 1);
	assert_int_equal(storefix_open(f), 0);
	assert_false(csm_store_locked(f->s));
	assert_int_equal(set(f, "web", "tls", "one"), 0);
	storefix_close(f);
	expect_schema(f, 4);
	reopen(f);
	assert_string_equal(look(f, "web", "tls", 0), "one");
	char v[256];
	assert_int_equal(storefix_get(f, "web", "db", "a", 0, v), 0);
	assert_string_equal(v, "kept");
}

/* A changed store of the older schema stays as it is until it is accepted. */
static void test_schema_1_changed(void **state)
{
	struct storefix *f = *state;
	struct rawstore w;

	storefix_close(f);
	make_schema_1(f);
	raw_open(f, &w);
	raw_del(&w, w.keys, WEB_API);
	raw_close(&w);
	assert_int_equal(storefix_open(f), 0);
	assert_true(csm_store_locked(f->s));
	storefix_close(f);
	expect_schema(f, 1);
	found(f, "web:", NULL, 0);
	storefix_close(f);
	expect_schema(f, 4);
	assert_int_equal(storefix_open(f), 0);
	assert_int_equal(set(f, "web", "tls", "one"), 0);
	reopen(f);
	assert_string_equal(look(f, "web", "tls", 0), "one");
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
/* ---- another key in a key's place ---- */

static const char *beside(const char *name, enum csm_key_beside which)
{
	static char buf[2][CSM_KEY_BESIDE_NAME];

	return csm_store_key_beside(csm_str_of(name), which, buf[which]).p;
}

static int turn(struct storefix *f, const char *name, const uint8_t *old, const uint8_t *next, const char *cert)
{
	struct csm_store_op op = {.kind = CSM_OP_KEY_TURN, .ns = CSM_STR("web"), .name = csm_str_of(name), .turns = old,
		.payload = {(const uint8_t *)cert, strlen(cert)}};

	memcpy(op.key.id, next, CSM_KEY_ID_LEN);
	return storefix_do(f, &op);
}

static bool count_one(void *arg, struct csm_str name, const struct csm_key_record *rec)
{
	(void)name;
	(void)rec;
	(*(size_t *)arg)++;
	return true;
}

static size_t listed_keys(struct storefix *f)
{
	size_t n = 0;

	assert_int_equal(csm_reader_begin(f->r), 0);
	assert_int_equal(csm_store_key_list(f->r, CSM_STR("web"), CSM_STR(""), count_one, &n), 0);
	csm_reader_end(f->r);
	return n;
}

static uint64_t all_keys(struct storefix *f)
{
	struct csm_store_stat st;

	csm_store_stat(f->s, &st);
	return st.keys;
}

static void test_turn(void **state)
{
	static const uint8_t none[CSM_KEY_ID_LEN] = {9};
	struct storefix *f = *state;
	struct csm_key_record rec;
	uint8_t first[CSM_KEY_ID_LEN], second[CSM_KEY_ID_LEN], third[CSM_KEY_ID_LEN];

	id_of(f, "web", "tls", first);
	assert_int_equal(set(f, "web", "tls", "one"), 0);
	/* there is none to take its place */
	assert_int_equal(turn(f, "tls", first, none, "two"), CSM_ENOT_FOUND);
	assert_int_equal(storefix_key(f, "web", beside("tls", CSM_KEY_NEXT), "the next"), 0);
	id_of(f, "web", beside("tls", CSM_KEY_NEXT), second);
	/* another one is there than is meant, on either side; nothing is done then */
	assert_int_equal(turn(f, "tls", none, second, "two"), CSM_ECONFLICT);
	assert_int_equal(turn(f, "tls", first, none, "two"), CSM_ECONFLICT);
	assert_int_equal(storefix_key_get(f, "web", "tls", "private", &rec), 0);
	assert_string_equal(look(f, "web", "tls", 0), "one");
	assert_int_equal(storefix_key_get(f, "web", beside("tls", CSM_KEY_BEFORE), NULL, &rec), CSM_ENOT_FOUND);
	assert_int_equal(listed_keys(f), 2);
	/* key and certificate at once; the one before is beside it */
	assert_int_equal(turn(f, "tls", first, second, "two"), 0);
	assert_int_equal(storefix_key_get(f, "web", "tls", "the next", &rec), 0);
	assert_memory_equal(rec.id, second, CSM_KEY_ID_LEN);
	assert_string_equal(look(f, "web", "tls", 0), "two");
	assert_int_equal(storefix_key_get(f, "web", beside("tls", CSM_KEY_BEFORE), "private", &rec), 0);
	assert_memory_equal(rec.id, first, CSM_KEY_ID_LEN);
	assert_int_equal(storefix_key_get(f, "web", beside("tls", CSM_KEY_NEXT), NULL, &rec), CSM_ENOT_FOUND);
	assert_int_equal(listed_keys(f), 2);
	reopen(f);
	assert_int_equal(storefix_key_get(f, "web", "tls", "the next", &rec), 0);
	assert_string_equal(look(f, "web", "tls", 0), "two");
	/* once more: of those before there is one */
	assert_int_equal(storefix_key(f, "web", beside("tls", CSM_KEY_NEXT), "the third"), 0);
	id_of(f, "web", beside("tls", CSM_KEY_NEXT), third);
	assert_int_equal(turn(f, "tls", second, third, "three"), 0);
	assert_int_equal(storefix_key_get(f, "web", beside("tls", CSM_KEY_BEFORE), "the next", &rec), 0);
	assert_int_equal(all_keys(f), 4);
	/* they go with it */
	assert_int_equal(storefix_key(f, "web", beside("tls", CSM_KEY_NEXT), "the fourth"), 0);
	struct csm_store_op del = {.kind = CSM_OP_KEY_DELETE, .ns = CSM_STR("web"), .name = CSM_STR("tls")};
	assert_int_equal(storefix_do(f, &del), 0);
	assert_int_equal(all_keys(f), 2);
	assert_int_equal(storefix_key_get(f, "web", beside("tls", CSM_KEY_NEXT), NULL, &rec), CSM_ENOT_FOUND);
	assert_int_equal(storefix_key_get(f, "web", beside("tls", CSM_KEY_BEFORE), NULL, &rec), CSM_ENOT_FOUND);
	reopen(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_set_and_get),
		TEST(test_list),
		TEST(test_goes_with_its_key),
		TEST(test_taken_out),
		TEST(test_older_copy),
		TEST(test_moved),
		TEST(test_key_taken_out),
		TEST(test_altered),
		TEST(test_orphan),
		TEST(test_schema_1_is_taken_over),
		TEST(test_schema_1_changed),
		TEST(test_turn),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
