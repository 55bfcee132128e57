/* C_GenerateKeyPair makes a key in csmd; its name is the label. */
#include <stdio.h>
#include <string.h>
#include <sodium.h>
#include "libclient/base/name.h"
#include "libclient/p11/p11.h"

struct templ {
	const CK_ATTRIBUTE *t;
	CK_ULONG n;
};
struct order {
	const struct alg *alg;
	char name[P11_NAME_MAX + 1];
	uint8_t id[P11_ID_MAX];
	size_t name_len, id_len;
	bool sign, decrypt, derive, exportable;
	bool token; /* else the session's: name is its label, and may be empty */
};

/* Attributes that a template may have. What csm cannot do otherwise has its value here. */
enum rule { ANY, YES, NO, OWN };
static const struct attr_row {
	CK_ATTRIBUTE_TYPE type;
	enum rule public, private;
} rows[] = {
	{CKA_CLASS, OWN, OWN}, {CKA_KEY_TYPE, OWN, OWN}, {CKA_TOKEN, OWN, OWN}, {CKA_LABEL, OWN, OWN},
	{CKA_ID, OWN, OWN}, {CKA_PRIVATE, ANY, ANY}, {CKA_MODIFIABLE, ANY, ANY}, {CKA_COPYABLE, ANY, ANY},
	{CKA_DESTROYABLE, ANY, YES}, {CKA_SUBJECT, OWN, OWN}, {CKA_START_DATE, OWN, OWN}, {CKA_END_DATE, OWN, OWN},
	{CKA_DERIVE, ANY, OWN},
	/* the public key */
	{CKA_VERIFY, ANY, 0}, {CKA_ENCRYPT, ANY, 0}, {CKA_VERIFY_RECOVER, NO, 0}, {CKA_WRAP, ANY, 0}, {CKA_TRUSTED, NO, 0},
	{CKA_MODULUS_BITS, OWN, 0}, {CKA_PUBLIC_EXPONENT, OWN, 0}, {CKA_EC_PARAMS, OWN, OWN},
	/* the private key */
	{CKA_SIGN, 0, OWN}, {CKA_DECRYPT, 0, OWN}, {CKA_EXTRACTABLE, 0, OWN}, {CKA_SENSITIVE, 0, YES},
	{CKA_SIGN_RECOVER, 0, NO}, {CKA_UNWRAP, 0, NO}, {CKA_WRAP_WITH_TRUSTED, 0, ANY}, {CKA_ALWAYS_AUTHENTICATE, 0, NO},
};
/* Attributes that the token alone sets. */
static const CK_ATTRIBUTE_TYPE read_only[] = {CKA_LOCAL, CKA_KEY_GEN_MECHANISM, CKA_ALWAYS_SENSITIVE,
	CKA_NEVER_EXTRACTABLE, CKA_UNIQUE_ID, CKA_MODULUS, CKA_EC_POINT, CKA_VALUE, CKA_PRIVATE_EXPONENT, CKA_PRIME_1,
	CKA_PRIME_2, CKA_EXPONENT_1, CKA_EXPONENT_2, CKA_COEFFICIENT, CKA_PUBLIC_KEY_INFO};

static const struct attr_row *row_of(CK_ATTRIBUTE_TYPE type)
{
	for (size_t i = 0; i < N_ELEMS(rows); i++)
		if (rows[i].type == type)
			return &rows[i];
	return NULL;
}

static bool is_read_only(CK_ATTRIBUTE_TYPE type)
{
	for (size_t i = 0; i < N_ELEMS(read_only); i++)
		if (read_only[i] == type)
			return true;
	return false;
}

