#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "daemon/svc/http_int.h"

struct csm_str csm_http_header(const struct csm_http_req *req, const char *name)
{
	const struct http_job *j = req->impl;
	struct evkeyvalq *all = evhttp_request_get_input_headers(j->ev);
	const char *value = NULL;

	for (struct evkeyval *v = all->tqh_first; v != NULL; v = v->next.tqe_next) {
		if (strcasecmp(v->key, name) != 0)
			continue;
		if (value != NULL)
			return (struct csm_str){NULL, 0};
		value = v->value;
	}
	return value != NULL ? csm_str_of(value) : (struct csm_str){NULL, 0};
}

struct csm_str csm_http_query(const struct csm_http_req *req, const char *name)
{
	const struct http_job *j = req->impl;

	for (size_t i = 0; i < j->n_query; i++)
		if (csm_str_eq(j->query[i].name, name))
			return j->query[i].value;
	return (struct csm_str){NULL, 0};
}

struct csm_str csm_http_query_name(const struct csm_http_req *req, size_t i)
{
	const struct http_job *j = req->impl;

	return i < j->n_query ? j->query[i].name : (struct csm_str){NULL, 0};
}

/* ---- answers ---- */

/* A body on its way, of either kind. */
struct sent {
	struct csm_buf body;
	struct csm_http_shared shared;
};

static void body_sent(const void *p, size_t n, void *arg)
{
	struct sent *s = arg;

	(void)p;
	(void)n;
	csm_buf_free(&s->body);
	if (s->shared.release != NULL)
		s->shared.release(s->shared.arg);
	free(s);
}

/* The body moves to the answer without being copied. */
static struct evbuffer *take_body(struct csm_http_res *res)
{
	struct evbuffer *out = evbuffer_new();
	struct sent *s = malloc(sizeof(*s));
	const void *p = res->shared.release != NULL ? res->shared.p : csm_buf_ptr(&res->body);

	if (out != NULL && s != NULL) {
		*s = (struct sent){res->body, res->shared};
		if (evbuffer_add_reference(out, p, http_res_length(res), body_sent, s) == 0) {
			csm_buf_init(&res->body, 0, false);
			res->shared = (struct csm_http_shared){NULL, 0, NULL, NULL};
			return out;
		}
	}
	free(s);
	if (out != NULL)
		evbuffer_free(out);
	return NULL;
}

static void put_headers(struct evkeyvalq *to, const struct csm_http_res *res, bool close)
{
	bool cache = false;
	char length[24];

	for (size_t i = 0; i < res->n_headers; i++) {
		evhttp_add_header(to, res->header[i].name, res->header[i].value);
		cache = cache || strcasecmp(res->header[i].name, "Cache-Control") == 0;
	}
	if (!cache)
		evhttp_add_header(to, "Cache-Control", "no-store");
	if (http_res_length(res) > 0)
		evhttp_add_header(to, "Content-Type", res->type != NULL ? res->type : "application/json");
	if (res->status != 204 && res->status != 304) {
		snprintf(length, sizeof(length), "%zu", http_res_length(res));
		evhttp_add_header(to, "Content-Length", length);
	}
	evhttp_add_header(to, "X-Content-Type-Options", "nosniff");
	if (close)
		evhttp_add_header(to, "Connection", "close");
}

static void answer(struct http_conn *c, struct evhttp_request *ev, struct csm_http_res *res)
{
	bool no_body = evhttp_request_get_command(ev) == EVHTTP_REQ_HEAD || res->status == 204 || res->status == 304;
	size_t n = http_res_length(res);
	struct evbuffer *body;

	c->closing = c->closing || c->h->stopping;
	put_headers(evhttp_request_get_output_headers(ev), res, c->closing);
	body = !no_body && n > 0 ? take_body(res) : NULL;
	if (!no_body && n > 0 && body == NULL) {
		http_conn_close(c);
		return;
	}
	evhttp_send_reply(ev, res->status, http_reason(res->status), body);
	if (body != NULL)
		evbuffer_free(body);
	if (c->evcon != NULL)
		http_conn_answering(c, n);
}

static void tell(struct csm_http *h, const struct csm_http_done *d)
{
	atomic_fetch_add(&h->n_requests, 1);
	if (h->opt.done != NULL)
		h->opt.done(h->opt.arg, d);
}

/* ---- requests that no handler sees ---- */

