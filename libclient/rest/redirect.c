/* Where a server sends a request that came to it: within its own origin and no further, as RFC 7030 3.2.1 has it for clients
 * that nobody can be asked at. */
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include "libclient/rest/rest_int.h"

bool rest_is_redirect(const struct csm_rest_res *res, const char *method)
{
	switch (res->status) {
	case 301:
	case 302:
	case 307:
	case 308:
		return true;
	case 303: /* to be read there: nothing that was sent goes with it */
		return strcmp(method, "GET") == 0;
	default:
		return false;
	}
}

static bool same_part(CURLU *a, CURLU *b, CURLUPart part)
{
	char *x = NULL, *y = NULL;
	bool same = curl_url_get(a, part, &x, CURLU_DEFAULT_PORT) == CURLUE_OK &&
		curl_url_get(b, part, &y, CURLU_DEFAULT_PORT) == CURLUE_OK && strcasecmp(x, y) == 0;

	curl_free(x);
	curl_free(y);
	return same;
}

static bool has_part(CURLU *u, CURLUPart part)
{
	char *x = NULL;
	bool has = curl_url_get(u, part, &x, 0) == CURLUE_OK;

	curl_free(x);
	return has;
}

/* `to` is relative to `from` before this. */
static bool resolve(CURLU *from, CURLU *to, const char *url, const char *location, char out[static REST_WHOLE_MAX])
{
	char *whole = NULL;
	bool good = curl_url_set(from, CURLUPART_URL, url, 0) == CURLUE_OK && curl_url_set(to, CURLUPART_URL, url, 0) == CURLUE_OK &&
		curl_url_set(to, CURLUPART_URL, location, 0) == CURLUE_OK && same_part(from, to, CURLUPART_SCHEME) &&
		same_part(from, to, CURLUPART_HOST) && same_part(from, to, CURLUPART_PORT) && !has_part(to, CURLUPART_USER) &&
		!has_part(to, CURLUPART_PASSWORD) && curl_url_set(to, CURLUPART_FRAGMENT, NULL, 0) == CURLUE_OK &&
		curl_url_get(to, CURLUPART_URL, &whole, 0) == CURLUE_OK && strlen(whole) < REST_WHOLE_MAX;

	if (good)
		memcpy(out, whole, strlen(whole) + 1);
	curl_free(whole);
	return good;
}

int rest_redirect(const struct csm_rest *r, struct csm_rest_res *res, char url[static REST_WHOLE_MAX])
{
	CURLU *from = curl_url(), *to = curl_url();
	char why[CSM_REST_WHY_MAX + 1];
	bool good = false;
	int err = from == NULL || to == NULL ? CSM_ENOMEM : CSM_EPROTOCOL;

	if (err == CSM_EPROTOCOL && r->location[0] != '\0')
		good = resolve(from, to, url, r->location, url);
	if (!good && err == CSM_EPROTOCOL) {
		snprintf(why, sizeof(why), "the server answers with status %d and sends to %s%.200s", res->status,
			r->location[0] != '\0' ? "another server: " : "no place", r->location);
		rest_why(res->why, why, strlen(why));
	}
	curl_url_cleanup(from);
	curl_url_cleanup(to);
	return good ? 0 : err;
}
