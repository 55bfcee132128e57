#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "daemon/node/host.h"
#include "daemon/node/plug.h"
#include "daemon/svc/log.h"
#include "libclient/base/lockmem.h"

#define DEVICE_WAIT_MS 2000

static struct host_arg args[BROKER_BACKENDS_MAX];

static int ask(uint8_t what)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct pollfd p = {.fd = DEVICE_FD, .events = POLLIN};
	struct control_msg msg;
	bool answered;

	pthread_mutex_lock(&lock);
	/* An answer that came too late for its question is not the answer to this one. */
	while (poll(&p, 1, 0) == 1 && control_recv(DEVICE_FD, &msg) == 0)
		if (msg.fd >= 0)
			close(msg.fd);
	answered = control_send(DEVICE_FD, what, NULL, 0, -1) == 0 && poll(&p, 1, DEVICE_WAIT_MS) == 1 &&
		control_recv(DEVICE_FD, &msg) == 0;
	pthread_mutex_unlock(&lock);
	if (!answered) {
		errno = EIO;
		return -1;
	}
	if (msg.fd < 0)
		errno = msg.len > 0 && msg.body[0] != 0 ? msg.body[0] : ENODEV;
	return msg.fd;
}

int host_ask_device(void *arg)
{
	(void)arg;
	return ask(CTL_DEVICE);
}

/* A file as it is now; NULL where it cannot be read whole. Valid until the next one. */
static const char *file_text(struct host_arg *a, uint8_t what)
{
	int fd = ask(what);
	size_t n = 0;
	ssize_t got = 1;

	if (fd < 0 && a->text_errno != errno) /* it is asked for again each second */
		log_warn("%s cannot be read: %s", what == CTL_POLICY_KEY ? "tpm: policy_key" : "tpm: policy_file", strerror(errno));
	a->text_errno = fd < 0 ? errno : 0;
	while (fd >= 0 && got > 0 && n < sizeof(a->text)) {
		got = read(fd, a->text + n, sizeof(a->text) - n);
		n += got > 0 ? (size_t)got : 0;
	}
	if (fd >= 0)
		close(fd);
	if (fd < 0 || got < 0 || n == 0 || n == sizeof(a->text) || memchr(a->text, '\0', n) != NULL)
		return NULL;
	a->text[n] = '\0';
	return a->text;
}

static int remember(void *arg, const char *name, const uint8_t *p, size_t len)
{
	struct host_arg *a = arg;

	return csm_store_remember_now(a->pins, name, p, len);
}

static int recall(void *arg, const char *name, uint8_t *p, size_t *len)
{
	struct host_arg *a = arg;

	int r = csm_store_recall(a->pins, name, p, len);

	/* A record that was emptied is one that was given up. */
	return r == 0 && *len == 0 ? CSM_ENOT_FOUND : r;
}

/* What hangs on the root key; the store is not asked while the main thread still opens it. */
static int node_secret(void *arg, const char *name, uint8_t *p)
{
	struct host_arg *a = arg;
	enum broker_state state = a->b->state;

	if (state != BROKER_READY && state != BROKER_LOCKED)
		return CSM_EUNAVAILABLE;
	return csm_store_node_secret(a->pins, name, p);
}

static void log_line(void *arg, int level, const char *text)
{
	struct host_arg *a = arg;

	csm_log(level, "%s: %s", csm_backend_name(a->be), text);
	if (level <= LOG_WARNING)
		csm_backend_said(a->be, text);
}