static void answer_refusal(struct http_conn *c, struct evhttp_request *ev)
{
	const struct http_refusal *f = &c->refusal;
	char method[16] = "";
	struct csm_http_res res;
	int r = 0;

	http_res_init(&res);
	csm_http_fail(&res, f->error, "%s", f->why);
	res.status = f->status;
	if (f->allow[0] != 0 && f->status == 405)
		r = csm_http_res_header(&res, "Allow", "%s", f->allow);
	if (r == 0 && (f->status == 503 || f->status == 429)) {
		atomic_fetch_add(&c->h->n_busy, 1);
		r = csm_http_res_header(&res, "Retry-After", "1");
	}
	(void)r;
	snprintf(method, sizeof(method), "%.*s", (int)(c->head.method.n < 15 ? c->head.method.n : 15),
		c->head.method.p != NULL ? c->head.method.p : "");
	tell(c->h, &(struct csm_http_done){.door = c->door->door, .peer = c->peer, .method = method, .path = c->head.path,
		.status = f->status, .error = f->error, .why = f->why, .who = "", .route = c->route});
	answer(c, ev, &res);
	http_res_clear(&res);
}

/* ---- jobs ---- */

static void job_free(struct http_job *j)
{
	if (j == NULL)
		return;
	X509_free(j->req.peer_cert);
	http_res_clear(&j->res);
	free(j->text);
	free(j);
}

/* Worker: those from first to last, linked, are answered. */
static void give_back(struct csm_http *h, struct http_job *first, struct http_job *last)
{
	uint64_t one = 1;
	bool alone;

	pthread_mutex_lock(&h->lock);
	alone = h->done == NULL;
	last->next = h->done;
	h->done = first;
	pthread_mutex_unlock(&h->lock);
	if (alone && write(h->finished_fd, &one, sizeof(one)) < 0)
		return; /* it is there already */
}

/* Worker. */
static void run_job(struct csm_job *job)
{
	struct http_job *j = (struct http_job *)job;

	j->route->handler(j->h->opt.arg, &j->req, &j->res);
	give_back(j->h, j, j);
}

/* ---- several at once ---- */

_Static_assert(CSM_HTTP_TOGETHER_MAX == CSM_JOBS_MAX, "what the queue gives");

static struct http_job *job_of(struct csm_http_one *one)
{
	const struct csm_http_req *req = one->req;

	*one = (struct csm_http_one){NULL, NULL};
	return (struct http_job *)(uintptr_t)req->impl;
}

void csm_http_answer_now(struct csm_http_one *one)
{
	struct http_job *j = job_of(one);

	give_back(j->h, j, j);
}

void csm_http_serve_alone(struct csm_http_one *one)
{
	struct http_job *j = job_of(one);

	http_res_clear(&j->res);
	http_res_init(&j->res);
	j->job.kind = NULL;
	j->req.again = true;
	if (csm_workq_push_again(j->h->workers, &j->job) != 0)
		run_job(&j->job);
}

/* Worker. */
static void run_together(struct csm_job *const *jobs, size_t n)
{
	struct http_job *first = NULL, *last = NULL, *j = (struct http_job *)jobs[0];
	struct csm_http_one v[CSM_HTTP_TOGETHER_MAX];
	struct csm_http *h = j->h;

	for (size_t i = 0; i < n; i++) {
		j = (struct http_job *)jobs[i];
		v[i] = (struct csm_http_one){&j->req, &j->res};
	}
	j->route->together(h->opt.arg, v, n);
	for (size_t i = 0; i < n; i++) {
		if (v[i].req == NULL)
			continue;
		j = job_of(&v[i]);
		j->next = first;
		first = j;
		last = last != NULL ? last : j;
	}
	if (first != NULL)
		give_back(h, first, last);
}

int http_kinds_new(struct csm_http *h)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned busy = h->opt.together > 0 ? h->opt.together : processors > 2 ? (unsigned)processors : 2;
	size_t n = 0;

	while (h->opt.routes[n].path != NULL)
		n++;
	h->kinds = calloc(n + 1, sizeof(*h->kinds));
	for (size_t i = 0; h->kinds != NULL && i < n; i++)
		h->kinds[i] = (struct csm_job_kind){.run = run_together, .busy_max = busy};
	return h->kinds != NULL ? 0 : CSM_ENOMEM;
}

/* ---- from the request to the queue ---- */

void http_job_orphan(struct http_job *j)
{
	j->conn = NULL;
}

static int fill(struct http_job *j, struct http_conn *c)
{
	struct evbuffer *in = evhttp_request_get_input_buffer(j->ev);
	size_t n = evbuffer_get_length(in);
	const struct http_head *head = &c->head;
	char *to;

	/* Decoded at most once, and each as long as it was. */
	j->text = malloc(head->method.n + 2 * head->path.n + head->query.n + 4);
	if (j->text == NULL)
		return CSM_ENOMEM;
	to = j->text;
	memcpy(to, head->method.p, head->method.n);
	j->req.method = (struct csm_str){to, head->method.n};
	to += head->method.n;
	memcpy(to, head->path.p, head->path.n);
	j->req.path = (struct csm_str){to, head->path.n};
	to += head->path.n;
	for (size_t i = 0; i < c->n_params; i++) {
		if (http_decode(c->param[i], false, to, &j->req.param[i]) != 0)
			return CSM_EINVALID;
		to += j->req.param[i].n;
	}
	if (http_decode_query(head->query, to, j->query, &j->n_query) != 0)
		return CSM_EINVALID;
	j->req.n_params = c->n_params;
	j->req.body = (struct csm_bin){n > 0 ? evbuffer_pullup(in, -1) : (const uint8_t *)"", n};
	return j->req.body.p != NULL ? 0 : CSM_ENOMEM;
}

