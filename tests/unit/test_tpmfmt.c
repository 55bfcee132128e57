/* Forms of a TPM without one: Names, the wrap undone by hand, and statements with each part wrong. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <tss2/tss2_mu.h>
#include "libclient/tpmfmt/attest.h"

#define BORN_HERE (TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN | TPMA_OBJECT_USERWITHAUTH)

static EVP_PKEY *new_key(const char *group)
{
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", group);

	assert_non_null(key);
	return key;
}

/* An ECC public area of a key of openssl's. */
static void public_of(EVP_PKEY *key, TPMI_ECC_CURVE curve, TPMA_OBJECT attributes, TPMT_PUBLIC *pub)
{
	size_t len = csm_tpm_curve_len(curve);
	BIGNUM *x = NULL, *y = NULL;

	memset(pub, 0, sizeof(*pub));
	pub->type = TPM2_ALG_ECC;
	pub->nameAlg = curve == TPM2_ECC_NIST_P384 ? TPM2_ALG_SHA384 : TPM2_ALG_SHA256;
	pub->objectAttributes = attributes;
	pub->parameters.eccDetail.symmetric.algorithm = TPM2_ALG_NULL;
	pub->parameters.eccDetail.scheme.scheme = TPM2_ALG_NULL;
	pub->parameters.eccDetail.kdf.scheme = TPM2_ALG_NULL;
	pub->parameters.eccDetail.curveID = curve;
	if ((attributes & TPMA_OBJECT_DECRYPT) != 0) {
		pub->parameters.eccDetail.symmetric = (TPMT_SYM_DEF_OBJECT){.algorithm = TPM2_ALG_AES,
			.keyBits.aes = curve == TPM2_ECC_NIST_P384 ? 256 : 128, .mode.aes = TPM2_ALG_CFB};
	} else if ((attributes & TPMA_OBJECT_RESTRICTED) != 0) {
		pub->parameters.eccDetail.scheme.scheme = TPM2_ALG_ECDSA;
		pub->parameters.eccDetail.scheme.details.ecdsa.hashAlg = TPM2_ALG_SHA256;
	}
	assert_int_equal(EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_EC_PUB_X, &x), 1);
	assert_int_equal(EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_EC_PUB_Y, &y), 1);
	pub->unique.ecc.x.size = pub->unique.ecc.y.size = (UINT16)len;
	assert_int_equal(BN_bn2binpad(x, pub->unique.ecc.x.buffer, (int)len), (int)len);
	assert_int_equal(BN_bn2binpad(y, pub->unique.ecc.y.buffer, (int)len), (int)len);
	BN_free(x);
	BN_free(y);
}

static void names(void **state)
{
	EVP_PKEY *key = new_key("P-256");
	uint8_t raw[sizeof(TPMT_PUBLIC)], digest[32];
	TPMT_PUBLIC pub, again;
	TPM2B_NAME name;
	size_t n = 0;

	(void)state;
	public_of(key, TPM2_ECC_NIST_P256, BORN_HERE | TPMA_OBJECT_SIGN_ENCRYPT, &pub);
	assert_int_equal(Tss2_MU_TPMT_PUBLIC_Marshal(&pub, raw, sizeof(raw), &n), 0);
	assert_int_equal(csm_tpm_name(&pub, &name), 0);
	SHA256(raw, n, digest);
	assert_int_equal(name.size, 34);
	assert_memory_equal(name.name, "\x00\x0b", 2);
	assert_memory_equal(name.name + 2, digest, 32);
	assert_int_equal(csm_tpm_public_parse(raw, n, &again), 0);
	assert_int_equal(again.objectAttributes, pub.objectAttributes);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(csm_tpm_public_parse(raw, i, &again), CSM_EINVALID);
	raw[n] = 0;
	assert_int_equal(csm_tpm_public_parse(raw, n + 1, &again), CSM_EINVALID);
	pub.nameAlg = TPM2_ALG_SHA1;
	assert_int_equal(csm_tpm_name(&pub, &name), CSM_EUNSUPPORTED);
	EVP_PKEY_free(key);
}

/* ---- the wrap, undone as a TPM does it, with code of the test's own ---- */

static void mac_of(const EVP_MD *md, const uint8_t *key, size_t key_n, const uint8_t *a, size_t a_n, uint8_t *out)
{
	unsigned n = 0;

	assert_non_null(HMAC(md, key, (int)key_n, a, a_n, out, &n));
}

