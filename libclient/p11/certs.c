/* Certificates: a key's chain as csmd keeps it, an object each. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/x509.h>
#include "libclient/p11/p11.h"

#define CHAIN_MAX 16u

/* A chain, taken apart, before anything of it is an object. */
struct chain {
	struct object *v[CHAIN_MAX];
	size_t n;
	char fingerprint[P11_FINGERPRINT_LEN + 1]; /* of the first */
	char whole[P11_FINGERPRINT_LEN + 1];
	uint64_t installed;
};

static void chain_free(struct chain *c)
{
	for (size_t i = 0; i < c->n; i++)
		object_unref(c->v[i]);
	c->n = 0;
}

/* An issuer's certificate has an identifier of its own; the leaf has its key's. */
static bool issuer_id(X509 *x, struct object *o)
{
	unsigned char *spki = NULL;
	int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &spki);
	bool ok = n > 0 && keyinfo_id(spki, (size_t)n, o->id);

	OPENSSL_free(spki);
	o->id_len = ok ? P11_ID_LEN : 0;
	return ok;
}

static CK_RV chain_add(struct chain *c, CK_SLOT_ID slot, struct key *k, X509 *x, const uint8_t *der, size_t n)
{
	struct object *o;

	if (c->n == CHAIN_MAX)
		return CKR_DEVICE_ERROR;
	o = object_new(slot, CKO_CERTIFICATE, 0, k);
	if (o == NULL || (o->value = malloc(n)) == NULL || (c->n > 0 && !issuer_id(x, o))) {
		object_unref(o);
		return CKR_HOST_MEMORY;
	}
	memcpy(o->value, der, n);
	o->value_len = n;
	o->chain = c->n;
	c->v[c->n++] = o;
	return CKR_OK;
}

static CK_RV chain_read(CK_SLOT_ID slot, struct key *k, const uint8_t *der, size_t n, struct chain *c)
{
	CK_RV rv = keyinfo_fingerprint(der, n, c->whole) ? CKR_OK : CKR_HOST_MEMORY;

	c->n = 0;
	ossl_in();
	while (n > 0 && rv == CKR_OK) {
		const unsigned char *end = der;
		X509 *x = keyinfo_x509(&end, n);

		rv = x == NULL ? CKR_DEVICE_ERROR : chain_add(c, slot, k, x, der, (size_t)(end - der));
		if (rv == CKR_OK && c->n == 1 && !keyinfo_fingerprint(der, (size_t)(end - der), c->fingerprint))
			rv = CKR_HOST_MEMORY;
		X509_free(x);
		n -= x == NULL ? n : (size_t)(end - der);
		der = end;
	}
	ossl_out();
	if (rv != CKR_OK)
		chain_free(c);
	return rv;
}

/* Under the table's lock. */
static void drop(struct key *k)
{
	for (size_t i = 0; i < k->n_certs; i++)
		object_drop_locked(k->certs[i]);
	free(k->certs);
	k->certs = NULL;
	k->n_certs = 0;
	k->fingerprint[0] = k->chain[0] = '\0';
}

static bool is_same(const struct key *k, const struct chain *c)
{
	return k->n_certs == c->n && strcmp(k->chain, c->whole) == 0;
}

/* The chain's objects take the place of those that were there, unless they are the same. Consumes the chain. */
static CK_RV chain_put(struct key *k, struct chain *c)
{
	CK_RV rv = CKR_OK;

	lock_take(&lib.table);
	k->certs_told = token_tick();
	k->installed = c->installed;
	if (k->private == 0 || is_same(k, c)) /* a key that is gone has none */
		goto out;
	drop(k);
	k->certs = calloc(c->n + 1, sizeof(*k->certs));
	if (k->certs == NULL) {
		rv = CKR_HOST_MEMORY;
		goto out;
	}
	for (size_t i = 0; i < c->n && rv == CKR_OK; i++) {
		rv = object_add_locked(object_ref(c->v[i]));
		if (rv == CKR_OK)
			k->certs[k->n_certs++] = c->v[i]->handle;
	}
	if (rv == CKR_OK)
		memcpy(k->fingerprint, c->fingerprint, sizeof(k->fingerprint));
	if (rv == CKR_OK)
		memcpy(k->chain, c->whole, sizeof(k->chain));
	else
		drop(k);
out:
	lock_give(&lib.table);
	chain_free(c);
	return rv;
}

