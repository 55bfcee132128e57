#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sodium.h>
#include "daemon/node/ask.h"
#include "daemon/node/deliver.h"
#include "daemon/node/enrol.h"
#include "daemon/node/keyimport.h"
#include "daemon/node/keyinfo.h"
#include "daemon/node/recovery.h"
#include "daemon/node/status.h"
#include "daemon/svc/lockheap.h"
#include "daemon/svc/log.h"
#include "libclient/base/lockmem.h"

const char *broker_state_name(const struct broker *b)
{
	enum broker_state state = b->state;

	switch (state) {
	case BROKER_READY:
		return "ready";
	case BROKER_LOCKED:
		return "locked";
	case BROKER_STARTING:
		return "starting";
	default:
		return "stopping";
	}
}

static void fill_tpm(const struct csm_plugin_health *h, bool totals, struct status_space *space)
{
	struct csm_msg_tpm_status *t = &space->tpm;

	t->device = csm_str_of(h->device);
	memcpy(space->manufacturer, h->manufacturer, sizeof(space->manufacturer) - 1);
	if (space->manufacturer[0] != '\0')
		t->manufacturer = csm_str_of(space->manufacturer);
	if (totals)
		t->commands = (struct csm_u64){h->commands, true};
	t->loaded.v = h->loaded;
	t->slots.v = h->slots;
	t->shared.v = h->shared;
	t->lockout.v = h->lockout;
	t->lockout_counter.v = h->lockout_counter;
	t->lockout_seconds.v = h->lockout_seconds;
	t->resets.v = h->resets;
}

static void fill_storage(struct csm_backend *be, struct status_space *space, size_t i)
{
	struct csm_msg_backend_status *s = &space->backends[i];
	struct csm_bin key;
	struct csm_str pem;
	uint8_t p[CSM_PLUGIN_STORAGE_MAX], name[CSM_TPM_NAME_LEN];

	key = (struct csm_bin){p, csm_be_storage_key(be, p)};
	if (key.n == 0 || keyimport_name(key, name) != 0 ||
		keyinfo_armour(CSM_PEM_STORAGE, key, space->storage_key[i], sizeof(space->storage_key[i]), &pem) != 0)
		return;
	s->storage_key = pem;
	sodium_bin2hex(space->storage_name[i], sizeof(space->storage_name[i]), name, sizeof(name));
	s->storage_name = csm_str_of(space->storage_name[i]);
}

static void fill_backend(struct csm_backend *be, bool totals, struct status_space *space, size_t i,
	struct csm_msg_status_res *ret)
{
	struct csm_msg_backend_status *s = &space->backends[i];
	struct csm_plugin_health *h = &space->health[i].h;

	csm_be_health(be, &space->health[i]);
	s->name = csm_str_of(csm_backend_name(be));
	s->state = be->ctx == NULL || !h->usable ? CSM_STR("unavailable") : h->lockout ? CSM_STR("lockout") : CSM_STR("ready");
	if (h->reason != NULL && (be->ctx == NULL || !h->usable))
		s->reason = csm_str_of(h->reason);
	s->preferred.v = be->preferred;
	s->algorithms.v = space->algs[i];
	for (unsigned a = 0; a < CSM_ALG__COUNT; a++)
		if (csm_backend_has(be, (enum csm_alg)a))
			space->algs[i][s->algorithms.n++] = csm_str_of(csm_alg_name((enum csm_alg)a));
	fill_storage(be, space, i);
	if (h->device != NULL) {
		fill_tpm(h, totals, space);
		ret->tpm = &space->tpm;
	}
}

static void fill_store(struct broker *b, bool totals, struct csm_pool *pool, struct status_space *space,
	struct csm_msg_status_res *ret)
{
	struct csm_store *store = b->store;
	struct csm_store_stat st;
	struct csm_strs *damaged = &space->store.damaged;

