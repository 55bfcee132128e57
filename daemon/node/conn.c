#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sodium.h>
#include <unistd.h>
#include "daemon/node/ask.h"
#include "daemon/node/conn.h"
#include "daemon/node/deliver.h"
#include "daemon/node/dispatch.h"
#include "daemon/node/proof.h"
#include "daemon/node/fair.h"
#include "daemon/svc/log.h"
#include "libclient/wire/frame.h"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif
#define OUT_SOFT (64u * 1024u) /* with so much waiting, no further request is read */
#define OUT_STALL_MS 30000u
#define SPARE_MAX (64u * 1024u)
#define READS_PER_TURN 4 /* then others of the loop have theirs */

static void on_readable(evutil_socket_t fd, short what, void *arg);

/* A connection that cannot be watched would never be heard again: it is broken. */
static void set_reading(struct conn *c, bool on)
{
	if (c->reading == on)
		return;
	c->reading = on;
	if (!on)
		event_del(&c->read_event);
	else if (event_add(&c->read_event, NULL) != 0)
		c->broken = true;
}

/* Root of a container has the uid of others' roots: what is in a pod or container is charged to that. */
static bool find_place(struct conn *c)
{
	const struct csm_facts *f = &c->peer->facts;
	const char *place = f->pod != NULL ? f->pod : f->container;
	struct admit_slot *slot = place == NULL ? c->slot : admit_move(&c->loop->b->admit, c->slot, place);

	if (slot != NULL)
		c->slot = slot;
	return slot != NULL;
}

/* Best effort, before the connection is dropped. */
static void turn_away(struct conn *c)
{
	if (csm_frame_error(&c->out, 0, CSM_EBUSY, NULL, 1000) == 0 &&
		send(c->fd, csm_buf_ptr(&c->out), c->out.len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_debug("a connection that was turned away did not wait for its answer");
}

void conn_new(struct loop *l, int fd, enum csm_role role, struct admit_slot *slot)
{
	struct conn *c = calloc(1, sizeof(*c));
	int on = 1, off = 0, r;

	if (c == NULL) {
		admit_file_spared(&l->b->admit);
		admit_leave(&l->b->admit, slot);
		close(fd);
		return;
	}
	c->loop = l;
	c->fd = fd;
	c->role = role;
	c->slot = slot;
	csm_buf_init_message(&c->in, CSM_MESSAGE_MAX + LOOP_SCRATCH);
	csm_buf_init_message(&c->out, CSM_OUT_MAX);
	csm_scanner_init(&c->scan);
	c->deadline_ms = l->now_ms + CSM_FIRST_MESSAGE_MS;
	c->next = l->conns;
	if (c->next != NULL)
		c->next->prev = c;
	l->conns = c;
	atomic_fetch_add_explicit(&l->n_conns, 1, memory_order_relaxed);
	event_assign(&c->read_event, l->base, fd, EV_READ | EV_PERSIST, on_readable, c);
	/* Where the kernel knows it, descriptors sent along are refused to the sender already. */
	setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof(off));
	if (role == CSM_R_PUBLIC || role == CSM_R_ADMIN) {
		r = setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) == 0 ? 0 : CSM_ESYSTEM;
		if (r == 0)
			r = peer_get(l, fd, &c->peer);
		if (r != 0) {
			log_debug("a connection was closed, its peer could not be known: %s", csm_err_name(r));
			/* What csmd lacks for a moment, descriptors mostly, is told. */
			if (r == CSM_ENOMEM || r == CSM_ESYSTEM)
				turn_away(c);
			conn_drop(c);
			return;
		}
		if (role == CSM_R_PUBLIC && !find_place(c)) {
			conn_error(c, 0, CSM_EBUSY, "too many connections");
			conn_end(c);
		}
	} else {
		c->deadline_ms = 0;
		if (role == CSM_R_IDENT)
			asks_attach(l->b->asks, c);
	}
	if (fair_enter(c) != 0) {
		conn_drop(c);
		return;
	}
	if (!c->closing)
		set_reading(c, true);
	if (c->broken)
		conn_drop(c);
}

/* The slot is charged for what waits in `in`, no more. */
static void credit(struct conn *c)
{
	if (c->buffered > c->in.len) {
		admit_credit(&c->loop->b->admit, c->slot, c->buffered - c->in.len);
		c->buffered = c->in.len;
	}
}

