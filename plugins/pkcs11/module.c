/* The library: loading it, and what its answers mean. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include "plugins/pkcs11/pkcs11.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

enum { LOST = 1, SUSPECT = 2, STALE = 4, LACKS = 8 };

/* What is not here is CSM_EBACKEND, and nothing is concluded from it. */
static const struct row {
	CK_RV rv;
	int r;
	unsigned what;
} rows[] = {
	{CKR_HOST_MEMORY, CSM_ENOMEM, 0},
	{CKR_SLOT_ID_INVALID, CSM_EUNAVAILABLE, LOST},
	{CKR_GENERAL_ERROR, CSM_EUNAVAILABLE, SUSPECT},
	{CKR_FUNCTION_FAILED, CSM_EUNAVAILABLE, SUSPECT},
	{CKR_DEVICE_ERROR, CSM_EUNAVAILABLE, SUSPECT},
	{CKR_DEVICE_MEMORY, CSM_EUNAVAILABLE, 0},
	{CKR_DEVICE_REMOVED, CSM_EUNAVAILABLE, LOST},
	{CKR_TOKEN_NOT_PRESENT, CSM_EUNAVAILABLE, LOST},
	{CKR_TOKEN_NOT_RECOGNIZED, CSM_EUNAVAILABLE, LOST},
	{CKR_SESSION_HANDLE_INVALID, CSM_EUNAVAILABLE, LOST},
	{CKR_SESSION_CLOSED, CSM_EUNAVAILABLE, LOST},
	{CKR_SESSION_COUNT, CSM_EUNAVAILABLE, 0},
	{CKR_USER_NOT_LOGGED_IN, CSM_EUNAVAILABLE, LOST},
	{CKR_CRYPTOKI_NOT_INITIALIZED, CSM_EUNAVAILABLE, LOST},
	{CKR_OPERATION_ACTIVE, CSM_EUNAVAILABLE, LOST}, /* a session in a state that is not ours */
	{CKR_OPERATION_NOT_INITIALIZED, CSM_EUNAVAILABLE, LOST},
	{CKR_FUNCTION_CANCELED, CSM_EUNAVAILABLE, 0},
	{CKR_KEY_HANDLE_INVALID, CSM_EUNAVAILABLE, STALE},
	{CKR_OBJECT_HANDLE_INVALID, CSM_EUNAVAILABLE, STALE},
	{CKR_MECHANISM_INVALID, CSM_EUNSUPPORTED, LACKS},
	{CKR_MECHANISM_PARAM_INVALID, CSM_EUNSUPPORTED, LACKS},
	{CKR_ARGUMENTS_BAD, CSM_EUNSUPPORTED, LACKS},
	{CKR_KEY_FUNCTION_NOT_PERMITTED, CSM_EUNSUPPORTED, LACKS},
	{CKR_KEY_TYPE_INCONSISTENT, CSM_EUNSUPPORTED, LACKS},
	{CKR_KEY_SIZE_RANGE, CSM_EUNSUPPORTED, LACKS},
	{CKR_DOMAIN_PARAMS_INVALID, CSM_EUNSUPPORTED, LACKS},
	{CKR_CURVE_NOT_SUPPORTED, CSM_EUNSUPPORTED, LACKS},
	{CKR_FUNCTION_NOT_SUPPORTED, CSM_EUNSUPPORTED, LACKS},
};

static const struct row *row_of(CK_RV rv)
{
	for (size_t i = 0; i < N_ELEMS(rows); i++)
		if (rows[i].rv == rv)
			return &rows[i];
	return NULL;
}

static bool is(CK_RV rv, unsigned what)
{
	const struct row *row = row_of(rv);

	return row != NULL && (row->what & what) != 0;
}

int p11_error(CK_RV rv)
{
	const struct row *row = row_of(rv);

	if (rv == CKR_OK)
		return 0;
	return row != NULL ? row->r : CSM_EBACKEND;
}

bool p11_lost(CK_RV rv)
{
	return is(rv, LOST);
}

bool p11_suspect(CK_RV rv)
{
	return is(rv, SUSPECT);
}

bool p11_stale(CK_RV rv)
{
	return is(rv, STALE);
}

bool p11_unsupported(CK_RV rv)
{
	return is(rv, LACKS);
}

void p11_log(const struct csm_plugin_ctx *ctx, int level, const char *what, CK_RV rv)
{
	char line[200];

	if (ctx->host->log == NULL)
		return;
	if (rv == CKR_OK)
		snprintf(line, sizeof(line), "pkcs11: %s", what);
	else
		snprintf(line, sizeof(line), "pkcs11: %s: the library answers 0x%lx", what, rv);
	ctx->host->log(ctx->host->arg, level, line);
}

/* Every function that is called from here must be there: a table may have holes. */
static bool table_whole(CK_FUNCTION_LIST_PTR f)
{
	return f != NULL && f->version.major >= 2 && f->C_Initialize != NULL && f->C_Finalize != NULL &&
		f->C_GetSlotList != NULL && f->C_GetSlotInfo != NULL && f->C_GetTokenInfo != NULL &&
		f->C_GetMechanismInfo != NULL && f->C_OpenSession != NULL && f->C_CloseSession != NULL &&
		f->C_Login != NULL && f->C_CreateObject != NULL && f->C_DestroyObject != NULL &&
		f->C_GetAttributeValue != NULL && f->C_FindObjectsInit != NULL && f->C_FindObjects != NULL &&
		f->C_FindObjectsFinal != NULL && f->C_EncryptInit != NULL && f->C_DecryptInit != NULL &&
		f->C_Decrypt != NULL && f->C_SignInit != NULL && f->C_Sign != NULL && f->C_GenerateKeyPair != NULL &&
		f->C_DeriveKey != NULL && f->C_GenerateRandom != NULL;
}

int p11_module_load(struct csm_plugin_ctx *ctx, const char *path)
{
	CK_RV (*get)(CK_FUNCTION_LIST_PTR_PTR) = NULL;
	CK_FUNCTION_LIST_PTR f = NULL;
	void *so;

	if (path == NULL || path[0] != '/') {
		p11_log(ctx, LOG_WARNING, "module: the path of a library, from the root, is required", CKR_OK);
		return CSM_EINVALID;
	}
	if ((so = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE)) == NULL) {
		const char *why = dlerror();

		p11_log(ctx, LOG_WARNING, why != NULL ? why : "the library does not load", CKR_OK);
		return CSM_EBACKEND;
	}
	/* Once is enough: the object stays, for libraries have threads and handlers at exit. */
	*(void **)&get = dlsym(so, "C_GetFunctionList");
	if (get == NULL || get(&f) != CKR_OK || !table_whole(f)) {
		p11_log(ctx, LOG_WARNING, "the library is no PKCS#11 module", CKR_OK);
		dlclose(so);
		return CSM_EBACKEND;
	}
	dlclose(so);
	ctx->f = f;
	return 0;
}
