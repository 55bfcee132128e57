/* The inside of the fake back end: P-256 and RSA-2048 keys in OpenSSL, wrapped by a pretended device, and a
 * script that makes slots slow or fail. For tests, and as a pattern for real devices. */
#ifndef CSM_FAKE_H
#define CSM_FAKE_H

#include <openssl/evp.h>
#include "plugins/fake/device.h"
#include "plugins/fake/script.h"
#include "plugins/include/csm_alg.h"
#include "proto-spec/limits.h"

struct csm_plugin_ctx {
	struct fake_device device;
	struct fake_script script;
};

struct csm_plugin_key {
	enum csm_alg alg;
	unsigned use;
	EVP_PKEY *pkey;
	uint8_t spki[CSM_SPKI_MAX];
	size_t spki_len;
};

/* use.c: the slots that use a key */
int fake_sign(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct csm_scheme *scheme,
	const uint8_t *in, size_t in_len, struct csm_plugin_out *sig);
int fake_sign_init(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct csm_scheme *scheme,
	struct csm_plugin_op **ret);
int fake_sign_update(struct csm_plugin_ctx *ctx, struct csm_plugin_op *op, const uint8_t *in, size_t in_len);
int fake_sign_final(struct csm_plugin_ctx *ctx, struct csm_plugin_op *op, struct csm_plugin_out *sig);
void fake_sign_cleanup(struct csm_plugin_ctx *ctx, struct csm_plugin_op *op);
int fake_decrypt(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct csm_scheme *scheme,
	const uint8_t *in, size_t in_len, const uint8_t *label, size_t label_len, struct csm_plugin_out *plain);
int fake_derive(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const uint8_t *peer, size_t peer_len,
	struct csm_plugin_out *shared);

/* Copy n bytes to out; CSM_ETOO_LARGE, with nothing written, when they do not fit. */
CSM_MUST int fake_out(struct csm_plugin_out *out, const void *p, size_t n);

#endif
