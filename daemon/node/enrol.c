#include "daemon/node/enrol_int.h"
#include <openssl/evp.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include "daemon/node/certinfo.h"
#include "daemon/node/conn.h"
#include "daemon/svc/log.h"

#define OWN_AGAIN_MS 5000u

/* ---- answers ---- */

static void apply(struct op *op)
{
	struct enrol_op *o = (struct enrol_op *)op;

	if (op->r != 0)
		op_error(op, op->r, op->why[0] != '\0' ? op->why : NULL);
	else if (op->conn != NULL)
		conn_result_raw(op->conn, op->msgid, (struct csm_bin){csm_buf_ptr(&o->answer), o->answer.len});
	op_done(op);
}

void enrol_reply(struct enrol_op *o, int r, const char *why)
{
	struct op *op = &o->change.op;

	op->r = r;
	(void)snprintf(op->why, sizeof(op->why), "%s", why != NULL ? why : "");
	if (op->apply == NULL)
		op->apply = apply;
	if (op_post(op) != 0)
		abort();
}

/* To all who wait for this certificate: what its record says, or why there is none. */
void entry_reply(struct enrol *e, struct entry *en, int r, const char *why)
{
	struct enrol_op *o;
	struct erecord rec;

	if (en->waiters == NULL)
		return;
	erecord_init(&rec);
	if (r == 0)
		r = erecord_load(e, entry_ns(en), entry_name(en), en->id, &rec);
	while ((o = en->waiters) != NULL) {
		int one = r;

		en->waiters = o->next;
		csm_buf_reset(&o->answer);
		if (one == 0)
			one = enrol_info_answer(&rec, entry_ns(en), entry_name(en), e->now.wall_s, &o->answer);
		enrol_reply(o, one, why);
	}
	erecord_free(&rec);
}

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

/* From the record, after a start. */
static void entry_restore(struct enrol *e, struct csm_str ns, struct csm_str name, const uint8_t id[static CSM_KEY_ID_LEN])
{
	struct entry *en;
	struct erecord rec;
	int at;

	erecord_init(&rec);
	if (erecord_load(e, ns, name, id, &rec) != 0 || rec.info.profile.n == 0)
		goto out;
	if ((at = enrol_profile(e, rec.info.profile)) < 0) {
		log_warn("enrolment: the profile %.*s of %.*s:%.*s is not in csmd.yaml any more: it is not renewed",
			(int)rec.info.profile.n, rec.info.profile.p, (int)ns.n, ns.p, (int)name.n, name.p);
		goto out;
	}
	if (entry_new(e, &e->profile[at], ns, name, id, &en) != 0)
		goto out;
	csm_renew_remove(&e->renew, &en->item);
	en->item.renew_at = rec.info.renew_at.v;
	en->item.not_after = rec.info.not_after.v;
	en->item.life_s = rec.info.not_after.v - rec.info.not_before.v;
	en->item.attempts = (uint32_t)rec.info.attempts.v;
	en->item.next_try = rec.info.next_try.v;
	en->item.off = rec.info.revoked.set;
	csm_renew_add(&e->renew, &en->item, &e->now);
	e->profile[at].wanted = true;
	if (csm_str_eq(ns, CSM_OWN_NAMESPACE) && csm_str_eq(name, e->profile[at].cfg->name))
		e->profile[at].own = en;
out:
	erecord_free(&rec);
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
		if (r == 0 && l.any)
			entry_restore(e, ns, csm_str_of(l.after), l.id);
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

static void load(struct enrol *e)
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
	struct erecord rec;
	int r;

	erecord_init(&rec);
	if ((r = erecord_load(e, who.ns, who.name, id, &rec)) != 0 && r != CSM_ENOT_FOUND)
		goto out;
	/* one that was installed by hand keeps its dates */
	rec.info.profile = csm_str_of(p->cfg->name);
	rec.info.asked_san = (struct csm_strs){sans, 0};
	r = enrol_expand(p->cfg->node.subject, &who, &rec.pool, &rec.info.asked_subject, &why);
	for (size_t i = 0; r == 0 && p->cfg->node.san[i] != NULL; i++)
		r = enrol_expand(p->cfg->node.san[i], &who, &rec.pool, &sans[rec.info.asked_san.n++], &why);
	if (r == 0 && (r = erecord_save(e, who.ns, who.name, id, &rec, NULL)) == 0)
		entry_restore(e, who.ns, who.name, id);
out:
	if (r != 0)
		(void)snprintf(p->why, sizeof(p->why), "%s", why[0] != '\0' ? why : csm_err_text(r));
	erecord_free(&rec);
	return r;
}

