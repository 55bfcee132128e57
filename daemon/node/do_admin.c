/* policy.explain, policy.reload, policy.check, store.accept. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/node/dispatch.h"

#define EXES_MAX 64u

/* ---- explain ---- */

/* What no peer is known by now. */
static void forget_cgroup(struct csm_facts *f)
{
	char **const facts[] = {&f->unit, &f->user_unit, &f->container, &f->pod};

	for (size_t i = 0; i < sizeof(facts) / sizeof(facts[0]); i++) {
		free(*facts[i]);
		*facts[i] = NULL;
	}
}

static void answer_explain(struct req *q, const struct csm_subject *s, const struct csm_method *m, struct csm_str object)
{
	struct csm_msg_explain_res res = {0};
	const char *rule = NULL, *name;
	unsigned line = 0;
	size_t n = 0;

	if (m->perm == CSM_PERM_OPEN || m->perm == CSM_PERM_ADMIN) {
		res.allowed.v = m->perm == CSM_PERM_OPEN;
		rule = m->perm == CSM_PERM_OPEN ? "no grant is needed" : "served on the admin socket only";
	} else {
		res.allowed.v = csm_policy_decide(s, m->perm, object, &rule, &line) == 0;
	}
	if (!res.allowed.v && req_degraded(q) != NULL)
		rule = req_degraded(q);
	res.rule = csm_str_of(rule != NULL ? rule : "");
	res.line = (struct csm_u64){line, line != 0};
	while (csm_subject_identity(s, n) != NULL)
		n++;
	res.identities.v = csm_pool_alloc(&q->loop->pool, (n + 1) * sizeof(*res.identities.v));
	for (size_t i = 0; res.identities.v != NULL && (name = csm_subject_identity(s, i)) != NULL; i++)
		res.identities.v[res.identities.n++] = csm_str_of(name);
	req_result(q, &res);
}

/* The object as a request of that subject would mean it: a bare name is in its home namespace. */
static int whole_object(struct req *q, const struct csm_subject *s, struct csm_str given, char *buf, size_t cap,
	struct csm_str *ret)
{
	struct csm_str home;
	const char *why = NULL;
	int r, n;

	*ret = given;
	if (given.n > 0 && memchr(given.p, ':', given.n) != NULL)
		return 0;
	if ((r = csm_subject_home(s, &home, &why)) != 0) {
		req_error(q, r == CSM_EAMBIGUOUS ? r : CSM_EINVALID,
			why != NULL ? why : "a bare name needs a home namespace: write NAMESPACE:NAME");
		return CSM_EINVALID;
	}
	n = snprintf(buf, cap, "%.*s:%.*s", (int)home.n, home.p, (int)given.n, given.p);
	if (n < 0 || (size_t)n >= cap)
		return CSM_ETOO_LARGE;
	*ret = (struct csm_str){buf, (size_t)n};
	return 0;
}

void do_POLICY_EXPLAIN(struct req *q)
{
	const struct csm_msg_explain_req *m = q->params;
	const struct csm_method *method = csm_method_find(m->method);
	struct csm_facts facts;
	struct csm_subject *own = NULL;
	const struct csm_subject *s;
	char buf[CSM_SECRETREF_MAX + CSM_NAMESPACE_MAX + 2];
	struct csm_str object;
	int r;

	memset(&facts, 0, sizeof(facts));
	if (method == NULL) {
		req_error(q, CSM_EINVALID, "there is no such method");
		return;
	}
	if (m->selectors.n > 0) {
		r = csm_facts_from_selectors(m->selectors.v, m->selectors.n, &facts);
		if (q->loop->b->degraded != NULL)
			forget_cgroup(&facts);
		if (r == 0)
			r = csm_subject_new(q->loop->policy, &facts, &own);
		s = own;
	} else {
		r = peer_subject(q->conn->peer, &s);
	}
	if (r != 0)
		req_error(q, r, r == CSM_EINVALID ?
			"a selector is NAME=VALUE, by uid, gid, unit, user_unit, container, pod, label, exe or exe_sha256" : NULL);
	else if (whole_object(q, s, m->object, buf, sizeof(buf), &object) == 0)
		answer_explain(q, s, method, object);
	csm_subject_free(own);
	csm_facts_clear(&facts);
}

/* ---- reload ---- */

struct reload_op {
	struct op op;
	struct reload_waiter waiter;
	struct csm_policy_error err;
	size_t identities, rules;
};

static void reload_apply(struct op *op)
{
	struct reload_op *w = (struct reload_op *)op;
	struct csm_msg_reload_res res = {.identities = {.v = w->identities}, .rules = {.v = w->rules}};
	char text[400];

	if (op->r == 0) {
		op_result(op, CSM_DEF(reload_res), &res);
	} else {
		if (w->err.line > 0)
			snprintf(text, sizeof(text), "the policy stays as it was: line %u, column %u: %s", w->err.line,
				w->err.column, w->err.message);
		else
			snprintf(text, sizeof(text), "the policy stays as it was: %s", w->err.message);
		op_error(op, op->r, text);
	}
	op_done(op);
}

