#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "daemon/node/deliver.h"
#include "daemon/node/loop.h"
#include "daemon/node/reload.h"
#include "daemon/node/watch.h"
#include "daemon/svc/log.h"

int policy_from_setup(const struct setup *s, struct csm_policy **ret, struct csm_policy_error *err)
{
	struct csm_resolver resolver = setup_resolver(s);
	const struct csm_policy_error *w;
	size_t n;
	int r = csm_policy_parse((const char *)s->policy.p, s->policy.n, &resolver, ret, err);

	if (r != 0)
		return r;
	n = csm_policy_warnings(*ret, &w);
	for (size_t i = 0; i < n; i++)
		log_warn("policy: line %u: %s", w[i].line, w[i].message);
	return 0;
}

/* A new policy on its way to the loops; the last one to have it tells those who wait. */
struct swap {
	struct broker *b;
	struct csm_policy *policy;
	struct reload_waiter *waiters;
	atomic_uint left;
	struct swap_task {
		struct task task;
		struct swap *swap;
	} tasks[];
};

static void answer_waiters(struct reload_waiter *w, int r, const struct csm_policy_error *err,
	const struct csm_policy *now)
{
	struct reload_waiter *next;

	for (; w != NULL; w = next) {
		next = w->next;
		w->done(w, r, err, now);
	}
}

static void swap_done(struct swap *s, unsigned n)
{
	uint8_t good = 1;

	if (atomic_fetch_sub(&s->left, n) != n)
		return;
	answer_waiters(s->waiters, 0, NULL, s->policy);
	if (control_send(CONTROL_FD, CTL_RELOADED, &good, 1, -1) != 0)
		log_warn("the supervisor does not listen");
	csm_policy_unref(s->policy);
	free(s);
}

static void swap_on_loop(struct loop *l, struct task *t)
{
	struct swap *s = ((struct swap_task *)t)->swap;
	struct csm_policy *old = l->policy;

	l->policy = csm_policy_ref(s->policy);
	csm_policy_unref(old);
	watch_judge(l);
	swap_done(s, 1);
}

/* Those who asked before the files were read that `seq` tells of. */
static struct reload_waiter *take_waiters(struct broker *b, uint64_t seq)
{
	struct reload_waiter *mine = NULL, **at;

	pthread_mutex_lock(&b->reload_lock);
	for (at = &b->reload_waiters; *at != NULL;) {
		struct reload_waiter *w = *at;

		if (w->seq > seq) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		w->next = mine;
		mine = w;
	}
	pthread_mutex_unlock(&b->reload_lock);
	return mine;
}

static struct swap *swap_new(const struct broker *b)
{
	struct swap *s;

	return calloc(1, sizeof(*s) + b->n_loops * sizeof(s->tasks[0]));
}

/* Takes s and p. */
static void swap_policy(struct broker *b, struct swap *s, struct csm_policy *p, uint64_t seq)
{
	unsigned ours = 1; /* and those of loops that have ended */

	s->b = b;
	s->policy = p;
	s->waiters = take_waiters(b, seq);
	s->left = b->n_loops + 1;
	csm_policy_unref(b->policy);
	b->policy = csm_policy_ref(p);
	for (unsigned i = 0; i < b->n_loops; i++) {
		s->tasks[i].swap = s;
		s->tasks[i].task.run = swap_on_loop;
		if (!loop_post(b->loops[i], &s->tasks[i].task))
			ours++;
	}
	swap_done(s, ours);
}

/* Who asked for it: the first of the administrators that wait; without one it was a signal to the supervisor. A reference
 * to where that is. */
static struct csm_audit_place *asked_by(struct broker *b, uint64_t seq, struct csm_audit_event *e)
{
	struct csm_audit_place *place = NULL;
	const struct reload_waiter *first = NULL;

	pthread_mutex_lock(&b->reload_lock);
	for (const struct reload_waiter *w = b->reload_waiters; w != NULL; w = w->next)
		if (w->seq <= seq && (first == NULL || w->seq < first->seq))
			first = w;
	if (first != NULL) {
		e->uid = first->uid;
		e->pid = first->pid;
		e->place = place = csm_audit_place_ref(first->place);
	}
	pthread_mutex_unlock(&b->reload_lock);
	e->object = first != NULL ? CSM_STR("policy") : CSM_STR("policy (signal)");
	return place;
}

