/* The inventory: pages of what was issued, one certificate, and pages that are signed for who keeps them elsewhere. */
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/central/api_int.h"
#include "daemon/central/api_inventory.h"
#include "daemon/central/body.h"
#include "daemon/central/csv.h"
#include "libclient/include/csm/csm.h"
#include "proto-spec/limits.h"

#define TEXT_MAX 512u
#define EXPORT_MAX (700u * 1024u) /* lines of one page: what csmd signs as one message */
#define EXPORT_DEFAULT 500u
#define SIGNER "inventory-signer"
#define SCHEME "ecdsa-sha256"

/* ---- what is asked ---- */

bool api_query_u64(const struct csm_http_req *req, struct csm_http_res *res, const char *name, uint64_t max, uint64_t *ret)
{
	struct csm_str s = csm_http_query(req, name);
	uint64_t v = 0;

	if (s.p == NULL)
		return true;
	for (size_t i = 0; i < s.n && v <= max; i++) {
		if (s.p[i] < '0' || s.p[i] > '9' || i > 18)
			goto bad;
		v = v * 10 + (uint64_t)(s.p[i] - '0');
	}
	if (s.n == 0 || v > max)
		goto bad;
	*ret = v;
	return true;
bad:
	csm_http_fail(res, CSM_EINVALID, "%s: a number up to %llu", name, (unsigned long long)max);
	return false;
}

bool api_query_str(const struct csm_http_req *req, struct csm_http_res *res, const char *name, size_t max, struct csm_str *ret)
{
	struct csm_str s = csm_http_query(req, name);

	*ret = s.p == NULL ? (struct csm_str){"", 0} : s;
	if (s.p == NULL || (s.n <= max && csm_utf8_valid(s.p, s.n)))
		return true;
	csm_http_fail(res, CSM_EINVALID, "%s: UTF-8, up to %zu bytes", name, max);
	return false;
}

bool api_query_page(const struct csm_http_req *req, struct csm_http_res *res, uint64_t *limit, struct csm_str *after)
{
	if (!api_query_u64(req, res, "limit", CSM_LIST_MAX, limit) || !api_query_str(req, res, "after", TEXT_MAX, after))
		return false;
	if (*limit > 0)
		return true;
	csm_http_fail(res, CSM_EINVALID, "limit: at least 1");
	return false;
}

bool api_query_format(const struct csm_http_req *req, struct csm_http_res *res, struct csm_str *ret)
{
	if (!api_query_str(req, res, "format", TEXT_MAX, ret))
		return false;
	if (ret->n == 0 || csm_str_eq(*ret, "json") || csm_str_eq(*ret, "csv"))
		return true;
	csm_http_fail(res, CSM_EINVALID, "format: json or csv");
	return false;
}

bool api_own_only(const struct caller *by, struct csm_http_res *res, struct db_filter *f)
{
	if (by->role != CALLER_NODE)
		return true;
	if (by->cert.node.n == 0 || (f->node.n > 0 && !csm_str_same(f->node, by->cert.node))) {
		csm_http_fail(res, CSM_EDENIED, "a node sees its own certificates");
		return false;
	}
	f->node = by->cert.node;
	return true;
}

/* Digits, without the colons that may stand between bytes. */
static size_t without_colons(struct csm_str s, char digits[static API_SERIAL_TEXT_MAX])
{
	bool colons = s.n > 2 && s.p[2] == ':';
	size_t n = 0;

	for (size_t i = 0; i < s.n && s.n <= API_SERIAL_TEXT_MAX; i++)
		if (!colons || i % 3 != 2 || i + 1 == s.n)
			digits[n++] = s.p[i];
		else if (s.p[i] != ':')
			return 0;
	return n;
}

bool api_serial(struct csm_str text, struct csm_http_res *res, uint8_t mem[static DB_SERIAL_MAX], struct csm_bin *ret)
{
	char digits[API_SERIAL_TEXT_MAX];
	size_t n = without_colons(text, digits), at = 0;

	if (!body_unhex((struct csm_str){digits, n}, mem, DB_SERIAL_MAX, &n)) {
		csm_http_fail(res, CSM_EINVALID, "serial: hex digits, two for each of at most %u bytes, like 0a1b or 0A:1B", DB_SERIAL_MAX);
		return false;
	}
	while (at + 1 < n && mem[at] == 0)
		at++;
	*ret = (struct csm_bin){mem + at, n - at};
	return true;
}

