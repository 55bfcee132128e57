#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include "daemon/pki/crl.h"
#include "daemon/pki/ocsp.h"

#define SERIAL_MAX 20
#define TBS_MAX (64u * 1024u)

/* ---- requests ---- */

/* The bytes of what a request holds, one after the other, in memory that stays where it is. */
struct keep {
	uint8_t *p, *end;
};

static struct csm_bin keep_put(struct keep *k, const void *p, size_t n)
{
	const struct csm_bin ret = {k->p, n};

	if (n > (size_t)(k->end - k->p))
		return (struct csm_bin){NULL, 0};
	memcpy(k->p, p, n);
	k->p += n;
	return ret;
}

/* A CertID goes into the answer as it was asked. OpenSSL takes parameters of a hash that it would not read again (an element of
 * type 0), and nobody needs any: RFC 5754 has them absent or NULL. */
static bool hash_is_plain(const uint8_t *id, size_t n)
{
	const unsigned char *at = id;
	X509_ALGOR *alg = NULL;
	int tag, class, type = V_ASN1_OTHER;
	long len;

	if ((ASN1_get_object(&at, &len, &tag, &class, (long)n) & 0x80) == 0 && (alg = d2i_X509_ALGOR(NULL, &at, len)) != NULL)
		X509_ALGOR_get0(NULL, &type, NULL, alg);
	X509_ALGOR_free(alg);
	return type == V_ASN1_UNDEF || type == V_ASN1_NULL;
}

static int read_one(struct keep *k, OCSP_ONEREQ *one, struct csm_ocsp_asked *ret)
{
	OCSP_CERTID *id = OCSP_onereq_get0_id(one);
	ASN1_INTEGER *serial = NULL;
	ASN1_OBJECT *hash = NULL;
	unsigned char *der = NULL;
	int n;

	if (OCSP_ONEREQ_get_ext_by_critical(one, 1, -1) >= 0)
		return CSM_EINVALID;
	if (id == NULL || OCSP_id_get0_info(NULL, &hash, NULL, &serial, id) != 1 || ASN1_STRING_length(serial) < 1 ||
		ASN1_STRING_length(serial) > SERIAL_MAX || ASN1_STRING_type(serial) != V_ASN1_INTEGER)
		return CSM_EINVALID;
	n = i2d_OCSP_CERTID(id, &der);
	if (n <= 0)
		return CSM_ENOMEM;
	ret->hash = OBJ_obj2nid(hash);
	if (hash_is_plain(der, (size_t)n))
		ret->id = keep_put(k, der, (size_t)n);
	ret->serial = keep_put(k, ASN1_STRING_get0_data(serial), (size_t)ASN1_STRING_length(serial));
	OPENSSL_free(der);
	return ret->id.n > 0 && ret->serial.n > 0 ? 0 : CSM_EINVALID;
}

/* Its value is an OCTET STRING of 1 to 128 bytes (RFC 9654). */
static int read_nonce(struct keep *k, OCSP_REQUEST *req, struct csm_bin *ret)
{
	int at = OCSP_REQUEST_get_ext_by_NID(req, NID_id_pkix_OCSP_Nonce, -1);
	const ASN1_OCTET_STRING *value;
	ASN1_OCTET_STRING *inner;
	const unsigned char *p;
	bool good;

	if (at < 0)
		return 0;
	if (OCSP_REQUEST_get_ext_by_NID(req, NID_id_pkix_OCSP_Nonce, at) >= 0)
		return CSM_EINVALID;
	value = X509_EXTENSION_get_data(OCSP_REQUEST_get_ext(req, at));
	p = ASN1_STRING_get0_data(value);
	inner = d2i_ASN1_OCTET_STRING(NULL, &p, ASN1_STRING_length(value));
	good = inner != NULL && p == ASN1_STRING_get0_data(value) + ASN1_STRING_length(value) &&
		ASN1_STRING_length(inner) >= 1 && ASN1_STRING_length(inner) <= (int)CSM_OCSP_NONCE_MAX;
	ASN1_OCTET_STRING_free(inner);
	if (good)
		*ret = keep_put(k, ASN1_STRING_get0_data(value), (size_t)ASN1_STRING_length(value));
	return good && ret->n > 0 ? 0 : CSM_EINVALID;
}

static int read_all(struct csm_ocsp_request *q, struct csm_bin bytes)
{
	const unsigned char *at = bytes.p;
	struct keep k = {q->bytes, q->bytes + 2 * (size_t)CSM_OCSP_REQUEST_MAX};
	int n, r;

	if ((q->req = d2i_OCSP_REQUEST(NULL, &at, (long)bytes.n)) == NULL || at != bytes.p + bytes.n)
		return CSM_EINVALID;
	n = OCSP_request_onereq_count(q->req);
	if (n < 1 || n > (int)CSM_OCSP_ASKED_MAX)
		return CSM_EINVALID;
	for (int i = -1; (i = OCSP_REQUEST_get_ext_by_critical(q->req, 1, i)) >= 0;)
		if (OBJ_obj2nid(X509_EXTENSION_get_object(OCSP_REQUEST_get_ext(q->req, i))) != NID_id_pkix_OCSP_Nonce)
			return CSM_EINVALID;
	for (int i = 0; i < n; i++)
		if ((r = read_one(&k, OCSP_request_onereq_get0(q->req, i), &q->asked[q->n++])) != 0)
			return r;
	return read_nonce(&k, q->req, &q->nonce);
}

