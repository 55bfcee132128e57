/* Objects that a session makes, changes and destroys. Keys of csmd are made by C_GenerateKeyPair only: none comes in. */
#include <stdlib.h>
#include <string.h>
#include <openssl/core_names.h>
#include <openssl/x509.h>
#include "libclient/p11/p11.h"

/* ---- C_CreateObject: a public key for this session's own use ---- */

static const CK_ATTRIBUTE_TYPE public_attrs[] = {CKA_CLASS, CKA_KEY_TYPE, CKA_TOKEN, CKA_PRIVATE, CKA_LABEL, CKA_ID,
	CKA_MODIFIABLE, CKA_COPYABLE, CKA_DESTROYABLE, CKA_SUBJECT, CKA_START_DATE, CKA_END_DATE, CKA_DERIVE, CKA_VERIFY,
	CKA_ENCRYPT, CKA_VERIFY_RECOVER, CKA_WRAP, CKA_TRUSTED, CKA_MODULUS, CKA_MODULUS_BITS, CKA_PUBLIC_EXPONENT,
	CKA_EC_PARAMS, CKA_EC_POINT, CKA_PUBLIC_KEY_INFO};

static CK_RV check_types(const CK_ATTRIBUTE *t, CK_ULONG n, const CK_ATTRIBUTE_TYPE *known, size_t n_known)
{
	for (CK_ULONG i = 0; i < n; i++) {
		size_t k = 0;

		while (k < n_known && known[k] != t[i].type)
			k++;
		if (k == n_known)
			return t[i].type == CKA_LOCAL || t[i].type == CKA_KEY_GEN_MECHANISM ? CKR_ATTRIBUTE_READ_ONLY :
				CKR_ATTRIBUTE_TYPE_INVALID;
	}
	return CKR_OK;
}

static CK_RV from_params(const char *type, OSSL_PARAM *params, EVP_PKEY **ret)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(p11_ossl(), type, NULL);
	CK_RV rv = CKR_ATTRIBUTE_VALUE_INVALID;

	if (ctx != NULL && EVP_PKEY_fromdata_init(ctx) == 1 &&
		EVP_PKEY_fromdata(ctx, ret, EVP_PKEY_PUBLIC_KEY, params) == 1)
		rv = CKR_OK;
	EVP_PKEY_CTX_free(ctx);
	return rv;
}

/* A number as OpenSSL's parameters have it: the machine's byte order. */
static CK_RV native(const CK_ATTRIBUTE *a, uint8_t *to, size_t room, size_t *n)
{
	BIGNUM *bn = a->ulValueLen > room ? NULL : BN_bin2bn(a->pValue, (int)a->ulValueLen, NULL);
	int len = bn == NULL ? -1 : BN_num_bytes(bn);
	bool ok = len > 0 && BN_bn2nativepad(bn, to, len) == len;

	BN_free(bn);
	*n = (size_t)len;
	return ok ? CKR_OK : CKR_ATTRIBUTE_VALUE_INVALID;
}

static CK_RV rsa_pkey(const CK_ATTRIBUTE *t, CK_ULONG count, EVP_PKEY **ret)
{
	const CK_ATTRIBUTE *modulus = template_find(t, count, CKA_MODULUS);
	const CK_ATTRIBUTE *exponent = template_find(t, count, CKA_PUBLIC_EXPONENT);
	uint8_t n[512], e[64];
	size_t n_len, e_len;
	OSSL_PARAM params[3];
	CK_RV rv;

	if (modulus == NULL || exponent == NULL)
		return CKR_TEMPLATE_INCOMPLETE;
	if ((rv = native(modulus, n, sizeof(n), &n_len)) != CKR_OK || (rv = native(exponent, e, sizeof(e), &e_len)) != CKR_OK)
		return rv;
	params[0] = OSSL_PARAM_construct_BN(OSSL_PKEY_PARAM_RSA_N, n, n_len);
	params[1] = OSSL_PARAM_construct_BN(OSSL_PKEY_PARAM_RSA_E, e, e_len);
	params[2] = OSSL_PARAM_construct_end();
	return from_params("RSA", params, ret);
}

