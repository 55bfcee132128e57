#include <string.h>
#include <time.h>
#include "daemon/pki/der.h"

#define HEAD 5u /* tag, and the longest length that is written: 0x83 and three bytes */
#define LENGTH_MAX 0xffffffu
#define TIME_LAST 253402300799u /* of the year 9999 */

void csm_der_raw(struct csm_der *d, const void *p, size_t n)
{
	if (d->r == 0 && n > 0)
		d->r = csm_buf_put(d->out, p, n);
}

size_t csm_der_open(struct csm_der *d, uint8_t tag)
{
	const uint8_t head[HEAD] = {tag};
	size_t at = d->out->len;

	csm_der_raw(d, head, sizeof(head));
	return at;
}

static size_t length_put(uint8_t *p, size_t n)
{
	size_t bytes = n < 0x80 ? 0 : n <= 0xff ? 1 : n <= 0xffff ? 2 : 3;

	p[0] = bytes == 0 ? (uint8_t)n : (uint8_t)(0x80 | bytes);
	for (size_t i = 0; i < bytes; i++)
		p[1 + i] = (uint8_t)(n >> 8 * (bytes - 1 - i));
	return 1 + bytes;
}

void csm_der_close(struct csm_der *d, size_t at)
{
	uint8_t *p;
	size_t n, head;

	if (d->r != 0)
		return;
	p = d->out->p + d->out->off + at;
	n = d->out->len - at - HEAD;
	if (n > LENGTH_MAX) {
		d->r = CSM_ETOO_LARGE;
		return;
	}
	head = 1 + length_put(p + 1, n);
	memmove(p + head, p + HEAD, n);
	d->out->len -= HEAD - head;
}

void csm_der_put(struct csm_der *d, uint8_t tag, const void *p, size_t n)
{
	size_t at = csm_der_open(d, tag);

	csm_der_raw(d, p, n);
	csm_der_close(d, at);
}

void csm_der_uint(struct csm_der *d, const uint8_t *p, size_t n)
{
	size_t at = csm_der_open(d, V_ASN1_INTEGER);

	while (n > 1 && p[0] == 0) {
		p++;
		n--;
	}
	if (n == 0 || (p[0] & 0x80) != 0)
		csm_der_raw(d, "", 1);
	csm_der_raw(d, p, n);
	csm_der_close(d, at);
}

void csm_der_number(struct csm_der *d, uint64_t v)
{
	uint8_t be[8];

	for (size_t i = 0; i < sizeof(be); i++)
		be[i] = (uint8_t)(v >> 8 * (sizeof(be) - 1 - i));
	csm_der_uint(d, be, sizeof(be));
}

static void object_put(struct csm_der *d, const ASN1_OBJECT *obj)
{
	size_t n = obj != NULL ? OBJ_length(obj) : 0;

	if (n > 0)
		csm_der_put(d, V_ASN1_OBJECT, OBJ_get0_data(obj), n);
	else if (d->r == 0)
		d->r = CSM_EINTERNAL;
}

void csm_der_oid(struct csm_der *d, int nid)
{
	object_put(d, OBJ_nid2obj(nid));
}

void csm_der_oid_text(struct csm_der *d, const char *text)
{
	ASN1_OBJECT *obj = OBJ_txt2obj(text, 0);

	if (obj != NULL)
		object_put(d, obj);
	else if (d->r == 0)
		d->r = CSM_EINVALID;
	ASN1_OBJECT_free(obj);
}

void csm_der_bits(struct csm_der *d, const void *p, size_t n)
{
	size_t at = csm_der_open(d, V_ASN1_BIT_STRING);

	csm_der_raw(d, "", 1); /* no bit of the last byte is unused */
	csm_der_raw(d, p, n);
	csm_der_close(d, at);
}

static char *two(char *p, int v)
{
	*p++ = (char)('0' + v / 10);
	*p++ = (char)('0' + v % 10);
	return p;
}

void csm_der_time(struct csm_der *d, uint64_t at, bool general)
{
	const time_t t = (time_t)(at <= TIME_LAST ? at : 0);
	char text[16], *p = text;
	struct tm tm;

	if (at > TIME_LAST || gmtime_r(&t, &tm) == NULL) {
		d->r = d->r != 0 ? d->r : CSM_EINTERNAL;
		return;
	}
	general = general || tm.tm_year >= 150;
	if (general)
		p = two(p, (tm.tm_year + 1900) / 100);
	p = two(p, tm.tm_year % 100);
	p = two(p, tm.tm_mon + 1);
	p = two(p, tm.tm_mday);
	p = two(p, tm.tm_hour);
	p = two(p, tm.tm_min);
	p = two(p, tm.tm_sec);
	*p++ = 'Z';
	csm_der_put(d, general ? V_ASN1_GENERALIZEDTIME : V_ASN1_UTCTIME, text, (size_t)(p - text));
}

void csm_der_item(struct csm_der *d, const ASN1_ITEM *it, const void *value)
{
	unsigned char *der = NULL;
	int n;

	if (d->r != 0)
		return;
	n = value != NULL ? ASN1_item_i2d(value, &der, it) : -1;
	if (n > 0)
		csm_der_raw(d, der, (size_t)n);
	else
		d->r = CSM_EINTERNAL;
	OPENSSL_free(der);
}

size_t csm_der_ext_open(struct csm_der *d, int nid, bool critical, size_t *value)
{
	const uint8_t yes = 0xff;
	size_t at = csm_der_open(d, CSM_DER_SEQ);

	csm_der_oid(d, nid);
	if (critical)
		csm_der_put(d, V_ASN1_BOOLEAN, &yes, 1);
	*value = csm_der_open(d, V_ASN1_OCTET_STRING);
	return at;
}

void csm_der_ext_close(struct csm_der *d, size_t at, size_t value)
{
	csm_der_close(d, value);
	csm_der_close(d, at);
}

void csm_der_ext(struct csm_der *d, int nid, bool critical, const ASN1_ITEM *it, const void *value)
{
	size_t in, at = csm_der_ext_open(d, nid, critical, &in);

	csm_der_item(d, it, value);
	csm_der_ext_close(d, at, in);
}

void csm_der_ext_raw(struct csm_der *d, int nid, bool critical, struct csm_bin value)
{
	size_t in, at = csm_der_ext_open(d, nid, critical, &in);

	csm_der_raw(d, value.p, value.n);
	csm_der_ext_close(d, at, in);
}