void conn_drop(struct conn *c)
{
	struct loop *l = c->loop;

	proof_forget(c);
	op_orphan_all(c);
	dispatch_forget(c);
	free(c->proof);
	if (c->role == CSM_R_IDENT)
		asks_detach(l->b->asks, c);
	if (c->role == CSM_R_DELIVER)
		deliver_detach(l->b->deliver, c);
	set_reading(c, false);
	if (c->write_event != NULL) {
		event_free(c->write_event);
		c->write_event = NULL;
	}
	for (struct conn **at = &l->dirty; c->is_dirty && *at != NULL; at = &(*at)->next_dirty)
		if (*at == c) {
			*at = c->next_dirty;
			break;
		}
	csm_buf_free(&c->in);
	csm_buf_free(&c->out);
	credit(c);
	fair_leave(c);
	close(c->fd);
	if (c->peer != NULL)
		peer_put(c->peer);
	else
		admit_file_spared(&l->b->admit);
	admit_leave(&l->b->admit, c->slot);
	if (c->next != NULL)
		c->next->prev = c->prev;
	*(c->prev != NULL ? &c->prev->next : &l->conns) = c->next;
	atomic_fetch_sub_explicit(&l->n_conns, 1, memory_order_relaxed);
	free(c);
}

void conn_close_peer(struct loop *l, struct peer *p)
{
	struct conn *c, *next;
	unsigned left = p->n_conns;

	/* The last close frees p. */
	for (c = l->conns; c != NULL && left > 0; c = next) {
		next = c->next;
		if (c->peer == p) {
			left--;
			conn_drop(c);
		}
	}
}

/* ---- output ---- */

/* A buffer for answers is a connection's only while it has some; the loop keeps one at hand. */
static void borrow_out(struct conn *c)
{
	struct csm_buf *spare = &c->loop->spare;

	if (c->out.p != NULL || spare->p == NULL)
		return;
	c->out = *spare;
	csm_buf_init_message(spare, spare->max);
}

static void return_out(struct conn *c)
{
	struct csm_buf *spare = &c->loop->spare;

	if (spare->p != NULL || c->out.cap > SPARE_MAX) {
		csm_buf_free(&c->out);
		return;
	}
	/* Emptied means wiped. */
	*spare = c->out;
	csm_buf_init_message(&c->out, c->out.max);
}

static void mark_dirty(struct conn *c)
{
	if (c->is_dirty)
		return;
	c->is_dirty = true;
	c->next_dirty = c->loop->dirty;
	c->loop->dirty = c;
}

void conn_result(struct conn *c, uint32_t msgid, const struct csm_msgdef *def, const void *result)
{
	int r = csm_frame_result(&c->out, msgid, def, result);

	if (r != 0)
		conn_error(c, msgid, r, NULL);
	mark_dirty(c);
}

int conn_result_room(struct conn *c, uint32_t msgid, size_t n, uint8_t **ret)
{
	int r = csm_frame_result_room(&c->out, msgid, n, ret);

	if (r != 0)
		conn_error(c, msgid, r, NULL);
	mark_dirty(c);
	return r;
}

void conn_result_raw(struct conn *c, uint32_t msgid, struct csm_bin result)
{
	int r = csm_frame_result_raw(&c->out, msgid, result);

	if (r != 0)
		conn_error(c, msgid, r, NULL);
	mark_dirty(c);
}

void conn_error(struct conn *c, uint32_t msgid, int code, const char *message)
{
	int wire = csm_err_on_wire(code);
	uint32_t after = wire == CSM_EBUSY ? 100 : wire == CSM_EUNAVAILABLE ? 500 : 0;

	if (message == NULL && code == CSM_ENOMEM)
		message = "the daemon has no memory for this";
	else if (message == NULL && code == CSM_ESYSTEM)
		message = "the daemon could not read or write";
	if (csm_frame_error(&c->out, msgid, wire, message, after) != 0)
		c->broken = true;
	mark_dirty(c);
}

void conn_proof_required(struct conn *c, uint32_t msgid, struct csm_bin nonce)
{
	if (csm_frame_proof_required(&c->out, msgid, nonce) != 0)
		c->broken = true;
	mark_dirty(c);
}

int conn_notify(struct conn *c, const char *method, const struct csm_msgdef *def, const void *params)
{
	int r = c->closing || c->broken ? CSM_ECLOSED : csm_frame_notify(&c->out, method, def, params);

	if (r == 0)
		mark_dirty(c);
	return r;
}

void conn_end(struct conn *c)
{
	c->closing = true;
	set_reading(c, false);
	mark_dirty(c);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;
	struct loop *l = c->loop;

	(void)fd;
	(void)what;
	l->now_ms = monotonic_ms();
	mark_dirty(c);
	conn_flush_dirty(l);
}

