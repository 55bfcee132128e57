/* OCSP (RFC 6960): requests read, responses made. The signature is a callback's. Any thread, no I/O. */
#ifndef CSM_PKI_OCSP_H
#define CSM_PKI_OCSP_H

#include <openssl/ocsp.h>
#include "daemon/pki/issue.h"

#define CSM_OCSP_REQUEST_MAX 8192u
#define CSM_OCSP_ASKED_MAX 32u
#define CSM_OCSP_NONCE_MAX 128u

struct csm_ocsp_asked {
	struct csm_bin id;     /* CertID, DER */
	struct csm_bin serial; /* big-endian without leading zeros, 1 to 20 bytes */
	int hash;              /* NID of the hash that names the issuer */
};
struct csm_ocsp_request {
	OCSP_REQUEST *req;
	struct csm_ocsp_asked asked[CSM_OCSP_ASKED_MAX];
	size_t n;
	struct csm_bin nonce; /* the extension's value, as it goes back; n 0: none */
	uint8_t *bytes;       /* what the slices point to */
};

/* CSM_EINVALID: not a request, to be answered with malformedRequest: nothing asked, more than CSM_OCSP_ASKED_MAX, a critical
 * extension that is unknown, a nonce that is none, a hash with parameters, bytes left over. CSM_ETOO_LARGE, CSM_ENOMEM. */
CSM_MUST int csm_ocsp_read(struct csm_bin bytes, struct csm_ocsp_request **ret);
void csm_ocsp_free(struct csm_ocsp_request *req);
/* Is the i-th one asked about a certificate of this issuer? False also for a hash other than SHA-1 and SHA-2. */
bool csm_ocsp_is_of(const struct csm_ocsp_request *req, size_t i, X509 *issuer);

enum csm_ocsp_state { CSM_OCSP_GOOD = 0, CSM_OCSP_REVOKED = 1, CSM_OCSP_UNKNOWN = 2 };
struct csm_ocsp_single {
	struct csm_bin id; /* as it was asked */
	enum csm_ocsp_state state;
	uint64_t revoked_at; /* of a revoked one */
	int reason;          /* enum csm_reason */
	uint64_t this_update, next_update;
};
struct csm_ocsp_order {
	X509 *responder; /* whose key signs: the issuer's certificate, or a delegated responder's */
	X509 *issuer;    /* of what was asked about */
	uint64_t produced_at;
	const struct csm_ocsp_single *singles;
	size_t n;
	struct csm_bin nonce; /* of the request; n 0: none */
};

/* The to-be-signed ResponseData, appended. CSM_EINVALID: times, reasons, nothing to say. */
CSM_MUST int csm_ocsp_tbs(const struct csm_ocsp_order *order, struct csm_buf *out);
/* The whole response, appended; a delegated responder's certificate is in it. CSM_EINVALID: the signer is not the responder.
 * CSM_EDENIED: a responder that is neither the issuer nor issued by it for OCSP signing. */
CSM_MUST int csm_ocsp_respond(const struct csm_ocsp_order *order, const struct csm_signer *signer, struct csm_buf *out);
/* A response without a signature: OCSP_RESPONSE_STATUS_MALFORMEDREQUEST, _INTERNALERROR, _TRYLATER, _UNAUTHORIZED. */
CSM_MUST int csm_ocsp_error(int status, struct csm_buf *out);

#endif
