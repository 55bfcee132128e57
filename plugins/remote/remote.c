#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "libclient/base/lockmem.h"
#include "plugins/remote/link.h"
#include "proto-spec/limits.h"

typedef struct csm_msg_plug_call call_t;
typedef struct csm_msg_plug_result result_t;

struct csm_plugin_op {
	uint64_t epoch, number;
};

static struct csm_u64 some(uint64_t v)
{
	return (struct csm_u64){v, true};
}

/* A part that is empty is sent as such, so that it arrives as one. */
static struct csm_bin bin(const uint8_t *p, size_t n)
{
	return (struct csm_bin){p != NULL ? p : (const uint8_t *)"", n};
}

static int copy_out(struct csm_bin from, struct csm_plugin_out *to)
{
	if (from.n > to->cap)
		return CSM_ETOO_LARGE;
	if (from.n > 0)
		memcpy(to->p, from.p, from.n);
	to->len = from.n;
	return 0;
}

static bool has(const struct csm_plugin_ctx *c, enum csm_plug_method what)
{
	return (c->slots & 1u << what) != 0;
}

bool csm_remote_has(const struct csm_plugin_ctx *c, unsigned method)
{
	return method < CSM_PLUG__COUNT && has(c, (enum csm_plug_method)method);
}

/* ---- state ---- */

/* How many bytes of a control, or of what turns the direction of writing, are at p; 0: none. */
static size_t unseen(const uint8_t *p, size_t n)
{
	if (p[0] < 0x20 || p[0] == 0x7f)
		return 1;
	if (n >= 2 && p[0] == 0xc2 && p[1] <= 0x9f) /* U+0080 to U+009F */
		return 2;
	/* U+200B to U+200F, U+2028 to U+202E, U+2060 to U+206F, U+FEFF */
	if (n >= 3 && p[0] == 0xe2 && ((p[1] == 0x80 && ((p[2] >= 0x8b && p[2] <= 0x8f) || (p[2] >= 0xa8 && p[2] <= 0xae))) ||
		(p[1] == 0x81 && p[2] >= 0xa0 && p[2] <= 0xaf)))
		return 3;
	return n >= 3 && p[0] == 0xef && p[1] == 0xbb && p[2] == 0xbf ? 3 : 0;
}

void remote_plain(char *to, size_t cap, struct csm_str text)
{
	size_t n = text.n < cap ? text.n : cap - 1, k;

	/* Not in the middle of a character. */
	while (n < text.n && n > 0 && ((uint8_t)text.p[n] & 0xc0) == 0x80)
		n--;
	for (size_t i = 0; i < n; i += k > 0 ? k : 1) {
		k = unseen((const uint8_t *)text.p + i, n - i);
		if (k > 0)
			memset(to + i, ' ', k);
		else
			to[i] = text.p[i];
	}
	to[n] = '\0';
}

void remote_away(struct csm_plugin_ctx *ctx, const char *why)
{
	pthread_mutex_lock(&ctx->health_lock);
	ctx->health = (struct csm_plugin_health){.usable = false};
	remote_plain(ctx->reason, sizeof(ctx->reason), csm_str_of(why));
	pthread_mutex_unlock(&ctx->health_lock);
}

int remote_take_state(struct csm_plugin_ctx *ctx, const struct csm_msg_plug_state *m)
{
	static const char *const known[] = {"sealed", "tpm", "hsm", "hwplugin"};
	size_t i = 0;

	while (i < 4 && !csm_str_eq(m->protection, known[i]))
		i++;
	if (i == 4 || m->algs.v >> CSM_ALG__COUNT != 0 || m->uses.v > (CSM_USE_SIGN | CSM_USE_DECRYPT | CSM_USE_DERIVE))
		return CSM_EPROTOCOL;
	ctx->slots = (unsigned)m->slots.v;
	pthread_mutex_lock(&ctx->health_lock);
	remote_plain(ctx->reason, sizeof(ctx->reason), m->reason);
	remote_plain(ctx->device, sizeof(ctx->device), m->device);
	ctx->health = (struct csm_plugin_health){.usable = m->usable.v, .shared = m->shared.v, .commands = m->commands.v,
		.loaded = (uint32_t)m->loaded.v, .slots = (uint32_t)m->places.v, .lockout = m->lockout.v,
		.lockout_counter = (uint32_t)m->lockout_counter.v, .lockout_seconds = (uint32_t)m->lockout_seconds.v,
		.resets = (uint32_t)m->resets.v};
	remote_plain(ctx->health.manufacturer, sizeof(ctx->health.manufacturer), m->manufacturer);
	ctx->caps = (struct csm_plugin_caps){
		.algs = (uint32_t)m->algs.v, .uses = (unsigned)m->uses.v, .protection = known[i]};
	pthread_mutex_unlock(&ctx->health_lock);
	return 0;
}

