/* Requests that wait: told to who asked, and to those who decide about them. */
#include <sodium.h>
#include <string.h>
#include "daemon/central/api_int.h"
#include "daemon/central/api_inventory.h"

#define REASON_MAX 200u /* with all else it fits into the line that tells it */
#define LIST_DEFAULT 100u

static const char *const states[] = {
	[DB_WAITING] = "waiting", [DB_APPROVED] = "approved", [DB_REFUSED] = "denied", [DB_ISSUED] = "issued"};

void api_wait_answer(struct csm_http_res *res, const struct ca_answer *a)
{
	if (csm_http_res_header(res, "Retry-After", "%u", (unsigned)a->retry_after_s) != 0 ||
		csm_http_res_header(res, "Location", "/v1/cms/requests/%s", a->request) != 0)
		csm_http_fail(res, CSM_EINTERNAL, "no room");
	else
		body_answer(res, 202, json_pack("{s:s, s:s, s:i}", "request", a->request, "state", "waiting", "retry_after",
			(int)a->retry_after_s));
}

static json_t *sans_json(const struct db_request *q)
{
	json_t *all = json_array();

	for (size_t i = 0; i < q->n_sans; i++)
		if (json_array_append_new(all, body_str(q->sans[i])) != 0) {
			json_decref(all);
			return NULL;
		}
	return all;
}

static json_t *request_json(const struct db_request *q)
{
	json_t *v = json_pack("{s:o, s:s, s:o, s:o, s:o, s:o, s:b, s:I, s:I}", "request", body_hex((struct csm_bin){q->id, sizeof(q->id)}),
		"state", states[q->state], "profile", body_str(q->profile), "subject", body_str(q->subject), "san", sans_json(q),
		"requester", body_str(q->requester), "renewal", q->renewal, "created", (json_int_t)q->created, "expires",
		(json_int_t)q->expires);
	bool failed = v == NULL;

	if (q->ttl > 0)
		failed |= json_object_set_new(v, "ttl", json_integer((json_int_t)q->ttl)) != 0;
	if (q->decided > 0)
		failed |= json_object_set_new(v, "decided", json_integer((json_int_t)q->decided)) != 0 ||
			json_object_set_new(v, "decided_by", body_str(q->decided_by)) != 0;
	if (q->reason.n > 0)
		failed |= json_object_set_new(v, "reason", body_str(q->reason)) != 0;
	if (q->serial.n > 0)
		failed |= json_object_set_new(v, "serial", body_hex(q->serial)) != 0;
	if (!failed)
		return v;
	json_decref(v);
	return NULL;
}

/* ---- looking ---- */

static bool read_state(const struct csm_http_req *req, struct csm_http_res *res, int *ret)
{
	struct csm_str s = csm_http_query(req, "state");

	*ret = -1;
	for (int i = 0; s.p != NULL && i <= DB_ISSUED; i++)
		if (csm_str_eq(s, states[i]))
			*ret = i;
	if (s.p == NULL || *ret >= 0)
		return true;
	csm_http_fail(res, CSM_EINVALID, "state: waiting, approved, denied or issued");
	return false;
}

void api_request_list(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	struct csm_str after = {NULL, 0}, next = {NULL, 0};
	struct db_request *v = NULL;
	struct central *c = arg;
	uint64_t limit = LIST_DEFAULT;
	json_t *all = NULL;
	struct csm_pool pool, page;
	struct caller by;
	size_t n = 0;
	int r, state;

	csm_pool_init(&page, API_PAGE_POOL);
	if (!api_admin(c, req, true, &pool, &by, res) || !api_query_page(req, res, &limit, &after) || !read_state(req, res, &state))
		goto out;
	if ((r = db_request_list(c->db, state, after, limit, c->now(), &page, &v, &n, &next)) != 0) {
		csm_http_fail(res, r, "%s", r == CSM_EINVALID ? "after: no cursor of this list" : csm_err_text(r));
		goto out;
	}
	all = json_array();
	for (size_t i = 0; i < n; i++)
		if (json_array_append_new(all, request_json(&v[i])) != 0) {
			csm_http_fail(res, CSM_EBUSY, "no memory");
			goto out;
		}
	body_answer(res, 200, json_pack("{s:O, s:o}", "requests", all, "next", body_str(next)));
out:
	json_decref(all);
	csm_pool_free(&page);
	csm_pool_free(&pool);
}

