/* Signatures in halves, as an event loop makes them, over a csm-plughost that does not read what it is sent: no call waits for it,
 * it is cut off, and another back end of the same loop is served meanwhile. */
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/lib/plugpeer.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))
#define BOUND_MS 5000 /* nobody in here waits longer for the other */

static const struct csm_plugin *const remote = &csm_plugin_remote;
static const struct csm_plugin_keyspec spec = {.alg = CSM_ALG_P256, .use = CSM_USE_SIGN};
static const struct csm_plugin_blob blob = {.spki = (const uint8_t *)"spki", .spki_len = 4};
static const struct csm_scheme ecdsa = {CSM_SCHEME_ECDSA, CSM_HASH_SHA256};

/* The steps of the two sides. False: it did not come. */
static bool wait_step(struct peer *p, int step)
{
	for (int i = 0; i < BOUND_MS && p->step < step; i++)
		usleep(1000);
	return p->step >= step;
}

/* Until the test has all that it wanted without us; and then the end, which frees whoever waits for us after all. */
static void sit(struct peer *p)
{
	if (!wait_step(p, 9))
		p->gave_up = true;
	shutdown(p->c.fd, SHUT_RDWR);
}

/* More has come than there was, or the other side has gone. We read nothing. */
static bool more_waits(struct peer *p, int *n)
{
	struct pollfd end = {.fd = p->c.fd, .events = POLLRDHUP};
	int now = *n;

	for (int i = 0; i < BOUND_MS && now == *n && p->step < 9; i++) {
		if (poll(&end, 1, 1) < 0 || ioctl(p->c.fd, FIONREAD, &now) != 0 || (end.revents & (POLLRDHUP | POLLHUP)) != 0)
			return false;
		if (end.revents == 0)
			continue;
	}
	if (now == *n && p->step < 9)
		p->gave_up = true;
	*n = now;
	return !p->gave_up && p->step < 9;
}

static void put_recall(struct peer *p)
{
	struct csm_msg_host_call m = {.name = {"x", 1}};
	uint32_t id;

	assert_int_equal(csm_channel_put(&p->c, CSM_PLUG_RECALL, &m, &id), 0);
}

static void recalls_at_once(struct peer *p, uint32_t msgid)
{
	(void)msgid;
	for (int i = 0; i < 200; i++)
		put_recall(p);
	(void)!csm_channel_send(&p->c, 0, -1);
	sit(p);
}

static void recalls_unread(struct peer *p, uint32_t msgid)
{
	int n = 0;

	(void)msgid;
	do {
		put_recall(p);
	} while (csm_channel_send(&p->c, 0, -1) == 0 && more_waits(p, &n));
	sit(p);
}

/* In order, but without an end. */
static void recalls_for_ever(struct peer *p, uint32_t msgid)
{
	struct csm_frame f;

	(void)msgid;
	do {
		put_recall(p);
	} while (csm_channel_send(&p->c, 0, -1) == 0 && csm_channel_recv(&p->c, 0, &f, NULL) == 0);
}

/* What comes next is as plain as what came: it is answered as soon as it is there, unread. */
static void answers_unread(struct peer *p, uint32_t msgid)
{
	int n = 0;

	peer_answer_well(p, CSM_PLUG_SIGN, msgid);
	while (more_waits(p, &n))
		peer_answer_well(p, CSM_PLUG_SIGN, ++msgid);
	sit(p);
}

static void answers_ahead(struct peer *p, uint32_t msgid)
{
	peer_answer_well(p, CSM_PLUG_SIGN, msgid);
	p->gave_up = !wait_step(p, 1);
	peer_answer_well(p, CSM_PLUG_SIGN, msgid + 1);
	p->step = 2;
	sit(p);
}

/* As a login in between does. */
static void asks_a_little(struct peer *p, uint32_t msgid)
{
	struct csm_frame f;

	for (int i = 0; i < 6; i++) {
		put_recall(p);
		assert_int_equal(csm_channel_send(&p->c, 0, -1), 0);
		assert_int_equal(csm_channel_recv(&p->c, 0, &f, NULL), 0);
		assert_null(f.error.p);
	}
	peer_answer_well(p, CSM_PLUG_SIGN, msgid);
}

