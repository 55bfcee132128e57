/* One struct csm in many threads, over forks and changes of identity, and whose socket it trusts. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "libclient/client/internal.h"
#include "tests/lib/fakecsmd.h"

static struct fake fake;
static struct csm *csm;

static int setup(void **state)
{
	(void)state;
	fake_start(&fake);
	assert_int_equal(csm_new(&csm), 0);
	assert_int_equal(csm_set_socket(csm, fake.path), 0);
	csm_set_timeout(csm, 5000);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	csm_free(csm);
	fake_stop(&fake);
	return 0;
}

#define THREADS 8
#define CALLS 400

static void *caller(void *arg)
{
	uint8_t digest[32], sig[64];
	uintptr_t id = (uintptr_t)arg;
	unsigned i;

	for (i = 0; i < CALLS; i++) {
		size_t len = sizeof(sig);

		memset(digest, 0, sizeof(digest));
		memcpy(digest, &id, sizeof(id));
		memcpy(digest + sizeof(id), &i, sizeof(i));
		if (csm_key_sign(csm, "k", NULL, digest, sizeof(digest), sig, &len) != 0 || len != sizeof(digest) ||
			memcmp(sig, digest, len) != 0)
			return (void *)1;
	}
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t t[THREADS];
	void *failed;
	uintptr_t i;

	(void)state;
	for (i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, caller, (void *)i), 0);
	for (i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(t[i], &failed), 0);
		assert_null(failed);
	}
	assert_int_equal(fake.requests, THREADS * CALLS);
	assert_true(fake.accepted <= THREADS);
}

static int exit_of(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static unsigned open_fds(void)
{
	unsigned n = 0;
	int fd;

	for (fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void test_fork(void **state)
{
	struct csm_reply *rep;
	unsigned before;
	pid_t pid;

	(void)state;
	assert_int_equal(csm_secret_get(csm, "d/s", NULL, 0, &rep), 0);
	assert_int_equal(fake.accepted, 1);
	before = open_fds();
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		uint8_t sig[64];
		size_t len = sizeof(sig);

		/* the parent's reply can be freed, the handle goes on, with one connection in place of the old */
		csm_reply_free(rep);
		if (csm_key_sign(csm, "k", NULL, "child", 5, sig, &len) != 0 || len != 5)
			_exit(1);
		if (csm_secret_get(csm, "d/s", NULL, 0, &rep) != 0)
			_exit(2);
		if (strcmp(csm_view_str(csm_view_at(csm_reply_view(rep), "pairs", 0), "name"), "user") != 0)
			_exit(3);
		csm_reply_free(rep);
		_exit(open_fds() == before ? 0 : 4);
	}
	assert_int_equal(exit_of(pid), 0);
	assert_int_equal(fake.accepted, 2);
	/* the parent's stream is as it was */
	assert_string_equal(csm_view_str(csm_view_at(csm_reply_view(rep), "pairs", 0), "name"), "user");
	csm_reply_free(rep);
	assert_int_equal(csm_ping(csm), 0);
	assert_int_equal(fake.accepted, 2);
}

static void *slow_caller(void *arg)
{
	(void)arg;
	return csm_ping(csm) == 0 ? NULL : (void *)1;
}

static void test_fork_while_a_thread_calls(void **state)
{
	pthread_t t[4];
	void *failed;
	pid_t pid;
	int i;

	(void)state;
	fake.slow_ms = 100;
	fake.mode = FAKE_SLOW;
	for (i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, slow_caller, NULL), 0);
	fake_sleep_ms(30);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(csm_ping(csm) == 0 ? 0 : 1);
	assert_int_equal(exit_of(pid), 0);
	for (i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(t[i], &failed), 0);
		assert_null(failed);
	}
	assert_int_equal(fake.accepted, 5);
}

static void test_stream_after_fork(void **state)
{
	struct csm_sign *s;
	uint64_t got;
	size_t len = sizeof(got);
	pid_t pid;

	(void)state;
	assert_int_equal(csm_sign_start(csm, "k", NULL, &s), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int r = csm_sign_update(s, "x", 1);

		csm_sign_free(s);
		_exit(r == CSM_ESTATE ? 0 : 1);
	}
	assert_int_equal(exit_of(pid), 0);
	assert_int_equal(csm_sign_update(s, "abcd", 4), 0);
	assert_int_equal(csm_sign_finish(s, &got, &len), 0);
	assert_int_equal(got, 4);
	csm_sign_free(s);
}

static void need_root(void)
{
	if (geteuid() != 0)
		skip();
}

