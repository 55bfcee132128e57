/* Calls from within an ASYNC_JOB: the job is paused until csmd has answered, and its thread does something else.
 *
 * A job has a connection for itself while it waits; connections that are not in use are kept. What the program waits
 * for is an epoll descriptor, which stays the same while the connection's own may change, and which a timer makes
 * ready, too. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <openssl/async.h>
#include "libclient/provider/provider.h"

struct async_conn {
	struct csm_async *a;
	pid_t pid;
	int epoll, timer;
	int watched; /* the descriptor in epoll, -1: none */
	/* of the call in progress */
	bool done;
	int error;
	struct csm_reply *reply;
};

bool async_wanted(void)
{
	return ASYNC_get_current_job() != NULL;
}

/* ---- connections ---- */

/* In a child the connection and what epoll watches are the parent's: its copies are closed, and nothing else. */
static void conn_free(struct async_conn *c)
{
	if (c == NULL)
		return;
	csm_async_free(c->a);
	if (c->epoll >= 0)
		(void)close(c->epoll);
	if (c->timer >= 0)
		(void)close(c->timer);
	free(c);
}

static int conn_new(struct prov *p, struct async_conn **ret)
{
	struct epoll_event timer = {.events = EPOLLIN};
	struct async_conn *c = calloc(1, sizeof(*c));
	int r = CSM_ESYSTEM;

	if (c == NULL)
		return CSM_ENOMEM;
	c->pid = getpid();
	c->watched = -1;
	c->epoll = epoll_create1(EPOLL_CLOEXEC);
	c->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (c->epoll >= 0 && c->timer >= 0 && epoll_ctl(c->epoll, EPOLL_CTL_ADD, c->timer, &timer) == 0)
		r = csm_async_new(p->csm, &c->a);
	if (r != 0) {
		conn_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

static int conn_take(struct prov *p, struct async_conn **ret)
{
	size_t i;

	for (i = 0; i < PROV_ASYNC_KEPT; i++) {
		struct async_conn *c = atomic_exchange(&p->async[i], NULL);

		if (c != NULL && c->pid == getpid()) {
			*ret = c;
			return 0;
		}
		conn_free(c);
	}
	return conn_new(p, ret);
}

static void conn_give(struct prov *p, struct async_conn *c)
{
	size_t i;

	for (i = 0; i < PROV_ASYNC_KEPT; i++) {
		struct async_conn *none = NULL;

		if (atomic_compare_exchange_strong(&p->async[i], &none, c))
			return;
	}
	conn_free(c);
}

void async_end(struct prov *p)
{
	size_t i;

	for (i = 0; i < PROV_ASYNC_KEPT; i++)
		conn_free(atomic_exchange(&p->async[i], NULL));
}

/* ---- a call ---- */

static void answered(void *arg, int error, struct csm_reply *reply)
{
	struct async_conn *c = arg;

	c->done = true;
	c->error = error;
	c->reply = reply;
}

/* Let epoll watch what the connection waits for now. */
static int watch(struct async_conn *c)
{
	int fd = csm_fd(c->a), ms = csm_timeout_ms(c->a);
	struct itimerspec t = {0};
	struct epoll_event ev = {
		.events = ((csm_events(c->a) & POLLIN) != 0 ? EPOLLIN : 0u) | ((csm_events(c->a) & POLLOUT) != 0 ? EPOLLOUT : 0u),
	};

	/* A descriptor that was closed has gone from epoll by itself; its number may be another's already. */
	if (c->watched >= 0 && c->watched != fd)
		(void)epoll_ctl(c->epoll, EPOLL_CTL_DEL, c->watched, NULL);
	c->watched = fd;
	if (fd >= 0 && epoll_ctl(c->epoll, EPOLL_CTL_MOD, fd, &ev) != 0 && epoll_ctl(c->epoll, EPOLL_CTL_ADD, fd, &ev) != 0)
		return CSM_ESYSTEM;
	if (ms >= 0) {
		t.it_value.tv_sec = ms / 1000;
		t.it_value.tv_nsec = ms > 0 ? ms % 1000 * 1000000L : 1;
	}
	return timerfd_settime(c->timer, 0, &t, NULL) == 0 ? 0 : CSM_ESYSTEM;
}

/* Until something has happened on the connection. Where jobs may not be paused, or are resumed for another reason, this
 * thread waits a little itself. */
static int pause_job(struct async_conn *c)
{
	struct pollfd fd = {.fd = c->epoll, .events = POLLIN};

	if (ASYNC_pause_job() == 0)
		return CSM_EINTERNAL;
	return poll(&fd, 1, 1) < 0 && errno != EINTR ? CSM_ESYSTEM : 0;
}

/* The job was given up while it was paused: nobody else frees what it has. */
static void given_up(ASYNC_WAIT_CTX *ctx, const void *key, OSSL_ASYNC_FD fd, void *arg)
{
	(void)ctx;
	(void)key;
	(void)fd;
	conn_free(arg);
}

static int wait_answer(struct async_conn *c)
{
	ASYNC_WAIT_CTX *wait = ASYNC_get_wait_ctx(ASYNC_get_current_job());
	int r = 0;

	if (wait == NULL || !ASYNC_WAIT_CTX_set_wait_fd(wait, c, c->epoll, c, given_up))
		return CSM_EINTERNAL;
	while (r == 0 && !c->done) {
		(void)csm_process(c->a); /* its error is also told to the request */
		if (c->done)
			break;
		r = watch(c);
		if (r == 0)
			r = pause_job(c);
	}
	(void)ASYNC_WAIT_CTX_clear_fd(wait, c);
	return r;
}

int async_call(struct prov *p, const struct csm_request *req, struct csm_reply **ret)
{
	struct async_conn *c = NULL;
	int r = conn_take(p, &c);

	if (r != 0)
		return r;
	c->done = false;
	c->error = 0;
	c->reply = NULL;
	r = csm_submit(c->a, req, 0, answered, c);
	if (r == 0)
		r = wait_answer(c);
	if (r == 0 && c->error == 0)
		*ret = c->reply;
	if (r == 0) {
		r = c->error;
		conn_give(p, c);
	} else {
		conn_free(c);
	}
	return r;
}
