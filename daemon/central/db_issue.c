/* A certificate becomes one: everything that makes the answer true, in one batch. What is read decides, and the batch holds only if
 * that still stands; where somebody else was first, it is decided anew. */
#include <string.h>
#include "daemon/central/db_int.h"
#include "proto-spec/limits.h"

#define NAMES_MAX 64u /* that are searched for by an index */
#define CONDS 8u
#define CHANGES (18u + NAMES_MAX)
#define PRUNE_S 600u
#define PRUNE_MAX 256u

static void replay_key(const struct db_issue *in, struct dbk *k)
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
static int replay_find(struct central_db *db, struct csm_engine_txn *t, const struct db_issue *in, struct rec_replay *was,
	struct csm_bin *row)
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
	if (replay_old(was, in->now))
		return CSM_ENOT_FOUND;
	if (was->request_hash.n != in->request_hash.n || memcmp(was->request_hash.p, in->request_hash.p, in->request_hash.n) != 0)
		return CSM_ECONFLICT;
	return 0;
}

/* ---- what has to stand ---- */

static void plan_replay(struct plan *p, const struct db_issue *in, struct csm_bin old_row, const struct rec_replay *old)
{
	const struct rec_replay now = {.request_hash = in->request_hash, .serial = in->cert->serial, .at = in->now};
	struct dbk k, age;

	if (in->idempotency.n == 0)
		return;
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
	plan_put(p, &k, &rec_replay, &now);
	dbk_start(&age, DB_T_REPLAY_AGE);
	dbk_u64(&age, in->now);
	dbk_raw(&age, k.p + 1, 32);
	plan_mark(p, &age);
}

static int plan_token(struct plan *p, struct csm_engine_txn *t, const struct db_payment *in, bool paid)
{
	struct db_token token;
	struct csm_bin row;
	struct dbk k;
	int r;

	if (in->token == NULL)
		return 0;
	dbk_start(&k, DB_T_TOKEN);
	dbk_raw(&k, in->token, DB_TOKEN_ID_LEN);
	r = db_row(p->db, t, &k, &rec_token, &p->mem, &token, &row);
	if (r != 0)
		return r == CSM_ENOT_FOUND ? CSM_EDENIED : r;
	if (!paid && (token.used >= token.uses || token.expires <= in->now))
		return CSM_EDENIED;
	plan_same(p, &k, row);
	if (paid)
		return 0;
	token.used++;
	plan_put(p, &k, &rec_token, &token);
	return 0;
}

int plan_payment(struct plan *p, struct csm_engine_txn *t, const struct db_payment *in, bool paid)
{
	int r = plan_token(p, t, in, paid);

	return r != 0 ? r : plan_valid(p, t, in->spare);
}

/* ---- the certificate and where it is found ---- */

static void mark_facet(struct plan *p, enum db_facet f, struct csm_str value, const struct db_cert *c)
{
	struct dbk k;

	if (value.n == 0)
		return;
	dbk_facet(&k, f, value);
	dbk_place(&k, c->issued, c->serial);
	plan_mark(p, &k);
}

static void plan_names(struct plan *p, const struct db_cert *c)
{
	size_t n = 0;

	mark_facet(p, DB_F_NAME, db_subject_cn(c->subject), c);
	for (size_t i = 0; i < c->n_sans && n < NAMES_MAX - 1; i++, n++)
		mark_facet(p, DB_F_NAME, db_san_value(c->sans[i]), c);
}

static void plan_cert(struct plan *p, const struct db_issue *in)
{
	const struct db_cert *c = in->cert;
	const struct rec_bytes der = {c->der};
	const struct rec_ref ref = {c->issued};
	struct dbk k;

	dbk_start(&k, DB_T_SERIAL);
	dbk_serial(&k, c->serial);
	plan_absent(p, &k);
	plan_put(p, &k, &rec_ref, &ref);
	dbk_start(&k, DB_T_CERT);
	dbk_place(&k, c->issued, c->serial);
	plan_put(p, &k, &rec_cert, c);
	dbk_start(&k, DB_T_DER);
	dbk_place(&k, c->issued, c->serial);
	plan_put(p, &k, &rec_der, &der);
	dbk_start(&k, DB_T_EXPIRY);
	dbk_u64(&k, c->not_after);
	dbk_place(&k, c->issued, c->serial);
	plan_mark(p, &k);
	dbk_start(&k, DB_T_KEY);
	dbk_raw(&k, c->spki_sha256.p, c->spki_sha256.n);
	dbk_place(&k, c->issued, c->serial);
	plan_mark(p, &k);
	mark_facet(p, DB_F_NODE, c->node, c);
	mark_facet(p, DB_F_REQUESTER, c->requester, c);
	plan_names(p, c);
	plan_event_cert(p, in->now, "issue", c->serial, c->requester);
}

