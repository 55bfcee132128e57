/* What callers ask for: cert.enrol, cert.renew, cert.revoke. */
#include <sodium.h>
#include <string.h>
#include "daemon/node/enrol_int.h"

/* What is wanted is written down; then it is asked for. */
static int want(struct enrol *e, struct enrol_op *o, struct entry **ret)
{
	struct object *obj = &o->change.object;
	struct eprofile *p = &e->profile[o->profile];
	struct entry *en = entry_find(e, obj->ns, obj->name);
	struct erecord rec;
	bool same;
	int r;

	erecord_init(&rec);
	r = erecord_load(e, obj->ns, obj->name, o->key_id, &rec);
	if (r != 0 && r != CSM_ENOT_FOUND)
		goto out;
	same = r == 0 && csm_str_eq(rec.info.profile, p->cfg->name) && erecord_is_for(&rec.info, o->subject, &o->sans) &&
		rec.info.asked_ttl.v == o->ttl;
	rec.info.profile = csm_str_of(p->cfg->name);
	rec.info.asked_subject = o->subject;
	rec.info.asked_san = o->sans;
	rec.info.asked_ttl = (struct csm_u64){o->ttl, o->ttl > 0};
	rec.info.next_try = rec.info.attempts = rec.info.revoked = (struct csm_u64){0};
	rec.info.last_error = CSM_STR("");
	if ((r = enrol_info_answer(&rec, obj->ns, obj->name, e->now.wall_s, &o->answer)) != 0)
		goto out;
	o->change.op.sop.answer = (struct csm_bin){csm_buf_ptr(&o->answer), o->answer.len};
	if ((r = erecord_save(e, obj->ns, obj->name, o->key_id, &rec, &o->change.op.sop)) != 0)
		goto out;
	if (en != NULL && memcmp(en->id, o->key_id, CSM_KEY_ID_LEN) != 0) {
		entry_remove(e, en, CSM_ENOT_FOUND, "the key is another one");
		en = NULL;
	}
	if (en == NULL && (r = entry_new(e, p, obj->ns, obj->name, o->key_id, &en)) != 0)
		goto out;
	en->p = p;
	en->reported = rec.info.reported.v;
	p->wanted = true;
	if (!same) {
		en->wanted++;
		csm_buf_reset(&en->csr);
	}
	/* the same request once more waits for what the first one began; where that failed, or the CA lets wait, it asks anew */
	if (!o->change.op.sop.replayed || (o->wait && !en->item.under_way && en->item.retry_boot_ms > 0))
		csm_renew_ask(&en->item);
	*ret = en;
out:
	erecord_free(&rec);
	return r;
}

/* Somebody waits for it: what failed before is no answer. */
static void profile_ask(struct enrol *e, struct eprofile *p)
{
	if (own_is_valid(e, p))
		return;
	if (p->own == NULL) {
		p->why[0] = '\0';
		p->own_after_ms = 0;
	} else if (!p->own->item.under_way) {
		csm_renew_ask(&p->own->item);
	}
}

/* A retry after csmd was ended in the midst of it has to be the same to the CA. */
static void draw_once(const struct enrol_op *o, uint8_t out[static 16])
{
	const struct csm_request_id *rid = &o->change.op.sop.rid;
	crypto_generichash_state st;

	if (rid->id.p == NULL) {
		randombytes_buf(out, 16);
		return;
	}
	crypto_generichash_init(&st, NULL, 0, 16);
	crypto_generichash_update(&st, rid->hash, sizeof(rid->hash));
	crypto_generichash_update(&st, (const uint8_t *)rid->who.p, rid->who.n);
	crypto_generichash_update(&st, (const uint8_t *)"", 1);
	crypto_generichash_update(&st, (const uint8_t *)rid->id.p, rid->id.n);
	crypto_generichash_final(&st, out, 16);
}

