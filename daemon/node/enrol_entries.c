/* What is wanted, and by which profile: looked after in memory, from the records after a start. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/node/enrol_int.h"
#include "daemon/svc/log.h"

#define OWN_AGAIN_MS 5000u

/* ---- what is wanted ---- */

struct entry *entry_find(struct enrol *e, struct csm_str ns, struct csm_str name)
{
	for (struct csm_renew_item *i = e->renew.first; i != NULL; i = i->next) {
		struct entry *en = (struct entry *)i;

		if (csm_str_eq(name, en->name) && csm_str_eq(ns, en->ns))
			return en;
	}
	return NULL;
}

int entry_new(struct enrol *e, struct eprofile *p, struct csm_str ns, struct csm_str name,
	const uint8_t id[static CSM_KEY_ID_LEN], struct entry **ret)
{
	struct entry *en = calloc(1, sizeof(*en));

	if (en == NULL)
		return CSM_ENOMEM;
	en->p = p;
	memcpy(en->ns, ns.p, ns.n);
	memcpy(en->name, name.p, name.n);
	memcpy(en->id, id, sizeof(en->id));
	csm_buf_init(&en->csr, CSM_CSR_MAX, false);
	csm_renew_add(&e->renew, &en->item, &e->now);
	*ret = en;
	return 0;
}

void entry_remove(struct enrol *e, struct entry *en, int r, const char *why)
{
	entry_reply(e, en, r, why);
	if (r == CSM_ENOT_FOUND)
		enrol_beside_drop(e, entry_ns(en), entry_name(en));
	for (size_t i = 0; i < ENROL_JOBS_MAX; i++)
		if (e->jobs[i].entry == en)
			e->jobs[i].id = 0;
	for (size_t i = 0; i < e->n_profiles; i++)
		if (e->profile[i].own == en)
			e->profile[i].own = NULL;
	csm_renew_remove(&e->renew, &en->item);
	csm_buf_free(&en->csr);
	free(en);
}

/* From the record, after a start. False: nothing is wanted for the key. */
static bool entry_restore(struct enrol *e, struct csm_str ns, struct csm_str name, const uint8_t id[static CSM_KEY_ID_LEN])
{
	bool wanted = false;
	struct entry *en;
	struct erecord rec;
	int at, r;

	erecord_init(&rec);
	r = erecord_load(e, ns, name, id, &rec);
	wanted = r != 0 && r != CSM_ENOT_FOUND; /* nobody knows */
	if (r != 0 || rec.info.profile.n == 0)
		goto out;
	if ((at = enrol_profile(e, rec.info.profile)) < 0) {
		log_warn("enrolment: the profile %.*s of %.*s:%.*s is not in csmd.yaml any more: it is not renewed",
			(int)rec.info.profile.n, rec.info.profile.p, (int)ns.n, ns.p, (int)name.n, name.p);
		goto out;
	}
	wanted = true;
	if (entry_new(e, &e->profile[at], ns, name, id, &en) != 0)
		goto out;
	csm_renew_remove(&e->renew, &en->item);
	en->item.renew_at = rec.info.renew_at.v;
	en->item.not_after = rec.info.not_after.v;
	en->item.life_s = rec.info.not_after.v - rec.info.not_before.v;
	en->item.attempts = (uint32_t)rec.info.attempts.v;
	en->item.next_try = rec.info.next_try.v;
	en->item.off = rec.info.revoked.set;
	en->reported = rec.info.reported.v;
	enrol_before_kept(e, en, rec.info.old_key_until.v);
	csm_renew_add(&e->renew, &en->item, &e->now);
	e->profile[at].wanted = true;
	if (csm_str_eq(ns, CSM_OWN_NAMESPACE) && csm_str_eq(name, e->profile[at].cfg->name))
		e->profile[at].own = en;
out:
	erecord_free(&rec);
	return wanted;
}

struct loading {
	struct enrol *e;
	struct csm_str ns;
	char after[CSM_NAME_MAX + 1];
	bool any;
	uint8_t id[CSM_KEY_ID_LEN];
};

