#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>
#include "daemon/node/accept.h"
#include "daemon/node/ask.h"
#include "daemon/node/conn.h"
#include "daemon/node/enrol.h"
#include "daemon/node/reload.h"
#include "libclient/wire/frame.h"
#include "tests/lib/testbroker.h"

#define CALL_MS 5000

static const char config_text[] = "root_key: file\nroot_key_file: /nonexistent\nroot_key_unprotected: true\nlog_level: error\n";

/* ---- what back ends ask for ---- */

static int no_device(void *arg)
{
	(void)arg;
	errno = ENODEV;
	return -1;
}

static int recall_nothing(void *arg, const char *name, uint8_t *p, size_t *len)
{
	(void)arg;
	(void)name;
	(void)p;
	(void)len;
	return CSM_ENOT_FOUND;
}

static int remember_nothing(void *arg, const char *name, const uint8_t *p, size_t len)
{
	(void)arg;
	(void)name;
	(void)p;
	(void)len;
	return 0;
}

static void log_nothing(void *arg, int level, const char *text)
{
	(void)arg;
	(void)level;
	(void)text;
}

static const char *config_of(void *arg, const char *name)
{
	const struct testbroker *t = arg;

	if (strcmp(name, "script") != 0)
		return NULL;
	return t->script != NULL ? t->script : "";
}

static int fixed_root(void *arg, const uint8_t *wrapped, size_t n, uint8_t key[static 32])
{
	(void)arg;
	(void)wrapped;
	(void)n;
	memset(key, 0x5a, 32);
	return 0;
}

/* ---- start and stop ---- */

static int add_backends(struct testbroker *t, const struct csm_plugin *const *plugins)
{
	struct broker *b = &t->b;
	int r = 0;

	for (; r == 0 && *plugins != NULL; plugins++) {
		struct csm_backend *be = &b->backends[b->n_backends++];

		be->plugin = *plugins;
		pthread_mutex_init(&be->health_lock, NULL);
		be->host = (struct csm_plugin_host){.arg = t, .device = no_device, .remember = remember_nothing,
			.recall = recall_nothing, .log = log_nothing, .config = config_of};
		be->preferred = b->n_backends == 1;
		if ((r = csm_backend_open(be)) == 0)
			r = csm_backend_start(be, CSM_QUEUE_MAX, CSM_QUEUE_PER_IDENTITY);
	}
	return r;
}

static int open_store(struct testbroker *t)
{
	struct csm_store_options opt = {.dir = t->dir, .map_size = 64u << 20, .epoch_interval_s = 600,
		.root = {.mode = "file", .unwrap = fixed_root}};
	struct csm_audit_options log = {0};
	struct csm_store *store;
	char audit[160];
	int r;

	snprintf(audit, sizeof(audit), "%s/audit", t->dir);
	log.dir = audit;
	if ((r = csm_audit_open(&log, &t->b.audit)) != 0 || (r = csm_audit_start(t->b.audit)) != 0 ||
		(r = csm_store_open(&opt, &store)) != 0 || (r = csm_store_tell(store, t->b.audit)) != 0 ||
		(r = csm_store_start(store)) != 0)
		return r;
	t->b.store = t->b.env = store;
	t->b.state = csm_store_locked(store) ? BROKER_LOCKED : BROKER_READY;
	return 0;
}

/* The broker writes to CONTROL_FD: give it the other end of ours. */
static int make_control(struct testbroker *t)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0)
		return CSM_ESYSTEM;
	t->control = fcntl(pair[0], F_DUPFD_CLOEXEC, 32);
	if (pair[1] != CONTROL_FD && dup2(pair[1], CONTROL_FD) < 0)
		return CSM_ESYSTEM;
	if (pair[1] != CONTROL_FD)
		close(pair[1]);
	if (pair[0] != CONTROL_FD)
		close(pair[0]);
	return t->control < 0 ? CSM_ESYSTEM : 0;
}

