/* Public areas of the keys that csm keeps in TPMs: RSA of 2048, 3072 and 4096 bits with the exponent 65537, and ECC on
 * P-256, P-384 and P-521, with Names by SHA-256. Any thread. */
#ifndef CSM_TPMFMT_PUBLIC_H
#define CSM_TPMFMT_PUBLIC_H

#include "libclient/base/buf.h"
#include "libclient/base/name.h"
#include "libclient/tpmfmt/tpmfmt.h"

#define CSM_TPM_NAME_LEN 34u    /* algorithm and SHA-256 */
#define CSM_TPM_PUBLIC_MAX 768u /* a TPM2B_PUBLIC */

/* Take a TPM2B_PUBLIC off the front of *in. CSM_EINVALID: cut off, or not what a TPM writes; CSM_EUNSUPPORTED: not of
 * the kinds above. */
CSM_MUST int csm_tpm_public_take(struct csm_bin *in, TPMT_PUBLIC *ret);
/* Exactly one. */
CSM_MUST int csm_tpm_public_get(struct csm_bin in, TPMT_PUBLIC *ret);
/* Append it as a TPM2B_PUBLIC. */
CSM_MUST int csm_tpm_public_put(const TPMT_PUBLIC *pub, struct csm_buf *out);
/* The public half of a key for OpenSSL, with no attribute and no scheme. CSM_EUNSUPPORTED. */
CSM_MUST int csm_tpm_public_of(EVP_PKEY *key, TPMT_PUBLIC *ret);

/* The cipher of a storage key. */
const TPMT_SYM_DEF_OBJECT *csm_tpm_symmetric(const TPMT_PUBLIC *pub);
/* May keys be wrapped to it: NULL, or why not. */
const char *csm_tpm_storage_objection(const TPMT_PUBLIC *pub);

/* ---- what the readers of this folder share ---- */
/* Each takes from the front of *in; false: there is not so much. */
bool csm_tpm_take16(struct csm_bin *in, uint16_t *ret);
bool csm_tpm_take_bytes(struct csm_bin *in, size_t n, struct csm_bin *ret);
bool csm_tpm_take_2b(struct csm_bin *in, size_t max, struct csm_bin *ret); /* a TPM2B of at most max bytes */
CSM_MUST int csm_tpm_put16(struct csm_buf *out, uint16_t v);
CSM_MUST int csm_tpm_put_2b(struct csm_buf *out, struct csm_bin v);

#endif
