#include <string.h>
#include <openssl/err.h>
#include "daemon/pki/crl.h"

#define SERIAL_MAX 20u
#define TBS_MAX (16u * 1024u * 1024u)

static const char *const reasons[] = {
	[CSM_REASON_UNSPECIFIED] = "unspecified",
	[CSM_REASON_KEY_COMPROMISE] = "keyCompromise",
	[CSM_REASON_CA_COMPROMISE] = "cACompromise",
	[CSM_REASON_AFFILIATION_CHANGED] = "affiliationChanged",
	[CSM_REASON_SUPERSEDED] = "superseded",
	[CSM_REASON_CESSATION] = "cessationOfOperation",
	[CSM_REASON_HOLD] = "certificateHold",
	[CSM_REASON_REMOVE_FROM_CRL] = "removeFromCRL",
	[CSM_REASON_PRIVILEGE_WITHDRAWN] = "privilegeWithdrawn",
	[CSM_REASON_AA_COMPROMISE] = "aACompromise",
};
#define N_REASONS ((int)(sizeof(reasons) / sizeof(reasons[0])))

const char *csm_reason_name(int reason)
{
	return reason >= 0 && reason < N_REASONS ? reasons[reason] : NULL;
}

int csm_reason_parse(struct csm_str name)
{
	for (int i = 0; i < N_REASONS; i++)
		if (reasons[i] != NULL && csm_str_eq(name, reasons[i]))
			return i;
	return -1;
}

/* Written by hand: a list may have a hundred thousand of them. */
static void reason_put(struct csm_der *d, int reason)
{
	const uint8_t exts[] = {
		CSM_DER_SEQ, 12, CSM_DER_SEQ, 10,
		V_ASN1_OBJECT, 3, 0x55, 0x1d, 0x15, /* id-ce-cRLReasons */
		V_ASN1_OCTET_STRING, 3, V_ASN1_ENUMERATED, 1, (uint8_t)reason,
	};

	if (reason != CSM_REASON_UNSPECIFIED) /* RFC 5280 5.3.1: then it should be left out */
		csm_der_raw(d, exts, sizeof(exts));
}

static int entry_put(struct csm_der *d, const struct csm_crl_order *o, const struct csm_revoked *e)
{
	size_t at;

	if (e->serial.n == 0 || e->serial.n > SERIAL_MAX || csm_reason_name(e->reason) == NULL ||
		(e->reason == CSM_REASON_REMOVE_FROM_CRL && o->base == 0) || e->at > o->this_update)
		return CSM_EINVALID;
	at = csm_der_open(d, CSM_DER_SEQ);
	csm_der_uint(d, e->serial.p, e->serial.n);
	csm_der_time(d, e->at, false);
	reason_put(d, e->reason);
	csm_der_close(d, at);
	return d->r;
}

static int entries_put(struct csm_der *d, const struct csm_crl_order *o)
{
	struct csm_revoked e = {.at = 0};
	size_t at = csm_der_open(d, CSM_DER_SEQ), n = 0;
	int r = d->r, more;

	while (r == 0 && (more = o->next(o->arg, &e)) != 0) {
		r = more < 0 ? -more : entry_put(d, o, &e);
		n++;
	}
	if (r != 0)
		return r;
	if (n > 0)
		csm_der_close(d, at);
	else
		d->out->len = at; /* an empty list is left out */
	return d->r;
}

static void number_ext(struct csm_der *d, int nid, bool critical, uint64_t v)
{
	ASN1_INTEGER *n = ASN1_INTEGER_new();

	if (n != NULL && ASN1_INTEGER_set_uint64(n, v) == 1)
		csm_der_ext(d, nid, critical, ASN1_ITEM_rptr(ASN1_INTEGER), n);
	else if (d->r == 0)
		d->r = CSM_ENOMEM;
	ASN1_INTEGER_free(n);
}

static void exts_put(struct csm_der *d, const struct csm_crl_order *o, struct csm_bin key_id)
{
	size_t outer = csm_der_open(d, CSM_DER_CONTEXT_SEQ(0)), seq = csm_der_open(d, CSM_DER_SEQ);

	csm_authority_ext(d, key_id);
	number_ext(d, NID_crl_number, false, o->number);
	if (o->base != 0)
		number_ext(d, NID_delta_crl, true, o->base);
	else if (o->delta_url != NULL)
		csm_crl_url_ext(d, NID_freshest_crl, o->delta_url);
	csm_der_close(d, seq);
	csm_der_close(d, outer);
}

static int tbs_put(struct csm_der *d, const struct csm_crl_order *o, const X509_ALGOR *alg, struct csm_bin key_id)
{
	size_t seq = csm_der_open(d, CSM_DER_SEQ);
	int r;

	csm_der_number(d, X509_CRL_VERSION_2);
	csm_der_item(d, ASN1_ITEM_rptr(X509_ALGOR), alg);
	csm_der_item(d, ASN1_ITEM_rptr(X509_NAME), X509_get_subject_name(o->issuer));
	csm_der_time(d, o->this_update, false);
	csm_der_time(d, o->next_update, false);
	if ((r = entries_put(d, o)) != 0)
		return r;
	exts_put(d, o, key_id);
	csm_der_close(d, seq);
	return d->r;
}

int csm_crl_tbs(const struct csm_crl_order *o, const struct csm_scheme *scheme, struct csm_buf *out)
{
	struct csm_der d = {out, 0};
	X509_ALGOR *alg = NULL;
	struct csm_buf key_id;
	size_t before = out->len;
	int r;

	if (o->number == 0 || o->base >= o->number || o->next_update <= o->this_update)
		return CSM_EINVALID;
	csm_buf_init(&key_id, 256, false);
	if ((r = csm_issuer_key_id(o->issuer, &key_id)) == 0 && (r = csm_sigalg_new(scheme, &alg)) == 0)
		r = tbs_put(&d, o, alg, (struct csm_bin){csm_buf_ptr(&key_id), key_id.len});
	X509_ALGOR_free(alg);
	csm_buf_free(&key_id);
	ERR_clear_error();
	if (r != 0)
		out->len = before;
	return r;
}

int csm_crl_issue(const struct csm_crl_order *o, const struct csm_signer *signer, struct csm_buf *out)
{
	EVP_PKEY *key = X509_get0_pubkey(o->issuer);
	struct csm_buf tbs;
	int r;

	if (key == NULL || EVP_PKEY_eq(key, signer->pub) != 1)
		return CSM_EINVALID;
	if (X509_check_ca(o->issuer) != 1 || (X509_get_key_usage(o->issuer) & KU_CRL_SIGN) == 0)
		return CSM_EDENIED;
	csm_buf_init(&tbs, TBS_MAX, false);
	r = csm_crl_tbs(o, &signer->scheme, &tbs);
	if (r == 0)
		r = csm_signed_put(signer, (struct csm_bin){csm_buf_ptr(&tbs), tbs.len}, out);
	csm_buf_free(&tbs);
	return r;
}
