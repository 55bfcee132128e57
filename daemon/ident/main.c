#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>
#include "daemon/ident/hash.h"
#include "daemon/ident/jail.h"
#include "daemon/ident/look.h"
#include "daemon/ident/serve.h"
#include "daemon/svc/log.h"

static const char usage_text[] =
	"usage: csm-ident --uid UID --gid GID [--log-level LEVEL] [--sandbox-required]\n"
	"\n"
	"Tells csmd which program a process runs; csmd starts it where the policy names an executable.\n"
	"Of no use by itself: descriptor 3 has to be csmd's socket. See csm-ident(8).\n"
	"\n"
	"      --help     this text\n"
	"      --version  the version\n";

enum { OPT_UID = 256, OPT_GID, OPT_LEVEL, OPT_REQUIRED, OPT_HELP, OPT_VERSION };

static bool number(const char *text, uint32_t *ret)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end != '\0' || v > UINT32_MAX)
		return false;
	*ret = (uint32_t)v;
	return true;
}

/* The kernel may be told to give every program the same addresses: then two could not be told apart. */
static bool addresses_are_random(void)
{
	char text[4] = "";
	int fd = open("/proc/sys/kernel/randomize_va_space", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	return n > 0 && text[0] != '0';
}

struct options {
	uint32_t uid, gid;
	bool required;
};

static int run(const struct options *opt)
{
	struct stat st;
	struct jail jail;
	bool full;
	int r;

	if (fstat(JAIL_SOCKET, &st) != 0 || !S_ISSOCK(st.st_mode)) {
		fputs(usage_text, stderr);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	if (!addresses_are_random()) {
		log_err("kernel.randomize_va_space is 0 or cannot be read: programs cannot be told apart");
		return 1;
	}
	jail.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = jail.wake < 0 ? CSM_ESYSTEM : 0;
	if (r != 0 || (r = hash_init()) != 0 || (r = look_init(&jail.how)) != 0 ||
		(r = jail_enter(opt->uid, opt->gid, &jail, &full)) != 0) {
		log_err("csm-ident cannot start: %s", csm_err_text(r));
		return 1;
	}
	if (opt->required && !full) {
		log_err("csm-ident cannot start: the sandbox is not complete");
		return 1;
	}
	log_info("csm-ident: serving");
	r = serve(JAIL_SOCKET, jail.wake);
	if (r != 0)
		log_err("csm-ident ends: %s", csm_err_text(r));
	return r != 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"uid", required_argument, NULL, OPT_UID},
		{"gid", required_argument, NULL, OPT_GID}, {"log-level", required_argument, NULL, OPT_LEVEL},
		{"sandbox-required", no_argument, NULL, OPT_REQUIRED}, {"help", no_argument, NULL, OPT_HELP},
		{"version", no_argument, NULL, OPT_VERSION}, {NULL, 0, NULL, 0}};
	struct options opt = {UINT32_MAX, UINT32_MAX, false};
	bool good = true;
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (o) {
		case OPT_UID:
			good = good && number(optarg, &opt.uid);
			break;
		case OPT_GID:
			good = good && number(optarg, &opt.gid);
			break;
		case OPT_LEVEL:
			csm_log_level(csm_log_parse_level(optarg));
			break;
		case OPT_REQUIRED:
			opt.required = true;
			break;
		case OPT_HELP:
			fputs(usage_text, stdout);
			return 0;
		case OPT_VERSION:
			puts("csm-ident " CSM_VERSION);
			return 0;
		default:
			good = false;
		}
	if (!good || optind < argc || (opt.uid == UINT32_MAX) != (opt.gid == UINT32_MAX)) {
		fputs(usage_text, stderr);
		return 2;
	}
	return run(&opt);
}
