/* Keys in use through the module: what it signs, OpenSSL verifies; what OpenSSL encrypts, it decrypts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include "tests/lib/p11fix.h"

static const CK_BYTE text[] = "pay 10 to bob";

static EVP_PKEY *public_of(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o)
{
	CK_BYTE spki[1024];
	const unsigned char *p = spki;
	CK_ATTRIBUTE a = {CKA_PUBLIC_KEY_INFO, spki, sizeof(spki)};
	EVP_PKEY *k;

	want(CKR_OK, p11_2->C_GetAttributeValue(s, o, &a, 1));
	k = d2i_PUBKEY(NULL, &p, (long)a.ulValueLen);
	assert_non_null(k);
	return k;
}

/* The standard's r and s as OpenSSL has them. */
static size_t to_der(const CK_BYTE *sig, size_t n, unsigned char *out)
{
	ECDSA_SIG *e = ECDSA_SIG_new();
	unsigned char *p = out;
	int len;

	assert_int_equal(
		ECDSA_SIG_set0(e, BN_bin2bn(sig, (int)(n / 2), NULL), BN_bin2bn(sig + n / 2, (int)(n / 2), NULL)), 1);
	len = i2d_ECDSA_SIG(e, &p);
	ECDSA_SIG_free(e);
	return (size_t)len;
}

static bool openssl_verifies(EVP_PKEY *k, const char *md, bool pss, const CK_BYTE *sig, size_t n)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	EVP_PKEY_CTX *p;
	unsigned char der[256];
	bool ok;

	if (EVP_PKEY_is_a(k, "EC")) {
		n = to_der(sig, n, der);
		sig = der;
	}
	assert_int_equal(EVP_DigestVerifyInit_ex(ctx, &p, md, NULL, NULL, k, NULL), 1);
	if (pss)
		assert_true(EVP_PKEY_CTX_set_rsa_padding(p, RSA_PKCS1_PSS_PADDING) == 1 &&
			    EVP_PKEY_CTX_set_rsa_pss_saltlen(p, RSA_PSS_SALTLEN_DIGEST) == 1);
	ok = EVP_DigestVerify(ctx, sig, n, text, sizeof(text)) == 1;
	EVP_MD_CTX_free(ctx);
	return ok;
}

/* At once, in parts, and by the module's own verification. */
static void sign_and_verify(CK_SESSION_HANDLE s, const char *key, CK_MECHANISM *m, const char *md, const void *in, CK_ULONG n)
{
	CK_OBJECT_HANDLE k = p11fix_find(s, CKO_PRIVATE_KEY, key), p = p11fix_find(s, CKO_PUBLIC_KEY, key);
	bool pss = md != NULL && m->ulParameterLen != 0;
	EVP_PKEY *pkey = public_of(s, p);
	CK_BYTE sig[512], *data = (CK_BYTE *)(uintptr_t)in;
	CK_ULONG len = p11fix_sign(s, m, k, in, n, sig, sizeof(sig));

	assert_true(len > 0 && openssl_verifies(pkey, md, pss, sig, len));
	want(CKR_OK, p11_2->C_VerifyInit(s, m, p));
	want(CKR_OK, p11_2->C_Verify(s, data, n, sig, len));
	len = sizeof(sig);
	want(CKR_OK, p11_2->C_SignInit(s, m, k));
	want(CKR_OK, p11_2->C_SignUpdate(s, data, 5));
	want(CKR_OK, p11_2->C_SignUpdate(s, data + 5, 0));
	want(CKR_OK, p11_2->C_SignUpdate(s, data + 5, n - 5));
	want(CKR_OK, p11_2->C_SignFinal(s, NULL, &len));
	want(CKR_OK, p11_2->C_SignFinal(s, sig, &len));
	assert_true(openssl_verifies(pkey, md, pss, sig, len));
	want(CKR_OK, p11_2->C_VerifyInit(s, m, p));
	want(CKR_OK, p11_2->C_VerifyUpdate(s, data, n - 1));
	want(CKR_OK, p11_2->C_VerifyUpdate(s, data + n - 1, 1));
	want(CKR_OK, p11_2->C_VerifyFinal(s, sig, len));
	sig[3] ^= 4;
	want(CKR_OK, p11_2->C_VerifyInit(s, m, p));
	want(CKR_SIGNATURE_INVALID, p11_2->C_Verify(s, data, n, sig, len));
	EVP_PKEY_free(pkey);
}

