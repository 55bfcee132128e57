/* Names, and the outer wrap. TPM 2.0 part 1: 11.4.10 (KDFa, KDFe), 16 (Names), 22.4 and 24 (the wrap). */
#include "libclient/tpmfmt/dup.h"

#include <string.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <tss2/tss2_mu.h>

#define COORD_MAX 66u

struct part {
	const void *p;
	size_t n;
};

const char *csm_tpm_hash(TPMI_ALG_HASH alg, size_t *len)
{
	static const struct {
		TPMI_ALG_HASH alg;
		const char *name;
		size_t len;
	} hashes[] = {{TPM2_ALG_SHA256, "SHA256", 32}, {TPM2_ALG_SHA384, "SHA384", 48}, {TPM2_ALG_SHA512, "SHA512", 64}};

	for (size_t i = 0; i < sizeof(hashes) / sizeof(hashes[0]); i++) {
		if (hashes[i].alg == alg) {
			*len = hashes[i].len;
			return hashes[i].name;
		}
	}
	return NULL;
}

static int hash_parts(TPMI_ALG_HASH alg, const struct part *parts, size_t n, uint8_t out[static CSM_TPM_SEED_MAX])
{
	size_t len;
	const char *name = csm_tpm_hash(alg, &len);
	EVP_MD *md = name != NULL ? EVP_MD_fetch(NULL, name, NULL) : NULL;
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	int r = CSM_EBACKEND;

	if (md == NULL || ctx == NULL || EVP_DigestInit_ex(ctx, md, NULL) != 1)
		goto out;
	for (size_t i = 0; i < n; i++)
		if (EVP_DigestUpdate(ctx, parts[i].p, parts[i].n) != 1)
			goto out;
	if (EVP_DigestFinal_ex(ctx, out, NULL) == 1)
		r = 0;
out:
	EVP_MD_CTX_free(ctx);
	EVP_MD_free(md);
	return r;
}

static int hmac_parts(const char *hash, const uint8_t *key, size_t key_len, const struct part *parts, size_t n,
	uint8_t out[static CSM_TPM_SEED_MAX])
{
	OSSL_PARAM par[2] = {
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)(uintptr_t)hash, 0),
		OSSL_PARAM_construct_end(),
	};
	EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	EVP_MAC_CTX *ctx = mac != NULL ? EVP_MAC_CTX_new(mac) : NULL;
	size_t len = 0;
	int r = CSM_EBACKEND;

	if (ctx == NULL || EVP_MAC_init(ctx, key, key_len, par) != 1)
		goto out;
	for (size_t i = 0; i < n; i++)
		if (parts[i].n > 0 && EVP_MAC_update(ctx, parts[i].p, parts[i].n) != 1)
			goto out;
	if (EVP_MAC_final(ctx, out, &len, CSM_TPM_SEED_MAX) == 1)
		r = 0;
out:
	EVP_MAC_CTX_free(ctx);
	EVP_MAC_free(mac);
	return r;
}

static void put_be32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

/* KDFa for at most as many bytes as the hash has; the second context is empty here. */
static int kdfa(TPMI_ALG_HASH alg, const uint8_t *key, size_t key_len, const char *label, struct part u, uint8_t *out,
	size_t len)
{
	static const uint8_t counter[4] = {0, 0, 0, 1};
	size_t hash_len;
	const char *hash = csm_tpm_hash(alg, &hash_len);
	uint8_t bits[4], block[CSM_TPM_SEED_MAX];
	struct part parts[] = {{counter, 4}, {label, strlen(label) + 1}, u, {bits, 4}};
	int r = CSM_EUNSUPPORTED;

	if (hash == NULL || len > hash_len)
		return r;
	put_be32(bits, (uint32_t)len * 8);
	if ((r = hmac_parts(hash, key, key_len, parts, sizeof(parts) / sizeof(parts[0]), block)) == 0)
		memcpy(out, block, len);
	OPENSSL_cleanse(block, sizeof(block));
	return r;
}

/* ---- Names ---- */

int csm_tpm_name(const TPMT_PUBLIC *pub, TPM2B_NAME *ret)
{
	uint8_t buf[sizeof(*pub)], digest[CSM_TPM_SEED_MAX];
	size_t len = 0, hash_len;
	int r;

	if (csm_tpm_hash(pub->nameAlg, &hash_len) == NULL)
		return CSM_EUNSUPPORTED;
	if (Tss2_MU_TPMT_PUBLIC_Marshal(pub, buf, sizeof(buf), &len) != TSS2_RC_SUCCESS)
		return CSM_EINVALID;
	if ((r = hash_parts(pub->nameAlg, &(struct part){buf, len}, 1, digest)) != 0)
		return r;
	ret->size = (UINT16)(2 + hash_len);
	ret->name[0] = (BYTE)(pub->nameAlg >> 8);
	ret->name[1] = (BYTE)(pub->nameAlg & 0xff);
	memcpy(ret->name + 2, digest, hash_len);
	return 0;
}

