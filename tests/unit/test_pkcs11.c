/* The PKCS#11 back end over a library that does not keep to the standard, or loses its token. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <openssl/x509.h>
#include <sodium.h>
#include "plugins/include/csm_alg.h"
#include "proto-spec/limits.h"
#include "tests/fault/badtoken.h"
#include "tests/lib/p11host.h"

#define P (&csm_plugin_pkcs11)
#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

static struct badtoken *token;
static char library[4096];

/* ---- keys ---- */

struct stored {
	struct csm_plugin_keyspec spec;
	uint8_t spki[CSM_SPKI_MAX], pub[CSM_PLUGIN_PUB_MAX], tag[CSM_PLUGIN_TAG];
	size_t spki_len, pub_len;
};

static struct csm_plugin_ctx *ctx;

static int begin(void **state)
{
	(void)state;
	token->wipe();
	memset(&p11host_conf, 0, sizeof(p11host_conf));
	p11host_conf.uri = "pkcs11:token=bad";
	p11host_conf.pin = BADTOKEN_PIN;
	p11host_conf.module = library;
	ctx = NULL;
	return 0;
}

static int end(void **state)
{
	(void)state;
	P->close(ctx);
	return 0;
}

static void open_it(void)
{
	assert_int_equal(P->open(&p11host, &ctx), 0);
}

static int generate(enum csm_alg alg, unsigned use, struct stored *k)
{
	struct csm_plugin_out spki = {k->spki, sizeof(k->spki), 0}, pub = {k->pub, sizeof(k->pub), 0};
	struct csm_plugin_out priv = {NULL, 0, 0};
	int r;

	randombytes_buf(k->tag, sizeof(k->tag));
	k->spec = (struct csm_plugin_keyspec){.alg = alg, .use = use, .tag = k->tag};
	r = P->generate(ctx, &k->spec, &spki, &pub, &priv);
	k->spki_len = spki.len;
	k->pub_len = pub.len;
	return r;
}

static int load(const struct stored *k, struct csm_plugin_key **ret)
{
	struct csm_plugin_blob blob = {k->spki, k->spki_len, k->pub, k->pub_len, NULL, 0};

	return P->load(ctx, &k->spec, &blob, ret);
}

static struct csm_plugin_key *made_and_loaded(enum csm_alg alg, unsigned use, struct stored *k)
{
	struct csm_plugin_key *key = NULL;

	assert_int_equal(generate(alg, use, k), 0);
	assert_int_equal(load(k, &key), 0);
	return key;
}

static bool verifies(const struct stored *k, const uint8_t *in, const uint8_t *sig, size_t n)
{
	const uint8_t *at = k->spki;
	EVP_PKEY *pkey = d2i_PUBKEY(NULL, &at, (long)k->spki_len);
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(pkey, NULL);
	bool ok = EVP_PKEY_verify_init(c) == 1 && EVP_PKEY_CTX_set_signature_md(c, EVP_sha256()) == 1 &&
		EVP_PKEY_verify(c, sig, n, in, 32) == 1;

	EVP_PKEY_CTX_free(c);
	EVP_PKEY_free(pkey);
	return ok;
}

/* The slot's answer; a signature that is given out is one. */
static int sign(const struct stored *k, struct csm_plugin_key *key)
{
	struct csm_scheme s = csm_scheme_default(k->spec.alg);
	uint8_t in[32], sig_p[CSM_SIGNATURE_MAX];
	struct csm_plugin_out sig = {sig_p, sizeof(sig_p), 0};
	int r;

	randombytes_buf(in, sizeof(in));
	r = P->sign(ctx, key, &s, in, sizeof(in), &sig);
	assert_int_equal(sig.len != 0, r == 0);
	if (r == 0)
		assert_true(verifies(k, in, sig_p, sig.len));
	return r;
}

static bool usable(void)
{
	struct csm_plugin_health h;

	P->health(ctx, &h);
	assert_true(h.usable || h.reason != NULL);
	return h.usable;
}

static void fail_next(const char *function, CK_RV rv, unsigned times)
{
	token->fail = function;
	token->fail_rv = rv;
	token->fail_after = 0;
	token->fail_times = times;
}

/* ---- tests ---- */

