/* An OCSP response that an issuer's key, or that of a responder it named, is asked to sign. */
#include <string.h>
#include <openssl/ocsp.h>
#include "daemon/pki/tbs_int.h"

#define SINGLES_MAX 1000

struct reading {
	struct tbs_issuer *is;
	X509 *issuer; /* of what it tells of */
	OCSP_BASICRESP *bs;
};

static int parse(struct reading *rd, struct csm_bin tbs, const struct csm_scheme *scheme)
{
	X509_ALGOR *alg = NULL;
	struct csm_buf framed;
	const unsigned char *at;
	unsigned char *again = NULL;
	bool same = false;
	int n, r;

	csm_buf_init(&framed, CSM_MESSAGE_MAX, false);
	if ((r = csm_sigalg_new(scheme, &alg)) != 0 || (r = tbs_framed(tbs, alg, &framed)) != 0)
		goto out;
	at = csm_buf_ptr(&framed);
	rd->bs = d2i_OCSP_BASICRESP(NULL, &at, (long)framed.len);
	if (rd->bs != NULL && (n = i2d_OCSP_BASICRESP(rd->bs, &again)) > 0)
		same = (size_t)n == framed.len && memcmp(again, csm_buf_ptr(&framed), framed.len) == 0;
	r = same ? 0 : tbs_refuse(rd->is, CSM_EINVALID, "not ResponseData, or not in DER");
out:
	OPENSSL_free(again);
	X509_ALGOR_free(alg);
	csm_buf_free(&framed);
	return r;
}

/* A version that is written out is not DER: 1 is the default, and there is no other. */
static bool has_version(struct csm_bin tbs)
{
	struct csm_bin body;
	uint8_t tag;

	return tbs_take(&tbs, &tag, &body, NULL) && body.n > 0 && body.p[0] == CSM_DER_CONTEXT_SEQ(0);
}

/* Who may say it: the CA itself, or whom it made its responder. */
static int find_issuer(struct reading *rd)
{
	struct tbs_issuer *is = rd->is;

	if (is->cert == NULL)
		return tbs_refuse(is, CSM_ESTATE, "no certificate is installed beside the key");
	if (is->is_ca) {
		rd->issuer = is->cert;
		return 0;
	}
	rd->issuer = is->above;
	return tbs_is_responder(is->cert) && is->above != NULL ? 0 :
		tbs_refuse(is, CSM_ESTATE, "the certificate beside the key is neither a CA's nor an OCSP responder's with its issuer");
}

static int check_responder(struct reading *rd)
{
	const ASN1_OCTET_STRING *hash = NULL;
	const X509_NAME *name = NULL;
	uint8_t own[EVP_MAX_MD_SIZE];
	unsigned n = 0;
	bool good = false;

	if (OCSP_resp_get0_id(rd->bs, &hash, &name) != 1)
		return tbs_refuse(rd->is, CSM_EINVALID, "it names no responder");
	if (hash != NULL)
		good = X509_pubkey_digest(rd->is->cert, EVP_sha1(), own, &n) == 1 && ASN1_STRING_length(hash) == (int)n &&
			memcmp(ASN1_STRING_get0_data(hash), own, n) == 0;
	else if (name != NULL)
		good = X509_NAME_cmp(name, X509_get_subject_name(rd->is->cert)) == 0;
	return good ? 0 : tbs_refuse(rd->is, CSM_EDENIED, "its responder is not this key");
}

static int check_id(struct reading *rd, const OCSP_CERTID *id)
{
	ASN1_OBJECT *md = NULL;
	ASN1_INTEGER *serial = NULL;
	const EVP_MD *hash;
	OCSP_CERTID *own;
	bool same;
	int nid;

	if (OCSP_id_get0_info(NULL, &md, NULL, &serial, (OCSP_CERTID *)(uintptr_t)id) != 1)
		return CSM_EINTERNAL;
	nid = OBJ_obj2nid(md);
	hash = nid == NID_sha1 || nid == NID_sha256 || nid == NID_sha384 || nid == NID_sha512 ? EVP_get_digestbynid(nid) : NULL;
	if (hash == NULL)
		return tbs_refuse(rd->is, CSM_EINVALID, "it names an issuer by an unknown hash");
	own = OCSP_cert_id_new(hash, X509_get_subject_name(rd->issuer), X509_get0_pubkey_bitstr(rd->issuer), serial);
	if (own == NULL)
		return CSM_ENOMEM;
	same = OCSP_id_issuer_cmp(own, id) == 0;
	OCSP_CERTID_free(own);
	return same ? 0 : tbs_refuse(rd->is, CSM_EDENIED, "it tells of certificates of another issuer");
}

