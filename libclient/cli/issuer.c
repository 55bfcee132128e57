/* The rules of an issuer's key, from the command line. */
#include <string.h>
#include "libclient/cli/cli.h"

static int number(const struct cli *cli, enum opt_id id, const char *what, uint64_t max, struct csm_u64 *ret)
{
	if (cli->value[id] == NULL)
		return 0;
	ret->set = true;
	return parse_u64(what, cli->value[id], max, &ret->v);
}

int issuer_rules(const struct cli *cli, struct issuer_args *a, bool wanted)
{
	struct csm_msg_issuer_rules *r = &a->rules;
	bool any = cli->value[O_MAX_LIFE] != NULL || cli->value[O_PATH_LEN] != NULL || cli->value[O_RATE] != NULL || cli->list_n > 0;

	memset(a, 0, sizeof(*a));
	if (!wanted && any)
		return cli_usage("--max-life, --path-len, --permit, --exclude and --rate go with --use issuer");
	if (!wanted)
		return 0;
	if (cli->value[O_MAX_LIFE] == NULL)
		return cli_usage("--use issuer wants --max-life");
	r->max_life.set = true;
	if (parse_life("--max-life", cli->value[O_MAX_LIFE], CSM_ISSUER_LIFE_MAX, &r->max_life.v) != 0 ||
		number(cli, O_PATH_LEN, "--path-len", CSM_ISSUER_PATH_MAX, &r->path_len) != 0 ||
		number(cli, O_RATE, "--rate", CSM_ISSUER_RATE_MAX, &r->rate) != 0)
		return -EXIT_USAGE;
	r->permitted.v = a->permitted;
	r->excluded.v = a->excluded;
	for (size_t i = 0; i < cli->list_n; i++) {
		struct csm_strs *to = cli->list_of[i] == O_PERMIT ? &r->permitted : &r->excluded;

		if (to->n == CSM_ISSUER_NAMES_MAX)
			return cli_usage("--%s is given too often", cli_opts[cli->list_of[i]].name);
		to->v[to->n++] = csm_str_of(cli->list[i]);
	}
	return 0;
}
