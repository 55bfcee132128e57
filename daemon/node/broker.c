#include <errno.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "daemon/node/accept.h"
#include "daemon/node/ask.h"
#include "daemon/node/conn.h"
#include "daemon/node/deliver.h"
#include "daemon/node/enrol.h"
#include "daemon/node/host.h"
#include "daemon/node/plug.h"
#include "daemon/node/recovery.h"
#include "daemon/node/reload.h"
#include "daemon/node/root.h"
#include "daemon/node/watch.h"
#include "daemon/node/witness.h"
#include "daemon/pki/cert.h"
#include "daemon/svc/lockheap.h"
#include "daemon/svc/log.h"
#include "libclient/base/lockmem.h"

#define ARENA_BYTES (2u * 1024u * 1024u)
#define OPENSSL_HEAP_MAX (256u * 1024u * 1024u) /* addresses; what it takes is bounded by CSM_KEYS_PARSED_MAX */
#define STACK_BYTES (256u * 1024u) /* ten times what was seen */
#define TICK_S 1
#define FOLD_EVERY_S 10
#define WORKERS_MAX 4u

/* What only the main thread needs. */
struct main_state {
	struct broker b;
	struct acceptor acceptors[4];
	size_t n_acceptors;
	struct event control_event, tick_event;
	unsigned ticks;
	struct csm_store *opening; /* the environment is open, the root key is not there yet */
	bool root_open, audit_told; /* of `opening`: what has been done of it, if not all could be */
	struct csm_store_op fold, anchor;
	atomic_bool anchoring; /* anchor is with the store */
};

struct csm_backend *broker_backend(struct broker *b, struct csm_str name)
{
	for (size_t i = 0; i < b->n_backends; i++)
		if (csm_str_eq(name, csm_backend_name(&b->backends[i])))
			return &b->backends[i];
	return NULL;
}

struct csm_backend *broker_preferred(struct broker *b)
{
	for (size_t i = 0; i < b->n_backends; i++)
		if (b->backends[i].preferred)
			return &b->backends[i];
	return NULL;
}

/* Threads lock their stacks: all of one counts against RLIMIT_MEMLOCK, whatever it uses. */
static int small_stacks(void)
{
	int r = 0;
#ifndef CSM_SANITIZED
	pthread_attr_t attr;

	if (pthread_attr_init(&attr) != 0)
		return CSM_ENOMEM;
	if (pthread_attr_setstacksize(&attr, STACK_BYTES) != 0 || pthread_setattr_default_np(&attr) != 0)
		r = CSM_ESYSTEM;
	pthread_attr_destroy(&attr);
#endif
	return r;
}

/* OpenSSL fails well without memory when it works, not when it sets itself up: there it follows null pointers. */
static void no_memory_in_start(void)
{
	log_err("the broker cannot start: %s", csm_err_text(CSM_ENOMEM));
	_exit(1);
}

static int init_process(void)
{
	sigset_t all;

	signal(SIGPIPE, SIG_IGN);
	/* The supervisor says when to stop; signals of the terminal go to it too. */
	sigemptyset(&all);
	sigaddset(&all, SIGINT);
	sigaddset(&all, SIGTERM);
	sigaddset(&all, SIGHUP);
	sigprocmask(SIG_BLOCK, &all, NULL);
	setenv("TSS2_LOG", "all+none", 1);
	if (sodium_init() < 0 || csm_lockheap_for_openssl(OPENSSL_HEAP_MAX) != 0)
		return CSM_EINTERNAL;
	csm_lockheap_openssl_without(no_memory_in_start);
	if (OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, NULL) != 1 || small_stacks() != 0 ||
		csm_cert_prepare() != 0)
		return CSM_EINTERNAL;
	return csm_lockmem_init(ARENA_BYTES);
}

/* ---- what the supervisor hands over ---- */

static void add_listener(struct main_state *m, const struct control_msg *msg)
{
	if (msg->len < 1 || m->n_acceptors == sizeof(m->acceptors) / sizeof(m->acceptors[0])) {
		close(msg->fd);
		return;
	}
	m->acceptors[m->n_acceptors].fd = msg->fd;
	m->acceptors[m->n_acceptors++].role = (enum csm_role)msg->body[0];
}

