#include "plugins/tpm2/crypt.h"

#include <string.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/params.h>
#include <openssl/rand.h>

int t2_crypt_init(struct t2_crypt *c)
{
	OSSL_PARAM par[2] = {
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)(uintptr_t) "SHA256", 0),
		OSSL_PARAM_construct_end(),
	};
	EVP_MAC *mac = NULL;
	int r = CSM_EBACKEND;

	memset(c, 0, sizeof(*c));
	if ((c->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL)) == NULL || (c->md = EVP_MD_CTX_new()) == NULL ||
		(mac = EVP_MAC_fetch(NULL, "HMAC", NULL)) == NULL || (c->hmac = EVP_MAC_CTX_new(mac)) == NULL ||
		EVP_MAC_CTX_set_params(c->hmac, par) != 1 ||
		(c->cfb = EVP_CIPHER_fetch(NULL, "AES-128-CFB", NULL)) == NULL ||
		(c->cipher = EVP_CIPHER_CTX_new()) == NULL)
		goto out;
	r = 0;
out:
	EVP_MAC_free(mac);
	if (r != 0)
		t2_crypt_free(c);
	return r;
}

void t2_crypt_free(struct t2_crypt *c)
{
	EVP_MD_CTX_free(c->md);
	EVP_MD_free(c->sha256);
	EVP_MAC_CTX_free(c->hmac);
	EVP_CIPHER_CTX_free(c->cipher);
	EVP_CIPHER_free(c->cfb);
	memset(c, 0, sizeof(*c));
}

int t2_hash(struct t2_crypt *c, const struct t2_part *parts, size_t n, uint8_t out[static T2_HASH_LEN])
{
	if (EVP_DigestInit_ex(c->md, c->sha256, NULL) != 1)
		return CSM_EBACKEND;
	for (size_t i = 0; i < n; i++)
		if (EVP_DigestUpdate(c->md, parts[i].p, parts[i].n) != 1)
			return CSM_EBACKEND;
	return EVP_DigestFinal_ex(c->md, out, NULL) == 1 ? 0 : CSM_EBACKEND;
}

int t2_hmac(struct t2_crypt *c, const uint8_t *key, size_t key_len, const struct t2_part *parts, size_t n,
	uint8_t out[static T2_HASH_LEN])
{
	size_t len = 0;

	if (EVP_MAC_init(c->hmac, key, key_len, NULL) != 1)
		return CSM_EBACKEND;
	for (size_t i = 0; i < n; i++)
		if (parts[i].n > 0 && EVP_MAC_update(c->hmac, parts[i].p, parts[i].n) != 1)
			return CSM_EBACKEND;
	return EVP_MAC_final(c->hmac, out, &len, T2_HASH_LEN) == 1 && len == T2_HASH_LEN ? 0 : CSM_EBACKEND;
}

static void put_be32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

int t2_kdfa(struct t2_crypt *c, const uint8_t *key, size_t key_len, const char *label, struct t2_part u,
	struct t2_part v, uint8_t *out, size_t len)
{
	uint8_t counter[4], bits[4], block[T2_HASH_LEN];
	struct t2_part parts[] = {{counter, 4}, {label, strlen(label) + 1}, u, v, {bits, 4}};
	int r = CSM_EINTERNAL;

	put_be32(bits, (uint32_t)len * 8);
	for (uint32_t i = 1; len > 0; i++) {
		size_t n = len < T2_HASH_LEN ? len : T2_HASH_LEN;

		put_be32(counter, i);
		if ((r = t2_hmac(c, key, key_len, parts, sizeof(parts) / sizeof(parts[0]), block)) != 0)
			goto out;
		memcpy(out, block, n);
		out += n;
		len -= n;
	}
	r = 0;
out:
	OPENSSL_cleanse(block, sizeof(block));
	return r;
}

int t2_kdfe(struct t2_crypt *c, struct t2_part z, const char *label, struct t2_part u, struct t2_part v,
	uint8_t out[static T2_HASH_LEN])
{
	static const uint8_t counter[4] = {0, 0, 0, 1};
	struct t2_part parts[] = {{counter, 4}, z, {label, strlen(label) + 1}, u, v};

	return t2_hash(c, parts, sizeof(parts) / sizeof(parts[0]), out);
}

int t2_cfb(struct t2_crypt *c, const uint8_t key_iv[static 32], int encrypt, uint8_t *buf, size_t len)
{
	int n = 0, m = 0;

	if (len > INT32_MAX || EVP_CipherInit_ex(c->cipher, c->cfb, NULL, key_iv, key_iv + 16, encrypt) != 1 ||
		EVP_CipherUpdate(c->cipher, buf, &n, buf, (int)len) != 1 ||
		EVP_CipherFinal_ex(c->cipher, buf + n, &m) != 1 || (size_t)n + (size_t)m != len)
		return CSM_EBACKEND;
	return 0;
}

