/* An operation away from its loop: a request's own copies, performed once elsewhere, applied once on the loop; if
 * the connection is gone by then, applied without an answer. */
#ifndef CSM_NODE_OP_H
#define CSM_NODE_OP_H

#include "daemon/node/loop.h"
#include "daemon/svc/workq.h"

struct conn;
struct op {
	struct csm_job job;       /* first: on a queue */
	struct task back;         /* on the loop's mailbox */
	struct csm_store_op sop;  /* on the store's queue */
	struct csm_audit_event event; /* what sop.event points to */
	struct loop *loop;
	struct conn *conn;        /* loop thread only; NULL once it is closed */
	struct op *next, *prev;   /* of the connection */
	struct op *together;      /* the next one of those that went to the store together; of the loop's list as well */
	const struct csm_method *method;
	uint32_t msgid;
	struct admit_slot *slot;  /* of who asked */
	size_t charged;           /* bytes that the slot is charged for */
	bool committing;          /* counted among the slot's commits */
	uid_t uid;
	pid_t pid;
	struct csm_audit_place *place; /* a reference; NULL: not known */
	int r;
	void (*work)(struct op *op);  /* elsewhere: sets r */
	void (*apply)(struct op *op); /* on the loop: answers or goes on; ends with op_done unless it went on */
	void (*clear)(struct op *op); /* frees what the operation holds */
};

struct req;
/* A zeroed operation of `size` bytes that begins with struct op. */
CSM_MUST int op_new(struct req *q, size_t size, void (*clear)(struct op *op), struct op **ret);
/* Charge the caller for n more bytes that the operation holds; CSM_EBUSY when it has too many waiting. */
CSM_MUST int op_charge(struct op *op, size_t n);
/* A change of this object is told to the audit log by the store; the text lives as long as op. */
void op_tell(struct op *op, struct csm_str object);
/* It was used: counted in the audit log. */
void op_used(struct op *op, struct csm_str object);
/* A key signed: counted, and for whom. */
void op_signed(struct op *op, const uint8_t id[static CSM_KEY_ID_LEN]);
/* Send it off; on failure nothing was taken and the caller still has the op. */
CSM_MUST int op_to_backend(struct op *op, struct csm_backend *be, void (*work)(struct op *), void (*apply)(struct op *));
/* To the workers, for what is slow and no back end's. */
CSM_MUST int op_to_worker(struct op *op, void (*work)(struct op *), void (*apply)(struct op *));
/* What the loop has read in one go goes to the store together, and comes back so. What the store then refuses to take is applied
 * with that as its result. */
CSM_MUST int op_to_store(struct op *op, void (*apply)(struct op *));
/* Send what has been gathered: the loop's, when it has served all that was readable. */
void op_submit_gathered(struct loop *l);
CSM_MUST int op_post(struct op *op); /* from elsewhere back to its loop, to apply */
/* Answers; nothing where the connection is gone. */
void op_result(struct op *op, const struct csm_msgdef *def, const void *result);
void op_error(struct op *op, int r, const char *message);
/* The end: unlinks and frees. */
void op_done(struct op *op);
/* The connection is closing: its operations go on without it. */
void op_orphan_all(struct conn *c);
bool op_has_msgid(const struct conn *c, uint32_t msgid);

#endif
