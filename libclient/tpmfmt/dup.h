/* Private keys as TPM2_Import takes them (part 1, 23: duplication), and the way back for a storage key that is kept
 * outside of a TPM. What is secret lies in buffers that are. Any thread. */
#ifndef CSM_TPMFMT_DUP_H
#define CSM_TPMFMT_DUP_H

#include "libclient/tpmfmt/public.h"

#define CSM_TPM_SENSITIVE_MAX 640u  /* a TPM2B_SENSITIVE */
#define CSM_TPM_DUPLICATE_MAX 704u  /* with its integrity before it */
#define CSM_TPM_SECRET_MAX 512u     /* a TPM2B_ENCRYPTED_SECRET's content */
#define CSM_TPM_DUPLICATE "DUPLICATE"

/* Append the TPM2B_SENSITIVE of the key whose public half is pub (csm_tpm_public_of) to out (secret). */
CSM_MUST int csm_tpm_sensitive_put(EVP_PKEY *key, const TPMT_PUBLIC *pub, struct csm_buf *out);
/* The key of exactly one TPM2B_SENSITIVE and its public half. CSM_EINVALID: they do not belong together, or it has an
 * authorisation of its own. */
CSM_MUST int csm_tpm_sensitive_get(struct csm_bin in, const TPMT_PUBLIC *pub, EVP_PKEY **ret);

/* The other side of csm_tpm_wrap, label "DUPLICATE": open `in` for the key `parent` on P-256, whose Name is by SHA-256
 * and whose cipher is AES-128. Appended to plain (secret) once its integrity is shown; CSM_EINVALID. */
CSM_MUST int csm_tpm_unwrap(EVP_PKEY *parent, const TPM2B_NAME *name, struct csm_bin secret, struct csm_bin in,
	struct csm_buf *plain);
/* The same from the seed on. */
CSM_MUST int csm_tpm_unwrap_seed(const uint8_t *seed, size_t seed_len, const TPM2B_NAME *name, struct csm_bin in,
	struct csm_buf *plain);

#endif
