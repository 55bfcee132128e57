/* Writes DER (X.690) into a csm_buf. The first error stays: nothing is written after it, and it is d->r at the end, so that
 * a structure is written without a question after each of its parts. One thread, no I/O. */
#ifndef CSM_PKI_DER_H
#define CSM_PKI_DER_H

#include <openssl/asn1t.h>
#include <openssl/x509v3.h>
#include "libclient/base/buf.h"
#include "libclient/base/name.h"

#define CSM_DER_SEQ 0x30
#define CSM_DER_SET 0x31
#define CSM_DER_CONTEXT(n) (0x80 | (n))            /* [n] IMPLICIT of something primitive */
#define CSM_DER_CONTEXT_SEQ(n) (0x80 | 0x20 | (n)) /* [n] EXPLICIT, or IMPLICIT of something constructed */

struct csm_der {
	struct csm_buf *out; /* appended to; nothing may be consumed from it meanwhile */
	int r;               /* 0; CSM_ENOMEM, CSM_ETOO_LARGE (out's cap), CSM_EINTERNAL (OpenSSL) */
};

/* What is written between the two is the value of one element. */
size_t csm_der_open(struct csm_der *d, uint8_t tag);
void csm_der_close(struct csm_der *d, size_t at);

void csm_der_put(struct csm_der *d, uint8_t tag, const void *p, size_t n); /* one whole primitive element */
void csm_der_raw(struct csm_der *d, const void *p, size_t n);              /* bytes that are DER already */
void csm_der_uint(struct csm_der *d, const uint8_t *p, size_t n);          /* INTEGER, not negative, big-endian */
void csm_der_number(struct csm_der *d, uint64_t v);                        /* INTEGER */
void csm_der_oid(struct csm_der *d, int nid);
void csm_der_oid_text(struct csm_der *d, const char *text); /* a name that OpenSSL knows, or "1.2.3"; CSM_EINVALID: neither */
void csm_der_bits(struct csm_der *d, const void *p, size_t n); /* BIT STRING of whole bytes */
/* Seconds since 1970, at most the year 9999: as RFC 5280 wants it (4.1.2.5), or always a GeneralizedTime. */
void csm_der_time(struct csm_der *d, uint64_t at, bool general);
/* What OpenSSL encodes: csm_der_item(d, ASN1_ITEM_rptr(X509_NAME), name). */
void csm_der_item(struct csm_der *d, const ASN1_ITEM *it, const void *value);
/* Extension ::= SEQUENCE { OID, critical, OCTET STRING { value } }: what is written between open and close is its value. */
size_t csm_der_ext_open(struct csm_der *d, int nid, bool critical, size_t *value);
void csm_der_ext_close(struct csm_der *d, size_t at, size_t value);
void csm_der_ext(struct csm_der *d, int nid, bool critical, const ASN1_ITEM *it, const void *value);
void csm_der_ext_raw(struct csm_der *d, int nid, bool critical, struct csm_bin value);

#endif
