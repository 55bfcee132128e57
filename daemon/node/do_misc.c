/* random, seal, unseal. */
#include <openssl/rand.h>
#include <string.h>
#include "daemon/node/dispatch.h"

void do_RANDOM(struct req *q)
{
	const struct csm_msg_random_req *m = q->params;
	struct csm_msg_random_res res = {0};
	const struct csm_subject *s;
	struct csm_str home;
	const char *why;
	uint8_t *p;
	int r;

	/* No object, but a peer that no policy serves is not served. */
	r = q->conn->peer == NULL ? CSM_EDENIED : peer_subject(q->conn->peer, &s);
	if (r == 0 && csm_subject_home(s, &home, &why) == CSM_ENO_POLICY)
		r = CSM_ENO_POLICY;
	if (r == 0 && m->bytes.v == 0)
		r = CSM_EINVALID;
	if (r == 0)
		r = csm_buf_reserve(&q->loop->plain, m->bytes.v, &p);
	if (r == 0 && RAND_priv_bytes(p, (int)m->bytes.v) != 1)
		r = CSM_ENOMEM;
	if (r == 0)
		csm_buf_commit(&q->loop->plain, m->bytes.v); /* so that it is wiped with the rest */
	if (r != 0) {
		req_error(q, r, NULL);
		return;
	}
	res.random = (struct csm_bin){p, m->bytes.v};
	req_result(q, &res);
}

/* ---- seal ---- */

struct seal_op {
	struct op op;
	struct object object;
	struct csm_buf data, context; /* data is secret */
};

static void seal_clear(struct op *op)
{
	csm_buf_free(&((struct seal_op *)op)->data);
	csm_buf_free(&((struct seal_op *)op)->context);
}

/* Where the namespace has no key yet, one is made first; then the seal is tried again. */
static void namespace_made(struct op *op)
{
	struct seal_op *s = (struct seal_op *)op;
	struct csm_reader *reader = loop_reader(op->loop);
	struct csm_bin data = {csm_buf_ptr(&s->data), s->data.len};
	struct csm_bin context = {csm_buf_ptr(&s->context), s->context.len};
	struct csm_msg_seal_res res = {0};
	struct csm_buf out;
	int r = op->r;

	csm_buf_init(&out, CSM_MESSAGE_MAX, false);
	if (r == 0 && (r = csm_reader_begin(reader)) == 0) {
		r = csm_store_seal(reader, s->object.ns, context, data, &out);
		csm_reader_end(reader);
	}
	res.sealed = (struct csm_bin){csm_buf_ptr(&out), out.len};
	if (r == 0) {
		op_used(op, s->object.text);
		op_result(op, CSM_DEF(seal_res), &res);
	} else {
		op_error(op, r, NULL);
	}
	csm_buf_free(&out);
	op_done(op);
}

static void make_namespace(struct req *q, const struct csm_msg_seal_req *m, const struct object *o)
{
	struct seal_op *s;
	struct op *op;
	int r = op_new(q, sizeof(*s), seal_clear, &op);

	if (r != 0) {
		req_error(q, r, NULL);
		return;
	}
	s = (struct seal_op *)op;
	csm_buf_init_message(&s->data, CSM_SEAL_MAX);
	csm_buf_init(&s->context, CSM_MESSAGE_MAX, false);
	object_copy(&s->object, o);
	r = op_charge(op, m->data.n);
	if (r == 0)
		r = csm_buf_put(&s->data, m->data.p, m->data.n);
	if (r == 0 && m->context.n > 0)
		r = csm_buf_put(&s->context, m->context.p, m->context.n);
	if (r != 0) {
		op_error(op, r, NULL);
		op_done(op);
		return;
	}
	op->sop.kind = CSM_OP_NAMESPACE;
	op->sop.ns = s->object.ns;
	op_commit(op, namespace_made);
}

void do_SEAL(struct req *q)
{
	const struct csm_msg_seal_req *m = q->params;
	struct csm_msg_seal_res res = {0};
	struct csm_reader *reader;
	struct object o;
	int r;

	if (req_namespace(q, m->namespace, &o) != 0 || req_authorize(q, &o) != 0 || req_begin_read(q, &reader) != 0)
		return;
	r = csm_store_seal(reader, o.ns, m->context, m->data, &q->loop->body);
	req_end_read(q);
	res.sealed = (struct csm_bin){csm_buf_ptr(&q->loop->body), q->loop->body.len};
	if (r == 0) {
		req_used(q, o.text);
		req_result(q, &res);
	} else if (r == CSM_ENOT_FOUND) {
		make_namespace(q, m, &o);
	} else {
		req_error(q, r, NULL);
	}
}

void do_UNSEAL(struct req *q)
{
	const struct csm_msg_unseal_req *m = q->params;
	struct csm_msg_unseal_res res = {0};
	struct csm_reader *reader;
	struct object o;
	int r;

	if (req_namespace(q, m->namespace, &o) != 0 || req_authorize(q, &o) != 0 || req_begin_read(q, &reader) != 0)
		return;
	r = csm_store_unseal(reader, o.ns, m->context, m->sealed, &q->loop->plain);
	req_end_read(q);
	res.data = (struct csm_bin){csm_buf_ptr(&q->loop->plain), q->loop->plain.len};
	if (r == 0) {
		req_used(q, o.text);
		req_result(q, &res);
	} else {
		req_error(q, CSM_EINVALID, "the data was not sealed here, in this namespace and context");
	}
}
