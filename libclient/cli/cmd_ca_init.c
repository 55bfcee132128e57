/* csm ca init, csm ca import: an authority begins. Over the local socket, or REST once there is an administrator. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include "libclient/base/lockmem.h"
#include "libclient/certdir/certdir.h"
#include "libclient/cli/server.h"
#include "libclient/cli/wrap.h"

#define ADMIN_DEFAULT "admin"
#define STACK_LEFT 65536u

/* ---- the first administrator: his key is made here, and stays here ---- */

struct admin {
	bool wanted;
	char *cert_path, *key_path;
	int cert_fd, key_fd; /* -1: not made */
	char *csr;           /* PEM */
};

static void admin_init(struct admin *a)
{
	*a = (struct admin){.cert_fd = -1, .key_fd = -1};
}

/* r: what was so far. What is not needed goes again. */
static int admin_end(struct admin *a, int r)
{
	if (a->cert_fd >= 0 && close(a->cert_fd) != 0 && r == 0)
		r = client_err_errno(CSM_ESYSTEM, a->cert_path);
	if (a->key_fd >= 0 && close(a->key_fd) != 0 && r == 0)
		r = client_err_errno(CSM_ESYSTEM, a->key_path);
	if (r != 0 && a->cert_fd >= 0)
		(void)unlink(a->cert_path);
	if (r != 0 && a->key_fd >= 0)
		(void)unlink(a->key_path);
	free(a->cert_path);
	free(a->key_path);
	free(a->csr);
	return r;
}

static int make_file(const char *prefix, const char *suffix, char **path, int *fd)
{
	if (asprintf(path, "%s%s", prefix, suffix) < 0) {
		*path = NULL;
		return client_err_plain(CSM_ENOMEM);
	}
	*fd = open(*path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (*fd >= 0)
		return 0;
	return errno == EEXIST ? client_err(CSM_EEXISTS, "%s is there already: --admin names others, --admin \"\" none", *path) :
				 client_err_errno(CSM_ESYSTEM, *path);
}

static int put_bio(BIO *bio, int fd)
{
	char *p;
	long n = BIO_get_mem_data(bio, &p);

	return n > 0 ? io_write(fd, p, (size_t)n) : client_err_plain(CSM_ENOMEM);
}

static int put_key(struct admin *a, EVP_PKEY *key)
{
	BIO *bio = BIO_new(BIO_s_secmem());
	int r;

	if (bio == NULL || PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1)
		r = client_err_plain(CSM_ENOMEM);
	else
		r = put_bio(bio, a->key_fd);
	if (r == 0 && fsync(a->key_fd) != 0)
		r = client_err_errno(CSM_ESYSTEM, a->key_path);
	BIO_free(bio);
	return r;
}

static int make_csr(struct admin *a, EVP_PKEY *key)
{
	X509_REQ *req = X509_REQ_new();
	X509_NAME *name = X509_NAME_new();
	BIO *bio = BIO_new(BIO_s_mem());
	int r = client_err_plain(CSM_ENOMEM);
	char *p;
	long n;

	if (req != NULL && name != NULL && bio != NULL &&
		X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)"administrator", -1, -1, 0) == 1 &&
		X509_REQ_set_subject_name(req, name) == 1 && X509_REQ_set_pubkey(req, key) == 1 &&
		X509_REQ_sign(req, key, EVP_sha256()) > 0 && PEM_write_bio_X509_REQ(bio, req) == 1 &&
		(n = BIO_get_mem_data(bio, &p)) > 0 && (a->csr = strndup(p, (size_t)n)) != NULL)
		r = 0;
	BIO_free(bio);
	X509_NAME_free(name);
	X509_REQ_free(req);
	return r;
}

static int admin_make(struct cli *cli, struct admin *a)
{
	const char *prefix = cli->value[O_ADMIN] != NULL ? cli->value[O_ADMIN] : ADMIN_DEFAULT;
	EVP_PKEY *key;
	int r;

	if (*prefix == '\0')
		return 0;
	a->wanted = true;
	if ((r = make_file(prefix, ".key", &a->key_path, &a->key_fd)) != 0 ||
		(r = make_file(prefix, ".pem", &a->cert_path, &a->cert_fd)) != 0)
		return r;
	if ((key = EVP_EC_gen("P-256")) == NULL)
		return client_err_plain(CSM_ENOMEM);
	if ((r = put_key(a, key)) == 0)
		r = make_csr(a, key);
	EVP_PKEY_free(key);
	csm_wipe_stack(STACK_LEFT);
	return r;
}

