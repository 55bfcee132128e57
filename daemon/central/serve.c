#include "daemon/central/serve.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <malloc.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon/central/ca.h"
#include "daemon/central/central.h"
#include "daemon/central/doors.h"
#include "daemon/central/external.h"
#include "daemon/central/pub.h"
#include "daemon/svc/lockheap.h"
#include "daemon/svc/log.h"
#include "daemon/svc/notify.h"
#include "daemon/svc/thread.h"
#include "libclient/base/lockmem.h"
#include "proto-spec/limits.h"

#define ARENA (1024u * 1024u)
#define OPENSSL_HEAP_MAX (512u * 1024u * 1024u)
#define MALLOC_LARGE (128 * 1024)
#define MALLOC_SPARE (256 * 1024)
#define MALLOC_ARENAS 4
#define STOP_MS 10000u
#define FILES_WANTED 65536u
#define LOCK_WANTED (256u * 1024u * 1024u)

struct server {
	struct central c;
	struct central_config config;
	const char *path; /* of server.yaml */
	pthread_t keeper;
	bool keeping;
	atomic_bool stop;
	struct profiles **taken; /* by SIGHUP; the last one is in force */
	size_t n_taken;
};

/* ---- configuration ---- */

static int read_text(const char *path, char **ret, size_t *n)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *p = fd >= 0 ? malloc(CSM_CONFIG_MAX + 2) : NULL;
	ssize_t got = 0;

	*n = 0;
	while (p != NULL && *n <= CSM_CONFIG_MAX && (got = read(fd, p + *n, CSM_CONFIG_MAX + 1 - *n)) > 0)
		*n += (size_t)got;
	if (p == NULL || got < 0) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		free(p);
		p = NULL;
	}
	if (fd >= 0)
		close(fd);
	*ret = p;
	return p != NULL ? 0 : CSM_ESYSTEM;
}

static int read_config(const char *path, struct central_config *ret)
{
	struct csm_policy_error err = {0};
	char *text;
	size_t n;
	int r = read_text(path, &text, &n);

	if (r != 0)
		return r;
	r = central_config_parse(text, n, ret, &err);
	if (r == CSM_EINVALID)
		fprintf(stderr, "%s:%u:%u: %s\n", path, err.line, err.column, err.message);
	else if (r != 0)
		fprintf(stderr, "%s: %s\n", path, csm_err_text(r));
	free(text);
	return r;
}

/* Before the sandbox is closed. */
static int read_chains(struct central_config *c)
{
	const struct issuer_config *issuer;
	int r = 0;

	for (size_t i = 0; r == 0 && (issuer = profiles_issuer_at(c->profiles, i)) != NULL; i++) {
		char *text;
		size_t n;

		if (issuer->external == NULL)
			continue;
		if ((r = read_text(issuer->chain_file, &text, &n)) != 0)
			return r;
		if ((r = profiles_set_chain(c->profiles, issuer, (struct csm_bin){(const uint8_t *)text, n})) != 0)
			fprintf(stderr, "%s: no certificates in PEM\n", issuer->chain_file);
		free(text);
	}
	return r;
}

int central_serve_check(const char *config)
{
	struct central_config c;

	if (read_config(config, &c) != 0)
		return 1;
	if (read_chains(&c) != 0) {
		central_config_clear(&c);
		return 1;
	}
	central_config_clear(&c);
	printf("%s: ok\n", config);
	return 0;
}

static unsigned per_caller(const struct central_config *c)
{
	return c->requests_per_caller != 0 ? c->requests_per_caller : CSM_HTTP_REQUESTS_PER_CALLER;
}

/* The old ones stay with us: requests that are under way use them. */
static int take_profiles(struct server *s, struct central_config *c)
{
	struct profiles **all = reallocarray(s->taken, s->n_taken + 1, sizeof(struct profiles *));
	int r;

	if (all == NULL)
		return CSM_ENOMEM;
	s->taken = all;
	/* files are out of reach by now */
	if ((r = profiles_take_chains(c->profiles, ca_profiles(s->c.ca))) != 0 || (r = ca_set_profiles(s->c.ca, c->profiles)) != 0)
		return r;
	s->taken[s->n_taken++] = c->profiles;
	c->profiles = NULL;
	return 0;
}

