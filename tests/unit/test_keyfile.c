/* Keys from outside: wrapped keys against vectors that were made without csm (tests/lib/wrapvectors.py), by the software
 * and by a TPM; TSS2 key files; each of them damaged in every way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <openssl/core_names.h>
#include <openssl/param_build.h>
#include <openssl/x509.h>
#include <sodium.h>
#include "libclient/tpmfmt/dup.h"
#include "libclient/tpmfmt/keyfile.h"
#include "libclient/tpmfmt/tpmutil.h"
#include "plugins/include/csm_alg.h"
#include "proto-spec/limits.h"
#include "tests/lib/tpm2_env.h"

#define GOLDEN "tests/unit/golden/wrapped-key.txt"
#define VECTOR_MAX 2048u

static const struct {
	const char *name;
	enum csm_alg alg;
	bool tpm; /* a swtpm has it */
} kinds[] = {{"p256", CSM_ALG_P256, true}, {"p384", CSM_ALG_P384, true}, {"p521", CSM_ALG_P521, true},
	{"rsa2048", CSM_ALG_RSA2048, true}, {"rsa3072", CSM_ALG_RSA3072, true}};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

struct bytes {
	uint8_t p[VECTOR_MAX];
	size_t n;
};

static struct csm_bin bin(const struct bytes *b)
{
	return (struct csm_bin){b->p, b->n};
}

static void vector(const char *kind, const char *what, struct bytes *ret)
{
	FILE *f = fopen(GOLDEN, "re");
	char want[64], name[64], hex[2 * VECTOR_MAX + 2];

	assert_non_null(f);
	snprintf(want, sizeof(want), "%s.%s", kind, what);
	ret->n = 0;
	while (ret->n == 0 && fscanf(f, "%63s %4097s", name, hex) == 2)
		if (strcmp(name, want) == 0)
			assert_int_equal(sodium_hex2bin(ret->p, sizeof(ret->p), hex, strlen(hex), NULL, &ret->n, NULL), 0);
	fclose(f);
	assert_true(ret->n > 0);
}

/* The storage key of the vectors. */
static EVP_PKEY *storage_key(void)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
	OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
	uint8_t point[65] = {4};
	struct bytes priv, pub;
	EVP_PKEY *key = NULL;
	TPMT_PUBLIC area;
	OSSL_PARAM *par;
	BIGNUM *d;

	vector("storage", "private", &priv);
	vector("storage", "public", &pub);
	assert_int_equal(csm_tpm_public_get(bin(&pub), &area), 0);
	assert_null(csm_tpm_storage_objection(&area));
	memcpy(point + 1, area.unique.ecc.x.buffer, 32);
	memcpy(point + 33, area.unique.ecc.y.buffer, 32);
	d = BN_bin2bn(priv.p, (int)priv.n, NULL);
	assert_int_equal(OSSL_PARAM_BLD_push_utf8_string(bld, OSSL_PKEY_PARAM_GROUP_NAME, "P-256", 0), 1);
	assert_int_equal(OSSL_PARAM_BLD_push_octet_string(bld, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point)), 1);
	assert_int_equal(OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_PRIV_KEY, d), 1);
	par = OSSL_PARAM_BLD_to_param(bld);
	assert_int_equal(EVP_PKEY_fromdata_init(ctx), 1);
	assert_int_equal(EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_KEYPAIR, par), 1);
	OSSL_PARAM_free(par);
	OSSL_PARAM_BLD_free(bld);
	BN_free(d);
	EVP_PKEY_CTX_free(ctx);
	return key;
}

static EVP_PKEY *private_key(const char *kind)
{
	struct bytes der;
	const uint8_t *at = der.p;
	EVP_PKEY *key;

	vector(kind, "key", &der);
	key = d2i_AutoPrivateKey(NULL, &at, (long)der.n);
	assert_non_null(key);
	return key;
}

