/* The manual csm(1) and the bash completion, made from the tables. */
#include <string.h>
#include "libclient/cli/cli.h"

/* Text for roff: a hyphen that is typed is \-, a backslash \e, and no line begins with a dot. */
static void roff(FILE *f, const char *s)
{
	for (; *s != '\0'; s++) {
		if (*s == '-')
			fputs("\\-", f);
		else if (*s == '\\')
			fputs("\\e", f);
		else
			fputc(*s, f);
	}
}

static void roff_option(FILE *f, const struct opt *o)
{
	fputs(".TP\n", f);
	if (o->letter != 0)
		fprintf(f, "\\fB\\-%c\\fR, ", o->letter);
	fputs("\\fB\\-\\-", f);
	roff(f, o->name);
	fputs("\\fR", f);
	if (o->arg != NULL)
		fprintf(f, " \\fI%s\\fR", o->arg);
	fputc('\n', f);
	fputc(o->help[0] >= 'a' && o->help[0] <= 'z' ? o->help[0] - ('a' - 'A') : o->help[0], f);
	roff(f, o->help + 1);
	fputs(".\n", f);
}

/* What --json prints: the row's words, or the fields of the method's answer. */
static void roff_json(FILE *f, const struct command *cmd)
{
	const struct csm_msgdef *def = cmd->method >= 0 ? csm_methods[cmd->method].response : NULL;
	size_t i;

	if (cmd->json == NULL && (def == NULL || def->n_fields == 0))
		return;
	fputs(".IP\nJSON: ", f);
	if (cmd->json != NULL) {
		roff(f, cmd->json);
		fputs(".\n", f);
		return;
	}
	for (i = 0; i < def->n_fields; i++)
		fprintf(f, "%s%s%s%s", i > 0 ? ", " : "", def->fields[i].name,
			def->fields[i].kind == CSM_K_STRS || def->fields[i].kind == CSM_K_MAPS ? "[]" : "",
			def->fields[i].presence == CSM_P_OPT ? " (optional)" : "");
	fputs(".\n", f);
}

static void roff_command(FILE *f, const struct command *cmd)
{
	int i;

	fprintf(f, ".TP\n\\fBcsm %s%s%s\\fR", cmd->object, cmd->verb != NULL ? " " : "", cmd->verb != NULL ? cmd->verb : "");
	for (i = 0; i < O__COUNT; i++) {
		if ((cmd->opts & OPT(i)) == 0)
			continue;
		fputs(i == O_SECRET ? " \\fB" : " [\\fB", f);
		roff(f, cli_opts[i].letter != 0 ? "-" : "--");
		if (cli_opts[i].letter != 0)
			fputc(cli_opts[i].letter, f);
		else
			roff(f, cli_opts[i].name);
		fputs("\\fR", f);
		if (cli_opts[i].arg != NULL)
			fprintf(f, " \\fI%s\\fR", cli_opts[i].arg);
		fputs(i == O_SECRET ? "" : "]", f);
	}
	if (cmd->args[0] != '\0') {
		fputs(" \\fI", f);
		roff(f, cmd->args);
		fputs("\\fR", f);
	}
	fprintf(f, "\n%c", cmd->help[0] - ('a' - 'A'));
	roff(f, cmd->help + 1);
	fputs(".\n", f);
	if (cmd->text != NULL) {
		roff(f, cmd->text);
		fputc('\n', f);
	}
	roff_json(f, cmd);
}

