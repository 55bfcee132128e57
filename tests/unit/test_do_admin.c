/* whoami, status, stats, and the administrator's methods, by requests to a whole broker. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/lib/brokerfix.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

static const char first[] =
	"version: 1\n"
	"default: uid-namespaces\n"
	"identities:\n"
	"  web: {uid: 70051}\n"
	"  unit: {unit: web.service}\n"
	"  two-a: {uid: 70052}\n"
	"  two-b: {uid: 70052}\n"
	"  many: {uid: 70056}\n"
	"namespaces: {web: {home-of: [web]}, na: {home-of: [two-a]}, nb: {home-of: [two-b]}}\n"
	"rules:\n"
	"  - {allow: [key.sign], to: [web], on: [\"web:*\"]}\n"
	"  - {allow: [secret.get], to: [web], on: [\"shared:db/*\"]}\n"
	"  - {allow: [key.create, key.sign, cert.get], to: [many], on: [\"p-*:k\"]}\n"
	"  - {allow: [secret.get], to: [unit], on: [\"shared:db/*\"]}\n";
static const char second[] =
	"version: 1\n"
	"identities: {web: {uid: 70051}}\n"
	"rules: [{allow: [key.sign], to: [web], on: [\"web:one\"]}]\n";

static int admin;

static int setup(void **state)
{
	admin = fix_connect(CSM_R_ADMIN);
	return fix_setup(state);
}

static int teardown(void **state)
{
	fix_close(admin);
	return fix_teardown(state);
}

static const struct csm_msg_empty none;

/* ---- who ---- */

static void who_the_broker_sees(void **state)
{
	struct csm_msg_whoami_res res;
	int fd;

	(void)state;
	assert_int_equal(fix_call(pub, "whoami", &none, &res), 0);
	assert_int_equal(res.uid.v, 0);
	assert_int_equal(res.gid.v, getgid());
	assert_int_equal(res.pid.v, (uint64_t)getpid());
	assert_true(csm_str_eq(res.namespace, "uid-0"));
	assert_int_equal(res.identities.n, 0);
	fd = fix_connect_as(70051);
	assert_int_equal(fix_call(fd, "whoami", &none, &res), 0);
	assert_int_equal(res.uid.v, 70051);
	assert_int_equal(res.identities.n, 1);
	assert_true(csm_str_eq(res.identities.v[0], "web"));
	assert_true(csm_str_eq(res.namespace, "web"));
	fix_close(fd);
	/* Two homes: none, and why. */
	fd = fix_connect_as(70052);
	assert_int_equal(fix_call(fd, "whoami", &none, &res), 0);
	assert_int_equal(res.identities.n, 2);
	assert_null(res.namespace.p);
	assert_true(res.reason.n > 0);
	fix_close(fd);
	fd = fix_connect_as(61184);
	assert_int_equal(fix_call(fd, "whoami", &none, &res), 0);
	assert_null(res.namespace.p);
	assert_true(res.reason.n > 0);
	fix_close(fd);
}

static void expect_namespaces(int fd, const char *const *want, size_t n)
{
	struct csm_msg_whoami_res res;

	assert_int_equal(fix_call(fd, "whoami", &none, &res), 0);
	assert_int_equal(res.namespaces.n, n);
	for (size_t i = 0; i < n; i++)
		assert_true(csm_str_eq(res.namespaces.v[i], want[i]));
}

