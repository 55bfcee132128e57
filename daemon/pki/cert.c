#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <openssl/err.h>
#include <sodium.h>
#include "daemon/pki/cert.h"
#include "proto-spec/limits.h"

#define RSA_BITS_MAX 8192
#define EC_BITS_MAX 521
#define SERIAL_BYTES_MAX 20 /* RFC 5280 4.1.2.2 */

struct chain {
	X509 *cert[CSM_CERTS_MAX];
	struct csm_bin der[CSM_CERTS_MAX];
	size_t n;
	char *why;
};

static int __attribute__((format(printf, 3, 4))) refuse(struct chain *c, size_t i, const char *fmt, ...)
{
	va_list ap;
	int n = snprintf(c->why, CSM_CERT_WHY, "certificate %zu: ", i + 1);

	va_start(ap, fmt);
	(void)vsnprintf(c->why + n, CSM_CERT_WHY - (size_t)n, fmt, ap);
	va_end(ap);
	return CSM_EINVALID;
}

static int refuse_all(struct chain *c, int r, const char *text)
{
	(void)snprintf(c->why, CSM_CERT_WHY, "%s", text);
	return r;
}

/* ---- parsing ---- */

/* One certificate off the front, of a definite length, and encoded as DER would encode it. */
static int take(struct chain *c, struct csm_bin *rest)
{
	const unsigned char *p = rest->p;
	unsigned char *again = NULL;
	X509 *x = d2i_X509(NULL, &p, (long)rest->n);
	size_t used = x != NULL ? (size_t)(p - rest->p) : 0;
	bool same;
	int n;

	if (x == NULL)
		return refuse(c, c->n, c->n == 0 ? "not a DER certificate" : "not a DER certificate, or bytes are left over");
	c->cert[c->n] = x;
	c->der[c->n++] = (struct csm_bin){rest->p, used};
	n = i2d_X509(x, &again);
	same = n > 0 && (size_t)n == used && memcmp(again, rest->p, used) == 0;
	OPENSSL_free(again);
	if (!same)
		return refuse(c, c->n - 1, "not in DER");
	/* this reads the extensions */
	if ((X509_get_extension_flags(x) & EXFLAG_INVALID) != 0)
		return refuse(c, c->n - 1, "an extension is not well formed, or stands there twice");
	*rest = (struct csm_bin){p, rest->n - used};
	return 0;
}

static int take_all(struct chain *c, struct csm_bin bytes)
{
	int r;

	if (bytes.n == 0)
		return refuse_all(c, CSM_EINVALID, "the chain is empty");
	if (bytes.n > CSM_CERT_CHAIN_MAX)
		return refuse_all(c, CSM_ETOO_LARGE, "the chain is longer than 65536 bytes");
	while (bytes.n > 0) {
		if (c->n == CSM_CERTS_MAX)
			return refuse_all(c, CSM_ETOO_LARGE, "the chain has more than 10 certificates");
		if ((r = take(c, &bytes)) != 0)
			return r;
	}
	return 0;
}

/* ---- times ---- */

/* Seconds since 1970, 0 for what was before. */
static bool time_of(const ASN1_TIME *t, uint64_t *ret)
{
	struct tm tm;
	time_t at;

	if (ASN1_TIME_to_tm(t, &tm) != 1)
		return false;
	at = timegm(&tm);
	*ret = at < 0 ? 0 : (uint64_t)at;
	return true;
}

const char *csm_cert_state(uint64_t not_before, uint64_t not_after, uint64_t now)
{
	return now > not_after ? "expired" : now < not_before ? "not_yet_valid" : "valid";
}

static int check_times(struct chain *c, size_t i, uint64_t now)
{
	uint64_t from, to;

	if (!time_of(X509_get0_notBefore(c->cert[i]), &from) || !time_of(X509_get0_notAfter(c->cert[i]), &to))
		return refuse(c, i, "its dates cannot be read");
	if (from > to)
		return refuse(c, i, "it ends before it begins");
	if (now > to)
		return refuse(c, i, "it has expired");
	return 0;
}

/* ---- the chain ---- */