const char *host_tpm_config(struct host_arg *a, const char *name)
{
	const struct csm_config *c = &a->b->cfg;
	bool socket = strncmp(a->device, "/dev/", 5) != 0;

	if (strcmp(name, "device") == 0)
		return a->device;
	if (strcmp(name, "kind") == 0)
		return strncmp(a->device, "tabrmd", 6) == 0 ? "manager" : socket ? "socket" : "device";
	if (strcmp(name, "shared") == 0)
		return strncmp(a->device, "/dev/tpmrm", 10) == 0 || strncmp(a->device, "tabrmd", 6) == 0 ? "true" : "false";
	if (strcmp(name, "owner_auth") == 0)
		return a->owner_auth;
	if (strcmp(name, "accept_foreign") == 0)
		return c->tpm_accept_foreign ? "true" : "false";
	if (strcmp(name, "bus_protection") == 0)
		return c->tpm_bus_protection;
	if (strcmp(name, "pcrs") == 0)
		return c->tpm_pcrs;
	if (strcmp(name, "signed_policy") == 0)
		return c->tpm_policy_key != NULL ? "true" : NULL;
	if (strcmp(name, "policy_ref") == 0)
		return c->tpm_policy_ref;
	if (strcmp(name, "policy_key") == 0 || strcmp(name, "policy_file") == 0)
		return file_text(a, name[7] == 'k' ? CTL_POLICY_KEY : CTL_POLICY_FILE);
	return NULL;
}

static const char *config_of(void *arg, const char *name)
{
	struct host_arg *a = arg;

	if (strcmp(a->be->plugin->name, "tpm2") == 0)
		return host_tpm_config(a, name);
	if (strcmp(a->be->plugin->name, "fake") == 0 && strcmp(name, "script") == 0)
		return a->b->cfg.fake_script;
	return NULL;
}

static bool enabled(const struct broker *b, const char *name)
{
	const char *list = b->cfg.backends, *at;
	size_t n = strlen(name);

	/* The scripted one is for tests: only where the configuration has a script. */
	if (strcmp(name, "fake") == 0)
		return b->cfg.fake_script != NULL;
	if (list == NULL)
		return true;
	for (at = strstr(list, name); at != NULL; at = strstr(at + 1, name))
		if ((at == list || at[-1] == ',') && (at[n] == '\0' || at[n] == ','))
			return true;
	return false;
}

static int take_owner_auth(struct broker *b, struct host_arg *a)
{
	size_t n = b->setup.owner_auth.n;

	if (b->setup.owner_auth.p == NULL || n == 0)
		return 0;
	a->owner_auth = csm_lock_alloc(n + 1);
	if (a->owner_auth == NULL)
		return CSM_ENOMEM;
	memcpy(a->owner_auth, b->setup.owner_auth.p, n);
	a->owner_auth[n] = '\0';
	return 0;
}

/* Those that have a process of their own. */
static void add_plughosts(struct broker *b)
{
	for (size_t i = 0; i < b->cfg.n_plughosts && b->n_backends < BROKER_BACKENDS_MAX; i++) {
		struct csm_backend *be = &b->backends[b->n_backends];
		struct host_arg *a = &args[b->n_backends++];

		a->b = b;
		a->be = be;
		snprintf(a->device, sizeof(a->device), "%.*s", (int)b->setup.device.n, b->setup.device.p);
		plug_init(a, (unsigned)i);
	}
}

int host_load_backends(struct broker *b)
{
	/* The TPM last: host_open_backends may find that the node has none. */
	static const char *const names[] = {"soft", "fake", "tpm2"};
	const char *why;
	char dir[512];
	int r;

	snprintf(dir, sizeof(dir), "%.*s", (int)b->setup.plugin_dir.n, b->setup.plugin_dir.p);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct csm_backend *be = &b->backends[b->n_backends];
		struct host_arg *a = &args[b->n_backends];

		if (i == 2) {
			add_plughosts(b);
			be = &b->backends[b->n_backends];
			a = &args[b->n_backends];
		}
		if (!enabled(b, names[i]))
			continue;
		if ((r = csm_backend_load_so(be, dir, names[i], &why)) != 0)
			log_warn("back end %s cannot be loaded: %s", names[i], why != NULL ? why : csm_err_text(r));
		/* What is there and could not be read now may be read by the next broker: none is to go on without it. */
		if (r == CSM_ESYSTEM)
			return r;
		if (r != 0)
			continue;
		a->b = b;
		a->be = be;
		snprintf(a->device, sizeof(a->device), "%.*s", (int)b->setup.device.n, b->setup.device.p);
		if (strcmp(names[i], "tpm2") == 0 && take_owner_auth(b, a) != 0)
			return CSM_ENOMEM;
		be->host = (struct csm_plugin_host){.arg = a, .device = host_ask_device, .remember = remember,
			.recall = recall, .log = log_line, .config = config_of, .node_secret = node_secret};
		b->n_backends++;
	}
	return 0;
}