/* KDFa: counter 1, label with its NUL, context, bits. */
static void kdf_a(const EVP_MD *md, const uint8_t *seed, const char *label, const uint8_t *u, size_t u_n, unsigned bits, uint8_t *out)
{
	uint8_t text[256] = {0, 0, 0, 1};
	size_t n = 4;

	memcpy(text + n, label, strlen(label) + 1);
	n += strlen(label) + 1;
	memcpy(text + n, u, u_n);
	n += u_n;
	text[n++] = 0;
	text[n++] = 0;
	text[n++] = (uint8_t)(bits >> 8);
	text[n++] = (uint8_t)bits;
	mac_of(md, seed, (size_t)EVP_MD_get_size(md), text, n, out);
}

static void unwrap(EVP_PKEY *own, const TPMT_PUBLIC *to, const char *label, const TPM2B_NAME *name, const uint8_t *blob, size_t n,
	const TPM2B_ENCRYPTED_SECRET *secret, uint8_t *plain, bool *good)
{
	const EVP_MD *md = to->nameAlg == TPM2_ALG_SHA384 ? EVP_sha384() : EVP_sha256();
	size_t hash = (size_t)EVP_MD_get_size(md), len = csm_tpm_curve_len(to->parameters.eccDetail.curveID), z_n = 66, k;
	uint8_t z[66], text[512] = {0, 0, 0, 1}, seed[64], key[64], mac[64];
	TPMT_PUBLIC peer = *to;
	EVP_PKEY *other;
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, own, NULL);
	EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
	int got;

	assert_int_equal(secret->size, 2 * (2 + len));
	memcpy(peer.unique.ecc.x.buffer, secret->secret + 2, len);
	memcpy(peer.unique.ecc.y.buffer, secret->secret + 4 + len, len);
	assert_int_equal(csm_tpm_public_evp(&peer, &other), 0);
	assert_int_equal(EVP_PKEY_derive_init(ctx), 1);
	assert_int_equal(EVP_PKEY_derive_set_peer(ctx, other), 1);
	assert_int_equal(EVP_PKEY_derive(ctx, z, &z_n), 1);
	k = 4;
	memcpy(text + k, z, z_n);
	k += z_n;
	memcpy(text + k, label, strlen(label) + 1);
	k += strlen(label) + 1;
	memcpy(text + k, secret->secret + 2, len);
	memcpy(text + k + len, to->unique.ecc.x.buffer, len);
	assert_int_equal(EVP_Digest(text, k + 2 * len, seed, NULL, md, NULL), 1);
	/* HMAC over the encrypted data and the Name */
	kdf_a(md, seed, "INTEGRITY", (const uint8_t *)"", 0, (unsigned)hash * 8, key);
	memcpy(text, blob + 2 + hash, n - 2 - hash);
	memcpy(text + n - 2 - hash, name->name, name->size);
	mac_of(md, key, hash, text, n - 2 - hash + name->size, mac);
	*good = blob[0] == 0 && blob[1] == hash && memcmp(mac, blob + 2, hash) == 0;
	kdf_a(md, seed, "STORAGE", name->name, name->size, hash == 48 ? 256 : 128, key);
	assert_int_equal(EVP_DecryptInit_ex(cipher, hash == 48 ? EVP_aes_256_cfb128() : EVP_aes_128_cfb128(), NULL, key,
				 (const uint8_t[16]){0}), 1);
	assert_int_equal(EVP_DecryptUpdate(cipher, plain, &got, blob + 2 + hash, (int)(n - 2 - hash)), 1);
	EVP_CIPHER_CTX_free(cipher);
	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(other);
}

