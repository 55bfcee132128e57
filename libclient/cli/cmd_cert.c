/* Commands on certificates. */
#include <string.h>
#include "libclient/base/keyref.h"
#include "libclient/certdir/certdir.h"
#include "libclient/cli/cli.h"
#include "libclient/cli/json.h"

/* Who has just looked the folder up finds the files in it. */
#define LINGER_MS 100

int cmd_cert_install(struct cli *cli)
{
	struct csm_msg_cert_install_req req = {
		.key = csm_str_of(cli->arg[0]),
		.request_id = csm_str_of(cli->value[O_REQUEST_ID]),
	};
	struct csm_buf der;
	int r;

	csm_buf_init(&der, CSM_MESSAGE_MAX, false);
	r = certs_of_file(cli->arg[1], &der);
	if (r == 0 && der.len > CSM_CERT_CHAIN_MAX)
		r = client_err(CSM_ETOO_LARGE, "the chain is above %u bytes", CSM_CERT_CHAIN_MAX);
	if (r == 0) {
		req.chain = (struct csm_bin){csm_buf_ptr(&der), der.len};
		r = cli_show(cli, CSM_M_CERT_INSTALL, &req);
	}
	csm_buf_free(&der);
	return r;
}

int cmd_cert_list(struct cli *cli)
{
	struct csm_msg_list_req req = {
		.namespace = csm_str_of(cli->value[O_NAMESPACE]),
		.limit = {CSM_LIST_MAX, true},
	};

	return cli_list(cli, CSM_M_CERT_LIST, &req, &req.after, "certs");
}

int cmd_cert_delete(struct cli *cli)
{
	struct csm_msg_key_delete_req req = {
		.key = csm_str_of(cli->arg[0]),
		.request_id = csm_str_of(cli->value[O_REQUEST_ID]),
	};

	return cli_show(cli, CSM_M_CERT_DELETE, &req);
}

/* ---- show ---- */

static int show_pem(struct cli *cli, const struct csm_certs *c)
{
	struct csm_buf pem;
	int r;

	csm_buf_init(&pem, CSM_MESSAGE_MAX, false);
	r = csm_certs_pem(c, 0, c->n, &pem);
	r = r != 0 ? client_err_plain(r) : out_put(cli, false, csm_buf_ptr(&pem), pem.len);
	csm_buf_free(&pem);
	return r;
}

int cert_print(struct cli *cli, const struct csm_msg_cert_info *info)
{
	struct csm_msg_cert_info without = *info;
	struct csm_certs c;
	json_t *j;
	int r;

	/* one that is on its way */
	if (info->chain.n == 0)
		return print_reply(cli, (struct csm_view){CSM_DEF(cert_info), info});
	if ((r = csm_certs_split(info->chain, &c)) != 0)
		return client_err(r, "what the daemon sent is no chain");
	if (cli->value[O_PEM] != NULL)
		return show_pem(cli, &c);
	if (cli->json)
		return (r = csm_cert_json(info, &j)) != 0 ? client_err_plain(r) : json_print(cli, j);
	without.chain = without.anchors = (struct csm_bin){NULL, 0};
	return print_reply(cli, (struct csm_view){CSM_DEF(cert_info), &without});
}

int cmd_cert_show(struct cli *cli)
{
	struct csm_msg_key_req req = {.key = csm_str_of(cli->arg[0])};
	struct csm_reply *rep;
	int r;

	if (cli->json && cli->value[O_PEM] != NULL)
		return cli_usage("--json or --pem, not both");
	r = client_call_new(cli->csm, CSM_M_CERT_GET, &req, &rep);
	if (r != 0)
		return r;
	r = cert_print(cli, rep->msg);
	csm_reply_free(rep);
	return r;
}

/* ---- export ---- */

static int export_files(const char *dir, const struct csm_certdir *d)
{
	const struct csm_gen_place place = {.path = dir, .names = csm_certdir_names, .uid = (uid_t)-1, .gid = (gid_t)-1,
		.linger_ms = LINGER_MS};
	char why[CSM_GEN_WHY];
	int r = csm_gen_put(&place, d->files, CSM_CERTDIR_FILES, why);

	return r != 0 ? client_err(r, "%s", why) : 0;
}

static int export_reply(struct cli *cli, const struct csm_msg_cert_info *info, bool *again)
{
	uint8_t spki[CSM_PUBLIC_BYTES];
	char key[CSM_KEYREF_MAX + 1];
	size_t n = sizeof(spki);
	struct csm_certdir d;
	int r;

	(void)snprintf(key, sizeof(key), "%s:%s", info->namespace.p, info->name.p);
	if (info->chain.n == 0)
		return client_err(CSM_ENOT_FOUND, "%s: no certificate has come yet: csm cert show tells why", key);
	if ((r = csm_key_public(cli->csm, key, spki, &n)) != 0)
		return r;
	r = csm_certdir_make(info, (struct csm_bin){spki, n}, &d);
	/* the two answers may be of different times: then the key has been made anew between them */
	*again = r == CSM_ECONFLICT;
	if (*again)
		r = client_err(r, "the key was made anew meanwhile");
	else
		r = r != 0 ? client_err_plain(r) : export_files(cli->arg[1], &d);
	csm_certdir_clear(&d);
	return r;
}

int cmd_cert_export(struct cli *cli)
{
	struct csm_msg_key_req req = {.key = csm_str_of(cli->arg[0])};
	struct csm_reply *rep;
	bool again = true;
	int r = 0;

	for (int i = 0; i < 3 && again; i++) {
		again = false;
		r = client_call_new(cli->csm, CSM_M_CERT_GET, &req, &rep);
		if (r != 0)
			return r;
		r = export_reply(cli, rep->msg, &again);
		if (r == 0 && cli->json)
			r = cert_print(cli, rep->msg);
		csm_reply_free(rep);
	}
	return r;
}
