/* Any bytes as a certificate request: refused with a reason, or read, and then a profile that takes much has a word to say,
 * and what is issued by it is a certificate that OpenSSL reads again, with the names that were asked for and no CA's. */
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/evp.h>

#include "daemon/pki/issue.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void told(int r, const char *why)
{
	must(r == CSM_ENOMEM || (why[0] != '\0' && memchr(why, '\0', CSM_CERTREQ_WHY) != NULL && csm_utf8_valid(why, strlen(why))));
}

static const struct csm_profile *wide(void)
{
	static const struct csm_subject_rule subject[] = {{NID_commonName, {"*", 1}, false}, {NID_organizationName, {"*", 1}, false}};
	static const struct csm_str sans[] = {{"dns:.example", 12}, {"dns:*.org", 9}, {"ip:0.0.0.0/0", 12}, {"ip:::/0", 7},
		{"uri:spiffe://td/**", 18}, {"uri:spiffe://x/*/y", 18}, {"email:.example", 14}, {"email:@example", 14}};
	static const struct csm_profile p = {.keys = 31, .rsa_min = 2048, .rsa_max = 4096, .max_life = 100, .key_usage = 0xffff & ~6u,
		.ekus = {"serverAuth", "clientAuth"}, .n_ekus = 2, .subject = subject, .n_subject = 2, .sans = sans, .n_sans = 8,
		.wildcards = true};
	char why[CSM_CERTREQ_WHY];

	must(csm_profile_check(&p, why) == 0);
	return &p;
}

/* A self-signed CA is not needed to see what a certificate would be: the to-be-signed part, in a frame. */
static void issued(const struct csm_certreq *q)
{
	struct csm_cert_order o = {.profile = wide(), .subject = q->subject, .sans = q->sans, .spki = q->spki, .serial = {1},
		.not_before = 1, .not_after = 100};
	const struct csm_scheme ed = {CSM_SCHEME_ED25519, CSM_HASH_NONE};
	struct csm_profile ca = *o.profile;
	char why[CSM_CERTREQ_WHY] = "";
	struct csm_buf tbs, cert;
	struct csm_der d = {&cert, 0};
	X509_ALGOR *alg = NULL;
	const unsigned char *at;
	size_t seq;
	X509 *x = NULL;
	int r;

	csm_buf_init(&tbs, 65536, false);
	csm_buf_init(&cert, 65536, false);
	ca.ca = true;
	ca.key_usage = KU_KEY_CERT_SIGN;
	o.profile = &ca; /* without an issuer only a CA's is made */
	r = csm_cert_tbs(&o, &ed, &tbs, why);
	if (r != 0) {
		told(r, why);
		goto out;
	}
	must(csm_sigalg_new(&ed, &alg) == 0);
	seq = csm_der_open(&d, CSM_DER_SEQ);
	csm_der_raw(&d, csm_buf_ptr(&tbs), tbs.len);
	csm_der_item(&d, ASN1_ITEM_rptr(X509_ALGOR), alg);
	csm_der_bits(&d, "", 1);
	csm_der_close(&d, seq);
	at = csm_buf_ptr(&cert);
	must(d.r == 0 && (x = d2i_X509(NULL, &at, (long)cert.len)) != NULL && at == csm_buf_ptr(&cert) + cert.len);
	must((X509_get_extension_flags(x) & EXFLAG_INVALID) == 0);
	must(X509_NAME_cmp(X509_get_subject_name(x), q->subject) == 0);
	X509_free(x);
out:
	X509_ALGOR_free(alg);
	csm_buf_free(&tbs);
	csm_buf_free(&cert);
}

static void read_one(struct csm_bin bytes)
{
	char why[CSM_CERTREQ_WHY] = "";
	struct csm_certreq *q = NULL;
	int r = csm_certreq_read(bytes, &q, why);

	if (r != 0) {
		must(q == NULL);
		told(r, why);
		return;
	}
	must(q->n_exts <= CSM_CERTREQ_EXTS_MAX && q->spki.n > 0 && sk_GENERAL_NAME_num(q->sans) <= (int)CSM_SANS_MAX);
	r = csm_profile_allows(wide(), q, 100, why);
	if (r == 0) {
		must(!q->wants_ca);
		issued(q);
	} else {
		told(r, why);
	}
	csm_certreq_free(q);
}

/* What stands behind the proof is reached by no change of a signed request: so the same once more, under a key of ours. */
static void read_signed(struct csm_bin bytes)
{
	static EVP_PKEY *key;
	const unsigned char *at = bytes.p;
	X509_REQ *req = d2i_X509_REQ(NULL, &at, (long)bytes.n);
	unsigned char *der = NULL;
	int n;

	if (key == NULL)
		must((key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")) != NULL);
	if (req != NULL && X509_REQ_set_pubkey(req, key) == 1 && X509_REQ_sign(req, key, NULL) > 0 &&
		(n = i2d_X509_REQ(req, &der)) > 0)
		read_one((struct csm_bin){der, (size_t)n});
	OPENSSL_free(der);
	X509_REQ_free(req);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	read_one((struct csm_bin){data, size});
	read_signed((struct csm_bin){data, size});
	ERR_clear_error();
	return 0;
}
