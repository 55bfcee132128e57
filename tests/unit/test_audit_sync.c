/* A sync of the audit log fails, and the kernel drops what it could not write: nothing that was acknowledged is missing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/lib/auditfix.h"

#define FILE_MAX (16u << 20)

/* ---- a disk that fails ---- */

static struct {
	pthread_mutex_t lock;
	unsigned skip, fail; /* after so many, so many syncs fail */
	unsigned failed, n;  /* so many have, of so many */
	uint8_t *disk;       /* what the last good sync has put there */
	size_t size;
	ino_t ino;
} d = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int of_fd(int fd)
{
	char link[64];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	return open(link, O_RDWR | O_CLOEXEC);
}

/* What was not synced is what stood there before, or zeros; the size stays. */
static void drop_pages(int fd)
{
	static const uint8_t zeros[4096];
	int own = of_fd(fd);
	struct stat st;

	assert_true(own >= 0);
	assert_int_equal(fstat(own, &st), 0);
	if (st.st_ino != d.ino)
		d.size = 0;
	assert_int_equal(pwrite(own, d.disk, d.size, 0), d.size);
	for (off_t at = (off_t)d.size; at < st.st_size;) {
		size_t n = st.st_size - at < (off_t)sizeof(zeros) ? (size_t)(st.st_size - at) : sizeof(zeros);

		assert_int_equal(pwrite(own, zeros, n, at), n);
		at += (off_t)n;
	}
	close(own);
}

static void reach_disk(int fd)
{
	int own = of_fd(fd);
	struct stat st;
	ssize_t n;

	assert_true(own >= 0);
	n = pread(own, d.disk, FILE_MAX, 0);
	assert_in_range(n, 0, FILE_MAX - 1);
	assert_int_equal(fstat(own, &st), 0);
	d.ino = st.st_ino;
	d.size = (size_t)n;
	close(own);
}

int fdatasync(int fd)
{
	int r = 0;

	pthread_mutex_lock(&d.lock);
	d.n++;
	if (d.skip > 0) {
		d.skip--;
		reach_disk(fd);
	} else if (d.fail > 0) {
		d.fail--;
		d.failed++;
		drop_pages(fd);
		r = -1;
	} else {
		reach_disk(fd);
	}
	pthread_mutex_unlock(&d.lock);
	errno = EIO;
	return r;
}

static void fail_next(unsigned n)
{
	pthread_mutex_lock(&d.lock);
	d.fail = n;
	pthread_mutex_unlock(&d.lock);
}

static int setup(void **state)
{
	d.skip = d.fail = d.failed = d.n = 0;
	d.size = 0;
	d.disk = malloc(FILE_MAX);
	return d.disk == NULL ? -1 : audit_setup(state);
}

static int teardown(void **state)
{
	free(d.disk);
	return audit_teardown(state);
}

static void assert_all_there(const struct csm_audit_mark *mark, size_t changes, size_t denied)
{
	audit_assert_whole(mark);
	assert_int_equal(audit_count("change"), changes);
	assert_int_equal(audit_count("denied"), denied);
}

static struct csm_audit_mark kept_in(struct csm_audit *a, struct csm_buf *keep)
{
	struct csm_audit_event e = audit_event_of(CSM_AUDIT_CHANGE, "key.create", 1000, "a:kept");
	struct csm_audit_mark mark;

	csm_buf_init(keep, 1u << 24, false);
	assert_int_equal(csm_audit_group(a, &e, 1, keep, &mark), 0);
	csm_audit_anchored(a, &mark);
	return mark;
}

static struct csm_audit_mark kept_change(struct csm_audit *a)
{
	struct csm_buf keep;
	struct csm_audit_mark mark = kept_in(a, &keep);

	csm_buf_free(&keep);
	return mark;
}

/* ---- */

