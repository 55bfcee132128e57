#include <string.h>
#include "libclient/tpmfmt/keyfile.h"

enum {
	TAG_BOOLEAN = 0x01,
	TAG_INTEGER = 0x02,
	TAG_OCTETS = 0x04,
	TAG_OID = 0x06,
	TAG_SEQUENCE = 0x30,
	TAG_EMPTY_AUTH = 0xa0,
	TAG_POLICY = 0xa1,
	TAG_SECRET = 0xa2,
	TAG_AUTH_POLICY = 0xa3,
	TAG_DESCRIPTION = 0xa4,
	TAG_RSA_PARENT = 0xa5,
};

/* 2.23.133.10.1.3 loadable; the last number: 4 importable, 5 sealed */
static const uint8_t loadable[] = {0x67, 0x81, 0x05, 0x0a, 0x01, 0x03};

/* ---- reading ---- */

/* One element off the front, of at most 64 KiB; its length may be written longer than it has to be. */
static bool take(struct csm_bin *in, uint8_t *tag, struct csm_bin *ret)
{
	size_t n, bytes;

	if (in->n < 2 || (in->p[0] & 0x1f) == 0x1f)
		return false;
	*tag = in->p[0];
	n = in->p[1];
	in->p += 2;
	in->n -= 2;
	if (n >= 0x80) {
		bytes = n & 0x7f;
		if (bytes == 0 || bytes > 4 || bytes > in->n)
			return false;
		for (n = 0; bytes > 0; bytes--) {
			n = n << 8 | *in->p++;
			in->n--;
		}
		if (n > UINT16_MAX)
			return false;
	}
	return csm_tpm_take_bytes(in, n, ret);
}

static bool take_tag(struct csm_bin *in, uint8_t want, struct csm_bin *ret)
{
	struct csm_bin rest = *in;
	uint8_t tag;

	if (!take(&rest, &tag, ret) || tag != want)
		return false;
	*in = rest;
	return true;
}

/* What may stand between the type and the parent. */
static int take_options(struct csm_bin *body, bool *empty_auth, const char **why)
{
	struct csm_bin e, b;
	uint8_t tag;

	while (body->n > 0 && body->p[0] >= TAG_EMPTY_AUTH) {
		if (!take(body, &tag, &e))
			return CSM_EINVALID;
		if (tag == TAG_EMPTY_AUTH) {
			if (!take_tag(&e, TAG_BOOLEAN, &b) || b.n != 1 || e.n != 0)
				return CSM_EINVALID;
			*empty_auth = b.p[0] != 0;
		} else if (tag == TAG_POLICY || tag == TAG_AUTH_POLICY || tag == TAG_SECRET) {
			*why = "the key has a policy, or is to be imported with a secret: csm takes loadable keys without either";
			return CSM_EUNSUPPORTED;
		} else if (tag != TAG_DESCRIPTION && tag != TAG_RSA_PARENT) {
			return CSM_EINVALID;
		}
	}
	return 0;
}

static bool take_parent(struct csm_bin *body, uint32_t *ret)
{
	struct csm_bin b;

	if (!take_tag(body, TAG_INTEGER, &b) || b.n == 0 || b.n > 5 || (b.p[0] & 0x80) != 0 || (b.n == 5 && b.p[0] != 0))
		return false;
	for (*ret = 0; b.n > 0; b.n--)
		*ret = *ret << 8 | *b.p++;
	return true;
}

/* A whole TPM2B_PRIVATE and nothing else. */
static bool private_whole(struct csm_bin in)
{
	struct csm_bin content;

	return csm_tpm_take_2b(&in, CSM_TPM_PRIVATE_MAX, &content) && content.n > 0 && in.n == 0;
}

int csm_tss2_get(struct csm_bin in, struct csm_tss2 *ret, const char **why)
{
	struct csm_tss2 key = {0};
	struct csm_bin body, oid;
	int r;

	*why = "it is no TSS2 PRIVATE KEY, or damaged";
	if (!take_tag(&in, TAG_SEQUENCE, &body) || in.n != 0 || !take_tag(&body, TAG_OID, &oid) ||
		oid.n != sizeof(loadable) || memcmp(oid.p, loadable, sizeof(loadable) - 1) != 0)
		return CSM_EINVALID;
	if (oid.p[oid.n - 1] != loadable[sizeof(loadable) - 1]) {
		*why = "it is no loadable key, but an importable or sealed one";
		return CSM_EUNSUPPORTED;
	}
	if ((r = take_options(&body, &key.empty_auth, why)) != 0)
		return r;
	if (!take_parent(&body, &key.parent) || !take_tag(&body, TAG_OCTETS, &key.pub_2b) ||
		!take_tag(&body, TAG_OCTETS, &key.priv_2b) || body.n != 0 || !private_whole(key.priv_2b))
		return CSM_EINVALID;
	if ((r = csm_tpm_public_get(key.pub_2b, &key.pub)) != 0) {
		if (r == CSM_EUNSUPPORTED)
			*why = "the key is of a kind that csm has no use for";
		return r;
	}
	*ret = key;
	return 0;
}

/* ---- writing ---- */

static size_t head_len(size_t n)
{
	return n < 0x80 ? 2 : n < 0x100 ? 3 : 4;
}

static int put_head(struct csm_buf *out, uint8_t tag, size_t n)
{
	uint8_t head[4] = {tag, (uint8_t)n};

	if (n >= 0x100) {
		head[1] = 0x82;
		head[2] = (uint8_t)(n >> 8);
		head[3] = (uint8_t)n;
	} else if (n >= 0x80) {
		head[1] = 0x81;
		head[2] = (uint8_t)n;
	}
	return csm_buf_put(out, head, head_len(n));
}

static int put(struct csm_buf *out, uint8_t tag, const void *p, size_t n)
{
	int r = put_head(out, tag, n);

	return r != 0 ? r : csm_buf_put(out, p, n);
}

int csm_tss2_put(const struct csm_tss2 *key, struct csm_buf *out)
{
	static const uint8_t yes[] = {TAG_BOOLEAN, 1, 0xff};
	uint8_t parent[5] = {0, (uint8_t)(key->parent >> 24), (uint8_t)(key->parent >> 16), (uint8_t)(key->parent >> 8),
		(uint8_t)key->parent};
	size_t n;
	int r;

	/* A persistent handle, whose first bit is set. */
	if (key->parent >> 24 != 0x81 || key->pub_2b.n > CSM_TPM_PUBLIC_MAX || !private_whole(key->priv_2b))
		return CSM_EINVALID;
	n = 2 + sizeof(loadable) + 2 + sizeof(yes) + 2 + sizeof(parent) + head_len(key->pub_2b.n) + key->pub_2b.n +
		head_len(key->priv_2b.n) + key->priv_2b.n;
	if ((r = put_head(out, TAG_SEQUENCE, n)) != 0 || (r = put(out, TAG_OID, loadable, sizeof(loadable))) != 0 ||
		(r = put(out, TAG_EMPTY_AUTH, yes, sizeof(yes))) != 0 ||
		(r = put(out, TAG_INTEGER, parent, sizeof(parent))) != 0 ||
		(r = put(out, TAG_OCTETS, key->pub_2b.p, key->pub_2b.n)) != 0)
		return r;
	return put(out, TAG_OCTETS, key->priv_2b.p, key->priv_2b.n);
}
