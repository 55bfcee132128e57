/* Commands that use a key, and those of the node's own key: sign, decrypt, derive, csr, random, seal. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "libclient/base/lockmem.h"
#include "libclient/cli/cli.h"

static const char *input_path(const struct cli *cli, size_t i)
{
	return cli->arg_n > i ? cli->arg[i] : "-";
}

/* ---- sign ---- */

static int put_signature(struct cli *cli, const struct csm_reply *rep)
{
	const struct csm_msg_sign_res *res = rep->msg;

	if (cli->json)
		return print_reply(cli, csm_reply_view(rep));
	return out_put(cli, true, res->signature.p, res->signature.n);
}

static int sign_short(struct cli *cli, const void *p, size_t n)
{
	struct csm_msg_sign_req req = {
		.key = csm_str_of(cli->arg[0]),
		.scheme = csm_str_of(cli->value[O_SCHEME]),
	};
	struct csm_reply *rep;
	int r;

	*(cli->value[O_DIGEST] != NULL ? &req.digest : &req.message) = client_bin(p, n);
	r = client_call_new(cli->csm, CSM_M_KEY_SIGN, &req, &rep);
	if (r != 0)
		return r;
	r = put_signature(cli, rep);
	csm_reply_free(rep);
	return r;
}

static int sign_rest(struct csm_sign *s, int fd, const char *path, uint8_t *p, size_t n)
{
	size_t got = n;
	int r;

	do {
		r = csm_sign_update(s, p, got);
		if (r == 0)
			r = io_read_some(fd, path, p, n, &got);
	} while (r == 0 && got > 0);
	return r;
}

/* p is full, and there is more to come. */
static int sign_long(struct cli *cli, int fd, const char *path, uint8_t *p, size_t n)
{
	struct csm_reply *rep;
	struct csm_sign *s;
	int r = csm_sign_start(cli->csm, cli->arg[0], cli->value[O_SCHEME], &s);

	if (r != 0)
		return r;
	r = sign_rest(s, fd, path, p, n);
	if (r == 0)
		r = client_sign_finish(s, &rep);
	if (r == 0) {
		r = put_signature(cli, rep);
		csm_reply_free(rep);
	}
	csm_sign_free(s);
	return r;
}

static int fill(int fd, const char *path, uint8_t *p, size_t n, size_t *ret)
{
	size_t at = 0, got;
	int r;

	do {
		r = io_read_some(fd, path, p + at, n - at, &got);
		at += r == 0 ? got : 0;
	} while (r == 0 && got > 0 && at < n);
	*ret = at;
	return r;
}

static int sign_fd(struct cli *cli, int fd, const char *path)
{
	/* one byte more than a single request may hold tells a short message from a long one */
	size_t max = cli->value[O_DIGEST] != NULL ? CSM_DIGEST_MAX : CSM_SIGN_MESSAGE_MAX, n;
	uint8_t *p = csm_lock_alloc(max + 1);
	int r;

	if (p == NULL)
		return client_err_plain(CSM_ENOMEM);
	r = fill(fd, path, p, max + 1, &n);
	if (r == 0 && n <= max)
		r = sign_short(cli, p, n);
	else if (r == 0 && cli->value[O_DIGEST] != NULL)
		r = cli_usage("a digest has at most %zu bytes", max);
	else if (r == 0)
		r = sign_long(cli, fd, path, p, n);
	csm_lock_free(p);
	return r;
}