int csm_tpm_public_parse(const uint8_t *p, size_t n, TPMT_PUBLIC *ret)
{
	TPMT_PUBLIC pub;
	uint8_t again[sizeof(pub)];
	size_t off = 0, len = 0;

	memset(&pub, 0, sizeof(pub));
	/* Written again it must give the same bytes: the Name is a hash over what we understood. */
	if (n > sizeof(again) || Tss2_MU_TPMT_PUBLIC_Unmarshal(p, n, &off, &pub) != TSS2_RC_SUCCESS || off != n ||
		Tss2_MU_TPMT_PUBLIC_Marshal(&pub, again, sizeof(again), &len) != TSS2_RC_SUCCESS || len != n ||
		memcmp(again, p, n) != 0)
		return CSM_EINVALID;
	*ret = pub;
	return 0;
}

/* ---- a secret for another TPM ---- */

static int coordinate(EVP_PKEY *key, const char *name, uint8_t *out, size_t len)
{
	BIGNUM *bn = NULL;
	int r = CSM_EBACKEND;

	if (EVP_PKEY_get_bn_param(key, name, &bn) == 1 && BN_bn2binpad(bn, out, (int)len) == (int)len)
		r = 0;
	BN_free(bn);
	return r;
}

/* TPMS_ECC_POINT: two TPM2B. */
static int put_point(EVP_PKEY *key, size_t len, TPM2B_ENCRYPTED_SECRET *ret)
{
	uint8_t *p = ret->secret;
	int r;

	for (size_t i = 0; i < 2; i++, p += 2 + len) {
		p[0] = 0;
		p[1] = (uint8_t)len;
		if ((r = coordinate(key, i == 0 ? OSSL_PKEY_PARAM_EC_PUB_X : OSSL_PKEY_PARAM_EC_PUB_Y, p + 2, len)) != 0)
			return r;
	}
	ret->size = (UINT16)(2 * (2 + len));
	return 0;
}

static int ecdh(EVP_PKEY *own, EVP_PKEY *peer, uint8_t *z, size_t len)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, own, NULL);
	size_t got = len;
	int r = CSM_EBACKEND;

	if (ctx != NULL && EVP_PKEY_derive_init(ctx) == 1 && EVP_PKEY_derive_set_peer(ctx, peer) == 1 &&
		EVP_PKEY_derive(ctx, z, &got) == 1 && got == len)
		r = 0;
	EVP_PKEY_CTX_free(ctx);
	return r;
}

static int seed_ecc(const TPMT_PUBLIC *to, EVP_PKEY *peer, const char *label, uint8_t seed[static CSM_TPM_SEED_MAX],
	TPM2B_ENCRYPTED_SECRET *ret)
{
	static const uint8_t counter[4] = {0, 0, 0, 1};
	size_t len = csm_tpm_curve_len(to->parameters.eccDetail.curveID);
	uint8_t z[COORD_MAX], qs[COORD_MAX];
	char group[32];
	EVP_PKEY *own = NULL;
	int r = CSM_EBACKEND;

	if (EVP_PKEY_get_group_name(peer, group, sizeof(group), NULL) != 1 ||
		(own = EVP_PKEY_Q_keygen(NULL, NULL, "EC", group)) == NULL)
		goto out;
	if ((r = ecdh(own, peer, z, len)) != 0 || (r = put_point(own, len, ret)) != 0 ||
		(r = coordinate(peer, OSSL_PKEY_PARAM_EC_PUB_X, qs, len)) != 0)
		goto out;
	struct part parts[] = {{counter, 4}, {z, len}, {label, strlen(label) + 1}, {ret->secret + 2, len}, {qs, len}};

	r = hash_parts(to->nameAlg, parts, sizeof(parts) / sizeof(parts[0]), seed);
out:
	OPENSSL_cleanse(z, sizeof(z));
	EVP_PKEY_free(own);
	return r;
}

