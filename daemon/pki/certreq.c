#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <sodium.h>
#include "daemon/pki/cert.h"
#include "daemon/pki/certreq.h"
#include "daemon/pki/plain.h"
#include "daemon/pki/sigalg.h"
#include "daemon/pki/subjkey.h"
#include "daemon/pki/subject.h"
#include "daemon/pki/tbs_int.h"

#define TEXT_MAX (2u * CSM_CSR_MAX) /* base64 with its lines */
#define ATTRIBUTES_MAX 8

struct reading {
	struct csm_certreq *to;
	char *why;
	uint8_t *decoded;   /* where it was not DER */
	struct csm_bin tbs; /* what its signature is over */
	EVP_PKEY *key;      /* NULL: of the usual form */
};

static int __attribute__((format(printf, 2, 3))) refuse(struct reading *rd, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(rd->why, CSM_CERTREQ_WHY, fmt, ap);
	va_end(ap);
	return CSM_EINVALID;
}

/* ---- the forms ---- */

static int from_der(struct reading *rd, struct csm_bin der)
{
	const unsigned char *at = der.p;
	struct csm_bin rest = der, body, part;
	unsigned char *again = NULL;
	uint8_t tag;
	bool same;
	int n;

	if (der.n > CSM_CSR_MAX) {
		(void)refuse(rd, "longer than %u bytes", CSM_CSR_MAX);
		return CSM_ETOO_LARGE;
	}
	rd->to->req = csm_plain_d2i(&at, (long)der.n, ASN1_ITEM_rptr(X509_REQ));
	if (rd->to->req == NULL || at != der.p + der.n)
		return refuse(rd, "not a certificate request, or bytes are left over");
	n = i2d_X509_REQ(rd->to->req, &again);
	same = n > 0 && (size_t)n == der.n && memcmp(again, der.p, der.n) == 0;
	OPENSSL_free(again);
	if (!same || !tbs_take(&rest, &tag, &body, NULL) || !tbs_take(&body, &tag, &part, &rd->tbs))
		return refuse(rd, "not in DER");
	return 0;
}

static int from_base64(struct reading *rd, struct csm_bin text)
{
	const char *end = NULL;
	size_t n = 0;

	if ((rd->decoded = malloc(TEXT_MAX)) == NULL)
		return CSM_ENOMEM;
	if (sodium_base642bin(rd->decoded, TEXT_MAX, (const char *)text.p, text.n, " \t\r\n", &n, &end, sodium_base64_VARIANT_ORIGINAL) !=
			0 || end != (const char *)text.p + text.n || n == 0)
		return refuse(rd, "neither DER, PEM nor base64");
	return from_der(rd, (struct csm_bin){rd->decoded, n});
}

/* What stands between the two lines. */
static int from_pem(struct reading *rd, struct csm_bin text)
{
	static const char *const names[] = {PEM_STRING_X509_REQ, PEM_STRING_X509_REQ_OLD};
	char line[64];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const uint8_t *from, *to;
		size_t n = (size_t)snprintf(line, sizeof(line), "-----BEGIN %s-----", names[i]);

		if (text.n < n || (from = memmem(text.p, text.n, line, n)) == NULL)
			continue;
		from += n;
		n = (size_t)snprintf(line, sizeof(line), "-----END %s-----", names[i]);
		if ((to = memmem(from, text.n - (size_t)(from - text.p), line, n)) == NULL)
			break;
		for (const uint8_t *p = to + n; p < text.p + text.n; p++)
			if (*p != '\n' && *p != '\r' && *p != ' ')
				return refuse(rd, "something stands behind the request");
		return from_base64(rd, (struct csm_bin){from, (size_t)(to - from)});
	}
	return refuse(rd, "PEM, but not of a certificate request");
}

static int from_any(struct reading *rd, struct csm_bin bytes)
{
	if (bytes.n == 0)
		return refuse(rd, "it is empty");
	if (bytes.n > TEXT_MAX) {
		(void)refuse(rd, "longer than %u bytes", CSM_CSR_MAX);
		return CSM_ETOO_LARGE;
	}
	if (bytes.p[0] == CSM_DER_SEQ)
		return from_der(rd, bytes);
	if (memmem(bytes.p, bytes.n, "-----BEGIN ", 11) != NULL)
		return from_pem(rd, bytes);
	return from_base64(rd, bytes);
}

/* ---- the key ---- */

