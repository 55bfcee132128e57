/* MessagePack written straight into memory whose size was computed before: the way of whole
 * messages (enc.h serves single values). Shortest forms, as msgpack-c writes them. For wire, and for answers on the
 * hot path. */
#ifndef CSM_WIRE_PUT_H
#define CSM_WIRE_PUT_H

#include <string.h>
#include "libclient/wire/msg.h"

/* The size of the map of *in, at most CSM_MESSAGE_MAX; else CSM_ETOO_LARGE. */
CSM_MUST int csm_msg_size(const struct csm_msgdef *def, const void *in, size_t *ret);
/* Write that map; the byte after it. */
uint8_t *csm_msg_put(const struct csm_msgdef *def, const void *in, uint8_t *p);

static inline uint8_t *put_be(uint8_t *p, uint8_t head, uint64_t v, unsigned bytes)
{
	*p++ = head;
	while (bytes-- > 0)
		*p++ = (uint8_t)(v >> 8 * bytes);
	return p;
}
static inline size_t size_u64(uint64_t v)
{
	if (v < 0x80)
		return 1;
	if (v <= UINT8_MAX)
		return 2;
	if (v <= UINT16_MAX)
		return 3;
	return v <= UINT32_MAX ? 5 : 9;
}
static inline uint8_t *put_u64(uint8_t *p, uint64_t v)
{
	if (v < 0x80) {
		*p++ = (uint8_t)v;
		return p;
	}
	if (v <= UINT8_MAX)
		return put_be(p, 0xcc, v, 1);
	if (v <= UINT16_MAX)
		return put_be(p, 0xcd, v, 2);
	return v <= UINT32_MAX ? put_be(p, 0xce, v, 4) : put_be(p, 0xcf, v, 8);
}
static inline size_t size_str_head(size_t n)
{
	if (n < 32)
		return 1;
	if (n <= UINT8_MAX)
		return 2;
	return n <= UINT16_MAX ? 3 : 5;
}
static inline uint8_t *put_str(uint8_t *p, const char *s, size_t n)
{
	if (n < 32)
		*p++ = (uint8_t)(0xa0 | n);
	else if (n <= UINT8_MAX)
		p = put_be(p, 0xd9, n, 1);
	else
		p = n <= UINT16_MAX ? put_be(p, 0xda, n, 2) : put_be(p, 0xdb, n, 4);
	if (n > 0)
		memcpy(p, s, n);
	return p + n;
}
static inline size_t size_bin_head(size_t n)
{
	if (n <= UINT8_MAX)
		return 2;
	return n <= UINT16_MAX ? 3 : 5;
}
static inline uint8_t *put_bin(uint8_t *p, const uint8_t *s, size_t n)
{
	if (n <= UINT8_MAX)
		p = put_be(p, 0xc4, n, 1);
	else
		p = n <= UINT16_MAX ? put_be(p, 0xc5, n, 2) : put_be(p, 0xc6, n, 4);
	if (n > 0)
		memcpy(p, s, n);
	return p + n;
}
static inline size_t size_count(size_t n)
{
	if (n < 16)
		return 1;
	return n <= UINT16_MAX ? 3 : 5;
}
static inline uint8_t *put_array(uint8_t *p, size_t n)
{
	if (n < 16) {
		*p++ = (uint8_t)(0x90 | n);
		return p;
	}
	return n <= UINT16_MAX ? put_be(p, 0xdc, n, 2) : put_be(p, 0xdd, n, 4);
}
static inline uint8_t *put_map(uint8_t *p, size_t n)
{
	if (n < 16) {
		*p++ = (uint8_t)(0x80 | n);
		return p;
	}
	return n <= UINT16_MAX ? put_be(p, 0xde, n, 2) : put_be(p, 0xdf, n, 4);
}

#endif
