/* The engine's journal: what was written is there after a crash, whatever of the last entry reached the disk; who changes its files or
 * puts older ones in their place is found; disks that fail lose nothing that was answered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "daemon/svc/engine.h"
#include "tests/lib/dbfix.h"

#define PAGE 4096u
#define BIG 100000u

static const struct csm_engine_ops *const ops = &csm_engine_lmdb;

struct fix {
	struct dbfix f; /* its folder */
	struct csm_engine *e;
};

/* LMDB's too. */
static atomic_uint syncs_fail, syncs_until_crash;
static atomic_bool zeros_fail; /* so that what was written stays */
static atomic_bool lmdb_waits, lmdb_fails;
static bool is_lmdb(int fd)
{
	char link[64], path[512];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	path[n < 0 ? 0 : n] = '\0';
	return strstr(path, "/data.mdb") != NULL;
}
__attribute__((visibility("default"))) int fdatasync(int fd)
{
	while (atomic_load(&lmdb_waits) && is_lmdb(fd))
		usleep(1000);
	if (atomic_load(&syncs_until_crash) > 0 && atomic_fetch_sub(&syncs_until_crash, 1) == 1)
		_exit(0);
	if ((!atomic_load(&lmdb_fails) || !is_lmdb(fd)) && atomic_load(&syncs_fail) == 0)
		return (int)syscall(SYS_fdatasync, fd);
	if (atomic_load(&syncs_fail) > 0)
		atomic_fetch_sub(&syncs_fail, 1);
	errno = EIO;
	return -1;
}

__attribute__((visibility("default"))) ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
	const uint8_t *byte = p;
	bool zero = n > 0 && byte[0] == 0 && memcmp(byte, byte + 1, n - 1) == 0;

	if (!zero || !atomic_load(&zeros_fail) || is_lmdb(fd))
		return syscall(SYS_pwrite64, fd, p, n, at);
	errno = EIO;
	return -1;
}

static int reopen(struct fix *x)
{
	const struct csm_engine_options opt = {.dir = x->f.dir, .map_size = x->f.map_size, .key = x->f.key, .journal_ms = 1000 * 1000,
		.why = x->f.why, .why_len = sizeof(x->f.why)};

	ops->close(x->e);
	x->e = NULL;
	return ops->open(&opt, &x->e);
}

static void shut(struct fix *x)
{
	ops->close(x->e);
	x->e = NULL;
}

static struct csm_bin b(const char *s)
{
	return (struct csm_bin){(const uint8_t *)s, strlen(s)};
}

static int put(struct fix *x, const char *key, const char *value)
{
	const struct csm_engine_change c = {.key = b(key), .value = b(value)};

	return ops->write(x->e, &(struct csm_engine_batch){.changes = &c, .n_changes = 1}, NULL);
}

static int put_big(struct fix *x, unsigned i)
{
	static const uint8_t value[BIG];
	char key[32];

	snprintf(key, sizeof(key), "big%u", i);
	return ops->write(x->e, &(struct csm_engine_batch){.changes = &(struct csm_engine_change){b(key), {value, BIG}, false}, .n_changes = 1}, NULL);
}

static bool has(struct fix *x, const char *key)
{
	struct csm_engine_txn *t;
	struct csm_bin v;
	int r;

	if (ops->begin(x->e, &t) != 0)
		abort();
	r = ops->get(t, b(key), &v);
	ops->end(t);
	return r == 0;
}

static int setup(void **state)
{
	struct fix *x = calloc(1, sizeof(*x));

	assert_non_null(x);
	dbfix_init(&x->f);
	*state = x;
	assert_int_equal(reopen(x), 0);
	assert_int_equal(put(x, "m", "in the database"), 0);
	shut(x);
	return 0;
}

static int teardown(void **state)
{
	struct fix *x = *state;

	shut(x);
	dbfix_free(&x->f);
	free(x);
	return 0;
}

