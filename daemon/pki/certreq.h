/* A certificate request (PKCS#10, RFC 2986) from outside, read and proved: what it asks for is told, nothing of it is
 * taken over. Pure functions, any thread, no I/O. */
#ifndef CSM_PKI_CERTREQ_H
#define CSM_PKI_CERTREQ_H

#include <openssl/x509v3.h>
#include "libclient/base/buf.h"
#include "libclient/base/name.h"
#include "proto-spec/limits.h"

#define CSM_CERTREQ_WHY (CSM_ERROR_TEXT_MAX + 1)
#define CSM_CERTREQ_EXTS_MAX 16u
#define CSM_OID_TEXT_MAX 64u

struct csm_requested {
	int nid;                    /* NID_undef for one that OpenSSL does not know */
	char oid[CSM_OID_TEXT_MAX]; /* "2.5.29.17" */
	bool critical;
};
struct csm_certreq {
	uint8_t *bytes;          /* of der and what lies in it */
	struct csm_bin der;      /* the request */
	struct csm_bin tbs;      /* what of it is signed */
	struct csm_bin spki;     /* DER */
	X509_NAME *subject;
	int key_type;            /* EVP_PKEY_RSA, EVP_PKEY_EC (P-256, P-384, P-521 by name), EVP_PKEY_ED25519 */
	int key_bits;
	GENERAL_NAMES *sans;     /* NULL: none. DNS, IP, URI and e-mail names, well formed, none twice */
	struct csm_requested exts[CSM_CERTREQ_EXTS_MAX];
	size_t n_exts;
	bool wants_ca;
	bool changes_subject;    /* it has the attribute ChangeSubjectName (RFC 6402) */
	uint32_t key_usage;      /* KU_ bits asked for; 0: not asked */
	EXTENDED_KEY_USAGE *eku; /* NULL: not asked */
};

/* DER, PEM, or base64 without its PEM lines (EST); nothing left over. Its own signature has been verified: whoever made it
 * has the key. The key is of a known kind and not weaker than 112 bits: RSA 2048 to 4096 with a sound exponent.
 * CSM_EINVALID, CSM_ETOO_LARGE: `why` says what is wrong, with no byte of the request but object identifiers. CSM_ENOMEM. */
CSM_MUST int csm_certreq_read(struct csm_bin bytes, struct csm_certreq **ret, char why[static CSM_CERTREQ_WHY]);
void csm_certreq_free(struct csm_certreq *req);

#endif
