/* The file that lets a root key in a TPM go on past a firmware update: approved PCR policies, each signed by the key that
 * `tpm: {policy_key}` names (TPM2_PolicyAuthorize). Text, one approval after the other:
 *
 *   csm-tpm-approval: 1
 *   pcrs: 0,2,7                 of the SHA-256 bank
 *   policy: HEX                 the digest that TPM2_PolicyPCR makes of their values
 *   ref: HEX                    the policyRef; absent: empty
 *   signature: HEX              over policy and ref: ECDSA with SHA-256 as DER, or RSASSA-PKCS1-v1_5 with SHA-256
 *
 * Empty lines, and what follows a '#', are skipped. No TPM is needed for any of this. */
#ifndef CSM_TPMFMT_POLICY_H
#define CSM_TPMFMT_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <openssl/evp.h>
#include "libclient/base/err.h"

#define CSM_PCRS 24u /* of a bank; a set of them is a mask, bit 0 is PCR 0 */
#define CSM_PCR_LEN 32u
#define CSM_PCR_TEXT_MAX 64u   /* "0,1,2,...,23" with its NUL */
#define CSM_APPROVALS_MAX 16u  /* in a file */
#define CSM_APPROVAL_REF_MAX 32u
#define CSM_APPROVAL_SIG_MAX 512u
#define CSM_APPROVALS_TEXT_MAX 32768u

struct csm_tpm_approval {
	uint32_t pcrs;
	uint8_t policy[CSM_PCR_LEN];
	uint8_t ref[CSM_APPROVAL_REF_MAX];
	size_t ref_len;
	uint8_t signature[CSM_APPROVAL_SIG_MAX];
	size_t signature_len;
};

/* "0,2,7" to a mask and back; numbers in any order, none twice. */
bool csm_pcrs_parse(const char *text, size_t n, uint32_t *ret);
void csm_pcrs_text(uint32_t pcrs, char out[static CSM_PCR_TEXT_MAX]);
/* TPML_PCR_SELECTION of them, in the SHA-256 bank: 10 bytes. */
#define CSM_PCR_SELECTION_LEN 10u
void csm_pcrs_selection(uint32_t pcrs, uint8_t out[static CSM_PCR_SELECTION_LEN]);

/* The policy digest of TPM2_PolicyPCR, alone in its session (TPM 2.0 part 3, 23.7): of the values of these PCRs, in their
 * order. */
void csm_pcr_policy(uint32_t pcrs, const uint8_t values[static CSM_PCRS][CSM_PCR_LEN], uint8_t out[static CSM_PCR_LEN]);
/* The policy digest of TPM2_PolicyAuthorize (part 3, 23.16): for all that the key of that Name approves with that ref. */
void csm_authorize_policy(const uint8_t *name, size_t name_len, const uint8_t *ref, size_t ref_len,
	uint8_t out[static CSM_PCR_LEN]);

/* Values of PCRs as tpm2_pcrread prints them: lines "N : 0xHEX" behind one that says "sha256:"; other banks are skipped.
 * CSM_EINVALID with the line; at least one. */
CSM_MUST int csm_pcr_values_parse(const char *text, size_t n, uint32_t *pcrs, uint8_t values[static CSM_PCRS][CSM_PCR_LEN],
	unsigned *line);

/* The approvals of a file. CSM_EINVALID: it is not one; *line is where (from 1). At least one. */
CSM_MUST int csm_approvals_parse(const char *text, size_t n, struct csm_tpm_approval ret[static CSM_APPROVALS_MAX],
	size_t *count, unsigned *line);
/* One approval as text; NUL-terminated. CSM_ETOO_LARGE. */
CSM_MUST int csm_approval_text(const struct csm_tpm_approval *a, char *out, size_t cap);
/* Sign policy and ref with a private key: P-256, RSA-2048 or RSA-3072, else CSM_EUNSUPPORTED. CSM_EBACKEND: OpenSSL refused. */
CSM_MUST int csm_approval_sign(struct csm_tpm_approval *a, EVP_PKEY *signer);

#endif