/* Denials: the second one's sync fails, and what it wrote is gone from the page cache. */
static void what_a_failed_sync_lost_is_written_again(void **state)
{
	struct csm_audit *a = audit_attached(NULL);
	struct csm_audit_status st;
	struct csm_audit_mark mark;

	(void)state;
	for (unsigned failures = 1; failures <= 3; failures++) {
		assert_int_equal(audit_change(a, "a:key", &mark), 0);
		fail_next(failures);
		audit_denied(a, "key.sign", 7);
		csm_audit_tick(a); /* and what follows in it fails, too */
		for (unsigned i = 0; i < failures; i++)
			csm_audit_tick(a);
		assert_int_equal(d.fail, 0);
		csm_audit_status(a, &st);
		assert_false(st.failing);
		assert_int_equal(csm_audit_group(a, NULL, 0, NULL, &mark), 0);
		assert_all_there(&mark, failures, failures);
	}
	assert_int_equal(d.failed, 6);
	csm_audit_close(a);
}

/* Changes whose lines the store keeps: it may forget them only when they are really there. */
static void kept_lines_stay_kept_until_a_sync_was_good(void **state)
{
	struct csm_audit *a = audit_attached(NULL);
	uint64_t synced = csm_audit_synced(a);
	struct csm_audit_mark mark;

	(void)state;
	for (int i = 0; i < 5; i++)
		mark = kept_change(a);
	fail_next(2); /* it is tried a second time at once */
	csm_audit_tick(a);
	assert_int_equal(d.failed, 2);
	assert_true(csm_audit_synced(a) < mark.seq);
	assert_int_equal(csm_audit_synced(a), synced);
	/* Changes go on meanwhile. */
	mark = kept_change(a);
	csm_audit_tick(a);
	assert_true(csm_audit_synced(a) >= mark.seq);
	assert_all_there(NULL, 6, 0);
	csm_audit_close(a);
	/* What is on the disk, and not only in the page cache. */
	audit_read(NULL);
	assert_int_equal(d.size, audit_file_size());
}

/* At the turn of a file, of a file that was moved away, and at the end. */
static void each_place_that_syncs(void **state)
{
	struct csm_audit_mark mark;
	struct csm_audit *a;
	char other[200];

	(void)state;
	audit_options.max_size = 4096;
	audit_options.max_files = 100;
	a = audit_attached(NULL);
	for (unsigned i = 0; i < 400; i++) {
		if (i % 3 == 0)
			fail_next(i % 4);
		mark = kept_change(a);
		if (i % 7 == 0)
			csm_audit_tick(a);
	}
	assert_true(d.failed > 20);
	fail_next(0);
	csm_audit_tick(a);
	assert_all_there(NULL, 400, 0);
	assert_true(audit_count("file") > 10);
	assert_int_equal(audit_count("gap"), 0);
	(void)kept_change(a);
	fail_next(2);
	csm_audit_tick(a);
	snprintf(other, sizeof(other), "%s/audit-%012llu.log", audit_folder, (unsigned long long)mark.seq);
	assert_int_equal(rename(audit_file, other), 0);
	(void)kept_change(a);
	csm_audit_tick(a);
	assert_all_there(NULL, 402, 0);
	fail_next(1);
	csm_audit_close(a);
	assert_all_there(NULL, 402, 0);
}

