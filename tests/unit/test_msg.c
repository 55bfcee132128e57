#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "libclient/wire/enc.h"
#include "libclient/wire/msg.h"

#define N(a) (sizeof(a) / sizeof((a)[0]))

static struct csm_pool pool;
static struct csm_buf buf;

static int setup(void **state)
{
	(void)state;
	csm_pool_init(&pool, 64 * 1024);
	csm_buf_init(&buf, 2 * CSM_MESSAGE_MAX, false);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	csm_pool_free(&pool);
	csm_buf_free(&buf);
	return 0;
}

static struct csm_bin contents(void)
{
	return (struct csm_bin){csm_buf_ptr(&buf), buf.len};
}

/* ---- the tables ---------------------------------------------------------------------- */

static void test_message_table(void **state)
{
	(void)state;
	for (size_t i = 0; i < CSM_MSGID__COUNT; i++) {
		const struct csm_msgdef *def = &csm_msgdefs[i];

		assert_non_null(def->name);
		for (size_t j = 0; j < def->n_fields; j++) {
			const struct csm_field *f = &def->fields[j];
			bool has_sub = f->kind == CSM_K_MAP || f->kind == CSM_K_MAPS;

			assert_int_equal(f->name_len, strlen(f->name));
			assert_true(f->name_len > 0 && f->name_len < 32);
			assert_true(f->off < def->size);
			assert_int_equal(f->sub != NULL, has_sub);
			/* a message holds only such as stand before it: no circle */
			assert_true(!has_sub || f->sub < def);
			assert_true(f->kind == CSM_K_BOOL || f->max > 0);
			assert_true(f->kind != CSM_K_STRS || f->each > 0);
			for (size_t k = 0; k < j; k++)
				assert_string_not_equal(f->name, def->fields[k].name);
		}
	}
	assert_int_equal(CSM_DEF(sign_req)->n_fields, 5);
	assert_int_equal(CSM_DEF(sign_req)->fields[3].off, offsetof(struct csm_msg_sign_req, message));
	assert_int_equal(CSM_DEF(sign_req)->fields[4].off, offsetof(struct csm_msg_sign_req, spki_sha256));
	assert_int_equal(CSM_DEF(empty)->n_fields, 0);
}

static void test_method_table(void **state)
{
	(void)state;
	for (size_t i = 0; i < CSM_M__COUNT; i++) {
		const struct csm_method *m = &csm_methods[i];

		assert_int_equal(m->name_len, strlen(m->name));
		assert_ptr_equal(csm_method_find(csm_str_of(m->name)), m);
		assert_non_null(m->request);
		assert_non_null(m->response);
		assert_true(m->roles != 0 && m->states != 0);
		for (size_t j = 0; j < i; j++) {
			assert_int_not_equal(m->number, csm_methods[j].number);
			assert_string_not_equal(m->name, csm_methods[j].name);
		}
	}
	assert_int_equal(csm_methods[CSM_M_SIGN_INIT].perm, CSM_PERM_KEY_SIGN);
	assert_int_equal(csm_methods[CSM_M_HELLO].perm, CSM_PERM_OPEN);
	assert_int_equal(csm_methods[CSM_M_STORE_ACCEPT].roles, CSM_R_ADMIN);
	assert_int_equal(csm_methods[CSM_M_SECRET_SET].flags, CSM_F_MUTATES | CSM_F_SECRET);
	assert_int_equal(csm_methods[CSM_M_KEY_LIST].states, CSM_S_READY);
}

static void test_method_unknown(void **state)
{
	(void)state;
	assert_null(csm_method_find(CSM_STR("")));
	assert_null(csm_method_find(csm_str_of(NULL)));
	assert_null(csm_method_find(CSM_STR("pin")));
	assert_null(csm_method_find(CSM_STR("pingx")));
	assert_null(csm_method_find(CSM_STR("PING")));
	assert_null(csm_method_find(CSM_STR("key.sigN")));
	assert_null(csm_method_find(CSM_STR("ping\0")));
	assert_null(csm_method_find(CSM_STR("mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm")));
}

/* ---- the pool ------------------------------------------------------------------------- */

