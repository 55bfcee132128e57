/* An HTTP/1.1 server on libevent's evhttp: TLS with client certificates, plain TCP, and a Unix socket whose peer the kernel
 * tells. Routes are a table; handlers run on worker threads and may block. One struct csm_http has one thread for its
 * events and as many workers as it is given. Its limits are in proto-spec/limits.h (CSM_HTTP_*). */
#ifndef CSM_SVC_HTTP_H
#define CSM_SVC_HTTP_H

#include <openssl/ssl.h>
#include <sys/types.h>
#include "libclient/base/buf.h"
#include "libclient/base/name.h"

/* Where a request came in; a route names those that serve it. */
enum csm_http_door {
	CSM_HTTP_TLS = 1,   /* HTTPS: who has a certificate shows it */
	CSM_HTTP_PLAIN = 2, /* HTTP, what is public anyway */
	CSM_HTTP_LOCAL = 4, /* the administrator's Unix socket */
};

/* A request, whole. All slices live until the handler returns. */
struct csm_http_req {
	enum csm_http_door door;
	struct csm_str method;         /* "GET" */
	struct csm_str path;           /* as it came, without the query */
	struct csm_bin body;
	X509 *peer_cert;               /* NULL: none was shown. Verified against the anchors of the door; expired ones do not get here */
	uid_t peer_uid;                /* of CSM_HTTP_LOCAL */
	char peer[64];                 /* address and port, or "uid N", for the log */
	struct csm_str param[4];       /* what stood for {...} in the route's path, percent-decoded, in order */
	size_t n_params;
	const void *impl;
};
/* A header's value (the name in any case; never one that stood there twice), or a parameter of the query, percent-decoded; p NULL:
 * not there. */
struct csm_str csm_http_header(const struct csm_http_req *req, const char *name);
struct csm_str csm_http_query(const struct csm_http_req *req, const char *name);

/* What the handler fills; 500 with no body before. */
struct csm_http_res {
	int status;
	const char *type;        /* static; NULL: application/json where there is a body */
	struct csm_buf body;
	struct { const char *name; char value[256]; } header[8];
	size_t n_headers;
};
/* CSM_ETOO_LARGE: no room, or the value is too long; CSM_EINVALID: it holds a control character. */
CSM_MUST int csm_http_res_header(struct csm_http_res *res, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* {"error": {"code", "name", "message"}} with the HTTP status of the error's row in errors.def. `message` is for the caller. */
void csm_http_fail(struct csm_http_res *res, int error, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

typedef void csm_http_handler(void *arg, const struct csm_http_req *req, struct csm_http_res *res);
struct csm_http_route {
	const char *method;  /* "GET"; HEAD is served by it as well */
	const char *path;    /* "/v1/cms/certificates/{serial}/revoke" */
	unsigned doors;      /* enum csm_http_door */
	size_t body_max;     /* 0: no body */
	csm_http_handler *handler;
};

struct csm_http_options {
	const struct csm_http_route *routes; /* ended by one without a path; lives as long as the server */
	void *arg;                           /* for the handlers */
	unsigned workers;
	/* Listening sockets, opened by the caller before it drops its privileges; -1: no such door. */
	int tls_fd, plain_fd, local_fd;
};
struct csm_http;
CSM_MUST int csm_http_new(const struct csm_http_options *opt, struct csm_http **ret);
/* The context of the TLS door, from now on for each new connection; before the first one it refuses all. The caller's reference
 * is taken over. Any thread. */
void csm_http_set_tls(struct csm_http *h, SSL_CTX *ctx);
/* Start its threads. */
CSM_MUST int csm_http_start(struct csm_http *h);
/* No new connections; what has been asked is answered, within the time; then the threads end. NULL is a no-op. */
void csm_http_free(struct csm_http *h, unsigned wait_ms);

#endif
