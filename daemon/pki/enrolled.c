#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include "daemon/pki/enrolled.h"
#include "daemon/pki/subject.h"
#include "proto-spec/limits.h"

#define ANCHORS_MAX 64

static int refuse(char *why, const char *text)
{
	csm_text_put(why, CSM_CERT_WHY, "%s", text);
	return CSM_EINVALID;
}

/* ---- certificates one after the other ---- */

static void certs_free(STACK_OF(X509) *s)
{
	sk_X509_pop_free(s, X509_free);
}

static int certs_read(struct csm_bin der, int max, STACK_OF(X509) **ret, char *why)
{
	STACK_OF(X509) *s = sk_X509_new_null();
	const unsigned char *p = der.p, *end = der.p + der.n;
	int r = CSM_ENOMEM;

	if (s == NULL)
		return r;
	while (p < end) {
		X509 *x = d2i_X509(NULL, &p, (long)(end - p));

		if (x == NULL || (X509_get_extension_flags(x) & EXFLAG_INVALID) != 0 || sk_X509_num(s) == max) {
			X509_free(x);
			r = refuse(why, "what was given is not a list of DER certificates, or too many of them");
			goto out;
		}
		if (sk_X509_push(s, x) <= 0) {
			X509_free(x);
			goto out;
		}
	}
	r = 0;
	*ret = s;
	s = NULL;
out:
	certs_free(s);
	return r;
}

static int cert_put(X509 *x, struct csm_buf *out)
{
	unsigned char *der = NULL;
	int n = i2d_X509(x, &der), r;

	if (n <= 0)
		return CSM_ENOMEM;
	r = csm_buf_put(out, der, (size_t)n);
	OPENSSL_free(der);
	return r;
}

/* ---- the way to an anchor ---- */

static int say_unverified(const X509_STORE_CTX *ctx, char *why)
{
	csm_text_put(why, CSM_CERT_WHY, "no chain to what the profile trusts: %s",
		X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx)));
	return CSM_EINVALID;
}

/* The chain as it was found, without a root at its end: that one everybody has to have by other ways. */
static int put_found(const STACK_OF(X509) *found, struct csm_buf *out)
{
	int n = sk_X509_num(found), r = 0;

	if (n > 1 && X509_self_signed(sk_X509_value(found, n - 1), 0) == 1)
		n--;
	for (int i = 0; i < n && r == 0; i++)
		r = cert_put(sk_X509_value(found, i), out);
	return r;
}

static X509_STORE *store_of(const STACK_OF(X509) *anchors)
{
	X509_STORE *store = X509_STORE_new();

	for (int i = 0; store != NULL && i < sk_X509_num(anchors); i++)
		if (X509_STORE_add_cert(store, sk_X509_value(anchors, i)) != 1) {
			X509_STORE_free(store);
			return NULL;
		}
	return store;
}

/* An anchor may be a CA below a root: who named it trusts it. */
static int verify(STACK_OF(X509) *given, const STACK_OF(X509) *anchors, const struct csm_enrolled_want *want,
	struct csm_buf *out, char *why)
{
	X509_STORE *store = store_of(anchors);
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	X509_VERIFY_PARAM *param;
	int r = CSM_ENOMEM;

	if (store == NULL || ctx == NULL || X509_STORE_CTX_init(ctx, store, sk_X509_value(given, 0), given) != 1)
		goto out;
	param = X509_STORE_CTX_get0_param(ctx);
	X509_VERIFY_PARAM_set_time(param, (time_t)want->now);
	X509_VERIFY_PARAM_set_depth(param, (int)CSM_CERTS_MAX);
	if (X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_PARTIAL_CHAIN) != 1 ||
		(want->tls_client && X509_VERIFY_PARAM_set_purpose(param, X509_PURPOSE_SSL_CLIENT) != 1))
		goto out;
	r = X509_verify_cert(ctx) == 1 ? put_found(X509_STORE_CTX_get0_chain(ctx), out) : say_unverified(ctx, why);
out:
	X509_STORE_CTX_free(ctx);
	X509_STORE_free(store);
	return r;
}

/* ---- names ---- */

static bool same_text(struct csm_str a, struct csm_str b)
{
	bool fold = a.n > 4 && memcmp(a.p, "dns:", 4) == 0; /* hosts do not tell upper from lower case */

	return a.n == b.n && (fold ? strncasecmp(a.p, b.p, a.n) == 0 : memcmp(a.p, b.p, a.n) == 0);
}

