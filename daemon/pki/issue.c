#define OPENSSL_SUPPRESS_DEPRECATED
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <openssl/err.h>
#include <openssl/sha.h>
#include "daemon/pki/issue.h"

#define TBS_MAX (64u * 1024u)
#define URL_MAX 512u
#define TIME_MAX 253402300799u /* the last second of 9999 */
#define EXT_MAX 4096u

static int refuse(char *why, int r, const char *text)
{
	csm_text_put(why, CSM_CERTREQ_WHY, "%s", text);
	return r;
}

/* ---- key identifiers ---- */

/* The next element of `at`, which it takes off; no more than its tag is looked at. */
static bool next_element(struct csm_bin *at, int wanted, struct csm_bin *ret)
{
	const unsigned char *p = at->p;
	int tag = 0, class = 0, form;
	long n = 0;

	form = ASN1_get_object(&p, &n, &tag, &class, (long)at->n);
	if (form != (wanted == V_ASN1_SEQUENCE ? V_ASN1_CONSTRUCTED : 0) || tag != wanted || class != V_ASN1_UNIVERSAL)
		return false;
	*ret = (struct csm_bin){p, (size_t)n};
	*at = (struct csm_bin){p + n, at->n - (size_t)(p + n - at->p)};
	return true;
}

/* By hand: OpenSSL would make a key of it, which takes longer than a signature. Its SHA-256 is used below EVP, which takes longer than
 * the hash. */
int csm_key_id(struct csm_bin spki, uint8_t ret[static CSM_X509_KEY_ID_LEN])
{
	uint8_t hash[SHA256_DIGEST_LENGTH];
	struct csm_bin whole, alg, bits;
	SHA256_CTX c;
	int r = CSM_EINVALID;

	if (next_element(&spki, V_ASN1_SEQUENCE, &whole) && spki.n == 0 && next_element(&whole, V_ASN1_SEQUENCE, &alg) &&
		next_element(&whole, V_ASN1_BIT_STRING, &bits) && whole.n == 0 && bits.n > 1 && bits.p[0] == 0) {
		SHA256_Init(&c);
		SHA256_Update(&c, bits.p + 1, bits.n - 1);
		SHA256_Final(hash, &c);
		memcpy(ret, hash, CSM_X509_KEY_ID_LEN);
		r = 0;
	}
	ERR_clear_error();
	return r;
}

int csm_issuer_key_id(X509 *issuer, struct csm_buf *out)
{
	const ASN1_OCTET_STRING *id = X509_get0_subject_key_id(issuer);
	uint8_t own[CSM_X509_KEY_ID_LEN];
	unsigned char *der = NULL;
	int n, r;

	if (id != NULL)
		return csm_buf_put(out, ASN1_STRING_get0_data(id), (size_t)ASN1_STRING_length(id));
	n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(issuer), &der);
	if (n <= 0)
		return CSM_EINTERNAL;
	r = csm_key_id((struct csm_bin){der, (size_t)n}, own);
	OPENSSL_free(der);
	return r == 0 ? csm_buf_put(out, own, sizeof(own)) : r;
}

void csm_authority_ext(struct csm_der *d, struct csm_bin key_id)
{
	size_t in, at = csm_der_ext_open(d, NID_authority_key_identifier, false, &in), seq = csm_der_open(d, CSM_DER_SEQ);

	csm_der_put(d, CSM_DER_CONTEXT(0), key_id.p, key_id.n);
	csm_der_close(d, seq);
	csm_der_ext_close(d, at, in);
}

/* ---- what points elsewhere ---- */

static bool url_valid(const char *url)
{
	size_t n = strlen(url);

	for (size_t i = 0; i < n; i++)
		if (url[i] <= 0x20 || url[i] > 0x7e)
			return false;
	return n > 0 && n <= URL_MAX && strchr(url, ':') != NULL;
}

