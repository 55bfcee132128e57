/* Whom to trust, and who we are. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include "libclient/rest/rest_int.h"

#define CERTS_MAX 64u

#define REFUSE(why, ...) (snprintf(why, CSM_REST_WHY_MAX + 1, __VA_ARGS__), CSM_EINVALID)

/* DER certificates one after the other. */
static int read_certs(struct csm_bin der, STACK_OF(X509) **ret)
{
	const unsigned char *p = der.p, *end = der.p + der.n;
	STACK_OF(X509) *all = sk_X509_new_null();
	int r = CSM_EINVALID;

	while (all != NULL && p < end) {
		X509 *x = sk_X509_num(all) < (int)CERTS_MAX ? d2i_X509(NULL, &p, end - p) : NULL;

		if (x == NULL)
			goto out;
		if (sk_X509_push(all, x) <= 0) {
			X509_free(x);
			goto out;
		}
	}
	if (all == NULL || sk_X509_num(all) == 0)
		goto out;
	*ret = all;
	all = NULL;
	r = 0;
out:
	sk_X509_pop_free(all, X509_free);
	ERR_clear_error();
	return r;
}

static X509_STORE *new_store(void)
{
	X509_STORE *s = X509_STORE_new();

	/* What is given as an anchor is one, also where it is an intermediate. */
	if (s != NULL)
		X509_STORE_set_flags(s, X509_V_FLAG_PARTIAL_CHAIN);
	return s;
}

static int take_anchors(struct csm_rest *r, struct csm_bin anchors, char *why)
{
	STACK_OF(X509) *all = NULL;
	int i, err = read_certs(anchors, &all);

	if (err != 0)
		return REFUSE(why, "the anchors are no certificates");
	r->trust = new_store();
	err = r->trust != NULL ? 0 : CSM_ENOMEM;
	for (i = 0; err == 0 && i < sk_X509_num(all); i++)
		err = X509_STORE_add_cert(r->trust, sk_X509_value(all, i)) == 1 ? 0 : CSM_ENOMEM;
	sk_X509_pop_free(all, X509_free);
	return err;
}

static int copy(const char *from, char **to)
{
	*to = from != NULL ? strdup(from) : NULL;
	return from != NULL && *to == NULL ? CSM_ENOMEM : 0;
}

/* Now, so that it is told as what it is. */
static int check_ca_file(const char *file, char *why)
{
	X509_STORE *s = new_store();
	int ok = s != NULL && X509_STORE_load_file(s, file) == 1;

	X509_STORE_free(s);
	ERR_clear_error();
	return ok ? 0 : REFUSE(why, "%.180s: no CA certificates can be read from it", file);
}

static int no_password(char *buf, int size, int writing, void *arg)
{
	(void)buf;
	(void)size;
	(void)writing;
	(void)arg;
	return -1;
}

static int check_own_files(const char *cert, const char *key, char *why)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	int r = CSM_ENOMEM;

	if (ctx == NULL)
		return r;
	SSL_CTX_set_default_passwd_cb(ctx, no_password);
	if (SSL_CTX_use_certificate_chain_file(ctx, cert) != 1)
		r = REFUSE(why, "%.180s: no certificate can be read from it", cert);
	else if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1)
		r = REFUSE(why, "%.180s: no private key can be read from it that fits the certificate", key);
	else
		r = 0;
	SSL_CTX_free(ctx);
	ERR_clear_error();
	return r;
}

static int take_own(struct csm_rest *r, const struct csm_rest_options *opt, char *why)
{
	int err;

	if ((opt->cert_file == NULL) != (opt->key_file == NULL) || (opt->chain.p == NULL) != (opt->key == NULL) ||
		(opt->cert_file != NULL && opt->key != NULL))
		return REFUSE(why, "a client certificate and its key go together");
	if (opt->cert_file != NULL) {
		if ((err = check_own_files(opt->cert_file, opt->key_file, why)) != 0 ||
			(err = copy(opt->cert_file, &r->cert_file)) != 0)
			return err;
		return copy(opt->key_file, &r->key_file);
	}
	if (opt->key == NULL)
		return 0;
	if (read_certs(opt->chain, &r->chain) != 0)
		return REFUSE(why, "the client's chain is no certificates");
	if (X509_check_private_key(sk_X509_value(r->chain, 0), opt->key) != 1) {
		ERR_clear_error();
		return REFUSE(why, "the client's certificate is not that of its key");
	}
	if (EVP_PKEY_up_ref(opt->key) != 1)
		return CSM_ENOMEM;
	r->key = opt->key;
	return 0;
}

