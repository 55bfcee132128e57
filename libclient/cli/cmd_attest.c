/* csm key attest, and csm attest: statements of a TPM about its keys. */
#include <stdio.h>
#include <string.h>
#include <jansson.h>
#include <sodium.h>
#include "libclient/cli/cli.h"
#include "libclient/cli/json.h"
#include "libclient/cli/wrap.h"
#include "libclient/tpmfmt/attest.h"

#define FILE_MAX (64u * 1024u)

/* ---- files ---- */

static int put_pem(struct cli *cli, const char *field, const char *label, const void *p, size_t n)
{
	struct csm_buf pem;
	int r;

	csm_buf_init(&pem, FILE_MAX, false);
	r = pem_put(&pem, label, p, n);
	if (r == 0 && cli->json)
		r = print_text_field(cli, field, (const char *)csm_buf_ptr(&pem), pem.len);
	else if (r == 0)
		r = out_put(cli, false, csm_buf_ptr(&pem), pem.len);
	csm_buf_free(&pem);
	return r;
}

/* The block of this label in the file, appended to der. */
static int get_pem(const char *path, const char *label, struct csm_buf *der)
{
	struct csm_buf b;
	int r;

	csm_buf_init(&b, FILE_MAX, true);
	r = io_read(path, &b);
	if (r == 0)
		r = pem_get(b.len > 0 ? csm_buf_ptr(&b) : (const uint8_t *)"", b.len, label, der);
	csm_buf_free(&b);
	return r;
}

/* A message in a file, in b; *out borrows it. */
static int get_msg(const char *path, const char *label, const struct csm_msgdef *def, struct csm_buf *b, void *out)
{
	struct csm_str bad;
	int r = get_pem(path, label, b);

	if (r == 0 && csm_msg_decode(def, (struct csm_bin){csm_buf_ptr(b), b->len}, CSM_UNKNOWN_REFUSE, NULL, out, &bad) != 0)
		r = client_err(CSM_EINVALID, "%s: it is no %s of this version", path, label);
	return r;
}

static int hex_option(struct cli *cli, enum opt_id id, uint8_t *out, size_t max, size_t *len)
{
	const char *hex = cli->value[id], *end;

	if (sodium_hex2bin(out, max, hex, strlen(hex), NULL, len, &end) != 0 || *end != '\0' || *len == 0)
		return cli_usage("--%s wants 1 to %zu bytes in hexadecimal digits", cli_opts[id].name, max);
	return 0;
}

/* ---- csm key attest ---- */

int cmd_key_attest(struct cli *cli)
{
	uint8_t nonce[CSM_ATTEST_NONCE_MAX];
	uint8_t statement[CSM_ATTESTATION_BYTES];
	size_t n = 0, len = sizeof(statement);
	int r = 0;

	if (cli->value[O_NONCE] != NULL)
		r = hex_option(cli, O_NONCE, nonce, sizeof(nonce), &n);
	if (r == 0)
		r = csm_key_attest(cli->csm, cli->arg[0], nonce, n, statement, &len);
	return r == 0 ? put_pem(cli, "attestation", CSM_ATTEST_PEM, statement, len) : r;
}

/* ---- csm attest verify ---- */

struct verify {
	struct cli *cli;
	struct csm_buf file, secret_file, proof_file; /* what is borrowed from */
	struct csm_attestation a;
	struct csm_attest_want want;
	struct csm_msg_attest_secret secret;
	struct csm_msg_attest_proof proof;
	uint8_t nonce[CSM_ATTEST_NONCE_MAX];
	json_t *checks;
	bool failed; /* to make them */
	char wrong[160]; /* where nothing is printed: the first check that failed */
};

static int read_statement(const char *path, struct csm_buf *b, struct csm_attestation *ret)
{
	const char *what = NULL;
	int r;

	csm_buf_init(b, FILE_MAX, false);
	r = get_pem(path, CSM_ATTEST_PEM, b);
	if (r == 0 && csm_attest_parse(csm_buf_ptr(b), b->len, ret, &what) != 0)
		r = client_err(CSM_EINVALID, "%s: %s", path, what);
	return r;
}

