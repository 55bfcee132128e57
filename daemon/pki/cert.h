/* X.509 certificates (RFC 5280) that were issued elsewhere and are to stand beside a key: checked, and what is told of
 * them. Pure functions, any thread, no I/O. */
#ifndef CSM_PKI_CERT_H
#define CSM_PKI_CERT_H

#include <openssl/x509v3.h>
#include "libclient/base/buf.h"
#include "libclient/wire/msg.h"
#include "proto-spec/limits.h"

#define CSM_CERT_WHY (CSM_ERROR_TEXT_MAX + 1)

/* A chain: DER certificates one after the other, at most CSM_CERTS_MAX and CSM_CERT_CHAIN_MAX bytes, nothing left over.
 * The first one's public key is spki; each next one issued the one before (name, key identifier, CA, signature); none
 * has expired at `now` (seconds since 1970). A first one that is not valid yet is taken: clocks differ, and it may be
 * meant for later. It may be a CA's. Whether anyone trusts the last one is not asked.
 *
 * Fills serial, subject, san, issuer, not_before, not_after, renew_at and fingerprint of *ret, with texts in the pool.
 * CSM_EINVALID, CSM_ETOO_LARGE: `why` says which certificate and what is wrong; it holds no bytes of the chain. Where
 * OpenSSL got no memory it may say that of a good certificate: who knows of that has to tell it apart. */
CSM_MUST int csm_cert_check(struct csm_bin chain, struct csm_bin spki, uint64_t now, struct csm_pool *pool,
	struct csm_msg_cert_info *ret, char why[static CSM_CERT_WHY]);
/* Once, before that and before memory may be short: what OpenSSL sets up at the first use (cert_ready.c). CSM_ENOMEM. */
CSM_MUST int csm_cert_prepare(void);
/* "valid", "expired" or "not_yet_valid". */
const char *csm_cert_state(uint64_t not_before, uint64_t not_after, uint64_t now);

/* ---- as text (cert_text.c) ---- */

/* "/O=x/CN=y" as csm_subject_parse takes it, "+" between the parts of one RDN, control characters as \XX; appended.
 * CSM_EINVALID: a value that is no text. CSM_ETOO_LARGE beyond out's cap. */
CSM_MUST int csm_name_text(const X509_NAME *name, struct csm_buf *out);
/* "dns:", "ip:", "uri:", "email:", "dirname:", "rid:", "other:"; appended. CSM_EINVALID: bytes that such a name cannot
 * have. */
CSM_MUST int csm_san_text(const GENERAL_NAME *name, struct csm_buf *out);

#endif