static void prepare_own(struct enrol *e, struct eprofile *p)
{
	uint8_t id[CSM_KEY_ID_LEN];
	int r;

	if (p->own != NULL || (!p->wanted && e->b->setup.enrol_tokens[p->index].p == NULL) || e->now.boot_ms < p->own_after_ms)
		return;
	p->own_after_ms = e->now.boot_ms + OWN_AGAIN_MS;
	if ((r = enrol_own_key(e, p, id)) != 0)
		(void)snprintf(p->why, sizeof(p->why), "its key cannot be made: %s", csm_err_text(r));
	else if (want_own(e, p, id) == 0)
		return;
	log_warn("enrolment: %s: %s", p->cfg->name, p->why);
}

/* What the file says, and what was fetched under it. */
static void load_anchors(struct enrol *e, struct eprofile *p)
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

static void load_kept_anchors(struct enrol *e, struct eprofile *p)
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

/* ---- the thread's turns ---- */

static bool is_ready(struct enrol *e)
{
	csm_times_now(&e->now);
	if (e->stopped || e->b->store == NULL || e->b->state != BROKER_READY)
		return false;
	csm_renew_tick(&e->renew, &e->now);
	if (e->loaded)
		return true;
	load(e);
	for (size_t i = 0; i < e->n_profiles; i++)
		if (e->profile[i].own != NULL)
			load_kept_anchors(e, &e->profile[i]);
	return e->loaded;
}

static void errands_due(struct enrol *e)
{
	struct errand *d;

	for (size_t i = 0; i < e->n_profiles; i++) {
		struct eprofile *p = &e->profile[i];

		if (!own_is_valid(e, p))
			continue;
		if (e->now.boot_ms >= p->cacerts_after_ms && errand_new(e, p, ERRAND_CACERTS, &d) == 0)
			p->cacerts_after_ms = e->now.boot_ms + 86400000u;
		if (p->cfg->est || e->now.boot_ms < p->usage_after_ms)
			continue;
		if (p->usage_after_ms > 0 && errand_new(e, p, ERRAND_USAGE, &d) == 0 && enrol_usage(e, p, &d->body) != 0)
			errand_end(e, d, CSM_EINTERNAL, "no report could be made");
		p->usage_after_ms = e->now.boot_ms + e->b->cfg.usage_interval_s * 1000u;
	}
}

static void on_tick(struct csm_job *job)
{
	struct enrol *e = (struct enrol *)((char *)job - offsetof(struct enrol, tick));

	e->ticking = false;
	if (!is_ready(e))
		return;
	for (size_t i = 0; i < e->n_profiles; i++)
		prepare_own(e, &e->profile[i]);
	for (size_t i = 0; i < ENROL_JOBS_MAX; i++)
		if (e->jobs[i].id != 0 && e->now.boot_ms >= e->jobs[i].until_ms)
			enrol_job_lost(e, &e->jobs[i], CSM_ETIMEOUT, "csm-enrol has not come back in time");
	errands_due(e);
	enrol_dispatch(e);
	enrol_tell(e);
}

void enrol_tick(struct enrol *e)
{
	if (e->queue == NULL || atomic_exchange(&e->ticking, true))
		return;
	e->tick.run = on_tick;
	e->tick.user = UINT32_MAX;
	if (csm_workq_push(e->queue, &e->tick) != 0)
		e->ticking = false;
}

/* ---- operations ---- */

