/* Requests that policy allows, with descriptors sent along: one or sixteen, with the first byte or a later one. */
#include <unistd.h>
#include "tests/attack/attack.h"

static enum outcome once(const struct attack *a)
{
	int fd = attack_connect(), count = a->round % 2 == 0 ? 1 : 16;
	size_t n, split;
	uint8_t out[512];
	enum outcome o;

	n = attack_get_bytes(1, a->plain, out);
	split = a->round % 3 == 0 ? 0 : a->round % n;
	if (split > 0 && !attack_send(fd, out, split))
		attack_die("send");
	/* Where the kernel refuses the sender already, there is nothing more to see. */
	if (!attack_send_with_fds(fd, out + split, n - split, count)) {
		close(fd);
		return ATTACK_REFUSED;
	}
	o = attack_answer(fd, 1000).what;
	close(fd);
	return o;
}

int main(int argc, char **argv)
{
	return attack_run(argc, argv, once);
}
