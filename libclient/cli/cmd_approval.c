/* Approved PCR policies, made where the signer's key is: no daemon, no TPM. */
#include <stdio.h>
#include <string.h>
#include <openssl/bio.h>
#include <openssl/pem.h>
#include "libclient/cli/cli.h"
#include "libclient/tpmfmt/policy.h"

#define KEY_FILE_MAX 16384u
#define VALUES_FILE_MAX 65536u

static int read_signer(const char *path, EVP_PKEY **ret)
{
	struct csm_buf b;
	BIO *bio;
	int r;

	csm_buf_init(&b, KEY_FILE_MAX, true);
	if ((r = io_read(path, &b)) != 0)
		goto out;
	bio = BIO_new_mem_buf(csm_buf_ptr(&b), (int)b.len);
	*ret = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL) : NULL;
	BIO_free(bio);
	r = *ret != NULL ? 0 : client_err(CSM_EINVALID, "%s is no private key in PEM", path);
out:
	csm_buf_free(&b);
	return r;
}

static int read_values(const char *path, struct csm_tpm_approval *a)
{
	uint8_t values[CSM_PCRS][CSM_PCR_LEN];
	struct csm_buf b;
	unsigned line;
	int r;

	csm_buf_init(&b, VALUES_FILE_MAX, false);
	if ((r = io_read(path, &b)) != 0)
		goto out;
	if (csm_pcr_values_parse((const char *)csm_buf_ptr(&b), b.len, &a->pcrs, values, &line) != 0) {
		r = client_err(CSM_EINVALID, "%s: line %u: not what tpm2_pcrread sha256:N,... prints", path, line);
		goto out;
	}
	csm_pcr_policy(a->pcrs, values, a->policy);
out:
	csm_buf_free(&b);
	return r;
}

int cmd_approval_sign(struct cli *cli)
{
	const char *ref = cli->value[O_REF] != NULL ? cli->value[O_REF] : "";
	struct csm_tpm_approval a = {.ref_len = strlen(ref)};
	char text[2 * CSM_APPROVAL_SIG_MAX + 512];
	EVP_PKEY *signer = NULL;
	int r;

	if (cli->value[O_SIGNER] == NULL || cli->value[O_PCRS] == NULL)
		return cli_usage("--signer and --pcrs are needed");
	if (a.ref_len > sizeof(a.ref))
		return cli_usage("--ref is at most %u bytes long", CSM_APPROVAL_REF_MAX);
	memcpy(a.ref, ref, a.ref_len);
	if ((r = read_values(cli->value[O_PCRS], &a)) != 0 || (r = read_signer(cli->value[O_SIGNER], &signer)) != 0)
		return r;
	r = csm_approval_sign(&a, signer);
	if (r == CSM_EUNSUPPORTED)
		r = client_err(r, "the signer's key has to be P-256, RSA-2048 or RSA-3072");
	else if (r != 0)
		r = client_err_plain(r);
	EVP_PKEY_free(signer);
	if (r != 0)
		return r;
	if (csm_approval_text(&a, text, sizeof(text)) != 0)
		return client_err_plain(CSM_EINTERNAL);
	if (cli->json)
		return print_text_field(cli, "approval", text, strlen(text));
	return out_put(cli, false, text, strlen(text));
}
