/* For tests of daemon/pki: keys, a signer that has them in hand, requests good and bad, a small CA, and the openssl command. */
#ifndef TESTS_LIB_PKIFIX_H
#define TESTS_LIB_PKIFIX_H

#include "daemon/pki/issue.h"

#define PKI_NOW 1750000000u /* seconds since 1970 */
#define PKI_DAY 86400u

/* Made at the first use and kept. NULL never. "p256" .. "ed25519", as csm_alg_parse. */
EVP_PKEY *pki_key(const char *alg);
/* Signs with the key, by its default scheme or the one named. */
struct csm_signer pki_signer(EVP_PKEY *key, const char *scheme);

struct pki_ext {
	const char *name, *value; /* as OpenSSL's configuration has them; critical: "critical,..." */
};
struct pki_reqspec {
	const char *subject; /* "/CN=x"; NULL: empty */
	EVP_PKEY *key;
	struct pki_ext exts[20]; /* up to the first without a name */
	const char *hash;        /* NULL: SHA256, or what the key has */
	bool spoil;              /* the signature */
	bool two_lists;          /* of extensions */
};
/* DER, appended. Aborts when it cannot be made. */
void pki_request(const struct pki_reqspec *spec, struct csm_buf *out);

struct pki_ca {
	EVP_PKEY *key;
	X509 *cert;
};
/* A CA of PKI_NOW - a day to PKI_NOW + 3650 days, path length 1, signed by the one above or by itself (NULL). */
struct pki_ca pki_ca_make(const char *subject, const char *alg, const struct pki_ca *above);
void pki_ca_free(struct pki_ca *ca);
/* A profile for servers: all keys, two days, serverAuth, CN and names below .example. */
struct csm_profile pki_profile(void);
/* The certificate of an order. Aborts when it is refused. */
X509 *pki_issue(const struct csm_cert_order *order, const struct csm_signer *signer);
X509_NAME *pki_name(const char *text);
GENERAL_NAMES *pki_sans(const char *const *texts, size_t n);
struct csm_bin pki_spki(EVP_PKEY *key); /* kept until the end */

/* A folder of the test's own; files in it; all gone at the end. */
const char *pki_dir(void);
const char *pki_file(const char *name); /* its path; good for the next eight calls */
void pki_write(const char *name, struct csm_bin bytes);
void pki_write_cert(const char *name, X509 *cert); /* PEM */
void pki_dir_free(void);
int pki_teardown(void **state); /* of a group: the folder goes */
/* `openssl ARGS` (separated by single spaces, "@name" is a file of the folder): its exit status; what it says, stderr too, is at
 * *out, NUL-terminated, until the next call. */
int pki_openssl(const char *args, const char **out);

#endif
