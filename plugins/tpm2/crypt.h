/* What a TPM session computes, over OpenSSL's primitives with objects that are made once: SHA-256, HMAC,
 * KDFa and KDFe (TPM 2.0 part 1, 11.4.10), AES-128-CFB, and the salt's encryption to the storage root key.
 * One thread at a time. Functions return 0 or CSM_EBACKEND (OpenSSL refused). */
#ifndef PLUGINS_TPM2_CRYPT_H
#define PLUGINS_TPM2_CRYPT_H

#include <stddef.h>
#include <stdint.h>
#include <openssl/evp.h>
#include <tss2/tss2_tpm2_types.h>
#include "libclient/base/err.h"
#include "libclient/tpmfmt/tpmfmt.h"

#define T2_HASH_LEN 32u

struct t2_crypt {
	EVP_MD *sha256;
	EVP_MD_CTX *md;
	EVP_MAC_CTX *hmac;
	EVP_CIPHER *cfb;
	EVP_CIPHER_CTX *cipher;
};

struct t2_part {
	const void *p;
	size_t n;
};

CSM_MUST int t2_crypt_init(struct t2_crypt *c);
void t2_crypt_free(struct t2_crypt *c);

CSM_MUST int t2_hash(struct t2_crypt *c, const struct t2_part *parts, size_t n, uint8_t out[static T2_HASH_LEN]);
CSM_MUST int t2_hmac(struct t2_crypt *c, const uint8_t *key, size_t key_len, const struct t2_part *parts, size_t n,
	uint8_t out[static T2_HASH_LEN]);
/* KDFa with SHA-256; label without its NUL; len bytes to out, at most 64. */
CSM_MUST int t2_kdfa(struct t2_crypt *c, const uint8_t *key, size_t key_len, const char *label, struct t2_part u,
	struct t2_part v, uint8_t *out, size_t len);
/* KDFe with SHA-256: 32 bytes. */
CSM_MUST int t2_kdfe(struct t2_crypt *c, struct t2_part z, const char *label, struct t2_part u, struct t2_part v,
	uint8_t out[static T2_HASH_LEN]);
/* AES-128-CFB over buf in place; key_iv is key and IV, 16 bytes each. */
CSM_MUST int t2_cfb(struct t2_crypt *c, const uint8_t key_iv[static 32], int encrypt, uint8_t *buf, size_t len);
/* A fresh salt and its form encrypted to pub (ECC P-256 or RSA, nameAlg SHA-256). */
CSM_MUST int t2_salt_make(struct t2_crypt *c, const TPMT_PUBLIC *pub, uint8_t salt[static T2_HASH_LEN],
	TPM2B_ENCRYPTED_SECRET *ret);

#endif
