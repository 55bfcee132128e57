/* The HTTP server over real sockets: what it answers, what it refuses and how, and what slow, rude and vanished clients get. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/svc/http.h"
#include "proto-spec/limits.h"

static struct csm_http *http;
static int port;
static char local_path[64];
static atomic_int told, told_gone, n_slow;
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

/* ---- a server ---- */

static void echo(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	struct csm_str q = csm_http_query(req, "q"), x = csm_http_header(req, "x-word");
	char line[2600];
	int n;

	(void)arg;
	n = snprintf(line, sizeof(line), "%.*s door=%d uid=%d param=%.*s q=%.*s x=%.*s body=%zu:", (int)req->method.n, req->method.p,
		(int)req->door, (int)req->peer_uid, req->n_params > 0 ? (int)req->param[0].n : 0, req->n_params > 0 ? req->param[0].p : "",
		q.p != NULL ? (int)q.n : 1, q.p != NULL ? q.p : "-", x.p != NULL ? (int)x.n : 1, x.p != NULL ? x.p : "-", req->body.n);
	if (csm_buf_put(&res->body, line, (size_t)n) != 0 || csm_buf_put(&res->body, req->body.p, req->body.n) != 0 ||
		csm_http_res_header(res, "X-Made-By", "%s", "echo") != 0)
		return;
	res->type = "text/plain";
	res->status = 200;
}

static void fails(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	(void)arg;
	(void)req;
	csm_http_fail(res, CSM_EUNAUTHENTICATED, "say \"who\"\n");
}

static void says_nothing(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	(void)arg;
	(void)req;
	res->status = 204;
}

/* As long as the test holds the gate. */
static void slow(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	(void)arg;
	(void)req;
	atomic_fetch_add(&n_slow, 1);
	pthread_mutex_lock(&gate);
	pthread_mutex_unlock(&gate);
	res->status = 204;
}

static void large(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	static char block[65536];

	(void)arg;
	(void)req;
	for (int i = 0; i < 64; i++)
		if (csm_buf_put(&res->body, block, sizeof(block)) != 0)
			return;
	res->status = 200;
}

static void done(void *arg, const struct csm_http_done *d)
{
	(void)arg;
	atomic_fetch_add(d->status == 0 ? &told_gone : &told, 1);
}

#define ALL (CSM_HTTP_TLS | CSM_HTTP_PLAIN | CSM_HTTP_LOCAL)
static const struct csm_http_route routes[] = {{"GET", "/echo", ALL, 0, echo, NULL, NULL}, {"POST", "/echo", ALL, 1000, echo, NULL, NULL},
	{"POST", "/json", ALL, 1000, echo, "application/json", NULL}, {"GET", "/a/{x}/b", ALL, 0, echo, NULL, NULL},
	{"GET", "/rest/{x*}", ALL, 0, echo, NULL, NULL}, {"DELETE", "/echo", ALL, 0, echo, NULL, NULL},
	{"GET", "/fails", ALL, 0, fails, NULL, NULL}, {"GET", "/nothing", ALL, 0, says_nothing, NULL, NULL},
	{"GET", "/slow", ALL, 0, slow, NULL, NULL}, {"GET", "/large", ALL, 0, large, NULL, NULL},
	{"GET", "/local", CSM_HTTP_LOCAL, 0, echo, NULL, NULL}, {NULL, NULL, 0, 0, NULL, NULL, NULL}};

static int listen_tcp(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0 && bind(fd, (void *)&a, n) == 0 && listen(fd, 64) == 0 && getsockname(fd, (void *)&a, &n) == 0);
	port = ntohs(a.sin_port);
	return fd;
}

