/* C_FindObjects, and looking at objects. */
#include <stdlib.h>
#include <string.h>
#include "libclient/p11/p11.h"

static bool matches(const struct object *o, const CK_ATTRIBUTE *t, CK_ULONG n)
{
	for (CK_ULONG i = 0; i < n; i++)
		if (!attr_matches(o, &t[i]))
			return false;
	return true;
}

/* What the template leaves of the token's keys: with a label one at most, so that csmd is asked for that one. */
static CK_RV refresh(const struct session *s, const CK_ATTRIBUTE *t, CK_ULONG n)
{
	const CK_ATTRIBUTE *label = template_find(t, n, CKA_LABEL);
	CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
	bool token = true, certs = template_find(t, n, CKA_CLASS) == NULL;
	CK_RV rv;

	if (template_ulong(t, n, CKA_CLASS, &class) != CKR_OK || template_bool(t, n, CKA_TOKEN, &token) != CKR_OK)
		return CKR_OK; /* matches nothing */
	if (!token || (class != CKO_PRIVATE_KEY && class != CKO_PUBLIC_KEY && class != CKO_CERTIFICATE))
		return CKR_OK;
	certs |= class == CKO_CERTIFICATE;
	if (label != NULL)
		return token_look(s->slot, label->pValue, label->ulValueLen, certs);
	rv = token_list(s->slot);
	return rv == CKR_OK && certs ? certs_list(s->slot) : rv;
}

static CK_RV search(struct session *s, const CK_ATTRIBUTE *t, CK_ULONG n)
{
	struct object **all;
	size_t count;
	CK_RV rv = refresh(s, t, n);

	if (rv == CKR_OK)
		rv = objects_of(s->slot, &all, &count);
	if (rv != CKR_OK)
		return rv;
	s->op.found = malloc((count + 1) * sizeof(*s->op.found));
	for (size_t i = 0; i < count; i++) {
		if (s->op.found != NULL && matches(all[i], t, n))
			s->op.found[s->op.n_found++] = all[i]->handle;
		object_unref(all[i]);
	}
	free(all);
	return s->op.found == NULL ? CKR_HOST_MEMORY : CKR_OK;
}

CK_RV C_FindObjectsInit(CK_SESSION_HANDLE h, CK_ATTRIBUTE_PTR t, CK_ULONG n)
{
	struct session *s;
	CK_RV rv = session_enter(h, &s);

	if (rv != CKR_OK)
		return rv;
	rv = template_check(t, n);
	if (rv == CKR_OK && s->op.kind != OP_NONE)
		rv = CKR_OPERATION_ACTIVE;
	if (rv != CKR_OK)
		return session_leave(s, rv);
	s->op.kind = OP_FIND;
	rv = search(s, t, n);
	if (rv != CKR_OK)
		op_end(&s->op);
	return session_leave(s, rv);
}

CK_RV C_FindObjects(CK_SESSION_HANDLE h, CK_OBJECT_HANDLE_PTR out, CK_ULONG max, CK_ULONG_PTR count)
{
	struct session *s;
	size_t n;
	CK_RV rv = session_enter(h, &s);

	if (rv != CKR_OK)
		return rv;
	if (count == NULL || (out == NULL && max != 0))
		return session_leave(s, CKR_ARGUMENTS_BAD);
	if (s->op.kind != OP_FIND)
		return session_leave(s, CKR_OPERATION_NOT_INITIALIZED);
	n = s->op.n_found - s->op.next;
	if (n > max)
		n = max;
	if (n > 0)
		memcpy(out, s->op.found + s->op.next, n * sizeof(*out));
	s->op.next += n;
	*count = n;
	return session_leave(s, CKR_OK);
}

CK_RV C_FindObjectsFinal(CK_SESSION_HANDLE h)
{
	struct session *s;
	CK_RV rv = op_enter(h, OP_FIND, &s);

	if (rv != CKR_OK)
		return rv;
	op_end(&s->op);
	return session_leave(s, CKR_OK);
}

CK_RV C_GetAttributeValue(CK_SESSION_HANDLE h, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_PTR t, CK_ULONG n)
{
	struct session *s;
	struct object *o;
	CK_RV rv = object_enter(h, object, t, n, &s, &o);

	if (rv != CKR_OK)
		return rv;
	/* each attribute is looked at; the first that could not be given decides */
	for (CK_ULONG i = 0; i < n; i++) {
		CK_RV one = attr_get(o, &t[i]);

		if (rv == CKR_OK)
			rv = one;
	}
	return object_leave(s, o, rv);
}

CK_RV C_GetObjectSize(CK_SESSION_HANDLE h, CK_OBJECT_HANDLE object, CK_ULONG_PTR size)
{
	struct session *s;
	struct object *o;
	CK_RV rv = session_enter(h, &s);

	if (rv != CKR_OK)
		return rv;
	if (size == NULL)
		return session_leave(s, CKR_ARGUMENTS_BAD);
	o = object_get(s, object);
	if (o == NULL)
		return session_leave(s, CKR_OBJECT_HANDLE_INVALID);
	/* what it takes up in csmd is not told; the standard has a value for that */
	*size = o->value != NULL ? o->value_len : CK_UNAVAILABLE_INFORMATION;
	object_unref(o);
	return session_leave(s, CKR_OK);
}
