/* Answers: decoded by the message tables, read by field name. */
#include <stdlib.h>
#include <string.h>
#include <sodium.h>
#include "libclient/base/lockmem.h"
#include "libclient/client/internal.h"

/* Locked blocks kept for the next secret: making one costs several system calls. In a child their
 * pages are blank, so there the cache begins anew (a block's size of 0 tells). */
#define CACHE_BLOCK 16384u
#define CACHE_N 8u
static _Atomic(void *) cache[CACHE_N];

static void *cache_take(void)
{
	size_t i;

	for (i = 0; i < CACHE_N; i++) {
		void *p = atomic_load_explicit(&cache[i], memory_order_relaxed) == NULL ?
				  NULL :
				  atomic_exchange(&cache[i], NULL);

		if (p != NULL && csm_lock_size(p) != 0)
			return p;
	}
	return csm_lock_alloc(CACHE_BLOCK);
}

/* p has been wiped. */
static void cache_give(void *p)
{
	size_t i;

	for (i = 0; i < CACHE_N; i++) {
		void *none = NULL;

		if (atomic_load_explicit(&cache[i], memory_order_relaxed) == NULL &&
			atomic_compare_exchange_strong(&cache[i], &none, p))
			return;
	}
	csm_lock_free(p);
}

void client_buf_init(struct csm_buf *b, bool secret)
{
	csm_buf_init(b, CLIENT_BUF_MAX, secret);
	if (!secret)
		return;
	b->p = cache_take();
	b->cap = b->p != NULL ? csm_lock_size(b->p) : 0;
}

void client_buf_free(struct csm_buf *b)
{
	/* What was consumed is wiped already; only a buffer that was never consumed from, or only to its
	 * end, comes here (async's, whose bytes move about, is wiped by its owner). One byte more: the NUL. */
	size_t n = b->off + b->len < b->cap ? b->off + b->len + 1 : b->cap;

	if (b->secret && b->p != NULL && b->cap >= CACHE_BLOCK && b->cap < 2 * CACHE_BLOCK && csm_lock_size(b->p) != 0) {
		sodium_memzero(b->p, n);
		cache_give(b->p);
		b->p = NULL;
	}
	csm_buf_free(b);
}

void reply_init(struct csm_reply *rep, const struct csm_method *m)
{
	*rep = (struct csm_reply){.def = m->response};
	client_buf_init(&rep->buf, (m->flags & CSM_F_SECRET) != 0);
	csm_pool_init(&rep->pool, CLIENT_POOL_MAX);
}

void reply_clear(struct csm_reply *rep)
{
	client_buf_free(&rep->buf);
	csm_pool_free(&rep->pool);
	rep->msg = NULL;
}

void csm_reply_free(struct csm_reply *rep)
{
	if (rep == NULL)
		return;
	reply_clear(rep);
	free(rep);
}

int reply_take(struct csm_reply *rep, struct csm_reply **ret)
{
	struct csm_reply *p = malloc(sizeof(*p));

	if (p == NULL) {
		reply_clear(rep);
		return client_err_plain(CSM_ENOMEM);
	}
	*p = *rep;
	*ret = p;
	return 0;
}

static void end_str(struct csm_str s)
{
	if (s.p != NULL)
		((char *)(uintptr_t)s.p)[s.n] = '\0';
}

/* Put a NUL behind each string and each bytes value. What stands there is the head of the next value,
 * which has been decoded already, or the spare byte behind the message. */
static void end_strings(const struct csm_msgdef *def, void *msg)
{
	size_t i, k;

	for (i = 0; i < def->n_fields; i++) {
		const struct csm_field *f = &def->fields[i];
		void *at = field_at(f, msg);
		const struct csm_strs *list = at;

		if (f->kind == CSM_K_STR) {
			end_str(*(struct csm_str *)at);
		} else if (f->kind == CSM_K_BIN) {
			const struct csm_bin *b = at;

			end_str((struct csm_str){(const char *)b->p, b->n});
		} else if (f->kind == CSM_K_STRS) {
			for (k = 0; k < list->n; k++)
				end_str(list->v[k]);
		} else if (f->kind == CSM_K_MAP && *(void **)at != NULL) {
			end_strings(f->sub, *(void **)at);
		} else if (f->kind == CSM_K_MAPS) {
			for (k = 0; k < list->n; k++)
				end_strings(f->sub, (uint8_t *)list->v + k * f->sub->size);
		}
	}
}

