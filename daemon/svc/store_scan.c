/* Every record against the set hashes: at open, and when an administrator accepts the store as it is. */
#include <sodium.h>
#include <string.h>
#include "daemon/svc/store_internal.h"

#define PLAIN_MAX (2u * CSM_MESSAGE_MAX)

/* The records of one scope stand together: "ns\0..." without a further NUL in keys and certs, or "ns\0domain\0...". */
#define RANGES_MAX 2u
struct range {
	MDB_dbi dbi;
	enum rec_kind kind;
	struct dbkey prefix;
};
struct tally {
	uint8_t sum[SUM_LEN];
	uint64_t records, names;
	bool odd; /* a row that is no record */
};
struct scan {
	struct csm_store *s;
	MDB_txn *txn;
	struct names *names;    /* damaged, or removed */
	uint64_t seen[REC_CERT + 1]; /* rows below a scope, by kind */
	struct csm_buf plain;
};

static size_t ranges_of(struct scan *sc, const struct dbparts *p, struct range ret[static RANGES_MAX])
{
	bool domain = p->domain.n > 0;

	ret[0].dbi = domain ? sc->s->secrets : sc->s->keys;
	ret[0].kind = domain ? REC_SECRET : REC_KEY;
	memcpy(ret[0].prefix.p, p->scope.p, p->scope.n);
	ret[0].prefix.n = p->scope.n;
	if (domain) {
		ret[0].prefix.p[ret[0].prefix.n++] = 0;
		return 1;
	}
	ret[1] = ret[0];
	ret[1].dbi = sc->s->certs;
	ret[1].kind = REC_CERT;
	return 2;
}

static bool row_parts(const struct range *rg, struct csm_bin key, struct dbparts *ret, struct dbkey *scope)
{
	if (rg->kind == REC_SECRET)
		return dbkey_split_secret(key, ret);
	return dbkey_split_key(key, ret, scope);
}

/* Call fn for each row of the range, until it fails. fn may delete the row it is given. */
typedef int row_fn(
	struct scan *sc, const struct range *rg, MDB_cursor *cur, struct csm_bin key, struct csm_bin value, void *arg);
static int range_each(struct scan *sc, const struct range *rg, row_fn *fn, void *arg)
{
	MDB_val k = dbkey_val(&rg->prefix), v;
	MDB_cursor *cur;
	int rc, r;

	if ((rc = mdb_cursor_open(sc->txn, rg->dbi, &cur)) != 0)
		return store_err(rc);
	for (rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE); rc == 0; rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) {
		if (k.mv_size < rg->prefix.n || memcmp(k.mv_data, rg->prefix.p, rg->prefix.n) != 0)
			break;
		if ((r = fn(sc, rg, cur, val_bin(&k), val_bin(&v), arg)) != 0)
			goto out;
	}
	r = rc == MDB_NOTFOUND ? 0 : store_err(rc);
out:
	mdb_cursor_close(cur);
	return r;
}

struct tally_arg {
	const struct prk *set;
	struct tally *t;
	struct dbkey last; /* the name before, to count distinct ones */
};
static int row_tally(
	struct scan *sc, const struct range *rg, MDB_cursor *cur, struct csm_bin key, struct csm_bin value, void *arg)
{
	struct tally_arg *a = arg;
	size_t name = rg->kind == REC_SECRET && key.n > 8 ? key.n - 8 : key.n;
	uint8_t e[SUM_LEN];

	(void)cur;
	sc->seen[rg->kind]++;
	a->t->records++;
	if (key.n > STORE_KEY_MAX || sum_element(a->set, rg->kind, key, value, e) != 0) {
		a->t->odd = true;
		return 0;
	}
	sum_add(a->t->sum, e);
	if (rg->kind == REC_CERT)
		return 0; /* its name is a key's */
	if (name != a->last.n || memcmp(a->last.p, key.p, name) != 0) {
		a->t->names++;
		memcpy(a->last.p, key.p, name);
		a->last.n = name;
	}
	return 0;
}

static int ranges_each(struct scan *sc, const struct range *rg, size_t n, row_fn *fn, void *arg)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++)
		r = range_each(sc, &rg[i], fn, arg);
	return r;
}

static int tally_ranges(struct scan *sc, const struct range *rg, size_t n, const struct scope *scope, struct tally *t)
{
	struct prk set;
	struct tally_arg a = {.set = &set, .t = t};
	int r;

	*t = (struct tally){0};
	prk_init(&set, scope->set_key);
	r = ranges_each(sc, rg, n, row_tally, &a);
	sodium_memzero(&set, sizeof(set));
	return r;
}

