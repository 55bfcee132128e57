/* The declarations of PKCS#11: p11-kit's header for 2.40, and what version 3.0 adds to it where that header does not
 * have it yet. Names, numbers and layouts are the standard's. */
#ifndef CSM_P11_CRYPTOKI_H
#define CSM_P11_CRYPTOKI_H

#pragma GCC visibility push(default)
#include <p11-kit-1/p11-kit/pkcs11.h>

#ifndef CKA_UNIQUE_ID
#define CKA_UNIQUE_ID 0x4UL
#endif
#ifndef CKR_OPERATION_CANCEL_FAILED
#define CKR_OPERATION_CANCEL_FAILED 0x202UL
#endif
#ifndef CKF_FIND_OBJECTS
#define CKF_FIND_OBJECTS 0x40UL
#endif

#if CRYPTOKI_VERSION_MAJOR < 3
#define CKF_INTERFACE_FORK_SAFE 1UL

typedef struct CK_INTERFACE {
	CK_CHAR *pInterfaceName;
	CK_VOID_PTR pFunctionList;
	CK_FLAGS flags;
} CK_INTERFACE;
typedef CK_INTERFACE *CK_INTERFACE_PTR;
typedef CK_INTERFACE_PTR *CK_INTERFACE_PTR_PTR;

typedef struct CK_EDDSA_PARAMS {
	CK_BBOOL phFlag;
	CK_ULONG ulContextDataLen;
	CK_BYTE_PTR pContextData;
} CK_EDDSA_PARAMS;

#define P11_DECLARE(name, args) \
	typedef CK_RV(*CK_##name) args; \
	CK_RV name args

P11_DECLARE(C_GetInterfaceList, (CK_INTERFACE_PTR list, CK_ULONG_PTR count));
P11_DECLARE(C_GetInterface, (CK_UTF8CHAR_PTR name, CK_VERSION_PTR version, CK_INTERFACE_PTR_PTR ret, CK_FLAGS flags));
P11_DECLARE(C_LoginUser, (CK_SESSION_HANDLE session, CK_USER_TYPE type, CK_UTF8CHAR_PTR pin, CK_ULONG pin_len,
	CK_UTF8CHAR_PTR user, CK_ULONG user_len));
P11_DECLARE(C_SessionCancel, (CK_SESSION_HANDLE session, CK_FLAGS flags));
P11_DECLARE(C_MessageEncryptInit, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key));
P11_DECLARE(C_EncryptMessage, (CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len, CK_BYTE_PTR aad,
	CK_ULONG aad_len, CK_BYTE_PTR plain, CK_ULONG plain_len, CK_BYTE_PTR cipher, CK_ULONG_PTR cipher_len));
P11_DECLARE(C_EncryptMessageBegin, (CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len,
	CK_BYTE_PTR aad, CK_ULONG aad_len));
P11_DECLARE(C_EncryptMessageNext, (CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len,
	CK_BYTE_PTR plain, CK_ULONG plain_len, CK_BYTE_PTR cipher, CK_ULONG_PTR cipher_len, CK_FLAGS flags));
P11_DECLARE(C_MessageEncryptFinal, (CK_SESSION_HANDLE session));
P11_DECLARE(C_MessageDecryptInit, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key));
P11_DECLARE(C_DecryptMessage, (CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len, CK_BYTE_PTR aad,
	CK_ULONG aad_len, CK_BYTE_PTR cipher, CK_ULONG cipher_len, CK_BYTE_PTR plain, CK_ULONG_PTR plain_len));
P11_DECLARE(C_DecryptMessageBegin, (CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len,
	CK_BYTE_PTR aad, CK_ULONG aad_len));
P11_DECLARE(C_DecryptMessageNext, (CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len,
	CK_BYTE_PTR cipher, CK_ULONG cipher_len, CK_BYTE_PTR plain, CK_ULONG_PTR plain_len, CK_FLAGS flags));
P11_DECLARE(C_MessageDecryptFinal, (CK_SESSION_HANDLE session));
P11_DECLARE(C_MessageSignInit, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key));
P11_DECLARE(C_SignMessage, (CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len, CK_BYTE_PTR data,
	CK_ULONG data_len, CK_BYTE_PTR signature, CK_ULONG_PTR signature_len));
P11_DECLARE(C_SignMessageBegin, (CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len));
P11_DECLARE(C_SignMessageNext, (CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len, CK_BYTE_PTR data,
	CK_ULONG data_len, CK_BYTE_PTR signature, CK_ULONG_PTR signature_len));
P11_DECLARE(C_MessageSignFinal, (CK_SESSION_HANDLE session));
P11_DECLARE(C_MessageVerifyInit, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key));
P11_DECLARE(C_VerifyMessage, (CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len, CK_BYTE_PTR data,
	CK_ULONG data_len, CK_BYTE_PTR signature, CK_ULONG signature_len));
P11_DECLARE(C_VerifyMessageBegin, (CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len));
P11_DECLARE(C_VerifyMessageNext, (CK_SESSION_HANDLE session, CK_VOID_PTR param, CK_ULONG param_len, CK_BYTE_PTR data,
	CK_ULONG data_len, CK_BYTE_PTR signature, CK_ULONG signature_len));
P11_DECLARE(C_MessageVerifyFinal, (CK_SESSION_HANDLE session));

/* All of version 2.40 comes first, in the same order. */
typedef struct CK_FUNCTION_LIST_3_0 {
	CK_FUNCTION_LIST v2;
	CK_C_GetInterfaceList C_GetInterfaceList;
	CK_C_GetInterface C_GetInterface;
	CK_C_LoginUser C_LoginUser;
	CK_C_SessionCancel C_SessionCancel;
	CK_C_MessageEncryptInit C_MessageEncryptInit;
	CK_C_EncryptMessage C_EncryptMessage;
	CK_C_EncryptMessageBegin C_EncryptMessageBegin;
	CK_C_EncryptMessageNext C_EncryptMessageNext;
	CK_C_MessageEncryptFinal C_MessageEncryptFinal;
	CK_C_MessageDecryptInit C_MessageDecryptInit;
	CK_C_DecryptMessage C_DecryptMessage;
	CK_C_DecryptMessageBegin C_DecryptMessageBegin;
	CK_C_DecryptMessageNext C_DecryptMessageNext;
	CK_C_MessageDecryptFinal C_MessageDecryptFinal;
	CK_C_MessageSignInit C_MessageSignInit;
	CK_C_SignMessage C_SignMessage;
	CK_C_SignMessageBegin C_SignMessageBegin;
	CK_C_SignMessageNext C_SignMessageNext;
	CK_C_MessageSignFinal C_MessageSignFinal;
	CK_C_MessageVerifyInit C_MessageVerifyInit;
	CK_C_VerifyMessage C_VerifyMessage;
	CK_C_VerifyMessageBegin C_VerifyMessageBegin;
	CK_C_VerifyMessageNext C_VerifyMessageNext;
	CK_C_MessageVerifyFinal C_MessageVerifyFinal;
} CK_FUNCTION_LIST_3_0;
#else
#error "this p11-kit has PKCS#11 3.0 itself: drop the declarations above, and take its names"
#endif

#pragma GCC visibility pop

#endif
