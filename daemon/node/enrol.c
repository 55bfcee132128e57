#include "daemon/node/enrol_int.h"
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include "daemon/node/conn.h"
#include "daemon/svc/log.h"

/* ---- answers ---- */

static void apply(struct op *op)
{
	struct enrol_op *o = (struct enrol_op *)op;

	if (op->r != 0)
		op_error(op, op->r, o->refusal[0] != '\0' ? o->refusal : NULL);
	else if (op->conn != NULL)
		conn_result_raw(op->conn, op->msgid, (struct csm_bin){csm_buf_ptr(&o->answer), o->answer.len});
	op_done(op);
}

void enrol_reply(struct enrol_op *o, int r, const char *why)
{
	struct op *op = &o->change.op;

	op->r = r;
	csm_text_put(o->refusal, sizeof(o->refusal), "%s", why != NULL ? why : "");
	if (op->apply == NULL)
		op->apply = apply;
	if (op_post(op) != 0)
		abort();
}

bool enrol_op_same(const struct enrol_op *a, const struct enrol_op *b)
{
	const struct csm_request_id *x = &a->change.op.sop.rid, *y = &b->change.op.sop.rid;

	return x->id.p != NULL && y->id.p != NULL && csm_str_same(x->id, y->id) && csm_str_same(x->who, y->who) &&
		memcmp(x->hash, y->hash, sizeof(x->hash)) == 0;
}

void enrol_keep_outcome(struct enrol *e, struct enrol_op *o)
{
	struct csm_store_op sop = {.kind = CSM_OP_NAMESPACE, .ns = o->change.object.ns, .rid = o->change.op.sop.rid,
		.answer = {csm_buf_ptr(&o->answer), o->answer.len}};
	int r;

	if (sop.rid.id.p != NULL && (r = enrol_commit(e, &sop)) != 0)
		log_warn("enrolment: an outcome cannot be kept for a retry: %s", csm_err_text(r));
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
		if (one == 0 && o->kind == ENROL_RENEW)
			enrol_keep_outcome(e, o);
		enrol_reply(o, one, why);
	}
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
	enrol_load(e);
	for (size_t i = 0; i < e->n_profiles; i++) {
		enrol_usage_load(e, &e->profile[i]);
		if (e->profile[i].own != NULL)
			enrol_kept_anchors(e, &e->profile[i]);
	}
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
		if (!p->cfg->est)
			enrol_usage_due(e, p);
	}
}

static void on_tick(struct csm_job *job)
{
	struct enrol *e = (struct enrol *)((char *)job - offsetof(struct enrol, tick));

	e->ticking = false;
	if (!is_ready(e))
		return;
	for (size_t i = 0; i < e->n_profiles; i++)
		enrol_prepare_own(e, &e->profile[i]);
	for (size_t i = 0; i < ENROL_JOBS_MAX; i++)
		if (e->jobs[i].id != 0 && e->now.boot_ms >= e->jobs[i].until_ms)
			enrol_job_lost(e, &e->jobs[i], CSM_ETIMEOUT, "csm-enrol has not come back in time");
	enrol_before_due(e);
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
		enrol_start_enrol(e, o);
		break;
	case ENROL_RENEW:
		enrol_start_renew(e, o);
		break;
	case ENROL_REVOKE:
		enrol_start_revoke(e, o);
		break;
	case ENROL_DONE:
	default:
		enrol_done(e, o);
	}
	for (size_t i = 0; i < e->n_profiles; i++)
		enrol_prepare_own(e, &e->profile[i]);
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
		csm_buf_init(&p->report, CSM_MESSAGE_MAX, false);
		enrol_load_anchors(e, p);
		if (!p->cfg->est && counts_users_on(&e->b->counts) != 0)
			return CSM_ENOMEM;
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
	for (size_t i = 0; i < e->n_profiles; i++) {
		csm_buf_free(&e->profile[i].anchors);
		csm_buf_free(&e->profile[i].report);
	}
	free(e);
}
