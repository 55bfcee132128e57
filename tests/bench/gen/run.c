#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "tests/bench/gen/gen.h"

#define WARM_NS 200000000ull
#define CHECKED 8u /* first answers of a connection that are looked at in full */
#define IN_MAX (64u * 1024u)

enum phase { WARM, MEASURE, STOP };

/* What clients and the caller share, in memory that forked clients see too. */
struct board {
	_Atomic int phase;
	_Atomic unsigned ready, ended, failed;
	pthread_mutex_t opening; /* one at a time: PKCS#11 modules and p11-kit's server stumble over many at once */
	struct hist hist[GEN_CLIENTS_MAX];
};

struct stream {
	const struct target *t;
	unsigned client;
	int fd;
	struct csm_buf request[GEN_RING];
	uint64_t sent_at[GEN_RING]; /* 0: not in flight */
	unsigned next, oldest, in_flight;
	unsigned checked;
	size_t have; /* bytes in `in` */
	uint8_t in[IN_MAX];
	uint8_t out[IN_MAX];
};

struct client {
	const struct target *t;
	struct board *board;
	unsigned index; /* of its histogram */
	uint64_t left;  /* requests it still may send; UINT64_MAX by time */
};

/* ---- one connection ---- */

static int stream_open(struct stream *s, const struct target *t, unsigned client)
{
	memset(s, 0, sizeof(*s));
	s->t = t;
	s->client = client;
	for (unsigned i = 0; i < GEN_RING; i++) {
		int r;

		csm_buf_init(&s->request[i], IN_MAX / GEN_DEPTH_MAX, false);
		r = t->work->request(t, client, i, &s->request[i]);
		if (r != 0) {
			fprintf(stderr, "load: request: %s\n", csm_err_name(r));
			return r;
		}
	}
	s->fd = gen_connect(t->socket);
	return s->fd >= 0 ? 0 : CSM_EUNREACHABLE;
}

static void stream_close(struct stream *s)
{
	if (s->fd >= 0)
		close(s->fd);
	for (unsigned i = 0; i < GEN_RING; i++)
		csm_buf_free(&s->request[i]);
}

/* Send until `depth` are in flight, all in one write. */
static int stream_fill(struct stream *s, uint64_t now, uint64_t *left)
{
	size_t n = 0;

	while (s->in_flight < s->t->depth && *left > 0) {
		const struct csm_buf *b;

		/* Answers may come in any order: a place is used again when its own has come. */
		while (s->sent_at[s->next] != 0)
			s->next = (s->next + 1) % GEN_RING;
		b = &s->request[s->next];
		memcpy(s->out + n, csm_buf_ptr(b), b->len);
		n += b->len;
		s->sent_at[s->next] = now;
		s->next = (s->next + 1) % GEN_RING;
		s->in_flight++;
		if (*left != UINT64_MAX)
			(*left)--;
	}
	for (size_t at = 0; at < n;) {
		ssize_t w = send(s->fd, s->out + at, n - at, MSG_NOSIGNAL);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0) {
			fprintf(stderr, "load: send: %s\n", strerror(errno));
			return CSM_ECLOSED;
		}
		at += (size_t)w;
	}
	return 0;
}

static int stream_answer(struct stream *s, const uint8_t *p, size_t len, uint32_t id, uint64_t now, struct hist *h)
{
	if (id == UINT32_MAX) {
		id = s->oldest;
		s->oldest = (s->oldest + 1) % GEN_RING;
	}
	if (id >= GEN_RING || s->sent_at[id] == 0) {
		fprintf(stderr, "load: an answer to nothing\n");
		return CSM_EPROTOCOL;
	}
	if (s->checked < CHECKED && s->t->work->right != NULL) {
		s->checked++;
		if (!s->t->work->right(s->t, s->client, id, p, len)) {
			fprintf(stderr, "load: a wrong answer\n");
			return CSM_EPROTOCOL;
		}
	}
	if (h != NULL)
		hist_add(h, now - s->sent_at[id]);
	s->sent_at[id] = 0;
	s->in_flight--;
	return 0;
}

