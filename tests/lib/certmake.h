/* Certificates for tests, made by OpenSSL: good ones, and such as no CA should make. */
#ifndef TESTS_LIB_CERTMAKE_H
#define TESTS_LIB_CERTMAKE_H

#include <openssl/x509v3.h>
#include "libclient/base/buf.h"

struct certspec {
	const char *subject;  /* "/CN=x"; NULL: empty */
	const char *issuer;   /* NULL: the signer's subject; its own without a signer */
	EVP_PKEY *key;        /* whose certificate it is; only the public half is used where there is a signer */
	X509 *signer;         /* NULL: self-signed */
	EVP_PKEY *signer_key;
	bool ca;
	const char *usage;    /* keyUsage as OpenSSL writes it; NULL: none */
	const char *eku;      /* extendedKeyUsage likewise */
	const char *constraints; /* nameConstraints likewise */
	const char *san;      /* subjectAltName as OpenSSL writes it; NULL: none */
	long from, to;        /* seconds from now; both 0: an hour ago, a day ahead */
	const char *serial;   /* hexadecimal; NULL: 1 */
	const char *spoil;    /* "signature": of other bytes */
};
/* Aborts when it cannot be made. The caller frees it. */
X509 *cert_make(const struct certspec *spec);
/* Its DER, appended. */
void cert_der(X509 *x, struct csm_buf *out);
/* A public key for certspec.key from a SubjectPublicKeyInfo. */
EVP_PKEY *cert_key_of(struct csm_bin spki);

#endif
