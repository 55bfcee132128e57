/* The journal: what was answered is there after a crash, whatever of its last entry reached the disk; readers see it before LMDB
 * has it; and whoever changes it while csmd is down has an older store at most, or is found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "libclient/base/buf.h"
#include "tests/lib/storefix.h"

#define PAGE 4096u
#define SIZE (8u * 1024u * 1024u)

/* LMDB's too. */
static unsigned syncs_fail;
__attribute__((visibility("default"))) int fdatasync(int fd)
{
	if (syncs_fail == 0)
		return (int)syscall(SYS_fdatasync, fd);
	syncs_fail--;
	errno = EIO;
	return -1;
}

static int setup(void **state)
{
	static struct storefix f;

	storefix_init(&f);
	f.opt.keep_journal = true;
	*state = &f;
	if (storefix_open(&f) != 0 || storefix_domain(&f, "web", "db") != 0 || storefix_set(&f, "web", "db", "m", "in the database") != 0)
		return -1;
	storefix_close(&f);
	return 0;
}

static int teardown(void **state)
{
	storefix_free(*state);
	return 0;
}

static struct csm_request_id rid_of(const char *id)
{
	return (struct csm_request_id){.who = CSM_STR("uid-1"), .id = csm_str_of(id), .hash = {7}};
}

static int set_with(struct storefix *f, const char *name, const char *value, struct csm_request_id rid)
{
	struct csm_store_op op = {.kind = CSM_OP_SECRET_SET, .ns = CSM_STR("web"), .name = CSM_STR("db"), .secret = csm_str_of(name),
		.payload = {(const uint8_t *)value, strlen(value)}, .rid = rid};

	return storefix_do(f, &op);
}

/* A process that opens the store, sets the names in turn, one entry each, and is gone. */
static void crash_after(struct storefix *f, const char *const *names, size_t n)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		bool good = storefix_open(f) == 0 && !csm_store_locked(f->s);

		for (size_t i = 0; i < n && good; i++)
			good = set_with(f, names[i], names[i], rid_of(names[i])) == 0;
		_exit(good ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static const char *const abc[] = {"a", "b", "c"};

static int journal(struct storefix *f)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/store/journal", f->dir);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static void page_get(struct storefix *f, unsigned no, uint8_t p[static PAGE])
{
	int fd = journal(f);

	assert_int_equal(pread(fd, p, PAGE, (off_t)no * PAGE), PAGE);
	close(fd);
}

static void page_put(struct storefix *f, unsigned no, const uint8_t p[static PAGE])
{
	int fd = journal(f);

	assert_int_equal(pwrite(fd, p, PAGE, (off_t)no * PAGE), PAGE);
	close(fd);
}

static void flip(struct storefix *f, unsigned no, size_t at)
{
	uint8_t p[PAGE];

	page_get(f, no, p);
	p[at] ^= 1;
	page_put(f, no, p);
}

static void expect_empty(struct storefix *f)
{
	static uint8_t p[SIZE];
	int fd = journal(f);

	assert_int_equal(pread(fd, p, SIZE, 0), SIZE);
	for (size_t i = 0; i < SIZE; i++)
		if (p[i] != 0)
			fail_msg("byte %zu is not zero", i);
	close(fd);
}

/* Of a, b, c the first n are there. */
static void expect(struct storefix *f, size_t n)
{
	char v[256];

	assert_int_equal(storefix_open(f), 0);
	assert_false(csm_store_locked(f->s));
	assert_int_equal(storefix_get(f, "web", "db", "m", 0, v), 0);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(storefix_get(f, "web", "db", abc[i], 0, v), i < n ? 0 : CSM_ENOT_FOUND);
		if (i < n)
			assert_string_equal(v, abc[i]);
	}
}

static void found(struct storefix *f)
{
	struct csm_store_op accept = {.kind = CSM_OP_ACCEPT};
	char v[256];

	assert_int_equal(storefix_open(f), 0);
	assert_true(csm_store_locked(f->s));
	assert_true(storefix_damaged(f, "root"));
	storefix_close(f);
	assert_int_equal(storefix_open(f), 0);
	assert_true(csm_store_locked(f->s));
	assert_int_equal(storefix_do(f, &accept), 0);
	assert_int_equal(storefix_get(f, "web", "db", "m", 0, v), 0);
	assert_int_equal(storefix_set(f, "web", "db", "new", "v"), 0);
	storefix_close(f);
	expect_empty(f);
	assert_int_equal(storefix_open(f), 0);
	assert_false(csm_store_locked(f->s));
	assert_int_equal(storefix_get(f, "web", "db", "new", 0, v), 0);
}

