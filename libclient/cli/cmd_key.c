/* Commands on keys, and the lists of keys and domains. */
#include <stdio.h>
#include <string.h>
#include "libclient/base/keyref.h"
#include "libclient/cli/cli.h"

#define USES_MAX 4

int cmd_key_create(struct cli *cli)
{
	struct csm_str uses[USES_MAX];
	const char *use = cli->value[O_USE];
	struct csm_msg_key_create_req req = {
		.key = csm_str_of(cli->arg[0]),
		.alg = csm_str_of(cli->value[O_ALG]),
		.backend = csm_str_of(cli->value[O_BACKEND]),
		.exportable = {cli->value[O_EXPORTABLE] != NULL, cli->value[O_EXPORTABLE] != NULL},
		.existing = csm_str_of(cli->value[O_EXISTING]),
		.request_id = csm_str_of(cli->value[O_REQUEST_ID]),
		.use = {uses, 0},
	};
	struct issuer_args issuer;
	bool is_issuer = use != NULL && strcmp(use, "issuer") == 0;

	if (issuer_rules(cli, &issuer, is_issuer) != 0)
		return -EXIT_USAGE;
	if (is_issuer)
		req.issuer = &issuer.rules;
	while (use != NULL && *use != '\0') {
		size_t n = strcspn(use, ",");

		if (req.use.n == USES_MAX)
			return cli_usage("--use has too many words");
		uses[req.use.n++] = (struct csm_str){use, n};
		use += n + (use[n] != '\0');
	}
	return cli_show(cli, CSM_M_KEY_CREATE, &req);
}

int cmd_key_show(struct cli *cli)
{
	struct csm_msg_key_req req = {.key = csm_str_of(cli->arg[0])};

	return cli_show(cli, CSM_M_KEY_SHOW, &req);
}

int cmd_key_public(struct cli *cli)
{
	struct csm_msg_key_public_req req = {.key = csm_str_of(cli->arg[0])};
	const struct csm_msg_key_public_res *res;
	struct csm_reply *rep;
	int r = client_call_new(cli->csm, CSM_M_KEY_PUBLIC, &req, &rep);

	if (r != 0)
		return r;
	res = rep->msg;
	if (cli->json)
		r = print_reply(cli, csm_reply_view(rep));
	else if (cli->value[O_DER] != NULL)
		r = out_put(cli, true, res->spki.p, res->spki.n);
	else
		r = out_put(cli, false, res->public.p, res->public.n);
	csm_reply_free(rep);
	return r;
}

/* The key's whole name: a bare one is completed with the caller's home. */
static int whole_name(struct cli *cli, char out[static CSM_KEYREF_MAX + 1], struct csm_ref *ret)
{
	struct csm_reply *rep;
	int n, r;

	if (csm_ref_parse(csm_str_of(cli->arg[0]), ret) != 0)
		return client_err(CSM_EINVALID, "%s is no name of a key", cli->arg[0]);
	if (ret->ns.p != NULL)
		return 0;
	r = csm_whoami(cli->csm, &rep);
	if (r != 0)
		return r;
	if (csm_view_has(csm_reply_view(rep), "namespace")) {
		n = snprintf(out, CSM_KEYREF_MAX + 1, "%s:%s", csm_view_str(csm_reply_view(rep), "namespace"), cli->arg[0]);
		r = n <= 0 || (size_t)n > CSM_KEYREF_MAX ? client_err_plain(CSM_EINVALID) : csm_ref_parse(csm_str_of(out), ret);
	} else {
		r = client_err(CSM_EAMBIGUOUS, "%s: the caller has no home namespace", cli->arg[0]);
	}
	csm_reply_free(rep);
	return r;
}

