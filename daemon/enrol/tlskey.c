#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <openssl/rsa.h>
#include "daemon/enrol/tlskey.h"
#include "proto-spec/limits.h"

#define NAME "csm-enrol"
#define PROPERTIES "provider=" NAME
#define PARAM_KEY "csm-enrol-key"

/* A library context of its own, so that nothing else in this program meets the provider. */
static OSSL_LIB_CTX *lib;

struct key {
	EVP_PKEY *pub; /* the default provider's */
	tlskey_sign *fn;
	void *arg;
};

/* ---- key management: all of it about the public half ---- */

static void *key_new(void *provctx)
{
	(void)provctx;
	return calloc(1, sizeof(struct key));
}

static void key_free(void *keydata)
{
	struct key *k = keydata;

	if (k == NULL)
		return;
	EVP_PKEY_free(k->pub);
	free(k);
}

static int key_import(void *keydata, int selection, const OSSL_PARAM params[])
{
	const OSSL_PARAM *p = OSSL_PARAM_locate_const(params, PARAM_KEY);
	const struct key *from;
	struct key *k = keydata;
	const void *at = NULL;
	size_t n = 0;

	(void)selection;
	if (p == NULL || !OSSL_PARAM_get_octet_ptr(p, &at, &n) || n != sizeof(*from) || k->pub != NULL)
		return 0;
	from = at;
	if (EVP_PKEY_up_ref(from->pub) != 1)
		return 0;
	*k = *from;
	return 1;
}

static const OSSL_PARAM *key_import_types(int selection)
{
	static const OSSL_PARAM params[] = {OSSL_PARAM_octet_ptr(PARAM_KEY, NULL, 0), OSSL_PARAM_END};

	(void)selection;
	return params;
}

/* The private half goes nowhere. */
static int key_export(void *keydata, int selection, OSSL_CALLBACK *cb, void *arg)
{
	const struct key *k = keydata;

	if ((selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0)
		return 0;
	return EVP_PKEY_export(k->pub, selection & EVP_PKEY_PUBLIC_KEY, cb, arg);
}

static const OSSL_PARAM *ec_export_types(int selection)
{
	static const OSSL_PARAM params[] = {OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
		OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0), OSSL_PARAM_END};

	return (selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) != 0 ? params : NULL;
}

static const OSSL_PARAM *rsa_export_types(int selection)
{
	static const OSSL_PARAM params[] = {
		OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_N, NULL, 0), OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_E, NULL, 0), OSSL_PARAM_END};

	return (selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) != 0 ? params : NULL;
}

static int key_has(const void *keydata, int selection)
{
	const struct key *k = keydata;

	(void)selection;
	return k->pub != NULL;
}

static int key_match(const void *a, const void *b, int selection)
{
	(void)selection;
	return EVP_PKEY_eq(((const struct key *)a)->pub, ((const struct key *)b)->pub) == 1;
}

static int key_get_params(void *keydata, OSSL_PARAM params[])
{
	const struct key *k = keydata;

	return EVP_PKEY_get_params(k->pub, params);
}

static const OSSL_PARAM *key_gettable(void *provctx)
{
	static const OSSL_PARAM params[] = {OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL),
		OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL), OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL),
		OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_DEFAULT_DIGEST, NULL, 0), OSSL_PARAM_END};

	(void)provctx;
	return params;
}

static const char *ec_operation(int operation)
{
	return operation == OSSL_OP_SIGNATURE ? "ECDSA" : "EC";
}

static const char *rsa_operation(int operation)
{
	(void)operation;
	return "RSA";
}

