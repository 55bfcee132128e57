/* Renewals for another key. The next one is made beside the one that there is, under a name that nobody asks for, and signs the
 * request; with the certificate it takes the name, in one commit, and the one before stays beside it for who still has the
 * certificate from before. A crash leaves at most one of each, which is found again by its name. */
#include <stdio.h>
#include <string.h>
#include "daemon/node/enrol_int.h"
#include "daemon/node/making.h"
#include "daemon/svc/log.h"

/* The record of what is beside a key; its slices are not good any more. */
static int beside(struct enrol *e, struct csm_str ns, struct csm_str name, enum csm_key_beside which, struct csm_key_record *ret)
{
	char buf[CSM_KEY_BESIDE_NAME];
	int r;

	if ((r = csm_reader_begin(e->reader)) != 0)
		return r;
	r = csm_store_key_get(e->reader, ns, csm_store_key_beside(name, which, buf), false, NULL, ret);
	csm_reader_end(e->reader);
	return r;
}

/* CSM_ENOT_FOUND: there is none. */
static int drop(struct enrol *e, struct csm_str ns, struct csm_str name, enum csm_key_beside which)
{
	char buf[CSM_KEY_BESIDE_NAME], object[CSM_KEYREF_MAX + 1];
	struct csm_store_op sop = {.kind = CSM_OP_KEY_DELETE, .ns = ns, .name = csm_store_key_beside(name, which, buf)};
	struct csm_audit_event event = {.kind = CSM_AUDIT_CHANGE, .method = "key.delete",
		.detail = which == CSM_KEY_NEXT ? ",\"key\":\"next\"" : ",\"key\":\"before\""};
	struct csm_key_record rec;
	int r = beside(e, ns, name, which, &rec);

	if (r != 0)
		return r;
	(void)snprintf(object, sizeof(object), "%.*s:%.*s", (int)ns.n, ns.p, (int)name.n, name.p);
	event.object = csm_str_of(object);
	sop.event = &event;
	return enrol_commit(e, &sop);
}

void enrol_beside_drop(struct enrol *e, struct csm_str ns, struct csm_str name)
{
	int r;

	if (((r = drop(e, ns, name, CSM_KEY_NEXT)) != 0 && r != CSM_ENOT_FOUND) ||
		((r = drop(e, ns, name, CSM_KEY_BEFORE)) != 0 && r != CSM_ENOT_FOUND))
		log_warn("enrolment: %.*s:%.*s: what is beside it cannot be deleted: %s", (int)ns.n, ns.p, (int)name.n, name.p, csm_err_text(r));
}

/* ---- the next one ---- */

/* Like the one that there is, by the same back end. */
static int make_next(struct enrol *e, struct entry *en, uint8_t id[static CSM_KEY_ID_LEN])
{
	char buf[CSM_KEY_BESIDE_NAME], object[CSM_KEYREF_MAX + 1];
	uint8_t tag[CSM_KEY_TAG_MAX];
	struct enrol_make m = {.ns = entry_ns(en), .name = csm_store_key_beside(entry_name(en), CSM_KEY_NEXT, buf),
		.detail = ",\"key\":\"next\""};
	struct csm_key_record rec;
	int r;

	if ((r = csm_reader_begin(e->reader)) != 0)
		return r;
	r = csm_store_key_get(e->reader, entry_ns(en), entry_name(en), false, NULL, &rec);
	if (r == 0 && memcmp(rec.id, en->id, CSM_KEY_ID_LEN) != 0)
		r = CSM_ENOT_FOUND;
	if (r == 0) {
		m.be = broker_backend(e->b, rec.backend);
		m.spec = (struct csm_plugin_keyspec){.alg = rec.alg, .use = rec.use, .exportable = rec.exportable};
		if (rec.tag.n > 0)
			memcpy(tag, rec.tag.p, rec.tag.n);
		m.tag = (struct csm_bin){tag, rec.tag.n};
	}
	csm_reader_end(e->reader);
	(void)snprintf(object, sizeof(object), "%s:%s", en->ns, en->name);
	m.object = csm_str_of(object);
	return r == 0 ? enrol_make_key(e, &m, id) : r;
}

int enrol_choose_key(struct enrol *e, struct entry *en, const struct erecord *rec, char why[static 128])
{
	struct csm_key_record next;
	int r;

	en->turning = false;
	if (!en->p->cfg->new_key || rec->chain.n == 0 || en == en->p->own) {
		r = drop(e, entry_ns(en), entry_name(en), CSM_KEY_NEXT);
		return r == CSM_ENOT_FOUND ? 0 : r;
	}
	/* one that an attempt before has made is as good */
	r = beside(e, entry_ns(en), entry_name(en), CSM_KEY_NEXT, &next);
	if (r == 0)
		memcpy(en->next_id, next.id, CSM_KEY_ID_LEN);
	else if (r == CSM_ENOT_FOUND)
		r = make_next(e, en, en->next_id);
	if (r == CSM_EUNSUPPORTED) {
		log_info("enrolment: %s:%s keeps its key: the back end keeps keys in its device", en->ns, en->name);
		return 0;
	}
	if (r != 0)
		(void)snprintf(why, 128, "its next key cannot be made: %s", csm_err_text(r));
	en->turning = r == 0;
	return r;
}

/* ---- the one before ---- */

void enrol_turned(struct enrol *e, struct entry *en)
{
	memcpy(en->before_id, en->id, CSM_KEY_ID_LEN);
	memcpy(en->id, en->next_id, CSM_KEY_ID_LEN);
	en->turning = false;
	en->reported = 0;
	en->before_until_ms = e->now.boot_ms + en->p->cfg->overlap_s * 1000u;
	log_info("enrolment: %s:%s has another key", en->ns, en->name);
}

/* A clock that was set back makes it no longer than it would have been. */
void enrol_before_kept(struct enrol *e, struct entry *en, uint64_t until_s)
{
	uint64_t left = until_s > e->now.wall_s ? until_s - e->now.wall_s : 0;

	if (left > en->p->cfg->overlap_s)
		left = en->p->cfg->overlap_s;
	en->before_until_ms = until_s != 0 ? e->now.boot_ms + left * 1000u + 1 : 0;
}

static void end_before(struct enrol *e, struct entry *en)
{
	struct erecord rec;
	int r = drop(e, entry_ns(en), entry_name(en), CSM_KEY_BEFORE);

	erecord_init(&rec);
	if (r == 0 || r == CSM_ENOT_FOUND)
		r = erecord_load(e, entry_ns(en), entry_name(en), en->id, &rec);
	if (r == 0) {
		rec.info.old_key_until = (struct csm_u64){0, false};
		r = erecord_save(e, entry_ns(en), entry_name(en), en->id, &rec, NULL);
	}
	erecord_free(&rec);
	en->before_until_ms = r == 0 || r == CSM_ENOT_FOUND ? 0 : e->now.boot_ms + 60000u;
	if (r != 0 && r != CSM_ENOT_FOUND)
		log_warn("enrolment: %s:%s: the key before it is not deleted yet: %s", en->ns, en->name, csm_err_text(r));
}

void enrol_before_due(struct enrol *e)
{
	for (struct csm_renew_item *i = e->renew.first; i != NULL; i = i->next) {
		struct entry *en = (struct entry *)i;

		if (en->before_until_ms != 0 && e->now.boot_ms >= en->before_until_ms)
			end_before(e, en);
	}
}
