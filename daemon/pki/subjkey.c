#include <stdarg.h>
#include <stdio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
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

int csm_subject_key(X509_PUBKEY *pub, EVP_PKEY **ret, char why[static CSM_SUBJKEY_WHY])
{
	EVP_PKEY *key = X509_PUBKEY_get0(pub);
	int r;

	why[0] = '\0';
	if (key == NULL)
		return refuse(why, "its public key cannot be read, or is of an unknown kind");
	switch (EVP_PKEY_get_base_id(key)) {
	case EVP_PKEY_RSA:
		if ((r = check_rsa(why, key)) == 0)
			r = check_sound(why, key, false);
		break;
	case EVP_PKEY_EC:
		if ((r = check_ec(why, key, pub)) == 0)
			r = check_sound(why, key, true);
		break;
	case EVP_PKEY_ED25519:
		r = check_ed25519(why, key);
		break;
	default:
		r = refuse(why, "its public key is neither RSA, ECDSA nor Ed25519");
	}
	ERR_clear_error();
	if (r == 0)
		*ret = key;
	return r;
}
