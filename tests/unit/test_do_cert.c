/* cert.install, get, list, delete, by requests to a whole broker. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/lib/brokerfix.h"
#include "tests/lib/certmake.h"

static const char policy[] =
	"version: 1\n"
	"default: uid-namespaces\n"
	"identities:\n"
	"  root: {uid: 0}\n"
	"  reader: {uid: 70061}\n"
	"  blind: {uid: 70062}\n"
	"  installer: {uid: 70063}\n"
	"rules:\n"
	"  - {allow: [key.create, key.delete, cert.install, cert.get, cert.list, cert.delete, key.show, key.list], to: [root], "
	"on: [\"web:*\"]}\n"
	"  - {allow: [cert.get, key.public], to: [reader], on: [\"web:*\"]}\n"
	"  - {allow: [cert.get, cert.delete], to: [blind], on: [\"web:*\"]}\n"
	"  - {allow: [cert.install], to: [installer], on: [\"web:tls\"]}\n";

static int admin;
static EVP_PKEY *ca_key;
static X509 *ca;

/* A certificate for the key of that name, with its CA's behind it when `whole`. */
static void make_for(const char *name, const char *subject, bool whole, struct csm_buf *out)
{
	struct csm_msg_key_public_req m = {.key = csm_str_of(name)};
	struct csm_msg_key_public_res res;
	EVP_PKEY *key;
	X509 *x;

	assert_int_equal(fix_call(admin, "key.public", &m, &res), 0);
	key = cert_key_of(res.spki);
	x = cert_make(&(struct certspec){.subject = subject, .key = key, .signer = ca, .signer_key = ca_key, .serial = "0BAD"});
	csm_buf_reset(out);
	cert_der(x, out);
	if (whole)
		cert_der(ca, out);
	X509_free(x);
	EVP_PKEY_free(key);
}

static int install_as(int fd, const char *name, const struct csm_buf *chain, const char *rid, struct csm_msg_cert_info *info)
{
	struct csm_msg_cert_install_req m = {
		.key = csm_str_of(name), .chain = {csm_buf_ptr(chain), chain->len}, .request_id = csm_str_of(rid)};

	return fix_call(fd, "cert.install", &m, info);
}

static int get_as(int fd, const char *name, struct csm_msg_cert_info *info)
{
	struct csm_msg_key_req m = {.key = csm_str_of(name)};

	return fix_call(fd, "cert.get", &m, info);
}

static int delete_as(int fd, const char *method, const char *name, const char *rid)
{
	struct csm_msg_key_delete_req m = {.key = csm_str_of(name), .request_id = csm_str_of(rid)};
	struct csm_msg_empty none;

	return fix_call(fd, method, &m, &none);
}

static int begin(void **state)
{
	if (fix_begin(state) != 0)
		return -1;
	ca_key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	ca = cert_make(&(struct certspec){.subject = "/CN=ca", .key = ca_key, .ca = true});
	return 0;
}

static int end(void **state)
{
	X509_free(ca);
	EVP_PKEY_free(ca_key);
	return fix_end(state);
}

static int setup(void **state)
{
	int r = fix_setup(state);

	admin = fix_connect(CSM_R_ADMIN);
	return r;
}

static int teardown(void **state)
{
	fix_close(admin);
	return fix_teardown(state);
}

