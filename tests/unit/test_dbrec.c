/* Rows as bytes: what goes in comes out, and a row that was changed, cut, moved or put together by somebody else is found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "daemon/central/dbrec.h"
#include "daemon/pki/crl.h"
#include "daemon/svc/engine.h"
#include "tests/lib/dbfix.h"

static const struct csm_bin at = {(const uint8_t *)"T-key", 5}, elsewhere = {(const uint8_t *)"T-kez", 5};

static void test_bytes(void **state)
{
	struct csm_pool pool;
	struct dbfix_cert c;
	uint8_t raw[DB_KEY_LEN] = {1};
	struct rec_key key;
	struct db_cert got;
	struct csm_buf b;
	struct csm_bin row;

	(void)state;
	csm_pool_init(&pool, 65536);
	csm_buf_init(&b, 65536, false);
	rec_key_init(&key, raw);
	dbfix_cert(&c, 3);
	assert_int_equal(rec_put(&key, &rec_cert, at, &c.c, &b), 0);
	row = (struct csm_bin){csm_buf_ptr(&b), b.len};
	assert_int_equal(rec_get(&key, &rec_cert, at, row, &pool, &got), 0);
	assert_true(csm_str_same(got.subject, c.c.subject) && got.n_sans == 2 && got.not_after == c.c.not_after);
	assert_int_equal(rec_get(&key, &rec_cert, elsewhere, row, &pool, &got), CSM_ETAMPERED);
	assert_int_equal(rec_get(&key, &rec_token, at, row, &pool, &got), CSM_ETAMPERED);
	raw[31] = 9;
	rec_key_init(&key, raw);
	assert_int_equal(rec_get(&key, &rec_cert, at, row, &pool, &got), CSM_ETAMPERED);
	raw[31] = 0;
	rec_key_init(&key, raw);
	for (size_t n = 0; n < row.n; n++) {
		uint8_t *mine = malloc(n + 1);

		assert_non_null(mine);
		memcpy(mine, row.p, n);
		assert_int_equal(rec_get(&key, &rec_cert, at, (struct csm_bin){mine, n}, &pool, &got), CSM_ETAMPERED);
		assert_int_not_equal(rec_get(NULL, &rec_cert, at, (struct csm_bin){mine, n}, &pool, &got), 0);
		free(mine);
	}
	for (size_t n = 0; n < row.n * 8; n++) {
		b.p[b.off + n / 8] ^= (uint8_t)(1u << (n % 8));
		assert_int_equal(rec_get(&key, &rec_cert, at, row, &pool, &got), CSM_ETAMPERED);
		b.p[b.off + n / 8] ^= (uint8_t)(1u << (n % 8));
	}
	assert_int_equal(rec_get(&key, &rec_cert, at, row, &pool, &got), 0);
	csm_buf_free(&b);
	csm_pool_free(&pool);
}

/* The tag that dbrec.h describes, made with another library: what an older csm-server wrote is read. */
static void test_tag(void **state)
{
	const struct rec_ref ref = {.issued = 7};
	uint8_t raw[DB_KEY_LEN] = {1}, sub[32], all[32], text[128] = {0, (uint8_t)at.n};
	struct rec_key key;
	struct csm_buf b;
	size_t n;

	(void)state;
	csm_buf_init(&b, 65536, false);
	rec_key_init(&key, raw);
	assert_int_equal(rec_put(&key, &rec_ref, at, &ref, &b), 0);
	n = b.len - REC_TAG_LEN;
	memcpy(text + 2, at.p, at.n);
	memcpy(text + 2 + at.n, csm_buf_ptr(&b), n);
	crypto_auth_hmacsha256(sub, (const uint8_t *)"csm-server rows 1", 18, raw);
	crypto_auth_hmacsha256(all, text, 2 + at.n + n, sub);
	assert_memory_equal(csm_buf_ptr(&b) + n, all, REC_TAG_LEN);
	csm_buf_free(&b);
}

static void test_bounds(void **state)
{
	struct csm_str *many = calloc(REC_STRS_MAX + 1, sizeof(*many));
	char *text = calloc(1, 5000);
	uint8_t raw[DB_KEY_LEN] = {1};
	struct csm_pool small;
	struct dbfix_cert c;
	struct rec_key key;
	struct db_cert got;
	struct csm_buf b;

	(void)state;
	assert_true(many != NULL && text != NULL);
	csm_buf_init(&b, 1u << 20, false);
	rec_key_init(&key, raw);
	dbfix_cert(&c, 3);
	c.c.sans = many;
	c.c.n_sans = REC_STRS_MAX + 1;
	assert_int_equal(rec_put(&key, &rec_cert, at, &c.c, &b), CSM_ETOO_LARGE);
	c.c.n_sans = REC_STRS_MAX;
	csm_buf_reset(&b);
	assert_int_equal(rec_put(&key, &rec_cert, at, &c.c, &b), 0);
	csm_pool_init(&small, 1000);
	assert_int_equal(rec_get(&key, &rec_cert, at, (struct csm_bin){csm_buf_ptr(&b), b.len}, &small, &got), CSM_ETOO_LARGE);
	assert_int_equal(rec_get(&key, &rec_cert, at, (struct csm_bin){csm_buf_ptr(&b), b.len}, NULL, &got), CSM_ETOO_LARGE);
	c.c.node = (struct csm_str){text, 513};
	assert_int_equal(rec_put(&key, &rec_cert, at, &c.c, &b), CSM_ETOO_LARGE);
	c.c.node.n = 1;
	c.c.reason = -1;
	assert_int_equal(rec_put(&key, &rec_cert, at, &c.c, &b), CSM_EINVALID);
	csm_pool_free(&small);
	csm_buf_free(&b);
	free(many);
	free(text);
}

