#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/pkcs7.h>
#include <sodium.h>
#include "daemon/pki/certsonly.h"
#include "daemon/pki/der.h"
#include "proto-spec/limits.h"

#define FORM_MAX (CSM_CERT_CHAIN_MAX + 1024u)

int csm_certs_only_put(struct csm_bin chain, struct csm_buf *out)
{
	struct csm_der d = {out, 0};
	size_t before = out->len, all, outer, data, at;

	if (chain.n == 0)
		return CSM_EINVALID;
	all = csm_der_open(&d, CSM_DER_SEQ);
	csm_der_oid(&d, NID_pkcs7_signed);
	outer = csm_der_open(&d, CSM_DER_CONTEXT_SEQ(0));
	data = csm_der_open(&d, CSM_DER_SEQ);
	csm_der_number(&d, 1);
	csm_der_put(&d, CSM_DER_SET, NULL, 0); /* hashes: none */
	at = csm_der_open(&d, CSM_DER_SEQ);
	csm_der_oid(&d, NID_pkcs7_data);
	csm_der_close(&d, at);
	at = csm_der_open(&d, CSM_DER_CONTEXT_SEQ(0));
	csm_der_raw(&d, chain.p, chain.n);
	csm_der_close(&d, at);
	csm_der_put(&d, CSM_DER_SET, NULL, 0); /* signers: none */
	csm_der_close(&d, data);
	csm_der_close(&d, outer);
	csm_der_close(&d, all);
	if (d.r != 0)
		out->len = before;
	return d.r;
}

static int put_all(const PKCS7 *p7, struct csm_buf *out)
{
	struct csm_der d = {out, 0};
	int n;

	if (!PKCS7_type_is_signed(p7) || p7->d.sign == NULL || (n = sk_X509_num(p7->d.sign->cert)) < 1)
		return CSM_EINVALID;
	if (n > (int)CSM_CERTS_MAX)
		return CSM_ETOO_LARGE;
	for (int i = 0; i < n; i++)
		csm_der_item(&d, ASN1_ITEM_rptr(X509), sk_X509_value(p7->d.sign->cert, i));
	return d.r;
}

static int read_der(struct csm_bin der, struct csm_buf *out)
{
	const unsigned char *at = der.p;
	PKCS7 *p7 = d2i_PKCS7(NULL, &at, (long)der.n);
	size_t before = out->len;
	int r = p7 != NULL && at == der.p + der.n ? put_all(p7, out) : CSM_EINVALID;

	if (r == 0 && out->len - before > CSM_CERT_CHAIN_MAX)
		r = CSM_ETOO_LARGE;
	if (r != 0)
		out->len = before;
	PKCS7_free(p7);
	ERR_clear_error();
	return r;
}

int csm_certs_only_read(struct csm_bin bytes, struct csm_buf *out)
{
	const char *end = NULL;
	uint8_t *der;
	size_t n = 0;
	int r = CSM_EINVALID;

	if (bytes.n > 2 * FORM_MAX)
		return CSM_ETOO_LARGE;
	if (bytes.n == 0)
		return CSM_EINVALID;
	if (bytes.p[0] == CSM_DER_SEQ)
		return read_der(bytes, out);
	if ((der = malloc(2 * FORM_MAX)) == NULL)
		return CSM_ENOMEM;
	if (sodium_base642bin(der, 2 * FORM_MAX, (const char *)bytes.p, bytes.n, " \t\r\n", &n, &end,
			sodium_base64_VARIANT_ORIGINAL) == 0 && end == (const char *)bytes.p + bytes.n)
		r = read_der((struct csm_bin){der, n}, out);
	free(der);
	return r;
}
