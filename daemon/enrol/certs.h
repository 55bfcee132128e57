/* Certificates in a server's answer, in whatever form and order they come. Nothing is believed: what is made of it is in order,
 * and csmd checks it. Pure functions, any thread, no I/O. */
#ifndef CSM_ENROL_CERTS_H
#define CSM_ENROL_CERTS_H

#include <jansson.h>
#include "libclient/base/buf.h"
#include "libclient/base/name.h"

#define CERTS_MAX 32u /* of one answer */

/* PKCS#7 certs-only (DER, base64 with or without line breaks, PEM), or certificates in PEM, or in DER one after the other. Appended as
 * DER. CSM_EPROTOCOL: nothing of that; CSM_ETOO_LARGE: too many, or beyond out's cap; CSM_ENOMEM. */
CSM_MUST int certs_read(struct csm_bin bytes, struct csm_buf *out);
/* The PEM certificates in the strings of a JSON object, down to three levels. */
CSM_MUST int certs_read_json(const json_t *json, struct csm_buf *out);

/* From `certs`, and what is missing from `more` (p NULL: nothing): the certificate for the key of this request (PKCS#10, DER; of
 * several the one that is valid from the latest), then each one's issuer, up to one that a root among `anchors` (p NULL: none) has
 * issued, or else as far as there is one; none twice, and a self-signed one at the end is left out. (An authority that changes its
 * root's key gives the new one by the old one and the old one by the new one, RFC 7030 4.1.3: each has issued the other.)
 * CSM_EPROTOCOL: there is none for the key; CSM_EINVALID: the request cannot be read. */
CSM_MUST int certs_order(struct csm_bin certs, struct csm_bin more, struct csm_bin anchors, struct csm_bin csr, struct csm_buf *out);
/* Whether the last certificate of a chain was issued by one of `anchors`. */
bool certs_end_at(struct csm_bin chain, struct csm_bin anchors);
/* The certificate with this digest (64 hexadecimal digits). CSM_ENOT_FOUND. */
CSM_MUST int certs_find(struct csm_bin certs, struct csm_str sha256, struct csm_bin *ret);

#endif