static bool tally_fits(const struct tally *t, const struct scope *scope)
{
	return !t->odd && t->records == scope->records && t->names == scope->names &&
		sodium_memcmp(t->sum, scope->sum, SUM_LEN) == 0;
}

/* A certificate belongs to the key of its name that is there. */
static bool cert_fits(struct scan *sc, struct csm_bin key, const struct rec *cert)
{
	struct csm_key_record clear;
	struct csm_bin v;
	struct rec rec;

	return cert->clear.n == CSM_KEY_ID_LEN && store_get(sc->txn, sc->s->keys, key, &v) == 0 &&
		rec_parse(v, REC_KEY, &rec) == 0 && store_key_clear_get(rec.clear, &clear) == 0 &&
		memcmp(clear.id, cert->clear.p, CSM_KEY_ID_LEN) == 0;
}

static bool clear_whole(struct scan *sc, enum rec_kind kind, struct csm_bin key, const struct rec *rec)
{
	struct csm_key_record clear;

	if (kind == REC_KEY)
		return store_key_clear_get(rec->clear, &clear) == 0;
	return kind == REC_CERT ? cert_fits(sc, key, rec) : rec->clear.n == 0;
}

/* Does the row's own seal open? */
static int row_whole(
	struct scan *sc, const struct range *rg, const struct scope *scope, struct csm_bin key, struct csm_bin value)
{
	struct dbparts parts;
	struct dbkey tmp;
	const struct kek *kek;
	struct rec rec;
	struct prk prk;
	uint8_t *p;
	int r;

	if (!row_parts(rg, key, &parts, &tmp))
		return CSM_ETAMPERED;
	if ((r = rec_parse(value, rg->kind, &rec)) != 0)
		return r;
	if (!clear_whole(sc, rg->kind, key, &rec))
		return CSM_ETAMPERED;
	kek = store_scope_kek(scope, rec.kek_id);
	if (kek == NULL || rec_plain_len(&rec) > PLAIN_MAX)
		return CSM_ETAMPERED;
	csm_buf_reset(&sc->plain);
	if ((r = csm_buf_reserve(&sc->plain, rec_plain_len(&rec) + 1, &p)) != 0)
		return r;
	prk_init(&prk, kek->key);
	r = rec_open(&sc->s->aead, &prk, &rec, key, p);
	sodium_memzero(&prk, sizeof(prk));
	sodium_memzero(p, rec_plain_len(&rec));
	return r;
}

struct seals_arg {
	const struct scope *scope;
	bool drop;
	bool found;
};
static int row_seal(
	struct scan *sc, const struct range *rg, MDB_cursor *cur, struct csm_bin key, struct csm_bin value, void *arg)
{
	struct seals_arg *a = arg;
	struct dbparts parts;
	struct dbkey tmp;
	int r;

	r = row_whole(sc, rg, a->scope, key, value);
	if (r == 0 || r == CSM_ENOMEM)
		return r;
	a->found = true;
	if (row_parts(rg, key, &parts, &tmp))
		store_names_add(sc->names, &parts, NULL);
	else
		store_names_add(sc->names, NULL, "root");
	return a->drop ? store_err(mdb_cursor_del(cur, 0)) : 0;
}

/* The scope is named always; records where their own seal shows it. */
static int scope_check(struct scan *sc, struct csm_bin key, struct csm_bin value)
{
	CSM_WIPED(mem, sizeof(struct scope));
	struct scope *scope = (struct scope *)mem;
	struct seals_arg seals = {.scope = scope};
	struct range rg[RANGES_MAX];
	struct dbparts parts;
	struct tally t;
	size_t n;
	int r;

	if (!dbkey_split_scope(key, &parts)) {
		store_names_add(sc->names, NULL, "root");
		return 0;
	}
	n = ranges_of(sc, &parts, rg);
	r = store_scope_open(&sc->s->aead, &sc->s->sub->scope, key, value, scope);
	if (r != 0 && r != CSM_ETAMPERED)
		return r;
	if (r == CSM_ETAMPERED) {
		store_names_add(sc->names, &parts, NULL);
		/* without its keys the rows can only be counted */
		return tally_ranges(sc, rg, n, scope, &t);
	}
	if ((r = tally_ranges(sc, rg, n, scope, &t)) != 0)
		return r;
	if (tally_fits(&t, scope))
		return 0;
	store_names_add(sc->names, &parts, NULL);
	return ranges_each(sc, rg, n, row_seal, &seals);
}

