/* Connections. evhttp accepts them and parses; in between stand these callbacks: they take the place of evhttp's own on each
 * bufferevent, and evhttp's are called when there is a whole request, or an answer has been sent. */
#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <sys/socket.h>
#include "daemon/svc/http_int.h"

#define ACCEPT_BURST 16u
#define RECORD_MAX 16384u /* of TLS */
#define WRITE_SLICE (2u * 1024u * 1024u) /* of an answer, in the time for a small one */

static void pause_if_full(struct http_door *d)
{
	struct csm_http *h = d->h;
	bool full = d->door == CSM_HTTP_LOCAL ? h->n_local >= CSM_HTTP_CONNECTIONS_LOCAL : h->n_open >= h->opt.limits.connections;

	if (d->listener == NULL || (!full && h->burst < ACCEPT_BURST) || d->paused)
		return;
	d->paused = true;
	evconnlistener_disable(d->listener);
	if (!full)
		http_soon(h);
}

static struct bufferevent *make_bev(struct http_conn *c)
{
	struct csm_http *h = c->h;

	if (c->door->door != CSM_HTTP_TLS)
		return bufferevent_socket_new(h->base, -1, BEV_OPT_CLOSE_ON_FREE);
	pthread_mutex_lock(&h->lock);
	c->ssl = h->tls != NULL ? SSL_new(h->tls) : NULL;
	pthread_mutex_unlock(&h->lock);
	/* Without TLS it is closed before a byte of it is read. */
	if (c->ssl == NULL)
		return bufferevent_socket_new(h->base, -1, BEV_OPT_CLOSE_ON_FREE);
	return bufferevent_openssl_socket_new(h->base, -1, c->ssl, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
}

static void conn_free(struct http_conn *c)
{
	if (c->bev != NULL)
		bufferevent_decref(c->bev);
	if (c->body != NULL)
		evbuffer_free(c->body);
	if (c->rest != NULL)
		evbuffer_free(c->rest);
	csm_buf_free(&c->head_text);
	free(c);
}

/* What evhttp is to read a new connection with; which one it is it says only afterwards. Without memory for more it is one that
 * http_on_request knows nothing of and refuses. */
struct bufferevent *http_accept(struct event_base *base, void *door)
{
	struct http_door *d = door;
	struct csm_http *h = d->h;
	struct http_conn *c = calloc(1, sizeof(*c));

	h->burst++;
	if (c == NULL)
		return bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
	c->h = h;
	c->door = d;
	csm_buf_init(&c->head_text, CSM_HTTP_HEAD_MAX + 1024, false);
	c->body = evbuffer_new();
	c->rest = evbuffer_new();
	c->bev = c->body != NULL && c->rest != NULL ? make_bev(c) : NULL;
	if (c->bev == NULL) {
		conn_free(c);
		return bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
	}
	bufferevent_incref(c->bev);
	*(d->door == CSM_HTTP_LOCAL ? &h->n_local : &h->n_open) += 1;
	atomic_fetch_add(&h->n_connections, 1);
	atomic_fetch_add(&h->n_open_told, 1);
	c->then = h->fresh;
	h->fresh = c;
	c->next = h->open;
	if (h->open != NULL)
		h->open->prev = c;
	h->open = c;
	http_soon(h);
	pause_if_full(d);
	return c->bev;
}

/* Out of descriptors, most likely: not before the next tick, which enables what is not paused. */
void http_accept_failed(struct evconnlistener *l, void *arg)
{
	(void)arg;
	evconnlistener_disable(l);
}

/* ---- the end of one ---- */

static void resume(struct http_door *d)
{
	if (d->paused && d->listener != NULL && !d->h->stopping) {
		d->paused = false;
		evconnlistener_enable(d->listener);
		pause_if_full(d);
	}
}

static void handshake_failed(struct http_conn *c)
{
	struct csm_http *h = c->h;
	long r = SSL_get_verify_result(c->ssl);

	atomic_fetch_add(&h->n_failed_handshakes, 1);
	if (r != X509_V_OK && h->opt.stranger != NULL)
		h->opt.stranger(h->opt.arg, c->peer, X509_verify_cert_error_string(r));
}

static void on_close(struct evhttp_connection *evcon, void *arg)
{
	struct http_conn *c = arg;
	struct csm_http *h = c->h;

	(void)evcon;
	if (c->state == HTTP_DEAD)
		return;
	if (c->state == HTTP_HANDSHAKE && c->ssl != NULL)
		handshake_failed(c);
	c->state = HTTP_DEAD;
	c->evcon = NULL;
	c->ssl = NULL;
	if (c->drain != NULL)
		event_free(c->drain);
	c->drain = NULL;
	if (c->job != NULL)
		http_job_orphan(c->job);
	c->job = NULL;
	h->bodies -= c->reserved;
	http_peer_release(c);
	if (c->prev != NULL)
		c->prev->next = c->next;
	else
		h->open = c->next;
	if (c->next != NULL)
		c->next->prev = c->prev;
	*(c->door->door == CSM_HTTP_LOCAL ? &h->n_local : &h->n_open) -= 1;
	atomic_fetch_sub(&h->n_open_told, 1);
	if (!c->in_ready) {
		c->then = h->dead;
		h->dead = c;
	}
	http_soon(h);
}

/* evhttp ends it as after a timeout: a request that a worker has is set free of it. */
void http_conn_close(struct http_conn *c)
{
	if (c->evcon != NULL)
		c->ev_event(c->bev, BEV_EVENT_TIMEOUT | BEV_EVENT_READING, c->evcon);
}

void http_bury(struct csm_http *h)
{
	struct http_conn *c;

	while ((c = h->dead) != NULL) {
		h->dead = c->then;
		conn_free(c);
	}
	h->burst = 0;
	for (unsigned i = 0; i < HTTP_DOORS; i++)
		resume(&h->door[i]);
}

/* ---- callbacks ---- */

static void on_read(struct bufferevent *bev, void *arg)
{
	struct http_conn *c = arg;

	(void)bev;
	http_read(c);
}

/* "I have sent all", to a client of TLS; its answer is not waited for. */
static void say_end(struct http_conn *c)
{
	if (c->ssl != NULL && SSL_is_init_finished(c->ssl)) {
		SSL_shutdown(c->ssl);
		ERR_clear_error();
	}
}

/* A socket that is closed with unread bytes resets the connection, and the client may never see the answer. */
static void linger(struct http_conn *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);

