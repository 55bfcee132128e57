/* What csm-enrol brings back: nothing of it is believed before it is checked, and what was there stays until then. */
#include <sodium.h>
#include <string.h>
#include "daemon/node/enrol_int.h"
#include "daemon/node/watch.h"
#include "daemon/pki/certreq.h"
#include "daemon/svc/log.h"

static struct csm_bin bin_of(const struct csm_buf *b)
{
	return (struct csm_bin){csm_buf_ptr(b), b->len};
}

/* Text of the CA's goes into records, logs and answers: printable ASCII only. */
static void text_of(struct csm_str s, char out[static ENROL_WHY])
{
	csm_text_put(out, ENROL_WHY, "%.*s", (int)s.n, s.n > 0 ? s.p : "");
	for (; *out != '\0'; out++)
		*out = *out >= ' ' && *out < 0x7f ? *out : '?';
}

/* ---- anchors ---- */

/* At the first contact the one certificate whose hash is in the configuration. */
static void take_root(struct enrol *e, struct eprofile *p, struct csm_bin given)
{
	const unsigned char *at = given.p, *end = given.p + given.n;
	uint8_t hash[crypto_hash_sha256_BYTES];
	char hex[2 * sizeof(hash) + 1];

	while (p->anchors.len == 0 && at < end) {
		const unsigned char *from = at;
		X509 *x = d2i_X509(NULL, &at, (long)(end - at));

		if (x == NULL)
			return;
		X509_free(x);
		crypto_hash_sha256(hash, from, (size_t)(at - from));
		sodium_bin2hex(hex, sizeof(hex), hash, sizeof(hash));
		if (strcmp(hex, p->cfg->root_sha256) == 0 && enrol_trust(e, p, (struct csm_bin){from, (size_t)(at - from)}) != 0)
			log_err("enrolment: %s: no memory for its root", p->cfg->name);
	}
}

/* They came over a connection that those of before vouched for: both are good from now on, until they expire. */
static int keep_anchors(struct enrol *e, struct eprofile *p, struct csm_bin given)
{
	char why[CSM_CERT_WHY] = "";
	struct csm_buf joined;
	struct erecord rec;
	int r;

	if (p->anchors.len == 0 && p->cfg->root_sha256 != NULL)
		take_root(e, p, given);
	if (p->anchors.len == 0)
		return CSM_EINVALID;
	if ((r = csm_anchors_check(given, e->now.wall_s, why)) != 0) {
		log_warn("enrolment: %s: the CA's certificates are not taken: %s", p->cfg->name, why);
		return r;
	}
	erecord_init(&rec);
	csm_buf_init(&joined, CSM_CERT_CHAIN_MAX, false);
	r = csm_anchors_join(given, bin_of(&p->anchors), e->now.wall_s, CSM_CERT_CHAIN_MAX, &joined);
	if (r == 0 && joined.len == p->anchors.len && p->cfg->root_sha256 == NULL)
		goto out; /* nothing new */
	if (r == 0 && (r = erecord_load(e, entry_ns(p->own), entry_name(p->own), p->own->id, &rec)) == 0) {
		rec.info.anchors = bin_of(&joined);
		rec.info.anchors_of = csm_str_of(p->anchors_of);
		r = erecord_save(e, entry_ns(p->own), entry_name(p->own), p->own->id, &rec, NULL);
	}
	if (r == 0)
		r = enrol_trust(e, p, bin_of(&joined));
out:
	csm_buf_free(&joined);
	erecord_free(&rec);
	return r;
}

/* ---- a certificate ---- */

static int check(struct enrol *e, struct entry *en, const struct enrol_op *o, const struct erecord *old, struct csm_buf *chain,
	struct csm_pool *pool, struct csm_msg_cert_info *info, char why[static CSM_CERT_WHY])
{
	bool own = en->p->own == en;
	struct csm_enrolled_want want = {.subject = old->info.asked_subject, .any_subject = en->p->cfg->any_subject,
		.sans = old->info.asked_san.v, .n_sans = old->info.asked_san.n, .anchors = bin_of(&en->p->anchors),
		.now = e->now.wall_s, .tls_client = own};
	char name[CSM_KEY_BESIDE_NAME];
	struct csm_buf spki;
	int r;

