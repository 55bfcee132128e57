/* csm(1): command line to command. */
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "libclient/base/lockmem.h"
#include "libclient/cli/cli.h"

#define DEFAULT_ADMIN "/run/csm/admin.sock"
#define ARENA_BYTES (1024u * 1024u)
#define ARENA_OPENSSL (4u * 1024u * 1024u) /* with all that OpenSSL allocates */

void cli_note(const char *fmt, ...)
{
	va_list ap;

	fputs("csm: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

static int exit_status(int r)
{
	static const int by_class[] = {
		[CSM_CLASS_FAILED] = 1,
		[CSM_CLASS_DENIED] = 3,
		[CSM_CLASS_NOT_FOUND] = 4,
		[CSM_CLASS_UNREACHABLE] = 5,
		[CSM_CLASS_RETRY] = 6,
		[CSM_CLASS_CONFLICT] = 7,
	};

	return r < 0 ? -r : r == 0 ? 0 : by_class[csm_err_class(r)];
}

/* ---- options ---- */

/* getopt's value of an option: its index, above all letters. */
#define GETOPT_BASE 256

static void getopt_tables(struct option longs[static O__COUNT + 1], char shorts[static 2 * O__COUNT + 2])
{
	size_t i, k = 0;

	/* "-": arguments come in their order, as option 1 */
	shorts[k++] = '-';
	for (i = 0; i < O__COUNT; i++) {
		longs[i] = (struct option){cli_opts[i].name, cli_opts[i].arg != NULL, NULL, GETOPT_BASE + (int)i};
		if (cli_opts[i].letter == 0)
			continue;
		shorts[k++] = cli_opts[i].letter;
		if (cli_opts[i].arg != NULL)
			shorts[k++] = ':';
	}
	shorts[k] = '\0';
	longs[O__COUNT] = (struct option){0};
}

static int opt_index(int c)
{
	int i;

	if (c >= GETOPT_BASE)
		return c - GETOPT_BASE;
	for (i = 0; i < O__COUNT; i++)
		if (cli_opts[i].letter == c)
			return i;
	return -1;
}

static int take_option(struct cli *cli, int id, const char *arg)
{
	/* wrap-key has one, csm token as many as there are names */
	bool names = id == O_NAME && cli->arg_n > 0 && strcmp(cli->arg[0], "token") == 0;

	if (names || id == O_SAN || id == O_AS || id == O_SECRET || id == O_CA || id == O_PERMIT || id == O_EXCLUDE) {
		if (cli->list_n == OPT_LIST_MAX)
			return cli_usage("--%s is given too often", cli_opts[id].name);
		cli->list_of[cli->list_n] = (unsigned char)id;
		cli->list[cli->list_n++] = arg;
	} else if (cli->value[id] != NULL && arg != NULL) {
		return cli_usage("--%s is given twice", cli_opts[id].name);
	}
	cli->value[id] = arg != NULL ? arg : "";
	return 0;
}

static int parse(struct cli *cli, int argc, char **argv)
{
	struct option longs[O__COUNT + 1];
	char shorts[2 * O__COUNT + 2];
	int c, r;

	getopt_tables(longs, shorts);
	while ((c = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		if (c == 1) {
			cli->arg[cli->arg_n++] = optarg;
			/* options of the command that exec runs are not ours, also where "--" was forgotten */
			if (cli->arg_n == 2 && strcmp(cli->arg[0], "exec") == 0)
				break;
			continue;
		}
		if (opt_index(c) < 0)
			return -EXIT_USAGE; /* getopt has said why */
		r = take_option(cli, opt_index(c), optarg);
		if (r != 0)
			return r;
	}
	while (optind < argc)
		cli->arg[cli->arg_n++] = argv[optind++];
	cli->json = cli->value[O_JSON] != NULL;
	return 0;
}

/* ---- the command ---- */

/* How many arguments after the object are the row's verb ("show", "cert show"); 0: they are another one's. */
static size_t verb_words(const struct command *cmd, const struct cli *cli)
{
	const char *verb = cmd->verb;
	size_t i;

	for (i = 1; verb != NULL && *verb != '\0'; i++) {
		size_t n = strcspn(verb, " ");

		if (i >= cli->arg_n || strlen(cli->arg[i]) != n || strncmp(cli->arg[i], verb, n) != 0)
			return 0;
		verb += n + (verb[n] == ' ');
	}
	return i - 1;
}

/* Find the row of the first arguments, and take these off. */
static int find_command(struct cli *cli)
{
	const char *object = cli->arg_n > 0 ? cli->arg[0] : NULL;
	const char *verb = cli->arg_n > 1 ? cli->arg[1] : NULL;
	bool known = false;
	size_t i, words;

	for (i = 0; object != NULL && i < cli_commands_n; i++) {
		const struct command *cmd = &cli_commands[i];

		if (strcmp(cmd->object, object) != 0)
			continue;
		known = true;
		words = verb_words(cmd, cli);
		if (cmd->verb != NULL && words == 0)
			continue;
		cli->cmd = cmd;
		cli->arg += 1 + words;
		cli->arg_n -= 1 + words;
		return 0;
	}
	if (known && (verb == NULL || cli->value[O_HELP] != NULL)) {
		if (cli->value[O_HELP] == NULL)
			cli_note("%s: what to do is missing, one of:", object);
		cli_help_object(cli->value[O_HELP] != NULL ? stdout : stderr, object);
		return cli->value[O_HELP] != NULL ? 0 : -EXIT_USAGE;
	}
	if (known)
		return cli_usage("csm %s has no %s: \"csm help %s\" lists what it has", object, verb, object);
	if (object != NULL)
		return cli_usage("there is no command %s: \"csm help\" lists them", object);
	cli_help(cli->value[O_HELP] != NULL ? stdout : stderr);
	return cli->value[O_HELP] != NULL ? 0 : -EXIT_USAGE;
}

/* A word of the list, or words with commas between. */
static bool is_word(const char *words, const char *value, size_t n)
{
	for (; *words != '\0'; words += strspn(words, " ")) {
		size_t len = strcspn(words, " ");

		if (len == n && memcmp(words, value, n) == 0)
			return true;
		words += len;
	}
	return false;
}

static int check_words(const struct cli *cli, int i)
{
	const char *at = cli->value[i], *words = cli_opts[i].values;

	do {
		size_t n = i == O_USE ? strcspn(at, ",") : strlen(at);

		if (!is_word(words, at, n))
			return cli_usage("--%s %s: it is one of %s", cli_opts[i].name, cli->value[i], words);
		at += n + (at[n] != '\0');
	} while (*at != '\0');
	return 0;
}

static int check_command(const struct cli *cli)
{
	static const int words[] = {O_ALG, O_USE, O_SCHEME};
	const struct command *cmd = cli->cmd;
	int i;

	for (i = 0; i < O__COUNT; i++)
		if (cli->value[i] != NULL && ((cmd->opts | OPTS_GLOBAL) & OPT(i)) == 0)
			return cli_usage("csm %s%s%s does not take --%s", cmd->object, cmd->verb != NULL ? " " : "",
				cmd->verb != NULL ? cmd->verb : "", cli_opts[i].name);
	for (size_t k = 0; k < sizeof(words) / sizeof(words[0]); k++)
		if (cli->value[words[k]] != NULL && check_words(cli, words[k]) != 0)
			return -EXIT_USAGE;
	return cli_check_count(cli);
}

/* As a word of its own, not as part of one: a key may be called a. */
static bool names(const char *text, const char *about)
{
	static const char inside[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-/";
	size_t n = strlen(about);

	for (const char *at = strstr(text, about); at != NULL && n > 0; at = strstr(at + 1, about))
		if ((at == text || strchr(inside, at[-1]) == NULL) && (at[n] == '\0' || strchr(inside, at[n]) == NULL))
			return n > 1 || (at > text && at[-1] == '"');
	return false;
}

/* What went wrong, and with what, unless the text says so itself. */
static void tell(const struct cli *cli, int r)
{
	const char *text = csm_error_message(), *about = cli->about;

	if (*text == '\0')
		text = csm_error_text(r);
	if (about == NULL || csm_err_class(r) == CSM_CLASS_UNREACHABLE || names(text, about))
		cli_note("%s: %s", csm_error_name(r), text);
	else
		cli_note("%s: %s: %s", csm_error_name(r), about, text);
	if (r == CSM_EDENIED && cli->cmd->socket == SOCK_ADMIN && geteuid() != 0)
		cli_note("csm %s%s%s is for root", cli->cmd->object, cli->cmd->verb != NULL ? " " : "",
			cli->cmd->verb != NULL ? cli->cmd->verb : "");
}

/* ---- the daemon ---- */

static int settings(const struct cli *cli, struct csm *csm)
{
	const char *t = cli->value[O_TIMEOUT];
	uint64_t seconds;
	int r;

	if (t != NULL) {
		r = parse_u64("--timeout", t, 86400, &seconds);
		if (r != 0)
			return r;
		csm_set_timeout(csm, (uint32_t)seconds * 1000u);
	}
	csm_set_trust_overflow(csm, cli->value[O_TRUST_OVERFLOW] != NULL);
	return 0;
}

static int open_admin(struct cli *cli)
{
	const char *path = secure_getenv("CSM_ADMIN_SOCKET");

	return csm_set_socket(cli->csm, path != NULL && *path != '\0' ? path : DEFAULT_ADMIN);
}

/* uid 0 asks on the administrator's socket, where that is to be had. */
static int open_admin_of_root(struct cli *cli)
{
	struct csm *public = cli->csm;
	int r;

	if (geteuid() != 0)
		return 0;
	r = csm_new(&cli->csm);
	if (r == 0)
		r = settings(cli, cli->csm);
	if (r == 0)
		r = open_admin(cli);
	if (r == 0 && csm_ping(cli->csm) == 0) {
		csm_free(public);
		return 0;
	}
	csm_free(cli->csm);
	cli->csm = public;
	return 0;
}

static int open_daemon(struct cli *cli)
{
	int r;

	if (cli->cmd->socket == SOCK_NONE)
		return 0;
	r = csm_new(&cli->csm);
	if (r == 0)
		r = settings(cli, cli->csm);
	if (r != 0)
		return r;
	if (cli->value[O_SOCKET] != NULL)
		return csm_set_socket(cli->csm, cli->value[O_SOCKET]);
	if (cli->cmd->socket == SOCK_ADMIN || cli->value[O_EXISTING] != NULL)
		return open_admin(cli);
	if (cli->cmd->socket == SOCK_ADMIN_OF_ROOT)
		return open_admin_of_root(cli);
	return 0;
}

static int run(struct cli *cli)
{
	int r;

	if (cli->value[O_HELP] != NULL) {
		cli_help_command(stdout, cli->cmd);
		return 0;
	}
	r = check_command(cli);
	if (r == 0)
		r = cli_check_names(cli);
	if (r != 0)
		return r;
	r = open_daemon(cli);
	if (r == 0)
		r = cli->cmd->run(cli);
	if (r > 0)
		tell(cli, r);
	csm_free(cli->csm);
	return r;
}

/* Values of secrets pass through this process: no core file, no ptrace. A command that is executed
 * starts without this. */
static void harden(int argc, char **argv)
{
	size_t arena = ARENA_BYTES;

	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], "wrap-key") == 0 || strcmp(argv[i], "import") == 0 || strcmp(argv[i], "ca") == 0 ||
			strcmp(argv[i], "token") == 0)
			arena = ARENA_OPENSSL;
#ifndef CSM_SANITIZED
	(void)prctl(PR_SET_DUMPABLE, 0);
#endif
	if (csm_lockmem_init(arena) != 0)
		cli_note("no locked memory: secrets may reach swap space");
}

int main(int argc, char **argv)
{
	struct cli cli = {0};
	char **args = calloc((size_t)argc + 1, sizeof(*args));
	int r;

	if (args == NULL) {
		cli_note("out of memory");
		return 1;
	}
	harden(argc, argv);
	cli.arg = args;
	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		printf("csm %s\n", csm_version());
	} else if (argc == 2 && strcmp(argv[1], "--dump-man") == 0) {
		cli_dump_man(stdout);
	} else if (argc == 2 && strcmp(argv[1], "--dump-completion") == 0) {
		cli_dump_completion(stdout);
	} else {
		r = parse(&cli, argc, argv);
		if (r == 0)
			r = find_command(&cli);
		if (r == 0 && cli.cmd != NULL)
			r = run(&cli);
		cli.status = r != 0 ? exit_status(r) : cli.status;
	}
	if (fflush(stdout) != 0 && cli.status == 0) {
		cli_note("the output cannot be written");
		cli.status = 1;
	}
	free(args);
	return cli.status;
}
