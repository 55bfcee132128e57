/* A small host of hardware plugins, written from the interface's description: reads a folder, loads all its keys, signs
 * by every mechanism, in one part and in several, and has OpenSSL verify.
 *
 * usage: host LIBRARY FOLDER [all | twice | threads N | stale | open | order]
 *
 * all      a line for each key and mechanism: KEY MECHANISM ONE PARTS, each ok, refused or WRONG
 * twice    init to uninit, two times over
 * threads  N threads sign with all keys at once
 * stale    what is gone or was never there is a failure, not a crash
 * open     operations that are begun and never ended, as the first host left them */
#include <dirent.h>
#include <dlfcn.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "abi.h"

#define KEYS 16
#define TEXT 3000

static SSHSM_HW_FUNCTIONS_t fn;
static struct {
	char name[64];
	uint64_t handle; /* a copy, as the interface has it */
	EVP_PKEY *pkey;
	size_t len;
} keys[KEYS];
static int n_keys, wrong;

static void die(const char *what)
{
	fprintf(stderr, "host: %s\n", what);
	exit(1);
}

static void take_file(const char *folder, const char *name, SSHSM_HW_PLUGIN_ACTIVATE_LOAD_IN_INFO_t *in)
{
	buffer_info_t *b = calloc(1, sizeof(*b));
	const char *dot = strchr(name, '.');
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	if (b == NULL || in->num_buffers == 8 || (f = fopen(path, "rb")) == NULL)
		die(path);
	snprintf(b->id, sizeof(b->id), "%s", dot != NULL ? dot + 1 : "");
	b->buffer = malloc(8192);
	b->length_of_buffer = (int)fread(b->buffer, 1, 8192, f);
	fclose(f);
	in->buffer_info[in->num_buffers++] = b;
}

static void take_files(const char *folder, char first, SSHSM_HW_PLUGIN_ACTIVATE_LOAD_IN_INFO_t *in)
{
	DIR *d = opendir(folder);
	const struct dirent *e;

	memset(in, 0, sizeof(*in));
	while (d != NULL && (e = readdir(d)) != NULL)
		if (e->d_name[0] == first)
			take_file(folder, e->d_name, in);
	if (d != NULL)
		closedir(d);
}

/* What was lent is taken back, and is noise by then. */
static void drop_files(SSHSM_HW_PLUGIN_ACTIVATE_LOAD_IN_INFO_t *in)
{
	for (int i = 0; i < in->num_buffers; i++) {
		memset(in->buffer_info[i]->buffer, 0xdd, (size_t)in->buffer_info[i]->length_of_buffer);
		free(in->buffer_info[i]->buffer);
		free(in->buffer_info[i]);
	}
}

static EVP_PKEY *public_key(const SSHSM_HW_PLUGIN_IMPORT_PUBLIC_KEY_INFO_t *info)
{
	OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
	BIGNUM *n = BN_bin2bn(info->modulus, (int)info->modulus_size, NULL);
	BIGNUM *e = BN_bin2bn(info->exponent, (int)info->exponent_size, NULL);
	OSSL_PARAM *par;
	EVP_PKEY *pkey = NULL;

	OSSL_PARAM_BLD_push_BN(bld, "n", n);
	OSSL_PARAM_BLD_push_BN(bld, "e", e);
	par = OSSL_PARAM_BLD_to_param(bld);
	if (EVP_PKEY_fromdata_init(ctx) != 1 || EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, par) != 1)
		die("the public key is none");
	OSSL_PARAM_free(par);
	OSSL_PARAM_BLD_free(bld);
	EVP_PKEY_CTX_free(ctx);
	BN_free(n);
	BN_free(e);
	return pkey;
}

