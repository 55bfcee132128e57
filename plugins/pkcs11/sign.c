/* Signatures: one C_Sign each, in a session of the pool, with a handle that is known.
 *
 * What the library gives out is checked. Its length and form each time; and by the public key each time where that costs
 * next to nothing beside the signature (RSA), else the first time that a key, found in the token, signs by a scheme: it
 * is then that a foreign key in the place of ours is seen. */
#include <string.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
#include <sodium.h>
#include "plugins/pkcs11/pkcs11.h"

/* DigestInfo up to the digest (RFC 8017 9.2). */
static const uint8_t digest_info[P11_HASHES][19] = {
	[CSM_HASH_SHA256] = {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01,
		0x05, 0x00, 0x04, 0x20},
	[CSM_HASH_SHA384] = {0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02,
		0x05, 0x00, 0x04, 0x30},
	[CSM_HASH_SHA512] = {0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03,
		0x05, 0x00, 0x04, 0x40},
};
#define DIGEST_INFO 19u

static const struct hash_row {
	CK_MECHANISM_TYPE mech;
	CK_RSA_PKCS_MGF_TYPE mgf;
} hashes[P11_HASHES] = {
	[CSM_HASH_SHA256] = {CKM_SHA256, CKG_MGF1_SHA256},
	[CSM_HASH_SHA384] = {CKM_SHA384, CKG_MGF1_SHA384},
	[CSM_HASH_SHA512] = {CKM_SHA512, CKG_MGF1_SHA512},
};

/* What C_SignInit and C_Sign take for a scheme. */
struct job {
	CK_MECHANISM mech;
	CK_RSA_PKCS_PSS_PARAMS pss;
	uint8_t own[DIGEST_INFO + CSM_DIGEST_MAX];
	const uint8_t *in;
	size_t in_len;
};

void p11_oaep(enum csm_hash hash, const uint8_t *label, size_t label_len, CK_RSA_PKCS_OAEP_PARAMS *ret)
{
	*ret = (CK_RSA_PKCS_OAEP_PARAMS){
		.hashAlg = hashes[hash].mech,
		.mgf = hashes[hash].mgf,
		.source = CKZ_DATA_SPECIFIED,
		.pSourceData = label_len > 0 ? (void *)(uintptr_t)label : NULL,
		.ulSourceDataLen = label_len,
	};
}

static void job_make(
	enum csm_alg alg, const struct csm_scheme *scheme, const uint8_t *in, size_t in_len, struct job *job)
{
	job->in = in_len != 0 ? in : (const uint8_t *)"";
	job->in_len = in_len;
	switch (scheme->kind) {
	case CSM_SCHEME_ECDSA:
		/* FIPS 186-5 6.4.1 takes the leftmost bits; not every token does. */
		job->mech.mechanism = CKM_ECDSA;
		if (in_len > p11_field(alg))
			job->in_len = p11_field(alg);
		break;
	case CSM_SCHEME_RSA_PKCS1:
		job->mech.mechanism = CKM_RSA_PKCS;
		memcpy(job->own, digest_info[scheme->hash], DIGEST_INFO);
		memcpy(job->own + DIGEST_INFO, in, in_len);
		job->in = job->own;
		job->in_len = DIGEST_INFO + in_len;
		break;
	case CSM_SCHEME_RSA_PSS:
		job->pss = (CK_RSA_PKCS_PSS_PARAMS){hashes[scheme->hash].mech, hashes[scheme->hash].mgf, in_len};
		job->mech = (CK_MECHANISM){CKM_RSA_PKCS_PSS, &job->pss, sizeof(job->pss)};
		break;
	default:
		job->mech.mechanism = CKM_EDDSA;
		break;
	}
}

static CK_RV sign_in(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE h, struct job *job,
	uint8_t out[static P11_OUT_MAX], size_t *n)
{
	CK_ULONG len = P11_OUT_MAX;
	CK_RV rv;

	memset(out, 0, P11_OUT_MAX); /* what is not written is no signature */
	if ((rv = ctx->f->C_SignInit(session, &job->mech, h)) != CKR_OK ||
		(rv = ctx->f->C_Sign(session, (CK_BYTE_PTR)(uintptr_t)job->in, job->in_len, out, &len)) != CKR_OK)
		return rv;
	*n = len;
	return CKR_OK;
}

/* From the form that the token gives to the one that is given out. CSM_EBACKEND: no such signature can be. */
static int form(enum csm_alg alg, EVP_PKEY *pkey, const uint8_t *raw, size_t raw_len,
	uint8_t sig[static CSM_SIGNATURE_MAX], size_t *n)
{
	size_t field = p11_field(alg), whole = field != 0 ? 2 * field : (size_t)EVP_PKEY_get_size(pkey);

	if (raw_len != whole)
		return CSM_EBACKEND;
	if (field != 0)
		return p11_ecdsa_der(raw, field, sig, n) ? 0 : CSM_EBACKEND;
	memcpy(sig, raw, raw_len);
	*n = raw_len;
	return 0;
}

