/* Someone changes the stopped store: each change is found at the next start, the domain (or the record) is
 * named, nothing is served until the administrator accepts the store as it is, and then it is served again
 * without a restart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/lib/storefix.h"

#define SECRET(name, version) k, raw_secret_key(k, "web", "db", name, version)

static int setup(void **state)
{
	static struct storefix f;

	storefix_init(&f);
	f.with_counter = true;
	*state = &f;
	if (storefix_open(&f) != 0)
		return -1;
	assert_int_equal(storefix_domain(&f, "web", "db"), 0);
	assert_int_equal(storefix_domain(&f, "web", "other"), 0);
	assert_int_equal(storefix_domain(&f, "web", "empty"), 0);
	assert_int_equal(storefix_set(&f, "web", "db", "a", "a one"), 0);
	assert_int_equal(storefix_set(&f, "web", "db", "b", "b one"), 0);
	assert_int_equal(storefix_set(&f, "web", "other", "a", "elsewhere"), 0);
	assert_int_equal(storefix_key(&f, "web", "tls", "private"), 0);
	assert_int_equal(storefix_key(&f, "mail", "tls", "other private"), 0);
	return 0;
}

static int teardown(void **state)
{
	storefix_free(*state);
	return 0;
}

/* Opened after an attack: locked, exactly these names, and refusing. */
static void found(struct storefix *f, const char *one, const char *two, const char *three)
{
	const char *names[] = {one, two, three};
	struct csm_store_op op = {.kind = CSM_OP_NAMESPACE, .ns = CSM_STR("web")};
	size_t n = 0;
	char v[256];

	assert_int_equal(storefix_open(f), 0);
	assert_true(csm_store_locked(f->s));
	for (size_t i = 0; i < 3; i++) {
		if (names[i] == NULL)
			continue;
		n++;
		if (!storefix_damaged(f, names[i]))
			fail_msg("%s is not named", names[i]);
	}
	assert_int_equal(storefix_n_damaged(f), n);
	assert_int_equal(storefix_get(f, "web", "other", "a", 0, v), CSM_ETAMPERED);
	assert_int_equal(storefix_do(f, &op), CSM_ETAMPERED);
	assert_int_equal(storefix_domain(f, "web", "new"), CSM_ETAMPERED);
}

/* Locked across restarts until accepted; then served at once, and after a restart. */
static void accept(struct storefix *f, size_t removed)
{
	struct csm_store_op op = {.kind = CSM_OP_ACCEPT};
	struct csm_store_stat st;
	char v[256];

	storefix_close(f);
	assert_int_equal(storefix_open(f), 0);
	assert_true(csm_store_locked(f->s));
	assert_int_equal(storefix_do(f, &op), 0);
	assert_false(csm_store_locked(f->s));
	csm_store_stat(f->s, &st);
	assert_int_equal(st.n_damaged, 0);
	assert_int_equal(st.n_removed, removed);
	assert_int_equal(storefix_get(f, "web", "other", "a", 0, v), 0);
	assert_string_equal(v, "elsewhere");
	assert_int_equal(storefix_set(f, "web", "other", "new", "v"), 0);
	assert_int_equal(storefix_do(f, &op), CSM_ESTATE);
	for (int i = 0; i < 2; i++) {
		storefix_close(f);
		assert_int_equal(storefix_open(f), 0);
		assert_false(csm_store_locked(f->s));
	}
	assert_int_equal(storefix_get(f, "web", "other", "a", 0, v), 0);
}

static void test_untouched(void **state)
{
	struct storefix *f = *state;
	struct csm_store_op op = {.kind = CSM_OP_ACCEPT};
	struct rawstore w;

	storefix_close(f);
	raw_open(f, &w); /* that our looking alone changes nothing */
	raw_close(&w);
	assert_int_equal(storefix_open(f), 0);
	assert_false(csm_store_locked(f->s));
	assert_int_equal(storefix_do(f, &op), CSM_ESTATE);
}

