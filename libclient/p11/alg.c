/* The algorithms of csm's keys, and the mechanisms of the standard that they serve. */
#include <string.h>
#include <openssl/ec.h>
#include <openssl/objects.h>
#include "libclient/p11/p11.h"

static const uint8_t p256[] = {6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7};
static const uint8_t p384[] = {6, 5, 0x2b, 0x81, 4, 0, 0x22};
static const uint8_t p521[] = {6, 5, 0x2b, 0x81, 4, 0, 0x23};
static const uint8_t ed25519[] = {6, 3, 0x2b, 0x65, 0x70};
/* The same by name, and by the number that was used before RFC 8410. */
static const uint8_t ed25519_name[] = {0x13, 12, 'e', 'd', 'w', 'a', 'r', 'd', 's', '2', '5', '5', '1', '9'};
static const uint8_t ed25519_old[] = {6, 9, 0x2b, 6, 1, 4, 1, 0xda, 0x47, 0x0f, 1};

#define EC(alg, n, bytes, oid) {alg, CKK_EC, n, bytes, oid, sizeof(oid), CKM_EC_KEY_PAIR_GEN}
#define RSA(alg, n) {alg, CKK_RSA, n, 0, NULL, 0, CKM_RSA_PKCS_KEY_PAIR_GEN}
static const struct alg algs[] = {
	EC("p256", 256, 32, p256),
	EC("p384", 384, 48, p384),
	EC("p521", 521, 66, p521),
	RSA("rsa2048", 2048),
	RSA("rsa3072", 3072),
	RSA("rsa4096", 4096),
	{"ed25519", CKK_EC_EDWARDS, 255, 32, ed25519, sizeof(ed25519), CKM_EC_EDWARDS_KEY_PAIR_GEN},
};

const struct alg *alg_by_name(const char *name)
{
	for (size_t i = 0; i < N_ELEMS(algs); i++)
		if (strcmp(algs[i].name, name) == 0)
			return &algs[i];
	return NULL;
}

const struct alg *alg_by_params(CK_KEY_TYPE type, const void *params, size_t n)
{
	if (type == CKK_EC_EDWARDS && ((n == sizeof(ed25519_name) && memcmp(params, ed25519_name, n) == 0) ||
					      (n == sizeof(ed25519_old) && memcmp(params, ed25519_old, n) == 0)))
		return alg_by_name("ed25519");
	for (size_t i = 0; i < N_ELEMS(algs); i++)
		if (algs[i].type == type && algs[i].params_len == n && n > 0 && memcmp(algs[i].params, params, n) == 0)
			return &algs[i];
	return NULL;
}

const struct alg *alg_by_bits(CK_ULONG bits)
{
	for (size_t i = 0; i < N_ELEMS(algs); i++)
		if (algs[i].type == CKK_RSA && algs[i].bits == bits)
			return &algs[i];
	return NULL;
}

const struct alg *alg_of_pkey(const EVP_PKEY *pkey)
{
	char group[64];
	size_t n;

	if (EVP_PKEY_is_a(pkey, "ED25519"))
		return alg_by_name("ed25519");
	if (EVP_PKEY_is_a(pkey, "RSA"))
		return alg_by_bits((CK_ULONG)EVP_PKEY_get_bits(pkey));
	if (!EVP_PKEY_is_a(pkey, "EC") || EVP_PKEY_get_group_name(pkey, group, sizeof(group), &n) != 1)
		return NULL;
	switch (OBJ_sn2nid(group)) {
	case NID_X9_62_prime256v1:
		return alg_by_name("p256");
	case NID_secp384r1:
		return alg_by_name("p384");
	case NID_secp521r1:
		return alg_by_name("p521");
	default:
		return NULL;
	}
}

size_t alg_signature_len(const struct alg *alg)
{
	return alg->type == CKK_RSA ? alg->bits / 8 : 2 * (size_t)alg->field;
}

static const struct hash hashes[] = {
	{"SHA256", "sha256", CKM_SHA256, CKG_MGF1_SHA256, 32, true},
	{"SHA384", "sha384", CKM_SHA384, CKG_MGF1_SHA384, 48, true},
	{"SHA512", "sha512", CKM_SHA512, CKG_MGF1_SHA512, 64, true},
	{"SHA1", "sha1", CKM_SHA_1, CKG_MGF1_SHA1, 20, false},
	{"SHA224", "sha224", CKM_SHA224, CKG_MGF1_SHA224, 28, false},
};

const struct hash *hash_by_mech(CK_MECHANISM_TYPE mech)
{
	for (size_t i = 0; i < N_ELEMS(hashes); i++)
		if (hashes[i].mech == mech)
			return &hashes[i];
	return NULL;
}

