/* Requests of one route that are served together: those that wait, and none waits for others to come; each with its own answer, at its
 * own time, whatever becomes of the others. */
#include <netinet/in.h>
#include <poll.h>
#include <semaphore.h>
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

static struct csm_http *http;
static struct sockaddr_in address;
static sem_t in_gate, gate;
static atomic_uint n_batches, n_alone, n_ended;
static size_t sizes[64];

/* ---- a server ---- */

static bool is(const struct csm_http_req *req, const char *what)
{
	return req->n_params > 0 && csm_str_eq(req->param[0], what);
}

static void say(const struct csm_http_req *req, struct csm_http_res *res, const char *how)
{
	char line[128];
	int n = snprintf(line, sizeof(line), "%s %.*s", how, (int)req->param[0].n, req->param[0].p);

	if (csm_buf_put(&res->body, line, (size_t)n) != 0)
		return;
	res->type = "text/plain";
	res->status = 200;
}

static void wait_in_gate(void)
{
	sem_post(&in_gate);
	sem_wait(&gate);
}

static void alone(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	(void)arg;
	assert_true(req->again);
	assert_int_equal(res->body.len, 0);
	if (is(req, "hangs"))
		wait_in_gate();
	atomic_fetch_add(&n_alone, 1);
	say(req, res, "alone");
}

static void together(void *arg, struct csm_http_one *v, size_t n)
{
	bool stop = false;

	(void)arg;
	sizes[atomic_fetch_add(&n_batches, 1) % 64] = n;
	for (size_t i = 0; i < n; i++) {
		if (is(v[i].req, "early")) {
			say(v[i].req, v[i].res, "early");
			csm_http_answer_now(&v[i]);
		} else if (is(v[i].req, "leaves") || is(v[i].req, "hangs")) {
			say(v[i].req, v[i].res, "not this");
			csm_http_serve_alone(&v[i]);
		} else if (is(v[i].req, "refused")) {
			csm_http_fail(v[i].res, CSM_EDENIED, "no");
		} else {
			stop = stop || is(v[i].req, "stops");
			say(v[i].req, v[i].res, "together");
		}
	}
	if (stop)
		wait_in_gate();
}

static void done(void *arg, const struct csm_http_done *d)
{
	(void)arg;
	(void)d;
	atomic_fetch_add(&n_ended, 1);
}

static const struct csm_http_route routes[] = {{"GET", "/before", CSM_HTTP_PLAIN, 0, alone, NULL, NULL},
	{"GET", "/x/{what}", CSM_HTTP_PLAIN, 0, alone, NULL, together}, {NULL, NULL, 0, 0, NULL, NULL, NULL}};

static int set_up(void **state)
{
	struct csm_http_options opt = {.routes = routes, .done = done, .workers = 3, .together = 1, .tls_fd = -1, .local_fd = -1,
		.plain_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
	socklen_t n = sizeof(address);

	(void)state;
	address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	assert_true(bind(opt.plain_fd, (void *)&address, n) == 0 && listen(opt.plain_fd, 64) == 0 &&
		getsockname(opt.plain_fd, (void *)&address, &n) == 0);
	sem_init(&in_gate, 0, 0);
	sem_init(&gate, 0, 0);
	n_batches = n_alone = n_ended = 0;
	assert_int_equal(csm_http_new(&opt, &http), 0);
	assert_int_equal(csm_http_start(http), 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	csm_http_free(http, 1000);
	return 0;
}

/* ---- a client ---- */

static int ask(const char *what)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), n;
	char text[128];

	assert_true(fd >= 0 && connect(fd, (void *)&address, sizeof(address)) == 0);
	n = snprintf(text, sizeof(text), "GET /x/%s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", what);
	assert_int_equal(send(fd, text, (size_t)n, MSG_NOSIGNAL), n);
	return fd;
}

static bool silent(int fd)
{
	struct pollfd p = {fd, POLLIN, 0};

	return poll(&p, 1, 0) == 0;
}

