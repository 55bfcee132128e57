#include <getopt.h>
#include <stdio.h>
#include "daemon/central/central.h"
#include "daemon/central/serve.h"

static const char usage_text[] =
	"usage: csm-server [--config FILE] [--check]\n"
	"\n"
	"The certificate authority for many nodes; its keys are in the csmd beside it. Stays in the foreground.\n"
	"\n"
	"  -c, --config FILE  read FILE instead of /etc/csm/server.yaml\n"
	"      --check        read the configuration, say what is wrong, and exit\n"
	"      --routes       print what it serves: a line each of method, path and doors\n"
	"      --help         this text\n"
	"      --version      the version\n"
	"\n"
	"SIGHUP reads the configuration again, SIGTERM stops. See csm-server(8), server.yaml(5).\n";

enum { OPT_CHECK = 256, OPT_ROUTES, OPT_HELP, OPT_VERSION };

int main(int argc, char **argv)
{
	static const struct option options[] = {{"config", required_argument, NULL, 'c'}, {"check", no_argument, NULL, OPT_CHECK},
		{"routes", no_argument, NULL, OPT_ROUTES}, {"help", no_argument, NULL, OPT_HELP},
		{"version", no_argument, NULL, OPT_VERSION}, {NULL, 0, NULL, 0}};
	const char *config = "/etc/csm/server.yaml";
	bool check = false;
	int o;

	while ((o = getopt_long(argc, argv, "c:", options, NULL)) != -1)
		switch (o) {
		case 'c':
			config = optarg;
			break;
		case OPT_CHECK:
			check = true;
			break;
		case OPT_ROUTES:
			central_print_routes();
			return 0;
		case OPT_HELP:
			fputs(usage_text, stdout);
			return 0;
		case OPT_VERSION:
			puts("csm-server " CSM_VERSION);
			return 0;
		default:
			fputs(usage_text, stderr);
			return 2;
		}
	if (optind < argc) {
		fputs(usage_text, stderr);
		return 2;
	}
	return check ? central_serve_check(config) : central_serve(config);
}
