/* The whole dispatcher on a socketpair: what a client may send, in small pieces, to a broker with a real store and the
 * scripted back end. The first byte of the input chooses the socket's role, the second the size of the pieces. What must
 * hold: no crash, no leak, every operation comes back, and the next client is served. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "daemon/node/conn.h"
#include "daemon/svc/log.h"
#include "tests/lib/testbroker.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char policy[] = "version: 1\ndefault: uid-namespaces\n";
static const enum csm_role roles[] = {CSM_R_PUBLIC, CSM_R_PUBLIC, CSM_R_ADMIN, CSM_R_ENROL, CSM_R_IDENT};
static struct testbroker broker;

static void die(const char *why)
{
	write(STDERR_FILENO, why, strlen(why));
	abort();
}

static void at_end(void)
{
	testbroker_stop(&broker);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const struct csm_plugin *const plugins[] = {&csm_plugin_fake, NULL};

	int r;

	(void)argc;
	(void)argv;
	csm_log_level(LOG_EMERG);
	r = testbroker_start(&broker, plugins, policy);
	if (r != 0) {
		fprintf(stderr, "the broker does not start: %s\n", csm_err_name(r));
		abort();
	}
	atexit(at_end);
	return 0;
}

static void drain(int fd)
{
	uint8_t sink[65536];

	while (recv(fd, sink, sizeof(sink), MSG_DONTWAIT) > 0)
		;
}

static void send_pieces(int fd, const uint8_t *p, size_t n, size_t piece)
{
	while (n > 0) {
		ssize_t sent = send(fd, p, n < piece ? n : piece, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent < 0 && errno != EAGAIN)
			return;
		if (sent > 0) {
			p += sent;
			n -= (size_t)sent;
		}
		if (!testbroker_run(&broker, 5000))
			die("an operation did not come back\n");
		drain(fd);
	}
}

static void next_client_is_served(void)
{
	struct csm_msg_ping_req ping = {.data = {(const uint8_t *)"x", 1}};
	struct csm_msg_ping_res pong;
	struct csm_buf answer;
	struct csm_pool pool;
	int fd = testbroker_connect(&broker, CSM_R_PUBLIC);

	csm_buf_init(&answer, CSM_OUT_MAX, false);
	csm_pool_init(&pool, 4096);
	if (testbroker_call(&broker, fd, "ping", &ping, &answer, &pool, &pong) != 0)
		die("the next client is not served\n");
	csm_buf_free(&answer);
	csm_pool_free(&pool);
	close(fd);
	testbroker_run(&broker, 5000);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static unsigned runs;
	int fd;

	if (size < 2)
		return 0;
	fd = testbroker_connect(&broker, roles[data[0] % (sizeof(roles) / sizeof(roles[0]))]);
	if (fd < 0)
		die("no connection\n");
	send_pieces(fd, data + 2, size - 2, 1 + data[1] % 143u);
	close(fd);
	if (!testbroker_run(&broker, 5000))
		die("an operation did not come back\n");
	if (++runs % 64 == 0)
		next_client_is_served();
	return 0;
}
