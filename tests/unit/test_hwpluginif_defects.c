/* What the first hosts of hardware plugins, and the first plugins, got wrong: csm's host survives each, or does not repeat
 * it. A test each, by its number in PLUGIN.md. */
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

/* 1: a return of 0 is a claim. */
static void defect_1_success_without_a_signature(void **state)
{
	static const unsigned long modes[] = {HWLIB_SILENT, HWLIB_GARBAGE, HWLIB_OVERRUN};
	struct csm_plugin_op *op;
	uint8_t p[1024];

	(void)state;
	hwfix_open_with(&f, 0);
	hwfix_take(&f, "S01lib/key01", 0, &k[0]);
	for (size_t i = 0; i < N_ELEMS(modes); i++) {
		struct csm_plugin_out sig = {p, sizeof(p), 0x7777};

		hwfix_mode(&f, modes[i]);
		assert_int_equal(hwfix_sign(&f, &k[0], 0, pkcs), CSM_EBACKEND);
		assert_int_equal(hwfix_sign(&f, &k[0], 0, pss), CSM_EBACKEND);
		assert_int_equal(hw->sign_init(f.ctx, k[0].key, &pkcs, &op), 0);
		assert_int_equal(hw->sign_final(f.ctx, op, &sig), CSM_EBACKEND);
		assert_int_equal(sig.len, 0x7777);
		assert_int_equal(hwfix_find(&f, "S01lib/key01", &k[1]), CSM_EBACKEND);
		hwfix_mode(&f, 0);
		assert_int_equal(hwfix_sign(&f, &k[0], 0, pkcs), 0);
	}
	hwfix_unload(&f, &k[0]);
}

/* 2: the signature of a key comes from that key and from no other, in any order. */
static void defect_2_right_key_for_right_object(void **state)
{
	(void)state;
	hwfix_key(&f, "S01lib/key02", 1, "second");
	hwfix_key(&f, "S01lib/key03", 2, "third");
	hwfix_open_with(&f, 0);
	for (unsigned i = 0; i < 3; i++) {
		char ref[32];

		snprintf(ref, sizeof(ref), "S01lib/key0%u", i + 1);
		hwfix_take(&f, ref, i, &k[i]);
	}
	for (unsigned n = 0; n < 12; n++)
		assert_int_equal(hwfix_sign(&f, &k[n * 5 % 3], n * 5 % 3, hwfix_schemes[n % HWFIX_SCHEMES]), 0);
	/* Where the folders were exchanged meanwhile, no key signs for another one. */
	for (unsigned i = 0; i < 3; i++)
		hwfix_unload(&f, &k[i]);
	hwfix_close(&f);
	char a[128], b[128], c[128];
	snprintf(a, sizeof(a), "%s/S01lib/key01", f.dir);
	snprintf(b, sizeof(b), "%s/S01lib/key02", f.dir);
	snprintf(c, sizeof(c), "%s/S01lib/other", f.dir);
	assert_int_equal(rename(a, c) | rename(b, a) | rename(c, b), 0);
	hwfix_open(&f);
	assert_int_equal(hwfix_load(&f, &k[0]), CSM_ETAMPERED);
}

/* 3: a library with one place for all keys; keys that are lost after a while; a library that wants a new start. */
static void defect_3_one_place_and_stale_handles(void **state)
{
	static const unsigned long modes[] = {HWLIB_ONE_KEY, HWLIB_FORGETS, HWLIB_ONE_KEY | HWLIB_INT_HANDLE};

	(void)state;
	hwfix_key(&f, "S01lib/key02", 1, "second");
	hwfix_open_with(&f, 0);
	for (size_t i = 0; i < N_ELEMS(modes); i++) {
		hwfix_mode(&f, modes[i]);
		hwfix_take(&f, "S01lib/key01", 0, &k[0]);
		hwfix_take(&f, "S01lib/key02", 1, &k[1]);
		for (unsigned n = 0; n < 3; n++) {
			assert_int_equal(hwfix_sign(&f, &k[0], 0, pkcs), 0);
			assert_int_equal(hwfix_sign(&f, &k[1], 1, pss), 0);
		}
		hwfix_unload(&f, &k[0]);
		hwfix_unload(&f, &k[1]);
	}
}

