/* A program with the PKCS#11 module in it, as those that people use, for tests that ask who may do what.
 *
 * usage: p11_probe MODULE TOKEN COMMAND...
 *
 *   tokens         the tokens that are there, a line each
 *   list           the private keys, a line each
 *   sign LABEL     create LABEL     delete LABEL       certificate LABEL
 *   pause FILE     wait until FILE is there, at most 60 s
 *   euid           whom this program runs as
 *   sign-again     with the session and the handle of the last sign
 *   again          end the library, and begin it anew
 *
 * Each says "COMMAND: CODE" with the standard's code, 0 for what was done. TOKEN "-" is the first. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "libclient/p11/cryptoki.h"

static CK_FUNCTION_LIST *p11;
static const char *token;

static CK_RV load(const char *path)
{
	void *so = dlopen(path, RTLD_NOW), *symbol = so != NULL ? dlsym(so, "C_GetFunctionList") : NULL;
	CK_C_GetFunctionList get;

	if (symbol == NULL) {
		fprintf(stderr, "p11_probe: %s\n", dlerror());
		return CKR_GENERAL_ERROR;
	}
	memcpy(&get, &symbol, sizeof(get));
	if (get(&p11) != CKR_OK)
		return CKR_GENERAL_ERROR;
	return p11->C_Initialize(NULL);
}

static void say_padded(const CK_BYTE *p, size_t n)
{
	while (n > 0 && p[n - 1] == ' ')
		n--;
	printf("  %.*s\n", (int)n, (const char *)p);
}

static CK_RV tokens(void)
{
	CK_SLOT_ID v[64];
	CK_TOKEN_INFO info;
	CK_ULONG n = 64;
	CK_RV rv = p11->C_GetSlotList(CK_TRUE, v, &n);

	for (CK_ULONG i = 0; i < n && rv == CKR_OK; i++)
		if ((rv = p11->C_GetTokenInfo(v[i], &info)) == CKR_OK)
			say_padded(info.label, sizeof(info.label));
	return rv;
}

static CK_RV session(CK_FLAGS flags, CK_SESSION_HANDLE *ret)
{
	CK_SLOT_ID v[64];
	CK_TOKEN_INFO info;
	CK_ULONG n = 64;
	CK_RV rv = p11->C_GetSlotList(CK_TRUE, v, &n);

	for (CK_ULONG i = 0; i < n && rv == CKR_OK; i++) {
		if ((rv = p11->C_GetTokenInfo(v[i], &info)) != CKR_OK)
			return rv;
		if (strcmp(token, "-") == 0 || (strlen(token) < sizeof(info.label) && info.label[strlen(token)] == ' ' &&
						       memcmp(info.label, token, strlen(token)) == 0))
			return p11->C_OpenSession(v[i], CKF_SERIAL_SESSION | flags, NULL, NULL, ret);
	}
	return rv != CKR_OK ? rv : CKR_TOKEN_NOT_PRESENT;
}

static CK_RV find(CK_SESSION_HANDLE s, CK_OBJECT_CLASS class, const char *label, CK_OBJECT_HANDLE *ret)
{
	CK_ATTRIBUTE t[] = {{CKA_CLASS, &class, sizeof(class)}, {CKA_LABEL, (void *)label, strlen(label)}};
	CK_ULONG n = 0;
	CK_RV rv = p11->C_FindObjectsInit(s, t, 2);

	if (rv != CKR_OK)
		return rv;
	rv = p11->C_FindObjects(s, ret, 1, &n);
	p11->C_FindObjectsFinal(s);
	return rv == CKR_OK && n == 0 ? CKR_OBJECT_HANDLE_INVALID : rv;
}

static CK_RV list(void)
{
	CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
	CK_ATTRIBUTE t = {CKA_CLASS, &class, sizeof(class)};
	CK_OBJECT_HANDLE found[256];
	CK_SESSION_HANDLE s;
	CK_ULONG n = 0;
	CK_RV rv = session(0, &s);

	if (rv == CKR_OK && (rv = p11->C_FindObjectsInit(s, &t, 1)) == CKR_OK)
		rv = p11->C_FindObjects(s, found, 256, &n);
	for (CK_ULONG i = 0; i < n && rv == CKR_OK; i++) {
		CK_BYTE label[128];
		CK_ATTRIBUTE a = {CKA_LABEL, label, sizeof(label)};

		rv = p11->C_GetAttributeValue(s, found[i], &a, 1);
		if (rv == CKR_OK)
			say_padded(label, a.ulValueLen);
	}
	return rv;
}

/* What the last `sign` had. */
static CK_SESSION_HANDLE kept_session;
static CK_OBJECT_HANDLE kept_key;

