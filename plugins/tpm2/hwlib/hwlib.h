/* csm's TPM code as a library with the hardware plugin interface (csm_hwpluginif.h): what the files of this folder offer
 * to each other. Any thread may call the library; lib.c lets one at a time in. int is CSM_E*, but for what the interface
 * itself calls. */
#ifndef PLUGINS_TPM2_HWLIB_HWLIB_H
#define PLUGINS_TPM2_HWLIB_HWLIB_H

#include <openssl/evp.h>
#include "plugins/include/csm_hwpluginif.h"
#include "plugins/tpm2/tpm2.h"

#define HWLIB_DEFAULT_TCTI "device:/dev/tpmrm0"
#define HWLIB_BLOCK_MAX 512u /* what is signed without hashing */

/* ---- host.c: what the TPM code asks of its host --------------------------------- */

struct hwlib_host {
	struct csm_plugin_host host;
	char tcti[256];
	char parent[16]; /* "0x81000011"; empty: csm's own storage root key */
};
/* The TPM is the one that CSM_TPM_TCTI names (not in a program with more rights than its user), or /dev/tpmrm0. */
void hwlib_host_init(struct hwlib_host *h);
/* One command, without a session: is there a TPM at all? CSM_EUNAVAILABLE. */
CSM_MUST int hwlib_host_probe(const struct hwlib_host *h);

/* ---- keyfile.c: what lies in a key folder ------------------------------------------- */

/* The public and the private part of an RSA key, in whichever order: marshalled as the TPM's own structures are, or as
 * tpm-util writes them, C structures of tpm2-tss 1 or later. CSM_EINVALID, CSM_EUNSUPPORTED (no RSA key). */
CSM_MUST int hwlib_keyfile_read(
	const SSHSM_HW_PLUGIN_ACTIVATE_LOAD_IN_INFO_t *in, TPM2B_PUBLIC *pub, TPM2B_PRIVATE *priv);

/* ---- mechanism.c: signatures -------------------------------------------------------------- */

struct hwlib_key {
	struct hwlib_key *next;
	uint64_t id; /* the handle; never used twice */
	struct csm_plugin_key *key;
	EVP_PKEY *pkey;
	size_t len; /* of a signature */
};

struct hwlib_op {
	struct hwlib_op *next;
	uint64_t id;  /* the reference */
	uint64_t key; /* the key's id */
	unsigned long mechanism;
	struct csm_hw_pss pss;
	const EVP_MD *md; /* of the signature; NULL where what is signed says it itself */
	bool hashes;      /* the library hashes what it is given */
	EVP_MD_CTX *ctx;
	uint8_t block[HWLIB_BLOCK_MAX]; /* where it does not */
	size_t len;
};
/* CSM_EUNSUPPORTED: no such mechanism, or a parameter that does not fit it. param may be NULL but for CSM_HW_RSA_PSS. */
CSM_MUST int hwlib_op_new(unsigned long mechanism, const void *param, int param_len, struct hwlib_op **ret);
void hwlib_op_free(struct hwlib_op *op);
CSM_MUST int hwlib_op_update(struct hwlib_op *op, const unsigned char *p, size_t n);
/* The signature; out has room for k->len bytes. CSM_EUNSUPPORTED: not by this TPM with this key. */
CSM_MUST int hwlib_op_sign(struct csm_plugin_ctx *c, const struct hwlib_key *k, struct hwlib_op *op, uint8_t *out);

#endif