static bool same_names(const struct csm_msg_cert_info *a, const struct enrol_op *o)
{
	if (!csm_str_same(a->asked_subject, o->subject) || a->asked_san.n != o->sans.n || a->asked_ttl.v != o->ttl)
		return false;
	for (size_t i = 0; i < o->sans.n; i++)
		if (!csm_str_same(a->asked_san.v[i], o->sans.v[i]))
			return false;
	return true;
}

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
	same = r == 0 && csm_str_eq(rec.info.profile, p->cfg->name) && same_names(&rec.info, o);
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
	p->wanted = true;
	if (!same) {
		en->wanted++;
		csm_buf_reset(&en->csr);
	}
	if (!o->change.op.sop.replayed || o->wait)
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

static void start_enrol(struct enrol *e, struct enrol_op *o)
{
	struct entry *en = NULL;
	struct errand *d;
	int r;

	if (o->csr.len > 0) {
		e->profile[o->profile].wanted = true;
		profile_ask(e, &e->profile[o->profile]);
		if ((r = errand_new(e, &e->profile[o->profile], ERRAND_CSR, &d)) == 0) {
			d->op = o;
			r = csm_buf_put(&d->body, csm_buf_ptr(&o->csr), o->csr.len);
			if (r != 0)
				errand_end(e, d, r, NULL);
			return;
		}
	} else if ((r = want(e, o, &en)) == 0 && o->wait) {
		profile_ask(e, en->p);
		o->next = en->waiters;
		en->waiters = o;
		return;
	}
	enrol_reply(o, r, r == CSM_ENOT_FOUND ? "the key is not there any more" : NULL);
}

static void start_renew(struct enrol *e, struct enrol_op *o)
{
	struct object *obj = &o->change.object;
	struct entry *en = entry_find(e, obj->ns, obj->name);
	struct erecord rec;
	int r;

	erecord_init(&rec);
	if (en == NULL || memcmp(en->id, o->key_id, CSM_KEY_ID_LEN) != 0) {
		enrol_reply(o, CSM_ESTATE, "no profile renews it: see cert.enrol");
	} else if (o->wait) {
		csm_renew_ask(&en->item);
		profile_ask(e, en->p);
		o->next = en->waiters;
		en->waiters = o;
	} else {
		csm_renew_ask(&en->item);
		r = erecord_load(e, obj->ns, obj->name, o->key_id, &rec);
		if (r == 0)
			r = enrol_info_answer(&rec, obj->ns, obj->name, e->now.wall_s, &o->answer);
		enrol_reply(o, r, NULL);
	}
	erecord_free(&rec);
}

static void start_revoke(struct enrol *e, struct enrol_op *o)
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

static void start_next(struct enrol *e, struct enrol_op *o)
{
	o->next = NULL;
	if (e->parked == NULL)
		e->parked = o;
	else
		e->parked_last->next = o;
	e->parked_last = o;
}

static void on_op(struct csm_job *job)
{
	struct enrol_op *o = (struct enrol_op *)job;
	struct enrol *e = o->change.op.loop->b->enrol;

	if (o->kind == ENROL_NEXT && !e->stopped) {
		start_next(e, o);
		if (is_ready(e))
			enrol_dispatch(e);
		return;
	}
	if (e->stopped || !is_ready(e)) {
		enrol_reply(o, e->stopped ? CSM_ESHUTDOWN : CSM_EUNAVAILABLE, NULL);
		return;
	}
	switch (o->kind) {
	case ENROL_ENROL:
		start_enrol(e, o);
		break;
	case ENROL_RENEW:
		start_renew(e, o);
		break;
	case ENROL_REVOKE:
		start_revoke(e, o);
		break;
	case ENROL_DONE:
	default:
		enrol_done(e, o);
	}
	for (size_t i = 0; i < e->n_profiles; i++)
		prepare_own(e, &e->profile[i]);
	enrol_dispatch(e);
}

void enrol_submit(struct enrol *e, struct enrol_op *o)
{
	struct op *op = &o->change.op;
	int r = CSM_ESTATE;

	op->job.run = on_op;
	op->job.user = op->slot->number;
	if (e->queue == NULL || (r = csm_workq_push(e->queue, &op->job)) != 0) {
		op_error(op, r, e->queue == NULL ? "csmd.yaml has no enrolment profiles" : NULL);
		op_done(op);
	}
}

