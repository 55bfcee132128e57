/* Key management: what others may ask of a key, all of it about its public half, which the default provider answers.
 * Nothing here makes a key: csm key create does. */
#include <string.h>
#include <openssl/core_names.h>
#include <openssl/params.h>
#include "libclient/provider/provider.h"

/* ---- life ---- */

static void *ec_new(void *provctx)
{
	return pkey_new(provctx, KIND_EC);
}

static void *rsa_new(void *provctx)
{
	return pkey_new(provctx, KIND_RSA);
}

static void *ed25519_new(void *provctx)
{
	return pkey_new(provctx, KIND_ED25519);
}

static void key_free(void *keydata)
{
	pkey_unref(keydata);
}

/* The reference is the address of a pointer to a key, which we take over: NULL is there afterwards. */
static void *key_load(enum kind kind, const void *reference, size_t size)
{
	void **from = (void **)(uintptr_t)reference;
	struct pkey *key;

	if (size != sizeof(*from) || (key = *from) == NULL || key->kind != kind)
		return NULL;
	*from = NULL;
	return key;
}

static void *ec_load(const void *reference, size_t size)
{
	return key_load(KIND_EC, reference, size);
}

static void *rsa_load(const void *reference, size_t size)
{
	return key_load(KIND_RSA, reference, size);
}

static void *ed25519_load(const void *reference, size_t size)
{
	return key_load(KIND_ED25519, reference, size);
}

/* A key of csmd does not change, and is shared. Of a public one there is a second one, where it is asked for with just
 * its parameters: CMS makes the other side's key so, and then gives it its public point. */
static void *key_dup(const void *keydata, int selection)
{
	struct pkey *from = (struct pkey *)(uintptr_t)keydata, *key;
	EVP_PKEY *pub;
	bool whole;

	if (from == NULL || from->pub == NULL)
		return NULL;
	if (from->name != NULL && (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0)
		return pkey_ref(from);
	whole = from->whole && (selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) != 0;
	pub = whole ? EVP_PKEY_dup(from->pub) : EVP_PKEY_new();
	key = pkey_new(from->prov, from->kind);
	if (pub == NULL || key == NULL || (!whole && EVP_PKEY_copy_parameters(pub, from->pub) != 1)) {
		EVP_PKEY_free(pub);
		pkey_unref(key);
		return NULL;
	}
	pkey_set_public(key, pub);
	key->whole = whole;
	return key;
}

static int key_set_params(void *keydata, const OSSL_PARAM params[])
{
	struct pkey *key = keydata;

	if (params == NULL || params->key == NULL)
		return 1;
	if (key == NULL || key->pub == NULL || key->name != NULL)
		return 0;
	if (EVP_PKEY_set_params(key->pub, (OSSL_PARAM *)(uintptr_t)params) != 1)
		return 0;
	if (OSSL_PARAM_locate_const(params, OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY) != NULL)
		key->whole = true;
	return 1;
}

static const OSSL_PARAM *key_settable(void *provctx)
{
	static const OSSL_PARAM params[] = {
		OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, NULL, 0),
		OSSL_PARAM_END,
	};

	(void)provctx;
	return params;
}

/* ---- questions ---- */

