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

/* Behind the hash that they follow. */
static size_t lines_in(const struct csm_buf *b)
{
	size_t n = 0;

	for (size_t i = 0; i < b->len; i++)
		n += csm_buf_ptr(b)[i] == '\n';
	assert_true(n > 0);
	return n - 1;
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

/* Two groups, of which the second one is committed; the log is closed. Its size before them. */
static off_t two_groups(bool first_committed, struct csm_audit_mark *mark)
{
	struct csm_audit *a = audit_attached(NULL);
	off_t before = size_now();

	(void)group(a, &kept[0], first_committed);
	*mark = group(a, &kept[1], true);
	csm_audit_close(a);
	return before;
}

static void lost_lines_come_back(void **state)
{
	static const char junk[] = "{\"seq\":9,\"time\":1,\"event\":\"x\",\"hash\":\"00\"}\nhalf a line";
	const size_t cuts[] = {0, 1, 100};
	struct csm_audit_mark mark;
	struct csm_audit *a;
	off_t before = two_groups(true, &mark);

	(void)state;
	assert_int_equal(lines_in(&kept[0]), 2);
	assert_int_equal(lines_in(&kept[1]), 2);
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
	off_t before = two_groups(false, &mark);

	(void)state;
	assert_int_equal(lines_in(&kept[1]), 4);
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
	struct csm_audit_mark mark;
	struct csm_audit *a;
	off_t before = two_groups(true, &mark);
	uint8_t *p;

	(void)state;
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

/* ---- audit.log as a whole is gone ---- */

static void assert_gone(const struct csm_audit *a, uint64_t first, uint64_t last)
{
	struct csm_audit_status st;

	csm_audit_status((struct csm_audit *)(uintptr_t)a, &st);
	assert_false(st.broken);
	assert_int_equal(st.gone_first, first);
	assert_int_equal(st.gone_last, last);
}

/* Restored from the first n of what was kept, then attached: as after a crash. */
static struct csm_audit *started_anew(size_t n, const struct csm_audit_mark *mark)
{
	struct csm_audit *a = audit_opened();

	for (size_t i = 0; i < n; i++)
		assert_int_equal(csm_audit_restore(a, bin(&kept[i])), 0);
	csm_audit_attach(a, mark->seq, mark->head, &audit_signer);
	return a;
}

/* One problem, with its place: lines first to last, at the first line of audit.log. */
static void assert_missing(const struct csm_audit_mark *head, uint64_t first, uint64_t last)
{
	assert_int_equal(audit_read(head), 0);
	assert_int_equal(audit_found.problems, 1);
	assert_int_equal(audit_found.first, CSM_CHAIN_DROPPED);
	assert_int_equal(audit_found.seq, first);
	assert_int_equal(audit_found.last, last);
	assert_int_equal(audit_found.line, 1);
	assert_string_equal(audit_found.file, "audit.log");
}

static void a_file_that_is_gone_gets_back_what_the_store_has(void **state)
{
	struct csm_audit_mark mark, later;
	struct csm_audit *a;
	uint64_t first;

	(void)state;
	(void)two_groups(true, &mark);
	first = mark.seq - 3;
	assert_int_equal(unlink(audit_file), 0);
	a = started_anew(2, &mark);
	assert_gone(a, 1, first - 1);
	assert_int_equal(audit_change(a, "a:later", &later), 0);
	assert_missing(&later, 1, first - 1);
	assert_int_equal(audit_count("change"), 5);
	assert_string_equal(audit_text(0, "event"), "missing");
	assert_int_equal(audit_number(0, "seq"), first - 1);
	assert_int_equal(audit_number(0, "first"), 1);
	assert_int_equal(audit_number(audit_index("start"), "last"), first - 1);
	csm_audit_close(a);
	/* That was told once: the next start finds the log as it was left, from wherever the store names it. */
	a = started_anew(2, &mark);
	assert_gone(a, 0, 0);
	csm_audit_close(a);
	assert_missing(NULL, 1, first - 1);
	assert_int_equal(audit_count("break"), 0);
}

/* The same without lines of the store's, and where the line that the store names is the one that stands for them. */
static void a_file_that_is_gone_is_told(void **state)
{
	struct csm_audit_mark mark, later;
	struct csm_audit *a = audit_attached(NULL);

	(void)state;
	assert_int_equal(audit_change(a, "a:key", &mark), 0);
	csm_audit_close(a);
	for (int i = 0; i < 2; i++) {
		if (i == 0)
			assert_int_equal(unlink(audit_file), 0);
		a = started_anew(0, &mark);
		assert_gone(a, i == 0, i == 0 ? mark.seq : 0);
		assert_int_equal(audit_change(a, "a:later", &later), 0);
		csm_audit_close(a);
		assert_missing(NULL, 1, mark.seq);
	}
	/* And once more, all of it. */
	assert_int_equal(unlink(audit_file), 0);
	a = started_anew(0, &later);
	assert_int_equal(audit_change(a, "a:last", &later), 0);
	csm_audit_close(a);
	audit_read(NULL);
	assert_int_equal(audit_found.problems, 1);
	assert_int_equal(audit_found.seq, 1);
}

/* Files that were filled before it: the gap is between them and it. */
static void a_gap_behind_older_files(void **state)
{
	struct csm_audit_mark mark, later;
	struct csm_audit *a;
	char names[8][64], other[200];
	uint64_t end;

	(void)state;
	a = audit_attached(NULL);
	assert_int_equal(audit_change(a, "a:key", &mark), 0);
	snprintf(other, sizeof(other), "%s/audit-000000000001.log", audit_folder);
	csm_audit_close(a);
	audit_read(NULL);
	end = (uint64_t)audit_number(audit_lines - 1, "seq");
	assert_int_equal(rename(audit_file, other), 0);
	/* The next file is there, to its first line: it comes back as it was. */
	a = audit_opened();
	mark = group(a, &kept[0], true);
	assert_int_equal(lines_in(&kept[0]), 2); /* its first line is synced */
	csm_audit_close(a);
	assert_int_equal(unlink(audit_file), 0);
	a = started_anew(1, &mark);
	assert_gone(a, end + 1, end + 1);
	assert_int_equal(audit_change(a, "a:later", &later), 0);
	csm_audit_close(a);
	assert_missing(NULL, end + 1, end + 1);
	assert_int_equal(audit_names(names, 8), 2);
	assert_int_equal(audit_count("change"), 4);
	/* Nothing of the older file is missing. */
	assert_int_equal(audit_found.notes, 0);
}

/* What the store has is believed as far as it leads to what it names. */
static void forged_lines_do_not_begin_a_file(void **state)
{
	struct csm_audit_mark mark;
	struct csm_audit_status st;
	struct csm_audit *a;
	uint8_t *p;

	(void)state;
	a = audit_attached(NULL);
	mark = group(a, &kept[0], true);
	csm_audit_close(a);
	assert_int_equal(unlink(audit_file), 0);
	p = memmem(kept[0].p, kept[0].len, "a:one", 5);
	assert_non_null(p);
	p[2] = 'x';
	a = audit_opened();
	assert_int_equal(csm_audit_restore(a, bin(&kept[0])), CSM_ENOT_FOUND);
	/* without the hash that they follow */
	p[2] = 'o';
	assert_int_equal(csm_audit_restore(a, (struct csm_bin){kept[0].p + 65, kept[0].len - 65}), CSM_ENOT_FOUND);
	csm_audit_attach(a, mark.seq, mark.head, &audit_signer);
	csm_audit_status(a, &st);
	assert_int_equal(st.gone_last, mark.seq);
	csm_audit_close(a);
	assert_missing(NULL, 1, mark.seq);
	assert_int_equal(audit_count("change"), 0);
}

/* The lines are found again, and put before the file that tells they were gone: then that is no fault any more. */
static void lines_that_are_found_again_fill_the_gap(void **state)
{
	struct csm_audit_mark mark, later;
	struct csm_audit *a = audit_attached(NULL);
	char other[200];

	(void)state;
	mark = group(a, &kept[0], true);
	snprintf(other, sizeof(other), "%s/audit-000000000001.log", audit_folder);
	assert_int_equal(rename(audit_file, audit_aside), 0);
	csm_audit_close(a);
	unlink(audit_file); /* what the stop has written */
	a = started_anew(0, &mark);
	assert_int_equal(audit_change(a, "a:later", &later), 0);
	csm_audit_close(a);
	assert_missing(NULL, 1, mark.seq);
	assert_int_equal(rename(audit_aside, other), 0);
	audit_assert_whole(NULL);
	assert_int_equal(audit_count("change"), 3);
	assert_int_equal(audit_found.notes, 1);
	/* Only a part of them. */
	assert_int_equal(truncate(other, 300), 0);
	audit_read(NULL);
	assert_true(audit_found.problems > 0);
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
		cmocka_unit_test_setup_teardown(a_file_that_is_gone_gets_back_what_the_store_has, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_that_is_gone_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(a_gap_behind_older_files, setup, teardown),
		cmocka_unit_test_setup_teardown(forged_lines_do_not_begin_a_file, setup, teardown),
		cmocka_unit_test_setup_teardown(lines_that_are_found_again_fill_the_gap, setup, teardown),
		cmocka_unit_test_setup_teardown(any_part_may_be_missing, setup, teardown),
		cmocka_unit_test_setup_teardown(junk_behind_the_named_line_is_cut_off, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