void csm_crl_url_ext(struct csm_der *d, int nid, const char *url)
{
	size_t in, at = csm_der_ext_open(d, nid, false, &in);
	size_t all = csm_der_open(d, CSM_DER_SEQ), one = csm_der_open(d, CSM_DER_SEQ);
	size_t point = csm_der_open(d, CSM_DER_CONTEXT_SEQ(0)), full = csm_der_open(d, CSM_DER_CONTEXT_SEQ(0));

	csm_der_put(d, CSM_DER_CONTEXT(GEN_URI), url, strlen(url));
	csm_der_close(d, full);
	csm_der_close(d, point);
	csm_der_close(d, one);
	csm_der_close(d, all);
	csm_der_ext_close(d, at, in);
}

static void access_put(struct csm_der *d, int nid, const char *url)
{
	size_t at = csm_der_open(d, CSM_DER_SEQ);

	csm_der_oid(d, nid);
	csm_der_put(d, CSM_DER_CONTEXT(GEN_URI), url, strlen(url));
	csm_der_close(d, at);
}

static void access_ext(struct csm_der *d, const struct csm_profile *p)
{
	size_t in, at = csm_der_ext_open(d, NID_info_access, false, &in), seq = csm_der_open(d, CSM_DER_SEQ);

	if (p->ocsp_url != NULL)
		access_put(d, NID_ad_OCSP, p->ocsp_url);
	if (p->issuer_url != NULL)
		access_put(d, NID_ad_ca_issuers, p->issuer_url);
	csm_der_close(d, seq);
	csm_der_ext_close(d, at, in);
}

/* ---- usages and constraints ---- */

static int path_len_of(const struct csm_cert_order *o)
{
	long above = o->issuer != NULL ? X509_get_pathlen(o->issuer) : CSM_PATH_ANY;

	if (above == CSM_PATH_ANY || (o->profile->path_len != CSM_PATH_ANY && o->profile->path_len < above))
		return o->profile->path_len;
	return (int)above - 1;
}

static void basic_ext(struct csm_der *d, const struct csm_cert_order *o)
{
	size_t in, at = csm_der_ext_open(d, NID_basic_constraints, true, &in), seq = csm_der_open(d, CSM_DER_SEQ);
	const uint8_t yes = 0xff;
	int path = path_len_of(o);

	if (o->profile->ca) {
		csm_der_put(d, V_ASN1_BOOLEAN, &yes, 1);
		if (path != CSM_PATH_ANY)
			csm_der_number(d, (uint64_t)path);
	}
	csm_der_close(d, seq);
	csm_der_ext_close(d, at, in);
}

/* Named bits: none that is zero stands at the end (X.690 11.2.2). */
static void usage_ext(struct csm_der *d, uint32_t usage)
{
	uint8_t v[3] = {0, (uint8_t)usage, (uint8_t)(usage >> 8)};
	size_t in, at = csm_der_ext_open(d, NID_key_usage, true, &in), n = v[2] != 0 ? 3 : v[1] != 0 ? 2 : 1;

	if (n > 1)
		v[0] = (uint8_t)__builtin_ctz(v[n - 1]);
	csm_der_put(d, V_ASN1_BIT_STRING, v, n);
	csm_der_ext_close(d, at, in);
}

static void ekus_ext(struct csm_der *d, const struct csm_profile *p)
{
	size_t in, at = csm_der_ext_open(d, NID_ext_key_usage, false, &in), seq = csm_der_open(d, CSM_DER_SEQ);

	for (size_t i = 0; i < p->n_ekus; i++)
		csm_der_oid_text(d, p->ekus[i]);
	csm_der_close(d, seq);
	csm_der_ext_close(d, at, in);
}

static void constraints_ext(struct csm_der *d, const struct csm_profile *p)
{
	NAME_CONSTRAINTS *nc = NULL;
	int r = csm_constraints_new(p->permitted, p->n_permitted, p->excluded, p->n_excluded, &nc);

	if (r == 0)
		csm_der_ext(d, NID_name_constraints, true, ASN1_ITEM_rptr(NAME_CONSTRAINTS), nc);
	else if (d->r == 0)
		d->r = r;
	NAME_CONSTRAINTS_free(nc);
}