static int key_has(const void *keydata, int selection)
{
	const struct pkey *key = keydata;

	if (key == NULL)
		return 0;
	if ((selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0 && key->name == NULL)
		return 0;
	if ((selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) != 0 && !key->whole)
		return 0;
	return (selection & OSSL_KEYMGMT_SELECT_ALL) == 0 || key->pub != NULL;
}

static int key_match(const void *keydata1, const void *keydata2, int selection)
{
	const struct pkey *a = keydata1, *b = keydata2;

	if (a == NULL || b == NULL || a->pub == NULL || b->pub == NULL || a->kind != b->kind)
		return 0;
	if ((selection & OSSL_KEYMGMT_SELECT_KEYPAIR) != 0)
		return EVP_PKEY_eq(a->pub, b->pub) == 1;
	return a->kind != KIND_EC || EVP_PKEY_parameters_eq(a->pub, b->pub) == 1;
}

/* Of the private half csmd knows; what can be looked at here is the public one. */
static int key_validate(const void *keydata, int selection, int checktype)
{
	const struct pkey *key = keydata;
	EVP_PKEY_CTX *ctx;
	int ok;

	(void)checktype;
	if (!key_has(keydata, selection) || key->pub == NULL)
		return 0;
	ctx = EVP_PKEY_CTX_new_from_pkey(key->prov->lib, key->pub, NULL);
	ok = ctx != NULL && EVP_PKEY_public_check(ctx) == 1;
	EVP_PKEY_CTX_free(ctx);
	return ok;
}

static int key_get_params(void *keydata, OSSL_PARAM params[])
{
	const struct pkey *key = keydata;

	/* Without a public half it has no properties yet: that is no error. */
	return key == NULL || key->pub == NULL || EVP_PKEY_get_params(key->pub, params);
}

static const OSSL_PARAM *gettable(struct prov *p, const char *name)
{
	EVP_KEYMGMT *k = EVP_KEYMGMT_fetch(p->lib, name, NULL);
	/* The table is the default provider's, and constant. */
	const OSSL_PARAM *params = k != NULL ? EVP_KEYMGMT_gettable_params(k) : NULL;

	EVP_KEYMGMT_free(k);
	return params;
}

static const OSSL_PARAM *ec_gettable(void *provctx)
{
	return gettable(provctx, "EC");
}

static const OSSL_PARAM *rsa_gettable(void *provctx)
{
	return gettable(provctx, "RSA");
}

static const OSSL_PARAM *ed25519_gettable(void *provctx)
{
	return gettable(provctx, "ED25519");
}

static const char *ec_operation_name(int operation)
{
	return operation == OSSL_OP_KEYEXCH ? "ECDH" : operation == OSSL_OP_SIGNATURE ? "ECDSA" : "EC";
}

static const char *rsa_operation_name(int operation)
{
	(void)operation;
	return "RSA";
}

static const char *ed25519_operation_name(int operation)
{
	(void)operation;
	return "ED25519";
}

/* ---- import and export: public halves only ---- */

/* A program's own key pair comes here to be compared, or as the other side of ECDH: of that too only the public half is
 * taken. */
static int key_import(void *keydata, int selection, const OSSL_PARAM params[])
{
	struct pkey *key = keydata;
	EVP_PKEY_CTX *ctx;
	EVP_PKEY *pub = NULL;
	int ok;

	if (key == NULL || key->pub != NULL)
		return 0;
	ctx = EVP_PKEY_CTX_new_from_name(key->prov->lib, kind_names[key->kind], NULL);
	ok = ctx != NULL && EVP_PKEY_fromdata_init(ctx) == 1 &&
		EVP_PKEY_fromdata(ctx, &pub, selection & EVP_PKEY_PUBLIC_KEY, (OSSL_PARAM *)(uintptr_t)params) == 1;
	EVP_PKEY_CTX_free(ctx);
	if (ok) {
		pkey_set_public(key, pub);
		key->whole = (selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) != 0;
	}
	return ok;
}

static int key_export(void *keydata, int selection, OSSL_CALLBACK *cb, void *arg)
{
	const struct pkey *key = keydata;

	/* Whoever wants the private half, wants to use it elsewhere. Without an error in the queue: OpenSSL asks this on
	 * its way to our own methods. */
	if (key == NULL || key->pub == NULL || ((selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0 && key->name != NULL))
		return 0;
	return EVP_PKEY_export(key->pub, selection & EVP_PKEY_PUBLIC_KEY, cb, arg);
}

static const OSSL_PARAM *ec_types(int selection)
{
	static const OSSL_PARAM params[] = {
		OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
		OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
		OSSL_PARAM_END,
	};

	return (selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) != 0 ? params : NULL;
}

static const OSSL_PARAM *rsa_types(int selection)
{
	static const OSSL_PARAM params[] = {
		OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_N, NULL, 0),
		OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_E, NULL, 0),
		OSSL_PARAM_END,
	};

	return (selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) != 0 ? params : NULL;
}

static const OSSL_PARAM *ed25519_types(int selection)
{
	static const OSSL_PARAM params[] = {
		OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
		OSSL_PARAM_END,
	};

	return (selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) != 0 ? params : NULL;
}

/* ---- tables ---- */

#define FUNCTIONS(kind) \
	static const OSSL_DISPATCH kind##_functions[] = { \
		{OSSL_FUNC_KEYMGMT_NEW, (void (*)(void))kind##_new}, \
		{OSSL_FUNC_KEYMGMT_FREE, (void (*)(void))key_free}, \
		{OSSL_FUNC_KEYMGMT_LOAD, (void (*)(void))kind##_load}, \
		{OSSL_FUNC_KEYMGMT_DUP, (void (*)(void))key_dup}, \
		{OSSL_FUNC_KEYMGMT_HAS, (void (*)(void))key_has}, \
		{OSSL_FUNC_KEYMGMT_MATCH, (void (*)(void))key_match}, \
		{OSSL_FUNC_KEYMGMT_VALIDATE, (void (*)(void))key_validate}, \
		{OSSL_FUNC_KEYMGMT_GET_PARAMS, (void (*)(void))key_get_params}, \
		{OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, (void (*)(void))kind##_gettable}, \
		{OSSL_FUNC_KEYMGMT_SET_PARAMS, (void (*)(void))key_set_params}, \
		{OSSL_FUNC_KEYMGMT_SETTABLE_PARAMS, (void (*)(void))key_settable}, \
		{OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, (void (*)(void))kind##_operation_name}, \
		{OSSL_FUNC_KEYMGMT_IMPORT, (void (*)(void))key_import}, \
		{OSSL_FUNC_KEYMGMT_IMPORT_TYPES, (void (*)(void))kind##_types}, \
		{OSSL_FUNC_KEYMGMT_EXPORT, (void (*)(void))key_export}, \
		{OSSL_FUNC_KEYMGMT_EXPORT_TYPES, (void (*)(void))kind##_types}, \
		{0, NULL}, \
	}
FUNCTIONS(ec);
FUNCTIONS(rsa);
FUNCTIONS(ed25519);

const OSSL_ALGORITHM prov_keymgmt[] = {
	{PROV_NAMES_EC, PROV_PROPERTIES, ec_functions, "csm EC keys"},
	{PROV_NAMES_RSA, PROV_PROPERTIES, rsa_functions, "csm RSA keys"},
	{PROV_NAMES_ED25519, PROV_PROPERTIES, ed25519_functions, "csm Ed25519 keys"},
	{NULL, NULL, NULL, NULL},
};
