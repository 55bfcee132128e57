/* A process connects, asks, and ends; the trusted program gets its pid while the request waits, or while another
 * process holds the connection and asks on it. Run as root, who may choose a pid; the connector and the trusted program
 * are the uid of ATTACK_UID. */
#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "tests/attack/attack.h"

#define MANY 300

/* fork with that pid. */
static pid_t fork_as(pid_t pid)
{
	struct clone_args args = {.exit_signal = SIGCHLD, .set_tid = (uint64_t)(uintptr_t)&pid, .set_tid_size = 1};

	return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

static enum outcome once(const struct attack *a)
{
	int pair[2], hold[2], fd;
	enum outcome o;
	pid_t pid, again;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0 || pipe(hold) != 0)
		attack_die("pipe");
	pid = attack_fork();
	if (pid == 0) {
		attack_become_user();
		fd = attack_connect();
		if (!attack_pass_fd(pair[1], fd))
			_exit(99);
		/* So many that the last ones are judged when the pid is another's; the answers go to who holds the
		 * connection. */
		for (uint32_t i = 0; a->round % 2 == 0 && i < MANY; i++)
			attack_get(fd, i, a->object);
		_exit(0);
	}
	fd = attack_take_fd(pair[0], 5000);
	if (fd < 0 || !attack_reap(pid, 5000, NULL))
		attack_die("no connection came");
	again = fork_as(pid);
	if (again == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(hold[0], 0);
		close(hold[1]);
		attack_become_user();
		execl(a->trusted, a->trusted, "hold", (char *)NULL);
		_exit(99);
	}
	/* Somebody else may have got it meanwhile. */
	if (again < 0 && errno != EEXIST)
		attack_die("clone3");
	if (a->round % 2 != 0)
		attack_get(fd, 11, a->object);
	o = attack_all(fd, a->round % 2 == 0 ? MANY : 1, NULL, 1000);
	close(fd);
	close(pair[0]);
	close(pair[1]);
	close(hold[0]);
	close(hold[1]);
	if (again > 0)
		attack_reap(again, 2000, NULL);
	return o;
}

int main(int argc, char **argv)
{
	return attack_run(argc, argv, once);
}
