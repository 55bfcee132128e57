/* libcsm's blocking calls against a scripted daemon. */
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

/* ---- calls and replies ---- */

static void test_typed_calls(void **state)
{
	uint8_t sig[CSM_SIGNATURE_BYTES];
	size_t len = sizeof(sig);
	struct csm_reply *rep;
	struct csm_view v;

	(void)state;
	assert_int_equal(csm_ping(csm), 0);
	assert_int_equal(csm_key_sign(csm, "k", NULL, "0123456789", 10, sig, &len), 0);
	assert_int_equal(len, 10);
	assert_memory_equal(sig, "0123456789", 10);
	assert_int_equal(csm_key_create(csm, "web:tls", NULL, NULL, "sign,derive", &rep), 0);
	v = csm_reply_view(rep);
	assert_string_equal(csm_view_str(v, "name"), "web:tls");
	assert_string_equal(csm_view_str(v, "alg"), "p256");
	assert_int_equal(csm_view_u64(v, "signatures"), 7);
	assert_false(csm_view_bool(v, "exportable"));
	assert_true(csm_view_has(v, "exportable"));
	assert_int_equal(csm_view_count(v, "use"), 1);
	assert_string_equal(csm_view_item(v, "use", 0), "sign");
	assert_null(csm_view_item(v, "use", 1));
	/* another type, another name */
	assert_null(csm_view_str(v, "signatures"));
	assert_int_equal(csm_view_u64(v, "name"), 0);
	assert_false(csm_view_has(v, "nothing"));
	assert_null(csm_view_at(v, "use", 0).msg);
	csm_reply_free(rep);
	assert_int_equal(fake.accepted, 1);
}

static void test_output_sizes(void **state)
{
	uint8_t small[4] = {1, 2, 3, 4};
	size_t len = sizeof(small);

	(void)state;
	assert_int_equal(csm_key_sign(csm, "k", NULL, "0123456789", 10, small, &len), CSM_ETOO_LARGE);
	assert_int_equal(len, 10);
	assert_memory_equal(small, "\1\2\3\4", 4);
	len = sizeof(small);
	assert_int_equal(csm_key_sign(csm, "k", NULL, "0123", 4, small, &len), 0);
	assert_memory_equal(small, "0123", 4);
	assert_int_equal(csm_key_sign(csm, "k", NULL, "0123", 65, small, &len), CSM_ETOO_LARGE);
}

static void test_secrets(void **state)
{
	struct csm_pair pairs[] = {{"user", "text", "app", 3}, {"empty", NULL, NULL, 0}};
	struct csm_reply *rep;
	struct csm_view v;
	uint64_t version = 0;
	char value[16];
	size_t len = sizeof(value);

	(void)state;
	assert_int_equal(csm_secret_set(csm, "db/main", pairs, 2, &version), 0);
	assert_int_equal(version, 4);
	assert_int_equal(csm_secret_get(csm, "db/main", NULL, 0, &rep), 0);
	/* locked memory holds what is secret */
	assert_true(rep->buf.secret);
	v = csm_view_at(csm_reply_view(rep), "pairs", 1);
	assert_string_equal(csm_view_str(v, "name"), "password");
	assert_memory_equal(csm_view_bin(v, "value", &len), "p\0w", 4);
	assert_int_equal(len, 3);
	assert_null(csm_view_at(csm_reply_view(rep), "pairs", 2).msg);
	csm_reply_free(rep);
	len = sizeof(value);
	assert_int_equal(csm_secret_value(csm, "db/main", "user", value, &len), 0);
	assert_int_equal(len, 3);
	assert_memory_equal(value, "app", 3);
	assert_int_equal(csm_secret_value(csm, "db/main", "absent", value, &len), CSM_EPROTOCOL);
	assert_int_equal(csm_secret_value(csm, "db/main", NULL, value, &len), CSM_EINVALID);
	assert_int_equal(csm_secret_set(csm, "db/main", pairs, CSM_PAIRS_MAX + 1, NULL), CSM_ETOO_LARGE);
}

static void test_random_in_pieces(void **state)
{
	size_t n = 2 * CSM_RANDOM_MAX + 3, i;
	uint8_t *p = calloc(1, n + 1);

	(void)state;
	assert_non_null(p);
	assert_int_equal(csm_random(csm, p, n), 0);
	for (i = 0; i < n; i++)
		assert_int_equal(p[i], 0xab);
	assert_int_equal(p[n], 0);
	assert_int_equal(fake.requests, 3);
	free(p);
}

