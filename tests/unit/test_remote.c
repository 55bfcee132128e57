/* The remote back end against a csm-plughost that an attacker inside the library has taken over: whatever it sends, the call
 * ends in time, nothing is written beyond what the caller gave, it is cut off, and the next process is served. Then the real
 * one: crashes, hangs and PINs. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "proto-spec/limits.h"
#include "tests/lib/plughost.h"
#include "tests/lib/plugpeer.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))
#define CANARY 0xa5

static const struct csm_plugin *const remote = &csm_plugin_remote;
static const struct csm_plugin_keyspec spec = {.alg = CSM_ALG_P256, .use = CSM_USE_SIGN};
static const struct csm_plugin_blob blob = {.spki = (const uint8_t *)"spki", .spki_len = 4};
static const struct csm_scheme ecdsa = {CSM_SCHEME_ECDSA, CSM_HASH_SHA256};
static const uint8_t digest[32];

/* ---- what it does ---- */

static void put_raw(struct peer *p, const void *data, size_t n)
{
	ssize_t sent = send(p->c.fd, data, n, MSG_NOSIGNAL);

	(void)sent;
}

static void silent(struct peer *p, uint32_t msgid)
{
	(void)p;
	(void)msgid;
}

static void closes(struct peer *p, uint32_t msgid)
{
	(void)msgid;
	shutdown(p->c.fd, SHUT_RDWR);
}

static void garbage(struct peer *p, uint32_t msgid)
{
	(void)msgid;
	put_raw(p, "GET / HTTP/1.0\r\n\r\n", 18);
}

static void endless_array(struct peer *p, uint32_t msgid)
{
	(void)msgid;
	put_raw(p, "\xdd\xff\xff\xff\xff", 5);
}

static void oversize_string(struct peer *p, uint32_t msgid)
{
	(void)msgid;
	put_raw(p, "\x94\x01\x02\xc0\xc6\x7f\xff\xff\xff", 9);
}

static void deep(struct peer *p, uint32_t msgid)
{
	uint8_t nest[64];

	(void)msgid;
	memset(nest, 0x91, sizeof(nest));
	put_raw(p, "\x94\x01\x02\xc0", 4);
	put_raw(p, nest, sizeof(nest));
}

static void half(struct peer *p, uint32_t msgid)
{
	(void)msgid;
	put_raw(p, "\x94\x01\x02", 3);
}

static void dribbles(struct peer *p, uint32_t msgid)
{
	(void)msgid;
	put_raw(p, "\x94\x01\x02\xc0\xc5\xff\xff", 7);
	for (int i = 0; i < 60 && send(p->c.fd, "x", 1, MSG_NOSIGNAL) == 1; i++)
		usleep(20000);
}

static void other_msgid(struct peer *p, uint32_t msgid)
{
	peer_answer_well(p, CSM_PLUG_SIGN, msgid + 1);
}

static void two_answers(struct peer *p, uint32_t msgid)
{
	struct csm_msg_plug_result m = {.data = {digest, 32}};

	assert_int_equal(csm_frame_result(&p->c.out, msgid, CSM_DEF(plug_result), &m), 0);
	peer_answer_well(p, CSM_PLUG_SIGN, msgid);
}

static void unknown_field(struct peer *p, uint32_t msgid)
{
	uint8_t raw[] = {0x94, 1, (uint8_t)msgid, 0xc0, 0x81, 0xa1, 'x', 1};

	put_raw(p, raw, sizeof(raw));
}

static void wrong_type(struct peer *p, uint32_t msgid)
{
	uint8_t raw[] = {0x94, 1, (uint8_t)msgid, 0xc0, 0x81, 0xa4, 'd', 'a', 't', 'a', 1};

	put_raw(p, raw, sizeof(raw));
}

static void no_error(struct peer *p, uint32_t msgid)
{
	struct csm_msg_error e = {.code = {0, true}, .name = {"ok", 2}, .message = {"", 0}};
	uint8_t head[] = {0x94, 1, (uint8_t)msgid};

	put_raw(p, head, sizeof(head));
	assert_int_equal(csm_msg_encode(CSM_DEF(error), &e, &p->c.out), 0);
	assert_int_equal(csm_buf_put(&p->c.out, "\xc0", 1), 0);
	(void)!csm_channel_send(&p->c, 0, -1);
}

