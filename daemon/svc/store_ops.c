/* What one operation does, inside the transaction that the writer gives it. It touches one scope at
 * most. On failure the caller puts back transaction, scope and root, so nothing here undoes. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/svc/store_internal.h"

#define PAYLOAD_MAX CSM_MESSAGE_MAX
#define VERSION_ANSWER_MAX 18u

/* ---- a record into its scope, and out of it ---- */

static int row_put(struct group *g, struct wscope *ws, enum rec_kind kind, MDB_dbi dbi, const struct dbkey *key,
	uint8_t *value, size_t header_n, struct csm_bin plain)
{
	size_t n = header_n + plain.n + TAG_LEN;
	uint8_t e[SUM_LEN];
	int r;

	if ((r = rec_seal(&g->s->aead, &ws->kek, kind, dbkey_bin(key), value, header_n, plain)) != 0 ||
		(r = sum_element(&ws->set, kind, dbkey_bin(key), (struct csm_bin){value, n}, e)) != 0 ||
		(r = store_put(g->s, g->txn, dbi, dbkey_bin(key), (struct csm_bin){value, n})) != 0)
		return r;
	sum_add(ws->sc.sum, e);
	ws->sc.records++;
	ws->dirty = true;
	return 0;
}

/* Take a row's part out of the sum; the row itself is deleted by the caller. */
static int row_out(struct wscope *ws, enum rec_kind kind, struct csm_bin key, struct csm_bin value)
{
	uint8_t e[SUM_LEN];
	int r = sum_element(&ws->set, kind, key, value, e);

	if (r != 0)
		return r;
	sum_sub(ws->sc.sum, e);
	ws->sc.records--;
	ws->dirty = true;
	return 0;
}

static int scope_for(struct group *g, struct csm_str ns, struct csm_str domain, struct wscope **ret)
{
	struct dbkey k;
	int r = dbkey_scope(&k, ns, domain);

	return r != 0 ? r : store_group_scope(g, &k, ret);
}

static void scope_make(struct group *g, struct wscope *ws)
{
	store_scope_new(&ws->sc, g->now);
	prk_init(&ws->kek, ws->sc.kek[0].key);
	prk_init(&ws->set, ws->sc.set_key);
	ws->present = true;
	ws->dirty = true;
}

/* Only for what makes the store grow: what frees room must go through when there is none. */
static int room(struct group *g, size_t bytes)
{
	size_t need = bytes + ROOM_PER_OP;

	if (g->room < need)
		return CSM_ENO_SPACE;
	g->room -= need;
	return 0;
}

/* ---- keys ---- */

static int key_create(struct group *g, struct csm_store_op *op)
{
	static const uint8_t zero[CSM_KEY_ID_LEN];
	uint8_t *value = NULL, count[8] = {0};
	struct wscope *ws;
	struct dbkey k;
	struct csm_bin old;
	size_t clear;
	int r;

	if (op->name.n == 0)
		return CSM_EINVALID;
	if (op->key.priv.n > PAYLOAD_MAX)
		return CSM_ETOO_LARGE;
	if ((r = dbkey_key(&k, op->ns, op->name)) != 0)
		return r;
	r = store_get(g->txn, g->s->keys, dbkey_bin(&k), &old);
	if (r != CSM_ENOT_FOUND)
		return r == 0 ? CSM_EEXISTS : r;
	if ((r = room(g, op->key.priv.n)) != 0 || (r = scope_for(g, op->ns, CSM_STR(""), &ws)) != 0)
		return r;
	if (!ws->present)
		scope_make(g, ws);
	value = malloc(HDR_MAX + op->key.priv.n + TAG_LEN);
	if (value == NULL)
		return CSM_ENOMEM;
	if (memcmp(op->key.id, zero, sizeof(zero)) == 0)
		randombytes_buf(op->key.id, sizeof(op->key.id));
	if (op->key.created == 0)
		op->key.created = g->now;
	if ((r = store_key_clear_put(&op->key, value + HDR_LEN, HDR_MAX - HDR_LEN, &clear)) != 0)
		goto out;
	rec_header(value, REC_KEY, op->key.created, ws->sc.kek[0].id, clear);
	if ((r = row_put(g, ws, REC_KEY, g->s->keys, &k, value, HDR_LEN + clear, op->key.priv)) != 0)
		goto out;
	r = store_put(g->s, g->txn, g->s->counts, (struct csm_bin){op->key.id, CSM_KEY_ID_LEN}, (struct csm_bin){count, 8});
	if (r != 0)
		goto out;
	ws->sc.names++;
	g->root.n_keys++;
out:
	free(value);
	return r;
}

