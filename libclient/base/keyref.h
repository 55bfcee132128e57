/* The reference of a key: which key it is, and the hash of its public half, so that another key that has taken the name
 * is noticed. What stands in files where programs expect a private key. Any thread.
 *
 * DER, and as PEM its base64 between the lines of CSM_KEYREF_LABEL:
 *
 *	CSMKeyReference ::= SEQUENCE {
 *		type       UTF8String ("csm key reference"),
 *		version    INTEGER (1),
 *		namespace  UTF8String,
 *		name       UTF8String,
 *		spkiHash   OCTET STRING (SIZE (32)) }  -- SHA-256 of the SubjectPublicKeyInfo, DER
 */
#ifndef CSM_BASE_KEYREF_H
#define CSM_BASE_KEYREF_H

#include "libclient/base/name.h"

#define CSM_KEYREF_LABEL "CSM KEY REFERENCE"
#define CSM_KEYREF_HASH 32u
#define CSM_KEYREF_DER_MAX 256u

struct csm_keyref {
	struct csm_str ns;
	struct csm_str name;
	uint8_t hash[CSM_KEYREF_HASH];
};

/* CSM_EINVALID: namespace or name is none. */
CSM_MUST int csm_keyref_encode(const struct csm_keyref *ref, uint8_t out[static CSM_KEYREF_DER_MAX], size_t *len);
/* The one form that csm_keyref_encode gives, and nothing behind it; ns and name become slices of p. CSM_EINVALID. */
CSM_MUST int csm_keyref_decode(const void *p, size_t n, struct csm_keyref *ret);
/* What stands in the reference as hash. */
void csm_keyref_hash(const void *spki, size_t n, uint8_t out[static CSM_KEYREF_HASH]);

#endif
