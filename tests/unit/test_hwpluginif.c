/* The host of hardware plugins, over a library that knows nothing of csm (tests/interop/hwplugin). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include <openssl/x509.h>
#include "plugins/include/csm_alg.h"
#include "tests/lib/hwfix.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

static const struct csm_plugin *const hw = &csm_plugin_hwpluginif;
static const struct csm_scheme pkcs = {CSM_SCHEME_RSA_PKCS1, CSM_HASH_SHA256}, pss = {CSM_SCHEME_RSA_PSS, CSM_HASH_SHA384};

static struct hwfix f;
static struct hwfix_loaded k[HWFIX_KEYS];

static int set_up(void **state)
{
	(void)state;
	hwfix_make(&f);
	memset(k, 0, sizeof(k));
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	hwfix_free(&f);
	return 0;
}

/* ---- the interface ---- */

static void every_callback_in_its_order(void **state)
{
	struct csm_plugin_op *op;
	uint8_t p[1024];
	struct csm_plugin_out sig = {p, sizeof(p), 0};

	(void)state;
	hwfix_open_with(&f, 0);
	assert_string_equal(hwfix_calls(&f), "init activate ");
	hwfix_calls(&f)[0] = '\0';
	hwfix_take(&f, "S01lib/key01", 0, &k[0]);
	assert_string_equal(hwfix_calls(&f), "load_key sign_init sign unload_key load_key ");
	hwfix_calls(&f)[0] = '\0';
	assert_int_equal(hwfix_sign(&f, &k[0], 0, pkcs), 0);
	assert_string_equal(hwfix_calls(&f), "sign_init sign ");
	hwfix_calls(&f)[0] = '\0';
	assert_int_equal(hw->sign_init(f.ctx, k[0].key, &pkcs, &op), 0);
	assert_int_equal(hw->sign_update(f.ctx, op, (const uint8_t *)"a", 1), 0);
	assert_int_equal(hw->sign_update(f.ctx, op, (const uint8_t *)"bc", 2), 0);
	assert_int_equal(hw->sign_final(f.ctx, op, &sig), 0);
	assert_string_equal(hwfix_calls(&f), "sign_init update update final ");
	hwfix_calls(&f)[0] = '\0';
	assert_int_equal(hw->sign_init(f.ctx, k[0].key, &pkcs, &op), 0);
	hw->sign_cleanup(f.ctx, op);
	assert_string_equal(hwfix_calls(&f), "sign_init cleanup ");
	hwfix_calls(&f)[0] = '\0';
	hwfix_unload(&f, &k[0]);
	hwfix_close(&f);
	assert_string_equal(hwfix_calls(&f), "unload_key uninit ");
	assert_int_equal(hwfix_int(&f, "hwlib_live_keys"), 0);
	assert_int_equal(hwfix_int(&f, "hwlib_live_ops"), 0);
}

/* A failure before final is cleaned up; final ends an operation whatever it says. */
static void failed_operations_are_cleaned_up(void **state)
{
	struct csm_plugin_op *op;
	uint8_t p[1024], big[1025] = {0};
	struct csm_plugin_out sig = {p, sizeof(p), 0};

	(void)state;
	hwfix_open_with(&f, 0);
	hwfix_take(&f, "S01lib/key01", 0, &k[0]);
	hwfix_mode(&f, HWLIB_NO_PSS);
	assert_int_equal(hwfix_sign(&f, &k[0], 0, pss), CSM_EUNSUPPORTED);
	assert_int_equal(hwfix_int(&f, "hwlib_live_ops"), 0);
	hwfix_mode(&f, HWLIB_NO_FINAL);
	hwfix_calls(&f)[0] = '\0';
	assert_int_equal(hw->sign_init(f.ctx, k[0].key, &pkcs, &op), 0);
	assert_int_equal(hw->sign_final(f.ctx, op, &sig), 0);
	assert_string_equal(hwfix_calls(&f), "sign_init final sign_init sign ");
	hwfix_mode(&f, HWLIB_SHORT_ONLY);
	hwfix_calls(&f)[0] = '\0';
	assert_int_equal(hw->sign_init(f.ctx, k[0].key, &pkcs, &op), 0);
	assert_int_equal(hw->sign_update(f.ctx, op, big, sizeof(big)), 0);
	assert_string_equal(hwfix_calls(&f), "sign_init update cleanup ");
	assert_int_equal(hw->sign_final(f.ctx, op, &sig), 0);
	assert_int_equal(hwfix_int(&f, "hwlib_live_ops"), 0);
	hwfix_unload(&f, &k[0]);
}

