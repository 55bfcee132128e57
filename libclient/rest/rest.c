#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <openssl/evp.h>
#include "libclient/base/lockmem.h"
#include "libclient/rest/rest_int.h"

#define REFUSE(why, ...) (snprintf(why, CSM_REST_WHY_MAX + 1, __VA_ARGS__), CSM_EINVALID)

/* ---- memory that is wiped ---- */

static void wipe_free(void *p)
{
	if (p != NULL)
		explicit_bzero(p, malloc_usable_size(p));
	free(p);
}

static void *wipe_realloc(void *p, size_t n)
{
	size_t had = p != NULL ? malloc_usable_size(p) : 0;
	void *to;

	if (had >= n && p != NULL && n > 0)
		return p;
	to = malloc(n > 0 ? n : 1);
	if (to != NULL && p != NULL) {
		memcpy(to, p, had < n ? had : n);
		wipe_free(p);
	}
	return to;
}

int csm_rest_prepare(void)
{
	json_malloc_t json_malloc;
	json_free_t json_free;

	/* A program may have given jansson a heap of its own; what lies there already has to go back there. */
	json_get_alloc_funcs(&json_malloc, &json_free);
	if (json_malloc == malloc)
		json_set_alloc_funcs(malloc, wipe_free);
	return curl_global_init_mem(CURL_GLOBAL_DEFAULT, malloc, wipe_free, wipe_realloc, strdup, calloc) == CURLE_OK ? 0 : CSM_ENOMEM;
}

/* ---- options ---- */

static bool part_is(CURLU *u, CURLUPart part, const char *value)
{
	char *p = NULL;
	bool same;

	if (curl_url_get(u, part, &p, 0) != CURLUE_OK || p == NULL)
		return value == NULL;
	same = value != NULL && strcmp(p, value) == 0;
	curl_free(p);
	return same;
}

/* https, a host, a path at most. */
static bool url_is_good(const char *url)
{
	CURLU *u = curl_url();
	bool good = u != NULL && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK && part_is(u, CURLUPART_SCHEME, "https") &&
		part_is(u, CURLUPART_USER, NULL) && part_is(u, CURLUPART_PASSWORD, NULL) && part_is(u, CURLUPART_QUERY, NULL) &&
		part_is(u, CURLUPART_FRAGMENT, NULL) && !part_is(u, CURLUPART_HOST, NULL);

	curl_url_cleanup(u);
	return good;
}

static int take_url(struct csm_rest *r, const struct csm_rest_options *opt, char *why)
{
	size_t n;

	if ((opt->url == NULL) == (opt->socket == NULL))
		return REFUSE(why, "a URL or a socket has to be given");
	r->local = opt->socket != NULL;
	if (!r->local && (strlen(opt->url) > CSM_REST_URL_MAX || !url_is_good(opt->url)))
		return REFUSE(why, "a URL here is https://HOST[:PORT][/PATH]");
	r->base = strdup(r->local ? "http://localhost" : opt->url);
	if (r->base == NULL)
		return CSM_ENOMEM;
	for (n = strlen(r->base); n > 0 && r->base[n - 1] == '/'; n--)
		r->base[n - 1] = '\0';
	return 0;
}

/* The header line, in memory that is wiped. */
static int take_credential(struct csm_rest *r, const struct csm_rest_options *opt, char *why)
{
	static const char bearer[] = "Authorization: Bearer ", basic[] = "Authorization: Basic ";
	struct csm_bin secret = opt->token.p != NULL ? opt->token : opt->basic;
	size_t room = sizeof(bearer) + 4 * (CSM_REST_TOKEN_MAX / 3 + 1) + 1;

	if (secret.p == NULL)
		return 0;
	if (opt->token.p != NULL && opt->basic.p != NULL)
		return REFUSE(why, "a token or a user and a password");
	if (secret.n == 0 || secret.n > CSM_REST_TOKEN_MAX)
		return REFUSE(why, "a token has 1 to %u bytes", CSM_REST_TOKEN_MAX);
	r->authorization = csm_lock_alloc(room);
	if (r->authorization == NULL)
		return CSM_ENOMEM;
	if (opt->basic.p != NULL) {
		memcpy(r->authorization, basic, sizeof(basic));
		EVP_EncodeBlock((unsigned char *)r->authorization + sizeof(basic) - 1, secret.p, (int)secret.n);
		return 0;
	}
	for (size_t i = 0; i < secret.n; i++)
		if (secret.p[i] <= ' ' || secret.p[i] > '~')
			return REFUSE(why, "a token is printable and has no blank");
	memcpy(r->authorization, bearer, sizeof(bearer));
	memcpy(r->authorization + sizeof(bearer) - 1, secret.p, secret.n);
	r->authorization[sizeof(bearer) - 1 + secret.n] = '\0';
	return 0;
}

