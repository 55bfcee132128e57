#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/svc/audit.h"

/* The program's own clock: it stands until a test moves it. */
static time_t clock_now;

time_t time(time_t *ret)
{
	if (ret != NULL)
		*ret = clock_now;
	return clock_now;
}

static char dir[64], folder[80], file[96];
static json_t *lines[4096];
static size_t n_lines;

static int setup(void **state)
{
	(void)state;
	clock_now = 600000000;
	snprintf(dir, sizeof(dir), "/tmp/csm-audit-XXXXXX");
	if (mkdtemp(dir) == NULL)
		return -1;
	snprintf(folder, sizeof(folder), "%s/audit", dir);
	snprintf(file, sizeof(file), "%s/audit.log", folder);
	return 0;
}

static void forget_lines(void)
{
	while (n_lines > 0)
		json_decref(lines[--n_lines]);
}

static int teardown(void **state)
{
	(void)state;
	forget_lines();
	unlink(file);
	rmdir(folder);
	return rmdir(dir);
}

static struct csm_audit *opened(bool strict)
{
	struct csm_audit *a = NULL;

	assert_int_equal(csm_audit_open(folder, strict, &a), 0);
	return a;
}

/* Every line of the file has to be one JSON object; those that are not are counted. */
static size_t read_lines(void)
{
	char line[4096];
	size_t bad = 0;
	FILE *f = fopen(file, "re");

	forget_lines();
	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL) {
		json_t *row = json_loads(line, JSON_REJECT_DUPLICATES, NULL);

		if (row == NULL || !json_is_object(row) || line[strlen(line) - 1] != '\n')
			bad++;
		if (row != NULL && n_lines < sizeof(lines) / sizeof(lines[0]))
			lines[n_lines++] = row;
	}
	fclose(f);
	return bad;
}

static const char *text_of(size_t i, const char *name)
{
	const char *s = json_string_value(json_object_get(lines[i], name));

	return s != NULL ? s : "(none)";
}

static json_int_t number_of(size_t i, const char *name)
{
	json_t *n = json_object_get(lines[i], name);

	return n == NULL ? -1 : json_integer_value(n);
}

static int event(struct csm_audit *a, enum csm_audit_kind kind, const char *method, uid_t uid, const char *object)
{
	struct csm_audit_event e = {.kind = kind, .method = method, .uid = uid, .pid = 77,
		.object = {object, strlen(object)}, .result = kind == CSM_AUDIT_DENIED ? "denied" : "ok"};

	return csm_audit_event(a, &e);
}

