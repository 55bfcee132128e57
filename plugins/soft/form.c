/* The stored forms of keys.
 *
 * EC and Ed25519 keys have one DER form of fixed size each: a prefix, the private value, and (EC) the
 * public point. They are put together and taken apart here, because OpenSSL's decoders need some 150 us
 * a key and this some 30, and because any byte that is not as it must be is then found by comparing.
 * RSA goes through OpenSSL's encoders. */
#include <string.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/obj_mac.h>
#include <openssl/x509.h>
#include "libclient/base/lockmem.h"
#include "plugins/soft/soft.h"

struct part {
	const char *p;
	size_t n;
};
#define PART(literal) \
	{ \
		(literal), sizeof(literal) - 1 \
	}

#define OID_EC "\x06\x07\x2a\x86\x48\xce\x3d\x02\x01"
#define OID_P256 "\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"
#define OID_P384 "\x06\x05\x2b\x81\x04\x00\x22"
#define OID_P521 "\x06\x05\x2b\x81\x04\x00\x23"
#define OID_ED25519 "\x06\x03\x2b\x65\x70"

#define POINT_MAX 133u
#define SCALAR_MAX 66u

/* SubjectPublicKeyInfo is `spki`, point; PrivateKeyInfo is `head`, scalar, `mid`, point (RFC 5480, 5915),
 * for Ed25519 without the last two (RFC 8410). */
static const struct form {
	const char *group; /* OpenSSL's name; NULL for Ed25519 */
	struct part spki, head, mid;
	size_t scalar, point;
} forms[CSM_ALG__COUNT] = {
	[CSM_ALG_P256] = {"P-256", PART("\x30\x59\x30\x13" OID_EC OID_P256 "\x03\x42\x00"),
		PART("\x30\x81\x87\x02\x01\x00\x30\x13" OID_EC OID_P256 "\x04\x6d\x30\x6b\x02\x01\x01\x04\x20"),
		PART("\xa1\x44\x03\x42\x00"), 32, 65},
	[CSM_ALG_P384] = {"P-384", PART("\x30\x76\x30\x10" OID_EC OID_P384 "\x03\x62\x00"),
		PART("\x30\x81\xb6\x02\x01\x00\x30\x10" OID_EC OID_P384 "\x04\x81\x9e\x30\x81\x9b\x02\x01\x01\x04\x30"),
		PART("\xa1\x64\x03\x62\x00"), 48, 97},
	[CSM_ALG_P521] = {"P-521", PART("\x30\x81\x9b\x30\x10" OID_EC OID_P521 "\x03\x81\x86\x00"),
		PART("\x30\x81\xee\x02\x01\x00\x30\x10" OID_EC OID_P521 "\x04\x81\xd6\x30\x81\xd3\x02\x01\x01\x04\x42"),
		PART("\xa1\x81\x89\x03\x81\x86\x00"), 66, 133},
	[CSM_ALG_ED25519] = {NULL, PART("\x30\x2a\x30\x05" OID_ED25519 "\x03\x21\x00"),
		PART("\x30\x2e\x02\x01\x00\x30\x05" OID_ED25519 "\x04\x22\x04\x20"), PART(""), 32, 32},
};

int soft_out(struct csm_plugin_out *out, const void *p, size_t n)
{
	if (n > out->cap)
		return CSM_ETOO_LARGE;
	memcpy(out->p, p, n);
	out->len = n;
	return 0;
}

static uint8_t *append(uint8_t *at, const void *p, size_t n)
{
	memcpy(at, p, n);
	return at + n;
}

/* Is the part at *at? Then step over it. */
static bool skip(const uint8_t **at, const void *p, size_t n)
{
	bool same = memcmp(*at, p, n) == 0;

	*at += n;
	return same;
}

static int point_get(const struct form *f, EVP_PKEY *pkey, uint8_t point[static POINT_MAX])
{
	size_t n = 0;

	if (EVP_PKEY_get_octet_string_param(pkey, OSSL_PKEY_PARAM_PUB_KEY, point, POINT_MAX, &n) != 1 || n != f->point)
		return CSM_EBACKEND;
	return 0;
}

static int scalar_get(const struct form *f, EVP_PKEY *pkey, uint8_t scalar[static SCALAR_MAX])
{
	BIGNUM *bn = NULL;
	size_t n = SCALAR_MAX;
	int r = CSM_EBACKEND;

	if (f->group == NULL) {
		if (EVP_PKEY_get_raw_private_key(pkey, scalar, &n) == 1 && n == f->scalar)
			r = 0;
		return r;
	}
	if (EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_PRIV_KEY, &bn) == 1 &&
		BN_bn2binpad(bn, scalar, (int)f->scalar) == (int)f->scalar)
		r = 0;
	BN_clear_free(bn);
	return r;
}