static void load_key(const char *folder, const char *name)
{
	SSHSM_HW_PLUGIN_ACTIVATE_LOAD_IN_INFO_t in;
	SSHSM_HW_PLUGIN_IMPORT_PUBLIC_KEY_INFO_t info = {0};
	void *handle = NULL;
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	take_files(path, 'K', &in);
	if (fn.xxx_load_key(&in, &handle, &info) != 0)
		die("load_key");
	drop_files(&in);
	snprintf(keys[n_keys].name, sizeof(keys[0].name), "%.60s", name);
	memcpy(&keys[n_keys].handle, handle, 8);
	keys[n_keys].pkey = public_key(&info);
	keys[n_keys].len = info.modulus_size;
	free(info.modulus);
	free(info.exponent);
	n_keys++;
}

static void start(const char *folder)
{
	SSHSM_HW_PLUGIN_ACTIVATE_LOAD_IN_INFO_t in;
	struct dirent **list;
	char path[512];
	int n;

	if (fn.xxx_init() != 0)
		die("init");
	snprintf(path, sizeof(path), "%s/activate", folder);
	take_files(path, 'A', &in);
	if (fn.xxx_activate(&in) != 0)
		die("activate");
	drop_files(&in);
	n_keys = 0;
	n = scandir(folder, &list, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		if (strncmp(list[i]->d_name, "key", 3) == 0)
			load_key(folder, list[i]->d_name);
		free(list[i]);
	}
	free(list);
	if (n_keys == 0)
		die("no keys");
}

static void end(void)
{
	for (int i = 0; i < n_keys; i++) {
		void *handle = &keys[i].handle;

		if (fn.xxx_unload_key(&handle) != 0)
			die("unload_key");
		EVP_PKEY_free(keys[i].pkey);
	}
	if (fn.xxx_uninit() != 0)
		die("uninit");
}

static const char *const names[] = {NULL, NULL, "MD5", NULL, NULL, "SHA1", "SHA224", "SHA256", "SHA384", "SHA512", "SHA256",
	"SHA1", "SHA224", "SHA256", "SHA384", "SHA512"};

/* What is handed over for a mechanism: a block, a DigestInfo, a digest, or the message. */
static size_t input(unsigned long m, size_t key_len, unsigned char *out)
{
	static const unsigned char info[] = {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04,
		0x02, 0x01, 0x05, 0x00, 0x04, 0x20};

	memset(out, 'm', TEXT);
	if (m == 1) {
		memset(out, 0x17, key_len);
		out[0] = 0;
		return key_len;
	}
	if (m == 3) {
		memcpy(out, info, sizeof(info));
		return sizeof(info) + 32;
	}
	return m == 10 ? 32 : TEXT;
}

static int verifies(int k, unsigned long m, const unsigned char *in, size_t n, size_t salt, const unsigned char *sig, int len)
{
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(keys[k].pkey, NULL);
	unsigned char digest[64], back[1024];
	size_t back_len = sizeof(back);
	unsigned dlen = 32;
	const EVP_MD *md = names[m] != NULL ? EVP_get_digestbyname(names[m]) : NULL;
	int ok;

	if (md != NULL && m != 10)
		EVP_Digest(in, n, digest, &dlen, md, NULL);
	else
		memcpy(digest, in + (m == 3 ? n - 32 : 0), 32);
	if (m == 1) {
		ok = EVP_PKEY_verify_recover_init(c) == 1 && EVP_PKEY_CTX_set_rsa_padding(c, RSA_NO_PADDING) == 1 &&
			EVP_PKEY_verify_recover(c, back, &back_len, sig, (size_t)len) == 1 && back_len == n &&
			memcmp(back, in, n) == 0;
	} else {
		if (m == 3)
			md = EVP_sha256();
		ok = EVP_PKEY_verify_init(c) == 1 &&
			EVP_PKEY_CTX_set_rsa_padding(c, m >= 10 ? RSA_PKCS1_PSS_PADDING : RSA_PKCS1_PADDING) == 1 &&
			EVP_PKEY_CTX_set_signature_md(c, md) == 1 &&
			(m < 10 || EVP_PKEY_CTX_set_rsa_pss_saltlen(c, (int)salt) == 1) &&
			EVP_PKEY_verify(c, sig, (size_t)len, digest, dlen) == 1;
	}
	EVP_PKEY_CTX_free(c);
	return ok;
}