/* As many, and for each one asked for another one that it has: the same set. */
static int check_sans(const struct csm_enrolled_want *want, const struct csm_strs *has, char *why)
{
	bool used[CSM_CERT_SANS_MAX] = {false};
	GENERAL_NAMES *names = NULL;
	char fault[128] = "";
	struct csm_buf text;
	int n, r = csm_sans_parse(want->sans, want->n_sans, &names, fault);

	if (r != 0)
		return r == CSM_EINVALID ? refuse(why, fault) : r;
	n = names != NULL ? sk_GENERAL_NAME_num(names) : 0;
	csm_buf_init(&text, CSM_SAN_MAX, false);
	if ((size_t)n != has->n)
		r = refuse(why, "it has not as many alternative names as were asked for");
	for (int i = 0; i < n && r == 0; i++) {
		size_t k = 0;

		csm_buf_reset(&text);
		if ((r = csm_san_text(sk_GENERAL_NAME_value(names, i), &text)) != 0)
			break;
		while (k < has->n &&
			(used[k] || !same_text((struct csm_str){(const char *)csm_buf_ptr(&text), text.len}, has->v[k])))
			k++;
		if (k < has->n)
			used[k] = true;
		else
			r = refuse(why, "it has other alternative names than were asked for");
	}
	csm_buf_free(&text);
	GENERAL_NAMES_free(names);
	return r;
}

static int check_subject(const struct csm_enrolled_want *want, X509 *leaf, char *why)
{
	X509_NAME *name = NULL;
	char fault[128] = "";
	int r;

	if (want->any_subject)
		return 0;
	if ((r = csm_subject_parse(want->subject, &name, fault)) != 0)
		return r == CSM_EINVALID ? refuse(why, fault) : r;
	/* compared as RFC 5280 7.1 does: the kind of string and its case do not tell names apart */
	if (X509_NAME_cmp(name, X509_get_subject_name(leaf)) != 0)
		r = refuse(why, "its subject is not the one that was asked for");
	X509_NAME_free(name);
	return r;
}

/* ---- the certificate itself ---- */

static bool is_over(X509 *x, uint64_t now)
{
	time_t at = (time_t)now;

	return X509_cmp_time(X509_get0_notAfter(x), &at) <= 0;
}

static bool is_early(X509 *x, uint64_t now)
{
	time_t at = (time_t)now;

	return X509_cmp_time(X509_get0_notBefore(x), &at) > 0;
}

static int check_leaf(X509 *leaf, const struct csm_enrolled_want *want, char *why)
{
	unsigned char *der = NULL;
	int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(leaf), &der);
	bool same = n > 0 && (size_t)n == want->spki.n && memcmp(der, want->spki.p, want->spki.n) == 0;

	OPENSSL_free(der);
	if (!same)
		return refuse(why, "it is for another public key");
	if (is_early(leaf, want->now))
		return refuse(why, "it is not valid yet, by this node's clock");
	if (is_over(leaf, want->now))
		return refuse(why, "it has expired, by this node's clock");
	/* OpenSSL takes one whose key usage says nothing of certificates for none, whatever its constraints say */
	if (X509_check_ca(leaf) != 0 || (X509_get_extension_flags(leaf) & EXFLAG_CA) != 0)
		return refuse(why, "it is a CA's");
	if ((X509_get_extension_flags(leaf) & EXFLAG_KUSAGE) != 0 &&
		(X509_get_key_usage(leaf) & (KU_KEY_CERT_SIGN | KU_CRL_SIGN)) != 0)
		return refuse(why, "its key usage is a CA's");
	return 0;
}

static int check_life(const struct csm_msg_cert_info *info, char *why)
{
	if (info->not_after.v - info->not_before.v > CSM_ENROLLED_LIFE_MAX)
		return refuse(why, "its life is absurdly long");
	return 0;
}

static int check(struct csm_bin given, const struct csm_enrolled_want *want, struct csm_buf *chain, struct csm_pool *pool,
	struct csm_msg_cert_info *info, char *why)
{
	STACK_OF(X509) *certs = NULL, *anchors = NULL;
	size_t before = chain->len;
	X509 *leaf;
	int r;

