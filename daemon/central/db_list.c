/* Pages of certificates. A page goes over one index: of what is asked for exactly, else by expiry, else in the order of issue;
 * everything else that is asked is looked at row by row, and only so many rows a page. Each key ends in the place of its
 * certificate, and the cursor is the key's part behind what is the same for the whole index. */
#include <sodium.h>
#include <string.h>
#include "daemon/central/db_int.h"

#define SCAN_MAX 2000u  /* rows in the order of issue, which lie beside each other */
#define LOOKUP_MAX 500u /* rows that an index points to */
#define SUFFIX_MAX (8u + 8u + 1u + DB_SERIAL_MAX)
#define CURSOR_MAX (1u + 2u * SUFFIX_MAX)

struct lister {
	struct central_db *db;
	struct csm_engine_txn *txn;
	const struct db_filter *filter;
	struct csm_pool *pool, mem; /* mem: of one row */
	char index;       /* which: the cursor's first letter */
	struct dbk head;  /* what all keys of the index begin with */
	size_t place;     /* where in a key the place begins */
	bool forward;
	struct dbk at;    /* the last key that was looked at; n 0: none */
	size_t left;      /* rows that may still be looked at */
	struct db_cert *v;
	size_t n, limit;
};

static bool is_glob(struct csm_str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] == '*' || s.p[i] == '?')
			return true;
	return false;
}

/* ---- what is asked ---- */

static bool matches_str(struct csm_str want, struct csm_str have)
{
	return want.n == 0 || csm_str_same(want, have);
}

static bool matches_san(const struct db_filter *f, const struct db_cert *c)
{
	for (size_t i = 0; i < c->n_sans; i++)
		if (csm_glob_match(f->san, c->sans[i]))
			return true;
	return f->san.n == 0;
}

static bool matches_name(const struct db_filter *f, const struct db_cert *c)
{
	if (f->name.n == 0 || csm_glob_match(f->name, db_subject_cn(c->subject)))
		return true;
	for (size_t i = 0; i < c->n_sans; i++)
		if (csm_glob_match(f->name, db_san_value(c->sans[i])))
			return true;
	return false;
}

static bool matches_state(const struct db_filter *f, const struct db_cert *c)
{
	bool expired = c->not_after < f->now;

	if (f->state.n == 0)
		return true;
	if (csm_str_eq(f->state, "revoked"))
		return c->state == DB_REVOKED;
	if (csm_str_eq(f->state, "expired"))
		return expired;
	return c->state == DB_VALID && !expired;
}

static bool matches(const struct db_filter *f, const struct db_cert *c)
{
	if (f->serial.n > 0 && (f->serial.n != c->serial.n || memcmp(f->serial.p, c->serial.p, c->serial.n) != 0))
		return false;
	if ((f->expires_before > 0 && c->not_after >= f->expires_before) || (f->expires_after > 0 && c->not_after <= f->expires_after) ||
		(f->issued_after > 0 && c->issued <= f->issued_after))
		return false;
	return matches_str(f->node, c->node) && matches_str(f->requester, c->requester) && matches_str(f->profile, c->profile) &&
		matches_str(f->issuer, c->issuer) && matches_state(f, c) && matches_name(f, c) && matches_san(f, c);
}

/* ---- the index ---- */

static void by_facet(struct lister *l, enum db_facet f, struct csm_str value)
{
	l->index = (char)f;
	dbk_facet(&l->head, f, value);
}

static void choose(struct lister *l)
{
	const struct db_filter *f = l->filter;

	l->left = LOOKUP_MAX;
	if (f->name.n > 0 && !is_glob(f->name)) {
		by_facet(l, DB_F_NAME, f->name);
	} else if (f->san.n > 0 && !is_glob(f->san)) {
		by_facet(l, DB_F_NAME, db_san_value(f->san));
	} else if (f->node.n > 0) {
		by_facet(l, DB_F_NODE, f->node);
	} else if (f->requester.n > 0) {
		by_facet(l, DB_F_REQUESTER, f->requester);
	} else if (csm_str_eq(f->state, "revoked")) {
		by_facet(l, DB_F_REVOKED, (struct csm_str){"", 0});
	} else if (f->expires_before > 0 || f->expires_after > 0 || csm_str_eq(f->state, "expired")) {
		l->index = 'e';
		dbk_start(&l->head, DB_T_EXPIRY);
		l->forward = true;
	} else {
		l->index = 't';
		dbk_start(&l->head, DB_T_CERT);
		l->left = SCAN_MAX;
	}
	l->place = l->head.n + (l->index == 'e' ? 8 : 0);
}

static int cursor_read(struct lister *l, struct csm_str after)
{
	uint8_t suffix[SUFFIX_MAX];
	size_t n = 0;

	if (after.n == 0)
		return 0;
	if (after.p[0] != l->index || after.n > CURSOR_MAX || after.n % 2 == 0 ||
		sodium_hex2bin(suffix, sizeof(suffix), after.p + 1, after.n - 1, NULL, &n, NULL) != 0 || 2 * n != after.n - 1 || n == 0)
		return CSM_EINVALID;
	l->at = l->head;
	dbk_raw(&l->at, suffix, n);
	return 0;
}

static int cursor_write(struct lister *l, struct csm_str *ret)
{
	char *text = csm_pool_full(l->pool, CURSOR_MAX + 1) ? NULL : csm_pool_alloc(l->pool, CURSOR_MAX + 1);
	size_t n = l->at.n - l->head.n;

	if (text == NULL)
		return CSM_ENOMEM;
	text[0] = l->index;
	sodium_bin2hex(text + 1, CURSOR_MAX, l->at.p + l->head.n, n);
	*ret = (struct csm_str){text, 1 + 2 * n};
	return 0;
}

