/* Signatures: hashed here, signed by csmd, verified by the default provider over the public half. */
#include <stdlib.h>
#include <string.h>
#include <openssl/core_names.h>
#include <openssl/params.h>
#include <openssl/rsa.h>
#include "libclient/provider/provider.h"

struct sigctx {
	struct prov *prov;
	struct pkey *key; /* NULL before the first init */
	int md;           /* MD_*; -1: none was named */
	int pad;          /* RSA: RSA_PKCS1_PADDING, RSA_PKCS1_PSS_PADDING */
	int mgf1_md;      /* -1: the same as md */
	int salt;         /* RSA_PSS_SALTLEN_DIGEST, or a number of bytes */
	EVP_MD_CTX *hash; /* a message that is to be signed */
	/* One of these while a signature is to be verified: */
	EVP_MD_CTX *verify_hash;
	EVP_PKEY_CTX *verify;
};

/* ---- life ---- */

static void *sig_new(void *provctx, const char *propq)
{
	struct sigctx *c = calloc(1, sizeof(*c));

	(void)propq; /* hashes come from our own library */
	if (c == NULL)
		return NULL;
	c->prov = provctx;
	c->md = c->mgf1_md = -1;
	c->salt = RSA_PSS_SALTLEN_DIGEST;
	return c;
}

static void end_verify(struct sigctx *c)
{
	EVP_MD_CTX_free(c->verify_hash);
	EVP_PKEY_CTX_free(c->verify);
	c->verify_hash = NULL;
	c->verify = NULL;
}

static void sig_free(void *ctx)
{
	struct sigctx *c = ctx;

	if (c == NULL)
		return;
	end_verify(c);
	EVP_MD_CTX_free(c->hash);
	pkey_unref(c->key);
	free(c);
}

static void *sig_dup(void *ctx)
{
	const struct sigctx *from = ctx;
	struct sigctx *c = malloc(sizeof(*c));

	if (c == NULL)
		return NULL;
	*c = *from;
	c->key = from->key != NULL ? pkey_ref(from->key) : NULL;
	c->hash = from->hash != NULL ? EVP_MD_CTX_new() : NULL;
	c->verify_hash = from->verify_hash != NULL ? EVP_MD_CTX_new() : NULL;
	c->verify = from->verify != NULL ? EVP_PKEY_CTX_dup(from->verify) : NULL;
	if ((from->hash != NULL && !EVP_MD_CTX_copy_ex(c->hash, from->hash)) ||
		(from->verify_hash != NULL && !EVP_MD_CTX_copy_ex(c->verify_hash, from->verify_hash)) ||
		(from->verify != NULL && c->verify == NULL)) {
		sig_free(c);
		return NULL;
	}
	return c;
}

/* ---- parameters ---- */

static const struct prov_word paddings[] = {
	{OSSL_PKEY_RSA_PAD_MODE_PKCSV15, RSA_PKCS1_PADDING},
	{OSSL_PKEY_RSA_PAD_MODE_PSS, RSA_PKCS1_PSS_PADDING},
	{OSSL_PKEY_RSA_PAD_MODE_NONE, RSA_NO_PADDING},
	{OSSL_PKEY_RSA_PAD_MODE_X931, RSA_X931_PADDING},
	{NULL, 0},
};
static const struct prov_word salts[] = {
	{OSSL_PKEY_RSA_PSS_SALT_LEN_DIGEST, RSA_PSS_SALTLEN_DIGEST},
	{OSSL_PKEY_RSA_PSS_SALT_LEN_AUTO, RSA_PSS_SALTLEN_AUTO},
	{OSSL_PKEY_RSA_PSS_SALT_LEN_MAX, RSA_PSS_SALTLEN_MAX},
	{"auto-digestmax", -4},
	{NULL, 0},
};

static int set_md(struct sigctx *c, const char *name, int *md)
{
	int i = scheme_md(c->prov, name);

	if (i < 0)
		return prov_err(c->prov, CSM_EUNSUPPORTED, "csmd signs with SHA-256, SHA-384 and SHA-512, not with %s", name);
	*md = i;
	return 0;
}

