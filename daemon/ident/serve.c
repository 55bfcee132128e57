#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "daemon/ident/cache.h"
#include "daemon/ident/hash.h"
#include "daemon/ident/serve.h"
#include "daemon/svc/log.h"
#include "libclient/wire/frame.h"

#define RECV_CHUNK (16u * 1024u)
#define HASH_THREADS 2u
#define HASHES_MAX 256u
#define HASHES_PER_USER 64u

/* Who waits for a digest, with what was found of its own program. */
struct waiter {
	uint64_t id, began_us;
	struct look look;
	struct waiter *next;
};

/* A digest in the making; once for all who ask for it. */
struct making {
	struct hash_job job; /* first */
	struct server *s;
	bool cacheable;
	struct look look;
	struct waiter *waiters;
	struct making *next;      /* of all in the making */
	struct making *next_done; /* under the lock */
};

struct server {
	int sock, wake;
	struct csm_buf in, out;
	struct csm_workq *q;
	struct cache cache;
	struct making *makings;
	pthread_mutex_t lock;
	struct making *done; /* under the lock */
};

static uint64_t clock_us(clockid_t which)
{
	struct timespec t;

	clock_gettime(which, &t);
	return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

/* ---- answers ---- */

static void answer(struct server *s, struct csm_msg_ident_answer *m, uint64_t began_us)
{
	m->us = (struct csm_u64){clock_us(CLOCK_MONOTONIC) - began_us, true};
	if (csm_frame_notify(&s->out, "ident.answer", CSM_DEF(ident_answer), m) != 0)
		log_err("an answer could not be written");
}

/* r: CSM_EBUSY (another time it may be told), or what else kept it from being told. */
static void refuse(struct server *s, uint64_t id, int r, const char *why, uint64_t began_us)
{
	struct csm_msg_ident_answer m = {
		.id = {id, true}, .refusal = csm_str_of(why), .busy = {r == CSM_EBUSY, r == CSM_EBUSY}};

	answer(s, &m, began_us);
}

static void tell(
	struct server *s, uint64_t id, const struct look *l, const uint8_t *sha256, bool cached, uint64_t began_us)
{
	struct csm_msg_ident_answer m = {.id = {id, true},
		.path = csm_str_of(l->path[0] != '\0' ? l->path : NULL),
		.device = {l->device, true},
		.inode = {l->inode, true},
		.size = {l->size, true},
		.changed = {l->changed, true},
		.image = {l->image, true},
		.sha256 = {sha256, sha256 != NULL ? 32 : 0},
		.cached = {cached, sha256 != NULL}};

	/* A name that is not text is no path that a policy could have. */
	if (m.path.p != NULL && !csm_utf8_valid(m.path.p, m.path.n))
		m.path = (struct csm_str){NULL, 0};
	answer(s, &m, began_us);
}

/* ---- digests ---- */

static void on_hashed(struct hash_job *j)
{
	struct making *m = (struct making *)j;
	struct server *s = m->s;
	uint64_t one = 1;

	pthread_mutex_lock(&s->lock);
	m->next_done = s->done;
	s->done = m;
	pthread_mutex_unlock(&s->lock);
	while (write(s->wake, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static void finish_making(struct server *s, struct making *m)
{
	struct making **at = &s->makings;
	struct waiter *w, *next;
	bool first = true;

	while (*at != m)
		at = &(*at)->next;
	*at = m->next;
	if (m->job.r == 0 && m->cacheable)
		cache_put(&s->cache, &m->look, m->job.sha256, clock_us(CLOCK_REALTIME) * 1000u);
	for (w = m->waiters; w != NULL; w = next) {
		next = w->next;
		if (m->job.r == 0)
			tell(s, w->id, &w->look, m->job.sha256, !first, w->began_us);
		else
			refuse(s, w->id, CSM_EDENIED,
				m->job.r == CSM_EBUSY ? "the program's file changed while it was read"
						      : "the program's file cannot be read",
				w->began_us);
		first = false;
		free(w);
	}
	free(m);
}

static void take_done(struct server *s)
{
	struct making *done, *next;
	uint64_t n;
	ssize_t got = read(s->wake, &n, sizeof(n));

	(void)got;
	pthread_mutex_lock(&s->lock);
	done = s->done;
	s->done = NULL;
	pthread_mutex_unlock(&s->lock);
	for (; done != NULL; done = next) {
		next = done->next_done;
		finish_making(s, done);
	}
}

static struct making *find_making(const struct server *s, const struct look *l)
{
	for (struct making *m = s->makings; m != NULL; m = m->next)
		if (m->look.device == l->device && m->look.inode == l->inode && m->look.size == l->size &&
			m->look.changed == l->changed)
			return m;
	return NULL;
}

/* A new digest in the making. CSM_EDENIED, CSM_EBUSY: why says what. */
static int start_making(struct server *s, const struct csm_msg_ident_ask *q, const struct look *l, int fd,
	struct making **ret, char why[static LOOK_WHY_MAX])
{
	pid_t pid = (pid_t)q->pid.v;
	int r;
	enum look_fs fs = look_fs(pid, l, why);
	struct making *m;
	char path[64];

	if (fs == LOOK_FS_NEVER)
		return CSM_EDENIED;
	snprintf(why, LOOK_WHY_MAX, "the program's file is too large to be hashed");
	if (l->size > HASH_FILE_MAX)
		return CSM_EDENIED;
	snprintf(why, LOOK_WHY_MAX, "the program's file cannot be read now");
	m = calloc(1, sizeof(*m));
	if (m == NULL)
		return CSM_EBUSY;
	m->s = s;
	m->cacheable = fs == LOOK_FS_CACHED;
	m->look = *l;
	m->job.size = l->size;
	m->job.changed = l->changed;
	m->job.done = on_hashed;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	m->job.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	r = m->job.fd >= 0 ? 0 : errno == EMFILE || errno == ENFILE || errno == ENOMEM ? CSM_EBUSY : CSM_EDENIED;
	if (r != 0 || (r = hash_start(&m->job, s->q, (uid_t)q->uid.v)) != 0) {
		if (m->job.fd >= 0)
			close(m->job.fd);
		free(m);
		return r == CSM_EDENIED ? r : CSM_EBUSY;
	}
	m->next = s->makings;
	s->makings = *ret = m;
	return 0;
}

static void want_digest(
	struct server *s, const struct csm_msg_ident_ask *q, const struct look *l, int fd, uint64_t began_us)
{
	const uint8_t *known = cache_get(&s->cache, l);
	char why[LOOK_WHY_MAX] = "out of memory";
	struct waiter *w, **at;
	struct making *m;
	int r = CSM_EBUSY;

	if (known != NULL) {
		tell(s, q->id.v, l, known, true, began_us);
		return;
	}
	w = calloc(1, sizeof(*w));
	m = w == NULL ? NULL : find_making(s, l);
	if (w != NULL && m == NULL)
		r = start_making(s, q, l, fd, &m, why);
	if (m == NULL) {
		free(w);
		refuse(s, q->id.v, r, why, began_us);
		return;
	}
	w->id = q->id.v;
	w->began_us = began_us;
	w->look = *l;
	for (at = &m->waiters; *at != NULL; at = &(*at)->next)
		;
	*at = w;
}

/* ---- questions ---- */

static void ask(struct server *s, const struct csm_msg_ident_ask *q)
{
	uint64_t began_us = clock_us(CLOCK_MONOTONIC);
	char why[LOOK_WHY_MAX];
	struct look l;
	int fd;

	if (q->pid.v == 0 || q->pid.v > INT32_MAX)
		refuse(s, q->id.v, CSM_EDENIED, "there is no such process", began_us);
	else if (look_at((pid_t)q->pid.v, &l, &fd, why) != 0)
		refuse(s, q->id.v, CSM_EDENIED, why, began_us);
	else {
		if (q->digest.v)
			want_digest(s, q, &l, fd, began_us);
		else
			tell(s, q->id.v, &l, NULL, false, began_us);
		close(fd);
	}
}

static int take_message(struct server *s, const uint8_t *p, size_t n)
{
	struct csm_msg_ident_ask q;
	struct csm_frame f;
	struct csm_pool pool;
	struct csm_str bad;
	int r = csm_frame_parse(p, n, &f);

	if (r != 0)
		return r;
	if (f.type != CSM_NOTIFICATION || !csm_str_eq(f.method, "ident.ask"))
		return CSM_EPROTOCOL;
	csm_pool_init(&pool, 4096);
	r = csm_msg_decode(CSM_DEF(ident_ask), f.params, CSM_UNKNOWN_REFUSE, &pool, &q, &bad);
	if (r == 0)
		ask(s, &q);
	csm_pool_free(&pool);
	return r;
}

static int take_messages(struct server *s)
{
	size_t n;
	int r;

	while (s->in.len > 0) {
		r = csm_scan(csm_buf_ptr(&s->in), s->in.len, &n);
		if (r == CSM_EBUSY)
			return 0;
		if (r != 0 || (r = take_message(s, csm_buf_ptr(&s->in), n)) != 0)
			return r;
		csm_buf_consume(&s->in, n);
	}
	return 0;
}

/* CSM_ECLOSED at the end. */
static int receive(struct server *s)
{
	uint8_t *to;
	ssize_t n;
	int r = csm_buf_reserve(&s->in, RECV_CHUNK, &to);

	if (r != 0)
		return r;
	n = recv(s->sock, to, RECV_CHUNK, MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : CSM_ECLOSED;
	if (n == 0)
		return CSM_ECLOSED;
	csm_buf_commit(&s->in, (size_t)n);
	return take_messages(s);
}

static int send_out(struct server *s)
{
	while (s->out.len > 0) {
		ssize_t n = send(s->sock, csm_buf_ptr(&s->out), s->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n < 0 && errno != EINTR)
			return CSM_ECLOSED;
		if (n > 0)
			csm_buf_consume(&s->out, (size_t)n);
	}
	return 0;
}

int serve(int sock, int wake)
{
	static struct server s;
	struct csm_workq_options opt = {
		.name = "hash", .threads = HASH_THREADS, .max = HASHES_MAX, .max_per_user = HASHES_PER_USER};
	int r;

	s.sock = sock;
	s.wake = wake;
	pthread_mutex_init(&s.lock, NULL);
	csm_buf_init(&s.in, CSM_MESSAGE_MAX + RECV_CHUNK, false);
	csm_buf_init(&s.out, 16u * CSM_MESSAGE_MAX, false);
	if ((r = csm_workq_new(&opt, &s.q)) != 0)
		return r;
	while (r == 0) {
		struct pollfd p[2] = {{.fd = sock, .events = (short)(POLLIN | (s.out.len > 0 ? POLLOUT : 0))},
			{.fd = s.wake, .events = POLLIN}};

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return CSM_ESYSTEM;
		if (p[1].revents & POLLIN)
			take_done(&s);
		if (p[0].revents & (POLLIN | POLLHUP | POLLERR))
			r = receive(&s);
		if (r == 0)
			r = send_out(&s);
	}
	/* What is being hashed goes with the process. */
	return r == CSM_ECLOSED ? 0 : r;
}
