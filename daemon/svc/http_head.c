#include "daemon/svc/http_head.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "proto-spec/limits.h"

_Static_assert(sizeof(((struct http_head *)0)->field) / sizeof(struct http_field) == CSM_HTTP_HEADERS_MAX, "limits.h");

#define LENGTH_DIGITS 15u

size_t http_head_size(const char *p, size_t n, size_t *seen)
{
	const char *nl;

	while (*seen < n && (nl = memchr(p + *seen, '\n', n - *seen)) != NULL) {
		size_t i = (size_t)(nl - p);

		*seen = i + 1;
		if (i == 0 || p[i - 1] != '\r')
			return i + 1;
		if (i == 1 || (i >= 3 && p[i - 2] == '\n'))
			return i + 1;
	}
	*seen = n;
	return 0;
}

static bool is_token(struct csm_str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!isalnum((unsigned char)s.p[i]) && (s.p[i] == 0 || strchr("!#$%&'*+-.^_`|~", s.p[i]) == NULL))
			return false;
	return s.n > 0;
}

static bool same(struct csm_str s, const char *word)
{
	return s.n == strlen(word) && strncasecmp(s.p, word, s.n) == 0;
}

static struct csm_str trimmed(struct csm_str s)
{
	while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t')) {
		s.p++;
		s.n--;
	}
	while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
		s.n--;
	return s;
}

/* Up to the character, which is taken too; false: it is not there. */
static bool cut(struct csm_str *s, char at, struct csm_str *ret)
{
	const char *p = s->n > 0 ? memchr(s->p, at, s->n) : NULL;

	if (p == NULL)
		return false;
	*ret = (struct csm_str){s->p, (size_t)(p - s->p)};
	s->n -= ret->n + 1;
	s->p = p + 1;
	return true;
}

/* The characters of a path and a query (RFC 3986), each % with its two digits, none of them a NUL. */
static bool is_uri(struct csm_str s)
{
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '%') {
			if (i + 2 >= s.n || !isxdigit((unsigned char)s.p[i + 1]) || !isxdigit((unsigned char)s.p[i + 2]) ||
				(s.p[i + 1] == '0' && s.p[i + 2] == '0'))
				return false;
			i += 2;
		} else if (!isalnum((unsigned char)s.p[i]) &&
			(s.p[i] == 0 || strchr("-._~!$&'()*+,;=:@/?", s.p[i]) == NULL)) {
			return false;
		}
	}
	return true;
}

/* "/path?query", or the same behind "http://host". */
static int read_target(struct csm_str t, struct http_head *h, const char **why)
{
	size_t scheme = t.n > 8 && strncasecmp(t.p, "https://", 8) == 0 ? 8 :
		t.n > 7 && strncasecmp(t.p, "http://", 7) == 0              ? 7 :
									      0;

	if (t.n > CSM_HTTP_TARGET_MAX) {
		*why = "the request's target is too long";
		return 414;
	}
	if (scheme > 0) {
		t.p += scheme;
		t.n -= scheme;
		while (t.n > 0 && t.p[0] != '/' && t.p[0] != '?') {
			t.p++;
			t.n--;
		}
	}
	h->path = t;
	if (cut(&t, '?', &h->path))
		h->query = t;
	if (h->path.n == 0 && scheme > 0)
		h->path = CSM_STR("/");
	if (h->path.n == 0 || h->path.p[0] != '/' || (h->path.n > 1 && h->path.p[1] == '/') || !is_uri(h->path) ||
		!is_uri(h->query)) {
		h->path = (struct csm_str){NULL, 0};
		*why = "the request's target is malformed";
		return 400;
	}
	return 0;
}

static int read_request_line(struct csm_str line, struct http_head *h, const char **why)
{
	struct csm_str method, target;

	*why = "malformed request line";
	if (!cut(&line, ' ', &method) || !is_token(method) || !cut(&line, ' ', &target))
		return 400;
	if (line.n != 8 || memcmp(line.p, "HTTP/", 5) != 0 || !isdigit((unsigned char)line.p[5]) || line.p[6] != '.' ||
		!isdigit((unsigned char)line.p[7]))
		return 400;
	h->method = method;
	if (line.p[5] != '1' || line.p[7] > '1') {
		*why = "only HTTP/1 is spoken here";
		return 505;
	}
	h->minor = (unsigned)(line.p[7] - '0');
	return read_target(target, h, why);
}

static const struct http_field *find(const struct http_head *h, const char *name)
{
	for (size_t i = 0; i < h->n_fields; i++)
		if (same(h->field[i].name, name))
			return &h->field[i];
	return NULL;
}

static int read_field(struct csm_str line, struct http_head *h, const char **why)
{
	/* Two of these are two opinions. */
	static const char *const once[] = {"host", "content-length", "transfer-encoding", "authorization", "content-type",
		"expect", "idempotency-key"};
	struct csm_str name;

	*why = "malformed header";
	if (!cut(&line, ':', &name) || !is_token(name))
		return 400;
	line = trimmed(line);
	for (size_t i = 0; i < line.n; i++)
		if (((unsigned char)line.p[i] < 0x20 && line.p[i] != '\t') || line.p[i] == 0x7f)
			return 400;
	for (size_t i = 0; i < sizeof(once) / sizeof(once[0]); i++)
		if (same(name, once[i]) && find(h, once[i]) != NULL) {
			*why = "a header stands there twice";
			return 400;
		}
	if (h->n_fields == CSM_HTTP_HEADERS_MAX) {
		*why = "too many headers";
		return 431;
	}
	h->field[h->n_fields++] = (struct http_field){name, line};
	return 0;
}