#define KEYMGMT(kind) \
	static const OSSL_DISPATCH kind##_functions[] = {{OSSL_FUNC_KEYMGMT_NEW, (void (*)(void))key_new}, \
		{OSSL_FUNC_KEYMGMT_FREE, (void (*)(void))key_free}, {OSSL_FUNC_KEYMGMT_HAS, (void (*)(void))key_has}, \
		{OSSL_FUNC_KEYMGMT_MATCH, (void (*)(void))key_match}, \
		{OSSL_FUNC_KEYMGMT_GET_PARAMS, (void (*)(void))key_get_params}, \
		{OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, (void (*)(void))key_gettable}, \
		{OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, (void (*)(void))kind##_operation}, \
		{OSSL_FUNC_KEYMGMT_IMPORT, (void (*)(void))key_import}, \
		{OSSL_FUNC_KEYMGMT_IMPORT_TYPES, (void (*)(void))key_import_types}, \
		{OSSL_FUNC_KEYMGMT_EXPORT, (void (*)(void))key_export}, \
		{OSSL_FUNC_KEYMGMT_EXPORT_TYPES, (void (*)(void))kind##_export_types}, {0, NULL}}
KEYMGMT(ec);
KEYMGMT(rsa);

static const OSSL_ALGORITHM keymgmts[] = {{"EC:id-ecPublicKey:1.2.840.10045.2.1", PROPERTIES, ec_functions, "keys elsewhere"},
	{"RSA:rsaEncryption:1.2.840.113549.1.1.1", PROPERTIES, rsa_functions, "keys elsewhere"}, {NULL, NULL, NULL, NULL}};

/* ---- signatures ---- */

struct sigctx {
	struct key key;
	int bits; /* 256, 384, 512: the hash; 0: none yet */
	bool rsa, pss;
};

static void *sig_new(void *provctx, const char *propq)
{
	(void)provctx;
	(void)propq;
	return calloc(1, sizeof(struct sigctx));
}

static void sig_free(void *ctx)
{
	struct sigctx *c = ctx;

	if (c == NULL)
		return;
	EVP_PKEY_free(c->key.pub);
	free(c);
}

static bool set_hash(struct sigctx *c, const char *name)
{
	static const struct {
		const char *name;
		int bits;
	} known[] = {{"SHA256", 256}, {"SHA384", 384}, {"SHA512", 512}, {"SHA2-256", 256}, {"SHA2-384", 384}, {"SHA2-512", 512}};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (OPENSSL_strcasecmp(name, known[i].name) == 0) {
			c->bits = known[i].bits;
			return true;
		}
	return false;
}

/* A word or a number, as OpenSSL sends the padding. */
static bool set_padding(struct sigctx *c, const OSSL_PARAM *p)
{
	const char *word = NULL;
	int n = 0;

	if (p->data_type == OSSL_PARAM_UTF8_STRING) {
		if (!OSSL_PARAM_get_utf8_string_ptr(p, &word))
			return false;
		n = strcmp(word, OSSL_PKEY_RSA_PAD_MODE_PSS) == 0 ? RSA_PKCS1_PSS_PADDING
			: strcmp(word, OSSL_PKEY_RSA_PAD_MODE_PKCSV15) == 0 ? RSA_PKCS1_PADDING : 0;
	} else if (!OSSL_PARAM_get_int(p, &n)) {
		return false;
	}
	c->pss = n == RSA_PKCS1_PSS_PADDING;
	return c->pss || n == RSA_PKCS1_PADDING;
}

/* TLS has no salt but one as long as the hash (RFC 8446 4.2.3). */
static bool salt_is_good(const struct sigctx *c, const OSSL_PARAM *p)
{
	const char *word = NULL;
	int n = 0;

	if (p->data_type == OSSL_PARAM_UTF8_STRING)
		return OSSL_PARAM_get_utf8_string_ptr(p, &word) && strcmp(word, OSSL_PKEY_RSA_PSS_SALT_LEN_DIGEST) == 0;
	return OSSL_PARAM_get_int(p, &n) && (n == RSA_PSS_SALTLEN_DIGEST || n == c->bits / 8);
}

static int sig_set_params(void *ctx, const OSSL_PARAM params[])
{
	struct sigctx *c = ctx;
	const char *md = NULL;

	for (const OSSL_PARAM *p = params; p != NULL && p->key != NULL; p++) {
		bool good = true;

		if (strcmp(p->key, OSSL_SIGNATURE_PARAM_DIGEST) == 0)
			good = OSSL_PARAM_get_utf8_string_ptr(p, &md) && set_hash(c, md);
		else if (strcmp(p->key, OSSL_SIGNATURE_PARAM_PAD_MODE) == 0)
			good = c->rsa && set_padding(c, p);
		else if (strcmp(p->key, OSSL_SIGNATURE_PARAM_PSS_SALTLEN) == 0)
			good = salt_is_good(c, p);
		if (!good)
			return 0;
	}
	return 1;
}

static const OSSL_PARAM *sig_settable(void *ctx, void *provctx)
{
	static const OSSL_PARAM params[] = {OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_DIGEST, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PAD_MODE, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, NULL, 0), OSSL_PARAM_END};

	(void)ctx;
	(void)provctx;
	return params;
}

static int digest_sign_init(void *ctx, const char *md, void *keydata, const OSSL_PARAM params[])
{
	struct sigctx *c = ctx;
	const struct key *k = keydata;

	if (k != NULL) {
		if (EVP_PKEY_up_ref(k->pub) != 1)
			return 0;
		EVP_PKEY_free(c->key.pub);
		c->key = *k;
		c->rsa = EVP_PKEY_is_a(k->pub, "RSA");
		c->pss = false;
	}
	return c->key.pub != NULL && md != NULL && set_hash(c, md) && sig_set_params(c, params);
}

/* TLS signs in one call. */
static int digest_sign(void *ctx, unsigned char *sig, size_t *siglen, size_t room, const unsigned char *data, size_t n)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	const struct sigctx *c = ctx;
	const EVP_MD *md = c->bits == 256 ? EVP_sha256() : c->bits == 384 ? EVP_sha384() : EVP_sha512();
	char scheme[32];
	unsigned len = 0;

	if (c->key.pub == NULL || c->bits == 0)
		return 0;
	if (sig == NULL) {
		*siglen = (size_t)EVP_PKEY_get_size(c->key.pub);
		return 1;
	}
	if (!EVP_Digest(data, n, digest, &len, md, NULL))
		return 0;
	snprintf(scheme, sizeof(scheme), "%s-sha%d", !c->rsa ? "ecdsa" : c->pss ? "rsa-pss" : "rsa-pkcs1", c->bits);
	*siglen = room;
	return c->key.fn(c->key.arg, scheme, (struct csm_bin){digest, len}, sig, siglen) == 0;
}

