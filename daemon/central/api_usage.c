/* Reports of use: nodes tell what their keys did, and whoever runs the place asks which certificates are in use. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/central/api_inventory.h"
#include "daemon/central/body.h"
#include "daemon/central/csv.h"
#include "proto-spec/limits.h"

#define REPORTS_MAX 256u
#define TEXT_MAX 512u
#define AHEAD_S 300u /* by so much a node's clock may be ahead */
#define PERIOD_S (30u * 86400u)
#define USERS_MAX 16u

/* ---- what a node tells ---- */

struct report {
	struct csm_str key, spki, program, identity;
	uint64_t from, to, signatures, last_used;
	uint8_t hash[32];
};

static bool take_str(const json_t *v, size_t max, struct csm_str *ret)
{
	*ret = (struct csm_str){json_string_value(v), json_string_length(v)};
	return json_is_string(v) && ret->n <= max;
}

static bool take_u64(const json_t *v, uint64_t *ret)
{
	*ret = (uint64_t)json_integer_value(v);
	return json_is_integer(v) && json_integer_value(v) >= 0;
}

static bool take_field(struct report *p, const char *name, const json_t *v)
{
	if (strcmp(name, "key") == 0)
		return take_str(v, CSM_KEYREF_MAX, &p->key);
	if (strcmp(name, "spki_sha256") == 0)
		return take_str(v, 64, &p->spki);
	if (strcmp(name, "program") == 0)
		return take_str(v, TEXT_MAX, &p->program);
	if (strcmp(name, "identity") == 0)
		return take_str(v, TEXT_MAX, &p->identity);
	if (strcmp(name, "from") == 0)
		return take_u64(v, &p->from);
	if (strcmp(name, "to") == 0)
		return take_u64(v, &p->to);
	if (strcmp(name, "signatures") == 0)
		return take_u64(v, &p->signatures);
	if (strcmp(name, "last_used") == 0)
		return take_u64(v, &p->last_used);
	return false;
}

/* NULL, or what is wrong, static. */
static const char *take_report(json_t *o, uint64_t now, struct report *p)
{
	const char *name;
	size_t n = 0;
	json_t *v;

	*p = (struct report){.program = CSM_STR(""), .identity = CSM_STR("")};
	if (!json_is_object(o))
		return "not an object";
	json_object_foreach(o, name, v)
		if (!take_field(p, name, v))
			return "a field that is not known, or not of its kind, or too long";
	if (p->key.n == 0 || !body_unhex(p->spki, p->hash, sizeof(p->hash), &n) || n != sizeof(p->hash))
		return "key and spki_sha256 (64 hex digits) are needed";
	if (json_object_get(o, "from") == NULL || p->to == 0 || p->from > p->to || p->last_used > p->to || p->to > now + AHEAD_S)
		return "from, last_used and to have to be in order, and not in the future";
	return NULL;
}

/* What a node can make grow has a bound a minute, for each of its keys too. All of these or none. */
static int within_rates(struct central *c, const struct caller *by, const struct db_usage *u, size_t n, unsigned *wait_s)
{
	const uint64_t minutes = c->now() * 1000 / 60; /* thousandths */
	unsigned wait = 0;
	int r = n == 0 ? 0 : csm_rates_take_many(c->use_of_node, by->cert.node.p, by->cert.node.n, minutes, (unsigned)n, &wait);

	for (size_t i = 0; i < n && r == 0; i++) {
		unsigned count = 0;
		bool before = false;

		for (size_t k = 0; k < n; k++) {
			bool same = memcmp(u[i].spki_sha256.p, u[k].spki_sha256.p, 32) == 0;

			before = before || (same && k < i);
			count += same;
		}
		if (!before)
			r = csm_rates_take_many(c->use_of_key, u[i].spki_sha256.p, 32, minutes, count, &wait);
	}
	*wait_s = wait * 60 / 1000 + 1;
	return r;
}

