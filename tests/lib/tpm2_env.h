/* What the tests of the TPM back end share: a private swtpm with the back end opened on it, keys kept
 * with their blobs, verification by OpenSSL, and another client of the same TPM (ESYS). */
#ifndef TESTS_LIB_TPM2_ENV_H
#define TESTS_LIB_TPM2_ENV_H

#include <tss2/tss2_esys.h>
#include "tests/lib/swtpm.h"

struct tpm2_env {
	struct swtpm *tpm;
	struct swtpm_host host;
	struct csm_plugin_ctx *ctx;
};
/* A fresh TPM with the back end opened; fails the test otherwise. */
void tpm2_env_start(struct tpm2_env *e);
void tpm2_env_open(struct tpm2_env *e);
void tpm2_env_close(struct tpm2_env *e); /* the back end only */
void tpm2_env_stop(struct tpm2_env *e);
struct csm_plugin_health tpm2_env_health(struct tpm2_env *e);

struct tpm2_key {
	struct csm_plugin_keyspec spec;
	uint8_t spki[1024], pub[CSM_PLUGIN_PUB_MAX], priv[CSM_PLUGIN_PRIV_MAX];
	size_t spki_len, pub_len, priv_len;
	struct csm_plugin_key *key;
};
int tpm2_key_generate(struct tpm2_env *e, enum csm_alg alg, unsigned use, struct tpm2_key *k);
int tpm2_key_load(struct tpm2_env *e, struct tpm2_key *k);
void tpm2_key_unload(struct tpm2_env *e, struct tpm2_key *k);
/* Generate and load; fails the test otherwise. */
void tpm2_key_make(struct tpm2_env *e, enum csm_alg alg, unsigned use, struct tpm2_key *k);

/* The digest of fixed text under scheme's hash. */
size_t tpm2_digest(enum csm_hash hash, uint8_t out[64]);
/* Sign the digest of the fixed text; sig at least 1024 bytes. */
int tpm2_sign(struct tpm2_env *e, struct tpm2_key *k, struct csm_scheme s, uint8_t *sig, size_t *len);
/* Does OpenSSL accept it? */
bool tpm2_verify(const struct tpm2_key *k, struct csm_scheme s, const uint8_t *sig, size_t len);
/* Sign and verify with the key's default scheme: 0, or the CSM_E* of sign, or -1 for a wrong signature. */
int tpm2_sign_verify(struct tpm2_env *e, struct tpm2_key *k);

/* Another client on the same TPM, over the stock TCTI: connects for each command. */
struct tpm2_other {
	ESYS_CONTEXT *esys;
	TSS2_TCTI_CONTEXT *tcti;
};
void tpm2_other_open(struct tpm2_other *o, const struct swtpm *t);
void tpm2_other_close(struct tpm2_other *o);
/* Handles in the TPM from first on. */
#define TRANSIENT_OBJECTS 0x80000000u
#define PERSISTENT_OBJECTS 0x81000000u
#define LOADED_SESSIONS 0x02000000u
#define SAVED_SESSIONS 0x03000000u
size_t tpm2_other_handles(struct tpm2_other *o, TPM2_HANDLE first, TPM2_HANDLE *ret, size_t cap);
/* Flush by number. */
TSS2_RC tpm2_other_flush(struct tpm2_other *o, TPM2_HANDLE h);
/* A P-256 key for signatures under the storage root key, in stored form. */
void tpm2_other_create(struct tpm2_other *o, TPMA_OBJECT attributes, const char *auth, struct tpm2_key *k);
/* A variable property (TPM2_PT_*). */
uint32_t tpm2_other_property(struct tpm2_other *o, TPM2_PT name);

#endif