/* What a node without a TPM does with a wrapped key. */
static int open_wrapped(EVP_PKEY *storage, struct csm_bin in, EVP_PKEY **ret)
{
	struct csm_wrapped w;
	struct csm_buf plain;
	TPM2B_NAME name;
	int r;

	if ((r = csm_wrapped_get(in, &w)) != 0 || (r = csm_tpm_name(&w.pub, &name)) != 0)
		return r;
	csm_buf_init(&plain, CSM_TPM_SENSITIVE_MAX, true);
	if ((r = csm_tpm_unwrap(storage, &name, w.seed, w.duplicate, &plain)) == 0)
		r = csm_tpm_sensitive_get((struct csm_bin){csm_buf_ptr(&plain), plain.len}, &w.pub, ret);
	csm_buf_free(&plain);
	return r;
}

static void same_private(EVP_PKEY *a, EVP_PKEY *b)
{
	const char *name = EVP_PKEY_is_a(a, "RSA") ? OSSL_PKEY_PARAM_RSA_D : OSSL_PKEY_PARAM_PRIV_KEY;
	BIGNUM *x = NULL, *y = NULL;

	assert_int_equal(EVP_PKEY_eq(a, b), 1);
	assert_int_equal(EVP_PKEY_get_bn_param(a, name, &x), 1);
	assert_int_equal(EVP_PKEY_get_bn_param(b, name, &y), 1);
	assert_int_equal(BN_cmp(x, y), 0);
	BN_clear_free(x);
	BN_clear_free(y);
}

/* ---- wrapped keys ---- */

static void vectors_open(void **state)
{
	EVP_PKEY *storage = storage_key();

	(void)state;
	for (size_t i = 0; i < N_KINDS; i++) {
		EVP_PKEY *want = private_key(kinds[i].name), *got = NULL;
		struct csm_wrapped w;
		struct csm_buf again;
		struct bytes v;

		vector(kinds[i].name, "wrapped", &v);
		assert_true(csm_wrapped_is(bin(&v)));
		assert_int_equal(open_wrapped(storage, bin(&v), &got), 0);
		same_private(want, got);
		assert_int_equal(csm_wrapped_get(bin(&v), &w), 0);
		csm_buf_init(&again, VECTOR_MAX, false);
		assert_int_equal(csm_wrapped_put(&w, &again), 0);
		assert_int_equal(again.len, v.n);
		assert_memory_equal(csm_buf_ptr(&again), v.p, v.n);
		csm_buf_free(&again);
		EVP_PKEY_free(got);
		EVP_PKEY_free(want);
	}
	EVP_PKEY_free(storage);
}

/* In a buffer of just that size, so that a read beyond it is seen. */
static int open_copy(EVP_PKEY *storage, const uint8_t *p, size_t n)
{
	uint8_t *tight = malloc(n > 0 ? n : 1);
	EVP_PKEY *got = NULL;
	int r;

	assert_non_null(tight);
	memcpy(tight, p, n);
	r = open_wrapped(storage, (struct csm_bin){tight, n}, &got);
	EVP_PKEY_free(got);
	free(tight);
	return r;
}

