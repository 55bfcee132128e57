/* Lines that the store keeps until the file is synced, and how a file gets them back after a crash. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/lib/auditfix.h"

static struct csm_buf kept[2];

static int setup(void **state)
{
	for (size_t i = 0; i < 2; i++)
		csm_buf_init(&kept[i], 1u << 20, false);
	return audit_setup(state);
}

static int teardown(void **state)
{
	for (size_t i = 0; i < 2; i++)
		csm_buf_free(&kept[i]);
	return audit_teardown(state);
}

/* A group of two changes whose commit holds the lines. */
static struct csm_audit_mark group(struct csm_audit *a, struct csm_buf *keep, bool committed)
{
	struct csm_audit_event e[2] = {audit_event_of(CSM_AUDIT_CHANGE, "key.create", 1000, "a:one"),
		audit_event_of(CSM_AUDIT_CHANGE, "key.delete", 1000, "a:two")};
	struct csm_audit_mark mark;

	assert_int_equal(csm_audit_group(a, e, 2, keep, &mark), 0);
	assert_true(mark.kept);
	assert_int_equal(mark.last - mark.first, 1);
	if (committed)
		csm_audit_anchored(a, &mark);
	return mark;
}

static struct csm_bin bin(const struct csm_buf *b)
{
	return (struct csm_bin){csm_buf_ptr(b), b->len};
}

static size_t lines_in(const struct csm_buf *b)
{
	size_t n = 0;

	for (size_t i = 0; i < b->len; i++)
		n += csm_buf_ptr(b)[i] == '\n';
	return n;
}

static off_t size_now(void)
{
	struct stat st;

	assert_int_equal(stat(audit_file, &st), 0);
	return st.st_size;
}

/* As a power cut leaves it: what was not synced is gone, or junk. */
static void lose_from(off_t size, const char *junk, size_t n)
{
	int fd = open(audit_file, O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	assert_int_equal(pwrite(fd, junk, n, size), n);
	close(fd);
}

static void lost_lines_come_back(void **state)
{
	static const char junk[] = "{\"seq\":9,\"time\":1,\"event\":\"x\",\"hash\":\"00\"}\nhalf a line";
	const size_t cuts[] = {0, 1, 100};
	struct csm_audit_mark mark;
	struct csm_audit *a;
	off_t before;

	(void)state;
	a = audit_attached(NULL);
	before = size_now();
	(void)group(a, &kept[0], true);
	mark = group(a, &kept[1], true);
	assert_int_equal(lines_in(&kept[0]), 2);
	assert_int_equal(lines_in(&kept[1]), 2);
	csm_audit_close(a);
	for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
		lose_from(before + (off_t)cuts[i], junk, i == 1 ? sizeof(junk) : i);
		a = audit_opened();
		assert_int_equal(csm_audit_restore(a, bin(&kept[0])), 0);
		assert_int_equal(csm_audit_restore(a, bin(&kept[1])), 0);
		audit_assert_whole(&mark);
		assert_int_equal(audit_count("change"), 4);
		/* A second time there is nothing to do. */
		assert_int_equal(csm_audit_restore(a, bin(&kept[0])), 0);
		audit_assert_whole(&mark);
		csm_audit_close(a);
	}
}

static void what_was_not_committed_is_kept_by_the_next(void **state)
{
	struct csm_audit_mark mark;
	struct csm_audit *a;
	off_t before;

	(void)state;
	a = audit_attached(NULL);
	before = size_now();
	(void)group(a, &kept[0], false);
	mark = group(a, &kept[1], true);
	assert_int_equal(lines_in(&kept[1]), 4);
	csm_audit_close(a);
	lose_from(before, "", 0);
	a = audit_opened();
	assert_int_equal(csm_audit_restore(a, bin(&kept[1])), 0);
	audit_assert_whole(&mark);
	csm_audit_close(a);
}

/* What another thread has synced need not be kept, and the file follows what is kept. */
static void synced_lines_are_not_kept(void **state)
{
	struct csm_audit_mark mark;
	struct csm_audit *a;

	(void)state;
	a = audit_attached(NULL);
	mark = group(a, &kept[0], false);
	assert_true(csm_audit_synced(a) < mark.seq);
	audit_denied(a, "key.sign", 7);
	csm_audit_tick(a);
	assert_int_equal(csm_audit_synced(a), mark.seq + 1);
	mark = group(a, &kept[1], true);
	assert_int_equal(lines_in(&kept[1]), 2);
	assert_true(csm_audit_synced(a) < mark.seq);
	csm_audit_tick(a);
	assert_int_equal(csm_audit_synced(a), mark.seq);
	csm_audit_close(a);
}

