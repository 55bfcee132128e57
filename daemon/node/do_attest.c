/* key.attest, attest.activate. */
#include <string.h>
#include "daemon/node/keycall.h"

void do_KEY_ATTEST(struct req *q)
{
	const struct csm_msg_attest_req *m = q->params;
	struct key_call call = {.what = KEY_WHAT_ATTEST, .in = m->nonce};
	struct key_found f;

	if (key_find(q, m->key, m->spki_sha256, CSM_USE_SIGN | CSM_USE_DECRYPT | CSM_USE_DERIVE | CSM_USE_ISSUER, &f) == 0)
		key_call_run(q, &f, &call);
}

/* ---- the proof that the attestation key is in the TPM of the endorsement key ---- */

struct activate_op {
	struct op op; /* first */
	struct csm_backend *be;
	struct csm_plugin_credential cred; /* slices of what follows */
	uint8_t ak_name[CSM_TPM_NAME_MAX], ek_name[CSM_TPM_NAME_MAX], blob[256], secret[1024];
	uint8_t proof[CSM_PLUGIN_PROOF_LEN];
};

static void activate_work(struct op *op)
{
	struct activate_op *a = (struct activate_op *)op;
	struct csm_plugin_out out = {.p = a->proof, .cap = sizeof(a->proof)};

	op->r = csm_be_activate(a->be, &a->cred, &out);
	if (op->r == 0 && out.len != sizeof(a->proof))
		op->r = CSM_EBACKEND;
}

static void activate_apply(struct op *op)
{
	struct activate_op *a = (struct activate_op *)op;
	struct csm_msg_activate_res res = {.proof = {a->proof, sizeof(a->proof)}};

	if (op->r == 0) {
		op_used(op, CSM_STR("attestation-key"));
		op_result(op, op->method->response, &res);
	} else {
		op_error(op, op->r, op->r == CSM_EINVALID ? "the challenge is not for this TPM and its attestation key" : NULL);
	}
	op_done(op);
}

static void copy(struct csm_bin from, uint8_t *to, const uint8_t **p, size_t *n)
{
	if (from.n > 0)
		memcpy(to, from.p, from.n);
	*p = to;
	*n = from.n;
}

static struct csm_backend *can_activate(struct broker *b)
{
	for (size_t i = 0; i < b->n_backends; i++)
		if (b->backends[i].plugin->activate != NULL)
			return &b->backends[i];
	return NULL;
}

void do_ATTEST_ACTIVATE(struct req *q)
{
	const struct csm_msg_activate_req *m = q->params;
	struct csm_backend *be = can_activate(q->loop->b);
	struct activate_op *a;
	struct op *op;
	int r = be == NULL ? CSM_EUNSUPPORTED : op_new(q, sizeof(*a), NULL, &op);

	if (r != 0) {
		req_error(q, r, be == NULL ? "no back end of this node has an attestation key" : NULL);
		return;
	}
	a = (struct activate_op *)op;
	a->be = be;
	/* The decoder has bounded each by its row in messages.def. */
	copy(m->ak_name, a->ak_name, &a->cred.ak_name, &a->cred.ak_name_len);
	copy(m->ek_name, a->ek_name, &a->cred.ek_name, &a->cred.ek_name_len);
	copy(m->credential, a->blob, &a->cred.blob, &a->cred.blob_len);
	copy(m->secret, a->secret, &a->cred.secret, &a->cred.secret_len);
	if ((r = op_to_backend(op, be, activate_work, activate_apply)) != 0) {
		op_error(op, r, NULL);
		op_done(op);
	}
}
