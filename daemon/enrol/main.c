#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <openssl/ssl.h>
#include "daemon/enrol/find.h"
#include "daemon/enrol/jail.h"
#include "daemon/enrol/task.h"
#include "daemon/enrol/tlskey.h"
#include "daemon/svc/lockheap.h"
#include "daemon/svc/log.h"
#include "daemon/svc/thread.h"
#include "libclient/base/lockmem.h"

#define ARENA_BYTES (1024u * 1024u)
#define HEAP_BYTES (64u * 1024u * 1024u)

static const char usage_text[] =
	"usage: csm-enrol --uid UID --gid GID [--dns ADDRESS[:PORT],...] [--log-level LEVEL] [--sandbox-required]\n"
	"\n"
	"Speaks with certificate authorities for csmd, which starts it where csmd.yaml has enrolment profiles.\n"
	"Of no use by itself: descriptors 3 to 6 have to be csmd's channels. See csm-enrol(8).\n"
	"\n"
	"      --help     this text\n"
	"      --version  the version\n";

enum { OPT_UID = 256, OPT_GID, OPT_DNS, OPT_LEVEL, OPT_REQUIRED, OPT_HELP, OPT_VERSION };

struct options {
	uint32_t uid, gid;
	const char *dns;
	bool required, good;
};

static bool number(const char *text, uint32_t *ret)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end != '\0' || v > UINT32_MAX)
		return false;
	*ret = (uint32_t)v;
	return true;
}

/* Any channel that ends, ends the process: csmd makes it anew, with all of them. */
static void *serve(void *arg)
{
	static struct csm_channel channels[CSM_ENROL_CHANNELS];
	size_t i = (size_t)(uintptr_t)arg;
	int r;

	csm_lock_stack();
	csm_channel_init(&channels[i], TASK_CHANNEL + (int)i);
	r = task_serve(&channels[i]);
	if (r != CSM_ECLOSED)
		log_err("csm-enrol ends: its channel failed: %s", csm_err_text(r));
	_exit(r != CSM_ECLOSED);
	return NULL;
}

static int prepare(const struct options *opt)
{
	int r = csm_lockheap_for_openssl(HEAP_BYTES);

	if (r == 0 && sodium_init() < 0)
		r = CSM_EBACKEND;
	if (r == 0)
		r = csm_lockmem_init(ARENA_BYTES);
	/* Whatever OpenSSL and libcurl read at their first use, they read before the files are out of reach. */
	if (r == 0 && OPENSSL_init_ssl(OPENSSL_INIT_LOAD_SSL_STRINGS | OPENSSL_INIT_LOAD_CRYPTO_STRINGS, NULL) != 1)
		r = CSM_EBACKEND;
	if (r == 0)
		r = csm_rest_prepare();
	if (r == 0)
		r = tlskey_prepare();
	if (r == 0)
		r = find_prepare(opt->dns, getenv("CSM_SERVER"));
	SSL_CTX_free(SSL_CTX_new(TLS_client_method()));
	return r;
}

static int run(const struct options *opt)
{
	struct stat st;
	pthread_t thread;
	bool full;
	int r;

	for (int i = 0; i < (int)CSM_ENROL_CHANNELS; i++)
		if (fstat(TASK_CHANNEL + i, &st) != 0 || !S_ISSOCK(st.st_mode)) {
			fputs(usage_text, stderr);
			return 2;
		}
	signal(SIGPIPE, SIG_IGN);
	r = prepare(opt);
	if (r == 0)
		r = enrol_jail(opt->uid, opt->gid, &full);
	if (r != 0) {
		log_err("csm-enrol cannot start: %s", csm_err_text(r));
		return 1;
	}
	if (opt->required && !full) {
		log_err("csm-enrol cannot start: the sandbox is not complete");
		return 1;
	}
	for (size_t i = 1; i < CSM_ENROL_CHANNELS; i++)
		if (csm_thread_start(&thread, serve, (void *)(uintptr_t)i) != 0) {
			log_err("csm-enrol cannot start: no thread");
			return 1;
		}
	log_debug("csm-enrol: serving");
	serve(NULL);
	return 1;
}

static bool take_option(struct options *opt, int o)
{
	switch (o) {
	case OPT_UID:
		return number(optarg, &opt->uid);
	case OPT_GID:
		return number(optarg, &opt->gid);
	case OPT_DNS:
		opt->dns = optarg;
		return true;
	case OPT_LEVEL:
		csm_log_level(csm_log_parse_level(optarg));
		return true;
	case OPT_REQUIRED:
		opt->required = true;
		return true;
	default:
		return false;
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"uid", required_argument, NULL, OPT_UID},
		{"gid", required_argument, NULL, OPT_GID}, {"dns", required_argument, NULL, OPT_DNS},
		{"log-level", required_argument, NULL, OPT_LEVEL}, {"sandbox-required", no_argument, NULL, OPT_REQUIRED},
		{"help", no_argument, NULL, OPT_HELP}, {"version", no_argument, NULL, OPT_VERSION}, {NULL, 0, NULL, 0}};
	struct options opt = {UINT32_MAX, UINT32_MAX, NULL, false, true};
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (o == OPT_HELP || o == OPT_VERSION) {
			fputs(o == OPT_HELP ? usage_text : "csm-enrol " CSM_VERSION "\n", stdout);
			return 0;
		}
		opt.good = take_option(&opt, o) && opt.good;
	}
	if (!opt.good || optind < argc || (opt.uid == UINT32_MAX) != (opt.gid == UINT32_MAX)) {
		fputs(usage_text, stderr);
		return 2;
	}
	return run(&opt);
}