/* Whole or not at all. What the doors and folders are made of holds from the next start; it is read, so that a fault is told before. */
static void reload(struct server *s)
{
	struct central_config c;
	int r;

	if (read_config(s->path, &c) != 0) {
		log_err("%s is not taken: the one before stays in force", s->path);
		return;
	}
	if (!__atomic_load_n(&s->c.ready, __ATOMIC_ACQUIRE)) {
		log_err("%s is not taken: csm-server is still starting; the one before stays in force", s->path);
	} else if ((r = take_profiles(s, &c)) != 0) {
		log_err("%s is not taken: %s; the one before stays in force", s->path,
			r == CSM_EINVALID ? "an issuer's scheme is none of its key's" :
			r == CSM_ENOT_FOUND ? "the chain of a new external issuer is read at the next start" : csm_err_text(r));
	} else {
		csm_log_level(csm_log_parse_level(c.log_level));
		csm_rates_set(s->c.caller_rates, per_caller(&c), 2 * per_caller(&c));
		log_info("%s was read: issuers, profiles, log_level and limits.requests_per_caller are as it says; what else has changed holds "
			"from the next start", s->path);
	}
	central_config_clear(&c);
}

/* ---- what others have to do with it ---- */

static uint64_t now(void)
{
	return (uint64_t)time(NULL);
}

static void on_libevent(int severity, const char *msg)
{
	csm_log(severity >= EVENT_LOG_ERR ? LOG_ERR : severity == EVENT_LOG_WARN ? LOG_WARNING : LOG_DEBUG, "libevent: %s", msg);
}

static void raise_limit(int which, rlim_t wanted)
{
	struct rlimit l;

	if (getrlimit(which, &l) != 0 || l.rlim_cur >= wanted)
		return;
	l.rlim_cur = wanted;
	l.rlim_max = l.rlim_max < wanted ? wanted : l.rlim_max;
	if (setrlimit(which, &l) != 0 && getrlimit(which, &l) == 0) {
		l.rlim_cur = l.rlim_max;
		if (setrlimit(which, &l) != 0)
			log_warn("a limit of resources stays as it is: %d", which);
	}
}

/* Before OpenSSL has allocated anything. */
static int prepare_memory(void)
{
	int r;

	/* Lists and pages of the inventory are large, come at any time in any thread, and are given back to the system when they go. Another
	 * malloc (a sanitizer's) has no such options, and is no reason not to start. */
	(void)mallopt(M_MMAP_THRESHOLD, MALLOC_LARGE);
	(void)mallopt(M_TRIM_THRESHOLD, MALLOC_SPARE);
	(void)mallopt(M_ARENA_MAX, MALLOC_ARENAS);
	raise_limit(RLIMIT_MEMLOCK, LOCK_WANTED);
	if (sodium_init() < 0)
		return CSM_ESYSTEM;
	if ((r = csm_lockmem_init(ARENA)) != 0 || (r = csm_lockheap_for_openssl(OPENSSL_HEAP_MAX)) != 0)
		return r;
	/* Whatever it reads from files is read now. */
	return OPENSSL_init_ssl(OPENSSL_INIT_LOAD_CONFIG, NULL) == 1 ? 0 : CSM_ESYSTEM;
}

static void prepare_files(struct central_config *c)
{
	struct rlimit files;

	raise_limit(RLIMIT_NOFILE, FILES_WANTED);
	if (c->connections == 0)
		c->connections = CSM_HTTP_CONNECTIONS_MAX;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < c->connections + CSM_FD_RESERVE + CSM_HTTP_CONNECTIONS_LOCAL) {
		c->connections = files.rlim_cur > 2 * CSM_FD_RESERVE ? (unsigned)files.rlim_cur - CSM_FD_RESERVE - 32 : CSM_FD_RESERVE;
		log_warn("no more than %u connections, for want of descriptors", c->connections);
	}
	event_set_log_callback(on_libevent);
}