int cmd_sign(struct cli *cli)
{
	const char *path = input_path(cli, 1);
	struct out o;
	int fd, r;

	/* that the signature cannot be shown is better known before it is made */
	if (!cli->json && cli->value[O_OUTPUT] == NULL) {
		r = out_open(cli, true, &o);
		if (r != 0)
			return r;
	}
	if (strcmp(path, "-") == 0)
		return sign_fd(cli, STDIN_FILENO, path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return client_err_errno(CSM_ESYSTEM, path);
	r = sign_fd(cli, fd, path);
	(void)close(fd);
	return r;
}

/* ---- decrypt, derive ---- */

int cmd_decrypt(struct cli *cli)
{
	const char *label = cli->value[O_LABEL];
	struct csm_msg_decrypt_req req = {
		.key = csm_str_of(cli->arg[0]),
		.scheme = csm_str_of(cli->value[O_SCHEME]),
		.label = {(const uint8_t *)label, label != NULL ? strlen(label) : 0},
	};
	struct csm_reply *rep;
	struct csm_buf b;
	int r;

	json_protect();
	csm_buf_init(&b, CSM_DEF(decrypt_req)->fields[2].max, false);
	r = io_read(input_path(cli, 1), &b);
	if (r != 0)
		goto out;
	req.ciphertext = client_bin(csm_buf_ptr(&b), b.len);
	r = client_call_new(cli->csm, CSM_M_KEY_DECRYPT, &req, &rep);
	if (r == 0) {
		struct csm_bin plain = ((const struct csm_msg_decrypt_res *)rep->msg)->plaintext;

		r = print_bytes(cli, "plaintext", plain.p, plain.n);
		csm_reply_free(rep);
	}
out:
	csm_buf_free(&b);
	return r;
}

static bool is_pem(const struct csm_buf *b)
{
	return b->len > 0 && memmem(csm_buf_ptr(b), b->len, "-----BEGIN", 10) != NULL;
}

int cmd_derive(struct cli *cli)
{
	struct csm_msg_derive_req req = {.key = csm_str_of(cli->arg[0])};
	struct csm_reply *rep;
	struct csm_buf b, der;
	int r;

	json_protect();
	csm_buf_init(&b, 64 * 1024, false);
	csm_buf_init(&der, 64 * 1024, false);
	r = io_read(cli->arg[1], &b);
	if (r != 0)
		goto out;
	r = is_pem(&b) ? pem_get(csm_buf_ptr(&b), b.len, "PUBLIC KEY", &der) : csm_buf_put(&der, csm_buf_ptr(&b), b.len);
	if (r != 0)
		goto out;
	req.peer = client_bin(csm_buf_ptr(&der), der.len);
	r = client_call_new(cli->csm, CSM_M_KEY_DERIVE, &req, &rep);
	if (r == 0) {
		struct csm_bin shared = ((const struct csm_msg_derive_res *)rep->msg)->shared;

		r = print_bytes(cli, "shared", shared.p, shared.n);
		csm_reply_free(rep);
	}
out:
	csm_buf_free(&der);
	csm_buf_free(&b);
	return r;
}

/* ---- certificate requests ---- */

static int put_csr(struct cli *cli, struct csm_bin der)
{
	struct csm_buf pem;
	int r;

	if (cli->value[O_DER] != NULL && !cli->json)
		return out_put(cli, true, der.p, der.n);
	csm_buf_init(&pem, 64 * 1024, false);
	r = pem_put(&pem, "CERTIFICATE REQUEST", der.p, der.n);
	if (r == 0)
		r = print_text_field(cli, "csr", (const char *)csm_buf_ptr(&pem), pem.len);
	csm_buf_free(&pem);
	return r;
}

int cmd_csr(struct cli *cli)
{
	struct csm_str sans[OPT_LIST_MAX];
	struct csm_msg_csr_req req = {
		.key = csm_str_of(cli->arg[0]),
		.subject = csm_str_of(cli->value[O_SUBJECT] != NULL ? cli->value[O_SUBJECT] : "/"),
		.sans = {sans, cli->list_n},
		.scheme = csm_str_of(cli->value[O_SCHEME]),
	};
	struct csm_reply *rep;
	size_t i;
	int r;

	for (i = 0; i < cli->list_n; i++)
		sans[i] = csm_str_of(cli->list[i]);
	r = client_call_new(cli->csm, CSM_M_KEY_CSR, &req, &rep);
	if (r != 0)
		return r;
	r = put_csr(cli, ((const struct csm_msg_csr_res *)rep->msg)->csr);
	csm_reply_free(rep);
	return r;
}

/* ---- random, seal, unseal ---- */

#define RANDOM_MAX (UINT64_C(1) << 40)

static int random_json(struct cli *cli, size_t n)
{
	uint8_t *p = csm_lock_alloc(n);
	int r;

	if (p == NULL)
		return client_err_plain(CSM_ENOMEM);
	r = csm_random(cli->csm, p, n);
	if (r == 0)
		r = print_bytes(cli, "random", p, n);
	csm_lock_free(p);
	return r;
}

static int random_stream(struct cli *cli, uint64_t n)
{
	uint8_t *p = csm_lock_alloc(CSM_RANDOM_MAX);
	struct out o;
	int r;

	if (p == NULL)
		return client_err_plain(CSM_ENOMEM);
	r = out_open(cli, true, &o);
	if (r != 0)
		goto out;
	while (r == 0 && n > 0) {
		size_t k = n < CSM_RANDOM_MAX ? n : CSM_RANDOM_MAX;

		r = csm_random(cli->csm, p, k);
		if (r == 0)
			r = io_write(o.fd, p, k);
		n -= k;
	}
	r = out_close(&o, r);
out:
	csm_lock_free(p);
	return r;
}

int cmd_random(struct cli *cli)
{
	uint64_t n;
	int r = parse_u64("N", cli->arg[0], cli->json ? CSM_RANDOM_MAX : RANDOM_MAX, &n);

	if (r != 0)
		return r;
	if (n == 0)
		return client_err(CSM_EINVALID, "N is at least 1");
	json_protect();
	return cli->json ? random_json(cli, n) : random_stream(cli, n);
}

static struct csm_bin context(const struct cli *cli)
{
	const char *s = cli->value[O_CONTEXT];

	return (struct csm_bin){(const uint8_t *)s, s != NULL ? strlen(s) : 0};
}

int cmd_seal(struct cli *cli)
{
	struct csm_msg_seal_req req = {.context = context(cli), .namespace = csm_str_of(cli->value[O_NAMESPACE])};
	struct csm_reply *rep;
	struct csm_buf b;
	int r;

	json_protect();
	csm_buf_init(&b, CSM_SEAL_MAX, true);
	r = io_read(input_path(cli, 0), &b);
	if (r != 0)
		goto out;
	req.data = client_bin(csm_buf_ptr(&b), b.len);
	r = client_call_new(cli->csm, CSM_M_SEAL, &req, &rep);
	if (r == 0) {
		struct csm_bin sealed = ((const struct csm_msg_seal_res *)rep->msg)->sealed;

		r = print_bytes(cli, "sealed", sealed.p, sealed.n);
		csm_reply_free(rep);
	}
out:
	csm_buf_free(&b);
	return r;
}

int cmd_unseal(struct cli *cli)
{
	struct csm_msg_unseal_req req = {.context = context(cli), .namespace = csm_str_of(cli->value[O_NAMESPACE])};
	struct csm_reply *rep;
	struct csm_buf b;
	int r;

	json_protect();
	csm_buf_init(&b, CSM_SEAL_MAX + CSM_SEAL_EXTRA_BYTES, false);
	r = io_read(input_path(cli, 0), &b);
	if (r != 0)
		goto out;
	req.sealed = client_bin(csm_buf_ptr(&b), b.len);
	r = client_call_new(cli->csm, CSM_M_UNSEAL, &req, &rep);
	if (r == 0) {
		struct csm_bin data = ((const struct csm_msg_unseal_res *)rep->msg)->data;

		r = print_bytes(cli, "data", data.p, data.n);
		csm_reply_free(rep);
	}
out:
	csm_buf_free(&b);
	return r;
}