/* HOST:PORT:ADDRESSES, as libcurl's cache of names has it. */
static int take_addresses(struct csm_rest *r, const char *addresses)
{
	char line[2048], *host = NULL, *port = NULL;
	CURLU *u = curl_url();
	int n = -1;

	if (u != NULL && curl_url_set(u, CURLUPART_URL, r->base, 0) == CURLUE_OK &&
		curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
		curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK)
		n = snprintf(line, sizeof(line), "%s:%s:%s", host, port, addresses);
	curl_free(host);
	curl_free(port);
	curl_url_cleanup(u);
	if (n < 0 || (size_t)n >= sizeof(line))
		return CSM_EINVALID;
	r->addresses = curl_slist_append(NULL, line);
	return r->addresses != NULL && curl_easy_setopt(r->curl, CURLOPT_RESOLVE, r->addresses) == CURLE_OK ? 0 : CSM_ENOMEM;
}

static int set_options(struct csm_rest *r, const struct csm_rest_options *opt)
{
	CURL *c = r->curl;
	CURLcode bad = CURLE_OK;

	bad |= curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	/* A lookup that hangs holds nobody up. */
	bad |= curl_easy_setopt(c, CURLOPT_QUICK_EXIT, 1L);
	bad |= curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, r->local ? "http" : "https");
	bad |= curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
	bad |= curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	bad |= curl_easy_setopt(c, CURLOPT_PATH_AS_IS, 1L);
	bad |= curl_easy_setopt(c, CURLOPT_USERAGENT, opt->agent != NULL ? opt->agent : "csm/" CSM_VERSION);
	if (!opt->proxy_from_env || r->local)
		bad |= curl_easy_setopt(c, CURLOPT_PROXY, "");
	if (r->local)
		bad |= curl_easy_setopt(c, CURLOPT_UNIX_SOCKET_PATH, opt->socket);
	bad |= curl_easy_setopt(c, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	bad |= curl_easy_setopt(c, CURLOPT_CAINFO, NULL);
	bad |= curl_easy_setopt(c, CURLOPT_CAPATH, NULL);
	bad |= curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, r->unverified ? 0L : 1L);
	bad |= curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, r->unverified ? 0L : 2L);
	bad |= curl_easy_setopt(c, CURLOPT_SSL_CTX_FUNCTION, rest_tls_context);
	bad |= curl_easy_setopt(c, CURLOPT_SSL_CTX_DATA, r);
	bad |= curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, rest_on_header);
	bad |= curl_easy_setopt(c, CURLOPT_HEADERDATA, r);
	bad |= curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, rest_on_body);
	bad |= curl_easy_setopt(c, CURLOPT_WRITEDATA, r);
	bad |= curl_easy_setopt(c, CURLOPT_ERRORBUFFER, r->error);
	return bad == CURLE_OK ? 0 : CSM_ENOMEM;
}

int csm_rest_new(const struct csm_rest_options *opt, struct csm_rest **ret, char *why)
{
	struct csm_rest *r = calloc(1, sizeof(*r));
	int err = CSM_ENOMEM;

	why[0] = '\0';
	if (r == NULL || (r->curl = curl_easy_init()) == NULL)
		goto out;
	r->timeout_ms = opt->timeout_ms > 0 ? opt->timeout_ms : CSM_REST_TIMEOUT_MS;
	r->body_max = opt->body_max > 0 ? opt->body_max : CSM_REST_BODY_MAX;
	if ((err = take_url(r, opt, why)) != 0 || (err = rest_tls_take(r, opt, why)) != 0 ||
		(err = take_credential(r, opt, why)) != 0 || (err = set_options(r, opt)) != 0)
		goto out;
	if (opt->addresses != NULL && (err = take_addresses(r, opt->addresses)) != 0)
		goto out;
	*ret = r;
	r = NULL;
	err = 0;
out:
	csm_rest_free(r);
	return err;
}

