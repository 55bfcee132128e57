#include "tests/lib/tpm2_tap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MESSAGE_MAX 4096u
#define HEADER 10u

struct relay {
	struct tpm2_tap *tap;
	int client, tpm;
};

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool read_whole(int fd, uint8_t *buf, size_t *len)
{
	ssize_t n = recv(fd, buf, MESSAGE_MAX, 0);

	if (n < (ssize_t)HEADER || be32(buf + 2) != (uint32_t)n)
		return false;
	*len = (size_t)n;
	return true;
}

static bool read_message(int fd, uint8_t *buf, size_t *len)
{
	size_t n;

	if (recv(fd, buf, HEADER, MSG_WAITALL) != (ssize_t)HEADER)
		return false;
	n = be32(buf + 2);
	if (n < HEADER || n > MESSAGE_MAX)
		return false;
	*len = n;
	return n == HEADER || recv(fd, buf + HEADER, n - HEADER, MSG_WAITALL) == (ssize_t)(n - HEADER);
}

static void record(struct tpm2_tap *t, const uint8_t *p, size_t n)
{
	if (t->len + n > t->cap) {
		t->cap = (t->len + n) * 2;
		t->bytes = realloc(t->bytes, t->cap);
		if (t->bytes == NULL)
			abort();
	}
	memcpy(t->bytes + t->len, p, n);
	t->len += n;
}

/* What is to be done to this command, counted down. */
static enum tap_action due(struct tpm2_tap *t, uint32_t command, uint32_t *code, int *offset)
{
	enum tap_action a = TAP_NONE;

	pthread_mutex_lock(&t->lock);
	if (t->command == TAP_ALL || t->command == command) {
		t->seen++;
		if (t->times > 0) {
			t->times--;
			a = t->action;
			*code = t->code;
			*offset = t->offset;
		}
	}
	pthread_mutex_unlock(&t->lock);
	return a;
}

static bool relay_one(struct relay *r)
{
	uint8_t buf[MESSAGE_MAX];
	enum tap_action a;
	uint32_t code = 0;
	int offset = 0;
	size_t len;

	if (!(r->tap->device ? read_whole(r->client, buf, &len) : read_message(r->client, buf, &len)))
		return false;
	pthread_mutex_lock(&r->tap->lock);
	record(r->tap, buf, len);
	pthread_mutex_unlock(&r->tap->lock);
	a = due(r->tap, be32(buf + 6), &code, &offset);
	if (a == TAP_ANSWER) {
		const uint8_t answer[HEADER] = {0x80, 0x01, 0, 0, 0, HEADER, (uint8_t)(code >> 24),
			(uint8_t)(code >> 16), (uint8_t)(code >> 8), (uint8_t)code};

		return send(r->client, answer, HEADER, MSG_NOSIGNAL) == (ssize_t)HEADER;
	}
	if (send(r->tpm, buf, len, MSG_NOSIGNAL) != (ssize_t)len || !read_message(r->tpm, buf, &len))
		return false;
	if (a == TAP_LOSE)
		return false;
	pthread_mutex_lock(&r->tap->lock);
	record(r->tap, buf, len);
	pthread_mutex_unlock(&r->tap->lock);
	if (a == TAP_FLIP)
		buf[offset >= 0 ? (size_t)offset : len - (size_t)-offset] ^= 4;
	return send(r->client, buf, len, MSG_NOSIGNAL) == (ssize_t)len;
}

static void *relay_main(void *arg)
{
	struct relay *r = arg;

	while (relay_one(r))
		continue;
	close(r->client);
	close(r->tpm);
	free(r);
	return NULL;
}

static int tap_device(struct swtpm_host *h)
{
	struct tpm2_tap *t = h->arg;
	struct relay *r = calloc(1, sizeof(*r));
	int sv[2];

	if (r == NULL || t->nthreads == sizeof(t->threads) / sizeof(t->threads[0]))
		abort();
	if ((r->tpm = swtpm_connect(t->tpm)) < 0) {
		free(r);
		return -1;
	}
	if (socketpair(AF_UNIX, (t->device ? SOCK_SEQPACKET : SOCK_STREAM) | SOCK_CLOEXEC, 0, sv) != 0)
		abort();
	r->tap = t;
	r->client = sv[1];
	if (pthread_create(&t->threads[t->nthreads++], NULL, relay_main, r) != 0)
		abort();
	return sv[0];
}

void tpm2_tap_start(struct tpm2_tap *t, struct swtpm_host *h)
{
	memset(t, 0, sizeof(*t));
	pthread_mutex_init(&t->lock, NULL);
	t->tpm = h->tpm;
	h->arg = t;
	h->device = tap_device;
}

void tpm2_tap_stop(struct tpm2_tap *t)
{
	for (unsigned i = 0; i < t->nthreads; i++)
		pthread_join(t->threads[i], NULL);
	free(t->bytes);
	pthread_mutex_destroy(&t->lock);
}

void tpm2_tap_set(struct tpm2_tap *t, enum tap_action action, uint32_t command, unsigned times, uint32_t code, int offset)
{
	pthread_mutex_lock(&t->lock);
	t->action = action;
	t->command = command;
	t->times = times;
	t->code = code;
	t->offset = offset;
	t->seen = 0;
	pthread_mutex_unlock(&t->lock);
}

unsigned tpm2_tap_seen(struct tpm2_tap *t)
{
	unsigned n;

	pthread_mutex_lock(&t->lock);
	n = t->seen;
	pthread_mutex_unlock(&t->lock);
	return n;
}

bool tpm2_tap_has(struct tpm2_tap *t, const void *p, size_t n)
{
	bool has;

	pthread_mutex_lock(&t->lock);
	has = t->len >= n && memmem(t->bytes, t->len, p, n) != NULL;
	pthread_mutex_unlock(&t->lock);
	return has;
}
