#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "daemon/svc/http_int.h"
#include "daemon/svc/thread.h"

#define TICK_MS 100
#define PAUSE_WITHOUT_DESCRIPTORS 1

uint64_t http_now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

uint64_t http_now_ms(void)
{
	return http_now_us() / 1000;
}

void http_soon(struct csm_http *h)
{
	event_active(h->soon, EV_TIMEOUT, 0);
}

static void on_soon(evutil_socket_t fd, short what, void *arg)
{
	struct csm_http *h = arg;

	(void)fd;
	(void)what;
	http_look_at_fresh(h);
	http_go_on(h);
	http_bury(h);
	http_jobs_go(h);
}

/* ---- stopping ---- */

static void close_listeners(struct csm_http *h)
{
	for (unsigned i = 0; i < HTTP_DOORS; i++) {
		struct http_door *d = &h->door[i];

		if (d->bound != NULL)
			evhttp_del_accept_socket(d->evhttp, d->bound);
		d->bound = NULL;
		d->listener = NULL;
	}
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct csm_http *h = arg;
	uint64_t stop_at;

	(void)fd;
	(void)what;
	pthread_mutex_lock(&h->lock);
	stop_at = h->stop_at;
	if (h->stop && !h->stopping) {
		h->stopping = true;
		pthread_mutex_unlock(&h->lock);
		close_listeners(h);
	} else {
		pthread_mutex_unlock(&h->lock);
	}
	http_check_deadlines(h);
	http_bury(h);
	for (unsigned i = 0; i < HTTP_DOORS; i++)
		if (h->door[i].listener != NULL && !h->door[i].paused)
			evconnlistener_enable(h->door[i].listener);
	if (h->stopping && (h->open == NULL || http_now_ms() >= stop_at))
		event_base_loopbreak(h->base);
}

static void on_finished(evutil_socket_t fd, short what, void *arg)
{
	struct csm_http *h = arg;
	uint64_t n;

	(void)what;
	if (read(fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
		return;
	http_finish_jobs(h);
}

static void *serve(void *arg)
{
	struct csm_http *h = arg;

	pthread_setname_np(pthread_self(), "http");
	event_base_loop(h->base, EVLOOP_NO_EXIT_ON_EMPTY);
	return NULL;
}

/* ---- making ---- */

static int open_door(struct csm_http *h, struct http_door *d, enum csm_http_door which, int fd)
{
	int one = 1;

	d->h = h;
	d->door = which;
	if (fd < 0)
		return 0;
	if (which != CSM_HTTP_LOCAL) {
		/* What is accepted has it from here. */
		if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0 ||
			setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one)) != 0)
			return CSM_ESYSTEM;
	}
	d->evhttp = evhttp_new(h->base);
	if (d->evhttp == NULL || evutil_make_socket_nonblocking(fd) != 0)
		return CSM_ESYSTEM;
	evhttp_set_bevcb(d->evhttp, http_accept, d);
	evhttp_set_gencb(d->evhttp, http_on_request, d);
	evhttp_set_default_content_type(d->evhttp, NULL);
	evhttp_set_max_headers_size(d->evhttp, 3 * CSM_HTTP_HEAD_MAX);
	evhttp_set_max_body_size(d->evhttp, CSM_HTTP_BODY_MAX);
	d->listener = evconnlistener_new(h->base, NULL, NULL, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
	if (d->listener == NULL)
		return CSM_ENOMEM;
	d->bound = evhttp_bind_listener(d->evhttp, d->listener);
	if (d->bound == NULL) {
		evconnlistener_free(d->listener);
		d->listener = NULL;
		return CSM_ENOMEM;
	}
	evconnlistener_set_error_cb(d->listener, http_accept_failed);
	return 0;
}

static void set_limits(struct csm_http_limits *l)
{
#define DEFAULT(field, value) l->field = l->field != 0 ? l->field : (value)
	DEFAULT(connections, CSM_HTTP_CONNECTIONS_MAX);
	DEFAULT(connections_per_address, CSM_HTTP_CONNECTIONS_PER_ADDRESS);
	DEFAULT(new_per_address, CSM_HTTP_NEW_PER_ADDRESS);
	DEFAULT(requests_per_address, CSM_HTTP_REQUESTS_PER_ADDRESS);
	DEFAULT(handshake_ms, CSM_HTTP_HANDSHAKE_MS);
	DEFAULT(head_ms, CSM_HTTP_HEAD_MS);
	DEFAULT(body_ms, CSM_HTTP_BODY_MS);
	DEFAULT(idle_ms, CSM_HTTP_IDLE_MS);
	DEFAULT(write_ms, CSM_HTTP_WRITE_MS);
#undef DEFAULT
}

