/* The primitives under the store's records against published vectors, and a record on disk against its
 * description in ARCHITECTURE.md, opened with nothing of the store's code. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "daemon/svc/store_internal.h"
#include "tests/lib/storefix.h"

static void unhex(const char *hex, uint8_t *out, size_t n)
{
	size_t got = 0;

	assert_int_equal(sodium_hex2bin(out, n, hex, strlen(hex), NULL, &got, NULL), 0);
	assert_int_equal(got, n);
}

/* RFC 5869, case 1: the first block of the output. */
static void test_hkdf_expand(void **state)
{
	uint8_t key[KEY_LEN], info[11], want[32], got[32];
	struct prk prk;

	(void)state;
	unhex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5", key, 32);
	unhex("f0f1f2f3f4f5f6f7f8f901", info, 11);
	unhex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf", want, 32);
	prk_init(&prk, key);
	prk_mac(&prk, (struct part[]){{info, 11}}, 1, got);
	assert_memory_equal(got, want, 32);
}

/* The GCM specification, cases 13 and 14: key, nonce and text all zero. */
static void aead_vectors(bool no_sodium)
{
	static const uint8_t key[KEY_LEN], text[16];
	uint8_t want[32], out[32], back[16];
	struct aead a;

	assert_int_equal(aead_init(&a, no_sodium), 0);
	unhex("530f8afbc74536b9a963b4f1c4cb738b", want, 16);
	assert_int_equal(aead_seal(&a, key, (struct csm_bin){0}, (struct csm_bin){text, 0}, out), 0);
	assert_memory_equal(out, want, 16);
	unhex("cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98a5d48ab919", want, 32);
	assert_int_equal(aead_seal(&a, key, (struct csm_bin){0}, (struct csm_bin){text, 16}, out), 0);
	assert_memory_equal(out, want, 16);
	assert_int_equal(aead_open(&a, key, (struct csm_bin){0}, (struct csm_bin){out, 32}, back), 0);
	assert_memory_equal(back, text, 16);
	for (size_t i = 0; i < 32; i++) {
		out[i] ^= 1;
		assert_int_equal(
			aead_open(&a, key, (struct csm_bin){0}, (struct csm_bin){out, 32}, back), CSM_ETAMPERED);
		out[i] ^= 1;
	}
	assert_int_equal(aead_open(&a, key, (struct csm_bin){text, 1}, (struct csm_bin){out, 32}, back), CSM_ETAMPERED);
	assert_int_equal(aead_open(&a, key, (struct csm_bin){0}, (struct csm_bin){out, 15}, back), CSM_ETAMPERED);
	aead_free(&a);
}

static void test_aead(void **state)
{
	(void)state;
	aead_vectors(false);
	aead_vectors(true);
}

/* Both libraries make and open the same bytes. */
static void test_aead_same(void **state)
{
	uint8_t key[KEY_LEN], aad[100], text[300], one[316], two[316], back[300];
	struct aead sodium, openssl;

	(void)state;
	randombytes_buf(key, sizeof(key));
	randombytes_buf(aad, sizeof(aad));
	randombytes_buf(text, sizeof(text));
	assert_int_equal(aead_init(&sodium, false), 0);
	assert_int_equal(aead_init(&openssl, true), 0);
	for (size_t n = 0; n <= sizeof(text); n += 37) {
		struct csm_bin a = {aad, n / 3}, t = {text, n};

		assert_int_equal(aead_seal(&sodium, key, a, t, one), 0);
		assert_int_equal(aead_seal(&openssl, key, a, t, two), 0);
		assert_memory_equal(one, two, n + TAG_LEN);
		assert_int_equal(aead_open(&openssl, key, a, (struct csm_bin){one, n + TAG_LEN}, back), 0);
		assert_memory_equal(back, text, n);
	}
	aead_free(&sodium);
	aead_free(&openssl);
}

static void test_sum(void **state)
{
	uint8_t a[SUM_LEN], b[SUM_LEN], sum[SUM_LEN] = {0}, zero[SUM_LEN] = {0}, ones[SUM_LEN], one[SUM_LEN] = {1};

	(void)state;
	memset(ones, 0xff, sizeof(ones));
	sum_add(sum, ones);
	sum_add(sum, one); /* carries through all of it, and out */
	assert_memory_equal(sum, zero, SUM_LEN);
	sum_sub(sum, one);
	assert_memory_equal(sum, ones, SUM_LEN);
	randombytes_buf(a, sizeof(a));
	randombytes_buf(b, sizeof(b));
	memcpy(sum, a, SUM_LEN);
	sum_add(sum, b);
	sum_sub(sum, a);
	assert_memory_equal(sum, b, SUM_LEN); /* in any order */
	sum_sub(sum, b);
	assert_memory_equal(sum, zero, SUM_LEN);
	/* libsodium adds the same way */
	memcpy(sum, a, SUM_LEN);
	sum_add(sum, b);
	sodium_add(a, b, SUM_LEN);
	assert_memory_equal(sum, a, SUM_LEN);
}

