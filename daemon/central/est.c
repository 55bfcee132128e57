#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/central/asking.h"
#include "daemon/central/body.h"
#include "daemon/central/est.h"
#include "daemon/pki/certsonly.h"

#define FORM_MAX (CSM_CERT_CHAIN_MAX + 1024u)

/* ---- answers ---- */

/* Errors are a line for a person (RFC 7030 4.2.3). */
static void fail(struct csm_http_res *res, int r, const char *why)
{
	csm_http_fail(res, r, "%s", why[0] != '\0' ? why : csm_err_text(r));
	csm_buf_reset(&res->body);
	res->type = "text/plain; charset=utf-8";
	if (csm_buf_put(&res->body, why[0] != '\0' ? why : csm_err_text(r), strlen(why[0] != '\0' ? why : csm_err_text(r))) != 0 ||
		csm_buf_put(&res->body, "\n", 1) != 0)
		csm_buf_reset(&res->body);
	/* clients of EST look for Basic, and some for nothing behind it */
	if (res->status == 401 && csm_http_res_header(res, "WWW-Authenticate", "Basic realm=\"csm\"") != 0)
		res->status = 500;
}

static void send_base64(struct csm_http_res *res, const char *type, struct csm_bin der)
{
	int r = body_base64(der, &res->body);

	if (r == 0)
		r = csm_http_res_header(res, "Content-Transfer-Encoding", "base64");
	if (r != 0) {
		fail(res, r, "");
		return;
	}
	res->status = 200;
	res->type = type;
}

static void send_certs(struct csm_http_res *res, const char *type, struct csm_bin chain)
{
	struct csm_buf form;
	int r;

	csm_buf_init(&form, FORM_MAX, false);
	if ((r = csm_certs_only_put(chain, &form)) == 0)
		send_base64(res, type, (struct csm_bin){csm_buf_ptr(&form), form.len});
	else
		fail(res, r, "");
	csm_buf_free(&form);
}

/* ---- labels ---- */

static struct csm_str label_of(const struct csm_http_req *req)
{
	return req->n_params > 0 ? req->param[0] : CSM_STR("");
}

/* NULL, answered: there is none. */
static const struct profile_config *profile_of(struct central *c, const struct csm_http_req *req, struct csm_http_res *res)
{
	const struct csm_str label = label_of(req);
	const struct profiles *all = ca_profiles(c->ca);
	const struct profile_config *p = profiles_get(all, label.n > 0 ? label : CSM_STR("default"));

	if (p == NULL && label.n == 0)
		p = profiles_at(all, 0);
	if (p == NULL)
		fail(res, CSM_ENOT_FOUND, "there is no profile of the label's name");
	return p;
}

/* ---- what anyone may have ---- */

void est_get_cacerts(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	struct central *c = arg;
	const struct profile_config *p = profile_of(c, req, res);
	struct ca_issuer *i = NULL;
	int r;

	if (p == NULL)
		return;
	if ((r = ca_issuer_get(c->ca, csm_str_of(p->issuer->name), &i)) != 0) {
		/* it is there later: not what the caller did wrong */
		fail(res, r == CSM_ESTATE ? CSM_EUNAVAILABLE : r, "the issuer has no certificate yet");
		return;
	}
	send_certs(res, "application/pkcs7-mime; smime-type=certs-only", i->chain);
	ca_issuer_unref(i);
}

void est_get_csrattrs(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	const struct profile_config *p = profile_of(arg, req, res);
	struct csm_buf der;
	int r;

	if (p == NULL)
		return;
	csm_buf_init(&der, 4096, false);
	if ((r = est_csrattrs(&p->x509, &der)) == 0)
		send_base64(res, "application/csrattrs", (struct csm_bin){csm_buf_ptr(&der), der.len});
	else if (r == CSM_ENOT_FOUND)
		res->status = 204;
	else
		fail(res, r, "");
	csm_buf_free(&der);
}

/* ---- enrolment ---- */