static void remote_health(struct csm_plugin_ctx *ctx, struct csm_plugin_health *ret)
{
	/* One copy for each thread that asks: loops do, at any time. */
	static __thread char reason[sizeof(ctx->reason)], device[sizeof(ctx->device)];

	pthread_mutex_lock(&ctx->health_lock);
	*ret = ctx->health;
	memcpy(reason, ctx->reason, sizeof(reason));
	memcpy(device, ctx->device, sizeof(device));
	pthread_mutex_unlock(&ctx->health_lock);
	ret->reason = reason[0] != '\0' ? reason : NULL;
	ret->device = device[0] != '\0' ? device : NULL;
}

static void look(struct csm_plugin_ctx *ctx, bool idle)
{
	struct csm_msg_plug_state state;
	call_t m = {.more = {idle, idle}};
	struct call c;

	if (call_begin(ctx, 1, &c) != 0)
		return;
	if (call_run(&c, CSM_PLUG_STATE, &m, &state) == 0 && remote_take_state(ctx, &state) != 0)
		remote_away(ctx, "its process tells of what no back end has");
	call_end(&c);
}

void csm_remote_look(struct csm_plugin_ctx *ctx)
{
	look(ctx, false);
}

/* Only one with a thread of its own is told. */
static void remote_idle(struct csm_plugin_ctx *ctx)
{
	if (ctx->serial)
		look(ctx, true);
}

/* ---- open and close ---- */

static void ctx_free(struct csm_plugin_ctx *ctx)
{
	free(ctx->dead);
	pthread_mutex_destroy(&ctx->lock);
	pthread_mutex_destroy(&ctx->dead_lock);
	pthread_mutex_destroy(&ctx->health_lock);
	pthread_cond_destroy(&ctx->free_now);
	free(ctx);
}

static int remote_open(const struct csm_plugin_host *host, struct csm_plugin_ctx **ret)
{
	const char *ms = host->config != NULL ? host->config(host->arg, "csm.timeout_ms") : NULL;
	struct csm_plugin_ctx *ctx;
	struct call c;
	int r;

	if (host->device == NULL)
		return CSM_EUNAVAILABLE;
	ctx = calloc(1, sizeof(*ctx));
	if (ctx == NULL)
		return CSM_ENOMEM;
	ctx->host = host;
	ctx->call_ms = ms != NULL ? strtol(ms, NULL, 10) : 0;
	if (ctx->call_ms <= 0)
		ctx->call_ms = CSM_PLUG_CALL_MS;
	pthread_mutex_init(&ctx->lock, NULL);
	pthread_mutex_init(&ctx->dead_lock, NULL);
	pthread_mutex_init(&ctx->health_lock, NULL);
	pthread_cond_init(&ctx->free_now, NULL);
	if ((r = call_begin(ctx, 1, &c)) != 0) {
		ctx_free(ctx);
		return r;
	}
	call_end(&c);
	*ret = ctx;
	return 0;
}

static void remote_close(struct csm_plugin_ctx *ctx)
{
	link_drop(ctx);
	ctx_free(ctx);
}

static int remote_capabilities(struct csm_plugin_ctx *ctx, struct csm_plugin_caps *ret)
{
	pthread_mutex_lock(&ctx->health_lock);
	*ret = ctx->caps;
	pthread_mutex_unlock(&ctx->health_lock);
	return 0;
}