/* Home first, then what rules name; of patterns what is there, and nothing else that is there. */
static void whoami_tells_namespaces(void **state)
{
	static const char *const of_web[] = {"web", "uid-70051", "shared"}, *const of_many[] = {"uid-70056", "p-a", "p-b"};
	int web = fix_connect_as(70051), many = fix_connect_as(70056), none_of_it = fix_connect_as(70057);
	char ref[CSM_KEYREF_MAX];

	(void)state;
	expect_namespaces(web, of_web, 3);
	expect_namespaces(many, of_many, 1);
	assert_int_equal(fix_create(many, "p-b:k", NULL, "fake", NULL), 0);
	assert_int_equal(fix_create(many, "p-a:k", NULL, "fake", NULL), 0);
	assert_int_equal(fix_create(none_of_it, "k", NULL, "fake", NULL), 0);
	expect_namespaces(many, of_many, 3);
	expect_namespaces(web, of_web, 3);
	expect_namespaces(none_of_it, (const char *const[]){"uid-70057"}, 1);
	for (unsigned i = 0; i < CSM_NAMESPACES_TOLD_MAX + 3; i++) {
		struct csm_msg_whoami_res res;

		snprintf(ref, sizeof(ref), "p-n%u:k", i);
		assert_int_equal(fix_create(many, ref, NULL, "fake", NULL), 0);
		if (i > CSM_NAMESPACES_TOLD_MAX) {
			assert_int_equal(fix_call(many, "whoami", &none, &res), 0);
			assert_int_equal(res.namespaces.n, CSM_NAMESPACES_TOLD_MAX);
		}
	}
	fix_close(web);
	fix_close(many);
	fix_close(none_of_it);
}

/* ---- status, stats ---- */

static const struct csm_msg_metric *metric(const struct csm_msg_stats_res *res, const char *name, const char *labels)
{
	for (size_t i = 0; i < res->metrics.n; i++)
		if (csm_str_eq(res->metrics.v[i].name, name) &&
			(labels == NULL || csm_str_eq(res->metrics.v[i].labels, labels)))
			return &res->metrics.v[i];
	return NULL;
}

static void status_tells_each_its_own(void **state)
{
	int user = fix_connect_as(70053);
	struct csm_msg_status_res res;
	uint64_t connections;

	(void)state;
	assert_int_equal(fix_create(user, "a", NULL, NULL, NULL), 0);
	assert_int_equal(fix_create(pub, "b", NULL, "fake", NULL), 0);
	assert_int_equal(fix_domain(user, "domain.create", "d"), 0);
	assert_int_equal(fix_set(user, "d/s", "x", -1, NULL, NULL), 0);
	/* A user: of its own namespace, and no totals. */
	assert_int_equal(fix_call(user, "status", &none, &res), 0);
	assert_true(csm_str_eq(res.state, "ready"));
	assert_true(csm_str_eq(res.root_key, "unprotected"));
	assert_int_equal(res.pid.v, (uint64_t)getpid());
	assert_int_equal(res.keys.v, 1);
	assert_int_equal(res.domains.v, 1);
	assert_int_equal(res.secrets.v, 1);
	assert_false(res.connections.set);
	assert_false(res.locked_memory.set);
	assert_int_equal(res.backends.n, 2);
	assert_true(csm_str_eq(res.backends.v[0].name, "soft"));
	assert_true(csm_str_eq(res.backends.v[0].state, "ready"));
	assert_true(res.backends.v[0].preferred.v);
	assert_int_equal(res.backends.v[0].algorithms.n, CSM_ALG__COUNT);
	assert_false(res.backends.v[1].preferred.v);
	assert_int_equal(res.backends.v[1].algorithms.n, 2);
	assert_null(res.tpm);
	/* The administrator: all. */
	assert_int_equal(fix_call(admin, "status", &none, &res), 0);
	assert_int_equal(res.keys.v, 2);
	assert_int_equal(res.connections.v, 3);
	connections = res.connections.v;
	fix_close(user);
	assert_int_equal(fix_call(admin, "status", &none, &res), 0);
	assert_int_equal(res.connections.v, connections - 1);
	assert_true(csm_str_eq(res.store->state, "ready"));
	assert_true(res.warnings.n > 0);
	/* A back end that is not open is told. */
	struct csm_plugin_ctx *ctx = fix.t.b.backends[1].ctx;
	fix.t.b.backends[1].ctx = NULL;
	assert_int_equal(fix_call(admin, "status", &none, &res), 0);
	assert_true(csm_str_eq(res.backends.v[1].state, "unavailable"));
	fix.t.b.backends[1].ctx = ctx;
	/* In every state. */
	static const struct {
		enum broker_state state;
		const char *name;
	} states[] = {{BROKER_STARTING, "starting"}, {BROKER_LOCKED, "locked"}, {BROKER_STOPPING, "stopping"}};
	for (size_t i = 0; i < N_ELEMS(states); i++) {
		fix.t.b.state = states[i].state;
		assert_int_equal(fix_call(pub, "status", &none, &res), 0);
		assert_true(csm_str_eq(res.state, states[i].name));
		assert_false(res.keys.set);
	}
	fix.t.b.state = BROKER_READY;
}