static void every_bit_counts(void **state)
{
	static const size_t named = 8 * (8 + 2 + CSM_TPM_NAME_LEN); /* which storage key it is: compared by who opens it */
	EVP_PKEY *storage = storage_key(), *other = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");

	(void)state;
	for (size_t i = 0; i < N_KINDS; i++) {
		struct bytes v;

		vector(kinds[i].name, "wrapped", &v);
		for (size_t bit = 0; bit < 8 * v.n; bit += i == 0 ? 1 : 37) {
			if (bit >= 8 * 10 && bit < named)
				continue;
			v.p[bit / 8] ^= (uint8_t)(1u << bit % 8);
			if (open_copy(storage, v.p, v.n) == 0)
				fail_msg("%s opens with bit %zu changed", kinds[i].name, bit);
			v.p[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
		for (size_t n = 0; n < v.n; n += i == 0 ? 1 : 11)
			assert_int_not_equal(open_copy(storage, v.p, n), 0);
		v.p[v.n] = 0;
		assert_int_equal(open_copy(storage, v.p, v.n + 1), CSM_EINVALID);
		assert_int_equal(open_copy(other, v.p, v.n), CSM_EINVALID);
		assert_int_equal(open_copy(storage, v.p, v.n), 0);
	}
	EVP_PKEY_free(other);
	EVP_PKEY_free(storage);
}

/* The same, with an authValue. */
static void add_auth(struct csm_buf *sensitive, const void *auth, size_t n)
{
	uint8_t p[CSM_TPM_SENSITIVE_MAX];
	size_t old = sensitive->len;

	assert_true(n < 32 && old > 6 && old + n <= sizeof(p));
	memcpy(p, csm_buf_ptr(sensitive), 6);
	assert_int_equal(p[4] | p[5], 0);
	p[0] = (uint8_t)((old + n - 2) >> 8);
	p[1] = (uint8_t)(old + n - 2);
	p[5] = (uint8_t)n;
	memcpy(p + 6, auth, n);
	memcpy(p + 6 + n, csm_buf_ptr(sensitive) + 6, old - 6);
	csm_buf_reset(sensitive);
	assert_int_equal(csm_buf_put(sensitive, p, old + n), 0);
}

/* Wrap a key for a storage key; the wrapped key's bytes. */
static void wrap_with(const TPMT_PUBLIC *storage, EVP_PKEY *key, TPMA_OBJECT attributes, const char *auth,
	struct bytes *ret)
{
	uint8_t duplicate[CSM_TPM_DUPLICATE_MAX];
	struct csm_buf sensitive, out;
	struct csm_wrapped w = {.duplicate = {duplicate, 0}};
	TPM2B_ENCRYPTED_SECRET seed;
	TPM2B_NAME to, name;

	csm_buf_init(&sensitive, CSM_TPM_SENSITIVE_MAX, true);
	csm_buf_init(&out, sizeof(ret->p), false);
	assert_int_equal(csm_tpm_public_of(key, &w.pub), 0);
	w.pub.objectAttributes = attributes;
	assert_int_equal(csm_tpm_sensitive_put(key, &w.pub, &sensitive), 0);
	add_auth(&sensitive, auth, strlen(auth));
	assert_int_equal(csm_tpm_name(storage, &to), 0);
	assert_int_equal(csm_tpm_name(&w.pub, &name), 0);
	assert_int_equal(csm_tpm_wrap(storage, CSM_TPM_DUPLICATE, &name, csm_buf_ptr(&sensitive), sensitive.len, duplicate,
				 sizeof(duplicate), &w.duplicate.n, &seed),
		0);
	w.seed = (struct csm_bin){seed.secret, seed.size};
	w.storage = (struct csm_bin){to.name, to.size};
	assert_int_equal(csm_wrapped_put(&w, &out), 0);
	memcpy(ret->p, csm_buf_ptr(&out), out.len);
	ret->n = out.len;
	csm_buf_free(&out);
	csm_buf_free(&sensitive);
}

static void wrap_for(const TPMT_PUBLIC *storage, EVP_PKEY *key, TPMA_OBJECT attributes, struct bytes *ret)
{
	wrap_with(storage, key, attributes, "", ret);
}

static void what_cannot_be_wrapped(void **state)
{
	EVP_PKEY *ed = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"), *small = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)1024);
	EVP_PKEY *k1 = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "secp256k1");
	struct bytes pub;
	TPMT_PUBLIC area;

	(void)state;
	assert_int_equal(csm_tpm_public_of(ed, &area), CSM_EUNSUPPORTED);
	assert_int_equal(csm_tpm_public_of(small, &area), CSM_EUNSUPPORTED);
	assert_int_equal(csm_tpm_public_of(k1, &area), CSM_EUNSUPPORTED);
	vector("storage", "public", &pub);
	assert_int_equal(csm_tpm_public_get(bin(&pub), &area), 0);
	area.objectAttributes &= ~(TPMA_OBJECT)TPMA_OBJECT_RESTRICTED;
	assert_non_null(csm_tpm_storage_objection(&area));
	area.objectAttributes |= TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_SIGN_ENCRYPT;
	assert_non_null(csm_tpm_storage_objection(&area));
	area.objectAttributes &= ~(TPMA_OBJECT)TPMA_OBJECT_SIGN_ENCRYPT;
	assert_null(csm_tpm_storage_objection(&area));
	area.parameters.eccDetail.symmetric.mode.aes = TPM2_ALG_CBC;
	assert_non_null(csm_tpm_storage_objection(&area));
	EVP_PKEY_free(k1);
	EVP_PKEY_free(small);
	EVP_PKEY_free(ed);
}

/* ---- by the back ends ---- */

static int node_secret(void *arg, const char *name, uint8_t *p)
{
	const char *node = arg;

	memset(p, node[0] ^ name[strlen(name) - 1], 32);
	return 0;
}

struct made {
	uint8_t spki_p[CSM_SPKI_MAX], pub_p[CSM_PLUGIN_PUB_MAX], priv_p[CSM_PLUGIN_PRIV_MAX];
	struct csm_plugin_out spki, pub, priv;
};

static int import(const struct csm_plugin *p, struct csm_plugin_ctx *ctx, const struct csm_plugin_keyspec *spec,
	const struct bytes *v, struct made *m)
{
	m->spki = (struct csm_plugin_out){m->spki_p, sizeof(m->spki_p), 0};
	m->pub = (struct csm_plugin_out){m->pub_p, sizeof(m->pub_p), 0};
	m->priv = (struct csm_plugin_out){m->priv_p, sizeof(m->priv_p), 0};
	return p->import(ctx, spec, v->p, v->n, &m->spki, &m->pub, &m->priv);
}

static void storage_of(const struct csm_plugin *p, struct csm_plugin_ctx *ctx, TPMT_PUBLIC *ret)
{
	struct bytes b;
	struct csm_plugin_out out = {b.p, sizeof(b.p), 0};

	assert_int_equal(p->storage_key(ctx, &out), 0);
	b.n = out.len;
	assert_int_equal(csm_tpm_public_get(bin(&b), ret), 0);
	assert_null(csm_tpm_storage_objection(ret));
}

#define FOR_SIGNING (TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA | TPMA_OBJECT_SIGN_ENCRYPT)

static void damage_is_refused(const struct csm_plugin *p, struct csm_plugin_ctx *ctx,
	const struct csm_plugin_keyspec *spec, struct bytes *v, size_t step)
{
	static struct made m;

	for (size_t bit = 3; bit < 8 * v->n; bit += step) {
		int r;

		v->p[bit / 8] ^= (uint8_t)(1u << bit % 8);
		r = import(p, ctx, spec, v, &m);
		v->p[bit / 8] ^= (uint8_t)(1u << bit % 8);
		if (r != CSM_EINVALID && r != CSM_EUNSUPPORTED)
			fail_msg("%s: %d with bit %zu changed", p->name, r, bit);
		assert_int_equal(m.spki.len + m.pub.len + m.priv.len, 0);
	}
}

static void the_software_takes_them(void **state)
{
	static const struct csm_plugin *const soft = &csm_plugin_soft;
	char name[] = "a";
	struct csm_plugin_host host = {.arg = name, .node_secret = node_secret}, bare = {.arg = NULL};
	struct csm_plugin_out out;
	struct csm_plugin_ctx *ctx, *without;
	TPMT_PUBLIC storage, other;
	static struct made m;
	struct bytes key, v;

	(void)state;
	assert_int_equal(soft->open(&host, &ctx), 0);
	assert_int_equal(soft->open(&bare, &without), 0);
	storage_of(soft, ctx, &storage);
	assert_int_equal(storage.objectAttributes & (TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT), 0);
	name[0] = 'b';
	storage_of(soft, ctx, &other);
	assert_memory_not_equal(storage.unique.ecc.x.buffer, other.unique.ecc.x.buffer, 32);
	name[0] = 'a';
	for (size_t i = 0; i < N_KINDS; i++) {
		struct csm_plugin_keyspec spec = {.alg = kinds[i].alg, .use = CSM_USE_SIGN};
		EVP_PKEY *pkey = private_key(kinds[i].name);

		vector(kinds[i].name, "key", &key);
		wrap_for(&storage, pkey, FOR_SIGNING, &v);
		assert_int_equal(import(soft, ctx, &spec, &v, &m), 0);
		/* The stored form is PKCS#8. */
		assert_int_equal(m.priv.len, key.n);
		assert_memory_equal(m.priv.p, key.p, key.n);
		damage_is_refused(soft, ctx, &spec, &v, 41);
		spec.alg = (enum csm_alg)((kinds[i].alg + 1) % CSM_ALG_ED25519);
		assert_int_not_equal(import(soft, ctx, &spec, &v, &m), 0);
		spec = (struct csm_plugin_keyspec){.alg = kinds[i].alg, .use = CSM_USE_SIGN};
		name[0] = 'b';
		assert_int_equal(import(soft, ctx, &spec, &v, &m), CSM_EINVALID);
		name[0] = 'a';
		wrap_for(&other, pkey, FOR_SIGNING, &v);
		assert_int_equal(import(soft, ctx, &spec, &v, &m), CSM_EINVALID);
		EVP_PKEY_free(pkey);
	}
	out = (struct csm_plugin_out){m.spki_p, sizeof(m.spki_p), 0};
	assert_int_equal(soft->storage_key(without, &out), CSM_EUNSUPPORTED);
	soft->close(without);
	soft->close(ctx);
}

static void a_tpm_takes_them(void **state)
{
	static const struct csm_plugin *const tpm = &csm_plugin_tpm2;
	static struct tpm2_key k;
	struct tpm2_env env;
	TPMT_PUBLIC storage, foreign;
	static struct made m;
	struct bytes v;

	(void)state;
	tpm2_env_start(&env);
	storage_of(tpm, env.ctx, &storage);
	vector("storage", "public", &v);
	assert_int_equal(csm_tpm_public_get(bin(&v), &foreign), 0);
	for (size_t i = 0; i < N_KINDS; i++) {
		struct csm_plugin_keyspec spec = {.alg = kinds[i].alg, .use = CSM_USE_SIGN};
		EVP_PKEY *pkey = private_key(kinds[i].name);

		wrap_for(&storage, pkey, FOR_SIGNING, &v);
		assert_int_equal(import(tpm, env.ctx, &spec, &v, &m), 0);
		memset(&k, 0, sizeof(k));
		k.spec = spec;
		memcpy(k.spki, m.spki_p, k.spki_len = m.spki.len);
		memcpy(k.pub, m.pub_p, k.pub_len = m.pub.len);
		memcpy(k.priv, m.priv_p, k.priv_len = m.priv.len);
		assert_int_equal(i2d_PUBKEY(pkey, NULL), (int)m.spki.len);
		assert_int_equal(tpm2_key_load(&env, &k), 0);
		assert_int_equal(tpm2_sign_verify(&env, &k), 0);
		tpm2_key_unload(&env, &k);
		damage_is_refused(tpm, env.ctx, &spec, &v, 151);
		/* Other uses than its attributes allow, and a claim to have been born in a TPM. */
		spec.use = CSM_USE_SIGN | (csm_alg_is_rsa(kinds[i].alg) ? CSM_USE_DECRYPT : CSM_USE_DERIVE);
		assert_int_equal(import(tpm, env.ctx, &spec, &v, &m), CSM_EUNSUPPORTED);
		spec.use = CSM_USE_SIGN;
		wrap_for(&storage, pkey, FOR_SIGNING | TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT, &v);
		assert_int_equal(import(tpm, env.ctx, &spec, &v, &m), CSM_EINVALID);
		wrap_for(&storage, pkey, FOR_SIGNING | TPMA_OBJECT_RESTRICTED, &v);
		assert_int_not_equal(import(tpm, env.ctx, &spec, &v, &m), 0);
		wrap_for(&foreign, pkey, FOR_SIGNING, &v);
		assert_int_equal(import(tpm, env.ctx, &spec, &v, &m), CSM_EINVALID);
		EVP_PKEY_free(pkey);
	}
	tpm2_env_stop(&env);
}

static void auths_are_refused(const struct csm_plugin *p, struct csm_plugin_ctx *ctx)
{
	static const struct {
		const char *kind;
		enum csm_alg alg;
		unsigned use;
		TPMA_OBJECT attributes;
	} rows[] = {{"p256", CSM_ALG_P256, CSM_USE_SIGN, TPMA_OBJECT_SIGN_ENCRYPT},
		{"p256", CSM_ALG_P256, CSM_USE_DERIVE, TPMA_OBJECT_DECRYPT},
		{"rsa2048", CSM_ALG_RSA2048, CSM_USE_SIGN, TPMA_OBJECT_SIGN_ENCRYPT},
		{"rsa2048", CSM_ALG_RSA2048, CSM_USE_DECRYPT, TPMA_OBJECT_DECRYPT}};
	TPMT_PUBLIC storage;
	static struct made m;
	struct bytes v;

	storage_of(p, ctx, &storage);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const TPMA_OBJECT bare = rows[i].attributes | TPMA_OBJECT_USERWITHAUTH, noda = bare | TPMA_OBJECT_NODA;
		struct csm_plugin_keyspec spec = {.alg = rows[i].alg, .use = rows[i].use};
		EVP_PKEY *pkey = private_key(rows[i].kind);

		wrap_for(&storage, pkey, noda, &v);
		assert_int_equal(import(p, ctx, &spec, &v, &m), 0);
		for (int turn = 0; turn < 3; turn++) {
			wrap_with(&storage, pkey, noda, "secret", &v);
			assert_int_equal(import(p, ctx, &spec, &v, &m), CSM_EINVALID);
			wrap_with(&storage, pkey, bare, "secret", &v);
			assert_int_equal(import(p, ctx, &spec, &v, &m), CSM_EINVALID);
			wrap_for(&storage, pkey, bare, &v);
			assert_int_equal(import(p, ctx, &spec, &v, &m), CSM_EINVALID);
			assert_int_equal(m.spki.len + m.pub.len + m.priv.len, 0);
		}
		EVP_PKEY_free(pkey);
	}
}