static const char man_head[] =
	".SH NAME\ncsm \\- keys and secrets of this node\n"
	".SH SYNOPSIS\n\\fBcsm\\fR \\fIOBJECT\\fR \\fIVERB\\fR [\\fIOPTION\\fR]... [\\fIARGUMENT\\fR]...\n"
	".br\n\\fBcsm \\-\\-version\\fR\n"
	".SH DESCRIPTION\n\\fBcsm\\fR asks the node's daemon,\n.BR csmd (8),\n"
	"to make and use keys and secrets that the caller never holds. Who the caller is, the kernel tells the daemon; "
	"what the caller may do, its policy says.\n.PP\n"
	"A key is named [\\fINAMESPACE\\fR:]\\fIKEY\\fR, a secret [\\fINAMESPACE\\fR:]\\fIDOMAIN\\fR/\\fINAME\\fR. "
	"Without a namespace the caller's home is meant, as \\fBcsm whoami\\fR shows it. A namespace has 1 to 63 lower case "
	"letters, digits, dots, hyphens and underscores and begins with a letter or digit. The other names have 1 to 128 bytes "
	"of UTF\\-8, without control characters and without / : * ? [ and \\e, and begin with neither . nor \\-.\n.PP\n"
	"What changes the node as a whole goes to the administrator's socket, which is for root alone: \\fBpolicy\\fR, "
	"\\fBstore\\fR, \\fBaudit\\fR, \\fBrecovery\\fR, \\fBreseal\\fR, \\fBkey export\\fR, \\fBattest activate\\fR. On it root can "
	"also list, show and delete what lies in any namespace, and use none of it: "
	"\\fBcsm \\-\\-socket /run/csm/admin.sock key list \\-\\-namespace uid\\-1000\\fR.\n.PP\n"
	"Data goes to standard output, messages to standard error. With \\fB\\-\\-json\\fR, standard output holds one "
	"JSON object or array and nothing else: field names are those of the protocol, bytes are base64, public keys PEM, "
	"times seconds since 1970.\n";

static const char man_tail[] =
	".SH EXIT STATUS\n"
	".TP\n0\nDone.\n.TP\n1\nFailed.\n.TP\n2\nWrong usage, a name that is not well formed, or what csm\\-server calls malformed.\n.TP\n3\nDenied: policy does not allow it, or the object "
	"does not exist and the caller may not know.\n.TP\n4\nNot found.\n.TP\n5\nThe daemon cannot be reached.\n.TP\n6\n"
	"Busy, or a deadline passed: the same again later may work.\n.TP\n7\nThe object exists already, or changed "
	"meanwhile.\n"
	".SH ENVIRONMENT\n"
	".TP\n\\fBCSM_SOCKET\\fR\nThe daemon's socket; /run/csm.sock unless set.\n"
	".TP\n\\fBCSM_ADMIN_SOCKET\\fR\nThe administrator's socket, which policy and store commands use; "
	"/run/csm/admin.sock unless set.\n"
	".TP\n\\fBCSM_SERVER\\fR, \\fBCSM_CACERT\\fR\nWhere csm-server is for \\fBcsm ca\\fR and \\fBcsm token\\fR, as "
	"https://HOST:PORT, and the file with the root certificate that it has to lead to.\n"
	".TP\n\\fBCSM_ADMIN_CERT\\fR, \\fBCSM_ADMIN_KEY\\fR, \\fBCSM_TOKEN\\fR\nWhose request it is to csm-server: the files "
	"of a certificate and its key, or a token.\n"
	".TP\n\\fBCSM_SERVER_ADMIN_SOCKET\\fR\ncsm-server's administration socket, which is asked where \\fBCSM_SERVER\\fR is not set, as before there "
	"is an administrator; /run/csm/server-admin.sock unless set.\n"
	".TP\n\\fBXDG_RUNTIME_DIR\\fR\nWhere \\fBcsm exec\\fR makes its folder, if that is a tmpfs; else in /dev/shm.\n"
	".SH EXAMPLES\n"
	".EX\n"
	"csm key create web\n"
	"csm sign web message.bin \\-o message.sig\n"
	"csm key public web > web.pub\n"
	"openssl dgst \\-sha256 \\-verify web.pub \\-signature message.sig message.bin\n"
	"csm csr web \\-\\-subject /CN=www.example.org \\-\\-san dns:www.example.org\n"
	"csm domain create db\n"
	"csm secret set db/main user=app password=@password.txt\n"
	"csm exec \\-\\-secret db/main \\-\\- sh \\-c \\(aqcat \\(dq$CSM_SECRETS/password\\(dq\\(aq\n"
	".EE\n"
	".SH SEE ALSO\n.BR csm-provider (7),\n.BR csm-pkcs11 (7),\n.BR libcsm (3),\n.BR csmd.yaml (5),\n.BR policy.yaml (5),\n.BR csmd (8)\n";

