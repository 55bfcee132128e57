/* Every function of PKCS#11 and every misuse that the standard has a code for. What has a key runs with one of the soft
 * back end and one of the TPM. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "tests/lib/p11fix.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

/* ---- every function, without the library and without a session ---- */

/* All parameters of these functions are words, so that one call fits all of them. */
typedef CK_RV any_fn(unsigned long, unsigned long, unsigned long, unsigned long, unsigned long, unsigned long,
	unsigned long, unsigned long, unsigned long, unsigned long);

#define SESSION_2(F) \
	F(C_InitPIN) F(C_SetPIN) F(C_CloseSession) F(C_GetSessionInfo) F(C_GetOperationState) F(C_SetOperationState) \
	F(C_Login) F(C_Logout) F(C_CreateObject) F(C_CopyObject) F(C_DestroyObject) F(C_GetObjectSize) \
	F(C_GetAttributeValue) F(C_SetAttributeValue) F(C_FindObjectsInit) F(C_FindObjects) F(C_FindObjectsFinal) \
	F(C_EncryptInit) F(C_Encrypt) F(C_EncryptUpdate) F(C_EncryptFinal) F(C_DecryptInit) F(C_Decrypt) F(C_DecryptUpdate) \
	F(C_DecryptFinal) F(C_DigestInit) F(C_Digest) F(C_DigestUpdate) F(C_DigestKey) F(C_DigestFinal) F(C_SignInit) \
	F(C_Sign) F(C_SignUpdate) F(C_SignFinal) F(C_SignRecoverInit) F(C_SignRecover) F(C_VerifyInit) F(C_Verify) \
	F(C_VerifyUpdate) F(C_VerifyFinal) F(C_VerifyRecoverInit) F(C_VerifyRecover) F(C_DigestEncryptUpdate) \
	F(C_DecryptDigestUpdate) F(C_SignEncryptUpdate) F(C_DecryptVerifyUpdate) F(C_GenerateKey) F(C_GenerateKeyPair) \
	F(C_WrapKey) F(C_UnwrapKey) F(C_DeriveKey) F(C_SeedRandom) F(C_GenerateRandom) F(C_GetFunctionStatus) \
	F(C_CancelFunction)
#define SESSION_3(F) \
	F(C_LoginUser) F(C_SessionCancel) F(C_MessageEncryptInit) F(C_EncryptMessage) F(C_EncryptMessageBegin) \
	F(C_EncryptMessageNext) F(C_MessageEncryptFinal) F(C_MessageDecryptInit) F(C_DecryptMessage) \
	F(C_DecryptMessageBegin) F(C_DecryptMessageNext) F(C_MessageDecryptFinal) F(C_MessageSignInit) F(C_SignMessage) \
	F(C_SignMessageBegin) F(C_SignMessageNext) F(C_MessageSignFinal) F(C_MessageVerifyInit) F(C_VerifyMessage) \
	F(C_VerifyMessageBegin) F(C_VerifyMessageNext) F(C_MessageVerifyFinal)
#define OTHERS(F) \
	F(C_GetInfo) F(C_GetSlotList) F(C_GetSlotInfo) F(C_GetTokenInfo) F(C_GetMechanismList) F(C_GetMechanismInfo) \
	F(C_InitToken) F(C_OpenSession) F(C_CloseAllSessions) F(C_WaitForSlotEvent)

static const struct fn {
	const char *name;
	size_t at;
} session_fns[] = {
#define ROW(f) {#f, offsetof(CK_FUNCTION_LIST_3_0, v2.f)},
	SESSION_2(ROW)
#undef ROW
#define ROW(f) {#f, offsetof(CK_FUNCTION_LIST_3_0, f)},
	SESSION_3(ROW)
#undef ROW
}, other_fns[] = {
#define ROW(f) {#f, offsetof(CK_FUNCTION_LIST_3_0, v2.f)},
	OTHERS(ROW)
#undef ROW
};
/* With C_Initialize, C_Finalize, C_GetFunctionList, C_GetInterfaceList and C_GetInterface that is all of them. */
_Static_assert(N_ELEMS(session_fns) + N_ELEMS(other_fns) + 5 ==
		       (sizeof(CK_FUNCTION_LIST_3_0) - offsetof(CK_FUNCTION_LIST_3_0, v2.C_Initialize)) / sizeof(void *),
	"a row for each function");

static CK_RV call(const struct fn *fn, CK_SESSION_HANDLE s)
{
	any_fn *f;

	memcpy(&f, (const char *)p11 + fn->at, sizeof(f));
	assert_non_null(f);
	return f(s, 0, 0, 0, 0, 0, 0, 0, 0, 0);
}

static void all_are(CK_RV wanted, const struct fn *fns, size_t n, CK_SESSION_HANDLE s)
{
	for (size_t i = 0; i < n; i++) {
		CK_RV rv = call(&fns[i], s);

		if (rv != wanted)
			fail_msg("%s: 0x%lx, not 0x%lx", fns[i].name, rv, wanted);
	}
}

static void test_not_initialized(void **state)
{
	(void)state;
	all_are(CKR_CRYPTOKI_NOT_INITIALIZED, session_fns, N_ELEMS(session_fns), 1);
	all_are(CKR_CRYPTOKI_NOT_INITIALIZED, other_fns, N_ELEMS(other_fns), 0);
	want(CKR_CRYPTOKI_NOT_INITIALIZED, p11_2->C_Finalize(NULL));
	(void)p11fix_up();
	p11fix_down();
	all_are(CKR_CRYPTOKI_NOT_INITIALIZED, session_fns, N_ELEMS(session_fns), 1);
	want(CKR_CRYPTOKI_NOT_INITIALIZED, p11_2->C_Finalize(NULL));
}

