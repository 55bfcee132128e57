/* What the journal has and LMDB has not, for readers. The writer adds nodes and never takes one out: a reader sees those of the
 * groups that were answered when it began. With LMDB's next commit a view has done its duty; who still reads through it keeps it. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/svc/store_internal.h"

#define BUCKETS 4096u
#define CHUNK 65536u
#define NEWEST STORE_DBS_MAX /* in the place of a database: the newest version of a secret, by the prefix of its key */

struct node {
	struct node *next;     /* in the bucket; older */
	struct node *secrets;  /* of NEWEST: all of them; older */
	struct node *group;    /* of those that are being made: later */
	const struct node *row; /* of NEWEST: its row */
	uint64_t group_no;
	MDB_dbi dbi;
	bool del;
	size_t bucket;
	struct csm_bin key, value;
};
struct chunk {
	struct chunk *next;
	size_t n, cap;
	_Alignas(16) uint8_t p[];
};
struct view {
	atomic_size_t refs;
	atomic_uint_fast64_t groups; /* that readers see */
	uint8_t hash_key[crypto_shorthash_KEYBYTES]; /* names are chosen by users */
	struct chunk *chunks;
	struct node *made, **made_tail; /* of the group at hand */
	struct node *_Atomic secrets;
	struct node *_Atomic buckets[BUCKETS];
};

static struct view *view_new(void)
{
	struct view *v = calloc(1, sizeof(*v));

	if (v == NULL)
		return NULL;
	atomic_init(&v->refs, 1);
	v->made_tail = &v->made;
	randombytes_buf(v->hash_key, sizeof(v->hash_key));
	return v;
}

void view_unref(struct view *v)
{
	if (v == NULL || atomic_fetch_sub_explicit(&v->refs, 1, memory_order_acq_rel) != 1)
		return;
	while (v->chunks != NULL) {
		struct chunk *c = v->chunks;

		v->chunks = c->next;
		free(c);
	}
	free(v);
}

static size_t bucket_of(const struct view *v, MDB_dbi dbi, struct csm_bin key)
{
	uint8_t hash[crypto_shorthash_BYTES];

	crypto_shorthash(hash, key.p, key.n, v->hash_key);
	return (get32(hash) ^ dbi) % BUCKETS;
}

static void *take(struct view *v, size_t n)
{
	struct chunk *c = v->chunks;
	size_t cap = n > CHUNK ? n : CHUNK;
	void *p;

	n = (n + 15) & ~(size_t)15;
	if (c == NULL || c->cap - c->n < n) {
		c = malloc(sizeof(*c) + cap + 16);
		if (c == NULL)
			return NULL;
		c->next = v->chunks;
		c->n = 0;
		c->cap = cap + 16;
		v->chunks = c;
	}
	p = c->p + c->n;
	c->n += n;
	return p;
}

static struct node *node_make(struct view *v, MDB_dbi dbi, struct csm_bin key, struct csm_bin value)
{
	struct node *node = take(v, sizeof(*node) + key.n + value.n);
	uint8_t *p;

	if (node == NULL)
		return NULL;
	p = (uint8_t *)(node + 1);
	memcpy(p, key.p, key.n);
	if (value.n > 0)
		memcpy(p + key.n, value.p, value.n);
	*node = (struct node){.dbi = dbi, .key = {p, key.n}, .value = {p + key.n, value.n}};
	node->bucket = bucket_of(v, dbi, node->key);
	*v->made_tail = node;
	v->made_tail = &node->group;
	return node;
}

static int row_make(const struct csm_store *s, struct view *v, const struct change_row *c)
{
	static const struct csm_bin none = {(const uint8_t *)"", 0};
	struct node *node, *newest;

	if (c->dbi != s->secrets && c->dbi != s->scopes && c->dbi != s->requests)
		return 0; /* no reader asks for it, or it was committed */
	if ((node = node_make(v, c->dbi, c->key, c->value)) == NULL)
		return CSM_ENOMEM;
	node->del = c->del;
	if (c->dbi != s->secrets || c->del)
		return 0;
	if ((newest = node_make(v, NEWEST, (struct csm_bin){c->key.p, c->key.n - 8}, none)) == NULL)
		return CSM_ENOMEM;
	newest->row = node;
	return 0;
}

int view_prepare(struct csm_store *s)
{
	struct csm_bin rows = {csm_buf_ptr(&s->changes.rows) + JOURNAL_HEAD, s->changes.rows.len - JOURNAL_HEAD};
	struct change_row c;
	int r = 0;

	if (s->next_view == NULL && (s->next_view = view_new()) == NULL)
		return CSM_ENOMEM;
	s->next_view->made = NULL;
	s->next_view->made_tail = &s->next_view->made;
	while (r == 0 && rows.n > 0)
		if ((r = changes_next(s, &rows, &c)) == 0)
			r = row_make(s, s->next_view, &c);
	return r;
}

void view_publish(struct csm_store *s)
{
	struct view *v = s->next_view;
	uint64_t no = atomic_load_explicit(&v->groups, memory_order_relaxed) + 1;
	struct node *next;

	for (struct node *node = v->made; node != NULL; node = next) {
		next = node->group;
		node->group_no = no;
		node->next = atomic_load_explicit(&v->buckets[node->bucket], memory_order_relaxed);
		if (node->dbi == NEWEST) {
			node->secrets = atomic_load_explicit(&v->secrets, memory_order_relaxed);
			atomic_store_explicit(&v->secrets, node, memory_order_release);
		}
		atomic_store_explicit(&v->buckets[node->bucket], node, memory_order_release);
	}
	v->made = NULL;
	v->made_tail = &v->made;
	atomic_store_explicit(&v->groups, no, memory_order_release);
	atomic_store_explicit(&s->view, v, memory_order_release);
}