/* Reports about keys that have no certificate from here are left out; one about another node's key refuses all. */
static int keep(struct central *c, const struct caller *by, const struct report *v, size_t n, size_t *kept, unsigned *wait_s)
{
	struct db_usage *u = calloc(n + 1, sizeof(*u));
	struct csm_pool pool;
	struct db_cert cert;
	size_t m = 0;
	int r = CSM_ENOMEM;

	if (u == NULL)
		return r;
	csm_pool_init(&pool, API_PAGE_POOL);
	r = 0;
	for (size_t i = 0; i < n && r == 0; i++) {
		const struct csm_bin spki = {v[i].hash, 32};

		csm_pool_reset(&pool);
		r = db_cert_by_key(c->db, spki, &pool, &cert);
		if (r == CSM_ENOT_FOUND) {
			r = 0;
			continue;
		}
		if (r == 0 && !csm_str_same(cert.node, by->cert.node))
			r = CSM_EDENIED;
		u[m++] = (struct db_usage){.node = by->cert.node, .key = v[i].key, .spki_sha256 = spki, .from = v[i].from, .to = v[i].to,
			.signatures = v[i].signatures, .last_used = v[i].last_used, .program = v[i].program, .identity = v[i].identity};
	}
	if (r == 0 && (r = within_rates(c, by, u, m, wait_s)) == 0)
		r = db_usage_put(c->db, u, m, c->now());
	csm_pool_free(&pool);
	free(u);
	*kept = m;
	return r;
}

static void use_too_often(struct csm_http_res *res, unsigned wait_s)
{
	csm_http_fail(res, CSM_EBUSY, "more reports of use than %u a minute of a node, or %u about a key, after the first %u or %u: none of "
		"these was kept", CSM_USAGE_PER_NODE, CSM_USAGE_PER_KEY, CSM_USAGE_PER_NODE_BURST, CSM_USAGE_PER_KEY_BURST);
	if (csm_http_res_header(res, "Retry-After", "%u", wait_s) != 0)
		res->n_headers = 0;
}

static void post_reports(struct central *c, const struct caller *by, json_t *list, struct csm_http_res *res)
{
	size_t n = json_array_size(list), kept = 0;
	unsigned wait_s = 1;
	struct report *v;
	const char *why;
	int r;

	if (!json_is_array(list) || n > REPORTS_MAX) {
		csm_http_fail(res, json_is_array(list) ? CSM_ETOO_LARGE : CSM_EINVALID, "reports: a list of at most %u", REPORTS_MAX);
		return;
	}
	if ((v = calloc(n + 1, sizeof(*v))) == NULL) {
		csm_http_fail(res, CSM_EBUSY, "no memory");
		return;
	}
	for (size_t i = 0; i < n; i++)
		if ((why = take_report(json_array_get(list, i), c->now(), &v[i])) != NULL) {
			csm_http_fail(res, CSM_EINVALID, "reports: number %zu: %s", i + 1, why);
			goto out;
		}
	r = keep(c, by, v, n, &kept, &wait_s);
	if (r == CSM_EDENIED)
		csm_http_fail(res, r, "a node tells of its own keys");
	else if (r == CSM_EBUSY)
		use_too_often(res, wait_s);
	else if (r != 0)
		csm_http_fail(res, csm_err_on_wire(r), "the reports could not be stored");
	else
		body_answer(res, 200, json_pack("{s:I, s:I}", "stored", (json_int_t)kept, "unknown", (json_int_t)(n - kept)));
out:
	free(v);
}

void api_usage_post(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	struct central *c = arg;
	struct csm_pool pool;
	struct caller by;
	json_t *root;

	csm_pool_init(&pool, API_PAGE_POOL);
	if (!caller_is(c, req, res, &pool, 1u << CALLER_NODE, &by))
		goto out;
	if (by.cert.node.n == 0) {
		csm_http_fail(res, CSM_EDENIED, "this certificate names no node");
		goto out;
	}
	root = json_loadb((const char *)req->body.p, req->body.n, JSON_REJECT_DUPLICATES, NULL);
	if (root == NULL || json_object_size(root) != 1 || json_object_get(root, "reports") == NULL)
		csm_http_fail(res, CSM_EINVALID, "the body is one JSON object with the field reports, and no other");
	else
		post_reports(c, &by, json_object_get(root, "reports"), res);
	json_decref(root);
out:
	csm_pool_free(&pool);
}

/* ---- what is in use ---- */

struct user {
	struct csm_str node, key, program, identity;
	uint64_t signatures, last_used;
	char *mem; /* of the four, TEXT_MAX each */
};
struct use {
	struct csm_pool *pool;
	struct user v[USERS_MAX]; /* who used it most lately; the sums are of all */
	size_t n;
	uint64_t signatures, last_used;
	int r;
};

static bool same_user(const struct user *a, const struct db_usage *u)
{
	return csm_str_same(a->node, u->node) && csm_str_same(a->key, u->key) && csm_str_same(a->program, u->program) &&
		csm_str_same(a->identity, u->identity);
}

