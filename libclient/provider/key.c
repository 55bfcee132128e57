/* Keys: what csmd says of one, and what of it can be done without csmd. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/core_names.h>
#include <openssl/core_object.h>
#include <openssl/params.h>
#include <openssl/x509.h>
#include "libclient/base/hex.h"
#include "libclient/provider/provider.h"

const char *const kind_names[KIND__COUNT] = {
	[KIND_EC] = "EC",
	[KIND_RSA] = "RSA",
	[KIND_ED25519] = "ED25519",
};

struct pkey *pkey_new(struct prov *p, enum kind kind)
{
	struct pkey *key = calloc(1, sizeof(*key));

	if (key == NULL)
		return NULL;
	atomic_init(&key->refs, 1);
	key->prov = p;
	key->kind = kind;
	return key;
}

struct pkey *pkey_ref(struct pkey *key)
{
	(void)atomic_fetch_add(&key->refs, 1);
	return key;
}

void pkey_unref(struct pkey *key)
{
	if (key == NULL || atomic_fetch_sub(&key->refs, 1) != 1)
		return;
	EVP_PKEY_free(key->pub);
	free(key->name);
	free(key);
}

void pkey_set_public(struct pkey *key, EVP_PKEY *pub)
{
	int size = EVP_PKEY_get_size(pub);

	EVP_PKEY_free(key->pub);
	key->pub = pub;
	key->size = size > 0 ? (size_t)size : 0;
}

int pkey_spki(const struct pkey *key, uint8_t **der, size_t *len)
{
	unsigned char *p = NULL;
	int n = i2d_PUBKEY(key->pub, &p);

	if (n <= 0)
		return prov_err(key->prov, CSM_EINTERNAL, "the public half");
	*der = p;
	*len = (size_t)n;
	return 0;
}

int pkey_give(struct pkey *key, OSSL_CALLBACK *cb, void *arg)
{
	int type = OSSL_OBJECT_PKEY;
	void *given = key;
	OSSL_PARAM params[] = {
		OSSL_PARAM_int(OSSL_OBJECT_PARAM_TYPE, &type),
		OSSL_PARAM_construct_utf8_string(OSSL_OBJECT_PARAM_DATA_TYPE, (char *)(uintptr_t)kind_names[key->kind], 0),
		OSSL_PARAM_octet_string(OSSL_OBJECT_PARAM_REFERENCE, &given, sizeof(given)),
		OSSL_PARAM_END,
	};
	int ok = cb(params, arg);

	/* Who took it has put NULL there. */
	pkey_unref(given);
	return ok;
}

/* ---- loading ---- */

/* "NAMESPACE:NAME" on the heap. */
static int join(struct prov *p, struct csm_str ns, struct csm_str name, char **ret)
{
	int n = asprintf(ret, "%.*s:%.*s", (int)ns.n, ns.p, (int)name.n, name.p);

	return n < 0 ? prov_err(p, CSM_ENOMEM, "a key's name") : 0;
}

/* The key's whole name. */
static int whole_name(struct prov *p, const struct csm_ref *ref, char **ret)
{
	struct csm_reply *rep;
	struct csm_str home;
	int r;

	if (ref->ns.p != NULL)
		return join(p, ref->ns, ref->name, ret);
	r = csm_whoami(p->csm, &rep);
	if (r != 0)
		return prov_err(p, r, "%.*s: %s", (int)ref->name.n, ref->name.p, csm_error_message());
	home = csm_str_of(csm_view_str(csm_reply_view(rep), "namespace"));
	if (home.n > 0)
		r = join(p, home, ref->name, ret);
	else
		r = prov_err(p, CSM_EAMBIGUOUS, "%.*s: the caller has no home namespace", (int)ref->name.n, ref->name.p);
	csm_reply_free(rep);
	return r;
}

static int kind_of(struct prov *p, const char *name, const EVP_PKEY *pub, enum kind *ret)
{
	int i;

	for (i = 0; i < KIND__COUNT; i++) {
		if (EVP_PKEY_is_a(pub, kind_names[i])) {
			*ret = (enum kind)i;
			return 0;
		}
	}
	return prov_err(p, CSM_EUNSUPPORTED, "%s: a key of this kind", name);
}

static int other_key(struct prov *p, const char *name)
{
	return prov_err(p, CSM_ECONFLICT, "%s: this is another key than the one that the reference was made for", name);
}

/* Of just the key that a reference was made for, while it is there, also after a renewal for another key. */
static int ask_public(struct prov *p, const char *name, const uint8_t *want, struct csm_reply **ret)
{
	char hex[2 * CSM_KEYREF_HASH + 1];
	struct csm_request *req = NULL;
	int r = csm_request_new("key.public", &req);

	if (r == 0)
		r = csm_request_str(req, "key", name);
	if (r == 0 && want != NULL) {
		csm_hex(want, CSM_KEYREF_HASH, hex);
		r = csm_request_str(req, "spki_sha256", hex);
	}
	if (r == 0)
		r = csm_call(p->csm, req, ret);
	csm_request_free(req);
	if (r == CSM_ECONFLICT && want != NULL)
		return other_key(p, name);
	return r == 0 ? 0 : prov_err_csm(p, r, name);
}

/* The public half, with its hash. want: of the key that is meant, or NULL. */
static int fetch_public(struct prov *p, const char *name, const uint8_t *want, EVP_PKEY **ret, uint8_t hash[static CSM_KEYREF_HASH])
{
	struct csm_reply *reply = NULL;
	const unsigned char *at;
	const void *spki;
	size_t n = 0;
	int r = ask_public(p, name, want, &reply);

	if (r != 0)
		return r;
	spki = csm_view_bin(csm_reply_view(reply), "spki", &n);
	at = spki;
	*ret = spki != NULL ? d2i_PUBKEY_ex(NULL, &at, (long)n, p->lib, NULL) : NULL;
	if (*ret != NULL)
		csm_keyref_hash(spki, n, hash);
	csm_reply_free(reply);
	return *ret != NULL ? 0 : prov_err(p, CSM_EPROTOCOL, "%s: the public half is not understood", name);
}

int pkey_load(struct prov *p, const struct csm_ref *ref, const uint8_t *hash, struct pkey **ret)
{
	uint8_t is[CSM_KEYREF_HASH] = {0};
	EVP_PKEY *pub = NULL;
	struct pkey *key = NULL;
	struct csm_ref whole;
	char *name = NULL;
	enum kind kind = KIND_EC;
	int r;

	r = whole_name(p, ref, &name);
	if (r == 0)
		r = fetch_public(p, name, hash, &pub, is);
	if (r == 0)
		r = kind_of(p, name, pub, &kind);
	if (r == 0 && hash != NULL && memcmp(hash, is, sizeof(is)) != 0)
		r = other_key(p, name);
	if (r == 0)
		r = csm_ref_parse(csm_str_of(name), &whole);
	if (r == 0 && (key = pkey_new(p, kind)) == NULL)
		r = prov_err(p, CSM_ENOMEM, "%s", name);
	if (r != 0) {
		EVP_PKEY_free(pub);
		free(name);
		return r;
	}
	key->name = name;
	key->whole = true;
	key->ref.ns = whole.ns;
	key->ref.name = whole.name;
	memcpy(key->ref.hash, is, sizeof(is));
	csm_hex(is, sizeof(is), key->hash_hex);
	pkey_set_public(key, pub);
	*ret = key;
	return 0;
}
