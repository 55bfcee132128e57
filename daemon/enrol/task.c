#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include "daemon/enrol/certs.h"
#include "daemon/enrol/find.h"
#include "daemon/enrol/task.h"
#include "daemon/enrol/tlskey.h"
#include "daemon/svc/log.h"
#include "libclient/base/lockmem.h"

#define TIMEOUT_MAX_MS (15 * 60 * 1000)
#define CERTS_BYTES (256u * 1024u) /* of an answer, as DER */
#define SECRET_PART 8u             /* so much of a token's beginning is a token */
#define EARLY_MAX_S 30             /* so long is waited until a certificate is valid */
#define AGAIN_MAX_S 16             /* csmd has no work for us yet, as while its store is locked: 1, 2, 4 ... */

static const struct protocol *const protocols[] = {&protocol_cms, &protocol_est};
/* Jobs under way in all threads. */
static atomic_int running;

int task_fail(struct task *t, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	csm_text_vput(t->why, sizeof(t->why), fmt, ap);
	va_end(ap);
	for (char *at = t->why; *at != '\0'; at++)
		*at = *at >= ' ' && *at <= '~' ? *at : '?';
	return err;
}

/* A server may repeat what it was sent; nobody reads it in csmd's log. */
static bool repeats_secret(const struct task *t, const char *text)
{
	const uint8_t *p = t->job.token.p, *colon;
	size_t n = t->job.token.n;

	if (p == NULL || n == 0)
		return false;
	colon = memchr(p, ':', n);
	if (colon != NULL) {
		n -= (size_t)(colon + 1 - p);
		p = colon + 1;
	}
	/* The text may have been cut off within it. */
	n = n > SECRET_PART ? SECRET_PART : n;
	return n > 0 && memmem(text, strlen(text), p, n) != NULL;
}

int task_note(struct task *t, const struct csm_rest_res *res, int err)
{
	if (res->status != 0)
		t->answered = true;
	if (res->retry_after) {
		t->retry = true;
		t->retry_after_s = res->retry_after_s;
	}
	if (err != 0 && t->sign_failed != 0)
		return task_fail(t, t->sign_failed, "the client's key does not sign: %s", csm_err_text(t->sign_failed));
	if (err != 0 && repeats_secret(t, res->why))
		return task_fail(t, err, "the server's message has the token in it and is withheld");
	return err == 0 ? 0 : task_fail(t, err, "%s", res->why[0] != '\0' ? res->why : csm_err_text(err));
}

bool task_is(const struct task *t, const char *what)
{
	return csm_str_eq(t->job.what, what);
}

struct csm_bin task_anchors(const struct task *t)
{
	return t->job.anchors.p != NULL ? t->job.anchors : t->pinned;
}

int task_take_chain(struct task *t, struct csm_bin certs, struct csm_bin more)
{
	int r = certs_order(certs, more, task_anchors(t), t->job.csr, &t->chain);

	if (r == CSM_EPROTOCOL)
		return task_fail(t, r, "the server's answer has no certificate for the key");
	return r == 0 ? 0 : task_fail(t, r, "the certificates in the server's answer: %s", csm_err_text(r));
}

/* ---- calls of csmd ---- */

static int call(struct csm_channel *ch, int64_t deadline_ms, const char *method, const struct csm_msgdef *def, const void *params,
	struct csm_frame *ret)
{
	uint32_t msgid = ++ch->next_msgid;
	int r = csm_frame_request(&ch->out, msgid, method, def, params);

	if (r != 0 || (r = csm_channel_send(ch, deadline_ms, -1)) != 0)
		return r;
	/* A signature that came too late for its job is passed over. */
	do {
		if ((r = csm_channel_recv(ch, deadline_ms, ret, NULL)) != 0)
			return r;
	} while (ret->type == CSM_RESPONSE && (int32_t)(ret->msgid - msgid) < 0);
	return ret->type == CSM_RESPONSE && ret->msgid == msgid ? 0 : CSM_EPROTOCOL;
}

