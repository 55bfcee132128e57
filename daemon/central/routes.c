#include <stdio.h>
#include <string.h>
#include "daemon/central/api.h"
#include "daemon/central/api_ca.h"
#include "daemon/central/api_inventory.h"
#include "daemon/central/body.h"
#include "daemon/central/est.h"
#include "daemon/central/pub.h"
#include "daemon/svc/log.h"

#define TLS CSM_HTTP_TLS
#define PLAIN CSM_HTTP_PLAIN
#define LOCAL CSM_HTTP_LOCAL
#define JSON "application/json"

/* method, path, doors, largest body, handler, what the body must be, handler of several; the names that its query may have.
 * proto-spec/openapi.yaml has the same, and a test compares. */
static const struct {
	struct csm_http_route http;
	const char *query; /* with spaces between; NULL: none */
} table[] = {
	{{"GET", "/healthz", TLS | LOCAL, 0, api_healthz, NULL, NULL}, NULL},
	{{"GET", "/readyz", TLS | LOCAL, 0, api_readyz, NULL, NULL}, NULL},
	{{"GET", "/metrics", TLS | LOCAL, 0, api_metrics, NULL, NULL}, NULL},

	{{"POST", "/v1/cms/certificates", TLS | LOCAL, API_CERT_BODY_MAX, api_cert_issue, JSON, api_cert_issue_together}, NULL},
	{{"GET", "/v1/cms/certificates", TLS | LOCAL, 0, api_cert_list, NULL, NULL},
		"after expires_after expires_before format issued_after issuer limit name node profile requester san serial state"},
	{{"GET", "/v1/cms/certificates/{serial}", TLS | LOCAL, 0, api_cert_get, NULL, NULL}, "format"},
	{{"POST", "/v1/cms/certificates/{serial}/revoke", TLS | LOCAL, API_SMALL_BODY_MAX, api_cert_revoke, JSON, NULL}, NULL},
	{{"POST", "/v1/cms/renew", TLS, API_CERT_BODY_MAX, api_cert_renew, JSON, api_cert_renew_together}, NULL},
	{{"GET", "/v1/cms/requests", TLS | LOCAL, 0, api_request_list, NULL, NULL}, "after limit state"},
	{{"GET", "/v1/cms/requests/{id}", TLS | LOCAL, 0, api_request_get, NULL, NULL}, NULL},
	{{"POST", "/v1/cms/requests/{id}/approve", TLS | LOCAL, API_SMALL_BODY_MAX, api_request_approve, JSON, NULL}, NULL},
	{{"POST", "/v1/cms/requests/{id}/deny", TLS | LOCAL, API_SMALL_BODY_MAX, api_request_deny, JSON, NULL}, NULL},
	{{"GET", "/v1/cms/inventory", TLS | LOCAL, 0, api_inventory_export, NULL, NULL}, "after limit"},
	{{"POST", "/v1/cms/usage", TLS, API_USAGE_BODY_MAX, api_usage_post, JSON, NULL}, NULL},
	{{"GET", "/v1/cms/usage", TLS | LOCAL, 0, api_usage_get, NULL, NULL}, "after format from limit name node to use"},
	{{"POST", "/v1/cms/tokens", TLS | LOCAL, API_SMALL_BODY_MAX, api_token_create, JSON, NULL}, NULL},
	{{"GET", "/v1/cms/tokens", TLS | LOCAL, 0, api_token_list, NULL, NULL}, "after limit"},
	{{"DELETE", "/v1/cms/tokens/{id}", TLS | LOCAL, 0, api_token_delete, NULL, NULL}, NULL},
	{{"POST", "/v1/cms/ca", TLS | LOCAL, API_CA_BODY_MAX, api_ca_create, JSON, NULL}, NULL},
	{{"PUT", "/v1/cms/ca", TLS | LOCAL, API_CA_BODY_MAX, api_ca_put, JSON, NULL}, NULL},
	{{"GET", "/v1/cms/ca", TLS | PLAIN | LOCAL, 0, api_ca_get, NULL, NULL}, "format issuer"},

	{{"GET", "/v1/cms/crl", TLS | LOCAL, 0, api_crl_get, NULL, NULL}, "delta format issuer"},
	{{"GET", "/crl/{file}", PLAIN, 0, pub_get_list, NULL, NULL}, NULL},
	{{"GET", "/ca/{file}", PLAIN, 0, pub_get_issuer, NULL, NULL}, NULL},
	{{"GET", "/ocsp/{request*}", PLAIN, 0, ocsp_get, NULL, NULL}, NULL},
	{{"POST", "/ocsp", PLAIN, CSM_OCSP_REQUEST_MAX, ocsp_post, NULL, NULL}, NULL},
	{{"POST", "/ocsp/{issuer}", PLAIN, CSM_OCSP_REQUEST_MAX, ocsp_post, NULL, NULL}, NULL},

	{{"GET", "/.well-known/est/cacerts", TLS, 0, est_get_cacerts, NULL, NULL}, NULL},
	{{"GET", "/.well-known/est/csrattrs", TLS, 0, est_get_csrattrs, NULL, NULL}, NULL},
	{{"POST", "/.well-known/est/simpleenroll", TLS, EST_BODY_MAX, est_post_enroll, NULL, est_enroll_together}, NULL},
	{{"POST", "/.well-known/est/simplereenroll", TLS, EST_BODY_MAX, est_post_reenroll, NULL, est_reenroll_together}, NULL},
	{{"GET", "/.well-known/est/{label}/cacerts", TLS, 0, est_get_cacerts, NULL, NULL}, NULL},
	{{"GET", "/.well-known/est/{label}/csrattrs", TLS, 0, est_get_csrattrs, NULL, NULL}, NULL},
	{{"POST", "/.well-known/est/{label}/simpleenroll", TLS, EST_BODY_MAX, est_post_enroll, NULL, est_enroll_together}, NULL},
	{{"POST", "/.well-known/est/{label}/simplereenroll", TLS, EST_BODY_MAX, est_post_reenroll, NULL, est_reenroll_together}, NULL},
};
#define N_ROUTES (sizeof(table) / sizeof(table[0]))