/* x or y of a P-256 key as 32 bytes. */
static int coordinate(EVP_PKEY *key, const char *name, uint8_t out[static 32])
{
	BIGNUM *bn = NULL;
	int r = CSM_EBACKEND;

	if (EVP_PKEY_get_bn_param(key, name, &bn) == 1 && BN_bn2binpad(bn, out, 32) == 32)
		r = 0;
	BN_free(bn);
	return r;
}

static int put_point(EVP_PKEY *key, TPM2B_ENCRYPTED_SECRET *ret)
{
	uint8_t *p = ret->secret;
	int r;

	/* TPMS_ECC_POINT: two TPM2B */
	memset(p, 0, 68);
	p[1] = p[35] = 32;
	if ((r = coordinate(key, OSSL_PKEY_PARAM_EC_PUB_X, p + 2)) != 0 ||
		(r = coordinate(key, OSSL_PKEY_PARAM_EC_PUB_Y, p + 36)) != 0)
		return r;
	ret->size = 68;
	return 0;
}

static int salt_ecc(struct t2_crypt *c, const TPMT_PUBLIC *pub, EVP_PKEY *peer, uint8_t salt[static T2_HASH_LEN],
	TPM2B_ENCRYPTED_SECRET *ret)
{
	uint8_t z[32], qs[32] = {0};
	const TPM2B_ECC_PARAMETER *x = &pub->unique.ecc.x;
	EVP_PKEY_CTX *pctx = NULL;
	EVP_PKEY *own = NULL;
	size_t len = sizeof(z);
	int r = CSM_EBACKEND;

	if (pub->parameters.eccDetail.curveID != TPM2_ECC_NIST_P256 || x->size > sizeof(qs)) {
		r = CSM_EUNSUPPORTED;
		goto out;
	}
	memcpy(qs + sizeof(qs) - x->size, x->buffer, x->size);
	if ((own = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256")) == NULL ||
		(pctx = EVP_PKEY_CTX_new_from_pkey(NULL, own, NULL)) == NULL || EVP_PKEY_derive_init(pctx) != 1 ||
		EVP_PKEY_derive_set_peer(pctx, peer) != 1 || EVP_PKEY_derive(pctx, z, &len) != 1 || len != sizeof(z))
		goto out;
	if ((r = put_point(own, ret)) != 0)
		goto out;
	r = t2_kdfe(c, (struct t2_part){z, 32}, "SECRET", (struct t2_part){ret->secret + 2, 32},
		(struct t2_part){qs, 32}, salt);
out:
	OPENSSL_cleanse(z, sizeof(z));
	EVP_PKEY_CTX_free(pctx);
	EVP_PKEY_free(own);
	return r;
}

static int salt_rsa(EVP_PKEY *peer, uint8_t salt[static T2_HASH_LEN], TPM2B_ENCRYPTED_SECRET *ret)
{
	char md[] = "SHA256";
	uint8_t label[] = "SECRET"; /* its NUL counts */
	OSSL_PARAM par[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_ASYM_CIPHER_PARAM_PAD_MODE,
			(char *)(uintptr_t)OSSL_PKEY_RSA_PAD_MODE_OAEP, 0),
		OSSL_PARAM_construct_utf8_string(OSSL_ASYM_CIPHER_PARAM_OAEP_DIGEST, md, 0),
		OSSL_PARAM_construct_utf8_string(OSSL_ASYM_CIPHER_PARAM_MGF1_DIGEST, md, 0),
		OSSL_PARAM_construct_octet_string(OSSL_ASYM_CIPHER_PARAM_OAEP_LABEL, label, sizeof(label)),
		OSSL_PARAM_construct_end(),
	};
	EVP_PKEY_CTX *pctx = EVP_PKEY_CTX_new_from_pkey(NULL, peer, NULL);
	size_t len = sizeof(ret->secret);
	int r = CSM_EBACKEND;

	if (pctx != NULL && RAND_bytes(salt, T2_HASH_LEN) == 1 && EVP_PKEY_encrypt_init_ex(pctx, par) == 1 &&
		EVP_PKEY_encrypt(pctx, ret->secret, &len, salt, T2_HASH_LEN) == 1) {
		ret->size = (UINT16)len;
		r = 0;
	}
	EVP_PKEY_CTX_free(pctx);
	return r;
}

int t2_salt_make(struct t2_crypt *c, const TPMT_PUBLIC *pub, uint8_t salt[static T2_HASH_LEN],
	TPM2B_ENCRYPTED_SECRET *ret)
{
	EVP_PKEY *peer = NULL;
	int r;

	if (pub->nameAlg != TPM2_ALG_SHA256)
		return CSM_EUNSUPPORTED;
	if ((r = csm_tpm_public_evp(pub, &peer)) != 0)
		return r;
	r = pub->type == TPM2_ALG_ECC ? salt_ecc(c, pub, peer, salt, ret) : salt_rsa(peer, salt, ret);
	EVP_PKEY_free(peer);
	return r;
}