	ret->store = &space->store;
	space->store.state = store == NULL ? CSM_STR("unavailable") :
		csm_store_locked(store) ? CSM_STR("tampered") : CSM_STR("ready");
	if (store == NULL)
		return;
	csm_store_stat(store, &st);
	space->store.schema.v = st.schema;
	space->store.epoch.v = st.epoch;
	space->store.used.v = st.used;
	space->store.size.v = st.size;
	space->store.low_space.v = st.low_space;
	if (!totals)
		return;
	ret->keys = (struct csm_u64){st.keys, true};
	ret->domains = (struct csm_u64){st.domains, true};
	ret->secrets = (struct csm_u64){st.secrets, true};
	damaged->v = csm_pool_alloc(pool, (st.n_damaged + 1) * sizeof(*damaged->v));
	for (size_t i = 0; damaged->v != NULL && i < st.n_damaged && i < 64; i++)
		damaged->v[damaged->n++] = csm_str_of(st.damaged[i]);
}

/* VmLck of /proc/self/status, in bytes. */
static uint64_t locked_memory(void)
{
	uint64_t kib = 0;
	char line[128];
	FILE *f = fopen("/proc/self/status", "re");

	if (f == NULL)
		return 0;
	while (fgets(line, sizeof(line), f) != NULL)
		if (strncmp(line, "VmLck:", 6) == 0) {
			kib = strtoull(line + 6, NULL, 10);
			break;
		}
	fclose(f);
	return kib * 1024u;
}

static void warn(struct status_space *space, struct csm_strs *w, const char *text)
{
	if (w->n < sizeof(space->warnings) / sizeof(space->warnings[0])) {
		snprintf(space->text[w->n], sizeof(space->text[0]), "%s", text);
		space->warnings[w->n] = csm_str_of(space->text[w->n]);
		w->n++;
	}
}

static void audit_warnings(struct broker *b, struct status_space *space, struct csm_strs *w)
{
	struct csm_audit_status st;
	char text[256];

	csm_audit_status(b->audit, &st);
	if (st.failing) {
		snprintf(text, sizeof(text), "the audit log cannot be written (%s): %s", strerror(st.error),
			b->cfg.audit_strict ? "requests are refused" : "what happens is not in it");
		warn(space, w, text);
	}
	if (st.lost > 0) {
		snprintf(text, sizeof(text), "%llu events are not in the audit log", (unsigned long long)st.lost);
		warn(space, w, text);
	}
	if (st.broken)
		warn(space, w, "the audit log was changed behind csmd: see csm audit verify");
	if (st.gone_last != 0) {
		snprintf(text, sizeof(text), "audit.log was not there at the start: lines %llu to %llu of the audit log are gone",
			(unsigned long long)st.gone_first, (unsigned long long)st.gone_last);
		warn(space, w, text);
	}
}

/* Where the root key is, and what the administrator can do about it. */
static void root_key_state(struct broker *b, struct status_space *space, struct csm_msg_status_res *ret)
{
	struct csm_strs *w = &ret->warnings;
	struct csm_plugin_health *h = NULL;
	struct recovery_info info;
	char text[256];

	for (size_t i = 0; i < b->n_backends; i++)
		if (b->cfg.root_key == CSM_ROOT_TPM && strcmp(b->backends[i].plugin->name, "tpm2") == 0)
			h = &space->health[i].h;
	ret->root_key_state = b->store != NULL ? CSM_STR("open") : CSM_STR("unavailable");
	if (h == NULL)
		return;
	if (h->sealed != NULL)
		ret->root_key_sealed = csm_str_of(h->sealed);
	if (b->store != NULL) {
		if (h->seal_due)
			warn(space, w, "the root key is not sealed as the configuration has it: csm reseal");
		else if (b->cfg.tpm_policy_file != NULL && b->cfg.tpm_policy_key == NULL)
			warn(space, w, "tpm: policy_file without policy_key: the root key is under no signed policy");
	} else if (h->other_device) {
		ret->root_key_state = CSM_STR("lost");
		if (recovery_info(b->env, &info) == 0)
			snprintf(text, sizeof(text), "the TPM that has the root key was cleared, or another one is in its place: csm recovery "
				"restore brings the root key back by %u of the %u shares of set %02x%02x%02x%02x", info.threshold, info.count,
				info.set[0], info.set[1], info.set[2], info.set[3]);
		else
			snprintf(text, sizeof(text), "the TPM that has the root key was cleared, or another one is in its place, and there are "
				"no recovery shares: without that TPM what the store holds is lost");
		warn(space, w, text);
	} else if (h->seal_refused != NULL) {
		ret->root_key_state = CSM_STR("refused");
		snprintf(text, sizeof(text), "root key refused by its PCR policy: %.180s", h->seal_refused);
		warn(space, w, text);
	}
}

