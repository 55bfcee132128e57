/* Rules that name an executable, by requests to a whole broker whose csm-ident is played by the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/node/ask.h"
#include "daemon/node/conn.h"
#include "tests/lib/brokerfix.h"

#define WAIT_MS 5000

static const char policy[] =
	"version: 1\n"
	"identities:\n"
	"  app: {uid: 0, exe: /bin/app}\n"
	"  sealed: {uid: 0, exe: {sha256: \"0101010101010101010101010101010101010101010101010101010101010101\"}}\n"
	"  nobody: {uid: 70061, exe: /bin/app}\n"
	"  any: {uid: 0}\n"
	"namespaces: {home: {home-of: [app]}}\n"
	"rules:\n"
	"  - {allow: [key.show, key.list], to: [app], on: [\"x:*\", \"home:*\"]}\n"
	"  - {allow: [key.public, key.list], to: [sealed], on: [\"x:*\"]}\n"
	"  - {allow: [key.show], to: [any], on: [\"plain:*\"]}\n";

static int ident;
static struct csm_buf in;
static uint32_t answers;

static int setup(void **state)
{
	answers = 0;
	csm_buf_init(&in, CSM_MESSAGE_MAX, false);
	ident = fix_connect(CSM_R_IDENT);
	return fix_setup(state);
}

static int teardown(void **state)
{
	fix_close(ident);
	csm_buf_free(&in);
	return fix_teardown(state);
}

/* The broker's next message to csm-ident that is a question; false: there is none. */
static bool next_ask(struct csm_msg_ident_ask *ret)
{
	uint64_t until = monotonic_ms() + 300;
	struct csm_frame f;
	struct csm_str bad;
	size_t len;
	uint8_t *p;

	while (monotonic_ms() < until) {
		ssize_t n;

		while (in.len > 0 && csm_scan(csm_buf_ptr(&in), in.len, &len) == 0) {
			assert_int_equal(csm_frame_parse(csm_buf_ptr(&in), len, &f), 0);
			if (f.type == CSM_NOTIFICATION) {
				assert_true(csm_str_eq(f.method, "ident.ask"));
				assert_int_equal(csm_msg_decode(CSM_DEF(ident_ask), f.params, CSM_UNKNOWN_REFUSE,
							 &fix.pool, ret, &bad),
					0);
				csm_buf_consume(&in, len);
				return true;
			}
			csm_buf_consume(&in, len);
		}
		testbroker_step(&fix.t);
		assert_int_equal(csm_buf_reserve(&in, 4096, &p), 0);
		n = recv(ident, p, 4096, MSG_DONTWAIT);
		if (n > 0)
			csm_buf_commit(&in, (size_t)n);
	}
	return false;
}

static const struct csm_exe app = {.path = "/bin/app", .device = 1, .inode = 2, .size = 3, .changed = 4, .image = 5};

static void tell(uint64_t id, const struct csm_exe *e)
{
	struct csm_msg_ident_answer m = {.id = {id, true},
		.path = csm_str_of(e->path[0] != '\0' ? e->path : NULL),
		.device = {e->device, true},
		.inode = {e->inode, true},
		.size = {e->size, true},
		.changed = {e->changed, true},
		.image = {e->image, true},
		.sha256 = {e->sha256, e->hashed ? 32 : 0},
		.us = {1, true}};

	struct csm_buf b;

	/* the answer may come as a request, which is answered, or without that */
	if (id % 2 == 0) {
		assert_int_equal(testbroker_request(&fix.t, ident, ++answers, "ident.answer", &m), 0);
		return;
	}
	csm_buf_init(&b, CSM_MESSAGE_MAX, false);
	assert_int_equal(csm_frame_notify(&b, "ident.answer", CSM_DEF(ident_answer), &m), 0);
	assert_int_equal(testbroker_send(&fix.t, ident, csm_buf_ptr(&b), b.len), 0);
	csm_buf_free(&b);
}

/* Ask on fd, with a look at that program on the way; the code. Without one, no look is expected. */
static int ask_as(int fd, const char *method, const void *params, const struct csm_exe *e)
{
	struct csm_msg_ident_ask q = {0};

	assert_int_equal(testbroker_request(&fix.t, fd, 9, method, params), 0);
	assert_int_equal(next_ask(&q), e != NULL);
	if (e != NULL) {
		assert_int_equal(q.pid.v, (uint64_t)getpid());
		assert_int_equal(q.uid.v, 0);
		tell(q.id.v, e);
	}
	assert_int_equal(testbroker_answer(&fix.t, fd, &fix.reader, WAIT_MS, &fix.last), 0);
	return fix.last.error;
}

