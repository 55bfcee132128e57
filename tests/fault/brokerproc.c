#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "daemon/node/broker.h"
#include "tests/fault/brokerproc.h"
#include "tests/fault/inject.h"

#define READY_MS 15000
#define ASK_MS 5000
#define STOP_MS 10000

static void die(const char *what)
{
	fprintf(stderr, "faults: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int listen_at(const char *dir, const char *name)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%.90s/%s", dir, name);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) != 0 || listen(fd, 64) != 0)
		die(a.sun_path);
	return fd;
}

void bp_make(struct brokerproc *b, const char *plugins)
{
	const char *tmp = getenv("TMPDIR");
	char state[128];

	*b = (struct brokerproc){.plugins = plugins, .backends = "soft", .control = -1, .device = -1};
	snprintf(b->dir, sizeof(b->dir), "%s/csm-faults.XXXXXX", tmp != NULL ? tmp : "/tmp");
	if (mkdtemp(b->dir) == NULL)
		die(b->dir);
	snprintf(b->log, sizeof(b->log), "%s/log", b->dir);
	snprintf(state, sizeof(state), "%s/state", b->dir);
	if (mkdir(state, 0700) != 0)
		die(state);
	b->public = listen_at(b->dir, "csm.sock");
	b->admin = listen_at(b->dir, "admin.sock");
	csm_buf_init(&b->answer, CSM_OUT_MAX, false);
	csm_pool_init(&b->pool, CSM_MESSAGE_MAX);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

static void remove_below(const char *dir)
{
	if (nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS) != 0)
		die(dir);
}

void bp_remove(struct brokerproc *b)
{
	bp_kill(b);
	close(b->public);
	close(b->admin);
	csm_buf_free(&b->answer);
	csm_pool_free(&b->pool);
	remove_below(b->dir);
}

void bp_fresh(struct brokerproc *b)
{
	char state[128];

	snprintf(state, sizeof(state), "%s/state", b->dir);
	remove_below(state);
	if (mkdir(state, 0700) != 0)
		die(state);
}

/* ---- the broker's life ---- */

static void become_broker(const struct brokerproc *b, int control, int device)
{
	int log = open(b->log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int c = fcntl(control, F_DUPFD, 20), d = fcntl(device, F_DUPFD, 20);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (log < 0 || c < 0 || d < 0 || dup2(log, 2) < 0 || dup2(c, CONTROL_FD) < 0 || dup2(d, DEVICE_FD) < 0)
		_exit(127);
	syscall(SYS_close_range, DEVICE_FD + 1, ~0u, 0);
	fault_here = true;
	fault_thread();
	exit(broker_main());
}

static void send_setup(struct brokerproc *b, uint8_t type)
{
	static const uint8_t secret[32] = "a root key for these few seconds";
	struct setup s = {.broker_uid = UINT32_MAX, .broker_gid = UINT32_MAX, .supervisor_pid = (uint32_t)getpid(),
		.plugin_dir = csm_str_of(b->plugins), .device = csm_str_of(b->tpm != NULL ? b->tpm->tcti : ""),
		.policy_error = CSM_STR(""), .root_secret = {secret, sizeof(secret)}, .reload_seq = b->reload_seq};
	char config[512];
	int fd;

	snprintf(config, sizeof(config),
		"state_dir: %s/state\n%sbackends: {enable: [%s]}\nlog_level: info\nloops: 1\n", b->dir,
		b->tpm != NULL ? "root_key: tpm\n" :
				 "root_key: file\nroot_key_file: /nonexistent\nroot_key_unprotected: true\n",
		b->backends);
	s.config = (struct csm_bin){(const uint8_t *)config, strlen(config)};
	if (setup_to_memfd(&s, &fd) != 0)
		die("setup");
	if (control_send(b->control, type, NULL, 0, fd) != 0)
		fprintf(stderr, "faults: the broker took no setup\n"); /* it has ended: the caller will see */
	close(fd);
}

static void send_listener(struct brokerproc *b, int fd, uint8_t role)
{
	int r = control_send(b->control, CTL_LISTENER, &role, 1, fd);

	(void)r; /* as above */
}

static void fork_broker(struct brokerproc *b)
{
	int c[2], d[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, c) != 0 ||
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, d) != 0)
		die("socketpair");
	fflush(NULL);
	b->pid = fork();
	if (b->pid < 0)
		die("fork");
	if (b->pid == 0)
		become_broker(b, c[1], d[1]);
	close(c[1]);
	close(d[1]);
	b->control = c[0];
	b->device = d[0];
	send_setup(b, CTL_SETUP);
	send_listener(b, b->public, CSM_R_PUBLIC);
	send_listener(b, b->admin, CSM_R_ADMIN);
	r = control_send(b->control, CTL_START, NULL, 0, -1);
	(void)r;
}

static void close_ends(struct brokerproc *b)
{
	b->pid = 0;
	close(b->control);
	close(b->device);
	b->control = b->device = -1;
}

bool bp_ended(struct brokerproc *b, int *status)
{
	if (b->pid == 0 || waitpid(b->pid, status, WNOHANG) != b->pid)
		return false;
	close_ends(b);
	return true;
}

static void give_device(struct brokerproc *b)
{
	struct control_msg msg;
	uint8_t none = ENODEV;
	int fd, r;

	if (control_recv(b->device, &msg) != 0)
		return;
	fd = b->tpm == NULL ? -1 : swtpm_connect(b->tpm);
	r = control_send(b->device, CTL_DEVICE, &none, fd < 0, fd);
	(void)r;
	if (fd >= 0)
		close(fd);
}