static int seed_rsa(const TPMT_PUBLIC *to, EVP_PKEY *peer, const char *label, uint8_t seed[static CSM_TPM_SEED_MAX],
	TPM2B_ENCRYPTED_SECRET *ret)
{
	size_t hash_len = 0, len = sizeof(ret->secret);
	const char *hash = csm_tpm_hash(to->nameAlg, &hash_len);
	OSSL_PARAM par[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_ASYM_CIPHER_PARAM_PAD_MODE,
			(char *)(uintptr_t)OSSL_PKEY_RSA_PAD_MODE_OAEP, 0),
		OSSL_PARAM_construct_utf8_string(OSSL_ASYM_CIPHER_PARAM_OAEP_DIGEST, (char *)(uintptr_t)hash, 0),
		OSSL_PARAM_construct_utf8_string(OSSL_ASYM_CIPHER_PARAM_MGF1_DIGEST, (char *)(uintptr_t)hash, 0),
		OSSL_PARAM_construct_octet_string(OSSL_ASYM_CIPHER_PARAM_OAEP_LABEL, (void *)(uintptr_t)label,
			strlen(label) + 1), /* its NUL counts */
		OSSL_PARAM_construct_end(),
	};
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, peer, NULL);
	int r = CSM_EBACKEND;

	if (ctx != NULL && RAND_bytes(seed, (int)hash_len) == 1 && EVP_PKEY_encrypt_init_ex(ctx, par) == 1 &&
		EVP_PKEY_encrypt(ctx, ret->secret, &len, seed, hash_len) == 1) {
		ret->size = (UINT16)len;
		r = 0;
	}
	EVP_PKEY_CTX_free(ctx);
	return r;
}

int csm_tpm_seed(const TPMT_PUBLIC *to, const char *label, uint8_t seed[static CSM_TPM_SEED_MAX], size_t *seed_len,
	TPM2B_ENCRYPTED_SECRET *ret)
{
	EVP_PKEY *peer = NULL;
	size_t hash_len;
	int r;

	if (csm_tpm_hash(to->nameAlg, &hash_len) == NULL)
		return CSM_EUNSUPPORTED;
	if ((r = csm_tpm_public_evp(to, &peer)) != 0)
		return r;
	memset(ret, 0, sizeof(*ret));
	r = to->type == TPM2_ALG_ECC ? seed_ecc(to, peer, label, seed, ret) : seed_rsa(to, peer, label, seed, ret);
	EVP_PKEY_free(peer);
	if (r == 0)
		*seed_len = hash_len;
	else
		OPENSSL_cleanse(seed, CSM_TPM_SEED_MAX);
	return r;
}

/* ---- the wrap ---- */

static int cfb(int encrypt, const uint8_t *key, size_t key_len, const uint8_t *in, size_t len, uint8_t *out)
{
	static const uint8_t iv[16];
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, key_len == 32 ? "AES-256-CFB" : "AES-128-CFB", NULL);
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int n = 0, m = 0, r = CSM_EBACKEND;

	if (cipher != NULL && ctx != NULL && EVP_CipherInit_ex2(ctx, cipher, key, iv, encrypt, NULL) == 1 &&
		EVP_CipherUpdate(ctx, out, &n, in, (int)len) == 1 && EVP_CipherFinal_ex(ctx, out + n, &m) == 1 &&
		(size_t)n + (size_t)m == len)
		r = 0;
	EVP_CIPHER_CTX_free(ctx);
	EVP_CIPHER_free(cipher);
	return r;
}

int csm_tpm_wrap(const TPMT_PUBLIC *to, const char *label, const TPM2B_NAME *name, const uint8_t *data, size_t len,
	uint8_t *out, size_t cap, size_t *out_len, TPM2B_ENCRYPTED_SECRET *secret)
{
	const TPMT_SYM_DEF_OBJECT *sym =
		to->type == TPM2_ALG_ECC ? &to->parameters.eccDetail.symmetric : &to->parameters.rsaDetail.symmetric;
	size_t seed_len = 0, hash_len, key_len;
	const char *hash = csm_tpm_hash(to->nameAlg, &hash_len);
	uint8_t seed[CSM_TPM_SEED_MAX], key[CSM_TPM_SEED_MAX], mac[CSM_TPM_SEED_MAX], *enc;
	int r;

	if ((to->type != TPM2_ALG_ECC && to->type != TPM2_ALG_RSA) || hash == NULL || sym->algorithm != TPM2_ALG_AES ||
		sym->mode.aes != TPM2_ALG_CFB || (sym->keyBits.aes != 128 && sym->keyBits.aes != 256))
		return CSM_EUNSUPPORTED;
	key_len = sym->keyBits.aes / 8u;
	if (len > UINT16_MAX || cap < 2 + hash_len + len)
		return CSM_ETOO_LARGE;
	enc = out + 2 + hash_len;
	struct part parts[] = {{enc, len}, {name->name, name->size}};

	if ((r = csm_tpm_seed(to, label, seed, &seed_len, secret)) == 0 &&
		(r = kdfa(to->nameAlg, seed, seed_len, "STORAGE", parts[1], key, key_len)) == 0 &&
		(r = cfb(1, key, key_len, data, len, enc)) == 0 &&
		(r = kdfa(to->nameAlg, seed, seed_len, "INTEGRITY", (struct part){"", 0}, key, hash_len)) == 0 &&
		(r = hmac_parts(hash, key, hash_len, parts, 2, mac)) == 0) {
		out[0] = 0;
		out[1] = (uint8_t)hash_len;
		memcpy(out + 2, mac, hash_len);
		*out_len = 2 + hash_len + len;
	}
	OPENSSL_cleanse(seed, sizeof(seed));
	OPENSSL_cleanse(key, sizeof(key));
	return r;
}

