#include <getopt.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>
#include "daemon/deliver/hook.h"
#include "daemon/deliver/jail.h"
#include "daemon/deliver/put.h"
#include "daemon/deliver/serve.h"
#include "daemon/svc/log.h"

#define SOCKET 3 /* csmd's */
#define DEFAULT_CONFIG "/etc/csm/deliver.yaml"

static const char usage_text[] =
	"usage: csm-deliver [--config FILE] [--log-level LEVEL] [--sandbox-required]\n"
	"       csm-deliver --check [--config FILE]\n"
	"\n"
	"Puts certificates of csmd's keys into the folders of deliver.yaml, and runs its hooks; csmd starts it.\n"
	"Descriptor 3 has to be csmd's socket, but for --check, which says what is wrong with the file. See\n"
	"csm-deliver(8).\n"
	"\n"
	"      --help     this text\n"
	"      --version  the version\n";

enum { OPT_CONFIG = 256, OPT_LEVEL, OPT_REQUIRED, OPT_CHECK, OPT_HELP, OPT_VERSION };

struct options {
	const char *config;
	bool required, check;
};

static int block_signals(void)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGTERM);
	if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
		return -1;
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int run(const struct options *opt)
{
	static struct delivery_config c;
	struct delivery_server s = {.sock = SOCKET, .config = &c, .state = -1};
	struct stat st;
	bool full;
	int r;

	if (fstat(SOCKET, &st) != 0 || !S_ISSOCK(st.st_mode)) {
		fputs(usage_text, stderr);
		return 2;
	}
	s.signals = block_signals();
	/* With a fault there are no targets, until the file is another one: csmd tells that. */
	if (delivery_config_read(opt->config, &c, s.config_error) != 0)
		log_err("deliver.yaml: %s", s.config_error);
	else
		s.config_error[0] = '\0';
	r = s.signals < 0 ? CSM_ESYSTEM : c.n > 0 ? delivery_state_open(c.state_dir, &s.state) : 0;
	if (r != 0)
		log_err("csm-deliver: state_dir %s has to be root's, and nobody else may write in it", c.state_dir);
	if (r == 0 && ((r = delivery_hooks_start(&c, opt->config, &s.hooks)) != 0 || (r = delivery_jail(&c, &full)) != 0))
		log_err("csm-deliver cannot start: %s", csm_err_text(r));
	if (r == 0 && opt->required && !full) {
		log_err("csm-deliver cannot start: the sandbox is not complete");
		r = CSM_EUNSUPPORTED;
	}
	if (r != 0)
		return 1;
	log_info("csm-deliver: serving, %zu targets", c.n);
	r = delivery_serve(&s);
	if (r != 0)
		log_err("csm-deliver ends: %s", csm_err_text(r));
	return r != 0;
}

static int check(const char *path)
{
	static struct delivery_config c;
	char why[DELIVERY_WHY];

	if (delivery_config_read(path, &c, why) != 0) {
		fprintf(stderr, "csm-deliver: %s: %s\n", path, why);
		return 1;
	}
	printf("%s: %zu targets\n", path, c.n);
	delivery_config_clear(&c);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"config", required_argument, NULL, OPT_CONFIG},
		{"log-level", required_argument, NULL, OPT_LEVEL}, {"sandbox-required", no_argument, NULL, OPT_REQUIRED},
		{"check", no_argument, NULL, OPT_CHECK}, {"help", no_argument, NULL, OPT_HELP},
		{"version", no_argument, NULL, OPT_VERSION}, {NULL, 0, NULL, 0}};
	struct options opt = {.config = DEFAULT_CONFIG};
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (o) {
		case OPT_CONFIG:
			opt.config = optarg;
			break;
		case OPT_LEVEL:
			csm_log_level(csm_log_parse_level(optarg));
			break;
		case OPT_REQUIRED:
			opt.required = true;
			break;
		case OPT_CHECK:
			opt.check = true;
			break;
		case OPT_HELP:
			fputs(usage_text, stdout);
			return 0;
		case OPT_VERSION:
			puts("csm-deliver " CSM_VERSION);
			return 0;
		default:
			fputs(usage_text, stderr);
			return 2;
		}
	if (optind < argc || sodium_init() < 0) {
		fputs(usage_text, stderr);
		return 2;
	}
	return opt.check ? check(opt.config) : run(&opt);
}