static void a_signature_is_one_call(void **state)
{
	struct csm_plugin_key *key;
	struct stored k;
	unsigned signs, finds, logins;

	(void)state;
	open_it();
	key = made_and_loaded(CSM_ALG_P256, CSM_USE_SIGN, &k);
	assert_int_equal(sign(&k, key), 0);
	signs = token->signs;
	finds = token->finds;
	logins = token->logins;
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(sign(&k, key), 0);
	assert_int_equal(token->signs, signs + 100);
	assert_int_equal(token->finds, finds);
	assert_int_equal(token->logins, logins);
	assert_int_equal(token->logins, 1);
	P->unload(ctx, key);
}

static void configurations_that_are_refused(void **state)
{
	static const char *const uris[] = {NULL, "", "bad", "pkcs11:token=bad?pin-value=1234", "pkcs11:token=bad?pin-source=/x",
		"pkcs11:token=bad;object=k", "pkcs11:token=bad?module-path=/x", "pkcs11:nonsense=1", "pkcs11:token=bad;id=%01"};
	static const char *const sessions[] = {"0", "65", "-1", "8x", "", "08"};
	static const char *const modules[] = {NULL, "libx.so", "", "/nonexistent/x.so"};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(uris); i++) {
		p11host_conf.uri = uris[i];
		assert_int_not_equal(P->open(&p11host, &ctx), 0);
		assert_null(ctx);
	}
	p11host_conf.uri = "pkcs11:token=bad";
	for (size_t i = 0; i < N_ELEMS(sessions); i++) {
		p11host_conf.sessions = sessions[i];
		assert_int_equal(P->open(&p11host, &ctx), CSM_EINVALID);
	}
	p11host_conf.sessions = NULL;
	p11host_conf.algs = "p256,p257";
	assert_int_equal(P->open(&p11host, &ctx), CSM_EINVALID);
	p11host_conf.algs = NULL;
	for (size_t i = 0; i < N_ELEMS(modules); i++) {
		p11host_conf.module = modules[i];
		assert_int_not_equal(P->open(&p11host, &ctx), 0);
	}
	p11host_conf.module = "/usr/lib/x86_64-linux-gnu/libc.so.6"; /* a library, and no module */
	assert_int_equal(P->open(&p11host, &ctx), CSM_EBACKEND);
	assert_int_equal(token->logins, 0);
	p11host_conf.module = library;
	p11host_conf.uri = "pkcs11:token=other";
	assert_int_equal(P->open(&p11host, &ctx), CSM_EUNAVAILABLE);
	p11host_conf.uri = "pkcs11:token=bad";
	token->twins = true; /* which of the two would be chance */
	assert_int_equal(P->open(&p11host, &ctx), CSM_EUNAVAILABLE);
	p11host_conf.uri = "pkcs11:token=bad;slot-id=8";
	assert_int_equal(P->open(&p11host, &ctx), 0);
}

/* Whatever is asked for, and however often csm starts anew. */
static void a_wrong_pin_is_tried_once(void **state)
{
	struct stored k;

	(void)state;
	p11host_conf.pin = "wrong";
	open_it();
	assert_false(usable());
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(generate(CSM_ALG_P256, CSM_USE_SIGN, &k), CSM_EUNAVAILABLE);
		token->lose_sessions();
		P->close(ctx);
		open_it();
		assert_false(usable());
	}
	assert_int_equal(token->logins, 1);
	p11host_conf.pin = BADTOKEN_PIN; /* the administrator has put it right */
	p11host_conf.refused = false;
	P->close(ctx);
	open_it();
	assert_true(usable());
	assert_int_equal(token->logins, 2);
	assert_int_equal(generate(CSM_ALG_P256, CSM_USE_SIGN, &k), 0);
}

/* csm ended between the try and its answer: the record and the token's own flag tell of it. */
static void a_try_without_an_answer_is_not_repeated(void **state)
{
	(void)state;
	p11host_conf.record[0] = 1;
	p11host_conf.record_len = 1;
	token->token_flags = CKF_USER_PIN_COUNT_LOW;
	open_it();
	assert_false(usable());
	assert_int_equal(token->logins, 0);
	assert_true(p11host_conf.refused);
	P->close(ctx);
	p11host_conf.refused = false;
	token->token_flags = 0; /* it was the right one: nothing was counted */
	open_it();
	assert_true(usable());
	assert_int_equal(p11host_conf.record[0], 0);
}