/* In the midst of a handshake. */
static int sign(void *arg, const char *scheme, struct csm_bin digest, uint8_t *sig, size_t *len)
{
	struct task *t = arg;
	struct csm_msg_enrol_sign_req req = {.job = t->job.id, .scheme = csm_str_of(scheme), .digest = digest};
	struct csm_msg_sign_res res;
	struct csm_frame f;
	int r = call(t->ch, t->deadline_ms, "enrol.sign", CSM_DEF(enrol_sign_req), &req, &f);

	if (r == CSM_ETIMEOUT)
		return t->sign_failed = r;
	if (r != 0) {
		log_err("csmd did not sign: %s", csm_err_text(r));
		_exit(1);
	}
	if (f.error.p != NULL) {
		t->sign_failed = csm_channel_error(t->ch, f.error);
		log_info("csmd does not sign with %s for a job: %s", scheme, csm_err_text(t->sign_failed));
		return t->sign_failed;
	}
	if ((r = csm_channel_decode(t->ch, CSM_DEF(sign_res), f.result, &res)) != 0 || res.signature.n > *len)
		return r != 0 ? r : CSM_EPROTOCOL;
	memcpy(sig, res.signature.p, res.signature.n);
	*len = res.signature.n;
	return 0;
}

/* ---- a connection ---- */

static int make_key(struct task *t)
{
	const unsigned char *p = t->job.tls_chain.p;
	X509 *x;
	int r;

	if (p == NULL)
		return 0;
	x = d2i_X509(NULL, &p, (long)t->job.tls_chain.n);
	r = x != NULL ? tlskey_new(x, sign, t, &t->key) : CSM_EINVALID;
	X509_free(x);
	return r == 0 ? 0 : task_fail(t, r, "the client's certificate cannot be used for TLS");
}

/* USER:PASSWORD as it is, anything else is a password of any user's. */
static int make_basic(struct task *t)
{
	static const char user[] = "csm:";
	struct csm_bin token = t->job.token;
	bool whole = token.p != NULL && memchr(token.p, ':', token.n) != NULL;
	size_t k = whole ? 0 : sizeof(user) - 1;

	if (token.p == NULL)
		return 0;
	t->basic = csm_lock_alloc(k + token.n + 1);
	if (t->basic == NULL)
		return CSM_ENOMEM;
	memcpy(t->basic, user, k);
	memcpy(t->basic + k, token.p, token.n);
	t->basic_n = k + token.n;
	return 0;
}

static int open_rest(struct task *t, const struct protocol *p, const struct place *at, struct csm_bin anchors, struct csm_rest **ret)
{
	char why[CSM_REST_WHY_MAX + 1];
	struct csm_rest_options opt = {.url = at->url, .addresses = at->addresses[0] != '\0' ? at->addresses : NULL,
		.timeout_ms = TIMEOUT_MAX_MS, .agent = "csm-enrol/" CSM_VERSION, .anchors = anchors,
		.unverified = anchors.p == NULL};
	int r;

	if (anchors.p != NULL) {
		if (p->basic)
			opt.basic = (struct csm_bin){t->basic, t->basic_n};
		else
			opt.token = t->job.token;
		if (t->key != NULL) {
			opt.chain = t->job.tls_chain;
			opt.key = t->key;
		}
	}
	r = csm_rest_new(&opt, ret, why);
	if (r != 0)
		return task_fail(t, r, "%s", why[0] != '\0' ? why : csm_err_text(r));
	csm_rest_deadline(*ret, (uint64_t)t->deadline_ms);
	return 0;
}

/* The root whose digest is known, from a server that nobody vouches for yet. Nothing is sent to it but that question, and nothing
 * else of its answer is used: what follows is asked on a connection that this root vouches for. */
