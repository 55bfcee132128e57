/* A CRL that an issuer's key is asked to sign: field by field as it comes, since a list may have a hundred thousand entries. */
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include "daemon/pki/crl.h"
#include "daemon/pki/tbs_int.h"

#define ENTRY_MAX 512u /* of one entry with its extensions */
#define SIZE_LIMIT (256u * 1024u * 1024u)

struct csm_tbs_crl {
	size_t left;    /* bytes to come of the whole list */
	size_t entries; /* bytes to come of its entries */
	uint64_t this_update;
	bool removed; /* an entry takes one off: of a delta only */
	struct csm_scheme scheme;
};

/* ---- the head ---- */

static int read_times(struct csm_tbs_crl *c, struct tbs_issuer *is, struct csm_bin *at)
{
	const struct csm_tbs_key *key = is->key;
	struct csm_bin body;
	uint64_t next;
	uint8_t tag;

	if (!tbs_take(at, &tag, &body, NULL) || !tbs_time(tag, body, &c->this_update))
		return tbs_refuse(is, CSM_EINVALID, "thisUpdate is not as RFC 5280 wants it");
	if (!tbs_take(at, &tag, &body, NULL) || !tbs_time(tag, body, &next))
		return tbs_refuse(is, CSM_EINVALID, "nextUpdate is missing, or not as RFC 5280 wants it");
	if (c->this_update > key->now + CSM_TBS_SKEW_S || next <= c->this_update || next < key->now)
		return tbs_refuse(is, CSM_EINVALID, "the list is of the future, of the past, or ends before it begins");
	if (next > key->now + key->rules->max_life.v)
		return tbs_refuse(is, CSM_EDENIED, "the list holds for longer than %llu seconds",
			(unsigned long long)key->rules->max_life.v);
	return 0;
}

static int read_fields(struct csm_tbs_crl *c, struct tbs_issuer *is, struct csm_bin *at)
{
	struct csm_bin body, whole;
	uint8_t tag;
	int r;

	if (!tbs_take(at, &tag, &body, NULL) || tag != V_ASN1_INTEGER || body.n != 1 || body.p[0] != X509_CRL_VERSION_2)
		return tbs_refuse(is, CSM_EINVALID, "not a TBSCertList of version 2");
	if (!tbs_take(at, &tag, &body, &whole) || !tbs_is_der(whole))
		return tbs_refuse(is, CSM_EINVALID, "not a TBSCertList, or not in DER");
	if ((r = tbs_scheme(is, whole, &c->scheme)) != 0)
		return r;
	if (!tbs_take(at, &tag, &body, &whole) || !tbs_is_der(whole))
		return tbs_refuse(is, CSM_EINVALID, "not a TBSCertList, or not in DER");
	return (r = tbs_issuer_name(is, whole)) != 0 ? r : read_times(c, is, at);
}

/* Up to the first entry: what follows the times is the entries' own head, or nothing. */
static int read_head(struct csm_tbs_crl *c, struct tbs_issuer *is, struct csm_bin head)
{
	struct csm_bin at = head;
	size_t front, n;
	uint8_t tag;
	int r;

	if (!tbs_head(at, &tag, &front, &n) || tag != CSM_DER_SEQ || n > SIZE_LIMIT || n < at.n - front)
		return tbs_refuse(is, CSM_EINVALID, "not a TBSCertList, or not in DER");
	at = (struct csm_bin){at.p + front, at.n - front};
	c->left = n - at.n;
	if ((r = read_fields(c, is, &at)) != 0)
		return r;
	if (at.n == 0)
		return 0;
	if (!tbs_head(at, &tag, &front, &n) || tag != CSM_DER_SEQ || front != at.n || n == 0 || n > c->left)
		return tbs_refuse(is, CSM_EINVALID, "what follows the dates is not the list of entries, and that alone");
	c->entries = n;
	return 0;
}

/* ---- entries ---- */

/* reasonCode and invalidityDate; a list about other issuers' certificates would say so here, and is not signed. */
static const char *read_entry_ext(struct csm_tbs_crl *c, struct csm_bin body)
{
	static const uint8_t reason_oid[] = {0x55, 0x1d, 0x15}, date_oid[] = {0x55, 0x1d, 0x18};
	struct csm_bin oid, value;
	uint8_t tag, reason;

	if (!tbs_take(&body, &tag, &oid, NULL) || tag != V_ASN1_OBJECT || oid.n != sizeof(reason_oid) ||
		!tbs_take(&body, &tag, &value, NULL) || tag != V_ASN1_OCTET_STRING || body.n != 0 || !tbs_is_der(value))
		return "an entry has a critical, an unknown or a malformed extension";
	if (memcmp(oid.p, date_oid, sizeof(date_oid)) == 0)
		return value.p[0] == V_ASN1_GENERALIZEDTIME ? NULL : "an entry's invalidityDate is none";
	if (memcmp(oid.p, reason_oid, sizeof(reason_oid)) != 0)
		return "an entry has an unknown extension";
	if (value.n != 3 || value.p[0] != V_ASN1_ENUMERATED)
		return "an entry's reason is none";
	reason = value.p[2];
	c->removed = c->removed || reason == CSM_REASON_REMOVE_FROM_CRL;
	return reason != CSM_REASON_UNSPECIFIED && csm_reason_name(reason) != NULL ? NULL : "an entry's reason is none";
}

