/* Requests that come again: their outcome, under caller and Idempotency-Key, for a day. */
#include <string.h>
#include "daemon/central/db_int.h"
#include "proto-spec/limits.h"

#define PRUNE_S 600u
#define PRUNE_MAX 256u

static void replay_key(const struct db_asked *in, struct dbk *k)
{
	uint8_t hash[32];

	db_sha256(hash, in->caller, in->idempotency);
	dbk_start(k, DB_T_REPLAY);
	dbk_raw(k, hash, sizeof(hash));
}

static bool replay_old(const struct rec_replay *was, uint64_t now)
{
	return was->at + CSM_REQUEST_ID_TTL_S <= now;
}

/* 0 with *row: there is an answer, of the same request. CSM_ENOT_FOUND: none, or (*row then) one that is too old. */
static int replay_find(struct central_db *db, struct csm_engine_txn *t, const struct db_asked *in, uint64_t now,
	struct rec_replay *was, struct csm_bin *row)
{
	struct dbk k;
	int r;

	*row = (struct csm_bin){NULL, 0};
	if (in->idempotency.n == 0)
		return CSM_ENOT_FOUND;
	replay_key(in, &k);
	r = db_row(db, t, &k, &rec_replay, NULL, was, row);
	if (r != 0)
		return r;
	if (replay_old(was, now))
		return CSM_ENOT_FOUND;
	if (was->request_hash.n != in->request_hash.n || memcmp(was->request_hash.p, in->request_hash.p, in->request_hash.n) != 0)
		return CSM_ECONFLICT;
	return 0;
}

static void plan_outcome(struct plan *p, const struct db_asked *in, uint64_t now, struct csm_bin outcome, struct csm_bin old_row,
	const struct rec_replay *old)
{
	const struct rec_replay row = {.request_hash = in->request_hash, .serial = outcome, .at = now};
	struct dbk k, age;

	replay_key(in, &k);
	dbk_start(&age, DB_T_REPLAY_AGE);
	if (old_row.p != NULL) {
		plan_same(p, &k, old_row);
		dbk_u64(&age, old->at);
		dbk_raw(&age, k.p + 1, 32);
		plan_del(p, &age);
	} else {
		plan_absent(p, &k);
	}
	plan_put(p, &k, &rec_replay, &row);
	dbk_start(&age, DB_T_REPLAY_AGE);
	dbk_u64(&age, now);
	dbk_raw(&age, k.p + 1, 32);
	plan_mark(p, &age);
}

int plan_replay(struct plan *p, struct csm_engine_txn *t, const struct db_asked *in, uint64_t now, struct csm_bin outcome,
	struct csm_buf *before)
{
	struct rec_replay was = {0};
	struct csm_bin row;
	int r;

	if (in->idempotency.n == 0)
		return 0;
	r = in->request_hash.n != 32 ? CSM_EINVALID : replay_find(p->db, t, in, now, &was, &row);
	if (r == 0 && before != NULL && (r = csm_buf_put(before, was.serial.p, was.serial.n)) != 0)
		return r;
	if (r == 0 || r == CSM_ECONFLICT)
		return r == 0 ? PLAN_AGAIN : PLAN_OTHER;
	if (r != CSM_ENOT_FOUND)
		return r;
	plan_outcome(p, in, now, outcome, row, &was);
	return p->r;
}

int plan_asked(struct plan *p, struct csm_engine_txn *t, const struct db_asked *in, uint64_t now, struct csm_bin outcome,
	struct csm_buf *before)
{
	int r = in == NULL ? 0 : plan_replay(p, t, in, now, outcome, before);

	return in == NULL || r != 0 ? r : plan_valid(p, t, in->spare);
}

int db_asked_result(struct central_db *db, const struct db_asked *in, uint64_t now, int r, bool *replayed)
{
	if (r == PLAN_OTHER)
		return CSM_ECONFLICT;
	if (r != 0 && r != PLAN_AGAIN)
		return r;
	*replayed = r == PLAN_AGAIN;
	if (r == 0 && in != NULL && in->idempotency.n > 0)
		db_prune(db, now);
	return 0;
}

struct outcome {
	const struct db_asked *asked;
	uint64_t now;
	struct csm_bin what;
};

static int outcome_once(struct plan *p, struct csm_engine_txn *t, const void *arg)
{
	const struct outcome *o = arg;

	return plan_asked(p, t, o->asked, o->now, o->what, NULL);
}

int db_asked_put(struct central_db *db, const struct db_asked *in, struct csm_bin outcome, uint64_t now)
{
	const struct outcome o = {in, now, outcome};
	bool replayed = false;

	if (in->idempotency.n == 0)
		return 0;
	return db_asked_result(db, in, now, plan_rounds(db, PLAN_ASKED_CONDS, PLAN_ASKED_CHANGES, false, outcome_once, &o), &replayed);
}

/* Answers that nobody is owed any more. What does not work now works another time. */
static int prune_once(struct central_db *db, struct csm_engine_txn *t, uint64_t now, struct plan *p)
{
	struct csm_engine_row at;
	struct rec_replay was;
	struct csm_bin row;
	struct dbk k, age;
	int r;

	dbk_start(&age, DB_T_REPLAY_AGE);
	for (size_t i = 0; i < PRUNE_MAX; i++) {
		r = db->ops->next(t, dbk_bin(&age), false, &at);
		if (r != 0 || at.key.n != 1 + 8 + 32 || at.key.p[0] != DB_T_REPLAY_AGE)
			break;
		age.n = 0;
		dbk_raw(&age, at.key.p, at.key.n);
		dbk_start(&k, DB_T_REPLAY);
		dbk_raw(&k, at.key.p + 9, 32);
		r = db_row(db, t, &k, &rec_replay, NULL, &was, &row);
		if (r == 0 && !replay_old(&was, now))
			break;
		if (r == 0) {
			plan_same(p, &k, row);
			plan_del(p, &k);
		}
		plan_del(p, &age);
	}
	return p->n_changes == 0 ? 0 : plan_write(p);
}

void db_prune(struct central_db *db, uint64_t now)
{
	unsigned long last = atomic_load(&db->pruned);
	struct csm_engine_txn *t;
	struct plan p;

	if (now < last + PRUNE_S || !atomic_compare_exchange_strong(&db->pruned, &last, now) || db->ops->begin(db->engine, &t) != 0)
		return;
	plan_init(&p, db, PRUNE_MAX, 2 * PRUNE_MAX);
	p.urgent = true;
	if (prune_once(db, t, now, &p) != 0)
		atomic_store(&db->pruned, last);
	plan_free(&p);
	db->ops->end(t);
}

int db_replay(struct central_db *db, const struct db_asked *in, uint64_t now, struct csm_buf *outcome)
{
	struct rec_replay was;
	struct csm_engine_txn *t;
	struct csm_bin row;
	int r = db->ops->begin(db->engine, &t);

	if (r != 0)
		return r;
	r = in->idempotency.n > 0 && in->request_hash.n != 32 ? CSM_EINVALID : replay_find(db, t, in, now, &was, &row);
	if (r == 0)
		r = csm_buf_put(outcome, was.serial.p, was.serial.n);
	db->ops->end(t);
	return r;
}
