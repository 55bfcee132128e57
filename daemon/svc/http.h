/* An HTTP/1.1 server on libevent's evhttp: TLS with client certificates, plain TCP, and a Unix socket whose peer the kernel
 * tells. Routes are a table; handlers run on worker threads and may block. One struct csm_http has one thread for its
 * events and as many workers as it is given. Its limits are in proto-spec/limits.h (CSM_HTTP_*). */
#ifndef CSM_SVC_HTTP_H
#define CSM_SVC_HTTP_H

#include <openssl/ssl.h>
#include <sys/types.h>
#include "libclient/base/buf.h"
#include "libclient/base/name.h"
#include "proto-spec/limits.h"

/* Where a request came in; a route names those that serve it. */
enum csm_http_door {
	CSM_HTTP_TLS = 1,   /* HTTPS: who has a certificate shows it */
	CSM_HTTP_PLAIN = 2, /* HTTP, what is public anyway */
	CSM_HTTP_LOCAL = 4, /* the administrator's Unix socket */
};

/* A request, whole. All slices live until the handler returns. */
struct csm_http_route;
struct csm_http_req {
	enum csm_http_door door;
	struct csm_str method;         /* "GET" */
	struct csm_str path;           /* as it came, without the query */
	struct csm_bin body;
	X509 *peer_cert;               /* NULL: none was shown. Verified against the anchors of the door; expired ones do not get here */
	uid_t peer_uid;                /* of CSM_HTTP_LOCAL */
	char peer[64];                 /* address and port, or "uid N", for the log */
	struct csm_str param[4];       /* what stood for {...} in the route's path, percent-decoded, in order; never empty */
	size_t n_params;
	bool again;                    /* csm_http_serve_alone: it has been counted and looked at before */
	const struct csm_http_route *route;
	const void *impl;
};
/* A header's value (the name in any case; never one that stood there twice), or a parameter of the query, percent-decoded; p NULL:
 * not there. */
struct csm_str csm_http_header(const struct csm_http_req *req, const char *name);
struct csm_str csm_http_query(const struct csm_http_req *req, const char *name);
/* The name of the i-th parameter of the query; p NULL: there are no more. */
struct csm_str csm_http_query_name(const struct csm_http_req *req, size_t i);

