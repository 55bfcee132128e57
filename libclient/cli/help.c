/* Help texts, made from the tables. */
#include <string.h>
#include "libclient/cli/cli.h"

void cli_synopsis(FILE *f, const struct command *cmd)
{
	int i;

	fprintf(f, "csm %s", cmd->object);
	if (cmd->verb != NULL)
		fprintf(f, " %s", cmd->verb);
	for (i = 0; i < O__COUNT; i++) {
		const struct opt *o = &cli_opts[i];

		if ((cmd->opts & OPT(i)) == 0)
			continue;
		if (i == O_SECRET)
			fprintf(f, " --%s %s", o->name, o->arg); /* the one that has to be there */
		else if (o->letter != 0)
			fprintf(f, " [-%c %s]", o->letter, o->arg);
		else
			fprintf(f, " [--%s%s%s]", o->name, o->arg != NULL ? " " : "", o->arg != NULL ? o->arg : "");
	}
	if (cmd->args[0] != '\0')
		fprintf(f, " %s", cmd->args);
}

static void command_line(FILE *f, const struct command *cmd)
{
	char name[64];

	(void)snprintf(name, sizeof(name), "%s%s%s%s%s", cmd->object, cmd->verb != NULL ? " " : "",
		cmd->verb != NULL ? cmd->verb : "", cmd->args[0] != '\0' ? " " : "", cmd->args);
	fprintf(f, "  %-36s %s\n", name, cmd->help);
}

static void option_line(FILE *f, const struct opt *o)
{
	char name[64];
	char letter[8] = "    ";

	if (o->letter != 0)
		(void)snprintf(letter, sizeof(letter), "-%c, ", o->letter);
	(void)snprintf(name, sizeof(name), "%s--%s%s%s", letter, o->name, o->arg != NULL ? " " : "",
		o->arg != NULL ? o->arg : "");
	fprintf(f, "  %-26s %s\n", name, o->help);
}

static void options(FILE *f, opt_set which)
{
	int i;

	for (i = 0; i < O__COUNT; i++)
		if ((which & OPT(i)) != 0)
			option_line(f, &cli_opts[i]);
}

void cli_help(FILE *f)
{
	size_t i;

	fputs("usage: csm OBJECT VERB [OPTION]... [ARGUMENT]...\n\n", f);
	for (i = 0; i < cli_commands_n; i++)
		command_line(f, &cli_commands[i]);
	fputs("\nOptions of every command:\n", f);
	options(f, OPTS_GLOBAL);
	fputs("\nNames: a key is [NAMESPACE:]KEY, a secret [NAMESPACE:]DOMAIN/NAME. \"csm help OBJECT VERB\" tells more,\n"
	      "\"csm --version\" which version this is, csm(1) which variables say where csmd and csm-server are.\n", f);
}

void cli_help_object(FILE *f, const char *object)
{
	size_t i;

	for (i = 0; i < cli_commands_n; i++)
		if (strcmp(cli_commands[i].object, object) == 0)
			command_line(f, &cli_commands[i]);
}

void cli_help_command(FILE *f, const struct command *cmd)
{
	fputs("usage: ", f);
	cli_synopsis(f, cmd);
	fprintf(f, "\n\n%c%s.%s%s\n", cmd->help[0] - ('a' - 'A'), cmd->help + 1, cmd->text != NULL ? "\n" : "",
		cmd->text != NULL ? cmd->text : "");
	if (cmd->opts != 0)
		fputs("\nOptions:\n", f);
	options(f, cmd->opts);
	fputs("\nOptions of every command:\n", f);
	options(f, OPTS_GLOBAL);
}

int cmd_help(struct cli *cli)
{
	bool found = false;
	size_t i;

	if (cli->arg_n == 0) {
		cli_help(stdout);
		return 0;
	}
	for (i = 0; i < cli_commands_n; i++) {
		const struct command *cmd = &cli_commands[i];

		if (strcmp(cmd->object, cli->arg[0]) != 0)
			continue;
		if (cmd->verb != NULL && cli->arg_n > 1 && strcmp(cmd->verb, cli->arg[1]) != 0)
			continue;
		if (cmd->verb == NULL || cli->arg_n > 1)
			cli_help_command(stdout, cmd);
		else
			command_line(stdout, cmd);
		found = true;
	}
	return found ? 0 : cli_usage("there is no such command: \"csm help\" lists them");
}
