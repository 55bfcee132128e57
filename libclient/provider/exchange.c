/* ECDH: the x coordinate by csmd, where wanted through the KDF of ANSI X9.63, as CMS has it. */
#include <stdlib.h>
#include <string.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include "libclient/provider/provider.h"

#define UKM_MAX 4096u

struct exchangectx {
	struct prov *prov;
	struct pkey *key;
	uint8_t *peer; /* SubjectPublicKeyInfo */
	size_t peer_len;
	bool kdf;
	EVP_MD *md; /* of the KDF */
	size_t outlen;
	uint8_t *ukm;
	size_t ukm_len;
};

static void *exchange_new(void *provctx)
{
	struct exchangectx *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return NULL;
	c->prov = provctx;
	return c;
}

static void exchange_free(void *ctx)
{
	struct exchangectx *c = ctx;

	if (c == NULL)
		return;
	OPENSSL_free(c->peer);
	OPENSSL_free(c->ukm);
	EVP_MD_free(c->md);
	pkey_unref(c->key);
	free(c);
}

static void *exchange_dup(void *ctx)
{
	const struct exchangectx *from = ctx;
	struct exchangectx *c = malloc(sizeof(*c));

	if (c == NULL)
		return NULL;
	*c = *from;
	c->key = from->key != NULL ? pkey_ref(from->key) : NULL;
	if (c->md != NULL)
		EVP_MD_up_ref(c->md);
	c->peer = from->peer != NULL ? OPENSSL_memdup(from->peer, from->peer_len) : NULL;
	c->ukm = from->ukm != NULL ? OPENSSL_memdup(from->ukm, from->ukm_len) : NULL;
	if ((from->peer != NULL && c->peer == NULL) || (from->ukm != NULL && c->ukm == NULL)) {
		exchange_free(c);
		return NULL;
	}
	return c;
}

/* ---- parameters ---- */

static int set_kdf(struct exchangectx *c, const char *type)
{
	if (*type != '\0' && OPENSSL_strcasecmp(type, OSSL_KDF_NAME_X963KDF) != 0)
		return prov_err(c->prov, CSM_EUNSUPPORTED, "the only KDF of ECDH is X963KDF, not %s", type);
	c->kdf = *type != '\0';
	return 0;
}

/* Whatever OpenSSL has: the sender's choice, and CMS takes SHA-1 unless told otherwise. */
static int set_kdf_md(struct exchangectx *c, const char *name)
{
	EVP_MD *md = EVP_MD_fetch(c->prov->lib, name, NULL);

	if (md == NULL)
		return prov_err(c->prov, CSM_EUNSUPPORTED, "there is no hash %s for the KDF", name);
	EVP_MD_free(c->md);
	c->md = md;
	return 0;
}

static bool set_ukm(struct exchangectx *c, const OSSL_PARAM *p)
{
	void *ukm = NULL;
	size_t n = 0;

	if (p->data_size > UKM_MAX || !OSSL_PARAM_get_octet_string(p, &ukm, 0, &n))
		return false;
	OPENSSL_free(c->ukm);
	c->ukm = ukm;
	c->ukm_len = n;
	return true;
}

static bool set_param(struct exchangectx *c, const OSSL_PARAM *p)
{
	const char *s = NULL;
	int mode;

	if (strcmp(p->key, OSSL_EXCHANGE_PARAM_KDF_TYPE) == 0)
		return OSSL_PARAM_get_utf8_string_ptr(p, &s) && set_kdf(c, s) == 0;
	if (strcmp(p->key, OSSL_EXCHANGE_PARAM_KDF_DIGEST) == 0)
		return OSSL_PARAM_get_utf8_string_ptr(p, &s) && set_kdf_md(c, s) == 0;
	if (strcmp(p->key, OSSL_EXCHANGE_PARAM_KDF_OUTLEN) == 0)
		return OSSL_PARAM_get_size_t(p, &c->outlen);
	if (strcmp(p->key, OSSL_EXCHANGE_PARAM_KDF_UKM) == 0)
		return set_ukm(c, p);
	/* The curves have cofactor 1: all modes are the same. */
	if (strcmp(p->key, OSSL_EXCHANGE_PARAM_EC_ECDH_COFACTOR_MODE) == 0)
		return OSSL_PARAM_get_int(p, &mode) && mode >= -1 && mode <= 1;
	return true;
}

static int exchange_set_params(void *ctx, const OSSL_PARAM params[])
{
	const OSSL_PARAM *p;

	for (p = params; p != NULL && p->key != NULL; p++)
		if (!set_param(ctx, p))
			return 0;
	return 1;
}

