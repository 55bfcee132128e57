/* From bytes to a handler: roles, states, fields, frames, names, and what a refusal tells. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "libclient/wire/frame.h"
#include "tests/lib/brokerfix.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

/* 70001 is at home in web; 70002 in two places; 70003 may use all of web, but not look what is there; 70004 is at home
 * nowhere but in its own namespace; 70005 may list secrets, but not domains. */
static const char policy[] =
	"version: 1\n"
	"default: uid-namespaces\n"
	"identities:\n"
	"  web: {uid: 70001}\n"
	"  two: {uid: 70002}\n"
	"  again: {uid: 70002}\n"
	"  blind: {uid: 70003}\n"
	"  lister: {uid: 70005}\n"
	"namespaces:\n"
	"  web: {home-of: [web]}\n"
	"  na: {home-of: [two]}\n"
	"  nb: {home-of: [again]}\n"
	"rules:\n"
	"  - {allow: [key.create, key.list, key.show, key.sign, key.delete, domain.create, domain.list, domain.show, secret.set,"
	" secret.get, secret.list, secret.delete], to: [web], on: [\"web:*\"]}\n"
	"  - {allow: [key.show, key.public, key.sign, key.decrypt, key.derive, key.csr, key.delete, domain.show, domain.delete,"
	" secret.set, secret.get, secret.delete], to: [blind], on: [\"web:*\"]}\n"
	"  - {allow: [secret.list], to: [lister], on: [\"web:*\"]}\n";

/* ---- roles and states ---- */

static void each_role_has_its_own_rows(void **state)
{
	static const enum csm_role roles[] = {
		CSM_R_PUBLIC, CSM_R_ADMIN, CSM_R_ENROL, CSM_R_IDENT, CSM_R_DELIVER, CSM_R_PLUGHOST};
	size_t refused = 0, served = 0;

	(void)state;
	for (size_t i = 0; i < N_ELEMS(roles); i++) {
		int fd = fix_connect(roles[i]);

		for (size_t m = 0; m < CSM_M__COUNT; m++) {
			int r = fix_ask_empty(fd, csm_str_of(csm_methods[m].name));

			if (!(csm_methods[m].roles & roles[i])) {
				assert_int_equal(r, CSM_EROLE);
				refused++;
			} else if (csm_methods[m].where == CSM_W_NONE) {
				assert_int_equal(r, CSM_EUNSUPPORTED);
				assert_non_null(strstr(fix.last.message, "reserved"));
				served++;
			} else {
				assert_true(r == 0 || r == CSM_EINVALID || r == CSM_ESTATE);
				served++;
			}
		}
		fix_close(fd);
	}
	/* Every row has one role at least, and those of the private roles are few. */
	assert_true(served >= CSM_M__COUNT && refused > served);
}

static void expect_in_state(int fd, enum csm_role role, enum broker_state now, int refusal)
{
	for (size_t m = 0; m < CSM_M__COUNT; m++) {
		const struct csm_method *method = &csm_methods[m];
		int r;

		if (!(method->roles & role) || method->where == CSM_W_NONE)
			continue;
		fix.t.b.state = now;
		r = fix_ask_empty(fd, csm_str_of(method->name));
		if (method->states == CSM_S_READY)
			assert_int_equal(r, refusal);
		else
			assert_true(r == 0 || r == CSM_EINVALID || r == CSM_ESTATE);
	}
}

static void what_is_served_in_which_state(void **state)
{
	static const struct {
		enum broker_state now;
		int refusal;
	} states[] = {{BROKER_STARTING, CSM_EUNAVAILABLE}, {BROKER_LOCKED, CSM_ETAMPERED}, {BROKER_STOPPING, CSM_ESHUTDOWN}};
	int admin = fix_connect(CSM_R_ADMIN);

	(void)state;
	for (size_t i = 0; i < N_ELEMS(states); i++) {
		expect_in_state(pub, CSM_R_PUBLIC, states[i].now, states[i].refusal);
		fix_close(admin);
		admin = fix_connect(CSM_R_ADMIN);
		expect_in_state(admin, CSM_R_ADMIN, states[i].now, states[i].refusal);
	}
	fix.t.b.state = BROKER_READY;
	assert_int_equal(fix_ask_empty(admin, CSM_STR("ping")), 0);
	fix_close(admin);
}

