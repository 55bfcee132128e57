/* A client's key for TLS whose private half is elsewhere: an EVP_PKEY of a small OpenSSL provider in this program, whose
 * signatures are made by a callback. ECDSA, RSA PKCS#1 v1.5 and RSA-PSS with SHA-256, SHA-384 and SHA-512. Any thread. */
#ifndef CSM_ENROL_TLSKEY_H
#define CSM_ENROL_TLSKEY_H

#include <openssl/x509.h>
#include "libclient/base/name.h"

/* Sign a digest with csmd's scheme of that name. *len: the room, then what there is. */
typedef int tlskey_sign(void *arg, const char *scheme, struct csm_bin digest, uint8_t *sig, size_t *len);

/* Once, before threads. CSM_ENOMEM, CSM_EBACKEND: OpenSSL does not take the provider. */
CSM_MUST int tlskey_prepare(void);
/* A key whose public half is the certificate's. fn is called during handshakes, with arg, which both outlive the key.
 * CSM_EUNSUPPORTED: TLS cannot use a key of this kind that way (Ed25519 signs no digest). CSM_ENOMEM. */
CSM_MUST int tlskey_new(const X509 *cert, tlskey_sign *fn, void *arg, EVP_PKEY **ret);

#endif
