/* The trusted program proves itself, and then executes this one, which has the proven connection: it asks, and, so that
 * it is the trusted program again when it is judged, executes that at once while another process reads the answers. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tests/attack/attack.h"

/* What the trusted program executed. argv: TRUSTED OBJECT VARIANT */
static int hostile(char **argv)
{
	const char *object = argv[2];
	int variant = argv[3][0] - '0';
	char o;

	if (variant == 0) {
		/* Go on as we are. */
		attack_get(CONN_FD, 11, object);
		o = (char)attack_all(CONN_FD, 1, object, 5000);
		return write(REPORT_FD, &o, 1) != 1;
	}
	if (attack_fork() == 0) {
		/* Reads what comes; asks no more, since the connection would end. */
		o = (char)attack_all(CONN_FD, variant == 1 ? 1 : 20, NULL, 5000);
		_exit(write(REPORT_FD, &o, 1) != 1);
	}
	for (uint32_t i = 0; i < (variant == 1 ? 1u : 20u); i++)
		attack_get(CONN_FD, 11 + i, object);
	execl(argv[1], argv[1], "hold", (char *)NULL);
	return 2;
}

static enum outcome once(const struct attack *a)
{
	char variant[2] = {(char)('0' + a->round % 3), 0}, self[4096], o = ATTACK_SILENCE;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	int report[2], hold[2];
	pid_t pid;

	if (n <= 0 || pipe(report) != 0 || pipe(hold) != 0)
		attack_die("pipe");
	self[n] = '\0';
	pid = attack_fork();
	if (pid == 0) {
		dup2(hold[0], 0);
		dup2(report[1], REPORT_FD);
		close(hold[0]);
		close(hold[1]);
		close(report[0]);
		close(report[1]);
		execl(a->trusted, a->trusted, "execute", a->object, self, "hostile", a->trusted, a->object, variant,
			(char *)NULL);
		_exit(99);
	}
	close(report[1]);
	close(hold[0]);
	alarm(20);
	if (read(report[0], &o, 1) != 1)
		attack_die("no report came");
	alarm(0);
	close(report[0]);
	close(hold[1]);
	attack_reap(pid, 2000, NULL);
	return (enum outcome)o;
}

int main(int argc, char **argv)
{
	/* Executed as PROGRAM hostile TRUSTED OBJECT VARIANT, with the program's name left out. */
	if (argc == 5 && strcmp(argv[1], "hostile") == 0)
		return hostile(argv + 1);
	return attack_run(argc, argv, once);
}
