#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/svc/keycache.h"

/* A back end that counts its keys. */
static atomic_int loaded;
static int load_result;
static struct csm_plugin_keyspec last_spec;
static size_t last_priv_len;

static int count_load(struct csm_plugin_ctx *ctx, const struct csm_plugin_keyspec *spec,
	const struct csm_plugin_blob *blob, struct csm_plugin_key **ret)
{
	(void)ctx;
	last_spec = *spec;
	last_priv_len = blob->priv_len;
	if (load_result != 0)
		return load_result;
	*ret = malloc(1);
	atomic_fetch_add(&loaded, 1);
	return 0;
}

static void count_unload(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key)
{
	(void)ctx;
	free(key);
	atomic_fetch_sub(&loaded, 1);
}

static const struct csm_plugin plugin = {.name = "counting", .load = count_load, .unload = count_unload};
static int context;
static struct csm_backend be;
static struct csm_keycache cache;

static int setup(void **state)
{
	(void)state;
	memset(&be, 0, sizeof(be));
	be.plugin = &plugin;
	be.ctx = (struct csm_plugin_ctx *)(void *)&context;
	loaded = 0;
	load_result = 0;
	csm_keycache_init(&cache, 8);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	csm_keycache_drop(&cache, NULL);
	return loaded == 0 ? 0 : -1;
}

static const uint8_t *id_of(unsigned i)
{
	static _Thread_local uint8_t id[CSM_KEY_ID_LEN];

	memset(id, 0, sizeof(id));
	id[1] = (uint8_t)i;
	id[0] = (uint8_t)(i % 2);
	return id;
}

static struct csm_cached_key *make(unsigned i)
{
	struct csm_key_record rec = {.alg = CSM_ALG_P384, .use = CSM_USE_SIGN, .priv = {(const uint8_t *)"abc", 3}};
	struct csm_cached_key *k = NULL;

	memcpy(rec.id, id_of(i), CSM_KEY_ID_LEN);
	assert_int_equal(csm_cached_key_load(&be, &rec, &k), 0);
	return k;
}

static void taken_keys_are_the_callers(void **state)
{
	struct csm_cached_key *k = make(1), *again;

	(void)state;
	assert_int_equal(last_spec.alg, CSM_ALG_P384);
	assert_int_equal(last_spec.use, CSM_USE_SIGN);
	assert_int_equal(last_priv_len, 3);
	assert_null(csm_keycache_take(&cache, id_of(1)));
	csm_keycache_put(&cache, k, 5);
	assert_null(csm_keycache_take(&cache, id_of(3))); /* in the same place of the table */
	again = csm_keycache_take(&cache, id_of(1));
	assert_ptr_equal(again, k);
	assert_null(csm_keycache_take(&cache, id_of(1)));
	assert_int_equal(cache.n, 0);
	/* Two threads may each have it. */
	csm_keycache_put(&cache, again, 5);
	csm_keycache_put(&cache, make(1), 6);
	assert_int_equal(cache.n, 2);
	csm_cached_key_free(csm_keycache_take(&cache, id_of(1)));
	csm_cached_key_free(csm_keycache_take(&cache, id_of(1)));
	csm_cached_key_free(NULL);
	assert_int_equal(loaded, 0);
}

static void a_load_that_fails_leaves_nothing(void **state)
{
	struct csm_key_record rec = {.alg = CSM_ALG_P256};
	struct csm_cached_key *k = NULL;

	(void)state;
	load_result = CSM_ETAMPERED;
	assert_int_equal(csm_cached_key_load(&be, &rec, &k), CSM_ETAMPERED);
	assert_null(k);
	be.ctx = NULL;
	assert_int_equal(csm_cached_key_load(&be, &rec, &k), CSM_EUNAVAILABLE);
}

static void what_is_too_much_is_unloaded(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 20; i++)
		csm_keycache_put(&cache, make(i), i);
	assert_int_equal(cache.n, 8);
	assert_int_equal(loaded, 8);
}

static void what_is_idle_is_unloaded(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4; i++)
		csm_keycache_put(&cache, make(i), 1000 * (i + 1));
	csm_keycache_sweep(&cache, 60000, 60000);
	assert_int_equal(loaded, 4); /* nothing is older than the clock */
	csm_keycache_sweep(&cache, 60999, 60000);
	assert_int_equal(loaded, 4);
	csm_keycache_sweep(&cache, 61000, 60000);
	assert_int_equal(loaded, 3);
	assert_null(csm_keycache_take(&cache, id_of(0)));
	/* One that was used again stays. */
	csm_keycache_put(&cache, csm_keycache_take(&cache, id_of(1)), 62500);
	csm_keycache_sweep(&cache, 63999, 60000);
	assert_int_equal(loaded, 2);
	csm_cached_key_free(csm_keycache_take(&cache, id_of(1)));
	assert_int_equal(loaded, 1);
}

static void a_key_that_is_gone_is_dropped(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3; i++)
		csm_keycache_put(&cache, make(i), 1);
	csm_keycache_put(&cache, make(2), 1);
	csm_keycache_drop(&cache, id_of(2));
	assert_int_equal(loaded, 2);
	assert_null(csm_keycache_take(&cache, id_of(2)));
	csm_keycache_drop(&cache, id_of(2));
	csm_keycache_drop(&cache, NULL);
	assert_int_equal(loaded, 0);
	assert_int_equal(cache.n, 0);
}

static void *use_keys(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 20000; i++) {
		struct csm_cached_key *k = csm_keycache_take(&cache, id_of(i % 5));

		if (k != NULL)
			csm_keycache_put(&cache, k, i);
		if (i % 100 == 0)
			csm_keycache_sweep(&cache, i, 1000000);
	}
	return NULL;
}

static void threads_share_it(void **state)
{
	pthread_t t[3];

	(void)state;
	for (unsigned i = 0; i < 5; i++)
		csm_keycache_put(&cache, make(i), 1);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&t[i], NULL, use_keys, NULL), 0);
	for (size_t i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(cache.n, 5);
	assert_int_equal(loaded, 5);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(taken_keys_are_the_callers),
		TEST(a_load_that_fails_leaves_nothing),
		TEST(what_is_too_much_is_unloaded),
		TEST(what_is_idle_is_unloaded),
		TEST(a_key_that_is_gone_is_dropped),
		TEST(threads_share_it),
	};

	alarm(60);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
