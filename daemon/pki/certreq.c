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
	struct csm_bin attributes, alg, sig; /* of the request; attributes n 0: none */
	struct csm_bin exts;                 /* the one list of extensions; n 0: none */
	EVP_PKEY *key;                       /* NULL: of the usual form */
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

static bool take(struct csm_bin *rest, uint8_t tag, struct csm_bin *body, struct csm_bin *whole)
{
	uint8_t found;

	return tbs_take(rest, &found, body, whole) && found == tag;
}

static bool take_parts(struct reading *rd, struct csm_bin body)
{
	struct csm_certreq *q = rd->to;
	struct csm_bin info, name = {NULL, 0}, skipped;
	const unsigned char *at;

	if (!take(&body, CSM_DER_SEQ, &info, &q->tbs) || !take(&body, CSM_DER_SEQ, &skipped, &rd->alg) ||
		!take(&body, V_ASN1_BIT_STRING, &rd->sig, NULL) || body.n != 0)
		return false;
	if (!take(&info, V_ASN1_INTEGER, &skipped, NULL) || !take(&info, CSM_DER_SEQ, &skipped, &name) ||
		!take(&info, CSM_DER_SEQ, &skipped, &q->spki) ||
		(info.n > 0 && !take(&info, CSM_DER_CONTEXT_SEQ(0), &rd->attributes, NULL)) || info.n != 0)
		return false;
	at = name.p;
	q->subject = d2i_X509_NAME(NULL, &at, (long)name.n);
	return q->subject != NULL && at == name.p + name.n;
}

/* der is in q->bytes. */
static int from_der(struct reading *rd, struct csm_bin der)
{
	struct csm_bin rest = der, body;

	if (der.n > CSM_CSR_MAX) {
		(void)refuse(rd, "longer than %u bytes", CSM_CSR_MAX);
		return CSM_ETOO_LARGE;
	}
	if (!take(&rest, CSM_DER_SEQ, &body, NULL) || rest.n != 0)
		return refuse(rd, "not a certificate request, or bytes are left over");
	if (!tbs_is_der(der))
		return refuse(rd, "not in DER");
	if (!take_parts(rd, body))
		return refuse(rd, "not a certificate request");
	rd->to->der = der;
	return 0;
}

static int from_own(struct reading *rd, struct csm_bin der)
{
	if (der.n > CSM_CSR_MAX)
		return from_der(rd, der);
	if ((rd->to->bytes = malloc(der.n)) == NULL)
		return CSM_ENOMEM;
	memcpy(rd->to->bytes, der.p, der.n);
	return from_der(rd, (struct csm_bin){rd->to->bytes, der.n});
}

static int from_base64(struct reading *rd, struct csm_bin text)
{
	const size_t room = text.n / 4 * 3 + 3;
	const char *end = NULL;
	size_t n = 0;

	if ((rd->to->bytes = malloc(room)) == NULL)
		return CSM_ENOMEM;
	if (sodium_base642bin(rd->to->bytes, room, (const char *)text.p, text.n, " \t\r\n", &n, &end, sodium_base64_VARIANT_ORIGINAL) != 0 ||
		end != (const char *)text.p + text.n || n == 0)
		return refuse(rd, "neither DER, PEM nor base64");
	return from_der(rd, (struct csm_bin){rd->to->bytes, n});
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
		return from_own(rd, bytes);
	if (memmem(bytes.p, bytes.n, "-----BEGIN ", 11) != NULL)
		return from_pem(rd, bytes);
	return from_base64(rd, bytes);
}

/* ---- the key ---- */

/* Of a kind for which OpenSSL takes it to pieces. */
static int decode_key(struct reading *rd)
{
	const unsigned char *at = rd->to->spki.p;
	X509_PUBKEY *pub = csm_plain_d2i(&at, (long)rd->to->spki.n, ASN1_ITEM_rptr(X509_PUBKEY));
	char why[CSM_SUBJKEY_WHY];
	int r;

	if (pub == NULL || at != rd->to->spki.p + rd->to->spki.n)
		r = refuse(rd, "not a certificate request: its public key");
	else if ((r = csm_subject_key(pub, &rd->key, why)) != 0)
		(void)refuse(rd, "%s", why);
	X509_PUBKEY_free(pub);
	return r;
}

static int read_key(struct reading *rd)
{
	struct csm_certreq *q = rd->to;
	int r;

	if (csm_subject_form(q->spki, &q->key_bits)) {
		q->key_type = EVP_PKEY_EC;
	} else if ((r = decode_key(rd)) != 0) {
		return r;
	} else {
		q->key_type = EVP_PKEY_get_base_id(rd->key);
		q->key_bits = EVP_PKEY_get_bits(rd->key);
	}
	return q->spki.n <= CSM_SPKI_MAX + 512 ? 0 : refuse(rd, "its public key is too long");
}

