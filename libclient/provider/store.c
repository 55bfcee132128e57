/* OSSL_STORE for csm:[NAMESPACE:]NAME, with ?object=key, public or cert. */
#include <stdlib.h>
#include <string.h>
#include <openssl/core_names.h>
#include <openssl/core_object.h>
#include <openssl/crypto.h>
#include <openssl/params.h>
#include <openssl/store.h>
#include "libclient/provider/provider.h"

#define SCHEME "csm:"

/* What is still to be given, as bits, in this order. */
enum { GIVE_KEY = 1, GIVE_PUBLIC = 2, GIVE_CERT = 4 };

struct store {
	struct prov *prov;
	char *name; /* as the URI has it */
	unsigned object; /* what the URI asks for; 0: nothing in particular */
	unsigned left;
};

static unsigned object_of(const char *word)
{
	return strcmp(word, "key") == 0      ? GIVE_KEY
	       : strcmp(word, "public") == 0 ? GIVE_PUBLIC
	       : strcmp(word, "cert") == 0   ? GIVE_CERT
					     : 0;
}

static int parse(struct prov *p, const char *uri, char **name, unsigned *object)
{
	static const char query[] = "?object=";
	const char *s = uri + strlen(SCHEME), *q = strchr(s, '?');
	size_t n = q != NULL ? (size_t)(q - s) : strlen(s);
	struct csm_ref ref;

	*object = 0;
	if (q != NULL && (strncmp(q, query, strlen(query)) != 0 || (*object = object_of(q + strlen(query))) == 0))
		return prov_err(p, CSM_EINVALID, "%s: ?object= is key, public or cert", uri);
	if (csm_ref_parse((struct csm_str){s, n}, &ref) != 0)
		return prov_err(p, CSM_EINVALID, "%s is not csm:[NAMESPACE:]NAME", uri);
	*name = strndup(s, n);
	return *name != NULL ? 0 : prov_err(p, CSM_ENOMEM, "%s", uri);
}

static void *store_open(void *provctx, const char *uri)
{
	struct prov *p = provctx;
	struct store *s;

	if (strncmp(uri, SCHEME, strlen(SCHEME)) != 0)
		return NULL;
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return NULL;
	s->prov = p;
	if (parse(p, uri, &s->name, &s->object) != 0) {
		free(s);
		return NULL;
	}
	s->left = s->object != 0 ? s->object : GIVE_KEY | GIVE_CERT;
	return s;
}

static const OSSL_PARAM *store_settable(void *provctx)
{
	static const OSSL_PARAM params[] = {
		OSSL_PARAM_int(OSSL_STORE_PARAM_EXPECT, NULL),
		OSSL_PARAM_END,
	};

	(void)provctx;
	return params;
}

static int store_set_params(void *ctx, const OSSL_PARAM params[])
{
	const OSSL_PARAM *p = OSSL_PARAM_locate_const(params, OSSL_STORE_PARAM_EXPECT);
	struct store *s = ctx;
	int expect;

	if (p == NULL)
		return 1;
	if (!OSSL_PARAM_get_int(p, &expect))
		return 0;
	if (expect == OSSL_STORE_INFO_PKEY)
		s->left = GIVE_KEY;
	else if (expect == OSSL_STORE_INFO_PUBKEY)
		s->left = GIVE_PUBLIC;
	else if (expect == OSSL_STORE_INFO_CERT)
		s->left = GIVE_CERT;
	else if (expect != 0)
		s->left = 0;
	if (s->object != 0 && expect != 0)
		s->left &= s->object;
	return 1;
}

/* The default provider makes a key of it. */
static int give_public(struct pkey *key, OSSL_CALLBACK *cb, void *arg)
{
	char structure[] = "SubjectPublicKeyInfo";
	uint8_t *der = NULL;
	size_t n = 0;
	int type = OSSL_OBJECT_PKEY, ok = 0;

	if (pkey_spki(key, &der, &n) == 0) {
		OSSL_PARAM params[] = {
			OSSL_PARAM_int(OSSL_OBJECT_PARAM_TYPE, &type),
			OSSL_PARAM_construct_utf8_string(OSSL_OBJECT_PARAM_DATA_STRUCTURE, structure, 0),
			OSSL_PARAM_octet_string(OSSL_OBJECT_PARAM_DATA, der, n),
			OSSL_PARAM_END,
		};

		ok = cb(params, arg);
	}
	OPENSSL_free(der);
	pkey_unref(key);
	return ok;
}

static int store_load(void *ctx, OSSL_CALLBACK *cb, void *arg, OSSL_PASSPHRASE_CALLBACK *pw, void *pw_arg)
{
	struct store *s = ctx;
	struct pkey *key = NULL;
	struct csm_ref ref;

	(void)pw;
	(void)pw_arg;
	if ((s->left & (GIVE_KEY | GIVE_PUBLIC)) != 0) {
		bool public = (s->left & GIVE_KEY) == 0;

		s->left &= GIVE_CERT;
		if (csm_ref_parse(csm_str_of(s->name), &ref) != 0 || pkey_load(s->prov, &ref, NULL, &key) != 0)
			return 0;
		return public ? give_public(key, cb, arg) : pkey_give(key, cb, arg);
	}
	s->left = 0;
	return 0;
}

static int store_eof(void *ctx)
{
	return ((struct store *)ctx)->left == 0;
}

static int store_close(void *ctx)
{
	struct store *s = ctx;

	free(s->name);
	free(s);
	return 1;
}

static const OSSL_DISPATCH functions[] = {
	{OSSL_FUNC_STORE_OPEN, (void (*)(void))store_open},
	{OSSL_FUNC_STORE_SETTABLE_CTX_PARAMS, (void (*)(void))store_settable},
	{OSSL_FUNC_STORE_SET_CTX_PARAMS, (void (*)(void))store_set_params},
	{OSSL_FUNC_STORE_LOAD, (void (*)(void))store_load},
	{OSSL_FUNC_STORE_EOF, (void (*)(void))store_eof},
	{OSSL_FUNC_STORE_CLOSE, (void (*)(void))store_close},
	{0, NULL},
};

const OSSL_ALGORITHM prov_store[] = {
	{"csm", PROV_PROPERTIES, functions, "csm:[NAMESPACE:]NAME"},
	{NULL, NULL, NULL, NULL},
};