int testbroker_start(struct testbroker *t, const struct csm_plugin *const *plugins, const char *policy)
{
	struct csm_workq_options workers = {.name = "worker", .threads = 1, .max = CSM_QUEUE_MAX,
		.max_per_user = CSM_QUEUE_PER_IDENTITY};
	struct csm_policy_error err;
	struct broker *b = &t->b;
	const char *tmp = getenv("TMPDIR");
	char config[4096];
	int r;

	snprintf(t->dir, sizeof(t->dir), "%s/testbroker.XXXXXX", tmp != NULL ? tmp : "/tmp");
	if (sodium_init() < 0 || mkdtemp(t->dir) == NULL)
		return CSM_ESYSTEM;
	t->policy = policy;
	snprintf(config, sizeof(config), "%s%s", config_text, t->config != NULL ? t->config : "");
	b->setup.enrol_anchors[0] = t->anchors;
	b->setup.enrol_tokens[0] = t->token;
	if ((r = make_control(t)) != 0 || (r = csm_config_parse(config, strlen(config), &b->cfg, &err)) != 0 ||
		(r = csm_policy_parse(policy, policy == NULL ? 0 : strlen(policy), NULL, &b->policy, &err)) != 0)
		return r;
	if ((r = broker_init(b, 1024)) != 0 || (r = add_backends(t, plugins)) != 0 || (r = open_store(t)) != 0 ||
		(r = csm_workq_new(&workers, &b->workers)) != 0 || (r = loop_new(b, 0, &b->loops[0])) != 0)
		return r;
	b->n_loops = 1;
	if ((r = enrol_start(b->enrol)) != 0)
		return r;
	t->loop = b->loops[0];
	return 0;
}

static void remove_dir(const char *dir)
{
	static const char *const parts[] = {"store/data.mdb", "store/lock.mdb", "store/owner.lock", "store/journal", "store", "audit/audit.log", "audit",
		"public.sock", "admin.sock", ""};
	char path[192];

	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, parts[i]);
		if (remove(path) != 0 && errno != ENOENT)
			perror(path);
	}
}

void testbroker_stop(struct testbroker *t)
{
	if (t->listening) {
		acceptor_stop(&t->public);
		acceptor_stop(&t->admin);
	}
	while (t->loop->conns != NULL)
		conn_drop(t->loop->conns);
	asks_stop(t->b.asks);
	enrol_stop(t->b.enrol);
	testbroker_run(t, CALL_MS);
	broker_free(&t->b);
	close(t->control);
	close(CONTROL_FD);
	remove_dir(t->dir);
}

/* ---- the supervisor's part ---- */

static void supervise(struct testbroker *t)
{
	struct setup s = {.broker_uid = UINT32_MAX, .broker_gid = UINT32_MAX, .plugin_dir = CSM_STR(""),
		.device = CSM_STR("")};
	struct control_msg msg;
	int fd;

	while (control_recv(t->control, &msg) == 0) {
		if (msg.fd >= 0)
			close(msg.fd);
		if (msg.type != CTL_WANT_RELOAD)
			continue;
		if (msg.len == sizeof(s.reload_seq))
			memcpy(&s.reload_seq, msg.body, sizeof(s.reload_seq));
		if (t->policy != NULL)
			s.policy = (struct csm_bin){(const uint8_t *)t->policy, strlen(t->policy)};
		if (setup_to_memfd(&s, &fd) == 0)
			policy_reload(&t->b, fd);
	}
}

/* ---- the clients' part ---- */

int testbroker_connect(struct testbroker *t, enum csm_role role)
{
	struct admit_slot *slot;
	int pair[2], on = 1;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0)
		return -1;
	/* As on a socket that was accepted from a listener. */
	setsockopt(pair[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
	slot = admit_enter(&t->b.admit, getuid(), true);
	if (slot == NULL) {
		close(pair[0]);
		close(pair[1]);
		return -1;
	}
	conn_new(t->loop, pair[0], role, slot);
	return pair[1];
}

static int listen_at(const char *dir, const char *name, struct sockaddr_un *addr)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	*addr = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(addr->sun_path, sizeof(addr->sun_path), "%.80s/%s", dir, name);
	if (fd < 0 || bind(fd, (struct sockaddr *)addr, sizeof(*addr)) != 0 || listen(fd, 64) != 0 ||
		chmod(addr->sun_path, 0666) != 0)
		return -1;
	return fd;
}

