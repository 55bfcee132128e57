/* The client of csm-server's REST, at a server that plays what it is told over a Unix socket. TLS is in tests/system and
 * tests/interop, where csm-enrol meets real servers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <openssl/pem.h>
#include "libclient/rest/rest.h"
#include "tests/lib/certmake.h"

#define TEST(t) cmocka_unit_test(t)

static char folder[] = "/tmp/csm-rest.XXXXXX", path[64];

struct play {
	const char *answer;
	size_t n;
	unsigned each_ms; /* a byte at a time with so much between; 0: all at once */
	char asked[4096];
	int fd;
	pthread_t thread;
};

static void *serve(void *arg)
{
	struct play *p = arg;
	size_t have = 0;
	int c = accept(p->fd, NULL, NULL);

	while (c >= 0 && have < sizeof(p->asked) - 1 && strstr(p->asked, "\r\n\r\n") == NULL) {
		ssize_t n = read(c, p->asked + have, sizeof(p->asked) - 1 - have);

		if (n <= 0)
			break;
		have += (size_t)n;
	}
	for (size_t at = 0; c >= 0 && at < p->n;) {
		size_t n = p->each_ms > 0 ? 1 : p->n - at;
		ssize_t sent = send(c, p->answer + at, n, MSG_NOSIGNAL);

		if (sent <= 0)
			break;
		at += (size_t)sent;
		if (p->each_ms > 0)
			nanosleep(&(struct timespec){0, p->each_ms * 1000000L}, NULL);
	}
	shutdown(c, SHUT_RDWR);
	close(c);
	return NULL;
}

static void start(struct play *p, const char *answer, size_t n)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	p->answer = answer;
	p->n = n;
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	unlink(path);
	p->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(p->fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(p->fd, 4), 0);
	assert_int_equal(pthread_create(&p->thread, NULL, serve, p), 0);
}

static void stop(struct play *p)
{
	shutdown(p->fd, SHUT_RDWR);
	pthread_join(p->thread, NULL);
	close(p->fd);
}

static struct csm_rest *client(struct csm_rest_options opt)
{
	char why[CSM_REST_WHY_MAX + 1];
	struct csm_rest *r;

	opt.socket = path;
	assert_int_equal(csm_rest_new(&opt, &r, why), 0);
	return r;
}

/* One GET, and what the server is made to say. */
static int ask_as(struct csm_rest_options opt, struct play *p, const char *answer, size_t n, struct csm_rest_res *res)
{
	struct csm_rest_req req = {.method = "GET", .path = "/v1/x"};
	struct csm_rest *r;
	int err;

	start(p, answer, n);
	r = client(opt);
	err = csm_rest_send(r, &req, res);
	csm_rest_free(r);
	stop(p);
	return err;
}
static int ask(const char *answer, struct csm_rest_res *res)
{
	struct play p = {.each_ms = 0};

	return ask_as((struct csm_rest_options){.timeout_ms = 5000}, &p, answer, strlen(answer), res);
}

/* ---- answers ---- */

static void json_is_given(void **state)
{
	struct csm_rest_res res;

	(void)state;
	csm_rest_res_init(&res);
	assert_int_equal(ask("HTTP/1.1 201 Created\r\nContent-Type: Application/JSON; charset=utf-8\r\nContent-Length: 15\r\n\r\n"
			     "{\"serial\":\"ab\"}", &res), 0);
	assert_int_equal(res.status, 201);
	assert_string_equal(res.type, "application/json");
	assert_string_equal(csm_rest_text(res.json, "serial"), "ab");
	assert_null(csm_rest_text(res.json, "other"));
	assert_false(res.retry_after);
	/* What went before is gone with the next call. */
	assert_int_equal(ask("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi", &res), 0);
	assert_null(res.json);
	assert_int_equal(res.body.len, 2);
	csm_rest_res_clear(&res);
}