static void test_crash(void **state)
{
	struct storefix *f = *state;
	struct csm_request_id rid = rid_of("b");
	struct csm_store_stat st;
	struct csm_buf answer;

	for (int i = 0; i < 2; i++) {
		crash_after(f, abc, i == 0 ? 3 : 0);
		expect(f, 3);
		expect_empty(f);
		csm_store_stat(f->s, &st);
		assert_int_equal(st.secrets, 4);
		csm_buf_init(&answer, 4096, false);
		assert_int_equal(csm_reader_begin(f->r), 0);
		assert_int_equal(csm_store_replay(f->r, &rid, &answer), 0);
		csm_reader_end(f->r);
		csm_buf_free(&answer);
		storefix_close(f);
	}
}

/* The same entries over and over, from before and after a start: each counts once. */
static void test_old_journal(void **state)
{
	struct storefix *f = *state;
	char v[256];

	crash_after(f, abc, 3);
	store_copy(f, "store/journal", "older");
	expect(f, 3);
	storefix_close(f);
	store_copy(f, "older", "store/journal");
	expect(f, 3);
	assert_int_equal(storefix_set(f, "web", "db", "a", "newer"), 0);
	storefix_close(f);
	store_copy(f, "older", "store/journal");
	assert_int_equal(storefix_open(f), 0);
	assert_false(csm_store_locked(f->s));
	assert_int_equal(storefix_get(f, "web", "db", "a", 0, v), 0);
	assert_string_equal(v, "newer");
	storefix_close(f);
	store_copy(f, "older", "store/journal");
	crash_after(f, (const char *const[]){"d"}, 1); /* what stands behind its entry is old */
	assert_int_equal(storefix_open(f), 0);
	assert_false(csm_store_locked(f->s));
	assert_int_equal(storefix_get(f, "web", "db", "a", 0, v), 0);
	assert_string_equal(v, "newer");
	assert_int_equal(storefix_get(f, "web", "db", "d", 0, v), 0);
}

/* A crash behind LMDB's commit, before the journal is written again. */
static void test_committed(void **state)
{
	struct storefix *f = *state;
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(storefix_open(f) == 0 && set_with(f, "a", "a", rid_of("a")) == 0 && storefix_domain(f, "web", "other") == 0 ? 0 : 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	expect(f, 1);
}

/* Syncs fail, one after the other: of the entry, of LMDB that is to take it instead, of the page that is to overwrite the entry. What
 * was refused is not there after a crash, what comes behind it is; nothing comes when nothing is known of the disk. */
static int syncs_failing(struct storefix *f, unsigned n)
{
	bool good = storefix_open(f) == 0 && set_with(f, "a", "a", rid_of("a")) == 0;
	char v[256];

	syncs_fail = n;
	good = good && (set_with(f, "b", "b", rid_of("b")) == 0) == (n == 1) && syncs_fail == 0 &&
		storefix_get(f, "web", "db", "b", 0, v) == (n == 1 ? 0 : CSM_ENOT_FOUND);
	return good && (set_with(f, "c", "c", rid_of("c")) == 0) == (n < 3) && storefix_get(f, "web", "db", "a", 0, v) == 0 ? 0 : 1;
}

static void test_syncs_fail(void **state)
{
	struct storefix *f = *state;
	char v[256];
	int status;

	store_copy(f, "store/data.mdb", "base");
	for (unsigned n = 1; n <= 3; n++) {
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0)
			_exit(syncs_failing(f, n));
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
		assert_int_equal(storefix_open(f), 0);
		assert_false(csm_store_locked(f->s));
		assert_int_equal(storefix_get(f, "web", "db", "a", 0, v), 0);
		if (n < 3)
			assert_int_equal(storefix_get(f, "web", "db", "b", 0, v), n == 1 ? 0 : CSM_ENOT_FOUND);
		assert_int_equal(storefix_get(f, "web", "db", "c", 0, v), n < 3 ? 0 : CSM_ENOT_FOUND);
		storefix_close(f);
		store_copy(f, "base", "store/data.mdb");
	}
}

/* Whatever of the last entry did not reach the disk: head, rows, MAC. */
static void test_torn(void **state)
{
	static const size_t at[] = {0, 8, 15, 16, 23, 24, 55, 56, 300};
	struct storefix *f = *state;
	uint8_t zero[PAGE] = {0};

	crash_after(f, abc, 3);
	store_copy(f, "store/journal", "whole");
	store_copy(f, "store/data.mdb", "base");
	for (size_t i = 0; i <= sizeof(at) / sizeof(at[0]); i++) {
		store_copy(f, "whole", "store/journal");
		store_copy(f, "base", "store/data.mdb");
		if (i < sizeof(at) / sizeof(at[0]))
			flip(f, 2, at[i]);
		else
			page_put(f, 2, zero);
		expect(f, 2);
		assert_int_equal(storefix_set(f, "web", "db", "c", "c"), 0);
		storefix_close(f);
		expect(f, 3);
		storefix_close(f);
	}
}