static int read_length(struct http_head *h, const char **why)
{
	const struct http_field *length = find(h, "content-length"), *coding = find(h, "transfer-encoding");

	*why = "the length of the body is in doubt";
	if (length != NULL && coding != NULL)
		return 400;
	if (coding != NULL) {
		if (h->minor == 0)
			return 400;
		if (!same(coding->value, "chunked")) {
			*why = "no transfer coding but chunked is understood";
			return 501;
		}
		h->chunked = true;
	}
	if (length == NULL)
		return 0;
	if (length->value.n == 0)
		return 400;
	for (size_t i = 0; i < length->value.n; i++) {
		if (!isdigit((unsigned char)length->value.p[i]))
			return 400;
		if (i >= LENGTH_DIGITS) {
			*why = "the body is too large";
			return 413;
		}
		h->length = h->length * 10 + (uint64_t)(length->value.p[i] - '0');
	}
	h->has_length = true;
	return 0;
}

static bool is_host(struct csm_str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!isalnum((unsigned char)s.p[i]) && (s.p[i] == 0 || strchr("-._~:[]%", s.p[i]) == NULL))
			return false;
	return s.n > 0 && s.n <= 300;
}

static bool has_word(struct csm_str list, const char *word)
{
	struct csm_str item;

	while (cut(&list, ',', &item))
		if (same(trimmed(item), word))
			return true;
	return same(trimmed(list), word);
}

static int read_meaning(struct http_head *h, const char **why)
{
	const struct http_field *host = find(h, "host"), *expect = find(h, "expect"), *type = find(h, "content-type");

	if ((host == NULL && h->minor > 0) || (host != NULL && !is_host(host->value))) {
		*why = host == NULL ? "there is no Host" : "Host is malformed";
		return 400;
	}
	h->close = h->minor == 0;
	for (size_t i = 0; i < h->n_fields; i++)
		if (same(h->field[i].name, "connection") && has_word(h->field[i].value, "close"))
			h->close = true;
	if (type != NULL) {
		struct csm_str rest = type->value, media = rest;

		h->type = trimmed(cut(&rest, ';', &media) ? media : type->value);
	}
	h->authorization = find(h, "authorization") != NULL;
	if (expect != NULL && h->minor > 0) {
		if (!same(expect->value, "100-continue")) {
			*why = "this expectation cannot be met";
			return 417;
		}
		h->expect = true;
	}
	return read_length(h, why);
}

int http_head_read(const char *p, size_t n, struct http_head *ret, const char **why)
{
	struct csm_str all = {p, n}, line;
	bool first = true;
	int r;

	memset(ret, 0, sizeof(*ret));
	*why = "malformed line";
	if (n > CSM_HTTP_HEAD_MAX) {
		*why = "the headers are too large";
		return 431;
	}
	while (cut(&all, '\n', &line)) {
		if (line.n == 0 || line.p[--line.n] != '\r')
			return 400;
		if (line.n == 0)
			return first || all.n > 0 ? 400 : read_meaning(ret, why);
		r = first ? read_request_line(line, ret, why) : read_field(line, ret, why);
		if (r != 0)
			return r;
		*why = "malformed line";
		first = false;
	}
	return 400;
}

/* About the connection that it came over, or about the body's form there. */
static bool is_own(struct csm_str name)
{
	static const char *const names[] = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding",
		"upgrade", "content-length", "expect"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (same(name, names[i]))
			return true;
	return false;
}

static int put(struct csm_buf *out, struct csm_str s)
{
	return csm_buf_put(out, s.p, s.n);
}

int http_head_write(const struct http_head *h, size_t body, struct csm_buf *out)
{
	char text[64];
	int r;

	if ((r = put(out, h->method)) != 0 || (r = csm_buf_put(out, " ", 1)) != 0 || (r = put(out, h->path)) != 0)
		return r;
	if (h->query.p != NULL && ((r = csm_buf_put(out, "?", 1)) != 0 || (r = put(out, h->query)) != 0))
		return r;
	snprintf(text, sizeof(text), " HTTP/1.%u\r\nContent-Length: %zu\r\n", h->minor, body);
	if ((r = put(out, csm_str_of(text))) != 0)
		return r;
	for (size_t i = 0; i < h->n_fields; i++) {
		if (is_own(h->field[i].name))
			continue;
		if ((r = put(out, h->field[i].name)) != 0 || (r = csm_buf_put(out, ": ", 2)) != 0 ||
			(r = put(out, h->field[i].value)) != 0 || (r = csm_buf_put(out, "\r\n", 2)) != 0)
			return r;
	}
	return csm_buf_put(out, "\r\n", 2);
}
