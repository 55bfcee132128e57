#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "daemon/ident/hash.h"
#include "daemon/ident/jail.h"
#include "daemon/ident/look.h"
#include "daemon/ident/serve.h"
#include "daemon/svc/log.h"
#include "daemon/svc/options.h"

static const char usage_text[] =
	"usage: csm-ident --uid UID --gid GID [--log-level LEVEL] [--sandbox-required]\n"
	"\n"
	"Tells csmd which program a process runs; csmd starts it where the policy names an executable.\n"
	"Of no use by itself: descriptor 3 has to be csmd's socket. See csm-ident(8).\n"
	"\n"
	"      --help     this text\n"
	"      --version  the version\n";

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
	struct jail jail;
	bool full;
	int r;

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
	struct options opt = {UINT32_MAX, UINT32_MAX, false};
	const struct csm_option options[] = {{"uid", 0, csm_option_number, &opt.uid}, {"gid", 0, csm_option_number, &opt.gid},
		{"log-level", 0, csm_option_level, NULL}, {"sandbox-required", 0, NULL, &opt.required}};
	const struct csm_program program = {"csm-ident", usage_text, options, sizeof(options) / sizeof(options[0])};
	int status;

	if (!csm_options_read(&program, argc, argv, &status))
		return status;
	if ((opt.uid == UINT32_MAX) != (opt.gid == UINT32_MAX) || !csm_options_sockets(JAIL_SOCKET, 1))
		return csm_options_refuse(&program);
	return run(&opt);
}
