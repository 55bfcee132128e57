/* Certificates over REST: issued, renewed, revoked. */
#include <string.h>
#include <openssl/pem.h>
#include <sodium.h>
#include "daemon/central/api_int.h"
#include "daemon/central/asking.h"
#include "daemon/pki/crl.h"
#include "libclient/base/pem.h"

#define CSR_TEXT_MAX (2u * CSM_CSR_MAX)
#define TTL_MAX (UINT64_C(100) * 366 * 86400)
#define REASON_MAX 32u
#define PEM_MAX (2u * CSM_CERT_CHAIN_MAX)

/* ---- what the routes share ---- */

bool api_caller(struct central *c, const struct csm_http_req *req, struct csm_pool *pool, struct caller *ret,
	struct csm_http_res *res)
{
	int r;

	csm_pool_init(pool, API_POOL_MAX);
	if ((r = caller_find(c, req, res, pool, ret)) == 0 && ret->role == CALLER_NONE)
		csm_http_fail(res, CSM_EUNAUTHENTICATED, "a client certificate or a token is needed");
	else if (r == CSM_EUNAUTHENTICATED)
		csm_http_fail(res, r, "what was shown to prove who asks is not valid");
	else if (r != 0)
		csm_http_fail(res, r, "who asks cannot be found out: %s", csm_err_text(r));
	return r == 0 && ret->role != CALLER_NONE;
}

bool api_admin(struct central *c, const struct csm_http_req *req, bool operators, struct csm_pool *pool, struct caller *ret,
	struct csm_http_res *res)
{
	if (!api_caller(c, req, pool, ret, res))
		return false;
	if (ret->role == CALLER_ADMINISTRATOR || (operators && ret->role == CALLER_OPERATOR))
		return true;
	csm_http_fail(res, CSM_EDENIED, "this is for %s", operators ? "operators and administrators" : "administrators");
	return false;
}

bool api_idempotency(const struct csm_http_req *req, struct csm_str *ret, struct csm_http_res *res)
{
	struct csm_str s = csm_http_header(req, "Idempotency-Key");
	bool good = s.p == NULL || (s.n > 0 && s.n <= API_IDEMPOTENCY_MAX);

	for (size_t i = 0; s.p != NULL && i < s.n && good; i++)
		good = s.p[i] > 0x20 && s.p[i] < 0x7f;
	if (!good)
		csm_http_fail(res, CSM_EINVALID, "Idempotency-Key: 1 to %u visible ASCII characters", API_IDEMPOTENCY_MAX);
	else
		*ret = s.p != NULL ? s : CSM_STR("");
	return good;
}

bool api_asked(const struct csm_http_req *req, const struct caller *by, const char *what, uint8_t hash[static 32],
	struct db_asked *ret, struct csm_http_res *res)
{
	const struct csm_str param = req->n_params > 0 ? req->param[0] : CSM_STR("");
	crypto_hash_sha256_state h;
	struct csm_str key;

	if (!api_idempotency(req, &key, res))
		return false;
	(void)crypto_hash_sha256_init(&h);
	(void)crypto_hash_sha256_update(&h, (const uint8_t *)what, strlen(what) + 1);
	(void)crypto_hash_sha256_update(&h, (const uint8_t *)param.p, param.n);
	(void)crypto_hash_sha256_update(&h, (const uint8_t *)"", 1);
	(void)crypto_hash_sha256_update(&h, req->body.p, req->body.n);
	(void)crypto_hash_sha256_final(&h, hash);
	*ret = (struct db_asked){.spare = by->cert.serial, .idempotency = key, .caller = csm_str_of(by->name), .request_hash = {hash, 32}};
	return true;
}

static json_t *pem_of(const struct ca_answer *a)
{
	struct csm_buf pem;
	json_t *v = NULL;

	csm_buf_init(&pem, PEM_MAX, false);
	if (csm_pem_put(&pem, PEM_STRING_X509, csm_buf_ptr(&a->der), a->der.len) == 0)
		v = json_stringn_nocheck((const char *)csm_buf_ptr(&pem), pem.len);
	csm_buf_free(&pem);
	return v;
}

json_t *api_cert_json(const struct ca_answer *a)
{
	const struct ca_issuer *i = a->issuer;

	return json_pack("{s:o, s:o, s:o, s:I, s:s}", "serial", body_hex((struct csm_bin){a->serial, a->serial_len}),
		"certificate", pem_of(a), "chain", body_str(i->chain_pem), "not_after", (json_int_t)a->not_after,
		"issuer", i->config->name);
}

/* ---- issue and renew ---- */

static void tell(struct csm_http_res *res, int r, const struct ca_answer *a, const char *why)
{
	if (r != 0)
		csm_http_fail(res, r, "%s", why);
	else if (a->waits)
		api_wait_answer(res, a);
	else
		body_answer(res, 201, api_cert_json(a));
}

