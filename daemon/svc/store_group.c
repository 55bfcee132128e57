/* A group of operations and how it becomes durable. LMDB's transaction stays open over groups: each adds its changes to it, and to the
 * journal, whose sync makes them durable; LMDB commits when the writer says (store_checkpoint), or with a group that is not of the
 * kind that readers can see in the journal. What the group knows is read from the transaction at its start and thrown away at its
 * end. A group that fails takes the transaction with it; the next one begins with what the journal has. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/svc/log.h"
#include "daemon/svc/store_internal.h"

#define STUCK_RETRY_NS 1000000000u
#define STUCK_MUCH (1024u * 1024u)

/* ---- scopes of a group ---- */

static int scope_load(struct group *g, const struct dbkey *key, struct wscope *ws)
{
	struct prk set;
	struct csm_bin v;
	int r;

	ws->key = *key;
	r = store_get(g->txn, g->s->scopes, dbkey_bin(key), &v);
	if (r != 0)
		return r == CSM_ENOT_FOUND ? 0 : r;
	if ((r = store_scope_open(&g->s->aead, &g->s->sub->scope, dbkey_bin(key), v, &ws->sc)) != 0)
		return r;
	prk_init(&set, g->root.set_key);
	r = sum_element(&set, REC_SCOPE, dbkey_bin(key), v, ws->element);
	sodium_memzero(&set, sizeof(set));
	prk_init(&ws->kek, ws->sc.kek[0].key);
	prk_init(&ws->set, ws->sc.set_key);
	ws->in_db = ws->present = true;
	return r;
}

int store_group_scope(struct group *g, const struct dbkey *key, struct wscope **ret)
{
	struct wscope *ws = NULL;
	int r;

	for (size_t i = 0; i < g->n_scopes && ws == NULL; i++) {
		if (g->scopes[i]->key.n == key->n && memcmp(g->scopes[i]->key.p, key->p, key->n) == 0)
			ws = g->scopes[i];
	}
	if (ws == NULL) {
		if (g->n_scopes == GROUP_OPS)
			return CSM_EINTERNAL;
		ws = csm_lock_alloc(sizeof(*ws));
		if (ws == NULL)
			return CSM_ENOMEM;
		memset(ws, 0, sizeof(*ws));
		if ((r = scope_load(g, key, ws)) != 0) {
			csm_lock_free(ws);
			return r;
		}
		g->scopes[g->n_scopes++] = ws;
	}
	if (g->touched != ws)
		*g->before = *ws;
	g->touched = ws;
	*ret = ws;
	return 0;
}

static int scope_flush(struct group *g, const struct prk *set, struct wscope *ws)
{
	uint8_t value[SCOPE_VALUE_MAX], e[SUM_LEN];
	size_t n;
	int r;

	if (ws->in_db) {
		sum_sub(g->root.sum, ws->element);
		g->root.scopes--;
	}
	if (!ws->present)
		return ws->in_db ? store_del(g->s, g->txn, g->s->scopes, dbkey_bin(&ws->key)) : 0;
	if ((r = store_scope_seal(&g->s->aead, &g->s->sub->scope, dbkey_bin(&ws->key), &ws->sc, value, &n)) != 0 ||
		(r = sum_element(set, REC_SCOPE, dbkey_bin(&ws->key), (struct csm_bin){value, n}, e)) != 0)
		return r;
	sum_add(g->root.sum, e);
	g->root.scopes++;
	return store_put(g->s, g->txn, g->s->scopes, dbkey_bin(&ws->key), (struct csm_bin){value, n});
}

static int scopes_flush(struct group *g)
{
	struct prk set;
	int r = 0;

	prk_init(&set, g->root.set_key);
	for (size_t i = 0; i < g->n_scopes && r == 0; i++) {
		if (g->scopes[i]->dirty)
			r = scope_flush(g, &set, g->scopes[i]);
	}
	sodium_memzero(&set, sizeof(set));
	return r;
}