static void reloaded(struct reload_waiter *waiter, int r, const struct csm_policy_error *err, const struct csm_policy *now)
{
	struct reload_op *w = (struct reload_op *)((char *)waiter - offsetof(struct reload_op, waiter));

	w->op.r = r;
	if (err != NULL)
		w->err = *err;
	if (now != NULL) {
		w->identities = csm_policy_n_identities(now);
		w->rules = csm_policy_n_rules(now);
	}
	w->op.apply = reload_apply;
	if (op_post(&w->op) != 0)
		abort();
}

void do_POLICY_RELOAD(struct req *q)
{
	struct reload_op *w;
	struct op *op;
	int r = op_new(q, sizeof(*w), NULL, &op);

	if (r != 0) {
		req_error(q, r, NULL);
		return;
	}
	w = (struct reload_op *)op;
	w->waiter.done = reloaded;
	w->waiter.uid = op->uid;
	w->waiter.pid = op->pid;
	w->waiter.place = op->place;
	broker_want_reload(q->loop->b, &w->waiter);
}

/* ---- check ---- */

static void list_exes(struct req *q, const struct csm_policy *p, struct csm_msg_check_res *res)
{
	struct csm_msg_check_exe *v = csm_pool_alloc(&q->loop->pool, EXES_MAX * sizeof(*v));
	struct csm_policy_exe e;

	res->exes.v = v;
	for (size_t i = 0; v != NULL && i < EXES_MAX && csm_policy_exe(p, i, &e); i++)
		v[res->exes.n++] = (struct csm_msg_check_exe){.identity = csm_str_of(e.identity), .line = {e.line, true},
			.path = csm_str_of(e.path), .uid = {e.uid, e.uid != UINT32_MAX}, .user = csm_str_of(e.user)};
}

struct names {
	struct csm_pool *pool;
	struct csm_strs *users, *groups;
};

static void name_found(void *arg, bool group, const char *name)
{
	struct names *n = arg;
	struct csm_strs *to = group ? n->groups : n->users;
	size_t len = strlen(name);
	char *copy = to->v == NULL || to->n == CSM_POLICY_NAMES_TOLD_MAX || len > CSM_POLICY_NAME_TOLD_MAX ? NULL :
		csm_pool_alloc(n->pool, len + 1);

	if (copy == NULL)
		return;
	memcpy(copy, name, len + 1);
	to->v[to->n++] = (struct csm_str){copy, len};
}

/* What could be told is told. */
static void list_names(struct req *q, struct csm_str policy, struct csm_msg_check_res *res)
{
	struct names n = {&q->loop->pool, &res->users, &res->groups};
	struct csm_policy_error err;

	res->users.v = csm_pool_alloc(n.pool, CSM_POLICY_NAMES_TOLD_MAX * sizeof(*res->users.v));
	res->groups.v = csm_pool_alloc(n.pool, CSM_POLICY_NAMES_TOLD_MAX * sizeof(*res->groups.v));
	if (csm_policy_names(policy.p, policy.n, name_found, &n, &err) != 0)
		res->users.n = res->groups.n = 0;
}

void do_POLICY_CHECK(struct req *q)
{
	const struct csm_msg_check_req *m = q->params;
	struct csm_msg_check_res res = {0};
	const struct csm_policy_error *warnings;
	struct csm_policy_error err = {0};
	struct csm_policy *p = NULL;
	int r = csm_policy_parse(m->policy.p, m->policy.n, NULL, &p, &err);
	size_t n = 0;

	if (r != 0 && r != CSM_EINVALID) {
		req_error(q, r, NULL);
		return;
	}
	res.valid.v = r == 0;
	if (r != 0) {
		res.line = (struct csm_u64){err.line, err.line != 0};
		res.column = (struct csm_u64){err.column, err.column != 0};
		res.message = csm_str_of(err.message);
	} else {
		n = csm_policy_warnings(p, &warnings);
	}
	res.warnings.v = csm_pool_alloc(&q->loop->pool, (n + 1) * sizeof(*res.warnings.v));
	for (size_t i = 0; res.warnings.v != NULL && i < n && i < 64; i++) {
		char *text = csm_pool_alloc(&q->loop->pool, 320);

		if (text == NULL)
			break;
		snprintf(text, 320, "line %u: %s", warnings[i].line, warnings[i].message);
		res.warnings.v[res.warnings.n++] = csm_str_of(text);
	}
	if (p != NULL) {
		list_exes(q, p, &res);
		list_names(q, m->policy, &res);
	}
	req_result(q, &res);
	csm_policy_unref(p);
}

/* ---- accept ---- */

static void accepted(struct op *op)
{
	if (op->r == 0)
		broker_unlock(op->loop->b);
	op_finish_change(op);
}

void do_STORE_ACCEPT(struct req *q)
{
	struct broker *b = q->loop->b;
	struct op *op;
	int r = b->state == BROKER_LOCKED ? 0 : CSM_ESTATE;

	if (r == 0)
		r = op_new(q, sizeof(*op), NULL, &op);
	if (r != 0) {
		req_error(q, r, r == CSM_ESTATE ? "there is nothing to accept: the store is as csmd left it" : NULL);
		return;
	}
	op->sop.kind = CSM_OP_ACCEPT;
	op_tell(op, CSM_STR("store"));
	op_commit(op, accepted);
}
