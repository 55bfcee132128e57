/* The usual certificate, read without OpenSSL, which takes 40 us for it where this takes five: an end entity's, with extensions of
 * the kinds that nearly all have, in the one form that csm writes them in. What is not just so is left to the reader in tbs_cert.c,
 * a refusal too: this one knows only yes, and says it to nothing that the other would refuse. */
#include <string.h>
#include "daemon/pki/issue.h"
#include "daemon/pki/subjkey.h"
#include "daemon/pki/tbs_int.h"

#define SUBJECT_MAX 512u /* as text it is at most four times as long: within CSM_CERT_NAME_MAX */
#define TEXT_MAX 253u

#define TAG_BOOLEAN 0x01u
#define TAG_INTEGER 0x02u
#define TAG_BITS 0x03u
#define TAG_OCTETS 0x04u
#define TAG_OID 0x06u
#define TAG_UTF8 0x0cu
#define TAG_PRINTABLE 0x13u

#define USAGE_OF_A_CA 0x06u /* keyCertSign, cRLSign */
#define SAN_EMAIL 0x81u
#define SAN_DNS 0x82u
#define SAN_URI 0x86u
#define SAN_IP 0x87u

_Static_assert(4u * SUBJECT_MAX <= CSM_CERT_NAME_MAX, "the subject as text");
_Static_assert(TEXT_MAX + sizeof("email:") <= CSM_SAN_MAX, "a name as text");

struct quick {
	struct tbs_issuer *is;
	bool has_sans;
};

/* The next value of *rest, which has to have that tag. */
static bool take(struct csm_bin *rest, uint8_t tag, struct csm_bin *body)
{
	uint8_t found;

	return tbs_take(rest, &found, body, NULL) && found == tag;
}

/* All of v is one value with that tag. */
static bool only(struct csm_bin v, uint8_t tag, struct csm_bin *body)
{
	return take(&v, tag, body) && v.n == 0;
}

static bool same(struct csm_bin a, const void *p, size_t n)
{
	return a.n == n && memcmp(a.p, p, n) == 0;
}

static bool plain_text(struct csm_bin v)
{
	for (size_t i = 0; i < v.n; i++)
		if (v.p[i] < 0x20 || v.p[i] > 0x7e)
			return false;
	return v.n > 0 && v.n <= TEXT_MAX;
}

/* ---- extensions: each with its value ---- */

static bool end_entity(struct quick *q, struct csm_bin v)
{
	(void)q;
	return same(v, "\x30\x00", 2);
}

static bool usage(struct quick *q, struct csm_bin v)
{
	struct csm_bin bits;

	(void)q;
	/* one byte whose last bit that counts is set */
	return only(v, TAG_BITS, &bits) && bits.n == 2 && bits.p[0] < 8 && bits.p[1] != 0 && (bits.p[1] & USAGE_OF_A_CA) == 0 &&
		(bits.p[1] & ((2u << bits.p[0]) - 1)) == 1u << bits.p[0];
}

/* Purposes of PKIX, but for OCSP, whose responders are asked more of. */
static bool purposes(struct quick *q, struct csm_bin v)
{
	static const uint8_t pkix[] = {0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03};
	struct csm_bin list, oid;

	(void)q;
	if (!only(v, CSM_DER_SEQ, &list) || list.n == 0)
		return false;
	while (list.n > 0)
		if (!take(&list, TAG_OID, &oid) || oid.n != sizeof(pkix) + 1 || memcmp(oid.p, pkix, sizeof(pkix)) != 0 ||
			oid.p[sizeof(pkix)] == 0 || oid.p[sizeof(pkix)] > 8)
			return false;
	return true;
}

static bool subject_id(struct quick *q, struct csm_bin v)
{
	struct csm_bin id;

	(void)q;
	return only(v, TAG_OCTETS, &id) && id.n > 0;
}

