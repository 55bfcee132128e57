/* Commands on enrolment tokens. */
#include <string.h>
#include "libclient/cli/server.h"

static int make_body(struct cli *cli, json_t **ret)
{
	const char *ttl = cli->value[O_TTL], *uses = cli->value[O_USES], *profile = cli->value[O_PROFILE];
	json_t *body = json_object(), *names;
	uint64_t v;
	int r = body != NULL ? 0 : CSM_ENOMEM;

	if (cli->list_n > 0 && r == 0) {
		names = json_array();
		for (size_t i = 0; i < cli->list_n; i++)
			r |= json_array_append_new(names, json_string(cli->list[i]));
		r |= json_object_set_new(body, "names", names);
	}
	if (r == 0 && cli->value[O_ANY_NAME] != NULL)
		r = json_object_set_new(body, "any_name", json_true());
	if (r == 0 && profile != NULL)
		r = json_object_set_new(body, "profile", json_string(profile));
	r = r != 0 ? client_err_plain(CSM_ENOMEM) : 0;
	if (r == 0 && ttl != NULL && (r = parse_life("--ttl", ttl, UINT32_MAX, &v)) == 0)
		r = json_object_set_new(body, "ttl", json_integer((json_int_t)v)) != 0 ? client_err_plain(CSM_ENOMEM) : 0;
	if (r == 0 && uses != NULL && (r = parse_u64("--uses", uses, UINT32_MAX, &v)) == 0)
		r = json_object_set_new(body, "uses", json_integer((json_int_t)v)) != 0 ? client_err_plain(CSM_ENOMEM) : 0;
	if (r != 0)
		json_decref(body);
	else
		*ret = body;
	return r;
}

int cmd_token_create(struct cli *cli)
{
	struct server *s = NULL;
	json_t *body = NULL, *answer = NULL;
	const char *token;
	int r;

	if (cli->list_n == 0 && cli->value[O_PROFILE] == NULL && cli->value[O_ANY_NAME] == NULL)
		return cli_usage("csm token create needs --name, --profile or --any-name: what it is for");
	if (cli->list_n > 0 && cli->value[O_ANY_NAME] != NULL)
		return cli_usage("--name or --any-name, not both");
	json_protect();
	if ((r = make_body(cli, &body)) != 0 || (r = server_open(cli, false, &s)) != 0 ||
		(r = server_call(s, "POST", "/v1/cms/tokens", body, &answer)) != 0 || (r = server_text(answer, "token", &token)) != 0)
		goto out;
	/* Just the token, for a variable or a file: the rest is in --json, and in the list. */
	if (cli->json) {
		r = json_print(cli, answer);
		answer = NULL;
	} else {
		r = out_put(cli, false, token, strlen(token));
		if (r == 0 && cli->value[O_OUTPUT] == NULL)
			fputc('\n', stdout);
	}
out:
	json_decref(answer);
	json_decref(body);
	server_close(s);
	return r;
}

int cmd_token_list(struct cli *cli)
{
	static const char *const columns[] = {"id", "expires", "used", "uses", "any_name", "profile", "names", NULL};
	struct server *s;
	struct path p;
	int r = server_open(cli, false, &s);

	if (r != 0)
		return r;
	path_start(&p, "/v1/cms/tokens");
	r = server_list(cli, s, &p, "tokens", columns);
	server_close(s);
	return r;
}

int cmd_token_revoke(struct cli *cli)
{
	struct server *s;
	json_t *answer = NULL;
	struct path p;
	int r = server_open(cli, false, &s);

	if (r != 0)
		return r;
	path_start(&p, "/v1/cms/tokens");
	path_segment(&p, cli->arg[0]);
	r = p.full ? client_err(CSM_ETOO_LARGE, "that is no id of a token") : server_call(s, "DELETE", p.text, NULL, &answer);
	json_decref(answer);
	server_close(s);
	return r;
}