/* One recv, and every whole answer in it. h NULL: not counted. */
static int stream_read(struct stream *s, struct hist *h, uint64_t *now)
{
	ssize_t n = recv(s->fd, s->in + s->have, IN_MAX - s->have, 0);
	size_t at = 0, len;
	int r = 0;

	if (n < 0 && errno == EINTR)
		return 0;
	if (n <= 0) {
		fprintf(stderr, "load: %s\n", n == 0 ? "the connection was closed" : strerror(errno));
		return CSM_ECLOSED;
	}
	*now = gen_now_ns();
	s->have += (size_t)n;
	while (at < s->have) {
		uint32_t id = UINT32_MAX;

		r = s->t->work->reply(s->in + at, s->have - at, &len, &id);
		if (r == CSM_EBUSY)
			break;
		if (r != 0)
			return r;
		r = stream_answer(s, s->in + at, len, id, *now, h);
		if (r != 0)
			return r;
		at += len;
	}
	memmove(s->in, s->in + at, s->have - at);
	s->have -= at;
	return 0;
}

/* ---- clients ---- */

static struct hist *counted(struct client *c, int *phase)
{
	*phase = atomic_load_explicit(&c->board->phase, memory_order_relaxed);
	return *phase == MEASURE ? &c->board->hist[c->index] : NULL;
}

static int await_start(struct client *c)
{
	struct timespec pause = {0, 1000000};

	atomic_fetch_add(&c->board->ready, 1);
	while (atomic_load(&c->board->ready) < (c->t->epoll ? 1 : c->t->clients))
		if (atomic_load(&c->board->failed) != 0)
			return CSM_ECLOSED;
		else
			nanosleep(&pause, NULL);
	return 0;
}

static int client_blocking(struct client *c)
{
	struct stream *s = malloc(sizeof(*s));
	uint64_t now;
	int r, phase;

	if (s == NULL)
		return CSM_ENOMEM;
	r = stream_open(s, c->t, c->index);
	if (r == 0)
		r = await_start(c);
	now = gen_now_ns();
	while (r == 0 && (r = stream_fill(s, now, &c->left)) == 0 && s->in_flight > 0) {
		struct hist *h = counted(c, &phase);

		if (phase == STOP)
			break;
		r = stream_read(s, h, &now);
	}
	stream_close(s);
	free(s);
	return r;
}

static int epoll_turn(struct client *c, int ep, int *phase)
{
	struct epoll_event ev[GEN_CLIENTS_MAX];
	int n = epoll_wait(ep, ev, (int)GEN_CLIENTS_MAX, 20000), r = 0;

	if (n == 0) {
		fprintf(stderr, "load: no answer for 20 s\n");
		return CSM_ETIMEOUT;
	}
	for (int i = 0; i < n && r == 0; i++) {
		uint64_t now;
		struct hist *h = counted(c, phase);

		r = stream_read(ev[i].data.ptr, h, &now);
		if (r == 0)
			r = stream_fill(ev[i].data.ptr, now, &c->left);
	}
	return r;
}

static int client_epoll(struct client *c)
{
	struct stream *s = calloc(c->t->clients, sizeof(*s));
	int ep = epoll_create1(EPOLL_CLOEXEC), r = s != NULL && ep >= 0 ? 0 : CSM_ESYSTEM, phase = WARM;
	unsigned opened = 0;
	bool over = false;

	while (r == 0 && opened < c->t->clients) {
		struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &s[opened]};

		r = stream_open(&s[opened], c->t, opened);
		if (r == 0 && epoll_ctl(ep, EPOLL_CTL_ADD, s[opened].fd, &ev) != 0)
			r = CSM_ESYSTEM;
		opened++;
	}
	if (r == 0)
		r = await_start(c);
	for (unsigned i = 0; i < opened && r == 0; i++)
		r = stream_fill(&s[i], gen_now_ns(), &c->left);
	while (r == 0 && !over && phase != STOP) {
		r = epoll_turn(c, ep, &phase);
		over = c->left == 0;
		for (unsigned i = 0; i < opened && over; i++)
			over = s[i].in_flight == 0;
	}
	for (unsigned i = 0; i < opened; i++)
		stream_close(&s[i]);
	free(s);
	close(ep);
	return r;
}

static int client_calls(struct client *c)
{
	void *state = NULL;
	uint64_t before, now;
	int r, phase;

	pthread_mutex_lock(&c->board->opening);
	r = c->t->work->open(c->t, &state);
	pthread_mutex_unlock(&c->board->opening);
	if (r == 0)
		r = await_start(c);
	before = gen_now_ns();
	for (; r == 0 && c->left > 0; before = now) {
		struct hist *h = counted(c, &phase);

		if (phase == STOP)
			break;
		r = c->t->work->call(state);
		now = gen_now_ns();
		if (h != NULL)
			hist_add(h, now - before);
		if (c->left != UINT64_MAX)
			c->left--;
	}
	return r;
}

