/* The authority over REST: made, brought along, shown. */
#include <stdio.h>
#include <string.h>
#include <openssl/pem.h>
#include <sodium.h>
#include "daemon/central/api_int.h"
#include "daemon/central/crl.h"
#include "daemon/svc/log.h"

#define LIFE_DEFAULT (UINT64_C(3650) * 86400)
#define LIFE_MAX (UINT64_C(100) * 366 * 86400)
#define TEXT_MAX 65536u

struct asked {
	struct csm_str issuer, subject, alg, backend, admin_csr, chain, key;
	bool self_signed;
	uint64_t life, admin_ttl;
	uint64_t max_life, path_len, rate;
	struct body_strs permitted, excluded;
	struct db_asked by; /* of POST */
};

#define RULES(a) \
	{"max_life", BODY_U64, false, LIFE_MAX, &(a)->max_life}, {"path_len", BODY_U64, false, CSM_ISSUER_PATH_MAX, &(a)->path_len}, \
	{"rate", BODY_U64, false, CSM_ISSUER_RATE_MAX, &(a)->rate}, \
	{"permitted", BODY_STRS, false, CSM_ISSUER_NAME_MAX, &(a)->permitted}, \
	{"excluded", BODY_STRS, false, CSM_ISSUER_NAME_MAX, &(a)->excluded}, \
	{"issuer", BODY_STR, false, API_NAME_MAX, &(a)->issuer}, \
	{"admin_csr", BODY_STR, false, 2 * CSM_CSR_MAX, &(a)->admin_csr}, \
	{"admin_ttl", BODY_U64, false, LIFE_MAX, &(a)->admin_ttl}

/* The lists of names are pointers into `a` and `names`. */
struct names {
	const char *permitted[BODY_STRS_MAX], *excluded[BODY_STRS_MAX];
};

static struct ca_ask admin_ask(const struct caller *by, const struct asked *a)
{
	return (struct ca_ask){.by = by, .csr = {(const uint8_t *)a->admin_csr.p, a->admin_csr.n},
		.profile = CSM_STR("administrator"), .ttl = a->admin_ttl, .idempotency = CSM_STR("")};
}

/* What could only be refused once the issuer is there, for good. */
static int check(struct central *c, const struct caller *by, const struct asked *a, char *why)
{
	const struct ca_ask ask = admin_ask(by, a);
	char bad[CA_WHY] = "";
	int r;

	if (a->max_life != 0 && a->max_life < CRL_LIFE)
		return ca_refuse(why, CSM_EINVALID, "max_life: at least %u seconds: the issuer signs CRLs for as long", CRL_LIFE);
	if (a->max_life != 0 && a->admin_ttl > a->max_life)
		return ca_refuse(why, CSM_EINVALID, "admin_ttl: longer than max_life");
	if (a->life != 0 && a->admin_ttl > a->life)
		return ca_refuse(why, CSM_EINVALID, "admin_ttl: longer than the issuer's own life");
	if (a->admin_csr.n > 0 && (r = ca_issue_check(c, &ask, bad)) != 0)
		return ca_refuse(why, r, "admin_csr: %.400s", bad);
	return 0;
}

static bool plan_of(struct central *c, const struct caller *by, const struct asked *a, struct names *names, struct ca_plan *plan,
	struct csm_http_res *res)
{
	char why[CA_WHY];
	int r;

	*plan = (struct ca_plan){.config = ca_config(c->ca, a->issuer), .subject = a->subject.p, .alg = a->alg.p,
		.backend = a->backend.p, .life = a->life};
	if (plan->config == NULL) {
		csm_http_fail(res, CSM_ENOT_FOUND, "issuer: server.yaml has none of that name");
		return false;
	}
	for (size_t i = 0; i < a->permitted.n; i++)
		names->permitted[i] = a->permitted.v[i].p;
	for (size_t i = 0; i < a->excluded.n; i++)
		names->excluded[i] = a->excluded.v[i].p;
	plan->rules = (struct csm_issuer_rules){.max_life = a->max_life, .path_len = (unsigned)a->path_len,
		.permitted = names->permitted, .n_permitted = a->permitted.n, .excluded = names->excluded,
		.n_excluded = a->excluded.n, .rate = a->rate};
	if ((r = check(c, by, a, why)) != 0)
		csm_http_fail(res, r, "%s", why);
	return r == 0;
}

