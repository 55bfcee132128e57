#include <string.h>
#include "libclient/base/keyref.h"
#include "libclient/base/pem.h"
#include "libclient/certdir/certdir.h"

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

int csm_certs_split(struct csm_bin der, struct csm_certs *ret)
{
	struct csm_certs c = {.n = 0};
	struct csm_bin contents;

	while (der.n > 0) {
		if (c.n == CSM_CERTS_MAX || !der_take(&der, SEQUENCE, &c.der[c.n], &contents))
			return CSM_EPROTOCOL;
		c.n++;
	}
	if (c.n == 0)
		return CSM_EPROTOCOL;
	c.root = issued_itself(c.der[c.n - 1]);
	*ret = c;
	return 0;
}

int csm_certs_pem(const struct csm_certs *c, size_t from, size_t to, struct csm_buf *pem)
{
	int r = 0;

	for (size_t i = from; i < to && r == 0; i++)
		r = csm_pem_put(pem, "CERTIFICATE", c->der[i].p, c->der[i].n);
	return r;
}

/* As many as there are. */
static int anchors_pem(struct csm_bin der, struct csm_buf *pem)
{
	struct csm_bin cert, contents;
	int r = 0;

	while (der.n > 0 && r == 0)
		r = der_take(&der, SEQUENCE, &cert, &contents) ? csm_pem_put(pem, "CERTIFICATE", cert.p, cert.n) : CSM_EPROTOCOL;
	return r;
}

/* ---- meta.json ---- */

static int json_certs(struct csm_bin der, json_t **ret)
{
	struct csm_bin cert, contents;
	json_t *j = json_array();
	struct csm_buf pem;
	int r = j != NULL ? 0 : CSM_ENOMEM;

	csm_buf_init(&pem, CSM_MESSAGE_MAX, false);
	while (der.n > 0 && r == 0) {
		csm_buf_reset(&pem);
		r = der_take(&der, SEQUENCE, &cert, &contents) ? csm_pem_put(&pem, "CERTIFICATE", cert.p, cert.n) : CSM_EPROTOCOL;
		if (r == 0 && json_array_append_new(j, json_stringn((const char *)csm_buf_ptr(&pem), pem.len)) != 0)
			r = CSM_ENOMEM;
	}
	csm_buf_free(&pem);
	if (r == 0) {
		*ret = j;
		return 0;
	}
	json_decref(j);
	return r;
}

static int set_certs(json_t *j, const char *name, struct csm_bin der)
{
	json_t *certs;
	int r = json_certs(der, &certs);

	if (r == 0 && json_object_set_new(j, name, certs) != 0)
		r = CSM_ENOMEM;
	return r;
}

int csm_cert_json(const struct csm_msg_cert_info *info, json_t **ret)
{
	struct csm_msg_cert_info without = *info;
	json_t *j;
	int r;

	without.chain = without.anchors = (struct csm_bin){NULL, 0};
	if ((r = csm_json_of(CSM_DEF(cert_info), &without, &j)) != 0)
		return r;
	r = set_certs(j, "chain", info->chain);
	if (r == 0 && info->anchors.n > 0)
		r = set_certs(j, "anchors", info->anchors);
	if (r != 0)
		json_decref(j);
	else
		*ret = j;
	return r;
}

/* ---- the files ---- */

enum { F_CERT, F_CHAIN, F_FULL, F_CA, F_KEY, F_META };
const char *const csm_certdir_names[CSM_CERTDIR_FILES + 1] = {
	[F_CERT] = "cert.pem", [F_CHAIN] = "chain.pem", [F_FULL] = "fullchain.pem", [F_CA] = "ca.pem",
	[F_KEY] = "key.pem", [F_META] = "meta.json",
};

static int put_reference(const struct csm_msg_cert_info *info, struct csm_bin spki, struct csm_buf *out)
{
	struct csm_keyref ref = {.ns = info->namespace, .name = info->name};
	uint8_t der[CSM_KEYREF_DER_MAX];
	size_t n;
	int r;

	csm_keyref_hash(spki.p, spki.n, ref.hash);
	r = csm_keyref_encode(&ref, der, &n);
	return r != 0 ? r : csm_pem_put(out, CSM_KEYREF_LABEL, der, n);
}

static int put_meta(const struct csm_msg_cert_info *info, struct csm_buf *out)
{
	json_t *j;
	int r = csm_cert_json(info, &j);

	if (r != 0)
		return r;
	r = csm_json_put(j, out);
	json_decref(j);
	return r;
}

int csm_certdir_make(const struct csm_msg_cert_info *info, struct csm_bin spki, struct csm_certdir *d)
{
	struct csm_certs c;
	size_t issuers;
	int r;

	for (size_t i = 0; i < CSM_CERTDIR_FILES; i++)
		csm_buf_init(&d->bytes[i], CSM_MESSAGE_MAX, false);
	if ((r = csm_certs_split(info->chain, &c)) != 0)
		return r;
	if (spki.n == 0 || memmem(c.der[0].p, c.der[0].n, spki.p, spki.n) == NULL)
		return CSM_ECONFLICT;
	/* a lone certificate that has issued itself is cert.pem and its own CA */
	issuers = c.root && c.n > 1 ? c.n - 1 : c.n;
	if ((r = csm_certs_pem(&c, 0, 1, &d->bytes[F_CERT])) == 0 && (r = csm_certs_pem(&c, 1, issuers, &d->bytes[F_CHAIN])) == 0 &&
		(r = csm_certs_pem(&c, 0, issuers, &d->bytes[F_FULL])) == 0 &&
		(r = c.root ? csm_certs_pem(&c, c.n - 1, c.n, &d->bytes[F_CA]) : anchors_pem(info->anchors, &d->bytes[F_CA])) == 0 &&
		(r = put_reference(info, spki, &d->bytes[F_KEY])) == 0)
		r = put_meta(info, &d->bytes[F_META]);
	for (size_t i = 0; i < CSM_CERTDIR_FILES; i++)
		d->files[i] = (struct csm_gen_file){csm_certdir_names[i], d->bytes[i].len > 0 ? csm_buf_ptr(&d->bytes[i]) : NULL,
			d->bytes[i].len};
	return r;
}

void csm_certdir_clear(struct csm_certdir *d)
{
	for (size_t i = 0; i < CSM_CERTDIR_FILES; i++)
		csm_buf_free(&d->bytes[i]);
}
