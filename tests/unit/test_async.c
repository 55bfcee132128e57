/* libcsm's event-driven calls against a scripted daemon. */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "libclient/client/internal.h"
#include "tests/lib/fakecsmd.h"

static struct fake fake;
static struct csm *csm;
static struct csm_async *async;

/* What the callbacks saw. */
static struct {
	unsigned called, ok;
	int last_error;
	unsigned order_bad;
	uint64_t expected; /* of data in pongs that come last to first */
} seen;

static int setup(void **state)
{
	(void)state;
	memset(&seen, 0, sizeof(seen));
	fake_start(&fake);
	assert_int_equal(csm_new(&csm), 0);
	assert_int_equal(csm_set_socket(csm, fake.path), 0);
	csm_set_timeout(csm, 5000);
	assert_int_equal(csm_async_new(csm, &async), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	csm_async_free(async);
	csm_free(csm);
	fake_stop(&fake);
	return 0;
}

static void done(void *arg, int error, struct csm_reply *reply)
{
	size_t len;
	const uint8_t *p = csm_view_bin(csm_reply_view(reply), "data", &len);
	uint64_t got = 0;

	seen.called++;
	seen.last_error = error;
	if (error == 0) {
		seen.ok++;
		if (p != NULL && len == 8)
			memcpy(&got, p, 8);
		if (got != (uint64_t)(uintptr_t)arg)
			seen.order_bad++;
	}
	csm_reply_free(reply);
}

static void submit_ping(uint64_t data, uint32_t timeout_ms, csm_done_fn *fn)
{
	struct csm_request *req;

	assert_int_equal(csm_request_new("ping", &req), 0);
	assert_int_equal(csm_request_bin(req, "data", &data, sizeof(data)), 0);
	assert_int_equal(csm_submit(async, req, timeout_ms, fn, (void *)(uintptr_t)data), 0);
	csm_request_free(req);
}

/* A program's loop, until n callbacks were made, for 20 seconds at most. The last error of csm_process. */
static int loop(unsigned n)
{
	deadline_t d = client_deadline(20000);
	int r = 0, last = 0;

	while (seen.called < n && client_left_ms(d) > 0) {
		struct pollfd p = {.fd = csm_fd(async), .events = csm_events(async)};
		int t = csm_timeout_ms(async);

		(void)poll(&p, 1, t < 0 || t > 1000 ? 1000 : t);
		r = csm_process(async);
		last = r != 0 ? r : last;
	}
	assert_int_equal(seen.called, n);
	return last;
}

static void test_many_in_flight_answered_backward(void **state)
{
	uint64_t i;

	(void)state;
	fake.hold = 1000;
	fake.mode = FAKE_BACKWARD;
	for (i = 1; i <= 1000; i++)
		submit_ping(i, 0, done);
	assert_int_equal(csm_pending(async), 1000);
	assert_int_equal(loop(1000), 0);
	assert_int_equal(seen.ok, 1000);
	assert_int_equal(seen.order_bad, 0);
	assert_int_equal(csm_pending(async), 0);
	assert_int_equal(fake.accepted, 1);
	assert_int_equal(csm_timeout_ms(async), -1);
}

/* Without a loop of the program's: all at once, answered in any order; what is lost, late or refused is told. */
static void test_process_all(void **state)
{
	uint64_t i;

	(void)state;
	assert_int_equal(csm_process_all(async), 0);
	fake.hold = 16;
	fake.mode = FAKE_BACKWARD;
	for (i = 1; i <= 16; i++)
		submit_ping(i, 0, done);
	assert_int_equal(csm_process_all(async), 0);
	assert_int_equal(seen.ok, 16);
	assert_int_equal(seen.order_bad, 0);
	fake.lose = 1;
	fake.mode = FAKE_LOSE;
	for (i = 1; i <= 3; i++)
		submit_ping(i, 0, done);
	assert_int_equal(csm_process_all(async), 0);
	assert_int_equal(seen.ok, 19);
	fake.mode = FAKE_SILENT;
	for (i = 1; i <= 3; i++)
		submit_ping(i, 100, done);
	assert_int_equal(csm_process_all(async), 0);
	assert_int_equal(seen.called, 22);
	assert_int_equal(seen.last_error, CSM_ETIMEOUT);
	assert_int_equal(unlink(fake.path), 0);
	fake.lose = 2;
	fake.mode = FAKE_LOSE;
	submit_ping(1, 0, done);
	assert_int_equal(csm_process_all(async), CSM_EUNREACHABLE);
	assert_int_equal(seen.called, 23);
	assert_int_equal(seen.last_error, CSM_EUNREACHABLE);
	assert_int_equal(csm_pending(async), 0);
}

/* More than the daemon allows in flight: the rest waits here. */
static void test_more_than_in_flight(void **state)
{
	uint64_t i;

	(void)state;
	fake.hold = CSM_IN_FLIGHT_MAX;
	fake.mode = FAKE_BACKWARD;
	for (i = 1; i <= 2 * CSM_IN_FLIGHT_MAX; i++)
		submit_ping(i, 0, done);
	assert_int_equal(loop(2 * CSM_IN_FLIGHT_MAX), 0);
	assert_int_equal(seen.ok, 2 * CSM_IN_FLIGHT_MAX);
	assert_int_equal(seen.order_bad, 0);
}

static void test_lost_connection_asks_again(void **state)
{
	struct csm_request *req;
	uint64_t i;

	(void)state;
	fake.lose = 1;
	fake.mode = FAKE_LOSE;
	for (i = 1; i <= 20; i++)
		submit_ping(i, 0, done);
	assert_int_equal(loop(20), 0);
	assert_int_equal(seen.ok, 20);
	assert_int_equal(fake.accepted, 2);
	/* the same request_id both times */
	fake.lose = 1;
	assert_int_equal(csm_request_new("key.delete", &req), 0);
	assert_int_equal(csm_request_str(req, "key", "k"), 0);
	assert_int_equal(csm_submit(async, req, 0, done, NULL), 0);
	csm_request_free(req);
	(void)loop(21);
	assert_int_equal(seen.ok, 21);
	assert_int_equal(fake.n_ids, 2);
	assert_int_equal(strlen(fake.ids[0]), CLIENT_REQUEST_ID_LEN);
	assert_string_equal(fake.ids[0], fake.ids[1]);
	/* lost twice is lost */
	fake.lose = 2;
	submit_ping(1, 0, done);
	(void)loop(22);
	assert_int_equal(seen.last_error, CSM_ECLOSED);
	submit_ping(1, 0, done);
	(void)loop(23);
	assert_int_equal(seen.last_error, 0);
}

/* What was asked before the proof is asked again after it, once; the caller sees nothing of that. */
static void test_proof(void **state)
{
	uint64_t i;

	(void)state;
	fake.mode = FAKE_PROOF;
	for (i = 1; i <= 300; i++)
		submit_ping(i, 0, done);
	assert_int_equal(loop(300), 0);
	assert_int_equal(seen.ok, 300);
	assert_int_equal(seen.order_bad, 0);
	assert_int_equal(fake.accepted, 1);
	assert_true(fake.proofs >= 1 && fake.proofs < 10);
	assert_int_equal(csm_pending(async), 0);
	/* and no more than once a connection */
	i = fake.proofs;
	for (; seen.called < 310; (void)loop(seen.called + 1))
		submit_ping(1, 0, done);
	assert_int_equal(seen.ok, 310);
	assert_int_equal(fake.proofs, i);
}

static void test_proof_refused(void **state)
{
	uint64_t i;

	(void)state;
	fake.proof_refused = true;
	fake.mode = FAKE_PROOF;
	for (i = 1; i <= 20; i++)
		submit_ping(i, 0, done);
	(void)loop(20);
	assert_int_equal(seen.ok, 0);
	assert_int_equal(seen.last_error, CSM_EDENIED);
	assert_int_equal(csm_pending(async), 0);
	/* what waits for a proof is given up with the rest */
	submit_ping(1, 0, done);
	assert_int_equal(csm_process(async), 0);
	fake_sleep_ms(50);
	fake.mode = FAKE_SILENT;
	assert_int_equal(csm_process(async), 0);
	csm_async_free(async);
	async = NULL;
	assert_int_equal(seen.called, 21);
}

/* An answer that asks for a proof without saying of what is the caller's. */
static void test_proof_without_nonce(void **state)
{
	(void)state;
	fake.mode = FAKE_ERROR;
	fake.error_code = CSM_EPROOF_REQUIRED;
	submit_ping(1, 0, done);
	(void)loop(1);
	assert_int_equal(seen.last_error, CSM_EPROOF_REQUIRED);
}

static void test_deadlines(void **state)
{
	uint64_t i;

	(void)state;
	fake.mode = FAKE_SILENT;
	submit_ping(1, 5000, done);
	submit_ping(2, 100, done);
	assert_true(csm_timeout_ms(async) <= 100);
	(void)loop(1);
	assert_int_equal(seen.last_error, CSM_ETIMEOUT);
	assert_int_equal(csm_pending(async), 1);
	/* with the late answers thrown away, the connection goes on */
	csm_async_free(async);
	assert_int_equal(seen.called, 2);
	assert_int_equal(seen.last_error, CSM_ECLOSED);
	assert_int_equal(csm_async_new(csm, &async), 0);
	fake.slow_ms = 150;
	fake.mode = FAKE_SLOW;
	submit_ping(1, 50, done);
	(void)loop(3);
	assert_int_equal(seen.last_error, CSM_ETIMEOUT);
	for (i = 2; i < 4; i++)
		submit_ping(i, 5000, done);
	(void)loop(5);
	assert_int_equal(seen.ok, 2);
	assert_int_equal(seen.order_bad, 0);
	assert_int_equal(fake.accepted, 2);
}

static void test_unreachable(void **state)
{
	(void)state;
	csm_async_free(async);
	assert_int_equal(csm_set_socket(csm, "/nonexistent/sock"), 0);
	assert_int_equal(csm_async_new(csm, &async), 0);
	submit_ping(1, 0, done);
	submit_ping(2, 0, done);
	assert_int_equal(csm_timeout_ms(async), 0);
	assert_int_equal(loop(2), CSM_EUNREACHABLE);
	assert_int_equal(seen.last_error, CSM_EUNREACHABLE);
	assert_int_equal(csm_pending(async), 0);
}

static void test_full_listener(void **state)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char path[128];
	int l, k;

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/full", fake.dir);
	memcpy(a.sun_path, path, strlen(path) + 1);
	l = socket(AF_UNIX, SOCK_STREAM, 0);
	k = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(l, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(l, 0), 0);
	assert_int_equal(connect(k, (struct sockaddr *)&a, sizeof(a)), 0);
	csm_async_free(async);
	assert_int_equal(csm_set_socket(csm, path), 0);
	assert_int_equal(csm_async_new(csm, &async), 0);
	submit_ping(1, 150, done);
	assert_int_equal(csm_process(async), 0);
	/* no spin: it waits before it tries again */
	assert_true(csm_timeout_ms(async) > 0 && csm_timeout_ms(async) <= 10);
	(void)loop(1);
	assert_int_equal(seen.last_error, CSM_ETIMEOUT);
	(void)close(k);
	(void)close(l);
	(void)unlink(path);
}