static int ask_chain(const char *ref, struct csm_reply **ret)
{
	unsigned tries = 0;
	int r;

	do
		r = csm_cert_show(lib.csm, ref, ret);
	while (p11_again(r, &tries));
	return r;
}

CK_RV certs_look(CK_SLOT_ID slot, struct key *k)
{
	struct csm_reply *reply = NULL;
	struct chain c = {.n = 0};
	const uint8_t *der;
	size_t n = 0;
	CK_RV rv;
	int r = ask_chain(k->ref, &reply);

	if (r == 0) {
		der = csm_view_bin(csm_reply_view(reply), "chain", &n);
		c.installed = csm_view_u64(csm_reply_view(reply), "installed");
		rv = der == NULL ? CKR_DEVICE_ERROR : n == 0 ? CKR_OK : chain_read(slot, k, der, n, &c); /* none yet */
	} else {
		rv = r == CSM_ENOT_FOUND ? CKR_OK : p11_rv(r, CKR_OK);
	}
	if (rv == CKR_OK)
		rv = chain_put(k, &c);
	csm_reply_free(reply);
	return rv;
}

void certs_drop(struct key *k)
{
	drop(k);
}

/* ---- those of all keys ---- */

/* The key is known, and its certificate is another than the one that is known. */
static struct key *changed(CK_SLOT_ID slot, const char *name, struct csm_view item)
{
	const char *fingerprint = csm_view_str(item, "fingerprint");
	struct key *k;

	lock_take(&lib.table);
	k = token_key(slot, name);
	if (k != NULL)
		k->certs_told = token_tick();
	if (k != NULL && (fingerprint == NULL || strcmp(k->fingerprint, fingerprint) != 0 ||
				 k->installed != csm_view_u64(item, "installed")))
		key_ref(k);
	else
		k = NULL;
	lock_give(&lib.table);
	return k;
}

static CK_RV take_page(CK_SLOT_ID slot, struct csm_view v)
{
	size_t n = csm_view_count(v, "certs");
	CK_RV rv = CKR_OK;

	for (size_t i = 0; i < n && rv == CKR_OK; i++) {
		struct csm_view item = csm_view_at(v, "certs", i);
		const char *name = csm_view_str(item, "name");
		struct key *k = name == NULL ? NULL : changed(slot, name, item);

		if (k != NULL)
			rv = certs_look(slot, k);
		key_unref(k);
	}
	return rv;
}

CK_RV certs_list(CK_SLOT_ID slot)
{
	uint64_t begun = token_now();
	struct slot *s = slots[slot];
	bool whole;
	CK_RV rv = slot_list(slot, LIST_CERTS, take_page, &whole);

	lock_take(&lib.table);
	for (size_t i = 0; i < s->n_keys && whole; i++)
		if (s->keys[i]->certs_told <= begun)
			drop(s->keys[i]);
	lock_give(&lib.table);
	return rv;
}

/* ---- C_CreateObject and C_DestroyObject of one ---- */

/* The public key of what has to be a certificate and no more, to be freed; its length, or 0. */
static int public_of(const uint8_t *der, size_t n, unsigned char **ret)
{
	const unsigned char *p = der;
	int len = 0;
	X509 *x;

	ossl_in();
	x = keyinfo_x509(&p, n);
	if (x != NULL && p == der + n)
		len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), ret);
	X509_free(x);
	ossl_out();
	return len < 0 ? 0 : len;
}