	if ((r = certs_read(given, (int)CSM_CERTS_MAX, &certs, why)) != 0)
		goto out;
	r = refuse(why, "nothing was given");
	if (sk_X509_num(certs) == 0)
		goto out;
	leaf = sk_X509_value(certs, 0);
	if ((r = check_leaf(leaf, want, why)) != 0 || (r = check_subject(want, leaf, why)) != 0 ||
		(r = certs_read(want->anchors, ANCHORS_MAX, &anchors, why)) != 0 ||
		(r = verify(certs, anchors, want, chain, why)) != 0)
		goto out;
	r = csm_cert_check((struct csm_bin){csm_buf_ptr(chain) + before, chain->len - before}, want->spki, want->now, pool, info,
		why);
	if (r == 0 && (r = check_life(info, why)) == 0)
		r = check_sans(want, &info->san, why);
out:
	certs_free(certs);
	certs_free(anchors);
	return r;
}

int csm_enrolled_check(struct csm_bin given, const struct csm_enrolled_want *want, struct csm_buf *chain, struct csm_pool *pool,
	struct csm_msg_cert_info *ret, char why[static CSM_CERT_WHY])
{
	struct csm_msg_cert_info info;
	struct csm_buf found;
	int r;

	csm_buf_init(&found, CSM_CERT_CHAIN_MAX, false);
	r = check(given, want, &found, pool, &info, why);
	if (r == 0)
		r = csm_buf_put(chain, csm_buf_ptr(&found), found.len);
	if (r == 0)
		*ret = info;
	csm_buf_free(&found);
	ERR_clear_error();
	return r;
}

/* ---- anchors ---- */

int csm_anchors_check(struct csm_bin anchors, uint64_t now, char why[static CSM_CERT_WHY])
{
	STACK_OF(X509) *certs = NULL;
	int r = certs_read(anchors, ANCHORS_MAX, &certs, why);

	if (r == 0 && sk_X509_num(certs) == 0)
		r = refuse(why, "there is no certificate of a CA");
	for (int i = 0; r == 0 && i < sk_X509_num(certs); i++) {
		X509 *x = sk_X509_value(certs, i);
		int ca = X509_check_ca(x);

		if (ca != 1 && ca != 3)
			r = refuse(why, "a certificate to be trusted is not a CA's");
		else if (is_over(x, now))
			r = refuse(why, "a certificate to be trusted has expired");
	}
	certs_free(certs);
	ERR_clear_error();
	return r;
}

/* A set that is already there is not put twice. */
static int join_one(STACK_OF(X509) *all, X509 *x, uint64_t now, size_t max, struct csm_buf *out)
{
	for (int i = 0; i < sk_X509_num(all); i++)
		if (X509_cmp(sk_X509_value(all, i), x) == 0)
			return 0;
	if (is_over(x, now) || out->len + (size_t)i2d_X509(x, NULL) > max || sk_X509_num(all) == ANCHORS_MAX)
		return 0;
	return sk_X509_push(all, x) > 0 ? cert_put(x, out) : CSM_ENOMEM;
}

int csm_anchors_join(struct csm_bin newer, struct csm_bin older, uint64_t now, size_t max, struct csm_buf *out)
{
	STACK_OF(X509) *a = NULL, *b = NULL, *all = sk_X509_new_null();
	char why[CSM_CERT_WHY];
	size_t before = out->len;
	int r = CSM_ENOMEM;

	if (all == NULL || (r = certs_read(newer, ANCHORS_MAX, &a, why)) != 0 || (r = certs_read(older, ANCHORS_MAX, &b, why)) != 0)
		goto out;
	for (int i = 0; r == 0 && i < sk_X509_num(a); i++)
		r = join_one(all, sk_X509_value(a, i), now, max, out);
	for (int i = 0; r == 0 && i < sk_X509_num(b); i++)
		r = join_one(all, sk_X509_value(b, i), now, max, out);
out:
	if (r != 0)
		out->len = before;
	sk_X509_free(all);
	certs_free(a);
	certs_free(b);
	ERR_clear_error();
	return r;
}

int csm_anchors_pem(struct csm_bin pem, struct csm_buf *out)
{
	BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
	int r = bio == NULL ? CSM_ENOMEM : 0, n = 0;
	size_t before = out->len;
	X509 *x;

	while (r == 0 && (x = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL) {
		r = n++ < ANCHORS_MAX ? cert_put(x, out) : CSM_ETOO_LARGE;
		X509_free(x);
	}
	/* the end of the text is told as an error, too; every other one is one */
	if (r == 0 && (n == 0 || ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE))
		r = CSM_EINVALID;
	if (r != 0)
		out->len = before;
	BIO_free(bio);
	ERR_clear_error();
	return r;
}