static const struct hash_row {
	const char *md;
	CK_MECHANISM_TYPE hash, ecdsa, rsa, pss;
	CK_RSA_PKCS_MGF_TYPE mgf;
	CK_ULONG size;
	CK_BYTE info; /* the last byte of the hash's number */
} hashes[] = {
	{"SHA256", CKM_SHA256, CKM_ECDSA_SHA256, CKM_SHA256_RSA_PKCS, CKM_SHA256_RSA_PKCS_PSS, CKG_MGF1_SHA256, 32, 1},
	{"SHA384", CKM_SHA384, CKM_ECDSA_SHA384, CKM_SHA384_RSA_PKCS, CKM_SHA384_RSA_PKCS_PSS, CKG_MGF1_SHA384, 48, 2},
	{"SHA512", CKM_SHA512, CKM_ECDSA_SHA512, CKM_SHA512_RSA_PKCS, CKM_SHA512_RSA_PKCS_PSS, CKG_MGF1_SHA512, 64, 3},
};

static void digest_of(CK_SESSION_HANDLE s, CK_MECHANISM_TYPE hash, CK_BYTE *out, CK_ULONG n)
{
	CK_MECHANISM m = {hash, NULL, 0};

	want(CKR_OK, p11_2->C_DigestInit(s, &m));
	want(CKR_OK, p11_2->C_Digest(s, (CK_BYTE *)(uintptr_t)text, sizeof(text), out, &n));
}

static void ecdsa_with(CK_SESSION_HANDLE s, const char *key)
{
	for (size_t i = 0; i < 3; i++) {
		CK_MECHANISM m = {hashes[i].ecdsa, NULL, 0}, raw = {CKM_ECDSA, NULL, 0};
		CK_BYTE digest[64];

		sign_and_verify(s, key, &m, hashes[i].md, text, sizeof(text));
		digest_of(s, hashes[i].hash, digest, hashes[i].size);
		sign_and_verify(s, key, &raw, hashes[i].md, digest, hashes[i].size);
	}
}

static void test_ecdsa(void **state)
{
	CK_SESSION_HANDLE s = p11fix_session(p11fix_up(), 0);
	CK_BYTE sha1[20];
	CK_MECHANISM raw = {CKM_ECDSA, NULL, 0};

	(void)state;
	ecdsa_with(s, "p256-soft");
	ecdsa_with(s, "p384-soft");
	ecdsa_with(s, "p521-soft");
	ecdsa_with(s, "p256-tpm2");
	/* a digest of a hash that csm has no scheme for is a number like others */
	digest_of(s, CKM_SHA_1, sha1, 20);
	sign_and_verify(s, "p256-soft", &raw, "SHA1", sha1, 20);
	sign_and_verify(s, "p256-tpm2", &raw, "SHA1", sha1, 20);
	p11fix_down();
}

static void rsa_with(CK_SESSION_HANDLE s, const char *key)
{
	for (size_t i = 0; i < 3; i++) {
		const struct hash_row *h = &hashes[i];
		CK_RSA_PKCS_PSS_PARAMS p = {h->hash, h->mgf, h->size};
		CK_MECHANISM v15 = {h->rsa, NULL, 0}, pss = {h->pss, &p, sizeof(p)}, bare = {CKM_RSA_PKCS, NULL, 0},
			     bare_pss = {CKM_RSA_PKCS_PSS, &p, sizeof(p)};
		CK_BYTE info[19 + 64] = {0x30, (CK_BYTE)(17 + h->size), 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2,
			h->info, 5, 0, 4, (CK_BYTE)h->size};

		sign_and_verify(s, key, &v15, h->md, text, sizeof(text));
		sign_and_verify(s, key, &pss, h->md, text, sizeof(text));
		digest_of(s, h->hash, info + 19, h->size);
		sign_and_verify(s, key, &bare, h->md, info, 19 + h->size);
		sign_and_verify(s, key, &bare_pss, h->md, info + 19, h->size);
	}
}

static void test_rsa(void **state)
{
	CK_SESSION_HANDLE s = p11fix_session(p11fix_up(), 0);

	(void)state;
	rsa_with(s, "rsa-soft");
	rsa_with(s, "rsa-tpm2");
	p11fix_down();
}