int soft_spki_write(enum csm_alg alg, EVP_PKEY *pkey, struct csm_plugin_out *spki)
{
	const struct form *f = &forms[alg];
	uint8_t point[POINT_MAX];
	int r = CSM_EBACKEND;

	if (csm_alg_is_rsa(alg)) {
		uint8_t *der = NULL;
		int n = i2d_PUBKEY(pkey, &der);

		if (n > 0)
			r = soft_out(spki, der, (size_t)n);
		OPENSSL_free(der);
		return r;
	}
	if (spki->cap < f->spki.n + f->point)
		return CSM_ETOO_LARGE;
	if ((r = point_get(f, pkey, point)) != 0)
		return r;
	append(append(spki->p, f->spki.p, f->spki.n), point, f->point);
	spki->len = f->spki.n + f->point;
	return 0;
}

static int rsa_priv_write(EVP_PKEY *pkey, struct csm_plugin_out *priv)
{
	PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(pkey);
	uint8_t *der = NULL;
	int r = CSM_EBACKEND;
	int n = info != NULL ? i2d_PKCS8_PRIV_KEY_INFO(info, &der) : 0;

	if (n > 0) {
		r = soft_out(priv, der, (size_t)n);
		OPENSSL_clear_free(der, (size_t)n);
	}
	PKCS8_PRIV_KEY_INFO_free(info); /* wipes */
	return r;
}

int soft_priv_write(enum csm_alg alg, EVP_PKEY *pkey, struct csm_plugin_out *priv)
{
	const struct form *f = &forms[alg];
	size_t total = f->head.n + f->scalar + (f->group != NULL ? f->mid.n + f->point : 0);
	uint8_t point[POINT_MAX], *at;
	CSM_WIPED(scalar, SCALAR_MAX);
	int r;

	if (csm_alg_is_rsa(alg))
		return rsa_priv_write(pkey, priv);
	if (priv->cap < total)
		return CSM_ETOO_LARGE;
	if ((r = point_get(f, pkey, point)) != 0 || (r = scalar_get(f, pkey, scalar)) != 0)
		return r;
	at = append(append(priv->p, f->head.p, f->head.n), scalar, f->scalar);
	if (f->group != NULL)
		append(append(at, f->mid.p, f->mid.n), point, f->point);
	priv->len = total;
	return 0;
}

/* scalar may be NULL: a public key. CSM_EINVALID where the point is not on the curve. */
static int ec_make(const struct form *f, const BIGNUM *scalar, const uint8_t *point, EVP_PKEY **ret)
{
	EVP_PKEY_CTX *make = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
	int what = scalar != NULL ? EVP_PKEY_KEYPAIR : EVP_PKEY_PUBLIC_KEY;
	CSM_WIPED(native, SCALAR_MAX);
	OSSL_PARAM params[4];
	size_t n = 0;
	int r = CSM_EBACKEND;

	params[n++] = OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)(uintptr_t)f->group, 0);
	params[n++] = OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, (void *)(uintptr_t)point, f->point);
	if (scalar != NULL) {
		if (BN_bn2nativepad(scalar, native, (int)f->scalar) != (int)f->scalar)
			goto out;
		params[n++] = OSSL_PARAM_construct_BN(OSSL_PKEY_PARAM_PRIV_KEY, native, f->scalar);
	}
	params[n] = OSSL_PARAM_construct_end();
	if (make == NULL || EVP_PKEY_fromdata_init(make) != 1)
		goto out;
	r = EVP_PKEY_fromdata(make, ret, what, params) == 1 ? 0 : CSM_EINVALID;
out:
	EVP_PKEY_CTX_free(make);
	return r;
}

/* Is `point` the public half of the scalar? */
static int ec_pair_check(const EC_GROUP *group, const struct form *f, const BIGNUM *scalar, const uint8_t *point)
{
	EC_POINT *made = EC_POINT_new(group);
	uint8_t bytes[POINT_MAX];
	int r = CSM_EBACKEND;

	if (made == NULL)
		return r;
	r = CSM_ETAMPERED;
	if (BN_is_zero(scalar) || BN_cmp(scalar, EC_GROUP_get0_order(group)) >= 0)
		goto out;
	if (EC_POINT_mul(group, made, scalar, NULL, NULL, NULL) != 1 ||
		EC_POINT_point2oct(group, made, POINT_CONVERSION_UNCOMPRESSED, bytes, sizeof(bytes), NULL) !=
			f->point) {
		r = CSM_EBACKEND;
		goto out;
	}
	if (memcmp(bytes, point, f->point) == 0)
		r = 0;
out:
	EC_POINT_free(made);
	return r;
}