static CK_RV ec_pkey(CK_KEY_TYPE type, const CK_ATTRIBUTE *t, CK_ULONG n, EVP_PKEY **ret)
{
	const CK_ATTRIBUTE *curve = template_find(t, n, CKA_EC_PARAMS), *point = template_find(t, n, CKA_EC_POINT);
	const struct alg *alg;
	OSSL_PARAM params[3];
	const uint8_t *p;
	const char *group;
	size_t len, want;

	if (curve == NULL || point == NULL)
		return CKR_TEMPLATE_INCOMPLETE;
	alg = alg_by_params(type, curve->pValue, curve->ulValueLen);
	if (alg == NULL)
		return CKR_CURVE_NOT_SUPPORTED;
	p = point->pValue;
	len = point->ulValueLen;
	want = type == CKK_EC ? 1 + 2 * (size_t)alg->field : alg->field;
	if (len > want && p[0] == 4) {
		p += len - want;
		len = want;
	}
	if (len != want)
		return CKR_ATTRIBUTE_VALUE_INVALID;
	group = alg->bits == 256 ? "P-256" : alg->bits == 384 ? "P-384" : "P-521";
	params[0] = OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, (void *)(uintptr_t)p, len);
	params[1] = type == CKK_EC ? OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)(uintptr_t)group, 0) :
		OSSL_PARAM_construct_end();
	params[2] = OSSL_PARAM_construct_end();
	return from_params(type == CKK_EC ? "EC" : "ED25519", params, ret);
}

static CK_RV public_key(CK_KEY_TYPE type, const CK_ATTRIBUTE *t, CK_ULONG n, struct key **ret)
{
	EVP_PKEY *pkey = NULL;
	unsigned char *spki = NULL;
	struct keyinfo *i = NULL;
	struct key *k = NULL;
	CK_RV rv;
	int len;

	if (type != CKK_RSA && type != CKK_EC && type != CKK_EC_EDWARDS)
		return CKR_ATTRIBUTE_VALUE_INVALID;
	ossl_in();
	rv = type == CKK_RSA ? rsa_pkey(t, n, &pkey) : ec_pkey(type, t, n, &pkey);
	if (rv != CKR_OK)
		goto out;
	len = i2d_PUBKEY(pkey, &spki);
	rv = len <= 0 ? CKR_HOST_MEMORY : keyinfo_new(spki, (size_t)len, &i);
	if (rv == CKR_KEY_TYPE_INCONSISTENT)
		rv = CKR_ATTRIBUTE_VALUE_INVALID;
	if (rv == CKR_OK && (k = calloc(1, sizeof(*k))) == NULL)
		rv = CKR_HOST_MEMORY;
	if (rv == CKR_OK) {
		atomic_init(&k->refs, 1);
		memcpy(k->alg, i->alg->name, strlen(i->alg->name) + 1);
		i->sign = true;
		i->decrypt = type == CKK_RSA;
		atomic_store(&k->info, i);
		i = NULL;
		*ret = k;
	}
	keyinfo_free(i);
	OPENSSL_free(spki);
out:
	EVP_PKEY_free(pkey);
	ossl_out();
	return rv;
}

static CK_RV make_public(struct session *s, const CK_ATTRIBUTE *t, CK_ULONG n, struct object **ret)
{
	CK_KEY_TYPE type = 0;
	struct key *k = NULL;
	struct object *o;
	CK_RV rv = check_types(t, n, public_attrs, N_ELEMS(public_attrs));

	if (rv == CKR_OK && template_find(t, n, CKA_KEY_TYPE) == NULL)
		rv = CKR_TEMPLATE_INCOMPLETE;
	if (rv == CKR_OK)
		rv = template_ulong(t, n, CKA_KEY_TYPE, &type);
	if (rv == CKR_OK)
		rv = public_key(type, t, n, &k);
	if (rv != CKR_OK)
		return rv;
	o = object_new(s->slot, CKO_PUBLIC_KEY, s->handle, k);
	key_unref(k);
	if (o == NULL)
		return CKR_HOST_MEMORY;
	if ((rv = template_bytes(t, n, CKA_LABEL, o->label, sizeof(o->label), &o->label_len)) != CKR_OK ||
		(rv = template_bytes(t, n, CKA_ID, o->id, sizeof(o->id), &o->id_len)) != CKR_OK) {
		object_unref(o);
		return rv;
	}
	*ret = o;
	return CKR_OK;
}