static void one_is_installed_and_told(void **state)
{
	struct csm_msg_cert_info info;
	struct csm_msg_key_info key;
	struct csm_msg_key_req show = {.key = CSM_STR("a")};
	struct csm_buf chain;

	(void)state;
	csm_buf_init(&chain, CSM_MESSAGE_MAX, false);
	assert_int_equal(fix_create(pub, "a", NULL, NULL, NULL), 0);
	assert_int_equal(get_as(pub, "a", &info), CSM_ENOT_FOUND);
	assert_int_equal(get_as(pub, "none", &info), CSM_ENOT_FOUND);
	make_for("a", "/O=x/CN=a", true, &chain);
	assert_int_equal(install_as(pub, "a", &chain, NULL, &info), 0);
	assert_null(info.chain.p);
	for (int i = 0; i < 2; i++) {
		assert_true(csm_str_eq(info.namespace, "uid-0"));
		assert_true(csm_str_eq(info.name, "a"));
		assert_true(csm_str_eq(info.subject, "/O=x/CN=a"));
		assert_true(csm_str_eq(info.issuer, "/CN=ca"));
		assert_true(csm_str_eq(info.serial, "0bad"));
		assert_true(csm_str_eq(info.state, "valid"));
		assert_int_equal(info.last_error.n, 0);
		assert_true(info.installed.v > 1600000000);
		assert_int_equal(get_as(pub, "uid-0:a", &info), 0);
	}
	assert_int_equal(info.chain.n, chain.len);
	assert_memory_equal(info.chain.p, csm_buf_ptr(&chain), chain.len);
	assert_int_equal(fix_call(pub, "key.show", &show, &key), 0);
	assert_non_null(key.certificate);
	assert_true(csm_str_eq(key.certificate->serial, "0bad"));
	assert_true(csm_str_eq(key.certificate->state, "valid"));
	assert_int_equal(key.certificate->fingerprint.n, 64);
	/* another in its place */
	make_for("a", "/CN=second", false, &chain);
	assert_int_equal(install_as(pub, "a", &chain, NULL, &info), 0);
	assert_int_equal(get_as(pub, "a", &info), 0);
	assert_true(csm_str_eq(info.subject, "/CN=second"));
	assert_int_equal(info.chain.n, chain.len);
	csm_buf_free(&chain);
}

static void what_is_not_the_keys_is_refused(void **state)
{
	struct csm_msg_cert_info info;
	struct csm_buf chain, empty;

	(void)state;
	csm_buf_init(&chain, CSM_MESSAGE_MAX, false);
	csm_buf_init(&empty, 1, false);
	assert_int_equal(fix_create(pub, "b", NULL, NULL, NULL), 0);
	make_for("a", "/CN=a", true, &chain);
	struct csm_msg_cert_install_req m = {.key = CSM_STR("b"), .chain = {csm_buf_ptr(&chain), chain.len}};
	assert_int_equal(fix_ask(pub, "cert.install", &m), CSM_EINVALID);
	assert_non_null(strstr(fix.last.message, "not this key's"));
	assert_int_equal(get_as(pub, "b", &info), CSM_ENOT_FOUND);
	assert_int_equal(install_as(pub, "none", &chain, NULL, &info), CSM_ENOT_FOUND);
	m.chain = (struct csm_bin){(const uint8_t *)"", 0};
	assert_int_equal(fix_call(pub, "cert.install", &m, &info), CSM_EINVALID);
	m.chain = (struct csm_bin){(const uint8_t *)"no certificate", 14};
	assert_int_equal(fix_call(pub, "cert.install", &m, &info), CSM_EINVALID);
	/* what was there stays */
	m.key = CSM_STR("a");
	assert_int_equal(fix_call(pub, "cert.install", &m, &info), CSM_EINVALID);
	assert_int_equal(get_as(pub, "a", &info), 0);
	assert_true(csm_str_eq(info.subject, "/CN=second"));
	csm_buf_free(&chain);
	csm_buf_free(&empty);
}

static void retries_are_done_once(void **state)
{
	struct csm_msg_cert_info info;
	struct csm_buf first, second;

	(void)state;
	csm_buf_init(&first, CSM_MESSAGE_MAX, false);
	csm_buf_init(&second, CSM_MESSAGE_MAX, false);
	make_for("a", "/CN=first", false, &first);
	make_for("a", "/CN=other", false, &second);
	assert_int_equal(install_as(pub, "a", &first, "rid-1", &info), 0);
	assert_int_equal(install_as(pub, "a", &second, NULL, &info), 0);
	assert_int_equal(install_as(pub, "a", &first, "rid-1", &info), 0);
	assert_true(csm_str_eq(info.subject, "/CN=first")); /* the answer of then */
	assert_int_equal(get_as(pub, "a", &info), 0);
	assert_true(csm_str_eq(info.subject, "/CN=other")); /* but nothing was done */
	assert_int_equal(install_as(pub, "a", &second, "rid-1", &info), CSM_ECONFLICT);
	assert_int_equal(delete_as(pub, "cert.delete", "a", "rid-2"), 0);
	assert_int_equal(delete_as(pub, "cert.delete", "a", "rid-2"), 0);
	assert_int_equal(delete_as(pub, "cert.delete", "a", NULL), CSM_ENOT_FOUND);
	assert_int_equal(get_as(pub, "a", &info), CSM_ENOT_FOUND);
	csm_buf_free(&first);
	csm_buf_free(&second);
}

