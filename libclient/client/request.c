/* Requests, built field by field. Values are kept apart from the structures: they move as they grow,
 * and for methods with secrets they lie in locked memory. */
#include <stdlib.h>
#include <string.h>
#include "libclient/client/internal.h"

/* A value in csm_request.values: where it begins, how long it is. */
struct span {
	bool set;
	size_t off, len;
};

struct member {
	uint64_t number;           /* U64, BOOL */
	struct span span;          /* STR, BIN; for numbers only `set` */
	struct span *list;         /* STRS */
	struct csm_request **maps; /* MAPS, MAP */
	size_t n;
};

struct csm_request {
	const struct csm_method *method; /* NULL in a part */
	const struct csm_msgdef *def;
	struct csm_request *root;        /* who holds the values */
	struct csm_buf values;
	struct member *members;          /* one a field */
};

static int request_make(const struct csm_msgdef *def, struct csm_request *root, struct csm_request **ret)
{
	struct csm_request *req = calloc(1, sizeof(*req));

	if (req == NULL)
		return client_err_plain(CSM_ENOMEM);
	req->members = calloc(def->n_fields > 0 ? def->n_fields : 1, sizeof(*req->members));
	if (req->members == NULL) {
		free(req);
		return client_err_plain(CSM_ENOMEM);
	}
	req->def = def;
	req->root = root != NULL ? root : req;
	*ret = req;
	return 0;
}

int csm_request_new(const char *method, struct csm_request **ret)
{
	const struct csm_method *m = csm_method_find(csm_str_of(method));
	struct csm_request *req;
	int r;

	if (m == NULL)
		return client_err(CSM_EUNKNOWN_METHOD, "%s: no such method", method != NULL ? method : "");
	r = request_make(m->request, NULL, &req);
	if (r != 0)
		return r;
	req->method = m;
	csm_buf_init(&req->values, CLIENT_BUF_MAX, (m->flags & CSM_F_SECRET) != 0);
	*ret = req;
	return 0;
}

static void request_drop(struct csm_request *req)
{
	size_t i, k;

	for (i = 0; i < req->def->n_fields; i++) {
		struct member *m = &req->members[i];

		for (k = 0; m->maps != NULL && k < m->n; k++)
			request_drop(m->maps[k]);
		free(m->maps);
		free(m->list);
	}
	if (req->root == req)
		csm_buf_free(&req->values);
	free(req->members);
	free(req);
}

void csm_request_free(struct csm_request *req)
{
	if (req != NULL && req->root == req)
		request_drop(req);
}

const struct csm_method *request_method(const struct csm_request *req)
{
	return req->method;
}

static int find(struct csm_request *req, const char *name, enum csm_kind kind, const struct csm_field **f,
	struct member **m)
{
	*f = client_field(req->def, name);
	if (*f == NULL)
		return client_err(CSM_EUNSUPPORTED_FIELD, "%s has no field %s", req->def->name, name != NULL ? name : "");
	if ((*f)->kind != kind)
		return client_err(CSM_EINVALID, "%s: the field %s is of another type", req->def->name, name);
	*m = &req->members[*f - req->def->fields];
	return 0;
}

static int number(struct csm_request *req, const char *name, enum csm_kind kind, uint64_t value)
{
	const struct csm_field *f;
	struct member *m = NULL;
	int r = find(req, name, kind, &f, &m);

	if (r != 0)
		return r;
	if (kind == CSM_K_U64 && value > f->max)
		return client_err(CSM_ETOO_LARGE, "%s is above its limit", name);
	m->number = value;
	m->span.set = true;
	return 0;
}

int csm_request_u64(struct csm_request *req, const char *name, uint64_t value)
{
	return number(req, name, CSM_K_U64, value);
}

int csm_request_bool(struct csm_request *req, const char *name, bool value)
{
	return number(req, name, CSM_K_BOOL, value);
}

static int put(struct csm_request *req, const char *name, const void *p, size_t n, uint64_t max, struct span *ret)
{
	struct csm_buf *b = &req->root->values;
	struct span s = {.set = true, .off = b->len, .len = n};
	int r = n > max ? CSM_ETOO_LARGE : csm_buf_put(b, p, n);

	if (r == CSM_ETOO_LARGE)
		return client_err(r, "%s is above its limit", name);
	if (r != 0)
		return client_err_plain(r);
	*ret = s;
	return 0;
}

static int check_text(const char *name, const char *value)
{
	if (value == NULL || !csm_utf8_valid(value, strlen(value)))
		return client_err(CSM_EINVALID, "%s is not UTF-8", name);
	return 0;
}

int csm_request_str(struct csm_request *req, const char *name, const char *value)
{
	const struct csm_field *f;
	struct member *m = NULL;
	int r = find(req, name, CSM_K_STR, &f, &m);

	if (r == 0)
		r = check_text(name, value);
	return r != 0 ? r : put(req, name, value, strlen(value), f->max, &m->span);
}

int csm_request_bin(struct csm_request *req, const char *name, const void *value, size_t len)
{
	const struct csm_field *f;
	struct member *m = NULL;
	int r = find(req, name, CSM_K_BIN, &f, &m);

	if (r == 0 && value == NULL && len > 0)
		r = client_err(CSM_EINVALID, "%s is missing", name);
	return r != 0 ? r : put(req, name, value, len, f->max, &m->span);
}