/* Whose turn it counts as. */
static uint32_t turn_of(const struct http_conn *c)
{
	const ASN1_INTEGER *serial = c->cert != NULL ? X509_get0_serialNumber(c->cert) : NULL;
	const uint8_t *p = serial != NULL ? serial->data : c->key;
	size_t n = serial != NULL ? (size_t)serial->length : sizeof(c->key);
	uint32_t v = serial != NULL;

	for (size_t i = 0; i < n; i++)
		v = v * 16777619u ^ p[i];
	return v;
}

static int job_new(struct http_conn *c, struct evhttp_request *ev, struct http_job **ret)
{
	struct http_job *j = calloc(1, sizeof(*j));
	int r;

	if (j == NULL)
		return CSM_ENOMEM;
	http_res_init(&j->res);
	j->h = c->h;
	j->conn = c;
	j->ev = ev;
	j->route = c->route;
	j->asked = c->asked;
	j->job = (struct csm_job){.run = run_job, .user = turn_of(c),
		.kind = c->route->together != NULL ? &c->h->kinds[c->route - c->h->opt.routes] : NULL};
	j->req.door = c->door->door;
	j->req.peer_uid = c->uid;
	j->req.route = c->route;
	j->req.impl = j;
	memcpy(j->req.peer, c->peer, sizeof(j->req.peer));
	memcpy(j->peer, c->peer, sizeof(j->peer));
	if ((r = fill(j, c)) != 0) {
		job_free(j);
		return r;
	}
	if (c->cert != NULL && X509_up_ref(c->cert) == 1)
		j->req.peer_cert = c->cert;
	*ret = j;
	return 0;
}

void http_jobs_go(struct csm_http *h)
{
	if (h->pushed != NULL)
		csm_workq_go(h->workers, h->pushed);
	h->pushed = NULL;
}

static int push(struct csm_http *h, struct http_job *j)
{
	struct csm_job_kind *kind = j->job.kind;
	int r = csm_workq_push(h->workers, &j->job);

	if (r != 0 || kind == NULL)
		return r;
	if (h->pushed != kind)
		http_jobs_go(h);
	h->pushed = kind;
	http_soon(h);
	return 0;
}

void http_on_request(struct evhttp_request *ev, void *door)
{
	struct http_door *d = door;
	struct http_conn *c = d->h->current;
	struct http_job *j = NULL;
	int r;

	if (c == NULL) {
		evhttp_add_header(evhttp_request_get_output_headers(ev), "Connection", "close");
		evhttp_send_reply(ev, 503, http_reason(503), NULL);
		return;
	}
	if (c->refusal.status == 0) {
		r = job_new(c, ev, &j);
		if (r == 0 && (r = push(d->h, j)) != 0)
			job_free(j);
		if (r == 0) {
			c->job = j;
			return;
		}
		if (r == CSM_EINVALID)
			http_refuse(c, 400, CSM_EINVALID, "the query has a name twice, more than %u of them, or what is not UTF-8", CSM_HTTP_QUERY_MAX);
		else
			http_refuse(c, 503, CSM_EBUSY, "too much work in hand");
	}
	answer_refusal(c, ev);
}

static void finish(struct http_job *j)
{
	struct http_conn *c = j->conn;
	struct csm_http_res *res = &j->res;

	if (res->status < 200 || res->status > 599)
		res->status = 500;
	char method[16];

	snprintf(method, sizeof(method), "%.*s", (int)j->req.method.n, j->req.method.p);
	tell(j->h, &(struct csm_http_done){.door = j->req.door, .peer = j->peer, .method = method, .path = j->req.path,
		.status = c != NULL ? res->status : 0, .error = res->error, .why = res->why, .who = res->who, .route = j->route,
		.us = http_now_us() - j->asked});
	if (c != NULL) {
		c->job = NULL;
		answer(c, j->ev, res);
	} else {
		/* Nobody is there: this only gives the request back. */
		evhttp_send_reply(j->ev, 500, NULL, NULL);
	}
	job_free(j);
}

void http_finish_jobs(struct csm_http *h)
{
	struct http_job *j, *next;

	pthread_mutex_lock(&h->lock);
	j = h->done;
	h->done = NULL;
	pthread_mutex_unlock(&h->lock);
	for (; j != NULL; j = next) {
		next = j->next;
		finish(j);
	}
}