static int take_setup(struct main_state *m, struct control_msg *msg)
{
	struct csm_policy_error err = {0};
	struct broker *b = &m->b;
	int r = setup_from_memfd(msg->fd, &b->setup_mem, &b->setup);

	close(msg->fd);
	if (r != 0)
		return r;
	r = csm_config_parse((const char *)b->setup.config.p, b->setup.config.n, &b->cfg, &err);
	if (r != 0) {
		log_err("csmd.yaml: line %u, column %u: %s", err.line, err.column, err.message);
		return r;
	}
	csm_log_level(csm_log_parse_level(b->cfg.log_level));
	return 0;
}

/* Connections of a fixed role may come before there are loops: they wait in `early`. */
static int receive_setup(struct main_state *m, struct control_msg *early, size_t *n_early)
{
	struct control_msg msg;
	int r;

	while ((r = control_recv(CONTROL_FD, &msg)) == 0) {
		if (msg.type == CTL_START)
			return 0;
		if (msg.type == CTL_SETUP && msg.fd >= 0) {
			if ((r = take_setup(m, &msg)) != 0)
				return r;
		} else if (msg.type == CTL_LISTENER && msg.fd >= 0) {
			add_listener(m, &msg);
		} else if (msg.type == CTL_CONN && msg.fd >= 0 && *n_early < 8) {
			early[(*n_early)++] = msg;
		} else if (msg.fd >= 0) {
			close(msg.fd);
		}
	}
	return r;
}

/* ---- the store ---- */

static void store_failed(struct broker *b, int r, const char *why)
{
	char text[sizeof(b->store_why)];

	snprintf(text, sizeof(text), "the store is not open: %s (%s)", why[0] != '\0' ? why : "no reason known",
		csm_err_name(r));
	if (strcmp(text, b->store_why) != 0)
		log_warn("%s", text);
	memcpy(b->store_why, text, sizeof(text));
}

static char store_text[200];

/* The next broker opens what is there; clients that ask again, with their request's id, learn what became of it. */
static void store_lost(void)
{
	log_err("the disk failed while a change was made to count: the broker ends, so that the store is opened anew");
	_exit(1);
}

static int open_env(struct main_state *m)
{
	struct broker *b = &m->b;
	struct csm_store_options opt = {.dir = b->cfg.state_dir, .map_size = b->cfg.map_size,
		.epoch_interval_s = b->cfg.epoch_interval_s, .why = store_text, .why_len = sizeof(store_text),
		.lost = store_lost};

	int r = csm_store_env_open(&opt, &m->opening);

	b->env = m->opening;
	return r;
}

/* recovery NULL: the root key comes from its source. */
static int open_store(struct main_state *m, const struct csm_root_recovery *recovery)
{
	struct broker *b = &m->b;
	struct csm_root_source source;
	const char *why = "";
	int r;

	store_text[0] = '\0';
	r = m->root_open ? 0 : root_source(b, &source, &why);
	source.recovery = recovery;
	if (r == 0 && !m->root_open && (r = csm_store_root_open(m->opening, &source)) != 0)
		why = r == CSM_EINVALID && b->cfg.root_key != CSM_ROOT_TPM ?
			"the root key's file, passphrase or credential is not the one that it was made with" : store_text;
	m->root_open = r == 0;
	if (r == 0 && !m->audit_told)
		r = csm_store_tell(m->opening, b->audit);
	m->audit_told = r == 0;
	if (r == 0 && (r = csm_store_start(m->opening)) != 0)
		why = "its writer could not be started";
	if (r != 0) {
		store_failed(b, r, why);
		return r;
	}
	b->store = m->opening;
	b->epoch_ms = monotonic_ms();
	m->opening = NULL;
	/* What opened it is not needed any more. */
	if (b->setup.root_secret.p != NULL)
		sodium_memzero((uint8_t *)(uintptr_t)b->setup.root_secret.p, b->setup.root_secret.n);
	b->setup.root_secret = (struct csm_bin){NULL, 0};
	b->state = csm_store_locked(b->store) ? BROKER_LOCKED : BROKER_READY;
	if (b->state == BROKER_LOCKED)
		log_err("the store was changed behind csmd: see csm status, then csm store accept");
	else
		log_info("the store is open");
	return 0;
}

/* Try to have the store; again at each tick until it is there. This thread's stack is not locked: what the root key has
 * left on it goes at once. */
static void try_store(struct main_state *m)
{
	if (m->b.store != NULL || m->opening == NULL)
		return;
	(void)open_store(m, NULL);
	csm_wipe_stack(SIZE_MAX);
}