/* fn in a process that is gone without a word. */
static void crash(struct fix *x, bool (*fn)(struct fix *x))
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(reopen(x) == 0 && fn(x) ? 0 : 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static bool writes_abc(struct fix *x)
{
	return put(x, "a", "a") == 0 && put(x, "b", "b") == 0 && put(x, "c", "c") == 0;
}

static bool writes_nothing(struct fix *x)
{
	return has(x, "m");
}

/* ---- files ---- */

static int file(struct fix *x, const char *name)
{
	char path[200];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", x->f.dir, name);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	return fd;
}

static void copy(struct fix *x, const char *from, const char *to)
{
	static uint8_t p[1u << 20];
	int in = file(x, from), out = file(x, to);
	ssize_t n;

	assert_int_equal(ftruncate(out, 0), 0);
	while ((n = read(in, p, sizeof(p))) > 0)
		assert_int_equal(write(out, p, (size_t)n), n);
	assert_int_equal(n, 0);
	close(in);
	close(out);
}

/* Of the journal's two files the one that was written last begins with this; the other one has only what is older. */
static const char *live(struct fix *x)
{
	static const char *const names[] = {"journal.0", "journal.1"};
	uint8_t head[2][16] = {{0}};

	for (unsigned i = 0; i < 2; i++) {
		int fd = file(x, names[i]);

		assert_true(pread(fd, head[i], 16, 0) >= 0);
		close(fd);
	}
	return names[memcmp(head[1] + 8, head[0] + 8, 8) > 0];
}

static void page_get(struct fix *x, unsigned no, uint8_t p[static PAGE])
{
	int fd = file(x, live(x));

	assert_int_equal(pread(fd, p, PAGE, (off_t)no * PAGE), PAGE);
	close(fd);
}

static void page_put(struct fix *x, const char *name, unsigned no, const uint8_t p[static PAGE])
{
	int fd = file(x, name);

	assert_int_equal(pwrite(fd, p, PAGE, (off_t)no * PAGE), PAGE);
	close(fd);
}

static void flip(struct fix *x, unsigned no, size_t at)
{
	uint8_t p[PAGE];

	page_get(x, no, p);
	p[at] ^= 1;
	page_put(x, live(x), no, p);
}

/* Of a, b, c the first n are there. */
static void expect(struct fix *x, unsigned n)
{
	assert_int_equal(reopen(x), 0);
	assert_true(has(x, "m"));
	assert_true(has(x, "a") == (n > 0));
	assert_true(has(x, "b") == (n > 1));
	assert_true(has(x, "c") == (n > 2));
}

/* It does not open, says why, and has changed nothing: with the file as it was all is there. */
static void found(struct fix *x, const char *name, const char *whole)
{
	for (int i = 0; i < 2; i++) {
		assert_int_equal(reopen(x), CSM_ETAMPERED);
		assert_non_null(strstr(x->f.why, "changed"));
	}
	copy(x, whole, name);
	expect(x, 3);
}

/* ---- crashes ---- */

static void test_crash(void **state)
{
	struct fix *x = *state;
	char path[200];

	crash(x, writes_abc);
	crash(x, writes_nothing);
	expect(x, 3);
	shut(x);
	/* LMDB has it now. */
	for (unsigned i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/journal.%u", x->f.dir, i);
		assert_int_equal(unlink(path), 0);
	}
	expect(x, 3);
}

static bool lmdb_takes(struct fix *x)
{
	if (!writes_abc(x))
		return false;
	for (unsigned i = 0; i < 25; i++)
		if (put_big(x, i) != 0)
			return false;
	usleep(100000); /* more than half of a file: LMDB has most of it by now, or not */
	return put(x, "later", "v") == 0;
}

/* While LMDB takes what one file has, groups go into the other. */
static bool lmdb_does_not(struct fix *x)
{
	const char *was;

	if (!writes_abc(x))
		return false;
	was = live(x);
	for (unsigned i = 0; i < 25; i++)
		if (put_big(x, i) != 0)
			return false;
	return put(x, "later", "v") == 0 && strcmp(live(x), was) != 0 && has(x, "a") && has(x, "big1") && has(x, "later");
}

static void expect_all(struct fix *x)
{
	char key[32];

	expect(x, 3);
	assert_true(has(x, "later"));
	for (unsigned i = 0; i < 25; i++) {
		snprintf(key, sizeof(key), "big%u", i);
		assert_true(has(x, key));
	}
}

/* Behind LMDB's commit and before it. */
static void test_crash_beside_lmdb(void **state)
{
	struct fix *x = *state;
	const char *later;
	int fd;

	copy(x, "data.mdb", "base");
	crash(x, lmdb_takes);
	expect_all(x);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(put(x, "again", "v"), 0);
		assert_int_equal(reopen(x), 0);
	}
	shut(x);
	copy(x, "base", "data.mdb");
	assert_int_equal(reopen(x), CSM_ETAMPERED); /* both files of the journal follow on later ones */
	for (unsigned i = 0; i < 2; i++) {
		fd = file(x, i == 0 ? "journal.0" : "journal.1");
		assert_int_equal(ftruncate(fd, 0), 0);
		close(fd);
	}
	expect(x, 0);
	shut(x);
	atomic_store(&lmdb_waits, true);
	crash(x, lmdb_does_not);
	crash(x, writes_nothing);
	atomic_store(&lmdb_waits, false);
	later = live(x);
	copy(x, "journal.0", "0");
	copy(x, "journal.1", "1");
	/* The file that comes first is one that lacks its end. */
	fd = file(x, strcmp(later, "journal.0") == 0 ? "journal.1" : "journal.0");
	assert_int_equal(pwrite(fd, "", 1, 3 * PAGE), 1);
	close(fd);
	assert_int_equal(reopen(x), CSM_ETAMPERED);
	copy(x, "0", "journal.0");
	copy(x, "1", "journal.1");
	expect_all(x);
}