void csm_rest_free(struct csm_rest *r)
{
	if (r == NULL)
		return;
	curl_easy_cleanup(r->curl);
	curl_slist_free_all(r->addresses);
	rest_tls_clear(r);
	csm_lock_free(r->authorization);
	free(r->base);
	free(r);
}

void csm_rest_deadline(struct csm_rest *r, uint64_t at_ms)
{
	r->deadline_ms = at_ms;
}

/* ---- answers ---- */

void csm_rest_res_init(struct csm_rest_res *res)
{
	*res = (struct csm_rest_res){.status = 0};
	csm_buf_init(&res->body, CSM_REST_BODY_MAX, true);
}

void csm_rest_res_clear(struct csm_rest_res *res)
{
	json_decref(res->json);
	csm_buf_free(&res->body);
	csm_rest_res_init(res);
}

/* ---- calls ---- */

static bool plain(const char *s, size_t max)
{
	size_t i;

	for (i = 0; s[i] != '\0'; i++)
		if (s[i] < '!' || s[i] > '~' || i == max)
			return false;
	return i > 0;
}

static int add_header(struct curl_slist **list, const char *name, const char *value)
{
	struct curl_slist *more;
	char line[512];

	if (value == NULL)
		return 0;
	for (const char *p = value; *p != '\0'; p++)
		if (*p < ' ' || *p > '~')
			return CSM_EINVALID;
	if ((size_t)snprintf(line, sizeof(line), "%s: %s", name, value) >= sizeof(line))
		return CSM_EINVALID;
	more = curl_slist_append(*list, line);
	if (more != NULL)
		*list = more;
	return more != NULL ? 0 : CSM_ENOMEM;
}

static int make_headers(const struct csm_rest *r, const struct csm_rest_req *req, struct curl_slist **ret)
{
	struct curl_slist *list = curl_slist_append(NULL, "Expect:"), *more;
	int err = list == NULL ? CSM_ENOMEM : 0;

	if (err == 0)
		err = add_header(&list, "Accept", req->accept != NULL ? req->accept : "application/json");
	if (err == 0 && req->body.p != NULL)
		err = add_header(&list, "Content-Type", req->type);
	if (err == 0 && req->base64)
		err = add_header(&list, "Content-Transfer-Encoding", "base64");
	if (err == 0)
		err = add_header(&list, "Idempotency-Key", req->idempotency);
	if (err == 0 && r->authorization != NULL) {
		more = curl_slist_append(list, r->authorization);
		list = more != NULL ? more : list;
		err = more != NULL ? 0 : CSM_ENOMEM;
	}
	*ret = list;
	return err;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

/* What is left of the time, at least 1; 0: nothing. */
static long time_left(const struct csm_rest *r)
{
	uint64_t now = now_ms();
	uint64_t left = r->timeout_ms;

	if (r->deadline_ms > 0 && r->deadline_ms <= now)
		return 0;
	if (r->deadline_ms > 0 && r->deadline_ms - now < left)
		left = r->deadline_ms - now;
	return (long)left;
}

static int make_url(const struct csm_rest *r, const struct csm_rest_req *req, char url[static REST_WHOLE_MAX])
{
	if (!plain(req->method, 16) || !plain(req->path, REST_PATH_MAX) || req->path[0] != '/' ||
		(size_t)snprintf(url, REST_WHOLE_MAX, "%s%s", r->base, req->path) >= REST_WHOLE_MAX)
		return CSM_EINVALID;
	return 0;
}

static int set_request(struct csm_rest *r, const struct csm_rest_req *req, const char *url, struct curl_slist *headers, long left)
{
	bool get = strcmp(req->method, "GET") == 0, body = req->body.p != NULL || strcmp(req->method, "POST") == 0;
	CURLcode bad = CURLE_OK;

	if (get && req->body.p != NULL)
		return CSM_EINVALID;
	bad |= curl_easy_setopt(r->curl, CURLOPT_URL, url);
	bad |= curl_easy_setopt(r->curl, CURLOPT_HTTPGET, 1L);
	bad |= curl_easy_setopt(r->curl, CURLOPT_CUSTOMREQUEST, NULL);
	if (body) {
		bad |= curl_easy_setopt(r->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)req->body.n);
		bad |= curl_easy_setopt(r->curl, CURLOPT_POSTFIELDS, req->body.p != NULL ? (const char *)req->body.p : "");
	}
	if (!get && strcmp(req->method, "POST") != 0)
		bad |= curl_easy_setopt(r->curl, CURLOPT_CUSTOMREQUEST, req->method);
	bad |= curl_easy_setopt(r->curl, CURLOPT_HTTPHEADER, headers);
	bad |= curl_easy_setopt(r->curl, CURLOPT_TIMEOUT_MS, left);
	bad |= curl_easy_setopt(r->curl, CURLOPT_CONNECTTIMEOUT_MS, left);
	return bad == CURLE_OK ? 0 : CSM_ENOMEM;
}

