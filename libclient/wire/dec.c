#include "libclient/wire/dec.h"
#include "libclient/wire/walk.h"

struct long_form {
	uint8_t type; /* enum head_type; of the signed forms HEAD_NEGATIVE */
	uint8_t arg;  /* bytes of the big-endian number that follows */
};

static const struct long_form long_forms[32] = {
	[0x00] = {HEAD_NIL, 0},      [0x01] = {HEAD_NONE, 0},     [0x02] = {HEAD_BOOL, 0},     [0x03] = {HEAD_BOOL, 0},
	[0x04] = {HEAD_BIN, 1},      [0x05] = {HEAD_BIN, 2},      [0x06] = {HEAD_BIN, 4},      [0x07] = {HEAD_NONE, 0},
	[0x08] = {HEAD_NONE, 0},     [0x09] = {HEAD_NONE, 0},     [0x0a] = {HEAD_NONE, 0},     [0x0b] = {HEAD_NONE, 0},
	[0x0c] = {HEAD_UINT, 1},     [0x0d] = {HEAD_UINT, 2},     [0x0e] = {HEAD_UINT, 4},     [0x0f] = {HEAD_UINT, 8},
	[0x10] = {HEAD_NEGATIVE, 1}, [0x11] = {HEAD_NEGATIVE, 2}, [0x12] = {HEAD_NEGATIVE, 4}, [0x13] = {HEAD_NEGATIVE, 8},
	[0x14] = {HEAD_NONE, 0},     [0x15] = {HEAD_NONE, 0},     [0x16] = {HEAD_NONE, 0},     [0x17] = {HEAD_NONE, 0},
	[0x18] = {HEAD_NONE, 0},     [0x19] = {HEAD_STR, 1},      [0x1a] = {HEAD_STR, 2},      [0x1b] = {HEAD_STR, 4},
	[0x1c] = {HEAD_ARRAY, 2},    [0x1d] = {HEAD_ARRAY, 4},    [0x1e] = {HEAD_MAP, 2},      [0x1f] = {HEAD_MAP, 4},
};

int csm_head_long(const uint8_t *p, size_t n, struct head *h)
{
	const struct long_form *form = &long_forms[p[0] - 0xc0];

	if (form->type == HEAD_NONE)
		return CSM_EPROTOCOL;
	h->size = 1u + form->arg;
	if (n < h->size)
		return CSM_EBUSY;
	h->type = (enum head_type)form->type;
	h->v = 0;
	for (unsigned i = 1; i <= form->arg; i++)
		h->v = h->v << 8 | p[i];
	if (h->type == HEAD_BOOL)
		h->v = p[0] & 1;
	else if (h->type == HEAD_NEGATIVE && (p[1] & 0x80) == 0)
		h->type = HEAD_UINT;
	return 0;
}

/* The head of a value of that type whose payload or items can be within the input. */
static int dec_head(struct csm_dec *d, enum head_type type, struct head *h)
{
	size_t left = (size_t)(d->end - d->p);

	if (head_read(d->p, left, h) != 0 || h->type != type)
		return CSM_EPROTOCOL;
	left -= h->size;
	return head_payload(h) > left || head_items(h) > left ? CSM_EPROTOCOL : 0;
}

int csm_dec_u64(struct csm_dec *d, uint64_t *ret)
{
	struct head h;
	int r = dec_head(d, HEAD_UINT, &h);

	if (r != 0)
		return r;
	d->p += h.size;
	*ret = h.v;
	return 0;
}

int csm_dec_bool(struct csm_dec *d, bool *ret)
{
	struct head h;
	int r = dec_head(d, HEAD_BOOL, &h);

	if (r != 0)
		return r;
	d->p += h.size;
	*ret = h.v != 0;
	return 0;
}

int csm_dec_nil(struct csm_dec *d)
{
	struct head h;
	int r = dec_head(d, HEAD_NIL, &h);

	if (r != 0)
		return r;
	d->p += h.size;
	return 0;
}

int csm_dec_str(struct csm_dec *d, struct csm_str *ret)
{
	struct head h;
	int r = dec_head(d, HEAD_STR, &h);
	const char *s;

	if (r != 0)
		return r;
	s = (const char *)d->p + h.size;
	if (!csm_utf8_valid(s, (size_t)h.v))
		return CSM_EPROTOCOL;
	d->p += h.size + (size_t)h.v;
	*ret = (struct csm_str){s, (size_t)h.v};
	return 0;
}

int csm_dec_bin(struct csm_dec *d, struct csm_bin *ret)
{
	struct head h;
	int r = dec_head(d, HEAD_BIN, &h);

	if (r != 0)
		return r;
	*ret = (struct csm_bin){d->p + h.size, (size_t)h.v};
	d->p += h.size + (size_t)h.v;
	return 0;
}

static int dec_count(struct csm_dec *d, enum head_type type, uint32_t *ret)
{
	struct head h;
	int r = dec_head(d, type, &h);

	if (r != 0)
		return r;
	d->p += h.size;
	*ret = (uint32_t)h.v;
	return 0;
}

int csm_dec_array(struct csm_dec *d, uint32_t *ret)
{
	return dec_count(d, HEAD_ARRAY, ret);
}

int csm_dec_map(struct csm_dec *d, uint32_t *ret)
{
	return dec_count(d, HEAD_MAP, ret);
}

int csm_dec_skip(struct csm_dec *d)
{
	size_t left = (size_t)(d->end - d->p), need;
	struct csm_scanner w;

	csm_walk_init(&w);
	if (csm_walk(&w, d->p, left, left < CSM_MESSAGE_MAX ? left : CSM_MESSAGE_MAX, &need) != 0)
		return CSM_EPROTOCOL;
	d->p += w.pos;
	return 0;
}

int csm_dec_end(const struct csm_dec *d)
{
	return d->p == d->end ? 0 : CSM_EPROTOCOL;
}
