/* Forms of a TPM 2.0 that are made and read without a TPM: Names, public keys, and the wrap by which something
 * outside encrypts to a storage key or an endorsement key. Any thread; nothing is kept between calls. */
#ifndef CSM_TPMFMT_TPMFMT_H
#define CSM_TPMFMT_TPMFMT_H

#include <stddef.h>
#include <stdint.h>
#include <openssl/evp.h>
#include <tss2/tss2_tpm2_types.h>
#include "libclient/base/err.h"

/* The public key for OpenSSL, and as SubjectPublicKeyInfo; CSM_EUNSUPPORTED for an unknown type or curve,
 * CSM_EBACKEND where OpenSSL refuses it (a point off its curve), CSM_ETOO_LARGE beyond cap. */
CSM_MUST int csm_tpm_public_evp(const TPMT_PUBLIC *pub, EVP_PKEY **ret);
CSM_MUST int csm_tpm_public_spki(const TPMT_PUBLIC *pub, uint8_t *out, size_t cap, size_t *ret);
/* Bytes of a coordinate of the curve, 0 for an unknown one. */
size_t csm_tpm_curve_len(TPM2_ECC_CURVE curve);

/* OpenSSL's name of the hash ("SHA256"), and its length; NULL for one that is not SHA-256, -384 or -512. */
const char *csm_tpm_hash(TPMI_ALG_HASH alg, size_t *len);
/* The Name: nameAlg, then its hash over the public area. CSM_EUNSUPPORTED, CSM_EINVALID, CSM_EBACKEND. */
CSM_MUST int csm_tpm_name(const TPMT_PUBLIC *pub, TPM2B_NAME *ret);
/* Exactly one TPMT_PUBLIC, as the TPM itself would write it; else CSM_EINVALID. */
CSM_MUST int csm_tpm_public_parse(const uint8_t *p, size_t n, TPMT_PUBLIC *ret);

#define CSM_TPM_SEED_MAX 64u
/* A secret that only the TPM with the private half of `to` gets at (part 1, annexes B.10 and C.6): RSA by OAEP, ECC by
 * one pass of ECDH. label without its NUL: "DUPLICATE", "IDENTITY", "SECRET". The seed is as long as to's nameAlg; the
 * caller wipes it. */
CSM_MUST int csm_tpm_seed(const TPMT_PUBLIC *to, const char *label, uint8_t seed[static CSM_TPM_SEED_MAX],
	size_t *seed_len, TPM2B_ENCRYPTED_SECRET *ret);
/* The outer wrap (part 1, 22.4 and 24): out is TPM2B(HMAC) and the encrypted data, for an object of this Name, as
 * TPM2_Import takes it in `duplicate` (label "DUPLICATE") and TPM2_ActivateCredential in credentialBlob ("IDENTITY").
 * to: restricted decryption key with AES-CFB. CSM_EUNSUPPORTED for another one, CSM_ETOO_LARGE, CSM_EBACKEND. */
CSM_MUST int csm_tpm_wrap(const TPMT_PUBLIC *to, const char *label, const TPM2B_NAME *name, const uint8_t *data,
	size_t len, uint8_t *out, size_t cap, size_t *out_len, TPM2B_ENCRYPTED_SECRET *secret);

#endif
