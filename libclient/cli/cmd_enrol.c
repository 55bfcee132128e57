/* Certificates from a CA, through the node. */
#include <string.h>
#include "libclient/cli/json.h"

#define WATCH_MS 60000u

static int reply_print(struct cli *cli, struct csm_reply *rep)
{
	int r = cert_print(cli, rep->msg);

	csm_reply_free(rep);
	return r;
}

int cmd_cert_enrol(struct cli *cli)
{
	const char *ttl = cli->value[O_TTL], *file = cli->value[O_CSR];
	struct csm_enrol what = {.profile = cli->value[O_PROFILE], .subject = cli->value[O_SUBJECT], .sans = cli->list,
		.n_sans = cli->list_n, .no_wait = cli->value[O_NO_WAIT] != NULL};
	struct csm_reply *rep;
	struct csm_buf csr;
	uint64_t life = 0;
	int r = 0;

	if (file != NULL && (what.subject != NULL || what.n_sans > 0))
		return cli_usage("--csr has its names with it: it goes with neither --subject nor --san");
	if (ttl != NULL && (r = parse_life("--ttl", ttl, UINT32_MAX, &life)) != 0)
		return r;
	what.ttl = (uint32_t)life;
	csm_buf_init(&csr, CSM_CSR_MAX * 2, false);
	if (file != NULL && (r = io_read(file, &csr)) == 0) {
		what.csr = csm_buf_ptr(&csr);
		what.csr_len = csr.len;
		/* that is what the caller has no other way to */
		if (!cli->json)
			cli->value[O_PEM] = "";
	}
	if (r == 0 && (r = csm_cert_enrol(cli->csm, cli->arg[0], &what, &rep)) == 0)
		r = reply_print(cli, rep);
	csm_buf_free(&csr);
	return r;
}

int cmd_cert_renew(struct cli *cli)
{
	struct csm_reply *rep;
	int r = csm_cert_renew(cli->csm, cli->arg[0], cli->value[O_NO_WAIT] == NULL, &rep);

	return r != 0 ? r : reply_print(cli, rep);
}

int cmd_cert_revoke(struct cli *cli)
{
	struct csm_reply *rep;
	int r = csm_cert_revoke(cli->csm, cli->arg[0], cli->value[O_REASON], &rep);

	return r != 0 ? r : reply_print(cli, rep);
}

/* ---- watch ---- */

/* At once: who watches may be a program behind a pipe. */
static int tell_change(struct cli *cli, struct csm_str key)
{
	json_t *j = cli->json ? json_pack("{s:s%}", "key", key.p, key.n) : NULL;
	int bad = 0;

	if (!cli->json)
		printf("%.*s\n", (int)key.n, key.p);
	else if (j == NULL || json_dumpf(j, stdout, JSON_COMPACT) != 0 || fputc('\n', stdout) == EOF)
		bad = 1;
	json_decref(j);
	return bad != 0 || fflush(stdout) != 0 ? client_err(CSM_ESYSTEM, "the output cannot be written") : 0;
}

/* Too much has changed to be told one by one: each of them may have. */
static int tell_all(struct cli *cli)
{
	int r = 0;

	for (size_t i = 0; i < cli->arg_n && r == 0; i++)
		r = tell_change(cli, csm_str_of(cli->arg[i]));
	return r;
}

int cmd_cert_watch(struct cli *cli)
{
	const struct csm_msg_cert_watch_res *res;
	struct csm_reply *rep;
	uint64_t after = 0;
	int r = 0;

	while (r == 0) {
		bool first = after == 0;

		r = csm_cert_watch(cli->csm, (const char *const *)cli->arg, cli->arg_n, after, WATCH_MS, &rep);
		if (r != 0)
			break;
		res = rep->msg;
		after = res->version.v;
		if (!first && res->all.v && cli->arg_n > 0)
			r = tell_all(cli);
		for (size_t i = 0; !first && r == 0 && i < res->keys.n; i++)
			r = tell_change(cli, res->keys.v[i]);
		csm_reply_free(rep);
	}
	return r;
}
