#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "proto-spec/limits.h"
#include "tests/lib/auditfix.h"

/* The program's own clock: it stands until a test moves it. */
static time_t clock_now;
/* And what takes half a line back: it can fail. */
static bool no_truncate;

time_t time(time_t *ret)
{
	if (ret != NULL)
		*ret = clock_now;
	return clock_now;
}

int ftruncate(int fd, off_t size)
{
	if (no_truncate) {
		errno = EIO;
		return -1;
	}
	return (int)syscall(SYS_ftruncate, fd, size);
}

static int setup(void **state)
{
	no_truncate = false;
	clock_now = 600000000;
	return audit_setup(state);
}

/* ---- what is written ---- */

static void a_change_is_there_when_the_group_is(void **state)
{
	struct csm_audit *a = audit_attached(NULL);
	struct csm_audit_event two[2] = {audit_event_of(CSM_AUDIT_CHANGE, "key.create", 1000, "uid-1000:k \"q\" \xc3\xa9"),
		audit_event_of(CSM_AUDIT_CHANGE, "key.delete", 1000, "uid-1000:k\n\x01\xff")};
	struct csm_audit_mark mark;
	struct stat st;

	(void)state;
	assert_int_equal(csm_audit_group(a, two, 2, NULL, &mark), 0);
	audit_assert_whole(&mark);
	assert_int_equal(audit_lines, 5);
	assert_string_equal(audit_text(0, "event"), "file");
	assert_string_equal(audit_text(1, "event"), "start");
	assert_string_equal(audit_text(2, "event"), "checkpoint");
	assert_string_equal(audit_text(3, "event"), "change");
	assert_string_equal(audit_text(3, "method"), "key.create");
	assert_string_equal(audit_text(3, "object"), "uid-1000:k \"q\" \xc3\xa9");
	assert_string_equal(audit_text(4, "object"), "uid-1000:k???");
	assert_string_equal(audit_text(3, "result"), "ok");
	assert_int_equal(audit_number(3, "seq"), 4);
	assert_int_equal(audit_number(3, "uid"), 1000);
	assert_int_equal(audit_number(3, "pid"), 77);
	assert_int_equal(audit_number(3, "time"), 600000000);
	assert_int_equal(mark.first, 4);
	assert_int_equal(mark.last, 5);
	assert_int_equal(mark.seq, 5);
	assert_int_equal(stat(audit_file, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(stat(audit_folder, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	/* The head without an event is the same one; the store names it. */
	assert_true(csm_audit_behind(a));
	csm_audit_anchored(a, &mark);
	assert_false(csm_audit_behind(a));
	assert_int_equal(csm_audit_group(a, NULL, 0, NULL, &mark), 0);
	assert_int_equal(mark.seq, 5);
	assert_int_equal(mark.first, 0);
	/* What is taken back says of which lines. */
	csm_audit_undone(a, 4, 5, "system");
	audit_assert_whole(NULL);
	assert_int_equal(audit_number(5, "first"), 4);
	assert_int_equal(audit_number(5, "last"), 5);
	csm_audit_close(a);
	csm_audit_close(NULL);
	audit_assert_whole(NULL);
	assert_string_equal(audit_text(6, "event"), "stop");
	assert_string_equal(audit_text(7, "event"), "checkpoint");
}

static void ten_denials_have_lines_the_rest_a_count(void **state)
{
	struct csm_audit *a = audit_opened();

	(void)state;
	audit_done = 0;
	for (int i = 0; i < 25; i++)
		audit_denied(a, i % 2 ? "key.sign" : "key.show", 1000);
	/* Somebody else has ten lines too. */
	audit_denied(a, "key.sign", 1001);
	assert_int_equal(audit_done, 0); /* not before they are durable */
	csm_audit_tick(a);
	assert_int_equal(audit_done, 11);
	audit_assert_whole(NULL);
	assert_int_equal(audit_count("denied"), 11);
	clock_now += 60;
	csm_audit_tick(a);
	audit_assert_whole(NULL);
	assert_int_equal(audit_count("denied"), 12);
	assert_string_equal(audit_text(audit_lines - 1, "method"), "*");
	assert_int_equal(audit_number(audit_lines - 1, "uid"), 1000);
	assert_int_equal(audit_number(audit_lines - 1, "count"), 15);
	/* A new minute begins anew. */
	for (int i = 0; i < 10; i++)
		audit_denied(a, "key.sign", 1000);
	clock_now += 60;
	csm_audit_tick(a);
	audit_assert_whole(NULL);
	assert_int_equal(audit_count("denied"), 22);
	csm_audit_close(a);
}

/* Many uids have ten lines each: more than are made together, all of them written, none of it a failing log. */
static void a_flood_by_many_uids_is_written(void **state)
{
	struct csm_audit_status st;
	char long_name[500];
	struct csm_audit *a;

	(void)state;
	memset(long_name, 'x', sizeof(long_name));
	long_name[sizeof(long_name) - 1] = '\0';
	audit_options.strict = true;
	a = audit_opened();
	audit_done = 0;
	for (uid_t uid = 0; uid < 200; uid++)
		for (int i = 0; i < 10; i++)
			audit_denied(a, long_name, 60000 + uid);
	csm_audit_tick(a);
	assert_int_equal(audit_done, 2000);
	assert_int_equal(audit_last_r, 0);
	csm_audit_status(a, &st);
	assert_false(st.failing);
	assert_int_equal(st.lost, 0);
	audit_assert_whole(NULL);
	assert_int_equal(audit_count("denied"), 2000);
	assert_int_equal(audit_count("gap"), 0);
	csm_audit_close(a);
}

/* What waits is bounded: further ones are counted, and nobody's first ten are lost. */
static void while_too_many_wait_denials_are_counted(void **state)
{
	struct csm_audit *a = audit_opened();
	json_int_t counted = 0;

	(void)state;
	audit_done = 0;
	for (uid_t uid = 0; uid < 500; uid++)
		for (int i = 0; i < 10; i++)
			audit_denied(a, "key.sign", 60000 + uid);
	csm_audit_tick(a);
	assert_int_equal(audit_done, 4096);
	audit_denied(a, "key.sign", 60499); /* there is room again */
	csm_audit_tick(a);
	assert_int_equal(audit_done, 4097);
	clock_now += 60;
	csm_audit_tick(a);
	audit_assert_whole(NULL);
	for (size_t i = 0; i < audit_lines; i++)
		if (audit_number(i, "count") > 0)
			counted += audit_number(i, "count");
	assert_int_equal(audit_count("denied") - 91, 4097); /* 91 uids have a line of their count */
	assert_int_equal(counted, 5000 - 4096);
	csm_audit_close(a);
}

static void uses_are_counted_by_identity_object_and_minute(void **state)
{
	struct csm_audit *a = audit_opened();
	struct csm_audit_uses *u[2];
	json_int_t total = 0;

	(void)state;
	assert_int_equal(csm_audit_uses_new(a, &u[0]), 0);
	assert_int_equal(csm_audit_uses_new(a, &u[1]), 0);
	for (int i = 0; i < 100; i++)
		csm_audit_use(u[i % 3 == 0], "key.sign", 1000, NULL, i % 4 ? CSM_STR("uid-1000:a") : CSM_STR("uid-1000:b"));
	csm_audit_use(u[0], "key.decrypt", 1000, NULL, CSM_STR("uid-1000:a"));
	csm_audit_use(u[1], "key.sign", 1001, NULL, CSM_STR("uid-1000:a"));
	csm_audit_tick(a);
	assert_int_equal(access(audit_file, F_OK), -1);
	clock_now += 60;
	csm_audit_tick(a);
	audit_assert_whole(NULL);
	assert_int_equal(audit_count("use"), 4);
	for (size_t i = 0; i < audit_lines; i++) {
		if (strcmp(audit_text(i, "event"), "use") != 0)
			continue;
		total += audit_number(i, "count");
		if (audit_number(i, "uid") == 1000 && strcmp(audit_text(i, "method"), "key.sign") == 0)
			assert_int_equal(audit_number(i, "count"), strcmp(audit_text(i, "object"), "uid-1000:a") == 0 ? 75 : 25);
	}
	assert_int_equal(total, 102);
	/* What the last minute has counted is written at the end, also of who has gone before. */
	csm_audit_use(u[0], "key.sign", 1000, NULL, CSM_STR("uid-1000:a"));
	csm_audit_uses_free(u[0]);
	csm_audit_uses_free(u[1]);
	csm_audit_uses_free(NULL);
	csm_audit_close(a);
	audit_assert_whole(NULL);
	assert_int_equal(audit_count("use"), 5);
	assert_int_equal(audit_number(audit_lines - 1, "count"), 1);
}

/* Where a process runs is in its lines: bounded, escaped, and told apart in counts. */
static void lines_tell_unit_pod_and_container(void **state)
{
	char long_unit[300], odd[] = "a\\x2d\"b\n\xff.service", pod[] = "0123-pod", container[] = "c0ffee";
	struct csm_facts facts = {.unit = odd, .pod = pod, .container = container}, other = {.unit = long_unit}, none = {0};
	struct csm_audit_event e = audit_event_of(CSM_AUDIT_CHANGE, "key.create", 1000, "uid-1000:k");
	struct csm_audit *a = audit_attached(NULL);
	struct csm_audit_place *p, *same, *q, *nowhere;
	struct csm_audit_uses *u;
	struct csm_audit_mark mark;

	(void)state;
	memset(long_unit, '"', sizeof(long_unit) - 1);
	long_unit[sizeof(long_unit) - 1] = '\0';
	assert_int_equal(csm_audit_place_new(&facts, &p), 0);
	assert_int_equal(csm_audit_place_new(&facts, &same), 0);
	assert_int_equal(csm_audit_place_new(&other, &q), 0);
	assert_int_equal(csm_audit_place_new(&none, &nowhere), 0);
	assert_null(nowhere);
	e.place = p;
	assert_int_equal(csm_audit_group(a, &e, 1, NULL, &mark), 0);
	e.place = q;
	assert_int_equal(csm_audit_group(a, &e, 1, NULL, &mark), 0);
	assert_int_equal(csm_audit_uses_new(a, &u), 0);
	for (int i = 0; i < 12; i++)
		csm_audit_use(u, "key.sign", 1000, i % 4 == 0 ? q : i % 4 == 1 ? NULL : i % 4 == 2 ? p : same, CSM_STR("uid-1000:a"));
	csm_audit_place_unref(p);
	csm_audit_place_unref(same);
	csm_audit_place_unref(csm_audit_place_ref(q));
	csm_audit_place_unref(q);
	csm_audit_place_unref(NULL);
	clock_now += 60;
	csm_audit_tick(a);
	audit_assert_whole(NULL);
	assert_string_equal(audit_text(3, "unit"), "a\\x2d\"b??.service");
	assert_string_equal(audit_text(3, "pod"), "0123-pod");
	assert_string_equal(audit_text(3, "container"), "c0ffee");
	assert_string_equal(audit_text(3, "object"), "uid-1000:k");
	assert_int_equal(strlen(audit_text(4, "unit")), 80); /* of 160 characters, escaped */
	assert_string_equal(audit_text(4, "pod"), "(none)");
	assert_int_equal(audit_count("use"), 3);
	for (size_t i = audit_lines - 3; i < audit_lines; i++)
		assert_int_equal(audit_number(i, "count"), strcmp(audit_text(i, "pod"), "0123-pod") == 0 ? 6 : 3);
	csm_audit_uses_free(u);
	csm_audit_close(a);
}

/* The longest that all parts of a line can be. */
static void the_longest_line_fits(void **state)
{
	static char any[400], object[CSM_SECRETREF_MAX + 1];
	struct csm_facts facts = {.unit = any, .user_unit = any, .pod = any, .container = any};
	struct csm_audit_event e = {.kind = CSM_AUDIT_DENIED, .method = "namespace.delete", .uid = (uid_t)-2, .pid = 2147483647,
		.result = "unsupported_field"};
	struct csm_audit *a = audit_attached(NULL);
	struct csm_audit_mark mark;
	struct csm_audit_place *p;

	(void)state;
	memset(any, '\\', sizeof(any) - 1);
	memset(object, '"', sizeof(object) - 1);
	e.object = csm_str_of(object);
	assert_int_equal(csm_audit_place_new(&facts, &p), 0);
	e.place = p;
	assert_int_equal(csm_audit_group(a, &e, 1, NULL, &mark), 0);
	audit_assert_whole(&mark);
	assert_string_equal(audit_text(3, "object"), object);
	csm_audit_place_unref(p);
	csm_audit_close(a);
}

/* Names without end cost memory with an end; no use is lost from the sum. */
static void many_objects_share_a_row(void **state)
{
	struct csm_audit *a = audit_opened();
	struct csm_audit_uses *u;
	json_int_t total = 0, others = 0;
	char name[32];

	(void)state;
	assert_int_equal(csm_audit_uses_new(a, &u), 0);
	for (int i = 0; i < 6000; i++) {
		snprintf(name, sizeof(name), "uid-1000:k%d", i);
		csm_audit_use(u, "key.sign", 1000, NULL, csm_str_of(name));
	}
	csm_audit_uses_free(u);
	csm_audit_close(a);
	audit_assert_whole(NULL);
	for (size_t i = 0; i < audit_lines; i++) {
		if (strcmp(audit_text(i, "event"), "use") != 0)
			continue;
		total += audit_number(i, "count");
		if (strcmp(audit_text(i, "object"), "(others)") == 0)
			others += audit_number(i, "count");
	}
	assert_int_equal(total, 6000);
	assert_in_range(audit_count("use"), 4096, 4097);
	assert_in_range(others, 6000 - 4096, 6000 - 4096 + 2); /* tables are put together in any order */
}

/* ---- what cannot be written ---- */

static void normal_mode_goes_on_and_tells_the_gap(void **state)
{
	struct csm_audit *a = audit_attached(NULL);
	struct csm_audit_mark before, during, after;
	struct csm_audit_status st;

	(void)state;
	assert_int_equal(audit_change(a, "a:one", &before), 0);
	audit_limit_file(audit_file_size() + 20);
	assert_int_equal(audit_change(a, "a:two", &during), 0);
	assert_int_equal(audit_change(a, "a:three", &during), 0);
	assert_int_equal(during.seq, before.seq);
	assert_int_equal(during.first, 0);
	assert_memory_equal(during.head, before.head, 32);
	audit_done = 0;
	audit_denied(a, "key.sign", 7);
	csm_audit_tick(a);
	assert_int_equal(audit_done, 1);
	assert_int_equal(audit_last_r, 0);
	csm_audit_status(a, &st);
	assert_true(st.failing);
	assert_int_equal(st.error, EFBIG);
	assert_int_equal(st.lost, 3);
	assert_true(csm_audit_failing(a));
	assert_false(csm_audit_refuses(a));
	/* Nothing of half a line has stayed. */
	audit_limit_file(RLIM_INFINITY);
	audit_assert_whole(&before);
	clock_now += 5;
	csm_audit_tick(a);
	assert_false(csm_audit_failing(a));
	assert_int_equal(audit_change(a, "a:four", &after), 0);
	audit_assert_whole(&after);
	assert_int_equal(audit_found.notes, 1);
	assert_int_equal(audit_count("gap"), 1);
	assert_int_equal(audit_number(audit_index("gap"), "changes"), 2);
	assert_int_equal(audit_number(audit_index("gap"), "denied"), 1);
	assert_int_equal(audit_number(audit_index("gap"), "since"), 600000000);
	assert_string_equal(audit_text(audit_lines - 1, "object"), "a:four");
	csm_audit_status(a, &st);
	assert_int_equal(st.lost, 0);
	csm_audit_close(a);
}

static void strict_mode_refuses_until_it_can_write(void **state)
{
	struct csm_audit_mark mark;
	struct csm_audit *a;

	(void)state;
	audit_options.strict = true;
	a = audit_attached(NULL);
	assert_int_equal(audit_change(a, "a:one", &mark), 0);
	assert_false(csm_audit_refuses(a));
	audit_limit_file(audit_file_size() + 20);
	assert_int_equal(audit_change(a, "a:two", &mark), CSM_EUNAVAILABLE);
	assert_true(csm_audit_refuses(a));
	audit_done = 0;
	audit_denied(a, "key.sign", 7);
	csm_audit_tick(a);
	assert_int_equal(audit_done, 1);
	assert_int_equal(audit_last_r, CSM_EUNAVAILABLE);
	audit_limit_file(RLIM_INFINITY);
	csm_audit_tick(a);
	assert_false(csm_audit_refuses(a));
	assert_int_equal(audit_change(a, "a:three", &mark), 0);
	audit_assert_whole(&mark);
	assert_int_equal(audit_count("change"), 2); /* two was told to have failed */
	assert_int_equal(audit_number(audit_index("gap"), "changes"), 0);
	assert_int_equal(audit_number(audit_index("gap"), "denied"), 0); /* it was told to be unavailable */
	csm_audit_close(a);
}

/* A commit failed, and so did the line that takes its lines back: that comes first as soon as it can, and until then the
 * store names no line behind which one could believe them. */
static void lines_to_take_back_are_not_forgotten(void **state)
{
	struct csm_audit_mark before, false_line, mark;
	struct csm_audit *a;

	for (int strict = 0; strict < 2; strict++) {
		audit_options.strict = strict;
		a = audit_attached(NULL);
		assert_int_equal(audit_change(a, "a:one", &before), 0);
		csm_audit_anchored(a, &before);
		assert_int_equal(audit_change(a, "a:false", &false_line), 0);
		audit_denied(a, "key.sign", 7);
		csm_audit_tick(a); /* the durable end is behind the false line */
		audit_limit_file(audit_file_size() + 20);
		csm_audit_undone(a, false_line.first, false_line.last, "unavailable");
		for (size_t n = 0; n < 2; n++) {
			struct csm_audit_event e = audit_event_of(CSM_AUDIT_CHANGE, "key.create", 1000, "a:two");

			mark.seq = 0;
			assert_int_equal(csm_audit_group(a, &e, n, NULL, &mark), strict ? CSM_EUNAVAILABLE : 0);
			assert_int_equal(mark.seq, strict ? 0 : before.seq);
			if (!strict)
				assert_memory_equal(mark.head, before.head, 32);
		}
		assert_int_equal(csm_audit_refuses(a), strict);
		audit_limit_file(RLIM_INFINITY);
		assert_int_equal(audit_change(a, "a:three", &mark), 0);
		audit_assert_whole(&mark);
		assert_int_equal(audit_count("undone"), 1);
		assert_int_equal(audit_number(audit_index("undone"), "first"), false_line.first);
		assert_int_equal(audit_number(audit_index("undone"), "last"), false_line.last);
		assert_true(audit_index("undone") < audit_index("gap"));
		assert_int_equal(audit_change(a, "a:four", &mark), 0);
		csm_audit_close(a);
		audit_assert_whole(NULL);
		assert_int_equal(audit_count("undone"), 1);
		audit_teardown(state);
		assert_int_equal(setup(state), 0);
	}
}

/* The line of the start takes back what a crash has left: it, too, comes when it can. */
static void the_line_of_a_start_comes_when_it_can(void **state)
{
	struct csm_audit_mark before, mark;
	struct csm_audit *a = audit_attached(NULL);

	(void)state;
	assert_int_equal(audit_change(a, "a:one", &before), 0);
	csm_audit_anchored(a, &before);
	assert_int_equal(audit_change(a, "a:false", &mark), 0);
	audit_limit_file(audit_file_size() + 20);
	csm_audit_undone(a, mark.first, mark.last, "unavailable");
	csm_audit_close(a);
	a = audit_attached(&before);
	assert_true(csm_audit_failing(a));
	assert_int_equal(csm_audit_group(a, NULL, 0, NULL, &mark), 0);
	assert_int_equal(mark.seq, before.seq);
	audit_limit_file(RLIM_INFINITY);
	assert_int_equal(audit_change(a, "a:two", &mark), 0);
	audit_assert_whole(&mark);
	assert_int_equal(audit_count("start"), 2);
	assert_string_equal(audit_text(audit_lines - 3, "event"), "start");
	assert_int_equal(audit_number(audit_lines - 3, "anchor"), before.seq);
	assert_string_equal(audit_text(audit_lines - 2, "event"), "checkpoint");
	assert_string_equal(audit_text(audit_lines - 1, "object"), "a:two");
	csm_audit_close(a);
}

static void half_a_line_that_stays_is_taken_off_before_the_next(void **state)
{
	struct csm_audit *a = audit_attached(NULL);
	struct csm_audit_mark mark;

	(void)state;
	assert_int_equal(audit_change(a, "a:one", &mark), 0);
	audit_limit_file(audit_file_size() + 20);
	no_truncate = true;
	assert_int_equal(audit_change(a, "a:two", &mark), 0);
	audit_limit_file(RLIM_INFINITY);
	csm_audit_tick(a); /* nothing is glued to it */
	assert_true(csm_audit_failing(a));
	no_truncate = false;
	assert_int_equal(audit_change(a, "a:three", &mark), 0);
	audit_assert_whole(&mark);
	assert_int_equal(audit_number(audit_index("gap"), "changes"), 1);
	csm_audit_close(a);
}

static void counts_wait_for_room(void **state)
{
	struct csm_audit *a = audit_attached(NULL);
	struct csm_audit_uses *u;

	(void)state;
	assert_int_equal(csm_audit_uses_new(a, &u), 0);
	csm_audit_use(u, "key.sign", 1, NULL, CSM_STR("a:b"));
	audit_limit_file(audit_file_size());
	for (int i = 0; i < 3; i++) {
		clock_now += 60;
		csm_audit_use(u, "key.sign", 1, NULL, CSM_STR("a:b"));
		csm_audit_tick(a);
	}
	assert_true(csm_audit_failing(a));
	audit_limit_file(RLIM_INFINITY);
	csm_audit_tick(a);
	audit_assert_whole(NULL);
	assert_int_equal(audit_count("use"), 1);
	assert_int_equal(audit_number(audit_index("use"), "count"), 4);
	csm_audit_uses_free(u);
	csm_audit_close(a);
}

/* ---- threads ---- */

struct worker {
	struct csm_audit *a;
	unsigned n, done;
	pthread_mutex_t lock;
	pthread_cond_t served;
};

struct wait_of {
	struct csm_audit_wait wait;
	struct worker *worker;
};

static void count_done(struct csm_audit_wait *w)
{
	struct worker *k = ((struct wait_of *)w)->worker;

	pthread_mutex_lock(&k->lock);
	k->done++;
	pthread_cond_signal(&k->served);
	pthread_mutex_unlock(&k->lock);
	free(w);
}

static void *work(void *arg)
{
	struct worker *k = arg;
	struct csm_audit_uses *u;
	struct csm_audit_mark mark;

	if (csm_audit_uses_new(k->a, &u) != 0)
		return NULL;
	for (unsigned i = 0; i < k->n; i++) {
		struct wait_of *w = calloc(1, sizeof(*w));

		csm_audit_use(u, "key.sign", 1, NULL, CSM_STR("a:b"));
		if (w == NULL || audit_change(k->a, "a:thread", &mark) != 0)
			abort();
		w->worker = k;
		w->wait.event = audit_event_of(CSM_AUDIT_DENIED, "key.sign", 5, "a:b");
		w->wait.done = count_done;
		csm_audit_submit(k->a, &w->wait);
	}
	pthread_mutex_lock(&k->lock);
	while (k->done < k->n)
		pthread_cond_wait(&k->served, &k->lock);
	pthread_mutex_unlock(&k->lock);
	csm_audit_uses_free(u);
	return NULL;
}

static void threads_share_the_file(void **state)
{
	struct worker k[4];
	pthread_t t[4];
	struct csm_audit *a;

	(void)state;
	audit_options.max_size = 16384;
	audit_options.max_files = 100;
	a = audit_attached(NULL);
	assert_int_equal(csm_audit_start(a), 0);
	for (int i = 0; i < 4; i++) {
		k[i] = (struct worker){.a = a, .n = 50};
		pthread_mutex_init(&k[i].lock, NULL);
		pthread_cond_init(&k[i].served, NULL);
		assert_int_equal(pthread_create(&t[i], NULL, work, &k[i]), 0);
	}
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_join(t[i], NULL), 0);
	csm_audit_close(a);
	audit_assert_whole(NULL);
	assert_int_equal(audit_count("change"), 200);
	assert_int_equal(audit_count("denied"), 200);
	assert_int_equal(audit_number(audit_index("use"), "count"), 200);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, audit_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(lines_tell_unit_pod_and_container),
		TEST(the_longest_line_fits),
		TEST(a_change_is_there_when_the_group_is),
		TEST(ten_denials_have_lines_the_rest_a_count),
		TEST(a_flood_by_many_uids_is_written),
		TEST(while_too_many_wait_denials_are_counted),
		TEST(uses_are_counted_by_identity_object_and_minute),
		TEST(many_objects_share_a_row),
		TEST(normal_mode_goes_on_and_tells_the_gap),
		TEST(strict_mode_refuses_until_it_can_write),
		TEST(lines_to_take_back_are_not_forgotten),
		TEST(the_line_of_a_start_comes_when_it_can),
		TEST(half_a_line_that_stays_is_taken_off_before_the_next),
		TEST(counts_wait_for_room),
		TEST(threads_share_the_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