static void wraps(const char *group, TPMI_ECC_CURVE curve)
{
	EVP_PKEY *own = new_key(group);
	const TPM2B_NAME name = {.size = 34, .name = {0, 0x0b, 7}}, other = {.size = 34, .name = {0, 0x0b, 8}};
	uint8_t data[100], blob[300], plain[300];
	TPM2B_ENCRYPTED_SECRET secret;
	TPMT_PUBLIC to;
	size_t n = 0;
	bool good;

	assert_int_equal(RAND_bytes(data, sizeof(data)), 1);
	public_of(own, curve, BORN_HERE | TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT, &to);
	assert_int_equal(csm_tpm_wrap(&to, "DUPLICATE", &name, data, sizeof(data), blob, sizeof(blob), &n, &secret), 0);
	unwrap(own, &to, "DUPLICATE", &name, blob, n, &secret, plain, &good);
	assert_true(good);
	assert_memory_equal(plain, data, sizeof(data));
	/* For another object, or another purpose, it is nothing. */
	unwrap(own, &to, "DUPLICATE", &other, blob, n, &secret, plain, &good);
	assert_false(good);
	unwrap(own, &to, "IDENTITY", &name, blob, n, &secret, plain, &good);
	assert_false(good);
	/* No room, and keys that take none. */
	assert_int_equal(csm_tpm_wrap(&to, "DUPLICATE", &name, data, sizeof(data), blob, n - 1, &n, &secret), CSM_ETOO_LARGE);
	to.parameters.eccDetail.symmetric.algorithm = TPM2_ALG_NULL;
	assert_int_equal(csm_tpm_wrap(&to, "DUPLICATE", &name, data, sizeof(data), blob, sizeof(blob), &n, &secret), CSM_EUNSUPPORTED);
	EVP_PKEY_free(own);
}

static void the_wrap_opens_for_its_key_name_and_purpose(void **state)
{
	(void)state;
	wraps("P-256", TPM2_ECC_NIST_P256);
	wraps("P-384", TPM2_ECC_NIST_P384);
}

/* A point that is not on its curve would tell something of the other's private half. */
static void a_point_off_the_curve_is_refused(void **state)
{
	EVP_PKEY *own = new_key("P-256");
	uint8_t seed[CSM_TPM_SEED_MAX];
	TPM2B_ENCRYPTED_SECRET secret;
	TPMT_PUBLIC to;
	size_t n;

	(void)state;
	public_of(own, TPM2_ECC_NIST_P256, BORN_HERE | TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT, &to);
	assert_int_equal(csm_tpm_seed(&to, "IDENTITY", seed, &n, &secret), 0);
	to.unique.ecc.y.buffer[31] ^= 1;
	assert_int_not_equal(csm_tpm_seed(&to, "IDENTITY", seed, &n, &secret), 0);
	EVP_PKEY_free(own);
}

/* ---- statements, made by a program with everything in hand ---- */

struct made {
	EVP_PKEY *key, *ak, *ek;
	TPMT_PUBLIC key_pub, ak_pub, ek_pub;
	TPMS_ATTEST attest;
	struct csm_buf b;
};

static struct csm_bin marshal(const TPMT_PUBLIC *pub, uint8_t *raw)
{
	size_t n = 0;

	assert_int_equal(Tss2_MU_TPMT_PUBLIC_Marshal(pub, raw, sizeof(TPMT_PUBLIC), &n), 0);
	return (struct csm_bin){raw, n};
}

static void sign(EVP_PKEY *key, struct csm_bin data, TPMT_SIGNATURE *sig)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	uint8_t der[128];
	const uint8_t *p = der;
	size_t n = sizeof(der);
	ECDSA_SIG *es;

	assert_int_equal(EVP_DigestSignInit_ex(ctx, NULL, "SHA256", NULL, NULL, key, NULL), 1);
	assert_int_equal(EVP_DigestSign(ctx, der, &n, data.p, data.n), 1);
	es = d2i_ECDSA_SIG(NULL, &p, (long)n);
	assert_non_null(es);
	memset(sig, 0, sizeof(*sig));
	sig->sigAlg = TPM2_ALG_ECDSA;
	sig->signature.ecdsa.hash = TPM2_ALG_SHA256;
	sig->signature.ecdsa.signatureR.size = sig->signature.ecdsa.signatureS.size = 32;
	assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_r(es), sig->signature.ecdsa.signatureR.buffer, 32), 32);
	assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_s(es), sig->signature.ecdsa.signatureS.buffer, 32), 32);
	ECDSA_SIG_free(es);
	EVP_MD_CTX_free(ctx);
}