static void test_pool(void **state)
{
	uint8_t *a, *b;
	size_t total = 0;

	(void)state;
	a = csm_pool_alloc(&pool, 10);
	b = csm_pool_alloc(&pool, 10);
	assert_non_null(a);
	assert_true(b >= a + 10);
	assert_int_equal((uintptr_t)b % 16, 0);
	memset(a, 0xff, 10);
	csm_pool_reset(&pool);
	/* what is handed out again is zero */
	a = csm_pool_alloc(&pool, 10);
	for (int i = 0; i < 10; i++)
		assert_int_equal(a[i], 0);
	csm_pool_reset(&pool);

	assert_null(csm_pool_alloc(&pool, SIZE_MAX));
	assert_null(csm_pool_alloc(&pool, 64 * 1024 + 1));
	assert_true(csm_pool_full(&pool, 64 * 1024 + 1));
	for (size_t i = 0; (a = csm_pool_alloc(&pool, 900)) != NULL; i++) {
		memset(a, (int)i, 900);
		total += 900;
	}
	assert_true(csm_pool_full(&pool, 900));
	assert_true(total > 60 * 1024 && total <= 64 * 1024);
	csm_pool_reset(&pool);
	assert_false(csm_pool_full(&pool, 900));
	assert_non_null(csm_pool_alloc(&pool, 60 * 1024));
	assert_non_null(csm_pool_alloc(&pool, 0));
}

/* ---- decoding ------------------------------------------------------------------------- */

static int decode_sign(struct csm_bin p, enum csm_unknown unknown, struct csm_msg_sign_req *out, struct csm_str *bad)
{
	/* out is full of noise, so that what is not written shows */
	memset(out, 0x5a, sizeof(*out));
	return csm_msg_decode(CSM_DEF(sign_req), p, unknown, NULL, out, bad);
}

static void test_absent_and_empty(void **state)
{
	struct csm_msg_sign_req req;
	struct csm_str bad;

	(void)state;
	assert_int_equal(csm_enc_map(&buf, 2), 0);
	assert_int_equal(csm_enc_str(&buf, CSM_STR("key")), 0);
	assert_int_equal(csm_enc_str(&buf, CSM_STR("")), 0);
	assert_int_equal(csm_enc_str(&buf, CSM_STR("message")), 0);
	assert_int_equal(csm_enc_bin(&buf, (struct csm_bin){(const uint8_t *)"", 0}), 0);
	assert_int_equal(decode_sign(contents(), CSM_UNKNOWN_REFUSE, &req, &bad), 0);
	assert_non_null(req.key.p);
	assert_int_equal(req.key.n, 0);
	assert_null(req.scheme.p);
	assert_null(req.digest.p);
	assert_non_null(req.message.p);
	assert_int_equal(req.message.n, 0);
}

static void test_failure_leaves_nothing(void **state)
{
	struct csm_msg_sign_req req;
	struct csm_str bad = CSM_STR("?");

	(void)state;
	assert_int_equal(csm_enc_map(&buf, 2), 0);
	assert_int_equal(csm_enc_str(&buf, CSM_STR("key")), 0);
	assert_int_equal(csm_enc_str(&buf, CSM_STR("k")), 0);
	assert_int_equal(csm_enc_str(&buf, CSM_STR("digest")), 0);
	assert_int_equal(csm_enc_u64(&buf, 1), 0);
	assert_int_equal(decode_sign(contents(), CSM_UNKNOWN_REFUSE, &req, &bad), CSM_EINVALID);
	assert_true(csm_str_eq(bad, "digest"));
	assert_null(req.key.p);
	/* left over */
	csm_buf_reset(&buf);
	assert_int_equal(csm_buf_put(&buf, "\x81\xa3key\xa1k\x00", 8), 0);
	assert_int_equal(decode_sign(contents(), CSM_UNKNOWN_REFUSE, &req, &bad), CSM_EPROTOCOL);
	assert_int_equal(bad.n, 0);
	/* no map at all, and nothing */
	assert_int_equal(decode_sign((struct csm_bin){(const uint8_t *)"\x90", 1}, CSM_UNKNOWN_REFUSE, &req, &bad), CSM_EINVALID);
	assert_int_equal(decode_sign((struct csm_bin){(const uint8_t *)"", 0}, CSM_UNKNOWN_REFUSE, &req, &bad), CSM_EPROTOCOL);
	assert_int_equal(decode_sign((struct csm_bin){(const uint8_t *)"\x81", 1}, CSM_UNKNOWN_REFUSE, &req, &bad), CSM_EPROTOCOL);
}

