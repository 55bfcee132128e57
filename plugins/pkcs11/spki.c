/* Public keys: between PKCS#11's attributes and SubjectPublicKeyInfo. */
#include <string.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include "plugins/pkcs11/pkcs11.h"

static const struct form {
	const char *group; /* OpenSSL's name */
	const char *curve; /* DER */
	size_t curve_len, field;
	int bits;
} forms[CSM_ALG__COUNT] = {
	[CSM_ALG_P256] = {"prime256v1", "\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07", 10, 32, 256},
	[CSM_ALG_P384] = {"secp384r1", "\x06\x05\x2b\x81\x04\x00\x22", 7, 48, 384},
	[CSM_ALG_P521] = {"secp521r1", "\x06\x05\x2b\x81\x04\x00\x23", 7, 66, 521},
	[CSM_ALG_RSA2048] = {NULL, NULL, 0, 0, 2048},
	[CSM_ALG_RSA3072] = {NULL, NULL, 0, 0, 3072},
	[CSM_ALG_RSA4096] = {NULL, NULL, 0, 0, 4096},
	[CSM_ALG_ED25519] = {NULL, "\x06\x03\x2b\x65\x70", 5, 0, 256},
};

int p11_out(struct csm_plugin_out *out, const void *p, size_t n)
{
	if (n > out->cap)
		return CSM_ETOO_LARGE;
	if (n > 0)
		memcpy(out->p, p, n);
	out->len = n;
	return 0;
}

size_t p11_field(enum csm_alg alg)
{
	return forms[alg].field;
}

const uint8_t *p11_curve(enum csm_alg alg, size_t *n)
{
	*n = forms[alg].curve_len;
	return (const uint8_t *)forms[alg].curve;
}

static EVP_PKEY *from_params(const char *type, OSSL_PARAM *params)
{
	EVP_PKEY_CTX *make = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
	EVP_PKEY *pkey = NULL;

	if (make == NULL || EVP_PKEY_fromdata_init(make) != 1 ||
		EVP_PKEY_fromdata(make, &pkey, EVP_PKEY_PUBLIC_KEY, params) != 1)
		pkey = NULL;
	EVP_PKEY_CTX_free(make);
	ERR_clear_error();
	return pkey;
}

/* Out of an OCTET STRING that is all of p and holds `whole` bytes. The length is one byte, or two: there are libraries
 * that write 133 as one. */
static void unwrap(const uint8_t **p, size_t *n, size_t whole)
{
	size_t head = *n - whole;

	if ((head == 2 || (head == 3 && (*p)[1] == 0x81)) && (*p)[0] == 0x04 && (*p)[head - 1] == whole) {
		*p += head;
		*n = whole;
	}
}

int p11_spki_of_point(enum csm_alg alg, const uint8_t *p, size_t n, EVP_PKEY **ret)
{
	size_t whole = alg == CSM_ALG_ED25519 ? 32 : 2 * forms[alg].field + 1;
	OSSL_PARAM params[3];
	EVP_PKEY *pkey;

	if (n > whole)
		unwrap(&p, &n, whole);
	if (n != whole)
		return CSM_EBACKEND;
	if (alg == CSM_ALG_ED25519) {
		pkey = EVP_PKEY_new_raw_public_key_ex(NULL, "ED25519", NULL, p, n);
	} else {
		params[0] = OSSL_PARAM_construct_utf8_string(
			OSSL_PKEY_PARAM_GROUP_NAME, (char *)(uintptr_t)forms[alg].group, 0);
		params[1] = OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, (void *)(uintptr_t)p, n);
		params[2] = OSSL_PARAM_construct_end();
		pkey = p[0] == 0x04 ? from_params("EC", params) : NULL;
	}
	ERR_clear_error();
	if (pkey == NULL)
		return CSM_EBACKEND;
	*ret = pkey;
	return 0;
}

static bool native(const uint8_t *p, size_t n, uint8_t *out, size_t cap)
{
	BIGNUM *bn = n <= cap ? BN_bin2bn(p, (int)n, NULL) : NULL;
	bool ok = bn != NULL && BN_bn2nativepad(bn, out, (int)cap) == (int)cap;

	BN_free(bn);
	return ok;
}