static int listen_local(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(local_path, sizeof(local_path), "%.40s/csm-http.%d", getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp", getpid());
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", local_path);
	unlink(local_path);
	assert_true(fd >= 0 && bind(fd, (void *)&a, sizeof(a)) == 0 && listen(fd, 64) == 0);
	return fd;
}

static void start(const struct csm_http_limits *limits)
{
	const struct csm_http_options opt = {.routes = routes, .done = done, .workers = 2, .limits = *limits, .tls_fd = -1,
		.plain_fd = listen_tcp(), .local_fd = listen_local()};

	assert_int_equal(csm_http_new(&opt, &http), 0);
	assert_int_equal(csm_http_start(http), 0);
}

static int set_up(void **state)
{
	const struct csm_http_limits limits = {.head_ms = 600, .body_ms = 600, .idle_ms = 700, .write_ms = 700};

	(void)state;
	start(&limits);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	csm_http_free(http, 2000);
	http = NULL;
	unlink(local_path);
	return 0;
}

/* ---- a client ---- */

static int dial(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0 && connect(fd, (void *)&a, sizeof(a)) == 0);
	return fd;
}

static void say(int fd, const char *text, size_t n)
{
	assert_int_equal(send(fd, text, n, MSG_NOSIGNAL), n);
}

/* Until the server ends the connection, or `quiet` ms without a byte. */
static size_t hear(int fd, char *to, size_t cap, int quiet, bool *ended)
{
	size_t n = 0;

	*ended = false;
	while (n + 1 < cap) {
		struct pollfd p = {fd, POLLIN, 0};
		ssize_t got;

		if (poll(&p, 1, quiet) <= 0)
			break;
		got = recv(fd, to + n, cap - 1 - n, 0);
		if (got <= 0) {
			*ended = true;
			break;
		}
		n += (size_t)got;
	}
	to[n] = 0;
	return n;
}

/* Is it one answer with all of its body? */
static bool is_whole(const char *text)
{
	const char *end = strstr(text, "\r\n\r\n"), *length = strstr(text, "Content-Length: ");

	if (end == NULL)
		return false;
	return length == NULL || length > end || strlen(end + 4) >= strtoul(length + 16, NULL, 10);
}

/* A connection, some bytes, all that comes back. */
static char answer[65536];
static bool closed;
static const char *ask_n(const char *text, size_t n, int quiet)
{
	int fd = dial();

	say(fd, text, n);
	hear(fd, answer, sizeof(answer), quiet, &closed);
	close(fd);
	return answer;
}
static const char *ask(const char *text)
{
	return ask_n(text, strlen(text), 250);
}

/* The first answer is enough. */
static const char *ask_one(const char *text)
{
	size_t n = 0;
	int fd = dial();

	say(fd, text, strlen(text));
	closed = false;
	answer[0] = 0;
	while (!closed && !is_whole(answer)) {
		struct pollfd p = {fd, POLLIN, 0};

		if (poll(&p, 1, 5000) <= 0)
			break;
		ssize_t got = recv(fd, answer + n, sizeof(answer) - 1 - n, 0);

		closed = got <= 0;
		n += got > 0 ? (size_t)got : 0;
		answer[n] = 0;
	}
	close(fd);
	return answer;
}

static int status(const char *text)
{
	char *end;
	long v;

	if (strncmp(text, "HTTP/1.", 7) != 0 || text[7] == '\0' || text[8] != ' ')
		return -1;
	v = strtol(text + 9, &end, 10);
	return end == text + 12 && *end == ' ' ? (int)v : -1;
}

static int n_answers(const char *text)
{
	int n = 0;

	for (const char *p = text; (p = strstr(p, "HTTP/1.1 ")) != NULL; p++)
		n++;
	return n;
}

#define HOST " HTTP/1.1\r\nHost: a\r\n"
/* Refused with that status, in JSON, and the connection is at its end. */
static void refused(const char *text, int wanted)
{
	const char *a = ask(text);

	if (status(a) != wanted || !closed || n_answers(a) != 1 || strstr(a, "{\"error\": {\"code\": ") == NULL ||
		strstr(a, "Content-Type: application/json\r\n") == NULL)
		fail_msg("%s: not %d and the end: %s", text, wanted, a);
}

/* ---- what is served ---- */

