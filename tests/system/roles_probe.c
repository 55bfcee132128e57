/* A supervisor of the test's own: starts `CSMD --broker`, hands it connections of each role, and looks at what each
 * method answers on each.
 *
 * usage: roles_probe CSMD PLUGIN_DIR STATE_DIR UID        (STATE_DIR: 0700 and UID's) */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "daemon/node/control.h"
#include "libclient/wire/frame.h"

#define WAIT_MS 10000

static const struct {
	enum csm_role role;
	const char *name;
} roles[] = {{CSM_R_ENROL, "enrol"}, {CSM_R_IDENT, "ident"}, {CSM_R_DELIVER, "deliver"}, {CSM_R_PLUGHOST, "plughost"}};
#define N_ROLES (sizeof(roles) / sizeof(roles[0]))

static void die(const char *what)
{
	fprintf(stderr, "roles_probe: %s: %s\n", what, strerror(errno));
	exit(1);
}

static pid_t start_broker(const char *csmd, int *control, int *device)
{
	int c[2], d[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, c) != 0 ||
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, d) != 0)
		die("socketpair");
	pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0) {
		int cc = fcntl(c[1], F_DUPFD_CLOEXEC, 10), dd = fcntl(d[1], F_DUPFD_CLOEXEC, 10);

		if (dup2(cc, CONTROL_FD) < 0 || dup2(dd, DEVICE_FD) < 0)
			_exit(127);
		execl(csmd, "csmd: broker", "--broker", (char *)NULL);
		_exit(127);
	}
	close(c[1]);
	close(d[1]);
	*control = c[0];
	*device = d[0];
	return pid;
}

static void send_setup(int control, const char *plugins, const char *state, uint32_t uid)
{
	static const uint8_t secret[32] = "a root key for these few seconds";
	struct setup s = {.broker_uid = uid, .broker_gid = uid, .supervisor_pid = (uint32_t)getpid(),
		.plugin_dir = csm_str_of(plugins), .device = CSM_STR(""), .policy_error = CSM_STR(""),
		.root_secret = {secret, sizeof(secret)}};
	char config[512];
	int fd;

	snprintf(config, sizeof(config),
		"state_dir: %s\nroot_key: file\nroot_key_file: /nonexistent\nroot_key_unprotected: true\n"
		"backends: {enable: [soft]}\nlog_level: error\n", state);
	s.config = (struct csm_bin){(const uint8_t *)config, strlen(config)};
	if (setup_to_memfd(&s, &fd) != 0 || control_send(control, CTL_SETUP, NULL, 0, fd) != 0)
		die("setup");
	close(fd);
}

/* Hand over a connection of that role; our end. */
static int hand_over(int control, uint8_t role)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0 ||
		control_send(control, CTL_CONN, &role, 1, pair[0]) != 0)
		die("hand over");
	close(pair[0]);
	return pair[1];
}

static void wait_ready(int control)
{
	struct pollfd p = {.fd = control, .events = POLLIN};
	struct control_msg msg;

	if (poll(&p, 1, WAIT_MS) != 1 || control_recv(control, &msg) != 0 || msg.type != CTL_READY)
		die("the broker is not ready");
}

/* The code that the method is answered with; -1 when the connection ends. */
static int ask(int fd, const struct csm_method *m)
{
	static uint32_t msgid;
	static const struct csm_msg_empty nothing;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct csm_msg_error err;
	struct csm_frame f;
	struct csm_pool pool;
	struct csm_str bad;
	uint8_t answer[65536];
	struct csm_buf b;
	ssize_t n;
	int r;

	csm_buf_init(&b, 4096, false);
	if (csm_frame_request(&b, ++msgid, m->name, CSM_DEF(empty), &nothing) != 0 ||
		send(fd, csm_buf_ptr(&b), b.len, MSG_NOSIGNAL) < 0)
		die("send");
	csm_buf_free(&b);
	if (poll(&p, 1, WAIT_MS) != 1)
		die("no answer");
	n = recv(fd, answer, sizeof(answer), 0);
	if (n <= 0)
		return -1;
	if (csm_frame_parse(answer, (size_t)n, &f) != 0 || f.type != CSM_RESPONSE || f.msgid != msgid)
		die("the answer is none");
	if (f.error.p == NULL)
		return 0;
	csm_pool_init(&pool, 4096);
	r = csm_msg_decode(CSM_DEF(error), f.error, CSM_UNKNOWN_REFUSE, &pool, &err, &bad);
	csm_pool_free(&pool);
	return r == 0 ? (int)err.code.v : -1;
}

static unsigned check_role(int fd, size_t i)
{
	unsigned bad = 0, own = 0;

	for (size_t m = 0; m < CSM_M__COUNT; m++) {
		bool served = (csm_methods[m].roles & roles[i].role) != 0;
		int code = ask(fd, &csm_methods[m]);

		own += served;
		if (code < 0 || served == (code == CSM_EROLE)) {
			fprintf(stderr, "%s on the descriptor of %s: %s\n", csm_methods[m].name, roles[i].name,
				code < 0 ? "connection closed" : csm_err_name(code));
			bad++;
		}
	}
	printf("%s: %u methods of its own, %u refused\n", roles[i].name, own, (unsigned)CSM_M__COUNT - own - bad);
	return bad;
}

/* A socket that belongs to a listener is no fixed role, nor is a mix or none: such a connection is closed. */
static unsigned check_no_role(int control)
{
	static const uint8_t wrong[] = {0, CSM_R_PUBLIC, CSM_R_ADMIN, CSM_R_ENROL | CSM_R_IDENT, CSM_R_PUBLIC | CSM_R_ENROL, 255};
	unsigned bad = 0;

	for (size_t i = 0; i < sizeof(wrong); i++) {
		int fd = hand_over(control, wrong[i]);
		struct pollfd p = {.fd = fd, .events = POLLIN};
		char byte;

		if (poll(&p, 1, WAIT_MS) != 1 || recv(fd, &byte, 1, 0) != 0) {
			fprintf(stderr, "a connection of role %u is served\n", wrong[i]);
			bad++;
		}
		close(fd);
	}
	return bad;
}

static unsigned check_end(pid_t pid, int control)
{
	int status;

	close(control);
	for (int ms = 0; ms < WAIT_MS; ms += 10) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : 1;
		poll(NULL, 0, 10);
	}
	fprintf(stderr, "the broker outlives its supervisor\n");
	kill(pid, SIGKILL);
	return 1;
}

int main(int argc, char **argv)
{
	int control, device, fd[N_ROLES];
	unsigned bad = 0;
	pid_t pid;

	if (argc != 5)
		return 2;
	pid = start_broker(argv[1], &control, &device);
	send_setup(control, argv[2], argv[3], (uint32_t)strtoul(argv[4], NULL, 10));
	for (size_t i = 0; i < N_ROLES; i++)
		fd[i] = hand_over(control, (uint8_t)roles[i].role);
	if (control_send(control, CTL_START, NULL, 0, -1) != 0)
		die("start");
	wait_ready(control);
	for (size_t i = 0; i < N_ROLES; i++)
		bad += check_role(fd[i], i);
	bad += check_no_role(control);
	bad += check_end(pid, control);
	close(device);
	return bad > 0;
}
