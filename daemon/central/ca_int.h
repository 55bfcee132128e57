/* What the files of the authority share. */
#ifndef CSM_CENTRAL_CA_INT_H
#define CSM_CENTRAL_CA_INT_H

#include <pthread.h>
#include "daemon/central/ca.h"

/* Write `why` (CA_WHY bytes) and answer r. */
int ca_refuse(char *why, int r, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* What csmd answered, as a caller of csm-server may have it; its words go to `why`. */
CSM_MUST int ca_csmd_error(int r, char *why);

/* An issuer of its chain (DER, its own certificate first). CSM_EINVALID: no certificates, or another scheme than the key's. */
CSM_MUST int ca_issuer_make(const struct issuer_config *config, struct csm_bin chain, struct ca_issuer **ret);
/* server.yaml's scheme, or what fits the key. CSM_EINVALID: it does not fit; CSM_EUNSUPPORTED. */
CSM_MUST int ca_scheme(const struct issuer_config *config, EVP_PKEY *pub, struct csm_scheme *ret);
/* The chain beside the issuer's key in csmd, and from now on here. */
CSM_MUST int ca_install(struct ca *ca, const struct issuer_config *config, struct csm_bin chain, char why[static CA_WHY]);

/* ---- certificates signed together (ca_sign.c) ---- */

#define CA_TOGETHER_MAX DB_TOGETHER_MAX
struct ca_to_sign {
	const struct ca_issuer *issuer;
	struct csm_bin tbs;
	char *why;       /* CA_WHY bytes */
	/* what came of it; as ca_signer's words */
	int r;
	uint8_t sig[CSM_SIGNATURE_MAX];
	size_t n;
	uint64_t asked;
};
/* n to-be-signed certificates, n at least 1, by one exchange with csmd; each has its own result. They wait for each other, so that they
 * should be of one issuer. */
void ca_sign_together(struct central *c, struct ca_to_sign *const *v, size_t n);
/* For csm_signed_put: the signature that is there; believed as that of ca_signer is. */
struct csm_signer ca_signed(struct ca_to_sign *s);

/* Connections for that, with nothing on its way. */
#define CA_LINES_MAX 8u
struct ca_lines {
	pthread_mutex_t lock;
	struct csm_async *idle[CA_LINES_MAX];
	size_t n;
};
struct ca_lines *ca_lines(struct ca *ca);
void ca_lines_init(struct ca_lines *l);
void ca_lines_free(struct ca_lines *l);

/* So long did its last signature take. By that it is slow, or not. */
void ca_issuer_took(const struct ca_issuer *i, uint64_t ms);
bool ca_is_slow(struct ca *ca, const struct issuer_config *config);

/* ---- how an issuer comes to be (ca_init.c) ---- */

/* What is made by ca_init_* is made by one at a time, between these: whether there is an issuer already, its key, its certificate. */
void ca_making_begin(struct ca *ca);
void ca_making_end(struct ca *ca);

struct ca_plan {
	const struct issuer_config *config;
	const char *subject;          /* "/O=x/CN=y"; not for an import */
	const char *alg, *backend;    /* NULL: csmd's own choice */
	uint64_t life;                /* seconds, of a self-signed certificate */
	struct csm_issuer_rules rules; /* max_life 0: what the profiles need */
};
/* The key, where it is not there yet, and a certificate of it by itself. CSM_EEXISTS: the issuer has one. */
CSM_MUST int ca_init_root(struct central *c, struct ca_plan *plan, char why[static CA_WHY]);
/* The key, where it is not there yet, and a request (DER, appended) for somebody else's authority. */
CSM_MUST int ca_init_request(struct central *c, struct ca_plan *plan, struct csm_buf *csr, char why[static CA_WHY]);
/* Its certificate and those above it up to the root, in PEM; wrapped: the key in PEM as csm wrap-key makes it, or n 0: it is there. */
CSM_MUST int ca_init_chain(struct central *c, struct ca_plan *plan, struct csm_str chain, struct csm_str wrapped,
	char why[static CA_WHY]);

/* By name; "": as ca_issuer_get. NULL: none. */
const struct issuer_config *ca_config(struct ca *ca, struct csm_str name);
/* Counts the issuers that came or changed. */
unsigned ca_changes(struct ca *ca);

/* What tls.c keeps. */
struct ca_tls {
	pthread_mutex_t lock;
	uint64_t renew_at, retry_at;
	unsigned seen; /* the issuers that its trust was made of */
};
struct ca_tls *ca_tls(struct ca *ca);

/* Random, of the full length: its first byte is not zero, so that it is the same bytes in each form. */
void ca_serial(uint8_t ret[static CSM_SERIAL_LEN]);
/* Seconds since 1970. CSM_EINVALID. */
CSM_MUST int ca_time(const ASN1_TIME *t, uint64_t *ret);
/* Appended. */
CSM_MUST int ca_cert_pem(X509 *x, struct csm_buf *out);
/* What the row of a certificate says by its order: serial, subject, names, key, dates. Texts are in the pool, the serial is the order's. */
CSM_MUST int ca_row(const struct csm_cert_order *order, struct csm_pool *pool, struct db_cert *ret);
/* "/O=x/CN=y" and "dns:a", in the pool. */
CSM_MUST int ca_subject_text(const X509_NAME *subject, struct csm_pool *pool, struct csm_str *ret);
CSM_MUST int ca_san_texts(const GENERAL_NAMES *names, struct csm_pool *pool, struct csm_str **ret, size_t *n);
/* The value of the subject's CN, in the pool; p NULL: none. */
CSM_MUST int ca_cn(const X509_NAME *subject, struct csm_pool *pool, struct csm_str *ret);

/* ---- a request that waits, within ca_issue and ca_renew (ca_wait.c) ---- */
struct ca_wait {
	struct central *c;
	const struct ca_ask *ask;
	const struct profile_config *profile;
	const struct csm_certreq *q;
	struct csm_bin renews; /* of a renewal: the serial; n 0: it is none */
	struct csm_pool *pool;
	uint64_t now;
	char *why;
	/* what is known of it */
	uint8_t id[DB_REQUEST_ID_LEN];
	struct db_request row;
	bool found; /* it is there: what it was asked by has been spent for it */
};
/* Is that nothing to be answered at once? */
bool ca_waits(const struct caller *by, const struct profile_config *p, bool renewal);
/* Is it there? Fills the lower part. */
CSM_MUST int ca_wait_find(struct ca_wait *w);
/* That it waits, and for how long. */
void ca_wait_tell(const struct ca_wait *w, struct ca_answer *ret);
/* After all checks. 0 with *ret: it waits; or, with *issued, it became the certificate of w->row.serial. CSM_ENOT_FOUND: it is to be
 * issued now. CSM_EDENIED: it was refused, or cannot be paid. */
CSM_MUST int ca_wait_turn(struct ca_wait *w, struct ca_answer *ret, bool *issued);

/* Has the caller's token been given for these names? CSM_EDENIED, with why. */
CSM_MUST int ca_token_names(const struct db_token *t, const struct csm_certreq *q, struct csm_pool *pool, char why[static CA_WHY]);
/* May he ask by this profile at all, and with which role for what is issued? CSM_EDENIED, with why. */
CSM_MUST int ca_may_ask(const struct caller *by, const struct profile_config *p, const char **role, char why[static CA_WHY]);
/* Does the row's certificate make a node of a name that may be another's? Not a renewal, not what an operator asks for or made a token
 * for by name. */
bool ca_new_node(const struct caller *by, const struct db_cert *row);
/* Is the certificate the caller's: his own, its predecessor, or, for a node, one of its services? */
bool ca_is_own(const struct caller *by, const struct db_cert *cert);

#endif
