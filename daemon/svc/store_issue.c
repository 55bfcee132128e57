/* What issuers' keys have signed: the serial numbers, a row each, and for each key what has to be known of all of them, a mark
 * beside the pins, which the root record vouches for: how many rows there are and the sum over them, the hour that the rate is
 * counted in, the number of the last CRL. */
#include <sodium.h>
#include <string.h>
#include "daemon/svc/store_internal.h"

#define MARK "issuer:"
#define MARK_LEN (sizeof(MARK) + 2 * CSM_KEY_ID_LEN)
#define HOUR 3600u
#define NUMBER_MAX 20u

/* As it is kept: format (1), rows (8), sum (32), begin of the hour (8), signatures in it (8), last CRL number (20). */
struct issued {
	uint64_t rows;
	uint8_t sum[SUM_LEN];
	uint64_t hour, in_hour;
	uint8_t crl[NUMBER_MAX]; /* big-endian, zeros in front */
};
#define ISSUED_LEN (1u + 8u + SUM_LEN + 8u + 8u + NUMBER_MAX)
#define ISSUED_FORMAT 1u

static void mark_of(const uint8_t *id, char out[static MARK_LEN])
{
	memcpy(out, MARK, sizeof(MARK));
	sodium_bin2hex(out + sizeof(MARK) - 1, 2 * CSM_KEY_ID_LEN + 1, id, CSM_KEY_ID_LEN);
}

static void issued_pack(const struct issued *is, uint8_t p[static ISSUED_LEN])
{
	p[0] = ISSUED_FORMAT;
	put64(p + 1, is->rows);
	memcpy(p + 9, is->sum, SUM_LEN);
	put64(p + 9 + SUM_LEN, is->hour);
	put64(p + 17 + SUM_LEN, is->in_hour);
	memcpy(p + 25 + SUM_LEN, is->crl, NUMBER_MAX);
}

static int issued_get(struct csm_store *s, MDB_txn *txn, const uint8_t *id, struct issued *ret)
{
	char mark[MARK_LEN];
	struct csm_bin v;
	struct dbkey key;
	int r;

	mark_of(id, mark);
	memset(ret, 0, sizeof(*ret));
	if ((r = dbkey_meta(&key, "pin:", mark)) != 0 || (r = store_get(txn, s->meta, dbkey_bin(&key), &v)) != 0)
		return r;
	if (v.n != ISSUED_LEN || v.p[0] != ISSUED_FORMAT)
		return CSM_ETAMPERED;
	ret->rows = get64(v.p + 1);
	memcpy(ret->sum, v.p + 9, SUM_LEN);
	ret->hour = get64(v.p + 9 + SUM_LEN);
	ret->in_hour = get64(v.p + 17 + SUM_LEN);
	memcpy(ret->crl, v.p + 25 + SUM_LEN, NUMBER_MAX);
	return 0;
}

/* root NULL: without the sum over pins, which is made anew. */
static int issued_put(struct csm_store *s, MDB_txn *txn, struct root *root, const uint8_t *id, const struct issued *is)
{
	uint8_t p[ISSUED_LEN];
	char mark[MARK_LEN];

	mark_of(id, mark);
	issued_pack(is, p);
	return store_pin_put(s, txn, root, mark, (struct csm_bin){p, sizeof(p)});
}

static int row_element(const struct root *root, struct csm_bin key, uint8_t out[static SUM_LEN])
{
	struct prk set;
	int r;

	prk_init(&set, root->set_key);
	r = sum_element(&set, REC_SERIAL, key, (struct csm_bin){(const uint8_t *)"", 0}, out);
	sodium_memzero(&set, sizeof(set));
	return r;
}

/* ---- signing ---- */

/* A clock that was put back does not make the hour longer. */
static int rate_take(struct issued *is, uint64_t rate, uint64_t now)
{
	if (now < is->hour)
		is->hour = now;
	if (now - is->hour >= HOUR) {
		is->hour = now;
		is->in_hour = 0;
	}
	if (rate > 0 && is->in_hour >= rate)
		return CSM_EBUSY;
	is->in_hour++;
	return 0;
}

