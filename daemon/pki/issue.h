/* Certificates made (RFC 5280). Nothing comes from a request but what the order says. The signature is a callback's. Any
 * thread, no I/O. */
#ifndef CSM_PKI_ISSUE_H
#define CSM_PKI_ISSUE_H

#include "daemon/pki/profile.h"
#include "daemon/pki/sigalg.h"

#define CSM_SERIAL_LEN 16u
#define CSM_X509_KEY_ID_LEN 20u

struct csm_cert_order {
	const struct csm_profile *profile; /* usages, constraints, URLs, maximum life */
	const X509_NAME *subject;
	const GENERAL_NAMES *sans; /* NULL: none */
	struct csm_bin spki;
	X509 *issuer;              /* its certificate; NULL: self-signed, for a CA's profile */
	uint8_t serial[CSM_SERIAL_LEN]; /* random, drawn by the caller, who also sees to it that none comes twice */
	uint64_t not_before, not_after; /* seconds since 1970 */
};

/* The to-be-signed certificate, appended. CSM_EDENIED, with why: longer than the profile's life or the issuer's own, an issuer
 * that is no CA or has no path left. CSM_EINVALID, with why: a serial of zero, bad constraints or URLs. */
CSM_MUST int csm_cert_tbs(const struct csm_cert_order *order, const struct csm_scheme *scheme, struct csm_buf *out,
	char why[static CSM_CERTREQ_WHY]);
/* The same, signed; appended. Also what csm_signed_put answers; the signer has to be the issuer's (CSM_EINVALID). */
CSM_MUST int csm_cert_issue(const struct csm_cert_order *order, const struct csm_signer *signer, struct csm_buf *out,
	char why[static CSM_CERTREQ_WHY]);

/* Key identifier of a public key (RFC 7093, method 1). CSM_EINVALID: not a SubjectPublicKeyInfo. */
CSM_MUST int csm_key_id(struct csm_bin spki, uint8_t ret[static CSM_X509_KEY_ID_LEN]);
/* What the authority key identifier of what it issues is: its subject key identifier, else csm_key_id. */
CSM_MUST int csm_issuer_key_id(X509 *issuer, struct csm_buf *out);
/* AuthorityKeyIdentifier with that, as an extension. */
void csm_authority_ext(struct csm_der *d, struct csm_bin key_id);
/* CRLDistributionPoints with one URL: for NID_crl_distribution_points and NID_freshest_crl. */
void csm_crl_url_ext(struct csm_der *d, int nid, const char *url);

/* NameConstraints of the texts of a profile; *ret is the caller's. CSM_EINVALID, CSM_ENOMEM. (constraints.c) */
CSM_MUST int csm_constraints_new(const struct csm_str *permitted, size_t n_permitted, const struct csm_str *excluded,
	size_t n_excluded, NAME_CONSTRAINTS **ret);

#endif
