/* recovery.status, recovery.create, recovery.restore. */
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include "daemon/node/dispatch.h"
#include "daemon/node/recovery.h"
#include "libclient/base/lockmem.h"

#define SET_TEXT (2 * CSM_SHARE_SET + 1)

void do_RECOVERY_STATUS(struct req *q)
{
	struct csm_msg_recovery_status_res res = {0};
	struct recovery_info info;
	char set[SET_TEXT];
	int r = recovery_info(q->loop->b->env, &info);

	if (r != 0 && r != CSM_ENOT_FOUND) {
		req_error(q, r, NULL);
		return;
	}
	res.present.v = r == 0;
	if (r == 0) {
		sodium_bin2hex(set, sizeof(set), info.set, sizeof(info.set));
		res.set = csm_str_of(set);
		res.shares = (struct csm_u64){info.count, true};
		res.threshold = (struct csm_u64){info.threshold, true};
		res.created = (struct csm_u64){info.created, true};
	}
	if ((r = csm_store_lost(q->loop->b->env, &res.keys_lost.v)) != 0)
		req_error(q, r, NULL);
	else
		req_result(q, &res);
}

/* ---- create ---- */

struct create {
	struct op op;
	struct recovery_info info;
	uint8_t record[RECOVERY_RECORD];
	struct created {
		struct csm_share shares[CSM_SHARES_MAX];
		char text[CSM_SHARES_MAX][CSM_SHARE_TEXT];
	} *s; /* locked memory */
	char why[128];
};

static void create_clear(struct op *op)
{
	csm_lock_free(((struct create *)op)->s);
}

static void create_answer(struct op *op)
{
	struct create *w = (struct create *)op;
	struct csm_msg_recovery_create_res res = {.threshold = {.v = w->info.threshold}};
	struct csm_str texts[CSM_SHARES_MAX];
	char set[SET_TEXT];

	if (op->r != 0) {
		op_error(op, op->r, w->why[0] != '\0' ? w->why : NULL);
	} else {
		sodium_bin2hex(set, sizeof(set), w->info.set, sizeof(w->info.set));
		res.set = csm_str_of(set);
		for (unsigned i = 0; i < w->info.count; i++) {
			csm_share_text(&w->s->shares[i], w->s->text[i]);
			texts[i] = csm_str_of(w->s->text[i]);
		}
		res.shares = (struct csm_strs){texts, w->info.count};
		op_result(op, CSM_DEF(recovery_create_res), &res);
	}
	op_done(op);
}

static void create_store(struct op *op)
{
	struct create *w = (struct create *)op;

	if (op->r != 0) {
		create_answer(op);
		return;
	}
	op->sop.kind = CSM_OP_REMEMBER;
	op->sop.name = CSM_STR(RECOVERY_PIN);
	op->sop.payload = (struct csm_bin){w->record, sizeof(w->record)};
	op_tell(op, CSM_STR("recovery shares"));
	op_commit(op, create_answer);
}

static void create_work(struct op *op)
{
	CSM_WIPED(root, 32);
	struct create *w = (struct create *)op;

	op->r = root_unseal(op->loop->b, op->loop->b->store, root);
	if (op->r != 0)
		snprintf(w->why, sizeof(w->why), "the root key cannot be had: %s", csm_err_text(op->r));
	else
		op->r = recovery_make(root, &w->info, w->record, w->s->shares);
}

void do_RECOVERY_CREATE(struct req *q)
{
	const struct csm_msg_recovery_create_req *m = q->params;
	struct broker *b = q->loop->b;
	struct csm_backend *be = broker_backend(b, CSM_STR("tpm2"));
	struct create *w;
	struct op *op;
	int r;

	if (b->cfg.root_key != CSM_ROOT_TPM || be == NULL) {
		req_error(q, CSM_ESTATE, "the root key is not in a TPM: keep what root_key_file names in a safe place instead");
		return;
	}
	if (m->threshold.v < 2 || m->threshold.v > m->shares.v || m->shares.v > CSM_SHARES_MAX) {
		req_error(q, CSM_EINVALID, "2 <= threshold <= shares <= 32 has to hold");
		return;
	}
	if ((r = op_new(q, sizeof(*w), create_clear, &op)) != 0) {
		req_error(q, r, NULL);
		return;
	}
	w = (struct create *)op;
	w->info.threshold = (uint8_t)m->threshold.v;
	w->info.count = (uint8_t)m->shares.v;
	w->s = csm_lock_alloc(sizeof(*w->s));
	r = w->s == NULL ? CSM_ENOMEM : op_to_backend(op, be, create_work, create_store);
	if (r != 0) {
		op_error(op, r, NULL);
		op_done(op);
	}
}

/* ---- restore ---- */

static void restore_clear(struct op *op)
{
	csm_lock_free(((struct restore *)op)->s);
}

static void restore_answer(struct op *op)
{
	struct restore *w = (struct restore *)op;
	struct csm_msg_recovery_restore_res res = {
		.new_tpm = {.v = w->changed}, .keys_lost = {.v = w->lost}, .sealed = csm_str_of(w->seal.sealed)};

	if (op->r != 0)
		op_error(op, op->r, w->why[0] != '\0' ? w->why : NULL);
	else
		op_result(op, CSM_DEF(recovery_restore_res), &res);
	op_done(op);
}

/* The store is open again. A locked one takes nothing but its acceptance, which is told by itself. */
static void restore_told(struct op *op)
{
	struct restore *w = (struct restore *)op;

	if (op->r != 0 || op->loop->b->state == BROKER_LOCKED) {
		restore_answer(op);
		return;
	}
	op->sop.kind = CSM_OP_ANCHOR;
	op_tell(op, csm_str_of(w->object));
	op_commit(op, restore_answer);
}

static int take_shares(const struct csm_strs *texts, struct restore *w)
{
	const char *why;

	for (w->n = 0; w->n < texts->n && w->n < CSM_SHARES_MAX; w->n++)
		if (csm_share_parse(texts->v[w->n].p, texts->v[w->n].n, &w->s->shares[w->n], &why) != 0) {
			snprintf(w->why, sizeof(w->why), "share %zu: %s", w->n + 1, why);
			return CSM_EINVALID;
		}
	return 0;
}

void do_RECOVERY_RESTORE(struct req *q)
{
	const struct csm_msg_recovery_restore_req *m = q->params;
	struct broker *b = q->loop->b;
	struct restore *w;
	struct op *op;
	int r;

	if (b->store != NULL || b->cfg.root_key != CSM_ROOT_TPM) {
		req_error(q, CSM_ESTATE, b->store != NULL ? "there is nothing to restore: the root key is there" :
							"the root key is not in a TPM");
		return;
	}
	if ((r = op_new(q, sizeof(*w), restore_clear, &op)) != 0) {
		req_error(q, r, NULL);
		return;
	}
	w = (struct restore *)op;
	op->apply = restore_told;
	w->accept_counter = m->accept_counter.v;
	w->s = csm_lock_alloc(sizeof(*w->s));
	r = w->s == NULL ? CSM_ENOMEM : take_shares(&m->shares, w);
	if (r == 0)
		r = recovery_post(b, w);
	if (r != 0) {
		op_error(op, r, w->why[0] != '\0' ? w->why : NULL);
		op_done(op);
	}
}