static void test_ed25519(void **state)
{
	CK_SESSION_HANDLE s = p11fix_session(p11fix_up(), 0);
	CK_EDDSA_PARAMS pure = {CK_FALSE, 0, NULL}, prehashed = {CK_TRUE, 0, NULL};
	CK_MECHANISM m = {CKM_EDDSA, NULL, 0}, p = {CKM_EDDSA, &pure, sizeof(pure)}, ph = {CKM_EDDSA, &prehashed, sizeof(pure)};

	(void)state;
	sign_and_verify(s, "ed-soft", &m, NULL, text, sizeof(text));
	sign_and_verify(s, "ed-soft", &p, NULL, text, sizeof(text));
	want(CKR_MECHANISM_PARAM_INVALID, p11_2->C_SignInit(s, &ph, p11fix_find(s, CKO_PRIVATE_KEY, "ed-soft")));
	p11fix_down();
}

static void oaep_with(CK_SESSION_HANDLE s, const char *key, CK_BYTE *label, CK_ULONG label_len)
{
	CK_OBJECT_HANDLE k = p11fix_find(s, CKO_PRIVATE_KEY, key), p = p11fix_find(s, CKO_PUBLIC_KEY, key);
	CK_RSA_PKCS_OAEP_PARAMS o = {CKM_SHA256, CKG_MGF1_SHA256, CKZ_DATA_SPECIFIED, label, label_len};
	CK_MECHANISM m = {CKM_RSA_PKCS_OAEP, &o, sizeof(o)};
	CK_BYTE sealed[256], plain[256], half[256];
	CK_ULONG n = sizeof(sealed), len = sizeof(plain), none = sizeof(half);

	want(CKR_OK, p11_2->C_EncryptInit(s, &m, p));
	want(CKR_OK, p11_2->C_Encrypt(s, (CK_BYTE *)(uintptr_t)text, sizeof(text), sealed, &n));
	want(CKR_OK, p11_2->C_DecryptInit(s, &m, k));
	want(CKR_OK, p11_2->C_Decrypt(s, sealed, n, plain, &len));
	assert_int_equal(len, sizeof(text));
	assert_memory_equal(plain, text, len);
	/* in parts */
	want(CKR_OK, p11_2->C_DecryptInit(s, &m, k));
	want(CKR_OK, p11_2->C_DecryptUpdate(s, sealed, 100, half, &none));
	assert_int_equal(none, 0);
	none = sizeof(half);
	want(CKR_OK, p11_2->C_DecryptUpdate(s, sealed + 100, 156, half, &none));
	len = 3;
	want(CKR_BUFFER_TOO_SMALL, p11_2->C_DecryptFinal(s, plain, &len));
	want(CKR_OK, p11_2->C_DecryptFinal(s, plain, &len));
	assert_memory_equal(plain, text, sizeof(text));
	/* another label does not open it */
	o.pSourceData = (CK_BYTE *)(uintptr_t)"other";
	o.ulSourceDataLen = 5;
	want(CKR_OK, p11_2->C_DecryptInit(s, &m, k));
	want(CKR_ENCRYPTED_DATA_INVALID, p11_2->C_Decrypt(s, sealed, n, plain, &len));
}

static void test_oaep(void **state)
{
	CK_SESSION_HANDLE s = p11fix_session(p11fix_up(), 0);
	CK_BYTE label[] = "label";

	(void)state;
	oaep_with(s, "rsa-soft", NULL, 0);
	oaep_with(s, "rsa-soft", label, 5);
	oaep_with(s, "rsa-tpm2", NULL, 0);
	p11fix_down();
}

