/* The storage root key: what is accepted, made, pinned and refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <tss2/tss2_tpm2_types.h>
#include "tests/lib/tpm2_env.h"

#define SRK 0x81000001u
#define STORAGE \
	(TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN | TPMA_OBJECT_USERWITHAUTH | \
		TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT)

/* A TPM without the back end, and another client on it. */
static void bare_start(struct tpm2_env *e, struct tpm2_other *o)
{
	memset(e, 0, sizeof(*e));
	e->tpm = swtpm_start();
	assert_non_null(e->tpm);
	swtpm_host_init(&e->host, e->tpm);
	e->host.quiet = true;
	tpm2_other_open(o, e->tpm);
}

static void bare_stop(struct tpm2_env *e, struct tpm2_other *o)
{
	tpm2_other_close(o);
	tpm2_env_stop(e);
}

static TPM2B_PUBLIC storage_template(TPMI_ALG_PUBLIC type, TPMA_OBJECT attributes)
{
	TPM2B_PUBLIC pub = {
		.publicArea = {.type = type, .nameAlg = TPM2_ALG_SHA256, .objectAttributes = attributes}};
	TPMT_SYM_DEF_OBJECT sym = {.algorithm = TPM2_ALG_AES, .keyBits.aes = 128, .mode.aes = TPM2_ALG_CFB};

	if (type == TPM2_ALG_ECC) {
		pub.publicArea.parameters.eccDetail.symmetric = sym;
		pub.publicArea.parameters.eccDetail.scheme.scheme = TPM2_ALG_NULL;
		pub.publicArea.parameters.eccDetail.curveID = TPM2_ECC_NIST_P256;
		pub.publicArea.parameters.eccDetail.kdf.scheme = TPM2_ALG_NULL;
	} else {
		pub.publicArea.parameters.rsaDetail.symmetric = sym;
		pub.publicArea.parameters.rsaDetail.scheme.scheme = TPM2_ALG_NULL;
		pub.publicArea.parameters.rsaDetail.keyBits = 2048;
	}
	return pub;
}

/* What some other software may have put at the storage root key's place. */
static void persist(struct tpm2_other *o, const TPM2B_PUBLIC *pub)
{
	TPM2B_SENSITIVE_CREATE sens = {0};
	TPML_PCR_SELECTION pcr = {0};
	TPM2B_DATA outside = {0};
	ESYS_TR h = ESYS_TR_NONE, p = ESYS_TR_NONE;

	assert_int_equal(Esys_CreatePrimary(o->esys, ESYS_TR_RH_OWNER, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
				 &sens, pub, &outside, &pcr, &h, NULL, NULL, NULL, NULL),
		0);
	assert_int_equal(Esys_EvictControl(o->esys, ESYS_TR_RH_OWNER, h, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
				 SRK, &p),
		0);
	assert_int_equal(Esys_FlushContext(o->esys, h), 0);
	assert_int_equal(Esys_TR_Close(o->esys, &p), 0);
}

static void evict(struct tpm2_other *o)
{
	ESYS_TR h = ESYS_TR_NONE, p = ESYS_TR_NONE;

	assert_int_equal(Esys_TR_FromTPMPublic(o->esys, SRK, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &h), 0);
	assert_int_equal(Esys_EvictControl(o->esys, ESYS_TR_RH_OWNER, h, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
				 SRK, &p),
		0);
}

static void set_auth(struct tpm2_other *o, ESYS_TR hierarchy, const char *auth)
{
	TPM2B_AUTH a = {.size = (UINT16)strlen(auth)};

	memcpy(a.buffer, auth, a.size);
	assert_int_equal(
		Esys_HierarchyChangeAuth(o->esys, hierarchy, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &a), 0);
}

static void assert_refused(struct tpm2_env *e, const char *word)
{
	struct csm_plugin_health h = tpm2_env_health(e);
	struct tpm2_key k;

	assert_false(h.usable);
	assert_non_null(h.reason);
	if (strstr(h.reason, word) == NULL)
		fail_msg("reason is: %s", h.reason);
	assert_int_equal(tpm2_key_generate(e, CSM_ALG_P256, CSM_USE_SIGN, &k), CSM_EUNAVAILABLE);
}

static void assert_works(struct tpm2_env *e)
{
	struct tpm2_key k;

	assert_true(tpm2_env_health(e).usable);
	tpm2_key_make(e, CSM_ALG_P256, CSM_USE_SIGN, &k);
	assert_int_equal(tpm2_sign_verify(e, &k), 0);
	tpm2_key_unload(e, &k);
	csm_plugin_tpm2.idle(e->ctx);
}

