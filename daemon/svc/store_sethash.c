/* An additive set hash (Clarke and others, "Incremental multiset hash functions", MSet-Add-Hash): the sum
 * modulo 2^256 of HMAC(set key, record). The key is secret and the sum is kept sealed, so nobody
 * can make two sets meet. */
#include "daemon/svc/store_internal.h"

static uint64_t le64(const uint8_t *p)
{
	uint64_t v = 0;

	for (int i = 7; i >= 0; i--)
		v = v << 8 | p[i];
	return v;
}

static void put_le64(uint8_t *p, uint64_t v)
{
	for (int i = 0; i < 8; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

void sum_add(uint8_t sum[static SUM_LEN], const uint8_t element[static SUM_LEN])
{
	unsigned __int128 carry = 0;

	for (size_t i = 0; i < SUM_LEN; i += 8) {
		carry += (unsigned __int128)le64(sum + i) + le64(element + i);
		put_le64(sum + i, (uint64_t)carry);
		carry >>= 64;
	}
}

void sum_sub(uint8_t sum[static SUM_LEN], const uint8_t element[static SUM_LEN])
{
	uint64_t borrow = 0;

	for (size_t i = 0; i < SUM_LEN; i += 8) {
		uint64_t a = le64(sum + i), b = le64(element + i), d = a - b;
		uint64_t out = d - borrow;

		borrow = (uint64_t)(a < b) | (uint64_t)(d < borrow);
		put_le64(sum + i, out);
	}
}

int sum_element(const struct prk *set_key, enum rec_kind kind, struct csm_bin key, struct csm_bin value,
	uint8_t out[static SUM_LEN])
{
	uint8_t front[3] = {(uint8_t)kind};
	struct part parts[4] = {{front, 3}, {key.p, key.n}, {value.p, value.n}, {"", 0}};
	struct rec rec;

	if (key.n > STORE_KEY_MAX)
		return CSM_EINVALID;
	put16(front + 1, (uint16_t)key.n);
	if (kind == REC_SECRET || kind == REC_CERT) {
		int r = rec_parse(value, kind, &rec);

		if (r != 0)
			return r;
		/* The tag stands for the cipher text, which may be long. */
		parts[2] = (struct part){rec.header.p, rec.header.n};
		parts[3] = (struct part){rec.body.p + rec.body.n - TAG_LEN, TAG_LEN};
	}
	prk_mac(set_key, parts, 4, out);
	return 0;
}