static void test_changed_identity(void **state)
{
	pid_t pid;

	(void)state;
	need_root();
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int r = csm_ping(csm);

		if (r != 0 || fake.accepted > 1 || setegid(59100) != 0)
			_exit(1);
		if (csm_ping(csm) != 0 || seteuid(59100) != 0)
			_exit(2);
		_exit(csm_ping(csm) == 0 ? 0 : 3);
	}
	assert_int_equal(exit_of(pid), 0);
	/* one connection for each of: root, another group, another user */
	assert_int_equal(fake.accepted, 3);
}

/* Listen as another uid and answer nothing: the client has to leave before it asks. */
static pid_t listen_as(uid_t uid, const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int ready[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		uint8_t got[64];
		int l = socket(AF_UNIX, SOCK_STREAM, 0), c;

		memcpy(a.sun_path, path, strlen(path) + 1);
		if (setresuid(uid, uid, uid) != 0 || bind(l, (struct sockaddr *)&a, sizeof(a)) != 0 || listen(l, 4) != 0)
			_exit(1);
		(void)!write(ready[1], "x", 1);
		c = accept(l, NULL, NULL);
		/* 10: it left without a word; 11: it spoke */
		_exit(recv(c, got, sizeof(got), 0) <= 0 ? 10 : 11);
	}
	(void)close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	(void)close(ready[0]);
	return pid;
}

static int trust_of(uid_t uid, uint32_t trust, bool overflow, int *r)
{
	char path[128];
	struct csm *c;
	pid_t pid;
	int status;

	(void)snprintf(path, sizeof(path), "%s/other", fake.dir);
	pid = listen_as(uid, path);
	assert_int_equal(csm_new(&c), 0);
	assert_int_equal(csm_set_socket(c, path), 0);
	csm_set_timeout(c, 2000);
	if (trust != 0)
		csm_set_trust_uid(c, trust);
	csm_set_trust_overflow(c, overflow);
	*r = csm_ping(c);
	csm_free(c);
	status = exit_of(pid);
	(void)unlink(path);
	return status;
}

static void test_untrusted_listener(void **state)
{
	int r;

	(void)state;
	need_root();
	assert_int_equal(chmod(fake.dir, 0777), 0);
	assert_int_equal(trust_of(59101, 0, false, &r), 10);
	assert_int_equal(r, CSM_EUNTRUSTED);
	assert_int_equal(trust_of(59101, 59102, false, &r), 10);
	assert_int_equal(r, CSM_EUNTRUSTED);
	assert_int_equal(trust_of(59101, 59101, false, &r), 11);
	assert_int_not_equal(r, CSM_EUNTRUSTED);
	/* the overflow uid is nobody in particular */
	assert_int_equal(trust_of(65534, 65534, false, &r), 10);
	assert_int_equal(r, CSM_EUNTRUSTED);
	assert_int_equal(trust_of(65534, 0, true, &r), 11);
	assert_int_not_equal(r, CSM_EUNTRUSTED);
}

static void test_kept_connections(void **state)
{
	struct csm_sign *a, *b;

	(void)state;
	csm_set_connections(csm, 1);
	assert_int_equal(csm_sign_start(csm, "k", NULL, &a), 0);
	assert_int_equal(csm_sign_start(csm, "k", NULL, &b), 0);
	assert_int_equal(fake.accepted, 2);
	csm_sign_free(a);
	csm_sign_free(b);
	/* streams that were given up end with their connections */
	assert_int_equal(csm_ping(csm), 0);
	assert_int_equal(fake.accepted, 3);
	assert_int_equal(csm_ping(csm), 0);
	assert_int_equal(fake.accepted, 3);
}

/* More threads at once than there are places: the rest has connections of its own. */
static void test_more_calls_than_slots(void **state)
{
	struct csm_sign *s[CLIENT_SLOTS + 2];
	size_t i;

	(void)state;
	for (i = 0; i < CLIENT_SLOTS + 2; i++)
		assert_int_equal(csm_sign_start(csm, "k", NULL, &s[i]), 0);
	assert_int_equal(csm_ping(csm), 0);
	for (i = 0; i < CLIENT_SLOTS + 2; i++) {
		assert_int_equal(csm_sign_update(s[i], "a", 1), 0);
		csm_sign_free(s[i]);
	}
	assert_int_equal(csm_ping(csm), 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_threads), T(test_fork), T(test_fork_while_a_thread_calls), T(test_stream_after_fork),
		T(test_changed_identity), T(test_untrusted_listener), T(test_kept_connections),
		T(test_more_calls_than_slots),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