static void it_goes_with_its_key(void **state)
{
	struct csm_msg_cert_info info;
	struct csm_msg_key_req show = {.key = CSM_STR("gone")};
	struct csm_msg_key_info key;
	struct csm_buf chain;

	(void)state;
	csm_buf_init(&chain, CSM_MESSAGE_MAX, false);
	assert_int_equal(fix_create(pub, "gone", NULL, NULL, NULL), 0);
	make_for("gone", "/CN=x", false, &chain);
	assert_int_equal(install_as(pub, "gone", &chain, NULL, &info), 0);
	assert_int_equal(delete_as(pub, "key.delete", "gone", NULL), 0);
	assert_int_equal(get_as(pub, "gone", &info), CSM_ENOT_FOUND);
	assert_int_equal(fix_create(pub, "gone", NULL, NULL, NULL), 0);
	assert_int_equal(get_as(pub, "gone", &info), CSM_ENOT_FOUND);
	assert_int_equal(fix_call(pub, "key.show", &show, &key), 0);
	assert_null(key.certificate);
	assert_int_equal(install_as(pub, "gone", &chain, NULL, &info), CSM_EINVALID);
	csm_buf_free(&chain);
}

static void put_done(struct csm_store_op *op)
{
	atomic_store((atomic_int *)op->arg, 1);
}

/* A record that cannot be read takes nothing else along: the key is told of and signs, and a new certificate mends it. */
static void a_damaged_one_leaves_its_key(void **state)
{
	static const uint8_t junk[] = {9, 9, 9};
	struct csm_msg_key_req m = {.key = CSM_STR("hurt")};
	struct csm_msg_key_info key;
	struct csm_msg_cert_info info;
	struct csm_msg_sign_res sig;
	struct csm_key_record rec;
	atomic_int done = 0;
	struct csm_store_op op = {.kind = CSM_OP_CERT_SET, .ns = CSM_STR("uid-0"), .name = CSM_STR("hurt"), .done = put_done,
		.arg = &done, .payload = {junk, sizeof(junk)}};
	struct csm_reader *reader = fix.t.loop->reader;
	struct csm_buf chain;

	(void)state;
	csm_buf_init(&chain, CSM_MESSAGE_MAX, false);
	assert_int_equal(fix_create(pub, "hurt", NULL, NULL, NULL), 0);
	make_for("hurt", "/CN=x", false, &chain);
	assert_int_equal(csm_reader_begin(reader), 0);
	assert_int_equal(csm_store_key_get(reader, op.ns, op.name, false, NULL, &rec), 0);
	memcpy(op.key.id, rec.id, sizeof(rec.id));
	csm_reader_end(reader);
	assert_int_equal(csm_store_submit(fix.t.b.store, &op), 0);
	for (int i = 0; i < 1000 && atomic_load(&done) == 0; i++)
		usleep(5000);
	assert_true(atomic_load(&done) == 1 && op.r == 0);
	assert_int_equal(get_as(pub, "hurt", &info), CSM_ETAMPERED);
	assert_int_equal(fix_call(pub, "key.show", &m, &key), 0);
	assert_non_null(key.certificate);
	assert_true(csm_str_eq(key.certificate->state, "damaged"));
	assert_int_equal(key.certificate->serial.n, 0);
	assert_int_equal(fix_sign(pub, "hurt", &sig), 0);
	assert_int_equal(install_as(pub, "hurt", &chain, NULL, &info), 0);
	assert_int_equal(fix_call(pub, "key.show", &m, &key), 0);
	assert_true(csm_str_eq(key.certificate->state, "valid"));
	assert_int_equal(delete_as(pub, "key.delete", "hurt", NULL), 0);
	csm_buf_free(&chain);
}