static bool read_filter(const struct csm_http_req *req, struct csm_http_res *res, uint8_t serial[static DB_SERIAL_MAX],
	struct db_filter *f)
{
	const uint64_t late = INT64_MAX;
	struct csm_str hex;

	if (!api_query_str(req, res, "name", TEXT_MAX, &f->name) || !api_query_str(req, res, "san", TEXT_MAX, &f->san) ||
		!api_query_str(req, res, "node", TEXT_MAX, &f->node) || !api_query_str(req, res, "requester", TEXT_MAX, &f->requester) ||
		!api_query_str(req, res, "profile", TEXT_MAX, &f->profile) || !api_query_str(req, res, "issuer", TEXT_MAX, &f->issuer) ||
		!api_query_str(req, res, "state", TEXT_MAX, &f->state) || !api_query_str(req, res, "serial", TEXT_MAX, &hex) ||
		!api_query_u64(req, res, "expires_before", late, &f->expires_before) ||
		!api_query_u64(req, res, "expires_after", late, &f->expires_after) ||
		!api_query_u64(req, res, "issued_after", late, &f->issued_after))
		return false;
	if (hex.n > 0 && !api_serial(hex, res, serial, &f->serial))
		return false;
	if (f->state.n > 0 && !csm_str_eq(f->state, "valid") && !csm_str_eq(f->state, "revoked") && !csm_str_eq(f->state, "expired")) {
		csm_http_fail(res, CSM_EINVALID, "state: valid, revoked or expired");
		return false;
	}
	return true;
}

/* ---- what is told ---- */

const char *api_cert_state(const struct db_cert *c, uint64_t now)
{
	return c->state == DB_REVOKED ? "revoked" : c->not_after < now ? "expired" : "valid";
}

static int set(json_t *o, const char *name, json_t *v)
{
	return v == NULL ? -1 : json_object_set_new(o, name, v);
}

static struct csm_str role_of(const struct db_cert *c)
{
	return c->role.n > 0 ? c->role : CSM_STR("service");
}

static json_t *sans_json(const struct db_cert *c)
{
	json_t *a = json_array();

	for (size_t i = 0; i < c->n_sans && a != NULL; i++) {
		json_t *s = body_str(c->sans[i]);

		if (s == NULL || json_array_append_new(a, s) != 0) {
			json_decref(a);
			return NULL;
		}
	}
	return a;
}

/* NULL: no memory. */
static json_t *cert_json(const struct db_cert *c, uint64_t now)
{
	json_t *o = json_object();
	int bad;

	if (o == NULL)
		return NULL;
	bad = set(o, "serial", body_hex(c->serial)) | set(o, "state", json_string(api_cert_state(c, now))) |
		set(o, "subject", body_str(c->subject)) | set(o, "san", sans_json(c)) | set(o, "node", body_str(c->node)) |
		set(o, "issuer", body_str(c->issuer)) | set(o, "profile", body_str(c->profile)) | set(o, "role", body_str(role_of(c))) |
		set(o, "requester", body_str(c->requester)) | set(o, "spki_sha256", body_hex(c->spki_sha256)) |
		set(o, "not_before", json_integer((json_int_t)c->not_before)) | set(o, "not_after", json_integer((json_int_t)c->not_after)) |
		set(o, "issued", json_integer((json_int_t)c->issued));
	if (c->state == DB_REVOKED)
		bad |= set(o, "revoked", json_integer((json_int_t)c->revoked)) | set(o, "reason", json_string(api_reason_name(c->reason)));
	if (c->renews.n > 0)
		bad |= set(o, "renews", body_hex(c->renews));
	if (bad != 0) {
		json_decref(o);
		return NULL;
	}
	return o;
}

static void list_failed(struct csm_http_res *res, int r)
{
	csm_http_fail(res, r, "%s", r == CSM_EINVALID ? "after: not a cursor of such a list" : "the inventory could not be read");
}

static int put_text(struct csm_buf *b, const char *text)
{
	return csm_buf_put(b, text, strlen(text));
}