static bool at(const ASN1_GENERALIZEDTIME *t, uint64_t *ret)
{
	return t != NULL && tbs_seconds((const ASN1_TIME *)t, ret);
}

static bool any_critical(int n, X509_EXTENSION *(*get)(OCSP_SINGLERESP *, int), OCSP_SINGLERESP *one)
{
	for (int i = 0; i < n; i++)
		if (X509_EXTENSION_get_critical(get(one, i)) == 1)
			return true;
	return false;
}

static int check_single(struct reading *rd, OCSP_SINGLERESP *one)
{
	ASN1_GENERALIZEDTIME *revoked = NULL, *from = NULL, *to = NULL;
	const struct csm_tbs_key *key = rd->is->key;
	uint64_t begin, end, gone = 0;
	int reason, state = OCSP_single_get0_status(one, &reason, &revoked, &from, &to), r;

	if ((r = check_id(rd, OCSP_SINGLERESP_get0_id(one))) != 0)
		return r;
	if (state < 0 || !at(from, &begin) || !at(to, &end) || (state == V_OCSP_CERTSTATUS_REVOKED && !at(revoked, &gone)))
		return tbs_refuse(rd->is, CSM_EINVALID, "a status or a date cannot be read, or thisUpdate or nextUpdate is missing");
	if (end <= begin || begin > key->now + CSM_TBS_SKEW_S || end < key->now || gone > key->now + CSM_TBS_SKEW_S)
		return tbs_refuse(rd->is, CSM_EINVALID, "a status is of the future, of the past, or ends before it begins");
	if (end > key->now + key->rules->max_life.v)
		return tbs_refuse(rd->is, CSM_EDENIED, "a status holds for longer than %llu seconds",
			(unsigned long long)key->rules->max_life.v);
	return any_critical(OCSP_SINGLERESP_get_ext_count(one), OCSP_SINGLERESP_get_ext, one) ?
		tbs_refuse(rd->is, CSM_EDENIED, "a status has a critical extension") : 0;
}

static int check_all(struct reading *rd)
{
	const struct csm_tbs_key *key = rd->is->key;
	int n = OCSP_resp_count(rd->bs), r = 0;
	uint64_t made;

	if (!at(OCSP_resp_get0_produced_at(rd->bs), &made) || made > key->now + CSM_TBS_SKEW_S || made + CSM_TBS_SKEW_S < key->now)
		return tbs_refuse(rd->is, CSM_EINVALID, "it was not produced today");
	for (int i = 0; i < OCSP_BASICRESP_get_ext_count(rd->bs); i++)
		if (X509_EXTENSION_get_critical(OCSP_BASICRESP_get_ext(rd->bs, i)) == 1)
			return tbs_refuse(rd->is, CSM_EDENIED, "it has a critical extension");
	if (n < 1 || n > SINGLES_MAX)
		return tbs_refuse(rd->is, CSM_EINVALID, "it tells of none, or of more than %d certificates", SINGLES_MAX);
	for (int i = 0; i < n && r == 0; i++)
		r = check_single(rd, OCSP_resp_get0(rd->bs, i));
	return r;
}

int tbs_ocsp(struct tbs_issuer *is, struct csm_bin tbs, struct csm_tbs *ret)
{
	struct reading rd = {.is = is};
	int r = CSM_EINVALID;

	ret->scheme = csm_scheme_default(is->key->alg);
	if (has_version(tbs))
		r = tbs_refuse(is, r, "not ResponseData, or not in DER");
	else if ((r = parse(&rd, tbs, &ret->scheme)) == 0 && (r = find_issuer(&rd)) == 0 && (r = check_responder(&rd)) == 0)
		r = check_all(&rd);
	OCSP_BASICRESP_free(rd.bs);
	return r;
}
