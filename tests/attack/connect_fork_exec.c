/* One of two related processes connects and becomes the program that policy trusts; the other one keeps the connection
 * and goes on as if it were that program: it asks, reads the nonce, and echoes it. */
#include <sys/socket.h>
#include <unistd.h>
#include "tests/attack/attack.h"

/* The connector: what it sends before it becomes trusted. */
static void connector(const struct attack *a, int fd, int hold)
{
	struct answer guess = {.nonce_n = 16};

	dup2(hold, 0);
	switch (a->round % 4) {
	case 0: /* nothing: the other one asks */
		break;
	case 1: /* a request, judged while it is trusted already, or not yet */
		attack_get(fd, 1, a->object);
		break;
	case 2: /* many, so that some are judged after */
		for (uint32_t i = 0; i < 20; i++)
			attack_get(fd, i, a->object);
		break;
	default: /* with a nonce that was never given */
		attack_get(fd, 1, a->object);
		attack_prove(fd, 2, &guess);
		attack_get(fd, 3, a->object);
	}
	execl(a->trusted, a->trusted, "hold", (char *)NULL);
	_exit(99);
}

static enum outcome once(const struct attack *a)
{
	int hold[2], pair[2], fd;
	enum outcome o;
	pid_t pid;

	if (pipe(hold) != 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
		attack_die("pipe");
	pid = attack_fork();
	if (pid == 0) {
		close(hold[1]);
		fd = attack_connect();
		if (!attack_pass_fd(pair[1], fd))
			_exit(99);
		connector(a, fd, hold[0]);
	}
	close(hold[0]);
	fd = attack_take_fd(pair[0], 5000);
	close(pair[0]);
	close(pair[1]);
	if (fd < 0)
		attack_die("no connection came");
	if (a->round % 4 == 0)
		attack_get(fd, 1, a->object);
	o = attack_all(fd, a->round % 4 == 0 ? 1 : a->round % 4 == 2 ? 20 : 1, a->object, 1000);
	if (o != ATTACK_SERVED && o != ATTACK_CLOSED && attack_get(fd, 7, a->object))
		o = attack_all(fd, 1, a->object, 1000);
	close(fd);
	close(hold[1]);
	attack_reap(pid, 2000, NULL);
	return o;
}

int main(int argc, char **argv)
{
	return attack_run(argc, argv, once);
}