static void test_dbkeys(void **state)
{
	char long_name[600];
	struct dbkey k, tmp;
	struct dbparts p;

	(void)state;
	assert_int_equal(dbkey_secret(&k, CSM_STR("ns"), CSM_STR("dom"), CSM_STR("name")), 0);
	dbkey_set_version(&k, k.n, 7);
	assert_true(dbkey_split_secret(dbkey_bin(&k), &p));
	assert_true(csm_str_eq(p.ns, "ns") && csm_str_eq(p.domain, "dom") && csm_str_eq(p.name, "name"));
	assert_int_equal(p.version, 7);
	assert_int_equal(p.scope.n, 6);
	k.n--;
	assert_false(dbkey_split_secret(dbkey_bin(&k), &p));
	assert_int_equal(dbkey_key(&k, CSM_STR("ns"), CSM_STR("key")), 0);
	assert_true(dbkey_split_key(dbkey_bin(&k), &p, &tmp));
	assert_int_equal(p.scope.n, 3);
	assert_int_equal(dbkey_scope(&k, CSM_STR(""), CSM_STR("d")), CSM_EINVALID);
	assert_int_equal(dbkey_scope(&k, CSM_STR("n\0s"), CSM_STR("d")), CSM_EINVALID);
	assert_int_equal(dbkey_secret(&k, CSM_STR("ns"), CSM_STR("d"), CSM_STR("a\0b")), CSM_EINVALID);
	memset(long_name, 'x', sizeof(long_name));
	assert_int_equal(dbkey_scope(&k, CSM_STR("ns"), (struct csm_str){long_name, 509}), CSM_EINVALID);
	assert_int_equal(dbkey_secret(&k, CSM_STR("ns"), CSM_STR("d"), (struct csm_str){long_name, 499}), CSM_EINVALID);
	assert_int_equal(dbkey_secret(&k, CSM_STR("ns"), CSM_STR("d"), (struct csm_str){long_name, 497}), 0);
}

/* ---- the format, by its description alone ---- */

static void expand(const uint8_t key[32], const uint8_t *info, size_t n, uint8_t out[32])
{
	uint8_t text[128];
	unsigned len = 32;

	assert_true(n < sizeof(text));
	memcpy(text, info, n);
	text[n] = 1;
	assert_non_null(HMAC(EVP_sha256(), key, 32, text, n + 1, out, &len));
}

static void open_record(
	const uint8_t prk[32], const uint8_t *dbkey, size_t dbkey_n, const uint8_t *v, size_t n, uint8_t *out)
{
	size_t header = (size_t)v[4] << 8 | v[5], text = n - header - 16;
	uint8_t info[37] = {'c', 's', 'm', '1', v[2]}, key[32],
		aad[1024] = {v[2], (uint8_t)(dbkey_n >> 8), (uint8_t)dbkey_n};
	static const uint8_t nonce[12];
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int len;

	memcpy(info + 5, v + 32, 32);
	expand(prk, info, sizeof(info), key);
	memcpy(aad + 3, dbkey, dbkey_n);
	memcpy(aad + 3 + dbkey_n, v, header);
	assert_int_equal(EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, nonce), 1);
	assert_int_equal(EVP_DecryptUpdate(ctx, NULL, &len, aad, (int)(3 + dbkey_n + header)), 1);
	assert_int_equal(EVP_DecryptUpdate(ctx, out, &len, v + header, (int)text), 1);
	assert_int_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, 16, (void *)(uintptr_t)(v + n - 16)), 1);
	assert_int_equal(EVP_DecryptFinal_ex(ctx, out + text, &len), 1);
	EVP_CIPHER_CTX_free(ctx);
}

static void test_format(void **state)
{
	uint8_t scope_key[32], root_key[32], scope[152], root[200], plain[256], dbkey[511], element[32], set_text[700];
	uint8_t *v, *sv;
	struct storefix f;
	struct rawstore w;
	size_t n, sn, kn;
	unsigned len = 32;

	(void)state;
	storefix_init(&f);
	assert_int_equal(storefix_open(&f), 0);
	assert_int_equal(storefix_domain(&f, "web", "db"), 0);
	assert_int_equal(storefix_set(&f, "web", "db", "pw", "the value"), 0);
	storefix_close(&f);
	raw_open(&f, &w);
	expand(f.root_key, (const uint8_t *)"csm1\0scope", 10, scope_key);
	expand(f.root_key, (const uint8_t *)"csm1\0root", 9, root_key);

	sv = raw_get(&w, w.scopes, "web\0db", 6, &sn);
	assert_non_null(sv);
	assert_int_equal(sn, 64 + 152 + 16);
	open_record(scope_key, (const uint8_t *)"web\0db", 6, sv, sn, scope);
	assert_int_equal(scope[15], 1); /* records */
	assert_int_equal(scope[23], 1); /* names */
	assert_int_equal(scope[95], 1); /* KEKs */

	kn = raw_secret_key(dbkey, "web", "db", "pw", 1);
	v = raw_get(&w, w.secrets, dbkey, kn, &n);
	assert_non_null(v);
	assert_int_equal(n, 64 + 9 + 16);
	assert_memory_equal(v, "\x01\x01\x03\x00\x00\x40\x00\x00", 8);
	assert_memory_equal(v + 16, scope + 96, 16);
	open_record(scope + 96 + 16, dbkey, kn, v, n, plain);
	assert_memory_equal(plain, "the value", 9);

	/* the set of one record is its element */
	set_text[0] = 3;
	set_text[1] = 0;
	set_text[2] = (uint8_t)kn;
	memcpy(set_text + 3, dbkey, kn);
	memcpy(set_text + 3 + kn, v, 64);
	memcpy(set_text + 3 + kn + 64, v + n - 16, 16);
	assert_non_null(HMAC(EVP_sha256(), scope + 56, 32, set_text, 3 + kn + 80, element, &len));
	assert_memory_equal(element, scope + 24, 32);
	free(v);

	v = raw_get(&w, w.meta, "root", 4, &n);
	assert_non_null(v);
	assert_int_equal(n, 64 + 200 + 16);
	open_record(root_key, (const uint8_t *)"root", 4, v, n, root);
	assert_int_equal(root[3], 4);  /* schema */
	assert_int_equal(root[31], 1); /* scopes */
	set_text[0] = 1;
	set_text[2] = 6;
	memcpy(set_text + 3, "web\0db", 6);
	memcpy(set_text + 9, sv, sn);
	assert_non_null(HMAC(EVP_sha256(), root + 64, 32, set_text, 9 + sn, element, &len));
	assert_memory_equal(element, root + 32, 32);
	free(v);
	free(sv);
	raw_close(&w);
	storefix_free(&f);
}

