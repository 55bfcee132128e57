#include <bsd/sys/tree.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/svc/bytes.h"
#include "daemon/svc/engine_rows.h"

#define CHUNK 65536u

struct version {
	struct version *older, *before; /* of this key; in this group */
	struct node *node;
	uint64_t group;
	bool del;
	struct csm_bin value;
};
struct node {
	RB_ENTRY(node) tree;
	struct version *newest; /* NULL: only a group that has not come to pass had it */
	uint64_t front;         /* of the key, as a number: most are told apart by it */
	struct csm_bin key;
};
struct chunk {
	struct chunk *next;
	size_t n, cap;
	_Alignas(16) uint8_t p[];
};
RB_HEAD(tree, node);
struct engine_rows {
	atomic_size_t refs;
	pthread_rwlock_t lock; /* of the tree and of what its nodes point to */
	struct tree tree;
	struct version *last; /* of the last group; that group's others are behind it */
	struct chunk *chunks;
	size_t memory;
};

int engine_bin_cmp(struct csm_bin a, struct csm_bin b)
{
	int c = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);

	return c != 0 ? c : (a.n > b.n) - (a.n < b.n);
}

/* The bytes behind the first, which names a table. */
static struct node look_for(struct csm_bin key)
{
	uint8_t p[9] = {0};

	memcpy(p, key.p, key.n < sizeof(p) ? key.n : sizeof(p));
	return (struct node){.key = key, .front = get64(p + 1)};
}

static int by_key(const struct node *a, const struct node *b)
{
	if (a->key.p[0] == b->key.p[0] && a->front != b->front)
		return a->front < b->front ? -1 : 1;
	return engine_bin_cmp(a->key, b->key);
}

RB_GENERATE_INTERNAL(tree, node, tree, by_key, __attribute__((unused)) static)

struct engine_rows *engine_rows_new(void)
{
	struct engine_rows *rows = calloc(1, sizeof(*rows));
	pthread_rwlockattr_t attr;

	if (rows == NULL)
		return NULL;
	atomic_init(&rows->refs, 1);
	RB_INIT(&rows->tree);
	pthread_rwlockattr_init(&attr);
	/* Else many readers keep the one who adds out. */
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&rows->lock, &attr);
	pthread_rwlockattr_destroy(&attr);
	return rows;
}

struct engine_rows *engine_rows_ref(struct engine_rows *rows)
{
	atomic_fetch_add_explicit(&rows->refs, 1, memory_order_relaxed);
	return rows;
}

void engine_rows_unref(struct engine_rows *rows)
{
	if (rows == NULL || atomic_fetch_sub_explicit(&rows->refs, 1, memory_order_acq_rel) != 1)
		return;
	while (rows->chunks != NULL) {
		struct chunk *c = rows->chunks;

		rows->chunks = c->next;
		free(c);
	}
	pthread_rwlock_destroy(&rows->lock);
	free(rows);
}

size_t engine_rows_memory(const struct engine_rows *rows)
{
	return rows->memory;
}

/* ---- adding ---- */

static void *take(struct engine_rows *rows, size_t n)
{
	struct chunk *c = rows->chunks;
	void *p;

	n = (n + 15) & ~(size_t)15;
	if (c == NULL || c->cap - c->n < n) {
		size_t cap = n > CHUNK ? n : CHUNK;

		c = malloc(sizeof(*c) + cap);
		if (c == NULL)
			return NULL;
		*c = (struct chunk){.next = rows->chunks, .cap = cap};
		rows->chunks = c;
		rows->memory += cap;
	}
	p = c->p + c->n;
	c->n += n;
	return p;
}

static struct csm_bin copy(uint8_t *to, struct csm_bin from)
{
	if (from.n > 0)
		memcpy(to, from.p, from.n);
	return (struct csm_bin){to, from.n};
}

int engine_rows_add(struct engine_rows *rows, uint64_t group, const struct csm_engine_change *c)
{
	size_t value = c->del ? 0 : c->value.n;
	struct node *node, *known;
	struct version *v = take(rows, sizeof(*v) + sizeof(*node) + c->key.n + value);
	uint8_t *p;

	if (v == NULL)
		return CSM_ENOMEM;
	/* The node is for nothing where the key has one: fewer keys have than have not. */
	node = (struct node *)(v + 1);
	p = (uint8_t *)(node + 1);
	*node = look_for(copy(p, c->key));
	*v = (struct version){.group = group, .del = c->del, .value = copy(p + c->key.n, (struct csm_bin){c->value.p, value})};
	v->before = rows->last != NULL && rows->last->group == group ? rows->last : NULL;
	rows->last = v;
	pthread_rwlock_wrlock(&rows->lock);
	if ((known = RB_INSERT(tree, &rows->tree, node)) != NULL)
		node = known;
	v->node = node;
	v->older = node->newest;
	node->newest = v;
	pthread_rwlock_unlock(&rows->lock);
	return 0;
}

void engine_rows_undo(struct engine_rows *rows, uint64_t group)
{
	pthread_rwlock_wrlock(&rows->lock);
	for (; rows->last != NULL && rows->last->group == group; rows->last = rows->last->before)
		rows->last->node->newest = rows->last->older;
	pthread_rwlock_unlock(&rows->lock);
}

/* ---- reading ---- */

static bool version_of(const struct node *node, uint64_t seen, struct engine_found *ret)
{
	const struct version *v = node->newest;

	while (v != NULL && v->group > seen)
		v = v->older;
	if (v == NULL)
		return false;
	*ret = (struct engine_found){v->del, node->key, v->value};
	return true;
}

bool engine_rows_find(struct engine_rows *rows, uint64_t seen, struct csm_bin key, struct engine_found *ret)
{
	struct node looked = look_for(key), *node;
	bool found;

	pthread_rwlock_rdlock(&rows->lock);
	node = RB_FIND(tree, &rows->tree, &looked);
	found = node != NULL && version_of(node, seen, ret);
	pthread_rwlock_unlock(&rows->lock);
	return found;
}

bool engine_rows_next(struct engine_rows *rows, uint64_t seen, struct csm_bin key, bool at, struct engine_found *ret)
{
	struct node looked = look_for(key), *node;

	pthread_rwlock_rdlock(&rows->lock);
	node = RB_NFIND(tree, &rows->tree, &looked);
	if (node != NULL && !at && engine_bin_cmp(node->key, key) == 0)
		node = RB_NEXT(tree, &rows->tree, node);
	while (node != NULL && !version_of(node, seen, ret))
		node = RB_NEXT(tree, &rows->tree, node);
	pthread_rwlock_unlock(&rows->lock);
	return node != NULL;
}

bool engine_rows_prev(struct engine_rows *rows, uint64_t seen, struct csm_bin key, struct engine_found *ret)
{
	struct node looked = look_for(key), *node;

	pthread_rwlock_rdlock(&rows->lock);
	node = RB_NFIND(tree, &rows->tree, &looked);
	node = node != NULL ? RB_PREV(tree, &rows->tree, node) : RB_MAX(tree, &rows->tree);
	while (node != NULL && !version_of(node, seen, ret))
		node = RB_PREV(tree, &rows->tree, node);
	pthread_rwlock_unlock(&rows->lock);
	return node != NULL;
}

int engine_rows_each(struct engine_rows *rows, int (*one)(void *arg, const struct engine_found *row), void *arg)
{
	struct engine_found row;
	struct node *node;
	int r = 0;

	RB_FOREACH(node, tree, &rows->tree)
		if (version_of(node, UINT64_MAX, &row) && (r = one(arg, &row)) != 0)
			break;
	return r;
}