int cmd_key_reference(struct cli *cli)
{
	uint8_t spki[CSM_PUBLIC_BYTES], der[CSM_KEYREF_DER_MAX];
	char name[CSM_KEYREF_MAX + 1];
	size_t n = sizeof(spki);
	struct csm_keyref ref;
	struct csm_ref at;
	struct csm_buf pem;
	int r = whole_name(cli, name, &at);

	if (r == 0)
		r = csm_key_public(cli->csm, at.ns.p == cli->arg[0] ? cli->arg[0] : name, spki, &n);
	if (r != 0)
		return r;
	ref.ns = at.ns;
	ref.name = at.name;
	csm_keyref_hash(spki, n, ref.hash);
	r = csm_keyref_encode(&ref, der, &n);
	if (r != 0)
		return client_err_plain(r);
	csm_buf_init(&pem, 1024, false);
	r = pem_put(&pem, CSM_KEYREF_LABEL, der, n);
	if (r == 0 && cli->json)
		r = print_text_field(cli, "reference", (const char *)csm_buf_ptr(&pem), pem.len);
	else if (r == 0)
		r = out_put(cli, false, csm_buf_ptr(&pem), pem.len);
	csm_buf_free(&pem);
	return r;
}

int cmd_key_delete(struct cli *cli)
{
	struct csm_msg_key_delete_req req = {
		.key = csm_str_of(cli->arg[0]),
		.request_id = csm_str_of(cli->value[O_REQUEST_ID]),
	};

	return cli_show(cli, CSM_M_KEY_DELETE, &req);
}

/* ---- lists: page after page ---- */

/* One page into the printer; `after` becomes the last name, NULL at the end. The reply must live as
 * long as `after` is used. */
static int add_page(struct printer *p, struct csm_view v, const char *list, struct csm_str *after)
{
	size_t n = csm_view_count(v, list), i;
	const char *last = NULL;
	int r = 0;

	for (i = 0; r == 0 && i < n; i++) {
		struct csm_view item = csm_view_at(v, list, i);

		last = csm_view_str(item, "name");
		r = printer_add(p, item);
	}
	*after = csm_view_bool(v, "more") ? csm_str_of(last) : (struct csm_str){0};
	return r;
}

int cli_list(struct cli *cli, enum csm_method_id m, void *msg, struct csm_str *after, const char *field)
{
	struct csm_reply *rep = NULL, *next;
	struct printer *p;
	int r = printer_new(cli, &p);

	if (r != 0)
		return r;
	do {
		r = client_call_new(cli->csm, m, msg, &next);
		if (r != 0)
			break;
		csm_reply_free(rep);
		rep = next;
		r = add_page(p, csm_reply_view(rep), field, after);
	} while (r == 0 && after->p != NULL);
	r = printer_end(p, r);
	csm_reply_free(rep);
	return r;
}

int cmd_key_list(struct cli *cli)
{
	struct csm_msg_list_req req = {
		.namespace = csm_str_of(cli->value[O_NAMESPACE]),
		.limit = {CSM_LIST_MAX, true},
	};

	return cli_list(cli, CSM_M_KEY_LIST, &req, &req.after, "keys");
}

int cmd_domain_list(struct cli *cli)
{
	struct csm_msg_list_req req = {
		.namespace = csm_str_of(cli->value[O_NAMESPACE]),
		.limit = {CSM_LIST_MAX, true},
	};

	return cli_list(cli, CSM_M_DOMAIN_LIST, &req, &req.after, "domains");
}

int cmd_secret_list(struct cli *cli)
{
	struct csm_msg_secret_list_req req = {
		.domain = csm_str_of(cli->arg[0]),
		.limit = {CSM_LIST_MAX, true},
	};

	return cli_list(cli, CSM_M_SECRET_LIST, &req, &req.after, "secrets");
}

/* ---- domains, and deletion of secrets ---- */

static int on_domain(struct cli *cli, enum csm_method_id m)
{
	struct csm_msg_domain_req req = {
		.domain = csm_str_of(cli->arg[0]),
		.request_id = csm_str_of(cli->value[O_REQUEST_ID]),
	};

	return cli_show(cli, m, &req);
}

int cmd_domain_create(struct cli *cli)
{
	return on_domain(cli, CSM_M_DOMAIN_CREATE);
}

int cmd_domain_show(struct cli *cli)
{
	return on_domain(cli, CSM_M_DOMAIN_SHOW);
}

int cmd_domain_delete(struct cli *cli)
{
	return on_domain(cli, CSM_M_DOMAIN_DELETE);
}

int cmd_secret_delete(struct cli *cli)
{
	struct csm_msg_secret_delete_req req = {
		.secret = csm_str_of(cli->arg[0]),
		.request_id = csm_str_of(cli->value[O_REQUEST_ID]),
	};

	return cli_show(cli, CSM_M_SECRET_DELETE, &req);
}
