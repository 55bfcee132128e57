/* Certificates that are there: one, its revocation, and all that are revoked. */
#include <string.h>
#include "daemon/central/db_int.h"
#include "daemon/pki/crl.h"

#define CONDS 2u
#define CHANGES 8u
#define POOL_MAX (256u * 1024u)

/* The value of the last CN: "/O=x/CN=y" gives y. What the text escapes stays escaped. */
struct csm_str db_subject_cn(struct csm_str subject)
{
	struct csm_str cn = {NULL, 0};
	size_t i, end;

	for (i = 0; i + 4 <= subject.n; i++) {
		if (memcmp(subject.p + i, "/CN=", 4) != 0)
			continue;
		for (end = i + 4; end < subject.n && subject.p[end] != '/';)
			end += subject.p[end] == '\\' && end + 1 < subject.n ? 2 : 1;
		cn = (struct csm_str){subject.p + i + 4, end - i - 4};
		i = end - 1;
	}
	return cn;
}

struct csm_str db_san_value(struct csm_str san)
{
	const char *colon = san.n == 0 ? NULL : memchr(san.p, ':', san.n);
	size_t head = colon == NULL ? 0 : (size_t)(colon - san.p) + 1;

	return (struct csm_str){san.p + head, san.n - head};
}

int db_copy_cert(struct csm_pool *pool, struct db_cert *c)
{
	struct csm_str *const strs[] = {&c->issuer, &c->profile, &c->role, &c->requester, &c->node, &c->subject};
	struct csm_bin *const bins[] = {&c->serial, &c->spki_sha256, &c->renews, &c->der};
	int r = db_copy_strs(pool, &c->sans, c->n_sans);

	for (size_t i = 0; i < sizeof(strs) / sizeof(strs[0]) && r == 0; i++)
		r = db_copy(pool, (const void **)&strs[i]->p, strs[i]->n);
	for (size_t i = 0; i < sizeof(bins) / sizeof(bins[0]) && r == 0; i++)
		r = db_copy(pool, (const void **)&bins[i]->p, bins[i]->n);
	return r;
}

int db_cert_row(struct central_db *db, struct csm_engine_txn *t, struct csm_bin serial, struct csm_pool *pool, struct db_cert *ret,
	struct dbk *k, struct csm_bin *row)
{
	struct rec_ref ref;
	int r;

	if (!db_serial_ok(serial))
		return CSM_ENOT_FOUND;
	dbk_start(k, DB_T_SERIAL);
	dbk_serial(k, serial);
	if ((r = db_row(db, t, k, &rec_ref, NULL, &ref, NULL)) != 0)
		return r;
	dbk_start(k, DB_T_CERT);
	dbk_place(k, ref.issued, serial);
	r = db_row(db, t, k, &rec_cert, pool, ret, row);
	return r == CSM_ENOT_FOUND ? CSM_ETAMPERED : r;
}

static int cert_whole(struct central_db *db, struct csm_engine_txn *t, struct csm_bin serial, struct csm_pool *pool, struct db_cert *ret)
{
	struct rec_bytes der;
	struct db_cert c;
	struct dbk k;
	int r = db_cert_row(db, t, serial, pool, &c, &k, NULL);

	if (r != 0)
		return r;
	k.p[0] = DB_T_DER;
	r = db_row(db, t, &k, &rec_der, NULL, &der, NULL);
	if (r != 0)
		return r == CSM_ENOT_FOUND ? CSM_ETAMPERED : r;
	c.der = der.v;
	if ((r = db_copy_cert(pool, &c)) == 0)
		*ret = c;
	return r;
}

int db_cert_get(struct central_db *db, struct csm_bin serial, struct csm_pool *pool, struct db_cert *ret)
{
	struct csm_engine_txn *t;
	int r = db->ops->begin(db->engine, &t);

	if (r != 0)
		return r;
	r = cert_whole(db, t, serial, pool, ret);
	db->ops->end(t);
	return r;
}

int db_cert_by_key(struct central_db *db, struct csm_bin spki_sha256, struct csm_pool *pool, struct db_cert *ret)
{
	struct csm_engine_txn *t;
	struct csm_engine_row row;
	struct dbk k;
	int r;

	if (spki_sha256.n != 32)
		return CSM_EINVALID;
	if ((r = db->ops->begin(db->engine, &t)) != 0)
		return r;
	dbk_start(&k, DB_T_KEY);
	dbk_raw(&k, spki_sha256.p, spki_sha256.n);
	dbk_u64(&k, UINT64_MAX);
	r = db->ops->prev(t, dbk_bin(&k), &row);
	if (r == 0 && (row.key.n < 33 + 8 + 2 || memcmp(row.key.p, k.p, 33) != 0))
		r = CSM_ENOT_FOUND;
	if (r == 0)
		r = cert_whole(db, t, (struct csm_bin){row.key.p + 33 + 9, row.key.n - 33 - 9}, pool, ret);
	db->ops->end(t);
	return r;
}

int plan_valid(struct plan *p, struct csm_engine_txn *t, struct csm_bin serial)
{
	struct db_cert c;
	struct csm_bin row;
	struct dbk k;
	int r;

	if (serial.n == 0)
		return 0;
	r = db_cert_row(p->db, t, serial, &p->mem, &c, &k, &row);
	if (r != 0)
		return r == CSM_ENOT_FOUND ? CSM_EDENIED : r;
	if (c.state != DB_VALID)
		return CSM_EDENIED;
	plan_same(p, &k, row);
	return 0;
}

