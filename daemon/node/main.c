#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "daemon/node/broker.h"
#include "daemon/node/supervisor.h"

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

enum { OPT_CHECK = 256, OPT_HELP, OPT_VERSION, OPT_BROKER };

int main(int argc, char **argv)
{
	static const struct option options[] = {{"config", required_argument, NULL, 'c'}, {"check", no_argument, NULL, OPT_CHECK},
		{"help", no_argument, NULL, OPT_HELP}, {"version", no_argument, NULL, OPT_VERSION},
		{"broker", no_argument, NULL, OPT_BROKER}, {NULL, 0, NULL, 0}};
	struct supervisor_options opt = {0};
	bool check = false, broker = false;
	int o;

	while ((o = getopt_long(argc, argv, "c:", options, NULL)) != -1)
		switch (o) {
		case 'c':
			opt.config = optarg;
			break;
		case OPT_CHECK:
			check = true;
			break;
		case OPT_BROKER:
			broker = true; /* only of use with the descriptors that the supervisor hands over */
			break;
		case OPT_HELP:
			fputs(usage_text, stdout);
			return 0;
		case OPT_VERSION:
			puts("csmd " CSM_VERSION);
			return 0;
		default:
			fputs(usage_text, stderr);
			return 2;
		}
	if (optind < argc) {
		fputs(usage_text, stderr);
		return 2;
	}
	if (broker)
		return broker_main();
	return check ? supervisor_check(&opt) : supervisor_main(&opt);
}
