#include <stdlib.h>
#include <string.h>
#include "daemon/plughost/serve.h"
#include "libclient/base/lockmem.h"
#include "plugins/include/csm_alg.h"

typedef struct csm_msg_plug_call call_t;
typedef struct csm_msg_plug_result result_t;

/* A request being worked on, and the room for what comes out of it. */
struct work {
	struct server *s;
	struct csm_channel *c;
	uint32_t msgid;
	call_t m;
	result_t res;
	uint8_t *room; /* locked memory */
};

static bool scheme_of(const call_t *m, struct csm_scheme *ret)
{
	if (m->kind.v > CSM_SCHEME_RSA_OAEP || m->hash.v > CSM_HASH_SHA512)
		return false;
	ret->kind = (enum csm_scheme_kind)m->kind.v;
	ret->hash = (enum csm_hash)m->hash.v;
	return true;
}

static bool spec_of(const call_t *m, struct csm_plugin_keyspec *ret)
{
	if (m->alg.v >= CSM_ALG__COUNT)
		return false;
	*ret = (struct csm_plugin_keyspec){
		.alg = (enum csm_alg)m->alg.v, .use = (unsigned)m->use.v, .exportable = m->exportable.v,
		.tag = m->extra.n == CSM_PLUGIN_TAG ? m->extra.p : NULL};
	return true;
}

/* What goes into one output, as large as the broker says. */
static int take_room(struct work *w, struct csm_plugin_out *out)
{
	size_t n = w->m.room.v > 0 ? w->m.room.v : 1;

	w->room = csm_lock_alloc(n);
	if (w->room == NULL)
		return CSM_ENOMEM;
	*out = (struct csm_plugin_out){.p = w->room, .cap = w->m.room.v};
	return 0;
}

static int give(struct work *w, int r, const struct csm_plugin_out *out)
{
	if (r == 0 && out->len > out->cap)
		r = CSM_EBACKEND;
	if (r == 0)
		w->res.data = (struct csm_bin){out->p, out->len};
	return r;
}

/* ---- keys ---- */

#define PARTS (CSM_SPKI_MAX + CSM_PLUGIN_PUB_MAX + CSM_PLUGIN_PRIV_MAX)

static int make_key(struct work *w, enum csm_plug_method what)
{
	const struct csm_plugin *p = w->s->plugin;
	struct csm_plugin_out spki, pub, priv;
	struct csm_plugin_keyspec spec;
	char ref[CSM_PLUGIN_REF_MAX + 1];
	int r = CSM_EUNSUPPORTED;

	if (!spec_of(&w->m, &spec) || w->m.ref.n > CSM_PLUGIN_REF_MAX)
		return CSM_EINVALID;
	w->room = csm_lock_alloc(PARTS);
	if (w->room == NULL)
		return CSM_ENOMEM;
	spki = (struct csm_plugin_out){.p = w->room, .cap = CSM_SPKI_MAX};
	pub = (struct csm_plugin_out){.p = w->room + CSM_SPKI_MAX, .cap = CSM_PLUGIN_PUB_MAX};
	priv = (struct csm_plugin_out){.p = w->room + CSM_SPKI_MAX + CSM_PLUGIN_PUB_MAX, .cap = CSM_PLUGIN_PRIV_MAX};
	if (what == CSM_PLUG_GENERATE) {
		r = p->generate(w->s->ctx, &spec, &spki, &pub, &priv);
	} else if (what == CSM_PLUG_IMPORT && p->import != NULL) {
		r = p->import(w->s->ctx, &spec, w->m.data.p, w->m.data.n, &spki, &pub, &priv);
	} else if (what == CSM_PLUG_FIND && p->find != NULL && w->m.ref.p != NULL) {
		memcpy(ref, w->m.ref.p, w->m.ref.n);
		ref[w->m.ref.n] = '\0';
		r = p->find(w->s->ctx, ref, &spec, &spki, &pub, &priv);
	}
	if (r != 0)
		return r;
	if (spki.len > spki.cap || pub.len > pub.cap || priv.len > priv.cap)
		return CSM_EBACKEND;
	w->res = (result_t){.alg = {spec.alg, true}, .use = {spec.use, true}, .spki = {spki.p, spki.len},
		.pub = {pub.p, pub.len}, .priv = {priv.p, priv.len}};
	return 0;
}