static bool read_id(const struct csm_http_req *req, uint8_t id[static DB_REQUEST_ID_LEN], struct csm_http_res *res)
{
	size_t n = 0;

	if (req->n_params >= 1 && body_unhex(req->param[0], id, DB_REQUEST_ID_LEN, &n) && n == DB_REQUEST_ID_LEN)
		return true;
	csm_http_fail(res, CSM_EINVALID, "the id of a request is %u digits of hex", 2 * DB_REQUEST_ID_LEN);
	return false;
}

/* With the certificate that it became. */
static json_t *whole_json(struct central *c, const struct db_request *q, struct csm_pool *pool)
{
	struct ca_answer a = {.serial_len = q->serial.n, .not_after = 0};
	json_t *v = request_json(q), *made = NULL;
	struct db_cert cert;

	if (v == NULL || q->state != DB_ISSUED)
		return v;
	if (db_cert_get(c->db, q->serial, pool, &cert) != 0 || ca_issuer_get(c->ca, cert.issuer, &a.issuer) != 0)
		return v; /* its serial tells where it is */
	memcpy(a.serial, q->serial.p, q->serial.n);
	a.not_after = cert.not_after;
	csm_buf_init(&a.der, CSM_CERT_CHAIN_MAX, false);
	if (csm_buf_put(&a.der, cert.der.p, cert.der.n) == 0)
		made = api_cert_json(&a);
	ca_answer_free(&a);
	if (made == NULL || json_object_update(v, made) != 0) {
		json_decref(v);
		v = NULL;
	}
	json_decref(made);
	return v;
}

void api_request_get(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	uint8_t id[DB_REQUEST_ID_LEN];
	struct central *c = arg;
	struct csm_pool pool;
	struct db_request q;
	struct caller by;
	bool staff;
	int r;

	if (!api_caller(c, req, &pool, &by, res) || !read_id(req, id, res))
		goto out;
	staff = by.role == CALLER_OPERATOR || by.role == CALLER_ADMINISTRATOR;
	r = db_request_get(c->db, id, c->now(), &pool, &q);
	/* what one may not see is like what is not there */
	if (r == 0 && !staff && !csm_str_same(q.who, ca_who(&by, &pool)))
		r = CSM_ENOT_FOUND;
	if (r != 0)
		csm_http_fail(res, r, "%s", r == CSM_ENOT_FOUND ? "there is no such request, or not any more" : csm_err_text(r));
	else
		body_answer(res, 200, whole_json(c, &q, &pool));
out:
	csm_pool_free(&pool);
}

/* ---- deciding ---- */

/* It comes into the log and before other people's eyes: a line of text. */
static bool is_line(struct csm_str s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f)
			return false;
	return true;
}

static void decide(struct central *c, const struct csm_http_req *req, bool yes, struct csm_http_res *res)
{
	struct csm_str reason = {"", 0};
	const struct body_field fields[] = {{"reason", BODY_STR, false, REASON_MAX, &reason}};
	uint8_t id[DB_REQUEST_ID_LEN];
	char why[BODY_WHY > CA_WHY ? BODY_WHY : CA_WHY] = "";
	struct csm_pool pool;
	struct caller by;
	json_t *root = NULL;
	int r;

	if (!api_admin(c, req, true, &pool, &by, res) || !read_id(req, id, res))
		goto out;
	if ((r = body_read(req, fields, 1, &root, why)) == 0 && !is_line(reason))
		r = ca_refuse(why, CSM_EINVALID, "reason: a line of text");
	if (r != 0 || (r = ca_decide(c, &by, id, yes, reason, why)) != 0)
		csm_http_fail(res, r, "%s", why);
	else
		body_answer(res, 200, json_pack("{s:o, s:s}", "request", body_hex((struct csm_bin){id, sizeof(id)}), "state",
			yes ? "approved" : "denied"));
out:
	json_decref(root);
	csm_pool_free(&pool);
}

void api_request_approve(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	decide(arg, req, true, res);
}

void api_request_deny(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	decide(arg, req, false, res);
}
