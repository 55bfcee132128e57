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

static bool only_length(const struct op *op, const uint8_t *out, CK_ULONG *len, CK_RV *rv)
{
	bool small = out != NULL && *len < op->hash->size;

	if (out != NULL && !small)
		return false;
	*len = op->hash->size;
	*rv = small ? CKR_BUFFER_TOO_SMALL : CKR_OK;
	return true;
}

static CK_RV finish(struct op *op, uint8_t *out, CK_ULONG *len)
{
	uint8_t digest[EVP_MAX_MD_SIZE];
	const uint8_t *p;
	size_t n;
	CK_RV rv = op_input(op, &p, &n, digest);

	if (rv != CKR_OK)
		return rv;
	memcpy(out, p, n);
	*len = n;
	return CKR_OK;
}

CK_RV C_Digest(CK_SESSION_HANDLE h, CK_BYTE_PTR data, CK_ULONG n, CK_BYTE_PTR out, CK_ULONG_PTR len)
{
	struct session *s;
	CK_RV rv = session_enter(h, &s);

	if (rv != CKR_OK)
		return rv;
	if (s->op.kind != OP_DIGEST)
		return session_leave(s, CKR_OPERATION_NOT_INITIALIZED);
	rv = CKR_ARGUMENTS_BAD;
	if (len == NULL || (data == NULL && n != 0))
		goto end;
	rv = CKR_OPERATION_ACTIVE;
	if (s->op.updated)
		goto end;
	if (only_length(&s->op, out, len, &rv))
		return session_leave(s, rv);
	rv = op_data(&s->op, data, n);
	if (rv == CKR_OK)
		rv = finish(&s->op, out, len);
end:
	op_end(&s->op);
	return session_leave(s, rv);
}

CK_RV C_DigestUpdate(CK_SESSION_HANDLE h, CK_BYTE_PTR part, CK_ULONG n)
{
	struct session *s;
	CK_RV rv = session_enter(h, &s);

	if (rv != CKR_OK)
		return rv;
	if (s->op.kind != OP_DIGEST)
		return session_leave(s, CKR_OPERATION_NOT_INITIALIZED);
	s->op.updated = true;
	rv = part == NULL && n != 0 ? CKR_ARGUMENTS_BAD : op_data(&s->op, part, n);
	if (rv != CKR_OK)
		op_end(&s->op);
	return session_leave(s, rv);
}

CK_RV C_DigestKey(CK_SESSION_HANDLE h, CK_OBJECT_HANDLE key)
{
	struct session *s;
	struct object *o;
	CK_RV rv = session_enter(h, &s);

	if (rv != CKR_OK)
		return rv;
	if (s->op.kind != OP_DIGEST)
		return session_leave(s, CKR_OPERATION_NOT_INITIALIZED);
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
	struct session *s;
	CK_RV rv = session_enter(h, &s);

	if (rv != CKR_OK)
		return rv;
	if (s->op.kind != OP_DIGEST)
		return session_leave(s, CKR_OPERATION_NOT_INITIALIZED);
	rv = CKR_ARGUMENTS_BAD;
	if (len == NULL)
		goto end;
	if (only_length(&s->op, out, len, &rv))
		return session_leave(s, rv);
	rv = finish(&s->op, out, len);
end:
	op_end(&s->op);
	return session_leave(s, rv);
}
