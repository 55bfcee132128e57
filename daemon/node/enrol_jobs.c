/* Which certificate is asked for next, and what csm-enrol is told for it. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/node/conn.h"
#include "daemon/node/enrol_int.h"
#include "daemon/svc/log.h"

#define CHANNEL_GRACE_MS 15000u /* after the time that the job itself has */
#define ERRANDS_MAX 1024u
#define CHANNELS_LEFT 2u
#define WAIT_LEAST_S 5u

/* ---- errands ---- */

int errand_new(struct enrol *e, struct eprofile *p, enum errand_what what, struct errand **ret)
{
	struct errand *d = calloc(1, sizeof(*d)), **at = &e->errands;
	size_t n = 0;

	if (d == NULL)
		return CSM_ENOMEM;
	for (; *at != NULL; at = &(*at)->next)
		n++;
	if (n >= ERRANDS_MAX) {
		free(d);
		return CSM_EBUSY;
	}
	d->p = p;
	d->what = what;
	csm_buf_init(&d->body, CSM_ENROL_BODY_MAX, false);
	*at = d;
	*ret = d;
	return 0;
}

static void errand_reply(struct enrol_op *first, int r, const char *why)
{
	struct enrol_op *o = first->next;

	while (o != NULL) {
		struct enrol_op *next = o->next;
		int one = r != 0 ? r : csm_buf_put(&o->answer, csm_buf_ptr(&first->answer), first->answer.len);

		enrol_reply(o, one, why);
		o = next;
	}
	enrol_reply(first, r, why);
}

void errand_end(struct enrol *e, struct errand *d, int r, const char *why)
{
	struct errand **at = &e->errands;

	while (*at != d)
		at = &(*at)->next;
	*at = d->next;
	for (size_t i = 0; i < ENROL_JOBS_MAX; i++)
		if (e->jobs[i].errand == d)
			e->jobs[i].id = 0;
	if (d->what == ERRAND_USAGE)
		enrol_usage_ended(e, d->p, r);
	if (d->op != NULL)
		errand_reply(d->op, r, why);
	else if (r != 0 && r != CSM_ESHUTDOWN)
		log_warn("enrolment: %s: %s: %s", d->p->cfg->name, d->what == ERRAND_USAGE ? "report of use" : "anchors",
			why != NULL ? why : csm_err_text(r));
	csm_buf_free(&d->body);
	free(d);
}

/* ---- in vain ---- */

void enrol_fail(struct enrol *e, struct entry *en, int r, const char *why, uint64_t retry_after_s)
{
	/* asked for while it was under way: that was for the next attempt */
	bool asked = en->item.asked && en->item.under_way;
	char text[ENROL_WHY];
	struct erecord rec;
	int kept;

	csm_text_put(text, sizeof(text), "%s", why != NULL && why[0] != '\0' ? why : csm_err_text(r));
	/* a CA that names a time will have an answer then, and it was not in vain; one that says "in a second" is overloaded */
	if (r == CSM_EBUSY && retry_after_s >= WAIT_LEAST_S)
		csm_renew_wait(&e->renew, &en->item, &e->now, retry_after_s);
	else
		csm_renew_failed(&e->renew, &en->item, &e->now, retry_after_s);
	en->item.asked = asked;
	log_warn("enrolment: %s:%s: %s", en->ns, en->name, text);
	erecord_init(&rec);
	kept = erecord_load(e, entry_ns(en), entry_name(en), en->id, &rec);
	if (kept == 0) {
		rec.info.last_error = csm_str_of(text);
		rec.info.attempts = (struct csm_u64){en->item.attempts, true};
		rec.info.next_try = (struct csm_u64){en->item.next_try, true};
		kept = erecord_save(e, entry_ns(en), entry_name(en), en->id, &rec, NULL);
	}
	erecord_free(&rec);
	if (kept == CSM_ENOT_FOUND)
		entry_remove(e, en, CSM_ENOT_FOUND, "the key, or its certificate, was deleted");
	else
		entry_reply(e, en, r, text);
}

/* ---- what may be asked now ---- */

