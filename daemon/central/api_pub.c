/* The handlers of what is public: lists, OCSP, issuers' certificates. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sodium.h>
#include "daemon/central/pub.h"

#define FRESH_S 60u /* how long a cache of HTTP may keep a list: what is revoked shows soon */
#define DATE_LEN 48u /* 30 suffice; the compiler cannot know */

/* RFC 9110 5.6.7, whatever the locale. */
static void http_date(uint64_t at, char out[static DATE_LEN])
{
	static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
	static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	time_t t = (time_t)at;
	struct tm tm = {.tm_mday = 1};

	(void)gmtime_r(&t, &tm);
	(void)snprintf(out, DATE_LEN, "%s, %02d %s %04d %02d:%02d:%02d GMT", days[tm.tm_wday % 7], tm.tm_mday % 100,
		months[tm.tm_mon % 12], (tm.tm_year + 1900) % 10000, tm.tm_hour % 100, tm.tm_min % 100, tm.tm_sec % 100);
}

/* What a cache is told (RFC 5019 6.2, RFC 9111). */
static int cache_headers(struct csm_http_res *res, uint64_t at, uint64_t until, uint64_t fresh)
{
	char date[DATE_LEN];
	int r;

	http_date(at, date);
	if ((r = csm_http_res_header(res, "Last-Modified", "%s", date)) != 0)
		return r;
	http_date(until, date);
	if ((r = csm_http_res_header(res, "Expires", "%s", date)) != 0)
		return r;
	return csm_http_res_header(res, "Cache-Control", "max-age=%llu, public, no-transform, must-revalidate",
		(unsigned long long)fresh);
}

static void body_put(struct csm_http_res *res, const char *type, const void *p, size_t n)
{
	int r = csm_buf_put(&res->body, p, n);

	if (r != 0) {
		csm_http_fail(res, r, "the answer is too long");
		return;
	}
	res->status = 200;
	res->type = type;
}

/* ---- lists ---- */

static void list_release(void *arg)
{
	crl_list_unref(arg);
}

/* However many read it, and how slowly: it is there once. */
static void list_body(struct csm_http_res *res, struct crl_list *l, bool pem)
{
	struct csm_bin bytes = {csm_buf_ptr(&l->der), l->der.len};
	int r = pem ? crl_list_pem(l, &bytes) : 0;

	if (r != 0) {
		csm_http_fail(res, r, "no memory");
		return;
	}
	csm_http_res_share(res, bytes.p, bytes.n, list_release, crl_list_ref(l));
	res->status = 200;
	res->type = pem ? "application/x-pem-file" : "application/pkix-crl";
}

static void list_send(struct central *c, const struct csm_http_req *req, struct csm_http_res *res, struct crl_list *l, bool pem)
{
	const struct csm_str match = csm_http_header(req, "If-None-Match");
	uint64_t now = c->now(), left = l->next_update > now ? l->next_update - now : 0;
	char tag[64];
	int r;

	(void)snprintf(tag, sizeof(tag), "\"%llu%s\"", (unsigned long long)l->number, pem ? "-pem" : "");
	if ((r = cache_headers(res, l->this_update, l->next_update, left < FRESH_S ? left : FRESH_S)) == 0)
		r = csm_http_res_header(res, "ETag", "%s", tag);
	if (r != 0) {
		csm_http_fail(res, r, "the answer's headers");
		return;
	}
	if (match.p != NULL && csm_str_eq(match, tag))
		res->status = 304;
	else
		list_body(res, l, pem);
}

static void list_find(struct central *c, const struct csm_http_req *req, struct csm_http_res *res, struct csm_str issuer, bool delta,
	bool pem)
{
	struct crl_list *l = NULL;
	int r = pub_crl(c->pub, issuer, delta, &l);

	if (r == CSM_ENOT_FOUND)
		csm_http_fail(res, r, "no such issuer");
	else if (r == CSM_ESTATE)
		csm_http_fail(res, r, "the issuer has no certificate yet: csm ca init");
	else if (r != 0)
		csm_http_fail(res, r, "the list has not been made yet");
	else
		list_send(c, req, res, l, pem);
	crl_list_unref(l);
}

/* Takes the end off; false where it has not that end. */
static bool cut(struct csm_str *s, const char *end)
{
	size_t n = strlen(end);

	if (s->n <= n || memcmp(s->p + s->n - n, end, n) != 0)
		return false;
	s->n -= n;
	return true;
}

void pub_get_list(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	struct csm_str name = req->param[0];
	bool delta = cut(&name, ".delta.crl");

	if (!delta && !cut(&name, ".crl"))
		csm_http_fail(res, CSM_ENOT_FOUND, "no such list");
	else
		list_find(arg, req, res, name, delta, false);
}