static void make(struct made *m)
{
	m->key = new_key("P-256");
	m->ak = new_key("P-256");
	m->ek = new_key("P-256");
	public_of(m->key, TPM2_ECC_NIST_P256, BORN_HERE | TPMA_OBJECT_SIGN_ENCRYPT, &m->key_pub);
	public_of(m->ak, TPM2_ECC_NIST_P256, BORN_HERE | TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_SIGN_ENCRYPT, &m->ak_pub);
	public_of(m->ek, TPM2_ECC_NIST_P256, BORN_HERE | TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT, &m->ek_pub);
	m->attest = (TPMS_ATTEST){.magic = TPM2_GENERATED_VALUE, .type = TPM2_ST_ATTEST_CERTIFY, .extraData = {3, {1, 2, 3}}};
	assert_int_equal(csm_tpm_name(&m->key_pub, &m->attest.attested.certify.name), 0);
	csm_buf_init(&m->b, CSM_ATTESTATION_MAX, false);
}

static void made_free(struct made *m)
{
	EVP_PKEY_free(m->key);
	EVP_PKEY_free(m->ak);
	EVP_PKEY_free(m->ek);
	csm_buf_free(&m->b);
}

struct found {
	const char *failed;
	unsigned n;
};

static void on_check(void *arg, const char *check, enum csm_attest_outcome outcome, const char *text)
{
	struct found *f = arg;

	assert_non_null(text);
	if (outcome == CSM_ATTEST_FAILED) {
		f->failed = check;
		f->n++;
	}
}

/* Signed by `by`, encoded, parsed and checked: NULL, or the one check that failed. */
static const char *judge(struct made *m, EVP_PKEY *by, const struct csm_attest_want *want)
{
	uint8_t pub[sizeof(TPMT_PUBLIC)], ak[sizeof(TPMT_PUBLIC)], ek[sizeof(TPMT_PUBLIC)], att[sizeof(TPMS_ATTEST)],
		sig[sizeof(TPMT_SIGNATURE)];
	struct csm_msg_attestation msg = {.version = {1, true}, .type = CSM_STR("tpm2")};
	struct csm_attestation a;
	struct found found = {NULL, 0};
	const char *what;
	TPMT_SIGNATURE s;
	size_t att_n = 0, sig_n = 0;
	bool good;

	assert_int_equal(Tss2_MU_TPMS_ATTEST_Marshal(&m->attest, att, sizeof(att), &att_n), 0);
	msg.attest = (struct csm_bin){att, att_n};
	sign(by, msg.attest, &s);
	assert_int_equal(Tss2_MU_TPMT_SIGNATURE_Marshal(&s, sig, sizeof(sig), &sig_n), 0);
	msg.signature = (struct csm_bin){sig, sig_n};
	msg.public = marshal(&m->key_pub, pub);
	msg.ak_public = marshal(&m->ak_pub, ak);
	msg.ek_public = marshal(&m->ek_pub, ek);
	csm_buf_reset(&m->b);
	assert_int_equal(csm_msg_encode(CSM_DEF(attestation), &msg, &m->b), 0);
	assert_int_equal(csm_attest_parse(csm_buf_ptr(&m->b), m->b.len, &a, &what), 0);
	good = csm_attest_check(&a, want, on_check, &found);
	assert_true(good == (found.n == 0) && found.n <= 1);
	csm_attest_clear(&a);
	return found.failed;
}

static void each_part_is_looked_at(void **state)
{
	static const uint8_t nonce[3] = {1, 2, 3};
	struct csm_attest_want want = {.nonce = nonce, .nonce_len = 3, .unproven = true};
	struct made m;

	(void)state;
	make(&m);
	want.key = m.key;
	want.ak = m.ak;
	assert_null(judge(&m, m.ak, &want));
	assert_string_equal(judge(&m, m.key, &want), "signature");
	m.attest.magic ^= 1;
	assert_string_equal(judge(&m, m.ak, &want), "magic");
	m.attest.magic ^= 1;
	m.attest.attested.certify.name.name[33] ^= 1;
	assert_string_equal(judge(&m, m.ak, &want), "name");
	m.attest.attested.certify.name.name[33] ^= 1;
	want.nonce_len = 2;
	assert_string_equal(judge(&m, m.ak, &want), "nonce");
	want.nonce_len = 3;
	want.key = m.ek;
	assert_string_equal(judge(&m, m.ak, &want), "key");
	want.key = m.key;
	want.ak = m.ek;
	assert_string_equal(judge(&m, m.ak, &want), "ak-pin");
	want.ak = NULL;
	for (size_t i = 0; i < 5; i++) {
		static const TPMA_OBJECT turned[] = {TPMA_OBJECT_RESTRICTED, TPMA_OBJECT_FIXEDTPM, TPMA_OBJECT_FIXEDPARENT,
			TPMA_OBJECT_SENSITIVEDATAORIGIN, TPMA_OBJECT_DECRYPT};

		m.ak_pub.objectAttributes ^= turned[i];
		assert_string_equal(judge(&m, m.ak, &want), "ak");
		m.ak_pub.objectAttributes ^= turned[i];
	}
	assert_null(judge(&m, m.ak, &want));
	/* A program can make all of it up: unless that is good enough, something has to tie it to a TPM. */
	want.unproven = false;
	assert_string_equal(judge(&m, m.ak, &want), "link");
	want.ak = m.ak;
	assert_null(judge(&m, m.ak, &want));
	made_free(&m);
}