static void asks_for_more_than_there_is(struct peer *p, uint32_t msgid)
{
	struct csm_msg_plug_call m = {0};

	(void)msgid;
	assert_int_equal(csm_channel_put(&p->c, CSM_PLUG_SIGN, &m, &msgid), 0);
	(void)!csm_channel_send(&p->c, 0, -1);
}

static void unknown_method(struct peer *p, uint32_t msgid)
{
	(void)msgid;
	put_raw(p, "\x94\x00\x07\xa9host.exec\x90", 14);
}

static void hello_again(struct peer *p, uint32_t msgid)
{
	(void)msgid;
	peer_hello(p);
}

static void logs_for_ever(struct peer *p, uint32_t msgid)
{
	struct csm_msg_host_call m = {.level = {4, true}, .text = {"again", 5}};

	(void)msgid;
	for (int i = 0; i < 1000; i++) {
		assert_int_equal(csm_channel_put(&p->c, CSM_PLUG_LOG, &m, NULL), 0);
		if (csm_channel_send(&p->c, 0, -1) != 0)
			return;
	}
}

static void asks_for_ever(struct peer *p, uint32_t msgid)
{
	struct csm_msg_host_call m = {.name = {"x", 1}, .data = {digest, 32}};
	struct csm_frame f;

	for (int i = 0; i < 1000; i++) {
		assert_int_equal(csm_channel_put(&p->c, CSM_PLUG_REMEMBER, &m, &msgid), 0);
		if (csm_channel_send(&p->c, 0, -1) != 0 || csm_channel_recv(&p->c, 0, &f, NULL) != 0)
			return;
	}
}

static void long_signature(struct peer *p, uint32_t msgid)
{
	static const uint8_t much[CSM_PLUG_OUT_MAX];
	struct csm_msg_plug_result m = {.data = {much, sizeof(much)}};

	peer_answer(p, msgid, &m);
}

static void longer_than_any(struct peer *p, uint32_t msgid)
{
	static const uint8_t much[CSM_PLUG_OUT_MAX + 1];
	struct csm_msg_plug_result m = {.data = {much, sizeof(much)}};

	peer_answer(p, msgid, &m);
}

static void empty_key(struct peer *p, uint32_t msgid)
{
	struct csm_msg_plug_result m = {.key = {0, false}};

	peer_answer(p, msgid, &m);
}

static void strange_state(struct peer *p, uint32_t msgid)
{
	struct csm_msg_plug_state m = peer_good_state;

	m.protection = csm_str_of("quantum");
	peer_answer_state(p, msgid, &m);
}

static void algs_of_tomorrow(struct peer *p, uint32_t msgid)
{
	struct csm_msg_plug_state m = peer_good_state;

	m.algs.v = UINT32_MAX;
	peer_answer_state(p, msgid, &m);
}

/* ---- the calls ---- */

static int do_sign(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key)
{
	uint8_t out[256 + 64];
	struct csm_plugin_out sig = {.p = out, .cap = 256, .len = 0x7777};
	int r;

	memset(out, CANARY, sizeof(out));
	r = remote->sign(ctx, key, &ecdsa, digest, sizeof(digest), &sig);
	for (size_t i = sig.cap; i < sizeof(out); i++)
		assert_int_equal(out[i], CANARY);
	assert_true(r == 0 ? sig.len <= sig.cap : sig.len == 0x7777);
	return r;
}

static int do_generate(struct csm_plugin_ctx *ctx)
{
	uint8_t a[8], b[8], c[8];
	struct csm_plugin_out out[3] = {{a, 8, 99}, {b, 8, 99}, {c, 8, 99}};
	int r = remote->generate(ctx, &spec, &out[0], &out[1], &out[2]);

	assert_true(r != 0 && out[0].len == 99 && out[1].len == 99 && out[2].len == 99);
	return r;
}

