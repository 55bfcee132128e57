/* What the conformance programs share: the back end under test, keys of it in stored form, and
 * OpenSSL as the judge. A failure inside fails the running cmocka test. One thread, but for
 * conform_load, conform_sign and conform_verify. */
#ifndef TESTS_LIB_CONFORM_H
#define TESTS_LIB_CONFORM_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <openssl/evp.h>
#include "plugins/include/csm_alg.h"
#include "proto-spec/limits.h"

/* A key as the broker keeps it. */
struct stored {
	struct csm_plugin_keyspec spec;
	uint8_t spki[CSM_SPKI_MAX], pub[CSM_PLUGIN_PUB_MAX], priv[CSM_PLUGIN_PRIV_MAX];
	size_t spki_len, pub_len, priv_len;
};

/* The back end under test, opened. */
struct target {
	const struct csm_plugin *p;
	const struct csm_plugin_host *host;
	struct csm_plugin_ctx *ctx;
	struct csm_plugin_caps caps;
	/* Of a back end that cannot make keys: the reference of one that was prepared for signatures, another one at the
	 * next call where there are several. NULL: it makes keys. */
	const char *(*prepared)(enum csm_alg alg);
};
extern struct target target;

/* Run the tests once for each back end: all that are built in, here and in a process of their own (csm-plughost), or
 * the one that CSM_PLUGIN names: a name or the path of a shared object, after remote: for one in csm-plughost. Its configuration is what CSM_PLUGIN_CONF_<name> in the environment says, its
 * secrets what CSM_PLUGIN_SECRET_<name> says, its device the path CSM_PLUGIN_DEVICE, what csm-plughost may write to the folder CSM_PLUGIN_WRITE; a TPM is a private swtpm. Returns the exit status for main. */
int conform_run(const char *suite, const struct CMUnitTest *tests, size_t n);
int conform_reopen(void); /* close and open again; the slot's answer */

/* The back end under test does not have this. Of csm's own it is known which lacks what: anything else missing is a
 * failure; of a foreign one it is a skip. The caller returns. */
void conform_lacks(const char *feature);

/* A key of alg and use, made at the first call and kept for the run of this back end. NULL where the back end
 * does not claim alg or use. */
const struct stored *conform_key(enum csm_alg alg, unsigned use);
/* P-256, or where the back end has no curves RSA-2048. */
enum csm_alg conform_alg(void);
/* A key of its own for the caller; the slot's answer. Where keys are prepared, it is found. */
int conform_generate(enum csm_alg alg, unsigned use, struct stored *ret);
int conform_load(const struct stored *k, struct csm_plugin_key **ret);
struct csm_plugin_key *conform_loaded(const struct stored *k); /* must succeed */

/* All schemes of signatures; NULL past the end. */
const struct csm_scheme *conform_scheme(size_t i);
/* Does OpenSSL accept sig over in (a digest, or Ed25519's message)? */
bool conform_verify(const struct stored *k, const struct csm_scheme *s, const uint8_t *in, size_t in_len,
	const uint8_t *sig, size_t sig_len);
/* The loaded key signs by its default scheme so that OpenSSL accepts. */
bool conform_signs(const struct stored *k, struct csm_plugin_key *key);
EVP_PKEY *conform_public(const struct stored *k);
/* OpenSSL's private key of a NIST curve or Ed25519, and its SPKI: returns the length. */
size_t conform_peer(enum csm_alg alg, EVP_PKEY **ret, uint8_t spki[static CSM_SPKI_MAX]);

/* Refused: a scheme or use that the key does not have, or the caller's data. */
static inline bool conform_refused(int r)
{
	return r == CSM_EUNSUPPORTED || r == CSM_EINVALID;
}

/* An output of cap bytes in front of bytes that must not change. */
struct canary {
	uint8_t p[CSM_PLUGIN_PRIV_MAX + 64];
	struct csm_plugin_out out;
};
struct csm_plugin_out *canary_set(struct canary *c, size_t cap);
/* Nothing beyond cap was written; and, for a call that failed, len was not set. */
bool canary_whole(const struct canary *c, bool failed);

#endif
