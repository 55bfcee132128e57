#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/lib/auditfix.h"

/* The program's own clock: it stands until a test moves it. */
static time_t clock_now;

time_t time(time_t *ret)
{
	if (ret != NULL)
		*ret = clock_now;
	return clock_now;
}

static int setup(void **state)
{
	clock_now = 600000000;
	return audit_setup(state);
}

/* ---- one file after the other ---- */

/* So many changes in files of 4 KiB. */
static struct csm_audit *small_files(unsigned max_files, int changes, struct csm_audit_mark *mark)
{
	struct csm_audit *a;

	audit_options.max_size = 4096;
	audit_options.max_files = max_files;
	a = audit_attached(NULL);
	for (int i = 0; i < changes; i++)
		assert_int_equal(audit_change(a, "a:key", mark), 0);
	return a;
}

static void files_follow_one_another(void **state)
{
	char names[128][64];
	struct csm_audit_mark mark;
	struct csm_audit *a = small_files(100, 150, &mark);
	size_t n = audit_names(names, 128);

	(void)state;
	assert_in_range(n, 6, 20);
	assert_string_equal(names[0], "audit-000000000001.log");
	assert_string_equal(names[n - 1], "audit.log");
	audit_assert_whole(&mark);
	assert_int_equal(audit_count("change"), 150);
	assert_int_equal(audit_count("file"), n);
	assert_int_equal(audit_found.notes, 0);
	csm_audit_close(a);
	/* The administrator takes the first two away: a fact, not a fault. */
	for (size_t i = 0; i < 2; i++)
		audit_take_away(names[i]);
	audit_assert_whole(&mark);
	assert_int_equal(audit_found.notes, 1);
	/* One in the middle is missing. */
	audit_take_away(names[3]);
	audit_read(&mark);
	assert_int_equal(audit_found.problems, 1);
	assert_int_equal(audit_found.first, CSM_CHAIN_DROPPED);
	assert_int_equal(audit_found.line, 1);
	assert_string_equal(audit_found.file, names[4]);
}

static void the_oldest_files_go(void **state)
{
	char names[128][64];
	struct csm_audit_mark mark;
	struct csm_audit *a = small_files(3, 200, &mark);

	(void)state;
	assert_int_equal(audit_names(names, 128), 3);
	audit_assert_whole(&mark);
	assert_true(audit_count("removed") >= 1);
	/* And a new start goes on with the same numbers. */
	csm_audit_close(a);
	audit_assert_whole(NULL);
	mark = audit_last();
	a = audit_attached(&mark);
	csm_audit_close(a);
	audit_assert_whole(NULL);
	assert_true((uint64_t)audit_number(audit_lines - 1, "seq") > mark.seq);
}

static void a_full_disk_at_the_turn_of_a_file(void **state)
{
	struct csm_audit_mark mark;
	struct csm_audit *a;
	int i, refused = 0;

	(void)state;
	audit_options.max_size = 4096;
	audit_options.strict = true;
	a = audit_attached(NULL);
	for (rlim_t room = 0; room < 9000; room += 97) {
		for (i = 0; i < 3; i++)
			assert_int_equal(audit_change(a, "a:key", &mark), 0);
		audit_limit_file(room);
		for (i = 0; i < 3; i++)
			refused += audit_change(a, "a:refused", &mark) == CSM_EUNAVAILABLE;
		audit_limit_file(RLIM_INFINITY);
		csm_audit_tick(a);
		assert_false(csm_audit_refuses(a));
	}
	assert_in_range(refused, 50, 250);
	assert_int_equal(csm_audit_group(a, NULL, 0, NULL, &mark), 0);
	audit_assert_whole(&mark);
	csm_audit_close(a);
}

/* ---- what a start finds ---- */

static void put_at_end(const char *text, size_t n)
{
	int fd = open(audit_file, O_WRONLY | O_APPEND | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, n), n);
	close(fd);
}

static struct csm_audit_mark some_lines(int n)
{
	struct csm_audit *a = audit_attached(NULL);
	struct csm_audit_mark mark = {0};

	for (int i = 0; i < n; i++)
		assert_int_equal(audit_change(a, "a:key", &mark), 0);
	csm_audit_close(a);
	audit_read(NULL);
	mark = audit_last();
	return mark;
}

static void half_a_line_is_taken_off_and_told(void **state)
{
	static const char torn[] = "{\"seq\":8,\"time\":6000";
	static const char zeros[300];
	struct csm_audit_mark mark = some_lines(3);
	struct csm_audit_status st;
	struct csm_audit *a;

	(void)state;
	put_at_end(torn, sizeof(torn) - 1);
	audit_read(NULL);
	assert_int_equal(audit_found.first, CSM_CHAIN_CUT);
	a = audit_attached(&mark);
	csm_audit_status(a, &st);
	assert_false(st.broken);
	csm_audit_close(a);
	audit_assert_whole(NULL);
	assert_int_equal(audit_found.notes, 1);
	assert_int_equal(audit_number(audit_index("repaired"), "bytes"), sizeof(torn) - 1);
	/* What a power cut leaves of pages that were never written. */
	put_at_end(zeros, sizeof(zeros));
	a = audit_attached(&mark);
	csm_audit_close(a);
	audit_assert_whole(NULL);
	assert_int_equal(audit_count("repaired"), 2);
}

