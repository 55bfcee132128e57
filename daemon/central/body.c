#include "daemon/central/body.h"
#include "libclient/base/hex.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sodium.h>

#define HEX_MAX 64u
#define LINE 64u /* of base64 */
#define LINE_BYTES (LINE / 4 * 3)

static int __attribute__((format(printf, 3, 4))) refuse(char *why, int r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(why, BODY_WHY, fmt, ap);
	va_end(ap);
	return r;
}

static int read_str(const json_t *v, uint64_t max, struct csm_str *ret)
{
	if (!json_is_string(v))
		return CSM_EINVALID;
	if (json_string_length(v) > max)
		return CSM_ETOO_LARGE;
	*ret = (struct csm_str){json_string_value(v), json_string_length(v)};
	return 0;
}

static int read_strs(const json_t *v, uint64_t max, struct body_strs *ret)
{
	size_t n = json_array_size(v);
	int r = json_is_array(v) ? 0 : CSM_EINVALID;

	if (n > BODY_STRS_MAX)
		return CSM_ETOO_LARGE;
	for (size_t i = 0; i < n && r == 0; i++)
		r = read_str(json_array_get(v, i), max, &ret->v[i]);
	if (r == 0)
		ret->n = n;
	return r;
}

static int read_field(const struct body_field *f, const json_t *v)
{
	switch (f->kind) {
	case BODY_STR:
		return read_str(v, f->max, f->to);
	case BODY_STRS:
		return read_strs(v, f->max, f->to);
	case BODY_BOOL:
		if (!json_is_boolean(v))
			return CSM_EINVALID;
		*(bool *)f->to = json_is_true(v);
		return 0;
	case BODY_U64:
		if (!json_is_integer(v) || json_integer_value(v) < 0)
			return CSM_EINVALID;
		if ((uint64_t)json_integer_value(v) > f->max)
			return CSM_ETOO_LARGE;
		*(uint64_t *)f->to = (uint64_t)json_integer_value(v);
		return 0;
	}
	return CSM_EINTERNAL;
}

void body_shown(struct csm_str name, char shown[static BODY_SHOWN])
{
	size_t n = 0;

	for (; n < BODY_SHOWN - 1 && n < name.n; n++)
		shown[n] = isalnum((unsigned char)name.p[n]) || name.p[n] == '_' || name.p[n] == '-' ? name.p[n] : '?';
	shown[n] = '\0';
}

static int unknown(const char *name, char *why)
{
	char shown[BODY_SHOWN];

	body_shown(csm_str_of(name), shown);
	return refuse(why, CSM_EUNSUPPORTED_FIELD, "unknown field '%s'", shown);
}

static int read_object(json_t *root, const struct body_field *fields, size_t n, char *why)
{
	static const char *const kinds[] = {[BODY_STR] = "a string", [BODY_U64] = "a number", [BODY_BOOL] = "true or false",
		[BODY_STRS] = "a list of strings"};
	const char *name;
	json_t *value;

	json_object_foreach(root, name, value) {
		size_t i = 0;
		int r;

		while (i < n && strcmp(fields[i].name, name) != 0)
			i++;
		if (i == n)
			return unknown(name, why);
		if ((r = read_field(&fields[i], value)) == CSM_EINVALID)
			return refuse(why, r, "%s: must be %s", name, kinds[fields[i].kind]);
		if (r != 0)
			return refuse(why, r, "%s: too large", name);
	}
	for (size_t i = 0; i < n; i++)
		if (fields[i].required && (root == NULL || json_object_get(root, fields[i].name) == NULL))
			return refuse(why, CSM_EINVALID, "%s: is missing", fields[i].name);
	return 0;
}

/* A form of a page elsewhere can make a browser post, with its owner's certificate, but not as this type. */
static bool is_json(const struct csm_http_req *req)
{
	static const char type[] = "application/json";
	struct csm_str s = csm_http_header(req, "Content-Type");
	size_t n = sizeof(type) - 1;

	return s.p != NULL && s.n >= n && strncasecmp(s.p, type, n) == 0 && (s.n == n || s.p[n] == ';' || s.p[n] == ' ');
}

int body_parse(struct csm_bin body, const struct body_field *fields, size_t n, json_t **root, char why[static BODY_WHY])
{
	json_error_t err;
	json_t *v = NULL;
	int r;

	if (body.n > 0) {
		v = json_loadb((const char *)body.p, body.n, JSON_REJECT_DUPLICATES, &err);
		if (!json_is_object(v)) {
			json_decref(v);
			return refuse(why, CSM_EINVALID, "the body is not one JSON object without duplicate keys");
		}
	}
	if ((r = read_object(v, fields, n, why)) != 0) {
		json_decref(v);
		return r;
	}
	*root = v;
	return 0;
}

int body_read(const struct csm_http_req *req, const struct body_field *fields, size_t n, json_t **root,
	char why[static BODY_WHY])
{
	if (req->body.n > 0 && !is_json(req))
		return refuse(why, CSM_EINVALID, "the body must be application/json");
	return body_parse(req->body, fields, n, root, why);
}

struct sink {
	struct csm_buf *to;
	int r;
};

static int to_sink(const char *p, size_t n, void *arg)
{
	struct sink *s = arg;

	s->r = csm_buf_put(s->to, p, n);
	return s->r == 0 ? 0 : -1;
}

int body_put(struct csm_buf *to, json_t *value)
{
	struct sink s = {to, 0};
	size_t before = to->len;
	int r = 0;

	if (value == NULL || json_dump_callback(value, to_sink, &s, JSON_COMPACT | JSON_ENCODE_ANY) != 0)
		r = s.r != 0 ? s.r : CSM_ENOMEM;
	if (r != 0)
		to->len = before;
	json_decref(value);
	return r;
}

void body_answer(struct csm_http_res *res, int status, json_t *value)
{
	csm_buf_reset(&res->body);
	if (body_put(&res->body, value) != 0)
		csm_http_fail(res, CSM_EBUSY, "no memory for the answer");
	else
		res->status = status;
}

json_t *body_str(struct csm_str s)
{
	return json_stringn(s.p != NULL ? s.p : "", s.n);
}

json_t *body_hex(struct csm_bin b)
{
	char text[2 * HEX_MAX + 1];

	if (b.n > HEX_MAX)
		return NULL;
	csm_hex(b.p, b.n, text);
	return json_stringn(text, 2 * b.n);
}

bool body_unhex(struct csm_str s, uint8_t *out, size_t cap, size_t *n)
{
	if (s.n == 0 || s.n % 2 != 0 || s.n / 2 > cap)
		return false;
	for (size_t i = 0; i < s.n; i += 2) {
		int hi = csm_hex_digit(s.p[i]), lo = csm_hex_digit(s.p[i + 1]);

		if (hi < 0 || lo < 0)
			return false;
		out[i / 2] = (uint8_t)(hi << 4 | lo);
	}
	*n = s.n / 2;
	return true;
}

int body_base64(struct csm_bin bytes, struct csm_buf *out)
{
	char line[LINE + 2];
	size_t n;
	int r = 0;

	for (size_t at = 0; at < bytes.n && r == 0; at += n) {
		n = bytes.n - at < LINE_BYTES ? bytes.n - at : LINE_BYTES;
		(void)sodium_bin2base64(line, sizeof(line), bytes.p + at, n, sodium_base64_VARIANT_ORIGINAL);
		if ((r = csm_buf_put(out, line, strlen(line))) == 0)
			r = csm_buf_put(out, "\n", 1);
	}
	return r;
}
