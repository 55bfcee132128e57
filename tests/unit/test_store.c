/* The store: what it keeps, what it refuses, and that it survives. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "proto-spec/limits.h"
#include "tests/lib/storefix.h"

static int setup(void **state)
{
	static struct storefix f;

	storefix_init(&f);
	*state = &f;
	return storefix_open(&f);
}

static int teardown(void **state)
{
	storefix_free(*state);
	return 0;
}

static void test_set_get(void **state)
{
	struct storefix *f = *state;
	char v[256];

	assert_int_equal(storefix_set(f, "web", "db", "pw", "one"), CSM_ENOT_FOUND);
	assert_int_equal(storefix_domain(f, "web", "db"), 0);
	assert_int_equal(storefix_domain(f, "web", "db"), CSM_EEXISTS);
	assert_int_equal(storefix_get(f, "web", "db", "pw", 0, v), CSM_ENOT_FOUND);
	assert_int_equal(storefix_set(f, "web", "db", "pw", "one"), 0);
	assert_int_equal(storefix_set(f, "web", "db", "pw", "two"), 0);
	assert_int_equal(storefix_get(f, "web", "db", "pw", 0, v), 0);
	assert_string_equal(v, "two");
	assert_int_equal(storefix_get(f, "web", "db", "pw", 1, v), 0);
	assert_string_equal(v, "one");
	assert_int_equal(storefix_get(f, "web", "db", "pw", 3, v), CSM_ENOT_FOUND);
	storefix_close(f);
	assert_int_equal(storefix_open(f), 0);
	assert_false(csm_store_locked(f->s));
	assert_int_equal(storefix_get(f, "web", "db", "pw", 0, v), 0);
	assert_string_equal(v, "two");
}


static void test_refusals(void **state)
{
	struct storefix f2 = *(struct storefix *)*state, *f = *state;
	struct csm_store_options opt;
	struct csm_store *s = NULL;
	struct csm_key_record rec;
	struct csm_buf buf;
	uint8_t *big = calloc(1, CSM_MESSAGE_MAX + 1);
	struct csm_store_op op = {.kind = CSM_OP_SECRET_SET, .ns = CSM_STR("web"), .name = CSM_STR("db"),
		.secret = CSM_STR("pw"), .payload = {big, CSM_MESSAGE_MAX + 1}};

	assert_non_null(big);
	assert_int_equal(storefix_domain(f, "web", "db"), 0);
	assert_int_equal(storefix_do(f, &op), CSM_ETOO_LARGE);
	op.payload.n = 1;
	op.secret = CSM_STR("p\0w");
	assert_int_equal(storefix_do(f, &op), CSM_EINVALID);
	op.secret = CSM_STR("");
	assert_int_equal(storefix_do(f, &op), CSM_EINVALID);
	op.kind = (enum csm_op_kind)99;
	assert_int_equal(storefix_do(f, &op), CSM_EINVALID);
	assert_int_equal(storefix_domain(f, "", "db"), CSM_EINVALID);
	assert_int_equal(storefix_domain(f, "web", ""), CSM_EINVALID);
	assert_int_equal(storefix_key(f, "web", "", "p"), CSM_EINVALID);
	free(big);

	csm_buf_init(&buf, 4096, true);
	assert_int_equal(csm_store_key_get(f->r, CSM_STR("web"), CSM_STR("k"), false, &buf, &rec), CSM_ESTATE);
	assert_int_equal(csm_reader_begin(f->r), 0);
	assert_int_equal(csm_reader_begin(f->r), CSM_ESTATE);
	assert_int_equal(csm_store_key_get(f->r, CSM_STR("web"), CSM_STR("k"), false, &buf, &rec), CSM_ENOT_FOUND);
	assert_int_equal(csm_store_key_get(f->r, CSM_STR("web"), CSM_STR(""), false, &buf, &rec), CSM_ENOT_FOUND);
	csm_reader_end(f->r);
	assert_int_equal(csm_store_start(f->s), CSM_ESTATE);

	opt = f->opt;
	opt.dir = "relative";
	assert_int_equal(csm_store_open(&opt, &s), CSM_EINVALID);
	opt = f->opt;
	opt.map_size = 1000;
	assert_int_equal(csm_store_open(&opt, &s), CSM_EINVALID);
	/* a second opener, also in another process, is refused */
	assert_int_equal(storefix_open(&f2), CSM_EBUSY);
	assert_true(strlen(f2.why) > 0);
	assert_null(s);
}

