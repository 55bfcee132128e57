/* Signing by calls: OpenSSL in this process, and any PKCS#11 module. */
#include <dlfcn.h>
#include <openssl/ec.h>
#include <p11-kit-1/p11-kit/pkcs11.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/bench/gen/gen.h"

/* ---- OpenSSL ---- */

static int openssl_open(const struct target *t, void **ret)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	EVP_PKEY_CTX *ctx = key != NULL ? EVP_PKEY_CTX_new(key, NULL) : NULL;

	(void)t;
	EVP_PKEY_free(key);
	if (ctx == NULL || EVP_PKEY_sign_init(ctx) != 1) {
		EVP_PKEY_CTX_free(ctx);
		return CSM_EBACKEND;
	}
	*ret = ctx;
	return 0;
}

static int openssl_call(void *state)
{
	uint8_t signature[128];
	size_t n = sizeof(signature);

	return EVP_PKEY_sign(state, signature, &n, gen_digest(), 32) == 1 ? 0 : CSM_EBACKEND;
}

/* ---- PKCS#11: one module a process, one session a client ---- */

struct session {
	CK_FUNCTION_LIST *f;
	CK_SESSION_HANDLE handle;
	CK_OBJECT_HANDLE key;
};

static int rv(const char *what, CK_RV code)
{
	if (code == CKR_OK || code == CKR_CRYPTOKI_ALREADY_INITIALIZED || code == CKR_USER_ALREADY_LOGGED_IN)
		return 0;
	fprintf(stderr, "load: %s: 0x%lx\n", what, code);
	return CSM_EBACKEND;
}

static int load_module(const char *path, CK_FUNCTION_LIST **ret)
{
	void *so = path != NULL ? dlopen(path, RTLD_NOW) : NULL;
	CK_C_GetFunctionList get;
	void *symbol = so != NULL ? dlsym(so, "C_GetFunctionList") : NULL;

	if (symbol == NULL) {
		fprintf(stderr, "load: --module: %s\n", path != NULL ? dlerror() : "missing");
		return CSM_ESYSTEM;
	}
	memcpy(&get, &symbol, sizeof(get));
	return rv("C_GetFunctionList", get(ret));
}

/* The slot that has a token, not an empty one. */
static int find_slot(CK_FUNCTION_LIST *f, CK_SLOT_ID *ret)
{
	CK_SLOT_ID slots[16];
	CK_ULONG n = 16;
	int r = rv("C_GetSlotList", f->C_GetSlotList(CK_TRUE, slots, &n));

	for (CK_ULONG i = 0; i < n && r == 0; i++) {
		CK_TOKEN_INFO info;

		if (f->C_GetTokenInfo(slots[i], &info) == CKR_OK && (info.flags & CKF_TOKEN_INITIALIZED) != 0) {
			*ret = slots[i];
			return 0;
		}
	}
	fprintf(stderr, "load: no token\n");
	return CSM_ENOT_FOUND;
}

static int find_key(struct session *s, const char *label)
{
	CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
	CK_ATTRIBUTE want[] = {
		{CKA_CLASS, &class, sizeof(class)},
		{CKA_LABEL, (void *)(uintptr_t)label, strlen(label)},
	};
	CK_ULONG n = 0;
	int r = rv("C_FindObjectsInit", s->f->C_FindObjectsInit(s->handle, want, 2));

	if (r == 0)
		r = rv("C_FindObjects", s->f->C_FindObjects(s->handle, &s->key, 1, &n));
	if (r == 0)
		r = rv("C_FindObjectsFinal", s->f->C_FindObjectsFinal(s->handle));
	return r == 0 && n == 0 ? CSM_ENOT_FOUND : r;
}

static int make_key(struct session *s, const char *label)
{
	static CK_BYTE p256[] = {6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}, id[] = {1};
	CK_MECHANISM m = {CKM_EC_KEY_PAIR_GEN, NULL, 0};
	CK_OBJECT_HANDLE public;
	CK_BBOOL yes = CK_TRUE;
	CK_ATTRIBUTE name = {CKA_LABEL, (void *)(uintptr_t)label, strlen(label)};
	CK_ATTRIBUTE pub[] = {{CKA_EC_PARAMS, p256, sizeof(p256)}, {CKA_VERIFY, &yes, 1}, {CKA_TOKEN, &yes, 1},
		{CKA_ID, id, 1}, name};
	CK_ATTRIBUTE priv[] = {
		{CKA_SIGN, &yes, 1}, {CKA_TOKEN, &yes, 1}, {CKA_PRIVATE, &yes, 1}, {CKA_ID, id, 1}, name};

	return rv("C_GenerateKeyPair", s->f->C_GenerateKeyPair(s->handle, &m, pub, 5, priv, 5, &public, &s->key));
}

static int session_open(const struct target *t, CK_FLAGS flags, struct session *s)
{
	CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK};
	CK_SLOT_ID slot;
	int r = load_module(t->module, &s->f);

	if (r == 0)
		r = rv("C_Initialize", s->f->C_Initialize(&args));
	if (r == 0)
		r = find_slot(s->f, &slot);
	if (r == 0)
		r = rv("C_OpenSession", s->f->C_OpenSession(slot, CKF_SERIAL_SESSION | flags, NULL, NULL, &s->handle));
	if (r == 0)
		r = rv("C_Login", s->f->C_Login(s->handle, CKU_USER, (CK_BYTE *)(uintptr_t)t->pin, strlen(t->pin)));
	return r;
}

/* Makes the key where the token lacks it; a run's clients then only find it. */
static int pkcs11_make(struct target *t)
{
	struct session s = {0};
	int r = session_open(t, CKF_RW_SESSION, &s);

	if (r == 0)
		r = find_key(&s, t->key);
	if (r == CSM_ENOT_FOUND)
		r = make_key(&s, t->key);
	/* Clients that are processes of their own begin with a fresh module. */
	if (s.f != NULL)
		s.f->C_Finalize(NULL);
	return r;
}

static int pkcs11_open(const struct target *t, void **ret)
{
	struct session *s = calloc(1, sizeof(*s));
	int r = s != NULL ? session_open(t, 0, s) : CSM_ENOMEM;

	if (r == 0)
		r = find_key(s, t->key);
	if (r != 0) {
		free(s);
		return r;
	}
	*ret = s;
	return 0;
}

static int pkcs11_call(void *state)
{
	struct session *s = state;
	CK_MECHANISM m = {CKM_ECDSA, NULL, 0};
	CK_BYTE digest[32], signature[128];
	CK_ULONG n = sizeof(signature);
	CK_RV code;

	memcpy(digest, gen_digest(), sizeof(digest));
	code = s->f->C_SignInit(s->handle, &m, s->key);
	if (code == CKR_OK)
		code = s->f->C_Sign(s->handle, digest, sizeof(digest), signature, &n);
	return rv("C_Sign", code);
}

const struct work works_calls[] = {
	{.name = "openssl-sign", .open = openssl_open, .call = openssl_call},
	{.name = "pkcs11-sign", .prepare = pkcs11_make, .open = pkcs11_open, .call = pkcs11_call},
	{.name = NULL},
};