/* ---- the whole ---- */

static void own_id_ext(struct csm_der *d, const uint8_t own[static CSM_X509_KEY_ID_LEN])
{
	size_t in, at = csm_der_ext_open(d, NID_subject_key_identifier, false, &in);

	csm_der_put(d, V_ASN1_OCTET_STRING, own, CSM_X509_KEY_ID_LEN);
	csm_der_ext_close(d, at, in);
}

static void ids_put(struct csm_der *d, const struct csm_cert_order *o)
{
	uint8_t own[CSM_X509_KEY_ID_LEN];
	struct csm_buf above;
	int r = csm_key_id(o->spki, own);

	csm_buf_init(&above, EXT_MAX, false);
	if (r == 0)
		r = o->issuer != NULL ? csm_issuer_key_id(o->issuer, &above) : csm_buf_put(&above, own, sizeof(own));
	if (r == 0) {
		own_id_ext(d, own);
		csm_authority_ext(d, (struct csm_bin){csm_buf_ptr(&above), above.len});
	} else if (d->r == 0) {
		d->r = r;
	}
	csm_buf_free(&above);
}

static void exts_put(struct csm_der *d, const struct csm_cert_order *o)
{
	static const uint8_t null[] = {V_ASN1_NULL, 0};
	const struct csm_profile *p = o->profile;
	bool nameless = X509_NAME_entry_count(o->subject) == 0;
	size_t outer = csm_der_open(d, CSM_DER_CONTEXT_SEQ(3)), seq = csm_der_open(d, CSM_DER_SEQ);

	basic_ext(d, o);
	usage_ext(d, p->key_usage);
	if (p->n_ekus > 0)
		ekus_ext(d, p);
	ids_put(d, o);
	if (sk_GENERAL_NAME_num(o->sans) > 0)
		csm_der_ext(d, NID_subject_alt_name, nameless, ASN1_ITEM_rptr(GENERAL_NAMES), o->sans);
	if (p->n_permitted > 0 || p->n_excluded > 0)
		constraints_ext(d, p);
	if (p->crl_url != NULL)
		csm_crl_url_ext(d, NID_crl_distribution_points, p->crl_url);
	if (p->delta_url != NULL)
		csm_crl_url_ext(d, NID_freshest_crl, p->delta_url);
	if (p->ocsp_url != NULL || p->issuer_url != NULL)
		access_ext(d, p);
	if (p->ocsp_no_check)
		csm_der_ext_raw(d, NID_id_pkix_OCSP_noCheck, false, (struct csm_bin){null, sizeof(null)});
	csm_der_close(d, seq);
	csm_der_close(d, outer);
}

static int check_issuer(const struct csm_cert_order *o, char *why)
{
	struct tm tm;
	time_t end;

	if (o->issuer == NULL)
		return o->profile->ca ? 0 : refuse(why, CSM_EDENIED, "only a CA's certificate is signed by itself");
	if (X509_check_ca(o->issuer) != 1 || (X509_get_key_usage(o->issuer) & KU_KEY_CERT_SIGN) == 0)
		return refuse(why, CSM_EDENIED, "the issuer is not a CA, or may not sign certificates");
	if (o->profile->ca && X509_get_pathlen(o->issuer) == 0)
		return refuse(why, CSM_EDENIED, "the issuer's path length allows no CA below it");
	if (ASN1_TIME_to_tm(X509_get0_notAfter(o->issuer), &tm) != 1 || (end = timegm(&tm)) < 0)
		return refuse(why, CSM_EINVALID, "the issuer's dates cannot be read");
	if (o->not_after > (uint64_t)end)
		return refuse(why, CSM_EDENIED, "it would outlive its issuer");
	return 0;
}