static int serial_take(struct group *g, const uint8_t *id, struct issued *is, struct csm_bin number)
{
	uint8_t key[CSM_KEY_ID_LEN + NUMBER_MAX], e[SUM_LEN];
	const struct csm_bin k = {key, CSM_KEY_ID_LEN + number.n};
	struct csm_bin old;
	int r;

	memcpy(key, id, CSM_KEY_ID_LEN);
	memcpy(key + CSM_KEY_ID_LEN, number.p, number.n);
	if ((r = store_get(g->txn, g->s->serials, k, &old)) != CSM_ENOT_FOUND)
		return r == 0 ? CSM_EEXISTS : r;
	if ((r = row_element(&g->root, k, e)) != 0 ||
		(r = store_put(g->s, g->txn, g->s->serials, k, (struct csm_bin){(const uint8_t *)"", 0})) != 0)
		return r;
	sum_add(is->sum, e);
	is->rows++;
	return 0;
}

/* A full list and its delta may have the same number (RFC 5280 5.2.3); none goes back. */
static int crl_take(struct issued *is, struct csm_bin number)
{
	uint8_t wide[NUMBER_MAX] = {0};

	memcpy(wide + NUMBER_MAX - number.n, number.p, number.n);
	if (memcmp(wide, is->crl, NUMBER_MAX) < 0)
		return CSM_ECONFLICT;
	memcpy(is->crl, wide, NUMBER_MAX);
	return 0;
}

int store_issue(struct group *g, const struct csm_store_op *op, const uint8_t id[static CSM_KEY_ID_LEN])
{
	const struct csm_store_issue *i = op->issue;
	struct issued is;
	int r;

	if (i == NULL || i->number.n > NUMBER_MAX || (i->kind != CSM_ISSUE_OTHER && i->number.n == 0))
		return CSM_EINVALID;
	r = issued_get(g->s, g->txn, id, &is);
	if ((r != 0 && r != CSM_ENOT_FOUND) || (r = rate_take(&is, i->rate, g->now)) != 0)
		return r;
	if (i->kind == CSM_ISSUE_SERIAL)
		r = serial_take(g, id, &is, i->number);
	else if (i->kind == CSM_ISSUE_CRL)
		r = crl_take(&is, i->number);
	return r != 0 ? r : issued_put(g->s, g->txn, &g->root, id, &is);
}

int store_issue_forget(struct group *g, const uint8_t id[static CSM_KEY_ID_LEN])
{
	MDB_val k = {CSM_KEY_ID_LEN, (void *)(uintptr_t)id}, v;
	MDB_cursor *cur;
	char mark[MARK_LEN];
	int rc, r;

	mark_of(id, mark);
	if ((r = store_pin_del(g->s, g->txn, &g->root, mark)) != 0)
		return r == CSM_ENOT_FOUND ? 0 : r;
	if ((rc = mdb_cursor_open(g->txn, g->s->serials, &cur)) != 0)
		return store_err(rc);
	for (rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE); rc == 0; rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT))
		if (k.mv_size < CSM_KEY_ID_LEN || memcmp(k.mv_data, id, CSM_KEY_ID_LEN) != 0 || (rc = store_cursor_del(g->s, cur, &k)) != 0)
			break;
	mdb_cursor_close(cur);
	return rc == MDB_NOTFOUND ? 0 : store_err(rc);
}

/* ---- at a start ---- */

/* The rows of one key after those of another; each is told with how many they are and their sum. */
typedef int issued_fn(void *arg, const uint8_t *id, const struct issued *found);

static int rows_each(struct csm_store *s, MDB_txn *txn, const struct root *root, issued_fn *fn, void *arg)
{
	uint8_t id[CSM_KEY_ID_LEN] = {0}, e[SUM_LEN];
	struct issued found = {0};
	MDB_cursor *cur;
	MDB_val k, v;
	int rc, r;

	if ((rc = mdb_cursor_open(txn, s->serials, &cur)) != 0)
		return store_err(rc);
	for (r = 0; r == 0 && (rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) == 0; found.rows++) {
		if (k.mv_size <= CSM_KEY_ID_LEN)
			r = CSM_ETAMPERED;
		else if (found.rows > 0 && memcmp(id, k.mv_data, CSM_KEY_ID_LEN) != 0) {
			r = fn(arg, id, &found);
			memset(&found, 0, sizeof(found));
		}
		if (r == 0 && (r = row_element(root, val_bin(&k), e)) == 0) {
			memcpy(id, k.mv_data, CSM_KEY_ID_LEN);
			sum_add(found.sum, e);
		}
	}
	mdb_cursor_close(cur);
	if (r != 0 || rc != MDB_NOTFOUND)
		return r != 0 ? r : store_err(rc);
	return found.rows > 0 ? fn(arg, id, &found) : 0;
}

