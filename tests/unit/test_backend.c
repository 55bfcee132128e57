/* The one wrapper around all back ends, over the scripted one and over one that breaks the rules. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/svc/backend.h"
#include "proto-spec/limits.h"

/* ---- the one that breaks the rules: it answers what the test says ---- */

static struct {
	int probe, open, capabilities, result;
	size_t len;              /* of each output */
	unsigned opened, closed, unloaded;
	atomic_uint idled;
	pthread_t on;            /* the thread of the last call */
	char reason[16], device[16];
} rogue;
static int rogue_context, rogue_key;

static int rogue_probe(const struct csm_plugin_host *host)
{
	(void)host;
	return rogue.probe;
}

static int rogue_open(const struct csm_plugin_host *host, struct csm_plugin_ctx **ret)
{
	(void)host;
	*ret = (struct csm_plugin_ctx *)(void *)&rogue_context;
	rogue.opened += rogue.open == 0;
	return rogue.open;
}

static void rogue_close(struct csm_plugin_ctx *ctx)
{
	assert_ptr_equal(ctx, &rogue_context);
	rogue.closed++;
}

static int rogue_capabilities(struct csm_plugin_ctx *ctx, struct csm_plugin_caps *ret)
{
	(void)ctx;
	*ret = (struct csm_plugin_caps){
		.algs = 1u << CSM_ALG_P256 | 1u << CSM_ALG_P384 | 1u << CSM_ALG_P521 | 1u << CSM_ALG_RSA2048,
		.uses = CSM_USE_SIGN, .protection = "none"};
	return rogue.capabilities;
}

static void rogue_idle(struct csm_plugin_ctx *ctx)
{
	(void)ctx;
	rogue.idled++;
}

static void rogue_health(struct csm_plugin_ctx *ctx, struct csm_plugin_health *ret)
{
	(void)ctx;
	*ret = (struct csm_plugin_health){.usable = false, .reason = rogue.reason, .device = rogue.device, .commands = 7};
}

static int answer(struct csm_plugin_out *out)
{
	rogue.on = pthread_self();
	out->len = rogue.len;
	return rogue.result;
}

static int rogue_generate(struct csm_plugin_ctx *ctx, const struct csm_plugin_keyspec *spec, struct csm_plugin_out *spki,
	struct csm_plugin_out *pub, struct csm_plugin_out *priv)
{
	(void)ctx;
	spki->len = 1;
	pub->len = priv->len = 0;
	return answer(spec->exportable ? priv : spec->alg == CSM_ALG_P384 ? pub : spki);
}

static int rogue_import(struct csm_plugin_ctx *ctx, const struct csm_plugin_keyspec *spec, const uint8_t *wrapped,
	size_t wrapped_len, struct csm_plugin_out *spki, struct csm_plugin_out *pub, struct csm_plugin_out *priv)
{
	(void)wrapped;
	(void)wrapped_len;
	return rogue_generate(ctx, spec, spki, pub, priv);
}

static int rogue_load(struct csm_plugin_ctx *ctx, const struct csm_plugin_keyspec *spec,
	const struct csm_plugin_blob *blob, struct csm_plugin_key **ret)
{
	(void)ctx;
	(void)spec;
	(void)blob;
	*ret = (struct csm_plugin_key *)(void *)&rogue_key;
	return rogue.result;
}

static void rogue_unload(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key)
{
	(void)ctx;
	assert_ptr_equal(key, &rogue_key);
	rogue.unloaded++;
}

static int rogue_sign(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct csm_scheme *scheme,
	const uint8_t *in, size_t in_len, struct csm_plugin_out *sig)
{
	(void)ctx;
	(void)key;
	(void)scheme;
	(void)in;
	(void)in_len;
	return answer(sig);
}

static int rogue_decrypt(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct csm_scheme *scheme,
	const uint8_t *in, size_t in_len, const uint8_t *label, size_t label_len, struct csm_plugin_out *plain)
{
	(void)label;
	(void)label_len;
	return rogue_sign(ctx, key, scheme, in, in_len, plain);
}

static int rogue_derive(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const uint8_t *peer, size_t peer_len,
	struct csm_plugin_out *shared)
{
	return rogue_sign(ctx, key, NULL, peer, peer_len, shared);
}