/* The certificate, and its issuers behind it, as TLS wants them. */
static int admin_take(struct admin *a, const json_t *answer)
{
	const json_t *j = json_object_get(answer, "administrator");
	const char *cert, *chain;
	int r;

	if (!a->wanted)
		return 0;
	if ((r = server_text(j, "certificate", &cert)) != 0 || (r = io_write(a->cert_fd, cert, strlen(cert))) != 0)
		return r;
	/* The chain may begin with the certificate itself. */
	chain = csm_rest_text(j, "chain");
	if (chain != NULL && strncmp(chain, cert, strlen(cert)) == 0)
		chain += strlen(cert);
	if (chain != NULL)
		r = io_write(a->cert_fd, chain, strlen(chain));
	if (r == 0 && fsync(a->cert_fd) != 0)
		r = client_err_errno(CSM_ESYSTEM, a->cert_path);
	if (r == 0)
		cli_note("the administrator's certificate is in %s, the key in %s: CSM_ADMIN_CERT and CSM_ADMIN_KEY", a->cert_path,
			a->key_path);
	return r;
}

/* ---- what is asked for ---- */

static int set_text(json_t *body, const char *name, const char *value)
{
	return value == NULL || json_object_set_new(body, name, json_string(value)) == 0 ? 0 : client_err_plain(CSM_ENOMEM);
}

static int set_number(json_t *body, const char *name, uint64_t v)
{
	return json_object_set_new(body, name, json_integer((json_int_t)v)) == 0 ? 0 : client_err_plain(CSM_ENOMEM);
}

static int set_names(struct cli *cli, json_t *body, enum opt_id id, const char *name)
{
	json_t *names = json_array();
	int bad = names == NULL;

	for (size_t i = 0; i < cli->list_n; i++)
		if (cli->list_of[i] == id)
			bad |= json_array_append_new(names, json_string(cli->list[i]));
	if (bad == 0 && json_array_size(names) > 0)
		bad = json_object_set(body, name, names);
	json_decref(names);
	return bad != 0 ? client_err_plain(CSM_ENOMEM) : 0;
}

/* The rules of the key, for good; csm-server's where nothing is said. */
static int set_rules(struct cli *cli, json_t *body)
{
	uint64_t v;
	int r;

	if (cli->value[O_MAX_LIFE] != NULL && ((r = parse_life("--max-life", cli->value[O_MAX_LIFE], UINT32_MAX, &v)) != 0 ||
						      (r = set_number(body, "max_life", v)) != 0))
		return r;
	if (cli->value[O_PATH_LEN] != NULL &&
		((r = parse_u64("--path-len", cli->value[O_PATH_LEN], CSM_ISSUER_PATH_MAX, &v)) != 0 ||
			(r = set_number(body, "path_len", v)) != 0))
		return r;
	if (cli->value[O_RATE] != NULL && ((r = parse_u64("--rate", cli->value[O_RATE], CSM_ISSUER_RATE_MAX, &v)) != 0 ||
						  (r = set_number(body, "rate", v)) != 0))
		return r;
	if ((r = set_names(cli, body, O_PERMIT, "permitted")) != 0)
		return r;
	return set_names(cli, body, O_EXCLUDE, "excluded");
}

static int set_key(struct cli *cli, json_t *body)
{
	uint64_t v;
	int r;

	if (cli->value[O_SUBJECT] == NULL)
		return cli_usage("csm ca init needs --subject: the authority's name");
	if (cli->value[O_CSR] != NULL && json_object_set_new(body, "self_signed", json_false()) != 0)
		return client_err_plain(CSM_ENOMEM);
	if (cli->value[O_TTL] != NULL && ((r = parse_life("--ttl", cli->value[O_TTL], UINT32_MAX, &v)) != 0 ||
						 (r = set_number(body, "life", v)) != 0))
		return r;
	if ((r = set_text(body, "subject", cli->value[O_SUBJECT])) != 0 || (r = set_text(body, "alg", cli->value[O_ALG])) != 0)
		return r;
	return set_text(body, "backend", cli->value[O_BACKEND]);
}

static int put_chain(json_t *body, const struct csm_certs *c)
{
	struct csm_buf pem;
	int r;

	csm_buf_init(&pem, CSM_MESSAGE_MAX, false);
	r = csm_certs_pem(c, 0, c->n, &pem);
	if (r == 0 && json_object_set_new(body, "chain", json_stringn((const char *)csm_buf_ptr(&pem), pem.len)) != 0)
		r = CSM_ENOMEM;
	csm_buf_free(&pem);
	return r != 0 ? client_err_plain(r) : 0;
}

/* Just the certificates: the file may hold more. */
static int set_chain(json_t *body, const char *path)
{
	struct csm_certs c;
	struct csm_buf der;
	int r;

	csm_buf_init(&der, CSM_MESSAGE_MAX, false);
	r = certs_of_file(path, &der);
	if (r == 0 && csm_certs_split((struct csm_bin){csm_buf_ptr(&der), der.len}, &c) != 0)
		r = client_err(CSM_EINVALID, "%s holds no chain of certificates", path);
	if (r == 0)
		r = put_chain(body, &c);
	csm_buf_free(&der);
	return r;
}

/* ---- the answer ---- */

/* To the file that --csr names, whatever else is printed. */
static int put_csr(struct cli *cli, const char *csr)
{
	const char *output = cli->value[O_OUTPUT];
	int r;

	cli->value[O_OUTPUT] = cli->value[O_CSR];
	r = out_put(cli, false, csr, strlen(csr));
	cli->value[O_OUTPUT] = output;
	return r;
}

