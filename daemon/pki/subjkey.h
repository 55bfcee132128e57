/* Public keys that get certificates: of a known kind, and not weak. Any thread, no I/O. */
#ifndef CSM_PKI_SUBJKEY_H
#define CSM_PKI_SUBJKEY_H

#include <openssl/x509.h>
#include <stdbool.h>
#include "libclient/base/name.h"

#define CSM_SUBJKEY_WHY 128

/* RSA of 2048 to 4096 bits with a sound exponent and modulus, ECDSA on P-256, P-384 or P-521 given by its name, Ed25519 on a
 * point of the group. CSM_EINVALID, with why. *ret is the caller's; ret may be NULL. pub may be csm_plain_d2i's. */
CSM_MUST int csm_subject_key(X509_PUBKEY *pub, EVP_PKEY **ret, char why[static CSM_SUBJKEY_WHY]);
/* Is it a good one of ECDSA with the point in its usual form? That takes a microsecond. Else csm_subject_key knows. *bits, which may
 * be NULL, is the curve's size. */
bool csm_subject_key_quick(X509_PUBKEY *pub, int *bits);
/* The same of a SubjectPublicKeyInfo in DER. */
bool csm_subject_point(struct csm_bin spki);
/* Has one that form? Where the point lies is not looked at: csm_subject_verify does. */
bool csm_subject_form(struct csm_bin spki, int *bits);
/* Of such a one: is sig the key's over tbs, by alg, an AlgorithmIdentifier in DER? CSM_EINVALID: it is not. CSM_EUNSUPPORTED: some
 * other key, kind or form, or no good point, of which csm_subject_key and OpenSSL know. */
CSM_MUST int csm_subject_verify(struct csm_bin spki, struct csm_bin alg, struct csm_bin tbs, struct csm_bin sig);

#endif
