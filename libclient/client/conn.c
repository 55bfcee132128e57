/* One connection to the daemon: made, checked, used for one exchange at a time. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include "libclient/client/internal.h"

#define OVERFLOW_UID 65534u
#define READ_MIN 2048u
#define WAIT_SLACK_MS 5u
#define QUIET_NS (10u * 1000000u)

void conn_close(struct conn *conn)
{
	if (conn->fd >= 0)
		(void)close(conn->fd);
	conn->fd = -1;
}

bool conn_same_identity(const struct conn *conn)
{
	return conn->euid == geteuid() && conn->egid == getegid();
}

bool conn_mine(const struct conn *conn)
{
	return conn->pid == getpid() && conn_same_identity(conn);
}

bool conn_quiet(const struct conn *conn)
{
	uint8_t byte;

	if (client_now() - conn->used < QUIET_NS)
		return true;
	return recv(conn->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

/* SO_PEERCRED tells who made the listening socket. */
static int check_listener(int fd, const struct settings *set)
{
	struct ucred cred;
	socklen_t n = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) != 0 || n != sizeof(cred))
		return client_err_errno(CSM_ESYSTEM, "SO_PEERCRED");
	if (cred.uid == OVERFLOW_UID && set->trust_overflow)
		return 0;
	if (cred.uid != OVERFLOW_UID && (cred.uid == 0 || cred.uid == geteuid() || cred.uid == set->trust_uid))
		return 0;
	return client_err(CSM_EUNTRUSTED, "%s: the socket belongs to uid %u, which is not trusted", set->addr.sun_path,
		(unsigned)cred.uid);
}

static int socket_new(struct conn *conn, int flags)
{
	*conn = (struct conn){.pid = getpid(), .euid = geteuid(), .egid = getegid()};
	conn->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
	return conn->fd >= 0 ? 0 : client_err_errno(CSM_ESYSTEM, "socket");
}

static int connect_error(const struct settings *set)
{
	if (errno == EACCES || errno == EPERM)
		return client_err_errno(CSM_EDENIED, set->addr.sun_path);
	if (errno == ENOENT || errno == ECONNREFUSED || errno == ENOTDIR)
		return client_err_errno(CSM_EUNREACHABLE, set->addr.sun_path);
	return client_err_errno(CSM_ESYSTEM, set->addr.sun_path);
}

/* The listener's queue may be full: a blocking connect waits for room, as long as SO_SNDTIMEO says. */
static int connect_by(int fd, const struct settings *set, deadline_t d)
{
	for (;;) {
		int left = client_left_ms(d);
		struct timeval tv = {.tv_sec = left / 1000, .tv_usec = left % 1000 * 1000};

		if (left == 0)
			return client_err(CSM_ETIMEOUT, "%s: no connection within the deadline", set->addr.sun_path);
		if (left < 0)
			tv = (struct timeval){0};
		if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) != 0)
			return client_err_errno(CSM_ESYSTEM, "SO_SNDTIMEO");
		if (connect(fd, (const struct sockaddr *)&set->addr, sizeof(set->addr)) == 0)
			return 0;
		if (errno != EINTR && errno != EAGAIN)
			return connect_error(set);
	}
}

/* How long a plain recv waits. */
static int set_wait(struct conn *conn, uint32_t ms)
{
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

	if (setsockopt(conn->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) != 0)
		return client_err_errno(CSM_ESYSTEM, "SO_RCVTIMEO");
	conn->wait_ms = ms;
	return 0;
}

int conn_open(struct conn *conn, const struct settings *set, deadline_t d)
{
	int r = socket_new(conn, 0);

	if (r != 0)
		return r;
	r = connect_by(conn->fd, set, d);
	if (r == 0)
		r = check_listener(conn->fd, set);
	if (r == 0)
		r = set_wait(conn, set->timeout_ms);
	if (r != 0)
		conn_close(conn);
	return r;
}

