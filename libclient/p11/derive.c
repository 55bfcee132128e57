/* C_DeriveKey: ECDH by csmd; the result is a secret of the session. */
#include <stdlib.h>
#include <string.h>
#include <sodium.h>
#include <openssl/core_names.h>
#include <openssl/param_build.h>
#include <openssl/x509.h>
#include "libclient/p11/p11.h"

/* The peer's point, plain or as an OCTET STRING, as a SubjectPublicKeyInfo of the curve; to be freed. */
static CK_RV peer_spki(const struct alg *alg, const uint8_t *p, size_t n, unsigned char **ret, int *len)
{
	size_t point = 1 + 2 * (size_t)alg->field, head = point > 127 ? 3 : 2;
	const char *group = alg->bits == 256 ? "P-256" : alg->bits == 384 ? "P-384" : "P-521";
	EVP_PKEY_CTX *ctx;
	EVP_PKEY *pkey = NULL;
	OSSL_PARAM params[3];
	CK_RV rv = CKR_MECHANISM_PARAM_INVALID;

	ossl_in();
	ctx = EVP_PKEY_CTX_new_from_name(p11_ossl(), "EC", NULL);
	if (n == head + point && p[0] == 4 && p[head - 1] == point) {
		p += head;
		n -= head;
	}
	if (n != point || p[0] != 4)
		goto out;
	params[0] = OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)(uintptr_t)group, 0);
	params[1] = OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, (void *)(uintptr_t)p, n);
	params[2] = OSSL_PARAM_construct_end();
	/* a point that is not on the curve is refused here */
	if (ctx == NULL || EVP_PKEY_fromdata_init(ctx) != 1 ||
		EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, params) != 1)
		goto out;
	*len = i2d_PUBKEY(pkey, ret);
	rv = *len > 0 ? CKR_OK : CKR_HOST_MEMORY;
out:
	EVP_PKEY_free(pkey);
	EVP_PKEY_CTX_free(ctx);
	ossl_out();
	return rv;
}

struct derivation {
	CK_ECDH1_DERIVE_PARAMS p;
	CK_KEY_TYPE type;
	CK_ULONG len;
	struct object *base, *made;
	const struct keyinfo *info;
};

static CK_RV derive_by_csmd(const struct derivation *d, const unsigned char *spki, size_t spki_len, uint8_t *out,
	size_t *len)
{
	struct csm_request *req = NULL;
	struct csm_reply *reply;
	const void *shared;
	CK_RV rv = CKR_OK;
	size_t n = 0;
	int r = key_request("key.derive", d->base->key, d->info, &req);

	if (r == 0)
		r = csm_request_bin(req, "peer", spki, spki_len);
	r = key_send(r, req, d->base->key, &reply);
	if (r != 0)
		return p11_use_rv(r, CKR_MECHANISM_PARAM_INVALID);
	shared = csm_view_bin(csm_reply_view(reply), "shared", &n);
	if (shared == NULL || n > *len)
		rv = CKR_DEVICE_ERROR;
	else
		memcpy(out, shared, n);
	*len = n;
	csm_reply_free(reply);
	return rv;
}

/* ---- the new secret ---- */

static CK_RV secret_check(const CK_ATTRIBUTE *t, CK_ULONG n)
{
	static const CK_ATTRIBUTE_TYPE known[] = {CKA_CLASS, CKA_KEY_TYPE, CKA_TOKEN, CKA_PRIVATE, CKA_LABEL, CKA_ID,
		CKA_SENSITIVE, CKA_EXTRACTABLE, CKA_VALUE_LEN, CKA_MODIFIABLE, CKA_COPYABLE, CKA_DESTROYABLE, CKA_ENCRYPT,
		CKA_DECRYPT, CKA_SIGN, CKA_VERIFY, CKA_WRAP, CKA_UNWRAP, CKA_DERIVE, CKA_START_DATE, CKA_END_DATE};
	CK_RV rv = template_check(t, n);

	for (CK_ULONG i = 0; i < n && rv == CKR_OK; i++) {
		bool found = false;

		for (size_t k = 0; k < N_ELEMS(known); k++)
			found |= known[k] == t[i].type;
		if (!found)
			rv = t[i].type == CKA_VALUE || t[i].type == CKA_LOCAL ? CKR_ATTRIBUTE_READ_ONLY :
				CKR_ATTRIBUTE_TYPE_INVALID;
	}
	return rv;
}

static CK_RV secret_fill(struct object *o, const CK_ATTRIBUTE *t, CK_ULONG n)
{
	bool token = false;
	CK_RV rv;

	o->extractable = true;
	if ((rv = template_bool(t, n, CKA_TOKEN, &token)) != CKR_OK ||
		(rv = template_bool(t, n, CKA_SENSITIVE, &o->sensitive)) != CKR_OK ||
		(rv = template_bool(t, n, CKA_EXTRACTABLE, &o->extractable)) != CKR_OK ||
		(rv = template_bytes(t, n, CKA_LABEL, o->label, sizeof(o->label), &o->label_len)) != CKR_OK ||
		(rv = template_bytes(t, n, CKA_ID, o->id, sizeof(o->id), &o->id_len)) != CKR_OK)
		return rv;
	return token ? CKR_TEMPLATE_INCONSISTENT : CKR_OK;
}