static void test_long_message_is_streamed(void **state)
{
	size_t n = 2 * (size_t)CSM_SIGN_MESSAGE_MAX + 17, len = sizeof(uint64_t);
	uint8_t *p = calloc(1, n);
	uint64_t got;

	(void)state;
	assert_non_null(p);
	assert_int_equal(csm_key_sign_message(csm, "k", NULL, p, CSM_SIGN_MESSAGE_MAX, &got, &len), 0);
	assert_int_equal(got, CSM_SIGN_MESSAGE_MAX);
	assert_int_equal(fake.requests, 1);
	assert_int_equal(csm_key_sign_message(csm, "k", NULL, p, n, &got, &len), 0);
	assert_int_equal(got, n);
	assert_int_equal(fake.requests, 1 + 1 + 3 + 1);
	free(p);
}

static void test_stream_steps(void **state)
{
	struct csm_sign *s;
	struct csm_request *req;
	uint64_t got;
	size_t len = sizeof(got);

	(void)state;
	assert_int_equal(csm_sign_start(csm, "k", NULL, &s), 0);
	assert_int_equal(csm_sign_update(s, "abc", 3), 0);
	/* other calls go on beside the stream, on another connection */
	assert_int_equal(csm_ping(csm), 0);
	assert_int_equal(fake.accepted, 2);
	assert_int_equal(csm_sign_finish(s, &got, &len), 0);
	assert_int_equal(got, 3);
	assert_int_equal(csm_sign_update(s, "abc", 3), CSM_ESTATE);
	assert_int_equal(csm_sign_finish(s, &got, &len), CSM_ESTATE);
	csm_sign_free(s);
	/* the connection of a stream that broke is not used again, and the stream says so */
	assert_int_equal(csm_sign_start(csm, "k", NULL, &s), 0);
	fake.lose = 1;
	fake.mode = FAKE_LOSE;
	assert_int_equal(csm_sign_update(s, "abc", 3), CSM_ECLOSED);
	csm_sign_free(s);
	assert_int_equal(csm_ping(csm), 0);
	/* steps belong to a stream's connection: not for csm_call */
	assert_int_equal(csm_request_new("key.sign_init", &req), 0);
	assert_int_equal(csm_request_str(req, "key", "k"), 0);
	assert_int_equal(csm_call(csm, req, NULL), CSM_EUNSUPPORTED);
	csm_request_free(req);
}

static void test_requests(void **state)
{
	struct csm_request *req, *item;
	struct csm_reply *rep = NULL;

	(void)state;
	assert_int_equal(csm_request_new("no.such", &req), CSM_EUNKNOWN_METHOD);
	assert_int_equal(csm_request_new("secret.set", &req), 0);
	assert_int_equal(csm_request_str(req, "nothing", "x"), CSM_EUNSUPPORTED_FIELD);
	assert_int_equal(csm_request_u64(req, "secret", 1), CSM_EINVALID);
	assert_int_equal(csm_request_str(req, "secret", "\xff"), CSM_EINVALID);
	assert_int_equal(csm_request_str(req, "secret", NULL), CSM_EINVALID);
	assert_int_equal(csm_call(csm, req, &rep), CSM_EINVALID);
	assert_string_equal(csm_error_message(), "secret is missing");
	assert_int_equal(csm_request_str(req, "secret", "d/first"), 0);
	assert_int_equal(csm_request_str(req, "secret", "d/second"), 0);
	assert_int_equal(csm_request_add_map(req, "pairs", &item), 0);
	assert_int_equal(csm_request_str(item, "name", "a"), 0);
	assert_int_equal(csm_call(csm, req, &rep), CSM_EINVALID);
	assert_int_equal(csm_request_bin(item, "value", "", 0), 0);
	/* a part is no request of its own, and is not freed by itself */
	assert_int_equal(csm_call(csm, item, &rep), CSM_EINVALID);
	csm_request_free(item);
	assert_int_equal(csm_call(csm, req, &rep), 0);
	assert_int_equal(csm_view_u64(csm_reply_view(rep), "version"), 4);
	csm_reply_free(rep);
	csm_request_free(req);
	csm_request_free(NULL);
	csm_reply_free(NULL);
}