/* The key that the certificate is for. */
static CK_RV key_of(CK_SLOT_ID slot, const uint8_t *spki, size_t n, struct key **ret)
{
	const struct keyinfo *i;
	struct key *k = NULL;
	bool found = false;

	for (size_t at = 0; !found && (k = token_nth(slot, at)) != NULL; at++) {
		found = key_load(k, &i) == CKR_OK && i->spki_len == n && memcmp(i->spki, spki, n) == 0;
		if (!found)
			key_unref(k);
	}
	if (!found)
		return CKR_TEMPLATE_INCONSISTENT;
	*ret = k;
	return CKR_OK;
}

static CK_RV install(CK_SLOT_ID slot, struct key *k, const void *der, size_t n, CK_OBJECT_HANDLE *ret)
{
	CK_RV rv;
	int r = csm_cert_install(lib.csm, k->ref, der, n);

	if (r != 0)
		return r == CSM_EINVALID ? CKR_ATTRIBUTE_VALUE_INVALID : p11_rv(r, CKR_TOKEN_WRITE_PROTECTED);
	rv = certs_look(slot, k);
	lock_take(&lib.table);
	if (rv == CKR_OK && k->n_certs == 0)
		rv = CKR_DEVICE_ERROR; /* installed, but this caller may not read it */
	if (rv == CKR_OK)
		*ret = k->certs[0];
	lock_give(&lib.table);
	return rv;
}

CK_RV certs_create(CK_SLOT_ID slot, const CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *ret)
{
	const CK_ATTRIBUTE *value = template_find(t, n, CKA_VALUE);
	CK_ULONG type = CKC_X_509;
	unsigned char *spki = NULL;
	struct key *k = NULL;
	bool token = false;
	int spki_len;
	CK_RV rv;

	if (value == NULL || value->ulValueLen == 0)
		return CKR_TEMPLATE_INCOMPLETE;
	if ((rv = template_ulong(t, n, CKA_CERTIFICATE_TYPE, &type)) != CKR_OK ||
		(rv = template_bool(t, n, CKA_TOKEN, &token)) != CKR_OK)
		return rv;
	if (type != CKC_X_509)
		return CKR_ATTRIBUTE_VALUE_INVALID;
	if (!token)
		return CKR_TEMPLATE_INCONSISTENT;
	spki_len = public_of(value->pValue, value->ulValueLen, &spki);
	if (spki_len == 0)
		return CKR_ATTRIBUTE_VALUE_INVALID;
	rv = token_list(slot);
	if (rv == CKR_OK)
		rv = key_of(slot, spki, (size_t)spki_len, &k);
	OPENSSL_free(spki);
	if (rv == CKR_OK)
		rv = install(slot, k, value->pValue, value->ulValueLen, ret);
	key_unref(k);
	return rv;
}

CK_RV certs_destroy(const struct object *o)
{
	struct csm_request *req = NULL;
	const struct keyinfo *info;
	bool there;
	CK_RV rv;
	int r;

	if (o->chain != 0)
		return CKR_ACTION_PROHIBITED;
	rv = key_load(o->key, &info);
	if (rv == CKR_OK)
		rv = certs_look(o->slot, o->key);
	if (rv != CKR_OK)
		return rv;
	lock_take(&lib.table);
	there = o->key->n_certs > 0 && o->key->certs[0] == o->handle;
	lock_give(&lib.table);
	/* another certificate may be in its place by now */
	if (!there)
		return CKR_OBJECT_HANDLE_INVALID;
	r = key_request("cert.delete", o->key, info, &req);
	r = key_send(r, req, o->key, NULL);
	if (r == 0 || r == CSM_ENOT_FOUND) {
		lock_take(&lib.table);
		drop(o->key);
		lock_give(&lib.table);
	}
	return r == CSM_ECONFLICT ? CKR_OBJECT_HANDLE_INVALID : p11_rv(r, CKR_ACTION_PROHIBITED);
}