static void test_malformed_answer_fails_all(void **state)
{
	static const char other[] = "\x94\x01\x7f\xc0\x80";
	static const char busy[] =
		"\x94\x01\x7f\x84\xa4" "code\x0f\xa4" "name\xa4" "busy\xa7" "message\xa4" "full\xa9" "retryable\xc3\xc0";

	(void)state;
	fake.raw = other;
	fake.raw_len = sizeof(other) - 1;
	fake.mode = FAKE_RAW;
	submit_ping(1, 0, done);
	submit_ping(2, 0, done);
	assert_int_equal(loop(2), CSM_EPROTOCOL);
	assert_int_equal(seen.last_error, CSM_EPROTOCOL);
	/* an error to no request concerns the connection */
	fake.raw = busy;
	fake.raw_len = sizeof(busy) - 1;
	submit_ping(1, 0, done);
	assert_int_equal(loop(3), CSM_EBUSY);
	fake.mode = FAKE_NORMAL;
	submit_ping(3, 0, done);
	assert_int_equal(loop(4), 0);
	assert_int_equal(seen.ok, 1);
}

static void test_daemon_error_is_for_one(void **state)
{
	(void)state;
	fake.error_code = CSM_EDENIED;
	fake.error_text = "no";
	fake.mode = FAKE_ERROR;
	submit_ping(1, 0, done);
	assert_int_equal(loop(1), 0);
	assert_int_equal(seen.last_error, CSM_EDENIED);
	fake.mode = FAKE_NORMAL;
	submit_ping(1, 0, done);
	assert_int_equal(loop(2), 0);
	assert_int_equal(fake.accepted, 1);
}

