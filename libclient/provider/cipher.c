/* RSA: encrypted by the default provider with the public half, decrypted by csmd. */
#include <stdlib.h>
#include <string.h>
#include <openssl/core_names.h>
#include <openssl/params.h>
#include <openssl/rsa.h>
#include "libclient/provider/provider.h"

#define LABEL_MAX 256u

struct cipherctx {
	struct prov *prov;
	struct pkey *key;
	EVP_PKEY_CTX *encrypt; /* while something is to be encrypted */
	int pad;
	int md;      /* of OAEP; -1: none of csmd's */
	int mgf1_md; /* -1: the same */
	size_t label_len;
	uint8_t label[LABEL_MAX];
};

static void *cipher_new(void *provctx)
{
	struct cipherctx *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return NULL;
	c->prov = provctx;
	return c;
}

static void cipher_free(void *ctx)
{
	struct cipherctx *c = ctx;

	if (c == NULL)
		return;
	EVP_PKEY_CTX_free(c->encrypt);
	pkey_unref(c->key);
	free(c);
}

static void *cipher_dup(void *ctx)
{
	const struct cipherctx *from = ctx;
	struct cipherctx *c = malloc(sizeof(*c));

	if (c == NULL)
		return NULL;
	*c = *from;
	c->key = from->key != NULL ? pkey_ref(from->key) : NULL;
	c->encrypt = from->encrypt != NULL ? EVP_PKEY_CTX_dup(from->encrypt) : NULL;
	if (from->encrypt != NULL && c->encrypt == NULL) {
		cipher_free(c);
		return NULL;
	}
	return c;
}

/* ---- parameters ---- */

static const struct prov_word paddings[] = {
	{OSSL_PKEY_RSA_PAD_MODE_PKCSV15, RSA_PKCS1_PADDING},
	{OSSL_PKEY_RSA_PAD_MODE_OAEP, RSA_PKCS1_OAEP_PADDING},
	{OSSL_PKEY_RSA_PAD_MODE_NONE, RSA_NO_PADDING},
	{NULL, 0},
};

/* Refused not here but when it comes to decrypting: what was set before may change yet. */
static bool set_param(struct cipherctx *c, const OSSL_PARAM *p)
{
	const char *s = NULL;
	void *label = c->label;

	if (strcmp(p->key, OSSL_ASYM_CIPHER_PARAM_PAD_MODE) == 0)
		return prov_get_word(p, paddings, &c->pad);
	if (strcmp(p->key, OSSL_ASYM_CIPHER_PARAM_OAEP_LABEL) == 0)
		return OSSL_PARAM_get_octet_string(p, &label, sizeof(c->label), &c->label_len);
	if (strcmp(p->key, OSSL_ASYM_CIPHER_PARAM_OAEP_DIGEST) == 0) {
		if (!OSSL_PARAM_get_utf8_string_ptr(p, &s))
			return false;
		c->md = scheme_md(c->prov, s);
	} else if (strcmp(p->key, OSSL_ASYM_CIPHER_PARAM_MGF1_DIGEST) == 0) {
		if (!OSSL_PARAM_get_utf8_string_ptr(p, &s))
			return false;
		c->mgf1_md = scheme_md(c->prov, s);
		/* one that is none of csmd's is not the same as none */
		if (c->mgf1_md < 0)
			c->mgf1_md = MD__COUNT;
	}
	return true;
}

static int cipher_set_params(void *ctx, const OSSL_PARAM params[])
{
	struct cipherctx *c = ctx;
	const OSSL_PARAM *p;

	if (params == NULL)
		return 1;
	if (c->encrypt != NULL)
		return EVP_PKEY_CTX_set_params(c->encrypt, params);
	for (p = params; p->key != NULL; p++)
		if (!set_param(c, p))
			return 0;
	return 1;
}

static const OSSL_PARAM *cipher_settable(void *ctx, void *provctx)
{
	static const OSSL_PARAM params[] = {
		OSSL_PARAM_utf8_string(OSSL_ASYM_CIPHER_PARAM_PAD_MODE, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_ASYM_CIPHER_PARAM_OAEP_DIGEST, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_ASYM_CIPHER_PARAM_OAEP_DIGEST_PROPS, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_ASYM_CIPHER_PARAM_MGF1_DIGEST, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_ASYM_CIPHER_PARAM_MGF1_DIGEST_PROPS, NULL, 0),
		OSSL_PARAM_octet_string(OSSL_ASYM_CIPHER_PARAM_OAEP_LABEL, NULL, 0),
		OSSL_PARAM_END,
	};

	(void)ctx;
	(void)provctx;
	return params;
}

static int cipher_get_params(void *ctx, OSSL_PARAM params[])
{
	struct cipherctx *c = ctx;
	OSSL_PARAM *p;

	if (c->encrypt != NULL)
		return EVP_PKEY_CTX_get_params(c->encrypt, params);
	p = OSSL_PARAM_locate(params, OSSL_ASYM_CIPHER_PARAM_PAD_MODE);
	return p == NULL || prov_set_word(p, paddings, c->pad);
}

