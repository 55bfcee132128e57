/* The attributes of objects: what is true of the key where it lies. */
#include <stdio.h>
#include <string.h>
#include <openssl/core_names.h>
#include <openssl/x509.h>
#include "libclient/p11/p11.h"

/* A value: in buf, in the object, or its own memory. */
struct val {
	const void *p;
	size_t n;
	uint8_t buf[640];
	unsigned char *own;
};

static CK_RV give_bool(struct val *v, bool b)
{
	v->buf[0] = b ? CK_TRUE : CK_FALSE;
	v->p = v->buf;
	v->n = sizeof(CK_BBOOL);
	return CKR_OK;
}

static CK_RV give_ulong(struct val *v, CK_ULONG n)
{
	memcpy(v->buf, &n, sizeof(n));
	v->p = v->buf;
	v->n = sizeof(n);
	return CKR_OK;
}

static CK_RV give(struct val *v, const void *p, size_t n)
{
	v->p = p;
	v->n = n;
	return CKR_OK;
}

static CK_RV give_copy(struct val *v, const void *p, size_t n)
{
	if (n > sizeof(v->buf))
		return CKR_FUNCTION_FAILED;
	memcpy(v->buf, p, n);
	return give(v, v->buf, n);
}

static CK_RV give_der(struct val *v, int n)
{
	return n < 0 ? CKR_HOST_MEMORY : give(v, v->own, (size_t)n);
}

/* ---- public keys ---- */

static CK_RV give_number(struct val *v, const EVP_PKEY *pkey, const char *name)
{
	BIGNUM *bn = NULL;
	CK_RV rv = CKR_FUNCTION_FAILED;
	int n;

	if (EVP_PKEY_get_bn_param(pkey, name, &bn) != 1)
		return rv;
	n = BN_num_bytes(bn);
	if ((size_t)n <= sizeof(v->buf) && BN_bn2bin(bn, v->buf) == n)
		rv = give(v, v->buf, (size_t)n);
	BN_free(bn);
	return rv;
}

/* The point, as an OCTET STRING: it is the end of the SubjectPublicKeyInfo. */
static CK_RV give_point(struct val *v, const struct keyinfo *i)
{
	size_t n = i->alg->type == CKK_EC ? 1 + 2 * (size_t)i->alg->field : i->alg->field, head = n > 127 ? 3 : 2;

	if (n > i->spki_len || head + n > sizeof(v->buf))
		return CKR_FUNCTION_FAILED;
	v->buf[0] = 4;
	v->buf[1] = 0x81;
	v->buf[head - 1] = (uint8_t)n;
	memcpy(v->buf + head, i->spki + i->spki_len - n, n);
	return give(v, v->buf, head + n);
}

static CK_RV public_part(const struct keyinfo *i, CK_ATTRIBUTE_TYPE type, struct val *v)
{
	bool rsa = i->alg->type == CKK_RSA;

	switch (type) {
	case CKA_PUBLIC_KEY_INFO:
		return give(v, i->spki, i->spki_len);
	case CKA_MODULUS:
		return rsa ? give_number(v, i->pkey, OSSL_PKEY_PARAM_RSA_N) : CKR_ATTRIBUTE_TYPE_INVALID;
	case CKA_PUBLIC_EXPONENT:
		return rsa ? give_number(v, i->pkey, OSSL_PKEY_PARAM_RSA_E) : CKR_ATTRIBUTE_TYPE_INVALID;
	case CKA_EC_PARAMS:
		return rsa ? CKR_ATTRIBUTE_TYPE_INVALID : give(v, i->alg->params, i->alg->params_len);
	default:
		return CKR_ATTRIBUTE_TYPE_INVALID;
	}
}

/* ---- by class ---- */

static CK_RV label_or_id(const struct object *o, CK_ATTRIBUTE_TYPE type, struct val *v)
{
	const struct keyinfo *i;
	CK_RV rv;

	if (o->session != 0) {
		lock_take(&lib.table);
		rv = type == CKA_LABEL ? give_copy(v, o->label, o->label_len) : give_copy(v, o->id, o->id_len);
		lock_give(&lib.table);
		return rv;
	}
	if (type == CKA_LABEL && o->chain > 0)
		return give(v, v->buf, (size_t)snprintf((char *)v->buf, sizeof(v->buf), "%s (issuer %zu)", o->key->name, o->chain));
	if (type == CKA_LABEL)
		return give(v, o->key->name, strlen(o->key->name));
	if (o->id_len > 0)
		return give(v, o->id, o->id_len);
	lock_take(&lib.table);
	rv = o->key->own_id_len > 0 ? give_copy(v, o->key->own_id, o->key->own_id_len) : CKR_ATTRIBUTE_TYPE_INVALID;
	lock_give(&lib.table);
	if (rv == CKR_OK)
		return rv;
	rv = key_load(o->key, &i);
	return rv == CKR_OK ? give(v, i->id, sizeof(i->id)) : rv;
}