static void test_flipped(void **state)
{
	crash_after(*state, abc, 3);
	flip(*state, 1, 200);
	found(*state);
}

static void test_dropped(void **state)
{
	uint8_t zero[PAGE] = {0};

	crash_after(*state, abc, 3);
	page_put(*state, 0, zero);
	found(*state);
}

static void test_reordered(void **state)
{
	uint8_t p[PAGE], q[PAGE];

	crash_after(*state, abc, 3);
	page_get(*state, 1, p);
	page_get(*state, 2, q);
	page_put(*state, 1, q);
	page_put(*state, 2, p);
	found(*state);
}

static void test_moved_to_front(void **state)
{
	uint8_t p[PAGE];

	crash_after(*state, abc, 3);
	page_get(*state, 2, p);
	page_put(*state, 0, p);
	found(*state);
}

/* Two stores that were one: their numbers are the same, but nothing of one follows on the other. */
static void fork_off(struct storefix *f)
{
	char path[128];

	store_copy(f, "store/data.mdb", "base");
	crash_after(f, abc, 3);
	store_copy(f, "store/journal", "first");
	store_copy(f, "base", "store/data.mdb");
	snprintf(path, sizeof(path), "%s/store/journal", f->dir);
	assert_int_equal(unlink(path), 0);
	crash_after(f, abc, 3);
}

static void test_entry_of_a_fork(void **state)
{
	uint8_t p[PAGE];

	fork_off(*state);
	store_copy(*state, "store/journal", "second");
	store_copy(*state, "first", "store/journal");
	page_get(*state, 2, p);
	store_copy(*state, "second", "store/journal");
	page_put(*state, 2, p);
	found(*state);
}

static void test_journal_of_a_fork(void **state)
{
	fork_off(*state);
	store_copy(*state, "first", "store/journal");
	found(*state);
}

/* An older database beside the journal that goes with a later one. */
static void test_older_database(void **state)
{
	struct storefix *f = *state;

	store_copy(f, "store/data.mdb", "older");
	crash_after(f, abc, 3);
	store_copy(f, "older", "store/data.mdb");
	found(f);
}

/* Of another store, of none, too short: as if it were not there, which is an older store. */
static void test_foreign(void **state)
{
	struct storefix *f = *state, other;
	char path[600], to[600];
	struct storefix *o = &other;
	void *os = o;

	storefix_init(o);
	o->opt.keep_journal = true;
	assert_int_equal(storefix_open(o), 0);
	assert_int_equal(storefix_domain(o, "web", "db"), 0);
	storefix_close(o);
	crash_after(f, abc, 3);
	store_copy(f, "store/journal", "whole");
	store_copy(f, "store/data.mdb", "base");
	snprintf(path, sizeof(path), "%s/whole", f->dir);
	snprintf(to, sizeof(to), "%s/store/journal", o->dir);
	assert_int_equal(rename(path, to), 0);
	assert_int_equal(storefix_open(o), 0);
	assert_false(csm_store_locked(o->s));
	storefix_close(o);
	teardown(&os);
	snprintf(path, sizeof(path), "%s/store/journal", f->dir);
	assert_int_equal(truncate(path, PAGE), 0);
	expect(f, 0);
	storefix_close(f);
	expect_empty(f);
	store_copy(f, "base", "store/data.mdb");
	assert_int_equal(unlink(path), 0);
	expect(f, 0);
	storefix_close(f);
	expect_empty(f);
}

/* ---- before LMDB has it ---- */

struct listed {
	char text[512];
	size_t n, most;
};

static bool list_one(void *arg, struct csm_str name, uint64_t version, uint64_t created)
{
	struct listed *l = arg;
	(void)created;
	l->n += (size_t)snprintf(l->text + l->n, sizeof(l->text) - l->n, "%.*s%llu ", (int)name.n, name.p, (unsigned long long)version);
	assert_true(l->n < sizeof(l->text));
	return --l->most > 0;
}

static void expect_list(struct storefix *f, const char *after, size_t most, const char *want)
{
	struct listed l = {.most = most};

	assert_int_equal(csm_reader_begin(f->r), 0);
	assert_int_equal(csm_store_secret_list(f->r, CSM_STR("web"), CSM_STR("db"), csm_str_of(after), list_one, &l), 0);
	csm_reader_end(f->r);
	assert_string_equal(l.text, want);
}