/* ---- the file in the hand of somebody without the key ---- */

static bool count(void *arg, const struct db_revoked *r)
{
	(void)r;
	++*(size_t *)arg;
	return true;
}

static bool count_event(void *arg, const struct db_event *e)
{
	(void)e;
	++*(size_t *)arg;
	return true;
}

/* All that there is, as a caller sees it: what was refused as tampered, and whether something is not what it was. */
static void look(struct dbfix *f, unsigned *tampered, unsigned *wrong)
{
	struct dbfix_cert c;
	struct db_token t, got_t;
	struct db_usage u;
	struct db_cert got;
	size_t n = 0, events = 0;
	int r[8] = {0};

	*tampered = *wrong = 0;
	if ((r[0] = dbfix_open(f)) == 0) {
		csm_pool_reset(&f->pool);
		csm_buf_reset(&f->out);
		dbfix_cert(&c, 1);
		r[1] = db_cert_get(f->db, c.c.serial, &f->pool, &got);
		*wrong += r[1] == 0 && (got.state != DB_REVOKED || !csm_str_same(got.subject, c.c.subject) || got.der.n != c.c.der.n ||
			memcmp(got.der.p, c.c.der.p, got.der.n) != 0);
		dbfix_token(&t, 1, 3);
		r[2] = db_token_find(f->db, t.hash, &f->pool, &got_t);
		*wrong += r[2] == 0 && (got_t.used != 1 || got_t.uses != 3);
		r[3] = db_revoked_each(f->db, CSM_STR("default"), 0, DBFIX_NOW, count, &n);
		*wrong += r[3] == 0 && n != 1;
		r[4] = db_value_get(f->db, "crl", &f->out);
		*wrong += r[4] == 0 && (f->out.len != 2 || memcmp(csm_buf_ptr(&f->out), "17", 2) != 0);
		r[5] = db_usage_last(f->db, c.c.spki_sha256, &f->pool, &u);
		r[6] = db_event_each(f->db, 0, count_event, &events);
		*wrong += r[6] == 0 && events != 3;
		dbfix_close(f);
	}
	for (size_t i = 0; i < 8; i++) {
		*tampered += r[i] == CSM_ETAMPERED;
		*wrong += r[i] != 0 && r[i] != CSM_ETAMPERED;
	}
}

static void make(struct dbfix *f)
{
	struct dbfix_cert c;
	struct db_token t;

	dbfix_cert(&c, 1);
	dbfix_token(&t, 1, 3);
	assert_int_equal(db_token_add(f->db, &t), 0);
	assert_int_equal(dbfix_issue_by(f, 1, 1), 0);
	assert_int_equal(db_revoke(f->db, c.c.serial, CSM_REASON_SUPERSEDED, DBFIX_NOW, CSM_STR("t")), 0);
	assert_int_equal(db_value_put(f->db, "crl", (struct csm_bin){(const uint8_t *)"17", 2}, NULL), 0);
	assert_int_equal(db_usage_put(f->db, &(struct db_usage){.node = CSM_STR("n"), .key = CSM_STR("k"), .spki_sha256 = c.c.spki_sha256,
		.from = 1, .to = 2, .signatures = 1, .last_used = 2}, 1, 3), 0);
	dbfix_close(f);
}

static struct csm_engine *raw_open(struct dbfix *f)
{
	uint8_t key[CSM_ENGINE_SECRET_LEN];
	const struct csm_engine_options opt = {.dir = f->dir, .map_size = f->map_size, .key = key};
	struct csm_engine *e;

	rec_key_engine(f->key, key);
	assert_int_equal(csm_engine_lmdb.open(&opt, &e), 0);
	return e;
}

