/* Many requests in flight on one connection, for programs with an event loop. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include "libclient/client/internal.h"

#define PENDING_MAX 65536u
#define TABLE_MIN 64u
#define SEND_VECS 64
#define RECV_CHUNK (8u * 1024u)
#define CONNECT_AGAIN_NS (10u * 1000000u)

/* One request. It is in the list of all entries by deadline, in the table under its msgid, and until
 * it is sent in the queue; where it needs a proof of our program first (PROTOCOL.md, prove), it is held until that was
 * answered, and then queued once more. After its deadline an entry that was sent stays (done is NULL then), so that
 * the answer, when it comes late, is known for what it is. */
struct entry {
	uint32_t msgid;
	bool sent;
	bool again; /* sent once already, on a connection that broke */
	bool held, proven; /* proven: it was held once on this connection */
	bool proof;        /* it is the proof; it has no caller */
	uint64_t serial;
	deadline_t deadline;
	const struct csm_method *method;
	struct csm_buf frame; /* the whole request; freed with the answer, since it may go twice */
	csm_done_fn *done;
	void *arg;
	struct entry *prev, *next;   /* by deadline */
	struct entry *qprev, *qnext; /* to be sent, or held */
};

struct queue {
	struct entry *first, *last;
};

struct csm_async {
	struct settings set;
	pid_t pid;
	struct conn conn;
	deadline_t connect_at; /* the listener was full: try then; 0: at once */
	struct entry *first, *last;
	struct queue q, held;
	struct entry *proof; /* on its way; or NULL */
	struct entry *spare; /* used up, to be used again; linked by next */
	size_t head_sent; /* bytes of the queue's first that have gone */
	struct entry **table;
	size_t table_n, n, in_flight, pending;
	uint32_t next_msgid;
	struct csm_buf in; /* holds answers with secrets too */
	uint64_t serial; /* counts the times that everything failed */
	bool in_process, freed;
};

int csm_async_new(const struct csm *c, struct csm_async **ret)
{
	struct csm_async *a = calloc(1, sizeof(*a));

	if (a == NULL)
		return client_err_plain(CSM_ENOMEM);
	a->table = calloc(TABLE_MIN, sizeof(struct entry *));
	if (a->table == NULL) {
		free(a);
		return client_err_plain(CSM_ENOMEM);
	}
	a->table_n = TABLE_MIN;
	a->set = c->set;
	a->pid = getpid();
	a->conn.fd = -1;
	client_buf_init(&a->in, true);
	*ret = a;
	return 0;
}

/* ---- the three places of an entry ---- */

static struct entry **table_at(struct csm_async *a, uint32_t msgid)
{
	return &a->table[msgid & (a->table_n - 1)];
}

static int table_grow(struct csm_async *a)
{
	struct entry **old = a->table;
	struct entry *e;

	if (a->n < a->table_n / 2)
		return 0;
	a->table = calloc(a->table_n * 2, sizeof(struct entry *));
	if (a->table == NULL) {
		a->table = old;
		return client_err_plain(CSM_ENOMEM);
	}
	a->table_n *= 2;
	/* different places in the smaller table are different ones in the larger */
	for (e = a->first; e != NULL; e = e->next)
		*table_at(a, e->msgid) = e;
	free(old);
	return 0;
}

static void list_insert(struct csm_async *a, struct entry *e)
{
	struct entry *before = a->last;

	while (before != NULL && before->deadline > e->deadline)
		before = before->prev;
	e->prev = before;
	e->next = before != NULL ? before->next : a->first;
	*(e->prev != NULL ? &e->prev->next : &a->first) = e;
	*(e->next != NULL ? &e->next->prev : &a->last) = e;
}

static void list_remove(struct csm_async *a, struct entry *e)
{
	*(e->prev != NULL ? &e->prev->next : &a->first) = e->next;
	*(e->next != NULL ? &e->next->prev : &a->last) = e->prev;
}

static void queue_append(struct queue *q, struct entry *e)
{
	e->qprev = q->last;
	e->qnext = NULL;
	*(q->last != NULL ? &q->last->qnext : &q->first) = e;
	q->last = e;
}