static int load(struct work *w)
{
	const struct csm_plugin *p = w->s->plugin;
	struct csm_plugin_blob blob = {.spki = w->m.spki.p, .spki_len = w->m.spki.n, .pub = w->m.pub.p,
		.pub_len = w->m.pub.n, .priv = w->m.priv.p, .priv_len = w->m.priv.n};
	struct csm_plugin_keyspec spec;
	struct csm_plugin_key *key;
	uint64_t number;
	int r;

	if (!spec_of(&w->m, &spec))
		return CSM_EINVALID;
	if ((r = p->load(w->s->ctx, &spec, &blob, &key)) != 0)
		return r;
	number = held_put(w->s, key, NULL);
	if (number == 0) {
		p->unload(w->s->ctx, key);
		return CSM_EBUSY;
	}
	w->res.key = (struct csm_u64){number, true};
	return 0;
}

/* ---- operations ---- */

static int begin_sign(struct work *w, struct csm_plugin_key *key, const struct csm_scheme *scheme)
{
	const struct csm_plugin *p = w->s->plugin;
	struct csm_plugin_op *op;
	int r;

	if (p->sign_init == NULL)
		return CSM_EUNSUPPORTED;
	if ((r = p->sign_init(w->s->ctx, key, scheme, &op)) != 0)
		return r;
	w->res.key = (struct csm_u64){held_put(w->s, NULL, op), true};
	if (w->res.key.v == 0) {
		p->sign_cleanup(w->s->ctx, op);
		return CSM_EBUSY;
	}
	return 0;
}

static int with_op(struct work *w, enum csm_plug_method what)
{
	const struct csm_plugin *p = w->s->plugin;
	struct csm_plugin_out out;
	struct csm_plugin_op *op = held_op(w->s, w->m.key.v);
	int r;

	if (op == NULL)
		return CSM_EUNAVAILABLE;
	if (what == CSM_PLUG_SIGN_UPDATE)
		return p->sign_update(w->s->ctx, op, w->m.data.p, w->m.data.n);
	if ((r = take_room(w, &out)) != 0)
		return r;
	held_take(w->s, w->m.key.v);
	return give(w, p->sign_final(w->s->ctx, op, &out), &out);
}

static int with_key(struct work *w, enum csm_plug_method what)
{
	const struct csm_plugin *p = w->s->plugin;
	struct csm_plugin_key *key = held_key(w->s, w->m.key.v);
	struct csm_plugin_ctx *ctx = w->s->ctx;
	struct csm_scheme scheme;
	struct csm_plugin_out out;
	call_t *m = &w->m;
	int r = CSM_EUNSUPPORTED;

	if (key == NULL)
		return CSM_EUNAVAILABLE;
	if (!scheme_of(m, &scheme))
		return CSM_EINVALID;
	if (what == CSM_PLUG_SIGN_INIT)
		return begin_sign(w, key, &scheme);
	if ((r = take_room(w, &out)) != 0)
		return r;
	r = CSM_EUNSUPPORTED;
	if (what == CSM_PLUG_SIGN)
		r = p->sign(ctx, key, &scheme, m->data.p, m->data.n, &out);
	else if (what == CSM_PLUG_PUBLIC_KEY)
		r = p->public_key(ctx, key, &out);
	else if (what == CSM_PLUG_DECRYPT && p->decrypt != NULL)
		r = p->decrypt(ctx, key, &scheme, m->data.p, m->data.n, m->extra.p, m->extra.n, &out);
	else if (what == CSM_PLUG_DERIVE && p->derive != NULL)
		r = p->derive(ctx, key, m->data.p, m->data.n, &out);
	else if (what == CSM_PLUG_ATTEST && p->attest != NULL)
		r = p->attest(ctx, key, m->data.p, m->data.n, &out);
	return give(w, r, &out);
}