/* ---- the thread that looks after everything else ---- */

static int open_db(struct server *s)
{
	CSM_WIPED(key, DB_KEY_LEN);
	char why[200] = "";
	struct db_options opt = {.dir = s->config.state_dir, .map_size = (size_t)s->config.map_size, .key = key, .why = why,
		.why_len = sizeof(why)};
	int r = db_key_load(s->c.csm, opt.dir, key);

	if (r == CSM_ENOT_FOUND)
		log_err("there is a database in %s, but not the key for it", opt.dir);
	if (r != 0)
		return r;
	r = db_open(&opt, &s->c.db);
	if (r != 0)
		log_err("the database does not open: %s: %s", csm_err_text(r), why);
	return r;
}

/* csmd may come later than we do. */
static void set_up(struct server *s)
{
	if (s->c.db == NULL && open_db(s) != 0)
		return;
	if (s->c.ca == NULL && ca_new(&s->c, s->config.profiles, &s->c.ca) != 0)
		return;
	if (s->c.external == NULL && external_new(&s->c, &s->c.external) != 0)
		return;
	if ((s->c.pub == NULL && pub_new(&s->c, &s->c.pub) != 0) || pub_start(s->c.pub) != 0)
		return;
	__atomic_store_n(&s->c.ready, true, __ATOMIC_RELEASE);
	log_info("the database is open");
}

static const char *look(struct central *c)
{
	struct ca_issuer *i;

	if (csm_ping(c->csm) != 0)
		return "the csmd beside csm-server does not answer";
	if (!c->ready)
		return "the database is not open";
	if (ca_issuer_get(c->ca, CSM_STR(""), &i) != 0)
		return "the issuer has no certificate yet: csm ca init makes it";
	ca_issuer_unref(i);
	return NULL;
}

const char *central_not_ready(struct central *c)
{
	return __atomic_load_n(&c->not_ready, __ATOMIC_ACQUIRE);
}

/* Found out once a second, not for each who asks. */
static void tell_readiness(struct central *c)
{
	const char *why = look(c);

	if (why != NULL && why != c->not_ready)
		log_warn("not ready: %s", why);
	else if (why != c->not_ready)
		log_info("ready");
	__atomic_store_n(&c->not_ready, why, __ATOMIC_RELEASE);
}

static void *keep(void *arg)
{
	static const struct timespec pause = {0, 100000000};
	struct server *s = arg;

	pthread_setname_np(pthread_self(), "keeper");
	while (!atomic_load(&s->stop)) {
		if (!s->c.ready)
			set_up(s);
		if (s->c.ready && ca_load(s->c.ca) == 0)
			tls_tick(&s->c);
		tell_readiness(&s->c);
		for (int i = 0; i < 10 && !atomic_load(&s->stop) && !__atomic_exchange_n(&s->c.look_again, false, __ATOMIC_ACQ_REL); i++)
			nanosleep(&pause, NULL);
	}
	return NULL;
}

/* ---- start and stop ---- */

static int start_http(struct server *s, const struct doors *d)
{
	const struct central_config *c = &s->config;
	const struct csm_http_options opt = {.routes = central_routes(), .arg = &s->c, .done = central_done,
		.stranger = central_stranger, .workers = c->workers,
		.limits = {.connections = c->connections, .connections_per_address = c->connections_per_address,
			.new_per_address = c->new_per_address, .requests_per_address = c->requests_per_address},
		.tls_fd = d->tls, .plain_fd = d->plain, .local_fd = d->local};
	int r = csm_http_new(&opt, &s->c.http);

	return r != 0 ? r : csm_http_start(s->c.http);
}