static int show_as(int fd, const char *key, const struct csm_exe *e)
{
	struct csm_msg_key_req m = {.key = csm_str_of(key)};

	return ask_as(fd, "key.show", &m, e);
}

static int prove_as(int fd, const uint8_t *nonce, size_t n, const struct csm_exe *e)
{
	struct csm_msg_prove_req m = {.nonce = {nonce, n}};

	return ask_as(fd, "prove", &m, e);
}

/* Prove that pub is that program's. */
static void prove(const struct csm_exe *e)
{
	uint8_t nonce[32];
	size_t n;

	assert_int_equal(show_as(pub, "x:k", e), CSM_EPROOF_REQUIRED);
	n = fix.last.nonce.n;
	assert_int_equal(n, 16);
	memcpy(nonce, fix.last.nonce.p, n);
	assert_int_equal(prove_as(pub, nonce, n, e), 0);
}

/* ---- */

static void proven_and_served(void **state)
{
	struct csm_msg_whoami_res who;
	struct csm_exe other = app;

	(void)state;
	/* whom no rule could give more for its program is not looked at */
	int third = fix_connect_as(70062), second = fix_connect_as(70061);
	assert_int_equal(show_as(third, "x:k", NULL), CSM_EDENIED);
	struct csm_msg_key_req by = {.key = CSM_STR("x:k")};
	assert_int_equal(ask_as(second, "key.show", &by, NULL), CSM_EDENIED);
	fix_close(third);
	fix_close(second);
	/* another program is refused, and given nothing to prove */
	snprintf(other.path, sizeof(other.path), "/bin/other");
	assert_int_equal(show_as(pub, "x:k", &other), CSM_EDENIED);
	assert_null(fix.last.nonce.p);
	/* what is allowed to any program is so to this one */
	assert_int_equal(show_as(pub, "plain:k", &other), CSM_EDENIED); /* not_found needs key.list */
	prove(&app);
	assert_int_equal(show_as(pub, "x:k", &app), CSM_ENOT_FOUND); /* it may list */
	assert_int_equal(show_as(pub, "y:k", &app), CSM_EDENIED);
	/* whoami tells it */
	struct csm_msg_empty none;
	struct csm_msg_ident_ask q = {0};
	assert_int_equal(testbroker_request(&fix.t, pub, 3, "whoami", &none), 0);
	assert_true(next_ask(&q));
	tell(q.id.v, &app);
	assert_int_equal(testbroker_answer(&fix.t, pub, &fix.reader, WAIT_MS, &fix.last), 0);
	struct csm_str bad;
	assert_int_equal(
		csm_msg_decode(CSM_DEF(whoami_res), fix.last.result, CSM_UNKNOWN_REFUSE, &fix.pool, &who, &bad), 0);
	assert_int_equal(who.identities.n, 2);
	assert_true(csm_str_eq(who.namespace, "home"));
}

static void bad_proofs(void **state)
{
	uint8_t nonce[32] = {0}, zero[32] = {0};
	struct csm_exe other = app;
	int second = fix_connect(CSM_R_PUBLIC);

	(void)state;
	/* before any challenge: not even a look */
	assert_int_equal(prove_as(pub, zero, 16, NULL), CSM_EDENIED);
	assert_int_equal(show_as(pub, "x:k", &app), CSM_EPROOF_REQUIRED);
	memcpy(nonce, fix.last.nonce.p, 16);
	/* another one, a part of it, and more than it */
	nonce[0] ^= 1;
	assert_int_equal(prove_as(pub, nonce, 16, &app), CSM_EDENIED);
	nonce[0] ^= 1;
	assert_int_equal(prove_as(pub, nonce, 15, &app), CSM_EDENIED);
	assert_int_equal(prove_as(pub, nonce, 17, &app), CSM_EDENIED);
	/* on another connection of the same process */
	assert_int_equal(prove_as(second, nonce, 16, NULL), CSM_EDENIED);
	assert_int_equal(show_as(second, "x:k", &app), CSM_EPROOF_REQUIRED);
	assert_memory_not_equal(fix.last.nonce.p, nonce, 16);
	assert_int_equal(prove_as(second, nonce, 16, &app), CSM_EDENIED);
	/* the same program, executed anew since: the nonce is void then */
	other.image++;
	assert_int_equal(prove_as(pub, nonce, 16, &other), CSM_EDENIED);
	assert_int_equal(prove_as(pub, nonce, 16, &app), CSM_EDENIED);
	assert_int_equal(prove_as(pub, zero, 16, &app), CSM_EDENIED);
	assert_int_equal(show_as(pub, "x:k", &app), CSM_EPROOF_REQUIRED);
	assert_memory_not_equal(fix.last.nonce.p, nonce, 16);
	fix_close(second);
}