/* ---- what is answered ---- */

static json_t *hash_json(struct csm_str pem)
{
	BIO *in = BIO_new_mem_buf(pem.p, (int)pem.n);
	X509 *x = in != NULL ? PEM_read_bio_X509(in, NULL, NULL, NULL) : NULL;
	uint8_t hash[crypto_hash_sha256_BYTES];
	unsigned n = sizeof(hash);
	json_t *v = NULL;

	if (x != NULL && X509_digest(x, EVP_sha256(), hash, &n) == 1)
		v = body_hex((struct csm_bin){hash, n});
	X509_free(x);
	BIO_free(in);
	return v;
}

static json_t *issuer_json(const struct ca_issuer *i)
{
	return json_pack("{s:s, s:o, s:o, s:o, s:o, s:I}", "issuer", i->config->name, "certificate", body_str(i->cert_pem),
		"chain", body_str(i->chain_pem), "root", body_str(i->root_pem), "root_sha256", hash_json(i->root_pem),
		"not_after", (json_int_t)i->not_after);
}

/* The first administrator: a certificate for the request that came along; its key never did. */
static int administrator(struct central *c, const struct caller *by, const struct asked *a, json_t **ret, char *why)
{
	struct ca_answer answer = {.serial_len = 0};
	struct ca_ask ask = admin_ask(by, a);
	char key[API_IDEMPOTENCY_MAX + 16];
	int r;

	/* one that no header can have */
	(void)snprintf(key, sizeof(key), "admin of %.*s", (int)a->by.idempotency.n, a->by.idempotency.p);
	if (a->by.idempotency.n > 0)
		ask.idempotency = csm_str_of(key);
	r = ca_issue(c, &ask, &answer, why);

	if (r != 0)
		return r;
	*ret = answer.waits ? NULL : api_cert_json(&answer); /* root at the local socket waits for nobody */
	ca_answer_free(&answer);
	return *ret != NULL ? 0 : CSM_EBUSY;
}

/* The issuer is there; what comes after it can be asked for again. */
static void answer_issuer(struct central *c, const struct caller *by, const struct asked *a, int status, struct csm_http_res *res)
{
	json_t *v = NULL, *admin = NULL;
	struct ca_issuer *i = NULL;
	char why[CA_WHY];
	int r;

	tls_tick(c);
	__atomic_store_n(&c->look_again, true, __ATOMIC_RELEASE);
	if ((r = ca_issuer_get(c->ca, a->issuer, &i)) != 0) {
		csm_http_fail(res, r, "the issuer is gone again");
		return;
	}
	if (a->admin_csr.n > 0 && (r = administrator(c, by, a, &admin, why)) != 0) {
		csm_http_fail(res, r, "the issuer is there, but admin_csr: %s", why);
		goto out;
	}
	v = issuer_json(i);
	if (v != NULL && admin != NULL && json_object_set(v, "administrator", admin) != 0) {
		json_decref(v);
		v = NULL;
	}
	body_answer(res, status, v);
out:
	json_decref(admin);
	ca_issuer_unref(i);
}

/* ---- POST: made here ---- */

static json_t *request_json(const struct ca_plan *plan, const struct csm_buf *der)
{
	BIO *mem = BIO_new(BIO_s_mem());
	json_t *v = NULL;
	char *text;
	long n;

	if (mem != NULL && PEM_write_bio(mem, PEM_STRING_X509_REQ, "", csm_buf_ptr(der), (long)der->len) > 0 &&
		(n = BIO_get_mem_data(mem, &text)) > 0)
		v = json_pack("{s:s, s:o}", "issuer", plan->config->name, "csr", json_stringn(text, (size_t)n));
	BIO_free(mem);
	return v;
}