/* Rows of a database whose scope has no record; named, and dropped when asked. */
static int orphans(struct scan *sc, MDB_dbi dbi, enum rec_kind kind, bool drop)
{
	struct range all = {.dbi = dbi, .kind = kind};
	struct dbparts parts = {0};
	struct dbkey tmp;
	struct csm_bin v;
	MDB_cursor *cur;
	MDB_val k, val;
	int rc, r;

	if ((rc = mdb_cursor_open(sc->txn, dbi, &cur)) != 0)
		return store_err(rc);
	while ((rc = mdb_cursor_get(cur, &k, &val, MDB_NEXT)) == 0) {
		bool ours = row_parts(&all, val_bin(&k), &parts, &tmp);

		r = ours ? store_get(sc->txn, sc->s->scopes, parts.scope, &v) : CSM_ENOT_FOUND;
		if (r == 0)
			continue;
		if (r != CSM_ENOT_FOUND)
			goto out;
		if (kind == REC_SECRET)
			parts.name = CSM_STR("");
		store_names_add(sc->names, ours ? &parts : NULL, "root");
		if (drop && (rc = mdb_cursor_del(cur, 0)) != 0)
			break;
	}
	r = rc == MDB_NOTFOUND ? 0 : store_err(rc);
out:
	mdb_cursor_close(cur);
	return r;
}

/* LMDB's tree is not sealed, and a row is found by another way than it is walked to: a branch that leads past a row
 * hides it from a search, rows in a wrong order hide one from the walk over its scope. So each row is looked up, and
 * stands behind the one before. ret: how many there are. */
static int tree_walk(struct scan *sc, MDB_dbi dbi, uint64_t *ret, bool *good)
{
	MDB_val k, v, last = {0, NULL}, found;
	MDB_cursor *cur;
	int rc;

	*ret = 0;
	*good = true;
	if ((rc = mdb_cursor_open(sc->txn, dbi, &cur)) != 0)
		return store_err(rc);
	for (; (rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) == 0; last = k, ++*ret) {
		if (last.mv_data != NULL && mdb_cmp(sc->txn, dbi, &last, &k) >= 0)
			*good = false;
		rc = mdb_get(sc->txn, dbi, &k, &found);
		if (rc != 0 && rc != MDB_NOTFOUND && rc != MDB_BAD_VALSIZE)
			break;
		if (rc != 0 || found.mv_data != v.mv_data || found.mv_size != v.mv_size)
			*good = false;
	}
	mdb_cursor_close(cur);
	return rc == MDB_NOTFOUND ? 0 : store_err(rc);
}

/* The databases whose rows are below scopes. */
#define TREES 3u
struct tree {
	MDB_dbi dbi;
	enum rec_kind kind;
	uint64_t rows;
};
static void trees_of(const struct csm_store *s, struct tree trees[static TREES])
{
	trees[0] = (struct tree){s->keys, REC_KEY, 0};
	trees[1] = (struct tree){s->certs, REC_CERT, 0};
	trees[2] = (struct tree){s->secrets, REC_SECRET, 0};
}

static int trees_check(struct scan *sc, struct tree trees[static TREES])
{
	uint64_t scopes;
	bool all, good;
	int r = tree_walk(sc, sc->s->scopes, &scopes, &all);

	if (r == 0 && (r = tree_walk(sc, sc->s->serials, &scopes, &good)) == 0)
		all = all && good;

	for (size_t i = 0; i < TREES && r == 0; i++) {
		r = tree_walk(sc, trees[i].dbi, &trees[i].rows, &good);
		all = all && good;
	}
	if (r == 0 && !all)
		store_names_add(sc->names, NULL, "root");
	return r;
}

static int scan_orphans(struct scan *sc, const struct tree trees[static TREES])
{
	int r = 0;

	for (size_t i = 0; i < TREES && r == 0; i++)
		if (trees[i].rows != sc->seen[trees[i].kind])
			r = orphans(sc, trees[i].dbi, trees[i].kind, false);
	return r;
}

/* The sum over the scopes' own records. */
static int scopes_sum(struct scan *sc, const struct root *root, row_fn *each, struct tally *t)
{
	MDB_val k, v;
	MDB_cursor *cur;
	struct prk set;
	uint8_t e[SUM_LEN];
	int rc, r;

	*t = (struct tally){0};
	if ((rc = mdb_cursor_open(sc->txn, sc->s->scopes, &cur)) != 0)
		return store_err(rc);
	prk_init(&set, root->set_key);
	while ((rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) == 0) {
		if ((r = sum_element(&set, REC_SCOPE, val_bin(&k), val_bin(&v), e)) != 0)
			goto out;
		sum_add(t->sum, e);
		t->records++;
		if (each != NULL && (r = each(sc, NULL, cur, val_bin(&k), val_bin(&v), NULL)) != 0)
			goto out;
	}
	r = rc == MDB_NOTFOUND ? 0 : store_err(rc);
out:
	sodium_memzero(&set, sizeof(set));
	mdb_cursor_close(cur);
	return r;
}