/* What it began before is done: its answer is what the record says. */
static int answer_now(struct enrol *e, struct enrol_op *o)
{
	struct object *obj = &o->change.object;
	struct erecord rec;
	int r;

	erecord_init(&rec);
	csm_buf_reset(&o->answer);
	r = erecord_load(e, obj->ns, obj->name, o->key_id, &rec);
	if (r == 0)
		r = enrol_info_answer(&rec, obj->ns, obj->name, e->now.wall_s, &o->answer);
	erecord_free(&rec);
	return r;
}

void enrol_start_enrol(struct enrol *e, struct enrol_op *o)
{
	struct entry *en = NULL;
	struct errand *d;
	int r;

	if (o->csr.len > 0) {
		e->profile[o->profile].wanted = true;
		profile_ask(e, &e->profile[o->profile]);
		for (d = e->errands; d != NULL; d = d->next)
			if (d->what == ERRAND_CSR && enrol_op_same(d->op, o)) {
				o->next = d->op->next;
				d->op->next = o;
				return;
			}
		if ((r = errand_new(e, &e->profile[o->profile], ERRAND_CSR, &d)) == 0) {
			d->op = o;
			draw_once(o, d->once);
			r = csm_buf_put(&d->body, csm_buf_ptr(&o->csr), o->csr.len);
			if (r != 0)
				errand_end(e, d, r, NULL);
			return;
		}
	} else if ((r = want(e, o, &en)) == 0 && o->wait && o->change.op.sop.replayed && !en->item.asked && !en->item.under_way) {
		r = answer_now(e, o);
	} else if (r == 0 && o->wait) {
		profile_ask(e, en->p);
		o->next = en->waiters;
		en->waiters = o;
		return;
	}
	enrol_reply(o, r, r == CSM_ENOT_FOUND ? "the key is not there any more" : NULL);
}

void enrol_start_renew(struct enrol *e, struct enrol_op *o)
{
	struct object *obj = &o->change.object;
	struct entry *en = entry_find(e, obj->ns, obj->name);
	int r;

	/* the renewal before it has changed the key meanwhile */
	if (en != NULL && en->before_until_ms != 0 && memcmp(en->before_id, o->key_id, CSM_KEY_ID_LEN) == 0)
		memcpy(o->key_id, en->id, CSM_KEY_ID_LEN);
	if (en == NULL || memcmp(en->id, o->key_id, CSM_KEY_ID_LEN) != 0) {
		enrol_reply(o, CSM_ESTATE, "no profile renews it: a certificate that was asked for by cert.enrol is renewed by that profile");
		return;
	}
	/* what is on its way already is what was asked for */
	if (!en->item.under_way)
		csm_renew_ask(&en->item);
	if (o->wait) {
		profile_ask(e, en->p);
		o->next = en->waiters;
		en->waiters = o;
		return;
	}
	if ((r = answer_now(e, o)) == 0)
		enrol_keep_outcome(e, o);
	enrol_reply(o, r, NULL);
}

void enrol_start_revoke(struct enrol *e, struct enrol_op *o)
{
	struct object *obj = &o->change.object;
	struct erecord rec;
	struct errand *d;
	int r, at = -1;

	erecord_init(&rec);
	r = erecord_load(e, obj->ns, obj->name, o->key_id, &rec);
	if (r == 0 && rec.info.profile.n > 0)
		at = enrol_profile(e, rec.info.profile);
	if (r != 0 || at < 0 || rec.info.serial.n == 0 || rec.info.serial.n > CSM_TOKEN_STR_MAX) {
		enrol_reply(o, r != 0 ? r : CSM_ESTATE, "there is no certificate from a CA of a profile");
	} else if (rec.info.revoked.set) {
		r = enrol_info_answer(&rec, obj->ns, obj->name, e->now.wall_s, &o->answer);
		enrol_reply(o, r, NULL);
	} else if ((r = errand_new(e, &e->profile[at], ERRAND_REVOKE, &d)) != 0) {
		enrol_reply(o, r, NULL);
	} else {
		for (size_t i = 0; i < rec.info.serial.n; i++) {
			char c = rec.info.serial.p[i];

			d->serial[i] = c >= 'A' && c <= 'F' ? (char)(c - 'A' + 'a') : c;
		}
		d->op = o;
	}
	erecord_free(&rec);
}