int conn_open_nonblock(struct conn *conn, const struct settings *set)
{
	int r = socket_new(conn, SOCK_NONBLOCK);

	if (r != 0)
		return r;
	do
		r = connect(conn->fd, (const struct sockaddr *)&set->addr, sizeof(set->addr));
	while (r != 0 && errno == EINTR);
	if (r != 0)
		r = errno == EAGAIN ? client_err_plain(CSM_EBUSY) : connect_error(set);
	else
		r = check_listener(conn->fd, set);
	if (r != 0)
		conn_close(conn);
	return r;
}

static int wait_for(int fd, short events, deadline_t d)
{
	struct pollfd p = {.fd = fd, .events = events};

	for (;;) {
		int left = client_left_ms(d);
		int n = left == 0 ? 0 : poll(&p, 1, left);

		if (n > 0)
			return 0;
		if (left == 0)
			return client_err(CSM_ETIMEOUT, "no answer within the deadline");
		if (n < 0 && errno != EINTR)
			return client_err_errno(CSM_ESYSTEM, "poll");
	}
}

static bool would_block(void)
{
	return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

/* A daemon that refuses a request may answer and close before it has read all: CSM_ECLOSED
 * then, and its answer may be there to read. */
static int send_all(int fd, struct csm_buf *out, deadline_t d)
{
	int r;

	while (out->len > 0) {
		ssize_t n = send(fd, csm_buf_ptr(out), out->len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n > 0) {
			csm_buf_consume(out, (size_t)n);
			continue;
		}
		if (n < 0 && !would_block())
			return client_err_errno(CSM_ECLOSED, "send");
		r = wait_for(fd, POLLOUT, d);
		if (r != 0)
			return r;
	}
	return 0;
}

/* While all of the call's time is left, the kernel can do the waiting: one system call, not three. */
static bool may_wait(const struct conn *conn, deadline_t d)
{
	int left = client_left_ms(d);

	return left < 0 ? conn->wait_ms == 0 : (uint32_t)left + WAIT_SLACK_MS >= conn->wait_ms && conn->wait_ms != 0;
}

/* One read of up to what is needed, at least READ_MIN; CSM_ECLOSED at the end of the stream. */
static int recv_some(const struct conn *conn, struct csm_buf *in, size_t need, deadline_t d)
{
	size_t want = need > in->len + READ_MIN ? need - in->len : READ_MIN;
	int flags = may_wait(conn, d) ? 0 : MSG_DONTWAIT;
	uint8_t *to;
	int r = csm_buf_reserve(in, want, &to);

	if (r != 0)
		return client_err_plain(r);
	for (;;) {
		ssize_t n = recv(conn->fd, to, want, flags);

		if (n > 0) {
			csm_buf_commit(in, (size_t)n);
			return 0;
		}
		if (n == 0)
			return client_err(CSM_ECLOSED, "the daemon closed the connection");
		if (!would_block())
			return client_err_errno(CSM_ECLOSED, "receive");
		flags = MSG_DONTWAIT;
		r = wait_for(conn->fd, POLLIN, d);
		if (r != 0)
			return r;
	}
}

static int recv_message(const struct conn *conn, struct csm_buf *in, deadline_t d)
{
	size_t need = 1;
	int r;

	do {
		while (in->len < need) {
			r = recv_some(conn, in, need, d);
			if (r != 0)
				return r;
		}
		r = csm_scan(csm_buf_ptr(in), in->len, &need);
	} while (r == CSM_EBUSY);
	/* one request was asked, so one answer comes: more is as wrong as less */
	if (r != 0 || in->len != need)
		return client_err(CSM_EPROTOCOL, "the daemon's answer cannot be read");
	return 0;
}

int conn_exchange(struct conn *conn, struct csm_buf *out, struct csm_buf *in, deadline_t d)
{
	int sent = send_all(conn->fd, out, d);
	int r = sent;

	if (sent == 0 || sent == CSM_ECLOSED)
		r = recv_message(conn, in, d);
	conn->used = client_now();
	return r;
}