static void test_session_handle_invalid(void **state)
{
	CK_SLOT_ID slot = p11fix_up();
	CK_SESSION_HANDLE s = p11fix_session(slot, CKF_RW_SESSION);

	(void)state;
	all_are(CKR_SESSION_HANDLE_INVALID, session_fns, N_ELEMS(session_fns), 0);
	all_are(CKR_SESSION_HANDLE_INVALID, session_fns, N_ELEMS(session_fns), (CK_SESSION_HANDLE)-1);
	all_are(CKR_SESSION_HANDLE_INVALID, session_fns, N_ELEMS(session_fns), s + (1UL << 20));
	want(CKR_OK, p11_2->C_CloseSession(s));
	all_are(CKR_SESSION_HANDLE_INVALID, session_fns, N_ELEMS(session_fns), s);
	p11fix_down();
}

/* ---- the library ---- */

static CK_RV fail_mutex(CK_VOID_PTR *m)
{
	(void)m;
	return CKR_HOST_MEMORY;
}
static CK_RV no_mutex(CK_VOID_PTR m)
{
	(void)m;
	return CKR_OK;
}

static void test_initialize(void **state)
{
	CK_C_INITIALIZE_ARGS a = {.flags = CKF_OS_LOCKING_OK, .pReserved = &a};
	CK_INTERFACE list[4], *i;
	CK_VERSION v = {2, 40}, odd = {7, 0};
	CK_FUNCTION_LIST *f;
	CK_ULONG n = 0;
	CK_INFO info;

	(void)state;
	want(CKR_ARGUMENTS_BAD, p11_2->C_Initialize(&a));
	a = (CK_C_INITIALIZE_ARGS){.CreateMutex = fail_mutex};
	want(CKR_ARGUMENTS_BAD, p11_2->C_Initialize(&a));
	a = (CK_C_INITIALIZE_ARGS){fail_mutex, no_mutex, no_mutex, NULL, 0, NULL};
	want(CKR_ARGUMENTS_BAD, p11_2->C_Initialize(&a));
	a.UnlockMutex = no_mutex;
	want(CKR_CANT_LOCK, p11_2->C_Initialize(&a));
	want(CKR_OK, p11_2->C_Initialize(NULL));
	want(CKR_CRYPTOKI_ALREADY_INITIALIZED, p11_2->C_Initialize(NULL));
	want(CKR_ARGUMENTS_BAD, p11_2->C_Finalize(&a));
	want(CKR_ARGUMENTS_BAD, p11_2->C_GetInfo(NULL));
	want(CKR_OK, p11_2->C_GetInfo(&info));
	assert_int_equal(info.flags, 0);
	want(CKR_ARGUMENTS_BAD, p11_2->C_GetFunctionList(NULL));
	want(CKR_OK, p11_2->C_GetFunctionList(&f));
	assert_int_equal(f->version.major * 100 + f->version.minor, 240);
	want(CKR_ARGUMENTS_BAD, p11->C_GetInterfaceList(NULL, NULL));
	want(CKR_OK, p11->C_GetInterfaceList(NULL, &n));
	assert_int_equal(n, 2);
	n = 1;
	want(CKR_BUFFER_TOO_SMALL, p11->C_GetInterfaceList(list, &n));
	assert_int_equal(n, 2);
	want(CKR_OK, p11->C_GetInterfaceList(list, &n));
	want(CKR_ARGUMENTS_BAD, p11->C_GetInterface(NULL, NULL, NULL, 0));
	want(CKR_OK, p11->C_GetInterface((CK_UTF8CHAR *)"PKCS 11", &v, &i, 0));
	assert_ptr_equal(i->pFunctionList, f);
	want(CKR_FUNCTION_FAILED, p11->C_GetInterface((CK_UTF8CHAR *)"PKCS 12", NULL, &i, 0));
	want(CKR_FUNCTION_FAILED, p11->C_GetInterface(NULL, &odd, &i, 0));
	want(CKR_FUNCTION_FAILED, p11->C_GetInterface(NULL, NULL, &i, 0x80));
	p11fix_down();
}

/* ---- slots and sessions ---- */

static void test_slots(void **state)
{
	CK_SLOT_ID slot = p11fix_up(), other;
	CK_MECHANISM_TYPE types[64];
	CK_MECHANISM_INFO mi;
	CK_SLOT_INFO si;
	CK_TOKEN_INFO ti;
	CK_ULONG n = 0;
	CK_UTF8CHAR label[32] = {0};

	(void)state;
	want(CKR_ARGUMENTS_BAD, p11_2->C_GetSlotList(CK_TRUE, NULL, NULL));
	want(CKR_BUFFER_TOO_SMALL, p11_2->C_GetSlotList(CK_TRUE, &other, &n));
	assert_true(n >= 1);
	want(CKR_ARGUMENTS_BAD, p11_2->C_GetSlotInfo(slot, NULL));
	want(CKR_SLOT_ID_INVALID, p11_2->C_GetSlotInfo(4711, &si));
	want(CKR_ARGUMENTS_BAD, p11_2->C_GetTokenInfo(slot, NULL));
	want(CKR_SLOT_ID_INVALID, p11_2->C_GetTokenInfo(4711, &ti));
	want(CKR_OK, p11_2->C_GetTokenInfo(slot, &ti));
	assert_int_equal(ti.flags & (CKF_LOGIN_REQUIRED | CKF_WRITE_PROTECTED), 0);
	want(CKR_ARGUMENTS_BAD, p11_2->C_GetMechanismList(slot, NULL, NULL));
	want(CKR_SLOT_ID_INVALID, p11_2->C_GetMechanismList(4711, NULL, &n));
	n = 1;
	want(CKR_BUFFER_TOO_SMALL, p11_2->C_GetMechanismList(slot, types, &n));
	want(CKR_OK, p11_2->C_GetMechanismList(slot, types, &n));
	for (CK_ULONG i = 0; i < n; i++)
		want(CKR_OK, p11_2->C_GetMechanismInfo(slot, types[i], &mi));
	want(CKR_ARGUMENTS_BAD, p11_2->C_GetMechanismInfo(slot, CKM_ECDSA, NULL));
	want(CKR_MECHANISM_INVALID, p11_2->C_GetMechanismInfo(slot, CKM_DES_CBC, &mi));
	want(CKR_SLOT_ID_INVALID, p11_2->C_GetMechanismInfo(4711, CKM_ECDSA, &mi));
	want(CKR_SLOT_ID_INVALID, p11_2->C_InitToken(4711, NULL, 0, label));
	want(CKR_ARGUMENTS_BAD, p11_2->C_InitToken(slot, NULL, 0, NULL));
	want(CKR_TOKEN_WRITE_PROTECTED, p11_2->C_InitToken(slot, NULL, 0, label));
	(void)p11fix_session(slot, 0);
	want(CKR_SESSION_EXISTS, p11_2->C_InitToken(slot, NULL, 0, label));
	want(CKR_SLOT_ID_INVALID, p11_2->C_CloseAllSessions(4711));
	want(CKR_ARGUMENTS_BAD, p11_2->C_WaitForSlotEvent(CKF_DONT_BLOCK, NULL, NULL));
	want(CKR_ARGUMENTS_BAD, p11_2->C_WaitForSlotEvent(CKF_DONT_BLOCK, &other, &n));
	while (p11_2->C_WaitForSlotEvent(CKF_DONT_BLOCK, &other, NULL) == CKR_OK)
		;
	want(CKR_NO_EVENT, p11_2->C_WaitForSlotEvent(CKF_DONT_BLOCK, &other, NULL));
	p11fix_down();
}