static int list(int fd, const char *ns, const char *after, uint64_t limit, struct csm_msg_cert_list_res *res)
{
	struct csm_msg_list_req m = {
		.namespace = csm_str_of(ns), .after = csm_str_of(after), .limit = {limit, limit != 0}};

	return fix_call(fd, "cert.list", &m, res);
}

static void lists(void **state)
{
	struct csm_msg_cert_list_res res;
	struct csm_msg_cert_info info;
	struct csm_buf chain;
	char name[16];

	(void)state;
	csm_buf_init(&chain, CSM_MESSAGE_MAX, false);
	for (int i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "web:k%d", i);
		assert_int_equal(fix_create(pub, name, NULL, NULL, NULL), 0);
		make_for(name, "/CN=listed", i == 2, &chain);
		if (i != 1)
			assert_int_equal(install_as(pub, name, &chain, NULL, &info), 0);
	}
	assert_int_equal(list(pub, "web", NULL, 2, &res), 0);
	assert_int_equal(res.certs.n, 2);
	assert_true(res.more.v);
	assert_true(csm_str_eq(res.certs.v[0].name, "k0"));
	assert_true(csm_str_eq(res.certs.v[0].namespace, "web"));
	assert_true(csm_str_eq(res.certs.v[1].name, "k2"));
	assert_true(csm_str_eq(res.certs.v[1].subject, "/CN=listed"));
	assert_true(csm_str_eq(res.certs.v[1].state, "valid"));
	assert_int_equal(list(pub, "web", "k2", 0, &res), 0);
	assert_int_equal(res.certs.n, 1);
	assert_false(res.more.v);
	assert_int_equal(list(admin, "web", NULL, 0, &res), 0);
	assert_int_equal(res.certs.n, 3);
	csm_buf_free(&chain);
}

/* A long list of long chains comes in pages that do not hold the loop up. */
static void long_lists_come_in_pages(void **state)
{
	struct csm_msg_cert_list_res res;
	struct csm_msg_cert_info info;
	struct csm_buf chain;
	char name[16], after[16] = "";
	static char san[40000];
	size_t n = 0, seen = 0, pages = 0;
	EVP_PKEY *key;
	X509 *x;

	(void)state;
	csm_buf_init(&chain, CSM_MESSAGE_MAX, false);
	for (unsigned i = 0; i < 200; i++)
		n += (size_t)snprintf(san + n, sizeof(san) - n, "%sDNS:a-rather-long-name-of-a-host-%u.some.example.org",
			i > 0 ? "," : "", i);
	for (int i = 0; i < 40; i++) {
		struct csm_msg_key_public_req m = {.key = {name, 0}};
		struct csm_msg_key_public_res res_key;

		m.key.n = (size_t)snprintf(name, sizeof(name), "long%02d", i);
		assert_int_equal(fix_create(pub, name, NULL, NULL, NULL), 0);
		assert_int_equal(fix_call(pub, "key.public", &m, &res_key), 0);
		key = cert_key_of(res_key.spki);
		x = cert_make(&(struct certspec){.subject = "/CN=long", .key = key, .signer = ca, .signer_key = ca_key, .san = san});
		csm_buf_reset(&chain);
		cert_der(x, &chain);
		assert_int_equal(install_as(pub, name, &chain, NULL, &info), 0);
		X509_free(x);
		EVP_PKEY_free(key);
	}
	do {
		assert_int_equal(list(pub, NULL, after, 1000, &res), 0);
		assert_true(res.certs.n > 0);
		for (size_t i = 0; i < res.certs.n; i++)
			seen += csm_str_eq(res.certs.v[i].subject, "/CN=long");
		snprintf(after, sizeof(after), "%.*s", (int)res.certs.v[res.certs.n - 1].name.n,
			res.certs.v[res.certs.n - 1].name.p);
		pages++;
	} while (res.more.v);
	assert_int_equal(seen, 40);
	assert_true(pages > 2 && pages < 10);
	csm_buf_free(&chain);
}

