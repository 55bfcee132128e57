/* A TPM as the kernel gives it: /dev/tpm0, held alone, and /dev/tpmrm0, shared. A socket that keeps messages
 * apart stands for the device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <tss2/tss2_tpm2_types.h>
#include "tests/lib/tpm2_env.h"
#include "tests/lib/tpm2_tap.h"

static struct tpm2_env env;
static struct tpm2_tap tap;

static void start(const char *shared)
{
	memset(&env, 0, sizeof(env));
	env.tpm = swtpm_start();
	assert_non_null(env.tpm);
	swtpm_host_init(&env.host, env.tpm);
	env.host.quiet = true;
	swtpm_host_config(&env.host, "kind", "device");
	swtpm_host_config(&env.host, "device", "/dev/tpm-of-a-test");
	swtpm_host_config(&env.host, "shared", shared);
	tpm2_tap_start(&tap, &env.host);
	tap.device = true;
}

static void stop(void)
{
	tpm2_env_close(&env);
	tpm2_tap_stop(&tap);
	tpm2_env_stop(&env);
}

static void held_alone(void **state)
{
	struct tpm2_key k[3];
	struct csm_plugin_health h;

	(void)state;
	start(NULL);
	tpm2_env_open(&env);
	for (int i = 0; i < 3; i++)
		tpm2_key_make(&env, i == 0 ? CSM_ALG_RSA2048 : CSM_ALG_P256, CSM_USE_SIGN, &k[i]);
	for (int i = 0; i < 9; i++)
		assert_int_equal(tpm2_sign_verify(&env, &k[i % 3]), 0);
	h = tpm2_env_health(&env);
	assert_true(h.usable);
	assert_false(h.shared);
	assert_int_equal(h.loaded, 3);
	assert_string_equal(h.device, "/dev/tpm-of-a-test");
	/* one descriptor, kept */
	assert_int_equal(env.host.devices, 1);
	for (int i = 0; i < 3; i++)
		tpm2_key_unload(&env, &k[i]);
	/* the kernel starts and stops such a TPM */
	tpm2_tap_set(&tap, TAP_NONE, TPM2_CC_Shutdown, 0, 0, 0);
	tpm2_env_close(&env);
	assert_int_equal(tpm2_tap_seen(&tap), 0);
	stop();
}

/* Whatever is in a TPM that has one owner at a time is a leftover, ours or not. */
static void leftovers_are_flushed(void **state)
{
	TPM2B_PUBLIC pub = {.publicArea = {.type = TPM2_ALG_ECC,
				    .nameAlg = TPM2_ALG_SHA256,
				    .objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT |
					    TPMA_OBJECT_SENSITIVEDATAORIGIN | TPMA_OBJECT_USERWITHAUTH |
					    TPMA_OBJECT_SIGN_ENCRYPT}};
	TPMT_SYM_DEF sym = {.algorithm = TPM2_ALG_NULL};
	TPM2B_SENSITIVE_CREATE sens = {0};
	TPML_PCR_SELECTION pcr = {0};
	TPM2B_DATA outside = {0};
	struct tpm2_other o;
	TPM2_HANDLE h[8];
	ESYS_TR obj, session;

	(void)state;
	pub.publicArea.parameters.eccDetail.curveID = TPM2_ECC_NIST_P256;
	pub.publicArea.parameters.eccDetail.scheme.scheme = TPM2_ALG_NULL;
	pub.publicArea.parameters.eccDetail.symmetric.algorithm = TPM2_ALG_NULL;
	pub.publicArea.parameters.eccDetail.kdf.scheme = TPM2_ALG_NULL;
	for (int shared = 0; shared < 2; shared++) {
		start(shared ? "true" : NULL);
		tpm2_other_open(&o, env.tpm);
		assert_int_equal(Esys_CreatePrimary(o.esys, ESYS_TR_RH_OWNER, ESYS_TR_PASSWORD, ESYS_TR_NONE,
					 ESYS_TR_NONE, &sens, &pub, &outside, &pcr, &obj, NULL, NULL, NULL, NULL),
			0);
		assert_int_equal(Esys_StartAuthSession(o.esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE,
					 ESYS_TR_NONE, NULL, TPM2_SE_POLICY, &sym, TPM2_ALG_SHA256, &session),
			0);
		tpm2_env_open(&env);
		assert_true(tpm2_env_health(&env).usable);
		tpm2_env_close(&env);
		/* where others may be at work, theirs stays */
		assert_int_equal(tpm2_other_handles(&o, TRANSIENT_OBJECTS, h, 8), shared);
		assert_int_equal(tpm2_other_handles(&o, LOADED_SESSIONS, h, 8), shared);
		tpm2_other_close(&o);
		stop();
	}
}

/* A resource manager swaps all that a client holds at each command: at most one key is held. */
static void shared_holds_one_key(void **state)
{
	struct tpm2_key k[3];
	uint64_t before;

	(void)state;
	start("true");
	tpm2_env_open(&env);
	for (int i = 0; i < 3; i++)
		tpm2_key_make(&env, CSM_ALG_P256, CSM_USE_SIGN, &k[i]);
	for (int i = 0; i < 9; i++) {
		assert_int_equal(tpm2_sign_verify(&env, &k[i % 3]), 0);
		assert_int_equal(tpm2_env_health(&env).loaded, 1);
	}
	assert_true(tpm2_env_health(&env).shared);
	before = tpm2_env_health(&env).commands;
	for (int i = 0; i < 9; i++)
		assert_int_equal(tpm2_sign_verify(&env, &k[2]), 0);
	assert_int_equal(tpm2_env_health(&env).commands - before, 9);
	for (int i = 0; i < 3; i++)
		tpm2_key_unload(&env, &k[i]);
	stop();
}

/* The descriptor breaks (the driver was unbound): a new one is asked for. */
static void a_broken_descriptor(void **state)
{
	struct tpm2_key k;

	(void)state;
	start(NULL);
	tpm2_env_open(&env);
	tpm2_key_make(&env, CSM_ALG_P256, CSM_USE_SIGN, &k);
	for (int i = 0; i < 3; i++) {
		tpm2_tap_set(&tap, TAP_LOSE, TPM2_CC_Sign, 1, 0, 0);
		assert_int_equal(tpm2_sign_verify(&env, &k), 0);
	}
	assert_int_equal(env.host.devices, 4);
	tpm2_key_unload(&env, &k);
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(held_alone),
		cmocka_unit_test(leftovers_are_flushed),
		cmocka_unit_test(shared_holds_one_key),
		cmocka_unit_test(a_broken_descriptor),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