static void made_by_the_template(void **state)
{
	TPM2B_PUBLIC *pub = NULL, want = storage_template(TPM2_ALG_ECC, STORAGE | TPMA_OBJECT_NODA);
	TPM2B_NAME *name = NULL;
	struct tpm2_other o;
	struct tpm2_env e;
	const uint8_t *pin;
	ESYS_TR h;
	size_t len = 0;

	(void)state;
	bare_start(&e, &o);
	tpm2_env_open(&e);
	assert_works(&e);
	assert_int_equal(Esys_TR_FromTPMPublic(o.esys, SRK, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &h), 0);
	assert_int_equal(
		Esys_ReadPublic(o.esys, h, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &pub, &name, NULL), 0);
	assert_int_equal(pub->publicArea.type, TPM2_ALG_ECC);
	assert_int_equal(pub->publicArea.objectAttributes, want.publicArea.objectAttributes);
	pin = swtpm_host_kept(&e.host, "tpm2.srk", &len);
	assert_non_null(pin);
	assert_int_equal(len, 2 + name->size);
	assert_memory_equal(pin + 2, name->name, name->size);
	Esys_Free(pub);
	Esys_Free(name);
	/* Taken away, then made again from the TCG's template with unique = zeros: the same key. */
	tpm2_env_close(&e);
	evict(&o);
	want.publicArea.unique.ecc.x.size = want.publicArea.unique.ecc.y.size = 32;
	persist(&o, &want);
	tpm2_env_open(&e);
	assert_works(&e);
	bare_stop(&e, &o);
}

static void an_rsa_one_of_the_template_is_accepted(void **state)
{
	TPM2B_PUBLIC pub = storage_template(TPM2_ALG_RSA, STORAGE | TPMA_OBJECT_NODA);
	struct tpm2_other o;
	struct tpm2_env e;

	(void)state;
	bare_start(&e, &o);
	persist(&o, &pub);
	tpm2_env_open(&e);
	assert_works(&e);
	bare_stop(&e, &o);
}

static void a_foreign_one_is_refused(void **state)
{
	TPM2B_PUBLIC pub = storage_template(TPM2_ALG_ECC, STORAGE);
	struct tpm2_other o;
	struct tpm2_env e;
	size_t len;

	(void)state;
	bare_start(&e, &o);
	persist(&o, &pub);
	tpm2_env_open(&e);
	assert_refused(&e, "noDA");
	assert_null(swtpm_host_kept(&e.host, "tpm2.srk", &len));
	tpm2_env_close(&e);
	/* unless the configuration wants it */
	swtpm_host_config(&e.host, "accept_foreign", "true");
	tpm2_env_open(&e);
	assert_works(&e);
	bare_stop(&e, &o);
}

/* Not a storage key at all: refused even then. */
static void a_signing_key_is_never_accepted(void **state)
{
	TPM2B_PUBLIC pub = storage_template(TPM2_ALG_ECC,
		TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN |
			TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA | TPMA_OBJECT_SIGN_ENCRYPT);
	struct tpm2_other o;
	struct tpm2_env e;

	(void)state;
	pub.publicArea.parameters.eccDetail.symmetric.algorithm = TPM2_ALG_NULL;
	bare_start(&e, &o);
	persist(&o, &pub);
	swtpm_host_config(&e.host, "accept_foreign", "true");
	tpm2_env_open(&e);
	assert_refused(&e, "storage key");
	bare_stop(&e, &o);
}

static void another_than_the_pinned_is_refused(void **state)
{
	TPM2B_PUBLIC pub = storage_template(TPM2_ALG_ECC, STORAGE | TPMA_OBJECT_NODA);
	struct tpm2_other o;
	struct tpm2_env e;
	struct tpm2_key k;

	(void)state;
	bare_start(&e, &o);
	tpm2_env_open(&e);
	tpm2_key_make(&e, CSM_ALG_P256, CSM_USE_SIGN, &k);
	assert_int_equal(tpm2_sign_verify(&e, &k), 0);
	csm_plugin_tpm2.idle(e.ctx);
	/* same attributes, other unique (empty): another key; first under a running back end */
	evict(&o);
	persist(&o, &pub);
	tpm2_key_unload(&e, &k);
	assert_int_equal(tpm2_key_load(&e, &k), 0);
	assert_int_equal(tpm2_sign_verify(&e, &k), CSM_EUNAVAILABLE);
	tpm2_key_unload(&e, &k);
	csm_plugin_tpm2.idle(e.ctx);
	swtpm_pause_ms(1100);
	assert_refused(&e, "another one");
	/* then at a start */
	tpm2_env_close(&e);
	tpm2_env_open(&e);
	assert_refused(&e, "another one");
	tpm2_env_close(&e);
	/* a pin that was damaged is no pin, but not none either */
	e.host.kept[0].len = 5;
	tpm2_env_open(&e);
	assert_refused(&e, "cannot be read");
	bare_stop(&e, &o);
}

