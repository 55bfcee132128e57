#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sodium.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/node/keyinfo.h"

static uint8_t *spki;
static size_t spki_len;

static int setup(void **state)
{
	EVP_PKEY *k = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)4096);
	int n = k == NULL ? -1 : i2d_PUBKEY(k, &spki);

	(void)state;
	EVP_PKEY_free(k);
	spki_len = (size_t)n;
	return n > 0 ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	OPENSSL_free(spki);
	return 0;
}

static void expect_pem(struct csm_str pem)
{
	BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
	EVP_PKEY *k = PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL);
	uint8_t *der = NULL;
	int n = i2d_PUBKEY(k, &der);

	assert_int_equal(n, spki_len);
	assert_memory_equal(der, spki, spki_len);
	OPENSSL_free(der);
	EVP_PKEY_free(k);
	BIO_free(bio);
}

/* The longest public key there is fits, and openssl reads it. */
static void pem(void **state)
{
	char out[KEYINFO_PEM_MAX];
	struct csm_str got = {NULL, 0}, again;

	(void)state;
	assert_int_equal(keyinfo_pem((struct csm_bin){spki, spki_len}, out, sizeof(out), &got), 0);
	expect_pem(got);
	assert_ptr_equal(got.p, out);
	again = got;
	assert_int_equal(keyinfo_pem((struct csm_bin){spki, spki_len}, out, got.n, &got), 0);
	assert_int_equal(keyinfo_pem((struct csm_bin){spki, spki_len}, out, got.n - 1, &again), CSM_ETOO_LARGE);
	assert_int_equal(again.n, got.n); /* untouched */
}

static void facts(void **state)
{
	struct csm_key_record rec = {.backend = CSM_STR("soft"), .alg = CSM_ALG_RSA4096,
		.use = CSM_USE_SIGN | CSM_USE_DECRYPT, .exportable = true, .protection = CSM_STR("sealed"), .created = 12,
		.signatures = 34, .spki = {spki, spki_len}};
	uint8_t hash[crypto_hash_sha256_BYTES];
	char hex[2 * sizeof(hash) + 1];
	struct csm_msg_key_info info;
	struct keyinfo_space space;

	(void)state;
	assert_int_equal(keyinfo_fill(CSM_STR("web"), CSM_STR("k"), &rec, &space, &info), 0);
	assert_true(csm_str_eq(info.namespace, "web"));
	assert_true(csm_str_eq(info.name, "k"));
	assert_true(csm_str_eq(info.alg, "rsa4096"));
	assert_true(csm_str_eq(info.backend, "soft"));
	assert_true(csm_str_eq(info.protection, "sealed"));
	assert_int_equal(info.use.n, 2);
	assert_true(csm_str_eq(info.use.v[0], "sign"));
	assert_true(csm_str_eq(info.use.v[1], "decrypt"));
	assert_true(info.exportable.v);
	assert_int_equal(info.created.v, 12);
	assert_int_equal(info.signatures.v, 34);
	crypto_hash_sha256(hash, spki, spki_len);
	sodium_bin2hex(hex, sizeof(hex), hash, sizeof(hash));
	assert_true(csm_str_eq(info.spki_sha256, hex));
	expect_pem(info.public);
	rec.use = CSM_USE_SIGN | CSM_USE_DECRYPT | CSM_USE_DERIVE;
	assert_int_equal(keyinfo_fill(CSM_STR("web"), CSM_STR("k"), &rec, &space, &info), 0);
	assert_int_equal(info.use.n, 3);
	rec.use = CSM_USE_DERIVE;
	assert_int_equal(keyinfo_fill(CSM_STR("web"), CSM_STR("k"), &rec, &space, &info), 0);
	assert_int_equal(info.use.n, 1);
	assert_true(csm_str_eq(info.use.v[0], "derive"));
}

static void what_is_too_long_is_refused(void **state)
{
	static const uint8_t big[2000];
	struct csm_key_record rec = {.alg = CSM_ALG_P256, .spki = {big, sizeof(big)}};
	struct csm_msg_key_info info;
	struct keyinfo_space space;

	(void)state;
	assert_int_equal(keyinfo_fill(CSM_STR("a"), CSM_STR("b"), &rec, &space, &info), CSM_ETOO_LARGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pem),
		cmocka_unit_test(facts),
		cmocka_unit_test(what_is_too_long_is_refused),
	};

	alarm(60);
	return cmocka_run_group_tests(tests, setup, teardown);
}