/* ---- the transaction ---- */

/* Free pages are counted only near the end: the list of them may be long. */
static int room_left(struct csm_store *s)
{
	MDB_envinfo info;
	uint64_t used;
	MDB_stat st;
	int rc, r;

	if ((rc = mdb_env_info(s->env, &info)) != 0 || (rc = mdb_env_stat(s->env, &st)) != 0)
		return store_err(rc);
	used = (uint64_t)(info.me_last_pgno + 1) * st.ms_psize;
	if (used + MAP_RESERVE > s->map_size && (r = store_used(s, &used)) != 0)
		return r;
	s->room = used < s->map_size ? s->map_size - used : 0;
	return 0;
}

static void txn_abort(struct csm_store *s)
{
	if (s->txn != NULL)
		mdb_txn_abort(s->txn);
	s->txn = NULL;
}

static int txn_open(struct csm_store *s)
{
	int r;

	if (s->txn != NULL)
		return 0;
	if (s->journal.dead)
		return CSM_EUNAVAILABLE;
	s->changes.on = false;
	if ((r = store_err(mdb_txn_begin(s->env, NULL, 0, &s->txn))) != 0) {
		s->txn = NULL;
		return r;
	}
	if ((s->journal.entries > 0 && (r = journal_reapply(s, s->txn)) != 0) || (r = room_left(s)) != 0)
		txn_abort(s);
	return r;
}

static void now_stuck(struct csm_store *s, int r)
{
	if (s->stuck == 0)
		log_err("the store cannot take what its journal has: %s", csm_err_name(r));
	s->stuck = r;
	s->stuck_at = store_monotonic_ns();
}

/* What the journal has goes along; as long as LMDB cannot commit that, nothing is taken any more. */
static int txn_commit(struct csm_store *s)
{
	int r = store_lines_flush(s);

	if (r != 0)
		mdb_txn_abort(s->txn);
	else
		r = store_commit_err(s, mdb_txn_commit(s->txn));
	s->txn = NULL;
	if (r != 0 && s->journal.entries > 0)
		now_stuck(s, r);
	if (r != 0)
		return r;
	if (s->stuck != 0)
		log_info("the store has taken what its journal has");
	s->stuck = 0;
	csm_journal_restart(&s->journal, NULL);
	store_lines_free(s);
	view_drop(s);
	return 0;
}

int store_checkpoint(struct csm_store *s)
{
	int r;

	if (s->journal.entries == 0) {
		txn_abort(s);
		return 0;
	}
	/* Where it has much, reading all of it again is work. */
	if (s->stuck != 0 && s->journal.used > STUCK_MUCH && store_monotonic_ns() - s->stuck_at < STUCK_RETRY_NS)
		return s->stuck;
	if ((r = txn_open(s)) == 0)
		return txn_commit(s);
	now_stuck(s, r);
	return r;
}

/* ---- a group ---- */

void store_group_free(struct group *g)
{
	if (g == NULL)
		return;
	if (!g->durable)
		store_lines_undo(g);
	if (!g->durable && (g->s->changes.n > 0 || g->s->journal.entries == 0))
		txn_abort(g->s);
	g->s->changes.on = false;
	for (size_t i = 0; i < g->n_scopes; i++)
		csm_lock_free(g->scopes[i]);
	csm_buf_free(&g->lines);
	csm_lock_free(g->before);
	csm_lock_free(g);
}

int store_group_begin(struct csm_store *s, struct group **ret)
{
	struct group *g = csm_lock_alloc(sizeof(*g));
	int r = CSM_ENOMEM;

	if (g == NULL)
		return r;
	memset(g, 0, sizeof(*g));
	g->s = s;
	g->now = (uint64_t)time(NULL);
	csm_buf_init(&g->lines, LINES_MAX, false);
	g->before = csm_lock_alloc(sizeof(*g->before));
	if (g->before != NULL)
		r = txn_open(s);
	if (r != 0) {
		csm_lock_free(g->before);
		csm_lock_free(g);
		return r;
	}
	changes_begin(s);
	g->txn = s->txn;
	g->room = s->room;
	*ret = g;
	return 0;
}