int public_of_file(const char *path, EVP_PKEY **ret)
{
	struct csm_buf der;
	const uint8_t *at;
	int r;

	csm_buf_init(&der, FILE_MAX, false);
	r = get_pem(path, "PUBLIC KEY", &der);
	if (r == 0) {
		at = csm_buf_ptr(&der);
		*ret = d2i_PUBKEY(NULL, &at, (long)der.len);
		if (*ret == NULL)
			r = client_err(CSM_EINVALID, "%s: it is no public key", path);
	}
	csm_buf_free(&der);
	return r;
}

static int add_ca(const char *path, X509_STORE *store)
{
	struct csm_buf der;
	int r;

	csm_buf_init(&der, FILE_MAX, false);
	r = certs_of_file(path, &der);
	for (const uint8_t *at = csm_buf_ptr(&der), *end = at + der.len; r == 0 && at < end;) {
		X509 *x = d2i_X509(NULL, &at, end - at);

		if (x == NULL || X509_STORE_add_cert(store, x) != 1)
			r = client_err(CSM_EINVALID, "%s: it is no certificate", path);
		X509_free(x);
	}
	csm_buf_free(&der);
	return r;
}

static int read_ca(struct verify *v)
{
	int r = 0;

	if (v->cli->list_n == 0)
		return 0;
	v->want.ca = X509_STORE_new();
	/* Whichever certificate of the chain is given, it is what is trusted. */
	if (v->want.ca == NULL || X509_STORE_set_flags(v->want.ca, X509_V_FLAG_PARTIAL_CHAIN) != 1)
		return client_err_plain(CSM_ENOMEM);
	for (size_t i = 0; r == 0 && i < v->cli->list_n; i++)
		r = add_ca(v->cli->list[i], v->want.ca);
	return r;
}

static int read_proof(struct verify *v)
{
	const char *secret = v->cli->value[O_SECRET_FILE], *proof = v->cli->value[O_PROOF];
	int r;

	if (secret == NULL && proof == NULL)
		return 0;
	if (secret == NULL || proof == NULL)
		return cli_usage("--proof and --secret-file go together");
	r = get_msg(secret, CSM_ATTEST_SECRET_PEM, CSM_DEF(attest_secret), &v->secret_file, &v->secret);
	if (r == 0)
		r = get_msg(proof, CSM_ATTEST_PROOF_PEM, CSM_DEF(attest_proof), &v->proof_file, &v->proof);
	v->want.secret = &v->secret;
	v->want.proof = &v->proof;
	return r;
}

static int read_wants(struct verify *v, const char *path)
{
	struct cli *cli = v->cli;
	int r = read_statement(path, &v->file, &v->a);

	if (r == 0 && cli->value[O_NONCE] != NULL) {
		r = hex_option(cli, O_NONCE, v->nonce, sizeof(v->nonce), &v->want.nonce_len);
		v->want.nonce = v->nonce;
	}
	if (r == 0 && cli->value[O_KEY] != NULL)
		r = public_of_file(cli->value[O_KEY], &v->want.key);
	if (r == 0 && cli->value[O_AK] != NULL)
		r = public_of_file(cli->value[O_AK], &v->want.ak);
	v->want.unproven = cli->value[O_UNPROVEN] != NULL;
	if (r == 0)
		r = read_ca(v);
	return r == 0 ? read_proof(v) : r;
}

static void on_check(void *arg, const char *check, enum csm_attest_outcome outcome, const char *text)
{
	static const char *const words[] = {
		[CSM_ATTEST_OK] = "ok", [CSM_ATTEST_FAILED] = "FAILED", [CSM_ATTEST_OPEN] = "not checked"};
	static const char *const results[] = {
		[CSM_ATTEST_OK] = "ok", [CSM_ATTEST_FAILED] = "failed", [CSM_ATTEST_OPEN] = "open"};
	struct verify *v = arg;
	json_t *row;

	if (!v->cli->json) {
		printf("%-12s %-12s %s\n", check, words[outcome], text);
		return;
	}
	row = json_pack("{s:s, s:s, s:s}", "check", check, "result", results[outcome], "text", text);
	if (row == NULL || json_array_append_new(v->checks, row) != 0)
		v->failed = true;
}

