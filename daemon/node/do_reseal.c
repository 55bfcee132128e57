/* reseal: the root key under what the configuration names by now. */
#include "daemon/node/dispatch.h"
#include "daemon/node/root.h"

struct reseal {
	struct op op;
	struct root_reseal seal;
};

static void reseal_answer(struct op *op)
{
	struct reseal *w = (struct reseal *)op;
	struct csm_msg_reseal_res res = {.sealed = csm_str_of(w->seal.sealed)};

	if (op->r != 0)
		op_error(op, op->r, w->seal.why[0] != '\0' ? w->seal.why : NULL);
	else
		op_result(op, CSM_DEF(reseal_res), &res);
	op_done(op);
}

/* The new form is proven; until it is in the store, the old one is the one that counts. */
static void reseal_store(struct op *op)
{
	struct reseal *w = (struct reseal *)op;

	if (op->r != 0) {
		reseal_answer(op);
		return;
	}
	op->sop.kind = CSM_OP_ROOT_KEY;
	op->sop.payload = (struct csm_bin){w->seal.wrapped, w->seal.len};
	op_tell(op, CSM_STR("root key"));
	op_commit(op, reseal_answer);
}

static void reseal_work(struct op *op)
{
	struct reseal *w = (struct reseal *)op;

	op->r = root_reseal(op->loop->b, &w->seal);
}

void do_RESEAL(struct req *q)
{
	struct broker *b = q->loop->b;
	struct csm_backend *be = broker_backend(b, CSM_STR("tpm2"));
	struct op *op;
	int r;

	if (b->cfg.root_key != CSM_ROOT_TPM || be == NULL) {
		req_error(q, CSM_ESTATE, "the root key is not in a TPM: root_key is something else");
		return;
	}
	if ((r = op_new(q, sizeof(struct reseal), NULL, &op)) != 0) {
		req_error(q, r, NULL);
		return;
	}
	if ((r = op_to_backend(op, be, reseal_work, reseal_store)) != 0) {
		op_error(op, r, NULL);
		op_done(op);
	}
}