/* In the journal if it may be there; else by LMDB's commit, with all that was before. */
static int make_durable(struct group *g)
{
	struct csm_store *s = g->s;
	int r;

	if (g->journal && journal_takes(s) && view_prepare(s) == 0 && journal_append(s, g->root.generation) == 0) {
		if (s->journal.entries == 1)
			s->journal_since = store_monotonic_ns();
		view_publish(s);
		s->room = g->room;
		return 0;
	}
	r = txn_commit(s);
	if (r != 0)
		journal_undo(s);
	return r;
}

int store_group_commit(struct group *g)
{
	int r = store_root_write(g->s, g->txn, &g->s->aead, &g->root);

	if (r == 0)
		r = make_durable(g);
	g->durable = r == 0;
	store_told(g, r);
	return r;
}

/* What an operation may have changed in memory. */
struct saved {
	struct root *root;
	bool deleted, keks_gone;
	size_t room;
	struct changes_mark mark;
};

static void op_save(struct group *g, struct saved *was)
{
	memcpy(was->root, &g->root, sizeof(g->root));
	was->deleted = g->deleted;
	was->keks_gone = g->keks_gone;
	was->room = g->room;
	was->mark = changes_mark(g->s);
	g->touched = NULL;
}

static void op_restore(struct group *g, const struct saved *was)
{
	memcpy(&g->root, was->root, sizeof(g->root));
	if (g->touched != NULL)
		*g->touched = *g->before;
	g->deleted = was->deleted;
	g->keks_gone = was->keks_gone;
	g->room = was->room;
	changes_undo(g->s, was->mark);
}

/* One operation in a transaction of its own. */
static int op_nested(struct group *g, struct csm_store_op *op)
{
	CSM_WIPED(mem, sizeof(struct root));
	struct saved was = {.root = (struct root *)mem};
	MDB_txn *parent = g->txn;
	int rc, r;

	op_save(g, &was);
	if ((rc = mdb_txn_begin(g->s->env, parent, 0, &g->txn)) != 0) {
		g->txn = parent;
		return store_err(rc);
	}
	r = store_op_apply(g, op);
	if (r == 0 && !op->replayed)
		r = store_commit_err(g->s, mdb_txn_commit(g->txn));
	else
		mdb_txn_abort(g->txn);
	g->txn = parent;
	if (r != 0)
		op_restore(g, &was);
	return r;
}

/* Most operations that are refused are refused before they have changed a row: that costs no transaction of their own. *again: this
 * one has, and the group begins anew. */
static int op_straight(struct group *g, struct csm_store_op *op, bool *again)
{
	CSM_WIPED(mem, sizeof(struct root));
	struct saved was = {.root = (struct root *)mem};
	int r;

	op_save(g, &was);
	r = store_op_apply(g, op);
	if (r == 0)
		return 0;
	*again = g->s->changes.n != was.mark.n;
	if (!*again)
		op_restore(g, &was);
	return r;
}

bool store_epoch_due(const struct csm_store *s, bool deleted)
{
	return (s->epoch_wanted || deleted) && !s->counter_behind &&
		store_monotonic() - s->epoch_raised >= s->epoch_interval_s;
}

void store_group_done(struct group *g, size_t effects, bool raised)
{
	struct csm_store *s = g->s;

	s->epoch = g->root.epoch;
	s->epoch_wanted = !raised && (s->epoch_wanted || g->deleted);
	if (raised)
		s->epoch_raised = store_monotonic();
	if (g->keks_gone)
		atomic_fetch_add_explicit(&s->kek_generation, 1, memory_order_release);
	store_totals(s, &g->root);
	pthread_mutex_lock(&s->mu);
	s->stat.commits++;
	s->stat.commit_ops += effects;
	pthread_mutex_unlock(&s->mu);
}

