/* csm-server: what its parts share. */
#ifndef CSM_CENTRAL_CENTRAL_H
#define CSM_CENTRAL_CENTRAL_H

#include "libclient/include/csm/csm.h"
#include "daemon/central/config.h"
#include "daemon/central/db.h"
#include "daemon/svc/http.h"
#include "daemon/svc/rates.h"

struct central {
	const struct central_config *config; /* server.yaml */
	struct central_db *db;
	struct csm *csm;                     /* the csmd beside it */
	struct csm_http *http;
	struct ca *ca;                       /* ca.h: the issuers */
	struct external *external;           /* external.h: issuers that are other authorities */
	struct pub *pub;                     /* pub.h: lists and OCSP */
	uint64_t (*now)(void);               /* seconds since 1970 */

	uid_t admin_uid;                     /* who is the administrator at the local socket: 0, or whoever started it in development */
	struct csm_rates *caller_rates, *refused_rates, *log_rates;
	struct csm_rates *use_of_node, *use_of_key; /* reports of use; with minutes in the place of seconds */
	bool ready;                          /* by __atomic: db, csm and ca are there. Before that only probes are served */
	const char *not_ready;               /* by __atomic: central_not_ready */
	bool look_again;                     /* by __atomic: the keeper looks at once whether it is ready */
	struct central_counts {              /* by __atomic */
		uint64_t answers[6];         /* by the first digit of the status */
		uint64_t unauthenticated, denied, gone, log_lines_left_out;
	} counts;
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
/* CSM_EUNAUTHENTICATED where what was shown is worth nothing; *ret with CALLER_NONE where nothing was shown. CSM_EBUSY: this caller
 * asks too often, or too many tokens from its address, or too often this certificate, were worth nothing. A token may be spent: what
 * it is spent for is db_issue's to refuse, since the same request may come again. res->who says who it was, for the log, and of a
 * certificate that is worth nothing why. */
CSM_MUST int caller_find(struct central *c, const struct csm_http_req *req, struct csm_http_res *res, struct csm_pool *pool,
	struct caller *ret);
/* The same for a handler: true where the caller has one of these roles (bits, 1 << CALLER_...); else res is filled: 401 or 403. The
 * log says who it was. */
CSM_MUST bool caller_is(struct central *c, const struct csm_http_req *req, struct csm_http_res *res, struct csm_pool *pool,
	unsigned roles, struct caller *ret);
#define CALLER_ANY_ROLE ((1u << (CALLER_ADMINISTRATOR + 1)) - (1u << CALLER_TOKEN)) /* whoever showed something */

/* ---- serve.c ---- */

/* NULL: certificates can be issued; else why not, static. */
const char *central_not_ready(struct central *c);

/* ---- routes.c: every route there is ---- */

/* For csm_http_options; its arg is the struct central, for each handler. Until `ready` only probes are served, all else is
 * CSM_EUNAVAILABLE. */
const struct csm_http_route *central_routes(void);
/* A line each: method, path, doors. */
void central_print_routes(void);
/* For csm_http_options.done: counts, and logs what failed. arg is the struct central. */
void central_done(void *arg, const struct csm_http_done *d);
/* For csm_http_options.stranger: logs it. */
void central_stranger(void *arg, const char *peer, const char *why);

#endif