static void queue_remove(struct queue *q, struct entry *e)
{
	*(e->qprev != NULL ? &e->qprev->qnext : &q->first) = e->qnext;
	*(e->qnext != NULL ? &e->qnext->qprev : &q->last) = e->qprev;
}

static void entry_drop(struct csm_async *a, struct entry *e)
{
	if (e->sent)
		a->in_flight--;
	else
		queue_remove(e->held ? &a->held : &a->q, e);
	if (a->proof == e)
		a->proof = NULL;
	list_remove(a, e);
	*table_at(a, e->msgid) = NULL;
	a->n--;
	client_buf_free(&e->frame);
	e->next = a->spare;
	a->spare = e;
}

/* NULL without memory. */
static struct entry *entry_take(struct csm_async *a)
{
	struct entry *e = a->spare;

	if (e == NULL)
		return calloc(1, sizeof(*e));
	a->spare = e->next;
	*e = (struct entry){0};
	return e;
}

/* Tell the caller, who may submit and free in the callback. */
static void tell(struct csm_async *a, csm_done_fn *done, void *arg, int error, struct csm_reply *reply)
{
	a->pending--;
	done(arg, error, reply);
}

static void entry_fail(struct csm_async *a, struct entry *e, int error)
{
	csm_done_fn *done = e->done;
	void *arg = e->arg;

	entry_drop(a, e);
	if (done != NULL)
		tell(a, done, arg, error, NULL);
}

static uint32_t free_msgid(struct csm_async *a)
{
	while (*table_at(a, a->next_msgid) != NULL)
		a->next_msgid++;
	return a->next_msgid++;
}

/* Into the three places. */
static void entry_add(struct csm_async *a, struct entry *e)
{
	list_insert(a, e);
	queue_append(&a->q, e);
	*table_at(a, e->msgid) = e;
	a->n++;
}

/* ---- submit ---- */

static int encode(struct entry *e, const struct csm_request *req)
{
	char id[CLIENT_REQUEST_ID_LEN + 1];
	struct csm_pool pool;
	void *msg;
	int r;

	csm_pool_init(&pool, CLIENT_POOL_MAX);
	r = request_build(req, &pool, &msg);
	if (r == 0) {
		client_request_id(e->method, msg, id);
		r = csm_frame_request(&e->frame, e->msgid, e->method->name, e->method->request, msg);
		if (r != 0)
			client_note("%s: %s", e->method->name, csm_err_text(r));
	}
	csm_pool_free(&pool);
	return r;
}

int csm_submit(struct csm_async *a, const struct csm_request *req, uint32_t timeout_ms, csm_done_fn *done, void *arg)
{
	const struct csm_method *m = request_method(req);
	struct entry *e;
	int r;

	client_err_clear();
	if (a->pid != getpid() || a->freed)
		return client_err(CSM_ESTATE, "the connection belongs to another process, or is freed");
	if (m == NULL || done == NULL)
		return client_err(CSM_EINVALID, "a part of a request cannot be sent, and there must be a callback");
	if (a->n >= PENDING_MAX)
		return client_err(CSM_EBUSY, "%u requests wait already", PENDING_MAX);
	r = table_grow(a);
	if (r != 0)
		return r;
	e = entry_take(a);
	if (e == NULL)
		return client_err_plain(CSM_ENOMEM);
	e->msgid = free_msgid(a);
	e->method = m;
	e->done = done;
	e->arg = arg;
	e->serial = a->serial;
	e->deadline = client_deadline(timeout_ms != 0 ? timeout_ms : a->set.timeout_ms);
	client_buf_init(&e->frame, (m->flags & CSM_F_SECRET) != 0);
	r = encode(e, req);
	if (r != 0) {
		client_buf_free(&e->frame);
		e->next = a->spare;
		a->spare = e;
		return r;
	}
	entry_add(a, e);
	a->pending++;
	return 0;
}

size_t csm_pending(const struct csm_async *a)
{
	return a->pending;
}

/* ---- the connection ---- */