static bool next_key(void *arg, struct csm_str name, const struct csm_key_record *rec)
{
	struct loading *l = arg;

	memcpy(l->after, name.p, name.n);
	l->after[name.n] = '\0';
	memcpy(l->id, rec->id, sizeof(l->id));
	l->any = true;
	return false;
}

/* One key after the other: a transaction each, since reading records needs one of its own. */
static int load_namespace(struct enrol *e, struct csm_str ns)
{
	struct loading l = {.e = e, .ns = ns, .any = true};
	int r = 0;

	while (r == 0 && l.any) {
		l.any = false;
		if ((r = csm_reader_begin(e->reader)) != 0)
			return r;
		r = csm_store_key_list(e->reader, ns, csm_str_of(l.after), next_key, &l);
		csm_reader_end(e->reader);
		if (r == 0 && l.any && !entry_restore(e, ns, csm_str_of(l.after), l.id))
			enrol_beside_drop(e, ns, csm_str_of(l.after));
	}
	return r;
}

struct namespaces {
	char (*v)[CSM_NAMESPACE_MAX + 1];
	size_t n, cap;
	bool failed;
};

static bool next_namespace(void *arg, struct csm_str ns)
{
	struct namespaces *all = arg;

	if (all->n == all->cap) {
		size_t cap = all->cap * 2 + 64;
		void *v = realloc(all->v, cap * sizeof(*all->v));

		if (v == NULL) {
			all->failed = true;
			return false;
		}
		all->v = v;
		all->cap = cap;
	}
	memcpy(all->v[all->n], ns.p, ns.n);
	all->v[all->n++][ns.n] = '\0';
	return true;
}

static int want_own(struct enrol *e, struct eprofile *p, const uint8_t id[static CSM_KEY_ID_LEN]);

/* While it has no certificate, its names are those that the configuration says now. */
static void name_anew(struct enrol *e, struct eprofile *p)
{
	uint8_t id[CSM_KEY_ID_LEN];

	if (p->own == NULL || p->own->item.not_after != 0)
		return;
	memcpy(id, p->own->id, sizeof(id));
	entry_remove(e, p->own, CSM_ESTATE, NULL);
	if (want_own(e, p, id) != 0)
		log_warn("enrolment: %s: %s", p->cfg->name, p->why);
}

void enrol_load(struct enrol *e)
{
	struct namespaces all = {0};
	int r;

	if (e->reader == NULL && csm_reader_new(e->b->store, &e->reader) != 0)
		return;
	if (csm_reader_begin(e->reader) != 0)
		return;
	r = csm_store_namespace_list(e->reader, next_namespace, &all);
	csm_reader_end(e->reader);
	for (size_t i = 0; r == 0 && !all.failed && i < all.n; i++)
		r = load_namespace(e, csm_str_of(all.v[i]));
	free(all.v);
	for (size_t i = 0; i < e->n_profiles; i++)
		name_anew(e, &e->profile[i]);
	e->loaded = true;
	if (r != 0 || all.failed)
		log_err("enrolment: not all records could be read: %s", csm_err_name(r));
	if (e->renew.n > 0)
		log_info("enrolment: %zu certificates are looked after", e->renew.n);
}

/* ---- the profiles' own keys ---- */

