/* Functions that csm does not have: the standard wants all of them there. And random numbers, which it has. */
#include "libclient/p11/p11.h"

/* For all that the standard lets a library leave out: what is wrong with the session is said first. */
static CK_RV unsupported(CK_SESSION_HANDLE h, CK_RV rv)
{
	struct session *s;
	CK_RV bad = session_enter(h, &s);

	return bad != CKR_OK ? bad : session_leave(s, rv);
}

CK_RV C_GenerateRandom(CK_SESSION_HANDLE h, CK_BYTE_PTR out, CK_ULONG n)
{
	struct session *s;
	unsigned tries = 0;
	CK_RV rv = session_enter(h, &s);
	int r;

	if (rv != CKR_OK)
		return rv;
	if (out == NULL && n != 0)
		return session_leave(s, CKR_ARGUMENTS_BAD);
	if (n == 0)
		return session_leave(s, CKR_OK);
	do
		r = csm_random(lib.csm, out, n);
	while (p11_again(r, &tries));
	return session_leave(s, p11_rv(r, CKR_RANDOM_NO_RNG));
}

CK_RV C_SeedRandom(CK_SESSION_HANDLE h, CK_BYTE_PTR seed, CK_ULONG n)
{
	return unsupported(h, seed == NULL && n != 0 ? CKR_ARGUMENTS_BAD : CKR_RANDOM_SEED_NOT_SUPPORTED);
}

CK_RV C_GetOperationState(CK_SESSION_HANDLE h, CK_BYTE_PTR state, CK_ULONG_PTR len)
{
	struct session *s;
	CK_RV rv = session_enter(h, &s);

	(void)state;
	if (rv != CKR_OK)
		return rv;
	if (len == NULL)
		return session_leave(s, CKR_ARGUMENTS_BAD);
	return session_leave(s, s->op.kind == OP_NONE ? CKR_OPERATION_NOT_INITIALIZED : CKR_STATE_UNSAVEABLE);
}

CK_RV C_SetOperationState(CK_SESSION_HANDLE h, CK_BYTE_PTR state, CK_ULONG len, CK_OBJECT_HANDLE encryption,
	CK_OBJECT_HANDLE authentication)
{
	(void)encryption;
	(void)authentication;
	(void)len;
	return unsupported(h, state == NULL ? CKR_ARGUMENTS_BAD : CKR_SAVED_STATE_INVALID);
}

/* Nothing runs in parallel: the standard has kept these two for old programs. */
CK_RV C_GetFunctionStatus(CK_SESSION_HANDLE h)
{
	return unsupported(h, CKR_FUNCTION_NOT_PARALLEL);
}

CK_RV C_CancelFunction(CK_SESSION_HANDLE h)
{
	return unsupported(h, CKR_FUNCTION_NOT_PARALLEL);
}

CK_RV C_SessionCancel(CK_SESSION_HANDLE h, CK_FLAGS flags)
{
	static const CK_FLAGS of[] = {[OP_FIND] = CKF_FIND_OBJECTS, [OP_SIGN] = CKF_SIGN, [OP_VERIFY] = CKF_VERIFY,
		[OP_ENCRYPT] = CKF_ENCRYPT, [OP_DECRYPT] = CKF_DECRYPT, [OP_DIGEST] = CKF_DIGEST};
	struct session *s;
	CK_RV rv = session_enter(h, &s);

	if (rv != CKR_OK)
		return rv;
	if ((of[s->op.kind] & flags) != 0)
		op_end(&s->op);
	return session_leave(s, CKR_OK);
}

/* ---- what csm does not have ---- */

