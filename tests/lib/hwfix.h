/* What the tests of hardware plugins share: a folder as such a host has it, with the small library of
 * tests/interop/hwplugin and key folders in it, and a host for the back end. A failure inside fails the running test. */
#ifndef TESTS_LIB_HWFIX_H
#define TESTS_LIB_HWFIX_H

#include <stdbool.h>
#include <openssl/evp.h>
#include "plugins/include/csm_plugin.h"
#include "tests/interop/hwplugin/library.h"

#define HWFIX_KEYS 5u /* 0 to 2: RSA-2048; 3: RSA-3072; 4: RSA-4096 */

#define HWFIX_SCHEMES 6u
extern const struct csm_scheme hwfix_schemes[HWFIX_SCHEMES]; /* all that an RSA key has */

struct hwfix {
	char dir[64]; /* the parent folder; S01lib in it has the library */
	struct csm_plugin_host host;
	char folder[128], slot[64], module[256]; /* configuration; empty: not set */
	char log[4096];
	struct csm_plugin_ctx *ctx;
	void *so; /* the library, for hwlib_* */
};

/* The folder, the library and activate/Amode.txt, but no key. */
void hwfix_make(struct hwfix *f);
void hwfix_free(struct hwfix *f); /* close, remove */
/* The private keys, made at the first call. */
EVP_PKEY *hwfix_pkey(unsigned i);
/* dir/name; text may be NULL for a folder. */
void hwfix_folder(const struct hwfix *f, const char *name);
void hwfix_file(const struct hwfix *f, const char *name, const void *p, size_t n);
void hwfix_library(const struct hwfix *f, const char *name); /* a copy of the library */
/* dir/name with Kfile1.p8 of the key, and pkcs11.cfg with this label. */
void hwfix_key(const struct hwfix *f, const char *name, unsigned i, const char *label);

void hwfix_mode(struct hwfix *f, unsigned long mode);
char *hwfix_calls(struct hwfix *f); /* what the library was asked for; set [0] to 0 to begin anew */
int hwfix_int(struct hwfix *f, const char *symbol);

/* A key of the back end, found and loaded. */
struct hwfix_loaded {
	struct csm_plugin_keyspec spec;
	uint8_t spki[1024], pub[CSM_PLUGIN_PUB_MAX], priv[CSM_PLUGIN_PRIV_MAX];
	size_t spki_len, pub_len, priv_len;
	struct csm_plugin_key *key;
};
void hwfix_open(struct hwfix *f);
/* One key, S01lib/key01, over a library that misbehaves as mode says; open. */
void hwfix_open_with(struct hwfix *f, unsigned long mode);
bool hwfix_usable(struct hwfix *f);
void hwfix_close(struct hwfix *f);
int hwfix_find(struct hwfix *f, const char *ref, struct hwfix_loaded *k);
int hwfix_load(struct hwfix *f, struct hwfix_loaded *k);
/* Both must succeed, and the public key be that of pkey i. */
void hwfix_take(struct hwfix *f, const char *ref, unsigned i, struct hwfix_loaded *k);
void hwfix_unload(struct hwfix *f, struct hwfix_loaded *k);
/* The slot's answer; a signature that OpenSSL does not take for key i's over the digest fails the test. */
int hwfix_sign(struct hwfix *f, struct hwfix_loaded *k, unsigned i, struct csm_scheme s);
/* Does OpenSSL take sig for a signature of pkey over the digest? */
bool hwfix_verifies(EVP_PKEY *pkey, struct csm_scheme s, const uint8_t *digest, const uint8_t *sig, size_t n);

#endif