/* A stream's steps in flight together, on the one connection; lost, they are not repeated. */
static void test_streams(void **state)
{
	struct csm_request *req;
	int i;

	(void)state;
	assert_int_equal(csm_request_new("key.sign_init", &req), 0);
	assert_int_equal(csm_request_str(req, "key", "k"), 0);
	assert_int_equal(csm_submit(async, req, 0, done, NULL), 0);
	csm_request_free(req);
	assert_int_equal(csm_request_new("key.sign_update", &req), 0);
	assert_int_equal(csm_request_u64(req, "stream", 9), 0);
	assert_int_equal(csm_request_bin(req, "data", "abc", 3), 0);
	for (i = 0; i < 4; i++)
		assert_int_equal(csm_submit(async, req, 0, done, NULL), 0);
	assert_int_equal(loop(5), 0);
	assert_int_equal(seen.ok, 5);
	assert_int_equal(fake.stream_bytes, 12);
	fake.lose = 1;
	fake.mode = FAKE_LOSE;
	assert_int_equal(csm_submit(async, req, 0, done, NULL), 0);
	(void)loop(6);
	assert_int_equal(seen.last_error, CSM_ECLOSED);
	csm_request_free(req);
}

static void again(void *arg, int error, struct csm_reply *reply)
{
	done(arg, error, reply);
	if (seen.called < 50)
		submit_ping((uint64_t)(uintptr_t)arg, 0, again);
}