/* ---- calls that need no key ---- */

/* One call with one output, or none. */
static int simple(struct csm_plugin_ctx *ctx, enum csm_plug_method what, call_t *m, struct csm_plugin_out *out,
	uint64_t *number)
{
	struct call c;
	result_t res;
	int r;

	if (!has(ctx, what == CSM_PLUG_UNSEAL ? CSM_PLUG_SEAL : what))
		return CSM_EUNSUPPORTED;
	if (out != NULL)
		m->room = some(out->cap < CSM_PLUG_OUT_MAX ? out->cap : CSM_PLUG_OUT_MAX);
	if ((r = call_begin(ctx, 1, &c)) != 0)
		return r;
	r = call_run(&c, what, m, &res);
	if (r == 0 && out != NULL)
		r = copy_out(res.data, out);
	if (r == 0 && number != NULL)
		*number = res.number.v;
	call_end(&c);
	return r;
}

static int remote_seal(struct csm_plugin_ctx *ctx, const uint8_t *in, size_t in_len, struct csm_plugin_out *sealed)
{
	call_t m = {.data = bin(in, in_len)};

	return in_len > CSM_PLUG_OUT_MAX ? CSM_ETOO_LARGE : simple(ctx, CSM_PLUG_SEAL, &m, sealed, NULL);
}

static int remote_unseal(struct csm_plugin_ctx *ctx, const uint8_t *sealed, size_t sealed_len, struct csm_plugin_out *out)
{
	call_t m = {.data = bin(sealed, sealed_len)};

	return sealed_len > CSM_PLUG_OUT_MAX ? CSM_EINVALID : simple(ctx, CSM_PLUG_UNSEAL, &m, out, NULL);
}

static int remote_counter_read(struct csm_plugin_ctx *ctx, uint64_t *ret)
{
	call_t m = {0};

	return simple(ctx, CSM_PLUG_COUNTER, &m, NULL, ret);
}

static int remote_counter_increment(struct csm_plugin_ctx *ctx, uint64_t *ret)
{
	call_t m = {.more = {true, true}};

	return simple(ctx, CSM_PLUG_COUNTER, &m, NULL, ret);
}

static int remote_random(struct csm_plugin_ctx *ctx, uint8_t *p, size_t len)
{
	while (len > 0) {
		size_t n = len < CSM_PLUG_OUT_MAX ? len : CSM_PLUG_OUT_MAX;
		struct csm_plugin_out out = {.p = p, .cap = n};
		call_t m = {0};
		int r = simple(ctx, CSM_PLUG_RANDOM, &m, &out, NULL);

		if (r != 0)
			return r;
		if (out.len != n)
			return CSM_EBACKEND;
		p += n;
		len -= n;
	}
	return 0;
}

/* ---- keys ---- */

static int new_key(struct csm_plugin_ctx *ctx, enum csm_plug_method what, call_t *m, struct csm_plugin_keyspec *found,
	struct csm_plugin_out *spki, struct csm_plugin_out *pub, struct csm_plugin_out *priv)
{
	struct csm_plugin_out got[3] = {*spki, *pub, *priv};
	struct call c;
	result_t res;
	int r;

	if ((r = call_begin(ctx, CSM_PLUG_LONG, &c)) != 0)
		return r;
	r = call_run(&c, what, m, &res);
	if (r == 0 && (res.spki.n == 0 || (found != NULL && (res.alg.v >= CSM_ALG__COUNT || res.use.v == 0))))
		r = CSM_EBACKEND;
	if (r == 0 && (r = copy_out(res.spki, &got[0])) == 0 && (r = copy_out(res.pub, &got[1])) == 0)
		r = copy_out(res.priv, &got[2]);
	if (r == 0 && found != NULL)
		*found = (struct csm_plugin_keyspec){.alg = (enum csm_alg)res.alg.v, .use = (unsigned)res.use.v};
	call_end(&c);
	if (r != 0)
		return r;
	*spki = got[0];
	*pub = got[1];
	*priv = got[2];
	return 0;
}