/* Policy first; and what is there is told only to those who may see it. */
static void others(void **state)
{
	int reader = fix_connect_as(70061), blind = fix_connect_as(70062), installer = fix_connect_as(70063),
	    stranger = fix_connect_as(70064);
	struct csm_msg_cert_list_res res;
	struct csm_msg_cert_info info;
	struct csm_buf chain;

	(void)state;
	csm_buf_init(&chain, CSM_MESSAGE_MAX, false);
	assert_int_equal(fix_create(pub, "web:tls", NULL, NULL, NULL), 0);
	make_for("web:tls", "/CN=tls", false, &chain);
	assert_int_equal(install_as(stranger, "web:tls", &chain, NULL, &info), CSM_EDENIED);
	assert_int_equal(install_as(reader, "web:tls", &chain, NULL, &info), CSM_EDENIED);
	assert_int_equal(install_as(stranger, "uid-0:a", &chain, NULL, &info), CSM_EDENIED);
	assert_int_equal(install_as(admin, "uid-70064:a", &chain, NULL, &info), CSM_EDENIED); /* looks and deletes, no more */
	assert_int_equal(install_as(installer, "web:tls", &chain, NULL, &info), 0);
	assert_int_equal(install_as(installer, "web:k0", &chain, NULL, &info), CSM_EDENIED);
	assert_int_equal(install_as(installer, "web:none", &chain, NULL, &info), CSM_EDENIED);
	assert_int_equal(get_as(installer, "web:tls", &info), CSM_EDENIED);
	assert_int_equal(get_as(reader, "web:tls", &info), 0);
	assert_int_equal(get_as(reader, "web:k1", &info), CSM_ENOT_FOUND); /* sees the key */
	assert_int_equal(get_as(reader, "web:none", &info), CSM_EDENIED);
	assert_int_equal(get_as(blind, "web:tls", &info), 0);
	assert_int_equal(get_as(blind, "web:k1", &info), CSM_EDENIED);
	assert_int_equal(get_as(blind, "web:none", &info), CSM_EDENIED);
	assert_int_equal(get_as(stranger, "web:tls", &info), CSM_EDENIED);
	assert_int_equal(get_as(admin, "web:tls", &info), 0);
	assert_int_equal(list(reader, "web", NULL, 0, &res), CSM_EDENIED);
	assert_int_equal(list(stranger, "uid-0", NULL, 0, &res), CSM_EDENIED);
	assert_int_equal(delete_as(stranger, "cert.delete", "web:tls", NULL), CSM_EDENIED);
	assert_int_equal(delete_as(reader, "cert.delete", "web:tls", NULL), CSM_EDENIED);
	assert_int_equal(delete_as(blind, "cert.delete", "web:k1", NULL), CSM_EDENIED);
	assert_int_equal(delete_as(blind, "cert.delete", "web:tls", NULL), 0);
	assert_int_equal(delete_as(admin, "cert.delete", "web:k0", NULL), 0);
	assert_int_equal(get_as(pub, "web:k0", &info), CSM_ENOT_FOUND);
	csm_buf_free(&chain);
	fix_close(reader);
	fix_close(blind);
	fix_close(installer);
	fix_close(stranger);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(one_is_installed_and_told),
		TEST(what_is_not_the_keys_is_refused),
		TEST(retries_are_done_once),
		TEST(it_goes_with_its_key),
		TEST(a_damaged_one_leaves_its_key),
		TEST(lists),
		TEST(long_lists_come_in_pages),
		TEST(others),
	};

	if (!fix_prepare(120, NULL, policy))
		return 77;
	return cmocka_run_group_tests(tests, begin, end);
}