int p11_spki_of_rsa(enum csm_alg alg, const uint8_t *n, size_t n_len, const uint8_t *e, size_t e_len, EVP_PKEY **ret)
{
	uint8_t n_native[512], e_native[16];
	OSSL_PARAM params[3];
	EVP_PKEY *pkey;

	if (!native(n, n_len, n_native, sizeof(n_native)) || !native(e, e_len, e_native, sizeof(e_native)))
		return CSM_EBACKEND;
	params[0] = OSSL_PARAM_construct_BN(OSSL_PKEY_PARAM_RSA_N, n_native, sizeof(n_native));
	params[1] = OSSL_PARAM_construct_BN(OSSL_PKEY_PARAM_RSA_E, e_native, sizeof(e_native));
	params[2] = OSSL_PARAM_construct_end();
	if ((pkey = from_params("RSA", params)) == NULL)
		return CSM_EBACKEND;
	if (EVP_PKEY_get_bits(pkey) != forms[alg].bits) {
		EVP_PKEY_free(pkey);
		return CSM_EBACKEND;
	}
	*ret = pkey;
	return 0;
}

int p11_spki_write(EVP_PKEY *pkey, struct csm_plugin_out *out)
{
	uint8_t *der = NULL;
	int n = i2d_PUBKEY(pkey, &der), r = CSM_EBACKEND;

	if (n > 0)
		r = p11_out(out, der, (size_t)n);
	OPENSSL_free(der);
	ERR_clear_error();
	return r;
}

int p11_spki_alg(EVP_PKEY *pkey, enum csm_alg *ret)
{
	char group[32] = "";

	for (unsigned alg = 0; alg < CSM_ALG__COUNT; alg++) {
		const char *type = csm_alg_is_rsa(alg) ? "RSA" : forms[alg].group != NULL ? "EC" : "ED25519";

		if (EVP_PKEY_is_a(pkey, type) != 1 || EVP_PKEY_get_bits(pkey) != forms[alg].bits)
			continue;
		if (forms[alg].group != NULL &&
			(EVP_PKEY_get_group_name(pkey, group, sizeof(group), NULL) != 1 ||
				strcmp(group, forms[alg].group) != 0))
			continue;
		*ret = alg;
		return 0;
	}
	return CSM_EUNSUPPORTED;
}

int p11_spki_read(enum csm_alg alg, const uint8_t *spki, size_t n, EVP_PKEY **ret)
{
	uint8_t again[CSM_SPKI_MAX];
	struct csm_plugin_out out = {again, sizeof(again), 0};
	const uint8_t *at = spki;
	enum csm_alg found;
	EVP_PKEY *pkey;

	if (n == 0 || n > CSM_SPKI_MAX)
		return CSM_EINVALID;
	pkey = d2i_PUBKEY_ex(NULL, &at, (long)n, NULL, NULL);
	ERR_clear_error();
	/* Written anew it must be the same bytes: one form, no compressed point, no explicit curve. */
	if (pkey == NULL || p11_spki_alg(pkey, &found) != 0 || found != alg || p11_spki_write(pkey, &out) != 0 ||
		out.len != n || memcmp(again, spki, n) != 0 ||
		(forms[alg].field != 0 && spki[n - 2 * forms[alg].field - 1] != 0x04)) {
		EVP_PKEY_free(pkey);
		return CSM_EINVALID;
	}
	*ret = pkey;
	return 0;
}

size_t p11_point(EVP_PKEY *pkey, uint8_t point[static P11_POINT_MAX])
{
	size_t n = 0;

	if (EVP_PKEY_get_octet_string_param(pkey, OSSL_PKEY_PARAM_PUB_KEY, point, P11_POINT_MAX, &n) != 1)
		n = 0;
	ERR_clear_error();
	return n;
}

/* One INTEGER of `half` bytes; 0 for a zero. */
static size_t integer(const uint8_t *p, size_t half, uint8_t *at)
{
	size_t n = 0;

	while (half > 0 && *p == 0) {
		p++;
		half--;
	}
	if (half == 0)
		return 0;
	at[n++] = 0x02;
	at[n++] = (uint8_t)(half + (*p >> 7));
	if (*p >> 7)
		at[n++] = 0;
	memcpy(at + n, p, half);
	return n + half;
}

bool p11_ecdsa_der(const uint8_t *rs, size_t half, uint8_t out[static CSM_SIGNATURE_MAX], size_t *n)
{
	uint8_t r[P11_FIELD_MAX + 3], s[P11_FIELD_MAX + 3];
	size_t r_len = integer(rs, half, r), s_len = integer(rs + half, half, s), at = 0;

	if (r_len == 0 || s_len == 0)
		return false;
	out[at++] = 0x30;
	if (r_len + s_len >= 128)
		out[at++] = 0x81;
	out[at++] = (uint8_t)(r_len + s_len);
	memcpy(out + at, r, r_len);
	memcpy(out + at + r_len, s, s_len);
	*n = at + r_len + s_len;
	return true;
}