/* Whatever of the last entry did not reach the disk: head, rows, MAC. */
static void test_torn(void **state)
{
	static const size_t at[] = {0, 8, 15, 16, 23, 24, 55, 56, 64, 70, 90};
	uint8_t zero[PAGE] = {0};
	struct fix *x = *state;
	char name[16], path[200];

	crash(x, writes_abc);
	snprintf(name, sizeof(name), "%s", live(x));
	copy(x, name, "whole");
	copy(x, "data.mdb", "base");
	for (size_t i = 0; i <= sizeof(at) / sizeof(at[0]); i++) {
		copy(x, "whole", name);
		copy(x, "base", "data.mdb");
		if (i < sizeof(at) / sizeof(at[0]))
			flip(x, 2, at[i]);
		else
			page_put(x, name, 2, zero);
		expect(x, 2);
		assert_int_equal(put(x, "c", "c"), 0);
		expect(x, 3);
		shut(x);
		/* The other file has what was written behind it. */
		snprintf(path, sizeof(path), "%s/%s", x->f.dir, strcmp(name, "journal.0") == 0 ? "journal.1" : "journal.0");
		assert_int_equal(truncate(path, 0), 0);
	}
}

static void test_changed(void **state)
{
	uint8_t zero[PAGE] = {0}, p[PAGE], q[PAGE];
	struct fix *x = *state;
	char name[16];

	crash(x, writes_abc);
	snprintf(name, sizeof(name), "%s", live(x));
	copy(x, name, "whole");
	copy(x, "data.mdb", "base");
	for (unsigned i = 0; i < 4; i++) {
		page_get(x, 0, p);
		if (i == 0) {
			flip(x, 1, 70);
		} else if (i == 1) {
			page_put(x, name, 0, zero);
		} else if (i == 2) {
			page_get(x, 1, p);
			page_get(x, 2, q);
			page_put(x, name, 1, q);
			page_put(x, name, 2, p);
		} else {
			page_get(x, 2, p);
			page_put(x, name, 0, p);
		}
		found(x, name, "whole");
		shut(x);
		copy(x, "base", "data.mdb");
		copy(x, "whole", name);
	}
}

/* Two databases that were one: their numbers are the same, but nothing of one follows on the other. */
static const char *fork_value;
static bool forks(struct fix *x)
{
	return put(x, "a", fork_value) == 0 && put(x, "b", "b") == 0 && put(x, "c", "c") == 0;
}