/* ---- methods and fields ---- */

static void unknown_methods(void **state)
{
	static const char *const names[] = {"Ping", "ping ", "pin", "pingg", "", "key.", "do_PING", "key.sign\n",
		"key.sign_init.and.more.than.any.method.has.in.its.name"};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(names); i++)
		assert_int_equal(fix_ask_empty(pub, csm_str_of(names[i])), CSM_EUNKNOWN_METHOD);
	assert_int_equal(fix_ask_empty(pub, CSM_STR("ping")), 0);
}

struct bytes {
	const char *what;
	const char *p;
	size_t n;
};
#define BYTES(what, literal) {(what), (literal), sizeof(literal) - 1}

static int send_bytes(int fd, const struct bytes *b)
{
	return testbroker_send(&fix.t, fd, b->p, b->n);
}

/* What is wrong with a field names it, and the connection stays. */
static void fields_that_are_wrong(void **state)
{
	static const struct {
		struct bytes request;
		int error;
		const char *names;
	} cases[] = {
		{BYTES("unknown field", "\x94\x00\x05\xa4ping\x91\x81\xa6" "colour\xa3" "red"), CSM_EUNSUPPORTED_FIELD, "colour"},
		{BYTES("a number for bytes", "\x94\x00\x05\xa4ping\x91\x81\xa4" "data\x07"), CSM_EINVALID, "data"},
		{BYTES("text for bytes", "\x94\x00\x05\xa4ping\x91\x81\xa4" "data\xa1x"), CSM_EINVALID, "data"},
		{BYTES("nil for bytes", "\x94\x00\x05\xa4ping\x91\x81\xa4" "data\xc0"), CSM_EINVALID, "data"},
		{BYTES("a negative number", "\x94\x00\x05\xa6random\x91\x81\xa5" "bytes\xff"), CSM_EINVALID, "bytes"},
		{BYTES("a missing field", "\x94\x00\x05\xa8key.show\x91\x80"), CSM_EINVALID, "key"},
		{BYTES("text that is none", "\x94\x00\x05\xa8key.show\x91\x81\xa3" "key\xa2\xff\xfe"), CSM_EINVALID, "key"},
		{BYTES("a number above its bound", "\x94\x00\x05\xa6random\x91\x81\xa5" "bytes\xce\x00\x01\x00\x01"),
			CSM_ETOO_LARGE, "bytes"},
		{BYTES("a map in a list", "\x94\x00\x05\xaasecret.set\x91\x82\xa6secret\xa3" "d/n\xa5pairs\x91\x81\xa4" "nope\x01"),
			CSM_EUNSUPPORTED_FIELD, "nope"},
	};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(cases); i++) {
		int r;

		assert_int_equal(send_bytes(pub, &cases[i].request), 0);
		r = fix_next(pub);
		if (r != cases[i].error)
			fail_msg("%s: %s", cases[i].request.what, csm_err_name(r));
		assert_int_equal(fix.last.msgid, 5);
		if (strstr(fix.last.message, cases[i].names) == NULL)
			fail_msg("%s: \"%s\" does not name it", cases[i].request.what, fix.last.message);
	}
	assert_int_equal(fix_ask_empty(pub, CSM_STR("ping")), 0);
}

/* ---- frames ---- */