/* One after the other: the objects of a thousand take ten times the room of their text. */
static int put_certs(struct csm_buf *b, const struct db_cert *v, size_t n, uint64_t now)
{
	int r = put_text(b, "{\"certificates\":[");

	for (size_t i = 0; i < n && r == 0; i++)
		if (i == 0 || (r = put_text(b, ",")) == 0)
			r = body_put(b, cert_json(&v[i], now));
	return r;
}

static void answer_list(struct central *c, struct csm_http_res *res, const struct db_cert *v, size_t n, struct csm_str next)
{
	struct csm_buf *b = &res->body;
	int r;

	if ((r = put_certs(b, v, n, c->now())) != 0 || (r = put_text(b, "],\"next\":")) != 0 || (r = body_put(b, body_str(next))) != 0 ||
		(r = put_text(b, "}")) != 0)
		csm_http_fail(res, r == CSM_ETOO_LARGE ? r : CSM_EBUSY, "%s", csm_err_text(r));
	else
		res->status = 200;
}

/* ---- the same as a table ---- */

#define COLUMNS "serial,state,subject,san,node,issuer,profile,role,requester,spki_sha256,not_before,not_after,issued,revoked,reason,renews"

/* All names in one column, with spaces between: none has one. */
static int csv_sans(struct csm_buf *b, const struct db_cert *c)
{
	struct csm_buf all;
	int r = 0;

	csm_buf_init(&all, API_PAGE_POOL, false);
	for (size_t i = 0; i < c->n_sans && r == 0; i++)
		if (i == 0 || (r = put_text(&all, " ")) == 0)
			r = csm_buf_put(&all, c->sans[i].p, c->sans[i].n);
	if (r == 0)
		r = csv_text(b, (struct csm_str){all.len > 0 ? (const char *)csm_buf_ptr(&all) : "", all.len}, ",");
	csm_buf_free(&all);
	return r;
}

static int csv_line(struct csm_buf *b, const struct db_cert *c, uint64_t now)
{
	const struct csm_str texts[] = {c->node, c->issuer, c->profile, role_of(c), c->requester};
	bool revoked = c->state == DB_REVOKED;
	int r;

	if ((r = csv_hex(b, c->serial, ",")) != 0 || (r = csv_text(b, csm_str_of(api_cert_state(c, now)), ",")) != 0 ||
		(r = csv_text(b, c->subject, ",")) != 0 || (r = csv_sans(b, c)) != 0)
		return r;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]) && r == 0; i++)
		r = csv_text(b, texts[i], ",");
	if (r != 0 || (r = csv_hex(b, c->spki_sha256, ",")) != 0 || (r = csv_u64(b, c->not_before, ",")) != 0 ||
		(r = csv_u64(b, c->not_after, ",")) != 0 || (r = csv_u64(b, c->issued, ",")) != 0 ||
		(r = revoked ? csv_u64(b, c->revoked, ",") : put_text(b, ",")) != 0 ||
		(r = csv_text(b, csm_str_of(revoked ? api_reason_name(c->reason) : ""), ",")) != 0)
		return r;
	return csv_hex(b, c->renews, CSV_END);
}

static void answer_csv(struct central *c, struct csm_http_res *res, const struct db_cert *v, size_t n, bool first, struct csm_str next)
{
	uint64_t now = c->now();
	int r = csv_begin(res, COLUMNS, first, next);

	for (size_t i = 0; i < n && r == 0; i++)
		r = csv_line(&res->body, &v[i], now);
	if (r != 0)
		csm_http_fail(res, r == CSM_ETOO_LARGE ? r : CSM_EBUSY, "%s", r == CSM_ETOO_LARGE ? "limit: ask for a smaller page" : "no memory");
}

void api_cert_list(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	struct central *c = arg;
	struct db_filter f = {.now = c->now()};
	uint8_t serial[DB_SERIAL_MAX];
	uint64_t limit = CSM_LIST_DEFAULT;
	struct csm_str after, next, format;
	struct csm_pool pool;
	struct caller by;
	struct db_cert *v;
	size_t n;
	int r;

	csm_pool_init(&pool, API_PAGE_POOL);
	if (!caller_is(c, req, res, &pool, API_STAFF | 1u << CALLER_NODE, &by) || !api_query_format(req, res, &format) || !read_filter(req, res, serial, &f) ||
		!api_query_page(req, res, &limit, &after) || !api_own_only(&by, res, &f))
		goto out;
	r = db_cert_list(c->db, &f, after, limit, &pool, &v, &n, &next);
	if (r != 0)
		list_failed(res, r);
	else if (csm_str_eq(format, "csv"))
		answer_csv(c, res, v, n, after.n == 0, next);
	else
		answer_list(c, res, v, n, next);
out:
	csm_pool_free(&pool);
}

