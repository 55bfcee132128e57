/* A TPM that is killed, reset, cleared, taken by another client, or slow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>
#include <tss2/tss2_tpm2_types.h>
#include "tests/lib/tpm2_env.h"

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void restarted_between_calls(void **state)
{
	struct tpm2_env e;
	struct tpm2_key k[5];

	(void)state;
	tpm2_env_start(&e);
	for (int i = 0; i < 5; i++) {
		tpm2_key_make(&e, CSM_ALG_P256, CSM_USE_SIGN, &k[i]);
		assert_int_equal(tpm2_sign_verify(&e, &k[i]), 0);
	}
	for (int round = 0; round < 6; round++) {
		/* both: found with the connection given up, and with it open */
		if (round % 2 == 0)
			csm_plugin_tpm2.idle(e.ctx);
		swtpm_kill(e.tpm);
		assert_int_equal(swtpm_restart(e.tpm), 0);
		for (int i = 0; i < 5; i++)
			assert_int_equal(tpm2_sign_verify(&e, &k[(i + round) % 5]), 0);
	}
	assert_int_equal(tpm2_env_health(&e).resets, 6);
	for (int i = 0; i < 5; i++)
		tpm2_key_unload(&e, &k[i]);
	tpm2_env_stop(&e);
}

static void away_then_back(void **state)
{
	struct tpm2_env e;
	struct tpm2_key k;
	struct csm_plugin_health h;
	uint64_t t0, commands;

	(void)state;
	tpm2_env_start(&e);
	tpm2_key_make(&e, CSM_ALG_P256, CSM_USE_SIGN, &k);
	assert_int_equal(tpm2_sign_verify(&e, &k), 0);
	swtpm_kill(e.tpm);
	t0 = now_ms();
	assert_int_equal(tpm2_sign_verify(&e, &k), CSM_EUNAVAILABLE);
	assert_true(now_ms() - t0 < 1000); /* 150 ms and what a busy machine adds */
	/* the next ones do not wait again */
	t0 = now_ms();
	for (int i = 0; i < 20; i++)
		assert_int_equal(tpm2_sign_verify(&e, &k), CSM_EUNAVAILABLE);
	assert_true(now_ms() - t0 < 1500); /* else it were 3 s */
	h = tpm2_env_health(&e);
	assert_false(h.usable);
	assert_non_null(h.reason);
	commands = h.commands;
	for (int i = 0; i < 50; i++)
		assert_int_equal(tpm2_env_health(&e).commands, commands);
	assert_int_equal(swtpm_restart(e.tpm), 0);
	assert_int_equal(tpm2_sign_verify(&e, &k), 0);
	h = tpm2_env_health(&e);
	assert_true(h.usable);
	assert_null(h.reason);
	tpm2_key_unload(&e, &k);
	tpm2_env_stop(&e);
}

/* A key in the store with an authorisation of its own harms nobody but itself. */
static void a_key_with_an_authorisation(void **state)
{
	struct tpm2_other other;
	struct tpm2_env e;
	struct tpm2_key good, bad;
	TPM2_HANDLE h[16];
	size_t sessions;

	(void)state;
	tpm2_env_start(&e);
	tpm2_other_open(&other, e.tpm);
	tpm2_key_make(&e, CSM_ALG_P256, CSM_USE_SIGN, &good);
	csm_plugin_tpm2.idle(e.ctx);
	tpm2_other_create(&other, 0, "secret", &bad);
	assert_int_equal(tpm2_key_load(&e, &bad), CSM_EUNSUPPORTED);
	tpm2_other_create(&other, TPMA_OBJECT_NODA, "secret", &bad);
	assert_int_equal(tpm2_key_load(&e, &bad), 0);
	sessions = tpm2_other_handles(&other, LOADED_SESSIONS, h, 16);
	for (int i = 0; i < 6; i++) {
		assert_int_equal(tpm2_sign_verify(&e, &bad), CSM_EUNSUPPORTED);
		assert_true(tpm2_env_health(&e).usable);
		assert_null(tpm2_env_health(&e).reason);
		assert_int_equal(tpm2_sign_verify(&e, &good), 0);
		csm_plugin_tpm2.idle(e.ctx);
		assert_int_equal(tpm2_other_handles(&other, LOADED_SESSIONS, h, 16), sessions);
	}
	assert_int_equal(tpm2_other_property(&other, TPM2_PT_LOCKOUT_COUNTER), 0);
	tpm2_key_unload(&e, &bad);
	tpm2_key_unload(&e, &good);
	tpm2_other_close(&other);
	tpm2_env_stop(&e);
}

