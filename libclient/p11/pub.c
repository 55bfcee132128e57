/* What needs only a public key is done here, by OpenSSL. */
#include <string.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/rsa.h>
#include "libclient/p11/p11.h"

EVP_MD *pub_md(const struct hash *h)
{
	EVP_MD *md = NULL;

	ossl_in();
	if (h != NULL && p11_ossl() != NULL)
		md = EVP_MD_fetch(p11_ossl(), h->name, NULL);
	ossl_out();
	return md;
}

/* An element of DER with that tag at the front: its contents; what follows goes to *p and *left. */
static bool element(uint8_t tag, const uint8_t **p, size_t *left, const uint8_t **body, size_t *len)
{
	const uint8_t *at = *p;
	size_t head = 2, n;

	if (*left < 2 || at[0] != tag)
		return false;
	n = at[1];
	if (n == 0x81 && *left > 2) {
		n = at[2];
		head = 3;
	} else if (n > 0x7f) {
		return false;
	}
	if (n > *left - head)
		return false;
	*body = at + head;
	*len = n;
	*p = at + head + n;
	*left -= head + n;
	return true;
}

static bool number(const uint8_t **p, size_t *left, uint8_t *out, size_t n)
{
	const uint8_t *v;
	size_t len;

	if (!element(2, p, left, &v, &len))
		return false;
	for (; len > 0 && *v == 0; v++)
		len--;
	if (len > n)
		return false;
	memset(out, 0, n - len);
	memcpy(out + n - len, v, len);
	return true;
}

int pub_ecdsa_plain(const uint8_t *der, size_t len, uint8_t *out, size_t n)
{
	const uint8_t *p;
	size_t left;

	return element(0x30, &der, &len, &p, &left) && len == 0 && number(&p, &left, out, n) &&
	       number(&p, &left, out + n, n) && left == 0;
}

/* The standard's r and s to DER, to be freed. */
static int ecdsa_der(const uint8_t *plain, size_t n, unsigned char **ret)
{
	ECDSA_SIG *sig = ECDSA_SIG_new();
	BIGNUM *r = BN_bin2bn(plain, (int)n, NULL), *s = BN_bin2bn(plain + n, (int)n, NULL);
	int len = -1;

	if (sig != NULL && r != NULL && s != NULL && ECDSA_SIG_set0(sig, r, s) == 1) {
		r = s = NULL;
		len = i2d_ECDSA_SIG(sig, ret);
	}
	BN_free(r);
	BN_free(s);
	ECDSA_SIG_free(sig);
	return len;
}

static CK_RV verified(int ok)
{
	return ok == 1 ? CKR_OK : CKR_SIGNATURE_INVALID;
}

static CK_RV verify_eddsa(const struct op *op, const uint8_t *in, size_t n, const uint8_t *sig, size_t sig_len)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	CK_RV rv = CKR_HOST_MEMORY;

	if (ctx != NULL && EVP_DigestVerifyInit_ex(ctx, NULL, NULL, p11_ossl(), NULL, op->info->pkey, NULL) == 1)
		rv = verified(EVP_DigestVerify(ctx, sig, sig_len, in, n));
	EVP_MD_CTX_free(ctx);
	return rv;
}

static CK_RV verify_ecdsa(const struct op *op, EVP_PKEY_CTX *ctx, const uint8_t *in, size_t n, const uint8_t *sig)
{
	unsigned char *der = NULL;
	int len;
	CK_RV rv;

	if (n == 0 || n > 1024)
		return CKR_DATA_LEN_RANGE;
	len = ecdsa_der(sig, op->info->alg->field, &der);
	if (len < 0)
		return CKR_HOST_MEMORY;
	rv = verified(EVP_PKEY_verify(ctx, der, (size_t)len, in, n));
	OPENSSL_free(der);
	return rv;
}

/* PKCS#1 v1.5 with what the caller says is a DigestInfo: the padded block as a whole is compared. */
static CK_RV verify_pkcs1(const struct op *op, EVP_PKEY_CTX *ctx, const uint8_t *in, size_t n, const uint8_t *sig,
	size_t sig_len)
{
	if (op->mech->hash == 0) {
		if (n + 11 > sig_len)
			return CKR_DATA_LEN_RANGE;
		if (EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) != 1)
			return CKR_FUNCTION_FAILED;
		return verified(EVP_PKEY_verify(ctx, sig, sig_len, in, n));
	}
	if (EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) != 1 ||
		EVP_PKEY_CTX_set_signature_md(ctx, EVP_get_digestbyname(op->hash->name)) != 1)
		return CKR_FUNCTION_FAILED;
	return verified(EVP_PKEY_verify(ctx, sig, sig_len, in, n));
}