static void test_modes_of_files(void **state)
{
	struct storefix *f = *state;
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "%s/store", f->dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	snprintf(path, sizeof(path), "%s/store/data.mdb", f->dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	snprintf(path, sizeof(path), "%s/store/lock.mdb", f->dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static void test_versions(void **state)
{
	struct storefix *f = *state;
	struct csm_store_op op = {.kind = CSM_OP_SECRET_SET, .ns = CSM_STR("web"), .name = CSM_STR("db"),
		.secret = CSM_STR("pw"), .payload = {(const uint8_t *)"x", 1}, .has_expect = true};
	char v[256], want[32];
	struct csm_store_stat st;

	assert_int_equal(storefix_domain(f, "web", "db"), 0);
	op.expect = 1;
	assert_int_equal(storefix_do(f, &op), CSM_ECONFLICT);
	op.expect = 0;
	assert_int_equal(storefix_do(f, &op), 0);
	assert_int_equal(op.version, 1);
	assert_int_equal(storefix_do(f, &op), CSM_ECONFLICT);
	for (int i = 2; i <= 13; i++) {
		snprintf(want, sizeof(want), "value %d", i);
		assert_int_equal(storefix_set(f, "web", "db", "pw", want), 0);
	}
	for (int i = 1; i <= 13; i++) {
		bool kept = i > 13 - (int)CSM_SECRET_VERSIONS_KEPT;

		snprintf(want, sizeof(want), "value %d", i);
		assert_int_equal(storefix_get(f, "web", "db", "pw", (uint64_t)i, v), kept ? 0 : CSM_ENOT_FOUND);
		if (kept)
			assert_string_equal(v, want);
	}
	/* a name that only starts alike is another */
	assert_int_equal(storefix_set(f, "web", "db", "pw2", "other"), 0);
	assert_int_equal(storefix_get(f, "web", "db", "pw", 0, v), 0);
	assert_string_equal(v, "value 13");
	csm_store_stat(f->s, &st);
	assert_int_equal(st.secrets, 2);
	op.kind = CSM_OP_SECRET_DELETE;
	assert_int_equal(storefix_do(f, &op), 0);
	assert_int_equal(storefix_do(f, &op), CSM_ENOT_FOUND);
	assert_int_equal(storefix_get(f, "web", "db", "pw", 0, v), CSM_ENOT_FOUND);
	assert_int_equal(storefix_get(f, "web", "db", "pw", 13, v), CSM_ENOT_FOUND);
	assert_int_equal(storefix_get(f, "web", "db", "pw2", 0, v), 0);
	csm_store_stat(f->s, &st);
	assert_int_equal(st.secrets, 1);
	storefix_close(f);
	assert_int_equal(storefix_open(f), 0); /* the set hash followed all of this */
	assert_false(csm_store_locked(f->s));
}

static void key_get(struct storefix *f, const char *ns, const char *name, int want, const char *priv,
	struct csm_key_record *rec)
{
	struct csm_buf buf;

	csm_buf_init(&buf, 65536, true);
	assert_int_equal(csm_reader_begin(f->r), 0);
	assert_int_equal(csm_store_key_get(f->r, csm_str_of(ns), csm_str_of(name), priv != NULL, &buf, rec), want);
	if (want == 0) {
		assert_true(csm_str_eq(rec->backend, "soft"));
		assert_true(csm_str_eq(rec->protection, "sealed"));
		assert_int_equal(rec->alg, CSM_ALG_P256);
		assert_int_equal(rec->use, CSM_USE_SIGN);
		assert_false(rec->exportable);
		assert_true(rec->created > 1600000000);
		assert_int_equal(rec->spki.n, 8);
		assert_memory_equal(rec->spki.p, "the spki", 8);
		assert_memory_equal(rec->pub.p, "the pub", 7);
	}
	if (want == 0 && priv != NULL) {
		assert_int_equal(rec->priv.n, strlen(priv));
		assert_memory_equal(rec->priv.p, priv, strlen(priv));
	}
	csm_reader_end(f->r);
	csm_buf_free(&buf);
}

static void test_keys(void **state)
{
	struct storefix *f = *state;
	struct csm_key_record rec, again;
	struct csm_count count = {.add = 5};
	struct csm_store_op del = {.kind = CSM_OP_KEY_DELETE, .ns = CSM_STR("web"), .name = CSM_STR("tls")};
	struct csm_store_op counts = {.kind = CSM_OP_COUNTS, .counts = &count, .n_counts = 1};
	struct csm_store_stat st;

	assert_int_equal(storefix_key(f, "web", "tls", "private"), 0);
	assert_int_equal(storefix_key(f, "web", "tls", "another"), CSM_EEXISTS);
	assert_int_equal(storefix_key(f, "web", "empty", ""), 0);
	key_get(f, "web", "tls", 0, "private", &rec);
	key_get(f, "web", "empty", 0, "", &rec);
	key_get(f, "web", "tls", 0, NULL, &rec);
	assert_null(rec.priv.p);
	key_get(f, "web2", "tls", CSM_ENOT_FOUND, NULL, &rec);
	memcpy(count.id, rec.id, sizeof(count.id));
	assert_int_equal(storefix_do(f, &counts), 0);
	assert_int_equal(storefix_do(f, &counts), 0);
	key_get(f, "web", "tls", 0, NULL, &rec);
	assert_int_equal(rec.signatures, 10);
	csm_store_stat(f->s, &st);
	assert_int_equal(st.keys, 2);

	assert_int_equal(storefix_do(f, &del), 0);
	assert_int_equal(storefix_do(f, &del), CSM_ENOT_FOUND);
	assert_int_equal(storefix_do(f, &counts), 0); /* late counts of a key that went */
	assert_int_equal(storefix_key(f, "web", "tls", "new"), 0);
	key_get(f, "web", "tls", 0, "new", &again);
	assert_int_equal(again.signatures, 0);
	assert_memory_not_equal(again.id, rec.id, sizeof(rec.id));
	storefix_close(f);
	assert_int_equal(storefix_open(f), 0);
	assert_false(csm_store_locked(f->s));
	key_get(f, "web", "tls", 0, "new", &again);
}

struct listed {
	char text[2048];
	size_t n, max;
};
static bool list_put(struct listed *l, struct csm_str name)
{
	size_t at = strlen(l->text);

	snprintf(l->text + at, sizeof(l->text) - at, "%.*s,", (int)name.n, name.p);
	return ++l->n < l->max;
}
static bool list_key(void *arg, struct csm_str name, const struct csm_key_record *rec)
{
	assert_true(csm_str_eq(rec->backend, "soft"));
	return list_put(arg, name);
}
static bool list_domain(void *arg, struct csm_str name, const struct csm_domain_info *info)
{
	assert_true(info->created > 0);
	return list_put(arg, name);
}
static bool list_secret(void *arg, struct csm_str name, uint64_t version, uint64_t created)
{
	assert_true(created > 0);
	assert_int_equal(version, csm_str_eq(name, "two") ? 2 : 1);
	return list_put(arg, name);
}

enum what { KEYS, DOMAINS, SECRETS };
static const char *list(struct storefix *f, enum what what, const char *ns, const char *domain, const char *after,
	size_t max, int want)
{
	static struct listed l;
	int r;

	l = (struct listed){.max = max};
	assert_int_equal(csm_reader_begin(f->r), 0);
	if (what == KEYS)
		r = csm_store_key_list(f->r, csm_str_of(ns), csm_str_of(after), list_key, &l);
	else if (what == DOMAINS)
		r = csm_store_domain_list(f->r, csm_str_of(ns), csm_str_of(after), list_domain, &l);
	else
		r = csm_store_secret_list(f->r, csm_str_of(ns), csm_str_of(domain), csm_str_of(after), list_secret, &l);
	csm_reader_end(f->r);
	assert_int_equal(r, want);
	return l.text;
}

static void test_lists(void **state)
{
	struct storefix *f = *state;
	static const char *const names[] = {"b", "a", "ab", "a.b", "c"};

	for (size_t i = 0; i < 5; i++) {
		assert_int_equal(storefix_key(f, "web", names[i], "p"), 0);
		assert_int_equal(storefix_domain(f, "web", names[i]), 0);
	}
	assert_int_equal(storefix_key(f, "we", "z", "p"), 0);
	assert_int_equal(storefix_key(f, "web2", "0", "p"), 0);
	assert_int_equal(storefix_domain(f, "web2", "0"), 0);
	for (size_t i = 0; i < 5; i++)
		assert_int_equal(storefix_set(f, "web", "a", names[i], "v"), 0);
	assert_int_equal(storefix_set(f, "web", "a", "two", "v"), 0);
	assert_int_equal(storefix_set(f, "web", "a", "two", "v"), 0);
	assert_int_equal(storefix_set(f, "web", "ab", "elsewhere", "v"), 0);

	assert_string_equal(list(f, KEYS, "web", NULL, "", 100, 0), "a,a.b,ab,b,c,");
	assert_string_equal(list(f, KEYS, "web", NULL, "", 2, 0), "a,a.b,");
	assert_string_equal(list(f, KEYS, "web", NULL, "a.b", 2, 0), "ab,b,");
	assert_string_equal(list(f, KEYS, "web", NULL, "aa", 100, 0), "ab,b,c,"); /* a name that is not there */
	assert_string_equal(list(f, KEYS, "web", NULL, "c", 100, 0), "");
	assert_string_equal(list(f, KEYS, "none", NULL, "", 100, 0), "");
	assert_string_equal(list(f, DOMAINS, "web", NULL, "", 100, 0), "a,a.b,ab,b,c,");
	assert_string_equal(list(f, DOMAINS, "web", NULL, "a", 2, 0), "a.b,ab,");
	assert_string_equal(list(f, DOMAINS, "web", NULL, "c", 100, 0), "");
	assert_string_equal(list(f, DOMAINS, "we", NULL, "", 100, 0), ""); /* keys only: no domain of no name */
	assert_string_equal(list(f, SECRETS, "web", "a", "", 100, 0), "a,a.b,ab,b,c,two,");
	assert_string_equal(list(f, SECRETS, "web", "a", "a", 3, 0), "a.b,ab,b,");
	assert_string_equal(list(f, SECRETS, "web", "a", "two", 100, 0), "");
	assert_string_equal(list(f, SECRETS, "web", "b", "", 100, 0), "");
	assert_string_equal(list(f, SECRETS, "web", "none", "", 100, CSM_ENOT_FOUND), "");
}

static void test_domains(void **state)
{
	struct storefix *f = *state;
	struct csm_store_op del = {.kind = CSM_OP_DOMAIN_DELETE, .ns = CSM_STR("web"), .name = CSM_STR("db")};
	struct csm_domain_info info;
	struct csm_store_stat st;
	char v[256];

	assert_int_equal(storefix_domain(f, "web", "db"), 0);
	assert_int_equal(storefix_domain(f, "web", "db2"), 0);
	assert_int_equal(storefix_set(f, "web", "db", "a", "1"), 0);
	assert_int_equal(storefix_set(f, "web", "db", "b", "2"), 0);
	assert_int_equal(storefix_set(f, "web", "db2", "a", "3"), 0);
	assert_int_equal(storefix_get(f, "web", "db", "a", 0, v), 0);
	assert_int_equal(csm_reader_begin(f->r), 0);
	assert_int_equal(csm_store_domain_get(f->r, CSM_STR("web"), CSM_STR("db"), &info), 0);
	assert_int_equal(info.secrets, 2);
	assert_int_equal(csm_store_domain_get(f->r, CSM_STR("web"), CSM_STR("d"), &info), CSM_ENOT_FOUND);
	assert_int_equal(csm_store_domain_get(f->r, CSM_STR("web"), CSM_STR(""), &info), CSM_EINVALID);
	csm_reader_end(f->r);
	assert_int_equal(storefix_do(f, &del), 0);
	assert_int_equal(storefix_do(f, &del), CSM_ENOT_FOUND);
	assert_int_equal(storefix_get(f, "web", "db", "a", 0, v), CSM_ENOT_FOUND);
	assert_int_equal(storefix_get(f, "web", "db2", "a", 0, v), 0);
	csm_store_stat(f->s, &st);
	assert_int_equal(st.domains, 1);
	assert_int_equal(st.secrets, 1);
	/* made anew it is empty, and has another key */
	assert_int_equal(storefix_domain(f, "web", "db"), 0);
	assert_int_equal(storefix_get(f, "web", "db", "b", 0, v), CSM_ENOT_FOUND);
	assert_int_equal(storefix_set(f, "web", "db", "a", "new"), 0);
	assert_int_equal(storefix_get(f, "web", "db", "a", 0, v), 0);
	assert_string_equal(v, "new");
	storefix_close(f);
	assert_int_equal(storefix_open(f), 0);
	assert_false(csm_store_locked(f->s));
}

static int seal(struct storefix *f, bool open, const char *ns, const char *context, struct csm_buf *in, struct csm_buf *out)
{
	const struct csm_bin c = {(const uint8_t *)context, strlen(context)}, i = {csm_buf_ptr(in), in->len};
	int r;

	csm_buf_reset(out);
	assert_int_equal(csm_reader_begin(f->r), 0);
	r = open ? csm_store_unseal(f->r, csm_str_of(ns), c, i, out) : csm_store_seal(f->r, csm_str_of(ns), c, i, out);
	csm_reader_end(f->r);
	return r;
}

static void test_seal(void **state)
{
	struct storefix *f = *state;
	struct csm_store_op op = {.kind = CSM_OP_NAMESPACE, .ns = CSM_STR("web")};
	struct csm_buf plain, sealed, out;

	csm_buf_init(&plain, 65536, true);
	csm_buf_init(&sealed, 65536 + 512, false);
	csm_buf_init(&out, 65536, true);
	assert_int_equal(csm_buf_put(&plain, "to seal", 7), 0);
	assert_int_equal(seal(f, false, "web", "c", &plain, &sealed), CSM_ENOT_FOUND);
	assert_int_equal(storefix_do(f, &op), 0);
	assert_int_equal(storefix_do(f, &op), 0); /* again: nothing to do */
	op.ns = CSM_STR("other");
	assert_int_equal(storefix_do(f, &op), 0);
	assert_int_equal(seal(f, false, "web", "c", &plain, &sealed), 0);
	assert_int_equal(sealed.len, 7 + 80);
	assert_int_equal(seal(f, true, "web", "c", &sealed, &out), 0);
	assert_int_equal(out.len, 7);
	assert_memory_equal(csm_buf_ptr(&out), "to seal", 7);
	assert_int_equal(seal(f, true, "web", "d", &sealed, &out), CSM_EINVALID);
	assert_int_equal(seal(f, true, "web", "", &sealed, &out), CSM_EINVALID);
	assert_int_equal(seal(f, true, "other", "c", &sealed, &out), CSM_EINVALID);
	assert_int_equal(seal(f, true, "none", "c", &sealed, &out), CSM_EINVALID);
	for (size_t i = 0; i < sealed.len; i++) {
		sealed.p[sealed.off + i] ^= 0x10;
		assert_int_equal(seal(f, true, "web", "c", &sealed, &out), CSM_EINVALID);
		sealed.p[sealed.off + i] ^= 0x10;
	}
	storefix_close(f);
	f->opt.no_sodium = true; /* the other library opens it */
	assert_int_equal(storefix_open(f), 0);
	assert_int_equal(seal(f, true, "web", "c", &sealed, &out), 0);
	csm_buf_consume(&sealed, 1);
	assert_int_equal(seal(f, true, "web", "c", &sealed, &out), CSM_EINVALID);
	csm_buf_reset(&sealed);
	assert_int_equal(seal(f, true, "web", "c", &sealed, &out), CSM_EINVALID);
	csm_buf_free(&plain);
	csm_buf_free(&sealed);
	csm_buf_free(&out);
}

static int replay(struct storefix *f, const struct csm_request_id *rid, char text[static 64])
{
	struct csm_buf out;
	int r;

	csm_buf_init(&out, 4096, false);
	assert_int_equal(csm_reader_begin(f->r), 0);
	r = csm_store_replay(f->r, rid, &out);
	csm_reader_end(f->r);
	if (r == 0) {
		assert_true(out.len < 64);
		memcpy(text, csm_buf_ptr(&out), out.len);
		text[out.len] = '\0';
	}
	csm_buf_free(&out);
	return r;
}

static void test_request_ids(void **state)
{
	struct storefix *f = *state;
	struct csm_store_op op = {.kind = CSM_OP_DOMAIN_CREATE, .ns = CSM_STR("web"), .name = CSM_STR("db"),
		.rid = {.who = CSM_STR("uid-1"), .id = CSM_STR("first"), .hash = {1}},
		.answer = {(const uint8_t *)"the answer", 10}};
	struct csm_store_op set = {.kind = CSM_OP_SECRET_SET, .ns = CSM_STR("web"), .name = CSM_STR("db"),
		.secret = CSM_STR("pw"), .payload = {(const uint8_t *)"x", 1},
		.rid = {.who = CSM_STR("uid-1"), .id = CSM_STR("second"), .hash = {2}}};
	struct csm_request_id rid = op.rid;
	char text[64];

	assert_int_equal(replay(f, &rid, text), CSM_ENOT_FOUND);
	assert_int_equal(storefix_do(f, &op), 0);
	assert_false(op.replayed);
	assert_int_equal(replay(f, &rid, text), 0);
	assert_string_equal(text, "the answer");
	assert_int_equal(storefix_do(f, &op), 0); /* not "exists" */
	assert_true(op.replayed);
	op.rid.hash[31] = 1;
	assert_int_equal(storefix_do(f, &op), CSM_ECONFLICT);
	assert_false(op.replayed);
	rid.hash[0] = 9;
	assert_int_equal(replay(f, &rid, text), CSM_ECONFLICT);
	/* another caller's ids are its own, however the two texts are split */
	op.rid = (struct csm_request_id){.who = CSM_STR("uid-2"), .id = CSM_STR("first"), .hash = {1}};
	assert_int_equal(storefix_do(f, &op), CSM_EEXISTS);
	rid = (struct csm_request_id){.who = CSM_STR("uid-1f"), .id = CSM_STR("irst"), .hash = {1}};
	assert_int_equal(replay(f, &rid, text), CSM_ENOT_FOUND);
	/* what was refused is not kept */
	assert_int_equal(replay(f, &op.rid, text), CSM_ENOT_FOUND);

	for (int i = 0; i < 3; i++) {
		assert_int_equal(storefix_do(f, &set), 0);
		assert_int_equal(set.version, 1);
		assert_int_equal(set.replayed, i > 0);
		set.version = 0;
	}
	assert_int_equal(replay(f, &set.rid, text), 0);
	assert_string_equal(text, "\x81\xa7version\x01");
	storefix_close(f);
	assert_int_equal(storefix_open(f), 0);
	assert_int_equal(storefix_do(f, &set), 0);
	assert_true(set.replayed);
	assert_int_equal(set.version, 1);
	set.rid.id = CSM_STR("third");
	assert_int_equal(storefix_do(f, &set), 0);
	assert_false(set.replayed);
	assert_int_equal(set.version, 2);
}

/* Records of requests go after a day, and only they. */
static void test_request_pruning(void **state)
{
	struct storefix *f = *state;
	struct csm_store_op op = {.kind = CSM_OP_DOMAIN_CREATE, .ns = CSM_STR("web"), .name = CSM_STR("db"),
		.rid = {.who = CSM_STR("uid-1"), .id = CSM_STR("first")}};
	uint8_t old[41] = {'t'}, record[33] = {'h', 1};
	struct rawstore w;
	MDB_stat st;

	assert_int_equal(storefix_do(f, &op), 0);
	storefix_close(f);
	raw_open(f, &w);
	old[9] = 1;                                              /* of the year 1970 */
	raw_put(&w, w.requests, old, sizeof(old), "", 0);        /* and its record */
	raw_put(&w, w.requests, record, sizeof(record), "x", 1);
	assert_int_equal(mdb_stat(w.txn, w.requests, &st), 0);
	assert_int_equal(st.ms_entries, 4);
	raw_close(&w);
	assert_int_equal(storefix_open(f), 0);
	assert_int_equal(storefix_domain(f, "web", "other"), 0); /* after the writer's first look */
	storefix_close(f);
	raw_open(f, &w);
	assert_int_equal(mdb_stat(w.txn, w.requests, &st), 0);
	assert_int_equal(st.ms_entries, 2);
	raw_close(&w);
	assert_int_equal(storefix_open(f), 0);
	assert_int_equal(storefix_do(f, &op), 0);
	assert_true(op.replayed);
}

static void test_pins(void **state)
{
	struct storefix *f = *state;
	struct csm_store_op op = {.kind = CSM_OP_REMEMBER, .name = CSM_STR("tpm.srk"),
		.payload = {(const uint8_t *)"pin two", 7}};
	struct csm_store *s;
	uint8_t v[16];
	size_t n = sizeof(v);

	assert_int_equal(csm_store_recall(f->s, "tpm.srk", v, &n), CSM_ENOT_FOUND);
	assert_int_equal(csm_store_remember_now(f->s, "x", v, 1), CSM_ESTATE); /* the writer runs */
	storefix_close(f);

	assert_int_equal(csm_store_env_open(&f->opt, &s), 0);
	assert_string_equal(csm_store_mode(s), "file");
	assert_int_equal(csm_store_start(s), CSM_ESTATE);
	assert_int_equal(csm_store_remember_now(s, "tpm.srk", (const uint8_t *)"pin", 3), 0);
	assert_int_equal(csm_store_remember_now(s, "tpm.srk", (const uint8_t *)"pin one", 7), 0);
	assert_int_equal(csm_store_recall(s, "tpm.srk", v, &n), 0);
	assert_int_equal(n, 7);
	assert_memory_equal(v, "pin one", 7);
	assert_int_equal(csm_store_root_open(s, &f->opt.root), 0);
	assert_int_equal(csm_store_remember_now(s, "other", (const uint8_t *)"o", 1), 0);
	csm_store_close(s);

	assert_int_equal(storefix_open(f), 0);
	assert_false(csm_store_locked(f->s));
	n = sizeof(v);
	assert_int_equal(csm_store_recall(f->s, "tpm.srk", v, &n), 0);
	assert_memory_equal(v, "pin one", 7);
	n = 6;
	assert_int_equal(csm_store_recall(f->s, "tpm.srk", v, &n), CSM_ETOO_LARGE);
	assert_int_equal(n, 6);
	assert_int_equal(storefix_do(f, &op), 0);
	op.name = CSM_STR("");
	assert_int_equal(storefix_do(f, &op), CSM_EINVALID);
	n = sizeof(v);
	assert_int_equal(csm_store_recall(f->s, "tpm.srk", v, &n), 0);
	assert_memory_equal(v, "pin two", 7);
	storefix_close(f);
	assert_int_equal(storefix_open(f), 0);
	assert_false(csm_store_locked(f->s));
}

static void test_root_key(void **state)
{
	struct storefix *f = *state;
	struct rawstore w;
	uint8_t *v, schema[13];
	size_t n;

	assert_int_equal(storefix_domain(f, "web", "db"), 0);
	storefix_close(f);
	f->opt.root.mode = "tpm";
	assert_int_equal(storefix_open(f), CSM_EINVALID);
	assert_non_null(strstr(f->why, "root_key: file"));
	f->opt.root.mode = "file";
	f->unwrap_fails = true;
	assert_int_equal(storefix_open(f), CSM_EUNAVAILABLE);
	f->unwrap_fails = false;

	raw_open(f, &w);
	v = raw_get(&w, w.meta, "rootkey", 7, &n);
	assert_int_equal(n, 1 + 4 + 2 + 32 + 16);
	v[10] ^= 1; /* another key comes out */
	raw_put(&w, w.meta, "rootkey", 7, v, n);
	raw_close(&w);
	assert_int_equal(storefix_open(f), CSM_EINVALID);
	assert_non_null(strstr(f->why, "not the root key"));
	v[10] ^= 1;
	raw_open(f, &w);
	raw_put(&w, w.meta, "rootkey", 7, v, n - 1);
	raw_close(&w);
	assert_int_equal(storefix_open(f), CSM_ETAMPERED);
	raw_open(f, &w);
	raw_del(&w, w.meta, "rootkey", 7);
	raw_close(&w);
	assert_int_equal(storefix_open(f), CSM_ETAMPERED);
	raw_open(f, &w);
	raw_put(&w, w.meta, "rootkey", 7, v, n);
	memcpy(schema, "csm store\0\0\0\2", 13);
	raw_put(&w, w.meta, "schema", 6, schema, 13);
	raw_close(&w);
	assert_int_equal(storefix_open(f), CSM_EUNSUPPORTED);
	assert_non_null(strstr(f->why, "schema 2"));
	raw_open(f, &w);
	raw_del(&w, w.meta, "schema", 6);
	raw_close(&w);
	assert_int_equal(storefix_open(f), CSM_ETAMPERED);
	raw_open(f, &w);
	schema[12] = 1;
	raw_put(&w, w.meta, "schema", 6, schema, 13);
	raw_close(&w);
	free(v);
	assert_int_equal(storefix_open(f), 0);
	assert_int_equal(storefix_domain(f, "web", "db"), CSM_EEXISTS);
}

static int outside_key(void *arg, const uint8_t *wrapped, size_t n, uint8_t key[static 32])
{
	(void)wrapped;
	assert_int_equal(n, 0);
	memset(key, *(int *)arg, 32);
	return 0;
}

/* A root key that is kept outside of the store. */
static void test_root_key_outside(void **state)
{
	int k = 5;
	struct storefix f;
	struct csm_store *s;

	(void)state;
	storefix_init(&f);
	f.opt.root = (struct csm_root_source){.mode = "file", .arg = &k, .unwrap = outside_key};
	assert_int_equal(csm_store_env_open(&f.opt, &s), 0);
	assert_null(csm_store_mode(s));
	csm_store_close(s); /* left before the root key came: still a new store */
	for (int i = 0; i < 2; i++) {
		assert_int_equal(csm_store_open(&f.opt, &s), 0);
		assert_false(csm_store_locked(s));
		csm_store_close(s);
	}
	k = 6;
	assert_int_equal(csm_store_open(&f.opt, &s), CSM_EINVALID);
	storefix_free(&f);
}

static void test_epoch(void **state)
{
	struct csm_store_op op = {.kind = CSM_OP_EPOCH};
	struct csm_store_op del = {.kind = CSM_OP_DOMAIN_DELETE, .ns = CSM_STR("web"), .name = CSM_STR("db")};
	struct csm_store_stat st;
	struct storefix f;
	uint64_t at;

	(void)state;
	storefix_init(&f);
	f.with_counter = true;
	f.counter = 41;
	f.opt.epoch_interval_s = 0;
	assert_int_equal(storefix_open(&f), 0);
	csm_store_stat(f.s, &st);
	assert_int_equal(st.epoch, 42);
	assert_int_equal(f.counter, 42);
	assert_int_equal(storefix_do(&f, &op), 0);
	assert_int_equal(f.counter, 43);
	assert_int_equal(storefix_domain(&f, "web", "db"), 0);
	assert_int_equal(f.counter, 43);
	assert_int_equal(storefix_do(&f, &del), 0); /* a deletion raises it, soon after */
	assert_int_equal(storefix_domain(&f, "web", "db"), 0);
	assert_int_equal(f.counter, 44);
	f.counter_fails = true;
	assert_int_equal(storefix_do(&f, &op), CSM_EUNAVAILABLE); /* committed; the counter follows later */
	assert_int_equal(storefix_do(&f, &op), CSM_EUNAVAILABLE); /* and not more than one ahead */
	csm_store_stat(f.s, &st);
	assert_int_equal(st.epoch, 45);
	storefix_close(&f);
	assert_int_equal(f.counter, 44);
	assert_int_equal(storefix_open(&f), CSM_EUNAVAILABLE);
	f.counter_fails = false;
	assert_int_equal(storefix_open(&f), 0);
	assert_false(csm_store_locked(f.s));
	assert_int_equal(f.counter, 46);
	at = f.counter;
	storefix_close(&f);
	assert_int_equal(f.counter, at + 1); /* a clean stop */
	f.with_counter = false; /* no counter at hand: served, and the epoch stays */
	assert_int_equal(storefix_open(&f), 0);
	assert_false(csm_store_locked(f.s));
	storefix_close(&f);
	f.with_counter = true;
	assert_int_equal(storefix_open(&f), 0);
	assert_false(csm_store_locked(f.s));
	storefix_close(&f);
	f.counter += 5; /* the store is older than the counter */
	assert_int_equal(storefix_open(&f), 0);
	assert_true(csm_store_locked(f.s));
	assert_true(storefix_damaged(&f, "root"));
	storefix_free(&f);
}

static void test_epoch_interval(void **state)
{
	struct csm_store_op del = {.kind = CSM_OP_SECRET_DELETE, .ns = CSM_STR("web"), .name = CSM_STR("db"),
		.secret = CSM_STR("pw")};
	struct storefix f;
	uint64_t at;

	(void)state;
	storefix_init(&f);
	f.with_counter = true;
	f.opt.epoch_interval_s = 3600;
	assert_int_equal(storefix_open(&f), 0);
	at = f.counter;
	assert_int_equal(storefix_domain(&f, "web", "db"), 0);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(storefix_set(&f, "web", "db", "pw", "x"), 0);
		assert_int_equal(storefix_do(&f, &del), 0);
	}
	assert_int_equal(f.counter, at);
	storefix_free(&f);
}

/* ---- groups ---- */

struct batch {
	pthread_mutex_t mu;
	pthread_cond_t cond;
	size_t left;
};
static void batch_done(struct csm_store_op *op)
{
	struct batch *b = op->arg;

	pthread_mutex_lock(&b->mu);
	b->left--;
	pthread_cond_signal(&b->cond);
	pthread_mutex_unlock(&b->mu);
}
static void batch_wait(struct batch *b)
{
	pthread_mutex_lock(&b->mu);
	while (b->left > 0)
		pthread_cond_wait(&b->cond, &b->mu);
	pthread_mutex_unlock(&b->mu);
}

/* Queued before the writer starts, so that they are one group: what cannot be done fails alone. */
static void test_group(void **state)
{
	struct batch b = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 9};
	const struct csm_bin x = {(const uint8_t *)"x", 1};
	struct csm_store_op ops[9] = {
		{.kind = CSM_OP_DOMAIN_CREATE, .ns = CSM_STR("web"), .name = CSM_STR("db")},
		{.kind = CSM_OP_SECRET_SET, .secret = CSM_STR("a"), .payload = x},
		{.kind = CSM_OP_DOMAIN_CREATE},
		{.kind = CSM_OP_SECRET_SET, .secret = CSM_STR("a"), .payload = x, .has_expect = true, .expect = 7},
		{.kind = CSM_OP_SECRET_SET, .secret = CSM_STR("a"), .payload = x, .has_expect = true, .expect = 1},
		{.kind = CSM_OP_SECRET_DELETE, .secret = CSM_STR("none")},
		{.kind = CSM_OP_SECRET_SET, .secret = CSM_STR("b"), .payload = x},
		{.kind = CSM_OP_SECRET_DELETE, .secret = CSM_STR("b")},
		{.kind = CSM_OP_SECRET_SET, .secret = CSM_STR("c"), .payload = x},
	};
	static const int want[9] = {0, 0, CSM_EEXISTS, CSM_ECONFLICT, 0, CSM_ENOT_FOUND, 0, 0, 0};
	struct storefix *f = *state;
	struct csm_store_stat st;
	char v[256];

	storefix_close(f);
	assert_int_equal(csm_store_open(&f->opt, &f->s), 0);
	for (size_t i = 0; i < 9; i++) {
		ops[i].ns = CSM_STR("web");
		ops[i].name = CSM_STR("db");
		ops[i].done = batch_done;
		ops[i].arg = &b;
		assert_int_equal(csm_store_submit(f->s, &ops[i]), 0);
	}
	assert_int_equal(csm_store_start(f->s), 0);
	batch_wait(&b);
	for (size_t i = 0; i < 9; i++)
		assert_int_equal(ops[i].r, want[i]);
	assert_int_equal(ops[4].version, 2);
	csm_store_stat(f->s, &st);
	assert_int_equal(st.commits, 1);
	assert_int_equal(st.commit_ops, 6);
	assert_int_equal(st.secrets, 2);
	csm_store_close(f->s);
	f->s = NULL;
	assert_int_equal(storefix_open(f), 0);
	assert_false(csm_store_locked(f->s));
	assert_int_equal(storefix_get(f, "web", "db", "a", 0, v), 0);
	assert_int_equal(storefix_get(f, "web", "db", "b", 0, v), CSM_ENOT_FOUND);
}

/* Without a writer nothing is served, and closing says so. */
static void test_shutdown(void **state)
{
	struct batch b = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 1};
	struct csm_store_op op = {.kind = CSM_OP_DOMAIN_CREATE, .ns = CSM_STR("web"), .name = CSM_STR("db"),
		.done = batch_done, .arg = &b};
	struct csm_store_op *ops = calloc(CSM_COMMIT_QUEUE_MAX + 1, sizeof(*ops));
	struct storefix *f = *state;

	assert_non_null(ops);
	storefix_close(f);
	assert_int_equal(csm_store_open(&f->opt, &f->s), 0);
	assert_int_equal(csm_store_submit(f->s, &op), 0);
	csm_store_close(f->s);
	f->s = NULL;
	assert_int_equal(b.left, 0);
	assert_int_equal(op.r, CSM_ESHUTDOWN);

	/* with one, all that is queued is done first; and the queue has an end */
	assert_int_equal(csm_store_open(&f->opt, &f->s), 0);
	b.left = CSM_COMMIT_QUEUE_MAX;
	for (size_t i = 0; i <= CSM_COMMIT_QUEUE_MAX; i++) {
		ops[i] = op;
		ops[i].kind = i == 0 ? CSM_OP_DOMAIN_CREATE : CSM_OP_SECRET_SET;
		ops[i].secret = CSM_STR("pw");
		assert_int_equal(csm_store_submit(f->s, &ops[i]), i == CSM_COMMIT_QUEUE_MAX ? CSM_EBUSY : 0);
	}
	assert_int_equal(csm_store_start(f->s), 0);
	csm_store_close(f->s);
	f->s = NULL;
	assert_int_equal(b.left, 0);
	for (size_t i = 0; i < CSM_COMMIT_QUEUE_MAX; i++)
		assert_int_equal(ops[i].r, 0);
	assert_int_equal(ops[CSM_COMMIT_QUEUE_MAX - 1].version, CSM_COMMIT_QUEUE_MAX - 1);
	free(ops);
}