static void opened_while_away(void **state)
{
	struct tpm2_env e;
	struct tpm2_key k;

	(void)state;
	tpm2_env_start(&e);
	tpm2_key_make(&e, CSM_ALG_P256, CSM_USE_SIGN, &k);
	tpm2_key_unload(&e, &k);
	tpm2_env_close(&e);
	swtpm_kill(e.tpm);
	assert_int_equal(csm_plugin_tpm2.probe(&e.host.host), CSM_EUNAVAILABLE);
	tpm2_env_open(&e);
	assert_false(tpm2_env_health(&e).usable);
	/* loading needs no TPM, using does */
	assert_int_equal(tpm2_key_load(&e, &k), 0);
	assert_int_equal(tpm2_sign_verify(&e, &k), CSM_EUNAVAILABLE);
	assert_int_equal(swtpm_restart(e.tpm), 0);
	assert_int_equal(csm_plugin_tpm2.probe(&e.host.host), 0);
	assert_int_equal(tpm2_sign_verify(&e, &k), 0);
	tpm2_key_unload(&e, &k);
	tpm2_env_stop(&e);
}

struct killer {
	struct tpm2_env *e;
	int rounds;
	pthread_barrier_t end; /* the TPM dies with the thread that started it */
};

static void *kill_and_restart(void *arg)
{
	struct killer *k = arg;
	void *bad = NULL;

	for (int i = 0; i < k->rounds; i++) {
		swtpm_pause_ms(60 + (i * 7L) % 40);
		swtpm_kill(k->e->tpm);
		swtpm_pause_ms(20);
		if (swtpm_restart(k->e->tpm) != 0)
			bad = k;
	}
	pthread_barrier_wait(&k->end);
	pthread_barrier_wait(&k->end);
	return bad;
}

static void restarted_under_use(void **state)
{
	struct tpm2_env e;
	struct tpm2_key k[4];
	struct killer killer = {.e = &e, .rounds = 8};
	pthread_t t;
	void *bad = NULL;
	unsigned good = 0, away = 0;
	uint64_t end;

	(void)state;
	tpm2_env_start(&e);
	for (int i = 0; i < 4; i++)
		tpm2_key_make(&e, i == 0 ? CSM_ALG_RSA2048 : CSM_ALG_P256, CSM_USE_SIGN, &k[i]);
	assert_int_equal(pthread_barrier_init(&killer.end, NULL, 2), 0);
	assert_int_equal(pthread_create(&t, NULL, kill_and_restart, &killer), 0);
	end = now_ms() + 2000;
	for (unsigned i = 0; now_ms() < end; i++) {
		int r = tpm2_sign_verify(&e, &k[i % 4]);

		/* a signature is right, or there is none and the error says to try again */
		assert_true(r == 0 || r == CSM_EUNAVAILABLE);
		good += r == 0;
		away += r != 0;
	}
	pthread_barrier_wait(&killer.end);
	assert_true(good > 100);
	assert_true(good > away);
	for (int i = 0; i < 4; i++)
		assert_int_equal(tpm2_sign_verify(&e, &k[i]), 0);
	assert_true(tpm2_env_health(&e).resets >= 6);
	for (int i = 0; i < 4; i++)
		tpm2_key_unload(&e, &k[i]);
	pthread_barrier_wait(&killer.end);
	assert_int_equal(pthread_join(t, &bad), 0);
	assert_null(bad);
	pthread_barrier_destroy(&killer.end);
	tpm2_env_stop(&e);
}

