/* struct csm: settings, and the connections that its threads share without a lock, so that a fork
 * at any moment finds nothing half done. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "libclient/client/internal.h"

#define DEFAULT_SOCKET "/run/csm.sock"

static int settings_path(struct settings *set, const char *path)
{
	size_t n = path == NULL ? 0 : strlen(path);

	if (n == 0 || n >= sizeof(set->addr.sun_path))
		return client_err(CSM_EINVALID, "the socket's path is empty or too long");
	set->addr = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(set->addr.sun_path, path, n + 1);
	return 0;
}

static unsigned processors(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n < (long)CLIENT_KEEP_MIN ? CLIENT_KEEP_MIN : n > (long)CLIENT_SLOTS ? CLIENT_SLOTS : (unsigned)n;
}

int csm_new(struct csm **ret)
{
	const char *path = secure_getenv("CSM_SOCKET");
	struct csm *c = calloc(1, sizeof(*c));
	size_t i;
	int r;

	if (c == NULL)
		return client_err_plain(CSM_ENOMEM);
	r = settings_path(&c->set, path != NULL && path[0] != '\0' ? path : DEFAULT_SOCKET);
	if (r != 0) {
		free(c);
		return r;
	}
	c->set.timeout_ms = CLIENT_TIMEOUT_MS;
	c->set.trust_uid = CLIENT_NO_UID;
	c->keep = processors();
	atomic_init(&c->owner, getpid());
	for (i = 0; i < CLIENT_SLOTS; i++) {
		atomic_init(&c->slots[i].state, SLOT_FREE);
		atomic_init(&c->slots[i].fd, -1);
		c->slots[i].conn.fd = -1;
	}
	*ret = c;
	return 0;
}

static void slot_drop(struct slot *s)
{
	int fd = atomic_exchange(&s->fd, -1);

	if (fd >= 0)
		(void)close(fd);
	s->conn.fd = -1;
	atomic_store(&s->state, SLOT_FREE);
}

void csm_free(struct csm *c)
{
	size_t i;

	if (c == NULL)
		return;
	for (i = 0; i < CLIENT_SLOTS; i++)
		slot_drop(&c->slots[i]);
	free(c);
}

int csm_set_socket(struct csm *c, const char *path)
{
	return settings_path(&c->set, path);
}

void csm_set_timeout(struct csm *c, uint32_t ms)
{
	c->set.timeout_ms = ms;
}

void csm_set_connections(struct csm *c, unsigned n)
{
	c->keep = n > CLIENT_SLOTS ? CLIENT_SLOTS : n;
}

void csm_set_trust_uid(struct csm *c, uint32_t uid)
{
	c->set.trust_uid = uid;
}

void csm_set_trust_overflow(struct csm *c, bool trust)
{
	c->set.trust_overflow = trust;
}

/* In a child: the slots, busy ones too, are copies of the parent's, whose threads are not here.
 * Closing the copies leaves the parent's streams alone. One thread does it, others wait. */
static void after_fork(struct csm *c)
{
	pid_t me = getpid();
	pid_t owner = atomic_load(&c->owner);
	size_t i;

	while (owner != me) {
		if (owner == -me) {
			(void)sched_yield();
			owner = atomic_load(&c->owner);
			continue;
		}
		if (!atomic_compare_exchange_strong(&c->owner, &owner, -me))
			continue;
		for (i = 0; i < CLIENT_SLOTS; i++)
			slot_drop(&c->slots[i]);
		atomic_store(&c->owner, me);
		return;
	}
}

/* The first slot in state `from`, now busy; NULL if there is none. */
static struct slot *slot_claim(struct csm *c, int from)
{
	size_t i;

	for (i = 0; i < CLIENT_SLOTS; i++) {
		int state = from;

		if (atomic_load_explicit(&c->slots[i].state, memory_order_relaxed) == from &&
			atomic_compare_exchange_strong(&c->slots[i].state, &state, SLOT_BUSY))
			return &c->slots[i];
	}
	return NULL;
}

/* The process is ours: after_fork has seen to that. */
static bool take_idle(struct csm *c, struct lease *l, bool fresh)
{
	struct slot *s;

	while ((s = slot_claim(c, SLOT_IDLE)) != NULL) {
		if (!fresh && conn_same_identity(&s->conn) && conn_quiet(&s->conn)) {
			l->slot = s;
			l->conn = &s->conn;
			return true;
		}
		slot_drop(s);
	}
	return false;
}

int lease_take(struct csm *c, struct lease *l, bool fresh, deadline_t d)
{
	int r;

	after_fork(c);
	*l = (struct lease){.own.fd = -1};
	if (take_idle(c, l, fresh))
		return 0;
	l->slot = slot_claim(c, SLOT_FREE);
	l->conn = l->slot != NULL ? &l->slot->conn : &l->own;
	r = conn_open(l->conn, &c->set, d);
	if (l->slot == NULL)
		return r;
	if (r != 0)
		slot_drop(l->slot);
	else
		atomic_store(&l->slot->fd, l->conn->fd);
	return r;
}

void lease_give(struct csm *c, struct lease *l, bool good)
{
	if (l->slot == NULL)
		conn_close(&l->own);
	else if (!good || (size_t)(l->slot - c->slots) >= c->keep)
		slot_drop(l->slot);
	else
		atomic_store(&l->slot->state, SLOT_IDLE);
	*l = (struct lease){.own.fd = -1};
}