/* "serial" is for renewals. */
static bool read_asked(struct central *c, const struct csm_http_req *req, bool renewal, struct asking *a, struct csm_http_res *res)
{
	struct csm_str csr = {NULL, 0}, hex = {NULL, 0};
	const struct body_field fields[] = {
		{"csr", BODY_STR, true, CSR_TEXT_MAX, &csr}, {"profile", BODY_STR, false, API_NAME_MAX, &a->ask.profile},
		{"ttl", BODY_U64, false, TTL_MAX, &a->ask.ttl}, {"serial", BODY_STR, false, API_SERIAL_TEXT_MAX, &hex},
	};
	char why[BODY_WHY];
	int r;

	if (!api_caller(c, req, &a->pool, &a->by, res) || !api_idempotency(req, &a->ask.idempotency, res))
		return false;
	if ((r = body_read(req, fields, renewal ? 4 : 3, &a->root, why)) != 0) {
		csm_http_fail(res, r, "%s", why);
		return false;
	}
	if (hex.p != NULL && !api_serial(hex, res, a->serial, &a->ask.renews))
		return false;
	a->ask.csr = (struct csm_bin){(const uint8_t *)csr.p, csr.n};
	return true;
}

static bool read_issue(struct central *c, const struct csm_http_req *req, struct asking *a, struct csm_http_res *res)
{
	return read_asked(c, req, false, a, res);
}

static bool read_renewal(struct central *c, const struct csm_http_req *req, struct asking *a, struct csm_http_res *res)
{
	return read_asked(c, req, true, a, res);
}

static const struct asking_way issue = {false, read_issue, tell}, renew = {true, read_renewal, tell};

void api_cert_issue(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	asking_alone(&issue, arg, req, res);
}

void api_cert_issue_together(void *arg, struct csm_http_one *v, size_t n)
{
	asking_together(&issue, arg, v, n);
}

void api_cert_renew(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	asking_alone(&renew, arg, req, res);
}

void api_cert_renew_together(void *arg, struct csm_http_one *v, size_t n)
{
	asking_together(&renew, arg, v, n);
}

/* ---- revoke ---- */

static const struct {
	const char *name;
	int reason;
} reasons[] = {
	{"unspecified", CSM_REASON_UNSPECIFIED}, {"keyCompromise", CSM_REASON_KEY_COMPROMISE},
	{"cACompromise", CSM_REASON_CA_COMPROMISE}, {"affiliationChanged", CSM_REASON_AFFILIATION_CHANGED},
	{"superseded", CSM_REASON_SUPERSEDED}, {"cessationOfOperation", CSM_REASON_CESSATION},
	{"certificateHold", CSM_REASON_HOLD}, {"removeFromCRL", CSM_REASON_REMOVE_FROM_CRL},
	{"privilegeWithdrawn", CSM_REASON_PRIVILEGE_WITHDRAWN}, {"aACompromise", CSM_REASON_AA_COMPROMISE},
};

const char *api_reason_name(int reason)
{
	for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
		if (reasons[i].reason == reason)
			return reasons[i].name;
	return "unspecified";
}

/* What another authority has issued is revoked here alone: in no list of ours, nor of its. */
static bool is_ours(struct central *c, struct csm_bin serial)
{
	const struct issuer_config *issuer = NULL;
	struct csm_pool pool;
	struct db_cert cert;

	csm_pool_init(&pool, API_POOL_MAX);
	if (db_cert_get(c->db, serial, &pool, &cert) == 0)
		issuer = profiles_issuer(ca_profiles(c->ca), cert.issuer);
	csm_pool_free(&pool);
	return issuer == NULL || issuer->external == NULL;
}

static void revoke(struct central *c, const struct caller *by, struct csm_bin serial, struct csm_str name, const struct db_asked *asked,
	struct csm_http_res *res)
{
	char why[CA_WHY];
	size_t i = 0;
	int r;

	while (i < sizeof(reasons) / sizeof(reasons[0]) && !csm_str_eq(name, reasons[i].name))
		i++;
	if (i == sizeof(reasons) / sizeof(reasons[0])) {
		csm_http_fail(res, CSM_EINVALID, "reason: unknown; as unspecified, keyCompromise, superseded, cessationOfOperation");
		return;
	}
	if ((r = ca_revoke(c, by, serial, reasons[i].reason, asked, why)) != 0)
		csm_http_fail(res, r, "%s", why);
	else
		body_answer(res, 200, json_pack("{s:o, s:s, s:s, s:b}", "serial", body_hex(serial), "state",
			reasons[i].reason == CSM_REASON_REMOVE_FROM_CRL ? "valid" : "revoked", "reason", reasons[i].name, "published",
			is_ours(c, serial)));
}

void api_cert_revoke(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	struct csm_str reason = CSM_STR("unspecified");
	const struct body_field fields[] = {{"reason", BODY_STR, false, REASON_MAX, &reason}};
	uint8_t bytes[DB_SERIAL_MAX], hash[32];
	char why[BODY_WHY];
	struct db_asked asked;
	struct csm_bin serial;
	struct csm_pool pool;
	struct caller by;
	json_t *root = NULL;
	int r;

	if (!api_caller(arg, req, &pool, &by, res) || !api_asked(req, &by, "revoke", hash, &asked, res))
		goto out;
	if ((r = body_read(req, fields, 1, &root, why)) != 0)
		csm_http_fail(res, r, "%s", why);
	else if (api_serial(req->param[0], res, bytes, &serial))
		revoke(arg, &by, serial, reason, &asked, res);
out:
	json_decref(root);
	csm_pool_free(&pool);
}
