#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "daemon/node/accept.h"
#include "daemon/node/conn.h"
#include "daemon/svc/log.h"
#include "libclient/wire/frame.h"

#define ACCEPTS_PER_TURN 64

struct handover {
	struct task task;
	int fd;
	enum csm_role role;
	struct admit_slot *slot;
};

static void take_over(struct loop *l, struct task *t)
{
	struct handover *h = (struct handover *)t;

	conn_new(l, h->fd, h->role, h->slot);
	free(h);
}

static struct loop *emptiest(struct broker *b)
{
	struct loop *best = b->loops[0];

	for (unsigned i = 1; i < b->n_loops; i++)
		if (b->loops[i]->n_conns < best->n_conns)
			best = b->loops[i];
	return best;
}

static void hand_over(struct broker *b, int fd, enum csm_role role, struct admit_slot *slot)
{
	struct handover *h = calloc(1, sizeof(*h));

	if (h != NULL) {
		h->task.run = take_over;
		h->fd = fd;
		h->role = role;
		h->slot = slot;
		if (loop_post(emptiest(b), &h->task))
			return;
		free(h);
	}
	admit_file_spared(&b->admit);
	admit_leave(&b->admit, slot);
	close(fd);
}

/* Over the limit: one answer to whatever will be asked, then the end. */
static void turn_away(int fd)
{
	struct csm_buf b;

	csm_buf_init(&b, 4096, false);
	if (csm_frame_error(&b, 0, CSM_EBUSY, "too many connections", 1000) == 0 &&
		send(fd, csm_buf_ptr(&b), b.len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_debug("a connection over the limit did not wait for its answer");
	csm_buf_free(&b);
	close(fd);
}

static void admit_one(struct acceptor *a, int fd)
{
	struct ucred cred;
	socklen_t n = sizeof(cred);
	struct admit_slot *slot;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) != 0) {
		close(fd);
		return;
	}
	/* The path is root's alone; should it not be, others still get nothing here. */
	if (a->role == CSM_R_ADMIN && cred.uid != 0 && cred.uid != getuid()) {
		close(fd);
		return;
	}
	slot = admit_enter(&a->b->admit, cred.uid, a->role == CSM_R_ADMIN);
	if (slot == NULL)
		turn_away(fd);
	else
		hand_over(a->b, fd, a->role, slot);
}

static void on_connection(evutil_socket_t lfd, short what, void *arg)
{
	struct acceptor *a = arg;

	(void)what;
	for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
		int fd = accept4(lfd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			admit_one(a, fd);
		} else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			log_warn("no descriptors left: accepting is paused");
			a->paused = true;
			event_del(&a->event);
			return;
		} else if (errno != EINTR && errno != ECONNABORTED) {
			return;
		}
	}
}

void acceptor_start(struct acceptor *a, struct broker *b)
{
	int on = 1;

	a->b = b;
	/* Accepted sockets inherit it, so that no byte comes without its sender's credentials. */
	setsockopt(a->fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
	fcntl(a->fd, F_SETFL, fcntl(a->fd, F_GETFL) | O_NONBLOCK);
	event_assign(&a->event, b->base, a->fd, EV_READ | EV_PERSIST, on_connection, a);
	a->paused = event_add(&a->event, NULL) != 0; /* the next tick tries again */
}

void acceptor_resume(struct acceptor *a)
{
	if (!a->paused)
		return;
	a->paused = event_add(&a->event, NULL) != 0;
}

void acceptor_stop(struct acceptor *a)
{
	event_del(&a->event);
	close(a->fd);
}

void accept_role(struct broker *b, int fd, enum csm_role role)
{
	struct admit_slot *slot;

	if ((role & CSM_R_ROLES) == 0 || (role & (role - 1)) != 0 || fcntl(fd, F_SETFL, O_NONBLOCK) != 0 ||
		(slot = admit_enter(&b->admit, 0, true)) == NULL) {
		close(fd);
		return;
	}
	hand_over(b, fd, role, slot);
}
