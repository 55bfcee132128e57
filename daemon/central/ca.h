/* The certificate authority: its issuers, and what makes a certificate. Issuers' keys are in the csmd beside it. Any thread. */
#ifndef CSM_CENTRAL_CA_H
#define CSM_CENTRAL_CA_H

#include "daemon/central/central.h"
#include "daemon/central/profiles.h"
#include "daemon/pki/issue.h"

#define CA_WHY (CSM_ERROR_TEXT_MAX + 1)

/* ---- issuers ---- */

/* An issuer as it is now; immutable, counted. */
struct ca_issuer {
	const struct issuer_config *config;
	X509 *cert;
	EVP_PKEY *pub;             /* of cert */
	char spki_sha256[65];      /* of pub, as csmd tells it; "": of one that has no certificate yet */
	struct csm_scheme scheme;
	const char *scheme_name;   /* as issue.sign takes it */
	struct csm_bin chain;      /* DER, its own certificate first, the root last */
	struct csm_str chain_pem;  /* the same, PEM */
	struct csm_str cert_pem, root_pem;
	uint64_t not_after;
	uint64_t max_life;         /* what csmd lets its key issue for; 0: csmd does not tell, or it is another authority */
};
/* Connects to nothing; the issuers come with ca_load. */
CSM_MUST int ca_new(struct central *c, const struct profiles *profiles, struct ca **ret);
void ca_free(struct ca *ca);
/* Ask csmd for the certificates of those issuers that are not there yet. 0 where all are there or have none. */
CSM_MUST int ca_load(struct ca *ca);
/* What csmd has may have changed: those that are there are used until the next ca_load has asked for them again. */
void ca_look_again(struct ca *ca);
/* Other profiles and issuers from now on; issuers that stay with their key and scheme keep their certificate. Both the old and the new
 * ones live as long as `ca`: what is under way may still use the old. CSM_EINVALID: an issuer's new scheme is not its key's; CSM_ENOMEM;
 * nothing has changed then. */
CSM_MUST int ca_set_profiles(struct ca *ca, const struct profiles *profiles);
const struct profiles *ca_profiles(struct ca *ca);
/* "": the one named default, else the first. CSM_ENOT_FOUND: not in server.yaml; CSM_ESTATE: it has no certificate yet (csm ca init);
 * CSM_EUNAVAILABLE: csmd does not tell. */
CSM_MUST int ca_issuer_get(struct ca *ca, struct csm_str name, struct ca_issuer **ret);
void ca_issuer_unref(struct ca_issuer *i);
/* Where `life` from `from` on ends, or earlier: with the issuer, and with what its key may issue for. */
uint64_t ca_until(const struct ca_issuer *i, uint64_t from, uint64_t life);

/* A signer for csm_signed_put and the like: asks issue.sign for a signature of the kind "certificate", "crl" or "ocsp". Both
 * structures have to live as long as it is used. What csmd said of a refusal is in why.
 * Certificates are not verified again: csmd has the issuer's key, so that nothing here is safer than it; it is told by its digest
 * which key is meant, and has verified what did not come from its own software. Lists are: one signature is for many. */
struct ca_signing {
	struct csm *csm;
	const struct ca_issuer *issuer;
	const char *kind;
	char why[CA_WHY];
};
struct csm_signer ca_signer(struct ca_signing *s);

/* ---- certificates ---- */

struct ca_ask {
	const struct caller *by;
	struct csm_bin csr;         /* PEM, DER, or base64 */
	struct csm_str profile;     /* "": the token's, else "default" */
	uint64_t ttl;               /* seconds; 0: the profile's */
	struct csm_str idempotency; /* "": none */
	struct csm_bin renews;      /* of ca_renew: the serial of the certificate; n 0: the caller's own */
};
/* What came of it: a certificate; or, where `waits` is true, nothing but the request and when to ask again. */
struct ca_answer {
	bool waits;
	char request[2 * DB_REQUEST_ID_LEN + 1];
	uint32_t retry_after_s;
	uint8_t serial[DB_SERIAL_MAX];
	size_t serial_len;
	struct csm_buf der;
	uint64_t not_after;
	struct ca_issuer *issuer; /* to be given back */
};
void ca_answer_free(struct ca_answer *a);
/* A certificate for a request, or its place among those that wait for somebody's approval; durable when it returns. The same request
 * of the same caller again is that one, until the certificate was given and for ten minutes after, a
 * tenth of its life at most: then it is a new wish. Every refusal changes nothing, and `why` says its reason: CSM_EDENIED,
 * CSM_EINVALID, CSM_ECONFLICT (the idempotency key), CSM_EUNAUTHENTICATED (nobody asks), CSM_ESTATE, CSM_EUNAVAILABLE, ... */
CSM_MUST int ca_issue(struct central *c, const struct ca_ask *ask, struct ca_answer *ret, char why[static CA_WHY]);
/* Would its profile and its request do? Before the issuer is made. */
CSM_MUST int ca_issue_check(struct central *c, const struct ca_ask *ask, char why[static CA_WHY]);
/* The successor of a certificate: the same names, profile and role; under the certificate itself, or its node's. */
CSM_MUST int ca_renew(struct central *c, const struct ca_ask *ask, struct ca_answer *ret, char why[static CA_WHY]);
/* Several at once, at most DB_TOGETHER_MAX: each as by ca_issue or ca_renew, as if they came one after the other in some order. They
 * share what has to be waited for, so that none is among them that may take long: what waits for a person or another authority, or is
 * of another issuer than the first, or of one whose key is slow, is not done here (`alone`). `settled` is called for each of those, and
 * for each that is answered without a signature, before the signatures are asked for; the others are told by the return. */
struct ca_one {
	const struct ca_ask *ask;
	bool renewal;
	/* what came of it: as ca_issue tells it; or nothing, where it is for ca_issue or ca_renew to do */
	int r;
	bool alone;
	struct ca_answer answer;
	char why[CA_WHY];
};
typedef void ca_settled(void *arg, size_t i);
void ca_together(struct central *c, struct ca_one *v, size_t n, ca_settled *settled, void *arg);
/* An administrator or operator any certificate, a node those of its node, a service its own. CSM_ECONFLICT: the idempotency key. */
CSM_MUST int ca_revoke(struct central *c, const struct caller *by, struct csm_bin serial, int reason, const struct db_asked *asked,
	char why[static CA_WHY]);

/* ---- requests that wait (ca_wait.c) ---- */

/* Under whom requests are kept: "node NAME" of a node, else his name. n 0 where there is no room in the pool. */
struct csm_str ca_who(const struct caller *by, struct csm_pool *pool);
/* An operator or administrator says yes, after the checks were made again, or no with a reason. Never to his own request. CSM_EDENIED,
 * CSM_ENOT_FOUND, CSM_ESTATE (decided before), ..., with why. */
CSM_MUST int ca_decide(struct central *c, const struct caller *by, const uint8_t id[static DB_REQUEST_ID_LEN], bool yes,
	struct csm_str reason, char why[static CA_WHY]);

/* ---- the TLS certificate of csm-server itself (tls.c) ---- */

/* A new key and certificate if the present one is past two thirds of its life or issuers have changed; to be called often. The log
 * has what is wrong, and it comes again; before there is an issuer it does nothing. */
void tls_tick(struct central *c);

#endif