/* Both sides of a Diffie-Hellman; the one with other's point plain, the other's as an OCTET STRING. */
static void derive(CK_SESSION_HANDLE s, const char *mine, const char *peer, bool wrapped, CK_ULONG len, CK_BYTE *out)
{
	CK_BYTE point[256];
	CK_ATTRIBUTE a = {CKA_EC_POINT, point, sizeof(point)}, value = {CKA_VALUE, out, len};
	CK_ECDH1_DERIVE_PARAMS p = {CKD_NULL, 0, NULL, 0, NULL};
	CK_MECHANISM m = {CKM_ECDH1_DERIVE, &p, sizeof(p)};
	CK_ATTRIBUTE t[] = {{CKA_VALUE_LEN, &len, sizeof(len)}};
	CK_OBJECT_HANDLE o;
	CK_ULONG head;

	want(CKR_OK, p11_2->C_GetAttributeValue(s, p11fix_find(s, CKO_PUBLIC_KEY, peer), &a, 1));
	head = wrapped ? 0 : point[1] == 0x81 ? 3 : 2;
	p.pPublicData = point + head;
	p.ulPublicDataLen = a.ulValueLen - head;
	want(CKR_OK, p11_2->C_DeriveKey(s, &m, p11fix_find(s, CKO_PRIVATE_KEY, mine), t, 1, &o));
	want(CKR_OK, p11_2->C_GetAttributeValue(s, o, &value, 1));
	assert_int_equal(value.ulValueLen, len);
	want(CKR_OK, p11_2->C_DestroyObject(s, o));
}

static void test_ecdh(void **state)
{
	CK_SESSION_HANDLE s = p11fix_session(p11fix_up(), 0);
	CK_BYTE a[66], b[66], last[16];
	CK_ECDH1_DERIVE_PARAMS p = {CKD_NULL, 0, NULL, 65, a};
	CK_MECHANISM m = {CKM_ECDH1_DERIVE, &p, sizeof(p)};
	CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
	CK_BYTE point[128];
	CK_ATTRIBUTE t[] = {{CKA_SENSITIVE, &yes, 1}, {CKA_EXTRACTABLE, &no, 1}}, value = {CKA_VALUE, a, sizeof(a)},
		     q = {CKA_EC_POINT, point, sizeof(point)}, flags[] = {{CKA_ALWAYS_SENSITIVE, a, 1},
		     {CKA_NEVER_EXTRACTABLE, a + 1, 1}};
	CK_OBJECT_HANDLE o;

	(void)state;
	derive(s, "p256-soft", "p256-tpm2", false, 32, a);
	derive(s, "p256-tpm2", "p256-soft", true, 32, b);
	assert_memory_equal(a, b, 32);
	/* a shorter one is its end */
	derive(s, "p256-soft", "p256-tpm2", false, 16, last);
	assert_memory_equal(last, b + 16, 16);
	derive(s, "p521-soft", "p521-soft", true, 66, a);
	/* protected on demand */
	want(CKR_OK, p11_2->C_GetAttributeValue(s, p11fix_find(s, CKO_PUBLIC_KEY, "p256-tpm2"), &q, 1));
	p.pPublicData = point;
	p.ulPublicDataLen = q.ulValueLen;
	want(CKR_OK, p11_2->C_DeriveKey(s, &m, p11fix_find(s, CKO_PRIVATE_KEY, "p256-soft"), t, 2, &o));
	want(CKR_ATTRIBUTE_SENSITIVE, p11_2->C_GetAttributeValue(s, o, &value, 1));
	want(CKR_OK, p11_2->C_GetAttributeValue(s, o, flags, 2));
	assert_true(a[0] == CK_TRUE && a[1] == CK_TRUE);
	t[0].pValue = &no;
	want(CKR_ATTRIBUTE_READ_ONLY, p11_2->C_SetAttributeValue(s, o, t, 1));
	p11fix_down();
}

static EVP_PKEY *ca_key;

/* A certificate for pkey (the CA's own where NULL), by a CA; its length. */
static size_t certificate(EVP_PKEY *pkey, unsigned char *out)
{
	X509 *x = X509_new();
	unsigned char *p = out;
	const char *name = pkey == NULL ? "ca" : "leaf";
	X509_EXTENSION *e;
	int len;

	if (ca_key == NULL)
		ca_key = EVP_EC_gen("P-256");
	X509_set_version(x, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(x), 77);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
	X509_NAME_add_entry_by_txt(X509_get_issuer_name(x), "CN", MBSTRING_ASC, (const unsigned char *)"ca", -1, -1, 0);
	X509_gmtime_adj(X509_getm_notBefore(x), -60);
	X509_gmtime_adj(X509_getm_notAfter(x), 86400);
	X509_set_pubkey(x, pkey == NULL ? ca_key : pkey);
	if (pkey == NULL) {
		e = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, "critical,CA:TRUE");
		X509_add_ext(x, e, -1);
		X509_EXTENSION_free(e);
	}
	assert_true(X509_sign(x, ca_key, EVP_sha256()) > 0);
	len = i2d_X509(x, &p);
	X509_free(x);
	return (size_t)len;
}