/* By recovery shares, where the root key's keeper does not have it any more. */
static void recover(struct main_state *m)
{
	struct restore *w = recovery_take(&m->b);
	int r = CSM_ESTATE;

	if (w == NULL)
		return;
	if (m->b.store == NULL && m->opening != NULL && !m->root_open && (r = recovery_prepare(&m->b, m->opening, w)) == 0)
		r = open_store(m, &w->s->rec);
	if (r == 0)
		snprintf(w->object, sizeof(w->object), "root key, %s, %llu keys lost",
			w->changed ? "new TPM, its counter accepted" : "same TPM", (unsigned long long)w->lost);
	recovery_done(&m->b, w, r);
	csm_wipe_stack(SIZE_MAX);
}

void broker_unlock(struct broker *b)
{
	enum broker_state locked = BROKER_LOCKED;

	if (atomic_compare_exchange_strong(&b->state, &locked, BROKER_READY))
		log_warn("the store was accepted as it is");
}

/* ---- once a second ---- */

static void fold_done(struct csm_store_op *op)
{
	counts_folded(op->arg, op->r == 0);
}

static void fold_counts(struct main_state *m)
{
	const struct csm_count *counts;
	size_t n;

	if (m->b.store == NULL || !counts_fold(&m->b.counts, &counts, &n))
		return;
	m->fold = (struct csm_store_op){
		.kind = CSM_OP_COUNTS, .counts = counts, .n_counts = n, .done = fold_done, .arg = &m->b.counts};
	if (csm_store_submit(m->b.store, &m->fold) != 0)
		counts_folded(&m->b.counts, false);
}

static void anchored(struct csm_store_op *op)
{
	*(atomic_bool *)op->arg = false;
}

/* Lines that no change has committed since: the store shall name them, too. */
static void anchor_audit(struct main_state *m)
{
	if (m->b.store == NULL || m->anchoring || !csm_audit_behind(m->b.audit))
		return;
	m->anchoring = true;
	m->anchor = (struct csm_store_op){.kind = CSM_OP_ANCHOR, .done = anchored, .arg = &m->anchoring};
	if (csm_store_submit(m->b.store, &m->anchor) != 0)
		m->anchoring = false;
}

static void epoch_raised(struct csm_store_op *op)
{
	free(op);
}

/* At most once in an interval: the counter lives in memory that wears. The store raises it for deletions by itself. */
static void raise_epoch(struct broker *b)
{
	struct csm_store_op *op;

	if (!b->epoch_due || b->store == NULL || monotonic_ms() - b->epoch_ms < b->cfg.epoch_interval_s * 1000u)
		return;
	op = calloc(1, sizeof(*op));
	if (op == NULL)
		return;
	op->kind = CSM_OP_EPOCH;
	op->done = epoch_raised;
	if (csm_store_submit(b->store, op) != 0) {
		free(op);
		return;
	}
	b->epoch_due = false;
	b->epoch_ms = monotonic_ms();
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct main_state *m = arg;
	struct broker *b = &m->b;

	(void)fd;
	(void)what;
	host_tick(b);
	recover(m);
	try_store(m);
	raise_epoch(b);
	asks_tick(b->asks, monotonic_ms());
	enrol_tick(b->enrol);
	witness_tick(b);
	csm_keycache_sweep(&b->shared_keys, monotonic_ms(), CSM_KEY_IDLE_MS);
	for (size_t i = 0; i < m->n_acceptors; i++)
		acceptor_resume(&m->acceptors[i]);
	if (++m->ticks % FOLD_EVERY_S == 0) {
		fold_counts(m);
		anchor_audit(m);
	}
}

static void on_control(evutil_socket_t fd, short what, void *arg)
{
	struct main_state *m = arg;
	struct control_msg msg;
	int r = control_recv(fd, &msg);

	(void)what;
	if (r == CSM_ECLOSED || (r == 0 && msg.type == CTL_STOP)) {
		log_info("stopping");
		event_base_loopbreak(m->b.base);
	} else if (r == 0 && msg.type == CTL_RELOAD && msg.fd >= 0) {
		policy_reload(&m->b, msg.fd);
	} else if (r == 0 && msg.type == CTL_CONN && msg.fd >= 0 && msg.len == 1 + sizeof(struct plug_channel)) {
		plug_take(&m->b, &msg);
	} else if (r == 0 && msg.type == CTL_CONN && msg.fd >= 0 && msg.len >= 1) {
		accept_role(&m->b, msg.fd, (enum csm_role)msg.body[0]);
	} else if (r == 0 && msg.fd >= 0) {
		close(msg.fd);
	}
}

/* ---- start and stop ---- */