void cli_dump_man(FILE *f)
{
	size_t i;

	fprintf(f, ".TH CSM 1 \"\" \"csm %s\" \"User Commands\"\n", csm_version());
	fputs(man_head, f);
	fputs(".SH COMMANDS\n", f);
	for (i = 0; i < cli_commands_n; i++)
		roff_command(f, &cli_commands[i]);
	fputs(".SH OPTIONS\n", f);
	for (i = 0; i < O__COUNT; i++)
		roff_option(f, &cli_opts[i]);
	fputs(man_tail, f);
}

/* ---- completion ---- */

/* The bytes of a verb's first word, where it has two, as "cert list" of `csm ca`; else 0. */
static int group_size(const struct command *cmd)
{
	const char *space = cmd->verb != NULL ? strchr(cmd->verb, ' ') : NULL;

	return space != NULL ? (int)(space - cmd->verb) : 0;
}

/* Whether the command before `i` is not of the same object and group. */
static bool begins_group(size_t i)
{
	const struct command *cmd = &cli_commands[i], *before = i > 0 ? cmd - 1 : NULL;
	int n = group_size(cmd);

	return before == NULL || n != group_size(before) || strcmp(cmd->object, before->object) != 0 ||
		strncmp(cmd->verb, before->verb, (size_t)n) != 0;
}

/* The words after `object`: its verbs' first words, each once; or for NULL, the objects. */
static void words(FILE *f, const char *object)
{
	const char *before = "";
	size_t i;

	for (i = 0; i < cli_commands_n; i++) {
		const struct command *cmd = &cli_commands[i];
		int n = group_size(cmd);

		if (object == NULL && strcmp(before, cmd->object) != 0)
			fprintf(f, " %s", cmd->object);
		else if (object != NULL && cmd->verb != NULL && strcmp(cmd->object, object) == 0 && n == 0)
			fprintf(f, " %s", cmd->verb);
		else if (object != NULL && n > 0 && strcmp(cmd->object, object) == 0 && begins_group(i))
			fprintf(f, " %.*s", n, cmd->verb);
		before = cmd->object;
	}
}

static void option_words(FILE *f, opt_set which)
{
	int i;

	for (i = 0; i < O__COUNT; i++) {
		if ((which & OPT(i)) == 0)
			continue;
		if (cli_opts[i].letter != 0)
			fprintf(f, " -%c", cli_opts[i].letter);
		fprintf(f, " --%s", cli_opts[i].name);
	}
}

static void complete_values(FILE *f)
{
	int i;

	fputs("\tcase $prev in\n", f);
	for (i = 0; i < O__COUNT; i++) {
		const struct opt *o = &cli_opts[i];

		if (o->arg == NULL)
			continue;
		fputs("\t", f);
		if (o->letter != 0)
			fprintf(f, "-%c|", o->letter);
		fprintf(f, "--%s) ", o->name);
		if (o->values == NULL)
			fputs("return ;;\n", f);
		else if (strcmp(o->values, "@file") == 0)
			fputs("mapfile -t COMPREPLY < <(compgen -f -- \"$cur\"); return ;;\n", f);
		else
			fprintf(f, "mapfile -t COMPREPLY < <(compgen -W '%s' -- \"$cur\"); return ;;\n", o->values);
	}
	fputs("\tesac\n", f);
}

static void complete_options(FILE *f)
{
	size_t i;

	fputs("\tcase \"$object $verb\" in\n", f);
	for (i = 0; i < cli_commands_n; i++) {
		const struct command *cmd = &cli_commands[i];

		fprintf(f, "\t'%s %s'%s) options='", cmd->object, cmd->verb != NULL ? cmd->verb : "",
			cmd->verb == NULL ? "*" : "");
		option_words(f, cmd->opts | OPTS_GLOBAL);
		fputs("' ;;\n", f);
	}
	fputs("\t*) options='", f);
	option_words(f, OPTS_GLOBAL);
	fputs("' ;;\n\tesac\n", f);
}