static void a_wrapped_key_has_no_authorisation(void **state)
{
	char name[] = "a";
	struct csm_plugin_host host = {.arg = name, .node_secret = node_secret};
	struct csm_plugin_ctx *soft;
	struct tpm2_other other;
	struct tpm2_env env;
	struct tpm2_key k;
	TPM2_HANDLE h[16];
	size_t sessions;

	(void)state;
	assert_int_equal(csm_plugin_soft.open(&host, &soft), 0);
	auths_are_refused(&csm_plugin_soft, soft);
	csm_plugin_soft.close(soft);
	tpm2_env_start(&env);
	tpm2_other_open(&other, env.tpm);
	tpm2_key_make(&env, CSM_ALG_P256, CSM_USE_SIGN, &k);
	csm_plugin_tpm2.idle(env.ctx);
	sessions = tpm2_other_handles(&other, LOADED_SESSIONS, h, 16);
	auths_are_refused(&csm_plugin_tpm2, env.ctx);
	assert_int_equal(tpm2_sign_verify(&env, &k), 0);
	assert_true(tpm2_env_health(&env).usable);
	csm_plugin_tpm2.idle(env.ctx);
	assert_int_equal(tpm2_other_handles(&other, LOADED_SESSIONS, h, 16), sessions);
	assert_int_equal(tpm2_other_property(&other, TPM2_PT_LOCKOUT_COUNTER), 0);
	tpm2_key_unload(&env, &k);
	tpm2_other_close(&other);
	tpm2_env_stop(&env);
}