static void test_sessions(void **state)
{
	CK_SLOT_ID slot = p11fix_up();
	CK_SESSION_HANDLE s, rw;
	CK_SESSION_INFO info;

	(void)state;
	want(CKR_SESSION_PARALLEL_NOT_SUPPORTED, p11_2->C_OpenSession(slot, CKF_RW_SESSION, NULL, NULL, &s));
	want(CKR_ARGUMENTS_BAD, p11_2->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, NULL));
	want(CKR_SLOT_ID_INVALID, p11_2->C_OpenSession(4711, CKF_SERIAL_SESSION, NULL, NULL, &s));
	s = p11fix_session(slot, 0);
	rw = p11fix_session(slot, CKF_RW_SESSION);
	want(CKR_ARGUMENTS_BAD, p11_2->C_GetSessionInfo(s, NULL));
	want(CKR_OK, p11_2->C_GetSessionInfo(s, &info));
	assert_int_equal(info.state, CKS_RO_PUBLIC_SESSION);
	/* any PIN, and none */
	want(CKR_USER_NOT_LOGGED_IN, p11_2->C_Logout(s));
	want(CKR_ARGUMENTS_BAD, p11_2->C_Login(s, CKU_USER, NULL, 4));
	want(CKR_USER_TYPE_INVALID, p11_2->C_Login(s, 17, NULL, 0));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_Login(s, CKU_CONTEXT_SPECIFIC, NULL, 0));
	want(CKR_SESSION_READ_ONLY_EXISTS, p11_2->C_Login(rw, CKU_SO, NULL, 0));
	want(CKR_OK, p11_2->C_Login(s, CKU_USER, (CK_BYTE *)"wrong", 5));
	want(CKR_USER_ALREADY_LOGGED_IN, p11_2->C_Login(rw, CKU_USER, NULL, 0));
	want(CKR_USER_ANOTHER_ALREADY_LOGGED_IN, p11_2->C_Login(rw, CKU_SO, NULL, 0));
	want(CKR_OK, p11_2->C_GetSessionInfo(rw, &info));
	assert_int_equal(info.state, CKS_RW_USER_FUNCTIONS);
	want(CKR_SESSION_READ_ONLY, p11_2->C_SetPIN(s, NULL, 0, NULL, 0));
	want(CKR_ARGUMENTS_BAD, p11_2->C_SetPIN(rw, NULL, 1, NULL, 0));
	want(CKR_TOKEN_WRITE_PROTECTED, p11_2->C_SetPIN(rw, NULL, 0, NULL, 0));
	want(CKR_USER_NOT_LOGGED_IN, p11_2->C_InitPIN(rw, NULL, 0));
	want(CKR_SESSION_READ_ONLY, p11_2->C_InitPIN(s, NULL, 0));
	want(CKR_OK, p11_2->C_Logout(s));
	want(CKR_OK, p11_2->C_CloseSession(s));
	want(CKR_OK, p11->C_LoginUser(rw, CKU_SO, NULL, 0, (CK_BYTE *)"me", 2));
	want(CKR_SESSION_READ_WRITE_SO_EXISTS, p11_2->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &s));
	want(CKR_TOKEN_WRITE_PROTECTED, p11_2->C_InitPIN(rw, NULL, 0));
	want(CKR_OK, p11_2->C_CloseAllSessions(slot));
	/* with the last session goes the login */
	s = p11fix_session(slot, 0);
	want(CKR_USER_NOT_LOGGED_IN, p11_2->C_Logout(s));
	want(CKR_ARGUMENTS_BAD, p11_2->C_GetOperationState(s, NULL, NULL));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_GetOperationState(s, NULL, &(CK_ULONG){0}));
	want(CKR_ARGUMENTS_BAD, p11_2->C_SetOperationState(s, NULL, 0, 0, 0));
	want(CKR_SAVED_STATE_INVALID, p11_2->C_SetOperationState(s, (CK_BYTE *)"x", 1, 0, 0));
	want(CKR_FUNCTION_NOT_PARALLEL, p11_2->C_GetFunctionStatus(s));
	want(CKR_FUNCTION_NOT_PARALLEL, p11_2->C_CancelFunction(s));
	want(CKR_ARGUMENTS_BAD, p11_2->C_GenerateRandom(s, NULL, 1));
	want(CKR_OK, p11_2->C_GenerateRandom(s, NULL, 0));
	want(CKR_RANDOM_SEED_NOT_SUPPORTED, p11_2->C_SeedRandom(s, (CK_BYTE *)"x", 1));
	want(CKR_FUNCTION_NOT_SUPPORTED, p11_2->C_SignRecoverInit(s, NULL, 0));
	want(CKR_FUNCTION_NOT_SUPPORTED, p11->C_MessageSignInit(s, NULL, 0));
	p11fix_down();
}