/* A new policy is a change like any other: told before it is in force. It comes from root only. */
static int tell(struct broker *b, uint64_t seq, int r, struct csm_policy_error *err)
{
	struct csm_audit_event e = {.kind = CSM_AUDIT_CHANGE, .method = csm_methods[CSM_M_POLICY_RELOAD].name,
		.result = r == 0 ? "ok" : csm_err_name(r)};
	struct csm_audit_place *place;
	struct csm_audit_mark mark;
	int told;

	place = asked_by(b, seq, &e);
	told = csm_audit_group(b->audit, &e, 1, NULL, &mark);
	csm_audit_place_unref(place);
	if (told != 0 && r == 0)
		snprintf(err->message, sizeof(err->message), "the audit log cannot be written, and audit.mode is strict");
	return r != 0 ? r : told;
}

void policy_reload(struct broker *b, int fd)
{
	struct csm_policy_error err = {0};
	struct csm_policy *p = NULL;
	struct swap *swap = NULL;
	struct csm_buf mem;
	struct setup s;
	uint8_t good = 0;
	int r = setup_from_memfd(fd, &mem, &s);
	uint64_t seq = r == 0 ? s.reload_seq : UINT64_MAX;

	close(fd);
	deliver_ask_anew(b);
	if (r == 0) {
		if (s.policy_error.n > 0) {
			r = CSM_EINVALID;
			snprintf(err.message, sizeof(err.message), "%.*s", (int)s.policy_error.n, s.policy_error.p);
		} else {
			r = policy_from_setup(&s, &p, &err);
		}
		setup_clear(&s);
		csm_buf_free(&mem);
	}
	if (r == 0 && (swap = swap_new(b)) == NULL)
		r = CSM_ENOMEM;
	r = tell(b, seq, r, &err);
	if (r == 0) {
		log_info("policy: %zu identities, %zu rules in force", csm_policy_n_identities(p), csm_policy_n_rules(p));
		swap_policy(b, swap, p, seq);
		b->epoch_due = true; /* a policy that was changed is not to come back with an older store */
		return;
	}
	free(swap);
	csm_policy_unref(p);
	if (err.message[0] == '\0')
		snprintf(err.message, sizeof(err.message), "%s", csm_err_text(r));
	log_err("policy: line %u, column %u: %s; the old one stays in force", err.line, err.column, err.message);
	answer_waiters(take_waiters(b, seq), r, &err, NULL);
	if (control_send(CONTROL_FD, CTL_RELOADED, &good, 1, -1) != 0)
		log_warn("the supervisor does not listen");
}

void broker_want_reload(struct broker *b, struct reload_waiter *w)
{
	struct csm_policy_error err = {.message = "the daemon is stopping"};
	uint64_t seq;
	bool stopped;

	pthread_mutex_lock(&b->reload_lock);
	stopped = b->reload_stopped;
	seq = w->seq = ++b->reload_seq;
	if (!stopped) {
		w->next = b->reload_waiters;
		b->reload_waiters = w;
	}
	pthread_mutex_unlock(&b->reload_lock);
	if (stopped) {
		w->done(w, CSM_ESHUTDOWN, &err, NULL);
	} else if (control_send(CONTROL_FD, CTL_WANT_RELOAD, &seq, sizeof(seq), -1) != 0) {
		snprintf(err.message, sizeof(err.message), "the supervisor does not listen");
		answer_waiters(take_waiters(b, seq), CSM_EUNAVAILABLE, &err, NULL);
	}
}

void policy_reload_stop(struct broker *b)
{
	struct csm_policy_error err = {.message = "the daemon is stopping"};

	pthread_mutex_lock(&b->reload_lock);
	b->reload_stopped = true;
	pthread_mutex_unlock(&b->reload_lock);
	answer_waiters(take_waiters(b, UINT64_MAX), CSM_ESHUTDOWN, &err, NULL);
}