/* ---- */

static int issue_once(struct central_db *db, struct csm_engine_txn *t, const struct db_issue *in, struct plan *p, struct csm_buf *serial)
{
	const struct db_payment by = {.token = in->token, .spare = in->spare, .now = in->now};
	struct rec_replay was = {0};
	struct rec_ref ref;
	struct csm_bin row;
	struct dbk k;
	int r = replay_find(db, t, in, &was, &row);

	if (r == 0)
		return (r = csm_buf_put(serial, was.serial.p, was.serial.n)) != 0 ? r : -1;
	if (r != CSM_ENOT_FOUND)
		return r;
	dbk_start(&k, DB_T_SERIAL);
	dbk_serial(&k, in->cert->serial);
	if ((r = db_row(db, t, &k, &rec_ref, NULL, &ref, NULL)) != CSM_ENOT_FOUND)
		return r == 0 ? CSM_EEXISTS : r;
	plan_replay(p, in, row, &was);
	if ((r = plan_payment(p, t, &by, in->request != NULL)) != 0 ||
		(in->request != NULL && (r = plan_request_issued(p, t, in->request, in->cert->serial, in->now)) != 0) ||
		(r = plan_valid(p, t, in->cert->renews)) != 0 || (r = plan_node_cert(p, t, in->cert, in->new_node, in->now)) != 0)
		return r;
	plan_cert(p, in);
	return p->r;
}

static int issue_check(const struct db_issue *in)
{
	const struct db_cert *c = in->cert;

	if (!db_serial_ok(c->serial) || c->spki_sha256.n != 32 || c->der.n == 0 || c->state != DB_VALID || c->issuer.n > UINT8_MAX)
		return CSM_EINVALID;
	if (in->spare.n > 0 && !db_serial_ok(in->spare))
		return CSM_EINVALID;
	return in->idempotency.n > 0 && in->request_hash.n != 32 ? CSM_EINVALID : 0;
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

static void prune(struct central_db *db, uint64_t now)
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

int db_issue(struct central_db *db, const struct db_issue *in, bool *replayed, struct csm_buf *serial)
{
	int r = issue_check(in);

	if (r != 0)
		return r;
	for (unsigned round = 0; round < DB_ROUNDS; round++) {
		struct csm_engine_txn *t;
		struct plan p;
		bool write;

		if ((r = db->ops->begin(db->engine, &t)) != 0)
			return r;
		plan_init(&p, db, CONDS, CHANGES);
		r = p.r != 0 ? p.r : issue_once(db, t, in, &p, serial);
		db->ops->end(t);
		write = r == 0;
		if (write)
			r = plan_write(&p);
		plan_free(&p);
		if (r == -1) {
			*replayed = true;
			return 0;
		}
		if (r == 0) {
			*replayed = false;
			if (in->idempotency.n > 0)
				prune(db, in->now);
		}
		if (!write || r != CSM_ECONFLICT)
			return r;
	}
	return CSM_EBUSY;
}

int db_replay(struct central_db *db, const struct db_issue *in, struct csm_buf *serial)
{
	struct rec_replay was;
	struct csm_engine_txn *t;
	struct csm_bin row;
	int r = db->ops->begin(db->engine, &t);

	if (r != 0)
		return r;
	r = in->idempotency.n > 0 && in->request_hash.n != 32 ? CSM_EINVALID : replay_find(db, t, in, &was, &row);
	if (r == 0)
		r = csm_buf_put(serial, was.serial.p, was.serial.n);
	db->ops->end(t);
	return r;
}
