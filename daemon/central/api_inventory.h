/* The REST routes of the inventory and of reports of use. Each has struct central as its argument. */
#ifndef CSM_CENTRAL_API_INVENTORY_H
#define CSM_CENTRAL_API_INVENTORY_H

#include <jansson.h>
#include "daemon/central/central.h"

#define API_USAGE_BODY_MAX (256u * 1024u)

csm_http_handler api_cert_list;        /* GET /v1/cms/certificates */
csm_http_handler api_cert_get;         /* GET /v1/cms/certificates/{serial} */
csm_http_handler api_inventory_export; /* GET /v1/cms/inventory */
csm_http_handler api_usage_post;       /* POST /v1/cms/usage */
csm_http_handler api_usage_get;        /* GET /v1/cms/usage */

/* ---- what both have ---- */
#define API_PAGE_POOL (16u * 1024u * 1024u)
#define API_STAFF (1u << CALLER_OPERATOR | 1u << CALLER_ADMINISTRATOR)

/* A number of the query, *ret as it is where it is not there. Has answered where it is false. */
bool api_query_u64(const struct csm_http_req *req, struct csm_http_res *res, const char *name, uint64_t max, uint64_t *ret);
/* A text of the query, "" where it is not there. */
bool api_query_str(const struct csm_http_req *req, struct csm_http_res *res, const char *name, size_t max, struct csm_str *ret);
/* limit and after. */
bool api_query_page(const struct csm_http_req *req, struct csm_http_res *res, uint64_t *limit, struct csm_str *after);
/* format: "json", "csv", or "" where it is not there. */
bool api_query_format(const struct csm_http_req *req, struct csm_http_res *res, struct csm_str *ret);
/* A node sees what is its own: the filter's node is made so. */
bool api_own_only(const struct caller *by, struct csm_http_res *res, struct db_filter *f);
/* "valid", "revoked" or "expired". */
const char *api_cert_state(const struct db_cert *c, uint64_t now);

#endif