static void requests_are_answered(void **state)
{
	(void)state;
	assert_non_null(strstr(ask_one("GET /echo?q=a%20b+c" HOST "X-Word: yes\r\n\r\n"), "GET door=2 uid=-1 param= q=a b c x=yes body=0:"));
	assert_false(closed);
	assert_non_null(strstr(answer, "X-Made-By: echo\r\n"));
	assert_non_null(strstr(answer, "Content-Type: text/plain\r\n"));
	assert_non_null(strstr(ask_one("POST /echo" HOST "Content-Length: 5\r\n\r\nhello"), "body=5:hello"));
	assert_non_null(strstr(ask_one("POST /echo" HOST "Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nT: z\r\n\r\n"),
		"body=5:hello"));
	assert_non_null(strstr(ask_one("DELETE /echo" HOST "\r\n"), "DELETE door=2"));
	assert_non_null(strstr(ask_one("GET /a/x%2fy/b" HOST "\r\n"), "param=x/y"));
	assert_non_null(strstr(ask_one("GET /rest/x/y/%41" HOST "\r\n"), "param=x/y/A"));
	assert_non_null(strstr(ask_one("GET http://a/echo" HOST "\r\n"), "GET door=2"));
	assert_non_null(strstr(ask_one("\r\nGET /echo" HOST "\r\n"), "GET door=2"));
	assert_int_equal(status(ask_one("GET /nothing" HOST "\r\n")), 204);
	assert_null(strstr(answer, "Content-Length"));
	assert_int_equal(status(ask_one("GET /fails" HOST "\r\n")), 401);
	assert_non_null(strstr(answer, "WWW-Authenticate: Bearer"));
	assert_non_null(strstr(answer, "\"say \\\"who\\\"\\u000a\""));
}

static void head_has_no_body(void **state)
{
	const char *a;

	(void)state;
	a = ask("HEAD /echo" HOST "\r\nGET /nothing" HOST "\r\n");
	assert_int_equal(n_answers(a), 2);
	assert_null(strstr(a, "HEAD door"));
	assert_non_null(strstr(a, "Content-Length: "));
	a = ask("HEAD /none" HOST "\r\nGET /nothing" HOST "\r\n");
	assert_int_equal(status(a), 404);
	assert_int_equal(n_answers(a), 2);
	assert_null(strstr(a, "error"));
}

static void connections_are_kept_or_not(void **state)
{
	const char *a;

	(void)state;
	a = ask("GET /echo?q=1" HOST "\r\nGET /echo?q=2" HOST "\r\nGET /none" HOST "\r\nGET /echo?q=3" HOST "Connection: close\r\n\r\n"
		"GET /echo?q=4" HOST "\r\n");
	assert_int_equal(n_answers(a), 4);
	assert_true(closed);
	assert_true(strstr(a, "q=1") < strstr(a, "q=2") && strstr(a, "q=2") < strstr(a, "q=3"));
	assert_null(strstr(a, "q=4"));
	assert_int_equal(status(ask("GET /echo HTTP/1.0\r\n\r\n")), 200);
	assert_true(closed);
	/* Half closed by the client: it is owed the answer. */
	int fd = dial();
	say(fd, "GET /echo" HOST "\r\n", strlen("GET /echo" HOST "\r\n"));
	shutdown(fd, SHUT_WR);
	hear(fd, answer, sizeof(answer), 3000, &closed);
	close(fd);
	assert_int_equal(status(answer), 200);
	assert_true(closed);
}

static void continue_is_said(void **state)
{
	static const char head[] = "POST /echo" HOST "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n";
	int fd = dial();

	(void)state;
	say(fd, head, sizeof(head) - 1);
	hear(fd, answer, sizeof(answer), 200, &closed);
	assert_string_equal(answer, "HTTP/1.1 100 Continue\r\n\r\n");
	say(fd, "ok", 2);
	hear(fd, answer, sizeof(answer), 200, &closed);
	assert_non_null(strstr(answer, "body=2:ok"));
	close(fd);
	refused("POST /none" HOST "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n", 404);
	refused("POST /echo" HOST "Expect: wonders\r\nContent-Length: 2\r\n\r\n", 417);
}