static int start_listening(struct testbroker *t)
{
	struct sockaddr_un addr;

	if (t->listening)
		return 0;
	t->public = (struct acceptor){.fd = listen_at(t->dir, "public.sock", &addr), .role = CSM_R_PUBLIC};
	t->admin = (struct acceptor){.fd = listen_at(t->dir, "admin.sock", &addr), .role = CSM_R_ADMIN};
	if (t->public.fd < 0 || t->admin.fd < 0 || chmod(t->dir, 0711) != 0)
		return -1;
	/* One thread does all: main thread and loop share their events. */
	t->b.base = t->loop->base;
	acceptor_start(&t->public, &t->b);
	acceptor_start(&t->admin, &t->b);
	t->listening = true;
	return 0;
}

int testbroker_connect_as(struct testbroker *t, enum csm_role role, uid_t uid)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd, r;

	if (start_listening(t) != 0)
		return -1;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%.80s/%s", t->dir, role == CSM_R_ADMIN ? "admin.sock" : "public.sock");
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* The kernel keeps the credentials of the thread that connects; the other threads stay as they are. */
	if (fd < 0 || syscall(SYS_setresuid, -1, uid, -1) != 0)
		return -1;
	r = connect(fd, (struct sockaddr *)&addr, sizeof(addr));
	if (syscall(SYS_setresuid, -1, 0, -1) != 0)
		abort();
	testbroker_step(t);
	return r == 0 ? fd : -1;
}

void testbroker_step(struct testbroker *t)
{
	event_base_loop(t->loop->base, EVLOOP_NONBLOCK);
	supervise(t);
	/* A second turn finds what the first one has brought about. */
	event_base_loop(t->loop->base, EVLOOP_NONBLOCK);
}

bool testbroker_run(struct testbroker *t, int ms)
{
	uint64_t until = monotonic_ms() + (uint64_t)ms;

	for (;;) {
		testbroker_step(t);
		if (t->loop->n_ops == 0)
			return true;
		if (monotonic_ms() >= until)
			return false;
		poll(NULL, 0, 1);
	}
}

/* The answer may be there while operations of other requests are still away: they are not waited for. */
static int read_answer(struct testbroker *t, int fd, struct csm_buf *answer, size_t *len)
{
	uint64_t until = monotonic_ms() + CALL_MS;
	uint8_t *p;
	int r;

	csm_buf_reset(answer);
	while (monotonic_ms() < until) {
		ssize_t n;

		testbroker_step(t);
		if ((r = csm_buf_reserve(answer, 65536, &p)) != 0)
			return r;
		n = recv(fd, p, 65536, MSG_DONTWAIT);
		if (n > 0)
			csm_buf_commit(answer, (size_t)n);
		if (answer->len > 0 && csm_scan(csm_buf_ptr(answer), answer->len, len) == 0)
			return 0;
		if (n == 0)
			return CSM_ECLOSED;
		if (n < 0)
			poll(NULL, 0, 1);
	}
	return CSM_ETIMEOUT;
}

static int send_request(struct testbroker *t, int fd, const char *method, const void *params)
{
	const struct csm_method *m = csm_method_find(csm_str_of(method));
	struct csm_buf b;
	size_t sent = 0;
	int r;

	csm_buf_init(&b, CSM_MESSAGE_MAX, false);
	r = m == NULL ? CSM_EUNKNOWN_METHOD : csm_frame_request(&b, 7, method, m->request, params);
	while (r == 0 && sent < b.len) {
		ssize_t n = send(fd, csm_buf_ptr(&b) + sent, b.len - sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n > 0)
			sent += (size_t)n;
		else if (errno != EAGAIN)
			r = CSM_ECLOSED;
		testbroker_step(t);
	}
	csm_buf_free(&b);
	return r;
}

int testbroker_call(struct testbroker *t, int fd, const char *method, const void *params, struct csm_buf *answer,
	struct csm_pool *pool, void *result)
{
	const struct csm_method *m = csm_method_find(csm_str_of(method));
	struct csm_msg_error err;
	struct csm_frame f;
	struct csm_str bad;
	size_t len;
	int r;

