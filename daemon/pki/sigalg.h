/* Schemes as X.509 writes them (RFC 4055, 5758, 8410), and the frame around what is signed: certificates, requests, CRLs
 * and OCSP responses are all a sequence of the to-be-signed bytes, the algorithm and a bit string. Any thread, no I/O. */
#ifndef CSM_PKI_SIGALG_H
#define CSM_PKI_SIGALG_H

#include <openssl/x509.h>
#include "daemon/pki/der.h"
#include "plugins/include/csm_alg.h"
#include "proto-spec/limits.h"

/* Does a key of this kind sign by this scheme? */
bool csm_sigalg_fits(const EVP_PKEY *pkey, const struct csm_scheme *scheme);
/* *ret is the caller's. CSM_ENOMEM, CSM_EINTERNAL. */
CSM_MUST int csm_sigalg_new(const struct csm_scheme *scheme, X509_ALGOR **ret);
/* The scheme that it names, exactly as csm_sigalg_new writes it; CSM_EUNSUPPORTED for every other one. */
CSM_MUST int csm_sigalg_scheme(const X509_ALGOR *alg, struct csm_scheme *ret);
/* Whose signature counts for a request: ECDSA, PKCS#1 v1.5, PSS or Ed25519, over SHA-256 or better. */
bool csm_sigalg_is_strong(const X509_ALGOR *alg);
/* What the back end signs: the digest of tbs, or for Ed25519 tbs itself. */
CSM_MUST int csm_sigalg_digest(const struct csm_scheme *scheme, struct csm_bin tbs, uint8_t digest[static CSM_DIGEST_MAX],
	struct csm_bin *ret);

/* Is it the key's signature of what csm_sigalg_digest gave? CSM_EBACKEND: it is none. CSM_ENOMEM, CSM_EINTERNAL. */
CSM_MUST int csm_sigalg_verify(EVP_PKEY *pub, const struct csm_scheme *scheme, struct csm_bin in, struct csm_bin sig);

/* Who signs. The function gets all of what is to be signed, may take its time, and answers with at most CSM_SIGNATURE_MAX
 * bytes at sig. */
struct csm_signer {
	EVP_PKEY *pub; /* its public half: what comes back is verified with it before it goes out */
	struct csm_scheme scheme;
	bool believed; /* not verified: who signs is trusted with the key anyway, and has seen to it that it is this key's signature */
	int (*sign)(void *arg, struct csm_bin tbs, const struct csm_scheme *scheme, uint8_t *sig, size_t *n);
	void *arg;
};
/* tbs with its algorithm and signature, without the sequence around. What sign answers; CSM_EBACKEND: not a signature. */
CSM_MUST int csm_signed_parts(const struct csm_signer *signer, struct csm_bin tbs, struct csm_der *d);
/* The same in its sequence. */
CSM_MUST int csm_signed_put(const struct csm_signer *signer, struct csm_bin tbs, struct csm_buf *out);

#endif
