/* The store and the audit log: changes are told before they are committed, each commit names the log's last line, and
 * the log's checkpoints are signed by a key that comes from the root key. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/svc/log.h"
#include "daemon/svc/store_internal.h"
#include "daemon/svc/thread.h"

#define SIGN_STACK 8192u /* more than a signature leaves behind */

struct signing {
	const struct csm_store *s;
	uint8_t *public;    /* gets the key; NULL: not wanted */
	const uint8_t *p;   /* what is to be signed; NULL: nothing */
	size_t n;
	uint8_t *signature;
	int r;
};

/* Ed25519; the secret key is made from its seed each time, which is seldom. */
static void sign_sheltered(void *arg)
{
	CSM_WIPED(secret, crypto_sign_SECRETKEYBYTES);
	struct signing *w = arg;
	uint8_t public[crypto_sign_PUBLICKEYBYTES];

	w->r = CSM_EINTERNAL;
	if (crypto_sign_seed_keypair(public, secret, w->s->sub->audit_seed) == 0 &&
		(w->p == NULL || crypto_sign_detached(w->signature, NULL, w->p, w->n, secret) == 0))
		w->r = 0;
	if (w->public != NULL)
		memcpy(w->public, public, sizeof(public));
	csm_wipe_stack(SIGN_STACK);
}

static int sign(void *arg, const uint8_t *p, size_t n, uint8_t signature[static CSM_CHAIN_SIGNATURE])
{
	struct signing w = {.s = arg, .p = p, .n = n, .signature = signature};
	int r = csm_thread_sheltered(sign_sheltered, &w);

	return r != 0 ? r : w.r;
}

/* ---- lines that are kept until the file is synced ---- */

/* What the file lacks after a crash. The rows are vouched for by the root record's head, to which they have to lead. */
static int restore(struct csm_store *s, struct csm_audit *a)
{
	MDB_cursor *cur = NULL;
	MDB_txn *txn;
	MDB_val k, v;
	int r, rc;

	if ((r = store_err(mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn))) != 0)
		return r;
	r = store_err(mdb_cursor_open(txn, s->log, &cur));
	for (rc = r == 0 ? mdb_cursor_get(cur, &k, &v, MDB_FIRST) : MDB_NOTFOUND; rc == 0 && r == 0;
		rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT))
		r = csm_audit_restore(a, val_bin(&v));
	if (cur != NULL)
		mdb_cursor_close(cur);
	mdb_txn_abort(txn);
	return r;
}

/* Rows whose lines are synced by now. */
static int drop_synced(struct group *g, uint64_t synced)
{
	MDB_cursor *cur;
	MDB_val k, v;
	int r = store_err(mdb_cursor_open(g->txn, g->s->log, &cur));

	if (r != 0)
		return r;
	while (r == 0 && mdb_cursor_get(cur, &k, &v, MDB_FIRST) == 0 && k.mv_size == 8 && get64(k.mv_data) <= synced)
		r = store_err(store_cursor_del(g->s, cur, &k));
	mdb_cursor_close(cur);
	return r;
}

/* In the row of a group; one that goes into the journal is in the database only if the file is not synced when LMDB commits. */
static int keep(struct group *g)
{
	struct csm_bin lines = {csm_buf_ptr(&g->lines), g->lines.len};
	struct csm_store *s = g->s;
	struct lines *l;
	uint8_t key[8];
	int r = drop_synced(g, csm_audit_synced(s->audit));

	if (r != 0 || !g->told.kept)
		return r;
	put64(key, g->told.seq);
	if (!g->journal)
		return store_put(s, g->txn, s->log, (struct csm_bin){key, 8}, lines);
	l = malloc(sizeof(*l));
	if (l == NULL)
		return CSM_ENOMEM;
	changes_add(s, s->log, (struct csm_bin){key, 8}, &lines);
	*l = (struct lines){.seq = g->told.seq, .text = g->lines};
	csm_buf_init(&g->lines, LINES_MAX, false);
	*s->lines_tail = g->kept = l;
	s->lines_tail = &l->next;
	return 0;
}

void store_lines_undo(struct group *g)
{
	struct lines **at = &g->s->lines;

	if (g->kept == NULL)
		return;
	while (*at != g->kept)
		at = &(*at)->next;
	*at = NULL; /* the last group's is the last */
	g->s->lines_tail = at;
	csm_buf_free(&g->kept->text);
	free(g->kept);
	g->kept = NULL;
}

int store_lines_flush(struct csm_store *s)
{
	uint64_t synced;
	uint8_t key[8];
	int r = 0;

	if (s->lines == NULL)
		return 0;
	csm_audit_sync(s->audit);
	synced = csm_audit_synced(s->audit);
	for (const struct lines *l = s->lines; l != NULL && r == 0; l = l->next) {
		if (l->seq <= synced)
			continue;
		put64(key, l->seq);
		r = store_put(s, s->txn, s->log, (struct csm_bin){key, 8}, (struct csm_bin){csm_buf_ptr(&l->text), l->text.len});
	}
	return r;
}

void store_lines_free(struct csm_store *s)
{
	struct lines *l;

	while ((l = s->lines) != NULL) {
		s->lines = l->next;
		csm_buf_free(&l->text);
		free(l);
	}
	s->lines_tail = &s->lines;
}

/* ---- */

int csm_store_tell(struct csm_store *s, struct csm_audit *a)
{
	struct csm_audit_signer signer = {.arg = s, .sign = sign};
	struct signing w = {.s = s, .public = signer.key};
	int r;

	if (!s->ready || s->started)
		return CSM_ESTATE;
	if ((r = csm_thread_sheltered(sign_sheltered, &w)) != 0 || (r = w.r) != 0)
		return r;
	if ((r = restore(s, a)) != 0)
		log_err("the audit log lacks lines that the store has: %s", csm_err_name(r));
	csm_audit_attach(a, s->audit_seq, s->audit_head, &signer);
	s->audit = a;
	return 0;
}

int store_tell(struct group *g, struct csm_store_op *const *ops, size_t n, bool commit_follows)
{
	struct csm_audit_event events[GROUP_OPS];
	size_t n_events = 0;
	int r;

	memset(&g->told, 0, sizeof(g->told));
	if (g->s->audit == NULL)
		return 0;
	for (size_t i = 0; i < n; i++) {
		if (ops[i]->event == NULL || ops[i]->replayed)
			continue;
		events[n_events] = *ops[i]->event;
		events[n_events++].result = ops[i]->r == 0 ? "ok" : csm_err_name(ops[i]->r);
	}
	r = csm_audit_group(g->s->audit, events, n_events, commit_follows ? &g->lines : NULL, &g->told);
	if (r != 0)
		return r;
	if (commit_follows && (r = keep(g)) != 0) {
		store_told(g, r);
		return r;
	}
	g->root.audit_seq = g->told.seq;
	memcpy(g->root.audit_head, g->told.head, sizeof(g->root.audit_head));
	return 0;
}

void store_told(struct group *g, int r)
{
	/* What back ends remember is committed without a word to the log. */
	if (g->s->audit == NULL || g->told.seq == 0)
		return;
	if (r == 0)
		csm_audit_anchored(g->s->audit, &g->told);
	else
		csm_audit_undone(g->s->audit, g->told.first, g->told.last, csm_err_name(r));
}
