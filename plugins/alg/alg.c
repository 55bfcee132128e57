#include "plugins/include/csm_alg.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

enum family { FAMILY_EC, FAMILY_RSA, FAMILY_ED };

static const struct alg_row {
	const char *name;
	enum family family;
	struct csm_scheme scheme; /* by default */
} algs[] = {
	[CSM_ALG_P256] = {"p256", FAMILY_EC, {CSM_SCHEME_ECDSA, CSM_HASH_SHA256}},
	[CSM_ALG_P384] = {"p384", FAMILY_EC, {CSM_SCHEME_ECDSA, CSM_HASH_SHA384}},
	[CSM_ALG_P521] = {"p521", FAMILY_EC, {CSM_SCHEME_ECDSA, CSM_HASH_SHA512}},
	[CSM_ALG_RSA2048] = {"rsa2048", FAMILY_RSA, {CSM_SCHEME_RSA_PKCS1, CSM_HASH_SHA256}},
	[CSM_ALG_RSA3072] = {"rsa3072", FAMILY_RSA, {CSM_SCHEME_RSA_PKCS1, CSM_HASH_SHA256}},
	[CSM_ALG_RSA4096] = {"rsa4096", FAMILY_RSA, {CSM_SCHEME_RSA_PKCS1, CSM_HASH_SHA256}},
	[CSM_ALG_ED25519] = {"ed25519", FAMILY_ED, {CSM_SCHEME_ED25519, CSM_HASH_NONE}},
};
_Static_assert(N_ELEMS(algs) == CSM_ALG__COUNT, "a row per algorithm");

static const struct family_row {
	unsigned uses, default_use;
} families[] = {
	[FAMILY_EC] = {CSM_USE_SIGN | CSM_USE_DERIVE, CSM_USE_SIGN},
	[FAMILY_RSA] = {CSM_USE_SIGN | CSM_USE_DECRYPT, CSM_USE_SIGN | CSM_USE_DECRYPT},
	[FAMILY_ED] = {CSM_USE_SIGN, CSM_USE_SIGN},
};

static const struct scheme_row {
	const char *name;
	struct csm_scheme scheme;
	enum family family;
} schemes[] = {
	{"ecdsa-sha256", {CSM_SCHEME_ECDSA, CSM_HASH_SHA256}, FAMILY_EC},
	{"ecdsa-sha384", {CSM_SCHEME_ECDSA, CSM_HASH_SHA384}, FAMILY_EC},
	{"ecdsa-sha512", {CSM_SCHEME_ECDSA, CSM_HASH_SHA512}, FAMILY_EC},
	{"rsa-pkcs1-sha256", {CSM_SCHEME_RSA_PKCS1, CSM_HASH_SHA256}, FAMILY_RSA},
	{"rsa-pkcs1-sha384", {CSM_SCHEME_RSA_PKCS1, CSM_HASH_SHA384}, FAMILY_RSA},
	{"rsa-pkcs1-sha512", {CSM_SCHEME_RSA_PKCS1, CSM_HASH_SHA512}, FAMILY_RSA},
	{"rsa-pss-sha256", {CSM_SCHEME_RSA_PSS, CSM_HASH_SHA256}, FAMILY_RSA},
	{"rsa-pss-sha384", {CSM_SCHEME_RSA_PSS, CSM_HASH_SHA384}, FAMILY_RSA},
	{"rsa-pss-sha512", {CSM_SCHEME_RSA_PSS, CSM_HASH_SHA512}, FAMILY_RSA},
	{"ed25519", {CSM_SCHEME_ED25519, CSM_HASH_NONE}, FAMILY_ED},
	{"rsa-oaep-sha256", {CSM_SCHEME_RSA_OAEP, CSM_HASH_SHA256}, FAMILY_RSA},
	{"rsa-oaep-sha384", {CSM_SCHEME_RSA_OAEP, CSM_HASH_SHA384}, FAMILY_RSA},
	{"rsa-oaep-sha512", {CSM_SCHEME_RSA_OAEP, CSM_HASH_SHA512}, FAMILY_RSA},
};

static const struct hash_row {
	const char *name;
	size_t size;
} hashes[] = {
	[CSM_HASH_NONE] = {NULL, 0},
	[CSM_HASH_SHA256] = {"SHA256", 32},
	[CSM_HASH_SHA384] = {"SHA384", 48},
	[CSM_HASH_SHA512] = {"SHA512", 64},
};