int csm_ocsp_read(struct csm_bin bytes, struct csm_ocsp_request **ret)
{
	struct csm_ocsp_request *q;
	int r = CSM_ENOMEM;

	if (bytes.n > CSM_OCSP_REQUEST_MAX)
		return CSM_ETOO_LARGE;
	if ((q = calloc(1, sizeof(*q))) != NULL && (q->bytes = malloc(2 * (size_t)CSM_OCSP_REQUEST_MAX)) != NULL &&
		(r = read_all(q, bytes)) == 0) {
		*ret = q;
		q = NULL;
	}
	csm_ocsp_free(q);
	ERR_clear_error();
	return r;
}

void csm_ocsp_free(struct csm_ocsp_request *q)
{
	if (q == NULL)
		return;
	OCSP_REQUEST_free(q->req);
	free(q->bytes);
	free(q);
}

bool csm_ocsp_is_of(const struct csm_ocsp_request *q, size_t i, X509 *issuer)
{
	static const int hashes[] = {NID_sha1, NID_sha256, NID_sha384, NID_sha512};
	OCSP_CERTID *asked = OCSP_onereq_get0_id(OCSP_request_onereq_get0(q->req, (int)i)), *own = NULL;
	bool same = false;

	for (size_t h = 0; h < sizeof(hashes) / sizeof(hashes[0]); h++)
		if (hashes[h] == q->asked[i].hash)
			own = OCSP_cert_id_new(EVP_get_digestbynid(hashes[h]), X509_get_subject_name(issuer),
				X509_get0_pubkey_bitstr(issuer), NULL);
	if (own != NULL) {
		ASN1_OCTET_STRING *name_a, *key_a, *name_b, *key_b;

		/* not OCSP_id_issuer_cmp: whether the hash has parameters is not asked */
		(void)OCSP_id_get0_info(&name_a, NULL, &key_a, NULL, asked);
		(void)OCSP_id_get0_info(&name_b, NULL, &key_b, NULL, own);
		same = ASN1_OCTET_STRING_cmp(name_a, name_b) == 0 && ASN1_OCTET_STRING_cmp(key_a, key_b) == 0;
	}
	OCSP_CERTID_free(own);
	ERR_clear_error();
	return same;
}

/* ---- responses ---- */

static int single_check(const struct csm_ocsp_single *s)
{
	if (s->id.n == 0 || s->next_update <= s->this_update)
		return CSM_EINVALID;
	if (s->state == CSM_OCSP_REVOKED)
		return csm_reason_name(s->reason) != NULL && s->reason != CSM_REASON_REMOVE_FROM_CRL &&
			s->revoked_at <= s->this_update ? 0 : CSM_EINVALID;
	return s->state == CSM_OCSP_GOOD || s->state == CSM_OCSP_UNKNOWN ? 0 : CSM_EINVALID;
}

static void revoked_put(struct csm_der *d, const struct csm_ocsp_single *s)
{
	const uint8_t reason = (uint8_t)s->reason;
	size_t at = csm_der_open(d, CSM_DER_CONTEXT_SEQ(1)), in;

	csm_der_time(d, s->revoked_at, true);
	if (reason != CSM_REASON_UNSPECIFIED) {
		in = csm_der_open(d, CSM_DER_CONTEXT_SEQ(0));
		csm_der_put(d, V_ASN1_ENUMERATED, &reason, 1);
		csm_der_close(d, in);
	}
	csm_der_close(d, at);
}

static void single_put(struct csm_der *d, const struct csm_ocsp_single *s)
{
	size_t at = csm_der_open(d, CSM_DER_SEQ), in;

	csm_der_raw(d, s->id.p, s->id.n);
	if (s->state == CSM_OCSP_REVOKED)
		revoked_put(d, s);
	else
		csm_der_put(d, CSM_DER_CONTEXT((uint8_t)s->state), NULL, 0);
	csm_der_time(d, s->this_update, true);
	in = csm_der_open(d, CSM_DER_CONTEXT_SEQ(0));
	csm_der_time(d, s->next_update, true);
	csm_der_close(d, in);
	csm_der_close(d, at);
}

static void nonce_put(struct csm_der *d, struct csm_bin nonce)
{
	size_t at = csm_der_open(d, CSM_DER_CONTEXT_SEQ(1)), seq = csm_der_open(d, CSM_DER_SEQ);

	csm_der_ext_raw(d, NID_id_pkix_OCSP_Nonce, false, nonce);
	csm_der_close(d, seq);
	csm_der_close(d, at);
}