static void expect_all(struct storefix *f)
{
	struct csm_request_id rid = rid_of("once");
	struct csm_domain_info info;
	struct csm_buf answer;
	char v[256];

	expect_list(f, "", 99, "a12 b1 m2 m21 z1 ");
	expect_list(f, "a", 2, "b1 m2 ");
	expect_list(f, "m", 99, "m21 z1 ");
	expect_list(f, "c", 1, "m2 ");
	expect_list(f, "z", 99, "");
	assert_int_equal(storefix_get(f, "web", "db", "m", 0, v), 0);
	assert_string_equal(v, "second");
	assert_int_equal(storefix_get(f, "web", "db", "m", 1, v), 0);
	assert_string_equal(v, "in the database");
	assert_int_equal(storefix_get(f, "web", "db", "a", 0, v), 0);
	assert_string_equal(v, "12");
	assert_int_equal(storefix_get(f, "web", "db", "a", 3, v), 0);
	assert_string_equal(v, "3");
	assert_int_equal(storefix_get(f, "web", "db", "a", 2, v), CSM_ENOT_FOUND);
	assert_int_equal(storefix_get(f, "web", "db", "a", 13, v), CSM_ENOT_FOUND);
	csm_buf_init(&answer, 4096, false);
	assert_int_equal(csm_reader_begin(f->r), 0);
	assert_int_equal(csm_store_domain_get(f->r, CSM_STR("web"), CSM_STR("db"), &info), 0);
	assert_int_equal(info.secrets, 5);
	assert_int_equal(csm_store_replay(f->r, &rid, &answer), 0);
	csm_reader_end(f->r);
	csm_buf_free(&answer);
}

static void test_seen(void **state)
{
	struct storefix *f = *state;
	struct csm_store_stat st;
	char text[16];

	assert_int_equal(storefix_open(f), 0);
	for (int i = 1; i <= 12; i++) {
		snprintf(text, sizeof(text), "%d", i);
		assert_int_equal(storefix_set(f, "web", "db", "a", text), 0);
	}
	assert_int_equal(storefix_set(f, "web", "db", "z", "last"), 0);
	assert_int_equal(storefix_set(f, "web", "db", "m2", "longer"), 0);
	assert_int_equal(storefix_set(f, "web", "db", "m", "second"), 0);
	assert_int_equal(set_with(f, "b", "b", rid_of("once")), 0);
	assert_int_equal(set_with(f, "b", "b", rid_of("once")), 0);
	csm_store_stat(f->s, &st);
	assert_int_equal(st.secrets, 5);
	expect_all(f);
	storefix_close(f);
	f->opt.keep_journal = false;
	assert_int_equal(storefix_open(f), 0);
	expect_all(f);
}

/* A reader sees what was there when it began, whatever comes; then what is there now. */
static void test_snapshot(void **state)
{
	struct storefix *f = *state;
	uint64_t version, created;
	struct csm_buf out;
	char v[256];

	assert_int_equal(storefix_open(f), 0);
	assert_int_equal(storefix_set(f, "web", "db", "m", "second"), 0);
	assert_int_equal(csm_reader_begin(f->r), 0);
	assert_int_equal(storefix_set(f, "web", "db", "m", "third"), 0);
	assert_int_equal(storefix_domain(f, "web", "other"), 0); /* LMDB commits */
	assert_int_equal(storefix_set(f, "web", "db", "m", "fourth"), 0);
	csm_buf_init(&out, 4096, false);
	assert_int_equal(csm_store_secret_get(f->r, CSM_STR("web"), CSM_STR("db"), CSM_STR("m"), 0, &out, &version, &created), 0);
	csm_reader_end(f->r);
	assert_int_equal(version, 2);
	assert_int_equal(out.len, 6);
	assert_memory_equal(csm_buf_ptr(&out), "second", 6);
	csm_buf_free(&out);
	assert_int_equal(storefix_get(f, "web", "db", "m", 0, v), 0);
	assert_string_equal(v, "fourth");
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_crash),
		T(test_old_journal),
		T(test_committed),
		T(test_syncs_fail),
		T(test_torn),
		T(test_flipped),
		T(test_dropped),
		T(test_reordered),
		T(test_moved_to_front),
		T(test_entry_of_a_fork),
		T(test_journal_of_a_fork),
		T(test_older_database),
		T(test_foreign),
		T(test_seen),
		T(test_snapshot),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