/* The row of a key of the database `keys`, with what is clear of it, and its namespace's scope. CSM_ECONFLICT: another key
 * has the name than the one whose id is given. */
static int key_row(struct group *g, const struct csm_store_op *op, struct dbkey *k, struct csm_bin *v,
	struct csm_key_record *key, struct wscope **ws)
{
	struct rec rec;
	int r;

	if ((r = dbkey_key(k, op->ns, op->name)) != 0 || (r = store_get(g->txn, g->s->keys, dbkey_bin(k), v)) != 0 ||
		(r = rec_parse(*v, REC_KEY, &rec)) != 0 || (r = store_key_clear_get(rec.clear, key)) != 0 ||
		(r = scope_for(g, op->ns, CSM_STR(""), ws)) != 0)
		return r;
	if (!(*ws)->present)
		return CSM_ETAMPERED;
	return sodium_is_zero(op->key.id, CSM_KEY_ID_LEN) || memcmp(key->id, op->key.id, CSM_KEY_ID_LEN) == 0 ? 0 :
		CSM_ECONFLICT;
}

/* CSM_ENOT_FOUND: there is none. */
static int cert_drop(struct group *g, struct wscope *ws, const struct dbkey *k)
{
	struct csm_bin v;
	int r;

	if ((r = store_get(g->txn, g->s->certs, dbkey_bin(k), &v)) != 0 ||
		(r = row_out(ws, REC_CERT, dbkey_bin(k), v)) != 0)
		return r;
	return store_del(g->s, g->txn, g->s->certs, dbkey_bin(k));
}

static int key_delete_one(struct group *g, const struct csm_store_op *op)
{
	struct csm_key_record key;
	struct wscope *ws;
	struct dbkey k;
	struct csm_bin v;
	int r;

	if ((r = key_row(g, op, &k, &v, &key, &ws)) != 0)
		return r;
	if ((r = row_out(ws, REC_KEY, dbkey_bin(&k), v)) != 0 ||
		(r = store_del(g->s, g->txn, g->s->keys, dbkey_bin(&k))) != 0)
		return r;
	r = cert_drop(g, ws, &k);
	if (r != 0 && r != CSM_ENOT_FOUND)
		return r;
	r = store_del(g->s, g->txn, g->s->counts, (struct csm_bin){key.id, CSM_KEY_ID_LEN});
	if (r != 0 && r != CSM_ENOT_FOUND)
		return r;
	if ((r = store_lost_forget(g->s, g->txn, &g->root, key.id)) != 0 || (r = store_issue_forget(g, key.id)) != 0)
		return r;
	ws->sc.names--;
	g->root.n_keys--;
	g->deleted = true;
	return 0;
}

static int beside_delete(struct group *g, const struct csm_store_op *op, enum csm_key_beside which)
{
	char name[CSM_KEY_BESIDE_NAME];
	const struct csm_store_op one = {.ns = op->ns, .name = csm_store_key_beside(op->name, which, name)};
	int r = key_delete_one(g, &one);

	return r == CSM_ENOT_FOUND ? 0 : r;
}

static int key_delete(struct group *g, const struct csm_store_op *op)
{
	int r = key_delete_one(g, op);

	if (r == 0 && op->name.p[0] != '.' && (r = beside_delete(g, op, CSM_KEY_NEXT)) == 0)
		r = beside_delete(g, op, CSM_KEY_BEFORE);
	return r;
}

/* The row of a key, out of the transaction's memory and opened: header and clear fields in value, the private part in plain. */
static int row_take(struct group *g, struct wscope *ws, const struct dbkey *k, struct csm_bin v, uint8_t **value, size_t *header,
	struct csm_buf *plain)
{
	const struct kek *kek;
	struct prk prk;
	struct rec rec;
	uint8_t *p;
	size_t n;
	int r;

	if ((r = rec_parse(v, REC_KEY, &rec)) != 0)
		return r;
	if ((kek = store_scope_kek(&ws->sc, rec.kek_id)) == NULL)
		return CSM_ETAMPERED;
	n = rec_plain_len(&rec);
	if ((r = csm_buf_reserve(plain, n + 1, &p)) != 0)
		return r;
	prk_init(&prk, kek->key);
	r = rec_open(&g->s->aead, &prk, &rec, dbkey_bin(k), p);
	sodium_memzero(&prk, sizeof(prk));
	if (r != 0)
		return r;
	csm_buf_commit(plain, n);
	if ((*value = malloc(rec.header.n + n + TAG_LEN)) == NULL)
		return CSM_ENOMEM;
	rec_header(*value, REC_KEY, rec.time, ws->sc.kek[0].id, rec.clear.n);
	memcpy(*value + HDR_LEN, rec.clear.p, rec.clear.n);
	*header = HDR_LEN + rec.clear.n;
	return 0;
}