static CK_RV verify_pss(const struct op *op, EVP_PKEY_CTX *ctx, const uint8_t *in, size_t n, const uint8_t *sig,
	size_t sig_len)
{
	const EVP_MD *md = EVP_get_digestbyname(op->hash->name);

	if (n != op->hash->size)
		return CKR_DATA_LEN_RANGE;
	if (EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) != 1 ||
		EVP_PKEY_CTX_set_signature_md(ctx, md) != 1 || EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, md) != 1 ||
		EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, (int)op->salt) != 1)
		return CKR_FUNCTION_FAILED;
	return verified(EVP_PKEY_verify(ctx, sig, sig_len, in, n));
}

static CK_RV verify(const struct op *op, const uint8_t *in, size_t n, const uint8_t *sig, size_t sig_len)
{
	EVP_PKEY_CTX *ctx;
	CK_RV rv = CKR_HOST_MEMORY;

	if (op->mech->kind == MECH_EDDSA)
		return verify_eddsa(op, in, n, sig, sig_len);
	ctx = EVP_PKEY_CTX_new_from_pkey(p11_ossl(), op->info->pkey, NULL);
	if (ctx == NULL || EVP_PKEY_verify_init(ctx) != 1)
		goto out;
	if (op->mech->kind == MECH_ECDSA)
		rv = verify_ecdsa(op, ctx, in, n, sig);
	else if (op->mech->kind == MECH_RSA_PSS)
		rv = verify_pss(op, ctx, in, n, sig, sig_len);
	else
		rv = verify_pkcs1(op, ctx, in, n, sig, sig_len);
out:
	EVP_PKEY_CTX_free(ctx);
	return rv;
}

CK_RV pub_verify(const struct op *op, const uint8_t *in, size_t n, const uint8_t *sig, size_t sig_len)
{
	CK_RV rv;

	if (sig_len != alg_signature_len(op->info->alg))
		return CKR_SIGNATURE_LEN_RANGE;
	ossl_in();
	rv = verify(op, in, n, sig, sig_len);
	ossl_out();
	return rv;
}

static int set_oaep(const struct op *op, EVP_PKEY_CTX *ctx)
{
	uint8_t *label = NULL;

	if (op->hash == NULL || EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) != 1 ||
		EVP_PKEY_CTX_set_rsa_oaep_md_name(ctx, op->hash->name, NULL) != 1 ||
		EVP_PKEY_CTX_set_rsa_mgf1_md_name(ctx, op->hash->name, NULL) != 1)
		return 0;
	if (op->label_len == 0)
		return 1;
	label = OPENSSL_memdup(op->label, op->label_len);
	if (label != NULL && EVP_PKEY_CTX_set0_rsa_oaep_label(ctx, label, (int)op->label_len) == 1)
		return 1;
	OPENSSL_free(label);
	return 0;
}

CK_RV pub_encrypt(const struct op *op, const uint8_t *in, size_t n, uint8_t *out, size_t *len)
{
	size_t k = op->info->alg->bits / 8, pad = op->hash != NULL ? 2 * op->hash->size + 2 : 11;
	EVP_PKEY_CTX *ctx;
	CK_RV rv = CKR_HOST_MEMORY;
	int ok;

	if (n + pad > k)
		return CKR_DATA_LEN_RANGE;
	ossl_in();
	ctx = EVP_PKEY_CTX_new_from_pkey(p11_ossl(), op->info->pkey, NULL);
	if (ctx == NULL || EVP_PKEY_encrypt_init(ctx) != 1)
		goto out;
	ok = op->mech->kind == MECH_RSA_OAEP ? set_oaep(op, ctx) : EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING);
	rv = ok == 1 && EVP_PKEY_encrypt(ctx, out, len, in, n) == 1 ? CKR_OK : CKR_FUNCTION_FAILED;
out:
	EVP_PKEY_CTX_free(ctx);
	ossl_out();
	return rv;
}