/* The marks, by key. */
static int marks_each(struct csm_store *s, MDB_txn *txn, issued_fn *fn, void *arg)
{
	static const char prefix[] = "pin:" MARK;
	MDB_val k = {sizeof(prefix) - 1, (void *)(uintptr_t)prefix}, v;
	uint8_t id[CSM_KEY_ID_LEN];
	struct issued is;
	MDB_cursor *cur;
	int rc, r = 0;

	if ((rc = mdb_cursor_open(txn, s->meta, &cur)) != 0)
		return store_err(rc);
	for (rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE); rc == 0 && r == 0; rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) {
		if (k.mv_size < sizeof(prefix) - 1 || memcmp(k.mv_data, prefix, sizeof(prefix) - 1) != 0)
			break;
		if (k.mv_size != sizeof(prefix) - 1 + 2 * CSM_KEY_ID_LEN ||
			sodium_hex2bin(id, sizeof(id), (const char *)k.mv_data + sizeof(prefix) - 1, 2 * CSM_KEY_ID_LEN, NULL, NULL,
				NULL) != 0)
			r = CSM_ETAMPERED;
		else if ((r = issued_get(s, txn, id, &is)) == 0)
			r = fn(arg, id, &is);
	}
	mdb_cursor_close(cur);
	return r != 0 || rc == 0 || rc == MDB_NOTFOUND ? r : store_err(rc);
}

struct checking {
	struct csm_store *s;
	MDB_txn *txn;
	uint64_t expected, rows;
	bool differs;
};

static int row_check(void *arg, const uint8_t *id, const struct issued *found)
{
	struct checking *c = arg;
	struct issued is;
	int r = issued_get(c->s, c->txn, id, &is);

	c->rows += found->rows;
	c->differs = c->differs || r != 0 || is.rows != found->rows || sodium_memcmp(is.sum, found->sum, SUM_LEN) != 0;
	return r == CSM_ENOT_FOUND || r == CSM_ETAMPERED ? 0 : r;
}

static int mark_count(void *arg, const uint8_t *id, const struct issued *is)
{
	(void)id;
	((struct checking *)arg)->expected += is->rows;
	return 0;
}

int store_issue_check(struct csm_store *s, MDB_txn *txn, const struct root *root, bool *ret)
{
	struct checking c = {.s = s, .txn = txn};
	int r = marks_each(s, txn, mark_count, &c);

	if (r == 0)
		r = rows_each(s, txn, root, row_check, &c);
	if (r != 0 && r != CSM_ETAMPERED)
		return r;
	*ret = r == 0 && !c.differs && c.rows == c.expected;
	return 0;
}

/* ---- accepting ---- */

struct accepting {
	struct csm_store *s;
	MDB_txn *txn;
	struct csm_buf ids; /* of marks */
};

static int mark_keep(void *arg, const uint8_t *id, const struct issued *is)
{
	struct accepting *a = arg;

	(void)is;
	return csm_buf_put(&a->ids, id, CSM_KEY_ID_LEN);
}

/* What is known of the key otherwise stays as it was. */
static int row_accept(void *arg, const uint8_t *id, const struct issued *found)
{
	struct accepting *a = arg;
	struct issued is;
	int r = issued_get(a->s, a->txn, id, &is);

	if (r != 0 && r != CSM_ENOT_FOUND && r != CSM_ETAMPERED)
		return r;
	is.rows = found->rows;
	memcpy(is.sum, found->sum, SUM_LEN);
	return issued_put(a->s, a->txn, NULL, id, &is);
}

int store_issue_accept(struct csm_store *s, MDB_txn *txn, const struct root *root)
{
	static const struct issued none;
	struct accepting a = {.s = s, .txn = txn};
	int r;

	csm_buf_init(&a.ids, SIZE_MAX / 2, false);
	r = marks_each(s, txn, mark_keep, &a);
	if (r == CSM_ETAMPERED)
		r = 0; /* such a mark is told by the pins */
	for (size_t i = 0; r == 0 && i < a.ids.len; i += CSM_KEY_ID_LEN)
		r = row_accept(&a, csm_buf_ptr(&a.ids) + i, &none);
	if (r == 0)
		r = rows_each(s, txn, root, row_accept, &a);
	csm_buf_free(&a.ids);
	return r;
}
