#include "plugins/tpm2/tcti.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <tss2/tss2_tpm2_types.h>

#define TCTI_MAGIC 0x63736d2d74706d32ULL
#define HEADER_LEN 10u
#define RESEND_PAUSE_MS 5
#define RESEND_PAUSE_MAX_MS 100

uint64_t t2_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void t2_pause_ms(int ms)
{
	(void)poll(NULL, 0, ms);
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

void t2_tcti_drop(struct t2_tcti *t)
{
	if (t->fd >= 0)
		close(t->fd);
	t->fd = -1;
}

void t2_tcti_release(struct t2_tcti *t, uint64_t min_ms)
{
	if (t->stream && !t->keep && t->fd >= 0 && t2_now_ms() - t->taken_ms >= min_ms)
		t2_tcti_drop(t);
}

/* Wait until fd is ready for events; false when the time is over or the descriptor is broken. */
static bool wait_for(int fd, short events, uint64_t deadline)
{
	struct pollfd p = {.fd = fd, .events = events};
	uint64_t now;
	int n;

	do {
		now = t2_now_ms();
		if (now > deadline)
			return false;
		n = poll(&p, 1, deadline - now > 60000 ? 60000 : (int)(deadline - now) + 1);
	} while (n == 0 || (n < 0 && errno == EINTR));
	return n > 0 && (p.revents & (events | POLLHUP)) != 0;
}

static ssize_t send_some(struct t2_tcti *t, const uint8_t *p, size_t n)
{
	struct iovec iov = {(void *)(uintptr_t)p, n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	return t->stream ? sendmsg(t->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) : write(t->fd, p, n);
}

static TSS2_RC send_all(struct t2_tcti *t, uint64_t deadline)
{
	size_t done = 0;
	ssize_t n;

	t->commands++;
	while (done < t->cmd_len) {
		n = send_some(t, t->cmd + done, t->cmd_len - done);
		if (n > 0)
			done += (size_t)n;
		else if (n < 0 && (errno == EAGAIN || errno == EBUSY)) {
			if (!wait_for(t->fd, POLLOUT, deadline))
				return TSS2_TCTI_RC_IO_ERROR;
		} else if (n == 0 || errno != EINTR)
			return TSS2_TCTI_RC_IO_ERROR;
	}
	return TSS2_RC_SUCCESS;
}

/* One whole response into t->rsp. */
static TSS2_RC receive_all(struct t2_tcti *t, uint64_t deadline, size_t *ret)
{
	size_t have = 0, want = HEADER_LEN;
	ssize_t n;

	while (have < want) {
		if (!wait_for(t->fd, POLLIN, deadline))
			return TSS2_TCTI_RC_TRY_AGAIN;
		/* A device gives a whole response to one read, and nothing to a second one. */
		n = read(t->fd, t->rsp + have, (t->stream ? want : sizeof(t->rsp)) - have);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0)
			return TSS2_TCTI_RC_IO_ERROR;
		have += (size_t)n;
		if (have < HEADER_LEN)
			continue;
		want = be32(t->rsp + 2);
		if (want < HEADER_LEN || want > sizeof(t->rsp) || want < have)
			return TSS2_TCTI_RC_MALFORMED_RESPONSE;
	}
	*ret = have;
	return TSS2_RC_SUCCESS;
}

static bool wants_resend(const uint8_t *rsp)
{
	uint32_t rc = be32(rsp + 6);

	return rc == TPM2_RC_RETRY || rc == TPM2_RC_TESTING || rc == TPM2_RC_YIELDED;
}

static TSS2_RC tcti_transmit(TSS2_TCTI_CONTEXT *context, size_t size, const uint8_t *command)
{
	struct t2_tcti *t = (struct t2_tcti *)context;

	if (size > sizeof(t->cmd))
		return TSS2_TCTI_RC_BAD_VALUE;
	memcpy(t->cmd, command, size);
	t->cmd_len = size;
	if (t->fd < 0) {
		if ((t->fd = t->host->device(t->host->arg)) < 0)
			return TSS2_TCTI_RC_IO_ERROR;
		t->taken_ms = t2_now_ms();
		t->connects++;
	}
	if (send_all(t, t2_now_ms() + 5000) != TSS2_RC_SUCCESS) {
		t2_tcti_drop(t);
		return TSS2_TCTI_RC_IO_ERROR;
	}
	return TSS2_RC_SUCCESS;
}

static TSS2_RC tcti_receive(TSS2_TCTI_CONTEXT *context, size_t *size, uint8_t *response, int32_t timeout)
{
	struct t2_tcti *t = (struct t2_tcti *)context;
	uint64_t deadline = timeout < 0 ? UINT64_MAX : t2_now_ms() + (uint64_t)timeout;
	int pause = RESEND_PAUSE_MS;
	TSS2_RC rc;
	size_t len = 0;

	if (response == NULL) {
		*size = sizeof(t->rsp);
		return TSS2_RC_SUCCESS;
	}
	if (t->fd < 0)
		return TSS2_TCTI_RC_IO_ERROR;
	while ((rc = receive_all(t, deadline, &len)) == TSS2_RC_SUCCESS && wants_resend(t->rsp)) {
		if (t2_now_ms() + (uint64_t)pause > deadline)
			break; /* the caller gets the TPM's own code */
		t2_pause_ms(pause);
		pause = pause * 2 > RESEND_PAUSE_MAX_MS ? RESEND_PAUSE_MAX_MS : pause * 2;
		if ((rc = send_all(t, deadline)) != TSS2_RC_SUCCESS)
			break;
	}
	if (rc == TSS2_RC_SUCCESS && len > *size)
		rc = TSS2_TCTI_RC_INSUFFICIENT_BUFFER;
	if (rc != TSS2_RC_SUCCESS) {
		t2_tcti_drop(t);
		return rc;
	}
	memcpy(response, t->rsp, len);
	*size = len;
	return TSS2_RC_SUCCESS;
}

static void tcti_finalize(TSS2_TCTI_CONTEXT *context)
{
	t2_tcti_drop((struct t2_tcti *)context);
}

void t2_tcti_init(struct t2_tcti *t, const struct csm_plugin_host *host, bool stream)
{
	memset(t, 0, sizeof(*t));
	t->common.v1.magic = TCTI_MAGIC;
	t->common.v1.version = 2;
	t->common.v1.transmit = tcti_transmit;
	t->common.v1.receive = tcti_receive;
	t->common.v1.finalize = tcti_finalize;
	t->host = host;
	t->stream = stream;
	t->fd = -1;
}