/* What the statement says of the link: "proven", "pinned" or "unproven". */
static const char *link_word(const struct verify *v)
{
	if (v->want.proof != NULL && v->want.ca != NULL)
		return "proven";
	return v->want.ak != NULL ? "pinned" : "unproven";
}

static json_t *pem_json(const TPMT_PUBLIC *pub)
{
	uint8_t der[CSM_SPKI_MAX];
	struct csm_buf pem;
	size_t n = 0;
	json_t *j = NULL;

	csm_buf_init(&pem, FILE_MAX, false);
	if (csm_tpm_public_spki(pub, der, sizeof(der), &n) == 0 && pem_put(&pem, "PUBLIC KEY", der, n) == 0)
		j = json_stringn((const char *)csm_buf_ptr(&pem), pem.len);
	csm_buf_free(&pem);
	return j;
}

static int verdict_json(struct verify *v, bool good)
{
	const TPMS_ATTEST *s = &v->a.attest;
	char name[2 * CSM_TPM_NAME_MAX + 1], nonce[2 * sizeof(s->extraData.buffer) + 1];
	json_t *j;

	sodium_bin2hex(name, sizeof(name), v->a.ak_name.name, v->a.ak_name.size);
	sodium_bin2hex(nonce, sizeof(nonce), s->extraData.buffer, s->extraData.size);
	j = json_pack("{s:b, s:s, s:s, s:s, s:I, s:o?, s:o?, s:O}", "valid", good, "link", good ? link_word(v) : "unproven",
		"ak_name", name, "nonce", nonce, "attributes", (json_int_t)v->a.key.objectAttributes, "public", pem_json(&v->a.key),
		"ak", pem_json(&v->a.ak), "checks", v->checks);
	if (j == NULL || v->failed) {
		json_decref(j);
		return client_err_plain(CSM_ENOMEM);
	}
	return json_print(v->cli, j);
}

static void verdict_text(const struct verify *v, bool good)
{
	const char *link = link_word(v);

	if (!good)
		printf("not valid\n");
	else if (strcmp(link, "proven") == 0)
		printf("valid: the key is in the TPM that its maker certified\n");
	else if (strcmp(link, "pinned") == 0)
		printf("valid: the key is in the TPM of the attestation key that was given\n");
	else
		printf("valid as far as it goes: whoever made this statement may have no TPM at all, see link\n");
}

static void verify_clear(struct verify *v)
{
	csm_attest_clear(&v->a);
	EVP_PKEY_free(v->want.key);
	EVP_PKEY_free(v->want.ak);
	X509_STORE_free(v->want.ca);
	csm_buf_free(&v->file);
	csm_buf_free(&v->secret_file);
	csm_buf_free(&v->proof_file);
	json_decref(v->checks);
}

int cmd_attest_verify(struct cli *cli)
{
	struct verify v = {.cli = cli, .checks = json_array()};
	bool good;
	int r;

	csm_buf_init(&v.secret_file, FILE_MAX, true);
	csm_buf_init(&v.proof_file, FILE_MAX, false);
	r = v.checks == NULL ? client_err_plain(CSM_ENOMEM) : read_wants(&v, cli->arg[0]);
	if (r == 0) {
		good = csm_attest_check(&v.a, &v.want, on_check, &v);
		cli->status = good ? 0 : 1;
		if (cli->json)
			r = verdict_json(&v, good);
		else
			verdict_text(&v, good);
	}
	verify_clear(&v);
	return r;
}

static void on_check_quiet(void *arg, const char *check, enum csm_attest_outcome outcome, const char *text)
{
	struct verify *v = arg;

	if (outcome == CSM_ATTEST_FAILED && v->wrong[0] == '\0')
		snprintf(v->wrong, sizeof(v->wrong), "%s: %s", check, text);
}