static void refusals_become_codes(void **state)
{
	static const struct {
		const char *status, *body;
		int code;
		const char *why;
	} t[] = {
		{"403 Forbidden", "{\"error\":{\"code\":10,\"name\":\"not_found\",\"message\":\"no profile web\"}}", CSM_ENOT_FOUND,
			"no profile web"},
		{"409 Conflict", "{\"error\":{\"code\":9,\"name\":\"from_the_future\",\"message\":\"odd\"}}", CSM_ECONFLICT, "odd"},
		/* A name of the client's own never comes from a server. */
		{"500 x", "{\"error\":{\"code\":101,\"name\":\"closed\",\"message\":\"\"}}", CSM_EBACKEND, "status 500"},
		{"400 x", "{\"error\":{\"name\":\"invalid\",\"message\":\"a\\u001b[31m\\u00e9b\"}}", CSM_EINVALID, "a?[31m??b"},
		{"400 x", "{\"error\":\"text\"}", CSM_EINVALID, "status 400"},
		{"400 x", "[]", CSM_EINVALID, "status 400"},
		{"400 x", "{\"error\":", CSM_EINVALID, "status 400"},
		{"401 x", "", CSM_EDENIED, "status 401"},
		{"403 x", "", CSM_EDENIED, "status 403"},
		{"404 x", "", CSM_ENOT_FOUND, "status 404"},
		{"413 x", "", CSM_ETOO_LARGE, "status 413"},
		{"418 x", "", CSM_EINVALID, "status 418"},
		{"429 x", "", CSM_EBUSY, "status 429"},
		{"501 x", "", CSM_EUNSUPPORTED, "status 501"},
		{"502 x", "", CSM_EBACKEND, "status 502"},
		{"503 x", "", CSM_EUNAVAILABLE, "status 503"},
		{"504 x", "", CSM_ETIMEOUT, "status 504"},
		{"302 x\r\nLocation: http://localhost/other", "", CSM_EPROTOCOL, "status 302"},
	};
	struct csm_rest_res res;
	char text[1024];

	(void)state;
	csm_rest_res_init(&res);
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		snprintf(text, sizeof(text), "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
			t[i].status, strlen(t[i].body), t[i].body);
		assert_int_equal(ask(text, &res), t[i].code);
		assert_non_null(strstr(res.why, t[i].why));
		assert_null(res.json);
	}
	csm_rest_res_clear(&res);
}

static void texts_for_people_are_bounded(void **state)
{
	static char text[8192];
	struct csm_rest_res res;
	int n = snprintf(text, sizeof(text), "HTTP/1.1 400 x\r\nContent-Type: text/plain\r\nContent-Length: 4000\r\n\r\n");

	(void)state;
	memset(text + n, 'w', 4000);
	csm_rest_res_init(&res);
	assert_int_equal(ask(text, &res), CSM_EINVALID);
	assert_int_equal(strlen(res.why), CSM_REST_WHY_MAX);
	assert_string_equal(res.why + CSM_REST_WHY_MAX - 4, "w...");
	assert_int_equal(ask("HTTP/1.1 400 x\r\nContent-Type: text/plain\r\nContent-Length: 11\r\n\r\nfirst\nagain", &res), CSM_EINVALID);
	assert_string_equal(res.why, "first");
	csm_rest_res_clear(&res);
}

static void retry_after_is_kept(void **state)
{
	struct csm_rest_res res;

	(void)state;
	csm_rest_res_init(&res);
	assert_int_equal(ask("HTTP/1.1 503 x\r\nretry-after: 17\r\nContent-Length: 0\r\n\r\n", &res), CSM_EUNAVAILABLE);
	assert_true(res.retry_after);
	assert_int_equal(res.retry_after_s, 17);
	assert_int_equal(ask("HTTP/1.1 202 x\r\nRetry-After: 99999999999\r\nContent-Length: 0\r\n\r\n", &res), 0);
	assert_int_equal(res.retry_after_s, 86400);
	assert_int_equal(ask("HTTP/1.1 503 x\r\nRetry-After: Thu, 01 Jan 1998 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n", &res),
		CSM_EUNAVAILABLE);
	assert_true(res.retry_after);
	assert_int_equal(res.retry_after_s, 0);
	assert_int_equal(ask("HTTP/1.1 503 x\r\nRetry-After: soon\r\nContent-Length: 0\r\n\r\n", &res), CSM_EUNAVAILABLE);
	assert_int_equal(res.retry_after_s, 0);
	csm_rest_res_clear(&res);
}

