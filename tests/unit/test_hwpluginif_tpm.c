/* Both ways of the hardware plugin interface on each other: csm's host over csm's library, with keys of a TPM. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <openssl/x509.h>
#include "plugins/include/csm_alg.h"
#include "tests/lib/hwfix.h"
#include "tests/lib/tpm2_env.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

static const struct csm_plugin *const hw = &csm_plugin_hwpluginif;
static const struct csm_scheme all[] = {
	{CSM_SCHEME_RSA_PKCS1, CSM_HASH_SHA256}, {CSM_SCHEME_RSA_PKCS1, CSM_HASH_SHA384},
	{CSM_SCHEME_RSA_PKCS1, CSM_HASH_SHA512}, {CSM_SCHEME_RSA_PSS, CSM_HASH_SHA256},
	{CSM_SCHEME_RSA_PSS, CSM_HASH_SHA384}, {CSM_SCHEME_RSA_PSS, CSM_HASH_SHA512}};

static struct hwfix f;
static struct tpm2_env e;
static struct tpm2_key made[4];

static void key_folder(unsigned i, const struct tpm2_key *k)
{
	char name[64];

	snprintf(name, sizeof(name), "S01tpm/key0%u", i + 1);
	hwfix_folder(&f, name);
	snprintf(name, sizeof(name), "S01tpm/key0%u/Kfile1.pub", i + 1);
	hwfix_file(&f, name, k->pub, k->pub_len);
	snprintf(name, sizeof(name), "S01tpm/key0%u/Kfile1.priv", i + 1);
	hwfix_file(&f, name, k->priv, k->priv_len);
}

/* build/asan of build/asan/tests/unit/test_x: the library is of this variant, so that what it leaks is told. */
static void library(char *out, size_t cap)
{
	char self[512];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *at;

	assert_true(n > 0);
	self[n] = '\0';
	at = strstr(self, "/tests/unit/");
	assert_non_null(at);
	*at = '\0';
	snprintf(out, cap, "%.400s/lib/csm/hwplugin/csm-tpm2-hwplugin.so", self);
}

static int set_up(void **state)
{
	(void)state;
	tpm2_env_start(&e);
	for (unsigned i = 0; i < N_ELEMS(made); i++) {
		unsigned use = i == 0 ? CSM_USE_SIGN : CSM_USE_SIGN | CSM_USE_DECRYPT;

		assert_int_equal(tpm2_key_generate(&e, CSM_ALG_RSA2048, use, &made[i]), 0);
	}
	tpm2_env_close(&e);
	assert_int_equal(setenv("CSM_TPM_TCTI", e.tpm->tcti, 1), 0);
	hwfix_make(&f);
	hwfix_folder(&f, "S01tpm");
	hwfix_folder(&f, "S01tpm/activate");
	hwfix_file(&f, "S01tpm/activate/Afile1.id1", "0x81000001\n", 11);
	for (unsigned i = 0; i < N_ELEMS(made); i++)
		key_folder(i, &made[i]);
	library(f.module, sizeof(f.module));
	snprintf(f.slot, sizeof(f.slot), "S01tpm");
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	hwfix_free(&f);
	tpm2_env_stop(&e);
	return 0;
}

static void take(unsigned i, struct hwfix_loaded *k)
{
	char ref[32];

	snprintf(ref, sizeof(ref), "S01tpm/key0%u", i + 1);
	assert_int_equal(hwfix_find(&f, ref, k), 0);
	assert_int_equal(k->spki_len, made[i].spki_len);
	assert_memory_equal(k->spki, made[i].spki, k->spki_len);
	assert_int_equal(hwfix_load(&f, k), 0);
}

static int sign(struct hwfix_loaded *k, const struct csm_scheme *s)
{
	const uint8_t *at = k->spki;
	EVP_PKEY *pkey = d2i_PUBKEY(NULL, &at, (long)k->spki_len);
	uint8_t digest[64], p[1024];
	struct csm_plugin_out sig = {p, sizeof(p), 0};
	int r;

	memset(digest, 0x3c, sizeof(digest));
	if ((r = hw->sign(f.ctx, k->key, s, digest, csm_hash_size(s->hash), &sig)) == 0)
		assert_true(hwfix_verifies(pkey, *s, digest, p, sig.len));
	EVP_PKEY_free(pkey);
	return r;
}

static void keys_of_the_tpm_sign(void **state)
{
	struct hwfix_loaded k[N_ELEMS(made)] = {0};

	(void)state;
	hwfix_open(&f);
	for (unsigned i = 0; i < N_ELEMS(made); i++)
		take(i, &k[i]);
	/* More keys than the TPM has slots, in any order. */
	for (unsigned n = 0; n < 4 * N_ELEMS(all); n++)
		assert_int_equal(sign(&k[n % N_ELEMS(made)], &all[n / 4]), 0);
	for (unsigned i = 0; i < N_ELEMS(made); i++)
		hwfix_unload(&f, &k[i]);
	hwfix_close(&f);
}

/* The TPM restarts, and is away for a while: then it is unavailable, and back by itself. */
static void tpm_away_and_back(void **state)
{
	struct hwfix_loaded k = {0};

	(void)state;
	hwfix_open(&f);
	take(1, &k);
	assert_int_equal(sign(&k, &all[0]), 0);
	swtpm_kill(e.tpm);
	assert_int_equal(swtpm_restart(e.tpm), 0);
	assert_int_equal(sign(&k, &all[0]), 0);
	swtpm_kill(e.tpm);
	assert_int_equal(sign(&k, &all[0]), CSM_EUNAVAILABLE);
	assert_int_equal(swtpm_restart(e.tpm), 0);
	usleep(1100 * 1000);
	assert_int_equal(sign(&k, &all[0]), 0);
	hwfix_unload(&f, &k);
}

/* Nothing of the library's stays in the TPM. */
static void nothing_stays_in_the_tpm(void **state)
{
	struct tpm2_other o;
	TPM2_HANDLE h[8];

	(void)state;
	hwfix_close(&f);
	tpm2_other_open(&o, e.tpm);
	assert_int_equal(tpm2_other_handles(&o, TRANSIENT_OBJECTS, h, 8), 0);
	assert_int_equal(tpm2_other_handles(&o, LOADED_SESSIONS, h, 8), 0);
	tpm2_other_close(&o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_of_the_tpm_sign),
		cmocka_unit_test(tpm_away_and_back),
		cmocka_unit_test(nothing_stays_in_the_tpm),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
