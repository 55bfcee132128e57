#include <stdlib.h>
#include <string.h>
#include "daemon/node/dispatch.h"
#include "daemon/node/op.h"
#include "daemon/svc/log.h"

#define GATHER_MAX 16u /* while the store has them, more may be judged */

int op_new(struct req *q, size_t size, void (*clear)(struct op *op), struct op **ret)
{
	struct op *op = calloc(1, size);
	struct conn *c = q->conn;

	if (op == NULL)
		return CSM_ENOMEM;
	op->loop = q->loop;
	op->conn = c;
	op->method = q->method;
	op->msgid = q->msgid;
	op->slot = c->slot;
	op->uid = req_uid(q);
	op->pid = req_pid(q);
	op->place = csm_audit_place_ref(req_place(q));
	op->next = c->ops;
	if (op->next != NULL)
		op->next->prev = op;
	c->ops = op;
	c->n_ops++;
	q->loop->n_ops++;
	/* The charge also keeps the slot for as long as the operation lives. */
	if (op_charge(op, size) != 0) {
		op_done(op);
		return CSM_EBUSY;
	}
	op->clear = clear;
	*ret = op;
	return 0;
}

static void unlink_from_conn(struct op *op)
{
	struct conn *c = op->conn;

	if (c == NULL)
		return;
	if (op->next != NULL)
		op->next->prev = op->prev;
	*(op->prev != NULL ? &op->prev->next : &c->ops) = op->next;
	c->n_ops--;
	op->conn = NULL;
}

void op_done(struct op *op)
{
	unlink_from_conn(op);
	op->loop->n_ops--;
	if (op->committing)
		admit_committed(&op->loop->b->admit, op->slot);
	if (op->charged > 0)
		admit_credit(&op->loop->b->admit, op->slot, op->charged);
	if (op->clear != NULL)
		op->clear(op);
	csm_audit_place_unref(op->place);
	free(op);
}

void op_orphan_all(struct conn *c)
{
	while (c->ops != NULL)
		unlink_from_conn(c->ops);
}

bool op_has_msgid(const struct conn *c, uint32_t msgid)
{
	for (const struct op *op = c->ops; op != NULL; op = op->next)
		if (op->msgid == msgid)
			return true;
	return false;
}

int op_charge(struct op *op, size_t n)
{
	if (!admit_charge(&op->loop->b->admit, op->slot, n))
		return CSM_EBUSY;
	op->charged += n;
	return 0;
}

static void apply_on_loop(struct loop *l, struct task *t)
{
	struct op *op = (struct op *)((char *)t - offsetof(struct op, back));

	(void)l;
	op->apply(op);
}

/* The loop waits for its operations before it ends, so that the mail is always taken. */
int op_post(struct op *op)
{
	op->back.run = apply_on_loop;
	return loop_post(op->loop, &op->back) ? 0 : CSM_ESHUTDOWN;
}

static void work_on_queue(struct csm_job *job)
{
	struct op *op = (struct op *)job;

	op->work(op);
	if (op_post(op) != 0)
		abort();
}

static int to_queue(struct op *op, struct csm_workq *queue, void (*work)(struct op *), void (*apply)(struct op *))
{
	op->work = work;
	op->apply = apply;
	op->job.run = work_on_queue;
	op->job.user = op->slot->number;
	return csm_workq_push(queue, &op->job);
}

int op_to_backend(struct op *op, struct csm_backend *be, void (*work)(struct op *), void (*apply)(struct op *))
{
	return to_queue(op, be->owner != NULL ? be->owner : op->loop->b->workers, work, apply);
}

int op_to_worker(struct op *op, void (*work)(struct op *), void (*apply)(struct op *))
{
	return to_queue(op, op->loop->b->workers, work, apply);
}