/* The memory of a place is that of whoever has it: however many come by, no more is taken. */
static int user_set(struct csm_pool *pool, struct user *at, const struct db_usage *u)
{
	const struct csm_str from[] = {u->node, u->key, u->program, u->identity};
	struct csm_str *const to[] = {&at->node, &at->key, &at->program, &at->identity};

	if (at->mem == NULL && (at->mem = csm_pool_alloc(pool, sizeof(from) / sizeof(from[0]) * TEXT_MAX)) == NULL)
		return CSM_ENOMEM;
	for (size_t i = 0; i < sizeof(from) / sizeof(from[0]); i++) {
		if (from[i].n > TEXT_MAX)
			return CSM_ETOO_LARGE;
		*to[i] = (struct csm_str){at->mem + i * TEXT_MAX, from[i].n};
		if (from[i].n > 0)
			memcpy(at->mem + i * TEXT_MAX, from[i].p, from[i].n);
	}
	at->signatures = 0;
	at->last_used = 0;
	return 0;
}

static uint64_t sum(uint64_t a, uint64_t b)
{
	return a > (uint64_t)INT64_MAX - b ? (uint64_t)INT64_MAX : a + b;
}

/* In the place of who was there longest ago, when all are taken. */
static struct user *user_place(struct use *use)
{
	struct user *oldest = &use->v[0];

	if (use->n < USERS_MAX)
		return &use->v[use->n++];
	for (size_t i = 1; i < USERS_MAX; i++)
		if (use->v[i].last_used < oldest->last_used)
			oldest = &use->v[i];
	return oldest;
}

static bool add_use(void *arg, const struct db_usage *u)
{
	struct use *use = arg;
	struct user *at = NULL;

	use->signatures = sum(use->signatures, u->signatures);
	if (u->last_used > use->last_used)
		use->last_used = u->last_used;
	for (size_t i = 0; i < use->n && at == NULL; i++)
		if (same_user(&use->v[i], u))
			at = &use->v[i];
	if (at == NULL) {
		at = user_place(use);
		if ((use->r = user_set(use->pool, at, u)) != 0)
			return false;
	}
	at->signatures = sum(at->signatures, u->signatures);
	if (u->last_used > at->last_used)
		at->last_used = u->last_used;
	return true;
}

/* ---- as JSON, and as CSV ---- */

static json_t *use_json(const struct db_cert *c, const struct use *use)
{
	json_t *users = json_array();
	bool ok = users != NULL;

	for (size_t i = 0; i < use->n && ok; i++) {
		const struct user *u = &use->v[i];

		ok = json_array_append_new(users, json_pack("{s:o, s:o, s:o, s:o, s:I, s:I}", "node", body_str(u->node), "key", body_str(u->key),
			"program", body_str(u->program), "identity", body_str(u->identity), "signatures", (json_int_t)u->signatures, "last_used",
			(json_int_t)u->last_used)) == 0;
	}
	if (!ok) {
		json_decref(users);
		return NULL;
	}
	return json_pack("{s:o, s:o, s:o, s:I, s:b, s:I, s:I, s:o}", "serial", body_hex(c->serial), "subject", body_str(c->subject), "node",
		body_str(c->node), "not_after", (json_int_t)c->not_after, "in_use", use->n > 0, "signatures", (json_int_t)use->signatures,
		"last_used", (json_int_t)use->last_used, "users", users);
}

#define COLUMNS "serial,subject,node,not_after,in_use,signatures,last_used,key,program,identity"

static int csv_line(struct csm_buf *b, const struct db_cert *c, const struct use *use, const struct user *u)
{
	static const struct user nobody = {.node = {"", 0}, .key = {"", 0}, .program = {"", 0}, .identity = {"", 0}};
	const struct user *who = u != NULL ? u : &nobody;
	int r;

	if ((r = csv_hex(b, c->serial, ",")) != 0 || (r = csv_text(b, c->subject, ",")) != 0 || (r = csv_text(b, c->node, ",")) != 0 ||
		(r = csv_u64(b, c->not_after, use->n > 0 ? ",yes," : ",no,")) != 0 || (r = csv_u64(b, who->signatures, ",")) != 0 ||
		(r = csv_u64(b, who->last_used, ",")) != 0 || (r = csv_text(b, who->key, ",")) != 0 ||
		(r = csv_text(b, who->program, ",")) != 0)
		return r;
	return csv_text(b, who->identity, CSV_END);
}

static int csv_put(struct csm_buf *b, const struct db_cert *c, const struct use *use)
{
	int r = 0;

	if (use->n == 0)
		return csv_line(b, c, use, NULL);
	for (size_t i = 0; i < use->n && r == 0; i++)
		r = csv_line(b, c, use, &use->v[i]);
	return r;
}