static int want_own(struct enrol *e, struct eprofile *p, const uint8_t id[static CSM_KEY_ID_LEN])
{
	const struct enrol_who who = {.hostname = e->hostname, .ns = CSM_STR(CSM_OWN_NAMESPACE), .name = csm_str_of(p->cfg->name)};
	struct csm_str sans[CSM_ENROL_LIST_MAX];
	const char *why = "";
	struct csm_msg_cert_info old;
	struct erecord rec;
	int r;

	erecord_init(&rec);
	if ((r = erecord_load(e, who.ns, who.name, id, &rec)) != 0 && r != CSM_ENOT_FOUND)
		goto out;
	/* one that was installed by hand keeps its dates */
	rec.info.profile = csm_str_of(p->cfg->name);
	old = rec.info;
	rec.info.asked_san = (struct csm_strs){sans, 0};
	r = enrol_expand(p->cfg->node.subject, &who, &rec.pool, &rec.info.asked_subject, &why);
	for (size_t i = 0; r == 0 && p->cfg->node.san[i] != NULL; i++)
		r = enrol_expand(p->cfg->node.san[i], &who, &rec.pool, &sans[rec.info.asked_san.n++], &why);
	if (r == 0 && !erecord_is_for(&old, rec.info.asked_subject, &rec.info.asked_san)) { /* what was refused before says nothing of these */
		rec.info.next_try = rec.info.attempts = (struct csm_u64){0, false};
		rec.info.last_error = CSM_STR("");
	}
	if (r == 0 && (r = erecord_save(e, who.ns, who.name, id, &rec, NULL)) == 0)
		(void)entry_restore(e, who.ns, who.name, id);
out:
	if (r != 0)
		csm_text_put(p->why, sizeof(p->why), "%s", why[0] != '\0' ? why : csm_err_text(r));
	erecord_free(&rec);
	return r;
}

void enrol_prepare_own(struct enrol *e, struct eprofile *p)
{
	uint8_t id[CSM_KEY_ID_LEN];
	int r;

	if (p->own != NULL || (!p->wanted && e->b->setup.enrol_tokens[p->index].p == NULL) || e->now.boot_ms < p->own_after_ms)
		return;
	p->own_after_ms = e->now.boot_ms + OWN_AGAIN_MS;
	if ((r = enrol_own_key(e, p, id)) != 0)
		csm_text_put(p->why, sizeof(p->why), "its key cannot be made%s%s: %s", p->cfg->key_backend != NULL ? " in the back end " : "",
			p->cfg->key_backend != NULL ? p->cfg->key_backend : "", r == CSM_EUNSUPPORTED ?
			"it keeps keys in its device, or has no P-256" : r == CSM_EUNAVAILABLE ? "it is not there" : csm_err_text(r));
	else if (want_own(e, p, id) == 0)
		return;
	log_warn("enrolment: %s: %s", p->cfg->name, p->why);
}

/* What the file says, and what was fetched under it. */
void enrol_load_anchors(struct enrol *e, struct eprofile *p)
{
	struct csm_bin pem = e->b->setup.enrol_anchors[p->index];
	uint8_t hash[crypto_hash_sha256_BYTES];
	int r = 0;

	csm_buf_init(&p->anchors, CSM_CERT_CHAIN_MAX, false);
	if (pem.p != NULL && (r = csm_anchors_pem(pem, &p->anchors)) == 0) {
		crypto_hash_sha256(hash, csm_buf_ptr(&p->anchors), p->anchors.len);
		sodium_bin2hex(p->anchors_of, sizeof(p->anchors_of), hash, sizeof(hash));
	} else if (p->cfg->root_sha256 != NULL) {
		(void)snprintf(p->anchors_of, sizeof(p->anchors_of), "%s", p->cfg->root_sha256);
	}
	if (r != 0)
		log_err("enrolment: %s: %s holds no certificates in PEM", p->cfg->name, p->cfg->anchors_file);
}

void enrol_kept_anchors(struct enrol *e, struct eprofile *p)
{
	struct csm_buf joined;
	struct erecord rec;

	erecord_init(&rec);
	csm_buf_init(&joined, CSM_CERT_CHAIN_MAX, false);
	/* those of another file, or another root, are not trusted any more */
	if (erecord_load(e, entry_ns(p->own), entry_name(p->own), p->own->id, &rec) == 0 && rec.info.anchors.n > 0 &&
		csm_str_eq(rec.info.anchors_of, p->anchors_of) &&
		csm_anchors_join((struct csm_bin){csm_buf_ptr(&p->anchors), p->anchors.len}, rec.info.anchors, e->now.wall_s,
			CSM_CERT_CHAIN_MAX, &joined) == 0 &&
		enrol_trust(e, p, (struct csm_bin){csm_buf_ptr(&joined), joined.len}) != 0)
		log_err("enrolment: %s: its anchors do not fit", p->cfg->name);
	csm_buf_free(&joined);
	erecord_free(&rec);
}