/* A key under another name: its private part is sealed anew, its counts go by its id and stay. */
static int key_move(struct group *g, const struct csm_store_op *from, struct csm_str to)
{
	struct csm_key_record key;
	struct csm_bin v, other;
	uint8_t *value = NULL;
	struct csm_buf plain;
	struct dbkey k, at;
	struct wscope *ws;
	size_t header;
	int r;

	csm_buf_init(&plain, PAYLOAD_MAX, true);
	if ((r = key_row(g, from, &k, &v, &key, &ws)) != 0 || (r = dbkey_key(&at, from->ns, to)) != 0)
		goto out;
	r = store_get(g->txn, g->s->keys, dbkey_bin(&at), &other);
	if (r != CSM_ENOT_FOUND) {
		r = r == 0 ? CSM_EEXISTS : r;
		goto out;
	}
	if ((r = row_take(g, ws, &k, v, &value, &header, &plain)) != 0 || (r = row_out(ws, REC_KEY, dbkey_bin(&k), v)) != 0 ||
		(r = store_del(g->s, g->txn, g->s->keys, dbkey_bin(&k))) != 0)
		goto out;
	r = row_put(g, ws, REC_KEY, g->s->keys, &at, value, header, (struct csm_bin){csm_buf_ptr(&plain), plain.len});
out:
	csm_buf_free(&plain);
	free(value);
	return r;
}

/* ---- certificates ---- */

static int cert_set(struct group *g, struct csm_store_op *op)
{
	struct csm_key_record key;
	uint8_t *value = NULL;
	struct wscope *ws;
	struct dbkey k;
	struct csm_bin v;
	int r;

	if (op->payload.n > PAYLOAD_MAX)
		return CSM_ETOO_LARGE;
	if ((r = key_row(g, op, &k, &v, &key, &ws)) != 0)
		return r;
	if ((r = room(g, op->payload.n)) != 0)
		return r;
	r = cert_drop(g, ws, &k);
	if (r != 0 && r != CSM_ENOT_FOUND)
		return r;
	value = malloc(HDR_LEN + CSM_KEY_ID_LEN + op->payload.n + TAG_LEN);
	if (value == NULL)
		return CSM_ENOMEM;
	rec_header(value, REC_CERT, g->now, ws->sc.kek[0].id, CSM_KEY_ID_LEN);
	memcpy(value + HDR_LEN, key.id, CSM_KEY_ID_LEN);
	r = row_put(g, ws, REC_CERT, g->s->certs, &k, value, HDR_LEN + CSM_KEY_ID_LEN, op->payload);
	free(value);
	return r;
}

static int key_turn(struct group *g, struct csm_store_op *op)
{
	char next_name[CSM_KEY_BESIDE_NAME], before_name[CSM_KEY_BESIDE_NAME];
	struct csm_store_op old = {.ns = op->ns, .name = op->name};
	struct csm_store_op next = {.ns = op->ns, .name = csm_store_key_beside(op->name, CSM_KEY_NEXT, next_name)};
	struct wscope *ws;
	struct dbkey k;
	int r;

	if (op->turns == NULL || op->name.n == 0)
		return CSM_EINVALID;
	memcpy(old.key.id, op->turns, CSM_KEY_ID_LEN);
	memcpy(next.key.id, op->key.id, CSM_KEY_ID_LEN);
	if ((r = room(g, op->payload.n)) != 0 || (r = dbkey_key(&k, op->ns, op->name)) != 0 ||
		(r = scope_for(g, op->ns, CSM_STR(""), &ws)) != 0)
		return r;
	if (!ws->present)
		return CSM_ENOT_FOUND;
	if ((r = beside_delete(g, op, CSM_KEY_BEFORE)) != 0 ||
		(r = key_move(g, &old, csm_store_key_beside(op->name, CSM_KEY_BEFORE, before_name))) != 0)
		return r;
	r = cert_drop(g, ws, &k);
	if (r != 0 && r != CSM_ENOT_FOUND)
		return r;
	return (r = key_move(g, &next, op->name)) != 0 ? r : cert_set(g, op);
}