/* Time runs while the client takes nothing; further answers do not give it more. */
static void wait_writable(struct conn *c, bool progressed)
{
	bool waiting = c->out_deadline_ms != 0;

	if (c->write_event == NULL)
		c->write_event = event_new(c->loop->base, c->fd, EV_WRITE | EV_PERSIST, on_writable, c);
	if (c->write_event == NULL) {
		c->broken = true;
		return;
	}
	if (!waiting && event_add(c->write_event, NULL) != 0) {
		c->broken = true;
		return;
	}
	if (!waiting || progressed)
		c->out_deadline_ms = c->loop->now_ms + OUT_STALL_MS;
}

/* Send what waits. Sets broken when the other side is gone. */
static void flush_out(struct conn *c)
{
	bool progressed = false;

	while (c->out.len > 0) {
		ssize_t n = send(c->fd, csm_buf_ptr(&c->out), c->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			wait_writable(c, progressed);
			return;
		}
		if (n < 0) {
			c->broken = true;
			return;
		}
		csm_buf_consume(&c->out, (size_t)n);
		progressed = true;
	}
	if (c->out.p != NULL)
		return_out(c);
	if (c->out_deadline_ms != 0) {
		event_del(c->write_event);
		c->out_deadline_ms = 0;
	}
}

/* ---- input ---- */

static bool has_room(const struct conn *c)
{
	return !c->closing && !c->broken && c->out.len < OUT_SOFT && c->n_ops < CSM_IN_FLIGHT_MAX && !c->loop->draining;
}

static size_t handle_messages(struct conn *c, const uint8_t *p, size_t n)
{
	size_t used = 0, len, before;
	uint32_t msgid;
	int r;

	while (used < n && has_room(c)) {
		r = csm_scanner_run(&c->scan, p + used, n - used, &len);
		if (r == CSM_EBUSY) {
			c->need = len;
			break;
		}
		if (r != 0) {
			atomic_fetch_add_explicit(&c->loop->protocol_errors, 1, memory_order_relaxed);
			if (csm_scan_msgid(p + used, n - used, &msgid))
				conn_error(c, msgid, r, NULL);
			conn_end(c);
			return n;
		}
		c->served = true;
		before = c->out.len;
		dispatch_message(c, p + used, len);
		csm_buf_reset(&c->loop->plain);
		csm_buf_reset(&c->loop->body);
		csm_pool_reset(&c->loop->pool);
		used += len;
		csm_scanner_init(&c->scan);
		c->need = 0;
		c->loop->served += 1 + (len + (c->out.len > before ? c->out.len - before : 0)) / FAIR_BYTES;
		if (used < n && fair_over(c->loop)) {
			c->more = true;
			fair_ready(c);
			break;
		}
	}
	return used;
}

/* Handle the whole messages in p[0..n) while answers have room; returns the bytes used up. */
static size_t take_messages(struct conn *c, const uint8_t *p, size_t n)
{
	struct loop *l = c->loop;
	size_t used;

	borrow_out(c);
	l->batch_reads = true;
	used = handle_messages(c, p, n);
	l->batch_reads = false;
	loop_end_read(l);
	return used;
}

/* A deadline holds while the peer owes the rest of a message, not while it waits for us. */
static void set_deadline(struct conn *c, bool progressed)
{
	if (!c->served)
		return;
	if (c->in.len == 0 || c->more || !has_room(c))
		c->deadline_ms = 0;
	else if (c->deadline_ms == 0 || progressed)
		c->deadline_ms = c->loop->now_ms + CSM_MESSAGE_MS;
}

static bool keep(struct conn *c, const uint8_t *p, size_t n)
{
	if (!admit_charge(&c->loop->b->admit, c->slot, n))
		return false;
	c->buffered += n;
	return csm_buf_put(&c->in, p, n) == 0;
}

/* Requests that are in `in` already. */
static void take_kept(struct conn *c)
{
	size_t used;

	if (c->more || c->in.len == 0 || c->in.len < c->need || !has_room(c))
		return;
	used = take_messages(c, csm_buf_ptr(&c->in), c->in.len);
	csm_buf_consume(&c->in, used);
	if (c->in.len == 0) {
		csm_buf_free(&c->in);
	}
	credit(c);
	set_deadline(c, used > 0);
}

static void take_bytes(struct conn *c, const uint8_t *p, size_t n)
{
	size_t used = 0;

	if (c->in.len == 0)
		used = take_messages(c, p, n);
	if (used < n && !c->closing && !keep(c, p + used, n - used)) {
		log_debug("a connection was closed, too many bytes wait for the rest of their message");
		conn_error(c, 0, CSM_EBUSY, NULL);
		conn_end(c);
		return;
	}
	if (used == 0)
		take_kept(c);
	set_deadline(c, used > 0);
}