static int enter_sandbox(struct broker *b)
{
	struct csm_sandbox s = {.uid = (uid_t)-1, .gid = (gid_t)-1, .write_dir = b->cfg.state_dir,
		.read_dirs = {"/proc", NULL}, .required = b->cfg.require_sandbox};
	int r;

	if (b->setup.broker_uid != UINT32_MAX) {
		s.uid = b->setup.broker_uid;
		s.gid = b->setup.broker_gid;
	}
	r = csm_sandbox_enter(&s, &b->sandbox);
	for (size_t i = 0; i < b->sandbox.n; i++)
		log_debug("sandbox: %s", b->sandbox.note[i]);
	if (r != 0)
		log_err("the sandbox could not be entered: %s", csm_err_text(r));
	return r;
}

static int start_threads(struct main_state *m)
{
	struct broker *b = &m->b;
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	struct csm_workq_options workers = {.name = "worker",
		.threads = cores < 1 ? 1 : cores > WORKERS_MAX ? WORKERS_MAX : (unsigned)cores,
		.max = CSM_QUEUE_MAX,
		.max_per_user = CSM_QUEUE_PER_IDENTITY};
	unsigned loops = b->cfg.loops > 0 ? b->cfg.loops : cores < 1 ? 1 : (unsigned)cores;
	int r;

	if ((r = csm_workq_new(&workers, &b->workers)) != 0 || (r = csm_audit_start(b->audit)) != 0)
		return r;
	for (size_t i = 0; i < b->n_backends; i++)
		if ((r = csm_backend_start(&b->backends[i], CSM_QUEUE_MAX, CSM_QUEUE_PER_IDENTITY)) != 0)
			return r;
	if ((r = enrol_start(b->enrol)) != 0)
		return r;
	for (; b->n_loops < loops && b->n_loops < BROKER_LOOPS_MAX; b->n_loops++)
		if ((r = loop_new(b, b->n_loops, &b->loops[b->n_loops])) != 0)
			return r;
	for (unsigned i = 0; i < b->n_loops; i++)
		if ((r = loop_start(b->loops[i])) != 0)
			return r;
	return 0;
}

static int open_files(struct main_state *m)
{
	struct broker *b = &m->b;
	struct csm_policy_error err = {0};
	struct csm_audit_options audit = {.strict = b->cfg.audit_strict, .max_size = b->cfg.audit_max_size,
		.max_files = b->cfg.audit_max_files};
	char dir[512];
	int r;

	if ((r = policy_from_setup(&b->setup, &b->policy, &err)) != 0) {
		log_err("policy: line %u, column %u: %s", err.line, err.column, err.message);
		return r;
	}
	if ((r = open_env(m)) != 0) {
		log_err("the store cannot be opened: %s (%s)", store_text, csm_err_name(r));
		return r;
	}
	snprintf(dir, sizeof(dir), "%s/audit", b->cfg.state_dir);
	audit.dir = dir;
	if ((r = csm_audit_open(&audit, &b->audit)) != 0)
		log_err("the audit log cannot be opened");
	return r;
}

/* A connection may take two descriptors, its socket and its peer's pidfd: they are counted, so that the
 * administrator's share is there when it is needed. */
static void limit_files(struct broker *b)
{
	struct rlimit l;
	rlim_t room;

	if (getrlimit(RLIMIT_NOFILE, &l) != 0 || l.rlim_cur >= UINT_MAX)
		return;
	room = l.rlim_cur > CSM_FD_RESERVE ? l.rlim_cur - CSM_FD_RESERVE : 0;
	b->admit.files_max = (unsigned)room;
	if (room / 2 < b->cfg.connections)
		log_info("limits: connections is %u, but the limit of open files leaves room for %u, or up to %u of few "
			 "processes",
			b->cfg.connections, (unsigned)(room / 2), (unsigned)room);
}

int broker_init(struct broker *b, unsigned connections_max)
{
	b->started_ms = monotonic_ms();
	pthread_mutex_init(&b->reload_lock, NULL);
	admit_init(&b->admit, connections_max, b->cfg.connections_per_uid, CSM_CONNECTIONS_ADMIN);
	counts_init(&b->counts);
	making_init(&b->making);
	issuercerts_init(&b->issuercerts);
	b->asks = asks_new();
	b->deliver = deliver_new();
	if (changes_new(&b->changes) != 0 || enrol_new(b, &b->enrol) != 0)
		return CSM_ENOMEM;
	csm_keycache_init(&b->shared_keys, CSM_KEYS_PARSED_MAX);
	for (size_t i = 0; i < BROKER_BACKENDS_MAX; i++)
		csm_keycache_init(&b->owner_keys[i], CSM_KEYS_PARSED_MAX);
	return b->asks == NULL || b->deliver == NULL ? CSM_ENOMEM : 0;
}