static bool is_probe(const struct csm_http_route *r)
{
	return r->handler == api_healthz || r->handler == api_readyz || r->handler == api_metrics;
}

/* The same rows, each with this in the place of its handler. */
static struct csm_http_route gated[N_ROUTES + 1];

static bool takes(const char *query, struct csm_str name)
{
	for (; query != NULL && *query != '\0'; query += strspn(query, " ")) {
		size_t n = strcspn(query, " ");

		if (csm_str_same((struct csm_str){query, n}, name))
			return true;
		query += n;
	}
	return false;
}

/* What nobody reads was meant to do something: a filter with a slip in its name would tell of everything. */
static bool query_known(const struct csm_http_req *req, const char *query, struct csm_http_res *res)
{
	char shown[BODY_SHOWN];
	struct csm_str name;

	for (size_t i = 0; (name = csm_http_query_name(req, i)).p != NULL; i++) {
		if (takes(query, name))
			continue;
		body_shown(name, shown);
		if (query != NULL)
			csm_http_fail(res, CSM_EINVALID, "the query has no '%s' here; it may have %s", shown, query);
		else
			csm_http_fail(res, CSM_EINVALID, "the query has no '%s' here: this route takes none", shown);
		return false;
	}
	return true;
}

/* False: answered. */
static bool may_pass(struct central *c, const struct csm_http_req *req, struct csm_http_res *res)
{
	size_t i = (size_t)(req->route - gated);

	if (!query_known(req, table[i].query, res))
		return false;
	if (is_probe(&table[i].http) || __atomic_load_n(&c->ready, __ATOMIC_ACQUIRE))
		return true;
	csm_http_fail(res, CSM_EUNAVAILABLE, "csm-server is starting, or waits for the csmd beside it");
	return false;
}

static void gate(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	if (may_pass(arg, req, res))
		table[req->route - gated].http.handler(arg, req, res);
}

static void gate_together(void *arg, struct csm_http_one *v, size_t n)
{
	const struct csm_http_route *r = &table[v[0].req->route - gated].http;
	size_t m = 0;

	for (size_t i = 0; i < n; i++) {
		if (may_pass(arg, v[i].req, v[i].res))
			v[m++] = v[i];
		else
			csm_http_answer_now(&v[i]);
	}
	if (m > 0)
		r->together(arg, v, m);
	for (size_t i = m; i < n; i++)
		v[i].req = NULL;
}

const struct csm_http_route *central_routes(void)
{
	for (size_t i = 0; i < N_ROUTES; i++) {
		gated[i] = table[i].http;
		gated[i].handler = gate;
		gated[i].together = table[i].http.together != NULL ? gate_together : NULL;
	}
	return gated;
}

void central_print_routes(void)
{
	for (size_t i = 0; i < N_ROUTES; i++) {
		const struct csm_http_route *r = &table[i].http;

		printf("%s %s%s%s%s%s%s\n", r->method, r->path, r->doors & TLS ? " tls" : "", r->doors & PLAIN ? " plain" : "",
			r->doors & LOCAL ? " local" : "", table[i].query != NULL ? " ? " : "", table[i].query != NULL ? table[i].query : "");
	}
}

static const char *door_name(enum csm_http_door d)
{
	return d == TLS ? "tls" : d == PLAIN ? "plain" : "local";
}

/* A flood of failures is not to become a flood of lines. */
static void log_failed(struct central *c, const struct csm_http_done *d)
{
	if (csm_rates_take(c->log_rates, "", 0, c->now() * 1000, NULL) != 0) {
		__atomic_fetch_add(&c->counts.log_lines_left_out, 1, __ATOMIC_RELAXED);
		return;
	}
	log_warn("request failed: door=%s peer=%s method=%s path=%.*s status=%d error=%s who=\"%s\" why=\"%s\" us=%llu", door_name(d->door),
		d->peer, d->method[0] != 0 ? d->method : "?", (int)(d->path.n < 160 ? d->path.n : 160), d->path.p != NULL ? d->path.p : "",
		d->status, d->error != 0 ? csm_err_name(d->error) : "-", d->who, d->why, (unsigned long long)d->us);
}

void central_stranger(void *arg, const char *peer, const char *why)
{
	struct central *c = arg;

	if (csm_rates_take(c->log_rates, "", 0, c->now() * 1000, NULL) != 0)
		__atomic_fetch_add(&c->counts.log_lines_left_out, 1, __ATOMIC_RELAXED);
	else
		log_warn("client certificate refused: peer=%s why=\"%s\"", peer, why);
}

void central_done(void *arg, const struct csm_http_done *d)
{
	struct central *c = arg;

	__atomic_fetch_add(&c->counts.answers[d->status / 100 < 6 ? d->status / 100 : 5], 1, __ATOMIC_RELAXED);
	if (d->status == 401)
		__atomic_fetch_add(&c->counts.unauthenticated, 1, __ATOMIC_RELAXED);
	else if (d->status == 403)
		__atomic_fetch_add(&c->counts.denied, 1, __ATOMIC_RELAXED);
	else if (d->status == 0)
		__atomic_fetch_add(&c->counts.gone, 1, __ATOMIC_RELAXED);
	if (d->status >= 400)
		log_failed(c, d);
}