/* By the SHA-1 of its key, which is what a KeyHash is. */
static int responder_put(struct csm_der *d, X509 *responder)
{
	uint8_t hash[EVP_MAX_MD_SIZE];
	unsigned n = 0;
	size_t at;

	if (X509_pubkey_digest(responder, EVP_sha1(), hash, &n) != 1)
		return CSM_EINTERNAL;
	at = csm_der_open(d, CSM_DER_CONTEXT_SEQ(2));
	csm_der_put(d, V_ASN1_OCTET_STRING, hash, n);
	csm_der_close(d, at);
	return d->r;
}

int csm_ocsp_tbs(const struct csm_ocsp_order *o, struct csm_buf *out)
{
	struct csm_der d = {out, 0};
	size_t before = out->len, seq, all;
	int r;

	if (o->n == 0 || o->n > CSM_OCSP_ASKED_MAX)
		return CSM_EINVALID;
	for (size_t i = 0; i < o->n; i++)
		if ((r = single_check(&o->singles[i])) != 0)
			return r;
	seq = csm_der_open(&d, CSM_DER_SEQ);
	if ((r = responder_put(&d, o->responder)) == 0) {
		csm_der_time(&d, o->produced_at, true);
		all = csm_der_open(&d, CSM_DER_SEQ);
		for (size_t i = 0; i < o->n; i++)
			single_put(&d, &o->singles[i]);
		csm_der_close(&d, all);
		if (o->nonce.n > 0)
			nonce_put(&d, o->nonce);
		csm_der_close(&d, seq);
		r = d.r;
	}
	if (r != 0)
		out->len = before;
	ERR_clear_error();
	return r;
}

/* The issuer itself, or one to whom it gave that right alone (RFC 6960 4.2.2.2). */
static int check_responder(const struct csm_ocsp_order *o, const struct csm_signer *signer)
{
	EVP_PKEY *key = X509_get0_pubkey(o->responder);

	if (key == NULL || EVP_PKEY_eq(key, signer->pub) != 1)
		return CSM_EINVALID;
	if (X509_cmp(o->responder, o->issuer) == 0)
		return 0;
	if (X509_check_issued(o->issuer, o->responder) != X509_V_OK || X509_verify(o->responder, X509_get0_pubkey(o->issuer)) != 1 ||
		(X509_get_extended_key_usage(o->responder) & XKU_OCSP_SIGN) == 0 ||
		X509_get_extended_key_usage(o->responder) == UINT32_MAX)
		return CSM_EDENIED;
	return 0;
}

static int basic_put(struct csm_der *d, const struct csm_ocsp_order *o, const struct csm_signer *signer, struct csm_bin tbs)
{
	size_t basic = csm_der_open(d, CSM_DER_SEQ), certs, seq;
	int r;

	if ((r = csm_signed_parts(signer, tbs, d)) != 0)
		return r;
	if (X509_cmp(o->responder, o->issuer) != 0) {
		certs = csm_der_open(d, CSM_DER_CONTEXT_SEQ(0));
		seq = csm_der_open(d, CSM_DER_SEQ);
		csm_der_item(d, ASN1_ITEM_rptr(X509), o->responder);
		csm_der_close(d, seq);
		csm_der_close(d, certs);
	}
	csm_der_close(d, basic);
	return d->r;
}

static int response_put(const struct csm_ocsp_order *o, const struct csm_signer *signer, struct csm_bin tbs, struct csm_buf *out)
{
	const uint8_t successful = OCSP_RESPONSE_STATUS_SUCCESSFUL;
	struct csm_der d = {out, 0};
	size_t before = out->len, all = csm_der_open(&d, CSM_DER_SEQ), at, seq, octets;
	int r;

	csm_der_put(&d, V_ASN1_ENUMERATED, &successful, 1);
	at = csm_der_open(&d, CSM_DER_CONTEXT_SEQ(0));
	seq = csm_der_open(&d, CSM_DER_SEQ);
	csm_der_oid(&d, NID_id_pkix_OCSP_basic);
	octets = csm_der_open(&d, V_ASN1_OCTET_STRING);
	r = basic_put(&d, o, signer, tbs);
	csm_der_close(&d, octets);
	csm_der_close(&d, seq);
	csm_der_close(&d, at);
	csm_der_close(&d, all);
	if (r == 0)
		r = d.r;
	if (r != 0)
		out->len = before;
	return r;
}

int csm_ocsp_respond(const struct csm_ocsp_order *o, const struct csm_signer *signer, struct csm_buf *out)
{
	struct csm_buf tbs;
	int r = check_responder(o, signer);

	csm_buf_init(&tbs, TBS_MAX, false);
	if (r == 0 && (r = csm_ocsp_tbs(o, &tbs)) == 0)
		r = response_put(o, signer, (struct csm_bin){csm_buf_ptr(&tbs), tbs.len}, out);
	csm_buf_free(&tbs);
	ERR_clear_error();
	return r;
}

int csm_ocsp_error(int status, struct csm_buf *out)
{
	const uint8_t response[] = {CSM_DER_SEQ, 3, V_ASN1_ENUMERATED, 1, (uint8_t)status};

	if (status < OCSP_RESPONSE_STATUS_MALFORMEDREQUEST || status > OCSP_RESPONSE_STATUS_UNAUTHORIZED || status == 4)
		return CSM_EINVALID;
	return csm_buf_put(out, response, sizeof(response));
}
