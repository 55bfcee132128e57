/* The two forms in which people write names into a request: a subject and a list of alternative
 * names. Pure functions, any thread. `why` (at least 128 bytes) is written on CSM_EINVALID: which
 * part, and what is wrong with it; it holds none of the caller's bytes but attribute names. */
#ifndef CSM_PKI_SUBJECT_H
#define CSM_PKI_SUBJECT_H

#include <openssl/x509v3.h>
#include "libclient/base/name.h"

/* "/O=x/CN=y": attribute names as OpenSSL knows them (short, long or OID), values UTF-8, `\` before a byte
 * makes it plain. "/" is the empty name. *ret is the caller's. */
CSM_MUST int csm_subject_parse(struct csm_str text, X509_NAME **ret, char why[static 128]);

/* "dns:", "ip:", "uri:" and "email:" names, checked (RFC 5280 4.2.1.6), none twice. *ret is the
 * caller's; NULL for no names. */
CSM_MUST int csm_sans_parse(const struct csm_str *sans, size_t n, GENERAL_NAMES **ret, char why[static 128]);

#endif