static void the_last_try_is_left_to_people(void **state)
{
	static const CK_FLAGS flags[] = {CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_LOCKED};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(flags); i++) {
		token->token_flags = flags[i];
		open_it();
		assert_false(usable());
		assert_int_equal(token->logins, 0);
		P->close(ctx);
	}
	token->token_flags = 0;
	p11host_conf.pin = NULL;
	open_it();
	assert_false(usable());
	assert_int_equal(token->logins, 0);
}

static void claims_are_not_signatures(void **state)
{
	static const enum badtoken_sign lies[] = {BAD_UNTOUCHED, BAD_SILENT, BAD_SHORT, BAD_LONG};
	static const enum csm_alg algs[] = {CSM_ALG_P256, CSM_ALG_RSA2048};
	struct csm_plugin_key *key;
	struct stored k, lied;

	(void)state;
	open_it();
	for (size_t a = 0; a < N_ELEMS(algs); a++) {
		key = made_and_loaded(algs[a], CSM_USE_SIGN, &k);
		if (algs[a] == CSM_ALG_P256)
			assert_int_equal(sign(&k, key), 0);
		for (size_t i = 0; i < N_ELEMS(lies); i++) {
			token->sign = lies[i];
			assert_int_not_equal(sign(&k, key), 0);
			assert_int_not_equal(generate(algs[a], CSM_USE_SIGN, &lied), 0);
		}
		token->sign = BAD_NOTHING;
		P->unload(ctx, key);
	}
	assert_int_equal(token->objects(), 4); /* of what was not given out nothing is left */
}

/* RSA is checked each time. */
static void a_wrong_rsa_signature_is_kept_back(void **state)
{
	struct csm_scheme s = csm_scheme_default(CSM_ALG_RSA2048);
	uint8_t in[32] = {1}, sig_p[CSM_SIGNATURE_MAX];
	struct csm_plugin_out sig = {sig_p, sizeof(sig_p), 0};
	struct csm_plugin_key *key;
	struct stored k;

	(void)state;
	open_it();
	key = made_and_loaded(CSM_ALG_RSA2048, CSM_USE_SIGN, &k);
	assert_int_equal(P->sign(ctx, key, &s, in, sizeof(in), &sig), 0);
	token->sign = BAD_OTHER_KEY;
	sig.len = 0;
	assert_int_not_equal(P->sign(ctx, key, &s, in, sizeof(in), &sig), 0);
	assert_int_equal(sig.len, 0);
	token->sign = BAD_NOTHING;
	assert_int_equal(P->sign(ctx, key, &s, in, sizeof(in), &sig), 0);
	P->unload(ctx, key);
}

/* Another key under our CKA_ID: the public object beside it is still ours. */
static void a_foreign_key_is_never_used(void **state)
{
	struct csm_plugin_key *key, *agree;
	uint8_t shared_p[66];
	struct csm_plugin_out shared = {shared_p, sizeof(shared_p), 0};
	struct stored k, d, rsa;

	(void)state;
	open_it();
	assert_int_equal(generate(CSM_ALG_P256, CSM_USE_SIGN, &k), 0);
	assert_int_equal(generate(CSM_ALG_P256, CSM_USE_DERIVE, &d), 0);
	assert_int_equal(generate(CSM_ALG_RSA2048, CSM_USE_SIGN, &rsa), 0);
	token->swap_keys();
	assert_int_equal(load(&rsa, &key), CSM_ETAMPERED); /* its modulus tells */
	assert_int_equal(load(&k, &key), 0);
	assert_int_equal(load(&d, &agree), 0);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(sign(&k, key), CSM_ETAMPERED);
		assert_int_equal(P->derive(ctx, agree, k.spki, k.spki_len, &shared), CSM_ETAMPERED);
		assert_int_equal(shared.len, 0);
	}
	P->unload(ctx, key);
	P->unload(ctx, agree);
}