static CK_RV sign_again(void)
{
	CK_MECHANISM m = {CKM_ECDSA, NULL, 0};
	CK_BYTE digest[32] = {1}, sig[256];
	CK_ULONG n = sizeof(sig);
	CK_RV rv = p11->C_SignInit(kept_session, &m, kept_key);

	return rv == CKR_OK ? p11->C_Sign(kept_session, digest, sizeof(digest), sig, &n) : rv;
}

static CK_RV sign(const char *label)
{
	CK_RV rv = session(0, &kept_session);

	if (rv == CKR_OK)
		rv = find(kept_session, CKO_PRIVATE_KEY, label, &kept_key);
	return rv == CKR_OK ? sign_again() : rv;
}

static CK_RV create(const char *label)
{
	static CK_BYTE p256[] = {6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7};
	CK_MECHANISM m = {CKM_EC_KEY_PAIR_GEN, NULL, 0};
	CK_BBOOL yes = CK_TRUE;
	CK_ATTRIBUTE pub = {CKA_EC_PARAMS, p256, sizeof(p256)},
		     priv[] = {{CKA_TOKEN, &yes, 1}, {CKA_LABEL, (void *)label, strlen(label)}};
	CK_OBJECT_HANDLE a, b;
	CK_SESSION_HANDLE s;
	CK_RV rv = session(CKF_RW_SESSION, &s);

	return rv == CKR_OK ? p11->C_GenerateKeyPair(s, &m, &pub, 1, priv, 2, &a, &b) : rv;
}

static CK_RV delete(const char *label)
{
	CK_OBJECT_HANDLE key;
	CK_SESSION_HANDLE s;
	CK_RV rv = session(CKF_RW_SESSION, &s);

	if (rv == CKR_OK)
		rv = find(s, CKO_PRIVATE_KEY, label, &key);
	return rv == CKR_OK ? p11->C_DestroyObject(s, key) : rv;
}

static CK_RV certificate(const char *label)
{
	CK_OBJECT_HANDLE o;
	CK_SESSION_HANDLE s;
	CK_RV rv = session(0, &s);

	return rv == CKR_OK ? find(s, CKO_CERTIFICATE, label, &o) : rv;
}

static CK_RV pause_for(const char *file)
{
	for (int i = 0; i < 6000; i++) {
		if (access(file, F_OK) == 0)
			return CKR_OK;
		usleep(10000);
	}
	return CKR_FUNCTION_FAILED;
}

static CK_RV euid(void)
{
	printf("  %u\n", geteuid());
	return CKR_OK;
}

static CK_RV again(void)
{
	CK_RV rv = p11->C_Finalize(NULL);

	return rv == CKR_OK ? p11->C_Initialize(NULL) : rv;
}

static const struct command {
	const char *name;
	CK_RV (*plain)(void);
	CK_RV (*with)(const char *);
} commands[] = {
	{"tokens", tokens, NULL},
	{"list", list, NULL},
	{"euid", euid, NULL},
	{"again", again, NULL},
	{"sign-again", sign_again, NULL},
	{"sign", NULL, sign},
	{"create", NULL, create},
	{"delete", NULL, delete},
	{"certificate", NULL, certificate},
	{"pause", NULL, pause_for},
};

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 4 || load(argv[1]) != CKR_OK)
		return 2;
	token = argv[2];
	for (int i = 3; i < argc; i++) {
		const struct command *c = commands;

		while (c < commands + sizeof(commands) / sizeof(commands[0]) && strcmp(c->name, argv[i]) != 0)
			c++;
		if (c == commands + sizeof(commands) / sizeof(commands[0]) || (c->with != NULL && i + 1 == argc))
			return 2;
		if (c->with != NULL)
			printf("%s: 0x%lx\n", argv[i], c->with(argv[i + 1]));
		else if (c->plain != NULL)
			printf("%s: 0x%lx\n", argv[i], c->plain());
		i += c->with != NULL;
	}
	return p11->C_Finalize(NULL) == CKR_OK ? 0 : 1;
}