/* Its status and body are these. */
static void expect(int fd, int status, const char *body)
{
	char text[2048];
	size_t n = 0;
	ssize_t got = 1;

	while (got > 0 && n < sizeof(text) - 1) {
		struct pollfd p = {fd, POLLIN, 0};

		assert_int_equal(poll(&p, 1, 20000), 1);
		got = recv(fd, text + n, sizeof(text) - 1 - n, 0);
		assert_true(got >= 0);
		n += (size_t)got;
	}
	text[n] = 0;
	close(fd);
	assert_true(n > 12 && strstr(text, "\r\n\r\n") != NULL);
	assert_int_equal(strtol(text + 9, NULL, 10), status);
	assert_non_null(strstr(strstr(text, "\r\n\r\n"), body));
}

static void until_queued(unsigned n)
{
	static const struct timespec pause = {0, 1000000};
	struct csm_http_stats s = {.queued = n + 1};

	for (int i = 0; i < 20000 && s.queued != n; i++) {
		csm_http_stats(http, &s);
		nanosleep(&pause, NULL);
	}
	assert_int_equal(s.queued, n);
}

/* ---- tests ---- */

static void one_waits_for_no_other(void **state)
{
	(void)state;
	expect(ask("one"), 200, "together one");
	assert_int_equal(n_batches, 1);
	assert_int_equal(sizes[0], 1);
}

static void those_that_wait_are_served_together(void **state)
{
	int first = ask("stops"), fd[20];

	(void)state;
	sem_wait(&in_gate);
	for (size_t i = 0; i < 20; i++)
		fd[i] = ask(i == 3 ? "refused" : i == 4 ? "leaves" : "one");
	until_queued(20);
	assert_int_equal(n_batches, 1);
	sem_post(&gate);
	expect(first, 200, "together stops");
	for (size_t i = 0; i < 20; i++)
		expect(fd[i], i == 3 ? 403 : 200, i == 3 ? "\"no\"" : i == 4 ? "alone leaves" : "together one");
	assert_int_equal(n_batches, 3);
	assert_true(sizes[1] == CSM_HTTP_TOGETHER_MAX && sizes[2] == 20 - CSM_HTTP_TOGETHER_MAX);
	assert_int_equal(n_alone, 1);
}

/* What hangs, and what the others wait for, hold nobody up who was answered, or is served by himself. */
static void none_holds_up_another(void **state)
{
	int first = ask("stops"), early, leaves, hangs, stops, gone;
	const struct linger hard = {1, 0};

	(void)state;
	sem_wait(&in_gate);
	early = ask("early");
	leaves = ask("leaves");
	hangs = ask("hangs");
	stops = ask("stops");
	gone = ask("one");
	until_queued(5);
	assert_int_equal(setsockopt(gone, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)), 0);
	close(gone);
	sem_post(&gate);
	expect(first, 200, "together stops");
	sem_wait(&in_gate); /* of these two, in this batch and alone */
	sem_wait(&in_gate);
	expect(early, 200, "early early");
	expect(leaves, 200, "alone leaves");
	assert_true(silent(hangs) && silent(stops));
	sem_post(&gate);
	sem_post(&gate);
	expect(hangs, 200, "alone hangs");
	expect(stops, 200, "together stops");
	assert_int_equal(n_batches, 2);
	for (int i = 0; i < 2000 && atomic_load(&n_ended) < 6; i++)
		usleep(10000);
	assert_int_equal(n_ended, 6);
}

static void *free_it(void *arg)
{
	(void)arg;
	csm_http_free(http, 10000);
	return NULL;
}

/* What has been asked is answered when the server ends, what was taken back too. */
static void the_end_answers_all(void **state)
{
	int first = ask("stops"), fd[6];
	pthread_t t;

	sem_wait(&in_gate);
	for (size_t i = 0; i < 6; i++)
		fd[i] = ask(i % 2 == 0 ? "leaves" : "one");
	until_queued(6);
	assert_int_equal(pthread_create(&t, NULL, free_it, NULL), 0);
	usleep(50000);
	sem_post(&gate);
	expect(first, 200, "together stops");
	for (size_t i = 0; i < 6; i++)
		expect(fd[i], 200, i % 2 == 0 ? "alone leaves" : "together one");
	pthread_join(t, NULL);
	assert_int_equal(set_up(state), 0);
}

#define ON(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {ON(one_waits_for_no_other), ON(those_that_wait_are_served_together), ON(none_holds_up_another),
		ON(the_end_answers_all)};

	alarm(100);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
