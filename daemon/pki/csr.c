#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include "daemon/pki/csr.h"
#include "daemon/pki/subject.h"
#include "proto-spec/limits.h"

#define WHY_SIZE 128
/* Of a request beside what is signed: two headers, the algorithm, the signature. */
#define CSR_OUTER_MAX (CSM_SIGNATURE_MAX + 128u)

struct csm_csr {
	X509_REQ *req;
	uint8_t *der; /* the to-be-signed bytes, OpenSSL's memory */
	uint8_t digest[CSM_DIGEST_MAX];
	struct csm_bin tbs; /* der, or digest */
};

static const EVP_MD *hash_md(enum csm_hash hash)
{
	const char *name = csm_hash_name(hash);

	return name != NULL ? EVP_get_digestbyname(name) : NULL;
}

/* Does a key of this kind sign by this scheme? */
static bool key_fits(const EVP_PKEY *pkey, const struct csm_scheme *scheme)
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

static int key_put(X509_REQ *req, const struct csm_csr_spec *spec, char *why)
{
	const uint8_t *at = spec->spki;
	EVP_PKEY *pkey = spec->spki_len <= CSM_SPKI_MAX ? d2i_PUBKEY(NULL, &at, (long)spec->spki_len) : NULL;
	int r = CSM_EINVALID;

	if (pkey == NULL || at != spec->spki + spec->spki_len) {
		snprintf(why, WHY_SIZE, "public key: not a SubjectPublicKeyInfo that OpenSSL reads");
		goto out;
	}
	if (!key_fits(pkey, &spec->scheme)) {
		snprintf(why, WHY_SIZE, "scheme: this key does not sign by it");
		goto out;
	}
	r = X509_REQ_set_pubkey(req, pkey) == 1 ? 0 : CSM_EINTERNAL;
out:
	EVP_PKEY_free(pkey);
	return r;
}

static int sans_put(X509_REQ *req, const struct csm_csr_spec *spec, char *why)
{
	/* A name that stands in the extension alone must be critical (RFC 5280 4.1.2.6). */
	int critical = X509_NAME_entry_count(X509_REQ_get_subject_name(req)) == 0;
	GENERAL_NAMES *names = NULL;
	STACK_OF(X509_EXTENSION) *exts = NULL;
	int r;

	if ((r = csm_sans_parse(spec->sans, spec->n_sans, &names, why)) != 0 || names == NULL)
		return r;
	r = CSM_EINTERNAL;
	if (X509V3_add1_i2d(&exts, NID_subject_alt_name, names, critical, X509V3_ADD_DEFAULT) == 1 &&
		X509_REQ_add_extensions(req, exts) == 1)
		r = 0;
	sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
	GENERAL_NAMES_free(names);
	return r;
}

static int subject_put(X509_REQ *req, const struct csm_csr_spec *spec, char *why)
{
	X509_NAME *name = NULL;
	int r;

	if ((r = csm_subject_parse(spec->subject, &name, why)) == 0 && X509_REQ_set_subject_name(req, name) != 1)
		r = CSM_EINTERNAL;
	X509_NAME_free(name);
	return r;
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

static int algorithm_put(X509_REQ *req, const struct csm_scheme *scheme)
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
		return r;
	if (scheme->kind == CSM_SCHEME_ED25519) {
		ok = X509_ALGOR_set0(alg, OBJ_nid2obj(NID_ED25519), V_ASN1_UNDEF, NULL);
	} else if (scheme->kind == CSM_SCHEME_RSA_PSS) {
		if ((params = pss_params(scheme->hash)) == NULL)
			goto out;
		if ((ok = X509_ALGOR_set0(alg, OBJ_nid2obj(NID_rsassaPss), V_ASN1_SEQUENCE, params)) == 1)
			params = NULL;
	} else {
		ok = X509_ALGOR_set0(alg, OBJ_nid2obj(nids[scheme->kind][scheme->hash]),
			scheme->kind == CSM_SCHEME_RSA_PKCS1 ? V_ASN1_NULL : V_ASN1_UNDEF, NULL);
	}
	if (ok == 1 && X509_REQ_set1_signature_algo(req, alg) == 1)
		r = 0;
out:
	ASN1_STRING_free(params);
	X509_ALGOR_free(alg);
	return r;
}

static int tbs_make(struct csm_csr *csr, const struct csm_scheme *scheme, char *why)
{
	int n = i2d_re_X509_REQ_tbs(csr->req, &csr->der);
	unsigned digest_len = 0;

	if (n <= 0)
		return CSM_EINTERNAL;
	if ((size_t)n + CSR_OUTER_MAX > CSM_CSR_MAX) {
		snprintf(why, WHY_SIZE, "request: its names make it larger than %u bytes", CSM_CSR_MAX);
		return CSM_EINVALID;
	}
	if (scheme->hash == CSM_HASH_NONE) {
		csr->tbs = (struct csm_bin){csr->der, (size_t)n};
		return 0;
	}
	if (EVP_Digest(csr->der, (size_t)n, csr->digest, &digest_len, hash_md(scheme->hash), NULL) != 1)
		return CSM_EINTERNAL;
	csr->tbs = (struct csm_bin){csr->digest, digest_len};
	return 0;
}

int csm_csr_build(const struct csm_csr_spec *spec, struct csm_csr **ret, char why[static 128])
{
	struct csm_csr *csr = calloc(1, sizeof(*csr));
	int r = CSM_ENOMEM;

	if (csr == NULL || (csr->req = X509_REQ_new()) == NULL)
		goto out;
	r = CSM_EINTERNAL;
	if (X509_REQ_set_version(csr->req, X509_REQ_VERSION_1) != 1)
		goto out;
	if ((r = subject_put(csr->req, spec, why)) != 0 || (r = key_put(csr->req, spec, why)) != 0 ||
		(r = sans_put(csr->req, spec, why)) != 0 || (r = algorithm_put(csr->req, &spec->scheme)) != 0 ||
		(r = tbs_make(csr, &spec->scheme, why)) != 0)
		goto out;
	*ret = csr;
	csr = NULL;
out:
	if (r != 0)
		ERR_clear_error();
	csm_csr_free(csr);
	return r;
}

struct csm_bin csm_csr_tbs(const struct csm_csr *csr)
{
	return csr->tbs;
}

int csm_csr_finish(struct csm_csr *csr, const uint8_t *sig, size_t n, struct csm_buf *out)
{
	ASN1_BIT_STRING *bits = NULL;
	uint8_t *der = NULL;
	int len, r = CSM_EINTERNAL;

	if (n == 0 || n > CSM_SIGNATURE_MAX)
		return CSM_EINVALID;
	if ((bits = ASN1_BIT_STRING_new()) == NULL || ASN1_STRING_set(bits, sig, (int)n) != 1) {
		ASN1_BIT_STRING_free(bits);
		return CSM_ENOMEM;
	}
	/* All bits count: without this OpenSSL drops zero bits at the end. */
	bits->flags = (bits->flags & ~0x07L) | ASN1_STRING_FLAG_BITS_LEFT;
	X509_REQ_set0_signature(csr->req, bits); /* takes it */
	if ((len = i2d_X509_REQ(csr->req, &der)) > 0)
		r = csm_buf_put(out, der, (size_t)len);
	OPENSSL_free(der);
	if (r != 0)
		ERR_clear_error();
	return r;
}

void csm_csr_free(struct csm_csr *csr)
{
	if (csr == NULL)
		return;
	X509_REQ_free(csr->req);
	OPENSSL_free(csr->der);
	free(csr);
}