/* ---- operations: each misuse of Init, Update, Final and the one call ---- */

static const struct kind {
	const char *backend;
	const char *ec, *rsa;
} kinds[] = {{"soft", "ec-soft", "rsa-soft"}, {"tpm2", "ec-tpm2", "rsa-tpm2"}};

struct keys {
	CK_SLOT_ID slot;
	CK_SESSION_HANDLE s;
	CK_OBJECT_HANDLE ec, ec_pub, rsa, rsa_pub;
};

static void keys_up(const struct kind *k, struct keys *ret)
{
	ret->slot = p11fix_up();
	ret->s = p11fix_session(ret->slot, 0);
	ret->ec = p11fix_find(ret->s, CKO_PRIVATE_KEY, k->ec);
	ret->ec_pub = p11fix_find(ret->s, CKO_PUBLIC_KEY, k->ec);
	ret->rsa = p11fix_find(ret->s, CKO_PRIVATE_KEY, k->rsa);
	ret->rsa_pub = p11fix_find(ret->s, CKO_PUBLIC_KEY, k->rsa);
	assert_true(ret->ec != 0 && ret->ec_pub != 0 && ret->rsa != 0 && ret->rsa_pub != 0);
}

static CK_MECHANISM ecdsa = {CKM_ECDSA, NULL, 0}, ecdsa256 = {CKM_ECDSA_SHA256, NULL, 0}, pkcs1 = {CKM_RSA_PKCS, NULL, 0},
		    sha256 = {CKM_SHA256, NULL, 0}, des = {CKM_DES_CBC, NULL, 0}, ecdh = {CKM_ECDH1_DERIVE, NULL, 0};
static CK_RSA_PKCS_PSS_PARAMS pss_params = {CKM_SHA256, CKG_MGF1_SHA256, 32};
static CK_MECHANISM pss = {CKM_RSA_PKCS_PSS, &pss_params, sizeof(pss_params)};
static CK_RSA_PKCS_OAEP_PARAMS oaep_params = {CKM_SHA256, CKG_MGF1_SHA256, CKZ_DATA_SPECIFIED, NULL, 0};
static CK_MECHANISM oaep = {CKM_RSA_PKCS_OAEP, &oaep_params, sizeof(oaep_params)};