/* ---- one ---- */

static int pem(struct csm_bin der, char **ret)
{
	BIO *b = BIO_new(BIO_s_mem());
	int r = CSM_ENOMEM;
	char *text;
	long n;

	if (b != NULL && PEM_write_bio(b, "CERTIFICATE", "", der.p, (long)der.n) > 0 && (n = BIO_get_mem_data(b, &text)) > 0 &&
		(*ret = strndup(text, (size_t)n)) != NULL)
		r = 0;
	BIO_free(b);
	return r;
}

static void answer_one(struct central *c, const struct csm_http_req *req, struct csm_http_res *res, const struct db_cert *cert)
{
	struct csm_str format = csm_http_query(req, "format");
	char *text = NULL;
	json_t *o;

	if (format.p != NULL && !csm_str_eq(format, "pem") && !csm_str_eq(format, "json")) {
		csm_http_fail(res, CSM_EINVALID, "format: json or pem");
		return;
	}
	if (pem(cert->der, &text) != 0) {
		csm_http_fail(res, CSM_EBUSY, "no memory");
		return;
	}
	if (format.p != NULL && csm_str_eq(format, "pem")) {
		res->status = 200;
		res->type = "application/x-pem-file";
		if (csm_buf_put(&res->body, text, strlen(text)) != 0)
			csm_http_fail(res, CSM_EBUSY, "no memory");
	} else {
		o = cert_json(cert, c->now());
		if (o != NULL && set(o, "certificate", json_string(text)) != 0) {
			json_decref(o);
			o = NULL;
		}
		body_answer(res, 200, o);
	}
	free(text);
}

/* Who may not see it learns as little as of one that is not there. */
static bool may_see(const struct caller *by, const struct db_cert *cert)
{
	bool own = by->cert.serial.n == cert->serial.n && memcmp(by->cert.serial.p, cert->serial.p, cert->serial.n) == 0;

	switch (by->role) {
	case CALLER_OPERATOR:
	case CALLER_ADMINISTRATOR:
		return true;
	case CALLER_NODE:
		return own || (cert->node.n > 0 && csm_str_same(cert->node, by->cert.node));
	case CALLER_SERVICE:
		return own;
	default:
		return false;
	}
}

void api_cert_get(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	struct central *c = arg;
	uint8_t mem[DB_SERIAL_MAX];
	struct csm_bin serial;
	struct csm_pool pool;
	struct db_cert cert;
	struct caller by;
	int r;

	csm_pool_init(&pool, API_PAGE_POOL);
	if (!caller_is(c, req, res, &pool, API_STAFF | 1u << CALLER_NODE | 1u << CALLER_SERVICE, &by))
		goto out;
	if (!api_serial(req->param[0], res, mem, &serial))
		goto out;
	r = db_cert_get(c->db, serial, &pool, &cert);
	if (r == CSM_ENOT_FOUND || (r == 0 && !may_see(&by, &cert)))
		csm_http_fail(res, CSM_ENOT_FOUND, "no such certificate");
	else if (r != 0)
		csm_http_fail(res, r, "the certificate could not be read");
	else
		answer_one(c, req, res, &cert);
out:
	csm_pool_free(&pool);
}

/* ---- signed pages ---- */

static int put_line(struct csm_buf *b, json_t *o)
{
	int r = body_put(b, o);

	return r != 0 ? r : put_text(b, "\n");
}

/* The first line says which page it is, so that one that is left out, or stands twice, is seen. */
static json_t *export_head(uint64_t now, size_t n, struct csm_str after, struct csm_str next)
{
	json_t *o = json_object();

	if (o != NULL && (set(o, "inventory", json_integer(1)) | set(o, "time", json_integer((json_int_t)now)) |
		set(o, "certificates", json_integer((json_int_t)n)) | set(o, "after", body_str(after)) | set(o, "next", body_str(next))) != 0) {
		json_decref(o);
		o = NULL;
	}
	return o;
}