static int rogue_seal(struct csm_plugin_ctx *ctx, const uint8_t *in, size_t in_len, struct csm_plugin_out *out)
{
	return rogue_sign(ctx, NULL, NULL, in, in_len, out);
}

static int rogue_attest(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const uint8_t *nonce, size_t nonce_len,
	struct csm_plugin_out *statement)
{
	return rogue_sign(ctx, key, NULL, nonce, nonce_len, statement);
}

static int rogue_activate(struct csm_plugin_ctx *ctx, const struct csm_plugin_credential *credential,
	struct csm_plugin_out *proof)
{
	return rogue_sign(ctx, NULL, NULL, credential->blob, credential->blob_len, proof);
}

static int rogue_counter(struct csm_plugin_ctx *ctx, uint64_t *ret)
{
	(void)ctx;
	*ret = 5;
	return rogue.result;
}

static struct csm_plugin rogue_plugin = {
	.abi = CSM_PLUGIN_ABI, .name = "rogue", .probe = rogue_probe, .open = rogue_open, .close = rogue_close,
	.capabilities = rogue_capabilities, .idle = rogue_idle, .health = rogue_health, .generate = rogue_generate, .import = rogue_import,
	.load = rogue_load, .unload = rogue_unload, .sign = rogue_sign, .decrypt = rogue_decrypt,
	.derive = rogue_derive, .seal = rogue_seal, .unseal = rogue_seal, .counter_read = rogue_counter,
	.counter_increment = rogue_counter, .attest = rogue_attest, .activate = rogue_activate,
};
static const struct csm_plugin rogue_whole = {.abi = 0};

static struct csm_backend be;

static int setup(void **state)
{
	static struct csm_plugin pristine;

	(void)state;
	if (pristine.abi == rogue_whole.abi)
		pristine = rogue_plugin;
	rogue_plugin = pristine;
	memset(&rogue, 0, sizeof(rogue));
	memset(&be, 0, sizeof(be));
	be.plugin = &rogue_plugin;
	be.last_open = CSM_EUNAVAILABLE;
	pthread_mutex_init(&be.health_lock, NULL);
	return 0;
}

/* One call of each kind, with outputs of 16 bytes. */
static int call_as(enum csm_backend_call call)
{
	struct csm_plugin_key *key = (struct csm_plugin_key *)(void *)&rogue_key, *loaded;
	struct csm_plugin_keyspec spec = {.alg = CSM_ALG_P256, .use = CSM_USE_SIGN};
	struct csm_scheme scheme = {CSM_SCHEME_ECDSA, CSM_HASH_SHA256};
	uint8_t space[3][16], digest[32] = {0};
	struct csm_plugin_out out = {.p = space[0], .cap = 16}, pub = {.p = space[1], .cap = 16},
			      priv = {.p = space[2], .cap = 16};
	struct csm_plugin_blob blob = {0};
	struct csm_bin in = {digest, sizeof(digest)};
	uint64_t n;

	switch (call) {
	case CSM_CALL_GENERATE:
		return csm_be_generate(&be, &spec, &out, &pub, &priv);
	case CSM_CALL_IMPORT:
		return csm_be_import(&be, &spec, in, &out, &pub, &priv);
	case CSM_CALL_LOAD:
		return csm_be_load(&be, &spec, &blob, &loaded);
	case CSM_CALL_SIGN:
		return csm_be_sign(&be, key, &scheme, in, &out);
	case CSM_CALL_DECRYPT:
		return csm_be_decrypt(&be, key, &scheme, in, in, &out);
	case CSM_CALL_DERIVE:
		return csm_be_derive(&be, key, in, &out);
	case CSM_CALL_SEAL:
		return csm_be_seal(&be, in, &out);
	case CSM_CALL_ATTEST:
		return csm_be_attest(&be, key, in, &out);
	case CSM_CALL_COUNTER:
	default:
		return csm_be_counter(&be, false, &n);
	}
}