/* With a msgid: one error, then the end. */
static void frames_that_close_with_an_error(void **state)
{
	static const struct bytes cases[] = {
		BYTES("a float", "\x94\x00\x05\xa4ping\x91\x81\xa4" "data\xcb\x00\x00\x00\x00\x00\x00\x00\x00"),
		BYTES("an ext", "\x94\x00\x05\xa4ping\x91\x81\xa4" "data\xd4\x01\x01"),
		BYTES("0xc1", "\x94\x00\x05\xa4ping\x91\xc1"),
		BYTES("a key twice", "\x94\x00\x05\xa4ping\x91\x82\xa4" "data\xc4\x01x\xa4" "data\xc4\x01x"),
		BYTES("a key that is no text", "\x94\x00\x05\xa4ping\x91\x81\x01\x02"),
		BYTES("params that are no list", "\x94\x00\x05\xa4ping\x80"),
		BYTES("two params", "\x94\x00\x05\xa4ping\x92\x80\x80"),
		BYTES("params of text", "\x94\x00\x05\xa4ping\x91\xa1x"),
		BYTES("a method that is a number", "\x94\x00\x05\x07\x91\x80"),
		BYTES("too deep", "\x94\x00\x05\xa4ping\x91\x81\xa4" "data\x91\x91\x91\x91\x91\x91\x91\x91\x90"),
		BYTES("more than there can be", "\x94\x00\x05\xa4ping\x91\xdd\xff\xff\xff\xff"),
		BYTES("a megabyte", "\x94\x00\x05\xa4ping\x91\x81\xa4" "data\xc6\x00\x10\x00\x01"),
	};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(cases); i++) {
		int fd = fix_connect(CSM_R_PUBLIC), r;

		assert_int_equal(send_bytes(fd, &cases[i]), 0);
		r = fix_next(fd);
		if ((r != CSM_EPROTOCOL && r != CSM_ETOO_LARGE) || fix.last.msgid != 5)
			fail_msg("%s: %s", cases[i].what, csm_err_name(r));
		r = fix_next(fd);
		if (r != CSM_ECLOSED)
			fail_msg("%s is not the end", cases[i].what);
		fix_close(fd);
	}
}

static void frames_that_close(void **state)
{
	static const struct bytes cases[] = {
		BYTES("an answer from a client", "\x94\x01\x05\xc0\x80"),
		BYTES("a type that is none", "\x94\x03\x05\xa4ping\x91\x80"),
		BYTES("a map", "\x80"),
		BYTES("a number", "\x00"),
		BYTES("text", "GET / HTTP/1.1\r\n\r\n"),
		BYTES("two values", "\x92\x00\x05"),
		BYTES("five values", "\x95\x00\x05\xa4ping\x91\x80\x01"),
		BYTES("a negative msgid", "\x94\x00\xff\xa4ping\x91\x80"),
		BYTES("a msgid of 33 bits", "\x94\x00\xcf\x00\x00\x00\x01\x00\x00\x00\x00\xa4ping\x91\x80"),
		BYTES("TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
	};
	uint64_t before = fix.t.loop->protocol_errors;

	(void)state;
	for (size_t i = 0; i < N_ELEMS(cases); i++) {
		int fd = fix_connect(CSM_R_PUBLIC);

		assert_int_equal(send_bytes(fd, &cases[i]), 0);
		if (!fix_ends(fd))
			fail_msg("%s is not the end", cases[i].what);
		fix_close(fd);
	}
	assert_int_equal(fix.t.loop->protocol_errors - before, N_ELEMS(cases));
	assert_int_equal(fix_ask_empty(pub, CSM_STR("ping")), 0);
}

static void notifications_are_ignored(void **state)
{
	static const struct bytes cases[] = {
		BYTES("a known method", "\x93\x02\xa4ping\x91\x80"),
		BYTES("an unknown one", "\x93\x02\xa1x\x91\x80"),
		BYTES("one with an effect", "\x93\x02\xad" "domain.create\x91\x81\xa6" "domain\xa8" "unwanted"),
	};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(cases); i++)
		assert_int_equal(send_bytes(pub, &cases[i]), 0);
	/* The one answer is that of the ping. */
	assert_int_equal(fix_ask_empty(pub, CSM_STR("ping")), 0);
	assert_int_equal(fix.reader.buf.len, fix.reader.used);
	assert_int_equal(fix_domain(pub, "domain.show", "unwanted"), CSM_ENOT_FOUND);
}