/* A copy of a record from before its name was deleted and made anew. */
static void test_older_copy(void **state)
{
	struct storefix *f = *state;
	struct csm_store_op del = {
		.kind = CSM_OP_SECRET_DELETE, .ns = CSM_STR("web"), .name = CSM_STR("db"), .secret = CSM_STR("a")};
	struct rawstore w;
	uint8_t k[511], *old;
	size_t n;
	char v[256];

	storefix_close(f);
	raw_open(f, &w);
	old = raw_get(&w, w.secrets, SECRET("a", 1), &n);
	assert_non_null(old);
	raw_close(&w);
	assert_int_equal(storefix_open(f), 0);
	assert_int_equal(storefix_do(f, &del), 0);
	assert_int_equal(storefix_set(f, "web", "db", "a", "a new"), 0);
	storefix_close(f);
	raw_open(f, &w);
	raw_put(&w, w.secrets, SECRET("a", 1), old, n);
	raw_close(&w);
	free(old);
	found(f, "web:db", NULL, NULL); /* the record is genuine: only the domain can be named */
	accept(f, 0);
	assert_int_equal(storefix_get(f, "web", "db", "a", 0, v), 0);
	assert_string_equal(v, "a one"); /* as it is */
}

static void test_put_back(void **state)
{
	struct storefix *f = *state;
	struct csm_store_op del = {
		.kind = CSM_OP_SECRET_DELETE, .ns = CSM_STR("web"), .name = CSM_STR("db"), .secret = CSM_STR("a")};
	struct rawstore w;
	uint8_t k[511], *old;
	size_t n;

	storefix_close(f);
	raw_open(f, &w);
	old = raw_get(&w, w.secrets, SECRET("a", 1), &n);
	raw_close(&w);
	assert_int_equal(storefix_open(f), 0);
	assert_int_equal(storefix_do(f, &del), 0);
	storefix_close(f);
	raw_open(f, &w);
	raw_put(&w, w.secrets, SECRET("a", 1), old, n);
	raw_close(&w);
	free(old);
	found(f, "web:db", NULL, NULL);
	accept(f, 0);
}

static void test_removed(void **state)
{
	struct storefix *f = *state;
	struct rawstore w;
	uint8_t k[511];
	char v[256];

	storefix_close(f);
	raw_open(f, &w);
	raw_del(&w, w.secrets, SECRET("a", 1));
	raw_close(&w);
	found(f, "web:db", NULL, NULL);
	accept(f, 0);
	assert_int_equal(storefix_get(f, "web", "db", "a", 0, v), CSM_ENOT_FOUND);
	assert_int_equal(storefix_get(f, "web", "db", "b", 0, v), 0);
}

static void swap(struct storefix *f, const uint8_t *k1, size_t n1, const uint8_t *k2, size_t n2)
{
	struct rawstore w;
	uint8_t *a, *b;
	size_t an, bn;

	storefix_close(f);
	raw_open(f, &w);
	a = raw_get(&w, w.secrets, k1, n1, &an);
	b = raw_get(&w, w.secrets, k2, n2, &bn);
	assert_non_null(a);
	assert_non_null(b);
	raw_put(&w, w.secrets, k1, n1, b, bn);
	raw_put(&w, w.secrets, k2, n2, a, an);
	raw_close(&w);
	free(a);
	free(b);
}

static void test_swapped(void **state)
{
	struct storefix *f = *state;
	uint8_t k[511], k2[511];
	char v[256];

	swap(f, SECRET("a", 1), k2, raw_secret_key(k2, "web", "db", "b", 1));
	found(f, "web:db", "web:db/a", "web:db/b");
	accept(f, 2);
	assert_int_equal(storefix_get(f, "web", "db", "a", 0, v), CSM_ENOT_FOUND);
	assert_int_equal(storefix_set(f, "web", "db", "a", "again"), 0);
	assert_int_equal(storefix_get(f, "web", "db", "a", 0, v), 0);
}

