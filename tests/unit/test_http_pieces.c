/* Bodies in the smallest pieces that there are: they take as much memory as what is in them. */
#include <malloc.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include <event2/event.h>
#include <openssl/ssl.h>
#include "daemon/svc/http.h"
#include "tests/lib/pkifix.h"

#define BODY 20000u

static struct csm_http *http;
static struct sockaddr_in address;
static atomic_size_t now, peak; /* bytes that libevent has, and had at most */

/* ---- what libevent has ---- */

static void count(size_t n)
{
	size_t is = atomic_fetch_add(&now, n) + n, was = atomic_load(&peak);

	while (is > was && !atomic_compare_exchange_weak(&peak, &was, is))
		;
}

static void *counted_malloc(size_t n)
{
	void *p = malloc(n);

	count(malloc_usable_size(p));
	return p;
}

static void *counted_realloc(void *p, size_t n)
{
	void *again;

	atomic_fetch_sub(&now, malloc_usable_size(p));
	again = realloc(p, n);
	count(malloc_usable_size(again));
	return again;
}

static void counted_free(void *p)
{
	atomic_fetch_sub(&now, malloc_usable_size(p));
	free(p);
}

/* ---- a server, a client ---- */

static void says_size(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	char text[32];
	int n = snprintf(text, sizeof(text), "%zu bytes", req->body.n);

	(void)arg;
	for (size_t i = 0; i < req->body.n; i++)
		assert_int_equal(req->body.p[i], (uint8_t)(i * 7));
	assert_int_equal(csm_buf_put(&res->body, text, (size_t)n), 0);
	res->status = 200;
}

static const struct csm_http_route routes[] = {{"POST", "/size", CSM_HTTP_TLS, BODY, says_size, NULL, NULL}, {NULL, NULL, 0, 0, NULL, NULL, NULL}};

static int set_up(void **state)
{
	struct csm_http_options opt = {.routes = routes, .workers = 1, .plain_fd = -1, .local_fd = -1,
		.tls_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
	struct pki_ca ca = pki_ca_make("/CN=Server", "p256", NULL);
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	socklen_t n = sizeof(address);

	(void)state;
	address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	assert_true(bind(opt.tls_fd, (void *)&address, n) == 0 && listen(opt.tls_fd, 64) == 0 &&
		getsockname(opt.tls_fd, (void *)&address, &n) == 0);
	assert_true(SSL_CTX_use_certificate(ctx, ca.cert) == 1 && SSL_CTX_use_PrivateKey(ctx, ca.key) == 1);
	assert_int_equal(csm_http_new(&opt, &http), 0);
	csm_http_set_tls(http, ctx);
	assert_int_equal(csm_http_start(http), 0);
	pki_ca_free(&ca);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	csm_http_free(http, 1000);
	return 0;
}

static void send_all(SSL *s, const char *text)
{
	assert_int_equal(SSL_write(s, text, (int)strlen(text)), (int)strlen(text));
}

/* A record of TLS for each byte; chunked: and a chunk. */
static void sends(bool chunked)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	SSL *s = SSL_new(ctx);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), n;
	char text[1024];
	size_t before;

	assert_int_equal(connect(fd, (void *)&address, sizeof(address)), 0);
	assert_true(SSL_set_fd(s, fd) == 1 && SSL_connect(s) == 1);
	(void)snprintf(text, sizeof(text), "POST /size HTTP/1.1\r\nHost: a\r\nConnection: close\r\n%s\r\n\r\n",
		chunked ? "Transfer-Encoding: chunked" : "Content-Length: 20000");
	before = atomic_load(&now);
	atomic_store(&peak, before);
	send_all(s, text);
	for (unsigned i = 0; i < BODY; i++) {
		text[0] = (char)(i * 7);
		if (chunked)
			send_all(s, "1\r\n");
		assert_int_equal(SSL_write(s, text, 1), 1);
		if (chunked)
			send_all(s, "\r\n");
	}
	if (chunked)
		send_all(s, "0\r\n\r\n");
	n = 0;
	for (int got = 1; got > 0 && n < (int)sizeof(text) - 1; n += got > 0 ? got : 0)
		got = SSL_read(s, text + n, (int)sizeof(text) - 1 - n);
	text[n] = '\0';
	SSL_free(s);
	SSL_CTX_free(ctx);
	close(fd);
	assert_non_null(strstr(text, "\r\n\r\n20000 bytes"));
	assert_in_range(atomic_load(&peak) - before, 0, 10 * BODY);
}

static void a_byte_in_a_record_is_no_more(void **state)
{
	(void)state;
	sends(false);
}

static void nor_is_one_in_a_chunk(void **state)
{
	(void)state;
	sends(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_byte_in_a_record_is_no_more, set_up, tear_down),
		cmocka_unit_test_setup_teardown(nor_is_one_in_a_chunk, set_up, tear_down),
	};

	event_set_mem_functions(counted_malloc, counted_realloc, counted_free);
	return cmocka_run_group_tests(tests, NULL, pki_teardown);
}