/* Swapped while it is loaded, with the sessions gone: it is looked for, and has to prove itself, anew. */
static void a_key_that_changed_meanwhile_is_seen(void **state)
{
	struct csm_plugin_key *key;
	struct stored k;

	(void)state;
	open_it();
	key = made_and_loaded(CSM_ALG_P256, CSM_USE_SIGN, &k);
	assert_int_equal(sign(&k, key), 0);
	token->swap_keys();
	token->lose_sessions();
	assert_int_equal(sign(&k, key), CSM_ETAMPERED);
	P->unload(ctx, key);
}

static void two_keys_of_one_id_are_refused(void **state)
{
	struct csm_plugin_key *key = NULL;
	struct stored k;

	(void)state;
	open_it();
	assert_int_equal(generate(CSM_ALG_P256, CSM_USE_SIGN, &k), 0);
	token->double_keys();
	assert_int_equal(load(&k, &key), CSM_ETAMPERED);
	assert_null(key);
}

/* Nobody notices: the signature is made on what was opened anew. */
static void lost_sessions_are_opened_anew(void **state)
{
	struct csm_plugin_key *key;
	struct stored k;
	unsigned objects;

	(void)state;
	open_it();
	key = made_and_loaded(CSM_ALG_P256, CSM_USE_SIGN, &k);
	objects = token->objects();
	for (unsigned i = 0; i < 5; i++) {
		token->lose_sessions();
		assert_int_equal(sign(&k, key), 0);
	}
	for (size_t i = 0; i < 3; i++) {
		static const CK_RV lost[] = {CKR_USER_NOT_LOGGED_IN, CKR_DEVICE_REMOVED, CKR_CRYPTOKI_NOT_INITIALIZED};

		fail_next("C_SignInit", lost[i], 1);
		assert_int_equal(sign(&k, key), 0);
	}
	assert_int_equal(token->objects(), objects);
	assert_int_equal(token->destroyed, 0);
	assert_int_equal(token->sessions(), 1);
	P->unload(ctx, key);
}

static void a_token_that_is_away_comes_back(void **state)
{
	struct csm_plugin_key *key, *other = NULL;
	struct stored k, made;
	unsigned objects;

	(void)state;
	open_it();
	key = made_and_loaded(CSM_ALG_P256, CSM_USE_SIGN, &k);
	objects = token->objects();
	token->gone = true;
	token->lose_sessions();
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(sign(&k, key), CSM_EUNAVAILABLE);
		assert_int_equal(load(&k, &other), CSM_EUNAVAILABLE);
		assert_int_equal(generate(CSM_ALG_P256, CSM_USE_SIGN, &made), CSM_EUNAVAILABLE);
		assert_false(usable());
	}
	token->gone = false;
	for (unsigned i = 0; i < 50 && sign(&k, key) != 0; i++)
		usleep(20000);
	assert_int_equal(sign(&k, key), 0);
	assert_true(usable());
	assert_int_equal(token->objects(), objects);
	assert_int_equal(token->made, 1);
	assert_int_equal(token->destroyed, 0);
	P->unload(ctx, key);
}

/* The library says nothing of a lost token, the object is only not found: not a damaged key, and not a reason to begin
 * anew for each request. */
static void an_object_that_is_not_there_may_come_back(void **state)
{
	struct csm_plugin_key *key = NULL;
	struct stored k;
	unsigned initialized;

	(void)state;
	open_it();
	assert_int_equal(generate(CSM_ALG_P256, CSM_USE_SIGN, &k), 0);
	token->hide_keys(true);
	initialized = token->initialized;
	for (unsigned i = 0; i < 200; i++)
		assert_int_equal(load(&k, &key), CSM_EUNAVAILABLE);
	assert_in_range(token->initialized, initialized + 1, initialized + 5);
	token->hide_keys(false);
	assert_int_equal(load(&k, &key), 0);
	assert_int_equal(sign(&k, key), 0);
	P->unload(ctx, key);
}

static void failures_without_a_reason_are_retryable(void **state)
{
	static const CK_RV rvs[] = {CKR_GENERAL_ERROR, CKR_FUNCTION_FAILED, CKR_DEVICE_ERROR};
	static const char *const functions[] = {"C_SignInit", "C_Sign"};
	struct csm_plugin_key *key;
	struct stored k;

	(void)state;
	open_it();
	key = made_and_loaded(CSM_ALG_P256, CSM_USE_SIGN, &k);
	for (size_t i = 0; i < N_ELEMS(rvs); i++)
		for (size_t j = 0; j < N_ELEMS(functions); j++) {
			fail_next(functions[j], rvs[i], 1);
			assert_int_equal(sign(&k, key), CSM_EUNAVAILABLE);
			assert_int_equal(sign(&k, key), 0);
		}
	P->unload(ctx, key);
}

