#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include "plugins/remote/channel.h"

#define CHUNK 4096u
#define KEEP_MAX (64u * 1024u) /* a buffer that a long message has made larger is given back */
#define POOL_MAX 4096u

const struct csm_plug_row csm_plug_rows[CSM_PLUG__COUNT] = {
#define X(sym, text, req, res) [CSM_PLUG_##sym] = {text, CSM_DEF(req), CSM_DEF(res)},
#include "proto-spec/plughost.def"
#undef X
};

enum csm_plug_method csm_plug_find(struct csm_str name)
{
	size_t i = 0;

	while (i < CSM_PLUG__COUNT && !csm_str_eq(name, csm_plug_rows[i].name))
		i++;
	return (enum csm_plug_method)i;
}

static bool is_notification(enum csm_plug_method what)
{
	return csm_plug_rows[what].response == CSM_DEF(empty);
}

int64_t csm_channel_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void csm_channel_init(struct csm_channel *c, int fd)
{
	*c = (struct csm_channel){.fd = fd};
	csm_buf_init_message(&c->in, CSM_MESSAGE_MAX + CHUNK);
	csm_buf_init_message(&c->out, CSM_MESSAGE_MAX);
	csm_pool_init(&c->pool, POOL_MAX);
	csm_scanner_init(&c->scanner);
}

void csm_channel_free(struct csm_channel *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	csm_buf_free(&c->in);
	csm_buf_free(&c->out);
	csm_pool_free(&c->pool);
}

/* The message that was given out last is done with. */
static void drop_taken(struct csm_channel *c)
{
	if (c->taken > 0)
		csm_scanner_init(&c->scanner);
	csm_buf_consume(&c->in, c->taken);
	c->taken = 0;
	csm_pool_reset(&c->pool);
	if (c->in.len == 0 && c->in.cap > KEEP_MAX)
		csm_buf_free(&c->in);
}

bool csm_channel_quiet(const struct csm_channel *c)
{
	return c->in.len == c->taken;
}

int csm_channel_idle(const struct csm_channel *c)
{
	uint8_t one;
	ssize_t n;

	if (!csm_channel_quiet(c))
		return CSM_EPROTOCOL;
	n = recv(c->fd, &one, 1, MSG_PEEK | MSG_DONTWAIT);
	if (n >= 0)
		return n == 0 ? CSM_ECLOSED : CSM_EPROTOCOL;
	return errno == EAGAIN ? 0 : errno == ECONNRESET ? CSM_ECLOSED : CSM_ESYSTEM;
}

/* How long the kernel waits; set only where it changes. A deadline far away may be met in several waits. */
static int set_wait(struct csm_channel *c, int64_t deadline_ms)
{
	struct timeval t;
	int64_t left = deadline_ms == 0 ? 0 : deadline_ms - csm_channel_now_ms();

	if (deadline_ms != 0 && left <= 0)
		return CSM_ETIMEOUT;
	/* A tenth more or less is not worth a system call. */
	if (c->recv_ms >= left - left / 10 && c->recv_ms <= left + left / 10)
		return 0;
	t = (struct timeval){.tv_sec = left / 1000, .tv_usec = left % 1000 * 1000};
	if (setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)) != 0)
		return CSM_ESYSTEM;
	c->recv_ms = left;
	return 0;
}

/* One descriptor at most; more are closed, so that nobody fills our table. */
static void take_passed(struct msghdr *m, int *passed)
{
	for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h != NULL; h = CMSG_NXTHDR(m, h)) {
		size_t n = h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS ?
			(h->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;

		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(int));
			if (*passed < 0)
				*passed = fd;
			else
				close(fd);
		}
	}
}

/* Some bytes more. Without `passed` no descriptor can arrive: the kernel drops what finds no room. */
static int receive(struct csm_channel *c, size_t want, int flags, int *passed)
{
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(4 * sizeof(int))];
	} control;
	struct iovec iov = {.iov_len = want > CHUNK ? want : CHUNK};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	uint8_t *to;
	ssize_t n;
	int r = csm_buf_reserve(&c->in, iov.iov_len, &to);

	if (r != 0)
		return r;
	iov.iov_base = to;
	if (passed != NULL) {
		m.msg_control = &control;
		m.msg_controllen = sizeof(control);
	}
	n = recvmsg(c->fd, &m, flags | MSG_CMSG_CLOEXEC);
	if (n < 0)
		return errno == EINTR ? 0 : errno == EAGAIN ? CSM_EBUSY : errno == ECONNRESET ? CSM_ECLOSED : CSM_ESYSTEM;
	if (passed != NULL)
		take_passed(&m, passed);
	if (n == 0)
		return CSM_ECLOSED;
	csm_buf_commit(&c->in, (size_t)n);
	return 0;
}