/* Any difference, at any use, and the proof is gone. */
static void looked_at_again(void **state)
{
	struct csm_exe others[6];

	(void)state;
	for (size_t i = 0; i < 6; i++)
		others[i] = app;
	others[0].device++;
	others[1].inode++;
	others[2].size++;
	others[3].changed++;
	others[4].image++;
	snprintf(others[5].path, sizeof(others[5].path), "/bin/app2");
	for (size_t i = 0; i < 6; i++) {
		prove(&app);
		assert_int_equal(show_as(pub, "x:k", &app), CSM_ENOT_FOUND);
		assert_int_equal(show_as(pub, "x:k", &others[i]), i < 5 ? CSM_EPROOF_REQUIRED : CSM_EDENIED);
	}
}

/* What came before the proof is not proven by it, though it is judged after. */
static void sent_before_the_proof(void **state)
{
	struct csm_msg_key_req m = {.key = CSM_STR("x:k")};
	struct csm_msg_ident_ask early;

	(void)state;
	assert_int_equal(testbroker_request(&fix.t, pub, 77, "key.show", &m), 0);
	assert_true(next_ask(&early));
	prove(&app);
	tell(early.id.v, &app);
	assert_int_equal(testbroker_answer(&fix.t, pub, &fix.reader, WAIT_MS, &fix.last), 0);
	assert_int_equal(fix.last.msgid, 77);
	assert_int_equal(fix.last.error, CSM_EPROOF_REQUIRED);
	/* the proof itself stays good */
	assert_int_equal(show_as(pub, "x:k", &app), CSM_ENOT_FOUND);
}

static void refusals_of_the_helper(void **state)
{
	struct csm_msg_key_req m = {.key = CSM_STR("x:k")};
	struct csm_msg_ident_answer no = {.refusal = CSM_STR("it lies on a network file system")}, part;
	struct csm_msg_ident_ask q = {0};

	(void)state;
	assert_int_equal(testbroker_request(&fix.t, pub, 1, "key.show", &m), 0);
	assert_true(next_ask(&q));
	no.id = (struct csm_u64){q.id.v, true};
	assert_int_equal(testbroker_request(&fix.t, ident, ++answers, "ident.answer", &no), 0);
	assert_int_equal(testbroker_answer(&fix.t, pub, &fix.reader, WAIT_MS, &fix.last), 0);
	assert_int_equal(fix.last.error, CSM_EDENIED);
	assert_string_equal(fix.last.message, "it lies on a network file system");
	/* an answer that lacks something is none */
	assert_int_equal(testbroker_request(&fix.t, pub, 2, "key.show", &m), 0);
	assert_true(next_ask(&q));
	part = (struct csm_msg_ident_answer){.id = {q.id.v, true}, .path = CSM_STR("/bin/app"), .inode = {2, true}};
	assert_int_equal(testbroker_request(&fix.t, ident, ++answers, "ident.answer", &part), 0);
	assert_int_equal(testbroker_answer(&fix.t, pub, &fix.reader, WAIT_MS, &fix.last), 0);
	assert_int_equal(fix.last.error, CSM_EUNAVAILABLE);
	assert_true(fix.last.retryable);
	/* nor is one to no question, or a second one */
	assert_false(next_ask(&q));
	assert_int_equal(fix_ask(ident, "ident.answer", &part), CSM_ENOT_FOUND);
	part.id.v = 999999;
	assert_int_equal(fix_ask(ident, "ident.answer", &part), CSM_ENOT_FOUND);
}

/* fix_close would wait for the operations that are away, which here nobody ends. */
static void end_now(int fd)
{
	close(fd);
	testbroker_step(&fix.t);
}