static int row_scope_check(
	struct scan *sc, const struct range *rg, MDB_cursor *cur, struct csm_bin key, struct csm_bin value, void *arg)
{
	(void)rg;
	(void)cur;
	(void)arg;
	return scope_check(sc, key, value);
}

int store_scan_check(struct csm_store *s, MDB_txn *txn, const struct root *root, struct names *damaged)
{
	struct scan sc = {.s = s, .txn = txn, .names = damaged};
	struct tree trees[TREES];
	struct tally t;
	bool good;
	int r;

	csm_buf_init(&sc.plain, PLAIN_MAX + 1, true);
	trees_of(s, trees);
	if ((r = trees_check(&sc, trees)) != 0 || (r = scopes_sum(&sc, root, row_scope_check, &t)) != 0 ||
		(r = scan_orphans(&sc, trees)) != 0)
		goto out;
	if ((r = store_issue_check(s, txn, root, &good)) != 0)
		goto out;
	if (!good)
		store_names_add(damaged, NULL, "serials");
	/* The sum is over all scopes: where one is named already, it is what the sum shows too. */
	if (damaged->n == 0 && (t.records != root->scopes || sodium_memcmp(t.sum, root->sum, SUM_LEN) != 0))
		store_names_add(damaged, NULL, "root");
	r = 0;
out:
	csm_buf_free(&sc.plain);
	return r;
}

/* ---- accepting ---- */

/* The rows as they are walked to, each behind the lengths of its key and value. */
static int tree_copy(struct scan *sc, MDB_dbi dbi, struct csm_buf *rows)
{
	MDB_val k, v;
	MDB_cursor *cur;
	uint8_t len[6];
	int rc, r = 0;

	if ((rc = mdb_cursor_open(sc->txn, dbi, &cur)) != 0)
		return store_err(rc);
	while (r == 0 && (rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) == 0) {
		put16(len, (uint16_t)k.mv_size);
		put32(len + 2, (uint32_t)v.mv_size);
		if ((r = csm_buf_put(rows, len, sizeof(len))) == 0 &&
			(r = csm_buf_put(rows, k.mv_data, k.mv_size)) == 0)
			r = csm_buf_put(rows, v.mv_data, v.mv_size);
	}
	mdb_cursor_close(cur);
	return r != 0 || rc == MDB_NOTFOUND ? r : store_err(rc);
}

/* A tree that does not lead to its rows is made anew from them. */
static int tree_mend(struct scan *sc, MDB_dbi dbi)
{
	struct csm_buf rows;
	uint64_t n;
	bool good;
	int r = tree_walk(sc, dbi, &n, &good);

	if (r != 0 || good)
		return r;
	csm_buf_init(&rows, SIZE_MAX / 2, false);
	if ((r = tree_copy(sc, dbi, &rows)) != 0 || (r = store_err(mdb_drop(sc->txn, dbi, 0))) != 0)
		goto out;
	for (const uint8_t *p = csm_buf_ptr(&rows), *end = p + rows.len; r == 0 && p < end;) {
		struct csm_bin k = {p + 6, get16(p)}, v = {p + 6 + k.n, get32(p + 2)};

		r = store_put(sc->s, sc->txn, dbi, k, v);
		p = v.p + v.n;
	}
out:
	csm_buf_free(&rows);
	return r;
}

static int row_drop(
	struct scan *sc, const struct range *rg, MDB_cursor *cur, struct csm_bin key, struct csm_bin value, void *arg)
{
	(void)sc;
	(void)rg;
	(void)key;
	(void)value;
	(void)arg;
	return store_err(mdb_cursor_del(cur, 0));
}

static int scope_rewrite(struct scan *sc, struct csm_bin key, struct scope *scope, const struct tally *t)
{
	uint8_t value[SCOPE_VALUE_MAX];
	size_t n;
	int r;

	scope->records = t->records;
	scope->names = t->names;
	memcpy(scope->sum, t->sum, SUM_LEN);
	if ((r = store_scope_seal(&sc->s->aead, &sc->s->sub->scope, key, scope, value, &n)) != 0)
		return r;
	return store_put(sc->s, sc->txn, sc->s->scopes, key, (struct csm_bin){value, n});
}

