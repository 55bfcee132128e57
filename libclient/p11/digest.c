/* C_Digest, by OpenSSL. */
#include <string.h>
#include "libclient/p11/p11.h"

CK_RV C_DigestInit(CK_SESSION_HANDLE h, CK_MECHANISM_PTR m)
{
	struct session *s;
	bool ended;
	CK_RV rv = session_enter(h, &s);

	if (rv != CKR_OK)
		return rv;
	rv = op_begin(s, OP_DIGEST, m, &ended);
	if (rv != CKR_OK || ended)
		return session_leave(s, rv);
	s->op.kind = OP_DIGEST;
	s->op.mech = mech_by_type(m->mechanism);
	if (s->op.mech == NULL || s->op.mech->kind != MECH_DIGEST)
		rv = CKR_MECHANISM_INVALID;
	else
		rv = op_param(&s->op, m);
	if (rv != CKR_OK)
		op_end(&s->op);
	return session_leave(s, rv);
}

static size_t digest_len(const struct op *op)
{
	return op->hash->size;
}

static CK_RV finish(struct op *op, uint8_t *out)
{
	uint8_t digest[EVP_MAX_MD_SIZE];
	const uint8_t *p;
	size_t n;
	CK_RV rv = op_input(op, &p, &n, digest);

	if (rv != CKR_OK)
		return rv;
	memcpy(out, p, n);
	return CKR_OK;
}

static const struct op_result digest = {OP_DIGEST, digest_len, finish};

CK_RV C_Digest(CK_SESSION_HANDLE h, CK_BYTE_PTR data, CK_ULONG n, CK_BYTE_PTR out, CK_ULONG_PTR len)
{
	return op_once(&digest, h, data, n, out, len);
}

CK_RV C_DigestUpdate(CK_SESSION_HANDLE h, CK_BYTE_PTR part, CK_ULONG n)
{
	return op_update(h, OP_DIGEST, part, n);
}

CK_RV C_DigestKey(CK_SESSION_HANDLE h, CK_OBJECT_HANDLE key)
{
	struct session *s;
	struct object *o;
	CK_RV rv = op_enter(h, OP_DIGEST, &s);

	if (rv != CKR_OK)
		return rv;
	o = object_get(s, key);
	if (o == NULL)
		rv = CKR_KEY_HANDLE_INVALID;
	else if (o->class != CKO_SECRET_KEY)
		rv = CKR_KEY_INDIGESTIBLE;
	else
		rv = op_data(&s->op, o->value, o->value_len);
	object_unref(o);
	s->op.updated = true;
	if (rv != CKR_OK)
		op_end(&s->op);
	return session_leave(s, rv);
}

CK_RV C_DigestFinal(CK_SESSION_HANDLE h, CK_BYTE_PTR out, CK_ULONG_PTR len)
{
	return op_final(&digest, h, out, len);
}