	c->state = HTTP_LINGER;
	c->deadline = http_now_ms() + CSM_HTTP_LINGER_MS;
	say_end(c);
	shutdown(bufferevent_getfd(c->bev), SHUT_WR);
	evbuffer_drain(in, evbuffer_get_length(in));
	evbuffer_drain(c->rest, evbuffer_get_length(c->rest));
	bufferevent_enable(c->bev, EV_READ);
}

static void on_drain(evutil_socket_t fd, short what, void *arg)
{
	char thrown_away[4096];
	ssize_t n;

	(void)what;
	n = recv(fd, thrown_away, sizeof(thrown_away), MSG_DONTWAIT);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		http_conn_close(arg);
}

/* The alert that says why is sent. Who speaks TLS 1.3 has sent its request behind its certificate, and would meet a reset in place of
 * the alert; what it sends is no TLS to us any more, and is read beside the bufferevent. */
static void linger_refused(struct http_conn *c)
{
	evutil_socket_t fd = bufferevent_getfd(c->bev);

	handshake_failed(c);
	c->state = HTTP_LINGER;
	c->deadline = http_now_ms() + CSM_HTTP_LINGER_MS;
	bufferevent_disable(c->bev, EV_READ | EV_WRITE);
	c->drain = event_new(bufferevent_get_base(c->bev), fd, EV_READ | EV_PERSIST, on_drain, c);
	if (c->drain == NULL || shutdown(fd, SHUT_WR) != 0 || event_add(c->drain, NULL) != 0)
		http_conn_close(c);
}

static void on_event(struct bufferevent *bev, short what, void *arg);
static void on_write(struct bufferevent *bev, void *arg);
static void install(struct http_conn *c)
{
	bufferevent_setcb(c->bev, on_read, on_write, on_event, c);
}

static void await_next(struct http_conn *c)
{
	struct csm_http *h = c->h;

	c->state = HTTP_IDLE;
	c->deadline = http_now_ms() + h->opt.limits.idle_ms;
	c->skipped_line = false;
	if (evbuffer_get_length(c->rest) == 0 || c->in_ready)
		return;
	c->in_ready = true;
	c->then = h->ready;
	h->ready = c;
	http_soon(h);
}