static void defect_3_library_wants_a_new_start(void **state)
{
	(void)state;
	hwfix_open_with(&f, 0);
	hwfix_take(&f, "S01lib/key01", 0, &k[0]);
	hwfix_mode(&f, HWLIB_NEEDS_INIT);
	assert_int_equal(hwfix_sign(&f, &k[0], 0, pkcs), 0);
	usleep(1100 * 1000); /* a library is not started over and over */
	hwfix_calls(&f)[0] = '\0';
	assert_int_equal(hwfix_sign(&f, &k[0], 0, pkcs), 0);
	assert_non_null(strstr(hwfix_calls(&f), "uninit init activate load_key sign_init sign "));
	hwfix_mode(&f, HWLIB_NEEDS_INIT); /* activate has read the file of before */
	assert_int_equal(hwfix_sign(&f, &k[0], 0, pkcs), 0);
	assert_int_equal(hwfix_sign(&f, &k[0], 0, pkcs), CSM_EUNAVAILABLE);
	hwfix_mode(&f, 0);
	usleep(1100 * 1000);
	assert_int_equal(hwfix_sign(&f, &k[0], 0, pkcs), 0);
	hwfix_unload(&f, &k[0]);
}

/* 3: all key folders, those that came later too. */
static void defect_3_all_key_folders(void **state)
{
	char link[128];

	(void)state;
	for (unsigned i = 2; i < 30; i++) {
		char name[32];

		snprintf(name, sizeof(name), "S01lib/key%02u", i);
		hwfix_key(&f, name, i % 3, "x");
	}
	hwfix_open_with(&f, 0);
	hwfix_take(&f, "S01lib/key29", 29 % 3, &k[2]);
	hwfix_unload(&f, &k[2]);
	assert_int_equal(hwfix_find(&f, "S01lib/key30", &k[0]), CSM_ENOT_FOUND);
	hwfix_key(&f, "S01lib/key30", 0, "y");
	hwfix_take(&f, "S01lib/key30", 0, &k[0]);
	hwfix_unload(&f, &k[0]);
	/* By the label of pkcs11.cfg where that is one key's. */
	hwfix_take(&f, "y", 0, &k[0]);
	hwfix_unload(&f, &k[0]);
	assert_int_equal(hwfix_find(&f, "x", &k[0]), CSM_ECONFLICT);
	assert_int_equal(hwfix_find(&f, "", &k[0]), CSM_ENOT_FOUND);
	assert_int_equal(hwfix_find(&f, "S01lib/../S01lib/key01", &k[0]), CSM_ENOT_FOUND);
	/* Links inside are followed, those that lead out are not. */
	snprintf(link, sizeof(link), "%s/S01lib/key40", f.dir);
	assert_int_equal(symlink("key01", link), 0);
	hwfix_take(&f, "S01lib/key40", 0, &k[0]);
	hwfix_unload(&f, &k[0]);
}

/* 4: csm hashes and the library gets a digest; operations in parts do not stand in each other's way. */
static void defect_4_long_messages_and_many_at_once(void **state)
{
	static uint8_t big[1 << 20];
	struct csm_plugin_op *ops[10];
	uint8_t p[1024], digest[64];

	(void)state;
	hwfix_open_with(&f, HWLIB_SHORT_ONLY);
	hwfix_take(&f, "S01lib/key01", 0, &k[0]);
	for (size_t i = 0; i < N_ELEMS(ops); i++) {
		assert_int_equal(hw->sign_init(f.ctx, k[0].key, &hwfix_schemes[i % HWFIX_SCHEMES], &ops[i]), 0);
		assert_int_equal(hwfix_sign(&f, &k[0], 0, pkcs), 0); /* in one part, between */
	}
	for (size_t at = 0; at < sizeof(big); at += sizeof(big) / 4)
		for (size_t i = 0; i < N_ELEMS(ops); i++)
			assert_int_equal(hw->sign_update(f.ctx, ops[i], big + at, sizeof(big) / 4), 0);
	for (size_t i = 0; i < N_ELEMS(ops); i++) {
		const struct csm_scheme *s = &hwfix_schemes[i % HWFIX_SCHEMES];
		struct csm_plugin_out sig = {p, sizeof(p), 0};

		assert_int_equal(hw->sign_final(f.ctx, ops[i], &sig), 0);
		assert_int_equal(EVP_Digest(big, sizeof(big), digest, NULL,
					 EVP_get_digestbyname(csm_hash_name(s->hash)), NULL), 1);
		assert_true(hwfix_verifies(hwfix_pkey(0), *s, digest, p, sig.len));
	}
	assert_int_equal(hwfix_int(&f, "hwlib_live_ops"), 0);
	hwfix_unload(&f, &k[0]);
}