static int remote_generate(struct csm_plugin_ctx *ctx, const struct csm_plugin_keyspec *spec, struct csm_plugin_out *spki,
	struct csm_plugin_out *pub, struct csm_plugin_out *priv)
{
	call_t m = {.alg = some(spec->alg), .use = some(spec->use), .exportable = {spec->exportable, true}};

	if (spec->tag != NULL)
		m.extra = bin(spec->tag, CSM_PLUGIN_TAG);
	return new_key(ctx, CSM_PLUG_GENERATE, &m, NULL, spki, pub, priv);
}

static int remote_import(struct csm_plugin_ctx *ctx, const struct csm_plugin_keyspec *spec, const uint8_t *wrapped,
	size_t wrapped_len, struct csm_plugin_out *spki, struct csm_plugin_out *pub, struct csm_plugin_out *priv)
{
	call_t m = {.alg = some(spec->alg), .use = some(spec->use), .exportable = {spec->exportable, true},
		.data = bin(wrapped, wrapped_len)};

	if (!has(ctx, CSM_PLUG_IMPORT))
		return CSM_EUNSUPPORTED;
	return wrapped_len > CSM_PLUG_OUT_MAX ? CSM_EINVALID :
						new_key(ctx, CSM_PLUG_IMPORT, &m, NULL, spki, pub, priv);
}

static int remote_find(struct csm_plugin_ctx *ctx, const char *ref, struct csm_plugin_keyspec *spec,
	struct csm_plugin_out *spki, struct csm_plugin_out *pub, struct csm_plugin_out *priv)
{
	call_t m = {.ref = csm_str_of(ref)};

	if (!has(ctx, CSM_PLUG_FIND))
		return CSM_EUNSUPPORTED;
	if (m.ref.n > CSM_PLUGIN_REF_MAX || !csm_utf8_valid(m.ref.p, m.ref.n))
		return CSM_EINVALID;
	return new_key(ctx, CSM_PLUG_FIND, &m, spec, spki, pub, priv);
}

static int remote_discard(struct csm_plugin_ctx *ctx, const uint8_t tag[CSM_PLUGIN_TAG])
{
	call_t m = {.data = bin(tag, CSM_PLUGIN_TAG)};

	return simple(ctx, CSM_PLUG_DISCARD, &m, NULL, NULL);
}

/* Loaded in the process that the call goes to, or loaded there now. */
static int ensure_loaded(struct call *c, struct csm_plugin_key *key)
{
	const struct csm_plugin_blob *b = &key->blob;
	call_t m = {.alg = some(key->spec.alg), .use = some(key->spec.use), .exportable = {key->spec.exportable, true},
		.spki = bin(b->spki, b->spki_len), .pub = bin(b->pub, b->pub_len), .priv = bin(b->priv, b->priv_len)};
	result_t res;
	int r;

	if (key->epoch == c->link->epoch)
		return 0;
	key->epoch = 0;
	if ((r = call_run(c, CSM_PLUG_LOAD, &m, &res)) != 0)
		return r;
	if (!res.key.set || res.key.v >> 63 != 0)
		return CSM_EBACKEND;
	key->epoch = c->link->epoch;
	key->number = res.key.v;
	return 0;
}

static void key_free(struct csm_plugin_key *key)
{
	csm_lock_free(key->parts);
	free(key);
}

static int keep_blob(struct csm_plugin_key *key, const struct csm_plugin_blob *b)
{
	if (b->spki_len > CSM_SPKI_MAX || b->pub_len > CSM_PLUGIN_PUB_MAX || b->priv_len > CSM_PLUGIN_PRIV_MAX)
		return CSM_ETAMPERED;
	key->parts = csm_lock_alloc(b->spki_len + b->pub_len + b->priv_len + 1);
	if (key->parts == NULL)
		return CSM_ENOMEM;
	key->blob = (struct csm_plugin_blob){.spki = key->parts, .spki_len = b->spki_len, .pub = key->parts + b->spki_len,
		.pub_len = b->pub_len, .priv = key->parts + b->spki_len + b->pub_len, .priv_len = b->priv_len};
	if (b->spki_len > 0)
		memcpy(key->parts, b->spki, b->spki_len);
	if (b->pub_len > 0)
		memcpy(key->parts + b->spki_len, b->pub, b->pub_len);
	if (b->priv_len > 0)
		memcpy(key->parts + b->spki_len + b->pub_len, b->priv, b->priv_len);
	return 0;
}

