#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "daemon/svc/http_int.h"

static const struct {
	int error, status;
} statuses[] = {
#define X(sym, num, name, class, http, text) {num, http},
#include "proto-spec/errors.def"
#undef X
};

int http_status_of(int error)
{
	for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++)
		if (statuses[i].error == csm_err_on_wire(error) && statuses[i].status != 0)
			return statuses[i].status;
	return 500;
}

static const struct {
	int status;
	const char *reason;
} reasons[] = {{200, "OK"}, {201, "Created"}, {202, "Accepted"}, {204, "No Content"}, {303, "See Other"}, {304, "Not Modified"},
	{400, "Bad Request"}, {401, "Unauthorized"}, {403, "Forbidden"}, {404, "Not Found"}, {405, "Method Not Allowed"},
	{406, "Not Acceptable"}, {408, "Request Timeout"}, {409, "Conflict"}, {411, "Length Required"}, {412, "Precondition Failed"},
	{413, "Content Too Large"}, {414, "URI Too Long"}, {415, "Unsupported Media Type"}, {417, "Expectation Failed"},
	{422, "Unprocessable Content"}, {429, "Too Many Requests"}, {431, "Request Header Fields Too Large"},
	{500, "Internal Server Error"}, {501, "Not Implemented"}, {502, "Bad Gateway"}, {503, "Service Unavailable"},
	{504, "Gateway Timeout"}, {505, "HTTP Version Not Supported"}, {507, "Insufficient Storage"}};

const char *http_reason(int status)
{
	for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
		if (reasons[i].status == status)
			return reasons[i].reason;
	return "Answer";
}

void http_res_init(struct csm_http_res *res)
{
	memset(res, 0, sizeof(*res));
	res->status = 500;
	csm_buf_init(&res->body, CSM_HTTP_ANSWER_MAX, false);
}

static void release(struct csm_http_shared *s)
{
	if (s->release != NULL)
		s->release(s->arg);
	*s = (struct csm_http_shared){NULL, 0, NULL, NULL};
}

void http_res_clear(struct csm_http_res *res)
{
	csm_buf_free(&res->body);
	release(&res->shared);
}

size_t http_res_length(const struct csm_http_res *res)
{
	return res->shared.release != NULL ? res->shared.n : res->body.len;
}

void csm_http_res_share(struct csm_http_res *res, const void *p, size_t n, void (*release_it)(void *arg), void *arg)
{
	http_res_clear(res);
	res->shared = (struct csm_http_shared){p, n, release_it, arg};
}

int csm_http_res_header(struct csm_http_res *res, const char *name, const char *fmt, ...)
{
	char value[sizeof(res->header[0].value)];
	size_t i = 0;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(value, sizeof(value), fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof(value))
		return CSM_ETOO_LARGE;
	for (const char *p = value; *p != 0; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return CSM_EINVALID;
	while (i < res->n_headers && strcmp(res->header[i].name, name) != 0)
		i++;
	if (i == sizeof(res->header) / sizeof(res->header[0]))
		return CSM_ETOO_LARGE;
	res->header[i].name = name;
	memcpy(res->header[i].value, value, (size_t)n + 1);
	if (i == res->n_headers)
		res->n_headers++;
	return 0;
}

/* As the inside of a JSON string. */
static size_t put_escaped(char *to, size_t cap, const char *text)
{
	size_t n = 0;

	for (; *text != 0 && n + 7 < cap; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\') {
			to[n++] = '\\';
			to[n++] = (char)c;
		} else if (c < 0x20 || c >= 0x7f) {
			n += (size_t)snprintf(to + n, cap - n, "\\u%04x", c < 0x80 ? c : 0xfffd);
		} else {
			to[n++] = (char)c;
		}
	}
	to[n] = 0;
	return n;
}

void csm_http_fail(struct csm_http_res *res, int error, const char *fmt, ...)
{
	char json[6 * CSM_ERROR_TEXT_MAX + 128], text[6 * CSM_ERROR_TEXT_MAX + 8];
	int code = csm_err_on_wire(error), r = 0, n;
	va_list ap;

	va_start(ap, fmt);
	csm_text_vput(res->why, sizeof(res->why), fmt, ap);
	va_end(ap);
	put_escaped(text, sizeof(text), res->why);
	n = snprintf(json, sizeof(json), "{\"error\": {\"code\": %d, \"name\": \"%s\", \"message\": \"%s\"}}\n", code, csm_err_name(code),
		text);
	res->error = error;
	res->status = http_status_of(error);
	res->type = NULL;
	http_res_clear(res);
	if (csm_buf_put(&res->body, json, (size_t)n) != 0)
		csm_buf_free(&res->body);
	if (code == CSM_EUNAUTHENTICATED)
		r = csm_http_res_header(res, "WWW-Authenticate", "Bearer realm=\"csm\", Basic realm=\"csm\"");
	else if (csm_err_retryable(code))
		r = csm_http_res_header(res, "Retry-After", "1");
	if (r != 0)
		res->n_headers = 0;
}