static int set_padding(struct sigctx *c, int pad)
{
	if (pad != RSA_PKCS1_PADDING && pad != RSA_PKCS1_PSS_PADDING)
		return prov_err(c->prov, CSM_EUNSUPPORTED, "csmd signs with PKCS#1 v1.5 and PSS padding alone");
	c->pad = pad;
	return 0;
}

/* The salt is as long as the hash: the choice, where it is left to us. */
static int set_salt(struct sigctx *c, int salt)
{
	if (salt == RSA_PSS_SALTLEN_MAX)
		return prov_err(c->prov, CSM_EUNSUPPORTED, "csmd signs with a salt as long as the hash, not with the longest");
	c->salt = salt < 0 ? RSA_PSS_SALTLEN_DIGEST : salt;
	return 0;
}

static int set_param(struct sigctx *c, const OSSL_PARAM *p)
{
	const char *s = NULL;
	int n;

	if (strcmp(p->key, OSSL_SIGNATURE_PARAM_DIGEST) == 0)
		return !OSSL_PARAM_get_utf8_string_ptr(p, &s) || set_md(c, s, &c->md) != 0;
	if (c->key == NULL || c->key->kind != KIND_RSA)
		return 0;
	if (strcmp(p->key, OSSL_SIGNATURE_PARAM_PAD_MODE) == 0)
		return !prov_get_word(p, paddings, &n) || set_padding(c, n) != 0;
	if (strcmp(p->key, OSSL_SIGNATURE_PARAM_PSS_SALTLEN) == 0)
		return !prov_get_word(p, salts, &n) || set_salt(c, n) != 0;
	if (strcmp(p->key, OSSL_SIGNATURE_PARAM_MGF1_DIGEST) == 0)
		return !OSSL_PARAM_get_utf8_string_ptr(p, &s) || set_md(c, s, &c->mgf1_md) != 0;
	return 0;
}

static int sig_set_params(void *ctx, const OSSL_PARAM params[])
{
	struct sigctx *c = ctx;
	const OSSL_PARAM *p;

	if (params == NULL)
		return 1;
	if (c->verify != NULL)
		return EVP_PKEY_CTX_set_params(c->verify, params);
	if (c->verify_hash != NULL)
		return EVP_PKEY_CTX_set_params(EVP_MD_CTX_get_pkey_ctx(c->verify_hash), params);
	for (p = params; p->key != NULL; p++)
		if (set_param(c, p) != 0)
			return 0;
	return 1;
}

static const OSSL_PARAM *sig_settable(void *ctx, void *provctx)
{
	static const OSSL_PARAM params[] = {
		OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_DIGEST, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PROPERTIES, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PAD_MODE, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_MGF1_DIGEST, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_MGF1_PROPERTIES, NULL, 0),
		OSSL_PARAM_END,
	};

	(void)ctx;
	(void)provctx;
	return params;
}

static const char *md_name(const struct sigctx *c, int md)
{
	return md >= 0 ? EVP_MD_get0_name(c->prov->md[md]) : "";
}

static const struct scheme *scheme_of(const struct sigctx *c)
{
	return scheme_find(c->key->kind, c->pad, c->md);
}

static bool get_param(const struct sigctx *c, OSSL_PARAM *p)
{
	const struct scheme *s = c->key != NULL ? scheme_of(c) : NULL;

	if (strcmp(p->key, OSSL_SIGNATURE_PARAM_ALGORITHM_ID) == 0)
		return s != NULL && OSSL_PARAM_set_octet_string(p, s->aid.p, s->aid.n);
	if (strcmp(p->key, OSSL_SIGNATURE_PARAM_DIGEST) == 0)
		return OSSL_PARAM_set_utf8_string(p, md_name(c, c->md));
	if (c->key == NULL || c->key->kind != KIND_RSA)
		return true;
	if (strcmp(p->key, OSSL_SIGNATURE_PARAM_PAD_MODE) == 0)
		return prov_set_word(p, paddings, c->pad);
	if (strcmp(p->key, OSSL_SIGNATURE_PARAM_PSS_SALTLEN) == 0)
		return prov_set_word(p, salts, c->salt);
	if (strcmp(p->key, OSSL_SIGNATURE_PARAM_MGF1_DIGEST) == 0)
		return OSSL_PARAM_set_utf8_string(p, md_name(c, c->mgf1_md >= 0 ? c->mgf1_md : c->md));
	return true;
}

