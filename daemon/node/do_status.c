/* status, stats, audit.head. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "daemon/node/dispatch.h"
#include "daemon/node/status.h"

#define COUNT_MAX 1000000u

struct counter {
	size_t n;
};

static bool count_key(void *arg, struct csm_str name, const struct csm_key_record *rec)
{
	(void)name;
	(void)rec;
	return ++((struct counter *)arg)->n < COUNT_MAX;
}

struct domain_counter {
	size_t domains, secrets;
};

static bool count_domain(void *arg, struct csm_str name, const struct csm_domain_info *info)
{
	struct domain_counter *c = arg;

	(void)name;
	c->domains++;
	c->secrets += info->secrets;
	return c->domains < COUNT_MAX;
}

/* On the public socket: what the caller may list in its own namespace. */
static void count_own(struct req *q, struct csm_msg_status_res *res)
{
	const struct csm_subject *s;
	struct csm_reader *reader = loop_reader(q->loop);
	struct counter keys = {0};
	struct domain_counter domains = {0};
	char text[CSM_NAMESPACE_MAX + 2];
	struct csm_str ns;
	const char *why;

	if (q->loop->b->state != BROKER_READY || reader == NULL || peer_subject(q->conn->peer, &s) != 0 ||
		csm_subject_home(s, &ns, &why) != 0 || csm_reader_begin(reader) != 0)
		return;
	int n = snprintf(text, sizeof(text), "%.*s:", (int)ns.n, ns.p);
	struct csm_str object = {text, (size_t)n};
	if (req_may(q, CSM_PERM_KEY_LIST, object) &&
		csm_store_key_list(reader, ns, (struct csm_str){NULL, 0}, count_key, &keys) == 0)
		res->keys = (struct csm_u64){keys.n, true};
	if (req_may(q, CSM_PERM_DOMAIN_LIST, object) &&
		csm_store_domain_list(reader, ns, (struct csm_str){NULL, 0}, count_domain, &domains) == 0) {
		res->domains = (struct csm_u64){domains.domains, true};
		res->secrets = (struct csm_u64){domains.secrets, true};
	}
	csm_reader_end(reader);
}

void do_STATUS(struct req *q)
{
	struct status_space *space = csm_pool_alloc(&q->loop->pool, sizeof(*space));
	struct csm_msg_status_res res = {0};

	if (space == NULL) {
		req_error(q, CSM_ENOMEM, NULL);
		return;
	}
	status_fill(q->loop->b, q->conn->role == CSM_R_ADMIN, &q->loop->pool, space, &res);
	if (csm_policy_needs_exe(q->loop->policy))
		status_ident(q->loop->b, q->conn->role == CSM_R_ADMIN, space, &res);
	status_deliver(q->loop->b, q->conn->role == CSM_R_ADMIN, &q->loop->pool, space, &res);
	if (q->conn->role != CSM_R_ADMIN)
		count_own(q, &res);
	req_result(q, &res);
}

void do_AUDIT_HEAD(struct req *q)
{
	struct csm_msg_audit_head_res res = {0};
	struct csm_audit_status st;
	char folder[512];

	csm_audit_status(q->loop->b->audit, &st);
	snprintf(folder, sizeof(folder), "%s/audit", q->loop->b->cfg.state_dir);
	res.folder = csm_str_of(folder);
	res.seq.v = st.seq;
	res.hash = (struct csm_bin){st.head, sizeof(st.head)};
	res.anchored.v = st.anchored;
	if (st.has_key)
		res.key = (struct csm_bin){st.key, sizeof(st.key)};
	res.failing.v = st.failing;
	res.lost.v = st.lost;
	res.broken.v = st.broken;
	req_result(q, &res);
}

void do_STATS(struct req *q)
{
	struct csm_msg_stats_res res = {0};

	if (stats_fill(q->loop->b, q->conn->role == CSM_R_ADMIN, &q->loop->pool, &res) != 0)
		req_error(q, CSM_ENOMEM, NULL);
	else
		req_result(q, &res);
}
