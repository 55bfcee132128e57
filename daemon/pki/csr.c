#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include "daemon/pki/csr.h"
#include "daemon/pki/sigalg.h"
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

static int key_put(X509_REQ *req, const struct csm_csr_spec *spec, char *why)
{
	const uint8_t *at = spec->spki;
	EVP_PKEY *pkey = spec->spki_len <= CSM_SPKI_MAX ? d2i_PUBKEY(NULL, &at, (long)spec->spki_len) : NULL;
	int r = CSM_EINVALID;

	if (pkey == NULL || at != spec->spki + spec->spki_len) {
		snprintf(why, WHY_SIZE, "public key: not a SubjectPublicKeyInfo that OpenSSL reads");
		goto out;
	}
	if (!csm_sigalg_fits(pkey, &spec->scheme)) {
		snprintf(why, WHY_SIZE, "scheme: this key does not sign by it");
		goto out;
	}
	r = X509_REQ_set_pubkey(req, pkey) == 1 ? 0 : CSM_EINTERNAL;
out:
	EVP_PKEY_free(pkey);
	return r;
}

/* What a CA asks of the CA above it; how long a path may be is that one's to say. */
static bool ca_put(STACK_OF(X509_EXTENSION) **exts)
{
	static const unsigned char usage = KU_KEY_CERT_SIGN | KU_CRL_SIGN;
	BASIC_CONSTRAINTS *bc = BASIC_CONSTRAINTS_new();
	ASN1_BIT_STRING *ku = ASN1_BIT_STRING_new();
	bool ok = false;

	if (bc != NULL && ku != NULL && ASN1_BIT_STRING_set(ku, (unsigned char *)&usage, 1) == 1) {
		bc->ca = 0xff;
		ok = X509V3_add1_i2d(exts, NID_basic_constraints, bc, 1, X509V3_ADD_DEFAULT) == 1 &&
			X509V3_add1_i2d(exts, NID_key_usage, ku, 1, X509V3_ADD_DEFAULT) == 1;
	}
	BASIC_CONSTRAINTS_free(bc);
	ASN1_BIT_STRING_free(ku);
	return ok;
}

static int exts_put(X509_REQ *req, const struct csm_csr_spec *spec, char *why)
{
	/* A name that stands in the extension alone must be critical (RFC 5280 4.1.2.6). */
	int critical = X509_NAME_entry_count(X509_REQ_get_subject_name(req)) == 0;
	GENERAL_NAMES *names = NULL;
	STACK_OF(X509_EXTENSION) *exts = NULL;
	int r;

	if ((r = csm_sans_parse(spec->sans, spec->n_sans, &names, why)) != 0 || (names == NULL && !spec->ca))
		return r;
	r = CSM_EINTERNAL;
	if ((names == NULL || X509V3_add1_i2d(&exts, NID_subject_alt_name, names, critical, X509V3_ADD_DEFAULT) == 1) &&
		(!spec->ca || ca_put(&exts)) && X509_REQ_add_extensions(req, exts) == 1)
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

static int algorithm_put(X509_REQ *req, const struct csm_scheme *scheme)
{
	X509_ALGOR *alg = NULL;
	int r = csm_sigalg_new(scheme, &alg);

	if (r == 0 && X509_REQ_set1_signature_algo(req, alg) != 1)
		r = CSM_EINTERNAL;
	X509_ALGOR_free(alg);
	return r;
}

static int tbs_make(struct csm_csr *csr, const struct csm_scheme *scheme, char *why)
{
	int n = i2d_re_X509_REQ_tbs(csr->req, &csr->der);

	if (n <= 0)
		return CSM_EINTERNAL;
	if ((size_t)n + CSR_OUTER_MAX > CSM_CSR_MAX) {
		snprintf(why, WHY_SIZE, "request: its names make it larger than %u bytes", CSM_CSR_MAX);
		return CSM_EINVALID;
	}
	return csm_sigalg_digest(scheme, (struct csm_bin){csr->der, (size_t)n}, csr->digest, &csr->tbs);
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
		(r = exts_put(csr->req, spec, why)) != 0 || (r = algorithm_put(csr->req, &spec->scheme)) != 0 ||
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