/* ---- going over it ---- */

static int step(struct lister *l, struct csm_bin last, struct csm_engine_row *row)
{
	struct dbk k = l->head;

	if (last.p != NULL)
		return l->forward ? l->db->ops->next(l->txn, last, false, row) : l->db->ops->prev(l->txn, last, row);
	if (!l->forward) {
		dbk_u64(&k, UINT64_MAX);
		dbk_u64(&k, UINT64_MAX);
		return l->db->ops->prev(l->txn, dbk_bin(&k), row);
	}
	if (l->filter->expires_after > 0)
		dbk_u64(&k, l->filter->expires_after);
	return l->db->ops->next(l->txn, dbk_bin(&k), true, row);
}

static uint64_t number(const uint8_t *p)
{
	uint64_t v = 0;

	for (size_t i = 0; i < 8; i++)
		v = v << 8 | p[i];
	return v;
}

/* No row of the index behind this one is of what is asked. */
static bool over(const struct lister *l, struct csm_bin key)
{
	const struct db_filter *f = l->filter;
	uint64_t end;

	if (key.n < l->place + 8 + 2 || key.n > l->head.n + SUFFIX_MAX || memcmp(key.p, l->head.p, l->head.n) != 0)
		return true;
	if (l->index == 'e') {
		end = f->expires_before > 0 ? f->expires_before : csm_str_eq(f->state, "expired") ? f->now : UINT64_MAX;
		return number(key.p + l->head.n) >= end;
	}
	return f->issued_after > 0 && number(key.p + l->place) <= f->issued_after;
}

/* Looked at without its tag first, which costs more than all else: who changes a row so that it does not match can as well take it
 * out. */
static int look(struct lister *l, const struct csm_engine_row *row)
{
	struct csm_bin key = row->key, value = row->value;
	struct dbk k;
	struct db_cert c;
	int r;

	csm_pool_reset(&l->mem);
	if (l->index != 't') {
		dbk_start(&k, DB_T_CERT);
		dbk_raw(&k, key.p + l->place, key.n - l->place);
		key = dbk_bin(&k);
		if ((r = l->db->ops->get(l->txn, key, &value)) != 0)
			return r == CSM_ENOT_FOUND ? CSM_ETAMPERED : r;
	}
	if ((r = rec_get(NULL, &rec_cert, key, value, &l->mem, &c)) != 0 || !matches(l->filter, &c))
		return r;
	if ((r = rec_get(l->db->key, &rec_cert, key, value, &l->mem, &c)) != 0 || (r = db_copy_cert(l->pool, &c)) != 0)
		return r;
	l->v[l->n++] = c;
	return 0;
}

static int page(struct lister *l, bool *more)
{
	struct csm_bin last = l->at.n > 0 ? dbk_bin(&l->at) : (struct csm_bin){NULL, 0};
	struct csm_engine_row row;
	int r;

	*more = false;
	for (;;) {
		r = step(l, last, &row);
		if (r == CSM_ENOT_FOUND || (r == 0 && over(l, row.key)))
			return 0;
		if (r != 0)
			return r;
		if (l->left == 0 || l->n == l->limit)
			break;
		if ((r = look(l, &row)) != 0)
			return r;
		l->left--;
		last = row.key;
		l->at.n = 0;
		dbk_raw(&l->at, row.key.p, row.key.n);
	}
	*more = true;
	return 0;
}

/* One certificate has no order. */
static int by_serial(struct lister *l)
{
	struct db_cert c;
	struct dbk k;
	int r = db_cert_row(l->db, l->txn, l->filter->serial, &l->mem, &c, &k, NULL);

	if (r != 0 || !matches(l->filter, &c))
		return r == CSM_ENOT_FOUND ? 0 : r;
	if ((r = db_copy_cert(l->pool, &c)) == 0)
		l->v[l->n++] = c;
	return r;
}

static int filter_check(const struct db_filter *f)
{
	return f->state.n > 0 && !csm_str_eq(f->state, "valid") && !csm_str_eq(f->state, "revoked") && !csm_str_eq(f->state, "expired") ?
		CSM_EINVALID : 0;
}

int db_cert_list(struct central_db *db, const struct db_filter *filter, struct csm_str after, size_t limit, struct csm_pool *pool,
	struct db_cert **ret, size_t *n, struct csm_str *next)
{
	struct lister l = {.db = db, .filter = filter, .pool = pool, .limit = limit};
	struct csm_str cursor = {"", 0};
	bool more = false;
	int r = filter_check(filter);

	if (r != 0 || limit == 0)
		return CSM_EINVALID;
	choose(&l);
	if ((r = cursor_read(&l, after)) != 0)
		return r;
	if (limit > SCAN_MAX || csm_pool_full(pool, limit * sizeof(*l.v)))
		return CSM_ETOO_LARGE;
	if ((l.v = csm_pool_alloc(pool, limit * sizeof(*l.v))) == NULL)
		return CSM_ENOMEM;
	if ((r = db->ops->begin(db->engine, &l.txn)) != 0)
		return r;
	csm_pool_init(&l.mem, 256u * 1024u);
	r = filter->serial.n > 0 ? by_serial(&l) : page(&l, &more);
	csm_pool_free(&l.mem);
	db->ops->end(l.txn);
	if (r == 0 && more)
		r = cursor_write(&l, &cursor);
	if (r != 0)
		return r;
	*ret = l.v;
	*n = l.n;
	*next = cursor;
	return 0;
}
