/* What a CA gave for a request of this node, before anything of it is kept. Pure functions, any thread, no I/O. */
#ifndef CSM_PKI_ENROLLED_H
#define CSM_PKI_ENROLLED_H

#include "daemon/pki/cert.h"

#define CSM_ENROLLED_LIFE_MAX (11u * 366u * 86400u) /* seconds; longer is no certificate of a key in use */

/* What was asked for. */
struct csm_enrolled_want {
	struct csm_bin spki;        /* the key's */
	struct csm_str subject;     /* as csm_subject_parse takes it */
	bool any_subject;           /* the CA decides about it */
	const struct csm_str *sans; /* as csm_sans_parse takes them */
	size_t n_sans;
	struct csm_bin anchors;     /* who is trusted: DER certificates one after the other */
	uint64_t now;               /* seconds since 1970 */
	bool tls_client;            /* it has to do for a TLS client */
};

/* given: DER certificates, the key's own first, others in any order. All has to hold: the public key is the key's; the names
 * are those asked for, no more and no fewer; it is not a CA's; valid now, for no absurd time; a chain leads to one of the
 * anchors by what RFC 5280 demands, name constraints and extended key usages with it. The chain by which it did is appended to
 * *chain, the key's own first, without a self-signed one at its end; *ret is what csm_cert_check tells of it.
 * CSM_EINVALID, CSM_ETOO_LARGE: `why` says what is wrong and holds no byte of what was given. CSM_ENOMEM. */
CSM_MUST int csm_enrolled_check(struct csm_bin given, const struct csm_enrolled_want *want, struct csm_buf *chain,
	struct csm_pool *pool, struct csm_msg_cert_info *ret, char why[static CSM_CERT_WHY]);

/* Certificates of CAs, to be trusted: DER one after the other, each of them a CA's and not expired. CSM_EINVALID. */
CSM_MUST int csm_anchors_check(struct csm_bin anchors, uint64_t now, char why[static CSM_CERT_WHY]);
/* Those of both, each once; more beyond max bytes is left out. Expired ones go. Appended to *out. */
CSM_MUST int csm_anchors_join(struct csm_bin newer, struct csm_bin older, uint64_t now, size_t max, struct csm_buf *out);
/* PEM, with what stands around it, to DER one after the other, appended. CSM_EINVALID: none in it, or a broken one. */
CSM_MUST int csm_anchors_pem(struct csm_bin pem, struct csm_buf *out);

#endif