static int sig_get_params(void *ctx, OSSL_PARAM params[])
{
	struct sigctx *c = ctx;
	OSSL_PARAM *p;

	if (c->verify != NULL)
		return EVP_PKEY_CTX_get_params(c->verify, params);
	if (c->verify_hash != NULL)
		return EVP_PKEY_CTX_get_params(EVP_MD_CTX_get_pkey_ctx(c->verify_hash), params);
	for (p = params; p->key != NULL; p++)
		if (!get_param(c, p))
			return 0;
	return 1;
}

static const OSSL_PARAM *sig_gettable(void *ctx, void *provctx)
{
	static const OSSL_PARAM params[] = {
		OSSL_PARAM_octet_string(OSSL_SIGNATURE_PARAM_ALGORITHM_ID, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_DIGEST, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PAD_MODE, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_MGF1_DIGEST, NULL, 0),
		OSSL_PARAM_END,
	};

	(void)ctx;
	(void)provctx;
	return params;
}

/* ---- signing ---- */

/* A key for what follows; NULL: the one from before. */
static int begin(struct sigctx *c, void *keydata, bool sign)
{
	struct pkey *key = keydata != NULL ? keydata : c->key;

	if (key == NULL || key->pub == NULL)
		return prov_err(c->prov, CSM_EINVALID, "there is no key");
	if (sign && key->name == NULL)
		return prov_err(c->prov, CSM_EINVALID, "not a key of csmd, or only its public half; a program's own key comes "
			"here where csm's provider is asked before the default one, see csm-provider(7)");
	end_verify(c);
	if (key != c->key) {
		pkey_unref(c->key);
		c->key = pkey_ref(key);
		c->pad = key->kind == KIND_RSA ? RSA_PKCS1_PADDING : 0;
	}
	return 0;
}

static int sign_init(void *ctx, void *keydata, const OSSL_PARAM params[])
{
	struct sigctx *c = ctx;

	if (begin(c, keydata, true) != 0)
		return 0;
	c->md = -1;
	return sig_set_params(c, params);
}

/* What csmd signs of these settings. */
static int check_scheme(const struct sigctx *c, int md, const struct scheme **ret)
{
	const struct scheme *s = scheme_find(c->key->kind, c->pad, md);

	if (s == NULL)
		return prov_err(c->prov, CSM_EUNSUPPORTED, "%s: no scheme for these settings", c->key->name);
	if (c->pad == RSA_PKCS1_PSS_PADDING) {
		if (c->mgf1_md >= 0 && c->mgf1_md != md)
			return prov_err(c->prov, CSM_EUNSUPPORTED, "%s: MGF1 has to have the same hash", c->key->name);
		if (c->salt >= 0 && c->salt != EVP_MD_get_size(c->prov->md[md]))
			return prov_err(c->prov, CSM_EUNSUPPORTED, "%s: the salt has to be as long as the hash", c->key->name);
	}
	*ret = s;
	return 0;
}

/* The output rule of OpenSSL: NULL asks for the size. */
static int put_signature(const struct sigctx *c, const struct scheme *s, const void *data, size_t n, unsigned char *sig,
	size_t *siglen, size_t room)
{
	if (sig == NULL) {
		*siglen = c->key->size;
		return 1;
	}
	if (room < c->key->size) {
		(void)prov_err(c->prov, CSM_ETOO_LARGE, "a signature needs %zu bytes", c->key->size);
		return 0;
	}
	*siglen = room;
	return call_sign(c->key, s, data, n, sig, siglen) == 0;
}

