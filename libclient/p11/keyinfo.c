/* A public key, and what follows from it. */
#include <stdlib.h>
#include <string.h>
#include <sodium.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include "libclient/p11/p11.h"

void keyinfo_free(struct keyinfo *i)
{
	if (i == NULL)
		return;
	ossl_in();
	EVP_PKEY_free(i->pkey);
	ossl_out();
	free(i->spki);
	free(i);
}

/* RFC 5280, 4.2.1.2: what most CAs take as the subject key identifier too. */
bool keyinfo_id(const uint8_t *spki, size_t n, uint8_t id[static P11_ID_LEN])
{
	X509_PUBKEY *pub;
	EVP_MD *md;
	const unsigned char *bits;
	bool ok;
	int len;

	ossl_in();
	/* in our own context: the default one would read the application's configuration */
	pub = X509_PUBKEY_new_ex(p11_ossl(), NULL);
	if (pub != NULL && d2i_X509_PUBKEY(&pub, &spki, (long)n) == NULL)
		pub = NULL;
	md = pub_md(hash_by_mech(CKM_SHA_1));
	ok = pub != NULL && md != NULL && X509_PUBKEY_get0_param(NULL, &bits, &len, NULL, pub) == 1 &&
	          EVP_Digest(bits, (size_t)len, id, NULL, md, NULL) == 1;

	EVP_MD_free(md);
	X509_PUBKEY_free(pub);
	ossl_out();
	return ok;
}

bool keyinfo_fingerprint(const uint8_t *p, size_t n, char out[static P11_FINGERPRINT_LEN + 1])
{
	EVP_MD *md = pub_md(hash_by_mech(CKM_SHA256));
	uint8_t digest[P11_FINGERPRINT_LEN / 2];
	bool ok = md != NULL && EVP_Digest(p, n, digest, NULL, md, NULL) == 1;

	EVP_MD_free(md);
	if (ok)
		(void)sodium_bin2hex(out, P11_FINGERPRINT_LEN + 1, digest, sizeof(digest));
	return ok;
}

X509 *keyinfo_x509(const unsigned char **p, size_t n)
{
	X509 *x = X509_new_ex(p11_ossl(), NULL);

	/* d2i frees it where it fails */
	return x != NULL && d2i_X509(&x, p, (long)n) != NULL ? x : NULL;
}

CK_RV keyinfo_new(const uint8_t *spki, size_t n, struct keyinfo **ret)
{
	struct keyinfo *i = calloc(1, sizeof(*i));
	const unsigned char *p = spki;
	CK_RV rv = CKR_HOST_MEMORY;

	ossl_in();
	if (i == NULL || (i->spki = malloc(n)) == NULL || p11_ossl() == NULL)
		goto out;
	memcpy(i->spki, spki, n);
	i->spki_len = n;
	rv = CKR_KEY_TYPE_INCONSISTENT;
	i->pkey = d2i_PUBKEY_ex(NULL, &p, (long)n, p11_ossl(), NULL);
	if (i->pkey == NULL || (i->alg = alg_of_pkey(i->pkey)) == NULL)
		goto out;
	rv = CKR_HOST_MEMORY;
	if (!keyinfo_id(spki, n, i->id) || !keyinfo_fingerprint(spki, n, i->spki_sha256))
		goto out;
	*ret = i;
	i = NULL;
	rv = CKR_OK;
out:
	keyinfo_free(i);
	ossl_out();
	return rv;
}

CK_RV keyinfo_new_pem(const char *pem, struct keyinfo **ret)
{
	BIO *bio;
	unsigned char *der = NULL;
	CK_RV rv = CKR_DEVICE_ERROR;
	long n = 0;

	ossl_in();
	bio = BIO_new_mem_buf(pem, -1);
	if (bio != NULL && PEM_bytes_read_bio(&der, &n, NULL, PEM_STRING_PUBLIC, bio, NULL, NULL) == 1)
		rv = keyinfo_new(der, (size_t)n, ret);
	OPENSSL_free(der);
	BIO_free(bio);
	ossl_out();
	return rv;
}