/* Each write draws a salt: the same text is never the same bytes. */
static void test_salts(void **state)
{
	uint8_t key[511], *one, *two;
	struct storefix f;
	struct rawstore w;
	size_t n, m;

	(void)state;
	storefix_init(&f);
	assert_int_equal(storefix_open(&f), 0);
	assert_int_equal(storefix_domain(&f, "web", "db"), 0);
	assert_int_equal(storefix_set(&f, "web", "db", "pw", "the same"), 0);
	assert_int_equal(storefix_set(&f, "web", "db", "pw", "the same"), 0);
	storefix_close(&f);
	raw_open(&f, &w);
	one = raw_get(&w, w.secrets, key, raw_secret_key(key, "web", "db", "pw", 1), &n);
	two = raw_get(&w, w.secrets, key, raw_secret_key(key, "web", "db", "pw", 2), &m);
	assert_non_null(one);
	assert_non_null(two);
	assert_int_equal(n, m);
	assert_memory_equal(one + HDR_OFF_KEK, two + HDR_OFF_KEK, KEK_ID_LEN);
	assert_memory_not_equal(one + HDR_OFF_SALT, two + HDR_OFF_SALT, SALT_LEN);
	assert_memory_not_equal(one + HDR_LEN, two + HDR_LEN, 8);
	raw_close(&w);
	free(one);
	free(two);
	storefix_free(&f);
}

/* What was done a day ago may be done again. */
static void test_request_age(void **state)
{
	const struct csm_request_id old = {.who = CSM_STR("uid-1"), .id = CSM_STR("old")};
	const struct csm_request_id young = {.who = CSM_STR("uid-1"), .id = CSM_STR("young")};
	uint64_t now = (uint64_t)time(NULL);
	struct csm_buf answer;
	struct storefix f;
	struct aead a;
	MDB_txn *txn;
	size_t n = 0;

	(void)state;
	storefix_init(&f);
	assert_int_equal(storefix_open(&f), 0);
	assert_int_equal(aead_init(&a, false), 0);
	csm_buf_init(&answer, 100, false);
	assert_int_equal(mdb_txn_begin(f.s->env, NULL, 0, &txn), 0);
	assert_int_equal(
		store_request_put(f.s, txn, &a, &old, now - CSM_REQUEST_ID_TTL_S - 10, (struct csm_bin){0}), 0);
	assert_int_equal(
		store_request_put(f.s, txn, &a, &young, now - CSM_REQUEST_ID_TTL_S + 100, (struct csm_bin){0}), 0);
	assert_int_equal(store_request_find(f.s, txn, &a, &old, now, &answer), CSM_ENOT_FOUND);
	assert_int_equal(store_request_find(f.s, txn, &a, &old, now - 20, &answer), 0);
	assert_int_equal(store_request_find(f.s, txn, &a, &young, now, &answer), 0);
	assert_int_equal(store_request_prune(f.s, txn, now, 100, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(store_request_find(f.s, txn, &a, &old, now - 20, &answer), CSM_ENOT_FOUND);
	assert_int_equal(store_request_find(f.s, txn, &a, &young, now, &answer), 0);
	mdb_txn_abort(txn);
	csm_buf_free(&answer);
	aead_free(&a);
	storefix_free(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hkdf_expand),
		cmocka_unit_test(test_aead),
		cmocka_unit_test(test_aead_same),
		cmocka_unit_test(test_sum),
		cmocka_unit_test(test_dbkeys),
		cmocka_unit_test(test_format),
		cmocka_unit_test(test_salts),
		cmocka_unit_test(test_request_age),
	};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
