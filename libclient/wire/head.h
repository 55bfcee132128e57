/* The head of one MessagePack value: its type and its number, length or count. Private to wire. */
#ifndef CSM_WIRE_HEAD_H
#define CSM_WIRE_HEAD_H

#include <stddef.h>
#include <stdint.h>
#include "libclient/base/err.h"

enum head_type {
	HEAD_NIL,
	HEAD_BOOL,
	HEAD_UINT, /* any form, as long as the number is not negative */
	HEAD_NEGATIVE,
	HEAD_STR,
	HEAD_BIN,
	HEAD_ARRAY,
	HEAD_MAP,
	HEAD_NONE, /* 0xc1, float, ext: not in csm's messages */
};
struct head {
	enum head_type type;
	uint32_t size; /* bytes of the head itself; when not whole, what it takes */
	uint64_t v;    /* the number or boolean, the bytes that follow (STR, BIN), or the count */
};

/* 0xc0 to 0xdf; CSM_EBUSY, CSM_EPROTOCOL. */
int csm_head_long(const uint8_t *p, size_t n, struct head *h);

/* CSM_EBUSY when the head is not whole in p[0..n); the payload may be missing. */
static inline int head_read(const uint8_t *p, size_t n, struct head *h)
{
	h->size = 1;
	if (n == 0)
		return CSM_EBUSY;
	if (p[0] < 0x80) {
		h->type = HEAD_UINT;
		h->v = p[0];
	} else if (p[0] < 0x90) {
		h->type = HEAD_MAP;
		h->v = p[0] & 0x0f;
	} else if (p[0] < 0xa0) {
		h->type = HEAD_ARRAY;
		h->v = p[0] & 0x0f;
	} else if (p[0] < 0xc0) {
		h->type = HEAD_STR;
		h->v = p[0] & 0x1f;
	} else if (p[0] < 0xe0) {
		return csm_head_long(p, n, h);
	} else {
		h->type = HEAD_NEGATIVE;
		h->v = 0;
	}
	return 0;
}
static inline uint64_t head_payload(const struct head *h)
{
	return h->type == HEAD_STR || h->type == HEAD_BIN ? h->v : 0;
}
static inline uint64_t head_items(const struct head *h)
{
	if (h->type == HEAD_MAP)
		return 2 * h->v;
	return h->type == HEAD_ARRAY ? h->v : 0;
}

#endif