int csm_request_add_str(struct csm_request *req, const char *name, const char *value)
{
	const struct csm_field *f;
	struct member *m = NULL;
	struct span *list;
	int r = find(req, name, CSM_K_STRS, &f, &m);

	if (r == 0)
		r = check_text(name, value);
	if (r == 0 && m->n >= f->max)
		r = client_err(CSM_ETOO_LARGE, "%s has too many entries", name);
	if (r != 0)
		return r;
	list = realloc(m->list, (m->n + 1) * sizeof(*list));
	if (list == NULL)
		return client_err_plain(CSM_ENOMEM);
	m->list = list;
	r = put(req, name, value, strlen(value), f->each, &list[m->n]);
	if (r == 0)
		m->n++;
	return r;
}

int csm_request_add_map(struct csm_request *req, const char *name, struct csm_request **item)
{
	const struct csm_field *f = client_field(req->def, name);
	bool single = f != NULL && f->kind == CSM_K_MAP;
	struct csm_request **maps;
	struct member *m = NULL;
	int r = find(req, name, single ? CSM_K_MAP : CSM_K_MAPS, &f, &m);

	if (r == 0 && m->n >= (single ? 1 : f->max))
		r = client_err(CSM_ETOO_LARGE, "%s has too many entries", name);
	if (r != 0)
		return r;
	maps = realloc(m->maps, (m->n + 1) * sizeof(struct csm_request *));
	if (maps == NULL)
		return client_err_plain(CSM_ENOMEM);
	m->maps = maps;
	r = request_make(f->sub, req->root, &maps[m->n]);
	if (r == 0)
		*item = maps[m->n++];
	return r;
}

/* ---- to the structure of the message ---- */

static struct csm_bin value_of(const struct csm_request *req, const struct span *s)
{
	const struct csm_buf *b = &req->root->values;

	if (!s->set)
		return (struct csm_bin){0};
	/* present and empty is not absent */
	if (s->len == 0)
		return (struct csm_bin){(const uint8_t *)"", 0};
	return (struct csm_bin){csm_buf_ptr(b) + s->off, s->len};
}

static int build(const struct csm_request *req, struct csm_pool *pool, void *msg);

static int build_strs(const struct csm_request *req, const struct member *m, struct csm_pool *pool,
	struct csm_strs *ret)
{
	struct csm_str *v;
	size_t k;

	if (m->n == 0)
		return 0;
	v = csm_pool_alloc(pool, m->n * sizeof(*v));
	if (v == NULL)
		return client_err_plain(CSM_ENOMEM);
	for (k = 0; k < m->n; k++) {
		struct csm_bin b = value_of(req, &m->list[k]);

		v[k] = (struct csm_str){(const char *)b.p, b.n};
	}
	*ret = (struct csm_strs){v, m->n};
	return 0;
}

static int build_maps(const struct csm_field *f, const struct member *m, struct csm_pool *pool, void *at)
{
	uint8_t *v;
	size_t k;
	int r;

	if (m->n == 0)
		return 0;
	v = csm_pool_alloc(pool, m->n * f->sub->size);
	if (v == NULL)
		return client_err_plain(CSM_ENOMEM);
	for (k = 0; k < m->n; k++) {
		r = build(m->maps[k], pool, v + k * f->sub->size);
		if (r != 0)
			return r;
	}
	if (f->kind == CSM_K_MAP)
		*(void **)at = v;
	else
		*(struct csm_strs *)at = (struct csm_strs){(struct csm_str *)(void *)v, m->n};
	return 0;
}

static int build_field(const struct csm_request *req, const struct csm_field *f, struct csm_pool *pool, void *at)
{
	const struct member *m = &req->members[f - req->def->fields];
	struct csm_bin b = value_of(req, &m->span);

	switch ((enum csm_kind)f->kind) {
	case CSM_K_U64:
		*(struct csm_u64 *)at = (struct csm_u64){m->number, m->span.set};
		return 0;
	case CSM_K_BOOL:
		*(struct csm_bool *)at = (struct csm_bool){m->number != 0, m->span.set};
		return 0;
	case CSM_K_STR:
		*(struct csm_str *)at = (struct csm_str){(const char *)b.p, b.n};
		return 0;
	case CSM_K_BIN:
		*(struct csm_bin *)at = b;
		return 0;
	case CSM_K_STRS:
		return build_strs(req, m, pool, at);
	case CSM_K_MAP:
	case CSM_K_MAPS:
		return build_maps(f, m, pool, at);
	}
	return client_err_plain(CSM_EINTERNAL);
}

static int build(const struct csm_request *req, struct csm_pool *pool, void *msg)
{
	size_t i;
	int r = 0;

	for (i = 0; r == 0 && i < req->def->n_fields; i++)
		r = build_field(req, &req->def->fields[i], pool, field_at(&req->def->fields[i], msg));
	return r != 0 ? r : client_check(req->def, msg);
}

int request_build(const struct csm_request *req, struct csm_pool *pool, void **ret)
{
	void *msg = csm_pool_alloc(pool, req->def->size);
	int r;

	if (msg == NULL)
		return client_err_plain(CSM_ENOMEM);
	r = build(req, pool, msg);
	if (r == 0)
		*ret = msg;
	return r;
}