static int fetch_root(struct task *t, const struct protocol *p, const struct place *at)
{
	struct csm_rest *rest;
	int r = open_rest(t, p, at, (struct csm_bin){NULL, 0}, &rest);

	if (r != 0)
		return r;
	csm_buf_reset(&t->seen);
	r = p->cacerts(t, rest, &t->seen);
	csm_rest_free(rest);
	if (r != 0)
		return r;
	r = certs_find((struct csm_bin){csm_buf_ptr(&t->seen), t->seen.len}, t->job.root_sha256, &t->pinned);
	if (r == CSM_ENOT_FOUND)
		return task_fail(t, CSM_EUNREACHABLE, "none of the CA certificates of the server has the digest that was given");
	if (r != 0)
		return task_fail(t, r, "root_sha256 is no SHA-256 in hexadecimal digits");
	return csm_buf_put(&t->anchors, t->pinned.p, t->pinned.n);
}

static int run_at(struct task *t, const struct protocol *p, struct place *at)
{
	struct csm_bin anchors = t->job.anchors;
	struct csm_rest *rest;
	int r = find_addresses(at, t->deadline_ms, t->why);

	if (r != 0)
		return r;
	csm_buf_reset(&t->anchors);
	if (anchors.p == NULL) {
		if ((r = fetch_root(t, p, at)) != 0)
			return r;
		anchors = t->pinned;
	}
	t->answered = false;
	r = open_rest(t, p, at, anchors, &rest);
	if (r != 0)
		return r;
	r = p->run(t, rest);
	csm_rest_free(rest);
	return r;
}

/* One server after the other, as long as none has answered. Each gets its share of the time. */
static int run_job(struct task *t)
{
	const struct protocol *p = NULL;
	int64_t end = t->deadline_ms;
	struct places all;
	int r;

	for (size_t i = 0; i < sizeof(protocols) / sizeof(protocols[0]); i++)
		p = csm_str_eq(t->job.protocol, protocols[i]->name) ? protocols[i] : p;
	if (p == NULL)
		return task_fail(t, CSM_EUNSUPPORTED, "no such protocol");
	if (t->job.anchors.p == NULL && t->job.root_sha256.p == NULL)
		return task_fail(t, CSM_EINVALID, "there is nothing to trust the server by: neither anchors nor root_sha256");
	if ((r = make_key(t)) != 0 || (p->basic && (r = make_basic(t)) != 0) ||
		(r = find_places(t->job.url, t->job.domain, end, &all, t->why)) != 0)
		return r;
	r = CSM_EUNREACHABLE;
	for (size_t i = 0; i < all.n; i++) {
		int64_t now = csm_channel_now_ms();

		t->deadline_ms = now + (end - now) / (int64_t)(all.n - i);
		t->answered = false;
		r = run_at(t, p, &all.p[i]);
		if (t->answered || (r != CSM_EUNREACHABLE && r != CSM_ETIMEOUT))
			break;
	}
	t->deadline_ms = end;
	return r;
}

/* A CA whose clock is a little ahead of ours gives what is valid in a moment, and would give the like again: csmd, which takes nothing
 * that is not valid, gets it then. */
static void await_valid(const struct task *t)
{
	const unsigned char *p = csm_buf_ptr(&t->chain);
	X509 *leaf = t->chain.len > 0 ? d2i_X509(NULL, &p, (long)t->chain.len) : NULL;
	int days = 0, s = 0;

	if (leaf != NULL && ASN1_TIME_diff(&days, &s, NULL, X509_get0_notBefore(leaf)) == 1 && days == 0 && s > 0 && s <= EARLY_MAX_S &&
		csm_channel_now_ms() + s * 1000 < t->deadline_ms)
		nanosleep(&(struct timespec){s, 0}, NULL);
	X509_free(leaf);
	ERR_clear_error();
}

/* ---- the loop ---- */

static const char *name_of(int r)
{
	if (r == CSM_ECLOSED || r == CSM_EUNREACHABLE)
		return csm_err_name(CSM_EUNREACHABLE);
	return csm_err_name(csm_err_on_wire(r));
}