static bool verify_digest(EVP_PKEY *pkey, const struct csm_scheme *scheme, const uint8_t *in,
	size_t in_len, const uint8_t *sig, size_t n)
{
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);
	EVP_MD *md = EVP_MD_fetch(NULL, csm_hash_name(scheme->hash), NULL);
	int padding = scheme->kind == CSM_SCHEME_RSA_PSS ? RSA_PKCS1_PSS_PADDING : RSA_PKCS1_PADDING;
	bool ok = c != NULL && md != NULL && EVP_PKEY_verify_init(c) == 1 &&
		EVP_PKEY_CTX_set_signature_md(c, md) == 1 &&
		(scheme->kind == CSM_SCHEME_ECDSA || EVP_PKEY_CTX_set_rsa_padding(c, padding) == 1);

	if (scheme->kind == CSM_SCHEME_RSA_PSS)
		ok = ok && EVP_PKEY_CTX_set_rsa_mgf1_md(c, md) == 1 &&
			EVP_PKEY_CTX_set_rsa_pss_saltlen(c, RSA_PSS_SALTLEN_DIGEST) == 1;
	ok = ok && EVP_PKEY_verify(c, sig, n, in, in_len) == 1;
	EVP_MD_free(md);
	EVP_PKEY_CTX_free(c);
	return ok;
}

static bool verify(EVP_PKEY *pkey, const struct csm_scheme *scheme, const uint8_t *in, size_t in_len,
	const uint8_t *sig, size_t n)
{
	EVP_MD_CTX *m;
	bool ok;

	if (scheme->kind != CSM_SCHEME_ED25519) {
		ok = verify_digest(pkey, scheme, in, in_len, sig, n);
	} else {
		m = EVP_MD_CTX_new();
		ok = m != NULL && EVP_DigestVerifyInit(m, NULL, NULL, NULL, pkey) == 1 &&
			EVP_DigestVerify(m, sig, n, in_len != 0 ? in : (const uint8_t *)"", in_len) == 1;
		EVP_MD_CTX_free(m);
	}
	ERR_clear_error();
	return ok;
}

/* Before it is given out. A key that has signed by no scheme yet may be somebody else's. */
static int check(struct csm_plugin_key *key, const struct csm_scheme *scheme, const uint8_t *in, size_t in_len,
	const uint8_t *sig, size_t n)
{
	bool *signs = &key->signs[scheme->kind][scheme->hash], any = false;

	if (*signs && !csm_alg_is_rsa(key->alg))
		return 0;
	if (verify(key->pkey, scheme, in, in_len, sig, n)) {
		*signs = true;
		return 0;
	}
	/* It was found by its modulus: what is wrong is the salt. */
	if (scheme->kind == CSM_SCHEME_RSA_PSS)
		return CSM_EUNSUPPORTED;
	for (unsigned kind = 0; kind < P11_KINDS; kind++)
		for (unsigned hash = 0; hash < P11_HASHES; hash++)
			any = any || key->signs[kind][hash];
	key->generation = 0; /* look for it anew */
	return any ? CSM_EBACKEND : CSM_ETAMPERED;
}

int p11_signs(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE h, enum csm_alg alg,
	EVP_PKEY *pkey, CK_RV *rv)
{
	struct csm_scheme scheme = csm_scheme_default(alg);
	uint8_t in[CSM_DIGEST_MAX], raw[P11_OUT_MAX], sig[CSM_SIGNATURE_MAX];
	size_t in_len = scheme.hash != CSM_HASH_NONE ? csm_hash_size(scheme.hash) : sizeof(in), raw_len = 0, n = 0;
	struct job job = {.mech = {0, NULL, 0}};

	randombytes_buf(in, sizeof(in));
	job_make(alg, &scheme, in, in_len, &job);
	if ((*rv = sign_in(ctx, session, h, &job, raw, &raw_len)) != CKR_OK)
		return p11_lost(*rv) ? p11_error(*rv) : CSM_EUNSUPPORTED;
	if (form(alg, pkey, raw, raw_len, sig, &n) != 0 || !verify(pkey, &scheme, in, in_len, sig, n))
		return CSM_EUNSUPPORTED;
	return 0;
}

static int sign_once(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, struct job *job, CK_RV *rv,
	uint8_t raw[static P11_OUT_MAX], size_t *n)
{
	struct p11_use use;
	int r;

	*rv = CKR_OK;
	if ((r = p11_key_begin(ctx, key, &use)) != 0)
		return r;
	if ((*rv = sign_in(ctx, use.session, key->h, job, raw, n)) != CKR_OK)
		p11_renew(ctx, &use);
	p11_end(ctx, &use, *rv);
	if (p11_stale(*rv))
		key->generation = 0;
	return p11_error(*rv);
}

int p11_sign(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct csm_scheme *scheme,
	const uint8_t *in, size_t in_len, struct csm_plugin_out *out)
{
	uint8_t raw[P11_OUT_MAX], sig[CSM_SIGNATURE_MAX];
	struct job job = {.mech = {0, NULL, 0}};
	size_t raw_len = 0, n = 0;
	CK_RV rv;
	int r;

	if ((key->use & CSM_USE_SIGN) == 0 || csm_scheme_check(key->alg, scheme) != 0 ||
		scheme->kind == CSM_SCHEME_RSA_OAEP)
		return CSM_EUNSUPPORTED;
	if (scheme->hash != CSM_HASH_NONE && in_len != csm_hash_size(scheme->hash))
		return CSM_EINVALID;
	job_make(key->alg, scheme, in, in_len, &job);
	r = sign_once(ctx, key, &job, &rv, raw, &raw_len);
	/* Sessions that are gone, an object that was found before: once more, on what is there now. */
	if (r != 0 && (p11_lost(rv) || p11_stale(rv)))
		r = sign_once(ctx, key, &job, &rv, raw, &raw_len);
	if (r == 0 && (r = form(key->alg, key->pkey, raw, raw_len, sig, &n)) == 0)
		r = check(key, scheme, in, in_len, sig, n);
	return r != 0 ? r : p11_out(out, sig, n);
}