/* Certificates beside the key, by a search for all of them. */
static CK_ULONG count_certificates(CK_SESSION_HANDLE s)
{
	CK_ULONG n = 0, class = CKO_CERTIFICATE;
	CK_ATTRIBUTE t = {CKA_CLASS, &class, sizeof(class)};
	CK_OBJECT_HANDLE all[16];

	want(CKR_OK, p11_2->C_FindObjectsInit(s, &t, 1));
	want(CKR_OK, p11_2->C_FindObjects(s, all, 16, &n));
	want(CKR_OK, p11_2->C_FindObjectsFinal(s));
	return n;
}

/* The issuers' certificates come and go with what is installed, also where the leaf stays. */
static void test_chain_changes(void **state)
{
	CK_SESSION_HANDLE s = p11fix_session(p11fix_up(), 0);
	EVP_PKEY *pkey = public_of(s, p11fix_find(s, CKO_PUBLIC_KEY, "p256-soft"));
	unsigned char der[4096];
	size_t leaf = certificate(pkey, der), all = leaf + certificate(NULL, der + leaf);
	CK_OBJECT_HANDLE first;
	struct csm *csm;

	(void)state;
	assert_int_equal(csm_new(&csm), 0);
	assert_int_equal(count_certificates(s), 0);
	assert_int_equal(csm_cert_install(csm, "p256-soft", der, all), 0);
	assert_int_equal(count_certificates(s), 2);
	first = p11fix_find(s, CKO_CERTIFICATE, "p256-soft");
	assert_int_equal(count_certificates(s), 2);
	assert_int_equal(p11fix_find(s, CKO_CERTIFICATE, "p256-soft"), first);
	assert_true(p11fix_find(s, CKO_CERTIFICATE, "p256-soft (issuer 1)") != 0);
	sleep(1); /* csmd tells the second in which one was installed */
	assert_int_equal(csm_cert_install(csm, "p256-soft", der, leaf), 0);
	assert_int_equal(count_certificates(s), 1);
	assert_int_equal(csm_cert_delete(csm, "p256-soft"), 0);
	assert_int_equal(count_certificates(s), 0);
	EVP_PKEY_free(pkey);
	csm_free(csm);
	p11fix_down();
}

static void test_certificates(void **state)
{
	CK_SESSION_HANDLE s = p11fix_session(p11fix_up(), CKF_RW_SESSION);
	CK_ULONG class = CKO_CERTIFICATE;
	CK_BBOOL yes = CK_TRUE;
	CK_BYTE der[2048], got[2048], id[20], key_id[20];
	CK_ATTRIBUTE t[] = {{CKA_CLASS, &class, sizeof(class)}, {CKA_TOKEN, &yes, 1}, {CKA_VALUE, der, 0}};
	CK_ATTRIBUTE a[] = {{CKA_VALUE, got, sizeof(got)}, {CKA_ID, id, sizeof(id)}}, b = {CKA_ID, key_id, sizeof(key_id)};
	EVP_PKEY *pkey = public_of(s, p11fix_find(s, CKO_PUBLIC_KEY, "p256-soft"));
	CK_OBJECT_HANDLE o;

	(void)state;
	t[2].ulValueLen = certificate(pkey, der);
	assert_int_equal(p11fix_find(s, CKO_CERTIFICATE, "p256-soft"), 0);
	want(CKR_OK, p11_2->C_CreateObject(s, t, 3, &o));
	assert_int_equal(p11fix_find(s, CKO_CERTIFICATE, "p256-soft"), o);
	want(CKR_OK, p11_2->C_GetAttributeValue(s, o, a, 2));
	assert_int_equal(a[0].ulValueLen, t[2].ulValueLen);
	assert_memory_equal(got, der, t[2].ulValueLen);
	want(CKR_OK, p11_2->C_GetAttributeValue(s, p11fix_find(s, CKO_PRIVATE_KEY, "p256-soft"), &b, 1));
	assert_memory_equal(id, key_id, 20);
	der[t[2].ulValueLen] = 0;
	t[2].ulValueLen++;
	want(CKR_ATTRIBUTE_VALUE_INVALID, p11_2->C_CreateObject(s, t, 3, &o));
	want(CKR_TEMPLATE_INCOMPLETE, p11_2->C_CreateObject(s, t, 2, &o));
	o = p11fix_find(s, CKO_CERTIFICATE, "p256-soft");
	want(CKR_OK, p11_2->C_DestroyObject(s, o));
	assert_int_equal(p11fix_find(s, CKO_CERTIFICATE, "p256-soft"), 0);
	assert_true(p11fix_find(s, CKO_PRIVATE_KEY, "p256-soft") != 0);
	EVP_PKEY_free(pkey);
	p11fix_down();
}