/* Class, type and length of what is asked for. */
static CK_RV secret_kind(const CK_ATTRIBUTE *t, CK_ULONG n, size_t whole, CK_KEY_TYPE *type, CK_ULONG *len)
{
	CK_OBJECT_CLASS class = CKO_SECRET_KEY;
	CK_RV rv;

	*type = CKK_GENERIC_SECRET;
	*len = whole;
	if ((rv = template_ulong(t, n, CKA_CLASS, &class)) != CKR_OK ||
		(rv = template_ulong(t, n, CKA_KEY_TYPE, type)) != CKR_OK ||
		(rv = template_ulong(t, n, CKA_VALUE_LEN, len)) != CKR_OK)
		return rv;
	if (class != CKO_SECRET_KEY)
		return CKR_TEMPLATE_INCONSISTENT;
	if (*type == CKK_AES) {
		if (template_find(t, n, CKA_VALUE_LEN) == NULL)
			*len = whole < 32 ? whole : 32;
		if (*len != 16 && *len != 24 && *len != 32)
			return CKR_TEMPLATE_INCONSISTENT;
	} else if (*type != CKK_GENERIC_SECRET) {
		return CKR_TEMPLATE_INCONSISTENT;
	}
	return *len == 0 || *len > whole ? CKR_TEMPLATE_INCONSISTENT : CKR_OK;
}

static CK_RV read_mechanism(const CK_MECHANISM *m, CK_ECDH1_DERIVE_PARAMS *p)
{
	const struct mech *mech = mech_by_type(m->mechanism);

	if (mech == NULL || mech->kind != MECH_ECDH)
		return CKR_MECHANISM_INVALID;
	if (m->pParameter == NULL || m->ulParameterLen != sizeof(*p))
		return CKR_MECHANISM_PARAM_INVALID;
	memcpy(p, m->pParameter, sizeof(*p));
	if (p->kdf != CKD_NULL || p->ulSharedDataLen != 0 || p->pPublicData == NULL || p->ulPublicDataLen == 0)
		return CKR_MECHANISM_PARAM_INVALID;
	return CKR_OK;
}

static CK_RV read_base(const struct session *s, CK_OBJECT_HANDLE h, struct derivation *d)
{
	CK_RV rv;

	d->base = object_get(s, h);
	if (d->base == NULL ||
		(d->base->class != CKO_PRIVATE_KEY && d->base->class != CKO_PUBLIC_KEY && d->base->class != CKO_SECRET_KEY))
		return CKR_KEY_HANDLE_INVALID;
	if (d->base->class == CKO_SECRET_KEY)
		return CKR_KEY_TYPE_INCONSISTENT;
	rv = key_load(d->base->key, &d->info);
	if (rv != CKR_OK)
		return rv == CKR_OBJECT_HANDLE_INVALID ? CKR_KEY_HANDLE_INVALID : rv;
	if (d->info->alg->type != CKK_EC)
		return CKR_KEY_TYPE_INCONSISTENT;
	return d->base->class == CKO_PRIVATE_KEY && d->info->derive ? CKR_OK : CKR_KEY_FUNCTION_NOT_PERMITTED;
}

static CK_RV run(struct derivation *d)
{
	uint8_t shared[CSM_SHARED_BYTES];
	unsigned char *spki = NULL;
	struct object *o = d->made;
	size_t n = sizeof(shared);
	int spki_len = 0;
	CK_RV rv = peer_spki(d->info->alg, d->p.pPublicData, d->p.ulPublicDataLen, &spki, &spki_len);

	if (rv == CKR_OK)
		rv = derive_by_csmd(d, spki, (size_t)spki_len, shared, &n);
	if (rv == CKR_OK && n < d->len)
		rv = CKR_DEVICE_ERROR;
	if (rv == CKR_OK && (o->value = malloc(d->len)) == NULL)
		rv = CKR_HOST_MEMORY;
	if (rv == CKR_OK) {
		/* what is too much goes from the front, says the standard */
		memcpy(o->value, shared + n - d->len, d->len);
		o->value_len = d->len;
		o->always_sensitive = o->sensitive;
		o->never_extractable = !d->info->exportable && !o->extractable;
	}
	sodium_memzero(shared, sizeof(shared));
	OPENSSL_free(spki);
	return rv;
}

CK_RV C_DeriveKey(CK_SESSION_HANDLE h, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE base, CK_ATTRIBUTE_PTR t, CK_ULONG n,
	CK_OBJECT_HANDLE_PTR ret)
{
	struct derivation d = {.base = NULL};
	struct session *s;
	CK_RV rv = session_enter(h, &s);

	if (rv != CKR_OK)
		return rv;
	rv = CKR_ARGUMENTS_BAD;
	if (m == NULL || ret == NULL || (t == NULL && n != 0))
		goto out;
	if ((rv = read_mechanism(m, &d.p)) != CKR_OK || (rv = read_base(s, base, &d)) != CKR_OK ||
		(rv = secret_check(t, n)) != CKR_OK ||
		(rv = secret_kind(t, n, d.info->alg->field, &d.type, &d.len)) != CKR_OK)
		goto out;
	rv = CKR_HOST_MEMORY;
	d.made = object_new(s->slot, CKO_SECRET_KEY, s->handle, NULL);
	if (d.made == NULL)
		goto out;
	d.made->secret_type = d.type;
	rv = secret_fill(d.made, t, n);
	if (rv == CKR_OK)
		rv = run(&d);
	if (rv == CKR_OK) {
		/* the table takes over the reference; nobody else knows the handle yet */
		rv = object_add(object_ref(d.made));
		if (rv == CKR_OK)
			*ret = d.made->handle;
	}
out:
	object_unref(d.made);
	object_unref(d.base);
	return session_leave(s, rv);
}