static const char *read_entry(struct csm_tbs_crl *c, struct csm_bin entry)
{
	struct csm_bin body, exts, number, ext;
	const char *why = NULL;
	uint64_t when;
	uint8_t tag;

	if (!tbs_take(&entry, &tag, &body, NULL) || !tbs_number(tag, body, &number))
		return "an entry's serial number has not 1 to 20 bytes, or is not positive";
	if (!tbs_take(&entry, &tag, &body, NULL) || !tbs_time(tag, body, &when) || when > c->this_update + CSM_TBS_SKEW_S)
		return "an entry's date is none, or of the future";
	if (entry.n == 0)
		return NULL;
	if (!tbs_take(&entry, &tag, &exts, NULL) || tag != CSM_DER_SEQ || entry.n != 0 || exts.n == 0)
		return "an entry is not well formed";
	while (exts.n > 0 && why == NULL)
		why = tbs_take(&exts, &tag, &ext, NULL) && tag == CSM_DER_SEQ ? read_entry_ext(c, ext) :
										"an entry's extension is not well formed";
	return why;
}

static const char *read_entries(struct csm_tbs_crl *c, struct csm_bin in)
{
	const char *why = NULL;
	struct csm_bin body;
	uint8_t tag;

	if (in.n > c->entries)
		return "more entries than the list's head said";
	c->entries -= in.n;
	c->left -= in.n;
	while (in.n > 0 && why == NULL)
		why = tbs_take(&in, &tag, &body, NULL) && tag == CSM_DER_SEQ && body.n <= ENTRY_MAX ? read_entry(c, body) :
			"an entry is not whole, or not in DER";
	return why;
}

/* ---- the tail ---- */

static int check_number(struct tbs_issuer *is, const STACK_OF(X509_EXTENSION) *exts, struct csm_tbs *tbs)
{
	ASN1_INTEGER *number = X509V3_get_d2i(exts, NID_crl_number, NULL, NULL);
	size_t n = number != NULL ? (size_t)ASN1_STRING_length(number) : 0;
	int r = 0;

	if (n == 0 || ASN1_STRING_type(number) != V_ASN1_INTEGER || n > CSM_TBS_NUMBER_MAX ||
		(n == 1 && ASN1_STRING_get0_data(number)[0] == 0))
		r = tbs_refuse(is, CSM_EINVALID, "the CRL number is missing, zero, or longer than 20 bytes");
	else {
		memcpy(tbs->number, ASN1_STRING_get0_data(number), n);
		tbs->number_len = n;
	}
	ASN1_INTEGER_free(number);
	return r;
}

static int check_tail(const struct csm_tbs_crl *c, struct tbs_issuer *is, const STACK_OF(X509_EXTENSION) *exts, struct csm_tbs *tbs)
{
	static const int critical[] = {NID_delta_crl, NID_undef};
	AUTHORITY_KEYID *akid;
	int r;

	if ((r = tbs_extensions(is, exts, critical)) != 0 || (r = check_number(is, exts, tbs)) != 0)
		return r;
	if (c->removed && X509v3_get_ext_by_NID(exts, NID_delta_crl, -1) < 0)
		return tbs_refuse(is, CSM_EINVALID, "an entry is taken off a list that is no delta");
	/* By it a list may be one of other certificates than it seems. */
	if (X509v3_get_ext_by_NID(exts, NID_issuing_distribution_point, -1) >= 0)
		return tbs_refuse(is, CSM_EDENIED, "a list with an issuing distribution point");
	akid = X509V3_get_d2i(exts, NID_authority_key_identifier, NULL, NULL);
	r = tbs_authority(is, akid);
	AUTHORITY_KEYID_free(akid);
	return r;
}