static int cert_delete(struct group *g, struct csm_store_op *op)
{
	struct csm_key_record key;
	struct wscope *ws;
	struct dbkey k;
	struct csm_bin v;
	int r;

	if ((r = key_row(g, op, &k, &v, &key, &ws)) != 0 || (r = cert_drop(g, ws, &k)) != 0)
		return r;
	g->deleted = true;
	return 0;
}

static int issue(struct group *g, struct csm_store_op *op)
{
	struct csm_key_record key;
	struct wscope *ws;
	struct dbkey k;
	struct csm_bin v;
	int r;

	if ((r = key_row(g, op, &k, &v, &key, &ws)) != 0)
		return r;
	if ((key.use & CSM_USE_ISSUER) == 0)
		return CSM_EINVALID;
	return (r = room(g, 0)) != 0 ? r : store_issue(g, op, key.id);
}

/* Only keys that exist have a row: counts that come in after a deletion go nowhere. */
static int counts_add(struct group *g, const struct csm_store_op *op)
{
	uint8_t value[8];
	struct csm_bin v;
	int r;

	for (size_t i = 0; i < op->n_counts; i++) {
		const struct csm_bin id = {op->counts[i].id, CSM_KEY_ID_LEN};

		r = store_get(g->txn, g->s->counts, id, &v);
		if (r == CSM_ENOT_FOUND)
			continue;
		if (r != 0)
			return r;
		put64(value, (v.n == 8 ? get64(v.p) : 0) + op->counts[i].add);
		if ((r = store_put(g->s, g->txn, g->s->counts, id, (struct csm_bin){value, sizeof(value)})) != 0)
			return r;
	}
	return 0;
}

/* ---- domains and secrets ---- */

static int domain_create(struct group *g, struct csm_store_op *op)
{
	struct wscope *ws;
	int r;

	if (op->name.n == 0)
		return CSM_EINVALID;
	if ((r = scope_for(g, op->ns, op->name, &ws)) != 0)
		return r;
	if (ws->present)
		return CSM_EEXISTS;
	if ((r = room(g, 0)) != 0)
		return r;
	scope_make(g, ws);
	g->root.n_domains++;
	return 0;
}

/* Delete the rows that start with prefix, from the cursor's first; ws: out of its sum, too. */
static int rows_delete(struct group *g, const struct dbkey *prefix, struct wscope *ws, size_t *ret)
{
	MDB_val k = dbkey_val(prefix), v;
	MDB_cursor *cur;
	size_t n = 0;
	int rc, r;

	if ((rc = mdb_cursor_open(g->txn, g->s->secrets, &cur)) != 0)
		return store_err(rc);
	for (rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE); rc == 0; rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) {
		if (k.mv_size < prefix->n || memcmp(k.mv_data, prefix->p, prefix->n) != 0)
			break;
		if (ws != NULL && (r = row_out(ws, REC_SECRET, val_bin(&k), val_bin(&v))) != 0)
			goto out;
		if ((rc = store_cursor_del(g->s, cur, &k)) != 0)
			break;
		n++;
	}
	r = rc == MDB_NOTFOUND ? 0 : store_err(rc);
	if (r == 0)
		*ret = n;
out:
	mdb_cursor_close(cur);
	return r;
}

static int domain_delete(struct group *g, struct csm_store_op *op)
{
	struct wscope *ws;
	struct dbkey prefix;
	size_t n = 0;
	int r;

	if (op->name.n == 0)
		return CSM_EINVALID;
	if ((r = scope_for(g, op->ns, op->name, &ws)) != 0)
		return r;
	if (!ws->present)
		return CSM_ENOT_FOUND;
	prefix = ws->key;
	prefix.p[prefix.n++] = 0;
	if ((r = rows_delete(g, &prefix, NULL, &n)) != 0)
		return r;
	g->root.n_domains--;
	g->root.n_secrets -= ws->sc.names;
	ws->present = false;
	ws->dirty = true;
	g->deleted = true;
	g->keks_gone = true;
	return 0;
}

