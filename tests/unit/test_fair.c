/* Turns: who floods a loop waits for himself, not others for him. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/node/conn.h"
#include "daemon/node/fair.h"
#include "tests/lib/brokerfix.h"

#define FLOODERS 8
#define EACH 300u

static struct conn *newest(void)
{
	assert_non_null(fix.t.loop->conns);
	return fix.t.loop->conns;
}

/* EACH signatures on one connection, and cut bytes of one more request. */
static void send_many(int fd, size_t cut)
{
	static const uint8_t digest[32];
	struct csm_msg_sign_req m = {.key = CSM_STR("k"), .digest = {digest, sizeof(digest)}};
	struct csm_buf b;
	size_t whole = 0;

	csm_buf_init(&b, 1 << 20, false);
	for (uint32_t i = 0; i <= EACH; i++) {
		whole = b.len;
		assert_int_equal(csm_frame_request(&b, i, "key.sign", CSM_DEF(sign_req), &m), 0);
	}
	assert_true(cut < b.len - whole);
	assert_int_equal(send(fd, csm_buf_ptr(&b), whole + cut, MSG_DONTWAIT), whole + cut);
	csm_buf_free(&b);
}

/* Each of those requests is answered, once. */
static void take_answers(int fd)
{
	uint8_t seen[EACH] = {0};
	struct testanswer a;
	struct testreader r;

	testreader_init(&r);
	for (uint32_t i = 0; i < EACH; i++) {
		assert_int_equal(testbroker_answer(&fix.t, fd, &r, 5000, &a), 0);
		assert_int_equal(a.error, 0);
		assert_in_range(a.msgid, 0, EACH - 1);
		assert_int_equal(seen[a.msgid]++, 0);
	}
	testreader_free(&r);
}

struct other {
	int fd; /* -1: connects first, as another user */
	const void *request;
	size_t n;
	unsigned long long start;
	bool answered;
	unsigned long long before_it; /* signatures made until the answer was there */
};

/* Asks while the flood is being served. */
static void *ask_meanwhile(void *arg)
{
	struct other *o = arg;
	struct pollfd p = {.fd = o->fd, .events = POLLIN};

	while (atomic_load(&fix.t.loop->requests[CSM_M_KEY_SIGN]) < o->start + 20)
		;
	if (o->fd < 0) {
		struct sockaddr_un addr = {.sun_family = AF_UNIX};

		snprintf(addr.sun_path, sizeof(addr.sun_path), "%.80s/public.sock", fix.t.dir);
		p.fd = o->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		/* Of this thread alone. */
		if (o->fd < 0 || syscall(SYS_setresuid, -1, 70036, -1) != 0 ||
			connect(o->fd, (struct sockaddr *)&addr, sizeof(addr)) != 0)
			return NULL;
	}
	o->answered = send(o->fd, o->request, o->n, 0) == (ssize_t)o->n && poll(&p, 1, 30000) == 1;
	o->before_it = atomic_load(&fix.t.loop->requests[CSM_M_KEY_SIGN]);
	return NULL;
}

static void ask_during_flood(struct other *other)
{
	static const struct csm_msg_ping_req none = {0};
	struct other o = *other;
	int fds[FLOODERS], r;
	pthread_t asker;
	struct csm_buf b;

	for (int i = 0; i < FLOODERS; i++)
		assert_true((fds[i] = fix_connect_as(70031)) >= 0);
	r = fix_create(fds[0], "k", "p256", "soft", NULL);
	assert_true(r == 0 || r == CSM_EEXISTS);
	o.start = atomic_load(&fix.t.loop->requests[CSM_M_KEY_SIGN]);
	for (int i = 0; i < FLOODERS; i++)
		send_many(fds[i], 0);
	csm_buf_init(&b, 1024, false);
	assert_int_equal(csm_frame_request(&b, 1, "ping", CSM_DEF(ping_req), &none), 0);
	o.request = csm_buf_ptr(&b);
	o.n = b.len;
	assert_int_equal(pthread_create(&asker, NULL, ask_meanwhile, &o), 0);
	for (int i = 0; i < FLOODERS; i++)
		take_answers(fds[i]);
	pthread_join(asker, NULL);
	csm_buf_free(&b);
	assert_true(o.answered);
	assert_in_range(o.before_it - o.start, 20, FLOODERS * EACH / 2);
	assert_int_equal(fix_next(o.fd), 0);
	for (int i = 0; i < FLOODERS; i++)
		fix_close(fds[i]);
	if (other->fd < 0)
		fix_close(o.fd);
}

static void a_flood_lets_others_through(void **state)
{
	struct other o = {.fd = pub};

	(void)state;
	ask_during_flood(&o);
}

/* Alone on its loop until then. */
static void a_flood_lets_others_in(void **state)
{
	struct other o = {.fd = -1};

	(void)state;
	fix_close(pub);
	ask_during_flood(&o);
	pub = fix_connect(CSM_R_PUBLIC);
}

/* What a turn leaves behind is charged to its user, has no deadline, and is given back. */
static void what_waits_for_a_turn_is_kept(void **state)
{
	int fd = fix_connect_as(70032);
	struct conn *c = newest();

	(void)state;
	assert_int_equal(fix_create(fd, "k", "p256", "soft", NULL), 0);
	send_many(fd, 7);
	/* One turn, that is over with its first message. */
	fix.t.loop->turn_end_us = 0;
	conn_serve(c);
	assert_true(c->more && c->is_ready);
	assert_true(c->in.len > 0 && c->slot->buffered >= c->in.len);
	assert_int_equal(c->deadline_ms, 0);
	/* Its answers go out together, and nothing more is read before its turn. */
	assert_true(c->out.len > 0);
	assert_false(c->reading);
	/* Who comes now goes first. */
	fair_ready(c->next);
	assert_ptr_equal(fix.t.loop->turns.first, c->user);
	assert_ptr_equal(fix.t.loop->fresh.first, c->next->user);
	take_answers(fd);
	/* Now it is the peer that owes the rest. */
	assert_false(c->more);
	assert_int_equal(c->in.len, 7);
	assert_int_equal(c->slot->buffered, 7);
	assert_true(c->deadline_ms != 0);
	fix_close(fd);
}