static void on_write(struct bufferevent *bev, void *arg)
{
	struct http_conn *c = arg;
	size_t left = evbuffer_get_length(bufferevent_get_input(bev));

	if (c->state != HTTP_ANSWER)
		return;
	/* evhttp has read all that it was given. What it left it would read by itself, with its own arguments for these callbacks. */
	if (left > 0) {
		evbuffer_drain(bufferevent_get_input(bev), left);
		c->closing = true;
	}
	if (c->closing && (c->refusal.close || evbuffer_get_length(c->rest) > 0)) {
		linger(c);
		return;
	}
	if (c->closing)
		say_end(c);
	c->ev_write(bev, c->evcon);
	if (c->evcon == NULL)
		return;
	install(c);
	if (c->closing)
		http_conn_close(c);
	else
		await_next(c);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	struct http_conn *c = arg;

	(void)bev;
	ERR_clear_error();
	if ((what & BEV_EVENT_CONNECTED) && c->state == HTTP_HANDSHAKE) {
		c->state = HTTP_IDLE;
		c->deadline = http_now_ms() + c->h->opt.limits.head_ms;
		if (http_peer_tls_done(c))
			return;
	}
	if ((what & BEV_EVENT_ERROR) && c->state == HTTP_HANDSHAKE && c->ssl != NULL)
		linger_refused(c);
	else
		http_conn_close(c);
}

/* A short answer goes out in one record, and at once: a socket has room for it almost always, and where not, this changes nothing. */
static void send_now(struct http_conn *c)
{
	struct evbuffer *out = bufferevent_get_output(c->bev);
	size_t n = evbuffer_get_length(out);

	if (c->ssl != NULL && n > 0 && n <= RECORD_MAX)
		(void)evbuffer_pullup(out, -1);
	if (event_pending(&c->bev->ev_write, EV_WRITE, NULL))
		event_active(&c->bev->ev_write, EV_WRITE, 1);
}

void http_conn_answering(struct http_conn *c, size_t bytes)
{
	c->state = HTTP_ANSWER;
	c->deadline = http_now_ms() + c->h->opt.limits.write_ms * (1 + bytes / WRITE_SLICE);
	install(c);
	bufferevent_disable(c->bev, EV_READ);
	send_now(c);
}

/* ---- what the thread of events calls in between ---- */

void http_look_at_fresh(struct csm_http *h)
{
	struct http_conn *c;
	void *evcon;

	while ((c = h->fresh) != NULL) {
		h->fresh = c->then;
		c->then = NULL;
		bufferevent_getcb(c->bev, &c->ev_read, &c->ev_write, &c->ev_event, &evcon);
		if (c->ev_event == NULL) {
			on_close(NULL, c);
			continue;
		}
		c->evcon = evcon;
		evhttp_connection_set_closecb(c->evcon, on_close, c);
		install(c);
		/* Its input has a head at most, and a read beyond: a watermark would have libevent make room for as much at each. */
		bufferevent_setwatermark(c->bev, EV_READ, 0, 0);
		c->state = c->door->door == CSM_HTTP_TLS ? HTTP_HANDSHAKE : HTTP_IDLE;
		c->deadline = http_now_ms() + (c->ssl != NULL ? h->opt.limits.handshake_ms : h->opt.limits.head_ms);
		if (!http_peer_take(c, bufferevent_getfd(c->bev)) || (c->state == HTTP_HANDSHAKE && c->ssl == NULL) || h->stopping) {
			c->ssl = NULL;
			http_conn_close(c);
		}
	}
}

void http_go_on(struct csm_http *h)
{
	struct http_conn *c, *ready = h->ready;

	h->ready = NULL;
	while ((c = ready) != NULL) {
		ready = c->then;
		c->in_ready = false;
		if (c->state == HTTP_DEAD) {
			c->then = h->dead;
			h->dead = c;
			continue;
		}
		c->then = NULL;
		evbuffer_prepend_buffer(bufferevent_get_input(c->bev), c->rest);
		http_read(c);
	}
}

static void run_out(struct http_conn *c)
{
	if (c->state == HTTP_HEAD || c->state == HTTP_BODY) {
		http_refuse(c, 408, CSM_ETIMEOUT, "the request took too long to come");
		c->refusal.close = true;
		http_read(c);
	} else {
		http_conn_close(c);
	}
}

void http_check_deadlines(struct csm_http *h)
{
	struct http_conn *c, *next;
	uint64_t now = http_now_ms();

	for (c = h->open; c != NULL; c = next) {
		bool waits = c->state == HTTP_IDLE || c->state == HTTP_HANDSHAKE || c->state == HTTP_HEAD || c->state == HTTP_BODY;

		next = c->next;
		if (c->evcon != NULL && ((h->stopping && waits && !c->in_ready) || (c->deadline != 0 && now >= c->deadline))) {
			if (h->stopping)
				http_conn_close(c);
			else
				run_out(c);
		}
	}
}
