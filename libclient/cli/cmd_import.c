/* csm key import and export: keys that come wrapped, and the one form in which a key goes out. */
#include <string.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include "libclient/base/lockmem.h"
#include "libclient/cli/wrap.h"
#include "libclient/tpmfmt/tpmutil.h"

#define FILES_MAX TPMUTIL__PARTS

static struct csm_bin bin_of(const struct csm_buf *b)
{
	return (struct csm_bin){csm_buf_ptr(b), b->len};
}

static bool has_text(struct csm_bin in, const char *text)
{
	return memmem(in.p, in.n, text, strlen(text)) != NULL;
}

/* ---- a private key in clear ---- */

static bool is_plain_key(struct csm_bin in)
{
	const uint8_t *at = in.p;
	X509_SIG *enc;
	EVP_PKEY *key;

	if (has_text(in, "-----BEGIN "))
		return has_text(in, "PRIVATE KEY-----") && !has_text(in, "-----BEGIN " CSM_PEM_TSS2 "-----");
	key = d2i_AutoPrivateKey(NULL, &at, (long)in.n);
	at = in.p;
	enc = key == NULL ? d2i_X509_SIG(NULL, &at, (long)in.n) : NULL;
	ERR_clear_error();
	EVP_PKEY_free(key);
	X509_SIG_free(enc);
	return key != NULL || enc != NULL;
}

static int refuse_plain(const char *path)
{
	return client_err(CSM_EINVALID,
		"%s is a private key that is not wrapped for this node, and was not sent to it: wrap it with csm wrap-key, "
		"where it was made",
		path);
}

/* ---- tpm-util's sets ---- */

/* The files tell the key to everyone; from here on it is wrapped for this node, like any other. */
static int wrap_exposed(struct cli *cli, const struct tpmutil_set *set, const struct csm_buf *sensitive,
	struct csm_buf *body)
{
	const TPMA_OBJECT uses = TPMA_OBJECT_SIGN_ENCRYPT | TPMA_OBJECT_DECRYPT;
	struct storage to;
	EVP_PKEY *key = NULL;
	TPMT_PUBLIC pub;
	int r;

	if (csm_tpm_sensitive_get(bin_of(sensitive), &set->pub, &key) != 0)
		return client_err(CSM_EINVALID, "the files do not belong together: the private half is not the public one's");
	r = csm_tpm_public_of(key, &pub) != 0 ? client_err_plain(CSM_EUNSUPPORTED) : 0;
	EVP_PKEY_free(key);
	if (r != 0 || (r = storage_of_node(cli, cli->value[O_BACKEND], &to)) != 0)
		return r;
	pub.objectAttributes = TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA | (set->pub.objectAttributes & uses);
	return wrap_sensitive(&to, &pub, bin_of(sensitive), body);
}

/* Wrapped by another program with a seed of its own for this TPM's storage root key: the TPM will tell. */
static int take_sealed(struct cli *cli, const struct tpmutil_set *set, struct csm_buf *body)
{
	struct csm_wrapped w = {.pub = set->pub, .duplicate = set->duplicate, .seed = set->seed};
	struct storage to;
	int r;

	if (!set->have[TPMUTIL_SEED])
		return client_err(CSM_EINVALID, "the set has no seed");
	if (set->have[TPMUTIL_INNER])
		return client_err(CSM_EUNSUPPORTED, "the key is wrapped with an inner key: csm takes it without one");
	if ((r = storage_of_node(cli, "tpm2", &to)) != 0)
		return r;
	w.storage = (struct csm_bin){to.name.name, to.name.size};
	r = csm_wrapped_put(&w, body);
	return r != 0 ? client_err_plain(r) : 0;
}

static int take_set(struct cli *cli, struct csm_buf *files, size_t n, struct csm_buf *body, bool *exposed)
{
	struct tpmutil_set set = {.have = {false}};
	struct csm_buf sensitive;
	int r;

	for (size_t i = 0; i < n; i++) {
		r = tpmutil_add(&set, bin_of(&files[i]));
		if (r != 0)
			return client_err(CSM_EINVALID,
				r == CSM_EEXISTS ? "%s is a part of a key that another file holds already" :
						   "%s is no wrapped key, and no part of one that csm knows",
				cli->arg[1 + i]);
	}
	csm_buf_init(&sensitive, CSM_TPM_SENSITIVE_MAX, true);
	r = tpmutil_open(&set, &sensitive);
	*exposed = r == 0;
	if (r == CSM_ENOT_FOUND)
		r = take_sealed(cli, &set, body);
	else if (r != 0)
		r = client_err(CSM_EINVALID, "parts of the key are missing, or do not belong together");
	else if (cli->value[O_ACCEPT_EXPOSED] == NULL)
		r = client_err(CSM_EINVALID,
			"these files are of tpm-util, which wraps with a seed of zeros: whoever had them has the private key. Make a "
			"new key, or take this one with --accept-exposed");
	else
		r = wrap_exposed(cli, &set, &sensitive, body);
	csm_buf_free(&sensitive);
	return r;
}