static void cursor_of_the_next_page_is_kept(void **state)
{
	char answer[CSM_REST_NEXT_MAX + 128], cursor[CSM_REST_NEXT_MAX + 2];
	struct csm_rest_res res;

	(void)state;
	csm_rest_res_init(&res);
	assert_int_equal(ask("HTTP/1.1 200 x\r\ncsm-next:  ab-1 \r\nContent-Length: 0\r\n\r\n", &res), 0);
	assert_string_equal(res.next, "ab-1");
	assert_int_equal(ask("HTTP/1.1 200 x\r\nContent-Length: 0\r\n\r\n", &res), 0);
	assert_string_equal(res.next, "");
	memset(cursor, 'c', sizeof(cursor) - 1);
	cursor[sizeof(cursor) - 1] = '\0'; /* one too long */
	(void)snprintf(answer, sizeof(answer), "HTTP/1.1 200 x\r\nCSM-Next: %s\r\nContent-Length: 0\r\n\r\n", cursor);
	assert_int_equal(ask(answer, &res), 0);
	assert_string_equal(res.next, "");
	cursor[sizeof(cursor) - 2] = '\0';
	(void)snprintf(answer, sizeof(answer), "HTTP/1.1 200 x\r\nCSM-Next: %s\r\nContent-Length: 0\r\n\r\n", cursor);
	assert_int_equal(ask(answer, &res), 0);
	assert_string_equal(res.next, cursor);
	csm_rest_res_clear(&res);
}

static void what_is_no_answer_is_told(void **state)
{
	static const struct {
		const char *answer;
		int code;
	} t[] = {
		{"", CSM_ECLOSED},
		{"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", CSM_ECLOSED},
		{"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{]", CSM_EPROTOCOL},
		{"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"a\":1,\"a\":2}", CSM_EPROTOCOL},
		{"SSH-2.0-OpenSSH_9.2\r\n\r\n", CSM_EPROTOCOL},
	};
	struct csm_rest_res res;

	(void)state;
	csm_rest_res_init(&res);
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		assert_int_equal(ask(t[i].answer, &res), t[i].code);
		assert_true(res.why[0] != '\0');
	}
	csm_rest_res_clear(&res);
}

/* ---- limits ---- */