/* TPM2_Clear: keys are never made anew silently. */
static void a_cleared_tpm_is_refused(void **state)
{
	struct tpm2_other o;
	struct tpm2_env e;
	struct tpm2_key k;
	TPM2_HANDLE h[8];

	(void)state;
	bare_start(&e, &o);
	tpm2_env_open(&e);
	tpm2_key_make(&e, CSM_ALG_P256, CSM_USE_SIGN, &k);
	assert_int_equal(tpm2_sign_verify(&e, &k), 0);
	csm_plugin_tpm2.idle(e.ctx);
	assert_int_equal(Esys_Clear(o.esys, ESYS_TR_RH_LOCKOUT, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE), 0);
	assert_int_equal(tpm2_sign_verify(&e, &k), CSM_EUNAVAILABLE);
	tpm2_key_unload(&e, &k);
	csm_plugin_tpm2.idle(e.ctx);
	swtpm_pause_ms(1100);
	assert_refused(&e, "gone");
	csm_plugin_tpm2.idle(e.ctx);
	assert_int_equal(tpm2_other_handles(&o, PERSISTENT_OBJECTS, h, 8), 0);
	bare_stop(&e, &o);
}

static void owner_auth_known(void **state)
{
	struct tpm2_other o;
	struct tpm2_env e;
	uint64_t v = 0;
	size_t len = 0;

	(void)state;
	bare_start(&e, &o);
	set_auth(&o, ESYS_TR_RH_OWNER, "owner's word");
	swtpm_host_config(&e.host, "owner_auth", "owner's word");
	tpm2_env_open(&e);
	assert_works(&e);
	assert_int_equal(swtpm_host_kept(&e.host, "tpm2.srk", &len)[1], 'O');
	assert_int_equal(csm_plugin_tpm2.counter_increment(e.ctx, &v), 0);
	csm_plugin_tpm2.idle(e.ctx);
	bare_stop(&e, &o);
}

/* Owner auth unknown and no key there: the endorsement hierarchy, remade in each life of the TPM. */
static void owner_auth_unknown(void **state)
{
	struct csm_plugin_keyspec exportable = {.alg = CSM_ALG_P256, .use = CSM_USE_SIGN, .exportable = true};
	uint8_t buf[3][2048];
	struct csm_plugin_out out[3] = {{buf[0], 2048, 0}, {buf[1], 2048, 0}, {buf[2], 2048, 0}};
	struct tpm2_other o;
	struct tpm2_env e;
	struct tpm2_key k[3];
	TPM2_HANDLE h[8];
	uint64_t v = 0;
	size_t len = 0;

	(void)state;
	bare_start(&e, &o);
	set_auth(&o, ESYS_TR_RH_OWNER, "secret");
	tpm2_env_open(&e);
	assert_works(&e);
	assert_int_equal(swtpm_host_kept(&e.host, "tpm2.srk", &len)[1], 'E');
	for (int i = 0; i < 3; i++)
		tpm2_key_make(&e, CSM_ALG_P256, CSM_USE_SIGN, &k[i]);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 6; i++)
			assert_int_equal(tpm2_sign_verify(&e, &k[i % 3]), 0);
		swtpm_kill(e.tpm);
		assert_int_equal(swtpm_restart(e.tpm), 0);
	}
	assert_int_equal(tpm2_sign_verify(&e, &k[0]), 0);
	assert_int_equal(csm_plugin_tpm2.generate(e.ctx, &exportable, &out[0], &out[1], &out[2]), CSM_EUNSUPPORTED);
	assert_int_equal(csm_plugin_tpm2.counter_increment(e.ctx, &v), CSM_EUNSUPPORTED);
	/* another client flushes everything, the primary too */
	csm_plugin_tpm2.idle(e.ctx);
	len = tpm2_other_handles(&o, TRANSIENT_OBJECTS, h, 8);
	assert_int_equal(len, 2);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(tpm2_other_flush(&o, h[i]), 0);
	assert_int_equal(tpm2_sign_verify(&e, &k[1]), 0);
	assert_int_equal(tpm2_sign_verify(&e, &k[0]), 0);
	for (int i = 0; i < 3; i++)
		tpm2_key_unload(&e, &k[i]);
	tpm2_env_close(&e);
	assert_int_equal(tpm2_other_handles(&o, TRANSIENT_OBJECTS, h, 8), 0);
	assert_int_equal(tpm2_other_handles(&o, PERSISTENT_OBJECTS, h, 8), 0);
	/* and later the same keys */
	tpm2_env_open(&e);
	assert_int_equal(tpm2_key_load(&e, &k[2]), 0);
	assert_int_equal(tpm2_sign_verify(&e, &k[2]), 0);
	tpm2_key_unload(&e, &k[2]);
	csm_plugin_tpm2.idle(e.ctx);
	bare_stop(&e, &o);
}