/* Versions of one secret stand for each other as little as secrets do. */
static void test_swapped_versions(void **state)
{
	struct storefix *f = *state;
	uint8_t k[511], k2[511];

	assert_int_equal(storefix_set(f, "web", "db", "a", "a two"), 0);
	swap(f, SECRET("a", 1), k2, raw_secret_key(k2, "web", "db", "a", 2));
	found(f, "web:db", "web:db/a", NULL);
}

static void test_another_domains_record(void **state)
{
	struct storefix *f = *state;
	struct rawstore w;
	uint8_t k[511], k2[511], *v;
	size_t n;

	storefix_close(f);
	raw_open(f, &w);
	v = raw_get(&w, w.secrets, k2, raw_secret_key(k2, "web", "other", "a", 1), &n);
	raw_put(&w, w.secrets, SECRET("a", 1), v, n);
	raw_close(&w);
	free(v);
	found(f, "web:db", "web:db/a", NULL);
	accept(f, 1);
}

/* One bit anywhere: in the header or the tag it is found at the start, in the cipher text at the reading. */
static void test_bits(void **state)
{
	struct storefix *f = *state;
	struct csm_store_op op = {.kind = CSM_OP_ACCEPT};
	struct rawstore w;
	uint8_t k[511], *v;
	char text[256];
	size_t n;

	for (size_t i = 0; i < 64 + 5 + 16; i += 5) {
		assert_int_equal(storefix_set(f, "web", "db", "bits", "12345"), 0);
		assert_int_equal(storefix_get(f, "web", "db", "bits", 0, text), 0);
		storefix_close(f);
		raw_open(f, &w);
		v = raw_get(&w, w.secrets, SECRET("bits", 1), &n);
		assert_int_equal(n, 64 + 5 + 16);
		v[i] ^= 4;
		raw_put(&w, w.secrets, SECRET("bits", 1), v, n);
		raw_close(&w);
		free(v);
		assert_int_equal(storefix_open(f), 0);
		if (i >= 64 && i < 64 + 5) {
			struct csm_store_op del = {.kind = CSM_OP_SECRET_DELETE,
				.ns = CSM_STR("web"),
				.name = CSM_STR("db"),
				.secret = CSM_STR("bits")};

			assert_false(csm_store_locked(f->s));
			assert_int_equal(storefix_get(f, "web", "db", "bits", 0, text), CSM_ETAMPERED);
			assert_int_equal(storefix_do(f, &del), 0);
			continue;
		}
		assert_true(csm_store_locked(f->s));
		assert_true(storefix_damaged(f, "web:db"));
		assert_true(storefix_damaged(f, "web:db/bits"));
		assert_int_equal(storefix_do(f, &op), 0);
	}
}

static void test_key_records(void **state)
{
	struct storefix *f = *state;
	struct rawstore w;
	uint8_t *v, *mail;
	size_t n, mail_n;

	storefix_close(f);
	raw_open(f, &w);
	v = raw_get(&w, w.keys, "web\0tls", 7, &n);
	mail = raw_get(&w, w.keys, "mail\0tls", 8, &mail_n);
	assert_non_null(v);
	v[64 + 19] ^= 2; /* the use, in the clear: sign becomes sign and decrypt */
	raw_put(&w, w.keys, "web\0tls", 7, v, n);
	raw_close(&w);
	found(f, "web:", "web:tls", NULL);
	storefix_close(f);
	raw_open(f, &w);
	raw_put(&w, w.keys, "web\0tls", 7, mail, mail_n);
	raw_close(&w);
	found(f, "web:", "web:tls", NULL);
	storefix_close(f);
	raw_open(f, &w);
	raw_del(&w, w.keys, "web\0tls", 7);
	raw_close(&w);
	found(f, "web:", NULL, NULL);
	accept(f, 0);
	assert_int_equal(storefix_key(f, "web", "tls", "new"), 0);
	free(v);
	free(mail);
}

