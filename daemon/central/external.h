/* Issuers that are other authorities: csm-server asks the csmd beside it, which forwards the request by csm-enrol under one of its
 * enrolment profiles. Threads of their own wait for that, as many as there is work for and few of each issuer, so that those that hang hold
 * up no worker for more than a moment, and no other issuer. What comes back is believed once it was checked. Any thread. */
#ifndef CSM_CENTRAL_EXTERNAL_H
#define CSM_CENTRAL_EXTERNAL_H

#include "daemon/central/ca.h"

struct external;
/* Starts nothing before somebody asks. */
CSM_MUST int external_new(struct central *c, struct external **ret);
void external_free(struct external *x); /* NULL is a no-op */

struct external_ask {
	const struct ca_issuer *issuer;
	const uint8_t *id;         /* of the request: the same one again is the same asking */
	struct csm_bin csr, spki;  /* DER */
	const struct db_cert *row; /* subject and sans as they have to be in the certificate */
	uint64_t life, max_life, now;
};
struct external_got {
	uint8_t serial[DB_SERIAL_MAX];
	size_t serial_len;
	uint64_t not_before, not_after;
};
/* 0: the certificate, DER, is appended to `der`; or *waits: it is still asked for, or the other authority says that it takes a while.
 * Else, with why, what it or csmd said, or CSM_EBACKEND: what came is not what was asked for. */
CSM_MUST int external_ask(struct external *x, const struct external_ask *ask, struct csm_buf *der, struct external_got *ret, bool *waits,
	char why[static CA_WHY]);

#endif