static void fill_warnings(struct broker *b, struct status_space *space, struct csm_msg_status_res *ret)
{
	struct csm_strs *w = &ret->warnings;
	size_t taken;

	w->v = space->warnings;
	if (b->cfg.root_key == CSM_ROOT_FILE)
		warn(space, w, "root key: unprotected, it lies in a file");
	if (!csm_lockmem_locked() || !csm_lockheap_locked(&taken))
		warn(space, w, "not all memory with secrets is locked: RLIMIT_MEMLOCK is too small");
	if (!b->sandbox.full)
		warn(space, w, "the sandbox is not complete, see sandbox");
	if (b->degraded != NULL)
		warn(space, w, b->degraded);
	for (size_t i = 0; i < b->n_backends; i++)
		if (b->backends[i].ctx == NULL || !space->health[i].h.usable) {
			char text[256];

			snprintf(text, sizeof(text), "back end %s is away: %s", csm_backend_name(&b->backends[i]),
				space->health[i].reason[0] != '\0' ? space->health[i].reason : "no reason known");
			warn(space, w, text);
		}
	audit_warnings(b, space, w);
	if (b->store == NULL && b->store_why[0] != '\0')
		warn(space, w, b->store_why);
	root_key_state(b, space, ret);
	if (space->store.low_space.v)
		warn(space, w, "low space in the store");
}

void status_fill(struct broker *b, bool totals, struct csm_pool *pool, struct status_space *space,
	struct csm_msg_status_res *ret)
{
	static const char *const root_names[] = {"tpm", "passphrase", "file", "credential"};

	ret->pid.v = (uint64_t)getpid();
	ret->supervisor_pid.v = b->setup.supervisor_pid;
	ret->version = CSM_STR(CSM_VERSION);
	ret->state = csm_str_of(broker_state_name(b));
	ret->uptime.v = (monotonic_ms() - b->started_ms) / 1000;
	ret->root_key = csm_str_of(b->cfg.root_key == CSM_ROOT_FILE ? "unprotected" : root_names[b->cfg.root_key]);
	ret->identity = csm_str_of(b->degraded != NULL ? "degraded" : "full");
	ret->sandbox.v = space->notes;
	for (size_t i = 0; i < b->sandbox.n; i++)
		space->notes[ret->sandbox.n++] = csm_str_of(b->sandbox.note[i]);
	for (size_t i = 0; i < b->n_backends; i++)
		fill_backend(&b->backends[i], totals, space, i, ret);
	ret->backends.v = space->backends;
	ret->backends.n = b->n_backends;
	fill_store(b, totals, pool, space, ret);
	if (totals) {
		ret->connections = (struct csm_u64){admit_total(&b->admit), true};
		ret->locked_memory = (struct csm_u64){locked_memory(), true};
	}
	fill_warnings(b, space, ret);
}

void status_ident(struct broker *b, bool totals, struct status_space *space, struct csm_msg_status_res *ret)
{
	struct csm_msg_ident_status *s = &space->ident;
	const struct asks *a = b->asks;

	if (!a->attached)
		warn(space, &ret->warnings, "csm-ident is away: rules that name an executable are refused");
	if (!totals)
		return;
	s->state = a->attached ? CSM_STR("running") : CSM_STR("away");
	s->asked.v = a->asked;
	s->refused.v = a->refused;
	s->hashed.v = a->hashed;
	s->cached.v = a->cached;
	s->last_us.v = a->last_us;
	ret->ident = s;
}

