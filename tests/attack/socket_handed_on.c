/* The trusted program proves itself and hands its connection to another process, which asks on it. */
#include <sys/socket.h>
#include <unistd.h>
#include "tests/attack/attack.h"

static enum outcome once(const struct attack *a)
{
	int pair[2], hold[2], fd;
	enum outcome o;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0 || pipe(hold) != 0)
		attack_die("pipe");
	pid = attack_fork();
	if (pid == 0) {
		dup2(hold[0], 0);
		dup2(pair[1], PASS_FD);
		close(hold[1]);
		execl(a->trusted, a->trusted, "hand-on", a->object, (char *)NULL);
		_exit(99);
	}
	close(hold[0]);
	fd = attack_take_fd(pair[0], 5000);
	if (fd < 0)
		attack_die("no connection came");
	attack_get(fd, 11, a->object);
	o = attack_all(fd, 1, a->object, 5000);
	close(fd);
	close(pair[0]);
	close(pair[1]);
	close(hold[1]);
	attack_reap(pid, 2000, NULL);
	return o;
}

int main(int argc, char **argv)
{
	return attack_run(argc, argv, once);
}
