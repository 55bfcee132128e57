/* Commands on the certificate authority: what is looked at, and revoked. */
#include <string.h>
#include "libclient/cli/server.h"

#define LIST_MAX (16u * 1024u * 1024u)

static int get(struct cli *cli, const struct path *p, const char *method, const json_t *body, json_t **ret)
{
	struct server *s;
	int r;

	if (p->full)
		return client_err(CSM_ETOO_LARGE, "what is asked for is too long");
	if ((r = server_open(cli, false, &s)) != 0)
		return r;
	r = server_call(s, method, p->text, body, ret);
	server_close(s);
	return r;
}

int cmd_ca_show(struct cli *cli)
{
	const char *field = cli->value[O_CHAIN] != NULL ? "chain" : "root", *pem;
	json_t *answer = NULL;
	struct path p;
	int r;

	if (cli->value[O_CHAIN] != NULL && cli->value[O_DER] != NULL)
		return cli_usage("--der is for the root alone: a chain is PEM");
	path_start(&p, "/v1/cms/ca");
	path_query(&p, "issuer", cli->value[O_ISSUER]);
	if ((r = get(cli, &p, "GET", NULL, &answer)) != 0)
		return r;
	if (cli->json && cli->value[O_DER] == NULL)
		return json_print(cli, answer);
	if ((r = server_text(answer, field, &pem)) == 0)
		r = server_put_pem(cli, pem, "CERTIFICATE", field);
	json_decref(answer);
	return r;
}

/* DER, whatever the server sends. */
static int put_crl(struct cli *cli, const struct csm_buf *got)
{
	struct csm_buf der, pem;
	int r;

	csm_buf_init(&der, LIST_MAX, false);
	csm_buf_init(&pem, 2 * LIST_MAX, false);
	if (got->len > 0 && csm_buf_ptr(got)[0] == 0x30)
		r = csm_buf_put(&der, csm_buf_ptr(got), got->len) != 0 ? client_err_plain(CSM_ENOMEM) : 0;
	else
		r = pem_get(got->len > 0 ? (const void *)csm_buf_ptr(got) : "", got->len, "X509 CRL", &der);
	if (r == 0 && cli->value[O_DER] != NULL)
		r = print_bytes(cli, "crl", csm_buf_ptr(&der), der.len);
	else if (r == 0 && (r = pem_put(&pem, "X509 CRL", csm_buf_ptr(&der), der.len)) == 0)
		r = print_text_field(cli, "crl", (const char *)csm_buf_ptr(&pem), pem.len);
	csm_buf_free(&pem);
	csm_buf_free(&der);
	return r;
}

static int fetch(struct cli *cli, const struct path *p, struct csm_buf *out)
{
	char next[CSM_REST_NEXT_MAX + 1];
	struct server *s;
	int r;

	if (p->full)
		return client_err(CSM_ETOO_LARGE, "what is asked for is too long");
	if ((r = server_open(cli, false, &s)) != 0)
		return r;
	r = server_fetch(s, p->text, out, next);
	server_close(s);
	return r;
}

int cmd_ca_crl(struct cli *cli)
{
	struct csm_buf got;
	struct path p;
	int r;

	path_start(&p, "/v1/cms/crl");
	path_query(&p, "issuer", cli->value[O_ISSUER]);
	csm_buf_init(&got, 2 * LIST_MAX, false);
	r = fetch(cli, &p, &got);
	if (r == 0)
		r = put_crl(cli, &got);
	csm_buf_free(&got);
	return r;
}

/* ---- a certificate ---- */

int cmd_ca_cert_show(struct cli *cli)
{
	json_t *answer = NULL;
	const char *pem;
	struct path p;
	int r;

	path_start(&p, "/v1/cms/certificates");
	path_segment(&p, cli->arg[0]);
	if ((r = get(cli, &p, "GET", NULL, &answer)) != 0)
		return r;
	if (cli->value[O_PEM] == NULL)
		return server_print(cli, answer);
	if ((r = server_text(answer, "certificate", &pem)) == 0)
		r = out_put(cli, false, pem, strlen(pem));
	json_decref(answer);
	return r;
}

/* POST below a path of its own, with a reason where there is one. */
static int post_reason(struct cli *cli, const char *path, const char *verb, const char *reason)
{
	json_t *answer = NULL, *body = json_object();
	struct path p;
	int r;

	if (body == NULL || (reason != NULL && json_object_set_new(body, "reason", json_string(reason)) != 0)) {
		json_decref(body);
		return client_err_plain(CSM_ENOMEM);
	}
	path_start(&p, path);
	path_segment(&p, cli->arg[0]);
	path_segment(&p, verb);
	r = get(cli, &p, "POST", body, &answer);
	json_decref(body);
	if (r == 0 && answer != NULL)
		return server_print(cli, answer);
	return r;
}

int cmd_ca_cert_revoke(struct cli *cli)
{
	return post_reason(cli, "/v1/cms/certificates", "revoke", cli->value[O_REASON]);
}

/* ---- requests that wait ---- */

#define REQUESTS "/v1/cms/requests"

int cmd_ca_request_list(struct cli *cli)
{
	static const char *const columns[] = {"request", "state", "created", "profile", "requester", "subject", "san", NULL};
	struct server *s;
	struct path p;
	int r = server_open(cli, false, &s);

	if (r != 0)
		return r;
	path_start(&p, REQUESTS);
	path_query(&p, "state", cli->arg[0] != NULL ? cli->arg[0] : "waiting");
	r = server_list(cli, s, &p, "requests", columns);
	server_close(s);
	return r;
}

int cmd_ca_request_show(struct cli *cli)
{
	json_t *answer = NULL;
	struct path p;
	int r;

	path_start(&p, REQUESTS);
	path_segment(&p, cli->arg[0]);
	r = get(cli, &p, "GET", NULL, &answer);
	return r == 0 ? server_print(cli, answer) : r;
}

int cmd_ca_request_approve(struct cli *cli)
{
	return post_reason(cli, REQUESTS, "approve", cli->arg[1]);
}

int cmd_ca_request_deny(struct cli *cli)
{
	return post_reason(cli, REQUESTS, "deny", cli->arg[1]);
}

/* ---- the report of use ---- */

int cmd_ca_report(struct cli *cli)
{
	static const char *const columns[] = {"serial", "in_use", "signatures", "last_used", "node", "subject", NULL};
	struct server *s;
	struct path p;
	int r;

	if (cli->json && cli->value[O_CSV] != NULL)
		return cli_usage("--json or --csv, not both");
	path_start(&p, "/v1/cms/usage");
	if ((r = server_open(cli, false, &s)) != 0)
		return r;
	r = cli->value[O_CSV] != NULL ? server_csv(cli, s, &p) : server_list(cli, s, &p, "certificates", columns);
	server_close(s);
	return r;
}