static void disconnect(struct csm_async *a)
{
	conn_close(&a->conn);
	csm_buf_reset(&a->in);
	a->head_sent = 0;
}

static void release_held(struct csm_async *a)
{
	struct entry *e;

	while ((e = a->held.first) != NULL) {
		queue_remove(&a->held, e);
		e->held = false;
		queue_append(&a->q, e);
	}
}

/* The connection broke: what was sent goes once more, what had its second try fails. Callbacks only
 * add entries, so a next one that was looked up before stays good. */
static void lost(struct csm_async *a, int error)
{
	struct entry *e, *next;

	disconnect(a);
	release_held(a);
	for (e = a->first; e != NULL; e = next) {
		next = e->next;
		e->proven = false;
		if (e->done == NULL) {
			entry_drop(a, e);
		} else if (e->sent && !e->again && client_repeatable(e->method)) {
			e->sent = false;
			e->again = true;
			a->in_flight--;
			queue_append(&a->q, e);
		}
	}
	for (e = a->first; e != NULL; e = next) {
		next = e->next;
		if (e->sent)
			entry_fail(a, e, error);
	}
}

/* No daemon to be had: everything that waits fails, but not what the callbacks submit. */
static void fail_all(struct csm_async *a, int error)
{
	uint64_t before = a->serial++;
	struct entry *e, *next;

	disconnect(a);
	for (e = a->first; e != NULL; e = next) {
		next = e->next;
		if (e->serial <= before)
			entry_fail(a, e, error);
	}
}

static int connect_now(struct csm_async *a)
{
	int r;

	if (a->connect_at != 0 && a->connect_at > client_now())
		return CSM_EBUSY;
	a->connect_at = 0;
	r = conn_open_nonblock(&a->conn, &a->set);
	if (r == CSM_EBUSY)
		a->connect_at = client_now() + CONNECT_AGAIN_NS;
	return r;
}

static size_t gather(const struct csm_async *a, struct iovec v[static SEND_VECS])
{
	const struct entry *e = a->q.first;
	size_t skip = a->head_sent, k;

	for (k = 0; e != NULL && k < SEND_VECS && a->in_flight + k < CSM_IN_FLIGHT_MAX; e = e->qnext, k++) {
		v[k].iov_base = (void *)(uintptr_t)(csm_buf_ptr(&e->frame) + skip);
		v[k].iov_len = e->frame.len - skip;
		skip = 0;
	}
	return k;
}

static void sent(struct csm_async *a, size_t n)
{
	a->head_sent += n;
	while (a->q.first != NULL && a->head_sent >= a->q.first->frame.len) {
		struct entry *e = a->q.first;

		a->head_sent -= e->frame.len;
		queue_remove(&a->q, e);
		e->sent = true;
		a->in_flight++;
	}
}

static int send_queue(struct csm_async *a)
{
	struct iovec v[SEND_VECS];
	struct msghdr mh = {.msg_iov = v};
	ssize_t n;

	while ((mh.msg_iovlen = gather(a, v)) > 0) {
		n = sendmsg(a->conn.fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n >= 0)
			sent(a, (size_t)n);
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
			return 0;
		else if (errno != EINTR)
			return client_err_errno(CSM_ECLOSED, "send");
	}
	return 0;
}

/* ---- answers ---- */

static int parse_one(const struct entry *e, const uint8_t *p, size_t n, struct csm_reply **ret)
{
	struct csm_reply rep;
	int r;

	reply_init(&rep, e->method);
	r = csm_buf_put(&rep.buf, p, n);
	if (r != 0)
		r = client_err_plain(r);
	else
		r = reply_parse(&rep, e->method, e->msgid);
	if (r == 0)
		return reply_take(&rep, ret);
	reply_clear(&rep);
	return r;
}

/* ---- the proof of our program ---- */

