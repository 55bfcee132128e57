#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "tests/bench/gen/gen.h"

const struct work *work_find(const char *name)
{
	const struct work *const lists[] = {works_csm, works_peers, works_calls, works_front, works_issue};

	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
		for (const struct work *w = lists[i]; w->name != NULL; w++)
			if (strcmp(w->name, name) == 0)
				return w;
	return NULL;
}

int gen_connect(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct timeval limit = {20, 0};
	int fd = -1;

	if (path == NULL || strlen(path) >= sizeof(a.sun_path)) {
		fprintf(stderr, "load: --socket is missing or too long\n");
		return -1;
	}
	memcpy(a.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&a, sizeof(a)) != 0) {
		fprintf(stderr, "load: %s: %s\n", path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return -1;
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}

const uint8_t *gen_digest(void)
{
	static const uint8_t digest[32] = {0x1d, 0x60, 0x1c, 0x07, 0x8f, 0x32, 0xf5, 0x44, 0x9e, 0x11, 0x0a, 0xc6, 0x5b,
		0x70, 0xe3, 0x28, 0x93, 0x4f, 0xd2, 0xb7, 0x66, 0x05, 0xfa, 0xc9, 0x3e, 0x81, 0x57, 0x2c, 0xab, 0x14, 0xe0,
		0x79};

	return digest;
}

void gen_value(unsigned secret, uint8_t *out)
{
	for (unsigned i = 0; i < GEN_VALUE_LEN; i++)
		out[i] = (uint8_t)('a' + (secret + i * (1 + secret % 7)) % 26);
}

unsigned gen_secret_of(unsigned client, unsigned i)
{
	return (client * GEN_RING + i) % GEN_SECRETS;
}

uint64_t gen_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

bool gen_signature_right(EVP_PKEY *public, const uint8_t *der, size_t n)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(public, NULL);
	bool good = ctx != NULL && EVP_PKEY_verify_init(ctx) == 1 && EVP_PKEY_verify(ctx, der, n, gen_digest(), 32) == 1;

	EVP_PKEY_CTX_free(ctx);
	return good;
}
