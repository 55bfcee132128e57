/* Certificates in the form that EST hands them out: a PKCS#7 SignedData with nobody's signature (RFC 7030 4.1.3, RFC 8951).
 * Pure functions, any thread, no I/O. */
#ifndef CSM_PKI_CERTSONLY_H
#define CSM_PKI_CERTSONLY_H

#include "libclient/base/buf.h"
#include "libclient/base/name.h"

/* chain: DER certificates one after the other, at least one. The DER of the ContentInfo, appended. */
CSM_MUST int csm_certs_only_put(struct csm_bin chain, struct csm_buf *out);
/* DER or base64, nothing left over. The certificates, DER, one after the other in the order in which they stand there,
 * appended. CSM_EINVALID: not such a form, or none in it, or a certificate that is not in DER. CSM_ETOO_LARGE beyond
 * CSM_CERTS_MAX or CSM_CERT_CHAIN_MAX. Nothing of them is believed: csm_cert_check comes next. */
CSM_MUST int csm_certs_only_read(struct csm_bin bytes, struct csm_buf *out);

#endif