static const struct use_row {
	const char *name;
	enum csm_use use;
} uses[] = {
	{"sign", CSM_USE_SIGN},
	{"decrypt", CSM_USE_DECRYPT},
	{"derive", CSM_USE_DERIVE},
};

static const struct alg_row *alg_row(enum csm_alg alg)
{
	return (size_t)alg < N_ELEMS(algs) ? &algs[alg] : NULL;
}

static const struct scheme_row *scheme_row(const struct csm_scheme *scheme)
{
	for (size_t i = 0; i < N_ELEMS(schemes); i++)
		if (schemes[i].scheme.kind == scheme->kind && schemes[i].scheme.hash == scheme->hash)
			return &schemes[i];
	return NULL;
}

static const struct hash_row *hash_row(enum csm_hash hash)
{
	return (size_t)hash < N_ELEMS(hashes) ? &hashes[hash] : &hashes[CSM_HASH_NONE];
}

int csm_alg_parse(struct csm_str s, enum csm_alg *ret)
{
	for (size_t i = 0; i < N_ELEMS(algs); i++)
		if (csm_str_eq(s, algs[i].name)) {
			*ret = (enum csm_alg)i;
			return 0;
		}
	return CSM_EINVALID;
}

const char *csm_alg_name(enum csm_alg alg)
{
	const struct alg_row *row = alg_row(alg);

	return row != NULL ? row->name : "unknown";
}

int csm_alg_of_rsa_bits(int bits, enum csm_alg *ret)
{
	switch (bits) {
	case 2048:
		*ret = CSM_ALG_RSA2048;
		return 0;
	case 3072:
		*ret = CSM_ALG_RSA3072;
		return 0;
	case 4096:
		*ret = CSM_ALG_RSA4096;
		return 0;
	default:
		return CSM_EUNSUPPORTED;
	}
}

bool csm_alg_is_rsa(enum csm_alg alg)
{
	const struct alg_row *row = alg_row(alg);

	return row != NULL && row->family == FAMILY_RSA;
}

bool csm_alg_is_ec(enum csm_alg alg)
{
	const struct alg_row *row = alg_row(alg);

	return row != NULL && row->family == FAMILY_EC;
}

unsigned csm_alg_default_use(enum csm_alg alg)
{
	const struct alg_row *row = alg_row(alg);

	return row != NULL ? families[row->family].default_use : 0;
}

int csm_alg_check_use(enum csm_alg alg, unsigned use)
{
	const struct alg_row *row = alg_row(alg);

	if (row == NULL || use == 0 || (use & ~families[row->family].uses) != 0)
		return CSM_EINVALID;
	return 0;
}

int csm_scheme_parse(struct csm_str s, struct csm_scheme *ret)
{
	for (size_t i = 0; i < N_ELEMS(schemes); i++)
		if (csm_str_eq(s, schemes[i].name)) {
			*ret = schemes[i].scheme;
			return 0;
		}
	return CSM_EINVALID;
}

const char *csm_scheme_name(const struct csm_scheme *scheme)
{
	const struct scheme_row *row = scheme_row(scheme);

	return row != NULL ? row->name : "unknown";
}

struct csm_scheme csm_scheme_default(enum csm_alg alg)
{
	const struct alg_row *row = alg_row(alg);

	return (row != NULL ? row : &algs[CSM_ALG_P256])->scheme;
}

int csm_scheme_check(enum csm_alg alg, const struct csm_scheme *scheme)
{
	const struct alg_row *row = alg_row(alg);
	const struct scheme_row *s = scheme_row(scheme);

	return row != NULL && s != NULL && row->family == s->family ? 0 : CSM_EINVALID;
}

size_t csm_hash_size(enum csm_hash hash)
{
	return hash_row(hash)->size;
}

const char *csm_hash_name(enum csm_hash hash)
{
	return hash_row(hash)->name;
}

int csm_use_parse(struct csm_str s, unsigned *ret)
{
	for (size_t i = 0; i < N_ELEMS(uses); i++)
		if (csm_str_eq(s, uses[i].name)) {
			*ret = uses[i].use;
			return 0;
		}
	return CSM_EINVALID;
}

const char *csm_use_name(enum csm_use use)
{
	for (size_t i = 0; i < N_ELEMS(uses); i++)
		if (uses[i].use == use)
			return uses[i].name;
	return "unknown";
}
