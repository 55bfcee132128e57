#include <string.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
#include "daemon/pki/sigalg.h"

static const EVP_MD *hash_md(enum csm_hash hash)
{
	const char *name = csm_hash_name(hash);

	return name != NULL ? EVP_get_digestbyname(name) : NULL;
}

bool csm_sigalg_fits(const EVP_PKEY *pkey, const struct csm_scheme *scheme)
{
	static const struct {
		int id;
		enum csm_alg like;
	} rows[] = {
		{EVP_PKEY_EC, CSM_ALG_P256},
		{EVP_PKEY_RSA, CSM_ALG_RSA2048},
		{EVP_PKEY_ED25519, CSM_ALG_ED25519},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (EVP_PKEY_get_base_id(pkey) == rows[i].id)
			return scheme->kind != CSM_SCHEME_RSA_OAEP && csm_scheme_check(rows[i].like, scheme) == 0;
	return false;
}

/* RSASSA-PSS-params with everything said (RFC 8017 A.2.3): hash, MGF1 with it, salt of its length. */
static ASN1_STRING *pss_params(enum csm_hash hash)
{
	const EVP_MD *md = hash_md(hash);
	RSA_PSS_PARAMS *pss = RSA_PSS_PARAMS_new();
	X509_ALGOR *mgf_hash = X509_ALGOR_new();
	ASN1_STRING *packed = NULL, *ret = NULL;

	if (pss == NULL || mgf_hash == NULL || md == NULL || (pss->hashAlgorithm = X509_ALGOR_new()) == NULL ||
		(pss->maskGenAlgorithm = X509_ALGOR_new()) == NULL || (pss->saltLength = ASN1_INTEGER_new()) == NULL ||
		ASN1_INTEGER_set(pss->saltLength, (long)csm_hash_size(hash)) != 1)
		goto out;
	X509_ALGOR_set_md(pss->hashAlgorithm, md);
	X509_ALGOR_set_md(mgf_hash, md);
	if (ASN1_item_pack(mgf_hash, ASN1_ITEM_rptr(X509_ALGOR), &packed) == NULL ||
		X509_ALGOR_set0(pss->maskGenAlgorithm, OBJ_nid2obj(NID_mgf1), V_ASN1_SEQUENCE, packed) != 1)
		goto out;
	packed = NULL;
	ret = ASN1_item_pack(pss, ASN1_ITEM_rptr(RSA_PSS_PARAMS), NULL);
out:
	ASN1_STRING_free(packed);
	X509_ALGOR_free(mgf_hash);
	RSA_PSS_PARAMS_free(pss);
	return ret;
}

int csm_sigalg_new(const struct csm_scheme *scheme, X509_ALGOR **ret)
{
	static const int nids[CSM_SCHEME_RSA_PKCS1 + 1][CSM_HASH_SHA512 + 1] = {
		[CSM_SCHEME_ECDSA] = {NID_undef, NID_ecdsa_with_SHA256, NID_ecdsa_with_SHA384, NID_ecdsa_with_SHA512},
		[CSM_SCHEME_RSA_PKCS1] = {NID_undef, NID_sha256WithRSAEncryption, NID_sha384WithRSAEncryption,
			NID_sha512WithRSAEncryption},
	};
	X509_ALGOR *alg = X509_ALGOR_new();
	ASN1_STRING *params = NULL;
	int r = CSM_EINTERNAL, ok = 0;

	if (alg == NULL)
		return CSM_ENOMEM;
	if (scheme->kind == CSM_SCHEME_ED25519) {
		ok = X509_ALGOR_set0(alg, OBJ_nid2obj(NID_ED25519), V_ASN1_UNDEF, NULL);
	} else if (scheme->kind == CSM_SCHEME_RSA_PSS) {
		if ((params = pss_params(scheme->hash)) == NULL)
			goto out;
		if ((ok = X509_ALGOR_set0(alg, OBJ_nid2obj(NID_rsassaPss), V_ASN1_SEQUENCE, params)) == 1)
			params = NULL;
	} else if (scheme->kind != CSM_SCHEME_RSA_OAEP) {
		ok = X509_ALGOR_set0(alg, OBJ_nid2obj(nids[scheme->kind][scheme->hash]),
			scheme->kind == CSM_SCHEME_RSA_PKCS1 ? V_ASN1_NULL : V_ASN1_UNDEF, NULL);
	}
	if (ok != 1)
		goto out;
	*ret = alg;
	alg = NULL;
	r = 0;
out:
	ASN1_STRING_free(params);
	X509_ALGOR_free(alg);
	return r;
}

/* By their DER: a string that was packed here has another type than one that was read. */
static bool same(const X509_ALGOR *a, const X509_ALGOR *b)
{
	unsigned char *der_a = NULL, *der_b = NULL;
	int n = i2d_X509_ALGOR(a, &der_a), m = i2d_X509_ALGOR(b, &der_b);
	bool ret = n > 0 && n == m && memcmp(der_a, der_b, (size_t)n) == 0;

	OPENSSL_free(der_a);
	OPENSSL_free(der_b);
	return ret;
}

int csm_sigalg_scheme(const X509_ALGOR *alg, struct csm_scheme *ret)
{
	static const struct csm_scheme all[] = {
		{CSM_SCHEME_ECDSA, CSM_HASH_SHA256}, {CSM_SCHEME_ECDSA, CSM_HASH_SHA384}, {CSM_SCHEME_ECDSA, CSM_HASH_SHA512},
		{CSM_SCHEME_RSA_PKCS1, CSM_HASH_SHA256}, {CSM_SCHEME_RSA_PKCS1, CSM_HASH_SHA384},
		{CSM_SCHEME_RSA_PKCS1, CSM_HASH_SHA512}, {CSM_SCHEME_RSA_PSS, CSM_HASH_SHA256},
		{CSM_SCHEME_RSA_PSS, CSM_HASH_SHA384}, {CSM_SCHEME_RSA_PSS, CSM_HASH_SHA512},
		{CSM_SCHEME_ED25519, CSM_HASH_NONE},
	};
	int r = CSM_EUNSUPPORTED;

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]) && r == CSM_EUNSUPPORTED; i++) {
		X509_ALGOR *one = NULL;

		if ((r = csm_sigalg_new(&all[i], &one)) == 0 && same(one, alg))
			*ret = all[i];
		else if (r == 0)
			r = CSM_EUNSUPPORTED;
		X509_ALGOR_free(one);
	}
	return r;
}