bool own_is_valid(const struct enrol *e, const struct eprofile *p)
{
	return p->own != NULL && !p->own->item.off && p->own->item.not_after > e->now.wall_s;
}

static bool is_own(const struct entry *en)
{
	return en->p->own == en;
}

static bool has_token(const struct enrol *e, const struct eprofile *p)
{
	return e->b->setup.enrol_tokens[p->index].n > 0;
}

static size_t jobs_of(const struct enrol *e, const struct eprofile *p)
{
	size_t n = 0;

	for (size_t i = 0; i < ENROL_JOBS_MAX; i++)
		n += e->jobs[i].id != 0 && ((e->jobs[i].errand != NULL && e->jobs[i].errand->p == p) ||
			(e->jobs[i].entry != NULL && e->jobs[i].entry->p == p));
	return n;
}

/* A profile whose server hangs leaves channels to others that have none: two such profiles hold up no third one. */
static bool has_channel(const struct enrol *e, const struct eprofile *p)
{
	size_t parked = 0, without = 0;

	if (jobs_of(e, p) == 0)
		return true;
	for (const struct enrol_op *o = e->parked; o != NULL; o = o->next)
		parked++;
	for (size_t i = 0; i < e->n_profiles; i++)
		without += jobs_of(e, &e->profile[i]) == 0;
	return parked > (without < CHANNELS_LEFT ? without : CHANNELS_LEFT);
}

static bool may_ask(const struct csm_renew_item *item, void *arg)
{
	const struct entry *en = (const struct entry *)item;
	const struct enrol *e = arg;

	return (is_own(en) || own_is_valid(e, en->p)) && has_channel(e, en->p);
}

/* Those who wait for a profile whose own key has no certificate learn why. */
static void fail_waiters_of(struct enrol *e, const struct eprofile *p)
{
	struct csm_renew_item *next;
	char why[ENROL_WHY];
	struct erecord rec;

	if (own_is_valid(e, p) || (p->own != NULL && (p->own->item.attempts == 0 || p->own->item.under_way || p->own->item.asked)) ||
		(p->own == NULL && p->why[0] == '\0'))
		return;
	erecord_init(&rec);
	if (p->own == NULL || erecord_load(e, entry_ns(p->own), entry_name(p->own), p->own->id, &rec) != 0)
		csm_text_put(why, sizeof(why), "the profile is not ready: %s", p->why);
	else
		csm_text_put(why, sizeof(why), "the node itself has no certificate of the profile %s: %.*s", p->cfg->name,
			(int)rec.info.last_error.n, rec.info.last_error.p);
	erecord_free(&rec);
	for (struct csm_renew_item *i = e->renew.first; i != NULL; i = next) {
		struct entry *en = (struct entry *)i;

		next = i->next;
		if (en->p == p && !is_own(en) && en->waiters != NULL && !i->under_way)
			enrol_fail(e, en, CSM_EUNAVAILABLE, why, 0);
	}
	for (struct errand *d = e->errands, *after; d != NULL; d = after) {
		after = d->next;
		if (d->p == p && !d->under_way && d->op != NULL)
			errand_end(e, d, CSM_EUNAVAILABLE, why);
	}
}

/* ---- what csm-enrol is told ---- */

struct telling {
	struct csm_msg_enrol_job m;
	struct erecord own; /* its chain is what the job shows the CA */
	bool tls;
};

static int tell_tls(struct enrol *e, const struct eprofile *p, struct telling *t)
{
	enum csm_alg alg = CSM_ALG_P256;
	struct csm_buf spki;
	int r = erecord_load(e, entry_ns(p->own), entry_name(p->own), p->own->id, &t->own);

	csm_buf_init(&spki, CSM_SPKI_MAX, false);
	if (r == 0)
		r = enrol_spki(e, entry_ns(p->own), entry_name(p->own), p->own->id, &spki, &alg, NULL);
	csm_buf_free(&spki);
	if (r != 0)
		return r;
	t->m.tls_chain = t->own.chain;
	t->m.tls_alg = csm_str_of(csm_alg_name(alg));
	t->tls = true;
	return 0;
}