static bool is_strong(const struct reading *rd)
{
	const unsigned char *at = rd->alg.p;
	X509_ALGOR *alg = d2i_X509_ALGOR(NULL, &at, (long)rd->alg.n);
	bool strong = alg != NULL && csm_sigalg_is_strong(alg);

	X509_ALGOR_free(alg);
	return strong;
}

/* By OpenSSL, all of it. */
static int verify_whole(struct reading *rd)
{
	const unsigned char *at = rd->to->der.p;
	X509_REQ *req;
	int r;

	if (rd->key == NULL && (r = decode_key(rd)) != 0)
		return r;
	req = csm_plain_d2i(&at, (long)rd->to->der.n, ASN1_ITEM_rptr(X509_REQ));
	r = req != NULL && X509_REQ_verify(req, rd->key) == 1 ? 0 :
		refuse(rd, "its own signature is wrong: whoever sent it has not shown to hold the key");
	X509_REQ_free(req);
	return r;
}

static int check_signature(struct reading *rd)
{
	int r = CSM_EUNSUPPORTED;

	/* a bit string that ends within a byte is no signature to anyone */
	if (rd->key == NULL && rd->sig.n > 1 && rd->sig.p[0] == 0)
		r = csm_subject_verify(rd->to->spki, rd->alg, rd->to->tbs, (struct csm_bin){rd->sig.p + 1, rd->sig.n - 1});
	if (r == CSM_EINVALID)
		return refuse(rd, "its own signature is wrong: whoever sent it has not shown to hold the key");
	if (r != CSM_EUNSUPPORTED)
		return r;
	if (!is_strong(rd))
		return refuse(rd, "its own signature is of an unknown or weak kind (needed: SHA-256 or better, or Ed25519)");
	return verify_whole(rd);
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

static bool is_oid(struct csm_bin oid, const char *bytes, size_t n)
{
	return oid.n == n && memcmp(oid.p, bytes, n) == 0;
}

/* One list of extensions at most: of two, readers see the first one or the last one. */
static int read_attribute(struct reading *rd, struct csm_bin one, int *lists)
{
	static const char ext_req[] = "\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e", ms_ext_req[] = "\x2b\x06\x01\x04\x01\x82\x37\x02\x01\x0e",
			  change_name[] = "\x2b\x06\x01\x05\x05\x07\x07\x24";
	struct csm_bin oid, values, skipped;

	if (!take(&one, V_ASN1_OBJECT, &oid, NULL) || !take(&one, CSM_DER_SET, &values, NULL) || one.n != 0)
		return refuse(rd, "not a certificate request: its attributes");
	if (is_oid(oid, change_name, sizeof(change_name) - 1))
		rd->to->changes_subject = true;
	if (!is_oid(oid, ext_req, sizeof(ext_req) - 1) && !is_oid(oid, ms_ext_req, sizeof(ms_ext_req) - 1))
		return 0;
	if (++*lists > 1)
		return refuse(rd, "it has two lists of extensions");
	if (!take(&values, CSM_DER_SEQ, &skipped, &rd->exts) || values.n != 0)
		return refuse(rd, "its list of extensions has not one value");
	return 0;
}

static int read_attributes(struct reading *rd)
{
	struct csm_bin rest = rd->attributes, one;
	int lists = 0, r;

	for (int n = 1; rest.n > 0; n++) {
		if (n > ATTRIBUTES_MAX)
			return refuse(rd, "it has more than %d attributes", ATTRIBUTES_MAX);
		if (!take(&rest, CSM_DER_SEQ, &one, NULL))
			return refuse(rd, "not a certificate request: its attributes");
		if ((r = read_attribute(rd, one, &lists)) != 0)
			return r;
	}
	return 0;
}

static int read_exts(struct reading *rd)
{
	const unsigned char *at;
	STACK_OF(X509_EXTENSION) *exts;
	int r;

	if ((r = read_attributes(rd)) != 0 || rd->exts.n == 0)
		return r;
	at = rd->exts.p;
	exts = d2i_X509_EXTENSIONS(NULL, &at, (long)rd->exts.n);
	if (exts == NULL || at != rd->exts.p + rd->exts.n)
		r = refuse(rd, "its list of extensions cannot be read");
	else if ((r = list_exts(rd, exts)) == 0 && (r = read_usage(rd, exts)) == 0)
		r = read_sans(rd, exts);
	sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
	return r;
}

/* A subject has to be such that it can be told in a line. */
static int read_subject(struct reading *rd)
{
	struct csm_buf b;
	int r;

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
	ERR_clear_error();
	return r;
}

void csm_certreq_free(struct csm_certreq *q)
{
	if (q == NULL)
		return;
	free(q->bytes);
	X509_NAME_free(q->subject);
	GENERAL_NAMES_free(q->sans);
	EXTENDED_KEY_USAGE_free(q->eku);
	free(q);
}
