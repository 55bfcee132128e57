#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "daemon/svc/http_int.h"

#define PIECE 65536u

void http_refuse(struct http_conn *c, int status, int error, const char *fmt, ...)
{
	va_list ap;

	c->refusal = (struct http_refusal){.status = status, .error = error};
	va_start(ap, fmt);
	vsnprintf(c->refusal.why, sizeof(c->refusal.why), fmt, ap);
	va_end(ap);
}

/* The code that goes with a status of HTTP's own. */
static int error_of(int status)
{
	switch (status) {
	case 413:
	case 414:
	case 431:
		return CSM_ETOO_LARGE;
	case 417:
	case 501:
	case 505:
		return CSM_EUNSUPPORTED;
	default:
		return CSM_EPROTOCOL;
	}
}

/* It ends the connection: where the next request begins is not known. */
static void refuse_form(struct http_conn *c, int status, const char *why)
{
	http_refuse(c, status, error_of(status), "%s", why);
	c->refusal.close = true;
}

/* What evhttp is given in place of what it is not to see. */
static int put_form(struct http_conn *c, struct csm_buf *out)
{
	static const char other[] = " / HTTP/1.1\r\nHost: x\r\n\r\n";
	const char *method = csm_str_eq(c->head.method, "HEAD") ? "HEAD" : "GET";
	int r;

	if (c->refusal.status == 0)
		return http_head_write(&c->head, evbuffer_get_length(c->body), out);
	r = csm_buf_put(out, method, strlen(method));
	return r != 0 ? r : csm_buf_put(out, other, sizeof(other) - 1);
}

/* The request is whole, or refused: evhttp has it in one piece, and nothing else. */
static void hand_over(struct http_conn *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);
	struct csm_buf form;
	int r;

	csm_buf_init(&form, 2 * CSM_HTTP_HEAD_MAX + 1024, false);
	evbuffer_add_buffer(c->rest, in);
	if (c->refusal.status != 0)
		evbuffer_drain(c->body, evbuffer_get_length(c->body));
	r = put_form(c, &form);
	if (r == 0 && (evbuffer_prepend_buffer(in, c->body) != 0 || evbuffer_prepend(in, csm_buf_ptr(&form), form.len) != 0))
		r = CSM_ENOMEM;
	csm_buf_free(&form);
	if (r != 0) {
		http_conn_close(c);
		return;
	}
	c->state = HTTP_BUSY;
	c->deadline = 0;
	c->closing = c->refusal.close || c->head.close || c->h->stopping;
	c->asked = http_now_us();
	c->h->current = c;
	c->ev_read(c->bev, c->evcon);
	c->h->current = NULL;
	if (c->evcon == NULL)
		return;
	if (c->state == HTTP_BUSY && c->job == NULL) {
		/* evhttp did not like what was made for it: its own error page, and the end. */
		c->closing = true;
		http_conn_answering(c, 0);
	}
	bufferevent_disable(c->bev, EV_READ);
}

/* ---- the body ---- */

static int take_data(void *arg, const char *p, size_t n)
{
	struct http_conn *c = arg;

	if (n > c->body_max - evbuffer_get_length(c->body))
		return 413;
	return evbuffer_add(c->body, p, n) == 0 ? 0 : 503;
}

static void read_chunks(struct http_conn *c, struct evbuffer *in)
{
	size_t have, n;
	int status = 0;

	while (status == 0 && c->chunks.state != CHUNK_DONE && (have = evbuffer_get_length(in)) > 0) {
		const char *p = (const char *)evbuffer_pullup(in, (ev_ssize_t)(have = have < PIECE ? have : PIECE));

		n = have;
		status = p != NULL ? http_chunks_read(&c->chunks, p, &n, take_data, c) : 503;
		evbuffer_drain(in, n);
		/* What a chunk will be is said before it comes. */
		if (status == 0 && c->chunks.state == CHUNK_DATA && c->chunks.left > c->body_max - evbuffer_get_length(c->body))
			status = 413;
		if (n < have)
			break;
	}
	if (status != 0)
		refuse_form(c, status, status == 413 ? "the body is too large" : "the body's chunks are malformed");
	if (status != 0 || c->chunks.state == CHUNK_DONE)
		hand_over(c);
}

/* Copied, not moved: what moves takes all the room along that was made for reading it, 8 KiB for a record of one byte. */
static void read_body(struct http_conn *c, struct evbuffer *in)
{
	size_t left = (size_t)c->head.length - evbuffer_get_length(c->body), n = evbuffer_get_length(in);
	const unsigned char *p;

	if (c->head.chunked) {
		read_chunks(c, in);
		return;
	}
	n = n < left ? n : left;
	p = n > 0 ? evbuffer_pullup(in, (ev_ssize_t)n) : NULL;
	if (n > 0 && (p == NULL || evbuffer_add(c->body, p, n) != 0)) {
		http_conn_close(c);
		return;
	}
	evbuffer_drain(in, n);
	if (evbuffer_get_length(c->body) == c->head.length)
		hand_over(c);
}

/* ---- the head ---- */

