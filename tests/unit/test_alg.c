#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "plugins/include/csm_alg.h"

static const char *const alg_names[] = {"p256", "p384", "p521", "rsa2048", "rsa3072", "rsa4096", "ed25519"};
static const char *const scheme_names[] = {
	"ecdsa-sha256",
	"ecdsa-sha384",
	"ecdsa-sha512",
	"rsa-pkcs1-sha256",
	"rsa-pkcs1-sha384",
	"rsa-pkcs1-sha512",
	"rsa-pss-sha256",
	"rsa-pss-sha384",
	"rsa-pss-sha512",
	"ed25519",
	"rsa-oaep-sha256",
	"rsa-oaep-sha384",
	"rsa-oaep-sha512",
};

static void names_round_trip(void **state)
{
	(void)state;
	for (size_t i = 0; i < CSM_ALG__COUNT; i++) {
		enum csm_alg alg = CSM_ALG__COUNT;

		assert_int_equal(csm_alg_parse(csm_str_of(alg_names[i]), &alg), 0);
		assert_int_equal(alg, i);
		assert_string_equal(csm_alg_name(alg), alg_names[i]);
	}
	for (size_t i = 0; i < sizeof(scheme_names) / sizeof(scheme_names[0]); i++) {
		struct csm_scheme s;

		assert_int_equal(csm_scheme_parse(csm_str_of(scheme_names[i]), &s), 0);
		assert_string_equal(csm_scheme_name(&s), scheme_names[i]);
	}
	for (unsigned u = CSM_USE_SIGN; u <= CSM_USE_DERIVE; u <<= 1) {
		unsigned back = 0;

		assert_int_equal(csm_use_parse(csm_str_of(csm_use_name(u)), &back), 0);
		assert_int_equal(back, u);
	}
}

static void other_names_are_refused(void **state)
{
	static const struct csm_str bad[] = {
		{"", 0},
		{"p25", 3},
		{"p2566", 5},
		{"P256", 4},
		{"p256\0", 5},
		{"rsa1024", 7},
		{"ecdsa", 5},
		{"ecdsa-sha1", 10},
		{"rsa-pss-", 8},
		{"rsa-oaep-sha1", 13},
		{"unknown", 7},
		{NULL, 0},
	};
	enum csm_alg alg = CSM_ALG_P521;
	struct csm_scheme s = {CSM_SCHEME_RSA_PSS, CSM_HASH_SHA384};
	unsigned use = 77;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(csm_alg_parse(bad[i], &alg), CSM_EINVALID);
		assert_int_equal(csm_scheme_parse(bad[i], &s), CSM_EINVALID);
		assert_int_equal(csm_use_parse(bad[i], &use), CSM_EINVALID);
	}
	assert_int_equal(alg, CSM_ALG_P521);
	assert_int_equal(s.kind, CSM_SCHEME_RSA_PSS);
	assert_int_equal(use, 77);
	assert_string_equal(csm_alg_name(CSM_ALG__COUNT), "unknown");
	assert_string_equal(csm_scheme_name(&(struct csm_scheme){CSM_SCHEME_ECDSA, CSM_HASH_NONE}), "unknown");
	assert_string_equal(csm_use_name(0), "unknown");
}