static int remote_load(struct csm_plugin_ctx *ctx, const struct csm_plugin_keyspec *spec,
	const struct csm_plugin_blob *blob, struct csm_plugin_key **ret)
{
	struct csm_plugin_key *key = calloc(1, sizeof(*key));
	struct call c;
	int r = CSM_ENOMEM;

	if (key == NULL)
		return r;
	key->spec = *spec;
	key->spec.tag = NULL;
	if ((r = keep_blob(key, blob)) == 0 && (r = call_begin(ctx, 1, &c)) == 0) {
		r = ensure_loaded(&c, key);
		call_end(&c);
	}
	if (r != 0) {
		key_free(key);
		return r;
	}
	*ret = key;
	return 0;
}

static void remote_unload(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key)
{
	if (key == NULL)
		return;
	if (key->epoch != 0)
		link_forget(ctx, key->epoch, key->number, false);
	key_free(key);
}

static int with_key(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, enum csm_plug_method what, call_t *m,
	struct csm_plugin_out *out)
{
	struct call c;
	result_t res;
	int r;

	m->room = some(out->cap < CSM_PLUG_OUT_MAX ? out->cap : CSM_PLUG_OUT_MAX);
	if ((r = call_begin(ctx, 1, &c)) != 0)
		return r;
	if ((r = ensure_loaded(&c, key)) == 0) {
		m->key = some(key->number);
		r = call_run(&c, what, m, &res);
	}
	if (r == 0)
		r = copy_out(res.data, out);
	call_end(&c);
	return r;
}

static int remote_public_key(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, struct csm_plugin_out *spki)
{
	call_t m = {0};

	return with_key(ctx, key, CSM_PLUG_PUBLIC_KEY, &m, spki);
}

static call_t scheme_call(const struct csm_scheme *scheme, const uint8_t *in, size_t in_len)
{
	return (call_t){.kind = some(scheme->kind), .hash = some(scheme->hash), .data = bin(in, in_len)};
}

static int remote_sign(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct csm_scheme *scheme,
	const uint8_t *in, size_t in_len, struct csm_plugin_out *sig)
{
	call_t m = scheme_call(scheme, in, in_len);

	return in_len > CSM_SIGN_MESSAGE_MAX ? CSM_ETOO_LARGE : with_key(ctx, key, CSM_PLUG_SIGN, &m, sig);
}

static int remote_decrypt(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct csm_scheme *scheme,
	const uint8_t *in, size_t in_len, const uint8_t *label, size_t label_len, struct csm_plugin_out *plain)
{
	call_t m = scheme_call(scheme, in, in_len);

	if (!has(ctx, CSM_PLUG_DECRYPT))
		return CSM_EUNSUPPORTED;
	if (in_len > CSM_PLUG_OUT_MAX || label_len > CSM_PLUG_OUT_MAX)
		return CSM_EINVALID;
	m.extra = bin(label, label_len);
	return with_key(ctx, key, CSM_PLUG_DECRYPT, &m, plain);
}

static int remote_derive(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const uint8_t *peer, size_t peer_len,
	struct csm_plugin_out *shared)
{
	call_t m = {.data = bin(peer, peer_len)};

	if (!has(ctx, CSM_PLUG_DERIVE))
		return CSM_EUNSUPPORTED;
	return peer_len > CSM_PLUG_OUT_MAX ? CSM_EINVALID : with_key(ctx, key, CSM_PLUG_DERIVE, &m, shared);
}

static int remote_attest(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const uint8_t *nonce, size_t nonce_len,
	struct csm_plugin_out *statement)
{
	call_t m = {.data = bin(nonce, nonce_len)};