/* The key's attributes are in its Name: a statement about a lesser key is one of its own. */
static void a_lesser_key_is_refused(void **state)
{
	struct csm_attest_want want = {.unproven = true};
	struct made m;

	(void)state;
	make(&m);
	m.key_pub.objectAttributes &= ~(TPMA_OBJECT)TPMA_OBJECT_SENSITIVEDATAORIGIN;
	assert_int_equal(csm_tpm_name(&m.key_pub, &m.attest.attested.certify.name), 0);
	assert_string_equal(judge(&m, m.ak, &want), "origin");
	made_free(&m);
}

static void the_proof_is_of_both_names_and_the_secret(void **state)
{
	struct csm_msg_attest_challenge challenge;
	struct csm_msg_attest_secret secret;
	struct csm_attest_want want = {.unproven = true};
	struct csm_msg_attest_proof proof = {.version = {1, true}};
	struct csm_attest_space space;
	struct csm_attestation a;
	uint8_t text[200], mac[32], plain[200];
	const char *what;
	size_t n = sizeof(CSM_ATTEST_PROOF_TEXT);
	struct made m;
	bool good;

	(void)state;
	make(&m);
	assert_null(judge(&m, m.ak, &want));
	assert_int_equal(csm_attest_parse(csm_buf_ptr(&m.b), m.b.len, &a, &what), 0);
	assert_int_equal(csm_attest_challenge(&a, &space, &challenge, &secret), 0);
	/* The TPM's side. */
	unwrap(m.ek, &m.ek_pub, "IDENTITY", &a.ak_name, challenge.credential.p, challenge.credential.n, &space.seed, plain, &good);
	assert_true(good);
	assert_memory_equal(plain, "\x00\x20", 2);
	memcpy(text, CSM_ATTEST_PROOF_TEXT, n);
	memcpy(text + n, a.ak_name.name, 34);
	memcpy(text + n + 34, a.ek_name.name, 34);
	mac_of(EVP_sha256(), plain + 2, 32, text, n + 68, mac);
	proof.ak_name = challenge.ak_name;
	proof.ek_name = challenge.ek_name;
	proof.proof = (struct csm_bin){mac, 32};
	want.secret = &secret;
	want.proof = &proof;
	assert_null(judge(&m, m.ak, &want));
	/* The proof ties it to an endorsement key that nobody vouches for. */
	want.unproven = false;
	assert_string_equal(judge(&m, m.ak, &want), "link");
	want.unproven = true;
	mac[0] ^= 1;
	assert_string_equal(judge(&m, m.ak, &want), "link");
	mac[0] ^= 1;
	space.secret[0] ^= 1;
	assert_string_equal(judge(&m, m.ak, &want), "link");
	space.secret[0] ^= 1;
	/* Of the same TPM, but for another attestation key. */
	public_of(m.key, TPM2_ECC_NIST_P256, m.ak_pub.objectAttributes, &m.ak_pub);
	assert_string_equal(judge(&m, m.key, &want), "link");
	csm_attest_clear(&a);
	made_free(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),
		cmocka_unit_test(the_wrap_opens_for_its_key_name_and_purpose),
		cmocka_unit_test(a_point_off_the_curve_is_refused),
		cmocka_unit_test(each_part_is_looked_at),
		cmocka_unit_test(a_lesser_key_is_refused),
		cmocka_unit_test(the_proof_is_of_both_names_and_the_secret),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
