/* What is sealed under PCRs or a signed policy: it comes out while they fit, and only then. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <tss2/tss2_tpm2_types.h>
#include "libclient/tpmfmt/policy.h"
#include "tests/lib/tpm2_env.h"
#include "tests/lib/tpm2_tap.h"

static struct tpm2_env env;
static struct tpm2_tap tap;
static const uint8_t secret[32] = "the root key, which nobody sees";
static uint8_t sealed[2048];
static size_t sealed_len;
static char pem[1024], file[CSM_APPROVALS_TEXT_MAX];

static int start(void **state)
{
	(void)state;
	memset(&env, 0, sizeof(env));
	env.tpm = swtpm_start();
	assert_non_null(env.tpm);
	swtpm_host_init(&env.host, env.tpm);
	env.host.quiet = getenv("CSM_TEST_VERBOSE") == NULL;
	tpm2_tap_start(&tap, &env.host);
	tpm2_env_open(&env);
	assert_true(tpm2_env_health(&env).usable);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	tpm2_env_close(&env);
	tpm2_tap_stop(&tap);
	tpm2_env_stop(&env);
	return 0;
}

static void set(const char *name, const char *value)
{
	swtpm_host_config(&env.host, name, value);
}

static int seal(void)
{
	struct csm_plugin_out out = {sealed, sizeof(sealed), 0};
	int r = csm_plugin_tpm2.seal(env.ctx, secret, sizeof(secret), &out);

	csm_plugin_tpm2.idle(env.ctx);
	sealed_len = out.len;
	return r;
}

static int unseal(void)
{
	uint8_t plain[64];
	struct csm_plugin_out out = {plain, sizeof(plain), 0};
	int r = csm_plugin_tpm2.unseal(env.ctx, sealed, sealed_len, &out);

	csm_plugin_tpm2.idle(env.ctx);
	if (r == 0) {
		assert_int_equal(out.len, sizeof(secret));
		assert_memory_equal(plain, secret, sizeof(secret));
	}
	return r;
}

static void extend(unsigned pcr)
{
	TPML_DIGEST_VALUES v = {.count = 1, .digests = {{.hashAlg = TPM2_ALG_SHA256}}};
	struct tpm2_other o;

	memset(v.digests[0].digest.sha256, 7, 32);
	tpm2_other_open(&o, env.tpm);
	assert_int_equal(Esys_PCR_Extend(o.esys, pcr, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &v), 0);
	tpm2_other_close(&o);
}

static void read_pcrs(uint8_t ret[static CSM_PCRS][CSM_PCR_LEN])
{
	struct tpm2_other o;

	tpm2_other_open(&o, env.tpm);
	for (unsigned i = 0; i < CSM_PCRS; i++) {
		TPML_PCR_SELECTION sel = {1, {{TPM2_ALG_SHA256, 3, {0}}}}, *got = NULL;
		TPML_DIGEST *values = NULL;
		UINT32 counter;

		sel.pcrSelections[0].pcrSelect[i / 8] = (BYTE)(1u << i % 8);
		assert_int_equal(
			Esys_PCR_Read(o.esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &sel, &counter, &got, &values), 0);
		assert_int_equal(values->digests[0].size, CSM_PCR_LEN);
		memcpy(ret[i], values->digests[0].buffer, CSM_PCR_LEN);
		Esys_Free(got);
		Esys_Free(values);
	}
	tpm2_other_close(&o);
}

static void nothing_is_left(void)
{
	TPM2_HANDLE h[8];
	struct tpm2_other o;

	tpm2_other_open(&o, env.tpm);
	assert_int_equal(tpm2_other_handles(&o, TRANSIENT_OBJECTS, h, 8), 0);
	assert_int_equal(tpm2_other_handles(&o, LOADED_SESSIONS, h, 8), 1); /* our own */
	tpm2_other_close(&o);
}

/* ---- PCRs ---- */

