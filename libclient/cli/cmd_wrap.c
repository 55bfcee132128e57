/* csm wrap-key: a private key for a node, so that nobody on the way and nothing on the node but its TPM (or csmd) has it
 * in clear. Needs neither a TPM nor a daemon. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <sodium.h>
#include "libclient/base/lockmem.h"
#include "libclient/cli/wrap.h"

#define STACK_LEFT 65536u

/* Where a passphrase comes from: a file, or the terminal. */
struct ask {
	const char *file;   /* NULL: the terminal */
	struct csm_buf got; /* its bytes, once it was asked for: OpenSSL may ask again, for another format */
	bool asked;
	int r;
};

/* The first line, as openssl's -passin file: takes it. */
static int read_passphrase(const char *file, struct csm_buf *b)
{
	const char *end;
	int r = io_read(file, b);

	if (r != 0)
		return r;
	if (b->len > 0 && (end = memchr(csm_buf_ptr(b), '\n', b->len)) != NULL)
		b->len = (size_t)(end - (const char *)csm_buf_ptr(b));
	if (b->len > 0 && csm_buf_ptr(b)[b->len - 1] == '\r')
		b->len--;
	return b->len > 0 ? 0 : client_err(CSM_EINVALID, "%s holds no passphrase", strcmp(file, "-") == 0 ? "standard input" : file);
}

/* What OpenSSL calls; the passphrase goes to its buffer and nowhere else. */
static int passphrase(char *out, int size, int writing, void *arg)
{
	struct ask *ask = arg;

	(void)writing;
	if (!ask->asked) {
		ask->asked = true;
		ask->r = ask->file != NULL ? read_passphrase(ask->file, &ask->got) :
			prompt_passphrase(CSM_STR("the private key's passphrase"), &ask->got);
		if (ask->r == 0 && ask->got.len > (size_t)size)
			ask->r = client_err(CSM_ETOO_LARGE, "the passphrase is longer than %d bytes", size);
	}
	if (ask->r != 0)
		return -1;
	if (ask->got.len > 0)
		memcpy(out, csm_buf_ptr(&ask->got), ask->got.len);
	return (int)ask->got.len;
}

static int wrong_passphrase(const char *path, const struct ask *ask)
{
	return client_err(CSM_EINVALID, "%s: the passphrase is not its: %s", path,
		ask->file == NULL ? "what was typed does not open it" : "what --passphrase-file holds, up to the end of the line, does not open it");
}

/* Both in one file, its certificates appended to chain in the order in which TLS has them. */
static int open_pkcs12(const PKCS12 *p12, const char *pass, EVP_PKEY **ret, struct csm_buf *chain)
{
	STACK_OF(X509) *others = NULL;
	X509 *cert = NULL;
	int r = 0;

	if (PKCS12_parse((PKCS12 *)p12, pass, ret, &cert, &others) != 1)
		return CSM_EINVALID;
	for (int i = -1; chain != NULL && r == 0 && i < (others != NULL ? sk_X509_num(others) : 0); i++) {
		X509 *x = i < 0 ? cert : sk_X509_value(others, i);
		unsigned char *der = NULL;
		int n = x != NULL ? i2d_X509(x, &der) : 0;

		r = n < 0 ? CSM_ENOMEM : n > 0 ? csm_buf_put(chain, der, (size_t)n) : 0;
		OPENSSL_free(der);
	}
	X509_free(cert);
	sk_X509_pop_free(others, X509_free);
	return r == 0 && *ret == NULL ? CSM_EINVALID : r;
}

/* Its MAC says so. */
static bool is_its_passphrase(PKCS12 *p12, const char *pass)
{
	return PKCS12_verify_mac(p12, pass, -1) == 1 || (*pass == '\0' && PKCS12_verify_mac(p12, NULL, 0) == 1);
}

static int read_pkcs12(const char *path, BIO *bio, struct ask *ask, EVP_PKEY **ret, struct csm_buf *chain)
{
	PKCS12 *p12 = d2i_PKCS12_bio(bio, NULL);
	char pass[1024] = "";
	bool known;
	int n, r;

	if (p12 == NULL)
		return client_err(CSM_EINVALID, "%s is neither PEM nor PKCS#12", path);
	if (!PKCS12_mac_present(p12)) {
		PKCS12_free(p12);
		return client_err(CSM_EUNSUPPORTED, "%s has no MAC, by which a change of it would be seen: make it anew, with one", path);
	}
	known = is_its_passphrase(p12, "");
	if (!known) {
		n = passphrase(pass, (int)sizeof(pass) - 1, 0, ask);
		pass[n > 0 ? n : 0] = '\0';
		known = n >= 0 && is_its_passphrase(p12, pass);
	}
	r = known ? open_pkcs12(p12, pass, ret, chain) : 0;
	sodium_memzero(pass, sizeof(pass));
	PKCS12_free(p12);
	if (ask->r != 0)
		return ask->r;
	if (!known)
		return wrong_passphrase(path, ask);
	return r == CSM_EINVALID ? client_err(r, "%s holds no private key that can be read", path) : r != 0 ? client_err_plain(r) : 0;
}

static int read_pem(const char *path, BIO *bio, struct ask *ask, EVP_PKEY **ret)
{
	*ret = PEM_read_bio_PrivateKey(bio, NULL, passphrase, ask);
	if (*ret != NULL)
		return 0;
	if (ask->r != 0)
		return ask->r;
	return ask->asked ? wrong_passphrase(path, ask) : client_err(CSM_EINVALID, "%s holds no private key in PEM", path);
}