static void stats_count(void **state)
{
	struct csm_msg_stats_res res;
	struct csm_msg_sign_req bad = {.key = CSM_STR("nope")};
	const struct csm_msg_metric *m;
	uint64_t asked, failed;

	(void)state;
	assert_int_equal(fix_call(admin, "stats", &none, &res), 0);
	m = metric(&res, "csm_requests_total", "method=\"key.sign\"");
	assert_non_null(m);
	assert_true(csm_str_eq(m->type, "counter"));
	asked = m->value.v;
	failed = metric(&res, "csm_requests_failed_total", "method=\"key.sign\"")->value.v;
	for (int i = 0; i < 3; i++)
		assert_int_equal(fix_ask(pub, "key.sign", &bad), CSM_ENOT_FOUND);
	assert_int_equal(fix_call(admin, "stats", &none, &res), 0);
	assert_int_equal(metric(&res, "csm_requests_total", "method=\"key.sign\"")->value.v, asked + 3);
	assert_int_equal(metric(&res, "csm_requests_failed_total", "method=\"key.sign\"")->value.v, failed + 3);
	assert_int_equal(metric(&res, "csm_connections", NULL)->value.v, 2);
	assert_int_equal(metric(&res, "csm_up", NULL)->value.v, 1);
	assert_int_equal(metric(&res, "csm_backend_up", "backend=\"soft\"")->value.v, 1);
	assert_non_null(metric(&res, "csm_backend_queue", "backend=\"fake\""));
	assert_non_null(metric(&res, "csm_backend_calls_total", "backend=\"fake\",call=\"generate\""));
	assert_int_equal(metric(&res, "csm_store_keys", NULL)->value.v, 2);
	/* A reserved method has no row, and what is no total is not told to all. */
	assert_null(metric(&res, "csm_requests_total", "method=\"secret.watch\""));
	assert_int_equal(fix_call(pub, "stats", &none, &res), 0);
	assert_non_null(metric(&res, "csm_up", NULL));
	assert_null(metric(&res, "csm_connections", NULL));
	assert_null(metric(&res, "csm_store_keys", NULL));
	fix.t.b.state = BROKER_LOCKED;
	assert_int_equal(fix_call(pub, "stats", &none, &res), 0);
	assert_int_equal(metric(&res, "csm_up", NULL)->value.v, 0);
	fix.t.b.state = BROKER_READY;
}

/* ---- explain ---- */

static int explain(const char *method, const char *object, const char *selector, struct csm_msg_explain_res *res)
{
	struct csm_str sel = csm_str_of(selector);
	struct csm_msg_explain_req m = {
		.method = csm_str_of(method), .object = csm_str_of(object), .selectors = {&sel, selector != NULL}};

	return fix_call(admin, "policy.explain", &m, res);
}

