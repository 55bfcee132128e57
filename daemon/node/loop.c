#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#include "daemon/node/conn.h"
#include "daemon/node/deliver.h"
#include "daemon/node/keycall.h"
#include "daemon/node/fair.h"
#include "daemon/node/watch.h"
#include "daemon/svc/log.h"
#include "libclient/base/lockmem.h"

#define TICK_MS 1000
#define DRAIN_TICK_MS 20
/* How much the connections of a loop ask at the same time: more by PACE_OTHER for each that is another than the last one
 * was, less by one for each that is the same. */
#define PACE_OTHER 4u
#define PACE_FULL 256u

uint64_t monotonic_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

static struct task *take_mail(struct loop *l)
{
	struct task *mail;

	pthread_mutex_lock(&l->lock);
	mail = l->mail;
	l->mail = NULL;
	l->mail_tail = &l->mail;
	pthread_mutex_unlock(&l->lock);
	return mail;
}

static void on_mail(evutil_socket_t fd, short what, void *arg)
{
	struct loop *l = arg;
	struct task *t, *next;
	uint64_t n;
	ssize_t got = read(fd, &n, sizeof(n));

	(void)got;
	(void)what;
	l->now_ms = monotonic_ms();
	for (t = take_mail(l); t != NULL; t = next) {
		next = t->next;
		t->run(l, t);
	}
	conn_flush_dirty(l);
}