/* 5: names of files that crashed the host, or ran over its buffers. */
static void defect_5_names_and_numbers_of_files(void **state)
{
	char name[128];

	(void)state;
	for (unsigned i = 2; i <= 5; i++) {
		snprintf(name, sizeof(name), "S01lib/key0%u", i);
		hwfix_key(&f, name, 0, "");
	}
	hwfix_file(&f, "S01lib/key02/Kz", "no dot", 6);
	for (unsigned i = 0; i < 8; i++) { /* nine in all */
		snprintf(name, sizeof(name), "S01lib/key03/Kfile%u.x", i + 2);
		hwfix_file(&f, name, "", 0);
	}
	hwfix_file(&f, "S01lib/key04/Kz.123456789012345678901234567890123", "33", 2);
	hwfix_file(&f, "S01lib/key05/Kz.12345678901234567890123456789012", "32", 2);
	hwfix_file(&f, "S01lib/key05/HWz.two.dots", "abc", 3);
	hwfix_folder(&f, "S01lib/key06");
	hwfix_folder(&f, "S01lib/key07");
	hwfix_folder(&f, "S01lib/key07/Kfolder");
	hwfix_folder(&f, "S01lib/key08");
	hwfix_folder(&f, "S02");
	hwfix_open_with(&f, 0);
	hwfix_take(&f, "S01lib/key02", 0, &k[0]);
	hwfix_unload(&f, &k[0]);
	assert_int_equal(hwfix_find(&f, "S01lib/key03", &k[0]), CSM_ENOT_FOUND);
	assert_int_equal(hwfix_find(&f, "S01lib/key04", &k[0]), CSM_ENOT_FOUND);
	assert_int_equal(hwfix_find(&f, "S01lib/key06", &k[0]), CSM_ENOT_FOUND);
	assert_int_equal(hwfix_find(&f, "S01lib/key07", &k[0]), CSM_ENOT_FOUND);
	assert_non_null(strstr(f.log, "key03 has more than 8 files"));
	assert_non_null(strstr(f.log, "key04: the name of a file has more than 32"));
	hwfix_calls(&f)[0] = '\0';
	assert_int_equal(hwfix_find(&f, "S01lib/key05", &k[0]), CSM_EUNAVAILABLE); /* its first file is no key */
	/* PINs of pkcs11.cfg are nobody's business. */
	assert_null(strstr(f.log, "pin"));
}

/* 5: what others can write is not read, and nothing of it is loaded. */
static void defect_5_folders_that_others_can_write(void **state)
{
	static const struct {
		const char *name;
		mode_t good, bad;
	} places[] = {{"", 0755, 0777}, {"", 0755, 0775}, {"S01lib", 0755, 0757}, {"S01lib/plugin.so", 0755, 0777},
		{"S01lib/activate", 0755, 01777}, {"S01lib/activate/Amode.txt", 0644, 0666},
		{"S01lib/key01", 0755, 0777}, {"S01lib/key01/Kfile1.p8", 0600, 0620}};
	char path[128];

	(void)state;
	hwfix_key(&f, "S01lib/key01", 0, "");
	for (size_t i = 0; i < N_ELEMS(places); i++) {
		snprintf(path, sizeof(path), "%s/%s", f.dir, places[i].name);
		assert_int_equal(chmod(path, places[i].bad), 0);
		hwfix_open(&f);
		assert_false(hwfix_usable(&f));
		assert_non_null(strstr(f.log, "can write"));
		assert_int_equal(hwfix_find(&f, "S01lib/key01", &k[0]), CSM_EUNAVAILABLE);
		assert_string_equal(hwfix_calls(&f), "");
		hwfix_close(&f);
		assert_int_equal(chmod(path, places[i].good), 0);
		f.log[0] = '\0';
	}
	if (geteuid() == 0) {
		assert_int_equal(lchown(path, 12345, 0), 0);
		hwfix_open(&f);
		assert_non_null(strstr(f.log, "belongs to uid 12345"));
		assert_false(hwfix_usable(&f));
		hwfix_close(&f);
		assert_int_equal(lchown(path, 0, 0), 0);
	}
	hwfix_open(&f);
	assert_true(hwfix_usable(&f));
	hwfix_take(&f, "S01lib/key01", 0, &k[0]);
	hwfix_unload(&f, &k[0]);
	/* Made writable while it runs: what comes later is not taken. */
	hwfix_key(&f, "S01lib/key02", 1, "");
	snprintf(path, sizeof(path), "%s/S01lib", f.dir);
	assert_int_equal(chmod(path, 0777), 0);
	assert_int_equal(hwfix_find(&f, "S01lib/key02", &k[1]), CSM_ENOT_FOUND);
	assert_int_equal(chmod(path, 0755), 0);
	hwfix_take(&f, "S01lib/key02", 1, &k[1]);
	hwfix_unload(&f, &k[1]);
}

