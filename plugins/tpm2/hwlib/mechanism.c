/* The mechanisms of the interface, as far as a TPM can do them. TPM2_Sign does PKCS#1 and PSS with hashes of its own; all
 * else is the bare operation on a block that is encoded here, for keys that may decrypt. The encodings are offered by
 * OpenSSL 3 only as functions that it calls deprecated. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "plugins/tpm2/hwlib/hwlib.h"

#include <stdlib.h>
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

static const struct {
	int nid;
	TPMI_ALG_HASH alg; /* TPM2_ALG_NULL: no TPM has it */
	enum csm_hw_hash hash;
	enum csm_hw_mgf mgf; /* 0: none */
} hashes[] = {
	{NID_md5, TPM2_ALG_NULL, CSM_HW_HASH_MD5, 0},
	{NID_sha1, TPM2_ALG_SHA1, CSM_HW_HASH_SHA1, CSM_HW_MGF1_SHA1},
	{NID_sha224, TPM2_ALG_NULL, CSM_HW_HASH_SHA224, CSM_HW_MGF1_SHA224},
	{NID_sha256, TPM2_ALG_SHA256, CSM_HW_HASH_SHA256, CSM_HW_MGF1_SHA256},
	{NID_sha384, TPM2_ALG_SHA384, CSM_HW_HASH_SHA384, CSM_HW_MGF1_SHA384},
	{NID_sha512, TPM2_ALG_SHA512, CSM_HW_HASH_SHA512, CSM_HW_MGF1_SHA512},
};
#define N_HASHES (sizeof(hashes) / sizeof(hashes[0]))

static const EVP_MD *md_at(size_t i)
{
	return EVP_get_digestbynid(hashes[i].nid);
}

/* The hash that a mechanism names; N_HASHES for those that name none. */
static size_t hash_of_mechanism(unsigned long m)
{
	if (m == CSM_HW_RSA_MD5)
		return 0;
	if (m >= CSM_HW_RSA_SHA1 && m <= CSM_HW_RSA_SHA512)
		return 1 + (size_t)(m - CSM_HW_RSA_SHA1);
	if (m >= CSM_HW_RSA_SHA1_PSS && m <= CSM_HW_RSA_SHA512_PSS)
		return 1 + (size_t)(m - CSM_HW_RSA_SHA1_PSS);
	return N_HASHES;
}

static bool is_pss(unsigned long m)
{
	return m >= CSM_HW_RSA_PSS && m <= CSM_HW_RSA_SHA512_PSS;
}

/* Salt and hashes of a PSS mechanism, from its parameter. MGF1 is over the same hash, since a TPM knows no other way. */
static int take_pss(struct hwlib_op *op, const void *param, int len)
{
	size_t i = hash_of_mechanism(op->mechanism);

	if (param == NULL && i < N_HASHES) {
		op->md = md_at(i);
		op->pss = (struct csm_hw_pss){hashes[i].hash, hashes[i].mgf, (size_t)EVP_MD_get_size(op->md)};
		return 0;
	}
	if (param == NULL || len != (int)sizeof(op->pss))
		return CSM_EUNSUPPORTED;
	memcpy(&op->pss, param, sizeof(op->pss));
	for (size_t j = 1; j < N_HASHES; j++)
		if (hashes[j].hash == op->pss.hash && hashes[j].mgf == op->pss.mgf && (i == N_HASHES || i == j))
			op->md = md_at(j);
	return op->md != NULL && op->pss.salt_len <= HWLIB_BLOCK_MAX ? 0 : CSM_EUNSUPPORTED;
}

int hwlib_op_new(unsigned long mechanism, const void *param, int param_len, struct hwlib_op **ret)
{
	struct hwlib_op *op;
	size_t i = hash_of_mechanism(mechanism);
	int r = CSM_EUNSUPPORTED;

	if (mechanism < CSM_HW_RSA || mechanism > CSM_HW_RSA_SHA512_PSS || mechanism == CSM_HW_RSA_OAEP)
		return r;
	if ((op = calloc(1, sizeof(*op))) == NULL)
		return CSM_ENOMEM;
	op->mechanism = mechanism;
	op->hashes = i < N_HASHES;
	if (is_pss(mechanism)) {
		if ((r = take_pss(op, param, param_len)) != 0)
			goto out;
	} else if (op->hashes) {
		op->md = md_at(i);
	}
	r = CSM_EBACKEND;
	if (op->hashes &&
		((op->ctx = EVP_MD_CTX_new()) == NULL || op->md == NULL || EVP_DigestInit_ex(op->ctx, op->md, NULL) != 1))
		goto out;
	*ret = op;
	op = NULL;
	r = 0;
out:
	hwlib_op_free(op);
	ERR_clear_error();
	return r;
}