struct racer {
	struct storefix *f;
	pthread_t t;
	char priv[16];
	int r;
};
static void *race(void *arg)
{
	struct racer *a = arg;

	a->r = storefix_key(a->f, "web", "tls", a->priv);
	return NULL;
}

static void test_racing_creates(void **state)
{
	struct racer a[64];
	struct storefix *f = *state;
	struct csm_key_record rec;
	size_t won = 0, winner = 0;

	for (size_t i = 0; i < 64; i++) {
		a[i].f = f;
		snprintf(a[i].priv, sizeof(a[i].priv), "private %zu", i);
		assert_int_equal(pthread_create(&a[i].t, NULL, race, &a[i]), 0);
	}
	for (size_t i = 0; i < 64; i++) {
		pthread_join(a[i].t, NULL);
		if (a[i].r == 0) {
			won++;
			winner = i;
		} else {
			assert_int_equal(a[i].r, CSM_EEXISTS);
		}
	}
	assert_int_equal(won, 1);
	key_get(f, "web", "tls", 0, a[winner].priv, &rec);
}

static int big_set(struct storefix *f, int i, size_t n)
{
	uint8_t *p = calloc(1, n);
	char name[16];
	struct csm_store_op op = {.kind = CSM_OP_SECRET_SET, .ns = CSM_STR("web"), .name = CSM_STR("db"), .payload = {p, n}};
	int r;

	assert_non_null(p);
	snprintf(name, sizeof(name), "s%d", i);
	op.secret = csm_str_of(name);
	r = storefix_do(f, &op);
	free(p);
	return r;
}

