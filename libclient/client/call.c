/* One call: a connection, the exchange, and a second try where the connection broke. */
#include <stdlib.h>
#include <string.h>
#include <sodium.h>
#include "libclient/client/internal.h"

/* Steps of a stream belong to the connection on which it was begun. */
static bool is_stream_step(const struct csm_method *m)
{
	return m == &csm_methods[CSM_M_SIGN_INIT] || m == &csm_methods[CSM_M_SIGN_UPDATE] ||
	       m == &csm_methods[CSM_M_SIGN_FINAL] || m == &csm_methods[CSM_M_ISSUE_BEGIN] ||
	       m == &csm_methods[CSM_M_ISSUE_UPDATE] || m == &csm_methods[CSM_M_ISSUE_FINISH];
}

bool client_repeatable(const struct csm_method *m)
{
	return !is_stream_step(m);
}

int client_check(const struct csm_msgdef *def, const void *msg)
{
	size_t i;

	for (i = 0; i < def->n_fields; i++)
		if (def->fields[i].presence == CSM_P_REQ && !csm_field_present(&def->fields[i], msg))
			return client_err(CSM_EINVALID, "%s is missing", def->fields[i].name);
	return 0;
}

void client_request_id(const struct csm_method *m, void *msg, char id[static CLIENT_REQUEST_ID_LEN + 1])
{
	const struct csm_field *f = (m->flags & CSM_F_MUTATES) != 0 ? client_field(m->request, "request_id") : NULL;
	uint8_t raw[CLIENT_REQUEST_ID_LEN / 2];
	struct csm_str *at;

	if (f == NULL)
		return;
	at = field_at(f, msg);
	if (at->p != NULL)
		return;
	randombytes_buf(raw, sizeof(raw));
	(void)sodium_bin2hex(id, CLIENT_REQUEST_ID_LEN + 1, raw, sizeof(raw));
	*at = (struct csm_str){id, CLIENT_REQUEST_ID_LEN};
}

/* A request's text may be longer than its limit only by a mistake of the caller, who is told before
 * anything is sent. */
static int exchange(struct conn *conn, const struct csm_method *m, const void *msg, deadline_t d, struct csm_reply *rep)
{
	struct csm_buf out;
	uint32_t msgid = ++conn->msgid;
	int r;

	client_buf_init(&out, (m->flags & CSM_F_SECRET) != 0);
	r = csm_frame_request(&out, msgid, m->name, m->request, msg);
	if (r != 0) {
		r = client_err(r, "%s: %s", m->name, csm_err_text(r));
		goto out;
	}
	r = conn_exchange(conn, &out, &rep->buf, d);
	if (r == 0)
		r = reply_parse(rep, m, msgid);
out:
	client_buf_free(&out);
	return r;
}

/* We are the process that made the connection, and say so. */
static int prove(struct conn *conn, const struct client_nonce *nonce, deadline_t d, struct csm_reply *rep)
{
	const struct csm_method *m = &csm_methods[CSM_M_PROVE];
	struct csm_msg_prove_req msg = {.nonce = {nonce->b, nonce->n}};

	reply_clear(rep);
	reply_init(rep, m);
	return exchange(conn, m, &msg, d, rep);
}

int client_call_on(struct conn *conn, const struct csm_method *m, const void *msg, deadline_t d, struct csm_reply *rep)
{
	struct client_nonce nonce;
	int r = exchange(conn, m, msg, d, rep);

	if (r != CSM_EPROOF_REQUIRED || !rep->matched || (nonce = client_err_nonce()).n == 0)
		return r;
	r = prove(conn, &nonce, d, rep);
	if (r != 0)
		return r;
	reply_clear(rep);
	reply_init(rep, m);
	client_err_clear();
	return exchange(conn, m, msg, d, rep);
}

static int call_once(struct csm *c, const struct csm_method *m, const void *msg, bool fresh, deadline_t d,
	struct csm_reply *rep)
{
	struct lease l;
	int r = lease_take(c, &l, fresh, d);

	if (r != 0)
		return r;
	r = client_call_on(l.conn, m, msg, d, rep);
	/* without the answer to this request, one may still be on its way, or none will ever be */
	lease_give(c, &l, rep->matched);
	return r;
}

static int call_within(struct csm *c, const struct csm_method *m, void *msg, uint32_t timeout_ms, struct csm_reply *rep)
{
	deadline_t d = client_deadline(timeout_ms);
	char id[CLIENT_REQUEST_ID_LEN + 1];
	int r;

	client_err_clear();
	reply_init(rep, m);
	r = client_check(m->request, msg);
	if (r != 0)
		goto out;
	client_request_id(m, msg, id);
	r = call_once(c, m, msg, false, d, rep);
	if (r == CSM_ECLOSED) {
		reply_clear(rep);
		reply_init(rep, m);
		client_err_clear();
		r = call_once(c, m, msg, true, d, rep);
	}
out:
	if (r != 0)
		reply_clear(rep);
	return r;
}

static int call(struct csm *c, const struct csm_method *m, void *msg, struct csm_reply *rep)
{
	return call_within(c, m, msg, c->set.timeout_ms, rep);
}

int client_call(struct csm *c, enum csm_method_id m, void *msg, struct csm_reply *rep)
{
	return call(c, &csm_methods[m], msg, rep);
}

int client_call_new(struct csm *c, enum csm_method_id m, void *msg, struct csm_reply **ret)
{
	return client_call_long(c, m, msg, 0, ret);
}

int client_call_long(struct csm *c, enum csm_method_id m, void *msg, uint32_t least_ms, struct csm_reply **ret)
{
	uint32_t ms = c->set.timeout_ms;
	struct csm_reply rep;
	int r = call_within(c, &csm_methods[m], msg, ms != 0 && ms < least_ms ? least_ms : ms, &rep);

	if (r != 0)
		return r;
	if (ret != NULL)
		return reply_take(&rep, ret);
	reply_clear(&rep);
	return 0;
}

int csm_call(struct csm *c, const struct csm_request *req, struct csm_reply **ret)
{
	const struct csm_method *m = request_method(req);
	struct csm_reply rep;
	struct csm_pool pool;
	void *msg;
	int r;

	if (m == NULL)
		return client_err(CSM_EINVALID, "a part of a request cannot be sent");
	if (is_stream_step(m))
		return client_err(CSM_EUNSUPPORTED, "%s needs a stream", m->name);
	csm_pool_init(&pool, CLIENT_POOL_MAX);
	r = request_build(req, &pool, &msg);
	if (r != 0)
		goto out;
	r = call(c, m, msg, &rep);
	if (r != 0)
		goto out;
	if (ret != NULL)
		r = reply_take(&rep, ret);
	else
		reply_clear(&rep);
out:
	csm_pool_free(&pool);
	return r;
}