	if (!has(ctx, CSM_PLUG_ATTEST))
		return CSM_EUNSUPPORTED;
	return nonce_len > CSM_PLUG_OUT_MAX ? CSM_EINVALID : with_key(ctx, key, CSM_PLUG_ATTEST, &m, statement);
}

/* ---- signatures in parts ---- */

static int remote_sign_init(struct csm_plugin_ctx *ctx, struct csm_plugin_key *key, const struct csm_scheme *scheme,
	struct csm_plugin_op **ret)
{
	call_t m = scheme_call(scheme, NULL, 0);
	struct csm_plugin_op *op;
	struct call c;
	result_t res;
	int r;

	if (!has(ctx, CSM_PLUG_SIGN_INIT))
		return CSM_EUNSUPPORTED;
	op = calloc(1, sizeof(*op));
	if (op == NULL)
		return CSM_ENOMEM;
	if ((r = call_begin(ctx, 1, &c)) != 0) {
		free(op);
		return r;
	}
	if ((r = ensure_loaded(&c, key)) == 0) {
		m.key = some(key->number);
		r = call_run(&c, CSM_PLUG_SIGN_INIT, &m, &res);
	}
	if (r == 0 && (!res.key.set || res.key.v >> 63 != 0))
		r = CSM_EBACKEND;
	op->epoch = c.link->epoch;
	call_end(&c);
	if (r != 0) {
		free(op);
		return r;
	}
	op->number = res.key.v;
	*ret = op;
	return 0;
}

/* An operation dies with its process. */
static int with_op(struct csm_plugin_ctx *ctx, struct csm_plugin_op *op, enum csm_plug_method what, call_t *m,
	struct csm_plugin_out *out)
{
	struct call c;
	result_t res;
	int r;

	m->key = some(op->number);
	if (out != NULL)
		m->room = some(out->cap < CSM_PLUG_OUT_MAX ? out->cap : CSM_PLUG_OUT_MAX);
	if ((r = call_begin(ctx, 1, &c)) != 0)
		return r;
	r = c.link->epoch == op->epoch ? call_run(&c, what, m, &res) : CSM_EUNAVAILABLE;
	if (r == 0 && out != NULL)
		r = copy_out(res.data, out);
	call_end(&c);
	return r;
}

static int remote_sign_update(struct csm_plugin_ctx *ctx, struct csm_plugin_op *op, const uint8_t *in, size_t in_len)
{
	call_t m = {.data = bin(in, in_len)};

	return in_len > CSM_SIGN_MESSAGE_MAX ? CSM_ETOO_LARGE : with_op(ctx, op, CSM_PLUG_SIGN_UPDATE, &m, NULL);
}

static int remote_sign_final(struct csm_plugin_ctx *ctx, struct csm_plugin_op *op, struct csm_plugin_out *sig)
{
	call_t m = {0};
	int r = with_op(ctx, op, CSM_PLUG_SIGN_FINAL, &m, sig);

	free(op);
	return r;
}

static void remote_sign_cleanup(struct csm_plugin_ctx *ctx, struct csm_plugin_op *op)
{
	link_forget(ctx, op->epoch, op->number, true);
	free(op);
}

const struct csm_plugin csm_plugin_remote = {
	.abi = CSM_PLUGIN_ABI,
	.name = "remote",
	.open = remote_open,
	.close = remote_close,
	.capabilities = remote_capabilities,
	.idle = remote_idle,
	.health = remote_health,
	.generate = remote_generate,
	.import = remote_import,
	.find = remote_find,
	.discard = remote_discard,
	.load = remote_load,
	.unload = remote_unload,
	.public_key = remote_public_key,
	.sign = remote_sign,
	.sign_init = remote_sign_init,
	.sign_update = remote_sign_update,
	.sign_final = remote_sign_final,
	.sign_cleanup = remote_sign_cleanup,
	.decrypt = remote_decrypt,
	.derive = remote_derive,
	.attest = remote_attest,
	.seal = remote_seal,
	.unseal = remote_unseal,
	.counter_read = remote_counter_read,
	.counter_increment = remote_counter_increment,
	.random = remote_random,
};