/* A process that lies at the one call: the call fails as `wanted` says, and the next process serves. */
static void check_deed(enum csm_plug_method at, deed *bad, int wanted, bool cut_off)
{
	struct csm_plugin_key *key = NULL;
	struct csm_plugin_ctx *ctx;
	struct peer_host h;
	int r = 0;

	peer_host_init(&h);
	h.next = (struct peer){.at = at, .bad = bad};
	r = remote->open(&h.host, &ctx);
	if (at == CSM_PLUG_OPEN) {
		assert_int_equal(r, wanted);
		assert_int_equal(h.resets, cut_off);
		csm_remote_forget(&h.host);
		r = remote->open(&h.host, &ctx); /* by the next process */
	}
	assert_int_equal(r, 0);
	r = remote->load(ctx, &spec, &blob, &key);
	if (at == CSM_PLUG_LOAD) {
		assert_int_equal(r, wanted);
		assert_int_equal(h.resets, cut_off);
		h.peer.bad = cut_off ? h.peer.bad : NULL;
		r = remote->load(ctx, &spec, &blob, &key);
	}
	assert_int_equal(r, 0);
	if (at == CSM_PLUG_SIGN) {
		assert_int_equal(do_sign(ctx, key), wanted);
		assert_int_equal(h.resets, cut_off);
		h.peer.bad = cut_off ? h.peer.bad : NULL;
	}
	if (at == CSM_PLUG_GENERATE)
		assert_int_equal(do_generate(ctx), wanted);
	assert_int_equal(do_sign(ctx, key), 0);
	assert_int_equal(h.starts, cut_off ? 2 : 1);
	remote->unload(ctx, key);
	remote->close(ctx);
	peer_end(&h);
}

static void liars_are_cut_off(void **state)
{
	deed *const deeds[] = {silent, closes, garbage, endless_array, oversize_string, deep, half, dribbles, other_msgid,
		two_answers, unknown_field, wrong_type, no_error, asks_for_more_than_there_is, unknown_method, hello_again,
		logs_for_ever, asks_for_ever, longer_than_any};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(deeds); i++) {
		check_deed(CSM_PLUG_SIGN, deeds[i], CSM_EUNAVAILABLE, true);
		if (i != 9) /* one that answers twice is found at what it is asked next, too */
			check_deed(CSM_PLUG_LOAD, deeds[i], CSM_EUNAVAILABLE, true);
	}
	for (size_t i = 0; i < N_ELEMS(deeds); i++)
		if (deeds[i] != other_msgid && deeds[i] != two_answers)
			check_deed(CSM_PLUG_OPEN, deeds[i], CSM_EUNAVAILABLE, true);
	check_deed(CSM_PLUG_OPEN, strange_state, CSM_EUNAVAILABLE, true);
	check_deed(CSM_PLUG_OPEN, algs_of_tomorrow, CSM_EUNAVAILABLE, true);
}

/* In form, but not what was asked for: refused, and the process stays. */
static void lies_in_good_form_are_refused(void **state)
{
	(void)state;
	check_deed(CSM_PLUG_SIGN, long_signature, CSM_ETOO_LARGE, false);
	check_deed(CSM_PLUG_LOAD, empty_key, CSM_EBACKEND, false);
	check_deed(CSM_PLUG_GENERATE, long_signature, CSM_EBACKEND, false);
	check_deed(CSM_PLUG_GENERATE, NULL, CSM_ETOO_LARGE, false); /* its parts are longer than the room */
}

static void strangers_are_not_asked(void **state)
{
	const struct peer odd[] = {{.other_abi = true}, {.other_name = true}, {.other_instance = true}, {.no_hello = true}};
	struct csm_plugin_ctx *ctx = NULL;

	(void)state;
	for (size_t i = 0; i < N_ELEMS(odd); i++) {
		struct peer_host h;

		peer_host_init(&h);
		h.next = odd[i];
		assert_int_equal(remote->open(&h.host, &ctx), CSM_EUNAVAILABLE);
		assert_null(ctx);
		assert_int_equal(h.resets, 1);
		peer_end(&h);
	}
}

/* An answer that nobody waits for any more is not taken for the answer to what is asked next. */
static void late_answer(struct peer *p, uint32_t msgid)
{
	peer_answer_well(p, CSM_PLUG_SIGN, msgid);
	usleep(20000); /* the caller has its answer by now */
	peer_answer_well(p, CSM_PLUG_SIGN, msgid);
	usleep(20000);
}

