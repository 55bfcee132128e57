/* The usual case of a key, which is looked at quickly, is judged as OpenSSL's decoders and checks judge it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include "daemon/pki/plain.h"
#include "daemon/pki/subjkey.h"
#include "tests/lib/pkifix.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))
#define POINT_MAX 140u

static char why[CSM_SUBJKEY_WHY];

/* What OpenSSL says of it, without any short cut. */
static bool sound(X509_PUBKEY *pub, EVP_PKEY **ret)
{
	unsigned char *der = NULL;
	int n = i2d_X509_PUBKEY(pub, &der);
	const unsigned char *at = der;
	EVP_PKEY_CTX *ctx;
	bool good;

	assert_true(n > 0);
	*ret = d2i_PUBKEY(NULL, &at, n);
	OPENSSL_free(der);
	if (*ret == NULL)
		return false;
	ctx = EVP_PKEY_CTX_new(*ret, NULL);
	good = EVP_PKEY_public_check(ctx) == 1;
	EVP_PKEY_CTX_free(ctx);
	ERR_clear_error();
	return good;
}

/* In the form in which it comes with a request: no key has been made of it. */
static X509_PUBKEY *read_plain(X509_PUBKEY *pub)
{
	unsigned char *der = NULL;
	int n = i2d_X509_PUBKEY(pub, &der);
	const unsigned char *at = der;
	X509_PUBKEY *ret = csm_plain_d2i(&at, n, ASN1_ITEM_rptr(X509_PUBKEY));

	assert_true(ret != NULL && at == der + n);
	assert_null(X509_PUBKEY_get0(ret));
	ERR_clear_error();
	OPENSSL_free(der);
	return ret;
}

static void judged_alike(X509_PUBKEY *pub, bool expected)
{
	X509_PUBKEY *plain = read_plain(pub), *both[2] = {pub, plain};
	EVP_PKEY *want, *key;

	assert_int_equal(sound(pub, &want), expected);
	for (size_t i = 0; i < N_ELEMS(both); i++) {
		key = NULL;
		assert_int_equal(csm_subject_key(both[i], NULL, why), expected ? 0 : CSM_EINVALID);
		assert_int_equal(csm_subject_key(both[i], &key, why), expected ? 0 : CSM_EINVALID);
		assert_int_equal(key != NULL, expected);
		assert_true(expected || !csm_subject_key_quick(both[i], NULL));
		assert_int_equal(why[0] != '\0', !expected);
		if (expected) {
			assert_int_equal(EVP_PKEY_eq(key, want), 1);
			assert_int_equal(EVP_PKEY_get_base_id(key), EVP_PKEY_get_base_id(want));
			assert_int_equal(EVP_PKEY_get_bits(key), EVP_PKEY_get_bits(want));
		}
		assert_int_equal(ERR_peek_error(), 0);
		EVP_PKEY_free(key);
	}
	EVP_PKEY_free(want);
	X509_PUBKEY_free(plain);
}

static X509_PUBKEY *ec_pub(int curve, const uint8_t *point, size_t n)
{
	X509_PUBKEY *pub = X509_PUBKEY_new();
	unsigned char *copy = OPENSSL_memdup(point, n);

	assert_true(pub != NULL && copy != NULL);
	assert_int_equal(X509_PUBKEY_set0_param(pub, OBJ_nid2obj(NID_X9_62_id_ecPublicKey), V_ASN1_OBJECT, OBJ_nid2obj(curve), copy,
		(int)n), 1);
	return pub;
}

static void point_judged(int curve, const uint8_t *point, size_t n, bool expected)
{
	X509_PUBKEY *pub = ec_pub(curve, point, n);

	judged_alike(pub, expected);
	X509_PUBKEY_free(pub);
}

static void quick(int curve, const uint8_t *point, size_t n, bool expected)
{
	X509_PUBKEY *pub = ec_pub(curve, point, n);

	int bits = 0;

	assert_int_equal(csm_subject_key_quick(pub, &bits), expected);
	assert_int_equal(bits, !expected ? 0 : curve == NID_X9_62_prime256v1 ? 256 : curve == NID_secp384r1 ? 384 : 521);
	X509_PUBKEY_free(pub);
}