static void sizes_are_bounded(void **state)
{
	static const char next[] = {'\r', '\n', 'Y', ':', ' '};
	size_t n = 200 * 1024;
	char *text = malloc(n);
	struct csm_rest_res res;
	struct play p = {.each_ms = 0};
	int k;

	(void)state;
	csm_rest_res_init(&res);
	memset(text, 'a', n);
	k = snprintf(text, n, "HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n");
	text[k] = 'a';
	assert_int_equal(ask_as((struct csm_rest_options){.body_max = 4096}, &p, text, (size_t)k + 4096, &res), 0);
	assert_int_equal(res.body.len, 4096);
	p = (struct play){.each_ms = 0};
	assert_int_equal(ask_as((struct csm_rest_options){.body_max = 4095}, &p, text, (size_t)k + 4096, &res), CSM_ETOO_LARGE);
	/* Headers: in one line, and in many. */
	memset(text, 'a', n);
	k = snprintf(text, n, "HTTP/1.1 200 OK\r\nX: ");
	text[k] = 'a';
	p = (struct play){.each_ms = 0};
	assert_int_not_equal(ask_as((struct csm_rest_options){.timeout_ms = 5000}, &p, text, n, &res), 0);
	for (size_t i = (size_t)k; i + 100 < n; i += 100)
		memcpy(text + i, next, sizeof(next));
	p = (struct play){.each_ms = 0};
	assert_int_equal(ask_as((struct csm_rest_options){.timeout_ms = 5000}, &p, text, n, &res), CSM_ETOO_LARGE);
	free(text);
	csm_rest_res_clear(&res);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Bytes that keep coming do not put the end off; nor does a deadline that is over begin anything. */
static void time_is_bounded(void **state)
{
	static const char slow[] = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\naaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
	struct csm_rest_req req = {.method = "GET", .path = "/"};
	struct play p = {.each_ms = 20};
	struct csm_rest_res res;
	struct csm_rest *r;

	(void)state;
	csm_rest_res_init(&res);
	assert_int_equal(ask_as((struct csm_rest_options){.timeout_ms = 300}, &p, slow, sizeof(slow) - 1, &res), CSM_ETIMEOUT);
	r = client((struct csm_rest_options){.timeout_ms = 0});
	csm_rest_deadline(r, now_ms() - 1);
	assert_int_equal(csm_rest_send(r, &req, &res), CSM_ETIMEOUT);
	unlink(path);
	csm_rest_deadline(r, 0);
	assert_int_equal(csm_rest_send(r, &req, &res), CSM_EUNREACHABLE);
	csm_rest_free(r);
	csm_rest_res_clear(&res);
}

/* ---- requests ---- */

static void requests_are_as_asked(void **state)
{
	static const char token[] = "tok-en.1", done[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
	struct csm_rest_options opt = {.token = {(const uint8_t *)token, sizeof(token) - 1}};
	struct csm_rest_req req = {.method = "DELETE", .path = "/v1/cms/tokens/7", .idempotency = "abc"};
	struct play p = {.each_ms = 0};
	json_t *body = json_pack("{s:s}", "csr", "x");
	struct csm_rest_res res;
	struct csm_rest *r;

	(void)state;
	csm_rest_res_init(&res);
	start(&p, done, sizeof(done) - 1);
	r = client(opt);
	assert_int_equal(csm_rest_send(r, &req, &res), 0);
	stop(&p);
	assert_memory_equal(p.asked, "DELETE /v1/cms/tokens/7 HTTP/1.1\r\n", 34);
	assert_non_null(strstr(p.asked, "\r\nAuthorization: Bearer tok-en.1\r\n"));
	assert_non_null(strstr(p.asked, "\r\nIdempotency-Key: abc\r\n"));
	assert_non_null(strstr(p.asked, "\r\nAccept: application/json\r\n"));
	assert_null(strstr(p.asked, "Content-Type"));
	p = (struct play){.each_ms = 0};
	start(&p, done, sizeof(done) - 1);
	assert_int_equal(csm_rest_json(r, "POST", "/v1/cms/renew", body, &res), 0);
	stop(&p);
	assert_memory_equal(p.asked, "POST /v1/cms/renew HTTP/1.1\r\n", 29);
	assert_non_null(strstr(p.asked, "\r\nContent-Type: application/json\r\n"));
	assert_non_null(strstr(p.asked, "\r\nContent-Length: 11\r\n"));
	assert_null(strstr(p.asked, "Expect"));
	assert_null(strstr(p.asked, "Idempotency"));
	json_decref(body);
	csm_rest_free(r);
	csm_rest_res_clear(&res);
}

/* Nothing that a caller passes on makes another request of it. */
static void requests_cannot_be_split(void **state)
{
	static const struct csm_rest_req bad[] = {
		{.method = "GET", .path = "/a b"},
		{.method = "GET", .path = "/a\r\nX: y"},
		{.method = "GET", .path = "a"},
		{.method = "GET", .path = ""},
		{.method = "GET /x", .path = "/"},
		{.method = "GET", .path = "/\x80"},
		{.method = "POST", .path = "/", .idempotency = "a\r\nX: y"},
		{.method = "POST", .path = "/", .accept = "a\nb"},
	};
	char out[32] = "/v1/";
	struct csm_rest_res res;
	struct csm_rest *r;

	(void)state;
	csm_rest_res_init(&res);
	r = client((struct csm_rest_options){.timeout_ms = 1000});
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(csm_rest_send(r, &bad[i], &res), CSM_EINVALID);
	csm_rest_free(r);
	assert_int_equal(csm_rest_escape(CSM_STR("a/b c\r\n%.~"), out, sizeof(out)), 0);
	assert_string_equal(out, "/v1/a%2Fb%20c%0D%0A%25.~");
	assert_int_equal(csm_rest_escape(CSM_STR("123456789"), out, sizeof(out)), CSM_ETOO_LARGE);
	csm_rest_res_clear(&res);
}

/* ---- options ---- */

static void refuse(const struct csm_rest_options *opt, const char *part)
{
	char why[CSM_REST_WHY_MAX + 1] = "";
	struct csm_rest *r;

	assert_int_equal(csm_rest_new(opt, &r, why), CSM_EINVALID);
	assert_non_null(strstr(why, part));
}

static void options_are_checked(void **state)
{
	static const char *const urls[] = {"http://a", "https://", "https://u:p@a", "https://a?b", "https://a#b", "ftp://a", "a", "",
		"https://a:99999", "file:///etc/passwd"};
	static const uint8_t one[] = "x", longer[CSM_REST_TOKEN_MAX + 1] = {'a'}, crlf[] = "a\r\nb";
	struct csm_rest_options o = {.url = "https://localhost"};
	struct csm_bin x = {one, 1};

	(void)state;
	for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++)
		refuse(&(struct csm_rest_options){.url = urls[i], .unverified = true}, "a URL here is");
	refuse(&(struct csm_rest_options){.url = NULL}, "a URL or a socket");
	refuse(&(struct csm_rest_options){.url = "https://a", .socket = path}, "a URL or a socket");
	/* Trust is given, and once. */
	refuse(&o, "no CA certificate");
	o.unverified = true;
	o.ca_file = "/nowhere";
	refuse(&o, "more than one");
	o.unverified = false;
	refuse(&o, "/nowhere");
	o.ca_file = NULL;
	o.anchors = x;
	refuse(&o, "no certificates");
	/* Nobody gets a credential who is not trusted. */
	refuse(&(struct csm_rest_options){.url = "https://a", .unverified = true, .token = x}, "not verified");
	refuse(&(struct csm_rest_options){.url = "https://a", .unverified = true, .basic = x}, "not verified");
	refuse(&(struct csm_rest_options){.url = "https://a", .unverified = true, .cert_file = "a", .key_file = "b"}, "not verified");
	refuse(&(struct csm_rest_options){.socket = path, .unverified = true}, "no TLS");
	refuse(&(struct csm_rest_options){.socket = path, .cert_file = "a", .key_file = "b"}, "no TLS");
	refuse(&(struct csm_rest_options){.socket = path, .token = x, .basic = x}, "a token or");
	refuse(&(struct csm_rest_options){.socket = path, .token = {one, 0}}, "1 to 512");
	refuse(&(struct csm_rest_options){.socket = path, .token = {longer, sizeof(longer)}}, "1 to 512");
	refuse(&(struct csm_rest_options){.socket = path, .token = {crlf, 4}}, "printable");
}

static void client_files_are_checked(void **state)
{
	char cert[80], key[80], other[80], why[CSM_REST_WHY_MAX + 1];
	EVP_PKEY *k = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256"), *k2 = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	struct csm_rest_options o = {.url = "https://localhost/prefix/", .ca_file = cert, .cert_file = cert, .key_file = key};
	X509 *x = cert_make(&(struct certspec){.subject = "/CN=a", .key = k, .ca = true});
	struct csm_rest *r;
	FILE *f;

	(void)state;
	snprintf(cert, sizeof(cert), "%s/cert", folder);
	snprintf(key, sizeof(key), "%s/key", folder);
	snprintf(other, sizeof(other), "%s/other", folder);
	assert_non_null(f = fopen(cert, "w"));
	assert_int_equal(PEM_write_X509(f, x), 1);
	fclose(f);
	assert_non_null(f = fopen(key, "w"));
	assert_int_equal(PEM_write_PrivateKey(f, k, NULL, NULL, 0, NULL, NULL), 1);
	fclose(f);
	assert_non_null(f = fopen(other, "w"));
	assert_int_equal(PEM_write_PrivateKey(f, k2, NULL, NULL, 0, NULL, NULL), 1);
	fclose(f);
	assert_int_equal(csm_rest_new(&o, &r, why), 0);
	csm_rest_free(r);
	o.key_file = other;
	refuse(&o, "fits the certificate");
	o.key_file = NULL;
	refuse(&o, "go together");
	o.key_file = key;
	o.cert_file = key;
	refuse(&o, "no certificate can be read");
	unlink(cert);
	unlink(key);
	unlink(other);
	X509_free(x);
	EVP_PKEY_free(k);
	EVP_PKEY_free(k2);
}

static int set_up(void **state)
{
	(void)state;
	if (mkdtemp(folder) == NULL || csm_rest_prepare() != 0)
		return 1;
	snprintf(path, sizeof(path), "%s/sock", folder);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(json_is_given),
		TEST(refusals_become_codes),
		TEST(texts_for_people_are_bounded),
		TEST(retry_after_is_kept),
		TEST(cursor_of_the_next_page_is_kept),
		TEST(what_is_no_answer_is_told),
		TEST(sizes_are_bounded),
		TEST(time_is_bounded),
		TEST(requests_are_as_asked),
		TEST(requests_cannot_be_split),
		TEST(options_are_checked),
		TEST(client_files_are_checked),
	};

	return cmocka_run_group_tests_name("rest", tests, set_up, tear_down);
}
