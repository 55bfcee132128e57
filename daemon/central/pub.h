/* What csm-server tells everyone: revocation lists, OCSP answers, certificates of issuers. A thread keeps lists and OCSP
 * certificates of all issuers up to date; handlers hand out what it has made. Any thread. */
#ifndef CSM_CENTRAL_PUB_H
#define CSM_CENTRAL_PUB_H

#include "daemon/central/ca.h"
#include "daemon/central/crl.h"
#include "daemon/central/ocsp.h"

struct pub;
/* c->ca and c->db are there. CSM_ENOMEM. */
CSM_MUST int pub_new(struct central *c, struct pub **ret);
/* Start the thread. CSM_ESYSTEM. */
CSM_MUST int pub_start(struct pub *p);
/* The thread ends. NULL is a no-op. */
void pub_free(struct pub *p);

/* The present list of an issuer ("": the one named default, else the first). CSM_ENOT_FOUND: no such issuer; CSM_ESTATE: it has no
 * certificate; CSM_EUNAVAILABLE: not made yet. */
CSM_MUST int pub_crl(struct pub *p, struct csm_str issuer, bool delta, struct crl_list **ret);
/* Who answers for it; likewise. */
CSM_MUST int pub_responder(struct pub *p, struct csm_str issuer, struct ocsp_responder **ret);

/* ---- handlers; arg is the struct central ---- */

csm_http_handler pub_get_list;   /* GET /crl/{file}: NAME.crl, NAME.delta.crl */
csm_http_handler pub_get_issuer; /* GET /ca/{file}: NAME.cer or NAME.crt */
csm_http_handler api_crl_get;    /* GET /v1/cms/crl?issuer=&delta=&format= */
csm_http_handler ocsp_get;       /* GET /ocsp/{rest}: [NAME/]BASE64 */
csm_http_handler ocsp_post;      /* POST /ocsp, POST /ocsp/{issuer} */

#endif
