#include <string.h>
#include "libclient/wire/dec.h"
#include "libclient/wire/head.h"
#include "libclient/wire/put.h"

/* ---- decoding ---------------------------------------------------------------- */

/* What the decoder of one message, and of those in it, carries along. */
struct decode {
	struct csm_dec d;
	enum csm_unknown unknown;
	struct csm_pool *pool;
	struct csm_str bad;
};

static int decode_map(struct decode *c, const struct csm_msgdef *def, void *out);

/* Why the value at the cursor is not of a field's type: malformed, or the peer's argument. */
static int wrong_type(const struct decode *c)
{
	size_t left = (size_t)(c->d.end - c->d.p);
	struct head h;

	if (head_read(c->d.p, left, &h) != 0)
		return CSM_EPROTOCOL;
	left -= h.size;
	return head_payload(&h) > left || head_items(&h) > left ? CSM_EPROTOCOL : CSM_EINVALID;
}

static int decode_str(struct decode *c, uint64_t max, struct csm_str *ret)
{
	if (csm_dec_str(&c->d, ret) != 0)
		return wrong_type(c);
	return ret->n <= max ? 0 : CSM_ETOO_LARGE;
}

/* Room for n elements, when the count is within the field's and that many can follow. */
static int decode_room(struct decode *c, uint64_t max, uint32_t n, size_t size, void **ret)
{
	if (n > max)
		return CSM_ETOO_LARGE;
	*ret = NULL;
	if (n == 0)
		return 0;
	if (c->pool == NULL)
		return CSM_EINTERNAL;
	*ret = csm_pool_alloc(c->pool, n * size);
	if (*ret != NULL)
		return 0;
	return csm_pool_full(c->pool, n * size) ? CSM_ETOO_LARGE : CSM_ENOMEM;
}

static int decode_strs(struct decode *c, const struct csm_field *f, struct csm_strs *ret)
{
	struct csm_str *v;
	void *room;
	uint32_t n;
	int r;

	if (csm_dec_array(&c->d, &n) != 0)
		return wrong_type(c);
	if ((r = decode_room(c, f->max, n, sizeof(*v), &room)) != 0)
		return r;
	v = room;
	for (uint32_t i = 0; i < n; i++) {
		if ((r = decode_str(c, f->each, &v[i])) != 0)
			return r;
	}
	ret->v = v;
	ret->n = n;
	return 0;
}

/* The members of MAPS all look like this one. */
struct maps {
	void *v;
	size_t n;
};

static int decode_maps(struct decode *c, const struct csm_field *f, struct maps *ret)
{
	void *room;
	uint32_t n;
	int r;

	if (csm_dec_array(&c->d, &n) != 0)
		return wrong_type(c);
	if ((r = decode_room(c, f->max, n, f->sub->size, &room)) != 0)
		return r;
	for (uint32_t i = 0; i < n; i++) {
		if ((r = decode_map(c, f->sub, (uint8_t *)room + i * f->sub->size)) != 0)
			return r;
	}
	ret->v = room;
	ret->n = n;
	return 0;
}

static int decode_submap(struct decode *c, const struct csm_field *f, void *member)
{
	void *room;
	int r = decode_room(c, 1, 1, f->sub->size, &room);

	if (r != 0 || (r = decode_map(c, f->sub, room)) != 0)
		return r;
	memcpy(member, &room, sizeof(room));
	return 0;
}

static int decode_field(struct decode *c, const struct csm_field *f, uint8_t *out)
{
	void *member = out + f->off;

	switch ((enum csm_kind)f->kind) {
	case CSM_K_U64: {
		struct csm_u64 *u = member;

		if (csm_dec_u64(&c->d, &u->v) != 0)
			return wrong_type(c);
		u->set = true;
		return u->v <= f->max ? 0 : CSM_ETOO_LARGE;
	}
	case CSM_K_BOOL: {
		struct csm_bool *b = member;

		b->set = true;
		return csm_dec_bool(&c->d, &b->v) == 0 ? 0 : wrong_type(c);
	}
	case CSM_K_STR:
		return decode_str(c, f->max, member);
	case CSM_K_BIN: {
		struct csm_bin *b = member;

		if (csm_dec_bin(&c->d, b) != 0)
			return wrong_type(c);
		return b->n <= f->max ? 0 : CSM_ETOO_LARGE;
	}
	case CSM_K_STRS:
		return decode_strs(c, f, member);
	case CSM_K_MAP:
		return decode_submap(c, f, member);
	case CSM_K_MAPS:
		return decode_maps(c, f, member);
	}
	return CSM_EINTERNAL;
}

/* Take one key. *ret is its field's index, def->n_fields when there is no such field (*key names
 * it). Senders mostly keep the table's order, so `guess` is tried first. */
