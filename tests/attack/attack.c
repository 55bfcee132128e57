#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "libclient/wire/frame.h"
#include "tests/attack/attack.h"

#define WAIT_MS 10000
#define PROOF_ID 99999

void attack_die(const char *what)
{
	fprintf(stderr, "cannot attack: %s: %s\n", what, strerror(errno));
	_exit(99);
}

int attack_connect(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	const char *path = getenv("CSM_SOCKET");
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	if (path == NULL || strlen(path) >= sizeof(addr.sun_path) || fd < 0)
		attack_die("socket");
	memcpy(addr.sun_path, path, strlen(path));
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0)
		attack_die("connect");
	return fd;
}

static size_t bytes_of(uint32_t msgid, enum csm_method_id m, const void *msg, uint8_t out[static 512])
{
	struct csm_buf b;
	size_t n;

	csm_buf_init(&b, 512, false);
	if (csm_frame_request(&b, msgid, csm_methods[m].name, csm_methods[m].request, msg) != 0)
		attack_die("request");
	n = b.len;
	memcpy(out, csm_buf_ptr(&b), n);
	csm_buf_free(&b);
	return n;
}

size_t attack_get_bytes(uint32_t msgid, const char *object, uint8_t out[static 512])
{
	struct csm_msg_secret_get_req m = {.secret = csm_str_of(object)};

	return bytes_of(msgid, CSM_M_SECRET_GET, &m, out);
}

size_t attack_prove_bytes(uint32_t msgid, const struct answer *a, uint8_t out[static 512])
{
	struct csm_msg_prove_req m = {.nonce = {a->nonce, a->nonce_n}};

	return bytes_of(msgid, CSM_M_PROVE, &m, out);
}

bool attack_send(int fd, const void *p, size_t n)
{
	return send(fd, p, n, MSG_NOSIGNAL) == (ssize_t)n;
}

bool attack_get(int fd, uint32_t msgid, const char *object)
{
	uint8_t out[512];

	return attack_send(fd, out, attack_get_bytes(msgid, object, out));
}

bool attack_prove(int fd, uint32_t msgid, const struct answer *a)
{
	uint8_t out[512];

	return attack_send(fd, out, attack_prove_bytes(msgid, a, out));
}

static struct answer read_answer(const uint8_t *p, size_t n)
{
	struct answer a = {.what = ATTACK_SERVED};
	struct csm_msg_error e;
	struct csm_frame f;
	struct csm_pool pool;
	struct csm_str bad;

	if (csm_frame_parse(p, n, &f) != 0 || f.type != CSM_RESPONSE)
		attack_die("an answer that is none");
	a.msgid = f.msgid;
	if (f.error.p == NULL)
		return a;
	csm_pool_init(&pool, 4096);
	if (csm_msg_decode(CSM_DEF(error), f.error, CSM_UNKNOWN_SKIP, &pool, &e, &bad) != 0)
		attack_die("an error that is none");
	a.code = (uint32_t)e.code.v;
	a.what = ATTACK_REFUSED;
	if (e.nonce.n > 0 && e.nonce.n <= NONCE_MAX) {
		a.what = ATTACK_CHALLENGED;
		a.nonce_n = e.nonce.n;
		memcpy(a.nonce, e.nonce.p, e.nonce.n);
	}
	csm_pool_free(&pool);
	return a;
}

/* One message at a time: what follows it stays in the socket, for whoever reads it next. */
struct answer attack_answer(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint8_t buf[4096];
	size_t len, have = 0;
	ssize_t n;

	for (;;) {
		if (poll(&p, 1, ms) != 1)
			return (struct answer){.what = ATTACK_SILENCE};
		n = recv(fd, buf, sizeof(buf), MSG_PEEK);
		if (n <= 0)
			return (struct answer){.what = ATTACK_CLOSED};
		if (csm_scan(buf, (size_t)n, &len) == 0)
			break;
		if ((size_t)n == have)
			usleep(1000);
		have = (size_t)n;
	}
	if (recv(fd, buf, len, 0) != (ssize_t)len)
		return (struct answer){.what = ATTACK_CLOSED};
	return read_answer(buf, len);
}

enum outcome attack_honest_get(int fd, const char *object)
{
	struct answer a;

	if (!attack_get(fd, 1, object))
		return ATTACK_CLOSED;
	a = attack_answer(fd, WAIT_MS);
	if (a.what != ATTACK_CHALLENGED)
		return a.what;
	if (!attack_prove(fd, 2, &a))
		return ATTACK_CLOSED;
	a = attack_answer(fd, WAIT_MS);
	if (a.what != ATTACK_SERVED)
		return a.what;
	if (!attack_get(fd, 3, object))
		return ATTACK_CLOSED;
	return attack_answer(fd, WAIT_MS).what;
}

enum outcome attack_all(int fd, unsigned expected, const char *object, int ms)
{
	struct answer a = {.what = ATTACK_SILENCE};
	unsigned proofs = 0;