/* By attributes that csmd does not know, and all of them. */
static void test_find(void **state)
{
	CK_SESSION_HANDLE s = p11fix_session(p11fix_up(), 0);
	CK_OBJECT_HANDLE key = p11fix_find(s, CKO_PRIVATE_KEY, "rsa-soft"), all[64];
	CK_BYTE id[20], modulus[512];
	CK_ATTRIBUTE a[] = {{CKA_ID, id, sizeof(id)}, {CKA_MODULUS, modulus, sizeof(modulus)}};
	CK_ULONG n, class = CKO_PUBLIC_KEY, ec = CKK_EC;
	CK_ATTRIBUTE none = {CKA_LABEL, (void *)(uintptr_t)"no such", 7}, odd = {CKA_LABEL, (void *)(uintptr_t)"a/b", 3},
		     ecs[] = {{CKA_CLASS, &class, sizeof(class)}, {CKA_KEY_TYPE, &ec, sizeof(ec)}};

	(void)state;
	want(CKR_OK, p11_2->C_GetAttributeValue(s, key, a, 2));
	want(CKR_OK, p11_2->C_FindObjectsInit(s, a, 2));
	want(CKR_OK, p11_2->C_FindObjects(s, all, 64, &n));
	assert_int_equal(n, 2);
	want(CKR_OK, p11_2->C_FindObjectsFinal(s));
	want(CKR_OK, p11_2->C_FindObjectsInit(s, &none, 1));
	want(CKR_OK, p11_2->C_FindObjects(s, all, 64, &n));
	assert_int_equal(n, 0);
	want(CKR_OK, p11_2->C_FindObjectsFinal(s));
	want(CKR_OK, p11_2->C_FindObjectsInit(s, &odd, 1));
	want(CKR_OK, p11_2->C_FindObjects(s, all, 64, &n));
	assert_int_equal(n, 0);
	want(CKR_OK, p11_2->C_FindObjectsFinal(s));
	want(CKR_OK, p11_2->C_FindObjectsInit(s, ecs, 2));
	want(CKR_OK, p11_2->C_FindObjects(s, all, 2, &n));
	assert_int_equal(n, 2);
	want(CKR_OK, p11_2->C_FindObjects(s, all, 64, &n));
	assert_int_equal(n, 2); /* of four */
	want(CKR_OK, p11_2->C_FindObjects(s, all, 64, &n));
	assert_int_equal(n, 0);
	want(CKR_OK, p11_2->C_FindObjectsFinal(s));
	p11fix_down();
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		P11FIX_TEST(test_ecdsa),
		P11FIX_TEST(test_rsa),
		P11FIX_TEST(test_ed25519),
		P11FIX_TEST(test_oaep),
		P11FIX_TEST(test_ecdh),
		P11FIX_TEST(test_find),
		P11FIX_TEST(test_certificates),
		P11FIX_TEST(test_chain_changes),
	};

	int failed;

	(void)argc;
	p11fix_main(argv, "tpm2", 150);
	p11fix_key("p256-soft", "p256", "soft", "sign,derive");
	p11fix_key("p384-soft", "p384", "soft", NULL);
	p11fix_key("p521-soft", "p521", "soft", "sign,derive");
	p11fix_key("rsa-soft", "rsa2048", "soft", NULL);
	p11fix_key("ed-soft", "ed25519", "soft", NULL);
	p11fix_key("p256-tpm2", "p256", "tpm2", "sign,derive");
	p11fix_key("rsa-tpm2", "rsa2048", "tpm2", NULL);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	EVP_PKEY_free(ca_key);
	return failed;
}
