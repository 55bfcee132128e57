/* Readers: one read transaction per loop, renewed and reset, and a cache of key-encryption keys. Nothing
 * plain is kept: a record is decrypted from the map into the caller's buffer. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/svc/store_internal.h"

#define CACHE_SETS 64u
#define CACHE_WAYS 4u

struct cached {
	uint8_t id[KEK_ID_LEN];
	uint64_t used; /* 0: empty */
	struct prk prk;
};
struct cur {
	MDB_cursor *c;
	uint64_t txn; /* the transaction that it was made or renewed for */
};
struct csm_reader {
	struct csm_store *s;
	MDB_txn *txn;
	uint64_t n_txn; /* counts them */
	struct cur scopes, keys, certs, secrets;
	struct view *view; /* of what the journal has; NULL: nothing */
	uint64_t groups;   /* of it, that this transaction sees */
	bool active;
	struct aead aead;
	unsigned kek_generation;
	uint64_t tick;
	struct cached *cache; /* CACHE_SETS * CACHE_WAYS, locked memory */
};

int csm_reader_new(struct csm_store *s, struct csm_reader **ret)
{
	struct csm_reader *r = calloc(1, sizeof(*r));
	int rc, e = CSM_ENOMEM;

	if (r == NULL)
		return e;
	r->s = s;
	r->cache = csm_lock_alloc(CACHE_SETS * CACHE_WAYS * sizeof(*r->cache));
	if (r->cache == NULL)
		goto out;
	memset(r->cache, 0, CACHE_SETS * CACHE_WAYS * sizeof(*r->cache));
	if ((e = aead_init(&r->aead, s->no_sodium)) != 0)
		goto out;
	if ((rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &r->txn)) != 0) {
		e = store_err(rc);
		goto out;
	}
	mdb_txn_reset(r->txn);
	*ret = r;
	e = 0;
out:
	if (e != 0)
		csm_reader_free(r);
	return e;
}

void csm_reader_free(struct csm_reader *r)
{
	if (r == NULL)
		return;
	if (r->scopes.c != NULL)
		mdb_cursor_close(r->scopes.c);
	if (r->keys.c != NULL)
		mdb_cursor_close(r->keys.c);
	if (r->certs.c != NULL)
		mdb_cursor_close(r->certs.c);
	if (r->secrets.c != NULL)
		mdb_cursor_close(r->secrets.c);
	if (r->txn != NULL)
		mdb_txn_abort(r->txn);
	aead_free(&r->aead);
	csm_lock_free(r->cache);
	free(r);
}

int csm_reader_begin(struct csm_reader *r)
{
	unsigned gen;
	int rc;

	if (csm_store_locked(r->s))
		return CSM_ETAMPERED;
	if (r->active || !r->s->ready)
		return CSM_ESTATE;
	gen = atomic_load_explicit(&r->s->kek_generation, memory_order_acquire);
	if (gen != r->kek_generation) {
		sodium_memzero(r->cache, CACHE_SETS * CACHE_WAYS * sizeof(*r->cache));
		r->kek_generation = gen;
	}
	if ((rc = view_begin(r->s, r->txn, &r->view, &r->groups)) != 0)
		return store_err(rc);
	r->active = true;
	r->n_txn++;
	return 0;
}

void csm_reader_end(struct csm_reader *r)
{
	if (!r->active)
		return;
	mdb_txn_reset(r->txn);
	view_unref(r->view);
	r->view = NULL;
	r->active = false;
}

/* A row of those that the journal may have. */
static int row_get(struct csm_reader *r, MDB_dbi dbi, struct csm_bin key, struct csm_bin *ret)
{
	struct change_row row;

	if (!view_find(r->view, r->groups, dbi, key, &row))
		return store_get(r->txn, dbi, key, ret);
	if (row.del)
		return CSM_ENOT_FOUND;
	*ret = row.value;
	return 0;
}

/* A cursor on this transaction. */
static int cursor(struct csm_reader *r, MDB_dbi dbi, struct cur *cur)
{
	int rc = 0;

	if (cur->c == NULL)
		rc = mdb_cursor_open(r->txn, dbi, &cur->c);
	else if (cur->txn != r->n_txn)
		rc = mdb_cursor_renew(r->txn, cur->c);
	if (rc == 0)
		cur->txn = r->n_txn;
	return store_err(rc);
}