static int ec_key_read(
	const struct csm_plugin_ctx *ctx, enum csm_alg alg, const uint8_t *priv, const uint8_t *point, EVP_PKEY **ret)
{
	const struct form *f = &forms[alg];
	const uint8_t *at = priv, *scalar;
	BIGNUM *bn = NULL;
	bool same;
	int r;

	same = skip(&at, f->head.p, f->head.n);
	scalar = at;
	at += f->scalar;
	if (!(skip(&at, f->mid.p, f->mid.n) & same) || memcmp(at, point, f->point) != 0)
		return CSM_ETAMPERED;
	if ((bn = BN_secure_new()) == NULL || BN_bin2bn(scalar, (int)f->scalar, bn) == NULL) {
		r = CSM_EBACKEND;
		goto out;
	}
	BN_set_flags(bn, BN_FLG_CONSTTIME);
	/* Scalar and point belong together: what fails then is not the key. */
	if ((r = ec_pair_check(ctx->group[alg], f, bn, point)) == 0 && (r = ec_make(f, bn, point, ret)) == CSM_EINVALID)
		r = CSM_EBACKEND;
out:
	BN_clear_free(bn);
	return r;
}

static int ed_key_read(const struct form *f, const uint8_t *priv, const uint8_t *point, EVP_PKEY **ret)
{
	EVP_PKEY *pkey = NULL;
	uint8_t made[POINT_MAX];
	size_t n = sizeof(made);
	int r = CSM_ETAMPERED;

	if (memcmp(priv, f->head.p, f->head.n) != 0)
		return r;
	pkey = EVP_PKEY_new_raw_private_key_ex(NULL, "ED25519", NULL, priv + f->head.n, f->scalar);
	if (pkey == NULL || EVP_PKEY_get_raw_public_key(pkey, made, &n) != 1) {
		r = CSM_EBACKEND;
		goto out;
	}
	if (n != f->point || memcmp(made, point, n) != 0)
		goto out;
	*ret = pkey;
	pkey = NULL;
	r = 0;
out:
	EVP_PKEY_free(pkey);
	return r;
}

static int rsa_key_read(enum csm_alg alg, const struct csm_plugin_blob *blob, EVP_PKEY **ret)
{
	static const int bits[] = {[CSM_ALG_RSA2048] = 2048, [CSM_ALG_RSA3072] = 3072, [CSM_ALG_RSA4096] = 4096};
	const uint8_t *at = blob->priv;
	CSM_WIPED(again, CSM_PLUGIN_PRIV_MAX);
	struct csm_plugin_out out = {again, sizeof(again), 0};
	EVP_PKEY *pkey = NULL;
	uint8_t *spki = NULL;
	int n, r = CSM_ETAMPERED;

	if ((pkey = d2i_PrivateKey_ex(EVP_PKEY_RSA, NULL, &at, (long)blob->priv_len, NULL, NULL)) == NULL ||
		EVP_PKEY_get_bits(pkey) != bits[alg])
		goto out;
	/* Written anew it must be the same bytes: nothing is left over, no other form of the same key. */
	if (rsa_priv_write(pkey, &out) != 0 || out.len != blob->priv_len || memcmp(again, blob->priv, out.len) != 0)
		goto out;
	n = i2d_PUBKEY(pkey, &spki);
	if (n <= 0 || (size_t)n != blob->spki_len || memcmp(spki, blob->spki, blob->spki_len) != 0)
		goto out;
	if ((r = soft_rsa_consistent(pkey)) != 0)
		goto out;
	*ret = pkey;
	pkey = NULL;
out:
	OPENSSL_free(spki);
	EVP_PKEY_free(pkey);
	return r;
}

int soft_key_read(
	const struct csm_plugin_ctx *ctx, enum csm_alg alg, const struct csm_plugin_blob *blob, EVP_PKEY **ret)
{
	const struct form *f = &forms[alg];
	const uint8_t *point;

	if (blob->pub_len != 0 || blob->priv_len > CSM_PLUGIN_PRIV_MAX)
		return CSM_ETAMPERED;
	if (csm_alg_is_rsa(alg))
		return rsa_key_read(alg, blob, ret);
	if (blob->spki_len != f->spki.n + f->point || memcmp(blob->spki, f->spki.p, f->spki.n) != 0)
		return CSM_ETAMPERED;
	point = blob->spki + f->spki.n;
	if (blob->priv_len != f->head.n + f->scalar + (f->group != NULL ? f->mid.n + f->point : 0))
		return CSM_ETAMPERED;
	if (f->group == NULL)
		return ed_key_read(f, blob->priv, point, ret);
	return ec_key_read(ctx, alg, blob->priv, point, ret);
}

int soft_peer_read(enum csm_alg alg, const uint8_t *spki, size_t n, EVP_PKEY **ret)
{
	const struct form *f = &forms[alg];

	if (n != f->spki.n + f->point || memcmp(spki, f->spki.p, f->spki.n) != 0 || spki[f->spki.n] != 0x04)
		return CSM_EINVALID;
	return ec_make(f, NULL, spki + f->spki.n, ret);
}
