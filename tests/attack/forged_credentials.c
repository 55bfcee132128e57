/* In a user and pid namespace of one's own one is root, and may send credentials with any pid in it. So the connector
 * becomes the trusted program there, and another process asks with the connector's pid, and echoes the nonce. */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/attack/attack.h"

#define OUTCOME 10 /* as an exit status */

static void map(const char *file, const char *text)
{
	int fd = open(file, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		attack_die(file);
	close(fd);
}

/* Root of a user namespace with a pid namespace. */
static void become_root(void)
{
	char uids[32], gids[32];

	snprintf(uids, sizeof(uids), "0 %u 1", getuid());
	snprintf(gids, sizeof(gids), "0 %u 1", getgid());
	if (unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0)
		attack_die("unshare");
	map("/proc/self/setgroups", "deny");
	map("/proc/self/uid_map", uids);
	map("/proc/self/gid_map", gids);
}

static bool send_as(int fd, pid_t pid, const void *p, size_t n)
{
	struct ucred cred = {.pid = pid, .uid = getuid(), .gid = getgid()};
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(sizeof(cred))];
	} control = {0};
	struct iovec iov = {(void *)(uintptr_t)p, n};
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_CREDENTIALS;
	c->cmsg_len = CMSG_LEN(sizeof(cred));
	memcpy(CMSG_DATA(c), &cred, sizeof(cred));
	return sendmsg(fd, &m, MSG_NOSIGNAL) == (ssize_t)n;
}

/* The first process of the namespaces. */
static enum outcome inside(const struct attack *a)
{
	int hold[2], pair[2], fd;
	struct answer answer;
	uint8_t out[512];
	pid_t pid;

	if (pipe(hold) != 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
		attack_die("pipe");
	pid = attack_fork();
	if (pid == 0) {
		dup2(hold[0], 0);
		close(hold[1]);
		if (!attack_pass_fd(pair[1], attack_connect()))
			_exit(99);
		execl(a->trusted, a->trusted, "hold", (char *)NULL);
		_exit(99);
	}
	fd = attack_take_fd(pair[0], 5000);
	if (fd < 0)
		attack_die("no connection came");
	usleep(1000); /* it is the trusted program by now */
	if (!send_as(fd, pid, out, attack_get_bytes(1, a->object, out)))
		return ATTACK_CLOSED;
	answer = attack_answer(fd, 5000);
	if (answer.what != ATTACK_CHALLENGED)
		return answer.what;
	if (!send_as(fd, pid, out, attack_prove_bytes(2, &answer, out)) ||
		attack_answer(fd, 5000).what != ATTACK_SERVED ||
		!send_as(fd, pid, out, attack_get_bytes(3, a->object, out)))
		return ATTACK_REFUSED;
	return attack_answer(fd, 5000).what;
}

static enum outcome once(const struct attack *a)
{
	pid_t pid = attack_fork();
	int status = 0;

	if (pid == 0) {
		pid_t first;

		become_root();
		first = attack_fork();
		if (first == 0)
			_exit(OUTCOME + (int)inside(a));
		attack_reap(first, 8000, &status);
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 101);
	}
	if (!attack_reap(pid, 10000, &status) || !WIFEXITED(status) || WEXITSTATUS(status) < OUTCOME ||
		WEXITSTATUS(status) > OUTCOME + ATTACK_SILENCE)
		attack_die("the namespaces");
	return (enum outcome)(WEXITSTATUS(status) - OUTCOME);
}

int main(int argc, char **argv)
{
	return attack_run(argc, argv, once);
}
