#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "daemon/plughost/jail.h"
#include "daemon/plughost/serve.h"
#include "daemon/svc/log.h"
#include "libclient/base/lockmem.h"

#define ARENA_BYTES (512u * 1024u)

static const char usage_text[] =
	"usage: csm-plughost --plugin FILE --uid UID --gid GID [--read PATH]... [--write PATH]...\n"
	"                    [--network none|local|full] [--log-level LEVEL] [--sandbox-required]\n"
	"\n"
	"Runs one back end of csmd in a process of its own; csmd starts it where csmd.yaml has such a back end.\n"
	"Of no use by itself: descriptors 3 to 6 have to be csmd's channels. See csm-plughost(8).\n"
	"\n"
	"      --help     this text\n"
	"      --version  the version\n";

enum { OPT_PLUGIN = 256, OPT_UID, OPT_GID, OPT_READ, OPT_WRITE, OPT_NETWORK, OPT_LEVEL, OPT_REQUIRED, OPT_HELP, OPT_VERSION };

/* Libraries, their settings, and what of the machine every program may see. */
static const char *const common[] = {"/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/libexec", "/usr/share", "/usr/local/lib",
	"/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/ssl", "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd",
	"/etc/group", "/dev/urandom", "/dev/random", "/dev/null", "/proc/self", "/proc/sys/crypto",
	"/sys/devices/system/cpu", NULL};

struct options {
	const char *plugin;
	struct jail jail;
	size_t n_read, n_write;
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

static bool add_path(const char **list, size_t *n, const char *path)
{
	if (*n == PLUGHOST_PATHS_MAX)
		return false;
	list[(*n)++] = path;
	return true;
}

static bool network(const char *text, enum jail_network *ret)
{
	static const char *const words[] = {
		[JAIL_NO_SOCKETS] = "none", [JAIL_LOCAL_SOCKETS] = "local", [JAIL_NETWORK] = "full"};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strcmp(text, words[i]) == 0) {
			*ret = (enum jail_network)i;
			return true;
		}
	return false;
}

static bool take_option(struct options *opt, int o)
{
	switch (o) {
	case OPT_PLUGIN:
		opt->plugin = optarg;
		return true;
	case OPT_UID:
		return number(optarg, &opt->jail.uid);
	case OPT_GID:
		return number(optarg, &opt->jail.gid);
	case OPT_READ:
		return add_path(opt->jail.read, &opt->n_read, optarg);
	case OPT_WRITE:
		return add_path(opt->jail.write, &opt->n_write, optarg);
	case OPT_NETWORK:
		return network(optarg, &opt->jail.network);
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

/* csmd's folder of back ends may lie where only root gets to: the file is opened before the drop, and has this name then. */
static int open_plugin(const char *path, char name[static 32])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		log_err("%s: %s", path, strerror(errno));
	else
		snprintf(name, 32, "/proc/self/fd/%d", fd);
	return fd;
}

/* In the sandbox: what it loads may be anybody's. The descriptor is closed. */
static const struct csm_plugin *load_plugin(const char *path, const char *name, int fd)
{
	void *so = dlopen(name, RTLD_NOW | RTLD_LOCAL);
	const struct csm_plugin *const *p = so != NULL ? dlsym(so, "csm_plugin_export") : NULL;
	const char *why = so == NULL || p == NULL ? dlerror() : NULL;

	close(fd);
	if (p != NULL && *p != NULL && (*p)->abi == CSM_PLUGIN_ABI)
		return *p;
	log_err("%s: %s", path, why != NULL ? why : "it is not a back end of this version");
	return NULL;
}

static bool give_up_log(int null)
{
	bool good = true;

#ifndef CSM_SANITIZED /* whose reports are wanted */
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		good = good && dup2(null, fd) == fd;
#endif
	close(null);
	return good;
}

static int run(struct options *opt)
{
	static struct server s;
	char plugin[32];
	struct stat st;
	bool full;
	int plugin_fd, null, r;

	if (fstat(PLUGHOST_FD, &st) != 0 || !S_ISSOCK(st.st_mode)) {
		fputs(usage_text, stderr);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; common[i] != NULL; i++)
		if (!add_path(opt->jail.read, &opt->n_read, common[i]))
			return 2;
	if ((plugin_fd = open_plugin(opt->plugin, plugin)) < 0)
		return 1;
	if (!add_path(opt->jail.read, &opt->n_read, plugin))
		return 2;
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	r = null < 0 ? CSM_ESYSTEM : sodium_init() < 0 ? CSM_EBACKEND : csm_lockmem_init(ARENA_BYTES);
	if (r == 0)
		r = plughost_jail(&opt->jail, &full);
	if (r != 0) {
		log_err("csm-plughost cannot start: the sandbox could not be entered: %s", csm_err_text(r));
		return 1;
	}
	if (opt->required && !full) {
		log_err("csm-plughost cannot start: the sandbox is not complete");
		return 1;
	}
	s.plugin = load_plugin(opt->plugin, plugin, plugin_fd);
	if (s.plugin == NULL)
		return 1;
	log_debug("csm-plughost: serving %s", s.plugin->name);
	/* The log is csmd's: a library has host.log, whose lines are counted and marked. */
	if (!give_up_log(null))
		return 1;
	return plughost_serve(&s) != 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"plugin", required_argument, NULL, OPT_PLUGIN},
		{"uid", required_argument, NULL, OPT_UID}, {"gid", required_argument, NULL, OPT_GID},
		{"read", required_argument, NULL, OPT_READ}, {"write", required_argument, NULL, OPT_WRITE},
		{"network", required_argument, NULL, OPT_NETWORK}, {"log-level", required_argument, NULL, OPT_LEVEL},
		{"sandbox-required", no_argument, NULL, OPT_REQUIRED}, {"help", no_argument, NULL, OPT_HELP},
		{"version", no_argument, NULL, OPT_VERSION}, {NULL, 0, NULL, 0}};
	struct options opt = {.jail = {.uid = UINT32_MAX, .gid = UINT32_MAX}, .good = true};
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (o == OPT_HELP || o == OPT_VERSION) {
			fputs(o == OPT_HELP ? usage_text : "csm-plughost " CSM_VERSION "\n", stdout);
			return 0;
		}
		opt.good = take_option(&opt, o) && opt.good;
	}
	if (!opt.good || optind < argc || opt.plugin == NULL || opt.plugin[0] != '/' ||
		(opt.jail.uid == UINT32_MAX) != (opt.jail.gid == UINT32_MAX)) {
		fputs(usage_text, stderr);
		return 2;
	}
	return run(&opt);
}
