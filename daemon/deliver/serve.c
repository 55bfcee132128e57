#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "daemon/deliver/hook.h"
#include "daemon/deliver/jail.h"
#include "daemon/deliver/put.h"
#include "daemon/deliver/serve.h"
#include "daemon/svc/log.h"
#include "libclient/wire/frame.h"

#define RECV_CHUNK (16u * 1024u)
#define POOL_MAX (512u * 1024u)
#define WAIT_MS 30000u
#define SLACK_MS 10000u      /* above what csmd was asked to answer within */
#define RETRY_FIRST_S 10u
#define RETRY_MAX_S 3600u

struct standing {
	struct delivery_stamp stamp;
	char failed[65]; /* the fingerprint that failed; "": none did */
	char error[CSM_TOKEN_STR_MAX + 1], why[DELIVERY_WHY];
	unsigned tries;
	uint64_t next_try; /* CLOCK_REALTIME, for people */
	int64_t next_ms;   /* CLOCK_BOOTTIME */
	dev_t dev;         /* the folder around it, at the start */
	ino_t ino;
};

/* A target whose hook runs. */
struct lane {
	bool busy, back; /* back: the hook of what was there before */
	size_t target;
	uint64_t job;
	struct csm_gen *g;
	char fingerprint[65];
	int r; /* of the delivery */
	char why[DELIVERY_WHY];
	const char *outcome;
};

struct talk {
	struct delivery_server *s;
	struct csm_buf in, out;
	size_t used; /* of in, by the answer that was given out */
	uint32_t msgid;
	struct standing at[CSM_DELIVER_TARGETS_MAX];
	struct lane lane[DELIVERY_LANES];
	struct csm_pool pool;
};

static int64_t boot_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- one request ---- */

static int send_all(struct talk *k)
{
	while (k->out.len > 0) {
		ssize_t n = send(k->s->sock, csm_buf_ptr(&k->out), k->out.len, MSG_NOSIGNAL);

		if (n < 0 && errno != EINTR)
			return CSM_ECLOSED;
		if (n > 0)
			csm_buf_consume(&k->out, (size_t)n);
	}
	return 0;
}

