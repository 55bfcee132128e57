#include <sodium.h>
#include <string.h>
#include "daemon/node/connkey.h"
#include "daemon/node/fair.h"
#include "daemon/node/keycall.h"
#include "libclient/base/lockmem.h"
#include "plugins/remote/remote.h"

#define OUT_MAX CSM_SIGNATURE_MAX
_Static_assert(CSM_ATTESTATION_MAX >= OUT_MAX, "an attestation is the longest output");
#define OWNER_SWEEP_MS 10000u

/* Is it the key that is meant, not one that has taken its name? `want` as key.show tells it. */
static int key_is(const struct csm_key_record *rec, struct csm_str want, const char **why)
{
	uint8_t hash[crypto_hash_sha256_BYTES];
	char hex[2 * sizeof(hash) + 1];

	*why = "spki_sha256 has 64 hexadecimal digits, in lower case";
	if (want.n != sizeof(hex) - 1)
		return CSM_EINVALID;
	for (size_t i = 0; i < want.n; i++)
		if (!((want.p[i] >= '0' && want.p[i] <= '9') || (want.p[i] >= 'a' && want.p[i] <= 'f')))
			return CSM_EINVALID;
	*why = "another key has this name than the one that is meant";
	crypto_hash_sha256(hash, rec->spki.p, rec->spki.n);
	sodium_bin2hex(hex, sizeof(hex), hash, sizeof(hash));
	return memcmp(hex, want.p, want.n) == 0 ? 0 : CSM_ECONFLICT;
}

/* The record without its private part. */
static int record_of(struct req *q, struct key_found *f)
{
	f->own = NULL;
	f->before[0] = '\0';
	if (!connkey_is_name(f->object.name))
		return csm_store_key_get(f->reader, f->object.ns, f->object.name, false, NULL, &f->rec);
	f->own = connkey_find(q->conn, f->object.text);
	if (f->own == NULL)
		return CSM_ENOT_FOUND;
	f->rec = f->own->rec;
	f->rec.priv = (struct csm_bin){NULL, 0};
	return 0;
}

/* With it; of a stored key it lies in the loop's buffer, which the caller empties. */
static int private_of(struct req *q, const struct key_found *f, struct csm_key_record *ret)
{
	struct csm_str name = f->before[0] != '\0' ? csm_str_of(f->before) : f->object.name;

	if (f->own == NULL)
		return csm_store_key_get(f->reader, f->object.ns, name, true, &q->loop->key, ret);
	*ret = f->own->rec;
	return 0;
}

/* Who still has the certificate from before may use its key: both are of the same name, and the policy has decided on that. Without
 * profiles nobody ends its time: then it is over. */
static bool is_before(struct req *q, struct key_found *f, struct csm_str want)
{
	struct csm_key_record rec;
	const char *why;
	struct csm_str name = csm_store_key_beside(f->object.name, CSM_KEY_BEFORE, f->before);

	if (f->own == NULL && q->loop->b->cfg.n_enrol > 0 &&
		csm_store_key_get(f->reader, f->object.ns, name, false, NULL, &rec) == 0 && key_is(&rec, want, &why) == 0) {
		f->rec = rec;
		return true;
	}
	f->before[0] = '\0';
	return false;
}

static int look(struct req *q, struct csm_str ref, struct csm_str want, bool before, struct key_found *f)
{
	const char *why = NULL;
	int r;

	if ((r = req_key_object(q, ref, &f->object)) != 0 || (r = req_authorize(q, &f->object)) != 0 ||
		(r = req_begin_read(q, &f->reader)) != 0)
		return r;
	r = record_of(q, f);
	if (r == 0 && want.p != NULL)
		r = key_is(&f->rec, want, &why);
	if (r == CSM_ECONFLICT && before && is_before(q, f, want))
		r = 0;
	if (r == 0)
		return 0;
	req_end_read(q);
	if (r == CSM_ENOT_FOUND)
		req_missing(q, CSM_PERM_KEY_LIST, &f->object);
	else
		req_error(q, r, why);
	return r;
}

int key_look(struct req *q, struct csm_str ref, struct csm_str want, struct key_found *f)
{
	return look(q, ref, want, false, f);
}

int key_look_before(struct req *q, struct csm_str ref, struct csm_str want, struct key_found *f)
{
	return look(q, ref, want, true, f);
}

