/* What others do on a Unix socket: Redis, bare servers of 64 bytes in and 96 out, ssh-agent. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tests/bench/gen/gen.h"

#define FIXED_IN 64u
#define FIXED_OUT 96u

static int exchange(const struct target *t, const void *out, size_t n, uint8_t *in, size_t cap, size_t want)
{
	int fd = gen_connect(t->socket);
	size_t have = 0;

	if (fd < 0)
		return CSM_EUNREACHABLE;
	if (send(fd, out, n, MSG_NOSIGNAL) == (ssize_t)n)
		while (have < want) {
			ssize_t got = recv(fd, in + have, cap - have, 0);

			if (got <= 0)
				break;
			have += (size_t)got;
		}
	close(fd);
	return have >= want ? 0 : CSM_ECLOSED;
}

/* ---- Redis ---- */

static int put_set(struct csm_buf *out, const char *key, unsigned value_of)
{
	uint8_t value[GEN_VALUE_LEN];
	char head[96];
	int n = snprintf(
		head, sizeof(head), "*3\r\n$3\r\nSET\r\n$%zu\r\n%s\r\n$%u\r\n", strlen(key), key, GEN_VALUE_LEN);
	int r = csm_buf_put(out, head, (size_t)n);

	gen_value(value_of, value);
	if (r == 0)
		r = csm_buf_put(out, value, sizeof(value));
	return r != 0 ? r : csm_buf_put(out, "\r\n", 2);
}

static int redis_prepare(struct target *t)
{
	static uint8_t in[8192];
	struct csm_buf out;
	char key[32];
	int r = 0;

	csm_buf_init(&out, 1024u * 1024u, false);
	for (unsigned i = 0; i < GEN_SECRETS && r == 0; i++) {
		snprintf(key, sizeof(key), "bench/s%03u", i);
		r = put_set(&out, key, i);
	}
	if (r == 0)
		r = exchange(t, csm_buf_ptr(&out), out.len, in, sizeof(in), GEN_SECRETS * strlen("+OK\r\n"));
	csm_buf_free(&out);
	if (r != 0)
		fprintf(stderr, "load: redis: %s\n", csm_err_name(r));
	return r;
}

static int redis_get(const struct target *t, unsigned client, unsigned i, struct csm_buf *out)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "*2\r\n$3\r\nGET\r\n$10\r\nbench/s%03u\r\n", gen_secret_of(client, i));

	(void)t;
	return csm_buf_put(out, text, (size_t)n);
}

static int redis_set(const struct target *t, unsigned client, unsigned i, struct csm_buf *out)
{
	char key[32];

	(void)t;
	snprintf(key, sizeof(key), "bench/w%u-%u", client, i % GEN_DEPTH_MAX);
	return put_set(out, key, i);
}

static int line_length(const uint8_t *p, size_t n, size_t *len)
{
	const uint8_t *end = memchr(p, '\n', n);

	if (end == NULL)
		return CSM_EBUSY;
	*len = (size_t)(end - p) + 1;
	return 0;
}

static int redis_reply(const uint8_t *p, size_t n, size_t *len, uint32_t *id)
{
	static const char value_head[] = "$64\r\n";
	int r = line_length(p, n, len);

	(void)id;
	if (r != 0)
		return r;
	if (p[0] == '+')
		return 0;
	if (*len != strlen(value_head) || memcmp(p, value_head, *len) != 0) {
		fprintf(stderr, "load: redis: %.*s", (int)*len, (const char *)p);
		return CSM_EBACKEND;
	}
	*len += GEN_VALUE_LEN + 2;
	return *len <= n ? 0 : CSM_EBUSY;
}

static bool redis_right(const struct target *t, unsigned client, unsigned i, const uint8_t *p, size_t n)
{
	uint8_t value[GEN_VALUE_LEN];

	(void)t;
	gen_value(gen_secret_of(client, i), value);
	return n == GEN_VALUE_LEN + 7 && memcmp(p + 5, value, sizeof(value)) == 0;
}