/* Once: what is in csmd cannot be of one transaction with the database. A csm-server that is killed between the two says to who asks
 * again that the issuer is there. */
static int make_once(struct central *c, const struct asked *a, struct ca_plan *plan, struct csm_buf *csr, char why[static CA_WHY])
{
	static const uint8_t made[] = {1};
	struct csm_buf before;
	int r = CSM_ENOT_FOUND;

	csm_buf_init(&before, DB_SERIAL_MAX, false);
	ca_making_begin(c->ca);
	if (a->by.idempotency.n > 0)
		r = db_replay(c->db, &a->by, c->now(), &before);
	if (r == CSM_ECONFLICT)
		(void)ca_refuse(why, r, "this Idempotency-Key was used with another request");
	else if (r != 0 && r != CSM_ENOT_FOUND)
		(void)ca_refuse(why, r, "the database: %s", csm_err_text(r));
	else if (r == CSM_ENOT_FOUND || !a->self_signed) {
		r = a->self_signed ? ca_init_root(c, plan, why) : ca_init_request(c, plan, csr, why);
		if (r == 0 && before.len == 0 && db_asked_put(c->db, &a->by, (struct csm_bin){made, sizeof(made)}, c->now()) != 0)
			log_warn("issuer %s: its Idempotency-Key could not be kept", plan->config->name);
	}
	ca_making_end(c->ca);
	csm_buf_free(&before);
	return r;
}

static void create(struct central *c, const struct caller *by, const struct asked *a, struct csm_http_res *res)
{
	struct names names;
	struct ca_plan plan;
	struct csm_buf csr;
	char why[CA_WHY];
	int r;

	if (!plan_of(c, by, a, &names, &plan, res))
		return;
	csm_buf_init(&csr, CSM_REQUEST_BYTES, false);
	if ((r = make_once(c, a, &plan, &csr, why)) != 0)
		csm_http_fail(res, r, "%s", why);
	else if (a->self_signed)
		answer_issuer(c, by, a, 201, res);
	else
		body_answer(res, 200, request_json(&plan, &csr));
	if (r == 0)
		log_info("issuer %s: %s, by %s", plan.config->name, a->self_signed ? "made" : "asked for", by->name);
	csm_buf_free(&csr);
}

/* The body of an administrator's request. Has answered where it is false; *root is to be freed, and the pool, in any case. */
static bool read_body(struct central *c, const struct csm_http_req *req, const struct body_field *fields, size_t n, struct csm_pool *pool,
	struct caller *by, json_t **root, struct csm_http_res *res)
{
	char why[BODY_WHY];
	int r;

	if (!api_admin(c, req, false, pool, by, res))
		return false;
	if ((r = body_read(req, fields, n, root, why)) != 0)
		csm_http_fail(res, r, "%s", why);
	return r == 0;
}

void api_ca_create(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	struct asked a = {.self_signed = true, .life = LIFE_DEFAULT, .issuer = CSM_STR("")};
	const struct body_field fields[] = {
		RULES(&a), {"subject", BODY_STR, true, CSM_SUBJECT_MAX, &a.subject}, {"self_signed", BODY_BOOL, false, 0, &a.self_signed},
		{"life", BODY_U64, false, LIFE_MAX, &a.life}, {"alg", BODY_STR, false, CSM_TOKEN_STR_MAX, &a.alg},
		{"backend", BODY_STR, false, CSM_TOKEN_STR_MAX, &a.backend},
	};
	uint8_t hash[32];
	struct csm_pool pool;
	struct caller by;
	json_t *root = NULL;

	if (!read_body(arg, req, fields, sizeof(fields) / sizeof(fields[0]), &pool, &by, &root, res) ||
		!api_asked(req, &by, "ca", hash, &a.by, res))
		goto out;
	if (a.life == 0)
		csm_http_fail(res, CSM_EINVALID, "life: at least 1");
	else
		create(arg, &by, &a, res);
out:
	json_decref(root);
	csm_pool_free(&pool);
}