static bool for_other_half(const struct attr_row *row, bool private)
{
	CK_ATTRIBUTE_TYPE t = row->type;

	if (private)
		return t == CKA_VERIFY || t == CKA_ENCRYPT || t == CKA_VERIFY_RECOVER || t == CKA_WRAP || t == CKA_TRUSTED ||
		       t == CKA_MODULUS_BITS;
	return t == CKA_SIGN || t == CKA_DECRYPT || t == CKA_EXTRACTABLE || t == CKA_SENSITIVE || t == CKA_SIGN_RECOVER ||
	       t == CKA_UNWRAP || t == CKA_WRAP_WITH_TRUSTED || t == CKA_ALWAYS_AUTHENTICATE;
}

static CK_RV check_one(const CK_ATTRIBUTE *a, bool private)
{
	const struct attr_row *row = row_of(a->type);
	enum rule rule;
	bool v = false;
	CK_RV rv;

	if (row == NULL)
		return is_read_only(a->type) ? CKR_ATTRIBUTE_READ_ONLY : CKR_ATTRIBUTE_TYPE_INVALID;
	if (for_other_half(row, private))
		return CKR_ATTRIBUTE_TYPE_INVALID;
	rule = private ? row->private : row->public;
	if (rule == OWN)
		return CKR_OK;
	rv = template_bool(a, 1, a->type, &v);
	if (rv != CKR_OK)
		return rv;
	return (rule == YES && !v) || (rule == NO && v) ? CKR_TEMPLATE_INCONSISTENT : CKR_OK;
}

static CK_RV check_all(struct templ t, bool private)
{
	CK_RV rv = template_check(t.t, t.n);

	for (CK_ULONG i = 0; i < t.n && rv == CKR_OK; i++) {
		rv = check_one(&t.t[i], private);
		for (CK_ULONG k = 0; k < i && rv == CKR_OK; k++)
			if (t.t[k].type == t.t[i].type)
				rv = CKR_TEMPLATE_INCONSISTENT;
	}
	return rv;
}

static CK_RV check_number(struct templ t, CK_ATTRIBUTE_TYPE type, CK_ULONG wanted)
{
	CK_ULONG v = wanted;
	CK_RV rv = template_ulong(t.t, t.n, type, &v);

	if (rv != CKR_OK)
		return rv;
	return v == wanted ? CKR_OK : CKR_TEMPLATE_INCONSISTENT;
}

static CK_RV read_alg(const struct mech *mech, struct templ pub, struct order *o)
{
	const CK_ATTRIBUTE *params = template_find(pub.t, pub.n, CKA_EC_PARAMS);
	const CK_ATTRIBUTE *e = template_find(pub.t, pub.n, CKA_PUBLIC_EXPONENT);
	static const uint8_t f4[] = {1, 0, 1};
	CK_ULONG bits = 0;
	CK_RV rv;

	if (mech->key_type != CKK_RSA) {
		if (template_find(pub.t, pub.n, CKA_MODULUS_BITS) != NULL || e != NULL)
			return CKR_TEMPLATE_INCONSISTENT;
		if (params == NULL)
			return CKR_TEMPLATE_INCOMPLETE;
		o->alg = alg_by_params(mech->key_type, params->pValue, params->ulValueLen);
		return o->alg != NULL ? CKR_OK : CKR_CURVE_NOT_SUPPORTED;
	}
	if (params != NULL)
		return CKR_TEMPLATE_INCONSISTENT;
	if (template_find(pub.t, pub.n, CKA_MODULUS_BITS) == NULL)
		return CKR_TEMPLATE_INCOMPLETE;
	rv = template_ulong(pub.t, pub.n, CKA_MODULUS_BITS, &bits);
	if (rv != CKR_OK)
		return rv;
	if (e != NULL) {
		const uint8_t *p = e->pValue;
		size_t n = e->ulValueLen;

		for (; n > 0 && *p == 0; p++)
			n--;
		if (n != sizeof(f4) || memcmp(p, f4, n) != 0)
			return CKR_ATTRIBUTE_VALUE_INVALID;
	}
	o->alg = alg_by_bits(bits);
	return o->alg != NULL ? CKR_OK : bits < 2048 || bits > 4096 ? CKR_KEY_SIZE_RANGE : CKR_ATTRIBUTE_VALUE_INVALID;
}

