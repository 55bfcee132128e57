#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
#include <pthread.h>
#include <sodium.h>
#include "daemon/pki/subjkey.h"

#define RSA_BITS_MIN 2048
#define RSA_BITS_MAX 4096 /* to look at a key of 8192 bits takes 130 ms, and anyone may send one */
#define RSA_E_BITS_MAX 64

static int __attribute__((format(printf, 2, 3))) refuse(char *why, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(why, CSM_SUBJKEY_WHY, fmt, ap);
	va_end(ap);
	return CSM_EINVALID;
}

static int check_rsa(char *why, EVP_PKEY *key)
{
	BIGNUM *e = NULL;
	bool sound;

	if (EVP_PKEY_get_bits(key) < RSA_BITS_MIN)
		return refuse(why, "weak key: RSA of %d bits, at least %d are needed", EVP_PKEY_get_bits(key), RSA_BITS_MIN);
	if (EVP_PKEY_get_bits(key) > RSA_BITS_MAX)
		return refuse(why, "the key is RSA of more than %d bits", RSA_BITS_MAX);
	sound = EVP_PKEY_get_bn_param(key, "e", &e) == 1 && BN_is_odd(e) && BN_num_bits(e) > 16 &&
		BN_num_bits(e) <= RSA_E_BITS_MAX;
	BN_free(e);
	return sound ? 0 : refuse(why, "weak key: its exponent is even, below 65537, or longer than %d bits", RSA_E_BITS_MAX);
}

/* OpenSSL finds a curve's name for numbers that are given in its place, too. */
static bool is_named(X509_PUBKEY *pub)
{
	X509_ALGOR *alg = NULL;
	int kind = V_ASN1_UNDEF;

	if (X509_PUBKEY_get0_param(NULL, NULL, NULL, &alg, pub) == 1)
		X509_ALGOR_get0(NULL, &kind, NULL, alg);
	return kind == V_ASN1_OBJECT;
}

static int check_ec(char *why, EVP_PKEY *key, X509_PUBKEY *pub)
{
	char group[32];
	int nid = EVP_PKEY_get_group_name(key, group, sizeof(group), NULL) == 1 ? OBJ_sn2nid(group) : NID_undef;

	if ((nid != NID_X9_62_prime256v1 && nid != NID_secp384r1 && nid != NID_secp521r1) ||
		!is_named(pub))
		return refuse(why, "the key is on another curve than P-256, P-384 and P-521, or the curve is not given by its name");
	return 0;
}

/* A point of small order has signatures that anyone can make. */
static int check_ed25519(char *why, EVP_PKEY *key)
{
	uint8_t raw[crypto_core_ed25519_BYTES];
	size_t n = sizeof(raw);

	if (EVP_PKEY_get_raw_public_key(key, raw, &n) != 1 || n != sizeof(raw) || crypto_core_ed25519_is_valid_point(raw) != 1)
		return refuse(why, "weak key: not a point of Ed25519's group");
	return 0;
}

/* The group's order is prime: a point on the curve is a good one. Of RSA the modulus is looked at as well. */
static int check_sound(char *why, EVP_PKEY *key, bool quick)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
	int good = ctx == NULL ? -1 : quick ? EVP_PKEY_public_check_quick(ctx) : EVP_PKEY_public_check(ctx);

	EVP_PKEY_CTX_free(ctx);
	return good == 1 ? 0 : refuse(why, "weak key: its public half is not sound");
}

/* ---- the usual case ---- */

/* Curves whose keys need not be taken to pieces by OpenSSL's decoders. Made once, kept for ever, only read. */
static struct curve {
	int nid, bits;
	const char *name;
	size_t point; /* bytes of an uncompressed one */
	EC_GROUP *group;
	EVP_PKEY *params; /* a key without a point */
} curves[] = {
	{.nid = NID_X9_62_prime256v1, .bits = 256, .name = "P-256", .point = 65},
	{.nid = NID_secp384r1, .bits = 384, .name = "P-384", .point = 97},
	{.nid = NID_secp521r1, .bits = 521, .name = "P-521", .point = 133},
};
#define CURVES (sizeof(curves) / sizeof(curves[0]))
static pthread_once_t curves_once = PTHREAD_ONCE_INIT;

/* What verifies on a curve, of each thread: a key that is given one point after the other, which spares making one each time. */
struct verifier {
	EVP_PKEY *key;
	EVP_PKEY_CTX *ctx;
	EVP_MD_CTX *hash;
};
static pthread_key_t verifiers_key;
static bool verifiers_keyed;

static void verifiers_free(void *arg)
{
	struct verifier *v = arg;

	for (size_t i = 0; i < CURVES; i++) {
		EVP_MD_CTX_free(v[i].hash);
		EVP_PKEY_CTX_free(v[i].ctx);
		EVP_PKEY_free(v[i].key);
	}
	free(v);
}