static int read_private(struct cli *cli, const char *path, EVP_PKEY **ret, struct csm_buf *chain)
{
	struct ask ask = {.file = cli->value[O_PASSPHRASE_FILE]};
	struct csm_buf text;
	BIO *bio = NULL;
	int r;

	if (ask.file != NULL && strcmp(ask.file, "-") == 0 && strcmp(path, "-") == 0)
		return cli_usage("the key and its passphrase cannot both come from standard input");
	csm_buf_init(&ask.got, CSM_SECRET_MAX, true);
	csm_buf_init(&text, WRAP_FILE_MAX, true);
	if ((r = io_read(path, &text)) != 0)
		goto out;
	r = client_err_plain(CSM_ENOMEM);
	if ((bio = BIO_new_mem_buf(text.len > 0 ? (const void *)csm_buf_ptr(&text) : "", (int)text.len)) == NULL)
		goto out;
	if (text.len > 0 && csm_buf_ptr(&text)[0] == 0x30)
		r = read_pkcs12(path, bio, &ask, ret, chain);
	else
		r = read_pem(path, bio, &ask, ret);
out:
	ERR_clear_error();
	BIO_free(bio);
	csm_buf_free(&text);
	csm_buf_free(&ask.got);
	return r;
}

/* What it is for, as attributes. */
static int attributes_of(struct cli *cli, TPMT_PUBLIC *pub)
{
	const char *use = cli->value[O_USE];
	bool rsa = pub->type == TPM2_ALG_RSA;

	pub->objectAttributes = TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA;
	if (use == NULL)
		use = rsa ? "sign,decrypt" : "sign";
	while (*use != '\0') {
		size_t n = strcspn(use, ",");
		struct csm_str word = {use, n};

		if (csm_str_eq(word, "sign"))
			pub->objectAttributes |= TPMA_OBJECT_SIGN_ENCRYPT;
		else if (csm_str_eq(word, rsa ? "decrypt" : "derive"))
			pub->objectAttributes |= TPMA_OBJECT_DECRYPT;
		else
			return cli_usage("--use: this key can %s", rsa ? "sign and decrypt" : "sign and derive");
		use += n + (use[n] != '\0');
	}
	return 0;
}

/* --name pins the storage key, --attestation has its TPM vouch for it; without either it is told, to be compared with what the
 * node's administrator sees. */
static int check_storage(struct cli *cli, const struct storage *to)
{
	const char *statement = cli->value[O_ATTESTATION];
	char hex[2 * CSM_TPM_NAME_LEN + 1];

	sodium_bin2hex(hex, sizeof(hex), to->name.name, CSM_TPM_NAME_LEN);
	if (cli->value[O_NAME] != NULL && strcasecmp(cli->value[O_NAME], hex) != 0)
		return client_err(CSM_EINVALID, "the storage key is another one than --name says: its Name is %s", hex);
	if (statement != NULL)
		return attest_of_storage(cli, statement, &to->name);
	if (cli->list_n > 0 || cli->value[O_AK] != NULL || cli->value[O_NONCE] != NULL || cli->value[O_PROOF] != NULL ||
		cli->value[O_SECRET_FILE] != NULL)
		return cli_usage("--ca, --ak, --nonce, --proof and --secret-file are for what --attestation says");
	if (cli->value[O_NAME] == NULL)
		cli_note("for the storage key %s, %s; that it is the node's was not checked (--name and --attestation do)", hex,
			storage_is_tpm(to) ? "which says that it is a TPM's" : "which is csmd's own, not a TPM's");
	return 0;
}

int wrap_key_of(struct cli *cli, const struct storage *to, const char *path, struct csm_buf *chain, struct csm_buf *body)
{
	struct csm_buf sensitive;
	EVP_PKEY *key = NULL;
	TPMT_PUBLIC pub;
	int r = read_private(cli, path, &key, chain);

	if (r != 0)
		return r;
	csm_buf_init(&sensitive, CSM_TPM_SENSITIVE_MAX, true);
	if (csm_tpm_public_of(key, &pub) != 0)
		r = client_err(CSM_EUNSUPPORTED,
			"only RSA keys of 2048, 3072 and 4096 bits with the usual exponent and keys on P-256, P-384 and P-521 can "
			"be wrapped");
	if (r == 0 && (r = attributes_of(cli, &pub)) == 0 && (r = csm_tpm_sensitive_put(key, &pub, &sensitive)) != 0)
		r = client_err_plain(r);
	EVP_PKEY_free(key);
	if (r == 0)
		r = wrap_sensitive(to, &pub, (struct csm_bin){csm_buf_ptr(&sensitive), sensitive.len}, body);
	csm_buf_free(&sensitive);
	csm_wipe_stack(STACK_LEFT);
	return r;
}

int cmd_wrap_key(struct cli *cli)
{
	struct csm_buf body, pem;
	struct storage to;
	int r;

	if (cli->value[O_TO] == NULL)
		return cli_usage("csm wrap-key needs --to: the node's storage key");
	if ((r = wrap_protect()) != 0 || (r = storage_of_file(cli, cli->value[O_TO], &to)) != 0 ||
		(r = check_storage(cli, &to)) != 0)
		return r;
	csm_buf_init(&body, CSM_WRAPPED_MAX, false);
	csm_buf_init(&pem, WRAP_FILE_MAX, false);
	r = wrap_key_of(cli, &to, cli->arg[0], NULL, &body);
	if (r == 0)
		r = pem_put(&pem, CSM_PEM_WRAPPED, csm_buf_ptr(&body), body.len);
	if (r == 0 && cli->json)
		r = print_text_field(cli, "wrapped", (const char *)csm_buf_ptr(&pem), pem.len);
	else if (r == 0)
		r = out_put(cli, false, csm_buf_ptr(&pem), pem.len);
	csm_buf_free(&pem);
	csm_buf_free(&body);
	return r;
}