static void a_change_is_there_at_once(void **state)
{
	struct csm_audit *a = opened(false);
	struct stat st;

	(void)state;
	assert_int_equal(event(a, CSM_AUDIT_CHANGE, "key.create", 1000, "uid-1000:k \"q\" \\ \xc3\xa9"), 0);
	assert_int_equal(read_lines(), 0);
	assert_int_equal(n_lines, 1);
	assert_string_equal(text_of(0, "event"), "change");
	assert_string_equal(text_of(0, "method"), "key.create");
	assert_string_equal(text_of(0, "object"), "uid-1000:k \"q\" \\ \xc3\xa9");
	assert_string_equal(text_of(0, "result"), "ok");
	assert_int_equal(number_of(0, "uid"), 1000);
	assert_int_equal(number_of(0, "pid"), 77);
	assert_int_equal(number_of(0, "time"), 600000000);
	assert_int_equal(stat(file, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(stat(folder, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	csm_audit_close(a);
	csm_audit_close(NULL);
}

static void ten_denials_have_lines_the_rest_a_count(void **state)
{
	struct csm_audit *a = opened(false);

	(void)state;
	for (int i = 0; i < 25; i++)
		assert_int_equal(event(a, CSM_AUDIT_DENIED, i % 2 ? "key.sign" : "key.show", 1000, "other:k"), 0);
	/* Somebody else has ten lines too. */
	assert_int_equal(event(a, CSM_AUDIT_DENIED, "key.sign", 1001, "other:k"), 0);
	csm_audit_tick(a);
	assert_int_equal(read_lines(), 0);
	assert_int_equal(n_lines, 11);
	clock_now += 60;
	csm_audit_tick(a);
	assert_int_equal(read_lines(), 0);
	assert_int_equal(n_lines, 12);
	assert_string_equal(text_of(11, "event"), "denied");
	assert_string_equal(text_of(11, "method"), "*");
	assert_int_equal(number_of(11, "uid"), 1000);
	assert_int_equal(number_of(11, "count"), 15);
	/* A new minute begins anew. */
	for (int i = 0; i < 10; i++)
		assert_int_equal(event(a, CSM_AUDIT_DENIED, "key.sign", 1000, "other:k"), 0);
	clock_now += 60;
	csm_audit_tick(a);
	assert_int_equal(read_lines(), 0);
	assert_int_equal(n_lines, 22);
	csm_audit_close(a);
}

static void uses_are_counted_by_identity_object_and_minute(void **state)
{
	struct csm_audit *a = opened(false);
	json_int_t total = 0;

	(void)state;
	for (int i = 0; i < 100; i++)
		assert_int_equal(event(a, CSM_AUDIT_USE, "key.sign", 1000, i % 4 ? "uid-1000:a" : "uid-1000:b"), 0);
	assert_int_equal(event(a, CSM_AUDIT_USE, "key.decrypt", 1000, "uid-1000:a"), 0);
	assert_int_equal(event(a, CSM_AUDIT_USE, "key.sign", 1001, "uid-1000:a"), 0);
	csm_audit_tick(a);
	assert_int_equal(read_lines(), 0);
	assert_int_equal(n_lines, 0);
	clock_now += 60;
	/* The next event finds that the minute is over, too. */
	assert_int_equal(event(a, CSM_AUDIT_USE, "key.sign", 1000, "uid-1000:a"), 0);
	assert_int_equal(read_lines(), 0);
	assert_int_equal(n_lines, 4);
	for (size_t i = 0; i < n_lines; i++) {
		assert_string_equal(text_of(i, "event"), "use");
		total += number_of(i, "count");
		if (number_of(i, "uid") == 1000 && strcmp(text_of(i, "method"), "key.sign") == 0)
			assert_int_equal(number_of(i, "count"), strcmp(text_of(i, "object"), "uid-1000:a") == 0 ? 75 : 25);
	}
	assert_int_equal(total, 102);
	/* What the last minute has counted is written at the end. */
	csm_audit_close(a);
	assert_int_equal(read_lines(), 0);
	assert_int_equal(n_lines, 5);
	assert_int_equal(number_of(4, "count"), 1);
}

/* Names without end cost memory with an end; no use is lost from the sum. */
static void many_objects_share_a_row(void **state)
{
	struct csm_audit *a = opened(false);
	json_int_t total = 0, others = 0;
	char name[32];

	(void)state;
	for (int i = 0; i < 6000; i++) {
		snprintf(name, sizeof(name), "uid-1000:k%d", i);
		assert_int_equal(event(a, CSM_AUDIT_USE, "key.sign", 1000, name), 0);
	}
	csm_audit_close(a);
	FILE *f = fopen(file, "re");
	char line[1024];
	size_t n = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL) {
		json_t *row = json_loads(line, 0, NULL);

		assert_non_null(row);
		total += json_integer_value(json_object_get(row, "count"));
		if (strcmp(json_string_value(json_object_get(row, "object")), "(others)") == 0)
			others += json_integer_value(json_object_get(row, "count"));
		json_decref(row);
		n++;
	}
	fclose(f);
	assert_int_equal(total, 6000);
	assert_in_range(n, 4096, 4200);
	assert_int_equal(others, 6000 - 4096);
}

static void limit_file(rlim_t size)
{
	struct rlimit l;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &l), 0);
	l.rlim_cur = size;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &l), 0);
}