void status_deliver(struct broker *b, bool totals, struct csm_pool *pool, struct status_space *space,
	struct csm_msg_status_res *ret)
{
	char warning[256];

	if (!totals)
		return;
	enrol_status(b->enrol, pool, ret);
	if (!deliver_status(b->deliver, pool, ret, warning))
		log_warn("status: no memory for the targets of csm-deliver");
	if (warning[0] != '\0')
		warn(space, &ret->warnings, warning);
}

/* ---- metrics ---- */

struct metrics {
	struct csm_pool *pool;
	struct csm_msg_stats_res *res;
	size_t cap;
};

static void add(struct metrics *m, const char *name, const char *type, const char *help, uint64_t value,
	const char *label, const char *label_value, const char *label2, const char *label2_value)
{
	struct csm_msg_metric *e;
	char *labels;

	if (m->res->metrics.n == m->cap || (labels = csm_pool_alloc(m->pool, 160)) == NULL)
		return;
	e = &m->res->metrics.v[m->res->metrics.n++];
	e->name = csm_str_of(name);
	e->type = csm_str_of(type);
	e->help = csm_str_of(help);
	e->value.v = value;
	if (label == NULL)
		return;
	if (label2 == NULL)
		snprintf(labels, 160, "%s=\"%s\"", label, label_value);
	else
		snprintf(labels, 160, "%s=\"%s\",%s=\"%s\"", label, label_value, label2, label2_value);
	e->labels = csm_str_of(labels);
}

static void add_methods(struct broker *b, struct metrics *m, bool failed)
{
	for (size_t i = 0; i < CSM_M__COUNT; i++) {
		uint64_t n = 0;

		if (csm_methods[i].where == CSM_W_NONE)
			continue;
		for (unsigned l = 0; l < b->n_loops; l++)
			n += failed ? b->loops[l]->failed[i] : b->loops[l]->requests[i];
		if (failed)
			add(m, "csm_requests_failed_total", "counter", "Requests answered with an error", n, "method",
				csm_methods[i].name, NULL, NULL);
		else
			add(m, "csm_requests_total", "counter", "Requests by method", n, "method", csm_methods[i].name,
				NULL, NULL);
	}
}

static void add_backend(struct csm_backend *be, struct metrics *m)
{
	struct csm_backend_health health;
	struct csm_plugin_health *h = &health.h;

	csm_be_health(be, &health);
	add(m, "csm_backend_up", "gauge", "Whether the back end is usable", be->ctx != NULL && h->usable, "backend",
		csm_backend_name(be), NULL, NULL);
	if (be->owner != NULL)
		add(m, "csm_backend_queue", "gauge", "Operations waiting for the back end", csm_workq_depth(be->owner),
			"backend", csm_backend_name(be), NULL, NULL);
	if (h->device != NULL) {
		add(m, "csm_tpm_commands_total", "counter", "Commands sent to the TPM", h->commands, NULL, NULL, NULL, NULL);
		add(m, "csm_tpm_lockout", "gauge", "Whether the TPM is in dictionary attack lockout", h->lockout, NULL, NULL,
			NULL, NULL);
		add(m, "csm_tpm_resets_total", "counter", "TPM resets seen", h->resets, NULL, NULL, NULL, NULL);
	}
}

static void add_backend_calls(struct broker *b, struct metrics *m, int what)
{
	static const char *const names[] = {
		"csm_backend_calls_total", "csm_backend_failures_total", "csm_backend_microseconds_total"};
	static const char *const helps[] = {
		"Calls of a back end", "Calls of a back end that failed", "Time spent in calls of a back end"};

	for (size_t i = 0; i < b->n_backends; i++)
		for (unsigned c = 0; c < CSM_CALL__COUNT; c++) {
			struct csm_backend *be = &b->backends[i];
			uint64_t n = what == 0 ? be->calls[c] : what == 1 ? be->failures[c] : be->micros[c];

			add(m, names[what], "counter", helps[what], n, "backend", csm_backend_name(be), "call",
				csm_backend_call_name((enum csm_backend_call)c));
		}
}

