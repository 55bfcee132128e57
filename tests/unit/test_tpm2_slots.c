/* Commands and slots: one command a signature with a hot key, at most three with many keys in turn, no
 * handle left behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <tss2/tss2_tpm2_types.h>
#include "tests/lib/tpm2_env.h"

#define KEYS 20u

static uint64_t commands(struct tpm2_env *e)
{
	return tpm2_env_health(e).commands;
}

static void one_command_with_a_hot_key(void **state)
{
	struct tpm2_env e;
	struct tpm2_key k;
	uint64_t before;

	(void)state;
	tpm2_env_start(&e);
	tpm2_key_make(&e, CSM_ALG_P256, CSM_USE_SIGN, &k);
	assert_int_equal(tpm2_sign_verify(&e, &k), 0);
	before = commands(&e);
	for (int i = 0; i < 200; i++)
		assert_int_equal(tpm2_sign_verify(&e, &k), 0);
	assert_int_equal(commands(&e) - before, 200);
	tpm2_key_unload(&e, &k);
	tpm2_env_stop(&e);
}

static void hot_keys_fill_the_slots(void **state)
{
	struct tpm2_env e;
	struct tpm2_key k[3];
	uint64_t before;

	(void)state;
	tpm2_env_start(&e);
	for (int i = 0; i < 3; i++)
		tpm2_key_make(&e, CSM_ALG_P256, CSM_USE_SIGN, &k[i]);
	for (int i = 0; i < 6; i++)
		assert_int_equal(tpm2_sign_verify(&e, &k[i % 3]), 0);
	before = commands(&e);
	for (int i = 0; i < 30; i++)
		assert_int_equal(tpm2_sign_verify(&e, &k[i % 3]), 0);
	assert_int_equal(commands(&e) - before, 30);
	assert_int_equal(tpm2_env_health(&e).loaded, 3);
	for (int i = 0; i < 3; i++)
		tpm2_key_unload(&e, &k[i]);
	assert_int_equal(tpm2_env_health(&e).loaded, 0);
	tpm2_env_stop(&e);
}

static void twenty_keys_in_turn(void **state)
{
	static struct tpm2_key k[KEYS];
	struct tpm2_env e;
	uint64_t before, last;

	(void)state;
	tpm2_env_start(&e);
	for (unsigned i = 0; i < KEYS; i++)
		tpm2_key_make(&e, i % 5 == 0 ? CSM_ALG_RSA2048 : CSM_ALG_P256, CSM_USE_SIGN, &k[i]);
	for (unsigned i = 0; i < KEYS; i++)
		assert_int_equal(tpm2_sign_verify(&e, &k[i]), 0);
	before = last = commands(&e);
	for (unsigned i = 0; i < 5 * KEYS; i++) {
		assert_int_equal(tpm2_sign_verify(&e, &k[i * 7 % KEYS]), 0);
		assert_true(commands(&e) - last <= 3);
		last = commands(&e);
	}
	/* but for the first few, every one is a miss: the figure is not low for want of misses */
	assert_true(last - before >= 3 * (5 * KEYS - 3));
	for (unsigned i = 0; i < KEYS; i++)
		tpm2_key_unload(&e, &k[i]);
	tpm2_env_stop(&e);
}

static void no_handle_is_left(void **state)
{
	static struct tpm2_key k[5];
	struct tpm2_other other;
	struct tpm2_env e;
	TPM2_HANDLE h[16];

	(void)state;
	tpm2_env_start(&e);
	for (unsigned i = 0; i < 5; i++)
		tpm2_key_make(&e, CSM_ALG_P256, CSM_USE_SIGN, &k[i]);
	for (unsigned i = 0; i < 3000; i++) {
		uint8_t sig[1024];
		size_t len;

		assert_int_equal(tpm2_sign(&e, &k[i % 11 % 5], (struct csm_scheme){CSM_SCHEME_ECDSA, CSM_HASH_SHA256},
					 sig, &len),
			0);
	}
	csm_plugin_tpm2.idle(e.ctx);
	tpm2_other_open(&other, e.tpm);
	assert_int_equal(tpm2_other_handles(&other, TRANSIENT_OBJECTS, h, 16), 3);
	assert_int_equal(tpm2_other_handles(&other, LOADED_SESSIONS, h, 16), 1);
	for (unsigned i = 0; i < 5; i++)
		tpm2_key_unload(&e, &k[i]);
	csm_plugin_tpm2.idle(e.ctx);
	assert_int_equal(tpm2_other_handles(&other, TRANSIENT_OBJECTS, h, 16), 0);
	tpm2_env_close(&e);
	assert_int_equal(tpm2_other_handles(&other, LOADED_SESSIONS, h, 16), 0);
	assert_int_equal(tpm2_other_handles(&other, SAVED_SESSIONS, h, 16), 0);
	assert_int_equal(tpm2_other_handles(&other, PERSISTENT_OBJECTS, h, 16), 1);
	tpm2_other_close(&other);
	tpm2_env_stop(&e);
}

/* A process of ours that died left a session and keys; the next one finds them, and nothing else. */
static void leftovers_of_a_dead_process(void **state)
{
	struct tpm2_other other;
	struct tpm2_env e;
	struct tpm2_key k[3];
	TPM2_HANDLE h[16];
	struct csm_plugin_ctx *dead;

	(void)state;
	tpm2_env_start(&e);
	for (int i = 0; i < 3; i++)
		tpm2_key_make(&e, CSM_ALG_P256, CSM_USE_SIGN, &k[i]);
	for (int i = 0; i < 6; i++)
		assert_int_equal(tpm2_sign_verify(&e, &k[i % 3]), 0);
	csm_plugin_tpm2.idle(e.ctx);
	tpm2_other_open(&other, e.tpm);
	assert_int_equal(tpm2_other_handles(&other, TRANSIENT_OBJECTS, h, 16), 3);
	dead = e.ctx;
	e.ctx = NULL;
	for (int i = 0; i < 5; i++) {
		tpm2_env_open(&e);
		assert_true(tpm2_env_health(&e).usable);
		assert_int_equal(tpm2_other_handles(&other, TRANSIENT_OBJECTS, h, 16), 0);
		assert_int_equal(tpm2_other_handles(&other, LOADED_SESSIONS, h, 16), 1);
		e.ctx = i < 4 ? (tpm2_env_close(&e), NULL) : e.ctx;
	}
	/* the dead one's memory goes the way of a process that finds its handles gone */
	for (int i = 0; i < 3; i++)
		csm_plugin_tpm2.unload(dead, k[i].key);
	csm_plugin_tpm2.idle(dead);
	csm_plugin_tpm2.close(dead);
	tpm2_other_close(&other);
	tpm2_env_stop(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_command_with_a_hot_key),
		cmocka_unit_test(hot_keys_fill_the_slots),
		cmocka_unit_test(twenty_keys_in_turn),
		cmocka_unit_test(no_handle_is_left),
		cmocka_unit_test(leftovers_of_a_dead_process),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