static void test_scope_records(void **state)
{
	struct storefix *f = *state;
	struct rawstore w;
	uint8_t *old, *other, k[511];
	size_t n, other_n;
	char v[256];

	/* an older one: it does not fit its records */
	storefix_close(f);
	raw_open(f, &w);
	old = raw_get(&w, w.scopes, "web\0db", 6, &n);
	other = raw_get(&w, w.scopes, "web\0other", 9, &other_n);
	raw_close(&w);
	assert_int_equal(storefix_open(f), 0);
	assert_int_equal(storefix_set(f, "web", "db", "c", "c one"), 0);
	storefix_close(f);
	raw_open(f, &w);
	raw_put(&w, w.scopes, "web\0db", 6, old, n);
	raw_close(&w);
	found(f, "web:db", NULL, NULL);
	/* an older one with its older records: only the root record knows better */
	storefix_close(f);
	raw_open(f, &w);
	raw_del(&w, w.secrets, SECRET("c", 1));
	raw_close(&w);
	found(f, "root", NULL, NULL);
	accept(f, 0);
	assert_int_equal(storefix_get(f, "web", "db", "b", 0, v), 0);
	/* another domain's */
	storefix_close(f);
	raw_open(f, &w);
	raw_put(&w, w.scopes, "web\0db", 6, other, other_n);
	raw_close(&w);
	found(f, "web:db", NULL, NULL);
	accept(f, 1); /* its keys are lost: so is what they sealed */
	assert_int_equal(storefix_get(f, "web", "db", "b", 0, v), CSM_ENOT_FOUND);
	assert_int_equal(storefix_domain(f, "web", "db"), 0);
	free(old);
	free(other);
}

static void test_scope_removed(void **state)
{
	struct storefix *f = *state;
	struct rawstore w;
	char v[256];

	storefix_close(f);
	raw_open(f, &w);
	raw_del(&w, w.scopes, "web\0db", 6);
	raw_del(&w, w.scopes, "mail\0", 5);
	raw_close(&w);
	found(f, "web:db", "mail:tls", NULL);
	accept(f, 2);
	assert_int_equal(storefix_get(f, "web", "db", "b", 0, v), CSM_ENOT_FOUND);
	/* an empty one leaves nothing that could be named */
	storefix_close(f);
	raw_open(f, &w);
	raw_del(&w, w.scopes, "web\0empty", 9);
	raw_close(&w);
	found(f, "root", NULL, NULL);
	accept(f, 0);
}

static void test_foreign_rows(void **state)
{
	struct storefix *f = *state;
	struct rawstore w;

	storefix_close(f);
	raw_open(f, &w);
	raw_put(&w, w.secrets, "web\0db\0", 7, "x", 1);
	raw_put(&w, w.secrets, "junk", 4, "x", 1);
	raw_put(&w, w.keys, "also\0jun\0k", 10, "x", 1);
	raw_put(&w, w.scopes, "a\0b\0c", 5, "x", 1);
	raw_close(&w);
	found(f, "web:db", "root", NULL);
	accept(f, 1);
}

static void test_pins_changed(void **state)
{
	struct storefix *f = *state;
	struct csm_store_op op = {
		.kind = CSM_OP_REMEMBER, .name = CSM_STR("tpm.srk"), .payload = {(const uint8_t *)"pin", 3}};
	struct rawstore w;
	uint8_t v[4] = {1};
	size_t n = sizeof(v);

	assert_int_equal(storefix_do(f, &op), 0);
	storefix_close(f);
	raw_open(f, &w);
	raw_put(&w, w.meta, "pin:tpm.srk", 11, "pun", 3);
	raw_close(&w);
	found(f, "root", NULL, NULL);
	storefix_close(f);
	raw_open(f, &w);
	raw_del(&w, w.meta, "pin:tpm.srk", 11);
	raw_close(&w);
	found(f, "root", NULL, NULL);
	storefix_close(f);
	raw_open(f, &w);
	raw_put(&w, w.meta, "pin:tpm.srk", 11, "pin", 3);
	raw_put(&w, w.meta, "pin:more", 8, "pin", 3);
	raw_close(&w);
	found(f, "root", NULL, NULL);
	/* what is remembered meanwhile is kept in memory, and durable with the accepting */
	assert_int_equal(csm_store_remember_now(f->s, "late", v, sizeof(v)), 0);
	assert_int_equal(storefix_do(f, &(struct csm_store_op){.kind = CSM_OP_ACCEPT}), 0);
	storefix_close(f);
	assert_int_equal(storefix_open(f), 0);
	assert_false(csm_store_locked(f->s));
	assert_int_equal(csm_store_recall(f->s, "late", v, &n), 0);
}