static EVP_PKEY *params_of(const char *name)
{
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)(uintptr_t)name, 0), OSSL_PARAM_construct_end()};
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
	EVP_PKEY *key = NULL;

	if (ctx == NULL || EVP_PKEY_fromdata_init(ctx) != 1 ||
		EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_KEY_PARAMETERS, (OSSL_PARAM *)(uintptr_t)params) != 1)
		key = NULL;
	EVP_PKEY_CTX_free(ctx);
	return key;
}

static void make_curves(void)
{
	verifiers_keyed = pthread_key_create(&verifiers_key, verifiers_free) == 0;
	for (size_t i = 0; i < CURVES; i++) {
		curves[i].group = EC_GROUP_new_by_curve_name(curves[i].nid);
		curves[i].params = params_of(curves[i].name);
	}
}

/* The curve of a key that is given by a curve's name and an uncompressed point; NULL: it is something else. */
static const struct curve *usual(X509_PUBKEY *pub, const unsigned char **point)
{
	ASN1_OBJECT *kind = NULL;
	X509_ALGOR *alg = NULL;
	const void *curve = NULL;
	int n = 0, type = V_ASN1_UNDEF;

	(void)pthread_once(&curves_once, make_curves);
	if (X509_PUBKEY_get0_param(&kind, point, &n, &alg, pub) != 1 || OBJ_obj2nid(kind) != NID_X9_62_id_ecPublicKey)
		return NULL;
	X509_ALGOR_get0(NULL, &type, &curve, alg);
	for (size_t i = 0; type == V_ASN1_OBJECT && i < CURVES; i++)
		if (OBJ_obj2nid(curve) == curves[i].nid && n == (int)curves[i].point && (*point)[0] == POINT_CONVERSION_UNCOMPRESSED &&
			curves[i].group != NULL && curves[i].params != NULL)
			return &curves[i];
	return NULL;
}

/* The group's order is prime: a point on the curve, which is not the infinite one in this form, is a good one. */
static bool on_curve(const struct curve *c, const unsigned char *point)
{
	EC_POINT *p = EC_POINT_new(c->group);
	bool good = p != NULL && EC_POINT_oct2point(c->group, p, point, c->point, NULL) == 1;

	EC_POINT_free(p);
	return good;
}

bool csm_subject_key_quick(X509_PUBKEY *pub, int *bits)
{
	const unsigned char *point = NULL;
	const struct curve *c = usual(pub, &point);

	if (c == NULL || !on_curve(c, point)) {
		ERR_clear_error();
		return false;
	}
	if (bits != NULL)
		*bits = c->bits;
	return true;
}

/* What stands before the point, in the one form that DER has for it. */
static const struct front {
	const char *p;
	size_t n;
} fronts[CURVES] = {
#define FRONT(text) {text, sizeof(text) - 1}
	FRONT("\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04"),
	FRONT("\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00\x04"),
	FRONT("\x30\x81\x9b\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x23\x03\x81\x86\x00\x04"),
#undef FRONT
};

/* The curve of a key in that form, and its point, which may lie anywhere; NULL: it is something else. */
static const struct curve *usual_der(struct csm_bin spki, const unsigned char **point)
{
	(void)pthread_once(&curves_once, make_curves);
	for (size_t i = 0; i < CURVES; i++)
		if (spki.n == fronts[i].n - 1 + curves[i].point && memcmp(spki.p, fronts[i].p, fronts[i].n) == 0 &&
			curves[i].group != NULL && curves[i].params != NULL) {
			*point = spki.p + fronts[i].n - 1;
			return &curves[i];
		}
	return NULL;
}

bool csm_subject_form(struct csm_bin spki, int *bits)
{
	const unsigned char *point = NULL;
	const struct curve *c = usual_der(spki, &point);

	if (c != NULL)
		*bits = c->bits;
	return c != NULL;
}

bool csm_subject_point(struct csm_bin spki)
{
	const unsigned char *point = NULL;
	const struct curve *c = usual_der(spki, &point);

	if (c != NULL && on_curve(c, point))
		return true;
	ERR_clear_error();
	return false;
}

static struct verifier *verifier_on(const struct curve *c)
{
	struct verifier *all = verifiers_keyed ? pthread_getspecific(verifiers_key) : NULL, *v;