static void pcrs_let_out_until_one_changes(void **state)
{
	(void)state;
	set("pcrs", "0,2,7");
	assert_int_equal(seal(), 0);
	assert_string_equal(tpm2_env_health(&env).sealed, "sha256:0,2,7");
	assert_int_equal(unseal(), 0);
	extend(4);
	assert_int_equal(unseal(), 0);
	nothing_is_left();
	extend(7);
	for (int i = 0; i < 5; i++)
		assert_int_equal(unseal(), CSM_EDENIED);
	assert_non_null(strstr(tpm2_env_health(&env).seal_refused, "PCRs 0,2,7"));
	assert_true(tpm2_env_health(&env).usable);
	assert_int_equal(tpm2_env_health(&env).lockout_counter, 0);
	nothing_is_left();
	assert_int_equal(seal(), 0);
	assert_int_equal(unseal(), 0);
	assert_null(tpm2_env_health(&env).seal_refused);
	assert_false(tpm2_tap_has(&tap, secret, 16));
}

static void a_pcr_that_moves_meanwhile_is_waited_out(void **state)
{
	(void)state;
	set("pcrs", "7");
	assert_int_equal(seal(), 0);
	tpm2_tap_set(&tap, TAP_ANSWER, TPM2_CC_Unseal, 5, TPM2_RC_PCR_CHANGED, 0);
	assert_int_equal(unseal(), 0);
	assert_int_equal(tpm2_tap_seen(&tap), 6);
	tpm2_tap_set(&tap, TAP_ANSWER, TPM2_CC_Unseal, 1000, TPM2_RC_PCR_CHANGED, 0);
	assert_int_not_equal(unseal(), 0);
	tpm2_tap_set(&tap, TAP_NONE, TAP_ALL, 0, 0, 0);
	assert_int_equal(unseal(), 0);
	nothing_is_left();
}

/* A password session, the old way in, does not open it: only the policy does. */
static void no_auth_value_opens_it(void **state)
{
	(void)state;
	set("pcrs", "7");
	assert_int_equal(seal(), 0);
	/* the sealed form without its policy, as if it were under none */
	uint8_t plain[2048] = {'C', 'S', 'T', 1};
	size_t head = 4 + 6;
	uint8_t keep[2048];
	size_t keep_len = sealed_len;

	memcpy(keep, sealed, sealed_len);
	memcpy(plain + 4, sealed + head, sealed_len - head);
	memcpy(sealed, plain, sealed_len - head + 4);
	sealed_len -= head - 4;
	assert_int_equal(unseal(), CSM_EINVALID);
	memcpy(sealed, keep, keep_len);
	sealed_len = keep_len;
	assert_int_equal(unseal(), 0);
}

static void other_pcrs_in_the_form_do_not_help(void **state)
{
	(void)state;
	set("pcrs", "7");
	assert_int_equal(seal(), 0);
	extend(7);
	sealed[7] ^= 0x40 | 0x80; /* bits 6 and 7 of the mask's second last byte, then of the last */
	assert_int_not_equal(unseal(), 0);
	sealed[7] ^= 0x40 | 0x80;
	sealed[8] ^= 0x80 | 0x40; /* PCR 6 in place of 7 */
	assert_int_equal(unseal(), CSM_EDENIED);
}

static void every_bit_of_the_form_counts(void **state)
{
	(void)state;
	set("pcrs", "7");
	assert_int_equal(seal(), 0);
	for (size_t i = 0; i < sealed_len; i += i < 12 ? 1 : 7) {
		sealed[i] ^= 0x10;
		assert_int_not_equal(unseal(), 0);
		sealed[i] ^= 0x10;
	}
	for (size_t n = 0; n < sealed_len; n += 9) {
		size_t whole = sealed_len;

		sealed_len = n;
		assert_int_not_equal(unseal(), 0);
		sealed_len = whole;
	}
	assert_int_equal(unseal(), 0);
}