/* The chip starts anew below an open connection: it answers 0x100 until Startup. */
static void chip_reset(void **state)
{
	struct tpm2_env e;
	struct tpm2_key k;

	(void)state;
	tpm2_env_start(&e);
	tpm2_key_make(&e, CSM_ALG_P256, CSM_USE_SIGN, &k);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(tpm2_sign_verify(&e, &k), 0);
		assert_int_equal(swtpm_reset(e.tpm), 0);
	}
	assert_int_equal(tpm2_sign_verify(&e, &k), 0);
	assert_int_equal(tpm2_env_health(&e).resets, 3);
	tpm2_key_unload(&e, &k);
	tpm2_env_stop(&e);
}

static void power_cuts_do_not_lock_out(void **state)
{
	struct tpm2_env e;
	struct tpm2_other other;
	struct tpm2_key k;
	uint8_t sealed[1024], plain[64];
	struct csm_plugin_out s = {sealed, sizeof(sealed), 0}, p = {plain, sizeof(plain), 0};
	uint64_t v = 0, last = 0;

	(void)state;
	tpm2_env_start(&e);
	tpm2_key_make(&e, CSM_ALG_P256, CSM_USE_SIGN, &k);
	assert_int_equal(csm_plugin_tpm2.seal(e.ctx, (const uint8_t *)"root", 4, &s), 0);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(tpm2_sign_verify(&e, &k), 0);
		assert_int_equal(csm_plugin_tpm2.unseal(e.ctx, sealed, s.len, &p), 0);
		assert_int_equal(csm_plugin_tpm2.counter_increment(e.ctx, &v), 0);
		assert_true(v > last);
		last = v;
		swtpm_kill(e.tpm);
		assert_int_equal(swtpm_restart(e.tpm), 0);
	}
	assert_int_equal(tpm2_sign_verify(&e, &k), 0);
	csm_plugin_tpm2.idle(e.ctx);
	tpm2_other_open(&other, e.tpm);
	assert_int_equal(tpm2_other_property(&other, TPM2_PT_LOCKOUT_COUNTER), 0);
	tpm2_other_close(&other);
	assert_false(tpm2_env_health(&e).lockout);
	tpm2_key_unload(&e, &k);
	tpm2_env_stop(&e);
}

/* Another client flushes all that is in the TPM: keys, then our session. */
static void flushed_by_another(void **state)
{
	static const TPM2_HANDLE kinds[] = {TRANSIENT_OBJECTS, LOADED_SESSIONS};
	struct tpm2_env e;
	struct tpm2_other other;
	struct tpm2_key k[3];
	TPM2_HANDLE h[16];

	(void)state;
	tpm2_env_start(&e);
	for (int i = 0; i < 3; i++)
		tpm2_key_make(&e, CSM_ALG_P256, CSM_USE_SIGN, &k[i]);
	tpm2_other_open(&other, e.tpm);
	for (int round = 0; round < 6; round++) {
		size_t n;

		for (int i = 0; i < 3; i++)
			assert_int_equal(tpm2_sign_verify(&e, &k[i]), 0);
		csm_plugin_tpm2.idle(e.ctx);
		n = tpm2_other_handles(&other, kinds[round % 2], h, 16);
		assert_true(n > 0);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(tpm2_other_flush(&other, h[i]), 0);
	}
	for (int i = 0; i < 3; i++)
		assert_int_equal(tpm2_sign_verify(&e, &k[i]), 0);
	assert_int_equal(tpm2_env_health(&e).resets, 0);
	for (int i = 0; i < 3; i++)
		tpm2_key_unload(&e, &k[i]);
	csm_plugin_tpm2.idle(e.ctx);
	assert_int_equal(tpm2_other_handles(&other, TRANSIENT_OBJECTS, h, 16), 0);
	assert_int_equal(tpm2_other_handles(&other, LOADED_SESSIONS, h, 16), 1);
	tpm2_other_close(&other);
	tpm2_env_stop(&e);
}

