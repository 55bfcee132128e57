/* The store: what it keeps, what it refuses, and that it survives. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "proto-spec/limits.h"
#include "tests/lib/storefix.h"

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
	struct csm_store_op op = {.kind = CSM_OP_SECRET_SET,
		.ns = CSM_STR("web"),
		.name = CSM_STR("db"),
		.secret = CSM_STR("pw"),
		.payload = {big, CSM_MESSAGE_MAX + 1}};

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
	struct csm_store_op op = {.kind = CSM_OP_SECRET_SET,
		.ns = CSM_STR("web"),
		.name = CSM_STR("db"),
		.secret = CSM_STR("pw"),
		.payload = {(const uint8_t *)"x", 1},
		.has_expect = true};
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

static void test_keys(void **state)
{
	struct storefix *f = *state;
	struct csm_key_record rec, again;
	struct csm_count count = {.add = 5};
	struct csm_store_op del = {.kind = CSM_OP_KEY_DELETE, .ns = CSM_STR("web"), .name = CSM_STR("tls")};
	struct csm_store_op counts = {.kind = CSM_OP_COUNTS, .counts = &count, .n_counts = 1};
	struct rawstore w;
	MDB_stat counted;
	struct csm_store_stat st;

	assert_int_equal(storefix_key(f, "web", "tls", "private"), 0);
	assert_int_equal(storefix_key(f, "web", "tls", "another"), CSM_EEXISTS);
	assert_int_equal(storefix_key(f, "web", "empty", ""), 0);
	assert_int_equal(storefix_key_get(f, "web", "tls", "private", &rec), 0);
	assert_int_equal(storefix_key_get(f, "web", "empty", "", &rec), 0);
	assert_int_equal(storefix_key_get(f, "web", "tls", NULL, &rec), 0);
	assert_null(rec.priv.p);
	assert_int_equal(storefix_key_get(f, "web2", "tls", NULL, &rec), CSM_ENOT_FOUND);
	memcpy(count.id, rec.id, sizeof(count.id));
	assert_int_equal(storefix_do(f, &counts), 0);
	assert_int_equal(storefix_do(f, &counts), 0);
	assert_int_equal(storefix_key_get(f, "web", "tls", NULL, &rec), 0);
	assert_int_equal(rec.signatures, 10);
	csm_store_stat(f->s, &st);
	assert_int_equal(st.keys, 2);

	assert_int_equal(storefix_do(f, &del), 0);
	assert_int_equal(storefix_do(f, &del), CSM_ENOT_FOUND);
	assert_int_equal(storefix_do(f, &counts), 0); /* late counts of a key that went */
	assert_int_equal(storefix_key(f, "web", "tls", "new"), 0);
	assert_int_equal(storefix_key_get(f, "web", "tls", "new", &again), 0);
	assert_int_equal(again.signatures, 0);
	assert_memory_not_equal(again.id, rec.id, sizeof(rec.id));
	storefix_close(f);
	raw_open(f, &w);
	assert_int_equal(mdb_stat(w.txn, w.counts, &counted), 0);
	assert_int_equal(counted.ms_entries, 2); /* a row for each key that there is */
	raw_close(&w);
	assert_int_equal(storefix_open(f), 0);
	assert_false(csm_store_locked(f->s));
	assert_int_equal(storefix_key_get(f, "web", "tls", "new", &again), 0);
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

static bool list_namespace(void *arg, struct csm_str ns)
{
	return list_put(arg, ns);
}

enum what { KEYS, DOMAINS, SECRETS, NAMESPACES };
static const char *list(
	struct storefix *f, enum what what, const char *ns, const char *domain, const char *after, size_t max, int want)
{
	static struct listed l;
	int r;