/* Who uses something goes before it: loops and workers, the store, whose root key may need a back end, back ends. A
 * thread that has posted the last operation to a loop may still be about to wake it: so what remains of them goes last. */
void broker_free(struct broker *b)
{
	for (unsigned i = 0; i < b->n_loops; i++)
		loop_release(b->loops[i]);
	asks_free(b->asks);
	deliver_free(b->deliver);
	enrol_free(b->enrol);
	csm_workq_free(b->workers);
	csm_keycache_drop(&b->shared_keys, NULL);
	csm_audit_stop(b->audit); /* its last lines are signed by the store, and named by its last commit */
	witness_last(b);
	csm_store_stop(b->store);
	for (size_t i = 0; i < b->n_backends; i++) {
		csm_backend_stop(&b->backends[i]);
		csm_keycache_drop(&b->owner_keys[i], NULL);
		csm_backend_close(&b->backends[i]);
	}
	/* Back ends may have remembered something as they closed. */
	csm_store_close(b->store);
	csm_audit_close(b->audit);
	for (unsigned i = 0; i < b->n_loops; i++)
		loop_free(b->loops[i]);
	changes_free(b->changes);
	counts_free(&b->counts);
	issuercerts_free(&b->issuercerts);
	csm_policy_unref(b->policy);
	csm_config_clear(&b->cfg);
}

static int start(struct main_state *m)
{
	struct timeval second = {TICK_S, 0};
	struct broker *b = &m->b;
	int r;

	if (csm_identity_degraded(&b->degraded))
		log_warn("identity is degraded: %s", b->degraded);
	if ((r = host_load_backends(b)) != 0 || (r = enter_sandbox(b)) != 0)
		return r;
	if ((r = broker_init(b, b->cfg.connections)) != 0)
		return r;
	limit_files(b);
	if ((r = open_files(m)) != 0 || (r = host_open_backends(b, m->opening)) != 0 || (r = start_threads(m)) != 0)
		return r;
	try_store(m);
	b->base = event_base_new();
	if (b->base == NULL)
		return CSM_ENOMEM;
	event_assign(&m->control_event, b->base, CONTROL_FD, EV_READ | EV_PERSIST, on_control, m);
	event_assign(&m->tick_event, b->base, -1, EV_PERSIST, on_tick, m);
	if (event_add(&m->control_event, NULL) != 0 || event_add(&m->tick_event, &second) != 0)
		return CSM_ESYSTEM;
	for (size_t i = 0; i < m->n_acceptors; i++)
		acceptor_start(&m->acceptors[i], b);
	return 0;
}

static void stop(struct main_state *m)
{
	struct broker *b = &m->b;

	b->state = BROKER_STOPPING;
	policy_reload_stop(b);
	recovery_stop(b);
	for (size_t i = 0; i < m->n_acceptors; i++)
		acceptor_stop(&m->acceptors[i]);
	asks_stop(b->asks);
	enrol_stop(b->enrol);
	for (unsigned i = 0; i < b->n_loops; i++)
		loop_stop(b->loops[i]);
	for (unsigned i = 0; i < b->n_loops; i++)
		loop_join(b->loops[i]);
	/* Nothing is counted any more: every operation ended on its loop. */
	fold_counts(m);
	if (b->store == NULL)
		b->store = m->opening;
	broker_free(b);
	setup_clear(&b->setup);
	csm_buf_free(&b->setup_mem);
	event_base_free(b->base);
}

int broker_main(void)
{
	static struct main_state m;
	struct control_msg early[8];
	size_t n_early = 0;
	int r;

	if ((r = init_process()) != 0 || (r = receive_setup(&m, early, &n_early)) != 0 || (r = start(&m)) != 0) {
		log_err("the broker cannot start: %s", csm_err_text(r));
		_exit(1); /* there may be threads by now */
	}
	csm_lockheap_openssl_without(NULL);
	for (size_t i = 0; i < n_early; i++)
		if (early[i].len > 1)
			close(early[i].fd); /* none comes before CTL_START */
		else
			accept_role(&m.b, early[i].fd, (enum csm_role)early[i].body[0]);
	if (control_send(CONTROL_FD, CTL_READY, NULL, 0, -1) != 0)
		_exit(1);
	event_base_dispatch(m.b.base);
	stop(&m);
	return 0;
}
