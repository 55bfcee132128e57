/* Where the store's root key comes from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sodium.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/node/root.h"

static struct broker b;
static uint8_t key[32], wrapped[512], got[32];
static const char *why;

static struct csm_root_source with(enum csm_root_key_mode mode, const char *secret)
{
	struct csm_root_source s;

	memset(&b, 0, sizeof(b));
	b.cfg.root_key = mode;
	b.setup.root_secret = (struct csm_bin){(const uint8_t *)secret, secret != NULL ? strlen(secret) : 0};
	assert_int_equal(root_source(&b, &s, &why), 0);
	assert_null(s.counter_read);
	return s;
}

static void what_one_secret_wraps_another_does_not_open(void **state)
{
	static const enum csm_root_key_mode modes[] = {CSM_ROOT_FILE, CSM_ROOT_CREDENTIAL, CSM_ROOT_PASSPHRASE};
	static const char *const names[] = {"file", "credential", "passphrase"};

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct csm_root_source s = with(modes[i], "a secret from outside");
		struct csm_plugin_out out = {.p = wrapped, .cap = sizeof(wrapped)}, small = {.p = wrapped, .cap = 87};
		uint8_t first[512];
		size_t n;

		assert_string_equal(s.mode, names[i]);
		randombytes_buf(key, sizeof(key));
		assert_int_equal(s.wrap(s.arg, key, &out), 0);
		n = out.len;
		memcpy(first, wrapped, n);
		assert_int_equal(s.wrap(s.arg, key, &small), CSM_ETOO_LARGE);
		/* Never twice the same. */
		assert_int_equal(s.wrap(s.arg, key, &out), 0);
		assert_memory_not_equal(first, wrapped, n);
		assert_int_equal(s.unwrap(s.arg, first, n, got), 0);
		assert_memory_equal(got, key, 32);
		assert_int_equal(s.unwrap(s.arg, wrapped, n, got), 0);
		wrapped[n - 1] ^= 1;
		assert_int_equal(s.unwrap(s.arg, wrapped, n, got), CSM_EINVALID);
		assert_int_equal(s.unwrap(s.arg, wrapped, n - 1, got), CSM_ETAMPERED);
		assert_int_equal(s.unwrap(s.arg, wrapped, 0, got), CSM_ETAMPERED);
		s = with(modes[i], "a secret from outsidE");
		assert_int_equal(s.unwrap(s.arg, first, n, got), CSM_EINVALID);
	}
}

static void without_its_secret_it_is_unavailable(void **state)
{
	struct csm_root_source s;

	(void)state;
	memset(&b, 0, sizeof(b));
	b.cfg.root_key = CSM_ROOT_PASSPHRASE;
	assert_int_equal(root_source(&b, &s, &why), CSM_EUNAVAILABLE);
	assert_true(strlen(why) > 0);
	b.setup.root_secret = (struct csm_bin){(const uint8_t *)"", 0};
	assert_int_equal(root_source(&b, &s, &why), CSM_EUNAVAILABLE);
	/* Wiped after it was opened: it cannot be asked again. */
	s = with(CSM_ROOT_FILE, "secret");
	b.setup.root_secret = (struct csm_bin){NULL, 0};
	assert_int_equal(s.unwrap(s.arg, wrapped, 88, got), CSM_EUNAVAILABLE);
}

/* ---- the TPM, played by the scripted back end ---- */

static const char *config_of(void *arg, const char *name)
{
	return strcmp(name, "script") == 0 ? arg : NULL;
}

static void add_tpm(struct csm_plugin *p, const char *script)
{
	struct csm_backend *be = &b.backends[0];

	memset(&b, 0, sizeof(b));
	*p = csm_plugin_fake;
	p->name = "tpm2";
	b.n_backends = 1;
	be->plugin = p;
	be->host = (struct csm_plugin_host){.arg = (void *)(uintptr_t)script, .config = config_of};
	pthread_mutex_init(&be->health_lock, NULL);
}

static void sealed_by_the_tpm(void **state)
{
	struct csm_plugin_out out = {.p = wrapped, .cap = sizeof(wrapped)};
	struct csm_root_source s;
	struct csm_plugin p;
	uint64_t n = 0;

	(void)state;
	/* There is none; or it is not open yet. */
	memset(&b, 0, sizeof(b));
	assert_int_equal(root_source(&b, &s, &why), CSM_EUNAVAILABLE);
	assert_non_null(strstr(why, "this machine has none"));
	add_tpm(&p, "unseal=after:1,fail:UNAVAILABLE:1; counter_increment=after:1,fail:LOCKOUT:1");
	b.setup.device = CSM_STR("/dev/tpmrm0");
	assert_int_equal(root_source(&b, &s, &why), CSM_EUNAVAILABLE);
	assert_non_null(strstr(why, "not usable"));
	assert_int_equal(csm_backend_open(&b.backends[0]), 0);
	assert_int_equal(csm_backend_start(&b.backends[0], 4, 4), 0);
	assert_int_equal(root_source(&b, &s, &why), 0);
	assert_string_equal(s.mode, "tpm");
	randombytes_buf(key, sizeof(key));
	assert_int_equal(s.wrap(s.arg, key, &out), 0);
	assert_int_equal(s.unwrap(s.arg, wrapped, out.len, got), 0);
	assert_memory_equal(got, key, 32);
	assert_int_equal(s.unwrap(s.arg, wrapped, out.len, got), CSM_EUNAVAILABLE);
	wrapped[20] ^= 1;
	assert_int_not_equal(s.unwrap(s.arg, wrapped, out.len, got), 0);
	/* What it sealed is not 32 bytes long. */
	out.len = 0;
	assert_int_equal(csm_be_seal(&b.backends[0], (struct csm_bin){key, 31}, &out), 0);
	assert_int_equal(s.unwrap(s.arg, wrapped, out.len, got), CSM_ETAMPERED);
	assert_int_equal(s.counter_increment(s.arg, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(s.counter_increment(s.arg, &n), CSM_ELOCKOUT);
	assert_int_equal(s.counter_read(s.arg, &n), 0);
	assert_int_equal(n, 1);
	csm_backend_stop(&b.backends[0]);
	csm_backend_close(&b.backends[0]);
	b.n_backends = 0;
	assert_int_equal(s.counter_read(s.arg, &n), CSM_EUNAVAILABLE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_one_secret_wraps_another_does_not_open),
		cmocka_unit_test(without_its_secret_it_is_unavailable),
		cmocka_unit_test(sealed_by_the_tpm),
	};

	alarm(120);
	return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
