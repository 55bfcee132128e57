/* OSSL_STORE for csm:[NAMESPACE:]NAME, with ?object=key, public or cert. */
#include <stdlib.h>
#include <string.h>
#include <openssl/asn1.h>
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
	bool only_cert;
	struct pkey *key;  /* once it was asked for */
	uint8_t *chain;    /* DER certificates one after the other; NULL: not asked for yet */
	struct csm_bin rest;
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
	s->only_cert = s->object == GIVE_CERT;
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
	s->only_cert = s->left == GIVE_CERT;
	if (s->object != 0 && expect != 0)
		s->left &= s->object;
	return 1;
}

/* The default provider makes a key of it. */
static int give_public(const struct pkey *key, OSSL_CALLBACK *cb, void *arg)
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
	return ok;
}

/* The key as the URI names it: asked for once, so that all that is given is of the same. */
static int load_key(struct store *s)
{
	struct csm_ref ref;

	if (s->key != NULL)
		return 0;
	if (csm_ref_parse(csm_str_of(s->name), &ref) != 0)
		return prov_err(s->prov, CSM_EINTERNAL, "%s", s->name);
	return pkey_load(s->prov, &ref, NULL, &s->key);
}

/* The whole chain. That there is none is an error only for those who wanted nothing else. */
static int load_chain(struct store *s)
{
	size_t n = CSM_CHAIN_BYTES;
	int r = load_key(s);

	if (r != 0)
		return r;
	s->chain = malloc(n);
	if (s->chain == NULL)
		return prov_err(s->prov, CSM_ENOMEM, "%s", s->key->name);
	r = csm_cert_chain(s->prov->csm, s->key->name, s->chain, &n);
	if (r == CSM_ENOT_FOUND && !s->only_cert)
		n = 0;
	else if (r != 0)
		return prov_err_csm(s->prov, r, s->key->name);
	s->rest = (struct csm_bin){s->chain, n};
	return 0;
}

/* The first DER element of *rest, taken off. False: there is none that is whole. */
static bool take_cert(struct csm_bin *rest, struct csm_bin *cert)
{
	const unsigned char *p = rest->p;
	long n;
	int tag, class;

	if (rest->n == 0 || (ASN1_get_object(&p, &n, &tag, &class, (long)rest->n) & 0x80) != 0 || tag != V_ASN1_SEQUENCE)
		return false;
	*cert = (struct csm_bin){rest->p, (size_t)(p - rest->p) + (size_t)n};
	if (cert->n > rest->n)
		return false;
	rest->p += cert->n;
	rest->n -= cert->n;
	return true;
}

static int give_cert(struct store *s, OSSL_CALLBACK *cb, void *arg)
{
	int type = OSSL_OBJECT_CERT;
	struct csm_bin cert;

	if (!take_cert(&s->rest, &cert)) {
		(void)prov_err(s->prov, CSM_EPROTOCOL, "%s: its chain is not understood", s->key->name);
		s->left = 0;
		return 0;
	}
	if (s->rest.n == 0)
		s->left = 0;
	OSSL_PARAM params[] = {
		OSSL_PARAM_int(OSSL_OBJECT_PARAM_TYPE, &type),
		OSSL_PARAM_construct_octet_string(OSSL_OBJECT_PARAM_DATA, (void *)(uintptr_t)cert.p, cert.n),
		OSSL_PARAM_END,
	};
	return cb(params, arg);
}

static int store_load(void *ctx, OSSL_CALLBACK *cb, void *arg, OSSL_PASSPHRASE_CALLBACK *pw, void *pw_arg)
{
	struct store *s = ctx;
	unsigned now = s->left & (GIVE_KEY | GIVE_PUBLIC);

	(void)pw;
	(void)pw_arg;
	if (now != 0) {
		s->left &= GIVE_CERT;
		if (load_key(s) != 0) {
			s->left = 0;
			return 0;
		}
		return now == GIVE_PUBLIC ? give_public(s->key, cb, arg) : pkey_give(pkey_ref(s->key), cb, arg);
	}
	if (s->left == 0)
		return 0;
	if (s->chain == NULL && load_chain(s) != 0)
		s->left = 0;
	if (s->rest.n == 0)
		s->left = 0;
	return s->left != 0 && give_cert(s, cb, arg);
}

static int store_eof(void *ctx)
{
	return ((struct store *)ctx)->left == 0;
}

static int store_close(void *ctx)
{
	struct store *s = ctx;

	pkey_unref(s->key);
	free(s->chain);
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
