#include "tests/lib/hwfix.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include "plugins/include/csm_alg.h"

const struct csm_scheme hwfix_schemes[HWFIX_SCHEMES] = {
	{CSM_SCHEME_RSA_PKCS1, CSM_HASH_SHA256}, {CSM_SCHEME_RSA_PKCS1, CSM_HASH_SHA384},
	{CSM_SCHEME_RSA_PKCS1, CSM_HASH_SHA512}, {CSM_SCHEME_RSA_PSS, CSM_HASH_SHA256},
	{CSM_SCHEME_RSA_PSS, CSM_HASH_SHA384}, {CSM_SCHEME_RSA_PSS, CSM_HASH_SHA512}};

static const struct csm_plugin *const hw = &csm_plugin_hwpluginif;

static void log_line(void *arg, int level, const char *text)
{
	struct hwfix *f = arg;
	size_t n = strlen(f->log);

	(void)level;
	snprintf(f->log + n, sizeof(f->log) - n, "%s\n", text);
}

static const char *config(void *arg, const char *name)
{
	const struct hwfix *f = arg;

	if (strcmp(name, "folder") == 0)
		return f->folder;
	if (strcmp(name, "slot") == 0)
		return f->slot;
	if (strcmp(name, "module") == 0)
		return f->module;
	return NULL;
}

/* build of build/asan/tests/unit/test_x: the library is the release's in every variant. */
static void library_file(char out[static PATH_MAX])
{
	ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - 64);
	char *at;

	assert_true(n > 0);
	out[n] = '\0';
	at = strstr(out, "/build/");
	assert_non_null(at);
	memcpy(at, "/build/tests/interop/hwplugin/library.so", 41);
}

void hwfix_library(const struct hwfix *f, const char *name)
{
	char from[PATH_MAX];
	struct stat st;
	uint8_t *p;
	int fd;

	library_file(from);
	fd = open(from, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fail_msg("%s is not there: make tests-built", from);
	assert_int_equal(fstat(fd, &st), 0);
	assert_non_null(p = malloc((size_t)st.st_size));
	assert_int_equal(read(fd, p, (size_t)st.st_size), st.st_size);
	close(fd);
	hwfix_file(f, name, p, (size_t)st.st_size);
	free(p);
}

void hwfix_folder(const struct hwfix *f, const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	assert_int_equal(mkdir(path, 0755), 0);
}

void hwfix_file(const struct hwfix *f, const char *name, const void *p, size_t n)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, n), (ssize_t)n);
	close(fd);
}