static void tell_profile(struct enrol *e, const struct eprofile *p, struct telling *t)
{
	const struct csm_enrol_profile *c = p->cfg;

	t->m.protocol = c->est ? CSM_STR("est") : CSM_STR("cms");
	if (c->url != NULL)
		t->m.url = csm_str_of(c->url);
	if (c->domain != NULL)
		t->m.domain = csm_str_of(c->domain);
	if (c->label != NULL)
		t->m.label = csm_str_of(c->label);
	if (p->anchors.len > 0)
		t->m.anchors = (struct csm_bin){csm_buf_ptr(&p->anchors), p->anchors.len};
	else if (c->root_sha256 != NULL)
		t->m.root_sha256 = csm_str_of(c->root_sha256);
	t->m.timeout_ms = (struct csm_u64){c->timeout_s * 1000u, true};
	t->m.id = (struct csm_u64){++e->last_job, true};
}

/* The profile's own key shows the token, or the certificate that it has; after a failure with that the token again. */
static int tell_own(struct enrol *e, struct entry *en, struct telling *t)
{
	const struct eprofile *p = en->p;
	bool valid = own_is_valid(e, p);

	t->m.label = p->cfg->node.label != NULL ? csm_str_of(p->cfg->node.label) : (struct csm_str){NULL, 0};
	if (has_token(e, p) && (!valid || en->item.attempts % 2 == 1)) {
		t->m.what = CSM_STR("enrol");
		t->m.token = e->b->setup.enrol_tokens[p->index];
		return 0;
	}
	t->m.what = CSM_STR("renew");
	return valid ? tell_tls(e, p, t) : CSM_ESTATE;
}

static int tell_entry(struct enrol *e, struct entry *en, struct telling *t)
{
	char why[128] = "";
	struct erecord rec;
	int r;

	erecord_init(&rec);
	r = erecord_load(e, entry_ns(en), entry_name(en), en->id, &rec);
	if (r == 0 && (rec.info.profile.n == 0 || enrol_profile(e, rec.info.profile) != (int)en->p->index))
		r = CSM_ENOT_FOUND; /* another certificate was installed by hand */
	if (r == CSM_ENOT_FOUND) {
		entry_remove(e, en, CSM_ENOT_FOUND, "the key, or its certificate, was deleted");
		goto out;
	}
	if (r == 0 && en->csr.len == 0) {
		randombytes_buf(en->once, sizeof(en->once));
		if ((r = enrol_choose_key(e, en, &rec, why)) == 0)
			r = enrol_csr(e, en, &rec.info, &en->csr, why);
	}
	if (r == 0) {
		t->m.once = (struct csm_bin){en->once, sizeof(en->once)};
		t->m.csr = (struct csm_bin){csm_buf_ptr(&en->csr), en->csr.len};
		if (rec.info.asked_ttl.v > 0 || en->p->cfg->life_s > 0)
			t->m.ttl = (struct csm_u64){rec.info.asked_ttl.v > 0 ? rec.info.asked_ttl.v : en->p->cfg->life_s, true};
		t->m.what = CSM_STR("enrol");
		r = is_own(en) ? tell_own(e, en, t) : tell_tls(e, en->p, t);
		if (r == CSM_ESTATE)
			(void)snprintf(why, sizeof(why), "there is neither a token nor a valid certificate to show the CA");
	}
	if (r != 0)
		enrol_fail(e, en, r, why, 0);
out:
	erecord_free(&rec);
	return r;
}

static int tell_errand(struct enrol *e, struct errand *d, struct telling *t)
{
	static const char *const words[] = {
		[ERRAND_CSR] = "enrol", [ERRAND_REVOKE] = "revoke", [ERRAND_CACERTS] = "cacerts", [ERRAND_USAGE] = "usage"};
	int r = tell_tls(e, d->p, t);

	t->m.what = csm_str_of(words[d->what]);
	if (d->what == ERRAND_CSR) {
		t->m.csr = (struct csm_bin){csm_buf_ptr(&d->body), d->body.len};
		t->m.once = (struct csm_bin){d->once, sizeof(d->once)};
	}
	if (d->what == ERRAND_USAGE)
		t->m.body = (struct csm_bin){csm_buf_ptr(&d->body), d->body.len};
	if (d->what == ERRAND_REVOKE) {
		t->m.serial = csm_str_of(d->serial);
		t->m.reason = d->op->reason.n > 0 ? d->op->reason : CSM_STR("unspecified");
	}
	if (d->what == ERRAND_CSR && (d->op->ttl > 0 || d->p->cfg->life_s > 0))
		t->m.ttl = (struct csm_u64){d->op->ttl > 0 ? d->op->ttl : d->p->cfg->life_s, true};
	if (r != 0)
		errand_end(e, d, r, NULL);
	return r;
}

