/* Names of algorithms, schemes and uses, and what fits what. Pure functions, any thread. The _name
 * functions answer "unknown" for a value that is none. */
#ifndef CSM_ALG_H
#define CSM_ALG_H

#include "libclient/base/name.h"
#include "plugins/include/csm_plugin.h"

/* "p256" .. "ed25519"; CSM_EINVALID for another name. */
CSM_MUST int csm_alg_parse(struct csm_str s, enum csm_alg *ret);
const char *csm_alg_name(enum csm_alg alg);
bool csm_alg_is_rsa(enum csm_alg alg);
/* RSA with a modulus of so many bits; CSM_EUNSUPPORTED. */
CSM_MUST int csm_alg_of_rsa_bits(int bits, enum csm_alg *ret);
bool csm_alg_is_ec(enum csm_alg alg); /* the NIST curves */
/* Use by default: sign for EC and Ed25519, sign and decrypt for RSA. */
unsigned csm_alg_default_use(enum csm_alg alg);
/* CSM_EINVALID for no use, or one that the algorithm cannot have (decrypt: RSA; derive: NIST curves). */
CSM_MUST int csm_alg_check_use(enum csm_alg alg, unsigned use);

/* "ecdsa-sha256", "rsa-pkcs1-sha384", "rsa-pss-sha512", "ed25519", "rsa-oaep-sha256"; CSM_EINVALID. */
CSM_MUST int csm_scheme_parse(struct csm_str s, struct csm_scheme *ret);
const char *csm_scheme_name(const struct csm_scheme *scheme);
/* ecdsa with the curve's hash, rsa-pkcs1-sha256, ed25519. */
struct csm_scheme csm_scheme_default(enum csm_alg alg);
/* CSM_EINVALID when a key of alg cannot do it. rsa-oaep fits RSA here; that it does not sign is the
 * caller's to see. */
CSM_MUST int csm_scheme_check(enum csm_alg alg, const struct csm_scheme *scheme);

size_t csm_hash_size(enum csm_hash hash); /* 0 for NONE */
const char *csm_hash_name(enum csm_hash hash); /* "SHA256", as OpenSSL fetches it; NULL for NONE */

CSM_MUST int csm_use_parse(struct csm_str s, unsigned *ret); /* one of sign, decrypt, derive */
const char *csm_use_name(enum csm_use use);

#endif
