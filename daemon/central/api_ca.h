/* The REST routes of the authority. Each has struct central as its argument. */
#ifndef CSM_CENTRAL_API_CA_H
#define CSM_CENTRAL_API_CA_H

#include "daemon/svc/http.h"

/* The largest bodies that they take. */
#define API_CERT_BODY_MAX 65536u
#define API_SMALL_BODY_MAX 16384u
#define API_CA_BODY_MAX 131072u

csm_http_handler api_cert_issue;   /* POST /v1/cms/certificates */
csm_http_handler api_cert_renew;   /* POST /v1/cms/renew */
csm_http_together api_cert_issue_together, api_cert_renew_together;
csm_http_handler api_cert_revoke;  /* POST /v1/cms/certificates/{serial}/revoke */

csm_http_handler api_token_create; /* POST /v1/cms/tokens */
csm_http_handler api_token_list;   /* GET /v1/cms/tokens */
csm_http_handler api_token_delete; /* DELETE /v1/cms/tokens/{id} */

csm_http_handler api_request_list;    /* GET /v1/cms/requests */
csm_http_handler api_request_get;     /* GET /v1/cms/requests/{id} */
csm_http_handler api_request_approve; /* POST /v1/cms/requests/{id}/approve */
csm_http_handler api_request_deny;    /* POST /v1/cms/requests/{id}/deny */

csm_http_handler api_ca_create;    /* POST /v1/cms/ca */
csm_http_handler api_ca_put;       /* PUT /v1/cms/ca */
csm_http_handler api_ca_get;       /* GET /v1/cms/ca */

#endif
