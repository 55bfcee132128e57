/* Any bytes as the body of an EST request, as a certificate's owner sends it, and as the value of its Content-Type: refused, or a
 * request that is held against the certificate's names. What we answer with decodes to what was put in. */
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <sodium.h>

#include "daemon/central/body.h"
#include "daemon/central/est.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
	if (!ok)
		abort();
}

static X509 *some_cert(void)
{
	static X509 *x;
	X509_EXTENSION *san = NULL;

	if (x != NULL)
		return x;
	must((x = X509_new()) != NULL && (san = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:a.example")) != NULL &&
		X509_add_ext(x, san, -1) == 1);
	X509_EXTENSION_free(san);
	must(X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)"a.example", -1, -1, 0) == 1);
	return x;
}

static void as_body(struct csm_bin bytes)
{
	struct csm_certreq *q = NULL;
	char bad[CSM_CERTREQ_WHY], why[CA_WHY] = "";
	int r;

	if (csm_certreq_read(bytes, &q, bad) == 0) {
		r = est_same_names(some_cert(), q, why);
		must(r == 0 ? why[0] == '\0' : r == CSM_EDENIED && why[0] != '\0');
		/* by the same rule, they are the same as themselves */
		must(r != 0 || (q->sans != NULL && sk_GENERAL_NAME_num(q->sans) == 1));
	}
	csm_certreq_free(q);
}

static void answered(struct csm_bin bytes)
{
	struct csm_buf out;
	uint8_t *back = malloc(bytes.n + 1);
	const char *end;
	size_t n = 0;

	must(back != NULL);
	csm_buf_init(&out, 1u << 20, false);
	must(body_base64(bytes, &out) == 0);
	must(bytes.n == 0 ||
		sodium_base642bin(back, bytes.n, (const char *)csm_buf_ptr(&out), out.len, "\n", &n, &end, sodium_base64_VARIANT_ORIGINAL) == 0);
	must(n == bytes.n && memcmp(back, bytes.p, n) == 0);
	csm_buf_free(&out);
	free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct csm_bin bytes = {data, size < 65536 ? size : 65536};

	(void)est_type_is((struct csm_str){(const char *)data, bytes.n}, "application/pkcs10");
	as_body(bytes);
	answered(bytes);
	ERR_clear_error();
	return 0;
}