static void what_is_made_in_part_goes_again(void **state)
{
	static const char *const functions[] = {"C_GetAttributeValue", "C_SignInit", "C_Sign"};
	struct stored k;

	(void)state;
	open_it();
	for (size_t i = 0; i < N_ELEMS(functions); i++) {
		fail_next(functions[i], CKR_DEVICE_MEMORY, 1);
		assert_int_not_equal(generate(CSM_ALG_P256, CSM_USE_SIGN, &k), 0);
		assert_int_equal(token->objects(), 0);
	}
	token->extractable = true; /* a key that leaves the token is not what was asked for */
	assert_int_equal(generate(CSM_ALG_P256, CSM_USE_SIGN, &k), CSM_EBACKEND);
	assert_int_equal(token->objects(), 0);
	token->extractable = false;
	token->huge = true;
	assert_int_not_equal(generate(CSM_ALG_P256, CSM_USE_SIGN, &k), 0);
	token->huge = false;
	assert_int_equal(generate(CSM_ALG_P256, CSM_USE_SIGN, &k), 0);
	assert_int_equal(token->objects(), 2);
	token->many = true;
	struct csm_plugin_key *key = NULL;
	assert_int_not_equal(load(&k, &key), 0);
	assert_null(key);
}

static void a_tag_ends_its_own_key_only(void **state)
{
	uint8_t none[CSM_PLUGIN_TAG] = {0};
	struct stored a, b;
	struct csm_plugin_key *key;

	(void)state;
	open_it();
	assert_int_equal(generate(CSM_ALG_P256, CSM_USE_SIGN, &a), 0);
	assert_int_equal(generate(CSM_ALG_P256, CSM_USE_SIGN, &b), 0);
	assert_int_equal(P->discard(ctx, none), 0);
	assert_int_equal(token->objects(), 4);
	assert_int_equal(P->discard(ctx, a.tag), 0);
	assert_int_equal(token->objects(), 2);
	assert_int_equal(P->discard(ctx, a.tag), 0);
	assert_int_equal(load(&b, &key), 0);
	assert_int_equal(sign(&b, key), 0);
	P->unload(ctx, key);
	fail_next("C_DestroyObject", CKR_TOKEN_NOT_PRESENT, 1);
	assert_int_equal(P->discard(ctx, b.tag), CSM_EUNAVAILABLE);
	assert_int_equal(P->discard(ctx, b.tag), 0);
	assert_int_equal(token->objects(), 0);
}

static int find(const char *uri, struct stored *k)
{
	struct csm_plugin_out spki = {k->spki, sizeof(k->spki), 0}, pub = {k->pub, sizeof(k->pub), 0};
	struct csm_plugin_out priv = {NULL, 0, 0};
	int r = P->find(ctx, uri, &k->spec, &spki, &pub, &priv);

	k->spki_len = spki.len;
	k->pub_len = pub.len;
	return r;
}