static void test_full(void **state)
{
	struct csm_store_op del = {.kind = CSM_OP_DOMAIN_DELETE, .ns = CSM_STR("web"), .name = CSM_STR("db")};
	struct csm_store_stat st;
	struct storefix f;
	bool told = false;
	char v[256];
	int i, r = 0;

	(void)state;
	storefix_init(&f);
	f.opt.map_size = 4u << 20;
	assert_int_equal(storefix_open(&f), 0);
	assert_int_equal(storefix_domain(&f, "web", "db"), 0);
	assert_int_equal(storefix_domain(&f, "web", "small"), 0);
	assert_int_equal(storefix_set(&f, "web", "small", "pw", "kept"), 0);
	csm_store_stat(f.s, &st);
	assert_int_equal(st.size, 4u << 20);
	for (i = 0; i < 100 && r == 0; i++)
		r = big_set(&f, i, 100000);
	assert_int_equal(r, CSM_ENO_SPACE);
	assert_in_range(i, 20, 45);
	for (int wait = 0; wait < 30 && !told; wait++) { /* measured once a second */
		csm_store_stat(f.s, &st);
		told = st.low_space;
		usleep(100000);
	}
	assert_true(told);
	for (i = 0, r = 0; i < 1000 && r == 0; i++)
		r = big_set(&f, 1000 + i, 1);
	assert_int_equal(r, CSM_ENO_SPACE);
	for (i = 0, r = 0; i < 1000 && r == 0; i++) {
		snprintf(v, sizeof(v), "domain-%d", i);
		r = storefix_domain(&f, "web", v);
	}
	assert_int_equal(r, CSM_ENO_SPACE);
	assert_int_equal(storefix_domain(&f, "web", "more"), CSM_ENO_SPACE);
	assert_int_equal(storefix_key(&f, "web", "more", "p"), CSM_ENO_SPACE);
	/* what was there is read, and room can be made */
	assert_int_equal(storefix_get(&f, "web", "small", "pw", 0, v), 0);
	assert_int_equal(storefix_do(&f, &del), 0);
	assert_int_equal(storefix_domain(&f, "web", "db"), 0);
	assert_int_equal(big_set(&f, 1, 100000), 0);
	storefix_close(&f);
	assert_int_equal(storefix_open(&f), 0);
	assert_false(csm_store_locked(f.s));
	assert_int_equal(storefix_get(&f, "web", "small", "pw", 0, v), 0);
	storefix_free(&f);
}

