/* Commands on certificates. */
#include <string.h>
#include <jansson.h>
#include "libclient/base/keyref.h"
#include "libclient/cli/cli.h"
#include "libclient/cli/json.h"

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

static int json_chain(const struct cert_chain *c, json_t **ret)
{
	json_t *j = json_array();
	struct csm_buf pem;
	int r = j != NULL ? 0 : CSM_ENOMEM;

	csm_buf_init(&pem, CSM_MESSAGE_MAX, false);
	for (size_t i = 0; i < c->n && r == 0; i++) {
		csm_buf_reset(&pem);
		r = certs_pem(c, i, i + 1, &pem);
		if (r == 0 && json_array_append_new(j, json_stringn((const char *)csm_buf_ptr(&pem), pem.len)) != 0)
			r = CSM_ENOMEM;
	}
	csm_buf_free(&pem);
	if (r == 0) {
		*ret = j;
		return 0;
	}
	json_decref(j);
	return client_err_plain(r);
}

/* The answer to cert.get with the chain as PEM. */
static int json_of_cert(const struct csm_msg_cert_info *info, const struct cert_chain *c, json_t **ret)
{
	struct csm_msg_cert_info without = *info;
	json_t *j, *chain;
	int r;

	without.chain = (struct csm_bin){NULL, 0};
	if ((r = json_of(CSM_DEF(cert_info), &without, &j)) != 0)
		return r;
	r = json_chain(c, &chain);
	if (r == 0 && json_object_set_new(j, "chain", chain) != 0)
		r = client_err_plain(CSM_ENOMEM);
	if (r != 0)
		json_decref(j);
	else
		*ret = j;
	return r;
}

static int show_pem(struct cli *cli, const struct cert_chain *c)
{
	struct csm_buf pem;
	int r;

	csm_buf_init(&pem, CSM_MESSAGE_MAX, false);
	r = certs_pem(c, 0, c->n, &pem);
	if (r == 0)
		r = out_put(cli, false, csm_buf_ptr(&pem), pem.len);
	csm_buf_free(&pem);
	return r;
}

static int show(struct cli *cli, const struct csm_msg_cert_info *info)
{
	struct csm_msg_cert_info without = *info;
	struct cert_chain c;
	json_t *j;
	int r = certs_split(info->chain, &c);

	if (r != 0)
		return r;
	if (cli->value[O_PEM] != NULL)
		return show_pem(cli, &c);
	if (cli->json)
		return (r = json_of_cert(info, &c, &j)) != 0 ? r : json_print(cli, j);
	without.chain = (struct csm_bin){NULL, 0};
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
	r = show(cli, rep->msg);
	csm_reply_free(rep);
	return r;
}

/* ---- export ---- */

enum { F_CERT, F_CHAIN, F_FULL, F_CA, F_KEY, F_META, F__COUNT };
static const char *const file_names[F__COUNT] = {
	[F_CERT] = "cert.pem", [F_CHAIN] = "chain.pem", [F_FULL] = "fullchain.pem", [F_CA] = "ca.pem",
	[F_KEY] = "key.pem", [F_META] = "meta.json",
};

static int put_reference(const struct csm_msg_cert_info *info, struct csm_bin spki, struct csm_buf *out)
{
	struct csm_keyref ref = {.ns = info->namespace, .name = info->name};
	uint8_t der[CSM_KEYREF_DER_MAX];
	size_t n;
	int r;

	csm_keyref_hash(spki.p, spki.n, ref.hash);
	r = csm_keyref_encode(&ref, der, &n);
	return r != 0 ? client_err_plain(r) : pem_put(out, CSM_KEYREF_LABEL, der, n);
}

static int dump_some(const char *p, size_t n, void *arg)
{
	return csm_buf_put(arg, p, n);
}

static int put_meta(const struct csm_msg_cert_info *info, const struct cert_chain *c, struct csm_buf *out)
{
	json_t *j;
	int r = json_of_cert(info, c, &j);

	if (r != 0)
		return r;
	r = json_dump_callback(j, dump_some, out, JSON_INDENT(2) | JSON_PRESERVE_ORDER) != 0 ? CSM_ENOMEM : 0;
	json_decref(j);
	if (r == 0)
		r = csm_buf_put(out, "\n", 1);
	return r != 0 ? client_err_plain(r) : 0;
}

static int export_files(const char *dir, const struct csm_msg_cert_info *info, const struct cert_chain *c, struct csm_bin spki)
{
	/* a lone certificate that has issued itself is cert.pem and its own CA */
	size_t issuers = c->root && c->n > 1 ? c->n - 1 : c->n;
	struct folder_file files[F__COUNT];
	struct csm_buf b[F__COUNT];
	int r;

	for (size_t i = 0; i < F__COUNT; i++)
		csm_buf_init(&b[i], CSM_MESSAGE_MAX, false);
	if ((r = certs_pem(c, 0, 1, &b[F_CERT])) == 0 && (r = certs_pem(c, 1, issuers, &b[F_CHAIN])) == 0 &&
		(r = certs_pem(c, 0, issuers, &b[F_FULL])) == 0 && (r = certs_pem(c, c->root ? c->n - 1 : c->n, c->n, &b[F_CA])) == 0 &&
		(r = put_reference(info, spki, &b[F_KEY])) == 0)
		r = put_meta(info, c, &b[F_META]);
	for (size_t i = 0; i < F__COUNT; i++)
		files[i] = (struct folder_file){file_names[i], csm_buf_ptr(&b[i]), b[i].len};
	if (r == 0)
		r = folder_put(dir, files, F__COUNT);
	for (size_t i = 0; i < F__COUNT; i++)
		csm_buf_free(&b[i]);
	return r;
}

static int export_reply(struct cli *cli, const struct csm_msg_cert_info *info, bool *again)
{
	uint8_t spki[CSM_PUBLIC_BYTES];
	char key[CSM_KEYREF_MAX + 1];
	size_t n = sizeof(spki);
	struct cert_chain c;
	int r = certs_split(info->chain, &c);

	if (r != 0)
		return r;
	(void)snprintf(key, sizeof(key), "%s:%s", info->namespace.p, info->name.p);
	if ((r = csm_key_public(cli->csm, key, spki, &n)) != 0)
		return r;
	/* the two answers may be of different times: then the key has been made anew between them */
	*again = memmem(c.der[0].p, c.der[0].n, spki, n) == NULL;
	return *again ? client_err(CSM_ECONFLICT, "the key was made anew meanwhile") :
			export_files(cli->arg[1], info, &c, (struct csm_bin){spki, n});
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
			r = show(cli, rep->msg);
		csm_reply_free(rep);
	}
	return r;
}