/* What is there, if it is a whole message; CSM_EBUSY and how many bytes more, if not. */
static int next_message(struct csm_channel *c, struct csm_frame *ret, size_t *want)
{
	size_t n = 0;
	int r;

	*want = CHUNK;
	if (c->in.len == 0)
		return CSM_EBUSY;
	r = csm_scanner_run(&c->scanner, csm_buf_ptr(&c->in), c->in.len, &n);
	if (r == CSM_EBUSY)
		*want = n > c->in.len ? n - c->in.len : 1;
	if (r != 0)
		return r == CSM_EBUSY ? r : CSM_EPROTOCOL;
	if (csm_frame_parse(csm_buf_ptr(&c->in), n, ret) != 0)
		return CSM_EPROTOCOL;
	c->taken = n;
	return 0;
}

int csm_channel_recv(struct csm_channel *c, int64_t deadline_ms, struct csm_frame *ret, int *passed)
{
	size_t want;
	int r;

	drop_taken(c);
	while ((r = next_message(c, ret, &want)) == CSM_EBUSY) {
		if ((r = set_wait(c, deadline_ms)) != 0)
			return r;
		r = receive(c, want, 0, passed);
		if (r != 0 && r != CSM_EBUSY)
			return r;
	}
	return r;
}

int csm_channel_poll(struct csm_channel *c, struct csm_frame *ret)
{
	size_t want;
	int r;

	drop_taken(c);
	while ((r = next_message(c, ret, &want)) == CSM_EBUSY)
		if ((r = receive(c, want, MSG_DONTWAIT, NULL)) != 0)
			return r;
	return r;
}

static ssize_t send_some(struct csm_channel *c, int pass_fd, int flags)
{
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = (void *)(uintptr_t)csm_buf_ptr(&c->out), .iov_len = c->out.len};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	if (pass_fd < 0)
		return send(c->fd, iov.iov_base, iov.iov_len, flags | MSG_NOSIGNAL);
	memset(&control, 0, sizeof(control));
	m.msg_control = &control;
	m.msg_controllen = sizeof(control);
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(h), &pass_fd, sizeof(int));
	return sendmsg(c->fd, &m, flags | MSG_NOSIGNAL);
}

int csm_channel_send(struct csm_channel *c, int64_t deadline_ms, int pass_fd)
{
	int flags = deadline_ms == CSM_CHANNEL_NO_WAIT ? MSG_DONTWAIT : 0, r = 0;

	while (r == 0 && c->out.len > 0) {
		ssize_t n = send_some(c, pass_fd, flags);

		if (n > 0) {
			csm_buf_consume(&c->out, (size_t)n);
			pass_fd = -1;
		} else if (n < 0 && errno == EAGAIN) {
			/* Or SO_SNDTIMEO of whoever made the channel is over: the other side does not read. */
			r = deadline_ms != 0 && csm_channel_now_ms() >= deadline_ms ? CSM_ETIMEOUT : 0;
		} else if (n < 0 && errno != EINTR) {
			r = errno == EPIPE || errno == ECONNRESET ? CSM_ECLOSED : CSM_ESYSTEM;
		}
	}
	if (r != 0 || c->out.cap > KEEP_MAX)
		csm_buf_free(&c->out);
	return r;
}

int csm_channel_put(struct csm_channel *c, enum csm_plug_method what, const void *params, uint32_t *msgid)
{
	const struct csm_plug_row *row = &csm_plug_rows[what];

	if (is_notification(what))
		return csm_frame_notify(&c->out, row->name, row->request, params);
	*msgid = ++c->next_msgid;
	return csm_frame_request(&c->out, *msgid, row->name, row->request, params);
}

int csm_channel_decode(struct csm_channel *c, const struct csm_msgdef *def, struct csm_bin body, void *ret)
{
	struct csm_str bad;
	int r;

	csm_pool_reset(&c->pool);
	r = csm_msg_decode(def, body, CSM_UNKNOWN_REFUSE, &c->pool, ret, &bad);
	return r == 0 || r == CSM_ENOMEM ? r : CSM_EPROTOCOL;
}

int csm_channel_error(struct csm_channel *c, struct csm_bin body)
{
	struct csm_msg_error e;
	int r = csm_channel_decode(c, CSM_DEF(error), body, &e);

	if (r != 0)
		return r;
	if (e.code.v == 0 || e.code.v > INT32_MAX || strcmp(csm_err_name((int)e.code.v), "unknown") == 0)
		return CSM_EPROTOCOL;
	return (int)e.code.v;
}