/* Which hash a digest without a name is of; ECDSA does not need to know more than its length. */
static int guess_md(const struct sigctx *c, struct csm_bin *digest)
{
	int i;

	if (c->key->kind == KIND_RSA && c->pad == RSA_PKCS1_PADDING)
		return scheme_digest_info(*digest, digest);
	for (i = 0; i < MD__COUNT; i++)
		if (digest->n == (size_t)EVP_MD_get_size(c->prov->md[i]))
			return i;
	return -1;
}

static int sign(void *ctx, unsigned char *sig, size_t *siglen, size_t room, const unsigned char *tbs, size_t n)
{
	struct sigctx *c = ctx;
	struct csm_bin digest = {tbs, n};
	const struct scheme *s = NULL;
	int md = c->md;

	if (sig == NULL) {
		*siglen = c->key->size;
		return 1;
	}
	if (md < 0)
		md = guess_md(c, &digest);
	if (md < 0 || digest.n != (size_t)EVP_MD_get_size(c->prov->md[md])) {
		(void)prov_err(c->prov, CSM_EUNSUPPORTED, "%s: csmd signs digests of SHA-256, SHA-384 and SHA-512", c->key->name);
		return 0;
	}
	return check_scheme(c, md, &s) == 0 && put_signature(c, s, digest.p, digest.n, sig, siglen, room);
}

static int digest_sign_init(void *ctx, const char *md, void *keydata, const OSSL_PARAM params[])
{
	struct sigctx *c = ctx;

	if (begin(c, keydata, true) != 0)
		return 0;
	if (md != NULL && *md != '\0') {
		if (c->key->kind == KIND_ED25519) {
			(void)prov_err(c->prov, CSM_EUNSUPPORTED, "Ed25519 signs messages, not their hash");
			return 0;
		}
		if (set_md(c, md, &c->md) != 0)
			return 0;
	} else if (c->key->kind != KIND_ED25519 && c->md < 0) {
		c->md = MD_SHA256;
	}
	if (!sig_set_params(c, params))
		return 0;
	if (c->key->kind == KIND_ED25519)
		return 1;
	if (c->hash == NULL && (c->hash = EVP_MD_CTX_new()) == NULL)
		return 0;
	return EVP_DigestInit_ex2(c->hash, c->prov->md[c->md], NULL);
}

static int digest_sign_update(void *ctx, const unsigned char *data, size_t n)
{
	struct sigctx *c = ctx;

	return c->hash != NULL && EVP_DigestUpdate(c->hash, data, n);
}

static int digest_sign_final(void *ctx, unsigned char *sig, size_t *siglen, size_t room)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	struct sigctx *c = ctx;
	const struct scheme *s = NULL;
	unsigned n;

	if (c->key == NULL || c->hash == NULL)
		return 0;
	if (sig == NULL) {
		*siglen = c->key->size;
		return 1;
	}
	if (check_scheme(c, c->md, &s) != 0 || !EVP_DigestFinal_ex(c->hash, digest, &n))
		return 0;
	return put_signature(c, s, digest, n, sig, siglen, room);
}

/* The message at once: the only way with Ed25519. */
static int digest_sign(void *ctx, unsigned char *sig, size_t *siglen, size_t room, const unsigned char *tbs, size_t n)
{
	struct sigctx *c = ctx;
	const struct scheme *s = NULL;

	return check_scheme(c, -1, &s) == 0 && put_signature(c, s, tbs, n, sig, siglen, room);
}

/* ---- verifying ---- */

static int verify_init(void *ctx, void *keydata, const OSSL_PARAM params[])
{
	struct sigctx *c = ctx;

	if (begin(c, keydata, false) != 0)
		return 0;
	c->verify = EVP_PKEY_CTX_new_from_pkey(c->prov->lib, c->key->pub, NULL);
	return c->verify != NULL && EVP_PKEY_verify_init_ex(c->verify, params) == 1;
}

static int verify(void *ctx, const unsigned char *sig, size_t siglen, const unsigned char *tbs, size_t n)
{
	struct sigctx *c = ctx;

	return c->verify != NULL && EVP_PKEY_verify(c->verify, sig, siglen, tbs, n) == 1;
}