static void a_msgid_in_flight_is_not_used_again(void **state)
{
	static const uint8_t digest[32];
	struct csm_msg_sign_req m = {.key = CSM_STR("slow"), .digest = {digest, 32}};
	int r;

	(void)state;
	assert_int_equal(fix_create(pub, "slow", "p256", "fake", NULL), 0);
	/* After its answer it may be. */
	assert_int_equal(testbroker_request(&fix.t, pub, 4, "key.sign", &m), 0);
	assert_int_equal(fix_next(pub), 0);
	assert_int_equal(testbroker_request(&fix.t, pub, 4, "key.sign", &m), 0);
	/* Others are free meanwhile, and overtake. */
	assert_int_equal(fix_ask_empty(pub, CSM_STR("ping")), 0);
	assert_int_equal(fix.last.msgid, 9);
	assert_int_equal(fix_next(pub), 0);
	assert_int_equal(fix.last.msgid, 4);
	assert_int_equal(testbroker_request(&fix.t, pub, 4, "key.sign", &m), 0);
	assert_int_equal(testbroker_request(&fix.t, pub, 4, "key.sign", &m), 0);
	assert_int_equal(fix_next(pub), CSM_EPROTOCOL);
	assert_int_equal(fix.last.msgid, 4);
	while ((r = fix_next(pub)) == 0)
		assert_int_equal(fix.last.msgid, 4);
	assert_int_equal(r, CSM_ECLOSED);
}

/* ---- hello, ping ---- */

static void hello_and_ping(void **state)
{
	struct csm_msg_hello_req hello = {.version = {1, true}, .client = CSM_STR("test")};
	struct csm_msg_hello_res limits;
	struct csm_msg_ping_req ping = {.data = {(const uint8_t *)"0123456789", 10}};
	struct csm_msg_ping_res pong;
	uint8_t big[65] = {0};

	(void)state;
	assert_int_equal(fix_call(pub, "hello", &hello, &limits), 0);
	assert_int_equal(limits.version.v, CSM_PROTO_VERSION);
	assert_int_equal(limits.max_message.v, CSM_MESSAGE_MAX);
	assert_int_equal(limits.max_depth.v, CSM_DEPTH_MAX);
	assert_int_equal(limits.max_in_flight.v, CSM_IN_FLIGHT_MAX);
	hello.version.v = 2;
	assert_int_equal(fix_call(pub, "hello", &hello, &limits), CSM_EUNSUPPORTED);
	assert_int_equal(fix_call(pub, "ping", &ping, &pong), 0);
	assert_int_equal(pong.data.n, 10);
	assert_memory_equal(pong.data.p, "0123456789", 10);
	ping.data = (struct csm_bin){NULL, 0};
	assert_int_equal(fix_call(pub, "ping", &ping, &pong), 0);
	assert_null(pong.data.p);
	ping.data = (struct csm_bin){big, 64};
	assert_int_equal(fix_call(pub, "ping", &ping, &pong), 0);
	ping.data.n = 65;
	assert_int_equal(fix_call(pub, "ping", &ping, &pong), CSM_ETOO_LARGE);
}

/* ---- names ---- */