/* "1", "true", or there without a value. */
static bool is_true(struct csm_str v)
{
	return v.p != NULL && (v.n == 0 || csm_str_eq(v, "1") || csm_str_eq(v, "true"));
}

void api_crl_get(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	const struct csm_str format = csm_http_query(req, "format"), issuer = csm_http_query(req, "issuer"),
		delta = csm_http_query(req, "delta");
	bool der = format.p != NULL && csm_str_eq(format, "der");

	if (format.p != NULL && !der && !csm_str_eq(format, "pem"))
		csm_http_fail(res, CSM_EINVALID, "format is pem or der");
	else if (delta.p != NULL && !is_true(delta) && !csm_str_eq(delta, "0") && !csm_str_eq(delta, "false"))
		csm_http_fail(res, CSM_EINVALID, "delta is true or false");
	else
		list_find(arg, req, res, issuer.p != NULL ? issuer : CSM_STR(""), is_true(delta), !der);
}

void pub_get_issuer(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	struct central *c = arg;
	struct csm_str name = req->param[0];
	struct ca_issuer *i = NULL;
	unsigned char *der = NULL;
	int n, r;

	if (!cut(&name, ".cer") && !cut(&name, ".crt")) {
		csm_http_fail(res, CSM_ENOT_FOUND, "no such certificate");
		return;
	}
	if ((r = ca_issuer_get(c->ca, name, &i)) != 0) {
		csm_http_fail(res, r, r == CSM_ENOT_FOUND ? "no such issuer" : "the issuer has no certificate yet");
		return;
	}
	if ((n = i2d_X509(i->cert, &der)) > 0)
		body_put(res, "application/pkix-cert", der, (size_t)n);
	else
		csm_http_fail(res, CSM_ENOMEM, "out of memory");
	OPENSSL_free(der);
	ca_issuer_unref(i);
}

/* ---- OCSP ---- */

static void ocsp_send(struct central *c, struct csm_http_res *res, struct csm_str issuer, struct csm_bin request, bool get)
{
	struct ocsp_told told;
	int r = ocsp_answer(c, issuer, request, &res->body, &told);

	if (r != 0) {
		csm_http_fail(res, r, "no answer could be made");
		return;
	}
	res->status = 200;
	res->type = "application/ocsp-response";
	if (get && told.kept)
		r = cache_headers(res, told.at, told.at + OCSP_LIFE, OCSP_CACHE_LIFE);
	else
		r = csm_http_res_header(res, "Cache-Control", "no-store");
	if (r != 0)
		csm_http_fail(res, r, "the answer's headers");
}

void ocsp_post(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	ocsp_send(arg, res, req->n_params > 0 ? req->param[0] : CSM_STR(""), req->body, false);
}

/* Base64 of either alphabet, with its padding or without. */
static bool debase64(const char *text, size_t n, uint8_t *out, size_t room, size_t *len)
{
	static const int variants[] = {sodium_base64_VARIANT_ORIGINAL, sodium_base64_VARIANT_ORIGINAL_NO_PADDING,
		sodium_base64_VARIANT_URLSAFE, sodium_base64_VARIANT_URLSAFE_NO_PADDING};
	const char *end;

	for (size_t i = 0; i < sizeof(variants) / sizeof(variants[0]); i++)
		if (sodium_base642bin(out, room, text, n, NULL, len, &end, variants[i]) == 0 && end == text + n)
			return true;
	return false;
}

/* [NAME/]BASE64. Base64 has slashes, which some clients escape and others do not, so that all that follows is one parameter. */
void ocsp_get(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	struct central *c = arg;
	struct csm_str rest = req->param[0], issuer = CSM_STR("");
	const char *slash = memchr(rest.p, '/', rest.n);
	char text[2 * CSM_OCSP_REQUEST_MAX];
	uint8_t der[CSM_OCSP_REQUEST_MAX];
	size_t len = 0;

	if (slash != NULL && profiles_issuer(ca_profiles(c->ca), (struct csm_str){rest.p, (size_t)(slash - rest.p)}) != NULL) {
		issuer = (struct csm_str){rest.p, (size_t)(slash - rest.p)};
		rest = (struct csm_str){slash + 1, rest.n - issuer.n - 1};
	}
	while (rest.n > 0 && rest.p[0] == '/') /* two came together */
		rest = (struct csm_str){rest.p + 1, rest.n - 1};
	if (rest.n <= sizeof(text)) {
		memcpy(text, rest.p, rest.n);
		for (size_t i = 0; i < rest.n; i++) /* something on the way has made a blank of a plus */
			if (text[i] == ' ')
				text[i] = '+';
		if (!debase64(text, rest.n, der, sizeof(der), &len))
			len = 0; /* what is none is answered as such */
	}
	ocsp_send(c, res, issuer, (struct csm_bin){der, len}, true);
}