/* A node that was set up with a TPM keeps preferring it, also while it is away. */
static bool has_tpm(const struct broker *b, struct csm_store *pins)
{
	uint8_t pin[256];
	size_t n = sizeof(pin);

	return b->setup.device.n > 0 || b->cfg.root_key == CSM_ROOT_TPM || csm_store_recall(pins, "tpm2.srk", pin, &n) == 0;
}

/* The strongest there is, or the one that the configuration names. */
static void choose_preferred(struct broker *b)
{
	static const char *const by_strength[] = {"tpm2", "soft"};
	const char *want = b->cfg.backend_default;
	struct csm_backend *be = NULL;

	if (strcmp(want, "auto") != 0)
		be = broker_backend(b, csm_str_of(want));
	for (size_t i = 0; strcmp(want, "auto") == 0 && be == NULL && i < 2; i++)
		be = broker_backend(b, csm_str_of(by_strength[i]));
	if (be != NULL)
		be->preferred = true;
	else
		log_warn("no back end is there that new keys could go to");
}

int host_open_backends(struct broker *b, struct csm_store *pins)
{
	struct csm_backend *last = b->n_backends > 0 ? &b->backends[b->n_backends - 1] : NULL;

	if (last != NULL && strcmp(last->plugin->name, "tpm2") == 0 && !has_tpm(b, pins)) {
		csm_backend_close(last);
		b->n_backends--;
	}
	for (size_t i = 0; i < b->n_backends; i++) {
		args[i].pins = pins;
		/* A process of its own is only about to start. */
		if (args[i].plug == NULL && csm_backend_open(&b->backends[i]) != 0)
			log_warn("back end %s is not there yet: %s", csm_backend_name(&b->backends[i]),
				csm_err_text(b->backends[i].last_open));
		/* host_tick tries again only those with a thread of their own. */
		if (b->backends[i].last_open == CSM_ENOMEM && !(b->backends[i].plugin->flags & CSM_PLUGIN_SERIAL))
			return CSM_ENOMEM;
	}
	choose_preferred(b);
	return 0;
}

static void look(struct csm_job *job)
{
	struct host_arg *a = (struct host_arg *)((char *)job - offsetof(struct host_arg, job));

	if (a->plug != NULL)
		plug_look(a);
	if (a->plug != NULL && a->be->ctx != NULL)
		csm_remote_look(a->be->ctx);
	if (a->be->ctx == NULL && csm_backend_open(a->be) == 0)
		log_info("back end %s is there", csm_backend_name(a->be));
	else
		csm_be_health_refresh(a->be);
	csm_be_storage_refresh(a->be);
	making_look(a->b, a->be);
	a->queued = false;
}

void host_look(struct host_arg *a)
{
	if (a->be->owner == NULL || atomic_exchange(&a->queued, true))
		return;
	a->job.run = look;
	a->job.user = UINT32_MAX;
	if (csm_workq_push(a->be->owner, &a->job) != 0)
		a->queued = false;
}

struct host_arg *host_arg_of(struct broker *b, unsigned plughost)
{
	for (size_t i = 0; i < b->n_backends; i++)
		if (args[i].plug != NULL && plug_number(args[i].plug) == plughost)
			return &args[i];
	return NULL;
}

void host_tick(struct broker *b)
{
	for (size_t i = 0; i < b->n_backends; i++)
		host_look(&args[i]);
}