static int without_key(struct work *w, enum csm_plug_method what)
{
	const struct csm_plugin *p = w->s->plugin;
	struct csm_plugin_out out;
	int r;

	if (what == CSM_PLUG_COUNTER) {
		if (p->counter_read == NULL || p->counter_increment == NULL)
			return CSM_EUNSUPPORTED;
		w->res.number.set = true;
		return w->m.more.v ? p->counter_increment(w->s->ctx, &w->res.number.v)
				   : p->counter_read(w->s->ctx, &w->res.number.v);
	}
	if (what == CSM_PLUG_DISCARD) {
		if (w->m.data.n != CSM_PLUGIN_TAG)
			return CSM_EINVALID;
		return p->discard == NULL ? CSM_EUNSUPPORTED : p->discard(w->s->ctx, w->m.data.p);
	}
	if ((r = take_room(w, &out)) != 0)
		return r;
	r = CSM_EUNSUPPORTED;
	if (what == CSM_PLUG_SEAL && p->seal != NULL) {
		r = p->seal(w->s->ctx, w->m.data.p, w->m.data.n, &out);
	} else if (what == CSM_PLUG_UNSEAL && p->unseal != NULL) {
		r = p->unseal(w->s->ctx, w->m.data.p, w->m.data.n, &out);
	} else if (what == CSM_PLUG_RANDOM && p->random != NULL) {
		out.len = out.cap;
		r = p->random(w->s->ctx, out.p, out.cap);
	}
	return give(w, r, &out);
}

/* Notifications wait for the request that they come before. */
static int note_ended(struct ended *e, uint64_t number)
{
	uint64_t *more;

	if (e->n == e->cap) {
		if (e->cap >= CSM_PLUG_KEYS_MAX)
			return CSM_EPROTOCOL;
		more = realloc(e->number, (e->cap + 64) * sizeof(*more));
		if (more == NULL)
			return CSM_ENOMEM;
		e->number = more;
		e->cap += 64;
	}
	e->number[e->n++] = number;
	return 0;
}

static void end_held(struct server *s, struct ended *e)
{
	while (e->n > 0) {
		struct held h = held_take(s, e->number[--e->n]);

		if (h.key != NULL)
			s->plugin->unload(s->ctx, h.key);
		if (h.op != NULL)
			s->plugin->sign_cleanup(s->ctx, h.op);
	}
}

static int perform(struct work *w, enum csm_plug_method what)
{
	switch (what) {
	case CSM_PLUG_GENERATE:
	case CSM_PLUG_IMPORT:
	case CSM_PLUG_FIND:
		return make_key(w, what);
	case CSM_PLUG_LOAD:
		return load(w);
	case CSM_PLUG_SIGN_UPDATE:
	case CSM_PLUG_SIGN_FINAL:
		return with_op(w, what);
	case CSM_PLUG_COUNTER:
	case CSM_PLUG_SEAL:
	case CSM_PLUG_UNSEAL:
	case CSM_PLUG_RANDOM:
	case CSM_PLUG_DISCARD:
		return without_key(w, what);
	default:
		return with_key(w, what);
	}
}

/* ---- open and state ---- */

static uint64_t slots_of(const struct csm_plugin *p)
{
	return (p->import != NULL ? UINT64_C(1) << CSM_PLUG_IMPORT : 0) |
		(p->find != NULL ? UINT64_C(1) << CSM_PLUG_FIND : 0) |
		(p->discard != NULL ? UINT64_C(1) << CSM_PLUG_DISCARD : 0) |
		(p->sign_init != NULL ? UINT64_C(1) << CSM_PLUG_SIGN_INIT : 0) |
		(p->decrypt != NULL ? UINT64_C(1) << CSM_PLUG_DECRYPT : 0) |
		(p->derive != NULL ? UINT64_C(1) << CSM_PLUG_DERIVE : 0) |
		(p->attest != NULL ? UINT64_C(1) << CSM_PLUG_ATTEST : 0) |
		(p->seal != NULL && p->unseal != NULL ? UINT64_C(1) << CSM_PLUG_SEAL : 0) |
		(p->counter_read != NULL && p->counter_increment != NULL ? UINT64_C(1) << CSM_PLUG_COUNTER : 0) |
		(p->random != NULL ? UINT64_C(1) << CSM_PLUG_RANDOM : 0);
}

static struct csm_str text_of(const char *text, size_t max)
{
	struct csm_str s = {NULL, 0};

	if (text == NULL)
		return s;
	s = (struct csm_str){text, strnlen(text, max)};
	return csm_utf8_valid(s.p, s.n) ? s : csm_str_of("not text");
}

static int open_plugin(struct server *s)
{
	struct csm_plugin_ctx *ctx = NULL;
	int r = 0;

	if (s->ctx != NULL)
		return 0;
	if (s->plugin->probe != NULL)
		r = s->plugin->probe(&s->host);
	if (r == 0)
		r = s->plugin->open(&s->host, &ctx);
	if (r == 0 && (r = s->plugin->capabilities(ctx, &s->caps)) != 0)
		s->plugin->close(ctx);
	if (r == 0)
		s->ctx = ctx;
	return r;
}