static CK_RV create(struct session *s, const CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *ret)
{
	CK_OBJECT_CLASS class = 0;
	bool token = false;
	struct object *o;
	CK_RV rv = template_check(t, n);

	if (rv == CKR_OK && template_find(t, n, CKA_CLASS) == NULL)
		rv = CKR_TEMPLATE_INCOMPLETE;
	if (rv == CKR_OK)
		rv = template_ulong(t, n, CKA_CLASS, &class);
	if (rv == CKR_OK)
		rv = template_bool(t, n, CKA_TOKEN, &token);
	if (rv == CKR_OK && token && !session_writes(s))
		rv = CKR_SESSION_READ_ONLY;
	if (rv != CKR_OK)
		return rv;
	if (class == CKO_CERTIFICATE)
		return certs_create(s->slot, t, n, ret);
	/* csm takes no key in, and keeps no object that is not one of a key of its own */
	if (class != CKO_PUBLIC_KEY || token)
		return CKR_TEMPLATE_INCONSISTENT;
	rv = make_public(s, t, n, &o);
	if (rv == CKR_OK)
		rv = object_add(object_ref(o));
	else
		return rv;
	if (rv == CKR_OK)
		*ret = o->handle;
	object_unref(o);
	return rv;
}

CK_RV C_CreateObject(CK_SESSION_HANDLE h, CK_ATTRIBUTE_PTR t, CK_ULONG n, CK_OBJECT_HANDLE_PTR ret)
{
	struct session *s;
	CK_RV rv = session_enter(h, &s);

	if (rv != CKR_OK)
		return rv;
	rv = ret == NULL || (t == NULL && n != 0) ? CKR_ARGUMENTS_BAD : create(s, t, n, ret);
	return session_leave(s, rv);
}

/* ---- changes: only of what belongs to a session ---- */

static CK_RV check_change(const struct object *o, const CK_ATTRIBUTE *a)
{
	CK_ATTRIBUTE has = {a->type, NULL, 0};
	bool v = false;
	CK_RV rv;

	/* what would change nothing is no change */
	if (attr_matches(o, a))
		return CKR_OK;
	if (a->type == CKA_LABEL || a->type == CKA_ID) {
		if (o->session == 0)
			return CKR_ACTION_PROHIBITED;
		return a->ulValueLen <= (a->type == CKA_LABEL ? sizeof(o->label) : sizeof(o->id)) ? CKR_OK :
			CKR_ATTRIBUTE_VALUE_INVALID;
	}
	if (o->class == CKO_SECRET_KEY && (a->type == CKA_SENSITIVE || a->type == CKA_EXTRACTABLE)) {
		rv = template_bool(a, 1, a->type, &v);
		if (rv != CKR_OK)
			return rv;
		/* towards more protection only */
		return v == (a->type == CKA_SENSITIVE) ? CKR_OK : CKR_ATTRIBUTE_READ_ONLY;
	}
	rv = attr_get(o, &has);
	if (rv == CKR_ATTRIBUTE_TYPE_INVALID)
		return rv;
	return o->session == 0 && a->type != CKA_CLASS && a->type != CKA_KEY_TYPE && a->type != CKA_TOKEN ?
		CKR_ACTION_PROHIBITED : CKR_ATTRIBUTE_READ_ONLY;
}

/* Under the table's lock. */
static void change(struct object *o, const CK_ATTRIBUTE *a)
{
	size_t ignored;

	if (o->session == 0)
		return;
	if (a->type == CKA_LABEL)
		ignored = template_bytes(a, 1, CKA_LABEL, o->label, sizeof(o->label), &o->label_len);
	else if (a->type == CKA_ID)
		ignored = template_bytes(a, 1, CKA_ID, o->id, sizeof(o->id), &o->id_len);
	else if (o->class == CKO_SECRET_KEY && a->type == CKA_SENSITIVE)
		ignored = template_bool(a, 1, a->type, &o->sensitive);
	else if (o->class == CKO_SECRET_KEY && a->type == CKA_EXTRACTABLE)
		ignored = template_bool(a, 1, a->type, &o->extractable);
	else
		ignored = 0;
	(void)ignored; /* checked before */
}

static CK_RV change_all(struct object *o, const CK_ATTRIBUTE *t, CK_ULONG n)
{
	CK_RV rv = template_check(t, n);

	for (CK_ULONG i = 0; i < n && rv == CKR_OK; i++)
		rv = check_change(o, &t[i]);
	if (rv != CKR_OK)
		return rv;
	lock_take(&lib.table);
	for (CK_ULONG i = 0; i < n; i++)
		change(o, &t[i]);
	lock_give(&lib.table);
	return CKR_OK;
}