static void a_changed_configuration_is_told(void **state)
{
	(void)state;
	set("pcrs", NULL);
	assert_int_equal(seal(), 0);
	assert_string_equal(tpm2_env_health(&env).sealed, "none");
	assert_false(tpm2_env_health(&env).seal_due);
	set("pcrs", "0,7");
	assert_int_equal(unseal(), 0);
	assert_true(tpm2_env_health(&env).seal_due);
	assert_int_equal(seal(), 0);
	assert_false(tpm2_env_health(&env).seal_due);
	set("pcrs", NULL);
	assert_int_equal(unseal(), 0); /* the form says under what it is */
	assert_true(tpm2_env_health(&env).seal_due);
}

/* ---- signed policies ---- */

static EVP_PKEY *new_signer(bool rsa)
{
	EVP_PKEY *k = rsa ? EVP_RSA_gen(2048) : EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");

	assert_non_null(k);
	return k;
}

static void use_signer(EVP_PKEY *k)
{
	BIO *b = BIO_new(BIO_s_mem());
	int n;

	assert_int_equal(PEM_write_bio_PUBKEY(b, k), 1);
	n = BIO_read(b, pem, sizeof(pem) - 1);
	assert_true(n > 0);
	pem[n] = '\0';
	BIO_free(b);
	set("signed_policy", "true");
	set("policy_key", pem);
}

/* An approval of the PCRs as they are, appended to the file. bad: what it has in place of its signature; NULL: that. */
static void approve_as(EVP_PKEY *signer, const char *pcrs, const char *ref, const uint8_t *bad, size_t bad_len)
{
	struct csm_tpm_approval a = {.ref_len = strlen(ref)};
	uint8_t values[CSM_PCRS][CSM_PCR_LEN];
	size_t n = strlen(file);

	assert_true(csm_pcrs_parse(pcrs, strlen(pcrs), &a.pcrs));
	memcpy(a.ref, ref, a.ref_len);
	read_pcrs(values);
	csm_pcr_policy(a.pcrs, values, a.policy);
	assert_int_equal(csm_approval_sign(&a, signer), 0);
	if (bad != NULL) {
		memcpy(a.signature, bad, bad_len);
		a.signature_len = bad_len;
	}
	assert_int_equal(csm_approval_text(&a, file + n, sizeof(file) - n), 0);
	set("policy_file", file);
}

static void approve(EVP_PKEY *signer, const char *pcrs, const char *ref)
{
	approve_as(signer, pcrs, ref, NULL, 0);
}

static void signed_once(bool rsa)
{
	EVP_PKEY *signer = new_signer(rsa), *other = new_signer(rsa);

	file[0] = '\0';
	use_signer(signer);
	approve(signer, "0,7", "");
	assert_int_equal(seal(), 0);
	assert_string_equal(tpm2_env_health(&env).sealed, "signed");
	assert_int_equal(unseal(), 0);
	nothing_is_left();
	extend(7);
	assert_int_equal(unseal(), CSM_EDENIED);
	assert_non_null(strstr(tpm2_env_health(&env).seal_refused, "no approved policy"));
	/* somebody else's approval of the PCRs as they are */
	file[0] = '\0';
	approve(other, "0,7", "");
	assert_int_equal(unseal(), CSM_EDENIED);
	assert_non_null(strstr(tpm2_env_health(&env).seal_refused, "not signed"));
	/* and the signer's, of other PCRs even, behind one that does not fit */
	file[0] = '\0';
	approve(signer, "0,2", "");
	extend(2);
	approve(signer, "0,2,7", "");
	assert_int_equal(unseal(), 0);
	nothing_is_left();
	assert_false(tpm2_tap_has(&tap, secret, 16));
	EVP_PKEY_free(signer);
	EVP_PKEY_free(other);
}

static void what_the_signer_approves_lets_out_the_same_blob(void **state)
{
	(void)state;
	signed_once(false);
}

static void an_rsa_signer_does_too(void **state)
{
	(void)state;
	signed_once(true);
}

static void a_new_ref_revokes(void **state)
{
	EVP_PKEY *signer = new_signer(false);

	(void)state;
	file[0] = '\0';
	use_signer(signer);
	set("policy_ref", "spring");
	approve(signer, "7", "spring");
	assert_int_equal(seal(), 0);
	assert_int_equal(unseal(), 0);
	set("policy_ref", "autumn");
	assert_int_equal(seal(), 0);
	assert_int_equal(unseal(), CSM_EDENIED);
	approve(signer, "7", "autumn");
	assert_int_equal(unseal(), 0);
	EVP_PKEY_free(signer);
}