/* ---- revocation ---- */

static bool reason_ok(int reason)
{
	return (reason >= CSM_REASON_UNSPECIFIED && reason <= CSM_REASON_HOLD) || reason == CSM_REASON_REMOVE_FROM_CRL ||
		reason == CSM_REASON_PRIVILEGE_WITHDRAWN || reason == CSM_REASON_AA_COMPROMISE;
}

static int revoke_allowed(const struct db_cert *c, int reason)
{
	bool held = c->state == DB_REVOKED && c->reason == CSM_REASON_HOLD;

	if (reason == CSM_REASON_REMOVE_FROM_CRL)
		return held ? 0 : c->state == DB_REVOKED ? CSM_EEXISTS : CSM_ESTATE;
	if (c->state == DB_REVOKED && (!held || reason == CSM_REASON_HOLD))
		return CSM_EEXISTS;
	return 0;
}

void db_revoked_key(struct dbk *k, struct csm_str issuer, struct csm_bin serial)
{
	dbk_start(k, DB_T_REVOKED);
	dbk_u8(k, (uint8_t)issuer.n);
	dbk_raw(k, issuer.p, issuer.n);
	if (serial.n > 0)
		dbk_serial(k, serial);
}

struct revocation {
	struct csm_bin serial;
	int reason;
	uint64_t now;
	struct csm_str by;
	const struct db_asked *asked;
};

/* The row of one that was taken back stays: a delta has to tell it. */
static int revoke_once(struct plan *p, struct csm_engine_txn *t, const void *arg)
{
	const struct revocation *v = arg;
	bool back = v->reason == CSM_REASON_REMOVE_FROM_CRL;
	struct rec_revoked rev;
	struct db_cert c;
	struct csm_bin row;
	struct dbk k;
	int r = plan_asked(p, t, v->asked, v->now, v->serial, NULL);

	if (r != 0 || (r = db_cert_row(p->db, t, v->serial, &p->mem, &c, &k, &row)) != 0 || (r = revoke_allowed(&c, v->reason)) != 0)
		return r;
	if (c.issuer.n > UINT8_MAX)
		return CSM_ETAMPERED;
	rev = (struct rec_revoked){.at = v->now, .not_after = c.not_after, .reason = v->reason};
	plan_same(p, &k, row);
	c.state = back ? DB_VALID : DB_REVOKED;
	c.revoked = back ? 0 : v->now;
	c.reason = back ? 0 : v->reason;
	plan_put(p, &k, &rec_cert, &c);
	db_revoked_key(&k, c.issuer, c.serial);
	plan_put(p, &k, &rec_revoked, &rev);
	dbk_facet(&k, DB_F_REVOKED, (struct csm_str){"", 0});
	dbk_place(&k, c.issued, c.serial);
	if (back)
		plan_del(p, &k);
	else
		plan_mark(p, &k);
	plan_event_cert(p, v->now, back ? "release" : v->reason == CSM_REASON_HOLD ? "hold" : "revoke", c.serial, v->by);
	return p->r;
}

int db_revoke_asked(struct central_db *db, struct csm_bin serial, int reason, uint64_t now, struct csm_str by,
	const struct db_asked *asked, bool *replayed)
{
	const struct revocation v = {serial, reason, now, by, asked};
	int r;

	if (!reason_ok(reason))
		return CSM_EINVALID;
	r = plan_rounds(db, CONDS + PLAN_ASKED_CONDS, CHANGES + PLAN_ASKED_CHANGES, true, revoke_once, &v);
	if (r == 0)
		atomic_fetch_add(&db->revocations, 1);
	return db_asked_result(db, asked, now, r, replayed);
}

int db_revoke(struct central_db *db, struct csm_bin serial, int reason, uint64_t now, struct csm_str by)
{
	bool replayed = false;

	return db_revoke_asked(db, serial, reason, now, by, NULL, &replayed);
}

uint64_t db_revocations(struct central_db *db)
{
	return atomic_load(&db->revocations);
}

/* ---- what lists are made of ---- */

int db_revoked_each(struct central_db *db, struct csm_str issuer, uint64_t since, uint64_t now, db_revoked_fn *fn, void *arg)
{
	struct csm_engine_row row;
	struct csm_engine_txn *t;
	struct rec_revoked rev;
	struct dbk k;
	bool on = true;
	size_t head;
	int r;

	if (issuer.n > UINT8_MAX)
		return CSM_EINVALID;
	if ((r = db->ops->begin(db->engine, &t)) != 0)
		return r;
	db_revoked_key(&k, issuer, (struct csm_bin){NULL, 0});
	head = k.n;
	for (r = db->ops->next(t, dbk_bin(&k), true, &row); r == 0 && on; r = db->ops->next(t, row.key, false, &row)) {
		if (row.key.n < head + 2 || memcmp(row.key.p, k.p, head) != 0)
			break;
		if ((r = rec_get(db->key, &rec_revoked, row.key, row.value, NULL, &rev)) != 0)
			break;
		if (rev.not_after < now || rev.at < since || (since == 0 && rev.reason == CSM_REASON_REMOVE_FROM_CRL))
			continue;
		on = fn(arg, &(struct db_revoked){.serial = {row.key.p + head + 1, row.key.n - head - 1}, .at = rev.at, .reason = rev.reason});
	}
	db->ops->end(t);
	return r == CSM_ENOT_FOUND ? 0 : r;
}