static void helper_away(void **state)
{
	struct csm_msg_key_req m = {.key = CSM_STR("x:k")}, bare = {.key = CSM_STR("k")};
	struct csm_msg_ident_ask q = {0};

	(void)state;
	/* it dies with questions in hand: the next one gets them */
	assert_int_equal(testbroker_request(&fix.t, pub, 1, "key.show", &m), 0);
	assert_true(next_ask(&q));
	end_now(ident);
	csm_buf_reset(&in);
	ident = fix_connect(CSM_R_IDENT);
	assert_true(next_ask(&q));
	tell(q.id.v, &app);
	assert_int_equal(testbroker_answer(&fix.t, pub, &fix.reader, WAIT_MS, &fix.last), 0);
	assert_int_equal(fix.last.error, CSM_EPROOF_REQUIRED);
	/* none comes, in time: no rule for it, and no bare name, which could be in two places */
	end_now(ident);
	assert_int_equal(testbroker_request(&fix.t, pub, 2, "key.show", &m), 0);
	testbroker_step(&fix.t);
	asks_tick(fix.t.b.asks, monotonic_ms() + ASK_MS - 1000);
	testbroker_step(&fix.t);
	assert_int_equal(fix.t.loop->n_ops, 1);
	asks_tick(fix.t.b.asks, monotonic_ms() + ASK_DIGEST_MS);
	assert_int_equal(testbroker_answer(&fix.t, pub, &fix.reader, WAIT_MS, &fix.last), 0);
	assert_int_equal(fix.last.error, CSM_EUNAVAILABLE);
	assert_int_equal(testbroker_request(&fix.t, pub, 3, "key.show", &bare), 0);
	testbroker_step(&fix.t);
	asks_tick(fix.t.b.asks, monotonic_ms() + ASK_DIGEST_MS);
	assert_int_equal(testbroker_answer(&fix.t, pub, &fix.reader, WAIT_MS, &fix.last), 0);
	assert_int_equal(fix.last.error, CSM_EUNAVAILABLE);
	/* a client that goes meanwhile leaves nothing behind */
	int gone = fix_connect(CSM_R_PUBLIC);
	assert_int_equal(testbroker_request(&fix.t, gone, 3, "key.show", &m), 0);
	testbroker_step(&fix.t);
	assert_int_equal(fix.t.loop->n_ops, 1);
	end_now(gone);
	ident = fix_connect(CSM_R_IDENT);
	assert_true(next_ask(&q));
	tell(q.id.v, &app);
	assert_true(testbroker_run(&fix.t, WAIT_MS));
}

static void homes(void **state)
{
	struct csm_exe other = app;

	(void)state;
	snprintf(other.path, sizeof(other.path), "/bin/other");
	assert_int_equal(show_as(pub, "k", &other), CSM_EDENIED);
	assert_int_equal(show_as(pub, "k", &app), CSM_EPROOF_REQUIRED);
	prove(&app);
	assert_int_equal(show_as(pub, "k", &app), CSM_ENOT_FOUND); /* home:k */
}

static void digests(void **state)
{
	struct csm_msg_key_public_req m = {.key = CSM_STR("x:k")};
	struct csm_exe e = app;
	struct csm_msg_ident_ask q = {0};
	uint8_t nonce[16];

	(void)state;
	e.path[0] = '\0';
	e.hashed = true;
	memset(e.sha256, 1, 32);
	assert_int_equal(testbroker_request(&fix.t, pub, 1, "key.public", &m), 0);
	assert_true(next_ask(&q));
	assert_true(q.digest.v);
	tell(q.id.v, &e);
	assert_int_equal(testbroker_answer(&fix.t, pub, &fix.reader, WAIT_MS, &fix.last), 0);
	assert_int_equal(fix.last.error, CSM_EPROOF_REQUIRED);
	memcpy(nonce, fix.last.nonce.p, 16);
	assert_int_equal(prove_as(pub, nonce, 16, &e), 0);
	assert_int_equal(ask_as(pub, "key.public", &m, &e), CSM_ENOT_FOUND);
	e.sha256[31] = 2;
	assert_int_equal(ask_as(pub, "key.public", &m, &e), CSM_EDENIED);
	e.hashed = false;
	assert_int_equal(ask_as(pub, "key.public", &m, &e), CSM_EDENIED);
}

