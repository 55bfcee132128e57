/* DER (X.690) as a question of yes or no: every value has one encoding, and this is it. */
#include <string.h>
#include <time.h>
#include "daemon/pki/tbs_int.h"

#define DEPTH_MAX 24u

bool tbs_head(struct csm_bin in, uint8_t *tag, size_t *head, size_t *body)
{
	size_t bytes, n = 0;

	if (in.n < 2 || (in.p[0] & 0x1f) == 0x1f || in.p[0] == 0)
		return false;
	*tag = in.p[0];
	if (in.p[1] < 0x80) {
		*head = 2;
		*body = in.p[1];
		return true;
	}
	bytes = in.p[1] & 0x7fu;
	if (bytes == 0 || bytes > 4 || in.n < 2 + bytes || in.p[2] == 0)
		return false;
	for (size_t i = 0; i < bytes; i++)
		n = n << 8 | in.p[2 + i];
	*head = 2 + bytes;
	*body = n;
	return n >= 0x80;
}

bool tbs_take(struct csm_bin *rest, uint8_t *tag, struct csm_bin *body, struct csm_bin *whole)
{
	size_t head, n;

	if (!tbs_head(*rest, tag, &head, &n) || n > rest->n - head)
		return false;
	*body = (struct csm_bin){rest->p + head, n};
	if (whole != NULL)
		*whole = (struct csm_bin){rest->p, head + n};
	*rest = (struct csm_bin){rest->p + head + n, rest->n - head - n};
	return true;
}

static bool int_ok(struct csm_bin v)
{
	return v.n > 0 && (v.n == 1 || !((v.p[0] == 0 && v.p[1] < 0x80) || (v.p[0] == 0xff && v.p[1] >= 0x80)));
}

static bool bits_ok(struct csm_bin v)
{
	if (v.n == 0 || v.p[0] > 7 || (v.n == 1 && v.p[0] != 0))
		return false;
	return (v.p[v.n - 1] & ((1u << v.p[0]) - 1)) == 0 || v.n == 1;
}

/* Base 128, no leading zeros, the last byte ends a number. */
static bool oid_ok(struct csm_bin v)
{
	bool first = true;

	for (size_t i = 0; i < v.n; i++) {
		if (first && v.p[i] == 0x80)
			return false;
		first = v.p[i] < 0x80;
	}
	return v.n > 0 && first;
}

static bool digits(const uint8_t *p, size_t n, int *ret)
{
	int v = 0;

	for (size_t i = 0; i < n; i++) {
		if (p[i] < '0' || p[i] > '9')
			return false;
		v = 10 * v + (p[i] - '0');
	}
	*ret = v;
	return true;
}

/* YYYYMMDDHHMMSSZ, or with two digits of the year. */
static bool time_ok(uint8_t tag, struct csm_bin v, struct tm *tm)
{
	size_t year = tag == V_ASN1_UTCTIME ? 2 : 4;
	struct tm again;
	time_t at;

	memset(tm, 0, sizeof(*tm));
	if (v.n != year + 11 || v.p[v.n - 1] != 'Z' || !digits(v.p, year, &tm->tm_year) || !digits(v.p + year, 2, &tm->tm_mon) ||
		!digits(v.p + year + 2, 2, &tm->tm_mday) || !digits(v.p + year + 4, 2, &tm->tm_hour) ||
		!digits(v.p + year + 6, 2, &tm->tm_min) || !digits(v.p + year + 8, 2, &tm->tm_sec))
		return false;
	tm->tm_year += year == 4 ? -1900 : tm->tm_year < 50 ? 100 : 0;
	tm->tm_mon--;
	again = *tm;
	at = timegm(&again); /* puts right what was out of range */
	return at >= 0 && again.tm_mon == tm->tm_mon && again.tm_mday == tm->tm_mday && again.tm_hour == tm->tm_hour &&
		again.tm_min == tm->tm_min && again.tm_sec == tm->tm_sec;
}