/* A body that others hold as well. */
struct csm_http_shared {
	const void *p;
	size_t n;
	void (*release)(void *arg); /* NULL: there is none */
	void *arg;
};
/* What the handler fills; 500 with no body before. */
struct csm_http_res {
	int status;
	const char *type;        /* static; NULL: application/json where there is a body */
	struct csm_buf body;
	struct csm_http_shared shared; /* of csm_http_res_share */
	struct { const char *name; char value[256]; } header[8];
	size_t n_headers;
	int error;               /* of csm_http_fail */
	char why[CSM_ERROR_TEXT_MAX + 1]; /* its text, for the log */
	char who[96];            /* who asked, for the log: names and numbers, never a secret */
};
/* CSM_ETOO_LARGE: no room, or the value is too long; CSM_EINVALID: it holds a control character. */
CSM_MUST int csm_http_res_header(struct csm_http_res *res, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* The n bytes at p are the body, in place of what it was, and are sent from where they are, without a copy for each who reads them
 * slowly. They do not change until release(arg), which is called once, whatever happens, by any thread of the server's. */
void csm_http_res_share(struct csm_http_res *res, const void *p, size_t n, void (*release)(void *arg), void *arg);
/* {"error": {"code", "name", "message"}} with the HTTP status of the error's row in errors.def. `message` is for the caller and
 * for the log: it holds no secret. UNAUTHENTICATED has a WWW-Authenticate with it, what may be repeated a Retry-After. In place of
 * what the body was before. */
void csm_http_fail(struct csm_http_res *res, int error, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

typedef void csm_http_handler(void *arg, const struct csm_http_req *req, struct csm_http_res *res);
/* Requests of one route that wait at the same time, served together by one thread. When the handler returns, those are answered that
 * are not yet. While a few threads are at it (csm_http_options.together), more of them gather; none waits for others to come. */
#define CSM_HTTP_TOGETHER_MAX 16u
struct csm_http_one {
	const struct csm_http_req *req; /* NULL: answered, or taken away */
	struct csm_http_res *res;
};
/* This one is answered now: what becomes of the others takes longer. */
void csm_http_answer_now(struct csm_http_one *one);
/* This one is what others should not wait for: whatever was put into its answer goes, and the route's `handler` serves it, in its turn. */
void csm_http_serve_alone(struct csm_http_one *one);
typedef void csm_http_together(void *arg, struct csm_http_one *v, size_t n); /* n: 1 to CSM_HTTP_TOGETHER_MAX */
/* Of the routes that fit, the first one that has the method. */
struct csm_http_route {
	const char *method;  /* "GET"; HEAD is served by it as well */
	const char *path;    /* "/v1/cms/certificates/{serial}/revoke"; {name*} at the end stands for all that follows, with its slashes */
	unsigned doors;      /* enum csm_http_door */
	size_t body_max;     /* 0: no body; at most CSM_HTTP_BODY_MAX */
	csm_http_handler *handler;
	const char *type;    /* what a body must be, "application/json": 415 else; NULL: the handler looks by itself */
	csm_http_together *together; /* serves what `handler` would, several at once; NULL: each by itself */
};

/* 0: as limits.h has it (CSM_HTTP_*). Times in ms. */
struct csm_http_limits {
	unsigned connections, connections_per_address, new_per_address, requests_per_address;
	unsigned handshake_ms, head_ms, body_ms, idle_ms, write_ms;
};
/* What was asked and how it ended, for log and counters. */
struct csm_http_done {
	enum csm_http_door door;
	const char *peer, *method; /* method "": it was not understood */
	struct csm_str path;       /* without the query; p NULL as method */
	int status;                /* 0: the client had gone before the answer */
	int error;                 /* CSM_E*, 0 */
	const char *why, *who;     /* "" */
	const struct csm_http_route *route; /* NULL: none */
	uint64_t us;               /* from the end of the request to the answer's beginning */
};
struct csm_http_stats {
	uint64_t connections, refused, failed_handshakes; /* since the start; refused: over a limit */
	uint64_t requests, busy;                          /* busy: answered 503 or 429 by the server itself */
	unsigned open, queued;                            /* now */
};

struct csm_http_options {
	const struct csm_http_route *routes; /* ended by one without a path; lives as long as the server */
	void *arg;                           /* for the handlers, and done */
	void (*done)(void *arg, const struct csm_http_done *d); /* the thread of its events; or NULL */
	/* A handshake failed by the client certificate that was shown, and why, static; likewise. */
	void (*stranger)(void *arg, const char *peer, const char *why);
	struct csm_http_limits limits;
	unsigned workers;
	unsigned together;  /* of them, at the same route's requests together; 0: as many as processors, at least 2 */
	/* Listening sockets, opened by the caller before it drops its privileges; -1: no such door. */
	int tls_fd, plain_fd, local_fd;
};
struct csm_http;
CSM_MUST int csm_http_new(const struct csm_http_options *opt, struct csm_http **ret);
/* The context of the TLS door, from now on for each new connection; before the first one it refuses all. The caller's reference
 * is taken over; certificate, key and anchors (X509_STORE, client CA list) are the caller's matter, the rest is set here: TLS 1.2
 * at least, client certificates asked for and verified, no resumption, no renegotiation. Any thread. */
void csm_http_set_tls(struct csm_http *h, SSL_CTX *ctx);
/* Start its threads. */
CSM_MUST int csm_http_start(struct csm_http *h);
void csm_http_stats(struct csm_http *h, struct csm_http_stats *ret); /* any thread */
/* No new connections; what has been asked is answered, within the time; then the threads end. NULL is a no-op. */
void csm_http_free(struct csm_http *h, unsigned wait_ms);

#endif
