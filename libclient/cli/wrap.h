/* Keys that are wrapped for a node: what csm wrap-key and csm key import share. */
#ifndef CSM_CLI_WRAP_H
#define CSM_CLI_WRAP_H

#include "libclient/cli/cli.h"
#include "libclient/tpmfmt/dup.h"
#include "libclient/tpmfmt/keyfile.h"

#define WRAP_FILE_MAX 65536u

/* From now on OpenSSL's memory is locked, and wiped when it is freed; so is this thread's stack. Before its first use. */
CSM_MUST int wrap_protect(void);

/* A storage key as a node tells it. */
struct storage {
	TPMT_PUBLIC pub;
	TPM2B_NAME name;
};
/* In a file: PEM, or what csm status --json prints, of the back end that --backend names, else the preferred one. */
CSM_MUST int storage_of_file(struct cli *cli, const char *path, struct storage *ret);
/* The running node's: of that back end, or NULL: the preferred one. */
CSM_MUST int storage_of_node(struct cli *cli, const char *backend, struct storage *ret);
bool storage_is_tpm(const struct storage *s);

/* Does the statement in the file prove that the storage key of this Name is in a TPM that the options vouch for, as
 * csm attest verify takes them (--nonce, --ak, or --ca with --secret-file and --proof)? CSM_EINVALID: why it does not. (cmd_attest.c) */
CSM_MUST int attest_of_storage(struct cli *cli, const char *path, const TPM2B_NAME *storage);

/* Wrap a private key (a TPM2B_SENSITIVE) for it; the wrapped key is appended to out. */
CSM_MUST int wrap_sensitive(const struct storage *to, const TPMT_PUBLIC *pub, struct csm_bin sensitive, struct csm_buf *out);
/* The private key of a file, PEM or PKCS#12, wrapped for it and appended to body; a passphrase is asked for at the terminal.
 * chain, if not NULL: the certificates (DER) of a PKCS#12 are appended. */
CSM_MUST int wrap_key_of(struct cli *cli, const struct storage *to, const char *path, struct csm_buf *chain, struct csm_buf *body);
/* One PEM block that is the whole text, in just the form that csm writes; the DER is appended. */
CSM_MUST int pem_get_exact(struct csm_bin text, const char *label, struct csm_buf *der);

#endif