void op_tell(struct op *op, struct csm_str object)
{
	op->event = (struct csm_audit_event){
		.kind = CSM_AUDIT_CHANGE, .method = op->method->name, .uid = op->uid, .pid = op->pid, .object = object,
		.place = op->place};
	op->sop.event = &op->event;
}

void op_used(struct op *op, struct csm_str object)
{
	csm_audit_use(op->loop->uses, op->method->name, op->uid, op->place, object);
}

void op_signed(struct op *op, const uint8_t id[static CSM_KEY_ID_LEN])
{
	const struct count_who who = {.uid = op->uid, .place = op->place};

	/* whose connection is gone is known but for its program; csmd's own processes are no clients */
	if (op->conn != NULL)
		peer_signed(op->loop, op->conn->peer, id);
	else
		counts_add(&op->loop->b->counts, id, op->pid != 0 ? &who : NULL);
}

/* One piece of mail for all. */
static void apply_all(struct loop *l, struct task *t)
{
	struct op *op = (struct op *)((char *)t - offsetof(struct op, back)), *next;

	(void)l;
	for (; op != NULL; op = next) {
		next = op->together;
		op->apply(op);
	}
}

/* Of the last of those that went together; all of them are done. */
static void store_done(struct csm_store_op *sop)
{
	struct op *first = sop->arg, *op = first;

	do {
		op->r = op->sop.r;
		if (op->r == CSM_ESYSTEM)
			log_err("the store could not write: %s", strerror(csm_store_last_errno()));
	} while ((op = op->together) != NULL);
	first->back.run = apply_all;
	if (!loop_post(first->loop, &first->back))
		abort();
}

static int submit(struct op *first, struct op *last, size_t n)
{
	struct op *op = first;

	do {
		op->sop.next = op->together != NULL ? &op->together->sop : NULL;
		op->sop.done = NULL;
	} while ((op = op->together) != NULL);
	last->sop.done = store_done;
	last->sop.arg = first;
	return csm_store_submit_all(first->loop->b->store, &first->sop, n);
}

void op_submit_gathered(struct loop *l)
{
	struct gathered g = l->gathered;
	struct op *next;
	int r;

	if (g.first == NULL)
		return;
	l->gathered.n = 0;
	l->gathered.first = NULL;
	l->gathered.tail = &l->gathered.first;
	if ((r = submit(g.first, g.last, g.n)) == 0)
		return;
	for (struct op *op = g.first; op != NULL; op = next) {
		next = op->together;
		op->r = r;
		op->apply(op);
	}
}

static void gather(struct loop *l, struct op *op)
{
	*l->gathered.tail = op;
	l->gathered.tail = &op->together;
	l->gathered.last = op;
	if (++l->gathered.n == GATHER_MAX)
		op_submit_gathered(l);
	else if (l->gathered.n == 1)
		event_active(&l->submit_event, 0, 0);
}

/* Those that wait for no other: an operation that is told only when the counter has followed would hold the others up. */
static bool may_gather(const struct op *op)
{
	return op->sop.kind == CSM_OP_ISSUE || op->sop.kind == CSM_OP_SECRET_SET;
}

int op_to_store(struct op *op, void (*apply)(struct op *))
{
	struct csm_store *store = op->loop->b->store;

	op->apply = apply;
	op->together = NULL;
	if (store == NULL)
		return CSM_EUNAVAILABLE;
	/* No one user fills the queue of all. */
	if (!op->committing && !(op->committing = admit_commit(&op->loop->b->admit, op->slot)))
		return CSM_EBUSY;
	if (!may_gather(op))
		return submit(op, op, 1);
	gather(op->loop, op);
	return 0;
}

void object_copy(struct object *to, const struct object *from)
{
	*to = *from;
	to->ns.p = to->buf + (from->ns.p - from->buf);
	to->name.p = to->buf + (from->name.p - from->buf);
	to->text.p = to->buf;
	if (from->secret.p != NULL)
		to->secret.p = to->buf + (from->secret.p - from->buf);
}