static size_t point_of(int curve, point_conversion_form_t form, uint8_t out[static POINT_MAX])
{
	EC_GROUP *g = EC_GROUP_new_by_curve_name(curve);
	EC_POINT *p = EC_POINT_new(g);
	BIGNUM *k = BN_new();
	size_t n;

	assert_true(BN_set_word(k, 0x12345) == 1 && EC_POINT_mul(g, p, k, NULL, NULL, NULL) == 1);
	n = EC_POINT_point2oct(g, p, form, out, POINT_MAX, NULL);
	assert_true(n > 0);
	BN_free(k);
	EC_POINT_free(p);
	EC_GROUP_free(g);
	return n;
}

static void points_are_judged_as_by_openssl(void **state)
{
	static const int curves[] = {NID_X9_62_prime256v1, NID_secp384r1, NID_secp521r1};
	uint8_t p[POINT_MAX];
	size_t n;

	(void)state;
	for (size_t i = 0; i < N_ELEMS(curves); i++) {
		n = point_of(curves[i], POINT_CONVERSION_UNCOMPRESSED, p);
		point_judged(curves[i], p, n, true);
		quick(curves[i], p, n, true);
		point_judged(curves[i], p, n - 1, false);
		p[n] = 0;
		point_judged(curves[i], p, n + 1, false);
		p[n - 1] ^= 1; /* beside the curve */
		point_judged(curves[i], p, n, false);
		memset(p + 1, 0xff, n - 1); /* no residue of the field */
		point_judged(curves[i], p, n, false);
		memset(p, 0, n);
		point_judged(curves[i], p, 1, false); /* the infinite one */
		p[0] = POINT_CONVERSION_UNCOMPRESSED;
		point_judged(curves[i], p, n, false);
		n = point_of(curves[i], POINT_CONVERSION_COMPRESSED, p);
		point_judged(curves[i], p, n, true);
		quick(curves[i], p, n, false);
		point_judged(curves[i], p, point_of(curves[i], POINT_CONVERSION_HYBRID, p), true);
		/* of another curve */
		n = point_of(curves[i], POINT_CONVERSION_UNCOMPRESSED, p);
		point_judged(curves[(i + 1) % N_ELEMS(curves)], p, n, false);
	}
}

static void other_keys_are_taken_to_pieces(void **state)
{
	static const char *const algs[] = {"rsa2048", "ed25519", "p256", "p384", "p521"};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(algs); i++) {
		X509_PUBKEY *pub = NULL, *plain;
		EVP_PKEY *key = NULL;

		assert_int_equal(X509_PUBKEY_set(&pub, pki_key(algs[i])), 1);
		plain = read_plain(pub);
		assert_int_equal(csm_subject_key(plain, &key, why), 0);
		assert_int_equal(EVP_PKEY_eq(key, pki_key(algs[i])), 1);
		EVP_PKEY_free(key);
		X509_PUBKEY_free(plain);
		X509_PUBKEY_free(pub);
	}
}

static void other_curves_are_refused(void **state)
{
	static const int curves[] = {NID_secp256k1, NID_brainpoolP256r1, NID_X9_62_prime192v1};
	uint8_t p[POINT_MAX];

	(void)state;
	for (size_t i = 0; i < N_ELEMS(curves); i++) {
		X509_PUBKEY *pub = ec_pub(curves[i], p, point_of(curves[i], POINT_CONVERSION_UNCOMPRESSED, p));
		X509_PUBKEY *plain = read_plain(pub);

		assert_int_equal(csm_subject_key(plain, NULL, why), CSM_EINVALID);
		assert_non_null(strstr(why, "another curve"));
		X509_PUBKEY_free(plain);
		X509_PUBKEY_free(pub);
	}
}

/* One thread's verifier takes one key after the other, and none for another's. */
/* An AlgorithmIdentifier without parameters. */
static struct csm_bin algorithm(int nid, uint8_t out[static 32])
{
	X509_ALGOR *alg = X509_ALGOR_new();
	unsigned char *at = out;
	int n;

	assert_int_equal(X509_ALGOR_set0(alg, OBJ_nid2obj(nid), V_ASN1_UNDEF, NULL), 1);
	assert_in_range(i2d_X509_ALGOR(alg, NULL), 1, 32);
	n = i2d_X509_ALGOR(alg, &at);
	X509_ALGOR_free(alg);
	return (struct csm_bin){out, (size_t)n};
}