/* What the broker wants of its supervisor. Returns the type of a message, or 0. */
static uint8_t supervise(struct brokerproc *b)
{
	struct control_msg msg;

	if (control_recv(b->control, &msg) != 0)
		return 0;
	if (msg.fd >= 0)
		close(msg.fd);
	if (msg.type == CTL_WANT_RELOAD) {
		if (msg.len == sizeof(b->reload_seq))
			memcpy(&b->reload_seq, msg.body, sizeof(b->reload_seq));
		send_setup(b, CTL_RELOAD);
	}
	return msg.type;
}

/* Wait for fd (or -1) to be readable, and serve the broker meanwhile. False: time, or no broker any more. */
static bool wait_for(struct brokerproc *b, int fd, uint64_t until, uint8_t *type)
{
	struct pollfd p[3] = {{.fd = b->control, .events = POLLIN}, {.fd = b->device, .events = POLLIN},
		{.fd = fd, .events = POLLIN}};
	uint64_t now = now_ms();

	*type = 0;
	if (b->pid == 0)
		p[0].fd = p[1].fd = -1;
	if (now >= until || poll(p, 3, (int)(until - now)) <= 0)
		return false;
	if (p[1].revents & POLLIN)
		give_device(b);
	if (p[0].revents & POLLIN)
		*type = supervise(b);
	if (p[0].revents & POLLHUP)
		return fd >= 0 && p[2].revents != 0;
	return true;
}

static bool wait_end(struct brokerproc *b, uint64_t until, int *status)
{
	uint8_t type;

	while (!bp_ended(b, status)) {
		if (now_ms() >= until)
			return false;
		if (!wait_for(b, -1, now_ms() + 20, &type))
			poll(NULL, 0, 1);
	}
	return true;
}

int bp_start(struct brokerproc *b, int *status)
{
	uint64_t until = now_ms() + READY_MS;
	uint8_t type = 0;

	fork_broker(b);
	while (type != CTL_READY && wait_for(b, -1, until, &type))
		;
	if (type == CTL_READY)
		return 0;
	if (wait_end(b, now_ms() + STOP_MS, status))
		return 1;
	bp_kill(b);
	return -1;
}

bool bp_stop(struct brokerproc *b, int *status)
{
	int r = control_send(b->control, CTL_STOP, NULL, 0, -1);

	(void)r; /* it may have ended by itself */
	if (wait_end(b, now_ms() + STOP_MS, status))
		return true;
	bp_kill(b);
	return false;
}

void bp_kill(struct brokerproc *b)
{
	if (b->pid == 0)
		return;
	kill(b->pid, SIGKILL);
	waitpid(b->pid, NULL, 0);
	close_ends(b);
}

/* ---- the client ---- */

int bp_connect(const struct brokerproc *b, enum csm_role role)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%.90s/%s", b->dir, role == CSM_R_ADMIN ? "admin.sock" : "csm.sock");
	if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

static bool has_ended(const struct brokerproc *b)
{
	siginfo_t info = {0};

	return b->pid == 0 || (waitid(P_PID, (id_t)b->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0);
}

static int read_answer(struct brokerproc *b, int fd, size_t *len)
{
	uint64_t until = now_ms() + ASK_MS;
	uint8_t *p, type;
	ssize_t n;

	csm_buf_reset(&b->answer);
	while (now_ms() < until) {
		bool ended = has_ended(b);

		if (!wait_for(b, fd, until, &type))
			poll(NULL, 0, 1);
		if (csm_buf_reserve(&b->answer, 65536, &p) != 0)
			die("memory");
		n = recv(fd, p, 65536, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN))
			return CSM_ECLOSED;
		if (n > 0)
			csm_buf_commit(&b->answer, (size_t)n);
		if (b->answer.len > 0 && csm_scan(csm_buf_ptr(&b->answer), b->answer.len, len) == 0)
			return 0;
		if (ended)
			return CSM_ECLOSED; /* the connection may not even have been accepted */
	}
	return CSM_ETIMEOUT;
}

int bp_ask(struct brokerproc *b, int fd, const char *method, const void *params, void *result)
{
	static const struct csm_msg_empty nothing;
	static uint32_t msgid;
	const struct csm_method *m = csm_method_find(csm_str_of(method));
	struct csm_msg_error err;
	struct csm_frame f;
	struct csm_str bad;
	struct csm_buf q;
	size_t len;
	int r;

	if (fd < 0)
		return CSM_ECLOSED;
	csm_buf_init(&q, CSM_MESSAGE_MAX, false);
	if (csm_frame_request(&q, ++msgid, method, m->request, params != NULL ? params : &nothing) != 0)
		die("encode");
	if (send(fd, csm_buf_ptr(&q), q.len, MSG_NOSIGNAL) != (ssize_t)q.len)
		errno = 0; /* what was said before the end is heard all the same */
	csm_buf_free(&q);
	if ((r = read_answer(b, fd, &len)) != 0)
		return r;
	if (csm_frame_parse(csm_buf_ptr(&b->answer), len, &f) != 0 || f.type != CSM_RESPONSE)
		return CSM_EPROTOCOL;
	csm_pool_reset(&b->pool);
	if (f.error.p == NULL)
		return csm_msg_decode(m->response, f.result, CSM_UNKNOWN_REFUSE, &b->pool, result, &bad);
	r = csm_msg_decode(CSM_DEF(error), f.error, CSM_UNKNOWN_REFUSE, &b->pool, &err, &bad);
	if (r == 0)
		snprintf(b->message, sizeof(b->message), "%.*s", (int)err.message.n, err.message.p);
	return r != 0 ? r : (int)err.code.v;
}