	if ((r = send_request(t, fd, method, params)) != 0 || (r = read_answer(t, fd, answer, &len)) != 0 ||
		(r = csm_frame_parse(csm_buf_ptr(answer), len, &f)) != 0)
		return r;
	if (f.type != CSM_RESPONSE)
		return CSM_EPROTOCOL;
	csm_pool_reset(pool);
	if (f.error.p == NULL)
		return csm_msg_decode(m->response, f.result, CSM_UNKNOWN_REFUSE, pool, result, &bad);
	r = csm_msg_decode(CSM_DEF(error), f.error, CSM_UNKNOWN_REFUSE, pool, &err, &bad);
	return r != 0 ? r : (int)err.code.v;
}

/* ---- answers one by one ---- */

void testreader_init(struct testreader *r)
{
	csm_buf_init(&r->buf, 4 * CSM_OUT_MAX, false);
	csm_pool_init(&r->pool, CSM_MESSAGE_MAX);
	r->used = 0;
}

void testreader_free(struct testreader *r)
{
	csm_buf_free(&r->buf);
	csm_pool_free(&r->pool);
}

int testbroker_send(struct testbroker *t, int fd, const void *p, size_t n)
{
	uint64_t until = monotonic_ms() + CALL_MS;
	const uint8_t *at = p;

	while (n > 0) {
		ssize_t sent = send(fd, at, n, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent < 0 && errno != EAGAIN)
			return CSM_ECLOSED;
		if (sent > 0) {
			at += sent;
			n -= (size_t)sent;
		} else if (monotonic_ms() >= until) {
			return CSM_EBUSY;
		}
		testbroker_step(t);
	}
	return 0;
}

int testbroker_request(struct testbroker *t, int fd, uint32_t msgid, const char *method, const void *params)
{
	const struct csm_method *m = csm_method_find(csm_str_of(method));
	struct csm_buf b;
	int r;

	csm_buf_init(&b, 2 * CSM_MESSAGE_MAX, false);
	r = m == NULL ? CSM_EUNKNOWN_METHOD : csm_frame_request(&b, msgid, method, m->request, params);
	if (r == 0)
		r = testbroker_send(t, fd, csm_buf_ptr(&b), b.len);
	csm_buf_free(&b);
	return r;
}

static int take_answer(struct testreader *r, size_t len, struct testanswer *ret)
{
	struct csm_msg_error err;
	struct csm_frame f;
	struct csm_str bad;
	int e;

	if (csm_frame_parse(csm_buf_ptr(&r->buf), len, &f) != 0 || f.type != CSM_RESPONSE)
		return CSM_EPROTOCOL;
	*ret = (struct testanswer){.msgid = f.msgid, .result = f.result};
	r->used = len;
	if (f.error.p == NULL)
		return 0;
	csm_pool_reset(&r->pool);
	if ((e = csm_msg_decode(CSM_DEF(error), f.error, CSM_UNKNOWN_REFUSE, &r->pool, &err, &bad)) != 0)
		return e;
	ret->error = (int)err.code.v;
	ret->retryable = err.retryable.v;
	ret->retry_after_ms = err.retry_after_ms.v;
	snprintf(ret->message, sizeof(ret->message), "%.*s", (int)err.message.n, err.message.p);
	ret->nonce = err.nonce;
	return ret->error == 0 ? CSM_EPROTOCOL : 0;
}

int testbroker_answer(struct testbroker *t, int fd, struct testreader *r, int ms, struct testanswer *ret)
{
	uint64_t until = monotonic_ms() + (uint64_t)ms;
	size_t len;
	uint8_t *p;
	int e;

	csm_buf_consume(&r->buf, r->used);
	r->used = 0;
	for (;;) {
		ssize_t n;

		if (r->buf.len > 0 && csm_scan(csm_buf_ptr(&r->buf), r->buf.len, &len) == 0)
			return take_answer(r, len, ret);
		testbroker_step(t);
		if ((e = csm_buf_reserve(&r->buf, 65536, &p)) != 0)
			return e;
		n = recv(fd, p, 65536, MSG_DONTWAIT);
		if (n > 0)
			csm_buf_commit(&r->buf, (size_t)n);
		else if (n == 0 || errno != EAGAIN)
			return CSM_ECLOSED;
		else if (monotonic_ms() >= until)
			return CSM_ETIMEOUT;
		else
			poll(NULL, 0, 1);
	}
}
