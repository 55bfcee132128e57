/* The files of ONAP's tpm-util: a key's public half, its duplication blob, the encrypted seed and, where there is one,
 * the inner key, each as the structure lay in the memory of the program that wrote it (little-endian, padded), or in the
 * TPM's own form. Its seed is all zeros, so that whoever has the files has the key: this opens them. Any thread. */
#ifndef CSM_TPM_TPMUTIL_H
#define CSM_TPM_TPMUTIL_H

#include "libclient/tpmfmt/dup.h"

enum tpmutil_part { TPMUTIL_PUBLIC, TPMUTIL_PRIVATE, TPMUTIL_SEED, TPMUTIL_INNER, TPMUTIL__PARTS };

/* What a set's files hold: slices of them. */
struct tpmutil_set {
	bool have[TPMUTIL__PARTS];
	TPMT_PUBLIC pub;
	struct csm_bin duplicate, seed, inner;
};

/* Which part is it, told by its content; into the set. CSM_EINVALID: none that is known; CSM_EEXISTS: the set has it. */
CSM_MUST int tpmutil_add(struct tpmutil_set *set, struct csm_bin file);
/* The private key of a set whose seed is all zeros: a TPM2B_SENSITIVE, appended to `sensitive` (secret).
 * CSM_ENOT_FOUND: the seed is another one, the set is not exposed. CSM_EINVALID: parts are missing, or do not fit. */
CSM_MUST int tpmutil_open(const struct tpmutil_set *set, struct csm_buf *sensitive);

#endif