/* Nothing that should be sealed is on the disk. */
static bool file_has(const char *path, const void *p, size_t n)
{
	static uint8_t data[8u << 20];
	FILE *file = fopen(path, "rb");
	size_t len;

	assert_non_null(file);
	len = fread(data, 1, sizeof(data), file);
	fclose(file);
	assert_true(len > 4096 && len < sizeof(data));
	return memmem(data, len, p, n) != NULL;
}

static void test_bytes_on_disk(void **state)
{
	struct storefix *f = *state;
	char path[128];
	char v[256];

	assert_int_equal(storefix_domain(f, "web", "db"), 0);
	assert_int_equal(storefix_set(f, "web", "db", "pw", "a very secret value"), 0);
	assert_int_equal(storefix_key(f, "web", "tls", "a very private part"), 0);
	assert_int_equal(storefix_get(f, "web", "db", "pw", 0, v), 0);
	storefix_close(f);
	snprintf(path, sizeof(path), "%s/store/data.mdb", f->dir);
	assert_true(file_has(path, "web\0db\0pw", 10)); /* the search finds what is there */
	assert_false(file_has(path, "very secret", 11));
	assert_false(file_has(path, "very private", 12));
	assert_false(file_has(path, f->root_key, 32));
	assert_false(file_has(path, f->root_key, 8));
	assert_int_equal(storefix_open(f), 0);
}

