/* OCSP responders: for each issuer a key in csmd that signs answers, with a certificate by the issuer for that alone. */
#ifndef CSM_CENTRAL_OCSP_H
#define CSM_CENTRAL_OCSP_H

#include "daemon/central/ca.h"
#include "daemon/pki/ocsp.h"

#define OCSP_LIFE 3600u      /* seconds from this_update to next_update of an answer */
#define OCSP_CACHE_LIFE 60u  /* how long a cache of HTTP may keep it */
#define OCSP_CERT_LIFE (14u * 24u * 3600u)

/* Immutable, counted. */
struct ocsp_responder {
	unsigned refs; /* by __atomic */
	const char *name; /* the issuer's, of server.yaml */
	X509 *issuer;     /* its certificate */
	X509 *cert;
	char key[CSM_KEYREF_MAX + 1]; /* in csmd */
	uint64_t renew_at, not_after;
};
struct ocsp_responder *ocsp_responder_ref(struct ocsp_responder *r);
void ocsp_responder_unref(struct ocsp_responder *r); /* NULL is a no-op */

/* Was its own certificate revoked, or held? */
bool ocsp_responder_revoked(struct central *c, const struct ocsp_responder *r);
/* The one on record where it is of this issuer's certificate, not revoked and not due for renewal, else one with a new certificate; the
 * key is made where there is none, and made anew where its certificate was revoked. Errors as of csm_call and db_issue; why says more. */
CSM_MUST int ocsp_responder_make(struct central *c, struct ca_issuer *issuer, struct ocsp_responder **ret, char why[static CA_WHY]);

/* ---- answers (ocsp_answer.c) ---- */

struct ocsp_told {
	bool kept;   /* may be kept by others: not an error, and no nonce in it */
	uint64_t at; /* seconds since 1970 */
};
/* The answer to a request, DER, appended: also where it says that it is none, or that nobody can answer now. issuer: "" for any
 * that the request may ask about. What was not issued by it is unknown. CSM_ENOMEM. */
CSM_MUST int ocsp_answer(struct central *c, struct csm_str issuer, struct csm_bin request, struct csm_buf *out,
	struct ocsp_told *told);

#endif