static void names_that_are_not_well_formed(void **state)
{
	static const char *const keys[] = {"", ":", "a:", ":b", "a:b:c", "a/b", "..", ".x", "-x", "UP:x", "a b:x", "x*", "x?",
		"x\\", "x[", "tab\there", "new\nline", "uid-0:a/b", "web:../etc"};
	static const char *const secrets[] = {"", "d", "/", "d/", "/n", "a:d", "d/n/m", "d/..", "../n", "a:d/n:x", "d/*"};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(keys); i++) {
		struct csm_msg_key_req key = {.key = csm_str_of(keys[i])};
		struct csm_msg_domain_req domain = {.domain = csm_str_of(keys[i])};
		struct csm_msg_secret_list_req list = {.domain = csm_str_of(keys[i])};
		struct csm_msg_list_req ns = {.namespace = csm_str_of(keys[i])};

		/* a dot begins the name of a key of the connection, see test_connkey */
		assert_int_equal(fix_ask(pub, "key.show", &key), strcmp(keys[i], ".x") == 0 ? CSM_ENOT_FOUND : CSM_EINVALID);
		assert_int_equal(fix_ask(pub, "domain.show", &domain), CSM_EINVALID);
		assert_int_equal(fix_ask(pub, "domain.create", &domain), CSM_EINVALID);
		assert_int_equal(fix_ask(pub, "secret.list", &list), CSM_EINVALID);
		assert_int_equal(fix_ask(pub, "key.list", &ns), CSM_EINVALID);
		assert_int_equal(fix_create(pub, keys[i], NULL, NULL, NULL), CSM_EINVALID);
	}
	for (size_t i = 0; i < N_ELEMS(secrets); i++) {
		struct csm_msg_secret_get_req get = {.secret = csm_str_of(secrets[i])};

		assert_int_equal(fix_ask(pub, "secret.get", &get), CSM_EINVALID);
		assert_int_equal(fix_set(pub, secrets[i], "v", -1, NULL, NULL), CSM_EINVALID);
	}
	/* A NUL is no end. */
	struct csm_msg_key_req nul = {.key = {"a\0b", 3}};
	assert_int_equal(fix_ask(pub, "key.show", &nul), CSM_EINVALID);
}

static const char *namespace_of(int fd, const char *bare, char ns[static 64])
{
	struct csm_msg_key_req m = {.key = csm_str_of(bare)};
	struct csm_msg_key_info info;

	if (fix_call(fd, "key.show", &m, &info) != 0)
		return "(none)";
	memcpy(ns, info.namespace.p, info.namespace.n);
	ns[info.namespace.n] = '\0';
	return ns;
}

static void bare_names(void **state)
{
	int web = fix_connect_as(70001), two, own, admin;
	char ns[64];

	(void)state;
	assert_int_equal(fix_create(web, "bare", NULL, NULL, NULL), 0);
	assert_string_equal(namespace_of(web, "bare", ns), "web");
	assert_string_equal(namespace_of(web, "web:bare", ns), "web");
	two = fix_connect_as(70002);
	struct csm_msg_key_req m = {.key = CSM_STR("bare")};
	assert_int_equal(fix_ask(two, "key.show", &m), CSM_EAMBIGUOUS);
	assert_non_null(strstr(fix.last.message, "na"));
	assert_non_null(strstr(fix.last.message, "nb"));
	own = fix_connect_as(70004);
	assert_int_equal(fix_create(own, "bare", NULL, NULL, NULL), 0);
	assert_string_equal(namespace_of(own, "bare", ns), "uid-70004");
	assert_int_equal(fix_create(own, "web:other", NULL, NULL, NULL), CSM_EDENIED);
	/* On the admin socket it is the caller's own. */
	assert_int_equal(fix_create(pub, "bare", NULL, NULL, NULL), 0);
	admin = fix_connect(CSM_R_ADMIN);
	assert_string_equal(namespace_of(admin, "bare", ns), "uid-0");
	fix_close(web);
	fix_close(two);
	fix_close(own);
	fix_close(admin);
}

static void uids_without_a_namespace(void **state)
{
	static const uid_t uids[] = {61184, 65519, 100000, 2000000000u};

	(void)state;
	for (size_t i = 0; i < N_ELEMS(uids); i++) {
		int fd = fix_connect_as(uids[i]);
		struct csm_msg_random_req m = {.bytes = {8, true}};

		assert_int_equal(fix_create(fd, "k", NULL, NULL, NULL), CSM_EDENIED);
		assert_int_equal(fix_ask(fd, "random", &m), 0);
		fix_close(fd);
	}
}