static void sign_misused(const struct keys *k)
{
	CK_RSA_PKCS_PSS_PARAMS odd = pss_params;
	CK_MECHANISM m = {CKM_ECDSA, &odd, sizeof(odd)}, p = {CKM_RSA_PKCS_PSS, &odd, sizeof(odd)},
		     hashed = {CKM_SHA384_RSA_PKCS_PSS, &pss_params, sizeof(pss_params)}, null = {CKM_ECDSA, NULL, 5};
	CK_BYTE in[600] = {1}, sig[512];
	CK_ULONG n = sizeof(sig);

	want(CKR_ARGUMENTS_BAD, p11_2->C_SignInit(k->s, NULL, k->ec));
	want(CKR_MECHANISM_INVALID, p11_2->C_SignInit(k->s, &des, k->ec));
	want(CKR_MECHANISM_INVALID, p11_2->C_SignInit(k->s, &sha256, k->ec));
	want(CKR_MECHANISM_INVALID, p11_2->C_SignInit(k->s, &oaep, k->rsa));
	want(CKR_MECHANISM_PARAM_INVALID, p11_2->C_SignInit(k->s, &m, k->ec));
	want(CKR_MECHANISM_PARAM_INVALID, p11_2->C_SignInit(k->s, &null, k->ec));
	odd.sLen = 20;
	want(CKR_MECHANISM_PARAM_INVALID, p11_2->C_SignInit(k->s, &p, k->rsa));
	odd = (CK_RSA_PKCS_PSS_PARAMS){CKM_SHA256, CKG_MGF1_SHA384, 32};
	want(CKR_MECHANISM_PARAM_INVALID, p11_2->C_SignInit(k->s, &p, k->rsa));
	odd = (CK_RSA_PKCS_PSS_PARAMS){CKM_MD5, CKG_MGF1_SHA256, 16};
	want(CKR_MECHANISM_PARAM_INVALID, p11_2->C_SignInit(k->s, &p, k->rsa));
	p = (CK_MECHANISM){CKM_RSA_PKCS_PSS, NULL, 0};
	want(CKR_MECHANISM_PARAM_INVALID, p11_2->C_SignInit(k->s, &p, k->rsa));
	want(CKR_MECHANISM_PARAM_INVALID, p11_2->C_SignInit(k->s, &hashed, k->rsa));
	want(CKR_KEY_HANDLE_INVALID, p11_2->C_SignInit(k->s, &ecdsa, 0));
	want(CKR_KEY_HANDLE_INVALID, p11_2->C_SignInit(k->s, &ecdsa, k->ec + (1UL << 30)));
	want(CKR_KEY_TYPE_INCONSISTENT, p11_2->C_SignInit(k->s, &ecdsa, k->rsa));
	want(CKR_KEY_TYPE_INCONSISTENT, p11_2->C_SignInit(k->s, &pkcs1, k->ec));
	want(CKR_KEY_FUNCTION_NOT_PERMITTED, p11_2->C_SignInit(k->s, &ecdsa, k->ec_pub));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_Sign(k->s, in, 32, sig, &n));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_SignUpdate(k->s, in, 32));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_SignFinal(k->s, sig, &n));
	/* an operation in hand keeps all others out */
	want(CKR_OK, p11_2->C_SignInit(k->s, &ecdsa, k->ec));
	want(CKR_OPERATION_ACTIVE, p11_2->C_SignInit(k->s, &ecdsa, k->ec));
	want(CKR_OPERATION_ACTIVE, p11_2->C_VerifyInit(k->s, &ecdsa, k->ec_pub));
	want(CKR_OPERATION_ACTIVE, p11_2->C_EncryptInit(k->s, &oaep, k->rsa_pub));
	want(CKR_OPERATION_ACTIVE, p11_2->C_DecryptInit(k->s, &oaep, k->rsa));
	want(CKR_OPERATION_ACTIVE, p11_2->C_DigestInit(k->s, &sha256));
	want(CKR_OPERATION_ACTIVE, p11_2->C_FindObjectsInit(k->s, NULL, 0));
	want(CKR_STATE_UNSAVEABLE, p11_2->C_GetOperationState(k->s, NULL, &n));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_Verify(k->s, in, 32, sig, 64));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_DigestFinal(k->s, sig, &n));
	/* the length, a buffer that is too small, then the signature */
	want(CKR_OK, p11_2->C_Sign(k->s, in, 32, NULL, &n));
	assert_int_equal(n, 64);
	n = 63;
	want(CKR_BUFFER_TOO_SMALL, p11_2->C_Sign(k->s, in, 32, sig, &n));
	assert_int_equal(n, 64);
	want(CKR_OK, p11_2->C_Sign(k->s, in, 32, sig, &n));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_Sign(k->s, in, 32, sig, &n));
	/* an error ends it */
	want(CKR_OK, p11_2->C_SignInit(k->s, &ecdsa, k->ec));
	want(CKR_ARGUMENTS_BAD, p11_2->C_Sign(k->s, in, 32, sig, NULL));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_Sign(k->s, in, 32, sig, &n));
	want(CKR_OK, p11_2->C_SignInit(k->s, &ecdsa, k->ec));
	want(CKR_DATA_LEN_RANGE, p11_2->C_Sign(k->s, in, 0, sig, &n));
	want(CKR_OK, p11_2->C_SignInit(k->s, &ecdsa, k->ec));
	want(CKR_ARGUMENTS_BAD, p11_2->C_Sign(k->s, NULL, 1, sig, &n));
	n = sizeof(sig);
	want(CKR_OK, p11_2->C_SignInit(k->s, &pss, k->rsa));
	want(CKR_DATA_LEN_RANGE, p11_2->C_Sign(k->s, in, 31, sig, &n));
	want(CKR_OK, p11_2->C_SignInit(k->s, &pkcs1, k->rsa));
	want(CKR_DATA_LEN_RANGE, p11_2->C_Sign(k->s, in, 246, sig, &n));
	want(CKR_OK, p11_2->C_SignInit(k->s, &pkcs1, k->rsa));
	want(CKR_DATA_INVALID, p11_2->C_Sign(k->s, in, 51, sig, &n));
	/* parts and the one call do not mix */
	want(CKR_OK, p11_2->C_SignInit(k->s, &ecdsa256, k->ec));
	want(CKR_OK, p11_2->C_SignUpdate(k->s, in, 10));
	want(CKR_OPERATION_ACTIVE, p11_2->C_Sign(k->s, in, 10, sig, &n));
	want(CKR_OK, p11_2->C_SignInit(k->s, &ecdsa256, k->ec));
	want(CKR_ARGUMENTS_BAD, p11_2->C_SignUpdate(k->s, NULL, 10));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_SignFinal(k->s, sig, &n));
	want(CKR_OK, p11_2->C_SignInit(k->s, &ecdsa256, k->ec));
	want(CKR_ARGUMENTS_BAD, p11_2->C_SignFinal(k->s, sig, NULL));
	/* given up */
	want(CKR_OK, p11_2->C_SignInit(k->s, &ecdsa256, k->ec));
	want(CKR_OK, p11_2->C_SignInit(k->s, NULL, 0));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_SignFinal(k->s, sig, &n));
	want(CKR_OK, p11_2->C_SignInit(k->s, &ecdsa256, k->ec));
	want(CKR_OK, p11_2->C_Login(k->s, CKU_CONTEXT_SPECIFIC, NULL, 0));
	want(CKR_OK, p11->C_SessionCancel(k->s, CKF_VERIFY));
	want(CKR_OPERATION_ACTIVE, p11_2->C_SignInit(k->s, &ecdsa256, k->ec));
	want(CKR_OK, p11->C_SessionCancel(k->s, CKF_SIGN));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_SignFinal(k->s, sig, &n));
}

static void verify_misused(const struct keys *k)
{
	CK_BYTE in[32] = {1}, sig[64] = {2};

	want(CKR_ARGUMENTS_BAD, p11_2->C_VerifyInit(k->s, NULL, k->ec_pub));
	want(CKR_MECHANISM_INVALID, p11_2->C_VerifyInit(k->s, &des, k->ec_pub));
	want(CKR_KEY_HANDLE_INVALID, p11_2->C_VerifyInit(k->s, &ecdsa, 0));
	want(CKR_KEY_TYPE_INCONSISTENT, p11_2->C_VerifyInit(k->s, &ecdsa, k->rsa_pub));
	want(CKR_KEY_FUNCTION_NOT_PERMITTED, p11_2->C_VerifyInit(k->s, &ecdsa, k->ec));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_Verify(k->s, in, 32, sig, 64));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_VerifyUpdate(k->s, in, 32));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_VerifyFinal(k->s, sig, 64));
	want(CKR_OK, p11_2->C_VerifyInit(k->s, &ecdsa, k->ec_pub));
	want(CKR_OPERATION_ACTIVE, p11_2->C_VerifyInit(k->s, &ecdsa, k->ec_pub));
	want(CKR_SIGNATURE_LEN_RANGE, p11_2->C_Verify(k->s, in, 32, sig, 63));
	want(CKR_OK, p11_2->C_VerifyInit(k->s, &ecdsa, k->ec_pub));
	want(CKR_SIGNATURE_INVALID, p11_2->C_Verify(k->s, in, 32, sig, 64));
	want(CKR_OK, p11_2->C_VerifyInit(k->s, &ecdsa, k->ec_pub));
	want(CKR_ARGUMENTS_BAD, p11_2->C_Verify(k->s, in, 32, NULL, 64));
	want(CKR_OK, p11_2->C_VerifyInit(k->s, &ecdsa, k->ec_pub));
	want(CKR_DATA_LEN_RANGE, p11_2->C_Verify(k->s, in, 0, sig, 64));
	want(CKR_OK, p11_2->C_VerifyInit(k->s, &ecdsa256, k->ec_pub));
	want(CKR_OK, p11_2->C_VerifyUpdate(k->s, in, 32));
	want(CKR_OPERATION_ACTIVE, p11_2->C_Verify(k->s, in, 32, sig, 64));
	want(CKR_OK, p11_2->C_VerifyInit(k->s, &ecdsa256, k->ec_pub));
	want(CKR_ARGUMENTS_BAD, p11_2->C_VerifyFinal(k->s, NULL, 64));
}