static void every_scheme_signs(void **state)
{
	(void)state;
	hwfix_key(&f, "S01lib/key02", 3, "larger");
	hwfix_open_with(&f, 0);
	hwfix_take(&f, "S01lib/key01", 0, &k[0]);
	hwfix_take(&f, "S01lib/key02", 3, &k[3]);
	for (size_t i = 0; i < HWFIX_SCHEMES; i++) {
		assert_int_equal(hwfix_sign(&f, &k[0], 0, hwfix_schemes[i]), 0);
		assert_int_equal(hwfix_sign(&f, &k[3], 3, hwfix_schemes[i]), 0);
	}
	assert_int_equal(
		hwfix_sign(&f, &k[0], 0, (struct csm_scheme){CSM_SCHEME_ECDSA, CSM_HASH_SHA256}), CSM_EUNSUPPORTED);
	hwfix_unload(&f, &k[0]);
	hwfix_unload(&f, &k[3]);
}

/* In parts by the library's own hash: each of its mechanisms that csm has a scheme for. */
static void every_scheme_signs_in_parts(void **state)
{
	static const uint8_t text[5000] = "in parts";
	struct csm_plugin_op *op;
	uint8_t p[1024], digest[64];

	(void)state;
	hwfix_open_with(&f, 0);
	hwfix_take(&f, "S01lib/key01", 0, &k[0]);
	for (size_t i = 0; i < HWFIX_SCHEMES; i++) {
		struct csm_plugin_out sig = {p, sizeof(p), 0};

		hwfix_calls(&f)[0] = '\0';
		assert_int_equal(hw->sign_init(f.ctx, k[0].key, &hwfix_schemes[i], &op), 0);
		for (size_t at = 0; at < sizeof(text); at += 625)
			assert_int_equal(hw->sign_update(f.ctx, op, text + at, 625), 0);
		assert_int_equal(hw->sign_final(f.ctx, op, &sig), 0);
		assert_null(strstr(hwfix_calls(&f), " sign ")); /* it was the library's own */
		assert_int_equal(EVP_Digest(text, sizeof(text), digest, NULL,
					 EVP_get_digestbyname(csm_hash_name(hwfix_schemes[i].hash)), NULL), 1);
		assert_true(hwfix_verifies(hwfix_pkey(0), hwfix_schemes[i], digest, p, sig.len));
	}
	hwfix_unload(&f, &k[0]);
}

/* Slots that a library does not set: its table was zero before. */
static void slots_may_be_missing(void **state)
{
	struct csm_plugin_op *op;
	uint8_t p[1024];
	struct csm_plugin_out sig = {p, sizeof(p), 0};

	(void)state;
	hwfix_open_with(&f, HWLIB_FEW_SLOTS);
	assert_true(hwfix_usable(&f));
	hwfix_take(&f, "S01lib/key01", 0, &k[0]);
	for (size_t i = 0; i < HWFIX_SCHEMES; i++)
		assert_int_equal(hwfix_sign(&f, &k[0], 0, hwfix_schemes[i]), 0);
	assert_int_equal(hw->sign_init(f.ctx, k[0].key, &pkcs, &op), 0);
	assert_int_equal(hw->sign_update(f.ctx, op, (const uint8_t *)"a", 1), 0);
	assert_int_equal(hw->sign_final(f.ctx, op, &sig), 0);
	hwfix_unload(&f, &k[0]);
}

/* A handle of four bytes at the end of a page: nothing behind it is read. */
static void handles_of_four_bytes(void **state)
{
	(void)state;
	hwfix_open_with(&f, HWLIB_INT_HANDLE);
	hwfix_key(&f, "S01lib/key02", 1, "second");
	hwfix_take(&f, "S01lib/key01", 0, &k[0]);
	hwfix_take(&f, "S01lib/key02", 1, &k[1]);
	assert_int_equal(hwfix_sign(&f, &k[0], 0, pkcs), 0);
	assert_int_equal(hwfix_sign(&f, &k[1], 1, pkcs), 0);
	hwfix_unload(&f, &k[0]);
	hwfix_unload(&f, &k[1]);
	assert_int_equal(hwfix_int(&f, "hwlib_live_keys"), 0);
}