static const OSSL_DISPATCH signature_functions[] = {{OSSL_FUNC_SIGNATURE_NEWCTX, (void (*)(void))sig_new},
	{OSSL_FUNC_SIGNATURE_FREECTX, (void (*)(void))sig_free},
	{OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, (void (*)(void))digest_sign_init},
	{OSSL_FUNC_SIGNATURE_DIGEST_SIGN, (void (*)(void))digest_sign},
	{OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS, (void (*)(void))sig_set_params},
	{OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS, (void (*)(void))sig_settable}, {0, NULL}};

static const OSSL_ALGORITHM signatures[] = {{"ECDSA", PROPERTIES, signature_functions, "signatures made elsewhere"},
	{"RSA:rsaEncryption", PROPERTIES, signature_functions, "signatures made elsewhere"}, {NULL, NULL, NULL, NULL}};

/* ---- the provider ---- */

static const OSSL_ALGORITHM *query(void *provctx, int operation, int *no_cache)
{
	(void)provctx;
	*no_cache = 0;
	return operation == OSSL_OP_KEYMGMT ? keymgmts : operation == OSSL_OP_SIGNATURE ? signatures : NULL;
}

static int provider_init(const OSSL_CORE_HANDLE *core, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out, void **provctx)
{
	static const OSSL_DISPATCH functions[] = {{OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))query}, {0, NULL}};

	(void)in;
	*out = functions;
	*provctx = (void *)(uintptr_t)core;
	return 1;
}

int tlskey_prepare(void)
{
	lib = OSSL_LIB_CTX_new();
	if (lib == NULL)
		return CSM_ENOMEM;
	return OSSL_PROVIDER_add_builtin(lib, NAME, provider_init) == 1 && OSSL_PROVIDER_load(lib, NAME) != NULL ? 0 : CSM_EBACKEND;
}

int tlskey_new(const X509 *cert, tlskey_sign *fn, void *arg, EVP_PKEY **ret)
{
	struct key from = {X509_get0_pubkey(cert), fn, arg};
	void *at = &from;
	OSSL_PARAM params[] = {OSSL_PARAM_construct_octet_ptr(PARAM_KEY, &at, sizeof(from)), OSSL_PARAM_construct_end()};
	const char *kind = from.pub == NULL ? NULL : EVP_PKEY_is_a(from.pub, "EC") ? "EC" : EVP_PKEY_is_a(from.pub, "RSA") ? "RSA" : NULL;
	EVP_PKEY_CTX *ctx;
	EVP_PKEY *pkey = NULL;
	int r;

	if (kind == NULL)
		return CSM_EUNSUPPORTED;
	ctx = EVP_PKEY_CTX_new_from_name(lib, kind, PROPERTIES);
	r = ctx != NULL && EVP_PKEY_fromdata_init(ctx) == 1 && EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_KEYPAIR, params) == 1 ?
		0 : CSM_ENOMEM;
	EVP_PKEY_CTX_free(ctx);
	ERR_clear_error();
	if (r == 0)
		*ret = pkey;
	return r;
}
