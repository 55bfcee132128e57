/* What is ours of reading a request: its head, what is made of it for evhttp, the chunked coding, queries. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/svc/http_int.h"

struct sink {
	size_t n;
};
static int take(void *arg, const char *p, size_t n)
{
	struct sink *s = arg;

	(void)p;
	s->n += n;
	return s->n > 100000 ? 413 : 0;
}

/* In pieces of any size it is what it is in one. */
static void chunks(const char *p, size_t n, size_t piece)
{
	struct http_chunks a = {.state = CHUNK_SIZE}, b = a;
	struct sink all = {0}, parts = {0};
	size_t took = n, at = 0, have = 0;
	int r = http_chunks_read(&a, p, &took, take, &all), q = 0;

	while (q == 0 && b.state != CHUNK_DONE && have < n) {
		have = n - have < piece ? n : have + piece;
		size_t step = have - at;

		q = http_chunks_read(&b, p + at, &step, take, &parts);
		at += step;
	}
	if (r == 0 && (q != 0 || a.state != b.state || all.n != parts.n || (a.state == CHUNK_DONE && took != at)))
		abort();
}

/* What evhttp is given reads as the same request, and has no framing but the one length. */
static void again(const struct http_head *h)
{
	static struct http_head second;
	struct csm_buf out;
	const char *why;
	size_t seen = 0;

	csm_buf_init(&out, 8 * CSM_HTTP_HEAD_MAX, false);
	if (http_head_write(h, 5, &out) != 0)
		abort();
	const char *p = (const char *)csm_buf_ptr(&out);

	if (http_head_size(p, out.len, &seen) != out.len)
		abort();
	if (out.len <= CSM_HTTP_HEAD_MAX && h->n_fields < CSM_HTTP_HEADERS_MAX &&
		(http_head_read(p, out.len, &second, &why) != 0 || second.chunked || second.expect || second.length != 5 ||
			!csm_str_same(second.path, h->path) || !csm_str_same(second.query, h->query) ||
			!csm_str_same(second.method, h->method)))
		abort();
	csm_buf_free(&out);
}

static void parameters(const struct http_head *h)
{
	struct http_param all[CSM_HTTP_QUERY_MAX];
	size_t n = 0;
	char *text = malloc(h->query.n + h->path.n + 1);
	struct csm_str s;

	if (text == NULL)
		return;
	if (http_decode_query(h->query, text, all, &n) == 0)
		for (size_t i = 0; i < n; i++)
			if (!csm_utf8_valid(all[i].value.p, all[i].value.n))
				abort();
	if (http_decode(h->path, false, text, &s) == 0 && memchr(s.p, 0, s.n) != NULL)
		abort();
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct http_head h;
	const char *why = NULL;
	size_t seen = 0, n;
	char *p;

	if (size < 2 || size > 3 * CSM_HTTP_HEAD_MAX || (p = malloc(size - 1)) == NULL)
		return 0;
	memcpy(p, data + 1, size - 1);
	n = http_head_size(p, size - 1, &seen);
	if (n > size - 1)
		abort();
	if (n > 0 && http_head_read(p, n, &h, &why) == 0) {
		again(&h);
		parameters(&h);
	} else if (n > 0 && why == NULL) {
		abort();
	}
	chunks(p + n, size - 1 - n, 1 + data[0] % 143u);
	free(p);
	return 0;
}