static void while_not_open_all_is_unavailable(void **state)
{
	struct csm_backend_health h;
	uint8_t space[8];
	struct csm_plugin_out out = {.p = space, .cap = sizeof(space)};

	(void)state;
	for (int c = 0; c < CSM_CALL__COUNT; c++) {
		assert_int_equal(call_as((enum csm_backend_call)c), CSM_EUNAVAILABLE);
		assert_int_equal(be.calls[c], 0);
	}
	assert_int_equal(csm_be_unseal(&be, (struct csm_bin){space, 1}, &out), CSM_EUNAVAILABLE);
	assert_false(csm_backend_has(&be, CSM_ALG_P256));
	csm_be_unload(&be, (struct csm_plugin_key *)(void *)&rogue_key);
	assert_int_equal(rogue.unloaded, 0);
	csm_be_health(&be, &h);
	assert_false(h.h.usable);
	assert_string_equal(h.h.reason, csm_err_text(CSM_EUNAVAILABLE));
	assert_null(h.h.device);
	/* Its last warning says more. */
	csm_backend_said(&be, "the token is not there");
	csm_be_health_refresh(&be);
	csm_be_health(&be, &h);
	assert_false(h.h.usable);
	assert_string_equal(h.h.reason, "the token is not there");
}

static void opening(void **state)
{
	struct csm_backend_health h;

	(void)state;
	rogue.probe = CSM_EUNSUPPORTED;
	assert_int_equal(csm_backend_open(&be), CSM_EUNSUPPORTED);
	rogue.probe = 0;
	rogue.open = CSM_ELOCKOUT;
	assert_int_equal(csm_backend_open(&be), CSM_ELOCKOUT);
	csm_be_health(&be, &h);
	assert_string_equal(h.h.reason, "lockout");
	rogue.open = 12345;
	assert_int_equal(csm_backend_open(&be), CSM_EBACKEND);
	assert_int_equal(be.last_open, CSM_EBACKEND);
	/* Opened, but it cannot say what it has: closed again. */
	rogue.open = 0;
	rogue.capabilities = CSM_EUNAVAILABLE;
	assert_int_equal(csm_backend_open(&be), CSM_EUNAVAILABLE);
	assert_int_equal(rogue.opened, 1);
	assert_int_equal(rogue.closed, 1);
	assert_null(be.ctx);
	rogue.capabilities = 0;
	assert_int_equal(csm_backend_open(&be), 0);
	assert_int_equal(csm_backend_open(&be), 0);
	assert_int_equal(rogue.opened, 2);
	assert_true(csm_backend_has(&be, CSM_ALG_P256));
	assert_false(csm_backend_has(&be, CSM_ALG_ED25519));
	csm_backend_close(&be);
	assert_int_equal(rogue.closed, 2);
	assert_null(be.plugin);
}

static void codes_that_no_back_end_may_use_become_backend(void **state)
{
	static const int kept[] = {CSM_EUNSUPPORTED, CSM_EUNAVAILABLE, CSM_ELOCKOUT, CSM_EINVALID, CSM_ETOO_LARGE, CSM_EBUSY,
		CSM_ETAMPERED, CSM_ENOMEM};
	static const int mapped[] = {CSM_EBACKEND, CSM_EDENIED, CSM_ENOT_FOUND, CSM_EEXISTS, CSM_ECLOSED, CSM_EROLE, 999, -1};

	(void)state;
	rogue.len = 1;
	assert_int_equal(csm_backend_open(&be), 0);
	for (int c = 0; c < CSM_CALL__COUNT; c++) {
		for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
			rogue.result = kept[i];
			assert_int_equal(call_as((enum csm_backend_call)c), kept[i]);
		}
		for (size_t i = 0; i < sizeof(mapped) / sizeof(mapped[0]); i++) {
			bool denied = c == CSM_CALL_SEAL && mapped[i] == CSM_EDENIED; /* a state that seal binds to */

			rogue.result = mapped[i];
			assert_int_equal(call_as((enum csm_backend_call)c), denied ? CSM_EDENIED : CSM_EBACKEND);
		}
		rogue.result = 0;
		assert_int_equal(call_as((enum csm_backend_call)c), 0);
		assert_int_equal(be.calls[c], 17);
		assert_int_equal(be.failures[c], 16);
		assert_non_null(csm_backend_call_name((enum csm_backend_call)c));
	}
}