/* As a loop does it: go on whenever there is something to read. */
static int sign_in_halves(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key)
{
	static const uint8_t in[4096];
	uint8_t out[256];
	struct csm_plugin_out sig = {.p = out, .cap = sizeof(out)};
	struct csm_remote_half *half;
	struct pollfd readable = {.events = POLLIN};
	int r = csm_remote_sign_begin(ctx, key, &ecdsa, in, sizeof(in), sizeof(out), &half, &readable.fd);

	if (r != 0)
		return r;
	do {
		assert_int_equal(poll(&readable, 1, BOUND_MS * 2), 1);
		r = csm_remote_sign_end(half, &sig);
	} while (r == CSM_EBUSY);
	return r;
}

struct halves {
	struct peer_host h;
	struct csm_plugin_ctx *ctx;
	struct csm_plugin_key *key;
};

static void halves_open(struct halves *v, deed *bad)
{
	peer_host_init(&v->h);
	v->h.ms = "600000";
	v->h.next = (struct peer){.at = CSM_PLUG_SIGN, .bad = bad, .halves = true};
	assert_int_equal(remote->open(&v->h.host, &v->ctx), 0);
	assert_int_equal(remote->load(v->ctx, &spec, &blob, &v->key), 0);
}

static void halves_close(struct halves *v)
{
	v->h.peer.step = 9;
	remote->unload(v->ctx, v->key);
	remote->close(v->ctx);
	peer_end(&v->h);
}

/* Cut off while it sits there, and another back end of the same loop is served meanwhile. */
static void check_sitting(deed *bad, unsigned times)
{
	struct halves v, other;
	int r = 0;

	halves_open(&v, bad);
	halves_open(&other, NULL);
	for (unsigned i = 0; i < times && r == 0; i++) {
		r = sign_in_halves(v.ctx, v.key);
		if (bad == answers_ahead && i == 0) {
			v.h.peer.step = 1;
			assert_true(wait_step(&v.h.peer, 2));
		}
	}
	assert_int_equal(r, CSM_EUNAVAILABLE);
	assert_int_equal(v.h.resets, 1);
	assert_true(v.h.recalls <= (bad == recalls_at_once ? 0 : 8));
	assert_int_equal(sign_in_halves(other.ctx, other.key), 0);
	assert_false(v.h.peer.gave_up);
	halves_close(&v);
	halves_close(&other);
}

static void whoever_does_not_read_stops_no_loop(void **state)
{
	(void)state;
	check_sitting(recalls_at_once, 1);
	check_sitting(recalls_unread, 1);
	check_sitting(answers_unread, 64);
	check_sitting(answers_ahead, 2);
	check_sitting(recalls_for_ever, 1);
}

static void a_loop_serves_a_little(void **state)
{
	struct halves v;

	(void)state;
	halves_open(&v, asks_a_little);
	for (int i = 0; i < 3; i++)
		assert_int_equal(sign_in_halves(v.ctx, v.key), 0);
	assert_int_equal(v.h.recalls, 18);
	assert_int_equal(v.h.resets, 0);
	halves_close(&v);
}

/* Many keys that are to be forgotten go with several calls. */
static void the_dead_go_in_parts(void **state)
{
	struct csm_plugin_key *key[600];
	struct halves v;

	(void)state;
	halves_open(&v, NULL);
	for (size_t i = 0; i < N_ELEMS(key); i++)
		assert_int_equal(remote->load(v.ctx, &spec, &blob, &key[i]), 0);
	for (size_t i = 0; i < N_ELEMS(key); i++)
		remote->unload(v.ctx, key[i]);
	for (unsigned told = 256; told <= 768; told += 256) {
		assert_int_equal(sign_in_halves(v.ctx, v.key), 0);
		assert_int_equal(v.h.peer.told, told < 600 ? told : 600);
	}
	assert_int_equal(v.h.resets, 0);
	halves_close(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whoever_does_not_read_stops_no_loop),
		cmocka_unit_test(a_loop_serves_a_little),
		cmocka_unit_test(the_dead_go_in_parts),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