/* ---- TSS2 PRIVATE KEY ---- */

/* One with dictionary attack protection, as tpm2-openssl makes them: its refusal counts, so it is not asked for ever. */
static void no_lockout_by_tss2_files(void **state)
{
	struct tpm2_other other;
	struct tpm2_env env;
	struct tpm2_key k, good;
	static struct made m;
	struct csm_buf der;
	struct bytes v;

	(void)state;
	tpm2_env_start(&env);
	tpm2_other_open(&other, env.tpm);
	for (int round = 0; round < 2; round++) {
		struct csm_tss2 key = {.parent = CSM_TPM_SRK};

		csm_plugin_tpm2.idle(env.ctx);
		tpm2_other_create(&other, TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT, round == 0 ? "" : "secret", &k);
		key.pub_2b = (struct csm_bin){k.pub, k.pub_len};
		key.priv_2b = (struct csm_bin){k.priv, k.priv_len};
		csm_buf_init(&der, sizeof(v.p), false);
		assert_int_equal(csm_tss2_put(&key, &der), 0);
		memcpy(v.p, csm_buf_ptr(&der), v.n = der.len);
		csm_buf_free(&der);
		for (int i = 0; i < 8; i++)
			assert_int_equal(import(&csm_plugin_tpm2, env.ctx, &k.spec, &v, &m),
				round == 0 ? 0 : i == 0 ? CSM_EINVALID : CSM_EBUSY);
	}
	csm_plugin_tpm2.idle(env.ctx);
	assert_int_equal(tpm2_other_property(&other, TPM2_PT_LOCKOUT_COUNTER), 1);
	assert_true(tpm2_other_property(&other, TPM2_PT_MAX_AUTH_FAIL) > 2);
	tpm2_key_make(&env, CSM_ALG_P256, CSM_USE_SIGN, &good);
	assert_int_equal(tpm2_sign_verify(&env, &good), 0);
	tpm2_key_unload(&env, &good);
	tpm2_other_close(&other);
	tpm2_env_stop(&env);
}

