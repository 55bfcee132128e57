/* key.export: the one way in which a key goes out, for those that were made for it. */
#include <string.h>
#include "daemon/node/keycall.h"
#include "libclient/tpmfmt/keyfile.h"

struct export_op {
	struct change change;
	struct csm_buf tss2;
};

static void export_clear(struct op *op)
{
	csm_buf_free(&((struct export_op *)op)->tss2);
}

/* The audit log has told of it. */
static void export_told(struct op *op)
{
	struct export_op *e = (struct export_op *)op;
	struct csm_msg_key_export_res res = {.tss2 = {csm_buf_ptr(&e->tss2), e->tss2.len}};

	if (op->r != 0)
		op_error(op, op->r, NULL);
	else
		op_result(op, op->method->response, &res);
	op_done(op);
}

static int export_make(struct req *q, struct key_found *f, struct csm_buf *out)
{
	struct csm_tss2 key = {.parent = CSM_TPM_SRK};
	struct csm_key_record rec;
	int r = csm_store_key_get(f->reader, f->object.ns, f->object.name, true, &q->loop->key, &rec);

	if (r == 0) {
		key.pub_2b = rec.pub;
		key.priv_2b = rec.priv;
		r = csm_tss2_put(&key, out);
	}
	csm_buf_reset(&q->loop->key);
	return r == CSM_EINVALID ? CSM_ETAMPERED : r;
}

void do_KEY_EXPORT(struct req *q)
{
	const struct csm_msg_key_export_req *m = q->params;
	struct csm_request_id none = {.id = {NULL, 0}};
	struct key_found f;
	struct export_op *e;
	struct change *c;
	int r;

	if (key_look(q, m->key, m->spki_sha256, &f) != 0)
		return;
	if (!f.rec.exportable || !csm_str_eq(f.rec.backend, "tpm2")) {
		req_end_read(q);
		req_error(q, CSM_EUNSUPPORTED, "the key was not made exportable");
		return;
	}
	if (req_change(q, &f.object, &none, CSM_OP_ANCHOR, sizeof(*e), export_clear, &c) != 0) {
		req_end_read(q);
		return;
	}
	e = (struct export_op *)c;
	csm_buf_init(&e->tss2, CSM_WRAPPED_MAX, true);
	r = export_make(q, &f, &e->tss2);
	req_end_read(q);
	if (r == 0) {
		op_commit(&c->op, export_told);
		return;
	}
	op_error(&c->op, r, NULL);
	op_done(&c->op);
}
