/* What the files of the authority's routes share. */
#ifndef CSM_CENTRAL_API_INT_H
#define CSM_CENTRAL_API_INT_H

#include "daemon/central/api_ca.h"
#include "daemon/central/body.h"
#include "daemon/central/ca_int.h"

#define API_POOL_MAX (1024u * 1024u)
#define API_NAME_MAX 63u
#define API_IDEMPOTENCY_MAX 128u
#define API_SERIAL_TEXT_MAX (3u * DB_SERIAL_MAX)

/* Who asks; has answered where it is false. `pool` is initialised in any case, and freed by the caller. */
bool api_caller(struct central *c, const struct csm_http_req *req, struct csm_pool *pool, struct caller *ret,
	struct csm_http_res *res);
/* The same for those who administrate: operators too, or administrators alone. */
bool api_admin(struct central *c, const struct csm_http_req *req, bool operators, struct csm_pool *pool, struct caller *ret,
	struct csm_http_res *res);
/* The header Idempotency-Key; "" without one. Has answered where it is false. */
bool api_idempotency(const struct csm_http_req *req, struct csm_str *ret, struct csm_http_res *res);
/* What a change that somebody asks for rests on: his certificate, and his Idempotency-Key with what it is sent with, hashed to `hash`.
 * Has answered where it is false. */
bool api_asked(const struct csm_http_req *req, const struct caller *by, const char *what, uint8_t hash[static 32],
	struct db_asked *ret, struct csm_http_res *res);
/* A certificate as its JSON: serial, certificate, chain (its issuers up to the root), not_after, issuer. NULL: no memory. */
json_t *api_cert_json(const struct ca_answer *a);

/* 202: the request waits; where it is found, and when to ask again. */
void api_wait_answer(struct csm_http_res *res, const struct ca_answer *a);

/* A serial number as people have it: hex in either case, with colons between the bytes or without, with zeros in front or without.
 * Has answered where it is false. */
bool api_serial(struct csm_str text, struct csm_http_res *res, uint8_t mem[static DB_SERIAL_MAX], struct csm_bin *ret);

/* "keyCompromise"; of enum csm_reason. */
const char *api_reason_name(int reason);

#endif