static void test_limits(void **state)
{
	static const uint8_t bytes[CSM_DIGEST_MAX + 1];
	struct csm_msg_sign_req req;
	struct csm_str bad;

	(void)state;
	for (size_t n = CSM_DIGEST_MAX; n <= CSM_DIGEST_MAX + 1; n++) {
		struct csm_msg_sign_req in = {.key = CSM_STR("k"), .digest = {bytes, n}};

		csm_buf_reset(&buf);
		assert_int_equal(csm_msg_encode(CSM_DEF(sign_req), &in, &buf), 0);
		assert_int_equal(decode_sign(contents(), CSM_UNKNOWN_REFUSE, &req, &bad), n > CSM_DIGEST_MAX ? CSM_ETOO_LARGE : 0);
	}
	assert_true(csm_str_eq(bad, "digest"));
}

static void test_unknown(void **state)
{
	struct csm_msg_sign_req req;
	struct csm_str bad;

	(void)state;
	/* {"x": [{}, -1], "key": "k"} */
	assert_int_equal(csm_buf_put(&buf, "\x82\xa1x\x92\x80\xff\xa3key\xa1k", 12), 0);
	assert_int_equal(decode_sign(contents(), CSM_UNKNOWN_REFUSE, &req, &bad), CSM_EUNSUPPORTED_FIELD);
	assert_true(csm_str_eq(bad, "x"));
	assert_int_equal(decode_sign(contents(), CSM_UNKNOWN_SKIP, &req, &bad), 0);
	assert_true(csm_str_eq(req.key, "k"));
	/* what is skipped must still be whole */
	csm_buf_reset(&buf);
	assert_int_equal(csm_buf_put(&buf, "\x82\xa3key\xa1k\xa1x\xc1", 10), 0);
	assert_int_equal(decode_sign(contents(), CSM_UNKNOWN_SKIP, &req, &bad), CSM_EPROTOCOL);
}

/* ---- there and back ------------------------------------------------------------------- */

static void test_nested(void **state)
{
	struct csm_str algs[2] = {CSM_STR("p256"), CSM_STR("ed25519")}, none[1];
	struct csm_msg_backend_status backends[20];
	struct csm_msg_tpm_status tpm = {.device = CSM_STR("/dev/tpmrm0"), .commands = {UINT64_MAX, true}};
	struct csm_msg_status_res in = {.pid = {1, true}, .version = CSM_STR("0.1.0"), .state = CSM_STR("ready"),
		.sandbox = {none, 0}, .backends = {backends, 16}, .tpm = &tpm};
	struct csm_msg_status_res out;
	struct csm_str bad;

	(void)state;
	memset(backends, 0, sizeof(backends));
	for (size_t i = 0; i < N(backends); i++) {
		backends[i].name = CSM_STR("soft");
		backends[i].algorithms = (struct csm_strs){algs, i % 3 == 0 ? 2 : 0};
		backends[i].preferred = (struct csm_bool){i % 2 == 0, true};
	}
	assert_int_equal(csm_msg_encode(CSM_DEF(status_res), &in, &buf), 0);
	assert_int_equal(csm_msg_decode(CSM_DEF(status_res), contents(), CSM_UNKNOWN_REFUSE, &pool, &out, &bad), 0);
	assert_int_equal(out.backends.n, 16);
	for (size_t i = 0; i < 16; i++) {
		assert_true(csm_str_eq(out.backends.v[i].name, "soft"));
		assert_int_equal(out.backends.v[i].algorithms.n, i % 3 == 0 ? 2 : 0);
		assert_int_equal(out.backends.v[i].preferred.v, i % 2 == 0);
		assert_null(out.backends.v[i].reason.p);
	}
	assert_true(csm_str_eq(out.backends.v[15].algorithms.v[1], "ed25519"));
	assert_non_null(out.tpm);
	assert_int_equal(out.tpm->commands.v, UINT64_MAX);
	assert_null(out.store);
	assert_false(out.keys.set);
	/* one more than the field allows */
	csm_buf_reset(&buf);
	in.backends.n = 17;
	assert_int_equal(csm_msg_encode(CSM_DEF(status_res), &in, &buf), 0);
	assert_int_equal(csm_msg_decode(CSM_DEF(status_res), contents(), CSM_UNKNOWN_REFUSE, &pool, &out, &bad), CSM_ETOO_LARGE);
	assert_true(csm_str_eq(bad, "backends"));
}