static int make_parts(struct server *s)
{
	int r;

	if ((r = csm_rates_new(per_caller(&s->config), 2 * per_caller(&s->config), &s->c.caller_rates)) != 0 ||
		(r = csm_rates_new(CSM_HTTP_REFUSED_PER_ADDRESS, 20 * CSM_HTTP_REFUSED_PER_ADDRESS, &s->c.refused_rates)) != 0 ||
		(r = csm_rates_new(CSM_USAGE_PER_NODE, CSM_USAGE_PER_NODE_BURST, &s->c.use_of_node)) != 0 ||
		(r = csm_rates_new(CSM_USAGE_PER_KEY, CSM_USAGE_PER_KEY_BURST, &s->c.use_of_key)) != 0 ||
		(r = csm_rates_new(50, 500, &s->c.log_rates)) != 0 || (r = csm_new(&s->c.csm)) != 0 ||
		(r = csm_set_socket(s->c.csm, s->config.csmd_socket)) != 0)
		return r;
	csm_set_connections(s->c.csm, s->config.workers + 2);
	s->c.config = &s->config;
	s->c.not_ready = "csm-server is starting";
	s->c.now = now;
	return 0;
}

static void take_down(struct server *s)
{
	atomic_store(&s->stop, true);
	if (s->keeping)
		pthread_join(s->keeper, NULL);
	csm_http_free(s->c.http, STOP_MS);
	external_free(s->c.external);
	pub_free(s->c.pub);
	ca_free(s->c.ca);
	db_close(s->c.db);
	csm_free(s->c.csm);
	csm_rates_free(s->c.caller_rates);
	csm_rates_free(s->c.refused_rates);
	csm_rates_free(s->c.log_rates);
	csm_rates_free(s->c.use_of_node);
	csm_rates_free(s->c.use_of_key);
	for (size_t i = 0; i < s->n_taken; i++)
		profiles_free(s->taken[i]);
	free(s->taken);
	central_config_clear(&s->config);
}

static void await_end(struct server *s, const sigset_t *signals)
{
	for (;;) {
		int sig = sigwaitinfo(signals, NULL);

		if (sig == SIGHUP) {
			csm_notify_systemd("RELOADING=1");
			reload(s);
			csm_notify_systemd("READY=1");
		} else if (sig > 0) {
			log_info("stopping: %s", strsignal(sig));
			csm_notify_systemd("STOPPING=1");
			return;
		}
	}
}

static void block_signals(sigset_t *ret)
{
	sigemptyset(ret);
	sigaddset(ret, SIGTERM);
	sigaddset(ret, SIGINT);
	sigaddset(ret, SIGHUP);
	pthread_sigmask(SIG_BLOCK, ret, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static int start(struct server *s)
{
	struct doors doors;
	int r;

	prepare_files(&s->config);
	if ((r = doors_open(&s->config, &doors)) != 0)
		return r;
	if ((r = central_jail(&s->config, s->path, &s->c.admin_uid)) != 0 || (r = make_parts(s)) != 0) {
		doors_close(&doors);
		return r;
	}
	/* The server owns the sockets from here. */
	if ((r = start_http(s, &doors)) != 0)
		return r;
	r = csm_thread_start(&s->keeper, keep, s);
	s->keeping = r == 0;
	return r;
}

int central_serve(const char *config)
{
	struct server s = {.path = config};
	sigset_t signals;
	size_t taken;
	int r;

	if ((r = prepare_memory()) != 0) {
		log_err("csm-server does not start: %s", csm_err_text(r));
		return 1;
	}
	if (read_config(config, &s.config) != 0)
		return 1;
	if (read_chains(&s.config) != 0) {
		central_config_clear(&s.config);
		return 1;
	}
	csm_log_level(csm_log_parse_level(s.config.log_level));
	block_signals(&signals);
	r = start(&s);
	if (r == 0) {
		log_info("csm-server %s serves https on %s%s%s, administration on %s", CSM_VERSION, s.config.listen,
			s.config.plain.n > 0 ? ", http on " : "", s.config.public_listen, s.config.admin_socket);
		if (!csm_lockmem_locked() || !csm_lockheap_locked(&taken))
			log_warn("memory of keys is not locked: RLIMIT_MEMLOCK is small");
		csm_notify_systemd("READY=1");
		await_end(&s, &signals);
	} else {
		log_err("csm-server does not start: %s", csm_err_text(r));
	}
	take_down(&s);
	return r == 0 ? 0 : 1;
}