/* The hash that PSS parameters name; NID_undef where they cannot be read. */
static int pss_hash(const X509_ALGOR *alg)
{
	RSA_PSS_PARAMS *pss = NULL;
	const void *params;
	int kind, nid = NID_undef;

	X509_ALGOR_get0(NULL, &kind, &params, alg);
	if (kind == V_ASN1_SEQUENCE)
		pss = ASN1_item_unpack(params, ASN1_ITEM_rptr(RSA_PSS_PARAMS));
	if (pss != NULL && pss->hashAlgorithm != NULL)
		nid = OBJ_obj2nid(pss->hashAlgorithm->algorithm);
	RSA_PSS_PARAMS_free(pss);
	return nid;
}

bool csm_sigalg_is_strong(const X509_ALGOR *alg)
{
	const ASN1_OBJECT *obj;
	int nid, hash = NID_undef, key = NID_undef;

	X509_ALGOR_get0(&obj, NULL, NULL, alg);
	nid = OBJ_obj2nid(obj);
	if (nid == NID_ED25519)
		return true;
	if (nid == NID_rsassaPss)
		hash = pss_hash(alg);
	else if (OBJ_find_sigid_algs(nid, &hash, &key) != 1 || (key != NID_rsaEncryption && key != NID_X9_62_id_ecPublicKey))
		return false;
	return hash == NID_sha256 || hash == NID_sha384 || hash == NID_sha512;
}

int csm_sigalg_digest(const struct csm_scheme *scheme, struct csm_bin tbs, uint8_t digest[static CSM_DIGEST_MAX],
	struct csm_bin *ret)
{
	unsigned n = 0;