/* The newest version of the name with this prefix; 0 if there is none. */
static int newest(struct group *g, const struct dbkey *prefix, uint64_t *ret)
{
	MDB_val k = dbkey_val(prefix), v;
	MDB_cursor *cur;
	int rc;

	if ((rc = mdb_cursor_open(g->txn, g->s->secrets, &cur)) != 0)
		return store_err(rc);
	rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE);
	if (rc == 0 && k.mv_size == prefix->n + 8 && memcmp(k.mv_data, prefix->p, prefix->n) == 0)
		*ret = ~get64((const uint8_t *)k.mv_data + prefix->n);
	else if (rc == 0 || rc == MDB_NOTFOUND)
		*ret = rc = 0;
	mdb_cursor_close(cur);
	return store_err(rc);
}

/* Older versions than the newest CSM_SECRET_VERSIONS_KEPT go. */
static int versions_prune(struct group *g, struct wscope *ws, const struct dbkey *prefix)
{
	MDB_val k = dbkey_val(prefix), v;
	MDB_cursor *cur;
	unsigned seen = 0;
	int rc, r;

	if ((rc = mdb_cursor_open(g->txn, g->s->secrets, &cur)) != 0)
		return store_err(rc);
	for (rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE); rc == 0; rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) {
		if (k.mv_size < prefix->n || memcmp(k.mv_data, prefix->p, prefix->n) != 0)
			break;
		if (++seen <= CSM_SECRET_VERSIONS_KEPT)
			continue;
		if ((r = row_out(ws, REC_SECRET, val_bin(&k), val_bin(&v))) != 0)
			goto out;
		if ((rc = store_cursor_del(g->s, cur, &k)) != 0)
			break;
		g->deleted = true; /* an older value went for good: it is not to come back with an older store */
	}
	r = rc == MDB_NOTFOUND ? 0 : store_err(rc);
out:
	mdb_cursor_close(cur);
	return r;
}

static int secret_set(struct group *g, struct csm_store_op *op)
{
	uint8_t *value = NULL;
	uint64_t version = 0;
	struct dbkey prefix, k;
	struct wscope *ws;
	int r;

	if (op->name.n == 0 || op->secret.n == 0)
		return CSM_EINVALID;
	if (op->payload.n > PAYLOAD_MAX)
		return CSM_ETOO_LARGE;
	if ((r = dbkey_secret(&prefix, op->ns, op->name, op->secret)) != 0 ||
		(r = scope_for(g, op->ns, op->name, &ws)) != 0)
		return r;
	if (!ws->present)
		return CSM_ENOT_FOUND;
	if ((r = newest(g, &prefix, &version)) != 0)
		return r;
	if (op->has_expect && op->expect != version)
		return CSM_ECONFLICT;
	if (version == UINT64_MAX - 1)
		return CSM_ENO_SPACE;
	if ((r = room(g, op->payload.n)) != 0)
		return r;
	value = malloc(HDR_LEN + op->payload.n + TAG_LEN);
	if (value == NULL)
		return CSM_ENOMEM;
	k = prefix;
	dbkey_set_version(&k, prefix.n, version + 1);
	rec_header(value, REC_SECRET, g->now, ws->sc.kek[0].id, 0);
	if ((r = row_put(g, ws, REC_SECRET, g->s->secrets, &k, value, HDR_LEN, op->payload)) != 0 ||
		(r = versions_prune(g, ws, &prefix)) != 0)
		goto out;
	if (version == 0) {
		ws->sc.names++;
		g->root.n_secrets++;
	}
	op->version = version + 1;
out:
	free(value);
	return r;
}

static int secret_delete(struct group *g, struct csm_store_op *op)
{
	struct dbkey prefix;
	struct wscope *ws;
	size_t n = 0;
	int r;

	if (op->name.n == 0 || op->secret.n == 0)
		return CSM_EINVALID;
	if ((r = dbkey_secret(&prefix, op->ns, op->name, op->secret)) != 0 ||
		(r = scope_for(g, op->ns, op->name, &ws)) != 0)
		return r;
	if (!ws->present)
		return CSM_ENOT_FOUND;
	if ((r = rows_delete(g, &prefix, ws, &n)) != 0)
		return r;
	if (n == 0)
		return CSM_ENOT_FOUND;
	ws->sc.names--;
	g->root.n_secrets--;
	g->deleted = true;
	return 0;
}

/* ---- the rest ---- */

static int namespace_make(struct group *g, struct csm_store_op *op)
{
	struct wscope *ws;
	int r;

	if ((r = scope_for(g, op->ns, CSM_STR(""), &ws)) != 0)
		return r;
	if (ws->present)
		return 0;
	if ((r = room(g, 0)) != 0)
		return r;
	scope_make(g, ws);
	return 0;
}