static void complete_verbs(FILE *f)
{
	const char *before = "";
	size_t i;

	fputs("\tcase $object in\n\t'') words='", f);
	words(f, NULL);
	fputs("' ;;\n", f);
	for (i = 0; i < cli_commands_n; i++) {
		const struct command *cmd = &cli_commands[i];

		if (cmd->verb != NULL && strcmp(before, cmd->object) != 0) {
			fprintf(f, "\t%s) [ -n \"$verb\" ] || words='", cmd->object);
			words(f, cmd->object);
			fputs("' ;;\n", f);
		}
		before = cmd->object;
	}
	fputs("\tesac\n", f);
}

/* The second words of verbs that have two. */
static void complete_groups(FILE *f)
{
	const char *end = "";
	size_t i;

	fputs("\tcase \"$object $verb\" in\n", f);
	for (i = 0; i < cli_commands_n; i++) {
		const struct command *cmd = &cli_commands[i];
		int n = group_size(cmd);

		if (n == 0)
			continue;
		if (begins_group(i))
			fprintf(f, "%s\t'%s %.*s') words='", end, cmd->object, n, cmd->verb);
		fputs(cmd->verb + n, f);
		end = "' ;;\n";
	}
	fprintf(f, "%s\tesac\n", end);
}

/* Those first words, as a pattern. */
static void group_pattern(FILE *f)
{
	const char *before = "";
	size_t i;

	for (i = 0; i < cli_commands_n; i++) {
		const struct command *cmd = &cli_commands[i];

		if (group_size(cmd) == 0 || !begins_group(i))
			continue;
		fprintf(f, "%s'%s %.*s'", before, cmd->object, group_size(cmd), cmd->verb);
		before = "|";
	}
}

/* What follows such an option is its value, and no object or verb. */
static void option_arguments(FILE *f)
{
	const char *before = "\t\t";
	int i;

	for (i = 0; i < O__COUNT; i++) {
		const struct opt *o = &cli_opts[i];

		if (o->arg == NULL)
			continue;
		if (o->letter != 0)
			fprintf(f, "%s-%c", before, o->letter);
		fprintf(f, "%s--%s", o->letter != 0 ? "|" : before, o->name);
		before = "|";
	}
	fputs(") ((i++)) ;;\n", f);
}

void cli_dump_completion(FILE *f)
{
	fputs("# bash completion for csm\n_csm()\n{\n"
	      "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} object='' verb='' options='' words='' i\n"
	      "\tCOMPREPLY=()\n"
	      "\tfor ((i = 1; i < COMP_CWORD; i++)); do\n"
	      "\t\tcase ${COMP_WORDS[i]} in\n"
	      "\t\t--) break ;;\n",
		f);
	option_arguments(f);
	fputs("\t\t-*) ;;\n"
	      "\t\t*) if [ -z \"$object\" ]; then object=${COMP_WORDS[i]#help}; elif [ -z \"$verb\" ]; then verb=${COMP_WORDS[i]}; else\n"
	      "\t\t\tcase \"$object $verb\" in ",
		f);
	group_pattern(f);
	fputs(") verb+=\" ${COMP_WORDS[i]}\" ;; esac\n"
	      "\t\t\tfi ;;\n"
	      "\t\tesac\n"
	      "\tdone\n",
		f);
	complete_values(f);
	complete_options(f);
	complete_verbs(f);
	complete_groups(f);
	fputs("\tcase $cur in\n"
	      "\t-*) mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$cur\") ;;\n"
	      "\t*)\n"
	      "\t\tif [ -n \"$words\" ]; then\n"
	      "\t\t\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
	      "\t\telse\n"
	      "\t\t\tmapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
	      "\t\tfi ;;\n"
	      "\tesac\n"
	      "}\n"
	      "complete -o filenames -F _csm csm\n",
		f);
}