static int ops_apply(struct group *g, struct csm_store_op *const *ops, size_t n, bool nested, size_t *effects, bool *again)
{
	int r;

	if ((r = store_root_read(g->s, g->txn, &g->s->aead, &g->root)) != 0)
		return r;
	if (g->journal && g->s->journal.entries == 0 && (r = journal_base(g->s, g->txn)) != 0)
		return r;
	for (size_t i = 0; i < n && !*again; i++) {
		ops[i]->r = nested ? op_nested(g, ops[i]) : op_straight(g, ops[i], again);
		if (ops[i]->r == 0 && !ops[i]->replayed)
			++*effects;
	}
	return 0;
}

static int group_end(struct group *g, struct csm_store_op *const *ops, size_t n, size_t effects, bool raise)
{
	struct csm_store *s = g->s;
	int r;

	raise = (raise && !s->counter_behind) || store_epoch_due(s, g->deleted);
	if ((r = store_tell(g, ops, n, effects > 0 || raise)) != 0 || (effects == 0 && !raise))
		return r;
	if (raise) {
		raise = store_root_epoch_next(s, &g->root);
		g->journal = false; /* the counter follows what LMDB has */
	}
	if ((r = scopes_flush(g)) != 0)
		store_told(g, r);
	else if ((r = store_group_commit(g)) == 0)
		store_group_done(g, effects, raise);
	return r;
}

static int group_try(struct csm_store *s, struct csm_store_op *const *ops, size_t n, bool raise, bool journal, bool *nested)
{
	size_t effects = 0;
	bool again = false;
	struct group *g;
	int r;

	if ((r = store_group_begin(s, &g)) != 0)
		return r;
	g->journal = journal;
	if ((r = ops_apply(g, ops, n, *nested, &effects, &again)) == 0 && !again)
		r = group_end(g, ops, n, effects, raise);
	store_group_free(g);
	*nested = again;
	return r;
}

/* May it wait in the journal? What it changes has to be what readers look for there, or what only the writer reads. */
static bool for_journal(struct csm_store *s, struct csm_store_op *const *ops, size_t n, bool raise, size_t *room)
{
	bool all = n > 0 && !raise && s->journal.fd >= 0;

	*room = 0;
	for (size_t i = 0; i < n && all; i++) {
		all = ops[i]->kind == CSM_OP_SECRET_SET || ops[i]->kind == CSM_OP_ISSUE;
		*room += ops[i]->payload.n + ROOM_PER_OP;
	}
	return all && (s->journal.entries > 0 || !store_disk_low(s));
}

int store_group_run(struct csm_store *s, struct csm_store_op *const *ops, size_t n, bool raise)
{
	bool journal, nested = false;
	size_t room;
	int r;

	for (size_t i = 0; i < n; i++)
		raise = raise || ops[i]->kind == CSM_OP_EPOCH;
	journal = for_journal(s, ops, n, raise, &room);
	/* What is in an open transaction is not counted as room that could be had again. */
	if (!journal || s->stuck != 0 || (s->journal.entries > 0 && s->room < room))
		if ((r = store_checkpoint(s)) != 0)
			return r;
	r = group_try(s, ops, n, raise, journal, &nested);
	if (nested)
		r = group_try(s, ops, n, raise, journal, &nested);
	return r;
}

/* A group that cannot be made durable is done again one by one, so that only what cannot be done is refused. */
void store_batch_run(struct csm_store *s, struct csm_store_op *const *ops, size_t n)
{
	int r = store_group_run(s, ops, n, false);

	if (r == 0)
		return;
	for (size_t i = 0; i < n; i++) {
		/* What one cannot tell, the next cannot either. */
		if (n > 1 && r != CSM_EUNAVAILABLE)
			r = store_group_run(s, &ops[i], 1, false);
		if (r != 0)
			ops[i]->r = r;
	}
}