/* ---- to a channel ---- */

/* On the loop: its client may have gone while it waited. */
static void next_apply(struct op *op)
{
	struct enrol_op *o = (struct enrol_op *)op;

	if (op->r == 0 && op->conn == NULL) {
		enrol_channel_closed(op->loop->b->enrol, o->job, false);
	} else if (op->r == 0) {
		op->conn->enrol_job = o->job;
		op->conn->enrol_sign = o->sign_for;
		memcpy(op->conn->enrol_key, o->sign_id, CSM_KEY_ID_LEN);
		conn_result_raw(op->conn, op->msgid, (struct csm_bin){csm_buf_ptr(&o->answer), o->answer.len});
	} else {
		op_error(op, op->r, NULL);
	}
	op_done(op);
}

static int hand_out(struct enrol *e, struct ejob *job, const struct eprofile *p, const struct telling *t)
{
	struct enrol_op *o = e->parked;
	int r;

	csm_buf_reset(&o->answer);
	if ((r = csm_msg_encode(CSM_DEF(enrol_job), &t->m, &o->answer)) != 0)
		return r;
	e->parked = o->next;
	o->job = t->m.id.v;
	o->sign_for = t->tls && p->own != NULL ? p->cfg : NULL;
	if (t->tls && p->own != NULL)
		memcpy(o->sign_id, p->own->id, CSM_KEY_ID_LEN);
	o->change.op.apply = next_apply;
	job->id = t->m.id.v;
	job->until_ms = e->now.boot_ms + p->cfg->timeout_s * 1000u + CHANNEL_GRACE_MS;
	enrol_reply(o, 0, NULL);
	return 0;
}

static struct ejob *free_job(struct enrol *e)
{
	for (size_t i = 0; i < ENROL_JOBS_MAX; i++)
		if (e->jobs[i].id == 0)
			return &e->jobs[i];
	return NULL;
}

static struct errand *next_errand(struct enrol *e)
{
	for (struct errand *d = e->errands; d != NULL; d = d->next)
		if (!d->under_way && own_is_valid(e, d->p) && has_channel(e, d->p))
			return d;
	return NULL;
}

/* False: there is nothing to be done. */
static bool dispatch_one(struct enrol *e, struct ejob *job)
{
	struct telling t = {.tls = false};
	struct errand *d = next_errand(e);
	struct entry *en = d == NULL ? (struct entry *)csm_renew_pick(&e->renew, &e->now, may_ask, e) : NULL;
	struct eprofile *p;
	int r;

	if (d == NULL && en == NULL)
		return false;
	p = d != NULL ? d->p : en->p;
	erecord_init(&t.own);
	tell_profile(e, p, &t);
	r = d != NULL ? tell_errand(e, d, &t) : tell_entry(e, en, &t);
	if (r != 0)
		goto out;
	*job = (struct ejob){.entry = en, .errand = d, .wanted = en != NULL ? en->wanted : 0};
	r = hand_out(e, job, p, &t);
	if (r == 0 && d != NULL)
		d->under_way = true;
	else if (r == 0)
		csm_renew_begin(&en->item);
	else if (d != NULL)
		errand_end(e, d, r, NULL);
	else
		enrol_fail(e, en, r, NULL, 0);
out:
	erecord_free(&t.own);
	return true;
}

void enrol_dispatch(struct enrol *e)
{
	struct ejob *job;

	for (size_t i = 0; i < e->n_profiles; i++)
		fail_waiters_of(e, &e->profile[i]);
	while (e->parked != NULL && (job = free_job(e)) != NULL && dispatch_one(e, job))
		;
}