const struct hash *hash_by_size(size_t n)
{
	for (size_t i = 0; i < N_ELEMS(hashes); i++)
		if (hashes[i].signs && hashes[i].size == n)
			return &hashes[i];
	return NULL;
}

#define SIGNS (CKF_SIGN | CKF_VERIFY)
#define CURVES (CKF_EC_F_P | CKF_EC_NAMEDCURVE | CKF_EC_UNCOMPRESS)
#define RSA_BITS 2048, 4096
#define EC_BITS 256, 521
static const struct mech mechs[] = {
	{CKM_ECDSA_SHA256, MECH_ECDSA, CKK_EC, CKM_SHA256, {EC_BITS, SIGNS | CURVES}},
	{CKM_ECDSA_SHA384, MECH_ECDSA, CKK_EC, CKM_SHA384, {EC_BITS, SIGNS | CURVES}},
	{CKM_ECDSA_SHA512, MECH_ECDSA, CKK_EC, CKM_SHA512, {EC_BITS, SIGNS | CURVES}},
	{CKM_ECDSA, MECH_ECDSA, CKK_EC, 0, {EC_BITS, SIGNS | CURVES}},
	{CKM_SHA256_RSA_PKCS, MECH_RSA_PKCS, CKK_RSA, CKM_SHA256, {RSA_BITS, SIGNS}},
	{CKM_SHA384_RSA_PKCS, MECH_RSA_PKCS, CKK_RSA, CKM_SHA384, {RSA_BITS, SIGNS}},
	{CKM_SHA512_RSA_PKCS, MECH_RSA_PKCS, CKK_RSA, CKM_SHA512, {RSA_BITS, SIGNS}},
	{CKM_RSA_PKCS, MECH_RSA_PKCS, CKK_RSA, 0, {RSA_BITS, SIGNS | CKF_ENCRYPT}},
	{CKM_SHA256_RSA_PKCS_PSS, MECH_RSA_PSS, CKK_RSA, CKM_SHA256, {RSA_BITS, SIGNS}},
	{CKM_SHA384_RSA_PKCS_PSS, MECH_RSA_PSS, CKK_RSA, CKM_SHA384, {RSA_BITS, SIGNS}},
	{CKM_SHA512_RSA_PKCS_PSS, MECH_RSA_PSS, CKK_RSA, CKM_SHA512, {RSA_BITS, SIGNS}},
	{CKM_RSA_PKCS_PSS, MECH_RSA_PSS, CKK_RSA, 0, {RSA_BITS, SIGNS}},
	{CKM_EDDSA, MECH_EDDSA, CKK_EC_EDWARDS, 0, {255, 255, SIGNS}},
	{CKM_RSA_PKCS_OAEP, MECH_RSA_OAEP, CKK_RSA, 0, {RSA_BITS, CKF_ENCRYPT | CKF_DECRYPT}},
	{CKM_ECDH1_DERIVE, MECH_ECDH, CKK_EC, 0, {EC_BITS, CKF_DERIVE | CURVES}},
	{CKM_RSA_PKCS_KEY_PAIR_GEN, MECH_GENERATE, CKK_RSA, 0, {RSA_BITS, CKF_GENERATE_KEY_PAIR}},
	{CKM_EC_KEY_PAIR_GEN, MECH_GENERATE, CKK_EC, 0, {EC_BITS, CKF_GENERATE_KEY_PAIR | CURVES}},
	{CKM_EC_EDWARDS_KEY_PAIR_GEN, MECH_GENERATE, CKK_EC_EDWARDS, 0, {255, 255, CKF_GENERATE_KEY_PAIR}},
	{CKM_SHA256, MECH_DIGEST, 0, CKM_SHA256, {0, 0, CKF_DIGEST}},
	{CKM_SHA384, MECH_DIGEST, 0, CKM_SHA384, {0, 0, CKF_DIGEST}},
	{CKM_SHA512, MECH_DIGEST, 0, CKM_SHA512, {0, 0, CKF_DIGEST}},
	{CKM_SHA224, MECH_DIGEST, 0, CKM_SHA224, {0, 0, CKF_DIGEST}},
	{CKM_SHA_1, MECH_DIGEST, 0, CKM_SHA_1, {0, 0, CKF_DIGEST}},
};

const struct mech *mech_by_type(CK_MECHANISM_TYPE type)
{
	for (size_t i = 0; i < N_ELEMS(mechs); i++)
		if (mechs[i].type == type)
			return &mechs[i];
	return NULL;
}

size_t mech_list(CK_MECHANISM_TYPE *out, size_t room)
{
	for (size_t i = 0; i < N_ELEMS(mechs) && i < room; i++)
		out[i] = mechs[i].type;
	return N_ELEMS(mechs);
}
