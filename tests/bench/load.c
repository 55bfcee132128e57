/* Keeps csm, or what stands beside it, busy, and counts.
 *
 * usage: load WORK [--socket PATH] [--clients N] [--depth P] [--epoll | --processes] [--seconds S | --count N]
 *             [--key NAME] [--backend NAME] [--module FILE --pin PIN] [--gate]
 *
 * WORK: csm-ping csm-sign csm-get csm-put redis-get redis-set echo signer agent-sign openssl-sign pkcs11-sign
 *       libcsm-sign store-sign tls-handshake (see gen/front.c for what they take)
 *
 * N clients, blocking in a thread each (--processes: in a process each; --epoll: all in one thread), keep P requests in
 * flight each. After 0.2 s of warming up S seconds are measured. The socket is CSM_SOCKET's unless given. With --gate
 * the program says "ready" and "measured" on a line of stdout and waits each time for a line on stdin, the load going
 * on uncounted: time to read the clocks of others. The result is one JSON object on the last line of stdout. The first
 * answers of each client are checked in full; any error ends the run with status 1. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include "tests/bench/gen/gen.h"

enum { O_SOCKET = 1, O_CLIENTS, O_DEPTH, O_EPOLL, O_PROCESSES, O_SECONDS, O_COUNT, O_KEY, O_BACKEND, O_MODULE, O_PIN,
	O_GATE };

static const struct option options[] = {
	{"socket", required_argument, NULL, O_SOCKET},
	{"clients", required_argument, NULL, O_CLIENTS},
	{"depth", required_argument, NULL, O_DEPTH},
	{"epoll", no_argument, NULL, O_EPOLL},
	{"processes", no_argument, NULL, O_PROCESSES},
	{"seconds", required_argument, NULL, O_SECONDS},
	{"count", required_argument, NULL, O_COUNT},
	{"key", required_argument, NULL, O_KEY},
	{"backend", required_argument, NULL, O_BACKEND},
	{"module", required_argument, NULL, O_MODULE},
	{"pin", required_argument, NULL, O_PIN},
	{"gate", no_argument, NULL, O_GATE},
	{NULL, 0, NULL, 0},
};

static bool take_option(struct target *t, int o)
{
	switch (o) {
	case O_SOCKET: t->socket = optarg; break;
	case O_CLIENTS: t->clients = (unsigned)strtoul(optarg, NULL, 10); break;
	case O_DEPTH: t->depth = (unsigned)strtoul(optarg, NULL, 10); break;
	case O_EPOLL: t->epoll = true; break;
	case O_PROCESSES: t->processes = true; break;
	case O_SECONDS: t->seconds = strtod(optarg, NULL); break;
	case O_COUNT: t->count = strtoull(optarg, NULL, 10); break;
	case O_KEY: t->key = optarg; break;
	case O_BACKEND: t->backend = optarg; break;
	case O_MODULE: t->module = optarg; break;
	case O_PIN: t->pin = optarg; break;
	case O_GATE: t->gate = true; break;
	default: return false;
	}
	return true;
}

static bool parse(int argc, char **argv, struct target *t)
{
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (!take_option(t, o))
			return false;
	if (optind != argc - 1 || (t->work = work_find(argv[optind])) == NULL)
		return false;
	/* A call waits for its end: nothing of depth, or of one loop for all. */
	if (t->work->call != NULL && (t->epoll || t->depth != 1))
		return false;
	return t->clients >= 1 && t->clients <= GEN_CLIENTS_MAX && t->depth >= 1 && t->depth <= GEN_DEPTH_MAX &&
		!(t->epoll && t->processes) && (t->count > 0 || t->seconds > 0);
}

static double cpu_seconds(int who)
{
	struct rusage u;

	getrusage(who, &u);
	return (double)u.ru_utime.tv_sec + (double)u.ru_stime.tv_sec +
		(double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void print_result(const struct target *t, const struct result *res)
{
	const struct hist *h = &res->hist;

	printf("{\"work\": \"%s\", \"clients\": %u, \"depth\": %u, \"mode\": \"%s\", \"seconds\": %.3f, \"requests\": %llu, "
	       "\"rate\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, \"client_cpu_seconds\": %.3f}\n",
		t->work->name, t->clients, t->depth,
		t->epoll ? "epoll" : t->processes ? "blocking processes" : "blocking threads", res->seconds,
		(unsigned long long)h->count, (double)h->count / res->seconds, (double)hist_quantile(h, 0.5) / 1e3,
		(double)hist_quantile(h, 0.99) / 1e3, (double)h->max / 1e3,
		cpu_seconds(RUSAGE_SELF) + cpu_seconds(RUSAGE_CHILDREN));
}

int main(int argc, char **argv)
{
	static struct result res;
	struct target t = {
		.clients = 1, .depth = 1, .seconds = 1, .key = "bench", .pin = "1234", .socket = getenv("CSM_SOCKET")};

	if (!parse(argc, argv, &t)) {
		fprintf(stderr, "usage: load WORK [OPTION]..., see the head of load.c\n");
		return 2;
	}
	if ((t.work->prepare != NULL && t.work->prepare(&t) != 0) || run_load(&t, &res) != 0)
		return 1;
	print_result(&t, &res);
	EVP_PKEY_free(t.public);
	return 0;
}
