/* A certificate that an issuer's key is asked to sign. */
#include <string.h>
#include <openssl/err.h>
#include "daemon/pki/cert.h"
#include "daemon/pki/issue.h"
#include "daemon/pki/plain.h"
#include "daemon/pki/subjkey.h"
#include "daemon/pki/tbs_int.h"

struct reading {
	struct tbs_issuer *is;
	X509 *x;
	uint64_t from, to;
	bool self; /* the issuer's own, by itself */
	bool ca;
	uint32_t usage;
};

/* The bytes once more, from what OpenSSL understood of them: a default that is written out, a name in another form, and it
 * is another text. */
static int parse(struct reading *rd, struct csm_bin tbs)
{
	X509_ALGOR *none = X509_ALGOR_new();
	struct csm_buf framed;
	const unsigned char *at;
	unsigned char *again = NULL;
	bool same = false;
	int n, r = CSM_ENOMEM;

	csm_buf_init(&framed, CSM_MESSAGE_MAX, false);
	if (none == NULL || X509_ALGOR_set0(none, OBJ_nid2obj(NID_ED25519), V_ASN1_UNDEF, NULL) != 1 ||
		(r = tbs_framed(tbs, none, &framed)) != 0)
		goto out;
	at = csm_buf_ptr(&framed);
	/* an issuer's own is rare, and asked more of */
	rd->x = rd->self ? d2i_X509(NULL, &at, (long)framed.len) : csm_plain_d2i(&at, (long)framed.len, ASN1_ITEM_rptr(X509));
	if (rd->x != NULL && (n = i2d_re_X509_tbs(rd->x, &again)) > 0)
		same = (size_t)n == tbs.n && memcmp(again, tbs.p, tbs.n) == 0;
	r = same ? 0 : tbs_refuse(rd->is, CSM_EINVALID, "not a TBSCertificate, or not in DER");
out:
	OPENSSL_free(again);
	X509_ALGOR_free(none);
	csm_buf_free(&framed);
	return r;
}

static int check_front(struct reading *rd, struct csm_tbs *ret)
{
	const ASN1_INTEGER *serial = X509_get0_serialNumber(rd->x);
	const ASN1_BIT_STRING *uid[2];
	unsigned char *der = NULL;
	size_t n;
	int len, r;

	if (X509_get_version(rd->x) != X509_VERSION_3)
		return tbs_refuse(rd->is, CSM_EINVALID, "it is not of version 3");
	X509_get0_uids(rd->x, &uid[0], &uid[1]);
	if (uid[0] != NULL || uid[1] != NULL)
		return tbs_refuse(rd->is, CSM_EINVALID, "it has unique identifiers, which nobody has");
	n = (size_t)ASN1_STRING_length(serial);
	if (ASN1_STRING_type(serial) != V_ASN1_INTEGER || n < TBS_SERIAL_MIN || n > CSM_TBS_NUMBER_MAX ||
		(n == CSM_TBS_NUMBER_MAX && ASN1_STRING_get0_data(serial)[0] >= 0x80))
		return tbs_refuse(rd->is, CSM_EINVALID, "its serial number has not 8 to 20 bytes, or is negative");
	memcpy(ret->number, ASN1_STRING_get0_data(serial), n);
	ret->number_len = n;
	len = i2d_X509_ALGOR(X509_get0_tbs_sigalg(rd->x), &der);
	if (len <= 0)
		return CSM_ENOMEM;
	r = tbs_scheme(rd->is, (struct csm_bin){der, (size_t)len}, &ret->scheme);
	OPENSSL_free(der);
	return r;
}

static int check_time(struct reading *rd, const ASN1_TIME *t, uint64_t *ret)
{
	struct csm_bin text = {ASN1_STRING_get0_data(t), (size_t)ASN1_STRING_length(t)};

	return tbs_time((uint8_t)ASN1_STRING_type(t), text, ret) ? 0 :
		tbs_refuse(rd->is, CSM_EINVALID, "its dates are not as RFC 5280 wants them");
}

static int check_life(struct reading *rd)
{
	const struct csm_tbs_key *key = rd->is->key;
	uint64_t most = rd->self ? CSM_TBS_SELF_LIFE_MAX : key->rules->max_life.v;
	int r;

	if ((r = check_time(rd, X509_get0_notBefore(rd->x), &rd->from)) != 0 ||
		(r = check_time(rd, X509_get0_notAfter(rd->x), &rd->to)) != 0)
		return r;
	if (rd->to <= rd->from)
		return tbs_refuse(rd->is, CSM_EINVALID, "it ends before it begins");
	if (rd->to - rd->from > most)
		return tbs_refuse(rd->is, CSM_EDENIED, "its life is longer than %llu seconds", (unsigned long long)most);
	/* Else a life of the longest kind could be had for any year. */
	if (rd->from > key->now + CSM_TBS_SKEW_S)
		return tbs_refuse(rd->is, CSM_EDENIED, "it begins in the future");
	if (!rd->self && rd->to > rd->is->not_after)
		return tbs_refuse(rd->is, CSM_EDENIED, "it would outlive its issuer");
	return 0;
}