	csm_buf_init(&spki, CSM_SPKI_MAX, false);
	if ((r = enrol_spki(e, entry_ns(en), entry_key(en, name), entry_key_id(en), &spki, NULL, NULL)) == 0) {
		want.spki = bin_of(&spki);
		r = csm_enrolled_check(bin_of(&o->chain), &want, chain, pool, info, why);
	}
	csm_buf_free(&spki);
	return r;
}

/* One that comes late in its life, as a short one does that was dated back, would be due at once, and the next one too: then what is
 * left counts. */
static uint64_t renew_at(struct enrol *e, const struct eprofile *p, const struct csm_msg_cert_info *info)
{
	uint64_t now = e->now.wall_s, end = info->not_after.v;
	uint64_t at = csm_renew_at(&e->renew, info->not_before.v, end, p->cfg->renew_percent);

	return at >= now + (end > now ? end - now : 0) / 10 ? at : csm_renew_at(&e->renew, now, end, p->cfg->renew_percent);
}

static int keep(struct enrol *e, struct entry *en, const struct erecord *old, struct csm_msg_cert_info *info,
	struct csm_bin chain)
{
	struct csm_store_op sop = {.ns = entry_ns(en), .name = entry_name(en)};
	char object[CSM_KEYREF_MAX + 2];
	struct csm_audit_event event = {.kind = CSM_AUDIT_CHANGE, .method = old->chain.n > 0 ? "cert.renew" : "cert.enrol"};
	struct erecord rec = {.info = *info, .chain = chain};

	(void)snprintf(object, sizeof(object), "%s:%s", en->ns, en->name);
	event.object = csm_str_of(object);
	sop.event = &event;
	rec.info.renew_at = (struct csm_u64){renew_at(e, en->p, info), true};
	rec.info.last_error = CSM_STR("");
	rec.info.installed = (struct csm_u64){e->now.wall_s, true};
	rec.info.profile = old->info.profile;
	rec.info.asked_subject = old->info.asked_subject;
	rec.info.asked_san = old->info.asked_san;
	rec.info.asked_ttl = old->info.asked_ttl;
	rec.info.anchors = old->info.anchors;
	rec.info.anchors_of = old->info.anchors_of;
	rec.info.reported = old->info.reported;
	rec.info.old_key_until = old->info.old_key_until;
	if (en->turning) {
		sop.turns = en->id;
		/* the one before goes in the same commit */
		event.detail = en->before_until_ms != 0 ? ",\"key\":\"new\",\"deleted\":\"before\"" : ",\"key\":\"new\"";
		rec.info.reported = (struct csm_u64){0, false};
		rec.info.old_key_until = (struct csm_u64){e->now.wall_s + en->p->cfg->overlap_s, true};
	}
	*info = rec.info;
	return erecord_save(e, entry_ns(en), entry_name(en), entry_key_id(en), &rec, &sop);
}

