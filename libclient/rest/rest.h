/* A client of csm-server's REST, and of what else csm-enrol speaks HTTPS to: over libcurl and jansson.
 *
 * Trust is given, never the system's. TLS 1.2 or later, the host's name is verified. HTTP/1.1, no redirects but
 * those within an origin that a request allows, no compression, no cookies, a proxy only where the caller's environment is asked for one. Everything has a limit, and each call as a whole,
 * from the name's lookup to the last byte, one deadline. A struct csm_rest is used by one thread at a time, and keeps its
 * connection from call to call. Logs nothing; what it sends and gets lies in memory that is wiped. */
#ifndef CSM_REST_REST_H
#define CSM_REST_REST_H

#include <jansson.h>
#include <openssl/ssl.h>
#include "libclient/base/buf.h"
#include "libclient/base/name.h"
#include "proto-spec/limits.h"

#define CSM_REST_URL_MAX 512u
#define CSM_REST_WHY_MAX CSM_ERROR_TEXT_MAX /* without its NUL */
#define CSM_REST_BODY_MAX (1024u * 1024u) /* of an answer, unless told otherwise */
#define CSM_REST_TIMEOUT_MS 30000u    /* of a call, unless told otherwise */
#define CSM_REST_NEXT_MAX 512u
#define CSM_REST_TOKEN_MAX 512u
#define CSM_REST_REDIRECTS_MAX 5u

/* Once in a program, before its other threads: what libcurl frees is wiped from then on, and what jansson frees, unless the
 * program has given it a heap of its own. CSM_ENOMEM. */
CSM_MUST int csm_rest_prepare(void);

struct csm_rest_options {
	/* Where: one of the two. */
	const char *url;    /* "https://HOST[:PORT][/PREFIX]"; the prefix stands before the path of each request */
	const char *socket; /* the local administrator's Unix socket: HTTP without TLS, and nothing of what follows on trust */
	/* Whom to trust, for a URL: one of the three. */
	const char *ca_file;    /* PEM */
	struct csm_bin anchors; /* DER certificates one after the other; an intermediate's will do */
	bool unverified;        /* nobody: for what proves itself, as a root by its digest. Never with a token or a key */
	/* Who we are: nobody, or one of these with or without a token. */
	const char *cert_file, *key_file; /* PEM; the certificate first, then its issuers */
	struct csm_bin chain;             /* DER certificates one after the other, ours first */
	EVP_PKEY *key;                    /* with chain; one reference more is taken */
	struct csm_bin token;             /* Authorization: Bearer TOKEN */
	struct csm_bin basic;             /* Authorization: Basic of this USER:PASSWORD */
	/* How. */
	const char *addresses; /* "ADDRESS[,ADDRESS]" in place of looking the host up; NULL: by the system's resolver */
	bool proxy_from_env;   /* https_proxy, no_proxy: for a command that a person types */
	unsigned timeout_ms;   /* of each call; 0: CSM_REST_TIMEOUT_MS */
	size_t body_max;       /* 0: CSM_REST_BODY_MAX */
	const char *agent;     /* the User-Agent; NULL: "csm/VERSION" */
};

struct csm_rest;
/* Everything is copied, but the files: these are read at each connection. No connection is made. CSM_EINVALID: `why` (of at least
 * CSM_REST_WHY_MAX + 1 bytes) says which option and what is wrong; a file that cannot be read is one. */
CSM_MUST int csm_rest_new(const struct csm_rest_options *opt, struct csm_rest **ret, char *why);
void csm_rest_free(struct csm_rest *r); /* NULL is a no-op */
/* The calls that follow end by then (CLOCK_MONOTONIC, milliseconds), besides their own time; 0: no such end. */
void csm_rest_deadline(struct csm_rest *r, uint64_t at_ms);

struct csm_rest_res {
	int status;              /* of HTTP; 0: there was no answer */
	char type[64];           /* its Content-Type in lower case, without parameters; "": none */
	bool base64;             /* Content-Transfer-Encoding: base64 */
	struct csm_buf body;     /* of secret memory */
	json_t *json;            /* the body, where it is application/json and the call went well */
	uint32_t retry_after_s;  /* Retry-After in seconds, at most a day; a date counts from now */
	bool retry_after;        /* there was one */
	char next[CSM_REST_NEXT_MAX + 1]; /* CSM-Next, the cursor of a table's next page; "": there is none */
	char error[65];          /* of a refusal: the error's name as the server has it; "": it told none */
	char why[CSM_REST_WHY_MAX + 1]; /* of a failure, for people: the server's message where it had one; printable ASCII */
};
void csm_rest_res_init(struct csm_rest_res *res);
void csm_rest_res_clear(struct csm_rest_res *res); /* wipes; it can be used again */

struct csm_rest_req {
	const char *method;      /* "GET" */
	const char *path;        /* "/v1/cms/certificates?limit=10"; see csm_rest_escape */
	struct csm_bin body;     /* p NULL: none */
	const char *type;        /* of the body */
	const char *accept;      /* NULL: application/json */
	bool base64;             /* say of the body: Content-Transfer-Encoding: base64 */
	const char *idempotency; /* Idempotency-Key; NULL: none */
	bool redirects;          /* where the answer is 301, 302, 307 or 308 (303 too, of a GET) and names a place of the same origin,
				  * the same request goes there, at most CSM_REST_REDIRECTS_MAX times; any other place is refused */
};
/* Ask. `res` has been initialised; what it held goes. 0 for a status of 200 to 299, and then `json` is there if the type says so.
 *
 * Else: of an answer {"error": {"code", "name", "message"}} the code of that name in errors.def; of another one (the first line
 * of a text/plain is the why) by its status:
 * 400 CSM_EINVALID, 401 and 403 CSM_EDENIED, 404 CSM_ENOT_FOUND, 409 CSM_ECONFLICT, 413 CSM_ETOO_LARGE, 429 CSM_EBUSY,
 * 501 CSM_EUNSUPPORTED, 503 CSM_EUNAVAILABLE, 504 CSM_ETIMEOUT, other 4xx CSM_EINVALID, other 5xx CSM_EBACKEND; 1xx and 3xx are
 * CSM_EPROTOCOL. Without an answer: CSM_EUNREACHABLE (no address, no connection, no TLS, not to be trusted), CSM_ETIMEOUT,
 * CSM_ECLOSED (the connection ended in the midst of it), CSM_EPROTOCOL (that is no HTTP, or no JSON), CSM_ETOO_LARGE (the answer),
 * CSM_EINVALID (the request), CSM_ENOMEM. */
CSM_MUST int csm_rest_send(struct csm_rest *r, const struct csm_rest_req *req, struct csm_rest_res *res);
/* The same with a JSON body (NULL: none; the caller keeps its reference). */
CSM_MUST int csm_rest_json(struct csm_rest *r, const char *method, const char *path, const json_t *body, struct csm_rest_res *res);

/* One segment of a path, or a value in a query: appended to out (with its NUL, at most cap bytes), all but letters, digits and -._~
 * as %XX. CSM_ETOO_LARGE. */
CSM_MUST int csm_rest_escape(struct csm_str s, char *out, size_t cap);
/* A string of a JSON object; NULL: not there, or something else. Borrowed. */
const char *csm_rest_text(const json_t *object, const char *name);

#endif