static void test_request_limits(void **state)
{
	struct csm_request *req;
	char long_name[CSM_KEYREF_MAX + 2];

	(void)state;
	memset(long_name, 'a', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
	assert_int_equal(csm_request_new("key.create", &req), 0);
	assert_int_equal(csm_request_str(req, "key", long_name), CSM_ETOO_LARGE);
	assert_int_equal(csm_request_str(req, "key", long_name + 1), 0);
	assert_int_equal(csm_request_add_str(req, "use", "sign"), 0);
	assert_int_equal(csm_request_add_str(req, "use", "a"), 0);
	assert_int_equal(csm_request_add_str(req, "use", "b"), 0);
	assert_int_equal(csm_request_add_str(req, "use", "c"), 0);
	assert_int_equal(csm_request_add_str(req, "use", "d"), CSM_ETOO_LARGE);
	csm_request_free(req);
	assert_int_equal(csm_request_new("random", &req), 0);
	assert_int_equal(csm_request_u64(req, "bytes", CSM_RANDOM_MAX + 1), CSM_ETOO_LARGE);
	assert_int_equal(csm_request_u64(req, "bytes", 1), 0);
	csm_request_free(req);
}

/* ---- errors ---- */

static void test_daemon_errors(void **state)
{
	(void)state;
	fake.error_code = CSM_EBUSY;
	fake.error_text = "too much\033[2J in hand";
	fake.retry_after = 250;
	fake.mode = FAKE_ERROR;
	assert_int_equal(csm_ping(csm), CSM_EBUSY);
	/* nothing that a terminal would obey */
	assert_string_equal(csm_error_message(), "too much?[2J in hand");
	assert_int_equal(csm_error_retry_after_ms(), 250);
	assert_true(csm_error_retryable(CSM_EBUSY));
	/* the connection is in order, and no request is repeated by itself */
	assert_int_equal(fake.requests, 1);
	fake.mode = FAKE_NORMAL;
	assert_int_equal(csm_ping(csm), 0);
	assert_string_equal(csm_error_message(), "");
	assert_int_equal(csm_error_retry_after_ms(), 0);
	assert_int_equal(fake.accepted, 1);
	assert_string_equal(csm_error_name(CSM_EDENIED), "denied");
	assert_string_equal(csm_error_name(0), "ok");
	assert_string_equal(csm_error_name(9999), "unknown");
}

static void test_unknown_code_is_internal(void **state)
{
	/* [1, 1, {code: 77, name: "x", message: "y", retryable: false}, nil] */
	static const char raw[] = "\x94\x01\x01\x84\xa4" "code\x4d\xa4" "name\xa1" "x\xa7" "message\xa1" "y\xa9" "retryable\xc2\xc0";

	(void)state;
	fake.raw = raw;
	fake.raw_len = sizeof(raw) - 1;
	fake.mode = FAKE_RAW;
	assert_int_equal(csm_ping(csm), CSM_EINTERNAL);
	assert_string_equal(csm_error_message(), "y");
}

static double seconds(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void test_deadline(void **state)
{
	double t = seconds();
	uint8_t sig[64];
	size_t len = sizeof(sig);

	(void)state;
	csm_set_timeout(csm, 200);
	fake.mode = FAKE_SILENT;
	assert_int_equal(csm_ping(csm), CSM_ETIMEOUT);
	t = seconds() - t;
	assert_true(t >= 0.19 && t < 3);
	/* a late answer cannot be taken for the next one: the connection is gone */
	fake.mode = FAKE_NORMAL;
	assert_int_equal(csm_key_sign(csm, "k", NULL, "0123", 4, sig, &len), 0);
	assert_int_equal(fake.accepted, 2);
}

static void test_full_listener(void **state)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char path[128];
	struct csm *c;
	double t;
	int l, k;

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/full", fake.dir);
	memcpy(a.sun_path, path, strlen(path) + 1);
	l = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(l, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(l, 0), 0);
	k = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(connect(k, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(csm_new(&c), 0);
	assert_int_equal(csm_set_socket(c, path), 0);
	csm_set_timeout(c, 150);
	t = seconds();
	assert_int_equal(csm_ping(c), CSM_ETIMEOUT);
	assert_true(seconds() - t < 3);
	csm_free(c);
	(void)close(k);
	(void)close(l);
	(void)unlink(path);
}

static void test_unreachable(void **state)
{
	char path[256];

	(void)state;
	assert_int_equal(csm_set_socket(csm, "/nonexistent/csm.sock"), 0);
	assert_int_equal(csm_ping(csm), CSM_EUNREACHABLE);
	assert_true(strstr(csm_error_message(), "/nonexistent/csm.sock") != NULL);
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(csm_set_socket(csm, path), CSM_EINVALID);
	assert_int_equal(csm_set_socket(csm, ""), CSM_EINVALID);
	assert_int_equal(csm_set_socket(csm, NULL), CSM_EINVALID);
}

/* ---- lost connections ---- */

static void test_lost_answer_is_asked_again(void **state)
{
	struct csm_reply *rep;

	(void)state;
	assert_int_equal(csm_ping(csm), 0);
	fake.lose = 1;
	fake.mode = FAKE_LOSE;
	assert_int_equal(csm_key_create(csm, "k", NULL, NULL, NULL, &rep), 0);
	csm_reply_free(rep);
	assert_int_equal(fake.n_ids, 2);
	assert_int_equal(strlen(fake.ids[0]), CLIENT_REQUEST_ID_LEN);
	assert_string_equal(fake.ids[0], fake.ids[1]);
	/* another call has another id */
	assert_int_equal(csm_key_create(csm, "k2", NULL, NULL, NULL, NULL), 0);
	assert_string_not_equal(fake.ids[2], fake.ids[0]);
	/* what changes nothing goes twice, too */
	fake.lose = 1;
	assert_int_equal(csm_ping(csm), 0);
	/* the second loss is told */
	fake.lose = 2;
	assert_int_equal(csm_ping(csm), CSM_ECLOSED);
	assert_int_equal(csm_ping(csm), 0);
}

static void test_own_request_id_is_kept(void **state)
{
	struct csm_request *req;

	(void)state;
	assert_int_equal(csm_request_new("key.delete", &req), 0);
	assert_int_equal(csm_request_str(req, "key", "k"), 0);
	assert_int_equal(csm_request_str(req, "request_id", "mine"), 0);
	assert_int_equal(csm_call(csm, req, NULL), 0);
	assert_string_equal(fake.ids[0], "mine");
	csm_request_free(req);
}

static void test_daemon_restarts(void **state)
{
	(void)state;
	assert_int_equal(csm_ping(csm), 0);
	fake_stop(&fake);
	assert_int_equal(csm_ping(csm), CSM_EUNREACHABLE);
	fake_start(&fake);
	assert_int_equal(csm_set_socket(csm, fake.path), 0);
	assert_int_equal(csm_ping(csm), 0);
}

/* ---- answers that are none ---- */

static void refused(const void *raw, size_t n, int mode)
{
	unsigned before = fake.accepted;

	fake.raw = raw;
	fake.raw_len = n;
	fake.mode = mode;
	assert_int_equal(csm_ping(csm), mode == FAKE_RAW_END ? CSM_ECLOSED : CSM_EPROTOCOL);
	fake.mode = FAKE_NORMAL;
	/* on a new connection all is well */
	assert_int_equal(csm_ping(csm), 0);
	assert_true(fake.accepted > before);
}

static void test_malformed_answers(void **state)
{
	static const char *const raw[] = {
		"\xc1",                         /* no MessagePack */
		"\x80",                         /* a map */
		"\x94\x01\x7f\xc0\x80",         /* another request's */
		"\x94\x01\x01\xc0\x80\x94",     /* more behind it */
		"\x94\x01\x01\xc0\xc0",         /* a result that is no map */
		"\x94\x01\x01\xc0\x81\xa4" "data\xa1x", /* a string in place of bytes */
		"\x94\x01\x01\x05\x80",         /* an error that is no map */
		"\x94\x01\x01\x80\xc0",         /* one without its fields */
		"\x94\x01\xa1x\xc0\x80",        /* a number that is none */
		"\x93\x02\xa4ping\x91\x80",     /* a notification */
		"\xdd\xff\xff\xff\xff",         /* an array of 4 G entries */
	};
	/* the same with bytes of zero */
	static const char request[] = "\x94\x00\x01\xa4ping\x90";
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(raw) / sizeof(raw[0]); i++) {
		assert_int_equal(csm_set_socket(csm, fake.path), 0);
		refused(raw[i], strlen(raw[i]), FAKE_RAW);
		csm_free(csm);
		assert_int_equal(csm_new(&csm), 0);
		assert_int_equal(csm_set_socket(csm, fake.path), 0);
	}
	refused(request, sizeof(request) - 1, FAKE_RAW);
	csm_free(csm);
	assert_int_equal(csm_new(&csm), 0);
	assert_int_equal(csm_set_socket(csm, fake.path), 0);
	refused("\x94\x01\x01\xc0", 4, FAKE_RAW_END);
}

static void test_unknown_fields_are_passed_over(void **state)
{
	static const char raw[] = "\x94\x01\x01\xc0\x82\xa3new\x91\x05\xa4" "data\xc4\x01z";

	(void)state;
	fake.raw = raw;
	fake.raw_len = sizeof(raw) - 1;
	fake.mode = FAKE_RAW;
	assert_int_equal(csm_ping(csm), 0);
}

/* ---- threads, forks, identities ---- */

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
	(void)usleep(30000);
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
		T(test_typed_calls), T(test_output_sizes), T(test_secrets), T(test_random_in_pieces),
		T(test_long_message_is_streamed), T(test_stream_steps), T(test_requests), T(test_request_limits),
		T(test_daemon_errors), T(test_unknown_code_is_internal), T(test_deadline), T(test_full_listener),
		T(test_unreachable), T(test_lost_answer_is_asked_again), T(test_own_request_id_is_kept),
		T(test_daemon_restarts), T(test_malformed_answers), T(test_unknown_fields_are_passed_over),
		T(test_threads), T(test_fork), T(test_fork_while_a_thread_calls), T(test_stream_after_fork),
		T(test_changed_identity), T(test_untrusted_listener), T(test_kept_connections),
		T(test_more_calls_than_slots),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