/* ---- key-encryption keys ---- */

static struct cached *cache_set(struct csm_reader *r, const uint8_t *id)
{
	return &r->cache[(size_t)(id[0] % CACHE_SETS) * CACHE_WAYS];
}

static int scope_of(struct csm_reader *r, struct csm_str ns, struct csm_str domain, struct scope *ret)
{
	struct dbkey key;
	struct csm_bin v;
	int e;

	if ((e = dbkey_scope(&key, ns, domain)) != 0 || (e = row_get(r, r->s->scopes, dbkey_bin(&key), &v)) != 0)
		return e;
	return store_scope_open(&r->aead, &r->s->sub->scope, dbkey_bin(&key), v, ret);
}

static int kek_load(
	struct csm_reader *r, struct csm_str ns, struct csm_str domain, const uint8_t *id, struct cached *to)
{
	CSM_WIPED(mem, sizeof(struct scope));
	struct scope *scope = (struct scope *)mem;
	const struct kek *kek;
	int e;

	e = scope_of(r, ns, domain, scope);
	if (e != 0)
		return e == CSM_ENOT_FOUND ? CSM_ETAMPERED : e;
	kek = store_scope_kek(scope, id);
	if (kek == NULL)
		return CSM_ETAMPERED;
	prk_init(&to->prk, kek->key);
	memcpy(to->id, id, KEK_ID_LEN);
	return 0;
}

/* The KEK of that id, which the scope must have. What is found in the cache under a drawn id is right whoever
 * asks: a record that stands in another scope than its KEK's fails by its associated data. */
static int kek_of(
	struct csm_reader *r, struct csm_str ns, struct csm_str domain, const uint8_t *id, const struct prk **ret)
{
	struct cached *set = cache_set(r, id), *to = set;
	int e;

	for (size_t i = 0; i < CACHE_WAYS; i++) {
		if (set[i].used != 0 && memcmp(set[i].id, id, KEK_ID_LEN) == 0) {
			to = &set[i];
			goto found;
		}
		if (set[i].used < to->used)
			to = &set[i];
	}
	if ((e = kek_load(r, ns, domain, id, to)) != 0)
		return e;
found:
	to->used = ++r->tick;
	*ret = &to->prk;
	return 0;
}

/* Decrypt a record behind what is in out. */
static int open_into(struct csm_reader *r, struct csm_str ns, struct csm_str domain, const struct rec *rec,
	struct csm_bin key, struct csm_buf *out)
{
	const struct prk *kek;
	size_t n = rec_plain_len(rec);
	uint8_t *p;
	int e;

	if ((e = kek_of(r, ns, domain, rec->kek_id, &kek)) != 0 || (e = csm_buf_reserve(out, n + 1, &p)) != 0)
		return e;
	if ((e = rec_open(&r->aead, kek, rec, key, p)) != 0)
		return e;
	csm_buf_commit(out, n);
	return 0;
}

/* ---- keys ---- */

static int key_fill(struct csm_reader *r, struct csm_bin value, struct rec *rec, struct csm_key_record *ret)
{
	struct csm_bin count;
	int e;

	if ((e = rec_parse(value, REC_KEY, rec)) != 0 || (e = store_key_clear_get(rec->clear, ret)) != 0)
		return e;
	ret->lost = atomic_load(&r->s->any_lost) && store_lost_is(r->s, r->txn, ret->id);
	if (rec->state != REC_LIVE)
		return CSM_ENOT_FOUND;
	ret->created = rec->time;
	e = store_get(r->txn, r->s->counts, (struct csm_bin){ret->id, CSM_KEY_ID_LEN}, &count);
	if (e == 0)
		ret->signatures = count.n == 8 ? get64(count.p) : 0;
	return e == CSM_ENOT_FOUND ? 0 : e;
}

int csm_store_key_get(struct csm_reader *r, struct csm_str ns, struct csm_str name, bool want_priv,
	struct csm_buf *scratch, struct csm_key_record *ret)
{
	struct csm_key_record key;
	struct dbkey k;
	struct csm_bin v;
	struct rec rec;
	int e;