static int decode_key(struct decode *c, const struct csm_msgdef *def, size_t guess, size_t *ret, struct csm_str *key)
{
	const struct csm_field *f = &def->fields[guess];
	size_t left = (size_t)(c->d.end - c->d.p), i;

	if (guess < def->n_fields && f->name_len < 32 && left > f->name_len && c->d.p[0] == (0xa0 | f->name_len) &&
		memcmp(c->d.p + 1, f->name, f->name_len) == 0) {
		c->d.p += 1 + f->name_len;
		*ret = guess;
		return 0;
	}
	if (csm_dec_str(&c->d, key) != 0)
		return CSM_EPROTOCOL;
	for (i = 0; i < def->n_fields; i++) {
		f = &def->fields[i];
		if (f->name_len == key->n && memcmp(f->name, key->p, key->n) == 0)
			break;
	}
	*ret = i;
	return 0;
}

/* The first required field that is missing, NULL if none is. */
static const struct csm_field *missing_field(const struct csm_msgdef *def, uint64_t seen)
{
	for (size_t i = 0; i < def->n_fields; i++) {
		if ((seen >> i & 1) == 0 && def->fields[i].presence == CSM_P_REQ)
			return &def->fields[i];
	}
	return NULL;
}

static int bad_field(struct decode *c, const struct csm_field *f, int r)
{
	/* The innermost name is the one that helps. */
	if (c->bad.p == NULL)
		c->bad = (struct csm_str){f->name, f->name_len};
	return r;
}

static int decode_unknown(struct decode *c, struct csm_str key)
{
	if (c->unknown == CSM_UNKNOWN_SKIP)
		return csm_dec_skip(&c->d);
	c->bad = key;
	return CSM_EUNSUPPORTED_FIELD;
}

/* Pairs of one map into *out, which is zeroed. Recursion is as deep as messages.def nests. */
static int decode_map(struct decode *c, const struct csm_msgdef *def, void *out)
{
	const struct csm_field *f;
	uint64_t seen = 0;
	struct csm_str key;
	size_t next = 0, i;
	uint32_t n;
	int r;

	if (csm_dec_map(&c->d, &n) != 0)
		return wrong_type(c);
	while (n-- > 0) {
		if ((r = decode_key(c, def, next, &i, &key)) != 0)
			return r;
		if (i == def->n_fields) {
			if ((r = decode_unknown(c, key)) != 0)
				return r;
			continue;
		}
		f = &def->fields[i];
		if ((seen >> i & 1) != 0)
			return bad_field(c, f, CSM_EPROTOCOL);
		seen |= UINT64_C(1) << i;
		if ((r = decode_field(c, f, out)) != 0)
			return bad_field(c, f, r);
		next = i + 1;
	}
	f = missing_field(def, seen);
	return f == NULL ? 0 : bad_field(c, f, CSM_EINVALID);
}

int csm_msg_decode(const struct csm_msgdef *def, struct csm_bin p, enum csm_unknown unknown, struct csm_pool *pool,
	void *out, struct csm_str *bad)
{
	struct decode c = {.unknown = unknown, .pool = pool};
	int r;

	memset(out, 0, def->size);
	csm_dec_init(&c.d, p.p, p.n);
	r = decode_map(&c, def, out);
	if (r == 0)
		r = csm_dec_end(&c.d);
	if (r != 0) {
		memset(out, 0, def->size);
		*bad = c.bad.p != NULL ? c.bad : CSM_STR("");
	}
	return r;
}

/* ---- encoding ---------------------------------------------------------------- */

static bool field_absent(const struct csm_field *f, const uint8_t *in)
{
	const void *member = in + f->off;

	if (f->presence == CSM_P_REQ)
		return false;
	switch ((enum csm_kind)f->kind) {
	case CSM_K_U64:
		return !((const struct csm_u64 *)member)->set;
	case CSM_K_BOOL:
		return !((const struct csm_bool *)member)->set;
	case CSM_K_STR:
		return ((const struct csm_str *)member)->p == NULL;
	case CSM_K_BIN:
		return ((const struct csm_bin *)member)->p == NULL;
	case CSM_K_STRS:
		return ((const struct csm_strs *)member)->n == 0;
	case CSM_K_MAP:
		return *(void *const *)member == NULL;
	case CSM_K_MAPS:
		return ((const struct maps *)member)->n == 0;
	}
	return true;
}

/* Lengths are cut to what is over the limit in any case, so that no sum overflows. */
static uint64_t capped(size_t n)
{
	return n <= CSM_MESSAGE_MAX ? n : CSM_MESSAGE_MAX + 1;
}

static uint64_t map_size(const struct csm_msgdef *def, const uint8_t *in);

static uint64_t maps_size(const struct csm_field *f, const struct maps *m)
{
	uint64_t n = size_count(m->n);

	for (size_t i = 0; i < m->n && n <= CSM_MESSAGE_MAX; i++)
		n += map_size(f->sub, (const uint8_t *)m->v + i * f->sub->size);
	return n;
}