static void a_crash_before_the_first_line(void **state)
{
	struct csm_audit_mark mark;
	struct csm_audit *a;
	int fd;

	(void)state;
	assert_int_equal(mkdir(audit_folder, 0700), 0);
	fd = open(audit_file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	a = audit_attached(NULL);
	assert_int_equal(audit_change(a, "a:key", &mark), 0);
	audit_assert_whole(&mark);
	csm_audit_close(a);
}

/* Each line taken off the end, while csmd was down: found at the start, told in the log, and found again in the log. */
static void a_cut_end_is_told_and_stays_visible(void **state)
{
	struct csm_audit_mark mark = some_lines(5), after;
	struct csm_audit_status st;
	struct csm_audit *a;
	char text[65536], *end;
	ssize_t n;
	int fd = open(audit_file, O_RDWR | O_CLOEXEC);

	(void)state;
	n = read(fd, text, sizeof(text) - 1);
	assert_true(n > 0);
	text[n] = '\0';
	text[n - 1] = '\0'; /* the last newline */
	end = strrchr(text, '\n');
	assert_int_equal(ftruncate(fd, end + 1 - text), 0);
	close(fd);
	a = audit_attached(&mark);
	csm_audit_status(a, &st);
	assert_true(st.broken);
	assert_int_equal(audit_change(a, "a:later", &after), 0);
	assert_int_equal(audit_read(&after), 0);
	assert_int_equal(audit_found.problems, 2); /* what csmd says, and the missing number */
	assert_int_equal(audit_found.seq, mark.seq + 1);
	assert_string_equal(audit_text(audit_index("break"), "reason"), "line 10, which the store names last, is not there");
	csm_audit_close(a);
	/* The next start has nothing new to say. */
	audit_read(NULL);
	mark = audit_last();
	a = audit_attached(&mark);
	csm_audit_status(a, &st);
	assert_false(st.broken);
	csm_audit_close(a);
	audit_read(NULL);
	assert_int_equal(audit_count("break"), 1);
}

/* The log was made anew as a whole: it fits, but it is not what the store names. */
static void another_log_is_told(void **state)
{
	struct csm_audit_mark mark = some_lines(5);
	struct csm_audit_status st;
	struct csm_audit *a;

	(void)state;
	mark.head[0] ^= 1;
	mark.seq -= 2;
	a = audit_attached(&mark);
	csm_audit_status(a, &st);
	assert_true(st.broken);
	csm_audit_close(a);
	audit_read(NULL);
	assert_int_equal(audit_found.problems, 1);
	assert_string_equal(audit_text(audit_index("break"), "reason"), "line 8, which the store names last, is another one");
}

static void lines_that_do_not_follow_are_told(void **state)
{
	static const char garbage[] = "{\"seq\":9,\"time\":6000}\n";
	struct csm_audit_mark mark = some_lines(3);
	struct csm_audit_status st;
	struct csm_audit *a;

	(void)state;
	put_at_end(garbage, sizeof(garbage) - 1);
	a = audit_attached(&mark);
	csm_audit_status(a, &st);
	assert_true(st.broken);
	csm_audit_close(a);
	audit_read(NULL);
	assert_int_equal(audit_found.problems, 2);
	assert_int_equal(audit_found.seq, 9);
	assert_int_equal(audit_count("break"), 1);
}

/* audit.log was moved away while csmd was down: numbers go on behind what the store names, and what is gone is told. */
static void a_log_that_was_moved_away(void **state)
{
	struct csm_audit_mark mark = some_lines(3), after;
	struct csm_audit_status st;
	struct csm_audit *a;

	(void)state;
	assert_int_equal(unlink(audit_file), 0);
	a = audit_attached(&mark);
	csm_audit_status(a, &st);
	assert_false(st.broken);
	assert_int_equal(st.gone_last, mark.seq);
	assert_int_equal(audit_change(a, "a:key", &after), 0);
	csm_audit_close(a);
	audit_read(&after);
	assert_int_equal(audit_number(0, "seq"), mark.seq);
	assert_int_equal(audit_found.problems, 1);
	assert_int_equal(audit_found.first, CSM_CHAIN_DROPPED);
	assert_int_equal(audit_found.last, mark.seq);
}

/* Or while csmd runs; then the moved file and the new one are one log. */
static void a_log_that_is_moved_away_or_replaced(void **state)
{
	struct csm_audit *a = audit_attached(NULL);
	struct csm_audit_mark mark;
	char other[160];
	int fd;

	(void)state;
	snprintf(other, sizeof(other), "%s/audit-000000000001.log", audit_folder);
	assert_int_equal(audit_change(a, "a:one", &mark), 0);
	assert_int_equal(rename(audit_file, other), 0);
	assert_int_equal(audit_change(a, "a:two", &mark), 0);
	audit_assert_whole(&mark);
	assert_int_equal(audit_count("change"), 2);
	assert_int_equal(audit_count("file"), 2);
	/* Another file in its place does not do. */
	snprintf(other, sizeof(other), "%s/audit-000000000006.log", audit_folder);
	assert_int_equal(rename(audit_file, other), 0);
	fd = open(audit_file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(audit_change(a, "a:three", &mark), 0);
	audit_read(&mark);
	assert_int_equal(audit_found.problems, 1);
	assert_int_equal(audit_count("break"), 1);
	assert_int_equal(audit_count("change"), 3);
	csm_audit_close(a);
}

/* A file that is no audit log, as of a version without a chain, is kept under another name. */
static void a_foreign_file_is_put_aside(void **state)
{
	static const char plain[] = "{\"time\":1,\"event\":\"change\"}\n{\"time\":2}\n";
	struct csm_audit *a = audit_attached(NULL);
	char names[8][64];

	(void)state;
	csm_audit_close(a);
	assert_int_equal(truncate(audit_file, 0), 0);
	put_at_end(plain, sizeof(plain) - 1);
	a = audit_attached(NULL);
	csm_audit_close(a);
	audit_assert_whole(NULL);
	assert_int_equal(audit_names(names, 8), 2);
	assert_string_equal(names[1], "damaged-600000000.log");
}

static void long_logs_end_where_they_end(void **state)
{
	struct csm_audit_mark mark, old;
	struct csm_audit *a = audit_attached(NULL);
	struct csm_audit_event many[200];
	struct csm_audit_status st;

	(void)state;
	for (size_t i = 0; i < 200; i++)
		many[i] = audit_event_of(CSM_AUDIT_CHANGE, "secret.set", 1, "a:b/c");
	assert_int_equal(csm_audit_group(a, many, 200, NULL, &old), 0);
	for (size_t i = 0; i < 30; i++)
		assert_int_equal(csm_audit_group(a, many, 200, NULL, &mark), 0);
	audit_assert_whole(&mark);
	assert_true(audit_count("checkpoint") >= 5); /* one for some thousand lines */
	csm_audit_close(a);
	/* Found far from the end, and when it is another one. */
	a = audit_attached(&old);
	csm_audit_status(a, &st);
	assert_false(st.broken);
	csm_audit_close(a);
	old.head[5] ^= 1;
	a = audit_attached(&old);
	csm_audit_status(a, &st);
	assert_true(st.broken);
	csm_audit_close(a);
}

static void checkpoints_come_with_time(void **state)
{
	struct csm_audit *a = audit_attached(NULL);
	struct csm_audit_mark mark;

	(void)state;
	assert_int_equal(audit_change(a, "a:key", &mark), 0);
	clock_now += 3599;
	csm_audit_tick(a);
	audit_assert_whole(NULL);
	assert_int_equal(audit_count("checkpoint"), 1);
	for (int i = 0; i < 5; i++) {
		clock_now += 3600;
		csm_audit_tick(a);
	}
	audit_assert_whole(NULL);
	assert_int_equal(audit_count("checkpoint"), 2); /* no more than one where nothing happened */
	csm_audit_close(a);
}

static void where_there_is_no_file(void **state)
{
	struct csm_audit *a = NULL;
	char path[128];

	(void)state;
	snprintf(path, sizeof(path), "%s/none/audit", audit_folder);
	audit_options.dir = path;
	assert_int_equal(csm_audit_open(&audit_options, &a), CSM_ESYSTEM);
	/* A link to somewhere else is not followed. */
	audit_options.dir = audit_folder;
	assert_int_equal(mkdir(audit_folder, 0700), 0);
	assert_int_equal(symlink("/dev/null", audit_file), 0);
	assert_int_equal(csm_audit_open(&audit_options, &a), CSM_ESYSTEM);
	assert_int_equal(unlink(audit_file), 0);
	assert_int_equal(mkdir(audit_file, 0700), 0);
	assert_int_equal(csm_audit_open(&audit_options, &a), CSM_ESYSTEM);
	assert_int_equal(rmdir(audit_file), 0);
	assert_null(a);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, audit_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(files_follow_one_another),
		TEST(the_oldest_files_go),
		TEST(a_full_disk_at_the_turn_of_a_file),
		TEST(half_a_line_is_taken_off_and_told),
		TEST(a_crash_before_the_first_line),
		TEST(a_cut_end_is_told_and_stays_visible),
		TEST(another_log_is_told),
		TEST(lines_that_do_not_follow_are_told),
		TEST(a_log_that_was_moved_away),
		TEST(a_log_that_is_moved_away_or_replaced),
		TEST(a_foreign_file_is_put_aside),
		TEST(long_logs_end_where_they_end),
		TEST(checkpoints_come_with_time),
		TEST(where_there_is_no_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