CK_RV C_SetAttributeValue(CK_SESSION_HANDLE h, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_PTR t, CK_ULONG n)
{
	struct session *s;
	struct object *o;
	CK_RV rv = object_enter(h, object, t, n, &s, &o);

	if (rv != CKR_OK)
		return rv;
	if (o->session == 0 && !session_writes(s))
		rv = CKR_SESSION_READ_ONLY;
	else
		rv = change_all(o, t, n);
	return object_leave(s, o, rv);
}

/* ---- copies of a session's objects ---- */

static CK_RV copy(const struct session *s, struct object *from, struct object **ret)
{
	struct object *o = object_new(s->slot, from->class, s->handle, from->key);

	if (o == NULL)
		return CKR_HOST_MEMORY;
	if (from->value != NULL) {
		o->value = malloc(from->value_len);
		if (o->value == NULL) {
			object_unref(o);
			return CKR_HOST_MEMORY;
		}
		memcpy(o->value, from->value, from->value_len);
		o->value_len = from->value_len;
	}
	lock_take(&lib.table);
	o->secret_type = from->secret_type;
	o->local = from->local;
	o->sensitive = from->sensitive;
	o->extractable = from->extractable;
	o->always_sensitive = from->always_sensitive;
	o->never_extractable = from->never_extractable;
	memcpy(o->label, from->label, from->label_len);
	o->label_len = from->label_len;
	memcpy(o->id, from->id, from->id_len);
	o->id_len = from->id_len;
	lock_give(&lib.table);
	*ret = o;
	return CKR_OK;
}

static CK_RV copy_changed(struct session *s, struct object *from, const CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *ret)
{
	struct object *o;
	bool token = false;
	CK_RV rv = template_check(t, n);

	if (rv == CKR_OK)
		rv = template_bool(t, n, CKA_TOKEN, &token);
	if (rv == CKR_OK && token && !session_writes(s))
		rv = CKR_SESSION_READ_ONLY;
	if (rv == CKR_OK && from->session == 0)
		rv = CKR_ACTION_PROHIBITED;
	if (rv == CKR_OK && token)
		rv = CKR_TEMPLATE_INCONSISTENT;
	if (rv == CKR_OK)
		rv = copy(s, from, &o);
	if (rv != CKR_OK)
		return rv;
	rv = change_all(o, t, n);
	if (rv == CKR_OK)
		rv = object_add(object_ref(o));
	if (rv == CKR_OK)
		*ret = o->handle;
	object_unref(o);
	return rv;
}

CK_RV C_CopyObject(CK_SESSION_HANDLE h, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_PTR t, CK_ULONG n,
	CK_OBJECT_HANDLE_PTR ret)
{
	struct session *s;
	struct object *o;
	CK_RV rv = session_enter(h, &s);

	if (rv != CKR_OK)
		return rv;
	if (ret == NULL || (t == NULL && n != 0))
		return session_leave(s, CKR_ARGUMENTS_BAD);
	o = object_get(s, object);
	rv = o == NULL ? CKR_OBJECT_HANDLE_INVALID : copy_changed(s, o, t, n, ret);
	return object_leave(s, o, rv);
}

/* ---- C_DestroyObject ---- */

static CK_RV destroy_key(const struct session *s, struct key *k)
{
	struct csm_request *req = NULL;
	const struct keyinfo *i;
	CK_RV rv = key_load(k, &i);
	int r;

	if (rv != CKR_OK)
		return rv;
	r = key_request("key.delete", k, i, &req);
	r = key_send(r, req, k, NULL);
	if (r == 0 || r == CSM_ENOT_FOUND)
		token_remove(s->slot, k);
	return r == CSM_ECONFLICT ? CKR_OBJECT_HANDLE_INVALID : p11_rv(r, CKR_ACTION_PROHIBITED);
}

static CK_RV destroy(struct session *s, struct object *o)
{
	if (o->session != 0) {
		lock_take(&lib.table);
		object_drop_locked(o->handle);
		lock_give(&lib.table);
		return CKR_OK;
	}
	if (!session_writes(s))
		return CKR_SESSION_READ_ONLY;
	if (o->class == CKO_CERTIFICATE)
		return certs_destroy(o);
	/* a public key goes with its private key */
	if (o->class != CKO_PRIVATE_KEY)
		return CKR_ACTION_PROHIBITED;
	return destroy_key(s, o->key);
}

CK_RV C_DestroyObject(CK_SESSION_HANDLE h, CK_OBJECT_HANDLE object)
{
	struct session *s;
	struct object *o;
	CK_RV rv = object_enter(h, object, NULL, 0, &s, &o);

	return rv != CKR_OK ? rv : object_leave(s, o, destroy(s, o));
}