static void second_answers_do_not_count(void **state)
{
	struct csm_plugin_key *key = NULL;
	struct csm_plugin_ctx *ctx;
	struct peer_host h;

	(void)state;
	peer_host_init(&h);
	h.next = (struct peer){.at = CSM_PLUG_SIGN, .bad = late_answer};
	assert_int_equal(remote->open(&h.host, &ctx), 0);
	assert_int_equal(remote->load(ctx, &spec, &blob, &key), 0);
	assert_int_equal(do_sign(ctx, key), 0);
	usleep(60000);
	assert_int_equal(do_sign(ctx, key), CSM_EUNAVAILABLE);
	assert_int_equal(h.resets, 1);
	assert_int_equal(do_sign(ctx, key), 0);
	remote->unload(ctx, key);
	remote->close(ctx);
	peer_end(&h);
}

/* What it asks for is bounded, and names of csm's own are not for it. */
static void asks_for_csms_own(struct peer *p, uint32_t msgid)
{
	static const char *const names[] = {"csm.device", "csm.plugin", "", "a b", "../x"};
	struct csm_msg_host_call m = {0};
	struct csm_frame f;
	uint32_t id;

	for (size_t i = 0; i < N_ELEMS(names); i++) {
		m.name = csm_str_of(names[i]);
		for (int what = CSM_PLUG_CONFIG; what <= CSM_PLUG_RECALL; what++) {
			assert_int_equal(csm_channel_put(&p->c, (enum csm_plug_method)what, &m, &id), 0);
			assert_int_equal(csm_channel_send(&p->c, 0, -1), 0);
			assert_int_equal(csm_channel_recv(&p->c, 0, &f, NULL), 0);
			assert_int_equal(f.msgid, id);
			assert_int_equal(csm_channel_error(&p->c, f.error), CSM_EINVALID);
		}
	}
	m.name = csm_str_of("pin");
	assert_int_equal(csm_channel_put(&p->c, CSM_PLUG_SECRET, &m, &id), 0);
	assert_int_equal(csm_channel_send(&p->c, 0, -1), 0);
	assert_int_equal(csm_channel_recv(&p->c, 0, &f, NULL), 0);
	assert_null(f.error.p);
	peer_answer_well(p, CSM_PLUG_SIGN, msgid);
}

static void names_of_csm_are_not_told(void **state)
{
	struct csm_plugin_key *key = NULL;
	struct csm_plugin_ctx *ctx;
	struct peer_host h;

	(void)state;
	peer_host_init(&h);
	h.next = (struct peer){.at = CSM_PLUG_SIGN, .bad = asks_for_csms_own};
	assert_int_equal(remote->open(&h.host, &ctx), 0);
	assert_int_equal(remote->load(ctx, &spec, &blob, &key), 0);
	assert_int_equal(do_sign(ctx, key), 0);
	assert_int_equal(h.secrets, 1);
	assert_int_equal(h.kept, 0);
	assert_int_equal(h.recalls, 0);
	assert_int_equal(h.resets, 0);
	remote->unload(ctx, key);
	remote->close(ctx);
	peer_end(&h);
}

/* Each record is a commit of the store. */
static void records_of_a_call_are_few(void **state)
{
	struct csm_plugin_key *key = NULL;
	struct csm_plugin_ctx *ctx;
	struct peer_host h;

	(void)state;
	peer_host_init(&h);
	h.next = (struct peer){.at = CSM_PLUG_SIGN, .bad = asks_for_ever};
	assert_int_equal(remote->open(&h.host, &ctx), 0);
	assert_int_equal(remote->load(ctx, &spec, &blob, &key), 0);
	assert_int_equal(do_sign(ctx, key), CSM_EUNAVAILABLE);
	assert_int_equal(h.kept, 16);
	assert_int_equal(h.resets, 1);
	remote->unload(ctx, key);
	remote->close(ctx);
	peer_end(&h);
}

/* ---- texts ---- */