static uint64_t strs_size(const struct csm_strs *s)
{
	uint64_t n = size_count(s->n);

	for (size_t i = 0; i < s->n && n <= CSM_MESSAGE_MAX; i++)
		n += size_str_head(s->v[i].n) + capped(s->v[i].n);
	return n;
}

static uint64_t field_size(const struct csm_field *f, const uint8_t *in)
{
	const void *member = in + f->off;

	switch ((enum csm_kind)f->kind) {
	case CSM_K_U64:
		return size_u64(((const struct csm_u64 *)member)->v);
	case CSM_K_BOOL:
		return 1;
	case CSM_K_STR: {
		size_t n = ((const struct csm_str *)member)->n;

		return size_str_head(n) + capped(n);
	}
	case CSM_K_BIN: {
		size_t n = ((const struct csm_bin *)member)->n;

		return size_bin_head(n) + capped(n);
	}
	case CSM_K_STRS:
		return strs_size(member);
	case CSM_K_MAP:
		return map_size(f->sub, *(const uint8_t *const *)member);
	case CSM_K_MAPS:
		return maps_size(f, member);
	}
	return CSM_MESSAGE_MAX + 1;
}

static uint64_t map_size(const struct csm_msgdef *def, const uint8_t *in)
{
	uint64_t size = 0;
	size_t n = 0;

	for (size_t i = 0; i < def->n_fields && size <= CSM_MESSAGE_MAX; i++) {
		const struct csm_field *f = &def->fields[i];

		if (in == NULL || field_absent(f, in))
			continue;
		size += size_str_head(f->name_len) + f->name_len + field_size(f, in);
		n++;
	}
	return size_count(n) + size;
}

int csm_msg_size(const struct csm_msgdef *def, const void *in, size_t *ret)
{
	uint64_t size = map_size(def, in);

	if (size > CSM_MESSAGE_MAX)
		return CSM_ETOO_LARGE;
	*ret = (size_t)size;
	return 0;
}

static uint8_t *put_field(const struct csm_field *f, const uint8_t *in, uint8_t *p)
{
	const void *member = in + f->off;

	p = put_str(p, f->name, f->name_len);
	switch ((enum csm_kind)f->kind) {
	case CSM_K_U64:
		return put_u64(p, ((const struct csm_u64 *)member)->v);
	case CSM_K_BOOL:
		*p++ = ((const struct csm_bool *)member)->v ? 0xc3 : 0xc2;
		return p;
	case CSM_K_STR: {
		const struct csm_str *s = member;

		return put_str(p, s->p, s->n);
	}
	case CSM_K_BIN: {
		const struct csm_bin *b = member;

		return put_bin(p, b->p, b->n);
	}
	case CSM_K_STRS: {
		const struct csm_strs *s = member;

		p = put_array(p, s->n);
		for (size_t i = 0; i < s->n; i++)
			p = put_str(p, s->v[i].p, s->v[i].n);
		return p;
	}
	case CSM_K_MAP:
		return csm_msg_put(f->sub, *(const void *const *)member, p);
	case CSM_K_MAPS: {
		const struct maps *m = member;

		p = put_array(p, m->n);
		for (size_t i = 0; i < m->n; i++)
			p = csm_msg_put(f->sub, (const uint8_t *)m->v + i * f->sub->size, p);
		return p;
	}
	}
	return p;
}

uint8_t *csm_msg_put(const struct csm_msgdef *def, const void *in, uint8_t *p)
{
	uint64_t present = 0;
	size_t n = 0;

	for (size_t i = 0; i < def->n_fields && in != NULL; i++) {
		if (!field_absent(&def->fields[i], in)) {
			present |= UINT64_C(1) << i;
			n++;
		}
	}
	p = put_map(p, n);
	for (size_t i = 0; present != 0; i++, present >>= 1) {
		if ((present & 1) != 0)
			p = put_field(&def->fields[i], in, p);
	}
	return p;
}

int csm_msg_encode(const struct csm_msgdef *def, const void *in, struct csm_buf *b)
{
	uint8_t *p;
	size_t n;
	int r;

	if ((r = csm_msg_size(def, in, &n)) != 0 || (r = csm_buf_reserve(b, n, &p)) != 0)
		return r;
	csm_buf_commit(b, (size_t)(csm_msg_put(def, in, p) - p));
	return 0;
}

bool csm_field_present(const struct csm_field *f, const void *msg)
{
	const void *p = (const uint8_t *)msg + f->off;

	switch ((enum csm_kind)f->kind) {
	case CSM_K_U64:
		return ((const struct csm_u64 *)p)->set;
	case CSM_K_BOOL:
		return ((const struct csm_bool *)p)->set;
	case CSM_K_STR:
		return ((const struct csm_str *)p)->p != NULL;
	case CSM_K_BIN:
		return ((const struct csm_bin *)p)->p != NULL;
	case CSM_K_STRS:
	case CSM_K_MAPS:
		return true;
	case CSM_K_MAP:
		return *(void *const *)p != NULL;
	}
	return false;
}
