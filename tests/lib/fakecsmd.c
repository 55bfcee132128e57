#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "tests/lib/fakecsmd.h"

#define HOLD_MAX 2048

struct fake_conn {
	struct fake *f;
	int fd;
	struct csm_buf in, out;
	uint32_t held[HOLD_MAX];
	uint8_t held_data[HOLD_MAX][8];
	unsigned n_held;
	uint8_t nonce[16];
	bool challenged, proven;
};

static void check(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "fakecsmd: %s (%s)\n", what, strerror(errno));
	abort();
}

static void must(int r)
{
	check(r == 0, csm_err_name(r));
}

void fake_sleep_ms(unsigned ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

	while (nanosleep(&t, &t) != 0 && errno == EINTR)
		;
}

static struct csm_bin bin_of(const void *p, size_t n)
{
	return (struct csm_bin){p, n};
}

/* ---- answers ---- */

struct request {
	const struct csm_method *m;
	uint32_t msgid;
	void *msg;
};

static void remember_id(struct fake *f, const struct request *q)
{
	size_t i;

	for (i = 0; i < q->m->request->n_fields; i++) {
		const struct csm_field *field = &q->m->request->fields[i];
		const struct csm_str *id = (const void *)((const uint8_t *)q->msg + field->off);

		if (strcmp(field->name, "request_id") != 0 || f->n_ids == FAKE_IDS)
			continue;
		memcpy(f->ids[f->n_ids], id->p != NULL ? id->p : "", id->n);
		f->ids[f->n_ids++][id->n] = '\0';
	}
}

static void answer_key_info(struct fake_conn *c, const struct request *q, struct csm_str key)
{
	struct csm_str use = CSM_STR("sign");
	struct csm_msg_key_info res = {
		.namespace = CSM_STR("home"), .name = key, .alg = CSM_STR("p256"), .backend = CSM_STR("soft"),
		.protection = CSM_STR("sealed"), .use = {&use, 1}, .exportable = {false, true}, .created = {1767323045, true},
		.public = CSM_STR("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"), .spki_sha256 = CSM_STR("00"),
		.signatures = {7, true},
	};

	must(csm_frame_result(&c->out, q->msgid, CSM_DEF(key_info), &res));
}

/* The signature is the digest, or the message's length: what was asked can be told from it. */
static void answer_sign(struct fake_conn *c, const struct request *q)
{
	const struct csm_msg_sign_req *req = q->msg;
	uint64_t n = req->message.n;
	struct csm_msg_sign_res res = {
		.scheme = CSM_STR("ecdsa-sha256"),
		.signature = req->digest.p != NULL ? req->digest : bin_of(&n, sizeof(n)),
	};

	must(csm_frame_result(&c->out, q->msgid, CSM_DEF(sign_res), &res));
}

static void answer_stream(struct fake_conn *c, const struct request *q)
{
	const struct csm_msg_sign_update_req *update = q->msg;
	struct csm_msg_sign_init_res init = {.stream = {9, true}};
	struct csm_msg_empty empty = {0};
	struct csm_msg_sign_res res = {
		.scheme = CSM_STR("ecdsa-sha256"),
		.signature = bin_of(&c->f->stream_bytes, sizeof(c->f->stream_bytes)),
	};

	if (q->m == &csm_methods[CSM_M_SIGN_INIT]) {
		c->f->stream_bytes = 0;
		must(csm_frame_result(&c->out, q->msgid, CSM_DEF(sign_init_res), &init));
	} else if (q->m == &csm_methods[CSM_M_SIGN_UPDATE]) {
		check(update->stream.v == 9, "the stream's number");
		c->f->stream_bytes += update->data.n;
		must(csm_frame_result(&c->out, q->msgid, CSM_DEF(empty), &empty));
	} else {
		must(csm_frame_result(&c->out, q->msgid, CSM_DEF(sign_res), &res));
	}
}

