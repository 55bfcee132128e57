/* An issuer's key, and what it is asked to sign. */
#ifndef TESTS_LIB_TBSFIX_H
#define TESTS_LIB_TBSFIX_H

#include "daemon/pki/tbs_int.h"
#include "tests/lib/pkifix.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))
#define YEAR (365u * PKI_DAY)

/* An issuer's key with the certificate of a CA beside it. */
struct tbsfix {
	struct pki_ca root, ca;
	unsigned char *der;
	struct csm_msg_issuer_rules rules;
	struct csm_str permitted[4], excluded[4];
	struct csm_tbs_key key;
	struct csm_profile profile;
	X509_NAME *name;
	GENERAL_NAMES *sans;
	struct csm_cert_order order;
	struct csm_buf tbs;
};
void tbsfix_begin(struct tbsfix *f, const char *alg);
void tbsfix_end(struct tbsfix *f);
/* Put another certificate beside the key; above may be NULL. */
void tbsfix_beside(struct tbsfix *f, X509 *x, X509 *above);

extern char tbsfix_why[CSM_TBS_WHY]; /* of the last judgement */
extern int tbsfix_quick;             /* what it was at once: CSM_EBUSY, or the same */
/* May it sign what is in f->tbs? What is said at once is what is said after the whole look. */
CSM_MUST int tbsfix_judge(struct tbsfix *f, enum csm_tbs_kind kind, struct csm_tbs *ret);
/* The certificate that is ordered. */
CSM_MUST int tbsfix_cert(struct tbsfix *f, struct csm_tbs *ret);
void tbsfix_expect(struct tbsfix *f, int r, const char *words);

#endif