static int check_order(const struct csm_cert_order *o, char *why)
{
	static const uint8_t zero[CSM_SERIAL_LEN];
	const char *const urls[] = {o->profile->ocsp_url, o->profile->issuer_url, o->profile->crl_url, o->profile->delta_url};

	if (memcmp(o->serial, zero, sizeof(zero)) == 0)
		return refuse(why, CSM_EINVALID, "the serial number is zero");
	if (o->not_after <= o->not_before || o->not_after > TIME_MAX)
		return refuse(why, CSM_EINVALID, "it ends before it begins, or after the year 9999");
	if (o->not_after - o->not_before > o->profile->max_life)
		return refuse(why, CSM_EDENIED, "its life is longer than the profile's");
	if (X509_NAME_entry_count(o->subject) == 0 && (o->profile->ca || sk_GENERAL_NAME_num(o->sans) <= 0))
		return refuse(why, CSM_EINVALID, "it would have no name");
	for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++)
		if (urls[i] != NULL && !url_valid(urls[i]))
			return refuse(why, CSM_EINVALID, "a URL of the profile is none");
	return check_issuer(o, why);
}

int csm_cert_tbs(const struct csm_cert_order *o, const struct csm_scheme *scheme, struct csm_buf *out,
	char why[static CSM_CERTREQ_WHY])
{
	struct csm_der d = {out, 0};
	X509_ALGOR *alg = NULL;
	size_t before = out->len, seq, at;
	int r;

	why[0] = '\0';
	if ((r = check_order(o, why)) != 0 || (r = csm_sigalg_new(scheme, &alg)) != 0)
		return r;
	seq = csm_der_open(&d, CSM_DER_SEQ);
	at = csm_der_open(&d, CSM_DER_CONTEXT_SEQ(0));
	csm_der_number(&d, X509_VERSION_3);
	csm_der_close(&d, at);
	csm_der_uint(&d, o->serial, sizeof(o->serial));
	csm_der_item(&d, ASN1_ITEM_rptr(X509_ALGOR), alg);
	csm_der_item(&d, ASN1_ITEM_rptr(X509_NAME), o->issuer != NULL ? X509_get_subject_name(o->issuer) : o->subject);
	at = csm_der_open(&d, CSM_DER_SEQ);
	csm_der_time(&d, o->not_before, false);
	csm_der_time(&d, o->not_after, false);
	csm_der_close(&d, at);
	csm_der_item(&d, ASN1_ITEM_rptr(X509_NAME), o->subject);
	csm_der_raw(&d, o->spki.p, o->spki.n);
	exts_put(&d, o);
	csm_der_close(&d, seq);
	X509_ALGOR_free(alg);
	ERR_clear_error();
	if (d.r != 0)
		out->len = before;
	return d.r == CSM_EINVALID ? refuse(why, d.r, "name constraints, extended key usages or the public key cannot be read") :
		d.r;
}

/* The signer signs for the issuer; where there is none, for itself. */
static bool is_issuers(const struct csm_cert_order *o, const struct csm_signer *signer)
{
	const unsigned char *at = o->spki.p;
	EVP_PKEY *own = o->issuer == NULL ? d2i_PUBKEY(NULL, &at, (long)o->spki.n) : NULL;
	EVP_PKEY *key = o->issuer != NULL ? X509_get0_pubkey(o->issuer) : own;
	bool same = key != NULL && EVP_PKEY_eq(key, signer->pub) == 1;

	EVP_PKEY_free(own);
	ERR_clear_error();
	return same;
}

int csm_cert_issue(const struct csm_cert_order *o, const struct csm_signer *signer, struct csm_buf *out,
	char why[static CSM_CERTREQ_WHY])
{
	struct csm_buf tbs;
	int r;

	if (!is_issuers(o, signer))
		return refuse(why, CSM_EINVALID, "the key that signs is not the issuer's");
	csm_buf_init(&tbs, TBS_MAX, false);
	r = csm_cert_tbs(o, &signer->scheme, &tbs, why);
	if (r == 0)
		r = csm_signed_put(signer, (struct csm_bin){csm_buf_ptr(&tbs), tbs.len}, out);
	csm_buf_free(&tbs);
	return r;
}