void view_drop(struct csm_store *s)
{
	struct view *v = s->next_view;

	pthread_mutex_lock(&s->view_mu);
	atomic_store_explicit(&s->view, NULL, memory_order_release);
	pthread_mutex_unlock(&s->view_mu);
	s->next_view = NULL;
	view_unref(v);
}

int view_begin(struct csm_store *s, MDB_txn *txn, struct view **view, uint64_t *groups)
{
	struct view *v;
	int rc;

	/* What is published from here on was not answered when this reader began. */
	if (atomic_load_explicit(&s->view, memory_order_acquire) == NULL) {
		*view = NULL;
		return mdb_txn_renew(txn);
	}
	/* A view goes with the commits before it: between the two steps none may come. */
	pthread_mutex_lock(&s->view_mu);
	v = atomic_load_explicit(&s->view, memory_order_acquire);
	rc = mdb_txn_renew(txn);
	if (rc == 0 && v != NULL) {
		atomic_fetch_add_explicit(&v->refs, 1, memory_order_relaxed);
		*groups = atomic_load_explicit(&v->groups, memory_order_acquire);
	}
	pthread_mutex_unlock(&s->view_mu);
	*view = rc == 0 ? v : NULL;
	return rc;
}

static const struct node *find(const struct view *v, uint64_t groups, MDB_dbi dbi, struct csm_bin key)
{
	const struct node *node;

	if (v == NULL)
		return NULL;
	node = atomic_load_explicit(&v->buckets[bucket_of(v, dbi, key)], memory_order_acquire);
	while (node != NULL && (node->group_no > groups || node->dbi != dbi || node->key.n != key.n ||
		memcmp(node->key.p, key.p, key.n) != 0))
		node = node->next;
	return node;
}

bool view_find(const struct view *v, uint64_t groups, MDB_dbi dbi, struct csm_bin key, struct change_row *ret)
{
	const struct node *node = find(v, groups, dbi, key);

	if (node == NULL)
		return false;
	*ret = (struct change_row){dbi, node->del, node->key, node->value};
	return true;
}

bool view_newest(const struct view *v, uint64_t groups, struct csm_bin prefix, struct change_row *ret)
{
	const struct node *node = find(v, groups, NEWEST, prefix);

	if (node == NULL)
		return false;
	*ret = (struct change_row){node->row->dbi, false, node->row->key, node->row->value};
	return true;
}

/* ---- secrets of LMDB and of a view, in the order of their keys ---- */

static int bin_cmp(struct csm_bin a, struct csm_bin b)
{
	int c = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);

	return c != 0 ? c : (a.n > b.n) - (a.n < b.n);
}

static int by_key(const void *a, const void *b)
{
	return bin_cmp(((const struct change_row *)a)->key, ((const struct change_row *)b)->key);
}

/* Those whose keys begin with prefix and do not come before start; to NULL: how many. */
static size_t collect(const struct view *v, uint64_t groups, struct csm_bin prefix, struct csm_bin start, struct change_row *to)
{
	size_t n = 0;

	for (const struct node *node = atomic_load_explicit(&v->secrets, memory_order_acquire); node != NULL; node = node->secrets) {
		const struct node *row = node->row;

		if (node->group_no > groups || row->key.n < prefix.n || memcmp(row->key.p, prefix.p, prefix.n) != 0 ||
			bin_cmp(row->key, start) < 0)
			continue;
		if (to != NULL)
			to[n] = (struct change_row){row->dbi, false, row->key, row->value};
		n++;
	}
	return n;
}

int merge_begin(struct merge *m, const struct view *v, uint64_t groups, MDB_cursor *cur, const struct dbkey *prefix,
	const struct dbkey *start)
{
	size_t n = v == NULL ? 0 : collect(v, groups, dbkey_bin(prefix), dbkey_bin(start), NULL);

	*m = (struct merge){.cur = cur, .prefix = prefix, .n = n, .k = dbkey_val(start)};
	if (n > 0) {
		m->rows = calloc(n, sizeof(*m->rows));
		if (m->rows == NULL)
			return CSM_ENOMEM;
		(void)collect(v, groups, dbkey_bin(prefix), dbkey_bin(start), m->rows);
		qsort(m->rows, n, sizeof(*m->rows), by_key);
	}
	m->rc = mdb_cursor_get(cur, &m->k, &m->v, MDB_SET_RANGE);
	return 0;
}

void merge_end(struct merge *m)
{
	free(m->rows);
	m->rows = NULL;
}

bool merge_next(struct merge *m, struct csm_bin *key, struct csm_bin *value)
{
	const struct dbkey *prefix = m->prefix;
	int c;

	if (m->rc == 0 && (m->k.mv_size < prefix->n || memcmp(m->k.mv_data, prefix->p, prefix->n) != 0))
		m->rc = MDB_NOTFOUND;
	if (m->at == m->n)
		c = -1;
	else
		c = m->rc != 0 ? 1 : bin_cmp(val_bin(&m->k), m->rows[m->at].key);
	if (c < 0 && m->rc != 0)
		return false;
	if (c < 0) {
		*key = val_bin(&m->k);
		*value = val_bin(&m->v);
	} else {
		*key = m->rows[m->at].key;
		*value = m->rows[m->at++].value;
	}
	/* The same row in both is one. */
	if (c <= 0)
		m->rc = mdb_cursor_get(m->cur, &m->k, &m->v, MDB_NEXT);
	return true;
}