static void test_small_pool(void **state)
{
	struct csm_msg_pair pairs[CSM_PAIRS_MAX];
	struct csm_msg_secret_set_req in = {.secret = CSM_STR("d/s"), .pairs = {pairs, CSM_PAIRS_MAX}}, out;
	struct csm_pool small;
	struct csm_str bad;

	(void)state;
	memset(pairs, 0, sizeof(pairs));
	assert_int_equal(csm_msg_encode(CSM_DEF(secret_set_req), &in, &buf), 0);
	csm_pool_init(&small, sizeof(pairs) - 1);
	assert_int_equal(csm_msg_decode(CSM_DEF(secret_set_req), contents(), CSM_UNKNOWN_REFUSE, &small, &out, &bad), CSM_ETOO_LARGE);
	csm_pool_free(&small);
	csm_pool_init(&small, sizeof(pairs));
	assert_int_equal(csm_msg_decode(CSM_DEF(secret_set_req), contents(), CSM_UNKNOWN_REFUSE, &small, &out, &bad), 0);
	assert_int_equal(out.pairs.n, CSM_PAIRS_MAX);
	csm_pool_free(&small);
	/* without a pool only messages without arrays can be read */
	assert_int_equal(csm_msg_decode(CSM_DEF(secret_set_req), contents(), CSM_UNKNOWN_REFUSE, NULL, &out, &bad), CSM_EINTERNAL);
}

/* Keys of every length of head, in the last field and the first, in any order. */
static void test_orders(void **state)
{
	static const char *const fields[] = {"key", "scheme", "digest", "message"};
	struct csm_msg_sign_req req;
	struct csm_str bad;

	(void)state;
	for (unsigned code = 0; code < 256; code++) {
		unsigned order[4] = {code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6 & 3}, mask = 0;

		csm_buf_reset(&buf);
		assert_int_equal(csm_enc_map(&buf, 4), 0);
		for (size_t i = 0; i < 4; i++) {
			mask |= 1u << order[i];
			assert_int_equal(csm_enc_str(&buf, csm_str_of(fields[order[i]])), 0);
			if (order[i] < 2)
				assert_int_equal(csm_enc_str(&buf, CSM_STR("v")), 0);
			else
				assert_int_equal(csm_enc_bin(&buf, (struct csm_bin){(const uint8_t *)"w", 1}), 0);
		}
		assert_int_equal(decode_sign(contents(), CSM_UNKNOWN_REFUSE, &req, &bad), mask == 15 ? 0 : CSM_EPROTOCOL);
		if (mask == 15) {
			assert_true(csm_str_eq(req.key, "v") && csm_str_eq(req.scheme, "v"));
			assert_true(req.digest.n == 1 && req.message.n == 1);
		}
	}
}

static void test_encode_required(void **state)
{
	struct csm_msg_hello_res in, out;
	struct csm_str bad;

	(void)state;
	memset(&in, 0, sizeof(in));
	assert_int_equal(csm_msg_encode(CSM_DEF(hello_res), &in, &buf), 0);
	assert_int_equal(csm_msg_decode(CSM_DEF(hello_res), contents(), CSM_UNKNOWN_REFUSE, NULL, &out, &bad), 0);
	assert_true(out.version.set);
	assert_int_equal(out.server.n, 0);
	csm_buf_reset(&buf);
	assert_int_equal(csm_msg_encode(CSM_DEF(empty), &in, &buf), 0);
	assert_int_equal(buf.len, 1);
	assert_int_equal(csm_buf_ptr(&buf)[0], 0x80);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_message_table),
		cmocka_unit_test(test_method_table),
		cmocka_unit_test(test_method_unknown),
		cmocka_unit_test_setup_teardown(test_pool, setup, teardown),
		cmocka_unit_test_setup_teardown(test_absent_and_empty, setup, teardown),
		cmocka_unit_test_setup_teardown(test_failure_leaves_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unknown, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nested, setup, teardown),
		cmocka_unit_test_setup_teardown(test_small_pool, setup, teardown),
		cmocka_unit_test_setup_teardown(test_orders, setup, teardown),
		cmocka_unit_test_setup_teardown(test_encode_required, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