/* The request waits; its answer asked for a proof. False: there is none to be given. */
static bool hold(struct csm_async *a, struct entry *e)
{
	const struct csm_method *m = &csm_methods[CSM_M_PROVE];
	struct client_nonce nonce = client_err_nonce();
	struct csm_msg_prove_req msg = {.nonce = {nonce.b, nonce.n}};
	struct entry *p;

	if (nonce.n == 0 || e->proven || e->proof || e->done == NULL || !client_repeatable(e->method))
		return false;
	if (a->proof == NULL) {
		if (table_grow(a) != 0 || (p = entry_take(a)) == NULL)
			return false;
		p->msgid = free_msgid(a);
		p->method = m;
		p->proof = true;
		p->deadline = UINT64_MAX;
		p->serial = a->serial;
		client_buf_init(&p->frame, false);
		if (csm_frame_request(&p->frame, p->msgid, m->name, m->request, &msg) != 0) {
			client_buf_free(&p->frame);
			p->next = a->spare;
			a->spare = p;
			return false;
		}
		entry_add(a, p);
		a->proof = p;
	}
	e->sent = false;
	e->held = e->proven = true;
	a->in_flight--;
	queue_append(&a->held, e);
	return true;
}

/* What was held goes once more, or fails as the proof did. */
static void proved(struct csm_async *a, int r)
{
	struct entry *e;

	if (r == 0)
		release_held(a);
	while (!a->freed && (e = a->held.first) != NULL)
		entry_fail(a, e, r);
}

/* One whole message at the front of in. CSM_EPROTOCOL, or the daemon's error that concerns the
 * connection: it cannot be used any more. */
static int answer(struct csm_async *a, size_t n)
{
	const uint8_t *p = csm_buf_ptr(&a->in);
	struct csm_reply *reply = NULL;
	struct csm_frame f;
	struct entry *e;
	csm_done_fn *done;
	void *arg;
	int r = csm_frame_parse(p, n, &f);

	if (r != 0 || f.type != CSM_RESPONSE)
		return client_err(CSM_EPROTOCOL, "the daemon's answer cannot be read");
	e = *table_at(a, f.msgid);
	if (e == NULL || e->msgid != f.msgid || !e->sent) {
		if (f.error.p != NULL)
			return client_err_decode(f.error);
		return client_err(CSM_EPROTOCOL, "the daemon answered a request that was not asked");
	}
	r = e->done == NULL && !e->proof ? 0 : parse_one(e, p, n, &reply);
	csm_buf_consume(&a->in, n);
	if (r == CSM_EPROOF_REQUIRED && hold(a, e))
		return 0;
	if (e->proof) {
		csm_reply_free(reply);
		entry_drop(a, e);
		proved(a, r);
		return 0;
	}
	done = e->done;
	arg = e->arg;
	entry_drop(a, e);
	if (done != NULL)
		tell(a, done, arg, r, reply);
	return 0;
}

static int answers(struct csm_async *a)
{
	size_t n;
	int r = 0;

	while (r == 0 && a->in.len > 0 && !a->freed) {
		r = csm_scan(csm_buf_ptr(&a->in), a->in.len, &n);
		if (r == CSM_EBUSY)
			return 0;
		r = r != 0 ? client_err(CSM_EPROTOCOL, "the daemon's answer cannot be read") : answer(a, n);
	}
	return r;
}