/* ---- crashes ---- */

static void crash_child(struct storefix *f, int round, int to)
{
	char value[32];

	if (storefix_open(f) != 0 || csm_store_locked(f->s))
		_exit(3);
	(void)storefix_domain(f, "web", "db");
	for (uint32_t i = 0;; i++) {
		char name[32];

		snprintf(name, sizeof(name), "r%d-%u", round, i);
		snprintf(value, sizeof(value), "value %d %u", round, i);
		if (storefix_set(f, "web", "db", name, value) != 0 || storefix_key(f, "web", name, value) != 0)
			_exit(4);
		if (write(to, &i, sizeof(i)) != sizeof(i))
			_exit(5);
	}
}

/* SIGKILL after some milliseconds: everything acknowledged is there, and the store is whole. */
static void test_kill(void **state)
{
	enum { ROUNDS = 20 };
	uint32_t acked[ROUNDS];
	struct csm_key_record rec;
	struct storefix f;
	char name[32], want[32], v[256];

	(void)state;
	storefix_init(&f);
	for (int round = 0; round < ROUNDS; round++) {
		int fds[2], status;
		uint32_t last;
		pid_t pid;

		acked[round] = 0;
		assert_int_equal(pipe(fds), 0);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			close(fds[0]);
			crash_child(&f, round, fds[1]);
		}
		close(fds[1]);
		assert_int_equal(read(fds[0], &last, sizeof(last)), sizeof(last));
		usleep((useconds_t)(1000 + random() % 20000));
		assert_int_equal(kill(pid, SIGKILL), 0);
		do
			acked[round] = last;
		while (read(fds[0], &last, sizeof(last)) == sizeof(last));
		close(fds[0]);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
	}
	assert_int_equal(storefix_open(&f), 0);
	assert_false(csm_store_locked(f.s));
	for (int round = 0; round < ROUNDS; round++) {
		for (uint32_t i = 0; i <= acked[round]; i++) {
			snprintf(name, sizeof(name), "r%d-%u", round, i);
			snprintf(want, sizeof(want), "value %d %u", round, i);
			assert_int_equal(storefix_get(&f, "web", "db", name, 0, v), 0);
			assert_string_equal(v, want);
			key_get(&f, "web", name, 0, want, &rec);
		}
	}
	storefix_free(&f);
}