static int read_key(struct reading *rd)
{
	struct csm_certreq *q = rd->to;
	X509_PUBKEY *pub = X509_REQ_get_X509_PUBKEY(q->req);
	char why[CSM_SUBJKEY_WHY];
	unsigned char *der = NULL;
	int n;

	if (csm_subject_key_quick(pub, &q->key_bits)) {
		q->key_type = EVP_PKEY_EC;
	} else if (csm_subject_key(pub, &rd->key, why) != 0) {
		return refuse(rd, "%s", why);
	} else {
		q->key_type = EVP_PKEY_get_base_id(rd->key);
		q->key_bits = EVP_PKEY_get_bits(rd->key);
	}
	n = i2d_X509_PUBKEY(pub, &der);
	if (n <= 0)
		return CSM_ENOMEM;
	q->spki = (struct csm_bin){der, (size_t)n};
	return n <= (int)CSM_SPKI_MAX + 512 ? 0 : refuse(rd, "its public key is too long");
}

static int check_signature(struct reading *rd)
{
	X509_PUBKEY *pub = X509_REQ_get_X509_PUBKEY(rd->to->req);
	const ASN1_BIT_STRING *sig = NULL;
	const X509_ALGOR *alg = NULL;
	char why[CSM_SUBJKEY_WHY];
	int r = CSM_EUNSUPPORTED;

	X509_REQ_get0_signature(rd->to->req, &sig, &alg);
	if (alg == NULL || !csm_sigalg_is_strong(alg))
		return refuse(rd, "its own signature is of an unknown or weak kind (needed: SHA-256 or better, or Ed25519)");
	if (rd->key == NULL)
		r = csm_subject_verify(pub, alg, rd->tbs, sig);
	if (r == CSM_EUNSUPPORTED && rd->key == NULL && csm_subject_key(pub, &rd->key, why) != 0)
		return refuse(rd, "%s", why);
	if (r == CSM_EUNSUPPORTED && X509_REQ_verify(rd->to->req, rd->key) == 1)
		r = 0;
	if (r != 0)
		return refuse(rd, "its own signature is wrong: whoever sent it has not shown to hold the key");
	return 0;
}

/* ---- what it asks for ---- */

static int read_usage(struct reading *rd, const STACK_OF(X509_EXTENSION) *exts)
{
	struct csm_certreq *q = rd->to;
	ASN1_BIT_STRING *ku;
	BASIC_CONSTRAINTS *bc;
	int found = 0;

	bc = X509V3_get_d2i(exts, NID_basic_constraints, &found, NULL);
	if (bc == NULL && found != -1)
		return refuse(rd, "its basic constraints cannot be read");
	q->wants_ca = bc != NULL && bc->ca != 0;
	BASIC_CONSTRAINTS_free(bc);
	ku = X509V3_get_d2i(exts, NID_key_usage, &found, NULL);
	if (ku == NULL && found != -1)
		return refuse(rd, "its key usage cannot be read");
	for (int i = 0; ku != NULL && i < ku->length && i < 2; i++)
		q->key_usage |= (uint32_t)ku->data[i] << 8 * i;
	ASN1_BIT_STRING_free(ku);
	q->eku = X509V3_get_d2i(exts, NID_ext_key_usage, &found, NULL);
	if (q->eku == NULL && found != -1)
		return refuse(rd, "its extended key usage cannot be read");
	return 0;
}

/* Through their text form, so that each name is checked as one that is typed in. */
static int sans_again(struct reading *rd, const GENERAL_NAMES *names)
{
	struct csm_str texts[CSM_SANS_MAX];
	char fault[128] = "";
	struct csm_buf b;
	size_t ends[CSM_SANS_MAX + 1] = {0}, n = (size_t)sk_GENERAL_NAME_num(names);
	int r = 0;

	if (n == 0 || n > CSM_SANS_MAX)
		return refuse(rd, "it has none or more than %u alternative names", CSM_SANS_MAX);
	csm_buf_init(&b, CSM_CSR_MAX * 4, false);
	for (size_t i = 0; i < n && r == 0; i++) {
		if ((r = csm_san_text(sk_GENERAL_NAME_value(names, (int)i), &b)) != 0 && r != CSM_ENOMEM)
			r = refuse(rd, "san %zu: bytes that such a name cannot have", i + 1);
		ends[i + 1] = b.len;
	}
	for (size_t i = 0; i < n && r == 0; i++)
		texts[i] = (struct csm_str){(const char *)csm_buf_ptr(&b) + ends[i], ends[i + 1] - ends[i]};
	if (r == 0 && (r = csm_sans_parse(texts, n, &rd->to->sans, fault)) == CSM_EINVALID)
		(void)refuse(rd, "%s", fault);
	csm_buf_free(&b);
	return r;
}