static bool issuer_id(struct quick *q, struct csm_bin v)
{
	struct csm_bin all, id;
	struct csm_buf own;
	bool good;

	if (!only(v, CSM_DER_SEQ, &all) || !only(all, CSM_DER_CONTEXT(0), &id))
		return false;
	csm_buf_init(&own, CSM_CERT_CHAIN_MAX, false);
	good = csm_issuer_key_id(q->is->cert, &own) == 0 && same(id, csm_buf_ptr(&own), own.len);
	csm_buf_free(&own);
	return good;
}

static bool sans(struct quick *q, struct csm_bin v)
{
	struct csm_bin list, name;
	uint8_t tag;

	if (!only(v, CSM_DER_SEQ, &list) || list.n == 0)
		return false;
	while (list.n > 0) {
		if (!tbs_take(&list, &tag, &name, NULL))
			return false;
		if (tag == SAN_IP ? name.n != 4 && name.n != 16 : (tag != SAN_DNS && tag != SAN_URI && tag != SAN_EMAIL) || !plain_text(name))
			return false;
	}
	q->has_sans = true;
	return true;
}

static bool crl_url(struct quick *q, struct csm_bin v)
{
	struct csm_bin all, one, point, full, url;

	(void)q;
	return only(v, CSM_DER_SEQ, &all) && only(all, CSM_DER_SEQ, &one) && only(one, CSM_DER_CONTEXT_SEQ(0), &point) &&
		only(point, CSM_DER_CONTEXT_SEQ(0), &full) && only(full, SAN_URI, &url) && plain_text(url);
}

static bool access_urls(struct quick *q, struct csm_bin v)
{
	static const uint8_t pkix[] = {0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30};
	struct csm_bin list, one, oid;

	(void)q;
	if (!only(v, CSM_DER_SEQ, &list) || list.n == 0)
		return false;
	while (list.n > 0) {
		struct csm_bin url;

		if (!take(&list, CSM_DER_SEQ, &one) || !take(&one, TAG_OID, &oid) || oid.n != sizeof(pkix) + 1 ||
			memcmp(oid.p, pkix, sizeof(pkix)) != 0 || (oid.p[sizeof(pkix)] != 1 && oid.p[sizeof(pkix)] != 2) ||
			!only(one, SAN_URI, &url) || !plain_text(url))
			return false;
	}
	return true;
}

static const struct known {
	const char *oid;
	size_t n;
	bool may_be_critical;
	bool (*good)(struct quick *q, struct csm_bin v);
} known[] = {
	{"\x55\x1d\x13", 3, true, end_entity},
	{"\x55\x1d\x0f", 3, true, usage},
	{"\x55\x1d\x25", 3, true, purposes},
	{"\x55\x1d\x11", 3, true, sans},
	{"\x55\x1d\x0e", 3, false, subject_id},
	{"\x55\x1d\x23", 3, false, issuer_id},
	{"\x55\x1d\x1f", 3, false, crl_url},
	{"\x55\x1d\x2e", 3, false, crl_url}, /* of the delta */
	{"\x2b\x06\x01\x05\x05\x07\x01\x01", 8, false, access_urls},
};
#define KNOWN (sizeof(known) / sizeof(known[0]))
#define ISSUER_ID 5u

static bool extension(struct quick *q, struct csm_bin one, unsigned *seen)
{
	struct csm_bin oid, flag, value;
	bool critical = false;
	size_t i = 0;

	if (!take(&one, TAG_OID, &oid))
		return false;
	while (i < KNOWN && !same(oid, known[i].oid, known[i].n))
		i++;
	if (i == KNOWN || (*seen & 1u << i) != 0)
		return false;
	*seen |= 1u << i;
	if (one.n > 0 && one.p[0] == TAG_BOOLEAN) {
		if (!take(&one, TAG_BOOLEAN, &flag) || !same(flag, "\xff", 1))
			return false;
		critical = true;
	}
	return (!critical || known[i].may_be_critical) && only(one, TAG_OCTETS, &value) && known[i].good(q, value);
}

