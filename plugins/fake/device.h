/* The pretended device of the fake back end: a secret of its own, under which it seals what it gives out,
 * and a counter. Both are kept by the host (remember, recall), so that they outlive a restart as a
 * device's would; the host sees them, so nothing here is safe. Owner thread only. */
#ifndef CSM_FAKE_DEVICE_H
#define CSM_FAKE_DEVICE_H

#include "plugins/include/csm_plugin.h"

#define FAKE_SECRET_LEN 32u
#define FAKE_SEAL_OVERHEAD 28u /* nonce and tag */

struct fake_device {
	const struct csm_plugin_host *host;
	uint8_t secret[FAKE_SECRET_LEN];
	uint64_t counter;
};

/* The host's device, made at the first use. Wiped with fake_device_clear. */
CSM_MUST int fake_device_open(const struct csm_plugin_host *host, struct fake_device *ret);
void fake_device_clear(struct fake_device *d);
/* AES-256-GCM: nonce, ciphertext, tag; aad is bound. CSM_ETOO_LARGE, CSM_EBACKEND. */
CSM_MUST int fake_seal(const struct fake_device *d, const uint8_t *in, size_t n, const uint8_t *aad, size_t aad_len,
	struct csm_plugin_out *out);
/* CSM_EINVALID where it is not what fake_seal made with that aad. */
CSM_MUST int fake_unseal(const struct fake_device *d, const uint8_t *in, size_t n, const uint8_t *aad, size_t aad_len,
	struct csm_plugin_out *out);
CSM_MUST int fake_count(struct fake_device *d);

#endif
