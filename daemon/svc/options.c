#include "daemon/svc/options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "daemon/svc/log.h"

#define OPTIONS_MAX 12u
enum { OPT_HELP = 256, OPT_VERSION, OPT_FIRST };

bool csm_option_text(const char *text, void *to)
{
	*(const char **)to = text;
	return true;
}

bool csm_option_number(const char *text, void *to)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end != '\0' || v > UINT32_MAX)
		return false;
	*(uint32_t *)to = (uint32_t)v;
	return true;
}

bool csm_option_level(const char *text, void *to)
{
	int level = csm_log_parse_level(text);

	(void)to;
	if (level >= 0)
		csm_log_level(level);
	return level >= 0;
}

int csm_options_refuse(const struct csm_program *p)
{
	fputs(p->usage, stderr);
	return 2;
}

static bool take(const struct csm_program *p, int o)
{
	for (size_t i = 0; i < p->n; i++) {
		const struct csm_option *opt = &p->options[i];

		if (o != (opt->letter != 0 ? opt->letter : OPT_FIRST + (int)i))
			continue;
		if (opt->take != NULL)
			return opt->take(optarg, opt->to);
		*(bool *)opt->to = true;
		return true;
	}
	return false;
}

bool csm_options_read(const struct csm_program *p, int argc, char **argv, int *status)
{
	struct option all[OPTIONS_MAX + 3] = {{"help", no_argument, NULL, OPT_HELP}, {"version", no_argument, NULL, OPT_VERSION}};
	char letters[2 * OPTIONS_MAX + 1] = "";
	size_t used = 0;
	int o;

	for (size_t i = 0; i < p->n && i < OPTIONS_MAX; i++) {
		const struct csm_option *opt = &p->options[i];

		all[i + 2] = (struct option){opt->name, opt->take != NULL ? required_argument : no_argument, NULL,
			opt->letter != 0 ? opt->letter : OPT_FIRST + (int)i};
		if (opt->letter != 0) {
			letters[used++] = opt->letter;
			if (opt->take != NULL)
				letters[used++] = ':';
		}
	}
	while ((o = getopt_long(argc, argv, letters, all, NULL)) != -1) {
		if (o == OPT_HELP || o == OPT_VERSION) {
			if (o == OPT_HELP)
				fputs(p->usage, stdout);
			else
				printf("%s %s\n", p->name, CSM_VERSION);
			*status = 0;
			return false;
		}
		if (!take(p, o)) {
			*status = csm_options_refuse(p);
			return false;
		}
	}
	if (optind == argc)
		return true;
	*status = csm_options_refuse(p);
	return false;
}

bool csm_options_sockets(int first, unsigned n)
{
	struct stat st;

	for (int fd = first; fd < first + (int)n; fd++)
		if (fstat(fd, &st) != 0 || !S_ISSOCK(st.st_mode))
			return false;
	return true;
}
