#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509v3.h>
#include "daemon/enrol/certs.h"
#include "daemon/pki/certsonly.h"
#include "proto-spec/limits.h"

#define JSON_LEVELS 3u

/* ---- reading ---- */

/* Certificates one after the other, nothing left over; each of them is read, none is kept. */
static int put_ders(struct csm_bin der, struct csm_buf *out)
{
	const unsigned char *p = der.p, *end = der.p + der.n;
	size_t n = 0;

	while (p < end) {
		X509 *x = n < CERTS_MAX ? d2i_X509(NULL, &p, end - p) : NULL;

		ERR_clear_error();
		if (x == NULL)
			return n < CERTS_MAX ? CSM_EPROTOCOL : CSM_ETOO_LARGE;
		X509_free(x);
		n++;
	}
	return n > 0 ? csm_buf_put(out, der.p, der.n) : CSM_EPROTOCOL;
}

static int put_p7(struct csm_bin bytes, struct csm_buf *out)
{
	int r = csm_certs_only_read(bytes, out);

	return r == CSM_EINVALID ? CSM_EPROTOCOL : r;
}

static int put_pem(struct csm_bin bytes, struct csm_buf *out)
{
	BIO *in = BIO_new_mem_buf(bytes.p, (int)bytes.n);
	char *name = NULL, *header = NULL;
	unsigned char *der = NULL;
	long n = 0;
	int r = in == NULL ? CSM_ENOMEM : CSM_EPROTOCOL;

	for (unsigned i = 0; in != NULL && i <= CERTS_MAX && PEM_read_bio(in, &name, &header, &der, &n) == 1; i++) {
		struct csm_bin block = {der, (size_t)n};

		if (i == CERTS_MAX)
			r = CSM_ETOO_LARGE;
		else if (strcmp(name, PEM_STRING_X509) == 0 || strcmp(name, PEM_STRING_X509_OLD) == 0)
			r = put_ders(block, out);
		else if (strcmp(name, PEM_STRING_PKCS7) == 0 || strcmp(name, PEM_STRING_CMS) == 0)
			r = put_p7(block, out);
		OPENSSL_free(name);
		OPENSSL_free(header);
		OPENSSL_free(der);
		if (r != 0)
			break;
	}
	BIO_free(in);
	ERR_clear_error();
	return r;
}

static bool is_pem(struct csm_bin bytes)
{
	return memmem(bytes.p, bytes.n, "-----BEGIN ", 11) != NULL;
}

int certs_read(struct csm_bin bytes, struct csm_buf *out)
{
	size_t before = out->len;
	int r;

	if (bytes.n == 0 || bytes.n > 8 * CSM_CERT_CHAIN_MAX)
		return bytes.n == 0 ? CSM_EPROTOCOL : CSM_ETOO_LARGE;
	if (is_pem(bytes)) {
		r = put_pem(bytes, out);
	} else {
		r = put_p7(bytes, out);
		if (r == CSM_EPROTOCOL && bytes.p[0] == 0x30)
			r = put_ders(bytes, out);
	}
	if (r != 0)
		out->len = before;
	return r;
}

static int read_level(const json_t *json, unsigned level, struct csm_buf *out)
{
	const char *text = json_string_value(json), *key;
	json_t *value;
	size_t i;
	int r = 0;

	if (text != NULL) {
		struct csm_bin bytes = {(const uint8_t *)text, json_string_length(json)};

		return is_pem(bytes) ? put_pem(bytes, out) : 0;
	}
	if (level == 0)
		return 0;
	json_array_foreach((json_t *)(uintptr_t)json, i, value)
		if ((r = read_level(value, level - 1, out)) != 0)
			return r;
	json_object_foreach((json_t *)(uintptr_t)json, key, value)
		if ((r = read_level(value, level - 1, out)) != 0)
			return r;
	return 0;
}

int certs_read_json(const json_t *json, struct csm_buf *out)
{
	size_t before = out->len;
	int r = read_level(json, JSON_LEVELS, out);

	if (r == 0 && out->len == before)
		r = CSM_EPROTOCOL;
	if (r != 0)
		out->len = before;
	return r;
}

/* ---- order ---- */

struct cert {
	X509 *x;
	struct csm_bin der;
	bool used; /* in the chain */
};
struct list {
	struct cert c[2 * CERTS_MAX];
	size_t n;
};

static void list_free(struct list *l)
{
	while (l->n > 0)
		X509_free(l->c[--l->n].x);
}

static int list_add(struct list *l, struct csm_bin der)
{
	const unsigned char *p = der.p, *end = der.p + der.n;

	while (p != NULL && p < end) {
		const unsigned char *at = p;

		if (l->n == 2 * CERTS_MAX)
			return CSM_ETOO_LARGE;
		l->c[l->n].x = d2i_X509(NULL, &p, end - p);
		ERR_clear_error();
		if (l->c[l->n].x == NULL)
			return CSM_EPROTOCOL;
		l->c[l->n].used = false;
		l->c[l->n++].der = (struct csm_bin){at, (size_t)(p - at)};
	}
	return 0;
}

static bool issued(X509 *issuer, X509 *x)
{
	bool yes = X509_check_issued(issuer, x) == X509_V_OK && X509_get0_pubkey(issuer) != NULL &&
		X509_verify(x, X509_get0_pubkey(issuer)) == 1;

	ERR_clear_error();
	return yes;
}