static void crypt_misused(const struct keys *k)
{
	CK_RSA_PKCS_OAEP_PARAMS odd = oaep_params;
	CK_MECHANISM m = {CKM_RSA_PKCS_OAEP, &odd, sizeof(odd)}, none = {CKM_RSA_PKCS_OAEP, NULL, 0};
	CK_BYTE in[256] = {1}, out[256];
	CK_ULONG n = sizeof(out);

	want(CKR_ARGUMENTS_BAD, p11_2->C_EncryptInit(k->s, NULL, k->rsa_pub));
	want(CKR_MECHANISM_INVALID, p11_2->C_EncryptInit(k->s, &ecdsa, k->ec_pub));
	want(CKR_MECHANISM_PARAM_INVALID, p11_2->C_EncryptInit(k->s, &none, k->rsa_pub));
	odd.source = 77;
	want(CKR_MECHANISM_PARAM_INVALID, p11_2->C_EncryptInit(k->s, &m, k->rsa_pub));
	want(CKR_KEY_TYPE_INCONSISTENT, p11_2->C_EncryptInit(k->s, &oaep, k->ec_pub));
	want(CKR_KEY_FUNCTION_NOT_PERMITTED, p11_2->C_EncryptInit(k->s, &oaep, k->rsa));
	want(CKR_KEY_HANDLE_INVALID, p11_2->C_EncryptInit(k->s, &oaep, 0));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_Encrypt(k->s, in, 3, out, &n));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_EncryptUpdate(k->s, in, 3, out, &n));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_EncryptFinal(k->s, out, &n));
	want(CKR_OK, p11_2->C_EncryptInit(k->s, &oaep, k->rsa_pub));
	want(CKR_DATA_LEN_RANGE, p11_2->C_Encrypt(k->s, in, 191, out, &n));
	want(CKR_OK, p11_2->C_EncryptInit(k->s, &oaep, k->rsa_pub));
	want(CKR_OK, p11_2->C_Encrypt(k->s, in, 190, NULL, &n));
	n = 255;
	want(CKR_BUFFER_TOO_SMALL, p11_2->C_Encrypt(k->s, in, 190, out, &n));
	assert_int_equal(n, 256);
	want(CKR_OK, p11_2->C_Encrypt(k->s, in, 190, out, &n));
	want(CKR_ARGUMENTS_BAD, p11_2->C_DecryptInit(k->s, NULL, k->rsa));
	want(CKR_MECHANISM_INVALID, p11_2->C_DecryptInit(k->s, &pkcs1, k->rsa));
	want(CKR_KEY_TYPE_INCONSISTENT, p11_2->C_DecryptInit(k->s, &oaep, k->ec));
	want(CKR_KEY_FUNCTION_NOT_PERMITTED, p11_2->C_DecryptInit(k->s, &oaep, k->rsa_pub));
	want(CKR_KEY_HANDLE_INVALID, p11_2->C_DecryptInit(k->s, &oaep, 0));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_Decrypt(k->s, out, 256, in, &n));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_DecryptUpdate(k->s, out, 256, in, &n));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_DecryptFinal(k->s, in, &n));
	want(CKR_OK, p11_2->C_DecryptInit(k->s, &oaep, k->rsa));
	want(CKR_ENCRYPTED_DATA_LEN_RANGE, p11_2->C_Decrypt(k->s, out, 255, in, &n));
	want(CKR_OK, p11_2->C_DecryptInit(k->s, &oaep, k->rsa));
	n = 100;
	want(CKR_BUFFER_TOO_SMALL, p11_2->C_Decrypt(k->s, out, 256, in, &n));
	assert_int_equal(n, 190);
	want(CKR_OK, p11_2->C_Decrypt(k->s, out, 256, in, &n));
	out[200] ^= 1;
	want(CKR_OK, p11_2->C_DecryptInit(k->s, &oaep, k->rsa));
	want(CKR_ENCRYPTED_DATA_INVALID, p11_2->C_Decrypt(k->s, out, 256, in, &n));
	want(CKR_OK, p11_2->C_DecryptInit(k->s, &oaep, k->rsa));
	want(CKR_ARGUMENTS_BAD, p11_2->C_Decrypt(k->s, out, 256, in, NULL));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_Decrypt(k->s, out, 256, in, &n));
}