/* Uses that are asked for; without any, what the algorithm's keys are for, without what is refused. */
static CK_RV read_use(struct templ priv, struct order *o)
{
	bool sign = false, decrypt = false, derive = false;
	bool may_sign = true, may_decrypt = o->alg->type == CKK_RSA;
	CK_RV rv = template_bool(priv.t, priv.n, CKA_SIGN, &sign);

	if (rv == CKR_OK)
		rv = template_bool(priv.t, priv.n, CKA_DECRYPT, &decrypt);
	if (rv == CKR_OK)
		rv = template_bool(priv.t, priv.n, CKA_DERIVE, &derive);
	if (rv == CKR_OK)
		rv = template_bool(priv.t, priv.n, CKA_EXTRACTABLE, &o->exportable);
	if (rv != CKR_OK)
		return rv;
	if ((decrypt && o->alg->type != CKK_RSA) || (derive && o->alg->type != CKK_EC))
		return CKR_TEMPLATE_INCONSISTENT;
	if (!sign && !decrypt && !derive) {
		sign = may_sign && template_find(priv.t, priv.n, CKA_SIGN) == NULL;
		decrypt = may_decrypt && template_find(priv.t, priv.n, CKA_DECRYPT) == NULL;
	}
	o->sign = sign;
	o->decrypt = decrypt;
	o->derive = derive;
	return sign || decrypt || derive ? CKR_OK : CKR_TEMPLATE_INCONSISTENT;
}

static CK_RV read_id(struct templ pub, struct templ priv, struct order *o)
{
	uint8_t other[P11_ID_MAX];
	size_t other_len = 0;
	CK_RV rv = template_bytes(priv.t, priv.n, CKA_ID, o->id, sizeof(o->id), &o->id_len);

	if (rv == CKR_OK)
		rv = template_bytes(pub.t, pub.n, CKA_ID, other, sizeof(other), &other_len);
	if (rv != CKR_OK || other_len == 0)
		return rv;
	if (o->id_len == 0) {
		memcpy(o->id, other, other_len);
		o->id_len = other_len;
	}
	return o->id_len == other_len && memcmp(o->id, other, other_len) == 0 ? CKR_OK : CKR_TEMPLATE_INCONSISTENT;
}

/* The label; a token's key that has none gets a name from the identifier, or from chance. */
static CK_RV read_name(struct templ pub, struct templ priv, struct order *o)
{
	char hex[P11_NAME_MAX - 3];
	uint8_t chance[8];
	size_t n = 0;
	CK_RV rv = template_bytes(pub.t, pub.n, CKA_LABEL, (uint8_t *)o->name, P11_NAME_MAX, &n);

	if (rv == CKR_OK)
		rv = template_bytes(priv.t, priv.n, CKA_LABEL, (uint8_t *)o->name, P11_NAME_MAX, &n);
	if (rv != CKR_OK)
		return rv;
	o->name[n] = '\0';
	o->name_len = n;
	if (!o->token)
		return CKR_OK;
	if (n > 0)
		return csm_name_valid((struct csm_str){o->name, n}) ? CKR_OK : CKR_ATTRIBUTE_VALUE_INVALID;
	randombytes_buf(chance, sizeof(chance));
	if (o->id_len > 0 && 2 * o->id_len < sizeof(hex))
		(void)sodium_bin2hex(hex, sizeof(hex), o->id, o->id_len);
	else
		(void)sodium_bin2hex(hex, sizeof(hex), chance, sizeof(chance));
	(void)snprintf(o->name, sizeof(o->name), "key-%s", hex);
	return CKR_OK;
}

