/* Certificates as the database, JSON and PEM have them. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <sodium.h>
#include "daemon/central/ca_int.h"
#include "daemon/pki/cert.h"
#include "daemon/svc/prk.h"

#define TEXT_MAX 65536u

void ca_serial(uint8_t ret[static CSM_SERIAL_LEN])
{
	do
		randombytes_buf(ret, CSM_SERIAL_LEN);
	while (ret[0] == 0);
}

int ca_time(const ASN1_TIME *t, uint64_t *ret)
{
	struct tm tm;
	time_t at;

	if (ASN1_TIME_to_tm(t, &tm) != 1 || (at = timegm(&tm)) < 0)
		return CSM_EINVALID;
	*ret = (uint64_t)at;
	return 0;
}

int ca_cert_pem(X509 *x, struct csm_buf *out)
{
	BIO *mem = BIO_new(BIO_s_mem());
	char *text = NULL;
	long n;
	int r = CSM_ENOMEM;

	if (mem != NULL && PEM_write_bio_X509(mem, x) == 1 && (n = BIO_get_mem_data(mem, &text)) > 0)
		r = csm_buf_put(out, text, (size_t)n);
	BIO_free(mem);
	return r;
}

static int to_pool(struct csm_pool *pool, const void *p, size_t n, struct csm_str *ret)
{
	char *to = csm_pool_alloc(pool, n + 1);

	if (to == NULL)
		return CSM_ENOMEM;
	memcpy(to, p, n);
	*ret = (struct csm_str){to, n};
	return 0;
}

int ca_subject_text(const X509_NAME *subject, struct csm_pool *pool, struct csm_str *ret)
{
	struct csm_buf b;
	int r;

	csm_buf_init(&b, TEXT_MAX, false);
	if ((r = csm_name_text(subject, &b)) == 0)
		r = to_pool(pool, csm_buf_ptr(&b), b.len, ret);
	csm_buf_free(&b);
	return r;
}

int ca_san_texts(const GENERAL_NAMES *names, struct csm_pool *pool, struct csm_str **ret, size_t *n)
{
	int count = names != NULL ? sk_GENERAL_NAME_num(names) : 0, r = 0;
	struct csm_str *v = csm_pool_alloc(pool, ((size_t)count + 1) * sizeof(*v));
	struct csm_buf b;

	if (v == NULL)
		return CSM_ENOMEM;
	csm_buf_init(&b, TEXT_MAX, false);
	for (int i = 0; i < count && r == 0; i++) {
		csm_buf_reset(&b);
		if ((r = csm_san_text(sk_GENERAL_NAME_value(names, i), &b)) == 0)
			r = to_pool(pool, csm_buf_ptr(&b), b.len, &v[i]);
	}
	csm_buf_free(&b);
	if (r != 0)
		return r;
	*ret = v;
	*n = (size_t)count;
	return 0;
}

int ca_cn(const X509_NAME *subject, struct csm_pool *pool, struct csm_str *ret)
{
	int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1), n, r;
	unsigned char *utf8 = NULL;

	if (at < 0) {
		*ret = (struct csm_str){NULL, 0};
		return 0;
	}
	n = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
	if (n < 0)
		return CSM_EINVALID;
	r = to_pool(pool, utf8, (size_t)n, ret);
	OPENSSL_free(utf8);
	return r;
}

int ca_row(const struct csm_cert_order *o, struct csm_pool *pool, struct db_cert *ret)
{
	uint8_t *hash = csm_pool_alloc(pool, crypto_hash_sha256_BYTES);
	struct db_cert row = *ret;
	struct csm_str *sans = NULL;
	int r;

	if (hash == NULL)
		return CSM_ENOMEM;
	if ((r = ca_subject_text(o->subject, pool, &row.subject)) != 0 ||
		(r = ca_san_texts(o->sans, pool, &sans, &row.n_sans)) != 0)
		return r;
	sha256_of(o->spki.p, o->spki.n, hash);
	row.sans = sans;
	row.spki_sha256 = (struct csm_bin){hash, crypto_hash_sha256_BYTES};
	row.serial = (struct csm_bin){o->serial, CSM_SERIAL_LEN};
	row.not_before = o->not_before;
	row.not_after = o->not_after;
	row.state = DB_VALID;
	*ret = row;
	return 0;
}