/* ---- bare servers ---- */

static int fixed_request(const struct target *t, unsigned client, unsigned i, struct csm_buf *out)
{
	uint8_t b[FIXED_IN] = {0};

	(void)t;
	memcpy(b, gen_digest(), 32);
	b[32] = (uint8_t)client;
	b[33] = (uint8_t)i;
	return csm_buf_put(out, b, sizeof(b));
}

static int fixed_reply(const uint8_t *p, size_t n, size_t *len, uint32_t *id)
{
	(void)p;
	(void)id;
	*len = FIXED_OUT;
	return n >= FIXED_OUT ? 0 : CSM_EBUSY;
}

static bool echo_right(const struct target *t, unsigned client, unsigned i, const uint8_t *p, size_t n)
{
	(void)t;
	return n == FIXED_OUT && memcmp(p, gen_digest(), 32) == 0 && p[32] == (uint8_t)client && p[33] == (uint8_t)i;
}

/* Length, then DER. */
static bool signer_right(const struct target *t, unsigned client, unsigned i, const uint8_t *p, size_t n)
{
	(void)t;
	(void)client;
	(void)i;
	return n == FIXED_OUT && p[0] >= 60 && p[0] <= 72 && p[1] == 0x30 && p[2] == p[0] - 2;
}

/* ---- ssh-agent ---- */

enum { AGENT_LIST = 11, AGENT_KEYS = 12, AGENT_SIGN = 13, AGENT_SIGNATURE = 14 };

static void put_u32(uint8_t *p, size_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

static size_t get_u32(const uint8_t *p)
{
	return (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
}

/* The name of the agent's first key. */
static int agent_prepare(struct target *t)
{
	static const uint8_t ask[] = {0, 0, 0, 1, AGENT_LIST};
	uint8_t in[2048];
	int r = exchange(t, ask, sizeof(ask), in, sizeof(in), 64);

	if (r == 0 && (in[4] != AGENT_KEYS || get_u32(in + 5) == 0 || get_u32(in + 9) > sizeof(t->blob)))
		r = CSM_ENOT_FOUND;
	if (r != 0) {
		fprintf(stderr, "load: ssh-agent: %s\n", csm_err_name(r));
		return r;
	}
	t->blob_len = get_u32(in + 9);
	memcpy(t->blob, in + 13, t->blob_len);
	return 0;
}

static int agent_request(const struct target *t, unsigned client, unsigned i, struct csm_buf *out)
{
	uint8_t m[512] = {0};
	size_t n = 4;

	(void)client;
	(void)i;
	m[n++] = AGENT_SIGN;
	put_u32(m + n, t->blob_len);
	memcpy(m + n + 4, t->blob, t->blob_len);
	n += 4 + t->blob_len;
	put_u32(m + n, 32);
	memcpy(m + n + 4, gen_digest(), 32);
	n += 4 + 32 + 4; /* no flags */
	put_u32(m, n - 4);
	return csm_buf_put(out, m, n);
}

static int agent_reply(const uint8_t *p, size_t n, size_t *len, uint32_t *id)
{
	(void)id;
	if (n < 5)
		return CSM_EBUSY;
	*len = 4 + get_u32(p);
	if (p[4] != AGENT_SIGNATURE || *len > 1024) {
		fprintf(stderr, "load: ssh-agent answered %u\n", p[4]);
		return CSM_EBACKEND;
	}
	return *len <= n ? 0 : CSM_EBUSY;
}

const struct work works_peers[] = {
	{.name = "redis-get", .prepare = redis_prepare, .request = redis_get, .reply = redis_reply, .right = redis_right},
	{.name = "redis-set", .request = redis_set, .reply = redis_reply},
	{.name = "echo", .request = fixed_request, .reply = fixed_reply, .right = echo_right},
	{.name = "signer", .request = fixed_request, .reply = fixed_reply, .right = signer_right},
	{.name = "agent-sign", .prepare = agent_prepare, .request = agent_request, .reply = agent_reply},
	{.name = NULL},
};