	if (scheme->hash == CSM_HASH_NONE) {
		*ret = tbs;
		return 0;
	}
	if (EVP_Digest(tbs.p, tbs.n, digest, &n, hash_md(scheme->hash), NULL) != 1)
		return CSM_EINTERNAL;
	*ret = (struct csm_bin){digest, n};
	return 0;
}

/* ---- signing ---- */

static bool verify_init(EVP_PKEY_CTX *ctx, const struct csm_scheme *scheme)
{
	return EVP_PKEY_verify_init(ctx) == 1 && EVP_PKEY_CTX_set_signature_md(ctx, hash_md(scheme->hash)) == 1 &&
		(scheme->kind != CSM_SCHEME_RSA_PSS || (EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) == 1 &&
			EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) == 1));
}

static int verify_digest(EVP_PKEY *pub, const struct csm_scheme *scheme, struct csm_bin in, struct csm_bin sig)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(pub, NULL);
	int r = CSM_EBACKEND;

	if (ctx == NULL)
		return CSM_ENOMEM;
	if (!verify_init(ctx, scheme))
		r = CSM_EINTERNAL;
	else if (EVP_PKEY_verify(ctx, sig.p, sig.n, in.p, in.n) == 1)
		r = 0;
	EVP_PKEY_CTX_free(ctx);
	return r;
}

/* Ed25519, which hashes itself. */
static int verify_whole(EVP_PKEY *pub, struct csm_bin in, struct csm_bin sig)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	int r = CSM_EBACKEND;

	if (ctx == NULL)
		return CSM_ENOMEM;
	if (EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, pub) != 1)
		r = CSM_EINTERNAL;
	else if (EVP_DigestVerify(ctx, sig.p, sig.n, in.p, in.n) == 1)
		r = 0;
	EVP_MD_CTX_free(ctx);
	return r;
}

int csm_sigalg_verify(EVP_PKEY *pub, const struct csm_scheme *scheme, struct csm_bin in, struct csm_bin sig)
{
	int r = scheme->hash == CSM_HASH_NONE ? verify_whole(pub, in, sig) : verify_digest(pub, scheme, in, sig);

	ERR_clear_error();
	return r;
}

static int verify(const struct csm_signer *s, struct csm_bin tbs, struct csm_bin sig)
{
	uint8_t digest[CSM_DIGEST_MAX];
	struct csm_bin in;
	int r;

	if (s->believed)
		return 0;
	r = csm_sigalg_digest(&s->scheme, tbs, digest, &in);
	return r != 0 ? r : csm_sigalg_verify(s->pub, &s->scheme, in, sig);
}

int csm_signed_parts(const struct csm_signer *s, struct csm_bin tbs, struct csm_der *d)
{
	uint8_t sig[CSM_SIGNATURE_MAX];
	X509_ALGOR *alg = NULL;
	size_t n = 0;
	int r;

	if (!csm_sigalg_fits(s->pub, &s->scheme))
		return CSM_EINVALID;
	if ((r = csm_sigalg_new(&s->scheme, &alg)) != 0)
		return r;
	r = s->sign(s->arg, tbs, &s->scheme, sig, &n);
	if (r == 0 && (n == 0 || n > sizeof(sig)))
		r = CSM_EBACKEND;
	if (r == 0)
		r = verify(s, tbs, (struct csm_bin){sig, n});
	if (r == 0) {
		csm_der_raw(d, tbs.p, tbs.n);
		csm_der_item(d, ASN1_ITEM_rptr(X509_ALGOR), alg);
		csm_der_bits(d, sig, n);
		r = d->r;
	}
	X509_ALGOR_free(alg);
	return r;
}

int csm_signed_put(const struct csm_signer *s, struct csm_bin tbs, struct csm_buf *out)
{
	struct csm_der d = {out, 0};
	size_t at = csm_der_open(&d, CSM_DER_SEQ);
	int r = csm_signed_parts(s, tbs, &d);

	csm_der_close(&d, at);
	if (r == 0)
		r = d.r;
	if (r != 0)
		out->len = at;
	return r;
}