/* Signatures that do not even look like one, or that no signer can have made, and other signers' are passed over. */
static void passed_over(bool rsa)
{
	static const uint8_t zero[] = {0x30, 6, 2, 1, 0, 2, 1, 0}, junk[] = {1, 2, 3};
	uint8_t ones[256];
	EVP_PKEY *signer = new_signer(rsa), *other = new_signer(rsa), *kind = new_signer(!rsa);

	memset(ones, 0xff, sizeof(ones));
	file[0] = '\0';
	use_signer(signer);
	approve_as(signer, "0,7", "", rsa ? ones : zero, rsa ? sizeof(ones) : sizeof(zero));
	assert_int_equal(seal(), 0);
	assert_int_equal(unseal(), CSM_EDENIED);
	assert_non_null(strstr(tpm2_env_health(&env).seal_refused, "not signed"));
	approve_as(signer, "0,7", "", junk, sizeof(junk));
	approve(kind, "0,7", "");
	for (unsigned n = 3; n < CSM_APPROVALS_MAX - 1; n++)
		approve(other, n % 2 == 0 ? "0,7" : "7", "");
	assert_int_equal(unseal(), CSM_EDENIED);
	assert_non_null(strstr(tpm2_env_health(&env).seal_refused, "not signed"));
	assert_int_equal(tpm2_env_health(&env).lockout_counter, 0);
	nothing_is_left();
	approve(signer, "0,7", "");
	assert_int_equal(unseal(), 0);
	nothing_is_left();
	EVP_PKEY_free(signer);
	EVP_PKEY_free(other);
	EVP_PKEY_free(kind);
}

static void every_approval_that_fits_is_tried(void **state)
{
	(void)state;
	passed_over(false);
	passed_over(true);
}

static void a_signer_follows_another(EVP_PKEY *first, EVP_PKEY *second, bool new_first)
{
	file[0] = '\0';
	use_signer(first);
	approve(first, "7", "");
	assert_int_equal(seal(), 0);
	use_signer(second);
	file[0] = '\0';
	approve(new_first ? second : first, "7", "");
	approve(new_first ? first : second, "7", "");
	assert_int_equal(unseal(), 0); /* by the one that it is sealed under */
	assert_true(tpm2_env_health(&env).seal_due);
	assert_int_equal(seal(), 0);
	assert_int_equal(unseal(), 0); /* by the one of the configuration */
	assert_false(tpm2_env_health(&env).seal_due);
	file[0] = '\0';
	approve(first, "7", "");
	assert_int_equal(unseal(), CSM_EDENIED);
	file[0] = '\0';
	approve(second, "7", "");
	assert_int_equal(unseal(), 0);
	nothing_is_left();
}

static void a_signer_can_be_changed(void **state)
{
	EVP_PKEY *ec = new_signer(false), *ec2 = new_signer(false), *rsa = new_signer(true);

	(void)state;
	a_signer_follows_another(ec, ec2, false);
	a_signer_follows_another(ec, ec2, true);
	a_signer_follows_another(ec2, rsa, false);
	a_signer_follows_another(rsa, ec, false);
	EVP_PKEY_free(ec);
	EVP_PKEY_free(ec2);
	EVP_PKEY_free(rsa);
}