/* What one of them has in its files: NAME.db, NAME.0, NAME.1. */
static void fork_off(struct fix *x, const char *name, const char *first, const char *value)
{
	char to[32];

	copy(x, "base", "data.mdb");
	copy(x, "none", "journal.0");
	copy(x, "none", "journal.1");
	assert_int_equal(reopen(x), 0);
	assert_int_equal(put(x, "first", first), 0);
	shut(x);
	fork_value = value;
	crash(x, forks);
	snprintf(to, sizeof(to), "%s.db", name);
	copy(x, "data.mdb", to);
	for (unsigned i = 0; i < 2; i++) {
		snprintf(to, sizeof(to), "%s.%u", name, i);
		copy(x, i == 0 ? "journal.0" : "journal.1", to);
	}
}

static void test_of_a_fork(void **state)
{
	struct fix *x = *state;
	uint8_t p[PAGE], q[PAGE];
	char name[16];

	copy(x, "data.mdb", "base");
	fork_off(x, "one", "same", "1");
	page_get(x, 2, p);
	fork_off(x, "two", "same", "2");
	snprintf(name, sizeof(name), "%s", live(x));
	page_get(x, 2, q);
	assert_memory_equal(p, q, 24); /* number, length */
	page_put(x, name, 2, p);
	assert_int_equal(reopen(x), CSM_ETAMPERED);
	page_put(x, name, 2, q);
	expect(x, 3);
	shut(x);
	/* A whole journal beside the other's database. */
	fork_off(x, "three", "another", "2");
	copy(x, "two.0", "journal.0");
	copy(x, "two.1", "journal.1");
	assert_int_equal(reopen(x), CSM_ETAMPERED);
	copy(x, "three.0", "journal.0");
	copy(x, "three.1", "journal.1");
	expect(x, 3);
}

/* What LMDB has taken is not put on top of what came later. */
static void test_old_journal(void **state)
{
	struct fix *x = *state;
	char name[16];

	crash(x, writes_abc);
	snprintf(name, sizeof(name), "%s", live(x));
	copy(x, name, "old");
	expect(x, 3);
	assert_int_equal(ops->write(x->e, &(struct csm_engine_batch){.changes = &(struct csm_engine_change){b("c"), b(""), true}, .n_changes = 1}, NULL), 0);
	shut(x);
	copy(x, "old", name);
	expect(x, 2);
	shut(x);
	copy(x, "old", name);
	crash(x, writes_nothing);
	expect(x, 2);
}

static void test_other_key(void **state)
{
	struct fix *x = *state;

	crash(x, writes_abc);
	x->f.key[3] ^= 1;
	assert_int_equal(reopen(x), CSM_ETAMPERED);
	assert_non_null(strstr(x->f.why, "key"));
	x->f.key[3] ^= 1;
	expect(x, 3);
}

/* ---- disks that fail ---- */

/* Syncs fail, one after the other: of the entry, of the page that is to overwrite it, of LMDB that is to take it instead. What was refused
 * is not there after a crash, what comes behind it is; nothing comes when nothing is known of the disk. */
static unsigned failing;
static int put_new(struct fix *x, const char *key)
{
	return ops->write(x->e, &(struct csm_engine_batch){.conds = &(struct csm_engine_cond){CSM_ENGINE_ABSENT, b(key), b("")}, .n_conds = 1,
		.changes = &(struct csm_engine_change){b(key), b(key), false}, .n_changes = 1}, NULL);
}

static bool syncs_failing(struct fix *x)
{
	struct csm_engine_stat st;
	bool good = put(x, "a", "a") == 0;

	atomic_store(&syncs_fail, failing);
	good = good && (put_new(x, "b") == 0) == (failing < 3) && atomic_load(&syncs_fail) == 0 && has(x, "b") == (failing < 3);
	ops->stat(x->e, &st);
	return good && st.failed == (failing == 3) && put(x, "c", "c") == (failing < 3 ? 0 : CSM_EUNAVAILABLE) && has(x, "a");
}

static void test_syncs_fail(void **state)
{
	struct fix *x = *state;

	for (failing = 1; failing <= 3; failing++) {
		crash(x, syncs_failing);
		assert_int_equal(reopen(x), 0);
		assert_true(has(x, "a"));
		if (failing < 3)
			assert_true(has(x, "b"));
		assert_true(has(x, "c") == (failing < 3));
		for (unsigned i = 0; i < 3; i++)
			assert_int_equal(ops->write(x->e, &(struct csm_engine_batch){
				.changes = &(struct csm_engine_change){b(i == 0 ? "a" : i == 1 ? "b" : "c"), b(""), true}, .n_changes = 1}, NULL), 0);
		shut(x);
	}
}