/* Many at once from one connection; then the broker ends. */
static void many_and_the_end(void **state)
{
	struct csm_msg_key_req m = {.key = CSM_STR("x:k")};
	struct csm_msg_ident_ask q[ASK_SENT_MAX], more;

	(void)state;
	prove(&app);
	for (uint32_t i = 0; i < 3 * ASK_SENT_MAX; i++)
		assert_int_equal(testbroker_request(&fix.t, pub, 100 + i, "key.show", &m), 0);
	/* no more with the helper at once than one user may have there, the rest after the answers, in its order */
	for (uint32_t round = 0; round < 3; round++) {
		uint32_t last = 100 + (round + 1) * ASK_SENT_MAX - 1;

		for (unsigned i = 0; i < ASK_SENT_MAX; i++)
			assert_true(next_ask(&q[i]));
		assert_false(next_ask(&more));
		for (unsigned i = ASK_SENT_MAX; i-- > 0;)
			tell(q[i].id.v, &app);
		for (uint32_t i = 0; i < ASK_SENT_MAX; i++) {
			assert_int_equal(testbroker_answer(&fix.t, pub, &fix.reader, WAIT_MS, &fix.last), 0);
			assert_int_equal(fix.last.error, CSM_ENOT_FOUND);
			assert_int_equal(fix.last.msgid, last - i);
		}
	}
	assert_int_equal(testbroker_request(&fix.t, pub, 1, "key.show", &m), 0);
	assert_true(next_ask(&q[0]));
	asks_stop(fix.t.b.asks);
	assert_int_equal(testbroker_answer(&fix.t, pub, &fix.reader, WAIT_MS, &fix.last), 0);
	assert_int_equal(fix.last.error, CSM_ESHUTDOWN);
	assert_int_equal(ask_as(pub, "key.show", &m, NULL), CSM_ESHUTDOWN);
}

/* ---- the questions by themselves: users and their turns ---- */

static unsigned n_done;
static int last_r;

static void on_done(struct ask *ask)
{
	n_done++;
	last_r = ask->r;
}

static void put(struct ask *ask, uint32_t user, bool digest)
{
	*ask = (struct ask){.user = user, .pid = (pid_t)(1000 + user), .digest = digest, .done = on_done};
	asks_put(fix.t.b.asks, fix.t.loop, ask);
	conn_flush_dirty(fix.t.loop); /* as the loop does after each turn */
}

/* One user asks as much as he may: another's question comes after no more than those that the helper has already, a
 * digest of his own holds up no look; and beyond what he may it is busy, for him alone. */
static void users_take_turns(void **state)
{
	static struct ask mine[ASK_MAX + 1], other, digest;
	struct csm_msg_ident_ask q = {0}, first = {0};

	(void)state;
	testbroker_step(&fix.t);
	n_done = 0;
	for (size_t i = 0; i < ASK_MAX; i++)
		put(&mine[i], 71, false);
	assert_int_equal(n_done, 0);
	put(&mine[ASK_MAX], 71, false);
	assert_int_equal(n_done, 1);
	assert_int_equal(last_r, CSM_EBUSY);
	put(&other, 72, false);
	put(&digest, 71, true);
	assert_int_equal(n_done, 1);
	for (unsigned i = 0; i < ASK_SENT_MAX; i++) {
		assert_true(next_ask(&q));
		assert_int_equal(q.pid.v, 1071);
		if (i == 0)
			first = q;
	}
	assert_true(next_ask(&q));
	assert_int_equal(q.pid.v, 1072);
	tell(q.id.v, &app);
	assert_true(next_ask(&q));
	assert_true(q.digest.v);
	assert_false(next_ask(&q));
	assert_int_equal(n_done, 2);
	/* a new helper is asked what the old one did not answer, in the old order */
	fix_close(ident);
	csm_buf_reset(&in);
	ident = fix_connect(CSM_R_IDENT);
	for (unsigned i = 0; i < ASK_SENT_MAX + 1; i++) {
		assert_true(next_ask(&q));
		if (!q.digest.v)
			assert_true(q.id.v - first.id.v < ASK_SENT_MAX);
	}
	assert_false(next_ask(&q));
	/* an answer makes room for one more */
	tell(first.id.v, &app);
	assert_true(next_ask(&q));
	assert_int_equal(q.id.v, first.id.v + ASK_SENT_MAX);
	assert_false(next_ask(&q));
	/* and in time all of it is over, the looks before the digest */
	asks_tick(fix.t.b.asks, monotonic_ms() + ASK_MS);
	assert_int_equal(n_done, 1 + 1 + ASK_MAX);
	assert_int_equal(last_r, CSM_EUNAVAILABLE);
	asks_tick(fix.t.b.asks, monotonic_ms() + ASK_DIGEST_MS);
	assert_int_equal(n_done, 1 + 1 + ASK_MAX + 1);
	put(&mine[0], 71, false);
	assert_true(next_ask(&q));
	tell(q.id.v, &app);
	testbroker_step(&fix.t);
	assert_int_equal(last_r, 0);
}