static void derive_misused(const struct keys *k)
{
	CK_BYTE point[67] = {4};
	CK_ECDH1_DERIVE_PARAMS p = {CKD_NULL, 0, NULL, 65, point};
	CK_MECHANISM m = {CKM_ECDH1_DERIVE, &p, sizeof(p)};
	CK_OBJECT_HANDLE o;

	want(CKR_ARGUMENTS_BAD, p11_2->C_DeriveKey(k->s, NULL, k->ec, NULL, 0, &o));
	want(CKR_ARGUMENTS_BAD, p11_2->C_DeriveKey(k->s, &m, k->ec, NULL, 0, NULL));
	want(CKR_ARGUMENTS_BAD, p11_2->C_DeriveKey(k->s, &m, k->ec, NULL, 1, &o));
	want(CKR_MECHANISM_INVALID, p11_2->C_DeriveKey(k->s, &ecdsa, k->ec, NULL, 0, &o));
	want(CKR_MECHANISM_PARAM_INVALID, p11_2->C_DeriveKey(k->s, &ecdh, k->ec, NULL, 0, &o));
	want(CKR_KEY_HANDLE_INVALID, p11_2->C_DeriveKey(k->s, &m, 0, NULL, 0, &o));
	want(CKR_KEY_TYPE_INCONSISTENT, p11_2->C_DeriveKey(k->s, &m, k->rsa, NULL, 0, &o));
	want(CKR_KEY_FUNCTION_NOT_PERMITTED, p11_2->C_DeriveKey(k->s, &m, k->ec_pub, NULL, 0, &o));
	/* a point that is none */
	want(CKR_MECHANISM_PARAM_INVALID, p11_2->C_DeriveKey(k->s, &m, k->ec, NULL, 0, &o));
	p.ulPublicDataLen = 64;
	want(CKR_MECHANISM_PARAM_INVALID, p11_2->C_DeriveKey(k->s, &m, k->ec, NULL, 0, &o));
	p.ulPublicDataLen = 65;
	p.kdf = CKD_SHA256_KDF;
	want(CKR_MECHANISM_PARAM_INVALID, p11_2->C_DeriveKey(k->s, &m, k->ec, NULL, 0, &o));
	p.kdf = CKD_NULL;
	CK_ULONG aes = CKK_AES, odd = 15, much = 33;
	CK_BBOOL yes = CK_TRUE;
	CK_ATTRIBUTE bad[] = {{CKA_KEY_TYPE, &aes, sizeof(aes)}, {CKA_VALUE_LEN, &odd, sizeof(odd)}},
		     token[] = {{CKA_TOKEN, &yes, 1}}, len[] = {{CKA_VALUE_LEN, &much, sizeof(much)}},
		     value[] = {{CKA_VALUE, &odd, 4}}, modulus[] = {{CKA_MODULUS, &odd, 4}};

	want(CKR_TEMPLATE_INCONSISTENT, p11_2->C_DeriveKey(k->s, &m, k->ec, bad, 2, &o));
	want(CKR_TEMPLATE_INCONSISTENT, p11_2->C_DeriveKey(k->s, &m, k->ec, token, 1, &o));
	want(CKR_TEMPLATE_INCONSISTENT, p11_2->C_DeriveKey(k->s, &m, k->ec, len, 1, &o));
	want(CKR_ATTRIBUTE_READ_ONLY, p11_2->C_DeriveKey(k->s, &m, k->ec, value, 1, &o));
	want(CKR_ATTRIBUTE_TYPE_INVALID, p11_2->C_DeriveKey(k->s, &m, k->ec, modulus, 1, &o));
}

static void objects_misused(const struct keys *k)
{
	CK_SESSION_HANDLE rw = p11fix_session(k->slot, CKF_RW_SESSION);
	CK_BYTE buf[1024];
	CK_ATTRIBUTE secret = {CKA_VALUE, buf, sizeof(buf)}, small = {CKA_LABEL, buf, 1}, odd = {CKA_VALUE_BITS, buf, 8},
		     label = {CKA_LABEL, (void *)(uintptr_t)"other", 5}, d = {CKA_PRIVATE_EXPONENT, NULL, 0},
		     mixed[] = {{CKA_VALUE, buf, 8}, {CKA_CLASS, buf, sizeof(CK_ULONG)}, {CKA_MODULUS, NULL, 0}},
		     null = {CKA_LABEL, NULL, 3}, sensitive = {CKA_SENSITIVE, (void *)(uintptr_t)"", 1};
	CK_OBJECT_HANDLE o;
	CK_ULONG n;

	want(CKR_ARGUMENTS_BAD, p11_2->C_GetAttributeValue(k->s, k->ec, NULL, 1));
	want(CKR_OBJECT_HANDLE_INVALID, p11_2->C_GetAttributeValue(k->s, 0, &small, 1));
	want(CKR_ATTRIBUTE_SENSITIVE, p11_2->C_GetAttributeValue(k->s, k->ec, &secret, 1));
	assert_int_equal(secret.ulValueLen, CK_UNAVAILABLE_INFORMATION);
	want(CKR_ATTRIBUTE_SENSITIVE, p11_2->C_GetAttributeValue(k->s, k->rsa, &d, 1));
	want(CKR_ATTRIBUTE_TYPE_INVALID, p11_2->C_GetAttributeValue(k->s, k->ec, &odd, 1));
	want(CKR_BUFFER_TOO_SMALL, p11_2->C_GetAttributeValue(k->s, k->ec, &small, 1));
	assert_int_equal(small.ulValueLen, CK_UNAVAILABLE_INFORMATION);
	/* the others are given all the same */
	want(CKR_ATTRIBUTE_SENSITIVE, p11_2->C_GetAttributeValue(k->s, k->ec, mixed, 3));
	assert_int_equal(mixed[1].ulValueLen, sizeof(CK_ULONG));
	want(CKR_SESSION_READ_ONLY, p11_2->C_SetAttributeValue(k->s, k->ec, &label, 1));
	want(CKR_OBJECT_HANDLE_INVALID, p11_2->C_SetAttributeValue(rw, 0, &label, 1));
	want(CKR_ARGUMENTS_BAD, p11_2->C_SetAttributeValue(rw, k->ec, NULL, 1));
	want(CKR_ATTRIBUTE_VALUE_INVALID, p11_2->C_SetAttributeValue(rw, k->ec, &null, 1));
	want(CKR_ACTION_PROHIBITED, p11_2->C_SetAttributeValue(rw, k->ec, &label, 1));
	want(CKR_ACTION_PROHIBITED, p11_2->C_SetAttributeValue(rw, k->ec, &sensitive, 1));
	odd.ulValueLen = 8;
	want(CKR_ATTRIBUTE_TYPE_INVALID, p11_2->C_SetAttributeValue(rw, k->ec, &odd, 1));
	want(CKR_ACTION_PROHIBITED, p11_2->C_CopyObject(rw, k->ec, NULL, 0, &o));
	want(CKR_OBJECT_HANDLE_INVALID, p11_2->C_CopyObject(rw, 0, NULL, 0, &o));
	want(CKR_ARGUMENTS_BAD, p11_2->C_CopyObject(rw, k->ec, NULL, 0, NULL));
	want(CKR_SESSION_READ_ONLY, p11_2->C_DestroyObject(k->s, k->ec));
	want(CKR_OBJECT_HANDLE_INVALID, p11_2->C_DestroyObject(rw, 0));
	want(CKR_ACTION_PROHIBITED, p11_2->C_DestroyObject(rw, k->ec_pub));
	want(CKR_ARGUMENTS_BAD, p11_2->C_GetObjectSize(k->s, k->ec, NULL));
	want(CKR_OBJECT_HANDLE_INVALID, p11_2->C_GetObjectSize(k->s, 0, &n));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_FindObjects(k->s, &o, 1, &n));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_FindObjectsFinal(k->s));
	want(CKR_ARGUMENTS_BAD, p11_2->C_FindObjectsInit(k->s, NULL, 1));
	want(CKR_OK, p11_2->C_FindObjectsInit(k->s, NULL, 0));
	want(CKR_OPERATION_ACTIVE, p11_2->C_FindObjectsInit(k->s, NULL, 0));
	want(CKR_OPERATION_ACTIVE, p11_2->C_SignInit(k->s, &ecdsa, k->ec));
	want(CKR_ARGUMENTS_BAD, p11_2->C_FindObjects(k->s, NULL, 1, &n));
	want(CKR_ARGUMENTS_BAD, p11_2->C_FindObjects(k->s, &o, 1, NULL));
	want(CKR_OK, p11_2->C_FindObjectsFinal(k->s));
	want(CKR_OK, p11_2->C_CloseSession(rw));
}