/* Both halves of the token, or of the session. There nothing can be taken out. */
static CK_RV read_token(struct templ pub, struct templ priv, struct order *o)
{
	bool public;
	CK_RV rv = template_bool(priv.t, priv.n, CKA_TOKEN, &o->token);

	public = o->token;
	if (rv == CKR_OK)
		rv = template_bool(pub.t, pub.n, CKA_TOKEN, &public);
	if (rv != CKR_OK)
		return rv;
	return public == o->token && (o->token || !o->exportable) ? CKR_OK : CKR_TEMPLATE_INCONSISTENT;
}

static CK_RV read_templates(const struct mech *mech, struct templ pub, struct templ priv, struct order *o)
{
	CK_RV rv;

	if ((rv = check_all(pub, false)) != CKR_OK || (rv = check_all(priv, true)) != CKR_OK ||
		(rv = check_number(pub, CKA_CLASS, CKO_PUBLIC_KEY)) != CKR_OK ||
		(rv = check_number(priv, CKA_CLASS, CKO_PRIVATE_KEY)) != CKR_OK ||
		(rv = check_number(pub, CKA_KEY_TYPE, mech->key_type)) != CKR_OK ||
		(rv = check_number(priv, CKA_KEY_TYPE, mech->key_type)) != CKR_OK ||
		(rv = read_alg(mech, pub, o)) != CKR_OK || (rv = read_use(priv, o)) != CKR_OK ||
		(rv = read_id(pub, priv, o)) != CKR_OK || (rv = read_token(pub, priv, o)) != CKR_OK)
		return rv;
	return read_name(pub, priv, o);
}

static int create(struct csm *csm, const char *ns, const struct order *o, struct csm_reply **ret)
{
	char ref[P11_REF_MAX + 1];
	struct csm_request *req = NULL;
	int r = csm_request_new("key.create", &req);

	(void)snprintf(ref, sizeof(ref), "%s:%s", ns, o->token ? o->name : P11_OWN_NAME);
	if (r == 0)
		r = csm_request_str(req, "key", ref);
	if (r == 0)
		r = csm_request_str(req, "alg", o->alg->name);
	if (r == 0 && o->sign)
		r = csm_request_add_str(req, "use", "sign");
	if (r == 0 && o->decrypt)
		r = csm_request_add_str(req, "use", "decrypt");
	if (r == 0 && o->derive)
		r = csm_request_add_str(req, "use", "derive");
	if (r == 0 && o->token && o->id_len > 0)
		r = csm_request_bin(req, "tag", o->id, o->id_len);
	if (r == 0 && o->exportable)
		r = csm_request_bool(req, "exportable", true);
	if (r == 0 && !o->token)
		r = csm_request_bool(req, "session", true);
	return p11_send_by(csm, r, req, ret);
}

static CK_RV create_rv(int r)
{
	switch (r) {
	case CSM_EEXISTS: /* names are unique */
		return CKR_ATTRIBUTE_VALUE_INVALID;
	case CSM_EUNSUPPORTED:
		return CKR_TEMPLATE_INCONSISTENT;
	default:
		return p11_rv(r, CKR_TOKEN_WRITE_PROTECTED);
	}
}

static CK_RV session_object(const struct session *s, CK_OBJECT_CLASS class, struct key *k, const struct order *o,
	CK_OBJECT_HANDLE *ret)
{
	const struct keyinfo *i = atomic_load(&k->info);
	struct object *obj = object_new(s->slot, class, s->handle, k);
	CK_RV rv;

	if (obj == NULL)
		return CKR_HOST_MEMORY;
	obj->local = true;
	memcpy(obj->label, o->name, o->name_len);
	obj->label_len = o->name_len;
	obj->id_len = o->id_len > 0 ? o->id_len : sizeof(i->id);
	memcpy(obj->id, o->id_len > 0 ? o->id : i->id, obj->id_len);
	rv = object_add(object_ref(obj));
	if (rv == CKR_OK)
		*ret = obj->handle;
	object_unref(obj);
	return rv;
}