static void got(struct enrol *e, struct entry *en, const struct enrol_op *o)
{
	char why[CSM_CERT_WHY] = "", text[ENROL_WHY];
	struct csm_msg_cert_info info;
	struct csm_buf chain;
	struct erecord old;
	int r;

	erecord_init(&old);
	csm_buf_init(&chain, CSM_CERT_CHAIN_MAX, false);
	if ((r = erecord_load(e, entry_ns(en), entry_name(en), en->id, &old)) != 0)
		goto out;
	if (o->anchors.len > 0 && en->p->own == en && en->p->anchors.len == 0 && keep_anchors(e, en->p, bin_of(&o->anchors)) == 0) {
		erecord_free(&old);
		erecord_init(&old);
		if ((r = erecord_load(e, entry_ns(en), entry_name(en), en->id, &old)) != 0)
			goto out;
	}
	if ((r = check(e, en, o, &old, &chain, &old.pool, &info, why)) == CSM_EINVALID || r == CSM_ETOO_LARGE) {
		enrol_audit_refused(e, en, r);
		csm_text_put(text, sizeof(text), "what the CA gave is refused: %s", why);
		r = CSM_EBACKEND;
		goto out;
	}
	text[0] = '\0';
	if (r == 0 && (r = keep(e, en, &old, &info, bin_of(&chain))) == 0) {
		csm_renew_done(&en->item, &e->now, info.renew_at.v, info.not_before.v, info.not_after.v);
		csm_buf_reset(&en->csr);
		if (en->turning)
			enrol_turned(e, en);
		log_info("enrolment: %s:%s has a certificate until %llu", en->ns, en->name, (unsigned long long)info.not_after.v);
		changes_note(e->b, entry_ns(en), entry_name(en));
		entry_reply(e, en, 0, NULL);
	}
out:
	csm_buf_free(&chain);
	erecord_free(&old);
	if (r != 0) {
		/* what was refused would be refused again: the next attempt asks anew */
		csm_buf_reset(&en->csr);
		enrol_fail(e, en, r, r == CSM_EBACKEND ? text : NULL, 0);
	}
}

/* ---- errands ---- */

/* For a request that was made elsewhere: what comes back has its key and its names. */
static void got_for_csr(struct enrol *e, struct errand *d, const struct enrol_op *o)
{
	struct csm_enrolled_want want = {.any_subject = true, .anchors = bin_of(&d->p->anchors), .now = e->now.wall_s};
	char why[CSM_CERT_WHY] = "", text[ENROL_WHY];
	struct object *obj = &d->op->change.object;
	struct csm_certreq *req = NULL;
	struct csm_buf chain;
	struct erecord rec;
	int r;

	erecord_init(&rec);
	csm_buf_init(&chain, CSM_CERT_CHAIN_MAX, false);
	if ((r = csm_certreq_read(bin_of(&d->body), &req, why)) == 0) {
		want.spki = req->spki;
		want.sans = d->op->sans.v;
		want.n_sans = d->op->sans.n;
		want.subject = d->op->subject;
		want.any_subject = d->p->cfg->any_subject;
		r = csm_enrolled_check(bin_of(&o->chain), &want, &chain, &rec.pool, &rec.info, why);
	}
	csm_certreq_free(req);
	csm_text_put(text, sizeof(text), "what the CA gave is refused: %s", why);
	if (r == 0) {
		rec.info.chain = bin_of(&chain);
		rec.info.installed = (struct csm_u64){0, true};
		csm_buf_reset(&d->op->answer);
		r = enrol_info_answer(&rec, obj->ns, obj->name, e->now.wall_s, &d->op->answer);
	}
	if (r == 0)
		enrol_keep_outcome(e, d->op);
	csm_buf_free(&chain);
	erecord_free(&rec);
	errand_end(e, d, r == CSM_EINVALID ? CSM_EBACKEND : r, text);
}

static void got_revoked(struct enrol *e, struct errand *d)
{
	struct enrol_op *o = d->op;
	struct object *obj = &o->change.object;
	struct entry *en = entry_find(e, obj->ns, obj->name);
	struct erecord rec;
	int r;

	erecord_init(&rec);
	csm_buf_reset(&o->answer);
	if ((r = erecord_load(e, obj->ns, obj->name, o->key_id, &rec)) == 0) {
		rec.info.revoked = (struct csm_u64){e->now.wall_s, true};
		r = enrol_info_answer(&rec, obj->ns, obj->name, e->now.wall_s, &o->answer);
	}
	if (r == 0) {
		o->change.op.sop.answer = bin_of(&o->answer);
		r = erecord_save(e, obj->ns, obj->name, o->key_id, &rec, &o->change.op.sop);
	}
	if (r == 0 && en != NULL) {
		en->item.off = true;
		csm_renew_begin(&en->item);
		en->item.under_way = false;
	}
	if (r == 0)
		changes_note(e->b, obj->ns, obj->name);
	erecord_free(&rec);
	errand_end(e, d, r, NULL);
}

