#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include "daemon/deliver/hook.h"
#include "daemon/deliver/jail.h"
#include "daemon/deliver/put.h"
#include "daemon/deliver/serve.h"
#include "daemon/svc/log.h"
#include "daemon/svc/options.h"

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
	bool full;
	int r;

	s.signals = block_signals();
	/* With a fault there are no targets, until the file is another one: csmd tells that. */
	if (delivery_config_read(opt->config, &c, s.config_error) != 0)
		log_err("deliver.yaml: %s", s.config_error);
	else
		s.config_error[0] = '\0';
	r = s.signals < 0 ? CSM_ESYSTEM : c.n > 0 ? delivery_state_open(c.state_dir, &s.state) : 0;
	if (r != 0)
		log_err("csm-deliver: state_dir %s has to be root's, and nobody else may write in it", c.state_dir);
	if (r == 0)
		r = delivery_hooks_start(&c, opt->config, &s.hooks);
	for (size_t i = 0; r == 0 && i < DELIVERY_LANES; i++)
		r = delivery_hooks_start(&c, opt->config, &s.lane[i]);
	if (r == 0)
		r = delivery_jail(&c, &full);
	if (r != 0)
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
	struct options opt = {.config = DEFAULT_CONFIG};
	const struct csm_option options[] = {{"config", 0, csm_option_text, &opt.config}, {"log-level", 0, csm_option_level, NULL},
		{"sandbox-required", 0, NULL, &opt.required}, {"check", 0, NULL, &opt.check}};
	const struct csm_program program = {"csm-deliver", usage_text, options, sizeof(options) / sizeof(options[0])};
	int status;

	if (!csm_options_read(&program, argc, argv, &status))
		return status;
	if (sodium_init() < 0 || (!opt.check && !csm_options_sockets(SOCKET, 1)))
		return csm_options_refuse(&program);
	return opt.check ? check(opt.config) : run(&opt);
}
