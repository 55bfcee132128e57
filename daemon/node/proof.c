#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/node/proof.h"
#include "daemon/svc/log.h"

/* A request that waits for the look at its peer's program, with a copy of its params. */
struct look_op {
	struct op op;
	struct ask ask;
	struct csm_buf raw; /* secret */
	uint64_t serial;    /* of the connection's proof when the request came; 0: there was none */
	bool asked, waits;  /* waits: its answer is there, but not its turn */
	bool ordered;       /* in conn->in_order */
	struct look_op *next;
};

static void look_clear(struct op *op)
{
	csm_buf_free(&((struct look_op *)op)->raw);
}

static bool is_proven(const struct conn *c, const struct look_op *w)
{
	/* What was sent before the proof was not sent by who has proven it. */
	return c->proof != NULL && c->proof->proven && w->serial != 0 && w->serial == c->proof_serial &&
		csm_exe_same(&c->proof->exe, &w->ask.exe);
}

/* As if the request came now. */
static void judge(struct look_op *w)
{
	struct look look = {.r = w->ask.r, .why = w->ask.why, .exe = &w->ask.exe};
	struct op *op = &w->op;
	struct conn *c = op->conn;

	/* The helper went by the pid: a process that has ended since is not who was looked at. */
	if (c != NULL && (!w->asked || peer_lives(c->peer))) {
		look.proven = look.r == 0 && is_proven(c, w);
		dispatch_again(c, op->method, op->msgid, (struct csm_bin){csm_buf_ptr(&w->raw), w->raw.len},
			w->asked ? &look : NULL);
	}
	op_done(op);
}

static bool ask_late(struct look_op *w);

/* Those whose turn it is: up to the first one that still waits for its look. */
static void judge_in_order(struct conn *c)
{
	struct look_op *w;

	while ((w = c->in_order) != NULL && w->waits && !ask_late(w)) {
		c->in_order = w->next;
		judge(w);
	}
}

/* Back on the loop. */
static void look_apply(struct op *op)
{
	struct look_op *w = (struct look_op *)op;

	w->waits = true;
	if (!w->ordered || op->conn == NULL)
		judge(w);
	else
		judge_in_order(op->conn);
}

void proof_forget(struct conn *c)
{
	struct look_op *w, *next;

	/* The others are given up when their answers come. */
	for (w = c->in_order; w != NULL; w = next) {
		next = w->next;
		if (w->waits)
			op_done(&w->op);
	}
	c->in_order = NULL;
}

static void look_done(struct ask *ask)
{
	struct look_op *w = (struct look_op *)((char *)ask - offsetof(struct look_op, ask));

	w->op.apply = look_apply;
	if (op_post(&w->op) != 0)
		abort();
}

/* The parts of a message are hashed in the order in which they came, whatever becomes of the policy meanwhile, and whichever
 * answer csm-ident gives first. */
static bool is_step(const struct csm_method *m)
{
	return m == &csm_methods[CSM_M_SIGN_INIT] || m == &csm_methods[CSM_M_SIGN_UPDATE] ||
		m == &csm_methods[CSM_M_SIGN_FINAL] || m == &csm_methods[CSM_M_ISSUE_BEGIN] ||
		m == &csm_methods[CSM_M_ISSUE_UPDATE] || m == &csm_methods[CSM_M_ISSUE_FINISH];
}

static void put_in_order(struct conn *c, struct look_op *w)
{
	struct look_op **at = &c->in_order;

	while (*at != NULL)
		at = &(*at)->next;
	*at = w;
	w->ordered = true;
}

static void ask_now(struct look_op *w, bool digest)
{
	struct op *op = &w->op;

	w->asked = true;
	w->waits = false;
	w->ask = (struct ask){.pid = op->pid, .uid = op->uid, .digest = digest, .done = look_done};
	w->ask.user = op->slot->number;
	asks_put(op->loop->b->asks, op->loop, &w->ask);
}

/* looks: it needs one; else it only waits for its turn. */
static int send_off(struct req *q, bool looks, bool digest)
{
	struct op *op;
	struct look_op *w;
	int r = op_new(q, sizeof(*w), look_clear, &op);

	if (r != 0)
		return r;
	w = (struct look_op *)op;
	csm_buf_init_message(&w->raw, CSM_MESSAGE_MAX);
	if ((r = op_charge(op, q->raw.n)) != 0 || (r = csm_buf_put(&w->raw, q->raw.p, q->raw.n)) != 0) {
		op_done(op);
		return r;
	}
	w->serial = q->conn->proof != NULL && q->conn->proof->proven ? q->conn->proof_serial : 0;
	w->waits = !looks;
	if (is_step(q->method))
		put_in_order(q->conn, w);
	if (looks)
		ask_now(w, digest);
	return 0;
}

/* Does the request need a look, and at the digest too? */
static bool wants_look(struct req *q, bool *digest)
{
	const struct conn *c = q->conn;
	const struct csm_subject *s;

	if (c->role != CSM_R_PUBLIC || c->peer == NULL || peer_subject(c->peer, &s) != 0)
		return false;
	if (q->method == &csm_methods[CSM_M_PROVE] || q->method == &csm_methods[CSM_M_WHOAMI]) {
		*digest = c->proof != NULL && c->proof->exe.hashed;
		return c->proof != NULL;
	}
	return csm_subject_wants_exe(s, q->method->perm, digest);
}