static CK_RV session_objects(const struct session *s, const struct order *o, struct key *private, struct key *public,
	CK_OBJECT_HANDLE *pub_ret, CK_OBJECT_HANDLE *priv_ret)
{
	CK_OBJECT_HANDLE a, b;
	CK_RV rv = session_object(s, CKO_PRIVATE_KEY, private, o, &a);

	if (rv != CKR_OK)
		return rv;
	rv = session_object(s, CKO_PUBLIC_KEY, public, o, &b);
	if (rv != CKR_OK) {
		lock_take(&lib.table);
		object_drop_locked(a);
		lock_give(&lib.table);
		return rv;
	}
	*priv_ret = a;
	*pub_ret = b;
	return CKR_OK;
}

/* A key of csmd's that lives as long as the connection that made it: each has one of its own. */
static CK_RV generate_own(const struct session *s, const struct order *o, CK_OBJECT_HANDLE *pub_ret,
	CK_OBJECT_HANDLE *priv_ret)
{
	struct key *private, *public;
	struct csm_reply *reply;
	struct csm *own;
	CK_RV rv;
	int r;

	if (csm_new(&own) != 0)
		return CKR_HOST_MEMORY;
	csm_set_connections(own, 1);
	r = create(own, slots[s->slot]->ns, o, &reply);
	rv = r == CSM_EBUSY ? CKR_DEVICE_MEMORY : r != 0 ? create_rv(r) : CKR_OK;
	if (rv == CKR_OK) {
		rv = key_of_session(s->slot, own, csm_reply_view(reply), &private, &public);
		csm_reply_free(reply);
	}
	if (rv != CKR_OK) {
		csm_free(own);
		return rv;
	}
	rv = session_objects(s, o, private, public, pub_ret, priv_ret);
	key_unref(private);
	key_unref(public);
	return rv;
}

static CK_RV generate(struct session *s, const CK_MECHANISM *m, struct templ pub, struct templ priv,
	CK_OBJECT_HANDLE *pub_ret, CK_OBJECT_HANDLE *priv_ret)
{
	const struct mech *mech = mech_by_type(m->mechanism);
	struct order o = {.alg = NULL};
	struct csm_reply *reply;
	CK_RV rv;
	int r;

	if (mech == NULL || mech->kind != MECH_GENERATE)
		return CKR_MECHANISM_INVALID;
	if (m->ulParameterLen != 0)
		return CKR_MECHANISM_PARAM_INVALID;
	rv = read_templates(mech, pub, priv, &o);
	if (rv == CKR_OK && !o.token)
		return generate_own(s, &o, pub_ret, priv_ret);
	if (rv == CKR_OK && !session_writes(s))
		rv = CKR_SESSION_READ_ONLY;
	if (rv != CKR_OK)
		return rv;
	r = create(lib.csm, slots[s->slot]->ns, &o, &reply);
	if (r != 0)
		return create_rv(r);
	rv = token_take(s->slot, csm_reply_view(reply), priv_ret, pub_ret);
	csm_reply_free(reply);
	return rv;
}

CK_RV C_GenerateKeyPair(CK_SESSION_HANDLE h, CK_MECHANISM_PTR m, CK_ATTRIBUTE_PTR pub, CK_ULONG pub_n,
	CK_ATTRIBUTE_PTR priv, CK_ULONG priv_n, CK_OBJECT_HANDLE_PTR pub_ret, CK_OBJECT_HANDLE_PTR priv_ret)
{
	struct session *s;
	CK_RV rv = session_enter(h, &s);

	if (rv != CKR_OK)
		return rv;
	if (m == NULL || pub_ret == NULL || priv_ret == NULL || (pub == NULL && pub_n != 0) ||
		(priv == NULL && priv_n != 0))
		return session_leave(s, CKR_ARGUMENTS_BAD);
	rv = generate(s, m, (struct templ){pub, pub_n}, (struct templ){priv, priv_n}, pub_ret, priv_ret);
	return session_leave(s, rv);
}