/* A child has the store open; it goes when the child does. */
static void test_two_processes(void **state)
{
	struct storefix *f = *state;
	int status;
	pid_t pid;

	storefix_close(f);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(storefix_open(f) == 0 ? 0 : 1); /* not closed: as after a crash */
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(storefix_open(f), 0);
	assert_false(csm_store_locked(f->s));
}

/* Readers while the writer writes: each sees whole versions. */
static void *read_on(void *arg)
{
	struct storefix *f = arg;
	struct csm_reader *r;
	struct csm_buf out;

	if (csm_reader_new(f->s, &r) != 0)
		return (void *)"new";
	csm_buf_init(&out, 4096, true);
	for (int i = 0; i < 2000; i++) {
		uint64_t version, created;
		char want[32];

		csm_buf_reset(&out);
		if (csm_reader_begin(r) != 0)
			return (void *)"begin";
		if (csm_store_secret_get(r, CSM_STR("web"), CSM_STR("db"), CSM_STR("pw"), 0, &out, &version, &created) != 0)
			return (void *)"get";
		csm_reader_end(r);
		snprintf(want, sizeof(want), "value %u", (unsigned)version);
		if (out.len != strlen(want) || memcmp(csm_buf_ptr(&out), want, out.len) != 0)
			return (void *)"value";
	}
	csm_buf_free(&out);
	csm_reader_free(r);
	return NULL;
}

static void test_readers(void **state)
{
	struct storefix *f = *state;
	pthread_t t[3];
	void *wrong;
	char v[32];

	assert_int_equal(storefix_domain(f, "web", "db"), 0);
	assert_int_equal(storefix_set(f, "web", "db", "pw", "value 1"), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&t[i], NULL, read_on, f), 0);
	for (int i = 2; i < 100; i++) {
		snprintf(v, sizeof(v), "value %d", i);
		assert_int_equal(storefix_set(f, "web", "db", "pw", v), 0);
	}
	for (int i = 0; i < 3; i++) {
		pthread_join(t[i], &wrong);
		assert_null(wrong);
	}
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_set_get), T(test_refusals), T(test_modes_of_files), T(test_versions), T(test_keys), T(test_lists),
		T(test_domains), T(test_seal), T(test_request_ids), T(test_request_pruning), T(test_pins),
		T(test_root_key), cmocka_unit_test(test_root_key_outside), cmocka_unit_test(test_epoch),
		cmocka_unit_test(test_epoch_interval), T(test_group), T(test_shutdown), T(test_racing_creates),
		cmocka_unit_test(test_full), T(test_bytes_on_disk), cmocka_unit_test(test_kill), T(test_two_processes),
		T(test_readers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