/* When it came it needed no look, but by the policy of now it does. */
static bool ask_late(struct look_op *w)
{
	struct req q = {.conn = w->op.conn, .loop = w->op.loop, .method = w->op.method};
	bool digest = false;

	if (w->asked || !csm_policy_needs_exe(q.loop->policy) || !wants_look(&q, &digest))
		return false;
	ask_now(w, digest);
	return true;
}

bool proof_defer(struct req *q)
{
	bool digest = false, looks = csm_policy_needs_exe(q->loop->policy) && wants_look(q, &digest);
	int r;

	if (!looks && (q->conn->in_order == NULL || !is_step(q->method)))
		return false;
	if ((r = send_off(q, looks, digest)) != 0)
		req_error(q, r, NULL);
	return true;
}

int proof_decide(struct req *q, int perm, struct csm_str object)
{
	const struct csm_subject *base, *s;
	int r = peer_subject(q->conn->peer, &base);

	if (r != 0)
		return r;
	if (!csm_subject_wants_exe(base, perm, NULL))
		return CSM_EDENIED;
	if (q->look->r != 0)
		return q->look->r;
	if ((r = peer_subject_with(q->conn->peer, q->look->exe, &s)) != 0)
		return r;
	r = csm_policy_decide(s, perm, object, NULL, NULL);
	return r == 0 && !q->look->proven ? CSM_EPROOF_REQUIRED : r;
}

int proof_home(struct req *q, const struct csm_subject *base, struct csm_str *ret, const char **why)
{
	const struct csm_subject *s;
	struct csm_str without, with;
	int r = csm_subject_home(base, &without, why), rw;

	if (!csm_subject_home_wants_exe(base)) {
		if (r == 0)
			*ret = without;
		return r;
	}
	/* Where a bare name is must not depend on whether the helper was there. */
	if (q->look->r != 0) {
		*why = q->look->why;
		return q->look->r;
	}
	if ((rw = peer_subject_with(q->conn->peer, q->look->exe, &s)) != 0)
		return rw;
	rw = csm_subject_home(s, &with, why);
	if (!q->look->proven && (rw != r || (rw == 0 && !csm_str_same(with, without))))
		return CSM_EPROOF_REQUIRED;
	if (rw == 0)
		*ret = with;
	return rw;
}

void proof_challenge(struct req *q)
{
	struct conn *c = q->conn;
	struct proof *p = c->proof;

	if (p == NULL && (p = c->proof = calloc(1, sizeof(*p))) == NULL) {
		req_error(q, CSM_ENOMEM, NULL);
		return;
	}
	/* Requests that are on their way together get one nonce. */
	if (sodium_is_zero(p->nonce, sizeof(p->nonce)) || !csm_exe_same(&p->exe, q->look->exe)) {
		p->proven = false;
		p->exe = *q->look->exe;
		randombytes_buf(p->nonce, sizeof(p->nonce));
	} else if (q->look->exe->hashed) {
		p->exe = *q->look->exe;
	}
	log_debug("proof required: method=%s uid=%u peer_pid=%d", q->method->name, req_uid(q), (int)req_pid(q));
	conn_proof_required(c, q->msgid, (struct csm_bin){p->nonce, sizeof(p->nonce)});
}

static void refuse_proof(struct req *q, int r, const char *why)
{
	if (r == CSM_EDENIED)
		req_refuse(q, r, CSM_STR("-"), why);
	else
		req_error(q, r, why);
}

void do_PROVE(struct req *q)
{
	static const struct csm_msg_empty nothing = {0};
	const struct csm_msg_prove_req *m = q->params;
	struct proof *p = q->conn->proof;

	if (p == NULL || q->look == NULL || sodium_is_zero(p->nonce, sizeof(p->nonce)) ||
		m->nonce.n != sizeof(p->nonce) || sodium_memcmp(m->nonce.p, p->nonce, sizeof(p->nonce)) != 0) {
		refuse_proof(q, CSM_EDENIED, "the nonce is not one of this connection");
	} else if (q->look->r != 0) {
		refuse_proof(q, q->look->r, q->look->why);
	} else if (!csm_exe_same(&p->exe, q->look->exe)) {
		sodium_memzero(p, sizeof(*p));
		refuse_proof(q, CSM_EDENIED, "the program is not the one that the nonce was given to");
	} else {
		if (!p->proven)
			q->conn->proof_serial++;
		p->proven = true;
		req_result(q, &nothing);
	}
}

void do_IDENT_ANSWER(struct req *q)
{
	static const struct csm_msg_empty nothing = {0};

	if (asks_answer(q->loop->b->asks, q->loop, q->params))
		req_result(q, &nothing);
	else
		req_error(q, CSM_ENOT_FOUND, NULL);
}

void proof_notified(struct conn *c, const struct csm_frame *f)
{
	struct csm_msg_ident_answer m;
	struct csm_str bad;

	if (!csm_str_eq(f->method, "ident.answer") ||
		csm_msg_decode(CSM_DEF(ident_answer), f->params, CSM_UNKNOWN_REFUSE, &c->loop->pool, &m, &bad) != 0 ||
		!asks_answer(c->loop->b->asks, c->loop, &m))
		log_debug("an answer of csm-ident that nobody awaits");
}