/* Pid 0 is every process that our pid namespace does not know: there the ids have to be the connector's. */
static bool same_sender(const struct csm_facts *f, const struct ucred *cred)
{
	return cred->pid == f->pid && (cred->pid != 0 || (cred->uid == f->uid && cred->gid == f->gid));
}

/* Only the connector's own bytes, and nothing but bytes: a descriptor sent along ends the connection. */
static bool check_control(struct conn *c, struct msghdr *m)
{
	bool good = (m->msg_flags & MSG_CTRUNC) == 0, named = false;

	for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h != NULL; h = CMSG_NXTHDR(m, h)) {
		if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_CREDENTIALS) {
			struct ucred cred;

			memcpy(&cred, CMSG_DATA(h), sizeof(cred));
			named = c->peer != NULL && same_sender(&c->peer->facts, &cred);
		} else if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS) {
			for (size_t i = 0; i < (h->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
				int fd;

				memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(int));
				close(fd);
			}
			good = false;
		} else {
			good = false;
		}
	}
	return good && (named || c->peer == NULL);
}

/* The client sends no more. Has it only shut down its sending side, it gets the answers that it is still owed. */
static void end_of_input(struct conn *c)
{
	struct pollfd p = {.fd = c->fd};

	if (poll(&p, 1, 0) != 0)
		c->broken = true; /* POLLHUP: closed */
	c->eof = true;
	set_reading(c, false);
}

/* One recvmsg. False: nothing more to do now. */
static bool receive(struct conn *c)
{
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(sizeof(struct ucred))];
	} control;
	/* What does not fit into a turn is copied and charged to the user: then less is read at a time. */
	struct iovec iov = {c->loop->scratch, fair_needed(c->loop) ? FAIR_READ : LOOP_SCRATCH};
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(c->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0)
		return errno == EINTR || (errno != EAGAIN && (c->broken = true, false));
	if (n == 0) {
		end_of_input(c);
		return false;
	}
	if (!check_control(c, &m)) {
		log_debug("a connection was closed: descriptors sent along, or bytes of another process");
		c->broken = true;
	} else {
		take_bytes(c, c->loop->scratch, (size_t)n);
	}
	sodium_memzero(c->loop->scratch, (size_t)n);
	return (size_t)n == iov.iov_len && has_room(c) && !c->more;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;
	struct loop *l = c->loop;

	(void)fd;
	(void)what;
	l->now_ms = monotonic_ms();
	loop_pace(l, c);
	if (c->is_ready) {
		/* It waits for its turn already, and need not be told of again until then. */
		set_reading(c, false);
		return;
	}
	fair_asks(l, c->user);
	if (fair_waits(l)) {
		fair_ready(c);
		return;
	}
	conn_serve(c);
}

void conn_serve(struct conn *c)
{
	struct loop *l = c->loop;
	bool more = c->more;

	c->more = false;
	if (more)
		take_kept(c);
	for (int i = 0; !more && i < READS_PER_TURN && receive(c); i++)
		;
	mark_dirty(c);
	conn_flush_dirty(l);
}

/* After answers went out: is it over, may reading go on? True: the connection is gone. */
static bool settle(struct conn *c)
{
	bool over = c->closing || (c->eof && !c->more);

	if (c->broken || (over && c->out.len == 0 && c->n_ops == 0)) {
		conn_drop(c);
		return true;
	}
	set_reading(c, has_room(c) && !c->is_ready && !c->eof);
	if (!c->broken)
		return false;
	conn_drop(c);
	return true;
}

void conn_flush_dirty(struct loop *l)
{
	struct conn *c;

	while ((c = l->dirty) != NULL) {
		l->dirty = c->next_dirty;
		c->is_dirty = false;
		/* What a turn has cut in two goes out as one. */
		if (!c->more || c->out.len >= OUT_SOFT)
			flush_out(c);
		if (!c->broken)
			take_kept(c); /* may make it dirty again */
		if (!c->is_dirty)
			settle(c);
	}
}

void conn_tick(struct loop *l)
{
	struct conn *c, *next;

	for (c = l->conns; c != NULL; c = next) {
		next = c->next;
		if ((c->deadline_ms != 0 && l->now_ms >= c->deadline_ms) ||
			(c->out_deadline_ms != 0 && l->now_ms >= c->out_deadline_ms)) {
			log_debug("a connection was closed at its deadline");
			conn_drop(c);
		}
	}
}
