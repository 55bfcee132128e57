/* csm audit verify. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <jansson.h>
#include <openssl/x509.h>
#include <sodium.h>
#include "libclient/base/chain.h"
#include "libclient/base/hex.h"
#include "libclient/cli/cli.h"
#include "libclient/cli/json.h"
#include "libclient/tpmfmt/tpmfmt.h"

struct verify {
	struct cli *cli;
	struct csm_chain_check *check;
	json_t *problems, *notes; /* with --json */
	bool last;                /* the newest file: csmd may be in the middle of a line */
	bool live;
	EVP_PKEY *ak;             /* that witnesses are looked at with; NULL: they are not */
	uint8_t ak_hash[CSM_CHAIN_HASH];
	char key[2 * CSM_CHAIN_KEY + 1]; /* that signatures are looked at with; empty: they are not */
	bool failed;
};

static void on_found(void *arg, const struct csm_chain_finding *f)
{
	struct verify *v = arg;
	const char *name = csm_chain_problem_name(f->problem);
	json_t *row;

	if (!v->cli->json) {
		printf("%s:%llu: %s: ", f->file, (unsigned long long)f->line, name);
		if (f->seq == f->last)
			printf("line number %llu: %s\n", (unsigned long long)f->seq, f->text);
		else
			printf("line numbers %llu to %llu: %s\n", (unsigned long long)f->seq, (unsigned long long)f->last, f->text);
		return;
	}
	row = json_pack("{s:s, s:s, s:I, s:I, s:I, s:s}", "problem", name, "file", f->file, "line", (json_int_t)f->line, "seq",
		(json_int_t)f->seq, "last", (json_int_t)f->last, "text", f->text);
	if (row == NULL || json_array_append_new(f->problem == CSM_CHAIN_NOTE ? v->notes : v->problems, row) != 0)
		v->failed = true;
}

static void on_line(void *arg, const char *p, size_t n, bool torn)
{
	struct verify *v = arg;

	if (!torn)
		csm_chain_check_line(v->check, p, n);
	else if (!v->last || !v->live)
		csm_chain_check_torn(v->check);
}

static int read_files(struct verify *v, struct audit_files *f)
{
	int fd, r = 0;

	for (size_t i = 0; r == 0 && i < f->n; i++) {
		v->last = i + 1 == f->n;
		csm_chain_check_file(v->check, f->path[i]);
		r = audit_file_open(f, i, &fd);
		if (r != 0 || fd < 0)
			continue;
		r = audit_file_read(fd, f->path[i], on_line, v);
		/* There may be more files than descriptors. */
		close(fd);
		f->fd[i] = -1;
	}
	return r;
}

static void print_text(const struct verify *v, const struct csm_chain_sum *sum, size_t files)
{
	const struct csm_chain_sum *s = sum;

	if (s->lines == 0)
		printf("no lines\n");
	else
		printf("%llu lines in %zu file%s, numbers %llu to %llu\n", (unsigned long long)s->lines, files, files == 1 ? "" : "s",
			(unsigned long long)s->first, (unsigned long long)s->last);
	if (s->checkpoints > 0)
		printf("signed up to line number %llu with the key %s\n", (unsigned long long)s->signed_to, v->key);
	if (v->ak != NULL && s->witnesses == 0)
		printf("none of these lines is signed by the attestation key that was given\n");
	else if (v->ak != NULL)
		printf("signed by the TPM's attestation key up to line number %llu\n", (unsigned long long)s->witnessed_to);
	if (s->problems > 0)
		printf("%zu problem%s: the log was changed\n", s->problems, s->problems == 1 ? "" : "s");
	else if (s->uncovered != 0 && v->key[0] != '\0')
		printf("no fault in these lines, but nothing vouches for those from number %llu on\n",
			(unsigned long long)s->uncovered);
	else if (s->uncovered != 0)
		printf("no fault in these lines; without csmd or --key, forged lines and a missing end are not seen\n");
	else if (s->head_seen)
		printf("whole, up to the line that csmd wrote last\n");
	else
		printf("no fault in these lines%s\n", v->live ? "" : "; without csmd, a missing end is not seen");
}

static int print_json(struct verify *v, const struct csm_chain_sum *s, size_t files, const struct csm_msg_audit_head_res *head)
{
	json_t *j = json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:O, s:O}", "whole", s->problems == 0 && s->uncovered == 0, "files",
		(json_int_t)files, "lines", (json_int_t)s->lines, "first", (json_int_t)s->first, "last", (json_int_t)s->last,
		"checkpoints", (json_int_t)s->checkpoints, "signed_to", (json_int_t)s->signed_to, "problems", v->problems, "notes",
		v->notes);

	if (j == NULL || v->failed ||
		json_object_set_new(j, "key", v->key[0] == '\0' ? json_null() : json_string(v->key)) != 0 ||
		json_object_set_new(j, "witnessed_to",
			v->ak == NULL || s->witnesses == 0 ? json_null() : json_integer((json_int_t)s->witnessed_to)) != 0 ||
		json_object_set_new(j, "unsigned_from", s->uncovered == 0 ? json_null() : json_integer((json_int_t)s->uncovered)) != 0 ||
		json_object_set_new(j, "head", head == NULL ? json_null() : json_integer((json_int_t)head->seq.v)) != 0 ||
		json_object_set_new(j, "anchored", head == NULL ? json_null() : json_integer((json_int_t)head->anchored.v)) != 0) {
		json_decref(j);
		return client_err_plain(CSM_ENOMEM);
	}
	return json_print(v->cli, j);
}