static int make_base(struct csm_http *h)
{
	struct event_config *config = event_config_new();
	const struct timeval tick = {0, TICK_MS * 1000};

	/* What is taken back before the next wait is not told to the kernel: an answer needs no event of its own to be sent. */
	if (config != NULL && event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST) == 0)
		h->base = event_base_new_with_config(config);
	if (config != NULL)
		event_config_free(config);
	if (h->base == NULL)
		return CSM_ENOMEM;
	h->finished_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (h->finished_fd < 0)
		return CSM_ESYSTEM;
	h->soon = event_new(h->base, -1, EV_PERSIST, on_soon, h);
	h->tick = event_new(h->base, -1, EV_PERSIST, on_tick, h);
	h->finished = event_new(h->base, h->finished_fd, EV_READ | EV_PERSIST, on_finished, h);
	if (h->soon == NULL || h->tick == NULL || h->finished == NULL || event_add(h->tick, &tick) != 0 ||
		event_add(h->finished, NULL) != 0)
		return CSM_ENOMEM;
	return 0;
}

int csm_http_new(const struct csm_http_options *opt, struct csm_http **ret)
{
	struct csm_http *h = calloc(1, sizeof(*h));
	int r;

	if (h == NULL)
		return CSM_ENOMEM;
	h->opt = *opt;
	h->finished_fd = -1;
	set_limits(&h->opt.limits);
	pthread_mutex_init(&h->lock, NULL);
	if ((r = csm_rates_new(h->opt.limits.new_per_address, CSM_HTTP_NEW_BURST, &h->new_rates)) != 0 ||
		(r = csm_rates_new(h->opt.limits.requests_per_address, 2 * h->opt.limits.requests_per_address,
			 &h->request_rates)) != 0 ||
		(r = http_kinds_new(h)) != 0 || (r = make_base(h)) != 0 || (r = open_door(h, &h->door[0], CSM_HTTP_TLS, opt->tls_fd)) != 0 ||
		(r = open_door(h, &h->door[1], CSM_HTTP_PLAIN, opt->plain_fd)) != 0 ||
		(r = open_door(h, &h->door[2], CSM_HTTP_LOCAL, opt->local_fd)) != 0) {
		csm_http_free(h, 0);
		return r;
	}
	*ret = h;
	return 0;
}

void csm_http_set_tls(struct csm_http *h, SSL_CTX *ctx)
{
	static const unsigned char context[] = "csm";

	SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_num_tickets(ctx, 0);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	if (SSL_CTX_set_session_id_context(ctx, context, sizeof(context) - 1) != 1)
		return;
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	pthread_mutex_lock(&h->lock);
	SSL_CTX_free(h->tls);
	h->tls = ctx;
	pthread_mutex_unlock(&h->lock);
}

int csm_http_start(struct csm_http *h)
{
	const struct csm_workq_options work = {.name = "http-worker", .threads = h->opt.workers > 0 ? h->opt.workers : 1,
		.max = CSM_HTTP_QUEUE_MAX, .max_per_user = CSM_HTTP_QUEUE_PER_CALLER};
	int r = csm_workq_new(&work, &h->workers);

	if (r == 0 && (r = csm_thread_start(&h->thread, serve, h)) == 0)
		h->started = true;
	return r;
}

void csm_http_stats(struct csm_http *h, struct csm_http_stats *ret)
{
	*ret = (struct csm_http_stats){.connections = atomic_load(&h->n_connections), .refused = atomic_load(&h->n_refused),
		.failed_handshakes = atomic_load(&h->n_failed_handshakes), .requests = atomic_load(&h->n_requests),
		.busy = atomic_load(&h->n_busy), .open = atomic_load(&h->n_open_told),
		.queued = h->workers != NULL ? (unsigned)csm_workq_depth(h->workers) : 0};
}

static void free_events(struct csm_http *h)
{
	struct event *const all[] = {h->soon, h->tick, h->finished};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (all[i] != NULL)
			event_free(all[i]);
	if (h->base != NULL)
		event_base_free(h->base);
	if (h->finished_fd >= 0)
		close(h->finished_fd);
}

void csm_http_free(struct csm_http *h, unsigned wait_ms)
{
	struct http_conn *c, *next;

	if (h == NULL)
		return;
	if (h->started) {
		pthread_mutex_lock(&h->lock);
		h->stop_at = http_now_ms() + wait_ms;
		h->stop = true;
		pthread_mutex_unlock(&h->lock);
		pthread_join(h->thread, NULL);
	}
	h->stopping = true;
	csm_workq_free(h->workers);
	if (h->base != NULL)
		http_finish_jobs(h);
	close_listeners(h);
	http_look_at_fresh(h);
	for (c = h->open; c != NULL; c = next) {
		next = c->next;
		http_conn_close(c);
	}
	http_go_on(h);
	for (unsigned i = 0; i < HTTP_DOORS; i++)
		if (h->door[i].evhttp != NULL)
			evhttp_free(h->door[i].evhttp);
	http_bury(h);
	free_events(h);
	SSL_CTX_free(h->tls);
	csm_rates_free(h->new_rates);
	csm_rates_free(h->request_rates);
	free(h->kinds);
	pthread_mutex_destroy(&h->lock);
	free(h);
}