static void answer_secret(struct fake_conn *c, const struct request *q)
{
	const struct csm_msg_secret_get_req *req = q->msg;
	struct csm_msg_pair pairs[] = {
		{.name = CSM_STR("user"), .type = CSM_STR("text"), .value = bin_of("app", 3)},
		{.name = CSM_STR("password"), .type = CSM_STR("bytes"), .value = bin_of("p\0w", 3)},
	};
	struct csm_msg_secret_get_res res = {.version = {3, true}, .created = {1767323045, true}, .pairs = {pairs, 2}};

	if (req->key.p != NULL) {
		res.pairs.n = 1;
		pairs[0] = pairs[csm_str_eq(req->key, "password")];
	}
	must(csm_frame_result(&c->out, q->msgid, CSM_DEF(secret_get_res), &res));
}

static void answer_random(struct fake_conn *c, const struct request *q)
{
	const struct csm_msg_random_req *req = q->msg;
	uint8_t *p = malloc(req->bytes.v + 1);
	struct csm_msg_random_res res = {.random = bin_of(p, req->bytes.v)};

	if (p == NULL)
		abort();
	memset(p, 0xab, req->bytes.v);
	must(csm_frame_result(&c->out, q->msgid, CSM_DEF(random_res), &res));
	free(p);
}

/* Whatever is installed: its length as the serial number, and what cert.get then gives back. */
static void answer_cert(struct fake_conn *c, const struct request *q)
{
	const struct csm_msg_cert_install_req *install = q->msg;
	struct csm_msg_cert_info res = {.name = CSM_STR("tls"), .subject = CSM_STR("/CN=x"), .chain = bin_of("a chain", 7)};
	char serial[24];

	if (q->m == &csm_methods[CSM_M_CERT_INSTALL]) {
		(void)snprintf(serial, sizeof(serial), "%zu", install->chain.n);
		check(csm_str_eq(install->key, "web:tls") && install->request_id.n > 0, "a request to install");
		res.serial = csm_str_of(serial);
		res.chain = (struct csm_bin){NULL, 0};
	}
	must(csm_frame_result(&c->out, q->msgid, CSM_DEF(cert_info), &res));
}

static void answer_normal(struct fake_conn *c, const struct request *q)
{
	const struct csm_msg_ping_req *ping = q->msg;
	struct csm_msg_ping_res pong = {.data = ping->data};
	struct csm_msg_secret_set_res set = {.version = {4, true}};
	struct csm_msg_cert_watch_res watch = {.version = {7, true}};
	struct csm_msg_empty empty = {0};

	if (q->m == &csm_methods[CSM_M_PING])
		must(csm_frame_result(&c->out, q->msgid, CSM_DEF(ping_res), &pong));
	else if (q->m == &csm_methods[CSM_M_KEY_CREATE])
		answer_key_info(c, q, ((const struct csm_msg_key_create_req *)q->msg)->key);
	else if (q->m == &csm_methods[CSM_M_KEY_SIGN])
		answer_sign(c, q);
	else if (q->m == &csm_methods[CSM_M_SIGN_INIT] || q->m == &csm_methods[CSM_M_SIGN_UPDATE] ||
		 q->m == &csm_methods[CSM_M_SIGN_FINAL])
		answer_stream(c, q);
	else if (q->m == &csm_methods[CSM_M_SECRET_GET])
		answer_secret(c, q);
	else if (q->m == &csm_methods[CSM_M_SECRET_SET])
		must(csm_frame_result(&c->out, q->msgid, CSM_DEF(secret_set_res), &set));
	else if (q->m->response == CSM_DEF(cert_info))
		answer_cert(c, q);
	else if (q->m == &csm_methods[CSM_M_CERT_WATCH])
		must(csm_frame_result(&c->out, q->msgid, CSM_DEF(cert_watch_res), &watch));
	else if (q->m == &csm_methods[CSM_M_RANDOM])
		answer_random(c, q);
	else if (q->m->response == CSM_DEF(empty))
		must(csm_frame_result(&c->out, q->msgid, CSM_DEF(empty), &empty));
	else
		must(csm_frame_error(&c->out, q->msgid, CSM_EUNSUPPORTED, NULL, 0));
}