static ESYS_TR other_primary(struct tpm2_other *o)
{
	TPM2B_PUBLIC pub = {.publicArea = {.type = TPM2_ALG_ECC,
				    .nameAlg = TPM2_ALG_SHA256,
				    .objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT |
					    TPMA_OBJECT_SENSITIVEDATAORIGIN | TPMA_OBJECT_USERWITHAUTH |
					    TPMA_OBJECT_NODA | TPMA_OBJECT_SIGN_ENCRYPT}};
	TPM2B_SENSITIVE_CREATE sens = {0};
	TPML_PCR_SELECTION pcr = {0};
	TPM2B_DATA outside = {0};
	ESYS_TR h = ESYS_TR_NONE;

	pub.publicArea.parameters.eccDetail.curveID = TPM2_ECC_NIST_P256;
	pub.publicArea.parameters.eccDetail.scheme.scheme = TPM2_ALG_NULL;
	pub.publicArea.parameters.eccDetail.symmetric.algorithm = TPM2_ALG_NULL;
	pub.publicArea.parameters.eccDetail.kdf.scheme = TPM2_ALG_NULL;
	assert_int_equal(Esys_CreatePrimary(o->esys, ESYS_TR_RH_OWNER, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
				 &sens, &pub, &outside, &pcr, &h, NULL, NULL, NULL, NULL),
		0);
	return h;
}

/* Our key was flushed and another client's, of the same kind, sits at its handle: it must not sign for us. */
static void a_foreign_key_at_our_handle(void **state)
{
	struct tpm2_env e;
	struct tpm2_other other;
	struct tpm2_key k;
	TPM2_HANDLE h[16];
	ESYS_TR foreign;

	(void)state;
	tpm2_env_start(&e);
	tpm2_key_make(&e, CSM_ALG_P256, CSM_USE_SIGN, &k);
	assert_int_equal(tpm2_sign_verify(&e, &k), 0);
	csm_plugin_tpm2.idle(e.ctx);
	tpm2_other_open(&other, e.tpm);
	assert_int_equal(tpm2_other_handles(&other, TRANSIENT_OBJECTS, h, 16), 1);
	assert_int_equal(tpm2_other_flush(&other, h[0]), 0);
	foreign = other_primary(&other);
	assert_int_equal(tpm2_sign_verify(&e, &k), 0);
	csm_plugin_tpm2.idle(e.ctx);
	/* and the other one's key was not flushed for it */
	assert_int_equal(tpm2_other_handles(&other, TRANSIENT_OBJECTS, h, 16), 2);
	assert_int_equal(Esys_FlushContext(other.esys, foreign), 0);
	tpm2_key_unload(&e, &k);
	tpm2_other_close(&other);
	tpm2_env_stop(&e);
}

static void slots_taken_by_another(void **state)
{
	struct tpm2_env e;
	struct tpm2_other other;
	struct tpm2_key k[3];
	ESYS_TR foreign[3];

	(void)state;
	tpm2_env_start(&e);
	for (int i = 0; i < 3; i++)
		tpm2_key_make(&e, CSM_ALG_P256, CSM_USE_SIGN, &k[i]);
	csm_plugin_tpm2.idle(e.ctx);
	tpm2_other_open(&other, e.tpm);
	foreign[0] = other_primary(&other);
	/* two slots are left: a load under the persistent parent needs both */
	for (int i = 0; i < 9; i++)
		assert_int_equal(tpm2_sign_verify(&e, &k[i % 3]), 0);
	for (int i = 0; i < 3; i++)
		tpm2_key_unload(&e, &k[i]);
	csm_plugin_tpm2.idle(e.ctx);
	foreign[1] = other_primary(&other);
	foreign[2] = other_primary(&other);
	assert_int_equal(tpm2_key_load(&e, &k[0]), 0);
	assert_int_equal(tpm2_sign_verify(&e, &k[0]), CSM_EUNAVAILABLE);
	csm_plugin_tpm2.idle(e.ctx);
	for (int i = 0; i < 3; i++)
		assert_int_equal(Esys_FlushContext(other.esys, foreign[i]), 0);
	assert_int_equal(tpm2_sign_verify(&e, &k[0]), 0);
	tpm2_key_unload(&e, &k[0]);
	tpm2_other_close(&other);
	tpm2_env_stop(&e);
}