static const OSSL_PARAM *exchange_settable(void *ctx, void *provctx)
{
	static const OSSL_PARAM params[] = {
		OSSL_PARAM_int(OSSL_EXCHANGE_PARAM_EC_ECDH_COFACTOR_MODE, NULL),
		OSSL_PARAM_utf8_string(OSSL_EXCHANGE_PARAM_KDF_TYPE, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_EXCHANGE_PARAM_KDF_DIGEST, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_EXCHANGE_PARAM_KDF_DIGEST_PROPS, NULL, 0),
		OSSL_PARAM_size_t(OSSL_EXCHANGE_PARAM_KDF_OUTLEN, NULL),
		OSSL_PARAM_octet_string(OSSL_EXCHANGE_PARAM_KDF_UKM, NULL, 0),
		OSSL_PARAM_END,
	};

	(void)ctx;
	(void)provctx;
	return params;
}

/* ---- the exchange ---- */

static int exchange_init(void *ctx, void *keydata, const OSSL_PARAM params[])
{
	struct exchangectx *c = ctx;
	struct pkey *key = keydata != NULL ? keydata : c->key;

	if (key == NULL || key->name == NULL) {
		(void)prov_err(c->prov, CSM_EINVALID, "there is no key, or just a public one");
		return 0;
	}
	if (key != c->key) {
		pkey_unref(c->key);
		c->key = pkey_ref(key);
	}
	c->kdf = false;
	return exchange_set_params(c, params);
}

static int set_peer(void *ctx, void *keydata)
{
	struct exchangectx *c = ctx;
	const struct pkey *peer = keydata;
	uint8_t *der;
	size_t n;

	if (c->key == NULL || peer->pub == NULL || EVP_PKEY_parameters_eq(c->key->pub, peer->pub) != 1) {
		(void)prov_err(c->prov, CSM_EINVALID, "the other side's key is not on the same curve");
		return 0;
	}
	if (pkey_spki(peer, &der, &n) != 0)
		return 0;
	OPENSSL_free(c->peer);
	c->peer = der;
	c->peer_len = n;
	return 1;
}

static int through_kdf(const struct exchangectx *c, uint8_t *z, size_t n, unsigned char *out)
{
	EVP_KDF *kdf = EVP_KDF_fetch(c->prov->lib, OSSL_KDF_NAME_X963KDF, NULL);
	EVP_KDF_CTX *ctx = kdf != NULL ? EVP_KDF_CTX_new(kdf) : NULL;
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)(uintptr_t)EVP_MD_get0_name(c->md), 0),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, z, n),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, c->ukm, c->ukm_len),
		OSSL_PARAM_construct_end(),
	};
	int ok = ctx != NULL && EVP_KDF_derive(ctx, out, c->outlen, params) == 1;

	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	return ok;
}

static int derive(void *ctx, unsigned char *secret, size_t *secretlen, size_t room)
{
	struct exchangectx *c = ctx;
	uint8_t z[CSM_SHARED_BYTES];
	size_t n = sizeof(z), wanted;
	int ok;

	if (c->key == NULL || c->peer == NULL || (c->kdf && (c->md == NULL || c->outlen == 0))) {
		(void)prov_err(c->prov, CSM_EINVALID, "the other side's key, or the KDF's hash or length, is missing");
		return 0;
	}
	wanted = c->kdf ? c->outlen : ((size_t)EVP_PKEY_get_bits(c->key->pub) + 7) / 8;
	*secretlen = wanted;
	if (secret == NULL)
		return 1;
	if (room < wanted) {
		(void)prov_err(c->prov, CSM_ETOO_LARGE, "the shared secret needs %zu bytes", wanted);
		return 0;
	}
	if (call_derive(c->key, (struct csm_bin){c->peer, c->peer_len}, z, &n) != 0)
		return 0;
	if (c->kdf) {
		ok = through_kdf(c, z, n, secret);
	} else {
		ok = n == wanted;
		if (ok)
			memcpy(secret, z, n);
	}
	OPENSSL_cleanse(z, sizeof(z));
	return ok;
}

static const OSSL_DISPATCH functions[] = {
	{OSSL_FUNC_KEYEXCH_NEWCTX, (void (*)(void))exchange_new},
	{OSSL_FUNC_KEYEXCH_FREECTX, (void (*)(void))exchange_free},
	{OSSL_FUNC_KEYEXCH_DUPCTX, (void (*)(void))exchange_dup},
	{OSSL_FUNC_KEYEXCH_INIT, (void (*)(void))exchange_init},
	{OSSL_FUNC_KEYEXCH_SET_PEER, (void (*)(void))set_peer},
	{OSSL_FUNC_KEYEXCH_DERIVE, (void (*)(void))derive},
	{OSSL_FUNC_KEYEXCH_SET_CTX_PARAMS, (void (*)(void))exchange_set_params},
	{OSSL_FUNC_KEYEXCH_SETTABLE_CTX_PARAMS, (void (*)(void))exchange_settable},
	{0, NULL},
};

const OSSL_ALGORITHM prov_exchange[] = {
	{"ECDH", PROV_PROPERTIES, functions, "csm ECDH"},
	{NULL, NULL, NULL, NULL},
};
