/* What the files of this folder share. */
#ifndef CSM_REST_REST_INT_H
#define CSM_REST_REST_INT_H

#include <curl/curl.h>
#include "libclient/rest/rest.h"

#define REST_HEADERS_MAX (64u * 1024u) /* of an answer, all of them */
#define REST_PATH_MAX 4096u
#define REST_RETRY_MAX_S 86400u
#define REST_WHOLE_MAX (CSM_REST_URL_MAX + REST_PATH_MAX + 1) /* a URL with its path, and its NUL */

struct csm_rest {
	CURL *curl;
	char *base;         /* the URL without a slash at its end */
	bool local;         /* over a Unix socket */
	bool unverified;
	char *ca_file, *cert_file, *key_file;
	X509_STORE *trust;  /* of `anchors` */
	STACK_OF(X509) *chain;
	EVP_PKEY *key;
	char *authorization; /* the whole header line, csm_lock_alloc's; NULL: none */
	struct curl_slist *addresses;
	unsigned timeout_ms;
	uint64_t deadline_ms;
	size_t body_max;
	/* of the call under way */
	struct csm_rest_res *res;
	size_t header_bytes;
	bool too_large, no_memory;
	char location[CSM_REST_NEXT_MAX + 1]; /* of the answer; "": none, or one that is too long */
	char tls_why[128];  /* what tls.c could not do */
	char error[CURL_ERROR_SIZE];
};

/* ---- tls.c ---- */
/* What the options say of trust and of who we are. CSM_EINVALID: why. */
CSM_MUST int rest_tls_take(struct csm_rest *r, const struct csm_rest_options *opt, char *why);
void rest_tls_clear(struct csm_rest *r);
/* CURLOPT_SSL_CTX_FUNCTION */
CURLcode rest_tls_context(CURL *curl, void *ssl_ctx, void *rest);

/* ---- answer.c ---- */
/* Text of others for people: printable ASCII alone, cut off. */
void rest_why(char why[static CSM_REST_WHY_MAX + 1], const char *text, size_t n);
size_t rest_on_header(char *p, size_t size, size_t n, void *rest);
size_t rest_on_body(char *p, size_t size, size_t n, void *rest);
/* An answer with a status that is no success, by its body: the code; error and why are filled as far as it says. */
CSM_MUST int rest_refusal(struct csm_rest_res *res);
/* The answer is there: what it means. */
CSM_MUST int rest_judge(struct csm_rest *r, struct csm_rest_res *res);
/* There is none: why not. */
CSM_MUST int rest_failed(struct csm_rest *r, CURLcode c, struct csm_rest_res *res);


/* ---- redirect.c ---- */
/* The answer sends the request elsewhere. */
bool rest_is_redirect(const struct csm_rest_res *res, const char *method);
/* Where to, in place of `url`. CSM_EPROTOCOL: that is another origin (RFC 6454), or no place at all; res->why says so. */
CSM_MUST int rest_redirect(const struct csm_rest *r, struct csm_rest_res *res, char url[static REST_WHOLE_MAX]);

#endif