static void errand_got(struct enrol *e, struct errand *d, const struct enrol_op *o)
{
	switch (d->what) {
	case ERRAND_CSR:
		got_for_csr(e, d, o);
		break;
	case ERRAND_REVOKE:
		got_revoked(e, d);
		break;
	case ERRAND_CACERTS:
		errand_end(e, d, d->p->own != NULL ? keep_anchors(e, d->p, bin_of(&o->anchors)) : CSM_ESTATE, NULL);
		break;
	case ERRAND_USAGE:
	default:
		errand_end(e, d, 0, NULL);
	}
}

/* ---- the end of a job ---- */

void enrol_job_lost(struct enrol *e, struct ejob *job, int r, const char *why)
{
	struct errand *d = job->errand;
	struct entry *en = job->entry;

	*job = (struct ejob){0};
	if (d != NULL)
		errand_end(e, d, r, why);
	else
		enrol_fail(e, en, r, why, 0);
}

void enrol_job_back(struct ejob *job)
{
	if (job->errand != NULL)
		job->errand->under_way = false;
	else
		csm_renew_undo(&job->entry->item);
	*job = (struct ejob){0};
}

/* A code that means something to who asked for a certificate here; others are the CA's affair. */
static int code_of(struct csm_str error)
{
	int r = csm_err_of_name(error.p, error.n);

	if (r >= 100)
		return CSM_EUNAVAILABLE; /* it could not be reached */
	return r == 0 || r == CSM_EPROOF_REQUIRED || r == CSM_ETAMPERED || r == CSM_ENOT_FOUND || r == CSM_EPROTOCOL ? CSM_EBACKEND : r;
}

/* Who reads it has to know what to do: a token is spent, too old, or another's. */
static void name_token(const struct enrol *e, const struct entry *en, struct csm_str error, char text[static ENROL_WHY])
{
	const char *file = en != NULL && en->p->own == en ? en->p->cfg->token_file : NULL;
	char what[ENROL_WHY];

	if (file == NULL || e->b->setup.enrol_tokens[en->p->index].n == 0 || own_is_valid(e, en->p) ||
		csm_err_of_name(error.p, error.n) != CSM_EUNAUTHENTICATED)
		return;
	csm_text_put(what, sizeof(what), "the CA does not take the token of %s: %s", file, text);
	memcpy(text, what, sizeof(what));
}

static void job_done(struct enrol *e, struct ejob *job, const struct enrol_op *o)
{
	bool outdated = job->entry != NULL && job->wanted != job->entry->wanted;
	struct errand *d = job->errand;
	struct entry *en = job->entry;
	char text[ENROL_WHY];

	*job = (struct ejob){0};
	if (en == NULL && d == NULL)
		return; /* it has either */
	text_of(o->why, text);
	name_token(e, en, o->error, text);
	if (outdated)
		csm_renew_undo(&en->item);
	else if (o->error.n > 0 && d != NULL)
		errand_end(e, d, code_of(o->error), text);
	else if (o->error.n > 0)
		enrol_fail(e, en, code_of(o->error), text, o->retry_after_s);
	else if (d != NULL)
		errand_got(e, d, o);
	else
		got(e, en, o);
}

void enrol_done(struct enrol *e, struct enrol_op *o)
{
	static const struct csm_msg_empty nothing;
	int r = CSM_ESTATE;

	for (size_t i = 0; i < ENROL_JOBS_MAX && r != 0; i++)
		if (e->jobs[i].id != 0 && e->jobs[i].id == o->job) {
			job_done(e, &e->jobs[i], o);
			r = 0;
		}
	csm_buf_reset(&o->answer);
	if (r == 0)
		r = csm_msg_encode(CSM_DEF(empty), &nothing, &o->answer);
	enrol_reply(o, r, r == CSM_ESTATE ? "there is no such job any more" : NULL);
}
