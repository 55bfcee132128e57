#include <sodium.h>
#include <string.h>
#include "libclient/base/keyref.h"
#include "proto-spec/limits.h"

#define TYPE "csm key reference"
#define VERSION 1u

enum { TAG_INTEGER = 0x02, TAG_OCTETS = 0x04, TAG_UTF8 = 0x0c, TAG_SEQUENCE = 0x30 };

/* The header of a content of n bytes, at most 255. */
static size_t header_len(size_t n)
{
	return n < 0x80 ? 2 : 3;
}

/* All parts at their longest, with their headers. */
_Static_assert(3 + (2 + sizeof(TYPE) - 1) + 3 + (2 + CSM_NAMESPACE_MAX) + (3 + CSM_NAME_MAX) + (2 + CSM_KEYREF_HASH) <=
		       CSM_KEYREF_DER_MAX && CSM_KEYREF_DER_MAX <= 256 + 2,
	"lengths are of one byte");

/* ---- writing ---- */

static void put_header(uint8_t **p, uint8_t tag, size_t n)
{
	*(*p)++ = tag;
	if (n >= 0x80)
		*(*p)++ = 0x81;
	*(*p)++ = (uint8_t)n;
}

static void put(uint8_t **p, uint8_t tag, const void *from, size_t n)
{
	put_header(p, tag, n);
	memcpy(*p, from, n);
	*p += n;
}

int csm_keyref_encode(const struct csm_keyref *ref, uint8_t out[static CSM_KEYREF_DER_MAX], size_t *len)
{
	static const uint8_t version = VERSION;
	uint8_t *p = out;
	size_t n;

	if (!csm_namespace_valid(ref->ns) || !csm_name_valid(ref->name))
		return CSM_EINVALID;
	n = 2 + sizeof(TYPE) - 1 + 3 + header_len(ref->ns.n) + ref->ns.n + header_len(ref->name.n) + ref->name.n + 2 +
		CSM_KEYREF_HASH;
	put_header(&p, TAG_SEQUENCE, n);
	put(&p, TAG_UTF8, TYPE, sizeof(TYPE) - 1);
	put(&p, TAG_INTEGER, &version, 1);
	put(&p, TAG_UTF8, ref->ns.p, ref->ns.n);
	put(&p, TAG_UTF8, ref->name.p, ref->name.n);
	put(&p, TAG_OCTETS, ref->hash, CSM_KEYREF_HASH);
	*len = (size_t)(p - out);
	return 0;
}

/* ---- reading ---- */

/* One element off the front of *in: its content. False: it is another one, is not whole, or not in its shortest form. */
static bool take(struct csm_bin *in, uint8_t tag, struct csm_bin *ret)
{
	size_t head, n;

	if (in->n < 2 || in->p[0] != tag)
		return false;
	n = in->p[1];
	head = 2;
	if (n == 0x81) {
		if (in->n < 3 || in->p[2] < 0x80)
			return false;
		n = in->p[2];
		head = 3;
	} else if (n >= 0x80) {
		return false;
	}
	if (n > in->n - head)
		return false;
	*ret = (struct csm_bin){in->p + head, n};
	in->p += head + n;
	in->n -= head + n;
	return true;
}

static bool take_str(struct csm_bin *in, struct csm_str *ret)
{
	struct csm_bin b;

	if (!take(in, TAG_UTF8, &b))
		return false;
	*ret = (struct csm_str){(const char *)b.p, b.n};
	return true;
}

int csm_keyref_decode(const void *p, size_t n, struct csm_keyref *ret)
{
	struct csm_bin in = {p, n}, body, version, hash;
	struct csm_keyref ref;
	struct csm_str type;

	if (!take(&in, TAG_SEQUENCE, &body) || in.n != 0)
		return CSM_EINVALID;
	if (!take_str(&body, &type) || !csm_str_eq(type, TYPE))
		return CSM_EINVALID;
	if (!take(&body, TAG_INTEGER, &version) || version.n != 1 || version.p[0] != VERSION)
		return CSM_EINVALID;
	if (!take_str(&body, &ref.ns) || !csm_namespace_valid(ref.ns))
		return CSM_EINVALID;
	if (!take_str(&body, &ref.name) || !csm_name_valid(ref.name))
		return CSM_EINVALID;
	if (!take(&body, TAG_OCTETS, &hash) || hash.n != CSM_KEYREF_HASH || body.n != 0)
		return CSM_EINVALID;
	memcpy(ref.hash, hash.p, CSM_KEYREF_HASH);
	*ret = ref;
	return 0;
}

void csm_keyref_hash(const void *spki, size_t n, uint8_t out[static CSM_KEYREF_HASH])
{
	(void)crypto_hash_sha256(out, spki, n);
}
