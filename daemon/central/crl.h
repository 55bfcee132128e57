/* The lists of what an issuer has revoked, made from the database. Their numbers are in the database too, and grow; none is
 * below the seconds since 1970. Any thread, but one at a time for an issuer. */
#ifndef CSM_CENTRAL_CRL_H
#define CSM_CENTRAL_CRL_H

#include "daemon/central/db.h"
#include "daemon/pki/crl.h"

#define CRL_LIFE (24u * 3600u)  /* seconds from this_update to next_update of a full list */
#define CRL_DELTA_LIFE 3600u
#define CRL_BYTES_MAX (16u * 1024u * 1024u)

/* A list as it is handed out; immutable, counted. */
struct crl_list {
	unsigned refs;     /* by __atomic */
	uint64_t number;
	uint64_t base;     /* 0: a full one */
	uint64_t this_update, next_update;
	size_t entries;
	struct csm_buf der;
	struct csm_buf pem; /* empty until it is asked for; of crl_list_pem */
};
struct crl_list *crl_list_ref(struct crl_list *l);
void crl_list_unref(struct crl_list *l); /* NULL is a no-op */
/* Its PEM, made once; borrowed from the list. CSM_ENOMEM. */
CSM_MUST int crl_list_pem(struct crl_list *l, struct csm_bin *ret);

struct crl_job {
	struct central_db *db;
	struct csm_str issuer; /* its name */
	X509 *cert;
	const struct csm_signer *signer;
	const char *delta_url; /* NULL: none is told */
	uint64_t now;
};
/* A full list and a delta of one number, of what the database says. The delta's base is a full list so old that nobody has an older
 * one that is still good, or, in the first day, the first list. Numbers are durable when this returns; one that was drawn and came
 * to nothing is not used again. What the database and the signer answer; CSM_ETOO_LARGE beyond CRL_BYTES_MAX. */
CSM_MUST int crl_make(const struct crl_job *job, struct crl_list **full, struct crl_list **delta);
/* The delta alone, under a number of its own, since it is good for an hour only. CSM_ESTATE: there is no full list yet. */
CSM_MUST int crl_make_delta(const struct crl_job *job, struct crl_list **delta);

#endif
