/* domain.create, list, show, delete. */
#include <string.h>
#include "daemon/node/dispatch.h"

void do_DOMAIN_CREATE(struct req *q)
{
	const struct csm_msg_domain_req *m = q->params;
	struct csm_request_id rid;
	struct change *c;
	struct object o;
	char who[REQ_WHO_MAX];

	if (req_object(q, m->domain, &o) == 0 && req_authorize(q, &o) == 0 &&
		!req_replayed(q, &o, m->request_id, &rid, who) &&
		req_change(q, &o, &rid, CSM_OP_DOMAIN_CREATE, sizeof(*c), NULL, &c) == 0)
		op_commit(&c->op, op_finish_change);
}

void do_DOMAIN_DELETE(struct req *q)
{
	const struct csm_msg_domain_req *m = q->params;
	struct csm_domain_info info;
	struct csm_request_id rid;
	struct change *c;
	struct object o;
	char who[REQ_WHO_MAX];

	if (req_object(q, m->domain, &o) == 0 && req_authorize(q, &o) == 0 &&
		!req_replayed(q, &o, m->request_id, &rid, who) && req_domain(q, &o, &info) == 0 &&
		req_change(q, &o, &rid, CSM_OP_DOMAIN_DELETE, sizeof(*c), NULL, &c) == 0)
		op_commit(&c->op, op_finish_change);
}

void do_DOMAIN_SHOW(struct req *q)
{
	const struct csm_msg_domain_req *m = q->params;
	struct csm_msg_domain_item res = {0};
	struct csm_domain_info info;
	struct object o;

	if (req_object(q, m->domain, &o) != 0 || req_authorize(q, &o) != 0 || req_domain(q, &o, &info) != 0)
		return;
	res.namespace = o.ns;
	res.name = o.name;
	res.created.v = info.created;
	res.secrets.v = info.secrets;
	req_result(q, &res);
}

struct lister {
	struct csm_msg_domain_list_res res;
	struct csm_str ns;
	size_t limit;
};

static bool list_one(void *arg, struct csm_str name, const struct csm_domain_info *info)
{
	struct lister *l = arg;
	struct csm_msg_domain_item *item;

	if (l->res.domains.n == l->limit) {
		l->res.more.v = true;
		return false;
	}
	item = &l->res.domains.v[l->res.domains.n++];
	item->namespace = l->ns;
	item->name = name;
	item->created.v = info->created;
	item->secrets.v = info->secrets;
	return true;
}

void do_DOMAIN_LIST(struct req *q)
{
	const struct csm_msg_list_req *m = q->params;
	struct lister l = {.limit = 0};
	struct csm_reader *reader;
	struct object o;
	void *items;

	if (req_namespace(q, m->namespace, &o) != 0 || req_authorize(q, &o) != 0 ||
		req_begin_list(q, m->limit, sizeof(*l.res.domains.v), &l.limit, &items, &reader) != 0)
		return;
	l.ns = o.ns;
	l.res.domains.v = items;
	req_end_list(q, csm_store_domain_list(reader, o.ns, m->after, list_one, &l), &l.res);
}