static int read_sans(struct reading *rd, const STACK_OF(X509_EXTENSION) *exts)
{
	int found = 0, r;
	GENERAL_NAMES *names = X509V3_get_d2i(exts, NID_subject_alt_name, &found, NULL);

	if (names == NULL)
		return found == -1 ? 0 : refuse(rd, "its alternative names cannot be read");
	r = sans_again(rd, names);
	GENERAL_NAMES_free(names);
	return r;
}

static int list_exts(struct reading *rd, const STACK_OF(X509_EXTENSION) *exts)
{
	struct csm_certreq *q = rd->to;
	int n = sk_X509_EXTENSION_num(exts);

	if (n > (int)CSM_CERTREQ_EXTS_MAX)
		return refuse(rd, "it asks for more than %u extensions", CSM_CERTREQ_EXTS_MAX);
	for (int i = 0; i < n; i++) {
		X509_EXTENSION *e = sk_X509_EXTENSION_value(exts, i);
		const ASN1_OBJECT *obj = X509_EXTENSION_get_object(e);
		struct csm_requested *to = &q->exts[q->n_exts++];
		int len = OBJ_obj2txt(to->oid, sizeof(to->oid), obj, 1);

		if (len <= 0 || len >= (int)sizeof(to->oid))
			return refuse(rd, "extension %d has an object identifier that is too long", i + 1);
		to->nid = OBJ_obj2nid(obj);
		to->critical = X509_EXTENSION_get_critical(e) == 1;
		if (X509v3_get_ext_by_OBJ(exts, obj, i) >= 0)
			return refuse(rd, "extension %s stands there twice", to->oid);
	}
	return 0;
}

/* One list of extensions at most: of two, readers see the first one or the last one. */
static int check_attributes(struct reading *rd)
{
	static const int lists[] = {NID_ext_req, NID_ms_ext_req};
	X509_REQ *req = rd->to->req;
	int n = 0;

	if (X509_REQ_get_attr_count(req) > ATTRIBUTES_MAX)
		return refuse(rd, "it has more than %d attributes", ATTRIBUTES_MAX);
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
		for (int at = -1; (at = X509_REQ_get_attr_by_NID(req, lists[i], at)) >= 0; n++)
			if (X509_ATTRIBUTE_count(X509_REQ_get_attr(req, at)) != 1)
				return refuse(rd, "its list of extensions has not one value");
	return n <= 1 ? 0 : refuse(rd, "it has two lists of extensions");
}

static int read_exts(struct reading *rd)
{
	STACK_OF(X509_EXTENSION) *exts;
	bool asked = X509_REQ_get_attr_by_NID(rd->to->req, NID_ext_req, -1) >= 0 ||
		X509_REQ_get_attr_by_NID(rd->to->req, NID_ms_ext_req, -1) >= 0;
	int r;

	if ((r = check_attributes(rd)) != 0 || !asked)
		return r;
	exts = X509_REQ_get_extensions(rd->to->req);
	if (exts == NULL)
		return refuse(rd, "its list of extensions cannot be read");
	if ((r = list_exts(rd, exts)) == 0 && (r = read_usage(rd, exts)) == 0)
		r = read_sans(rd, exts);
	sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
	return r;
}

/* A subject has to be such that it can be told in a line. */
static int read_subject(struct reading *rd)
{
	struct csm_buf b;
	int r;

	rd->to->subject = X509_REQ_get_subject_name(rd->to->req);
	csm_buf_init(&b, CSM_SUBJECT_MAX, false);
	r = csm_name_text(rd->to->subject, &b);
	csm_buf_free(&b);
	return r == 0 || r == CSM_ENOMEM ? r : refuse(rd, "its subject is too long, or no text");
}

int csm_certreq_read(struct csm_bin bytes, struct csm_certreq **ret, char why[static CSM_CERTREQ_WHY])
{
	struct reading rd = {.to = calloc(1, sizeof(*rd.to)), .why = why};
	int r = CSM_ENOMEM;

	why[0] = '\0';
	if (rd.to == NULL)
		return r;
	if ((r = from_any(&rd, bytes)) == 0 && (r = read_key(&rd)) == 0 && (r = check_signature(&rd)) == 0 &&
		(r = read_subject(&rd)) == 0 && (r = read_exts(&rd)) == 0) {
		*ret = rd.to;
		rd.to = NULL;
	}
	csm_certreq_free(rd.to);
	EVP_PKEY_free(rd.key);
	free(rd.decoded);
	ERR_clear_error();
	return r;
}

void csm_certreq_free(struct csm_certreq *q)
{
	if (q == NULL)
		return;
	OPENSSL_free((void *)q->spki.p);
	GENERAL_NAMES_free(q->sans);
	EXTENDED_KEY_USAGE_free(q->eku);
	X509_REQ_free(q->req);
	free(q);
}