static void sessions_taken_by_another(void **state)
{
	TPMT_SYM_DEF sym = {.algorithm = TPM2_ALG_NULL};
	struct tpm2_env e;
	struct tpm2_other other;
	struct tpm2_key k;
	ESYS_TR taken[3];

	(void)state;
	tpm2_env_start(&e);
	tpm2_key_make(&e, CSM_ALG_P256, CSM_USE_SIGN, &k);
	tpm2_key_unload(&e, &k);
	tpm2_env_close(&e);
	tpm2_other_open(&other, e.tpm);
	for (int i = 0; i < 3; i++)
		assert_int_equal(Esys_StartAuthSession(other.esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE,
					 ESYS_TR_NONE, ESYS_TR_NONE, NULL, TPM2_SE_POLICY, &sym, TPM2_ALG_SHA256,
					 &taken[i]),
			0);
	tpm2_env_open(&e);
	assert_false(tpm2_env_health(&e).usable);
	assert_non_null(strstr(tpm2_env_health(&e).reason, "session slot"));
	assert_int_equal(tpm2_key_load(&e, &k), 0);
	assert_int_equal(tpm2_sign_verify(&e, &k), CSM_EUNAVAILABLE);
	csm_plugin_tpm2.idle(e.ctx);
	assert_int_equal(Esys_FlushContext(other.esys, taken[1]), 0);
	assert_int_equal(tpm2_sign_verify(&e, &k), 0);
	tpm2_key_unload(&e, &k);
	csm_plugin_tpm2.idle(e.ctx);
	for (int i = 0; i < 3; i += 2)
		assert_int_equal(Esys_FlushContext(other.esys, taken[i]), 0);
	tpm2_other_close(&other);
	tpm2_env_stop(&e);
}

/* The connection is given up in pauses, so that others get in; and after 100 ms of work. */
static void others_get_in(void **state)
{
	struct tpm2_env e;
	struct tpm2_other other;
	struct tpm2_key k;
	unsigned devices;
	uint64_t end;

	(void)state;
	tpm2_env_start(&e);
	tpm2_key_make(&e, CSM_ALG_P256, CSM_USE_SIGN, &k);
	assert_int_equal(tpm2_sign_verify(&e, &k), 0);
	devices = e.host.devices;
	end = now_ms() + 600;
	while (now_ms() < end)
		assert_int_equal(tpm2_sign_verify(&e, &k), 0);
	assert_in_range(e.host.devices - devices, 2, 6);
	tpm2_other_open(&other, e.tpm);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(tpm2_sign_verify(&e, &k), 0);
		csm_plugin_tpm2.idle(e.ctx);
		assert_int_equal(tpm2_other_property(&other, TPM2_PT_LOCKOUT_COUNTER), 0);
	}
	tpm2_key_unload(&e, &k);
	csm_plugin_tpm2.idle(e.ctx);
	tpm2_other_close(&other);
	tpm2_env_stop(&e);
}

/* A stopped TPM: the call ends in bounded time, and a late answer is not taken for another's. */
static void a_stopped_tpm(void **state)
{
	struct tpm2_env e;
	struct tpm2_key k;
	uint64_t t0 = now_ms();

	(void)state;
	tpm2_env_start(&e);
	tpm2_key_make(&e, CSM_ALG_P256, CSM_USE_SIGN, &k);
	assert_int_equal(tpm2_sign_verify(&e, &k), 0);
	kill(e.tpm->pid, SIGSTOP);
	assert_int_equal(tpm2_sign_verify(&e, &k), CSM_EUNAVAILABLE);
	assert_true(now_ms() - t0 < 20000);
	kill(e.tpm->pid, SIGCONT);
	swtpm_pause_ms(1100);
	for (int i = 0; i < 10; i++)
		assert_int_equal(tpm2_sign_verify(&e, &k), 0);
	tpm2_key_unload(&e, &k);
	tpm2_env_stop(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(restarted_between_calls),
		cmocka_unit_test(away_then_back),
		cmocka_unit_test(a_key_with_an_authorisation),
		cmocka_unit_test(opened_while_away),
		cmocka_unit_test(restarted_under_use),
		cmocka_unit_test(chip_reset),
		cmocka_unit_test(power_cuts_do_not_lock_out),
		cmocka_unit_test(flushed_by_another),
		cmocka_unit_test(a_foreign_key_at_our_handle),
		cmocka_unit_test(slots_taken_by_another),
		cmocka_unit_test(sessions_taken_by_another),
		cmocka_unit_test(others_get_in),
		cmocka_unit_test(a_stopped_tpm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
