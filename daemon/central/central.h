/* csm-server: what its parts share. */
#ifndef CSM_CENTRAL_CENTRAL_H
#define CSM_CENTRAL_CENTRAL_H

#include <csm/csm.h>
#include "daemon/central/config.h"
#include "daemon/central/db.h"
#include "daemon/svc/http.h"

struct central {
	const struct central_config *config; /* server.yaml */
	struct central_db *db;
	struct csm *csm;                     /* the csmd beside it */
	struct csm_http *http;
	struct ca *ca;                       /* ca.h: the issuers */
	struct pub *pub;                     /* pub.h: lists and OCSP */
	uint64_t (*now)(void);               /* seconds since 1970 */
};

/* Who asks, decided for each request (caller.c): a client certificate that this CA issued and that is not revoked, a token, or
 * root at the local socket. */
enum caller_role { CALLER_NONE, CALLER_TOKEN, CALLER_SERVICE, CALLER_NODE, CALLER_OPERATOR, CALLER_ADMINISTRATOR };
struct caller {
	enum caller_role role;
	struct db_cert cert;    /* of one with a certificate */
	struct db_token token;  /* of CALLER_TOKEN */
	char name[96];          /* "token ID", "cert SERIAL", "uid 0": for requester, events and log */
};
/* CSM_EUNAUTHENTICATED where what was shown is worth nothing; *ret with CALLER_NONE where nothing was shown. */
CSM_MUST int caller_find(struct central *c, const struct csm_http_req *req, struct csm_pool *pool, struct caller *ret);

#endif