/* Ping requests with 8 bytes of data, answered in the opposite order. */
static void answer_backward(struct fake_conn *c, const struct request *q)
{
	const struct csm_msg_ping_req *ping = q->msg;

	check(c->n_held < HOLD_MAX && ping->data.n == 8, "a held ping");
	c->held[c->n_held] = q->msgid;
	memcpy(c->held_data[c->n_held++], ping->data.p, 8);
	while (c->n_held >= (unsigned)c->f->hold && c->n_held > 0) {
		while (c->n_held > 0) {
			struct csm_msg_ping_res pong = {.data = bin_of(c->held_data[--c->n_held], 8)};

			must(csm_frame_result(&c->out, c->held[c->n_held], CSM_DEF(ping_res), &pong));
		}
	}
}

/* Each nonce is the connection's own. */
static void answer_proof(struct fake_conn *c, const struct request *q)
{
	const struct csm_msg_prove_req *prove = q->msg;
	struct csm_msg_empty empty = {0};

	if (q->m == &csm_methods[CSM_M_PROVE]) {
		c->f->proofs++;
		c->proven = c->challenged && !c->f->proof_refused && prove->nonce.n == sizeof(c->nonce) &&
			memcmp(prove->nonce.p, c->nonce, sizeof(c->nonce)) == 0;
		if (c->proven)
			must(csm_frame_result(&c->out, q->msgid, CSM_DEF(empty), &empty));
		else
			must(csm_frame_error(&c->out, q->msgid, CSM_EDENIED, "no proof", 0));
	} else if (c->proven) {
		answer_normal(c, q);
	} else {
		memset(c->nonce, (int)c->f->accepted, sizeof(c->nonce));
		c->challenged = true;
		must(csm_frame_proof_required(&c->out, q->msgid, bin_of(c->nonce, sizeof(c->nonce))));
	}
}

/* false: the connection is to be closed. */
static bool answer(struct fake_conn *c, const struct request *q)
{
	struct fake *f = c->f;
	int left;

	pthread_mutex_lock(&f->lock);
	remember_id(f, q);
	pthread_mutex_unlock(&f->lock);
	f->requests++;
	switch ((enum fake_mode)f->mode) {
	case FAKE_LOSE:
		left = atomic_fetch_sub(&f->lose, 1);
		if (left > 0)
			return false;
		__attribute__((fallthrough));
	case FAKE_NORMAL:
		answer_normal(c, q);
		return true;
	case FAKE_SILENT:
		return true;
	case FAKE_RAW:
	case FAKE_RAW_END:
		must(csm_buf_put(&c->out, f->raw, f->raw_len));
		return true;
	case FAKE_ERROR:
		must(csm_frame_error(&c->out, q->msgid, f->error_code, f->error_text, f->retry_after));
		return true;
	case FAKE_BACKWARD:
		answer_backward(c, q);
		return true;
	case FAKE_SLOW:
		fake_sleep_ms((unsigned)f->slow_ms);
		answer_normal(c, q);
		return true;
	case FAKE_PROOF:
		answer_proof(c, q);
		return true;
	}
	return false;
}

/* ---- connections ---- */

static bool take_message(struct fake_conn *c, size_t n)
{
	struct csm_pool pool;
	struct csm_frame frame;
	struct csm_str bad;
	struct request q;
	bool go_on;

	csm_pool_init(&pool, 1 << 20);
	must(csm_frame_parse(csm_buf_ptr(&c->in), n, &frame));
	q.m = csm_method_find(frame.method);
	check(frame.type == CSM_REQUEST && q.m != NULL, "a request of a known method");
	q.msgid = frame.msgid;
	q.msg = csm_pool_alloc(&pool, q.m->request->size);
	must(csm_msg_decode(q.m->request, frame.params, CSM_UNKNOWN_REFUSE, &pool, q.msg, &bad));
	go_on = answer(c, &q);
	csm_pool_free(&pool);
	csm_buf_consume(&c->in, n);
	return go_on;
}