static void changed_lines_do_not_come_back(void **state)
{
	struct csm_audit *a;
	off_t before;
	uint8_t *p;

	(void)state;
	a = audit_attached(NULL);
	before = size_now();
	(void)group(a, &kept[0], true);
	(void)group(a, &kept[1], true);
	csm_audit_close(a);
	lose_from(before, "", 0);
	a = audit_opened();
	/* not the next ones */
	assert_int_equal(csm_audit_restore(a, bin(&kept[1])), CSM_ENOT_FOUND);
	/* a uid changed */
	p = memmem(kept[0].p, kept[0].len, "1000", 4);
	assert_non_null(p);
	*p = '2';
	assert_int_equal(csm_audit_restore(a, bin(&kept[0])), CSM_ENOT_FOUND);
	/* cut off */
	*p = '1';
	kept[0].len--;
	assert_int_not_equal(csm_audit_restore(a, bin(&kept[0])), 0);
	audit_assert_whole(NULL);
	assert_int_equal(audit_count("change"), 1);
	csm_audit_close(a);
}

/* The same numbers in each run. */
static size_t next_number(void)
{
	static uint64_t x = 7;

	x = x * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (size_t)(x >> 33);
}

/* Any part of what was not synced is there or not: the lines that the store has come back, those behind them stay as far
 * as they are a chain, and nothing is taken for a change by others. */
static void any_part_may_be_missing(void **state)
{
	static uint8_t all[65536], now[65536];
	struct csm_audit_mark mark;
	struct csm_audit_status st;
	struct csm_buf later;
	struct csm_audit *a;
	size_t from, end;
	int fd;

	(void)state;
	csm_buf_init(&later, 1u << 20, false);
	a = audit_attached(NULL);
	from = (size_t)size_now();
	(void)group(a, &kept[0], true);
	mark = group(a, &kept[1], true);
	(void)group(a, &later, false); /* told, and then the power went */
	end = (size_t)size_now();
	fd = open(audit_file, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, all, end, 0), end);
	csm_audit_close(a);
	for (int round = 0; round < 300; round++) {
		size_t size = from + next_number() % (end - from + 1);

		memcpy(now, all, end);
		for (size_t at = from; at < size; at += 64)
			if (next_number() % 4 == 0)
				memset(now + at, 0, size - at < 64 ? size - at : 64);
		assert_int_equal(ftruncate(fd, 0), 0);
		assert_int_equal(pwrite(fd, now, size, 0), size);
		a = audit_opened();
		assert_int_equal(csm_audit_restore(a, bin(&kept[0])), 0);
		assert_int_equal(csm_audit_restore(a, bin(&kept[1])), 0);
		csm_audit_attach(a, mark.seq, mark.head, &audit_signer);
		csm_audit_status(a, &st);
		assert_false(st.broken);
		audit_assert_whole(&mark);
		assert_in_range(audit_count("change"), 4, 6);
		assert_int_equal(audit_count("break"), 0);
		csm_audit_close(a);
	}
	close(fd);
	csm_buf_free(&later);
}

/* The same without lines of the store's: what was synced is behind the line that it names. */
static void junk_behind_the_named_line_is_cut_off(void **state)
{
	static const char junk[] = "{\"seq\":7,\"time\":1,\"event\":\"change\"}\n\0\0\0half";
	struct csm_audit_mark mark;
	struct csm_audit_status st;
	struct csm_audit *a;
	char names[8][64];
	off_t size;

	(void)state;
	a = audit_attached(NULL);
	assert_int_equal(audit_change(a, "a:key", &mark), 0);
	size = size_now();
	csm_audit_close(a);
	lose_from(size, junk, sizeof(junk));
	a = audit_attached(&mark);
	csm_audit_status(a, &st);
	assert_false(st.broken);
	csm_audit_close(a);
	audit_assert_whole(&mark);
	assert_int_equal(audit_number(audit_index("repaired"), "bytes"), sizeof(junk));
	/* More than half a line is kept for who looks into it. */
	assert_int_equal(audit_names(names, 8), 2);
	assert_int_equal(strncmp(names[1], "damaged-", 8), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(lost_lines_come_back, setup, teardown),
		cmocka_unit_test_setup_teardown(what_was_not_committed_is_kept_by_the_next, setup, teardown),
		cmocka_unit_test_setup_teardown(synced_lines_are_not_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(changed_lines_do_not_come_back, setup, teardown),
		cmocka_unit_test_setup_teardown(any_part_may_be_missing, setup, teardown),
		cmocka_unit_test_setup_teardown(junk_behind_the_named_line_is_cut_off, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