static bool self_signed(X509 *x)
{
	bool yes = X509_self_signed(x, 0) == 1;

	ERR_clear_error();
	return yes;
}

static struct cert *leaf_of(struct list *l, const EVP_PKEY *key)
{
	struct cert *best = NULL;

	for (size_t i = 0; i < l->n; i++) {
		const EVP_PKEY *other = X509_get0_pubkey(l->c[i].x);

		if (other == NULL || EVP_PKEY_eq(key, other) != 1)
			continue;
		if (best == NULL || ASN1_TIME_compare(X509_get0_notBefore(l->c[i].x), X509_get0_notBefore(best->x)) > 0)
			best = &l->c[i];
	}
	ERR_clear_error();
	return best;
}

/* A root among the anchors: peers have it, and what issued it as well is nothing to them. */
static bool by_root(const struct list *anchors, const struct cert *c)
{
	for (size_t i = 0; i < anchors->n; i++)
		if (self_signed(anchors->c[i].x) && issued(anchors->c[i].x, c->x))
			return true;
	return false;
}

/* Of several the one that ends the chain. */
static struct cert *issuer_of(struct list *l, const struct list *anchors, const struct cert *c)
{
	struct cert *best = NULL;

	for (size_t i = 0; i < l->n; i++) {
		struct cert *it = &l->c[i];

		if (it->used || self_signed(it->x) || !issued(it->x, c->x))
			continue;
		if (by_root(anchors, it))
			return it;
		best = best != NULL ? best : it;
	}
	return best;
}

static int put_chain(struct list *l, const struct list *anchors, struct cert *c, struct csm_buf *out)
{
	int r = 0;

	for (unsigned n = 0; c != NULL && r == 0; n++) {
		if (n == CSM_CERTS_MAX)
			return CSM_EPROTOCOL;
		c->used = true;
		r = csm_buf_put(out, c->der.p, c->der.n);
		c = self_signed(c->x) || by_root(anchors, c) ? NULL : issuer_of(l, anchors, c);
	}
	return r;
}

int certs_order(struct csm_bin certs, struct csm_bin more, struct csm_bin anchors, struct csm_bin csr, struct csm_buf *out)
{
	const unsigned char *at = csr.p;
	X509_REQ *req = csr.p != NULL ? d2i_X509_REQ(NULL, &at, (long)csr.n) : NULL;
	const EVP_PKEY *key = req != NULL ? X509_REQ_get0_pubkey(req) : NULL;
	struct list l = {.n = 0}, roots = {.n = 0};
	struct cert *leaf;
	size_t before = out->len;
	int r = CSM_EINVALID;

	ERR_clear_error();
	if (key == NULL)
		goto out;
	if ((r = list_add(&l, certs)) != 0)
		goto out;
	leaf = leaf_of(&l, key);
	r = CSM_EPROTOCOL;
	if (leaf == NULL || (r = list_add(&l, more)) != 0 || (r = list_add(&roots, anchors)) != 0)
		goto out;
	r = put_chain(&l, &roots, leaf, out);
out:
	if (r != 0)
		out->len = before;
	list_free(&l);
	list_free(&roots);
	X509_REQ_free(req);
	return r;
}

bool certs_end_at(struct csm_bin chain, struct csm_bin anchors)
{
	struct list c = {.n = 0}, a = {.n = 0};
	bool yes = false;

	if (list_add(&c, chain) == 0 && list_add(&a, anchors) == 0 && c.n > 0)
		for (size_t i = 0; i < a.n && !yes; i++)
			yes = issued(a.c[i].x, c.c[c.n - 1].x);
	list_free(&c);
	list_free(&a);
	return yes;
}

/* ---- by digest ---- */

static int digits(struct csm_str hex, uint8_t out[static SHA256_DIGEST_LENGTH])
{
	static const char known[] = "0123456789abcdefABCDEF";

	if (hex.n != 2 * SHA256_DIGEST_LENGTH)
		return CSM_EINVALID;
	for (size_t i = 0; i < hex.n; i++) {
		const char *p = hex.p[i] != '\0' ? strchr(known, hex.p[i]) : NULL;
		unsigned v = p == NULL ? 0 : (unsigned)(p - known);

		if (p == NULL)
			return CSM_EINVALID;
		v = v > 15 ? v - 6 : v;
		out[i / 2] = (uint8_t)(i % 2 == 0 ? v << 4 : out[i / 2] | v);
	}
	return 0;
}

int certs_find(struct csm_bin certs, struct csm_str sha256, struct csm_bin *ret)
{
	uint8_t wanted[SHA256_DIGEST_LENGTH], is[SHA256_DIGEST_LENGTH];
	struct list l = {.n = 0};
	int r = digits(sha256, wanted);

	if (r == 0 && (r = list_add(&l, certs)) == 0) {
		r = CSM_ENOT_FOUND;
		for (size_t i = 0; i < l.n && r != 0; i++) {
			SHA256(l.c[i].der.p, l.c[i].der.n, is);
			if (memcmp(is, wanted, sizeof(is)) == 0) {
				*ret = l.c[i].der;
				r = 0;
			}
		}
	}
	list_free(&l);
	return r;
}