static bool send_out(struct fake_conn *c)
{
	while (c->out.len > 0) {
		ssize_t n = send(c->fd, csm_buf_ptr(&c->out), c->out.len, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		csm_buf_consume(&c->out, (size_t)n);
	}
	return c->f->mode != FAKE_RAW_END;
}

static bool serve_some(struct fake_conn *c)
{
	uint8_t *to;
	size_t n;
	ssize_t got;

	must(csm_buf_reserve(&c->in, 65536, &to));
	got = recv(c->fd, to, 65536, 0);
	if (got <= 0)
		return false;
	csm_buf_commit(&c->in, (size_t)got);
	while (c->in.len > 0 && csm_scan(csm_buf_ptr(&c->in), c->in.len, &n) == 0)
		if (!take_message(c, n))
			return false;
	return c->out.len == 0 || send_out(c);
}

static void *serve(void *arg)
{
	struct fake_conn *c = arg;
	struct pollfd p = {.fd = c->fd, .events = POLLIN};

	csm_buf_init(&c->in, 4u << 20, false);
	csm_buf_init(&c->out, 16u << 20, false);
	while (!c->f->stopping) {
		if (poll(&p, 1, 20) > 0 && !serve_some(c))
			break;
	}
	csm_buf_free(&c->in);
	csm_buf_free(&c->out);
	(void)close(c->fd);
	c->f->open--;
	free(c);
	return NULL;
}

static void *listen_loop(void *arg)
{
	struct fake *f = arg;
	struct pollfd p = {.fd = f->listener, .events = POLLIN};

	while (!f->stopping) {
		struct fake_conn *c;
		pthread_attr_t attr;
		pthread_t t;

		if (poll(&p, 1, 20) <= 0)
			continue;
		c = calloc(1, sizeof(*c));
		check(c != NULL, "memory");
		c->f = f;
		c->fd = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC);
		check(c->fd >= 0, "accept");
		f->accepted++;
		f->open++;
		(void)pthread_attr_init(&attr);
		(void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
		check(pthread_create(&t, &attr, serve, c) == 0, "a thread");
		(void)pthread_attr_destroy(&attr);
	}
	return NULL;
}

void fake_start(struct fake *f)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	memset(f, 0, sizeof(*f));
	(void)pthread_mutex_init(&f->lock, NULL);
	(void)snprintf(f->dir, sizeof(f->dir), "/tmp/csm-fake.XXXXXX");
	check(mkdtemp(f->dir) != NULL && chmod(f->dir, 0755) == 0, "a folder");
	(void)snprintf(f->path, sizeof(f->path), "%s/sock", f->dir);
	memcpy(a.sun_path, f->path, strlen(f->path) + 1);
	f->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	check(f->listener >= 0 && bind(f->listener, (struct sockaddr *)&a, sizeof(a)) == 0 &&
		      chmod(f->path, 0666) == 0 && listen(f->listener, 64) == 0,
		"a listener");
	check(pthread_create(&f->thread, NULL, listen_loop, f) == 0, "a thread");
}

void fake_stop(struct fake *f)
{
	unsigned i;

	f->stopping = 1;
	(void)pthread_join(f->thread, NULL);
	(void)close(f->listener);
	for (i = 0; f->open > 0 && i < 500; i++)
		fake_sleep_ms(10);
	check(f->open == 0, "connections end");
	(void)unlink(f->path);
	(void)rmdir(f->dir);
	(void)pthread_mutex_destroy(&f->lock);
}
