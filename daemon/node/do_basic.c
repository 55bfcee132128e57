/* hello, ping, whoami. */
#include <string.h>
#include "daemon/node/dispatch.h"
#include "daemon/svc/log.h"

void do_HELLO(struct req *q)
{
	const struct csm_msg_hello_req *m = q->params;
	struct csm_msg_hello_res res = {
		.version = {.v = CSM_PROTO_VERSION},
		.server = CSM_STR("csmd " CSM_VERSION),
		.max_message = {.v = CSM_MESSAGE_MAX},
		.max_depth = {.v = CSM_DEPTH_MAX},
		.max_in_flight = {.v = CSM_IN_FLIGHT_MAX},
	};

	if (m->version.set && m->version.v != CSM_PROTO_VERSION)
		req_error(q, CSM_EUNSUPPORTED, "this daemon speaks version 1");
	else
		req_result(q, &res);
}

void do_PING(struct req *q)
{
	const struct csm_msg_ping_req *m = q->params;
	struct csm_msg_ping_res res = {.data = m->data};

	req_result(q, &res);
}

static size_t list_identities(const struct csm_subject *s, struct csm_pool *pool, struct csm_strs *ret)
{
	size_t n = 0;

	while (csm_subject_identity(s, n) != NULL)
		n++;
	ret->v = csm_pool_alloc(pool, n * sizeof(*ret->v) + 1);
	for (size_t i = 0; ret->v != NULL && i < n; i++)
		ret->v[ret->n++] = csm_str_of(csm_subject_identity(s, i));
	return ret->n;
}

/* ---- namespaces ---- */

#define NAMESPACES_LOOKED_AT 4096u /* of the store's, where a rule has a pattern */

struct spaces {
	const struct csm_subject *subject;
	struct csm_pool *pool;
	struct csm_strs *list; /* room for CSM_NAMESPACES_TOLD_MAX */
	size_t looked_at;
};

static void space_add(void *arg, struct csm_str ns)
{
	struct spaces *sp = arg;
	char *copy;

	if (sp->list->n == CSM_NAMESPACES_TOLD_MAX)
		return;
	for (size_t i = 0; i < sp->list->n; i++)
		if (csm_str_same(sp->list->v[i], ns))
			return;
	copy = csm_pool_alloc(sp->pool, ns.n);
	if (copy == NULL)
		return;
	memcpy(copy, ns.p, ns.n);
	sp->list->v[sp->list->n++] = (struct csm_str){copy, ns.n};
}

static bool space_of_store(void *arg, struct csm_str ns)
{
	struct spaces *sp = arg;

	if (csm_subject_in_namespace(sp->subject, ns))
		space_add(sp, ns);
	return sp->list->n < CSM_NAMESPACES_TOLD_MAX && ++sp->looked_at < NAMESPACES_LOOKED_AT;
}

/* Patterns name no namespace by themselves: then those are told that the store has and a pattern matches. */
static void list_namespaces(struct req *q, const struct csm_subject *s, struct csm_str home, struct csm_strs *ret)
{
	struct spaces sp = {.subject = s, .pool = &q->loop->pool, .list = ret};

	ret->v = csm_pool_alloc(sp.pool, CSM_NAMESPACES_TOLD_MAX * sizeof(*ret->v));
	if (ret->v == NULL)
		return;
	if (home.p != NULL)
		space_add(&sp, home);
	if (!csm_subject_namespaces(s, space_add, &sp) || q->loop->b->state != BROKER_READY)
		return;
	if (!q->loop->reading && loop_begin_read(q->loop) != 0)
		return;
	/* what could be read is told: whoami answers in any state */
	if (csm_store_namespace_list(q->loop->reader, space_of_store, &sp) != 0)
		log_debug("whoami: namespaces that match a pattern are left out");
	req_end_read(q);
}

/* Those of `all` where policy denies a list. */
static void list_denied(struct req *q, int perm, const struct csm_strs *all, struct csm_strs *ret)
{
	char text[CSM_NAMESPACE_MAX + 1];

	ret->v = csm_pool_alloc(&q->loop->pool, (all->n + 1) * sizeof(*ret->v));
	if (ret->v == NULL)
		return;
	for (size_t i = 0; i < all->n; i++) {
		memcpy(text, all->v[i].p, all->v[i].n);
		text[all->v[i].n] = ':';
		if (req_decide(q, perm, (struct csm_str){text, all->v[i].n + 1}) == CSM_EDENIED)
			ret->v[ret->n++] = all->v[i];
	}
}

void do_WHOAMI(struct req *q)
{
	struct csm_msg_whoami_res res = {0};
	const struct csm_facts *f = &q->conn->peer->facts;
	const struct csm_subject *s;
	const char *why = NULL;
	int r = req_subject(q, &s);

	if (r != 0) {
		req_error(q, r, NULL);
		return;
	}
	res.uid.v = f->uid;
	res.gid.v = f->gid;
	res.pid.v = (uint64_t)f->pid;
	list_identities(s, &q->loop->pool, &res.identities);
	if ((r = csm_subject_home(s, &res.namespace, &why)) != 0) {
		res.namespace = (struct csm_str){NULL, 0};
		if (r == CSM_EDENIED && req_degraded(q) != NULL)
			why = req_degraded(q);
		res.reason = csm_str_of(why != NULL ? why : csm_err_text(r));
	}
	res.unit = csm_str_of(f->unit);
	res.user_unit = csm_str_of(f->user_unit);
	res.container = csm_str_of(f->container);
	res.pod = csm_str_of(f->pod);
	res.label = csm_str_of(f->label);
	list_namespaces(q, s, res.namespace, &res.namespaces);
	list_denied(q, CSM_PERM_KEY_LIST, &res.namespaces, &res.no_key_list);
	list_denied(q, CSM_PERM_CERT_LIST, &res.namespaces, &res.no_cert_list);
	req_result(q, &res);
}
