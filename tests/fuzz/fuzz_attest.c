/* Any bytes as a TPM's statement: refused, or taken apart, and then checked against everything without a fault; a program
 * that knows no TPM's secret never gets the good signature of the key that is wanted. */
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include "libclient/tpmfmt/attest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_check(void *arg, const char *check, enum csm_attest_outcome outcome, const char *text)
{
	unsigned *seen = arg;

	if (check == NULL || text == NULL || strlen(text) > 400)
		abort();
	(*seen)++;
	(void)outcome;
}

/* Someone else's key, made once. */
static EVP_PKEY *foreign(void)
{
	static EVP_PKEY *key;

	if (key == NULL)
		key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	return key;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t nonce[] = "nonce";
	static X509_STORE *store;
	const uint8_t name[34] = {0}, bytes[32] = {0};
	struct csm_msg_attest_secret secret = {{1, true}, {name, 34}, {name, 34}, {bytes, 32}, 0};
	const TPM2B_NAME storage = {.size = 34};
	struct csm_msg_attest_proof proof = {{1, true}, {name, 34}, {name, 34}, {bytes, 32}, 0};
	struct csm_attest_want want = {nonce, sizeof(nonce), foreign(), foreign(), NULL, &storage, &secret, &proof}, none = {0};
	struct csm_msg_attest_challenge challenge;
	struct csm_attest_space space;
	struct csm_attestation a;
	const char *what = NULL;
	unsigned seen = 0;

	if (store == NULL)
		store = X509_STORE_new();
	want.ca = store;
	if (csm_attest_parse(data, size, &a, &what) != 0) {
		if (what == NULL)
			abort();
		return 0;
	}
	if (csm_attest_check(&a, &want, on_check, &seen) || seen < 12)
		abort();
	(void)csm_attest_check(&a, &none, on_check, &seen);
	if (csm_attest_challenge(&a, &space, &challenge, &secret) == 0 && (!a.has_ek || challenge.credential.n < 34))
		abort();
	csm_attest_clear(&a);
	ERR_clear_error();
	return 0;
}