static void the_rule_that_decides(void **state)
{
	struct csm_msg_explain_res res;

	(void)state;
	assert_int_equal(explain("key.sign", "web:k", "uid=70051", &res), 0);
	assert_true(res.allowed.v);
	assert_int_equal(res.line.v, 11);
	assert_int_equal(res.identities.n, 1);
	assert_true(csm_str_eq(res.identities.v[0], "web"));
	assert_int_equal(explain("key.delete", "web:k", "uid=70051", &res), 0);
	assert_false(res.allowed.v);
	assert_true(res.rule.n > 0);
	assert_false(res.line.set);
	assert_int_equal(explain("secret.get", "shared:db/x", "unit=web.service", &res), 0);
	assert_true(res.allowed.v);
	/* A bare name is in the home of who is asked about. */
	assert_int_equal(explain("key.sign", "k", "uid=70051", &res), 0);
	assert_true(res.allowed.v);
	assert_int_equal(explain("key.sign", "k", "uid=70052", &res), CSM_EAMBIGUOUS);
	assert_int_equal(explain("key.sign", "k", "unit=web.service", &res), CSM_EINVALID);
	/* Without selectors: the caller. */
	assert_int_equal(explain("key.sign", "k", NULL, &res), 0);
	assert_true(res.allowed.v);
	assert_int_equal(explain("key.sign", "web:k", NULL, &res), 0);
	assert_false(res.allowed.v);
	/* Methods that need no grant, or the admin socket. */
	assert_int_equal(explain("ping", "x:y", "uid=70051", &res), 0);
	assert_true(res.allowed.v);
	assert_int_equal(explain("policy.reload", "x:y", "uid=70051", &res), 0);
	assert_false(res.allowed.v);
	assert_int_equal(explain("key.explode", "x:y", "uid=70051", &res), CSM_EINVALID);
	assert_int_equal(explain("key.sign", "x:y", "uid", &res), CSM_EINVALID);
	assert_int_equal(explain("key.sign", "x:y", "colour=red", &res), CSM_EINVALID);
}

/* ---- check, reload ---- */

static int check(const char *text, struct csm_msg_check_res *res)
{
	struct csm_msg_check_req m = {.policy = csm_str_of(text)};

	return fix_call(admin, "policy.check", &m, res);
}

static void a_text_is_checked_and_changes_nothing(void **state)
{
	const struct csm_policy *before = fix.t.b.policy;
	struct csm_msg_check_res res;

	(void)state;
	assert_int_equal(check(first, &res), 0);
	assert_true(res.valid.v);
	assert_false(res.line.set);
	assert_int_equal(check("version: 1\nrules: [{alow: [key.sign], to: [x], on: [\"a:*\"]}]\n", &res), 0);
	assert_false(res.valid.v);
	assert_int_equal(res.line.v, 2);
	assert_int_equal(res.column.v, 10);
	assert_true(res.message.n > 0);
	assert_int_equal(check("", &res), 0);
	assert_false(res.valid.v);
	assert_int_equal(check("a: [", &res), 0);
	assert_false(res.valid.v);
	assert_ptr_equal(fix.t.b.policy, before);
}

static int reload(const char *text, struct csm_msg_reload_res *res)
{
	fix.t.policy = text;
	return fix_call(admin, "policy.reload", &none, res);
}

static void a_good_policy_is_in_force_at_once(void **state)
{
	struct csm_msg_key_req k = {.key = CSM_STR("web:two")};
	struct csm_msg_sign_req sign = {.key = CSM_STR("web:two"), .message = {(const uint8_t *)"x", 1}};
	struct csm_msg_reload_res res;
	int web = fix_connect_as(70051);

	(void)state;
	assert_int_equal(reload(first, &res), 0);
	assert_int_equal(res.identities.v, 5);
	assert_int_equal(res.rules.v, 4);
	/* Allowed, though there is no such key and who asks may not list. */
	struct csm_msg_explain_res e;
	assert_int_equal(explain("key.sign", "web:two", "uid=70051", &e), 0);
	assert_true(e.allowed.v);
	assert_int_equal(reload(second, &res), 0);
	assert_int_equal(res.identities.v, 1);
	assert_int_equal(res.rules.v, 1);
	assert_int_equal(explain("key.sign", "web:two", "uid=70051", &e), 0);
	assert_false(e.allowed.v);
	assert_int_equal(explain("key.sign", "web:one", "uid=70051", &e), 0);
	assert_true(e.allowed.v);
	/* The connection stays, and is judged by the new one: no default any more. */
	assert_int_equal(fix_ask(web, "key.sign", &sign), CSM_EDENIED);
	assert_int_equal(fix_ask(pub, "key.show", &k), CSM_EDENIED);
	assert_int_equal(fix_create(pub, "more", NULL, NULL, NULL), CSM_EDENIED);
	assert_int_equal(reload(first, &res), 0);
	assert_int_equal(fix_create(pub, "more", NULL, NULL, NULL), 0);
	fix_close(web);
}