int key_find(struct req *q, struct csm_str ref, struct csm_str want, unsigned use, struct key_found *f)
{
	int r = look(q, ref, want, true, f);
	const char *why;

	if (r != 0)
		return r;
	f->be = broker_backend(q->loop->b, f->rec.backend);
	r = CSM_EUNSUPPORTED;
	why = f->rec.use == CSM_USE_ISSUER ? "an issuer's key signs by issue.sign, and does nothing else" :
		use == CSM_USE_ISSUER	? "the key is not an issuer's" : "the key was not made for this use";
	if ((f->rec.use & use) == 0)
		goto refuse;
	r = CSM_ESTATE;
	why = "the key was in a TPM that is gone: it is lost";
	if (f->rec.lost)
		goto refuse;
	r = CSM_EUNAVAILABLE;
	why = "the key's back end is not there";
	if (f->be == NULL || f->be->ctx == NULL)
		goto refuse;
	return 0;
refuse:
	req_end_read(q);
	req_error(q, r, why);
	return r;
}

int key_scheme(struct req *q, const struct key_found *f, struct csm_str name, struct csm_scheme *ret)
{
	int r = 0;

	*ret = csm_scheme_default(f->rec.alg);
	if (name.p != NULL)
		r = csm_scheme_parse(name, ret);
	if (r == 0)
		r = csm_scheme_check(f->rec.alg, ret);
	if (r != 0)
		req_error(q, CSM_EINVALID, "the scheme is not known, or does not fit the key");
	return r;
}

/* ---- the call itself, on any thread that may call the back end ---- */

static int perform(struct csm_backend *be, struct csm_cached_key *k, const struct key_call *call,
	struct csm_plugin_out *out)
{
	switch (call->what) {
	case KEY_WHAT_DECRYPT:
		return csm_be_decrypt(be, k->key, &call->scheme, call->in, call->label, out);
	case KEY_WHAT_DERIVE:
		return csm_be_derive(be, k->key, call->in, out);
	case KEY_WHAT_ATTEST:
		return csm_be_attest(be, k->key, call->in, out);
	case KEY_WHAT_SIGN:
	case KEY_WHAT_CSR:
	default:
		return csm_be_sign(be, k->key, &call->scheme, call->in, out);
	}
}

/* ---- answers ---- */

union key_result {
	struct csm_msg_sign_res sign;
	struct csm_msg_decrypt_res decrypt;
	struct csm_msg_derive_res derive;
	struct csm_msg_csr_res csr;
	struct csm_msg_attest_res attest;
};

/* csr: where a finished request goes (a buffer that lives as long as the result). */
static int make_result(const struct key_call *call, struct csm_bin out, struct csm_buf *csr, union key_result *res)
{
	int r = 0;

	memset(res, 0, sizeof(*res));
	switch (call->what) {
	case KEY_WHAT_DECRYPT:
		res->decrypt.plaintext = out;
		break;
	case KEY_WHAT_DERIVE:
		res->derive.shared = out;
		break;
	case KEY_WHAT_ATTEST:
		res->attest.statement = out;
		break;
	case KEY_WHAT_CSR:
		r = csm_csr_finish(call->csr, out.p, out.n, csr);
		res->csr.csr = (struct csm_bin){csm_buf_ptr(csr), csr->len};
		break;
	case KEY_WHAT_SIGN:
	default:
		res->sign.scheme = csm_str_of(csm_scheme_name(&call->scheme));
		res->sign.signature = out;
	}
	return r;
}

static const char *failure_text(const struct key_call *call, int r)
{
	if (r == CSM_EUNSUPPORTED && call->what == KEY_WHAT_ATTEST)
		return "the key's back end makes no statements about its keys";
	if (r != CSM_EINVALID)
		return NULL;
	return call->what == KEY_WHAT_DECRYPT ? "the cipher text cannot be opened" :
		call->what == KEY_WHAT_DERIVE ? "the peer's key is not one of the same curve" : NULL;
}

/* ---- on the loop ---- */

static bool is_signature(const struct key_call *call)
{
	return call->what == KEY_WHAT_SIGN || call->what == KEY_WHAT_CSR;
}

static int load_inline(struct req *q, struct key_found *f, struct csm_cached_key **ret)
{
	struct csm_key_record rec;
	int r;

	*ret = csm_keycache_take(&q->loop->keys, f->rec.id);
	if (*ret != NULL)
		return 0;
	r = private_of(q, f, &rec);
	if (r == 0)
		r = csm_cached_key_load(f->be, &rec, ret);
	csm_buf_reset(&q->loop->key);
	return r;
}

static void run_inline(struct req *q, struct key_found *f, struct key_call *call)
{
	CSM_WIPED(space, OUT_MAX);
	struct csm_plugin_out out = {.p = space, .cap = OUT_MAX};
	struct csm_cached_key *k;
	union key_result res;
	int r = load_inline(q, f, &k);

	q->loop->served += FAIR_KEY;
	if (r == 0) {
		r = perform(f->be, k, call, &out);
		csm_keycache_put(&q->loop->keys, k, q->loop->now_ms);
	}
	if (r == 0)
		r = make_result(call, (struct csm_bin){space, out.len}, &q->loop->body, &res);
	if (r != 0) {
		req_error(q, r, failure_text(call, r));
		return;
	}
	if (f->own != NULL)
		f->own->rec.signatures += is_signature(call);
	else if (is_signature(call))
		peer_signed(q->loop, q->conn->peer, f->rec.id);
	req_used(q, f->object.text);
	req_result(q, &res);
}