static int scope_accept(struct scan *sc, struct csm_bin key, struct root *root)
{
	CSM_WIPED(mem, sizeof(struct scope));
	struct scope *scope = (struct scope *)mem;
	struct seals_arg seals = {.scope = scope, .drop = true};
	struct range rg[RANGES_MAX];
	struct csm_bin value;
	struct dbparts parts;
	struct tally t;
	size_t n;
	int r;

	if (!dbkey_split_scope(key, &parts)) {
		store_names_add(sc->names, NULL, "root");
		return store_del(sc->s, sc->txn, sc->s->scopes, key);
	}
	n = ranges_of(sc, &parts, rg);
	if ((r = store_get(sc->txn, sc->s->scopes, key, &value)) != 0)
		return r;
	r = store_scope_open(&sc->s->aead, &sc->s->sub->scope, key, value, scope);
	if (r == CSM_ETAMPERED) {
		store_names_add(sc->names, &parts, NULL);
		return (r = ranges_each(sc, rg, n, row_drop, NULL)) != 0 ? r : store_del(sc->s, sc->txn, sc->s->scopes, key);
	}
	if (r != 0 || (r = tally_ranges(sc, rg, n, scope, &t)) != 0)
		return r;
	/* Keys come first: a certificate goes with a key that went. */
	if (!tally_fits(&t, scope) &&
		((r = ranges_each(sc, rg, n, row_seal, &seals)) != 0 || (r = tally_ranges(sc, rg, n, scope, &t)) != 0 ||
			(r = scope_rewrite(sc, key, scope, &t)) != 0))
		return r;
	if (parts.domain.n > 0) {
		root->n_domains++;
		root->n_secrets += t.names;
	} else {
		root->n_keys += t.names;
	}
	return 0;
}

/* The keys of all scopes, each behind its length: the walk that follows changes the database. */
static int scope_keys(struct scan *sc, struct csm_buf *keys)
{
	MDB_val k, v;
	MDB_cursor *cur;
	uint8_t len[2];
	int rc, r;

	if ((rc = mdb_cursor_open(sc->txn, sc->s->scopes, &cur)) != 0)
		return store_err(rc);
	while ((rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) == 0) {
		put16(len, (uint16_t)k.mv_size);
		if ((r = csm_buf_put(keys, len, 2)) != 0 || (r = csm_buf_put(keys, k.mv_data, k.mv_size)) != 0)
			goto out;
	}
	r = rc == MDB_NOTFOUND ? 0 : store_err(rc);
out:
	mdb_cursor_close(cur);
	return r;
}

int store_scan_accept(struct csm_store *s, MDB_txn *txn, struct root *root, struct names *removed)
{
	struct scan sc = {.s = s, .txn = txn, .names = removed};
	struct tree trees[TREES];
	struct csm_buf keys;
	struct tally t;
	int r;

	csm_buf_init(&sc.plain, PLAIN_MAX + 1, true);
	csm_buf_init(&keys, SIZE_MAX / 2, false);
	trees_of(s, trees);
	root->n_keys = root->n_domains = root->n_secrets = 0;
	if ((r = tree_mend(&sc, s->scopes)) == 0)
		r = tree_mend(&sc, s->serials);
	for (size_t i = 0; i < TREES && r == 0; i++)
		r = tree_mend(&sc, trees[i].dbi);
	if (r != 0 || (r = scope_keys(&sc, &keys)) != 0)
		goto out;
	for (const uint8_t *p = keys.len > 0 ? csm_buf_ptr(&keys) : NULL, *end = p + keys.len; p < end;
		p += 2 + get16(p)) {
		if ((r = scope_accept(&sc, (struct csm_bin){p + 2, get16(p)}, root)) != 0)
			goto out;
	}
	for (size_t i = 0; i < TREES; i++)
		if ((r = orphans(&sc, trees[i].dbi, trees[i].kind, true)) != 0)
			goto out;
	if ((r = scopes_sum(&sc, root, NULL, &t)) != 0 || (r = store_issue_accept(s, txn, root)) != 0 ||
		(r = store_pins_sum(s, txn, root, root->pins)) != 0)
		goto out;
	memcpy(root->sum, t.sum, SUM_LEN);
	root->scopes = t.records;
	r = 0;
out:
	csm_buf_free(&keys);
	csm_buf_free(&sc.plain);
	return r;
}
