/* Objects of the token. */
#include <string.h>
#include "plugins/pkcs11/pkcs11.h"

#define MODULUS_MAX 512u

CK_RV p11_find(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, CK_ATTRIBUTE *match, CK_ULONG n_match,
	CK_OBJECT_HANDLE *found, CK_ULONG cap, CK_ULONG *n)
{
	CK_ULONG total = 0, more = 0;
	CK_RV rv = ctx->f->C_FindObjectsInit(session, match, n_match), end;

	if (rv != CKR_OK)
		return rv;
	/* Some libraries give one at a time. */
	do {
		more = 0;
		rv = ctx->f->C_FindObjects(session, found + total, cap - total, &more);
		if (rv == CKR_OK && more > cap - total)
			rv = CKR_GENERAL_ERROR; /* more than there was room for */
		if (rv == CKR_OK)
			total += more;
	} while (rv == CKR_OK && more > 0 && total < cap);
	end = ctx->f->C_FindObjectsFinal(session);
	if (rv != CKR_OK || end != CKR_OK)
		return rv != CKR_OK ? rv : end;
	*n = total;
	return CKR_OK;
}

static CK_KEY_TYPE key_type(enum csm_alg alg)
{
	return csm_alg_is_rsa(alg) ? CKK_RSA : alg == CSM_ALG_ED25519 ? CKK_EC_EDWARDS : CKK_EC;
}

int p11_find_private(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, enum csm_alg alg,
	const struct p11_ref *ref, CK_OBJECT_HANDLE *ret, CK_RV *rv)
{
	CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
	CK_KEY_TYPE type = key_type(alg);
	CK_BBOOL yes = CK_TRUE;
	CK_ATTRIBUTE match[4] = {
		{CKA_CLASS, &class, sizeof(class)},
		{CKA_TOKEN, &yes, sizeof(yes)},
		{CKA_KEY_TYPE, &type, sizeof(type)},
	};
	CK_OBJECT_HANDLE found[2];
	CK_ULONG n = 0;

	/* The label is for people, who may change it; it is what there is to go by where a key has no CKA_ID. */
	if (ref->id_len > 0)
		match[3] = (CK_ATTRIBUTE){CKA_ID, (void *)(uintptr_t)ref->id, ref->id_len};
	else
		match[3] = (CK_ATTRIBUTE){CKA_LABEL, (void *)(uintptr_t)ref->label, ref->label_len};
	if ((*rv = p11_find(ctx, session, match, 4, found, 2, &n)) != CKR_OK)
		return p11_error(*rv);
	if (n > 1)
		return CSM_ETAMPERED;
	if (n == 0) {
		*rv = CKR_GENERAL_ERROR; /* a library may not see that its token is not what it was: begin anew */
		return CSM_EUNAVAILABLE;
	}
	*ret = found[0];
	return 0;
}

size_t p11_attribute(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE h,
	CK_ATTRIBUTE_TYPE type, void *p, size_t cap, CK_RV *rv)
{
	CK_ATTRIBUTE a = {type, p, cap};

	*rv = ctx->f->C_GetAttributeValue(session, h, &a, 1);
	/* The pointer is ours: what a library writes there is not where we read. */
	if (*rv != CKR_OK || a.ulValueLen > cap)
		return SIZE_MAX;
	return a.ulValueLen;
}

int p11_public_of(struct csm_plugin_ctx *ctx, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE h,
	enum csm_alg alg, EVP_PKEY **ret, CK_RV *rv)
{
	uint8_t a[MODULUS_MAX], b[16];
	size_t n, m;

	if (!csm_alg_is_rsa(alg)) {
		if ((n = p11_attribute(ctx, session, h, CKA_EC_POINT, a, sizeof(a), rv)) == SIZE_MAX)
			return *rv != CKR_OK ? p11_error(*rv) : CSM_EBACKEND;
		return p11_spki_of_point(alg, a, n, ret);
	}
	if ((n = p11_attribute(ctx, session, h, CKA_MODULUS, a, sizeof(a), rv)) == SIZE_MAX ||
		(m = p11_attribute(ctx, session, h, CKA_PUBLIC_EXPONENT, b, sizeof(b), rv)) == SIZE_MAX)
		return *rv != CKR_OK ? p11_error(*rv) : CSM_EBACKEND;
	return p11_spki_of_rsa(alg, a, n, b, m, ret);
}
