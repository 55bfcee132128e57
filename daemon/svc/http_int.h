/* What the files of the HTTP server share. Everything of a connection belongs to the thread of events; a job is the worker's
 * between csm_workq_push and job_finish. */
#ifndef CSM_SVC_HTTP_INT_H
#define CSM_SVC_HTTP_INT_H

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/bufferevent_struct.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <pthread.h>
#include <stdatomic.h>
#include "daemon/svc/http.h"
#include "daemon/svc/http_head.h"
#include "daemon/svc/rates.h"
#include "daemon/svc/workq.h"
#include "proto-spec/limits.h"

#define HTTP_DOORS 3u
#define HTTP_ADDRESSES 1024u /* of the table of who is connected */

/* One address and its open connections. An IPv6 network of 64 bits counts as one. */
struct http_address {
	uint8_t key[16];
	unsigned open;
	struct http_address *next;
};

struct http_door {
	struct csm_http *h;
	enum csm_http_door door;
	struct evhttp *evhttp;
	struct evconnlistener *listener;
	struct evhttp_bound_socket *bound; /* its owner */
	bool paused;
};

struct csm_http {
	struct csm_http_options opt;
	struct event_base *base;
	struct http_door door[HTTP_DOORS];
	struct event *tick, *soon, *finished;
	int finished_fd;               /* eventfd: a worker has finished something */
	struct csm_workq *workers;
	struct csm_job_kind *kinds;    /* of each route */
	struct csm_job_kind *pushed;   /* of what was pushed in this turn of the events, last; NULL */
	pthread_t thread;
	bool started;

	struct http_conn *fresh;       /* accepted, not looked at yet */
	struct http_conn *ready;       /* what they have sent is waiting, while nothing is on its way */
	struct http_conn *dead;
	struct http_conn *open;        /* all that are not dead, doubly linked */
	struct http_conn *current;     /* whose bytes evhttp reads at this moment */
	unsigned n_open, n_local;
	unsigned burst;                /* accepted in this turn */
	bool stopping;
	size_t bodies;                 /* bytes that bodies under way may come to */
	struct http_address *address[HTTP_ADDRESSES];
	struct csm_rates *new_rates, *request_rates;

	pthread_mutex_t lock;          /* of what follows */
	SSL_CTX *tls;
	struct http_job *done;
	bool stop;                     /* it was asked for */
	uint64_t stop_at;              /* ms */
	atomic_uint_fast64_t n_connections, n_refused, n_failed_handshakes, n_requests, n_busy;
	atomic_uint n_open_told;
};

enum http_state {
	HTTP_HANDSHAKE,
	HTTP_IDLE,    /* between requests: nothing of the next one is there */
	HTTP_HEAD,    /* some of its head is */
	HTTP_BODY,
	HTTP_BUSY,    /* asked; the answer is being made */
	HTTP_ANSWER,  /* it is being sent */
	HTTP_LINGER,  /* it was sent, and the connection ends; what still comes is thrown away */
	HTTP_DEAD,
};

/* How a request is refused before a handler has seen it. */
struct http_refusal {
	int status, error;
	char why[160];
	char allow[64];
	bool close;
};

struct http_conn {
	struct csm_http *h;
	struct http_door *door;
	enum http_state state;
	uint64_t deadline;             /* ms; 0: none */
	struct bufferevent *bev;       /* a reference of our own */
	struct event *drain;           /* after a handshake that failed: what still comes on its socket */
	SSL *ssl;                      /* bev's; NULL without TLS */
	/* evhttp's connection and what it does with what is there. */
	struct evhttp_connection *evcon;
	bufferevent_data_cb ev_read, ev_write;
	bufferevent_event_cb ev_event;

	struct http_head head;         /* slices of head_text */
	struct csm_buf head_text;
	size_t seen;
	bool skipped_line;
	struct http_chunks chunks;
	struct evbuffer *body, *rest;  /* of this request; what came after it */
	size_t body_max, reserved;
	const struct csm_http_route *route;
	struct csm_str param[4];       /* still encoded, of head_text */
	size_t n_params;
	struct http_refusal refusal;   /* status 0: none */
	struct http_job *job;
	bool closing;                  /* after this answer */
	bool in_ready;
	uint64_t asked;                /* us */

	X509 *cert;
	int64_t cert_end;              /* s */
	uid_t uid;
	struct http_address *address;
	uint8_t key[16];
	char peer[64];
	struct http_conn *next, *prev; /* h->open */
	struct http_conn *then;        /* fresh, ready, dead */
};

struct http_param {
	struct csm_str name, value;
};
struct http_job {
	struct csm_job job;
	struct csm_http *h;
	struct http_conn *conn;        /* NULL: it has gone */
	struct evhttp_request *ev;
	const struct csm_http_route *route;
	struct csm_http_req req;
	struct csm_http_res res;
	struct http_param query[CSM_HTTP_QUERY_MAX];
	size_t n_query;
	char *text;                    /* what parameters are slices of */
	char peer[64];
	bool head;                     /* HEAD */
	uint64_t asked;
	struct http_job *next;
};

/* ---- http.c ---- */
uint64_t http_now_ms(void);
uint64_t http_now_us(void);
void http_soon(struct csm_http *h);

/* ---- http_conn.c: connections ---- */
struct bufferevent *http_accept(struct event_base *base, void *door);
void http_accept_failed(struct evconnlistener *l, void *arg);
void http_look_at_fresh(struct csm_http *h);
void http_go_on(struct csm_http *h);
void http_check_deadlines(struct csm_http *h);
void http_bury(struct csm_http *h);
void http_conn_close(struct http_conn *c);
/* After evhttp_send_reply: its bytes are on their way. */
void http_conn_answering(struct http_conn *c, size_t bytes);

/* ---- http_read.c: requests, as they come ---- */
void http_read(struct http_conn *c);

/* ---- http_peer.c: who is connected ---- */
/* False: over a limit. */
bool http_peer_take(struct http_conn *c, int fd);
void http_peer_release(struct http_conn *c);
bool http_peer_tls_done(struct http_conn *c); /* false: end it */

/* ---- http_route.c ---- */
/* The route of a request, or a refusal. */
void http_route_find(struct http_conn *c);
/* 0, 400. What is decoded goes to text, which has room for n bytes. */
int http_decode(struct csm_str s, bool plus, char *to, struct csm_str *ret);
int http_decode_query(struct csm_str query, char *to, struct http_param *ret, size_t *n);

/* ---- http_job.c: requests on their way through a worker ---- */
/* A kind of jobs for each route. */
int http_kinds_new(struct csm_http *h);
/* What came in this turn of the events goes to the workers. */
void http_jobs_go(struct csm_http *h);
/* evhttp has a request of the current connection. */
void http_on_request(struct evhttp_request *ev, void *door);
void http_finish_jobs(struct csm_http *h);
/* Its connection has gone. */
void http_job_orphan(struct http_job *j);

void http_refuse(struct http_conn *c, int status, int error, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* ---- http_res.c ---- */
void http_res_init(struct csm_http_res *res);
/* Without a body. */
void http_res_clear(struct csm_http_res *res);
size_t http_res_length(const struct csm_http_res *res);
const char *http_reason(int status);
int http_status_of(int error);

#endif
