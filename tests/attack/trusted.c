/* The program that policy trusts. It does nothing that it should not, but what attackers do to it is up to them: it
 * may hold descriptors that it was started with, hand its connection on, or execute what it is told to. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/attack/attack.h"

/* For each byte of stdin, get the object once on a connection that stays; "." for served, "x" for not. */
static int honest(const char *object)
{
	int fd = attack_connect();
	char c;

	while (read(0, &c, 1) == 1) {
		c = attack_honest_get(fd, object) == ATTACK_SERVED ? '.' : 'x';
		if (write(1, &c, 1) != 1)
			return 1;
	}
	return 0;
}

/* Be there, with whatever was left open, until stdin ends or a second is over. */
static int hold(void)
{
	char c;

	alarm(1);
	while (read(0, &c, 1) == 1)
		;
	return 0;
}

static int proven(const char *object)
{
	int fd = attack_connect();

	if (attack_honest_get(fd, object) != ATTACK_SERVED)
		exit(3);
	return fd;
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "hold") == 0)
		return hold();
	if (argc == 3 && strcmp(argv[1], "honest") == 0)
		return honest(argv[2]);
	/* Prove, then execute another program with the connection as CONN_FD. */
	if (argc >= 4 && strcmp(argv[1], "execute") == 0) {
		if (dup2(proven(argv[2]), CONN_FD) != CONN_FD)
			return 2;
		execv(argv[3], argv + 3);
		return 2;
	}
	/* Prove, then hand the connection on over PASS_FD, and stay. */
	if (argc == 3 && strcmp(argv[1], "hand-on") == 0)
		return attack_pass_fd(PASS_FD, proven(argv[2])) ? hold() : 2;
	fprintf(stderr, "usage: trusted hold | honest OBJECT | execute OBJECT PROGRAM ARG... | hand-on OBJECT\n");
	return 2;
}
