#include "daemon/node/broker.h"
#include "daemon/node/supervisor.h"
#include "daemon/svc/options.h"

static const char usage_text[] =
	"usage: csmd [--config FILE] [--check]\n"
	"\n"
	"The daemon that holds this node's keys and secrets; stays in the foreground.\n"
	"\n"
	"  -c, --config FILE  read FILE instead of /etc/csm/csmd.yaml\n"
	"      --check        read configuration and policy, say what is wrong, and exit\n"
	"      --help         this text\n"
	"      --version      the version\n"
	"\n"
	"SIGHUP reads the policy again, SIGTERM stops. See csmd(8), csmd.yaml(5), policy.yaml(5).\n";

int main(int argc, char **argv)
{
	struct supervisor_options opt = {0};
	bool check = false, broker = false;
	const struct csm_option options[] = {
		{"config", 'c', csm_option_text, &opt.config}, {"check", 0, NULL, &check},
		{"broker", 0, NULL, &broker}, /* only of use with the descriptors that the supervisor hands over */
	};
	const struct csm_program program = {"csmd", usage_text, options, sizeof(options) / sizeof(options[0])};
	int status;

	if (!csm_options_read(&program, argc, argv, &status))
		return status;
	if (broker)
		return broker_main();
	return check ? supervisor_check(&opt) : supervisor_main(&opt);
}