static void with_keys(void (*f)(const struct keys *))
{
	for (size_t i = 0; i < N_ELEMS(kinds); i++) {
		struct keys k;

		keys_up(&kinds[i], &k);
		f(&k);
		p11fix_down();
	}
}

static void test_sign(void **state)
{
	(void)state;
	with_keys(sign_misused);
}
static void test_verify(void **state)
{
	(void)state;
	with_keys(verify_misused);
}
static void test_crypt(void **state)
{
	(void)state;
	with_keys(crypt_misused);
}
static void test_derive(void **state)
{
	(void)state;
	with_keys(derive_misused);
}
static void test_objects(void **state)
{
	(void)state;
	with_keys(objects_misused);
}

static void test_digest(void **state)
{
	CK_SESSION_HANDLE s = p11fix_session(p11fix_up(), 0);
	CK_BYTE out[64];
	CK_ULONG n = sizeof(out);
	CK_MECHANISM param = {CKM_SHA256, out, 1};
	CK_OBJECT_HANDLE key = p11fix_find(s, CKO_PUBLIC_KEY, "ec-soft");

	(void)state;
	want(CKR_ARGUMENTS_BAD, p11_2->C_DigestInit(s, NULL));
	want(CKR_MECHANISM_INVALID, p11_2->C_DigestInit(s, &ecdsa));
	want(CKR_MECHANISM_PARAM_INVALID, p11_2->C_DigestInit(s, &param));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_Digest(s, out, 1, out, &n));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_DigestUpdate(s, out, 1));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_DigestKey(s, 1));
	want(CKR_OPERATION_NOT_INITIALIZED, p11_2->C_DigestFinal(s, out, &n));
	want(CKR_OK, p11_2->C_DigestInit(s, &sha256));
	want(CKR_OPERATION_ACTIVE, p11_2->C_DigestInit(s, &sha256));
	want(CKR_OK, p11_2->C_Digest(s, out, 1, NULL, &n));
	assert_int_equal(n, 32);
	n = 31;
	want(CKR_BUFFER_TOO_SMALL, p11_2->C_Digest(s, out, 1, out, &n));
	want(CKR_OK, p11_2->C_Digest(s, out, 1, out, &n));
	want(CKR_OK, p11_2->C_DigestInit(s, &sha256));
	want(CKR_OK, p11_2->C_DigestUpdate(s, out, 1));
	want(CKR_OPERATION_ACTIVE, p11_2->C_Digest(s, out, 1, out, &n));
	want(CKR_OK, p11_2->C_DigestInit(s, &sha256));
	want(CKR_KEY_HANDLE_INVALID, p11_2->C_DigestKey(s, 0));
	want(CKR_OK, p11_2->C_DigestInit(s, &sha256));
	want(CKR_KEY_INDIGESTIBLE, p11_2->C_DigestKey(s, key));
	p11fix_down();
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		P11FIX_TEST(test_not_initialized),
		P11FIX_TEST(test_session_handle_invalid),
		P11FIX_TEST(test_initialize),
		P11FIX_TEST(test_slots),
		P11FIX_TEST(test_sessions),
		P11FIX_TEST(test_sign),
		P11FIX_TEST(test_verify),
		P11FIX_TEST(test_crypt),
		P11FIX_TEST(test_derive),
		P11FIX_TEST(test_digest),
		P11FIX_TEST(test_objects),
	};

	(void)argc;
	p11fix_main(argv, "tpm2", 100);
	for (size_t i = 0; i < N_ELEMS(kinds); i++) {
		p11fix_key(kinds[i].ec, "p256", kinds[i].backend, "sign,derive");
		p11fix_key(kinds[i].rsa, "rsa2048", kinds[i].backend, NULL);
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