static void outputs_that_do_not_fit_are_failures(void **state)
{
	static const enum csm_backend_call with_output[] = {
		CSM_CALL_GENERATE, CSM_CALL_IMPORT, CSM_CALL_SIGN, CSM_CALL_DECRYPT, CSM_CALL_DERIVE, CSM_CALL_SEAL,
		CSM_CALL_ATTEST};
	struct csm_plugin_keyspec exportable = {.alg = CSM_ALG_P256, .use = CSM_USE_SIGN, .exportable = true};
	struct csm_plugin_keyspec p384 = {.alg = CSM_ALG_P384, .use = CSM_USE_SIGN};
	uint8_t space[16];
	struct csm_plugin_out a = {.p = space, .cap = 16}, b = a, c = a;

	(void)state;
	assert_int_equal(csm_backend_open(&be), 0);
	for (size_t i = 0; i < sizeof(with_output) / sizeof(with_output[0]); i++) {
		rogue.len = 17;
		assert_int_equal(call_as(with_output[i]), CSM_EBACKEND);
		rogue.len = SIZE_MAX;
		assert_int_equal(call_as(with_output[i]), CSM_EBACKEND);
		rogue.len = 16;
		assert_int_equal(call_as(with_output[i]), 0);
		/* Nothing at all is a result of decrypt only. */
		rogue.len = 0;
		assert_int_equal(call_as(with_output[i]), with_output[i] == CSM_CALL_DECRYPT ? 0 : CSM_EBACKEND);
	}
	rogue.len = 17;
	assert_int_equal(csm_be_generate(&be, &exportable, &a, &b, &c), CSM_EBACKEND);
	assert_int_equal(a.len, 0);
	assert_int_equal(csm_be_generate(&be, &p384, &a, &b, &c), CSM_EBACKEND);
	rogue.len = 3;
	assert_int_equal(csm_be_generate(&be, &p384, &a, &b, &c), 0);
	assert_int_equal(b.len, 3);
	rogue.result = CSM_EINVALID;
	assert_int_equal(csm_be_unseal(&be, (struct csm_bin){space, 1}, &a), CSM_EINVALID);
	assert_int_equal(a.len, 0);
	rogue.result = 0;
	rogue.len = 17;
	assert_int_equal(csm_be_activate(&be, &(struct csm_plugin_credential){.blob = space, .blob_len = 1}, &a), CSM_EBACKEND);
	assert_int_equal(a.len, 0);
	rogue.len = 16;
	assert_int_equal(csm_be_activate(&be, &(struct csm_plugin_credential){.blob = space, .blob_len = 1}, &a), 0);
}

static void what_the_back_end_lacks_is_unsupported(void **state)
{
	struct csm_plugin_keyspec spec = {.alg = CSM_ALG_ED25519, .use = CSM_USE_SIGN};
	struct csm_scheme ecdsa = {CSM_SCHEME_ECDSA, CSM_HASH_SHA256}, ed = {CSM_SCHEME_ED25519, CSM_HASH_NONE};
	struct csm_plugin_key *key = (struct csm_plugin_key *)(void *)&rogue_key;
	uint8_t space[32] = {0};
	struct csm_plugin_out out = {.p = space, .cap = 16}, b = out, c = out;

	(void)state;
	rogue.len = 1;
	assert_int_equal(csm_backend_open(&be), 0);
	assert_int_equal(csm_be_generate(&be, &spec, &out, &b, &c), CSM_EUNSUPPORTED);
	spec = (struct csm_plugin_keyspec){.alg = CSM_ALG_P256, .use = CSM_USE_SIGN | CSM_USE_DERIVE};
	assert_int_equal(csm_be_generate(&be, &spec, &out, &b, &c), CSM_EUNSUPPORTED);
	/* A digest has the size of its hash; a message any. */
	assert_int_equal(csm_be_sign(&be, key, &ecdsa, (struct csm_bin){space, 31}, &out), CSM_EINVALID);
	assert_int_equal(csm_be_sign(&be, key, &ecdsa, (struct csm_bin){space, 0}, &out), CSM_EINVALID);
	assert_int_equal(csm_be_sign(&be, key, &ecdsa, (struct csm_bin){space, 32}, &out), 0);
	assert_int_equal(csm_be_sign(&be, key, &ed, (struct csm_bin){space, 3}, &out), 0);
	rogue_plugin.decrypt = NULL;
	rogue_plugin.attest = NULL;
	rogue_plugin.activate = NULL;
	assert_int_equal(csm_be_attest(&be, key, (struct csm_bin){space, 1}, &out), CSM_EUNSUPPORTED);
	assert_int_equal(csm_be_activate(&be, &(struct csm_plugin_credential){.blob = space, .blob_len = 1}, &out),
		CSM_EUNSUPPORTED);
	rogue_plugin.derive = NULL;
	rogue_plugin.seal = rogue_plugin.unseal = NULL;
	rogue_plugin.counter_increment = NULL;
	assert_int_equal(call_as(CSM_CALL_DECRYPT), CSM_EUNSUPPORTED);
	assert_int_equal(call_as(CSM_CALL_DERIVE), CSM_EUNSUPPORTED);
	assert_int_equal(call_as(CSM_CALL_SEAL), CSM_EUNSUPPORTED);
	assert_int_equal(call_as(CSM_CALL_COUNTER), CSM_EUNSUPPORTED);
	assert_int_equal(csm_be_unseal(&be, (struct csm_bin){space, 1}, &out), CSM_EUNSUPPORTED);
}

