/* The PKCS#11 module of this build, in the test's own process, with a private node behind it. */
#ifndef TESTS_LIB_P11FIX_H
#define TESTS_LIB_P11FIX_H

#include <stdbool.h>
#include "libclient/include/csm/csm.h"
#include "libclient/p11/cryptoki.h"

/* Run this program again inside a private node with that back end (soft or tpm2), where it returns; bounded to that many
 * seconds. Then the module is loaded, and not initialized. */
void p11fix_main(char **argv, const char *backend, unsigned seconds);
/* The same without a node: CSM_SOCKET as it is. */
void p11fix_load(unsigned seconds);

extern CK_FUNCTION_LIST_3_0 *p11;
extern CK_FUNCTION_LIST *p11_2; /* the functions of 2.40 in it */
extern char p11fix_module[512];

#define want(code, ...) p11fix_want(code, __VA_ARGS__, #__VA_ARGS__, __FILE__, __LINE__)
void p11fix_want(CK_RV wanted, CK_RV got, const char *what, const char *file, int line);

/* By libcsm, in the home namespace: the key is made unless it is there. use NULL: by default. */
void p11fix_key(const char *name, const char *alg, const char *backend, const char *use);
/* C_Initialize for threads; the first slot with a token. */
CK_SLOT_ID p11fix_up(void);
void p11fix_down(void);
CK_SESSION_HANDLE p11fix_session(CK_SLOT_ID slot, CK_FLAGS flags);
/* The one object of this class and label; 0. */
CK_OBJECT_HANDLE p11fix_find(CK_SESSION_HANDLE s, CK_OBJECT_CLASS class, const char *label);
/* SignInit and Sign; the length, 0 when either failed. */
CK_ULONG p11fix_sign(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key, const void *data, CK_ULONG n,
	CK_BYTE *out, CK_ULONG room);

/* A test that failed leaves the library to none after it. */
int p11fix_teardown(void **state);
#define P11FIX_TEST(f) cmocka_unit_test_teardown(f, p11fix_teardown)

#endif