static int show(struct cli *cli, json_t *answer)
{
	const char *csr = csm_rest_text(answer, "csr"), *root;
	int r = 0;

	if (csr != NULL)
		r = put_csr(cli, csr);
	if (r == 0 && cli->json)
		return json_print(cli, answer);
	if (r == 0 && csr == NULL && (r = server_text(answer, "root", &root)) == 0)
		r = out_put(cli, false, root, strlen(root));
	json_decref(answer);
	return r;
}

static int ask(struct cli *cli, const char *method, json_t *body, struct admin *a)
{
	struct server *s = NULL;
	json_t *answer = NULL;
	int r = set_text(body, "issuer", cli->value[O_ISSUER]);

	if (r == 0)
		r = set_text(body, "admin_csr", a->csr);
	if (r == 0 && (r = server_open(cli, secure_getenv("CSM_ADMIN_CERT") == NULL, &s)) == 0)
		r = server_call(s, method, "/v1/cms/ca", body, &answer);
	if (r == 0)
		r = admin_take(a, answer);
	server_close(s);
	if (r != 0)
		json_decref(answer);
	else
		r = show(cli, answer);
	return r;
}

int cmd_ca_init(struct cli *cli)
{
	const char *chain = cli->value[O_CHAIN] != NULL && cli->arg_n > 0 ? cli->arg[0] : NULL;
	json_t *body = json_object();
	struct admin a;
	int r;

	if ((chain != NULL) != (cli->value[O_CHAIN] != NULL) || (chain == NULL && cli->arg_n > 0)) {
		json_decref(body);
		return cli_usage("--chain and the file with the chain go together");
	}
	if (chain != NULL && (cli->value[O_CSR] != NULL || cli->value[O_SUBJECT] != NULL)) {
		json_decref(body);
		return cli_usage("--chain is what became of the request: it goes with neither --csr nor --subject");
	}
	admin_init(&a);
	r = body != NULL ? wrap_protect() : client_err_plain(CSM_ENOMEM);
	if (r == 0)
		r = chain != NULL ? set_chain(body, chain) : set_key(cli, body);
	if (r == 0)
		r = set_rules(cli, body);
	/* Without a certificate of the authority there is none of an administrator. */
	if (r == 0 && cli->value[O_CSR] == NULL)
		r = admin_make(cli, &a);
	if (r == 0)
		r = ask(cli, chain != NULL ? "PUT" : "POST", body, &a);
	json_decref(body);
	return admin_end(&a, r);
}

static int set_wrapped(json_t *body, const struct csm_buf *wrapped)
{
	struct csm_buf pem;
	int r;

	csm_buf_init(&pem, WRAP_FILE_MAX, false);
	r = pem_put(&pem, CSM_PEM_WRAPPED, csm_buf_ptr(wrapped), wrapped->len);
	if (r == 0 && json_object_set_new(body, "key", json_stringn((const char *)csm_buf_ptr(&pem), pem.len)) != 0)
		r = client_err_plain(CSM_ENOMEM);
	csm_buf_free(&pem);
	return r;
}

/* The key in one file and the chain in another, or both in one PKCS#12. */
static int wrap_for_server(struct cli *cli, json_t *body)
{
	struct csm_buf wrapped, chain;
	struct csm_certs c;
	struct storage to;
	int r;

	csm_buf_init(&wrapped, CSM_WRAPPED_MAX, false);
	csm_buf_init(&chain, CSM_MESSAGE_MAX, false);
	r = cli->value[O_TO] != NULL ? storage_of_file(cli, cli->value[O_TO], &to) : storage_of_node(cli, cli->value[O_BACKEND], &to);
	if (r == 0)
		r = wrap_key_of(cli, &to, cli->arg[cli->arg_n - 1], cli->arg_n > 1 ? NULL : &chain, &wrapped);
	if (r == 0)
		r = set_wrapped(body, &wrapped);
	if (r == 0 && cli->arg_n > 1)
		r = set_chain(body, cli->arg[0]);
	else if (r == 0)
		r = csm_certs_split((struct csm_bin){csm_buf_ptr(&chain), chain.len}, &c) == 0 ?
			put_chain(body, &c) :
			client_err(CSM_EINVALID, "%s holds no certificates: give them in a file before it", cli->arg[0]);
	csm_buf_free(&wrapped);
	csm_buf_free(&chain);
	return r;
}

int cmd_ca_import(struct cli *cli)
{
	json_t *body = json_object();
	struct admin a;
	int r;

	admin_init(&a);
	r = body != NULL ? wrap_protect() : client_err_plain(CSM_ENOMEM);
	if (r == 0 && (r = wrap_for_server(cli, body)) == 0 && (r = set_rules(cli, body)) == 0 && (r = admin_make(cli, &a)) == 0)
		r = ask(cli, "PUT", body, &a);
	json_decref(body);
	return admin_end(&a, r);
}
