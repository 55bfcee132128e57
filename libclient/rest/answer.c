/* What comes back, and what it means. */
#include <string.h>
#include <strings.h>
#include "libclient/rest/rest_int.h"

void rest_why(char why[static CSM_REST_WHY_MAX + 1], const char *text, size_t n)
{
	csm_text_put(why, CSM_REST_WHY_MAX + 1, "%.*s", (int)n, text);
	for (; *why != '\0'; why++)
		*why = *why >= ' ' && *why <= '~' ? *why : '?';
}

static void set_why(struct csm_rest_res *res, const char *text)
{
	rest_why(res->why, text, strlen(text));
}

/* ---- as it comes ---- */

static bool header_is(const char *p, size_t n, const char *name)
{
	size_t k = strlen(name);

	return n > k && strncasecmp(p, name, k) == 0 && p[k] == ':';
}

/* A new answer begins: what an interim one (100) had does not count. */
static void begin_answer(struct csm_rest *r)
{
	r->res->base64 = false;
	r->res->retry_after = false;
	r->res->next[0] = '\0';
	r->location[0] = '\0';
}

/* The value of a header that is n bytes long as a whole, its name with the colon k. "" where it is longer than that. */
static void take_value(const char *p, size_t n, size_t k, char to[static CSM_REST_NEXT_MAX + 1])
{
	while (k < n && p[k] == ' ')
		k++;
	while (n > k && (p[n - 1] == '\r' || p[n - 1] == '\n' || p[n - 1] == ' '))
		n--;
	n = n - k <= CSM_REST_NEXT_MAX ? n - k : 0;
	memcpy(to, p + k, n);
	to[n] = '\0';
}

size_t rest_on_header(char *p, size_t size, size_t n, void *rest)
{
	static const char base64[] = "base64";
	struct csm_rest *r = rest;
	size_t k = strlen("Content-Transfer-Encoding:");

	n *= size;
	r->header_bytes += n;
	if (r->header_bytes > REST_HEADERS_MAX) {
		r->too_large = true;
		return 0;
	}
	if (n >= 5 && memcmp(p, "HTTP/", 5) == 0)
		begin_answer(r);
	else if (header_is(p, n, "Retry-After"))
		r->res->retry_after = true;
	else if (header_is(p, n, "CSM-Next"))
		take_value(p, n, strlen("CSM-Next:"), r->res->next);
	else if (header_is(p, n, "Location"))
		take_value(p, n, strlen("Location:"), r->location);
	else if (header_is(p, n, "Content-Transfer-Encoding")) {
		while (k < n && p[k] == ' ')
			k++;
		r->res->base64 = n - k >= sizeof(base64) - 1 && strncasecmp(p + k, base64, sizeof(base64) - 1) == 0;
	}
	return n;
}

size_t rest_on_body(char *p, size_t size, size_t n, void *rest)
{
	struct csm_rest *r = rest;
	int err;

	n *= size;
	err = csm_buf_put(&r->res->body, p, n);
	r->too_large = err == CSM_ETOO_LARGE;
	r->no_memory = err != 0 && !r->too_large;
	return err == 0 ? n : 0;
}

/* ---- what it means ---- */

static int code_of_status(int status)
{
	switch (status) {
	case 401:
	case 403:
		return CSM_EDENIED;
	case 404:
		return CSM_ENOT_FOUND;
	case 409:
		return CSM_ECONFLICT;
	case 413:
		return CSM_ETOO_LARGE;
	case 429:
		return CSM_EBUSY;
	case 501:
		return CSM_EUNSUPPORTED;
	case 503:
		return CSM_EUNAVAILABLE;
	case 504:
		return CSM_ETIMEOUT;
	default:
		return status >= 500 ? CSM_EBACKEND : status >= 400 ? CSM_EINVALID : CSM_EPROTOCOL;
	}
}

static void take_type(struct csm_rest *r, struct csm_rest_res *res)
{
	char *type = NULL;
	size_t i = 0;

	if (curl_easy_getinfo(r->curl, CURLINFO_CONTENT_TYPE, &type) == CURLE_OK && type != NULL)
		for (; type[i] > ' ' && type[i] <= '~' && type[i] != ';' && i < sizeof(res->type) - 1; i++)
			res->type[i] = (char)(type[i] >= 'A' && type[i] <= 'Z' ? type[i] + 'a' - 'A' : type[i]);
	res->type[i] = '\0';
}

