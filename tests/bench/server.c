/* Bare servers: what a Unix socket costs without a broker behind it.
 *
 * usage: server echo|sign PATH [THREADS]
 *
 * Each 64 bytes are answered by 96. echo: the same 64 and zeros. sign: the first 32 are a digest, the answer is the
 * length of a P-256 signature and its DER. One epoll loop a thread; connections go round. Ends by a signal. */
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define IN 64u
#define OUT 96u
#define BATCH 64u
#define THREADS_MAX 16u

struct loop {
	int ep, listener;      /* listener: -1 but for the first loop */
	EVP_PKEY_CTX *sign;    /* NULL: echo */
	struct loop *all;
	unsigned n, turn;
};

static bool answer(struct loop *l, const uint8_t *in, uint8_t *out)
{
	size_t n = OUT - 1;

	memset(out, 0, OUT);
	if (l->sign == NULL) {
		memcpy(out, in, IN);
		return true;
	}
	if (EVP_PKEY_sign(l->sign, out + 1, &n, in, 32) != 1)
		return false;
	out[0] = (uint8_t)n;
	return true;
}

/* Requests are small and sent in one piece: what is not whole ends the connection. */
static bool serve(struct loop *l, int fd)
{
	uint8_t in[IN * BATCH], out[OUT * BATCH];
	ssize_t n = recv(fd, in, sizeof(in), 0);
	size_t k = n > 0 ? (size_t)n / IN : 0;

	if (n <= 0 || (size_t)n % IN != 0)
		return false;
	for (size_t i = 0; i < k; i++)
		if (!answer(l, in + i * IN, out + i * OUT))
			return false;
	return send(fd, out, k * OUT, MSG_NOSIGNAL) == (ssize_t)(k * OUT);
}

static void hand_out(struct loop *l)
{
	int fd = accept4(l->listener, NULL, NULL, SOCK_CLOEXEC);
	struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};

	if (fd >= 0 && epoll_ctl(l->all[l->turn++ % l->n].ep, EPOLL_CTL_ADD, fd, &ev) != 0)
		close(fd);
}

static void *loop_main(void *arg)
{
	struct loop *l = arg;

	for (;;) {
		struct epoll_event ev[64];
		int n = epoll_wait(l->ep, ev, 64, -1);

		for (int i = 0; i < n; i++)
			if (ev[i].data.fd == l->listener)
				hand_out(l);
			else if (!serve(l, ev[i].data.fd))
				close(ev[i].data.fd);
	}
	return NULL;
}

static bool loop_init(struct loop *l, struct loop *all, unsigned n, bool sign)
{
	EVP_PKEY *key = sign ? EVP_EC_gen("P-256") : NULL;

	l->all = all;
	l->n = n;
	l->listener = -1;
	l->ep = epoll_create1(EPOLL_CLOEXEC);
	if (key != NULL)
		l->sign = EVP_PKEY_CTX_new(key, NULL);
	EVP_PKEY_free(key);
	return l->ep >= 0 && (!sign || (l->sign != NULL && EVP_PKEY_sign_init(l->sign) == 1));
}

static int listen_at(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || strlen(path) >= sizeof(a.sun_path))
		return -1;
	memcpy(a.sun_path, path, strlen(path) + 1);
	return bind(fd, (const struct sockaddr *)&a, sizeof(a)) == 0 && listen(fd, 128) == 0 ? fd : -1;
}

int main(int argc, char **argv)
{
	static struct loop loops[THREADS_MAX];
	unsigned n = argc == 4 ? (unsigned)strtoul(argv[3], NULL, 10) : 1;
	bool sign = argc > 1 && strcmp(argv[1], "sign") == 0;
	struct epoll_event ev = {.events = EPOLLIN};
	pthread_t thread;

	if (argc < 3 || argc > 4 || (!sign && strcmp(argv[1], "echo") != 0) || n == 0 || n > THREADS_MAX) {
		fprintf(stderr, "usage: server echo|sign PATH [THREADS]\n");
		return 2;
	}
	for (unsigned i = 0; i < n; i++)
		if (!loop_init(&loops[i], loops, n, sign))
			return 1;
	ev.data.fd = loops[0].listener = listen_at(argv[2]);
	if (loops[0].listener < 0 || epoll_ctl(loops[0].ep, EPOLL_CTL_ADD, loops[0].listener, &ev) != 0) {
		perror(argv[2]);
		return 1;
	}
	for (unsigned i = 1; i < n; i++)
		if (pthread_create(&thread, NULL, loop_main, &loops[i]) != 0)
			return 1;
	loop_main(&loops[0]);
	return 0;
}
