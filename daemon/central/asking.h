/* Requests for certificates, whichever door they come by: each alone, or several together. What the ways of asking differ in, how a
 * request is read and how it is answered, is a table. */
#ifndef CSM_CENTRAL_ASKING_H
#define CSM_CENTRAL_ASKING_H

#include <jansson.h>
#include "daemon/central/ca.h"

struct asking {
	struct csm_pool pool;
	struct caller by;
	struct ca_ask ask;
	uint8_t serial[DB_SERIAL_MAX];
	json_t *root; /* what slices of `ask` are of; NULL */
};
struct asking_way {
	bool renewal;
	/* Fills a->by, a->ask (whose `by` is a->by) and what they need. False: it has answered. */
	bool (*begin)(struct central *c, const struct csm_http_req *req, struct asking *a, struct csm_http_res *res);
	/* As ca_issue told it. */
	void (*end)(struct csm_http_res *res, int r, const struct ca_answer *a, const char *why);
};
/* For handlers: a csm_http_handler, and a csm_http_together. */
void asking_alone(const struct asking_way *w, struct central *c, const struct csm_http_req *req, struct csm_http_res *res);
void asking_together(const struct asking_way *w, struct central *c, struct csm_http_one *v, size_t n);

#endif