static void who_goes_leaves_the_queue(void **state)
{
	struct loop *l = fix.t.loop;
	struct conn *c[4];
	int fds[4];

	(void)state;
	for (int i = 0; i < 4; i++) {
		assert_true((fds[i] = fix_connect_as(i < 3 ? 70033 : 70034)) >= 0);
		c[i] = newest();
	}
	assert_int_equal(l->n_users, 3);
	assert_ptr_equal(c[0]->user, c[2]->user);
	assert_ptr_not_equal(c[0]->user, c[3]->user);
	for (int i = 0; i < 4; i++)
		fair_ready(c[i]);
	fair_ready(c[0]);
	assert_ptr_equal(l->fresh.first, c[0]->user);
	assert_ptr_equal(l->fresh.first->next_turn, c[3]->user);
	conn_drop(c[1]);
	conn_drop(c[2]);
	assert_ptr_equal(l->fresh.first->first, c[0]);
	assert_ptr_equal(l->fresh.first->last, c[0]);
	conn_drop(c[3]);
	assert_null(l->fresh.first->next_turn);
	conn_drop(c[0]);
	assert_null(l->fresh.first);
	assert_int_equal(l->n_users, 1);
	assert_false(fair_needed(l));
	/* The queue works on. */
	fair_ready(newest());
	testbroker_step(&fix.t);
	assert_null(l->fresh.first);
	assert_false(newest()->is_ready);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
}

static void roles_have_turns_of_their_own(void **state)
{
	int fd = fix_connect(CSM_R_ENROL);

	(void)state;
	assert_int_equal(fix.t.loop->n_users, 2);
	assert_ptr_not_equal(newest()->user, newest()->next->user);
	fix_close(fd);
	assert_int_equal(fix.t.loop->n_users, 1);
}

static int ping(int fd)
{
	static const struct csm_msg_ping_req none = {0};
	struct csm_msg_ping_res res;

	return fix_call(fd, "ping", &none, &res);
}

/* Turns, which cost time, are for those who ask; a second user who is only connected leaves the first one alone. */
static void who_asks_nothing_costs_nothing(void **state)
{
	struct loop *l = fix.t.loop;
	int fd = fix_connect_as(70035);

	(void)state;
	assert_int_equal(ping(fd), 0);
	assert_int_equal(ping(pub), 0);
	assert_true(fair_contested(l));
	l->contested_ms -= FAIR_ALONE_MS;
	for (int i = 0; i < 3; i++)
		assert_int_equal(ping(pub), 0);
	assert_true(fair_needed(l));
	assert_false(fair_contested(l));
	/* Nothing keeps the loop from looking who has come. */
	l->served = FAIR_WATCHED;
	assert_true(fair_waits(l));
	assert_int_equal(ping(pub), 0);
	assert_false(fair_waits(l));
	/* The other one's first request is enough. */
	assert_int_equal(ping(fd), 0);
	assert_true(fair_contested(l));
	fix_close(fd);
}

/* A signature is more work than a ping: fewer of them come before the next look. */
static void work_is_weighed(void **state)
{
	struct loop *l = fix.t.loop;
	struct csm_msg_sign_res res;
	size_t before;
	int r;

	(void)state;
	r = fix_create(pub, "k", "p256", "soft", NULL);
	assert_true(r == 0 || r == CSM_EEXISTS);
	before = l->served = 0;
	assert_int_equal(ping(pub), 0);
	assert_int_equal(l->served - before, 1);
	before = l->served;
	assert_int_equal(fix_sign(pub, "k", &res), 0);
	assert_int_equal(l->served - before, 1 + FAIR_KEY);
}

/* While several connections ask the loop is a batch; one that asks alone has it at once, whoever else is connected. */
static void the_pace_is_that_of_who_asks(void **state)
{
	int other = fix_connect(CSM_R_PUBLIC);

	(void)state;
	for (int i = 0; i < 300; i++)
		assert_int_equal(ping(pub), 0);
	assert_int_equal(sched_getscheduler(0), SCHED_OTHER);
	for (int i = 0; i < 100; i++)
		assert_int_equal(ping(i % 2 == 0 ? other : pub), 0);
	assert_int_equal(sched_getscheduler(0), SCHED_BATCH);
	for (int i = 0; i < 300; i++)
		assert_int_equal(ping(pub), 0);
	assert_int_equal(sched_getscheduler(0), SCHED_OTHER);
	fix_close(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FIX_TEST(a_flood_lets_others_through),
		FIX_TEST(a_flood_lets_others_in),
		FIX_TEST(what_waits_for_a_turn_is_kept),
		FIX_TEST(who_goes_leaves_the_queue),
		FIX_TEST(roles_have_turns_of_their_own),
		FIX_TEST(who_asks_nothing_costs_nothing),
		FIX_TEST(work_is_weighed),
		FIX_TEST(the_pace_is_that_of_who_asks),
	};

	if (!fix_prepare(120, NULL, NULL))
		return 77;
	return cmocka_run_group_tests(tests, fix_begin, fix_end);
}