static CK_RV common(const struct object *o, CK_ATTRIBUTE_TYPE type, struct val *v)
{
	switch (type) {
	case CKA_CLASS:
		return give_ulong(v, o->class);
	case CKA_TOKEN:
		return give_bool(v, o->session == 0);
	case CKA_PRIVATE:
		return give_bool(v, o->class == CKO_PRIVATE_KEY);
	case CKA_MODIFIABLE:
	case CKA_COPYABLE:
		return give_bool(v, o->session != 0);
	case CKA_DESTROYABLE:
		return give_bool(v, o->session != 0 || o->class == CKO_PRIVATE_KEY ||
						   (o->class == CKO_CERTIFICATE && o->chain == 0));
	case CKA_LABEL:
	case CKA_ID:
		return label_or_id(o, type, v);
	case CKA_UNIQUE_ID:
		return give_copy(v, &o->handle, sizeof(o->handle));
	case CKA_START_DATE:
	case CKA_END_DATE:
		return give(v, "", 0);
	default:
		return CKR_ATTRIBUTE_TYPE_INVALID;
	}
}

static CK_RV of_key(const struct object *o, CK_ATTRIBUTE_TYPE type, struct val *v)
{
	switch (type) {
	case CKA_KEY_TYPE:
		if (o->class == CKO_SECRET_KEY)
			return give_ulong(v, o->secret_type);
		/* known from a listing, without a question for each key */
		if (o->key->alg[0] != '\0' && alg_by_name(o->key->alg) != NULL)
			return give_ulong(v, alg_by_name(o->key->alg)->type);
		return CKR_ATTRIBUTE_TYPE_INVALID;
	case CKA_LOCAL:
		return give_bool(v, o->local);
	case CKA_KEY_GEN_MECHANISM:
		if (o->class == CKO_SECRET_KEY || !o->local || alg_by_name(o->key->alg) == NULL)
			return give_ulong(v, CK_UNAVAILABLE_INFORMATION);
		return give_ulong(v, alg_by_name(o->key->alg)->gen);
	default:
		return CKR_ATTRIBUTE_TYPE_INVALID;
	}
}

static CK_RV of_private(const struct keyinfo *i, CK_ATTRIBUTE_TYPE type, struct val *v)
{
	switch (type) {
	case CKA_SIGN:
		return give_bool(v, i->sign);
	case CKA_DECRYPT:
		return give_bool(v, i->decrypt);
	case CKA_DERIVE:
		return give_bool(v, i->derive);
	case CKA_SIGN_RECOVER:
	case CKA_UNWRAP:
	case CKA_WRAP_WITH_TRUSTED:
	case CKA_ALWAYS_AUTHENTICATE:
		return give_bool(v, false);
	case CKA_SENSITIVE:
	case CKA_ALWAYS_SENSITIVE:
		return give_bool(v, true);
	case CKA_EXTRACTABLE:
		return give_bool(v, i->exportable);
	case CKA_NEVER_EXTRACTABLE:
		return give_bool(v, !i->exportable);
	case CKA_SUBJECT:
		return give(v, "", 0);
	case CKA_VALUE:
		return i->alg->type == CKK_RSA ? CKR_ATTRIBUTE_TYPE_INVALID : CKR_ATTRIBUTE_SENSITIVE;
	case CKA_PRIVATE_EXPONENT:
	case CKA_PRIME_1:
	case CKA_PRIME_2:
	case CKA_EXPONENT_1:
	case CKA_EXPONENT_2:
	case CKA_COEFFICIENT:
		return i->alg->type == CKK_RSA ? CKR_ATTRIBUTE_SENSITIVE : CKR_ATTRIBUTE_TYPE_INVALID;
	default:
		return public_part(i, type, v);
	}
}

static CK_RV of_public(const struct keyinfo *i, CK_ATTRIBUTE_TYPE type, struct val *v)
{
	switch (type) {
	case CKA_VERIFY:
		return give_bool(v, i->sign);
	case CKA_ENCRYPT:
		return give_bool(v, i->decrypt);
	case CKA_DERIVE:
		return give_bool(v, i->derive);
	case CKA_VERIFY_RECOVER:
	case CKA_WRAP:
	case CKA_TRUSTED:
		return give_bool(v, false);
	case CKA_SUBJECT:
		return give(v, "", 0);
	case CKA_MODULUS_BITS:
		return i->alg->type == CKK_RSA ? give_ulong(v, i->alg->bits) : CKR_ATTRIBUTE_TYPE_INVALID;
	case CKA_EC_POINT:
		return i->alg->type == CKK_RSA ? CKR_ATTRIBUTE_TYPE_INVALID : give_point(v, i);
	default:
		return public_part(i, type, v);
	}
}

