/* Any bytes as an OCSP request: refused, or read, and then the answer to all of it is one that OpenSSL reads, about the same
 * certificates. Also as the PKCS#7 that EST answers with: refused, or certificates that make such a form again. */
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>

#include "daemon/pki/certsonly.h"
#include "daemon/pki/ocsp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
	if (!ok)
		abort();
}

static X509 *some_cert(void)
{
	static X509 *x;
	EVP_PKEY *key = NULL;

	if (x == NULL) {
		must((x = X509_new()) != NULL && (key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")) != NULL &&
			X509_set_pubkey(x, key) == 1);
		EVP_PKEY_free(key);
	}
	return x;
}

static void answered(const struct csm_ocsp_request *q)
{
	struct csm_ocsp_single singles[CSM_OCSP_ASKED_MAX];
	const struct csm_ocsp_order o = {.responder = some_cert(), .issuer = some_cert(), .produced_at = 1000000000, .singles = singles,
		.n = q->n, .nonce = q->nonce};
	const unsigned char *at;
	OCSP_RESPDATA *back;
	struct csm_buf tbs;

	for (size_t i = 0; i < q->n; i++) {
		must(q->asked[i].serial.n >= 1 && q->asked[i].serial.n <= 20);
		(void)csm_ocsp_is_of(q, i, some_cert());
		singles[i] = (struct csm_ocsp_single){q->asked[i].id, (enum csm_ocsp_state)(i % 3), 1, 1, 1000000000, 1000000001};
	}
	csm_buf_init(&tbs, 65536, false);
	must(csm_ocsp_tbs(&o, &tbs) == 0);
	at = csm_buf_ptr(&tbs);
	must((back = d2i_OCSP_RESPDATA(NULL, &at, (long)tbs.len)) != NULL && at == csm_buf_ptr(&tbs) + tbs.len);
	OCSP_RESPDATA_free(back);
	csm_buf_free(&tbs);
}

static void as_certs_only(struct csm_bin bytes)
{
	struct csm_buf chain, form, back;

	csm_buf_init(&chain, 1u << 18, false);
	csm_buf_init(&form, 1u << 18, false);
	csm_buf_init(&back, 1u << 18, false);
	if (csm_certs_only_read(bytes, &chain) == 0) {
		must(csm_certs_only_put((struct csm_bin){csm_buf_ptr(&chain), chain.len}, &form) == 0);
		must(csm_certs_only_read((struct csm_bin){csm_buf_ptr(&form), form.len}, &back) == 0);
		must(back.len == chain.len && memcmp(csm_buf_ptr(&back), csm_buf_ptr(&chain), chain.len) == 0);
	} else {
		must(chain.len == 0);
	}
	csm_buf_free(&chain);
	csm_buf_free(&form);
	csm_buf_free(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct csm_bin bytes = {data, size};
	struct csm_ocsp_request *q = NULL;

	if (csm_ocsp_read(bytes, &q) == 0)
		answered(q);
	csm_ocsp_free(q);
	as_certs_only(bytes);
	ERR_clear_error();
	return 0;
}