static int tell(struct task *t, int result)
{
	struct csm_msg_enrol_done_req done = {.job = t->job.id};
	struct csm_frame f;

	if (result != 0) {
		done.error = csm_str_of(name_of(result));
		done.why = csm_str_of(t->why[0] != '\0' ? t->why : csm_err_text(result));
		done.retry_after_s = (struct csm_u64){t->retry_after_s, t->retry};
		log_info("job %llu (%.*s, %.*s) failed: %s: %s", (unsigned long long)t->job.id.v, (int)t->job.what.n, t->job.what.p,
			(int)t->job.protocol.n, t->job.protocol.p, name_of(result), done.why.p);
	} else {
		if (t->chain.len > 0)
			done.chain = (struct csm_bin){csm_buf_ptr(&t->chain), t->chain.len};
		if (t->anchors.len > 0)
			done.anchors = (struct csm_bin){csm_buf_ptr(&t->anchors), t->anchors.len};
		log_debug("job %llu (%.*s, %.*s) done", (unsigned long long)t->job.id.v, (int)t->job.what.n, t->job.what.p,
			(int)t->job.protocol.n, t->job.protocol.p);
	}
	/* csmd may have forgotten the job: that is its own affair. */
	return call(t->ch, 0, "enrol.done", CSM_DEF(enrol_done_req), &done, &f);
}

static void task_clear(struct task *t)
{
	EVP_PKEY_free(t->key);
	csm_lock_free(t->basic);
	csm_buf_free(&t->message);
	csm_buf_free(&t->seen);
	csm_buf_free(&t->chain);
	csm_buf_free(&t->anchors);
}

static void task_init(struct task *t, struct csm_channel *ch)
{
	*t = (struct task){.ch = ch};
	csm_buf_init(&t->message, CSM_MESSAGE_MAX, true);
	csm_buf_init(&t->seen, CERTS_BYTES, false);
	csm_buf_init(&t->chain, CSM_CERT_CHAIN_MAX, false);
	csm_buf_init(&t->anchors, CSM_CERT_CHAIN_MAX, false);
}

/* The next job, with its bytes as its own: the channel's are gone with the next message. CSM_EBUSY: there is none for us now. */
static int next_job(struct task *t)
{
	struct csm_msg_empty none = {0};
	struct csm_frame f;
	struct csm_str bad;
	int64_t most;
	int r = call(t->ch, 0, "enrol.next", CSM_DEF(empty), &none, &f);

	if (r != 0)
		return r;
	if (f.error.p != NULL) {
		log_debug("csmd has no work: %s", csm_err_text(csm_channel_error(t->ch, f.error)));
		return CSM_EBUSY;
	}
	if ((r = csm_buf_put(&t->message, f.result.p, f.result.n)) != 0)
		return r;
	r = csm_msg_decode(CSM_DEF(enrol_job), (struct csm_bin){csm_buf_ptr(&t->message), t->message.len}, CSM_UNKNOWN_SKIP, NULL,
		&t->job, &bad);
	if (r != 0)
		return r;
	most = t->job.timeout_ms.v < TIMEOUT_MAX_MS ? (int64_t)t->job.timeout_ms.v : TIMEOUT_MAX_MS;
	t->deadline_ms = csm_channel_now_ms() + most;
	return 0;
}

static int serve_one(struct task *t, int *again_s)
{
	int r = next_job(t), result;

	if (r == CSM_EBUSY) {
		nanosleep(&(struct timespec){*again_s, 0}, NULL);
		*again_s = *again_s < AGAIN_MAX_S ? *again_s * 2 : AGAIN_MAX_S;
		return 0;
	}
	if (r != 0)
		return r;
	*again_s = 1;
	atomic_fetch_add(&running, 1);
	result = run_job(t);
	if (result == 0)
		await_valid(t);
	r = tell(t, result);
	if (atomic_fetch_sub(&running, 1) == 1 && result == CSM_EUNREACHABLE && find_is_stale()) {
		log_info("the name service's files are others by now: csm-enrol starts anew");
		_exit(0);
	}
	return r;
}

int task_serve(struct csm_channel *ch)
{
	struct task t;
	int r = 0, again_s = 1;

	while (r == 0) {
		task_init(&t, ch);
		r = serve_one(&t, &again_s);
		task_clear(&t);
	}
	return r;
}