static void tss2_example(struct csm_buf *out, struct csm_tss2 *key)
{
	static uint8_t priv[2 + 100] = {0, 100}, pub[CSM_TPM_PUBLIC_MAX];
	EVP_PKEY *pkey = private_key("p256");
	struct csm_buf form;
	TPMT_PUBLIC area;

	assert_int_equal(csm_tpm_public_of(pkey, &area), 0);
	EVP_PKEY_free(pkey);
	csm_buf_init(&form, sizeof(pub), false);
	assert_int_equal(csm_tpm_public_put(&area, &form), 0);
	memcpy(pub, csm_buf_ptr(&form), form.len);
	*key = (struct csm_tss2){.parent = CSM_TPM_SRK, .pub_2b = {pub, form.len}, .priv_2b = {priv, sizeof(priv)}};
	csm_buf_free(&form);
	csm_buf_init(out, 1024, false);
	assert_int_equal(csm_tss2_put(key, out), 0);
}

static void tss2_files(void **state)
{
	struct csm_tss2 key, got;
	const char *why = NULL;
	struct csm_buf der;
	uint8_t copy[1100];

	(void)state;
	tss2_example(&der, &key);
	assert_int_equal(csm_tss2_get((struct csm_bin){csm_buf_ptr(&der), der.len}, &got, &why), 0);
	assert_int_equal(got.parent, CSM_TPM_SRK);
	assert_true(got.empty_auth);
	assert_int_equal(got.priv_2b.n, key.priv_2b.n);
	assert_memory_equal(got.pub_2b.p, key.pub_2b.p, key.pub_2b.n);
	memcpy(copy, csm_buf_ptr(&der), der.len);
	for (size_t n = 0; n < der.len; n++)
		assert_int_equal(csm_tss2_get((struct csm_bin){copy, n}, &got, &why), CSM_EINVALID);
	copy[der.len] = 0;
	assert_int_equal(csm_tss2_get((struct csm_bin){copy, der.len + 1}, &got, &why), CSM_EINVALID);
	/* BOOLEAN 01, as tpm2-openssl writes it; 3 bytes of header, 8 of the type, 2 + 2 of the tags. */
	assert_int_equal(copy[15], 0xff);
	copy[15] = 1;
	assert_int_equal(csm_tss2_get((struct csm_bin){copy, der.len}, &got, &why), 0);
	assert_true(got.empty_auth);
	copy[15] = 0;
	assert_int_equal(csm_tss2_get((struct csm_bin){copy, der.len}, &got, &why), 0);
	assert_false(got.empty_auth);
	/* an importable key, and a type that is none */
	assert_int_equal(copy[10], 3);
	copy[10] = 4;
	assert_int_equal(csm_tss2_get((struct csm_bin){copy, der.len}, &got, &why), CSM_EUNSUPPORTED);
	copy[10] = 3;
	copy[9] ^= 1;
	assert_int_equal(csm_tss2_get((struct csm_bin){copy, der.len}, &got, &why), CSM_EINVALID);
	copy[9] ^= 1;
	/* [1]: a policy; [6]: nobody knows */
	copy[11] = 0xa1;
	assert_int_equal(csm_tss2_get((struct csm_bin){copy, der.len}, &got, &why), CSM_EUNSUPPORTED);
	copy[11] = 0xa6;
	assert_int_equal(csm_tss2_get((struct csm_bin){copy, der.len}, &got, &why), CSM_EINVALID);
	key.parent = 0x40000001;
	csm_buf_reset(&der);
	assert_int_equal(csm_tss2_put(&key, &der), CSM_EINVALID);
	key.parent = CSM_TPM_SRK;
	key.priv_2b.n--;
	assert_int_equal(csm_tss2_put(&key, &der), CSM_EINVALID);
	csm_buf_free(&der);
}