struct closed {
	struct csm_job job; /* first */
	struct enrol *e;
	uint64_t id;
	bool told;
};

static void on_closed(struct csm_job *job)
{
	struct closed *c = (struct closed *)job;
	struct enrol *e = c->e;

	if (!e->stopped && is_ready(e)) {
		for (size_t i = 0; i < ENROL_JOBS_MAX; i++)
			if (e->jobs[i].id == c->id && c->told)
				enrol_job_lost(e, &e->jobs[i], CSM_EUNAVAILABLE, "csm-enrol ended meanwhile");
			else if (e->jobs[i].id == c->id)
				enrol_job_back(&e->jobs[i]);
		enrol_dispatch(e);
	}
	free(c);
}

void enrol_channel_closed(struct enrol *e, uint64_t job, bool told)
{
	struct closed *c = e->queue != NULL ? calloc(1, sizeof(*c)) : NULL;

	/* without it the job's time runs out */
	if (c == NULL)
		return;
	*c = (struct closed){.job = {.run = on_closed, .user = UINT32_MAX}, .e = e, .id = job, .told = told};
	if (csm_workq_push(e->queue, &c->job) != 0)
		free(c);
}

/* ---- life ---- */

static uint64_t draw(void *arg, uint64_t below)
{
	uint64_t v;

	(void)arg;
	/* the bias of one in 2^64 / below is nothing to anybody */
	randombytes_buf(&v, sizeof(v));
	return v % below;
}

int enrol_new(struct broker *b, struct enrol **ret)
{
	struct enrol *e = calloc(1, sizeof(*e));
	struct utsname u;

	if (e == NULL)
		return CSM_ENOMEM;
	e->b = b;
	pthread_mutex_init(&e->lock, NULL);
	csm_times_now(&e->now);
	csm_renew_init(&e->renew, &e->now, draw, NULL);
	(void)snprintf(e->hostname, sizeof(e->hostname), "%s", uname(&u) == 0 ? u.nodename : "localhost");
	*ret = e;
	return 0;
}

int enrol_start(struct enrol *e)
{
	struct csm_workq_options opt = {
		.name = "enrol", .threads = 1, .max = CSM_QUEUE_MAX, .max_per_user = CSM_QUEUE_PER_IDENTITY};

	for (; e->n_profiles < e->b->cfg.n_enrol; e->n_profiles++) {
		struct eprofile *p = &e->profile[e->n_profiles];

		p->cfg = &e->b->cfg.enrol[e->n_profiles];
		p->index = (unsigned)e->n_profiles;
		p->usage_from = e->now.wall_s;
		load_anchors(e, p);
	}
	return e->n_profiles > 0 ? csm_workq_new(&opt, &e->queue) : 0;
}

static void end_all(void *arg)
{
	struct enrol *e = arg;
	struct errand *d;

	e->stopped = true;
	while (e->parked != NULL) {
		struct enrol_op *o = e->parked;

		e->parked = o->next;
		enrol_reply(o, CSM_ESHUTDOWN, NULL);
	}
	while ((d = e->errands) != NULL)
		errand_end(e, d, CSM_ESHUTDOWN, NULL);
	for (struct csm_renew_item *i = e->renew.first; i != NULL; i = i->next)
		entry_reply(e, (struct entry *)i, CSM_ESHUTDOWN, NULL);
}

void enrol_stop(struct enrol *e)
{
	if (e->queue != NULL && csm_workq_call(e->queue, end_all, e) != 0)
		log_warn("enrolment: its thread has ended already");
}

void enrol_free(struct enrol *e)
{
	if (e == NULL)
		return;
	csm_workq_free(e->queue);
	e->queue = NULL;
	while (e->renew.first != NULL)
		entry_remove(e, (struct entry *)e->renew.first, CSM_ESHUTDOWN, NULL);
	csm_reader_free(e->reader);
	for (size_t i = 0; i < e->n_profiles; i++)
		csm_buf_free(&e->profile[i].anchors);
	free(e);
}
