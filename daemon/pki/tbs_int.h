/* What the readers of to-be-signeds share. */
#ifndef CSM_PKI_TBS_INT_H
#define CSM_PKI_TBS_INT_H

#include "daemon/pki/tbs.h"

/* ---- DER (tbs_der.c) ---- */

/* Is it one value in DER, with all in it, and nothing behind it? Of context-specific primitive ones only the frame is looked at. */
bool tbs_is_der(struct csm_bin v);
/* One value off the front of *rest: its tag, its contents, and (whole may be NULL) all of it. False: the frame is not DER. */
bool tbs_take(struct csm_bin *rest, uint8_t *tag, struct csm_bin *body, struct csm_bin *whole);
/* Only its head, tag and length, whose contents need not be there; *head bytes of it, *body bytes to come. */
bool tbs_head(struct csm_bin in, uint8_t *tag, size_t *head, size_t *body);
/* UTCTime to 2049, GeneralizedTime from 2050 (RFC 5280 4.1.2.5), no fractions, Z; seconds since 1970. */
bool tbs_time(uint8_t tag, struct csm_bin body, uint64_t *ret);
/* INTEGER: positive, 1 to CSM_TBS_NUMBER_MAX bytes of contents; without a leading zero. */
bool tbs_number(uint8_t tag, struct csm_bin body, struct csm_bin *ret);

/* ---- the issuer (tbs.c) ---- */
struct tbs_issuer {
	const struct csm_tbs_key *key;
	char *why;
	X509 *cert;  /* the key's own; NULL: none is installed */
	X509 *above; /* the next in the chain; NULL: none is there */
	uint64_t not_after;
	bool is_ca;  /* else a responder to whom the one above gave its OCSP responses */
};
int tbs_refuse(struct tbs_issuer *is, int r, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* cert and above; what they are good for now. */
CSM_MUST int tbs_issuer_open(struct tbs_issuer *is, const struct csm_tbs_key *key, char *why);
void tbs_issuer_close(struct tbs_issuer *is);
/* It has a certificate, and that is a CA's, with that usage. */
CSM_MUST int tbs_issuer_is_ca(struct tbs_issuer *is, uint32_t usage);
/* Is it the algorithm identifier of a scheme that the key has? */
CSM_MUST int tbs_scheme(struct tbs_issuer *is, struct csm_bin algorithm, struct csm_scheme *ret);
/* Is it, as DER, the issuer's subject? */
CSM_MUST int tbs_issuer_name(struct tbs_issuer *is, struct csm_bin name);
/* Has it the issuer's key identifier, and nothing else? id NULL: it is missing. */
CSM_MUST int tbs_authority(struct tbs_issuer *is, const AUTHORITY_KEYID *id);
/* Extensions: each one DER within, none twice; critical ones and known ones among `allowed`, which ends with NID_undef. */
CSM_MUST int tbs_extensions(struct tbs_issuer *is, const STACK_OF(X509_EXTENSION) *exts, const int *allowed);
/* to-be-signed, algorithm and an empty signature, as X.509 frames it. */
CSM_MUST int tbs_framed(struct csm_bin tbs, const X509_ALGOR *alg, struct csm_buf *out);

/* Seconds since 1970. False: before that, or none. */
bool tbs_seconds(const ASN1_TIME *t, uint64_t *ret);
/* May it sign OCSP responses by its extended key usage? One without that usage may not. */
bool tbs_is_responder(X509 *x);

/* ---- names (tbs_names.c) ---- */
/* Subject and alternative names, against the constraints of rules and issuer; of a CA, its own constraints too. */
CSM_MUST int tbs_names(struct tbs_issuer *is, X509 *x, bool ca);

#define TBS_SERIAL_MIN 8u /* bytes: 64 random bits are the least that browsers' rules ask for */
/* Is it a usual certificate, and within everything (tbs_quick.c)? False: tbs_certificate knows; then `why` may say anything. The
 * whole has been found to be DER. */
bool tbs_quick(struct tbs_issuer *is, struct csm_bin tbs, struct csm_tbs *ret);
CSM_MUST int tbs_certificate(struct tbs_issuer *is, struct csm_bin tbs, struct csm_tbs *ret);
CSM_MUST int tbs_ocsp(struct tbs_issuer *is, struct csm_bin tbs, struct csm_tbs *ret);
CSM_MUST int tbs_crl_whole(const struct csm_tbs_key *key, struct csm_bin tbs, struct csm_tbs *ret, char why[static CSM_TBS_WHY]);

#endif