/* ---- the report ---- */

struct asked {
	struct db_filter f;
	uint64_t from, to, limit;
	struct csm_str after, use, format;
};

static bool read_asked(struct central *c, const struct csm_http_req *req, struct csm_http_res *res, struct asked *a)
{
	uint64_t now = c->now();

	*a = (struct asked){.f = {.now = now, .state = CSM_STR("valid")}, .from = now > PERIOD_S ? now - PERIOD_S : 0, .to = now,
		.limit = CSM_LIST_DEFAULT};
	if (!api_query_u64(req, res, "from", INT64_MAX, &a->from) || !api_query_u64(req, res, "to", INT64_MAX, &a->to) ||
		!api_query_page(req, res, &a->limit, &a->after) || !api_query_str(req, res, "node", TEXT_MAX, &a->f.node) ||
		!api_query_str(req, res, "name", TEXT_MAX, &a->f.name) || !api_query_str(req, res, "use", TEXT_MAX, &a->use) ||
		!api_query_format(req, res, &a->format))
		return false;
	if (a->use.n > 0 && !csm_str_eq(a->use, "used") && !csm_str_eq(a->use, "unused"))
		csm_http_fail(res, CSM_EINVALID, "use: used or unused");
	else if (a->from > a->to)
		csm_http_fail(res, CSM_EINVALID, "from: after to");
	else
		return true;
	return false;
}

/* Of each certificate on the page who used its key; `rows` or `csv`. */
static int tell(struct central *c, const struct asked *a, const struct db_cert *v, size_t n, json_t *rows, struct csm_buf *csv)
{
	struct csm_pool pool;
	int r = 0;

	csm_pool_init(&pool, API_PAGE_POOL);
	for (size_t i = 0; i < n && r == 0; i++) {
		struct use use = {.pool = &pool};

		csm_pool_reset(&pool);
		if ((r = db_usage_each(c->db, v[i].spki_sha256, a->from, a->to, add_use, &use)) != 0 || (r = use.r) != 0)
			break;
		if (a->use.n > 0 && csm_str_eq(a->use, "used") != (use.n > 0))
			continue;
		if (rows != NULL)
			r = json_array_append_new(rows, use_json(&v[i], &use)) == 0 ? 0 : CSM_ENOMEM;
		else
			r = csv_put(csv, &v[i], &use);
	}
	csm_pool_free(&pool);
	return r;
}

static int answer_csv(struct central *c, const struct asked *a, const struct db_cert *v, size_t n, struct csm_str next,
	struct csm_http_res *res)
{
	int r = csv_begin(res, COLUMNS, a->after.n == 0, next);

	return r == 0 ? tell(c, a, v, n, NULL, &res->body) : r;
}

static int answer_json(struct central *c, const struct asked *a, const struct db_cert *v, size_t n, struct csm_str next,
	struct csm_http_res *res)
{
	json_t *rows = json_array(), *o = NULL;
	int r = rows == NULL ? CSM_ENOMEM : tell(c, a, v, n, rows, NULL);

	if (r == 0) {
		o = json_pack("{s:O, s:I, s:I, s:o}", "certificates", rows, "from", (json_int_t)a->from, "to", (json_int_t)a->to, "next",
			body_str(next));
		body_answer(res, 200, o);
	}
	json_decref(rows);
	return r;
}

void api_usage_get(void *arg, const struct csm_http_req *req, struct csm_http_res *res)
{
	struct central *c = arg;
	struct csm_str next;
	struct csm_pool pool;
	struct caller by;
	struct asked a;
	struct db_cert *v;
	size_t n;
	int r;

	csm_pool_init(&pool, API_PAGE_POOL);
	if (!caller_is(c, req, res, &pool, API_STAFF | 1u << CALLER_NODE, &by) || !read_asked(c, req, res, &a) ||
		!api_own_only(&by, res, &a.f))
		goto out;
	r = db_cert_list(c->db, &a.f, a.after, a.limit, &pool, &v, &n, &next);
	if (r == 0)
		r = csm_str_eq(a.format, "csv") ? answer_csv(c, &a, v, n, next, res) : answer_json(c, &a, v, n, next, res);
	if (r != 0)
		csm_http_fail(res, r == CSM_EINVALID ? r : csm_err_on_wire(r), "%s",
			r == CSM_EINVALID ? "after: not a cursor of such a list" : "the report could not be made");
out:
	csm_pool_free(&pool);
}