static int answer_state(struct server *s, struct csm_channel *c, uint32_t msgid)
{
	struct csm_plugin_health h = {0};
	struct csm_msg_plug_state m;

	s->plugin->health(s->ctx, &h);
	m = (struct csm_msg_plug_state){.algs = {s->caps.algs, true}, .uses = {s->caps.uses, true},
		.protection = text_of(s->caps.protection, CSM_TOKEN_STR_MAX), .slots = {slots_of(s->plugin), true},
		.usable = {h.usable, true}, .reason = text_of(h.reason, 160)};
	if (h.device != NULL) {
		m.device = text_of(h.device, 160);
		m.manufacturer = text_of(h.manufacturer, sizeof(h.manufacturer));
		m.shared = (struct csm_bool){h.shared, true};
		m.commands = (struct csm_u64){h.commands, true};
		m.loaded = (struct csm_u64){h.loaded, true};
		m.places = (struct csm_u64){h.slots, true};
		m.lockout = (struct csm_bool){h.lockout, true};
		m.lockout_counter = (struct csm_u64){h.lockout_counter, true};
		m.lockout_seconds = (struct csm_u64){h.lockout_seconds, true};
		m.resets = (struct csm_u64){h.resets, true};
	}
	return csm_frame_result(&c->out, msgid, CSM_DEF(plug_state), &m);
}

/* What the request's slices point to may be overwritten by the answers to host calls: a back end that asks in the middle
 * of a call reads its input afterwards. */
static int keep_input(struct work *w, const call_t *m, uint8_t **ret)
{
	struct csm_bin *parts[] = {&w->m.data, &w->m.extra, &w->m.spki, &w->m.pub, &w->m.priv};
	size_t n = m->data.n + m->extra.n + m->spki.n + m->pub.n + m->priv.n + m->ref.n + 1, used = 0;
	uint8_t *p = csm_lock_alloc_message(n);

	if (p == NULL)
		return CSM_ENOMEM;
	w->m = *m;
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		if (parts[i]->p == NULL)
			continue;
		memcpy(p + used, parts[i]->p, parts[i]->n);
		parts[i]->p = p + used;
		used += parts[i]->n;
	}
	if (m->ref.p != NULL) {
		memcpy(p + used, m->ref.p, m->ref.n);
		w->m.ref.p = (const char *)p + used;
	}
	*ret = p;
	return 0;
}

int calls_answer(struct server *s, struct csm_channel *c, const struct csm_frame *f)
{
	enum csm_plug_method what = csm_plug_find(f->method);
	struct work w = {.s = s, .c = c, .msgid = f->msgid};
	struct ended *ended = &s->ended[c - s->channel];
	uint8_t *input = NULL;
	call_t m;
	int r;

	if (what > CSM_PLUG_SIGN_CLEANUP || f->type == CSM_RESPONSE)
		return CSM_EPROTOCOL;
	if ((r = csm_channel_decode(c, CSM_DEF(plug_call), f->params, &m)) != 0)
		return r;
	if (f->type == CSM_NOTIFICATION)
		return note_ended(ended, m.key.v);
	if ((r = keep_input(&w, &m, &input)) != 0)
		goto out;
	if (s->ctx != NULL)
		end_held(s, ended);
	if (what == CSM_PLUG_OPEN)
		r = open_plugin(s);
	else if (s->ctx == NULL)
		r = CSM_EUNAVAILABLE;
	else if (what == CSM_PLUG_STATE && w.m.more.v && s->plugin->idle != NULL)
		s->plugin->idle(s->ctx);
	else if (what != CSM_PLUG_STATE)
		r = perform(&w, what);
out:
	if (r == 0 && (what == CSM_PLUG_OPEN || what == CSM_PLUG_STATE))
		r = answer_state(s, c, w.msgid);
	else if (r == 0)
		r = csm_frame_result(&c->out, w.msgid, CSM_DEF(plug_result), &w.res);
	else
		r = csm_frame_error(&c->out, w.msgid, r, NULL, 0);
	csm_lock_free(w.room);
	csm_lock_free(input);
	return r;
}