int attest_of_storage(struct cli *cli, const char *path, const TPM2B_NAME *storage)
{
	struct verify v = {.cli = cli};
	int r;

	csm_buf_init(&v.secret_file, FILE_MAX, true);
	csm_buf_init(&v.proof_file, FILE_MAX, false);
	r = read_wants(&v, path);
	v.want.storage = storage;
	if (r == 0 && !csm_attest_check(&v.a, &v.want, on_check_quiet, &v))
		r = client_err(CSM_EINVALID, "%s proves nothing of the storage key: %s", path, v.wrong);
	verify_clear(&v);
	return r;
}

/* ---- csm attest challenge, activate ---- */

/* Into a file, or to standard output: with --json as a field of this name. */
static int write_msg(struct cli *cli, const char *path, const char *field, const char *label, const struct csm_msgdef *def, const void *msg,
	bool secret)
{
	const char *kept = cli->value[O_OUTPUT];
	struct csm_buf b, pem;
	int r;

	csm_buf_init(&b, FILE_MAX, secret);
	csm_buf_init(&pem, FILE_MAX, secret);
	r = csm_msg_encode(def, msg, &b);
	r = r != 0 ? client_err_plain(r) : pem_put(&pem, label, csm_buf_ptr(&b), b.len);
	if (r == 0 && path == NULL && cli->json) {
		r = print_text_field(cli, field, (const char *)csm_buf_ptr(&pem), pem.len);
	} else if (r == 0) {
		cli->value[O_OUTPUT] = path;
		r = out_put(cli, false, csm_buf_ptr(&pem), pem.len);
		cli->value[O_OUTPUT] = kept;
	}
	csm_buf_free(&b);
	csm_buf_free(&pem);
	return r;
}

int cmd_attest_challenge(struct cli *cli)
{
	struct csm_attestation a = {0};
	struct csm_attest_space space;
	struct csm_msg_attest_challenge challenge;
	struct csm_msg_attest_secret secret;
	struct csm_buf file;
	int r;

	if (cli->value[O_SECRET_FILE] == NULL)
		return cli_usage("--secret-file says where the secret is to be kept until the proof comes back");
	r = read_statement(cli->arg[0], &file, &a);
	if (r == 0 && (r = csm_attest_challenge(&a, &space, &challenge, &secret)) != 0)
		r = client_err(r, "%s: the statement has no endorsement key that a challenge could be made for", cli->arg[0]);
	/* The secret first: a challenge that is out without it is of no use. */
	if (r == 0)
		r = write_msg(cli, cli->value[O_SECRET_FILE], "secret", CSM_ATTEST_SECRET_PEM, CSM_DEF(attest_secret), &secret, true);
	if (r == 0)
		r = write_msg(cli, cli->value[O_OUTPUT], "challenge", CSM_ATTEST_CHALLENGE_PEM, CSM_DEF(attest_challenge), &challenge, false);
	sodium_memzero(&space, sizeof(space));
	csm_attest_clear(&a);
	csm_buf_free(&file);
	return r;
}

int cmd_attest_activate(struct cli *cli)
{
	struct csm_msg_attest_challenge c;
	struct csm_msg_attest_proof proof = {.version = {1, true}};
	struct csm_credential cred;
	uint8_t answer[CSM_PROOF_BYTES];
	size_t n = sizeof(answer);
	struct csm_buf file;
	int r;

	csm_buf_init(&file, FILE_MAX, false);
	r = get_msg(cli->arg[0], CSM_ATTEST_CHALLENGE_PEM, CSM_DEF(attest_challenge), &file, &c);
	if (r != 0)
		goto out;
	cred = (struct csm_credential){c.ak_name.p, c.ek_name.p, c.ak_name.n, c.ek_name.n, c.credential.p, c.secret.p,
		c.credential.n, c.secret.n};
	if ((r = csm_attest_activate(cli->csm, &cred, answer, &n)) != 0)
		goto out;
	proof.ak_name = c.ak_name;
	proof.ek_name = c.ek_name;
	proof.proof = (struct csm_bin){answer, n};
	r = write_msg(cli, cli->value[O_OUTPUT], "proof", CSM_ATTEST_PROOF_PEM, CSM_DEF(attest_proof), &proof, false);
out:
	csm_buf_free(&file);
	return r;
}
