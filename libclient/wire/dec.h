/* A cursor over MessagePack bytes that have passed csm_scan, or have not: every read is
 * bounded by the end of the input. No allocation. */
#ifndef CSM_WIRE_DEC_H
#define CSM_WIRE_DEC_H

#include "libclient/base/name.h"

struct csm_dec {
	const uint8_t *p;
	const uint8_t *end;
};

static inline void csm_dec_init(struct csm_dec *d, const void *p, size_t n)
{
	d->p = p;
	d->end = d->p + n;
}
/* Each takes one value of that type; CSM_EPROTOCOL (nothing consumed) where there is none. */
CSM_MUST int csm_dec_u64(struct csm_dec *d, uint64_t *ret);
CSM_MUST int csm_dec_bool(struct csm_dec *d, bool *ret);
CSM_MUST int csm_dec_nil(struct csm_dec *d);
CSM_MUST int csm_dec_str(struct csm_dec *d, struct csm_str *ret); /* borrowed; UTF-8 is checked */
CSM_MUST int csm_dec_bin(struct csm_dec *d, struct csm_bin *ret); /* bin only, not str */
CSM_MUST int csm_dec_array(struct csm_dec *d, uint32_t *ret);     /* count <= bytes left */
CSM_MUST int csm_dec_map(struct csm_dec *d, uint32_t *ret);       /* 2 * count <= bytes left */
/* Step over one whole value of any type; depth at most CSM_DEPTH_MAX. */
CSM_MUST int csm_dec_skip(struct csm_dec *d);
/* CSM_EPROTOCOL when bytes are left over. */
CSM_MUST int csm_dec_end(const struct csm_dec *d);

#endif