struct raw_row {
	uint8_t key[CSM_ENGINE_KEY_MAX], value[4096];
	size_t key_n, n;
};
static size_t raw_all(struct csm_engine *e, struct raw_row *rows, size_t max)
{
	struct csm_engine_row row;
	struct csm_engine_txn *t;
	size_t n = 0;

	assert_int_equal(csm_engine_lmdb.begin(e, &t), 0);
	for (int r = csm_engine_lmdb.next(t, (struct csm_bin){(const uint8_t *)"", 1}, true, &row); r == 0;
		r = csm_engine_lmdb.next(t, row.key, false, &row)) {
		assert_true(n < max && row.value.n <= sizeof(rows[n].value));
		memcpy(rows[n].key, row.key.p, row.key.n);
		memcpy(rows[n].value, row.value.p, row.value.n);
		rows[n].key_n = row.key.n;
		rows[n++].n = row.value.n;
	}
	csm_engine_lmdb.end(t);
	return n;
}

static void raw_put(struct dbfix *f, const struct raw_row *at_row, const struct raw_row *value)
{
	const struct csm_engine_change c = {{at_row->key, at_row->key_n}, {value->value, value->n}, false};
	struct csm_engine *e = raw_open(f);

	assert_int_equal(csm_engine_lmdb.write(e, &(struct csm_engine_batch){.changes = &c, .n_changes = 1}, NULL), 0);
	csm_engine_lmdb.close(e);
}

/* Each row with something in it is changed by one bit, and given what another row of its kind, or of any, has. */
static void test_file_changed(void **state)
{
	struct raw_row *rows = calloc(64, sizeof(*rows));
	unsigned tampered, wrong, found = 0;
	struct dbfix *f = *state;
	struct csm_engine *e;
	size_t n;

	assert_non_null(rows);
	make(f);
	look(f, &tampered, &wrong);
	assert_true(tampered == 0 && wrong == 0);
	e = raw_open(f);
	n = raw_all(e, rows, 64);
	csm_engine_lmdb.close(e);
	for (size_t i = 0; i < n; i++) {
		struct raw_row changed = rows[i];
		const struct raw_row *other = &rows[(i + 1) % n];

		if (rows[i].n == 0)
			continue;
		changed.value[changed.n / 2] ^= 4;
		raw_put(f, &rows[i], &changed);
		look(f, &tampered, &wrong);
		if (wrong != 0 || tampered == 0)
			fail_msg("row %zu (%c) was changed: tampered %u, wrong %u", i, rows[i].key[0], tampered, wrong);
		if (other->n > 0) {
			raw_put(f, &rows[i], other);
			look(f, &tampered, &wrong);
			if (wrong != 0 || tampered == 0)
				fail_msg("row %zu (%c) was replaced: tampered %u, wrong %u", i, rows[i].key[0], tampered, wrong);
		}
		raw_put(f, &rows[i], &rows[i]);
		found++;
	}
	assert_true(found >= 11);
	look(f, &tampered, &wrong);
	assert_true(tampered == 0 && wrong == 0);
	free(rows);
}

/* A database of the form before this one is taken over, at once in what an older csm-server reads; one of a later form is refused. */
static void test_schema(void **state)
{
	static const uint8_t name[] = {'M'};
	struct rec_schema schema;
	struct dbfix *f = *state;
	struct csm_engine_row row;
	char path[200];
	int status;
	pid_t pid;
	struct csm_engine_txn *t;
	struct csm_engine *e;
	struct rec_key key;
	struct csm_buf b;

	make(f);
	rec_key_init(&key, f->key);
	for (uint64_t v = 1; v <= 3; v += 2) {
		csm_buf_init(&b, 4096, false);
		assert_int_equal(rec_put(&key, &rec_schema, (struct csm_bin){name, 1}, &(struct rec_schema){v}, &b), 0);
		e = raw_open(f);
		assert_int_equal(csm_engine_lmdb.write(e, &(struct csm_engine_batch){.changes = &(struct csm_engine_change){{name, 1},
			{csm_buf_ptr(&b), b.len}, false}, .n_changes = 1}, NULL), 0);
		csm_engine_lmdb.close(e);
		csm_buf_free(&b);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0)
			_exit(dbfix_open(f) != (v == 1 ? 0 : CSM_EUNSUPPORTED));
		/* it is gone without a word, and then there is no journal, as for an older csm-server */
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
		for (unsigned i = 0; i < 2; i++) {
			snprintf(path, sizeof(path), "%s/journal.%u", f->dir, i);
			assert_int_equal(unlink(path), 0);
		}
		e = raw_open(f);
		assert_int_equal(csm_engine_lmdb.begin(e, &t), 0);
		assert_int_equal(csm_engine_lmdb.next(t, (struct csm_bin){name, 1}, true, &row), 0);
		assert_int_equal(rec_get(&key, &rec_schema, (struct csm_bin){name, 1}, row.value, NULL, &schema), 0);
		assert_int_equal(schema.version, v == 1 ? 2 : 3);
		csm_engine_lmdb.end(t);
		csm_engine_lmdb.close(e);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_tag),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test_setup_teardown(test_file_changed, dbfix_setup, dbfix_teardown),
		cmocka_unit_test_setup_teardown(test_schema, dbfix_setup, dbfix_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
