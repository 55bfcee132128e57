#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "proto-spec/limits.h"
#include "tests/lib/plugpeer.h"

void peer_answer(struct peer *p, uint32_t msgid, const struct csm_msg_plug_result *m)
{
	assert_int_equal(csm_frame_result(&p->c.out, msgid, CSM_DEF(plug_result), m), 0);
	(void)!csm_channel_send(&p->c, 0, -1);
}

const struct csm_msg_plug_state peer_good_state = {.algs = {1, true}, .uses = {7, true}, .protection = {"hsm", 3},
	.slots = {(1u << CSM_PLUG_FIND) | (1u << CSM_PLUG_DECRYPT) | (1u << CSM_PLUG_RANDOM), true}, .usable = {true, true}};

void peer_answer_state(struct peer *p, uint32_t msgid, const struct csm_msg_plug_state *m)
{
	assert_int_equal(csm_frame_result(&p->c.out, msgid, CSM_DEF(plug_state), m), 0);
	(void)!csm_channel_send(&p->c, 0, -1);
}

void peer_answer_well(struct peer *p, enum csm_plug_method what, uint32_t msgid)
{
	static uint8_t made[64] = {0x30};
	struct csm_msg_plug_result m = {.data = {made, sizeof(made)}, .key = {5, true}, .alg = {0, true}, .use = {1, true},
		.spki = {made, 64}, .pub = {made, 1}, .priv = {made, 2}};

	if (what == CSM_PLUG_OPEN || what == CSM_PLUG_STATE)
		peer_answer_state(p, msgid, &peer_good_state);
	else
		peer_answer(p, msgid, &m);
}

void peer_hello(struct peer *p)
{
	static const uint8_t instance[2][16] = {{1}, {2}};

	for (size_t i = 0; i < CSM_PLUG_CHANNELS; i++) {
		struct csm_msg_plug_hello m = {.abi = {CSM_PLUGIN_ABI + p->other_abi, true},
			.plugin = csm_str_of(p->other_name ? "tpm2" : "mock"),
			.flags = {p->halves ? 0 : CSM_PLUGIN_SERIAL, true},
			.instance = {instance[p->other_instance && i == 2], 16}};

		assert_int_equal(csm_channel_put(&p->c, CSM_PLUG_HELLO, &m, NULL), 0);
		(void)!send(i == 0 ? p->c.fd : p->others[i], csm_buf_ptr(&p->c.out), p->c.out.len, MSG_NOSIGNAL);
		csm_buf_reset(&p->c.out);
	}
}

static void *peer_run(void *arg)
{
	struct peer *p = arg;
	struct csm_frame f;

	if (!p->no_hello)
		peer_hello(p);
	while (csm_channel_recv(&p->c, 0, &f, NULL) == 0) {
		enum csm_plug_method what = csm_plug_find(f.method);

		if (f.type != CSM_REQUEST) {
			p->told++;
			continue;
		}
		if (p->bad != NULL && what == p->at)
			p->bad(p, f.msgid);
		else
			peer_answer_well(p, what, f.msgid);
	}
	csm_channel_free(&p->c);
	for (size_t i = 1; i < CSM_PLUG_CHANNELS; i++)
		close(p->others[i]);
	return NULL;
}

void peer_end(struct peer_host *h)
{
	if (!h->running)
		return;
	for (; h->given < CSM_PLUG_CHANNELS; h->given++)
		close(h->fd[h->given]);
	pthread_join(h->peer.thread, NULL);
	h->running = false;
}

static int start_peer(struct peer_host *h)
{
	peer_end(h);
	h->peer = h->next;
	memset(&h->next, 0, sizeof(h->next));
	for (size_t i = 0; i < CSM_PLUG_CHANNELS; i++) {
		int pair[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
		if (h->peer.halves)
			assert_int_equal(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &(int){16384}, sizeof(int)), 0);
		h->fd[i] = pair[0];
		h->peer.others[i] = pair[1];
	}
	csm_channel_init(&h->peer.c, h->peer.others[0]);
	h->given = 0;
	h->starts++;
	h->running = true;
	return pthread_create(&h->peer.thread, NULL, peer_run, &h->peer);
}

static int host_device(void *arg)
{
	struct peer_host *h = arg;

	if (!h->running || h->given == CSM_PLUG_CHANNELS)
		assert_int_equal(start_peer(h), 0);
	return h->fd[h->given++];
}

static void host_reset(void *arg)
{
	((struct peer_host *)arg)->resets++;
}

static const char *host_config(void *arg, const char *name)
{
	const char *ms = ((struct peer_host *)arg)->ms;

	return strcmp(name, "csm.plugin") == 0 ? "mock" : strcmp(name, "csm.timeout_ms") == 0 ? ms : NULL;
}

static int host_recall(void *arg, const char *name, uint8_t *p, size_t *len)
{
	(void)name;
	((struct peer_host *)arg)->recalls++;
	memset(p, 1, *len);
	return 0;
}

static void host_log(void *arg, int level, const char *text)
{
	struct peer_host *h = arg;

	(void)level;
	snprintf(h->line, sizeof(h->line), "%s", text);
}

static int host_remember(void *arg, const char *name, const uint8_t *p, size_t len)
{
	(void)name;
	(void)p;
	(void)len;
	((struct peer_host *)arg)->kept++;
	return 0;
}

static int host_secret(void *arg, const char *name, uint8_t *p, size_t *len)
{
	static const uint8_t pin[4] = {'1', '2', '3', '4'};

	((struct peer_host *)arg)->secrets++;
	if (strcmp(name, "pin") != 0)
		return CSM_ENOT_FOUND;
	memcpy(p, pin, 4);
	*len = 4;
	return 0;
}

void peer_host_init(struct peer_host *h)
{
	memset(h, 0, sizeof(*h));
	h->host = (struct csm_plugin_host){.arg = h, .device = host_device, .reset = host_reset, .config = host_config,
		.remember = host_remember, .secret = host_secret, .recall = host_recall, .log = host_log};
	h->ms = "100";
}
