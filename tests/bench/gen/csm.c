/* csm's own works: ping, sign, get, put, over csm's wire. */
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "libclient/wire/dec.h"
#include "libclient/wire/frame.h"
#include "tests/bench/gen/gen.h"

#define DOMAIN "bench"
#define PUT_NAMES GEN_DEPTH_MAX /* of one client; no two requests in flight write the same */

/* ---- one call at a time, to prepare ---- */

struct setup {
	int fd;
	struct csm_buf out;
	size_t len;
	uint8_t in[8192];
};

static int setup_open(struct setup *s, const struct target *t)
{
	s->len = 0;
	csm_buf_init(&s->out, CSM_MESSAGE_MAX, false);
	s->fd = gen_connect(t->socket);
	return s->fd >= 0 ? 0 : CSM_EUNREACHABLE;
}

static void setup_close(struct setup *s)
{
	close(s->fd);
	csm_buf_free(&s->out);
}

/* The error a response carries; 0: a result. */
static int response_error(const struct csm_frame *f)
{
	struct csm_msg_error e;
	struct csm_str bad;
	int r;

	if (f->type != CSM_RESPONSE)
		return CSM_EPROTOCOL;
	if (f->error.p == NULL)
		return 0;
	r = csm_msg_decode(CSM_DEF(error), f->error, CSM_UNKNOWN_SKIP, NULL, &e, &bad);
	return r != 0 ? r : (int)e.code.v;
}

static int receive_frame(struct setup *s, struct csm_frame *f)
{
	size_t have = 0, len;
	int r = CSM_EBUSY;

	while (r == CSM_EBUSY) {
		ssize_t n = recv(s->fd, s->in + have, sizeof(s->in) - have, 0);

		if (n <= 0)
			return CSM_ECLOSED;
		have += (size_t)n;
		r = csm_scan(s->in, have, &len);
	}
	return r != 0 ? r : csm_frame_parse(s->in, len, f);
}

/* res NULL: the result does not matter. It borrows s->in. */
static int setup_call(
	struct setup *s, const char *method, const struct csm_msgdef *def, const void *req, const struct csm_msgdef *res_def,
	void *res)
{
	struct csm_frame f;
	struct csm_str bad;
	int r;

	csm_buf_reset(&s->out);
	r = csm_frame_request(&s->out, 0, method, def, req);
	if (r == 0 && send(s->fd, csm_buf_ptr(&s->out), s->out.len, MSG_NOSIGNAL) != (ssize_t)s->out.len)
		r = CSM_ECLOSED;
	if (r == 0)
		r = receive_frame(s, &f);
	if (r == 0)
		r = response_error(&f);
	if (r == 0 && res != NULL)
		r = csm_msg_decode(res_def, f.result, CSM_UNKNOWN_SKIP, NULL, res, &bad);
	return r;
}

static int told(int r, const char *what)
{
	if (r != 0)
		fprintf(stderr, "load: %s: %s\n", what, csm_err_name(r));
	return r;
}

static int prepare_key(struct target *t)
{
	struct csm_msg_key_create_req create = {
		.key = csm_str_of(t->key), .alg = CSM_STR("p256"), .backend = csm_str_of(t->backend)};
	struct csm_msg_key_req show = {.key = csm_str_of(t->key)};
	struct csm_msg_key_public_res public;
	struct setup s;
	int r = setup_open(&s, t);

	if (r != 0)
		return r;
	if (t->backend == NULL)
		create.backend.p = NULL;
	r = setup_call(&s, "key.create", CSM_DEF(key_create_req), &create, NULL, NULL);
	if (r == 0 || r == CSM_EEXISTS)
		r = setup_call(&s, "key.public", CSM_DEF(key_req), &show, CSM_DEF(key_public_res), &public);
	if (r == 0) {
		const uint8_t *der = public.spki.p;

		t->public = d2i_PUBKEY(NULL, &der, (long)public.spki.n);
		r = t->public != NULL ? 0 : CSM_EBACKEND;
	}
	setup_close(&s);
	return told(r, "key");
}

static int prepare_domain(struct target *t)
{
	struct csm_msg_domain_req req = {.domain = CSM_STR(DOMAIN)};
	struct setup s;
	int r = setup_open(&s, t);

	if (r != 0)
		return r;
	r = setup_call(&s, "domain.create", CSM_DEF(domain_req), &req, NULL, NULL);
	setup_close(&s);
	return told(r == CSM_EEXISTS ? 0 : r, "domain");
}

static size_t secret_name(char *out, size_t cap, unsigned secret)
{
	return (size_t)snprintf(out, cap, DOMAIN "/s%03u", secret);
}

static int set_request(struct csm_buf *out, uint32_t msgid, const char *name, unsigned value_of)
{
	uint8_t value[GEN_VALUE_LEN];
	struct csm_msg_pair pair = {.name = CSM_STR("v"), .value = {value, sizeof(value)}};
	struct csm_msg_secret_set_req req = {.secret = csm_str_of(name), .pairs = {&pair, 1}};

	gen_value(value_of, value);
	return csm_frame_request(out, msgid, "secret.set", CSM_DEF(secret_set_req), &req);
}