static bool same_name(const X509_NAME *a, const X509_NAME *b)
{
	unsigned char *x = NULL, *y = NULL;
	int n = i2d_X509_NAME(a, &x), m = i2d_X509_NAME(b, &y);
	bool same = n > 0 && n == m && memcmp(x, y, (size_t)n) == 0;

	OPENSSL_free(x);
	OPENSSL_free(y);
	return same;
}

static int check_issuer(struct reading *rd)
{
	unsigned char *der = NULL;
	int n, r;

	if (!rd->self) {
		n = i2d_X509_NAME(X509_get_issuer_name(rd->x), &der);
		r = n <= 0 ? CSM_ENOMEM : tbs_issuer_name(rd->is, (struct csm_bin){der, (size_t)n});
		OPENSSL_free(der);
		return r != 0 ? r : tbs_issuer_is_ca(rd->is, KU_KEY_CERT_SIGN);
	}
	if (!same_name(X509_get_issuer_name(rd->x), X509_get_subject_name(rd->x)) ||
		X509_NAME_entry_count(X509_get_subject_name(rd->x)) == 0)
		return tbs_refuse(rd->is, CSM_ESTATE,
			"no certificate is installed beside the key: until then it signs only its own, self-signed");
	n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(rd->x), &der);
	r = n > 0 && (size_t)n == rd->is->key->spki.n && memcmp(der, rd->is->key->spki.p, (size_t)n) == 0 ? 0 :
		tbs_refuse(rd->is, CSM_EDENIED, "self-signed, but with another key than the issuer's");
	OPENSSL_free(der);
	return r;
}

static int check_subject(struct reading *rd)
{
	char why[CSM_SUBJKEY_WHY];
	struct csm_buf text;
	int r;

	if (!csm_subject_key_quick(X509_get_X509_PUBKEY(rd->x), NULL) && rd->is->key->quick)
		return CSM_EBUSY;
	if (csm_subject_key(X509_get_X509_PUBKEY(rd->x), NULL, why) != 0)
		return tbs_refuse(rd->is, CSM_EDENIED, "%s", why);
	csm_buf_init(&text, CSM_CERT_NAME_MAX, false);
	r = csm_name_text(X509_get_subject_name(rd->x), &text);
	csm_buf_free(&text);
	return r == 0 || r == CSM_ENOMEM ? r : tbs_refuse(rd->is, CSM_EINVALID, "its subject is too long, or no text");
}

/* ---- what it may be used for ---- */

static int read_usage(struct reading *rd)
{
	ASN1_BIT_STRING *ku = X509_get_ext_d2i(rd->x, NID_key_usage, NULL, NULL);

	if (ku == NULL)
		return X509_get_ext_by_NID(rd->x, NID_key_usage, -1) < 0 ? 0 :
			tbs_refuse(rd->is, CSM_EINVALID, "its key usage cannot be read");
	/* of a list of names for bits DER leaves the zeros at its end away */
	if (ku->length == 0 || ku->data[ku->length - 1] == 0) {
		ASN1_BIT_STRING_free(ku);
		return tbs_refuse(rd->is, CSM_EINVALID, "its key usage says nothing, or is not in DER");
	}
	for (int i = 0; i < ku->length && i < 2; i++)
		rd->usage |= (uint32_t)ku->data[i] << 8 * i;
	ASN1_BIT_STRING_free(ku);
	return 0;
}

/* How many CAs may stand below one that this issuer makes; -1: it makes none. */
static long path_below(const struct reading *rd)
{
	long most = (long)rd->is->key->rules->path_len.v, own;

	if (rd->self)
		return most;
	own = X509_get_pathlen(rd->is->cert);
	return (own >= 0 && own < most ? own : most) - 1;
}

static int check_ca(struct reading *rd, const BASIC_CONSTRAINTS *bc)
{
	long most = path_below(rd), path;
	int at = X509_get_ext_by_NID(rd->x, NID_basic_constraints, -1);

	if (most < 0)
		return tbs_refuse(rd->is, CSM_EDENIED, "a CA's certificate: the path length of this issuer allows none below it");
	if (X509_EXTENSION_get_critical(X509_get_ext(rd->x, at)) != 1)
		return tbs_refuse(rd->is, CSM_EINVALID, "a CA's basic constraints have to be critical");
	path = bc->pathlen != NULL ? ASN1_INTEGER_get(bc->pathlen) : -1;
	if (path < 0 || path > most)
		return tbs_refuse(rd->is, CSM_EDENIED, "a CA's certificate: its path length is not given, or more than %ld", most);
	if ((rd->usage & KU_KEY_CERT_SIGN) == 0)
		return tbs_refuse(rd->is, CSM_EINVALID, "a CA's certificate without the key usage keyCertSign");
	return 0;
}

