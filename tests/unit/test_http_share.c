/* Bodies that the HTTP server sends without a copy: whole, given back once whatever happens, and there once however many read them. */
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/svc/http.h"
#include "tests/lib/dbfix.h"

#define LONG (8u << 20)
#define READERS 20u

static struct csm_http *http;
static struct sockaddr_in address;
static uint8_t *list;
static atomic_uint asked, given, released;

/* ---- a server ---- */

static void give_back(void *arg)
{
	assert_ptr_equal(arg, list);
	atomic_fetch_add(&released, 1);
}

static void share(struct csm_http_res *res)
{
	csm_http_res_share(res, list, LONG, give_back, list);
	atomic_fetch_add(&given, 1);
	res->status = 200;
}

static void shares(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	(void)arg;
	(void)req;
	share(res);
	atomic_fetch_add(&asked, 1);
}

static void shares_in_place_of(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	(void)arg;
	(void)req;
	if (csm_buf_put(&res->body, "before", 6) != 0)
		return;
	share(res);
	share(res);
}

static void shares_and_fails(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	(void)arg;
	(void)req;
	share(res);
	csm_http_fail(res, CSM_ENOT_FOUND, "no");
}

static void shares_and_says_nothing(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	(void)arg;
	(void)req;
	share(res);
	res->status = 304;
}

static const struct csm_http_route routes[] = {{"GET", "/list", CSM_HTTP_PLAIN, 0, shares, NULL, NULL},
	{"GET", "/replaced", CSM_HTTP_PLAIN, 0, shares_in_place_of, NULL, NULL}, {"GET", "/failed", CSM_HTTP_PLAIN, 0, shares_and_fails, NULL, NULL},
	{"GET", "/same", CSM_HTTP_PLAIN, 0, shares_and_says_nothing, NULL, NULL}, {NULL, NULL, 0, 0, NULL, NULL, NULL}};

static int set_up(void **state)
{
	struct csm_http_options opt = {.routes = routes, .workers = 2, .tls_fd = -1, .local_fd = -1,
		.plain_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
	socklen_t n = sizeof(address);

	(void)state;
	address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	assert_true(bind(opt.plain_fd, (void *)&address, n) == 0 && listen(opt.plain_fd, 64) == 0 &&
		getsockname(opt.plain_fd, (void *)&address, &n) == 0);
	if ((list = malloc(LONG)) == NULL)
		return -1;
	for (size_t i = 0; i < LONG; i++)
		list[i] = (uint8_t)(i * 2654435761u >> 13);
	asked = given = released = 0;
	assert_int_equal(csm_http_new(&opt, &http), 0);
	assert_int_equal(csm_http_start(http), 0);
	return 0;
}

/* Whatever happened before, each was given back, and none twice. */
static int tear_down(void **state)
{
	(void)state;
	csm_http_free(http, 1000);
	assert_true(given > 0);
	assert_int_equal(released, given);
	free(list);
	return 0;
}

/* ---- a client ---- */

static int request(const char *method, const char *path)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), n, small = 4096;
	char text[128];

	assert_true(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)) == 0 &&
		connect(fd, (void *)&address, sizeof(address)) == 0);
	n = snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", method, path);
	assert_int_equal(send(fd, text, (size_t)n, MSG_NOSIGNAL), n);
	return fd;
}

/* All that comes; NUL behind it. */
static size_t answer(int fd, char **ret)
{
	size_t n = 0, room = LONG + 4096;
	char *text = malloc(room + 1);
	ssize_t got = 1;

	assert_non_null(text);
	while (got > 0) {
		struct pollfd p = {fd, POLLIN, 0};

		assert_int_equal(poll(&p, 1, 20000), 1);
		got = recv(fd, text + n, room - n, 0);
		assert_true(got >= 0);
		n += (size_t)got;
	}
	text[n] = 0;
	close(fd);
	*ret = text;
	return n;
}

static bool soon(const atomic_uint *what, unsigned n)
{
	static const struct timespec pause = {0, 10000000};

	for (int i = 0; i < 2000 && atomic_load(what) < n; i++)
		nanosleep(&pause, NULL);
	return atomic_load(what) == n;
}

/* ---- tests ---- */

static void is_whole(const char *path)
{
	char *text;
	size_t n = answer(request("GET", path), &text);
	const char *body = strstr(text, "\r\n\r\n");

	assert_non_null(body);
	assert_non_null(strstr(text, "Content-Length: 8388608\r\n"));
	assert_int_equal(n - (size_t)(body + 4 - text), LONG);
	assert_memory_equal(body + 4, list, LONG);
	free(text);
}

static void a_shared_body_is_whole(void **state)
{
	(void)state;
	is_whole("/list");
	assert_true(soon(&released, 1));
	is_whole("/replaced");
	assert_true(soon(&released, 3));
}

static void what_is_not_sent_is_given_back(void **state)
{
	char *text;

	(void)state;
	(void)answer(request("HEAD", "/list"), &text);
	assert_non_null(strstr(text, "Content-Length: 8388608\r\n"));
	assert_string_equal(strstr(text, "\r\n\r\n"), "\r\n\r\n");
	free(text);
	assert_true(soon(&released, 1));
	(void)answer(request("GET", "/failed"), &text);
	assert_non_null(strstr(text, "404 Not Found"));
	assert_non_null(strstr(text, "{\"error\""));
	free(text);
	assert_true(soon(&released, 2));
	(void)answer(request("GET", "/same"), &text);
	assert_non_null(strstr(text, "304 Not Modified"));
	free(text);
	assert_true(soon(&released, 3));
}

static void slow_readers_cost_no_memory(void **state)
{
	int fd[READERS];
	size_t before;

	(void)state;
	is_whole("/list"); /* what the first one takes is not theirs */
	before = dbfix_resident(false);
	for (size_t i = 0; i < READERS; i++)
		fd[i] = request("GET", "/list");
	assert_true(soon(&asked, 1 + READERS));
	for (size_t i = 0; i < READERS; i++) { /* the answer is on its way */
		struct pollfd p = {fd[i], POLLIN, 0};

		assert_int_equal(poll(&p, 1, 20000), 1);
	}
	assert_int_equal(released, 1);
	assert_in_range(dbfix_resident(false), 0, before + 3 * LONG);
	/* Half of them go away in the middle. */
	for (size_t i = 0; i < READERS / 2; i++)
		close(fd[i]);
	assert_true(soon(&released, 1 + READERS / 2));
	for (size_t i = READERS / 2; i < READERS; i++) {
		char *text;

		assert_true(answer(fd[i], &text) > LONG);
		assert_memory_equal(strstr(text, "\r\n\r\n") + 4, list, LONG);
		free(text);
	}
	assert_true(soon(&released, 1 + READERS));
}

#define ON(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {ON(a_shared_body_is_whole), ON(what_is_not_sent_is_given_back), ON(slow_readers_cost_no_memory)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