static bool extensions(struct quick *q, struct csm_bin rest)
{
	struct csm_bin outer, list, one;
	unsigned seen = 0;

	if (!only(rest, CSM_DER_CONTEXT_SEQ(3), &outer) || !only(outer, CSM_DER_SEQ, &list))
		return false;
	while (list.n > 0)
		if (!take(&list, CSM_DER_SEQ, &one) || !extension(q, one, &seen))
			return false;
	return (seen & 1u << ISSUER_ID) != 0;
}

/* ---- what stands before them ---- */

static bool serial(struct csm_bin *rest, struct csm_tbs *ret)
{
	struct csm_bin whole, n;
	uint8_t tag;

	if (!tbs_take(rest, &tag, &whole, NULL) || !tbs_number(tag, whole, &n) || n.n < TBS_SERIAL_MIN)
		return false;
	memcpy(ret->number, n.p, n.n);
	ret->number_len = n.n;
	return true;
}

static bool life(struct tbs_issuer *is, struct csm_bin v)
{
	const struct csm_tbs_key *key = is->key;
	struct csm_bin a, b;
	uint64_t from, to;
	uint8_t ta, tb;

	return tbs_take(&v, &ta, &a, NULL) && tbs_take(&v, &tb, &b, NULL) && v.n == 0 && tbs_time(ta, a, &from) && tbs_time(tb, b, &to) &&
		to > from && to - from <= key->rules->max_life.v && from <= key->now + CSM_TBS_SKEW_S && to <= is->not_after;
}

/* Attributes of X.520 in plain text, each alone; false too where there is none. */
static bool subject(struct csm_bin name)
{
	struct csm_bin set, one, oid, text;
	uint8_t tag;

	if (name.n == 0 || name.n > SUBJECT_MAX)
		return false;
	while (name.n > 0)
		if (!take(&name, CSM_DER_SET, &set) || !only(set, CSM_DER_SEQ, &one) || !take(&one, TAG_OID, &oid) || oid.n != 3 ||
			oid.p[0] != 0x55 || oid.p[1] != 0x04 || oid.p[2] < 3 || oid.p[2] > 12 || !tbs_take(&one, &tag, &text, NULL) ||
			one.n != 0 || (tag != TAG_UTF8 && tag != TAG_PRINTABLE) || !plain_text(text))
			return false;
	return true;
}

static bool no_constraints(struct tbs_issuer *is)
{
	return is->key->rules->permitted.n == 0 && is->key->rules->excluded.n == 0 &&
		X509_get_ext_by_NID(is->cert, NID_name_constraints, -1) < 0;
}

bool tbs_quick(struct tbs_issuer *is, struct csm_bin tbs, struct csm_tbs *ret)
{
	struct csm_tbs found = {.kind = CSM_TBS_CERTIFICATE};
	struct quick q = {.is = is};
	struct csm_bin all, part, name, alg, spki;
	uint8_t tag;

	if (is->cert == NULL || !no_constraints(is) || !only(tbs, CSM_DER_SEQ, &all) || !take(&all, CSM_DER_CONTEXT_SEQ(0), &part) ||
		!same(part, "\x02\x01\x02", 3) || !serial(&all, &found))
		return false;
	if (!tbs_take(&all, &tag, &part, &alg) || tag != CSM_DER_SEQ || !tbs_take(&all, &tag, &part, &name) || tag != CSM_DER_SEQ ||
		tbs_scheme(is, alg, &found.scheme) != 0 || tbs_issuer_name(is, name) != 0 || tbs_issuer_is_ca(is, KU_KEY_CERT_SIGN) != 0)
		return false;
	if (!take(&all, CSM_DER_SEQ, &part) || !life(is, part) || !take(&all, CSM_DER_SEQ, &name) ||
		!tbs_take(&all, &tag, &part, &spki) || !extensions(&q, all))
		return false;
	if (!(name.n == 0 ? q.has_sans : subject(name)) || !csm_subject_point(spki))
		return false;
	*ret = found;
	return true;
}
