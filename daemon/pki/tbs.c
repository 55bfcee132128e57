#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <openssl/err.h>
#include "daemon/pki/issue.h"
#include "daemon/pki/tbs_int.h"

#define LABEL_MAX 64

int tbs_refuse(struct tbs_issuer *is, int r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(is->why, CSM_TBS_WHY, fmt, ap);
	va_end(ap);
	return r;
}

int csm_tbs_kind_parse(struct csm_str s, enum csm_tbs_kind *ret)
{
	static const char *const names[] = {
		[CSM_TBS_CERTIFICATE] = "certificate", [CSM_TBS_CRL] = "crl", [CSM_TBS_OCSP] = "ocsp"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (csm_str_eq(s, names[i])) {
			*ret = (enum csm_tbs_kind)i;
			return 0;
		}
	return CSM_EINVALID;
}

int csm_tbs_rules_check(const struct csm_msg_issuer_rules *rules, char why[static CSM_TBS_WHY])
{
	NAME_CONSTRAINTS *nc = NULL;
	int r;

	why[0] = '\0';
	if (rules->max_life.v == 0) {
		(void)snprintf(why, CSM_TBS_WHY, "max_life: what has no life cannot be issued");
		return CSM_EINVALID;
	}
	r = csm_constraints_new(rules->permitted.v, rules->permitted.n, rules->excluded.v, rules->excluded.n, &nc);
	NAME_CONSTRAINTS_free(nc);
	if (r == CSM_EINVALID)
		(void)snprintf(why, CSM_TBS_WHY, "permitted, excluded: dns:HOST, dns:.HOST, ip:NETWORK/BITS, uri:HOST or email:HOST");
	ERR_clear_error();
	return r;
}

/* ---- the issuer ---- */

bool tbs_seconds(const ASN1_TIME *t, uint64_t *ret)
{
	struct tm tm;
	time_t at;

	if (ASN1_TIME_to_tm(t, &tm) != 1 || (at = timegm(&tm)) < 0)
		return false;
	*ret = (uint64_t)at;
	return true;
}

bool tbs_is_responder(X509 *x)
{
	uint32_t eku = X509_get_extended_key_usage(x);

	return eku != UINT32_MAX && (eku & XKU_OCSP_SIGN) != 0;
}

int tbs_issuer_open(struct tbs_issuer *is, const struct csm_tbs_key *key, char *why)
{
	const unsigned char *at = key->chain.p;
	size_t n = key->chain.n;
	uint64_t from;

	why[0] = '\0';
	*is = (struct tbs_issuer){.key = key, .why = why};
	if (n == 0)
		return 0;
	if (key->cert != NULL) {
		is->cert = key->cert;
		is->above = key->above;
		(void)X509_up_ref(is->cert);
		if (is->above != NULL)
			(void)X509_up_ref(is->above);
		at += n;
	} else {
		is->cert = d2i_X509(NULL, &at, (long)n);
	}
	if (is->cert == NULL || !tbs_seconds(X509_get0_notBefore(is->cert), &from) ||
		!tbs_seconds(X509_get0_notAfter(is->cert), &is->not_after))
		return tbs_refuse(is, CSM_ESTATE, "the certificate beside the key cannot be read");
	if (at < key->chain.p + n && (is->above = d2i_X509(NULL, &at, (long)(n - (size_t)(at - key->chain.p)))) == NULL)
		return tbs_refuse(is, CSM_ESTATE, "the chain beside the key cannot be read");
	if (key->now > is->not_after)
		return tbs_refuse(is, CSM_ESTATE, "the issuer's certificate has expired");
	if (key->now + CSM_TBS_SKEW_S < from)
		return tbs_refuse(is, CSM_ESTATE, "the issuer's certificate is not valid yet");
	is->is_ca = X509_check_ca(is->cert) == 1;
	return 0;
}

void tbs_issuer_close(struct tbs_issuer *is)
{
	X509_free(is->cert);
	X509_free(is->above);
	ERR_clear_error();
}

int tbs_issuer_is_ca(struct tbs_issuer *is, uint32_t usage)
{
	if (is->cert == NULL)
		return tbs_refuse(is, CSM_ESTATE, "no certificate is installed beside the key");
	if (!is->is_ca)
		return tbs_refuse(is, CSM_ESTATE, "the certificate beside the key is not a CA's");
	if ((X509_get_key_usage(is->cert) & usage) == 0)
		return tbs_refuse(is, CSM_EDENIED, "the key usage of the issuer's certificate does not allow it");
	return 0;
}

int tbs_scheme(struct tbs_issuer *is, struct csm_bin der, struct csm_scheme *ret)
{
	const unsigned char *at = der.p;
	X509_ALGOR *alg = d2i_X509_ALGOR(NULL, &at, (long)der.n);
	int r = CSM_EINVALID;

	if (alg != NULL && at == der.p + der.n)
		r = csm_sigalg_scheme(alg, ret);
	X509_ALGOR_free(alg);
	if (r == CSM_ENOMEM)
		return r;
	if (r != 0 || csm_scheme_check(is->key->alg, ret) != 0 || ret->kind == CSM_SCHEME_RSA_OAEP)
		return tbs_refuse(is, CSM_EINVALID, "the signature algorithm in it is none of this key");
	return 0;
}

int tbs_issuer_name(struct tbs_issuer *is, struct csm_bin name)
{
	unsigned char *der = NULL;
	int n = i2d_X509_NAME(X509_get_subject_name(is->cert), &der);
	bool same = n > 0 && (size_t)n == name.n && memcmp(der, name.p, name.n) == 0;

	OPENSSL_free(der);
	return same ? 0 : tbs_refuse(is, CSM_EDENIED, "its issuer is not the subject of the certificate beside the key");
}

int tbs_authority(struct tbs_issuer *is, const AUTHORITY_KEYID *id)
{
	struct csm_buf own;
	bool same;
	int r;

	if (id == NULL || id->keyid == NULL)
		return tbs_refuse(is, CSM_EINVALID, "the authority key identifier is missing");
	if (id->issuer != NULL || id->serial != NULL)
		return tbs_refuse(is, CSM_EINVALID, "the authority key identifier names more than a key");
	csm_buf_init(&own, CSM_CERT_CHAIN_MAX, false);
	if ((r = csm_issuer_key_id(is->cert, &own)) != 0) {
		csm_buf_free(&own);
		return r;
	}
	same = own.len == (size_t)ASN1_STRING_length(id->keyid) &&
		memcmp(csm_buf_ptr(&own), ASN1_STRING_get0_data(id->keyid), own.len) == 0;
	csm_buf_free(&own);
	return same ? 0 : tbs_refuse(is, CSM_EDENIED, "its authority key identifier is not the issuer's");
}

/* A default that is written out: DER leaves it away. What OpenSSL knows it writes once more. */
static bool ext_is_der(X509_EXTENSION *e)
{
	const ASN1_OCTET_STRING *data = X509_EXTENSION_get_data(e);
	struct csm_bin v = {ASN1_STRING_get0_data(data), (size_t)ASN1_STRING_length(data)}, body, part = {NULL, 0};
	const X509V3_EXT_METHOD *m = X509V3_EXT_get(e);
	unsigned char *der = NULL, *again = NULL;
	void *value = NULL;
	uint8_t tag = 0;
	int n = i2d_X509_EXTENSION(e, &der), len;
	struct csm_bin whole = {der, n > 0 ? (size_t)n : 0};
	/* the object identifier, then critical or the value */
	bool same = tbs_is_der(v) && tbs_take(&whole, &tag, &body, NULL) && tbs_take(&body, &tag, &part, NULL) &&
		tbs_take(&body, &tag, &part, NULL) && (tag != V_ASN1_BOOLEAN || part.p[0] == 0xff);

	if (same && m != NULL && m->it != NULL && (value = X509V3_EXT_d2i(e)) != NULL) {
		len = ASN1_item_i2d(value, &again, ASN1_ITEM_ptr(m->it));
		same = len > 0 && (size_t)len == v.n && memcmp(again, v.p, v.n) == 0;
		ASN1_item_free(value, ASN1_ITEM_ptr(m->it));
	}
	OPENSSL_free(der);
	OPENSSL_free(again);
	return same;
}

/* An unknown one has the number that ends the list. */
static bool is_among(int nid, const int *list)
{
	while (*list != NID_undef && *list != nid)
		list++;
	return nid != NID_undef && *list == nid;
}

int tbs_extensions(struct tbs_issuer *is, const STACK_OF(X509_EXTENSION) *exts, const int *allowed)
{
	for (int i = 0; i < sk_X509_EXTENSION_num(exts); i++) {
		X509_EXTENSION *e = sk_X509_EXTENSION_value(exts, i);
		const ASN1_OBJECT *obj = X509_EXTENSION_get_object(e);
		int nid = OBJ_obj2nid(obj);
		char oid[LABEL_MAX] = "?";

		(void)OBJ_obj2txt(oid, sizeof(oid), obj, 1);
		if (!ext_is_der(e))
			return tbs_refuse(is, CSM_EINVALID, "extension %s is not in DER", oid);
		if (X509v3_get_ext_by_OBJ(exts, obj, i) >= 0)
			return tbs_refuse(is, CSM_EINVALID, "extension %s stands there twice", oid);
		if (X509_EXTENSION_get_critical(e) == 1 && !is_among(nid, allowed))
			return tbs_refuse(is, CSM_EDENIED, "extension %s is critical, and not known here", oid);
	}
	return 0;
}

int tbs_framed(struct csm_bin tbs, const X509_ALGOR *alg, struct csm_buf *out)
{
	struct csm_der d = {out, 0};
	size_t at = csm_der_open(&d, CSM_DER_SEQ);

	csm_der_raw(&d, tbs.p, tbs.n);
	csm_der_item(&d, ASN1_ITEM_rptr(X509_ALGOR), alg);
	csm_der_bits(&d, "", 0);
	csm_der_close(&d, at);
	return d.r;
}

/* ---- any of the three ---- */

int csm_tbs_check(const struct csm_tbs_key *key, enum csm_tbs_kind kind, struct csm_bin tbs, struct csm_tbs *ret,
	char why[static CSM_TBS_WHY])
{
	struct csm_tbs found = {.kind = kind};
	struct tbs_issuer is;
	int r;

	if (kind == CSM_TBS_CRL) {
		if ((r = tbs_crl_whole(key, tbs, &found, why)) == 0)
			*ret = found;
		return r;
	}
	r = tbs_issuer_open(&is, key, why);
	if (r == 0 && !tbs_is_der(tbs))
		r = tbs_refuse(&is, CSM_EINVALID, "not one value in DER");
	if (r == 0)
		r = kind == CSM_TBS_CERTIFICATE ? tbs_certificate(&is, tbs, &found) : tbs_ocsp(&is, tbs, &found);
	tbs_issuer_close(&is);
	if (r == 0)
		*ret = found;
	return r;
}
