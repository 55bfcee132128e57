/* The OpenSSL provider of this build, in the test's own process, by the openssl.cnf that is installed, with a private node
 * behind it that has the back ends tpm2 and soft. */
#ifndef TESTS_LIB_PROVFIX_H
#define TESTS_LIB_PROVFIX_H

#include <stdbool.h>
#include <openssl/evp.h>
#include "libclient/include/csm/csm.h"

/* Run this program again inside a private node, where it returns; bounded to that many seconds. */
void provfix_main(unsigned seconds);

extern OSSL_LIB_CTX *lib; /* with the default provider and csm */
extern struct csm *csm;
extern char provfix_tree[]; /* the source tree */

/* A new library as lib is one. */
OSSL_LIB_CTX *provfix_lib(void);
/* Another configuration; NULL where it is refused. */
OSSL_LIB_CTX *provfix_lib_of(const char *cnf);
/* In the home namespace; a key of that name is replaced. use NULL: by default. */
void provfix_key(const char *name, const char *alg, const char *backend, const char *use);
/* By OSSL_STORE; NULL with an error in the queue. */
EVP_PKEY *provfix_uri(const char *uri);
/* PEM or DER, by the decoders; likewise. */
EVP_PKEY *provfix_decode(const char *form, const void *p, size_t n);
/* The public half, from csmd, in the default provider. */
EVP_PKEY *provfix_public(const char *name);
/* PEM of the private key as PEM_write_bio_PrivateKey has it; the length. */
size_t provfix_pem(EVP_PKEY *key, char *out, size_t room);
/* The queue has this reason of csm's (CSM_E*), with the text in its data; it is emptied. */
bool provfix_error(int reason, const char *text);

#endif