/* The kernel says who is at the Unix socket; what is not for a door is not there. */
static void local_peer_is_told(void **state)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char wanted[64];

	(void)state;
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", local_path);
	assert_int_equal(connect(fd, (void *)&a, sizeof(a)), 0);
	say(fd, "GET /local" HOST "\r\n", strlen("GET /local" HOST "\r\n"));
	hear(fd, answer, sizeof(answer), 250, &closed);
	close(fd);
	snprintf(wanted, sizeof(wanted), "door=4 uid=%d ", (int)getuid());
	assert_non_null(strstr(answer, wanted));
	assert_int_equal(status(ask_one("GET /local" HOST "\r\n")), 404);
}

/* ---- what is refused ---- */

static void methods_and_paths(void **state)
{
	(void)state;
	assert_int_equal(status(ask_one("GET /none" HOST "\r\n")), 404);
	assert_int_equal(status(ask_one("PUT /echo" HOST "\r\n")), 405);
	assert_non_null(strstr(answer, "Allow: GET, HEAD, POST, DELETE\r\n"));
	assert_int_equal(status(ask_one("OPTIONS /fails" HOST "\r\n")), 405);
	assert_non_null(strstr(answer, "Allow: GET, HEAD\r\n"));
	assert_int_equal(status(ask_one("BREW /fails" HOST "\r\n")), 405);
	assert_int_equal(status(ask_one("GET /a//b" HOST "\r\n")), 404);
	assert_int_equal(status(ask_one("GET /a/x/b/" HOST "\r\n")), 404);
	assert_int_equal(status(ask_one("GET /a/%01/b" HOST "\r\n")), 400);
	assert_int_equal(status(ask_one("GET /a/%ff/b" HOST "\r\n")), 400);
	assert_int_equal(status(ask_one("GET /echo?q=1&q=2" HOST "\r\n")), 400);
	assert_int_equal(status(ask_one("POST /json" HOST "Content-Length: 2\r\nContent-Type: text/json\r\n\r\n{}")), 415);
	assert_int_equal(status(ask_one("POST /json" HOST "Content-Length: 2\r\n\r\n{}")), 415);
	assert_int_equal(
		status(ask_one("POST /json" HOST "Content-Length: 2\r\nContent-Type: Application/JSON; charset=utf-8\r\n\r\n{}")), 200);
	assert_int_equal(status(ask_one("POST /echo" HOST "\r\n")), 411);
}