/* The secrets that are read, in batches, for a node that lacks them. */
static int set_all(struct setup *s)
{
	char name[64];
	int r = 0;

	for (unsigned i = 0; i < GEN_SECRETS && r == 0; i += 50) {
		size_t have = 0, at = 0, len;
		unsigned answers = 0;

		csm_buf_reset(&s->out);
		for (unsigned j = i; j < i + 50 && r == 0; j++) {
			secret_name(name, sizeof(name), j);
			r = set_request(&s->out, j, name, j);
		}
		if (r != 0 || send(s->fd, csm_buf_ptr(&s->out), s->out.len, MSG_NOSIGNAL) != (ssize_t)s->out.len)
			return CSM_ECLOSED;
		while (answers < 50) {
			struct csm_frame f;
			ssize_t n = recv(s->fd, s->in + have, sizeof(s->in) - have, 0);

			if (n <= 0)
				return CSM_ECLOSED;
			have += (size_t)n;
			while (csm_scan(s->in + at, have - at, &len) == 0) {
				r = csm_frame_parse(s->in + at, len, &f);
				if (r == 0)
					r = response_error(&f);
				if (r != 0)
					return r;
				at += len;
				answers++;
			}
		}
	}
	return r;
}

static int prepare_secrets(struct target *t)
{
	struct csm_msg_secret_get_req req = {0};
	char name[64];
	struct setup s;
	int r = prepare_domain(t);

	if (r != 0)
		return r;
	r = setup_open(&s, t);
	if (r != 0)
		return r;
	req.secret = (struct csm_str){name, secret_name(name, sizeof(name), GEN_SECRETS - 1)};
	r = setup_call(&s, "secret.get", CSM_DEF(secret_get_req), &req, NULL, NULL);
	if (r == CSM_ENOT_FOUND)
		r = set_all(&s);
	setup_close(&s);
	return told(r, "secrets");
}

/* ---- requests ---- */

static int request_ping(const struct target *t, unsigned client, unsigned i, struct csm_buf *out)
{
	struct csm_msg_ping_req req = {0};

	(void)t;
	(void)client;
	return csm_frame_request(out, i, "ping", CSM_DEF(ping_req), &req);
}

static int request_sign(const struct target *t, unsigned client, unsigned i, struct csm_buf *out)
{
	struct csm_msg_sign_req req = {.key = csm_str_of(t->key), .digest = {gen_digest(), 32}};

	(void)client;
	return csm_frame_request(out, i, "key.sign", CSM_DEF(sign_req), &req);
}

static int request_get(const struct target *t, unsigned client, unsigned i, struct csm_buf *out)
{
	char name[64];
	struct csm_msg_secret_get_req req = {
		.secret = {name, secret_name(name, sizeof(name), gen_secret_of(client, i))}, .key = CSM_STR("v")};

	(void)t;
	return csm_frame_request(out, i, "secret.get", CSM_DEF(secret_get_req), &req);
}

static int request_put(const struct target *t, unsigned client, unsigned i, struct csm_buf *out)
{
	char name[64];

	(void)t;
	snprintf(name, sizeof(name), DOMAIN "/w%u-%u", client, i % PUT_NAMES);
	return set_request(out, i, name, i);
}

/* ---- answers ---- */

/* The envelope alone, of a message that csm_scan has measured: what a result holds is looked at in the first answers. */
static int reply(const uint8_t *p, size_t n, size_t *len, uint32_t *id)
{
	uint64_t type, msgid;
	struct csm_frame f;
	uint32_t four;
	struct csm_dec d;
	int r = csm_scan(p, n, len);

	if (r != 0)
		return r;
	csm_dec_init(&d, p, *len);
	if (csm_dec_array(&d, &four) != 0 || csm_dec_u64(&d, &type) != 0 || csm_dec_u64(&d, &msgid) != 0 || four != 4 ||
		type != CSM_RESPONSE)
		return told(CSM_EPROTOCOL, "answer");
	*id = (uint32_t)msgid;
	if (csm_dec_nil(&d) == 0)
		return 0;
	r = csm_frame_parse(p, *len, &f);
	return told(r != 0 ? r : response_error(&f), "answer");
}

static bool right_sign(const struct target *t, unsigned client, unsigned i, const uint8_t *p, size_t n)
{
	struct csm_msg_sign_res res;
	struct csm_frame f;
	struct csm_str bad;

	(void)client;
	(void)i;
	return csm_frame_parse(p, n, &f) == 0 &&
		csm_msg_decode(CSM_DEF(sign_res), f.result, CSM_UNKNOWN_SKIP, NULL, &res, &bad) == 0 &&
		gen_signature_right(t->public, res.signature.p, res.signature.n);
}

static bool right_get(const struct target *t, unsigned client, unsigned i, const uint8_t *p, size_t n)
{
	struct csm_msg_secret_get_res res;
	uint8_t value[GEN_VALUE_LEN];
	struct csm_pool pool;
	struct csm_frame f;
	struct csm_str bad;
	bool good;

	(void)t;
	csm_pool_init(&pool, CSM_MESSAGE_MAX);
	gen_value(gen_secret_of(client, i), value);
	good = csm_frame_parse(p, n, &f) == 0 &&
		csm_msg_decode(CSM_DEF(secret_get_res), f.result, CSM_UNKNOWN_SKIP, &pool, &res, &bad) == 0 &&
		res.pairs.n == 1 && res.pairs.v[0].value.n == sizeof(value) &&
		memcmp(res.pairs.v[0].value.p, value, sizeof(value)) == 0;
	csm_pool_free(&pool);
	return good;
}

const struct work works_csm[] = {
	{.name = "csm-ping", .request = request_ping, .reply = reply},
	{.name = "csm-sign", .prepare = prepare_key, .request = request_sign, .reply = reply, .right = right_sign},
	{.name = "csm-get", .prepare = prepare_secrets, .request = request_get, .reply = reply, .right = right_get},
	{.name = "csm-put", .prepare = prepare_domain, .request = request_put, .reply = reply},
	{.name = NULL},
};