static void *client_main(void *arg)
{
	struct client *c = arg;
	int r = c->t->work->call != NULL ? client_calls(c) : c->t->epoll ? client_epoll(c) : client_blocking(c);

	if (r != 0)
		atomic_fetch_add(&c->board->failed, 1);
	atomic_fetch_add(&c->board->ended, 1);
	return NULL;
}

/* ---- the run ---- */

static bool pause_until(struct board *b, uint64_t until)
{
	while (gen_now_ns() < until && atomic_load(&b->failed) == 0) {
		uint64_t left = until - gen_now_ns();
		struct timespec t = {0, (long)(left < 50000000u ? left : 50000000u)};

		nanosleep(&t, NULL);
	}
	return atomic_load(&b->failed) == 0;
}

/* Tell the caller, and wait until it says go on. */
static void gate(const struct target *t, const char *word)
{
	char line[16];

	if (!t->gate)
		return;
	printf("%s\n", word);
	fflush(stdout);
	if (fgets(line, sizeof(line), stdin) == NULL)
		exit(1);
}

static double conduct(const struct target *t, struct board *b, unsigned clients)
{
	struct timespec pause = {0, 1000000};
	uint64_t begin, end;

	while (atomic_load(&b->ready) < clients && atomic_load(&b->failed) == 0)
		nanosleep(&pause, NULL);
	if (t->count > 0) {
		begin = gen_now_ns();
		while (atomic_load(&b->ended) < clients && atomic_load(&b->failed) == 0)
			nanosleep(&pause, NULL);
		return (double)(gen_now_ns() - begin) / 1e9;
	}
	pause_until(b, gen_now_ns() + WARM_NS);
	gate(t, "ready");
	begin = gen_now_ns();
	atomic_store(&b->phase, MEASURE);
	pause_until(b, begin + (uint64_t)(t->seconds * 1e9));
	end = gen_now_ns();
	atomic_store(&b->phase, WARM); /* goes on uncounted while the caller reads its clocks */
	gate(t, "measured");
	atomic_store(&b->phase, STOP);
	return (double)(end - begin) / 1e9;
}

/* A client that is a process counts itself ended only when it got that far: what it was killed by counts as failed. */
static int start(struct client *c, pthread_t *thread, pid_t *pid)
{
	if (!c->t->processes)
		return pthread_create(thread, NULL, client_main, c) == 0 ? 0 : CSM_ESYSTEM;
	fflush(NULL);
	*pid = fork();
	if (*pid == 0) {
		client_main(c);
		_exit(0);
	}
	return *pid > 0 ? 0 : CSM_ESYSTEM;
}

static struct board *board_new(int phase)
{
	struct board *b = mmap(NULL, sizeof(*b), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_mutexattr_t shared;

	if (b == MAP_FAILED)
		return NULL;
	pthread_mutexattr_init(&shared);
	pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
	pthread_mutex_init(&b->opening, &shared);
	pthread_mutexattr_destroy(&shared);
	atomic_store(&b->phase, phase);
	return b;
}

int run_load(const struct target *t, struct result *ret)
{
	static struct client clients[GEN_CLIENTS_MAX];
	static pthread_t threads[GEN_CLIENTS_MAX];
	static pid_t pids[GEN_CLIENTS_MAX];
	unsigned n = t->epoll ? 1 : t->clients, started = 0;
	struct board *b = board_new(t->count > 0 ? MEASURE : WARM);
	int r = CSM_EINTERNAL, status;

	if (b == NULL)
		return CSM_ENOMEM;
	for (; started < n; started++) {
		clients[started] = (struct client){t, b, started, t->count > 0 ? t->count / n : UINT64_MAX};
		if (start(&clients[started], &threads[started], &pids[started]) != 0) {
			atomic_fetch_add(&b->failed, 1);
			break;
		}
	}
	ret->seconds = conduct(t, b, n);
	for (unsigned i = 0; i < started; i++)
		if (!t->processes)
			pthread_join(threads[i], NULL);
		else if (waitpid(pids[i], &status, 0) != pids[i] || status != 0)
			atomic_fetch_add(&b->failed, 1);
	memset(&ret->hist, 0, sizeof(ret->hist));
	for (unsigned i = 0; i < n; i++)
		hist_merge(&ret->hist, &b->hist[i]);
	r = atomic_load(&b->failed) == 0 ? 0 : CSM_ECLOSED;
	munmap(b, sizeof(*b));
	return r;
}
