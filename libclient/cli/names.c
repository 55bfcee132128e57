/* What a command is about: said where it fails, and looked at before anything is asked. */
#include <string.h>
#include "libclient/base/name.h"
#include "libclient/cli/cli.h"

enum name_kind { NAME_NONE, NAME_KEY, NAME_DOMAIN, NAME_SECRET };

/* By the first word of the command's arguments. */
static enum name_kind kind_of(const struct command *cmd)
{
	static const struct {
		const char *word;
		enum name_kind kind;
	} kinds[] = {{"NAME", NAME_KEY}, {"KEY", NAME_KEY}, {"DOMAIN", NAME_DOMAIN}, {"DOMAIN/NAME", NAME_SECRET}};
	size_t n = strcspn(cmd->args, " ");

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strlen(kinds[i].word) == n && strncmp(kinds[i].word, cmd->args, n) == 0)
			return kinds[i].kind == NAME_KEY && strcmp(cmd->object, "domain") == 0 ? NAME_DOMAIN : kinds[i].kind;
	return NAME_NONE;
}

static int check_name(enum name_kind kind, const char *name)
{
	struct csm_ref ref;
	struct csm_str s = csm_str_of(name);

	if ((kind == NAME_SECRET ? csm_ref_parse_secret(s, &ref) : csm_ref_parse(s, &ref)) == 0)
		return 0;
	return cli_usage("\"%s\" is no name of a %s: [NAMESPACE:]%s", name,
		kind == NAME_KEY ? "key" : kind == NAME_DOMAIN ? "domain" : "secret",
		kind == NAME_KEY ? "KEY" : kind == NAME_DOMAIN ? "DOMAIN" : "DOMAIN/NAME");
}

int cli_check_names(struct cli *cli)
{
	const char *ns = cli->value[O_NAMESPACE];
	enum name_kind kind = kind_of(cli->cmd);
	int r = 0;

	if (ns != NULL && !csm_namespace_valid(csm_str_of(ns)))
		return cli_usage("\"%s\" is no name of a namespace", ns);
	if (kind != NAME_NONE && cli->arg_n > 0) {
		cli->about = cli->arg[0];
		return check_name(kind, cli->arg[0]);
	}
	cli->about = ns;
	if (cli->cmd->opts & OPT(O_SECRET))
		for (size_t i = 0; i < cli->list_n && r == 0; i++)
			r = check_name(NAME_SECRET, cli->list[i]);
	return r;
}

/* ---- how many arguments ---- */

/* The n-th word of the command's arguments, from 0, without its dots. */
static struct csm_str word_of(const struct command *cmd, size_t n)
{
	const char *s = cmd->args;
	const char *dots;
	size_t len;

	if (strncmp(s, "-- ", 3) == 0)
		s += 3;
	for (; n > 0 && *s != '\0'; n--) {
		s += strcspn(s, " ");
		s += strspn(s, " ");
	}
	len = strcspn(s, " ");
	dots = strstr(s, "...");
	return (struct csm_str){s, dots != NULL && (size_t)(dots - s) < len ? (size_t)(dots - s) : len};
}

int cli_check_count(const struct cli *cli)
{
	const struct command *cmd = cli->cmd;
	struct csm_str word;

	if (cli->arg_n < cmd->min) {
		word = word_of(cmd, cli->arg_n);
		cli_note("%.*s is missing", (int)word.n, word.p);
	} else if (cmd->max != ARGS_ANY && cli->arg_n > cmd->max) {
		cli_note("\"%s\" is one argument too many", cli->arg[cmd->max]);
	} else {
		return 0;
	}
	fputs("usage: ", stderr);
	cli_synopsis(stderr, cmd);
	fputc('\n', stderr);
	return -EXIT_USAGE;
}