void hwfix_make(struct hwfix *f)
{
	char path[128];

	memset(f, 0, sizeof(*f));
	snprintf(f->dir, sizeof(f->dir), "%s/csm-hw-XXXXXX", getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->folder, sizeof(f->folder), "%s", f->dir);
	f->host = (struct csm_plugin_host){.arg = f, .log = log_line, .config = config};
	hwfix_folder(f, "S01lib");
	hwfix_folder(f, "S01lib/activate");
	hwfix_file(f, "S01lib/activate/Amode.txt", "mode=0", 6);
	hwfix_library(f, "S01lib/plugin.so");
	snprintf(path, sizeof(path), "%s/S01lib/plugin.so", f->dir);
	f->so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (f->so == NULL)
		fail_msg("%s", dlerror());
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void hwfix_free(struct hwfix *f)
{
	hwfix_close(f);
	(void)nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

EVP_PKEY *hwfix_pkey(unsigned i)
{
	static EVP_PKEY *keys[HWFIX_KEYS];
	EVP_PKEY_CTX *c;

	if (keys[i] != NULL)
		return keys[i];
	/* Several small primes are found much faster than two large ones. */
	c = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
	assert_int_equal(EVP_PKEY_keygen_init(c), 1);
	assert_int_equal(EVP_PKEY_CTX_set_rsa_keygen_bits(c, i == 4 ? 4096 : i == 3 ? 3072 : 2048), 1);
	assert_int_equal(EVP_PKEY_CTX_set_rsa_keygen_primes(c, i == 4 ? 4 : 3), 1);
	assert_int_equal(EVP_PKEY_keygen(c, &keys[i]), 1);
	EVP_PKEY_CTX_free(c);
	return keys[i];
}

void hwfix_key(const struct hwfix *f, const char *name, unsigned i, const char *label)
{
	char path[PATH_MAX], text[256];
	uint8_t *der = NULL;
	int n = i2d_PrivateKey(hwfix_pkey(i), &der);

	assert_true(n > 0);
	hwfix_folder(f, name);
	snprintf(path, sizeof(path), "%s/Kfile1.p8", name);
	hwfix_file(f, path, der, (size_t)n);
	OPENSSL_free(der);
	snprintf(text, sizeof(text), "slot: 0\nkey_id: 17\nkey_label: %s\nupin: secret-user-pin\nsopin: secret-so-pin\n", label);
	snprintf(path, sizeof(path), "%s/pkcs11.cfg", name);
	hwfix_file(f, path, text, strlen(text));
}

static void *symbol(struct hwfix *f, const char *name)
{
	void *p = dlsym(f->so, name);

	assert_non_null(p);
	return p;
}

void hwfix_mode(struct hwfix *f, unsigned long mode)
{
	char text[32];

	*(unsigned long *)symbol(f, "hwlib_mode") = mode;
	snprintf(text, sizeof(text), "mode=%lu", mode);
	hwfix_file(f, "S01lib/activate/Amode.txt", text, strlen(text));
}

char *hwfix_calls(struct hwfix *f)
{
	return symbol(f, "hwlib_log");
}

int hwfix_int(struct hwfix *f, const char *name)
{
	return *(const int *)symbol(f, name);
}

void hwfix_open(struct hwfix *f)
{
	assert_int_equal(hw->open(&f->host, &f->ctx), 0);
}

void hwfix_open_with(struct hwfix *f, unsigned long mode)
{
	hwfix_key(f, "S01lib/key01", 0, "first");
	hwfix_mode(f, mode);
	hwfix_open(f);
}

bool hwfix_usable(struct hwfix *f)
{
	struct csm_plugin_health h;

	csm_plugin_hwpluginif.health(f->ctx, &h);
	return h.usable;
}

void hwfix_close(struct hwfix *f)
{
	if (f->ctx != NULL)
		hw->close(f->ctx);
	f->ctx = NULL;
}

int hwfix_find(struct hwfix *f, const char *ref, struct hwfix_loaded *k)
{
	struct csm_plugin_out spki = {k->spki, sizeof(k->spki), 0}, pub = {k->pub, sizeof(k->pub), 0};
	struct csm_plugin_out priv = {k->priv, sizeof(k->priv), 0};
	int r = hw->find(f->ctx, ref, &k->spec, &spki, &pub, &priv);

	k->spki_len = spki.len;
	k->pub_len = pub.len;
	k->priv_len = priv.len;
	return r;
}

int hwfix_load(struct hwfix *f, struct hwfix_loaded *k)
{
	struct csm_plugin_blob blob = {k->spki, k->spki_len, k->pub, k->pub_len, k->priv, k->priv_len};

	return hw->load(f->ctx, &k->spec, &blob, &k->key);
}

void hwfix_take(struct hwfix *f, const char *ref, unsigned i, struct hwfix_loaded *k)
{
	uint8_t *der = NULL;
	int n = i2d_PUBKEY(hwfix_pkey(i), &der);

	assert_int_equal(hwfix_find(f, ref, k), 0);
	assert_int_equal(n, k->spki_len);
	assert_memory_equal(der, k->spki, k->spki_len);
	OPENSSL_free(der);
	assert_int_equal(hwfix_load(f, k), 0);
}

void hwfix_unload(struct hwfix *f, struct hwfix_loaded *k)
{
	hw->unload(f->ctx, k->key);
	k->key = NULL;
}

bool hwfix_verifies(EVP_PKEY *pkey, struct csm_scheme s, const uint8_t *digest, const uint8_t *sig, size_t n)
{
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(pkey, NULL);
	bool pss = s.kind == CSM_SCHEME_RSA_PSS, ok;

	ok = EVP_PKEY_verify_init(c) == 1 &&
		EVP_PKEY_CTX_set_rsa_padding(c, pss ? RSA_PKCS1_PSS_PADDING : RSA_PKCS1_PADDING) == 1 &&
		EVP_PKEY_CTX_set_signature_md(c, EVP_get_digestbyname(csm_hash_name(s.hash))) == 1 &&
		(!pss || EVP_PKEY_CTX_set_rsa_pss_saltlen(c, (int)csm_hash_size(s.hash)) == 1) &&
		EVP_PKEY_verify(c, sig, n, digest, csm_hash_size(s.hash)) == 1;
	EVP_PKEY_CTX_free(c);
	return ok;
}

int hwfix_sign(struct hwfix *f, struct hwfix_loaded *k, unsigned i, struct csm_scheme s)
{
	uint8_t digest[64], p[1024];
	struct csm_plugin_out sig = {p, sizeof(p), 0};
	int r;

	memset(digest, (int)(i + 1), sizeof(digest));
	if ((r = hw->sign(f->ctx, k->key, &s, digest, csm_hash_size(s.hash), &sig)) == 0)
		assert_true(hwfix_verifies(hwfix_pkey(i), s, digest, p, sig.len));
	return r;
}
