#include <string.h>
#include "libclient/p11/p11.h"

CK_RV template_check(const CK_ATTRIBUTE *t, CK_ULONG n)
{
	if (t == NULL)
		return n == 0 ? CKR_OK : CKR_ARGUMENTS_BAD;
	for (CK_ULONG i = 0; i < n; i++)
		if (t[i].ulValueLen == (CK_ULONG)-1 || (t[i].pValue == NULL && t[i].ulValueLen != 0))
			return CKR_ATTRIBUTE_VALUE_INVALID;
	return CKR_OK;
}

const CK_ATTRIBUTE *template_find(const CK_ATTRIBUTE *t, CK_ULONG n, CK_ATTRIBUTE_TYPE type)
{
	for (CK_ULONG i = 0; i < n; i++)
		if (t[i].type == type)
			return &t[i];
	return NULL;
}

CK_RV template_bool(const CK_ATTRIBUTE *t, CK_ULONG n, CK_ATTRIBUTE_TYPE type, bool *ret)
{
	const CK_ATTRIBUTE *a = template_find(t, n, type);
	CK_BBOOL v;

	if (a == NULL)
		return CKR_OK;
	if (a->ulValueLen != sizeof(v))
		return CKR_ATTRIBUTE_VALUE_INVALID;
	memcpy(&v, a->pValue, sizeof(v));
	if (v != CK_TRUE && v != CK_FALSE)
		return CKR_ATTRIBUTE_VALUE_INVALID;
	*ret = v == CK_TRUE;
	return CKR_OK;
}

CK_RV template_ulong(const CK_ATTRIBUTE *t, CK_ULONG n, CK_ATTRIBUTE_TYPE type, CK_ULONG *ret)
{
	const CK_ATTRIBUTE *a = template_find(t, n, type);

	if (a == NULL)
		return CKR_OK;
	if (a->ulValueLen != sizeof(*ret))
		return CKR_ATTRIBUTE_VALUE_INVALID;
	memcpy(ret, a->pValue, sizeof(*ret));
	return CKR_OK;
}

CK_RV template_bytes(const CK_ATTRIBUTE *t, CK_ULONG n, CK_ATTRIBUTE_TYPE type, uint8_t *to, size_t room, size_t *len)
{
	const CK_ATTRIBUTE *a = template_find(t, n, type);

	if (a == NULL)
		return CKR_OK;
	if (a->ulValueLen > room)
		return CKR_ATTRIBUTE_VALUE_INVALID;
	if (a->ulValueLen > 0)
		memcpy(to, a->pValue, a->ulValueLen);
	*len = a->ulValueLen;
	return CKR_OK;
}