/* Of this key's kind, by others. */
static void other_signatures(EVP_PKEY *key, const char *curve, struct csm_bin alg, struct csm_bin text, uint8_t *made, size_t n)
{
	EVP_PKEY *fresh = EVP_PKEY_Q_keygen(NULL, NULL, "EC", curve);
	struct csm_bin spki = pki_spki(key);
	const struct csm_bin sig = {made, n};
	unsigned char *stranger = NULL;
	uint8_t sha1[32], off[256];
	int len = i2d_PUBKEY(fresh, &stranger);

	assert_int_equal(csm_subject_verify((struct csm_bin){stranger, (size_t)len}, alg, text, sig), CSM_EINVALID);
	OPENSSL_free(stranger);
	assert_int_equal(csm_subject_verify(spki, alg, text, sig), 0);
	made[n - 1] ^= 1;
	assert_int_equal(csm_subject_verify(spki, alg, text, sig), CSM_EINVALID);
	made[0] ^= 1; /* nothing that can be read: left to OpenSSL's whole way */
	assert_int_not_equal(csm_subject_verify(spki, alg, text, sig), 0);
	made[0] ^= 1;
	made[n - 1] ^= 1;
	assert_int_equal(csm_subject_verify(spki, algorithm(NID_ecdsa_with_SHA1, sha1), text, sig), CSM_EUNSUPPORTED);
	assert_int_equal(csm_subject_verify(spki, (struct csm_bin){alg.p, alg.n - 1}, text, sig), CSM_EUNSUPPORTED);
	/* a point that is not on the curve, and one byte less */
	memcpy(off, spki.p, spki.n);
	off[spki.n - 1] ^= 1;
	assert_int_equal(csm_subject_verify((struct csm_bin){off, spki.n}, alg, text, sig), CSM_EUNSUPPORTED);
	assert_int_equal(csm_subject_verify((struct csm_bin){spki.p, spki.n - 1}, alg, text, sig), CSM_EUNSUPPORTED);
	assert_int_equal(csm_subject_verify(spki, alg, text, sig), 0);
	EVP_PKEY_free(fresh);
}

static void signatures_are_judged_as_by_openssl(void **state)
{
	static const char *const algs[] = {"p256", "p384", "p521", "rsa2048", "ed25519"}, *const curves[] = {"P-256", "P-384", "P-521", NULL, NULL};
	static const EVP_MD *(*const hashes[])(void) = {EVP_sha256, EVP_sha384, EVP_sha512};
	const struct csm_bin text = {(const uint8_t *)"some text", 9}, other = {(const uint8_t *)"same text", 9};

	(void)state;
	for (size_t i = 0; i < 3 * N_ELEMS(algs); i++) {
		EVP_PKEY *key = pki_key(algs[i % N_ELEMS(algs)]);
		const EVP_MD *md = hashes[i / N_ELEMS(algs)]();
		bool ec = EVP_PKEY_get_base_id(key) == EVP_PKEY_EC;
		struct csm_bin spki = pki_spki(key), alg;
		EVP_MD_CTX *ctx = EVP_MD_CTX_new();
		uint8_t made[1024], id[32];
		size_t n = sizeof(made);
		int nid = NID_undef, bits = 0;

		assert_int_equal(EVP_DigestSignInit(ctx, NULL, i % N_ELEMS(algs) == 4 ? NULL : md, NULL, key), 1);
		assert_int_equal(EVP_DigestSign(ctx, made, &n, text.p, text.n), 1);
		(void)OBJ_find_sigid_by_algs(&nid, EVP_MD_get_type(md), EVP_PKEY_get_base_id(key));
		alg = algorithm(nid != NID_undef ? nid : NID_ED25519, id);
		assert_int_equal(csm_subject_form(spki, &bits), ec);
		assert_int_equal(bits, ec ? EVP_PKEY_get_bits(key) : 0);
		assert_int_equal(csm_subject_verify(spki, alg, text, (struct csm_bin){made, n}), ec ? 0 : CSM_EUNSUPPORTED);
		assert_int_equal(csm_subject_verify(spki, alg, other, (struct csm_bin){made, n}), ec ? CSM_EINVALID : CSM_EUNSUPPORTED);
		if (curves[i % N_ELEMS(algs)] != NULL)
			other_signatures(key, curves[i % N_ELEMS(algs)], alg, text, made, n);
		assert_int_equal(ERR_peek_error(), 0);
		EVP_MD_CTX_free(ctx);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(points_are_judged_as_by_openssl),
		cmocka_unit_test(signatures_are_judged_as_by_openssl),
		cmocka_unit_test(other_keys_are_taken_to_pieces),
		cmocka_unit_test(other_curves_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