static int decode_result(struct csm_reply *rep, const struct csm_method *m, struct csm_bin result)
{
	struct csm_str bad;
	int r;

	rep->msg = csm_pool_alloc(&rep->pool, rep->def->size);
	if (rep->msg == NULL)
		return client_err_plain(CSM_ENOMEM);
	r = csm_msg_decode(rep->def, result, CSM_UNKNOWN_SKIP, &rep->pool, rep->msg, &bad);
	if (r == CSM_ENOMEM)
		return client_err_plain(r);
	if (r != 0)
		return client_err(CSM_EPROTOCOL, "%s: the daemon's answer is not one (%.*s)", m->name, (int)bad.n,
			bad.p != NULL ? bad.p : "");
	return 0;
}

static int parse(struct csm_reply *rep, const struct csm_method *m, uint32_t msgid)
{
	struct csm_frame f;
	uint8_t *spare;
	int r;

	/* the spare byte first: making room may move the message */
	r = csm_buf_reserve(&rep->buf, 1, &spare);
	if (r != 0)
		return client_err_plain(r);
	r = csm_frame_parse(csm_buf_ptr(&rep->buf), rep->buf.len, &f);
	if (r != 0 || f.type != CSM_RESPONSE)
		return client_err(CSM_EPROTOCOL, "the daemon's answer cannot be read");
	rep->matched = f.msgid == msgid;
	/* an error to no request in particular concerns the connection: it is at its limit, or the request
	 * could not be read */
	if (f.error.p != NULL)
		return client_err_decode(f.error);
	if (!rep->matched)
		return client_err(CSM_EPROTOCOL, "the daemon answered another request");
	r = decode_result(rep, m, f.result);
	if (r == 0)
		end_strings(rep->def, rep->msg);
	return r;
}

int reply_parse(struct csm_reply *rep, const struct csm_method *m, uint32_t msgid)
{
	int r = parse(rep, m, msgid);

	/* the daemon ends a connection after this error of its own, and we do after one of its */
	if (r == CSM_EPROTOCOL)
		rep->matched = false;
	return r;
}

const struct csm_field *client_field(const struct csm_msgdef *def, const char *name)
{
	size_t i;

	for (i = 0; def != NULL && name != NULL && i < def->n_fields; i++)
		if (strcmp(def->fields[i].name, name) == 0)
			return &def->fields[i];
	return NULL;
}

struct csm_view csm_reply_view(const struct csm_reply *rep)
{
	struct csm_view v = {0};

	if (rep != NULL)
		v = (struct csm_view){rep->def, rep->msg};
	return v;
}

/* The member of a field of that kind, NULL if there is none. */
static const void *view_get(struct csm_view v, const char *name, enum csm_kind kind)
{
	const struct csm_field *f = v.msg == NULL ? NULL : client_field(v.def, name);

	return f == NULL || f->kind != kind ? NULL : field_of(f, v.msg);
}

bool csm_view_has(struct csm_view v, const char *name)
{
	const struct csm_field *f = v.msg == NULL ? NULL : client_field(v.def, name);

	return f != NULL && csm_field_present(f, v.msg);
}

uint64_t csm_view_u64(struct csm_view v, const char *name)
{
	const struct csm_u64 *p = view_get(v, name, CSM_K_U64);

	return p == NULL ? 0 : p->v;
}

bool csm_view_bool(struct csm_view v, const char *name)
{
	const struct csm_bool *p = view_get(v, name, CSM_K_BOOL);

	return p != NULL && p->v;
}

const char *csm_view_str(struct csm_view v, const char *name)
{
	const struct csm_str *p = view_get(v, name, CSM_K_STR);

	return p == NULL ? NULL : p->p;
}

const void *csm_view_bin(struct csm_view v, const char *name, size_t *len)
{
	const struct csm_bin *p = view_get(v, name, CSM_K_BIN);

	*len = p == NULL ? 0 : p->n;
	return p == NULL ? NULL : p->p;
}

size_t csm_view_count(struct csm_view v, const char *name)
{
	const struct csm_strs *p = view_get(v, name, CSM_K_STRS);
	void *const *map = view_get(v, name, CSM_K_MAP);

	if (p == NULL)
		p = view_get(v, name, CSM_K_MAPS);
	if (map != NULL)
		return *map != NULL;
	return p == NULL ? 0 : p->n;
}

const char *csm_view_item(struct csm_view v, const char *name, size_t i)
{
	const struct csm_strs *p = view_get(v, name, CSM_K_STRS);

	return p == NULL || i >= p->n ? NULL : p->v[i].p;
}

struct csm_view csm_view_at(struct csm_view v, const char *name, size_t i)
{
	const struct csm_strs *p = view_get(v, name, CSM_K_MAPS);
	void *const *map = view_get(v, name, CSM_K_MAP);
	const struct csm_field *f = v.msg == NULL ? NULL : client_field(v.def, name);

	if (p != NULL && i < p->n)
		return (struct csm_view){f->sub, (const uint8_t *)(const void *)p->v + i * f->sub->size};
	if (map != NULL && i == 0)
		return (struct csm_view){f->sub, *map};
	return (struct csm_view){0};
}
