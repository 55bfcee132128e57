#include "daemon/central/central.h"
#include "daemon/central/serve.h"
#include "daemon/svc/options.h"

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

int main(int argc, char **argv)
{
	const char *config = "/etc/csm/server.yaml";
	bool check = false, routes = false;
	const struct csm_option options[] = {
		{"config", 'c', csm_option_text, &config}, {"check", 0, NULL, &check}, {"routes", 0, NULL, &routes}};
	const struct csm_program program = {"csm-server", usage_text, options, sizeof(options) / sizeof(options[0])};
	int status;

	if (!csm_options_read(&program, argc, argv, &status))
		return status;
	if (routes) {
		central_print_routes();
		return 0;
	}
	return check ? central_serve_check(config) : central_serve(config);
}
