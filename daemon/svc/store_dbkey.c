/* Keys of the databases: names joined by NUL, which no name holds. */
#include <string.h>
#include "daemon/svc/store_internal.h"

static int add(struct dbkey *k, struct csm_str s, bool end)
{
	if (s.n > 0 && memchr(s.p, 0, s.n) != NULL)
		return CSM_EINVALID;
	if (s.n + 1 > sizeof(k->p) - k->n)
		return CSM_EINVALID;
	if (s.n > 0)
		memcpy(k->p + k->n, s.p, s.n);
	k->n += s.n;
	if (end)
		k->p[k->n++] = 0;
	return 0;
}

static int add3(struct dbkey *k, struct csm_str a, struct csm_str b, struct csm_str c, int n)
{
	int r;

	k->n = 0;
	if (a.n == 0)
		return CSM_EINVALID;
	if ((r = add(k, a, true)) != 0 || (r = add(k, b, n == 3)) != 0)
		return r;
	return n == 3 ? add(k, c, true) : 0;
}

int dbkey_scope(struct dbkey *k, struct csm_str ns, struct csm_str domain)
{
	return add3(k, ns, domain, CSM_STR(""), 2);
}

int dbkey_key(struct dbkey *k, struct csm_str ns, struct csm_str name)
{
	return add3(k, ns, name, CSM_STR(""), 2);
}

int dbkey_secret(struct dbkey *k, struct csm_str ns, struct csm_str domain, struct csm_str name)
{
	int r = add3(k, ns, domain, name, 3);

	/* a version has to fit behind it */
	return r == 0 && k->n > sizeof(k->p) - 8 ? CSM_EINVALID : r;
}

/* Complemented, so that the newest version comes first. */
void dbkey_set_version(struct dbkey *k, size_t prefix, uint64_t version)
{
	put64(k->p + prefix, ~version);
	k->n = prefix + 8;
}

int dbkey_meta(struct dbkey *k, const char *prefix, const char *name)
{
	int r;

	k->n = 0;
	if ((r = add(k, csm_str_of(prefix), false)) != 0)
		return r;
	return add(k, csm_str_of(name), false);
}

/* The bytes up to the next NUL, which is stepped over. */
static bool take(struct csm_bin *k, struct csm_str *ret)
{
	const uint8_t *end = k->n > 0 ? memchr(k->p, 0, k->n) : NULL;

	if (end == NULL)
		return false;
	*ret = (struct csm_str){(const char *)k->p, (size_t)(end - k->p)};
	k->n -= ret->n + 1;
	k->p = end + 1;
	return true;
}

bool dbkey_split_scope(struct csm_bin k, struct dbparts *ret)
{
	struct csm_bin rest = k;

	*ret = (struct dbparts){.scope = k};
	if (!take(&rest, &ret->ns) || ret->ns.n == 0 || (rest.n > 0 && memchr(rest.p, 0, rest.n) != NULL))
		return false;
	ret->domain = (struct csm_str){(const char *)rest.p, rest.n};
	return true;
}

bool dbkey_split_key(struct csm_bin k, struct dbparts *ret, struct dbkey *scope)
{
	struct dbparts p;

	if (!dbkey_split_scope(k, &p) || p.domain.n == 0)
		return false;
	*ret = (struct dbparts){.ns = p.ns, .name = p.domain};
	if (dbkey_scope(scope, ret->ns, CSM_STR("")) != 0)
		return false;
	ret->scope = dbkey_bin(scope);
	return true;
}

bool dbkey_split_secret(struct csm_bin k, struct dbparts *ret)
{
	struct csm_bin rest = k;

	*ret = (struct dbparts){0};
	if (!take(&rest, &ret->ns) || !take(&rest, &ret->domain) || !take(&rest, &ret->name) || rest.n != 8)
		return false;
	if (ret->ns.n == 0 || ret->domain.n == 0 || ret->name.n == 0)
		return false;
	ret->version = ~get64(rest.p);
	ret->scope = (struct csm_bin){k.p, ret->ns.n + 1 + ret->domain.n};
	return true;
}
