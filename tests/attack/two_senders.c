/* One message, allowed to either, of which each of two processes writes a part; or a whole one of each. */
#include <unistd.h>
#include "tests/attack/attack.h"

static enum outcome once(const struct attack *a)
{
	int fd = attack_connect();
	uint8_t out[512];
	size_t n = attack_get_bytes(1, a->plain, out), split = a->round % (n - 1) + 1;
	enum outcome o;
	pid_t pid;

	if (a->round % 2 == 0 && !attack_send(fd, out, split))
		attack_die("send");
	if (a->round % 2 != 0)
		split = 0;
	pid = attack_fork();
	if (pid == 0)
		_exit(!attack_send(fd, out + split, n - split));
	attack_reap(pid, 2000, NULL);
	o = attack_answer(fd, 1000).what;
	close(fd);
	return o;
}

int main(int argc, char **argv)
{
	return attack_run(argc, argv, once);
}
