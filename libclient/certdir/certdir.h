/* What the folder of a certificate holds, for csm cert export and csm-deliver alike. */
#ifndef CSM_CERTDIR_CERTDIR_H
#define CSM_CERTDIR_CERTDIR_H

#include "libclient/base/generation.h"
#include "libclient/certdir/msgjson.h"

#define CSM_CERTS_MAX 10u
struct csm_certs {
	struct csm_bin der[CSM_CERTS_MAX];
	size_t n;
	bool root; /* the last one has issued itself */
};
/* The certificates of a chain that csmd has checked; they borrow it. CSM_EPROTOCOL: it is none. */
CSM_MUST int csm_certs_split(struct csm_bin der, struct csm_certs *ret);
/* Certificates from `from` up to before `to` as PEM, appended. */
CSM_MUST int csm_certs_pem(const struct csm_certs *c, size_t from, size_t to, struct csm_buf *pem);
/* The answer to cert.get, its chain and its anchors as arrays of PEM. */
CSM_MUST int csm_cert_json(const struct csm_msg_cert_info *info, json_t **ret);

/* cert.pem, chain.pem (the issuers, without the root), fullchain.pem (both), ca.pem (the root where the chain has it, else
 * whom the enrolment profile trusts, else empty), key.pem (a reference to the key), meta.json. */
#define CSM_CERTDIR_FILES 6u
extern const char *const csm_certdir_names[CSM_CERTDIR_FILES + 1]; /* NULL ends them */
struct csm_certdir {
	struct csm_gen_file files[CSM_CERTDIR_FILES];
	struct csm_buf bytes[CSM_CERTDIR_FILES];
};
/* Of a certificate with its chain, and its key's public half. The caller clears it, whatever the result. CSM_ECONFLICT: the
 * certificate is not that key's; CSM_EPROTOCOL, CSM_EINVALID, CSM_ENOMEM. */
CSM_MUST int csm_certdir_make(const struct csm_msg_cert_info *info, struct csm_bin spki, struct csm_certdir *ret);
void csm_certdir_clear(struct csm_certdir *d);

#endif