/* ---- import ---- */

/* What is sent, from what the files hold. */
static int take_files(struct cli *cli, struct csm_buf *files, size_t n, struct csm_buf *body, bool *exposed)
{
	struct csm_bin first = bin_of(&files[0]);
	struct csm_tss2 tss2;
	const char *why;
	int r;

	*exposed = false;
	for (size_t i = 0; i < n; i++)
		if (is_plain_key(bin_of(&files[i])))
			return refuse_plain(cli->arg[1 + i]);
	if (n == 1 && cli->value[O_BACKEND] != NULL && has_text(first, "-----BEGIN "))
		return cli_usage("%s: --backend is for files of tpm-util only, this one says itself where it belongs", cli->arg[1]);
	if (n == 1 && has_text(first, "-----BEGIN " CSM_PEM_WRAPPED "-----"))
		return pem_get_exact(first, CSM_PEM_WRAPPED, body);
	if (n == 1 && has_text(first, "-----BEGIN " CSM_PEM_TSS2 "-----")) {
		r = pem_get(first.p, first.n, CSM_PEM_TSS2, body);
		if (r == 0 && (r = csm_tss2_get(bin_of(body), &tss2, &why)) != 0)
			r = client_err(r, "%s: %s", cli->arg[1], why);
		return r;
	}
	return take_set(cli, files, n, body, exposed);
}

static int import_files(struct cli *cli, struct csm_buf *files, size_t n)
{
	struct csm_msg_key_import_req req = {
		.key = csm_str_of(cli->arg[0]), .request_id = csm_str_of(cli->value[O_REQUEST_ID])};
	struct issuer_args issuer;
	const char *use = cli->value[O_USE];
	struct csm_buf body;
	bool exposed;
	int r = 0;

	if (use != NULL && strcmp(use, "issuer") != 0)
		return cli_usage("--use: a wrapped key has its uses with it; only issuer may be said");
	if (issuer_rules(cli, &issuer, use != NULL) != 0)
		return -EXIT_USAGE;
	if (use != NULL)
		req.issuer = &issuer.rules;
	for (size_t i = 0; r == 0 && i < n; i++)
		r = io_read(cli->arg[1 + i], &files[i]);
	csm_buf_init(&body, WRAP_FILE_MAX, true);
	if (r == 0 && (r = take_files(cli, files, n, &body, &exposed)) == 0) {
		req.wrapped = bin_of(&body);
		req.exposed.v = req.exposed.set = exposed;
		r = cli_show(cli, CSM_M_KEY_IMPORT, &req);
	}
	csm_buf_free(&body);
	return r;
}

int cmd_key_import(struct cli *cli)
{
	struct csm_buf files[FILES_MAX] = {{0}};
	size_t n = cli->arg_n - 1;
	int r;

	/* It may be a private key in clear that is read, by mistake. */
	if ((r = wrap_protect()) != 0)
		return r;
	for (size_t i = 0; i < n; i++)
		csm_buf_init(&files[i], WRAP_FILE_MAX, true);
	r = import_files(cli, files, n);
	for (size_t i = 0; i < n; i++)
		csm_buf_free(&files[i]);
	return r;
}

/* ---- export ---- */

int cmd_key_export(struct cli *cli)
{
	struct csm_msg_key_export_req req = {.key = csm_str_of(cli->arg[0])};
	const struct csm_msg_key_export_res *res;
	struct csm_reply *rep;
	struct csm_buf pem;
	int r = client_call_new(cli->csm, CSM_M_KEY_EXPORT, &req, &rep);

	if (r != 0)
		return r;
	res = rep->msg;
	csm_buf_init(&pem, WRAP_FILE_MAX, true);
	r = pem_put(&pem, CSM_PEM_TSS2, res->tss2.p, res->tss2.n);
	if (r == 0 && cli->json)
		r = print_text_field(cli, "tss2", (const char *)csm_buf_ptr(&pem), pem.len);
	else if (r == 0)
		r = out_put(cli, false, csm_buf_ptr(&pem), pem.len);
	csm_buf_free(&pem);
	csm_reply_free(rep);
	return r;
}