static void add_store(struct csm_store *store, struct metrics *m)
{
	struct csm_store_stat st;

	if (store == NULL)
		return;
	csm_store_stat(store, &st);
	add(m, "csm_store_keys", "gauge", "Keys in the store", st.keys, NULL, NULL, NULL, NULL);
	add(m, "csm_store_domains", "gauge", "Secret domains in the store", st.domains, NULL, NULL, NULL, NULL);
	add(m, "csm_store_secrets", "gauge", "Secrets in the store", st.secrets, NULL, NULL, NULL, NULL);
	add(m, "csm_store_used_bytes", "gauge", "Bytes used of the store's map", st.used, NULL, NULL, NULL, NULL);
	add(m, "csm_store_size_bytes", "gauge", "Bytes of the store's map", st.size, NULL, NULL, NULL, NULL);
	add(m, "csm_store_commits_total", "counter", "Durable commits", st.commits, NULL, NULL, NULL, NULL);
	add(m, "csm_store_operations_total", "counter", "Operations in these commits", st.commit_ops, NULL, NULL, NULL,
		NULL);
}

static void add_audit(struct csm_audit *audit, struct metrics *m)
{
	struct csm_audit_status st;

	csm_audit_status(audit, &st);
	add(m, "csm_audit_lines_total", "counter", "Lines written to the audit log", st.lines, NULL, NULL, NULL, NULL);
	add(m, "csm_audit_failing", "gauge", "Whether the audit log cannot be written", st.failing, NULL, NULL, NULL, NULL);
	add(m, "csm_audit_lost_events", "gauge", "Events that the audit log does not tell of yet", st.lost, NULL, NULL, NULL,
		NULL);
}

static void add_ident(const struct asks *a, struct metrics *m)
{
	add(m, "csm_ident_up", "gauge", "Whether csm-ident is connected", a->attached, NULL, NULL, NULL, NULL);
	add(m, "csm_ident_looks_total", "counter", "Programs looked at", a->asked, NULL, NULL, NULL, NULL);
	add(m, "csm_ident_refused_total", "counter", "Programs that could not be told", a->refused, NULL, NULL, NULL, NULL);
	add(m, "csm_ident_hashed_total", "counter", "Digests of programs computed", a->hashed, NULL, NULL, NULL, NULL);
	add(m, "csm_ident_cached_total", "counter", "Digests of programs known from before", a->cached, NULL, NULL, NULL,
		NULL);
}

int stats_fill(struct broker *b, bool totals, struct csm_pool *pool, struct csm_msg_stats_res *ret)
{
	struct metrics m = {.pool = pool, .res = ret, .cap = 512};
	uint64_t bad = 0;

	ret->metrics.v = csm_pool_alloc(pool, m.cap * sizeof(*ret->metrics.v));
	if (ret->metrics.v == NULL)
		return CSM_ENOMEM;
	add(&m, "csm_up", "gauge", "1 when the daemon serves all methods", b->state == BROKER_READY, NULL, NULL, NULL, NULL);
	if (!totals)
		return 0;
	add(&m, "csm_uptime_seconds", "gauge", "Seconds since the broker was started", (monotonic_ms() - b->started_ms) / 1000,
		NULL, NULL, NULL, NULL);
	add(&m, "csm_connections", "gauge", "Open connections", admit_total(&b->admit), NULL, NULL, NULL, NULL);
	for (unsigned l = 0; l < b->n_loops; l++)
		bad += b->loops[l]->protocol_errors;
	add(&m, "csm_protocol_errors_total", "counter", "Messages that broke the framing", bad, NULL, NULL, NULL, NULL);
	add_methods(b, &m, false);
	add_methods(b, &m, true);
	for (size_t i = 0; i < b->n_backends; i++)
		add_backend(&b->backends[i], &m);
	for (int what = 0; what < 3; what++)
		add_backend_calls(b, &m, what);
	add_store(b->store, &m);
	add_audit(b->audit, &m);
	add_ident(b->asks, &m);
	return 0;
}