/* A request in the way of EST; no type at all is let through, since the body tells what it is. */
static bool type_ok(const struct csm_http_req *req, struct csm_http_res *res)
{
	const struct csm_str type = csm_http_header(req, "Content-Type");

	if (type.p == NULL || type.n == 0 || est_type_is(type, "application/pkcs10"))
		return true;
	fail(res, CSM_EINVALID, "the body of this request is application/pkcs10");
	res->status = 415;
	return false;
}

/* Who asks; false: answered. */
static bool caller_ok(struct central *c, const struct csm_http_req *req, struct csm_http_res *res, struct csm_pool *pool,
	struct caller *who)
{
	int r = caller_find(c, req, res, pool, who);

	if (r == 0 && who->role == CALLER_NONE) {
		fail(res, CSM_EUNAUTHENTICATED, "a client certificate or a token (HTTP Basic, as password) is needed");
		return false;
	}
	if (r != 0)
		fail(res, r, r == CSM_EUNAUTHENTICATED ? "the certificate or token is not good" : "");
	return r == 0;
}

static void send_answer(struct csm_http_res *res, int r, const struct ca_answer *a, const char *why)
{
	char id[sizeof(a->request) + 1] = "";

	if (r == 0 && a->waits) {
		/* RFC 7030 4.2.3: the same request again, after that time */
		(void)snprintf(id, sizeof(id), "%s\n", a->request);
		res->status = 202;
		res->type = "text/plain; charset=utf-8";
		if (csm_http_res_header(res, "Retry-After", "%u", (unsigned)a->retry_after_s) != 0 ||
			csm_buf_put(&res->body, "the request waits, for an approval or another CA: ", 50) != 0 ||
			csm_buf_put(&res->body, id, strlen(id)) != 0)
			fail(res, CSM_EBUSY, "");
		return;
	}
	/* the certificate alone: who asked has the chain by cacerts (RFC 7030 4.2.3) */
	if (r == 0)
		send_certs(res, "application/pkcs7-mime; smime-type=certs-only", (struct csm_bin){csm_buf_ptr(&a->der), a->der.len});
	else
		fail(res, r, why);
}

static bool read_enroll(struct central *c, const struct csm_http_req *req, struct asking *a, struct csm_http_res *res)
{
	if (!type_ok(req, res) || (label_of(req).n > 0 && profile_of(c, req, res) == NULL) || !caller_ok(c, req, res, &a->pool, &a->by))
		return false;
	a->ask.csr = req->body;
	a->ask.profile = label_of(req);
	return true;
}

/* The names of the request are those of the certificate under which it comes. */
static int names_stay(const struct csm_http_req *req, char why[static CA_WHY])
{
	struct csm_certreq *q = NULL;
	char bad[CSM_CERTREQ_WHY] = "";
	int r = csm_certreq_read(req->body, &q, bad);

	if (r != 0)
		csm_text_put(why, CA_WHY, "the request: %s", bad);
	else
		r = est_same_names(req->peer_cert, q, why);
	csm_certreq_free(q);
	return r;
}

static bool read_reenroll(struct central *c, const struct csm_http_req *req, struct asking *a, struct csm_http_res *res)
{
	char why[CA_WHY] = "";
	int r;

	if (!read_enroll(c, req, a, res))
		return false;
	if (req->peer_cert == NULL) {
		fail(res, CSM_EDENIED, "renewal is under the certificate that is renewed, shown in TLS");
		return false;
	}
	if ((r = names_stay(req, why)) != 0)
		fail(res, r, why);
	return r == 0;
}

static const struct asking_way enroll = {false, read_enroll, send_answer}, reenroll = {true, read_reenroll, send_answer};

void est_post_enroll(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	asking_alone(&enroll, arg, req, res);
}

void est_enroll_together(void *arg, struct csm_http_one *v, size_t n)
{
	asking_together(&enroll, arg, v, n);
}

void est_post_reenroll(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	asking_alone(&reenroll, arg, req, res);
}

void est_reenroll_together(void *arg, struct csm_http_one *v, size_t n)
{
	asking_together(&reenroll, arg, v, n);
}