/* ---- as an operation ---- */

struct key_op {
	struct op op;
	struct csm_backend *be;
	struct csm_keycache *cache; /* of the threads that work for be */
	struct csm_key_record rec;  /* slices of key */
	struct key_call call;       /* slices of input */
	bool is_own;                /* of the connection */
	struct csm_buf key, input;  /* secret; apart, since many inputs may wait */
	struct csm_buf csr;
	char object[CSM_SECRETREF_MAX];
	size_t object_len;
	struct csm_plugin_out out;  /* locked memory */
	/* a signature in halves: begun and ended on the loop */
	struct event readable;
	struct csm_remote_half *half; /* NULL: none */
	struct csm_cached_key *key_used;
	uint64_t began_us;
	struct key_op *next_half;
};

static void key_op_clear(struct op *op)
{
	struct key_op *k = (struct key_op *)op;

	csm_buf_free(&k->key);
	csm_buf_free(&k->input);
	csm_buf_free(&k->csr);
	csm_lock_free(k->out.p);
	csm_csr_free(k->call.csr);
}

int key_call_on(struct csm_keycache *cache, struct csm_backend *be, const struct csm_key_record *rec,
	const struct key_call *call, struct csm_plugin_out *out, uint64_t now_ms)
{
	struct csm_cached_key *key = csm_keycache_take(cache, rec->id);
	int r = 0;

	if (key == NULL)
		r = csm_cached_key_load(be, rec, &key);
	if (r == 0) {
		r = perform(be, key, call, out);
		csm_keycache_put(cache, key, now_ms);
	}
	if (be->owner != NULL)
		csm_keycache_sweep(cache, now_ms, CSM_KEY_IDLE_MS);
	return r;
}

static void key_op_work(struct op *op)
{
	struct key_op *k = (struct key_op *)op;

	op->r = key_call_on(k->cache, k->be, &k->rec, &k->call, &k->out, monotonic_ms());
}

static void key_op_apply(struct op *op)
{
	struct key_op *k = (struct key_op *)op;
	union key_result res;
	int r = op->r;

	if (r == 0)
		r = make_result(&k->call, (struct csm_bin){k->out.p, k->out.len}, &k->csr, &res);
	if (r == 0) {
		if (is_signature(&k->call) && !k->is_own)
			op_signed(op, k->rec.id);
		op_used(op, (struct csm_str){k->object, k->object_len});
		op_result(op, op->method->response, &res);
	} else {
		op_error(op, r, failure_text(&k->call, r));
	}
	op_done(op);
}

static int copy_into(struct csm_buf *b, struct csm_bin *s)
{
	const uint8_t *at = b->p + b->off + b->len;
	int r = csm_buf_put(b, s->p, s->n);

	if (r == 0)
		s->p = at;
	return r;
}

/* Copies of all that the work needs, in allocations that do not move. */
static int key_op_fill(struct req *q, struct key_found *f, struct key_call *call, struct key_op *k)
{
	uint8_t *room;
	size_t key, input = call->in.n + call->label.n;
	int r;

	csm_buf_init_message(&k->input, input + 1);
	csm_buf_init(&k->key, CSM_MESSAGE_MAX, true);
	r = private_of(q, f, &k->rec);
	if (r != 0)
		return r;
	key = k->rec.spki.n + k->rec.pub.n + k->rec.priv.n;
	k->call.what = call->what;
	k->call.scheme = call->scheme;
	k->call.in = call->in;
	k->call.label = call->label;
	if ((r = op_charge(&k->op, key + input)) == 0 && (r = csm_buf_reserve(&k->key, key + 1, &room)) == 0 &&
		(r = csm_buf_reserve(&k->input, input + 1, &room)) == 0 && (r = copy_into(&k->key, &k->rec.spki)) == 0 &&
		(r = copy_into(&k->key, &k->rec.pub)) == 0 && (r = copy_into(&k->key, &k->rec.priv)) == 0 &&
		(r = copy_into(&k->input, &k->call.in)) == 0)
		r = copy_into(&k->input, &k->call.label);
	csm_buf_reset(&q->loop->key);
	if (r != 0)
		return r;
	memcpy(k->object, f->object.text.p, f->object.text.n);
	k->object_len = f->object.text.n;
	k->out.cap = call->what == KEY_WHAT_ATTEST ? CSM_ATTESTATION_MAX : OUT_MAX;
	k->out.p = csm_lock_alloc(k->out.cap);
	return k->out.p == NULL ? CSM_ENOMEM : 0;
}

