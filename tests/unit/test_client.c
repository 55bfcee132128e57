/* libcsm's blocking calls against a scripted daemon. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
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

/* A connection proves what is asked of it, once; the caller sees nothing of that. */
static void test_proof(void **state)
{
	uint8_t sig[CSM_SIGNATURE_BYTES];
	size_t len = sizeof(sig);
	struct csm_sign *s;

	(void)state;
	fake.mode = FAKE_PROOF;
	assert_int_equal(csm_key_sign(csm, "k", NULL, "0123456789", 10, sig, &len), 0);
	assert_memory_equal(sig, "0123456789", 10);
	assert_int_equal(csm_ping(csm), 0);
	assert_int_equal(fake.accepted, 1);
	assert_int_equal(fake.proofs, 1);
	assert_int_equal(fake.requests, 4);
	/* a signature in parts has its own connection */
	len = sizeof(sig);
	assert_int_equal(csm_sign_start(csm, "k", NULL, &s), 0);
	assert_int_equal(csm_sign_update(s, "data", 4), 0);
	assert_int_equal(csm_sign_finish(s, sig, &len), 0);
	csm_sign_free(s);
	assert_true(fake.proofs <= 2);

	fake.proof_refused = true;
	csm_free(csm);
	assert_int_equal(csm_new(&csm), 0);
	assert_int_equal(csm_set_socket(csm, fake.path), 0);
	assert_int_equal(csm_ping(csm), CSM_EDENIED);
	assert_string_equal(csm_error_message(), "no proof");
	fake.mode = FAKE_ERROR;
	fake.error_code = CSM_EPROOF_REQUIRED;
	assert_int_equal(csm_ping(csm), CSM_EPROOF_REQUIRED);
}

static void test_certificates(void **state)
{
	static const uint8_t large[CSM_CHAIN_BYTES + 1];
	struct csm_reply *rep;
	struct csm_view v;
	char out[16];
	size_t len = sizeof(out), n;

	(void)state;
	assert_int_equal(csm_cert_install(csm, "web:tls", large, CSM_CHAIN_BYTES), 0);
	assert_int_equal(csm_cert_install(csm, "web:tls", large, sizeof(large)), CSM_ETOO_LARGE);
	assert_int_equal(csm_cert_install(csm, NULL, large, 1), CSM_EINVALID);
	assert_int_equal(csm_cert_chain(csm, "web:tls", out, &len), 0);
	assert_int_equal(len, 7);
	assert_memory_equal(out, "a chain", 7);
	len = 6;
	assert_int_equal(csm_cert_chain(csm, "web:tls", out, &len), CSM_ETOO_LARGE);
	assert_int_equal(len, 7);
	assert_int_equal(csm_cert_show(csm, "web:tls", &rep), 0);
	v = csm_reply_view(rep);
	assert_string_equal(csm_view_str(v, "subject"), "/CN=x");
	assert_memory_equal(csm_view_bin(v, "chain", &n), "a chain", 8);
	assert_int_equal(n, 7);
	csm_reply_free(rep);
	assert_int_equal(csm_cert_delete(csm, "web:tls"), 0);
	fake.mode = FAKE_ERROR;
	fake.error_code = CSM_ENOT_FOUND;
	len = sizeof(out);
	assert_int_equal(csm_cert_chain(csm, "web:tls", out, &len), CSM_ENOT_FOUND);
	assert_int_equal(csm_cert_show(csm, "web:tls", &rep), CSM_ENOT_FOUND);
}

static void test_enrolment(void **state)
{
	const char *sans[CSM_SANS_MAX + 1] = {"dns:a", "ip:192.0.2.7"}, *keys[CSM_WATCH_KEYS_MAX + 1] = {"web:tls"};
	struct csm_enrol what = {.profile = "lan", .subject = "/CN=a", .sans = sans, .n_sans = 2, .ttl = 60};
	struct csm_reply *rep;

	(void)state;
	assert_int_equal(csm_cert_enrol(csm, "web:tls", &what, NULL), 0);
	assert_int_equal(csm_cert_enrol(csm, "web:tls", NULL, &rep), 0);
	assert_string_equal(csm_view_str(csm_reply_view(rep), "subject"), "/CN=x");
	csm_reply_free(rep);
	assert_int_equal(csm_cert_enrol(csm, NULL, &what, NULL), CSM_EINVALID);
	what.n_sans = CSM_SANS_MAX + 1;
	assert_int_equal(csm_cert_enrol(csm, "web:tls", &what, NULL), CSM_ETOO_LARGE);
	assert_int_equal(csm_cert_renew(csm, "web:tls", true, NULL), 0);
	assert_int_equal(csm_cert_renew(csm, NULL, false, NULL), CSM_EINVALID);
	assert_int_equal(csm_cert_revoke(csm, "web:tls", "superseded", NULL), 0);
	assert_int_equal(csm_cert_watch(csm, keys, CSM_WATCH_KEYS_MAX + 1, 0, 0, NULL), CSM_ETOO_LARGE);
	assert_int_equal(csm_cert_watch(csm, keys, 1, 7, 1000, NULL), 0);
	/* what waits for a CA waits longer than the handle's time */
	csm_set_timeout(csm, 50);
	fake.mode = FAKE_SLOW;
	fake.slow_ms = 300;
	assert_int_equal(csm_cert_renew(csm, "web:tls", false, NULL), CSM_ETIMEOUT);
	assert_int_equal(csm_cert_renew(csm, "web:tls", true, NULL), 0);
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

/* A block that held a secret is blank before it serves the next one, or goes back to the system. */
static void test_secrets_are_wiped(void **state)
{
	struct csm_reply *rep;
	struct csm_buf b[4];
	bool found = false;
	const uint8_t *p;
	size_t i, k, n;

	(void)state;
	assert_int_equal(csm_secret_get(csm, "db/main", NULL, 0, &rep), 0);
	p = rep->buf.p;
	n = rep->buf.cap;
	assert_non_null(memmem(p, n, "p\0w", 3));
	csm_reply_free(rep);
	/* the same block is given out again */
	for (k = 0; k < 4; k++) {
		client_buf_init(&b[k], true);
		found = found || b[k].p == p;
		for (i = 0; i < n; i++)
			assert_int_equal(b[k].p[i], 0);
	}
	assert_true(found);
	for (k = 0; k < 4; k++)
		client_buf_free(&b[k]);
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
	unsigned before;

	fake.raw = raw;
	fake.raw_len = n;
	fake.mode = mode;
	assert_int_equal(csm_ping(csm), mode == FAKE_RAW_END ? CSM_ECLOSED : CSM_EPROTOCOL);
	before = fake.accepted;
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
		"\x94\x01\x01\xc0\x81\xa4\x64\x61ta\xa1x", /* a string in place of bytes */
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

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_typed_calls), T(test_proof), T(test_certificates), T(test_enrolment), T(test_output_sizes), T(test_secrets), T(test_secrets_are_wiped), T(test_random_in_pieces),
		T(test_long_message_is_streamed), T(test_stream_steps), T(test_requests), T(test_request_limits),
		T(test_daemon_errors), T(test_unknown_code_is_internal), T(test_deadline), T(test_full_listener),
		T(test_unreachable), T(test_lost_answer_is_asked_again), T(test_own_request_id_is_kept),
		T(test_daemon_restarts), T(test_malformed_answers), T(test_unknown_fields_are_passed_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