static void test_root_record(void **state)
{
	struct storefix *f = *state;
	struct csm_store_stat st;
	struct rawstore w;
	uint8_t *v;
	size_t n;

	storefix_close(f);
	raw_open(f, &w);
	v = raw_get(&w, w.meta, "root", 4, &n);
	raw_close(&w);
	assert_int_equal(storefix_open(f), 0);
	assert_int_equal(storefix_domain(f, "web", "more"), 0);
	storefix_close(f);
	raw_open(f, &w);
	raw_put(&w, w.meta, "root", 4, v, n); /* an older one */
	raw_close(&w);
	found(f, "root", NULL, NULL);
	storefix_close(f);
	raw_open(f, &w);
	v[100] ^= 1;
	raw_put(&w, w.meta, "root", 4, v, n);
	raw_close(&w);
	found(f, "root", NULL, NULL);
	storefix_close(f);
	raw_open(f, &w);
	raw_del(&w, w.meta, "root", 4);
	raw_close(&w);
	found(f, "root", NULL, NULL);
	accept(f, 0);
	csm_store_stat(f->s, &st); /* counted anew */
	assert_int_equal(st.domains, 4);
	assert_int_equal(st.keys, 2);
	assert_int_equal(st.secrets, 4);
	free(v);
}

/* The whole store as it was: every seal and hash is right, the counter tells. */
static void test_whole_older_store(void **state)
{
	struct csm_store_op del = {
		.kind = CSM_OP_SECRET_DELETE, .ns = CSM_STR("web"), .name = CSM_STR("db"), .secret = CSM_STR("a")};
	struct storefix *f = *state;
	char v[256];

	storefix_close(f);
	store_copy(f, "store/data.mdb", "older.mdb");
	assert_int_equal(storefix_open(f), 0);
	assert_int_equal(storefix_do(f, &del), 0);
	storefix_close(f);
	store_copy(f, "older.mdb", "store/data.mdb");
	found(f, "root", NULL, NULL);
	accept(f, 0);
	assert_int_equal(storefix_get(f, "web", "db", "a", 0, v), 0); /* the administrator said so */
	/* and without a counter it cannot be told: that is what the counter is for */
	storefix_close(f);
	f->with_counter = false;
	store_copy(f, "older.mdb", "store/data.mdb");
	assert_int_equal(storefix_open(f), 0);
	assert_false(csm_store_locked(f->s));
}

/* A counter that fails leaves the store locked, and accepting can be tried again. */
static void test_accept_without_counter(void **state)
{
	struct storefix *f = *state;
	struct csm_store_op op = {.kind = CSM_OP_ACCEPT};
	struct rawstore w;
	uint8_t k[511];

	storefix_close(f);
	raw_open(f, &w);
	raw_del(&w, w.secrets, SECRET("a", 1));
	raw_close(&w);
	found(f, "web:db", NULL, NULL);
	f->counter_fails = true;
	assert_int_equal(storefix_do(f, &op), CSM_EUNAVAILABLE);
	assert_true(csm_store_locked(f->s));
	f->counter_fails = false;
	assert_int_equal(storefix_do(f, &op), 0);
	assert_false(csm_store_locked(f->s));
}

/* Move the places where LMDB's branches part the secrets of web:db, so that a search for the first rows behind one
 * ends before them. Pages as in lmdb's mdb.c: number (8), pad (2), flags (2), lower, upper, offsets of nodes; a node:
 * page (6), size of key (2), key. */
