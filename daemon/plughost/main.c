#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "daemon/plughost/jail.h"
#include "daemon/plughost/serve.h"
#include "daemon/svc/log.h"
#include "daemon/svc/options.h"
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

/* Libraries, their settings, and what of the machine every program may see. */
static const char *const common[] = {"/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/libexec", "/usr/share", "/usr/local/lib",
	"/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/ssl", "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd",
	"/etc/group", "/dev/urandom", "/dev/random", "/dev/null", "/proc/self", "/proc/sys/crypto",
	"/sys/devices/system/cpu", NULL};

/* Read or written, NULL ends. */
struct paths {
	const char **list;
	size_t n;
};
struct options {
	const char *plugin;
	struct jail jail;
	struct paths read, write;
	bool required;
};

static bool add_path(const char *path, void *to)
{
	struct paths *p = to;

	if (p->n == PLUGHOST_PATHS_MAX)
		return false;
	p->list[p->n++] = path;
	return true;
}

static bool network(const char *text, void *to)
{
	static const char *const words[] = {
		[JAIL_NO_SOCKETS] = "none", [JAIL_LOCAL_SOCKETS] = "local", [JAIL_NETWORK] = "full"};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strcmp(text, words[i]) == 0) {
			*(enum jail_network *)to = (enum jail_network)i;
			return true;
		}
	return false;
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
	bool full;
	int plugin_fd, null, r;

	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; common[i] != NULL; i++)
		if (!add_path(common[i], &opt->read))
			return 2;
	if ((plugin_fd = open_plugin(opt->plugin, plugin)) < 0)
		return 1;
	if (!add_path(plugin, &opt->read))
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
	struct options opt = {.jail = {.uid = UINT32_MAX, .gid = UINT32_MAX}, .read = {opt.jail.read, 0}, .write = {opt.jail.write, 0}};
	const struct csm_option options[] = {{"plugin", 0, csm_option_text, &opt.plugin},
		{"uid", 0, csm_option_number, &opt.jail.uid}, {"gid", 0, csm_option_number, &opt.jail.gid},
		{"read", 0, add_path, &opt.read}, {"write", 0, add_path, &opt.write},
		{"network", 0, network, &opt.jail.network}, {"log-level", 0, csm_option_level, NULL},
		{"sandbox-required", 0, NULL, &opt.required}};
	const struct csm_program program = {"csm-plughost", usage_text, options, sizeof(options) / sizeof(options[0])};
	int status;

	if (!csm_options_read(&program, argc, argv, &status))
		return status;
	if (opt.plugin == NULL || opt.plugin[0] != '/' || (opt.jail.uid == UINT32_MAX) != (opt.jail.gid == UINT32_MAX) ||
		!csm_options_sockets(PLUGHOST_FD, 1))
		return csm_options_refuse(&program);
	return run(&opt);
}