void hwlib_op_free(struct hwlib_op *op)
{
	if (op == NULL)
		return;
	EVP_MD_CTX_free(op->ctx);
	OPENSSL_cleanse(op->block, sizeof(op->block));
	free(op);
}

int hwlib_op_update(struct hwlib_op *op, const unsigned char *p, size_t n)
{
	if (n == 0)
		return 0;
	if (op->hashes)
		return EVP_DigestUpdate(op->ctx, p, n) == 1 ? 0 : CSM_EBACKEND;
	if (n > sizeof(op->block) - op->len)
		return CSM_ETOO_LARGE;
	memcpy(op->block + op->len, p, n);
	op->len += n;
	return 0;
}

/* ---- DigestInfo ---- */

static int digestinfo_make(const EVP_MD *md, const uint8_t *digest, uint8_t *out, size_t cap, size_t *ret)
{
	X509_SIG *sig = X509_SIG_new();
	X509_ALGOR *alg = NULL;
	ASN1_OCTET_STRING *octets = NULL;
	uint8_t *at = out;
	int n, r = CSM_EBACKEND;

	if (sig == NULL)
		return CSM_ENOMEM;
	X509_SIG_getm(sig, &alg, &octets);
	if (X509_ALGOR_set0(alg, OBJ_nid2obj(EVP_MD_get_type(md)), V_ASN1_NULL, NULL) == 1 &&
		ASN1_OCTET_STRING_set(octets, digest, EVP_MD_get_size(md)) == 1 && (n = i2d_X509_SIG(sig, NULL)) > 0 &&
		(size_t)n <= cap && i2d_X509_SIG(sig, &at) == n) {
		*ret = (size_t)n;
		r = 0;
	}
	X509_SIG_free(sig);
	return r;
}

/* Which hash a block is the DigestInfo of, as DER writes it; N_HASHES: it is none that is known. */
static size_t digestinfo_read(const uint8_t *p, size_t n, const uint8_t **digest)
{
	uint8_t again[HWLIB_BLOCK_MAX];
	size_t len = 0;

	for (size_t i = 0; i < N_HASHES; i++) {
		size_t d = (size_t)EVP_MD_get_size(md_at(i));

		if (n <= d || digestinfo_make(md_at(i), p + n - d, again, sizeof(again), &len) != 0)
			continue;
		if (len == n && memcmp(again, p, n) == 0) {
			*digest = p + n - d;
			return i;
		}
	}
	return N_HASHES;
}

/* ---- signing ---- */

static int by_tpm(struct csm_plugin_ctx *c, const struct hwlib_key *k, TPMI_ALG_SIG_SCHEME scheme, size_t hash,
	const uint8_t *digest, uint8_t *out)
{
	TPMT_SIG_SCHEME asked = {.scheme = scheme, .details.any.hashAlg = hashes[hash].alg};
	struct csm_plugin_out o = {out, k->len, 0};
	TPMT_SIGNATURE sig;
	int r;

	if (hashes[hash].alg == TPM2_ALG_NULL || (k->key->pub.objectAttributes & TPMA_OBJECT_SIGN_ENCRYPT) == 0)
		return CSM_EUNSUPPORTED;
	if ((r = t2_sign_with(c, k->key, &asked, digest, (size_t)EVP_MD_get_size(md_at(hash)), &sig)) != 0)
		return r;
	return t2_put_rsa(k->key, &sig.signature.rsassa.sig, &o);
}

static int bare(struct csm_plugin_ctx *c, const struct hwlib_key *k, const uint8_t *em, size_t n, uint8_t *out)
{
	struct csm_plugin_out o = {out, k->len, 0};

	return t2_rsa_bare(c, k->key, em, n, &o);
}