/* ---- signatures in parts ---- */

/* Who may sign: a program that has to prove itself, or any. */
static const char only_app[] = "version: 1\n"
			       "identities: {app: {uid: 0, exe: /bin/app}, any: {uid: 0}}\n"
			       "rules:\n"
			       "  - {allow: [key.sign], to: [app], on: [\"x:*\"]}\n"
			       "  - {allow: [key.create, key.public, key.delete], to: [any], on: [\"x:*\"]}\n";
static const char anyone[] = "version: 1\n"
			     "identities: {any: {uid: 0}}\n"
			     "rules: [{allow: [key.sign, key.create, key.public, key.delete], to: [any], on: [\"x:*\"]}]\n";

static int admin; /* while a test of these runs: closing waits for operations, which wait here */

static void reload(const char *text)
{
	struct csm_msg_reload_res res;
	struct csm_msg_empty none = {0};

	fix.t.policy = text;
	assert_int_equal(fix_call(admin, "policy.reload", &none, &res), 0);
}

/* Begun on a connection that is proven; the program is asked for at each step. */
static uint64_t begin_parts(void)
{
	struct csm_msg_sign_init_req m = {.key = CSM_STR("x:parts"), .scheme = CSM_STR("ecdsa-sha256")};
	struct csm_msg_sign_init_res res;
	struct csm_str bad;
	uint8_t nonce[16];

	admin = fix_connect(CSM_R_ADMIN);
	reload(only_app);
	assert_int_equal(fix_create(pub, "x:parts", "p256", NULL, NULL), 0);
	assert_int_equal(ask_as(pub, "key.sign_init", &m, &app), CSM_EPROOF_REQUIRED);
	memcpy(nonce, fix.last.nonce.p, 16);
	assert_int_equal(prove_as(pub, nonce, 16, &app), 0);
	assert_int_equal(ask_as(pub, "key.sign_init", &m, &app), 0);
	assert_int_equal(csm_msg_decode(CSM_DEF(sign_init_res), fix.last.result, CSM_UNKNOWN_REFUSE, &fix.pool, &res, &bad), 0);
	return res.stream.v;
}

static void send_part(int fd, uint32_t msgid, uint64_t stream, const char *text)
{
	struct csm_msg_sign_update_req m = {.stream = {stream, true}, .data = {(const uint8_t *)text, strlen(text)}};

	assert_int_equal(testbroker_request(&fix.t, fd, msgid, "key.sign_update", &m), 0);
	testbroker_step(&fix.t);
}

static void send_end(uint32_t msgid, uint64_t stream)
{
	struct csm_msg_sign_final_req m = {.stream = {stream, true}};

	assert_int_equal(testbroker_request(&fix.t, pub, msgid, "key.sign_final", &m), 0);
	testbroker_step(&fix.t);
}

/* The answers to messages 1 to n come in that order, the last of them is a signature of that text. */
static void assert_signed(uint32_t n, const char *text)
{
	struct csm_msg_key_delete_req m = {.key = CSM_STR("x:parts")};
	struct csm_msg_sign_res res;
	uint8_t sig[256];
	struct csm_str bad;
	size_t len;

	for (uint32_t i = 1; i <= n; i++) {
		assert_int_equal(testbroker_answer(&fix.t, pub, &fix.reader, WAIT_MS, &fix.last), 0);
		assert_int_equal(fix.last.msgid, i);
		assert_int_equal(fix.last.error, 0);
	}
	assert_int_equal(csm_msg_decode(CSM_DEF(sign_res), fix.last.result, CSM_UNKNOWN_REFUSE, &fix.pool, &res, &bad), 0);
	len = res.signature.n;
	assert_in_range(len, 1, sizeof(sig));
	memcpy(sig, res.signature.p, len);
	assert_true(fix_verified("x:parts", "ecdsa-sha256", text, (struct csm_bin){sig, len}));
	assert_int_equal(fix_ask(pub, "key.delete", &m), 0);
	reload(policy);
}

