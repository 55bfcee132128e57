/* /healthz, /readyz, /metrics: for machines that look after csm-server. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "daemon/central/api.h"

static int say(struct csm_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int say(struct csm_buf *b, const char *fmt, ...)
{
	char line[512];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	return n < 0 || (size_t)n >= sizeof(line) ? CSM_ETOO_LARGE : csm_buf_put(b, line, (size_t)n);
}

void api_healthz(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	(void)arg;
	(void)req;
	if (say(&res->body, "{\"status\": \"ok\"}\n") == 0)
		res->status = 200;
}

/* Ready is who can issue: the database is open, csmd answers, and an issuer has its certificate. */
void api_readyz(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	struct central *c = arg;
	const char *why = central_not_ready(c);

	(void)req;
	if (why != NULL)
		csm_http_fail(res, CSM_EUNAVAILABLE, "%s", why);
	else if (say(&res->body, "{\"status\": \"ready\"}\n") == 0)
		res->status = 200;
}

static uint64_t read_count(const uint64_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static int say_metric(struct csm_buf *b, const char *name, const char *type, const char *help, uint64_t v)
{
	return say(b, "# HELP csm_server_%s %s\n# TYPE csm_server_%s %s\ncsm_server_%s %llu\n", name, help, name, type, name,
		(unsigned long long)v);
}

static int say_http(struct csm_buf *b, struct central *c)
{
	struct csm_http_stats s;
	int r;

	csm_http_stats(c->http, &s);
	r = say_metric(b, "connections_open", "gauge", "Connections at this moment.", s.open);
	r = r != 0 ? r : say_metric(b, "connections_total", "counter", "Connections accepted.", s.connections);
	r = r != 0 ? r : say_metric(b, "connections_refused_total", "counter", "Connections closed at once: over a limit.", s.refused);
	r = r != 0 ? r : say_metric(b, "handshakes_failed_total", "counter", "TLS handshakes that came to nothing.", s.failed_handshakes);
	r = r != 0 ? r : say_metric(b, "queue_depth", "gauge", "Requests that wait for a worker.", s.queued);
	return r != 0 ? r : say_metric(b, "busy_total", "counter", "Requests refused for too much work in hand.", s.busy);
}

static int say_answers(struct csm_buf *b, struct central *c)
{
	int r = say(b, "# HELP csm_server_answers_total Answers by class of status.\n# TYPE csm_server_answers_total counter\n");

	for (unsigned i = 2; r == 0 && i < 6; i++)
		r = say(b, "csm_server_answers_total{class=\"%uxx\"} %llu\n", i, (unsigned long long)read_count(&c->counts.answers[i]));
	r = r != 0 ? r : say_metric(b, "unauthenticated_total", "counter", "Requests whose credential was worth nothing, or missing.",
				 read_count(&c->counts.unauthenticated));
	r = r != 0 ? r : say_metric(b, "denied_total", "counter", "Requests that their caller had no right to.", read_count(&c->counts.denied));
	r = r != 0 ? r : say_metric(b, "client_gone_total", "counter", "Requests whose client had gone before the answer.",
				 read_count(&c->counts.gone));
	return r != 0 ? r : say_metric(b, "log_lines_left_out_total", "counter", "Lines on failed requests that were too many to write.",
				     read_count(&c->counts.log_lines_left_out));
}

static int say_db(struct csm_buf *b, struct central *c)
{
	struct db_stat s;
	int r;

	if (!__atomic_load_n(&c->ready, __ATOMIC_ACQUIRE))
		return 0;
	db_stat(c->db, &s);
	r = say_metric(b, "database_used_bytes", "gauge", "Bytes of the database in use.", s.used);
	r = r != 0 ? r : say_metric(b, "database_size_bytes", "gauge", "Bytes that it may have.", s.size);
	return r != 0 ? r : say_metric(b, "database_low_space", "gauge", "1: little room is left.", s.low_space);
}

void api_metrics(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	struct central *c = arg;
	int r;

	(void)req;
	r = say_metric(&res->body, "ready", "gauge", "1: /readyz says so.", central_not_ready(c) == NULL);
	r = r != 0 ? r : say_http(&res->body, c);
	r = r != 0 ? r : say_answers(&res->body, c);
	r = r != 0 ? r : say_db(&res->body, c);
	if (r != 0) {
		csm_http_fail(res, r, "the metrics could not be told");
		return;
	}
	res->type = "text/plain; version=0.0.4; charset=utf-8";
	res->status = 200;
}