/* Of two readers of these, each could see another request. */
static void doubtful_forms(void **state)
{
	static const char *const bad[] = {
		"POST /echo" HOST "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
		"POST /echo" HOST "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
		"POST /echo" HOST "Content-Length: 5, 5\r\n\r\nhello",
		"POST /echo" HOST "Content-Length: +5\r\n\r\nhello",
		"POST /echo" HOST "Content-Length: 0x5\r\n\r\nhello",
		"POST /echo" HOST "Content-Length: -1\r\n\r\nhello",
		"POST /echo" HOST "Content-Length:\r\n\r\nhello",
		"POST /echo" HOST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST /echo" HOST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
		"POST /echo" HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST /echo" HOST "Content-Length : 5\r\n\r\nhello",
		"POST /echo" HOST " Content-Length: 5\r\n\r\nhello",
		"POST /echo" HOST "X: y\r\n Content-Length: 5\r\n\r\nhello",
		"POST /echo" HOST "Content-Length: 5\n\r\nhello",
		"POST /echo" HOST "X: a\rContent-Length: 5\r\n\r\nhello",
		"POST /echo" HOST ": 5\r\n\r\nhello",
		"POST /echo" HOST "Content-Length\r\n\r\nhello",
		"GET /echo\r\n\r\n", "GET  /echo" HOST "\r\n", "GET /echo  HTTP/1.1\r\nHost: a\r\n\r\n", " GET /echo" HOST "\r\n",
		"GET /echo HTTP/1.1 \r\nHost: a\r\n\r\n", "GET /echo http/1.1\r\nHost: a\r\n\r\n", "GET echo" HOST "\r\n", "GET //x/echo" HOST "\r\n",
		"GET /ec\x01ho" HOST "\r\n", "GET /echo%" HOST "\r\n", "GET /echo%4" HOST "\r\n", "GET /e%00" HOST "\r\n", "GET /e\"" HOST "\r\n",
		"GET /echo HTTP/1.1\r\n\r\n", "GET /echo" HOST "Host: b\r\n\r\n", "GET /echo HTTP/1.1\r\nHost: a b\r\n\r\n",
		"GET /echo HTTP/1.1\r\nHost: a/b\r\n\r\n", "GET /echo HTTP/1.1\r\nHost:\r\n\r\n", "GET /echo" HOST "Authorization: a\r\nauthorization: b\r\n\r\n",
		"POST /echo" HOST "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
		"POST /echo" HOST "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
		"POST /echo" HOST "Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
		"POST /echo" HOST "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
		"POST /echo" HOST "Transfer-Encoding: chunked\r\n\r\n \r\n\r\n",
		"\x16\x03\x01\x02\x00\x01\r\n\r\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		refused(bad[i], 400);
	refused("POST /echo" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501);
	refused("POST /echo" HOST "Transfer-Encoding: identity\r\n\r\n", 501);
	refused("GET /echo HTTP/2.0\r\nHost: a\r\n\r\n", 505);
	refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
}

static void sizes_are_bounded(void **state)
{
	static char text[3 * CSM_HTTP_HEAD_MAX];
	size_t n;

	(void)state;
	refused("POST /echo" HOST "Content-Length: 1001\r\n\r\n", 413);
	refused("POST /echo" HOST "Content-Length: 99999999999999999999\r\n\r\n", 413);
	refused("POST /echo" HOST "Transfer-Encoding: chunked\r\n\r\n3e9\r\n", 413);
	refused("POST /echo" HOST "Transfer-Encoding: chunked\r\n\r\nfffffffff\r\n", 413);
	refused("GET /echo" HOST "Content-Length: 3\r\n\r\nabc", 413);
	refused("DELETE /echo" HOST "Content-Length: 3\r\n\r\nabc", 413);
	n = (size_t)snprintf(text, sizeof(text), "GET /echo" HOST);
	for (unsigned i = 0; i < CSM_HTTP_HEADERS_MAX; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "X-%u: y\r\n", i);
	snprintf(text + n, sizeof(text) - n, "\r\n");
	refused(text, 431);
	n = (size_t)snprintf(text, sizeof(text), "GET /echo" HOST "X: ");
	memset(text + n, 'x', CSM_HTTP_HEAD_MAX);
	text[n + CSM_HTTP_HEAD_MAX] = 0;
	refused(text, 431);
	n = (size_t)snprintf(text, sizeof(text), "GET /echo?");
	memset(text + n, 'x', CSM_HTTP_TARGET_MAX);
	snprintf(text + n + CSM_HTTP_TARGET_MAX, 64, HOST "\r\n");
	refused(text, 414);
}

/* Whatever is a whole request byte by byte is the same request. */
static void bytes_may_come_one_by_one(void **state)
{
	static const char text[] = "POST /echo" HOST "Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
	int fd = dial(), one = 1;

	(void)state;
	setsockopt(fd, IPPROTO_TCP, 1, &one, sizeof(one));
	for (size_t i = 0; i + 1 < sizeof(text); i++)
		say(fd, text + i, 1);
	hear(fd, answer, sizeof(answer), 250, &closed);
	close(fd);
	assert_non_null(strstr(answer, "body=5:hello"));
}

/* ---- slow and vanished clients ---- */

/* A byte every 100 ms does not move the deadline. */
static void dribble(const char *text, size_t whole, int wanted)
{
	int fd = dial();
	bool gone = false;
	size_t n = 0;

	say(fd, text, whole);
	for (int i = 0; i < 25 && !gone && n == 0; i++) {
		n = hear(fd, answer, sizeof(answer), 100, &gone);
		if (n == 0 && !gone && send(fd, "x", 1, MSG_NOSIGNAL) != 1)
			break;
	}
	if (wanted != 0)
		assert_int_equal(status(answer), wanted);
	else
		assert_true(gone && n == 0);
	close(fd);
}

static void deadlines_do_not_restart(void **state)
{
	static const char body[] = "POST /echo" HOST "Content-Length: 900\r\n\r\nx";

	(void)state;
	dribble("GET /ech", 8, 408);
	dribble(body, sizeof(body) - 1, 408);
}

static void silence_is_bounded(void **state)
{
	int fd = dial();

	(void)state;
	assert_int_equal(hear(fd, answer, sizeof(answer), 3000, &closed), 0);
	assert_true(closed);
	close(fd);
	/* Between requests too. */
	ask_n("GET /nothing" HOST "\r\n", strlen("GET /nothing" HOST "\r\n"), 3000);
	assert_int_equal(status(answer), 204);
	assert_true(closed);
}

/* Answers that nobody takes end with their connection. */
static void unread_answers_end(void **state)
{
	struct csm_http_stats s;
	int fd = dial(), small = 4096;

	(void)state;
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	for (int i = 0; i < 8; i++)
		say(fd, "GET /large" HOST "\r\n", strlen("GET /large" HOST "\r\n"));
	for (int i = 0; i < 400; i++) {
		csm_http_stats(http, &s);
		if (s.requests >= 1 && s.open == 0)
			break;
		usleep(50000);
	}
	assert_int_equal(s.open, 0);
	close(fd);
}

static void client_goes_before_the_answer(void **state)
{
	int before = atomic_load(&n_slow);

	(void)state;
	pthread_mutex_lock(&gate);
	for (int i = 0; i < 2; i++) {
		struct linger hard = {1, 0};
		int fd = dial();

		say(fd, "GET /slow" HOST "\r\n", strlen("GET /slow" HOST "\r\n"));
		for (int t = 0; t < 200 && atomic_load(&n_slow) <= before + i; t++)
			usleep(10000);
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
		close(fd);
	}
	pthread_mutex_unlock(&gate);
	assert_int_equal(status(ask_one("GET /nothing" HOST "\r\n")), 204);
}

/* More than the queue holds of one address is refused at once, with a time to come back; who waits is answered. */
static void full_queue_is_told(void **state)
{
	enum { N = CSM_HTTP_QUEUE_PER_CALLER + 20 };
	static int fd[N];
	int busy = 0, good = 0;

	(void)state;
	pthread_mutex_lock(&gate);
	for (int i = 0; i < N; i++) {
		fd[i] = dial();
		say(fd[i], "GET /slow" HOST "Connection: close\r\n\r\n", strlen("GET /slow" HOST "Connection: close\r\n\r\n"));
	}
	usleep(300000);
	pthread_mutex_unlock(&gate);
	for (int i = 0; i < N; i++) {
		hear(fd[i], answer, sizeof(answer), 3000, &closed);
		good += status(answer) == 204;
		busy += status(answer) == 503 && strstr(answer, "Retry-After: 1\r\n") != NULL;
		close(fd[i]);
	}
	assert_true(busy > 0);
	assert_int_equal(good + busy, N);
}

/* ---- limits ---- */

static void one_address_does_not_take_all(void **state)
{
	const struct csm_http_limits limits = {.connections = 8, .connections_per_address = 4, .idle_ms = 5000, .head_ms = 5000};
	int fd[6], ended = 0;

	(void)state;
	start(&limits);
	for (int i = 0; i < 6; i++)
		fd[i] = dial();
	for (int i = 0; i < 6; i++) {
		hear(fd[i], answer, sizeof(answer), 150, &closed);
		ended += closed;
	}
	assert_int_equal(ended, 2);
	for (int i = 0; i < 6; i++)
		close(fd[i]);
	usleep(300000);
	assert_int_equal(status(ask_one("GET /nothing" HOST "\r\n")), 204);
	tear_down(state);
}

/* At the cap nothing is accepted, and what waits is served when there is room. */
static void cap_pauses_the_listener(void **state)
{
	const struct csm_http_limits limits = {.connections = 4, .idle_ms = 5000, .head_ms = 5000};
	int fd[6];

	(void)state;
	start(&limits);
	for (int i = 0; i < 6; i++) {
		fd[i] = dial();
		say(fd[i], "GET /nothing" HOST "\r\n", strlen("GET /nothing" HOST "\r\n"));
	}
	for (int i = 0; i < 6; i++)
		assert_int_equal(hear(fd[i], answer, sizeof(answer), 200, &closed) > 0, i < 4);
	close(fd[0]);
	close(fd[1]);
	for (int i = 4; i < 6; i++) {
		hear(fd[i], answer, sizeof(answer), 1000, &closed);
		assert_int_equal(status(answer), 204);
	}
	for (int i = 2; i < 6; i++)
		close(fd[i]);
	tear_down(state);
}

/* A header that the plain door never looks at makes nobody somebody. */
static void requests_have_a_rate(void **state)
{
	static const char *const asked[] = {"GET /nothing" HOST "Connection: close\r\n\r\n",
		"GET /nothing" HOST "Authorization: Bearer x\r\nConnection: close\r\n\r\n"};
	const struct csm_http_limits limits = {.requests_per_address = 10};

	(void)state;
	for (size_t a = 0; a < 2; a++) {
		int refusals = 0;

		start(&limits);
		for (int i = 0; i < 40; i++)
			refusals += status(ask_n(asked[a], strlen(asked[a]), 1000)) == 429;
		assert_true(refusals >= 10 && refusals <= 30);
		assert_non_null(strstr(ask_one("GET /nothing" HOST "\r\n"), "Retry-After"));
		tear_down(state);
	}
}

/* What was asked is answered; who only sits there is not waited for. */
static void *free_it(void *arg)
{
	csm_http_free(arg, 3000);
	return NULL;
}

static void stop_answers_what_was_asked(void **state)
{
	const struct csm_http_limits limits = {.idle_ms = 60000, .head_ms = 60000};
	int asked, before = atomic_load(&n_slow), idle;
	pthread_t t;

	(void)state;
	start(&limits);
	idle = dial();
	asked = dial();
	pthread_mutex_lock(&gate);
	say(asked, "GET /slow" HOST "\r\n", strlen("GET /slow" HOST "\r\n"));
	for (int i = 0; i < 200 && atomic_load(&n_slow) <= before; i++)
		usleep(10000);
	assert_int_equal(pthread_create(&t, NULL, free_it, http), 0);
	hear(idle, answer, sizeof(answer), 2000, &closed);
	assert_true(closed);
	pthread_mutex_unlock(&gate);
	hear(asked, answer, sizeof(answer), 2000, &closed);
	assert_int_equal(status(answer), 204);
	assert_non_null(strstr(answer, "Connection: close\r\n"));
	pthread_join(t, NULL);
	close(idle);
	close(asked);
	unlink(local_path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define ON(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
		ON(requests_are_answered), ON(head_has_no_body), ON(connections_are_kept_or_not), ON(continue_is_said),
		ON(local_peer_is_told), ON(methods_and_paths), ON(doubtful_forms), ON(sizes_are_bounded),
		ON(bytes_may_come_one_by_one), ON(deadlines_do_not_restart), ON(silence_is_bounded), ON(unread_answers_end),
		ON(client_goes_before_the_answer), ON(full_queue_is_told), cmocka_unit_test(one_address_does_not_take_all),
		cmocka_unit_test(cap_pauses_the_listener), cmocka_unit_test(requests_have_a_rate),
		cmocka_unit_test(stop_answers_what_was_asked)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
