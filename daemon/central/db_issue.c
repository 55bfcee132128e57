/* A certificate becomes one: everything that makes the answer true, in one batch. What is read decides, and the batch holds only if
 * that still stands; where somebody else was first, it is decided anew. */
#include <string.h>
#include "daemon/central/db_int.h"

#define NAMES_MAX 64u /* that are searched for by an index */
#define CONDS 8u
#define CHANGES (18u + NAMES_MAX)

/* ---- what has to stand ---- */

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

static struct db_asked asked_of(const struct db_issue *in)
{
	return (struct db_asked){.idempotency = in->idempotency, .caller = in->caller, .request_hash = in->request_hash};
}

static int issue_once(struct plan *p, struct csm_engine_txn *t, const void *arg)
{
	const struct db_issuing *one = arg;
	const struct db_issue *in = &one->in;
	const struct db_payment by = {.token = in->token, .spare = in->spare, .now = in->now};
	const struct db_asked asked = asked_of(in);
	struct rec_ref ref;
	struct dbk k;
	int r = plan_replay(p, t, &asked, in->now, in->cert->serial, one->serial);

	if (r != 0)
		return r;
	dbk_start(&k, DB_T_SERIAL);
	dbk_serial(&k, in->cert->serial);
	if ((r = db_row(p->db, t, &k, &rec_ref, NULL, &ref, NULL)) != CSM_ENOT_FOUND)
		return r == 0 ? CSM_EEXISTS : r;
	if ((r = plan_payment(p, t, &by, in->request != NULL)) != 0 ||
		(in->request != NULL && (r = plan_request_issued(p, t, in->request, in->cert, in->now)) != 0) ||
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

void db_issue_together(struct central_db *db, struct db_issuing *v, size_t n)
{
	const struct plan_work w = {db, CONDS, CHANGES, false, issue_once};
	struct db_issuing *of[DB_TOGETHER_MAX];
	const void *args[DB_TOGETHER_MAX];
	int results[DB_TOGETHER_MAX];
	size_t m = 0;

	for (size_t i = 0; i < n; i++) {
		v[i].replayed = false;
		v[i].r = m == DB_TOGETHER_MAX ? CSM_EINTERNAL : issue_check(&v[i].in);
		if (v[i].r == 0) {
			of[m] = &v[i];
			args[m++] = &v[i];
		}
	}
	if (m > 0)
		plan_rounds_together(&w, args, results, m);
	for (size_t i = 0; i < m; i++) {
		const struct db_asked asked = asked_of(&of[i]->in);

		of[i]->r = db_asked_result(db, &asked, of[i]->in.now, results[i], &of[i]->replayed);
	}
}

int db_issue(struct central_db *db, const struct db_issue *in, bool *replayed, struct csm_buf *serial)
{
	struct db_issuing one = {.in = *in, .serial = serial};

	db_issue_together(db, &one, 1);
	if (one.r == 0)
		*replayed = one.replayed;
	return one.r;
}