/* The standard gives them parameters that nobody looks at. */
#pragma GCC diagnostic ignored "-Wunused-parameter"
#define NOT_SUPPORTED(name, ...) \
	CK_RV name(CK_SESSION_HANDLE h, ##__VA_ARGS__) \
	{ \
		return unsupported(h, CKR_FUNCTION_NOT_SUPPORTED); \
	}

NOT_SUPPORTED(C_SignRecoverInit, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE key)
NOT_SUPPORTED(C_SignRecover, CK_BYTE_PTR in, CK_ULONG n, CK_BYTE_PTR out, CK_ULONG_PTR len)
NOT_SUPPORTED(C_VerifyRecoverInit, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE key)
NOT_SUPPORTED(C_VerifyRecover, CK_BYTE_PTR in, CK_ULONG n, CK_BYTE_PTR out, CK_ULONG_PTR len)
NOT_SUPPORTED(C_DigestEncryptUpdate, CK_BYTE_PTR in, CK_ULONG n, CK_BYTE_PTR out, CK_ULONG_PTR len)
NOT_SUPPORTED(C_DecryptDigestUpdate, CK_BYTE_PTR in, CK_ULONG n, CK_BYTE_PTR out, CK_ULONG_PTR len)
NOT_SUPPORTED(C_SignEncryptUpdate, CK_BYTE_PTR in, CK_ULONG n, CK_BYTE_PTR out, CK_ULONG_PTR len)
NOT_SUPPORTED(C_DecryptVerifyUpdate, CK_BYTE_PTR in, CK_ULONG n, CK_BYTE_PTR out, CK_ULONG_PTR len)
NOT_SUPPORTED(C_GenerateKey, CK_MECHANISM_PTR m, CK_ATTRIBUTE_PTR t, CK_ULONG n, CK_OBJECT_HANDLE_PTR ret)
NOT_SUPPORTED(C_WrapKey, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE wrapping, CK_OBJECT_HANDLE key, CK_BYTE_PTR out,
	CK_ULONG_PTR len)
NOT_SUPPORTED(C_UnwrapKey, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE unwrapping, CK_BYTE_PTR in, CK_ULONG in_len,
	CK_ATTRIBUTE_PTR t, CK_ULONG n, CK_OBJECT_HANDLE_PTR ret)
NOT_SUPPORTED(C_MessageEncryptInit, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE key)
NOT_SUPPORTED(C_EncryptMessage, CK_VOID_PTR param, CK_ULONG param_len, CK_BYTE_PTR aad, CK_ULONG aad_len,
	CK_BYTE_PTR plain, CK_ULONG plain_len, CK_BYTE_PTR cipher, CK_ULONG_PTR cipher_len)
NOT_SUPPORTED(C_EncryptMessageBegin, CK_VOID_PTR param, CK_ULONG param_len, CK_BYTE_PTR aad, CK_ULONG aad_len)
NOT_SUPPORTED(C_EncryptMessageNext, CK_VOID_PTR param, CK_ULONG param_len, CK_BYTE_PTR plain,
	CK_ULONG plain_len, CK_BYTE_PTR cipher, CK_ULONG_PTR cipher_len, CK_FLAGS flags)
NOT_SUPPORTED(C_MessageEncryptFinal)
NOT_SUPPORTED(C_MessageDecryptInit, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE key)
NOT_SUPPORTED(C_DecryptMessage, CK_VOID_PTR param, CK_ULONG param_len, CK_BYTE_PTR aad, CK_ULONG aad_len,
	CK_BYTE_PTR cipher, CK_ULONG cipher_len, CK_BYTE_PTR plain, CK_ULONG_PTR plain_len)
NOT_SUPPORTED(C_DecryptMessageBegin, CK_VOID_PTR param, CK_ULONG param_len, CK_BYTE_PTR aad, CK_ULONG aad_len)
NOT_SUPPORTED(C_DecryptMessageNext, CK_VOID_PTR param, CK_ULONG param_len, CK_BYTE_PTR cipher,
	CK_ULONG cipher_len, CK_BYTE_PTR plain, CK_ULONG_PTR plain_len, CK_FLAGS flags)
NOT_SUPPORTED(C_MessageDecryptFinal)
NOT_SUPPORTED(C_MessageSignInit, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE key)
NOT_SUPPORTED(C_SignMessage, CK_VOID_PTR param, CK_ULONG param_len, CK_BYTE_PTR in, CK_ULONG n, CK_BYTE_PTR sig,
	CK_ULONG_PTR sig_len)
NOT_SUPPORTED(C_SignMessageBegin, CK_VOID_PTR param, CK_ULONG param_len)
NOT_SUPPORTED(C_SignMessageNext, CK_VOID_PTR param, CK_ULONG param_len, CK_BYTE_PTR in, CK_ULONG n,
	CK_BYTE_PTR sig, CK_ULONG_PTR sig_len)
NOT_SUPPORTED(C_MessageSignFinal)
NOT_SUPPORTED(C_MessageVerifyInit, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE key)
NOT_SUPPORTED(C_VerifyMessage, CK_VOID_PTR param, CK_ULONG param_len, CK_BYTE_PTR in, CK_ULONG n,
	CK_BYTE_PTR sig, CK_ULONG sig_len)
NOT_SUPPORTED(C_VerifyMessageBegin, CK_VOID_PTR param, CK_ULONG param_len)
NOT_SUPPORTED(C_VerifyMessageNext, CK_VOID_PTR param, CK_ULONG param_len, CK_BYTE_PTR in, CK_ULONG n,
	CK_BYTE_PTR sig, CK_ULONG sig_len)
NOT_SUPPORTED(C_MessageVerifyFinal)