/* ---- PUT: brought along ---- */

static bool has(struct csm_str s, const char *what)
{
	return s.n > 0 && memmem(s.p, s.n, what, strlen(what)) != NULL;
}

/* Whoever sends a key in clear has shown it to everyone between: it is not taken, and nothing of it is kept. */
static bool is_plain_key(struct csm_str s)
{
	return has(s, "PRIVATE KEY-----") || has(s, "BEGIN PKCS12");
}

static void put(struct central *c, const struct caller *by, const struct asked *a, struct csm_http_res *res)
{
	struct names names;
	struct ca_plan plan;
	char why[CA_WHY];
	int r;

	if (is_plain_key(a->key) || is_plain_key(a->chain) || is_plain_key(a->admin_csr)) {
		csm_http_fail(res, CSM_EDENIED, "a private key in clear is not taken: wrap it by csm wrap-key for the csmd of this server. "
			"It has been on the way unprotected by a wrap; think of replacing it");
		return;
	}
	if (!plan_of(c, by, a, &names, &plan, res))
		return;
	ca_making_begin(c->ca);
	r = ca_init_chain(c, &plan, a->chain, a->key, why);
	ca_making_end(c->ca);
	if (r != 0) {
		csm_http_fail(res, r, "%s", why);
		return;
	}
	log_info("issuer %s: %s, by %s", plan.config->name, a->key.n > 0 ? "imported" : "has a chain", by->name);
	answer_issuer(c, by, a, 200, res);
}

void api_ca_put(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	struct asked a = {.issuer = CSM_STR("")};
	const struct body_field fields[] = {
		RULES(&a), {"chain", BODY_STR, true, TEXT_MAX, &a.chain}, {"key", BODY_STR, false, TEXT_MAX, &a.key},
	};
	struct csm_pool pool;
	struct caller by;
	json_t *root = NULL;

	if (read_body(arg, req, fields, sizeof(fields) / sizeof(fields[0]), &pool, &by, &root, res))
		put(arg, &by, &a, res);
	json_decref(root);
	csm_pool_free(&pool);
}

/* ---- GET: public ---- */

void api_ca_get(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	struct csm_str name = csm_http_query(req, "issuer"), format = csm_http_query(req, "format");
	struct central *c = arg;
	struct ca_issuer *i = NULL;
	int r = ca_issuer_get(c->ca, name.p != NULL ? name : CSM_STR(""), &i);

	if (r != 0) {
		csm_http_fail(res, r, "%s", r == CSM_ENOT_FOUND ? "there is no such issuer" : r == CSM_ESTATE ?
			"the issuer has no certificate yet: csm ca init" : "csmd, which has the issuer's key, does not answer");
		return;
	}
	if (format.p == NULL || csm_str_eq(format, "json")) {
		body_answer(res, 200, issuer_json(i));
	} else if (csm_str_eq(format, "pem")) {
		res->type = "application/x-pem-file";
		res->status = csm_buf_put(&res->body, i->chain_pem.p, i->chain_pem.n) == 0 ? 200 : 500;
	} else if (csm_str_eq(format, "der")) {
		unsigned char *der = NULL;
		int n = i2d_X509(i->cert, &der);

		res->type = "application/pkix-cert";
		res->status = n > 0 && csm_buf_put(&res->body, der, (size_t)n) == 0 ? 200 : 500;
		OPENSSL_free(der);
	} else {
		csm_http_fail(res, CSM_EINVALID, "format: json, pem or der");
	}
	ca_issuer_unref(i);
}