static struct pss_params pss_of(unsigned long m, size_t salt)
{
	struct pss_params p = {.salt = salt};

	p.hash = m == 10 ? 4 : (int)m - 9;
	p.mgf = p.hash - 1;
	return p;
}

/* One signature; parts: 1, or how many. */
static const char *sign(int k, unsigned long m, int parts, size_t salt)
{
	unsigned char in[TEXT], sig[1024];
	uint64_t handle = keys[k].handle;
	struct pss_params p = pss_of(m, salt);
	size_t n = input(m, keys[k].len, in), at = 0;
	int len = (int)keys[k].len, r = 0;
	void *ref = NULL;

	memset(sig, 0x99, sizeof(sig));
	if (fn.xxx_rsa_sign_init(&handle, m, m >= 10 ? &p : NULL, m >= 10 ? (int)sizeof(p) : 0, &ref) != 0)
		return "refused";
	if (parts == 1) {
		r = fn.xxx_rsa_sign(&handle, m, in, (int)n, ref, sig, &len);
	} else {
		for (int i = 0; i < parts && r == 0; i++) {
			size_t piece = i + 1 == parts ? n - at : n / (size_t)parts;

			r = fn.xxx_rsa_sign_update(&handle, m, in + at, (int)piece, ref);
			at += piece;
		}
		if (r != 0)
			(void)fn.xxx_rsa_sign_cleanup(&handle, m, ref);
		else
			r = fn.xxx_rsa_sign_final(&handle, m, ref, sig, &len);
	}
	if (r != 0)
		return "refused";
	for (size_t i = keys[k].len; i < sizeof(sig); i++)
		if (sig[i] != 0x99)
			die("it wrote more than it was told that there is");
	if (len == (int)keys[k].len && verifies(k, m, in, n, salt, sig, len))
		return "ok";
	wrong++;
	return "WRONG";
}

static size_t digest_len(unsigned long m)
{
	return m >= 10 ? (size_t)EVP_MD_get_size(EVP_get_digestbyname(names[m])) : 0;
}

static void every_mechanism(void)
{
	for (int k = 0; k < n_keys; k++)
		for (unsigned long m = 0; m <= 16; m++) {
			const char *one = "refused", *more = "refused";
			uint64_t handle = keys[k].handle;
			void *ref = NULL;

			if (m == 0 || m == 4 || m == 16) {
				if (fn.xxx_rsa_sign_init(&handle, m, NULL, 0, &ref) == 0)
					(void)fn.xxx_rsa_sign_cleanup(&handle, m, ref);
			} else {
				one = sign(k, m, 1, digest_len(m));
				more = sign(k, m, 3, digest_len(m));
			}
			printf("%s %lu %s %s\n", keys[k].name, m, one, more);
		}
}

static void *sign_many(void *arg)
{
	intptr_t good = 0, seed = (intptr_t)arg;

	for (int i = 0; i < 20; i++)
		good += strcmp(sign((int)((seed + i) % n_keys), i % 2 == 0 ? 7 : 9, 1 + i % 3, 0), "ok") == 0;
	return (void *)good;
}

static void many_threads(int n)
{
	pthread_t t[64];

	for (intptr_t i = 0; i < n; i++)
		if (pthread_create(&t[i], NULL, sign_many, (void *)i) != 0)
			die("pthread_create");
	for (int i = 0; i < n; i++) {
		void *good = NULL;

		pthread_join(t[i], &good);
		if ((intptr_t)good != 20)
			die("a thread's signature failed");
	}
	printf("%d threads ok\n", n);
}