static int check_key(struct chain *c, struct csm_bin spki)
{
	unsigned char *der = NULL;
	int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(c->cert[0]), &der);
	bool same = n > 0 && (size_t)n == spki.n && memcmp(der, spki.p, spki.n) == 0;

	OPENSSL_free(der);
	return same ? 0 : refuse(c, 0, "its public key is not this key's: the first one has to be the key's own");
}

/* Kinds and sizes of keys that CAs have, and whose signatures cost little to look at: whoever sends a chain chooses them. */
static bool is_usual(EVP_PKEY *key)
{
	char group[64];

	switch (EVP_PKEY_get_base_id(key)) {
	case EVP_PKEY_RSA:
	case EVP_PKEY_RSA_PSS:
		return EVP_PKEY_get_bits(key) <= RSA_BITS_MAX;
	case EVP_PKEY_EC:
		return EVP_PKEY_get_bits(key) <= EC_BITS_MAX && EVP_PKEY_get_group_name(key, group, sizeof(group), NULL) == 1;
	case EVP_PKEY_ED25519:
	case EVP_PKEY_ED448:
		return true;
	default:
		return false;
	}
}

static int check_issued(struct chain *c, size_t i)
{
	X509 *subject = c->cert[i], *issuer = c->cert[i + 1];
	EVP_PKEY *key;
	int why = X509_check_issued(issuer, subject), ca;

	if (why == X509_V_ERR_KEYUSAGE_NO_CERTSIGN)
		return refuse(c, i + 1, "its key usage does not allow it to sign certificates");
	if (why != X509_V_OK)
		return refuse(c, i + 1, "it is not the issuer of the one before (%s)", X509_verify_cert_error_string(why));
	/* basicConstraints say so, or it is a root from before there were extensions */
	ca = X509_check_ca(issuer);
	if (ca != 1 && ca != 3)
		return refuse(c, i + 1, "it is not a CA's");
	key = X509_get0_pubkey(issuer);
	if (key == NULL || !is_usual(key))
		return refuse(c, i + 1, "its public key is of an unknown kind or size");
	if (X509_verify(subject, key) != 1)
		return refuse(c, i, "the signature is not its issuer's, or of an unknown kind");
	return 0;
}

/* ---- what is told ---- */

static int to_pool(struct csm_pool *pool, const void *text, size_t n, struct csm_str *ret)
{
	char *p = csm_pool_alloc(pool, n + 1); /* zeroed */

	if (p == NULL)
		return CSM_ENOMEM;
	if (n > 0)
		memcpy(p, text, n);
	*ret = (struct csm_str){p, n};
	return 0;
}

static int name_into(struct chain *c, const X509_NAME *name, const char *what, struct csm_pool *pool, struct csm_str *ret)
{
	struct csm_buf b;
	int r;

	csm_buf_init(&b, CSM_CERT_NAME_MAX, false);
	r = csm_name_text(name, &b);
	if (r == 0)
		r = to_pool(pool, csm_buf_ptr(&b), b.len, ret);
	else if (r != CSM_ENOMEM)
		r = refuse(c, 0, "its %s is too long, or no text", what);
	csm_buf_free(&b);
	return r;
}

static int sans_into(struct chain *c, const GENERAL_NAMES *names, struct csm_pool *pool, struct csm_strs *ret)
{
	int n = sk_GENERAL_NAME_num(names), r = 0;
	struct csm_buf b;

	if (n > (int)CSM_CERT_SANS_MAX)
		return refuse(c, 0, "it has more than %u alternative names", CSM_CERT_SANS_MAX);
	ret->v = csm_pool_alloc(pool, (size_t)n * sizeof(*ret->v) + 1);
	if (ret->v == NULL)
		return CSM_ENOMEM;
	csm_buf_init(&b, CSM_SAN_MAX, false);
	for (int i = 0; i < n && r == 0; i++) {
		csm_buf_reset(&b);
		r = csm_san_text(sk_GENERAL_NAME_value(names, i), &b);
		if (r == 0)
			r = to_pool(pool, csm_buf_ptr(&b), b.len, &ret->v[ret->n++]);
		else if (r != CSM_ENOMEM)
			r = refuse(c, 0, "alternative name %d is too long, or no text", i + 1);
	}
	csm_buf_free(&b);
	return r;
}