static int digest_verify_init(void *ctx, const char *md, void *keydata, const OSSL_PARAM params[])
{
	struct sigctx *c = ctx;

	if (begin(c, keydata, false) != 0)
		return 0;
	if (md != NULL && *md == '\0')
		md = NULL;
	c->verify_hash = EVP_MD_CTX_new();
	return c->verify_hash != NULL &&
		EVP_DigestVerifyInit_ex(c->verify_hash, NULL, md, c->prov->lib, NULL, c->key->pub, params) == 1;
}

static int digest_verify_update(void *ctx, const unsigned char *data, size_t n)
{
	struct sigctx *c = ctx;

	return c->verify_hash != NULL && EVP_DigestVerifyUpdate(c->verify_hash, data, n);
}

static int digest_verify_final(void *ctx, const unsigned char *sig, size_t siglen)
{
	struct sigctx *c = ctx;

	return c->verify_hash != NULL && EVP_DigestVerifyFinal(c->verify_hash, sig, siglen) == 1;
}

static int digest_verify(void *ctx, const unsigned char *sig, size_t siglen, const unsigned char *tbs, size_t n)
{
	struct sigctx *c = ctx;

	return c->verify_hash != NULL && EVP_DigestVerify(c->verify_hash, sig, siglen, tbs, n) == 1;
}

/* ---- tables ---- */

#define COMMON \
	{OSSL_FUNC_SIGNATURE_NEWCTX, (void (*)(void))sig_new}, {OSSL_FUNC_SIGNATURE_FREECTX, (void (*)(void))sig_free}, \
		{OSSL_FUNC_SIGNATURE_DUPCTX, (void (*)(void))sig_dup}, \
		{OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, (void (*)(void))digest_sign_init}, \
		{OSSL_FUNC_SIGNATURE_DIGEST_VERIFY_INIT, (void (*)(void))digest_verify_init}, \
		{OSSL_FUNC_SIGNATURE_GET_CTX_PARAMS, (void (*)(void))sig_get_params}, \
		{OSSL_FUNC_SIGNATURE_GETTABLE_CTX_PARAMS, (void (*)(void))sig_gettable}

static const OSSL_DISPATCH hash_functions[] = {
	COMMON,
	{OSSL_FUNC_SIGNATURE_SIGN_INIT, (void (*)(void))sign_init},
	{OSSL_FUNC_SIGNATURE_SIGN, (void (*)(void))sign},
	{OSSL_FUNC_SIGNATURE_VERIFY_INIT, (void (*)(void))verify_init},
	{OSSL_FUNC_SIGNATURE_VERIFY, (void (*)(void))verify},
	{OSSL_FUNC_SIGNATURE_DIGEST_SIGN_UPDATE, (void (*)(void))digest_sign_update},
	{OSSL_FUNC_SIGNATURE_DIGEST_SIGN_FINAL, (void (*)(void))digest_sign_final},
	{OSSL_FUNC_SIGNATURE_DIGEST_VERIFY_UPDATE, (void (*)(void))digest_verify_update},
	{OSSL_FUNC_SIGNATURE_DIGEST_VERIFY_FINAL, (void (*)(void))digest_verify_final},
	{OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS, (void (*)(void))sig_set_params},
	{OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS, (void (*)(void))sig_settable},
	{0, NULL},
};

static const OSSL_DISPATCH message_functions[] = {
	COMMON,
	{OSSL_FUNC_SIGNATURE_DIGEST_SIGN, (void (*)(void))digest_sign},
	{OSSL_FUNC_SIGNATURE_DIGEST_VERIFY, (void (*)(void))digest_verify},
	{0, NULL},
};

const OSSL_ALGORITHM prov_signature[] = {
	{"ECDSA", PROV_PROPERTIES, hash_functions, "csm ECDSA"},
	{PROV_NAMES_RSA, PROV_PROPERTIES, hash_functions, "csm RSA"},
	{PROV_NAMES_ED25519, PROV_PROPERTIES, message_functions, "csm Ed25519"},
	{NULL, NULL, NULL, NULL},
};
