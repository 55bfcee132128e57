#include <dlfcn.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/lib/p11fix.h"

CK_FUNCTION_LIST_3_0 *p11;
CK_FUNCTION_LIST *p11_2;
char p11fix_module[512];

static void die(const char *what)
{
	fprintf(stderr, "p11fix: %s\n", what);
	exit(1);
}

/* build/VARIANT of build/VARIANT/tests/unit/test_x. */
static void build_folder(char out[static PATH_MAX])
{
	ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - 1);

	if (n <= 0)
		die("/proc/self/exe");
	out[n] = '\0';
	for (int up = 0; up < 3; up++) {
		char *slash = strrchr(out, '/');

		if (slash == NULL)
			die("not in a build folder");
		*slash = '\0';
	}
}

void p11fix_load(unsigned seconds)
{
	CK_RV (*get)(CK_UTF8CHAR_PTR, CK_VERSION_PTR, CK_INTERFACE_PTR_PTR, CK_FLAGS);
	char build[PATH_MAX];
	CK_INTERFACE *i;
	void *so, *symbol;

	alarm(seconds);
	build_folder(build);
	(void)snprintf(p11fix_module, sizeof(p11fix_module), "%.480s/lib/pkcs11/csm-pkcs11.so", build);
	so = dlopen(p11fix_module, RTLD_NOW | RTLD_LOCAL);
	symbol = so != NULL ? dlsym(so, "C_GetInterface") : NULL;
	if (symbol == NULL)
		die(dlerror());
	memcpy(&get, &symbol, sizeof(get));
	if (get(NULL, NULL, &i, 0) != CKR_OK)
		die("C_GetInterface");
	p11 = i->pFunctionList;
	p11_2 = &p11->v2;
}

void p11fix_main(char **argv, const char *backend, unsigned seconds)
{
	char build[PATH_MAX], with_node[PATH_MAX + 64], self[PATH_MAX];
	ssize_t n;

	if (getenv("CSM_P11FIX") != NULL) {
		p11fix_load(seconds);
		return;
	}
	build_folder(build);
	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n <= 0)
		die("/proc/self/exe");
	self[n] = '\0';
	(void)snprintf(with_node, sizeof(with_node), "%s", build);
	/* the tree is above its build folder */
	*strstr(with_node, "/build") = '\0';
	n = (ssize_t)strlen(with_node);
	(void)snprintf(with_node + n, sizeof(with_node) - (size_t)n, "/scripts/with-node.sh");
	if (setenv("CSM_BUILD", build, 1) != 0 || setenv("CSM_P11FIX", "1", 1) != 0)
		die("setenv");
	(void)argv;
	(void)execl(with_node, with_node, "--backend", backend, "--", self, (char *)NULL);
	die(with_node);
}

void p11fix_want(CK_RV wanted, CK_RV got, const char *what, const char *file, int line)
{
	if (wanted == got)
		return;
	print_error("%s: 0x%lx, not 0x%lx\n", what, got, wanted);
	_fail(file, line);
}

void p11fix_key(const char *name, const char *alg, const char *backend, const char *use)
{
	struct csm *csm;
	int r;

	assert_int_equal(csm_new(&csm), 0);
	r = csm_key_create(csm, name, alg, backend, use, NULL);
	if (r != 0 && r != CSM_EEXISTS)
		fail_msg("%s: %s", name, csm_error_message());
	csm_free(csm);
}

CK_SLOT_ID p11fix_up(void)
{
	CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK};
	CK_SLOT_ID slots[16];
	CK_ULONG n = 16;

	want(CKR_OK, p11_2->C_Initialize(&args));
	want(CKR_OK, p11_2->C_GetSlotList(CK_TRUE, slots, &n));
	assert_true(n >= 1);
	return slots[0];
}

void p11fix_down(void)
{
	want(CKR_OK, p11_2->C_Finalize(NULL));
}

CK_SESSION_HANDLE p11fix_session(CK_SLOT_ID slot, CK_FLAGS flags)
{
	CK_SESSION_HANDLE s = 0;

	want(CKR_OK, p11_2->C_OpenSession(slot, CKF_SERIAL_SESSION | flags, NULL, NULL, &s));
	return s;
}

CK_OBJECT_HANDLE p11fix_find(CK_SESSION_HANDLE s, CK_OBJECT_CLASS class, const char *label)
{
	CK_ATTRIBUTE t[] = {
		{CKA_CLASS, &class, sizeof(class)},
		{CKA_LABEL, (void *)(uintptr_t)label, strlen(label)},
	};
	CK_OBJECT_HANDLE found[2] = {0};
	CK_ULONG n = 0;

	want(CKR_OK, p11_2->C_FindObjectsInit(s, t, 2));
	want(CKR_OK, p11_2->C_FindObjects(s, found, 2, &n));
	want(CKR_OK, p11_2->C_FindObjectsFinal(s));
	return n == 1 ? found[0] : 0;
}

CK_ULONG p11fix_sign(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key, const void *data, CK_ULONG n,
	CK_BYTE *out, CK_ULONG room)
{
	if (p11_2->C_SignInit(s, m, key) != CKR_OK)
		return 0;
	return p11_2->C_Sign(s, (CK_BYTE *)(uintptr_t)data, n, out, &room) == CKR_OK ? room : 0;
}

int p11fix_teardown(void **state)
{
	(void)state;
	(void)p11_2->C_Finalize(NULL);
	return 0;
}