/* ---- the way back, for a storage key outside of a TPM ---- */

#define PARENT_HASH TPM2_ALG_SHA256
#define PARENT_HASH_LEN 32u
#define PARENT_KEY_LEN 16u
#define P256_LEN 32u

int csm_tpm_unwrap_seed(const uint8_t *seed, size_t seed_len, const TPM2B_NAME *name, struct csm_bin in,
	struct csm_buf *plain)
{
	uint8_t key[CSM_TPM_SEED_MAX], mac[CSM_TPM_SEED_MAX], *room;
	struct csm_bin told;
	int r;

	if (!csm_tpm_take_2b(&in, PARENT_HASH_LEN, &told) || told.n != PARENT_HASH_LEN || in.n == 0 ||
		in.n > CSM_TPM_SENSITIVE_MAX)
		return CSM_EINVALID;
	struct part parts[] = {{in.p, in.n}, {name->name, name->size}};

	if ((r = kdfa(PARENT_HASH, seed, seed_len, "INTEGRITY", (struct part){"", 0}, key, PARENT_HASH_LEN)) != 0 ||
		(r = hmac_parts("SHA256", key, PARENT_HASH_LEN, parts, 2, mac)) != 0)
		goto out;
	r = CSM_EINVALID;
	if (CRYPTO_memcmp(mac, told.p, PARENT_HASH_LEN) != 0)
		goto out;
	if ((r = csm_buf_reserve(plain, in.n, &room)) == 0 &&
		(r = kdfa(PARENT_HASH, seed, seed_len, "STORAGE", parts[1], key, PARENT_KEY_LEN)) == 0 &&
		(r = cfb(0, key, PARENT_KEY_LEN, in.p, in.n, room)) == 0)
		csm_buf_commit(plain, in.n);
out:
	OPENSSL_cleanse(key, sizeof(key));
	return r;
}

/* The point of the sender, as a key; off the curve is CSM_EINVALID. */
static int sender_get(struct csm_bin secret, EVP_PKEY **ret)
{
	TPMT_PUBLIC pub = {.type = TPM2_ALG_ECC, .parameters.eccDetail.curveID = TPM2_ECC_NIST_P256};
	TPMS_ECC_POINT *q = &pub.unique.ecc;
	struct csm_bin x, y;

	if (!csm_tpm_take_2b(&secret, P256_LEN, &x) || !csm_tpm_take_2b(&secret, P256_LEN, &y) || secret.n != 0 || x.n == 0 ||
		y.n == 0)
		return CSM_EINVALID;
	q->x.size = (UINT16)x.n;
	q->y.size = (UINT16)y.n;
	memcpy(q->x.buffer, x.p, x.n);
	memcpy(q->y.buffer, y.p, y.n);
	return csm_tpm_public_evp(&pub, ret) == 0 ? 0 : CSM_EINVALID;
}

int csm_tpm_unwrap(EVP_PKEY *parent, const TPM2B_NAME *name, struct csm_bin secret, struct csm_bin in, struct csm_buf *plain)
{
	static const uint8_t counter[4] = {0, 0, 0, 1};
	uint8_t z[P256_LEN], qe[P256_LEN], qs[P256_LEN], seed[CSM_TPM_SEED_MAX];
	struct part parts[] = {{counter, 4}, {z, sizeof(z)}, {CSM_TPM_DUPLICATE, sizeof(CSM_TPM_DUPLICATE)},
		{qe, sizeof(qe)}, {qs, sizeof(qs)}};
	EVP_PKEY *sender = NULL;
	int r;

	if ((r = sender_get(secret, &sender)) == 0 && (r = ecdh(parent, sender, z, sizeof(z))) == 0 &&
		(r = coordinate(sender, OSSL_PKEY_PARAM_EC_PUB_X, qe, sizeof(qe))) == 0 &&
		(r = coordinate(parent, OSSL_PKEY_PARAM_EC_PUB_X, qs, sizeof(qs))) == 0 &&
		(r = hash_parts(PARENT_HASH, parts, sizeof(parts) / sizeof(parts[0]), seed)) == 0)
		r = csm_tpm_unwrap_seed(seed, PARENT_HASH_LEN, name, in, plain);
	OPENSSL_cleanse(seed, sizeof(seed));
	OPENSSL_cleanse(z, sizeof(z));
	EVP_PKEY_free(sender);
	return r;
}