bool loop_post(struct loop *l, struct task *t)
{
	uint64_t one = 1;
	bool wake, taken;

	t->next = NULL;
	pthread_mutex_lock(&l->lock);
	taken = !l->stopping;
	wake = taken && l->mail == NULL;
	if (taken) {
		*l->mail_tail = t;
		l->mail_tail = &t->next;
	}
	pthread_mutex_unlock(&l->lock);
	while (wake && write(l->mail_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	return taken;
}

/* Draining is over when nothing is elsewhere and every answer is with its client. */
static void check_drained(struct loop *l)
{
	bool waiting = l->n_ops > 0;

	for (struct conn *c = l->conns; c != NULL && !waiting; c = c->next)
		waiting = c->out.len > 0;
	/* Operations that are elsewhere have to come back, whatever the hour. */
	if (!waiting || (l->n_ops == 0 && l->now_ms >= l->drain_until_ms))
		event_base_loopbreak(l->base);
}

/* Behind all that was found readable with what made it active. */
static void on_submit(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	op_submit_gathered(arg);
	conn_flush_dirty(arg);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct loop *l = arg;
	uint64_t n;
	ssize_t got = read(fd, &n, sizeof(n));

	(void)got;
	(void)what;
	l->now_ms = monotonic_ms();
	conn_tick(l);
	key_call_tick(l);
	deliver_tick(l);
	watch_tick(l);
	csm_keycache_sweep(&l->keys, l->now_ms, CSM_KEY_IDLE_MS);
	if (l->draining)
		check_drained(l);
}

/* A timer of the kernel's: one of libevent's would be set and read anew around each wait for events. */
static int set_tick(struct loop *l, long ms)
{
	struct timespec every = {ms / 1000, (ms % 1000) * 1000000};
	struct itimerspec t = {every, every};

	return timerfd_settime(l->tick_fd, 0, &t, NULL);
}

static void begin_drain(struct loop *l, struct task *t)
{
	(void)t;
	l->draining = true;
	l->drain_until_ms = l->now_ms + CSM_SHUTDOWN_MS;
	if (set_tick(l, DRAIN_TICK_MS) != 0)
		event_base_loopbreak(l->base);
}

void loop_stop(struct loop *l)
{
	/* Its own, so that a stop needs no memory. One that has ended need not be told. */
	l->stop_task.run = begin_drain;
	(void)loop_post(l, &l->stop_task);
}

void loop_pace(struct loop *l, const struct conn *c)
{
	struct sched_param param = {0};

	if (c != l->last) {
		l->last = c;
		l->mixed = l->mixed + PACE_OTHER < PACE_FULL ? l->mixed + PACE_OTHER : PACE_FULL;
	} else if (l->mixed > 0) {
		l->mixed--;
	}
	if (l->batch ? l->mixed > 0 : l->mixed < PACE_FULL)
		return;
	/* Refused is no harm. */
	l->batch = !l->batch;
	pthread_setschedparam(pthread_self(), l->batch ? SCHED_BATCH : SCHED_OTHER, &param);
}

static void *loop_run(void *arg)
{
	struct loop *l = arg;

	pthread_setname_np(pthread_self(), "loop");
	csm_lock_stack();
	event_base_dispatch(l->base);
	while (l->conns != NULL)
		conn_drop(l->conns);
	pthread_mutex_lock(&l->lock);
	l->stopping = true;
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

/* Its events are added and taken by its own thread alone. */
static struct event_base *base_new(void)
{
	struct event_config *config = event_config_new();
	struct event_base *base = NULL;

	if (config != NULL &&
		event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_NO_CACHE_TIME) == 0)
		base = event_base_new_with_config(config);
	if (config != NULL)
		event_config_free(config);
	return base;
}

int loop_new(struct broker *b, unsigned index, struct loop **ret)
{
	struct loop *l = calloc(1, sizeof(*l));

	if (l == NULL)
		return CSM_ENOMEM;
	l->b = b;
	l->index = index;
	l->now_ms = monotonic_ms();
	pthread_mutex_init(&l->lock, NULL);
	l->mail_tail = &l->mail;
	l->gathered.tail = &l->gathered.first;
	csm_buf_init_message(&l->plain, CSM_MESSAGE_MAX);
	csm_buf_init(&l->key, CSM_MESSAGE_MAX, true);
	csm_buf_init_message(&l->spare, CSM_OUT_MAX);
	csm_buf_init_message(&l->body, CSM_MESSAGE_MAX);
	csm_pool_init(&l->pool, CSM_MESSAGE_MAX);
	csm_keycache_init(&l->keys, CSM_KEYS_PARSED_MAX);
	l->policy = csm_policy_ref(b->policy);
	l->scratch = csm_lock_alloc(LOOP_SCRATCH);
	l->mail_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	l->tick_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	l->base = base_new();
	if (l->scratch == NULL || l->mail_fd < 0 || l->tick_fd < 0 || l->base == NULL || set_tick(l, TICK_MS) != 0 ||
		csm_audit_uses_new(b->audit, &l->uses) != 0) {
		loop_free(l);
		return CSM_ESYSTEM;
	}
	fair_init(l);
	event_assign(&l->submit_event, l->base, -1, 0, on_submit, l);
	event_assign(&l->mail_event, l->base, l->mail_fd, EV_READ | EV_PERSIST, on_mail, l);
	event_assign(&l->tick_event, l->base, l->tick_fd, EV_READ | EV_PERSIST, on_tick, l);
	if (event_add(&l->mail_event, NULL) != 0 || event_add(&l->tick_event, NULL) != 0) {
		loop_free(l);
		return CSM_ESYSTEM;
	}
	*ret = l;
	return 0;
}

int loop_start(struct loop *l)
{
	return pthread_create(&l->thread, NULL, loop_run, l) == 0 ? 0 : CSM_ESYSTEM;
}

void loop_join(struct loop *l)
{
	pthread_join(l->thread, NULL);
}

void loop_release(struct loop *l)
{
	csm_keycache_drop(&l->keys, NULL);
	csm_reader_free(l->reader);
	l->reader = NULL;
	csm_audit_uses_free(l->uses);
	l->uses = NULL;
}

void loop_free(struct loop *l)
{
	if (l == NULL)
		return;
	loop_release(l);
	if (l->base != NULL) {
		fair_free(l);
		if (event_initialized(&l->mail_event)) {
			event_del(&l->submit_event);
			event_del(&l->mail_event);
			event_del(&l->tick_event);
		}
		event_base_free(l->base);
	}
	if (l->mail_fd >= 0)
		close(l->mail_fd);
	if (l->tick_fd >= 0)
		close(l->tick_fd);
	csm_lock_free(l->scratch);
	csm_buf_free(&l->plain);
	csm_buf_free(&l->key);
	csm_buf_free(&l->spare);
	csm_buf_free(&l->body);
	csm_pool_free(&l->pool);
	csm_policy_unref(l->policy);
	free(l);
}

struct csm_reader *loop_reader(struct loop *l)
{
	struct csm_store *store = l->b->store;

	if (l->reader == NULL && store != NULL && csm_reader_new(store, &l->reader) != 0)
		l->reader = NULL;
	return l->reader;
}

int loop_begin_read(struct loop *l)
{
	struct csm_reader *reader = loop_reader(l);
	int r = reader == NULL ? CSM_EUNAVAILABLE : csm_reader_begin(reader);

	l->reading = r == 0;
	return r;
}

void loop_end_read(struct loop *l)
{
	if (l->reading)
		csm_reader_end(l->reader);
	l->reading = false;
}