static void stale(const char *folder)
{
	uint64_t gone = keys[0].handle, noise = 0x4141414141414141;
	void *at = &gone, *ref = NULL;
	unsigned char msg[4] = "abc", sig[1024];
	int len = sizeof(sig), tiny = 17;

	if (fn.xxx_rsa_sign_init(&gone, 7, NULL, 0, &ref) != 0 || fn.xxx_rsa_sign(&gone, 7, msg, 3, ref, sig, &tiny) == 0)
		die("a signature in 17 bytes");
	if (fn.xxx_rsa_sign(&gone, 7, msg, 3, (void *)0x4142, sig, &len) == 0 ||
		fn.xxx_rsa_sign_update(&gone, 7, msg, 3, (void *)0x4142) == 0 ||
		fn.xxx_rsa_sign_final(&gone, 7, (void *)0x4142, sig, &len) == 0)
		die("an operation that never began");
	if (fn.xxx_rsa_sign_init(&gone, 7, NULL, 0, &ref) != 0 || fn.xxx_rsa_sign_final(&gone, 8, ref, sig, &len) == 0 ||
		fn.xxx_rsa_sign_cleanup(&gone, 7, ref) != 0 || fn.xxx_rsa_sign_update(&gone, 7, msg, 3, ref) == 0)
		die("another operation's reference");
	(void)fn.xxx_rsa_sign_cleanup(&gone, 7, ref);
	if (fn.xxx_rsa_sign_init(&noise, 7, NULL, 0, &ref) == 0)
		die("a handle that is none");
	if (fn.xxx_unload_key(&at) != 0)
		die("unload_key");
	if (fn.xxx_unload_key(&at) == 0 || fn.xxx_rsa_sign_init(&gone, 7, NULL, 0, &ref) == 0 ||
		fn.xxx_rsa_sign(&gone, 7, msg, 3, NULL, sig, &len) == 0)
		die("a key that is gone");
	EVP_PKEY_free(keys[0].pkey);
	keys[0] = keys[--n_keys];
	end();
	if (fn.xxx_rsa_sign_init(&gone, 7, NULL, 0, &ref) == 0)
		die("a key after uninit");
	start(folder);
	if (fn.xxx_rsa_sign_init(&gone, 7, NULL, 0, &ref) == 0)
		die("a handle of before");
	end();
	puts("stale ok");
}

static void left_open(void)
{
	for (int i = 0; i < 3000 && n_keys > 0; i++) {
		uint64_t handle = keys[i % n_keys].handle;
		unsigned char msg[4] = "abc";
		void *ref = NULL;

		if (fn.xxx_rsa_sign_init(&handle, 7, NULL, 0, &ref) != 0 ||
			(i % 2 == 0 && fn.xxx_rsa_sign_update(&handle, 7, msg, 3, ref) != 0))
			die("no more operations");
	}
	for (int k = 0; k < n_keys; k++)
		if (strcmp(sign(k, 7, 3, 0), "ok") != 0)
			die("after many that were left open");
	puts("open ok");
}

int main(int argc, char **argv)
{
	int (*get)(SSHSM_HW_FUNCTIONS_t *);
	const char *what = argc > 3 ? argv[3] : "all";
	void *so;

	if (argc < 3)
		die("usage: host LIBRARY FOLDER [all | twice | threads N | stale | open]");
	if ((so = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL)) == NULL)
		die(dlerror());
	*(void **)&get = dlsym(so, "sshsm_hw_plugin_get_plugin_functions");
	if (get == NULL || get(&fn) != 0)
		die("no table");
	start(argv[2]);
	if (strcmp(what, "stale") == 0) {
		stale(argv[2]);
		return 0;
	}
	if (strcmp(what, "threads") == 0)
		many_threads(argc > 4 ? (int)strtol(argv[4], NULL, 10) % 64 : 4);
	else if (strcmp(what, "open") == 0)
		left_open();
	else
		every_mechanism();
	end();
	if (strcmp(what, "twice") == 0) {
		start(argv[2]);
		every_mechanism();
		end();
	}
	return wrong != 0;
}