static int read_tail(const struct csm_tbs_crl *c, struct tbs_issuer *is, struct csm_bin tail, struct csm_tbs *tbs)
{
	STACK_OF(X509_EXTENSION) *exts = NULL;
	struct csm_bin body = {NULL, 0}, at = tail;
	const unsigned char *p;
	unsigned char *again = NULL;
	uint8_t tag = 0;
	int n, r = CSM_EINVALID;

	if (c->entries != 0 || tail.n != c->left)
		return tbs_refuse(is, r, "the list is not as long as its head said");
	if (tail.n == 0 || !tbs_is_der(tail) || !tbs_take(&at, &tag, &body, NULL) || tag != CSM_DER_CONTEXT_SEQ(0))
		return tbs_refuse(is, r, "the list's extensions are missing, or not in DER");
	p = body.p;
	exts = d2i_X509_EXTENSIONS(NULL, &p, (long)body.n);
	n = exts != NULL && p == body.p + body.n ? i2d_X509_EXTENSIONS(exts, &again) : -1;
	if (n > 0 && (size_t)n == body.n && memcmp(again, body.p, body.n) == 0)
		r = check_tail(c, is, exts, tbs);
	else
		r = tbs_refuse(is, r, "the list's extensions are not in DER");
	OPENSSL_free(again);
	sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
	return r;
}

/* ---- the three steps ---- */

int csm_tbs_crl_begin(const struct csm_tbs_key *key, struct csm_bin head, struct csm_tbs_crl **ret, struct csm_tbs *tbs,
	char why[static CSM_TBS_WHY])
{
	struct csm_tbs_crl *c = calloc(1, sizeof(*c));
	struct tbs_issuer is;
	int r = tbs_issuer_open(&is, key, why);

	if (r == 0 && c == NULL)
		r = CSM_ENOMEM;
	if (r == 0 && (r = tbs_issuer_is_ca(&is, KU_CRL_SIGN)) == 0)
		r = read_head(c, &is, head);
	tbs_issuer_close(&is);
	if (r == 0) {
		*tbs = (struct csm_tbs){.kind = CSM_TBS_CRL, .scheme = c->scheme};
		*ret = c;
		c = NULL;
	}
	free(c);
	return r;
}

int csm_tbs_crl_entries(struct csm_tbs_crl *c, struct csm_bin entries, char why[static CSM_TBS_WHY])
{
	struct tbs_issuer is = {.why = why};
	const char *fault = read_entries(c, entries);

	why[0] = '\0';
	return fault == NULL ? 0 : tbs_refuse(&is, CSM_EINVALID, "%s", fault);
}

int csm_tbs_crl_end(struct csm_tbs_crl *c, const struct csm_tbs_key *key, struct csm_bin tail, struct csm_tbs *tbs,
	char why[static CSM_TBS_WHY])
{
	struct csm_tbs found = {.kind = CSM_TBS_CRL, .scheme = c->scheme};
	struct tbs_issuer is;
	int r;

	if ((r = tbs_issuer_open(&is, key, why)) == 0 && (r = tbs_issuer_is_ca(&is, KU_CRL_SIGN)) == 0)
		r = read_tail(c, &is, tail, &found);
	tbs_issuer_close(&is);
	if (r == 0)
		*tbs = found;
	return r;
}

void csm_tbs_crl_free(struct csm_tbs_crl *c)
{
	free(c);
}

/* Where the entries begin and end, in a list that is there as a whole. */
static bool split(struct csm_bin tbs, size_t *from, size_t *to)
{
	struct csm_bin at = tbs, body;
	size_t head, n;
	uint8_t tag;

	if (!tbs_head(at, &tag, &head, &n) || n != at.n - head)
		return false;
	at = (struct csm_bin){at.p + head, n};
	for (int field = 0; field < 5; field++)
		if (!tbs_take(&at, &tag, &body, NULL))
			return false;
	*from = *to = tbs.n - at.n;
	if (at.n == 0 || at.p[0] != CSM_DER_SEQ)
		return true;
	if (!tbs_head(at, &tag, &head, &n) || n > at.n - head)
		return false;
	*from += head;
	*to = *from + n;
	return true;
}

int tbs_crl_whole(const struct csm_tbs_key *key, struct csm_bin tbs, struct csm_tbs *ret, char why[static CSM_TBS_WHY])
{
	struct csm_tbs_crl *c = NULL;
	struct tbs_issuer is = {.why = why};
	size_t from, to;
	int r;

	why[0] = '\0';
	if (!split(tbs, &from, &to))
		return tbs_refuse(&is, CSM_EINVALID, "not a TBSCertList, or not in DER");
	if ((r = csm_tbs_crl_begin(key, (struct csm_bin){tbs.p, from}, &c, ret, why)) == 0 &&
		(r = csm_tbs_crl_entries(c, (struct csm_bin){tbs.p + from, to - from}, why)) == 0)
		r = csm_tbs_crl_end(c, key, (struct csm_bin){tbs.p + to, tbs.n - to}, ret, why);
	csm_tbs_crl_free(c);
	return r;
}
