/* Chains of certificates: PEM to DER, and DER into its certificates. The daemon has looked at all that is taken apart
 * here. */
#include <string.h>
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
		if (++n > CHAIN_CERTS_MAX)
			return client_err(CSM_ETOO_LARGE, "the input holds more than %u certificates", CHAIN_CERTS_MAX);
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

/* One DER value off the front: its contents (and all of it). */
static bool der_take(struct csm_bin *from, uint8_t tag, struct csm_bin *whole, struct csm_bin *contents)
{
	size_t head = 2, n;

	if (from->n < 2 || from->p[0] != tag)
		return false;
	n = from->p[1];
	if (n >= 0x80) {
		size_t k = n & 0x7f;

		if (k == 0 || k > 3 || from->n < 2 + k)
			return false;
		for (n = 0; head < 2 + k; head++)
			n = n << 8 | from->p[head];
	}
	if (n > from->n - head)
		return false;
	*whole = (struct csm_bin){from->p, head + n};
	*contents = (struct csm_bin){from->p + head, n};
	*from = (struct csm_bin){from->p + head + n, from->n - head - n};
	return true;
}

#define SEQUENCE 0x30
#define INTEGER 0x02
#define VERSION 0xa0

/* TBSCertificate: version, serial number, signature, issuer, validity, subject. */
static bool issued_itself(struct csm_bin cert)
{
	struct csm_bin in, tbs, whole, skip, issuer, subject;

	if (!der_take(&cert, SEQUENCE, &whole, &in) || !der_take(&in, SEQUENCE, &whole, &tbs))
		return false;
	(void)der_take(&tbs, VERSION, &whole, &skip);
	return der_take(&tbs, INTEGER, &whole, &skip) && der_take(&tbs, SEQUENCE, &whole, &skip) &&
		der_take(&tbs, SEQUENCE, &issuer, &skip) && der_take(&tbs, SEQUENCE, &whole, &skip) &&
		der_take(&tbs, SEQUENCE, &subject, &skip) && issuer.n == subject.n &&
		memcmp(issuer.p, subject.p, issuer.n) == 0;
}

int certs_split(struct csm_bin der, struct cert_chain *ret)
{
	struct cert_chain c = {.n = 0};
	struct csm_bin contents;

	while (der.n > 0) {
		if (c.n == CHAIN_CERTS_MAX || !der_take(&der, SEQUENCE, &c.der[c.n], &contents))
			return client_err(CSM_EPROTOCOL, "what the daemon sent is no chain");
		c.n++;
	}
	if (c.n == 0)
		return client_err(CSM_EPROTOCOL, "what the daemon sent is no chain");
	c.root = issued_itself(c.der[c.n - 1]);
	*ret = c;
	return 0;
}

int certs_pem(const struct cert_chain *c, size_t from, size_t to, struct csm_buf *pem)
{
	int r = 0;

	for (size_t i = from; i < to && r == 0; i++)
		r = pem_put(pem, "CERTIFICATE", c->der[i].p, c->der[i].n);
	return r;
}