/* The sync of a new file fails, and with the crash its name is gone: the store has all of it, from its first line on. */
static void a_new_file_that_never_reached_the_disk(void **state)
{
	struct csm_audit_mark mark = {0};
	struct csm_audit_status st;
	struct csm_audit *a;
	struct csm_buf keep;
	bool turned = false;

	(void)state;
	audit_options.max_size = 4096;
	a = audit_attached(NULL);
	for (int i = 0; i < 100 && !turned; i++) {
		/* Of the old file, before and after its last checkpoint, then of the new one. */
		d.skip = 2;
		fail_next(1);
		mark = kept_in(a, &keep);
		turned = memmem(csm_buf_ptr(&keep), keep.len, "\"event\":\"file\"", 14) != NULL;
		if (!turned)
			csm_buf_free(&keep);
		d.skip = 0;
		fail_next(0);
	}
	assert_true(turned);
	assert_int_equal(rename(audit_file, audit_aside), 0);
	csm_audit_close(a);
	unlink(audit_file); /* what the end has written */
	a = audit_opened();
	assert_int_equal(csm_audit_restore(a, (struct csm_bin){csm_buf_ptr(&keep), keep.len}), 0);
	csm_audit_attach(a, mark.seq, mark.head, &audit_signer);
	csm_audit_status(a, &st);
	assert_false(st.broken);
	assert_int_equal(st.gone_last, 0);
	csm_audit_close(a);
	audit_assert_whole(&mark);
	assert_int_equal(audit_count("missing"), 0);
	csm_buf_free(&keep);
}

/* So much as may wait is written before more comes; when that fails for long, the log fails, and goes on later. */
static void what_waits_is_bounded(void **state)
{
	struct csm_audit *a = audit_attached(NULL);
	struct csm_audit_event e[200];
	struct csm_audit_mark mark;
	struct csm_audit_status st;
	struct csm_buf keep;
	size_t told = 0;

	(void)state;
	for (size_t i = 0; i < 200; i++)
		e[i] = audit_event_of(CSM_AUDIT_CHANGE, "key.create", 1000, "a:kept");
	csm_buf_init(&keep, 1u << 24, false);
	for (size_t i = 0; i < 300; i++) {
		csm_buf_reset(&keep);
		fail_next(5);
		assert_int_equal(csm_audit_group(a, e, 200, &keep, &mark), 0);
		if (!mark.kept)
			break;
		csm_audit_anchored(a, &mark);
		told += 200;
	}
	/* Some 8 MiB of lines of 200 bytes. */
	assert_in_range(told, 20000, 55000);
	fail_next(0);
	csm_audit_tick(a);
	csm_audit_status(a, &st);
	assert_false(st.failing);
	assert_int_equal(st.lost, 0);
	assert_int_equal(csm_audit_group(a, NULL, 0, NULL, &mark), 0);
	audit_assert_whole(&mark);
	assert_int_equal(audit_found.notes, 1); /* the gap */
	csm_audit_close(a);
	csm_buf_free(&keep);
}

struct worker {
	pthread_t thread;
	struct csm_audit *a;
};

static void *work(void *arg)
{
	struct worker *w = arg;

	for (int i = 0; i < 50; i++) {
		struct csm_audit_event e = audit_event_of(CSM_AUDIT_CHANGE, "key.create", 1000, "a:key");
		struct csm_audit_mark mark;

		/* Strict: what is told is durable. */
		while (csm_audit_group(w->a, &e, 1, NULL, &mark) != 0)
			fail_next(0);
		if (i % 5 == 0)
			fail_next(1);
	}
	return NULL;
}

/* Of several that sync at once only one is told that it failed: none of them takes that for its own success. */
static void threads_do_not_take_each_others_failure_for_success(void **state)
{
	struct worker w[4];
	struct csm_audit *a;

	(void)state;
	audit_options.strict = true;
	a = audit_attached(NULL);
	for (size_t i = 0; i < 4; i++) {
		w[i].a = a;
		assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
	}
	for (size_t i = 0; i < 4; i++)
		pthread_join(w[i].thread, NULL);
	fail_next(0);
	csm_audit_tick(a);
	audit_assert_whole(NULL);
	assert_true(audit_count("change") >= 200);
	assert_true(d.failed > 3);
	csm_audit_close(a);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(what_a_failed_sync_lost_is_written_again),
		TEST(kept_lines_stay_kept_until_a_sync_was_good),
		TEST(each_place_that_syncs),
		TEST(a_new_file_that_never_reached_the_disk),
		TEST(what_waits_is_bounded),
		TEST(threads_do_not_take_each_others_failure_for_success),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
