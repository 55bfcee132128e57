/* The inside of the soft back end: keys in OpenSSL, kept by the broker as sealed PKCS#8. */
#ifndef CSM_SOFT_H
#define CSM_SOFT_H

#include <openssl/ec.h>
#include <openssl/evp.h>
#include "plugins/include/csm_alg.h"
#include "plugins/include/csm_plugin.h"

#define SOFT_HASHES (CSM_HASH_SHA512 + 1)
#define SOFT_SIGN_KINDS (CSM_SCHEME_RSA_PSS + 1)
#define SOFT_CURVES (CSM_ALG_P521 + 1)

/* Immutable after open: any thread may read it. */
struct csm_plugin_ctx {
	const struct csm_plugin_host *host;
	EVP_MD *md[SOFT_HASHES]; /* [CSM_HASH_NONE] is NULL */
	EC_GROUP *group[SOFT_CURVES];
};

/* One thread at a time. */
struct csm_plugin_key {
	enum csm_alg alg;
	unsigned use;
	EVP_PKEY *pkey;
	/* Made at the first signature with a scheme and used for all that follow. */
	EVP_PKEY_CTX *signer[SOFT_SIGN_KINDS][SOFT_HASHES];
	EVP_MD_CTX *ed; /* Ed25519 only */
};

/* Copy n bytes to out; CSM_ETOO_LARGE, with nothing written, when they do not fit. */
CSM_MUST int soft_out(struct csm_plugin_out *out, const void *p, size_t n);

/* ---- form.c: keys to their stored forms and back ---- */

/* CSM_ETOO_LARGE, CSM_EBACKEND. */
CSM_MUST int soft_spki_write(enum csm_alg alg, EVP_PKEY *pkey, struct csm_plugin_out *spki);
/* PKCS#8 DER, the form that OpenSSL writes. CSM_ETOO_LARGE, CSM_EBACKEND. */
CSM_MUST int soft_priv_write(enum csm_alg alg, EVP_PKEY *pkey, struct csm_plugin_out *priv);
/* Parse blob->priv and prove that it is whole and that blob->spki is its public half; *ret is the
 * caller's. CSM_ETAMPERED, CSM_EBACKEND. */
CSM_MUST int soft_key_read(
	const struct csm_plugin_ctx *ctx, enum csm_alg alg, const struct csm_plugin_blob *blob, EVP_PKEY **ret);
/* A public key of the NIST curve `alg`: named, uncompressed, a point of the curve; else CSM_EINVALID. */
CSM_MUST int soft_peer_read(enum csm_alg alg, const uint8_t *spki, size_t n, EVP_PKEY **ret);

/* ---- rsa.c ---- */

/* The parts of an RSA private key agree with each other (RFC 8017 3.2). CSM_ETAMPERED. */
CSM_MUST int soft_rsa_consistent(EVP_PKEY *pkey);

/* After a failure: empties OpenSSL's queue of errors. CSM_ENOMEM where it tells of a lack of memory, so that this is
 * never taken for a damaged key or a bad argument; else r. */
CSM_MUST int soft_failed(int r);

/* ---- import.c: slots of the table ---- */
int soft_storage_key(struct csm_plugin_ctx *ctx, struct csm_plugin_out *pub);
int soft_import(struct csm_plugin_ctx *ctx, const struct csm_plugin_keyspec *spec, const uint8_t *wrapped,
	size_t wrapped_len, struct csm_plugin_out *spki, struct csm_plugin_out *pub, struct csm_plugin_out *priv);
/* Algorithm known, not exportable, uses that it can have. CSM_EUNSUPPORTED, CSM_EINVALID. */
CSM_MUST int soft_spec_check(const struct csm_plugin_keyspec *spec);

/* ---- use.c: the slots of the table ---- */
int soft_sign(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct csm_scheme *scheme,
	const uint8_t *in, size_t in_len, struct csm_plugin_out *sig);
int soft_decrypt(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct csm_scheme *scheme,
	const uint8_t *in, size_t in_len, const uint8_t *label, size_t label_len, struct csm_plugin_out *plain);
int soft_derive(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const uint8_t *peer, size_t peer_len,
	struct csm_plugin_out *shared);

#endif