static void no_auth_at_all(void **state)
{
	struct tpm2_other o;
	struct tpm2_env e;

	(void)state;
	bare_start(&e, &o);
	set_auth(&o, ESYS_TR_RH_OWNER, "secret");
	set_auth(&o, ESYS_TR_RH_ENDORSEMENT, "secret too");
	swtpm_host_config(&e.host, "owner_auth", "a wrong word");
	tpm2_env_open(&e);
	assert_refused(&e, "authorisation value");
	assert_int_equal(tpm2_other_property(&o, TPM2_PT_LOCKOUT_COUNTER), 0);
	bare_stop(&e, &o);
}

static void the_counter_only_grows(void **state)
{
	struct tpm2_other o;
	struct tpm2_env e;
	uint64_t v = 0, w = 0;
	ESYS_TR nv;

	(void)state;
	bare_start(&e, &o);
	swtpm_host_config(&e.host, "nv_index", "0x01800c54");
	tpm2_env_open(&e);
	assert_int_equal(csm_plugin_tpm2.counter_read(e.ctx, &v), 0);
	assert_int_equal(csm_plugin_tpm2.counter_increment(e.ctx, &w), 0);
	assert_int_equal(w, v + 1);
	tpm2_env_close(&e);
	swtpm_kill(e.tpm);
	assert_int_equal(swtpm_restart(e.tpm), 0);
	tpm2_env_open(&e);
	assert_int_equal(csm_plugin_tpm2.counter_read(e.ctx, &v), 0);
	assert_int_equal(v, w);
	csm_plugin_tpm2.idle(e.ctx);
	/* others cannot count: the authValue is random */
	assert_int_equal(
		Esys_TR_FromTPMPublic(o.esys, 0x01800c54, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &nv), 0);
	assert_int_not_equal(
		Esys_NV_Increment(o.esys, nv, nv, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE), 0);
	/* removed by the owner and made again, it goes on above */
	assert_int_equal(Esys_NV_UndefineSpace(
				 o.esys, ESYS_TR_RH_OWNER, nv, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE),
		0);
	assert_int_equal(csm_plugin_tpm2.counter_read(e.ctx, &v), 0);
	assert_true(v > w);
	csm_plugin_tpm2.idle(e.ctx);
	bare_stop(&e, &o);
}

/* Two stores on one TPM, the second made while the first one's is away: each counts for itself. */
static void each_store_has_its_own_counter(void **state)
{
	struct tpm2_other o;
	struct tpm2_env e;
	struct swtpm_host first, none;
	uint64_t v = 0, w = 0, again = 0;
	TPM2_HANDLE h[8];

	(void)state;
	bare_start(&e, &o);
	none = e.host;
	tpm2_env_open(&e);
	assert_int_equal(csm_plugin_tpm2.counter_increment(e.ctx, &v), 0);
	tpm2_env_close(&e);
	first = e.host;
	memcpy(e.host.kept, none.kept, sizeof(e.host.kept));
	tpm2_env_open(&e);
	assert_int_equal(csm_plugin_tpm2.counter_read(e.ctx, &w), 0);
	assert_int_equal(csm_plugin_tpm2.counter_increment(e.ctx, &w), 0);
	tpm2_env_close(&e);
	memcpy(e.host.kept, first.kept, sizeof(e.host.kept));
	tpm2_env_open(&e);
	assert_int_equal(csm_plugin_tpm2.counter_read(e.ctx, &again), 0);
	assert_int_equal(again, v);
	tpm2_env_close(&e);
	assert_int_equal(tpm2_other_handles(&o, LOADED_SESSIONS, h, 8), 0);
	bare_stop(&e, &o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(made_by_the_template),
		cmocka_unit_test(an_rsa_one_of_the_template_is_accepted),
		cmocka_unit_test(a_foreign_one_is_refused),
		cmocka_unit_test(a_signing_key_is_never_accepted),
		cmocka_unit_test(another_than_the_pinned_is_refused),
		cmocka_unit_test(a_cleared_tpm_is_refused),
		cmocka_unit_test(owner_auth_known),
		cmocka_unit_test(owner_auth_unknown),
		cmocka_unit_test(no_auth_at_all),
		cmocka_unit_test(the_counter_only_grows),
		cmocka_unit_test(each_store_has_its_own_counter),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