/* The rule goes while a part waits for the look at its program: what comes then needs none, and does not overtake it. */
static void parts_behind_one_that_is_looked_at(void **state)
{
	struct csm_msg_ident_ask q;
	uint64_t s = begin_parts();

	(void)state;
	send_part(pub, 1, s, "one ");
	assert_true(next_ask(&q));
	reload(anyone);
	send_part(pub, 2, s, "two ");
	send_part(pub, 3, s, "three");
	send_end(4, s);
	tell(q.id.v, &app);
	assert_signed(4, "one two three");
	fix_close(admin);
}

/* csm-ident answers in any order. */
static void parts_whose_looks_end_in_another_order(void **state)
{
	uint64_t s = begin_parts();
	struct csm_msg_ident_ask q[4];

	(void)state;
	send_part(pub, 1, s, "a");
	send_part(pub, 2, s, "b");
	send_part(pub, 3, s, "c");
	send_end(4, s);
	for (size_t i = 0; i < 4; i++)
		assert_true(next_ask(&q[i]));
	for (size_t i = 4; i-- > 0;)
		tell(q[i].id.v, &app);
	assert_signed(4, "abc");
	fix_close(admin);
}

/* What needed no look when it came is judged by the policy of its turn; and a connection that goes leaves nothing. */
static void parts_under_a_rule_that_comes_back(void **state)
{
	uint64_t s = begin_parts();
	struct csm_msg_ident_ask q;
	int gone;

	(void)state;
	send_part(pub, 1, s, "a");
	assert_true(next_ask(&q));
	reload(anyone);
	send_end(2, s);
	reload(only_app);
	assert_false(next_ask(&q));
	tell(q.id.v, &app);
	assert_true(next_ask(&q));
	tell(q.id.v, &app);
	assert_signed(2, "a");
	reload(only_app);
	gone = fix_connect(CSM_R_PUBLIC);
	for (uint32_t i = 1; i < 5; i++) {
		send_part(gone, i, 1, "x");
		if (i == 2)
			reload(anyone);
	}
	assert_true(next_ask(&q));
	tell(q.id.v + 1, &app);
	testbroker_step(&fix.t);
	assert_int_equal(fix.t.loop->n_ops, 4);
	close(gone);
	testbroker_step(&fix.t);
	tell(q.id.v, &app);
	assert_true(testbroker_run(&fix.t, WAIT_MS));
	assert_int_equal(fix.t.loop->n_ops, 0);
	reload(policy);
	fix_close(admin);
}

/* A helper that has too much to do has not refused anybody: no denial, and it may be tried again. */
static void busy_helper(void **state)
{
	struct csm_msg_key_req m = {.key = CSM_STR("x:k")};
	struct csm_msg_ident_ask q = {0};

	(void)state;
	assert_int_equal(testbroker_request(&fix.t, pub, 1, "key.show", &m), 0);
	assert_true(next_ask(&q));
	struct csm_msg_ident_answer a = {
		.id = {q.id.v, true}, .refusal = CSM_STR("not now"), .busy = {true, true}, .us = {1, true}};
	assert_int_equal(testbroker_request(&fix.t, ident, ++answers, "ident.answer", &a), 0);
	assert_int_equal(testbroker_answer(&fix.t, pub, &fix.reader, WAIT_MS, &fix.last), 0);
	assert_int_equal(fix.last.error, CSM_EBUSY);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(proven_and_served), TEST(bad_proofs), TEST(looked_at_again),
		TEST(sent_before_the_proof), TEST(refusals_of_the_helper), TEST(helper_away), TEST(homes),
		TEST(digests), TEST(users_take_turns), TEST(busy_helper), TEST(parts_behind_one_that_is_looked_at),
		TEST(parts_whose_looks_end_in_another_order), TEST(parts_under_a_rule_that_comes_back),
		TEST(many_and_the_end)};

	if (!fix_prepare(120, NULL, policy))
		return 77;
	return cmocka_run_group_tests(tests, fix_begin, fix_end);
}
