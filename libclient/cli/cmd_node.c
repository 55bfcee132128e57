/* Commands about the daemon itself. */
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include "libclient/base/writable.h"
#include "libclient/cli/cli.h"

#define WARNINGS_MAX 128u
#define WARNING_MAX 400u

int cmd_status(struct cli *cli)
{
	struct csm_msg_empty req = {0};

	return cli_show(cli, CSM_M_STATUS, &req);
}

int cmd_whoami(struct cli *cli)
{
	struct csm_msg_empty req = {0};

	return cli_show(cli, CSM_M_WHOAMI, &req);
}

static int metrics_json(struct cli *cli, const struct csm_msg_stats_res *res)
{
	struct printer *p;
	size_t i;
	int r = printer_new(cli, &p);

	if (r != 0)
		return r;
	for (i = 0; r == 0 && i < res->metrics.n; i++)
		r = printer_add(p, (struct csm_view){CSM_DEF(metric), &res->metrics.v[i]});
	return printer_end(p, r);
}

/* Samples of one name stand together, its HELP and TYPE before the first. */
static void metrics_text(const struct csm_msg_stats_res *res)
{
	const struct csm_msg_metric *before = NULL;
	size_t i;

	for (i = 0; i < res->metrics.n; i++) {
		const struct csm_msg_metric *m = &res->metrics.v[i];
		bool labels = m->labels.p != NULL && m->labels.n > 0;

		if (before == NULL || strcmp(before->name.p, m->name.p) != 0) {
			printf("# HELP %s %s\n", m->name.p, m->help.p);
			printf("# TYPE %s %s\n", m->name.p, m->type.p);
		}
		printf("%s%s%s%s %llu\n", m->name.p, labels ? "{" : "", labels ? m->labels.p : "", labels ? "}" : "",
			(unsigned long long)m->value.v);
		before = m;
	}
}

int cmd_metrics(struct cli *cli)
{
	struct csm_msg_empty req = {0};
	struct csm_reply *rep;
	int r = client_call_new(cli->csm, CSM_M_STATS, &req, &rep);

	if (r != 0)
		return r;
	if (cli->json)
		r = metrics_json(cli, rep->msg);
	else
		metrics_text(rep->msg);
	csm_reply_free(rep);
	return r;
}

/* ---- policy and store ---- */

static void check_text(const char *file, const struct csm_msg_check_res *res)
{
	size_t i;

	for (i = 0; i < res->warnings.n; i++)
		printf("%s: warning: %s\n", file, res->warnings.v[i].p);
	if (res->valid.v)
		printf("%s: valid\n", file);
	else
		printf("%s:%llu:%llu: %s\n", file, (unsigned long long)res->line.v, (unsigned long long)res->column.v,
			res->message.p != NULL ? res->message.p : "not valid");
}

/* Names that no process can have. */
static size_t warn_of_names(const struct csm_strs *names, bool group, char texts[][WARNING_MAX], struct csm_str warnings[],
	size_t n)
{
	for (size_t i = 0; i < names->n && n < WARNINGS_MAX; i++) {
		const char *name = names->v[i].p;

		if (group ? getgrnam(name) != NULL : getpwnam(name) != NULL)
			continue;
		snprintf(texts[n], WARNING_MAX, "there is no %s %s on this machine: who is named so has no such identity",
			group ? "group" : "user", name);
		warnings[n] = csm_str_of(texts[n]);
		n++;
	}
	return n;
}

/* What the daemon cannot see: names, and who can write the programs that the policy names. */
static void warn_of_machine(struct csm_msg_check_res *m, char texts[][WARNING_MAX], struct csm_str warnings[])
{
	size_t n = 0;

	for (; n < m->warnings.n && n < WARNINGS_MAX; n++)
		warnings[n] = m->warnings.v[n];
	n = warn_of_names(&m->users, false, texts, warnings, n);
	n = warn_of_names(&m->groups, true, texts, warnings, n);
	for (size_t i = 0; i < m->exes.n && n < WARNINGS_MAX; i++) {
		const struct csm_msg_check_exe *e = &m->exes.v[i];
		const struct passwd *pw = e->user.p != NULL ? getpwnam(e->user.p) : NULL;
		char why[256];

		if (!csm_path_writable(e->path.p, e->uid.set ? (uint32_t)e->uid.v : pw != NULL ? pw->pw_uid : CSM_ANY_UID, why,
			    sizeof(why)))
			continue;
		snprintf(texts[n], WARNING_MAX, "line %u: identity %s: %s", (unsigned)e->line.v, e->identity.p, why);
		warnings[n] = csm_str_of(texts[n]);
		n++;
	}
	m->warnings = (struct csm_strs){warnings, n};
}

int cmd_policy_check(struct cli *cli)
{
	static char texts[WARNINGS_MAX][WARNING_MAX];
	static struct csm_str warnings[WARNINGS_MAX];
	struct csm_msg_check_req req = {0};
	struct csm_reply *rep;
	struct csm_buf b;
	int r;

	csm_buf_init(&b, CSM_POLICY_MAX, false);
	r = io_read(cli->arg[0], &b);
	if (r != 0)
		goto out;
	if (!csm_utf8_valid((const char *)csm_buf_ptr(&b), b.len)) {
		r = client_err(CSM_EINVALID, "%s is not UTF-8", cli->arg[0]);
		goto out;
	}
	req.policy = b.len > 0 ? (struct csm_str){(const char *)csm_buf_ptr(&b), b.len} : CSM_STR("");
	r = client_call_new(cli->csm, CSM_M_POLICY_CHECK, &req, &rep);
	if (r != 0)
		goto out;
	warn_of_machine(rep->msg, texts, warnings);
	if (cli->json)
		r = print_reply(cli, csm_reply_view(rep));
	else
		check_text(cli->arg[0], rep->msg);
	cli->status = ((const struct csm_msg_check_res *)rep->msg)->valid.v ? 0 : 1;
	csm_reply_free(rep);
out:
	csm_buf_free(&b);
	return r;
}

/* --as "uid=1000,unit=x" and --as "uid=1000" --as "unit=x" mean the same. */
static size_t split_selectors(const struct cli *cli, struct csm_str *v, size_t max)
{
	size_t i, n = 0;

	for (i = 0; i < cli->list_n; i++) {
		const char *s = cli->list[i];

		while (*s != '\0') {
			size_t len = strcspn(s, ", ");

			if (len > 0 && n == max)
				return max + 1;
			if (len > 0)
				v[n++] = (struct csm_str){s, len};
			s += len + (s[len] != '\0');
		}
	}
	return n;
}

int cmd_policy_explain(struct cli *cli)
{
	struct csm_str selectors[OPT_LIST_MAX];
	struct csm_msg_explain_req req = {
		.method = csm_str_of(cli->arg[0]),
		.object = csm_str_of(cli->arg[1]),
		.selectors = {selectors, split_selectors(cli, selectors, OPT_LIST_MAX)},
	};

	if (req.selectors.n > OPT_LIST_MAX)
		return cli_usage("too many selectors");
	return cli_show(cli, CSM_M_POLICY_EXPLAIN, &req);
}

int cmd_policy_reload(struct cli *cli)
{
	struct csm_msg_empty req = {0};

	return cli_show(cli, CSM_M_POLICY_RELOAD, &req);
}

int cmd_reseal(struct cli *cli)
{
	struct csm_msg_empty req = {0};

	return cli_show(cli, CSM_M_RESEAL, &req);
}

int cmd_store_accept(struct cli *cli)
{
	struct csm_msg_empty req = {0};

	return cli_show(cli, CSM_M_STORE_ACCEPT, &req);
}