#define NASTY "a\x1b[2J\xc2\x9b" "2J\xc2\x85" "b\u202ec\u2028d\ufeff\u00e9"
#define PLAIN "a [2J  2J  b   c   d   \u00e9"

static void nasty_state(struct peer *p, uint32_t msgid)
{
	struct csm_msg_host_call line = {.level = {4, true}, .text = csm_str_of(NASTY)};
	struct csm_msg_plug_state m = peer_good_state;
	m.reason = csm_str_of(NASTY);
	m.manufacturer = csm_str_of("abcdef\u00e9"); /* one byte more than there is room for */
	assert_int_equal(csm_channel_put(&p->c, CSM_PLUG_LOG, &line, NULL), 0);
	peer_answer_state(p, msgid, &m);
}

static void texts_are_plain(void **state)
{
	struct csm_plugin_health health;
	struct csm_plugin_ctx *ctx;
	struct peer_host h;

	(void)state;
	peer_host_init(&h);
	h.next = (struct peer){.at = CSM_PLUG_OPEN, .bad = nasty_state};
	assert_int_equal(remote->open(&h.host, &ctx), 0);
	remote->health(ctx, &health);
	assert_string_equal(health.reason, PLAIN);
	assert_string_equal(h.line, PLAIN);
	assert_string_equal(health.manufacturer, "abcdef");
	remote->close(ctx);
	peer_end(&h);
}

/* ---- the real one ---- */

static int no_config_device(void *arg)
{
	(void)arg;
	return -1;
}

struct made {
	uint8_t spki[CSM_SPKI_MAX], pub[CSM_PLUGIN_PUB_MAX], priv[CSM_PLUGIN_PRIV_MAX];
	struct csm_plugin_blob blob;
};

static void make(struct csm_plugin_ctx *ctx, struct made *m)
{
	struct csm_plugin_out a = {m->spki, sizeof(m->spki), 0}, b = {m->pub, sizeof(m->pub), 0},
			      c = {m->priv, sizeof(m->priv), 0};

	assert_int_equal(remote->generate(ctx, &spec, &a, &b, &c), 0);
	m->blob = (struct csm_plugin_blob){m->spki, a.len, m->pub, b.len, m->priv, c.len};
}

static void keys_outlive_their_process(void **state)
{
	static const struct csm_plugin_host inner = {.device = no_config_device};
	static const int deaths[] = {SIGSEGV, SIGSTOP, SIGKILL, SIGTERM};
	static struct made made;
	struct csm_plugin_health health;
	struct csm_plugin_key *key = NULL;
	struct csm_plugin_ctx *ctx;
	struct plughost h;

	(void)state;
	plughost_init(&h, "soft", &inner);
	h.timeout_ms = "1000";
	assert_int_equal(remote->open(&h.host, &ctx), 0);
	make(ctx, &made);
	assert_int_equal(remote->load(ctx, &spec, &made.blob, &key), 0);
	for (size_t i = 0; i < N_ELEMS(deaths); i++) {
		assert_int_equal(do_sign(ctx, key), 0);
		kill(h.pid, deaths[i]);
		assert_int_equal(do_sign(ctx, key), CSM_EUNAVAILABLE);
		h.held = true;
		assert_int_equal(do_sign(ctx, key), CSM_EUNAVAILABLE); /* none there */
		remote->health(ctx, &health);
		assert_false(health.usable);
		assert_non_null(health.reason);
		h.held = false;
		assert_int_equal(do_sign(ctx, key), 0); /* loaded anew by itself */
		remote->health(ctx, &health);
		assert_true(health.usable);
	}
	assert_int_equal(h.resets, N_ELEMS(deaths));
	assert_int_equal(h.starts, N_ELEMS(deaths) + 1);
	remote->unload(ctx, key);
	remote->close(ctx);
	plughost_stop(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(liars_are_cut_off),
		cmocka_unit_test(lies_in_good_form_are_refused),
		cmocka_unit_test(strangers_are_not_asked),
		cmocka_unit_test(second_answers_do_not_count),
		cmocka_unit_test(names_of_csm_are_not_told),
		cmocka_unit_test(records_of_a_call_are_few),
		cmocka_unit_test(texts_are_plain),
		cmocka_unit_test(keys_outlive_their_process),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