int rest_tls_take(struct csm_rest *r, const struct csm_rest_options *opt, char *why)
{
	int given = (opt->ca_file != NULL) + (opt->anchors.p != NULL) + opt->unverified;
	bool credential = opt->token.p != NULL || opt->basic.p != NULL || opt->cert_file != NULL || opt->key != NULL;
	int err;

	if (r->local)
		return given != 0 || opt->cert_file != NULL || opt->key != NULL ? REFUSE(why, "there is no TLS on a local socket") : 0;
	if (given != 1)
		return REFUSE(why, given == 0 ? "no CA certificate is given to trust" : "more than one kind of trust is given");
	if (opt->unverified && credential)
		return REFUSE(why, "no credential goes to a server that is not verified");
	r->unverified = opt->unverified;
	if (opt->ca_file != NULL &&
		((err = check_ca_file(opt->ca_file, why)) != 0 || (err = copy(opt->ca_file, &r->ca_file)) != 0))
		return err;
	if (opt->anchors.p != NULL && (err = take_anchors(r, opt->anchors, why)) != 0)
		return err;
	return take_own(r, opt, why);
}

void rest_tls_clear(struct csm_rest *r)
{
	X509_STORE_free(r->trust);
	sk_X509_pop_free(r->chain, X509_free);
	EVP_PKEY_free(r->key);
	free(r->ca_file);
	free(r->cert_file);
	free(r->key_file);
}

/* ---- at each connection ---- */

static CURLcode say(struct csm_rest *r, CURLcode c, const char *what)
{
	snprintf(r->tls_why, sizeof(r->tls_why), "%s", what);
	ERR_clear_error();
	return c;
}

static int use_trust(struct csm_rest *r, SSL_CTX *ctx)
{
	X509_STORE *s;

	if (r->trust != NULL) {
		SSL_CTX_set1_cert_store(ctx, r->trust);
		return 1;
	}
	s = new_store();
	if (s == NULL || (r->ca_file != NULL && X509_STORE_load_file(s, r->ca_file) != 1)) {
		X509_STORE_free(s);
		return 0;
	}
	SSL_CTX_set_cert_store(ctx, s);
	return 1;
}

static int use_own(struct csm_rest *r, SSL_CTX *ctx)
{
	int i, ok = 1;

	if (r->cert_file != NULL)
		return SSL_CTX_use_certificate_chain_file(ctx, r->cert_file) == 1 &&
			SSL_CTX_use_PrivateKey_file(ctx, r->key_file, SSL_FILETYPE_PEM) == 1;
	if (r->key == NULL)
		return 1;
	ok = SSL_CTX_use_certificate(ctx, sk_X509_value(r->chain, 0)) == 1;
	for (i = 1; ok && i < sk_X509_num(r->chain); i++)
		ok = SSL_CTX_add1_chain_cert(ctx, sk_X509_value(r->chain, i)) == 1;
	return ok && SSL_CTX_use_PrivateKey(ctx, r->key) == 1;
}

CURLcode rest_tls_context(CURL *curl, void *ssl_ctx, void *rest)
{
	struct csm_rest *r = rest;
	SSL_CTX *ctx = ssl_ctx;

	(void)curl;
	SSL_CTX_set_default_passwd_cb(ctx, no_password);
	/* Our chain is what was given, whatever certificates are trusted. */
	SSL_CTX_set_mode(ctx, SSL_MODE_NO_AUTO_CHAIN);
	if (SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1)
		return say(r, CURLE_SSL_CONNECT_ERROR, "TLS 1.2 is not to be had");
	if (!use_trust(r, ctx))
		return say(r, CURLE_SSL_CACERT_BADFILE, "the CA certificates cannot be read");
	if (!use_own(r, ctx))
		return say(r, CURLE_SSL_CERTPROBLEM, "the client's certificate or key cannot be used");
	return CURLE_OK;
}