static const OSSL_PARAM *cipher_gettable(void *ctx, void *provctx)
{
	static const OSSL_PARAM params[] = {
		OSSL_PARAM_utf8_string(OSSL_ASYM_CIPHER_PARAM_PAD_MODE, NULL, 0),
		OSSL_PARAM_END,
	};

	(void)ctx;
	(void)provctx;
	return params;
}

/* ---- to and fro ---- */

static int begin(struct cipherctx *c, void *keydata)
{
	struct pkey *key = keydata != NULL ? keydata : c->key;

	if (key == NULL || key->pub == NULL)
		return prov_err(c->prov, CSM_EINVALID, "there is no key");
	EVP_PKEY_CTX_free(c->encrypt);
	c->encrypt = NULL;
	if (key != c->key) {
		pkey_unref(c->key);
		c->key = pkey_ref(key);
	}
	c->pad = RSA_PKCS1_PADDING;
	c->md = c->mgf1_md = -1;
	c->label_len = 0;
	return 0;
}

static int encrypt_init(void *ctx, void *keydata, const OSSL_PARAM params[])
{
	struct cipherctx *c = ctx;

	if (begin(c, keydata) != 0)
		return 0;
	c->encrypt = EVP_PKEY_CTX_new_from_pkey(c->prov->lib, c->key->pub, NULL);
	return c->encrypt != NULL && EVP_PKEY_encrypt_init_ex(c->encrypt, params) == 1;
}

static int encrypt(void *ctx, unsigned char *out, size_t *outlen, size_t room, const unsigned char *in, size_t n)
{
	struct cipherctx *c = ctx;

	if (c->encrypt == NULL)
		return 0;
	*outlen = room;
	return EVP_PKEY_encrypt(c->encrypt, out, outlen, in, n) == 1;
}

static int decrypt_init(void *ctx, void *keydata, const OSSL_PARAM params[])
{
	struct cipherctx *c = ctx;

	if (begin(c, keydata) != 0)
		return 0;
	if (c->key->name == NULL) {
		(void)prov_err(c->prov, CSM_EINVALID, "a public key does not decrypt");
		return 0;
	}
	return cipher_set_params(c, params);
}

static int decrypt(void *ctx, unsigned char *out, size_t *outlen, size_t room, const unsigned char *in, size_t n)
{
	static const char *const schemes[MD__COUNT] = {"rsa-oaep-sha256", "rsa-oaep-sha384", "rsa-oaep-sha512"};
	struct cipherctx *c = ctx;

	if (c->key == NULL || c->encrypt != NULL)
		return 0;
	if (c->pad != RSA_PKCS1_OAEP_PADDING) {
		(void)prov_err(c->prov, CSM_EUNSUPPORTED, "%s: csmd decrypts OAEP padding alone", c->key->name);
		return 0;
	}
	if (c->md < 0 || (c->mgf1_md >= 0 && c->mgf1_md != c->md)) {
		(void)prov_err(c->prov, CSM_EUNSUPPORTED,
			"%s: csmd decrypts OAEP with SHA-256, SHA-384 or SHA-512, and MGF1 with the same", c->key->name);
		return 0;
	}
	if (out == NULL) {
		*outlen = c->key->size;
		return 1;
	}
	*outlen = room;
	return call_decrypt(c->key, schemes[c->md], (struct csm_bin){in, n}, (struct csm_bin){c->label, c->label_len}, out,
		       outlen) == 0;
}

static const OSSL_DISPATCH functions[] = {
	{OSSL_FUNC_ASYM_CIPHER_NEWCTX, (void (*)(void))cipher_new},
	{OSSL_FUNC_ASYM_CIPHER_FREECTX, (void (*)(void))cipher_free},
	{OSSL_FUNC_ASYM_CIPHER_DUPCTX, (void (*)(void))cipher_dup},
	{OSSL_FUNC_ASYM_CIPHER_ENCRYPT_INIT, (void (*)(void))encrypt_init},
	{OSSL_FUNC_ASYM_CIPHER_ENCRYPT, (void (*)(void))encrypt},
	{OSSL_FUNC_ASYM_CIPHER_DECRYPT_INIT, (void (*)(void))decrypt_init},
	{OSSL_FUNC_ASYM_CIPHER_DECRYPT, (void (*)(void))decrypt},
	{OSSL_FUNC_ASYM_CIPHER_SET_CTX_PARAMS, (void (*)(void))cipher_set_params},
	{OSSL_FUNC_ASYM_CIPHER_SETTABLE_CTX_PARAMS, (void (*)(void))cipher_settable},
	{OSSL_FUNC_ASYM_CIPHER_GET_CTX_PARAMS, (void (*)(void))cipher_get_params},
	{OSSL_FUNC_ASYM_CIPHER_GETTABLE_CTX_PARAMS, (void (*)(void))cipher_gettable},
	{0, NULL},
};

const OSSL_ALGORITHM prov_cipher[] = {
	{PROV_NAMES_RSA, PROV_PROPERTIES, functions, "csm RSA"},
	{NULL, NULL, NULL, NULL},
};