static void what_a_loop_may_do_itself(void **state)
{
	(void)state;
	assert_false(csm_backend_inline(&be, CSM_ALG_P256));
	rogue_plugin.flags = CSM_PLUGIN_INLINE_EC;
	assert_true(csm_backend_inline(&be, CSM_ALG_P256));
	assert_true(csm_backend_inline(&be, CSM_ALG_ED25519));
	assert_false(csm_backend_inline(&be, CSM_ALG_P384));
	assert_false(csm_backend_inline(&be, CSM_ALG_P521));
	assert_false(csm_backend_inline(&be, CSM_ALG_RSA2048));
	rogue_plugin.flags |= CSM_PLUGIN_SERIAL;
	assert_false(csm_backend_inline(&be, CSM_ALG_P256));
}

static void run_sign(void *arg)
{
	*(int *)arg = call_as(CSM_CALL_SIGN);
}

static void a_serial_back_end_has_one_owner(void **state)
{
	pthread_t first;
	int r = -1;

	(void)state;
	rogue.len = 1;
	rogue_plugin.flags = CSM_PLUGIN_SERIAL;
	assert_int_equal(csm_backend_open(&be), 0);
	assert_int_equal(csm_backend_start(&be, 10, 10), 0);
	assert_non_null(be.owner);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(csm_backend_run(&be, run_sign, &r), 0);
		assert_int_equal(r, 0);
		assert_false(pthread_equal(rogue.on, pthread_self()));
		if (i == 0)
			first = rogue.on;
		assert_true(pthread_equal(first, rogue.on));
	}
	/* With nothing to do it is told so. */
	for (int i = 0; i < 5000 && rogue.idled == 0; i++) {
		usleep(1000);
		assert_int_equal(csm_workq_depth(be.owner), 0);
	}
	csm_backend_stop(&be);
	assert_true(rogue.idled > 0);
	assert_null(be.owner);
	/* Then the caller's thread is the owner. */
	assert_int_equal(csm_backend_run(&be, run_sign, &r), 0);
	assert_true(pthread_equal(rogue.on, pthread_self()));
	csm_backend_close(&be);
	/* A parallel one has none. */
	be.plugin = &rogue_plugin;
	rogue_plugin.flags = 0;
	assert_int_equal(csm_backend_start(&be, 10, 10), 0);
	assert_null(be.owner);
	csm_backend_stop(&be);
}

static void health_has_strings_of_its_own(void **state)
{
	struct csm_backend_health h;

	(void)state;
	snprintf(rogue.reason, sizeof(rogue.reason), "first");
	snprintf(rogue.device, sizeof(rogue.device), "/dev/x");
	rogue_plugin.flags = CSM_PLUGIN_SERIAL;
	assert_int_equal(csm_backend_open(&be), 0);
	csm_be_health(&be, &h);
	snprintf(rogue.reason, sizeof(rogue.reason), "second");
	assert_string_equal(h.h.reason, "first");
	assert_string_equal(h.h.device, "/dev/x");
	assert_int_equal(h.h.commands, 7);
	/* A serial one is asked by its owner only. */
	csm_be_health(&be, &h);
	assert_string_equal(h.h.reason, "first");
	csm_be_health_refresh(&be);
	csm_be_health(&be, &h);
	assert_string_equal(h.h.reason, "second");
	rogue_plugin.flags = 0;
	snprintf(rogue.reason, sizeof(rogue.reason), "third");
	csm_be_health(&be, &h);
	assert_string_equal(h.h.reason, "third");
	rogue.reason[0] = rogue.device[0] = '\0';
	csm_be_health(&be, &h);
	assert_null(h.h.reason);
	assert_null(h.h.device);
}