/* ---- tpm-util's sets; the whole of them in tests/system/exposed-keys-only-when-accepted.sh ---- */

static void parts_of_sets(void **state)
{
	uint8_t inner[68] = {16, 0, 1, 2, 3}, seed[258] = {0, 1, 9}, priv[912] = {206, 0, 0, 32, 1};
	struct tpmutil_set set = {.have = {false}};
	struct csm_buf sensitive;
	struct bytes pub;

	(void)state;
	assert_int_equal(tpmutil_add(&set, (struct csm_bin){inner, sizeof(inner)}), 0);
	assert_int_equal(set.inner.n, 16);
	assert_int_equal(tpmutil_add(&set, (struct csm_bin){inner, sizeof(inner)}), CSM_EEXISTS);
	assert_int_equal(tpmutil_add(&set, (struct csm_bin){seed, sizeof(seed)}), 0);
	assert_int_equal(set.seed.n, 256);
	assert_int_equal(tpmutil_add(&set, (struct csm_bin){priv, sizeof(priv)}), 0);
	assert_int_equal(set.duplicate.n, 206);
	csm_buf_init(&sensitive, CSM_TPM_SENSITIVE_MAX, true);
	assert_int_equal(tpmutil_open(&set, &sensitive), CSM_EINVALID); /* no public half */
	vector("storage", "public", &pub);
	assert_int_equal(tpmutil_add(&set, bin(&pub)), 0);
	assert_true(set.have[TPMUTIL_PUBLIC]);
	assert_int_equal(tpmutil_open(&set, &sensitive), CSM_ENOT_FOUND); /* not with a seed of zeros */
	assert_int_equal(sensitive.len, 0);
	csm_buf_free(&sensitive);
	/* padding that is none, lengths beyond the file, sizes of nothing */
	memset(&set, 0, sizeof(set));
	inner[60] = 1;
	assert_int_equal(tpmutil_add(&set, (struct csm_bin){inner, sizeof(inner)}), CSM_EINVALID);
	seed[0] = 1;
	assert_int_equal(tpmutil_add(&set, (struct csm_bin){seed, sizeof(seed)}), CSM_EINVALID);
	for (size_t n = 0; n < sizeof(priv); n++)
		assert_int_not_equal(tpmutil_add(&set, (struct csm_bin){priv, n}), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vectors_open),
		cmocka_unit_test(every_bit_counts),
		cmocka_unit_test(what_cannot_be_wrapped),
		cmocka_unit_test(the_software_takes_them),
		cmocka_unit_test(a_tpm_takes_them),
		cmocka_unit_test(a_wrapped_key_has_no_authorisation),
		cmocka_unit_test(no_lockout_by_tss2_files),
		cmocka_unit_test(tss2_files),
		cmocka_unit_test(parts_of_sets),
	};

	alarm(240);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