static void a_file_that_cannot_be_written(void **state)
{
	struct csm_audit *a = opened(false);

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(event(a, CSM_AUDIT_CHANGE, "key.create", 1, "a:b"), 0);
	assert_false(csm_audit_failing(a));
	limit_file(10);
	assert_int_equal(event(a, CSM_AUDIT_CHANGE, "key.create", 1, "a:c"), 0);
	assert_true(csm_audit_failing(a));
	csm_audit_close(a);
	a = opened(true);
	assert_int_equal(event(a, CSM_AUDIT_CHANGE, "key.create", 1, "a:d"), CSM_EUNAVAILABLE);
	assert_int_equal(event(a, CSM_AUDIT_USE, "key.sign", 1, "a:d"), CSM_EUNAVAILABLE);
	limit_file(RLIM_INFINITY);
	assert_int_equal(event(a, CSM_AUDIT_CHANGE, "key.create", 1, "a:e"), 0);
	assert_false(csm_audit_failing(a));
	csm_audit_close(a);
	assert_int_equal(read_lines(), 0);
	assert_int_equal(n_lines, 3); /* b, e and the use; c and d were told to have failed */
}

/* Half a line, of a full disk or of a crash, spoils no line but itself. */
static void half_a_line_is_ended(void **state)
{
	struct csm_audit *a = opened(false);
	struct stat st;
	int fd;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(event(a, CSM_AUDIT_CHANGE, "key.create", 1, "a:one"), 0);
	assert_int_equal(stat(file, &st), 0);
	limit_file((rlim_t)st.st_size + 20);
	assert_int_equal(event(a, CSM_AUDIT_CHANGE, "key.create", 1, "a:two"), 0);
	assert_true(csm_audit_failing(a));
	limit_file(RLIM_INFINITY);
	assert_int_equal(event(a, CSM_AUDIT_CHANGE, "key.create", 1, "a:three"), 0);
	assert_int_equal(read_lines(), 1);
	assert_int_equal(n_lines, 2);
	assert_string_equal(text_of(1, "object"), "a:three");
	csm_audit_close(a);

	fd = open(file, O_WRONLY | O_APPEND | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "{\"time\":", 8), 8);
	close(fd);
	a = opened(false);
	assert_int_equal(event(a, CSM_AUDIT_CHANGE, "key.create", 1, "a:four"), 0);
	csm_audit_close(a);
	assert_int_equal(read_lines(), 2);
	assert_int_equal(n_lines, 3);
	assert_string_equal(text_of(2, "object"), "a:four");
}

static void where_it_cannot_be_opened(void **state)
{
	struct csm_audit *a = NULL;
	char path[600];

	(void)state;
	snprintf(path, sizeof(path), "%s/none/audit", dir);
	assert_int_equal(csm_audit_open(path, false, &a), CSM_ESYSTEM);
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(csm_audit_open(path, false, &a), CSM_ESYSTEM);
	/* A link in its place is not followed. */
	assert_int_equal(mkdir(folder, 0700), 0);
	assert_int_equal(symlink("/dev/null", file), 0);
	assert_int_equal(csm_audit_open(folder, false, &a), CSM_ESYSTEM);
	assert_null(a);
}

static void *write_many(void *arg)
{
	for (int i = 0; i < 300; i++)
		if (event(arg, i % 2 ? CSM_AUDIT_CHANGE : CSM_AUDIT_USE, "key.create", 5, "a:b") != 0)
			return arg;
	return NULL;
}

static void threads_write_whole_lines(void **state)
{
	struct csm_audit *a = opened(false);
	pthread_t t[4];
	void *bad;

	(void)state;
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, write_many, a), 0);
	for (size_t i = 0; i < 4; i++) {
		pthread_join(t[i], &bad);
		assert_null(bad);
	}
	csm_audit_close(a);
	assert_int_equal(read_lines(), 0);
	assert_int_equal(n_lines, 601);
	assert_int_equal(number_of(600, "count"), 600);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_change_is_there_at_once),
		TEST(ten_denials_have_lines_the_rest_a_count),
		TEST(uses_are_counted_by_identity_object_and_minute),
		TEST(many_objects_share_a_row),
		TEST(a_file_that_cannot_be_written),
		TEST(half_a_line_is_ended),
		TEST(where_it_cannot_be_opened),
		TEST(threads_write_whole_lines),
	};

	alarm(60);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