static size_t branches_bend(struct storefix *f)
{
	static uint8_t page[4096];
	char path[128];
	size_t bent = 0;
	FILE *file;

	snprintf(path, sizeof(path), "%s/store/data.mdb", f->dir);
	file = fopen(path, "r+b");
	assert_non_null(file);
	for (long at = 0; fread(page, 1, sizeof(page), file) == sizeof(page); at += (long)sizeof(page)) {
		uint16_t flags, lower, off, ksize;

		memcpy(&flags, page + 10, 2);
		memcpy(&lower, page + 12, 2);
		if (flags != 1 || lower < 18 || lower > sizeof(page))
			continue;
		for (size_t i = 18; i + 2 <= lower; i += 2) { /* the first node has no key */
			memcpy(&off, page + i, 2);
			memcpy(&ksize, page + off + 6, 2);
			if (ksize != 7 + 5 + 8 || memcmp(page + off + 8, "web\0db\0n", 8) != 0)
				continue;
			page[off + 8 + 10] = '~'; /* n01... becomes n01~ */
			bent++;
		}
		assert_int_equal(fseek(file, at, SEEK_SET), 0);
		assert_int_equal(fwrite(page, 1, sizeof(page), file), sizeof(page));
		assert_int_equal(fseek(file, at + (long)sizeof(page), SEEK_SET), 0);
	}
	assert_int_equal(fclose(file), 0);
	return bent;
}

/* All rows stand where they stood, and all sums are right, but some are not found any more: as if taken out. */
static void test_branches(void **state)
{
	struct storefix *f = *state;
	char name[16], v[256];

	for (int i = 0; i < 90; i++) {
		snprintf(name, sizeof(name), "n%03d", i);
		assert_int_equal(storefix_set(f, "web", "db", name, "a value that takes some room of its page"), 0);
	}
	storefix_close(f);
	assert_true(branches_bend(f) > 0);
	found(f, "root", NULL, NULL);
	accept(f, 0);
	for (int i = 0; i < 90; i++) {
		snprintf(name, sizeof(name), "n%03d", i);
		assert_int_equal(storefix_get(f, "web", "db", name, 0, v), 0);
	}
}

/* A record of a request is no one's but the store's to make. */
static void test_request_record(void **state)
{
	struct storefix *f = *state;
	struct csm_store_op op = {.kind = CSM_OP_DOMAIN_CREATE,
		.ns = CSM_STR("web"),
		.name = CSM_STR("r"),
		.rid = {.who = CSM_STR("uid-1"), .id = CSM_STR("first"), .hash = {1}}};
	struct rawstore w;
	MDB_cursor *cur;
	MDB_val k, v;
	uint8_t *copy, key[33];
	size_t n;

	assert_int_equal(storefix_do(f, &op), 0);
	storefix_close(f);
	raw_open(f, &w);
	assert_int_equal(mdb_cursor_open(w.txn, w.requests, &cur), 0);
	assert_int_equal(mdb_cursor_get(cur, &k, &v, MDB_FIRST), 0);
	assert_int_equal(k.mv_size, sizeof(key));
	assert_int_equal(v.mv_size, 64 + 32 + 16);
	memcpy(key, k.mv_data, sizeof(key));
	mdb_cursor_close(cur);
	copy = raw_get(&w, w.requests, key, sizeof(key), &n);
	copy[64] ^= 1; /* the hash of another request */
	raw_put(&w, w.requests, key, sizeof(key), copy, n);
	raw_close(&w);
	free(copy);
	assert_int_equal(storefix_open(f), 0);
	assert_int_equal(storefix_do(f, &op), CSM_ETAMPERED);
	assert_false(op.replayed);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_untouched),
		T(test_older_copy),
		T(test_put_back),
		T(test_removed),
		T(test_swapped),
		T(test_swapped_versions),
		T(test_another_domains_record),
		T(test_bits),
		T(test_key_records),
		T(test_scope_records),
		T(test_scope_removed),
		T(test_foreign_rows),
		T(test_pins_changed),
		T(test_root_record),
		T(test_branches),
		T(test_whole_older_store),
		T(test_accept_without_counter),
		T(test_request_record),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