	if (!r->active)
		return CSM_ESTATE;
	if ((e = dbkey_key(&k, ns, name)) != 0 || (e = store_get(r->txn, r->s->keys, dbkey_bin(&k), &v)) != 0 ||
		(e = key_fill(r, v, &rec, &key)) != 0)
		return e;
	if (want_priv) {
		csm_buf_reset(scratch);
		if ((e = open_into(r, ns, CSM_STR(""), &rec, dbkey_bin(&k), scratch)) != 0)
			return e;
		key.priv = (struct csm_bin){csm_buf_ptr(scratch), scratch->len};
	}
	*ret = key;
	return 0;
}

static bool has_prefix(const MDB_val *k, const uint8_t *p, size_t n)
{
	return k->mv_size >= n && memcmp(k->mv_data, p, n) == 0;
}

static struct csm_str rest_of(const MDB_val *k, size_t prefix)
{
	return (struct csm_str){(const char *)k->mv_data + prefix, k->mv_size - prefix};
}

/* The first key behind "ns\0after", or the first of all: a name's own row is stepped over by the caller. */
static int list_start(struct dbkey *k, size_t *prefix, struct csm_str ns, struct csm_str after)
{
	int e = dbkey_scope(k, ns, CSM_STR(""));

	if (e != 0)
		return e;
	*prefix = k->n;
	return dbkey_scope(k, ns, after);
}

int csm_store_key_list(struct csm_reader *r, struct csm_str ns, struct csm_str after, csm_store_key_fn *fn, void *arg)
{
	struct dbkey start;
	size_t prefix;
	MDB_val k, v;
	int e, rc;

	if (!r->active)
		return CSM_ESTATE;
	if ((e = list_start(&start, &prefix, ns, after)) != 0 || (e = cursor(r, r->s->keys, &r->keys)) != 0)
		return e;
	k = dbkey_val(&start);
	for (rc = mdb_cursor_get(r->keys.c, &k, &v, MDB_SET_RANGE); rc == 0;
		rc = mdb_cursor_get(r->keys.c, &k, &v, MDB_NEXT)) {
		struct csm_key_record rec;
		struct rec raw;

		if (!has_prefix(&k, start.p, prefix))
			return 0;
		if ((k.mv_size == start.n && memcmp(k.mv_data, start.p, start.n) == 0) ||
			(k.mv_size > prefix && ((const char *)k.mv_data)[prefix] == '.'))
			continue;
		e = key_fill(r, val_bin(&v), &raw, &rec);
		if (e == CSM_ENOT_FOUND)
			continue;
		if (e != 0)
			return e;
		if (!fn(arg, rest_of(&k, prefix), &rec))
			return 0;
	}
	return rc == MDB_NOTFOUND ? 0 : store_err(rc);
}

/* ---- certificates ---- */

/* A certificate's record, appended to out; only beside the key that it was stored for. */
static int cert_open(struct csm_reader *r, struct csm_str ns, struct csm_bin key, struct csm_bin value,
	const uint8_t id[static CSM_KEY_ID_LEN], struct csm_buf *out, uint64_t *installed)
{
	struct rec rec;
	int e;

	if ((e = rec_parse(value, REC_CERT, &rec)) != 0)
		return e;
	if (rec.clear.n != CSM_KEY_ID_LEN)
		return CSM_ETAMPERED;
	if (rec.state != REC_LIVE || memcmp(rec.clear.p, id, CSM_KEY_ID_LEN) != 0)
		return CSM_ENOT_FOUND;
	if ((e = open_into(r, ns, CSM_STR(""), &rec, key, out)) != 0)
		return e;
	if (installed != NULL)
		*installed = rec.time;
	return 0;
}

int csm_store_cert_get(struct csm_reader *r, struct csm_str ns, struct csm_str name,
	const uint8_t id[static CSM_KEY_ID_LEN], struct csm_buf *out, uint64_t *installed)
{
	struct dbkey k;
	struct csm_bin v;
	int e;

	if (!r->active)
		return CSM_ESTATE;
	if ((e = dbkey_key(&k, ns, name)) != 0 || (e = store_get(r->txn, r->s->certs, dbkey_bin(&k), &v)) != 0)
		return e;
	return cert_open(r, ns, dbkey_bin(&k), v, id, out, installed);
}