static void take_retry(struct csm_rest *r, struct csm_rest_res *res)
{
	curl_off_t s = 0;

	if (!res->retry_after)
		return;
	if (curl_easy_getinfo(r->curl, CURLINFO_RETRY_AFTER, &s) != CURLE_OK || s < 0)
		s = 0;
	res->retry_after_s = s > REST_RETRY_MAX_S ? REST_RETRY_MAX_S : (uint32_t)s;
}

static json_t *parse(const struct csm_buf *body)
{
	json_error_t where;

	return body->len == 0 ? NULL : json_loadb((const char *)csm_buf_ptr(body), body->len, JSON_REJECT_DUPLICATES, &where);
}

static size_t line_length(const struct csm_buf *body)
{
	const uint8_t *p = csm_buf_ptr(body);
	size_t n = 0;

	while (n < body->len && p[n] != '\r' && p[n] != '\n')
		n++;
	return n;
}

/* {"error": {"code", "name", "message"}}: the name decides; a number is not compared, since clients of another version have
 * other numbers. */
int rest_refusal(struct csm_rest_res *res)
{
	json_t *all = strcmp(res->type, "application/json") == 0 ? parse(&res->body) : NULL;
	const json_t *error = json_object_get(all, "error");
	const char *name = csm_rest_text(error, "name"), *message = csm_rest_text(error, "message");
	int code = name != NULL ? csm_err_of_name(name, strlen(name)) : 0;
	char why[CSM_REST_WHY_MAX + 1];

	if (name != NULL && strlen(name) < sizeof(res->error)) {
		rest_why(why, name, strlen(name));
		memcpy(res->error, why, strlen(why) + 1);
	}
	if (message != NULL && *message != '\0')
		set_why(res, message);
	json_decref(all);
	/* EST: for people (RFC 7030 4.2.3). */
	if (strcmp(res->type, "text/plain") == 0 && res->body.len > 0)
		rest_why(res->why, (const char *)csm_buf_ptr(&res->body), line_length(&res->body));
	return code > 0 && code < CSM_EUNREACHABLE ? code : code_of_status(res->status);
}

int rest_judge(struct csm_rest *r, struct csm_rest_res *res)
{
	long status = 0;
	int code;

	(void)curl_easy_getinfo(r->curl, CURLINFO_RESPONSE_CODE, &status);
	res->status = (int)status;
	take_type(r, res);
	take_retry(r, res);
	if (status < 200 || status > 299) {
		code = rest_refusal(res);
		if (res->why[0] == '\0')
			snprintf(res->why, sizeof(res->why), "the server answers with status %ld", status);
		return code;
	}
	if (strcmp(res->type, "application/json") != 0 || res->body.len == 0)
		return 0;
	res->json = parse(&res->body);
	if (res->json == NULL)
		set_why(res, "the server's answer is no JSON");
	return res->json != NULL ? 0 : CSM_EPROTOCOL;
}

static int code_of_curl(CURLcode c)
{
	switch (c) {
	case CURLE_OPERATION_TIMEDOUT:
		return CSM_ETIMEOUT;
	case CURLE_OUT_OF_MEMORY:
		return CSM_ENOMEM;
	case CURLE_GOT_NOTHING:
	case CURLE_PARTIAL_FILE:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
		return CSM_ECLOSED;
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_CONNECT:
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CIPHER:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_USE_SSL_FAILED:
		return CSM_EUNREACHABLE;
	case CURLE_URL_MALFORMAT:
	case CURLE_BAD_FUNCTION_ARGUMENT:
		return CSM_EINVALID;
	default:
		return CSM_EPROTOCOL;
	}
}

int rest_failed(struct csm_rest *r, CURLcode c, struct csm_rest_res *res)
{
	if (r->too_large) {
		set_why(res, "the server's answer is too large");
		return CSM_ETOO_LARGE;
	}
	if (r->no_memory)
		return CSM_ENOMEM;
	set_why(res, r->tls_why[0] != '\0' ? r->tls_why : r->error[0] != '\0' ? r->error : curl_easy_strerror(c));
	/* A deadline that passes in the midst of the handshake is told as a failure of TLS. */
	if (c == CURLE_SSL_CONNECT_ERROR && strcasestr(r->error, "timed out") != NULL)
		return CSM_ETIMEOUT;
	return code_of_curl(c);
}