static void use_key(struct verify *v, const uint8_t key[static CSM_CHAIN_KEY])
{
	csm_chain_check_key(v->check, key);
	csm_hex(key, CSM_CHAIN_KEY, v->key);
}

/* With SHA-256, as the key signs (libclient/base/chain.h). */
static bool on_witness(void *arg, const uint8_t ak[static CSM_CHAIN_HASH], const uint8_t text[static CSM_CHAIN_WITNESS_TEXT],
	const uint8_t *sig, size_t n)
{
	const struct verify *v = arg;
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool good = memcmp(ak, v->ak_hash, CSM_CHAIN_HASH) == 0 && ctx != NULL &&
		EVP_DigestVerifyInit_ex(ctx, NULL, "SHA256", NULL, NULL, v->ak, NULL) == 1 &&
		EVP_DigestVerify(ctx, sig, n, text, CSM_CHAIN_WITNESS_TEXT) == 1;

	EVP_MD_CTX_free(ctx);
	return good;
}

static int use_ak(struct verify *v, const char *path)
{
	uint8_t *der = NULL;
	int n, r;

	if (path == NULL)
		return 0;
	if ((r = public_of_file(path, &v->ak)) != 0)
		return r;
	if ((n = i2d_PUBKEY(v->ak, &der)) <= 0)
		return client_err_plain(CSM_ENOMEM);
	crypto_hash_sha256(v->ak_hash, der, (size_t)n);
	OPENSSL_free(der);
	csm_chain_check_witness(v->check, on_witness, v);
	return 0;
}

/* What csmd and the command line say of the log; head NULL: csmd was not asked. */
static int prepare(struct verify *v, const struct csm_msg_audit_head_res *head)
{
	const char *hex = v->cli->value[O_KEY];
	uint8_t key[CSM_CHAIN_KEY];
	int r;

	if (hex != NULL && csm_unhex(csm_str_of(hex), key, sizeof(key)) != 0)
		return cli_usage("--key wants %u hexadecimal digits in lower case", 2 * CSM_CHAIN_KEY);
	if (hex != NULL)
		use_key(v, key);
	if ((r = use_ak(v, v->cli->value[O_AK])) != 0)
		return r;
	if (head == NULL)
		return 0;
	v->live = true;
	if (hex == NULL && head->key.n == CSM_CHAIN_KEY)
		use_key(v, head->key.p);
	if (head->hash.n == CSM_CHAIN_HASH)
		csm_chain_check_head(v->check, head->seq.v, head->hash.p, v->cli->arg_n == 0);
	if (head->failing.v)
		cli_note("the audit log cannot be written at present");
	if (head->lost.v > 0)
		cli_note("%llu events are not in it", (unsigned long long)head->lost.v);
	return 0;
}

/* head NULL only with files that are given. */
static int find_files(struct verify *v, const struct csm_msg_audit_head_res *head, struct audit_files *ret)
{
	int r;

	if (v->cli->arg_n > 0 || head == NULL)
		return audit_files_given(v->cli->arg, v->cli->arg_n, ret);
	r = audit_files_of(head->folder.p, ret);
	/* All of it is gone: that is what has to be told. */
	if (r == CSM_ENOT_FOUND && head->seq.v > 0) {
		csm_chain_check_file(v->check, head->folder.p);
		r = 0;
	}
	return r;
}

static int verify(struct verify *v, const struct csm_msg_audit_head_res *head)
{
	struct audit_files files = {0};
	struct csm_chain_sum sum;
	int r = prepare(v, head);

	if (r == 0)
		r = find_files(v, head, &files);
	if (r == 0)
		r = read_files(v, &files);
	if (r == 0) {
		csm_chain_check_end(v->check, &sum);
		v->cli->status = sum.problems > 0 || (v->key[0] != '\0' && sum.uncovered != 0) ||
				(v->ak != NULL && sum.witnesses == 0)
			? 1
			: 0;
		if (v->cli->json)
			r = print_json(v, &sum, files.n, head);
		else
			print_text(v, &sum, files.n);
	}
	audit_files_free(&files);
	return r;
}

int cmd_audit_verify(struct cli *cli)
{
	struct verify v = {.cli = cli, .problems = json_array(), .notes = json_array()};
	struct csm_msg_empty req = {0};
	struct csm_reply *rep = NULL;
	int r = client_call_new(cli->csm, CSM_M_AUDIT_HEAD, &req, &rep);

	/* Files that were taken elsewhere can be checked where no csmd runs. */
	if (r != 0 && cli->arg_n > 0) {
		cli_note("csmd is not asked how the log ends: %s", csm_error_text(r));
		rep = NULL;
		r = 0;
	}
	if (r == 0 && (v.problems == NULL || v.notes == NULL || csm_chain_check_new(on_found, &v, &v.check) != 0))
		r = client_err_plain(CSM_ENOMEM);
	if (r == 0)
		r = verify(&v, rep == NULL ? NULL : rep->msg);
	EVP_PKEY_free(v.ak);
	csm_chain_check_free(v.check);
	json_decref(v.problems);
	json_decref(v.notes);
	csm_reply_free(rep);
	return r;
}