static int cert_row(struct csm_reader *r, struct csm_str ns, const MDB_val *k, const MDB_val *v, struct csm_buf *scratch,
	uint64_t *installed)
{
	struct csm_key_record key;
	struct csm_bin row;
	struct rec rec;
	int e;

	csm_buf_reset(scratch);
	if ((e = store_get(r->txn, r->s->keys, val_bin(k), &row)) != 0 || (e = key_fill(r, row, &rec, &key)) != 0)
		return e;
	return cert_open(r, ns, val_bin(k), val_bin(v), key.id, scratch, installed);
}

int csm_store_cert_list(struct csm_reader *r, struct csm_str ns, struct csm_str after, struct csm_buf *scratch,
	csm_store_cert_fn *fn, void *arg)
{
	struct dbkey start;
	size_t prefix;
	MDB_val k, v;
	int e, rc;

	if (!r->active)
		return CSM_ESTATE;
	if ((e = list_start(&start, &prefix, ns, after)) != 0 || (e = cursor(r, r->s->certs, &r->certs)) != 0)
		return e;
	k = dbkey_val(&start);
	for (rc = mdb_cursor_get(r->certs.c, &k, &v, MDB_SET_RANGE); rc == 0;
		rc = mdb_cursor_get(r->certs.c, &k, &v, MDB_NEXT)) {
		uint64_t installed;

		if (!has_prefix(&k, start.p, prefix))
			return 0;
		if (k.mv_size == start.n && memcmp(k.mv_data, start.p, start.n) == 0)
			continue;
		e = cert_row(r, ns, &k, &v, scratch, &installed);
		if (e == CSM_ENOT_FOUND)
			continue;
		if (e != 0)
			return e;
		if (!fn(arg, rest_of(&k, prefix), installed, (struct csm_bin){csm_buf_ptr(scratch), scratch->len}))
			return 0;
	}
	return rc == MDB_NOTFOUND ? 0 : store_err(rc);
}

/* ---- domains ---- */

int csm_store_domain_get(struct csm_reader *r, struct csm_str ns, struct csm_str domain, struct csm_domain_info *ret)
{
	CSM_WIPED(mem, sizeof(struct scope));
	struct scope *scope = (struct scope *)mem;
	int e;

	if (!r->active)
		return CSM_ESTATE;
	if (domain.n == 0)
		return CSM_EINVALID;
	if ((e = scope_of(r, ns, domain, scope)) != 0)
		return e;
	*ret = (struct csm_domain_info){.created = scope->created, .secrets = scope->names};
	return 0;
}

int csm_store_domain_list(
	struct csm_reader *r, struct csm_str ns, struct csm_str after, csm_store_domain_fn *fn, void *arg)
{
	CSM_WIPED(mem, sizeof(struct scope));
	struct scope *scope = (struct scope *)mem;
	struct dbkey start;
	size_t prefix;
	MDB_val k, v;
	int e, rc;

	if (!r->active)
		return CSM_ESTATE;
	if ((e = list_start(&start, &prefix, ns, after)) != 0 || (e = cursor(r, r->s->scopes, &r->scopes)) != 0)
		return e;
	k = dbkey_val(&start);
	for (rc = mdb_cursor_get(r->scopes.c, &k, &v, MDB_SET_RANGE); rc == 0;
		rc = mdb_cursor_get(r->scopes.c, &k, &v, MDB_NEXT)) {
		struct csm_domain_info info;
		struct csm_bin row;

		if (!has_prefix(&k, start.p, prefix))
			return 0;
		/* `after` itself, and the namespace's own record */
		if ((k.mv_size == start.n && memcmp(k.mv_data, start.p, start.n) == 0) || k.mv_size == prefix)
			continue;
		if ((e = row_get(r, r->s->scopes, val_bin(&k), &row)) != 0 ||
			(e = store_scope_open(&r->aead, &r->s->sub->scope, val_bin(&k), row, scope)) != 0)
			return e;
		info = (struct csm_domain_info){.created = scope->created, .secrets = scope->names};
		if (!fn(arg, rest_of(&k, prefix), &info))
			return 0;
	}
	return rc == MDB_NOTFOUND ? 0 : store_err(rc);
}

/* ---- namespaces ---- */

