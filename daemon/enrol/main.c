#include <pthread.h>
#include <signal.h>
#include <sodium.h>
#include <stdlib.h>
#include <unistd.h>
#include <openssl/ssl.h>
#include "daemon/enrol/find.h"
#include "daemon/enrol/jail.h"
#include "daemon/enrol/task.h"
#include "daemon/enrol/tlskey.h"
#include "daemon/svc/lockheap.h"
#include "daemon/svc/log.h"
#include "daemon/svc/options.h"
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

struct options {
	uint32_t uid, gid;
	const char *dns;
	bool required;
};

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
	pthread_t thread;
	bool full;
	int r;

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

int main(int argc, char **argv)
{
	struct options opt = {UINT32_MAX, UINT32_MAX, NULL, false};
	const struct csm_option options[] = {{"uid", 0, csm_option_number, &opt.uid}, {"gid", 0, csm_option_number, &opt.gid},
		{"dns", 0, csm_option_text, &opt.dns}, {"log-level", 0, csm_option_level, NULL},
		{"sandbox-required", 0, NULL, &opt.required}};
	const struct csm_program program = {"csm-enrol", usage_text, options, sizeof(options) / sizeof(options[0])};
	int status;

	if (!csm_options_read(&program, argc, argv, &status))
		return status;
	if ((opt.uid == UINT32_MAX) != (opt.gid == UINT32_MAX) || !csm_options_sockets(TASK_CHANNEL, CSM_ENROL_CHANNELS))
		return csm_options_refuse(&program);
	return run(&opt);
}