static void public_keys_in_every_form(void **state)
{
	static const unsigned long modes[] = {0, HWLIB_HOST_EXPONENT, HWLIB_NO_EXPONENT, HWLIB_ZERO_EXPONENT,
		HWLIB_LITTLE_MODULUS, HWLIB_LITTLE_MODULUS | HWLIB_HOST_EXPONENT};

	(void)state;
	hwfix_open_with(&f, 0);
	for (size_t i = 0; i < N_ELEMS(modes); i++) {
		hwfix_mode(&f, modes[i]);
		hwfix_take(&f, "S01lib/key01", 0, &k[0]);
		assert_int_equal(hwfix_sign(&f, &k[0], 0, pkcs), 0);
		hwfix_unload(&f, &k[0]);
	}
}

/* A public key that the private one does not fit is not taken. */
static void public_key_must_be_the_keys(void **state)
{
	(void)state;
	hwfix_open_with(&f, 0);
	hwfix_take(&f, "S01lib/key01", 0, &k[0]);
	hwfix_unload(&f, &k[0]);
	hwfix_mode(&f, HWLIB_OTHER_KEY);
	assert_int_equal(hwfix_find(&f, "S01lib/key01", &k[1]), CSM_EBACKEND);
	assert_int_equal(hwfix_load(&f, &k[0]), CSM_ETAMPERED);
	assert_null(k[0].key);
	assert_int_equal(hwfix_int(&f, "hwlib_live_keys"), 0);
}

static void libraries_that_do_half(void **state)
{
	(void)state;
	hwfix_open_with(&f, HWLIB_BARE_ONLY);
	hwfix_take(&f, "S01lib/key01", 0, &k[0]);
	for (size_t i = 0; i < HWFIX_SCHEMES; i++)
		assert_int_equal(hwfix_sign(&f, &k[0], 0, hwfix_schemes[i]), 0);
	hwfix_mode(&f, HWLIB_NO_PSS);
	assert_int_equal(hwfix_sign(&f, &k[0], 0, pkcs), 0);
	assert_int_equal(hwfix_int(&f, "hwlib_live_ops"), 0);
	hwfix_unload(&f, &k[0]);
}

/* ---- libraries that are away ---- */

static void away_and_back(void **state)
{
	(void)state;
	hwfix_open_with(&f, HWLIB_NOT_THERE);
	assert_false(hwfix_usable(&f));
	assert_int_equal(hwfix_find(&f, "S01lib/key01", &k[0]), CSM_EUNAVAILABLE);
	hwfix_mode(&f, 0);
	usleep(1100 * 1000);
	assert_true(hwfix_usable(&f));
	hwfix_take(&f, "S01lib/key01", 0, &k[0]);
	assert_int_equal(hwfix_sign(&f, &k[0], 0, pkcs), 0);
	hwfix_unload(&f, &k[0]);
}

static void refused_activation_and_loading(void **state)
{
	(void)state;
	hwfix_open_with(&f, HWLIB_NO_ACTIVATE);
	assert_false(hwfix_usable(&f));
	assert_non_null(strstr(f.log, "activate"));
	assert_non_null(strstr(hwfix_calls(&f), "uninit"));
	hwfix_close(&f);
	hwfix_mode(&f, HWLIB_NO_LOAD);
	hwfix_open(&f);
	assert_int_equal(hwfix_find(&f, "S01lib/key01", &k[0]), CSM_EUNAVAILABLE);
}

static void no_library_in_the_folder(void **state)
{
	char path[128];

	(void)state;
	snprintf(path, sizeof(path), "%s/S01lib/plugin.so", f.dir);
	assert_int_equal(unlink(path), 0);
	hwfix_open(&f);
	assert_false(hwfix_usable(&f));
	hwfix_close(&f);
	hwfix_folder(&f, "S02bad");
	hwfix_file(&f, "S02bad/plugin.so", "no library", 10);
	hwfix_open(&f);
	assert_false(hwfix_usable(&f));
	assert_non_null(strstr(f.log, "the library cannot be loaded"));
	assert_int_equal(hwfix_find(&f, "S02bad/key01", &k[0]), CSM_EUNAVAILABLE);
}

/* ---- configuration ---- */