	if (all == NULL) {
		all = verifiers_keyed ? calloc(CURVES, sizeof(*all)) : NULL;
		if (all == NULL || pthread_setspecific(verifiers_key, all) != 0) {
			free(all);
			return NULL;
		}
	}
	v = &all[c - curves];
	if (v->ctx != NULL)
		return v;
	if (v->key == NULL && ((v->key = EVP_PKEY_new()) == NULL || EVP_PKEY_copy_parameters(v->key, c->params) != 1)) {
		EVP_PKEY_free(v->key);
		v->key = NULL;
	}
	if (v->hash == NULL)
		v->hash = EVP_MD_CTX_new();
	v->ctx = v->key != NULL && v->hash != NULL ? EVP_PKEY_CTX_new(v->key, NULL) : NULL;
	if (v->ctx != NULL && EVP_PKEY_verify_init(v->ctx) == 1)
		return v;
	EVP_PKEY_CTX_free(v->ctx);
	v->ctx = NULL;
	return NULL;
}

/* 1: it is; 0: it is not; else it could not be found out, or the point is not on the curve. */
static int verify_on(const struct curve *c, const unsigned char *point, const EVP_MD *md, struct csm_bin tbs, struct csm_bin sig)
{
	struct verifier *v = verifier_on(c);
	uint8_t digest[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	if (v == NULL || md == NULL || EVP_PKEY_set1_encoded_public_key(v->key, point, c->point) != 1 ||
		EVP_DigestInit_ex(v->hash, md, NULL) != 1 || EVP_DigestUpdate(v->hash, tbs.p, tbs.n) != 1 ||
		EVP_DigestFinal_ex(v->hash, digest, &n) != 1)
		return -1;
	return EVP_PKEY_verify(v->ctx, sig.p, sig.n, digest, n);
}

/* ECDSA with a hash that is good enough: AlgorithmIdentifiers in DER, but for their last byte. */
static const char ecdsa_with[] = "\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03";
static struct hash {
	uint8_t last;
	const char *name;
	EVP_MD *md; /* looked for once */
} hashes[] = {{2, "SHA256", NULL}, {3, "SHA384", NULL}, {4, "SHA512", NULL}};
#define HASHES (sizeof(hashes) / sizeof(hashes[0]))
static pthread_once_t hashes_once = PTHREAD_ONCE_INIT;

static void find_hashes(void)
{
	for (size_t i = 0; i < HASHES; i++)
		hashes[i].md = EVP_MD_fetch(NULL, hashes[i].name, NULL);
}

int csm_subject_verify(struct csm_bin spki, struct csm_bin alg, struct csm_bin tbs, struct csm_bin sig)
{
	const unsigned char *point = NULL;
	const struct curve *c = usual_der(spki, &point);
	size_t i = 0;
	int good;

	if (c == NULL || alg.n != sizeof(ecdsa_with) || memcmp(alg.p, ecdsa_with, sizeof(ecdsa_with) - 1) != 0)
		return CSM_EUNSUPPORTED;
	while (i < HASHES && hashes[i].last != alg.p[alg.n - 1])
		i++;
	if (i == HASHES)
		return CSM_EUNSUPPORTED;
	(void)pthread_once(&hashes_once, find_hashes);
	good = verify_on(c, point, hashes[i].md, tbs, sig);
	ERR_clear_error();
	return good == 1 ? 0 : good == 0 ? CSM_EINVALID : CSM_EUNSUPPORTED;
}

/* ---- any case ---- */

static EVP_PKEY *decode(X509_PUBKEY *pub)
{
	unsigned char *der = NULL;
	int n = i2d_X509_PUBKEY(pub, &der);
	const unsigned char *at = der;
	EVP_PKEY *key = n > 0 ? d2i_PUBKEY(NULL, &at, n) : NULL;

	OPENSSL_free(der);
	return key;
}

static int check_key(char *why, EVP_PKEY *key, X509_PUBKEY *pub)
{
	int r;

	if (key == NULL)
		return refuse(why, "its public key cannot be read, or is of an unknown kind");
	switch (EVP_PKEY_get_base_id(key)) {
	case EVP_PKEY_RSA:
		return (r = check_rsa(why, key)) != 0 ? r : check_sound(why, key, false);
	case EVP_PKEY_EC:
		return (r = check_ec(why, key, pub)) != 0 ? r : check_sound(why, key, true);
	case EVP_PKEY_ED25519:
		return check_ed25519(why, key);
	default:
		return refuse(why, "its public key is neither RSA, ECDSA nor Ed25519");
	}
}

int csm_subject_key(X509_PUBKEY *pub, EVP_PKEY **ret, char why[static CSM_SUBJKEY_WHY])
{
	EVP_PKEY *key;
	int r;

	why[0] = '\0';
	if (ret == NULL && csm_subject_key_quick(pub, NULL))
		return 0;
	key = decode(pub);
	r = check_key(why, key, pub);
	ERR_clear_error();
	if (r == 0 && ret != NULL) {
		*ret = key;
		key = NULL;
	}
	EVP_PKEY_free(key);
	return r;
}