static int remember(struct group *g, struct csm_store_op *op)
{
	char name[PIN_NAME_MAX + 1];

	if (op->name.n == 0 || op->name.n > PIN_NAME_MAX || memchr(op->name.p, 0, op->name.n) != NULL)
		return CSM_EINVALID;
	if (op->payload.n > PIN_MAX)
		return CSM_ETOO_LARGE;
	memcpy(name, op->name.p, op->name.n);
	name[op->name.n] = '\0';
	store_early_forget(g->s, name); /* this one is newer */
	return store_pin_put(g->s, g->txn, &g->root, name, op->payload);
}

static int op_do(struct group *g, struct csm_store_op *op)
{
	switch (op->kind) {
	case CSM_OP_KEY_CREATE:
		return key_create(g, op);
	case CSM_OP_KEY_DELETE:
		return key_delete(g, op);
	case CSM_OP_KEY_TURN:
		return key_turn(g, op);
	case CSM_OP_CERT_SET:
		return cert_set(g, op);
	case CSM_OP_CERT_DELETE:
		return cert_delete(g, op);
	case CSM_OP_DOMAIN_CREATE:
		return domain_create(g, op);
	case CSM_OP_DOMAIN_DELETE:
		return domain_delete(g, op);
	case CSM_OP_SECRET_SET:
		return secret_set(g, op);
	case CSM_OP_SECRET_DELETE:
		return secret_delete(g, op);
	case CSM_OP_NAMESPACE:
		return namespace_make(g, op);
	case CSM_OP_COUNTS:
		return counts_add(g, op);
	case CSM_OP_ISSUE:
		return issue(g, op);
	case CSM_OP_REMEMBER:
		return remember(g, op);
	case CSM_OP_ROOT_KEY:
		return store_root_key_put(g->s, g->txn, op->payload);
	case CSM_OP_ANCHOR:
	case CSM_OP_EPOCH:
	case CSM_OP_ACCEPT:
		return 0; /* the writer's */
	}
	return CSM_EINVALID;
}

/* {"version": n} in MessagePack, the answer to secret.set; read back for a replay. */
static size_t version_answer(uint64_t v, uint8_t p[static VERSION_ANSWER_MAX])
{
	static const uint8_t front[9] = {0x81, 0xa7, 'v', 'e', 'r', 's', 'i', 'o', 'n'};

	memcpy(p, front, sizeof(front));
	if (v < 128) {
		p[9] = (uint8_t)v;
		return 10;
	}
	if (v <= UINT8_MAX) {
		p[9] = 0xcc;
		p[10] = (uint8_t)v;
		return 11;
	}
	if (v <= UINT16_MAX) {
		p[9] = 0xcd;
		put16(p + 10, (uint16_t)v);
		return 12;
	}
	if (v <= UINT32_MAX) {
		p[9] = 0xce;
		put32(p + 10, (uint32_t)v);
		return 14;
	}
	p[9] = 0xcf;
	put64(p + 10, v);
	return 18;
}

static uint64_t version_of_answer(const uint8_t *p, size_t n)
{
	if (n == 10)
		return p[9];
	if (n == 11)
		return p[10];
	if (n == 12)
		return get16(p + 10);
	if (n == 14)
		return get32(p + 10);
	return n == 18 ? get64(p + 10) : 0;
}

static int op_replayed(struct group *g, struct csm_store_op *op)
{
	struct csm_buf answer;
	int r;

	csm_buf_init(&answer, CSM_MESSAGE_MAX, false);
	r = store_request_find(g->s, g->txn, &g->s->aead, &op->rid, g->now, &answer);
	if (r == 0 && op->kind == CSM_OP_SECRET_SET)
		op->version = version_of_answer(csm_buf_ptr(&answer), answer.len);
	csm_buf_free(&answer);
	return r;
}

int store_op_apply(struct group *g, struct csm_store_op *op)
{
	uint8_t own[VERSION_ANSWER_MAX];
	struct csm_bin answer = op->answer;
	int r;

	op->replayed = false;
	if (op->rid.id.p == NULL)
		return op_do(g, op);
	r = op_replayed(g, op);
	if (r != CSM_ENOT_FOUND) {
		op->replayed = r == 0;
		return r;
	}
	if ((r = op_do(g, op)) != 0)
		return r;
	if (op->kind == CSM_OP_SECRET_SET)
		answer = (struct csm_bin){own, version_answer(op->version, own)};
	return store_request_put(g->s, g->txn, &g->s->aead, &op->rid, g->now, answer);
}