static int receive(struct csm_async *a)
{
	uint8_t *to;
	ssize_t n;
	int r;

	while (!a->freed) {
		r = csm_buf_reserve(&a->in, RECV_CHUNK, &to);
		if (r != 0)
			return client_err_plain(r);
		n = recv(a->conn.fd, to, RECV_CHUNK, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return 0;
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n == 0 ? client_err(CSM_ECLOSED, "the daemon closed the connection") :
					client_err_errno(CSM_ECLOSED, "receive");
		csm_buf_commit(&a->in, (size_t)n);
		r = answers(a);
		if (r != 0 || (size_t)n < RECV_CHUNK)
			return r;
	}
	return 0;
}

/* ---- deadlines ---- */

static void expire_one(struct csm_async *a, struct entry *e)
{
	csm_done_fn *done = e->done;
	void *arg = e->arg;
	bool partly = e == a->q.first && a->head_sent > 0;

	client_note("no answer within the deadline");
	if (!e->sent && !partly) {
		entry_fail(a, e, CSM_ETIMEOUT);
		return;
	}
	/* its answer may still come: keep the entry, last in the list, without a caller */
	e->done = NULL;
	if (e->sent)
		client_buf_free(&e->frame);
	list_remove(a, e);
	e->deadline = UINT64_MAX;
	list_insert(a, e);
	tell(a, done, arg, CSM_ETIMEOUT, NULL);
}

static void expire(struct csm_async *a)
{
	uint64_t now = a->first != NULL && a->first->deadline != UINT64_MAX ? client_now() : 0;

	while (!a->freed && a->first != NULL && a->first->deadline <= now)
		expire_one(a, a->first);
}

/* ---- the caller's loop ---- */

static int work(struct csm_async *a)
{
	int r = 0;

	/* who we were when we connected is who csmd takes us for */
	if (a->conn.fd >= 0 && !conn_mine(&a->conn))
		lost(a, client_err(CSM_ECLOSED, "the process has changed its identity"));
	if (a->conn.fd < 0 && a->q.first != NULL)
		r = connect_now(a);
	if (r == 0 && a->conn.fd >= 0) {
		int s = send_queue(a);

		/* what came before the end is still to be had */
		r = receive(a);
		if (r == 0)
			r = s;
		if (r == 0 && !a->freed)
			r = send_queue(a);
	}
	return r;
}

static void async_destroy(struct csm_async *a)
{
	struct entry *e, *next;

	for (e = a->spare; e != NULL; e = next) {
		next = e->next;
		free(e);
	}
	conn_close(&a->conn);
	csm_buf_free(&a->in);
	free(a->table);
	free(a);
}

/* Everything is told; submissions from the callbacks are refused by now. */
static void async_end(struct csm_async *a)
{
	bool own = a->pid == getpid();

	client_note("the request was given up");
	while (a->first != NULL) {
		if (!own)
			a->first->done = NULL;
		entry_fail(a, a->first, CSM_ECLOSED);
	}
	async_destroy(a);
}

int csm_process(struct csm_async *a)
{
	int r;

	if (a->pid != getpid())
		return client_err(CSM_ESTATE, "the connection belongs to another process");
	if (a->in_process)
		return client_err(CSM_ESTATE, "csm_process was called from a callback");
	a->in_process = true;
	r = work(a);
	if (r == CSM_EBUSY && a->connect_at != 0) {
		r = 0;
	} else if (r == CSM_ECLOSED) {
		lost(a, r);
	} else if (r != 0) {
		fail_all(a, r);
	}
	expire(a);
	a->in_process = false;
	if (a->freed)
		async_end(a);
	/* a connection that broke and whose requests go once more is no failure yet */
	return r == CSM_ECLOSED ? 0 : r;
}

int csm_process_all(struct csm_async *a)
{
	int last = 0;

	while (a->pending > 0) {
		int r = csm_process(a), ms = csm_timeout_ms(a);
		struct pollfd p = {.fd = a->conn.fd, .events = csm_events(a)};

		if (r == CSM_ESTATE)
			return r;
		last = r != 0 ? r : last;
		/* without a descriptor it only waits */
		if (a->pending > 0 && ms != 0 && poll(&p, 1, ms) < 0 && errno != EINTR)
			return client_err_errno(CSM_ESYSTEM, "poll");
	}
	return last;
}

void csm_async_free(struct csm_async *a)
{
	if (a == NULL || a->freed)
		return;
	a->freed = true;
	if (!a->in_process)
		async_end(a);
}

int csm_fd(const struct csm_async *a)
{
	return a->conn.fd;
}

short csm_events(const struct csm_async *a)
{
	bool more = a->q.first != NULL && a->in_flight < CSM_IN_FLIGHT_MAX;

	return a->conn.fd < 0 ? 0 : more ? POLLIN | POLLOUT : POLLIN;
}

int csm_timeout_ms(const struct csm_async *a)
{
	deadline_t d = a->first != NULL ? a->first->deadline : UINT64_MAX;

	if (a->conn.fd < 0 && a->q.first != NULL) {
		if (a->connect_at == 0)
			return 0;
		if (a->connect_at < d)
			d = a->connect_at;
	}
	return client_left_ms(d);
}
