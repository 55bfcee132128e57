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
#include <openssl/decoder.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/provider.h>
#include <openssl/store.h>
#include <openssl/x509.h>
#include "tests/lib/provfix.h"

OSSL_LIB_CTX *lib;
struct csm *csm;
char provfix_tree[PATH_MAX];
static char build[PATH_MAX];

static void die(const char *what)
{
	fprintf(stderr, "provfix: %s\n", what);
	ERR_print_errors_fp(stderr);
	exit(1);
}

/* build/VARIANT of build/VARIANT/tests/unit/test_x, and the tree above it. */
static void find_folders(void)
{
	ssize_t n = readlink("/proc/self/exe", build, sizeof(build) - 1);
	char *slash = NULL;

	if (n <= 0)
		die("/proc/self/exe");
	for (int up = 0; up < 3; up++) {
		slash = strrchr(build, '/');
		if (slash == NULL)
			die("not in a build folder");
		*slash = '\0';
	}
	memcpy(provfix_tree, build, sizeof(provfix_tree));
	slash = strstr(provfix_tree, "/build");
	if (slash == NULL)
		die("not in a build folder");
	*slash = '\0';
}

OSSL_LIB_CTX *provfix_lib_of(const char *cnf)
{
	char path[PATH_MAX + 64];
	OSSL_LIB_CTX *l = OSSL_LIB_CTX_new();

	(void)snprintf(path, sizeof(path), "%s/lib/ossl-modules", build);
	if (l == NULL || !OSSL_PROVIDER_set_default_search_path(l, path))
		die("a library context");
	if (OSSL_LIB_CTX_load_config(l, cnf) && OSSL_PROVIDER_available(l, "keys"))
		return l;
	OSSL_LIB_CTX_free(l);
	return NULL;
}

OSSL_LIB_CTX *provfix_lib(void)
{
	char path[PATH_MAX + 64];
	OSSL_LIB_CTX *l;

	(void)snprintf(path, sizeof(path), "%s/libclient/provider/openssl.cnf", provfix_tree);
	l = provfix_lib_of(path);
	if (l == NULL)
		die(path);
	return l;
}

void provfix_main(unsigned seconds)
{
	char script[PATH_MAX + 64], self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	find_folders();
	if (getenv("CSM_PROVFIX") != NULL) {
		alarm(seconds);
		lib = provfix_lib();
		if (csm_new(&csm) != 0)
			die("libcsm");
		return;
	}
	if (n <= 0)
		die("/proc/self/exe");
	self[n] = '\0';
	(void)snprintf(script, sizeof(script), "%s/scripts/with-node.sh", provfix_tree);
	if (setenv("CSM_BUILD", build, 1) != 0 || setenv("CSM_PROVFIX", "1", 1) != 0)
		die("setenv");
	(void)execl(script, script, "--backend", "tpm2", "--", self, (char *)NULL);
	die(script);
}

void provfix_key(const char *name, const char *alg, const char *backend, const char *use)
{
	int r = csm_key_delete(csm, name);

	if (r == 0 || r == CSM_ENOT_FOUND)
		r = csm_key_create(csm, name, alg, backend, use, NULL);
	if (r != 0)
		fail_msg("%s: %s", name, csm_error_message());
}

EVP_PKEY *provfix_uri(const char *uri)
{
	OSSL_STORE_CTX *store = OSSL_STORE_open_ex(uri, lib, NULL, NULL, NULL, NULL, NULL, NULL);
	EVP_PKEY *key = NULL;

	while (store != NULL && key == NULL && !OSSL_STORE_eof(store)) {
		OSSL_STORE_INFO *info = OSSL_STORE_load(store);

		if (info == NULL)
			continue;
		if (OSSL_STORE_INFO_get_type(info) == OSSL_STORE_INFO_PKEY)
			key = OSSL_STORE_INFO_get1_PKEY(info);
		else if (OSSL_STORE_INFO_get_type(info) == OSSL_STORE_INFO_PUBKEY)
			key = OSSL_STORE_INFO_get1_PUBKEY(info);
		OSSL_STORE_INFO_free(info);
	}
	OSSL_STORE_close(store);
	return key;
}

EVP_PKEY *provfix_decode(const char *form, const void *p, size_t n)
{
	EVP_PKEY *key = NULL;
	const unsigned char *at = p;
	OSSL_DECODER_CTX *ctx =
		OSSL_DECODER_CTX_new_for_pkey(&key, form, NULL, NULL, OSSL_KEYMGMT_SELECT_KEYPAIR, lib, NULL);

	assert_non_null(ctx);
	if (OSSL_DECODER_from_data(ctx, &at, &n) != 1) {
		EVP_PKEY_free(key);
		key = NULL;
	}
	OSSL_DECODER_CTX_free(ctx);
	return key;
}

EVP_PKEY *provfix_public(const char *name)
{
	uint8_t spki[CSM_PUBLIC_BYTES];
	const unsigned char *p = spki;
	size_t n = sizeof(spki);
	EVP_PKEY *key;

	assert_int_equal(csm_key_public(csm, name, spki, &n), 0);
	key = d2i_PUBKEY_ex(NULL, &p, (long)n, lib, "provider=default");
	assert_non_null(key);
	return key;
}

size_t provfix_pem(EVP_PKEY *key, char *out, size_t room)
{
	BIO *bio = BIO_new(BIO_s_mem());
	int n;

	assert_int_equal(PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL), 1);
	n = BIO_read(bio, out, (int)room - 1);
	BIO_free(bio);
	assert_true(n > 0);
	out[n] = '\0';
	return (size_t)n;
}

bool provfix_error(int reason, const char *text)
{
	const char *data;
	unsigned long e;
	bool found = false;
	int flags;

	while ((e = ERR_get_error_all(NULL, NULL, NULL, &data, &flags)) != 0)
		if (ERR_GET_REASON(e) == reason && data != NULL && strstr(data, text) != NULL)
			found = true;
	return found;
}