/* The key is made when it is wanted for the first time. */
static int sign(struct csm *csm, const struct csm_buf *b, uint8_t *sig, size_t *n)
{
	size_t cap = *n;
	int r = csm_key_sign_message(csm, SIGNER, SCHEME, csm_buf_ptr(b), b->len, sig, n);

	if (r != CSM_ENOT_FOUND)
		return r;
	r = csm_key_create(csm, SIGNER, "p256", NULL, "sign", NULL);
	if (r != 0 && r != CSM_EEXISTS)
		return r;
	*n = cap;
	return csm_key_sign_message(csm, SIGNER, SCHEME, csm_buf_ptr(b), b->len, sig, n);
}

static json_t *base64_json(struct csm_bin b)
{
	size_t n = sodium_base64_ENCODED_LEN(b.n, sodium_base64_VARIANT_ORIGINAL);
	char *text = malloc(n);
	json_t *ret = NULL;

	if (text != NULL)
		ret = json_string(sodium_bin2base64(text, n, b.p, b.n, sodium_base64_VARIANT_ORIGINAL));
	free(text);
	return ret;
}

static json_t *public_json(struct csm_bin spki)
{
	BIO *b = BIO_new(BIO_s_mem());
	json_t *ret = NULL;
	char *text;
	long n;

	if (b != NULL && PEM_write_bio(b, "PUBLIC KEY", "", spki.p, (long)spki.n) > 0 && (n = BIO_get_mem_data(b, &text)) > 0)
		ret = json_stringn(text, (size_t)n);
	BIO_free(b);
	return ret;
}

static void answer_signed(struct central *c, struct csm_http_res *res, const struct csm_buf *lines, struct csm_str next)
{
	uint8_t sig[CSM_SIGNATURE_BYTES], spki[CSM_PUBLIC_BYTES];
	size_t n_sig = sizeof(sig), n_spki = sizeof(spki);
	char why[CA_WHY];
	json_t *o;
	int r = sign(c->csm, lines, sig, &n_sig);

	if (r == 0)
		r = csm_key_public(c->csm, SIGNER, spki, &n_spki);
	if (r != 0) {
		csm_http_fail(res, ca_csmd_error(r, why), "the key %s: %s", SIGNER, why);
		return;
	}
	o = json_object();
	if (o != NULL && (set(o, "inventory", json_stringn((const char *)csm_buf_ptr(lines), lines->len)) | set(o, "scheme", json_string(SCHEME)) |
		set(o, "signature", base64_json((struct csm_bin){sig, n_sig})) |
		set(o, "public", public_json((struct csm_bin){spki, n_spki})) | set(o, "next", body_str(next))) != 0) {
		json_decref(o);
		o = NULL;
	}
	body_answer(res, 200, o);
}

void api_inventory_export(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	struct central *c = arg;
	const struct db_filter f = {.now = c->now()};
	uint64_t limit = EXPORT_DEFAULT;
	struct csm_str after, next;
	struct csm_buf lines;
	struct csm_pool pool;
	struct caller by;
	struct db_cert *v;
	size_t n;
	int r;

	csm_pool_init(&pool, API_PAGE_POOL);
	csm_buf_init(&lines, EXPORT_MAX, false);
	if (!caller_is(c, req, res, &pool, API_STAFF, &by) || !api_query_page(req, res, &limit, &after))
		goto out;
	if ((r = db_cert_list(c->db, &f, after, limit, &pool, &v, &n, &next)) != 0) {
		list_failed(res, r);
		goto out;
	}
	r = put_line(&lines, export_head(f.now, n, after, next));
	for (size_t i = 0; i < n && r == 0; i++)
		r = put_line(&lines, cert_json(&v[i], f.now));
	if (r != 0)
		csm_http_fail(res, r == CSM_ETOO_LARGE ? r : CSM_EBUSY, "%s", r == CSM_ETOO_LARGE ? "limit: ask for a smaller page" : "no memory");
	else
		answer_signed(c, res, &lines, next);
out:
	csm_buf_free(&lines);
	csm_pool_free(&pool);
}