static void uses_fit_the_algorithm(void **state)
{
	(void)state;
	for (unsigned alg = 0; alg < CSM_ALG__COUNT; alg++) {
		assert_int_equal(csm_alg_check_use(alg, csm_alg_default_use(alg)), 0);
		assert_int_equal(csm_alg_check_use(alg, 0), CSM_EINVALID);
		assert_int_equal(csm_alg_check_use(alg, 8), CSM_EINVALID);
		assert_int_equal(csm_alg_check_use(alg, CSM_USE_DECRYPT), csm_alg_is_rsa(alg) ? 0 : CSM_EINVALID);
		assert_int_equal(csm_alg_check_use(alg, CSM_USE_DERIVE), csm_alg_is_ec(alg) ? 0 : CSM_EINVALID);
		assert_false(csm_alg_is_rsa(alg) && csm_alg_is_ec(alg));
	}
	assert_int_equal(csm_alg_default_use(CSM_ALG_RSA2048), CSM_USE_SIGN | CSM_USE_DECRYPT);
	assert_int_equal(csm_alg_default_use(CSM_ALG_P256), CSM_USE_SIGN);
	assert_int_equal(csm_alg_default_use(CSM_ALG__COUNT), 0);
	assert_int_equal(csm_alg_check_use(CSM_ALG__COUNT, CSM_USE_SIGN), CSM_EINVALID);
}

static void schemes_fit_the_algorithm(void **state)
{
	(void)state;
	for (unsigned alg = 0; alg < CSM_ALG__COUNT; alg++) {
		struct csm_scheme def = csm_scheme_default(alg);
		unsigned fits = 0;

		assert_int_equal(csm_scheme_check(alg, &def), 0);
		for (size_t i = 0; i < sizeof(scheme_names) / sizeof(scheme_names[0]); i++) {
			struct csm_scheme s;

			assert_int_equal(csm_scheme_parse(csm_str_of(scheme_names[i]), &s), 0);
			if (csm_scheme_check(alg, &s) == 0)
				fits++;
		}
		assert_int_equal(fits, csm_alg_is_rsa(alg) ? 9 : csm_alg_is_ec(alg) ? 3 : 1);
		assert_int_equal(
			csm_scheme_check(alg, &(struct csm_scheme){CSM_SCHEME_ED25519, CSM_HASH_SHA256}), CSM_EINVALID);
		assert_int_equal(
			csm_scheme_check(alg, &(struct csm_scheme){CSM_SCHEME_ECDSA, CSM_HASH_NONE}), CSM_EINVALID);
	}
	assert_int_equal(csm_scheme_default(CSM_ALG_P521).hash, CSM_HASH_SHA512);
	assert_int_equal(csm_scheme_check(CSM_ALG__COUNT, &(struct csm_scheme){CSM_SCHEME_ECDSA, CSM_HASH_SHA256}),
		CSM_EINVALID);
}

static void hashes(void **state)
{
	(void)state;
	assert_int_equal(csm_hash_size(CSM_HASH_SHA384), 48);
	assert_string_equal(csm_hash_name(CSM_HASH_SHA512), "SHA512");
	assert_int_equal(csm_hash_size(CSM_HASH_NONE), 0);
	assert_null(csm_hash_name(CSM_HASH_NONE));
	assert_null(csm_hash_name((enum csm_hash)99));
}

static void bits_of_rsa(void **state)
{
	enum csm_alg alg = CSM_ALG__COUNT;

	(void)state;
	assert_int_equal(csm_alg_of_rsa_bits(2048, &alg), 0);
	assert_int_equal(alg, CSM_ALG_RSA2048);
	assert_int_equal(csm_alg_of_rsa_bits(3072, &alg), 0);
	assert_int_equal(alg, CSM_ALG_RSA3072);
	assert_int_equal(csm_alg_of_rsa_bits(4096, &alg), 0);
	assert_int_equal(alg, CSM_ALG_RSA4096);
	alg = CSM_ALG__COUNT;
	assert_int_equal(csm_alg_of_rsa_bits(1024, &alg), CSM_EUNSUPPORTED);
	assert_int_equal(csm_alg_of_rsa_bits(-1, &alg), CSM_EUNSUPPORTED);
	assert_int_equal(alg, CSM_ALG__COUNT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bits_of_rsa),
		cmocka_unit_test(names_round_trip),
		cmocka_unit_test(other_names_are_refused),
		cmocka_unit_test(uses_fit_the_algorithm),
		cmocka_unit_test(schemes_fit_the_algorithm),
		cmocka_unit_test(hashes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