static int receive(struct talk *k)
{
	uint8_t *to;
	ssize_t n;
	int r = csm_buf_reserve(&k->in, RECV_CHUNK, &to);

	if (r != 0)
		return r;
	n = recv(k->s->sock, to, RECV_CHUNK, MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : CSM_ECLOSED;
	if (n == 0)
		return CSM_ECLOSED;
	csm_buf_commit(&k->in, (size_t)n);
	return 0;
}

/* SIGTERM, or SIGHUP with another configuration that has no fault: CSM_ESHUTDOWN. */
static int take_signals(struct talk *k)
{
	struct delivery_server *s = k->s;
	struct signalfd_siginfo info;
	char why[DELIVERY_WHY];

	if (read(s->signals, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return 0;
	if (info.ssi_signo == SIGTERM)
		return CSM_ESHUTDOWN;
	if (delivery_hooks_run(s->hooks, 0, DELIVERY_CHECK, why) == 0)
		return CSM_ESHUTDOWN;
	log_err("deliver.yaml: %s", why);
	snprintf(s->config_error, sizeof(s->config_error), "%s", why);
	return 0;
}

static struct lane *free_lane(struct talk *k)
{
	for (size_t i = 0; i < DELIVERY_LANES; i++)
		if (!k->lane[i].busy)
			return &k->lane[i];
	return NULL;
}

static int lane_ended(struct talk *k, struct lane *l);

/* Something from csmd, a signal, the end of a hook, or the time is over. */
static int turn(struct talk *k, int64_t wait)
{
	struct pollfd p[2 + DELIVERY_LANES] = {
		{.fd = k->s->sock, .events = POLLIN}, {.fd = k->s->signals, .events = POLLIN}};
	int r = 0;

	for (size_t i = 0; i < DELIVERY_LANES; i++)
		p[2 + i] = (struct pollfd){.fd = k->lane[i].busy ? k->s->lane[i] : -1, .events = POLLIN};
	if (poll(p, 2 + DELIVERY_LANES, (int)wait) < 0)
		return errno == EINTR ? 0 : CSM_ESYSTEM;
	for (size_t i = 0; i < DELIVERY_LANES && r == 0; i++)
		if (k->lane[i].busy && p[2 + i].revents != 0)
			r = lane_ended(k, &k->lane[i]);
	if (r == 0 && (p[1].revents & POLLIN) != 0)
		r = take_signals(k);
	return r == 0 && p[0].revents != 0 ? receive(k) : r;
}

/* The answer to this request; those to others, of deliver.done, say nothing. */
static int await(struct talk *k, uint32_t id, unsigned timeout_ms, struct csm_frame *f)
{
	int64_t until = boot_ms() + timeout_ms;
	size_t n;
	int r = 0;

	while (r == 0) {
		int64_t left = until - boot_ms();

		r = csm_scan(k->in.len > 0 ? csm_buf_ptr(&k->in) : (const uint8_t *)"", k->in.len, &n);
		if (r == CSM_EBUSY) {
			r = left > 0 ? turn(k, left) : CSM_ETIMEOUT;
			continue;
		}
		if (r != 0 || (r = csm_frame_parse(csm_buf_ptr(&k->in), n, f)) != 0)
			return r;
		if (f->type != CSM_RESPONSE)
			return CSM_EPROTOCOL;
		if (f->msgid == id) {
			k->used = n;
			return 0;
		}
		csm_buf_consume(&k->in, n);
	}
	return r;
}

static int ask(struct talk *k, const char *method, const struct csm_msgdef *def, const void *params)
{
	int r = csm_frame_request(&k->out, ++k->msgid, method, def, params);

	return r != 0 ? r : send_all(k);
}

/* ---- how the targets stand ---- */

static const struct lane *lane_of(const struct talk *k, size_t target)
{
	for (size_t i = 0; i < DELIVERY_LANES; i++)
		if (k->lane[i].busy && k->lane[i].target == target)
			return &k->lane[i];
	return NULL;
}

/* Whoever removes or replaces the folder has it made anew; a failure is not tried again before its time. */
static void look_again(struct talk *k, size_t i)
{
	const struct delivery_target *t = &k->s->config->target[i];
	struct standing *at = &k->at[i];

	if (lane_of(k, i) == NULL && (at->failed[0] == '\0' || boot_ms() >= at->next_ms))
		delivery_stamp_read(k->s->state, t, &at->stamp);
}

static void tell(struct talk *k, size_t i, struct csm_msg_delivery *m)
{
	const struct delivery_target *t = &k->s->config->target[i];
	const struct standing *at = &k->at[i];
	bool failed = at->failed[0] != '\0', later = failed && boot_ms() < at->next_ms;
	const struct lane *l = lane_of(k, i);

	*m = (struct csm_msg_delivery){.name = csm_str_of(t->name), .key = csm_str_of(t->key),
		.state = failed ? CSM_STR("failed") : at->stamp.fingerprint[0] != '\0' ? CSM_STR("delivered") : CSM_STR("waiting"),
		.delivered = {at->stamp.delivered, at->stamp.delivered != 0}};
	if (later || at->stamp.fingerprint[0] != '\0')
		m->fingerprint = csm_str_of(later ? at->failed : at->stamp.fingerprint);
	if (failed) {
		m->error = csm_str_of(at->error);
		m->why = csm_str_of(at->why);
		m->next_try = (struct csm_u64){at->next_try, true};
	}
	if (l != NULL) { /* it is on its way: not due, and not there */
		m->fingerprint = csm_str_of(l->fingerprint);
		m->state = CSM_STR("delivering");
	}
}

static unsigned wait_ms(const struct talk *k)
{
	int64_t wait = WAIT_MS, now = boot_ms();

	for (size_t i = 0; i < k->s->config->n; i++)
		if (k->at[i].failed[0] != '\0' && lane_of(k, i) == NULL && k->at[i].next_ms - now < wait)
			wait = k->at[i].next_ms > now ? k->at[i].next_ms - now : 0;
	return (unsigned)wait;
}

static void note_failure(struct standing *at, struct csm_str fingerprint, int r, const char *why)
{
	unsigned most, after;

	if (!csm_str_eq(fingerprint, at->failed))
		at->tries = 0;
	most = at->tries < 9 ? RETRY_FIRST_S << at->tries : RETRY_MAX_S;
	most = most > RETRY_MAX_S ? RETRY_MAX_S : most;
	after = most / 2 + randombytes_uniform(most / 2 + 1);
	at->tries++;
	snprintf(at->failed, sizeof(at->failed), "%.*s", (int)fingerprint.n, fingerprint.p);
	snprintf(at->error, sizeof(at->error), "%s", csm_err_name(r));
	snprintf(at->why, sizeof(at->why), "%s", why);
	at->next_ms = boot_ms() + (int64_t)after * 1000;
	at->next_try = (uint64_t)time(NULL) + after;
}

/* ---- a job ---- */

/* Its end: noted, and told. */
static int lane_done(struct talk *k, struct lane *l)
{
	const struct delivery_target *t = &k->s->config->target[l->target];
	struct csm_msg_deliver_done_req done = {.job = {l->job, true}, .outcome = csm_str_of(l->outcome)};
	struct standing *at = &k->at[l->target];

	csm_gen_close(l->g);
	l->g = NULL;
	l->busy = false;
	if (l->r != 0) {
		note_failure(at, csm_str_of(l->fingerprint), l->r, l->why);
		done.error = csm_str_of(at->error);
		done.why = csm_str_of(at->why);
	} else {
		at->failed[0] = at->error[0] = at->why[0] = '\0';
		at->tries = 0;
		snprintf(at->stamp.fingerprint, sizeof(at->stamp.fingerprint), "%s", l->fingerprint);
		at->stamp.delivered = (uint64_t)time(NULL);
		if (delivery_stamp_write(k->s->state, t, &at->stamp) != 0)
			log_warn("%s: what was delivered could not be noted: it is done again", t->name);
	}
	return ask(k, "deliver.done", CSM_DEF(deliver_done_req), &done);
}

static int lane_ended(struct talk *k, struct lane *l)
{
	const struct delivery_target *t = &k->s->config->target[l->target];
	char text[DELIVERY_WHY] = "";
	int sock = k->s->lane[l - k->lane], r;

	if (!l->back) {
		l->r = delivery_hooks_answer(sock, l->why);
		/* Who has loaded the new one before it failed is to have the old one, too. */
		l->back = delivery_put_hooked(t, l->g, l->r, l->why, &l->outcome);
		if (l->back && delivery_hooks_ask(sock, l->target, DELIVERY_BACK, text) == 0)
			return 0;
	} else if (delivery_hooks_answer(sock, text) != 0) {
		log_warn("%s: rolled back, but %s", t->name, text);
	}
	r = lane_done(k, l);
	/* without its process of hooks a lane is nothing: all begins anew */
	return r == 0 && l->r == CSM_ECLOSED ? CSM_ECLOSED : r;
}

static int take_job(struct talk *k, const struct csm_msg_deliver_job *job)
{
	struct lane *l = free_lane(k);
	size_t i = 0;

	while (i < k->s->config->n && !csm_str_eq(job->target, k->s->config->target[i].name))
		i++;
	if (i == k->s->config->n || job->certificate == NULL || l == NULL || lane_of(k, i) != NULL)
		return CSM_EPROTOCOL;
	*l = (struct lane){.busy = true, .target = i, .job = job->id.v, .outcome = "refused"};
	snprintf(l->fingerprint, sizeof(l->fingerprint), "%.*s", (int)job->certificate->fingerprint.n, job->certificate->fingerprint.p);
	l->r = delivery_put_begin(&k->s->config->target[i], job->certificate, job->spki, &l->g, l->why);
	if (l->r == 0 && (l->r = delivery_hooks_ask(k->s->lane[l - k->lane], i, DELIVERY_NEW, l->why)) == 0)
		return 0;
	return lane_done(k, l);
}

/* Until one is free; all: until all are. */
static int await_lane(struct talk *k, bool all)
{
	int r = 0;

	for (size_t i = 0; i < DELIVERY_LANES && all; i++)
		while (r == 0 && k->lane[i].busy)
			r = lane_ended(k, &k->lane[i]);
	while (r == 0 && free_lane(k) == NULL)
		r = turn(k, WAIT_MS);
	return r;
}

static int next(struct talk *k)
{
	struct csm_msg_delivery targets[CSM_DELIVER_TARGETS_MAX];
	struct csm_msg_deliver_next_req req = {.targets = {.v = targets, .n = k->s->config->n}, .wait_ms = {wait_ms(k), true}};
	struct csm_msg_deliver_job job;
	struct csm_frame f;
	struct csm_str bad;
	uint32_t id = k->msgid + 1;
	int r;

	for (size_t i = 0; i < k->s->config->n; i++) {
		look_again(k, i);
		tell(k, i, &targets[i]);
	}
	if (k->s->config_error[0] != '\0')
		req.config_error = csm_str_of(k->s->config_error);
	csm_buf_consume(&k->in, k->used);
	k->used = 0;
	if ((r = ask(k, "deliver.next", CSM_DEF(deliver_next_req), &req)) != 0 ||
		(r = await(k, id, (unsigned)req.wait_ms.v + SLACK_MS, &f)) != 0)
		return r;
	if (f.error.p != NULL) {
		/* A store that is not open yet, or locked. */
		usleep(1000000);
		return 0;
	}
	csm_pool_reset(&k->pool);
	if ((r = csm_msg_decode(CSM_DEF(deliver_job), f.result, CSM_UNKNOWN_SKIP, &k->pool, &job, &bad)) != 0)
		return r;
	return job.target.n > 0 ? take_job(k, &job) : 0;
}

/* ---- the folders around ---- */

static void note_around(const struct delivery_target *t, struct standing *at)
{
	char path[520];
	struct stat st = {0};

	at->dev = 0;
	at->ino = 0;
	if (delivery_around(t, path, sizeof(path)) == 0 && stat(path, &st) == 0) {
		at->dev = st.st_dev;
		at->ino = st.st_ino;
	}
}

/* The sandbox knows the folders that were there when it closed. */
static bool others_around(const struct talk *k)
{
	for (size_t i = 0; i < k->s->config->n; i++) {
		struct standing now;

		note_around(&k->s->config->target[i], &now);
		if (now.dev != k->at[i].dev || now.ino != k->at[i].ino) {
			log_info("%s: the folder around its own is another one: starting anew", k->s->config->target[i].name);
			return true;
		}
	}
	return false;
}

int delivery_serve(struct delivery_server *s)
{
	struct talk *k = calloc(1, sizeof(*k));
	int r = 0;

	if (k == NULL)
		return CSM_ENOMEM;
	k->s = s;
	csm_buf_init(&k->in, CSM_MESSAGE_MAX + RECV_CHUNK, false);
	csm_buf_init(&k->out, CSM_MESSAGE_MAX, false);
	csm_pool_init(&k->pool, POOL_MAX);
	for (size_t i = 0; i < s->config->n; i++)
		note_around(&s->config->target[i], &k->at[i]);
	while (r == 0 && (r = await_lane(k, false)) == 0 && !others_around(k))
		r = next(k);
	/* what was begun is ended, whether csmd hears of it or not */
	while (await_lane(k, true) != 0)
		;
	csm_pool_free(&k->pool);
	csm_buf_free(&k->in);
	csm_buf_free(&k->out);
	free(k);
	return r == CSM_ECLOSED || r == CSM_ESHUTDOWN ? 0 : r;
}
