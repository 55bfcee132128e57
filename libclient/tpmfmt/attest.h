/* What a TPM states about a key (`attestation` of messages.def), checked without a TPM and without a daemon; and the
 * challenge by which the TPM proves that the key which signed the statement is in it. Any thread. */
#ifndef CSM_TPMFMT_ATTEST_H
#define CSM_TPMFMT_ATTEST_H

#include <stdbool.h>
#include <openssl/x509.h>
#include "libclient/base/buf.h"
#include "libclient/tpmfmt/tpmfmt.h"
#include "libclient/wire/msg.h"

#define CSM_ATTEST_PEM "CSM ATTESTATION"
#define CSM_ATTEST_CHALLENGE_PEM "CSM ATTESTATION CHALLENGE"
#define CSM_ATTEST_SECRET_PEM "CSM ATTESTATION SECRET"
#define CSM_ATTEST_PROOF_PEM "CSM ATTESTATION PROOF"
#define CSM_ATTEST_PROOF_TEXT "csm attest proof" /* with its NUL, before the two Names */
#define CSM_ATTEST_SECRET_LEN 32u

/* A statement taken apart; msg borrows the input. */
struct csm_attestation {
	struct csm_msg_attestation msg;
	TPMT_PUBLIC key, ak, ek;
	TPM2B_NAME key_name, ak_name, ek_name; /* hashed here */
	bool has_ek;
	TPMS_ATTEST attest;
	TPMT_SIGNATURE sig;
	X509 *cert; /* of the endorsement key; NULL: none */
};
/* Exactly one statement of this version; CSM_EINVALID, CSM_ENOMEM. *what says which part is none. */
CSM_MUST int csm_attest_parse(const uint8_t *p, size_t n, struct csm_attestation *ret, const char **what);
void csm_attest_clear(struct csm_attestation *a); /* a zeroed one is a no-op */

/* What it is compared with; what is NULL is not. */
struct csm_attest_want {
	const uint8_t *nonce;
	size_t nonce_len;
	EVP_PKEY *key, *ak;
	X509_STORE *ca; /* of endorsement keys */
	const TPM2B_NAME *storage; /* of the storage key that the key has to be a child of, in the owner hierarchy */
	const struct csm_msg_attest_secret *secret; /* both or none */
	const struct csm_msg_attest_proof *proof;
	bool unproven; /* a statement that a program may have made up is good enough: no ca with proof, and no ak */
};

enum csm_attest_outcome { CSM_ATTEST_OK, CSM_ATTEST_FAILED, CSM_ATTEST_OPEN /* not asked for: nothing is said */ };
typedef void csm_attest_tell_fn(void *arg, const char *check, enum csm_attest_outcome outcome, const char *text);
/* Each check in turn is told. True if none has failed. */
bool csm_attest_check(const struct csm_attestation *a, const struct csm_attest_want *want, csm_attest_tell_fn *tell,
	void *arg);

/* A credential for the statement's two keys, encrypted to its endorsement key, and the secret in it. The messages borrow
 * *space. CSM_EINVALID: the statement has no endorsement key, or one that takes none; CSM_EBACKEND. */
struct csm_attest_space {
	TPM2B_NAME ak_name, ek_name;
	uint8_t blob[256], secret[CSM_ATTEST_SECRET_LEN];
	TPM2B_ENCRYPTED_SECRET seed;
};
CSM_MUST int csm_attest_challenge(const struct csm_attestation *a, struct csm_attest_space *space,
	struct csm_msg_attest_challenge *challenge, struct csm_msg_attest_secret *secret);

#endif