/* Without a policy file: whoever has a uid of its own. */
static void without_a_policy(void **state)
{
	struct csm_msg_random_req m = {.bytes = {8, true}};
	int fd;

	(void)state;
	fix_close(pub);
	fix_stop();
	fix_start(NULL, NULL);
	fd = fix_connect_as(70001);
	assert_int_equal(fix_create(fd, "k", NULL, NULL, NULL), 0);
	assert_int_equal(fix_create(fd, "web:k", NULL, NULL, NULL), CSM_EDENIED);
	assert_int_equal(fix_ask(fd, "random", &m), 0);
	fix_close(fd);
	fd = fix_connect_as(61184);
	assert_int_equal(fix_create(fd, "k", NULL, NULL, NULL), CSM_EDENIED);
	assert_int_equal(fix_ask_empty(fd, CSM_STR("ping")), 0);
	fix_close(fd);
	fix_stop();
	fix_start("sign=delay:100ms", policy);
	pub = fix_connect(CSM_R_PUBLIC);
}

/* ---- what a refusal tells ---- */

struct told {
	int error;
	bool retryable;
	uint64_t after;
	char message[513];
};

static struct told tell(int fd, const char *method, const void *params)
{
	struct told t = {.error = fix_ask(fd, method, params)};

	t.retryable = fix.last.retryable;
	t.after = fix.last.retry_after_ms;
	snprintf(t.message, sizeof(t.message), "%s", fix.last.message);
	return t;
}

/* The answer for a name that is not there is the answer for one that is forbidden. */
static void expect_same(int fd, const char *method, const void *missing, const void *forbidden)
{
	struct told a = tell(fd, method, missing), b = tell(fd, method, forbidden);

	if (a.error != CSM_EDENIED || b.error != CSM_EDENIED || strcmp(a.message, b.message) != 0 ||
		a.retryable != b.retryable || a.after != b.after)
		fail_msg("%s: missing %s \"%s\", forbidden %s \"%s\"", method, csm_err_name(a.error), a.message,
			csm_err_name(b.error), b.message);
}