/* Approvals without a key: by them it comes out, and the next seal is under the rest of the configuration. */
static void a_signed_policy_can_be_left(void **state)
{
	static const char *const pcrs[] = {NULL, "0,2"}, *const text[] = {"none", "sha256:0,2"};
	EVP_PKEY *signer = new_signer(false);

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		file[0] = '\0';
		set("pcrs", NULL);
		use_signer(signer);
		approve(signer, "7", "");
		assert_int_equal(seal(), 0);
		set("signed_policy", NULL);
		set("policy_key", NULL);
		set("policy_file", NULL);
		set("pcrs", pcrs[i]);
		assert_int_equal(unseal(), CSM_EDENIED);
		assert_non_null(strstr(tpm2_env_health(&env).seal_refused, "or is not configured"));
		set("policy_file", file);
		assert_int_equal(unseal(), 0);
		assert_true(tpm2_env_health(&env).seal_due);
		assert_int_equal(seal(), 0);
		assert_string_equal(tpm2_env_health(&env).sealed, text[i]);
		set("policy_file", NULL);
		assert_int_equal(unseal(), 0);
		assert_false(tpm2_env_health(&env).seal_due);
	}
	EVP_PKEY_free(signer);
}

static void a_file_or_key_that_is_not_one_is_told(void **state)
{
	EVP_PKEY *signer = new_signer(false), *bad = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-384");

	(void)state;
	file[0] = '\0';
	use_signer(signer);
	approve(signer, "7", "");
	assert_int_equal(seal(), 0);
	set("policy_file", NULL);
	assert_int_equal(unseal(), CSM_EDENIED);
	assert_non_null(strstr(tpm2_env_health(&env).seal_refused, "cannot be read"));
	set("policy_file", "nonsense\n");
	assert_int_equal(unseal(), CSM_EDENIED);
	assert_non_null(strstr(tpm2_env_health(&env).seal_refused, "line 1"));
	set("policy_file", file);
	assert_int_equal(unseal(), 0);
	set("policy_key", NULL);
	assert_int_equal(seal(), CSM_EDENIED);
	use_signer(bad);
	assert_int_equal(seal(), CSM_EDENIED);
	EVP_PKEY_free(signer);
	EVP_PKEY_free(bad);
}

/* ---- answers that get lost, and foreign hands ---- */

static void lost_answers_leave_nothing_behind(void **state)
{
	static const uint32_t commands[] = {TPM2_CC_StartAuthSession, TPM2_CC_PolicyPCR, TPM2_CC_Load, TPM2_CC_Unseal,
		TPM2_CC_LoadExternal, TPM2_CC_VerifySignature, TPM2_CC_PolicyAuthorize, TPM2_CC_FlushContext};
	EVP_PKEY *signer = new_signer(false);

	(void)state;
	file[0] = '\0';
	use_signer(signer);
	approve(signer, "7", "");
	assert_int_equal(seal(), 0);
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		tpm2_tap_set(&tap, TAP_LOSE, commands[i], 1, 0, 0);
		(void)unseal();
		assert_true(tpm2_tap_seen(&tap) > 0);
		tpm2_tap_set(&tap, TAP_NONE, TAP_ALL, 0, 0, 0);
		assert_int_equal(unseal(), 0);
	}
	EVP_PKEY_free(signer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(pcrs_let_out_until_one_changes, start, stop),
		cmocka_unit_test_setup_teardown(a_pcr_that_moves_meanwhile_is_waited_out, start, stop),
		cmocka_unit_test_setup_teardown(no_auth_value_opens_it, start, stop),
		cmocka_unit_test_setup_teardown(other_pcrs_in_the_form_do_not_help, start, stop),
		cmocka_unit_test_setup_teardown(every_bit_of_the_form_counts, start, stop),
		cmocka_unit_test_setup_teardown(a_changed_configuration_is_told, start, stop),
		cmocka_unit_test_setup_teardown(what_the_signer_approves_lets_out_the_same_blob, start, stop),
		cmocka_unit_test_setup_teardown(an_rsa_signer_does_too, start, stop),
		cmocka_unit_test_setup_teardown(a_new_ref_revokes, start, stop),
		cmocka_unit_test_setup_teardown(every_approval_that_fits_is_tried, start, stop),
		cmocka_unit_test_setup_teardown(a_signer_can_be_changed, start, stop),
		cmocka_unit_test_setup_teardown(a_signed_policy_can_be_left, start, stop),
		cmocka_unit_test_setup_teardown(a_file_or_key_that_is_not_one_is_told, start, stop),
		cmocka_unit_test_setup_teardown(lost_answers_leave_nothing_behind, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
