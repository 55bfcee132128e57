/* The computations of TPM sessions against other makers of the same: OpenSSL's KBKDF and SSKDF, published
 * vectors, the EVP interface. That a TPM agrees on whole sessions is shown by every other test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include "plugins/tpm2/crypt.h"

static struct t2_crypt crypt_;

static void fill(uint8_t *p, size_t n, uint8_t seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(seed + 31 * i);
}

static void kdf(const char *name, OSSL_PARAM *par, uint8_t *out, size_t n)
{
	EVP_KDF *k = EVP_KDF_fetch(NULL, name, NULL);
	EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(k);

	assert_int_equal(EVP_KDF_derive(ctx, out, n, par), 1);
	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(k);
}

/* RFC 4231, test case 2; FIPS 180-4's "abc". */
static void hash_and_hmac_published(void **state)
{
	static const uint8_t mac[32] = {0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e, 0x6a, 0x04, 0x24, 0x26, 0x08,
		0x95, 0x75, 0xc7, 0x5a, 0x00, 0x3f, 0x08, 0x9d, 0x27, 0x39, 0x83, 0x9d, 0xec, 0x58, 0xb9, 0x64, 0xec,
		0x38, 0x43};
	static const uint8_t abc[32] = {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d,
		0xae, 0x22, 0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00,
		0x15, 0xad};
	struct t2_part text[] = {{"what do ya want ", 16}, {"for nothing?", 12}}, parts[] = {{"a", 1}, {"bc", 2}};
	uint8_t out[32];

	(void)state;
	for (int i = 0; i < 3; i++) { /* the objects are used again and again */
		assert_int_equal(t2_hmac(&crypt_, (const uint8_t *)"Jefe", 4, text, 2, out), 0);
		assert_memory_equal(out, mac, 32);
		assert_int_equal(t2_hash(&crypt_, parts, 2, out), 0);
		assert_memory_equal(out, abc, 32);
	}
}

/* KDFa is SP 800-108 in counter mode: [i] | label | 0 | U | V | [bits]. */
static void kdfa_is_kbkdf(void **state)
{
	uint8_t key[32], u[16], v[16], ours[64], theirs[64], context[32];
	char label[] = "CFB", mac[] = "HMAC", md[] = "SHA256", mode[] = "COUNTER";

	(void)state;
	fill(key, sizeof(key), 1);
	fill(u, sizeof(u), 2);
	fill(v, sizeof(v), 3);
	memcpy(context, u, 16);
	memcpy(context + 16, v, 16);
	for (size_t n = 1; n <= sizeof(ours); n++) {
		OSSL_PARAM par[] = {
			OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_MAC, mac, 0),
			OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, md, 0),
			OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_MODE, mode, 0),
			OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, key, sizeof(key)),
			OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, label, 3),
			OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, context, sizeof(context)),
			OSSL_PARAM_construct_end(),
		};

		kdf("KBKDF", par, theirs, n);
		assert_int_equal(t2_kdfa(&crypt_, key, sizeof(key), label, (struct t2_part){u, 16},
					 (struct t2_part){v, 16}, ours, n),
			0);
		assert_memory_equal(ours, theirs, n);
	}
	u[0] ^= 1;
	assert_int_equal(t2_kdfa(&crypt_, key, sizeof(key), label, (struct t2_part){u, 16}, (struct t2_part){v, 16},
				 ours, 64),
		0);
	assert_memory_not_equal(ours, theirs, 64);
}

/* KDFe is the one-step KDF of SP 800-56C over label | 0 | U | V. */
static void kdfe_is_sskdf(void **state)
{
	uint8_t z[32], info[7 + 64], ours[32], theirs[32];
	char md[] = "SHA256";

	(void)state;
	fill(z, sizeof(z), 5);
	memcpy(info, "SECRET", 7);
	fill(info + 7, 64, 6);
	OSSL_PARAM par[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, md, 0),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SECRET, z, sizeof(z)),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, sizeof(info)),
		OSSL_PARAM_construct_end(),
	};

	kdf("SSKDF", par, theirs, 32);
	assert_int_equal(t2_kdfe(&crypt_, (struct t2_part){z, 32}, "SECRET", (struct t2_part){info + 7, 32},
				 (struct t2_part){info + 39, 32}, ours),
		0);
	assert_memory_equal(ours, theirs, 32);
}

/* SP 800-38A, F.3.13: CFB128-AES128. */
static void cfb_published(void **state)
{
	static const uint8_t key_iv[32] = {0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7, 0x15, 0x88, 0x09,
		0xcf, 0x4f, 0x3c, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d,
		0x0e, 0x0f};
	static const uint8_t plain[20] = {0x6b, 0xc1, 0xbe, 0xe2, 0x2e, 0x40, 0x9f, 0x96, 0xe9, 0x3d, 0x7e, 0x11, 0x73,
		0x93, 0x17, 0x2a, 0xae, 0x2d, 0x8a, 0x57};
	static const uint8_t cipher[20] = {0x3b, 0x3f, 0xd9, 0x2e, 0xb7, 0x2d, 0xad, 0x20, 0x33, 0x34, 0x49, 0xf8, 0xe8,
		0x3c, 0xfb, 0x4a, 0xc8, 0xa6, 0x45, 0x37};
	uint8_t buf[20];

	(void)state;
	for (size_t n = 1; n <= sizeof(buf); n++) {
		memcpy(buf, plain, sizeof(buf));
		assert_int_equal(t2_cfb(&crypt_, key_iv, 1, buf, n), 0);
		assert_memory_equal(buf, cipher, n);
		assert_int_equal(t2_cfb(&crypt_, key_iv, 0, buf, n), 0);
		assert_memory_equal(buf, plain, n);
	}
}