static int perform(struct csm_rest *r, struct csm_rest_res *res)
{
	CURLcode c;

	r->res = res;
	r->header_bytes = 0;
	r->too_large = r->no_memory = false;
	r->tls_why[0] = r->error[0] = r->location[0] = '\0';
	c = curl_easy_perform(r->curl);
	r->res = NULL;
	return c == CURLE_OK ? rest_judge(r, res) : rest_failed(r, c, res);
}

/* Once, to that place. */
static int send_to(struct csm_rest *r, const struct csm_rest_req *req, const char *url, struct curl_slist *headers,
	struct csm_rest_res *res)
{
	long left = time_left(r);
	int err;

	csm_rest_res_clear(res);
	res->body.max = r->body_max;
	if (left == 0) {
		snprintf(res->why, sizeof(res->why), "the time is over");
		return CSM_ETIMEOUT;
	}
	if ((err = set_request(r, req, url, headers, left)) == 0)
		return perform(r, res);
	snprintf(res->why, sizeof(res->why), "the request cannot be made");
	return err;
}

int csm_rest_send(struct csm_rest *r, const struct csm_rest_req *req, struct csm_rest_res *res)
{
	struct curl_slist *headers = NULL;
	char url[REST_WHOLE_MAX];
	int err, moved = 0;

	csm_rest_res_clear(res);
	if ((err = make_headers(r, req, &headers)) != 0 || (err = make_url(r, req, url)) != 0) {
		snprintf(res->why, sizeof(res->why), "the request cannot be made");
		goto out;
	}
	err = send_to(r, req, url, headers, res);
	for (unsigned n = 0; req->redirects && rest_is_redirect(res, req->method); n++) {
		if (n == CSM_REST_REDIRECTS_MAX || (moved = rest_redirect(r, res, url)) != 0) {
			err = moved != 0 ? moved : err;
			break;
		}
		err = send_to(r, req, url, headers, res);
	}
out:
	curl_easy_setopt(r->curl, CURLOPT_HTTPHEADER, NULL);
	curl_slist_free_all(headers);
	return err;
}

int csm_rest_json(struct csm_rest *r, const char *method, const char *path, const json_t *body, struct csm_rest_res *res)
{
	struct csm_rest_req req = {.method = method, .path = path, .type = "application/json"};
	char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
	json_free_t json_free;
	int err;

	if (body != NULL && text == NULL)
		return CSM_ENOMEM;
	if (text != NULL)
		req.body = (struct csm_bin){(const uint8_t *)text, strlen(text)};
	err = csm_rest_send(r, &req, res);
	if (text != NULL)
		explicit_bzero(text, strlen(text));
	json_get_alloc_funcs(NULL, &json_free);
	json_free(text);
	return err;
}

int csm_rest_escape(struct csm_str s, char *out, size_t cap)
{
	static const char kept[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
	size_t at = strnlen(out, cap), i;

	for (i = 0; i < s.n; i++) {
		bool keep = s.p[i] != '\0' && strchr(kept, s.p[i]) != NULL;

		if (at + (keep ? 1 : 3) >= cap)
			return CSM_ETOO_LARGE;
		if (keep)
			out[at++] = s.p[i];
		else
			at += (size_t)snprintf(out + at, 4, "%%%02X", (unsigned char)s.p[i]);
		out[at] = '\0';
	}
	return at < cap ? 0 : CSM_ETOO_LARGE;
}

const char *csm_rest_text(const json_t *object, const char *name)
{
	return json_string_value(json_object_get(object, name));
}