/* Two libraries under one parent; `slot` takes one of them. One library cannot serve two folders. */
static void one_of_several_libraries(void **state)
{
	struct hwfix_loaded second = {0};
	char to[128];

	(void)state;
	hwfix_folder(&f, "s02other");
	hwfix_key(&f, "s02other/key01", 1, "");
	snprintf(f.module, sizeof(f.module), "%s/S01lib/plugin.so", f.dir);
	hwfix_open_with(&f, 0);
	hwfix_take(&f, "S01lib/key01", 0, &k[0]);
	hwfix_unload(&f, &k[0]);
	assert_int_equal(hwfix_find(&f, "s02other/key01", &second), CSM_ENOT_FOUND);
	assert_non_null(strstr(f.log, "s02other: its library is that of S01lib already"));
	hwfix_close(&f);
	hwfix_library(&f, "s02other/plugin.so");
	hwfix_open(&f);
	hwfix_take(&f, "s02other/key01", 1, &second);
	hwfix_take(&f, "S01lib/key01", 0, &k[0]);
	assert_int_equal(hwfix_sign(&f, &second, 1, pkcs), 0);
	assert_int_equal(hwfix_sign(&f, &k[0], 0, pkcs), 0);
	hwfix_unload(&f, &second);
	hwfix_unload(&f, &k[0]);
	hwfix_close(&f);
	snprintf(f.slot, sizeof(f.slot), "s02other");
	hwfix_open(&f);
	assert_int_equal(hwfix_find(&f, "S01lib/key01", &k[0]), CSM_ENOT_FOUND);
	hwfix_take(&f, "s02other/key01", 1, &second);
	hwfix_unload(&f, &second);
	hwfix_close(&f);
	/* The module of the configuration is looked at like a folder's own. */
	snprintf(f.slot, sizeof(f.slot), "S03");
	hwfix_folder(&f, "S03");
	hwfix_library(&f, "module.so");
	snprintf(f.module, sizeof(f.module), "%s/module.so", f.dir);
	snprintf(to, sizeof(to), "%s.so", f.dir);
	assert_int_equal(rename(f.module, to) | chmod(to, 0666), 0);
	snprintf(f.module, sizeof(f.module), "%s", to);
	hwfix_open(&f);
	assert_false(hwfix_usable(&f));
	hwfix_close(&f);
	assert_int_equal(chmod(to, 0644), 0);
	hwfix_open(&f);
	assert_true(hwfix_usable(&f));
	assert_int_equal(unlink(to), 0);
}

static void nothing_configured(void **state)
{
	(void)state;
	f.folder[0] = '\0';
	hwfix_open(&f);
	assert_false(hwfix_usable(&f));
	hwfix_close(&f);
	snprintf(f.folder, sizeof(f.folder), "/nonexistent");
	hwfix_open(&f);
	assert_false(hwfix_usable(&f));
}

/* A stored key whose folder is away is not damaged. */
static void stored_keys(void **state)
{
	char from[128], to[128];

	(void)state;
	hwfix_open_with(&f, 0);
	hwfix_take(&f, "S01lib/key01", 0, &k[0]);
	hwfix_unload(&f, &k[0]);
	hwfix_close(&f);
	snprintf(from, sizeof(from), "%s/S01lib/key01", f.dir);
	snprintf(to, sizeof(to), "%s/away", f.dir);
	assert_int_equal(rename(from, to), 0);
	hwfix_open(&f);
	assert_int_equal(hwfix_load(&f, &k[0]), CSM_EUNAVAILABLE);
	assert_int_equal(rename(to, from), 0);
	assert_int_equal(hwfix_load(&f, &k[0]), 0);
	assert_int_equal(hwfix_sign(&f, &k[0], 0, pkcs), 0);
	hwfix_unload(&f, &k[0]);
	k[0].spec.use = CSM_USE_DECRYPT;
	assert_int_equal(hwfix_load(&f, &k[0]), CSM_EUNSUPPORTED);
	k[0].spec.use = CSM_USE_SIGN;
	k[0].spec.alg = CSM_ALG_RSA3072;
	assert_int_equal(hwfix_load(&f, &k[0]), CSM_ETAMPERED);
	assert_int_equal(hwfix_int(&f, "hwlib_live_keys"), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(every_callback_in_its_order),
		T(failed_operations_are_cleaned_up),
		T(every_scheme_signs),
		T(every_scheme_signs_in_parts),
		T(slots_may_be_missing),
		T(handles_of_four_bytes),
		T(public_keys_in_every_form),
		T(public_key_must_be_the_keys),
		T(libraries_that_do_half),
		T(away_and_back),
		T(refused_activation_and_loading),
		T(no_library_in_the_folder),
		T(one_of_several_libraries),
		T(nothing_configured),
		T(stored_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
