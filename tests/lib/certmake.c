#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include "daemon/pki/subject.h"
#include "tests/lib/certmake.h"

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "certmake: %s\n", what);
	ERR_print_errors_fp(stderr);
	abort();
}

static X509_NAME *name_of(const char *text)
{
	char why[128] = "";
	X509_NAME *name = NULL;

	must(csm_subject_parse(csm_str_of(text), &name, why) == 0, why);
	return name;
}

static void extension(X509 *x, int nid, const char *value)
{
	X509_EXTENSION *e;
	X509V3_CTX c;

	X509V3_set_ctx(&c, x, x, NULL, NULL, 0);
	e = X509V3_EXT_conf_nid(NULL, &c, nid, value);
	must(e != NULL && X509_add_ext(x, e, -1) == 1, value);
	X509_EXTENSION_free(e);
}

static void set_serial(X509 *x, const char *hex)
{
	BIGNUM *bn = NULL;

	must(BN_hex2bn(&bn, hex) > 0 && BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(x)) != NULL, "serial");
	BN_free(bn);
}

static void sign(X509 *x, EVP_PKEY *key)
{
	bool plain = EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519;

	must(X509_sign(x, key, plain ? NULL : EVP_sha256()) > 0, "sign");
}

X509 *cert_make(const struct certspec *s)
{
	X509_NAME *subject = name_of(s->subject != NULL ? s->subject : "/");
	X509_NAME *issuer = s->issuer != NULL ? name_of(s->issuer) : NULL;
	bool dated = s->from != 0 || s->to != 0;
	X509 *x = X509_new();

	must(x != NULL && X509_set_version(x, X509_VERSION_3) == 1 && X509_set_subject_name(x, subject) == 1, "new");
	set_serial(x, s->serial != NULL ? s->serial : "01");
	must(X509_set_issuer_name(x, issuer != NULL ? issuer : s->signer != NULL ? X509_get_subject_name(s->signer) : subject) ==
			1 && X509_set_pubkey(x, s->key) == 1, "names");
	must(X509_gmtime_adj(X509_getm_notBefore(x), dated ? s->from : -3600) != NULL &&
			X509_gmtime_adj(X509_getm_notAfter(x), dated ? s->to : 86400) != NULL, "dates");
	if (s->ca)
		extension(x, NID_basic_constraints, "critical,CA:TRUE");
	if (s->usage != NULL)
		extension(x, NID_key_usage, s->usage);
	if (s->eku != NULL)
		extension(x, NID_ext_key_usage, s->eku);
	if (s->constraints != NULL)
		extension(x, NID_name_constraints, s->constraints);
	if (s->san != NULL)
		extension(x, NID_subject_alt_name, s->san);
	sign(x, s->signer_key != NULL ? s->signer_key : s->key);
	if (s->spoil != NULL) {
		const ASN1_BIT_STRING *sig;

		X509_get0_signature(&sig, NULL, x);
		sig->data[sig->length - 1] ^= 1;
	}
	X509_NAME_free(subject);
	X509_NAME_free(issuer);
	return x;
}

void cert_der(X509 *x, struct csm_buf *out)
{
	unsigned char *der = NULL;
	int n = i2d_X509(x, &der);

	must(n > 0 && csm_buf_put(out, der, (size_t)n) == 0, "encode");
	OPENSSL_free(der);
}

EVP_PKEY *cert_key_of(struct csm_bin spki)
{
	const unsigned char *p = spki.p;
	EVP_PKEY *key = d2i_PUBKEY(NULL, &p, (long)spki.n);

	must(key != NULL, "public key");
	return key;
}