/* ---- in halves: a back end in csm-plughost is asked by the loop itself, which goes on meanwhile ---- */

static void half_finish(struct key_op *k, int r)
{
	struct loop *l = k->op.loop;
	struct key_op **at = &l->halves;

	while (*at != k)
		at = &(*at)->next_half;
	*at = k->next_half;
	k->half = NULL;
	csm_keycache_put(k->cache, k->key_used, l->now_ms);
	k->op.r = csm_be_signed(k->be, k->began_us, r, &k->out);
	k->op.apply(&k->op);
}

static void half_readable(evutil_socket_t fd, short what, void *arg)
{
	struct key_op *k = arg;
	struct loop *l = k->op.loop;
	int r;

	(void)fd;
	(void)what;
	l->now_ms = monotonic_ms();
	/* The descriptor may be another's as soon as it has ended; the event is not waited for any more. */
	r = csm_remote_sign_end(k->half, &k->out);
	if (r == CSM_EBUSY) {
		if (event_add(&k->readable, NULL) == 0)
			return;
		csm_remote_sign_give_up(k->half);
		r = CSM_EUNAVAILABLE;
	}
	half_finish(k, r);
	conn_flush_dirty(l);
}

/* While nobody waits in the queue before it, and the key is loaded over there. False: it goes the long way. */
static bool half_begin(struct key_op *k)
{
	struct loop *l = k->op.loop;
	int fd;

	if (k->be->plugin != &csm_plugin_remote || !is_signature(&k->call) || csm_workq_depth(k->be->owner) > 0 ||
		(k->call.scheme.hash != CSM_HASH_NONE && k->call.in.n != csm_hash_size(k->call.scheme.hash)))
		return false;
	k->key_used = csm_keycache_take(k->cache, k->rec.id);
	if (k->key_used == NULL)
		return false;
	k->began_us = csm_be_now_us();
	if (csm_remote_sign_begin(k->be->ctx, k->key_used->key, &k->call.scheme, k->call.in.p, k->call.in.n, k->out.cap,
		    &k->half, &fd) != 0)
		goto back;
	event_assign(&k->readable, l->base, fd, EV_READ, half_readable, k);
	if (event_add(&k->readable, NULL) != 0) {
		csm_remote_sign_give_up(k->half);
		k->half = NULL;
		goto back;
	}
	k->op.apply = key_op_apply;
	k->next_half = l->halves;
	l->halves = k;
	return true;
back:
	csm_keycache_put(k->cache, k->key_used, l->now_ms);
	return false;
}

void key_call_tick(struct loop *l)
{
	struct key_op *k, *next;

	for (k = l->halves; k != NULL; k = next) {
		next = k->next_half;
		if (!csm_remote_sign_late(k->half))
			continue;
		event_del(&k->readable);
		csm_remote_sign_give_up(k->half);
		half_finish(k, CSM_EUNAVAILABLE);
	}
	conn_flush_dirty(l);
	/* Keys that are only used this way are looked after by one of the loops. */
	for (size_t i = 0; l->index == 0 && i < l->b->n_backends; i++)
		if (l->b->backends[i].plugin == &csm_plugin_remote)
			csm_keycache_sweep(&l->b->owner_keys[i], l->now_ms, CSM_KEY_IDLE_MS);
}

static void run_away(struct req *q, struct key_found *f, struct key_call *call)
{
	struct broker *b = q->loop->b;
	struct op *op;
	struct key_op *k;
	int r = op_new(q, sizeof(*k), key_op_clear, &op);

	if (r != 0) {
		req_error(q, r, NULL);
		return;
	}
	k = (struct key_op *)op;
	csm_buf_init(&k->csr, CSM_CSR_MAX, false);
	k->be = f->be;
	k->is_own = f->own != NULL;
	if (k->is_own)
		f->own->rec.signatures += is_signature(call);
	k->cache = f->be->owner != NULL ? &b->owner_keys[f->be - b->backends] : &b->shared_keys;
	r = key_op_fill(q, f, call, k);
	if (r == 0) {
		k->call.csr = call->csr;
		call->csr = NULL;
		if (half_begin(k))
			return;
		r = op_to_backend(op, f->be, key_op_work, key_op_apply);
	}
	if (r != 0) {
		op_error(op, r, NULL);
		op_done(op);
	}
}

void key_call_run(struct req *q, struct key_found *f, struct key_call *call)
{
	if (csm_backend_inline(f->be, f->rec.alg))
		run_inline(q, f, call);
	else
		run_away(q, f, call);
	csm_csr_free(call->csr);
	req_end_read(q);
}
