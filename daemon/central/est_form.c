#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <openssl/err.h>
#include "daemon/central/est.h"

bool est_type_is(struct csm_str value, const char *type)
{
	size_t n = strlen(type);

	while (value.n > 0 && (value.p[0] == ' ' || value.p[0] == '\t'))
		value = (struct csm_str){value.p + 1, value.n - 1};
	if (value.n < n || strncasecmp(value.p, type, n) != 0)
		return false;
	return value.n == n || value.p[n] == ';' || value.p[n] == ' ' || value.p[n] == '\t';
}

/* ---- simplereenroll ---- */

static bool has_name(const GENERAL_NAMES *all, GENERAL_NAME *name)
{
	for (int i = 0; i < sk_GENERAL_NAME_num(all); i++)
		if (GENERAL_NAME_cmp(sk_GENERAL_NAME_value(all, i), name) == 0)
			return true;
	return false;
}

/* The order does not matter, and neither has one twice. */
static bool same_sans(const GENERAL_NAMES *a, const GENERAL_NAMES *b)
{
	int n = a != NULL ? sk_GENERAL_NAME_num(a) : 0;

	if (n != (b != NULL ? sk_GENERAL_NAME_num(b) : 0))
		return false;
	for (int i = 0; i < n; i++)
		if (!has_name(b, sk_GENERAL_NAME_value(a, i)) || !has_name(a, sk_GENERAL_NAME_value(b, i)))
			return false;
	return true;
}

int est_same_names(X509 *cert, const struct csm_certreq *req, char why[static CA_WHY])
{
	GENERAL_NAMES *sans = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	const char *what = NULL;

	if (req->changes_subject)
		what = "the request asks for another subject (ChangeSubjectName), which is not given";
	else if (X509_NAME_cmp(req->subject, X509_get_subject_name(cert)) != 0)
		what = "the subject of the request is not that of the certificate by which it is made";
	else if (!same_sans(sans, req->sans))
		what = "the alternative names of the request are not those of the certificate by which it is made";
	GENERAL_NAMES_free(sans);
	ERR_clear_error();
	if (what == NULL)
		return 0;
	(void)snprintf(why, CA_WHY, "%s", what);
	return CSM_EDENIED;
}

/* ---- csrattrs ---- */

/* Attribute ::= SEQUENCE { type, values SET }, with the one value that is written between. */
static void attribute_open(struct csm_der *d, int nid, size_t at[static 2])
{
	at[0] = csm_der_open(d, CSM_DER_SEQ);
	csm_der_oid(d, nid);
	at[1] = csm_der_open(d, CSM_DER_SET);
}

static void attribute_close(struct csm_der *d, const size_t at[static 2])
{
	csm_der_close(d, at[1]);
	csm_der_close(d, at[0]);
}

static void key_put(struct csm_der *d, const struct csm_profile *p)
{
	static const struct {
		unsigned key;
		int curve, signature;
	} curves[] = {
		{CSM_PROFILE_P256, NID_X9_62_prime256v1, NID_ecdsa_with_SHA256},
		{CSM_PROFILE_P384, NID_secp384r1, NID_ecdsa_with_SHA384},
		{CSM_PROFILE_P521, NID_secp521r1, NID_ecdsa_with_SHA512},
	};
	size_t at[2];

	if (p->keys == CSM_PROFILE_RSA) {
		attribute_open(d, NID_rsaEncryption, at);
		csm_der_number(d, (uint64_t)p->rsa_min);
		attribute_close(d, at);
		csm_der_oid(d, NID_sha256WithRSAEncryption);
	}
	if (p->keys == CSM_PROFILE_ED25519)
		csm_der_oid(d, NID_ED25519);
	for (size_t i = 0; i < sizeof(curves) / sizeof(curves[0]); i++)
		if (p->keys == curves[i].key) {
			attribute_open(d, NID_X9_62_id_ecPublicKey, at);
			csm_der_oid(d, curves[i].curve);
			attribute_close(d, at);
			csm_der_oid(d, curves[i].signature);
		}
}

/* What the request has to have, as RFC 7030 4.5.2 shows it: the extension's identifier, its value being the client's. */
static void extensions_put(struct csm_der *d, const struct csm_profile *p)
{
	size_t at[2];

	if (!p->needs_san)
		return;
	attribute_open(d, NID_ext_req, at);
	csm_der_oid(d, NID_subject_alt_name);
	attribute_close(d, at);
}

int est_csrattrs(const struct csm_profile *profile, struct csm_buf *out)
{
	struct csm_der d = {out, 0};
	size_t before = out->len, seq = csm_der_open(&d, CSM_DER_SEQ), empty = out->len;

	key_put(&d, profile);
	extensions_put(&d, profile);
	if (d.r == 0 && out->len == empty)
		d.r = CSM_ENOT_FOUND;
	csm_der_close(&d, seq);
	if (d.r != 0)
		out->len = before;
	return d.r;
}
