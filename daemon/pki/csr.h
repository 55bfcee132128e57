/* PKCS#10 certificate requests (RFC 2986) with subject alternative names (RFC 5280 4.2.1.6).
 * The signature is made by a callback: no private key is seen here. Any thread, no I/O. */
#ifndef CSM_PKI_CSR_H
#define CSM_PKI_CSR_H

#include "libclient/base/buf.h"
#include "plugins/include/csm_alg.h"

struct csm_csr_spec {
	struct csm_str subject;      /* "/O=x/CN=y", OpenSSL's form with \ as escape; may be "/" */
	const struct csm_str *sans;  /* "dns:a", "ip:1.2.3.4", "uri:spiffe://x/y", "email:z" */
	size_t n_sans;
	const uint8_t *spki;         /* DER */
	size_t spki_len;
	struct csm_scheme scheme;
	bool ca; /* for an intermediate CA: asks for CA:TRUE and the usages of a CA */
};

/* The request as DER, appended to out. In two steps, so that the signature may be made on another
 * thread: csm_csr_build gives the to-be-signed bytes' digest (Ed25519: the bytes) ...
 * CSM_EINVALID: `why` (at least 128 bytes) says which part of the input and why. */
struct csm_csr;
CSM_MUST int csm_csr_build(const struct csm_csr_spec *spec, struct csm_csr **ret, char why[static 128]);
struct csm_bin csm_csr_tbs(const struct csm_csr *csr); /* what to sign; valid until free */
/* ... and csm_csr_finish puts the signature in. */
CSM_MUST int csm_csr_finish(struct csm_csr *csr, const uint8_t *sig, size_t n, struct csm_buf *out);
void csm_csr_free(struct csm_csr *csr);

#endif