/* What of a body may come. */
static void check_body(struct http_conn *c)
{
	const struct csm_http_route *route = c->route;
	bool may = csm_str_eq(c->head.method, "POST") || csm_str_eq(c->head.method, "PUT");
	size_t need;

	c->body_max = may ? route->body_max : 0;
	need = c->head.chunked ? c->body_max : (size_t)c->head.length;
	if (c->head.length > c->body_max || (c->head.chunked && c->body_max == 0)) {
		http_refuse(c, 413, CSM_ETOO_LARGE, "the body is too large");
	} else if (c->body_max > 0 && !c->head.has_length && !c->head.chunked) {
		http_refuse(c, 411, CSM_EPROTOCOL, "the body has no length");
	} else if (need > 0 && route->type != NULL &&
		(c->head.type.n != strlen(route->type) || strncasecmp(c->head.type.p, route->type, c->head.type.n) != 0)) {
		http_refuse(c, 415, CSM_EUNSUPPORTED, "the body has to be %s", route->type);
	} else if (need > CSM_HTTP_BODIES_MAX - c->h->bodies) {
		http_refuse(c, 503, CSM_EBUSY, "too many bodies are under way");
	} else {
		c->reserved = need;
		c->h->bodies += need;
	}
}

/* At the plain door nobody asks who it is, whatever he sends. */
static bool shows_nobody(const struct http_conn *c)
{
	return c->door->door == CSM_HTTP_PLAIN ||
		(c->door->door == CSM_HTTP_TLS && c->cert == NULL && !c->head.authorization);
}

static void check_rights(struct http_conn *c)
{
	struct csm_http *h = c->h;

	if (c->cert != NULL && time(NULL) >= c->cert_end) {
		http_refuse(c, 401, CSM_EUNAUTHENTICATED, "the client's certificate has expired");
		c->refusal.close = true;
	} else if (shows_nobody(c) &&
		csm_rates_take(h->request_rates, c->key, sizeof(c->key), http_now_ms(), NULL) != 0) {
		http_refuse(c, 429, CSM_EBUSY, "too many requests from this address");
	}
}

static void on_head(struct http_conn *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);
	bool body = c->head.length > 0 || c->head.chunked;

	check_rights(c);
	if (c->refusal.status == 0)
		http_route_find(c);
	if (c->refusal.status == 0)
		check_body(c);
	if (c->refusal.status != 0 || !body) {
		c->refusal.close = c->refusal.close || (c->refusal.status != 0 && body);
		hand_over(c);
		return;
	}
	c->state = HTTP_BODY;
	c->deadline = http_now_ms() + c->h->opt.limits.body_ms;
	c->chunks = (struct http_chunks){.state = CHUNK_SIZE};
	if (c->head.expect && evbuffer_get_length(in) == 0) {
		bufferevent_enable(c->bev, EV_WRITE);
		bufferevent_write(c->bev, "HTTP/1.1 100 Continue\r\n\r\n", 25);
	}
	read_body(c, in);
}

static void begin(struct http_conn *c)
{
	c->state = HTTP_HEAD;
	c->deadline = http_now_ms() + c->h->opt.limits.head_ms;
	c->seen = 0;
	c->h->bodies -= c->reserved;
	c->reserved = 0;
	c->route = NULL;
	c->n_params = 0;
	c->refusal.status = 0;
	c->refusal.close = false;
	memset(&c->head, 0, sizeof(c->head));
	csm_buf_reset(&c->head_text);
}

/* One empty line before a request is passed over (RFC 9112, 2.2). */
static void skip_line(struct http_conn *c, struct evbuffer *in)
{
	char two[2];

	if (!c->skipped_line && evbuffer_copyout(in, two, 2) == 2 && memcmp(two, "\r\n", 2) == 0) {
		evbuffer_drain(in, 2);
		c->skipped_line = true;
		c->seen = 0;
	}
}

static void read_head(struct http_conn *c, struct evbuffer *in)
{
	const char *p, *why = "";
	size_t have, size;
	int status;

	if (c->state == HTTP_IDLE)
		begin(c);
	skip_line(c, in);
	have = evbuffer_get_length(in);
	have = have <= CSM_HTTP_HEAD_MAX ? have : CSM_HTTP_HEAD_MAX + 1;
	if (have == 0)
		return;
	p = (const char *)evbuffer_pullup(in, (ev_ssize_t)have);
	if (p == NULL) {
		http_conn_close(c);
		return;
	}
	size = http_head_size(p, have, &c->seen);
	if (size == 0 && have <= CSM_HTTP_HEAD_MAX && (unsigned char)p[0] > ' ')
		return;
	size = size > 0 ? size : have;
	status = csm_buf_put(&c->head_text, p, size) == 0 ? 0 : 503;
	evbuffer_drain(in, size);
	if (status == 0)
		status = http_head_read((const char *)csm_buf_ptr(&c->head_text), size, &c->head, &why);
	if (status == 0) {
		on_head(c);
		return;
	}
	refuse_form(c, status, why);
	hand_over(c);
}

void http_read(struct http_conn *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);

	switch (c->state) {
	case HTTP_IDLE:
	case HTTP_HEAD:
		if (c->state == HTTP_HEAD && c->refusal.status != 0)
			hand_over(c);
		else if (evbuffer_get_length(in) > 0)
			read_head(c, in);
		break;
	case HTTP_BODY:
		if (c->refusal.status != 0)
			hand_over(c);
		else
			read_body(c, in);
		break;
	case HTTP_LINGER:
		evbuffer_drain(in, evbuffer_get_length(in));
		break;
	default:
		break;
	}
}