/* PKCS#1 v1.5 of a block: by the TPM where it is a DigestInfo whose hash it knows. */
static int sign_pkcs1(struct csm_plugin_ctx *c, const struct hwlib_key *k, const uint8_t *p, size_t n, uint8_t *out)
{
	uint8_t em[HWLIB_BLOCK_MAX];
	const uint8_t *digest = NULL;
	size_t hash = digestinfo_read(p, n, &digest);
	int r = CSM_EUNSUPPORTED;

	if (hash < N_HASHES)
		r = by_tpm(c, k, TPM2_ALG_RSASSA, hash, digest, out);
	if (r != CSM_EUNSUPPORTED)
		return r;
	if (RSA_padding_add_PKCS1_type_1(em, (int)k->len, p, (int)n) != 1) {
		ERR_clear_error();
		return CSM_EINVALID;
	}
	return bare(c, k, em, k->len, out);
}

static bool pss_verifies(const struct hwlib_key *k, const struct hwlib_op *op, const uint8_t *digest, const uint8_t *sig)
{
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_from_pkey(NULL, k->pkey, NULL);
	bool ok = c != NULL && EVP_PKEY_verify_init(c) == 1 &&
		EVP_PKEY_CTX_set_rsa_padding(c, RSA_PKCS1_PSS_PADDING) == 1 &&
		EVP_PKEY_CTX_set_signature_md(c, op->md) == 1 && EVP_PKEY_CTX_set_rsa_mgf1_md(c, op->md) == 1 &&
		EVP_PKEY_CTX_set_rsa_pss_saltlen(c, (int)op->pss.salt_len) == 1 &&
		EVP_PKEY_verify(c, sig, k->len, digest, (size_t)EVP_MD_get_size(op->md)) == 1;

	EVP_PKEY_CTX_free(c);
	if (!ok)
		ERR_clear_error();
	return ok;
}

/* Which salt a TPM takes cannot be told it: what has another one than was asked for is not given out. */
static int sign_pss(struct csm_plugin_ctx *c, const struct hwlib_key *k, const struct hwlib_op *op, const uint8_t *digest,
	uint8_t *out)
{
	const RSA *rsa = EVP_PKEY_get0_RSA(k->pkey);
	uint8_t em[HWLIB_BLOCK_MAX];
	size_t i = 1;
	int r;

	while (i < N_HASHES && hashes[i].hash != op->pss.hash)
		i++;
	if (i == N_HASHES || rsa == NULL)
		return CSM_EUNSUPPORTED;
	r = by_tpm(c, k, TPM2_ALG_RSAPSS, i, digest, out);
	if (r == 0 && pss_verifies(k, op, digest, out))
		return 0;
	if (r != 0 && r != CSM_EUNSUPPORTED)
		return r;
	if (RSA_padding_add_PKCS1_PSS_mgf1(
		    (RSA *)(uintptr_t)rsa, em, digest, op->md, op->md, (int)op->pss.salt_len) != 1) {
		ERR_clear_error();
		return CSM_EINVALID; /* so long a salt does not fit */
	}
	if ((r = bare(c, k, em, k->len, out)) == 0 && !pss_verifies(k, op, digest, out))
		r = CSM_EBACKEND;
	return r;
}

int hwlib_op_sign(struct csm_plugin_ctx *c, const struct hwlib_key *k, struct hwlib_op *op, uint8_t *out)
{
	uint8_t digest[EVP_MAX_MD_SIZE], info[HWLIB_BLOCK_MAX];
	const uint8_t *p = op->block;
	size_t n = op->len;
	unsigned len = 0;
	int r;

	if (op->hashes) {
		if (EVP_DigestFinal_ex(op->ctx, digest, &len) != 1)
			return CSM_EBACKEND;
		p = digest;
		n = len;
	}
	if (is_pss(op->mechanism))
		return n == (size_t)EVP_MD_get_size(op->md) ? sign_pss(c, k, op, p, out) : CSM_EINVALID;
	if (op->mechanism == CSM_HW_RSA)
		return n == k->len ? bare(c, k, p, n, out) : CSM_EINVALID;
	if (!op->hashes)
		return sign_pkcs1(c, k, p, n, out);
	if ((r = digestinfo_make(op->md, digest, info, sizeof(info), &n)) != 0)
		return r;
	return sign_pkcs1(c, k, info, n, out);
}