static void a_bad_policy_changes_nothing(void **state)
{
	static const char *const bad[] = {"", "version: 2\n", "version: 1\nunknown: 1\n", "a: [", "version: 1\n---\nversion: 1\n"};
	struct csm_policy *before;
	struct csm_msg_reload_res res;
	struct csm_msg_explain_res e;

	(void)state;
	assert_int_equal(reload(first, &res), 0);
	before = fix.t.b.policy;
	for (size_t i = 0; i < N_ELEMS(bad); i++) {
		fix.t.policy = bad[i];
		assert_int_equal(fix_ask(admin, "policy.reload", &none), CSM_EINVALID);
		assert_non_null(strstr(fix.last.message, "the policy stays as it was"));
		assert_ptr_equal(fix.t.b.policy, before);
		assert_ptr_equal(fix.t.loop->policy, before);
	}
	assert_int_equal(explain("key.sign", "web:k", "uid=70051", &e), 0);
	assert_true(e.allowed.v);
	/* A file that is gone is the default one. */
	assert_int_equal(reload(NULL, &res), 0);
	assert_int_equal(res.rules.v, 0);
	assert_int_equal(reload(first, &res), 0);
}

static void many_may_wait_for_one_reload(void **state)
{
	(void)state;
	fix.t.policy = second;
	for (uint32_t i = 0; i < 10; i++)
		assert_int_equal(testbroker_request(&fix.t, admin, i, "policy.reload", &none), 0);
	for (uint32_t i = 0; i < 10; i++)
		assert_int_equal(fix_next(admin), 0);
	/* One that leaves before it has its answer. */
	fix.t.policy = first;
	assert_int_equal(testbroker_request(&fix.t, admin, 1, "policy.reload", &none), 0);
	close(admin);
	assert_true(testbroker_run(&fix.t, 5000));
	admin = fix_connect(CSM_R_ADMIN);
	struct csm_msg_explain_res e;
	assert_int_equal(explain("key.sign", "web:k", "uid=70051", &e), 0);
	assert_true(e.allowed.v);
}

/* ---- accept ---- */

static void there_is_nothing_to_accept(void **state)
{
	(void)state;
	assert_int_equal(fix_ask(admin, "store.accept", &none), CSM_ESTATE);
	assert_non_null(strstr(fix.last.message, "nothing to accept"));
	/* The broker says locked, the store knows better. */
	fix.t.b.state = BROKER_LOCKED;
	assert_int_equal(fix_ask(admin, "store.accept", &none), CSM_ESTATE);
	assert_int_equal(fix.t.b.state, BROKER_LOCKED);
	fix.t.b.state = BROKER_READY;
	assert_int_equal(fix_ask(pub, "store.accept", &none), CSM_EROLE);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(who_the_broker_sees),
		TEST(status_tells_each_its_own),
		TEST(stats_count),
		TEST(the_rule_that_decides),
		TEST(a_text_is_checked_and_changes_nothing),
		TEST(a_good_policy_is_in_force_at_once),
		TEST(a_bad_policy_changes_nothing),
		TEST(many_may_wait_for_one_reload),
		TEST(there_is_nothing_to_accept),
		TEST(whoami_tells_namespaces),
	};

	if (!fix_prepare(120, NULL, first))
		return 77;
	return cmocka_run_group_tests(tests, fix_begin, fix_end);
}