static void defect_5_links_that_lead_out(void **state)
{
	char path[128], out[64] = "/tmp/csm-hwout-XXXXXX", to[96];
	struct hwfix outside = {0};

	(void)state;
	assert_non_null(mkdtemp(out));
	snprintf(outside.dir, sizeof(outside.dir), "%s", out);
	hwfix_key(&outside, "key", 0, "");
	snprintf(to, sizeof(to), "%s/key", out);
	snprintf(path, sizeof(path), "%s/S01lib/key02", f.dir);
	assert_int_equal(symlink(to, path), 0);
	hwfix_folder(&f, "S01lib/key03");
	snprintf(to, sizeof(to), "%s/key/Kfile1.p8", out);
	snprintf(path, sizeof(path), "%s/S01lib/key03/Kfile1.p8", f.dir);
	assert_int_equal(symlink(to, path), 0);
	hwfix_open_with(&f, 0);
	assert_int_equal(hwfix_find(&f, "S01lib/key02", &k[0]), CSM_ENOT_FOUND);
	assert_int_equal(hwfix_find(&f, "S01lib/key03", &k[0]), CSM_ENOT_FOUND);
	hwfix_take(&f, "S01lib/key01", 0, &k[0]);
	hwfix_unload(&f, &k[0]);
	snprintf(path, sizeof(path), "%s/S01lib/plugin.so", f.dir);
	hwfix_close(&f);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(symlink("/usr/lib/x86_64-linux-gnu/libc.so.6", path), 0);
	f.log[0] = '\0';
	hwfix_open(&f);
	assert_false(hwfix_usable(&f));
	snprintf(path, sizeof(path), "%s/key/Kfile1.p8", out);
	assert_int_equal(unlink(path), 0);
	snprintf(path, sizeof(path), "%s/key/pkcs11.cfg", out);
	assert_int_equal(unlink(path), 0);
	snprintf(path, sizeof(path), "%s/key", out);
	assert_int_equal(rmdir(path) | rmdir(out), 0);
}

/* 7: mechanisms that say success and sign nothing. Nothing is given out, and where the library can hash and sign in
 * parts, that is used. */
static void defect_7_mechanisms_that_sign_nothing(void **state)
{
	struct csm_plugin_op *op;
	uint8_t p[1024], digest[64];
	struct csm_plugin_out sig = {p, sizeof(p), 0};

	(void)state;
	hwfix_open_with(&f, 0);
	hwfix_take(&f, "S01lib/key01", 0, &k[0]);
	hwfix_mode(&f, HWLIB_SHA256_ONLY);
	for (size_t i = 0; i < HWFIX_SCHEMES; i++)
		assert_int_equal(hwfix_sign(&f, &k[0], 0, hwfix_schemes[i]), CSM_EBACKEND);
	assert_int_equal(hw->sign_init(f.ctx, k[0].key, &pkcs, &op), 0);
	assert_int_equal(hw->sign_update(f.ctx, op, (const uint8_t *)"abc", 3), 0);
	assert_int_equal(hw->sign_final(f.ctx, op, &sig), 0);
	assert_int_equal(EVP_Digest("abc", 3, digest, NULL, EVP_sha256(), NULL), 1);
	assert_true(hwfix_verifies(hwfix_pkey(0), pkcs, digest, p, sig.len));
	hwfix_unload(&f, &k[0]);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(defect_1_success_without_a_signature),
		T(defect_2_right_key_for_right_object),
		T(defect_3_one_place_and_stale_handles),
		T(defect_3_library_wants_a_new_start),
		T(defect_3_all_key_folders),
		T(defect_4_long_messages_and_many_at_once),
		T(defect_5_names_and_numbers_of_files),
		T(defect_5_folders_that_others_can_write),
		T(defect_5_links_that_lead_out),
		T(defect_7_mechanisms_that_sign_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