static void found_keys_are_used_and_left_alone(void **state)
{
	static const char *const bad[] = {"", "pkcs11:", "pkcs11:token=bad", "pkcs11:object=x?pin-value=1234", "x",
		"pkcs11:object=x;type=cert", "pkcs11:object=x;nonsense=1"};
	char uri[200], *at = uri;
	struct csm_plugin_key *key;
	struct stored a, f;

	(void)state;
	open_it();
	assert_int_equal(generate(CSM_ALG_P256, CSM_USE_SIGN, &a), 0);
	at += snprintf(uri, sizeof(uri), "pkcs11:token=bad;type=private;id=");
	for (size_t i = 0; i < CSM_PLUGIN_TAG; i++)
		at += snprintf(at, sizeof(uri) - (size_t)(at - uri), "%%%02x", a.tag[i]);
	assert_int_equal(find(uri, &f), 0);
	assert_int_equal(f.spec.alg, CSM_ALG_P256);
	assert_int_equal(f.spec.use, CSM_USE_SIGN);
	assert_int_equal(f.spki_len, a.spki_len);
	assert_memory_equal(f.spki, a.spki, a.spki_len);
	assert_int_equal(load(&f, &key), 0);
	assert_int_equal(sign(&f, key), 0);
	P->unload(ctx, key);
	assert_int_equal(find("pkcs11:object=none", &f), CSM_ENOT_FOUND);
	assert_int_equal(find("pkcs11:token=other;object=csm", &f), CSM_ENOT_FOUND);
	for (size_t i = 0; i < N_ELEMS(bad); i++)
		assert_int_equal(find(bad[i], &f), CSM_EINVALID);
	token->always_authenticate = true;
	assert_int_equal(find(uri, &f), CSM_EUNSUPPORTED);
	token->always_authenticate = false;
	token->swap_keys(); /* the public key that is shown is not the private one's */
	assert_int_not_equal(find(uri, &f), 0);
	token->double_keys();
	assert_int_equal(find(uri, &f), CSM_ECONFLICT);
	assert_int_equal(token->destroyed, 0);
}

/* ---- threads ---- */

struct work {
	pthread_t thread;
	struct stored k;
	unsigned good;
};

static void *work(void *arg)
{
	struct work *w = arg;
	struct csm_plugin_key *key;

	if (load(&w->k, &key) != 0)
		return NULL;
	for (unsigned i = 0; i < 40; i++)
		w->good += sign(&w->k, key) == 0;
	P->unload(ctx, key);
	return NULL;
}

static void together(unsigned most)
{
	struct work works[6];

	open_it();
	for (size_t i = 0; i < N_ELEMS(works); i++) {
		works[i].good = 0;
		assert_int_equal(generate(CSM_ALG_P256, CSM_USE_SIGN, &works[i].k), 0);
	}
	for (size_t i = 0; i < N_ELEMS(works); i++)
		assert_int_equal(pthread_create(&works[i].thread, NULL, work, &works[i]), 0);
	for (size_t i = 0; i < N_ELEMS(works); i++) {
		pthread_join(works[i].thread, NULL);
		assert_int_equal(works[i].good, 40);
	}
	assert_in_range(token->sessions(), 1, most);
	assert_int_equal(token->clashes, 0);
}

static void a_library_that_cannot_lock_has_one_thread(void **state)
{
	(void)state;
	token->cannot_lock = true;
	together(1);
}

static void sessions_that_the_token_refuses_are_waited_for(void **state)
{
	(void)state;
	token->sessions_max = 3; /* one of them is for generate, that has gone by then */
	p11host_conf.sessions = "8";
	together(3);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)
	const struct CMUnitTest tests[] = {
		T(a_signature_is_one_call),
		T(configurations_that_are_refused),
		T(a_wrong_pin_is_tried_once),
		T(a_try_without_an_answer_is_not_repeated),
		T(the_last_try_is_left_to_people),
		T(claims_are_not_signatures),
		T(a_wrong_rsa_signature_is_kept_back),
		T(a_foreign_key_is_never_used),
		T(a_key_that_changed_meanwhile_is_seen),
		T(two_keys_of_one_id_are_refused),
		T(lost_sessions_are_opened_anew),
		T(a_token_that_is_away_comes_back),
		T(an_object_that_is_not_there_may_come_back),
		T(failures_without_a_reason_are_retryable),
		T(what_is_made_in_part_goes_again),
		T(a_tag_ends_its_own_key_only),
		T(found_keys_are_used_and_left_alone),
		T(a_library_that_cannot_lock_has_one_thread),
		T(sessions_that_the_token_refuses_are_waited_for),
	};
	struct badtoken *const *found;
	void *so;

	if (realpath("build/tests/fault/badtoken.so", library) == NULL || (so = dlopen(library, RTLD_NOW | RTLD_LOCAL)) == NULL ||
		(found = dlsym(so, "badtoken")) == NULL) {
		fprintf(stderr, "build/tests/fault/badtoken.so: it is not there\n");
		return 1;
	}
	token = *found;
	return cmocka_run_group_tests_name("pkcs11", tests, NULL, NULL);
}