static void point_of(EVP_PKEY *key, TPMT_PUBLIC *pub)
{
	BIGNUM *x = NULL, *y = NULL;

	memset(pub, 0, sizeof(*pub));
	pub->type = TPM2_ALG_ECC;
	pub->nameAlg = TPM2_ALG_SHA256;
	pub->parameters.eccDetail.curveID = TPM2_ECC_NIST_P256;
	assert_int_equal(EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_EC_PUB_X, &x), 1);
	assert_int_equal(EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_EC_PUB_Y, &y), 1);
	/* as a TPM may give them: without leading zeros */
	pub->unique.ecc.x.size = (UINT16)BN_bn2bin(x, pub->unique.ecc.x.buffer);
	pub->unique.ecc.y.size = (UINT16)BN_bn2bin(y, pub->unique.ecc.y.buffer);
	BN_free(x);
	BN_free(y);
}

/* The other end of a salt: what the TPM computes from the encrypted secret. */
static void salt_opens_on_the_other_side(void **state)
{
	(void)state;
	for (int i = 0; i < 40; i++) {
		EVP_PKEY *srk = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256"), *eph = NULL;
		TPM2B_ENCRYPTED_SECRET enc = {0};
		uint8_t salt[32], z[32], want[32], info[7 + 64] = "SECRET";
		TPMT_PUBLIC pub, e = {.type = TPM2_ALG_ECC};
		EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(srk, NULL);
		const TPM2B_ECC_PARAMETER *x;
		char md[] = "SHA256";
		size_t len = 32;

		point_of(srk, &pub);
		assert_int_equal(t2_salt_make(&crypt_, &pub, salt, &enc), 0);
		assert_int_equal(enc.size, 68);
		e.parameters.eccDetail.curveID = TPM2_ECC_NIST_P256;
		e.unique.ecc.x.size = e.unique.ecc.y.size = 32;
		memcpy(e.unique.ecc.x.buffer, enc.secret + 2, 32);
		memcpy(e.unique.ecc.y.buffer, enc.secret + 36, 32);
		assert_int_equal(csm_tpm_public_evp(&e, &eph), 0);
		assert_int_equal(EVP_PKEY_derive_init(ctx), 1);
		assert_int_equal(EVP_PKEY_derive_set_peer(ctx, eph), 1);
		assert_int_equal(EVP_PKEY_derive(ctx, z, &len), 1);
		memcpy(info + 7, enc.secret + 2, 32);
		x = &pub.unique.ecc.x;
		memset(info + 39, 0, 32);
		memcpy(info + 39 + 32 - x->size, x->buffer, x->size);
		OSSL_PARAM par[] = {
			OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, md, 0),
			OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SECRET, z, sizeof(z)),
			OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, sizeof(info)),
			OSSL_PARAM_construct_end(),
		};
		kdf("SSKDF", par, want, 32);
		assert_memory_equal(salt, want, 32);
		EVP_PKEY_CTX_free(ctx);
		EVP_PKEY_free(eph);
		EVP_PKEY_free(srk);
	}
}

static void spki_is_openssls(void **state)
{
	EVP_PKEY *ec = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	EVP_PKEY *rsa = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048);
	uint8_t out[600], *der = NULL;
	BIGNUM *n = NULL;
	TPMT_PUBLIC pub;
	size_t len = 0;
	int der_len;

	(void)state;
	point_of(ec, &pub);
	der_len = i2d_PUBKEY(ec, &der);
	assert_int_equal(csm_tpm_public_spki(&pub, out, sizeof(out), &len), 0);
	assert_int_equal(len, der_len);
	assert_memory_equal(out, der, len);
	assert_int_equal(csm_tpm_public_spki(&pub, out, len - 1, &len), CSM_ETOO_LARGE);
	OPENSSL_free(der);
	der = NULL;
	/* a point off the curve */
	pub.unique.ecc.y.buffer[5] ^= 1;
	assert_int_not_equal(csm_tpm_public_spki(&pub, out, sizeof(out), &len), 0);
	pub.parameters.eccDetail.curveID = TPM2_ECC_SM2_P256;
	assert_int_equal(csm_tpm_public_spki(&pub, out, sizeof(out), &len), CSM_EUNSUPPORTED);

	memset(&pub, 0, sizeof(pub));
	pub.type = TPM2_ALG_RSA;
	assert_int_equal(EVP_PKEY_get_bn_param(rsa, OSSL_PKEY_PARAM_RSA_N, &n), 1);
	pub.unique.rsa.size = (UINT16)BN_bn2bin(n, pub.unique.rsa.buffer);
	der_len = i2d_PUBKEY(rsa, &der);
	assert_int_equal(csm_tpm_public_spki(&pub, out, sizeof(out), &len), 0);
	assert_int_equal(len, der_len);
	assert_memory_equal(out, der, len);
	OPENSSL_free(der);
	BN_free(n);
	EVP_PKEY_free(ec);
	EVP_PKEY_free(rsa);
}

static int setup(void **state)
{
	(void)state;
	return t2_crypt_init(&crypt_);
}

static int teardown(void **state)
{
	(void)state;
	t2_crypt_free(&crypt_);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hash_and_hmac_published),
		cmocka_unit_test(kdfa_is_kbkdf),
		cmocka_unit_test(kdfe_is_sskdf),
		cmocka_unit_test(cfb_published),
		cmocka_unit_test(salt_opens_on_the_other_side),
		cmocka_unit_test(spki_is_openssls),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