static void missing_or_forbidden_is_not_told(void **state)
{
	static const uint8_t some[32];
	struct csm_msg_key_req key[2] = {{.key = CSM_STR("web:none")}, {.key = CSM_STR("na:none")}};
	struct csm_msg_key_delete_req del[2] = {{.key = CSM_STR("web:none")}, {.key = CSM_STR("na:none")}};
	struct csm_msg_sign_req sign[2] = {
		{.key = CSM_STR("web:none"), .digest = {some, 32}}, {.key = CSM_STR("na:none"), .digest = {some, 32}}};
	struct csm_msg_sign_init_req init[2] = {{.key = CSM_STR("web:none")}, {.key = CSM_STR("na:none")}};
	struct csm_msg_decrypt_req dec[2] = {
		{.key = CSM_STR("web:none"), .ciphertext = {some, 32}}, {.key = CSM_STR("na:none"), .ciphertext = {some, 32}}};
	struct csm_msg_derive_req derive[2] = {
		{.key = CSM_STR("web:none"), .peer = {some, 32}}, {.key = CSM_STR("na:none"), .peer = {some, 32}}};
	struct csm_msg_csr_req csr[2] = {{.key = CSM_STR("web:none"), .subject = CSM_STR("/CN=x")},
		{.key = CSM_STR("na:none"), .subject = CSM_STR("/CN=x")}};
	struct csm_msg_domain_req domain[2] = {{.domain = CSM_STR("web:none")}, {.domain = CSM_STR("na:none")}};
	struct csm_msg_secret_list_req list[2] = {{.domain = CSM_STR("web:none")}, {.domain = CSM_STR("na:none")}};
	struct csm_msg_secret_get_req get[2] = {{.secret = CSM_STR("web:none/x")}, {.secret = CSM_STR("na:none/x")}};
	struct csm_msg_secret_delete_req sdel[2] = {{.secret = CSM_STR("web:none/x")}, {.secret = CSM_STR("na:none/x")}};
	struct csm_msg_pair pair = {.name = CSM_STR("a"), .value = {some, 1}};
	struct csm_msg_secret_set_req set[2] = {{.secret = CSM_STR("web:none/x"), .pairs = {&pair, 1}},
		{.secret = CSM_STR("na:none/x"), .pairs = {&pair, 1}}};
	int blind = fix_connect_as(70003), web;

	(void)state;
	expect_same(blind, "key.show", &key[0], &key[1]);
	expect_same(blind, "key.public", &key[0], &key[1]);
	expect_same(blind, "key.delete", &del[0], &del[1]);
	expect_same(blind, "key.sign", &sign[0], &sign[1]);
	expect_same(blind, "key.sign_init", &init[0], &init[1]);
	expect_same(blind, "key.decrypt", &dec[0], &dec[1]);
	expect_same(blind, "key.derive", &derive[0], &derive[1]);
	expect_same(blind, "key.csr", &csr[0], &csr[1]);
	expect_same(blind, "domain.show", &domain[0], &domain[1]);
	expect_same(blind, "domain.delete", &domain[0], &domain[1]);
	expect_same(blind, "secret.get", &get[0], &get[1]);
	expect_same(blind, "secret.delete", &sdel[0], &sdel[1]);
	expect_same(blind, "secret.set", &set[0], &set[1]);
	fix_close(blind);
	blind = fix_connect_as(70005);
	expect_same(blind, "secret.list", &list[0], &list[1]);
	/* Who may list is told. */
	web = fix_connect_as(70001);
	assert_int_equal(fix_ask(web, "key.show", &key[0]), CSM_ENOT_FOUND);
	assert_int_equal(fix_ask(web, "key.sign", &sign[0]), CSM_ENOT_FOUND);
	assert_int_equal(fix_ask(web, "key.delete", &del[0]), CSM_ENOT_FOUND);
	assert_int_equal(fix_ask(web, "domain.show", &domain[0]), CSM_ENOT_FOUND);
	assert_int_equal(fix_ask(web, "secret.list", &list[0]), CSM_ENOT_FOUND);
	assert_int_equal(fix_ask(web, "secret.get", &get[0]), CSM_ENOT_FOUND);
	assert_int_equal(fix_ask(web, "secret.set", &set[0]), CSM_ENOT_FOUND);
	assert_int_equal(fix_ask(web, "secret.delete", &sdel[0]), CSM_ENOT_FOUND);
	/* And of another namespace nothing. */
	assert_int_equal(fix_ask(web, "key.show", &key[1]), CSM_EDENIED);
	fix_close(blind);
	fix_close(web);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FIX_TEST(each_role_has_its_own_rows),
		FIX_TEST(what_is_served_in_which_state),
		FIX_TEST(unknown_methods),
		FIX_TEST(fields_that_are_wrong),
		FIX_TEST(frames_that_close_with_an_error),
		FIX_TEST(frames_that_close),
		FIX_TEST(notifications_are_ignored),
		FIX_TEST(a_msgid_in_flight_is_not_used_again),
		FIX_TEST(hello_and_ping),
		FIX_TEST(names_that_are_not_well_formed),
		FIX_TEST(bare_names),
		FIX_TEST(uids_without_a_namespace),
		FIX_TEST(without_a_policy),
		FIX_TEST(missing_or_forbidden_is_not_told),
	};

	if (!fix_prepare(120, "sign=delay:100ms", policy))
		return 77;
	return cmocka_run_group_tests(tests, fix_begin, fix_end);
}
