#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include "daemon/svc/http_int.h"
#include "libclient/base/hex.h"

/* The next part of a path behind its slash, and what follows. */
static struct csm_str part_of(struct csm_str *path)
{
	const char *end;
	struct csm_str part;

	path->p++;
	path->n--;
	end = path->n > 0 ? memchr(path->p, '/', path->n) : NULL;
	part = (struct csm_str){path->p, end != NULL ? (size_t)(end - path->p) : path->n};
	path->p += part.n;
	path->n -= part.n;
	return part;
}

/* Parts are compared as they were sent: an escaped letter is not the letter, and "." and ".." have no meaning. */
static bool fits(const char *pattern, struct csm_str path, struct csm_str param[4], size_t *n_params)
{
	struct csm_str wanted = csm_str_of(pattern);

	*n_params = 0;
	while (wanted.n > 0 && path.n > 0) {
		struct csm_str rest = path, want = part_of(&wanted), part = part_of(&path);

		if (want.n >= 3 && want.p[0] == '{') {
			if (want.p[want.n - 2] == '*') {
				part = (struct csm_str){rest.p + 1, rest.n - 1};
				path.n = 0;
			}
			if (part.n == 0 || *n_params == 4)
				return false;
			param[(*n_params)++] = part;
		} else if (want.n != part.n || memcmp(want.p, part.p, part.n) != 0) {
			return false;
		}
	}
	return wanted.n == 0 && path.n == 0;
}

static bool has_method(const char *method, struct csm_str asked)
{
	return csm_str_eq(asked, method) || (strcmp(method, "GET") == 0 && csm_str_eq(asked, "HEAD"));
}

static void add_allowed(char allow[64], const char *method)
{
	size_t n = strlen(allow);

	if (strstr(allow, method) == NULL)
		snprintf(allow + n, 64 - n, "%s%s%s", n > 0 ? ", " : "", method, strcmp(method, "GET") == 0 ? ", HEAD" : "");
}

void http_route_find(struct http_conn *c)
{
	char allow[64] = "";

	for (const struct csm_http_route *r = c->h->opt.routes; r->path != NULL; r++) {
		if (!(r->doors & c->door->door) || !fits(r->path, c->head.path, c->param, &c->n_params))
			continue;
		if (has_method(r->method, c->head.method)) {
			c->route = r;
			return;
		}
		add_allowed(allow, r->method);
	}
	c->n_params = 0;
	if (allow[0] == 0) {
		http_refuse(c, 404, CSM_ENOT_FOUND, "no such resource");
		return;
	}
	http_refuse(c, 405, CSM_EUNKNOWN_METHOD, "this method is not for this resource");
	snprintf(c->refusal.allow, sizeof(c->refusal.allow), "%s", allow);
}

int http_decode(struct csm_str s, bool plus, char *to, struct csm_str *ret)
{
	size_t n = 0;

	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '%' && i + 2 < s.n) {
			to[n++] = (char)(csm_hex_digit(s.p[i + 1]) * 16 + csm_hex_digit(s.p[i + 2]));
			i += 2;
		} else {
			to[n++] = plus && s.p[i] == '+' ? ' ' : s.p[i];
		}
	}
	*ret = (struct csm_str){to, n};
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)to[i] < 0x20 || to[i] == 0x7f)
			return 400;
	return csm_utf8_valid(to, n) ? 0 : 400;
}

int http_decode_query(struct csm_str query, char *to, struct http_param *ret, size_t *n)
{
	*n = 0;
	while (query.n > 0) {
		const char *end = memchr(query.p, '&', query.n);
		struct csm_str pair = {query.p, end != NULL ? (size_t)(end - query.p) : query.n}, value = {pair.p + pair.n, 0};
		const char *is = pair.n > 0 ? memchr(pair.p, '=', pair.n) : NULL;
		size_t taken = pair.n + (end != NULL);

		if (is != NULL) {
			value = (struct csm_str){is + 1, (size_t)(pair.p + pair.n - is - 1)};
			pair.n = (size_t)(is - pair.p);
		}
		if (pair.n > 0) {
			if (*n == CSM_HTTP_QUERY_MAX || http_decode(pair, true, to, &ret[*n].name) != 0)
				return 400;
			to += ret[*n].name.n;
			if (http_decode(value, true, to, &ret[*n].value) != 0)
				return 400;
			to += ret[*n].value.n;
			for (size_t i = 0; i < *n; i++)
				if (csm_str_same(ret[i].name, ret[*n].name))
					return 400;
			(*n)++;
		}
		query.p += taken;
		query.n -= taken;
	}
	return 0;
}
