/* What an issuer's key is asked to sign: to-be-signed certificates, CRLs and OCSP responses, read as strictly as DER allows, and
 * held against the key's rules and the certificate that is installed beside it. Whoever asks may be anyone: nothing in it is
 * believed. Any thread, no I/O. */
#ifndef CSM_PKI_TBS_H
#define CSM_PKI_TBS_H

#include <openssl/x509v3.h>
#include "daemon/pki/sigalg.h"
#include "libclient/wire/msg.h"

#define CSM_TBS_WHY 192
#define CSM_TBS_NUMBER_MAX 20u
#define CSM_TBS_SKEW_S 86400u                  /* what a clock may be off, or a date reach back or ahead */
#define CSM_TBS_SELF_LIFE_MAX (30u * 31556952u) /* of an issuer's own self-signed certificate */
#define CSM_TBS_OCSP_LIFE_MAX (100u * 86400u)   /* of one that may sign OCSP responses for the issuer */

enum csm_tbs_kind { CSM_TBS_CERTIFICATE, CSM_TBS_CRL, CSM_TBS_OCSP };
/* "certificate", "crl", "ocsp". CSM_EINVALID. */
CSM_MUST int csm_tbs_kind_parse(struct csm_str s, enum csm_tbs_kind *ret);

/* Rules of a key that is to be made: are they in order? CSM_EINVALID, with why. */
CSM_MUST int csm_tbs_rules_check(const struct csm_msg_issuer_rules *rules, char why[static CSM_TBS_WHY]);

/* The key that is to sign; all of it is borrowed. */
struct csm_tbs_key {
	enum csm_alg alg;
	struct csm_bin spki;
	const struct csm_msg_issuer_rules *rules;
	struct csm_bin chain; /* installed beside it: DER certificates, its own first; n 0: none */
	X509 *cert, *above;   /* its first two, if they have been read before; NULL: they are read */
	uint64_t now;         /* seconds since 1970 */
	bool quick;           /* a usual certificate in 10 us, all else in some 50; CSM_EBUSY for one with a key that takes longer */
};
/* What is to be signed. */
struct csm_tbs {
	enum csm_tbs_kind kind;
	struct csm_scheme scheme; /* of an OCSP response: the key's default */
	uint8_t number[CSM_TBS_NUMBER_MAX]; /* serial number of a certificate, number of a CRL: big-endian, no leading zeros */
	size_t number_len;                  /* 0: of an OCSP response */
};

/* May the key sign it? CSM_EINVALID: not in DER, not of this kind, or not in order; CSM_EDENIED: not within rules and certificate;
 * CSM_ESTATE: the key has no certificate, or that does not serve; CSM_ENOMEM. `why` says what, with no byte of it. Where OpenSSL
 * got no memory it may call good things malformed: who knows of that has to tell it apart. */
CSM_MUST int csm_tbs_check(const struct csm_tbs_key *key, enum csm_tbs_kind kind, struct csm_bin tbs, struct csm_tbs *ret,
	char why[static CSM_TBS_WHY]);

/* ---- a CRL in parts, without having it in memory (tbs_crl.c); one thread at a time ---- */
struct csm_tbs_crl;
/* head: up to the first entry, or, without entries, up to the extensions. ret->number is not known yet. */
CSM_MUST int csm_tbs_crl_begin(const struct csm_tbs_key *key, struct csm_bin head, struct csm_tbs_crl **ret, struct csm_tbs *tbs,
	char why[static CSM_TBS_WHY]);
/* Whole entries. */
CSM_MUST int csm_tbs_crl_entries(struct csm_tbs_crl *c, struct csm_bin entries, char why[static CSM_TBS_WHY]);
/* What stands behind the entries. The key's certificate is looked at again. */
CSM_MUST int csm_tbs_crl_end(struct csm_tbs_crl *c, const struct csm_tbs_key *key, struct csm_bin tail, struct csm_tbs *tbs,
	char why[static CSM_TBS_WHY]);
void csm_tbs_crl_free(struct csm_tbs_crl *c);

#endif