int csm_store_namespace_list(struct csm_reader *r, csm_store_namespace_fn *fn, void *arg)
{
	struct dbkey next = {.p = {1}, .n = 1}; /* what comes behind all of a namespace's scopes */
	struct dbparts parts;
	MDB_val k, v;
	int e, rc;

	if (!r->active)
		return CSM_ESTATE;
	if ((e = cursor(r, r->s->scopes, &r->scopes)) != 0)
		return e;
	for (;;) {
		k = dbkey_val(&next);
		rc = mdb_cursor_get(r->scopes.c, &k, &v, MDB_SET_RANGE);
		if (rc != 0)
			return rc == MDB_NOTFOUND ? 0 : store_err(rc);
		if (!dbkey_split_scope(val_bin(&k), &parts))
			return CSM_ETAMPERED;
		if (!fn(arg, parts.ns))
			return 0;
		memcpy(next.p, parts.ns.p, parts.ns.n);
		next.p[parts.ns.n] = 1;
		next.n = parts.ns.n + 1;
	}
}

/* ---- secrets ---- */

/* The row of a version, 0 the newest. Afterwards k is the row's key. */
static int secret_row(struct csm_reader *r, struct dbkey *k, uint64_t version, struct csm_bin *ret)
{
	size_t prefix = k->n;
	struct change_row row;
	MDB_val key, v;
	int e;

	if (version == 0 && view_newest(r->view, r->groups, dbkey_bin(k), &row)) {
		memcpy(k->p, row.key.p, row.key.n);
		k->n = row.key.n;
		*ret = row.value;
		return 0;
	}
	dbkey_set_version(k, prefix, version == 0 ? UINT64_MAX : version);
	if (version != 0)
		return row_get(r, r->s->secrets, dbkey_bin(k), ret);
	if ((e = cursor(r, r->s->secrets, &r->secrets)) != 0)
		return e;
	key = dbkey_val(k);
	if ((e = store_err(mdb_cursor_get(r->secrets.c, &key, &v, MDB_SET_RANGE))) != 0)
		return e;
	if (key.mv_size != prefix + 8 || !has_prefix(&key, k->p, prefix))
		return CSM_ENOT_FOUND;
	memcpy(k->p + prefix, (const uint8_t *)key.mv_data + prefix, 8);
	*ret = val_bin(&v);
	return 0;
}

int csm_store_secret_get(struct csm_reader *r, struct csm_str ns, struct csm_str domain, struct csm_str name,
	uint64_t version, struct csm_buf *out, uint64_t *version_ret, uint64_t *created)
{
	struct dbkey k;
	struct csm_bin v;
	struct rec rec;
	int e;

	if (!r->active)
		return CSM_ESTATE;
	if ((e = dbkey_secret(&k, ns, domain, name)) != 0 || (e = secret_row(r, &k, version, &v)) != 0 ||
		(e = rec_parse(v, REC_SECRET, &rec)) != 0)
		return e;
	if (rec.state != REC_LIVE)
		return CSM_ENOT_FOUND;
	if ((e = open_into(r, ns, domain, &rec, dbkey_bin(&k), out)) != 0)
		return e;
	if (version_ret != NULL)
		*version_ret = ~get64(k.p + k.n - 8);
	if (created != NULL)
		*created = rec.time;
	return 0;
}

static int secrets_each(struct merge *m, struct csm_str after, csm_store_secret_fn *fn, void *arg)
{
	struct csm_str last = after;
	struct csm_bin key, value;

	while (merge_next(m, &key, &value)) {
		struct dbparts parts;
		struct rec rec;

		if (!dbkey_split_secret(key, &parts) || rec_parse(value, REC_SECRET, &rec) != 0)
			return CSM_ETAMPERED;
		/* the newest comes first; older ones of that name follow */
		if (csm_str_same(parts.name, last))
			continue;
		last = parts.name;
		if (rec.state != REC_LIVE)
			continue;
		if (!fn(arg, parts.name, parts.version, rec.time))
			return 0;
	}
	return m->rc == MDB_NOTFOUND ? 0 : store_err(m->rc);
}

