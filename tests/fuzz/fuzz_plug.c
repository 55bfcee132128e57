/* What the broker reads from csm-plughost, where an attacker may have taken over a library: the first byte chooses the call, the
 * rest is all that comes back on its channel once that is asked. The other side has shut down after it, so that nothing
 * waits. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "plugins/remote/channel.h"
#include "plugins/remote/remote.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(x) \
	do { \
		if (!(x)) \
			abort(); \
	} while (0)
#define ROOM 256u
#define CANARY 0xa5

static int fds[CSM_PLUG_CHANNELS], others[CSM_PLUG_CHANNELS];
static size_t given;

static int device(void *arg)
{
	(void)arg;
	return given < CSM_PLUG_CHANNELS ? fds[given++] : -1;
}

static int keep(void *arg, const char *name, const uint8_t *p, size_t n)
{
	(void)arg;
	MUST(strlen(name) <= CSM_TOKEN_STR_MAX && n <= 4096 && (n == 0 || p != NULL));
	return 0;
}

static int recall(void *arg, const char *name, uint8_t *p, size_t *n)
{
	(void)arg;
	MUST(strlen(name) <= CSM_TOKEN_STR_MAX && *n == 4096);
	memset(p, 1, *n);
	return 0;
}

static const char *config(void *arg, const char *name)
{
	(void)arg;
	return strcmp(name, "csm.plugin") == 0 ? "mock" : strcmp(name, "csm.device") == 0 ? NULL : "value";
}

static void log_line(void *arg, int level, const char *text)
{
	(void)arg;
	MUST(level >= 4 && level <= 7 && strchr(text, '\n') == NULL && strlen(text) <= 512);
}

static const struct csm_plugin_host host = {.device = device, .remember = keep, .recall = recall, .secret = recall,
	.config = config, .log = log_line};

static void put(struct csm_channel *c, int to)
{
	MUST(send(to, csm_buf_ptr(&c->out), c->out.len, MSG_NOSIGNAL) == (ssize_t)c->out.len);
	csm_buf_reset(&c->out);
}

/* The other side: a good answer to plug.open, unless that is what is wanted, then the input. */
struct peer {
	const uint8_t *p;
	size_t n;
	bool open;
};

static void *answer(void *arg)
{
	struct csm_msg_plug_state state = {.algs = {1, true}, .uses = {7, true}, .protection = csm_str_of("hsm"),
		.slots = {UINT32_MAX, true}, .usable = {true, true}};
	struct peer *p = arg;
	struct csm_channel c;
	uint8_t asked[4096];

	csm_channel_init(&c, -1);
	if (recv(others[0], asked, sizeof(asked), 0) > 0 && p->open) {
		MUST(csm_frame_result(&c.out, 1, CSM_DEF(plug_state), &state) == 0);
		put(&c, others[0]);
		if (recv(others[0], asked, sizeof(asked), 0) <= 0)
			p->n = 0;
	}
	if (p->n > 0)
		(void)!send(others[0], p->p, p->n, MSG_NOSIGNAL);
	shutdown(others[0], SHUT_WR);
	csm_channel_free(&c);
	return NULL;
}

/* Hello on each channel. */
static void prepare(void)
{
	struct csm_msg_plug_hello m = {.abi = {CSM_PLUGIN_ABI, true}, .plugin = csm_str_of("mock"),
		.flags = {CSM_PLUGIN_SERIAL, true}, .instance = {(const uint8_t *)"0123456789abcdef", 16}};
	struct csm_channel c;
	uint32_t id;

	csm_channel_init(&c, -1);
	for (size_t i = 0; i < CSM_PLUG_CHANNELS; i++) {
		int pair[2];

		MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
		fds[i] = pair[0];
		others[i] = pair[1];
		MUST(csm_channel_put(&c, CSM_PLUG_HELLO, &m, &id) == 0);
		put(&c, others[i]);
	}
	given = 0;
	csm_channel_free(&c);
}

static void check(const struct csm_plugin_out *o, int r)
{
	for (size_t i = o->cap; i < ROOM; i++)
		MUST(o->p[i] == CANARY);
	MUST(r != 0 || o->len <= o->cap);
}

static void call(struct csm_plugin_ctx *ctx, uint8_t which)
{
	static const struct csm_plugin_blob blob = {.spki = (const uint8_t *)"x", .spki_len = 1};
	static const uint8_t in[32];
	const struct csm_plugin *p = &csm_plugin_remote;
	struct csm_plugin_keyspec spec = {.alg = CSM_ALG_P256, .use = CSM_USE_SIGN};
	struct csm_scheme scheme = {CSM_SCHEME_ECDSA, CSM_HASH_SHA256};
	uint8_t space[3][ROOM];
	struct csm_plugin_out o[3];
	struct csm_plugin_key *key = NULL;
	uint64_t n;
	int r = -1;

	memset(space, CANARY, sizeof(space));
	for (size_t i = 0; i < 3; i++)
		o[i] = (struct csm_plugin_out){.p = space[i], .cap = 72};
	switch (which % 8) {
	case 0:
		r = p->generate(ctx, &spec, &o[0], &o[1], &o[2]);
		break;
	case 1:
		r = p->find(ctx, "ref", &spec, &o[0], &o[1], &o[2]);
		MUST(r != 0 || (spec.alg < CSM_ALG__COUNT && !spec.exportable));
		break;
	case 2:
		r = p->seal(ctx, in, sizeof(in), &o[0]);
		break;
	case 3:
		r = p->counter_increment(ctx, &n);
		break;
	case 4:
		r = p->random(ctx, space[0], 72);
		break;
	case 5:
		csm_remote_look(ctx);
		break;
	default:
		r = p->load(ctx, &spec, &blob, &key);
		if (r == 0 && which % 8 == 6)
			r = p->sign(ctx, key, &scheme, in, sizeof(in), &o[0]);
		else if (r == 0)
			r = p->decrypt(ctx, key, &scheme, in, sizeof(in), NULL, 0, &o[0]);
		p->unload(ctx, key);
	}
	for (size_t i = 0; i < 3; i++)
		check(&o[i], r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct csm_plugin_health health;
	struct csm_plugin_ctx *ctx;
	struct peer peer;
	pthread_t thread;

	if (size == 0 || size > 65536)
		return 0;
	peer = (struct peer){.p = data + 1, .n = size - 1, .open = data[0] < 0xf0};
	prepare();
	MUST(pthread_create(&thread, NULL, answer, &peer) == 0);
	if (csm_plugin_remote.open(&host, &ctx) == 0) {
		call(ctx, data[0]);
		csm_plugin_remote.health(ctx, &health);
		csm_plugin_remote.close(ctx);
	} else {
		MUST(!peer.open);
	}
	csm_remote_forget(&host);
	MUST(pthread_join(thread, NULL) == 0);
	for (size_t i = 0; i < CSM_PLUG_CHANNELS; i++) {
		close(others[i]);
		if (i >= given)
			close(fds[i]);
	}
	return 0;
}