	while (expected-- > 0) {
		a = attack_answer(fd, ms);
		if (a.what == ATTACK_SERVED && a.msgid != PROOF_ID)
			return a.what;
		if (a.what == ATTACK_CLOSED || a.what == ATTACK_SILENCE)
			return a.what;
		if (a.what == ATTACK_CHALLENGED && object != NULL && proofs++ < 3) {
			if (!attack_prove(fd, PROOF_ID, &a) || !attack_get(fd, 200 + proofs, object))
				return ATTACK_CLOSED;
			expected += 2;
		}
	}
	return a.what == ATTACK_SERVED ? ATTACK_REFUSED : a.what;
}

/* ---- descriptors ---- */

static bool send_fds(int sock, const void *p, size_t n, const int *fds, size_t count)
{
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(16 * sizeof(int))];
	} control = {0};
	struct iovec iov = {(void *)(uintptr_t)p, n};
	struct msghdr m = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = CMSG_SPACE(count * sizeof(int))};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(c), fds, count * sizeof(int));
	return sendmsg(sock, &m, MSG_NOSIGNAL) == (ssize_t)n;
}

bool attack_send_with_fds(int fd, const void *p, size_t n, int fds)
{
	int list[16], null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	bool good;

	for (int i = 0; i < 16; i++)
		list[i] = null;
	good = send_fds(fd, p, n, list, (size_t)fds);
	close(null);
	return good;
}

bool attack_pass_fd(int sock, int fd)
{
	return send_fds(sock, "x", 1, &fd, 1);
}

int attack_take_fd(int sock, int ms)
{
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	char byte;
	struct iovec iov = {&byte, 1};
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	struct pollfd p = {.fd = sock, .events = POLLIN};
	struct cmsghdr *c;
	int fd = -1;

	if (poll(&p, 1, ms) != 1 || recvmsg(sock, &m, 0) != 1 || (c = CMSG_FIRSTHDR(&m)) == NULL ||
		c->cmsg_type != SCM_RIGHTS)
		return -1;
	memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

/* ---- processes ---- */

void attack_become_user(void)
{
	const char *text = getenv("ATTACK_UID");
	uid_t uid = (uid_t)strtoul(text != NULL ? text : "0", NULL, 10);

	if (geteuid() == 0 &&
		(uid == 0 || setgroups(0, NULL) != 0 || setresgid(uid, uid, uid) != 0 || setresuid(uid, uid, uid) != 0))
		attack_die("ATTACK_UID");
}

pid_t attack_fork(void)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		attack_die("fork");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* 0: it is in another pid namespace */
		if (getppid() != parent && getppid() != 0)
			_exit(99);
	}
	return pid;
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

bool attack_reap(pid_t pid, int ms, int *status)
{
	int64_t until = now_ms() + ms;
	int s = 0;

	for (;;) {
		if (waitpid(pid, &s, WNOHANG) == pid) {
			if (status != NULL)
				*status = s;
			return true;
		}
		if (now_ms() >= until)
			break;
		usleep(200);
	}
	kill(pid, SIGKILL);
	waitpid(pid, &s, 0);
	return false;
}

/* ---- the honest client ---- */

struct honest {
	pid_t pid;
	int in, out;
};

static struct honest start_honest(const struct attack *a)
{
	const char *object = getenv("ATTACK_HONEST") != NULL ? getenv("ATTACK_HONEST") : a->object;
	struct honest h;
	int in[2], out[2];

	if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0)
		attack_die("pipe");
	h.pid = attack_fork();
	if (h.pid == 0) {
		attack_become_user();
		dup2(in[0], 0);
		dup2(out[1], 1);
		execl(a->trusted, a->trusted, "honest", object, (char *)NULL);
		_exit(99);
	}
	close(in[0]);
	close(out[1]);
	h.in = in[1];
	h.out = out[0];
	return h;
}

static void check_honest(const struct honest *h, unsigned round)
{
	struct pollfd p = {.fd = h->out, .events = POLLIN};
	char c = '?';

	if (write(h->in, "?", 1) == 1 && poll(&p, 1, WAIT_MS) == 1 && read(h->out, &c, 1) == 1 && c == '.')
		return;
	fprintf(stderr, "the honest client was not served in round %u\n", round);
	exit(1);
}

int attack_run(int argc, char **argv, enum outcome (*once)(const struct attack *a))
{
	static const char *const names[] = {"an error", "a challenge", "SERVED", "a closed connection", "silence"};
	unsigned counts[5] = {0}, rounds;
	struct attack a;
	struct honest h;

	if (argc != 5) {
		fprintf(stderr, "usage: %s TRUSTED OBJECT PLAIN ROUNDS\n", argv[0]);
		return 2;
	}
	a = (struct attack){.trusted = argv[1], .object = argv[2], .plain = argv[3]};
	rounds = (unsigned)strtoul(argv[4], NULL, 10);
	signal(SIGPIPE, SIG_IGN);
	h = start_honest(&a);
	check_honest(&h, 0);
	for (; a.round < rounds; a.round++) {
		counts[once(&a)]++;
		check_honest(&h, a.round);
	}
	close(h.in);
	attack_reap(h.pid, WAIT_MS, NULL);
	printf("%u of %u refused:", rounds - counts[ATTACK_SERVED], rounds);
	for (int i = 0; i < 5; i++)
		if (counts[i] > 0)
			printf(" %u %s", counts[i], names[i]);
	printf("\n");
	return counts[ATTACK_SERVED] > 0;
}