static CK_RV of_secret(const struct object *o, CK_ATTRIBUTE_TYPE type, struct val *v)
{
	switch (type) {
	case CKA_VALUE:
		return o->sensitive || !o->extractable ? CKR_ATTRIBUTE_SENSITIVE : give(v, o->value, o->value_len);
	case CKA_VALUE_LEN:
		return give_ulong(v, o->value_len);
	case CKA_SENSITIVE:
		return give_bool(v, o->sensitive);
	case CKA_EXTRACTABLE:
		return give_bool(v, o->extractable);
	case CKA_ALWAYS_SENSITIVE:
		return give_bool(v, o->always_sensitive);
	case CKA_NEVER_EXTRACTABLE:
		return give_bool(v, o->never_extractable);
	case CKA_ENCRYPT:
	case CKA_DECRYPT:
	case CKA_SIGN:
	case CKA_VERIFY:
	case CKA_WRAP:
	case CKA_UNWRAP:
	case CKA_DERIVE:
	case CKA_WRAP_WITH_TRUSTED:
	case CKA_TRUSTED:
		return give_bool(v, false);
	default:
		return CKR_ATTRIBUTE_TYPE_INVALID;
	}
}

static CK_RV of_x509(const struct object *o, X509 *x, CK_ATTRIBUTE_TYPE type, struct val *v)
{
	switch (type) {
	case CKA_SUBJECT:
		return give_der(v, i2d_X509_NAME(X509_get_subject_name(x), &v->own));
	case CKA_ISSUER:
		return give_der(v, i2d_X509_NAME(X509_get_issuer_name(x), &v->own));
	case CKA_SERIAL_NUMBER:
		return give_der(v, i2d_ASN1_INTEGER(X509_get_serialNumber(x), &v->own));
	case CKA_PUBLIC_KEY_INFO:
		return give_der(v, i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &v->own));
	case CKA_CERTIFICATE_CATEGORY:
		return give_ulong(v, o->chain == 0 ? 1 : 2); /* token user, authority */
	default:
		return CKR_ATTRIBUTE_TYPE_INVALID;
	}
}

static CK_RV of_certificate(const struct object *o, CK_ATTRIBUTE_TYPE type, struct val *v)
{
	const unsigned char *p = o->value;
	X509 *x;
	CK_RV rv;

	switch (type) {
	case CKA_VALUE:
		return give(v, o->value, o->value_len);
	case CKA_CERTIFICATE_TYPE:
		return give_ulong(v, CKC_X_509);
	case CKA_TRUSTED:
		return give_bool(v, false);
	case CKA_URL:
	case CKA_HASH_OF_SUBJECT_PUBLIC_KEY:
	case CKA_HASH_OF_ISSUER_PUBLIC_KEY:
		return give(v, "", 0);
	default:
		break;
	}
	ossl_in();
	x = keyinfo_x509(&p, o->value_len);
	rv = x == NULL ? CKR_FUNCTION_FAILED : of_x509(o, x, type, v);
	X509_free(x);
	ossl_out();
	return rv;
}

static bool of_any_key(CK_ATTRIBUTE_TYPE type)
{
	return type == CKA_KEY_TYPE || type == CKA_LOCAL || type == CKA_KEY_GEN_MECHANISM;
}

static CK_RV value_of(const struct object *o, CK_ATTRIBUTE_TYPE type, struct val *v)
{
	const struct keyinfo *i;
	CK_RV rv = common(o, type, v);

	if (rv != CKR_ATTRIBUTE_TYPE_INVALID)
		return rv;
	if (o->class == CKO_CERTIFICATE)
		return of_certificate(o, type, v);
	if (of_any_key(type))
		return of_key(o, type, v);
	if (o->class == CKO_SECRET_KEY) {
		lock_take(&lib.table);
		rv = of_secret(o, type, v);
		lock_give(&lib.table);
		return rv;
	}
	rv = key_load(o->key, &i);
	if (rv != CKR_OK)
		return rv;
	return o->class == CKO_PRIVATE_KEY ? of_private(i, type, v) : of_public(i, type, v);
}

CK_RV attr_get(const struct object *o, CK_ATTRIBUTE *a)
{
	struct val v = {.own = NULL};
	CK_RV rv = value_of(o, a->type, &v);

	if (rv != CKR_OK) {
		a->ulValueLen = CK_UNAVAILABLE_INFORMATION;
	} else if (a->pValue == NULL) {
		a->ulValueLen = v.n;
	} else if (a->ulValueLen < v.n) {
		a->ulValueLen = CK_UNAVAILABLE_INFORMATION;
		rv = CKR_BUFFER_TOO_SMALL;
	} else {
		if (v.n > 0)
			memcpy(a->pValue, v.p, v.n);
		a->ulValueLen = v.n;
	}
	OPENSSL_free(v.own);
	return rv;
}

bool attr_matches(const struct object *o, const CK_ATTRIBUTE *a)
{
	struct val v = {.own = NULL};
	bool same = value_of(o, a->type, &v) == CKR_OK && v.n == a->ulValueLen &&
	            (v.n == 0 || memcmp(v.p, a->pValue, v.n) == 0);

	OPENSSL_free(v.own);
	return same;
}