bool tbs_time(uint8_t tag, struct csm_bin body, uint64_t *ret)
{
	struct tm tm;

	if ((tag != V_ASN1_UTCTIME && tag != V_ASN1_GENERALIZEDTIME) || !time_ok(tag, body, &tm) ||
		(tag == V_ASN1_GENERALIZEDTIME && tm.tm_year < 150))
		return false;
	*ret = (uint64_t)timegm(&tm);
	return true;
}

bool tbs_number(uint8_t tag, struct csm_bin body, struct csm_bin *ret)
{
	if (tag != V_ASN1_INTEGER || !int_ok(body) || body.n > CSM_TBS_NUMBER_MAX || body.p[0] >= 0x80)
		return false;
	if (body.p[0] == 0) {
		body.p++;
		body.n--;
	}
	*ret = body;
	return body.n > 0; /* zero is no number of anything */
}

static bool primitive_ok(uint8_t tag, struct csm_bin v)
{
	struct tm tm;

	switch (tag) {
	case V_ASN1_BOOLEAN:
		return v.n == 1 && (v.p[0] == 0 || v.p[0] == 0xff);
	case V_ASN1_INTEGER:
	case V_ASN1_ENUMERATED:
		return int_ok(v);
	case V_ASN1_BIT_STRING:
		return bits_ok(v);
	case V_ASN1_NULL:
		return v.n == 0;
	case V_ASN1_OBJECT:
		return oid_ok(v);
	case V_ASN1_UTF8STRING:
		return csm_utf8_valid((const char *)v.p, v.n);
	case V_ASN1_UTCTIME:
	case V_ASN1_GENERALIZEDTIME:
		return time_ok(tag, v, &tm);
	case V_ASN1_OCTET_STRING:
	case V_ASN1_NUMERICSTRING:
	case V_ASN1_PRINTABLESTRING:
	case V_ASN1_T61STRING:
	case V_ASN1_IA5STRING:
	case V_ASN1_VISIBLESTRING:
		return true;
	case V_ASN1_UNIVERSALSTRING:
		return v.n % 4 == 0;
	case V_ASN1_BMPSTRING:
		return v.n % 2 == 0;
	default:
		return (tag & 0xe0) == 0x80; /* context-specific */
	}
}

/* Of two encodings, which comes first in a SET OF (11.6). */
static bool in_order(struct csm_bin a, struct csm_bin b)
{
	int d = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);

	return d < 0 || (d == 0 && a.n <= b.n);
}

/* Where a constructed value that is being looked into ends, and what came before in it. */
struct level {
	const uint8_t *end;
	struct csm_bin before; /* of a SET */
	bool set;
};

/* Down from the first byte to the last, without recursion: whoever sends it chooses the depth. */
bool tbs_is_der(struct csm_bin v)
{
	struct level stack[DEPTH_MAX] = {{.end = v.p + v.n}};
	struct csm_bin rest = v, body, whole;
	size_t depth = 0;
	uint8_t tag;

	if (v.n == 0)
		return false;
	for (;;) {
		while (rest.p == stack[depth].end && depth > 0)
			depth--;
		if (rest.p == v.p + v.n)
			return true;
		rest.n = (size_t)(stack[depth].end - rest.p);
		/* nothing behind the one value */
		if ((depth == 0 && rest.p != v.p) || !tbs_take(&rest, &tag, &body, &whole))
			return false;
		if (stack[depth].set) {
			if (stack[depth].before.p != NULL && !in_order(stack[depth].before, whole))
				return false;
			stack[depth].before = whole;
		}
		if ((tag & 0x20) == 0) {
			if (!primitive_ok(tag, body))
				return false;
			continue;
		}
		if ((tag != CSM_DER_SEQ && tag != CSM_DER_SET && (tag & 0xe0) != 0xa0) || ++depth == DEPTH_MAX)
			return false;
		stack[depth] = (struct level){.end = body.p + body.n, .set = tag == CSM_DER_SET};
		rest = body;
	}
}