static int check_basic(struct reading *rd)
{
	BASIC_CONSTRAINTS *bc = X509_get_ext_d2i(rd->x, NID_basic_constraints, NULL, NULL);
	int r = 0;

	if (bc == NULL && X509_get_ext_by_NID(rd->x, NID_basic_constraints, -1) >= 0)
		return tbs_refuse(rd->is, CSM_EINVALID, "its basic constraints cannot be read");
	rd->ca = bc != NULL && bc->ca != 0;
	if (rd->ca)
		r = check_ca(rd, bc);
	else if (rd->self)
		r = tbs_refuse(rd->is, CSM_EDENIED, "the issuer's own certificate is not a CA's");
	else if (bc != NULL && bc->pathlen != NULL)
		r = tbs_refuse(rd->is, CSM_EINVALID, "a path length, but no CA");
	else if ((rd->usage & (KU_KEY_CERT_SIGN | KU_CRL_SIGN)) != 0)
		r = tbs_refuse(rd->is, CSM_EDENIED, "the key usage keyCertSign or cRLSign, but no CA");
	BASIC_CONSTRAINTS_free(bc);
	return r;
}

/* Whoever may answer for the issuer can make revoked certificates good again. */
static int check_ekus(struct reading *rd)
{
	EXTENDED_KEY_USAGE *ekus = X509_get_ext_d2i(rd->x, NID_ext_key_usage, NULL, NULL);
	bool ocsp = false;

	if (ekus == NULL)
		return X509_get_ext_by_NID(rd->x, NID_ext_key_usage, -1) < 0 ? 0 :
			tbs_refuse(rd->is, CSM_EINVALID, "its extended key usage cannot be read");
	for (int i = 0; i < sk_ASN1_OBJECT_num(ekus); i++)
		ocsp = ocsp || OBJ_obj2nid(sk_ASN1_OBJECT_value(ekus, i)) == NID_OCSP_sign;
	EXTENDED_KEY_USAGE_free(ekus);
	if (ocsp && rd->ca)
		return tbs_refuse(rd->is, CSM_EDENIED, "a CA, and an OCSP responder as well");
	if (ocsp && rd->to - rd->from > CSM_TBS_OCSP_LIFE_MAX)
		return tbs_refuse(rd->is, CSM_EDENIED, "an OCSP responder's life is at most %u days", CSM_TBS_OCSP_LIFE_MAX / 86400);
	return 0;
}

static int check_key_ids(struct reading *rd)
{
	AUTHORITY_KEYID *akid = X509_get_ext_d2i(rd->x, NID_authority_key_identifier, NULL, NULL);
	const ASN1_OCTET_STRING *own = X509_get0_subject_key_id(rd->x);
	int r = 0;

	if (akid == NULL && X509_get_ext_by_NID(rd->x, NID_authority_key_identifier, -1) >= 0)
		return tbs_refuse(rd->is, CSM_EINVALID, "its authority key identifier cannot be read");
	if (!rd->self)
		r = tbs_authority(rd->is, akid);
	else if (akid != NULL && (akid->keyid == NULL || own == NULL || ASN1_OCTET_STRING_cmp(akid->keyid, own) != 0 ||
					 akid->issuer != NULL || akid->serial != NULL))
		r = tbs_refuse(rd->is, CSM_EINVALID, "self-signed, but its authority key identifier is another key's");
	AUTHORITY_KEYID_free(akid);
	return r;
}

static int check_extensions(struct reading *rd)
{
	static const int critical[] = {NID_basic_constraints, NID_key_usage, NID_ext_key_usage, NID_subject_alt_name,
		NID_name_constraints, NID_certificate_policies, NID_undef};
	/* By these old forms some take a certificate for a CA's, or for one that may make more. */
	static const int never[] = {NID_netscape_cert_type, NID_proxyCertInfo};
	int r;

	if ((r = tbs_extensions(rd->is, X509_get0_extensions(rd->x), critical)) != 0)
		return r;
	for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++)
		if (X509_get_ext_by_NID(rd->x, never[i], -1) >= 0)
			return tbs_refuse(rd->is, CSM_EDENIED, "extension %s is not for certificates from here", OBJ_nid2sn(never[i]));
	if ((X509_get_extension_flags(rd->x) & EXFLAG_INVALID) != 0)
		return tbs_refuse(rd->is, CSM_EINVALID, "an extension is not well formed");
	if ((r = read_usage(rd)) != 0 || (r = check_basic(rd)) != 0 || (r = check_ekus(rd)) != 0)
		return r;
	return check_key_ids(rd);
}

int tbs_certificate(struct tbs_issuer *is, struct csm_bin tbs, struct csm_tbs *ret)
{
	struct reading rd = {.is = is, .self = is->cert == NULL};
	int r;

	if (is->key->quick && tbs_quick(is, tbs, ret))
		return 0;
	is->why[0] = '\0';
	if (rd.self && is->key->quick)
		return CSM_EBUSY;
	if ((r = parse(&rd, tbs)) == 0 && (r = check_front(&rd, ret)) == 0 && (r = check_issuer(&rd)) == 0 &&
		(r = check_life(&rd)) == 0 && (r = check_extensions(&rd)) == 0 && (r = check_subject(&rd)) == 0)
		r = tbs_names(is, rd.x, rd.ca);
	X509_free(rd.x);
	return r;
}
