/* Chains of certificates: PEM to DER. */
#include <string.h>
#include "libclient/certdir/certdir.h"
#include "libclient/cli/cli.h"

#define FILE_MAX (1024u * 1024u)
#define BEGIN "-----BEGIN CERTIFICATE-----"
#define END "-----END CERTIFICATE-----"

static int from_pem(struct csm_bin text, struct csm_buf *der)
{
	const char *at = (const char *)text.p, *end = at + text.n, *stop;
	size_t n = 0;
	int r;

	while ((at = memmem(at, (size_t)(end - at), BEGIN, strlen(BEGIN))) != NULL) {
		if (++n > CSM_CERTS_MAX)
			return client_err(CSM_ETOO_LARGE, "the input holds more than %u certificates", CSM_CERTS_MAX);
		if ((r = pem_get(at, (size_t)(end - at), "CERTIFICATE", der)) != 0)
			return r;
		stop = memmem(at, (size_t)(end - at), END, strlen(END));
		at = stop + strlen(END);
	}
	return n > 0 ? 0 : client_err(CSM_EINVALID, "the input holds no CERTIFICATE");
}

int certs_of_file(const char *path, struct csm_buf *der)
{
	struct csm_buf b;
	int r;

	/* it may hold a private key too */
	csm_buf_init(&b, FILE_MAX, true);
	r = io_read(path, &b);
	if (r == 0 && b.len > 0 && csm_buf_ptr(&b)[0] == 0x30) {
		r = csm_buf_put(der, csm_buf_ptr(&b), b.len);
		r = r != 0 ? client_err_plain(r) : 0;
	} else if (r == 0) {
		r = from_pem((struct csm_bin){b.len > 0 ? csm_buf_ptr(&b) : (const uint8_t *)"", b.len}, der);
	}
	csm_buf_free(&b);
	return r;
}