/* ---- the scripted one, as the broker sees it ---- */

static const char *script;

static const char *config_of(void *arg, const char *name)
{
	(void)arg;
	return strcmp(name, "script") == 0 ? script : NULL;
}

static void the_scripted_one_fails_as_told(void **state)
{
	struct csm_backend_health h;
	uint64_t n = 0;

	(void)state;
	be.plugin = &csm_plugin_fake;
	be.host.config = config_of;
	script = "counter_read=fail:LOCKOUT:1; counter_increment=fail:EXISTS:1; seal=delay:30ms; health=down";
	assert_int_equal(csm_backend_open(&be), 0);
	assert_int_equal(csm_be_counter(&be, false, &n), CSM_ELOCKOUT);
	assert_int_equal(csm_be_counter(&be, true, &n), CSM_EBACKEND);
	assert_int_equal(csm_be_counter(&be, true, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(be.calls[CSM_CALL_COUNTER], 3);
	assert_int_equal(be.failures[CSM_CALL_COUNTER], 2);
	uint8_t space[256];
	struct csm_plugin_out out = {.p = space, .cap = sizeof(space)}, small = {.p = space, .cap = 5};
	assert_int_equal(csm_be_seal(&be, (struct csm_bin){(const uint8_t *)"data", 4}, &out), 0);
	assert_true(be.micros[CSM_CALL_SEAL] >= 30000);
	assert_int_equal(csm_be_seal(&be, (struct csm_bin){(const uint8_t *)"data", 4}, &small), CSM_ETOO_LARGE);
	csm_be_health_refresh(&be);
	csm_be_health(&be, &h);
	assert_false(h.h.usable);
	assert_string_equal(h.h.reason, "down by its script");
	csm_backend_close(&be);
}

/* ---- objects that are loaded ---- */

static void what_is_no_back_end_is_not_loaded(void **state)
{
	char dir[] = "/tmp/csm-backend-XXXXXX", path[64], longer[600];
	const char *why = NULL;

	(void)state;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(csm_backend_load_so(&be, dir, "soft", &why), CSM_ENOT_FOUND);
	assert_non_null(strstr(why, "soft.so"));
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(csm_backend_load_so(&be, longer, "soft", &why), CSM_ENOT_FOUND);
	assert_string_equal(why, "the path is too long");
	/* An object that is something else. */
	snprintf(path, sizeof(path), "%s/soft.so", dir);
	assert_int_equal(symlink("/lib/" CSM_TRIPLET "/libm.so.6", path), 0);
	assert_int_equal(csm_backend_load_so(&be, dir, "soft", &why), CSM_EUNSUPPORTED);
	assert_null(be.so);
	assert_int_equal(unlink(path), 0);
	/* And one that is no object; of another name, since the loader knows the first one by now. */
	snprintf(path, sizeof(path), "%s/tpm2.so", dir);
	FILE *f = fopen(path, "we");
	assert_non_null(f);
	fputs("not an object\n", f);
	fclose(f);
	assert_int_equal(csm_backend_load_so(&be, dir, "tpm2", &why), CSM_ENOT_FOUND);
	unlink(path);
	rmdir(dir);
}

#define TEST(f) cmocka_unit_test_setup(f, setup)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(while_not_open_all_is_unavailable),
		TEST(opening),
		TEST(codes_that_no_back_end_may_use_become_backend),
		TEST(outputs_that_do_not_fit_are_failures),
		TEST(what_the_back_end_lacks_is_unsupported),
		TEST(what_a_loop_may_do_itself),
		TEST(a_serial_back_end_has_one_owner),
		TEST(health_has_strings_of_its_own),
		TEST(the_scripted_one_fails_as_told),
		TEST(what_is_no_back_end_is_not_loaded),
	};

	alarm(60);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