static void test_submit_in_callback(void **state)
{
	(void)state;
	submit_ping(7, 0, again);
	assert_int_equal(loop(50), 0);
	assert_int_equal(seen.ok, 50);
}

static void again_on_failure(void *arg, int error, struct csm_reply *reply)
{
	done(arg, error, reply);
	if (seen.called == 1)
		submit_ping(9, 0, done);
}

static void test_submit_while_all_fails(void **state)
{
	static const char raw[] = "\xc1";

	(void)state;
	fake.raw = raw;
	fake.raw_len = 1;
	fake.mode = FAKE_RAW;
	submit_ping(1, 0, again_on_failure);
	while (seen.called == 0)
		(void)csm_process(async);
	/* what the callback asked for is not among the failed */
	assert_int_equal(seen.called, 1);
	assert_int_equal(csm_pending(async), 1);
	fake.mode = FAKE_NORMAL;
	(void)loop(2);
	assert_int_equal(seen.last_error, 0);
}

static void free_it(void *arg, int error, struct csm_reply *reply)
{
	csm_async_free(async);
	done(arg, error, reply);
	assert_int_equal(csm_process(async), CSM_ESTATE);
}

static void test_free_in_callback(void **state)
{
	(void)state;
	submit_ping(1, 0, free_it);
	submit_ping(2, 0, done);
	submit_ping(3, 0, done);
	while (seen.called == 0) {
		(void)csm_process(async);
	}
	assert_int_equal(seen.called, 3);
	assert_int_equal(seen.ok, 1);
	assert_int_equal(seen.last_error, CSM_ECLOSED);
	async = NULL;
}

static void test_fork(void **state)
{
	struct csm_request *req;
	int status;
	pid_t pid;

	(void)state;
	fake.slow_ms = 100;
	fake.mode = FAKE_SLOW;
	submit_ping(1, 0, done);
	assert_int_equal(csm_process(async), 0);
	assert_int_equal(csm_request_new("ping", &req), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (csm_submit(async, req, 0, done, NULL) != CSM_ESTATE || csm_process(async) != CSM_ESTATE)
			_exit(1);
		csm_async_free(async);
		_exit(seen.called == 0 ? 0 : 2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	csm_request_free(req);
	assert_int_equal(loop(1), 0);
	assert_int_equal(seen.ok, 1);
}

static void test_refused_submissions(void **state)
{
	struct csm_request *req;

	(void)state;
	assert_int_equal(csm_request_new("key.sign", &req), 0);
	assert_int_equal(csm_submit(async, req, 0, done, NULL), CSM_EINVALID);
	assert_int_equal(csm_request_str(req, "key", "k"), 0);
	assert_int_equal(csm_submit(async, req, 0, NULL, NULL), CSM_EINVALID);
	csm_request_free(req);
	assert_int_equal(csm_pending(async), 0);
	assert_int_equal(csm_fd(async), -1);
	assert_int_equal(csm_process(async), 0);
	assert_int_equal(fake.accepted, 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_many_in_flight_answered_backward), T(test_process_all),
		T(test_process_all), T(test_more_than_in_flight), T(test_lost_connection_asks_again),
		T(test_proof), T(test_proof_refused), T(test_proof_without_nonce), T(test_deadlines), T(test_unreachable), T(test_full_listener), T(test_malformed_answer_fails_all),
		T(test_daemon_error_is_for_one), T(test_streams), T(test_submit_in_callback), T(test_submit_while_all_fails),
		T(test_free_in_callback), T(test_fork), T(test_refused_submissions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
