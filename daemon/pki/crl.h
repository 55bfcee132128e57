/* Certificate revocation lists and their deltas (RFC 5280 5), as version 2. The signature is a callback's. Any thread, no
 * I/O but the caller's in `next`. */
#ifndef CSM_PKI_CRL_H
#define CSM_PKI_CRL_H

#include "daemon/pki/issue.h"

enum csm_reason { /* CRLReason */
	CSM_REASON_UNSPECIFIED = 0,
	CSM_REASON_KEY_COMPROMISE = 1,
	CSM_REASON_CA_COMPROMISE = 2,
	CSM_REASON_AFFILIATION_CHANGED = 3,
	CSM_REASON_SUPERSEDED = 4,
	CSM_REASON_CESSATION = 5,
	CSM_REASON_HOLD = 6,
	CSM_REASON_REMOVE_FROM_CRL = 8, /* in a delta only */
	CSM_REASON_PRIVILEGE_WITHDRAWN = 9,
	CSM_REASON_AA_COMPROMISE = 10,
};
/* "keyCompromise", as RFC 5280 writes it; NULL for none. */
const char *csm_reason_name(int reason);
/* -1 for a name of none. */
int csm_reason_parse(struct csm_str name);

struct csm_revoked {
	struct csm_bin serial; /* big-endian, 1 to 20 bytes; need only live until the next call */
	uint64_t at;           /* seconds since 1970 */
	int reason;
};
struct csm_crl_order {
	X509 *issuer;
	uint64_t number;   /* from 1, larger than that of each before, full or delta */
	uint64_t base;     /* not 0: a delta to the full list of that number */
	uint64_t this_update, next_update;
	const char *delta_url; /* freshest CRL of a full list; NULL: none */
	/* The next entry, each serial once: 1, 0 at the end, or an error (negative of a CSM_E). */
	int (*next)(void *arg, struct csm_revoked *ret);
	void *arg;
};

/* The to-be-signed list, appended. CSM_EINVALID: numbers, times, an entry's serial or reason. What `next` answered. */
CSM_MUST int csm_crl_tbs(const struct csm_crl_order *order, const struct csm_scheme *scheme, struct csm_buf *out);
/* The same, signed. The signer has to be the issuer's (CSM_EINVALID), and the issuer may sign lists (CSM_EDENIED). */
CSM_MUST int csm_crl_issue(const struct csm_crl_order *order, const struct csm_signer *signer, struct csm_buf *out);

#endif
