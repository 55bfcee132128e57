#include <ctype.h>
#include <string.h>
#include "daemon/svc/http_head.h"
#include "libclient/base/hex.h"

#define SIZE_LINE_MAX 256u /* with its extensions, which mean nothing here */
#define SIZE_DIGITS 8u
#define TRAILERS_MAX 4096u

/* Bytes of the first line with its end, 0: not whole, -1: no line that one could like. */
static long line_size(const char *p, size_t n, size_t max)
{
	const char *nl = memchr(p, '\n', n < max ? n : max);

	if (nl == NULL)
		return n >= max ? -1 : 0;
	if (nl == p || nl[-1] != '\r')
		return -1;
	for (const char *c = p; c < nl - 1; c++)
		if ((unsigned char)*c < 0x20 && *c != '\t')
			return -1;
	return nl - p + 1;
}

static int read_size(struct http_chunks *c, const char *p, size_t n)
{
	uint64_t v = 0;
	size_t i = 0;

	for (; i < n && isxdigit((unsigned char)p[i]); i++) {
		if (i == SIZE_DIGITS)
			return 413;
		v = v * 16 + (uint64_t)csm_hex_digit(p[i]);
	}
	if (i == 0 || (p[i] != '\r' && p[i] != ';'))
		return 400;
	c->left = v;
	c->state = v > 0 ? CHUNK_DATA : CHUNK_TRAILER;
	return 0;
}

/* A line at p: its size in *took, 0 when it is not whole. */
static int step_line(struct http_chunks *c, const char *p, size_t n, size_t *took)
{
	long size = line_size(p, n, c->state == CHUNK_SIZE ? SIZE_LINE_MAX : TRAILERS_MAX - c->line + 2);

	if (size < 0)
		return 400;
	*took = (size_t)size;
	if (size == 0)
		return 0;
	if (c->state == CHUNK_SIZE)
		return read_size(c, p, (size_t)size);
	/* Trailers are read and forgotten. */
	c->line += (size_t)size;
	if (size == 2)
		c->state = CHUNK_DONE;
	return c->line > TRAILERS_MAX ? 431 : 0;
}

int http_chunks_read(struct http_chunks *c, const char *p, size_t *n, int (*data)(void *arg, const char *p, size_t n), void *arg)
{
	size_t at = 0, took;
	int r = 0;

	while (r == 0 && c->state != CHUNK_DONE && at < *n) {
		size_t left = *n - at;

		if (c->state == CHUNK_DATA) {
			took = left < c->left ? left : (size_t)c->left;
			r = data(arg, p + at, took);
			c->left -= took;
			if (c->left == 0)
				c->state = CHUNK_DATA_END;
		} else if (c->state == CHUNK_DATA_END) {
			if (p[at] != '\r' || (left > 1 && p[at + 1] != '\n'))
				return 400;
			took = left > 1 ? 2 : 0;
			if (took > 0)
				c->state = CHUNK_SIZE;
		} else if ((r = step_line(c, p + at, left, &took)) != 0) {
			return r;
		}
		if (took == 0)
			break;
		at += took;
	}
	*n = at;
	return r;
}