/* An entry was overwritten, as its sync failed, and LMDB could not do it instead: it was refused, and is not there after a crash. */
static bool refused_twice(struct fix *x)
{
	struct csm_engine_stat st;

	if (put(x, "a", "a") != 0)
		return false;
	atomic_store(&lmdb_fails, true);
	atomic_store(&syncs_fail, 1);
	if (put(x, "b", "b") == 0)
		return false;
	ops->stat(x->e, &st);
	return !st.failed && !has(x, "b");
}

static void test_refused_twice(void **state)
{
	struct fix *x = *state;

	crash(x, refused_twice);
	assert_int_equal(reopen(x), 0);
	assert_true(has(x, "a"));
	assert_false(has(x, "b"));
}

/* The entry that was refused stays on the disk, and the process ends before anything outdates it, or between the commit that takes what
 * came before it and the one that it is in: it counts or does not, and a start is possible. */
static bool crash_beside_entry(struct fix *x)
{
	if (put(x, "a", "a") != 0)
		return false;
	atomic_store(&zeros_fail, true);
	atomic_store(&syncs_fail, 1);
	atomic_store(&syncs_until_crash, failing);
	(void)put(x, "b", "b");
	return false;
}

static void test_entry_stays(void **state)
{
	struct fix *x = *state;

	/* syncs: of the entry, of what LMDB takes, of the batch by itself */
	for (failing = 2; failing <= 3; failing++) {
		crash(x, crash_beside_entry);
		assert_int_equal(reopen(x), 0);
		assert_true(has(x, "a"));
		assert_int_equal(put(x, "c", "c"), 0);
		assert_int_equal(reopen(x), 0);
		assert_true(has(x, "c"));
		shut(x);
	}
}

/* Each sync of an entry fails, and LMDB commits instead: nothing of that stays in memory. */
static void test_refused_memory(void **state)
{
	struct fix *x = *state;
	size_t before = 0;

	assert_int_equal(reopen(x), 0);
	for (unsigned i = 0; i < 40; i++) {
		if (i == 10)
			before = mallinfo2().uordblks + mallinfo2().hblkhd;
		atomic_store(&syncs_fail, 1);
		assert_int_equal(put_big(x, i % 4), 0);
		assert_int_equal(atomic_load(&syncs_fail), 0);
	}
	assert_in_range(mallinfo2().uordblks + mallinfo2().hblkhd, 0, before + 10 * BIG);
}

/* LMDB can take nothing: what was answered stays, nothing more is taken, a start needs none of it, and it goes on when it can. */
static void test_stuck(void **state)
{
	struct csm_engine_stat st;
	struct fix *x = *state;
	unsigned n = 0, tries = 0;
	char key[32];

	assert_int_equal(reopen(x), 0);
	atomic_store(&lmdb_fails, true);
	assert_int_equal(put(x, "a", "a"), 0);
	while (n < 200 && put_big(x, n) == 0)
		n++;
	assert_in_range(n, 20, 100);
	assert_int_not_equal(put(x, "c", "c"), 0);
	ops->stat(x->e, &st);
	assert_true(st.low_space);
	assert_false(has(x, "c"));
	for (unsigned round = 0; round < 2; round++) {
		assert_true(has(x, "a"));
		for (unsigned i = 0; i < n; i++) {
			snprintf(key, sizeof(key), "big%u", i);
			assert_true(has(x, key));
		}
		if (round == 0)
			assert_int_equal(reopen(x), 0);
	}
	atomic_store(&lmdb_fails, false);
	while (put(x, "c", "c") != 0 && tries++ < 100)
		usleep(100000);
	assert_int_equal(reopen(x), 0);
	assert_true(has(x, "a") && has(x, "c"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(test_crash),
		T(test_crash_beside_lmdb),
		T(test_torn),
		T(test_changed),
		T(test_of_a_fork),
		T(test_old_journal),
		T(test_other_key),
		T(test_syncs_fail),
		T(test_refused_twice),
		T(test_entry_stays),
		T(test_refused_memory),
		T(test_stuck),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