static int tell_sans(struct chain *c, struct csm_pool *pool, struct csm_strs *ret)
{
	GENERAL_NAMES *names;
	int found = 0, r;

	*ret = (struct csm_strs){NULL, 0};
	names = X509_get_ext_d2i(c->cert[0], NID_subject_alt_name, &found, NULL);
	if (names == NULL)
		return found == -1 ? 0 : refuse(c, 0, "its alternative names cannot be read");
	r = sans_into(c, names, pool, ret);
	GENERAL_NAMES_free(names);
	return r;
}

static int tell_serial(struct chain *c, struct csm_pool *pool, struct csm_str *ret)
{
	BIGNUM *bn = ASN1_INTEGER_to_BN(X509_get0_serialNumber(c->cert[0]), NULL);
	char *hex = bn != NULL && BN_num_bytes(bn) <= SERIAL_BYTES_MAX ? BN_bn2hex(bn) : NULL;
	int r;

	/* as csm-server writes them */
	for (char *at = hex; at != NULL && *at != '\0'; at++)
		*at = *at >= 'A' && *at <= 'F' ? (char)(*at - 'A' + 'a') : *at;
	if (hex == NULL)
		r = refuse(c, 0, "its serial number is longer than %d bytes", SERIAL_BYTES_MAX);
	else
		r = to_pool(pool, hex, strlen(hex), ret);
	OPENSSL_free(hex);
	BN_free(bn);
	return r;
}

static int tell(struct chain *c, struct csm_pool *pool, struct csm_msg_cert_info *ret)
{
	uint8_t hash[crypto_hash_sha256_BYTES];
	char *hex = csm_pool_alloc(pool, 2 * sizeof(hash) + 1);
	uint64_t life;
	int r;

	if (hex == NULL)
		return CSM_ENOMEM;
	if ((r = tell_serial(c, pool, &ret->serial)) != 0 ||
		(r = name_into(c, X509_get_subject_name(c->cert[0]), "subject", pool, &ret->subject)) != 0 ||
		(r = name_into(c, X509_get_issuer_name(c->cert[0]), "issuer", pool, &ret->issuer)) != 0 ||
		(r = tell_sans(c, pool, &ret->san)) != 0)
		return r;
	if (!time_of(X509_get0_notBefore(c->cert[0]), &ret->not_before.v) ||
		!time_of(X509_get0_notAfter(c->cert[0]), &ret->not_after.v))
		return CSM_EINTERNAL;
	life = ret->not_after.v - ret->not_before.v;
	ret->renew_at.v = ret->not_before.v + life / 3 * 2 + life % 3 * 2 / 3;
	crypto_hash_sha256(hash, c->der[0].p, c->der[0].n);
	sodium_bin2hex(hex, 2 * sizeof(hash) + 1, hash, sizeof(hash));
	ret->fingerprint = csm_str_of(hex);
	return 0;
}

static int check(struct chain *c, struct csm_bin bytes, struct csm_bin spki, uint64_t now)
{
	int r;

	if ((r = take_all(c, bytes)) != 0 || (r = check_key(c, spki)) != 0)
		return r;
	for (size_t i = 0; i < c->n; i++)
		if ((r = check_times(c, i, now)) != 0)
			return r;
	for (size_t i = 0; i + 1 < c->n; i++)
		if ((r = check_issued(c, i)) != 0)
			return r;
	return 0;
}

int csm_cert_check(struct csm_bin chain, struct csm_bin spki, uint64_t now, struct csm_pool *pool,
	struct csm_msg_cert_info *ret, char why[static CSM_CERT_WHY])
{
	struct chain c = {.why = why};
	struct csm_msg_cert_info info = {.last_error = CSM_STR("")};
	int r = check(&c, chain, spki, now);

	if (r == 0)
		r = tell(&c, pool, &info);
	for (size_t i = 0; i < CSM_CERTS_MAX; i++)
		X509_free(c.cert[i]);
	ERR_clear_error();
	if (r == 0)
		*ret = info;
	return r;
}