	l = (struct listed){.max = max};
	assert_int_equal(csm_reader_begin(f->r), 0);
	if (what == KEYS)
		r = csm_store_key_list(f->r, csm_str_of(ns), csm_str_of(after), list_key, &l);
	else if (what == DOMAINS)
		r = csm_store_domain_list(f->r, csm_str_of(ns), csm_str_of(after), list_domain, &l);
	else if (what == NAMESPACES)
		r = csm_store_namespace_list(f->r, list_namespace, &l);
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
	assert_int_equal(storefix_domain(f, "only-domain", "x"), 0);
	assert_string_equal(list(f, NAMESPACES, NULL, NULL, NULL, 100, 0), "only-domain,we,web,web2,");
	assert_string_equal(list(f, NAMESPACES, NULL, NULL, NULL, 2, 0), "only-domain,we,");
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

static int seal(
	struct storefix *f, bool open, const char *ns, const char *context, struct csm_buf *in, struct csm_buf *out)
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
	struct csm_store_op op = {.kind = CSM_OP_DOMAIN_CREATE,
		.ns = CSM_STR("web"),
		.name = CSM_STR("db"),
		.rid = {.who = CSM_STR("uid-1"), .id = CSM_STR("first"), .hash = {1}},
		.answer = {(const uint8_t *)"the answer", 10}};
	struct csm_store_op set = {.kind = CSM_OP_SECRET_SET,
		.ns = CSM_STR("web"),
		.name = CSM_STR("db"),
		.secret = CSM_STR("pw"),
		.payload = {(const uint8_t *)"x", 1},
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
	struct csm_store_op op = {.kind = CSM_OP_DOMAIN_CREATE,
		.ns = CSM_STR("web"),
		.name = CSM_STR("db"),
		.rid = {.who = CSM_STR("uid-1"), .id = CSM_STR("first")}};
	uint8_t old[41] = {'t'}, record[33] = {'h', 1};
	struct rawstore w;
	MDB_stat st;

	assert_int_equal(storefix_do(f, &op), 0);
	storefix_close(f);
	raw_open(f, &w);
	old[9] = 1;                                       /* of the year 1970 */
	raw_put(&w, w.requests, old, sizeof(old), "", 0); /* and its record */
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
	struct csm_store_op op = {
		.kind = CSM_OP_REMEMBER, .name = CSM_STR("tpm.srk"), .payload = {(const uint8_t *)"pin two", 7}};
	struct csm_store *s;
	uint8_t v[16];
	size_t n = sizeof(v), count = 0;

	assert_int_equal(csm_store_recall(f->s, "tpm.srk", v, &n), CSM_ENOT_FOUND);
	assert_int_equal(csm_store_remember_now(f->s, "x", (const uint8_t *)"x", 1), 0); /* the writer runs */
	assert_int_equal(csm_store_recall(f->s, "x", v, &n), 0);
	assert_int_equal(n, 1);
	n = sizeof(v);
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
	assert_int_equal(csm_store_recall_count(s, "tpm.", &count), 0);
	assert_int_equal(count, 1);
	csm_store_close(s);

	assert_int_equal(storefix_open(f), 0);
	assert_false(csm_store_locked(f->s));
	n = sizeof(v);
	assert_int_equal(csm_store_recall(f->s, "tpm.srk", v, &n), 0);
	assert_memory_equal(v, "pin one", 7);
	n = 6;
	assert_int_equal(csm_store_recall(f->s, "tpm.srk", v, &n), CSM_ETOO_LARGE);
	assert_int_equal(n, 6);
	assert_int_equal(csm_store_remember_now(f->s, "", v, 1), CSM_EINVALID);
	/* New ones, one that is there already, and others whose names are beside these. */
	assert_int_equal(csm_store_remember_now(f->s, "tpm.a", v, 1), 0);
	assert_int_equal(csm_store_remember_now(f->s, "tpm.b", v, 1), 0);
	assert_int_equal(csm_store_remember_now(f->s, "tpm.srk", (const uint8_t *)"pin one", 7), 0);
	assert_int_equal(csm_store_remember_now(f->s, "tpm", v, 1), 0);
	assert_int_equal(csm_store_remember_now(f->s, "tpm/", v, 1), 0);
	assert_int_equal(csm_store_recall_count(f->s, "tpm.", &count), 0);
	assert_int_equal(count, 3);
	n = sizeof(v);
	assert_int_equal(csm_store_recall(f->s, "x", v, &n), 0);
	assert_int_equal(n, 1);
	n = sizeof(v);
	assert_int_equal(csm_store_recall(f->s, "other", v, &n), 0);
	assert_int_equal(storefix_do(f, &op), 0);
	op.name = CSM_STR("");
	assert_int_equal(storefix_do(f, &op), CSM_EINVALID);
	n = sizeof(v);
	assert_int_equal(csm_store_recall(f->s, "tpm.srk", v, &n), 0);
	assert_memory_equal(v, "pin two", 7);
	storefix_close(f);
	assert_int_equal(storefix_open(f), 0);
	assert_int_equal(csm_store_recall_count(f->s, "tpm.", &count), 0);
	assert_int_equal(count, 3);
	assert_false(csm_store_locked(f->s));
}

#define T(name) cmocka_unit_test_setup_teardown(name, storefix_setup, storefix_teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_set_get),
		T(test_refusals),
		T(test_modes_of_files),
		T(test_versions),
		T(test_keys),
		T(test_lists),
		T(test_domains),
		T(test_seal),
		T(test_request_ids),
		T(test_request_pruning),
		T(test_pins),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