int csm_store_secret_list(struct csm_reader *r, struct csm_str ns, struct csm_str domain, struct csm_str after,
	csm_store_secret_fn *fn, void *arg)
{
	struct dbkey start, prefix;
	struct csm_bin none;
	struct merge m;
	int e;

	if (!r->active)
		return CSM_ESTATE;
	if ((e = dbkey_scope(&prefix, ns, domain)) != 0 || (e = dbkey_secret(&start, ns, domain, after)) != 0 ||
		(e = row_get(r, r->s->scopes, dbkey_bin(&prefix), &none)) != 0 ||
		(e = cursor(r, r->s->secrets, &r->secrets)) != 0)
		return e;
	prefix.p[prefix.n++] = 0;
	if (after.n == 0)
		start.n = prefix.n;
	if ((e = merge_begin(&m, r->view, r->groups, r->secrets.c, &prefix, &start)) != 0)
		return e;
	e = secrets_each(&m, after, fn, arg);
	merge_end(&m);
	return e;
}

/* ---- data that is handed out sealed ---- */

/* Bound to namespace and context: the associated data's key is "ns\0context". */
static int sealed_key(struct dbkey *k, struct csm_str ns, struct csm_bin context)
{
	int e = dbkey_scope(k, ns, CSM_STR(""));

	if (e != 0)
		return e;
	if (context.n > sizeof(k->p) - k->n)
		return CSM_ETOO_LARGE;
	if (context.n > 0)
		memcpy(k->p + k->n, context.p, context.n);
	k->n += context.n;
	return 0;
}

int csm_store_seal(
	struct csm_reader *r, struct csm_str ns, struct csm_bin context, struct csm_bin in, struct csm_buf *out)
{
	CSM_WIPED(mem, sizeof(struct scope));
	struct scope *scope = (struct scope *)mem;
	const struct prk *kek;
	struct dbkey k;
	uint8_t *p;
	int e;

	if (!r->active)
		return CSM_ESTATE;
	if ((e = sealed_key(&k, ns, context)) != 0 || (e = scope_of(r, ns, CSM_STR(""), scope)) != 0 ||
		(e = kek_of(r, ns, CSM_STR(""), scope->kek[0].id, &kek)) != 0)
		return e;
	if (in.n > SIZE_MAX - HDR_LEN - TAG_LEN)
		return CSM_ETOO_LARGE;
	if ((e = csm_buf_reserve(out, HDR_LEN + in.n + TAG_LEN, &p)) != 0)
		return e;
	rec_header(p, REC_SEALED, 0, scope->kek[0].id, 0);
	if ((e = rec_seal(&r->aead, kek, REC_SEALED, dbkey_bin(&k), p, HDR_LEN, in)) != 0)
		return e;
	csm_buf_commit(out, HDR_LEN + in.n + TAG_LEN);
	return 0;
}

/* What does not open is the caller's mistake, not damage of the store: CSM_EINVALID for all of it. */
int csm_store_unseal(
	struct csm_reader *r, struct csm_str ns, struct csm_bin context, struct csm_bin in, struct csm_buf *out)
{
	CSM_WIPED(mem, sizeof(struct scope));
	struct scope *scope = (struct scope *)mem;
	struct dbkey k;
	struct rec rec;
	int e;

	if (!r->active)
		return CSM_ESTATE;
	if ((e = sealed_key(&k, ns, context)) != 0)
		return e;
	if (rec_parse(in, REC_SEALED, &rec) != 0 || rec.clear.n != 0)
		return CSM_EINVALID;
	e = scope_of(r, ns, CSM_STR(""), scope);
	if (e != 0)
		return e == CSM_ENOT_FOUND ? CSM_EINVALID : e;
	if (store_scope_kek(scope, rec.kek_id) == NULL)
		return CSM_EINVALID;
	e = open_into(r, ns, CSM_STR(""), &rec, dbkey_bin(&k), out);
	return e == CSM_ETAMPERED ? CSM_EINVALID : e;
}

int csm_store_replay(struct csm_reader *r, const struct csm_request_id *rid, struct csm_buf *answer)
{
	struct dbkey k;
	struct csm_bin v;
	int e;

	if (!r->active)
		return CSM_ESTATE;
	store_request_key(r->s, rid, &k);
	e = row_get(r, r->s->requests, dbkey_bin(&k), &v);
	return e != 0 ? e : store_request_open(r->s, &r->aead, rid, &k, v, (uint64_t)time(NULL), answer);
}
